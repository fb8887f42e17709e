// SPDX-License-Identifier: Apache-2.0
//! Which words of a pytest command line belong together, where that decides something: an output
//! option is left out with its value and without the test after it, and a JUnit path is found in
//! either form.
//!
//! pytest (argparse) refuses a value that looks like an option, so what other options take decides
//! nothing. Source: the option tables of pytest 9.2, pytest-cov 7.1, pytest-csv 3.0 and of the test
//! suite's own plugins. pytest takes no abbreviations.

use std::ops::Range;

/// The options whose next word is their value, whatever it is.
const ONE: &[&str] = &[
    "--junit-xml",
    "--junitxml",
    "--output-dir",
    "--cov-config",
    "--cov-context",
    "--cov-fail-under",
    "--cov-precision",
    "--cov-report",
    "--csv",
    "--csv-delimiter",
    "--csv-quote-char",
    "--periodic-batch-size",
    "--periodic-interval",
    "--periodic-junit-xmlpath",
];

/// Options that take the next word unless it begins with `-`, a test as well.
const MAYBE_ONE: &[&str] = &["--cov", "--debug", "--cache-show"];

/// Options that take all words up to the next that begins with `-`.
const MANY: &[&str] = &["--csv-columns", "--csv-add-columns"];

/// The families of options that say where results and coverage go.
const OUTPUT_FAMILIES: &[&str] = &["--csv", "--cov", "--periodic"];

/// Options of those families that take no value.
const OUTPUT_FLAGS: &[&str] = &[
    "--cov-append",
    "--cov-branch",
    "--cov-reset",
    "--periodic-hang-traceback",
    "--periodic-junit",
    "--periodic-save-unfinished-test",
];

/// The options that name the JUnit file.
pub const JUNIT_OPTIONS: &[&str] = &["--junit-xml", "--junitxml"];

/// An option of which it is not known whether the next word belongs to it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not known whether {option} takes a value, so {next} may be its value or a test")]
pub struct UnknownArity {
    /// The option.
    pub option: String,
    /// The word after it.
    pub next: String,
}

/// Splits the words after `pytest` into options with their values, and tests.
///
/// # Errors
/// An option of an output family that is not known and is followed by a word that may be its
/// value: whether to leave that word out with it cannot be told.
pub fn groups<S: AsRef<str>>(words: &[S]) -> Result<Vec<Range<usize>>, UnknownArity> {
    let mut groups = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let length = length(&words[at..])?;
        groups.push(at..at + length);
        at += length;
    }
    Ok(groups)
}

/// How many words the first of these takes, itself included.
fn length<S: AsRef<str>>(words: &[S]) -> Result<usize, UnknownArity> {
    let option = words[0].as_ref();
    let is_value = |word: &&S| !word.as_ref().starts_with('-');
    let values = |most: usize| words[1..].iter().take(most).take_while(is_value).count();
    Ok(match words.get(1).filter(is_value) {
        _ if option == "--" => words.len(),
        _ if option.contains('=') || !option.starts_with('-') => 1,
        _ if ONE.contains(&option) => words.len().min(2),
        _ if MANY.contains(&option) => 1 + values(usize::MAX),
        None => 1,
        Some(_) if MAYBE_ONE.contains(&option) => 2,
        Some(_) if OUTPUT_FLAGS.contains(&option) => 1,
        Some(next) if is_output(option) => {
            return Err(UnknownArity { option: option.to_owned(), next: next.as_ref().to_owned() });
        }
        // For display alone: most options take a value, and a test is none.
        Some(next) => {
            if is_test(next.as_ref()) {
                1
            } else {
                2
            }
        }
    })
}

fn is_test(word: &str) -> bool {
    word.contains("::") || word.ends_with(".py")
}

