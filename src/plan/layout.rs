// SPDX-License-Identifier: Apache-2.0
//! How many nodes and GPUs a job takes and which of them each instance of a role gets.
//!
//! Servers never share a node unless they are packed; packed servers never straddle nodes, compact
//! ones may.
//! Everything here is closed arithmetic on counts, so that a plan does not grow with its servers.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// The size of the job, and the numbers that the rules name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layout {
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// Nodes of the whole job.
    pub total_nodes: u32,
    /// GPUs of the whole job: `total_nodes` × `gpus_per_node`.
    pub total_gpus: u32,
    /// The sizes of the roles under the names that the rule set gives them.
    #[serde(flatten)]
    pub numbers: IndexMap<String, u32>,
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
    /// Each server begins at the GPU after the last of the one before, on whatever node that is.
    Compact,
}

/// The node of the router and the client.
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
    "the test needs {nodes} nodes with {gpus} GPUs; a plan may have at most {MAX_COUNT} of each"
)]
pub struct TooLarge {
    nodes: u64,
    gpus: u64,
}

/// Instances of a role in a row: each node, or group of nodes, takes `per_node` of them. Those that
/// are dealt by GPU ([`Deal::ByGpu`](super::role::Deal)) follow each other GPU by GPU instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How many instances.
    pub count: u32,
    /// The first one's first node, counted from the allocation's first.
    pub first_node: u32,
    /// How many share each node; 1 for those that span several.
    pub per_node: u32,
    /// The first GPU of the first one on each node.
    pub first_gpu: u32,
}

impl Run {
    /// One instance on one node.
    pub fn on(node: u32) -> Vec<Self> {
        vec![Self { count: 1, first_node: node, per_node: 1, first_gpu: 0 }]
    }

    /// The node after the last that it uses, when each instance spans `nodes`.
    pub(super) fn end(&self, nodes: u32) -> u64 {
        u64::from(self.first_node)
            + u64::from(self.count.div_ceil(self.per_node.max(1))) * u64::from(nodes)
    }
}

/// Gives nodes to one role after the other.
#[derive(Debug)]
pub struct Placer {
    gpus_per_node: u32,
    placement: Placement,
    next_node: u32,
    /// The GPU of the job after the last of compact servers.
    next_gpu: u64,
    /// Nodes on which packed servers leave GPUs over.
    partly_free: Vec<PartlyFree>,
}

#[derive(Debug, Clone, Copy)]
struct PartlyFree {
    first_node: u32,
    nodes: u32,
    used_gpus: u32,
}

impl Placer {
    /// Of an empty job.
    pub fn new(gpus_per_node: u32, placement: Placement) -> Self {
        Self { gpus_per_node, placement, next_node: 0, next_gpu: 0, partly_free: Vec::new() }
    }

    /// Gives `count` servers of a world size their nodes. Packed ones first take the GPUs that
    /// earlier ones leave over.
    ///
    /// # Errors
    /// [`TooLarge`]. The world size and the GPUs of a node must be at least 1; `input` sees to it.
    pub fn place(&mut self, count: u32, world_size: u32) -> Result<Vec<Run>, TooLarge> {
        if self.placement == Placement::Compact {
            return self.place_compact(count, world_size);
        }
        let nodes_each = world_size.div_ceil(self.gpus_per_node);
        let mut runs = Vec::new();
        let mut left = count;
        let mut per_node = 1;
        if self.placement == Placement::Packed && nodes_each == 1 {
            left = self.fill(count, world_size, &mut runs);
            per_node = self.gpus_per_node / world_size;
        }
        let first_node = self.next_node;
        let new_nodes = u64::from(left.div_ceil(per_node)) * u64::from(nodes_each);
        self.take_nodes(new_nodes)?;
        if left > 0 {
            runs.push(Run { count: left, first_node, per_node, first_gpu: 0 });
        }
        if self.placement == Placement::Packed && nodes_each == 1 {
            let full = left / per_node;
            self.leave(first_node, full, per_node * world_size);
            self.leave(
                first_node + full,
                u32::from(full * per_node < left),
                left % per_node * world_size,
            );
        }
        Ok(runs)
    }

    fn place_compact(&mut self, count: u32, world_size: u32) -> Result<Vec<Run>, TooLarge> {
        let (first, per_node) = (self.next_gpu, u64::from(self.gpus_per_node));
        let end = first + u64::from(count) * u64::from(world_size);
        self.take_nodes(end.div_ceil(per_node).saturating_sub(self.next_node.into()))?;
        self.next_gpu = end;
        // Both are below the number of nodes and GPUs that a plan may have.
        let (first_node, first_gpu) = ((first / per_node) as u32, (first % per_node) as u32);
        Ok(vec![Run { count, first_node, per_node: 1, first_gpu }])
    }

    /// Puts servers onto nodes that are partly free; returns how many are left.
    fn fill(&mut self, count: u32, world_size: u32, runs: &mut Vec<Run>) -> u32 {
        let mut left = count;
        for free in std::mem::take(&mut self.partly_free) {
            let PartlyFree { first_node, nodes, used_gpus } = free;
            let per_node = (self.gpus_per_node - used_gpus) / world_size;
            if per_node == 0 || left == 0 {
                self.partly_free.push(free);
                continue;
            }
            let placed = left.min(nodes.saturating_mul(per_node));
            runs.push(Run { count: placed, first_node, per_node, first_gpu: used_gpus });
            left -= placed;
            let (full, on_next) = (placed / per_node, placed % per_node);
            let touched = placed.div_ceil(per_node);
            self.leave(first_node, full, used_gpus + per_node * world_size);
            self.leave(first_node + full, touched - full, used_gpus + on_next * world_size);
            self.leave(first_node + touched, nodes - touched, used_gpus);
        }
        left
    }

