// SPDX-License-Identifier: Apache-2.0
//! The result of a run: the content of `result.json`, which the launch keeps up to date while the
//! run goes on, and from which reports are made. `docs/result.md` describes it for people.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::figures::Measurement;
pub use super::rank::{RankEnd, RankPlace};
use crate::diagnostic::Printable;
use crate::input::source;
use crate::plan::{Plan, Purpose};
pub use verdict::{Verdict, VerdictKind};

/// The version of `result.json`.
pub const SCHEMA: u32 = 1;

/// Its name in the workspace.
pub const FILE: &str = "result.json";

/// The largest one that is read, in bytes.
pub const MAX_JSON: u64 = 64 << 20;

/// Defines an enum whose values have the same names in JSON and in messages.
macro_rules! named {
    ($(#[$about:meta])* $type:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$doc])* #[serde(rename = $name)] $value,)*
        }

        impl $type {
            /// All values, in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$value),*];

            /// The name in JSON.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name,)*
                }
            }
        }
    };
}

mod verdict;

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
        Self::of(SystemTime::now())
    }

    /// A time of the machine's clock.
    #[must_use]
    pub fn of(time: SystemTime) -> Self {
        Self(0) + time.duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    /// The time from an earlier moment to this one; zero when it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

/// A duration in whole milliseconds, as results have it.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A run's result, finished or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// The version of the JSON form: [`SCHEMA`].
    pub schema: u32,
    /// Which run of which job.
    pub run: RunId,
    /// What was run.
    pub plan: PlanSummary,
    /// The workspace.
    pub workspace: String,
    /// The job's nodes, in Slurm's order.
    pub nodes: Vec<String>,
    /// When the launch began.
    pub started: Moment,
    /// When all steps had ended; none while the run goes on.
    pub ended: Option<Moment>,
    /// The current phase.
    pub phase: Phase,
    /// How the run ended, or that it still runs.
    pub verdict: Verdict,
    /// Where clients ask, in runs of recipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// All steps, in the order in which they start.
    pub steps: Vec<StepResult>,
    /// What the benchmark measured; empty until it has ended.
    #[serde(default)]
    pub figures: Vec<Measurement>,
    /// The totals of the roles' JUnit files; none until they are merged.
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

/// The step that unpacks the container image.
pub const UNPACK: &str = "UNPACK";
/// The step that runs the install script.
pub const INSTALL: &str = "INSTALL";

/// What identifies the plan of a run.
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
    /// The mode of the benchmark: `e2e`, `gen_only`, …
    pub mode: String,
    /// The generation of rules.
    pub rules: String,
    /// Nodes of the plan.
    pub total_nodes: u32,
    /// GPUs of the plan.
    pub total_gpus: u32,
    /// The container image that the steps run in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<String>,
}

impl PlanSummary {
    /// The summary of a plan.
    ///
    /// # Errors
    /// None in practice: a plan has a JSON form.
    pub fn new(plan: &Plan) -> Result<Self, serde_json::Error> {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(plan.to_json()?);
        let suite = plan.suite.as_ref();
        Ok(Self {
            sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            test: suite.map_or_else(|| plan.title().to_owned(), |suite| suite.test.node_id()),
            config: plan.config.name.clone(),
            config_sha256: plan.config.sha256.clone(),
            mode: match (suite, &plan.engine) {
                (Some(suite), _) => suite.test.mode.clone(),
                (None, Some(engine)) => engine.name.clone(),
                (None, None) => String::new(),
            },
            rules: suite.map(|suite| suite.rules.name().to_owned()).unwrap_or_default(),
            total_nodes: plan.layout.total_nodes,
            total_gpus: plan.total_gpus(),
            container_image: plan.container.as_ref().map(|all| all.image.value.clone()),
        })
    }
}

