// SPDX-License-Identifier: Apache-2.0
//! The last lines of a log, however long the log and its lines are.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// How much of a log's end is read, in bytes.
const WINDOW: u64 = 16 << 10;
/// How many lines are shown.
const LINES: usize = 12;
/// How long a shown line may be, in characters.
const WIDTH: usize = 400;

/// The text at the end of a log; empty when there is none.
#[must_use]
pub fn text(path: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last lines that are not blank, without control characters.
#[must_use]
pub fn lines(path: &Path) -> Vec<String> {
    last(&text(path), LINES)
}

/// The last lines of a text that are not blank, without control characters.
#[must_use]
pub fn last(text: &str, count: usize) -> Vec<String> {
    let shown = |line: &str| -> String {
        line.trim_end().chars().filter(|c| !c.is_control() || *c == '\t').take(WIDTH).collect()
    };
    let mut lines: Vec<_> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(count).map(shown).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let log: String = (0..100_000).map(|n| format!("line {n}\n\n")).collect();
        std::fs::write(file.path(), log).unwrap();
        let lines = lines(file.path());
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines.last().unwrap(), "line 99999");
    }

    #[test]
    fn a_log_of_one_endless_line_is_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![b'x'; 1 << 20]).unwrap();
        assert_eq!(lines(file.path()), ["x".repeat(WIDTH)]);
    }

    #[test]
    fn a_log_that_is_missing_has_no_lines() {
        assert!(lines(Path::new("/nonexistent/log")).is_empty());
    }

    #[test]
    fn what_would_drive_a_terminal_is_left_out() {
        assert_eq!(last("\x1b[31mred\x07\n", 3), ["[31mred"]);
    }
}
