// SPDX-License-Identifier: Apache-2.0
//! The report for a terminal: the verdict, a table of the steps, and their timeline.

use std::fmt::Write;

use super::super::figures::{self, Measurement};
use super::super::result::{Moment, RunResult, StepResult, VerdictKind};
use super::super::tail;
use super::super::terminal::{Meaning, Terminal, cut, paint, width};
use super::super::timeline::{StepState, date, describe, duration, spans};
use super::Report;
use crate::diagnostic::Printable;
use crate::output::table::aligned;
use crate::slurm::hostlist;

/// The timeline's width, in characters, and the least that its legend has room beside.
const WIDTH: usize = 60;
const LEAST_WIDTH: usize = 40;
/// How many measurements stand side by side.
const FIGURES: usize = 4;

/// The report as text for a terminal.
#[must_use]
pub fn text(report: &Report, terminal: Terminal) -> String {
    let meaning = match report.result.verdict.kind {
        kind if kind.is_passed() => Some(Meaning::Good),
        VerdictKind::Running => None,
        _ => Some(Meaning::Bad),
    };
    let headline = Printable(&headline(&report.result)).to_string();
    let headline = paint(&headline, meaning, terminal.has_colours);
    format!("{headline}\n{}", body(report, terminal.columns))
}

/// The report as text, without its first line, the verdict; its tables fit into some columns.
#[must_use]
pub fn body(report: &Report, columns: usize) -> String {
    let result = &report.result;
    let mut text = String::new();
    let _ = writeln!(text, "  test      {}", Printable(&result.plan.test));
    let _ = writeln!(text, "  workspace {}", Printable(&report.workspace.display().to_string()));
    let _ = writeln!(
        text,
        "  job       {}, run {}, {} node{}: {}",
        result.run.job_id,
        Printable(&result.run.id),
        result.nodes.len(),
        if result.nodes.len() == 1 { "" } else { "s" },
        Printable(&hostlist::compress(&result.nodes))
    );
    let (begin, end) = report.range();
    let lasted = duration(end.since(begin));
    let phase = match result.phase {
        _ if result.is_over() => String::new(),
        phase => format!(" (phase `{}`)", phase.name()),
    };
    let _ = writeln!(text, "  started   {}", date(begin));
    let _ = writeln!(text, "  time      {lasted}{phase}");
    if let Some(junit) = &result.junit {
        let _ = writeln!(text, "  JUnit     {}", Printable(&junit.to_string()));
    }
    text.push_str(&figures(&result.figures));
    text.push('\n');
    text.push_str(&table(report, columns));
    text.push('\n');
    text.push_str(&timeline(report, columns));
    if !result.verdict.log_tail.is_empty() {
        let step = result.verdict.step.as_deref().unwrap_or("the run");
        let _ = writeln!(text, "\nlast lines of {}:", Printable(step));
        for line in &result.verdict.log_tail {
            let _ = writeln!(text, "  | {}", tail::printable(line));
        }
    }
    text
}

/// `PASSED: …` or `FAILED (server_ended): …`.
pub(super) fn headline(result: &RunResult) -> String {
    let verdict = &result.verdict;
    match verdict.kind {
        kind if kind.is_passed() => format!("PASSED: {}", verdict.message),
        VerdictKind::Running => format!("RUNNING: {}", verdict.message),
        kind => format!("FAILED ({}): {}", kind.name(), verdict.message),
    }
}

const READY: &str = "to ready";

/// The table of steps, its headings first.
pub(super) fn steps(report: &Report) -> Vec<Vec<String>> {
    let headings = ["step", "state", "starting", READY, "ran", "tasks", "nodes", "GPUs"];
    let result = &report.result;
    let rows = result.steps.iter().map(|step| row(result, step, report.now));
    let mut rows: Vec<_> =
        [headings.map(str::to_owned)].into_iter().chain(rows).map(Vec::from).collect();
    // A test suite does not say when its servers are ready.
    if result.steps.iter().all(|step| step.ready.is_none()) {
        drop_column(&mut rows, READY);
    }
    rows
}

