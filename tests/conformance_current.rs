// SPDX-License-Identifier: Apache-2.0
//! The current rules against what the existing scripts make of every configuration of the corpus,
//! and of every odd test list.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

mod corpus;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use corpus::Instead::{Planned, Refused};
use corpus::{
    Case, Deviation, ListDeviations, MNNVL, NVFP4_17, QUEUE, R1, Record, TEP8, Tree, check_all,
    check_list, root,
};
use disagg::diagnostic::Diagnostics;
use disagg::input::request::Options;
use disagg::input::test_list;
use disagg::output::derive::{self, Parts};
use disagg::plan::{Generation, Plan};
use serde_json::Value;

const DRAFT: &str = "# the draft\n";

const NVFP4_016: &str = "Qwen3-235B-A22B-FP4_016";

/// What is not as the scripts have it, on purpose; docs/rules.md says why.
const DEVIATIONS: &[Deviation] = &[
    // Several concurrencies stop the scripts, whether one is needed or not; here the first counts
    // where one is needed.
    (NVFP4_016, "gen_only-", Planned(&[("GEN", QUEUE, "1")])),
    (NVFP4_016, "", Planned(&[])),
    (NVFP4_17, "gen_only-", Planned(&[("GEN", QUEUE, "512")])),
    (NVFP4_17, "", Planned(&[])),
    (MNNVL, "gen_only-", Planned(&[("GEN", QUEUE, "512")])),
    (MNNVL, "", Planned(&[])),
    (TEP8, "gen_only-", Planned(&[("GEN", QUEUE, "1")])),
    (TEP8, "", Planned(&[])),
    (R1, "gen_only-", Planned(&[("GEN", QUEUE, "1")])),
    (R1, "", Planned(&[])),
    ("syn_conc_comma_string", "gen_only-", Planned(&[("GEN", QUEUE, "1")])),
    ("syn_conc_comma_string", "", Planned(&[])),
    ("syn_conc_list", "gen_only-", Planned(&[("GEN", QUEUE, "1")])),
    ("syn_conc_list", "", Planned(&[])),
    ("syn_conc_null", "gen_only-", Planned(&[("GEN", QUEUE, "1")])),
    ("syn_conc_null", "", Planned(&[])),
    ("syn_agg_with_benchmark_multi_conc", "-s", Planned(&[])),
    ("syn_conc_hex_string", "gen_only-", Refused(".yaml:3:21: error: benchmark.concurrency_list")),
    ("syn_conc_hex_string", "", Planned(&[])),
    // The scripts fail too, without a place.
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
    ("deepseek-r1-fp4_128k8k_ctx_pp8_fp4_bs1", "", Planned(&[])),
    // The scripts lose what follows a quote.
    ("syn_env_quotes", "", Planned(&[])),
];

fn options(tree: &Tree, prefix: &str) -> Options {
    Options {
        prefix_script: Some(prefix.to_owned()),
        rules: Some(Generation::Current),
        ..tree.options()
    }
}

fn by_id(tree: &Tree, _record: &Record, case: &Case) -> Result<Plan, Diagnostics> {
    let prefix = tree.prefix("current", &case.test_id);
    let options = Options {
        test_id: Some(case.test_id.clone()),
        stage_name: Some(case.stage.clone()),
        cluster_name: Some(case.cluster.clone()),
        ..options(tree, prefix.to_str().unwrap())
    };
    tree.plan(&options, &[])
}

#[test]
fn every_test_is_planned_as_the_scripts_plan_it() {
    check_all(Generation::Current, DEVIATIONS, by_id);
}

/// docs/rules.md says why.
const LIST_DEVIATIONS: ListDeviations = &[
    ("path_traversal_name", Err("has a character that a file's name cannot have")),
    ("bracket_in_trailing_text", Ok("disagg_upload-e2e-gb200_gemma-3-1b-bf16")),
    ("aggr_hyphen_in_config_base", Ok("aggr_upload-syn-agg-hyphen-s")),
];

