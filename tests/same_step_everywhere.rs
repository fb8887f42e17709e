// SPDX-License-Identifier: Apache-2.0
//! A step is the same whatever starts it: the launch script, `slurm-disagg launch`, the SPANK
//! plugin, the C library, and what `plan --role` shows. Awkward steps are run in each of these ways;
//! every rank's environment, arguments, directory and JUnit file are what the plan says.

#![allow(clippy::unwrap_used)]

mod step;

use std::path::Path;
use std::process::Command;

use disagg::plan::{Cleared, Plan, Template};
use serde_json::Value;
use slurm_bed::{Output, built};
use slurm_sim::{Cluster, Env, Host, Release, TaskBody};
use step::scenarios::{SCENARIOS, Scenario, assert_same, compared, job};
use step::{DISAGG, RUN, Ranks, Tree, recipe};

/// Runs each scenario in one way and compares.
fn each(way: &str, run: impl Fn(&Tree, &Scenario, &Plan) -> Ranks) {
    for scenario in SCENARIOS {
        let tree = Tree::new();
        let plan = scenario.plan(&tree);
        let expected = scenario.expected(&plan, &job(&tree));
        let found = run(&tree, scenario, &plan);
        assert_same(way, scenario, &plan, found, &expected);
        tree.assert_nothing_was_run_or_told();
    }
}

/// The cluster's default MPI type reaches no step.
fn assert_mpi(tree: &Tree, plan: &Plan) {
    for instance in plan.checks().chain(plan.instances()) {
        let mpi = format!("--mpi={}", instance.role.step.mpi_type());
        assert!(tree.notes(&instance.name, "srun").contains(&mpi), "{}: {mpi}", instance.name);
    }
}

#[test]
fn in_the_launch_script() {
    each("launch script", |tree, _, plan| {
        tree.launch_script().ok();
        assert_mpi(tree, plan);
        tree.ranks()
    });
}

#[test]
fn in_slurm_disagg_launch() {
    each("launch", |tree, _, plan| {
        tree.launch().ok();
        assert_mpi(tree, plan);
        tree.ranks()
    });
}

/// Starts each step by `srun --disagg-role` with the plugin and this command.
fn with_the_spank_plugin(tree: &Tree, plan: &Plan, command: &[&str]) {
    std::fs::copy(built("spank_disagg.so"), tree.path("spank_disagg.so")).unwrap();
    let host = Host::find().unwrap_or_else(|e| panic!("{e}; run `cargo build -p slurm-sim`"));
    let cluster = Cluster::new(Release::V24_11, host, 9)
        .plugstack(format!("required {}\n", tree.path("spank_disagg.so").display()))
        .cwd(tree.path(""))
        .tasks(TaskBody::Execute);
    let allocation = cluster.allocate(9).unwrap();
    for instance in plan.checks().chain(plan.instances()) {
        let mut environment: Env =
            tree.environment().iter().map(|(name, value)| (&**name, &**value)).collect();
        environment.set("STEP_NAME", &*instance.name);
        environment.set("SLURM_DISAGG_PLAN", plan.to_json().unwrap());
        environment.set("SLURM_JOB_ID", "1234");
        environment.set("SLURM_JOB_NODELIST", "node[1-9]");
        // Host files of simulated jobs, which all have the same number, are told apart by it.
        environment.set("SLURM_CONF", tree.path("slurm.conf").display().to_string());
        let role = format!("--disagg-role={}", instance.name);
        let arguments = [&[&*role], command].concat();
        let run = cluster.srun_in(&allocation, 0, &arguments, &environment).unwrap();
        assert!(run.traces().all(slurm_sim::Trace::is_clean), "{run:#?}");
    }
}

#[test]
fn with_the_spank_plugin_on_the_simulated_slurm() {
    each("SPANK", |tree, _, plan| {
        with_the_spank_plugin(tree, plan, &["bash", "-c", RUN]);
        tree.ranks()
    });
}

#[test]
fn in_slurm_disagg_step() {
    each("step", |tree, _, plan| {
        with_the_spank_plugin(tree, plan, &[DISAGG, "step"]);
        tree.ranks()
    });
}

#[test]
fn in_slurm_disagg_step_on_a_node_that_lacks_the_plugin() {
    each("step alone", |tree, _, plan| {
        each_rank(tree, plan, |name| {
            let mut command = Command::new(DISAGG);
            command.arg("step");
            (command, vec![("SLURM_DISAGG_STEP_ROLE", name.to_owned())])
        });
        tree.ranks()
    });
}

