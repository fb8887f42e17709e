// SPDX-License-Identifier: Apache-2.0
//! Test lists: which tests they name, in both of their forms.
//!
//! A text list has one test in a line, as pipelines render them for a shard; a YAML list has them
//! in the `tests:` of its blocks. An entry is `MODULE::FUNCTION[ID]` and markers (`TIMEOUT (120)`).
//! Lines that are commented out name no test, and no shard counts them.

use std::path::Path;
use std::sync::Arc;

use super::yaml::{Node, Value};
use super::{source, yaml};
use crate::diagnostic::{Diagnostic, Diagnostics, Location, Source};
use crate::plan::{Generation, TestId, ucx};

/// A test list.
#[derive(Debug, Clone)]
pub struct TestList {
    /// Its path, as given.
    pub name: String,
    /// Its entries, in order. Some may be no tests that can be planned.
    pub entries: Vec<Entry>,
}

/// An entry of a test list.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its number, from 1.
    pub number: usize,
    /// Its text, without list marks around it.
    pub text: String,
    /// The pytest module.
    pub module: Option<String>,
    /// The test function.
    pub function: Option<String>,
    /// Its place.
    pub location: Location,
    /// What its id can mean (see [`TestId::readings`]), or why it cannot be planned.
    pub readings: Result<Vec<TestId>, Diagnostic>,
}

/// Which entry to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick<'a> {
    /// The only test that the list has.
    Only,
    /// The entry of this number, from 1; the first when it is 0 or less, as shards are counted.
    Number(i64),
    /// The only test whose id is this text, contains it, or fits it with `*` for any text.
    Matching(&'a str),
}

/// Reads a test list; a file named `.yml` or `.yaml` has the YAML form. Messages call it `shown`.
///
/// # Errors
/// The file cannot be read, or is not YAML.
pub fn read(path: &Path, shown: &str, rules: Option<Generation>) -> Result<TestList, Diagnostics> {
    let source = source::read(path, shown)?;
    let is_yaml = path.extension().is_some_and(|end| end == "yml" || end == "yaml");
    if is_yaml { from_yaml(&source, rules) } else { Ok(from_text(&source, rules)) }
}

/// Reads the text form.
pub fn from_text(source: &Arc<Source>, rules: Option<Generation>) -> TestList {
    let mut entries = Vec::new();
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let text = line.trim();
        let at = start + line.len() - line.trim_start().len();
        start += line.len();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let mut position = source.position(at);
        position.length = text.chars().count() as u32;
        let location = Location { source: source.clone(), position };
        let text = text.strip_prefix("- ").unwrap_or(text).trim_start();
        entries.push(entry(entries.len() + 1, text, location, rules));
    }
    TestList { name: source.name.clone(), entries }
}

/// Reads the YAML form: the `tests:` of all blocks of all sections.
///
/// # Errors
/// It is not YAML.
pub fn from_yaml(source: &Arc<Source>, rules: Option<Generation>) -> Result<TestList, Diagnostics> {
    let document = yaml::parse(source)?;
    let mut entries = Vec::new();
    let sections = match document.root.as_ref().map(|root| &root.value) {
        Some(Value::Map(sections)) => &sections[..],
        _ => &[],
    };
    let items = |node: &'_ Node| match &node.value {
        Value::List(items) => items.to_vec(),
        _ => Vec::new(),
    };
    for block in sections.iter().flat_map(|(_, section)| items(section)) {
        for test in block.get("tests").map(items).unwrap_or_default() {
            let location = document.at(test.position);
            let number = entries.len() + 1;
            entries.push(match &test.value {
                Value::Scalar { text, .. } => entry(number, text.trim(), location, rules),
                _ => Entry {
                    number,
                    text: String::new(),
                    module: None,
                    function: None,
                    readings: Err(Diagnostic::error(format!(
                        "a test must be one line of text, not {}",
                        test.kind()
                    ))
                    .at(location.clone())),
                    location,
                },
            });
        }
    }
    Ok(TestList { name: source.name.clone(), entries })
}

fn entry(number: usize, text: &str, location: Location, rules: Option<Generation>) -> Entry {
    let named = text.split('[').next().unwrap_or_default().trim();
    let (module, function) = match named.split_once("::") {
        Some((module, function)) => (Some(module.to_owned()), Some(function.to_owned())),
        None => (None, None),
    };
    let readings = readings(text, rules).map_err(|diagnostic| diagnostic.at(location.clone()));
    Entry { number, text: text.to_owned(), module, function, location, readings }
}