/// Whether a word is an option that says where results and coverage go.
pub fn is_output(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    OUTPUT_FAMILIES.iter().any(|family| {
        name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// Whether an option of these takes the next word only because that word has no `-` in front: a
/// test's name there is lost.
pub fn swallows(words: &[impl AsRef<str>]) -> bool {
    words.len() > 1 && MAYBE_ONE.contains(&words[0].as_ref()) && words[1].as_ref().contains("::")
}

/// Where the values of the options of these names are: the word, and where in it the value
/// begins. None where the words cannot be split.
pub fn values_at<S: AsRef<str>>(words: &[S], names: &[&str]) -> Vec<(usize, usize)> {
    let groups = groups(words).unwrap_or_default().into_iter();
    groups
        .filter_map(|group| {
            let option = words[group.start].as_ref();
            match option.split_once('=') {
                Some((name, _)) if names.contains(&name) => Some((group.start, name.len() + 1)),
                None if names.contains(&option) && group.len() > 1 => Some((group.start + 1, 0)),
                _ => None,
            }
        })
        .collect()
}

/// The value of the last option of these names, which is the one that counts.
pub fn value_of<'w, S: AsRef<str>>(words: &'w [S], names: &[&str]) -> Option<&'w str> {
    let (at, start) = values_at(words, names).pop()?;
    Some(&words[at].as_ref()[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_output(line: &[&str]) -> Vec<String> {
        let kept = groups(line).unwrap().into_iter().filter(|group| !is_output(line[group.start]));
        kept.flatten().map(|at| line[at].to_owned()).collect()
    }

    #[test]
    fn output_options_go_with_their_values_and_nothing_else_does() {
        for (line, kept) in [
            (
                &["-vv", "--periodic-junit", "a/b.py::t[x]", "-s"][..],
                &["-vv", "a/b.py::t[x]", "-s"][..],
            ),
            (&["-k", "not --cov", "--csv", "out.csv", "a.py::t"], &["-k", "not --cov", "a.py::t"]),
            (&["--csv=o", "--junit-xml", "--cov", "a.py"], &["--junit-xml", "--cov", "a.py"]),
            (
                &[
                    "--rootdir",
                    "/x",
                    "--cov-config",
                    "/y",
                    "--cov=/a",
                    "--cov-report=",
                    "-o",
                    "j=o",
                ],
                &["--rootdir", "/x", "-o", "j=o"],
            ),
            (
                &[
                    "--cov",
                    "--cov-append",
                    "-p",
                    "plug",
                    "-sk",
                    "a or b",
                    "--csv-columns",
                    "id",
                    "n",
                ],
                &["-p", "plug", "-sk", "a or b"],
            ),
            (
                &["--perf", "--perf-log-formats", "csv", "--periodic-batch-size", "1"],
                &["--perf", "--perf-log-formats", "csv"],
            ),
            (
                &["--coverage-like", "x", "--no-cov", "--output-dir=/tmp/--cov/"],
                &["--coverage-like", "x", "--no-cov", "--output-dir=/tmp/--cov/"],
            ),
            (&["-m", "a and b", "--", "--cov"], &["-m", "a and b", "--", "--cov"]),
            (&["-kcsv", "--cov", "a.py"], &["-kcsv"]),
        ] {
            assert_eq!(without_output(line), kept, "{line:?}");
        }
    }

    #[test]
    fn an_unknown_output_option_before_a_bare_word_is_refused() {
        let error = groups(&["--cov-novelty", "x"]).unwrap_err();
        assert_eq!((error.option.as_str(), error.next.as_str()), ("--cov-novelty", "x"));
        assert!(groups(&["--cov-novelty=x", "a.py"]).is_ok());
    }

    #[test]
    fn a_value_is_found_in_both_forms_and_the_last_one_counts() {
        let words = ["--output-dir=/x", "--output-dir", "/w", "-k", "not --output-dir=no"];
        assert_eq!(value_of(&words, &["--output-dir"]), Some("/w"));
        assert_eq!(value_of(&words[..2], &["--output-dir"]), Some("/x"));
        assert_eq!(value_of(&["--x", "y"], &["--output-dir"]), None);
    }

    #[test]
    fn an_option_at_the_end_takes_nothing() {
        assert_eq!(groups(&["--rootdir"]).unwrap().len(), 1);
        assert_eq!(groups(&["-k"]).unwrap().len(), 1);
    }

    #[test]
    fn coverage_without_a_value_swallows_a_test_as_pytest_does() {
        assert!(swallows(&["--cov", "a.py::t"]));
        assert!(!swallows(&["--cov", "src"]));
    }

    proptest::proptest! {
        #[test]
        fn every_word_is_in_exactly_one_group(words in proptest::collection::vec(
            "-{0,2}(csv|cov|k|vv|periodic-junit|rootdir|a.py)(=x)?", 0..12)) {
            if let Ok(groups) = groups(&words) {
                let joined: Vec<usize> = groups.into_iter().flatten().collect();
                proptest::prop_assert_eq!(joined, (0..words.len()).collect::<Vec<_>>());
            }
        }
    }
}
