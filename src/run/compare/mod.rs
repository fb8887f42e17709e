// SPDX-License-Identifier: Apache-2.0
//! Runs side by side: how their configurations differ, how their figures do, and whether one side is
//! worse than the first by more than is allowed.

mod render;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use render::{csv, html, json, markdown, text};

use super::figures::Measurement;
use super::figures::metric::{Better, METRICS, Metric, shown};
use super::report::Report;
use super::result::{BadResult, PlanSummary, RunResult};
use super::submission;
use crate::input::source;
use crate::output::diff::{self, Area, Change};
use crate::output::files;
use crate::plan::Plan;

/// One run of a side.
#[derive(Debug, Clone)]
pub struct Run {
    /// Where it was read from, as it was given.
    pub path: PathBuf,
    /// The launch's result; none in the workspace of the generated script.
    pub result: Option<RunResult>,
    /// What its client measured.
    pub figures: Vec<Measurement>,
    /// Why it has not passed, as far as the workspace shows it.
    pub fault: Option<String>,
    /// What was run, where the plan is still there.
    pub plan: Option<Plan>,
}

impl Run {
    /// Reads a workspace, the directory of one run in it, or a `result.json`.
    ///
    /// # Errors
    /// [`BadResult`]; the workspace of a job of the generated script needs no result.
    pub fn read(path: &Path) -> Result<Self, BadResult> {
        let is_directory = path.is_dir();
        let directory = match is_directory {
            true => path,
            false => {
                path.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
        };
        let read = match is_directory {
            true => Report::read(path).map(|report| (report.result, report.workspace)),
            false => source::open(path)
                .map_err(BadResult::from)
                .and_then(|file| Ok((RunResult::from_file(file)?, directory.to_owned()))),
        };
        let plan_of = |workspace: &Path| {
            let text = source::read(&workspace.join(files::PLAN), files::PLAN).ok()?;
            Plan::from_json(&text.text).ok()
        };
        let path = path.to_owned();
        match read {
            Ok((result, workspace)) => {
                // A later submission from the same workspace has another plan.
                let is_its = |plan: &Plan| {
                    PlanSummary::new(plan).is_ok_and(|plan| plan.sha256 == result.plan.sha256)
                };
                Ok(Self {
                    path,
                    plan: plan_of(&workspace).filter(is_its),
                    fault: (!result.verdict.kind.is_passed())
                        .then(|| result.verdict.message.clone()),
                    figures: result.figures.clone(),
                    result: Some(result),
                })
            }
            Err(error) => match submission::figures(directory) {
                Some((figures, fault)) if is_directory => {
                    Ok(Self { plan: plan_of(directory), path, result: None, figures, fault })
                }
                _ => Err(error),
            },
        }
    }
}

/// Runs of the same thing: their spread is the noise of the measurement.
#[derive(Debug, Clone)]
pub struct Side {
    /// `A`, `B`, …
    pub name: String,
    /// At least one.
    pub runs: Vec<Run>,
}

impl Side {
    /// The sides of a comparison, from the runs of each.
    #[must_use]
    pub fn all(runs: Vec<Vec<Run>>) -> Vec<Self> {
        let name = |index: usize| match u8::try_from(index) {
            Ok(small @ 0..26) => char::from(b'A' + small).to_string(),
            _ => format!("side {}", index + 1),
        };
        runs.into_iter().enumerate().map(|(at, runs)| Self { name: name(at), runs }).collect()
    }
}

/// A metric of one side: the mean of its runs, and their extremes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Value {
    /// The mean.
    pub mean: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// How many runs have the metric.
    pub runs: usize,
}

impl Value {
    /// The value of some runs; none without any.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let runs = values.len();
        (runs > 0).then(|| Self {
            mean: values.iter().sum::<f64>() / runs as f64,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            runs,
        })
    }

    /// For people: the mean, and with several runs half their range in percent of it.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.runs {
            0 | 1 => shown(self.mean),
            _ if self.mean == 0.0 => format!("{} ±{}", shown(self.mean), shown(self.max)),
            _ => {
                let spread = 50.0 * (self.max - self.min) / self.mean.abs();
                format!("{} ±{spread:.1}%", shown(self.mean))
            }
        }
    }
}

