// SPDX-License-Identifier: Apache-2.0
//! Everything that reads what a user wrote, with inputs that are nearly good. Whatever is taken must
//! hold all that is promised of it; whatever is refused must say so at a place that exists.
#![allow(clippy::unwrap_used)]

mod mutation;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use disagg::diagnostic::{Diagnostics, Source};
use disagg::input::request::{self, Options};
use disagg::input::{Context, test_list};
use disagg::output::{explain, files, table};
use disagg::plan::{Plan, TestId, resolve};
use disagg::slurm::hostlist;
use mutation::mutated;
use proptest::prelude::*;

const YAML: &[&str] = &[
    "\n",
    "  ",
    ": ",
    "- ",
    "'",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: ",
    "|\n",
    ">\n",
    "#",
    "!!str ",
    "~",
    "null",
    "yes",
    "0",
    "-1",
    "010",
    "1_6",
    "1:30",
    "1e9",
    "0x10",
    "4294967296",
    "99999999999999999999",
    ".inf",
    "$(id)",
    "${A}",
    "$A",
    "`id`",
    "$[1]",
    "$'x'",
    "~/x",
    "\\0\"",
    "：",
    "\u{a0}",
    "A=1 ",
    "gen",
    "ctx",
    "e2e",
    "gen_only",
    "num_ctx_servers: 0\n",
    "tensor_parallel_size: 1000000",
    "gpus_per_node: ",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "é",
];

const JSON: &[&str] = &[
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "true",
    "0",
    "-1",
    "1e9",
    "4294967295",
    "4294967296",
    "\"schema\":1,",
    "\"count\":0",
    "\"count\":4294967295",
    "\"GEN\"",
    "\"CTX\"",
    "\"AGGREGATED\"",
    "\"nodes\":1",
    "\"tasks\":1",
    "${A}",
    "$",
    "/",
];

const HOSTS: &[&str] = &[
    "[",
    "]",
    ",",
    "-",
    "0",
    "00",
    "1",
    "9",
    "99999999999999999999",
    "node",
    "[1-3]",
    "[01-10,12]",
    "[3-1]",
    " ",
];

const LISTS: &[&str] = &[
    "\n",
    "::",
    "[",
    "]",
    "-",
    "e2e",
    "gen_only",
    "ctx_only",
    "aggr_upload-",
    "disagg_upload-",
    "perf/test_perf_sanity.py",
    " TIMEOUT (90)",
    "SKIP",
    "#",
    "- ",
    ": ",
    "'",
    "\"",
];

/// The stand-in's configurations, and one of an aggregated test.
fn configs() -> Vec<String> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin/configs");
    let files = std::fs::read_dir(place).unwrap();
    let mut texts: Vec<String> =
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert!(texts.len() >= 7);
    texts.push(AGGREGATED.to_owned());
    texts
}

const AGGREGATED: &str = "hardware:\n  gpus_per_node: 4\nserver_configs:\n  - name: large\n    \
    tensor_parallel_size: 8\n    server_env_var: 'A=1 B=$A'\n";

const IDS: [Option<&str>; 4] = [
    None,
    Some("disagg_upload-e2e-c"),
    Some("disagg_upload-gen_only-c"),
    Some("aggr_upload-c-large"),
];

fn plan(config: &str, id: Option<&str>) -> Result<Plan, Diagnostics> {
    let options = Options {
        config: "c.yaml".into(),
        test_id: id.map(str::to_owned),
        trtllm_dir: Some("/src".into()),
        models_dir: Some("/models".into()),
        ..Options::default()
    };
    let context = Context { env: &|_| None, current_dir: PathBuf::from("/work") };
    let source = Arc::new(Source::new("c.yaml", config));
    request::plan_text(&options, &source, &context).map(|(plan, _)| plan)
}

