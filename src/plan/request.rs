// SPDX-License-Identifier: Apache-2.0
//! Everything that a plan is computed from. `input` fills it; the planner uses nothing else.

use serde::{Deserialize, Serialize};

use super::command::{BaseCommand, Directories};
use super::config::Config;
use super::layout::{FrontendNode, Placement};
use super::origin::{Origin, Traced};
use super::test_id::{Generation, TestId};
use super::ucx;

/// The input of the planner.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The test configuration.
    pub config: Config,
    /// The source tree, the models and the workspace.
    pub directories: Directories,
    /// The pytest module, function and test-id prefix (`PERF_TEST_MODULE`, …).
    pub test: TestNames,
    /// The test id, where one was given; it is built from the configuration without one.
    pub test_id: Option<Traced<TestId>>,
    /// The base command, where a script prefix holds it; it is built without one.
    pub base: Option<BaseCommand>,
    /// The name of the pipeline's stage, which names the generation of GPU.
    pub stage: Option<Traced<String>>,
    /// The cluster's name; empty when it is not known.
    pub cluster: Traced<String>,
    /// The site's own rows of the table of [`super::ucx`].
    pub ucx: Vec<ucx::Row>,
    /// Whether caches are checked before the servers start; the configuration decides without one.
    pub precheck: Option<Traced<Switch>>,
    /// Whether the tests of the source tree have prechecks, where the rules have them.
    pub has_prechecks: bool,
    /// The part of the benchmark's requests that may fail in a run that passes, in percent.
    pub max_failed: Traced<f64>,
    /// `LLM_MODELS_ROOT` of the precheck's steps.
    pub models_root: Traced<String>,
    /// Why the test suite skips the test, where it does.
    pub skipped: Option<Origin>,
    /// The folder of the configuration, where the test does not look into it by itself.
    pub config_folder: Option<Traced<String>>,
    /// The rule set; the form of the test id decides without one. The origin says why.
    pub rules: Option<Traced<Generation>>,
    /// How servers share nodes.
    pub placement: Traced<Placement>,
    /// The node of the router and the client.
    pub frontend_node: Traced<FrontendNode>,
    /// The MPI type of the workers' steps.
    pub mpi: Traced<String>,
    /// What Slurm is asked for besides the sizes.
    pub job: JobSettings,
    /// The container, when there is one.
    pub container: Option<ContainerSettings>,
    /// A script that each step runs instead of its command.
    pub run_script: Option<Traced<String>>,
    /// A script that runs on every node before the servers start.
    pub install_script: Option<Traced<String>>,
    /// Names of variables whose values are never shown.
    pub secrets: Vec<String>,
}

/// The parts of the test's name in pytest.
#[derive(Debug, Clone, PartialEq)]
pub struct TestNames {
    /// `PERF_TEST_MODULE`.
    pub module: Traced<String>,
    /// `PERF_TEST_FUNCTION`.
    pub function: Traced<String>,
    /// `PERF_TEST_PREFIX`.
    pub prefix: Traced<String>,
}

/// What Slurm is asked for besides the sizes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobSettings {
    /// The partition; Slurm's default without one.
    pub partition: Option<Traced<String>>,
    /// The account; Slurm's default without one.
    pub account: Option<Traced<String>>,
    /// The time limit of the command line, in Slurm's form. It wins over the configuration's.
    pub time: Option<Traced<String>>,
    /// The time limit of site.yaml, for configurations that name none.
    pub default_time: Option<Traced<String>>,
    /// The job's name.
    pub name: Option<Traced<String>>,
    /// Whether the cluster knows `--segment` (topology/block); without it none is asked for.
    pub segment: Option<Traced<bool>>,
    /// The quality of service; Slurm's default without one.
    pub qos: Option<Traced<String>>,
    /// Features that the nodes must have.
    pub constraint: Option<Traced<String>>,
    /// The reservation.
    pub reservation: Option<Traced<String>>,
    /// Whether the job has its nodes for itself.
    pub exclusive: Option<Traced<bool>>,
    /// Memory of each node, in Slurm's form; Slurm's default without one.
    pub mem: Option<Traced<String>>,
    /// How GPUs are asked for.
    pub gpu_request: Traced<GpuRequest>,
    /// Further options for sbatch, one word each; none contradicts the plan.
    pub sbatch_args: Vec<Traced<String>>,
    /// Further options for the srun of each step, one word each; none contradicts the plan.
    pub srun_args: Vec<Traced<String>>,
}

/// A switch that the environment may have as any text, which each rule set reads in its own way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switch {
    /// On or off.
    Is(bool),
    /// The text of an environment variable.
    Text(String),
}

/// How a job asks for its GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GpuRequest {
    /// `--gpus-per-node=N`.
    #[default]
    PerNode,
    /// `--gres=gpu:N`.
    Gres,
    /// Not at all: Slurm does not count the cluster's GPUs.
    None,
    /// `--gpus=N` for all nodes together, and `--gpus-per-node` so that each gets its share.
    Total,
}

/// The container that the steps run in (pyxis).
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerSettings {
    /// The image.
    pub image: Traced<String>,
    /// Mounts besides those of the source tree, the models and the workspace, as `SOURCE:TARGET[:FLAGS]`.
    pub mounts: Vec<Traced<String>>,
}
