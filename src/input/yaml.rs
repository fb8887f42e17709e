// SPDX-License-Identifier: Apache-2.0
//! YAML as a tree of located nodes, built from the parser's events.
//!
//! Scalars keep their text and whether they were quoted, because what a plain scalar means differs
//! between YAML 1.1 (PyYAML, which the tests use) and 1.2: `scalar` decides, where it matters.
//! Depth, size and what aliases repeat are bounded, so that no file costs more than its length.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::yaml_error;
use crate::diagnostic::{Diagnostic, Diagnostics, Location, Position, Source};

/// The deepest nesting that is read.
const MAX_DEPTH: usize = 64;
/// The most nodes a document may have.
const MAX_NODES: usize = 200_000;
/// How much anchors and aliases may repeat: real files repeat a few short values.
const MAX_REPEATED: Size = Size { nodes: 20_000, bytes: 1 << 20 };

/// A node of a document.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its place.
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
    /// Its place.
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

/// A document and its warnings.
#[derive(Debug)]
pub struct Document {
    /// The text.
    pub source: Arc<Source>,
    /// Its root; `None` for an empty document.
    pub root: Option<Node>,
    /// Warnings, such as duplicate keys.
    pub warnings: Diagnostics,
    /// Texts of one line that nodes come from too.
    others: Vec<Arc<Source>>,
}

/// From this line on, a position is in one of the other texts. No file has so many lines.
const OTHERS: u32 = 1 << 31;

impl Document {
    /// The location of a position in this document.
    pub fn at(&self, position: Position) -> Location {
        let other = position.line.checked_sub(OTHERS).and_then(|at| self.others.get(at as usize));
        match other {
            Some(source) => {
                Location { source: source.clone(), position: Position { line: 1, ..position } }
            }
            None => Location { source: self.source.clone(), position },
        }
    }

    /// Takes nodes of another text too, one line long; returns the line of their positions.
    pub fn add_source(&mut self, source: Arc<Source>) -> u32 {
        self.others.push(source);
        OTHERS + self.others.len() as u32 - 1
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
        anchors: HashMap::new(),
        size: Size::default(),
        repeated: Size::default(),
        documents: 0,
        root: None,
        warnings: Diagnostics::default(),
    };
    if let Some(at) = source.text.find('\0') {
        let message = "a NUL byte cannot be in a YAML file";
        return Err(builder.error(source.position(at), message).into());
    }
    for event in Parser::new_from_str(&source.text) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let at = position(Span::empty(*error.marker()));
                let (wrong, position) = yaml_error::explain(source, error.info(), at);
                return Err(wrong.at(Location { source: source.clone(), position }).into());
            }
        }
    }
    let Builder { root, warnings, .. } = builder;
    Ok(Document { source: source.clone(), root, warnings, others: Vec::new() })
}

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    nodes: usize,
    /// Of scalars' texts.
    bytes: usize,
}

impl Size {
    fn grow(&mut self, by: Self) {
        self.nodes += by.nodes;
        self.bytes += by.bytes;
    }

    fn since(self, before: Self) -> Self {
        Self { nodes: self.nodes - before.nodes, bytes: self.bytes - before.bytes }
    }
}

struct Builder<'s> {
    source: &'s Arc<Source>,
    stack: Vec<Open>,
    /// By anchor id: a copy of the node.
    anchors: HashMap<usize, (Node, Size)>,
    /// Of all nodes so far, aliases resolved.
    size: Size,
    /// Of the copies that anchors and aliases made.
    repeated: Size,
    documents: usize,
    root: Option<Node>,
    warnings: Diagnostics,
}

/// A collection whose end has not come yet.
struct Open {
    anchor: usize,
    position: Position,
    size_before: Size,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map(Map),
}

