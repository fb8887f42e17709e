// SPDX-License-Identifier: Apache-2.0
//! How followed jobs are shown on a terminal: a block for each, with one line for each step, which
//! is painted again after each change. It never wraps: what is least important goes first.

use std::io::{self, Write};
use std::time::Instant;

use super::follow::{Role, Screen, View};
use super::progress::headline;
use super::result::{Exit, Moment, Phase, RunResult, StepResult, VerdictKind};
use super::tail;
use super::terminal::{Meaning, Terminal, cut, pad, paint, width};
use super::timeline::{StepState, duration};
use crate::diagnostic::Printable;
use crate::slurm::hostlist;
use crate::slurm::state::JobState;

/// From how many columns on the nodes of each step are shown.
const WITH_NODES: usize = 100;
/// The least columns in which the last line of a log is worth its place.
const LEAST_LOG: usize = 12;
/// The least lines for the steps of each of several jobs; below that, each job has a line.
const LEAST_ROOM: usize = 4;
/// The columns of the benchmark's bar.
const BAR: usize = 30;

/// A piece of a line.
type Piece = (String, Option<Meaning>);

/// A block of lines for each job.
pub struct Live<W> {
    out: W,
    /// How many lines are painted.
    painted: usize,
    /// Asked before each painting: the size may change.
    terminal: Box<dyn Fn() -> Terminal>,
}

