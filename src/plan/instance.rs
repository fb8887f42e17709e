// SPDX-License-Identifier: Apache-2.0
//! One step of a plan: `GEN_3` with its nodes, its environment and its command.
//!
//! Instances are derived, never stored: a plan has the same size for one server and for thousands.

use std::borrow::Cow;
use std::ops::Range;

use super::command::JUNIT_OPTION;
use super::origin::{Origin, Traced};
use super::role::{Env, InstanceName, Role, RoleKind};
use super::template::Template;
use super::{Placement, Plan};

/// The variable that tells a step which role it plays.
pub const SERVING_TYPE: &str = "DISAGG_SERVING_TYPE";

/// One step of a plan.
#[derive(Debug, Clone)]
pub struct Instance<'p> {
    /// The plan that it belongs to.
    pub plan: &'p Plan,
    /// Its name.
    pub name: InstanceName,
    /// What its kind runs.
    pub role: &'p Role,
    /// Its nodes, counted from the allocation's first.
    pub nodes: Range<u32>,
    /// Its GPUs on each of its nodes; empty for the steps that use none.
    pub gpus: Range<u32>,
}

impl Plan {
    /// All steps: generation servers, context servers, DISAGG_SERVER, BENCHMARK.
    pub fn instances(&self) -> impl Iterator<Item = Instance<'_>> {
        self.roles
            .iter()
            .flat_map(|(kind, role)| (0..role.count).map(|index| self.derive(*kind, role, index)))
    }

    /// One step by name; `None` when the plan has no such step.
    pub fn instance(&self, name: InstanceName) -> Option<Instance<'_>> {
        let role = self.roles.get(&name.kind)?;
        (name.index < role.count).then(|| self.derive(name.kind, role, name.index))
    }

    fn derive<'p>(&'p self, kind: RoleKind, role: &'p Role, index: u32) -> Instance<'p> {
        let (layout, placement) = (&self.layout, self.placement);
        let slot = match kind {
            RoleKind::Gen => Some(layout.gen_slot(placement, index)),
            RoleKind::Ctx => Some(layout.ctx_slot(placement, index)),
            RoleKind::DisaggServer | RoleKind::Benchmark => None,
        };
        let (nodes, gpus) = match slot {
            Some(slot) => (slot.nodes, slot.first_gpu..slot.first_gpu + role.step.tasks_per_node),
            None => {
                let node = layout.frontend_node(placement, self.frontend_node);
                (node..node + 1, 0..0)
            }
        };
        Instance { plan: self, name: InstanceName { kind, index }, role, nodes, gpus }
    }
}

impl<'p> Instance<'p> {
    /// Its environment: the role's, the name of its role, and its GPUs where servers share nodes.
    pub fn env(&self) -> Env {
        let mut env = self.role.env.clone();
        let name = self.name.to_string();
        env.set(
            SERVING_TYPE,
            &Template::literal(&name),
            Origin::rule("the name of the step's role"),
        );
        let gpus = self.own_gpus();
        if !gpus.is_empty() {
            let ids: Vec<_> = gpus.map(|gpu| gpu.to_string()).collect();
            let origin =
                Origin::rule("packed placement: servers on one node have GPUs of their own");
            env.set("CUDA_VISIBLE_DEVICES", &Template::literal(&ids.join(",")), origin);
        }
        env
    }

    /// Its command: the role's, with a JUnit file of its own, so that no role overwrites
    /// another's results.
    pub fn argv(&self) -> Vec<Cow<'p, str>> {
        let own = |argument: &'p Traced<String>| match argument
            .value
            .strip_prefix(JUNIT_OPTION)
            .map(|path| own_file(path, &self.name.to_string()))
        {
            Some(path) => Cow::Owned(format!("{JUNIT_OPTION}{path}")),
            None => Cow::Borrowed(argument.value.as_str()),
        };
        self.role.argv.iter().map(own).collect()
    }

    /// Its JUnit file, when its command writes one.
    pub fn junit_file(&self) -> Option<String> {
        self.role
            .argv
            .iter()
            .find_map(|argument| argument.value.strip_prefix(JUNIT_OPTION))
            .map(|path| own_file(path, &self.name.to_string()))
    }

    /// Its hosts among the allocation's; `None` when the allocation is smaller than the plan.
    pub fn hosts<'h, H>(&self, allocation: &'h [H]) -> Option<&'h [H]> {
        allocation.get(self.nodes.start as usize..self.nodes.end as usize)
    }

    /// The host of each of its tasks, in rank order, for `SLURM_HOSTFILE` with arbitrary
    /// distribution; `None` when the allocation is smaller than the plan.
    pub fn host_of_each_task<'h, H>(&self, allocation: &'h [H]) -> Option<Vec<&'h H>> {
        let hosts = self.hosts(allocation)?;
        let per_node = self.role.step.tasks_per_node;
        (0..self.role.step.tasks).map(|rank| hosts.get((rank / per_node) as usize)).collect()
    }

    /// The file in the workspace that its output goes to.
    pub fn log_file(&self) -> String {
        let index = self.name.index;
        match self.name.kind {
            RoleKind::Gen => format!("gen_server_{index}.log"),
            RoleKind::Ctx => format!("ctx_server_{index}.log"),
            RoleKind::DisaggServer => "disagg_server.log".to_owned(),
            RoleKind::Benchmark => "benchmark.log".to_owned(),
        }
    }

    /// The GPUs that are its own among those of its nodes; empty where it has whole nodes.
    pub fn own_gpus(&self) -> Range<u32> {
        if self.shares_nodes() { self.gpus.clone() } else { 0..0 }
    }

    /// Whether other servers run on its nodes too.
    fn shares_nodes(&self) -> bool {
        self.plan.placement == Placement::Packed
            && self.name.kind.is_worker()
            && self.role.step.tasks < self.plan.layout.gpus_per_node
    }
}

/// A role's own variant of a file: `results.xml` → `results-GEN_3.xml`.
pub fn own_file(path: &str, name: &str) -> String {
    match path.strip_suffix(".xml") {
        Some(stem) => format!("{stem}-{name}.xml"),
        None => format!("{path}-{name}"),
    }
}
