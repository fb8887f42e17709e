// SPDX-License-Identifier: Apache-2.0
//! The job that an id or a workspace on the command line names.

use std::path::{Path, PathBuf};

use disagg::diagnostic::Diagnostic;
use disagg::input::source;
use disagg::output::files;
use disagg::plan::{Plan, resolve};
use disagg::run::client::{Client, SlurmError};
use disagg::run::follow::{Job, Role};
use disagg::run::polling::QUERY_TIMEOUT;
use disagg::run::result;
use disagg::run::submission;

use crate::Failure;

/// A job, and the access to its cluster.
pub struct Target {
    pub job: Job,
    pub client: Client,
}

/// Finds jobs by their ids or their workspaces; the workspace of a list has those of its tests below
/// it.
pub fn find_all(texts: &[String]) -> Result<Vec<Target>, Failure> {
    let mut targets: Vec<Target> = Vec::new();
    for text in texts {
        let found = match text.parse() {
            Ok(job_id) => vec![by_id(job_id)?],
            Err(_) => by_workspaces(Path::new(text))?,
        };
        for target in found {
            let same = |known: &Target| {
                known.job.job_id == target.job.job_id
                    && known.client.cluster == target.client.cluster
            };
            if !targets.iter().any(same) {
                targets.push(target);
            }
        }
    }
    Ok(targets)
}

fn by_workspaces(workspace: &Path) -> Result<Vec<Target>, Failure> {
    let mut tests = tests_of_list(workspace);
    tests.retain(|directory| directory.join(submission::FILE).is_file());
    match tests.is_empty() {
        true => Ok(vec![by_workspace(workspace)?]),
        false => tests.iter().map(|directory| by_workspace(directory)).collect(),
    }
}

/// The workspaces of a list's tests, below its own; none where this is the workspace of one test.
pub fn tests_of_list(workspace: &Path) -> Vec<PathBuf> {
    let is_of_one = [submission::FILE, files::PLAN, result::FILE];
    if is_of_one.iter().any(|name| workspace.join(name).is_file()) {
        return Vec::new();
    }
    let below = std::fs::read_dir(workspace).into_iter().flatten().flatten();
    let below = below.map(|entry| entry.path());
    let mut below: Vec<_> = below.filter(|path| path.join(files::PLAN).is_file()).collect();
    below.sort();
    below
}

fn by_id(job_id: u32) -> Result<Target, Failure> {
    let client = Client::default();
    let record = client.record(job_id, QUERY_TIMEOUT, None).map_err(|error| match error {
        SlurmError::Unresponsive(error) => Failure::Other(format!(
            "Slurm does not respond ({error}): try again, or pass the workspace instead of the id"
        )),
        error => Failure::Other(error.to_string()),
    })?;
    let known = match &record {
        Some(_) => true,
        // Purged by the controller, or a record that cannot be read safely.
        None => {
            let queued = client.queued(&[job_id], QUERY_TIMEOUT, None).map_err(|e| e.to_string());
            let accounted = client.accounted(job_id, None).map_err(|e| e.to_string());
            !queued.map_err(Failure::Other)?.is_empty()
                || accounted.map_err(Failure::Other)?.is_some()
        }
    };
    if !known {
        let help = "pass the workspace: its result is shown also after Slurm has purged the job";
        let message = format!("unknown job {job_id}");
        return Err(Diagnostic::error(message).help(help).into());
    }
    let workspace =
        record.as_ref().and_then(|record| submission::workspace_of(record.std_out.as_deref()));
    let submission =
        workspace.as_deref().and_then(|workspace| submission::read(workspace).ok().flatten());
    let submission = submission.filter(|submission| submission.job_id == job_id);
    let title = submission.as_ref().map(|submission| submission.test.clone());
    let job = Job {
        job_id,
        roles: workspace.as_deref().map(roles).unwrap_or_default(),
        workspace,
        launcher: submission.map(|submission| submission.launcher),
        title: title.or(record.map(|record| record.name)).unwrap_or_default(),
    };
    Ok(Target { job, client })
}

/// The job that was submitted from a workspace.
pub fn by_workspace(workspace: &Path) -> Result<Target, Failure> {
    let shown = workspace.display();
    let submission =
        submission::read(workspace).map_err(|error| Diagnostic::error(error.to_string()))?;
    let Some(submission) = submission else {
        let message = format!("no {} in {shown}: no job was submitted from it", submission::FILE);
        let help = "pass the --workspace of a `slurm-disagg submit`, or a job id";
        return Err(Diagnostic::error(message).help(help).into());
    };
    let workspace: PathBuf = workspace.to_owned();
    let job = Job {
        job_id: submission.job_id,
        roles: roles(&workspace),
        workspace: Some(workspace),
        launcher: Some(submission.launcher),
        title: submission.test,
    };
    Ok(Target { job, client: Client { cluster: submission.cluster } })
}

/// The plan of a workspace; none when it cannot be read: it is only shown.
pub fn plan_of(workspace: &Path) -> Option<Plan> {
    let plan = source::read(&workspace.join(files::PLAN), files::PLAN).ok()?;
    Plan::from_json(&plan.text).ok()
}

fn roles(workspace: &Path) -> Vec<Role> {
    plan_of(workspace).map(|plan| roles_of(&plan)).unwrap_or_default()
}

/// The steps of a plan, as they are shown.
pub fn roles_of(plan: &Plan) -> Vec<Role> {
    let role = |instance: disagg::plan::Instance<'_>| Role {
        name: instance.name.clone(),
        log: resolve(&instance, &[]).log_file().into_owned(),
    };
    plan.instances().map(role).collect()
}
