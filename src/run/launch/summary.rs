// SPDX-License-Identifier: Apache-2.0
//! `summary.md`: the run for a pull request.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::run::result::{Moment, RunResult};
use crate::run::timeline::{describe, duration};
use crate::slurm::hostlist;

/// The largest report that is included, in bytes.
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
        row("Took", &duration(ended.since(result.started)));
    }
    if let Some(stop) = verdict.stop_ms {
        row("From the verdict to the end of all steps", &duration(Duration::from_millis(stop)));
    }
    if let Some(junit) = &result.junit {
        row("JUnit", &junit.to_string());
    }
    text.push_str("\n| Step | Nodes | Ranks | Started | Running | Ready | Ended | State |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    for step in &result.steps {
        let at = |moment: Option<Moment>| {
            moment.map_or_else(|| "–".to_owned(), |at| duration(at.since(result.started)))
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
            cell(&describe(step))
        );
    }
    if !verdict.log_tail.is_empty() {
        let step = verdict.role.as_deref().unwrap_or("the run");
        let _ = write!(text, "\nLast lines of {step}:\n");
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

/// Text for a cell of a table: on one line, without characters that end the cell.
fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|").replace('<', "&lt;")
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('`', "'")
}

/// A block of text in a fence that is longer than any in the text.
fn fenced(text: &mut String, block: &str) {
    let mut fence = "```".to_owned();
    while block.contains(&fence) {
        fence.push('`');
    }
    let _ = writeln!(text, "\n{fence}\n{block}\n{fence}");
}
