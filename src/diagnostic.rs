// SPDX-License-Identifier: Apache-2.0
//! What is wrong with an input and where: the one form in which every way in
//! (command, C library, plugins) reports bad input to a person.

use std::fmt::{self, Write as _};
use std::sync::{Arc, OnceLock};

use crate::plan::secret::{self, is_secret_name};

/// A text that positions point into: a file, or a value given on the command line.
#[derive(Debug)]
pub struct Source {
    /// What people call it: the path as given, or the option's name.
    pub name: String,
    /// The whole text.
    pub text: String,
    /// Variables that the site has listed.
    secrets: OnceLock<Vec<String>>,
    index: OnceLock<Index>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.text) == (&other.name, &other.text)
    }
}

impl Eq for Source {}

/// Finds places of a text without reading it again: a file may have as many errors as lines.
#[derive(Debug)]
struct Index {
    lines: Vec<Line>,
    /// Where every [`STRIDE`]th character starts, in bytes.
    marks: Vec<usize>,
}

#[derive(Debug)]
struct Line {
    /// How many characters come before it.
    before: usize,
    /// Its text, without its end, in bytes.
    text: std::ops::Range<usize>,
    /// From which byte on it holds a secret; the end of its text when it holds none.
    secret: usize,
}

const STRIDE: usize = 64;

impl Source {
    /// A text with its name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            secrets: OnceLock::new(),
            index: OnceLock::new(),
        }
    }

    /// Hides the values of these variables too wherever a line is quoted; to be called before the
    /// text is read.
    pub fn hide(&self, secrets: &[String]) {
        let _ = self.secrets.set(secrets.to_owned());
    }

    fn index(&self) -> &Index {
        self.index
            .get_or_init(|| Index::new(&self.text, self.secrets.get().map_or(&[], Vec::as_slice)))
    }

    /// The position of the character at a byte; of the end when the text has no such byte.
    pub fn position(&self, byte: usize) -> Position {
        let mut byte = byte.min(self.text.len());
        while !self.text.is_char_boundary(byte) {
            byte -= 1;
        }
        let Index { lines, marks } = self.index();
        let mark = marks.partition_point(|start| *start <= byte).saturating_sub(1);
        let start = marks.get(mark).copied().unwrap_or_default();
        let number = mark * STRIDE + self.text[start..byte].chars().count();
        let line = lines.partition_point(|line| line.before <= number).max(1);
        Position {
            line: line as u32,
            column: (number - lines[line - 1].before) as u32 + 1,
            length: 1,
        }
    }

    /// The position of the end of the last line that is not blank.
    pub fn last_position(&self) -> Position {
        self.position(self.text.trim_end().len())
    }

    /// A line, counted from 1, without its end; empty when there is no such line.
    pub fn line(&self, number: u32) -> &str {
        let line = self.index().lines.get((number as usize).wrapping_sub(1));
        line.map_or("", |line| &self.text[line.text.clone()])
    }

    /// The text at a position, up to the end of its line.
    pub fn rest_of_line(&self, at: Position) -> &str {
        let line = self.index().lines.get((at.line as usize).wrapping_sub(1));
        line.map_or("", |line| {
            let start = self.byte_of(line.before + (at.column as usize).saturating_sub(1));
            &self.text[start.min(line.text.end)..line.text.end]
        })
    }

    /// Where a character starts, in bytes.
    fn byte_of(&self, character: usize) -> usize {
        let Some(start) = self.index().marks.get(character / STRIDE) else {
            return self.text.len();
        };
        let mut rest = self.text[*start..].char_indices();
        rest.nth(character % STRIDE).map_or(self.text.len(), |(at, _)| start + at)
    }
}

impl Index {
    /// A line ends where YAML ends it: a carriage return alone does, too.
    fn new(text: &str, secrets: &[String]) -> Self {
        let mut marks = Vec::with_capacity(text.len() / STRIDE + 1);
        let mut lines = Vec::new();
        let (mut start, mut before, mut characters) = (0, 0, 0);
        for (at, c) in text.char_indices() {
            if characters % STRIDE == 0 {
                marks.push(at);
            }
            characters += 1;
            if c == '\n' || c == '\r' && !text[at + 1..].starts_with('\n') {
                let end = at - usize::from(c == '\n' && text[start..at].ends_with('\r'));
                lines.push(Line { before, text: start..end, secret: end });
                (start, before) = (at + 1, characters);
            }
        }
        lines.push(Line { before, text: start..text.len(), secret: text.len() });
        hide_secrets(text, secrets, &mut lines);
        Self { lines, marks }
    }
}

