// SPDX-License-Identifier: Apache-2.0
//! The plugin and the Lua script in a real slurmctld, with demands that come from a SPANK plugin of
//! this test's own, so that they may be as hostile as a user's.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use slurm_bed::{Cluster, Job, Options, Output};

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

const BOTH: [Way; 2] = [Way::Plugin, Way::Script];

/// A directory with the plugin under the name that slurmctld looks for, and the test's SPANK plugin.
/// It is this process's own, and goes with the target directory.
fn plugins() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("p{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let built = std::env::var_os("DISAGG_BUILD_DIR").map_or_else(
            || std::env::current_exe().unwrap().with_file_name("libjob_submit_disagg.so"),
            |dir| PathBuf::from(dir).join("job_submit_disagg.so"),
        );
        fs::copy(built, dir.join("job_submit_disagg.so")).unwrap();
        let mut cc = Command::new("cc");
        cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        cc.arg(dir.join("spank_demand.so")).arg(Path::new(HERE).join("tests/spank_demand.c"));
        if let Some(include) = std::env::var_os("SLURM_INCLUDE") {
            cc.arg("-I").arg(include);
        }
        assert!(cc.status().unwrap().success(), "the SPANK plugin of the tests does not compile");
        dir
    })
}

/// A cluster of six nodes with four GPUs each; `site` is disagg.conf, or what the script is
/// configured with.
fn cluster(way: Way, site: &str) -> Cluster {
    let options = Options::nodes(6)
        .spank(&format!("required {}", plugins().join("spank_demand.so").display()));
    Cluster::start(&match way {
        Way::Plugin => options
            .job_submit("disagg")
            .plugin_dir(plugins())
            .conf("SlurmctldDebug=verbose")
            .etc_file("disagg.conf", site),
        Way::Script => options.job_submit("lua").etc_file(
            "job_submit.lua",
            &format!(
                "local disagg = dofile('{HERE}/job_submit_disagg.lua')\n\
                 disagg.configure{{ {site} }}\n\
                 slurm_job_submit, slurm_job_modify = disagg.job_submit, disagg.job_modify\n\
                 return slurm.SUCCESS\n"
            ),
        ),
    })
}

fn sbatch(cluster: &Cluster, arguments: &[&str]) -> Output {
    cluster.run(["sbatch", "--parsable"].iter().chain(arguments))
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
    for way in BOTH {
        let cluster = cluster(way, "");
        let script = "--wrap=srun sh -c 'echo $SLURM_NNODES $SLURM_NTASKS \
                      $(echo $SLURM_JOB_GPUS | tr , \" \" | wc -w) $SLURMD_NODENAME'";
        let job = taken(&cluster, &[DEMAND, "--output=out", script]);
        let id = job.field("JobId").parse().unwrap();
        let job = cluster.wait_job(id, LIMIT);
        assert_eq!(job.state(), "COMPLETED", "{way:?}");
        assert_eq!(size(&job), ("3", "12"), "{way:?}");
        assert_eq!(job.field("Comment"), "disagg config=c nodes=3 gpus=12");
        let out = fs::read_to_string(cluster.work().join("out")).unwrap();
        let mut ranks: Vec<&str> = out.lines().collect();
        ranks.sort_unstable();
        let expected: Vec<String> =
            (0..12).map(|rank| format!("3 12 4 node{}", rank / 4 + 1)).collect();
        assert_eq!(ranks, expected, "{way:?}");
    }
}

#[test]
fn one_node_for_a_plan_of_three_is_refused_before_it_is_queued() {
    for way in BOTH {
        let cluster = cluster(way, "");
        let said = refused(&cluster, &[DEMAND, "-N1", "--wrap=true"]);
        assert!(
            said.contains(
                "disagg: 1 node asked for, but the plan of c needs 3 nodes: \
                 leave --nodes out or say --nodes=3"
            ),
            "{way:?}: {said}"
        );
    }
}

#[test]
fn every_way_to_say_a_wrong_size_is_refused() {
    for way in BOTH {
        let cluster = cluster(way, "");
        for (option, sentence) in [
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
            let said = refused(&cluster, &[DEMAND, option, "--wrap=true"]);
            assert!(said.contains(sentence), "{way:?} {option}: {said}");
        }
    }
}

