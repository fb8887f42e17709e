// SPDX-License-Identifier: Apache-2.0
//! A comparison as text, Markdown, CSV, JSON and one HTML page.

use std::fmt::Write;
use std::io;

use serde_json::json;

use super::{Comparison, Row, Run, Side};
use crate::diagnostic::Printable;
use crate::output::diff;
use crate::output::table::aligned;
use crate::run::figures::metric::Better;
use crate::run::figures::{METRICS, Metric};
use crate::run::launch::summary;
use crate::run::report::chart::{Chart, Series, chart};
use crate::run::report::html;

/// The version of the JSON form.
const SCHEMA: u32 = 1;

impl Side {
    /// `run1`, or `run1, run2, …`, with what each of them is.
    fn about(&self) -> String {
        let run = |run: &Run| {
            let what = match (&run.result, &run.fault) {
                (Some(result), _) => format!(" ({} {})", result.run.id, result.verdict.kind.name()),
                (None, Some(fault)) => format!(" ({fault})"),
                (None, None) => String::new(),
            };
            format!("{}{what}", run.path.display())
        };
        self.runs.iter().map(run).collect::<Vec<_>>().join(", ")
    }
}

impl Comparison {
    /// The rows of each measurement, with its name.
    fn places(&self) -> Vec<(String, Vec<&Row>)> {
        let mut places: Vec<(String, Vec<&Row>)> = Vec::new();
        for row in &self.rows {
            let place = row.place();
            match places.last_mut().filter(|(last, _)| *last == place) {
                Some((_, rows)) => rows.push(row),
                None => places.push((place, vec![row])),
            }
        }
        places
    }

    /// One measurement as a table: each side's value, and from the second on its ratio to the first.
    fn table(&self, place: &str, rows: &[&Row]) -> Vec<Vec<String>> {
        let mut heading = vec![place.to_owned()];
        for (index, side) in self.sides.iter().enumerate() {
            heading.push(side.name.clone());
            if index > 0 {
                heading.extend([format!("{}/{}", side.name, self.sides[0].name), String::new()]);
            }
        }
        let mut table = vec![heading];
        for row in rows {
            let mut cells = vec![row.metric.heading()];
            for (index, value) in row.values.iter().enumerate() {
                cells.push(value.map_or("-".to_owned(), |value| value.shown()));
                if index > 0 {
                    let ratio = row.ratio(index);
                    cells.push(ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}")));
                    cells.push(row.word(index).to_owned());
                }
            }
            table.push(cells);
        }
        table
    }

    fn configuration(&self) -> impl Iterator<Item = String> {
        let first = &self.sides[0].name;
        let pairs = self.sides.iter().skip(1).zip(&self.changes);
        pairs.map(move |(side, changes)| diff::text(changes, (first, &side.name)))
    }
}

/// For a terminal.
#[must_use]
pub fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    for side in &comparison.sides {
        let _ = writeln!(text, "{}  {}", side.name, Printable(&side.about()));
    }
    for changes in comparison.configuration() {
        let _ = write!(text, "\n{changes}");
    }
    for (place, rows) in comparison.places() {
        let table = comparison.table(&place, &rows);
        let is_right = |column, cell: &str| column > 0 && !cell.starts_with(['w', 'b', '~']);
        let _ = write!(text, "\n{}", aligned(&table, is_right));
    }
    if comparison.rows.is_empty() {
        text.push_str("\nno figures\n");
    }
    text
}

/// For a pull request.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = String::new();
    for side in &comparison.sides {
        let _ = writeln!(text, "- **{}**: {}", side.name, summary::cell(&side.about()));
    }
    for changes in comparison.configuration() {
        text.push_str("\n<details><summary>Configuration</summary>\n");
        summary::fenced(&mut text, changes.trim_end());
        text.push_str("\n</details>\n");
    }
    for (place, rows) in comparison.places() {
        let _ = write!(text, "\n{}", summary::table(&comparison.table(&place, &rows)));
    }
    text
}

