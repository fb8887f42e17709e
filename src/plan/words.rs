// SPDX-License-Identifier: Apache-2.0
//! Words as a POSIX shell reads them: split at blanks and line ends, single and double quotes,
//! backslashes, `$NAME` and `${NAME}`. Whatever would make a shell run something is an error.
//!
//! References are expanded in the step, never earlier. So `\$NAME`, by which configurations keep
//! the shell that starts the job from expanding a name before the step's own shell does, means
//! the same as `$NAME`.

use super::template::{Template, is_name};

/// Why a text cannot be read as words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WordError {
    /// Where in the text, in characters from 0.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: &'static str,
}

const QUOTE_IT: &str = "put the value in single quotes if the character belongs to it";

/// Splits a text into its words.
///
/// # Errors
/// A command substitution, a parameter expansion other than `$NAME` and `${NAME}`, an unquoted
/// shell operator, an open quote, a NUL byte.
pub fn split(text: &str) -> Result<Vec<Template>, WordError> {
    let mut reader = Reader::new(text);
    let mut words = Vec::new();
    while reader.skip_blanks() {
        words.push(reader.word()?);
    }
    Ok(words)
}

/// Reads words one after the other.
#[derive(Clone)]
pub struct Reader<'a> {
    text: &'a str,
    /// In bytes, always at the start of a character.
    at: usize,
    /// Whether an escaped reference is a reference.
    late_references: bool,
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of a text.
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0, late_references: true }
    }

    /// The same for a text whose value will be read as words once more: an escaped dollar sign is
    /// one of that text.
    pub fn of_script(text: &'a str) -> Self {
        Self { late_references: false, ..Self::new(text) }
    }

    /// Takes the next character if it is this one; whether it was.
    pub fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }

    /// How much is read, in bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    /// What is not read yet.
    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// The next character.
    pub fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Takes the text up to the first character for which `stop` holds, or all of it.
    pub fn take_until(&mut self, stop: impl FnMut(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = &rest[..rest.find(stop).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    /// Skips blanks and line ends; whether anything is left.
    pub fn skip_blanks(&mut self) -> bool {
        self.take_until(|c| !c.is_whitespace());
        self.at < self.text.len()
    }

    /// An error at the place that is read next.
    ///
    /// # Errors
    /// Always.
    pub fn error<T>(&self, message: impl Into<String>, help: &'static str) -> Result<T, WordError> {
        let offset = self.text[..self.at].chars().count();
        Err(WordError { offset, message: message.into(), help })
    }

    /// Reads up to the end of the word.
    ///
    /// # Errors
    /// As [`split`].
    pub fn word(&mut self) -> Result<Template, WordError> {
        let mut value = Template::default();
        loop {
            value.push_text(self.take_until(|c| c.is_whitespace() || SPECIAL.contains(c)));
            match self.peek() {
                None => return Ok(value),
                Some(c) if c.is_whitespace() => return Ok(value),
                Some('\'') => self.single_quoted(&mut value)?,
                Some('"') => self.double_quoted(&mut value)?,
                Some('$') => self.dollar(&mut value)?,
                Some('\\') if self.at_escaped_reference() => {
                    self.at += 1;
                    self.dollar(&mut value)?;
                }
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

    fn single_quoted(&mut self, value: &mut Template) -> Result<(), WordError> {
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

    fn double_quoted(&mut self, value: &mut Template) -> Result<(), WordError> {
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
                Some('\\') if self.at_escaped_reference() => {
                    self.at += 1;
                    self.dollar(value)?;
                }
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

    /// Whether `\$NAME` or `\${NAME}` comes next.
    fn at_escaped_reference(&self) -> bool {
        let Some(after) = self.rest().strip_prefix("\\$").filter(|_| self.late_references) else {
            return false;
        };
        let name = after.strip_prefix('{').unwrap_or(after);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }

    fn dollar(&mut self, value: &mut Template) -> Result<(), WordError> {
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

    fn read(text: &str) -> Vec<String> {
        split(text).unwrap().iter().map(|word| word.as_str().to_owned()).collect()
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(read("a  'b c'\n\"d 'e'\"f \\ g"), ["a", "b c", "d 'e'f", " g"]);
    }

    #[test]
    fn an_escaped_reference_is_a_reference_and_an_escaped_dollar_sign_is_one() {
        assert_eq!(read(r#"\$A "\${B}" '\$C' \$5 "5\$""#), ["${A}", "${B}", "\\$$C", "$$5", "5$$"]);
        assert!(split(r"\${A:-x}").is_err());
    }
}
