// SPDX-License-Identifier: Apache-2.0
//! The command as a person meets it: what it prints, what it refuses, how it exits.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use insta::assert_snapshot;
use serde_json::Value;
use slurm_bed::{Output, built, config, config_with, contains};
use slurm_sim::{Cluster, Env, Host, Release};

mod place;
use place::Place;

/// GEN_0 on two nodes of four GPUs, CTX_0 on a third.
fn three_nodes() -> String {
    config(4, (1, 4), (1, 8))
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
        assert_eq!(plan["suite"]["llmapi_launch"], true, "{name}");
        assert!(has_launcher(&plan, "GEN"), "{name}");
        assert!(plan["roles"].get("CTX").is_none() || has_launcher(&plan, "CTX"), "{name}");
        assert!(!has_launcher(&plan, "DISAGG_SERVER") && !has_launcher(&plan, "BENCHMARK"));
    }
    let plan = place.plan(&place.write("one_gpu.yaml", config(1, (0, 1), (1, 1))));
    assert_eq!(plan["suite"]["llmapi_launch"], false);
    assert!(!has_launcher(&plan, "GEN"));
    assert_eq!(plan["roles"]["GEN"]["argv"][0], "pytest");
}

#[test]
fn submit_says_whether_the_launcher_is_used_in_the_words_that_checks_look_for() {
    let place = Place::new();
    place.write("many.yaml", three_nodes());
    place.write("one.yaml", config(1, (0, 1), (1, 1)));
    let shown = |config: &str, locale: &str| {
        let of = |command: &[&str]| {
            let arguments = [command, &["--config-file", config, "--trtllm-dir", "/llm"]].concat();
            Output::of(place.command(&arguments).env("LANG", locale)).checked()
        };
        [of(&["plan"]), of(&["submit", "--dry-run", "--no-preflight"])]
    };
    for (config, english, chinese) in [
        (
            "many.yaml",
            "trtllm-llmapi-launch: used (multi-node or multi-GPU)",
            "✓ 将使用 trtllm-llmapi-launch (多节点/多GPU)",
        ),
        (
            "one.yaml",
            "trtllm-llmapi-launch: not used (one node, one GPU)",
            "✓ 单节点单GPU，不使用 trtllm-llmapi-launch",
        ),
    ] {
        for text in shown(config, "C") {
            contains(&text, english);
            assert!(text.is_ascii() || !text.contains(chinese), "{text}");
        }
        for text in shown(config, "zh_CN.UTF-8") {
            contains(&text, english);
            assert!(text.lines().any(|line| line == chinese), "{text}");
        }
    }
}

#[test]
fn a_dry_run_writes_every_file_and_names_the_command_that_would_submit_it() {
    let place = Place::new();
    place.write("c.yaml", config(4, (32, 1), (32, 1)));
    let text =
        place.dry_run("c.yaml", "a b", &["--account", "it's", "--", "--grace", "3"]).checked();
    contains(&text, "--placement packed would take 16 nodes instead of 64");
    let written: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("wrote ")).collect();
    let there = fs::read_dir(place.path("a b")).unwrap().count();
    assert_eq!(written.len(), there, "{text}");
    let native = fs::read_to_string(place.path("a b/slurm_launch_native.sh")).unwrap();
    contains(&native, "launch --workspace");
    contains(&native, " --grace 3\n");
    // The command line is one that a shell takes.
    let command = text.lines().find_map(|line| line.strip_prefix("would run: ")).unwrap();
    let script = format!("sbatch() {{ printf '%s\n' \"$@\"; }}; {command}");
    let words = Output::of(Command::new("bash").args(["-c", &script])).checked();
    let words: Vec<_> = words.lines().collect();
    assert_eq!(words.first(), Some(&"--parsable"));
    assert!(words.contains(&"--account=it's") && words.contains(&"--nodes=64"), "{words:?}");
    assert!(words.last().unwrap().ends_with("/a b/slurm_launch_native.sh"), "{words:?}");

    let more = ["--launcher", "bash", "--placement", "packed", "--json", "--force"];
    let json = place.dry_run("c.yaml", "a b", &more).checked();
    let json: Value = serde_json::from_str(&json).unwrap();
    contains(json["jobs"][0]["command"].as_str().unwrap(), "slurm_launch_generated.sh");
    let packed = place.ok(&["plan", "c.yaml", "--trtllm-dir", "/llm", "--placement", "packed"]);
    assert!(!packed.contains("instead of") && packed.contains("16 nodes"), "{packed}");
}

