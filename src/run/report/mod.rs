// SPDX-License-Identifier: Apache-2.0
//! A run's result again: as text, as a page, and as the JSON that programs read.

mod html;
mod text;

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

pub use html::page;
pub use text::{body, text};

use super::result::{BadResult, Moment, RunResult, StepResult};

/// The directory below a workspace that holds one directory for each run.
const RUNS: &str = "runs";

/// A run's result, and where its logs are.
#[derive(Debug, Clone)]
pub struct Report {
    /// The result.
    pub result: RunResult,
    /// The directory that the result's paths start from.
    pub workspace: PathBuf,
    /// The moment that a run which goes on is drawn up to.
    pub now: Moment,
}

impl Report {
    /// Reads the result of a workspace's latest run, or of the run whose directory is given.
    ///
    /// # Errors
    /// [`BadResult`].
    pub fn read(directory: &Path) -> Result<Self, BadResult> {
        let result = RunResult::read(directory)?;
        let absolute = directory.canonicalize()?;
        let is_run = absolute.parent().is_some_and(|parent| parent.ends_with(RUNS));
        let above = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
        let workspace = is_run.then(|| above(&absolute)).flatten().unwrap_or(absolute);
        Ok(Self { result, workspace, now: Moment::now() })
    }

    /// When the drawing begins and ends: at least a millisecond apart.
    fn range(&self) -> (Moment, Moment) {
        let begin = self.result.started;
        let last_end = self.result.steps.iter().filter_map(|step| step.ended).max();
        let end = self.result.ended.max(last_end);
        let end = if self.result.is_over() { end } else { Some(self.now) };
        (begin, end.unwrap_or(begin).max(Moment(begin.0 + 1)))
    }

    /// The last lines of a step's log; nothing where it cannot be read.
    fn tail(&self, step: &StepResult, lines: usize) -> Option<Vec<String>> {
        tail(&self.workspace.join(&step.log), lines).ok()
    }
}

/// The last lines of a file, among its last 64 KiB; bytes that are no text are replaced, and
/// colours and other controls of a terminal removed.
///
/// # Errors
/// The file cannot be read.
pub fn tail(path: &Path, lines: usize) -> io::Result<Vec<String>> {
    const MOST: u64 = 64 << 10;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(MOST)))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    // What comes first was cut in the middle.
    let whole = text.lines().skip(usize::from(length > MOST));
    let mut last = VecDeque::with_capacity(lines);
    for line in whole {
        if last.len() == lines {
            last.pop_front();
        }
        last.push_back(without_controls(line));
    }
    Ok(last.into())
}

/// A line without the escape sequences that colour it and without control characters.
fn without_controls(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // A sequence `ESC [ … letter`.
            '\u{1b}' if rest.peek() == Some(&'[') => {
                rest.next();
                while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\t' => text.push('\t'),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_the_last_whole_lines_without_colours() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        log.push_str("\u{1b}[31mred\u{1b}[0m\u{7}\tend\r\n");
        std::fs::write(file.path(), log).unwrap();
        assert_eq!(tail(file.path(), 2).unwrap(), ["line 19999", "red\tend"]);
        let all = tail(file.path(), 100_000).unwrap();
        assert!(all.len() < 20_000 && all[0].starts_with("line 1"), "{}", all[0]);
    }

    #[test]
    fn a_short_log_is_shown_from_its_first_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "first\nlast").unwrap();
        assert_eq!(tail(file.path(), 5).unwrap(), ["first", "last"]);
    }
}
