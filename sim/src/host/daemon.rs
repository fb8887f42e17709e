// SPDX-License-Identifier: Apache-2.0
//! slurmd, and the helper in which it runs the plugins' prologs and epilogs.

use super::{
    stack,
    state::{Job, state},
};
use crate::abi::{Context, Hook};

/// Plays slurmd from its start to its end.
pub(super) fn slurmd() -> i32 {
    let release = state().scenario.release;
    if !stack::load(Context::Slurmd) || release.program_fails(stack::call(Hook::Init)) {
        state().error("slurmd initialization failed");
        return 1;
    }
    stack::call(Hook::SlurmdExit);
    stack::unload();
    0
}

/// Plays the helper. No init hook runs in it.
pub(super) fn job_script(job_id: u32, epilog: bool) -> i32 {
    let release = state().scenario.release;
    if !stack::load(Context::JobScript) {
        return 1;
    }
    state().job = Job::Script { job_id };
    let rc = stack::call(if epilog { Hook::JobEpilog } else { Hook::JobProlog });
    stack::unload();
    i32::from(release.program_fails(rc))
}
