// SPDX-License-Identifier: Apache-2.0
//! What the simulated program knows at any moment. One per process, because the functions that a
//! plugin calls have no other way to it.

use super::shim::{HookFn, OptionFn};
use crate::{
    abi::{Context, Hook, SpankError},
    env::Env,
    scenario::Scenario,
    trace::{Event, Function, Level, Rule, Step, Violation, What},
};
use std::{
    collections::HashMap,
    ffi::{CString, c_char, c_int, c_void},
    os::fd::RawFd,
    sync::{Mutex, MutexGuard, OnceLock},
};

/// A loaded plugin.
pub(super) struct Plugin {
    pub name: String,
    pub path: String,
    pub required: bool,
    pub library: *mut c_void,
    pub hooks: [Option<HookFn>; Hook::NAMES.len()],
    pub init_failure_mode: Option<*const c_int>,
    pub args: Vec<String>,
    pub argv: *mut *mut c_char,
}

/// An option of a plugin.
pub(super) struct PluginOption {
    pub plugin: usize,
    pub name: String,
    pub has_arg: c_int,
    pub val: c_int,
    pub callback: Option<OptionFn>,
    pub found: bool,
    pub argument: Option<CString>,
    pub disabled: bool,
}

/// A task of this node.
#[derive(Clone)]
pub(super) struct Task {
    pub local: u32,
    pub global: u32,
    pub pid: i32,
    pub exit_status: Option<i32>,
}

/// slurmstepd's view of its step.
pub(super) struct Remote {
    pub step: Step,
    pub node: usize,
    pub env: Env,
    pub argv: Vec<String>,
    pub tasks: Vec<Task>,
}

/// The job as the items tell it.
pub(super) enum Job {
    None,
    Launcher { job_id: u32, step_id: u32, nodes: u32, tasks: u32, argv: Vec<String> },
    Remote(Box<Remote>),
    Script { job_id: u32 },
}

/// The program.
pub(super) struct State {
    pub scenario: Scenario,
    trace: RawFd,
    pub context: Context,
    pub function: Option<Function>,
    pub phase: Option<Hook>,
    pub plugin: Option<usize>,
    pub handle: usize,
    pub plugins: Vec<Plugin>,
    pub options: Vec<PluginOption>,
    /// The job control environment; None where Slurm has none.
    pub job_control: Option<Env>,
    pub job: Job,
    pub task: Option<Task>,
    calls: HashMap<String, u32>,
}

// SAFETY: the raw pointers in it belong to plugins that stay loaded as long as they are listed,
// and the mutex lets one thread at a time at them.
unsafe impl Send for State {}

static STATE: OnceLock<Mutex<State>> = OnceLock::new();

pub(super) fn install(state: State) {
    // A process is set up once; a second time would be a mistake of ours and changes nothing.
    let _ = STATE.set(Mutex::new(state));
}

/// The state, for a moment: never across a call into a plugin.
pub(super) fn state() -> MutexGuard<'static, State> {
    match STATE.get() {
        Some(state) => state.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        None => {
            eprintln!("slurm-sim-host: a call before the simulated program was set up");
            std::process::abort()
        }
    }
}

impl State {
    pub fn new(scenario: Scenario, trace: RawFd) -> Self {
        State {
            scenario,
            trace,
            context: Context::Error,
            function: None,
            phase: None,
            plugin: None,
            handle: 0,
            plugins: Vec::new(),
            options: Vec::new(),
            job_control: None,
            job: Job::None,
            task: None,
            calls: HashMap::new(),
        }
    }

    /// Reports an event.
    pub fn emit(&self, what: What) {
        let event = Event { pid: std::process::id() as i32, what };
        match serde_json::to_string(&event) {
            Ok(line) => write_all(self.trace, format!("{line}\n").as_bytes()),
            Err(error) => eprintln!("slurm-sim-host: cannot report an event: {error}"),
        }
    }

    /// Reports a broken rule of the plugin that is running.
    pub fn violation(&self, rule: Rule, detail: impl Into<String>) {
        let (function, detail) = (self.function.clone(), detail.into());
        self.emit(What::Violation(Violation { rule, function, detail }));
    }

    /// Writes a log line as the program does.
    pub fn log(&self, level: Level, text: &str, from_plugin: bool) {
        let program = self.scenario.program.name();
        // The daemons' info lines go to their log files, which a user doesn't see.
        let client = matches!(self.context, Context::Local | Context::Allocator);
        match level {
            Level::Error => write_all(2, format!("{program}: error: {text}\n").as_bytes()),
            Level::SpankLog => write_all(2, format!("{program}: {text}\n").as_bytes()),
            Level::Info if client => write_all(2, format!("{program}: {text}\n").as_bytes()),
            _ => {}
        }
        self.emit(What::Log { level, text: text.to_owned(), from_plugin });
    }

    /// Slurm's own `error()`.
    pub fn error(&self, text: impl AsRef<str>) {
        self.log(Level::Error, text.as_ref(), false);
    }

    /// Whether this call is to fail.
    pub fn fault(&mut self, call: &str) -> Option<SpankError> {
        let count = self.calls.entry(call.to_owned()).or_default();
        *count += 1;
        let count = *count;
        let fault = self
            .scenario
            .faults
            .iter()
            .find(|fault| fault.call == call && fault.nth.is_none_or(|nth| nth == count))?;
        Some(fault.error)
    }

    /// slurmstepd's step, in slurmstepd.
    pub fn remote(&mut self) -> Option<&mut Remote> {
        match &mut self.job {
            Job::Remote(remote) => Some(remote),
            _ => None,
        }
    }
}

fn write_all(fd: RawFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the buffer is valid for its length.
        let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
        if written > 0 {
            bytes = &bytes[written as usize..];
        } else if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return;
        }
    }
}