/// The last bracketed text that is a test id; other brackets belong to markers.
fn readings(text: &str, rules: Option<Generation>) -> Result<Vec<TestId>, Diagnostic> {
    if text.contains(|c: char| c.is_control()) {
        return Err(Diagnostic::error("a test must be one line without control characters"));
    }
    let mut wrong = None;
    let brackets = text.split('[').skip(1).filter_map(|rest| rest.split_once(']'));
    let brackets: Vec<_> = brackets.collect();
    for (id, _) in brackets.into_iter().rev().take(MOST_BRACKETS) {
        match TestId::readings(id, rules) {
            Ok(readings) => return Ok(readings),
            Err(error) => wrong = Some(error),
        }
    }
    Err(match wrong {
        Some(error) => Diagnostic::error(error.message).help(error.help),
        None => Diagnostic::error("there is no test id here").help("write MODULE::FUNCTION[ID]"),
    })
}

/// How many brackets of a line are tried, from its end.
const MOST_BRACKETS: usize = 16;

impl TestList {
    /// The entries that can be planned.
    pub fn tests(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.readings.is_ok())
    }

    /// The entry to use.
    ///
    /// # Errors
    /// There is none or more than one, or it is not a test that can be planned.
    pub fn pick(&self, pick: Pick<'_>) -> Result<&Entry, Diagnostic> {
        if self.entries.is_empty() {
            let message = format!("test list {} is empty", self.name);
            return Err(Diagnostic::error(message).help("commented lines do not count"));
        }
        let entry = match pick {
            Pick::Number(number) => {
                let index = usize::try_from(number).unwrap_or(0).saturating_sub(1);
                self.entries.get(index).ok_or_else(|| {
                    let count = self.entries.len();
                    Diagnostic::error(format!("test list {} has no test {number}", self.name))
                        .help(format!("choose a number from 1 to {count}"))
                })?
            }
            Pick::Only => match &self.entries[..] {
                [only] => only,
                _ => self.one(self.tests().collect(), "")?,
            },
            Pick::Matching(pattern) => {
                let exact = |entry: &&Entry| entry.id() == Some(pattern);
                match self.tests().find(exact) {
                    Some(entry) => entry,
                    None => {
                        let near = |entry: &&Entry| entry.id().is_some_and(|id| fits(pattern, id));
                        let which = format!(" that match {pattern}");
                        self.one(self.tests().filter(near).collect(), &which)?
                    }
                }
            }
        };
        match &entry.readings {
            Ok(_) => Ok(entry),
            Err(diagnostic) => Err(diagnostic.clone()),
        }
    }

    fn one<'e>(&'e self, found: Vec<&'e Entry>, which: &str) -> Result<&'e Entry, Diagnostic> {
        if let [only] = found[..] {
            return Ok(only);
        }
        let shown = if found.is_empty() { self.tests().collect() } else { found.clone() };
        let mut help = String::from("choose one by its number or a part of its id:");
        for entry in shown.iter().take(SHOWN) {
            help.push_str(&format!(" {}: {};", entry.number, entry.id().unwrap_or_default()));
        }
        if shown.len() > SHOWN {
            help.push_str(&format!(" and {} more", shown.len() - SHOWN));
        }
        let message = format!("test list {} has {} tests{which}", self.name, found.len());
        Err(Diagnostic::error(message).help(help.trim_end_matches(';')))
    }
}

/// How many tests an error names.
const SHOWN: usize = 10;

/// The markers that an entry may have behind its test.
const MARKERS: [&str; 4] = ["XFAIL", "SKIP", "UNSTABLE", "TIMEOUT"];

/// The text in front of an entry's marker, and the marker.
pub fn split_marker(text: &str) -> (&str, Option<&'static str>) {
    for (at, blank) in text.char_indices().filter(|(_, c)| c.is_whitespace()) {
        let rest = &text[at + blank.len_utf8()..];
        let found = MARKERS.into_iter().find(|marker| {
            rest.strip_prefix(marker).is_some_and(|after| {
                after.chars().next().is_none_or(|c| c == '(' || c.is_whitespace())
            })
        });
        if found.is_some() {
            return (text[..at].trim(), found);
        }
    }
    (text.trim(), None)
}

impl Entry {
    /// What pytest calls the test: all in front of a marker.
    pub fn node_id(&self) -> &str {
        split_marker(&self.text).0
    }

    /// Its marker; a comment has none.
    pub fn marker(&self) -> Option<&'static str> {
        split_marker(self.text.split('#').next().unwrap_or_default()).1
    }

    /// Its test id; `None` when it cannot be planned.
    pub fn id(&self) -> Option<&str> {
        self.readings.as_ref().ok()?.first().map(|id| id.text.as_str())
    }
}

