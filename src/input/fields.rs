// SPDX-License-Identifier: Apache-2.0
//! Reading typed fields out of a YAML document, collecting every error instead of the first.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use super::scalar::{Reading, Scalar, classify};
use super::yaml::{Document, Key, Node, Value, is_null};
use super::yaml_error::mistyped;
use crate::diagnostic::{Diagnostic, Diagnostics, Location, Position, edit_distance, nearest};
use crate::plan::assignments::{self, Assignment};
use crate::plan::config::Field;
use crate::plan::origin::{Label, Origin, Traced};
use crate::plan::profile::Item;
use crate::plan::template::MAX_VALUE;
use crate::plan::words::WordError;

/// How many unknown keys of a file are compared with known ones.
const MOST_TYPOS: usize = 1000;

/// Reads fields of one document.
pub struct Fields<'d> {
    document: &'d Document,
    /// What was found so far, besides what is wrong with single fields.
    pub diagnostics: Diagnostics,
    /// What is wrong with single fields, whether they are used or not.
    pub bad_fields: Diagnostics,
    /// Unknown keys that look like those that size a test, with the paths that they stand for.
    pub mistyped: Vec<(String, Diagnostic)>,
    unknown_keys: usize,
    /// Parts of commands that were read, by where they are: what an anchor repeats is read once.
    pub(super) parts: HashMap<usize, Item>,
}

/// A mapping of the document and the path that leads to it.
#[derive(Clone)]
pub struct Section<'d> {
    path: Label,
    node: Option<&'d Node>,
}

impl<'d> Section<'d> {
    /// A node with the path that leads to it.
    pub(super) fn of(path: impl Into<Label>, node: &'d Node) -> Self {
        Self { path: path.into(), node: Some(node) }
    }

    /// The value of a key, where there is one.
    pub(super) fn get(&self, key: &str) -> Option<&'d Node> {
        self.node?.get(key)
    }

    pub(super) fn path_of(&self, key: &str) -> Label {
        match self.path.is_empty() {
            true => key.to_owned().into(),
            false => [&self.path, ".", key].concat().into(),
        }
    }

    /// Its place; the start of the file when it is missing.
    pub fn position(&self) -> Position {
        let start = Position { line: 1, column: 1, length: 1 };
        self.node.map_or(start, |node| node.position)
    }

    /// The mapping's entries.
    pub fn entries(&self) -> &'d [(Key, Node)] {
        match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }
}

impl<'d> Fields<'d> {
    /// Starts at the root of a document, which must be a mapping.
    pub fn new(document: &'d Document) -> (Self, Section<'d>) {
        let mut fields = Self {
            document,
            diagnostics: document.warnings.clone(),
            bad_fields: Diagnostics::default(),
            mistyped: Vec::new(),
            unknown_keys: 0,
            parts: HashMap::new(),
        };
        let root = document.root.as_ref();
        if let Some(node) = root.filter(|node| !matches!(node.value, Value::Map(_))) {
            let message = format!("the file must be a mapping of sections, not {}", node.kind());
            fields.no_mapping(node, message);
        }
        (fields, Section { path: Label::default(), node: root })
    }

    fn at(&self, position: Position) -> Location {
        self.document.at(position)
    }

