// SPDX-License-Identifier: Apache-2.0
//! Clusters and shells that are ordinary somewhere, but not the defaults of a test cluster.

use slurm_bed::{Options, Output, contains, executable};

use crate::site::{SOME_SECONDS, Site};

const LAUNCHERS: [&str; 2] = ["--launcher=native", "--launcher=bash"];

/// Memory is given out with the processors, and a job that asks for none gets little of it.
fn memory_is_counted(nodes: u32, default: &str) -> Options {
    Options::nodes(nodes).conf("SelectTypeParameters=CR_CPU_Memory").conf(default)
}

/// `submit` with these words of `env` and of another command before it.
fn passes(site: &Site, before: &[&str], launcher: &str) {
    let output = site.submit(before, &["--force", launcher]);
    assert_eq!(output.code, Some(0), "{before:?} {launcher}: {} {}", output.stdout, output.stderr);
    contains(&output.stdout, "PASSED: disagg_upload-standin_3nodes");
}

#[test]
fn steps_share_the_memory_of_their_nodes() {
    let site = Site::with(memory_is_counted(3, "DefMemPerCPU=1000"));
    for launcher in LAUNCHERS {
        passes(&site, &[], launcher);
    }
}

#[test]
fn the_job_of_the_shell_is_not_the_one_that_is_submitted() {
    // The fourth node is for the job of the shell.
    let site = Site::with(memory_is_counted(4, "DefMemPerNode=4000").gpu_type("h100"));
    for request in
        [&["--mem-per-cpu=100"] as &[_], &["--gpus=h100:1"], &["--gpus-per-task=h100:1", "-n1"]]
    {
        passes(&site, &[&["salloc", "-Q", "-N1"], request].concat(), "--launcher=native");
    }
}

#[test]
fn a_shell_that_exports_nothing_to_its_jobs_makes_no_difference() {
    let site = Site::new();
    for variable in ["SBATCH_EXPORT=NONE", "SLURM_EXPORT_ENV=NONE"] {
        for launcher in LAUNCHERS {
            passes(&site, &[variable], launcher);
        }
    }
}

#[test]
fn gpus_that_slurm_does_not_count_are_not_asked_for() {
    let site = Site::with(Options::nodes(3).gpus(0));
    let output = site.submit(&[], &["--gpu-request=none"]);
    output.expect(0);
    contains(&output.stdout, "PASSED: disagg_upload-standin_3nodes");
}

#[test]
fn a_server_does_not_start_on_nodes_that_have_no_room_for_its_ranks() {
    let site = Site::new();
    let workspace = site.workspace();
    site.submit(&[], &["--dry-run"]).expect(0);
    // As many processors as Slurm likes on each node, but not an equal share.
    let uneven = ["salloc", "-Q", "-N3", "-n12", "--gpus-per-node=4"];
    let launch = ["launch", "--workspace", workspace.to_str().unwrap()];
    let output = site.run(&uneven, &launch);
    assert_ne!(output.code, Some(0), "{}", output.stdout);
    contains(&(output.stdout + &output.stderr), "GEN_0");
}

#[test]
fn a_server_that_takes_too_much_memory_is_named_with_its_node() {
    let site = Site::with(
        memory_is_counted(3, "DefMemPerNode=150")
            .conf("JobAcctGatherType=jobacct_gather/linux")
            .conf("JobAcctGatherParams=OverMemoryKill")
            .conf("JobAcctGatherFrequency=task=1"),
    );
    let script = site.cluster.work().join("run.sh");
    let greedy = "[ \"$DISAGG_SERVING_TYPE.$SLURM_PROCID\" = GEN_0.5 ] && exec python3 -c \
                  'x = bytearray(300 << 20); import time; time.sleep(60)'";
    executable(&script, &format!("#!/bin/bash\n{greedy}\nexec sleep 60\n"));
    let output: Output = site.submit(SOME_SECONDS, &["--run-sh", script.to_str().unwrap()]);
    output.expect(1);
    for expected in ["GEN_0", "node2", "out of memory"] {
        contains(&output.stdout, expected);
    }
}
