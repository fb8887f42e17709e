// SPDX-License-Identifier: Apache-2.0
//! The unified rules where no record of the existing scripts shows them: what a site adds, what a
//! script prefix changes, the kinds of tests that those scripts do not know.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::path::PathBuf;

use disagg::diagnostic::{Diagnostic, Diagnostics};
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::plan::{Generation, Plan, Purpose, TestKind, resolve};

const CONFIG: &str = "\
metadata: {supported_gpus: [GB300]}
hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 3}
benchmark: {concurrency_list: 64}
worker_config: {gen: {tensor_parallel_size: 8, max_batch_size: 4}, ctx: {tensor_parallel_size: 2}}
environment: {worker_env_var: A=1, gen_worker_env_var: B=2, ctx_worker_env_var: C=3}
";

/// A source tree with one configuration of each folder.
struct Tree {
    directory: tempfile::TempDir,
}

impl Tree {
    fn new(config: &str) -> Self {
        let tree = Self { directory: tempfile::tempdir().unwrap() };
        tree.write("src/tests/scripts/perf-sanity/disaggregated/c.yaml", config);
        tree.write(
            "src/tests/scripts/perf-sanity/aggregated/a.yaml",
            "hardware: {gpus_per_node: 8}\nserver_configs:\n\
             - {name: s-1, tensor_parallel_size: 8, server_env_var: D=4}\n",
        );
        tree.write("site.yaml", "models_dir: /m\n");
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), text).unwrap();
    }

    fn options(&self, id: &str) -> Options {
        Options {
            test_id: Some(id.to_owned()),
            trtllm_dir: Some(self.text("src")),
            workspace: Some("/w".to_owned()),
            site: Some(self.path("site.yaml")),
            ..Options::default()
        }
    }

    fn plan(&self, options: &Options) -> Result<Plan, Diagnostics> {
        self.plan_and_warnings(options).map(|(plan, _)| plan)
    }

    fn plan_and_warnings(&self, options: &Options) -> Result<(Plan, Vec<Diagnostic>), Diagnostics> {
        let current_dir = self.directory.path().to_owned();
        request::plan(options, &Context { env: &|_| None, current_dir })
    }
}

fn planned(id: &str) -> Plan {
    let tree = Tree::new(CONFIG);
    tree.plan(&tree.options(id)).unwrap()
}

fn env(plan: &Plan, kind: &str, name: &str) -> Option<String> {
    plan.roles[kind].env.get(name).map(|value| value.as_str().to_owned())
}

fn ucx(plan: &Plan) -> String {
    let role = &plan.roles["GEN"];
    let unset: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
    format!("{} {}", unset.join(" "), serde_json::to_string(&role.export).unwrap())
}

const OTHERWISE: &str = "UCX_TLS UCX_NET_DEVICES {}";