impl<W: Write> Live<W> {
    /// Blocks on a terminal that is as `terminal` says.
    pub fn new(out: W, terminal: impl Fn() -> Terminal + 'static) -> Self {
        Self { out, painted: 0, terminal: Box::new(terminal) }
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
        let terminal = (self.terminal)();
        let block = block(views, terminal, Moment::now());
        self.erase()?;
        for line in &block {
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

/// The lines of all jobs, none of which is wider than the terminal.
fn block(views: &[View], terminal: Terminal, now: Moment) -> Vec<String> {
    // The last column stays free: some terminals wrap when it is written to.
    let columns = terminal.columns.saturating_sub(1);
    let room = (terminal.lines.saturating_sub(2) / views.len().max(1)).saturating_sub(3);
    if views.len() > 1 && room < LEAST_ROOM {
        let lines = list(views, terminal.lines.saturating_sub(1), columns, now).into_iter();
        return lines.map(|line| painted(&line, columns, terminal.has_colours)).collect();
    }
    let mut lines = Vec::new();
    for view in views {
        let title = (format!("{}  ", view.job.title), None);
        lines.extend((views.len() > 1).then(|| vec![title]));
        lines.push(job_line(view, now));
        if let Some(result) = &view.result {
            lines.extend(phase_line(view, result));
        }
        let rows = rows(view, room, columns.saturating_sub(2), now);
        lines.extend(rows.into_iter().map(|row| [vec![("  ".to_owned(), None)], row].concat()));
    }
    lines.truncate(terminal.lines.saturating_sub(1));
    lines.into_iter().map(|line| painted(&line, columns, terminal.has_colours)).collect()
}

/// One line for each job: its test, its state, how far it is or how it ended, and its key figure.
/// Jobs that have ended give way to those that have not.
fn list(views: &[View], room: usize, columns: usize, now: Moment) -> Vec<Vec<Piece>> {
    let widest = views.iter().map(|view| width(&view.job.title)).max().unwrap_or_default();
    let widest = widest.min(columns / 2);
    let line = |view: &View| {
        let title = pad(&cut(&view.job.title, widest), widest);
        let mut line = vec![(format!("{title}  "), None)];
        let result = view.result.as_ref();
        line.extend(match &view.outcome {
            Some((outcome, _)) => {
                let is_good = outcome.is_good();
                let meaning = Some(if is_good { Meaning::Good } else { Meaning::Bad });
                vec![(format!("job {}: ", view.job.job_id), None), (outcome.name().into(), meaning)]
            }
            None => job_line(view, now),
        });
        let is_open = view.outcome.is_none();
        line.extend(
            result.filter(|_| is_open).and_then(|r| phase_line(view, r)).into_iter().flatten(),
        );
        let figures = result.map_or(&view.figures, |result| &result.figures);
        let speed = figures.iter().filter_map(|figures| figures.get("output_throughput"));
        if let Some(speed) = speed.reduce(f64::max) {
            line.push((format!("  {speed:.0} output tok/s"), None));
        }
        line
    };
    let mut order: Vec<&View> = views.iter().collect();
    let hidden = views.len().saturating_sub(room);
    if hidden > 0 {
        order.sort_by_key(|view| view.outcome.is_some());
        order.truncate(room.saturating_sub(1));
    }
    let mut lines: Vec<_> = order.into_iter().map(line).collect();
    if hidden > 0 {
        let ended = views.iter().filter(|view| view.outcome.is_some()).count();
        let (all, shown) = (views.len(), lines.len());
        let text = format!("and {} more; {ended} of {all} have ended", all - shown);
        lines.push(vec![(text, Some(Meaning::Quiet))]);
    }
    lines
}

/// A line of as many columns at most.
fn painted(line: &[Piece], columns: usize, has_colours: bool) -> String {
    let (mut text, mut left) = (String::new(), columns);
    for (piece, meaning) in line {
        let piece = cut(&Printable(piece).to_string(), left);
        left -= width(&piece);
        let meaning = meaning.filter(|_| !piece.trim().is_empty());
        text.push_str(&paint(&piece, meaning, has_colours));
    }
    text.truncate(text.trim_end().len());
    text
}

/// The job, how long it has run, and how much of its time limit is left.
fn job_line(view: &View, now: Moment) -> Vec<Piece> {
    let meaning = match &view.state {
        Some(state) if state.is_waiting() => Some(Meaning::Waiting),
        Some(state) if state.is_final() && !state.succeeded() => Some(Meaning::Bad),
        _ => None,
    };
    let mut times = String::new();
    if let Some(result) = &view.result {
        let end = result.ended.unwrap_or(now);
        times.push_str(&format!("  {}", duration(end.since(result.started))));
    }
    let is_running = view.state.as_ref().is_some_and(JobState::is_running);
    if let Some(limit) = view.limit.filter(|_| is_running) {
        let left = limit.saturating_duration_since(Instant::now());
        times.push_str(&format!("  {} left", duration(left)));
    }
    vec![(headline(view), meaning), (times, Some(Meaning::Quiet))]
}

/// How far the run is: what is still to come, or the benchmark's own bar.
fn phase_line(view: &View, result: &RunResult) -> Option<Vec<Piece>> {
    let count = |wanted: &dyn Fn(&StepResult) -> bool| {
        result.steps.iter().filter(|step| wanted(step)).count()
    };
    let line = |text: String, meaning| Some(vec![(format!("  {text}"), Some(meaning))]);
    let verdict = &result.verdict;
    match result.phase {
        _ if verdict.kind != VerdictKind::Running => {
            let is_passed = verdict.kind.is_passed();
            line(verdict.message.clone(), if is_passed { Meaning::Good } else { Meaning::Bad })
        }
        Phase::Start => {
            let all = count(&|step| step.phase() == Phase::Start);
            let run = count(&|step| step.phase() == Phase::Start && step.running.is_some());
            line(format!("{run} of {all} running"), Meaning::Waiting)
        }
        Phase::Ready => {
            let all = count(&StepResult::is_server);
            let ready = count(&|step| step.is_server() && step.ready.is_some());
            line(format!("{ready} of {all} ready"), Meaning::Waiting)
        }
        Phase::Benchmark => {
            if let Some(url) = result.serves_at() {
                return line(format!("serving at {url}"), Meaning::Good);
            }
            let mut steps = result.steps.iter();
            let client = steps.find(|step| step.decides() && step.ended.is_none())?;
            let lines = tail::lines_below(view.job.workspace.as_ref()?, &client.log, 3).ok()?;
            let done = lines.iter().rev().find_map(|line| percent(line))?;
            let filled = BAR * done as usize / 100;
            let bar = format!("[{}{}]", "#".repeat(filled), "-".repeat(BAR - filled));
            Some(vec![(format!("  {done:3} % {bar}"), None)])
        }
        phase => line(phase.name().to_owned(), Meaning::Waiting),
    }
}

/// How far a client is, as its progress bar says. Most clients draw it with tqdm: ` 45%|████▌     | 9/20`.
fn percent(line: &str) -> Option<u8> {
    let (before, _) = line.rsplit_once("%|")?;
    let text = &before[before.trim_end_matches(|c: char| c.is_ascii_digit()).len()..];
    text.parse().ok().filter(|percent| *percent <= 100)
}

/// The steps of a run: one line each, or one for each role when they do not fit.
fn rows(view: &View, room: usize, columns: usize, now: Moment) -> Vec<Vec<Piece>> {
    let Some(result) = &view.result else { return logs(view, room) };
    if result.steps.len() > room {
        return roles(result);
    }
    let nodes = |step: &StepResult| hostlist::compress(&step.nodes);
    let widest =
        |of: &dyn Fn(&StepResult) -> usize| result.steps.iter().map(of).max().unwrap_or_default();
    let name_width = widest(&|step| width(&step.name));
    let state_width = widest(&|step| width(&StepState::of(step).to_string()));
    let node_width = widest(&|step| width(&nodes(step))).min(columns / 4);
    let has_nodes = columns >= WITH_NODES;
    let row = |step: &StepResult| {
        let lasted = step.started.map(|at| duration(step.ended.unwrap_or(now).since(at)));
        let meaning = meaning(result, step);
        let mut row = vec![
            (format!("{}  ", pad(&step.name, name_width)), None),
            (pad(&StepState::of(step).to_string(), state_width), meaning),
            (format!("  {:>7}", lasted.unwrap_or_default()), Some(Meaning::Quiet)),
        ];
        if has_nodes {
            let nodes = pad(&cut(&nodes(step), node_width), node_width);
            row.push((format!("  {nodes}"), Some(Meaning::Quiet)));
        }
        let left = columns.saturating_sub(row.iter().map(|(piece, _)| width(piece)).sum());
        if left >= LEAST_LOG
            && let Some(workspace) = &view.job.workspace
            && let Some(last) = tail::last_meaningful(workspace, &step.log)
        {
            row.push((format!("  {last}"), Some(Meaning::Quiet)));
        }
        row
    };
    result.steps.iter().map(row).collect()
}

/// What the state of a step means for the run.
fn meaning(result: &RunResult, step: &StepResult) -> Option<Meaning> {
    let is_passed = result.verdict.kind.is_passed();
    let is_named = result.verdict.step.as_deref() == Some(&step.name);
    match StepState::of(step) {
        _ if is_named && !is_passed => Some(Meaning::Bad),
        StepState::Starting => Some(Meaning::Waiting),
        StepState::Running => None,
        StepState::Ready => Some(Meaning::Good),
        StepState::Ended(exit) if exit.is_some_and(Exit::is_success) => Some(Meaning::Good),
        StepState::NotStarted | StepState::Stopping | StepState::Stopped | StepState::Killed => {
            Some(Meaning::Quiet)
        }
        StepState::Ended(_) => Some(Meaning::Bad),
    }
}

/// The steps of a run without a result: the last line of each log.
fn logs(view: &View, room: usize) -> Vec<Vec<Piece>> {
    let (Some(workspace), Some(true)) =
        (&view.job.workspace, view.state.as_ref().map(JobState::is_running))
    else {
        return Vec::new();
    };
    let roles = &view.job.roles;
    let widest = roles.iter().map(|role| width(&role.name)).max().unwrap_or_default();
    let row = |role: &Role| {
        let last = tail::last_meaningful(workspace, &role.log).unwrap_or_default();
        let name = format!("{}  ", pad(&role.name, widest));
        vec![(name, None), (last, Some(Meaning::Quiet))]
    };
    roles.iter().rev().take(room).rev().map(row).collect()
}

/// `GEN  32: 30 ready, 2 starting` for each role, in the order in which they start.
fn roles(result: &RunResult) -> Vec<Vec<Piece>> {
    type Count = (String, Option<Meaning>, usize);
    let mut roles: Vec<(&str, Vec<Count>)> = Vec::new();
    for step in &result.steps {
        let (role, state) = (step.role.as_deref().unwrap_or(&step.name), StepState::of(step));
        let at = roles.iter().position(|(known, _)| *known == role).unwrap_or(roles.len());
        if at == roles.len() {
            roles.push((role, Vec::new()));
        }
        let (state, counts) = (state.to_string(), &mut roles[at].1);
        match counts.iter_mut().find(|(known, ..)| *known == state) {
            Some((.., count)) => *count += 1,
            None => counts.push((state, meaning(result, step), 1)),
        }
    }
    let widest = roles.iter().map(|(role, _)| width(role)).max().unwrap_or_default();
    let line = |(role, counts): &(&str, Vec<Count>)| {
        let all: usize = counts.iter().map(|(.., count)| count).sum();
        let mut line = vec![(format!("{} {all:>4}: ", pad(role, widest)), None)];
        for (index, (state, meaning, count)) in counts.iter().enumerate() {
            line.push((if index > 0 { ", " } else { "" }.to_owned(), None));
            line.push((format!("{count} {state}"), *meaning));
        }
        line
    };
    roles.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
