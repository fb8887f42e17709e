// SPDX-License-Identifier: Apache-2.0
//! The loop around the [`Machine`]: it turns what the system reports into events, and carries out
//! the machine's actions.
//!
//! It waits in one place, for file descriptors and the machine's deadline: children's ends and
//! signals arrive through a pipe, srun's output through others. Nothing is polled.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Child;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Rlimit;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::directory::{RunDirectory, SRUN_LOG};
use super::environment::Variables;
use super::log::log;
use super::machine::{Action, Event, Machine};
use super::pdeathsig::Gate;
use super::ports;
use super::probe::{Probe, Seen};
use super::process::{self, Process};
use super::work::{Start, Work};
use super::{cause, files, ranks, ready_file};
use crate::run::figures::{Figures, Search, Stamps};
use crate::run::result::{Moment, RunResult, StepResult};
use crate::run::signals::{self, Signals};
use crate::run::tail;
use crate::slurm::hostlist;

/// The lines of a log that a verdict shows.
const TAIL: usize = 12;
/// The bytes at the end of a log in which slurmstepd's reason is looked for.
const CAUSE_WINDOW: u64 = 16 << 10;
/// The most bytes that srun.log takes from one step.
const MAX_SRUN_LOG: usize = 1 << 20;

/// The time of a run: the wall clock at its start, and from then on the monotonic clock.
#[derive(Debug)]
pub struct Clock {
    started: Moment,
    monotonic: Instant,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { started: Moment::now(), monotonic: Instant::now() }
    }

    /// The current time.
    #[must_use]
    pub fn now(&self) -> Moment {
        self.started + self.monotonic.elapsed()
    }
}

/// A step as the system sees it.
#[derive(Debug)]
struct Step {
    start: Start,
    process: Option<Process>,
    /// The bytes of its output in srun.log.
    logged: usize,
    /// How far its log has been searched for where its ranks run.
    ranks: ranks::Reader,
}

/// The supervisor of one run.
#[derive(Debug)]
pub struct Supervisor {
    machine: Machine,
    clock: Clock,
    steps: Vec<Step>,
    variables: Variables,
    directory: RunDirectory,
    /// The limit of open files that steps get.
    limit: Rlimit,
    signals: Signals,
    srun_log: File,
    probe: Option<Probe>,
    /// Where the client's figures are looked for, and what was there before the run.
    figures: io::Result<(Search, Stamps)>,
    /// What clients find that are no steps.
    ready_file: String,
    /// The scancel processes that have not ended.
    helpers: Vec<Child>,
}

impl Supervisor {
    /// A supervisor that has started nothing yet.
    ///
    /// # Errors
    /// The system refuses a pipe, or the run's directory cannot be written.
    pub fn new(
        machine: Machine,
        clock: Clock,
        work: Work,
        directory: RunDirectory,
        limit: Rlimit,
        figures: io::Result<(Search, Stamps)>,
    ) -> io::Result<Self> {
        let step =
            |start| Step { start, process: None, logged: 0, ranks: ranks::Reader::default() };
        let signals = signals::take_over(&[SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1])?;
        let srun_log = directory.log(SRUN_LOG)?;
        files::save(&directory, machine.result())?;
        let steps: Vec<Step> = work.starts.into_iter().map(step).collect();
        let logs = machine.result().steps.iter().map(|step| directory.file(&step.log));
        let probe = Probe::start(steps.iter().map(|step| &step.start.watch).zip(logs))?;
        let helpers = Vec::new();
        Ok(Self {
            machine,
            clock,
            steps,
            variables: work.variables,
            directory,
            limit,
            signals,
            srun_log,
            probe,
            figures,
            ready_file: work.ready_file,
            helpers,
        })
    }