named! {
    /// The phases of a run, in order.
    Phase {
        /// The container image is unpacked on all nodes.
        Unpack = "unpack",
        /// The install script runs on all nodes.
        Install = "install",
        /// The nodes are checked before any server starts.
        Precheck = "precheck",
        /// Steps are being started; not all of them run yet.
        Start = "start",
        /// Servers get ready, and the steps start that wait for them.
        Ready = "ready",
        /// The benchmark measures.
        Benchmark = "benchmark",
        /// The remaining steps are being stopped.
        Stop = "stop",
        /// All steps have ended.
        Done = "done",
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It exited with this status.
    Status(i32),
    /// This signal killed it.
    Signal(i32),
}

impl Exit {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What a shell, or a task's launcher, says of a process that a signal killed.
            Self::Status(status @ 129..=159) => {
                write!(f, "exit status {status} (signal {})", status - 128)
            }
            Self::Status(status) => write!(f, "exit status {status}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// One step of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// `GEN_3`; `INSTALL` for the install script.
    pub name: String,
    /// The name of its role, `GEN`; none for the install script.
    pub role: Option<String>,
    /// What the role is there for; none for the install script.
    pub purpose: Option<Purpose>,
    /// Slurm's id of the step, `JOB.STEP`, once it is known.
    pub step_id: Option<String>,
    /// Its nodes.
    pub nodes: Vec<String>,
    /// The number of its tasks.
    pub tasks: u32,
    /// Its tasks on each full node; the most on one where `tasks_by_node` differ.
    #[serde(default)]
    pub tasks_per_node: u32,
    /// Its tasks on each of its nodes, where they are not as many on each but the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks_by_node: Vec<u32>,
    /// Its log, relative to the workspace.
    pub log: String,
    /// Its JUnit file, relative to the workspace when it lies in it.
    pub junit: Option<String>,
    /// When `srun` was started; none when it never was.
    pub started: Option<Moment>,
    /// When all its tasks ran.
    pub running: Option<Moment>,
    /// When it was seen to be ready; never where the plan does not say how that is seen.
    pub ready: Option<Moment>,
    /// When `srun` ended.
    pub ended: Option<Moment>,
    /// How `srun` ended; usually the highest status among the tasks.
    pub exit: Option<Exit>,
    /// When its log was last written to, looked up when the limit of `benchmark` is exceeded.
    #[serde(default)]
    pub last_output: Option<Moment>,
    /// When the launch began to stop it; none when it ended by itself.
    pub stopped: Option<Moment>,
    /// What ended it, once it ended after the launch began to stop it.
    #[serde(default)]
    pub stop: Option<Stop>,
    /// The rank that failed first, as `srun` reported it.
    pub failure: Option<RankEnd>,
    /// How many GPUs each task has for itself or with its step's other tasks there, for each of its
    /// nodes, where it does not have all of their GPUs.
    #[serde(default)]
    pub own_gpus: Option<Vec<u32>>,
    /// Where its ranks run, in their order; those that have said so.
    #[serde(default)]
    pub ranks: Vec<RankPlace>,
}

impl StepResult {
    /// A step that is not started, with as many tasks on each node as on the others.
    #[must_use]
    pub fn new(name: impl Into<String>, nodes: &[String], tasks: u32, log: &str) -> Self {
        let count = u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX);
        Self {
            name: name.into(),
            role: None,
            purpose: None,
            step_id: None,
            nodes: nodes.to_vec(),
            tasks,
            tasks_per_node: tasks.div_ceil(count),
            tasks_by_node: Vec::new(),
            log: log.to_owned(),
            junit: None,
            started: None,
            running: None,
            ready: None,
            ended: None,
            exit: None,
            last_output: None,
            stopped: None,
            stop: None,
            failure: None,
            own_gpus: None,
            ranks: Vec::new(),
        }
    }

    /// How many of its tasks the plan has on one of its nodes, by the place in `nodes`.
    #[must_use]
    pub fn tasks_on(&self, node: usize) -> u32 {
        if !self.tasks_by_node.is_empty() {
            return self.tasks_by_node.get(node).copied().unwrap_or_default();
        }
        let before = u32::try_from(node).unwrap_or(u32::MAX).saturating_mul(self.tasks_per_node);
        self.tasks.saturating_sub(before).min(self.tasks_per_node)
    }

    /// The node of a rank by the plan, by its place in `nodes`.
    #[must_use]
    pub fn node_of(&self, rank: u32) -> Option<usize> {
        let mut end = 0;
        (0..self.nodes.len()).find(|node| {
            end += self.tasks_on(*node);
            rank < end
        })
    }

    /// The phase in which it is started.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.purpose {
            None if self.name == UNPACK => Phase::Unpack,
            None => Phase::Install,
            Some(Purpose::Check) => Phase::Precheck,
            Some(_) => Phase::Start,
        }
    }

    /// Whether its end decides the run.
    #[must_use]
    pub fn decides(&self) -> bool {
        self.purpose == Some(Purpose::Client)
    }

    /// Whether the run fails when it ends before the client.
    #[must_use]
    pub fn is_server(&self) -> bool {
        matches!(self.purpose, Some(Purpose::Server | Purpose::Router | Purpose::Service))
    }

    /// Whether its `srun` runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.started.is_some() && self.ended.is_none()
    }
}

