// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a text that is no YAML, in words that people have for it: the parser reports
//! which token it missed, a person has a tab, a wrong indentation or a full-width colon.

use crate::diagnostic::{Diagnostic, Position, Source};

/// A sentence about an error of the parser, and where the cause is.
pub(super) fn explain(source: &Source, found: &str, at: Position) -> (Diagnostic, Position) {
    let end = source.last_position();
    let at = if (at.line, at.column) > (end.line, end.column) { end } else { at };
    cause_nearby(source, found, at).unwrap_or_else(|| {
        let (message, help) = sentence(source, found, at);
        (Diagnostic::error(message).help(help), at)
    })
}

/// A mistake that the parser only stumbles over later, in its line or the one before.
fn cause_nearby(source: &Source, found: &str, at: Position) -> Option<(Diagnostic, Position)> {
    let before = (1..at.line).rev().find(|line| !content(source.line(*line)).is_empty());
    let cause = |line: u32, byte: usize, message: &str, help: String| {
        let column = source.line(line)[..byte].chars().count() as u32 + 1;
        let error = Diagnostic::error(message).help(help);
        Some((error, Position { line, column, length: 1 }))
    };
    if found.contains("tab") || found.contains("valid YAML whitespace") {
        for line in [at.line, at.line + 1] {
            let text = source.line(line);
            let is_indent = text.trim_start_matches([' ', '\t']).len();
            if let Some(byte) = text.find('\t') {
                let help = "use spaces".to_owned();
                return match byte < text.len() - is_indent {
                    true => cause(line, byte, "a tab cannot indent YAML", help),
                    false => cause(line, byte, "a tab cannot separate a key from its value", help),
                };
            }
        }
    }
    mistyped(source, at.line).or_else(|| mistyped(source, before?))
}

/// A character that a keyboard typed in the place of one of YAML's, or a space left out.
pub(super) fn mistyped(source: &Source, line: u32) -> Option<(Diagnostic, Position)> {
    let text = content(source.line(line));
    let cause = |byte: usize, message: &str, help: String| {
        let column = text[..byte].chars().count() as u32 + 1;
        let error = Diagnostic::error(message).help(help);
        Some((error, Position { line, column, length: 1 }))
    };
    // Where a key ends, in the indentation, before a value: what is in values is nobody's mistake.
    let key = &text[..text.find(": ").unwrap_or(text.len())];
    if let Some(byte) = key.find('：') {
        return cause(byte, "this is a full-width colon", "write `:` and a space".to_owned());
    }
    let blank = |c: char| c.is_whitespace() && !c.is_ascii();
    let place = text.char_indices().find(|(byte, c)| {
        blank(*c) && (text[..*byte].trim().is_empty() || text[..*byte].ends_with([':', '-']))
    });
    if let Some((byte, c)) = place {
        let message = format!("this is no space to YAML, but U+{:04X}", u32::from(c));
        return cause(byte, &message, "write plain spaces".to_owned());
    }
    // Not of list items: `- host:8000` is a value.
    let key = text.trim_start();
    let name = key.split(':').next().unwrap_or_default();
    let value = &key[name.len()..];
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let joined = value.strip_prefix(':').is_some_and(|value| {
        value.starts_with(|c: char| !c.is_whitespace() && c != ':' && c != '/')
    });
    if joined && !name.is_empty() && name.chars().all(is_name) {
        let help = format!("write `{name}: …`");
        return cause(text.len() - value.len(), "a space is missing after this colon", help);
    }
    None
}

/// A line without its comment and what follows its first quote: nothing there is YAML's.
fn content(line: &str) -> &str {
    let quoted = line.find(['"', '\'']).unwrap_or(line.len());
    let comment = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #") };
    line[..quoted.min(comment.unwrap_or(line.len()))].trim_end()
}