#[test]
fn every_way_to_say_the_right_size_is_taken() {
    for way in BOTH {
        let cluster = cluster(way, "");
        for options in [
            &["-N3"][..],
            &["-N2-4"],
            &["-n12"],
            &["-N3", "-n12", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=10"],
            &["--ntasks-per-node=4"],
            &["-N2-4", "--ntasks-per-node=4"],
            &["--gpus-per-node=4", "--ntasks-per-gpu=1"],
            &["--gres=gpu:4"],
            &["--gpus=12"],
            &["-n12", "--gpus-per-task=1"],
            &["-wnode[2-4]"],
            &["-wnode5"],
            &["--time=UNLIMITED"],
        ] {
            let job = taken(
                &cluster,
                &[&[DEMAND, "--output=/dev/null"], options, &["--wrap=true"]].concat(),
            );
            let id = job.field("JobId").parse().unwrap();
            let job = cluster.wait_job(id, LIMIT);
            assert_eq!(job.state(), "COMPLETED", "{way:?} {options:?}");
            assert_eq!(size(&job), ("3", "12"), "{way:?} {options:?}");
            // "TRES" up to 23.02, "AllocTRES" later.
            let tres = [job.field("TRES"), job.field("AllocTRES")].concat();
            assert!(tres.contains("node=3"), "{way:?} {options:?}: {tres}");
        }
    }
}

#[test]
fn a_job_without_a_demand_is_untouched() {
    for way in BOTH {
        let cluster = cluster(way, "");
        let job = taken(&cluster, &["-H", "-N2", "--ntasks-per-node=2", "--wrap=true"]);
        assert_eq!(size(&job), ("2", "4"), "{way:?}");
        assert_eq!(job.field("Comment"), "", "{way:?}");
        assert_eq!(job.field("TresPerNode"), "", "{way:?}");
    }
}

#[test]
fn every_component_of_a_heterogeneous_job_has_its_own_demand_or_none() {
    for way in BOTH {
        let cluster = cluster(way, "");
        let two = "--test-demand=v1 nodes=2 tasks=4 tasks_per_node=2 gpus_per_node=2 config=d";
        // The one without comes first: sbatch hands a component's SPANK options on to those behind it.
        let output = sbatch(&cluster, &["-H", "-n1", ":", DEMAND, ":", two, "--wrap=true"]);
        let first: u32 = output.checked().trim().parse().unwrap();
        let text = cluster.run(["scontrol", "-o", "show", "job", &first.to_string()]).checked();
        let sizes: Vec<(&str, &str, bool)> = text
            .lines()
            .map(|job| (field(job, "NumNodes"), field(job, "NumTasks"), job.contains("disagg")))
            .map(|(nodes, tasks, comment)| (one_number(nodes), tasks, comment))
            .collect();
        assert_eq!(sizes, [("1", "1", false), ("3", "12", true), ("2", "4", true)], "{way:?}");
    }
}

#[test]
fn every_task_of_an_array_gets_the_plan_s_size() {
    for way in BOTH {
        let cluster = cluster(way, "");
        let job = ["--wait", DEMAND, "--array=0-2", "--output=/dev/null", "--wrap=true"];
        let id = sbatch(&cluster, &job).checked();
        let text = cluster.run(["scontrol", "-o", "show", "job", id.trim()]).checked();
        let tasks: Vec<&str> = text.lines().collect();
        assert_eq!(tasks.len(), 3, "{way:?}: {text}");
        for task in tasks {
            let words = ["JobState", "NumNodes", "NumTasks"].map(|name| field(task, name));
            assert_eq!(words, ["COMPLETED", "3", "12"], "{way:?}: {task}");
        }
    }
}

#[test]
fn salloc_and_a_direct_srun_are_given_the_plan_s_nodes() {
    for way in BOTH {
        let cluster = cluster(way, "");
        let nodes = ["sh", "-c", "echo $SLURM_NNODES $SLURM_JOB_NODELIST"];
        let output = cluster.run(["salloc", DEMAND].iter().chain(&nodes));
        assert_eq!(output.checked(), "3 node[1-3]\n", "{way:?}");
        let output = cluster.run(["srun", DEMAND, "sh", "-c", "echo $SLURM_JOB_NUM_NODES"]);
        assert!(output.checked().lines().all(|line| line == "3"), "{way:?}");
        let output = cluster.run(["srun", "-N1", DEMAND, "true"]);
        assert!(output.stderr.contains("1 node asked for"), "{way:?}: {}", output.stderr);
    }
}

#[test]
fn hostile_demands_are_refused_and_slurmctld_goes_on() {
    for way in BOTH {
        let cluster = cluster(way, "");
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
            let said = refused(&cluster, &[&demand, "--wrap=true"]);
            assert!(said.contains("not a demand that this controller understands"), "{said}");
        }
        let job = taken(&cluster, &[DEMAND, "-H", "--wrap=true"]);
        assert_eq!(size(&job), ("3", "12"), "{way:?}");
    }
}

