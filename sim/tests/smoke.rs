// SPDX-License-Identifier: Apache-2.0
//! disagg-smoke with the built spank_disagg.so: configurations of every kind come out as planned,
//! and whatever goes wrong is noticed.

#![allow(clippy::unwrap_used)]

mod common;

use common::Bench;
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::plan::Role;
use slurm_bed::{Output, config_with};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn smoke<A: AsRef<OsStr>>(config: &Path, args: impl IntoIterator<Item = A>) -> Output {
    let mut smoke = Command::new(env!("CARGO_BIN_EXE_disagg-smoke"));
    smoke.arg(config).arg("--plugin").arg(slurm_bed::built("spank_disagg.so"));
    Output::of(smoke.args(args))
}

const NONE: [&str; 0] = [];

fn standin(name: &str) -> PathBuf {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/standin/configs");
    configs.join(format!("standin_{name}.yaml")).canonicalize().unwrap()
}

/// A configuration of one generation server over two nodes, with these variables for the workers.
fn config(bench: &Bench, worker_env: &str) -> PathBuf {
    let path = bench.path("own.yaml");
    fs::write(&path, config_with((4, (2, 2), (1, 8)), worker_env)).unwrap();
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

/// What the steps of a configuration are like; nothing for one that cannot be planned.
fn traits(config: &Path) -> Option<String> {
    let options = Options {
        config: config.to_str().unwrap().to_owned(),
        trtllm_dir: Some("/src".to_owned()),
        models_dir: Some("/models".to_owned()),
        ..Options::default()
    };
    let context = Context { env: &|_| None, current_dir: PathBuf::from("/") };
    let (plan, _) = request::plan(&options, &context).ok()?;
    let role = |(name, role): (&String, &Role)| {
        let step = &role.step;
        let is_full = step.tasks == step.nodes * step.tasks_per_node;
        let refers = role.env.iter().any(|(_, value)| !value.value.is_literal());
        (name.clone(), role.count.min(2), step.nodes.min(2), is_full, refers)
    };
    Some(format!(
        "{} {:?}",
        plan.suite.as_ref().unwrap().test.mode,
        plan.roles.iter().map(role).collect::<Vec<_>>()
    ))
}

/// One configuration of the corpus for each kind of steps.
#[test]
fn configurations_of_the_corpus_come_out_as_planned() {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/corpus");
    let corpus = std::env::var_os("DISAGG_CORPUS").map_or(beside, PathBuf::from);
    if !corpus.is_dir() {
        eprintln!("no corpus at {}: nothing is played from it", corpus.display());
        return;
    }
    let mut seen = BTreeMap::new();
    // The examples' are recipes, which the plugin does not plan.
    let is_test = |config: &PathBuf| !config.iter().any(|part| part == "examples");
    for folder in ["configs", "configs_synthetic"] {
        for config in yaml_files_below(&corpus.join(folder)).into_iter().filter(is_test) {
            seen.entry(traits(&config)).or_insert(config);
        }
    }
    assert!(seen.len() > 5, "{seen:#?}");
    for (traits, config) in &seen {
        smoke(config, NONE).expect(if traits.is_some() { 0 } else { 2 });
    }
}

#[test]
fn every_release_comes_out_as_planned() {
    for release in slurm_sim::Release::ALL {
        smoke(&standin("3nodes"), ["--release", &release.to_string()])
            .expect(0)
            .shows(&[&format!("Slurm {}: everything is as planned", release.version())]);
    }
    for name in ["one_gpu", "gen_only"] {
        smoke(&standin(name), NONE).expect(0);
    }
}

#[test]
fn the_whole_path_is_shown_from_sbatch_to_the_tasks() {
    smoke(&standin("3nodes"), NONE).expect(0).shows(&[
        "$ sbatch --disagg-config=/",
        "sbatch: disagg: standin_3nodes: 3 nodes x 4 GPUs = 12 GPUs",
        "demand      v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=standin_3nodes",
        "controller  --nodes=3 --ntasks=12 --ntasks-per-node=4 gres:gpu:4\n",
        "$ srun --disagg-role=GEN_0 /",
        "  on node[1-2], tasks per node 4(x2), --mpi=pmix, --kill-on-bad-exit\n    unset UCX_TLS\n",
        "    DISAGG_SERVING_TYPE=CTX_0\n",
        "trtllm-llmapi-launch pytest -vv ",
    ]);
}

#[test]
fn values_that_refer_to_variables_are_those_of_the_task() {
    let bench = Bench::new();
    let values = "CACHE=/c/${SLURM_LOCALID}-$SLURM_PROCID AFTER=$UCX_TLS. FIRST=$LATER. LATER=1 \
                  SECOND=$LATER";
    smoke(&config(&bench, values), NONE).expect(0).shows(&[
        "    unset UCX_TLS\n",
        "    CACHE=/c/0-0\n    AFTER=.\n    FIRST=.\n    LATER=1\n    SECOND=1\n",
    ]);
}

#[test]
fn packed_servers_on_one_node_have_gpus_of_their_own() {
    let bench = Bench::new();
    let output = smoke(&config(&bench, ""), ["--placement", "packed"]);
    output.expect(0);
    let steps: Vec<_> = output.stdout.split("$ srun --disagg-role=CTX_").collect();
    assert!(steps[1].contains("on node3, ") && steps[2].contains("on node3, "), "{steps:?}");
    assert!(steps[1].contains("CUDA_VISIBLE_DEVICES='0,1'\n"), "{}", steps[1]);
    assert!(steps[2].contains("CUDA_VISIBLE_DEVICES='2,3'\n"), "{}", steps[2]);
}

/// The result with a second plugin that does something in each task.
fn with_action(config: &Path, action: &str) -> Output {
    let bench = Bench::new();
    let line = format!("required {} {action}", bench.probe("probe", &[]).display());
    smoke(config, ["--plugstack", &line])
}

#[test]
fn a_secret_is_in_no_output() {
    let bench = Bench::new();
    let config = config(&bench, "HF_TOKEN=hf_123");
    for (code, output) in [
        (0, smoke(&config, NONE)),
        (1, with_action(&config, "task_init:return:-1")),
        (1, with_action(&config, "task_init:setenv:HF_TOKEN:hf_456")),
    ] {
        output.expect(code);
        let text = output.stdout + &output.stderr;
        assert!(text.contains("HF_TOKEN='********'") || text.contains("FAILED"), "{text}");
        assert!(!text.contains("hf_123") && !text.contains("hf_456"), "{text}");
    }
    with_action(&config, "task_init:setenv:HF_TOKEN:hf_456")
        .shows(&["GEN_0: HF_TOKEN\n", "another value"]);
}

#[test]
fn whatever_another_plugin_does_to_a_task_is_noticed() {
    for (action, expected) in [
        ("setenv:NCCL_DEBUG:WRONG", "GEN_0: NCCL_DEBUG\n  expected INFO\n  found    WRONG"),
        ("unsetenv:COLUMNS", "BENCHMARK: COLUMNS\n  expected 300\n  found    not set"),
        ("setenv:UCX_TLS:tcp", "GEN_0: UCX_TLS\n  expected not set\n  found    tcp"),
        ("setenv:MORE:1", "batch script: MORE\n  expected not set\n  found    1"),
        ("unsetenv:PATH", "batch script: PATH\n"),
        ("return:-1", "batch script: end\n  expected exit status 0\n  found    Exit(1)\n"),
    ] {
        with_action(&standin("3nodes"), &format!("task_init:{action}"))
            .expect(1)
            .shows(&[expected]);
    }
    with_action(&standin("3nodes"), "task_exit:return:-1").expect(0);
}

#[test]
fn a_command_that_does_not_do_what_is_planned_is_noticed() {
    for (command, expected) in [
        ("true", "GEN_0: pytestCommand\n  expected a command that a shell can run\n"),
        ("$(id)", "DISAGG_SERVER: pytestCommand\n  expected a command that a shell can run\n"),
        ("pytest", "BENCHMARK: words of its command\n  expected pytest -vv"),
        ("COLUMNS=1;pytest", "command of BENCHMARK: COLUMNS\n  expected 300\n  found    1"),
    ] {
        let action = format!("task_init:setenv:pytestCommand:{command}");
        with_action(&standin("3nodes"), &action).expect(1).shows(&[expected]);
    }
}

#[test]
fn a_call_that_slurm_does_not_allow_is_noticed() {
    with_action(&standin("3nodes"), "init_post_opt:setenv:A:1").expect(1).shows(&[
        "sbatch: rules of Slurm",
        "WrongContext: slurm_spank_init_post_opt: spank_setenv is not allowed",
    ]);
}

#[test]
fn a_plugin_without_the_options_fails_with_what_sbatch_says() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let mut smoke = Command::new(env!("CARGO_BIN_EXE_disagg-smoke"));
    smoke.arg(standin("3nodes")).arg("--plugin").arg(probe);
    Output::of(&mut smoke).expect(1).shows(&["unrecognized option '--disagg-config="]);
}

#[test]
fn a_broken_configuration_is_reported_with_its_place() {
    let bench = Bench::new();
    let path = bench.path("broken.yaml");
    fs::write(&path, "hardware:\n  gpus_per_node: 0\n").unwrap();
    let output = smoke(&path, NONE);
    output.expect(2).shows(&[&format!("{}:2:18: error: hardware.gpus_per_node", path.display())]);
    assert_eq!(output.stdout, "");
}

#[test]
fn the_name_of_a_configuration_may_hold_blanks() {
    let bench = Bench::new();
    let path = bench.path("a b.yaml");
    fs::copy(standin("one_gpu"), &path).unwrap();
    smoke(&path, NONE).expect(0);
}

#[test]
fn of_thousands_of_servers_some_are_started_and_the_output_says_so() {
    let bench = Bench::new();
    let path = bench.path("many.yaml");
    let text = fs::read_to_string(standin("one_gpu")).unwrap();
    fs::write(&path, text.replace("num_gen_servers: 1", "num_gen_servers: 4096")).unwrap();
    smoke(&path, NONE)
        .expect(0)
        .shows(&["--disagg-role=GEN_4095 ", "… 4064 more GEN steps are not started"]);
}
