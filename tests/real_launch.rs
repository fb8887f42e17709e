// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg launch` on a real Slurm with the stand-in test suite: whatever happens to a run,
//! it ends with the right verdict, and nothing of it is left behind.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use disagg::run::result::{Exit, Moment, Phase, RunResult, StepResult, StopSignal, VerdictKind};
use slurm_bed::{Cluster, Job, Options, Process, Slurm, TEST_USER, built};

const A_MINUTE: Duration = Duration::from_secs(60);

/// A cluster with the command and the stand-in where every user can read them.
struct Site {
    cluster: Cluster,
}

/// One submission.
#[derive(Clone)]
struct Run<'a> {
    name: &'a str,
    config: &'a str,
    nodes: u32,
    plan: &'a [&'a str],
    sbatch: &'a [&'a str],
    launch: &'a str,
    env: &'a [(&'a str, &'a str)],
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self {
            name: "run",
            config: "standin_3nodes",
            nodes: 3,
            plan: &[],
            sbatch: &[],
            launch: "",
            env: &[],
        }
    }
}

impl Site {
    fn start(options: &Options) -> Self {
        let cluster = Cluster::start(options);
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let standin = here.join("tests/standin");
        let copy = |from: &Path, to: PathBuf| {
            let done = Command::new("cp").arg("-rL").arg(from).arg(&to).status().unwrap();
            assert!(done.success(), "{} cannot be copied", from.display());
        };
        copy(&standin, cluster.work().join("standin"));
        copy(Path::new(env!("CARGO_BIN_EXE_slurm-disagg")), cluster.work().join("slurm-disagg"));
        Self { cluster }
    }

    fn path(&self) -> String {
        let work = self.cluster.work();
        let work = work.display();
        let slurm = Slurm::under_test().prefix;
        format!("{work}:{work}/standin/bin:{}/bin:/usr/local/bin:/usr/bin:/bin", slurm.display())
    }

    fn workspace(&self, name: &str) -> PathBuf {
        self.cluster.work().join(name)
    }

