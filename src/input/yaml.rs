// SPDX-License-Identifier: Apache-2.0
//! YAML as a tree of located nodes, built from the parser's events.
//!
//! Scalars keep their text and whether they were quoted, because what a plain scalar means differs
//! between YAML 1.1 (PyYAML, which the tests use) and 1.2: `scalar` decides, where it matters.
//! Depth, size and aliases are bounded, so that no file costs more than its length.

use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::diagnostic::{Diagnostic, Diagnostics, Location, Position, Source};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// The most nodes a document may have once its aliases are resolved.
const MAX_NODES: usize = 200_000;

/// A node of a document.
#[derive(Debug, Clone)]
pub struct Node {
    /// Where it stands.
    pub position: Position,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Value {
    /// A scalar's text, and whether it was plain: only a plain one can be a number or null.
    Scalar {
        /// The text, with quotes and escapes resolved.
        text: String,
        /// Whether it was neither quoted nor a block scalar.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file, merge keys resolved, every key once.
    Map(Vec<(Key, Node)>),
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its text.
    pub name: String,
    /// Where it stands.
    pub position: Position,
}

impl Node {
    /// The value of a key, when this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(k, _)| k.name == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// What people call this kind of node.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// A document and what is worth saying about it.
#[derive(Debug)]
pub struct Document {
    /// The text.
    pub source: Arc<Source>,
    /// Its root; `None` for an empty document.
    pub root: Option<Node>,
    /// Warnings, such as keys that stand twice.
    pub warnings: Vec<Diagnostic>,
}

impl Document {
    /// The location of a position in this document.
    pub fn at(&self, position: Position) -> Location {
        Location { source: self.source.clone(), position }
    }
}

/// Reads the one document of a source.
///
/// # Errors
/// Where it is not YAML, has a second document, or exceeds a bound.
pub fn parse(source: &Arc<Source>) -> Result<Document, Diagnostics> {
    let mut builder = Builder {
        source,
        stack: Vec::new(),
        anchors: Vec::new(),
        nodes: 0,
        documents: 0,
        root: None,
        warnings: Vec::new(),
    };
    if let Some(at) = source.text.find('\0') {
        let before = &source.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let position = Position { line: line as u32, column: column as u32, length: 1 };
        return Err(builder.error(position, "a NUL byte cannot be in a YAML file").into());
    }
    for event in Parser::new_from_str(&source.text) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let position = position(Span::empty(*error.marker()));
                return Err(builder.error(position, error.info().to_owned()).into());
            }
        }
    }
    let Builder { root, warnings, .. } = builder;
    Ok(Document { source: source.clone(), root, warnings })
}

struct Builder<'s> {
    source: &'s Arc<Source>,
    stack: Vec<Open>,
    /// By anchor id: the node, and how many nodes it has.
    anchors: Vec<(usize, Node, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
    warnings: Vec<Diagnostic>,
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    position: Position,
    nodes_before: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, merges: Vec<Node>, key: Option<Key> },
}

const MERGE: &str = "<<";

impl Builder<'_> {
    fn error(&self, position: Position, message: impl Into<String>) -> Diagnostic {
        let location = Location { source: self.source.clone(), position };
        Diagnostic::error(message).at(location)
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = position(span);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.error(at, "the file has a second YAML document; one is read"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = match tag {
                    Some(tag) => self.tagged_as_plain(&tag, at)?,
                    None => style == ScalarStyle::Plain,
                };
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.count(at, 1)?;
                self.add(Node { position: at, value }, anchor, 1)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at)?;
                self.open(anchor, at, Items::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at)?;
                let items = Items::Map { entries: Vec::new(), merges: Vec::new(), key: None };
                self.open(anchor, at, items)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => {
                let found = self.anchors.iter().find(|(anchor, ..)| *anchor == id);
                let Some((_, node, size)) = found.cloned() else {
                    return Err(self.error(at, "this alias refers to the node that contains it"));
                };
                self.count(at, size)?;
                self.add(Node { position: at, value: node.value }, 0, size)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn count(&mut self, at: Position, nodes: usize) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values (aliases counted)");
            return Err(self.error(at, message));
        }
        Ok(())
    }

    fn tagged_as_plain(&self, tag: &Tag, at: Position) -> Result<bool, Diagnostic> {
        match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
            (true, "str") => Ok(false),
            (true, "int" | "float" | "bool" | "null") => Ok(true),
            _ => Err(self.error(at, "YAML tags are not supported here; remove the tag")),
        }
    }

    fn refuse_tag(&self, tag: Option<&Tag>, at: Position) -> Result<(), Diagnostic> {
        match tag {
            Some(tag) if !(tag.is_yaml_core_schema() && matches!(&*tag.suffix, "map" | "seq")) => {
                Err(self.error(at, "YAML tags are not supported here; remove the tag"))
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, anchor: usize, at: Position, items: Items) -> Result<(), Diagnostic> {
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.error(at, format!("the file is nested deeper than {MAX_DEPTH}")));
        }
        let nodes_before = self.nodes;
        self.count(at, 1)?;
        self.stack.push(Open { anchor, position: at, nodes_before, items });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Diagnostic> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map { entries, merges, .. } => Value::Map(self.merge(entries, merges)?),
        };
        let size = self.nodes - open.nodes_before;
        self.add(Node { position: open.position, value }, open.anchor, size)
    }

    fn add(&mut self, node: Node, anchor: usize, size: usize) -> Result<(), Diagnostic> {
        if anchor > 0 {
            self.anchors.push((anchor, node.clone(), size));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node).filter(|root| !is_null(root));
            return Ok(());
        };
        match &mut open.items {
            Items::List(items) => items.push(node),
            Items::Map { entries, merges, key } => match key.take() {
                Some(name) if name.name == MERGE => merges.push(node),
                Some(name) => match entries.iter_mut().find(|(known, _)| known.name == name.name) {
                    // As PyYAML does, which the tests read the same file with.
                    Some(entry) => {
                        let location =
                            Location { source: self.source.clone(), position: name.position };
                        let first = entry.0.position.line;
                        self.warnings.push(
                            Diagnostic::warning(format!(
                                "`{}` stands twice in this mapping (first in line {first}); the \
                                 last one counts",
                                name.name
                            ))
                            .at(location)
                            .help("remove one of them"),
                        );
                        *entry = (name, node);
                    }
                    None => entries.push((name, node)),
                },
                None => match node.value {
                    Value::Scalar { text, .. } => {
                        *key = Some(Key { name: text, position: node.position });
                    }
                    _ => {
                        return Err(self.error(node.position, "a key must be a single value"));
                    }
                },
            },
        }
        Ok(())
    }

    fn merge(
        &self,
        mut entries: Vec<(Key, Node)>,
        merges: Vec<Node>,
    ) -> Result<Vec<(Key, Node)>, Diagnostic> {
        let refuse =
            |node: &Node| self.error(node.position, "`<<` takes a mapping or a list of mappings");
        let mut sources = Vec::new();
        for node in merges {
            match node.value {
                Value::List(items) => sources.extend(items),
                _ => sources.push(node),
            }
        }
        for source in sources {
            let Value::Map(merged) = source.value else { return Err(refuse(&source)) };
            for (key, node) in merged {
                if !entries.iter().any(|(known, _)| known.name == key.name) {
                    entries.push((key, node));
                }
            }
        }
        Ok(entries)
    }
}

