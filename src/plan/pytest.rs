// SPDX-License-Identifier: Apache-2.0
//! What pytest's options take, so that a command line is split as pytest itself splits it: no
//! value is mistaken for an option, no test is swallowed as a value.
//!
//! Source: the option tables of pytest 9.2, pytest-cov 7.1, -timeout 2.4, -split 0.11, -csv 3.0,
//! -rerunfailures 16.7, -xdist 3.8 and of the test suite's own plugins. pytest takes no
//! abbreviations. A value after `=` in the same word ends every long option.

use std::ops::Range;

/// Long options that take one word of their own.
const ONE: &[&str] = &[
    "--assert",
    "--basetemp",
    "--capture",
    "--code-highlight",
    "--color",
    "--confcutdir",
    "--config-file",
    "--deselect",
    "--doctest-glob",
    "--doctest-report",
    "--durations",
    "--durations-min",
    "--ignore",
    "--ignore-glob",
    "--import-mode",
    "--junit-prefix",
    "--junit-xml",
    "--junitprefix",
    "--junitxml",
    "--last-failed-no-failures",
    "--lfnf",
    "--log-auto-indent",
    "--log-cli-date-format",
    "--log-cli-format",
    "--log-cli-level",
    "--log-date-format",
    "--log-disable",
    "--log-file",
    "--log-file-date-format",
    "--log-file-format",
    "--log-file-level",
    "--log-file-mode",
    "--log-format",
    "--log-level",
    "--max-warnings",
    "--maxfail",
    "--override-ini",
    "--pastebin",
    "--pdbcls",
    "--pythonwarnings",
    "--report-chars",
    "--rootdir",
    "--show-capture",
    "--tb",
    "--verbosity",
    // pytest-timeout
    "--session-timeout",
    "--timeout",
    "--timeout-method",
    "--timeout_method",
    // pytest-split
    "--durations-path",
    "--group",
    "--splits",
    "--splitting-algorithm",
    // pytest-cov
    "--cov-config",
    "--cov-context",
    "--cov-fail-under",
    "--cov-precision",
    "--cov-report",
    // pytest-csv
    "--csv",
    "--csv-delimiter",
    "--csv-quote-char",
    // pytest-rerunfailures
    "--force-reruns",
    "--max-suite-reruns",
    "--only-rerun",
    "--rerun-except",
    "--rerun-exclude-path",
    "--reruns",
    "--reruns-delay",
    "--reruns-delay-backoff-factor",
    "--reruns-mode",
    // pytest-xdist
    "--dist",
    "--max-worker-restart",
    "--maxprocesses",
    "--maxschedchunk",
    "--numprocesses",
    "--px",
    "--rsyncdir",
    "--rsyncignore",
    "--testrunuid",
    "--tx",
    // the test suite's own
    "--output-dir",
    "--perf-log-formats",
    "--periodic-batch-size",
    "--periodic-interval",
    "--periodic-junit-xmlpath",
    "--regexp",
    "--test-list",
    "--test-prefix",
    "--unittest-markexpr",
    "--waives-file",
];

/// Long options that take the next word unless it begins with `-`.
const MAYBE_ONE: &[&str] = &["--cov", "--debug", "--cache-show"];

/// Long options that take all words up to the next that begins with `-`.
const MANY: &[&str] = &["--csv-columns", "--csv-add-columns"];

/// Short options that take a value: the rest of their word, or the next word.
const SHORT_ONE: &str = "WckmnoprFOPRS";

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

/// Splits the words after `pytest` into options with their values, and single positionals.
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
    let next = words.get(1);
    let values = |most: usize| words[1..].iter().take(most).take_while(is_value).count();
    if option == "--" {
        return Ok(words.len());
    }
    if option.starts_with("--") {
        return Ok(match () {
            () if option.contains('=') => 1,
            () if ONE.contains(&option) => words.len().min(2),
            () if MAYBE_ONE.contains(&option) => 1 + values(1),
            () if MANY.contains(&option) => 1 + values(usize::MAX),
            () => match next.filter(is_value) {
                Some(next) if is_output(option) && !OUTPUT_FLAGS.contains(&option) => {
                    return Err(UnknownArity {
                        option: option.to_owned(),
                        next: next.as_ref().to_owned(),
                    });
                }
                _ => 1,
            },
        });
    }
    let Some(cluster) = option.strip_prefix('-') else { return Ok(1) };
    let takes = cluster.find(|letter| SHORT_ONE.contains(letter));
    let is_last = takes.is_some_and(|at| at + 1 == cluster.len());
    Ok(if is_last { words.len().min(2) } else { 1 })
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
        let words = ["--output-dir=/x", "--output-dir", "/w", "-k", "--output-dir=no"];
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
