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
    assert_eq!(plan["rules"], "unified");
    assert_eq!(plan["layout"]["gpus_per_node_per_gen_server"], 4);
    assert_eq!(plan["roles"]["GEN"]["env"]["A"], "x y");
    assert_eq!(plan["roles"]["GEN"]["export"], serde_json::json!({}));
    assert_eq!(plan["roles"]["CTX_PRECHECK"]["argv"][0], "python3");
    assert_eq!(plan["variables"]["testOutputDir"], "/o/disagg-e2e-c");
    assert_eq!(plan["container_env"], serde_json::json!(["DISAGG_SERVING_TYPE", "pytestCommand"]));
    assert_eq!(plan["models_dir"], "/m");
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
    let rules = tree.stdout(&format!("diff c {common}"));
    assert!(rules.starts_with("--- c (classic rules)\n+++ c (unified rules)\n"), "{rules}");
    assert!(rules.contains("+ GEN, CTX: HF_HOME=/tmp/hf_home"), "{rules}");
    let modes = tree.stdout(&format!("diff disagg-e2e-c disagg-gen_only-c {common}"));
    assert!(modes.contains("+ GEN, GEN_PRECHECK: TLLM_BENCHMARK_REQ_QUEUES_SIZE=1"), "{modes}");
    let json = tree.stdout(&format!("plan c --format json {common}"));
    fs::write(tree.path("plan.json"), json).unwrap();
    let same = tree.stdout(&format!("diff plan.json c {common}"));
    assert!(same.ends_with("no difference\n"), "{same}");
}
