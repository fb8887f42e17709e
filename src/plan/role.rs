// SPDX-License-Identifier: Apache-2.0
//! The roles of a plan as data: what each kind of step is there for, how many steps it has, where
//! they run and what they run. Nothing outside the rule sets knows a role by its name.

use std::collections::BTreeMap;
use std::ops::Range;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::argument::Argument;
use super::content::Content;
use super::env::{Env, TooLong};
use super::health::{Alive, Ready};
use super::layout::Run;
use super::origin::Traced;
use super::template::Template;

/// Roles by name, in the order in which plans list them and their steps start.
pub type Roles = IndexMap<String, Role>;

/// What a kind of step is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Runs before all others and as long as they do: a registry, a message broker.
    Service,
    /// Runs and ends before the servers start.
    Check,
    /// Serves; its end before the client's fails the run.
    Server,
    /// Passes requests on to servers; otherwise a server, but stopped before them.
    Router,
    /// Its end decides the run.
    Client,
}

/// The MPI type of steps that are no MPI programs.
pub const NO_MPI: &str = "none";

/// A kind of step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// What it is there for.
    pub purpose: Purpose,
    /// How many instances the plan runs.
    pub count: u32,
    /// Whether the instances are named `NAME_0`, `NAME_1`, … or the only one `NAME`.
    pub numbered: bool,
    /// GPUs of an instance on each of its full nodes; 0 for steps that use none.
    pub gpus: u32,
    /// Where the instances run, in their order.
    pub places: Vec<Run>,
    /// Variables that are removed from the step's environment.
    pub unset: Vec<Traced<String>>,
    /// Families of variables that are removed from the command's environment too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cleared: Option<Cleared>,
    /// Variables that are set after that.
    #[serde(default)]
    pub export: Env,
    /// Variables that are set then; their values win.
    pub env: Env,
    /// The command.
    pub argv: Vec<Traced<Argument>>,
    /// Its ports, by name.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub ports: IndexMap<String, Ports>,
    /// The files that exist before an instance starts: paths in the workspace, and what is in them.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub files: IndexMap<Template, Content>,
    /// The working directory.
    pub cwd: String,
    /// The size and the flags of its Slurm step.
    pub step: Step,
    /// The file in the plan's `output_dir` after which its steps may end with status 0 before the
    /// client does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_after: Option<String>,
    /// What each instance has of its own.
    pub own: Own,
    /// Roles whose steps must be ready before one of this role starts. A step whose role has no
    /// [`Role::ready`] is ready when it runs, and a client or a check when it has ended well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Further options for the srun of its steps, one word each, behind the job's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub srun_args: Vec<Traced<String>>,
    /// Whether it is a client that only warms the servers up: what it measures is not of the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warms_up: bool,
    /// How a step is seen to be ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// How a step that is ready is watched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<Alive>,
    /// Texts that mean death: the run fails when a line of a step's log contains one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fatal: Vec<String>,
}

/// The numbers of a port in the instances of a role. They are counted over the whole job, so those
/// of steps that share a node are distinct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// That of the first instance.
    pub first: u16,
    /// How many numbers each instance has for itself.
    pub each: u16,
}

impl Ports {
    /// The number after the last of so many instances.
    pub fn end(self, count: u32) -> u64 {
        u64::from(self.first) + u64::from(self.each) * u64::from(count)
    }
}

/// What differs from one instance of a role to the next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Variables that win over the role's, which may refer to them.
    #[serde(default, skip_serializing_if = "Env::is_empty")]
    pub env: Env,
    /// Arguments in place of the role's, by their place in `argv`, or behind them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<usize, Template>,
    /// Whether its environment has the GPUs that are its own on a node of which it does not have all.
    #[serde(default)]
    pub gpus: bool,
    /// The file in the workspace that its output goes to.
    pub log: Template,
    /// The JUnit file that its command writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub junit: Option<Template>,
    /// Where the test looks for its log, below the plan's `output_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_log: Option<Template>,
    /// The file there that says that its step has ended and its log is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Template>,
}

/// Variables that are removed by the beginning of their names: what would make a program take
/// itself for a rank. Run scripts still have them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cleared {
    /// How the names begin.
    pub prefixes: Vec<String>,
    /// Names that stay.
    pub except: Vec<String>,
}

impl Cleared {
    /// Whether a variable is removed.
    pub fn removes(&self, name: &str) -> bool {
        self.prefixes.iter().any(|prefix| name.starts_with(prefix))
            && !self.except.iter().any(|kept| kept == name)
    }
}

