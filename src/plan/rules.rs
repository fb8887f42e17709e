// SPDX-License-Identifier: Apache-2.0
//! The generations of rules, as data: what each kind of test consists of, and what each of its
//! kinds of steps unsets, sets and runs.
//!
//! A rule that both generations share is not here but in the planner itself.
//! Sources: the test suite's launchers, `jenkins/scripts/perf/{disaggregated,aggregated}` for the
//! unified rules and their predecessor for the classic ones.

use super::planner::sizes::Sizes;
use super::role::Purpose;
use super::test_id::{Generation, TestKind};

/// A role of the test suite.
#[derive(Debug)]
pub struct RoleDef {
    /// Its name, as `DISAGG_SERVING_TYPE` has it (without an index).
    pub name: &'static str,
    /// What it is there for.
    pub purpose: Purpose,
    /// How many it has and how large each is.
    pub size: Size,
    /// Whether its steps are told their role by `DISAGG_SERVING_TYPE`.
    pub has_serving_type: bool,
    /// Its log in the workspace, as a template.
    pub log: &'static str,
}

/// Which numbers of the configuration size a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Those of the generation servers.
    Generation,
    /// Those of the context servers.
    Context,
    /// Those of the one server.
    OneServer,
    /// One task without GPUs on the frontend's node.
    Frontend,
}

const fn role(name: &'static str, purpose: Purpose, size: Size, log: &'static str) -> RoleDef {
    RoleDef { name, purpose, size, has_serving_type: true, log }
}

/// A generation server (decode).
pub static GEN: RoleDef =
    role("GEN", Purpose::Server, Size::Generation, "gen_server_${.index}.log");
/// A context server (prefill).
pub static CTX: RoleDef = role("CTX", Purpose::Server, Size::Context, "ctx_server_${.index}.log");
/// The coordinator that routes requests.
pub static DISAGG_SERVER: RoleDef =
    role("DISAGG_SERVER", Purpose::Router, Size::Frontend, "disagg_server.log");
/// The client that measures.
pub static BENCHMARK: RoleDef = role("BENCHMARK", Purpose::Client, Size::Frontend, "benchmark.log");
/// The one server of a test without context and generation servers, which measures itself.
pub static AGGREGATED: RoleDef = RoleDef {
    has_serving_type: false,
    ..role("AGGREGATED", Purpose::Client, Size::OneServer, "aggregated_server.log")
};
/// Before a generation server starts: whether caches reach its place.
pub static GEN_PRECHECK: RoleDef =
    role("GEN_PRECHECK", Purpose::Check, Size::Generation, "gen_precheck_${.index}.log");
/// Before a context server starts: whether caches leave its place.
pub static CTX_PRECHECK: RoleDef =
    role("CTX_PRECHECK", Purpose::Check, Size::Context, "ctx_precheck_${.index}.log");

impl Size {
    /// Whether a test may have several of that size.
    pub fn is_numbered(self) -> bool {
        matches!(self, Self::Generation | Self::Context)
    }
}

/// One generation's rules.
#[derive(Debug)]
pub struct RuleSet {
    /// Whose rules these are.
    pub generation: Generation,
    /// Where the mode of a disaggregated test comes from.
    pub mode_source: ModeSource,
    /// A test that measures the generation servers alone has no context servers when
    /// `benchmark.mode` contains this.
    pub no_context_mark: &'static str,
    /// What UCX needs.
    pub ucx: Ucx,
    /// Whether the queue is no larger than what the generation server can hold.
    pub caps_queue: bool,
    /// The kinds of tests that there are.
    pub tests: &'static [TestRule],
}

/// Where the mode of a disaggregated test comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeSource {
    /// `benchmark.mode` of the configuration.
    Configuration,
    /// The test id.
    TestId,
}

/// What UCX needs.
#[derive(Debug)]
pub enum Ucx {
    /// These variables are removed, whatever the GPU.
    Unset(&'static [&'static str]),
    /// The table of [`super::ucx`] decides by generation of GPU.
    ByGpu,
}

/// One kind of test.
#[derive(Debug)]
pub struct TestRule {
    /// The kind.
    pub kind: TestKind,
    /// Where configurations of such tests are, below the source tree, in order of preference.
    pub config_dirs: &'static [&'static str],
    /// What each kind of step gets.
    pub roles: &'static [RoleRule],
    /// Variables of the whole job.
    pub job_env: &'static [EnvSource],
    /// The variables that the launch script exports for commands, in order.
    pub commands: &'static [(&'static str, CommandText)],
    /// The variables that the launch script exports for sizes and paths, in order.
    pub variables: &'static [(&'static str, Variable)],
    /// The variables that the launch script exports for the prechecks' commands, in order.
    pub precheck_commands: &'static [(&'static str, CommandText)],
}

