// SPDX-License-Identifier: Apache-2.0
//! Which callbacks run where, in which order, as whom.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, bare, environ};
use slurm_sim::{Context, Function, Hook, Level, Outcome, Release, Rule, TaskBody, What};
use std::time::Duration;

#[test]
fn each_program_makes_its_callbacks_in_order() {
    let bench = Bench::new();
    let cluster = bench.cluster(Release::V22_05, "");
    let (sbatch, batch) = bench.batch(&cluster, &["--probe-config=F"]);
    let submission = ["init", "option", "init_post_opt", "exit"];
    assert_eq!(sbatch.order(), submission);
    assert_eq!(batch.options(), [("probe-config", Some("F"), true)]);
    assert!(sbatch.is_clean() && batch.is_clean(), "{sbatch:#?}");

    let salloc = cluster.salloc(&["-N2", "--probe-flag", "bash"], &environ()).unwrap();
    assert_eq!(salloc.order(), submission);
    let grant = salloc.grant().unwrap();
    assert_eq!(
        (&grant.nodes[..], &grant.argv[..]),
        (&["node1".into(), "node2".into()][..], &["bash".into()][..])
    );
    assert_eq!(grant.environment.get("SLURM_JOB_NUM_NODES"), Some("2"));

    let run = cluster.srun(&["-n1", "--probe-config=F", "true"], &environ()).unwrap();
    assert_eq!(run.client.order(), ["init", "option", "init_post_opt", "local_user_init", "exit"]);
    // The option twice: from srun, and from its environment.
    let root = ["init", "option", "option", "init_post_opt", "user_init", "task_init_privileged"];
    let tasks = ["task_post_fork", "task_init", "task_exit", "exit"];
    assert_eq!(run.stepds[0].order(), [&root[..], &tasks].concat());
    assert!(run.traces().all(|trace| trace.is_clean()));

    let slurmd = cluster.slurmd().unwrap();
    assert_eq!(slurmd.order(), ["init", "slurmd_exit"]);
    assert!(slurmd.is_clean());

    let later = bench.cluster(Release::V24_05, "");
    let run = later.srun(&["-n1", "--probe-config=F", "true"], &environ()).unwrap();
    assert_eq!(run.stepds[0].options(), [("probe-config", Some("F"), true)], "once from 24.05 on");

    let run = bare(Release::V25_11).srun(&["-N4", "true"], &environ()).unwrap();
    assert!(run.ranks().len() == 4 && run.client.is_clean(), "without plugins");
}

#[test]
fn only_local_user_init_of_srun_knows_the_allocation() {
    let bench = Bench::new();
    let cluster = bench.cluster(Release::V22_05, "init_post_opt:item32:4 local_user_init:item32:4");
    let run = cluster.srun(&["-N2", "true"], &environ()).unwrap();
    assert_eq!(run.client.log(Level::SpankLog), ["item 4=2"]);
    assert_eq!(run.client.violations().len(), 1);
    assert_eq!(run.client.violations()[0].rule, Rule::WrongContext);
}

#[test]
fn prolog_and_epilog_run_in_a_helper_without_init() {
    let bench = Bench::new();
    let script = bench.script("true");
    let cluster = bench.cluster_with(
        "required",
        Release::V22_05,
        "init_post_opt:control-set:DEMAND:v1 job_prolog:show-environ:SPANK_DEMAND \
         job_prolog:getopt",
        &["-DWITH_SCRIPTS"],
    );
    let sbatch = cluster.sbatch(&["--probe-config=F", &script], &environ()).unwrap();
    let submission = sbatch.submissions()[0];
    let prolog = cluster.prolog(submission).unwrap();
    assert_eq!(prolog.order(), ["job_prolog"]);
    assert_eq!(prolog.log(Level::SpankLog), ["environ SPANK_DEMAND=v1", "getopt F"]);
    assert_eq!(cluster.epilog(submission).unwrap().order(), ["job_epilog"]);
}

#[test]
fn contexts_are_told_as_spank_h_numbers_them() {
    let bench = Bench::new();
    let script = bench.script("true");
    let cluster = bench.cluster(Release::V22_05, "init:context");
    let sbatch = cluster.sbatch(&[&script], &environ()).unwrap();
    assert_eq!(sbatch.log(Level::SpankLog), ["context 3 remote 0"]);
    let run = cluster.srun(&["true"], &environ()).unwrap();
    assert_eq!(run.client.log(Level::SpankLog), ["context 1 remote 0"]);
    assert_eq!(run.stepds[0].log(Level::SpankLog), ["context 2 remote 1"]);
    assert_eq!(cluster.slurmd().unwrap().log(Level::SpankLog), ["context 4 remote 0"]);
}