#[derive(Default)]
struct Map {
    entries: Vec<(Key, Node)>,
    /// Where each key is among the entries.
    known: HashMap<String, usize>,
    merges: Vec<Node>,
    /// A key whose value has not come yet.
    key: Option<Key>,
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
                if text.contains('\0') {
                    let error = self.error(at, "this value contains an escaped NUL");
                    return Err(error.help("remove the `\\0`, `\\x00` or `\\u0000`"));
                }
                let size = Size { nodes: 1, bytes: text.len() };
                self.count(at, size)?;
                let value = Value::Scalar { text: text.into_owned(), plain };
                self.add(Node { position: at, value }, anchor, size)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at)?;
                self.open(anchor, at, Items::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at)?;
                self.open(anchor, at, Items::Map(Map::default()))?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => {
                let Some((_, size)) = self.anchors.get(&id) else {
                    return Err(self.error(at, "this alias refers to the node that contains it"));
                };
                let size = *size;
                self.count(at, size)?;
                self.repeat(at, size)?;
                let value = self.anchors[&id].0.value.clone();
                self.add(Node { position: at, value }, 0, size)?;
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn count(&mut self, at: Position, size: Size) -> Result<(), Diagnostic> {
        self.size.grow(size);
        if self.size.nodes > MAX_NODES {
            return Err(self.error(at, format!("the file has more than {MAX_NODES} values")));
        }
        Ok(())
    }

    /// Counts a copy before it is made.
    fn repeat(&mut self, at: Position, size: Size) -> Result<(), Diagnostic> {
        self.repeated.grow(size);
        let Size { nodes, bytes } = MAX_REPEATED;
        if self.repeated.nodes > nodes || self.repeated.bytes > bytes {
            let message = format!("anchors and aliases repeat more than {nodes} values or 1 MiB");
            return Err(self.error(at, message).help("write values out instead of repeating them"));
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
        let size_before = self.size;
        self.count(at, Size { nodes: 1, bytes: 0 })?;
        self.stack.push(Open { anchor, position: at, size_before, items });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Diagnostic> {
        let Some(open) = self.stack.pop() else { return Ok(()) };
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map(map) => Value::Map(self.merge(map)?),
        };
        let size = self.size.since(open.size_before);
        self.add(Node { position: open.position, value }, open.anchor, size)
    }

    fn add(&mut self, mut node: Node, anchor: usize, size: Size) -> Result<(), Diagnostic> {
        if anchor > 0 {
            self.repeat(node.position, size)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node).filter(|root| !is_null(root));
            return Ok(());
        };
        let map = match &mut open.items {
            Items::List(items) => {
                items.push(node);
                return Ok(());
            }
            Items::Map(map) => map,
        };
        let Some(key) = map.key.take() else {
            let Value::Scalar { text, .. } = node.value else {
                let error = self.error(node.position, "a key must be a single value");
                return Err(error.help("put a value that begins with `{` or `[` in quotes"));
            };
            map.key = Some(Key { name: text, position: node.position });
            return Ok(());
        };
        if matches!(&node.value, Value::Scalar { text, .. } if text.is_empty()) && is_null(&node) {
            // The parser places what is missing at the next token, which may be past the end.
            let Position { line, column, length } = key.position;
            node.position = Position { line, column: column + length, length: 1 };
        }
        if key.name == MERGE {
            map.merges.push(node);
            return Ok(());
        }
        let next = map.entries.len();
        match *map.known.entry(key.name.clone()).or_insert(next) {
            at if at == next => map.entries.push((key, node)),
            at => {
                let message = format!(
                    "duplicate key `{}` (first on line {}); the last value is used",
                    key.name, map.entries[at].0.position.line
                );
                let location = Location { source: self.source.clone(), position: key.position };
                let warning = Diagnostic::warning(message).at(location);
                self.warnings.push(warning.help("remove one of them"));
                // As PyYAML does, which the tests read the same file with.
                map.entries[at] = (key, node);
            }
        }
        Ok(())
    }

    fn merge(&self, map: Map) -> Result<Vec<(Key, Node)>, Diagnostic> {
        let Map { mut entries, merges, .. } = map;
        let mut known: HashSet<String> = match merges.is_empty() {
            true => return Ok(entries),
            false => entries.iter().map(|(key, _)| key.name.clone()).collect(),
        };
        let sources = merges.into_iter().flat_map(|node| match node.value {
            Value::List(items) => items,
            _ => vec![node],
        });
        for source in sources {
            let Value::Map(merged) = source.value else {
                let message = "`<<` takes a mapping or a list of mappings";
                return Err(self.error(source.position, message));
            };
            let new = merged.into_iter().filter(|(key, _)| known.insert(key.name.clone()));
            entries.extend(new);
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

/// A document's text: what [`parse`] makes of it is `node` again.
pub fn write(node: &Node) -> String {
    let mut text = String::new();
    write_below(&mut text, node, 0);
    text.trim_start().to_owned()
}

/// Writes a node behind the key or the dash of its line.
fn write_below(text: &mut String, node: &Node, indent: usize) {
    let start = |text: &mut String| {
        text.push('\n');
        text.push_str(&" ".repeat(indent));
    };
    match &node.value {
        Value::Scalar { text: value, plain } => {
            *text += " ";
            *text += &if *plain && !value.contains('\n') { value.clone() } else { quoted(value) };
        }
        Value::List(items) if items.is_empty() => *text += " []",
        Value::Map(entries) if entries.is_empty() => *text += " {}",
        Value::List(items) => {
            for item in items {
                start(text);
                text.push('-');
                write_below(text, item, indent + 2);
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                start(text);
                let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let plain = !key.name.is_empty() && key.name.chars().all(is_plain);
                *text += &if plain { key.name.clone() } else { quoted(&key.name) };
                text.push(':');
                write_below(text, value, indent + 2);
            }
        }
    }
    if indent == 0 {
        text.push('\n');
    }
}

/// A text in double quotes, with the escapes that every reader of YAML knows.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        _ if c.is_alphanumeric() => c.to_string(),
        _ => format!("\\U{:08x}", u32::from(c)),
    });
    format!("\"{}\"", escaped.collect::<String>())
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
        Arc::new(Source::new("t.yaml", text))
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
        assert!(
            document.warnings.to_string().starts_with("t.yaml:2:1: warning: duplicate key `a`")
        );
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for i in 1..12 {
            let aliases = vec![format!("*a{}", i - 1); 10].join(",");
            text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
        }
        assert!(refused(&text).contains("repeat more than 20000 values"));
    }

    #[test]
    fn bytes_that_aliases_and_anchors_repeat_are_counted() {
        let long = "x".repeat(30_000);
        let aliases = format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(1000));
        assert!(refused(&aliases).contains("1 MiB"));
        let anchors: String = (0..60).map(|i| format!("&a{i} [")).collect();
        assert!(refused(&format!("{anchors}{long}{}", "]".repeat(60))).contains("1 MiB"));
        let few = format!("a: &a [{long}]\nb: [*a, *a]\nc: {{<<: {{d: *a}}}}\n");
        assert!(parse(&source(&few)).is_ok());
    }

    #[test]
    fn many_keys_take_time_in_proportion() {
        // Compared one by one, these keys take minutes.
        let different: String = (0..98_000).map(|i| format!("k{i}: 1\n")).collect();
        let document = parse(&source(&different)).unwrap();
        assert!(matches!(document.root.unwrap().value, Value::Map(all) if all.len() == 98_000));
        let document = parse(&source(&"k: 1\n".repeat(98_000))).unwrap();
        assert_eq!((document.warnings.0.len(), document.warnings.has_errors()), (101, false));
        let _ = document.warnings.to_string();
        let merged = format!("{{<<: {{{}}}}}", different.replace('\n', ", "));
        assert!(parse(&source(&merged)).is_ok());
    }

    #[test]
    fn a_value_that_is_missing_stands_behind_its_key() {
        let document = parse(&source("a:\nb:\n  c:\n")).unwrap().root.unwrap();
        let place =
            |node: Option<&Node>| (node.unwrap().position.line, node.unwrap().position.column);
        assert_eq!(place(document.get("a")), (1, 2));
        assert_eq!(place(document.get("b").unwrap().get("c")), (3, 4));
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
        for nul in ["\\0", "\\x00", "\\u0000", "\\U00000000"] {
            let error = refused(&format!("a: 1\nb: \"x{nul}\"\n"));
            assert!(error.starts_with("t.yaml:2:4: error: this value contains an esc"), "{error}");
        }
        assert!(refused("\"\\0\": 1").starts_with("t.yaml:1:1: "));
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
