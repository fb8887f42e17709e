// SPDX-License-Identifier: Apache-2.0
//! From the YAML of a test configuration to the facts that a plan needs.
//!
//! The files are the test suite's, not ours: sections and keys that the plan does not use are left
//! alone, except for a warning where a key looks mistyped.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::fields::{Fields, Section, is_placeholder};
use super::{find, set, source, yaml};
use crate::diagnostic::{Diagnostic, Diagnostics, Position, Source};
use crate::plan::Traced;
use crate::plan::config::{
    Benchmark, Config, Environment, Field, Hardware, PrecheckSettings, ServerEntry, Slurm, Worker,
};
use crate::plan::layout::MAX_COUNT;
use crate::plan::rules::is_gen_only;
use crate::slurm::time::TimeLimit;

/// The longest time that a precheck may be given, in seconds.
const MAX_PRECHECK_TIME: u32 = 1_000_000;
/// The most GPUs that a node may have.
const MAX_GPUS_PER_NODE: u32 = 1024;

/// A configuration and its warnings.
pub type Read = (Config, Vec<Diagnostic>);

/// Reads a configuration file, with some values changed; messages call it `shown`.
///
/// # Errors
/// All that is wrong with it, with positions.
pub fn read(path: &Path, shown: &str, changes: &[String]) -> Result<Read, Diagnostics> {
    read_text(path, &source::read(path, shown)?, &set::sources(changes))
}

/// Reads the text of a configuration that is, or would be, at `path`, with some values changed
/// ([`set`]).
///
/// # Errors
/// All that is wrong with it, with positions.
pub fn read_text(
    path: &Path,
    source: &Arc<Source>,
    changes: &[Arc<Source>],
) -> Result<Read, Diagnostics> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let (mut config, warnings) = parse(find::without_ending(&name), source, changes)?;
    config.path = path.to_string_lossy().into_owned();
    Ok((config, warnings))
}

/// Reads a configuration's text; `name` is the configuration's.
///
/// # Errors
/// All that is wrong with it, with positions.
pub fn parse(
    name: &str,
    source: &Arc<Source>,
    changes: &[Arc<Source>],
) -> Result<Read, Diagnostics> {
    if name.is_empty() || name.contains(|c: char| c.is_control() || c == '/') {
        let message = format!("{name:?} cannot be the name of a configuration");
        let help = "rename the file: its name becomes part of the test id and of file names";
        return Err(Diagnostic::error(message).help(help).into());
    }
    let mut document = yaml::parse(source)?;
    for change in changes {
        set::apply(&mut document, change, known_keys)?;
    }
    let changed = document.root.as_ref().filter(|_| !changes.is_empty()).map(yaml::write);
    if document.root.is_none() {
        let start = document.at(Position { line: 1, column: 1, length: 1 });
        return Err(Diagnostic::error("the configuration is empty").at(start).into());
    }
    let (mut fields, root) = Fields::new(&document);
    fields.warn_of_typos(&root, ROOT_KEYS);

    let benchmark = fields.section(&root, "benchmark");
    fields.warn_of_typos(&benchmark, BENCHMARK_KEYS);
    let hardware = fields.section(&root, "hardware");
    fields.warn_of_typos(&hardware, HARDWARE_KEYS);
    let environment = fields.section(&root, "environment");
    fields.warn_of_typos(&environment, ENVIRONMENT_KEYS);
    let slurm = fields.section(&root, "slurm");
    fields.warn_of_typos(&slurm, SLURM_KEYS);
    let workers = fields.section(&root, "worker_config");
    fields.warn_of_typos(&workers, WORKERS_KEYS);
    let generation = fields.section(&workers, "gen");
    let context = fields.section(&workers, "ctx");
    let metadata = fields.section(&root, "metadata");
    let precheck = fields.section(&root, "cache_transceiver_precheck");
    fields.warn_of_typos(&precheck, PRECHECK_KEYS);

    let start = Position { line: 1, column: 1, length: 1 };
    let sections = std::iter::once((String::new(), document.at(start)))
        .chain(
            root.entries().iter().map(|(key, _)| (key.name.to_string(), document.at(key.position))),
        )
        .collect();
    let mut config = Config {
        bad_fields: Vec::new(),
        mistyped: Vec::new(),
        placeholders: [&slurm, &environment]
            .into_iter()
            .flat_map(|s| fields.placeholders(s))
            .collect(),
        name: name.to_owned(),
        path: source.name.clone(),
        sha256: sha256(changed.as_ref().unwrap_or(&source.text).as_bytes()),
        changed,
        sections,
        benchmark: Benchmark {
            mode: mode(&mut fields, &benchmark),
            concurrency: fields.numbers(&benchmark, "concurrency_list"),
        },
        hardware: Hardware {
            gpus_per_node: fields.integer(&hardware, "gpus_per_node", 1..=MAX_GPUS_PER_NODE),
            num_ctx_servers: fields.integer(&hardware, "num_ctx_servers", 0..=MAX_COUNT),
            num_gen_servers: fields.integer(&hardware, "num_gen_servers", 0..=MAX_COUNT),
        },
        generation: worker(&mut fields, &generation),
        context: worker(&mut fields, &context),
        environment: Environment {
            worker: fields.assignments(&environment, "worker_env_var"),
            gen_worker: fields.assignments(&environment, "gen_worker_env_var"),
            ctx_worker: fields.assignments(&environment, "ctx_worker_env_var"),
            server: fields.assignments(&environment, "server_env_var"),
            benchmark: fields.assignments(&environment, "benchmark_env_var"),
        },
        slurm: Slurm {
            job_time: time_limit(&mut fields, &slurm, "job_time"),
            partition: filled(fields.text(&slurm, "partition")),
            account: filled(fields.text(&slurm, "account")),
            extra_args: filled(fields.text(&slurm, "extra_args")),
            unused: fields
                .values(&slurm, &["script_file", "job_name", "numa_bind", "timeout"])
                .chain(fields.values(&environment, &["container_image", "container_mount"]))
                .collect(),
            set_segment: fields.truth(&slurm, "set_segment"),
        },
        supported_gpus: fields.texts(&metadata, "supported_gpus"),
        precheck: PrecheckSettings {
            enabled: fields.switch(&precheck, "enabled"),
            timeout_s: fields.seconds(&precheck, "step_timeout_s", 1..=MAX_PRECHECK_TIME),
            setup_s: fields.seconds(&precheck, "setup_timeout_s", 1..=MAX_PRECHECK_TIME),
            rendezvous_s: fields.seconds(&precheck, "rendezvous_timeout_s", 1..=MAX_PRECHECK_TIME),
            wave_s: fields.seconds(&precheck, "wave_timeout_s", 1..=MAX_PRECHECK_TIME),
            wireup_s: match fields.is_empty(&precheck, "wireup_timeout_s") {
                true => Field::Missing,
                false => fields.seconds(&precheck, "wireup_timeout_s", 1..=MAX_PRECHECK_TIME),
            },
        },
        servers: fields
            .sections(&root, "server_configs")
            .map(|entries| entries.iter().map(|entry| server_entry(&mut fields, entry)).collect()),
    };
    config.bad_fields = fields.bad_fields.0;
    config.mistyped = fields.mistyped;
    if fields.diagnostics.has_errors() {
        return Err(fields.diagnostics);
    }
    Ok((config, fields.diagnostics.0))
}