/// All that is made of a plan, by anybody.
fn use_up(plan: &Plan) {
    let hosts: Vec<String> = (0..40).map(|i| format!("n{i}")).collect();
    for instance in plan.instances().chain(plan.checks()).take(60) {
        assert_eq!(plan.instance(&instance.name).unwrap().nodes, instance.nodes);
        let step = &instance.role.step;
        assert_eq!(instance.nodes.len(), step.nodes as usize);
        assert!(step.nodes >= 1 && step.tasks >= step.nodes);
        assert!(u64::from(step.tasks) <= u64::from(step.nodes) * u64::from(step.tasks_per_node));
        if let Some(own) = instance.hosts(&hosts) {
            let each = instance.host_of_each_task(&hosts).unwrap();
            assert_eq!(each.len(), step.tasks as usize);
            assert!(each.iter().all(|host| own.contains(host)));
        }
        let behind = instance.role.own.args.range(instance.role.argv.len()..).count();
        let words = instance.role.words().count() + behind;
        assert_eq!(resolve(&instance, &[]).argv.len(), words);
        let _ = table::instance(&instance, None);
    }
    let _ = (explain::entries(plan), table::plan(plan, None), files::all(plan));
}

fn placed(errors: &Diagnostics, text: &str) {
    assert!(!errors.0.is_empty());
    for diagnostic in &errors.0 {
        assert!(!diagnostic.to_string().is_empty());
        if let Some(location) = &diagnostic.location {
            let lines = location.source.last_position().line;
            let line = location.position.line;
            assert!((1..=lines).contains(&line), "line {line} of {lines}: {diagnostic}\n{text:?}");
            assert!(location.position.column >= 1, "{diagnostic}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn a_mutated_config_is_planned_in_full_or_refused_at_a_place_that_exists(
        text in mutated(configs(), YAML),
        id in proptest::sample::select(&IDS[..]),
    ) {
        match plan(&text, id) {
            Ok(plan) => {
                use_up(&plan);
                let json = plan.to_json().unwrap();
                let again = Plan::from_json(&json).unwrap_or_else(|e| panic!("{e}: {text:?}"));
                prop_assert_eq!(again.to_json().unwrap(), json);
            }
            Err(errors) => placed(&errors, &text),
        }
    }

    #[test]
    fn a_mutated_plan_is_refused_or_as_sound_as_one_that_was_planned(text in mutated(plans(), JSON)) {
        if let Ok(plan) = Plan::from_json(&text) {
            use_up(&plan);
        }
    }

    #[test]
    fn a_mutated_hostlist_is_refused_or_comes_back_the_same(text in mutated(hostlists(), HOSTS)) {
        if let Ok(hosts) = hostlist::expand(&text) {
            let compressed = hostlist::compress(&hosts);
            prop_assert_eq!(hostlist::expand(&compressed).unwrap(), hosts);
        }
    }

    #[test]
    fn a_mutated_test_list_is_read_or_refused_at_a_place_that_exists(text in mutated(lists(), LISTS)) {
        let source = Arc::new(Source::new("list", text.clone()));
        for entry in test_list::from_text(&source, None).tests() {
            if let Ok(readings) = &entry.readings {
                prop_assert!(!readings.is_empty());
            }
        }
        if let Err(errors) = test_list::from_yaml(&source, None) {
            placed(&errors, &text);
        }
        let _ = TestId::readings(&text, None);
    }
}

fn plans() -> Vec<String> {
    let json = |(config, id): (String, Option<&str>)| plan(&config, id).unwrap().to_json().unwrap();
    let of = |name: &str| {
        let path = format!("{}/tests/standin/configs/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).unwrap()
    };
    let ids = [
        (of("standin_3nodes"), IDS[0]),
        (of("standin_3nodes"), IDS[1]),
        (of("standin_gen_only"), IDS[2]),
        (AGGREGATED.to_owned(), IDS[3]),
    ];
    ids.map(json).to_vec()
}

fn hostlists() -> Vec<String> {
    ["node[1-3,5],login", "gb[001-018]", "r[1-2]n[01-04]-ib,x", "a,b,c1,c2"]
        .map(String::from)
        .to_vec()
}

fn lists() -> Vec<String> {
    let test = "perf/test_perf_sanity.py::test_e2e";
    vec![
        format!("{test}[disagg_upload-e2e-c] TIMEOUT (90)\n{test}[aggr_upload-c-large]\n# no\n"),
        format!(
            "version: 0.0.1\nlist:\n- condition:\n    ranges:\n      system_gpu_count: {{gte: 4}}\n  tests:\n  - {test}[disagg_upload-c]\n  - {test}[aggr_upload-ctx_only-c]\n"
        ),
    ]
}