#[test]
fn odd_test_lists_are_read_as_the_scripts_read_them() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    for record in tree.records(Generation::Current) {
        tree.install(&record, &record.cases[0].test_id);
    }
    let sanity = tree.source().join("tests/scripts/perf-sanity/disaggregated");
    let optional = |path: &str, text: Option<String>| {
        let path = tree.source().join("tests/integration").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text {
            Some(text) => fs::write(path, text).unwrap(),
            None => drop(fs::remove_file(path)),
        }
    };
    let edges = tree.corpus_json("list_edges_current.json");
    let edges = edges.as_array().unwrap();
    assert!(edges.len() >= 71);
    for edge in edges {
        let label = edge["label"].as_str().unwrap();
        let text = |name: &str| edge[name].as_str();
        optional("test_lists/waives.txt", text("waives").map(str::to_owned));
        let durations = Some(&edge["durations"]).filter(|durations| !durations.is_null());
        optional("defs/.test_durations", durations.map(Value::to_string));
        if let Some(config) = text("config") {
            let config = fs::read_to_string(sanity.join(format!("{config}.yaml"))).unwrap();
            let appended = text("appended").unwrap_or_default();
            fs::write(sanity.join("variant.yaml"), format!("{config}\n{appended}")).unwrap();
        }
        let test_list = text("test_list").unwrap();
        let list = tree.path("list.txt");
        fs::write(&list, test_list).unwrap();
        let id = test_list.rsplit('[').next().and_then(|rest| rest.split(']').next()).unwrap();
        let prefix = tree.prefix("current", id);
        if let Some(words) = text("options").filter(|words| !words.is_empty()) {
            let script = fs::read_to_string(&prefix).unwrap();
            fs::write(&prefix, script.replace("--splits 1 --group 1", words)).unwrap();
        }
        let options = Options {
            test_list: Some(list.to_str().unwrap().to_owned()),
            split_group: Some(edge["split_group"].as_i64().unwrap_or(0)),
            ..options(&tree, prefix.to_str().unwrap())
        };
        let switch = "TRTLLM_DISAGG_CT_PRECHECK";
        let variables: Vec<_> =
            edge["env"][switch].as_str().map(|value| (switch, value)).into_iter().collect();
        let planned = tree.plan(&options, &variables);
        check_list(LIST_DEVIATIONS, label, &planned, &edge["current"]);
    }
}

