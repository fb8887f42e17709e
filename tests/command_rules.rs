// SPDX-License-Identifier: Apache-2.0
//! Both rule sets through the command: `plan`, `derive` and `diff` as people and pipelines run them.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

const CONFIG: &str = "\
hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
worker_config: {gen: {tensor_parallel_size: 8}, ctx: {tensor_parallel_size: 4}}
environment: {worker_env_var: A='x y'}
";

struct Tree {
    directory: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { directory: tempfile::tempdir().unwrap() };
        let configs = "src/tests/scripts/perf-sanity/disaggregated";
        fs::create_dir_all(tree.path(configs)).unwrap();
        fs::write(tree.path(&format!("{configs}/c.yaml")), CONFIG).unwrap();
        for (name, text) in [
            ("site.yaml", ""),
            ("list.txt", "p.py::t[disagg-e2e-nope]\np.py::t[disagg-e2e-c] TIMEOUT (9)\n"),
            (
                "prefix.sh",
                "#!/bin/bash\n#SBATCH --nodes=3\nexport pytestCommand=\"LLM_MODELS_ROOT=/m \
                 trtllm-llmapi-launch pytest --output-dir=/o/ --csv=/o/x.csv t.py\"\n",
            ),
            ("srun.txt", "--container-name=n_${SLURM_JOB_ID}\n--mpi=pmix\n"),
            ("draft.sh", "  # indented\necho \"$totalNodes\"\n"),
        ] {
            fs::write(tree.path(name), text).unwrap();
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_slurm-disagg"))
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .env_clear()
            .output()
            .unwrap()
    }

    fn stdout(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

const DERIVE: &str = "derive --run-ci --llm-src src --test-list ./list.txt --draft-launch-sh draft.sh \
    --launch-sh launch.sh --run-sh run.sh --install-sh install.sh --script-prefix prefix.sh \
    --srun-args srun.txt --site site.yaml";

#[test]
fn a_plan_by_test_id_and_script_prefix_has_what_programs_look_for() {
    let tree = Tree::new();
    let json = tree.stdout(
        "plan --rules unified --test-id disagg-e2e-c --prefix-script prefix.sh --format json \
         --trtllm-dir src --workspace /w --site site.yaml",
    );
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(plan["suite"]["rules"], "unified");
    assert_eq!(plan["layout"]["gpus_per_node_per_gen_server"], 4);
    assert_eq!(plan["roles"]["GEN"]["env"]["A"], "x y");
    assert_eq!(plan["roles"]["GEN"]["export"], serde_json::json!({}));
    assert_eq!(plan["roles"]["CTX_PRECHECK"]["argv"][0], "python3");
    assert_eq!(plan["suite"]["variables"]["testOutputDir"], "/o/disagg-e2e-c");
    assert_eq!(plan["container_env"], serde_json::json!(["DISAGG_SERVING_TYPE", "pytestCommand"]));
    assert_eq!(plan["suite"]["models_dir"], "/m");
}

#[test]
fn derive_takes_the_options_of_the_script_that_it_replaces() {
    let tree = Tree::new();
    tree.stdout(&format!("{DERIVE} --split-group 2 --stage-name B200-8"));
    let script = fs::read_to_string(tree.path("launch.sh")).unwrap();
    assert!(script.starts_with("#!/bin/bash\n#SBATCH --nodes=3\n"));
    assert!(script.ends_with("  # indented\necho \"$totalNodes\"\n"));
    let show = "echo \"$stageName|${srunArgs[*]}|$runScript\"";
    let output = Command::new("bash")
        .args(["-c", &format!("source ./launch.sh; {show}")])
        .current_dir(tree.directory.path())
        .env("SLURM_JOB_ID", "7")
        .output()
        .unwrap();
    let run_script = tree.path("run.sh");
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "3\nB200-8|--container-name=n_7 --mpi=pmix --container-env=DISAGG_SERVING_TYPE \
             --container-env=pytestCommand|{}\n",
            run_script.display()
        )
    );
}

#[test]
fn derive_writes_nothing_when_the_input_is_wrong() {
    let tree = Tree::new();
    for (more, message) in [
        ("--split-group 3", "test list ./list.txt has no test 3"),
        ("", "./list.txt:1:1: error: configuration disagg-e2e-nope is not found; tried:"),
    ] {
        let output = tree.run(&format!("{DERIVE} {more}"));
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(message), "{errors}");
        assert!(!tree.path("launch.sh").exists());
    }
}

