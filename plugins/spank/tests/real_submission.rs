// SPDX-License-Identifier: Apache-2.0
//! Submissions with the plugin on a real Slurm, by a user without privileges: which options are
//! taken from where, what is refused, and what reaches the job.
#![allow(clippy::unwrap_used)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use disagg::plan::Plan;
use disagg_host::demand::Demand;
use slurm_bed::{
    Output, Site, Slurm, TEST_USER, config, config_with, contains, plugstack_line, sorted,
    variables,
};

#[test]
fn a_submission_prints_its_layout_and_the_job_has_the_plan_and_the_demand() {
    let site = Site::start(3);
    site.write("job.sh", "#!/bin/bash\nenv -0 >job.env\n");
    let output = site.run(["sbatch", "--wait", "--disagg-config=three.yaml", "-N3", "job.sh"]);
    output.expect(0).shows(&[
        "sbatch: disagg: three: 3 nodes x 4 GPUs = 12 GPUs: 1 GEN (1 node, 4 GPUs), 2 CTX (1 node, 4 GPUs each)",
    ]);
    let environment = variables(&site.read("job.env"));
    let plan = Plan::from_json(&environment["SLURM_DISAGG_PLAN"]).unwrap();
    assert_eq!((plan.layout.total_nodes, plan.layout.total_gpus), (3, 12));
    let demand = Demand::parse(&environment["SLURM_SPANK_DISAGG_DEMAND"]).unwrap();
    assert_eq!((demand.nodes, demand.tasks, demand.gpus_per_node), (3, 12, 4));
    assert_eq!(demand.config, "three");
}

#[test]
fn wrong_input_stops_the_submission_with_its_place_under_required_and_optional() {
    for how in ["required", "optional"] {
        let site = Site::with(3, |options, files| options.spank(&plugstack_line(how, files)));
        site.write("bad.yaml", &config(4, (1, 4), (1, 8)).replace("node: 4", "node: none"));
        site.write("secret.yaml", &config(4, (1, 4), (1, 8)));
        fs::set_permissions(site.path("secret.yaml"), Permissions::from_mode(0o600)).unwrap();
        site.run(["mkfifo", "fifo.yaml"]).ok();
        let place = "bad.yaml:2:27: error: ";
        for (argv, part) in [
            (&["sbatch", "--disagg-config=bad.yaml", "--wrap=true"][..], place),
            (&["sbatch", "--disagg-config=bad.yaml", "--wrap=true"], "sbatch: error:    | "),
            (&["salloc", "--disagg-config=bad.yaml", "true"], place),
            (&["srun", "--disagg-config=bad.yaml", "--disagg-role=GEN_0", "true"], place),
            (&["sbatch", "--disagg-config=none.yaml", "--wrap=true"], "none.yaml"),
            (&["sbatch", "--disagg-config=", "--wrap=true"], "--disagg-config has an empty value"),
            (&["srun", "--disagg-config=", "true"], "--disagg-config has an empty value"),
            (
                &["timeout", "10", "sbatch", "--disagg-config=fifo.yaml", "--wrap=true"],
                "is not a regular file",
            ),
            (
                &["sbatch", "--disagg-config=secret.yaml", "--wrap=true"],
                "secret.yaml: cannot be opened: Permission denied",
            ),
            (
                &["sbatch", "--disagg-config=wide.yaml", "--disagg-test=other-wide", "--wrap=true"],
                "the prefix other contains neither disagg nor aggr",
            ),
            (
                &["sbatch", "--test-only", "--disagg-test=disagg_upload-none", "--wrap=true"],
                "configuration disagg_upload-none is not found; tried:",
            ),
            (
                &["srun", "--disagg-role=GEN_0", "true"],
                "there is no plan here. Submit the job with sbatch --disagg-config=FILE",
            ),
        ] {
            contains(&site.refused(argv), part);
        }
    }
}

