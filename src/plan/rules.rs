// SPDX-License-Identifier: Apache-2.0
//! The rule sets as tables that they share. Each line names the sets that it holds for, so a
//! difference between sets is a line that does not name `ALL`.
//!
//! What all sets have in common is not here but in the planner.
//! Source: the launchers of the test suite, `jenkins/scripts/perf`.

use super::planner::sizes::Sizes;
use super::role::Purpose;
use super::test_id::{Generation, Mode, TestKind};
use super::ucx;

/// Rule sets, one bit each.
pub type Sets = u8;
const NONE: Sets = 0;
const CLASSIC: Sets = 1 << Generation::Classic as u8;
const UNIFIED: Sets = 1 << Generation::Unified as u8;
const CURRENT: Sets = 1 << Generation::Current as u8;
const NEW: Sets = UNIFIED | CURRENT;
const ALL: Sets = CLASSIC | NEW;

/// The mode of a disaggregated test comes from its id, not from `benchmark.mode`.
pub const MODE_IN_ID: Sets = NEW;
/// A test id may have a word behind its mode: [`MODIFIERS`].
pub const MODIFIED_IDS: Sets = CURRENT;
/// The first of several concurrencies counts, as the test sends that many; else the largest.
pub const QUEUE_OF_FIRST: Sets = CURRENT;
/// The queue is no larger than what the generation server can hold, also in a given command.
pub const QUEUE_CAPPED: Sets = UNIFIED;
/// The same where no command is given: the launcher of pipelines does not cap, the local one does.
pub const OWN_QUEUE_CAPPED: Sets = NEW;
/// The time of a precheck's step has a lower and an upper limit.
pub const PRECHECK_LIMITS: Sets = CURRENT;
/// The precheck's switch takes `true`, `off` and the like, and no other words; else only 1 is on.
pub const PRECHECK_WORDS: Sets = CURRENT;
/// The precheck's steps get `LLM_MODELS_ROOT`.
pub const PRECHECK_MODELS: Sets = CURRENT;
/// The test of a list is chosen as pytest-split does, where the command has its options.
pub const SPLITS: Sets = CURRENT;
/// A test that the suite skips has no precheck.
pub const WAIVES: Sets = CURRENT;
/// The test writes into a directory of its own in its `--output-dir`, where it also looks for the
/// logs of servers and for a mark that they are complete.
pub const TEST_DIRS: Sets = NEW;
/// The variable that tells one start of the test from another.
pub const RUN_TOKEN: (Sets, &str) = (NEW, "TRTLLM_PERF_RUN_TOKEN");
/// What steps that are no ranks run without, by the beginning of its name, and what they keep.
pub const RANK_VARIABLES: (Sets, [&str; 4], [&str; 2]) =
    (NEW, ["MPI", "OMPI", "PMI", "SLURM"], ["SLURM_JOB_ID", "SLURM_PROCID"]);
/// The test looks for its configuration where [`TestKind::config_variable`] points.
pub const CONFIG_FOLDERS: Sets = CURRENT;

/// Words that may stand behind the mode of a test id, and behind which modes.
pub const MODIFIERS: &[(&str, &[Mode])] = &[("time_breakdown", &[Mode::E2e, Mode::CtxOnly])];