#[test]
fn the_configuration_s_gpus_decide_on_ucx_when_no_pipeline_is_there_to_name_its_stage() {
    let tree = Tree::new(CONFIG);
    let mut options = tree.options("disagg-e2e-c");
    let tls = r#" {"UCX_TLS":"cuda_copy,cuda_ipc,sm,self,tcp"}"#;
    assert_eq!(ucx(&tree.plan(&options).unwrap()), tls);
    options.stage_name = Some("DGX_B200-8".into());
    assert_eq!(ucx(&tree.plan(&options).unwrap()), r#" {"UCX_TLS":"^ib"}"#);
    options.stage_name = Some(String::new());
    tree.write("prefix.sh", "export pytestCommand=\"trtllm-llmapi-launch pytest\"\n");
    options.prefix_script = Some("prefix.sh".into());
    assert_eq!(ucx(&tree.plan(&options).unwrap()), OTHERWISE);
}

#[test]
fn gpus_that_need_different_settings_decide_on_nothing() {
    let tree = Tree::new(&CONFIG.replace("[GB300]", "[GB300, B200]"));
    assert_eq!(ucx(&tree.plan(&tree.options("disagg-e2e-c")).unwrap()), OTHERWISE);
}

#[test]
fn a_site_s_row_of_ucx_comes_before_ours_and_the_role_s_own_value_wins() {
    let tree = Tree::new(CONFIG);
    let site = "models_dir: /m\nucx: [{gpu: gb300, unset: [UCX_RNDV], export: UCX_TLS=rc}]\n";
    tree.write("site.yaml", site);
    let plan = tree.plan(&tree.options("disagg-e2e-c")).unwrap();
    assert_eq!(ucx(&plan), r#"UCX_RNDV {"UCX_TLS":"rc"}"#);
    let own = CONFIG.replace("worker_env_var: A=1", "worker_env_var: 'UCX_TLS=$UCX_TLS,tcp'");
    tree.write("src/tests/scripts/perf-sanity/disaggregated/c.yaml", &own);
    let plan = tree.plan(&tree.options("disagg-e2e-c")).unwrap();
    let instance = plan.instance("GEN_0").unwrap();
    let spec = resolve(&instance, &[]);
    let tls = spec.set.iter().find(|variable| variable.name == "UCX_TLS").unwrap();
    assert_eq!(tls.value.as_str(), "rc,tcp");
}

#[test]
fn a_test_without_context_servers_is_one_server_made_like_a_generation_server() {
    let plan = planned("aggr_upload-gen_only_no_context-c");
    assert_eq!(plan.suite.as_ref().unwrap().test.kind, TestKind::GenNoContext);
    assert_eq!((plan.layout.total_nodes, plan.layout.numbers["gpus_per_server"]), (2, 8));
    let kinds: Vec<_> = plan.roles.keys().collect();
    assert_eq!(kinds, ["AGGREGATED"]);
    assert_eq!(env(&plan, "AGGREGATED", "B").as_deref(), Some("2"));
    assert_eq!(env(&plan, "AGGREGATED", "C"), None);
    assert_eq!(plan.container_env, ["TRTLLM_DISAGG_BENCHMARK_GEN_ONLY", "pytestCommand"]);
    assert!(plan.job_env.get("TRTLLM_DISAGG_BENCHMARK_GEN_ONLY").is_some());
}

#[test]
fn the_queue_is_no_larger_than_what_the_generation_server_holds() {
    let plan = planned("disagg-gen_only-c");
    let queue = env(&plan, "GEN", "TLLM_BENCHMARK_REQ_QUEUES_SIZE");
    assert_eq!(queue.as_deref(), Some("4"));
    assert!(plan.notes.iter().any(|note| note.contains("4 requests, not 64")), "{:?}", plan.notes);
    assert_eq!(env(&plan, "CTX", "TLLM_BENCHMARK_REQ_QUEUES_SIZE"), None);
}

#[test]
fn a_server_of_one_kind_of_test_has_no_part_in_a_disaggregated_one() {
    let plan = planned("aggr-a-s-1");
    let instances: Vec<_> = plan.instances().map(|instance| instance.name.to_string()).collect();
    assert_eq!(instances, ["AGGREGATED"]);
    let server = plan.instances().next().unwrap();
    assert_eq!((server.nodes.clone(), server.gpus.clone()), (0..1, 0..8));
    let spec = resolve(&server, &[]);
    assert!(spec.set.iter().all(|variable| variable.name != "DISAGG_SERVING_TYPE"));
    assert_eq!(spec.junit_file().as_deref(), Some("/w/results-AGGREGATED.xml"));
    assert_eq!(plan.roles["AGGREGATED"].step.mpi.as_deref(), Some("pmix"));
}

#[test]
fn prechecks_run_where_their_servers_will_and_only_when_they_are_enabled() {
    let plan = planned("disagg-e2e-c");
    assert_eq!(
        (
            plan.suite.as_ref().unwrap().precheck.unwrap().enabled,
            plan.suite.as_ref().unwrap().precheck.unwrap().timeout_s
        ),
        (true, 900)
    );
    let names: Vec<_> = plan.checks().map(|precheck| precheck.name.to_string()).collect();
    assert_eq!(names, ["GEN_PRECHECK_0", "GEN_PRECHECK_1", "GEN_PRECHECK_2", "CTX_PRECHECK_0"]);
    for precheck in plan.checks() {
        let server = plan.instance(&precheck.name.replace("_PRECHECK", "")).unwrap();
        assert_eq!(precheck.nodes, server.nodes);
        assert_eq!(precheck.role.step, server.role.step);
    }
    assert!(plan.instances().all(|instance| instance.role.purpose != Purpose::Check));

    let tree = Tree::new(&format!("{CONFIG}cache_transceiver_precheck: {{enabled: false}}\n"));
    let plan = tree.plan(&tree.options("disagg-e2e-c")).unwrap();
    assert_eq!(plan.checks().count(), 0);
    assert_eq!(plan.roles["GEN_PRECHECK"].count, 0);

    for (written, enabled) in [("'false'", true), ("never", true), ("''", false), ("", false)] {
        let check = format!("cache_transceiver_precheck:\n  enabled: {written}\n");
        let text_is_on = Tree::new(&format!("{CONFIG}{check}"));
        let options = text_is_on.options("disagg-e2e-c");
        let (plan, warnings) = text_is_on.plan_and_warnings(&options).unwrap();
        assert_eq!(plan.suite.as_ref().unwrap().precheck.unwrap().enabled, enabled, "{written}");
        let warned = warnings.iter().any(|one| one.to_string().contains("write true or false"));
        assert_eq!(warned, !written.is_empty(), "{written}: {warnings:?}");
    }
    tree.write("site.yaml", "models_dir: /m\nprecheck: true\n");
    assert!(
        tree.plan(&tree.options("disagg-e2e-c")).unwrap().suite.unwrap().precheck.unwrap().enabled
    );
}

#[test]
fn the_time_limit_is_the_options_or_else_the_configurations_or_else_the_sites() {
    let tree = Tree::new(&format!("{CONFIG}slurm: {{job_time: 02:30:00}}\n"));
    tree.write("site.yaml", "models_dir: /m\ntime: '30'\n");
    let mut options = tree.options("disagg-e2e-c");
    let limits = |options: &Options| {
        let job = tree.plan(options).unwrap().job;
        let of_the_configuration = job.time_of_the_configuration().map(str::to_owned);
        (job.time.value, of_the_configuration)
    };
    assert_eq!(limits(&options), ("02:30:00".into(), Some("02:30:00".into())));
    assert_eq!(limits(&tree.options("aggr-a-s-1")), ("30".into(), None));
    options.time = Some("5".into());
    assert_eq!(limits(&options), ("5".into(), None));
    options.test_id = Some("aggr-a-s-1".into());
    options.time = None;
    tree.write("site.yaml", "models_dir: /m\n");
    assert_eq!(limits(&options), ("04:00:00".into(), None));
}

#[test]
fn the_launcher_of_a_given_command_counts_and_a_strange_one_is_noted() {
    let tree = Tree::new(CONFIG);
    let mut options = tree.options("disagg-e2e-c");
    options.prefix_script = Some("prefix.sh".into());
    tree.write("prefix.sh", "export pytestCommand='nsys profile pytest -v --csv=x t.py::t'\n");
    let plan = tree.plan(&options).unwrap();
    assert!(!plan.suite.as_ref().unwrap().llmapi_launch);
    assert!(plan.notes[0].contains("lacks trtllm-llmapi-launch"), "{:?}", plan.notes);
    tree.write(
        "prefix.sh",
        "export pytestCommand='nsys profile /l/trtllm-llmapi-launch pytest -v --csv=x t.py::t'\n",
    );
    let plan = tree.plan(&options).unwrap();
    let argv = |kind: &str| -> Vec<String> { plan.roles[kind].words().collect() };
    let worker = ["nsys", "profile", "/l/trtllm-llmapi-launch", "pytest", "-v", "t.py::t"];
    assert_eq!(argv("GEN"), worker);
    let client = ["nsys", "profile", "pytest", "-v", "--csv=x", "t.py::t"];
    assert_eq!(argv("BENCHMARK"), client);
}

#[test]
fn every_kind_of_plan_is_read_back_from_its_json() {
    let no_context = CONFIG.replace("{concurrency", "{mode: gen_only_no_context, concurrency");
    let tree = Tree::new(&no_context);
    for id in [
        "disagg-e2e-c",
        "disagg-gen_only-c",
        "disagg-c",
        "aggr-ctx_only-c",
        "aggr-gen_only_no_context-c",
        "aggr-a-s-1",
    ] {
        let plan = tree.plan(&tree.options(id)).unwrap();
        let json = plan.to_json().unwrap();
        let read = Plan::from_json(&json).unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(read.to_json().unwrap(), json, "{id}");
        let larger = format!("\"total_nodes\":{}", plan.layout.total_nodes + 1);
        let total = format!("\"total_nodes\":{}", plan.layout.total_nodes);
        assert!(Plan::from_json(&json.replace(&total, &larger)).is_err(), "{id}");
    }
}

#[test]
fn the_plan_says_which_rules_were_followed_and_why() {
    let plan = planned("disagg-e2e-c");
    assert_eq!(plan.suite.as_ref().unwrap().rules, Generation::Unified);
    assert_eq!(plan.suite.as_ref().unwrap().rules_reason, "the form of the test id disagg-e2e-c");
    let tree = Tree::new(CONFIG);
    let mut options = tree.options("disagg-e2e-c");
    options.rules = Some(Generation::Classic);
    let error = tree.plan(&options).unwrap_err().to_string();
    assert!(error.contains("/e2e-c.yaml"), "{error}");
    options = Options { test_id: None, config: "c".into(), ..options };
    assert_eq!(tree.plan(&options).unwrap().suite.unwrap().rules_reason, "--rules");
    options.rules = None;
    let plan = tree.plan(&options).unwrap();
    assert_eq!(
        (plan.suite.as_ref().unwrap().rules, plan.suite.as_ref().unwrap().test.id.as_str()),
        (Generation::Classic, "disagg_upload-c")
    );
}

#[test]
fn a_test_list_says_module_function_and_prefix() {
    let tree = Tree::new(CONFIG);
    tree.write(
        "src/tests/integration/test_lists/qa/mine.txt",
        "perf/other.py::test_it[disagg-e2e-c] TIMEOUT (9)\nx.py::t[aggr-a-s-1]\n",
    );
    let mut options = Options { test_id: None, ..tree.options("") };
    options.test_list = Some("mine".into());
    let error = tree.plan(&options).unwrap_err().to_string();
    assert!(error.contains("has 2 tests") && error.contains("2: aggr-a-s-1"), "{error}");
    options.test_match = Some("e2e".into());
    let plan = tree.plan(&options).unwrap();
    assert_eq!(plan.suite.as_ref().unwrap().test.node_id(), "perf/other.py::test_it[disagg-e2e-c]");
    let argv: Vec<_> = plan.roles["BENCHMARK"].words().collect();
    assert!(argv.iter().any(|word| word == "--test-prefix=disagg"));
}

/// A launcher of the unified rules that runs prechecks, as far as its text tells.
const LAUNCHER: &str =
    "f'export pytestCommandCTXWorker=\"{x}\"'\nf'export ctPrecheckEnabled={precheck}'\n";

/// Marks the source tree as one with the newest launcher.
fn make_current(tree: &Tree) {
    let option = "parser.add_argument(\"--cluster-name\")\n";
    tree.write("src/jenkins/scripts/perf/submit.py", &format!("{LAUNCHER}{option}"));
}

#[test]
fn the_launcher_of_the_source_tree_decides_on_the_rules() {
    let tree = Tree::new(CONFIG);
    tree.write("src/jenkins/scripts/perf/submit.py", LAUNCHER);
    let named = Options { test_id: None, config: "c".into(), ..tree.options("") };
    let chosen = |options: &Options| {
        let plan = tree.plan(options).unwrap();
        {
            let suite = plan.suite.unwrap();
            (suite.rules.name(), suite.test.id, suite.rules_reason)
        }
    };
    let (rules, id, _) = chosen(&named);
    assert_eq!((rules, id.as_str()), ("unified", "disagg_upload-e2e-c"));
    make_current(&tree);
    let (rules, id, why) = chosen(&named);
    assert_eq!((rules, id.as_str()), ("current", "disagg_upload-e2e-c"));
    assert_eq!(why, "the source tree has a jenkins/scripts/perf/submit.py of this form");
    let (_, id, _) = chosen(&Options { config: "a".into(), ..named.clone() });
    assert_eq!(id, "aggr_upload-a-s-1");
    let error = tree.plan(&tree.options("disagg-c")).unwrap_err().to_string();
    assert!(error.contains("names no mode, which the current rules need"), "{error}");
    let noted = |options: &Options| tree.plan_and_warnings(options).unwrap().1;
    assert!(noted(&named)[0].to_string().contains("is not among the versions that the current"));
    let by_option = Options { rules: Some(Generation::Unified), ..named.clone() };
    assert_eq!(chosen(&by_option).2, "--rules");
    assert!(noted(&by_option).is_empty());
    tree.write("src/jenkins/scripts/perf/submit.py", "print('a launcher of our own')\n");
    let submit = "jenkins/scripts/perf/submit.py of the source tree";
    assert_eq!(chosen(&named).2, format!("{submit} is unknown, so the newest rules apply"));
    assert!(noted(&named)[0].to_string().contains("choose with --rules"));
}

#[test]
fn a_tree_whose_launcher_has_no_prechecks_has_none_unless_they_are_asked_for() {
    let tree = Tree::new(CONFIG);
    let options = tree.options("disagg-e2e-c");
    let enabled = |site: &str| {
        tree.write("site.yaml", &format!("models_dir: /m\n{site}"));
        let plan = tree.plan(&options).unwrap();
        let precheck = plan.suite.unwrap().precheck;
        assert_eq!(precheck.is_some(), plan.roles.contains_key("GEN_PRECHECK"));
        precheck.is_some_and(|precheck| precheck.enabled)
    };
    tree.write("src/jenkins/scripts/perf/submit.py", LAUNCHER);
    assert!(enabled(""));
    let older = LAUNCHER.lines().next().unwrap();
    tree.write("src/jenkins/scripts/perf/submit.py", older);
    assert!(!enabled(""));
    assert!(enabled("precheck: true\n"));
    // Rules that are asked for do not put into the tree what it lacks.
    tree.write("site.yaml", "models_dir: /m\n");
    let rules = Some(Generation::Unified);
    let plan = tree.plan(&Options { rules, ..options }).unwrap();
    assert_eq!(plan.suite.unwrap().precheck, None);
}

#[test]
fn the_cluster_decides_on_ucx_and_is_asked_for_only_without_a_pipeline() {
    let tree = Tree::new(CONFIG);
    make_current(&tree);
    let mut options = tree.options("disagg-e2e-c");
    let unset = "UCX_CUDA_IPC_ENABLE_MNNVL UCX_TLS UCX_NET_DEVICES";
    let plan = |options: &Options| {
        let current_dir = tree.directory.path().to_owned();
        let env = |name: &str| (name == "SLURM_CLUSTER_NAME").then(|| "AWS-dfw-1".to_owned());
        request::plan(options, &Context { env: &env, current_dir }).unwrap().0
    };
    assert_eq!(ucx(&plan(&options)), format!("{unset} {{\"UCX_TLS\":\"^gdr_copy\"}}"));
    options.cluster_name = Some("oci-hsg".into());
    assert_eq!(ucx(&plan(&options)), format!("{unset} {{}}"));
    options.cluster_name = None;
    tree.write("prefix.sh", "export pytestCommand='trtllm-llmapi-launch pytest'\n");
    options.prefix_script = Some("prefix.sh".into());
    assert_eq!(ucx(&plan(&options)), format!("{unset} {{}}"));
    let site =
        "models_dir: /m\ncluster_name: my-1\nucx: [{cluster: my-?, unset: [X], export: Y=1}]\n";
    tree.write("site.yaml", site);
    assert_eq!(ucx(&plan(&options)), format!("{unset} X {{\"Y\":\"1\"}}"));
}

#[test]
fn a_test_finds_its_configuration_in_a_folder_that_it_does_not_know() {
    let tree = Tree::new(CONFIG);
    make_current(&tree);
    tree.write("src/tests/scripts/perf/disaggregated/qa.yaml", CONFIG);
    tree.write("src/tests/scripts/perf/disaggregated/c.yaml", CONFIG);
    let folder =
        |options: &Options| env(&tree.plan(options).unwrap(), "GEN", "DISAGG_CONFIG_FOLDER");
    let qa = tree.text("src/tests/scripts/perf/disaggregated");
    assert_eq!(folder(&tree.options("disagg-e2e-qa")).as_deref(), Some(qa.as_str()));
    assert_eq!(folder(&tree.options("disagg-e2e-c")), None);
    let (_, warnings) = tree.plan_and_warnings(&tree.options("disagg-e2e-c")).unwrap();
    let too = "perf/disaggregated/c.yaml too";
    assert!(warnings.iter().any(|one| one.to_string().contains(too)), "{warnings:?}");
    let given = Options { config: format!("{qa}/c.yaml"), ..tree.options("disagg-e2e-c") };
    assert_eq!(folder(&given).as_deref(), Some(qa.as_str()));
    let other = Options { config: format!("{qa}/qa.yaml"), ..tree.options("disagg-e2e-c") };
    let error = tree.plan(&other).unwrap_err().to_string();
    assert!(error.contains("the test looks for it by the name in its id"), "{error}");
}

#[test]
fn the_queue_of_our_own_command_is_capped_and_that_of_a_given_one_is_not() {
    let tree = Tree::new(CONFIG);
    make_current(&tree);
    let mut options = tree.options("disagg-gen_only-c");
    let queue = |options: &Options| {
        let plan = tree.plan(options).unwrap();
        let size = env(&plan, "GEN", "TLLM_BENCHMARK_REQ_QUEUES_SIZE").unwrap();
        (size, plan.notes.join("\n"))
    };
    let (size, notes) = queue(&options);
    assert!(size == "4" && notes.contains("4 requests, not 64"), "{size} {notes}");
    tree.write("prefix.sh", "export pytestCommand='trtllm-llmapi-launch pytest'\n");
    options.prefix_script = Some("prefix.sh".into());
    let (size, notes) = queue(&options);
    assert!(size == "64" && notes.contains("server holds 4"), "{size} {notes}");
}

#[test]
fn the_time_of_a_precheck_has_limits_that_follow_from_its_phases() {
    for (config, least) in [
        (CONFIG.to_owned(), 960),
        (CONFIG.replace("tensor_parallel_size: 8", "tensor_parallel_size: 2"), 780),
        (format!("{CONFIG}cache_transceiver_precheck:\n  setup_timeout_s: 900\n"), 1080),
        (format!("{CONFIG}cache_transceiver_precheck:\n  wireup_timeout_s: 700\n"), 1060),
    ] {
        for (seconds, is_taken) in [(least, false), (least + 1, true), (1800, true), (1801, false)]
        {
            let time = format!("  step_timeout_s: {seconds}\n");
            let section = "cache_transceiver_precheck:\n";
            let config = match config.contains(section) {
                true => format!("{config}{time}"),
                false => format!("{config}{section}{time}"),
            };
            let tree = Tree::new(&config);
            make_current(&tree);
            let planned = tree.plan(&tree.options("disagg-e2e-c"));
            assert_eq!(planned.is_ok(), is_taken, "{least} {seconds}: {planned:?}");
        }
    }
}

#[test]
fn the_list_of_waived_tests_turns_the_precheck_off() {
    let tree = Tree::new(CONFIG);
    make_current(&tree);
    let waives = "src/tests/integration/test_lists/waives.txt";
    tree.write("prefix.sh", "export pytestCommand='pytest --test-prefix=GB300-Disagg'\n");
    let mut options = tree.options("disagg-e2e-c");
    let test = "perf/test_perf_sanity.py::test_e2e[disagg-e2e-c]";
    for (line, prefix, is_skipped) in [
        (format!("{test} SKIP (bug)"), false, true),
        (format!("{test} # SKIP"), false, false),
        (format!("full:GB300/{test} SKIP"), false, false),
        (format!("full:GB300/{test} SKIP"), true, true),
        (format!("full:sm100-GB300/{test} SKIP"), true, false),
    ] {
        tree.write(waives, &format!("# none\n{line}\n"));
        options.prefix_script = prefix.then(|| "prefix.sh".to_owned());
        let plan = tree.plan(&options).unwrap();
        assert_eq!(plan.suite.as_ref().unwrap().precheck.unwrap().enabled, !is_skipped, "{line}");
        assert_eq!(
            plan.suite.as_ref().unwrap().variables.contains_key("LLM_MODELS_ROOT"),
            !is_skipped
        );
        assert_eq!(
            plan.suite.as_ref().unwrap().variables["ctPrecheckModelRootEnv"],
            "LLM_MODELS_ROOT=/m"
        );
        assert_eq!(env(&plan, "GEN_PRECHECK", "LLM_MODELS_ROOT").as_deref(), Some("/m"));
    }
}
