// SPDX-License-Identifier: Apache-2.0
//! The plugin and the Lua script in a real slurmctld, with demands that come from a SPANK plugin of
//! this test's own, so that they may be as hostile as a user's.

#![cfg(have_slurm)]
#![allow(clippy::unwrap_used)]

#[path = "common/plugin_file.rs"]
mod plugin_file;

use std::fmt;
use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use job_submit_disagg::release::BUILT_FOR;
use slurm_bed::{Cluster, Job, Options, Output, Slurm, TEST_USER, contains, public_directory};
use tempfile::TempDir;

const DEMAND: &str =
    "--test-demand=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c time_min=10";
const LIMIT: Duration = Duration::from_secs(30);
const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The two ways in which a site has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plugin,
    Script,
}

/// A cluster of six nodes with four GPUs each that has the rule.
struct Site {
    way: Way,
    cluster: Cluster,
    // Deleted after the cluster is down.
    _plugins: TempDir,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {}", self.way, self.cluster.run(["sbatch", "--version"]).stdout.trim())
    }
}

impl Deref for Site {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// Each way that there is: the Lua plugin of 20.11 reads a script in the place that it was built for,
/// which is not the test's.
fn ways() -> impl Iterator<Item = Way> {
    let has_script = Slurm::under_test().release() > (20, 11);
    [Way::Plugin, Way::Script].into_iter().filter(move |way| *way == Way::Plugin || has_script)
}

/// Each way, with the default settings.
fn sites() -> impl Iterator<Item = Site> {
    ways().map(|way| site(way, ""))
}

/// The script, where there is one.
fn script() -> Option<Site> {
    ways().find(|way| *way == Way::Script).map(|way| site(way, ""))
}

/// A cluster of the Slurm under test. `settings` is disagg.conf, or what the script is configured with.
fn site(way: Way, settings: &str) -> Site {
    let slurm = Slurm::under_test();
    assert!(
        way == Way::Script || is_built_for(&slurm),
        "the plugin is for Slurm {BUILT_FOR}, whose header it was built with, and this is {}; \
         SLURM_INCLUDE says where this one's is",
        slurm.version
    );
    site_on(way, settings, &slurm)
}

fn is_built_for(slurm: &Slurm) -> bool {
    slurm.release() == (BUILT_FOR.major.into(), BUILT_FOR.minor.into())
}

fn site_on(way: Way, settings: &str, slurm: &Slurm) -> Site {
    let plugins = plugins(slurm);
    let options = Options::nodes(6)
        .gpu_type("h100")
        .slurm(slurm)
        .spank(&format!("required {}", plugins.path().join("spank_demand.so").display()));
    let cluster = Cluster::start(&match way {
        Way::Plugin => options
            .job_submit("disagg")
            .plugin_dir(plugins.path())
            .conf("SlurmctldDebug=verbose")
            .etc_file("disagg.conf", settings),
        Way::Script => options.job_submit("lua").etc_file(
            "job_submit.lua",
            &format!(
                "local disagg = dofile('{HERE}/job_submit_disagg.lua')\n\
                 disagg.configure{{ {settings} }}\n\
                 slurm_job_submit, slurm_job_modify = disagg.job_submit, disagg.job_modify\n\
                 return slurm.SUCCESS\n"
            ),
        ),
    });
    Site { way, cluster, _plugins: plugins }
}

/// A directory that everybody can read, with the plugin under the name that slurmctld looks for and
/// the test's SPANK plugin, which is for this Slurm.
fn plugins(slurm: &Slurm) -> TempDir {
    let dir = public_directory();
    fs::copy(plugin_file::plugin_file(), dir.path().join("job_submit_disagg.so")).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"]);
    cc.arg(slurm.prefix.join("include"));
    cc.arg("-o").arg(dir.path().join("spank_demand.so"));
    Output::of(cc.arg(Path::new(HERE).join("tests/spank_demand.c"))).ok();
    dir
}

fn sbatch(cluster: &Cluster, arguments: &[&str]) -> Output {
    cluster.run_as(TEST_USER, ["sbatch", "--parsable"].iter().chain(arguments))
}

/// Submits a job that must be taken; gives it as slurmctld then has it.
#[track_caller]
fn taken(cluster: &Cluster, arguments: &[&str]) -> Job {
    let output = sbatch(cluster, arguments);
    let id = output.checked().trim().parse().unwrap();
    cluster.job(id)
}

/// Submits a job that must be refused; gives what the submitter reads.
#[track_caller]
fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    let output = sbatch(cluster, arguments);
    assert_ne!(output.code, Some(0), "it was taken: {}", output.stdout);
    assert_eq!(cluster.run(["squeue", "-h"]).checked(), "", "nothing is queued");
    output.stderr
}

