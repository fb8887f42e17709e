// SPDX-License-Identifier: Apache-2.0
//! `submit`, `watch` and `cancel` on a real Slurm, with the stand-in test suite: what a person
//! sees and what the exit status says. Every test has a cluster of its own.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use disagg::run::interrupt::readable;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;
use slurm_bed::{Cluster, Options, Slurm, TEST_USER};

const DISAGG: &str = env!("CARGO_BIN_EXE_slurm-disagg");
const STANDIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standin");
/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// Settings under which the stand-in's benchmark goes on until it is ended.
const ENDLESS: &[&str] = &["STANDIN_TOKEN_SECONDS=60"];
/// Settings under which it measures for some seconds.
const SOME_SECONDS: &[&str] = &["STANDIN_TOKEN_SECONDS=0.5", "STANDIN_REQUESTS=4"];

/// A cluster, and commands on it as an ordinary user.
struct Site {
    cluster: Cluster,
}

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Site {
    fn new() -> Self {
        Self::with(Options::nodes(3))
    }

    fn with(options: Options) -> Self {
        Self { cluster: Cluster::start(&options.mpi("pmix")) }
    }

    fn workspace(&self) -> PathBuf {
        self.cluster.work().join("w")
    }

    fn command(&self, settings: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.cluster.command_as(TEST_USER, "env");
        let path = std::env::var("PATH").unwrap();
        let slurm = Slurm::under_test().prefix.join("bin");
        command.arg("CLUSTER_LLM_DATA=/tmp");
        command.arg(format!("PATH={STANDIN}/bin:{}:{path}", slurm.display()));
        command.args(settings).arg(DISAGG).args(arguments);
        command
    }

    fn run(&self, settings: &[&str], arguments: &[&str]) -> Said {
        said(self.command(settings, arguments).output().unwrap())
    }

    /// `submit` of the test on three nodes.
    fn submit_command(&self, settings: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.command(settings, &["submit"]);
        command.arg("--config-file").arg(format!("{STANDIN}/configs/standin_3nodes.yaml"));
        command.arg("--trtllm-dir").arg(format!("{STANDIN}/tree"));
        command.arg("--workspace").arg(self.workspace()).args(arguments);
        command
    }

    fn submit(&self, settings: &[&str], arguments: &[&str]) -> Said {
        said(self.submit_command(settings, arguments).output().unwrap())
    }

    /// Submits without waiting; gives the job's id.
    fn submitted(&self, settings: &[&str]) -> u32 {
        self.submitted_by("--launcher=native", settings)
    }

    fn submitted_by(&self, launcher: &str, settings: &[&str]) -> u32 {
        let said = self.submit(settings, &["--no-wait", "--json", launcher]);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let id = said.json()["jobs"][0]["job_id"].as_u64().unwrap();
        u32::try_from(id).unwrap()
    }

    fn watch(&self, target: &str) -> Said {
        self.run(&[], &["watch", target])
    }

    fn has_forgotten(&self, job: u32) -> bool {
        self.cluster.run(["scontrol", "show", "job", &job.to_string()]).code != Some(0)
    }

    fn wait_until_it_runs(&self, job: u32) {
        self.cluster.wait_until(job, LIMIT, |job| job.state() == "RUNNING");
    }
}

/// Waits until something is so.
fn until(is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "it is not so after {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl Said {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

fn said(output: std::process::Output) -> Said {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    Said { code: output.status.code(), stdout, stderr }
}

/// What a command says, read as it comes, and never waited for longer than [`LIMIT`].
struct Heard<'site, F> {
    site: &'site Site,
    file: F,
    text: String,
    /// How much of the text is behind what was waited for.
    passed: usize,
}

impl<'site, F: Read + AsFd> Heard<'site, F> {
    fn new(site: &'site Site, file: F) -> Self {
        Self { site, file, text: String::new(), passed: 0 }
    }

