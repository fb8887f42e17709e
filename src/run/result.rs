// SPDX-License-Identifier: Apache-2.0
//! What a run came to: the content of `result.json`, which the launch keeps up to date while the
//! run goes on, and from which reports are made. `docs/result.md` describes it for people.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::plan::{Plan, Purpose};

/// The version of `result.json`.
pub const SCHEMA: u32 = 1;

/// Its name in the workspace.
pub const FILE: &str = "result.json";

/// The largest one that is read, in bytes.
pub const MAX_JSON: u64 = 64 << 20;

/// A moment, in milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Moment(pub u64);

impl Moment {
    /// Now, by the machine's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// The time from an earlier moment to this one; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A run's result, finished or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The version of the form: [`SCHEMA`].
    pub schema: u32,
    /// Which run it is.
    pub run: RunId,
    /// What was run.
    pub plan: PlanSummary,
    /// W, the workspace.
    pub workspace: String,
    /// The job's nodes, in the order in which servers take them.
    pub nodes: Vec<String>,
    /// When the launch began.
    pub started: Moment,
    /// When everything had ended; nothing while the run goes on.
    pub ended: Option<Moment>,
    /// What the run is doing, or was doing last.
    pub phase: Phase,
    /// How it ended, or that it has not.
    pub verdict: Verdict,
    /// All steps, in the order in which they were started, those not started yet last.
    pub steps: Vec<StepResult>,
    /// What the roles' JUnit files say; nothing until they are merged.
    pub junit: Option<JunitSummary>,
}

/// Which run of a job: a requeued job runs again under the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunId {
    /// `JOB.RESTART`, the name of the run's directory below `runs/` in the workspace.
    pub id: String,
    /// Slurm's job id.
    pub job_id: u32,
    /// How often the job was requeued before this run.
    pub restart: u32,
}

impl RunId {
    /// The run of a job after so many restarts.
    #[must_use]
    pub fn new(job_id: u32, restart: u32) -> Self {
        Self { id: format!("{job_id}.{restart}"), job_id, restart }
    }
}

/// What a result says of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PlanSummary {
    /// SHA-256 of the plan's JSON form on one line, in lower-case hexadecimal.
    pub sha256: String,
    /// `MODULE::FUNCTION[ID]`.
    pub test: String,
    /// The configuration's name.
    pub config: String,
    /// SHA-256 of the configuration's bytes, in lower-case hexadecimal.
    pub config_sha256: String,
    /// What is measured: `e2e`, `gen_only`, …
    pub mode: String,
    /// The generation of rules.
    pub rules: String,
    /// Nodes of the plan.
    pub total_nodes: u32,
    /// GPUs of the plan.
    pub total_gpus: u32,
}

impl PlanSummary {
    /// What is said of a plan.
    ///
    /// # Errors
    /// None in practice: a plan has a JSON form.
    pub fn new(plan: &Plan) -> Result<Self, serde_json::Error> {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(plan.to_json()?);
        Ok(Self {
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            test: plan.test.node_id(),
            config: plan.test.config.clone(),
            config_sha256: plan.test.config_sha256.clone(),
            mode: plan.test.mode.clone(),
            rules: plan.rules.name().to_owned(),
            total_nodes: plan.layout.total_nodes,
            total_gpus: plan.layout.total_gpus,
        })
    }
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The install script runs on all nodes.
    Install,
    /// The nodes are checked before any server starts.
    Precheck,
    /// Steps are being started; not all of them run yet.
    Start,
    /// All steps run; the readiness probe has not seen all servers yet.
    Ready,
    /// The benchmark measures.
    Benchmark,
    /// The steps that are left are being ended.
    Stop,
    /// Nothing runs any more.
    Done,
}

impl Phase {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Precheck => "precheck",
            Self::Start => "start",
            Self::Ready => "ready",
            Self::Benchmark => "benchmark",
            Self::Stop => "stop",
            Self::Done => "done",
        }
    }
}

