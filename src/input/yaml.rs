// SPDX-License-Identifier: Apache-2.0
//! YAML as a tree of located nodes, built from the parser's events.
//!
//! Scalars keep their text and whether they were quoted, because what a plain scalar means differs
//! between YAML 1.1 (PyYAML, which the tests use) and 1.2: `scalar` decides, where it matters.
//! Depth, size and what aliases repeat are bounded, so that no file costs more than its length.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Deref;
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

/// What a node is. The files that are compiled in are read when this program is built (`build.rs`), so
/// what they have is borrowed.
#[derive(Debug, Clone)]
pub enum Value {
    /// A scalar's text, and whether it was plain: only a plain one can be a number or null.
    Scalar {
        /// The text, with quotes and escapes resolved.
        text: Cow<'static, str>,
        /// Whether it was neither quoted nor a block scalar.
        plain: bool,
    },
    /// A sequence.
    List(Items<Node>),
    /// A mapping, in the order of the file, merge keys resolved, every key once.
    Map(Items<(Key, Node)>),
}

/// What is in a list or a mapping: the same wherever an alias repeats it.
#[derive(Debug, Clone)]
pub struct Items<T: 'static> {
    /// Of a file that is compiled in.
    compiled: &'static [T],
    /// Of any other.
    read: Option<Arc<Vec<T>>>,
}

impl<T: Clone> Items<T> {
    /// Of a file that is compiled in.
    pub const fn compiled(compiled: &'static [T]) -> Self {
        Self { compiled, read: None }
    }

    /// To be changed, in this place alone.
    pub fn to_mut(&mut self) -> &mut Vec<T> {
        Arc::make_mut(self.read.get_or_insert_with(|| Arc::new(self.compiled.to_vec())))
    }
}

impl<T> Deref for Items<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.read.as_ref().map_or(self.compiled, |read| read)
    }
}

impl<T> From<Vec<T>> for Items<T> {
    fn from(items: Vec<T>) -> Self {
        Self { compiled: &[], read: Some(Arc::new(items)) }
    }
}

/// A mapping's key.
#[derive(Debug, Clone)]
pub struct Key {
    /// Its text.
    pub name: Cow<'static, str>,
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
    /// A document whose text was read when this program was built.
    pub fn compiled(source: Arc<Source>, root: &'static Node) -> Self {
        let warnings = Diagnostics::default();
        Self { source, root: Some(root.clone()), warnings, others: Vec::new() }
    }

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
    items: Collected,
}

enum Collected {
    List(Vec<Node>),
    Map(Map),
}

#[derive(Default)]
struct Map {
    entries: Vec<(Key, Node)>,
    /// Where each key is among the entries, once they are many.
    known: HashMap<Cow<'static, str>, usize>,
    merges: Vec<Node>,
    /// A key whose value has not come yet.
    key: Option<Key>,
}

/// How many keys are quicker to compare than to look up.
const FEW: usize = 16;

impl Map {
    fn index_of(&self, name: &str) -> Option<usize> {
        match self.known.is_empty() {
            true => self.entries.iter().position(|(key, _)| key.name == name),
            false => self.known.get(name).copied(),
        }
    }

    fn push(&mut self, key: Key, node: Node) {
        self.entries.push((key, node));
        let last = self.entries.len() - 1;
        let new = if last == FEW { 0 } else { last };
        if last >= FEW {
            let names = (new..).zip(&self.entries[new..]);
            self.known.extend(names.map(|(at, (key, _))| (key.name.clone(), at)));
        }
    }
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
                let value = Value::Scalar { text: text.into_owned().into(), plain };
                self.add(Node { position: at, value }, anchor, size)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at)?;
                self.open(anchor, at, Collected::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at)?;
                self.open(anchor, at, Collected::Map(Map::default()))?;
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

    fn open(&mut self, anchor: usize, at: Position, items: Collected) -> Result<(), Diagnostic> {
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
            Collected::List(items) => Value::List(items.into()),
            Collected::Map(map) => Value::Map(self.merge(map)?.into()),
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
            Collected::List(items) => {
                items.push(node);
                return Ok(());
            }
            Collected::Map(map) => map,
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
        match map.index_of(&key.name) {
            None => map.push(key, node),
            Some(at) => {
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
        let mut known: HashSet<Cow<'_, str>> = match merges.is_empty() {
            true => return Ok(entries),
            false => entries.iter().map(|(key, _)| key.name.clone()).collect(),
        };
        let sources = merges.into_iter().flat_map(|node| match &node.value {
            Value::List(items) => items.to_vec(),
            _ => vec![node],
        });
        for source in sources {
            let Value::Map(merged) = source.value else {
                let message = "`<<` takes a mapping or a list of mappings";
                return Err(self.error(source.position, message));
            };
            let new = merged.iter().filter(|(key, _)| known.insert(key.name.clone()));
            entries.extend(new.cloned());
        }
        Ok(entries)
    }
}

/// Whether a node is YAML's null: nothing at all, `~` or `null`.
pub fn is_null(node: &Node) -> bool {
    match &node.value {
        Value::Scalar { text, plain: true } => {
            matches!(&**text, "" | "~" | "null" | "Null" | "NULL")
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
            *text +=
                &if *plain && !value.contains('\n') { value.to_string() } else { quoted(value) };
        }
        Value::List(items) if items.is_empty() => *text += " []",
        Value::Map(entries) if entries.is_empty() => *text += " {}",
        Value::List(items) => {
            for item in &**items {
                start(text);
                text.push('-');
                write_below(text, item, indent + 2);
            }
        }
        Value::Map(entries) => {
            for (key, value) in &**entries {
                start(text);
                let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let plain = !key.name.is_empty() && key.name.chars().all(is_plain);
                *text += &if plain { key.name.to_string() } else { quoted(&key.name) };
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
mod tests;
