// SPDX-License-Identifier: Apache-2.0
//! The same plugin in a real Slurm and in the simulated one of its release: both give the same
//! callbacks, in the same order, in the same contexts, as the same kind of user, and the same
//! sizes.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, bare, environ};
use slurm_bed::{Cluster as Bed, Options, Slurm};
use slurm_sim::{Cluster, Env, Outcome, User};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

fn bed(plugstack: &str) -> Bed {
    Bed::start(&Options::nodes(3).gpus(0).spank(plugstack))
}

/// The release under test, played by a cluster whose programs run as root, as in the bed.
fn simulated(bed: &Bed, plugstack: String) -> Cluster {
    let release = Slurm::under_test().version[..5].parse().unwrap();
    let root = User { name: "root".into(), uid: 0, gid: 0, groups: vec![0], login: Env::new() };
    bare(release).user(root).plugstack(plugstack).cwd(bed.work())
}

/// The lines of a trace file: what was appended since the last call.
fn take(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    fs::write(path, "").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The lines of one context, in order. Different programs write at the same time.
fn of_context(lines: &[String], context: char) -> Vec<&str> {
    lines.iter().filter(|line| line.starts_with(context)).map(String::as_str).collect()
}

#[test]
fn a_real_slurm_makes_the_same_callbacks() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let (real_trace, sim_trace) = (bench.path("real"), bench.path("sim"));
    take(&real_trace);
    let line = |trace: &Path| format!("required {} trace={}", probe.display(), trace.display());
    let bed = bed(&line(&real_trace));
    let cluster = simulated(&bed, line(&sim_trace));
    take(&real_trace);
    take(&sim_trace);

    // srun with an allocation of its own.
    let words = ["-N2", "-n3", "--probe-config=F", "--probe-flag", "true"];
    bed.run([&["srun"], &words[..]].concat()).ok();
    cluster.srun(&words, &environ()).unwrap();
    // slurmstepd may still be at its exit hook when srun has ended.
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (real, sim) = (take(&real_trace), take(&sim_trace));
    assert_eq!(of_context(&real, '1'), of_context(&sim, '1'), "srun");
    // Two nodes write at once: compare the multiset.
    assert_eq!(sorted(of_context(&real, '2')), sorted(of_context(&sim, '2')), "slurmstepd");

    // One task: its slurmstepd's order is fixed but for the forked task beside its parent.
    bed.run(["srun", "-n1", "--probe-config=F", "true"]).ok();
    cluster.srun(&["-n1", "--probe-config=F", "true"], &environ()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (real, sim) = (take(&real_trace), take(&sim_trace));
    let without_fork = |lines: Vec<&str>| {
        let mut lines: Vec<_> = lines.into_iter().map(str::to_owned).collect();
        lines.retain(|line| !line.contains("post_fork"));
        lines
    };
    assert_eq!(
        without_fork(of_context(&real, '2')),
        without_fork(of_context(&sim, '2')),
        "slurmstepd of one task"
    );

    // sbatch, with options in the script and a component more.
    let script = bench.script("#SBATCH --probe-config=S\ntrue");
    let script_words = ["-W", "-o", "/dev/null", "--probe-config=C", &script];
    bed.run([&["sbatch"], &script_words[..]].concat()).ok();
    let sbatch = cluster.sbatch(&script_words, &environ()).unwrap();
    assert!(sbatch.is_clean(), "{}", sbatch.stderr);
    let submission = sbatch.submissions()[0];
    let allocation = cluster.allocate_for(submission).unwrap();
    cluster.batch(submission, &allocation).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (real, sim) = (take(&real_trace), take(&sim_trace));
    assert_eq!(of_context(&real, '3'), of_context(&sim, '3'), "sbatch");
    assert_eq!(
        without_fork(of_context(&real, '2')),
        without_fork(of_context(&sim, '2')),
        "batch step"
    );

    let het = ["-W", "-o", "/dev/null", "-N1", "--probe-config=A", ":", "-N1", &script];
    bed.run([&["sbatch"], &het[..]].concat()).ok();
    cluster.sbatch(&het, &environ()).unwrap();
    let (real, sim) = (take(&real_trace), take(&sim_trace));
    assert_eq!(of_context(&real, '3'), of_context(&sim, '3'), "heterogeneous sbatch");

    // A refused and an unknown option: exit code and words.
    for words in [&["--probe-config=refuse", "true"][..], &["--no-such", "true"]] {
        let output = bed.run([&["srun"], words].concat());
        let trace = cluster.srun(words, &environ()).unwrap().client;
        assert_eq!(Some(trace.outcome), output.code.map(Outcome::Exit), "{words:?}");
        assert_eq!(output.stderr.lines().next(), trace.stderr.lines().next(), "{words:?}");
    }
}

#[test]
fn a_real_slurm_gives_the_same_environment() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let actions = "init_post_opt:environ:SLURM_MINE:1 init_post_opt:control-set:C:2";
    let line = format!("required {} {actions}", probe.display());
    let bed = bed(&line);
    let nodes = (1..=3).map(|n| slurm_sim::Node { name: format!("node{n}"), cpus: 1 }).collect();
    let cluster = simulated(&bed, line).nodes(nodes);
    let out = bench.path("out");
    fs::create_dir(&out).unwrap();
    let script = bench.script(&format!(
        "/usr/bin/env > {0}/batch\n\
         /usr/bin/srun -N2 -n2 /bin/sh -c '/usr/bin/env > {0}/rank$SLURM_PROCID'",
        out.display()
    ));
    for export in ["--export=ALL", "--export=NONE"] {
        let args = ["-W", "-o", "/dev/null", "-N3", "-n3", "--probe-config=F", export, &script];
        bed.run([&["sbatch"], &args[..]].concat()).ok();
        let sbatch = cluster.sbatch(&args, &environ()).unwrap();
        assert!(sbatch.is_clean(), "{}", sbatch.stderr);
        let submission = sbatch.submissions()[0];
        let allocation = cluster.allocate_for(submission).unwrap();
        let batch = cluster.batch(submission, &allocation).unwrap();
        let batch_env = &batch.ranks()[0].environment;
        compare(export, &read_env(&out.join("batch")), batch_env);
        let run = cluster.srun_in(&allocation, 0, &["-N2", "-n2", "true"], batch_env).unwrap();
        for rank in run.ranks() {
            let real = read_env(&out.join(format!("rank{}", rank.task)));
            compare(&format!("{export} rank {}", rank.task), &real, &rank.environment);
        }
    }
}

