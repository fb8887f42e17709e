// SPDX-License-Identifier: Apache-2.0
//! A step is the same whatever starts it, on a real Slurm: the launch script, `slurm-disagg launch`
//! and the SPANK plugin. `same_step_everywhere` has more scenarios, with stand-ins for Slurm.

#![allow(clippy::unwrap_used)]

mod step;

use std::fs;
use std::time::Duration;

use disagg::plan::Plan;
use slurm_bed::{Cluster, Options, Slurm, built, public_directory};
use step::scenarios::{SCENARIOS, assert_same, job};
use step::{DISAGG, RUN, Tree, recipe};

/// What a job runs, by name.
const WAYS: [(&str, &str); 4] = [
    ("launch script", "exec bash \"$workspace/slurm_launch_generated.sh\""),
    ("launch", "exec DISAGG launch --workspace \"$workspace\""),
    (
        "SPANK",
        "SLURM_DISAGG_PLAN=$(cat \"$workspace/plan.json\"); export SLURM_DISAGG_PLAN; unset RANKS
        for step in STEPS; do
            STEP_NAME=$step srun --disagg-role=$step bash -c 'RUN'
        done",
    ),
    (
        "step",
        "SLURM_DISAGG_PLAN=$(cat \"$workspace/plan.json\"); export SLURM_DISAGG_PLAN; unset RANKS
        for step in STEPS; do
            STEP_NAME=$step srun --disagg-role=$step DISAGG step
        done",
    ),
];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A job's script: its environment, but for Slurm's own variables, is that of the tree.
fn script(tree: &Tree, plan: &Plan, environment: &[(String, String)], command: &str) -> String {
    let steps: Vec<_> = plan.checks().chain(plan.instances()).collect();
    let ranks: u32 = steps.iter().map(|instance| instance.role.step.tasks).sum();
    let names: Vec<_> = steps.iter().map(|instance| instance.name.as_str()).collect();
    let exports: String = environment
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
        .collect();
    format!(
        "#!/bin/bash\nif [[ -z ${{CLEAN-}} ]]; then\nkeep=(CLEAN=1)\n\
         for name in $(compgen -e SLURM); do keep+=(\"$name=${{!name}}\"); done\n\
         exec env -i \"${{keep[@]}}\" bash \"$0\"\nfi\nunset CLEAN\nset -e\n{exports}\
         export RANKS={ranks}\n\
         workspace={}\n{}\n",
        quoted(tree.workspace().to_str().unwrap()),
        command
            .replace("DISAGG ", &format!("{DISAGG} "))
            .replace("STEPS", &names.join(" "))
            .replace("RUN", RUN)
    )
}

/// The environment of the jobs: that of the tree, with the commands of the Slurm under test.
fn environment(tree: &Tree) -> Vec<(String, String)> {
    let slurm = Slurm::under_test().prefix.join("bin");
    let mut environment = tree.environment();
    environment.iter_mut().filter(|(name, _)| name == "PATH").for_each(|(_, path)| {
        *path = format!("{path}:{}", slurm.display());
    });
    environment
}

/// Runs a plan in one way.
fn run(cluster: &Cluster, tree: &Tree, plan: &Plan, (way, command): (&str, &str)) {
    tree.forget();
    let job = cluster.work().join("job.sh");
    fs::write(&job, script(tree, plan, &environment(tree), command)).unwrap();
    let nodes = format!("--nodes={}", plan.layout.total_nodes);
    let sizes = [&*nodes, "--ntasks-per-node=4", "--gpus-per-node=4", "--time=5"];
    let output = ["--output=job.out", job.to_str().unwrap()];
    let id = cluster.submit([&sizes[..], &output].concat());
    let ended = cluster.wait_job(id, Duration::from_secs(120));
    let log = fs::read_to_string(cluster.work().join("job.out")).unwrap();
    assert_eq!(ended.state(), "COMPLETED", "{way}: {log}");
}

#[test]
fn ranks_of_a_real_slurm_get_what_the_plan_says_whatever_starts_them() {
    let files = public_directory();
    let plugin = files.path().join("spank_disagg.so");
    fs::copy(built("spank_disagg.so"), &plugin).unwrap();
    let options = Options::nodes(5).spank(&format!("required {}", plugin.display()));
    let cluster = Cluster::start(&options);
    for (number, name) in
        ["secrets", "prechecks", "run script, texts and packed GPUs"].iter().enumerate()
    {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name).unwrap();
        let tree = Tree::below(cluster.work().join(format!("tree{number}")));
        let plan = scenario.plan(&tree);
        let around = environment(&tree);
        assert_eq!(job(&tree).len(), around.len());
        let expected = scenario.expected(&plan, &around.into_iter().collect());
        for way in &WAYS[..3] {
            run(&cluster, &tree, &plan, *way);
            assert_same(way.0, scenario, &plan, tree.ranks(), &expected);
            tree.assert_nothing_was_run_or_told();
        }
    }
    for (number, text) in recipe::RECIPES.iter().enumerate() {
        let tree = Tree::below(cluster.work().join(format!("recipe{number}")));
        let plan = recipe::plan(&tree, text);
        let [by_launch, by_step] = [WAYS[1], WAYS[3]].map(|way| {
            run(&cluster, &tree, &plan, way);
            recipe::seen(&tree, &plan)
        });
        by_step.assert_same(text, &by_launch);
        tree.assert_nothing_was_run_or_told();
    }
}
