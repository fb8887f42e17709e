// SPDX-License-Identifier: Apache-2.0
//! The SPANK plugin: native submit options and self-sizing steps.
//!
//! Slurm loads this one file into every program that starts jobs or tasks. Each entry only finds
//! out where it runs; what happens there is one module each: [`allocator`] (sbatch, salloc),
//! [`local`] (srun), [`remote`] (slurmstepd). Only entries that do something are exported: Slurm
//! does extra work for every one that it finds.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod allocator;
pub mod args;
pub mod cmdline;
pub mod environment;
pub mod ffi;
#[cfg(test)]
mod fixture;
pub mod handover;
pub mod hostfile;
pub mod local;
pub mod outside;
pub mod planning;
pub mod remote;
pub mod roles;
pub mod running;
pub mod step;
mod twice;

use std::ffi::{c_char, c_int};

use disagg::diagnostic::Printable;
use disagg_host::symbols::{FAILURE, SUCCESS};
use disagg_host::version::{Release, Running};
use disagg_host::{guard, log};

use args::Settings;
use environment::Mutable;
use ffi::{Context, RawHandle, Spank};
use twice::Calls;

disagg_host::declare_plugin! {
    name: "disagg",
    kind: "spank",
    built_in: Release { major: 20, minor: 11 }.version(0),
    adopt: Running::for_spank,
}

/// First of all, before any option is read.
///
/// # Safety
/// Slurm's contract: a live handle, and `argc` C strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init(
    handle: RawHandle,
    argc: c_int,
    argv: *mut *mut c_char,
) -> c_int {
    guard::entry("slurm_spank_init", when_it_panics(), || {
        // SAFETY: the handle is the callback's own.
        let spank = unsafe { Spank::new(handle) };
        // SAFETY: as promised to this function.
        let settings = || unsafe { settings(argc, argv) };
        let context = ffi::context();
        let is_client = matches!(context, Context::Local | Context::Allocator);
        let environment = is_client.then(mutable_environment);
        if !twice::is_first_line(environment.as_ref()) {
            return SUCCESS;
        }
        match context {
            Context::Local => {
                args::register(spank);
                client(local::init(&settings, &mutable_environment()));
            }
            Context::Allocator | Context::Remote => args::register(spank),
            // At its start slurmd tells its log what is wrong with the arguments; a client does
            // only when it uses them.
            Context::Daemon => drop(settings()),
            Context::Other => {}
        }
        SUCCESS
    })
}

/// When all options have been read.
///
/// # Safety
/// As [`slurm_spank_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_init_post_opt(
    handle: RawHandle,
    argc: c_int,
    argv: *mut *mut c_char,
) -> c_int {
    static CALLS: Calls = Calls::new();
    guard::entry("slurm_spank_init_post_opt", when_it_panics(), || {
        if !CALLS.is_first_line() {
            return SUCCESS;
        }
        // SAFETY: the handle is the callback's own.
        let spank = unsafe { Spank::new(handle) };
        match ffi::context() {
            Context::Allocator => {
                twice::remove_mark(&mutable_environment());
                // SAFETY: as promised to this function.
                let settings = || unsafe { settings(argc, argv) };
                client(allocator::submit(spank, &settings, &mutable_environment()));
            }
            Context::Local => {
                twice::remove_mark(&mutable_environment());
                client(local::options_are_read(spank, &mutable_environment()));
            }
            Context::Remote | Context::Daemon | Context::Other => {}
        }
        SUCCESS
    })
}

/// In srun, when the step exists and has not started.
///
/// # Safety
/// As [`slurm_spank_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_local_user_init(
    handle: RawHandle,
    _argc: c_int,
    _argv: *mut *mut c_char,
) -> c_int {
    static CALLS: Calls = Calls::new();
    guard::entry("slurm_spank_local_user_init", FAILURE, || {
        if !CALLS.is_first_line() {
            return SUCCESS;
        }
        // SAFETY: the handle is the callback's own.
        let spank = unsafe { Spank::new(handle) };
        reported(local::step_exists(spank))
    })
}

