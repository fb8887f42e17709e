// SPDX-License-Identifier: Apache-2.0
//! The plan: what runs where, with which environment and command, and what Slurm is asked for.
//!
//! Pure computation: no I/O, no environment, no clock. The same [`Plan`] is what the user sees,
//! what Slurm is asked for and what runs.

pub mod assignments;
pub mod command;
pub mod config;
pub mod env;
pub mod health;
pub mod instance;
pub mod layout;
pub mod origin;
pub mod planner;
pub mod pytest;
pub mod request;
pub mod role;
pub mod rules;
pub mod secret;
pub mod step;
pub mod template;
pub mod test_id;
pub mod ucx;
pub mod words;

use std::path::{Component, Path};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use env::Env;
pub use instance::Instance;
pub use layout::{FrontendNode, Layout, MAX_COUNT, Placement};
pub use origin::{Origin, Traced};
pub use planner::plan;
pub use request::{GpuRequest, Request};
pub use role::{Cleared, Purpose, Role, Roles, Step};
pub use step::{StepSpec, resolve};
pub use template::Template;
pub use test_id::{Generation, Test, TestId, TestKind};

/// The version of a plan's JSON form.
pub const SCHEMA: u32 = 1;

/// The largest JSON form of a plan that is read, in bytes.
pub const MAX_JSON: usize = 4 << 20;

/// A plan. In JSON every key has the name of its field; see each for its meaning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The version of the JSON form: [`SCHEMA`].
    pub schema: u32,
    /// The generation of rules that was followed.
    pub rules: Generation,
    /// Why these rules were followed.
    #[serde(default)]
    pub rules_reason: String,
    /// The test.
    pub test: Test,
    /// Counts and sizes.
    pub layout: Layout,
    /// How servers share nodes.
    pub placement: Placement,
    /// The node of the router and the client.
    pub frontend_node: FrontendNode,
    /// Whether the servers run under `trtllm-llmapi-launch`.
    pub llmapi_launch: bool,
    /// The command that every role's command started from.
    pub base_command: command::BaseCommand,
    /// The kinds of steps, by name.
    pub roles: Roles,
    /// Roles of the rules that this test has no steps of: drafts of launch scripts refer to their
    /// commands all the same.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub unused_roles: Roles,
    /// The check that caches travel between the servers; none in tests that have no such check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precheck: Option<Precheck>,
    /// The part of the benchmark's requests that may fail in a run that passes, in percent.
    #[serde(default)]
    pub max_failed: Traced<f64>,
    /// The name of the pipeline's stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Variables of the whole job.
    pub job_env: Env,
    /// Variables that must win over a container image's own.
    pub container_env: Vec<String>,
    /// The variable that tells one start of the test from another in all of its steps
    /// (`JOB.RESTART.PID`); the launch sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_token: Option<String>,
    /// The launch script's variables for the sizes, by the names that run scripts know, in the order
    /// in which it exports them.
    pub variables: IndexMap<String, String>,
    /// What Slurm is asked for.
    pub job: Job,
    /// The container, when there is one.
    pub container: Option<Container>,
    /// The source tree.
    pub source_dir: String,
    /// The models.
    pub models_dir: String,
    /// The workspace.
    pub workspace: String,
    /// The text of the configuration, where options changed it: a file of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_config: Option<String>,
    /// The directory that the test writes into; the launch creates it.
    pub output_dir: String,
    /// A script that each step runs instead of its command.
    pub run_script: Option<String>,
    /// A script that runs on every node before the servers start.
    pub install_script: Option<String>,
    /// Names of variables whose values are never shown.
    pub secrets: Vec<String>,
    /// What a person should know about this plan.
    pub notes: Vec<String>,
}

/// The check that caches travel between the servers, before any of them starts: the steps of
/// [`Plan::checks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precheck {
    /// Whether it runs.
    pub enabled: bool,
    /// How long each of its steps may take, in seconds.
    pub timeout_s: u32,
}

/// The allocation that is asked for, in sbatch's terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// `--job-name`.
    pub name: Traced<String>,
    /// `--output`.
    pub output: Traced<String>,
    /// `--nodes`.
    pub nodes: Traced<u32>,
    /// `--ntasks`: one for each GPU.
    pub ntasks: Traced<u32>,
    /// `--ntasks-per-node`.
    pub ntasks_per_node: Traced<u32>,
    /// `--gpus-per-node`.
    pub gpus_per_node: Traced<u32>,
    /// `--time`, in Slurm's form.
    pub time: Traced<String>,
    /// `--partition`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Traced<String>>,
    /// `--account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Traced<String>>,
    /// `--segment`, in nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Traced<u32>>,
    /// How GPUs are asked for.
    #[serde(default)]
    pub gpu_request: Traced<GpuRequest>,
    /// Whether the job has its nodes for itself (`--exclusive`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exclusive: Option<Traced<bool>>,
    /// `--qos`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<Traced<String>>,
    /// `--constraint`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Traced<String>>,
    /// `--reservation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<Traced<String>>,
    /// `--mem`, in Slurm's form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem: Option<Traced<String>>,
    /// Further options for sbatch, one word each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sbatch_args: Vec<Traced<String>>,
    /// Further options for the srun of each step, one word each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub srun_args: Vec<Traced<String>>,
}

