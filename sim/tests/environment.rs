// SPDX-License-Identifier: Apache-2.0
//! What the environment of a job, a step and a rank consists of.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, environ};
use slurm_sim::{Cluster, Env, Level, Outcome, Release, Trace};

const R: Release = Release::V22_05;

fn submit(bench: &Bench, cluster: &Cluster, args: &[&str]) -> (Trace, Env) {
    let (sbatch, batch) = bench.batch(cluster, args);
    let environment = batch.ranks()[0].environment.clone();
    (sbatch, environment)
}

#[test]
fn what_post_opt_puts_into_environ_is_in_the_job() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "init_post_opt:environ:SLURM_DISAGG_PLAN:p");
    for export in ["--export=ALL", "--export=NONE", "--export=NIL", "--export=MINE"] {
        let (_, env) = submit(&bench, &cluster, &[export]);
        assert_eq!(env.get("SLURM_DISAGG_PLAN"), Some("p"), "{export}");
        let kept = export.ends_with("ALL") || export.ends_with("MINE");
        assert_eq!(env.get("MINE").is_some(), kept, "{export}");
    }
}

#[test]
fn job_control_reaches_the_job_with_its_prefix_whatever_is_exported() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "init_post_opt:control-set:DEMAND:v1");
    for export in ["--export=ALL", "--export=NONE"] {
        let (sbatch, env) = submit(&bench, &cluster, &[export]);
        assert_eq!(sbatch.submissions()[0].job_control.get("DEMAND"), Some("v1"));
        assert_eq!(env.get("SLURM_SPANK_DEMAND"), Some("v1"), "{export}");
    }
}

#[test]
fn srun_in_the_job_has_the_job_control_environment() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "init_post_opt:control-get:DEMAND init:control-set:DEMAND:v1");
    let (_, env) = submit(&bench, &cluster, &[]);
    let reader = bench.cluster(R, "init:control-get:DEMAND");
    let allocation = reader.allocate(1).unwrap();
    let run = reader.srun_in(&allocation, 0, &["true"], &env).unwrap();
    assert_eq!(run.client.log(Level::SpankLog), ["control DEMAND=v1"]);
}

#[test]
fn the_batch_script_has_the_variables_of_its_job() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "");
    let (_, env) = submit(&bench, &cluster, &["-N3", "-n6", "--ntasks-per-node=2"]);
    for (name, value) in [
        ("SLURM_JOB_NUM_NODES", "3"),
        ("SLURM_NNODES", "3"),
        ("SLURM_JOB_NODELIST", "node[1-3]"),
        ("SLURM_NTASKS", "6"),
        ("SLURM_NPROCS", "6"),
        ("SLURM_NTASKS_PER_NODE", "2"),
        ("SLURM_TASKS_PER_NODE", "2(x3)"),
        ("SLURM_PROCID", "0"),
        ("SLURMD_NODENAME", "node1"),
        ("SLURM_JOB_NAME", "job.sh"),
        ("MINE", "yes"),
    ] {
        assert_eq!(env.get(name), Some(value), "{name}");
    }
}

#[test]
fn a_rank_has_the_variables_of_its_place() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "");
    let allocation = cluster.allocate(3).unwrap();
    let run = cluster.srun_in(&allocation, 5, &["-N2", "-n4", "true"], &environ()).unwrap();
    let rank = run.ranks()[3].clone();
    for (name, value) in [
        ("SLURM_PROCID", "3"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NODEID", "1"),
        ("SLURM_GTIDS", "2,3"),
        ("SLURM_NNODES", "2"),
        ("SLURM_NTASKS", "4"),
        ("SLURM_STEP_ID", "5"),
        ("SLURM_STEP_NODELIST", "node[1-2]"),
        ("SLURM_STEP_NUM_NODES", "2"),
        ("SLURM_STEP_NUM_TASKS", "4"),
        ("SLURM_STEP_TASKS_PER_NODE", "2(x2)"),
        ("SLURMD_NODENAME", "node2"),
    ] {
        assert_eq!(rank.environment.get(name), Some(value), "{name}");
    }
}

#[test]
fn variables_set_for_the_step_reach_every_task_and_those_of_a_task_only_it() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "user_init:setenv:ALL_TASKS:1 task_init:unsetenv:MINE");
    let run = cluster.srun(&["-n2", "true"], &environ()).unwrap();
    for rank in run.ranks() {
        assert_eq!(rank.environment.get("ALL_TASKS"), Some("1"));
        assert_eq!(rank.environment.get("MINE"), None);
    }
    let stepd = &run.stepds[0];
    assert!(stepd.is_clean());
    let reader = bench.cluster(R, "task_exit:environment:MINE");
    let run = reader.srun(&["true"], &environ()).unwrap();
    assert_eq!(run.stepds[0].log(Level::SpankLog), ["environment MINE=yes"]);
}

