// SPDX-License-Identifier: Apache-2.0
//! The merged JUnit file: a test suite per role, and one of the run itself, so that a CI system
//! shows what went wrong even where a role left no file, or half of one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use quick_xml::Writer;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::reader::Reader;

use crate::run::result::{JunitSummary, Verdict};

/// The largest part that is read, in bytes.
const MAX_PART: u64 = 256 << 20;
/// Above this size, in bytes, a part's captured output stays in the part alone: a server's log of
/// a whole day is in it.
const MAX_WHOLE: u64 = 1 << 20;

/// One role's part.
#[derive(Debug)]
pub struct Part<'a> {
    /// The role.
    pub role: &'a str,
    /// Where its results are.
    pub results: Results<'a>,
    /// How the role ended, in words, to be shown where it left no results.
    pub ended: String,
}

/// Where a role's results are.
#[derive(Debug)]
pub enum Results<'a> {
    /// In a file that it wrote.
    File(&'a Path),
    /// It writes none: whether it passed is all there is.
    Passed(bool),
}

/// Writes the merged file; returns what is in it.
///
/// # Errors
/// It cannot be written.
pub fn merge(
    parts: &[Part<'_>],
    verdict: &Verdict,
    mut out: impl Write,
) -> io::Result<JunitSummary> {
    let mut summary = JunitSummary::default();
    let passed = verdict.kind.is_passed();
    // Where the test passed, a server that had to be killed at the end does not make it fail.
    let without_results = if passed { Outcome::Skipped } else { Outcome::Error };
    out.write_all(b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites>")?;
    for part in parts {
        let suites = match part.results {
            Results::File(path) => read(path, part.role),
            Results::Passed(passed) => {
                let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
                Ok(synthetic(part.role, part.role, outcome, &part.ended, "")?)
            }
        };
        let suites = match suites {
            Ok(suites) => suites,
            Err(why) => {
                summary.lost.push(part.role.to_owned());
                let message = format!("{}: no test results: {why}; {}", part.role, part.ended);
                synthetic(part.role, part.role, without_results, &message, "")?
            }
        };
        suites.add_to(&mut summary, &mut out)?;
    }
    let outcome = if passed { Outcome::Passed } else { Outcome::Failed };
    let (name, tail) = (verdict.kind.name(), verdict.log_tail.join("\n"));
    synthetic("slurm-disagg", name, outcome, &verdict.message, &tail)?
        .add_to(&mut summary, &mut out)?;
    out.write_all(b"</testsuites>\n")?;
    out.flush()?;
    Ok(summary)
}

/// Test suites as text, and what is in them.
struct Suites {
    writer: Writer<Vec<u8>>,
    counts: JunitSummary,
}

impl Suites {
    fn new() -> Self {
        Self { writer: Writer::new(Vec::new()), counts: JunitSummary::default() }
    }

    fn push(&mut self, event: Event<'_>) -> io::Result<()> {
        if let Event::Start(start) | Event::Empty(start) = &event {
            let counter = match start.name().as_ref() {
                b"testcase" => Some(&mut self.counts.tests),
                b"failure" => Some(&mut self.counts.failures),
                b"error" => Some(&mut self.counts.errors),
                b"skipped" => Some(&mut self.counts.skipped),
                _ => None,
            };
            if let Some(counter) = counter {
                *counter += 1;
            }
        }
        self.writer.write_event(event)
    }

    fn is_empty(&self) -> bool {
        self.writer.get_ref().is_empty()
    }

    fn add_to(self, summary: &mut JunitSummary, out: &mut impl Write) -> io::Result<()> {
        summary.tests += self.counts.tests;
        summary.failures += self.counts.failures;
        summary.errors += self.counts.errors;
        summary.skipped += self.counts.skipped;
        out.write_all(self.writer.get_ref())
    }
}

/// A part's test suites, or why it cannot be taken.
fn read(path: &Path, role: &str) -> Result<Suites, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let size = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(format!("it wrote no {name}"));
        }
        Err(error) => return Err(format!("{name}: {error}")),
    };
    if size > MAX_PART {
        return Err(format!("{name} is {size} bytes long; at most {MAX_PART} are read"));
    }
    let file = File::open(path).map_err(|error| format!("{name}: {error}"))?;
    suites(BufReader::new(file), role, size <= MAX_WHOLE)
        .map_err(|why| format!("{name} is broken: {why}"))
}

