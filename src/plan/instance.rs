// SPDX-License-Identifier: Apache-2.0
//! The steps of a plan by name: `GEN_3` with its nodes and GPUs.
//!
//! Instances are derived, never stored: a plan has the same size for one server and for thousands.

use std::ops::Range;

use super::Plan;
use super::role::{Deal, Purpose, Role, Share, Step};

/// One step of a plan.
#[derive(Debug, Clone)]
pub struct Instance<'p> {
    /// The plan that it belongs to.
    pub plan: &'p Plan,
    /// Its name: the role's, with the index where the role is numbered.
    pub name: String,
    /// Its role's name.
    pub role_name: &'p str,
    /// Its role.
    pub role: &'p Role,
    /// Its index in its role.
    pub index: u32,
    /// Its nodes, counted from the allocation's first.
    pub nodes: Range<u32>,
    /// Its GPUs on each of its full nodes, counted from the node's first of the job; on the first,
    /// where GPUs are dealt one by one.
    pub gpus: Range<u32>,
}

/// A name that no step of the plan has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plan has no step {name:?}; it has {known}")]
pub struct NoSuchStep {
    /// The name that was asked for.
    pub name: String,
    /// [`Plan::names`].
    pub known: String,
}

impl Plan {
    /// The steps of the test itself, in the order in which they start. Which steps exist is decided
    /// here and in [`Plan::checks`], for every user of a plan.
    pub fn instances(&self) -> impl Iterator<Item = Instance<'_>> {
        self.with_purpose(|purpose| purpose != Purpose::Check)
    }

    /// The checks that come before them, all at a time.
    pub fn checks(&self) -> impl Iterator<Item = Instance<'_>> {
        self.with_purpose(|purpose| purpose == Purpose::Check)
    }

    fn with_purpose(&self, wanted: fn(Purpose) -> bool) -> impl Iterator<Item = Instance<'_>> {
        let roles = self.roles.iter().filter(move |(_, role)| wanted(role.purpose));
        roles.flat_map(|(name, role)| {
            (0..role.count).filter_map(|index| self.derive(name, role, index))
        })
    }

    /// One step by name.
    ///
    /// # Errors
    /// [`NoSuchStep`], which lists the names that there are.
    pub fn instance(&self, name: &str) -> Result<Instance<'_>, NoSuchStep> {
        let numbered = || {
            let (role, digits) = name.rsplit_once('_')?;
            let canonical = digits == "0" || !digits.starts_with(['0', '+']);
            Some((role, digits.parse().ok().filter(|_| canonical)?))
        };
        let find = |(role_name, index): (&str, u32), is_numbered: bool| {
            let (role_name, role) = self.roles.get_key_value(role_name)?;
            let exists = role.numbered == is_numbered && index < role.count;
            exists.then(|| self.derive(role_name, role, index))?
        };
        let found = find((name, 0), false).or_else(|| find(numbered()?, true));
        found.ok_or_else(|| NoSuchStep { name: name.to_owned(), known: self.names() })
    }

    /// The names of all steps in one line: `GEN_0..GEN_3, CTX_0, DISAGG_SERVER`.
    pub fn names(&self) -> String {
        let is_check = |role: &Role| role.purpose == Purpose::Check;
        let checks = self.roles.iter().filter(|(_, role)| is_check(role));
        let others = self.roles.iter().filter(|(_, role)| !is_check(role));
        let range = |(name, role): (&String, &Role)| match role.count {
            0 => None,
            _ if !role.numbered => Some(name.clone()),
            1 => Some(format!("{name}_0")),
            count => Some(format!("{name}_0..{name}_{}", count - 1)),
        };
        checks.chain(others).filter_map(range).collect::<Vec<_>>().join(", ")
    }

    /// The steps of a role, in their order.
    pub fn instances_of(&self, role: &str) -> impl Iterator<Item = Instance<'_>> {
        let role = self.roles.get_key_value(role);
        role.into_iter().flat_map(|(name, role)| {
            (0..role.count).filter_map(|index| self.derive(name, role, index))
        })
    }

    fn derive<'p>(
        &'p self,
        role_name: &'p str,
        role: &'p Role,
        index: u32,
    ) -> Option<Instance<'p>> {
        let (nodes, gpus) = role.place(index)?;
        let name = match role.numbered {
            true => format!("{role_name}_{index}"),
            false => role_name.to_owned(),
        };
        Some(Instance { plan: self, name, role_name, role, index, nodes, gpus })
    }
}

