// SPDX-License-Identifier: Apache-2.0
//! The job that the launch runs in: its id, how often it was requeued, and its nodes.

use crate::plan::Plan;
use crate::run::result::RunId;
use crate::slurm::counts;
use crate::slurm::hostlist::{self, HostlistError};

/// The job's allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Which run of which job.
    pub run: RunId,
    /// Its nodes, in Slurm's order.
    pub nodes: Vec<String>,
    /// The job's CPUs on each of them; empty where Slurm does not say.
    pub cpus: Vec<u32>,
}

/// Why a plan cannot be launched here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllocationError {
    /// There is no job around.
    #[error(
        "{0} is not set: `slurm-disagg launch` runs in a job; submit it (slurm-disagg submit, or \
         sbatch --wrap 'exec slurm-disagg launch --workspace DIR'), or call it within salloc"
    )]
    Outside(&'static str),
    /// Slurm's variable has no meaning that is known.
    #[error("{name}={value:?} is not a number, as Slurm sets it")]
    NotANumber {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The node list cannot be read.
    #[error("SLURM_JOB_NODELIST: {0}")]
    Nodes(#[from] HostlistError),
    /// A node has fewer CPUs than a step has tasks on it.
    #[error(
        "{host} has {cpus} CPU{} in this job, but {step} runs {tasks} tasks there: submit with \
         --ntasks-per-node={per_node}",
        if *cpus == 1 { "" } else { "s" }
    )]
    TooFewCpus {
        /// The node.
        host: String,
        /// Its CPUs.
        cpus: u32,
        /// The step.
        step: String,
        /// The step's tasks on the node.
        tasks: u32,
        /// The tasks on each node that the plan asks for.
        per_node: u32,
    },
    /// Its GPUs are not the plan's on each node.
    #[error(transparent)]
    Gpus(#[from] counts::UnevenGpus),
    /// There are too few nodes.
    #[error(
        "the job has {has} node{}, the plan takes {takes}: submit with --nodes={takes} \
         --ntasks={tasks} --ntasks-per-node={per_node} --gpus-per-node={per_node}",
        if *has == 1 { "" } else { "s" }
    )]
    TooSmall {
        /// The job's nodes.
        has: usize,
        /// The plan's nodes.
        takes: u32,
        /// The plan's tasks.
        tasks: u32,
        /// The plan's tasks, and GPUs, on each node.
        per_node: u32,
    },
}

impl Allocation {
    /// The allocation that the environment describes.
    ///
    /// # Errors
    /// [`AllocationError`].
    pub fn from_env(env: impl Fn(&str) -> Option<String>) -> Result<Self, AllocationError> {
        let number = |name: &'static str, value: String| {
            value.parse().map_err(|_| AllocationError::NotANumber { name, value })
        };
        let needed = |name| env(name).ok_or(AllocationError::Outside(name));
        let job_id = number("SLURM_JOB_ID", needed("SLURM_JOB_ID")?)?;
        let nodes = hostlist::expand(&needed("SLURM_JOB_NODELIST")?)?;
        let restart = match env("SLURM_RESTART_COUNT") {
            Some(count) => number("SLURM_RESTART_COUNT", count)?,
            None => 0,
        };
        let cpus = env("SLURM_JOB_CPUS_PER_NODE");
        let cpus = cpus.and_then(|text| counts::per_node(&text, nodes.len())).unwrap_or_default();
        Ok(Self { run: RunId::new(job_id, restart), nodes, cpus })
    }

    /// Whether a plan fits.
    ///
    /// # Errors
    /// [`AllocationError::TooSmall`], [`AllocationError::TooFewCpus`], [`AllocationError::Gpus`].
    pub fn check(
        &self,
        plan: &Plan,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(), AllocationError> {
        let (has, takes) = (self.nodes.len(), plan.layout.total_nodes);
        let (tasks, per_node) = (plan.layout.total_gpus, plan.layout.gpus_per_node);
        if has < takes as usize {
            return Err(AllocationError::TooSmall { has, takes, tasks, per_node });
        }
        for instance in plan.checks().chain(plan.instances()) {
            if let Some((host, cpus, tasks)) = instance.too_few_cpus(&self.nodes, &self.cpus) {
                let (host, step) = (host.clone(), instance.name);
                return Err(AllocationError::TooFewCpus { host, cpus, step, tasks, per_node });
            }
        }
        Ok(counts::even_gpus(plan.job.gpus_per_node.value, env)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocation(variables: &[(&str, &str)]) -> Result<Allocation, AllocationError> {
        Allocation::from_env(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn a_requeued_job_s_run_has_an_id_of_its_own() {
        let variables = [("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "n[1-2,9]")];
        let first = allocation(&variables).unwrap();
        assert_eq!((first.run.id.as_str(), first.nodes.len()), ("7.0", 3));
        let again = [&variables[..], &[("SLURM_RESTART_COUNT", "2")]].concat();
        assert_eq!(allocation(&again).unwrap().run.id, "7.2");
    }

    #[test]
    fn outside_a_job_the_error_says_how_to_get_into_one() {
        let error = allocation(&[]).unwrap_err().to_string();
        assert!(error.contains("SLURM_JOB_ID is not set") && error.contains("sbatch"), "{error}");
        assert!(allocation(&[("SLURM_JOB_ID", "x"), ("SLURM_JOB_NODELIST", "n")]).is_err());
        assert!(allocation(&[("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "n[1")]).is_err());
    }
}
