// SPDX-License-Identifier: Apache-2.0
//! How many nodes and GPUs a test takes and which nodes each server gets.
//!
//! Servers never share a node unless they are packed; packed servers never straddle nodes.
//! Everything here is closed arithmetic on counts, so that a plan does not grow with its servers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The numbers of a plan, under the names that the field uses. In JSON it has the numbers of its
/// [`Form`] and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Layout {
    /// Which of these numbers the test has; the others are 0.
    pub form: Form,
    /// Context servers.
    pub num_ctx_servers: u32,
    /// Generation servers.
    pub num_gen_servers: u32,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// World size of a context server: its GPUs, one rank each.
    pub gpus_per_ctx_server: u32,
    /// World size of a generation server.
    pub gpus_per_gen_server: u32,
    /// Nodes that a context server spans.
    pub nodes_per_ctx_server: u32,
    /// Nodes that a generation server spans.
    pub nodes_per_gen_server: u32,
    /// World size of the one server of a test without context and generation servers.
    pub gpus_per_server: u32,
    /// Nodes that this server spans.
    pub nodes_per_server: u32,
    /// Nodes of the whole job.
    pub total_nodes: u32,
    /// GPUs of the whole job: `total_nodes` × `gpus_per_node`.
    pub total_gpus: u32,
}

/// Which numbers a layout has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// Context and generation servers.
    #[default]
    Servers,
    /// The same, with the tasks on each node of each server.
    ServersWithTasks,
    /// One server.
    OneServer,
}

/// A layout as JSON has it.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    num_ctx_servers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_gen_servers: Option<u32>,
    gpus_per_node: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus_per_ctx_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus_per_gen_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_per_ctx_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_per_gen_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus_per_node_per_ctx_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus_per_node_per_gen_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus_per_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes_per_server: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus_per_node_per_server: Option<u32>,
    total_nodes: u32,
    total_gpus: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    world_size: Option<u32>,
}

impl From<Layout> for Written {
    fn from(layout: Layout) -> Self {
        let one = layout.form == Form::OneServer;
        let servers = |number: u32| (!one).then_some(number);
        let server = |number: u32| one.then_some(number);
        let tasks = |world_size: u32| {
            let tasks = layout.tasks_per_node(world_size);
            (layout.form == Form::ServersWithTasks).then_some(tasks)
        };
        Self {
            num_ctx_servers: servers(layout.num_ctx_servers),
            num_gen_servers: servers(layout.num_gen_servers),
            gpus_per_node: layout.gpus_per_node,
            gpus_per_ctx_server: servers(layout.gpus_per_ctx_server),
            gpus_per_gen_server: servers(layout.gpus_per_gen_server),
            nodes_per_ctx_server: servers(layout.nodes_per_ctx_server),
            nodes_per_gen_server: servers(layout.nodes_per_gen_server),
            gpus_per_node_per_ctx_server: tasks(layout.gpus_per_ctx_server),
            gpus_per_node_per_gen_server: tasks(layout.gpus_per_gen_server),
            gpus_per_server: server(layout.gpus_per_server),
            nodes_per_server: server(layout.nodes_per_server),
            gpus_per_node_per_server: server(layout.tasks_per_node(layout.gpus_per_server)),
            total_nodes: layout.total_nodes,
            total_gpus: layout.total_gpus,
            world_size: server(layout.world_size()),
        }
    }
}

