// SPDX-License-Identifier: Apache-2.0
//! What a person asks for: an engine, a model, servers, a benchmark. Every format of recipes is read
//! into this.

use indexmap::IndexMap;

use super::ConfigFile;
use super::content::Content;
use super::expr::Pattern;
use super::layout::{FrontendNode, Placement};
use super::origin::Traced;
use super::profile::{Client, Profile};
use super::request::{ContainerSettings, JobSettings};
use super::role::Purpose;
use super::template::Template;

/// A recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// Its file.
    pub file: ConfigFile,
    /// Its text, where options changed it.
    pub changed: Option<String>,
    /// The model: a path, or a name of a hub.
    pub model: Traced<String>,
    /// The name by which clients ask for it; else the last part of the path.
    pub served_name: Option<Traced<String>>,
    /// GPUs of each node; may be missing where no role uses any.
    pub gpus_per_node: Option<Traced<u32>>,
    /// Variables of all steps.
    pub env: IndexMap<String, Traced<Template>>,
    /// A script of bash that each task of the roles and of the benchmark sources before its command.
    pub setup: Option<Traced<String>>,
    /// How much servers and routers log.
    pub log_level: Option<Traced<LogLevel>>,
    /// The roles, by the names that profiles have for them.
    pub roles: IndexMap<String, RecipeRole>,
    /// What is measured; nothing where the servers serve until the job ends, unless there are clients
    /// among the other steps.
    pub benchmark: Option<Benchmark>,
    /// Steps besides those of the profile's roles and of the benchmark, in their order.
    pub steps: Vec<ExtraStep>,
    /// Whether the job asks for all nodes in one segment of the cluster's network.
    pub segment: Option<Traced<bool>>,
    /// The seconds in which all servers have to be ready, from the time when all steps run.
    pub ready_limit: Option<Traced<u32>>,
}

/// A step that belongs to no role of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtraStep {
    /// Its name.
    pub name: Traced<String>,
    /// [`Purpose::Check`] for what runs before the servers, [`Purpose::Client`] for what runs after
    /// the benchmark.
    pub purpose: Purpose,
    /// Whether it only warms the servers up: what it measures is not of the run.
    pub warms_up: bool,
    /// Whether it has a task on each node of the job, or one in all.
    pub on_each_node: bool,
    /// Its working directory; the workspace without one.
    pub cwd: Option<String>,
    /// Its command.
    pub command: Vec<Traced<Pattern>>,
    /// Its variables.
    pub env: IndexMap<String, Traced<Template>>,
    /// Texts of files that it reads, by their paths in the workspace.
    pub files: IndexMap<String, String>,
}

/// How much an engine logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// All.
    Debug,
    /// The usual.
    Info,
    /// Errors alone.
    Error,
}

impl LogLevel {
    /// All, with their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("debug", Self::Debug), ("info", Self::Info), ("error", Self::Error)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, level)| *level == self).map_or("", |(name, _)| name)
    }
}

/// What nsys records of each task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nsys {
    /// When.
    pub range: NsysRange,
    /// Further words for it.
    pub args: Vec<String>,
}

/// When nsys records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NsysRange {
    /// From one step of the engine to another, `FIRST-LAST`.
    Steps(String),
    /// For some seconds, some seconds after the start.
    Time {
        /// Seconds before it begins.
        delay: u32,
        /// Seconds that it records.
        duration: u32,
    },
}

/// A role of a recipe.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecipeRole {
    /// Its key.
    pub key: Traced<String>,
    /// How many.
    pub servers: Option<Traced<u32>>,
    /// GPUs of each; else what the sizes of its arguments make.
    pub gpus: Option<Traced<u32>>,
    /// Its variables.
    pub env: IndexMap<String, Traced<Template>>,
    /// Its arguments.
    pub args: IndexMap<String, Traced<Content>>,
    /// Its configuration file.
    pub config: IndexMap<String, Traced<Content>>,
    /// Words before the engine's program.
    pub wrap: Vec<Traced<String>>,
    /// Words before the whole command.
    pub before: Vec<Traced<Pattern>>,
    /// What nsys records.
    pub nsys: Option<Traced<Nsys>>,
    /// How much it logs, in place of the recipe's.
    pub log_level: Option<Traced<LogLevel>>,
    /// Further options for its srun, one word each.
    pub srun_args: Vec<Traced<String>>,
    /// Variables that are removed.
    pub unset: Vec<Traced<String>>,
    /// The first numbers of its ports, in place of the profile's.
    pub ports: IndexMap<String, Traced<u16>>,
    /// Whether its servers have their nodes and addresses, but are not started.
    pub is_held: bool,
}

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmark {
    /// The section's place.
    pub at: Traced<()>,
    /// The client, by its name.
    pub client: Option<Traced<String>>,
    /// A command instead of one.
    pub command: Option<Vec<Traced<Pattern>>>,
    /// Tokens of a request.
    pub isl: Option<Traced<u64>>,
    /// Tokens of an answer.
    pub osl: Option<Traced<u64>>,
    /// Requests in flight, a run for each.
    pub concurrencies: Vec<Traced<u64>>,
    /// Requests of a run; else as many rounds as [`Benchmark::rounds`].
    pub prompts: Option<Traced<u64>>,
    /// Requests of a run for each one in flight.
    pub rounds: Option<Traced<u64>>,
    /// Requests before the first run.
    pub warmup: Option<Traced<u64>>,
    /// Variables of the client.
    pub env: IndexMap<String, Traced<Template>>,
    /// Further arguments of the client, as they are.
    pub args: Vec<Traced<String>>,
}

/// Everything that a plan of a recipe is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineRequest {
    /// The recipe.
    pub recipe: Recipe,
    /// The profile of its engine.
    pub profile: Profile,
    /// The client that the recipe names, or its profile.
    pub client: Option<Client>,
    /// The names of all clients.
    pub client_names: Vec<String>,
    /// W, the workspace.
    pub workspace: Traced<String>,
    /// How servers share nodes.
    pub placement: Traced<Placement>,
    /// The node of routers and clients; else that of the profile.
    pub frontend_node: Option<Traced<FrontendNode>>,
    /// The interface whose addresses nodes are reached at; else they are by their names.
    pub interface: Option<Traced<String>>,
    /// The MPI type of the steps that use MPI.
    pub mpi: Traced<String>,
    /// What Slurm is asked for besides the sizes.
    pub job: JobSettings,
    /// The container, when there is one.
    pub container: Option<ContainerSettings>,
    /// A script that runs on every node before the servers start.
    pub install_script: Option<Traced<String>>,
    /// The part of the benchmark's requests that may fail in a run that passes, in percent.
    pub max_failed: Traced<f64>,
    /// Names of variables whose values are never shown.
    pub secrets: Vec<String>,
}
