// SPDX-License-Identifier: Apache-2.0
//! Lines for the job's log. Its disk may be full, which must not end the launch.

use std::io::Write;

use crate::diagnostic::Printable;

/// Writes one line to standard error, where Slurm's own messages go too.
pub fn log(line: &str) {
    let line = format!("slurm-disagg: {}\n", Printable(line));
    let _ = std::io::stderr().write_all(line.as_bytes());
}