impl TryFrom<Written> for Layout {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        let form = match (&written.gpus_per_server, &written.gpus_per_node_per_gen_server) {
            (Some(_), _) => Form::OneServer,
            (None, Some(_)) => Form::ServersWithTasks,
            (None, None) => Form::Servers,
        };
        let number = |number: Option<u32>| number.unwrap_or_default();
        let layout = Self {
            form,
            num_ctx_servers: number(written.num_ctx_servers),
            num_gen_servers: number(written.num_gen_servers),
            gpus_per_node: written.gpus_per_node,
            gpus_per_ctx_server: number(written.gpus_per_ctx_server),
            gpus_per_gen_server: number(written.gpus_per_gen_server),
            nodes_per_ctx_server: number(written.nodes_per_ctx_server),
            nodes_per_gen_server: number(written.nodes_per_gen_server),
            gpus_per_server: number(written.gpus_per_server),
            nodes_per_server: number(written.nodes_per_server),
            total_nodes: written.total_nodes,
            total_gpus: written.total_gpus,
        };
        let again = Written::from(layout);
        let derived = |layout: &Written| {
            (
                layout.gpus_per_node_per_ctx_server,
                layout.gpus_per_node_per_gen_server,
                layout.gpus_per_node_per_server,
                layout.world_size,
                layout.num_gen_servers.is_some(),
            )
        };
        if derived(&again) != derived(&written) {
            return Err("the layout's numbers are not those of one form");
        }
        Ok(layout)
    }
}

/// How servers share nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// Every server has its nodes to itself.
    #[default]
    Exclusive,
    /// Servers smaller than a node share nodes, each with GPUs of its own.
    Packed,
}

/// The node of DISAGG_SERVER and BENCHMARK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrontendNode {
    /// The allocation's first node.
    #[default]
    First,
    /// The allocation's last node.
    Last,
    /// The first node of the first context server; the allocation's first node without one.
    Ctx,
    /// A node of their own, after the servers' nodes.
    Own,
}

/// The most nodes, servers or GPUs of one kind that a plan may have.
pub const MAX_COUNT: u32 = 1_000_000;

/// Why a layout cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the test would take {nodes} nodes with {gpus} GPUs; at most {MAX_COUNT} of each are planned"
)]
pub struct TooLarge {
    nodes: u64,
    gpus: u64,
}

/// Servers of one kind: how many, and the world size of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Servers {
    /// How many.
    pub count: u32,
    /// World size of each.
    pub world_size: u32,
}

/// Where one server runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its nodes, counted from the allocation's first.
    pub nodes: Range<u32>,
    /// Its first GPU on each of its nodes.
    pub first_gpu: u32,
}

impl Layout {
    /// Computes the layout of a test.
    ///
    /// # Errors
    /// [`TooLarge`] when a total exceeds [`MAX_COUNT`]. The world sizes and `gpus_per_node` must
    /// be at least 1; `input` sees to it.
    pub fn new(
        generation: Servers,
        context: Servers,
        gpus_per_node: u32,
        placement: Placement,
        frontend: FrontendNode,
    ) -> Result<Self, TooLarge> {
        let layout = Self {
            num_ctx_servers: context.count,
            num_gen_servers: generation.count,
            gpus_per_node,
            gpus_per_ctx_server: context.world_size,
            gpus_per_gen_server: generation.world_size,
            nodes_per_ctx_server: context.world_size.div_ceil(gpus_per_node),
            nodes_per_gen_server: generation.world_size.div_ceil(gpus_per_node),
            ..Self::default()
        };
        layout.with_total(layout.server_nodes(placement) + u64::from(frontend == FrontendNode::Own))
    }

