// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg verify` against a launcher that differs from our rules in known ways.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};

const CONFIG: &str = "\
hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
benchmark: {concurrency_list: 8}
worker_config: {gen: {tensor_parallel_size: 8}, ctx: {tensor_parallel_size: 4}}
environment: {worker_env_var: A='x y' HF_TOKEN=abc MINE=def}
";

/// Derives the script by our rules and changes it: what is between these values is known.
const LAUNCHER: &str = r#"
# As the launchers of the current rules: "--cluster-name", export pytestCommandCTXWorker=, precheck.
import os, subprocess, sys
mark = os.environ["MARK"]
argv = sys.argv[1:]
option = lambda name: argv[argv.index(name) + 1]
if mark == "classic" and any(word.startswith(("--cluster", "--split")) for word in argv):
    sys.exit("unrecognized arguments")
if "ctx_only" in open(option("--test-list")).read():
    sys.exit("Traceback (most recent call last):\nValueError: no ctx_only here")
subprocess.run([os.environ["DERIVE"], "derive", *argv, "--site", os.environ["SITE"]], check=True)
path = option("--launch-sh")
text = open(path).read()
if mark == "different":
    text = text.replace("HF_HOME=/tmp/hf_home", "HF_HOME=/tmp/other")
    text = text.replace("HF_TOKEN=abc", "HF_TOKEN=xyz").replace("MINE=def", "MINE=xyz")
    text = text.replace("TLLM_BENCHMARK_REQ_QUEUES_SIZE=8", "TLLM_BENCHMARK_REQ_QUEUES_SIZE=4")
    text = text.replace("--container-env=pytestCommand\n", "")
    text = text.replace("export ctPrecheckTimeout", "export ctPrecheckTime")
    text += "export injected=$(touch ran)\ntouch ran\n"
if mark == "older":
    text = "".join(line for line in text.splitlines(True) if "Precheck=" not in line)
    text = text.replace("--timeout-method=thread --timeout=3600", "--timeout=3600 --timeout-method=thread")
    text = text.replace("A='x y'", "NEW=1 A='x y'")
if mark == "broken":
    text = text.replace('pytestCommandBenchmark="', 'pytestCommandBenchmark="A=1 \n B=2 ')
    text = text.replace('pytestCommandDisaggServer="', 'pytestCommandDisaggServer="A=1" "')
open(path, "w").write(text)
"#;

struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("src/tests/scripts/perf-sanity/disaggregated/c.yaml", CONFIG);
        tree.write("src/jenkins/scripts/perf/submit.py", LAUNCHER);
        tree.write("site.yaml", "models_dir: /m\nsecrets: [MINE]\n");
        let list = "p.py::t[disagg-e2e-c] TIMEOUT (90)\np.py::t[disagg-gen_only-c]\n\
                    p.py::t[aggr-ctx_only-c]\np.py::t[disagg-e2e-nope]\n";
        tree.write("list.txt", list);
        tree
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn run(&self, mark: &str, path: &str, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_slurm-disagg"))
            .arg("verify")
            .args(arguments)
            .args(["--trtllm-dir", "src", "--site", "site.yaml"])
            .current_dir(self.0.path())
            .env_clear()
            .env("PATH", path)
            .env("MARK", mark)
            .env("DERIVE", env!("CARGO_BIN_EXE_slurm-disagg"))
            .env("SITE", self.0.path().join("site.yaml"))
            .output()
            .unwrap()
    }
}

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_launcher_with_the_same_rules_has_no_differences() {
    let tree = Tree::new();
    for test in ["disagg-e2e-c", "disagg-gen_only-c"] {
        let (code, stdout, stderr) = texts(&tree.run("same", PATH, &["--test-id", test]));
        assert_eq!((code, stdout.as_str()), (Some(0), "1 of 1 test equal\n"), "{stderr}");
    }
}

#[test]
fn the_differences_of_a_list_are_grouped_by_cause() {
    let tree = Tree::new();
    let list = ["--test-list", "./list.txt"];
    let (code, stdout, stderr) = texts(&tree.run("different", PATH, &list));
    assert_eq!(code, Some(1), "{stderr}");
    for paragraph in [
        "env HF_HOME of GEN, CTX, GEN_PRECHECK, CTX_PRECHECK: 2 tests\n  \
         slurm-disagg  /tmp/hf_home\n  launcher      /tmp/other\n  \
         in p.py::t[disagg-e2e-c] TIMEOUT (90), p.py::t[disagg-gen_only-c]\n",
        "env HF_TOKEN of GEN, CTX, GEN_PRECHECK, CTX_PRECHECK: 2 tests\n  \
         slurm-disagg  ********\n  launcher      ********\n",
        "env MINE of GEN, CTX, GEN_PRECHECK, CTX_PRECHECK: 2 tests\n  slurm-disagg  ********\n",
        "env TLLM_BENCHMARK_REQ_QUEUES_SIZE of GEN, GEN_PRECHECK: 1 test\n  \
         slurm-disagg  8\n  launcher      4\n",
        "srunArgs --container-env=pytestCommand: 2 tests\n",
        "variable ctPrecheckTimeout: 2 tests\n  slurm-disagg  1200\n  launcher      (not set)\n",
        "variable ctPrecheckTime: 2 tests\n  slurm-disagg  (not set)\n  launcher      1200\n",
        "the launcher refuses the test: 1 test\n  slurm-disagg  planned\n  \
         launcher      ValueError: no ctx_only here\n",
    ] {
        assert!(stdout.contains(paragraph), "{paragraph}\n---\n{stdout}");
    }
    // A configuration that neither finds is no difference.
    assert!(stdout.ends_with("1 of 4 tests equal (1 refused by both)\n"), "{stdout}");
    assert!(!tree.0.path().join("ran").exists());

    let json = [&list[..], &["--format", "json"]].concat();
    let (_, stdout, _) = texts(&tree.run("different", PATH, &json));
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&report["tests"], &report["equal"]), (&json!(4), &json!(1)));
    let groups = report["groups"].as_array().unwrap();
    let queue = groups.iter().find(|group| group["what"] == "env TLLM_BENCHMARK_REQ_QUEUES_SIZE");
    let queue = queue.unwrap();
    assert_eq!(queue["values"], json!([["8", "4"]]));
    assert_eq!(queue["roles"], json!(["GEN", "GEN_PRECHECK"]));
}

