// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg launch` on a real Slurm with the stand-in test suite: whatever happens to a run,
//! it ends with the right verdict, and nothing of it is left behind.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

mod faults;
mod health;
mod site;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use disagg::run::result::{Exit, Moment, RunResult, VerdictKind};
use site::{A_MINUTE, Run, SLOW, Site, is_in_benchmark, kill, waits_for_servers};
use slurm_bed::{Options, Process, Slurm, built, public_directory, wait_for};

#[test]
fn a_three_node_plan_passes_and_leaves_all_its_files() {
    let site = Site::start(&Options::nodes(3));
    let start = Instant::now();
    // Long enough for the probe to see each server while it serves.
    let env = [("STANDIN_TOKEN_SECONDS", "0.1")];
    let launch = "--limit ready=1m";
    let install = site.script("install.sh", "echo \"installed on $SLURM_PROCID of $totalNodes\"\n");
    let plan = ["--install-sh", &install];
    let id = site.submit(&Run { launch, ready: true, plan: &plan, env: &env, ..Run::default() });
    let result = site.passed(id, "run");
    assert!(start.elapsed() < A_MINUTE);

    let workspace = site.workspace("run");
    let directory = workspace.join(format!("runs/{id}.0"));
    let (install, steps) = result.steps.split_first().unwrap();
    assert_eq!(install.name, "INSTALL");
    assert!(install.ended <= steps[0].started);
    let log = fs::read_to_string(workspace.join("install.log")).unwrap();
    assert_eq!(log.matches(" of 3").count(), 3, "{log}");
    for step in steps {
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
    assert_eq!((junit.tests, junit.failures, junit.errors, junit.lost.len()), (6, 0, 0, 0));
    for file in ["results.xml", "report.csv", "summary.md", "srun.log", "benchmark.log"] {
        assert!(fs::metadata(workspace.join(file)).unwrap().len() > 0, "{file}");
        assert!(workspace.join(file).canonicalize().unwrap().starts_with(&directory), "{file}");
    }
    assert!(fs::read_to_string(workspace.join("summary.md")).unwrap().contains("### Passed"));
}

#[test]
fn sbatch_with_a_config_and_the_launch_are_all_that_a_run_takes() {
    // A user's sbatch opens the plugin too.
    let files = public_directory();
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

#[test]
fn a_server_s_death_ends_the_job_within_two_seconds() {
    let site = Site::start(&Options::nodes(3));
    let id = site.submit(&Run { ready: true, env: SLOW, ..Run::default() });
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
    assert_eq!(result.verdict.step.as_deref(), Some("CTX_0"));
    assert_eq!(result.verdict.exit, Some(Exit::Status(137)), "{:#?}", result.verdict);
}

#[test]
fn whoever_ends_the_job_finds_the_reason_in_the_verdict() {
    let site = Site::start(&Options::nodes(9));
    let ready = waits_for_servers();
    let run = |name| Run { name, env: SLOW, ready, ..Run::default() };
    let time_limit = site.submit(&run("time_limit"));
    let names = ["cancelled", "without_exec"];
    let cancelled = site.submit(&run(names[0]));
    let workspace = site.plan(&run(names[1]));
    let script = format!("slurm-disagg launch --workspace {}", workspace.display());
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

    // The controller looks at the limits of all jobs every half minute.
    site.wait_for("time_limit", is_in_benchmark);
    let job = format!("JobId={time_limit}");
    let _ = site.cluster.run(["scontrol", "update", &job, "EndTime=now+1"]).checked();

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
    let ready = waits_for_servers();
    let id = site.submit(&Run { env: SLOW, ready, sbatch: &["--requeue"], ..Run::default() });
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
    let id = site.submit(&Run { env: &env, ready: true, ..Run::default() });
    site.wait_for("run", is_in_benchmark);
    site.cluster.stop("slurmctld", "TERM");
    site.cluster.stop("node2", "KILL");
    if Slurm::under_test().release() < (26, 5) {
        site.wait_for("run", |result| result.verdict.kind != VerdictKind::Running);
    } else {
        // There slurmstepd tells srun of a task's end only after it has told slurmctld.
        let log = site.workspace("run").join("benchmark.log");
        let has_passed = || fs::read_to_string(&log).unwrap().contains(" passed").then_some(());
        wait_for(A_MINUTE, has_passed, || site.log("run"));
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
    let bad = site.script("bad.sh", "echo it is broken; [ \"$SLURM_PROCID\" != 1 ] || exit 7\n");
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
fn sixty_four_servers_start_within_seconds_and_the_launch_stays_small() {
    // Two cores that nobody else uses need 2.4 s; each srun and slurmstepd is another process there.
    let cores = std::thread::available_parallelism().unwrap().get();
    many_servers(64, if cores < 8 { 5.0 } else { 2.5 });
}

#[test]
#[ignore = "264 nodes: it needs the machine for itself"]
fn two_hundred_and_fifty_six_servers_start_within_twelve_seconds() {
    many_servers(256, 12.0);
}

fn many_servers(servers: u32, limit: f64) {
    let site = Site::start(&Options::nodes(servers + 8));
    // The command as it is installed: most of what it has in memory is its own code.
    fs::copy(built("slurm-disagg"), site.workspace("slurm-disagg")).unwrap();
    // As many pythons at a time would be what is measured on a machine with two cores.
    let text = "[ \"$DISAGG_SERVING_TYPE\" = BENCHMARK ] && exec sleep 8\nexec sleep 600\n";
    let script = site.script("run.sh", text);
    let sizes = ["ctx", "gen"].map(|role| format!("hardware.num_{role}_servers={}", servers / 2));
    let set = ["cache_transceiver_precheck.enabled=false", &sizes[0], &sizes[1]];
    let set = set.map(|value| format!("--set={value}"));
    let run = Run {
        config: "standin_64servers",
        nodes: servers,
        plan: &["--run-sh", &script, "--rules=current", &set[0], &set[1], &set[2]],
        ..Run::default()
    };
    let id = site.submit(&run);
    let result = site.wait_for("run", is_in_benchmark);
    assert_eq!(result.steps.len(), servers as usize + 2);
    let running = result.steps.iter().filter_map(|step| step.running);
    let took = running.max().unwrap().since(result.started);

    std::thread::sleep(Duration::from_secs(5));
    let (peak, seconds) = cost(site.launcher("run").pid);
    let load = seconds / Moment::now().since(result.started).as_secs_f64();
    eprintln!("{took:?}, {peak} kB at most, {:.1} % of a core", load * 100.0);
    assert!(took.as_secs_f64() < limit, "{took:?}");
    assert!(peak < 10 << 10, "{peak} kB");
    assert!(load < 0.05 * f64::from(servers) / 64.0, "{load}");
    let junit = site.passed(id, "run").junit.unwrap();
    let lost = junit.lost.len();
    assert_eq!(lost, servers as usize + 2, "none of these wrote results, and each is named");
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
