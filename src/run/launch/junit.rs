// SPDX-License-Identifier: Apache-2.0
//! The merged JUnit file: a test suite per role, and one of the run itself, so that a CI system shows
//! what failed even where a role left no file, or half of one. Roles' files are not trusted: what is
//! written is well-formed whatever they contain.

use std::borrow::Cow;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use quick_xml::reader::Reader;
use quick_xml::{Writer, XmlVersion};

use crate::input::source;
use crate::run::result::{JunitSummary, Verdict};

/// The largest role's file that is read, in bytes.
const MAX_PART: u64 = 256 << 20;
/// Above this size, in bytes, the captured output in a role's file is not merged: it may be the
/// log of a whole day.
const MAX_WHOLE: u64 = 1 << 20;

/// One role's part of the merged file.
#[derive(Debug)]
pub struct Part<'a> {
    /// The role.
    pub role: &'a str,
    /// Where its results are.
    pub results: Results<'a>,
    /// How the role's step ended, for a role without results.
    pub ended: String,
}

/// The results of a role.
#[derive(Debug)]
pub enum Results<'a> {
    /// The file that it writes.
    File(&'a Path),
    /// It writes no file; what its step's end means.
    Own(Outcome),
}

/// Writes the merged file; returns its totals.
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
    // A server that has to be killed after a pass does not make the test fail.
    let without_results = if passed { Outcome::Skipped } else { Outcome::Error };
    out.write_all(b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<testsuites>")?;
    for part in parts {
        let suites = match part.results {
            Results::File(path) => read(path, part.role),
            Results::Own(outcome) => Ok(synthetic(part.role, part.role, outcome, &part.ended, "")?),
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

/// Test suites as text, and their totals.
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

/// The test suites of a role's file, or why it cannot be read.
fn read(path: &Path, role: &str) -> Result<Suites, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = source::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{name} is missing"),
        _ => format!("{name}: {error}"),
    })?;
    let size = file.metadata().map_err(|error| format!("{name}: {error}"))?.len();
    if size > MAX_PART {
        return Err(format!("{name} is too large: {size} bytes, the limit is {MAX_PART}"));
    }
    suites(BufReader::new(file), role, size <= MAX_WHOLE)
        .map_err(|why| format!("{name} is not well-formed: {why}"))
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
            Event::Eof if depth > 0 => return Err("it is truncated".to_owned()),
            Event::Eof if found.is_empty() => return Err("it has no test suite".to_owned()),
            Event::Eof => return Ok(found),
            // A document type may refer to files or expand without limit; no test result needs one.
            Event::DocType(_) => return Err("it has a document type".to_owned()),
            Event::Start(start) | Event::Empty(start)
                if !in_suite && start.name().as_ref() == b"testsuite" =>
            {
                let start_of_suite = element(start, Some(role))?;
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
                depth = depth.checked_sub(1).ok_or("an end tag without a start tag")?;
                if output == Some(depth) {
                    output = None;
                }
                if suite == Some(depth) {
                    suite = None;
                }
            }
            _ => {}
        }
        if shown && let Some(event) = checked(event)? {
            found.push(event).map_err(|error| error.to_string())?;
        }
    }
}

/// An event without anything that XML forbids, since the reader does not check all of it; none for
/// comments and the like.
fn checked(event: Event<'_>) -> Result<Option<Event<'static>>, String> {
    let text = |text: Cow<'_, str>| {
        allowed(&text).map(|text| Some(Event::Text(BytesText::new(text).into_owned())))
    };
    let unreadable = |error: quick_xml::encoding::EncodingError| error.to_string();
    match event {
        Event::Start(start) => Ok(Some(Event::Start(element(&start, None)?))),
        Event::Empty(start) => Ok(Some(Event::Empty(element(&start, None)?))),
        Event::End(end) => Ok(Some(Event::End(end.into_owned()))),
        Event::Text(found) => text(found.decode().map_err(unreadable)?),
        Event::CData(found) => text(found.decode().map_err(unreadable)?),
        Event::GeneralRef(reference) => {
            match reference.resolve_char_ref().map_err(|error| error.to_string())? {
                Some(c) => drop(allowed(c.encode_utf8(&mut [0; 4]))?),
                None if matches!(&*reference, b"lt" | b"gt" | b"amp" | b"apos" | b"quot") => {}
                None => return Err("unknown entity".to_owned()),
            }
            Ok(Some(Event::GeneralRef(reference.into_owned())))
        }
        _ => Ok(None),
    }
}