#[test]
fn the_site_s_limits_hold_and_the_default_partition_is_known() {
    for (way, nodes, partitions) in [
        (Way::Plugin, "max_nodes=2", "allowed_partitions=big"),
        (Way::Script, "max_nodes = 2", "allowed_partitions = {'big'}"),
    ] {
        let few = cluster(way, nodes);
        let said = refused(&few, &[DEMAND, "--wrap=true"]);
        assert!(said.contains("at most 2 nodes"), "{way:?}: {said}");
        let other = cluster(way, partitions);
        let said = refused(&other, &[DEMAND, "--wrap=true"]);
        assert!(
            said.contains("partition batch may not run disaggregated jobs on this site"),
            "{way:?}: {said}"
        );
        taken(&other, &["-H", "--wrap=true"]);
    }
}

#[test]
fn a_mistake_in_disagg_conf_is_in_the_log_with_its_line_and_stops_nothing() {
    let cluster = cluster(Way::Plugin, "# limits\nmax_node=2\nmax_nodes=5\n");
    let log = cluster.log("slurmctld");
    assert!(log.contains("error: disagg: "), "{log}");
    assert!(log.contains("etc/disagg.conf:2: unknown key 'max_node'"), "{log}");
    let four = "--test-demand=v1 nodes=6 tasks=6 tasks_per_node=1 gpus_per_node=1 config=c";
    assert!(refused(&cluster, &[four, "--wrap=true"]).contains("at most 5 nodes"));
}

#[test]
fn the_plugin_works_again_after_a_reconfiguration_and_a_restart() {
    let cluster = cluster(Way::Plugin, "");
    cluster.run(["scontrol", "reconfigure"]).ok();
    refused(&cluster, &[DEMAND, "-N1", "--wrap=true"]);
    cluster.stop("slurmctld", "TERM");
    cluster.restart("slurmctld");
    refused(&cluster, &[DEMAND, "-N1", "--wrap=true"]);
    taken(&cluster, &[DEMAND, "-H", "--wrap=true"]);
}

#[test]
fn the_script_refuses_an_update_that_contradicts_the_plan() {
    let cluster = cluster(Way::Script, "");
    let job = taken(&cluster, &[DEMAND, "-H", "--wrap=true"]);
    let id = format!("jobid={}", job.field("JobId"));
    let update = |change: &str| cluster.run(["scontrol", "update", &id, change]);
    let output = update("numnodes=2");
    assert_ne!(output.code, Some(0));
    let job = cluster.job(job.field("JobId").parse().unwrap());
    assert_eq!(size(&job), ("3", "12"));
    update("comment=mine").ok();
    update("numnodes=3").ok();
}

#[test]
fn the_plugin_lets_updates_pass() {
    let cluster = cluster(Way::Plugin, "");
    let job = taken(&cluster, &[DEMAND, "-H", "--wrap=true"]);
    let id = format!("jobid={}", job.field("JobId"));
    cluster.run(["scontrol", "update", &id, "timelimit=20"]).ok();
    let job = cluster.job(job.field("JobId").parse().unwrap());
    assert_eq!(job.field("TimeLimit"), "00:20:00");
}

#[test]
fn two_hundred_submissions_at_once_are_all_sized() {
    for way in BOTH {
        let cluster = cluster(way, "");
        let submit = "seq 200 | xargs -P 16 -I{} sbatch -H \"$0\" --wrap=true";
        let output = cluster.run(["sh", "-c", submit, DEMAND]);
        assert_eq!(output.checked().lines().count(), 200, "{way:?}");
        let text = cluster.run(["scontrol", "-o", "show", "job"]).checked();
        let sized = text.lines().filter(|job| field(job, "NumTasks") == "12").count();
        assert_eq!(sized, 200, "{way:?}");
    }
}