/// A metric at one concurrency, of all sides.
#[derive(Debug, Clone)]
pub struct Row {
    /// The concurrency, where clients say so.
    pub concurrency: Option<u64>,
    /// Which of several measurements at this concurrency, from 0.
    pub number: usize,
    /// The metric.
    pub metric: &'static Metric,
    /// The value of each side.
    pub values: Vec<Option<Value>>,
}

impl Row {
    /// `concurrency 16`, `concurrency 16, second measurement`.
    #[must_use]
    pub fn place(&self) -> String {
        let at =
            self.concurrency.map_or("any concurrency".to_owned(), |c| format!("concurrency {c}"));
        match self.number {
            0 => at,
            number => format!("{at}, measurement {}", number + 1),
        }
    }

    /// A side's value in relation to that of the first; none where one is missing, or the first is 0.
    #[must_use]
    pub fn ratio(&self, side: usize) -> Option<f64> {
        let (first, other) = (self.values[0]?, self.values[side]?);
        (first.mean != 0.0).then(|| other.mean / first.mean)
    }

    /// By how many percent of the first side's value a side is worse; negative when it is better.
    #[must_use]
    pub fn worse_by(&self, side: usize) -> Option<f64> {
        let (first, other) = (self.values[0]?.mean, self.values[side]?.mean);
        let difference = match self.metric.better {
            Better::Higher => first - other,
            Better::Lower => other - first,
            Better::Neither => return None,
        };
        Some(match difference {
            0.0 => 0.0,
            _ => 100.0 * difference / first.abs(),
        })
    }

    /// Whether a side is better or worse, in a word; `~` while the runs of both overlap.
    #[must_use]
    pub fn word(&self, side: usize) -> &'static str {
        let (Some(first), Some(other)) = (self.values[0], self.values[side]) else { return "" };
        let overlap = first.min <= other.max && other.min <= first.max;
        match self.worse_by(side) {
            None | Some(0.0) => "",
            Some(_) if overlap => "~",
            Some(percent) if percent > 0.0 => "worse",
            Some(_) => "better",
        }
    }
}

/// All that there is to say about the sides.
#[derive(Debug)]
pub struct Comparison {
    /// The sides; the first is what the others are compared with.
    pub sides: Vec<Side>,
    /// How the configuration of each other side differs from that of the first.
    pub changes: Vec<Vec<Change>>,
    /// The figures.
    pub rows: Vec<Row>,
}