    /// Computes the layout of a test of one server.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn one_server(world_size: u32, gpus_per_node: u32) -> Result<Self, TooLarge> {
        let layout = Self {
            form: Form::OneServer,
            gpus_per_node,
            gpus_per_server: world_size,
            nodes_per_server: world_size.div_ceil(gpus_per_node),
            ..Self::default()
        };
        layout.with_total(u64::from(layout.nodes_per_server))
    }

    fn with_total(mut self, nodes: u64) -> Result<Self, TooLarge> {
        let gpus = nodes.saturating_mul(u64::from(self.gpus_per_node));
        let limit = u64::from(MAX_COUNT);
        if nodes > limit || gpus > limit {
            return Err(TooLarge { nodes, gpus });
        }
        (self.total_nodes, self.total_gpus) = (nodes as u32, gpus as u32);
        Ok(self)
    }

    /// The tasks of the one server's step when every node of it is full, which run scripts know
    /// as its world size.
    pub fn world_size(&self) -> u32 {
        self.nodes_per_server.saturating_mul(self.tasks_per_node(self.gpus_per_server))
    }

    /// The same layout computed again from its own counts: equal unless a number was tampered with.
    pub(super) fn recomputed(
        &self,
        placement: Placement,
        frontend: FrontendNode,
    ) -> Result<Self, TooLarge> {
        let server = |count, world_size: u32| Servers { count, world_size: world_size.max(1) };
        if self.form == Form::OneServer {
            return Self::one_server(self.gpus_per_server.max(1), self.gpus_per_node.max(1));
        }
        let layout = Self::new(
            server(self.num_gen_servers, self.gpus_per_gen_server),
            server(self.num_ctx_servers, self.gpus_per_ctx_server),
            self.gpus_per_node.max(1),
            placement,
            frontend,
        )?;
        Ok(Self { form: self.form, ..layout })
    }

    /// Tasks that a server of this world size has on each of its full nodes.
    pub fn tasks_per_node(&self, world_size: u32) -> u32 {
        world_size.min(self.gpus_per_node)
    }

    /// The nodes that servers take, without a node of the frontend's own.
    fn server_nodes(&self, placement: Placement) -> u64 {
        let (generation, context) = self.packs(placement);
        let after_generation = generation.nodes(self.num_gen_servers);
        let shared = self.shared(&generation, &context);
        let rest = self.num_ctx_servers.saturating_sub(shared.total());
        after_generation + context.nodes(rest)
    }

    /// Where a generation server runs.
    pub fn gen_slot(&self, placement: Placement, index: u32) -> Slot {
        self.packs(placement).0.slot(0, index)
    }

    /// Where a context server runs.
    pub fn ctx_slot(&self, placement: Placement, index: u32) -> Slot {
        let (generation, context) = self.packs(placement);
        let shared = self.shared(&generation, &context);
        let world_size = self.gpus_per_ctx_server;
        let full_total = shared.full_nodes * shared.per_full_node;
        if index < full_total {
            let node = index / shared.per_full_node;
            let used = generation.per_node * self.gpus_per_gen_server;
            let first_gpu = used + index % shared.per_full_node * world_size;
            return Slot { nodes: node..node + 1, first_gpu };
        }
        if index < shared.total() {
            let node = shared.full_nodes;
            let used = self.num_gen_servers % generation.per_node * self.gpus_per_gen_server;
            let first_gpu = used + (index - full_total) * world_size;
            return Slot { nodes: node..node + 1, first_gpu };
        }
        let after_generation = generation.nodes(self.num_gen_servers) as u32;
        context.slot(after_generation, index - shared.total())
    }

    /// The node of DISAGG_SERVER and BENCHMARK, counted from the allocation's first.
    pub fn frontend_node(&self, placement: Placement, frontend: FrontendNode) -> u32 {
        match frontend {
            FrontendNode::Ctx if self.num_ctx_servers > 0 => {
                self.ctx_slot(placement, 0).nodes.start
            }
            FrontendNode::First | FrontendNode::Ctx => 0,
            FrontendNode::Last | FrontendNode::Own => self.total_nodes.saturating_sub(1),
        }
    }

    fn packs(&self, placement: Placement) -> (Pack, Pack) {
        // A test of one server has neither kind.
        let pack = |world_size: u32| Pack {
            world_size,
            nodes_per_server: world_size.div_ceil(self.gpus_per_node),
            per_node: match placement {
                Placement::Packed => (self.gpus_per_node / world_size.max(1)).max(1),
                Placement::Exclusive => 1,
            },
        };
        (pack(self.gpus_per_gen_server), pack(self.gpus_per_ctx_server))
    }

    /// The context servers that fit onto GPUs which generation servers leave over.
    fn shared(&self, generation: &Pack, context: &Pack) -> Shared {
        let packs = generation.per_node > 1 || context.per_node > 1;
        let fits = context.nodes_per_server == 1 && generation.nodes_per_server == 1;
        if !packs || !fits {
            return Shared::default();
        }
        let fitting = |servers: u32| {
            (self.gpus_per_node - servers * self.gpus_per_gen_server)
                / self.gpus_per_ctx_server.max(1)
        };
        let full_nodes = self.num_gen_servers / generation.per_node;
        let on_last = self.num_gen_servers % generation.per_node;
        let mut left = self.num_ctx_servers;
        let per_full_node = fitting(generation.per_node);
        let on_full = full_nodes.saturating_mul(per_full_node).min(left);
        left -= on_full;
        let on_partial = if on_last == 0 { 0 } else { fitting(on_last).min(left) };
        // A full node that gets fewer context servers than fit is the last that gets any.
        Shared { full_nodes, per_full_node, on_full, on_partial }
    }
}

