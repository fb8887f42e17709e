// SPDX-License-Identifier: Apache-2.0
//! The supervisor's decisions as a pure machine: events go in, actions come out. It starts no
//! process, reads no clock and no file, so every verdict and every way to stop a step has a test
//! without a process.

mod health;
mod placement;
mod step;
mod stop;
#[cfg(test)]
mod tests;
mod verdict;
mod waiting;

use std::mem;
use std::time::Duration;

use self::health::Health;
use self::step::Step;
use super::watch::Watch;
use super::{Settings, cause};
use crate::plan::Purpose;
use crate::run::figures::Figures;
use crate::run::result::{
    Exit, JunitSummary, Moment, Phase, RankPlace, RunResult, StepResult, StopSignal, Verdict,
    VerdictKind, millis,
};
use crate::run::timeline::duration;

/// How long a step that ended from outside waits for the signal that announces the job's end.
const SETTLE: Duration = Duration::from_secs(1);
/// The least time between two writes of a result that is not final.
const SAVE_INTERVAL: Duration = Duration::from_millis(250);

/// What happens to a run. Steps are indices into [`RunResult::steps`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// All other events up to now are handed in; deadlines may have passed.
    Tick,
    /// The step's `srun` runs.
    Started(usize),
    /// The step's `srun` could not be started.
    StartFailed(usize, String),
    /// The step's `srun` printed a line to standard error.
    Output(usize, &'a str),
    /// The file is there after which the step may end before the benchmark does.
    MayEnd(usize),
    /// The step's `srun` ended, and all its output is handed in.
    Ended(usize, Option<Exit>),
    /// The answer to [`Action::Ask`]: the step is ready, or why the answer does not say so.
    Answered(usize, Result<(), String>),
    /// The step's log says that it is ready.
    LogReady(usize),
    /// A line of the step's log has a text that means death.
    LogFatal(usize, String),
    /// SIGTERM, SIGINT or SIGHUP.
    Terminate,
    /// SIGUSR1, which `sbatch --signal` sends before the time limit.
    TimeLimitNear,
    /// The answer to [`Action::ReadTail`], with the reason that the log gives for the step's end.
    Tail(usize, Vec<String>, Option<cause::Failure>),
    /// The answer to [`Action::ReadSilence`]: when each step's log was last written to.
    Silence(Vec<Option<Moment>>),
    /// The answer to [`Action::ReadFigures`]; whether a client that only warms up measured them.
    Figures(Figures, bool),
    /// The answer to [`Action::ReadRanks`].
    Ranks(usize, Vec<RankPlace>),
    /// The answer to [`Action::ReadCause`].
    Cause(Option<VerdictKind>),
    /// The answer to [`Action::WriteFiles`], with the error if the result is lost.
    Written(Option<JunitSummary>, Option<String>),
}

/// What the I/O loop has to do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start the step's `srun`; answer with [`Event::Started`] or [`Event::StartFailed`].
    Start(usize),
    /// Send a signal to the step's `srun` itself.
    SignalSrun(usize, StopSignal),
    /// Have Slurm send a signal to the tasks of the steps with these ids.
    Scancel(StopSignal, Vec<String>),
    /// Ask the step whether it is ready; answer within this time with [`Event::Answered`].
    Ask(usize, Duration),
    /// Tell clients that are no steps that the servers are ready.
    Announce,
    /// Read the last lines of the step's log.
    ReadTail(usize),
    /// Look up when the steps' logs were last written to.
    ReadSilence,
    /// Read what this client measured, and those before it that count.
    ReadFigures(usize),
    /// Read on where the ranks of the step run; to the end of its log when the step has ended.
    ReadRanks(usize),
    /// Read the reason for the job's end from the steps' logs.
    ReadCause,
    /// Write the unfinished result.
    Save,
    /// Write the last files of the run.
    WriteFiles,
    /// Write a line to the job's log.
    Log(String),
}

