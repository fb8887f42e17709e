// SPDX-License-Identifier: Apache-2.0
//! The steps of a plan on the nodes of a job: what is started, and how the result names it.

use std::path::Path;

use super::command::{self, CommandError, StepCommand};
use super::directory::{INSTALL_LOG, UNPACK_LOG, name_in};
use super::environment::{self, Variables};
use super::ports;
use super::step_files::StepFiles;
use super::watch::Watch;
use crate::plan::{Instance, Plan, StepSpec, resolve};
use crate::run::result::{INSTALL, StepResult, UNPACK};

/// The steps of a plan, in the order in which they start.
#[derive(Debug)]
pub struct Work {
    /// A result of each step before it starts.
    pub steps: Vec<StepResult>,
    /// What each of them is started with, in the same order.
    pub starts: Vec<Start>,
    /// The environment of all of them.
    pub variables: Variables,
    /// What clients find that are no steps, once the servers are ready.
    pub ready_file: String,
}

/// What a step is started with.
#[derive(Debug)]
pub struct Start {
    /// Its `srun`.
    pub command: StepCommand,
    /// How it is watched.
    pub watch: Watch,
    /// The files around it.
    pub files: StepFiles,
    /// Its ports, by name.
    pub ports: Vec<(String, u16)>,
    /// The addresses of its nodes.
    pub addresses: Vec<String>,
    /// Whether it is a client that only warms the servers up.
    pub warms_up: bool,
}

impl Start {
    /// Of a step of no role.
    fn bare(command: StepCommand) -> Self {
        let (watch, files) = (Watch::default(), StepFiles::default());
        let (ports, addresses) = (Vec::new(), Vec::new());
        Self { command, watch, files, ports, addresses, warms_up: false }
    }
}

impl Work {
    /// The steps of a plan on a job's nodes, which have these addresses.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn new(plan: &Plan, nodes: &[String], addresses: &[String]) -> Result<Self, CommandError> {
        let mut all = environment::of_process();
        let variables = environment::for_all_steps(plan, &all)?;
        all.extend(variables.clone());
        let mut work =
            Self { steps: Vec::new(), starts: Vec::new(), variables, ready_file: String::new() };
        let tasks = plan.layout.total_nodes;
        let hosts = &nodes[..(tasks as usize).min(nodes.len())];
        if plan.container.is_some() {
            work.steps.push(StepResult::new(UNPACK, hosts, tasks, UNPACK_LOG));
            work.starts.push(Start::bare(command::of_unpack(plan, hosts, &all)?));
        }
        if let Some(script) = &plan.install_script {
            work.steps.push(StepResult::new(INSTALL, hosts, tasks, INSTALL_LOG));
            work.starts.push(Start::bare(command::of_install(plan, script, hosts, &all)?));
        }
        for instance in plan.checks().chain(plan.instances()) {
            let hosts = instance.hosts(nodes).unwrap_or_default();
            let spec = resolve(&instance, addresses);
            let own = instance.hosts(addresses).unwrap_or_default();
            work.steps.push(step_result(plan, &instance, &spec, hosts));
            work.starts.push(Start {
                command: command::of_instance(&instance, &spec, nodes, &all)?,
                files: StepFiles::new(plan, &instance, &spec, nodes),
                watch: Watch::new(&instance, spec.ready, own)?,
                ports: ports::of_instance(&instance),
                addresses: own.to_vec(),
                warms_up: instance.role.warms_up,
            });
        }
        Ok(work)
    }
}

fn step_result(
    plan: &Plan,
    instance: &Instance<'_>,
    spec: &StepSpec<'_>,
    hosts: &[String],
) -> StepResult {
    let workspace = Path::new(&plan.workspace);
    let relative = |path: &str| name_in(workspace, path).unwrap_or(path).to_owned();
    StepResult {
        role: Some(instance.role_name.to_owned()),
        purpose: Some(instance.role.purpose),
        junit: spec.junit_file().map(|path| relative(&path)),
        tasks_per_node: spec.plane().or(spec.ranks.iter().max().copied()).unwrap_or_default(),
        tasks_by_node: spec.plane().map_or(spec.ranks.clone(), |_| Vec::new()),
        own_gpus: (0..spec.step.nodes)
            .map(|node| Some(instance.own_gpus(node, 0)?.len() as u32))
            .collect(),
        ..StepResult::new(&instance.name, hosts, spec.step.tasks, &spec.log_file())
    }
}
