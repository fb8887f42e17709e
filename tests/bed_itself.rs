// SPDX-License-Identifier: Apache-2.0
//! The test bed keeps its promises: what the other tests on real Slurm take for granted.

use slurm_bed::{Cluster, Options, Output, Slurm, TEST_USER, wait_for};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const A_MINUTE: Duration = Duration::from_secs(60);

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn nodes_have_gpus_and_a_step_on_two_runs_on_two_hosts_with_theirs() {
    let bed = Cluster::start(&Options::nodes(18).gpu_type("h100").gpus(2));
    let idle = bed.run(["sinfo", "-h", "-N", "-t", "idle", "-o", "%N %G"]).checked();
    let expected: Vec<String> = (1..=18).map(|i| format!("node{i} gpu:h100:2")).collect();
    assert_eq!(lines(&idle), expected.iter().map(String::as_str).collect());
    let script = "echo $(hostname) $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES";
    let srun = ["srun", "-N2", "-n2", "--gpus-per-node=h100:2", "bash", "-c", script];
    assert_eq!(lines(bed.run(srun).ok()), lines("node1 node1 0 0,1\nnode2 node2 1 0,1"));
}

#[test]
fn nodes_reach_each_other_by_name_and_nothing_outside() {
    let bed = Cluster::start(&Options::nodes(2));
    let addresses = bed.run(["getent", "ahostsv4", "node2"]).checked();
    assert!(addresses.starts_with("10.77.0.3"), "{addresses}");
    let interfaces = bed.run(["ip", "-o", "link"]).checked();
    assert_eq!(interfaces.lines().count(), 1, "only the loopback: {interfaces}");
}

#[test]
fn what_a_job_leaves_behind_is_listed_and_ends_with_the_bed() {
    let bed = Cluster::start(&Options::nodes(1));
    // Out of its session and with a clean environment: only the namespace gives it away.
    let escape =
        "env -i setsid sh -c 'touch started; exec sleep 98765' </dev/null >/dev/null 2>&1 &
        until [ -e started ]; do sleep 0.05; done";
    bed.wait_job(bed.submit(["--wrap", escape]), A_MINUTE);
    let orphan = || bed.processes().into_iter().find(|p| p.command == "sleep 98765");
    let found = wait_for(A_MINUTE, orphan, || format!("{:?}", bed.processes()));
    assert_eq!(found.user, TEST_USER);
    let dir = bed.dir().to_owned();
    drop(bed);
    // Gone, or a zombie that init has not reaped yet.
    let command_line = std::fs::read(format!("/proc/{}/cmdline", found.pid)).unwrap_or_default();
    assert!(command_line.is_empty());
    assert!(!dir.exists());
}

#[test]
fn two_beds_do_not_meet() {
    let (one, other) = (Cluster::start(&Options::nodes(1)), Cluster::start(&Options::nodes(2)));
    let id = one.submit(["--wrap=true"]);
    assert_ne!(other.run(["scontrol", "show", "job", &id.to_string()]).code, Some(0));
    drop(one);
    assert_eq!(lines(other.run(["srun", "-N2", "hostname"]).ok()), lines("node1\nnode2"));
}

#[test]
fn a_bed_ends_with_its_owner() {
    let mut owner = Command::new("sleep").arg("1000").spawn().expect("sleep runs");
    let dir = format!("/tmp/bed-owned-{}", std::process::id());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/slurm-bed");
    let owner_id = owner.id().to_string();
    let up = Command::new(script).args(["up", &dir, "-n", "1", "--until-pid", &owner_id]).output();
    assert!(up.expect("the script runs").status.success());
    owner.kill().expect("it runs");
    owner.wait().expect("it was started here");
    let is_gone = || (!Path::new(&dir).exists()).then_some(());
    wait_for(A_MINUTE, is_gone, || format!("{dir} is still there"));
}

#[test]
fn an_installation_is_found_by_its_prefix() {
    let prefix = std::env::temp_dir().join(format!("slurm-prefix-{}", std::process::id()));
    std::fs::create_dir_all(prefix.join("lib")).expect("a temporary directory");
    symlink("/usr/bin", prefix.join("bin")).expect("a new link");
    symlink("/usr/sbin", prefix.join("sbin")).expect("a new link");
    let plugins = ["/usr/lib/x86_64-linux-gnu/slurm-wlm", "/usr/lib/aarch64-linux-gnu/slurm-wlm"];
    let plugins = plugins.into_iter().find(|dir| Path::new(dir).exists()).expect("Debian's Slurm");
    symlink(plugins, prefix.join("lib/slurm")).expect("a new link");

    let slurm = Slurm::at(&prefix);
    assert_eq!(slurm.version, Slurm::debian().version);
    let bed = Cluster::start(&Options::nodes(1).slurm(&slurm));
    let path = bed.run(["bash", "-c", "command -v sbatch"]).checked();
    assert_eq!(Path::new(path.trim()), prefix.join("bin/sbatch"));
    let config = bed.run(["scontrol", "show", "config"]).checked();
    let plugin_dir = prefix.join("lib/slurm").display().to_string();
    assert!(config.lines().any(|l| l.starts_with("PluginDir") && l.ends_with(&plugin_dir)));
    drop(bed);
    std::fs::remove_dir_all(&prefix).expect("it was made here");
}

#[test]
fn a_bed_that_cannot_start_says_why_and_leaves_nothing() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bed/slurm-bed");
    let dir = format!("/tmp/bed-broken-{}", std::process::id());
    let up = |arguments: &[&str]| {
        Output::of(Command::new(script).args(["up", &dir, "-n", "1"]).args(arguments))
    };
    up(&["--job-submit", "nonsense"]).expect(1).shows(&["job_submit/nonsense"]);
    let processes = Command::new(script).args(["ps", &dir]).output().expect("the script runs");
    assert!(String::from_utf8_lossy(&processes.stderr).contains("is not up"));

    assert_ne!(up(&["--nodes", "3"]).shows(&["--nodes is no option"]).code, Some(0));
    Command::new(script).args(["down", "--rm", &dir]).status().expect("the script runs");
    assert!(!Path::new(&dir).exists());
}
