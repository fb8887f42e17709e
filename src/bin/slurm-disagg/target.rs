// SPDX-License-Identifier: Apache-2.0
//! The job that a person means by an id or by a workspace.

use std::path::{Path, PathBuf};

use disagg::diagnostic::Diagnostic;
use disagg::input::source;
use disagg::output::files;
use disagg::plan::{Plan, resolve};
use disagg::run::client::{Client, Trouble};
use disagg::run::follow::{Job, Role};
use disagg::run::pace::PATIENCE;
use disagg::run::submission;

use crate::Failure;

/// A job, and the way to it.
pub struct Target {
    pub job: Job,
    pub client: Client,
}

/// Finds the job that is meant.
pub fn find(text: &str) -> Result<Target, Failure> {
    match text.parse() {
        Ok(job_id) => by_id(job_id),
        Err(_) => by_workspace(Path::new(text)),
    }
}

fn by_id(job_id: u32) -> Result<Target, Failure> {
    let client = Client::default();
    let record = client.record(job_id, PATIENCE, None).map_err(|trouble| match trouble {
        Trouble::Silent(words) => Failure::Other(format!(
            "Slurm does not answer ({words}); try again, or name the workspace instead of the job"
        )),
        trouble => Failure::Other(trouble.to_string()),
    })?;
    let known = match &record {
        Some(_) => true,
        // Gone from the controller, or a record that cannot be read safely.
        None => {
            let queued = client.queued(&[job_id], PATIENCE, None).map_err(|e| e.to_string());
            let accounted = client.accounted(job_id, None).map_err(|e| e.to_string());
            !queued.map_err(Failure::Other)?.is_empty()
                || accounted.map_err(Failure::Other)?.is_some()
        }
    };
    if !known {
        let help = "name the workspace: what the run left there is shown even when Slurm has forgotten the job";
        let message = format!("Slurm knows no job {job_id}");
        return Err(Diagnostic::error(message).help(help).into());
    }
    let workspace =
        record.as_ref().and_then(|record| submission::workspace_of(record.std_out.as_deref()));
    let note =
        workspace.as_deref().and_then(|workspace| submission::note(workspace).ok().flatten());
    let note = note.filter(|note| note.job_id == job_id);
    let title = note.as_ref().map(|note| note.test.clone());
    let job = Job {
        job_id,
        roles: workspace.as_deref().map(roles).unwrap_or_default(),
        workspace,
        launcher: note.map(|note| note.launcher),
        title: title.or(record.map(|record| record.name)).unwrap_or_default(),
    };
    Ok(Target { job, client })
}

fn by_workspace(workspace: &Path) -> Result<Target, Failure> {
    let shown = workspace.display();
    let note = submission::note(workspace).map_err(|error| Diagnostic::error(error.to_string()))?;
    let Some(note) = note else {
        let message = format!("{shown} has no {}: no job was submitted from it", submission::NOTE);
        let help = "give the --workspace of a `slurm-disagg submit`, or a job's id";
        return Err(Diagnostic::error(message).help(help).into());
    };
    let workspace: PathBuf = workspace.to_owned();
    let job = Job {
        job_id: note.job_id,
        roles: roles(&workspace),
        workspace: Some(workspace),
        launcher: Some(note.launcher),
        title: note.test,
    };
    Ok(Target { job, client: Client { cluster: note.cluster } })
}

/// The steps of a workspace's plan; none when it cannot be read, as they are only shown.
fn roles(workspace: &Path) -> Vec<Role> {
    let plan = source::read(&workspace.join(files::PLAN), files::PLAN).ok();
    let plan = plan.and_then(|source| Plan::from_json(&source.text).ok());
    plan.map(|plan| roles_of(&plan)).unwrap_or_default()
}

/// The steps of a plan, as they are shown.
pub fn roles_of(plan: &Plan) -> Vec<Role> {
    let role = |instance: disagg::plan::Instance<'_>| Role {
        name: instance.name.clone(),
        log: resolve(&instance).log_file().into_owned(),
    };
    plan.instances().map(role).collect()
}
