// SPDX-License-Identifier: Apache-2.0
//! `summary.md`: the run as one pastes it into a pull request.

use std::fmt::Write;
use std::path::Path;

use super::files::exit_words;
use crate::run::result::{Moment, RunResult, StepResult};
use crate::slurm::hostlist;

/// The longest report that is shown whole, in bytes.
const MAX_REPORT: u64 = 8 << 10;

/// The summary; `report` is the benchmark's table.
#[must_use]
pub fn markdown(result: &RunResult, report: &Path) -> String {
    let mut text = String::new();
    let verdict = &result.verdict;
    let mark = if verdict.kind.is_passed() { "Passed" } else { "Failed" };
    let _ = writeln!(text, "### {mark}: `{}`\n", plain(&result.plan.test));
    let _ = writeln!(text, "{} (`{}`)\n", cell(&verdict.message), verdict.kind.name());
    let nodes = hostlist::compress(&result.nodes);
    let _ = writeln!(text, "| | |\n|---|---|");
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "| {name} | {} |", cell(value));
    };
    row("Run", &result.run.id);
    row("Nodes", &format!("{nodes} ({} GPUs)", result.plan.total_gpus));
    row("Configuration", &result.plan.config);
    row("Mode, rules", &format!("{}, {}", result.plan.mode, result.plan.rules));
    row("Plan SHA-256", &result.plan.sha256);
    if let Some(ended) = result.ended {
        row("Took", &seconds(ended, result.started));
    }
    if let Some(stop) = verdict.stop_ms {
        row(
            "From the verdict to the end of all steps",
            &format!("{}.{:03} s", stop / 1000, stop % 1000),
        );
    }
    if let Some(junit) = &result.junit {
        row(
            "Test cases",
            &format!(
                "{}, {} failed, {} errors, {} skipped",
                junit.tests, junit.failures, junit.errors, junit.skipped
            ),
        );
    }
    text.push_str("\n| Step | Nodes | Ranks | Started | Running | Ready | Ended | How |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for step in &result.steps {
        let at = |moment: Option<Moment>| {
            moment.map_or_else(|| "–".to_owned(), |moment| seconds(moment, result.started))
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            step.name,
            cell(&hostlist::compress(&step.nodes)),
            step.tasks,
            at(step.started),
            at(step.running),
            at(step.ready),
            at(step.ended),
            cell(&how(step))
        );
    }
    if !verdict.log_tail.is_empty() {
        let whose = verdict.role.as_deref().unwrap_or("the run");
        let _ = write!(text, "\nThe last lines of {whose}:\n");
        fenced(&mut text, &verdict.log_tail.join("\n"));
    }
    if let Ok(size) = std::fs::metadata(report).map(|found| found.len())
        && size <= MAX_REPORT
        && let Ok(table) = std::fs::read_to_string(report)
    {
        text.push_str("\nreport.csv:\n");
        fenced(&mut text, table.trim_end());
    }
    text
}

fn how(step: &StepResult) -> String {
    let stopped = if step.stopped.is_some() { "stopped; " } else { "" };
    match (step.exit, &step.failure) {
        (_, Some(rank)) => format!("{stopped}rank {} on {}: {}", rank.rank, rank.node, rank.words),
        (Some(exit), None) => format!("{stopped}{}", exit_words(exit)),
        (None, None) if step.started.is_none() => "not started".to_owned(),
        (None, None) => "runs".to_owned(),
    }
}

fn seconds(moment: Moment, start: Moment) -> String {
    format!("{:.1} s", moment.since(start).as_secs_f64())
}

/// Text for a cell of a table: on one line, nothing in it that would end the cell.
fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|").replace('<', "&lt;")
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('`', "'")
}

/// A block of text with a fence that is longer than any in it.
fn fenced(text: &mut String, block: &str) {
    let mut fence = "```".to_owned();
    while block.contains(&fence) {
        fence.push('`');
    }
    let _ = writeln!(text, "\n{fence}\n{block}\n{fence}");
}
