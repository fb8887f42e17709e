// SPDX-License-Identifier: Apache-2.0
//! The generations of rules, as data: what each kind of step unsets, sets and runs.
//!
//! A rule that both generations share is not here but in the planner itself.

use super::role::RoleKind;
use super::test_id::Generation;

/// One generation's rules.
#[derive(Debug)]
pub struct RuleSet {
    /// Whose rules these are.
    pub generation: Generation,
    /// What each kind of step gets.
    pub roles: &'static [RoleRule],
    /// Variables of the whole job.
    pub job_env: &'static [EnvSource],
}

/// What one kind of step gets.
#[derive(Debug)]
pub struct RoleRule {
    /// The kind.
    pub kind: RoleKind,
    /// Variables that are removed before any is set.
    pub unset: &'static [&'static str],
    /// Where its variables come from, in order; a later value of a name wins.
    pub env: &'static [EnvSource],
}

/// A source of environment variables.
#[derive(Debug, Clone, Copy)]
pub enum EnvSource {
    /// A variable that only tests of the generation servers alone have.
    GenOnly(&'static str, GenOnlyValue),
    /// `environment.worker_env_var` of the configuration.
    WorkerEnv,
    /// `environment.server_env_var`.
    ServerEnv,
    /// `environment.benchmark_env_var`.
    BenchmarkEnv,
    /// The variables of the base command.
    BaseCommand,
}

/// The value of a variable of a gen_only test.
#[derive(Debug, Clone, Copy)]
pub enum GenOnlyValue {
    /// A constant.
    Constant(&'static str),
    /// The configuration's concurrency, so that all requests are queued before any is served.
    Concurrency,
}

use EnvSource::{BaseCommand, BenchmarkEnv, GenOnly, ServerEnv, WorkerEnv};

const GEN_ONLY: EnvSource =
    GenOnly("TRTLLM_DISAGG_BENCHMARK_GEN_ONLY", GenOnlyValue::Constant("1"));
const NO_TRANSFER_OVERLAP: EnvSource =
    GenOnly("TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP", GenOnlyValue::Constant("1"));
const QUEUE_SIZE: EnvSource = GenOnly("TLLM_BENCHMARK_REQ_QUEUES_SIZE", GenOnlyValue::Concurrency);

/// Ids `disagg_upload-<config>`: both kinds of workers have one environment.
pub static CLASSIC: RuleSet = RuleSet {
    generation: Generation::Classic,
    roles: &[
        RoleRule {
            kind: RoleKind::Gen,
            unset: &["UCX_TLS"],
            env: &[GEN_ONLY, NO_TRANSFER_OVERLAP, QUEUE_SIZE, WorkerEnv, BaseCommand],
        },
        RoleRule {
            kind: RoleKind::Ctx,
            unset: &["UCX_TLS"],
            env: &[GEN_ONLY, NO_TRANSFER_OVERLAP, QUEUE_SIZE, WorkerEnv, BaseCommand],
        },
        RoleRule {
            kind: RoleKind::DisaggServer,
            unset: &[],
            env: &[GEN_ONLY, ServerEnv, BaseCommand],
        },
        RoleRule { kind: RoleKind::Benchmark, unset: &[], env: &[BenchmarkEnv, BaseCommand] },
    ],
    job_env: &[GEN_ONLY],
};

impl Generation {
    /// The rules themselves.
    pub fn rules(self) -> &'static RuleSet {
        match self {
            Self::Classic => &CLASSIC,
        }
    }
}

/// Whether a mode measures the generation servers alone; such a test has no context servers.
pub fn is_gen_only(mode: &str) -> bool {
    mode.contains("gen_only")
}
