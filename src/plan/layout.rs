// SPDX-License-Identifier: Apache-2.0
//! How many nodes and GPUs a test takes and which nodes each server gets.
//!
//! Servers never share a node unless they are packed; packed servers never straddle nodes.
//! Everything here is closed arithmetic on counts, so that a plan does not grow with its servers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The numbers of a plan, under the names that the field uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layout {
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
    /// Nodes of the whole job.
    pub total_nodes: u32,
    /// GPUs of the whole job: `total_nodes` × `gpus_per_node`.
    pub total_gpus: u32,
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
        let mut layout = Self {
            num_ctx_servers: context.count,
            num_gen_servers: generation.count,
            gpus_per_node,
            gpus_per_ctx_server: context.world_size,
            gpus_per_gen_server: generation.world_size,
            nodes_per_ctx_server: context.world_size.div_ceil(gpus_per_node),
            nodes_per_gen_server: generation.world_size.div_ceil(gpus_per_node),
            total_nodes: 0,
            total_gpus: 0,
        };
        let nodes = layout.server_nodes(placement) + u64::from(frontend == FrontendNode::Own);
        let gpus = nodes.saturating_mul(u64::from(gpus_per_node));
        let limit = u64::from(MAX_COUNT);
        if nodes > limit || gpus > limit {
            return Err(TooLarge { nodes, gpus });
        }
        (layout.total_nodes, layout.total_gpus) = (nodes as u32, gpus as u32);
        Ok(layout)
    }

    /// The same layout computed again from its own counts: equal unless a number was tampered with.
    pub(super) fn recomputed(
        &self,
        placement: Placement,
        frontend: FrontendNode,
    ) -> Result<Self, TooLarge> {
        let server = |count, world_size: u32| Servers { count, world_size: world_size.max(1) };
        Self::new(
            server(self.num_gen_servers, self.gpus_per_gen_server),
            server(self.num_ctx_servers, self.gpus_per_ctx_server),
            self.gpus_per_node.max(1),
            placement,
            frontend,
        )
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
        let pack = |world_size: u32| Pack {
            world_size,
            nodes_per_server: world_size.div_ceil(self.gpus_per_node),
            per_node: match placement {
                Placement::Packed => (self.gpus_per_node / world_size).max(1),
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
            (self.gpus_per_node - servers * self.gpus_per_gen_server) / self.gpus_per_ctx_server
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
        }
    }
}