fn mode<'d>(fields: &mut Fields<'d>, benchmark: &Section<'d>) -> Field<String> {
    let mode = fields.text(benchmark, "mode");
    if let Field::Good(Traced { value, origin }) = &mode
        && !MODES.contains(&value.as_str())
        && !is_gen_only(value)
    {
        let warning =
            Diagnostic::warning(format!("benchmark.mode `{value}` is unknown; e2e is used"))
                .at(origin.location.clone())
                .help(format!("known modes: {}", MODES.join(", ")));
        fields.diagnostics.push(warning);
    }
    mode
}

/// A text; one that nobody filled in counts as missing.
fn filled(text: Field<String>) -> Field<String> {
    match text {
        Field::Good(text) if is_placeholder(&text.value) || text.value.trim().is_empty() => {
            Field::Missing
        }
        other => other,
    }
}

/// A time limit in Slurm's form; a placeholder counts as missing.
pub(super) fn time_limit<'d>(
    fields: &mut Fields<'d>,
    section: &Section<'d>,
    key: &str,
) -> Field<String> {
    match filled(fields.text(section, key)) {
        Field::Good(time) => match time.value.parse::<TimeLimit>() {
            Ok(_) => Field::Good(time),
            Err(error) => {
                let message = format!("{}: {error}", time.origin.input);
                fields.bad(Diagnostic::error(message).at(time.origin.location))
            }
        },
        other => other,
    }
}

fn worker<'d>(fields: &mut Fields<'d>, section: &Section<'d>) -> Worker {
    fields.warn_of_typos(section, &[WORKER_KEYS, SERVER_KEYS].concat());
    let mut size = |key| fields.integer(section, key, 1..=MAX_COUNT);
    Worker {
        tensor_parallel_size: size("tensor_parallel_size"),
        pipeline_parallel_size: size("pipeline_parallel_size"),
        context_parallel_size: size("context_parallel_size"),
        max_batch_size: size("max_batch_size"),
        moe_expert_parallel_size: size("moe_expert_parallel_size"),
        world_size: match fields.is_empty(section, "world_size") {
            true => Field::Missing,
            false => fields.integer(section, "world_size", 0..=MAX_COUNT),
        },
        enable_attention_dp: fields.switch(section, "enable_attention_dp"),
        present: !section.entries().is_empty(),
    }
}

