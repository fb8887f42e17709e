// SPDX-License-Identifier: Apache-2.0
//! Environment strings of a test configuration (`worker_env_var: "A=1 B='x y'"`).
//!
//! They are read as a POSIX shell reads assignments before a command: words split at blanks and
//! line ends, single and double quotes, backslashes, `$NAME` and `${NAME}`. Whatever would make a
//! shell run something, or do anything but assign, is an error.

use super::template::{Template, is_name};

/// One assignment of an environment string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable's name.
    pub name: String,
    /// Its value.
    pub value: Template,
}

/// Why an environment string cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AssignmentError {
    /// Where in the string, in characters from 0.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: &'static str,
}

const QUOTE_IT: &str = "put the value in single quotes if the character belongs to it";

/// Splits an environment string into its assignments, in order.
///
/// # Errors
/// A word that is not `NAME=VALUE`, a command substitution, a parameter expansion other than
/// `$NAME` and `${NAME}`, an unquoted shell operator, an open quote, a NUL byte.
pub fn parse(text: &str) -> Result<Vec<Assignment>, AssignmentError> {
    let mut reader = Reader { text, at: 0 };
    let mut assignments = Vec::new();
    while reader.skip_blanks() {
        assignments.push(reader.assignment()?);
    }
    Ok(assignments)
}

struct Reader<'a> {
    text: &'a str,
    /// In bytes, always at the start of a character.
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the text up to the first character for which `stop` holds, or all of it.
    fn take_until(&mut self, stop: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(stop).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn skip_blanks(&mut self) -> bool {
        self.take_until(|c| !c.is_whitespace());
        self.at < self.text.len()
    }

    fn error<T>(
        &self,
        message: impl Into<String>,
        help: &'static str,
    ) -> Result<T, AssignmentError> {
        let offset = self.text[..self.at].chars().count();
        Err(AssignmentError { offset, message: message.into(), help })
    }

    fn assignment(&mut self) -> Result<Assignment, AssignmentError> {
        let start = self.at;
        let name = self.take_until(|c| c == '=' || c.is_whitespace());
        if self.peek() != Some('=') || !is_name(name) {
            self.at = start;
            return self.error(
                format!("`{name}` is not an assignment of an environment variable"),
                "write NAME=VALUE, separated by blanks; quote values that contain blanks",
            );
        }
        self.at += 1;
        Ok(Assignment { name: name.to_owned(), value: self.word()? })
    }

    fn word(&mut self) -> Result<Template, AssignmentError> {
        let mut value = Template::default();
        loop {
            value.push_text(self.take_until(|c| c.is_whitespace() || SPECIAL.contains(c)));
            match self.peek() {
                None => return Ok(value),
                Some(c) if c.is_whitespace() => return Ok(value),
                Some('\'') => self.single_quoted(&mut value)?,
                Some('"') => self.double_quoted(&mut value)?,
                Some('$') => self.dollar(&mut value)?,
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        None => return self.error("the value ends in a backslash", QUOTE_IT),
                        Some(c) => {
                            self.at += c.len_utf8();
                            if c != '\n' {
                                value.push_text(c.encode_utf8(&mut [0; 4]));
                            }
                        }
                    }
                }
                Some('`') => return self.error(COMMAND, COMMAND_HELP),
                Some('\0') => return self.error(NUL, ""),
                Some(c) => {
                    return self.error(
                        format!("`{c}` is a shell operator, and no shell runs here"),
                        QUOTE_IT,
                    );
                }
            }
        }
    }

    fn single_quoted(&mut self, value: &mut Template) -> Result<(), AssignmentError> {
        let Some(length) = self.rest()[1..].find('\'') else {
            return self.error("this single quote is never closed", "close it with '");
        };
        let text = &self.rest()[1..=length];
        if text.contains('\0') {
            return self.error(NUL, "");
        }
        value.push_text(text);
        self.at += length + 2;
        Ok(())
    }

    fn double_quoted(&mut self, value: &mut Template) -> Result<(), AssignmentError> {
        let open = self.at;
        self.at += 1;
        loop {
            value.push_text(self.take_until(|c| "\"$\\`\0".contains(c)));
            match self.peek() {
                None => {
                    self.at = open;
                    return self.error("this double quote is never closed", "close it with \"");
                }
                Some('"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some('$') => self.dollar(value)?,
                Some('`') => return self.error(COMMAND, COMMAND_HELP),
                Some('\\') => match self.rest()[1..].chars().next() {
                    Some(c @ ('"' | '\\' | '$' | '`')) => {
                        value.push_text(c.encode_utf8(&mut [0; 4]));
                        self.at += 2;
                    }
                    Some('\n') => self.at += 2,
                    _ => {
                        value.push_text("\\");
                        self.at += 1;
                    }
                },
                Some(_) => return self.error(NUL, ""),
            }
        }
    }

    fn dollar(&mut self, value: &mut Template) -> Result<(), AssignmentError> {
        let rest = &self.rest()[1..];
        if rest.starts_with('(') {
            return self.error(COMMAND, COMMAND_HELP);
        }
        let after_name = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let braced = rest.strip_prefix('{');
        let name = braced.unwrap_or(rest).split(after_name).next().unwrap_or_default();
        if braced.is_some_and(|b| !is_name(name) || !b[name.len()..].starts_with('}')) {
            return self.error(
                "only $NAME and ${NAME} are expanded",
                "write the value out, or quote it with single quotes",
            );
        }
        if is_name(name) {
            value.push_variable(name);
            self.at += 1 + name.len() + if braced.is_some() { 2 } else { 0 };
        } else if rest.starts_with(|c: char| c.is_ascii_digit() || "@*#?-!$".contains(c)) {
            return self.error(
                "a shell's special parameters are not known here",
                "write \\$ for a dollar sign",
            );
        } else {
            value.push_text("$");
            self.at += 1;
        }
        Ok(())
    }
}