/// Whether an id contains a text, or fits it as a whole where that has a `*`.
fn fits(pattern: &str, id: &str) -> bool {
    if pattern.contains('*') { ucx::matches(pattern, id) } else { id.contains(pattern) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Arc<Source> {
        Arc::new(Source::new("list", text))
    }

    fn ids(list: &TestList) -> Vec<&str> {
        list.entries.iter().map(|entry| entry.id().unwrap_or("-")).collect()
    }

    #[test]
    fn a_line_is_a_test_whatever_stands_around_it() {
        let list = from_text(
            &source(
                "\n  - p.py::t[disagg-e2e-a] TIMEOUT (120)\r\n# - p.py::t[disagg-e2e-no]\n\
                 p.py::C::t[x-y-z] [aggr-ctx_only-b] SKIP [nvbugs/1]\np.py::t\n",
            ),
            None,
        );
        assert_eq!(ids(&list), ["disagg-e2e-a", "aggr-ctx_only-b", "-"]);
        let entry = &list.entries[1];
        assert_eq!(
            (entry.module.as_deref(), entry.function.as_deref()),
            (Some("p.py"), Some("C::t"))
        );
        assert_eq!(entry.location.to_string(), "list:4:1");
        let error = list.entries[2].readings.clone().unwrap_err().to_string();
        assert!(error.starts_with("list:5:1: error: there is no test id here"), "{error}");
    }

    #[test]
    fn a_yaml_list_has_the_tests_of_all_its_blocks() {
        let text = "version: 0.1\nl0:\n- condition: {gpu: x}\n  tests:\n  - p.py::t[disagg-e2e-a]\n\
                    \x20 # - p.py::t[disagg-e2e-no]\n  - p.py::t[disagg-b] TIMEOUT (9)\n- tests:\n  \
                    - q.py::other\n  - {}\n";
        let list = from_yaml(&source(text), None).unwrap();
        assert_eq!(ids(&list), ["disagg-e2e-a", "disagg-b", "-", "-"]);
        assert_eq!(list.tests().count(), 2);
        assert_eq!(list.entries[1].location.to_string(), "list:7:5");
    }

    #[test]
    fn shards_are_counted_from_one_and_nothing_means_the_first() {
        let list = from_text(&source("t[disagg-e2e-a]\n\nt[disagg-e2e-b]\n"), None);
        let number = |n| list.pick(Pick::Number(n)).map(|entry| entry.number);
        assert_eq!((number(-1), number(0), number(1), number(2)), (Ok(1), Ok(1), Ok(1), Ok(2)));
        let error = number(3).unwrap_err();
        assert_eq!(error.message, "test list list has no test 3");
    }

    #[test]
    fn one_test_is_picked_by_its_id_or_a_part_of_it() {
        let list =
            from_text(&source("t[disagg-e2e-a]\nt[disagg-e2e-ab]\nt[disagg-gen_only-b]"), None);
        let matching = |text| list.pick(Pick::Matching(text)).map(|entry| entry.number);
        assert_eq!(matching("disagg-e2e-a"), Ok(1));
        assert_eq!(matching("ab"), Ok(2));
        assert_eq!(matching("*gen_only*"), Ok(3));
        assert_eq!(matching("disagg-*-b"), Ok(3));
        assert_eq!(
            matching("e2e").unwrap_err().message,
            "test list list has 2 tests that match e2e"
        );
        assert!(matching("none").unwrap_err().help.unwrap().contains("1: disagg-e2e-a; 2:"));
        assert!(list.pick(Pick::Only).unwrap_err().message.ends_with("has 3 tests"));
    }

    #[test]
    fn a_marker_stands_alone_behind_the_test() {
        for (text, node, marker) in [
            ("t[a] TIMEOUT (90)", "t[a]", Some("TIMEOUT")),
            ("t[a]  SKIP(https://bug)", "t[a]", Some("SKIP")),
            ("t[a] SKIPPED XFAIL", "t[a] SKIPPED", Some("XFAIL")),
            ("SKIP", "SKIP", None),
            ("t[a]", "t[a]", None),
        ] {
            assert_eq!(split_marker(text), (node, marker));
        }
        let list = from_text(&source("t[disagg-e2e-a] # SKIP\n"), None);
        assert_eq!(list.entries[0].marker(), None);
    }

    #[test]
    fn an_empty_list_says_so() {
        for text in ["", "\n  \n", "# only\n"] {
            let error = from_text(&source(text), None).pick(Pick::Number(0)).unwrap_err();
            assert_eq!(error.message, "test list list is empty");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "[\\PC\n\t]{0,60}") {
            let _ = from_text(&source(&text), None);
            let _ = from_yaml(&source(&text), None);
        }
    }
}
