// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg launch`: starts the steps of a plan in a job, watches them, and ends the job with a
//! verdict as soon as a server is lost or the benchmark has ended.

mod addresses;
pub mod allocation;
mod cause;
pub mod command;
mod directory;
mod environment;
mod files;
pub mod junit;
pub mod limits;
mod log;
mod machine;
pub mod pdeathsig;
mod plan_file;
mod ports;
mod probe;
mod process;
mod ranks;
mod ready_file;
pub mod srun_output;
mod step_files;
pub(crate) mod summary;
mod supervisor;
mod watch;
mod work;

use std::io;
use std::time::Duration;

pub use addresses::NoAddress;
pub use allocation::Allocation;
pub use directory::{DirectoryError, RUNS};
pub use limits::Limits;
pub use plan_file::{PlanError, find as find_plan};
pub use process::TooFewDescriptors;

use crate::plan::{Plan, step};
use crate::run::figures::Search;
use crate::run::result::{Phase, PlanSummary, RunResult, SCHEMA, StepResult, Verdict, VerdictKind};
use crate::run::workspace::WorkspaceError;

/// The settings of a launch.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Time between the starts of two steps.
    pub stagger: Duration,
    /// Time between SIGTERM and SIGKILL after a failure.
    pub grace: Duration,
    /// Time between SIGTERM and SIGKILL after the benchmark has ended by itself.
    pub grace_after_benchmark: Duration,
    /// The time limits of the phases.
    pub limits: Limits,
    /// The part of the benchmark's requests that may fail, in percent; the plan sets it.
    pub max_failed: f64,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The run's directory cannot be created.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The plan's files cannot be written.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// A step cannot be started as the plan has it.
    #[error("the plan cannot be launched: {0}")]
    Command(#[from] command::CommandError),
    /// A node has no address.
    #[error(transparent)]
    Address(#[from] NoAddress),
    /// The plan has no JSON form.
    #[error("the plan cannot be written: {0}")]
    Json(#[from] serde_json::Error),
    /// The limit of open files is too low.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// The system refuses what the supervisor needs.
    #[error("steps cannot be supervised: {0}")]
    System(#[from] io::Error),
}

/// Runs a plan; the verdict in the result is the outcome.
///
/// # Errors
/// [`LaunchError`]: nothing was started.
pub fn run(
    plan: &Plan,
    allocation: &Allocation,
    mut settings: Settings,
) -> Result<RunResult, LaunchError> {
    let mut run = allocation.run.clone();
    let summary = PlanSummary::new(plan)?;
    let addresses = addresses::of_nodes(plan, &allocation.nodes)?;
    let mut work = work::Work::new(plan, &allocation.nodes, &addresses)?;
    let limit = process::raise_descriptor_limit(work.steps.len())?;
    let directory = directory::RunDirectory::create(plan, &mut run.id)?;
    let search = Search::new(plan, Some(&run.id));
    let figures = search.stamps().map(|before| (search, before));
    step_files::prepare(plan)?;
    let clock = supervisor::Clock::start();
    let precheck = plan.suite.as_ref().and_then(|suite| suite.precheck);
    let precheck = precheck.map(|check| Duration::from_secs(check.timeout_s.into()));
    (settings.limits.precheck, settings.max_failed) = (precheck, plan.max_failed.value);
    // What the command line says wins.
    let ready = plan.engine.as_ref().and_then(|engine| engine.ready_limit.as_ref());
    if let Some(ready) = ready.filter(|_| settings.limits.ready == Limits::default().ready) {
        settings.limits.ready = Some(Duration::from_secs(ready.value.into()));
    }
    let result = RunResult {
        schema: SCHEMA,
        run,
        plan: summary,
        workspace: plan.workspace.clone(),
        nodes: allocation.nodes.clone(),
        url: step::url(plan, &addresses),
        started: clock.now(),
        ended: None,
        phase: work.steps.first().map_or(Phase::Start, StepResult::phase),
        verdict: Verdict::new(VerdictKind::Running, "the run is not over"),
        steps: std::mem::take(&mut work.steps),
        figures: Vec::new(),
        junit: None,
    };
    work.ready_file = match (&plan.engine, &result.url) {
        (Some(engine), Some(url)) => {
            let nodes = &allocation.nodes;
            ready_file::content(plan, engine, url, &result.run.id, nodes, &addresses)?
        }
        _ => String::new(),
    };
    let watches = work.starts.iter().map(|start| start.watch.clone()).collect();
    let machine = machine::Machine::new(result, watches, settings);
    let supervisor = supervisor::Supervisor::new(machine, clock, work, directory, limit, figures)?;
    Ok(supervisor.run())
}
