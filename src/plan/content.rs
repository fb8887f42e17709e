// SPDX-License-Identifier: Apache-2.0
//! Values of YAML as a plan has them: what is in files that steps are started with, and arguments.

use std::fmt::Write;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::template::{Fact, Template};

/// A value of YAML. Its texts are templates; one that is a list as a whole becomes a list, and one
/// that is a port a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(Template),
    /// A list.
    List(Vec<Content>),
    /// A mapping, in the order in which it was written.
    Map(IndexMap<String, Content>),
}

impl Content {
    /// The same with other values in place of its texts.
    pub(super) fn filled(&self, fill: &mut impl FnMut(&Template) -> Vec<Template>) -> Self {
        match self {
            Self::Text(text) => {
                let fact = text.only_slot().map(|slot| slot.fact);
                let mut items = fill(text).into_iter().map(Self::Text);
                match fact {
                    Some(fact) if fact.is_list() => Self::List(items.collect()),
                    Some(Fact::Port | Fact::Index) => match items.next() {
                        Some(Self::Text(text)) => {
                            text.as_str().parse().map_or(Self::Text(text), Self::Int)
                        }
                        other => other.unwrap_or(Self::Null),
                    },
                    _ => items.next().unwrap_or(Self::Null),
                }
            }
            Self::List(items) => Self::List(items.iter().map(|item| item.filled(fill)).collect()),
            Self::Map(entries) => {
                let filled = |(key, value): (&String, &Self)| (key.clone(), value.filled(fill));
                Self::Map(entries.iter().map(filled).collect())
            }
            other => other.clone(),
        }
    }

    /// All texts in it.
    pub fn texts(&self) -> Vec<&Template> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(items) => items.iter().flat_map(Self::texts).collect(),
            Self::Map(entries) => entries.values().flat_map(Self::texts).collect(),
            _ => Vec::new(),
        }
    }

    /// As a word of a command line: a text as it is, lists and mappings as JSON on one line.
    pub fn word(&self) -> String {
        match self {
            Self::Text(text) => text.literal_text().into_owned(),
            other => {
                let mut json = String::new();
                other.write(&mut json, None);
                json
            }
        }
    }

    /// As a file: JSON over several lines, which YAML 1.1 and 1.2 read as the same values. A text is
    /// the file itself.
    pub fn file(&self) -> String {
        if let Self::Text(text) = self {
            return text.literal_text().into_owned();
        }
        let mut json = String::new();
        self.write(&mut json, Some(0));
        json + "\n"
    }

    /// Writes JSON, on lines of its own where an indentation is given.
    fn write(&self, out: &mut String, indent: Option<usize>) {
        let within = indent.map(|indent| indent + 2);
        let line = |out: &mut String, indent: Option<usize>| {
            if let Some(indent) = indent {
                let _ = write!(out, "\n{:indent$}", "");
            }
        };
        let separator = if indent.is_some() { "," } else { ", " };
        let _ = match self {
            Self::Null => write!(out, "null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(number) => write!(out, "{number}"),
            Self::Float(number) => write!(out, "{}", float(*number)),
            Self::Text(text) => write!(out, "{}", string(&text.literal_text())),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { separator } else { "" });
                    line(out, within);
                    item.write(out, within);
                }
                line(out, indent.filter(|_| !items.is_empty()));
                write!(out, "]")
            }
            Self::Map(entries) => {
                out.push('{');
                for (at, (key, value)) in entries.iter().enumerate() {
                    out.push_str(if at > 0 { separator } else { "" });
                    line(out, within);
                    out.push_str(&string(key));
                    out.push_str(": ");
                    value.write(out, within);
                }
                line(out, indent.filter(|_| !entries.is_empty()));
                write!(out, "}}")
            }
        };
    }
}

fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// A number in a form that JSON, YAML 1.1 and 1.2 read alike: the former two need a point and a
/// sign in the exponent.
fn float(number: f64) -> String {
    let text = format!("{number:?}");
    let Some((digits, exponent)) = text.split_once('e') else { return text };
    let point = if digits.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with('-') { "" } else { "+" };
    format!("{digits}{point}e{sign}{exponent}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_and_a_file_are_json_that_every_yaml_reads() {
        let content: Content = serde_json::from_str(
            r#"{"a": 1e-5, "b": [1, 2.5, 1e21], "c": {}, "d": "x$$\n\"", "e": null}"#,
        )
        .unwrap();
        let word = r#"{"a": 1.0e-5, "b": [1, 2.5, 1.0e+21], "c": {}, "d": "x$\n\"", "e": null}"#;
        assert_eq!(content.word(), word);
        assert_eq!(
            content.file(),
            "{\n  \"a\": 1.0e-5,\n  \"b\": [\n    1,\n    2.5,\n    1.0e+21\n  ],\n  \"c\": {},\n  \
             \"d\": \"x$\\n\\\"\",\n  \"e\": null\n}\n"
        );
        let text = Content::Text(Template::literal("$HOME"));
        assert_eq!(text.word(), "$HOME");
    }
}
