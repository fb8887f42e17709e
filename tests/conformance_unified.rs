// SPDX-License-Identifier: Apache-2.0
//! The unified rules against what the existing scripts make of every configuration of the corpus.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

mod corpus;

use corpus::Instead::{Planned, Refused};
use corpus::{
    Case, Deviation, ListDeviations, MNNVL, NVFP4_17, QUEUE, R1, Record, TEP8, Tree, check_all,
    check_list, root,
};
use disagg::diagnostic::Diagnostics;
use disagg::input::request::Options;
use disagg::input::test_list;
use disagg::input::{source, yaml};
use disagg::plan::{Generation, Plan, Role};
use serde_json::Value;

/// What is not as the scripts have it, on purpose; docs/rules.md says why.
const DEVIATIONS: &[Deviation] = &[
    // Several concurrencies stop the scripts, whether one is needed or not; here the largest
    // counts where one is needed.
    (NVFP4_17, "gen_only", Planned(&[("GEN", QUEUE, "1024")])),
    (NVFP4_17, "", Planned(&[])),
    (MNNVL, "gen_only", Planned(&[("GEN", QUEUE, "1024")])),
    (MNNVL, "", Planned(&[])),
    (TEP8, "gen_only", Planned(&[("GEN", QUEUE, "32")])),
    (TEP8, "", Planned(&[])),
    (R1, "gen_only", Planned(&[("GEN", QUEUE, "32")])),
    (R1, "", Planned(&[])),
    ("syn_conc_comma_string", "gen_only", Planned(&[("GEN", QUEUE, "4")])),
    ("syn_conc_comma_string", "", Planned(&[])),
    ("syn_conc_list", "gen_only", Planned(&[("GEN", QUEUE, "4")])),
    ("syn_conc_null", "gen_only", Planned(&[("GEN", QUEUE, "1")])),
    ("syn_agg_with_benchmark_multi_conc", "no_such_server", Refused("has no entry")),
    ("syn_agg_with_benchmark_multi_conc", "-s", Planned(&[])),
    ("syn_conc_hex_string", "gen_only", Refused(".yaml:3:21: error: benchmark.concurrency_list")),
    ("syn_conc_hex_string", "", Planned(&[])),
    // The scripts fail too, without a place.
    ("syn_agg", "no_such_server", Refused("has no entry no_such_server")),
    ("syn-agg-hyphen", "no_such_server", Refused("has no entry no_such_server")),
    ("deepseek_r1_distill_qwen_32b_autodeploy_h100", "no_such_server", Refused("has no entry")),
    ("deepseek_r1_fp4_v2_2_nodes_grace_blackwell", "no_such_server", Refused("has no entry")),
    ("dynamo_deepseek_v32_fp4_2_nodes_grace_blackwell", "no_such", Refused("has no entry")),
    ("dynamo_qwen3_235b_a22b_fp8_hopper", "no_such_server", Refused("has no entry")),
    ("gb300_nemotron_ultra_v3_fp4_grace_blackwell", "no_such_server", Refused("has no entry")),
    ("k2_thinking_fp4_2_nodes_grace_blackwell", "no_such_server", Refused("has no entry")),
    ("syn_ctx_missing", "ctx_only", Refused(".yaml:7:1: error: worker_config.ctx is missing")),
    ("syn_ctx_null", "ctx_only", Refused(".yaml:6:1: error: worker_config.ctx is missing")),
    ("syn_ctx_null", "e2e", Refused(".yaml:3:1: error: hardware.num_ctx_servers is missing")),
    (
        "syn_gen_only_no_context_nctx_missing",
        "e2e",
        Refused("benchmark.mode is gen_only_no_context, but the test id says e2e"),
    ),
    ("syn_precheck_timeout_null", "disagg", Refused("step_timeout_s has no value")),
    // The scripts look for the first word of the configuration's name.
    ("syn-agg-hyphen", "-s", Planned(&[])),
    // The scripts lose what follows a quote.
    ("syn_agg", "-folded", Planned(&[("AGGREGATED", "X", "1"), ("AGGREGATED", "Y", "a b")])),
    ("syn_env_quotes", "ctx_only", Planned(&[("AGGREGATED", "B", "p q")])),
    ("syn_env_quotes", "", Planned(&[("GEN", "A", "x y"), ("GEN", "C", "\"z\"")])),
    ("syn_yaml11_bool_yes", "gen_only", Refused("is true to PyYAML (YAML 1.1) but text")),
];