    /// A command of the test user's, with the command and the stand-in on its path.
    fn command(&self, program: &str, env: &[(&str, &str)]) -> Command {
        let mut command = self.cluster.command_as(TEST_USER, "env");
        command.arg(format!("PATH={}", self.path())).arg("CLUSTER_LLM_DATA=/models");
        command.args(env.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
        command
    }

    /// Plans a run into its workspace.
    fn plan(&self, run: &Run<'_>) -> PathBuf {
        let workspace = self.workspace(run.name);
        let mut plan = self.command("slurm-disagg", &[]);
        plan.args(["submit", "--dry-run", run.config, "--trtllm-dir"]);
        plan.arg(self.cluster.work().join("standin/tree")).arg("--workspace").arg(&workspace);
        let written = plan.args(run.plan).output().unwrap();
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        workspace
    }

    /// Plans a run and submits its launch; gives the job's id.
    fn submit(&self, run: &Run<'_>) -> u32 {
        let workspace = self.plan(run);
        let launch =
            format!("slurm-disagg launch --workspace {} {}", workspace.display(), run.launch);
        // As Slurm 25.05 and 25.11.0 start it.
        self.submit_script(run, &format!("exec env --block-signal=CHLD {launch}"))
    }

    fn submit_script(&self, run: &Run<'_>, script: &str) -> u32 {
        let mut sbatch = self.command("sbatch", run.env);
        sbatch.args(["--parsable", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=5"]);
        sbatch.arg(format!("--nodes={}", run.nodes)).arg(format!("--ntasks={}", run.nodes * 4));
        sbatch.arg(format!("--output={}.out", self.workspace(run.name).display()));
        sbatch.args(run.sbatch).arg(format!("--wrap={script}"));
        let submitted = sbatch.output().unwrap();
        let words = String::from_utf8_lossy(&submitted.stderr).into_owned();
        String::from_utf8_lossy(&submitted.stdout).trim().parse().expect(&words)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.workspace(name).with_extension("out")).unwrap_or_default()
    }

    /// The result as it is now; nothing while there is none.
    fn peek(&self, name: &str) -> Option<RunResult> {
        RunResult::read(&self.workspace(name)).ok()
    }

    /// Waits for the result to be as wanted.
    fn wait_for(&self, name: &str, wanted: impl Fn(&RunResult) -> bool) -> RunResult {
        let deadline = Instant::now() + A_MINUTE;
        loop {
            let result = self.peek(name);
            match result {
                Some(result) if wanted(&result) => return result,
                result => assert!(Instant::now() < deadline, "{result:#?}\n{}", self.log(name)),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits for a job's end; gives it, and the result.
    fn ended(&self, id: u32, name: &str) -> (Job, RunResult) {
        let deadline = Instant::now() + 2 * A_MINUTE;
        let job = loop {
            let job = self.cluster.job(id);
            if job.has_ended() {
                break job;
            }
            assert!(
                Instant::now() < deadline,
                "{name}: {job:?}\n{:#?}\n{:#?}\n{}",
                self.processes_of(name),
                self.peek(name),
                self.log(name)
            );
            std::thread::sleep(Duration::from_millis(100));
        };
        let result = self.peek(name).unwrap_or_else(|| panic!("no result: {}", self.log(name)));
        self.assert_no_process(name);
        (job, result)
    }

    fn passed(&self, id: u32, name: &str) -> RunResult {
        let (job, result) = self.ended(id, name);
        let log = self.log(name);
        assert_eq!(job.exit_code(), Some((0, 0)), "{name}: {log}");
        assert_eq!(result.verdict.kind, VerdictKind::Passed, "{name}: {log}");
        result
    }

    fn processes_of(&self, name: &str) -> Vec<Process> {
        let workspace = format!("{}/", self.workspace(name).display());
        let mut processes = self.cluster.processes();
        processes.retain(|process| process.command.contains(&workspace));
        processes
    }

    /// No process of a run is left on any node, nor anything that works for it.
    fn assert_no_process(&self, name: &str) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.processes_of(name);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "{name}: {left:#?}\n{}", self.log(name));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn launcher(&self, name: &str) -> Process {
        let workspace = self.workspace(name).display().to_string();
        let is_launcher = |process: &Process| {
            process.command.starts_with("slurm-disagg launch")
                && process.command.contains(&workspace)
        };
        self.cluster.processes().into_iter().find(is_launcher).expect("the launch runs")
    }
}

fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn is_in_benchmark(result: &RunResult) -> bool {
    result.phase == Phase::Benchmark
}

/// What a launch that is to be ended while it runs is given: where slurmstepd may hang in PMIx when
/// it is killed while the ranks meet (25.05 to 26.05 with OpenPMIx 4.2), the servers are waited for
/// first.
fn launch_to_be_ended() -> &'static str {
    if Slurm::under_test().release() < (25, 5) { "" } else { "--ready" }
}

/// Makes a run last until something happens to it.
const SLOW: &[(&str, &str)] = &[("STANDIN_TOKEN_SECONDS", "10")];

#[test]
fn a_three_node_plan_passes_and_leaves_all_its_files() {
    let site = Site::start(&Options::nodes(3));
    let start = Instant::now();
    // Long enough for the probe to see each server while it serves.
    let env = [("STANDIN_TOKEN_SECONDS", "0.1")];
    let launch = "--ready --limit ready=1m";
    let id = site.submit(&Run { launch, env: &env, ..Run::default() });
    let result = site.passed(id, "run");
    assert!(start.elapsed() < A_MINUTE);

    let workspace = site.workspace("run");
    let directory = workspace.join(format!("runs/{id}.0"));
    for step in &result.steps {
        assert!(step.started <= step.running && step.running <= step.ended, "{step:#?}");
        assert_eq!(step.exit, Some(Exit::Status(0)), "{step:#?}");
        assert_eq!(step.ready.is_some(), step.name != "BENCHMARK", "{step:#?}");
        assert!(fs::read_to_string(workspace.join(&step.log)).unwrap().contains(" passed"));
        let junit = step.junit.as_ref().unwrap();
        assert_eq!(*junit, format!("results-{}.xml", step.name));
        assert!(directory.join(junit).is_file());
    }
    let ended = |name: &str| result.steps.iter().find(|step| step.name == name).unwrap().ended;
    assert!(ended("BENCHMARK") <= ended("DISAGG_SERVER"));
    assert!(ended("DISAGG_SERVER") <= ended("GEN_0") && ended("DISAGG_SERVER") <= ended("CTX_0"));
    let junit = result.junit.unwrap();
    assert_eq!((junit.tests, junit.failures, junit.errors, junit.lost.len()), (5, 0, 0, 0));
    for file in ["results.xml", "report.csv", "summary.md", "srun.log", "benchmark.log"] {
        assert!(fs::metadata(workspace.join(file)).unwrap().len() > 0, "{file}");
        assert!(workspace.join(file).canonicalize().unwrap().starts_with(&directory), "{file}");
    }
    assert!(fs::read_to_string(workspace.join("summary.md")).unwrap().contains("### Passed"));
}

#[test]
fn sbatch_with_a_config_and_the_launch_are_all_that_a_run_takes() {
    let files = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o755)).tempdir();
    let files = files.unwrap();
    // A user's sbatch opens the plugin too.
    let plugin = files.path().join("spank_disagg.so");
    fs::copy(built("spank_disagg.so"), &plugin).unwrap();
    let site = Site::start(&Options::nodes(3).spank(&format!("required {}", plugin.display())));
    // The tree that a config lies in is the one that it is for.
    let configs = site.cluster.work().join("standin/tree/tests/scripts/perf-sanity");
    for (folder, config, test, nodes) in [
        ("disaggregated", "standin_3nodes", None, 3),
        ("disaggregated", "standin_one_gpu", Some("aggr_upload-ctx_only-standin_one_gpu"), 1),
        ("aggregated", "standin_servers", Some("aggr_upload-standin_servers-two_nodes"), 2),
    ] {
        let file = configs.join(folder).join(config);
        let file = format!("--disagg-config={}.yaml", file.display());
        let test = test.map(|id| format!("--disagg-test={id}"));
        let sbatch: Vec<&str> = [Some(&file), test.as_ref()]
            .into_iter()
            .flatten()
            .map(|option| option.as_str())
            .collect();
        let name = format!("disagg_{config}");
        let run = Run { name: &name, nodes, sbatch: &sbatch, ..Run::default() };
        site.passed(site.submit_script(&run, "exec slurm-disagg launch"), &name);
    }
}

#[test]
fn roles_may_share_a_node_use_many_or_be_missing() {
    let site = Site::start(&Options::nodes(18));
    let packed = Run {
        name: "packed",
        config: "standin_packed",
        plan: &["--placement", "packed"],
        nodes: 1,
        ..Run::default()
    };
    let gen_only = Run { name: "gen_only", config: "standin_gen_only", nodes: 2, ..Run::default() };
    let wide = Run {
        name: "wide",
        config: "standin_2gen_3ctx_18nodes",
        nodes: 18,
        launch: "--stagger 0.1",
        ..Run::default()
    };
    let packed_id = site.submit(&packed);
    let gen_only_id = site.submit(&gen_only);
    site.passed(packed_id, "packed");
    let gen_only = site.passed(gen_only_id, "gen_only");
    assert!(gen_only.steps.iter().all(|step| !step.name.starts_with("CTX")));
    let wide_id = site.submit(&wide);
    let wide = site.passed(wide_id, "wide");
    assert_eq!(wide.steps.len(), 7);
    let starts: Vec<_> = wide.steps.iter().map(|step| step.started.unwrap()).collect();
    for pair in starts.windows(2) {
        assert!(pair[1].since(pair[0]) >= Duration::from_millis(99), "{starts:?}");
    }
}

/// A fault, the arguments of the launch, and what the verdict is to be.
struct Case {
    fault: &'static str,
    launch: &'static str,
    kind: VerdictKind,
    role: &'static str,
    rank: Option<u32>,
    exit: Option<Exit>,
}

fn case(fault: &'static str, kind: VerdictKind, exit: Option<Exit>) -> Case {
    let who = fault.split(':').next().unwrap();
    let (role, rank) =
        who.split_once('.').map_or((who, 0), |(role, rank)| (role, rank.parse().unwrap()));
    Case { fault, launch: "", kind, role, rank: Some(rank), exit }
}

fn cases() -> Vec<Case> {
    use Exit::Status;
    use VerdictKind::{BenchmarkFailed, BenchmarkLimit, Passed, ReadyLimit, ServerEnded};
    let died = |fault, status| case(fault, ServerEnded, Some(Status(status)));
    let never_ready =
        |fault| Case { launch: "--ready --limit ready=8s", ..case(fault, ReadyLimit, None) };
    let hangs = |fault| Case {
        launch: "--limit benchmark=4s",
        role: "BENCHMARK",
        ..case(fault, BenchmarkLimit, None)
    };
    let mut cases = vec![
        died("GEN_0:die_at_start", 42),
        died("CTX_0:die_at_start", 42),
        died("DISAGG_SERVER:die_at_start", 42),
        case("BENCHMARK:die_at_start", BenchmarkFailed, Some(Status(42))),
        died("GEN_0:die_after:2", 42),
        died("CTX_0:die_after:2", 42),
        died("DISAGG_SERVER:die_after:2", 42),
        case("BENCHMARK:die_after:2", BenchmarkFailed, Some(Status(42))),
        died("GEN_0:exit_zero_early", 0),
        died("CTX_0:exit_zero_early", 0),
        died("DISAGG_SERVER:exit_zero_early", 0),
        case("BENCHMARK:exit_zero_early", Passed, Some(Status(0))),
        // The launcher ends all ranks with 128 + n for signal n.
        died("GEN_0:die_by_signal:6", 134),
        died("CTX_0:die_by_signal:11", 139),
        case("DISAGG_SERVER:die_by_signal:11", ServerEnded, Some(Exit::Signal(11))),
        case("BENCHMARK:die_by_signal:11", BenchmarkFailed, Some(Exit::Signal(11))),
        died("GEN_0.5:die_at_start", 42),
        case("GEN_0.5:die_by_signal:11", ServerEnded, Some(Exit::Signal(11))),
        never_ready("GEN_0:never_ready"),
        never_ready("CTX_0.3:never_ready"),
        never_ready("DISAGG_SERVER:never_ready"),
        hangs("BENCHMARK:never_ready"),
        hangs("GEN_0:hang"),
        hangs("CTX_0:hang"),
        hangs("DISAGG_SERVER:hang"),
        hangs("BENCHMARK:hang"),
        case("BENCHMARK:fail", BenchmarkFailed, Some(Status(1))),
    ];
    for fault in [
        "GEN_0:ignore_sigterm",
        "CTX_0:ignore_sigterm",
        "DISAGG_SERVER:ignore_sigterm",
        "GEN_0:flood_log:8",
    ] {
        let passes = case(fault, Passed, Some(Status(0)));
        cases.push(Case { launch: "--grace-after-benchmark 2", role: "BENCHMARK", ..passes });
    }
    cases
}

#[test]
fn each_fault_of_each_role_has_its_verdict_and_leaves_nothing_behind() {
    let site = Site::start(&Options::nodes(6));
    let cases = cases();
    let names: Vec<String> = (0..cases.len()).map(|number| format!("fault{number}")).collect();
    let jobs: Vec<u32> = cases
        .iter()
        .zip(&names)
        .map(|(case, name)| {
            let env = [("STANDIN_FAULT", case.fault), ("STANDIN_TOKEN_SECONDS", "0.02")];
            site.submit(&Run { name, launch: case.launch, env: &env, ..Run::default() })
        })
        .collect();
    for ((case, name), id) in cases.iter().zip(&names).zip(jobs) {
        let (job, result) = site.ended(id, name);
        let verdict = &result.verdict;
        let context = format!("{}: {verdict:#?}\n{}", case.fault, site.log(name));
        assert_eq!(verdict.kind, case.kind, "{context}");
        let status = if case.kind == VerdictKind::Passed { 0 } else { 1 };
        assert_eq!(job.exit_code(), Some((status, 0)), "{context}");
        assert_eq!(verdict.role.as_deref(), Some(case.role), "{context}");
        assert!(result.steps.iter().all(|step| step.ended.is_some()), "{context}");
        if let Some(exit) = case.exit {
            assert_eq!(verdict.exit, Some(exit), "{context}");
            if !exit.is_success() {
                // The launcher ends all ranks with the first one's status; which of them Slurm
                // hears of first is open.
                let is_shared = ["GEN_0:", "CTX_0:"].iter().any(|who| case.fault.starts_with(who));
                assert!(is_shared || verdict.rank == case.rank, "{context}");
                assert!(verdict.rank.is_some(), "{context}");
                assert!(result.nodes.contains(verdict.node.as_ref().unwrap()), "{context}");
            }
        }
        if case.kind != VerdictKind::Passed {
            assert!(verdict.message.contains(case.role), "{context}");
            assert!(!verdict.log_tail.is_empty(), "{context}");
            let junit = result.junit.as_ref().unwrap();
            assert!(junit.failures > 0, "{context}");
        }
        let stop = Duration::from_millis(verdict.stop_ms.unwrap());
        let slow_to_end =
            case.fault.contains("ignore_sigterm") || case.fault.contains("never_ready");
        let patience = if slow_to_end { 10 } else { 4 };
        assert!(stop < Duration::from_secs(patience), "{context}");
        if case.fault.contains("ignore_sigterm") {
            assert!(stop >= Duration::from_secs(2), "{context}");
            let of = |step: &&StepResult| case.fault.starts_with(&step.name);
            let stop = result.steps.iter().find(of).unwrap().stop.unwrap();
            assert_eq!(stop.signal, StopSignal::Kill, "{context}");
            assert!(stop.after_ms >= 2_000, "{context}");
        }
        if case.fault.contains("flood_log") {
            let log = fs::metadata(site.workspace(name).join("gen_server_0.log")).unwrap();
            assert!(log.len() > 8 << 20, "{context}");
        }
        eprintln!("{}: {} after the stop of {stop:?}", case.fault, verdict.kind.name());
    }
}

#[test]
fn a_server_s_death_ends_the_job_within_two_seconds() {
    let site = Site::start(&Options::nodes(3));
    let id = site.submit(&Run { launch: "--ready", env: SLOW, ..Run::default() });
    site.wait_for("run", is_in_benchmark);
    let is_pytest = |process: &Process| {
        process.command.contains("results-CTX_0.xml")
            && process.command.contains("python3 -m pytest")
    };
    let server = site.processes_of("run").into_iter().find(is_pytest);
    let death = Instant::now();
    kill(server.expect("CTX_0 serves").pid, "-KILL");
    let job = site.cluster.wait_until(id, A_MINUTE, |job| job.state() != "RUNNING");
    let took = death.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}: {job:?}\n{}", site.log("run"));
    let (_, result) = site.ended(id, "run");
    assert_eq!(result.verdict.kind, VerdictKind::ServerEnded);
    assert_eq!(result.verdict.role.as_deref(), Some("CTX_0"));
    assert_eq!(result.verdict.exit, Some(Exit::Status(137)), "{:#?}", result.verdict);
}

