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
#[cfg(feature = "cli")]
pub mod table;
pub mod task;
pub mod verify;

use crate::plan::content::Content;
use crate::plan::secret::is_secret;
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
    let Plan { roles, suite, job_env, secrets, .. } = &mut plan;
    let (unused, base) = match suite {
        Some(suite) => (Some(&mut suite.unused_roles), Some(&mut suite.base_command.env)),
        None => (None, None),
    };
    let roles = roles.values_mut().chain(unused.into_iter().flat_map(|roles| roles.values_mut()));
    let mut roles: Vec<_> = roles.collect();
    for content in roles.iter_mut().flat_map(|role| role.files.values_mut()) {
        hide(content, secrets);
    }
    let environments = roles
        .into_iter()
        .flat_map(|role| [&mut role.export, &mut role.env, &mut role.own.env])
        .chain(base)
        .chain([job_env]);
    for env in environments {
        for secret in &*secrets {
            env.replace(secret, &hidden);
        }
    }
    plan
}

/// Hides what stands under a secret's name in a file.
fn hide(content: &mut Content, secrets: &[String]) {
    match content {
        Content::List(items) => items.iter_mut().for_each(|item| hide(item, secrets)),
        Content::Map(entries) => {
            for (name, value) in entries {
                match is_secret(name, secrets) {
                    true => *value = Content::Text(Template::literal(HIDDEN)),
                    false => hide(value, secrets),
                }
            }
        }
        _ => {}
    }
}

/// `NAME=VALUE` lines of the plan's sizes, to be sourced by a shell.
pub fn env(plan: &Plan) -> String {
    let suite = plan.suite.as_ref();
    let sizes = suite.into_iter().flat_map(|suite| &suite.variables);
    let sizes = sizes.map(|(name, value)| (name.as_str(), value.as_str()));
    let nodes = plan.job.nodes.value.to_string();
    let tasks = plan.job.ntasks.value.to_string();
    let job = [
        ("DISAGG_NODES", nodes.as_str()),
        ("DISAGG_NTASKS", tasks.as_str()),
        ("DISAGG_WORKSPACE", plan.workspace.as_str()),
    ];
    let of_suite = suite.into_iter().flat_map(|suite| {
        [
            ("DISAGG_LLMAPI_LAUNCH", if suite.llmapi_launch { "1" } else { "0" }),
            ("DISAGG_TEST_ID", suite.test.id.as_str()),
            ("DISAGG_MODE", suite.test.mode.as_str()),
        ]
    });
    let job = job.into_iter().chain(of_suite);
    sizes.chain(job).map(|(name, value)| format!("{name}={}\n", quote::word(value))).collect()
}
