// SPDX-License-Identifier: Apache-2.0
//! The launch script and `slurm-disagg launch` with stand-ins for Slurm's commands: how steps are
//! started and watched, and what wrong input leads to. `same_step_everywhere` shows what ranks get.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod step;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use disagg::run::result::{RunResult, StepResult, VerdictKind};
use slurm_bed::{Output, config_with, contains, executable};
use step::{DISAGG, NASTY, Tree};

type Launch = fn(&Tree) -> Output;

const WAYS: [(&str, Launch); 2] =
    [("launch script", Tree::launch_script), ("launch", Tree::launch)];

/// A generation server over two nodes and two context servers of half a node.
fn spread(worker_env: &str) -> String {
    config_with((4, (2, 2), (1, 6)), worker_env)
}

/// Two servers on a node each.
fn small(worker_env: &str) -> String {
    config_with((4, (1, 2), (1, 4)), worker_env)
}

fn assert_passed(tree: &Tree, ended: &Output) {
    ended.ok();
    let result = RunResult::read(&tree.workspace()).unwrap();
    assert_eq!(result.verdict.kind, VerdictKind::Passed, "{}", ended.stderr);
}

#[test]
fn steps_are_sized_and_pinned_as_planned_and_share_nodes_only_where_packed() {
    for (way, launch) in WAYS {
        let tree = Tree::new();
        tree.plan(&spread("A=1"), &["--placement", "packed", "--container-image", "image"]);
        launch(&tree).ok();
        let has = |step: &str, option: &str| {
            tree.notes(step, "srun").iter().any(|o| o.replace("n[1-2]", "n1,n2") == option)
        };
        // GEN_0 spans n1 and half of n2; both CTX are smaller than a node and share n3.
        for (step, options) in [
            ("GEN_0", "--nodes=2 --ntasks=6 --nodelist=n1,n2 --distribution=plane=4 --mpi=pmix"),
            ("CTX_1", "--overlap --nodelist=n3"),
            ("BENCHMARK", "--overlap --kill-on-bad-exit=1 --nodelist=n1 --mpi=none"),
            ("BENCHMARK", "--container-image=image"),
            ("BENCHMARK", "--container-name=disagg_test_7_"),
        ] {
            for option in options.split(' ') {
                let words = tree.notes(step, "srun");
                assert!(has(step, option), "{way}: {step}: {option} is not in {words:?}");
            }
        }
        assert!(!has("GEN_0", "--overlap"), "{way}");
    }
}

#[test]
fn the_test_finds_logs_and_marks_of_this_run_alone_in_its_own_directory() {
    for (way, launch) in WAYS {
        let tree = Tree::new();
        let id = format!("disagg-gen_only-C {NASTY}");
        let arguments = ["--test-id", &id, "--container-image", "image"];
        let plan = tree.plan(&small("A=1"), &arguments);
        let output = tree.workspace().join(&id);
        assert_eq!(Path::new(plan.output_dir()), output);
        fs::create_dir_all(&output).unwrap();
        for stale in ["benchmark_status.0.txt", "gen_server_0.done", "gen_server_0.log"] {
            fs::write(output.join(stale), "stale").unwrap();
        }
        launch(&tree).ok();
        assert!(!output.join("benchmark_status.0.txt").exists(), "{way}");
        for file in [
            "gen_server_0.done",
            "gen_server_0.log",
            "ctx_server_0.log",
            "disagg_server.log",
            "cache_transceiver_precheck/logs/gen_0.log",
            "cache_transceiver_precheck/logs/ctx_0.log",
        ] {
            let text = fs::read_to_string(output.join(file)).unwrap();
            // A log says where its ranks run.
            let is_of_this_run = text.lines().all(|line| line.starts_with("slurm-disagg: rank="));
            assert!(is_of_this_run, "{way}: {file}: {text}");
        }
        let precheck = tree.notes("GEN_PRECHECK_0.0", "argv");
        assert_eq!(precheck[precheck.len() - 2..], ["--server-idx", "0"]);
        let token = tree.first_rank("BENCHMARK").remove("TRTLLM_PERF_RUN_TOKEN").unwrap();
        assert_eq!(token, tree.first_rank("GEN_0")["TRTLLM_PERF_RUN_TOKEN"], "{way}");
        assert!(token.starts_with("7.0."), "{way}: {token}");
        let words = tree.notes("GEN_0", "srun");
        let is_token = |word: &String| {
            word.starts_with("--container-env=") && word.ends_with(",TRTLLM_PERF_RUN_TOKEN")
        };
        assert!(words.iter().any(is_token), "{way}: {words:?}");
    }
}

/// The files below a directory that others may read, as text.
fn readable_by_others(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            text += &readable_by_others(&path);
        } else if metadata.permissions().mode() & 0o077 != 0 && path.is_file() {
            text += &String::from_utf8_lossy(&fs::read(&path).unwrap());
        }
    }
    text
}

