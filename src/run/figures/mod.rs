// SPDX-License-Identifier: Apache-2.0
//! The benchmark's own figures: read from the files that its client wrote during this run, shown in
//! every report, and part of the decision whether the test passed.

mod flat;
pub mod metric;
mod reader;
mod search;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use metric::{COMPLETED, FAILED, shown};
pub use metric::{METRICS, Metric};
pub use search::{Search, Stamps};

/// One measurement of a client.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measurement {
    /// The client, or the family of clients, whose file it is.
    pub client: String,
    /// The file, relative to the workspace.
    pub file: String,
    /// How many requests were under way at a time, where the client says so.
    pub concurrency: Option<u64>,
    /// Whether the client says that it was stopped before its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut_short: bool,
    /// The values by the names of [`METRICS`]; those that the client does not give are absent.
    pub metrics: BTreeMap<String, f64>,
}

/// All that a run's clients measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// The measurements, by concurrency.
    pub measurements: Vec<Measurement>,
    /// Why a file that holds figures cannot be read.
    pub problems: Vec<String>,
}

impl Measurement {
    /// The value of a metric.
    #[must_use]
    pub fn get(&self, metric: &str) -> Option<f64> {
        self.metrics.get(metric).copied()
    }

    /// Why a run with this measurement has not passed; none when it may have.
    fn fault(&self, max_failed: f64) -> Option<String> {
        let completed = self.get(COMPLETED)?;
        let failed = self.get(FAILED);
        let total = completed + failed.unwrap_or(0.0);
        let percent = 100.0 * failed.unwrap_or(0.0) / total.max(1.0);
        let what = match failed {
            _ if completed <= 0.0 && total > 0.0 => {
                format!("none of {} requests was completed", shown(total))
            }
            _ if completed <= 0.0 => "no request was completed".to_owned(),
            Some(failed) if percent > max_failed => format!(
                "{} of {} requests failed ({}%, --max-failed allows {}%)",
                shown(failed),
                shown(total),
                shown(percent),
                shown(max_failed),
            ),
            _ if self.cut_short => "the client was stopped before its end".to_owned(),
            _ => return None,
        };
        let at = self.concurrency.map(|number| format!(" at concurrency {number}"));
        Some(format!("{what}{} ({})", at.unwrap_or_default(), self.file))
    }
}

/// The files that measurements come from: `a.json (aiperf), b.json (aiperf)`.
#[must_use]
pub fn files(measurements: &[Measurement]) -> String {
    let mut files: Vec<_> =
        measurements.iter().map(|one| format!("{} ({})", one.file, one.client)).collect();
    files.dedup();
    files.join(", ")
}

/// The measurements as a table: a row for each metric that one of them has, a column for each of
/// them. Without `all`, the key metrics alone.
#[must_use]
pub fn table(measurements: &[Measurement], all: bool) -> Vec<Vec<String>> {
    let at = |one: &Measurement| match one.concurrency {
        Some(number) => format!("concurrency {number}"),
        None => one.client.clone(),
    };
    let heading = std::iter::once(String::new()).chain(measurements.iter().map(at)).collect();
    let mut rows = vec![heading];
    for metric in METRICS.iter().filter(|metric| all || metric.is_key) {
        let values = measurements.iter().map(|one| one.get(metric.name));
        let values: Vec<_> = values.map(|value| value.map_or("-".into(), shown)).collect();
        if values.iter().any(|value| value != "-") {
            rows.push(std::iter::once(metric.heading()).chain(values).collect());
        }
    }
    rows
}

/// Rows of things that have measurements, each with its first cells: a row for each measurement, or
/// one where there is none. Without `all`, one statistic of each latency.
#[must_use]
pub fn overview(
    head: &[&str],
    things: &[(Vec<String>, &[Measurement])],
    all: bool,
) -> Vec<Vec<String>> {
    let measured = || things.iter().flat_map(|thing| thing.1);
    let has = |metric: &Metric| measured().any(|one| one.get(metric.name).is_some());
    let mut keys: Vec<_> = METRICS.iter().filter(|one| one.is_key && has(one)).collect();
    if !all {
        let kind = |metric: &Metric| (metric.unit == "ms").then(|| metric.name.split('_').next());
        keys.dedup_by(|one, other| kind(one).is_some() && kind(one) == kind(other));
    }
    let head = head.iter().copied().chain(["conc."]).map(str::to_owned);
    let mut rows = vec![head.chain(keys.iter().map(|metric| metric.short())).collect::<Vec<_>>()];
    for (cells, figures) in things {
        let nothing = [Measurement::default()];
        let figures = if figures.is_empty() { &nothing[..] } else { figures };
        for (index, one) in figures.iter().enumerate() {
            let first =
                cells.iter().map(|cell| if index == 0 { cell.clone() } else { String::new() });
            let concurrency = one.concurrency.map_or("-".into(), |number| number.to_string());
            let values = keys.iter().map(|metric| one.get(metric.name).map_or("-".into(), shown));
            rows.push(first.chain([concurrency]).chain(values).collect());
        }
    }
    rows
}

impl Figures {
    /// Why a run with these figures has not passed, although its client ended well; none when it has.
    /// At most `max_failed` percent of the requests of each measurement may have failed.
    #[must_use]
    pub fn fault(&self, max_failed: f64) -> Option<String> {
        let mut faults = self.measurements.iter().filter_map(|one| one.fault(max_failed));
        faults.next().or_else(|| self.problems.first().cloned())
    }
}
