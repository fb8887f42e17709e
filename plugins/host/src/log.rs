// SPDX-License-Identifier: Apache-2.0
//! Messages through Slurm's own log, so that they look like Slurm's and go where its messages go.
//!
//! Slurm's functions are printf-like: a message is always an argument of `"%s"`, never the format.

use std::ffi::CString;
use std::fmt::Write as _;
use std::io::Write as _;

use crate::symbols::{self, LogFn};

/// The longest piece handed to Slurm at once, in bytes. slurmstepd forwards messages to srun in
/// buffers of 1024 bytes.
const MAX_PIECE: usize = 900;

/// Logs an error.
pub fn error(message: &str) {
    emit(symbols::slurm_error(), true, message);
}

/// Logs something that the user or the admin wants to know.
pub fn info(message: &str) {
    emit(symbols::slurm_info(), true, message);
}

/// Logs something for `-v`.
pub fn verbose(message: &str) {
    emit(symbols::slurm_verbose(), false, message);
}

/// Logs something for `-vv`.
pub fn debug(message: &str) {
    emit(symbols::slurm_debug(), false, message);
}

/// Tells the user something, also from slurmstepd, without calling it an error.
pub fn tell(message: &str) {
    emit(symbols::slurm_spank_log().or_else(symbols::slurm_info), true, message);
}

/// A text with foreign parts as one printable line: the bytes of everything but printable ASCII
/// become `\xNN`, so that no name can end the line and begin one of its own.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' => line.push(byte.into()),
            // Writing to a String cannot fail.
            _ => drop(write!(line, "\\x{byte:02x}")),
        }
    }
    line
}

/// Without Slurm's function a loud message goes to stderr, and a quiet one nowhere.
fn emit(function: Option<LogFn>, loud: bool, message: &str) {
    for piece in pieces(message) {
        match (function, CString::new(piece)) {
            (Some(function), Ok(piece)) => {
                // SAFETY: a printf-like function with a constant format and its one argument, both
                // C strings that outlive the call.
                unsafe { function(c"%s".as_ptr(), piece.as_ptr()) }
            }
            (None, Ok(piece)) if loud => {
                let mut line = piece.into_bytes();
                line.push(b'\n');
                // Nobody is left to be told that stderr cannot be written.
                let _ = std::io::stderr().write_all(&line);
            }
            _ => {}
        }
    }
}

/// The message in pieces of one line each, none too long. Control characters (a NUL would end the
/// message, an escape would reach a terminal) are replaced.
fn pieces(message: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    for line in message.lines() {
        let mut piece = String::new();
        for c in line.chars() {
            let c = if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
            if piece.len() + c.len_utf8() > MAX_PIECE {
                pieces.push(std::mem::take(&mut piece));
            }
            piece.push(c);
        }
        pieces.push(piece);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_several_lines_is_one_piece_per_line() {
        assert_eq!(
            pieces("a.yaml:3:5: error: x\n  |\n3 | tp: 0\n"),
            ["a.yaml:3:5: error: x", "  |", "3 | tp: 0"]
        );
    }

    #[test]
    fn a_long_line_is_split_between_characters_and_nothing_is_lost() {
        let line = "é".repeat(2000);
        let pieces = pieces(&line);
        assert!(pieces.iter().all(|p| p.len() <= MAX_PIECE));
        assert_eq!(pieces.concat(), line);
    }

    #[test]
    fn a_foreign_text_stays_on_its_line() {
        assert_eq!(one_line("a b\nc\u{85}\x1b[2J"), "a b\\x0ac\\xc2\\x85\\x1b[2J");
    }

    #[test]
    fn nul_bytes_and_terminal_escapes_are_replaced() {
        assert_eq!(pieces("a\0b\x1b[2Jc\td"), ["a\u{fffd}b\u{fffd}[2Jc\td"]);
    }

    #[test]
    fn an_empty_message_is_no_call() {
        assert!(pieces("").is_empty());
    }
}