impl Comparison {
    /// Compares sides by some metrics, or by all.
    #[must_use]
    pub fn new(sides: Vec<Side>, metrics: &[&'static Metric]) -> Self {
        let changes = sides.iter().skip(1).map(|side| changes(&sides[0].runs[0], &side.runs[0]));
        let changes = changes.collect();
        let mut places: BTreeMap<(Option<u64>, usize), Vec<Vec<&Measurement>>> = BTreeMap::new();
        for (index, side) in sides.iter().enumerate() {
            for run in &side.runs {
                let mut seen: BTreeMap<Option<u64>, usize> = BTreeMap::new();
                for one in &run.figures {
                    let number = seen.entry(one.concurrency).or_default();
                    let place = places.entry((one.concurrency, *number));
                    place.or_insert_with(|| vec![Vec::new(); sides.len()])[index].push(one);
                    *number += 1;
                }
            }
        }
        let is_wanted = |metric: &Metric| metrics.is_empty() || metrics.contains(&metric);
        let mut rows = Vec::new();
        for ((concurrency, number), measured) in places {
            for metric in METRICS.iter().filter(|metric| is_wanted(metric)) {
                let value = |side: &Vec<&Measurement>| {
                    let values: Vec<_> =
                        side.iter().filter_map(|one| one.get(metric.name)).collect();
                    Value::of(&values)
                };
                let values: Vec<_> = measured.iter().map(value).collect();
                if values.iter().any(Option::is_some) {
                    rows.push(Row { concurrency, number, metric, values });
                }
            }
        }
        Self { sides, changes, rows }
    }

    /// What is worse than the first side by more than so many percent, a sentence each. A run that has
    /// not passed, and a figure that is missing, are worse in any case.
    #[must_use]
    pub fn regressions(&self, allowed: f64) -> Vec<String> {
        let mut found = Vec::new();
        for side in &self.sides {
            for run in &side.runs {
                if let Some(fault) = &run.fault {
                    let path = run.path.display();
                    found.push(format!("{}: {path} has not passed: {fault}", side.name));
                }
            }
        }
        let has_direction = |row: &&Row| row.metric.better != Better::Neither;
        let rows: Vec<_> = self.rows.iter().filter(has_direction).collect();
        if rows.iter().all(|row| row.values[0].is_none()) {
            found.push(format!("{}: has no figures to compare with", self.sides[0].name));
        }
        for (index, side) in self.sides.iter().enumerate().skip(1) {
            for row in &rows {
                let what = format!("{}: {} at {}", side.name, row.metric.heading(), row.place());
                match (row.values[0], row.values[index]) {
                    (Some(_), None) => found.push(format!("{what} is missing")),
                    (Some(first), Some(other))
                        if row.worse_by(index).is_some_and(|percent| percent > allowed) =>
                    {
                        let percent = row.worse_by(index).unwrap_or_default();
                        let by = if percent.is_finite() {
                            format!("{percent:.1}% worse")
                        } else {
                            "worse".to_owned()
                        };
                        let (first, other) = (first.shown(), other.shown());
                        found.push(format!("{what} is {by}: {first} → {other}"));
                    }
                    _ => {}
                }
            }
        }
        found
    }
}

/// How the configurations of two runs differ: by their plans, or else by what their results say.
fn changes(before: &Run, after: &Run) -> Vec<Change> {
    if let (Some(before), Some(after)) = (&before.plan, &after.plan) {
        // Each run has a workspace of its own.
        let text = |text: &Option<String>, plan: &Plan| {
            text.as_ref().map(|text| text.replace(&plan.workspace, ""))
        };
        let mut changes = diff::changes(before, after);
        let plain: Vec<_> = changes
            .iter()
            .map(|one| (text(&one.before, before), text(&one.after, after), one.whose.clone()))
            .collect();
        let is_workspace = |(before, after, whose): &_| {
            before == after
                || plain.contains(&(Option::clone(after), Option::clone(before), Vec::clone(whose)))
        };
        let mut kept = plain.iter().map(|one| !is_workspace(one));
        changes.retain(|_| kept.next().unwrap_or(true));
        return changes;
    }
    let facts = |run: &Run| {
        let from_plan = run.plan.as_ref().and_then(|plan| PlanSummary::new(plan).ok());
        let plan = run.result.as_ref().map(|result| result.plan.clone()).or(from_plan);
        plan.map(|plan| {
            [
                (Area::Test, "rules", plan.rules),
                (Area::Test, "id", plan.test),
                (Area::Test, "mode", plan.mode),
                (Area::Test, "configuration", plan.config),
                (Area::Test, "configuration's SHA-256", plan.config_sha256),
                (Area::Layout, "total_nodes", plan.total_nodes.to_string()),
                (Area::Layout, "total_gpus", plan.total_gpus.to_string()),
                (Area::Layout, "plan's SHA-256", plan.sha256),
            ]
        })
    };
    let (Some(before), Some(after)) = (facts(before), facts(after)) else { return Vec::new() };
    let pairs = before.into_iter().zip(after).filter(|(one, other)| one.2 != other.2);
    pairs
        .map(|((area, name, before), (.., after))| Change {
            area,
            whose: vec!["job".into()],
            name: name.into(),
            before: Some(before),
            after: Some(after),
        })
        .collect()
}
