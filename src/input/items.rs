// SPDX-License-Identifier: Apache-2.0
//! Values of any form, and texts with placeholders, as recipes and profiles have them.

use std::fmt::Display;
use std::sync::Arc;

use indexmap::IndexMap;

use super::fields::{Fields, Section, items};
use super::scalar::{Scalar, classify};
use super::yaml::{Node, Value};
use crate::diagnostic::Diagnostic;
use crate::plan::config::Field;
use crate::plan::content::Content;
use crate::plan::expr::{Expr, Pattern};
use crate::plan::origin::{Label, Traced};
use crate::plan::profile::{Choice, ConfigItem, Item};
use crate::plan::template::Template;

/// The most entries of a mapping of variables or arguments.
const MAX_ENTRIES: usize = 1000;

impl<'d> Fields<'d> {
    /// A value of any form; its texts are literal.
    pub(super) fn content(&self, path: &dyn Display, node: &Node) -> Result<Content, Diagnostic> {
        Ok(match &node.value {
            Value::Scalar { text, plain: false } => Content::Text(Template::literal(text)),
            Value::Scalar { text, plain: true } => {
                let out_of_range = || {
                    let message = format!("{path}: {text} is out of range for a JSON number");
                    Err(self.wrong(node.position, message).help("put a text in quotes"))
                };
                let int = |number: i128| match i64::try_from(number) {
                    Ok(number) => Ok(Content::Int(number)),
                    Err(_) => out_of_range(),
                };
                match classify(text) {
                    Scalar::Null => Content::Null,
                    Scalar::Bool(value) => Content::Bool(value),
                    Scalar::Int(number) => int(number)?,
                    Scalar::Float(number) if number.is_finite() => Content::Float(number),
                    Scalar::Float(_) => return out_of_range(),
                    Scalar::Text => Content::Text(Template::literal(text)),
                    Scalar::Ambiguous { yaml11, yaml12 } => {
                        let help = "put a text in quotes, or write a number that both read alike";
                        let error = self.ambiguous(path, node.position, yaml11, yaml12);
                        return Err(error.help(help));
                    }
                }
            }
            Value::List(items) => {
                let item = |(at, item)| self.content(&format_args!("{path}[{at}]"), item);
                Content::List(items.iter().enumerate().map(item).collect::<Result<_, _>>()?)
            }
            Value::Map(entries) => {
                let entry = |(key, node): &(super::yaml::Key, Node)| {
                    let value = self.content(&format_args!("{path}.{}", key.name), node)?;
                    Ok((key.name.to_string(), value))
                };
                Content::Map(entries.iter().map(entry).collect::<Result<_, Diagnostic>>()?)
            }
        })
    }

    /// The number of a port.
    pub(super) fn port_number(&mut self, path: &str, node: &Node) -> Result<u16, Diagnostic> {
        let port = self.whole_number(path, node).ok().and_then(|number| u16::try_from(number).ok());
        let wrong = || self.wrong(node.position, format!("{path} must be a port from 1 to 65535"));
        port.filter(|port| *port > 0).ok_or_else(wrong)
    }

