// SPDX-License-Identifier: Apache-2.0
//! The one place where text becomes shell text.
//!
//! Whatever a value holds, a shell reads back exactly that value and runs nothing of it.

use std::borrow::Cow;

use crate::plan::template::{Fact, Part, Template};

/// A word that a POSIX shell reads as this text.
pub fn word(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_@%+:./-=".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
}

/// Whether a shell takes every character as it is.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_@%+:,./^-=".contains(&b))
}

/// Words separated by blanks.
pub fn words<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    texts.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The same text in double quotes, for readers that look for `NAME="…"`.
pub fn double(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$' | '`') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// A word that a shell reads as the template's value; its variables are those of the shell, and
/// one that is not set there counts as empty, also under `set -u`.
pub fn template(value: &Template) -> String {
    shell(&written(value))
}

/// The shell text of a template: its slots are the shell variables `name`, `index` and
/// `first_gpu`.
pub fn shell(text: &Template) -> String {
    let write = |part| match part {
        Part::Text(text) => text.to_owned(),
        Part::Variable(name) => format!("\"${{{name}-}}\""),
        Part::Slot(slot) => match slot.fact {
            Fact::Name => "\"${name}\"".to_owned(),
            Fact::Index => "\"${index}\"".to_owned(),
            Fact::FirstGpu => "\"${first_gpu}\"".to_owned(),
            // Only plans of the test suite have a script, and none of the other facts.
            _ => String::new(),
        },
    };
    text.parts().map(write).collect()
}

/// [`template`] with the slots left as they are. What fills them needs no quotes.
pub fn written(value: &Template) -> Template {
    let mut quoted = Template::default();
    let mut text = String::new();
    let flush = |text: &mut String, quoted: &mut Template| {
        if !text.is_empty() {
            quoted.push_text(&word(text));
            text.clear();
        }
    };
    for part in value.parts() {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Variable(name) => {
                flush(&mut text, &mut quoted);
                quoted.push_text(&format!("\"${{{name}-}}\""));
            }
            Part::Slot(slot) => {
                flush(&mut text, &mut quoted);
                quoted.push_slot(slot);
            }
        }
    }
    flush(&mut text, &mut quoted);
    if quoted.as_str().is_empty() {
        quoted.push_text("''");
    }
    quoted
}

/// The value of an assignment (`NAME=VALUE command`), whose variables are those of the shell. It
/// is written without quotes where it needs none: no shell splits the value of an assignment.
pub fn assigned(value: &Template) -> Template {
    let needs_none = value.parts().all(|part| match part {
        Part::Text(text) => is_plain(text),
        Part::Variable(_) | Part::Slot(_) => true,
    });
    if !needs_none {
        return written(value);
    }
    let mut text = Template::default();
    for part in value.parts() {
        match part {
            Part::Text(piece) => text.push_text(piece),
            Part::Variable(name) => text.push_text(&format!("${{{name}}}")),
            Part::Slot(slot) => text.push_slot(slot),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// What bash makes of words: each argument ended by a NUL byte.
    fn bash(script: &str) -> Vec<String> {
        let output = Command::new("bash").args(["-euc", script]).env("A", "a b*").output().unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(
            words(["pytest", "--timeout=3600", "a b", ""]),
            "pytest --timeout=3600 'a b' ''"
        );
    }

    #[test]
    fn a_template_takes_its_variables_from_the_shell() {
        let template = template(&Template::from_written("x '$A' ${UNSET_HERE}$$A"));
        assert_eq!(bash(&format!("printf '%s\\0' {template}")), ["x 'a b*' $A"]);
    }

    #[test]
    fn an_assigned_value_is_quoted_only_where_it_must_be() {
        let assigned = |text| shell(&assigned(&Template::from_written(text)));
        assert_eq!(assigned("/tmp/x_${A}"), "/tmp/x_${A}");
        assert_eq!(assigned(""), "");
        assert_eq!(assigned("x y"), "'x y'");
        let script = format!(
            "B={} C={} sh -c 'printf %s%s%s $#\"$B\" \"$C\"'",
            assigned("1$A"),
            assigned("; $A")
        );
        assert_eq!(bash(&format!("{script}; printf '\\0'")), ["01a b*; a b*"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn bash_reads_back_every_text(texts in prop::collection::vec("[^\0]{0,20}", 1..20)) {
            let single = words(texts.iter().map(String::as_str));
            prop_assert_eq!(&bash(&format!("printf '%s\\0' {single}")), &texts);
            let double: Vec<_> = texts.iter().map(|text| double(text)).collect();
            prop_assert_eq!(&bash(&format!("printf '%s\\0' {}", double.join(" "))), &texts);
        }
    }
}