/// How servers of one kind fill nodes.
struct Pack {
    world_size: u32,
    nodes_per_server: u32,
    per_node: u32,
}

impl Pack {
    fn nodes(&self, servers: u32) -> u64 {
        u64::from(servers.div_ceil(self.per_node)) * u64::from(self.nodes_per_server)
    }

    fn slot(&self, offset: u32, index: u32) -> Slot {
        let start = offset + index / self.per_node * self.nodes_per_server;
        Slot {
            nodes: start..start + self.nodes_per_server,
            first_gpu: index % self.per_node * self.world_size,
        }
    }
}

/// Context servers on nodes that generation servers do not fill.
#[derive(Default)]
struct Shared {
    full_nodes: u32,
    per_full_node: u32,
    on_full: u32,
    on_partial: u32,
}

impl Shared {
    fn total(&self) -> u32 {
        self.on_full + self.on_partial
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layout(generation: (u32, u32), context: (u32, u32), g: u32, placement: Placement) -> Layout {
        let servers = |(count, world_size)| Servers { count, world_size };
        Layout::new(servers(generation), servers(context), g, placement, FrontendNode::First)
            .unwrap()
    }

    #[test]
    fn exclusive_servers_round_up_to_whole_nodes() {
        let l = layout((2, 6), (2, 6), 4, Placement::Exclusive);
        assert_eq!((l.nodes_per_gen_server, l.total_nodes, l.total_gpus), (2, 8, 32));
        assert_eq!(l.gen_slot(Placement::Exclusive, 1).nodes, 2..4);
        assert_eq!(l.ctx_slot(Placement::Exclusive, 0).nodes, 4..6);
    }

    #[test]
    fn packed_context_servers_fill_what_generation_servers_leave_over() {
        let l = layout((3, 4), (3, 2), 8, Placement::Packed);
        assert_eq!(l.total_nodes, 3);
        let slot = |i| l.ctx_slot(Placement::Packed, i);
        assert_eq!(l.gen_slot(Placement::Packed, 2), Slot { nodes: 1..2, first_gpu: 0 });
        assert_eq!(slot(0), Slot { nodes: 1..2, first_gpu: 4 });
        assert_eq!(slot(1), Slot { nodes: 1..2, first_gpu: 6 });
        assert_eq!(slot(2), Slot { nodes: 2..3, first_gpu: 0 });
    }

    #[test]
    fn the_frontend_may_have_a_node_of_its_own() {
        let one = Servers { count: 1, world_size: 4 };
        let l = Layout::new(one, one, 4, Placement::Exclusive, FrontendNode::Own).unwrap();
        assert_eq!(l.total_nodes, 3);
        assert_eq!(l.frontend_node(Placement::Exclusive, FrontendNode::Own), 2);
        assert_eq!(l.frontend_node(Placement::Exclusive, FrontendNode::Ctx), 1);
    }

    #[test]
    fn one_server_has_whole_nodes_and_the_numbers_of_its_form() {
        let layout = Layout::one_server(6, 4).unwrap();
        let json = serde_json::to_string(&layout).unwrap();
        assert_eq!(
            json,
            r#"{"gpus_per_node":4,"gpus_per_server":6,"nodes_per_server":2,"gpus_per_node_per_server":4,"total_nodes":2,"total_gpus":8,"world_size":8}"#
        );
        assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
        assert!(serde_json::from_str::<Layout>(&json.replace(":8}", ":9}")).is_err());
    }

    #[test]
    fn a_layout_is_read_back_in_its_form() {
        let plain = layout((2, 6), (1, 4), 4, Placement::Exclusive);
        for form in [Form::Servers, Form::ServersWithTasks] {
            let layout = Layout { form, ..plain };
            let json = serde_json::to_string(&layout).unwrap();
            assert_eq!(json.contains("gpus_per_node_per"), form == Form::ServersWithTasks);
            assert_eq!(serde_json::from_str::<Layout>(&json).unwrap(), layout);
        }
    }

    #[test]
    fn a_test_beyond_all_measure_is_refused() {
        let many = Servers { count: MAX_COUNT, world_size: MAX_COUNT };
        assert!(Layout::new(many, many, 1, Placement::Exclusive, FrontendNode::First).is_err());
    }

    proptest! {
        #[test]
        fn no_gpu_is_given_twice_and_none_outside_the_job(
            generation in (0u32..20, 1u32..20),
            context in (0u32..20, 1u32..20),
            g in 1u32..10,
            packed: bool,
        ) {
            let placement = if packed { Placement::Packed } else { Placement::Exclusive };
            let l = layout(generation, context, g, placement);
            let mut taken = std::collections::HashSet::new();
            let mut nodes_of = std::collections::HashMap::new();
            let slots = (0..l.num_gen_servers)
                .map(|i| (l.gen_slot(placement, i), l.gpus_per_gen_server))
                .chain((0..l.num_ctx_servers)
                    .map(|i| (l.ctx_slot(placement, i), l.gpus_per_ctx_server)));
            for (server, (slot, world_size)) in slots.enumerate() {
                prop_assert!(slot.nodes.end <= l.total_nodes);
                prop_assert_eq!(slot.nodes.len() as u32, world_size.div_ceil(g));
                for rank in 0..world_size {
                    let node = slot.nodes.start + rank / g;
                    let gpu = slot.first_gpu + rank % g;
                    prop_assert!(gpu < g);
                    prop_assert!(taken.insert((node, gpu)), "GPU {} of node {} twice", gpu, node);
                    if !packed {
                        prop_assert_eq!(*nodes_of.entry(node).or_insert(server), server);
                    }
                }
            }
            prop_assert_eq!(l.total_gpus, l.total_nodes * g);
            prop_assert!(taken.len() <= l.total_gpus as usize, "more tasks than GPUs");
            if !packed {
                let sum = l.num_gen_servers * l.nodes_per_gen_server
                    + l.num_ctx_servers * l.nodes_per_ctx_server;
                prop_assert_eq!(l.total_nodes, sum);
                for (size, nodes) in [
                    (l.gpus_per_gen_server, l.nodes_per_gen_server),
                    (l.gpus_per_ctx_server, l.nodes_per_ctx_server),
                ] {
                    prop_assert!(l.tasks_per_node(size) <= g);
                    prop_assert!(l.tasks_per_node(size) * nodes >= size);
                }
            }
        }

        #[test]
        fn one_server_has_no_more_tasks_than_gpus(world_size in 1u32..2000, g in 1u32..20) {
            let l = Layout::one_server(world_size, g).unwrap();
            prop_assert_eq!(l.total_nodes, l.nodes_per_server);
            prop_assert_eq!(l.total_gpus, l.total_nodes * g);
            prop_assert!(l.tasks_per_node(world_size) <= g);
            prop_assert!((world_size..=l.total_gpus).contains(&l.world_size()));
        }
    }
}
