// SPDX-License-Identifier: Apache-2.0
//! plugstack.conf may name the plugin twice, by one path or by a copy, through an include or a
//! site's own file: only the first one acts.
//!
//! Slurm calls each entry once for each line. Of one file both calls arrive here, so they are
//! counted; a copy has statics of its own and finds the first one's mark in the environment.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::environment::{self, Mutable};

/// The mark of the first plugin of a client: its process and the address of its statics.
const MARK: &str = "SLURM_DISAGG_PLUGIN";

/// How often this file was initialized.
static LINES: AtomicU32 = AtomicU32::new(0);
/// Whether another file has been initialized before this one.
static IS_COPY: AtomicBool = AtomicBool::new(false);

/// How often an entry was called.
#[derive(Debug)]
pub struct Calls(AtomicU32);

impl Calls {
    /// An entry that was not called yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Whether this call is the first line's.
    #[must_use]
    pub fn is_first_line(&self) -> bool {
        let lines = LINES.load(Ordering::Relaxed).max(1);
        let call = self.0.fetch_add(1, Ordering::Relaxed);
        call.is_multiple_of(lines) && !IS_COPY.load(Ordering::Relaxed)
    }
}

impl Default for Calls {
    fn default() -> Self {
        Self::new()
    }
}

/// Notes that a line of plugstack.conf is initialized; whether it is the first one. In a client
/// this leaves a mark.
pub fn is_first_line(environment: Option<&Mutable>) -> bool {
    let is_first = LINES.fetch_add(1, Ordering::Relaxed) == 0;
    if is_first && let Some(environment) = environment {
        let own = format!("{}:{:p}", std::process::id(), &LINES);
        let process = format!("{}:", std::process::id());
        let others =
            environment::get(MARK).is_some_and(|mark| mark.starts_with(&process) && mark != own);
        IS_COPY.store(others, Ordering::Relaxed);
        if !others {
            // Without a mark a copy acts too, as it did before there was one.
            let _ = environment.set(MARK, &own);
        }
    }
    is_first && !IS_COPY.load(Ordering::Relaxed)
}

/// Removes the mark before the environment reaches a job.
pub fn remove_mark(environment: &Mutable) {
    environment.unset(MARK);
}
