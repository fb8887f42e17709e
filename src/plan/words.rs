// SPDX-License-Identifier: Apache-2.0
//! Words as bash reads them: split at blanks and line ends, single and double quotes, backslashes,
//! `$NAME` and `${NAME}`. What is accepted means what it means to bash; whatever else bash would
//! expand or run is an error.
//!
//! References are expanded in the step, never earlier. So `\$NAME`, by which configurations keep
//! the shell that starts the job from expanding a name before the step's own shell does, means
//! the same as `$NAME`.

use super::template::{Template, is_name};

/// Why a text cannot be read as words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WordError {
    /// Where in the text, in bytes.
    pub offset: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: &'static str,
}

const QUOTE_IT: &str = "put the value in single quotes if the character belongs to it";

/// A word of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its value.
    pub value: Template,
    /// Whether it is an assignment to bash: `NAME=` outside quotes, before the command.
    pub is_assignment: bool,
}

/// Splits a command into its words.
///
/// # Errors
/// A command substitution, any expansion other than that of `$NAME` and `${NAME}`, an unquoted
/// shell operator, an open quote, a NUL byte, a blank that is none to bash, a second command.
pub fn split(text: &str) -> Result<Vec<Word>, WordError> {
    let mut reader = Reader::new(text);
    let mut words = Vec::new();
    loop {
        let between = reader.clone();
        if !reader.skip_blanks() {
            return Ok(words);
        }
        let blanks = &text[between.at..reader.at];
        if !words.is_empty() && blanks.replace("\\\n", "").contains('\n') {
            let help = "write the command on one line, or end the line with a backslash";
            return between.error("the command ends with the line, and more follows", help);
        }
        let leads = words.iter().all(|word: &Word| word.is_assignment);
        let is_assignment = leads && reader.at_assignment();
        words.push(Word { value: reader.read(is_assignment)?, is_assignment });
    }
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

    /// Whether a line begins here.
    pub fn starts_line(&self) -> bool {
        self.at == 0 || self.text[..self.at].ends_with('\n')
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

    /// Skips blanks and line ends, escaped ones too; whether anything is left.
    pub fn skip_blanks(&mut self) -> bool {
        loop {
            self.take_until(|c| !BLANKS.contains(c));
            match self.rest().starts_with("\\\n") {
                true => self.at += 2,
                false => return self.at < self.text.len(),
            }
        }
    }

    /// Whether `NAME=` comes next.
    fn at_assignment(&self) -> bool {
        let rest = self.rest();
        let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next();
        name.is_some_and(|name| is_name(name) && rest[name.len()..].starts_with('='))
    }

    /// An error at the place that is read next.
    ///
    /// # Errors
    /// Always.
    pub fn error<T>(&self, message: impl Into<String>, help: &'static str) -> Result<T, WordError> {
        Err(WordError { offset: self.at, message: message.into(), help })
    }

    /// Reads up to the end of the word.
    ///
    /// # Errors
    /// As [`split`].
    pub fn word(&mut self) -> Result<Template, WordError> {
        self.read(self.at_assignment())
    }

    /// Reads the value of an assignment whose `NAME=` was read.
    ///
    /// # Errors
    /// As [`split`].
    pub fn value(&mut self) -> Result<Template, WordError> {
        self.read(true)
    }

    fn read(&mut self, is_assignment: bool) -> Result<Template, WordError> {
        let start = self.at;
        // Bash expands tildes in what only looks like an assignment, too.
        let has_homes = is_assignment || self.at_assignment();
        let mut braces_stay = is_assignment;
        let mut value = Template::default();
        loop {
            value.push_text(self.take_until(|c| c.is_whitespace() || SPECIAL.contains(c)));
            match self.peek() {
                None => return Ok(value),
                Some(c) if BLANKS.contains(c) => return Ok(value),
                Some(c) if c.is_whitespace() => return self.error(blank(c), BLANK_HELP),
                Some('\'') => self.single_quoted(&mut value)?,
                Some('"') => self.double_quoted(&mut value)?,
                Some('$') => self.dollar(&mut value, false)?,
                Some('\\') if self.at_escaped_reference() => {
                    self.at += 1;
                    self.dollar(&mut value, false)?;
                }
                Some('\\') => match self.rest()[1..].chars().next() {
                    None => {
                        self.at += 1;
                        return self.error("the value ends in a backslash", QUOTE_IT);
                    }
                    Some('\0') => return self.error(NUL, ""),
                    Some(c) => {
                        self.at += 1 + c.len_utf8();
                        if c != '\n' {
                            value.push_text(c.encode_utf8(&mut [0; 4]));
                        }
                    }
                },
                Some('`') => return self.error(COMMAND, COMMAND_HELP),
                Some('\0') => return self.error(NUL, ""),
                Some('~') if self.at_home(start, has_homes) => {
                    return self.error("`~` is not expanded", "write the whole path, or $HOME");
                }
                Some('#') if self.at == start => {
                    return self.error("`#` starts a comment here", QUOTE_IT);
                }
                Some(c @ ('*' | '?')) if !is_assignment => {
                    let message = format!("`{c}` is a pattern of file names, and none is expanded");
                    return self.error(message, QUOTE_IT);
                }
                Some('{') if !braces_stay => {
                    if self.at_braces() {
                        let help = "write each word out, or quote it";
                        return self.error("braces are not expanded", help);
                    }
                    braces_stay = true;
                }
                Some(c @ ('~' | '#' | '*' | '?' | '{')) => {
                    value.push_text(c.encode_utf8(&mut [0; 4]));
                    self.at += 1;
                }
                Some(c) => {
                    let message = format!("`{c}` is a shell operator, and no shell runs here");
                    return self.error(message, QUOTE_IT);
                }
            }
        }
    }

    /// Whether bash would put a home directory here: at the start of a word, and after `=` and
    /// `:` of an assignment.
    fn at_home(&self, start: usize, has_homes: bool) -> bool {
        let mut before = &self.text[start..self.at];
        while let Some(shorter) = before.strip_suffix("\\\n") {
            before = shorter;
        }
        before.is_empty() || (has_homes && before.ends_with(['=', ':']))
    }

    /// Whether braces come next that bash would make several words of: `{a,b}`, `{1..3}`.
    fn at_braces(&self) -> bool {
        let word = self.rest().split(|c| BLANKS.contains(c)).next().unwrap_or_default();
        word.contains('}') && (word.contains(',') || word.contains(".."))
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
                Some('$') => self.dollar(value, true)?,
                Some('`') => return self.error(COMMAND, COMMAND_HELP),
                Some('\\') if self.at_escaped_reference() => {
                    self.at += 1;
                    self.dollar(value, true)?;
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

    fn dollar(&mut self, value: &mut Template, quoted: bool) -> Result<(), WordError> {
        let rest = &self.rest()[1..];
        match rest.chars().next() {
            Some('(') => return self.error(COMMAND, COMMAND_HELP),
            Some('[') => return self.error("`$[` is arithmetic, which is not done", DOLLAR_HELP),
            Some(c @ ('\'' | '"')) if !quoted => {
                let help = "use quotes without `$`; in double quotes YAML itself knows \\t and \\n";
                return self
                    .error(format!("`${c}` is a quote of bash that is not read here"), help);
            }
            Some('\\') if rest.starts_with("\\\n") => return self.error(BROKEN, BROKEN_HELP),
            _ => {}
        }
        let after_name = |c: char| !c.is_ascii_alphanumeric() && c != '_';
        let braced = rest.strip_prefix('{');
        let name = braced.unwrap_or(rest).split(after_name).next().unwrap_or_default();
        // `${NAME-}` is the same: what is not set counts as empty.
        let end = ["}", "-}"].into_iter().find(|end| {
            braced.is_some_and(|braced| is_name(name) && braced[name.len()..].starts_with(end))
        });
        if braced.is_some() && end.is_none() {
            return self.error(
                "only $NAME and ${NAME} are expanded",
                "write the value out, or quote it with single quotes",
            );
        }
        let special = |c: char| c.is_ascii_digit() || "@*#?-!$".contains(c);
        if name == "_" || rest.starts_with(special) {
            let message = "the special parameters of shells are not known here";
            return self.error(message, DOLLAR_HELP);
        }
        if name.is_empty() {
            value.push_text("$");
            self.at += 1;
            return Ok(());
        }
        let mut following = &rest[name.len()..];
        while let Some(next_line) = following.strip_prefix("\\\n").filter(|_| braced.is_none()) {
            following = next_line;
            if !following.starts_with(after_name) && !following.is_empty() {
                return self.error(BROKEN, BROKEN_HELP);
            }
        }
        value.push_variable(name);
        self.at += 1 + name.len() + end.map_or(0, |end| 1 + end.len());
        Ok(())
    }
}

/// What is wrong with a character that separates words elsewhere, but not in bash.
fn blank(c: char) -> String {
    let name = match c {
        '\r' => "a carriage return, as Windows ends lines,".to_owned(),
        '\u{a0}' => "a no-break space (U+00A0)".to_owned(),
        '\u{3000}' => "a full-width space (U+3000)".to_owned(),
        c => format!("the blank U+{:04X}", u32::from(c)),
    };
    format!("{name} does not separate words")
}

/// What separates words.
const BLANKS: &str = " \t\n";
/// What ends a run of characters that stand for themselves outside quotes.
const SPECIAL: &str = "'\"$\\`\0;&|<>()~#*?{";
const BLANK_HELP: &str = "write a plain space, or quote the character if the value needs it";
const DOLLAR_HELP: &str = "write \\$ for a dollar sign";
const BROKEN: &str = "a line ends inside a reference";
const BROKEN_HELP: &str = "write the reference on one line, as ${NAME}";
const NUL: &str = "a NUL byte cannot be in an environment variable";
const COMMAND: &str = "command substitution is not done: nothing of a configuration is run";
const COMMAND_HELP: &str =
    "write the value out; $NAME and ${NAME} are expanded when the step starts";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        split(text).unwrap().iter().map(|word| word.value.as_str().to_owned()).collect()
    }

    #[test]
    fn words_end_at_blanks_outside_quotes() {
        assert_eq!(read("\na  'b c'\t\"d 'e'\"f \\ g"), ["a", "b c", "d 'e'f", " g"]);
    }

    #[test]
    fn an_escaped_reference_is_a_reference_and_an_escaped_dollar_sign_is_one() {
        assert_eq!(read(r#"\$A "\${B}" '\$C' \$5 "5\$""#), ["${A}", "${B}", "\\$$C", "$$5", "5$$"]);
        assert!(split(r"\${A:-x}").is_err());
    }

    #[test]
    fn assignments_come_first_and_have_their_name_outside_quotes() {
        let words = split("A=1 \\\n B=2  \"C=1\" D=1").unwrap();
        let shape: Vec<_> = words.iter().map(|word| word.is_assignment).collect();
        assert_eq!(shape, [true, true, false, false]);
    }

    #[test]
    fn what_bash_would_expand_is_refused_at_its_place() {
        for (text, offset) in [
            ("A=$[1+1]", 2),
            ("A=\"$[1]\"", 3),
            ("A=$'a\\n'", 2),
            ("A=$\"a\"", 2),
            ("A=~/x", 2),
            ("A=/x:~/x", 5),
            ("A=\\\n~", 4),
            ("~/x", 0),
            ("A=$\\\nB", 2),
            ("A=$B\\\nC", 2),
            ("A=\"$B\\\nC\"", 3),
            ("A=\\$B\\\nC", 3),
            ("A=$_", 2),
            ("A=1 #x", 4),
            ("x*", 1),
            ("x?", 1),
            ("x{a,b}", 1),
            ("x{1..3}", 1),
            ("A=1\u{a0}B=2", 3),
            ("A=1\rB=2", 3),
            ("A=1\u{c}B=2", 3),
            ("A=1\u{3000}B=2", 3),
            ("A=\\\0", 2),
        ] {
            assert_eq!(split(text).unwrap_err().offset, offset, "{text:?}");
        }
    }

    #[test]
    fn what_bash_leaves_alone_is_text() {
        for text in
            ["A=x~", "A=a#b", "A=*?{a,b}", "--o=~", "x{}", "x{a}", "t.py::t[a-b]", "A=b\u{1}c"]
        {
            assert_eq!(read(text), [text]);
        }
        assert_eq!(
            read("\"$'x'\" '~' \"\u{a0}\" \\~ $B\\\n.c"),
            ["$$'x'", "~", "\u{a0}", "~", "${B}.c"]
        );
    }
}
