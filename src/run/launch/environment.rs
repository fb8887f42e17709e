// SPDX-License-Identifier: Apache-2.0
//! The environment that steps are started in: the job's, the plan's variables of the whole job, and
//! what run and install scripts know by name.

use std::collections::BTreeMap;
use std::process::Command;

use crate::output::exports;
use crate::plan::step::{FOR_CONTAINERS, START, START_SH};
use crate::plan::template::TooLong;
use crate::plan::{Plan, Template};
use crate::slurm::inherited::reaches_srun;

/// Environment variables by name.
pub type Variables = BTreeMap<String, String>;

/// The variables of this process; those that are not UTF-8 reach the steps all the same.
#[must_use]
pub fn of_process() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// What is set for all steps beside what the job has.
///
/// # Errors
/// [`TooLong`].
pub fn for_all_steps(plan: &Plan, job: &Variables) -> Result<Variables, TooLong> {
    let mut set = Variables::new();
    for (name, value) in plan.job_env.iter() {
        set.insert(name.to_owned(), expand(&value.value, job)?);
    }
    if let Some(token) = plan.run_token() {
        let of_the_job = |name| job.get(name).map_or("0", String::as_str);
        let (id, restart) = (of_the_job("SLURM_JOB_ID"), of_the_job("SLURM_RESTART_COUNT"));
        set.insert(token.to_owned(), format!("{id}.{restart}.{}", std::process::id()));
    }
    let given = |name: &str| job.get(name).filter(|value| !value.is_empty()).is_some();
    let open = FOR_CONTAINERS.into_iter().filter(|(name, _)| !given(name));
    set.extend(open.map(|(name, value)| (name.to_owned(), value.to_owned())));
    set.insert(START.into(), START_SH.into());
    if plan.run_script.is_some() || plan.install_script.is_some() {
        let exports = exports::prefix(plan).into_iter().chain(exports::exports(plan));
        for export in exports {
            set.insert(export.name, expand(&export.value, job)?);
        }
    }
    Ok(set)
}

/// The environment of a command that is or becomes an `srun`: with the variables, and without what must
/// not reach it from the job.
pub fn for_srun(command: &mut Command, variables: &Variables) {
    command.envs(variables);
    for (name, _) in std::env::vars_os() {
        if !reaches_srun(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
}

/// A template's value among variables.
///
/// # Errors
/// [`TooLong`].
pub fn expand(template: &Template, variables: &Variables) -> Result<String, TooLong> {
    template.expand(|name| variables.get(name).map(String::as_str))
}
