// SPDX-License-Identifier: Apache-2.0
//! The test bed keeps its promises: what the other tests on real Slurm take for granted.

use slurm_bed::{Cluster, Options, Slurm, TEST_USER};
use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const A_MINUTE: Duration = Duration::from_secs(60);

fn lines(text: &str) -> BTreeSet<&str> {
    text.lines().collect()
}

#[test]
fn eighteen_nodes_are_idle_and_have_four_gpus_each() {
    let bed = Cluster::start(&Options::nodes(18));
    let idle = bed.run(["sinfo", "-h", "-N", "-t", "idle", "-o", "%N %G"]).checked();
    let expected: Vec<String> = (1..=18).map(|i| format!("node{i} gpu:4")).collect();
    assert_eq!(lines(&idle), expected.iter().map(String::as_str).collect());
    assert!(bed.run(["scontrol", "show", "node", "node18"]).ok().contains("Gres=gpu:4"));
}

#[test]
fn a_step_on_two_nodes_runs_on_two_hosts_with_their_gpus() {
    let bed = Cluster::start(&Options::nodes(3).gpu_type("h100").gpus(2));
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
fn a_user_without_privileges_submits_a_job() {
    let bed = Cluster::start(&Options::nodes(1));
    let id = bed.submit(["--output=out.txt", "--wrap=id -un; id -u"]);
    let job = bed.wait_job(id, A_MINUTE);
    assert_eq!((job.state(), job.exit_code()), ("COMPLETED", Some((0, 0))));
    let output = std::fs::read_to_string(bed.work().join("out.txt")).expect("the job wrote it");
    assert_eq!(output, format!("{TEST_USER}\n61001\n"));
}

#[test]
fn a_job_that_fails_is_seen_to_fail() {
    let bed = Cluster::start(&Options::nodes(1));
    let id = bed.submit(["--wrap=exit 3"]);
    let job = bed.wait_job(id, A_MINUTE);
    assert_eq!((job.state(), job.exit_code()), ("FAILED", Some((3, 0))));
}

#[test]
fn pmix_is_there_for_steps_over_nodes() {
    let bed = Cluster::start(&Options::nodes(2).mpi("pmix"));
    let ranks = bed.run(["srun", "-N2", "-n4", "bash", "-c", "echo $PMIX_RANK"]).checked();
    assert_eq!(lines(&ranks), lines("0\n1\n2\n3"));
}

#[test]
fn accounting_remembers_a_job() {
    let bed = Cluster::start(&Options::nodes(1).accounting());
    let id = bed.submit(["--wrap=true"]);
    bed.wait_job(id, A_MINUTE);
    let sacct = ["sacct", "-a", "-X", "-n", "-P", "-o", "jobid,user,state"];
    let expected = format!("{id}|{TEST_USER}|COMPLETED\n");
    let deadline = Instant::now() + A_MINUTE;
    // slurmctld sends its records to slurmdbd some seconds later.
    loop {
        let records = bed.run(sacct).checked();
        if records == expected {
            break;
        }
        assert!(Instant::now() < deadline, "sacct says {records:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn a_spank_plugin_is_loaded_everywhere_but_on_bare_hosts() {
    let options = Options::nodes(2).bare_node("node1").spank("optional /no/such/plugin.so");
    let bed = Cluster::start(&options);
    let complaint = "/no/such/plugin.so";
    let srun = bed.run(["srun", "-N2", "true"]);
    assert!(srun.stderr.contains(complaint), "{}", srun.stderr);
    assert!(bed.log("slurmd.node2").contains(complaint));
    assert!(!bed.log("slurmd.node1").contains(complaint));
    let bare = bed.command_bare("srun").args(["-N2", "true"]).output().expect("srun runs");
    assert!(bare.status.success() && bare.stderr.is_empty(), "{bare:?}");
}

#[test]
fn settings_of_slurm_conf_and_files_beside_it_are_the_callers() {
    let script = "function slurm_job_submit(job, parts, uid)
        job.comment = 'seen by lua'
        return slurm.SUCCESS
    end
    function slurm_job_modify(job, record, parts, uid) return slurm.SUCCESS end
    return slurm.SUCCESS";
    let options = Options::nodes(2)
        .job_submit("lua")
        .etc_file("job_submit.lua", script)
        .conf("KillWait=7")
        .conf("PartitionName=small Nodes=node1 MaxTime=10");
    let bed = Cluster::start(&options);
    let job = bed.job(bed.submit(["-p", "small", "--wrap=true"]));
    assert_eq!((job.field("Comment"), job.field("Partition")), ("seen by lua", "small"));
    let settings = bed.run(["scontrol", "show", "config"]).checked();
    assert!(settings.lines().any(|l| l.starts_with("KillWait") && l.ends_with("= 7 sec")));
}

#[test]
fn a_lost_node_and_a_stopped_controller_come_back() {
    let bed = Cluster::start(&Options::nodes(2));
    let id = bed.submit(["-w", "node2", "--wrap=sleep 1000"]);
    bed.wait_until(id, A_MINUTE, |job| job.state() == "RUNNING");
    bed.stop("node2", "KILL");
    bed.restart("node2");
    bed.stop("slurmctld", "TERM");
    assert_ne!(bed.run(["timeout", "1", "squeue"]).code, Some(0));
    bed.restart("slurmctld");
    assert_eq!(bed.job(id).state(), "RUNNING");
    bed.run(["scancel", &id.to_string()]).ok();
    assert_eq!(bed.wait_job(id, A_MINUTE).state(), "CANCELLED");
    bed.wait_idle(A_MINUTE);
}

#[test]
fn what_a_job_leaves_behind_is_listed_and_ends_with_the_bed() {
    let bed = Cluster::start(&Options::nodes(1));
    // Out of its session and with a clean environment: only the namespace gives it away.
    let escape =
        "env -i setsid sh -c 'touch started; exec sleep 98765' </dev/null >/dev/null 2>&1 &
        until [ -e started ]; do sleep 0.05; done";
    bed.wait_job(bed.submit(["--wrap", escape]), A_MINUTE);
    let deadline = Instant::now() + A_MINUTE;
    let found = loop {
        let processes = bed.processes();
        if let Some(orphan) = processes.iter().find(|p| p.command == "sleep 98765") {
            break orphan.clone();
        }
        assert!(Instant::now() < deadline, "{processes:?}");
    };
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
    let deadline = Instant::now() + A_MINUTE;
    while Path::new(&dir).exists() {
        assert!(Instant::now() < deadline, "{dir} is still there");
        std::thread::sleep(Duration::from_millis(100));
    }
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
        let output = Command::new(script).args(["up", &dir, "-n", "1"]).args(arguments).output();
        let output = output.expect("the script runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (success, said) = up(&["--job-submit", "nonsense"]);
    assert!(!success && said.contains("job_submit/nonsense"), "{said}");
    let processes = Command::new(script).args(["ps", &dir]).output().expect("the script runs");
    assert!(String::from_utf8_lossy(&processes.stderr).contains("is not up"));

    let (success, said) = up(&["--nodes", "3"]);
    assert!(!success && said.contains("--nodes is no option"), "{said}");
    Command::new(script).args(["down", "--rm", &dir]).status().expect("the script runs");
    assert!(!Path::new(&dir).exists());
}
