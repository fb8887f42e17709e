// SPDX-License-Identifier: Apache-2.0
//! The inside of a host process: it is the simulated program, with the plugin loaded into it.
//!
//! From the bottom up: `shim` puts Slurm's functions where the plugin finds them, `state` is what
//! the program knows, `watch` runs a function of a plugin, `options` keeps the options of plugins,
//! `calls` decides what each of Slurm's functions answers, `stack` loads plugins and calls them, and
//! one file per kind of program plays it: `client` (sbatch, salloc, srun, with `cmdline`), `stepd`,
//! `daemon` (slurmd and its helper). Each uses only those before it.

mod calls;
mod client;
mod cmdline;
mod daemon;
mod options;
mod shim;
mod stack;
mod state;
mod stepd;
mod watch;

use crate::{
    launch::{LIMIT_SIGNAL_OFFSET, TRACE_FD, TRACE_NAME},
    scenario::{Program, Scenario},
    trace::What,
};
use state::State;
use std::io::{self, Read};

/// Plays the scenario and doesn't return, if this process was started for one; returns at once
/// otherwise. A program that is its own [`crate::Host`] calls it first thing in `main`.
pub fn become_host_if_asked() {
    let expected = format!("/memfd:{}", TRACE_NAME.to_string_lossy());
    let asked = std::fs::read_link(format!("/proc/self/fd/{TRACE_FD}"))
        .is_ok_and(|link| link.to_string_lossy().starts_with(&expected));
    if asked {
        match start() {
            Ok(code) => finish(code),
            Err(error) => {
                eprintln!("slurm-sim-host: {error}");
                std::process::exit(2);
            }
        }
    }
}

fn start() -> io::Result<i32> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    let scenario: Scenario = serde_json::from_str(&text)?;
    let trace = take_over_descriptors()?;
    let program = scenario.program.clone();
    let (release, user) = (scenario.release, scenario.user.clone());
    state::install(State::new(scenario, trace));
    shim::install(release, &calls::OPS)?;
    if program.is_client() {
        client::watch_exit();
        if stepd::is_root() {
            stepd::become_user_for_good(&user)?;
        }
    }
    Ok(match program {
        Program::Sbatch => client::sbatch(),
        Program::Salloc { nodes, job_id } => client::salloc(&nodes, job_id),
        Program::Srun { in_job, allocation, step_id } => client::srun(in_job, &allocation, step_id),
        Program::Stepd { step, node } => stepd::run(&step, node),
        Program::Slurmd => daemon::slurmd(),
        Program::JobScript { job_id, epilog } => daemon::job_script(job_id, epilog),
    })
}

/// Moves the trace out of the plugin's way, gives it an empty standard input, and makes sure that
/// the time limit's signal arrives and that a crash ends the process as it ends Slurm's: Rust's
/// own handlers would let the first raise(3) of a crash signal pass. Returns the trace's
/// descriptor.
fn take_over_descriptors() -> io::Result<i32> {
    // SAFETY: plain descriptor calls on descriptors that the parent set up for this process.
    unsafe {
        let trace = libc::fcntl(TRACE_FD, libc::F_DUPFD_CLOEXEC, 200);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
        if trace < 0 || null < 0 || libc::dup2(null, 0) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(null);
        libc::close(TRACE_FD);
        libc::signal(libc::SIGSEGV, libc::SIG_DFL);
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGRTMIN() + LIMIT_SIGNAL_OFFSET);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        Ok(trace)
    }
}

fn finish(code: i32) -> ! {
    state::state().emit(What::Finished { code });
    // Not exit(): destructors of a plugin that Slurm wouldn't have unloaded may run there, and
    // after "Finished" nothing of the plugin may run unseen.
    // SAFETY: _exit only ends the process.
    unsafe { libc::_exit(code) }
}