/// Writes a configuration for each test of the lists that the corpus has none for.
fn make_up_configurations(tree: &Tree, ids: &[String]) {
    let mut servers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for id in ids {
        let (prefix, rest) = id.split_once('-').unwrap();
        let (mode, stem) = rest.split_once('-').unwrap_or((rest, ""));
        let stem = stem.strip_prefix("time_breakdown-").unwrap_or(stem);
        let with_mode = ["e2e", "gen_only", "ctx_only", "gen_only_no_context"].contains(&mode);
        let (stem, server) = match (prefix.starts_with("aggr"), with_mode) {
            (_, true) => (stem, None),
            (true, false) => (mode, Some(format!("{{name: {stem}, tensor_parallel_size: 8}}"))),
            (false, false) => continue,
        };
        servers.entry(stem).or_default().extend(server);
    }
    for (stem, servers) in servers {
        let file = |folder: &str| tree.source().join(format!("tests/scripts/{folder}/{stem}.yaml"));
        let folders = ["perf-sanity", "perf"]
            .map(|folder| ["aggregated", "disaggregated"].map(|kind| format!("{folder}/{kind}")));
        if folders.iter().flatten().any(|folder| file(folder).exists()) {
            continue;
        }
        let path = file(&folders[0][usize::from(servers.is_empty())]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let rest = match servers.is_empty() {
            true => MADE_UP.to_owned(),
            false => format!(
                "hardware: {{gpus_per_node: 4}}\nserver_configs: [{}]\n",
                servers.join(", ")
            ),
        };
        fs::write(path, format!("metadata: {{model_name: m}}\n{rest}")).unwrap();
    }
}

const MADE_UP: &str = "\
hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
benchmark: {mode: e2e, concurrency_list: '8'}
worker_config: {gen: {tensor_parallel_size: 8}, ctx: {tensor_parallel_size: 4}}
";

/// The command itself, as the pipeline calls the script that it replaces. What it writes is what
/// `tests/derive.rs` compares with the records.
#[test]
fn every_entry_of_every_test_list_is_derived_as_pipelines_do_it() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    tree.install_all();
    tree.install_newer();
    let prefix = tree.prefix("current", "x-y");
    let prefix = prefix.to_str().unwrap();
    let file = |name: &str, text: &str| {
        fs::write(tree.path(name), text).unwrap();
        tree.path(name).to_str().unwrap().to_owned()
    };
    let srun_args = tree.localized(&tree.common.srun_args_current);
    let [draft, srun_file] = [file("draft.sh", DRAFT), file("srun_args.txt", &srun_args)];
    let gate = file("slurm_ct_precheck_gate.sh", "run_cache_transceiver_precheck() { :; }\n");
    let gate = fs::read_to_string(gate).unwrap();
    let [run, install] = ["run", "install"]
        .map(|name| tree.localized(&format!("@LLM_SRC@/jenkins/scripts/slurm_{name}.sh")));
    let launch = tree.path("launch.sh");
    let lists = ["test_lists", "test_lists_current"].map(|folder| tree.test_lists(folder));
    let lists: Vec<_> = lists
        .into_iter()
        .flatten()
        .map(|path| {
            let list = test_list::read(&path, "list", Some(Generation::Current)).unwrap();
            (path, list)
        })
        .collect();
    let id = |text: &str| text.split(['[', ']']).nth(1).unwrap().to_owned();
    let ids: Vec<_> =
        lists.iter().flat_map(|(_, list)| &list.entries).map(|entry| id(&entry.text)).collect();
    make_up_configurations(&tree, &ids);
    let (mut derived, mut others) = (0, Vec::new());
    for (path, list) in lists {
        let stage = format!("{}-1", path.file_stem().unwrap().to_str().unwrap());
        for entry in list.entries {
            let one = file("one.txt", &entry.text);
            let output = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"))
                .args(["derive", "--llm-src", tree.source().to_str().unwrap()])
                .args(["--test-list", &one, "--draft-launch-sh", &draft])
                .args(["--launch-sh", launch.to_str().unwrap()])
                .args(["--run-sh", &run, "--install-sh", &install])
                .args(["--script-prefix", prefix, "--srun-args", &srun_file])
                .args(["--split-group", "0", "--stage-name", &stage])
                .args(["--cluster-name", "aws-cmh"])
                .env_clear()
                .env("HOME", tree.path("home"))
                .output()
                .unwrap();
            let errors = String::from_utf8(output.stderr).unwrap();
            match output.status.code() {
                Some(0) => {
                    let options = Options {
                        test_list: Some(one),
                        split_group: Some(0),
                        stage_name: Some(stage.clone()),
                        cluster_name: Some("aws-cmh".to_owned()),
                        run_script: Some(run.clone()),
                        install_script: Some(install.clone()),
                        rules: None,
                        ..options(&tree, prefix)
                    };
                    let plan = tree.plan(&options, &[]).unwrap();
                    let suite = plan.suite.as_ref().unwrap();
                    assert_eq!(suite.rules, Generation::Current, "{}", entry.text);
                    let prefix = fs::read_to_string(prefix).unwrap();
                    let disaggregated = plan.roles.contains_key("GEN");
                    let parts = Parts {
                        prefix: &prefix,
                        srun_args: &srun_args,
                        draft: DRAFT,
                        gate: disaggregated.then_some(&gate),
                    };
                    let script = fs::read_to_string(&launch).unwrap();
                    assert_eq!(script, derive::launch_script(&plan, &parts), "{}", entry.text);
                    fs::remove_file(&launch).unwrap();
                    derived += 1;
                }
                code => others.push(format!("{}: {code:?} {errors}", entry.text)),
            }
            assert!(!launch.exists(), "{}: {errors}", entry.text);
        }
    }
    println!("{derived} derived, {others:#?}");
    // Two lists have ids of the classic form, which this suite no longer has; one has other tests.
    // The launcher refuses them too.
    let refused = |text: &str| others.iter().filter(|other| other.contains(text)).count();
    assert_eq!(refused("Some(2)"), others.len(), "{others:#?}");
    assert_eq!(refused("names no mode, which the current rules need"), 2, "{others:#?}");
    assert_eq!(refused("contains neither disagg nor aggr"), 3, "{others:#?}");
    assert!(derived >= 230 && others.len() == 5, "{derived} {others:#?}");
}
