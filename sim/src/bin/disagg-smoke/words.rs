// SPDX-License-Identifier: Apache-2.0
//! Reads the command that a step gets as shell text, back into words.
//!
//! Independent of what writes it, and stricter than a shell: nothing but quoted text, plain text and
//! plain variables is taken, so that a command substitution that slipped through is found, not run.

/// The words of a command in an environment.
///
/// # Errors
/// The first thing that is more than a word: a shell would do something with it.
pub fn read<'e>(
    text: &str,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        if matches!(c, ' ' | '\t') {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '\'' => {
                let (inside, after) = rest.split_once('\'').ok_or("a ' is not closed")?;
                word.push_str(inside);
                rest = after;
            }
            '\\' => {
                let escaped = rest.chars().next().ok_or("a \\ ends it")?;
                word.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
            '"' => rest = quoted(rest, word, &lookup)?,
            '$' => return Err(format!("${} is not in quotes", excerpt(rest))),
            c if "|&;<>()`*?[]#~!{}\n\r".contains(c) => {
                return Err(format!("{c:?} is not in quotes, before {:?}", excerpt(rest)));
            }
            c => word.push(c),
        }
    }
    words.extend(word);
    Ok(words)
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
            '$' => {
                let (name, after) = rest
                    .strip_prefix('{')
                    .and_then(|rest| rest.split_once('}'))
                    .map(|(name, after)| (name.strip_suffix('-').unwrap_or(name), after))
                    .filter(|(name, _)| disagg::plan::template::is_name(name))
                    .ok_or_else(|| format!("${} is not a plain variable", excerpt(rest)))?;
                word.push_str(lookup(name).unwrap_or_default());
                rest = after;
            }
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

fn excerpt(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, String> {
        read(text, |name| (name == "A").then_some("a b"))
    }

    #[test]
    fn words_are_read_as_a_shell_reads_them() {
        let found = words(r#"X=1 Y='a'\''b c'"${A-}"d "\$A" '' plain"#).unwrap();
        assert_eq!(found, ["X=1", "Y=a'b ca bd", "$A", "", "plain"]);
    }

    #[test]
    fn what_a_shell_would_run_or_expand_is_refused() {
        for text in
            ["a$(id)", "a `id`", "a\"$(id)\"", "a\"`id`\"", "a; b", "*", "$A", "a > b", "'a"]
        {
            assert!(words(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_printed_word_agrees_with_a_real_shell() {
        let text = r#"a 'b  c' "x${A-}y" d\ e 'it'\''s' "q\"q\\" é=1"#;
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf '%s\\0' {text}")])
            .env("A", "a b")
            .output()
            .unwrap();
        let shell = String::from_utf8(output.stdout).unwrap();
        let shell: Vec<_> = shell.split_terminator('\0').collect();
        assert_eq!(words(text).unwrap(), shell);
    }
}
