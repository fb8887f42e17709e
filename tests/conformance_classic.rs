// SPDX-License-Identifier: Apache-2.0
//! The classic rules against what the existing scripts make of every configuration of the corpus.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

mod corpus;

use corpus::Instead::{Planned, Refused};
use corpus::{Case, Deviation, MNNVL, NVFP4_17, QUEUE, R1, Record, TEP8, Tree, check_all};
use disagg::diagnostic::Diagnostics;
use disagg::input::request::Options;
use disagg::plan::{Generation, Plan};

/// What is not as the scripts have it, on purpose; docs/rules.md says why.
const DEVIATIONS: &[Deviation] = &[
    // Several concurrencies stop the scripts; here the largest counts where one is needed.
    (NVFP4_17, "", Planned(&[])),
    (MNNVL, "", Planned(&[])),
    (TEP8, "", Planned(&[])),
    (R1, "", Planned(&[])),
    ("syn_conc_comma_string", "", Planned(&[])),
    ("syn_conc_list", "", Planned(&[("GEN", QUEUE, "4")])),
    ("syn_conc_null", "", Planned(&[("GEN", QUEUE, "1")])),
    ("syn_conc_hex_string", "", Refused(".yaml:3:21: error: benchmark.concurrency_list")),
    ("syn_sexagesimal_conc", "", Refused("the number 90 to PyYAML")),
    // An empty section is an empty section.
    ("syn_ctx_null", "", Planned(&[])),
    ("syn_environment_null", "", Planned(&[])),
    ("syn_worker_env_null", "", Planned(&[])),
    // The scripts fail too, without a place.
    ("syn_bad_yaml", "", Refused(".yaml:3:2: error: ")),
    ("syn_empty_file", "", Refused(".yaml:1:1: error: the configuration is empty")),
    ("syn_gpus_per_node_missing", "", Refused("error: hardware.gpus_per_node is missing")),
    ("syn_hardware_null", "", Refused(".yaml:3:1: error: hardware.gpus_per_node is missing")),
    ("syn_gpus_per_node_zero", "", Refused(".yaml:5:18: error: hardware.gpus_per_node must be")),
    ("syn_num_ctx_string", "", Refused("help: write 2 without quotes")),
    ("syn_num_gen_missing", "", Refused("error: hardware.num_gen_servers is missing")),
    ("syn_tp_null", "", Refused(".yaml:13:27: error: worker_config.gen.tensor_parallel_size")),
    ("syn_tp_string", "", Refused("help: write 8 without quotes")),
    ("syn_yaml12_octal_is_a_string", "", Refused("but the number 16 to YAML 1.2")),
    // The scripts write Python's spelling of these into a command, or run it.
    ("syn_worker_env_list", "", Refused(".yaml:9:19: error: environment.worker_env_var must be")),
    ("syn_worker_env_map", "", Refused(".yaml:9:19: error: environment.worker_env_var must be")),
    ("syn_worker_env_number", "", Refused("error: environment.worker_env_var must be text")),
    ("syn_env_dollar", "", Refused(".yaml:9:77: error: environment.worker_env_var: command sub")),
    ("syn_env_quotes", "", Planned(&[("GEN", "A", "x y"), ("GEN", "C", "\"z\"")])),
    // The scripts plan a server on no node.
    ("syn_tp_zero", "", Refused(".yaml:13:27: error: worker_config.gen.tensor_parallel_size")),
];

fn by_file(tree: &Tree, record: &Record, _case: &Case) -> Result<Plan, Diagnostics> {
    let path = format!("tests/scripts/perf-sanity/disaggregated/{}.yaml", record.config_name);
    let options = Options {
        config: tree.source().join(path).to_str().unwrap().to_owned(),
        rules: Some(Generation::Classic),
        ..tree.options()
    };
    tree.plan(&options, &[])
}

fn by_id(tree: &Tree, _record: &Record, case: &Case) -> Result<Plan, Diagnostics> {
    tree.plan(&Options { test_id: Some(case.test_id.clone()), ..tree.options() }, &[])
}

fn by_prefix_script(tree: &Tree, record: &Record, case: &Case) -> Result<Plan, Diagnostics> {
    let mut script = std::fs::read_to_string(tree.prefix("rundisagg", &case.test_id)).unwrap();
    if !case.llmapi_launch_in_prefix {
        let launcher =
            format!("{}/tensorrt_llm/llmapi/trtllm-llmapi-launch", tree.source().to_str().unwrap());
        script = script.replace(&launcher, "");
    }
    let path = tree.path("with.sh");
    std::fs::write(&path, script).unwrap();
    let options = Options {
        test_id: Some(format!("disagg_upload-{}", record.config_name)),
        prefix_script: Some(path.to_str().unwrap().to_owned()),
        ..tree.options()
    };
    tree.plan(&options, &[])
}

#[test]
fn every_configuration_is_planned_as_the_scripts_plan_it() {
    check_all(Generation::Classic, DEVIATIONS, by_file);
}

#[test]
fn a_test_id_alone_gives_the_same_plans() {
    check_all(Generation::Classic, DEVIATIONS, by_id);
}

#[test]
fn the_command_of_a_script_prefix_gives_the_same_plans() {
    check_all(Generation::Classic, DEVIATIONS, by_prefix_script);
}