#[test]
fn export_none_of_srun_leaves_the_tasks_slurms_variables() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "");
    let run = cluster.srun(&["--export=NONE", "true"], &environ()).unwrap();
    let env = &run.ranks()[0].environment;
    assert_eq!(env.get("MINE"), None);
    assert!(env.get("SLURM_PROCID").is_some());
    let run = cluster.srun(&["--export=MINE,NEW=1", "true"], &environ()).unwrap();
    let env = &run.ranks()[0].environment;
    assert_eq!((env.get("MINE"), env.get("NEW"), env.get("HOME")), (Some("yes"), Some("1"), None));
}

#[test]
fn export_none_of_sbatch_holds_for_srun_in_the_job() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "");
    let (_, env) = submit(&bench, &cluster, &["--export=NONE"]);
    assert_eq!(env.get("SLURM_EXPORT_ENV"), Some("NONE"));
    let allocation = cluster.allocate(1).unwrap();
    let env = env.with("SET_IN_SCRIPT", "1");
    let run = cluster.srun_in(&allocation, 0, &["true"], &env).unwrap();
    assert_eq!(run.ranks()[0].environment.get("SET_IN_SCRIPT"), None);
}

#[test]
fn defaults_that_init_sets_size_the_step_and_the_command_line_overrides() {
    let bench = Bench::new();
    let actions = "init:environ:SLURM_JOB_NUM_NODES:2 init:environ:SLURM_NTASKS:8 \
                   init:environ:SLURM_NTASKS_PER_NODE:4 init:environ:SLURM_MPI_TYPE:pmix \
                   init:environ:SLURM_OVERLAP:1 init:environ:SLURM_KILL_BAD_EXIT:1";
    for release in Release::ALL {
        let cluster = bench.cluster(release, actions);
        let allocation = cluster.allocate(4).unwrap();
        let run = cluster.srun_in(&allocation, 0, &["true"], &environ()).unwrap();
        let step = run.client.step().unwrap();
        assert_eq!(step.layout.tasks_per_node(), "4(x2)", "{release}");
        assert_eq!(step.request.mpi.as_deref(), Some("pmix"));
        assert!(step.request.overlap && step.request.kill_on_bad_exit);
        let args = ["-N1", "-n1", "--mpi=none", "true"];
        let run = cluster.srun_in(&allocation, 0, &args, &environ()).unwrap();
        let step = run.client.step().unwrap();
        assert_eq!(step.layout.tasks_per_node(), "1", "{release}");
        assert_eq!(step.request.mpi.as_deref(), Some("none"));
    }
}

#[test]
fn a_host_file_that_init_sets_pins_the_step() {
    let bench = Bench::new();
    std::fs::write(bench.path("hosts"), "node3\nnode3\nnode2\n").unwrap();
    let hostfile = bench.path("hosts");
    let actions = format!(
        "init:environ:SLURM_HOSTFILE:{} init:environ:SLURM_DISTRIBUTION:arbitrary",
        hostfile.display()
    );
    for release in Release::ALL {
        let cluster = bench.cluster(release, &actions);
        let allocation = cluster.allocate(4).unwrap();
        let run = cluster.srun_in(&allocation, 0, &["true"], &environ()).unwrap();
        let step = run.client.step().unwrap();
        assert_eq!(step.layout.hosts(), ["node3", "node3", "node2"], "{release}");
        let run = cluster.srun_in(&allocation, 0, &["-N2", "true"], &environ()).unwrap();
        if release.refuses_nodes_with_arbitrary() {
            assert_eq!(run.client.outcome, Outcome::Exit(1), "{release}");
            assert!(run.client.stderr.contains("--nodes is incompatible"), "{release}");
        } else {
            let hosts = run.client.step().unwrap().layout.hosts().join(" ");
            assert_eq!(hosts, "node3 node3", "{release}");
        }
    }
}

#[test]
fn a_step_larger_than_the_allocation_and_a_file_that_is_no_script_are_refused() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "");
    let allocation = cluster.allocate(2).unwrap();
    let run = cluster.srun_in(&allocation, 0, &["-N3", "true"], &environ()).unwrap();
    assert_eq!(run.client.outcome, Outcome::Exit(1));
    assert!(run.client.stderr.contains("Only allocated 2 nodes asked for 3"));

    let path = bench.path("plain");
    std::fs::write(&path, "echo\n").unwrap();
    let trace = cluster.sbatch(&[path.to_str().unwrap()], &environ()).unwrap();
    assert_eq!(trace.outcome, Outcome::Exit(1));
    assert!(trace.stderr.contains("This does not look like a batch script"));
    let trace = cluster.sbatch(&["-N2", "--wrap=hostname"], &environ()).unwrap();
    assert!(trace.submissions()[0].script.ends_with("hostname\n"));
}