#[test]
fn every_task_is_a_process_of_its_own() {
    let bench = Bench::new();
    let run = bench.cluster(Release::V22_05, "").srun(&["-n3", "true"], &environ()).unwrap();
    let stepd = &run.stepds[0];
    let mut pids: Vec<_> = stepd
        .entered()
        .filter(|(_, function)| **function == Function::Hook(Hook::TaskInit))
        .map(|(pid, _)| pid)
        .collect();
    pids.dedup();
    assert_eq!(pids.len(), 3);
    let ended = stepd.events.iter().filter(|e| matches!(e.what, What::TaskEnded { .. })).count();
    assert_eq!(ended, 3);
}

#[test]
fn root_and_user_phases_run_as_root_and_user() {
    let bench = Bench::new();
    let run = bench.cluster(Release::V22_05, "").srun(&["-n2", "true"], &environ()).unwrap();
    let stepd = &run.stepds[0];
    if !stepd.users_switched {
        eprintln!("not run as root: the users of the phases can't be told apart here");
        return;
    }
    assert_eq!(stepd.users_of(Hook::Init), [0]);
    assert_eq!(stepd.users_of(Hook::InitPostOpt), [0]);
    assert_eq!(stepd.users_of(Hook::UserInit), [65534]);
    assert_eq!(stepd.users_of(Hook::TaskInitPrivileged), [0, 0]);
    assert_eq!(stepd.users_of(Hook::TaskInit), [65534, 65534]);
    assert_eq!(stepd.users_of(Hook::TaskPostFork), [0, 0]);
    assert_eq!(stepd.users_of(Hook::Exit), [0]);
    assert_eq!(run.client.users_of(Hook::Init), [65534]);
    assert_eq!(stepd.ranks()[0].uid, 65534);
}

#[test]
fn a_step_spanning_two_nodes_has_a_slurmstepd_on_each() {
    let bench = Bench::new();
    let run = bench
        .cluster(Release::V22_05, "task_init:item32:12")
        .srun(&["-N2", "-n4", "true"], &environ())
        .unwrap();
    assert_eq!(run.stepds.len(), 2);
    assert_eq!(run.stepds[1].log(Level::SpankLog), ["item 12=2", "item 12=3"]);
    let hosts: Vec<_> = run.ranks().iter().map(|rank| rank.host.as_str()).collect();
    assert_eq!(hosts, ["node1", "node1", "node2", "node2"]);
}

#[test]
fn a_command_can_really_run_with_the_environment_of_its_rank() {
    let bench = Bench::new();
    let run = bench
        .cluster(Release::V22_05, "task_init:setenv:FROM_PLUGIN:here")
        .tasks(TaskBody::Execute)
        .srun(&["-n2", "sh", "-c", "echo $SLURM_PROCID $FROM_PLUGIN; exit 3"], &environ())
        .unwrap();
    let mut lines: Vec<_> = run.stepds[0].stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["0 here", "1 here"]);
    assert_eq!(run.stepds[0].outcome, Outcome::Exit(3));
}

#[test]
fn a_heterogeneous_job_calls_post_opt_once_per_component() {
    let bench = Bench::new();
    let script = bench.script("true");
    let trace = bench
        .cluster(Release::V22_05, "")
        .sbatch(&["-N1", "--probe-config=A", ":", "-N2", &script], &environ())
        .unwrap();
    // The second component finds the first one's options in the environment.
    assert_eq!(
        trace.order(),
        ["init", "option", "init_post_opt", "option", "init_post_opt", "exit"]
    );
    let nodes: Vec<_> = trace.submissions().iter().map(|s| s.request.nodes.unwrap().0).collect();
    assert_eq!(nodes, [(1, 1), (2, 2)]);
}

#[test]
fn no_context_is_known_while_a_plugin_is_being_loaded() {
    let bench = Bench::new();
    let trace = bench.cluster(Release::V22_05, "").srun(&["true"], &environ()).unwrap().client;
    let context = trace.events.iter().find_map(|event| match &event.what {
        What::Enter { function: Function::Constructor, context, .. } => Some(*context),
        _ => None,
    });
    assert_eq!(context, Some(Context::Error));
}

#[test]
fn a_program_over_its_deadline_is_ended() {
    let bench = Bench::new();
    let trace = bench
        .cluster(Release::V22_05, "init:spin")
        .deadline(Duration::from_millis(500))
        .slurmd()
        .unwrap();
    assert_eq!(trace.outcome, Outcome::Hung { function: Some(Function::Hook(Hook::Init)) });
}
