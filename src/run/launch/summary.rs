// SPDX-License-Identifier: Apache-2.0
//! `summary.md`: the run for a pull request.

use std::fmt::Write;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::input::source;
use crate::run::figures;
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
    row(
        "Nodes",
        &match result.plan.total_gpus {
            0 => nodes,
            gpus => format!("{nodes} ({gpus} GPUs)"),
        },
    );
    row("Configuration", &result.plan.config);
    match &*result.plan.rules {
        "" => row("Engine", &result.plan.mode),
        rules => row("Mode, rules", &format!("{}, {rules}", result.plan.mode)),
    }
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
            cell(&describe(result, step))
        );
    }
    if !result.figures.is_empty() {
        let _ = write!(text, "\n{}", table(&figures::table(&result.figures, false)));
    }
    if !verdict.log_tail.is_empty() {
        let step = verdict.step.as_deref().unwrap_or("the run");
        let _ = write!(text, "\nLast lines of {step}:\n");
        fenced(&mut text, &verdict.log_tail.join("\n"));
    }
    let mut table = String::new();
    if let Ok(file) = source::open(report)
        && file.metadata().is_ok_and(|found| found.len() <= MAX_REPORT)
        && file.take(MAX_REPORT).read_to_string(&mut table).is_ok()
    {
        text.push_str("\nreport.csv:\n");
        fenced(&mut text, table.trim_end());
    }
    text
}

/// A table of numbers; the first row is its heading, the first column names the rows.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let cells: Vec<_> = row.iter().map(|text| cell(text)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|---|{}", "---:|".repeat(row.len().saturating_sub(1)));
        }
    }
    text
}

/// Text for a cell of a table: on one line, without characters that end the cell.
pub fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|").replace('<', "&lt;")
}

fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().replace('`', "'")
}

/// A block of text in a fence that is longer than any in the text.
pub fn fenced(text: &mut String, block: &str) {
    let mut fence = "```".to_owned();
    while block.contains(&fence) {
        fence.push('`');
    }
    let _ = writeln!(text, "\n{fence}\n{block}\n{fence}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::figures::Measurement;
    use crate::run::result::{
        Exit, JunitSummary, Phase, PlanSummary, RankEnd, RunId, SCHEMA, StepResult, Stop,
        StopSignal, Verdict, VerdictKind,
    };

    #[test]
    fn the_summary_shows_the_run_and_keeps_its_markdown_intact() {
        let directory = tempfile::tempdir().unwrap();
        let report = directory.path().join("report.csv");
        std::fs::write(&report, "requests,failed\n8,0\n").unwrap();
        let node = ["n1".to_owned()];
        let lost = RankEnd {
            rank: Some(3),
            node: "n1".into(),
            exit: Some(Exit::Status(42)),
            message: String::new(),
        };
        let kill = Stop { signal: StopSignal::Kill, after_ms: 2_000 };
        let at = |ms| Some(Moment(ms));
        let steps = vec![
            StepResult {
                started: at(1_100),
                running: at(2_000),
                ready: at(9_000),
                ended: at(70_000),
                failure: Some(lost),
                ..StepResult::new("GEN_0", &node, 4, "gen_server_0.log")
            },
            StepResult {
                started: at(1_100),
                running: at(2_500),
                stopped: at(70_000),
                ended: at(72_000),
                exit: Some(Exit::Signal(9)),
                stop: Some(kill),
                ..StepResult::new("CTX_0", &node, 2, "ctx_server_0.log")
            },
            StepResult::new("BENCHMARK", &node, 1, "benchmark.log"),
        ];
        let mut verdict = Verdict::new(VerdictKind::ServerEnded, "GEN_0 ended | <b>badly</b>");
        verdict.step = Some("GEN_0".into());
        verdict.log_tail = vec!["```".into(), "CUDA error".into()];
        verdict.stop_ms = Some(2_004);
        let result = RunResult {
            schema: SCHEMA,
            run: RunId::new(7, 0),
            plan: PlanSummary {
                test: "m.py::t[`id`]".into(),
                config: "config\nname".into(),
                mode: "e2e".into(),
                rules: "classic".into(),
                sha256: "0a".into(),
                total_gpus: 6,
                ..PlanSummary::default()
            },
            workspace: "/w".into(),
            nodes: vec!["n1".into(), "n2".into()],
            url: None,
            started: Moment(1_000),
            ended: at(72_000),
            phase: Phase::Done,
            verdict,
            steps,
            figures: vec![Measurement {
                concurrency: Some(4),
                metrics: [("completed".to_owned(), 75.0)].into(),
                ..Measurement::default()
            }],
            junit: Some(JunitSummary { tests: 4, failures: 1, ..JunitSummary::default() }),
        };
        insta::assert_snapshot!(markdown(&result, &report), @r"
        ### Failed: `m.py::t['id']`

        GEN_0 ended \| &lt;b>badly&lt;/b> (`server_ended`)

        | | |
        |---|---|
        | Run | 7.0 |
        | Nodes | n[1-2] (6 GPUs) |
        | Configuration | config name |
        | Mode, rules | e2e, classic |
        | Plan SHA-256 | 0a |
        | Took | 1:11 |
        | From the verdict to the end of all steps | 2.0 s |
        | JUnit | 4 tests, 1 failures, 0 errors, 0 skipped |

        | Step | Nodes | Ranks | Started | Running | Ready | Ended | State |
        |---|---|---|---|---|---|---|---|
        | GEN_0 | n1 | 4 | 0.1 s | 1.0 s | 8.0 s | 1:09 | died: exit status 42 on n1 rank 3 |
        | CTX_0 | n1 | 2 | 0.1 s | 1.5 s | – | 1:11 | killed |
        | BENCHMARK | n1 | 1 | – | – | – | – | not started |

        |  | concurrency 4 |
        |---|---:|
        | requests completed | 75 |

        Last lines of GEN_0:

        ````
        ```
        CUDA error
        ````

        report.csv:

        ```
        requests,failed
        8,0
        ```
        ");
    }
}
