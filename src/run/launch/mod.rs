// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg launch`: starts the steps of a plan in a job, watches every one of them, and ends
//! the job with a verdict as soon as a server is lost or the benchmark is over.

pub mod allocation;
mod cause;
mod command;
mod directory;
mod environment;
mod files;
mod junit;
pub mod limits;
mod messages;
mod plan_file;
mod probe;
mod say;
mod step;
mod summary;
mod supervisor;
mod tail;
pub mod tie;

use std::io;
use std::time::Duration;

pub use allocation::Allocation;
pub use directory::{DirectoryError, RUNS};
pub use limits::Limits;
pub use plan_file::{PLAN_VARIABLE, PlanError, find as find_plan};

use crate::plan::Plan;
use crate::run::result::{PlanSummary, RunResult};
use crate::run::workspace::WorkspaceError;
use crate::slurm::argument::ArgumentError;

/// What the user may choose.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Time between the starts of two steps.
    pub stagger: Duration,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How long the phases may take.
    pub limits: Limits,
    /// Whether servers are asked for their health.
    pub ready: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            stagger: Duration::ZERO,
            grace: Duration::from_secs(10),
            limits: Limits::default(),
            ready: false,
        }
    }
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The run's directory cannot be made.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The plan's files cannot be written.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A value of the plan cannot stand in a command line.
    #[error("the plan cannot be launched: {0}")]
    Argument(#[from] ArgumentError),
    /// The plan has no JSON form.
    #[error("the plan cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The system refuses what watching needs.
    #[error("steps cannot be watched: {0}")]
    System(#[from] io::Error),
}

/// Runs a plan to its end; every way in which it can end has a verdict in the result.
///
/// # Errors
/// [`LaunchError`]: nothing was started.
pub fn run(
    plan: &Plan,
    allocation: &Allocation,
    settings: Settings,
) -> Result<RunResult, LaunchError> {
    let mut run = allocation.run.clone();
    let summary = PlanSummary::new(plan)?;
    let steps = supervisor::steps(plan, &allocation.nodes)?;
    let directory = directory::RunDirectory::create(plan, &mut run.id)?;
    let supervisor =
        supervisor::Supervisor::new(plan, allocation, settings, directory, run, summary, steps)?;
    Ok(supervisor.run())
}
