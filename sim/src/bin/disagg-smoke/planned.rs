// SPDX-License-Identifier: Apache-2.0
//! The steps of a plan, as far as they are compared: the one place that reads them from the plan.

use std::collections::BTreeSet;

use disagg::plan::{Plan, Template};

/// A step of the plan.
pub struct Planned {
    /// Its name, as `--disagg-role` takes it.
    pub name: String,
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
    /// `GEN` of `GEN_3`.
    pub fn kind(&self) -> &str {
        self.name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_')
    }

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
                mpi: step.mpi.clone(),
                overlap: step.overlap,
                kill_on_bad_exit: step.kill_on_bad_exit,
            };
            let env = instance.env();
            Planned {
                name: instance.name.to_string(),
                nodes: instance.host_of_each_task(&all).into_iter().flatten().copied().collect(),
                options,
                unset: instance.role.unset.iter().map(|name| name.value.clone()).collect(),
                env: env.iter().map(|(n, traced)| (n.to_owned(), traced.value.clone())).collect(),
                argv: instance.argv().into_iter().map(|word| word.into_owned()).collect(),
            }
        })
        .collect()
}
