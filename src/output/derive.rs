// SPDX-License-Identifier: Apache-2.0
//! The launch script that pipelines derive from a draft of their own: script prefix, exports,
//! `srunArgs`, draft. A drop-in for the Python script that did this.
//!
//! The draft and the prefix are the caller's and are copied byte for byte; every value that stands
//! between them is quoted, so that the script means what the plan says whatever is in it.

use std::fmt::Write;

use super::exports::{self, exports};
use super::quote;
use crate::plan::{Plan, Template};

/// What the caller hands over, as text.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The script prefix: `#SBATCH` lines and exports.
    pub prefix: &'a str,
    /// srun's arguments, separated by blanks and line ends; they may refer to variables.
    pub srun_args: &'a str,
    /// The draft of the launch script.
    pub draft: &'a str,
    /// The functions of the precheck that lie beside the draft; without them ours are written.
    pub gate: Option<&'a str>,
}

/// The file beside a draft that holds the functions of the precheck.
pub const GATE_FILE: &str = "slurm_ct_precheck_gate.sh";

/// Where that file is in a source tree, for drafts that have none beside them.
pub const GATE_DIR: &str = "jenkins/scripts/perf/disaggregated";

/// The functions of the precheck, for drafts that have none beside them.
const GATE: &str =
    concat!(include_str!("precheck_failed.sh"), "\n", include_str!("precheck_gate.sh"));

/// The launch script for a plan.
pub fn launch_script(plan: &Plan, parts: &Parts<'_>) -> String {
    let mut script = ended_line(parts.prefix);
    exports::write(&mut script, exports(plan));
    script.push_str("srunArgs=(\n");
    for argument in parts.srun_args.split_whitespace() {
        let _ = writeln!(script, "    {}", quote::template(&Template::from_written(argument)));
    }
    for name in &plan.container_env {
        let _ = writeln!(script, "    {}", quote::word(&format!("--container-env={name}")));
    }
    script.push_str(")\n");
    if plan.suite.as_ref().is_some_and(|suite| suite.precheck.is_some()) {
        script.push_str(&ended_line(parts.gate.unwrap_or(GATE)));
    }
    script.push_str(parts.draft);
    script
}

/// A text with an end to its last line.
fn ended_line(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}")
}
