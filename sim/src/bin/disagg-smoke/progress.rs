// SPDX-License-Identifier: Apache-2.0
//! How far a long run has come, on standard error: a line that is written over on a terminal, else
//! a line now and then.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a run is silent, and how long each time after that.
const ON_TERMINAL: Duration = Duration::from_millis(500);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// The progress of one run.
pub struct Progress {
    what: String,
    total: usize,
    terminal: bool,
    state: Mutex<(usize, Instant)>,
}

impl Progress {
    /// Nothing of `total` steps is done.
    pub fn new(what: &str, total: usize) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { what: what.to_owned(), total, terminal, state: Mutex::new((0, Instant::now())) }
    }

    /// Another step is done.
    pub fn step(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        let pause = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        if state.1.elapsed() < pause {
            return;
        }
        state.1 = Instant::now();
        let (start, end) = if self.terminal { ("\r", "") } else { ("", "\n") };
        // What cannot be shown is not worth an end.
        let _ = write!(
            std::io::stderr(),
            "{start}{}: {} of {} steps{end}",
            self.what,
            state.0,
            self.total
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
