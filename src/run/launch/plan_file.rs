// SPDX-License-Identifier: Apache-2.0
//! The plan of a launch: from a given file, from the workspace, or from the job's environment, where
//! the SPANK plugin puts it.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::input::handover::{self, HandoverError, VARIABLE};
use crate::input::source;
use crate::output::files;
use crate::plan::{BadPlan, Plan};

/// Why there is no plan to launch.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No plan is given.
    #[error(
        "no plan given: pass --workspace or --plan, or submit with sbatch --disagg-config, which sets \
         {VARIABLE}"
    )]
    NotGiven,
    /// The workspace has no plan.
    #[error("{path} is missing: write it with `slurm-disagg submit --dry-run --workspace DIR …`", path = .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(Diagnostic),
    /// It is not a plan.
    #[error("{place}: {error}")]
    Bad {
        /// The file.
        place: String,
        /// Why.
        #[source]
        error: BadPlan,
    },
    /// The variable has no plan.
    #[error(transparent)]
    HandedOver(#[from] HandoverError),
    /// The plan belongs to another workspace.
    #[error(
        "the plan in {given} belongs to workspace {planned}: launch with --workspace {planned}, or \
         plan again"
    )]
    Elsewhere {
        /// The workspace that was given.
        given: PathBuf,
        /// The plan's.
        planned: String,
    },
}

/// A plan, and whether it comes from its workspace.
#[derive(Debug)]
pub struct Found {
    /// The plan.
    pub plan: Plan,
    /// Whether it was read from the workspace.
    pub in_workspace: bool,
}

/// The plan from a file, from a workspace, or from the environment variable.
///
/// # Errors
/// [`PlanError`].
pub fn find(
    file: Option<&Path>,
    workspace: Option<&Path>,
    variable: Option<String>,
) -> Result<Found, PlanError> {
    if let Some(file) = file {
        return Ok(Found { plan: read(file)?, in_workspace: false });
    }
    if let Some(workspace) = workspace {
        let path = workspace.join(files::PLAN);
        if !path.exists() {
            return Err(PlanError::Missing(path));
        }
        let plan = read(&path)?;
        let same = |path: &Path| path.canonicalize().ok();
        if same(Path::new(&plan.workspace)) != same(workspace) {
            let (given, planned) = (workspace.to_owned(), plan.workspace);
            return Err(PlanError::Elsewhere { given, planned });
        }
        return Ok(Found { plan, in_workspace: true });
    }
    let value = variable.ok_or(PlanError::NotGiven)?;
    Ok(Found { plan: handover::read(&value)?, in_workspace: false })
}

fn read(path: &Path) -> Result<Plan, PlanError> {
    let place = path.display().to_string();
    let source = source::read(path, &place).map_err(PlanError::Unreadable)?;
    Plan::from_json(&source.text).map_err(|error| PlanError::Bad { place, error })
}
