// SPDX-License-Identifier: Apache-2.0
//! Where the launch takes its plan from: a file that is named, the workspace's, or what the SPANK
//! plugin put into the job's environment.

use std::path::{Path, PathBuf};

use crate::diagnostic::Diagnostic;
use crate::input::source;
use crate::output::files;
use crate::plan::{BadPlan, Plan};

/// The variable with the plan, or, where that would be too long, the path of a file with it.
pub const PLAN_VARIABLE: &str = "SLURM_DISAGG_PLAN";

/// Why there is no plan to launch.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Nobody says which.
    #[error(
        "which plan? Give --workspace DIR (the one of `slurm-disagg submit`) or --plan FILE, or \
         submit with sbatch --disagg-config, which sets {PLAN_VARIABLE}"
    )]
    NotGiven,
    /// The workspace has none.
    #[error("{path} is missing: write it with `slurm-disagg submit --dry-run --workspace DIR …`", path = .0.display())]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(Diagnostic),
    /// What is there is no plan.
    #[error("{place}: {error}")]
    Bad {
        /// The file or variable.
        place: String,
        /// Why.
        #[source]
        error: BadPlan,
    },
    /// The plan is another workspace's.
    #[error(
        "the plan in {given} is for the workspace {planned}: its steps write there; launch with \
         --workspace {planned}, or plan again"
    )]
    Elsewhere {
        /// The workspace that was given.
        given: PathBuf,
        /// The plan's.
        planned: String,
    },
}

/// A plan, and whether it already lies in its workspace.
#[derive(Debug)]
pub struct Found {
    /// The plan.
    pub plan: Plan,
    /// Whether it is the workspace's own file.
    pub in_workspace: bool,
}

/// The plan: of a file, of a workspace, or of the environment's variable.
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
    let plan = match value.starts_with('/') {
        true => read(Path::new(&value))?,
        false => Plan::from_json(&value)
            .map_err(|error| PlanError::Bad { place: PLAN_VARIABLE.to_owned(), error })?,
    };
    Ok(Found { plan, in_workspace: false })
}

fn read(path: &Path) -> Result<Plan, PlanError> {
    let place = path.display().to_string();
    let source = source::read(path, &place).map_err(PlanError::Unreadable)?;
    Plan::from_json(&source.text).map_err(|error| PlanError::Bad { place, error })
}