    /// The entries of a mapping, each read by a function of its path and node. What is wrong with
    /// one is an error.
    pub(super) fn entries_of<T>(
        &mut self,
        parent: &Section<'d>,
        key: &str,
        mut read: impl FnMut(&mut Self, &Label, &'d Node) -> Result<T, Diagnostic>,
    ) -> IndexMap<String, Traced<T>> {
        let section = self.section(parent, key);
        let mut entries = IndexMap::new();
        for (at, (key, node)) in section.entries().iter().enumerate() {
            let path = section.path_of(&key.name);
            if at >= MAX_ENTRIES {
                self.error(key.position, format!("{path}: more than {MAX_ENTRIES} entries"));
                break;
            }
            match read(self, &path, node) {
                Ok(value) => {
                    let traced = Traced::new(value, self.origin(path, node.position));
                    entries.insert(key.name.to_string(), traced);
                }
                Err(error) => self.diagnostics.push(error),
            }
        }
        entries
    }

    /// The entries of a mapping of a profile. What is in them is named by the key alone: an anchor
    /// may repeat it.
    pub(super) fn parts_of<T>(
        &mut self,
        parent: &Section<'d>,
        key: &'static str,
        mut read: impl FnMut(&mut Self, &Label, &'d Node) -> Result<T, Diagnostic>,
    ) -> IndexMap<String, T> {
        let (section, label) = (self.section(parent, key), Label::from(key));
        if let Some((key, _)) = section.entries().get(MAX_ENTRIES) {
            self.error(key.position, format!("{label}: more than {MAX_ENTRIES} entries"));
        }
        let mut parts = IndexMap::with_capacity(section.entries().len().min(MAX_ENTRIES));
        for (key, node) in section.entries().iter().take(MAX_ENTRIES) {
            match read(self, &label, node) {
                Ok(part) => drop(parts.insert(key.name.to_string(), part)),
                Err(error) => self.diagnostics.push(error),
            }
        }
        parts
    }

    /// A list of words of a command; one text counts as a list of one when it has no blanks.
    pub(super) fn list_of_words(&mut self, section: &Section<'d>, key: &str) -> Field<Vec<String>> {
        self.field(section, key, |fields, path, node| {
            let words = items(node).iter().map(|item| fields.one_text(path, item));
            let words: Vec<_> = words.collect::<Result<_, _>>()?;
            match &node.value {
                Value::Scalar { text, .. } if text.contains([' ', '\t']) => {
                    let message =
                        format!("{path} must be a list of words, not one text with blanks");
                    let list = text.split_whitespace().map(|word| format!("{word:?}"));
                    let list = list.collect::<Vec<_>>().join(", ");
                    let help = match text.contains(['"', '\'']) {
                        true => format!("write one item for each word, or [{text:?}] for one word"),
                        false => format!("write [{list}], or [{text:?}] for one word"),
                    };
                    Err(fields.wrong(node.position, message).help(help))
                }
                Value::Scalar { text, .. } if text.is_empty() => {
                    Err(fields.wrong(node.position, format!("{path} must not be empty")))
                }
                _ => Ok(words),
            }
        })
    }

    /// A text with placeholders.
    pub(super) fn pattern(&self, path: &Label, node: &Node) -> Result<Traced<Pattern>, Diagnostic> {
        let Value::Scalar { text, .. } = &node.value else {
            let message = format!("{path} must be text, not {}", node.kind());
            return Err(self.wrong(node.position, message));
        };
        let pattern = Pattern::parse(text);
        let pattern =
            pattern.map_err(|(offset, why)| self.inside_wrong(node, text, offset, path, &why));
        Ok(Traced::new(pattern?, self.origin(path.clone(), node.position)))
    }

    /// An expression, without braces.
    pub(super) fn expr(&self, path: &Label, node: &Node) -> Result<Traced<Expr>, Diagnostic> {
        let Value::Scalar { text, .. } = &node.value else {
            let message = format!("{path} must be text, not {}", node.kind());
            return Err(self.wrong(node.position, message));
        };
        let expr = Expr::parse(text);
        let expr = expr.map_err(|(offset, why)| self.inside_wrong(node, text, offset, path, &why));
        Ok(Traced::new(expr?, self.origin(path.clone(), node.position)))
    }

    fn inside_wrong(
        &self,
        node: &Node,
        text: &str,
        at: usize,
        path: &str,
        why: &str,
    ) -> Diagnostic {
        self.wrong(self.inside(node, text, at), format!("{path}: {why}"))
    }

    /// A part of a command: a word, a list of parts, `{if: …, then: …, else: …}` or
    /// `{each: ROLE, words: […]}`.
    pub(super) fn item(&mut self, path: &Label, node: &'d Node) -> Result<Item, Diagnostic> {
        // Where the first of it is: of nothing, that says nothing.
        let there = match &node.value {
            Value::List(items) if !items.is_empty() => items.as_ptr().addr(),
            Value::Map(entries) if !entries.is_empty() => entries.as_ptr().addr(),
            _ => return self.item_here(path, node),
        };
        if let Some(item) = self.parts.get(&there) {
            return Ok(item.clone());
        }
        let item = self.item_here(path, node)?;
        self.parts.insert(there, item.clone());
        Ok(item)
    }

    fn item_here(&mut self, path: &Label, node: &'d Node) -> Result<Item, Diagnostic> {
        match &node.value {
            Value::Scalar { .. } => Ok(Item::Word(self.pattern(path, node)?)),
            Value::List(items) => Ok(Item::All(all(items, |item| self.item(path, item))?.into())),
            Value::Map(_) => {
                let section = Section::of(path.clone(), node);
                if let Some(condition) = node.get("if") {
                    self.refuse_unknown(&section, &["if", "then", "else"]);
                    let condition = self.expr(path, condition)?;
                    let mut part = |key: &str| match node.get(key) {
                        Some(node) => self.item(path, node),
                        None => Ok(Item::default()),
                    };
                    let (then, otherwise) = (part("then")?, part("else")?);
                    return Ok(Item::If(Arc::new(Choice { condition, then, otherwise })));
                }
                self.refuse_unknown(&section, &["each", "words"]);
                let (Some(role), Some(words)) = (node.get("each"), node.get("words")) else {
                    let help = "write {if: …, then: …, else: …} or {each: ROLE, words: […]}";
                    let message = format!("{path} has neither `if` nor `each` with `words`");
                    return Err(self.wrong(node.position, message).help(help));
                };
                let role = self.one_text(path, role)?;
                let Value::List(words) = &words.value else {
                    let message = format!("{path}.words must be a list, not {}", words.kind());
                    return Err(self.wrong(words.position, message));
                };
                let words = all(words, |word| self.pattern(path, word))?.into();
                Ok(Item::Each { role, words })
            }
        }
    }

    /// A value of a configuration file whose texts have placeholders.
    pub(super) fn config_item(&self, path: &Label, node: &Node) -> Result<ConfigItem, Diagnostic> {
        Ok(match &node.value {
            Value::Scalar { text, plain } if !plain || classify(text) == Scalar::Text => {
                ConfigItem::Text(self.pattern(path, node)?)
            }
            Value::Scalar { .. } => ConfigItem::Plain(self.content(path, node)?),
            Value::List(items) => {
                ConfigItem::List(all(items, |item| self.config_item(path, item))?)
            }
            Value::Map(entries) => {
                let entry = |(key, node): &(super::yaml::Key, Node)| {
                    Ok((key.name.to_string(), self.config_item(path, node)?))
                };
                ConfigItem::Map(entries.iter().map(entry).collect::<Result<_, Diagnostic>>()?)
            }
        })
    }
}

/// What is made of all of a list, unless one of it is wrong.
fn all<'d, T, R>(
    items: &'d [T],
    mut read: impl FnMut(&'d T) -> Result<R, Diagnostic>,
) -> Result<Vec<R>, Diagnostic> {
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        all.push(read(item)?);
    }
    Ok(all)
}