impl Job {
    /// The options that pass as they are, by name.
    pub fn texts(&self) -> impl Iterator<Item = (&'static str, &Traced<String>)> {
        let options = [
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("constraint", &self.constraint),
            ("reservation", &self.reservation),
            ("mem", &self.mem),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// The time limit when the configuration names it itself; nothing in a plan that was read back.
    #[must_use]
    pub fn time_of_the_configuration(&self) -> Option<&str> {
        (self.time.origin.input == "slurm.job_time").then_some(self.time.value.as_str())
    }
}

/// The container that the steps run in, in pyxis's terms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Container {
    /// `--container-name`; may refer to `${SLURM_JOB_ID}`.
    pub name: Template,
    /// `--container-image`.
    pub image: Traced<String>,
    /// `--container-workdir`.
    pub workdir: Traced<String>,
    /// `--container-mounts`, each `SOURCE:TARGET[:FLAGS]`.
    pub mounts: Vec<Traced<String>>,
}

/// Why a plan's JSON form cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum BadPlan {
    /// It is larger than [`MAX_JSON`].
    #[error("the plan is {0} bytes long; at most {MAX_JSON} are read")]
    TooLarge(usize),
    /// It is not JSON, or not a plan's.
    #[error("the plan cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("the plan has schema {0}; this version reads schema {SCHEMA}")]
    Schema(u32),
    /// Its numbers contradict each other.
    #[error("the plan contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl Plan {
    /// The JSON form, on one line.
    ///
    /// # Errors
    /// None in practice: a plan has no map with keys that are not strings.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }

    /// Reads a JSON form, which anybody may have written.
    ///
    /// # Errors
    /// [`BadPlan`]: a plan that is returned has this schema and numbers that fit each other.
    pub fn from_json(text: &str) -> Result<Self, BadPlan> {
        /// Read first, so that another version's plan is named as such.
        #[derive(Deserialize)]
        struct Head {
            schema: u32,
        }
        if text.len() > MAX_JSON {
            return Err(BadPlan::TooLarge(text.len()));
        }
        let head: Head = serde_json::from_str(text)?;
        if head.schema != SCHEMA {
            return Err(BadPlan::Schema(head.schema));
        }
        let plan: Self = serde_json::from_str(text)?;
        plan.check()?;
        Ok(plan)
    }

    /// Whether the value of a variable must not be seen by anybody else.
    pub fn is_secret(&self, name: &str) -> bool {
        self.secrets.iter().any(|secret| secret == name)
    }

    /// Whether the numbers of a plan that anybody may have written fit each other.
    fn check(&self) -> Result<(), BadPlan> {
        let Layout { gpus_per_node, total_nodes, total_gpus, .. } = self.layout;
        let counts = [gpus_per_node, total_nodes, total_gpus];
        let product = u64::from(gpus_per_node) * u64::from(total_nodes);
        if counts.iter().any(|count| !(1..=MAX_COUNT).contains(count))
            || product != u64::from(total_gpus)
        {
            return Err(BadPlan::Inconsistent("the layout's totals do not fit each other"));
        }
        for (name, role) in &self.roles {
            if !template::is_name(name) {
                return Err(BadPlan::Inconsistent("a role's name cannot be a variable's value"));
            }
            let places: u64 = role.places.iter().map(|run| u64::from(run.count)).sum();
            if places != u64::from(role.count) || role.count > MAX_COUNT {
                return Err(BadPlan::Inconsistent("a role's count is not that of its places"));
            }
            let step = &role.step;
            let sizes = [step.nodes, step.tasks, step.tasks_per_node];
            if (role.count > 0 || sizes != [0; 3])
                && (sizes.iter().any(|size| !(1..=MAX_COUNT).contains(size))
                    || step.tasks.div_ceil(step.tasks_per_node) != step.nodes)
            {
                return Err(BadPlan::Inconsistent("the numbers of a role's step do not fit"));
            }
            let is_outside = |run: &layout::Run| {
                let gpus =
                    u64::from(run.first_gpu) + u64::from(run.per_node) * u64::from(role.gpus);
                run.per_node == 0
                    || (run.per_node > 1 && step.nodes > 1)
                    || run.end(step.nodes) > u64::from(total_nodes)
                    || gpus > u64::from(gpus_per_node)
            };
            if role.places.iter().any(is_outside) {
                return Err(BadPlan::Inconsistent(
                    "a role's steps do not fit onto the job's nodes",
                ));
            }
        }
        let mut health = self.roles.values().map(|role| health::contradiction(&self.roles, role));
        if let Some(found) = health.find_map(|found| found) {
            return Err(BadPlan::Inconsistent(found));
        }
        if !health::all_start(&self.roles) {
            return Err(BadPlan::Inconsistent("a role waits for one that never starts"));
        }
        for role in self.roles.values().chain(self.unused_roles.values()) {
            let unusable = |text: &str| text.contains('\0');
            if role.argv.is_empty()
                || role.argv.iter().any(|argument| unusable(&argument.value))
                || role.own.args.values().any(|argument| unusable(argument.as_str()))
                || role.unset.iter().any(|name| !template::is_name(&name.value))
            {
                return Err(BadPlan::Inconsistent("a role's command cannot be run"));
            }
            let mut cleared =
                role.cleared.iter().flat_map(|all| all.prefixes.iter().chain(&all.except));
            let is_below = |file: &str| {
                Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
            };
            let own = [&role.own.test_log, &role.own.done].into_iter().flatten();
            let mut files = own.map(Template::as_str).chain(role.ends_after.as_deref());
            if cleared.any(|name| !template::is_name(name)) || files.any(|file| !is_below(file)) {
                return Err(BadPlan::Inconsistent("a role's variables or files have no names"));
            }
        }
        Ok(())
    }
}