    /// Reads on until these words come.
    fn until(&mut self, words: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.text[self.passed..].find(words) {
                self.passed += at + words.len();
                return;
            }
            assert!(self.more(deadline), "it ended without {words:?}: {}", self.text);
        }
    }

    /// Reads to the end; gives all of it.
    fn end(mut self) -> String {
        let deadline = Instant::now() + LIMIT;
        while self.more(deadline) {}
        self.text
    }

    /// Reads what is there; says whether there may be more.
    fn more(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = readable(&[self.file.as_fd()], left).unwrap();
        let Self { site, text, .. } = self;
        assert!(!left.is_zero(), "after {LIMIT:?}: {text}\n{}", site.cluster.evidence());
        if ready == [false] {
            return true;
        }
        let mut buffer = [0; 4096];
        let length = match self.file.read(&mut buffer) {
            // So ends a terminal.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => 0,
            length => length.unwrap(),
        };
        self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        length > 0
    }
}

/// A command that goes on, and what it has said so far.
struct Running<'site> {
    child: Child,
    stderr: Heard<'site, ChildStderr>,
}

impl<'site> Running<'site> {
    fn start(site: &'site Site, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Heard::new(site, child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads on until a line has these words.
    fn until(&mut self, words: &str) {
        self.stderr.until(words);
    }

    /// Sends a signal to the command itself, as `kill` does.
    fn signal(&self, name: &str) {
        let command = self.stderr.site.cluster.processes().into_iter();
        let mut commands = command.filter(|process| process.command.starts_with(DISAGG));
        let pid = commands.next().unwrap().pid.to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn end(mut self) -> Said {
        let stdout = Heard::new(self.stderr.site, self.child.stdout.take().unwrap());
        let (stderr, stdout) = (self.stderr.end(), stdout.end());
        Said { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn one_command_takes_a_test_from_nothing_to_passed() {
    let site = Site::new();
    let said = site.submit(SOME_SECONDS, &[]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("PASSED: disagg_upload-standin_3nodes, job 1"), "{}", said.stdout);
    for words in ["job 1: RUNNING on node[1-3]", "GEN_0: running after", "BENCHMARK: done after"] {
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }
    // The report: its table and its timeline.
    for words in ["  . starting   - running", "  BENCHMARK      done", "5 tests, 0 failures"] {
        assert!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
}

#[test]
fn the_generated_script_takes_a_test_to_passed_without_this_program_on_the_nodes() {
    let site = Site::new();
    let said = site.submit(&[], &["--launcher=bash"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("PASSED: disagg_upload-standin_3nodes, job 1"), "{}", said.stdout);
    assert!(site.workspace().join("results-BENCHMARK.xml").is_file());
}

#[test]
fn a_test_of_one_server_is_submitted_like_any_other() {
    let site = Site::new();
    for (id, launcher, nodes) in [
        ("aggr_upload-standin_servers-two_nodes", "native", "node[1-2]"),
        ("aggr_upload-standin_servers-small", "bash", "node1"),
        ("aggr_upload-ctx_only-standin_3nodes", "native", "node1"),
        ("aggr_upload-ctx_only-standin_3nodes", "bash", "node1"),
    ] {
        let workspace = site.workspace().join(format!("{id}-{launcher}"));
        let (launcher, tree) = (format!("--launcher={launcher}"), format!("{STANDIN}/tree"));
        let arguments =
            ["submit", "--test-id", id, &launcher, "--trtllm-dir", &tree, "--workspace"];
        let mut submit = site.command(&[], &arguments);
        let said = said(submit.arg(&workspace).output().unwrap());
        assert_eq!(said.code, Some(0), "{id} {launcher}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains(&format!("PASSED: {id}, job")), "{launcher}: {}", said.stdout);
        assert!(said.stderr.contains(&format!(" on {nodes}\n")), "{id}: {}", said.stderr);
        let results = std::fs::read_to_string(workspace.join("results-AGGREGATED.xml")).unwrap();
        assert!(results.contains(&format!("[{id}]")), "{id} {launcher}: {results}");
    }
}

#[test]
fn a_benchmark_that_fails_is_exit_status_1_with_the_verdict() {
    let site = Site::new();
    let said = site.submit(&["STANDIN_FAULT=BENCHMARK:fail"], &["--json"]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    let entry = &said.json()["jobs"][0];
    assert_eq!(entry["outcome"], "failed");
    assert_eq!(entry["result"]["verdict"]["kind"], "benchmark_failed");
    assert_eq!(entry["message"], entry["result"]["verdict"]["message"]);
}

#[test]
fn a_server_that_dies_is_exit_status_1_and_is_named() {
    let site = Site::new();
    let said = site.submit(&["STANDIN_FAULT=CTX_0:die_after:2"], &[]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("FAILED: disagg_upload-standin_3nodes, job 1: CTX_0"),
        "{}",
        said.stdout
    );
    assert!(said.stdout.contains("last lines of CTX_0:"), "{}", said.stdout);
}

#[test]
fn without_a_verdict_a_failed_job_is_shown_with_the_last_lines_of_its_log() {
    let site = Site::new();
    let said = site.submit(&["STANDIN_FAULT=BENCHMARK:fail"], &["--launcher=bash"]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("FAILED: "), "{}", said.stdout);
    assert!(said.stdout.contains("BENCHMARK ended with status 1"), "{}", said.stdout);
}

#[test]
fn a_job_that_nobody_waited_for_is_taken_up_by_its_id_and_by_its_workspace() {
    let site = Site::new();
    let job = site.submitted(SOME_SECONDS);
    let (by_id, by_workspace) = (site.watch(&job.to_string()), site.watch(path(&site.workspace())));
    for said in [by_id, by_workspace] {
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("PASSED: disagg_upload-standin_3nodes"), "{}", said.stdout);
    }
}

#[test]
fn a_cancelled_job_has_failed() {
    let site = Site::new();
    let job = site.submitted(ENDLESS);
    site.wait_until_it_runs(job);
    let mut watching =
        Running::start(&site, site.command(&[], &["watch", path(&site.workspace())]));
    watching.until("BENCHMARK: running");
    let said = site.run(&[], &["cancel", path(&site.workspace())]);
    assert_eq!((said.code, said.stdout), (Some(0), format!("cancelling job {job}\n")));
    let said = watching.end();
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("the job was cancelled"), "{}", said.stdout);
    let said = site.run(&[], &["cancel", &job.to_string()]);
    assert_eq!((said.code, said.stdout), (Some(0), format!("job {job} has already ended\n")));
}

#[test]
fn an_interruption_leaves_the_job_running() {
    let site = Site::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut submitting = Running::start(&site, site.submit_command(ENDLESS, &["--force"]));
        submitting.until("RUNNING");
        submitting.signal(signal);
        let said = submitting.end();
        assert_eq!(said.code, Some(code), "{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("the job continues"), "{}", said.stdout);
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
    let said = submitting.end();
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.json()["jobs"][0]["outcome"], "failed");
    assert_eq!(said.json()["jobs"][0]["state"], "CANCELLED");
}

/// A command on a terminal of its own: what is typed there, and what it shows.
fn on_a_terminal<'site>(
    site: &'site Site,
    arguments: &[&str],
) -> (Child, File, Heard<'site, File>) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).unwrap();
    unlockpt(&terminal).unwrap();
    let other_end = || Stdio::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
    let mut command = site.cluster.command_as(TEST_USER, "setsid");
    command.args(["--ctty", "--wait", "env", "TERM=xterm", DISAGG]).args(arguments);
    let child = command.stdin(other_end()).stdout(other_end()).stderr(other_end()).spawn().unwrap();
    let terminal = File::from(terminal);
    (child, terminal.try_clone().unwrap(), Heard::new(site, terminal))
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
    let said = watching.end();
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.stderr.matches("does not respond").count(), 1, "{}", said.stderr);
}

/// A directory with an sbatch that runs the real one and some shell after it.
fn wrapped_sbatch(site: &Site, after: &str) -> String {
    let directory = site.cluster.work().join("bin");
    std::fs::create_dir(&directory).unwrap();
    let sbatch = Slurm::under_test().prefix.join("bin/sbatch");
    let script = format!("#!/bin/sh\n{} \"$@\"\n{after}\n", sbatch.display());
    std::fs::write(directory.join("sbatch"), script).unwrap();
    std::fs::set_permissions(directory.join("sbatch"), Permissions::from_mode(0o755)).unwrap();
    directory.display().to_string()
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
        let said = site.submit(&[&path], &["--json"]);
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        let looked = said.stderr.contains("checking whether Slurm has accepted the job");
        assert_eq!(looked, searched, "{}", said.stderr);
        assert!(site.workspace().join("submission.json").is_file());
        std::fs::remove_dir_all(directory).unwrap();
    }
}

#[test]
fn a_job_that_is_accepted_after_sbatch_has_timed_out_is_found_and_followed() {
    let site = Site::with(Options::nodes(3).conf("MessageTimeout=4"));
    let pid = std::fs::read_to_string(site.cluster.dir().join("run/slurmctld.pid")).unwrap();
    let controller = |signal: &str| {
        let mut kill = Command::new("kill");
        assert!(kill.args(["-s", signal, pid.trim()]).status().unwrap().success());
    };
    controller("STOP");
    let mut submitting = Running::start(&site, site.submit_command(&[], &["--json"]));
    submitting.until("checking whether Slurm has accepted the job");
    controller("CONT");
    let said = submitting.end();
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let job = &said.json()["jobs"][0];
    assert_eq!((&job["outcome"], &job["job_id"]), (&"passed".into(), &1.into()), "{}", said.stderr);
    let recorded = std::fs::read(site.workspace().join("submission.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&recorded).unwrap()["job_id"], 1);
}

#[test]
fn what_sbatch_refuses_is_shown_as_sbatch_said_it() {
    let site = Site::new();
    let said = site.submit(&[], &["--partition=nowhere"]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    for words in ["REFUSED: ", "sbatch: error: invalid partition specified: nowhere"] {
        assert!(said.stdout.contains(words), "{}", said.stdout);
    }
    assert!(!site.workspace().join("submission.json").exists());
}

#[test]
fn test_only_says_when_the_job_would_start_and_leaves_nothing() {
    let site = Site::new();
    let said = site.submit(&[], &["--test-only"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("ACCEPTED: "), "{}", said.stdout);
    assert!(said.stdout.contains("to start at"), "{}", said.stdout);
    assert!(!site.workspace().exists());
    assert_eq!(site.cluster.run(["squeue", "-h", "-t", "all"]).checked(), "");
    let said = site.submit(&[], &["--test-only", "--time=99-0", "--partition=nowhere"]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
}

#[test]
fn an_sbatch_variable_of_the_environment_does_not_change_the_plan() {
    let site = Site::new();
    let job = {
        let settings = ["SBATCH_JOB_NAME=other", "SBATCH_TIMELIMIT=1-0", "SQUEUE_USERS=nobody"];
        let said = site.submit(&settings, &["--json"]);
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        u32::try_from(said.json()["jobs"][0]["job_id"].as_u64().unwrap()).unwrap()
    };
    let job = site.cluster.job(job);
    assert_eq!((job.field("JobName"), job.field("TimeLimit")), ("disagg_perf_test", "00:10:00"));
}

#[test]
fn as_json_the_outcome_has_job_state_and_files() {
    let site = Site::new();
    let said = site.submit(&[], &["--json"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let all = said.json();
    let entry = &all["jobs"][0];
    assert_eq!((&all["schema"], &entry["outcome"]), (&1.into(), &"passed".into()));
    assert_eq!((&entry["state"], &entry["exit_code"]), (&"COMPLETED".into(), &"0:0".into()));
    assert_eq!(entry["test"], "disagg_upload-standin_3nodes");
    for file in entry["files"].as_array().unwrap() {
        assert!(Path::new(file.as_str().unwrap()).is_file(), "{file}");
    }
}

#[test]
fn a_job_that_waits_says_why_until_it_runs() {
    let site = Site::new();
    let other = site.cluster.submit(["-N3", "--exclusive", "--wrap=sleep 1000"]);
    site.wait_until_it_runs(other);
    let mut submitting = Running::start(&site, site.submit_command(&[], &[]));
    submitting.until("PENDING (Resources) It is next; it waits for enough nodes");
    site.cluster.run(["scancel", &other.to_string()]).ok();
    let said = submitting.end();
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn a_job_that_can_never_start_says_what_to_change() {
    let small = "PartitionName=small Nodes=node[1-3] MaxNodes=2 State=UP";
    let site = Site::with(Options::nodes(3).conf(small));
    let options = ["--on-interrupt=cancel", "--partition=small"];
    let mut submitting = Running::start(&site, site.submit_command(&[], &options));
    submitting.until("PENDING (PartitionNodeLimit) It asks for more (or fewer) nodes");
    submitting.signal("INT");
    let said = submitting.end();
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
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
    let said = site.watch(&job.to_string());
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    // Slurm says it, or the launch when it was still there to leave a verdict.
    let says = |words| said.stdout.contains(words);
    assert!(says("one of its nodes failed") || says("a node of the job failed"), "{}", said.stdout);
}

#[test]
fn the_workspace_of_a_job_that_has_not_ended_is_left_alone() {
    let site = Site::new();
    let job = site.submitted(ENDLESS);
    let said = site.submit(&[], &[]);
    assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(&format!("error: job {job} of ")), "{}", said.stderr);
    site.run(&[], &["cancel", &job.to_string()]);
}

#[test]
fn a_test_list_is_submitted_as_one_job_for_each_test() {
    let site = Site::new();
    let list = site.cluster.work().join("list.txt");
    let id = |id: &str| format!("perf/test_perf_sanity.py::test_e2e[{id}]\n");
    let tests = ["standin_3nodes", "standin_gen_only"];
    let text: String = tests.iter().map(|name| id(&format!("disagg_upload-{name}"))).collect();
    std::fs::write(&list, text).unwrap();
    let submit = |settings: &[&str], arguments: &[&str]| {
        let mut command = site.command(settings, &["submit", "--json"]);
        command.arg("--test-list").arg(&list).arg("--trtllm-dir").arg(format!("{STANDIN}/tree"));
        command.arg("--workspace").arg(site.workspace()).args(arguments);
        said(command.output().unwrap())
    };
    // Only the first test has a CTX server.
    let all = submit(&["STANDIN_FAULT=CTX_0:die_at_start"], &[]);
    assert_eq!(all.code, Some(1), "{}{}", all.stdout, all.stderr);
    let outcomes = |said: &Said| -> Vec<String> {
        let all = said.json();
        let outcome = |entry: &Value| entry["outcome"].as_str().unwrap().to_owned();
        all["jobs"].as_array().unwrap().iter().map(outcome).collect()
    };
    assert_eq!(outcomes(&all), ["failed", "passed"], "{}", all.stderr);
    for name in tests {
        let workspace = site.workspace().join(format!("disagg_upload-{name}"));
        assert!(workspace.join("submission.json").is_file());
    }
    let some = submit(&[], &["--only", "*gen_only"]);
    assert_eq!((some.code, outcomes(&some)), (Some(0), vec!["passed".to_owned()]));
    let none = submit(&[], &["--only", "nothing like it"]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
}

#[test]
fn a_job_that_slurm_has_forgotten_is_not_taken_for_a_passed_one() {
    let site = Site::with(Options::nodes(3).conf("MinJobAge=2"));
    let job = site.submitted_by("--launcher=bash", &[]);
    until(|| site.has_forgotten(job));
    let said = site.watch(path(&site.workspace()));
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.contains("UNKNOWN: "), "{}", said.stdout);
    let said = site.watch(&job.to_string());
    assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains(&format!("unknown job {job}")), "{}", said.stderr);
}

#[test]
fn a_forgotten_job_is_judged_by_the_verdict_that_it_left() {
    let site = Site::with(Options::nodes(3).conf("MinJobAge=2"));
    let job = site.submitted(&[]);
    until(|| site.has_forgotten(job));
    let said = site.watch(path(&site.workspace()));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn accounting_says_how_a_forgotten_job_ended() {
    let site = Site::with(Options::nodes(3).conf("MinJobAge=2").accounting());
    let job = site.submitted_by("--launcher=bash", &[]);
    let id = job.to_string();
    let state = || site.cluster.run(["sacct", "-n", "-X", "-o", "State", "-j", &id]).stdout;
    until(|| site.has_forgotten(job) && state().contains("COMPLETED"));
    let said = site.watch(path(&site.workspace()));
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
}

#[test]
fn options_of_the_launch_reach_it_and_wrong_ones_stop_the_submission() {
    let site = Site::new();
    let said = site.submit(SOME_SECONDS, &["--json", "--", "--ready", "--limit", "ready=2m"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let all = said.json();
    let steps = all["jobs"][0]["result"]["steps"].as_array().unwrap();
    let server = steps.iter().find(|step| step["name"] == "GEN_0").unwrap();
    assert!(server["ready"].is_u64(), "{server}");
    for (arguments, words) in [
        (&["--", "--redy"][..], "--redy"),
        (&["--", "--workspace", "/elsewhere"], "--workspace"),
        (&["--launcher=bash", "--", "--ready"], "an option of the native launcher"),
    ] {
        let said = site.submit(&[], arguments);
        assert_eq!(said.code, Some(2), "{}{}", said.stdout, said.stderr);
        assert!(said.stderr.contains(words), "{}", said.stderr);
    }
}
