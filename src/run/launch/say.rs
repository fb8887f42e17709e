// SPDX-License-Identifier: Apache-2.0
//! Lines for the job's log. It may lie on a disk that is full, which must not end the launch.

use std::io::Write;

/// Writes one line to standard error, where Slurm's own messages go too.
pub fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("slurm-disagg: {line}\n").as_bytes());
}
