// SPDX-License-Identifier: Apache-2.0
//! One step while it runs: its srun, what that srun says, and what is known of the step so far.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use super::command::StepCommand;
use super::directory::RunDirectory;
use super::environment::Variables;
use super::messages::{self, Message};
use super::tie::{self, Gate};
use crate::plan::step::SIZES_OF_THE_JOB;
use crate::run::result::{Exit, Moment, Phase, RankEnd, StepResult};

/// The longest line of srun's that is looked at, in bytes; a longer one is cut.
const MAX_LINE: usize = 4 << 10;

/// Ends of ranks that are heard of within this time came in no order.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A step of the run.
#[derive(Debug)]
pub struct Step {
    /// The phase in which it is started.
    pub phase: Phase,
    /// What is known of it.
    pub result: StepResult,
    /// How it is started.
    pub command: StepCommand,
    /// How far its end is brought about, once it is.
    pub stop: Option<Stop>,
    /// Its end was brought about by somebody else: the controller, or a signal to srun.
    pub ended_from_outside: bool,
    /// The last error that srun reported, else the last that it said at all.
    pub last_words: Option<String>,
    /// Why Slurm could not start its tasks, in srun's words.
    pub launch_failure: Option<String>,
    /// Whether it has been started a second time, which it is when its launch has failed.
    pub is_second: bool,
    process: Option<Process>,
    tasks_started: u32,
    /// When the first failure of a rank was heard of.
    failed_at: Option<Instant>,
    /// The status that goes with the next words on a rank.
    status: Option<Exit>,
}

/// How far the end of a step is brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// What was done last.
    pub stage: Stage,
    /// When the next stage is due, when there is one.
    pub next: Option<Instant>,
}

/// The stages of a step's end, each harder than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its tasks were sent SIGTERM.
    Asked,
    /// srun was told to end, which it takes as an order to kill them.
    SrunTold,
    /// Slurm was told to kill them.
    Killed,
    /// srun itself was killed.
    Abandoned,
}

#[derive(Debug)]
struct Process {
    child: Child,
    /// Nothing once srun has closed it.
    stderr: Option<ChildStderr>,
    /// A line that is not whole yet.
    line: Vec<u8>,
}

impl Step {
    /// A step that has not been started.
    #[must_use]
    pub fn new(phase: Phase, result: StepResult, command: StepCommand) -> Self {
        Self {
            phase,
            result,
            command,
            stop: None,
            ended_from_outside: false,
            last_words: None,
            launch_failure: None,
            is_second: false,
            process: None,
            tasks_started: 0,
            failed_at: None,
            status: None,
        }
    }

    /// Starts its srun, which goes on when the gate is dropped. The log's descriptor is srun's
    /// standard output: what the tasks write never goes through this process.
    ///
    /// # Errors
    /// The log cannot be opened, or no process can be made.
    pub fn start(
        &mut self,
        directory: &RunDirectory,
        variables: &Variables,
        gate: &Gate,
    ) -> io::Result<()> {
        let log = directory.log(&self.result.log)?;
        let mut command = tie::command("srun");
        command.args(&self.command.arguments).envs(variables);
        for size in SIZES_OF_THE_JOB {
            command.env_remove(size);
        }
        let own = self.command.environment.iter().map(|(name, value)| (name, value));
        command.envs(own).stdin(gate.for_child()?).stdout(log).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().ok_or_else(|| io::Error::other("no pipe from srun"))?;
        fcntl_setfl(&stderr, fcntl_getfl(&stderr)? | OFlags::NONBLOCK)?;
        self.process = Some(Process { child, stderr: Some(stderr), line: Vec::new() });
        self.result.started = Some(Moment::now());
        Ok(())
    }

    /// Makes it a step that is to be started, as if it had not been.
    pub fn start_again(&mut self) {
        let old = &self.result;
        let result = StepResult {
            step_id: None,
            started: None,
            running: None,
            ended: None,
            exit: None,
            failure: None,
            ..old.clone()
        };
        *self = Self { is_second: true, ..Self::new(self.phase, result, self.command.clone()) };
    }

