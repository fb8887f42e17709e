// SPDX-License-Identifier: Apache-2.0
//! The `srun` process of a step, and the file descriptors that all of them take.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

use super::command::StepCommand;
use super::environment::{Variables, for_srun};
use super::pdeathsig::{self, Gate};
use crate::run::result::{Exit, StopSignal};

/// The most bytes of a line that are kept.
const MAX_LINE: usize = 4 << 10;
/// The most bytes of one `srun` that are read at a time: more than a pipe holds.
const MAX_ROUND: usize = 128 << 10;
/// The file descriptors that the launch needs beside one for each step.
const OWN_DESCRIPTORS: u64 = 32;

/// An `srun` that has not been waited for.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// None once `srun` has closed it.
    stderr: Option<ChildStderr>,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
}

impl Process {
    /// Starts an `srun` that waits until the gate is dropped. Its standard output is the step's log:
    /// the tasks' output never passes through this process.
    ///
    /// # Errors
    /// The system's.
    pub fn start(
        command: &StepCommand,
        variables: &Variables,
        log: File,
        gate: &Gate,
        limit: &Rlimit,
    ) -> io::Result<Self> {
        let mut srun = pdeathsig::command("srun");
        srun.args(&command.arguments);
        for_srun(&mut srun, variables);
        let own = command.environment.iter().map(|(name, value)| (name, value));
        srun.envs(own).stdin(gate.stdin()?).stdout(log).stderr(Stdio::piped());
        let mut child = srun.spawn()?;
        let stderr = child.stderr.take();
        let mut process = Self { child, stderr, line: Vec::new() };
        match process.prepare(limit) {
            Ok(()) => Ok(process),
            Err(error) => {
                // It still waits at the gate, and must not pass it without a supervisor.
                let _ = process.child.kill();
                let _ = process.child.wait();
                Err(error)
            }
        }
    }

    fn prepare(&self, limit: &Rlimit) -> io::Result<()> {
        if let Some(stderr) = &self.stderr {
            fcntl_setfl(stderr, fcntl_getfl(stderr)? | OFlags::NONBLOCK)?;
        }
        // srun passes its limits on to the tasks: they get the job's, not the launch's.
        prlimit(self.pid(), Resource::Nofile, *limit)?;
        Ok(())
    }

    /// The pipe in which its messages arrive.
    #[must_use]
    pub fn stderr(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(AsFd::as_fd)
    }

    /// Hands on the lines that have arrived; what exceeds one round stays in the pipe.
    pub fn read_lines(&mut self, mut on_line: impl FnMut(&str)) {
        let mut chunk = [0; 4096];
        let mut read = 0;
        while let Some(stderr) = &mut self.stderr
            && read < MAX_ROUND
        {
            match stderr.read(&mut chunk) {
                Ok(0) => self.stderr = None,
                Ok(length) => {
                    read += length;
                    for byte in &chunk[..length] {
                        match byte {
                            b'\n' => {
                                on_line(&String::from_utf8_lossy(&self.line));
                                self.line.clear();
                            }
                            _ if self.line.len() < MAX_LINE => self.line.push(*byte),
                            _ => {}
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now, or nothing that can be read.
                Err(_) => break,
            }
        }
    }

    /// How it ended, once it has.
    pub fn try_wait(&mut self) -> Option<Option<Exit>> {
        self.child.try_wait().ok().flatten().map(exit)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: StopSignal) {
        let signal = match signal {
            StopSignal::Term => Signal::TERM,
            StopSignal::Kill => Signal::KILL,
        };
        // It has not been waited for, so its id is still its own.
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal);
        }
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

fn exit(status: ExitStatus) -> Option<Exit> {
    status.code().map(Exit::Status).or_else(|| status.signal().map(Exit::Signal))
}

/// Starts a `scancel` that sends a signal to steps. Its status means nothing: up to 22.05 at least
/// it is an error for steps that have not all of the job's nodes, which get the signal all the same.
///
/// # Errors
/// The system's.
pub fn scancel(signal: StopSignal, steps: &[String]) -> io::Result<Child> {
    let signal = match signal {
        StopSignal::Term => "--signal=TERM",
        StopSignal::Kill => "--signal=KILL",
    };
    let mut command = Command::new("scancel");
    command.args(["--quiet", signal]).args(steps).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The limit of open files is too low for a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{steps} steps need {needed} open files, but the hard limit is {limit}: raise it (`ulimit -Hn`, \
     or LimitNOFILE of slurmd) or use fewer servers"
)]
pub struct TooFewDescriptors {
    steps: u64,
    needed: u64,
    limit: u64,
}

/// Raises the limit of open files to the hard limit; returns the limit as it was.
///
/// # Errors
/// [`TooFewDescriptors`]: the hard limit is too low for that many steps.
pub fn raise_descriptor_limit(steps: usize) -> Result<Rlimit, TooFewDescriptors> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => before.maximum,
        Err(_) => before.current,
    };
    let steps = steps as u64;
    let needed = steps + OWN_DESCRIPTORS;
    match limit {
        Some(limit) if limit < needed => Err(TooFewDescriptors { steps, needed, limit }),
        _ => Ok(before),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> Process {
        let mut bash = Command::new("bash");
        let mut child = bash.args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take();
        let process = Process { child, stderr, line: Vec::new() };
        process.prepare(&getrlimit(Resource::Nofile)).unwrap();
        process
    }

    /// All lines, and the most that one round gave.
    fn read_all(process: &mut Process) -> (Vec<String>, usize) {
        let (mut lines, mut most) = (Vec::new(), 0);
        while process.stderr.is_some() {
            let before = lines.len();
            process.read_lines(|line| lines.push(line.to_owned()));
            most = most.max(lines[before..].iter().map(String::len).sum());
        }
        (lines, most)
    }

    #[test]
    fn a_flood_is_read_in_rounds_and_long_lines_are_cut() {
        let mut process =
            run("printf '%s\\n' {1..200000} >&2; head -c 99999 /dev/zero >&2; echo >&2");
        let (lines, most) = read_all(&mut process);
        assert_eq!((lines.len(), lines[199_999].as_str()), (200_001, "200000"));
        assert_eq!(lines[200_000].len(), MAX_LINE);
        assert!(most <= MAX_ROUND, "{most}");
        process.child.wait().unwrap();
    }

    #[test]
    fn the_end_of_a_process_is_a_status_or_a_signal() {
        for (script, expected) in [("exit 3", Exit::Status(3)), ("kill -9 $$", Exit::Signal(9))] {
            let mut process = run(script);
            let exit = loop {
                if let Some(exit) = process.try_wait() {
                    break exit;
                }
            };
            assert_eq!(exit, Some(expected));
        }
    }
}