/// A command, or a part of one, as shell text.
#[derive(Debug, Clone, Copy)]
pub enum CommandText {
    /// Nothing: a variable that drafts refer to.
    Empty,
    /// The base command without the launcher.
    WithoutLauncher,
    /// The whole command of a role.
    Whole(&'static RoleDef),
    /// The command of a role with the variables of the base command alone.
    WithoutOwnEnvironment(&'static RoleDef),
    /// The variables of a role without those of the base command.
    OwnEnvironment(&'static RoleDef),
}

/// What one kind of step gets.
#[derive(Debug)]
pub struct RoleRule {
    /// Which role.
    pub role: &'static RoleDef,
    /// Whether it takes part in what [`RuleSet::ucx`] says.
    pub ucx: bool,
    /// Where its variables come from, in order; a later value of a name wins. Those of the base
    /// command come last, where it is run.
    pub env: &'static [EnvSource],
    /// What it runs.
    pub command: Command,
}

/// What a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The base command.
    Base {
        /// Whether under `trtllm-llmapi-launch`, where the test uses it at all.
        launcher: bool,
        /// Whether it keeps the options that say where results and coverage go.
        output_options: bool,
    },
    /// The check that caches travel between the servers; how it names the servers that it checks.
    Precheck(&'static str),
}

/// A source of environment variables.
#[derive(Debug, Clone, Copy)]
pub enum EnvSource {
    /// A variable that only certain runs have.
    When(Run, &'static str, RunValue),
    /// A variable with this value, which may refer to others.
    Fixed(&'static str, &'static str),
    /// An environment string of the configuration.
    Config(EnvKey),
}

/// What a run measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Run {
    /// All servers.
    Whole,
    /// The generation servers alone; context servers exist and fill the caches first.
    GenOnly,
    /// The generation servers alone; there are no context servers.
    NoContext,
}

/// The value of a variable of [`EnvSource::When`].
#[derive(Debug, Clone, Copy)]
pub enum RunValue {
    /// A constant.
    Constant(&'static str),
    /// As many requests as are queued before any is served.
    QueueSize,
}

/// An environment string of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvKey {
    /// `environment.worker_env_var`.
    Worker,
    /// `environment.gen_worker_env_var`.
    GenWorker,
    /// `environment.ctx_worker_env_var`.
    CtxWorker,
    /// `environment.server_env_var`.
    Server,
    /// `environment.benchmark_env_var`.
    Benchmark,
    /// `server_env_var` of the entry of `server_configs`.
    ServerEntry,
}

/// A variable of the launch script.
#[derive(Debug, Clone, Copy)]
pub enum Variable {
    /// A number of the layout.
    Size(fn(&Sizes) -> u32),
    /// The configuration's path.
    ConfigPath,
    /// The directory that the test writes into.
    OutputDir,
    /// Whether the precheck runs: 1 or 0.
    PrecheckEnabled,
    /// How long the precheck may take, in seconds.
    PrecheckTimeout,
}

/// The variable that tells servers to serve without context servers.
const GEN_ONLY: &str = "TRTLLM_DISAGG_BENCHMARK_GEN_ONLY";
/// The variable that makes the transfer of caches end before decoding begins.
const NO_TRANSFER_OVERLAP: &str = "TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP";
/// The variable that holds requests back until so many are queued.
const QUEUE_SIZE: &str = "TLLM_BENCHMARK_REQ_QUEUES_SIZE";

use CommandText::{OwnEnvironment, Whole, WithoutOwnEnvironment};
use EnvKey::{Benchmark, CtxWorker, GenWorker, Server, ServerEntry, Worker};
use EnvSource::{Config, Fixed, When};
use RunValue::{Constant, QueueSize};
use Variable::{ConfigPath, OutputDir, PrecheckEnabled, PrecheckTimeout};

const WHEN_NO_CONTEXT: EnvSource = When(Run::NoContext, GEN_ONLY, Constant("1"));
const WHEN_GEN_ONLY: EnvSource = When(Run::GenOnly, NO_TRANSFER_OVERLAP, Constant("1"));
/// Each rank compiles kernels into a directory of its own.
const JIT_DIR: EnvSource =
    Fixed("FLASHINFER_JIT_DIR", "/tmp/flashinfer_jit_cache_${SLURM_LOCALID}");
const HF_HOME: EnvSource = Fixed("HF_HOME", "/tmp/hf_home");

const DISAGG_CONFIGS: &str = "tests/integration/defs/perf/disagg/test_configs/disagg/perf";
const WIDEEP_CONFIGS: &str = "tests/integration/defs/perf/disagg/test_configs/wideep/perf";
const DISAGGREGATED_CONFIGS: &str = "tests/scripts/perf-sanity/disaggregated";
const AGGREGATED_CONFIGS: &str = "tests/scripts/perf-sanity/aggregated";

/// Where configurations are, below the source tree, in the order of the classic rules.
pub const CONFIG_DIRS: &[&str] =
    &[DISAGG_CONFIGS, WIDEEP_CONFIGS, DISAGGREGATED_CONFIGS, AGGREGATED_CONFIGS];

const EVERYTHING: Command = Command::Base { launcher: true, output_options: true };
const NO_LAUNCHER: Command = Command::Base { launcher: false, output_options: true };
const NO_OUTPUT: Command = Command::Base { launcher: true, output_options: false };
const NEITHER: Command = Command::Base { launcher: false, output_options: false };

/// The numbers of a plan's layout: of context and generation servers.
pub const LAYOUT_OF_SERVERS: &[(&str, fn(&Sizes) -> u32)] = &[
    ("num_ctx_servers", |l| l.context.count),
    ("num_gen_servers", |l| l.generation.count),
    ("gpus_per_ctx_server", |l| l.context.world_size),
    ("gpus_per_gen_server", |l| l.generation.world_size),
    ("nodes_per_ctx_server", |l| l.nodes(l.context.world_size)),
    ("nodes_per_gen_server", |l| l.nodes(l.generation.world_size)),
    ("gpus_per_node_per_ctx_server", |l| l.tasks_per_node(l.context.world_size)),
    ("gpus_per_node_per_gen_server", |l| l.tasks_per_node(l.generation.world_size)),
];

/// The same of one server.
pub const LAYOUT_OF_ONE_SERVER: &[(&str, fn(&Sizes) -> u32)] = &[
    ("gpus_per_server", |l| l.one_server),
    ("nodes_per_server", |l| l.nodes(l.one_server)),
    ("gpus_per_node_per_server", |l| l.tasks_per_node(l.one_server)),
    ("world_size", Sizes::full_world_size),
];

const fn size(of: fn(&Sizes) -> u32) -> Variable {
    Variable::Size(of)
}

/// Ids `disagg_upload-<config>`: both kinds of workers have one environment.
pub static CLASSIC: RuleSet = RuleSet {
    generation: Generation::Classic,
    mode_source: ModeSource::Configuration,
    no_context_mark: "gen_only",
    ucx: Ucx::Unset(&["UCX_TLS"]),
    caps_queue: false,
    tests: &[TestRule {
        kind: TestKind::Disaggregated,
        config_dirs: CONFIG_DIRS,
        roles: &[
            RoleRule { role: &GEN, ucx: true, env: CLASSIC_WORKER_ENV, command: EVERYTHING },
            RoleRule { role: &CTX, ucx: true, env: CLASSIC_WORKER_ENV, command: EVERYTHING },
            RoleRule {
                role: &DISAGG_SERVER,
                ucx: false,
                env: &[WHEN_NO_CONTEXT, Config(Server)],
                command: NO_LAUNCHER,
            },
            RoleRule {
                role: &BENCHMARK,
                ucx: false,
                env: &[Config(Benchmark)],
                command: NO_LAUNCHER,
            },
        ],
        job_env: &[WHEN_NO_CONTEXT],
        commands: &[
            ("pytestCommandNoLLMAPILaunch", CommandText::WithoutLauncher),
            ("pytestCommandWorker", Whole(&GEN)),
            ("pytestCommandDisaggServer", Whole(&DISAGG_SERVER)),
            ("pytestCommandBenchmark", Whole(&BENCHMARK)),
        ],
        precheck_commands: &[],
        variables: &[
            ("numCtxServers", size(|l| l.context.count)),
            ("numGenServers", size(|l| l.generation.count)),
            ("gpusPerNode", size(|l| l.gpus_per_node)),
            ("gpusPerCtxServer", size(|l| l.context.world_size)),
            ("gpusPerGenServer", size(|l| l.generation.world_size)),
            ("nodesPerCtxServer", size(|l| l.nodes(l.context.world_size))),
            ("nodesPerGenServer", size(|l| l.nodes(l.generation.world_size))),
            ("totalNodes", size(|l| l.total_nodes)),
            ("totalGpus", size(|l| l.total_gpus())),
        ],
    }],
};

const CLASSIC_WORKER_ENV: &[EnvSource] = &[
    WHEN_NO_CONTEXT,
    When(Run::NoContext, NO_TRANSFER_OVERLAP, Constant("1")),
    When(Run::NoContext, QUEUE_SIZE, QueueSize),
    Config(Worker),
];

/// Ids that name the mode: workers have environments of their own, and prechecks come first.
pub static UNIFIED: RuleSet = RuleSet {
    generation: Generation::Unified,
    mode_source: ModeSource::TestId,
    no_context_mark: "gen_only_no_context",
    ucx: Ucx::ByGpu,
    caps_queue: true,
    tests: &[
        TestRule {
            kind: TestKind::Disaggregated,
            config_dirs: UNIFIED_CONFIG_DIRS,
            roles: &[
                RoleRule { role: &GEN, ucx: true, env: UNIFIED_GEN_ENV, command: NO_OUTPUT },
                RoleRule { role: &CTX, ucx: true, env: UNIFIED_CTX_ENV, command: NO_OUTPUT },
                RoleRule {
                    role: &DISAGG_SERVER,
                    ucx: true,
                    env: &[WHEN_NO_CONTEXT, Config(Server)],
                    command: NEITHER,
                },
                RoleRule {
                    role: &BENCHMARK,
                    ucx: true,
                    env: &[Config(Benchmark)],
                    command: NO_LAUNCHER,
                },
                RoleRule {
                    role: &GEN_PRECHECK,
                    ucx: true,
                    env: UNIFIED_GEN_ENV,
                    command: Command::Precheck("gen"),
                },
                RoleRule {
                    role: &CTX_PRECHECK,
                    ucx: true,
                    env: UNIFIED_CTX_ENV,
                    command: Command::Precheck("ctx"),
                },
            ],
            job_env: &[WHEN_NO_CONTEXT],
            commands: &[
                ("partialPytestCommandWorker", WithoutOwnEnvironment(&GEN)),
                ("partialPytestCommandDisaggServer", WithoutOwnEnvironment(&DISAGG_SERVER)),
                ("partialPytestCommandBenchmark", WithoutOwnEnvironment(&BENCHMARK)),
                ("PYTEST_COMMON_VARS", CommandText::Empty),
                ("CTX_WORKER_ENV_VARS", OwnEnvironment(&CTX)),
                ("GEN_WORKER_ENV_VARS", OwnEnvironment(&GEN)),
                ("SERVER_ENV_VARS", OwnEnvironment(&DISAGG_SERVER)),
                ("BENCHMARK_ENV_VARS", OwnEnvironment(&BENCHMARK)),
                ("pytestCommandCTXWorker", Whole(&CTX)),
                ("pytestCommandGENWorker", Whole(&GEN)),
                ("pytestCommandDisaggServer", Whole(&DISAGG_SERVER)),
                ("pytestCommandBenchmark", Whole(&BENCHMARK)),
            ],
            precheck_commands: &[
                ("pytestCommandCTXPrecheck", Whole(&CTX_PRECHECK)),
                ("pytestCommandGENPrecheck", Whole(&GEN_PRECHECK)),
            ],
            variables: &[
                ("configYamlPath", ConfigPath),
                ("numCtxServers", size(|l| l.context.count)),
                ("numGenServers", size(|l| l.generation.count)),
                ("gpusPerNode", size(|l| l.gpus_per_node)),
                ("gpusPerCtxServer", size(|l| l.context.world_size)),
                ("gpusPerGenServer", size(|l| l.generation.world_size)),
                ("nodesPerCtxServer", size(|l| l.nodes(l.context.world_size))),
                ("nodesPerGenServer", size(|l| l.nodes(l.generation.world_size))),
                ("gpusPerNodePerCtxServer", size(|l| l.tasks_per_node(l.context.world_size))),
                ("gpusPerNodePerGenServer", size(|l| l.tasks_per_node(l.generation.world_size))),
                ("totalNodes", size(|l| l.total_nodes)),
                ("totalGpus", size(|l| l.total_gpus())),
                ("testOutputDir", OutputDir),
                ("ctPrecheckEnabled", PrecheckEnabled),
                ("ctPrecheckTimeout", PrecheckTimeout),
            ],
        },
        TestRule {
            kind: TestKind::CtxOnly,
            config_dirs: UNIFIED_CONFIG_DIRS,
            roles: &[RoleRule {
                role: &AGGREGATED,
                ucx: false,
                env: &[Config(Worker), Config(CtxWorker)],
                command: EVERYTHING,
            }],
            job_env: &[],
            commands: SERVER_COMMANDS,
            variables: SERVER_VARIABLES,
            precheck_commands: &[],
        },
        TestRule {
            kind: TestKind::GenNoContext,
            config_dirs: UNIFIED_CONFIG_DIRS,
            roles: &[RoleRule {
                role: &AGGREGATED,
                ucx: true,
                env: &[WHEN_NO_CONTEXT, Config(Worker), Config(GenWorker)],
                command: EVERYTHING,
            }],
            job_env: &[WHEN_NO_CONTEXT],
            commands: SERVER_COMMANDS,
            variables: SERVER_VARIABLES,
            precheck_commands: &[],
        },
        TestRule {
            kind: TestKind::Aggregated,
            config_dirs: &[AGGREGATED_CONFIGS, DISAGGREGATED_CONFIGS],
            roles: &[RoleRule {
                role: &AGGREGATED,
                ucx: false,
                env: &[Config(ServerEntry)],
                command: EVERYTHING,
            }],
            job_env: &[],
            commands: SERVER_COMMANDS,
            variables: SERVER_VARIABLES,
            precheck_commands: &[],
        },
    ],
};

const UNIFIED_GEN_ENV: &[EnvSource] = &[
    WHEN_NO_CONTEXT,
    WHEN_GEN_ONLY,
    When(Run::GenOnly, QUEUE_SIZE, QueueSize),
    JIT_DIR,
    HF_HOME,
    Config(Worker),
    Config(GenWorker),
];

const UNIFIED_CTX_ENV: &[EnvSource] =
    &[WHEN_GEN_ONLY, JIT_DIR, HF_HOME, Config(Worker), Config(CtxWorker)];

const UNIFIED_CONFIG_DIRS: &[&str] =
    &[DISAGGREGATED_CONFIGS, AGGREGATED_CONFIGS, DISAGG_CONFIGS, WIDEEP_CONFIGS];

const SERVER_COMMANDS: &[(&str, CommandText)] = &[
    ("partialPytestCommand", WithoutOwnEnvironment(&AGGREGATED)),
    ("pytestCommand", Whole(&AGGREGATED)),
];

const SERVER_VARIABLES: &[(&str, Variable)] = &[
    ("configYamlPath", ConfigPath),
    ("gpusPerNode", size(|l| l.gpus_per_node)),
    ("gpusPerNodePerServer", size(|l| l.tasks_per_node(l.one_server))),
    ("nodesPerServer", size(|l| l.nodes(l.one_server))),
    ("totalNodes", size(|l| l.total_nodes)),
    ("world_size", size(|l| l.full_world_size())),
    ("testOutputDir", OutputDir),
];

impl Generation {
    /// The rules themselves.
    pub fn rules(self) -> &'static RuleSet {
        match self {
            Self::Classic => &CLASSIC,
            Self::Unified => &UNIFIED,
        }
    }
}

impl RuleSet {
    /// The rules of a kind of test; `None` when this generation has no such tests.
    pub fn test(&self, kind: TestKind) -> Option<&'static TestRule> {
        self.tests.iter().find(|rule| rule.kind == kind)
    }
}

impl TestRule {
    /// Whether its servers' caches are checked before they start.
    pub fn has_precheck(&self) -> bool {
        self.roles.iter().any(|rule| rule.role.purpose == Purpose::Check)
    }
}

/// Whether a mode measures the generation servers alone.
pub fn is_gen_only(mode: &str) -> bool {
    mode.contains("gen_only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_is_named_once_in_a_test() {
        for rules in Generation::ALL.map(Generation::rules) {
            for test in rules.tests {
                let names: std::collections::BTreeSet<_> =
                    test.roles.iter().map(|rule| rule.role.name).collect();
                assert_eq!(names.len(), test.roles.len());
            }
        }
    }
}
