// SPDX-License-Identifier: Apache-2.0
//! The srun command of a step: sizes, nodes, container, environment and the role's command, all as
//! argument vectors.

use super::environment::{Variables, expand};
use crate::output::script::{command_text, container_arguments, env_command};
use crate::plan::{Env, Instance, Plan, Role, Traced};
use crate::slurm::argument::ArgumentError;
use crate::slurm::srun::SrunRequest;

/// A step as it is handed to srun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCommand {
    /// The arguments that follow `srun`.
    pub arguments: Vec<String>,
    /// Variables that are set for it; a secret travels here, never as an argument.
    pub environment: Vec<(String, String)>,
}

/// srun opens what its own standard output is: so no path goes through srun's file name patterns.
const OUTPUT: &str = "/dev/fd/1";

/// The command of an instance on its hosts.
///
/// # Errors
/// [`ArgumentError`]: a value cannot stand in an argument.
pub fn of_instance(
    instance: &Instance<'_>,
    hosts: &[String],
    variables: &Variables,
) -> Result<StepCommand, ArgumentError> {
    let (plan, step) = (instance.plan, &instance.role.step);
    let name = instance.name.to_string();
    let role = own_role(instance);
    let planned = instance.role.environment();
    let mut environment: Vec<(String, String)> = instance
        .env()
        .iter()
        .filter(|(name, _)| planned.get(name).is_none())
        .map(|(name, value)| (name.to_owned(), expand(&value.value, variables)))
        .collect();
    let run_script =
        plan.run_script.as_ref().filter(|_| instance.name.kind.precheck_of().is_none());
    let command = match run_script {
        Some(script) => {
            environment.push(("pytestCommand".to_owned(), command_text(&role)));
            vec!["bash".to_owned(), script.clone()]
        }
        None => {
            let mut role = role;
            (role.export, role.env) = (Env::default(), instance.env());
            let secret = |name: &str| plan.secrets.iter().any(|secret| secret == name);
            let secrets = role.env.iter().filter(|(name, _)| secret(name));
            environment.extend(
                secrets.map(|(name, value)| (name.to_owned(), expand(&value.value, variables))),
            );
            env_command(&role, &plan.secrets)
        }
    };
    let mut extra = vec![format!("--distribution=plane={}", step.tasks_per_node)];
    extra.extend(common(plan, variables));
    let request = SrunRequest {
        nodes: Some(step.nodes),
        ntasks: Some(step.tasks),
        nodelist: Some(hosts.to_vec()),
        mpi: step.mpi.clone(),
        overlap: step.overlap,
        kill_on_bad_exit: step.kill_on_bad_exit.then_some(true),
        output: Some(OUTPUT.to_owned()),
        job_name: Some(name),
        extra,
        ..SrunRequest::default()
    };
    let mut arguments = request.argv()?;
    arguments.extend(command);
    Ok(StepCommand { arguments, environment })
}

/// The command that runs the install script once on each of the plan's nodes.
///
/// # Errors
/// [`ArgumentError`]: a value cannot stand in an argument.
pub fn of_install(
    plan: &Plan,
    script: &str,
    hosts: &[String],
    variables: &Variables,
) -> Result<StepCommand, ArgumentError> {
    let request = SrunRequest {
        nodes: Some(plan.layout.total_nodes),
        ntasks: Some(plan.layout.total_nodes),
        ntasks_per_node: Some(1),
        nodelist: Some(hosts.to_vec()),
        kill_on_bad_exit: Some(true),
        output: Some(OUTPUT.to_owned()),
        job_name: Some("install".to_owned()),
        extra: common(plan, variables).collect(),
        ..SrunRequest::default()
    };
    let mut arguments = request.argv()?;
    arguments.extend(["bash".to_owned(), script.to_owned()]);
    Ok(StepCommand { arguments, environment: Vec::new() })
}

/// What all steps are asked for: words on standard error about what becomes of them, logs that are
/// added to, and the container where there is one.
fn common<'a>(plan: &'a Plan, variables: &'a Variables) -> impl Iterator<Item = String> + 'a {
    let own = ["--verbose", "--open-mode=append"].map(str::to_owned);
    let container = container_arguments(plan);
    own.into_iter().chain(container.into_iter().map(|argument| expand(&argument, variables)))
}

/// The role with the instance's own files.
fn own_role(instance: &Instance<'_>) -> Role {
    let argv = instance.argv().into_iter().zip(&instance.role.argv);
    Role {
        argv: argv
            .map(|(value, planned)| Traced::new(value.into_owned(), planned.origin.clone()))
            .collect(),
        ..instance.role.clone()
    }
}