    fn leave(&mut self, first_node: u32, nodes: u32, used_gpus: u32) {
        if nodes > 0 && used_gpus < self.gpus_per_node {
            self.partly_free.push(PartlyFree { first_node, nodes, used_gpus });
        }
    }

    /// A node that no server gets.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn own_node(&mut self) -> Result<u32, TooLarge> {
        let node = self.next_node;
        self.take_nodes(1)?;
        Ok(node)
    }

    fn take_nodes(&mut self, count: u64) -> Result<(), TooLarge> {
        let nodes = u64::from(self.next_node) + count;
        let gpus = nodes.saturating_mul(u64::from(self.gpus_per_node));
        if nodes.max(gpus) > u64::from(MAX_COUNT) {
            return Err(TooLarge { nodes, gpus });
        }
        self.next_node = nodes as u32;
        Ok(())
    }

    /// The nodes taken so far.
    pub fn total_nodes(&self) -> u32 {
        self.next_node
    }
}

/// How many nodes fewer servers take that are packed: each a count and a world size, in the order in
/// which they are placed. 0 where they cannot be placed.
pub fn saved_by_packing(
    gpus_per_node: u32,
    servers: impl Iterator<Item = (u32, u32)> + Clone,
) -> u32 {
    let nodes = |placement| {
        let mut placer = Placer::new(gpus_per_node, placement);
        let placed =
            servers.clone().try_for_each(|(count, size)| placer.place(count, size).map(drop));
        placed.map_or(0, |()| placer.total_nodes())
    };
    nodes(Placement::Exclusive).saturating_sub(nodes(Placement::Packed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// First node and first GPU of each server.
    fn slots(runs: &[Run], nodes_each: u32, world_size: u32) -> Vec<(u32, u32)> {
        let slot = |run: &Run, index: u32| {
            let gpu = run.first_gpu + index % run.per_node * world_size;
            (run.first_node + index / run.per_node * nodes_each, gpu)
        };
        runs.iter().flat_map(|run| (0..run.count).map(move |index| slot(run, index))).collect()
    }

    #[test]
    fn exclusive_servers_round_up_to_whole_nodes() {
        let mut placer = Placer::new(4, Placement::Exclusive);
        assert_eq!(slots(&placer.place(2, 6).unwrap(), 2, 6), [(0, 0), (2, 0)]);
        assert_eq!(slots(&placer.place(2, 6).unwrap(), 2, 6), [(4, 0), (6, 0)]);
        assert_eq!(placer.total_nodes(), 8);
    }

    #[test]
    fn packed_servers_fill_what_earlier_ones_leave_over() {
        let mut placer = Placer::new(8, Placement::Packed);
        assert_eq!(slots(&placer.place(3, 4).unwrap(), 1, 4), [(0, 0), (0, 4), (1, 0)]);
        assert_eq!(slots(&placer.place(3, 2).unwrap(), 1, 2), [(1, 4), (1, 6), (2, 0)]);
        assert_eq!(slots(&placer.place(1, 6).unwrap(), 1, 6), [(2, 2)]);
        assert_eq!(placer.total_nodes(), 3);
    }

    #[test]
    fn a_test_beyond_all_measure_is_refused() {
        let mut placer = Placer::new(1, Placement::Exclusive);
        assert!(placer.place(MAX_COUNT, MAX_COUNT).is_err());
    }

    proptest! {
        #[test]
        fn no_gpu_is_given_twice_and_none_outside_the_job(
            roles in prop::collection::vec((0u32..20, 1u32..20), 1..5),
            g in 1u32..10,
            packed: bool,
        ) {
            let placement = if packed { Placement::Packed } else { Placement::Exclusive };
            let mut placer = Placer::new(g, placement);
            let mut servers = Vec::new();
            for (count, world_size) in &roles {
                let runs = placer.place(*count, *world_size).unwrap();
                let nodes_each = world_size.div_ceil(g);
                let placed = slots(&runs, nodes_each, *world_size);
                prop_assert_eq!(placed.len(), *count as usize);
                prop_assert!(runs.iter().all(|run| run.end(nodes_each) <= placer.total_nodes().into()));
                servers.extend(placed.into_iter().map(|slot| (slot, *world_size)));
            }
            let mut taken = std::collections::HashSet::new();
            let mut nodes_of = std::collections::HashMap::new();
            for (server, ((first_node, first_gpu), world_size)) in servers.into_iter().enumerate() {
                for rank in 0..world_size {
                    let (node, gpu) = (first_node + rank / g, first_gpu + rank % g);
                    prop_assert!(node < placer.total_nodes() && gpu < g);
                    prop_assert!(taken.insert((node, gpu)), "GPU {} of node {} twice", gpu, node);
                    if !packed {
                        prop_assert_eq!(*nodes_of.entry(node).or_insert(server), server);
                    }
                }
            }
            if !packed {
                let nodes: u32 = roles.iter().map(|(count, size)| count * size.div_ceil(g)).sum();
                prop_assert_eq!(placer.total_nodes(), nodes);
            }
        }
    }
}
