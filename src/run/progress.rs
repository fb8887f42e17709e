// SPDX-License-Identifier: Apache-2.0
//! How followed jobs are shown in a log: one line for each change.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Instant;

use super::follow::{Screen, View};
use super::result::{RunResult, StepResult, VerdictKind};
use super::timeline::{StepState, describe, duration};
use crate::diagnostic::Printable;
use crate::slurm::hostlist;
use crate::slurm::reason::advice;

/// One line for each change, with the time since the beginning: for logs, and pipes.
pub struct Lines<W> {
    out: W,
    began: Instant,
    /// The last line about each job and each of its steps.
    shown: BTreeMap<(u32, String), String>,
}

impl<W: Write> Lines<W> {
    /// Lines on an output.
    pub fn new(out: W) -> Self {
        Self { out, began: Instant::now(), shown: BTreeMap::new() }
    }

    fn line(&mut self, text: &str) -> io::Result<()> {
        let seconds = self.began.elapsed().as_secs();
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        writeln!(self.out, "[{hours:02}:{minutes:02}:{seconds:02}] {}", Printable(text))?;
        self.out.flush()
    }
}

impl<W: Write> Screen for Lines<W> {
    fn show(&mut self, views: &[View]) -> io::Result<()> {
        for view in views {
            let job = view.job.job_id;
            let several = views.len() > 1;
            let name = |step: &str| match several {
                true => format!("job {job} {step}"),
                false => step.to_owned(),
            };
            let mut facts: Vec<_> =
                view.state.iter().map(|_| (String::new(), headline(view))).collect();
            if let Some(result) = &view.result {
                facts.extend(
                    result.steps.iter().filter(|step| step.started.is_some()).map(|step| {
                        (step.name.clone(), step_line(&name(&step.name), result, step))
                    }),
                );
                if let Some(url) = result.serves_at() {
                    facts.push(("serving".to_owned(), name(&format!("serving at {url}"))));
                }
                if result.verdict.kind != VerdictKind::Running {
                    facts.push(("verdict".to_owned(), name(&result.verdict.message)));
                }
            }
            for (what, text) in facts {
                let key = (job, what);
                if self.shown.get(&key) != Some(&text) {
                    self.line(&text)?;
                    self.shown.insert(key, text);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.line(text)
    }

    fn prompt(&mut self, question: &str) -> io::Result<()> {
        write!(self.out, "{question}")?;
        self.out.flush()
    }
}

/// The job in one line, without anything that changes by itself as time passes.
pub(super) fn headline(view: &View) -> String {
    let mut text = format!("job {}", view.job.job_id);
    let Some(state) = &view.state else { return text };
    let name = state.to_string();
    text.push_str(&format!(": {}", if name.is_empty() { "in an unknown state" } else { &name }));
    if let Some(nodes) = view.record.as_ref().and_then(|record| record.node_list.as_deref()) {
        text.push_str(&format!(" on {nodes}"));
    }
    if let Some(restarts) = view.record.as_ref().map(|record| record.restarts).filter(|n| *n > 0) {
        text.push_str(&format!(" (restart {restarts})"));
    }
    if let Some(reason) = view.reason.as_ref().filter(|_| state.is_waiting()) {
        text.push_str(&format!(" ({reason})"));
        if let Some(advice) = advice(reason) {
            text.push_str(&format!(" {}", advice));
        }
    }
    text
}

fn step_line(name: &str, result: &RunResult, step: &StepResult) -> String {
    let mut text = format!("{name}: {}", describe(result, step));
    let since = match StepState::of(step) {
        StepState::Starting => {
            return format!("{text} on {}", hostlist::compress(&step.nodes));
        }
        StepState::Running => step.running,
        StepState::Ready => step.ready,
        StepState::Stopped | StepState::Killed | StepState::Ended(_) => step.ended,
        StepState::Stopping | StepState::NotStarted => None,
    };
    if let (Some(started), Some(at)) = (step.started, since) {
        text.push_str(&format!(" after {}", duration(at.since(started))));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::follow::Job;
    use super::super::result::{Moment, Phase, PlanSummary, RunId, RunResult, Verdict};
    use super::*;

    pub fn step(name: &str, started: bool, running: bool) -> StepResult {
        let nodes = ["node1".to_owned(), "node2".to_owned()];
        StepResult {
            role: Some(name.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit()).into()),
            started: started.then_some(Moment(1_000)),
            running: running.then_some(Moment(3_500)),
            ..StepResult::new(name, &nodes, 8, &format!("{name}.log"))
        }
    }

    pub fn view(steps: Vec<StepResult>) -> View {
        let summary = PlanSummary { total_nodes: 2, total_gpus: 8, ..PlanSummary::default() };
        let job = Job {
            job_id: 7,
            workspace: None,
            launcher: None,
            title: "a test".into(),
            roles: Vec::new(),
        };
        View {
            job,
            state: Some("RUNNING".parse().unwrap()),
            reason: None,
            record: None,
            limit: None,
            figures: Vec::new(),
            result: Some(RunResult {
                figures: Vec::new(),
                schema: 1,
                run: RunId::new(7, 0),
                plan: summary,
                workspace: "/w".into(),
                nodes: Vec::new(),
                url: None,
                started: Moment(0),
                ended: None,
                phase: Phase::Start,
                verdict: Verdict::new(VerdictKind::Running, "the run is not over"),
                steps,
                junit: None,
            }),
            outcome: None,
        }
    }

    pub fn text(out: &[u8]) -> String {
        String::from_utf8_lossy(out).into_owned()
    }

    #[test]
    fn a_log_gets_one_line_for_each_change() {
        let mut lines = Lines::new(Vec::new());
        let starting = view(vec![step("GEN_0", true, false), step("BENCHMARK", false, false)]);
        let running = view(vec![step("GEN_0", true, true)]);
        for view in [&starting, &starting, &running, &running] {
            lines.show(std::slice::from_ref(view)).unwrap();
        }
        assert_eq!(
            text(&lines.out),
            "[00:00:00] job 7: RUNNING\n\
             [00:00:00] GEN_0: starting on node[1-2]\n\
             [00:00:00] GEN_0: running after 2.5 s\n"
        );
    }
}