impl Instance<'_> {
    /// The number of one of its ports.
    pub fn port(&self, name: &str) -> Option<u32> {
        let ports = self.role.ports.get(name)?;
        u32::try_from(ports.end(self.index)).ok()
    }

    /// Its hosts among the allocation's; `None` when the allocation is smaller than the plan.
    pub fn hosts<'h, H>(&self, allocation: &'h [H]) -> Option<&'h [H]> {
        allocation.get(self.nodes.start as usize..self.nodes.end as usize)
    }

    /// The GPUs that are a task's own, where its step does not have its nodes for itself: by the
    /// number of the task's node in its step, and of the task on its node.
    pub fn own_gpus(&self, node: u32, local: u32) -> Option<Range<u32>> {
        let first = if node == 0 { self.gpus.start } else { 0 };
        let on_node = || self.tasks_of_each_node().nth(node as usize).unwrap_or_default();
        Some(match self.role.share()? {
            Share::OneEach => first + local..first + local + 1,
            Share::OfRanks => first..first + on_node(),
            Share::Gpus(count) => first..first + count,
        })
    }

    /// How many of its tasks run on each of its nodes.
    pub fn tasks_of_each_node(&self) -> impl Iterator<Item = u32> + use<> {
        let Step { tasks, tasks_per_node, deal, .. } = self.role.step;
        let (tasks, per_node) = (u64::from(tasks), u64::from(tasks_per_node));
        let nodes = self.nodes.len() as u64;
        // The GPUs of others on the first node.
        let others = if deal == Deal::ByGpu { u64::from(self.gpus.start) } else { 0 };
        (0..nodes).map(move |node| {
            let count = match deal {
                Deal::Even => tasks / nodes + u64::from(node < tasks % nodes),
                Deal::Filled | Deal::ByGpu => {
                    let dealt = |nodes: u64| (nodes * per_node).saturating_sub(others).min(tasks);
                    dealt(node + 1) - dealt(node)
                }
            };
            count as u32
        })
    }

    /// The tasks on each of its nodes, for [`StepSpec::ranks`](super::StepSpec).
    pub(super) fn ranks(&self) -> Vec<u32> {
        let step = &self.role.step;
        let share = self.role.share();
        if step.deal == Deal::Filled && share != Some(Share::OfRanks) {
            return vec![step.tasks_per_node];
        }
        let mut ranks: Vec<_> = self.tasks_of_each_node().collect();
        if ranks.iter().all(|count| *count == ranks[0]) {
            ranks.truncate(1);
        }
        ranks
    }

    /// The first of its nodes that has fewer CPUs in the job than it has tasks there: its host, the
    /// CPUs and the tasks. `cpus` are those of each node of the allocation; nodes beyond are not
    /// checked.
    pub fn too_few_cpus<'h, H>(
        &self,
        allocation: &'h [H],
        cpus: &[u32],
    ) -> Option<(&'h H, u32, u32)> {
        let hosts = self.hosts(allocation)?;
        let cpus = cpus.get(self.nodes.start as usize..).unwrap_or_default();
        let nodes = hosts.iter().zip(cpus).zip(self.tasks_of_each_node());
        let mut short = nodes.filter(|((_, cpus), tasks)| **cpus < *tasks);
        short.next().map(|((host, cpus), tasks)| (host, *cpus, tasks))
    }

    /// The host of each of its tasks, in rank order, for `SLURM_HOSTFILE` with arbitrary
    /// distribution; `None` when the allocation is smaller than the plan.
    pub fn host_of_each_task<'h, H>(&self, allocation: &'h [H]) -> Option<Vec<&'h H>> {
        let hosts = self.hosts(allocation)?;
        let counts = self.tasks_of_each_node().map(|count| count as usize);
        Some(hosts.iter().zip(counts).flat_map(|(host, n)| std::iter::repeat_n(host, n)).collect())
    }
}
