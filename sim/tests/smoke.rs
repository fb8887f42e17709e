// SPDX-License-Identifier: Apache-2.0
//! disagg-smoke with the built spank_disagg.so: every configuration that can be planned comes out
//! as planned, and whatever goes wrong is noticed.

#![allow(clippy::unwrap_used)]

mod common;

use common::Bench;
use disagg::input::Surroundings;
use disagg::input::request::{self, Options};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a run of disagg-smoke gave.
struct Output {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Output {
    #[track_caller]
    fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn says(&self, parts: &[&str]) {
        for part in parts {
            let text = format!("{}\n{}", self.stdout, self.stderr);
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn smoke<A: AsRef<OsStr>>(config: &Path, args: impl IntoIterator<Item = A>) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_disagg-smoke"))
        .arg(config)
        .arg("--plugin")
        .arg(slurm_bed::built("spank_disagg.so"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

const NONE: [&str; 0] = [];

fn standin(name: &str) -> PathBuf {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/standin/configs");
    configs.join(format!("standin_{name}.yaml")).canonicalize().unwrap()
}

/// A configuration of one generation server over two nodes, with these variables for the workers.
fn config(bench: &Bench, worker_env: &str) -> PathBuf {
    let path = bench.path("own.yaml");
    let text = format!(
        "benchmark: {{mode: e2e}}\n\
         hardware: {{gpus_per_node: 4, num_ctx_servers: 2, num_gen_servers: 1}}\n\
         environment:\n  worker_env_var: '{worker_env}'\n\
         worker_config:\n  gen: {{tensor_parallel_size: 8}}\n  ctx: {{tensor_parallel_size: 2}}\n"
    );
    fs::write(&path, text).unwrap();
    path
}

fn yaml_files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(yaml_files_below(&path));
        } else if path.extension() == Some(OsStr::new("yaml")) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn can_be_planned(config: &Path) -> bool {
    let options = Options {
        config: config.to_str().unwrap().to_owned(),
        trtllm_dir: Some("/src".to_owned()),
        models_dir: Some("/models".to_owned()),
        ..Options::default()
    };
    let around = Surroundings { env: &|_| None, current_dir: PathBuf::from("/") };
    request::plan(&options, &around).is_ok()
}

#[test]
fn every_configuration_of_the_corpus_that_can_be_planned_comes_out_as_planned() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let corpus = std::env::var_os("DISAGG_CORPUS").map_or(beside, PathBuf::from);
    if !corpus.is_dir() {
        eprintln!("no corpus at {}: nothing is played from it", corpus.display());
        return;
    }
    let mut wrong = String::new();
    let mut planned = 0;
    for config in
        ["configs", "configs_synthetic"].iter().flat_map(|d| yaml_files_below(&corpus.join(d)))
    {
        let plannable = can_be_planned(&config);
        planned += u32::from(plannable);
        let output = smoke(&config, NONE);
        let expected = if plannable { 0 } else { 2 };
        if output.code != Some(expected) {
            wrong += &format!("{}: exit {:?}, not {expected}\n", config.display(), output.code);
            wrong += &output.stdout.lines().rev().take(8).collect::<Vec<_>>().join("\n");
            wrong += &format!("\n{}\n", output.stderr);
        }
    }
    assert!(planned > 50, "only {planned} configurations of the corpus could be planned");
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_release_comes_out_as_planned() {
    for name in ["3nodes", "one_gpu", "gen_only"] {
        let output = smoke(&standin(name), ["--release", "all"]).expect(0);
        let verdicts = output.stdout.lines().filter(|line| line.ends_with(" as planned")).count();
        assert_eq!(verdicts, slurm_sim::Release::ALL.len(), "{}", output.stdout);
    }
}

#[test]
fn the_whole_path_is_shown_from_sbatch_to_the_ranks() {
    smoke(&standin("3nodes"), NONE).expect(0).says(&[
        "$ sbatch --disagg-config=/",
        "sbatch: disagg: standin_3nodes: 3 nodes x 4 GPUs = 12 GPUs",
        "v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=standin_3nodes",
        "--nodes=3 --ntasks=12 --ntasks-per-node=4, gres:gpu:4 on each node: node[1-3]",
        "--disagg-role=GEN_0         run.sh   on node[1-2]  4(x2) per node   --nodes=2 --ntasks=8",
        "GEN_0 ranks 0-7 on node[1-2]:\n    unset UCX_TLS\n    TLLM_LOG_LEVEL=INFO\n",
        "CTX_0 ranks 0-3 on node3: same as GEN_0 rank 0 but for DISAGG_SERVING_TYPE=CTX_0, with ",
        "Slurm 22.05.8: 4 steps and 14 ranks as planned",
    ]);
}

#[test]
fn every_rank_has_its_own_numbers_in_the_values_that_refer_to_them() {
    let bench = Bench::new();
    let config = config(&bench, "CACHE=/c/${SLURM_LOCALID}-$SLURM_PROCID HOMEDIR=$UCX_TLS.");
    let report = smoke(&config, ["--format", "json"]).expect(0).json();
    let step = &report["runs"][0]["steps"][0];
    let caches: Vec<_> =
        step["ranks"].as_array().unwrap().iter().map(|r| env_of(r, "CACHE").unwrap()).collect();
    assert_eq!(
        caches,
        ["/c/0-0", "/c/1-1", "/c/2-2", "/c/3-3", "/c/0-4", "/c/1-5", "/c/2-6", "/c/3-7"]
    );
    let first = &step["ranks"][0];
    assert_eq!(env_of(first, "HOMEDIR").as_deref(), Some("."), "what is unset is empty");
    assert_eq!(first["unset"], serde_json::json!(["UCX_TLS"]));
}

#[test]
fn a_value_sees_what_a_later_variable_was_before() {
    let bench = Bench::new();
    smoke(&config(&bench, "FIRST=$LATER. LATER=1 SECOND=$LATER"), NONE)
        .expect(0)
        .says(&["    FIRST=.\n", "    SECOND=1\n"]);
}

/// A variable in the report on a rank.
fn env_of(rank: &Value, name: &str) -> Option<String> {
    let pairs = rank["env"].as_array().unwrap();
    let pair = pairs.iter().find(|pair| pair[0] == name)?;
    Some(pair[1].as_str().unwrap().to_owned())
}

#[test]
fn packed_servers_on_one_node_have_gpus_of_their_own() {
    let bench = Bench::new();
    let args = ["--placement", "packed", "--format", "json"];
    let report = smoke(&config(&bench, ""), args).expect(0).json();
    let steps = report["runs"][0]["steps"].as_array().unwrap();
    let of_contexts: Vec<_> = steps
        .iter()
        .filter(|step| step["role"].as_str().unwrap().starts_with("CTX"))
        .map(|step| {
            let rank = &step["ranks"][0];
            let gpus = env_of(rank, "CUDA_VISIBLE_DEVICES").unwrap();
            (rank["host"].as_str().unwrap().to_owned(), gpus)
        })
        .collect();
    let expected = [("node3", "0,1"), ("node3", "2,3")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(of_contexts, expected);
}

#[test]
fn a_secret_is_in_no_output() {
    let bench = Bench::new();
    let config = config(&bench, "HF_TOKEN=hf_123");
    for args in [&["--verbose"][..], &["--format", "json"], &["--fault", "spank_unsetenv"]] {
        let output = smoke(&config, args);
        assert!(!output.stdout.contains("hf_123") && !output.stderr.contains("hf_123"), "{args:?}");
    }
    let probe = bench.probe("probe", &[]);
    let line = format!("required {} task_init:setenv:HF_TOKEN:hf_456", probe.display());
    let output = smoke(&config, ["--plugstack", &line]).expect(1);
    output.says(&["GEN_0 ranks 0-7: HF_TOKEN", "another value"]);
    assert!(!output.stdout.contains("hf_123") && !output.stdout.contains("hf_456"));
}

#[test]
fn a_call_that_slurm_refuses_fails_with_the_plugins_message() {
    for (call, message) in [
        ("spank_setenv", "disagg: GEN_0: spank_setenv failed for TLLM_LOG_LEVEL"),
        ("spank_unsetenv", "disagg: GEN_0: spank_unsetenv failed for UCX_TLS"),
        ("spank_job_control_setenv", "spank_job_control_setenv failed for DISAGG_DEMAND"),
        ("spank_option_register", "--disagg-config will not be known"),
    ] {
        let output = smoke(&standin("3nodes"), ["--fault", call]).expect(1);
        output.says(&[message, "FAILED: ", "expected exit status 0"]);
    }
}

#[test]
fn ranks_that_do_not_start_are_missed() {
    smoke(&standin("3nodes"), ["--fault", "spank_setenv"])
        .expect(1)
        .says(&["GEN_0: ranks that start\n  expected 8\n  found    0"]);
}

#[test]
fn a_fault_that_the_plugin_survives_changes_nothing() {
    smoke(&standin("3nodes"), ["--fault", "slurm_xstrdup"]).expect(0);
}

#[test]
fn a_variable_that_another_plugin_changes_or_removes_or_adds_is_noticed() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    for (action, expected) in [
        (
            "setenv:NCCL_DEBUG:WRONG",
            "GEN_0 ranks 0-7: NCCL_DEBUG\n  expected INFO\n  found    WRONG",
        ),
        ("unsetenv:COLUMNS", "BENCHMARK rank 0: COLUMNS\n  expected 300\n  found    not set"),
        ("setenv:UCX_TLS:tcp", "GEN_0 ranks 0-7: UCX_TLS\n  expected not set\n  found    tcp"),
        ("setenv:MORE:1", "batch script: MORE\n  expected not set\n  found    1"),
        (
            "setenv:pytestCommand:true",
            "GEN_0 ranks 0-7: word 1 of pytestCommand\n  expected unset\n  found    true",
        ),
        ("unsetenv:PATH", "batch script: PATH\n"),
    ] {
        let line = format!("required {} task_init:{action}", probe.display());
        smoke(&standin("3nodes"), ["--plugstack", &line]).expect(1).says(&[expected]);
    }
}

#[test]
fn a_command_that_a_shell_would_expand_is_noticed_and_not_run() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let line = format!("required {} task_init:setenv:pytestCommand:$(id)", probe.display());
    // The servers' commands start with unset, so it is DISAGG_SERVER's that is read.
    smoke(&standin("3nodes"), ["--plugstack", &line])
        .expect(1)
        .says(&["DISAGG_SERVER rank 0: pytestCommand", "$(id) is not in quotes"]);
}

#[test]
fn a_call_that_slurm_does_not_allow_is_noticed() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let line = format!("optional {} init_post_opt:setenv:A:1", probe.display());
    smoke(&standin("3nodes"), ["--plugstack", &line]).expect(1).says(&[
        "sbatch: a rule of Slurm's",
        "wrong context: slurm_spank_init_post_opt: spank_setenv is not allowed",
    ]);
}

#[test]
fn a_plugin_without_the_options_fails_with_what_sbatch_says() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let output = Command::new(env!("CARGO_BIN_EXE_disagg-smoke"))
        .arg(standin("3nodes"))
        .arg("--plugin")
        .arg(probe)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("unrecognized option '--disagg-config="), "{text}");
}

#[test]
fn a_broken_configuration_is_told_with_its_place() {
    let bench = Bench::new();
    let path = bench.path("broken.yaml");
    fs::write(&path, "hardware:\n  gpus_per_node: 0\n").unwrap();
    let output = smoke(&path, NONE).expect(2);
    output.says(&[&format!("{}:2:18: error: hardware.gpus_per_node", path.display())]);
    assert_eq!(output.stdout, "");
}

#[test]
fn a_workspace_that_sbatch_would_not_take_is_refused() {
    let bench = Bench::new();
    let place = bench.path("results");
    smoke(&standin("3nodes"), [OsStr::new("--workspace"), place.as_os_str()])
        .expect(2)
        .says(&["has the workspace disagg_standin_3nodes", "help: write --workspace"]);
}

#[test]
fn the_directories_that_are_named_are_the_plans() {
    let bench = Bench::new();
    let workspace = bench.path("disagg_standin_one_gpu");
    let args = ["--trtllm-dir", "/opt/trt", "--models-dir", "/m", "--workspace"];
    let args = args.map(OsStr::new).into_iter().chain([workspace.as_os_str()]);
    let csv = format!("--csv={}/report.csv", workspace.display());
    smoke(&standin("one_gpu"), args).expect(0).says(&[
        "LLM_ROOT=/opt/trt\n",
        "MODEL_CACHE_DIR=/m\n",
        &csv,
    ]);
}

#[test]
fn of_thousands_of_servers_some_are_played_and_it_says_so() {
    let bench = Bench::new();
    let path = bench.path("many.yaml");
    let text = fs::read_to_string(standin("3nodes")).unwrap();
    let text = text.replace("num_gen_servers: 1", "num_gen_servers: 4096");
    fs::write(&path, text).unwrap();
    smoke(&path, ["--max-servers", "3"]).expect(0).says(&[
        "--disagg-role=GEN_4095",
        "on node[8191-8192]",
        "4093 more servers not played (--max-servers 0 plays all)",
    ]);
}
