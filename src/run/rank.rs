// SPDX-License-Identifier: Apache-2.0
//! What a result says of single ranks.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::result::Exit;

/// Where a rank runs, as its task saw it before its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankPlace {
    /// The rank.
    pub rank: u32,
    /// Slurm's name of its node.
    pub node: String,
    /// Its GPUs by their numbers on the node; none where Slurm counts no GPUs.
    pub gpus: Vec<String>,
    /// `CUDA_VISIBLE_DEVICES`, which may count from the job's first GPU.
    pub cuda_visible_devices: String,
}

/// The end of a rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankEnd {
    /// The rank; the lowest where several ended in the same way at once. None where Slurm ended all
    /// of the step for what one of the node's ranks did.
    pub rank: Option<u32>,
    /// Its node.
    pub node: String,
    /// How it ended, where `srun` reported it.
    pub exit: Option<Exit>,
    /// Slurm's message: `Exited with exit code 42`.
    pub message: String,
}

impl fmt::Display for RankEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rank, node, exit, message } = self;
        match (rank, exit) {
            (None, _) => write!(f, "{message} on {node}"),
            (Some(rank), Some(exit)) => write!(f, "{exit} on {node} rank {rank}"),
            (Some(rank), None) => write!(f, "{message} on {node} rank {rank}"),
        }
    }
}