/// The state of one run.
#[derive(Debug)]
pub struct Machine {
    result: RunResult,
    /// What is known of the steps beside their results, in the same order.
    steps: Vec<Step>,
    /// What is known of their health.
    health: Vec<Health>,
    settings: Settings,
    /// The time of the current event.
    now: Moment,
    /// When the next step may start.
    next_start: Moment,
    phase_since: Moment,
    /// Steps that ended since the last tick.
    ended: Vec<usize>,
    /// Groups of steps that are still to be stopped, the next one last.
    to_stop: Vec<Vec<usize>>,
    /// Whether it was read what the client measured that has ended; why it means that the run has
    /// not passed.
    fault: Option<Option<String>>,
    /// Until when a signal may show that a step's end was the job's.
    settle: Option<Moment>,
    /// Since when servers without a benchmark serve.
    serving: Option<Moment>,
    /// Whether a termination signal has arrived.
    terminated: bool,
    saved: Moment,
    /// Whether the result has changed since it was saved.
    changed: bool,
    is_over: bool,
    actions: Vec<Action>,
}

impl Machine {
    /// A run that has started no step yet; `watches` are the steps' in their order.
    #[must_use]
    pub fn new(result: RunResult, watches: Vec<Watch>, settings: Settings) -> Self {
        let now = result.started;
        Self {
            steps: result.steps.iter().map(|_| Step::default()).collect(),
            health: watches.into_iter().map(Health::new).collect(),
            result,
            settings,
            now,
            next_start: now,
            phase_since: now,
            ended: Vec::new(),
            to_stop: Vec::new(),
            fault: None,
            settle: None,
            serving: None,
            terminated: false,
            saved: now,
            changed: false,
            is_over: false,
            actions: Vec::new(),
        }
    }

    /// The result as it is now.
    #[must_use]
    pub fn result(&self) -> &RunResult {
        &self.result
    }

    /// Whether nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Takes in what happened, and decides what to do.
    pub fn on(&mut self, event: Event<'_>, now: Moment) -> Vec<Action> {
        self.now = now;
        match event {
            Event::Tick => self.tick(),
            Event::Started(index) => {
                self.result.steps[index].started = Some(now);
                self.next_start = now + self.settings.stagger;
                self.changed = true;
                self.start_next();
            }
            Event::StartFailed(index, error) => {
                self.steps[index].start_error = Some(error);
                self.decide_on(index);
            }
            Event::Output(index, line) => {
                self.changed |= self.steps[index].read(&mut self.result.steps[index], line, now);
                if self.steps[index].misplaced.is_some() {
                    self.decide_on(index);
                }
            }
            Event::MayEnd(index) => self.steps[index].may_end = true,
            Event::Ended(index, exit) => {
                self.steps[index].ended(&mut self.result.steps[index], exit, now);
                self.ended.push(index);
                self.changed = true;
            }
            Event::Answered(index, answer) => self.answered(index, answer),
            Event::LogReady(index) => self.is_ready(index),
            Event::LogFatal(index, line) => self.fatal(index, &line),
            Event::Terminate => self.terminate(),
            Event::TimeLimitNear => {
                let kind = VerdictKind::TimeLimitNear;
                self.decide(kind, cause::message(kind).to_owned(), None);
            }
            Event::Tail(index, lines, reason) => {
                if self.result.verdict.step.as_deref() == Some(self.name(index)) {
                    let fatal = || cause::fatal(&lines, &self.health[index].watch.fatal);
                    self.steps[index].reason = reason.or_else(fatal);
                    let no_start = cause::of_no_start(&lines);
                    self.result.verdict.log_tail = lines;
                    self.explain_verdict(index);
                    if no_start.is_some() {
                        self.steps[index].start_error = no_start;
                        if let Some((kind, message)) = self.meaning(index) {
                            (self.result.verdict.kind, self.result.verdict.message) =
                                (kind, message);
                        }
                    }
                    self.changed = true;
                }
            }
            Event::Silence(written) => self.silence(&written),
            Event::Figures(figures, of_warm_up) => {
                self.fault = Some(figures.fault(self.settings.max_failed));
                if !of_warm_up {
                    self.result.figures = figures.measurements;
                }
                self.changed = true;
                self.tick();
            }
            Event::Ranks(index, places) => self.ranks(index, places),
            Event::Cause(reason) => self.cause(reason),
            Event::Written(junit, error) => self.written(junit, error),
        }
        mem::take(&mut self.actions)
    }