impl Role {
    /// All variables that are the same in all instances, after the removal of `unset`.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn environment(&self) -> Result<Env, TooLong> {
        self.export.and_then(&self.env)
    }

    /// The words of the command for people, without regard to conditions.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.argv.iter().flat_map(|argument| argument.value.words()).map(Template::readable)
    }

    /// GPUs of an instance on all its nodes.
    pub fn gpus_of_instance(&self) -> u32 {
        match self.gpus {
            gpus if gpus == self.step.tasks_per_node => self.step.tasks,
            gpus => gpus.saturating_mul(self.step.nodes),
        }
    }

    /// What of its nodes' GPUs an instance has for itself, where it does not have all of them.
    pub(super) fn share(&self) -> Option<Share> {
        let is_by_rank = self.gpus == self.step.tasks_per_node && self.step.nodes > 1;
        self.own.gpus.then_some(match self.step.deal {
            Deal::ByGpu => Share::OneEach,
            Deal::Filled | Deal::Even if is_by_rank => Share::OfRanks,
            Deal::Filled | Deal::Even => Share::Gpus(self.gpus),
        })
    }

    /// Whether the tasks of an instance run different commands on its first and its other nodes.
    pub(super) fn differs_by_node(&self) -> bool {
        let is_so = |argument: &Traced<Argument>| match &argument.value {
            Argument::Group(group) => group.on.is_some(),
            Argument::Word(_) => false,
        };
        self.argv.iter().any(is_so)
    }

    /// All templates in its command, files and names of files, but not in words that are repeated
    /// for another role.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        let own = |argument: &&Traced<Argument>| !matches!(&argument.value, Argument::Group(group) if group.each.is_some());
        let words = self.argv.iter().filter(own).flat_map(|argument| argument.value.words());
        let files =
            self.files.iter().flat_map(|(path, file)| std::iter::once(path).chain(file.texts()));
        let own = self.own.args.values().chain(self.own.junit.as_ref()).chain([&self.own.log]);
        let ready = self.ready.as_ref().and_then(Ready::port);
        words.chain(files).chain(own).chain(ready)
    }

    /// The node after the last that its instances use, counted from the allocation's first.
    pub fn end_of_nodes(&self) -> u64 {
        let end = |run: &Run| match self.step.deal {
            Deal::ByGpu => self.gpu_of(run, run.count).div_ceil(self.step.tasks_per_node.into()),
            Deal::Filled | Deal::Even => run.end(self.step.nodes),
        };
        self.places.iter().map(end).max().unwrap_or_default()
    }

    /// The first GPU of an instance of a run that is dealt by GPU, counted from the job's first.
    fn gpu_of(&self, run: &Run, in_run: u32) -> u64 {
        u64::from(run.first_node) * u64::from(self.step.tasks_per_node)
            + u64::from(run.first_gpu)
            + u64::from(in_run) * u64::from(self.step.tasks)
    }

    /// The nodes of an instance, counted from the allocation's first, and its GPUs on each of them;
    /// on the first of them, where that is shared by instances that are dealt by GPU.
    pub(super) fn place(&self, index: u32) -> Option<(Range<u32>, Range<u32>)> {
        let mut before = 0;
        let run = self.places.iter().find(|run| {
            before += run.count;
            index < before
        })?;
        let in_run = index - (before - run.count);
        if self.step.deal == Deal::ByGpu {
            let per_node = u64::from(self.step.tasks_per_node);
            let (first, end) = (self.gpu_of(run, in_run), self.gpu_of(run, in_run + 1));
            let nodes = u32::try_from(first / per_node).ok()?
                ..u32::try_from(end.div_ceil(per_node)).ok()?;
            let gpu = u32::try_from(first % per_node).ok()?;
            return Some((nodes, gpu..(gpu + self.step.tasks).min(self.step.tasks_per_node)));
        }
        let node = run.first_node + in_run / run.per_node * self.step.nodes;
        let gpu = run.first_gpu + in_run % run.per_node * self.gpus;
        Some((node..node + self.step.nodes, gpu..gpu + self.gpus))
    }
}

/// How the tasks of an instance are dealt to its nodes. On each node their ranks follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deal {
    /// Each node gets all that it takes before the next gets any.
    #[default]
    Filled,
    /// Round and round: no node has two more than another.
    Even,
    /// One for each GPU, from the one after the last of the instance before on, so that instances
    /// may share a node. Each task has that GPU for itself.
    ByGpu,
}

/// The GPUs of a node that an instance has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many of them.
    Gpus(u32),
    /// As many as it has tasks there.
    OfRanks,
    /// One for each task, which has that one alone.
    OneEach,
}

impl Deal {
    fn is_filled(&self) -> bool {
        *self == Self::Filled
    }
}

/// The size and the flags of one instance's Slurm step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Nodes that it spans; the most that one of the role's does, where they are dealt by GPU.
    pub nodes: u32,
    /// Tasks (ranks); the world size of a server.
    pub tasks: u32,
    /// Tasks on each of its full nodes.
    pub tasks_per_node: u32,
    /// How the tasks are dealt to the nodes.
    #[serde(default, skip_serializing_if = "Deal::is_filled")]
    pub deal: Deal,
    /// The MPI type (`srun --mpi`); none for steps that are no MPI programs.
    pub mpi: Option<String>,
    /// Whether it may share its nodes with other steps (`srun --overlap`).
    pub overlap: bool,
    /// Whether one failed task ends the step (`srun --kill-on-bad-exit=1`).
    pub kill_on_bad_exit: bool,
}

impl Step {
    /// What `srun --mpi` is given: without MPI the cluster's default must not reach the step.
    pub fn mpi_type(&self) -> &str {
        self.mpi.as_deref().unwrap_or(NO_MPI)
    }

    /// What `srun --cpu-bind` is given: a task that is alone on its node has all of the job's CPUs
    /// there, where Slurm may bind it to one (`TaskPluginParam=autobind`, `CpuBind`).
    pub fn cpu_bind(&self) -> Option<&'static str> {
        (self.tasks_per_node == 1).then_some("none")
    }
}