#[test]
fn help_and_explain_need_no_job() {
    let site = Site::start(3);
    for argv in [
        &["sbatch", "--disagg-config=wide.yaml", "--disagg-role=help", "--wrap=true"],
        &["srun", "--disagg-config=wide.yaml", "--disagg-role=help", "true"],
    ] {
        let row = "GEN_0          2      8      4         pmi2  nodes 1 to 2 of the job";
        site.run(argv).expect(0).shows(&[row]);
        assert_eq!(site.run(["squeue", "-h"]).checked(), "");
    }
    let explain = ["sbatch", "--test-only", "--disagg-config=three.yaml", "--disagg-explain"];
    site.run([&explain[..], &["--wrap=true"]].concat())
        .shows(&["sbatch: disagg: GEN env CACHE=/tmp/cache_${SLURM_LOCALID}: ", "three.yaml:7:19"]);
    let in_job = site.job_of("wide.yaml", "srun --disagg-role=help; echo status $?");
    contains(&in_job, "CTX_0          1      4      4         pmi2  node3\n");
    contains(&in_job, "status 0\n");
}

#[test]
fn the_plan_survives_every_export_of_the_submission_and_of_the_step() {
    let site = Site::start(3);
    // The PATH that a login gives need not have the Slurm under test.
    let srun = Slurm::under_test().prefix.join("bin/srun");
    let step = "--disagg-role=CTX_1 /bin/bash -c 'echo $DISAGG_SERVING_TYPE $CACHE'";
    let expected: Vec<String> = (0..4).map(|rank| format!("CTX_1 /tmp/cache_{rank}")).collect();
    for export in ["--export=NONE", "--export=NIL", "--export=PATH", "--export=ALL"] {
        let script = ["", "--export=NONE", "--export=PATH"]
            .map(|of_step| format!("{} {of_step} {step} 2>/dev/null | sort", srun.display()))
            .join("\n");
        let options = ["-N3", "--ntasks-per-node=4", "--disagg-config=three.yaml", export];
        let (_, output) = site.job(&options, &format!("PATH=/usr/bin:/bin\n{script}"));
        assert_eq!(output, format!("{}\n", expected.join("\n")).repeat(3), "{export}");
    }
}

#[test]
fn a_config_comes_from_the_command_line_before_the_script_and_the_environment() {
    let site = Site::start(3);
    let script = "#SBATCH --disagg-config=wide.yaml\necho $SLURM_SPANK_DISAGG_DEMAND";
    contains(&site.job(&["-N3"], script).1, "config=wide");
    contains(&site.job(&["-N3", "--disagg-config=three.yaml"], script).1, "config=three");

    site.write("job.sh", "#!/bin/bash\necho $SLURM_SPANK_DISAGG_DEMAND >demand\n");
    for variable in ["SLURM_DISAGG_CONFIG", "SLURM_SPANK__SLURM_SPANK_OPTION_disagg_disagg_config"]
    {
        for (option, expected) in
            [(None, "config=wide"), (Some("--disagg-config=three.yaml"), "config=three")]
        {
            let mut sbatch = site.cluster.command_as(TEST_USER, "sbatch");
            sbatch.env(variable, "wide.yaml").args(["--wait", "-N3"]).args(option).arg("job.sh");
            Output::of(&mut sbatch).ok();
            contains(&site.read("demand"), expected);
        }
    }
}

#[test]
fn a_job_that_is_submitted_inside_the_job_does_not_inherit_its_plan() {
    let site = Site::start(3);
    let inner = "sbatch --wait -N1 --output=inner.out OPTION --wrap env 2>&1; cat inner.out";
    let output = site.job_of("three.yaml", &inner.replace("OPTION", ""));
    assert!(
        !output.contains("SLURM_DISAGG_PLAN") && !output.contains("DISAGG_DEMAND="),
        "{output}"
    );
    let again = inner.replace("OPTION", "--disagg-config=three.yaml");
    contains(&site.job_of("three.yaml", &again), "DISAGG_DEMAND=v1 nodes=3");
}

#[test]
fn salloc_and_a_direct_srun_get_the_plan() {
    let site = Site::start(3);
    let sizes = ["--nodes=3", "--ntasks-per-node=4", "--gpus-per-node=4"];
    let salloc = ["salloc", "--disagg-config=wide.yaml"];
    let step = ["srun", "--disagg-role=CTX_0", "hostname"];
    let output = site.run([&salloc[..], &sizes, &step].concat());
    assert_eq!(output.checked(), "node3\n".repeat(4));

    let show = "echo $SLURM_NNODES $SLURM_NTASKS $DISAGG_SERVING_TYPE";
    let role = ["srun", "--disagg-config=wide.yaml", "--disagg-role=GEN_0", "bash", "-c", show];
    assert_eq!(site.run(role).checked(), "2 8 GEN_0\n".repeat(8));
    let whole = ["srun", "--disagg-config=wide.yaml", "bash", "-c", show];
    assert_eq!(site.run(whole).checked(), "3 12\n".repeat(12));
}