/// How a run ended: a kind for programs, a sentence for people, and whom it is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The kind.
    pub kind: VerdictKind,
    /// One sentence: what happened, where, and what it means.
    pub message: String,
    /// The step that it is about, when it is about one: `GEN_3`, `BENCHMARK`, `INSTALL`.
    pub role: Option<String>,
    /// The rank that ended first, where it is known.
    pub rank: Option<u32>,
    /// The node that it was on, where it is known.
    pub node: Option<String>,
    /// How it ended.
    pub exit: Option<Exit>,
    /// How long the step had run, in milliseconds.
    pub ran_ms: Option<u64>,
    /// The last lines of its log, the last one last.
    pub log_tail: Vec<String>,
    /// When it was noticed.
    pub noticed: Option<Moment>,
    /// Milliseconds from the moment it was noticed until nothing ran any more.
    pub stop_ms: Option<u64>,
}

impl Verdict {
    /// A verdict that is about no step in particular.
    #[must_use]
    pub fn new(kind: VerdictKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            role: None,
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

/// The kinds of verdicts. Their names in JSON never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// The run goes on.
    Running,
    /// The benchmark's command passed.
    Passed,
    /// The benchmark's command failed.
    BenchmarkFailed,
    /// A server ended, in whatever way, before the benchmark did.
    ServerEnded,
    /// The install script failed on a node.
    InstallFailed,
    /// A check before the servers' start failed.
    PrecheckFailed,
    /// Slurm did not start a step.
    StartFailed,
    /// Not all steps ran within the limit of the phase `start`.
    StartLimit,
    /// Not all servers were ready within the limit of the phase `ready`.
    ReadyLimit,
    /// The benchmark did not end within the limit of the phase `benchmark`.
    BenchmarkLimit,
    /// The job was cancelled (`scancel`).
    Cancelled,
    /// The job reached its time limit.
    TimeLimit,
    /// The signal that was asked for before the time limit (`--signal`) came.
    TimeLimitNear,
    /// The job was preempted.
    Preempted,
    /// The job was put back into the queue.
    Requeued,
    /// A node of the job failed.
    NodeFailed,
    /// The launch was told to end by a signal, and Slurm did not say why.
    Terminated,
    /// The workspace could not be written.
    WorkspaceFailed,
}

impl VerdictKind {
    /// All kinds.
    pub const ALL: [Self; 18] = [
        Self::Running,
        Self::Passed,
        Self::BenchmarkFailed,
        Self::ServerEnded,
        Self::InstallFailed,
        Self::PrecheckFailed,
        Self::StartFailed,
        Self::StartLimit,
        Self::ReadyLimit,
        Self::BenchmarkLimit,
        Self::Cancelled,
        Self::TimeLimit,
        Self::TimeLimitNear,
        Self::Preempted,
        Self::Requeued,
        Self::NodeFailed,
        Self::Terminated,
        Self::WorkspaceFailed,
    ];

    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Passed => "passed",
            Self::BenchmarkFailed => "benchmark_failed",
            Self::ServerEnded => "server_ended",
            Self::InstallFailed => "install_failed",
            Self::PrecheckFailed => "precheck_failed",
            Self::StartFailed => "start_failed",
            Self::StartLimit => "start_limit",
            Self::ReadyLimit => "ready_limit",
            Self::BenchmarkLimit => "benchmark_limit",
            Self::Cancelled => "cancelled",
            Self::TimeLimit => "time_limit",
            Self::TimeLimitNear => "time_limit_near",
            Self::Preempted => "preempted",
            Self::Requeued => "requeued",
            Self::NodeFailed => "node_failed",
            Self::Terminated => "terminated",
            Self::WorkspaceFailed => "workspace_failed",
        }
    }

    /// Whether the test passed.
    #[must_use]
    pub fn is_passed(self) -> bool {
        self == Self::Passed
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended with this status.
    Status(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// `GEN_3`; `INSTALL` for the install script.
    pub name: String,
    /// Its role's name; nothing for those that play no role.
    pub role: Option<String>,
    /// What its role is there for.
    pub purpose: Option<Purpose>,
    /// Slurm's id of the step, `JOB.STEP`, once it is known.
    pub step_id: Option<String>,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// Its tasks.
    pub tasks: u32,
    /// Its log, relative to the workspace.
    pub log: String,
    /// Its JUnit file, relative to the workspace when it lies in it.
    pub junit: Option<String>,
    /// When it was asked for; nothing when it never was.
    pub started: Option<Moment>,
    /// When all its tasks ran.
    pub running: Option<Moment>,
    /// When the readiness probe had its answer.
    pub ready: Option<Moment>,
    /// When it had ended.
    pub ended: Option<Moment>,
    /// How `srun` ended; the highest status among the tasks, as a rule.
    pub exit: Option<Exit>,
    /// When the launch began to end it; nothing when it ended by itself.
    pub stopped: Option<Moment>,
    /// The rank that ended first with a failure, as `srun` reported it.
    pub failure: Option<RankEnd>,
}

/// The end of a rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankEnd {
    /// The rank; the lowest where several ended in the same way at once.
    pub rank: u32,
    /// Its node.
    pub node: String,
    /// How it ended, where Slurm's words say so.
    pub exit: Option<Exit>,
    /// Slurm's words: `Exited with exit code 42`.
    pub words: String,
}

