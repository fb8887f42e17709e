// SPDX-License-Identifier: Apache-2.0
//! The steps of a plan, as far as they are compared: the one place that reads them from the plan.

use std::collections::BTreeSet;

use disagg::plan::step::{FOR_CONTAINERS, gpu_variables};
use disagg::plan::{Plan, Template, resolve};

/// A step of the plan.
pub struct Planned {
    /// Its name, as `--disagg-role` takes it.
    pub name: String,
    /// The name of its role.
    pub role: String,
    /// The node of each task, counted from the first of the job.
    pub nodes: Vec<usize>,
    /// Its options for srun.
    pub options: Options,
    /// Variables that its tasks do not get.
    pub unset: Vec<String>,
    /// Variables that its tasks get.
    pub env: Vec<(String, Template)>,
    /// The words of its command.
    pub argv: Vec<String>,
}

/// srun's options that do not follow from the nodes of the tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--mpi`.
    pub mpi: Option<String>,
    /// `--overlap`.
    pub overlap: bool,
    /// `--kill-on-bad-exit`.
    pub kill_on_bad_exit: bool,
}

impl Planned {
    /// The number of different nodes.
    pub fn node_count(&self) -> usize {
        self.nodes.iter().collect::<BTreeSet<_>>().len()
    }
}

/// The steps of a plan, in its order.
pub fn steps(plan: &Plan) -> Vec<Planned> {
    let all: Vec<usize> = (0..plan.job.nodes.value as usize).collect();
    plan.instances()
        .map(|instance| {
            let step = &instance.role.step;
            let options = Options {
                mpi: Some(step.mpi_type().to_owned()),
                overlap: step.overlap,
                kill_on_bad_exit: step.kill_on_bad_exit,
            };
            let spec = resolve(&instance, &[]);
            let set = spec.set.iter().map(|set| (set.name.to_owned(), set.value.clone()));
            // Simulated nodes have no GPUs that Slurm could list.
            let own = instance.own_gpus(0, 0);
            let gpus = gpu_variables(|_| None, own.as_ref()).into_iter().flatten();
            let gpus = gpus.map(|(name, list)| (name.to_owned(), Template::literal(&list)));
            let mut env: Vec<_> = set.chain(gpus).collect();
            for (name, value) in FOR_CONTAINERS {
                if env.iter().all(|(known, _)| known != name) {
                    env.push((name.to_owned(), Template::literal(value)));
                }
            }
            Planned {
                name: instance.name.clone(),
                role: instance.role_name.to_owned(),
                nodes: instance.host_of_each_task(&all).into_iter().flatten().copied().collect(),
                options,
                unset: spec.unset.iter().map(|name| (*name).to_owned()).collect(),
                env,
                argv: spec.arguments().map(|word| word.into_owned()).collect(),
            }
        })
        .collect()
}
