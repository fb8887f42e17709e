// SPDX-License-Identifier: Apache-2.0
//! One step of a plan: `GEN_3` with its nodes, its environment and its command.
//!
//! Instances are derived, never stored: a plan has the same size for one server and for thousands.

use std::borrow::Cow;
use std::ops::Range;

use super::command::{PYTEST, file_name};
use super::layout::Slot;
use super::origin::Origin;
use super::pytest;
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
    /// All steps of the test itself: generation servers, context servers, DISAGG_SERVER and
    /// BENCHMARK, or the one server.
    pub fn instances(&self) -> impl Iterator<Item = Instance<'_>> {
        self.instances_of(|kind| kind.precheck_of().is_none())
    }

    /// The steps that come before those of the test, all at a time; none when the precheck is
    /// not enabled, or when there are no two kinds of servers between which caches could travel.
    pub fn prechecks(&self) -> impl Iterator<Item = Instance<'_>> {
        let enabled = self.precheck.is_some_and(|precheck| precheck.enabled)
            && self.layout.num_ctx_servers > 0;
        self.instances_of(move |kind| enabled && kind.precheck_of().is_some())
    }

    fn instances_of(
        &self,
        wanted: impl Fn(RoleKind) -> bool,
    ) -> impl Iterator<Item = Instance<'_>> {
        self.roles
            .iter()
            .filter(move |(kind, _)| wanted(**kind))
            .flat_map(|(kind, role)| (0..role.count).map(|index| self.derive(*kind, role, index)))
    }

    /// One step by name; `None` when the plan has no such step.
    pub fn instance(&self, name: InstanceName) -> Option<Instance<'_>> {
        let role = self.roles.get(&name.kind)?;
        (name.index < role.count).then(|| self.derive(name.kind, role, name.index))
    }

    fn derive<'p>(&'p self, kind: RoleKind, role: &'p Role, index: u32) -> Instance<'p> {
        let (layout, placement) = (&self.layout, self.placement);
        let slot = match kind.precheck_of().unwrap_or(kind) {
            RoleKind::Gen => Some(layout.gen_slot(placement, index)),
            RoleKind::Ctx => Some(layout.ctx_slot(placement, index)),
            RoleKind::Aggregated => Some(Slot { nodes: 0..layout.nodes_per_server, first_gpu: 0 }),
            _ => None,
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
    /// Its environment: the role's, the name of its role where the test has several, and its GPUs
    /// where servers share nodes.
    pub fn env(&self) -> Env {
        let mut env = self.role.environment();
        if self.name.kind != RoleKind::Aggregated {
            let name = self.name.to_string();
            let origin = Origin::rule("the name of the step's role");
            env.set(SERVING_TYPE, &Template::literal(&name), origin);
        }
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
        let mut argv: Vec<_> =
            self.role.argv.iter().map(|argument| Cow::Borrowed(argument.value.as_str())).collect();
        for (at, start) in self.junit_paths() {
            let (option, path) = self.role.argv[at].value.split_at(start);
            argv[at] = Cow::Owned(format!("{option}{}", own_file(path, &self.name.to_string())));
        }
        argv
    }

    /// Its JUnit file, when its command writes one.
    pub fn junit_file(&self) -> Option<String> {
        let (at, start) = self.junit_paths().pop()?;
        Some(own_file(&self.role.argv[at].value[start..], &self.name.to_string()))
    }

    /// Where its command names a JUnit file: the argument, and where in it the path begins.
    fn junit_paths(&self) -> Vec<(usize, usize)> {
        let words: Vec<_> = self.role.argv.iter().map(|word| word.value.as_str()).collect();
        let Some(first) = words.iter().position(|word| file_name(word) == PYTEST) else {
            return Vec::new();
        };
        let paths = pytest::values_at(&words[first + 1..], pytest::JUNIT_OPTIONS);
        paths.into_iter().map(|(at, start)| (first + 1 + at, start)).collect()
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
            RoleKind::Aggregated => "aggregated_server.log".to_owned(),
            RoleKind::GenPrecheck => format!("gen_precheck_{index}.log"),
            RoleKind::CtxPrecheck => format!("ctx_precheck_{index}.log"),
        }
    }

    /// The GPUs that are its own among those of its nodes; empty where it has whole nodes.
    pub fn own_gpus(&self) -> Range<u32> {
        if self.shares_nodes() { self.gpus.clone() } else { 0..0 }
    }

    /// Whether other servers run on its nodes too.
    fn shares_nodes(&self) -> bool {
        self.plan.placement == Placement::Packed
            && self.name.kind.is_indexed()
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
