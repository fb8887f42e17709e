// SPDX-License-Identifier: Apache-2.0
//! `submit`, `watch` and `cancel` on a real Slurm, with the stand-in test suite: the output and the
//! exit status. Every test has a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod container;
#[path = "../corpus/mod.rs"]
mod corpus;
mod engines;
mod example_runs;
#[path = "../examples/mod.rs"]
mod examples;
mod list;
mod matrix;
mod ordinary;
mod recipe;
mod site;
mod vllm;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use site::*;
use slurm_bed::{Options, Output, Slurm, contains, executable};

#[test]
fn tests_of_each_form_pass_with_both_launchers() {
    let site = Site::new();
    for (id, launcher, nodes, role) in [
        ("aggr_upload-standin_servers-two_nodes", "native", "node[1-2]", "AGGREGATED"),
        ("aggr_upload-standin_servers-small", "bash", "node1", "AGGREGATED"),
        ("aggr_upload-ctx_only-standin_3nodes", "native", "node1", "AGGREGATED"),
        ("aggr_upload-ctx_only-standin_3nodes", "bash", "node1", "AGGREGATED"),
        // They read what the launcher leaves of the generation servers.
        ("aggr_upload-gen_only_no_context-standin_3nodes", "native", "node[1-2]", "AGGREGATED"),
        ("aggr_upload-gen_only_no_context-standin_3nodes", "bash", "node[1-2]", "AGGREGATED"),
        ("disagg_upload-gen_only-standin_3nodes", "native", "node[1-3]", "BENCHMARK"),
        ("disagg_upload-gen_only-standin_3nodes", "bash", "node[1-3]", "BENCHMARK"),
    ] {
        let workspace = site.workspace().join(format!("{id}-{launcher}"));
        let (launcher, tree) = (format!("--launcher={launcher}"), format!("{STANDIN}/tree"));
        let arguments =
            ["submit", "--test-id", id, &launcher, "--trtllm-dir", &tree, "--workspace"];
        let mut submit = site.command(&[], &arguments);
        let output = Output::of(submit.arg(&workspace));
        output.expect(0);
        contains(&output.stdout, &format!("PASSED: {id}, job"));
        contains(&output.stderr, &format!(" on {nodes}\n"));
        let results = workspace.join(format!("results-{role}.xml"));
        let results = std::fs::read_to_string(results).unwrap();
        assert!(results.contains(&format!("[{id}]")), "{id} {launcher}: {results}");
    }
}

#[test]
fn a_run_that_fails_is_exit_status_1_with_the_verdict_or_the_end_of_the_log() {
    let site = Site::new();
    let output = site.submit(&["STANDIN_FAULT=BENCHMARK:fail"], &["--json"]);
    output.expect(1);
    let entry = &json(&output)["jobs"][0];
    assert_eq!(entry["outcome"], "failed");
    assert_eq!(entry["result"]["verdict"]["kind"], "benchmark_failed");
    assert_eq!(entry["message"], entry["result"]["verdict"]["message"]);

    let output = site.submit(&["STANDIN_FAULT=CTX_0:die_after:2"], &["--force"]);
    output.expect(1);
    contains(&output.stdout, "FAILED: disagg_upload-standin_3nodes, job 2: CTX_0");
    contains(&output.stdout, "last lines of CTX_0:");

    let output = site.submit(&["STANDIN_FAULT=BENCHMARK:fail"], &["--force", "--launcher=bash"]);
    output.expect(1);
    contains(&output.stdout, "FAILED: ");
    contains(&output.stdout, "BENCHMARK ended with status 1");

    let script = site.cluster.work().join("killed.sh");
    executable(&script, KILLED);
    for launcher in ["native", "bash"] {
        let run = [&*format!("--launcher={launcher}"), "--run-sh", path(&script)];
        let output = site.submit(&[], &[&["--force", "--json"], &run[..]].concat());
        output.expect(1);
        let result = &json(&output)["jobs"][0]["result"];
        let log = std::fs::read_to_string(site.workspace().join("ctx_server_0.log")).unwrap();
        contains(&log, "on node3 has ended; killing what it left: ");
        let left =
            site.cluster.processes().into_iter().find(|one| one.command.contains("outlives"));
        assert!(left.is_none(), "{launcher}: {left:?}");
        if launcher == "native" {
            let verdict = &result["verdict"];
            assert_eq!(
                (&verdict["step"], &verdict["exit"]["signal"]),
                (&"CTX_0".into(), &9.into())
            );
            assert!(verdict["ran_ms"].as_u64().unwrap() < 3_000, "{verdict}");
        }
    }

    // A client that ends well although requests fail; the files of the runs before are still there.
    let failing = ["STANDIN_FAULT=BENCHMARK:fail_requests:6"];
    for (launcher, allowed, passes) in
        [("bash", 74, false), ("bash", 75, true), ("native", 75, true)]
    {
        let options = [format!("--launcher={launcher}"), format!("--max-failed={allowed}%")];
        let output = site.submit(&failing, &["--force", "--json", &options[0], &options[1]]);
        output.expect(if passes { 0 } else { 1 });
        let entry = &json(&output)["jobs"][0];
        let message = entry["message"].as_str().unwrap();
        let fault = "6 of 8 requests failed (75%, --max-failed allows 74%) at concurrency 4";
        assert_eq!(message.contains(fault), !passes, "{message}");
        assert_eq!(entry["figures"][0]["metrics"]["completed"], 2.0, "{entry}");
    }
}

