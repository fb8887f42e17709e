// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg launch`.

use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::input::{Context, handover};
use disagg::run::launch::{self, Allocation, LaunchError, Limits, Settings};
use disagg::run::workspace::{self, WorkspaceError};

use crate::args::LaunchArgs;
use crate::{Failure, Outcome, report};

pub fn run(args: &LaunchArgs, context: &Context) -> Outcome {
    let settings = Settings {
        stagger: args.stagger,
        grace: args.grace,
        grace_after_benchmark: args.grace_after_benchmark,
        limits: args.limit.unwrap_or_default(),
        max_failed: 0.0,
    };
    let found = launch::find_plan(
        args.plan.as_deref(),
        args.workspace.as_deref(),
        (context.env)(handover::VARIABLE),
    )
    .map_err(refused)?;
    let allocation = Allocation::from_env(context.env).map_err(refused)?;
    allocation.check(&found.plan, context.env).map_err(refused)?;
    let sees_ready = found.plan.roles.values().any(|role| role.ready.is_some());
    if settings.limits.ready != Limits::default().ready && !sees_ready {
        let message = "--limit ready=… has no effect: no role of the plan says when it is ready";
        report(&[Diagnostic::warning(message)]);
    }
    if !found.in_workspace {
        workspace::write(&found.plan, false).map_err(|error| match error {
            WorkspaceError::Occupied { .. } => refused(error),
            error => Failure::Other(error.to_string()),
        })?;
    }
    let result = launch::run(&found.plan, &allocation, settings).map_err(|error| match error {
        LaunchError::Command(_) | LaunchError::Descriptors(_) => refused(error),
        error => Failure::Other(error.to_string()),
    })?;
    Ok(if result.verdict.kind.is_passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Diagnostic::error(error.to_string()).into()
}