fn sentence(source: &Source, found: &str, at: Position) -> (String, &'static str) {
    let text = source.line(at.line);
    let before: String = text.chars().take(at.column as usize - 1).collect();
    let has = |part: &str| found.contains(part);
    let (message, help) = if has("mapping values are not allowed") && before.contains(": ") {
        ("there is a second `: ` in this value", "put the value in quotes")
    } else if has("mapping values are not allowed") {
        (
            "wrong indentation, or the line above is not `key: value`",
            "indent keys of one mapping alike, and a nested mapping below `key:` alone",
        )
    } else if has("did not find expected key") && text.trim_start().starts_with("- ") {
        ("a list item stands where a key is expected", "indent the list below its key")
    } else if has("did not find expected key") || has("expected '-'") || has("indentation") {
        (
            "wrong indentation: this line fits none of the lines above",
            "indent the keys of one mapping, and the items of one list, alike",
        )
    } else if has("wrongly indented line in block scalar") {
        ("wrong indentation in a text block", "indent its lines alike")
    } else if has("simple key") {
        ("`:` is missing: a line is `key: value` or `- item`", "")
    } else if has("flow sequence") {
        ("this list is not closed", "close it with `]`, and separate its items by `,`")
    } else if has("flow mapping") {
        ("this mapping is not closed", "close it with `}`, and separate its keys by `,`")
    } else if has("unexpected end of stream") || has("document indicator") {
        ("this quote is never closed", "")
    } else if has("escape") || has("hexadecimal") {
        (
            "a backslash in double quotes starts an escape that YAML does not have",
            "write two backslashes, or use single quotes",
        )
    } else if has("trailing content") {
        ("text follows the closing quote", "put the whole value into one pair of quotes")
    } else if has("block sequence entries") {
        ("a list cannot begin on the line of its key", "write its items on the lines below")
    } else if has("misplaced bracket") {
        ("this bracket closes nothing", "put the value in quotes if it belongs to it")
    } else if has("unknown anchor") {
        (
            "this alias has no anchor above it",
            "put the value in quotes if it starts with `*`, or define the anchor `&NAME` before it",
        )
    } else if has("anchor or alias") {
        ("`&` and `*` begin the name of an anchor", "put the value in quotes")
    } else if has("unexpected character") {
        ("a value cannot begin with this character", "put the value in quotes")
    } else {
        return (format!("invalid YAML: {found}"), "");
    };
    (message.to_owned(), help)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::diagnostic::Source;

    #[test]
    fn mistakes_are_named_where_they_are() {
        for (text, place, message) in [
            ("a:\n  b: 1\n   c: 2\n", "3:5", "wrong indentation"),
            ("a:\n    b: 1\n  c: 2\n", "3:3", "wrong indentation"),
            ("a: 1\n  b: 2\n", "2:4", "wrong indentation"),
            ("a:\n- b\n c: 1\n", "3:3", "wrong indentation"),
            ("a:\n\tb: 1\n", "2:1", "a tab cannot indent"),
            ("a:\n  b: 1\n\tc: 2\n", "3:1", "a tab cannot indent"),
            ("a:\n  b:\t1\n\n", "2:5", "a tab cannot separate"),
            ("a：\n  b: 4\n", "1:2", "full-width colon"),
            ("a:\n  b：4\n  c: 1\n", "2:4", "full-width colon"),
            ("a:\n  c: 1\n  b：4\n", "3:4", "full-width colon"),
            ("a:1\nb: 2\n", "1:2", "a space is missing"),
            ("a: 1\nb:2\n", "2:2", "a space is missing"),
            ("a:\n  b: 1\n\u{a0} c: 2\n  d: 3\n", "3:1", "no space to YAML, but U+00A0"),
            ("a:\u{3000}1\nb: 2\n", "1:3", "no space to YAML, but U+3000"),
            ("a: x\u{3000}：y\n b: 2\n", "2:3", "wrong indentation"),
            ("h:\n- a:80\n b: 1\n", "3:3", "wrong indentation"),
            ("a: &\n", "1:4", "begin the name of an anchor"),
            ("a\nb: 1\n", "2:2", "the line above is not"),
            ("a: b: c\n", "1:5", "a second `: `"),
            ("a: 1\nb\n", "2:2", "`:` is missing"),
            ("a: 1\n- b\n", "2:3", "a list item stands"),
            ("a: - b\n", "1:4", "a list cannot begin"),
            ("a: [1, 2\n", "1:9", "this list is not closed"),
            ("a: {b: 1\n\n\n", "1:9", "this mapping is not closed"),
            ("a: \"x\n", "1:4", "never closed"),
            ("a: \"\\q\"\n", "1:4", "a backslash"),
            ("a: \"x\" y\n", "1:8", "text follows the closing quote"),
            ("a: @x\n", "1:4", "cannot begin with"),
            ("a: *x\n", "1:4", "has no anchor"),
            ("a: ]\n", "1:4", "closes nothing"),
        ] {
            let source = Arc::new(Source::new("a.yaml", text));
            let error = super::super::yaml::parse(&source).unwrap_err().to_string();
            assert!(error.starts_with(&format!("a.yaml:{place}: error: ")), "{text:?}\n{error}");
            assert!(error.contains(message), "{text:?}\n{error}");
        }
    }
}
