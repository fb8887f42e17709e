// SPDX-License-Identifier: Apache-2.0
//! The tests of a list at a glance: a row for each, with its job, its state, its outcome and its key
//! figures.

use super::super::figures::{METRICS, Measurement, Metric, overview};
use super::super::outcome::Outcome;
use super::super::terminal::{Meaning, Terminal, cut, paint};
use super::html;
use super::text::fitted;

/// A test of a list.
#[derive(Debug, Clone, Copy)]
pub struct Test<'a> {
    /// Its id.
    pub name: &'a str,
    /// Slurm's id of its job; none before its submission.
    pub job_id: Option<u32>,
    /// The job's state, by Slurm's name, where Slurm knows it.
    pub state: Option<&'a str>,
    /// Its outcome, where there is one.
    pub outcome: Option<Outcome>,
    /// What its benchmark measured.
    pub figures: &'a [Measurement],
}

const HEAD: [&str; 4] = ["test", "job", "state", "outcome"];

impl Test<'_> {
    fn outcome(&self) -> &'static str {
        match (self.outcome, self.job_id) {
            (Some(outcome), _) => outcome.name(),
            (None, Some(_)) => "open",
            (None, None) => "not submitted",
        }
    }

    fn cells(&self) -> Vec<String> {
        let job = self.job_id.map_or("-".to_owned(), |id| id.to_string());
        vec![
            self.name.to_owned(),
            job,
            self.state.unwrap_or("-").to_owned(),
            self.outcome().to_owned(),
        ]
    }
}

fn rows(tests: &[Test<'_>]) -> Vec<Vec<String>> {
    let things: Vec<_> = tests.iter().map(|test| (test.cells(), test.figures)).collect();
    overview(&HEAD, &things, false)
}

/// For a terminal.
#[must_use]
pub fn text(tests: &[Test<'_>], terminal: Terminal) -> String {
    let metrics = METRICS.iter().rev().filter(|one| one.is_key && one.unit != "tok/s");
    let metrics: Vec<_> = metrics.map(Metric::short).collect();
    let dispensable = metrics.iter().map(String::as_str).chain(["conc.", "state", "tok/s", "job"]);
    let dispensable: Vec<_> = dispensable.collect();
    // Beside the longest outcome.
    let mut rows = rows(tests);
    rows.iter_mut().for_each(|row| row[0] = cut(&row[0], terminal.columns.saturating_sub(18)));
    let table = fitted(rows, &dispensable, terminal.columns, |column, _| column >= 4);
    let meaning = |test: &Test<'_>| match test.outcome {
        Some(Outcome::Passed) => Some(Meaning::Good),
        Some(Outcome::Failed | Outcome::Refused) => Some(Meaning::Bad),
        _ => Some(Meaning::Waiting),
    };
    let rows = tests.iter().flat_map(|test| vec![meaning(test); test.figures.len().max(1)]);
    let meanings = std::iter::once(None).chain(rows);
    let line = |(line, meaning)| paint(line, meaning, terminal.has_colours) + "\n";
    // Where there is no room for figures, nothing is left of further measurements.
    let lines = table.lines().zip(meanings).filter(|(line, _)| !line.is_empty());
    lines.map(line).collect::<String>() + &totals(tests)
}

/// `6 tests: 5 passed, 1 failed`.
fn totals(tests: &[Test<'_>]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for name in tests.iter().map(Test::outcome) {
        match counts.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => counts.push((name, 1)),
        }
    }
    let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!("{} tests: {}\n", tests.len(), parts.join(", "))
}

/// As an HTML page.
#[must_use]
pub fn page(title: &str, tests: &[Test<'_>]) -> String {
    let failed: Vec<_> = tests
        .iter()
        .flat_map(|test| vec![test.outcome == Some(Outcome::Failed); test.figures.len().max(1)])
        .collect();
    let class = |row: usize| match row.checked_sub(1).and_then(|row| failed.get(row)) {
        Some(true) => "culprit",
        _ => "",
    };
    let heading = html::escape(totals(tests).trim_end());
    html::document(title, &format!("<h1>{heading}</h1>\n{}", html::table("", &rows(tests), class)))
}

#[cfg(test)]
mod tests {
    use super::super::super::terminal::width;
    use super::*;

    #[test]
    fn a_list_fits_any_terminal_and_has_a_row_for_each_measurement() {
        let metrics = [
            ("completed", 40.0),
            ("failed", 0.0),
            ("output_throughput", 155.0),
            ("ttft_p99_ms", 60.5),
        ];
        let metrics: std::collections::BTreeMap<_, _> =
            metrics.map(|(name, value)| (name.to_owned(), value)).into();
        let at = |concurrency| Measurement {
            concurrency: Some(concurrency),
            metrics: metrics.clone(),
            ..Measurement::default()
        };
        let figures = [at(4), at(16)];
        let test =
            |name, job_id, state, outcome| Test { name, job_id, state, outcome, figures: &[] };
        let tests = [
            Test {
                figures: &figures,
                ..test("disagg_upload-config", Some(4711), Some("COMPLETED"), Some(Outcome::Passed))
            },
            test(
                "disagg_upload-gen_only-config",
                Some(4712),
                Some("FAILED"),
                Some(Outcome::Failed),
            ),
            test("aggr_upload-config-small", Some(4713), Some("PENDING"), None),
            test("aggr_upload-other-small", None, None, None),
        ];
        let shown = |columns| {
            let text = text(&tests, Terminal { columns, lines: 24, has_colours: false });
            let (table, _) = text.rsplit_once("\n4 tests: ").unwrap();
            assert!(table.lines().all(|line| width(line) < columns), "{columns}: {text}");
            text
        };
        insta::assert_snapshot!(shown(40), @r"
          test                    outcome
          disagg_upload-config    passed
          disagg_upload-gen_onl…  failed
          aggr_upload-config-sm…  open
          aggr_upload-other-sma…  not submitted
        4 tests: 1 passed, 1 failed, 1 open, 1 not submitted
        ");
        insta::assert_snapshot!(shown(80), @r"
          test                           job   state      outcome        conc.  tok/s
          disagg_upload-config           4711  COMPLETED  passed             4    155
                                                                            16    155
          disagg_upload-gen_only-config  4712  FAILED     failed             -      -
          aggr_upload-config-small       4713  PENDING    open               -      -
          aggr_upload-other-small        -     -          not submitted      -      -
        4 tests: 1 passed, 1 failed, 1 open, 1 not submitted
        ");
        insta::assert_snapshot!(shown(200), @r"
          test                           job   state      outcome        conc.  completed  failed  tok/s  TTFT p99 ms
          disagg_upload-config           4711  COMPLETED  passed             4         40       0    155        60.50
                                                                            16         40       0    155        60.50
          disagg_upload-gen_only-config  4712  FAILED     failed             -          -       -      -            -
          aggr_upload-config-small       4713  PENDING    open               -          -       -      -            -
          aggr_upload-other-small        -     -          not submitted      -          -       -      -            -
        4 tests: 1 passed, 1 failed, 1 open, 1 not submitted
        ");
        let colours = text(&tests, Terminal { columns: 80, lines: 24, has_colours: true });
        assert_eq!(colours.matches("\u{1b}[32m").count(), 2, "{colours}");
        assert!(
            page("W", &tests).contains("<tr class=\"culprit\"><th>disagg_upload-gen_only-config<")
        );
    }
}
