// SPDX-License-Identifier: Apache-2.0
//! Reads the command that a step gets as shell text, back into words.
//!
//! Independent of what writes it, and stricter than a shell: nothing but quoted text, plain text and
//! plain variables is taken, so that a command substitution that slipped through is found, not run.

use disagg::plan::template::is_name;

/// A word as far as it is read.
#[derive(Default)]
struct Word {
    text: String,
    /// Whether anything in it is quoted.
    quoted: bool,
    /// Whether it started as `NAME=` without quotes.
    assigns: bool,
}

/// The words of commands that are joined by `&&`, in an environment.
///
/// # Errors
/// The first thing that is more than a word: a shell would do something with it.
pub fn read<'e>(
    text: &str,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<Vec<Vec<String>>, String> {
    let mut commands = vec![Vec::new()];
    // Words up to here set variables: bash does not split their values.
    let mut setting = true;
    let mut word: Option<Word> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if matches!(c, ' ' | '\t') {
            let words = commands.last_mut().ok_or("no command")?;
            if let Some(word) = word.take() {
                setting &= word.assigns || words.is_empty() && word.text == "export";
                words.push(word.text);
            }
            continue;
        }
        if let (None, '&', Some(after)) = (&word, c, rest.strip_prefix("& ")) {
            commands.push(Vec::new());
            (setting, rest) = (true, after);
            continue;
        }
        let word = word.get_or_insert_default();
        word.quoted |= matches!(c, '\'' | '"' | '\\');
        match c {
            '\'' => {
                let (inside, after) = rest.split_once('\'').ok_or("a ' is not closed")?;
                word.text.push_str(inside);
                rest = after;
            }
            '\\' => {
                let escaped = rest.chars().next().ok_or("a \\ ends it")?;
                word.text.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
            '"' => rest = quoted(rest, &mut word.text, &lookup)?,
            '$' if setting && word.assigns => rest = variable(rest, &mut word.text, &lookup)?,
            '$' => return Err(format!("${} is not in quotes", excerpt(rest))),
            c if "|&;<>()`*?[]#~!{}\n\r".contains(c) => {
                return Err(format!("{c:?} is not in quotes, before {:?}", excerpt(rest)));
            }
            c => {
                word.assigns |= c == '=' && !word.quoted && is_name(&word.text);
                word.text.push(c);
            }
        }
    }
    if let (Some(words), Some(word)) = (commands.last_mut(), word) {
        words.push(word.text);
    }
    Ok(commands)
}

/// What follows a double quote, up to the next one; returns what is after that.
fn quoted<'t, 'e>(
    mut rest: &'t str,
    word: &mut String,
    lookup: &impl Fn(&str) -> Option<&'e str>,
) -> Result<&'t str, String> {
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '"' => return Ok(rest),
            '$' => rest = variable(rest, word, lookup)?,
            '`' => return Err(format!("`{} would be run", excerpt(rest))),
            '\\' if rest.starts_with(['"', '$', '`', '\\']) => {
                word.push_str(&rest[..1]);
                rest = &rest[1..];
            }
            c => word.push(c),
        }
    }
    Err("a \" is not closed".to_owned())
}

/// `{NAME}` or `{NAME-}`, what follows a dollar sign; returns what is after that.
fn variable<'t, 'e>(
    rest: &'t str,
    word: &mut String,
    lookup: &impl Fn(&str) -> Option<&'e str>,
) -> Result<&'t str, String> {
    let (name, after) = rest
        .strip_prefix('{')
        .and_then(|rest| rest.split_once('}'))
        .map(|(name, after)| (name.strip_suffix('-').unwrap_or(name), after))
        .filter(|(name, _)| is_name(name))
        .ok_or_else(|| format!("${} is not a plain variable", excerpt(rest)))?;
    word.push_str(lookup(name).unwrap_or_default());
    Ok(after)
}

fn excerpt(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<Vec<String>>, String> {
        read(text, |name| (name == "A").then_some("a b"))
    }

    #[test]
    fn words_are_read_as_a_shell_reads_them() {
        let found = words(r#"X=1 Y='a'\''b c'"${A-}"d "\$A" '' plain"#).unwrap();
        assert_eq!(found, [["X=1", "Y=a'b ca bd", "$A", "", "plain"]]);
    }

    #[test]
    fn commands_end_at_two_ampersands() {
        let found = words("unset A B && export X=${A} && Y=${A-}c run 'a && b'").unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[1], ["export", "X=a b"]);
        assert_eq!(found[2], ["Y=a bc", "run", "a && b"]);
    }

    #[test]
    fn what_a_shell_would_run_split_or_expand_is_refused() {
        for text in [
            "a$(id)",
            "a `id`",
            "a\"$(id)\"",
            "a\"`id`\"",
            "a; b",
            "a & b",
            "a &&b",
            "*",
            "$A",
            "run X=${A}",
            "'X'=${A}",
            "unset X=${A}",
            "a > b",
            "'a",
        ] {
            assert!(words(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_real_shell_reads_the_same_words() {
        let text = r#"a 'b  c' "x${A-}y" d\ e 'it'\''s' "q\"q\\" é=1"#;
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\0' {text}")])
            .env("A", "a b")
            .output()
            .unwrap();
        let shell = String::from_utf8(output.stdout).unwrap();
        let shell: Vec<_> = shell.split_terminator('\0').collect();
        assert_eq!(words(text).unwrap(), [shell]);
    }
}