#[test]
fn whoever_ends_the_job_finds_the_reason_in_the_verdict() {
    let site = Site::start(&Options::nodes(9));
    let launch = launch_to_be_ended();
    let run = |name| Run { name, env: SLOW, launch, ..Run::default() };
    let time_limit = site.submit(&Run { sbatch: &["--time=1"], ..run("time_limit") });
    let names = ["cancelled", "without_exec"];
    let cancelled = site.submit(&run(names[0]));
    let workspace = site.plan(&run(names[1]));
    let script = format!("slurm-disagg launch {launch} --workspace {}", workspace.display());
    let without_exec = site.submit_script(&run(names[1]), &script);
    for (id, name) in [cancelled, without_exec].into_iter().zip(names) {
        site.wait_for(name, is_in_benchmark);
        let id = id.to_string();
        let _ = site.cluster.run(["scancel", &id]).checked();
    }
    for (id, name) in [cancelled, without_exec].into_iter().zip(names) {
        let (_, _) = site.ended(id, name);
        let result = site.wait_for(name, |result| result.verdict.kind == VerdictKind::Cancelled);
        assert!(result.steps.iter().all(|step| step.ended.is_some()), "{result:#?}");
    }

    let near = site.submit(&run("near"));
    site.wait_for("near", is_in_benchmark);
    let _ = site.cluster.run(["scancel", "--batch", "--signal=USR1", &near.to_string()]).checked();
    let (job, result) = site.ended(near, "near");
    assert_eq!(job.exit_code(), Some((1, 0)));
    assert_eq!(result.verdict.kind, VerdictKind::TimeLimitNear);

    let killed = site.submit(&run("killed"));
    site.wait_for("killed", is_in_benchmark);
    kill(site.launcher("killed").pid, "-KILL");
    let (job, result) = site.ended(killed, "killed");
    assert_eq!(job.state(), "FAILED");
    assert_eq!(result.verdict.kind, VerdictKind::Running, "nobody was left to say more");

    let (job, result) = site.ended(time_limit, "time_limit");
    assert_eq!(job.state(), "TIMEOUT");
    assert_eq!(result.verdict.kind, VerdictKind::TimeLimit, "{}", site.log("time_limit"));
}