/// What the JUnit files of the roles say in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JunitSummary {
    /// Test cases, the run's own among them.
    pub tests: u64,
    /// Of these, failed.
    pub failures: u64,
    /// Of these, with an error.
    pub errors: u64,
    /// Of these, skipped.
    pub skipped: u64,
    /// Roles whose file is missing or cannot be read.
    pub lost: Vec<String>,
}

impl RunResult {
    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The JSON form, for people to read too.
    ///
    /// # Errors
    /// None in practice: a result has no map with keys that are not strings.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a JSON form.
    ///
    /// # Errors
    /// [`BadResult`] when it is none, or another version's.
    pub fn from_json(text: &str) -> Result<Self, BadResult> {
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        let head: Head = serde_json::from_str(text)?;
        if head.schema != SCHEMA {
            return Err(BadResult::Schema(head.schema));
        }
        Ok(serde_json::from_str(text)?)
    }

    /// Reads a workspace's, or a run's directory's.
    ///
    /// # Errors
    /// [`BadResult`].
    pub fn read(directory: &Path) -> Result<Self, BadResult> {
        let path = directory.join(FILE);
        let size = std::fs::metadata(&path)?.len();
        if size > MAX_JSON {
            return Err(BadResult::TooLarge(size));
        }
        Self::from_json(&std::fs::read_to_string(&path)?)
    }
}

/// Why a result cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum BadResult {
    /// There is none, or it cannot be read.
    #[error("{FILE} cannot be read: {0}; it is there once `slurm-disagg launch` has begun")]
    Io(#[from] io::Error),
    /// It is larger than [`MAX_JSON`].
    #[error("{FILE} is {0} bytes long; at most {MAX_JSON} are read")]
    TooLarge(u64),
    /// It is not JSON, or not a result's.
    #[error("{FILE} is not a run's result: {0}")]
    Json(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("{FILE} has schema {0}; this version reads schema {SCHEMA}")]
    Schema(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_verdict_has_its_name_in_json() {
        for kind in VerdictKind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.name()));
        }
    }

    #[test]
    fn a_result_of_another_version_is_named_as_such() {
        let error = RunResult::from_json(r#"{"schema": 2}"#).unwrap_err();
        assert!(error.to_string().contains("schema 2; this version reads schema 1"), "{error}");
    }

    #[test]
    fn time_does_not_run_backwards() {
        assert_eq!(Moment(5).since(Moment(7)), Duration::ZERO);
        assert_eq!(Moment(7).since(Moment(5)), Duration::from_millis(2));
    }
}