/// Each `<testsuite>` to its end, named after the role; without captured output unless `whole`.
fn suites(xml: impl BufRead, role: &str, whole: bool) -> Result<Suites, String> {
    let mut reader = Reader::from_reader(xml);
    let mut found = Suites::new();
    let mut buffer = Vec::new();
    let mut depth = 0_u32;
    // The depths of the suite and of the output that the reader is in.
    let (mut suite, mut output) = (None, None);
    loop {
        buffer.clear();
        let event = reader.read_event_into(&mut buffer).map_err(|error| error.to_string())?;
        let in_suite = suite.is_some();
        let mut shown = in_suite && output.is_none();
        match &event {
            Event::Eof if depth > 0 => return Err("it ends in the middle".to_owned()),
            Event::Eof if found.is_empty() => return Err("it has no test suite".to_owned()),
            Event::Eof => return Ok(found),
            // A document type could refer to files or grow without end: no test result needs one.
            Event::DocType(_) => return Err("it has a document type".to_owned()),
            Event::Start(start) | Event::Empty(start)
                if !in_suite && start.name().as_ref() == b"testsuite" =>
            {
                let start_of_suite = named(start, role)?;
                let is_empty = matches!(event, Event::Empty(_));
                let renamed = match is_empty {
                    true => Event::Empty(start_of_suite),
                    false => Event::Start(start_of_suite),
                };
                found.push(renamed).map_err(|error| error.to_string())?;
                if !is_empty {
                    suite = Some(depth);
                    depth += 1;
                }
                continue;
            }
            Event::Start(start) => {
                let is_output = matches!(start.name().as_ref(), b"system-out" | b"system-err");
                if is_output && !whole && output.is_none() {
                    output = Some(depth);
                    shown = false;
                }
                depth += 1;
            }
            Event::End(_) => {
                depth = depth.checked_sub(1).ok_or("an element ends that did not start")?;
                if output == Some(depth) {
                    output = None;
                }
                if suite == Some(depth) {
                    suite = None;
                }
            }
            _ => {}
        }
        if shown {
            found.push(event).map_err(|error| error.to_string())?;
        }
    }
}

/// A suite's start with the role as its name; its other attributes stay.
fn named(start: &BytesStart<'_>, role: &str) -> Result<BytesStart<'static>, String> {
    let mut renamed = BytesStart::new("testsuite");
    renamed.push_attribute(("name", role));
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.as_ref() != b"name" {
            renamed.push_attribute(attribute);
        }
    }
    Ok(renamed)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Error,
    Skipped,
}

/// A suite with one test case of our own.
fn synthetic(
    suite: &str,
    case: &str,
    outcome: Outcome,
    message: &str,
    text: &str,
) -> io::Result<Suites> {
    let mut suites = Suites::new();
    let count = |wanted| if outcome == wanted { "1" } else { "0" };
    suites.push(Event::Start(BytesStart::new("testsuite").with_attributes([
        ("name", suite),
        ("tests", "1"),
        ("failures", count(Outcome::Failed)),
        ("errors", count(Outcome::Error)),
        ("skipped", count(Outcome::Skipped)),
    ])))?;
    let attributes = [("classname", "slurm-disagg"), ("name", case)];
    suites.push(Event::Start(BytesStart::new("testcase").with_attributes(attributes)))?;
    let element = match outcome {
        Outcome::Passed => None,
        Outcome::Failed => Some("failure"),
        Outcome::Error => Some("error"),
        Outcome::Skipped => Some("skipped"),
    };
    if let Some(element) = element {
        let message = printable(message);
        let start = BytesStart::new(element).with_attributes([("message", message.as_str())]);
        suites.push(Event::Start(start))?;
        suites.push(Event::Text(BytesText::new(&printable(text))))?;
        suites.push(Event::End(BytesEnd::new(element)))?;
    }
    suites.push(Event::End(BytesEnd::new("testcase")))?;
    suites.push(Event::End(BytesEnd::new("testsuite")))?;
    Ok(suites)
}