/// Starts each rank with its environment, as srun does, and `command`, which has more variables.
fn each_rank(
    tree: &Tree,
    plan: &Plan,
    command: impl Fn(&str) -> (Command, Vec<(&'static str, String)>),
) {
    for instance in plan.checks().chain(plan.instances()) {
        let step = &instance.role.step;
        for rank in 0..step.tasks {
            let (mut command, more) = command(&instance.name);
            command.env_clear().envs(tree.environment()).env("STEP_NAME", &instance.name);
            command.env("SLURM_DISAGG_PLAN", plan.to_json().unwrap()).env("SLURM_JOB_ID", "7");
            command.envs(more);
            command.env("SLURM_PROCID", rank.to_string());
            command.env("SLURM_LOCALID", (rank % step.tasks_per_node).to_string());
            Output::of(command.current_dir(tree.path(""))).ok();
        }
    }
}

#[test]
fn steps_of_a_recipe() {
    let tree = Tree::new();
    let plan = recipe::plan(&tree, recipe::RECIPES[0]);
    let mut launch = tree.in_job(DISAGG);
    launch.args(["launch", "--workspace"]).arg(tree.workspace());
    Output::of(launch.env("SLURM_JOB_NODELIST", "node[1-9]")).ok();
    let expected = recipe::seen(&tree, &plan);
    let second = ["--rank", "1", "--first", "5", "--here", "node4", "--headless", "--config"];
    expected.assert_words("DECODE_1", 1, &second);
    expected.assert_words("ROUTER", 0, &["--decode", "node1", "9000", "--decode", "node3", "9008"]);
    assert_eq!(expected.variable("DECODE_1", 1, "STARTED"), "11 of DECODE_1");
    assert_eq!(expected.variable("WORKER_1", 1, "CUDA_VISIBLE_DEVICES"), "2,3");
    assert_eq!(expected.variable("WORKER_1", 1, "HF_TOKEN"), "geheim-'x");
    for command in [&[DISAGG, "step"][..], &["bash", "-c", r#"eval "$DISAGG_COMMAND""#]] {
        tree.forget();
        with_the_spank_plugin(&tree, &plan, command);
        recipe::seen(&tree, &plan).assert_same(command[1], &expected);
    }
    tree.assert_nothing_was_run_or_told();
}

#[test]
fn with_the_c_library() {
    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join("exec_step");
    let (root, build) = (Path::new(env!("CARGO_MANIFEST_DIR")), built("libslurm_disagg.so"));
    let mut cc = Command::new("cc");
    cc.arg("-I").arg(root.join("include")).arg("-o").arg(&program);
    cc.arg(root.join("c_examples/exec_step.c")).arg(&build);
    cc.arg(format!("-Wl,-rpath,{}", build.parent().unwrap().display()));
    Output::of(&mut cc).ok();
    each("C library", |tree, _, plan| {
        each_rank(tree, plan, |name| {
            let mut command = Command::new(&program);
            command.arg(tree.workspace().join("plan.json")).arg(name);
            (command, Vec::new())
        });
        tree.ranks()
    });
}

#[test]
fn in_what_plan_shows_of_a_role() {
    for scenario in SCENARIOS {
        let tree = Tree::new();
        let plan = scenario.plan(&tree);
        let job = job(&tree);
        let mut expected = scenario.expected(&plan, &job);
        for instance in plan.instances() {
            let view = disagg::output::instance::View::new(&instance, None);
            let shown: Value = serde_json::to_value(&view).unwrap();
            let texts = |key: &str| -> Vec<String> {
                shown[key]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|t| t.as_str().unwrap().to_owned())
                    .collect()
            };
            for rank in 0..instance.role.step.tasks {
                let expected = expected.remove(&(instance.name.clone(), rank)).unwrap();
                let mut around = job.clone();
                around.insert("SLURM_PROCID".into(), rank.to_string());
                let local = rank % instance.role.step.tasks_per_node;
                around.insert("SLURM_LOCALID".into(), local.to_string());
                let mut env = around.clone();
                let cleared: Option<Cleared> =
                    serde_json::from_value(shown["cleared"].clone()).unwrap();
                env.retain(|name, _| {
                    !texts("unset").contains(name)
                        && !cleared.as_ref().is_some_and(|all| all.removes(name))
                });
                for (name, value) in shown["env"].as_object().unwrap() {
                    let value = value.as_str().unwrap();
                    let expanded = Template::from_written(value)
                        .expand(|name| around.get(name).map(String::as_str));
                    let secret = value == "********";
                    let value = if secret { expected.env[name].clone() } else { expanded.unwrap() };
                    env.insert(name.clone(), value);
                }
                // They depend on what Slurm gives the task.
                for name in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"] {
                    if let Some(gpus) = expected.env.get(name) {
                        env.insert(name.into(), gpus.clone());
                    }
                }
                assert_eq!(compared(env), expected.env, "{}: {}", scenario.name, instance.name);
                let argv = texts("argv");
                let argv = &argv[usize::from(argv[0].ends_with("launch"))..];
                assert_eq!(argv, expected.argv, "{}", scenario.name);
                assert_eq!(shown["cwd"], expected.cwd, "{}", scenario.name);
                assert_eq!(shown["junit_file"].as_str(), expected.junit.as_deref());
            }
        }
    }
}
