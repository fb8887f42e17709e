// SPDX-License-Identifier: Apache-2.0
//! Ties a child to the launch: it gets SIGTERM when the launch is gone, even by SIGKILL, so that no
//! step outlives it. `srun` takes SIGTERM as an order to kill its step.
//!
//! And it holds children back until all are there: the first steps would otherwise take the
//! processors that the starts of the others need.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::stdio::dup2_stdin;

/// The hidden subcommand that does it.
pub const SUBCOMMAND: &str = "tied";

/// Holds children back; they go on when it is dropped.
#[derive(Debug)]
pub struct Gate {
    read: PipeReader,
    _write: PipeWriter,
}

impl Gate {
    /// A closed gate.
    ///
    /// # Errors
    /// The system refuses a pipe.
    pub fn new() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        Ok(Self { read, _write: write })
    }

    /// What a child waits at.
    ///
    /// # Errors
    /// The system refuses one more descriptor.
    pub fn for_child(&self) -> io::Result<Stdio> {
        Ok(self.read.try_clone()?.into())
    }
}

/// A command that runs `program` tied to this process.
#[must_use]
pub fn command(program: &str) -> Command {
    // The running file itself, whatever has become of its path.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("slurm-disagg").arg(SUBCOMMAND).arg(std::process::id().to_string()).arg(program);
    command.process_group(0);
    command
}

/// Waits until standard input ends, and becomes a command that ends with the process `parent`;
/// returns only when it cannot.
pub fn become_tied(parent: u32, argv: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // It may have ended before the line above.
    let still_there = getppid().map(Pid::as_raw_pid).and_then(|pid| u32::try_from(pid).ok());
    if still_there != Some(parent) {
        return io::Error::other("the launch has ended already");
    }
    let passed = io::copy(&mut io::stdin(), &mut io::sink())
        .and_then(|_| Ok(dup2_stdin(File::open("/dev/null")?)?));
    if let Err(error) = passed {
        return error;
    }
    match argv.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::other("there is no command to run"),
    }
}
