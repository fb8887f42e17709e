// SPDX-License-Identifier: Apache-2.0
//! The facts of a test configuration that a plan depends on, already typed and located.
//!
//! `input` reads them from YAML; the planner never sees the text.

use super::assignments::Assignment;
use super::origin::Traced;
use crate::diagnostic::{Diagnostic, Diagnostics, Location};

/// A test configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// Its name: the file's name without `.yaml`.
    pub name: String,
    /// Its path, as found.
    pub path: String,
    /// SHA-256 of its bytes, in lower-case hexadecimal.
    pub sha256: String,
    /// Where each top-level section stands, for what is missing in it.
    pub sections: Vec<(String, Location)>,
    /// `benchmark`.
    pub benchmark: Benchmark,
    /// `hardware`.
    pub hardware: Hardware,
    /// `worker_config.gen`.
    pub generation: Worker,
    /// `worker_config.ctx`.
    pub context: Worker,
    /// `environment`.
    pub environment: Environment,
    /// `slurm`.
    pub slurm: Slurm,
    /// `metadata.supported_gpus`: the generations of GPU that it is made for.
    pub supported_gpus: Field<Vec<String>>,
    /// `cache_transceiver_precheck`.
    pub precheck: PrecheckSettings,
    /// `server_configs`: the servers of aggregated tests, in order.
    pub servers: Field<Vec<ServerEntry>>,
    /// Values that nobody filled in (`<partition>`), by their keys.
    pub placeholders: Vec<Traced<String>>,
    /// Its text, where it is not the file's: options changed values.
    pub changed: Option<String>,
    /// Unknown keys that look like those that size a test, with the paths that they stand for: a
    /// plan with a default would be the wrong one.
    pub mistyped: Vec<(String, Diagnostic)>,
    /// What is wrong with fields, used or not.
    pub bad_fields: Vec<Diagnostic>,
}

/// The file of a changed configuration in the workspace; the test looks for it by its name.
pub fn file_in_workspace(name: &str) -> String {
    format!("config/{}.yaml", name.replace('/', "_"))
}

impl Config {
    /// Whether it is of an aggregated test: it has servers and no workers.
    pub fn is_aggregated(&self) -> bool {
        self.has_section("server_configs") && !self.has_section("worker_config")
    }

    /// Whether there is a top-level section of this name.
    pub fn has_section(&self, section: &str) -> bool {
        self.sections.iter().any(|(name, _)| name == section)
    }

    /// Whether what is missing at a path is there under a mistyped name, which is an error already.
    pub fn is_mistyped(&self, path: &str) -> bool {
        self.mistyped.iter().any(|(meant, _)| {
            path.strip_prefix(meant.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// The names of the entries of `server_configs`, in order.
    pub fn server_names(&self, errors: &mut Diagnostics) -> Vec<&str> {
        let entries = self.servers.get(errors).map_or(&[][..], |entries| &entries.value);
        let mut names = Vec::new();
        for entry in entries {
            if let Field::Good(name) = &entry.name {
                names.push(name.value.as_str());
            }
        }
        names
    }

    /// Where a top-level section stands; the file's start when it has no such section.
    pub fn location(&self, section: &str) -> Option<Location> {
        let found = self.sections.iter().find(|(name, _)| name == section);
        found.or(self.sections.first()).map(|(_, location)| location.clone())
    }
}

/// A field of a configuration. One that is wrong is an error only where it is used.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Field<T> {
    /// It is not there.
    #[default]
    Missing,
    /// It cannot be taken; why.
    Bad(Diagnostic),
    /// Its value.
    Good(Traced<T>),
}

impl<T> Field<T> {
    /// The value, for use: what is wrong with the field is added to the errors.
    pub fn get(&self, errors: &mut Diagnostics) -> Option<&Traced<T>> {
        match self {
            Self::Good(value) => Some(value),
            Self::Missing => None,
            Self::Bad(diagnostic) => {
                errors.push_once(diagnostic.clone());
                None
            }
        }
    }

    /// The same field with another value, made from this one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Missing => Field::Missing,
            Self::Bad(diagnostic) => Field::Bad(diagnostic),
            Self::Good(Traced { value, origin }) => Field::Good(Traced::new(change(value), origin)),
        }
    }

    /// Whether it is not there at all.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }
}

/// `benchmark`: what is measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Benchmark {
    /// `mode`: `e2e`, `gen_only`, `gen_only_no_context` or a name containing one of them.
    pub mode: Field<String>,
    /// `concurrency_list`: requests in flight; one or several numbers.
    pub concurrency: Field<Vec<u64>>,
}