#[test]
fn a_job_that_nobody_waited_for_is_taken_up_by_its_id_and_by_its_workspace() {
    let site = Site::new();
    let job = site.submitted(SOME_SECONDS);
    let (by_id, by_workspace) = (site.watch(&job.to_string()), site.watch(path(&site.workspace())));
    for output in [by_id, by_workspace] {
        output.expect(0);
        contains(&output.stdout, "PASSED: disagg_upload-standin_3nodes");
    }
}

#[test]
fn a_running_jobs_workspace_is_left_alone_and_a_cancelled_job_has_failed() {
    let site = Site::new();
    let job = site.submitted(ENDLESS);
    site.wait_until_it_runs(job);
    let mut watching =
        Running::start(&site, site.command(&[], &["watch", path(&site.workspace())]));
    watching.until("BENCHMARK: running");
    let output = site.submit(&[], &[]);
    output.expect(2);
    contains(&output.stderr, &format!("error: job {job} of "));
    let output = site.run(&[], &["cancel", path(&site.workspace())]);
    assert_eq!((output.code, output.stdout), (Some(0), format!("cancelling job {job}\n")));
    let output = watching.end();
    output.expect(1);
    contains(&output.stdout, "the job was cancelled");
    let output = site.run(&[], &["cancel", &job.to_string()]);
    assert_eq!((output.code, output.stdout), (Some(0), format!("job {job} has already ended\n")));
}

#[test]
fn an_interruption_leaves_the_job_running() {
    let site = Site::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut submitting = Running::start(&site, site.submit_command(ENDLESS, &["--force"]));
        submitting.until("RUNNING");
        submitting.signal(signal);
        let output = submitting.end();
        assert_eq!(output.code, Some(code), "{}{}", output.stdout, output.stderr);
        contains(&output.stdout, "the job continues");
        let note = std::fs::read(site.workspace().join("submission.json")).unwrap();
        let note: Value = serde_json::from_slice(&note).unwrap();
        let job = u32::try_from(note["job_id"].as_u64().unwrap()).unwrap();
        assert_eq!(site.cluster.job(job).state(), "RUNNING");
        site.run(&[], &["cancel", &job.to_string()]);
        site.cluster.wait_job(job, LIMIT);
    }
}

#[test]
fn an_interruption_cancels_the_job_where_that_was_asked_for() {
    let site = Site::new();
    let mut submitting =
        Running::start(&site, site.submit_command(ENDLESS, &["--on-interrupt=cancel", "--json"]));
    submitting.until("RUNNING");
    submitting.signal("INT");
    let output = submitting.end();
    output.expect(1);
    assert_eq!(json(&output)["jobs"][0]["outcome"], "failed");
    assert_eq!(json(&output)["jobs"][0]["state"], "CANCELLED");
}

#[test]
fn on_a_terminal_ctrl_c_asks_whether_to_cancel() {
    let site = Site::new();
    let job = site.submitted(ENDLESS);
    site.wait_until_it_runs(job);
    let question = format!("Cancel job {job}?");
    for (answer, code, state) in [("c\n\u{3}n\n", 130, "RUNNING"), ("what\ny\n", 1, "CANCELLED")] {
        let (mut child, mut keys, mut screen) = on_a_terminal(&site, &["watch", &job.to_string()]);
        for typed in answer.split('\u{3}') {
            // It goes on painting after `continue`.
            screen.until("DISAGG_SERVER");
            keys.write_all(b"\x03").unwrap();
            screen.until(&question);
            keys.write_all(typed.as_bytes()).unwrap();
        }
        let text = screen.end();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{text}");
        assert_eq!(site.cluster.job(job).state(), state);
    }
}

#[test]
fn a_controller_that_is_restarted_is_waited_for() {
    let site = Site::new();
    let job = site.submitted(&["STANDIN_TOKEN_SECONDS=1", "STANDIN_REQUESTS=2"]);
    site.wait_until_it_runs(job);
    let mut watching = Running::start(&site, site.command(&[], &["watch", &job.to_string()]));
    watching.until("BENCHMARK: running");
    site.cluster.stop("slurmctld", "TERM");
    watching.until("Slurm does not respond");
    site.cluster.restart("slurmctld");
    watching.until("Slurm responds again");
    let output = watching.end();
    output.expect(0);
    assert_eq!(output.stderr.matches("does not respond").count(), 1, "{}", output.stderr);
}