#[test]
fn plan_shows_sizes_places_and_the_nodes_of_each_instance() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    let plan = ["plan", "c.yaml", "--trtllm-dir", "/llm", "--workspace", "/w"];
    let shown = |arguments: &[&str]| place.ok(&[&plan[..], arguments].concat());
    assert_snapshot!("plan", place.shown(&shown(&["--nodes", "gb[01-04]"])));
    assert_snapshot!("plan_of_a_role", shown(&["--role", "GEN_0"]));
    let refused = |arguments: &[&str]| place.refused(&[&plan[..], arguments].concat());
    let refused = refused(&["--nodes", "gb[1-2]"]) + &refused(&["--role", "GEN_1"]);
    assert_snapshot!("plan_refused", refused);
}

#[test]
fn check_shows_several_errors_of_a_file_in_one_run_with_lines_and_carets() {
    let place = Place::new();
    let text = "hardware:\n  gpus_per_node: 010\n  num_ctx_servers: '2'\n  num_gen_server: 1\n";
    place.write("bad.yaml", text);
    assert_snapshot!("check", place.refused(&["check", "bad.yaml"]));
    let json = place.run(&["check", "bad.yaml", "--format", "json"]);
    let found: Vec<Value> = serde_json::from_str(&json.stdout).unwrap();
    assert!(found.iter().any(|d| d["line"] == 3 && d["column"] == 20), "{found:#?}");
}

#[test]
fn check_reads_settings_files_too() {
    let place = Place::new();
    place.write("site.yaml", "placement: tight\n");
    place.write("disagg.conf", "# limits\nmax_node=2\non_error=refuse\n");
    let both = ["check", "--site", "site.yaml", "--disagg-conf", "disagg.conf"];
    place.run(&both).expect(2).shows(&[
        "site.yaml:1:12: error: placement must be one of: exclusive, packed",
        "disagg.conf:2:1: error: unknown key 'max_node' (known: sizing",
        "2 files checked: 2 errors, 0 warnings",
    ]);
    place.write("disagg.conf", include_str!("../plugins/job_submit/disagg.conf.example"));
    place.write("site.yaml", include_str!("../docs/site.yaml.example"));
    contains(&place.ok(&both), "2 files checked: 0 errors, 0 warnings");
    for (order, is_said) in [("defaults,disagg,lua", false), ("lua, disagg # ours", true)] {
        place.write("slurm.conf", format!("ClusterName=c\nJobSubmitPlugins={order}\n"));
        let output = place.run(&both);
        output.expect(0);
        let said = "slurm.conf:2:1: note: JobSubmitPlugins=lua, disagg: job_submit.lua sees jobs";
        assert_eq!(output.stderr.contains(said), is_said, "{}", output.stderr);
    }
    place.run(&["check", "--disagg-conf", "none"]).expect(2).shows(&["none: cannot be opened"]);
}

#[test]
fn explain_names_the_rule_and_the_place_of_each_value() {
    let place = Place::new();
    place.write("c.yaml", config_with((4, (1, 4), (1, 8)), "A=1"));
    let explain = ["explain", "c.yaml", "--trtllm-dir", "/llm", "--workspace", "/w"];
    let all = place.ok(&explain);
    assert_snapshot!("explain", place.shown(&all));
    let named = |name| place.ok(&[&explain[..], &["--name", name]].concat());
    assert_eq!(named("A").lines().count(), 4);
    let unknown = place.refused(&[&explain[..], &["--name", "LLM_MODEL_ROOT"]].concat());
    contains(&unknown, "nearest names: LLM_MODELS_ROOT");
    // Every environment variable, argument and flag of the plan has a source.
    let json = place.ok(&[&explain[..], &["--format", "json"]].concat());
    let json: Vec<Value> = serde_json::from_str(&json).unwrap();
    assert!(json.len() > 80);
    assert!(json.iter().all(|entry| !entry["source"].as_str().unwrap().is_empty()), "{json:#?}");
}