/// `hardware`: the size of the test.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Hardware {
    /// `gpus_per_node`: GPUs of each node.
    pub gpus_per_node: Field<u32>,
    /// `num_ctx_servers`: context servers.
    pub num_ctx_servers: Field<u32>,
    /// `num_gen_servers`: generation servers.
    pub num_gen_servers: Field<u32>,
}

/// `worker_config.gen` and `worker_config.ctx`: one server's parallel sizes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Worker {
    /// `tensor_parallel_size`, in GPUs; missing: 1.
    pub tensor_parallel_size: Field<u32>,
    /// `pipeline_parallel_size`; missing: 1.
    pub pipeline_parallel_size: Field<u32>,
    /// `context_parallel_size`; missing: 1.
    pub context_parallel_size: Field<u32>,
    /// `moe_expert_parallel_size`; divides `tensor_parallel_size`.
    pub moe_expert_parallel_size: Field<u32>,
    /// `world_size`, in GPUs; counts instead of the product in tests of one server, unless 0.
    pub world_size: Field<u32>,
    /// `max_batch_size`: requests that each rank, or all together, serve at a time.
    pub max_batch_size: Field<u32>,
    /// `enable_attention_dp`: whether each rank of the tensor parallelism serves requests of its
    /// own.
    pub enable_attention_dp: Field<bool>,
    /// Whether the section is there and not empty.
    pub present: bool,
}

/// An entry of `server_configs`: the one server of an aggregated test.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerEntry {
    /// `name`.
    pub name: Field<String>,
    /// Its parallel sizes.
    pub worker: Worker,
    /// `server_env_var`.
    pub environment: Field<Vec<Assignment>>,
}

/// `cache_transceiver_precheck`: whether caches travel, checked before the servers start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PrecheckSettings {
    /// `enabled`; missing: yes; empty: no; any other text: yes.
    pub enabled: Field<bool>,
    /// `step_timeout_s`, in seconds.
    pub timeout_s: Field<u32>,
    /// `setup_timeout_s`, in seconds.
    pub setup_s: Field<u32>,
    /// `rendezvous_timeout_s`, in seconds.
    pub rendezvous_s: Field<u32>,
    /// `wave_timeout_s`, in seconds.
    pub wave_s: Field<u32>,
    /// `wireup_timeout_s`, in seconds.
    pub wireup_s: Field<u32>,
}

/// `environment`: the variables of the roles.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Environment {
    /// `worker_env_var`: of context and generation servers.
    pub worker: Field<Vec<Assignment>>,
    /// `gen_worker_env_var`: of generation servers, after `worker_env_var`.
    pub gen_worker: Field<Vec<Assignment>>,
    /// `ctx_worker_env_var`: of context servers, after `worker_env_var`.
    pub ctx_worker: Field<Vec<Assignment>>,
    /// `server_env_var`: of the DISAGG_SERVER.
    pub server: Field<Vec<Assignment>>,
    /// `benchmark_env_var`: of the BENCHMARK.
    pub benchmark: Field<Vec<Assignment>>,
}

/// `slurm`: what the configuration asks of Slurm.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Slurm {
    /// `job_time`: the time limit, in Slurm's own form.
    pub job_time: Field<String>,
    /// `partition`, for jobs that no setting gives one.
    pub partition: Field<String>,
    /// `account`, likewise.
    pub account: Field<String>,
    /// `extra_args`: further options for sbatch in one line.
    pub extra_args: Field<String>,
    /// Keys with a value that asks for something, but has no effect.
    pub unused: Vec<Traced<()>>,
    /// `set_segment`: ask for one segment (an NVLink domain) of as many nodes as the job has.
    pub set_segment: Field<bool>,
}
