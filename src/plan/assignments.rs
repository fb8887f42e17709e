// SPDX-License-Identifier: Apache-2.0
//! Environment strings of a test configuration (`worker_env_var: "A=1 B='x y'"`): words that are
//! all assignments. Whatever would do anything but assign is an error.

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
    let mut reader = Reader::new(text);
    let mut assignments = Vec::new();
    while reader.skip_blanks() {
        assignments.push(assignment(&mut reader)?);
    }
    Ok(assignments)
}

/// The name may be inside the quotes too (`"A=x y"`), as real configurations have it.
fn assignment(reader: &mut Reader<'_>) -> Result<Assignment, WordError> {
    let start = reader.clone();
    let word = reader.word()?;
    match word.as_str().split_once('=') {
        Some((name, value)) if is_name(name) => {
            Ok(Assignment { name: name.to_owned(), value: Template::from_written(value) })
        }
        _ => {
            let written = &start.rest()[..start.rest().len() - reader.rest().len()];
            start.error(
                format!("`{written}` is not an assignment of an environment variable"),
                "write NAME=VALUE, separated by blanks; quote values that contain blanks",
            )
        }
    }
}

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

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
