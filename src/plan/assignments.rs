// SPDX-License-Identifier: Apache-2.0
//! Environment strings of a test configuration (`worker_env_var: "A=1 B='x y'"`): words that are
//! all assignments. Whatever would do anything but assign is an error.

use super::secret::is_secret_name;
use super::template::{Template, is_name};
use super::words::{Reader, WordError};

/// One assignment of an environment string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The variable's name.
    pub name: String,
    /// Its value.
    pub value: Template,
}

/// Splits an environment string into its assignments, in order.
///
/// # Errors
/// A word that is not `NAME=VALUE`, and whatever [`super::words`] refuses.
pub fn parse(text: &str) -> Result<Vec<Assignment>, WordError> {
    read(text, None)
}

/// [`parse`] of a text whose other words are dropped: the places of these are added.
///
/// # Errors
/// Whatever [`super::words`] refuses.
pub fn parse_dropping(text: &str, dropped: &mut Vec<usize>) -> Result<Vec<Assignment>, WordError> {
    read(text, Some(dropped))
}

fn read(text: &str, mut dropped: Option<&mut Vec<usize>>) -> Result<Vec<Assignment>, WordError> {
    let mut reader = Reader::new(text);
    let mut assignments: Vec<Assignment> = Vec::new();
    while reader.skip_blanks() {
        let start = reader.clone();
        let word = reader.word()?;
        // The name may be inside the quotes too (`"A=x y"`), as real configurations have it.
        match word.as_str().split_once('=') {
            Some((name, value)) if is_name(name) => assignments
                .push(Assignment { name: name.to_owned(), value: Template::from_written(value) }),
            _ if dropped.is_some() => {
                dropped.iter_mut().for_each(|places| places.push(start.position()));
            }
            _ => {
                let written = &start.rest()[..start.rest().len() - reader.rest().len()];
                // Such a word may be a part of the value before it.
                let secret = assignments.iter().any(|before| is_secret_name(&before.name));
                let shown = match secret || written.chars().count() > MOST_SHOWN {
                    true => "this word".to_owned(),
                    false => format!("`{}`", written.split(['=', ':']).next().unwrap_or(written)),
                };
                return start.error(
                    format!("{shown} is not an assignment of an environment variable"),
                    "write NAME=VALUE, separated by blanks; quote values that contain blanks",
                );
            }
        }
    }
    Ok(assignments)
}

/// The longest word that an error quotes, in characters.
const MOST_SHOWN: usize = 60;

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
                ("E", "${F} \\x"),
                ("F", "abc")
            ])
        );
    }

    #[test]
    fn a_name_may_stand_inside_the_quotes() {
        assert_eq!(read(r#""A=x y" 'B=1'"#), pairs(&[("A", "x y"), ("B", "1")]));
    }

    #[test]
    fn references_are_kept_for_the_step() {
        assert_eq!(
            read(r#"A=$HOME/x B="${SLURM_JOB_ID}" C=\$LATE D=5$"#),
            pairs(&[("A", "${HOME}/x"), ("B", "${SLURM_JOB_ID}"), ("C", "${LATE}"), ("D", "5$$")])
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

    #[test]
    fn an_error_does_not_quote_a_secret() {
        let message = |text| parse(text).unwrap_err().message;
        for text in ["HF_TOKEN= hf_x", "A=1 HF_TOKEN=a hf_x.=", "HF-TOKEN=hf_x", "HF_TOKEN:hf_x"] {
            assert!(!message(text).contains("hf_x"), "{text}");
        }
        assert!(message("A=1 python").starts_with("`python` is not"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