#[test]
fn help_of_every_subcommand_and_the_generated_pages() {
    let place = Place::new();
    let help = place.ok(&["--help"]);
    place.ok(&["man", "pages"]);
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names: Vec<_> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 10, "{names:?}");
    let mut pages = help.clone();
    for name in names.iter().filter(|name| **name != "help") {
        pages += &format!("\n==== {name}\n\n{}", place.ok(&[name, "--help"]));
        assert!(place.path(&format!("pages/man1/slurm-disagg-{name}.1")).exists(), "{name}");
    }
    assert_snapshot!("help", pages);
    // What people read of the other pages, wherever man is not.
    for (page, parts) in [
        ("man5/disagg.conf.5", ["on_error=ignore|refuse", "partition_max_nodes=P:N,"]),
        ("man5/slurm-disagg-site.yaml.5", ["container_mounts", "Directory of the models [env"]),
        ("man8/slurm-disagg-plugins.8", ["optional /usr/lib/x86_64-linux-gnu/slurm-wlm", "NEVER"]),
    ] {
        let page = fs::read_to_string(place.path("pages").join(page)).unwrap();
        let plain = page.replace("\\-", "-").replace("\\fB", "").replace("\\fR", "").to_string();
        for part in parts {
            assert!(plain.to_lowercase().contains(&part.to_lowercase()), "{part}\n{plain}");
        }
    }
    contains(&place.ok(&["completions", "bash"]), "--trtllm-dir");
}

#[test]
fn help_of_the_plugin_lists_the_steps() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    place.write("site.yaml", "trtllm_dir: /llm\nmodels_dir: /models\n");
    let site = place.path("site.yaml").display().to_string();
    let _ = Command::new("chmod").args(["-R", "a+rX"]).arg(place.root.path()).status();
    let host = Host::find().unwrap_or_else(|e| panic!("{e}; run `cargo build -p slurm-sim`"));
    let plugin = built("spank_disagg.so");
    fs::copy(plugin, place.path("spank_disagg.so")).unwrap();
    let cluster = Cluster::new(Release::V22_05, host, 3)
        .plugstack(format!("required {} site={site}\n", place.path("spank_disagg.so").display()))
        .cwd(place.root.path());
    let environment: Env = [("PATH", "/usr/bin:/bin")].into_iter().collect();
    let arguments = ["--disagg-config=c.yaml", "--disagg-role=help", "true"];
    let run = cluster.srun(&arguments, &environment).unwrap();
    assert_snapshot!("disagg_role_help", run.client.stdout);
}

#[test]
fn the_launch_script_of_a_small_plan() {
    let place = Place::new();
    place.write("c.yaml", config(4, (1, 2), (1, 4)));
    place.dry_run("c.yaml", "w", &[]).ok();
    let script = fs::read_to_string(place.path("w/slurm_launch_generated.sh")).unwrap();
    assert_snapshot!("launch_script", place.shown(&script));
}

#[test]
fn a_configuration_that_is_not_found_lists_what_was_tried() {
    let place = Place::new();
    let plan = |config| place.refused(&["plan", config, "--trtllm-dir", "/llm"]);
    assert_snapshot!("not_found", plan("nowhere") + &plan("./nowhere.yaml"));
}

