// SPDX-License-Identifier: Apache-2.0
//! The plan: what runs where, with which environment and command, and what Slurm is asked for.
//!
//! Pure computation: no I/O, no environment, no clock. The same [`Plan`] is what the user sees,
//! what Slurm is asked for and what runs.

pub mod argument;
pub mod assignments;
mod check;
pub mod command;
pub mod config;
pub mod content;
pub mod engine;
pub mod env;
pub mod expr;
pub mod health;
pub mod instance;
pub mod layout;
pub mod origin;
pub mod planner;
pub mod profile;
pub mod pytest;
pub mod rank;
pub mod recipe;
pub mod request;
pub mod role;
pub mod rules;
pub mod secret;
pub mod step;
pub mod suite;
pub mod template;
pub mod test_id;
pub mod ucx;
pub mod words;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Printable;

pub use argument::Argument;
pub use content::Content;
pub use engine::Engine;
pub use env::Env;
pub use instance::Instance;
pub use layout::{FrontendNode, Layout, MAX_COUNT, Placement};
pub use origin::{Origin, Traced};
pub use planner::plan;
pub use rank::Rank;
pub use request::{GpuRequest, Request};
pub use role::{Cleared, Ports, Purpose, Role, Roles, Step};
pub use step::{StepSpec, resolve};
pub use suite::{Precheck, Suite};
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
    /// The file that it was made from.
    pub config: ConfigFile,
    /// What only plans of the test suite have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<Suite>,
    /// What only plans of an engine have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Counts and sizes.
    pub layout: Layout,
    /// How servers share nodes.
    pub placement: Placement,
    /// The node of the router and the client.
    pub frontend_node: FrontendNode,
    /// The kinds of steps, by name.
    pub roles: Roles,
    /// The part of the benchmark's requests that may fail in a run that passes, in percent.
    #[serde(default)]
    pub max_failed: Traced<f64>,
    /// Variables of the whole job.
    pub job_env: Env,
    /// Variables that must win over a container image's own.
    pub container_env: Vec<String>,
    /// What Slurm is asked for.
    pub job: Job,
    /// The container, when there is one.
    pub container: Option<Container>,
    /// The workspace.
    pub workspace: String,
    /// The text of the configuration, where options changed it: a file of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_config: Option<String>,
    /// A script that each step runs instead of its command.
    pub run_script: Option<String>,
    /// A script that runs on every node before the servers start.
    pub install_script: Option<String>,
    /// Names of variables whose values are never shown.
    pub secrets: Vec<String>,
    /// What a person should know about this plan.
    pub notes: Vec<String>,
}

/// The file that a plan was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its name, without the folder and `.yaml`.
    pub name: String,
    /// Its path, as found.
    pub path: String,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
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

impl Plan {
    /// The interface whose addresses nodes are reached at; else they are by their names.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        Some(&self.engine.as_ref()?.interface.as_ref()?.value)
    }
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

    /// The GPUs of each node that the job asks Slurm for, unless it asks for none.
    #[must_use]
    pub fn asked_gpus(&self) -> Option<u32> {
        (self.gpu_request.value != GpuRequest::None).then_some(self.gpus_per_node.value)
    }

    /// The time limit when the configuration names it itself; nothing in a plan that was read back.
    #[must_use]
    pub fn time_of_the_configuration(&self) -> Option<&str> {
        (*self.time.origin.input == *"slurm.job_time").then_some(self.time.value.as_str())
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
    #[error("the plan cannot be read: {}", Printable(.0))]
    Json(#[from] serde_json::Error),
    /// It was written by another version.
    #[error("the plan has schema {0}; this version reads schema {SCHEMA}")]
    Schema(u32),
    /// Its numbers contradict each other.
    #[error("the plan contradicts itself: {0}")]
    Inconsistent(&'static str),
}

impl Plan {
    /// GPUs of the job's nodes; 0 where no role uses any.
    #[must_use]
    pub fn total_gpus(&self) -> u32 {
        let uses_gpus = self.roles.values().any(|role| role.gpus > 0);
        if uses_gpus { self.layout.total_gpus } else { 0 }
    }

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

    /// What people call it: the test's id, or the configuration's name.
    pub fn title(&self) -> &str {
        self.suite.as_ref().map_or(&self.config.name, |suite| &suite.test.id)
    }

    /// The directory that the test writes into; without a test, the workspace.
    pub fn output_dir(&self) -> &str {
        self.suite.as_ref().map_or(&self.workspace, |suite| &suite.output_dir)
    }

    /// The variable that tells one start of the test from another.
    pub fn run_token(&self) -> Option<&str> {
        self.suite.as_ref()?.run_token.as_deref()
    }

    /// All roles, those included that have no steps.
    pub fn all_roles(&self) -> impl Iterator<Item = &Role> {
        let unused = self.suite.iter().flat_map(|suite| suite.unused_roles.values());
        self.roles.values().chain(unused)
    }

    /// The variables of all roles, and of what they are made from.
    pub fn environments(&self) -> impl Iterator<Item = &Env> {
        let base = self.suite.iter().map(|suite| &suite.base_command.env);
        self.all_roles().flat_map(|role| [&role.export, &role.env, &role.own.env]).chain(base)
    }

    /// Whether the value of a variable must not be seen by anybody else.
    pub fn is_secret(&self, name: &str) -> bool {
        self.secrets.iter().any(|secret| secret == name)
    }
}