/// Nodes and tasks.
fn size(job: &Job) -> (&str, &str) {
    (one_number(job.field("NumNodes")), job.field("NumTasks"))
}

/// A number of nodes. Of a job that has no nodes yet some releases print a range of one number.
fn one_number(nodes: &str) -> &str {
    match nodes.split_once('-') {
        Some((min, max)) if min == max => min,
        _ => nodes,
    }
}

/// A field of a job in a list of several.
fn field<'a>(job: &'a str, name: &str) -> &'a str {
    let value = |word: &'a str| word.strip_prefix(name)?.strip_prefix('=');
    job.split_whitespace().find_map(value).unwrap_or_default()
}

#[test]
fn a_job_that_leaves_its_size_open_runs_on_exactly_what_the_plan_needs() {
    for site in sites() {
        let script = "--wrap=srun sh -c 'echo $SLURM_NNODES $SLURM_NTASKS \
                      $(echo $SLURM_JOB_GPUS | tr , \" \" | wc -w) $SLURMD_NODENAME'";
        let job = taken(&site, &[DEMAND, "--output=out", script]);
        let id = job.field("JobId").parse().unwrap();
        let job = site.wait_job(id, LIMIT);
        assert_eq!(job.state(), "COMPLETED", "{site}");
        assert_eq!(size(&job), ("3", "12"), "{site}");
        assert_eq!(job.field("Comment"), "disagg config=c nodes=3 gpus=12");
        let out = fs::read_to_string(site.work().join("out")).unwrap();
        let mut ranks: Vec<&str> = out.lines().collect();
        ranks.sort_unstable();
        let expected: Vec<String> =
            (0..12).map(|rank| format!("3 12 4 node{}", rank / 4 + 1)).collect();
        assert_eq!(ranks, expected, "{site}");
    }
}

#[test]
fn every_way_to_say_a_wrong_size_is_refused() {
    for site in sites() {
        for (option, sentence) in [
            (
                "-N1",
                "disagg: 1 node asked for, but the plan of c needs 3 nodes: \
                 leave --nodes out or say --nodes=3",
            ),
            ("-N4", "4 nodes asked for, but the plan of c needs 3 nodes"),
            ("-N1-2", "1 to 2 nodes asked for, but the plan of c needs 3 nodes"),
            ("-wnode[1-4]", "at least 4 nodes asked for, but the plan of c needs 3 nodes"),
            ("-n8", "8 tasks asked for, but the plan of c needs 12 tasks"),
            ("--ntasks-per-node=2", "2 tasks per node asked for, but the plan of c needs 4 tasks"),
            ("--gpus-per-node=2", "2 GPUs per node asked for, but the plan of c needs 4 GPUs"),
            ("--gres=gpu:2", "2 GPUs per node asked for, but the plan of c needs 4 GPUs"),
            ("--gpus=8", "8 GPUs asked for, but the plan of c needs 12 GPUs"),
            ("--time=5", "5 minutes asked for, but the plan of c needs 10 minutes"),
        ] {
            let said = refused(&site, &[DEMAND, option, "--wrap=true"]);
            assert!(said.contains(sentence), "{site} {option}: {said}");
        }
        if site.way == Way::Plugin {
            // The controller's verbose log has the user.
            let uid = site.run_as(TEST_USER, ["id", "-u"]).checked();
            contains(
                &site.log("slurmctld"),
                &format!("disagg: uid {}: 1 node asked for", uid.trim()),
            );
        }
    }
}