#[test]
fn a_workspace_of_another_test_is_left_alone_without_force() {
    let place = Place::new();
    place.write("a.yaml", three_nodes());
    place.write("b.yaml", three_nodes());
    let submit = |config, more: &[&str]| place.dry_run(config, "w", more);
    submit("a.yaml", &[]).ok();
    submit("a.yaml", &[]).ok();
    let before = fs::read_to_string(place.path("w/plan.json")).unwrap();
    submit("b.yaml", &[]).expect(2).shows(&["the files of another test, disagg_upload-a"]);
    assert_eq!(fs::read_to_string(place.path("w/plan.json")).unwrap(), before);
    submit("b.yaml", &["--force"]).ok();
    fs::remove_file(place.path("w/plan.json")).unwrap();
    // Files that nobody vouches for.
    submit("b.yaml", &[]).expect(2);
    let left: Vec<_> =
        fs::read_dir(place.path("w")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with('.')), "{left:?}");
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
fn the_files_of_a_submission_have_the_known_names_and_numbers() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    place.dry_run("c.yaml", "w", &["--container-image", "img"]).ok();
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
    place.dry_run("c.yaml", "w", &[]).ok();
    assert!(!place.path("w/slurm_srun_args.txt").exists(), "no container, no arguments");
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
        contains(&message, expected);
    }
}

#[test]
fn a_fifo_in_the_place_of_a_record_is_not_waited_for() {
    let place = Place::new();
    let fifo = Command::new("mkfifo").arg(place.path("submission.json")).status().unwrap();
    assert!(fifo.success());
    for command in ["watch", "cancel"] {
        let output = place.run(&[command, "."]);
        assert_ne!(output.code, Some(0), "{command}: {}", output.stdout);
        contains(&output.stderr, "submission.json: is not a regular file");
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
        contains(&message, "n.yaml:4:31: error: worker_config.gen.tensor_parallel_size");
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
    place.dry_run(&file, "w", &[]).ok();
    let script = fs::read_to_string(place.path("w/slurm_launch_generated.sh")).unwrap();
    assert!(script.contains("\nstart CTX CTX_2047 2047 4095 1 "));
}

#[test]
fn line_ends_and_control_characters_never_reach_a_script() {
    let place = Place::new();
    place.write("c.yaml", three_nodes());
    place.write("new\nline.yaml", three_nodes());
    let base = ["submit", "--dry-run", "--no-preflight", "--trtllm-dir", "/llm"];
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
        (&["--placement=tight"], "[possible values: exclusive, packed, compact]"),
        (&["--rules=old"], "[possible values: classic, unified, current]"),
        (&["--exclusive=maybe"], "[possible values: true, false]"),
        (&["--sbatch-arg", "-N2"], "error: --sbatch-arg: -N2 (--nodes) contradicts the plan"),
        (&["--sbatch-arg=job.sh"], "error: --sbatch-arg: \"job.sh\" is not an option"),
    ] {
        let message = place.refused(&[&plan[..], arguments].concat());
        contains(&message, part);
    }
    let message = place.refused(&["diff", "c.yaml", "--rules", "classic"]);
    contains(&message, "--rules needs both A and B");
}

#[test]
fn what_is_a_path_is_the_same_for_every_subcommand() {
    let place = Place::new();
    let json = |tp: u32| {
        format!(
            "{{\"hardware\": {{\"gpus_per_node\": 4, \"num_ctx_servers\": 1, \"num_gen_servers\": 1}},
              \"worker_config\": {{\"gen\": {{\"tensor_parallel_size\": {tp}}},
                                \"ctx\": {{\"tensor_parallel_size\": 4}}}}}}"
        )
    };
    place.write("a.json", json(8));
    place.write("b.json", json(4));
    place.write("c.yml", three_nodes());
    for file in ["a.json", "./a.json", "c.yml"] {
        contains(&place.ok(&["plan", file, "--trtllm-dir", "/llm"]), "3 nodes × 4 GPUs");
        contains(&place.ok(&["check", file]), "  3 nodes, 12 GPUs\n");
    }
    let diff = |one, two| place.run(&["diff", one, two, "--trtllm-dir", "/llm"]);
    diff("a.json", "a.json").expect(0);
    diff("a.json", "b.json").expect(1).shows(&["gpus_per_gen_server: 8 → 4"]);
    let rest = ["--trtllm-dir", "/llm", "--workspace", "w"];
    place.ok(&[&["submit", "a.json", "--dry-run", "--no-preflight"], &rest[..]].concat());
    diff("a.json", "w/plan.json").expect(1).shows(&["report.csv"]);
    diff("a.json", "none.json").expect(2);
}