fn by_id(tree: &Tree, _record: &Record, case: &Case) -> Result<Plan, Diagnostics> {
    let prefix = tree.prefix("ci", &case.test_id);
    let options = Options {
        test_id: Some(case.test_id.clone()),
        prefix_script: Some(prefix.to_str().unwrap().to_owned()),
        stage_name: Some(case.stage.clone()),
        rules: Some(Generation::Unified),
        ..tree.options()
    };
    tree.plan(&options, &[])
}

#[test]
fn every_test_is_planned_as_the_scripts_plan_it() {
    check_all(Generation::Unified, DEVIATIONS, by_id);
}

/// The plan of a test list's entry, by the form of its id.
fn of_list(tree: &Tree, text: &str, number: i64) -> Result<Plan, Diagnostics> {
    let list = tree.path("list.txt");
    std::fs::write(&list, text).unwrap();
    let options = Options {
        test_list: Some(list.to_str().unwrap().to_owned()),
        test_number: Some(number),
        prefix_script: Some(tree.prefix("ci", "x-y").to_str().unwrap().to_owned()),
        ..tree.options()
    };
    tree.plan(&options, &[])
}

/// docs/rules.md says why.
const LIST_DEVIATIONS: ListDeviations = &[
    ("commented_line_is_taken", Ok("disagg_upload-e2e-gb200_gemma-3-1b-bf16")),
    ("path_traversal_name", Err("has a character that a file's name cannot have")),
    ("bracket_in_trailing_text", Ok("disagg_upload-e2e-gb200_gemma-3-1b-bf16")),
    ("aggr_gen_only_no_context", Ok("aggr_upload-gen_only_no_context-gb200_gemma-3-1b-bf16")),
    ("seed_style_id", Ok("disagg_upload-gb200_gemma-3-1b-bf16")),
];

#[test]
fn odd_test_lists_are_read_as_the_scripts_read_them() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    tree.install_all();
    let edges = tree.corpus_json("parse_edges.json");
    let edges = edges.as_array().unwrap();
    assert!(edges.len() >= 31);
    for edge in edges {
        let label = edge["label"].as_str().unwrap();
        let number = edge["split_group"].as_i64().unwrap_or(0);
        let planned = of_list(&tree, edge["test_list"].as_str().unwrap(), number);
        check_list(LIST_DEVIATIONS, label, &planned, &edge["unified"]);
        if edge["seed"]["ok"] == true {
            let plan = planned.unwrap();
            assert_eq!(plan.suite.as_ref().unwrap().rules, Generation::Classic, "{label}");
            let layout = serde_json::to_value(&plan.layout).unwrap();
            for (number, value) in edge["seed"]["hardware"].as_object().unwrap() {
                assert_eq!(layout[number], *value, "{label}: {number}");
            }
        }
    }
}

