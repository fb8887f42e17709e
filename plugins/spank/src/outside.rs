// SPDX-License-Identifier: Apache-2.0
//! slurmstepd: a task that is not in its container yet, since the container plugin comes behind this one.
//!
//! What is set now would lose to the image's variables, and nothing shows yet that the task ends up in a
//! container. Slurm has no later callback. So the task's program becomes a script, which asks a process
//! outside of the container for its changes: that one reads the environment that the task has been executed
//! with, checks that it is in a container, and computes what [`remote`] does in the other order. Files of the
//! workspace it writes outside: the workspace must have the same path there.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use disagg::output::quote;
use disagg::plan::template;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use crate::ffi::Spank;
use crate::remote::{self, Before, Change, Task, Variables};

/// How long a process that has been executed may take to show its arguments.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last line of what a task is told.
const TOLD: &str = "disagg_told=1\n";

/// Has the task make its changes by itself, in its container.
///
/// # Errors
/// The system's.
pub fn hand_over(spank: Spank, task: &Task, before: &Before) -> io::Result<()> {
    // Of these the task's process has the second and the third, and the one outside the others.
    let (is_executed, until_executed) = pipe_with(PipeFlags::CLOEXEC)?;
    let (changes, answer) = pipe_with(PipeFlags::CLOEXEC)?;
    let changes = for_the_shell(changes)?;
    let memory = match memfd_create("disagg", MemfdFlags::EXEC | MemfdFlags::CLOEXEC) {
        // A kernel before 6.3, where every such file may be executed.
        Err(Errno::INVAL) => memfd_create("disagg", MemfdFlags::CLOEXEC)?,
        memory => memory?,
    };
    let mut memory = File::from(memory);
    // What is open for writing cannot be executed everywhere.
    let script = File::open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;
    let script = for_the_shell(script.into())?;
    let path = format!("/proc/self/fd/{}", script.as_raw_fd());
    let program = spank.replace_program(&CString::new(path.clone())?).map_err(io::Error::other)?;
    memory.write_all(script_of(&program, &changes).as_bytes())?;
    drop(memory);

    let rank = process::id();
    // SAFETY: the process that becomes a task has one thread.
    match unsafe { libc::fork() } {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            // Not the task's child: some programs wait for all of theirs.
            // SAFETY: as above.
            if unsafe { libc::fork() } == 0 {
                drop((until_executed, changes, script));
                let answers = || outside(rank, &path, is_executed, answer, task, before);
                let _ = panic::catch_unwind(AssertUnwindSafe(answers));
            }
            // SAFETY: it ends the process without what slurmstepd does at its end.
            unsafe { libc::_exit(0) }
        }
        child => drop(waitpid(Pid::from_raw(child), WaitOptions::empty())),
    }
    for descriptor in [until_executed, changes, script] {
        let _ = descriptor.into_raw_fd();
    }
    Ok(())
}

/// In place of a descriptor one that the task keeps open: some shells cannot close one above 9.
fn for_the_shell(file: OwnedFd) -> io::Result<OwnedFd> {
    let kept = fcntl_dupfd_cloexec(&file, 3)?;
    fcntl_setfd(&kept, FdFlags::empty())?;
    Ok(kept)
}

/// The task's program; what it is given are the arguments of the other one.
fn script_of(program: &str, changes: &OwnedFd) -> String {
    format!(
        "#!/bin/sh\nunset disagg_told\n. /proc/self/fd/{}\n\
         [ -n \"${{disagg_told-}}\" ] || {{ echo 'disagg: the task has not been told its environment' >&2; exit 1; }}\n\
         exec {} \"$@\"\n",
        changes.as_raw_fd(),
        quote::word(program)
    )
}

/// The process outside.
fn outside(
    rank: u32,
    script: &str,
    is_executed: OwnedFd,
    answer: OwnedFd,
    task: &Task,
    before: &Before,
) {
    // The other end closes when the task's process is executed, or ends.
    let _ = File::from(is_executed).read(&mut [0]);
    let Some((arguments, environment)) = executed(rank) else { return };
    if !arguments.contains(script) {
        let rank = i32::try_from(rank).ok().and_then(Pid::from_raw);
        let _ = rank.map(|rank| kill_process(rank, Signal::KILL));
        let why = "Slurm has executed another program than spank_disagg.so's";
        let _ = writeln!(io::stderr(), "disagg: {} is ended: {why}", task.role);
        return;
    }
    let entries = environment.split('\0').filter_map(|entry| entry.split_once('='));
    let entries = entries.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables: Variables = entries.collect();
    let root = remote::root(rank);
    let changes = match root.is_none() || root == before.root {
        true => Err(format!(
            "disagg: {} would not run in its container on {}: plugstack.conf there lacks the container plugin \
             (spank_pyxis.so)",
            task.role,
            variables.get("SLURMD_NODENAME").map_or("", String::as_str)
        )),
        false => remote::changes(task, before, &variables, rank),
    };
    let text = match &changes {
        Ok(changes) => {
            remote::watch(rank, changes, &variables);
            // It may be cut: the last line says that all is there.
            changes.iter().filter_map(in_shell).chain([TOLD.to_owned()]).collect()
        }
        Err(message) => format!("printf '%s\\n' {} >&2\nexit 1\n", quote::word(message)),
    };
    let _ = File::from(answer).write_all(text.as_bytes());
}

/// A change as a line of shell; None for a name that a shell cannot set. dash drops such variables of the
/// environment, bash hands them on.
fn in_shell((name, value): &Change) -> Option<String> {
    template::is_name(name).then(|| match value {
        Some(value) => format!("export {name}={}\n", quote::word(value)),
        None => format!("unset {name}\n"),
    })
}

/// The arguments and the environment of a process that is being executed; None where it ends instead.
fn executed(process: u32) -> Option<(String, String)> {
    let read = |file| fs::read(format!("/proc/{process}/{file}")).ok();
    let deadline = Instant::now() + PATIENCE;
    // The kernel shows both a moment after it has closed descriptors.
    while Instant::now() < deadline {
        let (arguments, environment) = (read("cmdline")?, read("environ")?);
        if !arguments.is_empty() && !environment.is_empty() {
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            return Some((text(arguments), text(environment)));
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}
