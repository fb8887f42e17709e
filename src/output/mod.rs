// SPDX-License-Identifier: Apache-2.0
//! What files and people get from a plan.

pub mod derive;
pub mod diff;
pub mod explain;
pub mod exports;
pub mod files;
pub mod instance;
pub mod quote;
pub mod script;
pub mod table;
pub mod task;
pub mod verify;

use crate::plan::{Plan, Template};

/// What is shown in place of a secret.
pub const HIDDEN: &str = "********";

/// A variable's value as it may be shown.
pub fn shown<'v>(plan: &Plan, name: &str, value: &'v str) -> &'v str {
    if plan.is_secret(name) { HIDDEN } else { value }
}

/// The plan with its secrets hidden, for showing it.
pub fn without_secrets(plan: &Plan) -> Plan {
    let mut plan = plan.clone();
    plan.changed_config = None;
    let hidden = Template::literal(HIDDEN);
    let environments = plan
        .roles
        .values_mut()
        .chain(plan.unused_roles.values_mut())
        .flat_map(|role| [&mut role.export, &mut role.env, &mut role.own.env])
        .chain([&mut plan.job_env, &mut plan.base_command.env]);
    for env in environments {
        for secret in &plan.secrets {
            env.replace(secret, &hidden);
        }
    }
    plan
}

/// `NAME=VALUE` lines of the plan's sizes, to be sourced by a shell.
pub fn env(plan: &Plan) -> String {
    let sizes = plan.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let nodes = plan.job.nodes.value.to_string();
    let tasks = plan.job.ntasks.value.to_string();
    let job = [
        ("DISAGG_NODES", nodes.as_str()),
        ("DISAGG_NTASKS", tasks.as_str()),
        ("DISAGG_LLMAPI_LAUNCH", if plan.llmapi_launch { "1" } else { "0" }),
        ("DISAGG_TEST_ID", plan.test.id.as_str()),
        ("DISAGG_MODE", plan.test.mode.as_str()),
        ("DISAGG_WORKSPACE", plan.workspace.as_str()),
    ];
    sizes.chain(job).map(|(name, value)| format!("{name}={}\n", quote::word(value))).collect()
}