#[test]
fn a_launch_that_is_killed_takes_its_steps_along_although_the_job_goes_on() {
    let site = Site::start(&Options::nodes(3));
    let workspace = site.plan(&Run::default());
    let script = format!("slurm-disagg launch --workspace {}; sleep 60", workspace.display());
    let id = site.submit_script(&Run { env: SLOW, ..Run::default() }, &script);
    site.wait_for("run", is_in_benchmark);
    kill(site.launcher("run").pid, "-KILL");
    site.assert_no_process("run");
    assert_eq!(site.cluster.job(id).state(), "RUNNING");
}

/// What an earlier run's slurmstepd may leave behind when its job is requeued: the place of the PMIx
/// server's socket is taken, and the requeued job's step with the same id cannot be launched.
#[test]
fn a_step_whose_launch_fails_is_started_once_more() {
    let site = Site::start(&Options::nodes(2));
    let run = |name, taken: &[(u32, u32)]| {
        // It is one step, so the ids are known.
        let plan = ["--test-id", "aggr_upload-standin_servers-two_nodes"];
        let (config, sbatch) = ("standin_servers", ["--hold"]);
        let run = Run { name, config, nodes: 2, plan: &plan, sbatch: &sbatch, ..Run::default() };
        let id = site.submit(&run);
        for (node, step) in taken {
            let socket = format!("spool/node{node}/stepd.slurm.pmix.{id}.{step}");
            fs::create_dir(site.cluster.dir().join(socket)).unwrap();
        }
        let _ = site.cluster.run(["scontrol", "release", &id.to_string()]).checked();
        id
    };
    // On all of its nodes, and on one: srun then kills the ranks on the other.
    for (name, taken) in [("second", &[(1, 0), (2, 0)][..]), ("in_part", &[(2, 0)])] {
        let id = run(name, taken);
        let result = site.passed(id, name);
        assert_eq!(result.steps[0].step_id, Some(format!("{id}.1")));
        assert!(site.log(name).contains("starting it again"), "{}", site.log(name));
    }

    let id = run("never", &[(1, 0), (2, 0), (1, 1)]);
    let (job, result) = site.ended(id, "never");
    assert_eq!(job.exit_code(), Some((1, 0)));
    assert_eq!(result.verdict.kind, VerdictKind::StartFailed);
    for part in [" twice: ", "launch failed: ", "the log of slurmd on node[1-2]"] {
        assert!(result.verdict.message.contains(part), "{}", result.verdict.message);
    }
}

