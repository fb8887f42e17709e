// SPDX-License-Identifier: Apache-2.0
//! All runs below a directory, newest first, with their figures.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::compare;
use super::figures;
use super::figures::metric::{Better, METRICS};
use super::report::chart::{Chart, Series, chart};
use super::report::html;
use super::result::{FILE, RunResult};
use super::timeline::{date, duration};
use crate::output::table::aligned;

/// The most files and directories that are looked at.
const MAX_ENTRIES: usize = 1_000_000;
/// How deep a run may be.
const MAX_DEPTH: usize = 10;

/// A run, and where its result is.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The directory of the run.
    pub path: PathBuf,
    /// Its result.
    pub result: RunResult,
}

/// The runs below a directory, newest first. Links are not followed: those of a workspace lead to its
/// runs. Files of the same name that are no results are left out.
///
/// # Errors
/// The directory cannot be read, or has too many files.
pub fn find(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut directories = vec![(directory.to_owned(), 0)];
    let mut count = 0;
    while let Some((path, depth)) = directories.pop() {
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if depth == 0 => return Err(error),
            Err(_) => continue,
        };
        for entry in entries.flatten() {
            count += 1;
            if count > MAX_ENTRIES {
                return Err(io::Error::other(format!("it has more than {MAX_ENTRIES} files")));
            }
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && depth < MAX_DEPTH {
                directories.push((entry.path(), depth + 1));
            } else if kind.is_file()
                && entry.file_name() == FILE
                && let Ok(result) = RunResult::read(&path)
            {
                found.push(Entry { path: path.clone(), result });
            }
        }
    }
    found.sort_by(|a, b| (b.result.started, &b.path).cmp(&(a.result.started, &a.path)));
    Ok(found)
}

/// The runs as a table. Without `all`, one statistic of each latency.
fn rows(entries: &[Entry], all: bool) -> Vec<Vec<String>> {
    let cells = |Entry { path, result }: &Entry| {
        let took = result.ended.map_or("-".into(), |end| duration(end.since(result.started)));
        vec![
            date(result.started).trim_end_matches(" UTC").to_owned(),
            path.display().to_string(),
            result.verdict.kind.name().to_owned(),
            result.plan.config.clone(),
            took,
        ]
    };
    let runs: Vec<_> =
        entries.iter().map(|entry| (cells(entry), &entry.result.figures[..])).collect();
    figures::overview(&["started (UTC)", "run", "verdict", "configuration", "took"], &runs, all)
}

/// For a terminal.
#[must_use]
pub fn text(entries: &[Entry]) -> String {
    match entries {
        [] => "no runs\n".to_owned(),
        _ => aligned(&rows(entries, false), |column, _| column >= 4),
    }
}

/// For programs.
#[must_use]
pub fn json(entries: &[Entry]) -> Value {
    let run = |Entry { path, result }: &Entry| {
        json!({
            "path": path,
            "run": result.run,
            "plan": result.plan,
            "started": result.started,
            "ended": result.ended,
            "verdict": {"kind": result.verdict.kind, "message": result.verdict.message},
            "figures": result.figures,
        })
    };
    json!({"schema": 1, "runs": entries.iter().map(run).collect::<Vec<_>>()})
}

/// One page, with a chart for each metric over the time.
#[must_use]
pub fn html(entries: &[Entry]) -> String {
    let mut body = String::from("<h1>Runs</h1>\n<div class=\"charts\">\n");
    let oldest_first: Vec<_> = entries.iter().rev().collect();
    let mut names: BTreeMap<(&str, Option<u64>), String> = BTreeMap::new();
    for entry in &oldest_first {
        let config = entry.result.plan.config.as_str();
        for one in &entry.result.figures {
            let at =
                one.concurrency.map_or(String::new(), |number| format!(", concurrency {number}"));
            names.entry((config, one.concurrency)).or_insert_with(|| format!("{config}{at}"));
        }
    }
    for metric in METRICS.iter().filter(|one| one.is_key && one.better != Better::Neither) {
        let series = names.iter().map(|((config, concurrency), name)| {
            let value = |entry: &&Entry| {
                let mut figures = entry.result.figures.iter();
                let one = figures.find(|one| one.concurrency == *concurrency)?;
                let is_its = entry.result.plan.config == *config;
                compare::Value::of(&[one.get(metric.name).filter(|_| is_its)?])
            };
            Series { name: name.clone(), values: oldest_first.iter().map(value).collect() }
        });
        let series: Vec<_> =
            series.filter(|series| series.values.iter().any(Option::is_some)).collect();
        if !series.is_empty() {
            let labels = oldest_first.iter().map(|entry| entry.result.run.id.clone()).collect();
            body.push_str(&chart(&Chart { title: metric.heading(), along: "run", labels, series }));
        }
    }
    body.push_str("</div>\n");
    body.push_str(&html::table("", &rows(entries, true), |_| ""));
    html::document("Runs", &body)
}
