// SPDX-License-Identifier: Apache-2.0
//! How a followed job is shown: plain lines, one for each change, in a log; on a terminal a block
//! that is painted anew, with one line for each role.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use super::follow::{Role, Screen, View};
use super::result::{Moment, RunResult, StepResult, VerdictKind};
use super::timeline::{StepState, duration};
use crate::diagnostic::Printable;
use crate::slurm::hostlist;
use crate::slurm::reason::advice;
use crate::slurm::state::JobState;

/// One line for each change, with the time since the beginning: for logs, and pipes.
pub struct Lines<W> {
    out: W,
    began: Instant,
    /// What was said last of each thing.
    said: BTreeMap<(u32, String), String>,
}

impl<W: Write> Lines<W> {
    /// Lines on an output.
    pub fn new(out: W) -> Self {
        Self { out, began: Instant::now(), said: BTreeMap::new() }
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
                if self.said.get(&key) != Some(&text) {
                    self.line(&text)?;
                    self.said.insert(key, text);
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
    text.push_str(&format!(
        ": {}",
        if name.is_empty() { "in a state that is not known" } else { &name }
    ));
    if let Some(nodes) = view.record.as_ref().and_then(|record| record.node_list.as_deref()) {
        text.push_str(&format!(" on {nodes}"));
    }
    if let Some(restarts) = view.record.as_ref().map(|record| record.restarts).filter(|n| *n > 0) {
        text.push_str(&format!(" (restart {restarts})"));
    }
    if let Some(reason) = view.reason.as_ref().filter(|_| state.is_waiting()) {
        text.push_str(&format!(" ({reason})"));
        if let Some(advice) = advice(reason) {
            text.push_str(&format!(" {advice}"));
        }
    }
    text
}

fn step_line(name: &str, step: &StepResult) -> String {
    let state = StepState::of(step);
    let mut text = format!("{name}: {state}");
    let since = match state {
        StepState::Starting => {
            return format!("{text} on {}", hostlist::compress(&step.nodes));
        }
        StepState::Running => step.running,
        StepState::Ready => step.ready,
        StepState::Stopped | StepState::Ended(_) => step.ended,
        StepState::Stopping | StepState::NotStarted => None,
    };
    if let (Some(started), Some(at)) = (step.started, since) {
        text.push_str(&format!(" after {}", duration(at.since(started))));
    }
    if let (StepState::Ended(Some(exit)), Some(failure)) = (state, &step.failure)
        && !exit.is_success()
    {
        text.push_str(&format!(" (rank {} on {}: {})", failure.rank, failure.node, failure.words));
    }
    text
}

/// A block of lines that is painted anew: one for the job, one for each role.
pub struct Live<W> {
    out: W,
    began: Instant,
    /// How many lines are painted.
    painted: usize,
    /// The terminal's columns and lines, asked for at every painting.
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

/// The roles of a run: one line each, or one for each kind when they do not fit.
fn rows(view: &View, room: usize, now: Moment) -> Vec<String> {
    let Some(result) = &view.result else { return logs(view, room) };
    if result.steps.len() > room {
        return kinds(result);
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

/// The roles of a run whose launch says nothing of them: what their logs say.
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

/// `GEN  32: 30 ready, 2 starting`.
fn kinds(result: &RunResult) -> Vec<String> {
    let mut lines = Vec::new();
    let mut names: Vec<_> = result.steps.iter().filter_map(|step| step.role.as_deref()).collect();
    names.dedup();
    for name in names {
        let steps = result.steps.iter().filter(|step| step.role.as_deref() == Some(name));
        let mut counts: Vec<(String, usize)> = Vec::new();
        for state in steps.map(|step| StepState::of(step).to_string()) {
            match counts.iter_mut().find(|(known, _)| *known == state) {
                Some((_, count)) => *count += 1,
                None => counts.push((state, 1)),
            }
        }
        if !counts.is_empty() {
            let total: usize = counts.iter().map(|(_, count)| count).sum();
            let parts: Vec<_> = counts.iter().map(|(s, count)| format!("{count} {s}")).collect();
            lines.push(format!("{:<13} {total:>4}: {}", name, parts.join(", ")));
        }
    }
    lines
}

/// The last line of a log that is not empty, among its last 4 KiB.
fn last_line(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(4096))).ok()?;
    let mut end = Vec::new();
    file.take(4096).read_to_end(&mut end).ok()?;
    let text = String::from_utf8_lossy(&end);
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::follow::Job;
    use super::super::result::{Phase, PlanSummary, RunId, Verdict};
    use super::*;

    fn step(name: &str, role: &str, started: bool, running: bool) -> StepResult {
        StepResult {
            name: name.into(),
            role: Some(role.to_owned()),
            purpose: None,
            step_id: None,
            nodes: vec!["node1".into(), "node2".into()],
            tasks: 8,
            log: format!("{name}.log"),
            junit: None,
            started: started.then_some(Moment(1_000)),
            running: running.then_some(Moment(3_500)),
            ready: None,
            ended: None,
            exit: None,
            stopped: None,
            failure: None,
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
            result: Some(RunResult {
                schema: 1,
                run: RunId::new(7, 0),
                plan: summary,
                workspace: "/w".into(),
                nodes: Vec::new(),
                started: Moment(0),
                ended: None,
                phase: Phase::Start,
                verdict: Verdict::new(VerdictKind::Running, "it goes on"),
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
    fn in_a_log_only_what_changes_is_said() {
        let mut lines = Lines::new(Vec::new());
        let starting = view(vec![
            step("GEN_0", "GEN", true, false),
            step("BENCHMARK", "BENCHMARK", false, false),
        ]);
        let running = view(vec![step("GEN_0", "GEN", true, true)]);
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
    fn on_a_terminal_each_painting_takes_the_place_of_the_last() {
        let mut live = Live::new(Vec::new(), || (30, 24));
        let view = view(vec![step("GEN_0", "GEN", true, true)]);
        live.show(std::slice::from_ref(&view)).unwrap();
        let first = text(&live.out);
        assert_eq!(first.lines().count(), 2, "{first}");
        assert!(first.lines().all(|line| line.chars().count() < 30), "{first}");
        live.show(std::slice::from_ref(&view)).unwrap();
        assert!(text(&live.out)[first.len()..].starts_with("\u{1b}[2A\r\u{1b}[J"));
    }

    #[test]
    fn servers_that_do_not_fit_a_terminal_are_counted() {
        let mut steps: Vec<_> =
            (0..32).map(|n| step(&format!("GEN_{n}"), "GEN", true, n > 1)).collect();
        steps.push(step("BENCHMARK", "BENCHMARK", false, false));
        let mut live = Live::new(Vec::new(), || (80, 10));
        live.show(&[view(steps)]).unwrap();
        let painted = text(&live.out);
        assert!(painted.contains("GEN             32: 2 starting, 30 running"), "{painted}");
        assert!(painted.contains("BENCHMARK        1: 1 not started"), "{painted}");
        assert!(painted.lines().count() < 10, "{painted}");
    }

    #[test]
    fn a_log_cannot_steer_the_terminal() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("GEN_0.log"), "first\n\u{1b}[2Jlast\n\n").unwrap();
        let mut view = view(vec![step("GEN_0", "GEN", true, true)]);
        view.job.workspace = Some(directory.path().to_owned());
        let mut live = Live::new(Vec::new(), || (200, 24));
        live.show(&[view]).unwrap();
        assert!(text(&live.out).contains("\\u{1b}[2Jlast"), "{}", text(&live.out));
    }
}