/// Whether a node is YAML's null: nothing at all, `~` or `null`.
pub fn is_null(node: &Node) -> bool {
    match &node.value {
        Value::Scalar { text, plain: true } => {
            matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
        }
        _ => false,
    }
}

fn position(span: Span) -> Position {
    let Span { start, end, .. } = span;
    let length = |from: Marker, to: Marker| {
        if from.line() == to.line() { to.index().saturating_sub(from.index()) } else { 1 }
    };
    Position {
        line: start.line() as u32,
        column: start.col() as u32 + 1,
        length: length(start, end).max(1) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source { name: "t.yaml".into(), text: text.into() })
    }

    fn refused(text: &str) -> String {
        parse(&source(text)).unwrap_err().to_string()
    }

    fn scalar(node: Option<&Node>) -> (&str, bool) {
        match &node.unwrap().value {
            Value::Scalar { text, plain } => (text, *plain),
            _ => panic!("not a scalar"),
        }
    }

    #[test]
    fn scalars_keep_their_text_and_whether_they_were_quoted() {
        let document = parse(&source("a: 010\nb: '010'\nc: |\n  x\n")).unwrap();
        let root = document.root.unwrap();
        assert_eq!(scalar(root.get("a")), ("010", true));
        assert_eq!(scalar(root.get("b")), ("010", false));
        assert_eq!(scalar(root.get("c")), ("x\n", false));
        assert_eq!(root.get("b").unwrap().position, Position { line: 2, column: 4, length: 5 });
    }

    #[test]
    fn merge_keys_give_way_to_the_mapping_s_own() {
        let document = parse(&source("x: &p {t: 8, q: 2}\ny:\n  <<: *p\n  t: 2\n")).unwrap();
        let y = document.root.as_ref().unwrap().get("y").unwrap().clone();
        assert_eq!(scalar(y.get("t")).0, "2");
        assert_eq!(scalar(y.get("q")).0, "2");
    }

    #[test]
    fn a_key_that_stands_twice_is_warned_about_and_the_last_one_counts() {
        let document = parse(&source("a: 1\na: 2\n")).unwrap();
        assert_eq!(scalar(document.root.unwrap().get("a")).0, "2");
        assert!(document.warnings[0].to_string().starts_with("t.yaml:2:1: warning: `a` stands"));
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert!(refused(&text).contains("more than 200000 values"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        assert!(refused(&"[".repeat(100)).contains("nested deeper"));
        assert!(refused(&"[".repeat(100_000)).starts_with("t.yaml:1:"));
        assert!(refused(&"- ".repeat(10_000)).contains("nested deeper"));
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused_with_its_place() {
        assert!(refused("a: [\n").starts_with("t.yaml:"));
        assert!(refused("a: 1\n---\nb: 2\n").starts_with("t.yaml:2:"));
        assert!(refused("a: !!python/object:os.system x\n").starts_with("t.yaml:1:"));
        assert!(refused("a: \0\n").starts_with("t.yaml:1:4: error: a NUL byte"));
        assert!(refused("a: &a [*a]\n").starts_with("t.yaml:1:"));
        assert!(refused("a: *nowhere\n").starts_with("t.yaml:1:"));
    }

    #[test]
    fn an_empty_file_has_no_root() {
        assert!(parse(&source("")).unwrap().root.is_none());
        assert!(parse(&source("# only this\n")).unwrap().root.is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[ \\-\\[\\]{}:,&*!|>'\"#a\n\t?]{0,60}") {
            let _ = parse(&source(&text));
        }
    }
}
