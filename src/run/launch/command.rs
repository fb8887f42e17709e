// SPDX-License-Identifier: Apache-2.0
//! The srun command of a step: sizes, nodes, container, environment and the role's command, all as
//! argument vectors.

use std::path::Path;

use super::environment::{Variables, expand};
use super::watch::NoPort;
use crate::output::script::{COMMON, CONTAINER_MARK, IN_CONTAINER_SH, container_arguments};
use crate::output::task::task;
use crate::plan::role::NO_MPI;
use crate::plan::step::{PORTS, START_COMMAND};
use crate::plan::template::TooLong;
use crate::plan::{Instance, Plan, StepSpec, Template};
use crate::slurm::argument::ArgumentError;
use crate::slurm::counts::TOTAL_GPUS;
use crate::slurm::srun::SrunRequest;

/// A step as it is handed to srun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepCommand {
    /// The arguments that follow `srun`.
    pub arguments: Vec<String>,
    /// Variables that are set for it; a secret travels here, never as an argument.
    pub environment: Vec<(String, String)>,
}

/// Why a step cannot be started as the plan has it.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A value cannot be passed as an argument.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A variable's value cannot be held by an environment.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// A step's port is none.
    #[error(transparent)]
    NoPort(#[from] NoPort),
}

/// The variable that names the file of [`host_file`] for srun.
const HOST_FILE: &str = "SLURM_HOSTFILE";

/// srun opens what its own standard output is: so no path goes through srun's file name patterns.
const OUTPUT: &str = "/dev/fd/1";

/// The command of an instance, whose step is this, on the job's nodes.
///
/// # Errors
/// [`CommandError`].
pub fn of_instance(
    instance: &Instance<'_>,
    spec: &StepSpec<'_>,
    nodes: &[String],
    variables: &Variables,
) -> Result<StepCommand, CommandError> {
    let hosts = instance.hosts(nodes).unwrap_or_default();
    let task = task(spec);
    // srun takes a file with the host of each task, or a list of the nodes.
    let (distribution, nodelist) = match spec.plane() {
        Some(plane) => (format!("--distribution=plane={plane}"), Some(hosts.to_vec())),
        None => ("--distribution=arbitrary".to_owned(), None),
    };
    let host_file = nodelist.is_none().then(|| {
        let file = Path::new(&instance.plan.workspace).join(host_file(instance));
        (HOST_FILE.to_owned(), file.display().to_string())
    });
    let mut extra = vec![distribution];
    extra.extend(spec.step.cpu_bind().map(|how| format!("--cpu-bind={how}")));
    let container = container_arguments(instance.plan, None);
    extra.extend(common(instance.plan, container, variables)?);
    extra.extend(instance.role.srun_args.iter().map(|word| word.value.clone()));
    let request = SrunRequest {
        nodes: Some(spec.step.nodes),
        ntasks: Some(spec.step.tasks),
        nodelist,
        mpi: Some(spec.step.mpi_type().to_owned()),
        overlap: spec.step.overlap,
        kill_on_bad_exit: spec.step.kill_on_bad_exit.then_some(true),
        output: Some(OUTPUT.to_owned()),
        job_name: Some(instance.name.clone()),
        extra,
        ..SrunRequest::default()
    };
    let mut arguments = request.argv()?;
    arguments.extend(START_COMMAND.map(str::to_owned));
    let words = task.start.iter().chain(&task.argv);
    arguments.extend(words.map(|word| word.literal_text().into_owned()));
    let environment = task.environment.into_iter();
    let environment =
        environment.map(|(name, value)| Ok((name.into_owned(), expand(&value, variables)?)));
    let mut environment = environment.collect::<Result<Vec<_>, TooLong>>()?;
    environment.extend(host_file);
    // Where each task has a port of its own, another task may have its already.
    let ports = instance.role.ports.iter().filter(|(_, ports)| ports.each == 1);
    let port = |name: &String| Some(format!("{name}={}", instance.port(name)?));
    let ports: Vec<_> = ports.filter_map(|(name, _)| port(name)).collect();
    environment.extend((!ports.is_empty()).then(|| (PORTS.to_owned(), ports.join(" "))));
    Ok(StepCommand { arguments, environment })
}

/// The file in the workspace with the host of each task of a step, where no number of tasks on each
/// node says as much.
pub fn host_file(instance: &Instance<'_>) -> String {
    format!("{}_hosts.txt", instance.name.to_lowercase())
}

/// The command that unpacks the container image on each of the plan's nodes, and fails on a node
/// that runs it outside of the container.
///
/// # Errors
/// [`CommandError`].
pub fn of_unpack(
    plan: &Plan,
    hosts: &[String],
    variables: &Variables,
) -> Result<StepCommand, CommandError> {
    let container = container_arguments(plan, Some(CONTAINER_MARK));
    on_each_node(plan, "unpack", hosts, container, &["sh", "-c", IN_CONTAINER_SH], variables)
}

/// The command that runs the install script once on each of the plan's nodes.
///
/// # Errors
/// [`CommandError`].
pub fn of_install(
    plan: &Plan,
    script: &str,
    hosts: &[String],
    variables: &Variables,
) -> Result<StepCommand, CommandError> {
    let container = container_arguments(plan, None);
    on_each_node(plan, "install", hosts, container, &["bash", script], variables)
}

/// The command that prints the addresses of each of the plan's nodes, as `ip` does, behind its name.
///
/// # Errors
/// [`CommandError`].
pub fn of_addresses(
    plan: &Plan,
    hosts: &[String],
    variables: &Variables,
) -> Result<StepCommand, CommandError> {
    const SH: &str = r#"PATH=$PATH:/usr/sbin:/sbin; all=$(ip -4 -o address show) || exit 1
echo "$all" | sed "s/^/$SLURMD_NODENAME /""#;
    on_each_node(plan, "addresses", hosts, Vec::new(), &["sh", "-c", SH], variables)
}

fn on_each_node(
    plan: &Plan,
    name: &str,
    hosts: &[String],
    container: Vec<Template>,
    command: &[&str],
    variables: &Variables,
) -> Result<StepCommand, CommandError> {
    let request = SrunRequest {
        nodes: Some(plan.layout.total_nodes),
        ntasks: Some(plan.layout.total_nodes),
        ntasks_per_node: Some(1),
        mpi: Some(NO_MPI.to_owned()),
        nodelist: Some(hosts.to_vec()),
        kill_on_bad_exit: Some(true),
        output: Some(OUTPUT.to_owned()),
        job_name: Some(name.to_owned()),
        extra: common(plan, container, variables)?,
        ..SrunRequest::default()
    };
    let mut arguments = request.argv()?;
    arguments.extend(command.iter().map(|word| (*word).to_owned()));
    Ok(StepCommand { arguments, environment: Vec::new() })
}

/// What all steps are asked for: words on standard error about what becomes of them, logs that are
/// added to, and the container where there is one.
fn common(
    plan: &Plan,
    container: Vec<Template>,
    variables: &Variables,
) -> Result<Vec<String>, TooLong> {
    let own = ["--verbose", "--open-mode=append"].into_iter().chain(COMMON);
    let own = own.map(|option| Ok(option.to_owned()));
    let gpus = variables.contains_key(TOTAL_GPUS);
    let gpus = gpus.then(|| Ok(format!("--gpus-per-node={}", plan.job.gpus_per_node.value)));
    let given = plan.job.srun_args.iter().map(|argument| Ok(argument.value.clone()));
    let container = container.iter().map(|argument| expand(argument, variables));
    own.chain(gpus).chain(given).chain(container).collect()
}