/// XML has no form at all for most control characters.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::result::VerdictKind;
    use proptest::prelude::*;

    const GOOD: &str = r#"<?xml version="1.0" encoding="utf-8"?><testsuites><testsuite name="pytest" errors="0" tests="1" hostname="n"><testcase classname="c" name="t[x]"><system-out>a &lt; b</system-out></testcase></testsuite></testsuites>"#;

    fn merged(files: &[(&str, Option<&str>)], kind: VerdictKind) -> (String, JunitSummary) {
        let directory = tempfile::tempdir().unwrap();
        let paths: Vec<_> = files
            .iter()
            .map(|(role, text)| {
                let path = directory.path().join(format!("results-{role}.xml"));
                if let Some(text) = text {
                    fs::write(&path, text).unwrap();
                }
                path
            })
            .collect();
        let parts: Vec<_> = files
            .iter()
            .zip(&paths)
            .map(|((role, _), path)| {
                let results = Results::File(path);
                Part { role, results, ended: "it was killed".into() }
            })
            .collect();
        let mut verdict = Verdict::new(kind, "GEN_0 <died> \u{1} & \"left\"");
        verdict.log_tail = vec!["]]> last \u{7}".into()];
        let mut bytes = Vec::new();
        let summary = merge(&parts, &verdict, &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert!(suites(text.as_bytes(), "x", true).is_ok(), "what is written can be read");
        (text, summary)
    }

    #[test]
    fn each_role_s_suite_gets_its_role_s_name() {
        let files = [("GEN_0", Some(GOOD)), ("CTX_0", Some(GOOD))];
        let (text, summary) = merged(&files, VerdictKind::Passed);
        assert!(
            text.contains(r#"<testsuite name="GEN_0" errors="0" tests="1" hostname="n">"#),
            "{text}"
        );
        assert!(text.contains("a &lt; b") && !text.contains("pytest"));
        assert_eq!((summary.tests, summary.failures, summary.errors), (3, 0, 0));
        assert!(summary.lost.is_empty());
    }

    #[test]
    fn a_broken_or_missing_part_is_an_error_and_spoils_no_other() {
        let files = [
            ("GEN_0", Some(&GOOD[..150])),
            ("GEN_1", None),
            ("GEN_2", Some("")),
            ("GEN_3", Some("<testsuite></testcase>")),
            ("GEN_4", Some("<!DOCTYPE x [<!ENTITY a 'b'>]><testsuite/>")),
            ("CTX_0", Some(GOOD)),
        ];
        let (text, summary) = merged(&files, VerdictKind::ServerEnded);
        assert_eq!(summary.lost, ["GEN_0", "GEN_1", "GEN_2", "GEN_3", "GEN_4"]);
        assert_eq!((summary.tests, summary.failures, summary.errors), (7, 1, 5));
        assert!(text.contains("it wrote no results-GEN_1.xml; it was killed"), "{text}");
    }

    #[test]
    fn the_verdict_is_a_test_case_of_its_own() {
        let (text, _) = merged(&[], VerdictKind::ServerEnded);
        assert!(
            text.contains(r#"name="server_ended"><failure message="GEN_0 &lt;died&gt;"#),
            "{text}"
        );
    }

    #[test]
    fn captured_output_of_a_large_part_stays_in_the_part() {
        let large = GOOD.replace("a &lt; b", &"x".repeat(MAX_WHOLE as usize));
        let (text, summary) = merged(&[("GEN_0", Some(&large))], VerdictKind::Passed);
        assert!(text.len() < 1000 && text.contains(r#"<testcase classname="c" name="t[x]">"#));
        assert_eq!((summary.tests, summary.lost.len()), (2, 0));
    }

    proptest! {
        #[test]
        fn no_part_breaks_the_merged_file(part in "(<testsuite( name=\"a\")?>|<testcase/>|</testsuite>|\\PC{0,9}){0,6}") {
            merged(&[("GEN_0", Some(&part))], VerdictKind::Passed);
        }
    }
}