    /// Runs the steps until all have ended.
    #[must_use]
    pub fn run(mut self) -> RunResult {
        let result = self.machine.result();
        log(&format!(
            "run {} of {} on {}; its files are in {}",
            result.run.id,
            result.plan.test,
            hostlist::compress(&result.nodes),
            self.directory.file("").display()
        ));
        loop {
            self.handle(Event::Tick);
            if self.machine.is_over() {
                return self.machine.result().clone();
            }
            self.wait();
            self.take_signals();
            (0..self.steps.len()).for_each(|index| self.take_output(index));
            for seen in self.probe.as_mut().map(Probe::seen).unwrap_or_default() {
                self.handle(match seen {
                    Seen::Answer(index, answer) => Event::Answered(index, answer),
                    Seen::LogReady(index) => Event::LogReady(index),
                    Seen::LogFatal(index, line) => Event::LogFatal(index, line),
                });
            }
        }
    }

    // ---- events

    fn wait(&self) {
        let mut fds = vec![PollFd::new(self.signals.get_read(), PollFlags::IN)];
        let output = self.steps.iter().filter_map(|step| step.process.as_ref()?.stderr());
        fds.extend(output.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let wake = self.probe.as_ref().map(|probe| probe.wake.as_fd());
        fds.extend(wake.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = self.machine.deadline().map(|deadline| {
            let left = deadline.since(self.clock.now());
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().into() }
        });
        // A signal that interrupts the wait is in the pipe.
        let _ = poll(&mut fds, timeout.as_ref());
    }

    fn take_signals(&mut self) {
        let signals: Vec<_> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                SIGCHLD => {
                    self.helpers.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))))
                }
                SIGUSR1 => self.handle(Event::TimeLimitNear),
                _ => self.handle(Event::Terminate),
            }
        }
    }

    fn take_output(&mut self, index: usize) {
        let Self { machine, clock, steps, srun_log, .. } = self;
        let Step { process: slot, start, logged, .. } = &mut steps[index];
        let Some(process) = slot else { return };
        let name = machine.result().steps[index].name.clone();
        let mut actions = Vec::new();
        let mut lines = Vec::new();
        process.read_lines(|line| lines.push(line.to_owned()));
        let exit = process.try_wait();
        if exit.is_some() {
            process.read_lines(|line| lines.push(line.to_owned()));
        }
        if (exit.is_some() || !lines.is_empty()) && start.files.may_end() {
            actions.extend(machine.on(Event::MayEnd(index), clock.now()));
        }
        for line in lines {
            log_line(srun_log, logged, &name, &line);
            actions.extend(machine.on(Event::Output(index, &line), clock.now()));
        }
        if let Some(exit) = exit {
            *slot = None;
            if let Err(error) = start.files.end() {
                log(&format!("{name}: the mark that its log is complete: {error}"));
            }
            actions.extend(machine.on(Event::Ended(index, exit), clock.now()));
        }
        self.carry_out(actions);
    }

    fn handle(&mut self, event: Event<'_>) {
        let actions = self.machine.on(event, self.clock.now());
        self.carry_out(actions);
    }

    // ---- actions

    fn carry_out(&mut self, actions: Vec<Action>) {
        let mut actions = VecDeque::from(actions);
        // The steps that start together wait until all of them exist.
        let mut gate = None;
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action, &mut gate) {
                actions.extend(self.machine.on(answer, self.clock.now()));
            }
        }
    }

    /// Carries out one action; returns its answer.
    fn act(&mut self, action: Action, gate: &mut Option<Gate>) -> Option<Event<'static>> {
        let steps = &self.machine.result().steps;
        match action {
            Action::Start(index) => {
                return Some(match self.start(index, gate) {
                    Ok(()) => Event::Started(index),
                    Err(error) => Event::StartFailed(index, error.to_string()),
                });
            }
            Action::SignalSrun(index, signal) => {
                if let Some(process) = &self.steps[index].process {
                    process.signal(signal);
                }
            }
            Action::Scancel(signal, ids) => match process::scancel(signal, &ids) {
                Ok(child) => self.helpers.push(child),
                Err(error) => log(&format!("scancel cannot be run: {error}")),
            },
            Action::Ask(index, timeout) => {
                let target = &self.steps[index].start.watch.target;
                if let (Some(probe), Some(target)) = (&self.probe, target) {
                    probe.ask(index, target, timeout);
                }
            }
            Action::Announce => {
                let write = |file: &mut File| file.write_all(self.ready_file.as_bytes());
                if let Err(error) = self.directory.write(ready_file::FILE, write) {
                    log(&format!("{} cannot be written: {error}", ready_file::FILE));
                }
            }
            Action::ReadTail(index) => {
                let log = self.directory.file(&steps[index].log);
                let lines = tail::lines(&log, TAIL).unwrap_or_default();
                let reason = tail::text(&log, CAUSE_WINDOW).ok();
                let reason = reason.and_then(|text| cause::of_failure(&text));
                return Some(Event::Tail(index, lines, reason));
            }
            Action::ReadSilence => {
                let written = |step: &StepResult| {
                    let log = self.directory.file(&step.log);
                    Some(Moment::of(log.metadata().ok()?.modified().ok()?))
                };
                let started = steps.iter().map(|step| step.started.and_then(|_| written(step)));
                return Some(Event::Silence(started.collect()));
            }
            Action::ReadFigures(index) => {
                let warms_up = self.steps[index].start.warms_up;
                let figures = match &mut self.figures {
                    Ok((search, before)) => {
                        let figures = search.read(before);
                        if warms_up {
                            // For the clients behind it, its files were there before.
                            match search.stamps() {
                                Ok(stamps) => *before = stamps,
                                Err(error) => self.figures = Err(error),
                            }
                        }
                        figures
                    }
                    Err(error) => {
                        log(&format!("the benchmark's figures are not read: {error}"));
                        Figures::default()
                    }
                };
                return Some(Event::Figures(figures, warms_up));
            }
            Action::ReadRanks(index) => {
                let log = self.directory.file(&steps[index].log);
                let limit = if steps[index].is_running() { ranks::ROUND } else { ranks::REST };
                let found = self.steps[index].ranks.read(&log, limit).unwrap_or_default();
                return Some(Event::Ranks(index, found));
            }
            Action::ReadCause => {
                let started = steps.iter().filter(|step| step.started.is_some());
                let logs = started.map(|step| self.directory.file(&step.log));
                // The job's own output has it where no step runs.
                let mut texts = logs
                    .chain([PathBuf::from("/proc/self/fd/2")])
                    .filter_map(|log| tail::text(&log, CAUSE_WINDOW).ok());
                return Some(Event::Cause(texts.find_map(|text| cause::in_log(&text))));
            }
            Action::Save => {
                // A write that fails is repeated, and the last one reports the error.
                let _ = files::save(&self.directory, self.machine.result());
            }
            Action::WriteFiles => {
                for helper in &mut self.helpers {
                    let _ = helper.kill();
                    let _ = helper.wait();
                }
                // Nobody serves any more.
                let _ = fs::remove_file(self.directory.file(ready_file::FILE));
                let mut result = self.machine.result().clone();
                let error = files::write(&self.directory, &mut result).err();
                return Some(Event::Written(result.junit, error.map(|error| error.to_string())));
            }
            Action::Log(line) => log(&line),
        }
        None
    }

    fn start(&mut self, index: usize, gate: &mut Option<Gate>) -> io::Result<()> {
        let gate = match gate {
            Some(gate) => gate,
            None => gate.insert(Gate::new()?),
        };
        let StepResult { log: name, nodes, .. } = &self.machine.result().steps[index];
        let log = self.directory.log(name)?;
        let step = &mut self.steps[index];
        let Start { ports, addresses, .. } = &step.start;
        if let Some(taken) = ports::taken(nodes, addresses, ports, &self.variables) {
            return Err(io::Error::other(taken));
        }
        step.start.files.start(&self.directory, &self.directory.file(name))?;
        let process = Process::start(&step.start.command, &self.variables, log, gate, &self.limit)?;
        step.process = Some(process);
        Ok(())
    }
}

/// Adds a line of a step's `srun` to srun.log, and an error to the job's log.
fn log_line(file: &mut File, logged: &mut usize, name: &str, line: &str) {
    if *logged >= MAX_SRUN_LOG {
        return;
    }
    let mut text = format!("{name}: {line}\n");
    *logged += text.len();
    if *logged >= MAX_SRUN_LOG {
        text = format!("{name}: (srun wrote more than 1 MiB; the rest is dropped)\n");
    } else if line.starts_with("srun: error: ") {
        log(text.trim_end());
    }
    let _ = file.write_all(text.as_bytes());
}
