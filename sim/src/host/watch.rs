// SPDX-License-Identifier: Apache-2.0
//! Runs a plugin's function with its time limited, and reports what it left changed in the process.

use super::state::state;
use crate::{
    abi::Hook,
    launch::LIMIT_SIGNAL_OFFSET,
    trace::{Function, Rule, What},
};
use std::{ffi::c_int, path::PathBuf};

/// Runs a function of a plugin: a loaded one by its index, else a file that is being loaded.
pub(super) fn run(
    function: Function,
    plugin: Result<usize, &str>,
    run: impl FnOnce() -> c_int,
) -> c_int {
    let index = plugin.ok();
    let outer = {
        let mut s = state();
        // SAFETY: geteuid has no failure and no memory effects.
        let euid = unsafe { libc::geteuid() };
        let plugin = plugin.map_or_else(str::to_owned, |index| s.plugins[index].name.clone());
        s.emit(What::Enter {
            function: function.clone(),
            plugin,
            context: s.context,
            euid,
            task: s.task.as_ref().map(|task| task.global),
            args: index.map(|index| s.plugins[index].args.clone()).unwrap_or_default(),
        });
        let outer = (s.function.take(), s.plugin.take());
        s.function = Some(function.clone());
        s.plugin = index;
        outer
    };
    let before = ProcessState::now();
    let timer = Timer::start(state().scenario.limit_ms);
    let rc = run();
    drop(timer);
    let mut s = state();
    // A task's own process may be changed at will: it becomes the task.
    let of_task = [Function::Hook(Hook::TaskInit), Function::Hook(Hook::TaskInitPrivileged)];
    if !of_task.contains(&function) {
        for change in before.changes(&ProcessState::now()) {
            s.violation(Rule::ProcessState, change);
        }
    }
    if matches!(function, Function::Hook(_) | Function::Option { .. }) && !matches!(rc, 0 | -1) {
        s.violation(
            Rule::ReturnValue,
            format!("returned {rc}; releases differ on all but 0 and -1"),
        );
    }
    s.emit(What::Return { function, rc });
    (s.function, s.plugin) = outer;
    rc
}

/// Ends the process with its own signal when the time is up.
struct Timer(Option<libc::timer_t>);

impl Timer {
    fn start(limit_ms: u64) -> Self {
        // SAFETY: the structures are plain data; timer_create fills the id that is used next.
        unsafe {
            let mut event: libc::sigevent = std::mem::zeroed();
            event.sigev_notify = libc::SIGEV_SIGNAL;
            event.sigev_signo = libc::SIGRTMIN() + LIMIT_SIGNAL_OFFSET;
            let mut id: libc::timer_t = std::mem::zeroed();
            if libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut id) != 0 {
                return Timer(None);
            }
            let mut time: libc::itimerspec = std::mem::zeroed();
            time.it_value.tv_sec = (limit_ms / 1000) as libc::time_t;
            time.it_value.tv_nsec = (limit_ms % 1000) as libc::c_long * 1_000_000;
            libc::timer_settime(id, 0, &time, std::ptr::null_mut());
            Timer(Some(id))
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // SAFETY: the id came from timer_create.
            unsafe { libc::timer_delete(id) };
        }
    }
}

/// What a callback has to leave as it was.
#[derive(PartialEq)]
struct ProcessState {
    users: (u32, u32),
    umask: u32,
    cwd: Option<PathBuf>,
    blocked: Vec<i32>,
}

impl ProcessState {
    fn now() -> Self {
        // SAFETY: none of these touches memory but the signal set, which is plain data.
        let (users, umask, blocked) = unsafe {
            let umask = libc::umask(0o077);
            libc::umask(umask);
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut set);
            let blocked = (1..=64).filter(|n| libc::sigismember(&set, *n) == 1).collect();
            ((libc::getuid(), libc::geteuid()), umask, blocked)
        };
        ProcessState { users, umask, cwd: std::env::current_dir().ok(), blocked }
    }

    fn changes(&self, after: &ProcessState) -> Vec<&'static str> {
        let mut changes = Vec::new();
        let mut check = |same: bool, what| {
            if !same {
                changes.push(what);
            }
        };
        check(self.users == after.users, "changed the process's user");
        check(self.umask == after.umask, "changed the process's umask");
        check(self.cwd == after.cwd, "changed the process's working directory");
        check(self.blocked == after.blocked, "changed the process's signal mask");
        changes
    }
}