#[test]
fn what_shifts_moves_or_is_missing_as_a_whole_is_one_difference() {
    let tree = Tree::new();
    tree.write(
        "prefix.sh",
        "export llmSrcNode=/on/nodes\nexport pytestCommand=\"trtllm-llmapi-launch pytest \
         --timeout-method=thread --timeout=3600 --output-dir=/w --splits 1 --group 1\"\n",
    );
    let test = ["--test-id", "disagg-e2e-c", "--prefix-script", "prefix.sh"];
    let (code, stdout, stderr) = texts(&tree.run("older", PATH, &test));
    assert_eq!(code, Some(1), "{stderr}");
    let headings: Vec<_> = stdout.lines().filter(|line| line.ends_with(": 1 test")).collect();
    assert_eq!(
        headings,
        [
            "command of GEN_PRECHECK, CTX_PRECHECK: 1 test",
            "env NEW of GEN, CTX: 1 test",
            "order of arguments of DISAGG_SERVER, BENCHMARK: 1 test",
            "order of arguments of GEN, CTX: 1 test",
            "variable pytestCommand: 1 test",
        ],
        "{stdout}"
    );
    assert!(stdout.contains("  slurm-disagg  (set)\n  launcher      (not set)\n"), "{stdout}");
    let (_, stdout, _) = texts(&tree.run("broken", PATH, &test));
    let whole =
        "command of DISAGG_SERVER: 1 test\n  slurm-disagg  (set)\n  launcher      (no program)";
    assert!(stdout.contains(whole) && stdout.contains("(the command ends"), "{stdout}");
    assert_eq!(stdout.matches(": 1 test").count(), 2, "{stdout}");
}

#[test]
fn every_test_that_the_configurations_of_a_folder_allow_is_compared() {
    let tree = Tree::new();
    tree.write("src/tests/scripts/perf-sanity/aggregated/broken.yaml", "server_configs: 3\n");
    let folder = "src/tests/scripts/perf-sanity";
    let (code, stdout, stderr) = texts(&tree.run("same", PATH, &[folder]));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stdout.contains("the launcher refuses the test: 1 test\n"), "{stdout}");
    assert!(stdout.contains("in perf/test_perf_sanity.py::test_e2e[aggr_upload-ctx_only-c]\n"));
    assert!(stdout.contains("slurm-disagg refuses the test: 1 test\n"), "{stdout}");
    assert!(stdout.contains("perf-sanity/aggregated/broken.yaml\n"), "{stdout}");
    assert!(stdout.ends_with("3 of 5 tests equal\n"), "{stdout}");

    // A classic launcher takes fewer options, and its tests have ids without a mode.
    let classic = LAUNCHER.replace("pytestCommandCTXWorker", "pytestCommandWorker");
    let classic = classic.replace("\"--cluster-name\", ", "");
    fs::remove_file(tree.0.path().join("src/jenkins/scripts/perf/submit.py")).unwrap();
    tree.write("src/jenkins/scripts/perf/disaggregated/submit.py", &classic);
    let folder = "src/tests/scripts/perf-sanity/disaggregated";
    let (_, stdout, stderr) = texts(&tree.run("classic", PATH, &[folder]));
    assert_eq!(stdout, "1 of 1 test equal\n", "{stderr}");

    let (code, _, stderr) = texts(&tree.run("same", PATH, &["src/jenkins"]));
    assert!(code == Some(2) && stderr.contains("no test is named below src/jenkins"), "{stderr}");
}

#[test]
fn what_is_missing_is_named() {
    let tree = Tree::new();
    let test = ["--test-id", "disagg-e2e-c"];
    let (code, _, stderr) = texts(&tree.run("same", "/nowhere", &test));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cannot run python3, which the launcher needs"), "{stderr}");
    tree.write(
        "src/jenkins/scripts/perf/submit.py",
        "import sys\nsys.exit(\"No module named 'yaml'\")",
    );
    let (code, _, stderr) = texts(&tree.run("same", PATH, &test));
    assert!(code == Some(2) && stderr.contains("help: pip install pyyaml"), "{stderr}");
    fs::remove_file(tree.0.path().join("src/jenkins/scripts/perf/submit.py")).unwrap();
    let (code, _, stderr) = texts(&tree.run("same", PATH, &test));
    assert!(code == Some(2) && stderr.contains("has no launcher"), "{stderr}");
}
