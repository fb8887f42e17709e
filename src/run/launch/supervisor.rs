// SPDX-License-Identifier: Apache-2.0
//! The supervisor: one loop that starts steps, hears of everything that happens to them, decides on
//! the verdict, and brings what is left to its end.
//!
//! It waits in one place, for file descriptors and the nearest deadline: children's ends and
//! signals arrive through a pipe, srun's words through another. Nothing is polled.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::directory::{ADDRESSES, INSTALL_LOG, RunDirectory, SRUN_LOG, name_in};
use super::environment::{self, Variables};
use super::probe::Probe;
use super::say::say;
use super::step::{Stage, Step, Stop};
use super::tie::Gate;
use super::{Allocation, Settings, cause, command, files, tail};
use crate::plan::{Instance, Plan, Purpose, resolve};
use crate::run::result::{
    Exit, Moment, Phase, PlanSummary, RunId, RunResult, SCHEMA, StepResult, Verdict, VerdictKind,
};
use crate::run::signals::{self, Signals};
use crate::slurm::argument::ArgumentError;
use crate::slurm::hostlist;

/// How long each way to kill a step may take before the next is tried.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a step's end from outside waits for the signal that says the whole job ends.
const SETTLE: Duration = Duration::from_secs(1);
/// The least time between two writings of a result that is not final.
const SAVE_INTERVAL: Duration = Duration::from_millis(250);
/// The name of the install step.
const INSTALL: &str = "INSTALL";

/// The steps of a plan, in the order in which they start, and the environment of all.
#[derive(Debug)]
pub struct Work {
    steps: Vec<Step>,
    variables: Variables,
}

/// Derives the steps of a plan on a job's nodes.
///
/// # Errors
/// [`ArgumentError`]: a value cannot stand in a command line.
pub fn steps(plan: &Plan, nodes: &[String]) -> Result<Work, ArgumentError> {
    let mut all = environment::of_process();
    let variables = environment::for_all_steps(plan, &all);
    all.extend(variables.clone());
    let mut steps = Vec::new();
    if let Some(script) = &plan.install_script {
        let hosts = &nodes[..(plan.layout.total_nodes as usize).min(nodes.len())];
        let result = step_result(INSTALL.into(), None, hosts, plan.layout.total_nodes, INSTALL_LOG);
        let command = command::of_install(plan, script, hosts, &all)?;
        steps.push(Step::new(Phase::Install, result, command));
    }
    let instances = plan.checks().map(|instance| (Phase::Precheck, instance));
    let instances = instances.chain(plan.instances().map(|instance| (Phase::Start, instance)));
    for (phase, instance) in instances {
        let hosts = instance.hosts(nodes).unwrap_or_default();
        let command = command::of_instance(&instance, hosts, &all)?;
        steps.push(Step::new(phase, instance_result(plan, &instance, hosts), command));
    }
    Ok(Work { steps, variables })
}

fn instance_result(plan: &Plan, instance: &Instance<'_>, hosts: &[String]) -> StepResult {
    let workspace = Path::new(&plan.workspace);
    let spec = resolve(instance);
    let junit = spec
        .junit_file()
        .map(|path| name_in(workspace, &path).map_or_else(|| path.to_string(), str::to_owned));
    let (name, log) = (instance.name.clone(), spec.log_file());
    let role = Some(instance);
    StepResult { junit, ..step_result(name, role, hosts, instance.role.step.tasks, &log) }
}

fn step_result(
    name: String,
    instance: Option<&Instance<'_>>,
    hosts: &[String],
    tasks: u32,
    log: &str,
) -> StepResult {
    StepResult {
        name,
        role: instance.map(|instance| instance.role_name.to_owned()),
        purpose: instance.map(|instance| instance.role.purpose),
        step_id: None,
        nodes: hosts.to_vec(),
        tasks,
        log: log.to_owned(),
        junit: None,
        started: None,
        running: None,
        ready: None,
        ended: None,
        exit: None,
        stopped: None,
        failure: None,
    }
}

