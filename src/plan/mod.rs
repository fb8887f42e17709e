// SPDX-License-Identifier: Apache-2.0
//! The plan: what runs where, with which environment and command, and what Slurm is asked for.
//!
//! Pure computation: no I/O, no environment, no clock. The same [`Plan`] is what the user sees,
//! what Slurm is asked for and what runs.

pub mod assignments;
pub mod command;
pub mod config;
pub mod instance;
pub mod layout;
pub mod origin;
pub mod planner;
pub mod pytest;
pub mod request;
pub mod role;
pub mod rules;
pub mod secret;
pub mod template;
pub mod test_id;
pub mod ucx;
pub mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use instance::Instance;
pub use layout::{FrontendNode, Layout, Placement};
pub use origin::{Origin, Traced};
pub use planner::plan;
pub use request::Request;
pub use role::{Env, InstanceName, Purpose, Role, RoleKind, Step};
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
    /// The node of DISAGG_SERVER and BENCHMARK.
    pub frontend_node: FrontendNode,
    /// Whether CTX and GEN run under `trtllm-llmapi-launch`.
    pub llmapi_launch: bool,
    /// The command that every role's command started from.
    pub base_command: command::BaseCommand,
    /// What each kind of step runs; a kind that the test lacks is absent.
    pub roles: BTreeMap<RoleKind, Role>,
    /// The check that caches travel between the servers; none in tests that have no such check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precheck: Option<Precheck>,
    /// The name of the pipeline's stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// Variables of the whole job.
    pub job_env: Env,
    /// Variables that must win over a container image's own.
    pub container_env: Vec<String>,
    /// The launch script's variables for the sizes, by the names that run scripts know.
    pub variables: BTreeMap<String, String>,
    /// What Slurm is asked for.
    pub job: Job,
    /// The container, when there is one.
    pub container: Option<Container>,
    /// D, the source tree.
    pub source_dir: String,
    /// M, the models.
    pub models_dir: String,
    /// W, the workspace.
    pub workspace: String,
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
/// [`Plan::prechecks`].
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
}

impl Job {
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

    /// [`Plan::variables`] in the order in which launch scripts export them.
    pub fn ordered_variables(&self) -> impl Iterator<Item = (&str, &str)> {
        let rule = self.rules.rules().test(self.test.kind);
        let names = rule.map_or(&[][..], |rule| rule.variables).iter().map(|(name, _)| *name);
        names.filter_map(|name| Some((name, self.variables.get(name)?.as_str())))
    }

    fn check(&self) -> Result<(), BadPlan> {
        let layout = &self.layout;
        if layout.recomputed(self.placement, self.frontend_node).ok() != Some(*layout) {
            return Err(BadPlan::Inconsistent("the layout's totals do not follow from its counts"));
        }
        for (kind, role) in &self.roles {
            let may_be_absent = kind.precheck_of().is_some();
            if role.count != planner::count(layout, *kind) || (role.count == 0 && !may_be_absent) {
                return Err(BadPlan::Inconsistent("a role's count is not the layout's"));
            }
            let (nodes, tasks, tasks_per_node) = planner::step_size(layout, *kind);
            let step = &role.step;
            if (step.nodes, step.tasks, step.tasks_per_node) != (nodes, tasks, tasks_per_node) {
                return Err(BadPlan::Inconsistent("a role's step is not the layout's"));
            }
            let unusable = |text: &str| text.contains('\0');
            if role.argv.is_empty()
                || role.argv.iter().any(|argument| unusable(&argument.value))
                || role.unset.iter().any(|name| !template::is_name(&name.value))
            {
                return Err(BadPlan::Inconsistent("a role's command cannot be run"));
            }
        }
        Ok(())
    }
}