fn server_entry<'d>(fields: &mut Fields<'d>, section: &Section<'d>) -> ServerEntry {
    ServerEntry {
        name: fields.text(section, "name"),
        worker: worker(fields, section),
        environment: fields.assignments(section, "server_env_var"),
    }
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const MODES: &[&str] = &["e2e", "gen_only", "gen_only_no_context", "ctx_only"];

/// The keys of the sections that plans are made from; nothing for those that are the engine's.
fn known_keys(path: &[&str]) -> Option<Vec<&'static str>> {
    let known = match path {
        [] => ROOT_KEYS,
        ["benchmark"] => BENCHMARK_KEYS,
        ["hardware"] => HARDWARE_KEYS,
        ["environment"] => ENVIRONMENT_KEYS,
        ["slurm"] => SLURM_KEYS,
        ["cache_transceiver_precheck"] => PRECHECK_KEYS,
        ["worker_config"] => WORKERS_KEYS,
        ["worker_config", "gen" | "ctx"] | ["server_configs", _] => {
            return Some([WORKER_KEYS, SERVER_KEYS].concat());
        }
        _ => return None,
    };
    Some(known.to_vec())
}

// Keys that the test suite's configurations have, for telling typos from keys of other tools.
const ROOT_KEYS: &[&str] = &[
    "metadata",
    "slurm",
    "benchmark",
    "hardware",
    "sequence",
    "environment",
    "profiling",
    "accuracy",
    "worker_config",
    "server_configs",
    "cache_transceiver_precheck",
    "router_config",
    "ctx_router_config",
    "gen_router_config",
    "server_config_extra",
    "client_configs",
    "internal_request_auth_key",
];
const BENCHMARK_KEYS: &[&str] = &[
    "mode",
    "use_nv_sa_benchmark",
    "multi_round",
    "benchmark_ratio",
    "streaming",
    "concurrency_list",
    "input_length",
    "output_length",
    "dataset_file",
    "only_run_accuracy",
];
const HARDWARE_KEYS: &[&str] = &["gpus_per_node", "num_ctx_servers", "num_gen_servers", "gpu_type"];
const ENVIRONMENT_KEYS: &[&str] = &[
    "container_mount",
    "container_image",
    "model_path",
    "trtllm_repo",
    "trtllm_wheel_path",
    "build_wheel",
    "cuda_architectures",
    "work_dir",
    "dataset_file",
    "worker_env_var",
    "ctx_worker_env_var",
    "gen_worker_env_var",
    "server_env_var",
    "benchmark_env_var",
    "client_env_var",
];
const SLURM_KEYS: &[&str] = &[
    "script_file",
    "partition",
    "account",
    "job_time",
    "job_name",
    "extra_args",
    "set_segment",
    "numa_bind",
    "timeout",
];
const PRECHECK_KEYS: &[&str] = &[
    "enabled",
    "step_timeout_s",
    "setup_timeout_s",
    "rendezvous_timeout_s",
    "wave_timeout_s",
    "wireup_timeout_s",
    "request_lengths",
    "max_request_length",
    "num_requests",
    "warmup_requests",
    "max_concurrent_pairs",
    "verify_data",
];
const WORKERS_KEYS: &[&str] = &["gen", "ctx", "eplb_num_slots"];
const WORKER_KEYS: &[&str] = &[
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "context_parallel_size",
    "moe_expert_parallel_size",
    "moe_tensor_parallel_size",
    "world_size",
    "max_batch_size",
    "max_num_tokens",
    "max_seq_len",
    "max_input_len",
    "enable_attention_dp",
    "cuda_graph_config",
    "kv_cache_config",
    "moe_config",
    "cp_config",
    "speculative_config",
    "cache_transceiver_config",
    "attention_dp_config",
    "nvfp4_gemm_config",
    "allreduce_strategy",
    "disable_overlap_scheduler",
    "enable_chunked_prefill",
    "enable_layerwise_nvtx_marker",
    "enable_lm_head_tp_in_adp",
    "num_postprocess_workers",
    "print_iter_log",
    "stream_interval",
    "trust_remote_code",
    "sparse_attention_config",
    "scheduler_config",
    "enable_autotuner",
    "torch_compile_config",
    "attn_backend",
    "num_serve_frontends",
];
/// What an entry of `server_configs` has besides.
const SERVER_KEYS: &[&str] = &[
    "name",
    "model_name",
    "backend",
    "server_env_var",
    "client_configs",
    "gpus",
    "match_mode",
    "runtime",
    "transforms",
    "skip_loading_weights",
    "extra_llm_api_config_path",
];