/// Finds where lines hold secrets. A secret goes on in the next line where this one ends in a
/// backslash, and in lines that are indented deeper, as YAML's long values are.
fn hide_secrets(text: &str, secrets: &[String], lines: &mut [Line]) {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let is_secret =
        |name: &str| is_secret_name(name) || secrets.iter().any(|secret| secret == name);
    let (mut continued, mut deeper_than) = (false, None);
    for line in lines {
        let shown = &text[line.text.clone()];
        let deeper = deeper_than.is_some_and(|least| indent(shown) > least);
        if continued || (deeper && !shown.trim().is_empty()) {
            line.secret = line.text.start;
        } else if let Some((_, at)) = secret::given_in(shown, is_secret) {
            line.secret = line.text.start + at;
            deeper_than = Some(indent(shown));
        } else if !shown.trim().is_empty() {
            deeper_than = None;
        }
        continued = line.secret < line.text.end && shown.ends_with('\\');
    }
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
    /// For information; nothing is wrong.
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

/// One problem, with its place and what to do.
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

    /// The same for people who do not have the command's options: each word is replaced in the
    /// advice, and at the start of the message.
    pub fn reworded(mut self, words: &[(&str, impl AsRef<str>)]) -> Self {
        for (option, other) in words {
            let other = other.as_ref();
            if let Some(rest) = self.message.strip_prefix(option) {
                self.message = format!("{other}{rest}");
            }
            self.help = self.help.map(|help| help.replace(option, other));
        }
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
            excerpt(f, location)?;
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
/// What replaces the secret part of a line.
const HIDDEN: &str = "********";

/// The source line and a caret under it; nothing for a blank line.
fn excerpt(f: &mut fmt::Formatter<'_>, location: &Location) -> fmt::Result {
    let Location { source, position: at } = location;
    let Some(line) = source.index().lines.get((at.line as usize).wrapping_sub(1)) else {
        return Ok(());
    };
    if source.text[line.text.clone()].trim().is_empty() {
        return Ok(());
    }
    let column = (at.column as usize).saturating_sub(1);
    let skipped = if column >= EXCERPT { column - EXCERPT / 2 } else { 0 };
    let start = source.byte_of(line.before + skipped).min(line.text.end);
    let end = line.secret.min(line.text.end);
    let mut shown: String =
        source.text[start.min(end)..end].chars().take(EXCERPT).map(one_wide).collect();
    let visible = shown.chars().count();
    if visible < EXCERPT && line.secret < line.text.end {
        shown.push_str(HIDDEN);
    }
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    let indent = (column - skipped).min(visible);
    let room = shown.chars().count().saturating_sub(indent).max(1);
    let carets = "^".repeat((at.length as usize).clamp(1, room));
    let indent = " ".repeat(indent);
    write!(f, "\n {number} | {}\n {margin} | {indent}{carets}", shown.trim_end())
}

/// A character of a source line in one column, so that the caret is under its place.
fn one_wide(c: char) -> char {
    match c {
        '\t' => ' ',
        c if is_unprintable(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// Whether a character could change what a terminal or a log shows besides itself: control
/// characters, line separators, and what reverses or hides text.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Text from outside, made safe for a terminal and a log: what is not printable becomes `\u{..}`.
pub struct Printable<T>(pub T);

impl<T: fmt::Display> fmt::Display for Printable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

/// Escapes what is not printable of all that is written.
struct Escaping<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| match is_unprintable(c) {
            true => write!(self.0, "{}", c.escape_default()),
            false => self.0.write_char(c),
        })
    }
}

/// Everything that was found; an error where at least one entry is one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

/// How many are kept: nobody reads more, and a file of a few KiB can cause thousands.
const MOST: usize = 100;

impl Diagnostics {
    /// Adds one. After the first hundred, one more replaces all that follow.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if let Some(rest) = self.0.get_mut(MOST) {
            rest.severity = rest.severity.max(diagnostic.severity);
        } else if self.0.len() == MOST {
            let severity = diagnostic.severity;
            let rest = Diagnostic::error("more problems follow; fix these first");
            self.0.push(Diagnostic { severity, ..rest });
        } else {
            self.0.push(diagnostic);
        }
    }

    /// Adds one unless it is there already.
    pub fn push_once(&mut self, diagnostic: Diagnostic) {
        if !self.0.contains(&diagnostic) {
            self.push(diagnostic);
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
    if length > LONGEST_COMPARED {
        return Vec::new();
    }
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

/// The longest word that has a nearest one: the time for a comparison grows with the square.
const LONGEST_COMPARED: usize = 200;

pub(crate) fn edit_distance(a: &str, b: &str) -> usize {
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
        let source = Arc::new(Source::new("a.yaml", text));
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
    fn what_hides_or_reverses_text_is_escaped_everywhere() {
        let foreign = "a\r\n\u{7f}\u{9b}\u{202e}\u{2066}\u{200b}\u{2028}\u{feff}b";
        let source = Arc::new(Source::new(foreign, foreign));
        let mut all = Diagnostic::error(foreign).details([foreign.into()]).help(foreign);
        for byte in [0, foreign.len()] {
            all = all.at(Location { source: source.clone(), position: source.position(byte) });
            let shown = all.to_string();
            assert!(!shown.chars().any(|c| c != '\n' && is_unprintable(c)), "{shown:?}");
        }
    }

    #[test]
    fn a_line_is_quoted_without_its_secret() {
        for (text, line, column, shown) in [
            ("HF_TOKEN=hf_x A=$(id)", 1, 17, "1 | HF_TOKEN=********\n   |          ^"),
            ("A=$(id) HF_TOKEN=hf_x", 1, 3, "1 | A=$(id) HF_TOKEN=********\n   |   ^"),
            ("{\"API_KEY\" : \"hf_x\"}", 1, 2, "1 | {\"API_KEY\" :********\n   |  ^"),
            ("x: 1\nhf_token:\n  hf_x\ny: 1", 3, 3, "3 | ********\n   | ^"),
            ("x: 1\nhf_token:\n  hf_x\ny: 1", 4, 1, "4 | y: 1\n   | ^"),
            ("DB_PASSWORD=a\\\nhf_x A=1", 2, 6, "2 | ********\n   | ^"),
        ] {
            let shown_whole = Diagnostic::error("x").at(at(text, line, column, 1)).to_string();
            assert!(shown_whole.ends_with(shown), "{text:?}:\n{shown_whole}");
            assert!(!shown_whole.contains("hf_x"), "{shown_whole}");
        }
        let long = format!("AWS_KEY_ID={}{{hf_x}}", "y".repeat(500));
        let shown = Diagnostic::error("x").at(at(&long, 1, 512, 3)).to_string();
        assert!(shown.ends_with("1 | ********\n   | ^^^"), "{shown}");
    }

    #[test]
    fn a_position_is_found_in_any_text() {
        let source = Source::new("a", "é\r\nb\rc\n");
        let found = |byte| (source.position(byte).line, source.position(byte).column);
        assert_eq!((found(0), found(2), found(4), found(6)), ((1, 1), (1, 2), (2, 1), (3, 1)));
        assert_eq!((found(8), found(99)), ((4, 1), (4, 1)));
        assert_eq!((source.line(2), source.line(3), source.line(0)), ("b", "c", ""));
        assert_eq!(Source::new("a", "").position(0).line, 1);
        let long = "é".repeat(1000);
        assert_eq!(Source::new("a", long).position(1400).column, 701);
    }

    #[test]
    fn only_so_many_problems_are_kept() {
        let mut all = Diagnostics::default();
        (0..500).for_each(|n| all.push(Diagnostic::warning(n.to_string())));
        assert_eq!((all.0.len(), all.has_errors()), (MOST + 1, false));
        all.push(Diagnostic::error("the last one"));
        assert_eq!((all.0.len(), all.has_errors()), (MOST + 1, true));
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
