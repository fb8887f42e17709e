// SPDX-License-Identifier: Apache-2.0
//! How a followed job is shown: in a log one line for each change; on a terminal a block with one
//! line for each step, which is painted again after each change.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use super::follow::{Role, Screen, View};
use super::result::{Moment, RunResult, StepResult, VerdictKind};
use super::tail;
use super::timeline::{StepState, describe, duration};
use crate::diagnostic::Printable;
use crate::slurm::hostlist;
use crate::slurm::reason::advice;
use crate::slurm::state::JobState;

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
                    result
                        .steps
                        .iter()
                        .filter(|step| step.started.is_some())
                        .map(|step| (step.name.clone(), step_line(&name(&step.name), step))),
                );
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
fn headline(view: &View) -> String {
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

fn step_line(name: &str, step: &StepResult) -> String {
    let mut text = format!("{name}: {}", describe(step));
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

/// A block of lines on a terminal: one for the job, one for each step.
pub struct Live<W> {
    out: W,
    began: Instant,
    /// How many lines are painted.
    painted: usize,
    /// The terminal's columns and lines, read before each painting.
    size: fn() -> (usize, usize),
}

impl<W: Write> Live<W> {
    /// A block on a terminal of the size that `size` gives, in columns and lines.
    pub fn new(out: W, size: fn() -> (usize, usize)) -> Self {
        Self { out, began: Instant::now(), painted: 0, size }
    }

    fn erase(&mut self) -> io::Result<()> {
        if self.painted > 0 {
            write!(self.out, "\x1b[{}A\r\x1b[J", self.painted)?;
        }
        self.painted = 0;
        Ok(())
    }
}

impl<W: Write> Screen for Live<W> {
    fn show(&mut self, views: &[View]) -> io::Result<()> {
        let (columns, lines) = (self.size)();
        let elapsed = duration(self.began.elapsed());
        let room = (lines.saturating_sub(2) / views.len().max(1)).saturating_sub(1);
        let mut block = Vec::new();
        for view in views {
            block.push(format!("{}  [{elapsed}]", headline(view)));
            block.extend(rows(view, room, Moment::now()).into_iter().map(|row| format!("  {row}")));
        }
        block.truncate(lines.saturating_sub(1));
        self.erase()?;
        for line in &block {
            // The last column stays free: some terminals wrap when it is written to.
            let line: String =
                Printable(line).to_string().chars().take(columns.saturating_sub(1)).collect();
            writeln!(self.out, "{line}")?;
        }
        self.painted = block.len();
        self.out.flush()
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.erase()?;
        writeln!(self.out, "{}", Printable(text))?;
        self.out.flush()
    }

    fn prompt(&mut self, question: &str) -> io::Result<()> {
        // What is painted stays above the question and its answer.
        self.painted = 0;
        write!(self.out, "\r{question}")?;
        self.out.flush()
    }
}

/// The steps of a run: one line each, or one for each role when they do not fit.
fn rows(view: &View, room: usize, now: Moment) -> Vec<String> {
    let Some(result) = &view.result else { return logs(view, room) };
    if result.steps.len() > room {
        return roles(result);
    }
    let widest = result.steps.iter().map(|step| step.name.len()).max().unwrap_or_default();
    let row = |step: &StepResult| {
        let lasted = step.started.map(|at| duration(step.ended.unwrap_or(now).since(at)));
        let last = view.job.workspace.as_deref().and_then(|w| last_line(&w.join(&step.log)));
        format!(
            "{:widest$}  {:<11}  {:>7}  {}  {}",
            step.name,
            StepState::of(step).to_string(),
            lasted.unwrap_or_default(),
            hostlist::compress(&step.nodes),
            last.unwrap_or_default()
        )
    };
    result.steps.iter().map(row).collect()
}

/// The steps of a run without a result: the last line of each log.
fn logs(view: &View, room: usize) -> Vec<String> {
    let (Some(workspace), Some(true)) =
        (&view.job.workspace, view.state.as_ref().map(JobState::is_running))
    else {
        return Vec::new();
    };
    let roles = &view.job.roles;
    let widest = roles.iter().map(|role| role.name.len()).max().unwrap_or_default();
    let row = |role: &Role| {
        let last = last_line(&workspace.join(&role.log)).unwrap_or_default();
        format!("{:widest$}  {last}", role.name)
    };
    roles.iter().rev().take(room).rev().map(row).collect()
}

/// `GEN  32: 30 ready, 2 starting` for each role, in the order in which they start.
fn roles(result: &RunResult) -> Vec<String> {
    let mut roles: Vec<(&str, Vec<String>)> = Vec::new();
    for step in &result.steps {
        let (role, state) = (step.role.as_deref().unwrap_or(&step.name), StepState::of(step));
        match roles.iter_mut().find(|(known, _)| *known == role) {
            Some((_, states)) => states.push(state.to_string()),
            None => roles.push((role, vec![state.to_string()])),
        }
    }
    let widest = roles.iter().map(|(role, _)| role.len()).max().unwrap_or_default();
    let line = |(role, states): &(&str, Vec<String>)| {
        let mut counts: Vec<(&str, usize)> = Vec::new();
        for state in states {
            match counts.iter_mut().find(|(known, _)| known == state) {
                Some((_, count)) => *count += 1,
                None => counts.push((state, 1)),
            }
        }
        let counts: Vec<_> = counts.iter().map(|(state, n)| format!("{n} {state}")).collect();
        format!("{role:widest$} {:>4}: {}", states.len(), counts.join(", "))
    };
    roles.iter().map(line).collect()
}

fn last_line(log: &Path) -> Option<String> {
    tail::lines(log, 1).ok()?.pop()
}

#[cfg(test)]
mod tests {
    use super::super::follow::Job;
    use super::super::result::{Phase, PlanSummary, RunId, Verdict};
    use super::*;

    fn step(name: &str, started: bool, running: bool) -> StepResult {
        let nodes = ["node1".to_owned(), "node2".to_owned()];
        StepResult {
            role: Some(name.trim_end_matches(|c: char| c == '_' || c.is_ascii_digit()).into()),
            started: started.then_some(Moment(1_000)),
            running: running.then_some(Moment(3_500)),
            ..StepResult::new(name, &nodes, 8, &format!("{name}.log"))
        }
    }

    fn view(steps: Vec<StepResult>) -> View {
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
            figures: Vec::new(),
            result: Some(RunResult {
                figures: Vec::new(),
                schema: 1,
                run: RunId::new(7, 0),
                plan: summary,
                workspace: "/w".into(),
                nodes: Vec::new(),
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

    fn text(out: &[u8]) -> String {
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

    #[test]
    fn on_a_terminal_each_block_replaces_the_last() {
        let mut live = Live::new(Vec::new(), || (30, 24));
        let view = view(vec![step("GEN_0", true, true)]);
        live.show(std::slice::from_ref(&view)).unwrap();
        let first = text(&live.out);
        assert_eq!(first.lines().count(), 2, "{first}");
        assert!(first.lines().all(|line| line.chars().count() < 30), "{first}");
        live.show(std::slice::from_ref(&view)).unwrap();
        assert!(text(&live.out)[first.len()..].starts_with("\u{1b}[2A\r\u{1b}[J"));
    }

    #[test]
    fn steps_that_do_not_fit_a_terminal_are_counted_by_role() {
        let mut steps: Vec<_> = (0..32).map(|n| step(&format!("GEN_{n}"), true, n > 1)).collect();
        steps.push(step("BENCHMARK", false, false));
        let mut live = Live::new(Vec::new(), || (80, 10));
        live.show(&[view(steps)]).unwrap();
        let painted = text(&live.out);
        assert!(painted.contains("GEN         32: 2 starting, 30 running"), "{painted}");
        assert!(painted.contains("BENCHMARK    1: 1 not started"), "{painted}");
        assert!(painted.lines().count() < 10, "{painted}");
    }

    #[test]
    fn a_log_cannot_control_the_terminal() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("GEN_0.log"), "first\n\u{1b}[2Jlast\n\n").unwrap();
        let mut view = view(vec![step("GEN_0", true, true)]);
        view.job.workspace = Some(directory.path().to_owned());
        let mut live = Live::new(Vec::new(), || (200, 24));
        live.show(&[view]).unwrap();
        let painted = text(&live.out);
        assert!(painted.ends_with("last\n") && !painted.contains('\u{1b}'), "{painted}");
    }
}
