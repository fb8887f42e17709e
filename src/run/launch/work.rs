// SPDX-License-Identifier: Apache-2.0
//! The steps of a plan on the nodes of a job: what is started, and how the result names it.

use std::path::Path;

use super::command::{self, CommandError, StepCommand};
use super::directory::{INSTALL_LOG, UNPACK_LOG, name_in};
use super::environment::{self, Variables};
use super::test_files::TestFiles;
use super::watch::Watch;
use crate::plan::{Instance, Plan, StepSpec, resolve};
use crate::run::result::{INSTALL, StepResult, UNPACK};

/// The steps of a plan, in the order in which they start.
#[derive(Debug)]
pub struct Work {
    /// A result of each step before it starts.
    pub steps: Vec<StepResult>,
    /// The `srun` of each step, in the same order.
    pub commands: Vec<StepCommand>,
    /// How each step is watched, in the same order.
    pub watches: Vec<Watch>,
    /// What the test finds of each step, in the same order.
    pub test_files: Vec<TestFiles>,
    /// The environment of all of them.
    pub variables: Variables,
}

impl Work {
    /// The steps of a plan on a job's nodes.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn new(plan: &Plan, nodes: &[String]) -> Result<Self, CommandError> {
        let mut all = environment::of_process();
        let variables = environment::for_all_steps(plan, &all)?;
        all.extend(variables.clone());
        let mut work = Self {
            steps: Vec::new(),
            commands: Vec::new(),
            watches: Vec::new(),
            test_files: Vec::new(),
            variables,
        };
        let tasks = plan.layout.total_nodes;
        let hosts = &nodes[..(tasks as usize).min(nodes.len())];
        if plan.container.is_some() {
            work.steps.push(StepResult::new(UNPACK, hosts, tasks, UNPACK_LOG));
            work.commands.push(command::of_unpack(plan, hosts, &all)?);
            work.watches.push(Watch::default());
            work.test_files.push(TestFiles::default());
        }
        if let Some(script) = &plan.install_script {
            work.steps.push(StepResult::new(INSTALL, hosts, tasks, INSTALL_LOG));
            work.commands.push(command::of_install(plan, script, hosts, &all)?);
            work.watches.push(Watch::default());
            work.test_files.push(TestFiles::default());
        }
        for instance in plan.checks().chain(plan.instances()) {
            let hosts = instance.hosts(nodes).unwrap_or_default();
            let spec = resolve(&instance, nodes);
            work.steps.push(step_result(plan, &instance, &spec, hosts));
            work.commands.push(command::of_instance(&instance, nodes, &all)?);
            work.watches.push(Watch::new(&instance, spec.ready, hosts)?);
            work.test_files.push(TestFiles::new(plan, &instance));
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
        tasks_per_node: spec.step.tasks_per_node,
        own_gpus: instance.own_gpus(0, 0).map(|gpus| gpus.len() as u32),
        ..StepResult::new(&instance.name, hosts, spec.step.tasks, &spec.log_file())
    }
}
