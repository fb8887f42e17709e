// SPDX-License-Identifier: Apache-2.0
//! One run of one Slurm program: what a host process is given.

#![allow(missing_docs)] // a field has a comment where its name does not say enough

use crate::{abi::SpankError, env::Env, layout::Node, release::Release, trace::Step};
use serde::{Deserialize, Serialize};

/// Makes a call fail on demand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The function's name, for example `spank_setenv` or `slurm_xstrdup`.
    pub call: String,
    /// Which call of it, counted from 1 in each process; None: every one.
    pub nth: Option<u32>,
    /// The error. Functions that return no error number return what says failure: NULL, -1 or
    /// `S_CTX_ERROR`.
    pub error: SpankError,
}

impl Fault {
    /// Every call of a function fails with an error.
    pub fn always(call: &str, error: SpankError) -> Self {
        Fault { call: call.to_owned(), nth: None, error }
    }

    /// The nth call of a function, counted from 1, fails with an error.
    pub fn nth(call: &str, nth: u32, error: SpankError) -> Self {
        Fault { call: call.to_owned(), nth: Some(nth), error }
    }
}

/// The user whose job it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The name, as in `SLURM_JOB_USER`.
    pub name: String,
    pub uid: u32,
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The environment that a login gives.
    pub login: Env,
}

/// The nodes of a job that srun runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    pub job_id: u32,
    pub nodes: Vec<Node>,
}

/// Which program is played, with what only it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// sbatch.
    Sbatch,
    /// salloc, on a cluster of these nodes.
    Salloc {
        /// What it can allocate.
        nodes: Vec<Node>,
        job_id: u32,
    },
    /// srun, in an allocation or (`in_job` false) with one of its own on these nodes.
    Srun {
        /// Whether it runs in a job.
        in_job: bool,
        /// The job, or the one that it would get.
        allocation: Allocation,
        step_id: u32,
    },
    /// slurmstepd for one node of a step.
    Stepd {
        step: Box<Step>,
        /// The index of the node in the step's layout.
        node: usize,
    },
    /// slurmd, from start to end.
    Slurmd,
    /// slurmd's helper for the prologs (or epilogs) of plugins.
    JobScript {
        job_id: u32,
        /// Whether after the job.
        epilog: bool,
    },
}

impl Program {
    /// Whether it is one of the user's programs, and no daemon.
    pub fn is_client(&self) -> bool {
        matches!(self, Program::Sbatch | Program::Salloc { .. } | Program::Srun { .. })
    }

    /// The name in front of its log lines.
    pub fn name(&self) -> &'static str {
        match self {
            Program::Sbatch => "sbatch",
            Program::Salloc { .. } => "salloc",
            Program::Srun { .. } => "srun",
            Program::Stepd { .. } => "slurmstepd",
            Program::Slurmd => "slurmd",
            Program::JobScript { epilog: false, .. } => "spank-prolog",
            Program::JobScript { epilog: true, .. } => "spank-epilog",
        }
    }
}

/// Everything that a host process is given beside its command line and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// The release to play.
    pub release: Release,
    /// The program to play.
    pub program: Program,
    /// The text of plugstack.conf.
    pub plugstack: String,
    /// `PluginDir`, where relative paths in it are looked for.
    pub plugin_dirs: Vec<String>,
    /// The user.
    pub user: User,
    /// The longest that one function of a plugin may take, in milliseconds.
    pub limit_ms: u64,
    /// The calls to fail.
    pub faults: Vec<Fault>,
}