#[test]
fn a_requeued_job_runs_again_beside_its_first_run() {
    let site = Site::start(&Options::nodes(3));
    let launch = launch_to_be_ended();
    let id = site.submit(&Run { env: SLOW, launch, sbatch: &["--requeue"], ..Run::default() });
    site.wait_for("run", is_in_benchmark);
    let runs = site.workspace("run").join("runs");
    let first_log = runs.join(format!("{id}.0/gen_server_0.log"));
    let _ = site.cluster.run(["scontrol", "requeue", &id.to_string()]).checked();
    site.wait_for("run", |result| result.run.restart == 1 && is_in_benchmark(result));
    let first = RunResult::read(&runs.join(format!("{id}.0"))).unwrap();
    assert_eq!(first.verdict.kind, VerdictKind::Requeued);
    let text = fs::read_to_string(&first_log).unwrap();
    let second = site.workspace("run").join("gen_server_0.log").canonicalize().unwrap();
    assert_eq!(second, runs.join(format!("{id}.1/gen_server_0.log")).canonicalize().unwrap());
    let _ = site.cluster.run(["scancel", &id.to_string()]).checked();
    let (_, result) = site.ended(id, "run");
    assert_eq!((result.run.restart, result.verdict.kind), (1, VerdictKind::Cancelled));
    assert_eq!(fs::read_to_string(&first_log).unwrap(), text, "the older run's log is untouched");
    assert_eq!(RunResult::read(&runs.join(format!("{id}.0"))).unwrap(), first);
}