#[test]
fn diff_compares_rule_sets_tests_and_plans() {
    let tree = Tree::new();
    let common = "--trtllm-dir src --models-dir /m --workspace /w --site site.yaml";
    let differs = |what: &str| {
        let output = tree.run(&format!("diff {what} {common}"));
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rules = differs("c");
    assert!(rules.starts_with("--- c (classic rules)\n+++ c (unified rules)\n"), "{rules}");
    assert!(rules.contains("+ GEN, CTX: HF_HOME=/tmp/hf_home"), "{rules}");
    let modes = differs("disagg-e2e-c disagg-gen_only-c");
    assert!(modes.contains("+ GEN, GEN_PRECHECK: TLLM_BENCHMARK_REQ_QUEUES_SIZE=1"), "{modes}");
    let json = tree.stdout(&format!("plan c --format json {common}"));
    fs::write(tree.path("plan.json"), json).unwrap();
    let same = tree.stdout(&format!("diff plan.json c {common}"));
    assert!(same.ends_with("no difference\n"), "{same}");
}

#[test]
fn check_lists_the_tests_that_a_configuration_allows() {
    let tree = Tree::new();
    let servers = "hardware: {gpus_per_node: 8, num_gen_servers: 1}\n\
                   environment: {worker_env_var: A=1, container_image: <image>}\n\
                   slurm: {partition: <partition>}\n\
                   router_config: {}\nserver_config_extra: {}\n\
                   cache_transceiver_precheck: {wave_timeout_s: 1, wireup_timeout_s: 1}\n\
                   server_configs:\n- {name: s, tensor_parallel_size: 16}\n\
                   - {name: t-1, model_name: m, tensor_parallel_size: 4, pipeline_parallel_size: 2}\n";
    fs::write(tree.path("a.yaml"), servers).unwrap();
    let output = tree.run("check a.yaml src/tests/scripts/perf-sanity/disaggregated/c.yaml");
    assert!(output.status.success());
    let config = "src/tests/scripts/perf-sanity/disaggregated/c.yaml";
    let expected = format!(
        "a.yaml is a configuration for (current rules: the newest)\n  \
           aggr_upload-a-s    2 nodes, 16 GPUs, world size 16\n  \
           aggr_upload-a-t-1  1 node, 8 GPUs, world size 8\n\
         {config} is a configuration for (current rules: the newest)\n  \
           disagg_upload-e2e-c                3 nodes, 12 GPUs\n  \
           disagg_upload-gen_only-c           3 nodes, 12 GPUs\n  \
           aggr_upload-ctx_only-c             1 node, 4 GPUs\n  \
           aggr_upload-gen_only_no_context-c  2 nodes, 8 GPUs\n\
         2 files checked: 0 errors, 0 warnings\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    let notes = String::from_utf8(output.stderr).unwrap();
    for note in [
        "note: hardware.num_gen_servers has no effect in an aggregated test",
        "note: environment.worker_env_var has no effect in an aggregated test, where each entry",
        "note: placeholders, which nobody filled in: slurm.partition, environment.container_image",
    ] {
        assert!(notes.contains(note), "{note}\n---\n{notes}");
    }
}

#[test]
fn check_refuses_sizes_that_are_mistyped_or_cannot_be() {
    let tree = Tree::new();
    let head = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n";
    for (text, message) in [
        ("worker_config: {gen: {tensor_parallel_sise: 8}}", "x.yaml:2:23: error: unknown key"),
        (
            "worker_config: {gen: {tensor_parallel_size: 8, moe_expert_parallel_size: 3}}",
            "moe_expert_parallel_size is 3, which does not divide tensor_parallel_size 8",
        ),
        ("benchmark: {}", "has neither worker_config nor server_configs"),
        ("server_configs: [{name: s}, {name: s}]", "error: server_configs has two entries s"),
        ("server_configs: [{tensor_parallel_size: 1}]", "error: server_configs[0] has no name"),
        ("server_configs: [{name: s, tensor_parallel_size: x}]", "must be a whole number"),
    ] {
        fs::write(tree.path("x.yaml"), format!("{head}{text}\n")).unwrap();
        let output = tree.run("check x.yaml");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}: {errors}");
        assert!(errors.contains(message), "{message}\n---\n{errors}");
    }
    let odd = format!("{head}worker_config: {{gen: {{kv_cache_confg: 1}}}}\n");
    fs::write(tree.path("x.yaml"), odd).unwrap();
    assert_eq!(tree.run("check x.yaml").status.code(), Some(0));
    let strict = tree.run("check x.yaml --strict");
    assert_eq!(strict.status.code(), Some(2));
    let errors = String::from_utf8(strict.stderr).unwrap();
    assert!(errors.contains("error: unknown key worker_config.gen.kv_cache_confg"), "{errors}");
}

#[test]
fn a_mistyped_name_is_the_one_error_about_what_it_hides() {
    let tree = Tree::new();
    for (meant, typed, path) in [
        ("hardware:", "hardwear:", "hardwear"),
        ("worker_config:", "worker_confg:", "worker_confg"),
        ("gen:", "gem:", "worker_config.gem"),
        ("num_gen_servers:", "num_gen_server:", "hardware.num_gen_server"),
    ] {
        fs::write(tree.path("x.yaml"), CONFIG.replace(meant, typed)).unwrap();
        let output = tree.run("check x.yaml");
        assert_eq!(output.status.code(), Some(2), "{typed}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors.matches(": error: ").count(), 1, "{errors}");
        for part in [
            format!("error: unknown key {path}\n"),
            format!("did you mean `{}`?", &meant[..meant.len() - 1]),
        ] {
            assert!(errors.contains(&part), "{part}\n---\n{errors}");
        }
    }
}

#[test]
fn submit_says_at_once_all_that_is_wrong_and_what_is_not_there() {
    let tree = Tree::new();
    let refused = |arguments: &str| {
        let output = tree.run(&format!("submit {arguments} --dry-run --site site.yaml"));
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        String::from_utf8(output.stderr).unwrap()
    };
    fs::write(tree.path("x.yaml"), CONFIG.replace("gpus_per_node: 4", "gpus_per_node: '4'"))
        .unwrap();
    let errors = refused("./x.yaml --workspace w");
    for part in ["the models directory is not known", "hardware.gpus_per_node is text"] {
        assert!(errors.contains(part), "{part}\n---\n{errors}");
    }
    let errors = refused(
        "c --trtllm-dir src --models-dir /no/models --container-image /no/image.sqsh --workspace w%j",
    );
    for part in [
        "src has no test tests/integration/defs/perf/test_perf_sanity.py",
        "the models directory /no/models does not exist",
        "the container image /no/image.sqsh does not exist",
        "Slurm reads a pattern in the workspace's path",
    ] {
        assert!(errors.contains(part), "{part}\n---\n{errors}");
    }
    assert!(!tree.path("w%j").exists());
    let rest = "--models-dir /no/models --workspace w --dry-run --site site.yaml --no-preflight";
    tree.stdout(&format!("submit c --trtllm-dir src {rest}"));
}

#[test]
fn derive_takes_the_options_of_the_newest_pipeline() {
    let tree = Tree::new();
    let gate = "src/jenkins/scripts/perf/disaggregated/slurm_ct_precheck_gate.sh";
    fs::create_dir_all(tree.path(gate).parent().unwrap()).unwrap();
    fs::write(tree.path(gate), "echo \"the tree's gate\"\n").unwrap();
    let list = "p.py::t[disagg-e2e-c] TIMEOUT (9)\np.py::t[disagg-e2e-time_breakdown-c]\n";
    fs::write(tree.path("list.txt"), list).unwrap();
    let prefix = "export pytestCommand=\"LLM_MODELS_ROOT='/m m' trtllm-llmapi-launch pytest \
                  --output-dir=/o/ --splitting-algorithm least_duration --splits 2 --group 1\"\n";
    fs::write(tree.path("prefix.sh"), prefix).unwrap();
    fs::create_dir_all(tree.path("src/tests/integration/defs")).unwrap();
    let durations = r#"{"p.py::t[disagg-e2e-time_breakdown-c]": 9.5, "p.py::t[disagg-e2e-c]": 1}"#;
    fs::write(tree.path("src/tests/integration/defs/.test_durations"), durations).unwrap();
    let derive = DERIVE.replace("--run-ci ", "");
    tree.stdout(&format!("{derive} --split-group 1 --stage-name GB200-8 --cluster-name aws-dfw-1"));
    let show = "source ./launch.sh; echo \"$testOutputDir|$ctPrecheckModelRootEnv|$LLM_MODELS_ROOT|\
                ${srunArgs[*]}|$pytestCommandGENWorker\"";
    let output = Command::new("bash")
        .args(["-c", show])
        .current_dir(tree.directory.path())
        .output()
        .unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let expected = "the tree's gate\n3\n/o/disagg-e2e-time_breakdown-c|LLM_MODELS_ROOT='/m m'|/m m|\
                    --container-name=n_ --mpi=pmix --container-env=DISAGG_SERVING_TYPE \
                    --container-env=pytestCommand --container-env=LLM_MODELS_ROOT|\
                    unset UCX_CUDA_IPC_ENABLE_MNNVL UCX_TLS UCX_NET_DEVICES && \
                    export UCX_TLS=^gdr_copy && ";
    assert!(shown.starts_with(expected), "{shown}\n{expected}");
}