/// How a step ended after the launch began to stop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// The last signal that its tasks were sent.
    pub signal: StopSignal,
    /// Milliseconds from the first signal to the step's end.
    pub after_ms: u64,
}

/// The signals that stop a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    /// SIGTERM: the step may end in order.
    Term,
    /// SIGKILL, from Slurm or from `srun`.
    Kill,
}

/// The totals of the roles' JUnit files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JunitSummary {
    /// Test cases, including the run's own.
    pub tests: u64,
    /// Failed test cases.
    pub failures: u64,
    /// Test cases with an error.
    pub errors: u64,
    /// Skipped test cases.
    pub skipped: u64,
    /// Roles whose file is missing or cannot be read.
    pub lost: Vec<String>,
}

impl fmt::Display for JunitSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tests, failures, errors, skipped, lost } = self;
        write!(f, "{tests} tests, {failures} failures, {errors} errors, {skipped} skipped")?;
        if lost.is_empty() { Ok(()) } else { write!(f, "; no results of {}", lost.join(", ")) }
    }
}

impl RunResult {
    /// Where clients ask now: the servers of a run without a benchmark are ready.
    #[must_use]
    pub fn serves_at(&self) -> Option<&str> {
        let serves = self.phase == Phase::Benchmark && !self.steps.iter().any(StepResult::decides);
        self.url.as_deref().filter(|_| serves)
    }

    /// Whether the run is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// The JSON form, indented.
    ///
    /// # Errors
    /// None in practice: a result has no map with keys that are not strings.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Reads a JSON form.
    ///
    /// # Errors
    /// [`BadResult`] when it is not a result, or has another schema.
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

    /// Reads the result in a workspace or in the directory of a run.
    ///
    /// # Errors
    /// [`BadResult`].
    pub fn read(directory: &Path) -> Result<Self, BadResult> {
        Self::from_file(source::open(&directory.join(FILE))?)
    }

    /// Reads the result in a file that is open.
    ///
    /// # Errors
    /// [`BadResult`].
    pub fn from_file(file: File) -> Result<Self, BadResult> {
        let size = file.metadata()?.len();
        if size > MAX_JSON {
            return Err(BadResult::TooLarge(size));
        }
        let mut text = String::new();
        file.take(MAX_JSON).read_to_string(&mut text)?;
        Self::from_json(&text)
    }
}

/// Why a result cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadResult {
    /// It is missing, or cannot be read.
    #[error("{FILE} cannot be read: {0}; `slurm-disagg launch` writes it when it starts")]
    Io(#[from] io::Error),
    /// It is larger than [`MAX_JSON`].
    #[error("{FILE} is too large: {0} bytes, the limit is {MAX_JSON}")]
    TooLarge(u64),
    /// It is not JSON, or not the JSON of a result.
    #[error("{FILE} is not the result of a run: {}", Printable(.0))]
    Json(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("{FILE} has schema {0}; this version reads schema {SCHEMA}")]
    Schema(u32),
}

#[cfg(test)]
impl RunResult {
    /// A run of one node that is over.
    pub(super) fn sample(verdict: Verdict) -> Self {
        Self {
            schema: SCHEMA,
            run: RunId::new(7, 0),
            plan: PlanSummary { total_nodes: 1, total_gpus: 1, ..PlanSummary::default() },
            workspace: "/w".into(),
            nodes: Vec::new(),
            url: None,
            started: Moment(0),
            ended: None,
            phase: Phase::Done,
            verdict,
            steps: Vec::new(),
            figures: Vec::new(),
            junit: None,
        }
    }
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
    fn durations_are_never_negative() {
        assert_eq!(Moment(5).since(Moment(7)), Duration::ZERO);
        assert_eq!(Moment(7).since(Moment(5)), Duration::from_millis(2));
    }
}