#[test]
fn daemons_that_are_lost_for_a_while_are_no_reason_to_fail() {
    let site = Site::start(&Options::nodes(3));
    let env = [("STANDIN_TOKEN_SECONDS", "0.3")];
    // The ranks have met by then: for that they need their nodes' slurmd.
    let id = site.submit(&Run { env: &env, launch: "--ready", ..Run::default() });
    site.wait_for("run", is_in_benchmark);
    site.cluster.stop("slurmctld", "TERM");
    site.cluster.stop("node2", "KILL");
    if Slurm::under_test().release() < (26, 5) {
        site.wait_for("run", |result| result.verdict.kind != VerdictKind::Running);
    } else {
        // There slurmstepd tells srun of a task's end only after it has told slurmctld.
        let log = site.workspace("run").join("benchmark.log");
        let deadline = Instant::now() + A_MINUTE;
        while !fs::read_to_string(&log).unwrap().contains(" passed") {
            assert!(Instant::now() < deadline, "{}", site.log("run"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    site.cluster.restart("node2");
    site.cluster.restart("slurmctld");
    site.passed(id, "run");
}

/// A small file system; it is gone when this is dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Self {
        let disk = Self(tempfile::Builder::new().prefix("disk").tempdir_in("/tmp").unwrap());
        let options = format!("size={size},mode=1777");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &options, "disagg-test"]).arg(disk.0.path());
        let mounted = mount.status().unwrap();
        assert!(mounted.success(), "a tmpfs cannot be mounted; this test needs root");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_swallows_no_verdict() {
    // The cluster's nodes see what is mounted before they start.
    let disk = SmallDisk::new("4m");
    let site = Site::start(&Options::nodes(3));
    let on_disk = disk.0.path().join("run");
    fs::create_dir(&on_disk).unwrap();
    fs::set_permissions(&on_disk, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(&on_disk, site.workspace("run")).unwrap();
    let env = [
        ("STANDIN_FAULT", "GEN_0:flood_log:16,CTX_0:die_after:2"),
        ("STANDIN_TOKEN_SECONDS", "0.02"),
    ];
    let id = site.submit(&Run { env: &env, ..Run::default() });
    let (job, result) = site.ended(id, "run");
    assert_eq!(job.exit_code(), Some((1, 0)), "{}", site.log("run"));
    assert!(result.is_over() && !result.verdict.kind.is_passed(), "{result:#?}");
    assert!(site.log("run").contains(&result.verdict.message));

    let rest = fs::File::create(disk.0.path().join("rest")).unwrap();
    let _ = std::io::copy(&mut std::io::repeat(0), &mut &rest);
    let again = site.submit_script(
        &Run::default(),
        &format!("exec slurm-disagg launch --workspace {}", site.workspace("run").display()),
    );
    let job = site.cluster.wait_job(again, A_MINUTE);
    assert_eq!(job.exit_code(), Some((1, 0)));
    assert!(site.log("run").contains("nothing was started"), "{}", site.log("run"));
}

#[test]
fn what_cannot_start_says_why() {
    let site = Site::start(&Options::nodes(3));
    let run = |name| Run { name, ..Run::default() };
    let script = |name: &str, text: &str| {
        let path = site.cluster.work().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bad = script("bad.sh", "echo it is broken; [ \"$SLURM_PROCID\" != 1 ] || exit 7\n");
    let install = ["--install-sh", &bad];
    let install = site.submit(&Run { plan: &install, ..run("install") });
    let container = ["--container-image", "image"];
    let container = site.submit(&Run { plan: &container, ..run("container") });
    let stagger = "--stagger 3s --limit start=2s";
    let stagger = site.submit(&Run { launch: stagger, ..run("stagger") });
    let small = site.submit(&Run { nodes: 2, ..run("small") });

    let (_, result) = site.ended(install, "install");
    assert_eq!(result.verdict.kind, VerdictKind::InstallFailed);
    let verdict = &result.verdict;
    assert_eq!((verdict.rank, verdict.exit), (Some(1), Some(Exit::Status(7))), "{verdict:#?}");
    assert!(verdict.log_tail.iter().any(|line| line == "it is broken"), "{verdict:#?}");
    assert!(result.steps.iter().skip(1).all(|step| step.started.is_none()));

    // This Slurm has no container plugin.
    let (job, result) = site.ended(container, "container");
    assert_eq!((job.exit_code(), result.verdict.kind), (Some((1, 0)), VerdictKind::StartFailed));
    assert!(result.verdict.message.contains("container"), "{}", result.verdict.message);

    let (_, result) = site.ended(stagger, "stagger");
    assert_eq!(result.verdict.kind, VerdictKind::StartLimit);

    let job = site.cluster.wait_job(small, A_MINUTE);
    assert_eq!(job.exit_code(), Some((2, 0)));
    let log = site.log("small");
    assert!(log.contains("the job has 2 nodes, the plan takes 3: submit with --nodes=3"), "{log}");
}

#[test]
fn scripts_get_what_they_expect() {
    let site = Site::start(&Options::nodes(3));
    let script = |name: &str, text: &str| {
        let path = site.cluster.work().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    // What the existing run script does, in short.
    let run_script =
        script("run.sh", "cd \"$llmSrcNode/tests/integration/defs\"; eval \"$pytestCommand\"\n");
    let install = script("install.sh", "echo \"installed on $SLURM_PROCID of $totalNodes\"\n");
    let plan = ["--run-sh", &run_script, "--install-sh", &install];
    let id = site.submit(&Run { plan: &plan, ..Run::default() });
    let result = site.passed(id, "run");
    assert_eq!(result.steps[0].name, "INSTALL");
    assert!(result.steps[0].ended <= result.steps[1].started);
    let log = fs::read_to_string(site.workspace("run").join("install.log")).unwrap();
    assert_eq!(log.matches(" of 3").count(), 3, "{log}");
}

#[test]
fn sixty_four_servers_start_within_five_seconds_and_the_launch_stays_small() {
    let site = Site::start(&Options::nodes(72));
    // Sixty-six pythons at a time would be what is measured on a machine with two cores.
    let script = site.cluster.work().join("run.sh");
    fs::write(
        &script,
        "[ \"$DISAGG_SERVING_TYPE\" = BENCHMARK ] && exec sleep 8\nexec sleep 600\n",
    )
    .unwrap();
    let run = Run {
        config: "standin_64servers",
        nodes: 64,
        plan: &["--run-sh", &script.display().to_string()],
        ..Run::default()
    };
    let id = site.submit(&run);
    let result = site.wait_for("run", is_in_benchmark);
    assert_eq!(result.steps.len(), 66);
    let running = result.steps.iter().filter_map(|step| step.running);
    let took = running.max().unwrap().since(result.started);
    assert!(took < Duration::from_secs(5), "{took:?}");

    std::thread::sleep(Duration::from_secs(5));
    let (peak, seconds) = cost(site.launcher("run").pid);
    let load = seconds / Moment::now().since(result.started).as_secs_f64();
    eprintln!("{took:?}, {peak} kB at most, {:.1} % of a core", load * 100.0);
    assert!(peak < 20 << 10, "{peak} kB");
    assert!(load < 0.05, "{load}");
    let junit = site.passed(id, "run").junit.unwrap();
    assert_eq!(junit.lost.len(), 66, "none of these wrote results, and each is named");
}

/// The most memory that a process had, in kB, and the processor time that it took, in seconds.
fn cost(pid: u32) -> (u64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // After the name: state, ten more fields, then utime and stime in hundredths of a second.
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    (peak.trim().trim_end_matches(" kB").parse().unwrap(), ticks / 100.0)
}

#[test]
fn a_test_of_one_server_is_a_run_like_any_other() {
    let site = Site::start(&Options::nodes(3));
    for (name, config, id, nodes) in [
        ("small", "standin_servers", "aggr_upload-standin_servers-small", 1),
        ("two_nodes", "standin_servers", "aggr_upload-standin_servers-two_nodes", 2),
        ("ctx_only", "standin_3nodes", "aggr_upload-ctx_only-standin_3nodes", 1),
    ] {
        let plan = ["--test-id", id];
        let job = site.submit(&Run { name, config, nodes, plan: &plan, ..Run::default() });
        let result = site.passed(job, name);
        let steps: Vec<_> = result.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(steps, ["AGGREGATED"], "{name}");
        assert_eq!(result.steps[0].nodes.len(), nodes as usize, "{name}");
        // The test itself, and the run.
        assert_eq!(result.junit.map(|junit| junit.tests), Some(2), "{name}");
    }
}

#[test]
fn servers_start_when_every_precheck_has_passed_and_never_when_one_fails() {
    let site = Site::start(&Options::nodes(6));
    let plan = ["--test-id", "disagg_upload-e2e-standin_3nodes"];
    let fault = [("STANDIN_PRECHECK_FAULT", "CTX_PRECHECK_0")];
    let good = site.submit(&Run { name: "good", plan: &plan, ..Run::default() });
    let bad = site.submit(&Run { name: "bad", plan: &plan, env: &fault, ..Run::default() });

    let result = site.passed(good, "good");
    let of = |result: &RunResult, name: &str| {
        result.steps.iter().find(|step| step.name == name).cloned().unwrap()
    };
    let checks = [of(&result, "GEN_PRECHECK_0"), of(&result, "CTX_PRECHECK_0")];
    assert!(checks.iter().all(|check| check.ended <= of(&result, "GEN_0").started), "{checks:#?}");

    let (job, result) = site.ended(bad, "bad");
    assert_eq!(job.exit_code(), Some((1, 0)));
    assert_eq!(result.verdict.kind, VerdictKind::PrecheckFailed);
    assert_eq!(result.verdict.role.as_deref(), Some("CTX_PRECHECK_0"), "{:#?}", result.verdict);
    assert!(of(&result, "GEN_0").started.is_none() && of(&result, "BENCHMARK").started.is_none());
    let results = fs::read_to_string(site.workspace("bad").join("results.xml")).unwrap();
    assert!(results.contains("CTX_PRECHECK_0") && results.contains("<failure"), "{results}");
}