/// A role of the test suite, in one kind of test.
#[derive(Debug)]
pub struct RoleRule {
    /// Its name, as `DISAGG_SERVING_TYPE` has it (without an index).
    pub name: &'static str,
    sets: Sets,
    kind: TestKind,
    /// What it is there for.
    pub purpose: Purpose,
    /// How many it has and how large each is.
    pub size: Size,
    /// Its log in the workspace, as a template.
    pub log: &'static str,
    /// The same below the directory of [`TEST_DIRS`].
    pub test_log: Option<&'static str>,
    /// The mark there that the log is complete.
    pub done: Option<&'static str>,
    /// The file in the test's directory after which it may end.
    pub ends_after: Option<&'static str>,
    /// The sets in which UCX is set up for it.
    pub ucx: Sets,
    /// The sets in which it keeps the options that say where results and coverage go.
    pub output: Sets,
    /// What it runs.
    pub command: Command,
    env: &'static [Line],
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

/// What a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// The base command under `trtllm-llmapi-launch`, where the test uses it at all.
    Launched,
    /// The base command without the launcher.
    Plain,
    /// The check of the servers that this word names.
    Precheck(&'static str),
}

const fn role(
    name: &'static str,
    purpose: Purpose,
    size: Size,
    log: &'static str,
    env: &'static [Line],
) -> RoleRule {
    let (sets, kind, command) = (ALL, TestKind::Disaggregated, Command::Launched);
    RoleRule {
        name,
        sets,
        kind,
        purpose,
        size,
        log,
        test_log: None,
        done: None,
        ends_after: None,
        ucx: ALL,
        output: CLASSIC,
        command,
        env,
    }
}

/// A role that serves until the benchmark has written that it is done.
const fn server(one: RoleRule) -> RoleRule {
    RoleRule { test_log: Some(one.log), ends_after: Some("benchmark_status.0.txt"), ..one }
}

const fn check(
    name: &'static str,
    servers: &'static str,
    size: Size,
    log: &'static str,
    test_log: &'static str,
    env: &'static [Line],
) -> RoleRule {
    let (command, test_log) = (Command::Precheck(servers), Some(test_log));
    RoleRule { sets: NEW, command, test_log, ..role(name, Purpose::Check, size, log, env) }
}

/// The one server of a test without context and generation servers, which measures itself.
const fn one_server(kind: TestKind, ucx: Sets, env: &'static [Line]) -> RoleRule {
    let log = "aggregated_server.log";
    let one = role("AGGREGATED", Purpose::Client, Size::OneServer, log, env);
    RoleRule { sets: NEW, kind, ucx, output: NEW, ..one }
}

static ROLES: &[RoleRule] = &[
    RoleRule {
        done: Some("gen_server_${.index}.done"),
        ..server(role("GEN", Purpose::Server, Size::Generation, "gen_server_${.index}.log", GEN))
    },
    server(role("CTX", Purpose::Server, Size::Context, "ctx_server_${.index}.log", CTX)),
    server(RoleRule {
        ucx: NEW,
        command: Command::Plain,
        ..role("DISAGG_SERVER", Purpose::Router, Size::Frontend, "disagg_server.log", ROUTER)
    }),
    RoleRule {
        ucx: NEW,
        output: ALL,
        command: Command::Plain,
        ..role("BENCHMARK", Purpose::Client, Size::Frontend, "benchmark.log", CLIENT)
    },
    check(
        "GEN_PRECHECK",
        "gen",
        Size::Generation,
        "gen_precheck_${.index}.log",
        "cache_transceiver_precheck/logs/gen_${.index}.log",
        GEN,
    ),
    check(
        "CTX_PRECHECK",
        "ctx",
        Size::Context,
        "ctx_precheck_${.index}.log",
        "cache_transceiver_precheck/logs/ctx_${.index}.log",
        CTX,
    ),
    one_server(TestKind::CtxOnly, NONE, ONE_CTX),
    RoleRule {
        // What it measures is read from its log.
        log: "gen_server_0.log",
        test_log: Some("gen_server_0.log"),
        ..one_server(TestKind::GenNoContext, NEW, ONE_GEN)
    },
    one_server(TestKind::Aggregated, NONE, ONE_ENTRY),
];

/// A variable of a role in some runs; a later one of a name wins.
type Line = (Sets, Option<Run>, EnvSource);

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

/// A source of environment variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvSource {
    /// A variable with this value, which may refer to others.
    Set(&'static str, &'static str),
    /// As many requests as are queued before any is served.
    Queue,
    /// An environment string of the configuration.
    Config(EnvKey),
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

use EnvKey::{Benchmark, CtxWorker, GenWorker, Server, ServerEntry, Worker};
use EnvSource::Config;

const GEN_ONLY_RUN: Option<Run> = Some(Run::GenOnly);
const NO_CONTEXT: Option<Run> = Some(Run::NoContext);

/// The variable of [`EnvSource::Queue`].
pub const QUEUE_SIZE: &str = "TLLM_BENCHMARK_REQ_QUEUES_SIZE";
/// Servers serve without context servers.
const GEN_ONLY: EnvSource = EnvSource::Set("TRTLLM_DISAGG_BENCHMARK_GEN_ONLY", "1");
/// The transfer of caches ends before decoding begins.
const NO_OVERLAP: EnvSource = EnvSource::Set("TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP", "1");
/// Each rank compiles kernels into a directory of its own.
const JIT_DIR: EnvSource =
    EnvSource::Set("FLASHINFER_JIT_DIR", "/tmp/flashinfer_jit_cache_${SLURM_LOCALID}");
const HF_HOME: EnvSource = EnvSource::Set("HF_HOME", "/tmp/hf_home");

const GEN: &[Line] = &[
    (ALL, NO_CONTEXT, GEN_ONLY),
    (CLASSIC, NO_CONTEXT, NO_OVERLAP),
    (CLASSIC, NO_CONTEXT, EnvSource::Queue),
    (NEW, GEN_ONLY_RUN, NO_OVERLAP),
    (NEW, GEN_ONLY_RUN, EnvSource::Queue),
    (NEW, None, JIT_DIR),
    (NEW, None, HF_HOME),
    (ALL, None, Config(Worker)),
    (NEW, None, Config(GenWorker)),
];
const CTX: &[Line] = &[
    (UNIFIED, GEN_ONLY_RUN, NO_OVERLAP),
    (NEW, None, JIT_DIR),
    (NEW, None, HF_HOME),
    (ALL, None, Config(Worker)),
    (NEW, None, Config(CtxWorker)),
];
const ROUTER: &[Line] = &[(ALL, NO_CONTEXT, GEN_ONLY), (ALL, None, Config(Server))];
const CLIENT: &[Line] = &[(ALL, None, Config(Benchmark))];
const ONE_CTX: &[Line] = &[(NEW, None, Config(Worker)), (NEW, None, Config(CtxWorker))];
const ONE_GEN: &[Line] = &[
    (CURRENT, None, JIT_DIR),
    (CURRENT, None, HF_HOME),
    (NEW, NO_CONTEXT, GEN_ONLY),
    (NEW, None, Config(Worker)),
    (NEW, None, Config(GenWorker)),
];
const ONE_ENTRY: &[Line] = &[(NEW, None, Config(ServerEntry))];
/// The variables of the whole job.
const JOB: &[Line] = &[(ALL, NO_CONTEXT, GEN_ONLY)];

/// A variable of the launch script.
#[derive(Debug, Clone, Copy)]
pub enum Export {
    /// Nothing: a variable that drafts refer to.
    Empty,
    /// The base command without the launcher, as shell text.
    WithoutLauncher,
    /// The whole command of a role.
    Whole(&'static str),
    /// The command of a role with the variables of the base command alone.
    WithoutOwnEnvironment(&'static str),
    /// The variables of a role without those of the base command.
    OwnEnvironment(&'static str),
    /// The script that each step runs.
    RunScript,
    /// The script that runs on every node before the servers start.
    InstallScript,
    /// The script that runs a precheck's step.
    PrecheckRunScript,
    /// The pipeline's stage, where it has a name.
    Stage,
    /// A number of the layout.
    Size(SizeOf),
    /// The configuration's path.
    ConfigPath,
    /// The directory that the test writes into.
    OutputDir,
    /// Whether the precheck runs: 1 or 0.
    PrecheckEnabled,
    /// How long the precheck may take, in seconds.
    PrecheckTimeout,
    /// `LLM_MODELS_ROOT=…` for the precheck's steps.
    PrecheckModels,
    /// The models, when the precheck runs.
    ModelsRoot,
}

/// Whose, under which name, and what.
type ExportLine = (Sets, &'static str, Export);

use Export::{OwnEnvironment, Size as Number, Whole, WithoutOwnEnvironment};

/// In the order in which the launch script exports them.
const EXPORTS: &[ExportLine] = &[
    (CLASSIC, "pytestCommandNoLLMAPILaunch", Export::WithoutLauncher),
    (CLASSIC, "pytestCommandWorker", Whole("GEN")),
    (NEW, "partialPytestCommandWorker", WithoutOwnEnvironment("GEN")),
    (NEW, "partialPytestCommandDisaggServer", WithoutOwnEnvironment("DISAGG_SERVER")),
    (NEW, "partialPytestCommandBenchmark", WithoutOwnEnvironment("BENCHMARK")),
    (NEW, "PYTEST_COMMON_VARS", Export::Empty),
    (NEW, "CTX_WORKER_ENV_VARS", OwnEnvironment("CTX")),
    (NEW, "GEN_WORKER_ENV_VARS", OwnEnvironment("GEN")),
    (NEW, "SERVER_ENV_VARS", OwnEnvironment("DISAGG_SERVER")),
    (NEW, "BENCHMARK_ENV_VARS", OwnEnvironment("BENCHMARK")),
    (NEW, "pytestCommandCTXWorker", Whole("CTX")),
    (NEW, "pytestCommandGENWorker", Whole("GEN")),
    (ALL, "pytestCommandDisaggServer", Whole("DISAGG_SERVER")),
    (ALL, "pytestCommandBenchmark", Whole("BENCHMARK")),
    (ALL, "runScript", Export::RunScript),
    (ALL, "installScript", Export::InstallScript),
    (NEW, "configYamlPath", Export::ConfigPath),
    (ALL, "numCtxServers", Number(|l| l.context.count)),
    (ALL, "numGenServers", Number(|l| l.generation.count)),
    (ALL, "gpusPerNode", Number(|l| l.gpus_per_node)),
    (ALL, "gpusPerCtxServer", Number(|l| l.context.world_size)),
    (ALL, "gpusPerGenServer", Number(|l| l.generation.world_size)),
    (ALL, "nodesPerCtxServer", Number(|l| l.nodes(l.context.world_size))),
    (ALL, "nodesPerGenServer", Number(|l| l.nodes(l.generation.world_size))),
    (NEW, "gpusPerNodePerCtxServer", Number(|l| l.tasks_per_node(l.context.world_size))),
    (NEW, "gpusPerNodePerGenServer", Number(|l| l.tasks_per_node(l.generation.world_size))),
    (ALL, "totalNodes", Number(|l| l.total_nodes)),
    (ALL, "totalGpus", Number(|l| l.total_gpus())),
    (NEW, "testOutputDir", Export::OutputDir),
    (CURRENT, "LLM_MODELS_ROOT", Export::ModelsRoot),
    (NEW, "ctPrecheckEnabled", Export::PrecheckEnabled),
    (NEW, "ctPrecheckTimeout", Export::PrecheckTimeout),
    (NEW, "stageName", Export::Stage),
    (NEW, "precheckRunScript", Export::PrecheckRunScript),
    (CURRENT, "ctPrecheckModelRootEnv", Export::PrecheckModels),
    (NEW, "pytestCommandCTXPrecheck", Whole("CTX_PRECHECK")),
    (NEW, "pytestCommandGENPrecheck", Whole("GEN_PRECHECK")),
];

/// Those of tests with one server.
const EXPORTS_OF_ONE_SERVER: &[ExportLine] = &[
    (NEW, "partialPytestCommand", WithoutOwnEnvironment("AGGREGATED")),
    (NEW, "pytestCommand", Whole("AGGREGATED")),
    (NEW, "runScript", Export::RunScript),
    (NEW, "installScript", Export::InstallScript),
    (NEW, "configYamlPath", Export::ConfigPath),
    (NEW, "gpusPerNode", Number(|l| l.gpus_per_node)),
    (NEW, "gpusPerNodePerServer", Number(|l| l.tasks_per_node(l.one_server))),
    (NEW, "nodesPerServer", Number(|l| l.nodes(l.one_server))),
    (NEW, "totalNodes", Number(|l| l.total_nodes)),
    (NEW, "world_size", Number(|l| l.full_world_size())),
    (NEW, "testOutputDir", Export::OutputDir),
];

/// A number of the layout.
type SizeOf = fn(&Sizes) -> u32;

/// The numbers of a plan's layout: of context and generation servers.
pub const LAYOUT_OF_SERVERS: &[(&str, SizeOf)] = &[
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
pub const LAYOUT_OF_ONE_SERVER: &[(&str, SizeOf)] = &[
    ("gpus_per_server", |l| l.one_server),
    ("nodes_per_server", |l| l.nodes(l.one_server)),
    ("gpus_per_node_per_server", |l| l.tasks_per_node(l.one_server)),
    ("world_size", Sizes::full_world_size),
];

/// Where configurations are, below the source tree, in the order of the classic rules.
pub const CONFIG_DIRS: [&str; 8] = [
    "tests/integration/defs/perf/disagg/test_configs/disagg/perf",
    "tests/integration/defs/perf/disagg/test_configs/wideep/perf",
    "tests/scripts/perf-sanity/disaggregated",
    "tests/scripts/perf-sanity/aggregated",
    "tests/scripts/perf/disaggregated",
    "tests/scripts/perf/aggregated",
    "tests/integration/defs/perf/disagg/test_configs/disagg/perf-sanity",
    "tests/integration/defs/perf/disagg/test_configs/wideep/perf-sanity",
];
/// The same in the order of the newer sets. The suite itself looks into the first alone.
const NEW_DIRS: [&str; 8] = {
    let [disagg, wideep, sanity, one_sanity, perf, one_perf, disagg_sanity, wideep_sanity] =
        CONFIG_DIRS;
    [sanity, perf, one_sanity, one_perf, disagg, wideep, disagg_sanity, wideep_sanity]
};
const ONE_SERVER_DIRS: [&str; 4] = [NEW_DIRS[2], NEW_DIRS[3], NEW_DIRS[0], NEW_DIRS[1]];

impl Generation {
    /// Whether it is one of these sets.
    pub fn is_in(self, sets: Sets) -> bool {
        sets & (1 << self as u8) != 0
    }

    /// A test of the generation servers alone has no context servers when `benchmark.mode`
    /// contains this.
    pub fn no_context_mark(self) -> &'static str {
        if self.is_in(CLASSIC) { "gen_only" } else { "gen_only_no_context" }
    }

    /// What UCX needs.
    pub fn ucx(self) -> &'static ucx::Table {
        match self {
            Self::Classic => &ucx::CLASSIC,
            Self::Unified => &ucx::BY_GPU,
            Self::Current => &ucx::BY_CLUSTER,
        }
    }

    /// How long each step of a precheck may take when the configuration does not say, in seconds.
    pub fn precheck_time(self) -> u32 {
        if self.is_in(CURRENT) { 1200 } else { 900 }
    }

    /// Whether servers are checked before they start.
    pub fn has_precheck(self, kind: TestKind) -> bool {
        self.roles(kind).any(|role| role.purpose == Purpose::Check)
    }

    /// The roles of a kind of test; none when these rules have no such tests.
    pub fn roles(self, kind: TestKind) -> impl Iterator<Item = &'static RoleRule> {
        ROLES.iter().filter(move |role| role.kind == kind && self.is_in(role.sets))
    }

    /// The sources of a role's variables, in order. Those of the base command come last, where the
    /// role runs it. Without a role, those of the whole job.
    pub fn env(self, role: Option<&'static RoleRule>, run: Run) -> impl Iterator<Item = EnvSource> {
        let lines = role.map_or(JOB, |role| role.env).iter();
        let holds =
            move |(sets, when, _): &&Line| self.is_in(*sets) && when.is_none_or(|when| when == run);
        lines.filter(holds).map(|(.., source)| *source)
    }

    /// The variables that the launch script exports, in order.
    pub fn exports(self, kind: TestKind) -> impl Iterator<Item = (&'static str, Export)> {
        let lines = match kind {
            TestKind::Disaggregated => EXPORTS,
            _ => EXPORTS_OF_ONE_SERVER,
        };
        lines
            .iter()
            .filter(move |(sets, ..)| self.is_in(*sets))
            .map(|(_, name, what)| (*name, *what))
    }

    /// Where configurations of a kind of test are, below the source tree, in order of preference.
    pub fn config_dirs(self, kind: TestKind) -> &'static [&'static str] {
        match (self, kind) {
            (Self::Classic, _) => &CONFIG_DIRS,
            (_, TestKind::Aggregated) => &ONE_SERVER_DIRS,
            _ => &NEW_DIRS,
        }
    }
}

impl RoleRule {
    /// Whether its steps learn their role from `DISAGG_SERVING_TYPE`.
    pub fn has_serving_type(&self) -> bool {
        self.kind == TestKind::Disaggregated
    }
}

impl Size {
    /// Whether a test may have several of that size.
    pub fn is_numbered(self) -> bool {
        matches!(self, Self::Generation | Self::Context)
    }
}

impl TestKind {
    /// The variable that names the folder in which the test suite looks for configurations.
    pub fn config_variable(self) -> &'static str {
        match self {
            Self::Aggregated => "AGG_CONFIG_FOLDER",
            _ => "DISAGG_CONFIG_FOLDER",
        }
    }
}

/// Whether a mode measures the generation servers alone.
pub fn is_gen_only(mode: &str) -> bool {
    mode.contains("gen_only")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_test_has_each_role_and_each_export_once() {
        let kinds = [
            TestKind::Disaggregated,
            TestKind::CtxOnly,
            TestKind::GenNoContext,
            TestKind::Aggregated,
        ];
        for rules in [Generation::Classic, Generation::Unified, Generation::Current] {
            for kind in kinds {
                let roles: Vec<_> = rules.roles(kind).map(|role| role.name).collect();
                assert_eq!(roles.iter().collect::<BTreeSet<_>>().len(), roles.len());
                let exports: Vec<_> = rules.exports(kind).map(|(name, _)| name).collect();
                assert_eq!(exports.iter().collect::<BTreeSet<_>>().len(), exports.len());
            }
        }
    }
}