/// What ends a run of characters that stand for themselves outside quotes.
const SPECIAL: &str = "'\"$\\`\0;&|<>()";
const NUL: &str = "a NUL byte cannot be in an environment variable";
const COMMAND: &str = "command substitution is not done: nothing of a configuration is run";
const COMMAND_HELP: &str =
    "write the value out; $NAME and ${NAME} are expanded when the step starts";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let parsed = parse(text).unwrap();
        parsed.into_iter().map(|a| (a.name, a.value.as_str().to_owned())).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    #[test]
    fn blanks_and_line_ends_separate_assignments() {
        assert_eq!(read(" A=1   B=2\nC= "), pairs(&[("A", "1"), ("B", "2"), ("C", "")]));
    }

    #[test]
    fn quotes_and_backslashes_mean_what_they_mean_to_a_shell() {
        assert_eq!(
            read(r#"A="x y" B='p $q' C=\"z\" D=a\\b E="\$F \x" F=a'b'"c""#),
            pairs(&[
                ("A", "x y"),
                ("B", "p $$q"),
                ("C", "\"z\""),
                ("D", "a\\b"),
                ("E", "$$F \\x"),
                ("F", "abc")
            ])
        );
    }

    #[test]
    fn references_are_kept_for_the_step() {
        assert_eq!(
            read(r#"A=$HOME/x B="${SLURM_JOB_ID}" C=\$LATE D=5$"#),
            pairs(&[("A", "${HOME}/x"), ("B", "${SLURM_JOB_ID}"), ("C", "$$LATE"), ("D", "5$$")])
        );
    }

    #[test]
    fn whatever_would_run_a_command_is_refused() {
        for (text, offset) in [
            ("A=$(id)", 2),
            ("A=\"$(id)\"", 3),
            ("A=`id`", 2),
            ("A=1;id", 3),
            ("A=1 B=2|id", 7),
            ("A=${B:-$(id)}", 2),
            ("A=$1", 2),
        ] {
            assert_eq!(parse(text).unwrap_err().offset, offset, "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_assignment_is_refused() {
        for text in ["None", "A=1 python", "2A=1", "=x", "A-B=1", "export A=1", "A=\"x", "A='x"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
