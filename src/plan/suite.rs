// SPDX-License-Identifier: Apache-2.0
//! What only plans of the test suite have: the test, the rules, and what launch scripts of
//! pipelines know by name.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::command::BaseCommand;
use super::role::Roles;
use super::test_id::{Generation, Test};

/// The part of a plan that the test suite's rules make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Suite {
    /// The generation of rules that was followed.
    pub rules: Generation,
    /// Why these rules were followed.
    #[serde(default)]
    pub rules_reason: String,
    /// The test.
    pub test: Test,
    /// Whether the servers run under `trtllm-llmapi-launch`.
    pub llmapi_launch: bool,
    /// The command that every role's command started from.
    pub base_command: BaseCommand,
    /// Roles of the rules that this test has no steps of: drafts of launch scripts refer to their
    /// commands all the same.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub unused_roles: Roles,
    /// The check that caches travel between the servers; none in tests that have no such check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precheck: Option<Precheck>,
    /// The name of the pipeline's stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// The launch script's variables for the sizes, by the names that run scripts know, in the order
    /// in which it exports them.
    pub variables: IndexMap<String, String>,
    /// The variable that tells one start of the test from another in all of its steps
    /// (`JOB.RESTART.PID`); the launch sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_token: Option<String>,
    /// The directory that the test writes into; the launch creates it.
    pub output_dir: String,
    /// D, the source tree.
    pub source_dir: String,
    /// M, the models.
    pub models_dir: String,
}

/// The check that caches travel between the servers, before any of them starts: the steps of
/// [`super::Plan::checks`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precheck {
    /// Whether it runs.
    pub enabled: bool,
    /// How long each of its steps may take, in seconds.
    pub timeout_s: u32,
}