#[test]
fn a_reader_that_has_gone_changes_no_exit_status() {
    let place = Place::new();
    for (arguments, expected) in [(&["plan", "./no.yaml"][..], 2), (&["watch", "1"], 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = place.command(arguments).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(expected), "{arguments:?}");
    }
}

#[test]
fn shells_complete_subcommands_options_closed_values_and_files() {
    let place = Place::new();
    place.write("a b.yaml", "");
    fs::create_dir(place.path("deep")).unwrap();
    place.write("deep/d.yaml", "");
    // What the shell made of a line is what the command gets.
    fs::create_dir(place.path("bin")).unwrap();
    place.write("bin/slurm-disagg", "#!/bin/bash\nprintf '@%s' \"$@\"; echo @\n");
    fs::set_permissions(place.path("bin/slurm-disagg"), fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        ("pl\t--pla\tp\ta\t", "@plan@--placement@packed@a b.yaml@"),
        ("check --format=j\tde\td\t", "@check@--format=json@deep/d.yaml@"),
        ("explain --rules cu\t--gpu-request=g\t", "@explain@--rules@current@--gpu-request=gres@"),
        ("submit --workspace d\t --laun\tb\t", "@submit@--workspace@deep/@--launcher@bash@"),
        ("report d\t --fo\tj\t", "@report@deep/@--format@json@"),
        ("compare d\t --format=m\t", "@compare@deep/@--format=markdown@"),
        ("completions z\t", "@completions@zsh@"),
        ("help subm\t", "@help@submit@"),
        // Not a file, and no subcommand of people.
        ("plan --acc\ta\t", "@plan@--account@a@"),
        ("pd\t", "@pd@"),
    ];
    let typed: String = cases.iter().map(|(typed, _)| format!("slurm-disagg {typed}\n")).collect();
    for (shell, start, file, ready) in [
        ("bash", "bash --norc --noprofile -i", "completions", "source completions"),
        (
            "zsh",
            "zsh -f -i",
            "_slurm-disagg",
            "fpath=($PWD $fpath); autoload -U compinit; compinit -u",
        ),
    ] {
        place.write(file, place.ok(&["completions", shell]));
        place.write("keys", format!("PATH=$PWD/bin:$PATH; {ready}\n{typed}exit\n"));
        // script(1) sometimes does not end.
        let mut terminal = Command::new("/usr/bin/python3");
        let spawn = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))";
        terminal.args(["-c", spawn]).args(start.split(' ')).current_dir(place.root.path());
        terminal.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", place.root.path());
        terminal.stdin(fs::File::open(place.path("keys")).unwrap());
        let shown = Output::of(&mut terminal).checked();
        // zsh writes `--option=value`, and a folder without its slash.
        let plain = |words: &str| words.replace('=', "@").replace("/@", "@");
        let seen: Vec<_> = shown
            .lines()
            .filter_map(|line| line.find("@").map(|at| plain(line[at..].trim_end())))
            .filter(|line| line.ends_with('@'))
            .collect();
        assert_eq!(seen, cases.map(|(_, expected)| plain(expected)), "{shell}: {shown}");
    }
    place.write("completions.fish", place.ok(&["completions", "fish"]));
    for (typed, expected) in [
        ("submit --launcher ", "bash native"),
        ("plan --placement p", "packed"),
        ("explain --rules=", "--rules=classic --rules=current --rules=unified"),
        ("completions ", "bash elvish fish powershell zsh"),
        ("check de", "deep/"),
        ("help subm", "submit"),
        ("plan --account a", ""),
        ("pd", ""),
    ] {
        let mut fish = Command::new("fish");
        let script = format!("source completions.fish; complete -C 'slurm-disagg {typed}'");
        fish.args(["--no-config", "-c", &script]).current_dir(place.root.path());
        let offered = Output::of(fish.env_clear().env("HOME", place.root.path())).checked();
        let offered: Vec<_> = offered.lines().filter_map(|line| line.split('\t').next()).collect();
        assert_eq!(offered.join(" "), expected, "{typed}");
    }
}