#[test]
fn a_config_that_is_deleted_or_makes_a_long_plan_is_not_missed() {
    let site = Site::start(3);
    site.run(["cp", "wide.yaml", "mine.yaml"]).ok();
    let script = "rm mine.yaml; srun --disagg-role=CTX_0 bash -c 'echo $DISAGG_SERVING_TYPE'";
    assert_eq!(sorted(&site.job_of("mine.yaml", script)), ["CTX_0"; 4]);

    // Too long for a variable, so it travels in a file.
    let long: String = (0..900).map(|i| format!("VARIABLE_{i}={} ", "x".repeat(40))).collect();
    site.write("long.yaml", &config_with((4, (1, 4), (1, 8)), &long));
    let script =
        "echo $SLURM_DISAGG_PLAN; srun --disagg-role=CTX_0 bash -c 'echo ${#VARIABLE_899}'";
    let output = site.job_of("long.yaml", script);
    let (path, rest) = output.split_once('\n').unwrap();
    assert!(Path::new(path).starts_with(site.cluster.work()), "{output}");
    assert_eq!(rest, "40\n".repeat(4));
}

#[test]
fn the_form_of_a_test_id_decides_on_the_rules_of_the_steps() {
    let site = Site::start(3);
    for (id, prefix) in
        [("my_disagg-wide", "my_disagg"), ("disagg_upload-e2e-wide", "disagg_upload")]
    {
        let test = format!("--disagg-test={id}");
        let options = ["-N3", "--ntasks-per-node=4", "--disagg-config=wide.yaml", &test];
        let script = "srun --disagg-role=BENCHMARK bash -c 'echo $pytestCommand'
             srun --disagg-role=GEN_0 bash -c '[ $SLURM_PROCID != 0 ] || echo $pytestCommand'";
        let (_, output) = site.job(&options, script);
        contains(&output, &format!("--test-prefix={prefix}"));
        assert_eq!(output.matches(&format!("test_e2e[{id}]")).count(), 2, "{output}");
    }
}

#[test]
fn a_login_host_that_lacks_the_plugin_says_that_the_option_is_unknown() {
    let site = Site::start(3);
    let mut sbatch = site.cluster.command_bare("sbatch");
    let output = Output::of(sbatch.args(["--disagg-config=three.yaml", "--wrap=true"]));
    assert_ne!(output.code, Some(0), "{output:?}");
    contains(&output.stderr, "--disagg-config");
}

#[test]
fn an_unknown_argument_in_plugstack_conf_is_told_to_slurmds_log_and_to_no_job_without_a_config() {
    let site = Site::with(1, |options, files| {
        options.spank(&format!("{} colour=blue", plugstack_line("required", files)))
    });
    let complaint = "disagg: plugstack.conf: unknown argument 'colour=blue'";
    if Slurm::under_test().release() > (20, 11) {
        // slurmd of 20.11 opens no plugin that has nothing to do in it.
        contains(&site.cluster.log("slurmd.node1"), complaint);
    }
    assert_eq!(site.run(["srun", "true"]).stderr, "");
    let output = site.run(["sbatch", "--test-only", "--disagg-config=wide.yaml", "--wrap=true"]);
    contains(&output.stderr, complaint);
}

#[test]
fn two_hundred_submissions_at_once_all_get_their_plan() {
    let site = Site::start(3);
    site.write("job.sh", "#!/bin/bash\necho ${#SLURM_DISAGG_PLAN} >>plans\n");
    let burst = "seq 200 | xargs -P 20 -I{} sbatch --parsable -n1 --output=/dev/null --disagg-config=three.yaml job.sh";
    let ids = site.run(["bash", "-c", burst]).checked();
    assert_eq!(ids.lines().count(), 200);
    for id in ids.lines() {
        let job = site.cluster.wait_job(id.parse().unwrap(), Duration::from_secs(120));
        assert_eq!(job.state(), "COMPLETED");
    }
    let plans = site.read("plans");
    assert_eq!(plans.lines().count(), 200);
    assert!(plans.lines().all(|length| length.parse::<u32>().unwrap() > 1000));
}
