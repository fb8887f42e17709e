// SPDX-License-Identifier: Apache-2.0
//! The end of a log, however long the log and its lines are: for verdicts, reports and progress.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::diagnostic::is_unprintable;
use crate::input::source;

/// The most bytes that are read of a log.
const MAX_WINDOW: u64 = 64 << 10;
/// How many bytes are read for each line that is wanted.
const LINE: u64 = 4 << 10;
/// The most characters of a line that are shown.
const WIDTH: usize = 400;

/// The last `count` lines of a log that are not blank, without colours and control characters.
///
/// # Errors
/// The log cannot be read, or is not a regular file.
pub fn lines(path: &Path, count: usize) -> io::Result<Vec<String>> {
    lines_of(source::open(path)?, count)
}

/// The last line of a log below a directory that tells a person something: no ruler of a table, no answer to a question
/// whether a server is ready, which is asked all the time, no notice of Slurm's about a step's end.
#[must_use]
pub fn last_meaningful(directory: &Path, path: &str) -> Option<String> {
    const QUESTIONS: [&str; 4] = ["GET /health", "GET /live", "GET /ready", "GET /metrics"];
    let means_something = |line: &String| {
        line.chars().filter(|c| c.is_alphanumeric()).count() > 2
            && !QUESTIONS.iter().any(|question| line.contains(question))
            && !line.contains("*** STEP ")
    };
    let line = lines_below(directory, path, 12).ok()?.into_iter().rfind(means_something)?;
    // pytest and others write words in the middle of a ruler.
    let ruler = |c: char| "=-*#~_ ".contains(c);
    let has_ruler = line.chars().take_while(|c| ruler(*c)).count() > 2;
    Some(if has_ruler { line.trim_matches(ruler).to_owned() } else { line })
}

/// The same of a log below a directory; somebody else may have written its path.
///
/// # Errors
/// As [`lines`]; the log is elsewhere.
pub fn lines_below(directory: &Path, path: &str, count: usize) -> io::Result<Vec<String>> {
    lines_of(source::open_below(directory, path)?, count)
}

fn lines_of(file: File, count: usize) -> io::Result<Vec<String>> {
    let text = text_of(file, (count as u64).saturating_mul(LINE))?;
    let mut lines: Vec<_> = text
        .lines()
        .rev()
        .map(printable)
        .filter(|line| !line.trim().is_empty())
        .take(count)
        .collect();
    lines.reverse();
    Ok(lines)
}

/// The last bytes of a log as text, at most `window` and at most 64 KiB.
///
/// # Errors
/// The log cannot be read, or is not a regular file.
pub fn text(path: &Path, window: u64) -> io::Result<String> {
    text_of(source::open(path)?, window)
}

fn text_of(mut file: File, window: u64) -> io::Result<String> {
    let length = file.metadata()?.len();
    let window = window.min(MAX_WINDOW);
    file.seek(SeekFrom::Start(length.saturating_sub(window)))?;
    let mut bytes = Vec::new();
    file.take(window).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The first characters of a line as a terminal shows it: without escape sequences and control
/// characters, and of a progress bar that is written over itself, its last state.
#[must_use]
pub fn printable(line: &str) -> String {
    let mut text = String::new();
    let line = line.trim_end();
    let mut rest = line.rsplit('\r').next().unwrap_or(line).chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            // A sequence `ESC [ … letter`.
            '\u{1b}' if rest.peek() == Some(&'[') => {
                rest.next();
                while rest.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            // A sequence `ESC ] … BEL` or `ESC ] … ESC \`, which names the terminal's window.
            '\u{1b}' if rest.peek() == Some(&']') => {
                while rest.next_if(|c| !['\u{7}', '\u{1b}'].contains(c)).is_some() {}
                if rest.next() == Some('\u{1b}') {
                    rest.next_if_eq(&'\\');
                }
            }
            '\t' => text.push('\t'),
            c if is_unprintable(c) => {}
            c => text.push(c),
        }
    }
    let text = without_long_rulers(&text);
    match text.char_indices().nth(WIDTH) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

/// `===== text =====` with short rulers: a program that believes its line to be 300 columns wide
/// writes them that long.
fn without_long_rulers(line: &str) -> String {
    const LONGEST: usize = 12;
    let (mut text, mut run, mut last) = (String::new(), 0, ' ');
    for c in line.chars() {
        let is_ruler = "=-*#~_".contains(c) || (c == ' ' && run > 0);
        if !is_ruler && run > LONGEST && last == ' ' {
            text.push(' ');
        }
        run = if is_ruler { run + 1 } else { 0 };
        if run <= LONGEST {
            text.push(c);
        }
        last = c;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn only_the_end_of_a_long_log_is_read() {
        let file = log((0..100_000).map(|n| format!("line {n}\n\n")).collect::<String>());
        assert_eq!(lines(file.path(), 2).unwrap(), ["line 99998", "line 99999"]);
        assert!(lines(file.path(), 100_000).unwrap().len() < 100_000);
    }

    #[test]
    fn a_log_of_one_endless_line_is_cut() {
        let file = log(vec![b'x'; 1 << 20]);
        assert_eq!(lines(file.path(), 12).unwrap(), ["x".repeat(WIDTH)]);
    }

    #[test]
    fn rulers_are_short() {
        let ruler = "=".repeat(140);
        let text = format!("{ruler} 1 failed {ruler}\n{}\n- a  b\n", "_ ".repeat(150));
        let short = "=".repeat(12);
        let expected = [format!("{short} 1 failed {short}"), "_ ".repeat(6), "- a  b".to_owned()];
        assert_eq!(lines(log(text).path(), 5).unwrap(), expected);
    }

    #[test]
    fn colours_and_control_characters_are_removed() {
        let text = "\x1b[31mred\x1b[0m\x07\tend\r\n\x1b[0m\n 1%\r 2%\r\n\x1b]0;title\x07last\x1b]8;;x\x1b\\!";
        assert_eq!(lines(log(text).path(), 5).unwrap(), ["red\tend", " 2%", "last!"]);
    }

    fn last_of(path: &Path) -> Option<String> {
        last_meaningful(path.parent()?, path.file_name()?.to_str()?)
    }

    #[test]
    fn a_log_outside_the_directory_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("own.log"), "own").unwrap();
        assert_eq!(lines_below(directory.path(), "own.log", 1).unwrap(), ["own"]);
        let other = log("foreign");
        std::os::unix::fs::symlink(other.path(), directory.path().join("link.log")).unwrap();
        for path in ["link.log", other.path().to_str().unwrap()] {
            assert!(lines_below(directory.path(), path, 1).is_err(), "{path}");
        }
    }

    #[test]
    fn the_last_meaningful_line_is_none_that_always_comes() {
        let noise = "INFO: 10.0.0.1:4 - \"GET /health HTTP/1.1\" 200 OK\n\n=====\n+--+--+\n";
        for (line, expected) in [
            ("loading shard 3 of 8 -", None),
            ("===== 1 passed in 9 s =====", Some("1 passed in 9 s")),
        ] {
            let file = log(format!("{noise}{line}\n{noise}"));
            assert_eq!(last_of(file.path()).as_deref(), expected.or(Some(line)));
        }
        assert_eq!(last_of(log(noise).path()), None);
    }

    #[test]
    fn what_is_not_a_regular_file_is_an_error_and_blocks_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [fifo.as_path(), directory.path(), Path::new("/nonexistent/log")] {
            assert!(lines(path, 1).is_err(), "{}", path.display());
        }
    }
}
