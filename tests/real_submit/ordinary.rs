// SPDX-License-Identifier: Apache-2.0
//! Clusters and shells that are ordinary somewhere, but not the defaults of a test cluster.

use std::fs;
use std::process::Command;

use slurm_bed::{Options, Output, contains, executable};

use crate::site::{SOME_SECONDS, Site, path};

/// Each rank says what it has; the benchmark ends when all have.
const RANKS: &str = r#"#!/bin/bash
echo "rank $DISAGG_SERVING_TYPE $(taskset -cp $$ | sed 's/.*: //') $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES"
[ "$DISAGG_SERVING_TYPE" = BENCHMARK ] || exec sleep 60
while [ "$(cat "${0%/*}"/w/*_server_*.log | grep -c '^rank ')" != RANKS ]; do sleep 0.1; done
"#;

/// The CPUs and the GPUs of each rank of a server.
fn ranks(
    site: &Site,
    shell: &[&str],
    config: &str,
    arguments: &[&str],
    ranks: usize,
) -> Vec<[String; 4]> {
    let script = site.cluster.work().join("run.sh");
    executable(&script, &RANKS.replace("RANKS", &ranks.to_string()));
    let arguments = [arguments, &["--force", "--run-sh", path(&script)]].concat();
    let output = Output::of(&mut site.submit_of(config, shell, &arguments));
    assert_eq!(output.code, Some(0), "{shell:?}: {}{}", output.stdout, output.stderr);
    let logs = fs::read_dir(site.workspace()).unwrap().map(|entry| entry.unwrap().path());
    let logs = logs.filter(|path| path.to_str().unwrap().contains("_server_"));
    let logs: String = logs.map(|path| fs::read_to_string(path).unwrap()).collect();
    let words = logs.lines().filter_map(|line| line.strip_prefix("rank "));
    let words = words.map(|line| line.splitn(4, ' ').map(str::to_owned).collect::<Vec<_>>());
    words.map(|words| words.try_into().unwrap()).collect()
}

#[test]
fn ranks_have_cpus_and_gpus_of_their_own_job_whatever_the_shell_and_other_jobs_have() {
    // The fourth node is for the job of the shell; another job has GPUs 0 to 3 of all.
    let site = Site::with(Options::nodes(4).unfriendly().gpu_type("h100"));
    let job = ["-Q", "-N1", "-n1", "--time=5"];
    for (program, request) in [
        ("srun", "--gpus=1"),
        ("salloc", "--gpus=h100:1 --mem-per-cpu=50"),
        ("salloc", "--gpus-per-task=h100:1"),
    ] {
        let request: Vec<_> = request.split(' ').collect();
        let shell = [&[program], &job[..], &request].concat();
        let ranks = ranks(&site, &shell, "standin_3nodes", &[], 12);
        assert_eq!(ranks.len(), 12);
        let gpus = |rank: &[String; 4]| rank[2..] == ["4,5,6,7", "4,5,6,7"];
        assert!(ranks.iter().all(gpus), "{shell:?}: {ranks:?}");
        // A binding of the shell's would be one CPU for all of them.
        let first = &ranks[0][1];
        let more_than_one =
            first.contains([',', '-']) || ranks.iter().any(|rank| rank[1] != *first);
        assert!(more_than_one, "{shell:?}: {ranks:?}");
    }
    for launcher in ["--launcher=native", "--launcher=bash"] {
        let ranks = ranks(&site, &[], "standin_packed", &["--placement=packed", launcher], 4);
        let mut gpus: Vec<_> =
            ranks.iter().map(|[role, _, cuda, nvidia]| format!("{role} {cuda} {nvidia}")).collect();
        gpus.sort_unstable();
        assert_eq!(
            gpus,
            ["CTX_0 6 6", "CTX_1 7 7", "GEN_0 4,5 4,5", "GEN_0 4,5 4,5"],
            "{launcher}"
        );
    }
}

#[test]
fn gpus_that_slurm_does_not_count_are_not_asked_for() {
    let site = Site::with(Options::nodes(3).gpus(0));
    site.submit(&[], &[]).expect(1).shows(&["--gpu-request=none where Slurm does not count GPUs"]);
    let output = site.submit(&[], &["--gpu-request=none"]);
    output.expect(0);
    contains(&output.stdout, "PASSED: disagg_upload-standin_3nodes");
}

#[test]
fn nodes_without_room_for_the_ranks_or_without_the_workspace_are_said() {
    let site = Site::new();
    let workspace = site.workspace();
    site.submit(&[], &["--dry-run"]).expect(0);
    // As many processors as Slurm likes on each node, but not an equal share.
    let uneven = ["salloc", "-Q", "-N3", "-n12", "--gpus-per-node=4"];
    let launch = ["launch", "--workspace", workspace.to_str().unwrap()];
    let output = site.run(&uneven, &launch);
    assert_ne!(output.code, Some(0), "{}", output.stdout);
    contains(&(output.stdout + &output.stderr), "GEN_0");

    fs::remove_dir_all(&workspace).unwrap();
    for node in ["node1", "node2", "node3"] {
        let slurmd = site.cluster.dir().join(format!("run/slurmd.{node}.pid"));
        let slurmd = fs::read_to_string(slurmd).unwrap();
        let mut mount = Command::new("nsenter");
        mount.args(["--mount", "--target", slurmd.trim(), "mount", "-t", "tmpfs", "none"]);
        Output::of(mount.arg(site.cluster.work())).ok();
    }
    let output = site.submit(&[], &[]);
    output.expect(1);
    contains(&output.stdout, "that the nodes see the workspace");
}

#[test]
fn a_server_that_takes_too_much_memory_is_named_with_its_node() {
    let site = Site::with(
        Options::nodes(3)
            .conf("SelectTypeParameters=CR_CPU_Memory")
            .conf("DefMemPerNode=150")
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
    contains(&output.stdout, "GEN_0 ended after");
    contains(
        &output.stdout,
        "out of memory on node2; Slurm does not tell which of its ranks there took it",
    );
}