/// The supervisor of one run.
#[derive(Debug)]
pub struct Supervisor<'p> {
    plan: &'p Plan,
    settings: Settings,
    directory: RunDirectory,
    result: RunResult,
    steps: Vec<Step>,
    variables: Variables,
    signals: Signals,
    srun_log: File,
    probe: Option<Probe>,
    /// The scancel processes under way.
    helpers: Vec<Child>,
    /// When the next step may start.
    next_start: Instant,
    /// When the phase began.
    phase_since: Instant,
    /// The steps that are to be ended after those that are being ended, the next last.
    to_stop: Vec<Vec<usize>>,
    /// Until when a signal may still say that a step's end was the job's.
    settle: Option<Instant>,
    /// The last signal that told the launch to end.
    told: Option<i32>,
    /// When the result was last written, and whether it has changed since.
    saved: Instant,
    changed: bool,
}

impl<'p> Supervisor<'p> {
    /// A supervisor that has started nothing yet.
    ///
    /// # Errors
    /// The system refuses a pipe, or the run's directory cannot be written.
    pub fn new(
        plan: &'p Plan,
        allocation: &Allocation,
        settings: Settings,
        directory: RunDirectory,
        run: RunId,
        summary: PlanSummary,
        work: Work,
    ) -> io::Result<Self> {
        let signals = signals::take_over(&[SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        let srun_log = directory.log(SRUN_LOG)?;
        let now = Instant::now();
        let first = work.steps.first().map_or(Phase::Start, |step| step.phase);
        let result = RunResult {
            schema: SCHEMA,
            run,
            plan: summary,
            workspace: plan.workspace.clone(),
            nodes: allocation.nodes.clone(),
            started: Moment::now(),
            ended: None,
            phase: first,
            verdict: Verdict::new(VerdictKind::Running, "the run goes on"),
            steps: Vec::new(),
            junit: None,
        };
        let mut new = Self {
            plan,
            settings,
            directory,
            result,
            steps: work.steps,
            variables: work.variables,
            signals,
            srun_log,
            probe: None,
            helpers: Vec::new(),
            next_start: now,
            phase_since: now,
            to_stop: Vec::new(),
            settle: None,
            told: None,
            saved: now,
            changed: false,
        };
        new.result.steps = new.steps.iter().map(|step| step.result.clone()).collect();
        files::save(&new.directory, &new.result)?;
        Ok(new)
    }

    /// Runs the steps to their end.
    #[must_use]
    pub fn run(mut self) -> RunResult {
        say(&format!(
            "run {} of {} on {}; everything is in {}",
            self.result.run.id,
            self.result.plan.test,
            hostlist::compress(&self.result.nodes),
            self.directory.file("").display()
        ));
        loop {
            self.advance();
            self.start_due();
            self.bring_to_end();
            if self.is_done() {
                break;
            }
            self.save_when_due();
            self.wait();
            self.take_signals();
            self.take_words_and_ends();
            self.take_ready();
        }
        self.finish()
    }

    // ---- starting, and the phases

    /// Starts the steps whose time has come. They go on when all of them are there.
    fn start_due(&mut self) {
        if self.is_decided() || self.next_to_start().is_none() || Instant::now() < self.next_start {
            return;
        }
        let gate = match Gate::new() {
            Ok(gate) => gate,
            Err(error) => {
                let message = format!("no step can be started: {error}");
                return self.decide(VerdictKind::StartFailed, message, None);
            }
        };
        while !self.is_decided()
            && Instant::now() >= self.next_start
            && let Some(index) = self.next_to_start()
        {
            self.changed = true;
            let started = self.steps[index].start(&self.directory, &self.variables, &gate);
            self.next_start = Instant::now() + self.settings.stagger;
            if let Err(error) = started {
                let message = format!("{} cannot be started: {error}", self.name(index));
                self.decide(VerdictKind::StartFailed, message, Some(index));
            }
        }
    }

    fn next_to_start(&self) -> Option<usize> {
        self.steps.iter().position(|step| step.phase == self.group() && step.is_waiting())
    }

    /// The phase whose steps are the ones to be started now.
    fn group(&self) -> Phase {
        self.result.phase.min(Phase::Start)
    }

    fn enter(&mut self, phase: Phase) {
        self.result.phase = phase;
        self.phase_since = Instant::now();
        self.changed = true;
        if phase == Phase::Ready {
            let servers = self.servers().map(|index| (index, self.name(index).to_owned()));
            match Probe::start(self.directory.file(ADDRESSES), servers.collect()) {
                Ok(probe) => self.probe = Some(probe),
                Err(error) => say(&format!("servers cannot be asked for their health: {error}")),
            }
        }
    }

    /// The next phase when this one has done its part, a verdict when it took too long.
    fn advance(&mut self) {
        if self.is_decided() {
            return;
        }
        let phase = self.result.phase;
        let in_group = |step: &&Step| step.phase == phase;
        match phase {
            Phase::Install | Phase::Precheck => {
                if self.steps.iter().filter(in_group).all(|step| step.result.ended.is_some()) {
                    let later = self.steps.iter().map(|step| step.phase).find(|p| *p > phase);
                    self.enter(later.unwrap_or(Phase::Start));
                    return;
                }
            }
            Phase::Start => {
                if self.steps.iter().filter(in_group).all(|step| step.result.running.is_some()) {
                    let next = if self.settings.ready { Phase::Ready } else { Phase::Benchmark };
                    self.enter(next);
                }
            }
            Phase::Ready => {
                if self.servers().all(|index| self.steps[index].result.ready.is_some()) {
                    self.probe = None;
                    self.enter(Phase::Benchmark);
                }
            }
            Phase::Benchmark | Phase::Stop | Phase::Done => {}
        }
        if self.phase_deadline().is_some_and(|deadline| Instant::now() >= deadline) {
            self.over_limit();
        }
    }

    fn phase_limit(&self) -> Option<Duration> {
        let limits = &self.settings.limits;
        match self.result.phase {
            Phase::Precheck => {
                self.plan.precheck.map(|check| Duration::from_secs(u64::from(check.timeout_s)))
            }
            Phase::Start => limits.start,
            Phase::Ready => limits.ready,
            Phase::Benchmark => limits.benchmark,
            Phase::Install | Phase::Stop | Phase::Done => None,
        }
    }

    fn phase_deadline(&self) -> Option<Instant> {
        self.phase_limit().map(|limit| self.phase_since + limit)
    }

    fn over_limit(&mut self) {
        let phase = self.result.phase;
        let limit = self.phase_limit().unwrap_or_default().as_secs_f64();
        let late = |done: fn(&StepResult) -> bool| {
            let steps =
                self.steps.iter().enumerate().filter(|(_, step)| step.phase == self.group());
            let mut late = steps.filter(|(_, step)| !done(&step.result)).map(|(index, _)| index);
            let first = late.next();
            (first, late.count())
        };
        let (kind, what, (first, more)) = match phase {
            Phase::Precheck => {
                (VerdictKind::PrecheckFailed, "has not ended", late(|step| step.ended.is_some()))
            }
            Phase::Start => {
                (VerdictKind::StartLimit, "does not run", late(|step| step.running.is_some()))
            }
            Phase::Ready => {
                let late = |step: &StepResult| step.ready.is_some() || !is_server(step);
                (VerdictKind::ReadyLimit, "is not ready", self.late_servers(late))
            }
            _ => (VerdictKind::BenchmarkLimit, "has not ended", (self.deciding(), 0)),
        };
        let who = first.map_or("the run", |index| self.name(index)).to_owned();
        let others = match more {
            0 => String::new(),
            more => format!(" (and {more} more)"),
        };
        let message = format!(
            "{who}{others} {what} {limit} s after the phase `{}` began, which is its limit",
            phase.name()
        );
        self.decide(kind, message, first);
    }

    fn late_servers(&self, done: impl Fn(&StepResult) -> bool) -> (Option<usize>, usize) {
        let mut late = self.servers().filter(|index| !done(&self.steps[*index].result));
        let first = late.next();
        (first, late.count())
    }

    // ---- waiting, and what comes of it

    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.get_read(), PollFlags::IN)];
        let words = self.steps.iter().filter_map(Step::words_fd);
        fds.extend(words.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let wake = self.probe.as_ref().map(|probe| probe.wake.as_fd());
        fds.extend(wake.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = self.next_deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        // An interrupted wait has been woken by a signal, which the pipe holds.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn next_deadline(&self) -> Option<Instant> {
        let mut deadlines = Vec::new();
        if self.is_decided() {
            deadlines.extend(self.settle);
        } else {
            deadlines.extend(self.phase_deadline());
            deadlines.extend(self.next_to_start().map(|_| self.next_start));
        }
        let running = self.steps.iter().filter(|step| step.is_running());
        deadlines.extend(running.filter_map(|step| step.stop.and_then(|stop| stop.next)));
        deadlines.extend(self.changed.then_some(self.saved + SAVE_INTERVAL));
        deadlines.into_iter().min()
    }

    fn take_signals(&mut self) {
        let signals: Vec<_> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                SIGCHLD => {
                    self.helpers.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))))
                }
                SIGUSR1 => {
                    let message = cause::sentence(VerdictKind::TimeLimitNear);
                    self.decide(VerdictKind::TimeLimitNear, message.to_owned(), None);
                }
                _ => self.told_to_end(signal),
            }
        }
    }

    /// A signal tells the launch to end: Slurm ends the job, or somebody ends the launch.
    fn told_to_end(&mut self, signal: i32) {
        let is_first = self.told.replace(signal).is_none();
        if !self.is_decided() {
            self.decide(
                VerdictKind::Terminated,
                cause::sentence(VerdictKind::Terminated).into(),
                None,
            );
        } else if is_first && self.settle.take().is_some() {
            let noticed = self.result.verdict.noticed;
            let message = cause::sentence(VerdictKind::Terminated);
            self.result.verdict = Verdict::new(VerdictKind::Terminated, message);
            self.result.verdict.noticed = noticed;
        } else {
            // Whoever asks again does not want to wait for a good end.
            for step in &mut self.steps {
                if let Some(stop) = &mut step.stop {
                    stop.next = stop.next.map(|next| next.min(Instant::now()));
                }
            }
        }
        self.find_cause();
        // After this signal there may be no other moment to say so.
        self.save();
    }

    /// Says why Slurm ends the job, as far as the steps' logs and sruns say it by now.
    fn find_cause(&mut self) {
        if self.result.verdict.kind != VerdictKind::Terminated {
            return;
        }
        let started = self.steps.iter().filter(|step| step.result.started.is_some());
        let logs = started.map(|step| tail::text(&self.directory.file(&step.result.log)));
        let reason = logs.filter_map(|log| cause::in_log(&log)).next();
        let by_slurm = self.steps.iter().any(|step| step.ended_from_outside);
        if let Some(kind) = reason.or(by_slurm.then_some(VerdictKind::Cancelled)) {
            self.result.verdict.kind = kind;
            self.result.verdict.message = cause::sentence(kind).to_owned();
            self.changed = true;
        }
    }

    fn take_words_and_ends(&mut self) {
        let mut ended = Vec::new();
        for (index, step) in self.steps.iter_mut().enumerate() {
            let name = step.result.name.clone();
            let mut log = &self.srun_log;
            let mut heard = |line: &str| {
                let _ = log.write_all(format!("{name}: {line}\n").as_bytes());
                if line.starts_with("srun: error: ") {
                    say(&format!("{name}: {line}"));
                }
            };
            self.changed |= step.read_words(&mut heard);
            if step.reap(&mut heard) {
                self.changed = true;
                ended.push(index);
            }
        }
        // A server may end because the benchmark has: the benchmark's word goes first.
        ended.sort_by_key(|index| !decides(&self.steps[*index].result));
        for index in ended {
            self.step_ended(index);
        }
        let failed = |step: &Step| step.is_running() && step.result.failure.is_some();
        let failed = self.servers().find(|index| failed(&self.steps[*index]));
        if let Some(index) = failed
            && !self.is_decided()
        {
            // srun waits for the ranks that are left; the server is lost already.
            self.step_ended(index);
        }
    }

    fn take_ready(&mut self) {
        for index in self.probe.as_mut().map(Probe::newly_ready).unwrap_or_default() {
            let result = &mut self.steps[index].result;
            result.ready = Some(Moment::now());
            self.changed = true;
            let after = Moment::now().since(self.result.started).as_secs_f64();
            say(&format!("{} is ready after {after:.1} s", self.name(index)));
        }
    }

    // ---- deciding

    /// What a step's end, or the loss of one of its ranks, means for the run.
    fn step_ended(&mut self, index: usize) {
        if self.is_decided() {
            self.find_cause();
            self.complete_verdict(index);
            return;
        }
        let step = &mut self.steps[index];
        if let Some(words) = &step.launch_failure
            && !step.is_second
        {
            // No rank has got further than its start, and another step gets another id: what an
            // earlier run of a requeued job left of its steps on the nodes is not in its way.
            say(&format!("{}: its launch failed ({words}); it is started again", step.result.name));
            step.start_again();
            self.changed = true;
            return;
        }
        let Some((kind, message)) = self.meaning(index) else { return };
        let from_outside = self.steps[index].ended_from_outside;
        self.decide(kind, message, Some(index));
        if from_outside && kind != VerdictKind::Passed {
            self.settle = Some(Instant::now() + SETTLE);
        }
    }

    /// The verdict that a step's end is by itself; nothing when the run goes on.
    fn meaning(&self, index: usize) -> Option<(VerdictKind, String)> {
        let step = &self.steps[index];
        let result = &step.result;
        let (name, how) = (&result.name, how_it_ended(result));
        let is_success = result.failure.is_none() && result.exit.is_some_and(Exit::is_success);
        let never_ran = result.step_id.is_none();
        Some(match step.phase {
            Phase::Install | Phase::Precheck if is_success => return None,
            _ if let Some(words) = &step.launch_failure => {
                let nodes = hostlist::compress(&result.nodes);
                let message = format!(
                    "Slurm did not start {name}, twice: {words}; slurmd's logs on {nodes} say why"
                );
                (VerdictKind::StartFailed, message)
            }
            _ if never_ran => {
                let why = step.last_words.clone().unwrap_or(how);
                (VerdictKind::StartFailed, format!("Slurm did not start {name}: {why}"))
            }
            Phase::Install => {
                (VerdictKind::InstallFailed, format!("the install script failed: {how}"))
            }
            Phase::Precheck => (VerdictKind::PrecheckFailed, format!("{name} failed: {how}")),
            _ if !decides(result) => {
                let outside = match step.ended_from_outside {
                    true => "; it was cancelled, or told to end, from outside",
                    false => "",
                };
                let message = format!("{name} ended before the benchmark did: {how}{outside}");
                (VerdictKind::ServerEnded, message)
            }
            _ if is_success => (VerdictKind::Passed, format!("{name} passed: {how}")),
            _ => (VerdictKind::BenchmarkFailed, format!("{name} failed: {how}")),
        })
    }

    fn decide(&mut self, kind: VerdictKind, message: String, about: Option<usize>) {
        if self.is_decided() {
            return;
        }
        let mut verdict = Verdict::new(kind, message);
        verdict.noticed = Some(Moment::now());
        verdict.role = about.map(|index| self.name(index).to_owned());
        self.result.verdict = verdict;
        if let Some(index) = about {
            self.complete_verdict(index);
        }
        self.result.phase = Phase::Stop;
        self.probe = None;
        say(&format!("{}: {}", kind.name(), self.result.verdict.message));
        let running = |index: &usize| self.steps[*index].is_running();
        self.to_stop = if matches!(kind, VerdictKind::Passed | VerdictKind::BenchmarkFailed) {
            // Who passes requests on ends before those who serve them.
            let is_router =
                |index: &usize| self.steps[*index].result.purpose == Some(Purpose::Router);
            let (first, then) = (0..self.steps.len()).filter(running).partition(is_router);
            vec![then, first]
        } else {
            vec![(0..self.steps.len()).filter(running).collect()]
        };
        self.bring_to_end();
        self.save();
    }

    /// What is known of the step that the verdict is about; more is when it has ended.
    fn complete_verdict(&mut self, index: usize) {
        let meaning = self.meaning(index);
        let result = &self.steps[index].result;
        let verdict = &mut self.result.verdict;
        if verdict.role.as_deref() != Some(&*result.name) {
            return;
        }
        if let Some((kind, message)) = meaning
            && kind == verdict.kind
        {
            verdict.message = message;
        }
        let failure = result.failure.as_ref();
        let only = |count: usize| count == 1;
        verdict.rank = failure.map(|end| end.rank).or(only(result.tasks as usize).then_some(0));
        let node = failure.map(|end| &end.node);
        verdict.node = node.or(result.nodes.first().filter(|_| only(result.nodes.len()))).cloned();
        // srun's own status says nothing of the step any more once it was told to end.
        let own = result.exit.filter(|_| result.stopped.is_none());
        verdict.exit = failure.and_then(|end| end.exit).or(own).or(verdict.exit);
        let since = result.running.or(result.started);
        let until = verdict.noticed.unwrap_or_default();
        verdict.ran_ms = verdict.ran_ms.or_else(|| {
            since.map(|since| u64::try_from(until.since(since).as_millis()).unwrap_or(u64::MAX))
        });
        if verdict.kind != VerdictKind::Passed {
            verdict.log_tail = tail::lines(&self.directory.file(&result.log));
        }
        self.changed = true;
    }

    fn is_decided(&self) -> bool {
        self.result.verdict.kind != VerdictKind::Running
    }

    // ---- ending what is left

    /// Ends the next steps when those before them have ended, and goes on harder with those that
    /// do not follow.
    fn bring_to_end(&mut self) {
        if !self.is_decided() {
            return;
        }
        let is_being_stopped = |step: &Step| step.is_running() && step.stop.is_some();
        while !self.steps.iter().any(is_being_stopped)
            && let Some(next) = self.to_stop.pop()
        {
            self.ask(next);
        }
        let now = Instant::now();
        let mut kill = Vec::new();
        for step in self.steps.iter_mut().filter(|step| step.is_running()) {
            let Some(stop) = &mut step.stop else { continue };
            if stop.next.is_none_or(|next| now < next) {
                continue;
            }
            // One kill at a time: up to 25.05.0 a slurmstepd that is told to kill a step which another
            // kill has just ended may stay until UnkillableStepTimeout, and then drain its node.
            let next = Some(now + KILL_PATIENCE);
            match stop.stage {
                Stage::Asked => {
                    *stop = Stop { stage: Stage::SrunTold, next };
                    step.signal_srun(Signal::TERM);
                }
                Stage::SrunTold => {
                    *stop = Stop { stage: Stage::Killed, next };
                    kill.extend(step.result.step_id.clone());
                }
                Stage::Killed | Stage::Abandoned => {
                    *stop = Stop { stage: Stage::Abandoned, next: None };
                    step.signal_srun(Signal::KILL);
                }
            }
        }
        self.scancel("KILL", &kill);
    }

    /// Sends SIGTERM to the tasks of steps. A step that does not exist yet has none: there srun is
    /// told, which would kill them.
    fn ask(&mut self, steps: Vec<usize>) {
        let next = Some(Instant::now() + self.settings.grace);
        let mut ids = Vec::new();
        for index in steps {
            let step = &mut self.steps[index];
            if !step.is_running() {
                continue;
            }
            step.stop = Some(Stop { stage: Stage::Asked, next });
            step.result.stopped = Some(Moment::now());
            self.changed = true;
            match &step.result.step_id {
                Some(id) => ids.push(id.clone()),
                None => step.signal_srun(Signal::TERM),
            }
        }
        self.scancel("TERM", &ids);
    }

    /// Has Slurm send a signal to steps. Its status says nothing: up to 22.05 at least it is an
    /// error for steps that have not all of the job's nodes, which get the signal all the same.
    fn scancel(&mut self, signal: &str, steps: &[String]) {
        if steps.is_empty() {
            return;
        }
        let mut command = Command::new("scancel");
        command.arg("--quiet").arg(format!("--signal={signal}")).args(steps).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(child) => self.helpers.push(child),
            Err(error) => say(&format!("scancel cannot be run: {error}")),
        }
    }

    fn is_done(&self) -> bool {
        let settled = self.settle.is_none_or(|until| Instant::now() >= until);
        let is_running = self.steps.iter().any(Step::is_running);
        self.is_decided() && settled && !is_running && self.to_stop.is_empty()
    }

    fn finish(mut self) -> RunResult {
        for mut helper in self.helpers.drain(..) {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        self.find_cause();
        let ended = Moment::now();
        let result = &mut self.result;
        (result.phase, result.ended) = (Phase::Done, Some(ended));
        let stop = result.verdict.noticed.map(|noticed| ended.since(noticed).as_millis());
        result.verdict.stop_ms = stop.and_then(|stop| u64::try_from(stop).ok());
        result.steps = self.steps.iter().map(|step| step.result.clone()).collect();
        if let Err(error) = files::write(&self.directory, result) {
            say(&format!("the result cannot be written: {error}"));
            if result.verdict.kind.is_passed() {
                let message = format!("the benchmark passed, but its result is lost: {error}");
                result.verdict = Verdict::new(VerdictKind::WorkspaceFailed, message);
            }
        }
        say(&format!(
            "run {} {}: {}",
            result.run.id,
            result.verdict.kind.name(),
            result.verdict.message
        ));
        for line in &result.verdict.log_tail {
            say(&format!("  | {line}"));
        }
        self.result
    }

    // ---- the result while the run goes on

    fn save_when_due(&mut self) {
        if self.changed && Instant::now() >= self.saved + SAVE_INTERVAL {
            self.save();
        }
    }

    fn save(&mut self) {
        self.result.steps = self.steps.iter().map(|step| step.result.clone()).collect();
        // It is written again with the next change, and said when it is the last time.
        let _ = files::save(&self.directory, &self.result);
        (self.changed, self.saved) = (false, Instant::now());
    }

    fn name(&self, index: usize) -> &str {
        &self.steps[index].result.name
    }

    fn servers(&self) -> impl Iterator<Item = usize> {
        let is_server =
            |(_, step): &(usize, &Step)| step.phase == Phase::Start && is_server(&step.result);
        self.steps.iter().enumerate().filter(is_server).map(|(index, _)| index)
    }

    fn deciding(&self) -> Option<usize> {
        self.steps.iter().position(|step| decides(&step.result))
    }
}

/// Whether the step's end is the test's.
fn decides(step: &StepResult) -> bool {
    step.purpose == Some(Purpose::Client)
}

fn is_server(step: &StepResult) -> bool {
    step.purpose.is_some() && !decides(step)
}

/// `rank 3 on node1 ended with status 42 after 12.3 s`.
fn how_it_ended(result: &StepResult) -> String {
    let how = match (&result.failure, result.exit) {
        (Some(end), _) => {
            let how = end.exit.map_or_else(|| end.words.clone(), files::exit_words);
            format!("rank {} on {} {how}", end.rank, end.node)
        }
        (None, Some(exit)) => format!("it {}", files::exit_words(exit)),
        (None, None) => "it left no status".to_owned(),
    };
    let until = result.stopped.or(result.ended).unwrap_or_else(Moment::now);
    match result.running.or(result.started) {
        Some(since) => format!("{how} after {:.1} s", until.since(since).as_secs_f64()),
        None => how,
    }
}
