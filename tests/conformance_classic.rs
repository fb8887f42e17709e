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
    // An empty section is an empty section.
    ("syn_ctx_null", "", Planned(&[])),
    ("syn_environment_null", "", Planned(&[])),
    ("syn_worker_env_null", "", Planned(&[])),
    // The scripts lose what follows a quote.
    ("syn_env_quotes", "", Planned(&[("GEN", "A", "x y"), ("GEN", "C", "\"z\"")])),
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