    /// Reports an error at a position.
    pub fn error(&mut self, position: Position, message: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(message).at(self.at(position)));
    }

    pub(super) fn wrong(&self, position: Position, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(message).at(self.at(position))
    }

    fn no_mapping(&mut self, node: &Node, message: String) {
        let is_text = matches!(node.value, Value::Scalar { .. });
        let cause = mistyped(&self.document.source, node.position.line).filter(|_| is_text);
        self.diagnostics.push(match cause {
            Some((cause, position)) => cause.at(self.at(position)),
            None => self.wrong(node.position, message),
        });
    }

    fn warn(&mut self, position: Position, message: String, help: String) {
        self.diagnostics.push(Diagnostic::warning(message).at(self.at(position)).help(help));
    }

    pub(super) fn origin(&self, path: impl Into<Label>, position: Position) -> Origin {
        Origin { rule: Label::default(), input: path.into(), location: Some(self.at(position)) }
    }

    /// A mapping inside a mapping; a missing or null one is empty.
    pub fn section(&mut self, parent: &Section<'d>, key: &str) -> Section<'d> {
        let path = parent.path_of(key);
        let mut node = parent.node.and_then(|node| node.get(key)).filter(|node| !is_null(node));
        if let Some(wrong) = node.filter(|node| !matches!(node.value, Value::Map(_))) {
            self.no_mapping(wrong, format!("{path} must be a mapping, not {}", wrong.kind()));
            node = None;
        }
        Section { path, node }
    }

    /// Reads one field with a function of its path and node; a null one counts as missing.
    pub(super) fn field<T>(
        &mut self,
        section: &Section<'d>,
        key: &str,
        read: impl FnOnce(&mut Self, &str, &'d Node) -> Result<T, Diagnostic>,
    ) -> Field<T> {
        let found = section.node.and_then(|node| node.get(key)).filter(|node| !is_null(node));
        let Some(node) = found else { return Field::Missing };
        let path = section.path_of(key);
        match read(self, &path, node) {
            Ok(value) => Field::Good(Traced::new(value, self.origin(path, node.position))),
            Err(diagnostic) => self.bad(diagnostic),
        }
    }

    /// Notes what is wrong with a field.
    pub fn bad<T>(&mut self, diagnostic: Diagnostic) -> Field<T> {
        self.bad_fields.push(diagnostic.clone());
        Field::Bad(diagnostic)
    }

    /// Warns about keys that are not known and look like known ones. Where the known one sizes the
    /// test and is not there, that is an error: a plan with a default in its place is worse than
    /// none, and the error says more than that something is missing.
    pub fn warn_of_typos(&mut self, section: &Section<'d>, known: &[&str]) {
        for (key, _) in section.entries() {
            if known.contains(&&*key.name) || self.unknown_keys > MOST_TYPOS {
                continue;
            }
            self.unknown_keys += 1;
            if let [close, ..] = nearest(&key.name, known.iter().copied(), 1)[..] {
                let message = format!("unknown key {}", section.path_of(&key.name));
                let help = format!("did you mean `{close}`?");
                let at = self.at(key.position);
                let is_size = is_size(close) && edit_distance(&key.name, close) == 1;
                let is_there = section.entries().iter().any(|(key, _)| key.name == close);
                if is_size || (is_required(close) && !is_there) {
                    let error = Diagnostic::error(message).at(at).help(help);
                    self.mistyped.push((section.path_of(close).to_string(), error));
                } else {
                    self.diagnostics.push(Diagnostic::warning(message).at(at).help(help));
                }
            }
        }
    }

    /// The keys of a section whose values nobody filled in.
    pub fn placeholders(&self, section: &Section<'d>) -> Vec<Traced<String>> {
        let is_open = |node: &Node| match &node.value {
            Value::Scalar { text, .. } => is_placeholder(text),
            _ => false,
        };
        let open = section.entries().iter().filter(|(_, node)| is_open(node));
        open.map(|(key, node)| {
            let path = section.path_of(&key.name);
            Traced::new(path.to_string(), self.origin(path, node.position))
        })
        .collect()
    }

    /// Those of some keys of a section that ask for something: neither empty nor off nor a placeholder.
    pub fn values(&self, section: &Section<'d>, keys: &[&str]) -> impl Iterator<Item = Traced<()>> {
        let asks = |node: &Node| match &node.value {
            Value::Scalar { text, plain } => {
                let is_off = *plain && classify(text) == Scalar::Bool(false);
                !text.trim().is_empty() && !is_placeholder(text) && !is_off
            }
            _ => true,
        };
        let entries = section.entries().iter();
        let found = entries
            .filter(|(key, node)| keys.contains(&&*key.name) && !is_null(node) && asks(node));
        let origin = |(key, node): &(Key, Node)| {
            Traced::new((), self.origin(section.path_of(&key.name), node.position))
        };
        found.map(origin).collect::<Vec<_>>().into_iter()
    }

    /// Refuses keys that are not known: for files of this project's own form.
    pub fn refuse_unknown(&mut self, section: &Section<'d>, known: &[&str]) {
        for (key, _) in section.entries() {
            if known.contains(&&*key.name) || self.unknown_keys > MOST_TYPOS {
                continue;
            }
            self.unknown_keys += 1;
            let help = match nearest(&key.name, known.iter().copied(), 1)[..] {
                [close, ..] => format!("did you mean `{close}`?"),
                _ => format!("known keys: {}", known.join(", ")),
            };
            let message = format!("unknown key {}", section.path_of(&key.name));
            self.diagnostics.push(self.wrong(key.position, message).help(help));
        }
    }

    /// A whole number in a range. An empty value is wrong: it is no number, and Python's tests
    /// fail on it.
    pub fn integer(
        &mut self,
        section: &Section<'d>,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Field<u32> {
        let (low, high) = (*range.start(), *range.end());
        if let Some(node) = section.node.and_then(|node| node.get(key)).filter(|n| is_null(n)) {
            let empty = self.wrong(node.position, format!("{} has no value", section.path_of(key)));
            let help = format!("write a whole number from {low} to {high}, or remove the key");
            return self.bad(empty.help(help));
        }
        self.field(section, key, |fields, path, node| {
            let number = fields.whole_number(path, node)?;
            u32::try_from(number).ok().filter(|number| range.contains(number)).ok_or_else(|| {
                fields.wrong(node.position, format!("{path} must be from {low} to {high}"))
            })
        })
    }

    /// Whether a key is there without a value.
    pub fn is_empty(&self, section: &Section<'d>, key: &str) -> bool {
        section.node.and_then(|node| node.get(key)).is_some_and(is_null)
    }

    /// Whole seconds in a range: a number, or its digits in quotes; fractions are dropped.
    pub fn seconds(
        &mut self,
        section: &Section<'d>,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Field<u32> {
        let node = section.node.and_then(|node| node.get(key));
        let written = node.and_then(|node| match &node.value {
            Value::Scalar { text, plain: false } => number(text.trim()).map(|n| n as f64),
            Value::Scalar { text, plain: true } => match classify(text) {
                Scalar::Float(seconds) => Some(seconds),
                _ => None,
            },
            _ => None,
        });
        let (Some(node), Some(seconds)) = (node, written) else {
            return self.integer(section, key, range);
        };
        let path = section.path_of(key);
        let whole = seconds as u32;
        if !range.contains(&whole) {
            let (low, high) = (range.start(), range.end());
            let message = format!("{path} must be from {low} to {high}");
            return self.bad(self.wrong(node.position, message));
        }
        Field::Good(Traced::new(whole, self.origin(path, node.position)))
    }

    pub(super) fn whole_number(&mut self, path: &str, node: &Node) -> Result<i128, Diagnostic> {
        let at = node.position;
        let Value::Scalar { text, plain } = &node.value else {
            let message = format!("{path} must be a whole number, not {}", node.kind());
            return Err(self.wrong(at, message));
        };
        match if *plain { classify(text) } else { Scalar::Text } {
            Scalar::Int(number) => Ok(number),
            Scalar::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
                let warning = format!("{path} has a decimal point; {number} is used");
                self.warn(at, warning, format!("write {number}"));
                Ok(number as i128)
            }
            Scalar::Bool(value) => {
                let number = i128::from(value);
                let warning = format!("{path} is true or false; {number} is used");
                self.warn(at, warning, format!("write {number}"));
                Ok(number)
            }
            Scalar::Ambiguous { yaml11, yaml12 } => Err(self
                .ambiguous(path, at, yaml11, yaml12)
                .help("write the number in plain decimal digits")),
            Scalar::Text if text.trim().parse::<i128>().is_ok() => Err(self
                .wrong(at, format!("{path} is text, not a number"))
                .help(format!("write {} without quotes", text.trim()))),
            Scalar::Text | Scalar::Float(_) | Scalar::Null => {
                let error = self.wrong(at, format!("{path} must be a whole number"));
                let is_full_width = text.contains(|c: char| ('０'..='９').contains(&c));
                Err(error.help(if is_full_width { "write plain digits, 0 to 9" } else { "" }))
            }
        }
    }

    pub(super) fn ambiguous(
        &self,
        path: impl Display,
        at: Position,
        yaml11: Reading,
        yaml12: Reading,
    ) -> Diagnostic {
        self.wrong(
            at,
            format!(
                "{path} is {yaml11} to PyYAML (YAML 1.1) but {yaml12} to YAML 1.2: it is refused"
            ),
        )
    }

    /// One line of text. A number that is not quoted is taken as it is written.
    pub fn text(&mut self, section: &Section<'d>, key: &str) -> Field<String> {
        self.field(section, key, |fields, path, node| fields.one_text(path, node))
    }

    pub(super) fn one_text(&self, path: &str, node: &Node) -> Result<String, Diagnostic> {
        let Value::Scalar { text, plain } = &node.value else {
            let message = format!("{path} must be text, not {}", node.kind());
            return Err(self.wrong(node.position, message));
        };
        if let (true, Scalar::Ambiguous { yaml11, yaml12 }) = (*plain, classify(text)) {
            return Err(self
                .ambiguous(path, node.position, yaml11, yaml12)
                .help("put the value in quotes"));
        }
        if text.contains(|c: char| c.is_control()) {
            let message = format!("{path} must be one line without control characters");
            return Err(self.wrong(node.position, message));
        }
        Ok(text.to_string())
    }

    /// A list of texts; one text counts as a list of one.
    pub fn texts(&mut self, section: &Section<'d>, key: &str) -> Field<Vec<String>> {
        self.field(section, key, |fields, path, node| {
            items(node).iter().map(|item| fields.one_text(path, item)).collect()
        })
    }

    /// A truth value.
    pub fn truth(&mut self, section: &Section<'d>, key: &str) -> Field<bool> {
        self.field(section, key, |fields, path, node| {
            let meaning = match &node.value {
                Value::Scalar { text, plain: true } => classify(text),
                _ => Scalar::Text,
            };
            match meaning {
                Scalar::Bool(value) => Ok(value),
                Scalar::Ambiguous { yaml11, yaml12 } => Err(fields
                    .ambiguous(path, node.position, yaml11, yaml12)
                    .help("write true or false")),
                _ => {
                    let message = format!("{path} must be true or false, without quotes");
                    Err(fields.wrong(node.position, message))
                }
            }
        })
    }

    /// A switch that the test suite reads as Python reads any value: empty is off, other text is on.
    pub fn switch(&mut self, section: &Section<'d>, key: &str) -> Field<bool> {
        let found = section.node.and_then(|node| node.get(key));
        let Some(node) = found else { return Field::Missing };
        let path = section.path_of(key);
        let on = match &node.value {
            _ if is_null(node) => false,
            Value::Scalar { text, plain } if !plain || classify(text) == Scalar::Text => {
                let on = !text.is_empty();
                let meaning = if on { "on, whatever the text" } else { "off" };
                let message = format!("{path} is text, which the test suite reads as {meaning}");
                self.warn(node.position, message, "write true or false, without quotes".to_owned());
                on
            }
            Value::Scalar { text, .. } if matches!(classify(text), Scalar::Int(_)) => {
                let on = classify(text) != Scalar::Int(0);
                let message = format!("{path} is a number; it counts as {on}");
                self.warn(node.position, message, format!("write {on}"));
                on
            }
            _ => return self.truth(section, key),
        };
        Field::Good(Traced::new(on, self.origin(path, node.position)))
    }

    /// The mappings of a list.
    pub fn sections(&mut self, section: &Section<'d>, key: &str) -> Field<Vec<Section<'d>>> {
        self.field(section, key, |fields, path, node| {
            let Value::List(items) = &node.value else {
                let message = format!("{path} must be a list, not {}", node.kind());
                return Err(fields.wrong(node.position, message));
            };
            let entry = |(index, item): (usize, &'d Node)| match &item.value {
                Value::Map(_) => Ok(Section::of(format!("{path}[{index}]"), item)),
                _ => {
                    let message = format!("{path}[{index}] must be a mapping, not {}", item.kind());
                    Err(fields.wrong(item.position, message))
                }
            };
            items.iter().enumerate().map(entry).collect()
        })
    }

    /// One word out of a set.
    pub fn choice<T: Copy>(
        &mut self,
        section: &Section<'d>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Field<T> {
        self.field(section, key, |fields, path, node| {
            let text = fields.one_text(path, node)?;
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, value)| *value).ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                let message = format!("{path} must be one of: {}", names.join(", "));
                fields.wrong(node.position, message)
            })
        })
    }

    /// An environment string: `NAME=VALUE …`.
    pub fn assignments(&mut self, section: &Section<'d>, key: &str) -> Field<Vec<Assignment>> {
        self.field(section, key, |fields, path, node| {
            let text = fields.text_of_assignments(path, node)?;
            assignments::parse(text).map_err(|error| fields.bad_word(path, node, text, &error))
        })
    }

    /// An environment string whose words may be others too, which are dropped with a warning.
    pub(super) fn assignments_among_words(
        &mut self,
        path: &str,
        node: &Node,
    ) -> Result<Vec<Assignment>, Diagnostic> {
        let text = self.text_of_assignments(path, node)?;
        let mut dropped = Vec::new();
        let found = assignments::parse_dropping(text, &mut dropped)
            .map_err(|error| self.bad_word(path, node, text, &error))?;
        for offset in dropped {
            let at = self.at(self.inside(node, text, offset));
            let message = format!("{path}: a word that is not NAME=VALUE has no effect");
            self.diagnostics.push_once(Diagnostic::warning(message).at(at));
        }
        Ok(found)
    }

    fn text_of_assignments<'n>(&self, path: &str, node: &'n Node) -> Result<&'n str, Diagnostic> {
        let wrong = |message: String| {
            let help = "write one text: 'NAME=VALUE NAME=VALUE'";
            Err(self.wrong(node.position, message).help(help))
        };
        match &node.value {
            Value::Scalar { text, .. } if text.len() > MAX_VALUE => {
                wrong(format!("{path} is longer than {} KiB", MAX_VALUE >> 10))
            }
            Value::Scalar { text, plain: true } if !matches!(classify(text), Scalar::Text) => {
                wrong(format!("{path} must be text"))
            }
            Value::Scalar { text, .. } => Ok(text),
            _ => wrong(format!("{path} must be text, not {}", node.kind())),
        }
    }

    fn bad_word(&self, path: &str, node: &Node, text: &str, error: &WordError) -> Diagnostic {
        let position = self.inside(node, text, error.offset);
        self.wrong(position, format!("{path}: {}", error.message)).help(error.help)
    }

    /// The position of a byte of a scalar's text, where the file has the text as it is, on one
    /// line or in a `|` block; else that of the scalar.
    pub(super) fn inside(&self, node: &Node, text: &str, offset: usize) -> Position {
        let start = node.position;
        let source = &self.document.source;
        let shown = source.rest_of_line(start);
        let quote = usize::from(shown.starts_with(['"', '\'']));
        if shown[quote..].starts_with(text) {
            let before = quote + text[..offset].chars().count();
            return Position { column: start.column + before as u32, length: 1, ..start };
        }
        let before = text[..offset].rsplit('\n').next().unwrap_or_default();
        let lines = text[..offset].matches('\n').count() as u32;
        let line_end = text[offset..].find('\n').map_or(text.len(), |at| offset + at);
        let written = &text[offset - before.len()..line_end];
        let in_block = [start.line, start.line + 1].into_iter().find_map(|first| {
            let line = source.line(first + lines);
            let indent = line.len() - line.trim_start_matches(' ').len();
            let column = indent + before.chars().count() + 1;
            (line[indent..] == *written).then_some((first + lines, column))
        });
        in_block.map_or(start, |(line, column)| Position { line, column: column as u32, length: 1 })
    }

    /// One or several numbers: a number, a text of numbers, or a list of either.
    pub fn numbers(&mut self, section: &Section<'d>, key: &str) -> Field<Vec<u64>> {
        self.field(section, key, |fields, path, node| {
            let mut numbers = Vec::new();
            for item in items(node) {
                let wrong = fields
                    .wrong(
                        item.position,
                        format!("{path} must be one or several numbers from 1 to {MAX_NUMBER}"),
                    )
                    .help("write 64, \"1 2 4\" or [1, 2, 4]");
                match &item.value {
                    Value::Scalar { text, plain }
                        if !plain || matches!(classify(text), Scalar::Text) =>
                    {
                        let words = text.split(|c: char| c == ',' || c.is_whitespace());
                        for word in words.filter(|word| !word.is_empty()) {
                            numbers.push(number(word).ok_or_else(|| wrong.clone())?);
                        }
                    }
                    _ => {
                        let number = fields.whole_number(path, item)?;
                        let fits = (1..=MAX_NUMBER).contains(&number);
                        numbers.push(u64::try_from(number).ok().filter(|_| fits).ok_or(wrong)?);
                    }
                }
            }
            if numbers.is_empty() {
                return Err(fields.wrong(node.position, format!("{path} names no number")));
            }
            Ok(numbers)
        })
    }
}

/// `<partition>` and the like: the test suite's mark for "to be filled in".
pub(super) fn is_placeholder(text: &str) -> bool {
    text.starts_with('<') && text.ends_with('>')
}

/// Whether a key is a size that has a default.
fn is_size(key: &str) -> bool {
    key.ends_with("parallel_size") || ["world_size", "max_batch_size"].contains(&key)
}

/// Whether a key, or what is in a section of that name, sizes every test.
fn is_required(key: &str) -> bool {
    [
        "hardware",
        "gpus_per_node",
        "num_ctx_servers",
        "num_gen_servers",
        "worker_config",
        "ctx",
        "gen",
        "server_configs",
    ]
    .contains(&key)
}

pub(super) fn items(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

const MAX_NUMBER: i128 = 1_000_000_000;

/// A number as Python's `int()` reads it: decimal digits, single underscores between them.
fn number(word: &str) -> Option<u64> {
    let shape = !word.starts_with('_') && !word.ends_with('_') && !word.contains("__");
    let digits = word.replace('_', "");
    let valid = shape && digits.bytes().all(|b| b.is_ascii_digit());
    let value: i128 = valid.then(|| digits.parse().ok()).flatten()?;
    (1..=MAX_NUMBER).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests;