/// What a role does about UCX, as the scripts write it in front of its command.
fn ucx_text(role: &Role) -> String {
    let unset: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
    let exports =
        role.export.iter().map(|(name, value)| format!("{name}={}", value.value.as_str()));
    match unset.is_empty() {
        false => format!("unset {} && ", unset.join(" ")),
        true => format!("export {} && ", exports.collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn the_name_of_the_stage_decides_on_ucx() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    tree.install_all();
    let edges = tree.corpus_json("stage_edges.json");
    let mut options = Options {
        test_id: Some(edges["base_test"].as_str().unwrap().to_owned()),
        prefix_script: Some(tree.prefix("ci", "x-y").to_str().unwrap().to_owned()),
        ..tree.options()
    };
    let stages = edges["stages"].as_array().unwrap();
    assert_eq!(stages.len(), 10);
    for stage in stages {
        let name = stage["stage"].as_str().unwrap();
        options.stage_name = Some(name.to_owned());
        let plan = tree.plan(&options, &[]).unwrap();
        for (kind, variable) in [
            ("GEN", "pytestCommandGENWorker"),
            ("CTX", "pytestCommandCTXWorker"),
            ("DISAGG_SERVER", "pytestCommandDisaggServer"),
            ("BENCHMARK", "pytestCommandBenchmark"),
            ("GEN_PRECHECK", "pytestCommandGENPrecheck"),
            ("CTX_PRECHECK", "pytestCommandCTXPrecheck"),
        ] {
            let ours = ucx_text(&plan.roles[kind]);
            // What is not listed as changed is as without a stage. A quote in the stage's name
            // stops the scripts' own script.
            let theirs = match &stage["expanded_changed"][variable] {
                Value::String(text) if text == "<unset>" => continue,
                Value::String(text) => text.clone(),
                _ => "unset UCX_TLS UCX_NET_DEVICES && ".to_owned(),
            };
            assert!(theirs.starts_with(&ours), "{name} {variable}: {ours} / {theirs}");
        }
    }
}

#[test]
fn the_environment_turns_the_precheck_on_and_off() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    tree.install_synthetic();
    let edges = tree.corpus_json("stage_edges.json");
    for case in edges["precheck_override"].as_array().unwrap() {
        let config = case["config"].as_str().unwrap();
        let value = case["TRTLLM_DISAGG_CT_PRECHECK"].as_str().unwrap();
        let options = Options { test_id: Some(format!("disagg-e2e-{config}")), ..tree.options() };
        let plan = tree.plan(&options, &[("TRTLLM_DISAGG_CT_PRECHECK", value)]).unwrap();
        let expected = case["ctPrecheckEnabled"].as_str().unwrap();
        assert_eq!(
            plan.suite.as_ref().unwrap().variables["ctPrecheckEnabled"],
            expected,
            "{config} {value:?}"
        );
        assert_eq!(plan.suite.as_ref().unwrap().precheck.unwrap().enabled, expected == "1");
        assert_eq!(plan.checks().count() > 0, expected == "1");
    }
}

/// How many GPUs each entry's block asks the pipeline for, in the order of the entries.
fn gpus_asked_for(path: &std::path::Path) -> Vec<Option<u64>> {
    let document = yaml::parse(&source::read(path, "list").unwrap()).unwrap();
    let mut asked = Vec::new();
    let Some(yaml::Value::Map(sections)) = document.root.map(|root| root.value) else {
        return asked;
    };
    for (_, section) in sections.iter() {
        let yaml::Value::List(blocks) = &section.value else { continue };
        for block in blocks.iter() {
            let path = ["condition", "ranges", "system_gpu_count", "gte"];
            let gpus = path.iter().try_fold(block, |node, key| node.get(key));
            let gpus = gpus.and_then(|node| match &node.value {
                yaml::Value::Scalar { text, .. } => text.parse().ok(),
                _ => None,
            });
            if let Some(yaml::Value::List(tests)) = block.get("tests").map(|node| &node.value) {
                asked.extend(tests.iter().map(|_| gpus));
            }
        }
    }
    asked
}

#[test]
fn every_entry_of_every_test_list_is_planned_where_its_configuration_is_there() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    tree.install_all();
    let (mut entries, mut planned, mut agreeing) = (0, 0, 0);
    for path in tree.test_lists("test_lists") {
        let list = test_list::read(&path, "list", None).unwrap();
        let asked = gpus_asked_for(&path);
        assert_eq!(asked.len(), list.entries.len());
        for (entry, gpus) in list.entries.iter().zip(asked) {
            entries += 1;
            let readings = entry.readings.as_ref().unwrap_or_else(|error| panic!("{error}"));
            let options = Options {
                test_list: Some(path.to_str().unwrap().to_owned()),
                test_number: Some(entry.number as i64),
                ..tree.options()
            };
            match tree.plan(&options, &[]) {
                Ok(plan) => {
                    planned += 1;
                    assert_eq!(
                        plan.suite.as_ref().unwrap().test.module,
                        "perf/test_perf_sanity.py"
                    );
                    assert_eq!(plan.suite.as_ref().unwrap().test.id, readings[0].text);
                    if let Some(gpus) = gpus {
                        assert_eq!(
                            u64::from(plan.layout.total_gpus),
                            gpus,
                            "{}",
                            plan.suite.as_ref().unwrap().test.id
                        );
                        agreeing += 1;
                    }
                }
                Err(errors) => {
                    let text = errors.to_string();
                    assert!(text.contains(" is not found; tried:"), "{}: {text}", entry.text);
                }
            }
        }
    }
    println!("{entries} entries, {planned} planned, {agreeing} with the GPUs that are asked for");
    assert_eq!(entries, 95, "commented entries do not count");
    assert!(planned >= 20 && agreeing >= 15);
}
