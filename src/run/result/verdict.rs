// SPDX-License-Identifier: Apache-2.0
//! How a run ended.

use serde::{Deserialize, Serialize};

use super::{Exit, Moment};

/// How a run ended: a kind for programs, a sentence for people, and the step that caused it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The kind.
    pub kind: VerdictKind,
    /// One sentence for people: what happened, and where.
    pub message: String,
    /// The step that caused it, if one did: `GEN_3`, `BENCHMARK`, `INSTALL`.
    pub step: Option<String>,
    /// The rank that failed first, where it is known.
    pub rank: Option<u32>,
    /// The node of that rank, where it is known.
    pub node: Option<String>,
    /// How that rank, or else the step, ended.
    pub exit: Option<Exit>,
    /// How long the step ran, in milliseconds.
    pub ran_ms: Option<u64>,
    /// The last lines of its log.
    pub log_tail: Vec<String>,
    /// When the launch decided.
    pub noticed: Option<Moment>,
    /// Milliseconds from then until all steps had ended.
    pub stop_ms: Option<u64>,
}

impl Verdict {
    /// A verdict that no step in particular caused.
    #[must_use]
    pub fn new(kind: VerdictKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            step: None,
            rank: None,
            node: None,
            exit: None,
            ran_ms: None,
            log_tail: Vec::new(),
            noticed: None,
            stop_ms: None,
        }
    }
}

named! {
    /// The kinds of verdicts. Their names in JSON never change their meaning.
    VerdictKind {
        /// The run goes on.
        Running = "running",
        /// The benchmark's command passed.
        Passed = "passed",
        /// The servers were ready and served until they were told to end; there was no benchmark.
        Served = "served",
        /// The benchmark's command failed.
        BenchmarkFailed = "benchmark_failed",
        /// The benchmark's command passed, but too many of its requests failed, or it completed none.
        RequestsFailed = "requests_failed",
        /// A server ended, in whatever way, before the benchmark did.
        ServerEnded = "server_ended",
        /// A server that was ready no longer answers.
        Unresponsive = "unresponsive",
        /// The log of a step has a text that means death.
        FatalLog = "fatal_log",
        /// The container image could not be unpacked on a node, or the node has no container plugin.
        UnpackFailed = "unpack_failed",
        /// The install script failed on a node.
        InstallFailed = "install_failed",
        /// A check before the servers' start failed.
        PrecheckFailed = "precheck_failed",
        /// Slurm did not start a step.
        StartFailed = "start_failed",
        /// A rank runs on another node or GPU than the plan's, or did not say where it runs.
        Misplaced = "misplaced",
        /// Not all steps ran within the limit of the phase `start`.
        StartLimit = "start_limit",
        /// Not all servers were ready within the limit of the phase `ready`.
        ReadyLimit = "ready_limit",
        /// The benchmark did not end within the limit of the phase `benchmark`.
        BenchmarkLimit = "benchmark_limit",
        /// The job was cancelled (`scancel`).
        Cancelled = "cancelled",
        /// The job reached its time limit.
        TimeLimit = "time_limit",
        /// The signal that announces the time limit (`sbatch --signal`) came.
        TimeLimitNear = "time_limit_near",
        /// The job was preempted.
        Preempted = "preempted",
        /// The job was requeued.
        Requeued = "requeued",
        /// A node of the job failed.
        NodeFailed = "node_failed",
        /// The launch received a termination signal, and Slurm reported no reason.
        Terminated = "terminated",
        /// The workspace could not be written.
        WorkspaceFailed = "workspace_failed",
    }
}

impl VerdictKind {
    /// Whether the test passed.
    #[must_use]
    pub fn is_passed(self) -> bool {
        matches!(self, Self::Passed | Self::Served)
    }
}
