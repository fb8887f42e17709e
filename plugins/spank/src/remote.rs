// SPDX-License-Identifier: Apache-2.0
//! slurmstepd: each task of a step that names its role gets the role's environment.
//!
//! All of it happens in `task_init`, in the child that becomes the task, as the user: nothing of
//! the user's is read as root, and a failure ends the step with a message instead of draining the
//! node.

use std::collections::HashMap;

use disagg::output::task::{SECRET, shell_command};
use disagg::plan::step::gpu_variables;
use disagg::plan::template::Template;
use disagg::plan::{Instance, resolve};

use crate::args::{self, Given, Opt};
use crate::environment::{DISTRIBUTION, HOST_FILE, PLAN, STEP_ROLE, TASK};
use crate::ffi::Spank;
use crate::{handover, local, step};

/// Sets the environment of the task; does nothing in a step without a role.
///
/// # Errors
/// A message for the user; the task must not start.
pub fn task(spank: Spank) -> Result<(), String> {
    let given = || Given::lock().get(Opt::Role).map(str::to_owned);
    let Some(role) = spank.short_env(STEP_ROLE).or_else(given) else { return Ok(()) };
    if spank.short_env(TASK).is_some() {
        return Ok(());
    }
    let size = spank.step_size();
    // Slurm says 0 nodes of the step that is the batch script: it has no role of its own.
    if size.is_some_and(|(nodes, _)| nodes == 0) {
        return Ok(());
    }
    let variables: HashMap<String, String> = spank.task_environment().into_iter().collect();
    let plan = match variables.get(PLAN) {
        Some(value) => handover::read(value)?,
        None => {
            return Err(format!(
                "disagg: the step of {role} has no {PLAN}: srun was started without the plugin's plan"
            ));
        }
    };
    let instance = local::instance(&plan, &role)?;
    if let Some((nodes, tasks)) = size {
        step::check_size(&instance, nodes, tasks)?;
    }
    apply(spank, &instance, &variables).map_err(|error| format!("disagg: {role}: {error}"))
}

fn apply(
    spank: Spank,
    instance: &Instance<'_>,
    variables: &HashMap<String, String>,
) -> Result<(), Box<dyn std::error::Error>> {
    let mut spec = resolve(instance);
    // Slurm tells every task of a pinned step that its distribution is arbitrary; a srun in the task
    // would then look for a host file.
    let pinned = variables.get(DISTRIBUTION).is_some_and(|how| how == "arbitrary");
    let misleading: &[&str] = if pinned { &[DISTRIBUTION, HOST_FILE] } else { &[] };
    let sent = args::sent_variable(Opt::Role);
    for name in spec.unset.iter().chain(&[STEP_ROLE, &sent]).chain(misleading) {
        spank.unset_env(name)?;
    }
    // The command's own assignments hold this task's values, so that they mean the same where they
    // are set already.
    let lookup = |name: &str| variables.get(name).map(String::as_str);
    for variable in &mut spec.set {
        let value = variable.value.expand(lookup)?;
        spank.set_env(variable.name, &value)?;
        variable.value = Template::literal(&value);
    }
    if spec.own_gpus.is_some() {
        for (name, value) in gpu_variables(lookup, &instance.gpus)? {
            spank.set_env(name, &value)?;
        }
    }
    spank.set_env(TASK, &instance.name)?;
    // srun's side has set those of the values before they were expanded.
    for name in variables.keys().filter(|name| name.starts_with(SECRET)) {
        spank.unset_env(name)?;
    }
    for (name, value) in shell_command(&spec) {
        spank.set_env(&name, &value.literal_text())?;
    }
    Ok(())
}