/// An element's start with checked attributes, and with another `name` where one is given.
fn element(start: &BytesStart<'_>, name: Option<&str>) -> Result<BytesStart<'static>, String> {
    let mut element = BytesStart::new(tag(start.name().as_ref())?.to_owned());
    element.extend_attributes(name.map(|name| ("name", name)));
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        let value = attribute.normalized_value(XmlVersion::Explicit1_0);
        allowed(&value.map_err(|error| error.to_string())?)?;
        let raw = allowed(std::str::from_utf8(&attribute.value).map_err(|e| e.to_string())?)?;
        if raw.contains('<') {
            return Err("`<` in an attribute".to_owned());
        }
        let key = tag(attribute.key.as_ref())?;
        if name.is_none() || key != "name" {
            let value = raw.replace('"', "&quot;");
            element.push_attribute((key.as_bytes(), value.as_bytes()));
        }
    }
    Ok(element)
}

/// The name of an element or attribute. A prefix may be declared in a part that is not merged.
fn tag(name: &[u8]) -> Result<&str, String> {
    let is_first = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let is_other = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.".contains(byte);
    let is_good = name.first().is_some_and(is_first) && name.iter().all(is_other);
    let name = std::str::from_utf8(name).map_err(|error| error.to_string())?;
    if is_good { Ok(name) } else { Err(format!("invalid name {name:?}")) }
}

/// The text, if XML allows all its characters.
fn allowed(text: &str) -> Result<&str, String> {
    match text.chars().find(|c| !is_allowed(*c)) {
        None => Ok(text),
        Some(c) => Err(format!("invalid character {c:?}")),
    }
}

fn is_allowed(c: char) -> bool {
    !matches!(c, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
}

/// The outcome of a test case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it had to.
    Passed,
    /// It failed.
    Failed,
    /// It left no results.
    Error,
    /// It says nothing: it was stopped because another one failed.
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

/// A text without the characters that XML does not allow even escaped.
fn printable(text: &str) -> String {
    text.chars().filter(|c| is_allowed(*c)).collect()
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
                    std::fs::write(&path, text).unwrap();
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
        assert!(text.contains("results-GEN_1.xml is missing; it was killed"), "{text}");
    }

    #[test]
    fn a_fifo_in_the_place_of_a_part_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("results-GEN_0.xml");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert_eq!(
            read(&path, "GEN_0").err().as_deref(),
            Some("results-GEN_0.xml: is not a regular file")
        );
    }

    /// What the reader accepts and XML does not, each in the place of a test case.
    const NOT_WELL_FORMED: [&str; 14] = [
        "<a b=\"1\" b=\"2\"/>",
        "<a b=\"<\"/>",
        "<a b=\"&nbsp;\"/>",
        "<a b=\"&#0;\"/>",
        "<a b=\"&#x1b;\"/>",
        "<a b/>",
        "<1/>",
        "<a:b/>",
        "<a b:c=\"1\"/>",
        "&nbsp;",
        "&#8;",
        "a & b",
        "\u{1}",
        "<a>\u{ffff}</a>",
    ];

    #[test]
    fn a_part_that_is_not_well_formed_is_an_error() {
        for bad in NOT_WELL_FORMED {
            let part = format!("<testsuite>{bad}</testsuite>");
            let files = [("GEN_0", Some(part.as_str())), ("CTX_0", Some(GOOD))];
            let (text, summary) = merged(&files, VerdictKind::ServerEnded);
            assert_eq!(summary.lost, ["GEN_0"], "{bad}: {text}");
            assert!(text.contains("results-GEN_0.xml is not well-formed: "), "{text}");
            assert!(text.contains("name=\"CTX_0\""), "{text}");
        }
    }

    #[test]
    fn what_is_well_formed_keeps_its_meaning() {
        let part =
            "<testsuite a='x\"y' name='n'><!-- c --><?p q?><![CDATA[<&]]>&#10;&lt;é</testsuite>";
        let (text, summary) = merged(&[("GEN_0", Some(part))], VerdictKind::Passed);
        assert!(summary.lost.is_empty(), "{text}");
        let expected = "<testsuite name=\"GEN_0\" a=\"x&quot;y\">&lt;&amp;&#10;&lt;é</testsuite>";
        assert!(text.contains(expected), "{text}");
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
        fn no_part_breaks_the_merged_file(part in "(<testsuite( name=[\"']a[\"'<&])?>|<testcase/>|</testsuite>|&#?[a-z0-9]{0,3};|<!--|-->|\\PC{0,9}){0,6}") {
            merged(&[("GEN_0", Some(&part))], VerdictKind::Passed);
        }
    }
}