    /// Whether its srun runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Whether it is still to be started.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.result.started.is_none() && self.result.ended.is_none()
    }

    /// Where srun's words arrive.
    #[must_use]
    pub fn words_fd(&self) -> Option<BorrowedFd<'_>> {
        self.process.as_ref()?.stderr.as_ref().map(AsFd::as_fd)
    }

    /// Reads what srun said since; each line goes to `log` as well. Returns whether anything was
    /// said that matters.
    pub fn read_words(&mut self, mut log: impl FnMut(&str)) -> bool {
        let mut changed = false;
        for line in self.process.as_mut().map(Process::lines).unwrap_or_default() {
            log(&line);
            if self.result.step_id.is_none() {
                self.hear_why(&line);
            }
            if let Some(message) = messages::parse(&line) {
                self.take(message);
                changed = true;
            }
        }
        changed
    }

    /// Why the step may not come to be: the last error, else the last words.
    fn hear_why(&mut self, line: &str) {
        // srun's usage comes after what is wrong with it.
        if line.starts_with("Try ") {
            return;
        }
        let is_error = |line: &str| line.contains("error: ");
        if is_error(line) || !self.last_words.as_deref().is_some_and(is_error) {
            self.last_words = Some(line.to_owned());
        }
    }

    fn take(&mut self, message: Message) {
        let result = &mut self.result;
        match message {
            Message::LaunchFailed(words) => {
                self.launch_failure.get_or_insert(words);
                result.running = None;
            }
            // srun kills the ranks on other nodes then, as on any bad exit.
            _ if self.launch_failure.is_some() => {}
            Message::Launching(id) => result.step_id = Some(id.to_string()),
            Message::TasksStarted(tasks) => {
                self.tasks_started = self.tasks_started.saturating_add(tasks);
                if self.tasks_started >= result.tasks && result.running.is_none() {
                    result.running = Some(Moment::now());
                }
            }
            Message::TaskStatus(exit) => self.status = Some(exit),
            Message::RanksFailed(mut end) => {
                end.exit = self.status.take().or(end.exit);
                let is_it = match (&result.failure, self.failed_at) {
                    (Some(first), Some(at)) => tells_more(&end, first, at.elapsed()),
                    _ => self.stop.is_none(),
                };
                if is_it {
                    result.failure = Some(end);
                    self.failed_at = self.failed_at.or_else(|| Some(Instant::now()));
                }
            }
            Message::EndedFromOutside => self.ended_from_outside |= self.stop.is_none(),
            Message::Error => {}
        }
    }

    /// Whether its srun has ended since; then the step has, and its words are whole.
    pub fn reap(&mut self, log: impl FnMut(&str)) -> bool {
        let Some(process) = &mut self.process else { return false };
        let Ok(Some(status)) = process.child.try_wait() else { return false };
        self.read_words(log);
        self.process = None;
        self.result.ended = Some(Moment::now());
        self.result.exit = exit(status);
        true
    }

    /// Sends a signal to srun itself.
    pub fn signal_srun(&self, signal: Signal) {
        // The child has not been waited for: its id is still its own.
        let id = self.process.as_ref().and_then(|process| i32::try_from(process.child.id()).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Process {
    /// The lines that have arrived whole.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut chunk = [0; 4096];
        while let Some(stderr) = &mut self.stderr {
            match stderr.read(&mut chunk) {
                Ok(0) => self.stderr = None,
                Ok(length) => {
                    for byte in &chunk[..length] {
                        match byte {
                            b'\n' => {
                                lines.push(String::from_utf8_lossy(&self.line).into_owned());
                                self.line.clear();
                            }
                            _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                            _ => {}
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now, or nothing that could be had.
                Err(_) => break,
            }
        }
        lines
    }
}

/// Whether a rank's end is more likely what the others' came from than the one that was heard of
/// first. Slurm tells of ranks that end each other in any order, those of one node and one status
/// at a time.
fn tells_more(end: &RankEnd, first: &RankEnd, later: Duration) -> bool {
    // SIGTERM and SIGKILL are what Slurm ends the other ranks with.
    let crashed = |end: &RankEnd| matches!(end.exit, Some(Exit::Signal(signal)) if ![15, 9].contains(&signal));
    if end.exit == first.exit {
        end.rank < first.rank
    } else {
        later < AT_ONCE && crashed(end) && !crashed(first)
    }
}

fn exit(status: ExitStatus) -> Option<Exit> {
    status.code().map(Exit::Status).or_else(|| status.signal().map(Exit::Signal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(rank: u32, exit: Exit) -> RankEnd {
        RankEnd { rank, node: "n".into(), exit: Some(exit), words: String::new() }
    }

    #[test]
    fn a_crash_is_the_cause_of_failures_at_the_same_moment() {
        let (failed, crashed) = (end(4, Exit::Status(1)), end(5, Exit::Signal(11)));
        assert!(tells_more(&crashed, &failed, Duration::ZERO));
        assert!(!tells_more(&failed, &crashed, Duration::ZERO));
        assert!(
            !tells_more(&crashed, &failed, Duration::from_secs(1)),
            "it crashed on its way out"
        );
        assert!(!tells_more(&end(5, Exit::Signal(9)), &failed, Duration::ZERO), "Slurm killed it");
    }

    #[test]
    fn of_ranks_that_end_alike_the_lowest_is_named() {
        let (four, zero) = (end(4, Exit::Status(42)), end(0, Exit::Status(42)));
        assert!(tells_more(&zero, &four, Duration::from_secs(1)));
        assert!(!tells_more(&four, &zero, Duration::ZERO));
    }
}