    /// The time of the next tick, if one is needed before the next event.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let mut deadlines = Vec::new();
        if self.is_decided() {
            deadlines.extend(self.settle.filter(|until| *until > self.now));
        } else {
            deadlines.extend(self.phase_limit().map(|limit| self.phase_since + limit));
            deadlines.extend(self.next_to_start().map(|_| self.next_start));
            deadlines.extend((0..self.steps.len()).filter_map(|index| self.waits_until(index)));
            deadlines.extend((0..self.steps.len()).filter_map(|index| self.next_question(index)));
            deadlines.extend((0..self.steps.len()).filter_map(|index| self.next_look(index)));
            deadlines.extend(self.ended.iter().filter_map(|index| self.explained_by(*index)));
        }
        deadlines.extend(self.running().filter_map(|index| self.steps[index].stop?.next));
        deadlines.extend(self.changed.then(|| self.saved + SAVE_INTERVAL));
        deadlines.into_iter().min()
    }

    fn tick(&mut self) {
        if self.is_over {
            return;
        }
        // A server may end because the benchmark did, so the benchmark's end counts first.
        let mut ended = mem::take(&mut self.ended);
        ended.sort_by_key(|index| !self.result.steps[*index].decides());
        let client = ended.first().copied();
        let client = client.filter(|index| self.result.steps[*index].decides());
        if let Some(index) = client.filter(|_| self.fault.is_none()) {
            // What the client measured decides, too.
            self.ended = ended;
            return self.actions.push(Action::ReadFigures(index));
        }
        if !self.is_decided() && client.and_then(|index| self.explained_by(index)) > Some(self.now)
        {
            self.ended = ended;
        } else {
            for index in ended {
                self.step_ended(index);
            }
            if !self.is_decided() {
                self.fault = None;
            }
        }
        if let Some(index) = self.lost_server() {
            self.step_ended(index);
        }
        self.report_waiting();
        if !self.is_decided() {
            self.look_where_ranks_run();
        }
        self.advance();
        self.start_next();
        self.ask();
        self.stop_steps();
        if self.is_done() {
            return self.finish();
        }
        if self.changed && self.now >= self.saved + SAVE_INTERVAL {
            self.save();
        }
    }

    // ---- starting, and the phases

    fn start_next(&mut self) {
        if !self.is_decided()
            && self.now >= self.next_start
            && let Some(index) = self.next_to_start()
        {
            self.actions.push(Action::Start(index));
        }
    }

    fn next_to_start(&self) -> Option<usize> {
        let is_next = |step: &StepResult| step.phase() == self.group() && step.started.is_none();
        let mut next = (0..self.steps.len()).filter(|index| is_next(&self.result.steps[*index]));
        // A step that has ended may end the run.
        next.find(|index| self.ended.is_empty() && self.may_start(*index))
    }

    /// The phase whose steps are started now.
    fn group(&self) -> Phase {
        self.result.phase.min(Phase::Start)
    }

    fn enter(&mut self, phase: Phase) {
        self.result.phase = phase;
        self.phase_since = self.now;
        self.changed = true;
    }

    /// Enters the next phase when this one is complete, and decides when it takes too long.
    fn advance(&mut self) {
        if self.is_decided() {
            return;
        }
        let phase = self.result.phase;
        let mut group = self.result.steps.iter().filter(|step| step.phase() == phase);
        match phase {
            Phase::Unpack | Phase::Install | Phase::Precheck
                if group.all(|step| step.ended.is_some()) =>
            {
                let phases = self.result.steps.iter().map(StepResult::phase);
                let later = phases.filter(|later| *later > phase).min();
                return self.enter(later.unwrap_or(Phase::Start));
            }
            Phase::Start | Phase::Ready if self.is_measuring() => {
                self.enter(Phase::Benchmark);
                if let Some(url) = self.result.serves_at() {
                    let line = format!("all servers are ready at {url} (server_ready.json)");
                    self.serving = Some(self.now);
                    self.log(line);
                    self.actions.push(Action::Announce);
                }
            }
            Phase::Start
                if self.later().all(|index| !self.may_start(index) || self.runs(index)) =>
            {
                self.enter(Phase::Ready);
            }
            _ => {}
        }
        if let Some(limit) = self.phase_limit()
            && self.now >= self.phase_since + limit
        {
            self.over_limit(limit);
        }
    }

    fn phase_limit(&self) -> Option<Duration> {
        let limits = &self.settings.limits;
        match self.result.phase {
            Phase::Unpack => limits.unpack,
            Phase::Install => limits.install,
            Phase::Precheck => limits.precheck,
            Phase::Start => limits.start,
            Phase::Ready => limits.ready,
            Phase::Benchmark => limits.benchmark,
            Phase::Stop | Phase::Done => None,
        }
    }

    // ---- deciding

    /// A step has ended, or one of its ranks is lost.
    fn step_ended(&mut self, index: usize) {
        if self.is_decided() {
            self.read_cause();
            self.complete_verdict(index);
            return;
        }
        if let Some(error) = &self.steps[index].launch_failure
            && !self.steps[index].is_second
        {
            // No rank has got further than its start, and the second step gets another id: what
            // an earlier run of a requeued job left on the nodes is not in its way.
            self.log(format!("{}: launch failed ({error}); starting it again", self.name(index)));
            self.steps[index].start_again(&mut self.result.steps[index]);
            self.health[index] = Health::new(mem::take(&mut self.health[index].watch));
            self.changed = true;
            return;
        }
        self.decide_on(index);
    }

    /// A server with a failed rank: srun waits for its other ranks, but the server is lost already.
    fn lost_server(&self) -> Option<usize> {
        let has_failed = |index: &usize| self.result.steps[*index].failure.is_some();
        let lost = self.running().filter(|index| self.result.steps[*index].is_server());
        lost.filter(|_| !self.is_decided()).find(has_failed)
    }

    /// Decides on the verdict that a step's state means, unless the run goes on.
    fn decide_on(&mut self, index: usize) {
        let Some((kind, message)) = self.meaning(index) else { return };
        self.decide(kind, message, Some(index));
        // A job that is requeued or cancelled gets no more steps.
        let is_refused =
            kind == VerdictKind::StartFailed && self.steps[index].start_error.is_none();
        if is_refused || self.steps[index].ended_from_outside && !kind.is_passed() {
            self.settle = Some(self.now + SETTLE);
        }
    }

    fn decide(&mut self, kind: VerdictKind, message: String, about: Option<usize>) {
        if self.is_decided() {
            return;
        }
        let mut verdict = Verdict::new(kind, message);
        verdict.noticed = Some(self.now);
        verdict.step = about.map(|index| self.name(index).to_owned());
        self.result.verdict = verdict;
        if let Some(index) = about {
            self.complete_verdict(index);
        }
        self.result.phase = Phase::Stop;
        self.log(format!("{}: {}", kind.name(), self.result.verdict.message));
        let has = |index: usize, purpose| self.result.steps[index].purpose == Some(purpose);
        let is_router = |index: &usize| has(*index, Purpose::Router);
        let is_service = |index: &usize| has(*index, Purpose::Service);
        self.to_stop = if self.is_benchmark_over() {
            // A router ends before the servers that it sends requests to, and they before the
            // services by which they find each other.
            let (routers, others): (_, Vec<_>) = self.running().partition(is_router);
            let (services, others) = others.into_iter().partition(is_service);
            vec![services, others, routers]
        } else {
            vec![self.running().collect()]
        };
        self.stop_steps();
        self.save();
    }

    /// A signal asks the launch to end: from Slurm, which ends the job, or from a person.
    fn terminate(&mut self) {
        let is_first = !mem::replace(&mut self.terminated, true);
        let message = cause::message(VerdictKind::Terminated);
        if !self.is_decided() {
            self.decide(VerdictKind::Terminated, message.to_owned(), None);
        } else if is_first && self.settle.take().is_some() {
            let noticed = self.result.verdict.noticed;
            self.result.verdict = Verdict::new(VerdictKind::Terminated, message);
            self.result.verdict.noticed = noticed;
        } else {
            // A repeated signal means: do not wait for an orderly end.
            for stop in self.steps.iter_mut().filter_map(|step| step.stop.as_mut()) {
                stop.next = stop.next.map(|next| next.min(self.now));
            }
        }
        self.read_cause();
        // There may be no time for it after this signal.
        self.save();
    }

    fn read_cause(&mut self) {
        if self.result.verdict.kind == VerdictKind::Terminated {
            self.actions.push(Action::ReadCause);
        }
    }

    /// Replaces the verdict when Slurm's reason for the job's end is known.
    fn cause(&mut self, reason: Option<VerdictKind>) {
        let by_slurm = self.steps.iter().any(|step| step.ended_from_outside);
        let kind = reason.or(by_slurm.then_some(VerdictKind::Cancelled));
        if self.result.verdict.kind == VerdictKind::Terminated
            && let Some(kind) = kind
        {
            self.result.verdict.kind = kind;
            self.result.verdict.message = cause::message(kind).to_owned();
            self.changed = true;
        }
        if self.result.phase == Phase::Done {
            self.has_served();
        }
    }

    /// Servers without a benchmark end well when they are told to.
    fn has_served(&mut self) {
        let verdict = &mut self.result.verdict;
        let is_told = matches!(verdict.kind, VerdictKind::Terminated | VerdictKind::Cancelled);
        if let Some(since) = self.serving.filter(|_| is_told) {
            let time = duration(verdict.noticed.unwrap_or(self.now).since(since));
            verdict.kind = VerdictKind::Served;
            verdict.message = format!("the servers served for {time}, until they were told to end");
        }
    }

    // ---- the end

    fn is_done(&self) -> bool {
        let settled = self.settle.is_none_or(|until| self.now >= until);
        self.is_decided() && settled && self.running().next().is_none() && self.to_stop.is_empty()
    }

    fn finish(&mut self) {
        self.read_cause();
        let result = &mut self.result;
        (result.phase, result.ended) = (Phase::Done, Some(self.now));
        result.verdict.stop_ms =
            result.verdict.noticed.map(|noticed| millis(self.now.since(noticed)));
        if self.result.verdict.kind == VerdictKind::Cancelled {
            self.has_served();
        }
        self.look_for_the_last_time();
        self.actions.push(Action::WriteFiles);
    }

    fn written(&mut self, junit: Option<JunitSummary>, error: Option<String>) {
        self.result.junit = junit;
        if let Some(error) = error {
            self.log(format!("the result cannot be written: {error}"));
            if self.result.verdict.kind.is_passed() {
                let message = format!("the benchmark passed, but its result is lost: {error}");
                self.result.verdict = Verdict::new(VerdictKind::WorkspaceFailed, message);
            }
        }
        let verdict = &self.result.verdict;
        let last =
            format!("run {} {}: {}", self.result.run.id, verdict.kind.name(), verdict.message);
        let tail = verdict.log_tail.iter().map(|line| format!("  | {line}"));
        self.actions.extend(std::iter::once(last).chain(tail).map(Action::Log));
        self.is_over = true;
    }

    // ---- helpers

    fn save(&mut self) {
        // A write that fails is repeated with the next change.
        (self.changed, self.saved) = (false, self.now);
        self.actions.push(Action::Save);
    }

    fn log(&mut self, line: String) {
        self.actions.push(Action::Log(line));
    }

    fn name(&self, index: usize) -> &str {
        &self.result.steps[index].name
    }

    fn is_decided(&self) -> bool {
        self.result.verdict.kind != VerdictKind::Running
    }

    fn is_benchmark_over(&self) -> bool {
        let kind = self.result.verdict.kind;
        use VerdictKind::{BenchmarkFailed, Passed, RequestsFailed};
        matches!(kind, Passed | BenchmarkFailed | RequestsFailed)
    }

    fn is_running(&self, index: usize) -> bool {
        self.result.steps[index].is_running()
    }

    fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.steps.len()).filter(|index| self.is_running(*index))
    }

    /// The steps of the test itself, after all preparations.
    fn later(&self) -> impl Iterator<Item = usize> {
        (0..self.steps.len()).filter(|index| self.result.steps[*index].phase() == Phase::Start)
    }

    /// Whether all servers are up, and a client runs where there is one.
    fn is_measuring(&self) -> bool {
        let is_client = |index: &usize| self.result.steps[*index].decides();
        let (clients, mut servers): (Vec<_>, Vec<_>) = self.later().partition(is_client);
        let is_asked = clients.is_empty() || clients.iter().any(|index| self.runs(*index));
        is_asked && servers.drain(..).all(|index| self.is_up(index))
    }

    fn runs(&self, index: usize) -> bool {
        self.result.steps[index].running.is_some()
    }
}