fn row(result: &RunResult, step: &StepResult, now: Moment) -> [String; 8] {
    let from_start = |at: Option<Moment>| match (step.started, at) {
        (Some(started), Some(at)) => duration(at.since(started)),
        _ => "-".to_owned(),
    };
    [
        step.name.clone(),
        describe(result, step),
        from_start(step.running),
        from_start(step.ready),
        from_start(step.started.map(|_| step.ended.unwrap_or(now))),
        step.tasks.to_string(),
        hostlist::compress(&step.nodes),
        gpus(step),
    ]
}

/// The GPUs that its ranks have by their numbers on the nodes; each list of several nodes once.
fn gpus(step: &StepResult) -> String {
    let mut lists: Vec<_> = step.ranks.iter().map(|place| place.gpus.join(",")).collect();
    lists.dedup();
    lists.join(" | ")
}

/// The table of steps.
fn table(report: &Report, columns: usize) -> String {
    // The verdict above has the whole reason of a step's end.
    let dispensable = ["tasks", "starting", READY, "GPUs", "nodes", "ran"];
    fitted(steps(report), &dispensable, columns, |_, _| false)
}

/// A table whose columns that do not fit are left out in this order, by their headings; what is too
/// long then is cut.
pub(super) fn fitted(
    mut rows: Vec<Vec<String>>,
    dispensable: &[&str],
    columns: usize,
    is_right: fn(usize, &str) -> bool,
) -> String {
    let mut text = aligned(&rows, is_right);
    for name in dispensable {
        if text.lines().all(|line| width(line) < columns) {
            break;
        }
        drop_column(&mut rows, name);
        text = aligned(&rows, is_right);
    }
    text.lines().map(|line| cut(line, columns.saturating_sub(1)) + "\n").collect()
}

fn drop_column(rows: &mut [Vec<String>], heading: &str) {
    if let Some(at) = rows[0].iter().position(|name| name == heading) {
        rows.iter_mut().for_each(|row| drop(row.remove(at)));
    }
}

/// What the benchmark measured, with an empty line before it; empty where nothing is known.
#[must_use]
pub fn figures(measurements: &[Measurement]) -> String {
    let blocks = measurements.chunks(FIGURES);
    let block =
        |some| format!("\n{}", aligned(&figures::table(some, false), |column, _| column > 0));
    blocks.map(block).collect()
}

/// One line for each step: `.` starting, `-` running, `=` ready, `x` stopping. Where there is no room
/// for lines, a list.
fn timeline(report: &Report, columns: usize) -> String {
    let (begin, end) = report.range();
    let steps: Vec<_> = report.result.steps.iter().filter(|s| s.started.is_some()).collect();
    let widest = steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    let long = WIDTH.min(columns.saturating_sub(widest + 6));
    let mut text = String::new();
    if long < LEAST_WIDTH {
        for step in steps {
            let _ = writeln!(text, "  {}", Printable(&step.name));
            for span in spans(step, report.now) {
                let lasted = duration(span.to.since(span.from));
                let _ = writeln!(text, "    {:<9} {lasted:>8}", span.state.to_string());
            }
        }
        return text;
    }
    let column = |at: Moment| {
        let part = at.since(begin).as_secs_f64() / end.since(begin).as_secs_f64();
        ((part * long as f64) as usize).min(long - 1)
    };
    for step in steps {
        let mut line = vec![' '; long];
        for span in spans(step, report.now) {
            let mark = match span.state {
                StepState::Starting => '.',
                StepState::Ready => '=',
                StepState::Stopping => 'x',
                _ => '-',
            };
            line[column(span.from)..=column(span.to)].fill(mark);
        }
        let line: String = line.into_iter().collect();
        let _ = writeln!(text, "  {:widest$} |{line}|", Printable(&step.name).to_string());
    }
    if !text.is_empty() {
        let length = duration(end.since(begin));
        let _ = writeln!(text, "  {:widest$} |0{length:>width$}|", "", width = long - 1);
        let legend = ". starting   - running   = ready   x stopping";
        let indent = (widest + 2).min(columns.saturating_sub(legend.len() + 3));
        let _ = writeln!(text, "  {:indent$}{legend}", "");
    }
    text
}
