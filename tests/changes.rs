// SPDX-License-Identifier: Apache-2.0
//! Changes of a configuration on the command line: `--set` and `--sweep`.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;
use slurm_bed::{config, config_with, contains};

mod place;
use place::Place;

#[test]
fn set_changes_a_value_of_the_configuration_and_says_where_it_cannot() {
    let place = Place::new();
    place.write("c.yaml", config(4, (1, 4), (1, 8)));
    let servers = "hardware: {gpus_per_node: 4}\nserver_configs:\n- {name: small, gpus: 4}\n";
    place.write("a.yaml", servers);
    let plan = |config: &str, set: &[&str]| {
        let set = set.iter().flat_map(|set| ["--set", set]);
        let plan = ["plan", config, "--trtllm-dir", "/llm", "--rules", "current"];
        place.run(&plan.into_iter().chain(set).collect::<Vec<_>>())
    };
    for (config, set, nodes) in [
        ("c.yaml", &["hardware.num_gen_servers=2"][..], 5),
        (
            "c.yaml",
            &["worker_config.gen={tensor_parallel_size: 4}", "hardware.num_ctx_servers=3"],
            4,
        ),
        // Keys that are not there: a known one, and one that only the engine knows.
        ("c.yaml", &["worker_config.gen.kv_cache_config.dtype=fp8", "benchmark.streaming=true"], 3),
        ("a.yaml", &["server_configs.small.tensor_parallel_size=8"], 2),
        ("a.yaml", &["server_configs.0.tensor_parallel_size=12"], 3),
    ] {
        contains(plan(config, set).ok(), &format!("job            {nodes} node"));
    }
    let mut refused = String::new();
    for set in [
        "hardware.gpus_per_nod=8",
        "hardware.gpus_per_node=eight",
        "hardware.gpus_per_node=[8",
        "hardware.gpus_per_node.x=8",
        "worker_config.gem.tensor_parallel_size=8",
        "environment.worker_env_var=HF_TOKEN=abc B",
        "hardware",
        "=8",
        "hardware.=8",
        "hardware.memory=8",
    ] {
        refused += &plan("c.yaml", &[set]).expect(2).stderr;
    }
    refused += &plan("a.yaml", &["server_configs.large.gpus=8"]).expect(2).stderr;
    assert_snapshot!("set_refused", refused);

    place.run(&["check", "c.yaml", "--set", "hardware.gpus_per_node=0"]).expect(2);
    let diff = ["diff", "c.yaml", "--set", "hardware.num_gen_servers=2", "--trtllm-dir", "/llm"];
    place.run(&diff).expect(1).shows(&["num_gen_servers: 1 → 2"]);
    let explain = ["explain", "c.yaml", "--trtllm-dir", "/llm", "--name", "A", "--set"];
    let set = "environment.worker_env_var=A=1";
    contains(&place.ok(&[&explain[..], &[set]].concat()), "worker_env_var (--set:1:28)");
}

#[test]
fn a_changed_configuration_is_what_the_test_reads_and_a_sweep_has_a_workspace_for_each() {
    let place = Place::new();
    let note = "metadata: {note: 'a: \"b\" \\\n 中', list: [[1], {}, []], on: ~}\n";
    place.write("c.yaml", config_with((4, (1, 4), (1, 8)), "A='x y'") + note);
    let run = |more: &[&str]| place.dry_run("c.yaml", "w", more);
    let sweep = [
        "--sweep",
        "hardware.num_gen_servers=1,2",
        "--sweep",
        "benchmark.concurrency_list='1 2',[3, 4]",
    ];
    let text = run(&[&sweep[..], &["--rules", "current"]].concat()).checked();
    assert_eq!(text.matches("would run: ").count(), 4, "{text}");
    let folder = place.path("w/num_gen_servers=2,concurrency_list=_3,_4_");
    let plan: Value =
        serde_json::from_str(&fs::read_to_string(folder.join("plan.json")).unwrap()).unwrap();
    assert_eq!(plan["layout"]["total_nodes"], 5);
    // The test finds the file by the variable, and another reader of YAML the same values in it.
    let changed = folder.join("config/c.yaml");
    let script = fs::read_to_string(folder.join("slurm_launch_generated.sh")).unwrap();
    contains(&script, &format!("DISAGG_CONFIG_FOLDER={}", folder.join("config").display()));
    let python =
        "import json, sys, yaml\nfor f in sys.argv[1:]: print(json.dumps(yaml.safe_load(open(f))))";
    let read = Command::new("python3")
        .args(["-c", python])
        .args([&place.path("c.yaml"), &changed])
        .output();
    let read = String::from_utf8(read.unwrap().stdout).unwrap();
    let [mut before, after] =
        [0, 1].map(|line| serde_json::from_str::<Value>(read.lines().nth(line).unwrap()).unwrap());
    before["hardware"]["num_gen_servers"] = 2.into();
    before["benchmark"]["concurrency_list"] = serde_json::json!([3, 4]);
    assert_eq!(before, after);

    // The classic rules' test would read the file in the tree.
    run(&["--set", "hardware.num_gen_servers=2"]).expect(2).shows(&["from the source tree"]);
    run(&["--sweep", "hardware.num_gen_servers=1,1"]).expect(2).shows(&["have the workspace"]);
    run(&["--sweep", "hardware"]).expect(2).shows(&["this is no KEY=VALUE,…"]);
}
