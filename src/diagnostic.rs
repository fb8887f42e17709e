// SPDX-License-Identifier: Apache-2.0
//! What is wrong with an input and where: the one form in which every way in
//! (command, C library, plugins) reports bad input to a person.

use std::fmt;
use std::sync::Arc;

/// A text that positions point into: a file, or a value given on the command line.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// What people call it: the path as given, or the option's name.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A span inside a source. Lines and columns count from 1, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1.
    pub column: u32,
    /// Length in characters; the caret is drawn this wide, at least 1.
    pub length: u32,
}

/// A position together with the text that it points into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The text.
    pub source: Arc<Source>,
    /// Where in it.
    pub position: Position,
}

impl Location {
    /// The line of the source, without its end.
    pub fn source_line(&self) -> &str {
        let index = (self.position.line as usize).saturating_sub(1);
        self.source.text.split('\n').nth(index).unwrap_or("").trim_end_matches('\r')
    }
}

/// `file:line:column`.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Position { line, column, .. } = self.position;
        write!(f, "{}:{line}:{column}", Printable(&self.source.name))
    }
}

/// How much a diagnostic weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Probably a mistake; the plan is made all the same.
    Warning,
    /// No plan can be made.
    Error,
}

impl Severity {
    /// The word that people read: `note`, `warning` or `error`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is wrong, or worth saying, with its place and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// Where it is, when it is in a text.
    pub location: Option<Location>,
    /// What is wrong: one sentence, without a full stop.
    pub message: String,
    /// What belongs to the message, each shown on a line of its own.
    pub details: Vec<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            location: None,
            message: message.into(),
            details: Vec::new(),
            help: None,
        }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// A note without a place.
    pub fn note(message: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(message) }
    }

    /// The same, at a place.
    pub fn at(mut self, location: impl Into<Option<Location>>) -> Self {
        self.location = location.into();
        self
    }

    /// The same, with details.
    pub fn details(mut self, details: impl IntoIterator<Item = String>) -> Self {
        self.details.extend(details);
        self
    }

    /// The same, with advice; none when the text is empty.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into()).filter(|help| !help.is_empty());
        self
    }
}

/// `file:line:column: error: message`, the source line, a caret under it, details, advice.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = &self.location {
            write!(f, "{location}: ")?;
        }
        write!(f, "{}: {}", self.severity.word(), Printable(&self.message))?;
        if let Some(location) = &self.location {
            let line = location.source_line();
            if !line.trim().is_empty() {
                excerpt(f, line, location.position)?;
            }
        }
        for detail in &self.details {
            write!(f, "\n    {}", Printable(detail))?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", Printable(help))?;
        }
        Ok(())
    }
}

/// The widest excerpt of a source line that is shown, in characters.
const EXCERPT: usize = 120;

fn excerpt(f: &mut fmt::Formatter<'_>, line: &str, at: Position) -> fmt::Result {
    let column = (at.column as usize).saturating_sub(1);
    let skipped = if column >= EXCERPT { column - EXCERPT / 2 } else { 0 };
    let shown: String = line
        .chars()
        .skip(skipped)
        .take(EXCERPT)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    let indent = " ".repeat(column - skipped);
    let room = shown.chars().count().saturating_sub(column - skipped).max(1);
    let carets = "^".repeat((at.length as usize).clamp(1, room));
    write!(f, "\n {number} | {}\n {margin} | {indent}{carets}", shown.trim_end())
}

/// Text from outside, made safe for a terminal and a log: control characters become `\u{..}`.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// Everything that was found; an error where at least one entry is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Adds one unless it is there already.
    pub fn push_once(&mut self, diagnostic: Diagnostic) {
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|d| d.severity == Severity::Error)
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The candidates nearest to a word that was mistyped, best first: at most `most`.
///
/// The distance is the number of inserted, removed, replaced or swapped characters.
pub fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    most: usize,
) -> Vec<&'a str> {
    let length = word.chars().count();
    let limit = (length / 3).max(1);
    let mut scored: Vec<_> = candidates
        .into_iter()
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= limit)
        .map(|candidate| (edit_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    scored.sort();
    scored.dedup();
    scored.into_iter().take(most).map(|(_, candidate)| candidate).collect()
}

fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let (mut before, mut above): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=b.len()).collect());
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (above[j] + 1).min(row[j - 1] + 1).min(above[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, line: u32, column: u32, length: u32) -> Location {
        let source = Arc::new(Source { name: "a.yaml".into(), text: text.into() });
        Location { source, position: Position { line, column, length } }
    }

    #[test]
    fn an_error_shows_its_line_and_a_caret_under_the_value() {
        let d = Diagnostic::error("must be at least 1").at(at("x: 1\nsize: 0\n", 2, 7, 1));
        assert_eq!(
            d.to_string(),
            "a.yaml:2:7: error: must be at least 1\n 2 | size: 0\n   |       ^"
        );
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let d = Diagnostic::error("bad \u{1b}[31m").at(at("k: \u{1b}[2J", 1, 4, 3));
        assert!(!d.to_string().contains('\u{1b}'));
    }

    #[test]
    fn a_caret_beyond_the_line_does_not_overflow() {
        let d = Diagnostic::error("x").at(at("ab", 1, 500, 900));
        assert!(d.to_string().ends_with('^'));
    }

    #[test]
    fn the_nearest_names_come_first() {
        let names = ["tensor_parallel_size", "pipeline_parallel_size", "max_batch_size"];
        assert_eq!(nearest("tensor_paralel_size", names, 3), ["tensor_parallel_size"]);
        assert!(nearest("zzz", names, 3).is_empty());
        assert_eq!(nearest("ab", ["ba"], 1), ["ba"]);
    }
}