#[test]
fn a_secret_is_in_no_log_no_argument_and_no_file_that_others_may_read() {
    for (way, launch) in WAYS {
        let tree = Tree::new();
        fs::write(tree.path("site.yaml"), "secrets: [LOGIN]\n").unwrap();
        let env =
            "HF_TOKEN=hf_geheim HUGGING_FACE_HUB_TOKEN=$HF_TOKEN LOGIN=hf_geheim URL=u:$LOGIN@h";
        let written = tree.submit(&small(env), &["--site", "site.yaml"]);
        let ended = launch(&tree);
        ended.ok();
        let environment = tree.first_rank("GEN_0");
        assert_eq!(environment["HUGGING_FACE_HUB_TOKEN"], "hf_geheim");
        assert_eq!(environment["URL"], "u:hf_geheim@h");
        let mut shown = [ended.stdout, ended.stderr, written.stdout, written.stderr].concat();
        shown += &tree.notes("GEN_0", "cmdline").concat();
        shown += &readable_by_others(&tree.workspace());
        assert!(!shown.contains("geheim"), "{way}: {shown}");
    }
}

#[test]
fn no_server_starts_unless_every_precheck_has_passed() {
    for (way, program) in [("launch script", "bash"), ("launch", DISAGG)] {
        for status in [0, 3] {
            let tree = Tree::new();
            let id = format!("disagg-e2e-C {NASTY}");
            tree.plan(&small("A=1"), &["--test-id", &id]);
            let mut launch = tree.in_job(program);
            launch.env("PRECHECK_STATUS", status.to_string());
            match way {
                "launch" => launch.arg("launch").arg("--workspace").arg(tree.workspace()),
                _ => launch.arg(tree.workspace().join("slurm_launch_generated.sh")),
            };
            let ended = Output::of(&mut launch);
            ended.expect(i32::from(status != 0));
            // A check that fails may end the other before it has started.
            assert!(tree.path("notes/CTX_PRECHECK_0.0.argv").exists());
            for server in ["GEN_0", "BENCHMARK"] {
                let started = tree.path(&format!("notes/{server}.0.argv")).exists();
                assert_eq!(started, status == 0, "{way}: {server}");
            }
            tree.assert_nothing_was_run_or_told();
            if way == "launch" {
                let result = RunResult::read(&tree.workspace()).unwrap();
                let kind =
                    [VerdictKind::Passed, VerdictKind::PrecheckFailed][usize::from(status > 0)];
                assert_eq!(result.verdict.kind, kind, "{}", ended.stderr);
                let xml = fs::read_to_string(tree.workspace().join("results.xml")).unwrap();
                let entry = r#"<testcase classname="slurm-disagg" name="CTX_PRECHECK_0">"#;
                contains(&xml, entry);
                assert_eq!(xml.contains(&format!("{entry}<failure ")), status != 0, "{xml}");
                let (checks, servers) = result.steps.split_at(2);
                let checks_end = checks.iter().map(|step| step.ended.unwrap()).max();
                let in_order = |step: &StepResult| match status {
                    0 => step.started >= checks_end,
                    _ => step.started.is_none(),
                };
                assert!(servers.iter().all(in_order), "{result:#?}");
            } else if status != 0 {
                let report = "disagg_workspace/results-ct-precheck.xml";
                let report = fs::read_to_string(tree.workspace().join(report)).unwrap();
                ["_PRECHECK_", "ended with status 3"]
                    .iter()
                    .for_each(|part| contains(&report, part));
            }
        }
    }
}

#[test]
fn a_failed_command_of_the_script_is_named_with_its_file_line_and_status() {
    let tree = Tree::new();
    tree.plan(&small("A=1"), &["--install-sh", "install.sh"]);
    executable(&tree.path("install.sh"), "exit 9\n");
    let ended = tree.launch_script();
    ended.expect(9);
    let message = "slurm-disagg: the install script failed; all of its output is in ";
    assert!(ended.stderr.lines().any(|line| line.starts_with(message)), "{}", ended.stderr);

    // A file is where the script makes a directory.
    let tree = Tree::new();
    tree.plan(&small("A=1"), &[]);
    fs::write(tree.workspace().join("disagg_workspace"), "").unwrap();
    let ended = tree.launch_script();
    ended.expect(1);
    let is_error = |line: &&str| !line.starts_with('+') && line.contains(": error: `mkdir");
    let line = ended.stderr.lines().find(is_error).unwrap_or(&ended.stderr);
    assert!(line.contains("slurm_launch_generated.sh:") && line.ends_with("status 1"), "{line}");
}