#[test]
fn a_job_is_found_whatever_a_sites_sbatch_prints_after_its_id() {
    let site = Site::new();
    // The second one is no id of this job.
    for (after, searched) in [("echo You have 100 GPU hours left", false), ("echo 4711", true)] {
        let directory = wrapped_sbatch(&site, after);
        let slurm = Slurm::under_test().prefix.join("bin");
        let path = std::env::var("PATH").unwrap();
        let path = format!("PATH={directory}:{STANDIN}/bin:{}:{path}", slurm.display());
        let output = site.submit(&[&path], &["--json"]);
        output.expect(0);
        let looked = output.stderr.contains("checking whether Slurm has accepted the job");
        assert_eq!(looked, searched, "{}", output.stderr);
        assert!(site.workspace().join("submission.json").is_file());
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// Stops the controller, submits until sbatch has timed out, and continues.
fn submit_to_a_stopped_controller(site: &Site, then: impl Fn(&mut Running)) -> Output {
    let pid = std::fs::read_to_string(site.cluster.dir().join("run/slurmctld.pid")).unwrap();
    let controller = |signal: &str| {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-s", signal, pid.trim()]).status().unwrap().success());
    };
    controller("STOP");
    let mut submitting = Running::start(site, site.submit_command(&[], &["--json"]));
    submitting.until("checking whether Slurm has accepted the job");
    then(&mut submitting);
    controller("CONT");
    submitting.end()
}

#[test]
fn a_job_that_is_accepted_after_sbatch_has_timed_out_is_found_and_followed() {
    let site = Site::with(Options::nodes(3).conf("MessageTimeout=4"));
    let output = submit_to_a_stopped_controller(&site, |_| {});
    output.expect(0);
    let job = &json(&output)["jobs"][0];
    assert_eq!((&job["outcome"], &job["job_id"]), (&"passed".into(), &1.into()));
    let recorded = std::fs::read(site.workspace().join("submission.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&recorded).unwrap()["job_id"], 1);
}

#[test]
fn a_search_that_is_interrupted_leaves_the_outcome_open_and_names_the_comment() {
    let site = Site::with(Options::nodes(3).conf("MessageTimeout=4"));
    let output = submit_to_a_stopped_controller(&site, |submitting| submitting.signal("INT"));
    output.expect(1);
    let job = &json(&output)["jobs"][0];
    assert_eq!((&job["outcome"], &job["job_id"]), (&"unknown".into(), &Value::Null));
    let comment = || site.cluster.run(["squeue", "-h", "-t", "all", "-o", "%k"]).stdout;
    wait_for(|| comment().starts_with("slurm-disagg "));
    let message = job["message"].as_str().unwrap();
    assert!(message.contains(comment().trim()), "{message}");
}

#[test]
fn a_refusal_and_test_only_show_what_sbatch_prints_and_leave_nothing() {
    let site = Site::new();
    let output = site.submit(&[], &["--partition=nowhere"]);
    output.expect(1);
    for expected in ["REFUSED: ", "sbatch: error: invalid partition specified: nowhere"] {
        contains(&output.stdout, expected);
    }
    assert!(!site.workspace().join("submission.json").exists());
    std::fs::remove_dir_all(site.workspace()).unwrap();
    let output = site.submit(&[], &["--test-only"]);
    output.expect(0);
    contains(&output.stdout, "ACCEPTED: ");
    contains(&output.stdout, "to start at");
    assert!(!site.workspace().exists());
    assert_eq!(site.cluster.run(["squeue", "-h", "-t", "all"]).checked(), "");
    let output = site.submit(&[], &["--test-only", "--time=99-0", "--partition=nowhere"]);
    output.expect(1);
}

#[test]
fn as_json_the_outcome_has_job_state_and_files_and_sbatch_variables_change_no_plan() {
    let site = Site::new();
    let settings = ["SBATCH_JOB_NAME=other", "SBATCH_TIMELIMIT=1-0", "SQUEUE_USERS=nobody"];
    let output = site.submit(&settings, &["--json"]);
    output.expect(0);
    let all = json(&output);
    let entry = &all["jobs"][0];
    assert_eq!((&all["schema"], &entry["outcome"]), (&1.into(), &"passed".into()));
    assert_eq!((&entry["state"], &entry["exit_code"]), (&"COMPLETED".into(), &"0:0".into()));
    assert_eq!(entry["test"], "disagg_upload-standin_3nodes");
    for file in entry["files"].as_array().unwrap() {
        assert!(Path::new(file.as_str().unwrap()).is_file(), "{file}");
    }
    let job = site.cluster.job(u32::try_from(entry["job_id"].as_u64().unwrap()).unwrap());
    assert_eq!((job.field("JobName"), job.field("TimeLimit")), ("disagg_perf_test", "00:10:00"));
}

#[test]
fn a_job_that_waits_says_why_until_it_runs() {
    let site = Site::new();
    let other = site.cluster.submit(["-N3", "--exclusive", "--wrap=sleep 1000"]);
    site.wait_until_it_runs(other);
    let mut submitting = Running::start(&site, site.submit_command(&[], &[]));
    submitting.until("PENDING (Resources) It is next; it waits for enough nodes");
    site.cluster.run(["scancel", &other.to_string()]).ok();
    let output = submitting.end();
    output.expect(0);
}

#[test]
fn a_job_that_can_never_start_says_what_to_change() {
    let small = "PartitionName=small Nodes=node[1-3] MaxNodes=2 State=UP";
    let site = Site::with(Options::nodes(3).conf(small));
    let options = ["--on-interrupt=cancel", "--partition=small"];
    let mut submitting = Running::start(&site, site.submit_command(&[], &options));
    submitting.until("PENDING (PartitionNodeLimit) It asks for more (or fewer) nodes");
    submitting.signal("INT");
    let output = submitting.end();
    output.expect(1);
}

#[test]
fn a_requeued_job_is_followed_into_its_next_run() {
    let site = Site::new();
    let job = site.submitted(ENDLESS);
    site.wait_until_it_runs(job);
    let mut watching = Running::start(&site, site.command(&[], &["watch", &job.to_string()]));
    watching.until("RUNNING");
    site.cluster.run(["scontrol", "requeue", &job.to_string()]).ok();
    watching.until("PENDING (restart 1) (BeginTime)");
    site.cluster.run(["scancel", &job.to_string()]).ok();
    assert_eq!(watching.end().code, Some(1));
}

#[test]
fn a_node_that_fails_is_named_as_the_cause() {
    let site = Site::with(Options::nodes(3).conf("JobRequeue=0"));
    let job = site.submitted(ENDLESS);
    site.wait_until_it_runs(job);
    let down = ["scontrol", "update", "NodeName=node2", "State=DOWN", "Reason=test"];
    site.cluster.run(down).ok();
    let output = site.watch(&job.to_string());
    output.expect(1);
    // From Slurm, or from the launch if it could still write a verdict.
    let shows = |expected| output.stdout.contains(expected);
    assert!(
        shows("one of its nodes failed") || shows("a node of the job failed"),
        "{}",
        output.stdout
    );
}

#[test]
fn a_forgotten_job_is_judged_by_its_verdict_and_without_one_is_unknown() {
    let site = Site::with(Options::nodes(3).conf("MinJobAge=2"));
    let job = site.submitted_by("--launcher=bash", &[]);
    wait_for(|| site.has_forgotten(job));
    let output = site.watch(path(&site.workspace()));
    output.expect(1);
    contains(&output.stdout, "UNKNOWN: ");
    let output = site.watch(&job.to_string());
    output.expect(2);
    contains(&output.stderr, &format!("unknown job {job}"));

    let output = site.submit(&[], &["--no-wait", "--json", "--force"]);
    let job = u32::try_from(json(&output)["jobs"][0]["job_id"].as_u64().unwrap()).unwrap();
    wait_for(|| site.has_forgotten(job));
    site.watch(path(&site.workspace())).expect(0);
}

#[test]
fn accounting_says_how_a_forgotten_job_ended() {
    let site = Site::with(Options::nodes(3).conf("MinJobAge=2").accounting());
    let job = site.submitted_by("--launcher=bash", &[]);
    let id = job.to_string();
    let state = || site.cluster.run(["sacct", "-n", "-X", "-o", "State", "-j", &id]).stdout;
    wait_for(|| site.has_forgotten(job) && state().contains("COMPLETED"));
    let output = site.watch(path(&site.workspace()));
    output.expect(0);
}

#[test]
fn options_of_the_launch_reach_it_and_wrong_ones_stop_the_submission() {
    let site = Site::new();
    let output = site.submit(SOME_SECONDS, &["--json", "--", "--limit", "benchmark=1s"]);
    output.expect(1);
    let all = json(&output);
    let verdict = &all["jobs"][0]["result"]["verdict"];
    assert_eq!(verdict["kind"], "benchmark_limit", "{verdict}");
    for (arguments, expected) in [
        (&["--", "--limmit"][..], "--limmit"),
        (&["--", "--workspace", "/elsewhere"], "--workspace"),
        (&["--launcher=bash", "--", "--grace=3"], "an option of the native launcher"),
    ] {
        let output = site.submit(&[], arguments);
        output.expect(2);
        contains(&output.stderr, expected);
    }
}