/// In slurmstepd before it starts the tasks, as the user.
///
/// # Safety
/// As [`slurm_spank_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_user_init(
    handle: RawHandle,
    _argc: c_int,
    _argv: *mut *mut c_char,
) -> c_int {
    static CALLS: Calls = Calls::new();
    guard::entry("slurm_spank_user_init", SUCCESS, || {
        if CALLS.is_first_line() {
            // SAFETY: the handle is the callback's own.
            remote::before_the_tasks(unsafe { Spank::new(handle) });
        }
        SUCCESS
    })
}

/// At the end of srun, after its step.
///
/// # Safety
/// As [`slurm_spank_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_exit(
    _handle: RawHandle,
    _argc: c_int,
    _argv: *mut *mut c_char,
) -> c_int {
    guard::entry("slurm_spank_exit", SUCCESS, || {
        if ffi::context() == Context::Local {
            running::release();
        }
        SUCCESS
    })
}

/// In the child of slurmstepd that becomes the task, as the user.
///
/// # Safety
/// As [`slurm_spank_init`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn slurm_spank_task_init(
    handle: RawHandle,
    _argc: c_int,
    _argv: *mut *mut c_char,
) -> c_int {
    static CALLS: Calls = Calls::new();
    let code = guard::entry("slurm_spank_task_init", FAILURE, || {
        if !CALLS.is_first_line() {
            return SUCCESS;
        }
        // SAFETY: the handle is the callback's own.
        let spank = unsafe { Spank::new(handle) };
        reported(remote::task(spank))
    });
    if code != SUCCESS {
        // SAFETY: _exit only ends the process, which is the task's own. An `optional` plugin's
        // failure would only be logged, and the task would run with half its variables.
        unsafe { libc::_exit(1) }
    }
    SUCCESS
}

/// An error of slurmstepd's side would drain the node and lose the job when the plugin is
/// `required`, so only a client is told of one here.
fn when_it_panics() -> c_int {
    if ffi::context() == Context::Remote { SUCCESS } else { FAILURE }
}

/// A message for the user.
#[derive(Debug)]
pub enum Failure {
    /// A sentence that may have names of the user's, or of whoever made the user's files, in it.
    /// It goes to slurmd's log too, so it is kept on one line.
    Sentence(String),
    /// The core's diagnostics: several lines, in which foreign text is escaped already.
    Diagnostics(String),
}

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self::Sentence(sentence)
    }
}

impl Failure {
    fn text(&self) -> String {
        match self {
            Self::Sentence(sentence) => Printable(sentence).to_string(),
            Self::Diagnostics(lines) => lines.clone(),
        }
    }
}

fn reported(outcome: Result<(), impl Into<Failure>>) -> c_int {
    match outcome {
        Ok(()) => SUCCESS,
        Err(failure) => {
            log::error(&failure.into().text());
            FAILURE
        }
    }
}

/// A failure ends the client here and now. Returning it would be enough for a `required` plugin; an
/// `optional` one's failure is printed and the job submitted all the same.
fn client(outcome: Result<(), impl Into<Failure>>) {
    if reported(outcome) != SUCCESS {
        exit(1);
    }
}

/// The client's environment in `slurm_spank_init` and `slurm_spank_init_post_opt`. Later srun has
/// other threads.
fn mutable_environment() -> Mutable {
    // SAFETY: sbatch, salloc and srun have no other thread in these two callbacks.
    unsafe { Mutable::new() }
}

/// Ends the client as the client itself does: nothing has been submitted or allocated yet.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: sbatch, salloc and srun have no other thread when they run these callbacks.
    unsafe { libc::exit(code) }
}

/// The arguments of the plugin's line in plugstack.conf. What is wrong with them goes to the log:
/// a typing error of the admin's must not stop every job of the site.
///
/// # Safety
/// `argv` must be NULL or have `argc` C strings.
unsafe fn settings(argc: c_int, argv: *mut *mut c_char) -> Settings {
    // SAFETY: as promised to this function.
    let arguments: Vec<String> = unsafe { ffi::strings(argv, usize::try_from(argc).unwrap_or(0)) }
        .iter()
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    let (settings, wrong) = Settings::read(&arguments);
    for what in wrong {
        log::error(&format!("disagg: plugstack.conf: {what}"));
    }
    settings
}