#[test]
fn every_way_to_say_the_right_size_is_taken() {
    for site in sites() {
        let jobs = [
            &["-N3"][..],
            &["-N2-4"],
            &["-n12"],
            &["-N3", "-n12", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=10"],
            &["--ntasks-per-node=4"],
            &["-N2-4", "--ntasks-per-node=4"],
            &["--gpus-per-node=4", "--ntasks-per-gpu=1"],
            &["--gres=gpu:4"],
            &["--gpus=12"],
            &["--gpus=h100:12"],
            &["--gpus=h100:12", "--ntasks-per-gpu=1"],
            &["--gpus-per-node=h100:4"],
            &["-n12", "--gpus-per-task=1"],
            &["-wnode[2-4]"],
            &["-wnode5"],
            &["--time=UNLIMITED"],
        ];
        let jobs = jobs.map(|options| {
            let options = [&[DEMAND, "--output=/dev/null"], options, &["--wrap=true"]].concat();
            (options.join(" "), taken(&site, &options).field("JobId").parse().unwrap())
        });
        for (options, id) in jobs {
            let job = site.wait_job(id, LIMIT);
            assert_eq!(job.state(), "COMPLETED", "{site} {options}");
            assert_eq!(size(&job), ("3", "12"), "{site} {options}");
            // "TRES" up to 23.02, "AllocTRES" later.
            let tres = [job.field("TRES"), job.field("AllocTRES")].concat();
            assert!(tres.contains("node=3"), "{site} {options}: {tres}");
        }
    }
}

#[test]
fn salloc_and_a_direct_srun_are_given_the_plan_s_nodes() {
    for site in sites() {
        let nodes = ["sh", "-c", "echo $SLURM_NNODES $SLURM_JOB_NODELIST"];
        let output = site.run(["salloc", DEMAND].iter().chain(&nodes));
        assert_eq!(output.checked(), "3 node[1-3]\n", "{site}");
        let output = site.run(["srun", DEMAND, "sh", "-c", "echo $SLURM_JOB_NUM_NODES"]);
        assert!(output.checked().lines().all(|line| line == "3"), "{site}");
        let output = site.run(["srun", "-N1", DEMAND, "true"]);
        assert!(output.stderr.contains("1 node asked for"), "{site}: {}", output.stderr);
    }
}

#[test]
fn hostile_demands_are_refused_and_slurmctld_goes_on() {
    for site in sites() {
        let long = format!("v1 config={}", "c".repeat(100_000));
        for text in [
            "v1",
            "v2 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c",
            "v1 nodes=4294967299 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c",
            "v1 nodes=-1 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c",
            "v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=%s%n%s%n",
            "v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=$(reboot)",
            "v1 nodes=3\ntasks=12 tasks_per_node=4 gpus_per_node=4 config=c",
            "v1 nodes=3 nodes=4 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c",
            "\u{1}\u{7f}\u{ff}",
            &long,
        ] {
            let demand = format!("--test-demand={text}");
            let said = refused(&site, &[&demand, "--wrap=true"]);
            assert!(said.contains("not a demand that this controller understands"), "{said}");
        }
        let job = taken(&site, &[DEMAND, "-H", "--wrap=true"]);
        assert_eq!(size(&job), ("3", "12"), "{site}");
    }
}

#[test]
fn the_site_s_limits_hold() {
    for way in ways() {
        let site = site(way, "max_nodes = 2");
        let said = refused(&site, &[DEMAND, "--wrap=true"]);
        assert!(said.contains("at most 2 nodes"), "{site}: {said}");
    }
}

#[test]
fn no_spelling_of_a_partition_or_a_time_passes_its_limits() {
    for way in ways() {
        let site = site(
            way,
            match way {
                Way::Plugin => "partition_max_nodes=batch:2\npartition_max_minutes=batch:30",
                Way::Script => {
                    "partition_max_nodes = { batch = 2 }, partition_max_minutes = { batch = 30 }"
                }
            },
        );
        for partition in ["-pbatch", "-pbatch,", "-p,batch", "-p,", "-pbatch,batch"] {
            let said = refused(&site, &[DEMAND, partition, "--wrap=true"]);
            assert!(said.contains("at most 2 nodes"), "{site} {partition}: {said}");
        }
        let one = "--test-demand=v1 nodes=1 tasks=1 tasks_per_node=1 gpus_per_node=1 config=c";
        for time in [&["-t1-0"][..], &["-tUNLIMITED"], &["-t0"], &[], &["-t31"]] {
            let said = refused(&site, &[&[one, "--wrap=true", "-pbatch,"], time].concat());
            assert!(said.contains("may run at most 30 minutes"), "{site} {time:?}: {said}");
        }
        taken(&site, &[one, "-t30", "-H", "--wrap=true"]);
    }
}

#[test]
fn the_default_partition_is_known() {
    for way in ways() {
        let site = site(
            way,
            match way {
                Way::Plugin => "allowed_partitions=big",
                Way::Script => "allowed_partitions = { 'big' }",
            },
        );
        let said = refused(&site, &[DEMAND, "--wrap=true"]);
        let sentence = "partition batch may not run disaggregated jobs on this site";
        assert!(said.contains(sentence), "{site}: {said}");
        taken(&site, &["-H", "--wrap=true"]);
    }
}

#[test]
fn a_partition_s_own_size_is_known_to_the_script() {
    let Some(site) = script() else { return };
    site.run(["scontrol", "update", "partition=batch", "maxnodes=2"]).ok();
    let said = refused(&site, &[DEMAND, "--wrap=true"]);
    let sentence = "a job in partition batch may have at most 2 nodes";
    assert!(said.contains(sentence), "{site}: {said}");
}

#[test]
fn a_mistake_in_disagg_conf_is_in_the_log_with_its_line_and_stops_nothing() {
    let site = site(Way::Plugin, "# limits\nmax_node=2\nmax_nodes=5\n");
    let log = site.log("slurmctld");
    assert!(log.contains("etc/disagg.conf:2: unknown key 'max_node'"), "{site}: {log}");
    let six = "--test-demand=v1 nodes=6 tasks=6 tasks_per_node=1 gpus_per_node=1 config=c";
    assert!(refused(&site, &[six, "--wrap=true"]).contains("at most 5 nodes"), "{site}");
}

#[test]
fn the_rule_holds_after_a_reconfiguration_and_a_restart() {
    for site in sites() {
        site.run(["scontrol", "reconfigure"]).ok();
        refused(&site, &[DEMAND, "-N1", "--wrap=true"]);
        site.stop("slurmctld", "TERM");
        site.restart("slurmctld");
        refused(&site, &[DEMAND, "-N1", "--wrap=true"]);
        taken(&site, &[DEMAND, "-H", "--wrap=true"]);
    }
}

#[test]
fn the_script_refuses_an_update_that_contradicts_the_plan() {
    let Some(site) = script() else { return };
    let job = taken(&site, &[DEMAND, "-H", "--wrap=true"]);
    let id = format!("jobid={}", job.field("JobId"));
    let update = |change: &str| site.run(["scontrol", "update", &id, change]);
    assert_ne!(update("numnodes=2").code, Some(0), "{site}");
    let job = site.job(job.field("JobId").parse().unwrap());
    assert_eq!(size(&job), ("3", "12"), "{site}");
    update("comment=mine").ok();
    update("numnodes=3").ok();
}

#[test]
fn the_plugin_lets_updates_pass() {
    let site = site(Way::Plugin, "");
    let job = taken(&site, &[DEMAND, "-H", "--wrap=true"]);
    let id = format!("jobid={}", job.field("JobId"));
    site.run(["scontrol", "update", &id, "timelimit=20"]).ok();
    let job = site.job(job.field("JobId").parse().unwrap());
    assert_eq!(job.field("TimeLimit"), "00:20:00", "{site}");
}

/// Where there is such a Slurm: the distribution's while another one is under test, or the other way
/// round; `other_release.rs` shows it everywhere.
#[test]
fn a_slurmctld_of_another_release_starts_and_the_plugin_does_nothing_loudly() {
    let slurms = [Slurm::debian(), Slurm::under_test()];
    for slurm in slurms.iter().filter(|slurm| !is_built_for(slurm)) {
        let site = site_on(Way::Plugin, "", slurm);
        let job = taken(&site, &[DEMAND, "-H", "-N1", "--wrap=true"]);
        assert_eq!(job.field("Comment"), "", "{site}");
        let log = site.log("slurmctld");
        let sentence = format!("does NOTHING: it was built for Slurm {BUILT_FOR}");
        assert!(log.contains(&sentence), "{site}: {log}");
    }
}

#[test]
fn two_hundred_submissions_at_once_are_all_sized() {
    for site in sites() {
        let submit = "seq 200 | xargs -P 16 -I{} sbatch -H \"$0\" --wrap=true";
        let output = site.run(["sh", "-c", submit, DEMAND]);
        assert_eq!(output.checked().lines().count(), 200, "{site}");
        let text = site.run(["scontrol", "-o", "show", "job"]).checked();
        let sized = text.lines().filter(|job| field(job, "NumTasks") == "12").count();
        assert_eq!(sized, 200, "{site}");
    }
}
