// SPDX-License-Identifier: Apache-2.0
//! Ties a child to the launch: it gets SIGTERM when the launch is gone, even by SIGKILL, so that no
//! step outlives it. `srun` takes SIGTERM as an order to kill its step.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The hidden subcommand that does it.
pub const SUBCOMMAND: &str = "tied";

/// A command that runs `program` tied to this process.
#[must_use]
pub fn command(program: &str) -> Command {
    // The running file itself, whatever has become of its path.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("slurm-disagg").arg(SUBCOMMAND).arg(std::process::id().to_string()).arg(program);
    command.process_group(0);
    command
}

/// Becomes a command that ends with the process `parent`; returns only when it cannot.
pub fn become_tied(parent: u32, argv: &[OsString]) -> io::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    // It may have ended before the line above.
    let still_there = getppid().map(Pid::as_raw_pid).and_then(|pid| u32::try_from(pid).ok());
    if still_there != Some(parent) {
        return io::Error::other("the launch has ended already");
    }
    match argv.split_first() {
        Some((program, arguments)) => Command::new(program).args(arguments).exec(),
        None => io::Error::other("there is no command to run"),
    }
}