fn sorted(mut lines: Vec<&str>) -> Vec<&str> {
    lines.sort_unstable();
    lines
}

fn read_env(path: &Path) -> Env {
    let text = fs::read_to_string(path).unwrap();
    text.lines().filter_map(|line| line.split_once('=')).collect()
}

/// Slurm's variables must be there on both sides, with the same values. Not compared: numbers of
/// the run and of the machine, what the simulator says it doesn't play, and five that only some
/// releases have.
fn compare(what: &str, real: &Env, simulated: &Env) {
    const OF_THE_RUN: [&str; 27] = [
        "SLURM_JOB_ID",
        "SLURM_JOBID",
        "SLURM_TASK_PID",
        "SLURM_CONF",
        "SLURM_CLUSTER_NAME",
        "SLURM_WORKING_CLUSTER",
        "SLURM_SUBMIT_HOST",
        "SLURM_SRUN_COMM_PORT",
        "SLURM_SRUN_COMM_HOST",
        "SLURM_STEP_LAUNCHER_PORT",
        "SLURM_LAUNCH_NODE_IPADDR",
        "SLURM_TOPOLOGY_ADDR",
        "SLURM_TOPOLOGY_ADDR_PATTERN",
        "SLURM_CPUS_ON_NODE",
        "SLURM_JOB_CPUS_PER_NODE",
        "SLURM_JOB_CPUS_PER_NODE_PACK_GROUP_0",
        "SLURM_UMASK",
        "SLURM_SANDBOX_DIR",
        "SLURM_CPU_BIND",
        "SLURM_CPU_BIND_LIST",
        "SLURM_CPU_BIND_TYPE",
        "SLURM_CPU_BIND_VERBOSE",
        "SLURM_JOB_START_TIME",
        "SLURM_JOB_END_TIME",
        "SLURM_NODE_ALIASES",
        "SLURM_OOM_KILL_STEP",
        "SLURMD_DEBUG",
    ];
    let compared = |env: &Env| -> Vec<String> {
        let mut lines: Vec<_> = env
            .iter()
            .filter(|(name, _)| name.starts_with("SLURM") || name.starts_with("_SLURM"))
            .filter(|(name, _)| !OF_THE_RUN.contains(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(compared(real), compared(simulated), "{what}");
}