/// A line for each side of each metric.
///
/// # Errors
/// None in practice: the lines have the same length.
pub fn csv(comparison: &Comparison) -> io::Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    let heading = ["concurrency", "measurement", "metric", "unit", "better", "side", "runs"];
    out.write_record(heading.iter().chain(&["mean", "min", "max", "ratio"]))?;
    for row in &comparison.rows {
        for (index, value) in row.values.iter().enumerate() {
            let Some(value) = value else { continue };
            let number = |number: f64| number.to_string();
            out.write_record([
                row.concurrency.map(|concurrency| concurrency.to_string()).unwrap_or_default(),
                (row.number + 1).to_string(),
                row.metric.name.to_owned(),
                row.metric.unit.to_owned(),
                row.metric.better.name().to_owned(),
                comparison.sides[index].name.clone(),
                value.runs.to_string(),
                number(value.mean),
                number(value.min),
                number(value.max),
                row.ratio(index).map(number).unwrap_or_default(),
            ])?;
        }
    }
    let bytes = out.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    String::from_utf8(bytes).map_err(io::Error::other)
}

/// For programs; `regressions` are those that were looked for.
///
/// # Errors
/// None in practice: everything has a JSON form.
pub fn json(
    comparison: &Comparison,
    regressions: Option<&[String]>,
) -> Result<String, serde_json::Error> {
    let run = |run: &Run| {
        json!({
            "path": run.path,
            "run": run.result.as_ref().map(|result| &result.run.id),
            "verdict": run.result.as_ref().map(|result| result.verdict.kind),
            "fault": run.fault,
        })
    };
    let side = |side: &Side| json!({"name": side.name, "runs": side.runs.iter().map(run).collect::<Vec<_>>()});
    let figure = |row: &Row| {
        let ratios: Vec<_> = (0..row.values.len()).map(|side| row.ratio(side)).collect();
        json!({
            "concurrency": row.concurrency,
            "measurement": row.number + 1,
            "metric": row.metric.name,
            "unit": row.metric.unit,
            "better": row.metric.better.name(),
            "values": row.values,
            "ratios": ratios,
        })
    };
    let all = json!({
        "schema": SCHEMA,
        "sides": comparison.sides.iter().map(side).collect::<Vec<_>>(),
        "changes": comparison.changes,
        "figures": comparison.rows.iter().map(figure).collect::<Vec<_>>(),
        "regressions": regressions,
    });
    Ok(serde_json::to_string_pretty(&all)? + "\n")
}

/// One page, with a chart for each metric.
#[must_use]
pub fn html(comparison: &Comparison) -> String {
    let mut body = String::from("<h1>Comparison</h1>\n<table class=\"facts\">\n");
    for side in &comparison.sides {
        let (name, about) = (html::escape(&side.name), html::escape(&side.about()));
        let _ = writeln!(body, "<tr><th>{name}</th><td>{about}</td></tr>");
    }
    body.push_str("</table>\n<h2>Configuration</h2>\n");
    for changes in comparison.configuration() {
        let _ = writeln!(body, "<pre>{}</pre>", html::escape(changes.trim_end()));
    }
    body.push_str("<h2>Charts</h2>\n<div class=\"charts\">\n");
    for chart in charts(comparison) {
        body.push_str(&chart);
    }
    body.push_str("</div>\n<h2>Figures</h2>\n");
    for (place, rows) in comparison.places() {
        body.push_str(&html::table("numbers", &comparison.table(&place, &rows), |_| ""));
    }
    html::document("Comparison", &body)
}

/// A chart for each metric: its values over the concurrency.
fn charts(comparison: &Comparison) -> Vec<String> {
    let places = comparison.places();
    let labels: Vec<_> = places
        .iter()
        .map(|(place, _)| place.trim_start_matches("concurrency ").to_owned())
        .collect();
    let mut metrics: Vec<_> = comparison.rows.iter().map(|row| row.metric).collect();
    metrics.retain(|metric| metric.better != Better::Neither);
    metrics.sort_by_key(|metric| METRICS.iter().position(|one| one == *metric));
    metrics.dedup();
    let one = |metric: &&'static Metric| {
        let series = comparison.sides.iter().enumerate().map(|(index, side)| {
            let value = |(_, rows): &(String, Vec<&Row>)| {
                let row = rows.iter().find(|row| row.metric == *metric)?;
                row.values[index]
            };
            Series { name: side.name.clone(), values: places.iter().map(value).collect() }
        });
        chart(&Chart {
            title: metric.heading(),
            along: "concurrency",
            labels: labels.clone(),
            series: series.collect(),
        })
    };
    metrics.iter().map(one).collect()
}
