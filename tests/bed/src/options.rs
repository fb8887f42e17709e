// SPDX-License-Identifier: Apache-2.0
//! What a cluster is to be like: the options of `slurm-bed up`, by name.

use crate::Slurm;
use std::ffi::OsString;
use std::path::Path;

/// What a cluster is to be like. Unless said otherwise its nodes are `node1`, `node2`, … with 64 CPUs
/// and 4 fake GPUs each, under [`Slurm::under_test`], without plugins and without accounting.
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) arguments: Vec<OsString>,
    pub(crate) etc_files: Vec<(String, String)>,
}

impl Options {
    /// A cluster of so many nodes.
    pub fn nodes(count: u32) -> Self {
        let new = Self { arguments: Vec::new(), etc_files: Vec::new() };
        new.with("-n", count.to_string())
    }

    fn with(mut self, option: &str, value: impl Into<OsString>) -> Self {
        self.arguments.extend([option.into(), value.into()]);
        self
    }

    /// So many fake GPUs on every node; 0: none.
    pub fn gpus(self, per_node: u32) -> Self {
        self.with("--gpus", per_node.to_string())
    }

    /// The GPUs' type in gres.conf, e.g. `h100`.
    pub fn gpu_type(self, name: &str) -> Self {
        self.with("--gpu-type", name)
    }

    /// Slurm's `MpiDefault`, e.g. `pmix`.
    pub fn mpi(self, name: &str) -> Self {
        self.with("--mpi", name)
    }

    /// A line for plugstack.conf, e.g. `required /path/plugin.so key=value`.
    pub fn spank(self, line: &str) -> Self {
        self.with("--spank", line)
    }

    /// This node has no SPANK plugin.
    pub fn bare_node(self, name: &str) -> Self {
        self.with("--bare-node", name)
    }

    /// One more directory with plugins, searched before Slurm's own.
    pub fn plugin_dir(self, dir: &Path) -> Self {
        self.with("--plugin-dir", dir)
    }

    /// Slurm's `JobSubmitPlugins`, e.g. `disagg` or `lua`.
    pub fn job_submit(self, names: &str) -> Self {
        self.with("--job-submit", names)
    }

    /// A line for slurm.conf, in place of the bed's own with the same key.
    pub fn conf(self, line: &str) -> Self {
        self.with("--conf", line)
    }

    /// Accounting by a slurmdbd and a database of its own, some four seconds slower to start.
    pub fn accounting(mut self) -> Self {
        self.arguments.push("--dbd".into());
        self
    }

    /// An ordinary cluster, on which not everything is free and as small tests like it: memory is
    /// counted, tasks are bound, another job has half of the GPUs of each node, and so on.
    pub fn unfriendly(mut self) -> Self {
        self.arguments.push("--unfriendly".into());
        self
    }

    /// The Slurm installation to run.
    pub fn slurm(self, slurm: &Slurm) -> Self {
        self.with("--slurm", slurm.prefix.as_os_str())
    }

    /// A file beside slurm.conf, e.g. `job_submit.lua`.
    pub fn etc_file(mut self, name: &str, text: &str) -> Self {
        self.etc_files.push((name.to_owned(), text.to_owned()));
        self
    }
}
