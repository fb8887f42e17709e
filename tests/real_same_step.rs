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
use step::{DISAGG, RUN, Tree};

/// What a job runs, by name.
const WAYS: [(&str, &str); 3] = [
    ("launch script", "exec bash \"$workspace/slurm_launch_generated.sh\""),
    ("launch", "exec DISAGG launch --workspace \"$workspace\""),
    (
        "SPANK",
        "SLURM_DISAGG_PLAN=$(cat \"$workspace/plan.json\"); export SLURM_DISAGG_PLAN; unset RANKS
        for step in STEPS; do
            STEP_NAME=$step srun --disagg-role=$step bash -c 'RUN'
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

#[test]
fn ranks_of_a_real_slurm_get_what_the_plan_says_whatever_starts_them() {
    let files = public_directory();
    let plugin = files.path().join("spank_disagg.so");
    fs::copy(built("spank_disagg.so"), &plugin).unwrap();
    let options = Options::nodes(4).spank(&format!("required {}", plugin.display()));
    let cluster = Cluster::start(&options);
    let slurm = Slurm::under_test().prefix.join("bin");
    for (number, name) in
        ["secrets", "prechecks", "run script, texts and packed GPUs"].iter().enumerate()
    {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name).unwrap();
        let tree = Tree::below(cluster.work().join(format!("tree{number}")));
        let plan = scenario.plan(&tree);
        let mut environment = tree.environment();
        environment.iter_mut().filter(|(name, _)| name == "PATH").for_each(|(_, path)| {
            *path = format!("{path}:{}", slurm.display());
        });
        let expected = scenario.expected(&plan, &environment.iter().cloned().collect());
        assert_eq!(job(&tree).len(), environment.len());
        for (way, command) in WAYS {
            tree.forget();
            let job = cluster.work().join("job.sh");
            fs::write(&job, script(&tree, &plan, &environment, command)).unwrap();
            let nodes = format!("--nodes={}", plan.layout.total_nodes);
            let sizes = [&*nodes, "--ntasks-per-node=4", "--gpus-per-node=4", "--time=5"];
            let output = ["--output=job.out", job.to_str().unwrap()];
            let id = cluster.submit([&sizes[..], &output].concat());
            let ended = cluster.wait_job(id, Duration::from_secs(120));
            let log = fs::read_to_string(cluster.work().join("job.out")).unwrap();
            assert_eq!(ended.state(), "COMPLETED", "{name}, {way}: {log}");
            assert_same(way, scenario, &plan, tree.ranks(), &expected);
            tree.assert_nothing_was_run_or_told();
        }
    }
}
