// SPDX-License-Identifier: Apache-2.0
//! The command as a person meets it: what it prints, what it refuses, how it exits.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        name.to_owned()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"));
        command.args(arguments).env_clear().env("CLUSTER_LLM_DATA", "/lustre/data");
        command.current_dir(self.root.path());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Standard output of a run that must succeed.
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a run that must refuse its input and write nothing.
    fn refused(&self, arguments: &[&str]) -> String {
        let before = self.entries();
        let output = self.run(arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert_eq!(self.entries(), before, "{arguments:?} wrote something");
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    fn plan(&self, config: &str) -> Value {
        let text = self.ok(&["plan", config, "--trtllm-dir", "/llm", "--format", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn config(gpus_per_node: u32, ctx: (u32, u32), gen_: (u32, u32)) -> String {
    format!(
        "benchmark: {{mode: e2e, concurrency_list: '16'}}\n\
         hardware: {{gpus_per_node: {gpus_per_node}, num_ctx_servers: {}, num_gen_servers: {}}}\n\
         worker_config:\n  gen: {{tensor_parallel_size: {}}}\n  ctx: {{tensor_parallel_size: {}}}\n",
        ctx.0, gen_.0, gen_.1, ctx.1
    )
}

const THREE_NODES: (u32, (u32, u32), (u32, u32)) = (4, (1, 4), (1, 8));

fn three_nodes() -> String {
    config(THREE_NODES.0, THREE_NODES.1, THREE_NODES.2)
}

fn has_launcher(plan: &Value, role: &str) -> bool {
    plan["roles"][role]["argv"][0].as_str().unwrap().ends_with("/trtllm-llmapi-launch")
}

#[test]
fn ctx_and_gen_run_under_the_launcher_on_several_nodes_or_gpus_and_the_others_never() {
    let place = Place::new();
    for (name, text) in [
        ("several_nodes.yaml", three_nodes()),
        ("one_node_of_4_gpus.yaml", config(4, (0, 1), (1, 4))),
        ("two_nodes_of_1_gpu.yaml", config(1, (1, 1), (1, 1))),
    ] {
        let plan = place.plan(&place.write(name, text));
        assert_eq!(plan["llmapi_launch"], true, "{name}");
        assert!(has_launcher(&plan, "GEN"), "{name}");
        assert!(plan["roles"].get("CTX").is_none() || has_launcher(&plan, "CTX"), "{name}");
        assert!(!has_launcher(&plan, "DISAGG_SERVER") && !has_launcher(&plan, "BENCHMARK"));
    }
    let plan = place.plan(&place.write("one_gpu.yaml", config(1, (0, 1), (1, 1))));
    assert_eq!(plan["llmapi_launch"], false);
    assert!(!has_launcher(&plan, "GEN"));
    assert_eq!(plan["roles"]["GEN"]["argv"][0], "pytest");
}

#[test]
fn submit_says_whether_the_launcher_is_used_in_the_words_that_checks_look_for() {
    let place = Place::new();
    place.write("many.yaml", three_nodes());
    place.write("one.yaml", config(1, (0, 1), (1, 1)));
    let submit = |config: &str, locale: &str| {
        let arguments = ["submit", "--dry-run", "--config-file", config, "--trtllm-dir", "/llm"];
        let mut command = place.command(&arguments);
        let output = command.env("LANG", locale).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(
        submit("many.yaml", "C").contains("trtllm-llmapi-launch: used (multi-node or multi-GPU)")
    );
    assert!(submit("one.yaml", "C").contains("trtllm-llmapi-launch: not used (one node, one GPU)"));
    let chinese = submit("many.yaml", "zh_CN.UTF-8");
    assert!(chinese.contains("✓ 将使用 trtllm-llmapi-launch (多节点/多GPU)"), "{chinese}");
    let chinese = submit("one.yaml", "zh_CN.UTF-8");
    assert!(chinese.contains("✓ 单节点单GPU，不使用 trtllm-llmapi-launch"), "{chinese}");
}

#[test]
fn the_table_shows_sizes_places_and_the_nodes_of_each_instance() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    let table = place.ok(&["plan", "c.yaml", "--trtllm-dir", "/llm", "--nodes", "gb[01-04]"]);
    for line in [
        "perf/test_perf_sanity.py::test_e2e[disagg_upload-c]",
        "  job            3 nodes × 4 GPUs, 12 tasks, time limit 04:00:00",
        "  GEN                  1      2     8      8         4  nodes 0-1",
        "  GEN_0          gb[01-02]  0-3",
        "  CTX_0          gb03       0-3",
        "  BENCHMARK      gb01",
    ] {
        assert!(table.lines().any(|shown| shown == line), "{line}\n---\n{table}");
    }
    let message = place.refused(&["plan", "c.yaml", "--trtllm-dir", "/llm", "--nodes", "gb[1-2]"]);
    assert!(message.contains("--nodes names 2 nodes; the plan takes 3"), "{message}");
}

#[test]
fn one_role_is_shown_with_its_own_files_and_an_unknown_one_lists_the_roles() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    let arguments = ["plan", "c.yaml", "--trtllm-dir", "/llm", "--workspace", "/w"];
    let shown = place.ok(&[&arguments[..], &["--role", "GEN_0", "--format", "json"]].concat());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["env"]["DISAGG_SERVING_TYPE"], "GEN_0");
    let argv = shown["argv"].as_array().unwrap();
    assert!(argv.contains(&Value::from("--junit-xml=/w/results-GEN_0.xml")), "{argv:?}");
    let message = place.refused(&[&arguments[..], &["--role", "GEN_1"]].concat());
    assert!(message.contains("GEN_0, CTX_0, DISAGG_SERVER, BENCHMARK"), "{message}");
}

#[test]
fn the_env_format_is_sourced_by_bash() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    let lines = place.ok(&["plan", "c.yaml", "--trtllm-dir", "/llm", "--format", "env"]);
    let script = format!("{lines}echo $totalNodes $DISAGG_NTASKS $DISAGG_LLMAPI_LAUNCH");
    let output = Command::new("bash").args(["-euc", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3 12 1\n");
}

#[test]
fn several_errors_of_a_file_are_shown_in_one_run_with_lines_and_carets() {
    let place = Place::new();
    let text = "hardware:\n  gpus_per_node: 010\n  num_ctx_servers: '2'\n  num_gen_server: 1\n";
    place.write("bad.yaml", text);
    let message = place.refused(&["check", "bad.yaml"]);
    for part in [
        "bad.yaml:2:18: error: hardware.gpus_per_node is the number 8 to PyYAML (YAML 1.1) but the number 10 to YAML 1.2",
        " 2 |   gpus_per_node: 010\n   |                  ^^^",
        "bad.yaml:3:20: error: hardware.num_ctx_servers is text, not a number",
        "help: write 2 without quotes",
        "bad.yaml:4:3: warning: unknown key hardware.num_gen_server",
        "help: did you mean `num_gen_servers`?",
        "error: hardware.num_gen_servers is missing",
    ] {
        assert!(message.contains(part), "{part}\n---\n{message}");
    }
    let json = place.run(&["check", "bad.yaml", "--format", "json"]);
    let found: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(found.as_array().unwrap().iter().any(|d| d["line"] == 3 && d["column"] == 20));
}

#[test]
fn explain_names_the_rule_and_the_place_of_each_value() {
    let place = Place::new();
    place.write("c.yaml", three_nodes() + "environment: {worker_env_var: 'A=1'}\n");
    let arguments = ["explain", "c.yaml", "--trtllm-dir", "/llm"];
    let shown = place.ok(&[&arguments[..], &["--name", "A"]].concat());
    assert_eq!(
        shown,
        "GEN env A=1\n    classic rules: GEN; from environment.worker_env_var (c.yaml:6:31)\n\
         CTX env A=1\n    classic rules: CTX; from environment.worker_env_var (c.yaml:6:31)\n"
    );
    let models = place.ok(&[&arguments[..], &["--name", "LLM_MODELS_ROOT"]].concat());
    assert!(models.contains("from environment variable CLUSTER_LLM_DATA"), "{models}");
    let message = place.refused(&[&arguments[..], &["--name", "LLM_MODEL_ROOT"]].concat());
    assert!(message.contains("nearest names: LLM_MODELS_ROOT"), "{message}");
    // Every environment variable, argument and flag of the plan has a source.
    let all = place.ok(&[&arguments[..], &["--format", "json"]].concat());
    let all: Vec<Value> = serde_json::from_str(&all).unwrap();
    assert!(all.len() > 80);
    assert!(all.iter().all(|entry| !entry["source"].as_str().unwrap().is_empty()), "{all:#?}");
}

#[test]
fn a_workspace_of_another_test_is_left_alone_without_force() {
    let place = Place::new();
    place.write("a.yaml", three_nodes());
    place.write("b.yaml", three_nodes());
    let submit = |config, more: &[&str]| {
        let arguments = ["submit", config, "--dry-run", "--trtllm-dir", "/llm", "--workspace", "w"];
        place.run(&[&arguments[..], more].concat())
    };
    assert!(submit("a.yaml", &[]).status.success());
    assert!(submit("a.yaml", &[]).status.success(), "the same test again");
    let before = fs::read_to_string(place.path("w/plan.json")).unwrap();
    let refused = submit("b.yaml", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("the files of another test, disagg_upload-a"));
    assert_eq!(fs::read_to_string(place.path("w/plan.json")).unwrap(), before);
    assert!(submit("b.yaml", &["--force"]).status.success());
    fs::remove_file(place.path("w/plan.json")).unwrap();
    assert_eq!(submit("b.yaml", &[]).status.code(), Some(2), "files that nobody vouches for");
    let left: Vec<_> =
        fs::read_dir(place.path("w")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
}

#[test]
fn the_files_of_a_submission_have_the_known_names_and_numbers() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    let arguments = ["submit", "c.yaml", "--dry-run", "--trtllm-dir", "/llm", "--workspace", "w"];
    place.ok(&[&arguments[..], &["--container-image", "img"]].concat());
    let read = |name: &str| fs::read_to_string(place.path("w").join(name)).unwrap();
    assert_eq!(
        read("test_list_disagg.txt"),
        "perf/test_perf_sanity.py::test_e2e[disagg_upload-c]\n"
    );
    let info: Value = serde_json::from_str(&read("node_info.json")).unwrap();
    let expected = serde_json::json!({
        "num_ctx_servers": 1, "num_gen_servers": 1, "ctx_world_size": 4, "gen_world_size": 8,
        "ctx_nodes": 1, "gen_nodes": 2, "total_nodes": 3, "total_gpus": 12, "gpus_per_node": 4
    });
    assert_eq!(info, expected);
    assert!(
        read("slurm_srun_args.txt")
            .starts_with("--container-name=disagg_test_${SLURM_JOB_ID}_${SLURM_RESTART_COUNT}\n")
    );
    place.ok(&arguments);
    assert!(!place.path("w/slurm_srun_args.txt").exists(), "no container, no arguments");
}

#[test]
fn a_configuration_that_is_not_found_lists_what_was_tried() {
    let place = Place::new();
    let message = place.refused(&["plan", "nowhere", "--trtllm-dir", "/llm"]);
    let tried = message.lines().filter(|line| line.starts_with("    /llm/tests/"));
    assert_eq!(tried.count(), 8, "{message}");
    let message = place.refused(&["plan", "./nowhere.yaml", "--trtllm-dir", "/llm"]);
    assert!(message.contains("./nowhere.yaml: cannot be opened: No such file"), "{message}");
}

#[test]
fn hostile_files_are_refused_quickly_and_nothing_is_written() {
    let place = Place::new();
    let big = fs::File::create(place.path("big.yaml")).unwrap();
    big.set_len(100 << 20).unwrap();
    let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..20 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(",");
        bomb.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    place.write("bomb.yaml", bomb);
    place.write("deep.yaml", "[".repeat(1 << 20));
    place.write("nul.yaml", "hardware: \0\n");
    place.write("latin1.yaml", b"name: \xe9\n");
    place.write("list.yaml", "- a\n- b\n");
    fs::create_dir(place.path("directory.yaml")).unwrap();
    let fifo = Command::new("mkfifo").arg(place.path("fifo.yaml")).status().unwrap();
    assert!(fifo.success());
    for (file, expected) in [
        ("big.yaml", "is 104857600 bytes long; at most 4194304 are read"),
        ("bomb.yaml", "aliases repeat more than"),
        ("deep.yaml", "deep.yaml:1:"),
        ("nul.yaml", "nul.yaml:1:11: error: a NUL byte"),
        ("latin1.yaml", "latin1.yaml:1:7: error: is not UTF-8 text"),
        ("list.yaml", "must be a mapping of sections"),
        ("directory.yaml", "is a directory"),
        ("fifo.yaml", "is not a regular file"),
    ] {
        let message = place.refused(&["plan", file, "--trtllm-dir", "/llm"]);
        assert!(message.contains(expected), "{file}: {message}");
    }
}

#[test]
fn hostile_numbers_are_refused_at_their_place() {
    let place = Place::new();
    for value in ["0", "-1", "1000000000000", "1.5", "'8'", "1e3", "[8]", "{a: 8}", "eight", "null"]
    {
        let text = three_nodes()
            .replace("tensor_parallel_size: 8", &format!("tensor_parallel_size: {value}"));
        let file = place.write("n.yaml", text);
        let message = place.refused(&["plan", &file, "--trtllm-dir", "/llm"]);
        assert!(
            message.contains("n.yaml:4:31: error: worker_config.gen.tensor_parallel_size"),
            "{value}: {message}"
        );
    }
    let file = place.write("n.yaml", config(8, (1_000_000, 1_000_000), (1_000_000, 1_000_000)));
    assert!(place.refused(&["plan", &file, "--trtllm-dir", "/llm"]).contains("at most 1000000"));
}

#[test]
fn four_thousand_servers_are_planned_and_written() {
    let place = Place::new();
    let file = place.write("many.yaml", config(4, (2048, 4), (2048, 4)));
    let plan = place.plan(&file);
    assert_eq!(plan["layout"]["total_nodes"], 4096);
    place.ok(&["submit", &file, "--dry-run", "--trtllm-dir", "/llm", "--workspace", "w"]);
    let script = fs::read_to_string(place.path("w/slurm_launch_generated.sh")).unwrap();
    assert!(script.contains("\nstart CTX CTX_2047 2047 4095 1 "));
}

#[test]
fn line_ends_and_control_characters_never_reach_a_script() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    place.write("new\nline.yaml", three_nodes());
    let base = ["submit", "--dry-run", "--trtllm-dir", "/llm"];
    for arguments in [
        ["./new\nline.yaml", "--account", "a"],
        ["c.yaml", "--account", "a\nb"],
        ["c.yaml", "--partition", "a\u{1b}b"],
        ["c.yaml", "--workspace", "w\nx"],
        ["c.yaml", "--container-image", "i\r"],
        ["c.yaml", "--job-name", "\u{7f}"],
        ["c.yaml", "--account", ""],
        ["c.yaml", "--qos", ""],
        ["c.yaml", "--sbatch-arg", "--comment=a\nb"],
    ] {
        place.refused(&[&base[..], &arguments].concat());
    }
}

#[test]
fn options_of_settings_are_read_and_refused_as_the_table_says() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    let plan = ["plan", "c.yaml", "--trtllm-dir", "/llm", "--format", "json"];
    let shown =
        place.ok(&[&plan[..], &["--time", "7", "--placement=packed", "--exclusive"]].concat());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["job"]["time"], &shown["placement"]), (&"7".into(), &"packed".into()));
    let more = ["--exclusive=false", "--sbatch-arg", "--mail-type=END", "--sbatch-arg=-H"];
    place.ok(&[&plan[..], &more].concat());
    for (arguments, part) in [
        (&["--account="][..], "error: --account must not be empty"),
        (&["--time", "soon"], "error: --time: "),
        (&["--mem=lots"], "error: --mem: invalid memory size \"lots\": use 64G, 1500M or 0 (all)"),
        (&["--placement=tight"], "[possible values: exclusive, packed]"),
        (&["--rules=old"], "[possible values: classic, unified, current]"),
        (&["--exclusive=maybe"], "[possible values: true, false]"),
        (&["--sbatch-arg", "-N2"], "error: --sbatch-arg: -N2 (--nodes) contradicts the plan"),
        (&["--sbatch-arg=job.sh"], "error: --sbatch-arg: \"job.sh\" is not an option"),
    ] {
        let message = place.refused(&[&plan[..], arguments].concat());
        assert!(message.contains(part), "{arguments:?}: {message}");
    }
    let message = place.refused(&["diff", "c.yaml", "--rules", "classic"]);
    assert!(message.contains("--rules needs both A and B"), "{message}");
}

#[test]
fn help_has_examples_and_the_generated_pages_name_every_subcommand() {
    let place = Place::new();
    for command in ["plan", "check", "explain", "submit"] {
        assert!(place.ok(&[command, "--help"]).contains("Example"), "{command}");
    }
    place.ok(&["man", "pages"]);
    for page in ["slurm-disagg.1", "slurm-disagg-plan.1", "slurm-disagg-submit.1"] {
        assert!(Path::new(&place.path("pages").join(page)).exists(), "{page}");
    }
    assert!(place.ok(&["completions", "bash"]).contains("--trtllm-dir"));
}