#[test]
fn the_scripts_pass_shellcheck() {
    let tree = Tree::new();
    // What the steps run must be in the container.
    let script = tree.source().join("script.sh");
    let script = script.to_str().unwrap();
    let arguments = ["--container-image", "i", "--run-sh", script, "--install-sh", script];
    let nasty = format!("NASTY='{}'", NASTY.replace('\'', r"'\''"));
    for env in [&nasty, "A=$HOME"] {
        tree.plan(&small(env), &arguments);
        for script in ["slurm_launch_prefix.sh", "slurm_launch_generated.sh"] {
            let path = tree.workspace().join(script);
            // That text in single quotes is not expanded (an info) is the point here.
            Output::of(Command::new("shellcheck").args(["-S", "warning"]).arg(&path)).ok();
            Output::of(Command::new("bash").arg("-n").arg(&path)).ok();
        }
    }
}

#[test]
fn an_srun_that_floods_its_output_fills_no_disk() {
    let tree = Tree::new();
    tree.plan(&small("A=1"), &[]);
    let mut launch = tree.in_job(DISAGG);
    launch.arg("launch").arg("--workspace").arg(tree.workspace()).env("FLOOD", "noise");
    assert_passed(&tree, &Output::of(&mut launch));
    let log = fs::read_to_string(tree.workspace().join("srun.log")).unwrap();
    // Four steps, each with 1 MiB.
    assert!(log.len() < 5 << 20, "{}", log.len());
    for name in ["GEN_0", "CTX_0", "DISAGG_SERVER", "BENCHMARK"] {
        let notice = format!("{name}: (srun wrote more than 1 MiB; the rest is dropped)");
        assert_eq!(log.lines().filter(|line| *line == notice).count(), 1, "{name}");
    }
}

/// Launches the small plan from a shell with this limit of open files.
fn launch_with_limit(tree: &Tree, limit: &str) -> Output {
    let mut bash = tree.in_job("bash");
    let launch = format!("ulimit {limit} 20; exec {DISAGG} launch --workspace \"$0\"");
    Output::of(bash.arg("-c").arg(launch).arg(tree.workspace()))
}

#[test]
fn the_limit_of_open_files_is_raised_for_the_launch_and_not_for_its_steps() {
    let tree = Tree::new();
    tree.plan(&small("A=1"), &[]);
    // The launch alone needs more than 20.
    assert_passed(&tree, &launch_with_limit(&tree, "-Sn"));
    assert_eq!(tree.notes("GEN_0", "limit"), ["20\n"]);

    fs::remove_dir_all(tree.workspace().join("runs")).unwrap();
    let ended = launch_with_limit(&tree, "-n");
    ended.expect(2).shows(&["4 steps need 36 open files, but the hard limit is 20: raise it"]);
    assert!(!tree.workspace().join("runs").exists());
}

#[test]
fn a_second_launch_in_a_job_has_a_directory_of_its_own() {
    let tree = Tree::new();
    tree.plan(&small("A=1"), &[]);
    fs::write(tree.workspace().join("report.csv"), "from a run without the launch\n").unwrap();
    for id in ["7.0", "7.0-2"] {
        tree.forget();
        assert_passed(&tree, &tree.launch());
        assert_eq!(RunResult::read(&tree.workspace()).unwrap().run.id, id);
    }
    let first = RunResult::read(&tree.workspace().join("runs/7.0")).unwrap();
    assert_eq!(first.run.id, "7.0");
    let kept = fs::read_to_string(tree.workspace().join("runs/before-7.0/report.csv")).unwrap();
    assert_eq!(kept, "from a run without the launch\n");
}

#[test]
fn the_plan_may_come_from_the_job_s_environment() {
    let tree = Tree::new();
    let plan = tree.plan(&small("A=1"), &[]);
    let mut launch = tree.in_job(DISAGG);
    fs::remove_dir_all(tree.workspace()).unwrap();
    launch.arg("launch").env("SLURM_DISAGG_PLAN", plan.to_json().unwrap());
    assert_passed(&tree, &Output::of(&mut launch));
    assert!(tree.workspace().join("node_info.json").is_file(), "the plan's files are written");
}

#[test]
fn who_calls_launch_wrongly_is_told_what_to_do() {
    let tree = Tree::new();
    let refused = |arguments: &[&str], env: &[(&str, &str)], message: &str| {
        let mut launch = Command::new(DISAGG);
        launch.arg("launch").args(arguments).env_clear().envs(env.iter().copied());
        launch.env("PATH", "/usr/bin:/bin").current_dir(tree.path(""));
        Output::of(&mut launch).expect(2).shows(&[message]);
    };
    let workspace = tree.workspace().display().to_string();
    let here: &[&str] = &["--workspace", &workspace];
    refused(&[], &[], "no plan given: pass --workspace or --plan");
    refused(here, &[], "plan.json is missing: write it with `slurm-disagg submit");
    tree.plan(&small("A=1"), &[]);
    refused(here, &[], "SLURM_JOB_ID is not set: `slurm-disagg launch` runs in a job");
    let job = [("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "n1")];
    refused(here, &job, "the job has 1 node, the plan takes 2");
    refused(&[], &[("SLURM_DISAGG_PLAN", "{}")], "SLURM_DISAGG_PLAN: the plan cannot be read");
    assert!(!tree.workspace().join("runs").exists());
}
