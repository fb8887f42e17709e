// SPDX-License-Identifier: Apache-2.0
//! Starts children that receive SIGTERM when the launch dies, even by SIGKILL (PR_SET_PDEATHSIG), so
//! that no step outlives it: `srun` kills its step on SIGTERM.
//!
//! A gate holds the children back until all of them exist: the first steps would otherwise take the
//! processors that the starts of the others need.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::stdio::dup2_stdin;

/// What the first argument is where this program sets the signal and becomes the child. People have
/// no use for it, so it is no subcommand.
const SUBCOMMAND: &str = "pdeathsig";

/// Holds children back until it is dropped.
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

    /// The standard input that a child waits on.
    ///
    /// # Errors
    /// The system refuses one more descriptor.
    pub fn stdin(&self) -> io::Result<Stdio> {
        Ok(self.read.try_clone()?.into())
    }
}

/// A command that runs `program` until this process dies.
#[must_use]
pub fn command(program: &str) -> Command {
    // The running file itself, whatever has become of its path.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("slurm-disagg").arg(SUBCOMMAND).arg(std::process::id().to_string()).arg(program);
    command.process_group(0);
    command
}

/// Becomes the child where the arguments of this process say so; returns only when they do not, or
/// with the reason why that fails.
///
/// # Errors
/// The launch has ended, the command cannot be started, arguments are missing.
pub fn become_child_if_asked() -> io::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_none_or(|first| first != SUBCOMMAND) {
        return Ok(());
    }
    let parent = arguments.next().and_then(|parent| parent.to_str()?.parse().ok());
    let argv: Vec<_> = arguments.collect();
    Err(match parent {
        Some(parent) => exec(parent, &argv),
        None => io::Error::other("no parent process given"),
    })
}

/// Asks for SIGTERM at the death of the process `parent`, waits for the end of standard input, and
/// becomes the command `argv`; returns only when that fails.
fn exec(parent: u32, argv: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // The parent may have died before the line above.
    let current = getppid().map(Pid::as_raw_pid).and_then(|pid| u32::try_from(pid).ok());
    if current != Some(parent) {
        return io::Error::other("the launch has already ended");
    }
    let released = io::copy(&mut io::stdin(), &mut io::sink())
        .and_then(|_| Ok(dup2_stdin(File::open("/dev/null")?)?));
    if let Err(error) = released {
        return error;
    }
    match argv.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::other("no command given"),
    }
}
