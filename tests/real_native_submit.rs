// SPDX-License-Identifier: Apache-2.0
//! The whole native way on a real Slurm, as a site has it: the SPANK plugin computes the plan at
//! submit time, and the controller, by plugin or by Lua script, sizes the job or refuses it.
#![allow(clippy::unwrap_used)]

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use slurm_bed::{Job, Options, config, plugstack_line, wait_for};

const ENGINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines");

const LIMIT: Duration = Duration::from_secs(120);

/// What [`Site::held`]'s job prints when its step has run.
const CTX_1_RAN: &str = "CTX_1\nCTX_1\nCTX_1\nCTX_1\n0\n";

/// The two ways in which a controller has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plugin,
    Script,
}

/// A cluster of five nodes with both sides installed.
struct Site {
    way: Way,
    site: slurm_bed::Site,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.way)
    }
}

impl Deref for Site {
    type Target = slurm_bed::Site;

    fn deref(&self) -> &slurm_bed::Site {
        &self.site
    }
}

/// Each way in turn. The plugin is for the Slurm whose header it was built with: the machine's own.
fn sites() -> impl Iterator<Item = Site> {
    [Way::Plugin, Way::Script].into_iter().map(Site::new)
}

impl Site {
    fn new(way: Way) -> Self {
        let site = slurm_bed::Site::with(5, |options: Options, files| {
            let options = options.conf("SlurmdTimeout=5").spank(&plugstack_line("required", files));
            let script = format!(
                "local disagg = dofile('{}')\n\
                 slurm_job_submit, slurm_job_modify = disagg.job_submit, disagg.job_modify\n\
                 return slurm.SUCCESS\n",
                files.join("job_submit_disagg.lua").display()
            );
            match way {
                Way::Plugin => options.job_submit("disagg").plugin_dir(files),
                Way::Script => options.job_submit("lua").etc_file("job_submit.lua", &script),
            }
        });
        site.write("two.yaml", &config(2, (1, 2), (1, 2)));
        Self { way, site }
    }

    /// Submits a job that runs CTX_1, which has the plan's last node, once it is released.
    fn held(&self, config: &str) -> u32 {
        let script = "srun --disagg-role=CTX_1 bash -c 'echo $DISAGG_SERVING_TYPE'; echo $?";
        self.submit(&["--hold", &format!("--disagg-config={config}")], script)
    }

    fn release(&self, id: u32) -> Job {
        self.run(["scontrol", "release", &id.to_string()]).ok();
        self.cluster.wait_job(id, LIMIT)
    }
}

/// Nodes and tasks. Before it starts a job has a range of nodes in some releases.
fn size(job: &Job) -> (&str, &str) {
    let nodes = job.field("NumNodes");
    (nodes.split_once('-').map_or(nodes, |(min, _)| min), job.field("NumTasks"))
}

/// All five roles at once; each rank prints its role, its host and how many GPUs its node has.
const ALL_ROLES: &str = r#"
for role in GEN_0 CTX_0 CTX_1 DISAGG_SERVER BENCHMARK; do
    srun --disagg-role=$role bash -c '
        echo $DISAGG_SERVING_TYPE $(hostname) $(tr , " " <<<"$SLURM_STEP_GPUS" | wc -w)
        touch $DISAGG_SERVING_TYPE
        for other in GEN_0 CTX_0 CTX_1 DISAGG_SERVER BENCHMARK; do
            while [ ! -e $other ]; do sleep 0.05; done
        done' || echo "$role failed" &
done | sort | uniq -c
wait
echo $(tr , " " <<<"$SLURM_JOB_GPUS" | wc -w) GPUs"#;

#[test]
fn a_config_alone_sizes_the_job_and_its_five_concurrent_steps() {
    for site in sites() {
        let (job, output) = site.job(&["--disagg-config=three.yaml"], ALL_ROLES);
        assert_eq!(size(&job), ("3", "12"), "{site}");
        let lines: Vec<_> = output.lines().map(str::trim_start).collect();
        let expected = [
            "1 BENCHMARK node1 4",
            "4 CTX_0 node2 4",
            "4 CTX_1 node3 4",
            "1 DISAGG_SERVER node1 4",
            "4 GEN_0 node1 4",
            "4 GPUs",
        ];
        assert_eq!(lines, expected, "{site}");
        let tres = [job.field("TRES"), job.field("AllocTRES")].concat();
        assert!(tres.contains("node=3"), "{site}: {tres}");
        assert_eq!(job.field("TresPerNode").rsplit(':').next(), Some("4"), "{site}");
    }
}

/// What a script of one's own does with a recipe: it finds out where each step is, waits until it is
/// ready, and starts the next.
const STEPS_OF_A_RECIPE: &str = r#"
roles=$(srun --disagg-role=help)
place() {
    read -r _ _ _ _ _ nodes _ port _ < <(grep "^$1 " <<<"$roles")
    echo "http://$(scontrol show hostnames "$nodes" | head -n1):${port%,}"
}
start() { srun --disagg-role=$1 DISAGG step & }
ready() {
    until python3 -c 'import sys, urllib.request as http; http.urlopen(sys.argv[1], timeout=5)' \
        "$(place $1)/$2" 2>>not_ready; do sleep 0.2; done
}
start REGISTRY; ready REGISTRY
for step in DECODE_0 PREFILL_0 PREFILL_1; do start $step; done
for step in DECODE_0 PREFILL_0 PREFILL_1; do ready $step health; done
start ROUTER; ready ROUTER workers
for step in WARMUP BENCHMARK_1 BENCHMARK_4; do
    srun --disagg-role=$step DISAGG step; echo "$step $?"
done
kill $(jobs -p); wait
srun --disagg-role=REGISTRY bash -c 'DISAGG step & sleep 1; kill -USR1 $!; wait $!; echo status $?'
"#;

#[test]
fn a_recipe_alone_sizes_the_job_and_a_script_starts_its_steps() {
    let recipe = format!(
        "engine: {ENGINES}/standin.yaml\nmodel: {ENGINES}\ngpus_per_node: 4\n\
         env: {{STANDIN_FAULT: ''}}\nroles:\n  decode: {{args: {{tp: 8}}}}\n  \
         prefill: {{servers: 2, args: {{tp: 2}}}}\nbenchmark:\n  concurrencies: [1, 4]\n  rounds: 3\n  \
         warmup: 2\n  command: [python3, '{ENGINES}/standin.py', client, --url, '{{url}}', --concurrency, \
         '{{concurrency}}', --prompts, '{{prompts}}', --results, '{{results}}']\n\
         slurm: {{time: 10, placement: packed}}\n"
    );
    let cpus = "engine: dynamo-mocker\nmodel: m\nroles: {prefill: , decode: {servers: 2}}\n\
                serve_only: true\n";
    for site in sites() {
        site.write("recipe.yaml", &recipe);
        let script =
            STEPS_OF_A_RECIPE.replace("DISAGG ", concat!(env!("CARGO_BIN_EXE_slurm-disagg"), " "));
        let (job, output) = site.job(&["--disagg-config=recipe.yaml"], &script);
        assert_eq!(size(&job), ("3", "12"), "{site}: {output}");
        let answers = output.matches("answers of DECODE_0 PREFILL_0 PREFILL_1\n").count();
        assert!(answers >= 2, "{site}: {output}");
        for ended in ["WARMUP 0\n", "BENCHMARK_1 0\n", "BENCHMARK_4 0\n", "status 138\n"] {
            assert!(output.contains(ended), "{site}: {ended} {output}");
        }
        assert!(!output.contains("wrong"), "{site}: {output}");

        site.write("cpus.yaml", cpus);
        let (job, output) = site.job(&["--disagg-config=cpus.yaml"], "echo [$SLURM_JOB_GPUS]");
        assert_eq!((size(&job).0, &*output), ("3", "[]\n"), "{site}");
        let refused = ["sbatch", "-N1", "--disagg-config=cpus.yaml", "--wrap=true"];
        let nodes = "1 node asked for, but the plan of cpus needs 3 nodes";
        assert!(site.refused(&refused).contains(nodes), "{site}");
    }
}

#[test]
fn what_contradicts_the_config_is_refused_before_it_is_queued() {
    for site in sites() {
        let refused =
            |options: &[&str]| site.refused(&[&["sbatch"], options, &["--wrap=true"]].concat());
        let message = refused(&["-N1", "--disagg-config=three.yaml"]);
        let nodes = "disagg: 1 node asked for, but the plan of three needs 3 nodes";
        assert!(message.contains(nodes), "{site}: {message}");

        let timed = format!("{}slurm: {{job_time: '00:10:00'}}\n", site.read("three.yaml"));
        site.write("timed.yaml", &timed);
        let message = refused(&["--time=5", "--disagg-config=timed.yaml"]);
        let time = "disagg: 5 minutes asked for, but the plan of timed needs 10 minutes: say --time=10 or more";
        assert!(message.contains(time), "{site}: {message}");
        for option in ["--time=11", "--hold"] {
            site.run(["sbatch", option, "--disagg-config=timed.yaml", "--wrap=true"]).ok();
        }
    }
}

#[test]
fn a_test_id_of_one_server_sizes_the_job_for_that_server() {
    for site in sites() {
        site.write(
            "one.yaml",
            "hardware:\n  gpus_per_node: 4\nserver_configs:\n  - name: large\n    tensor_parallel_size: 8\n",
        );
        for (config, id, nodes, tasks) in [
            ("one", "aggr_upload-one-large", "2", 8),
            ("three", "aggr_upload-ctx_only-three", "1", 4),
        ] {
            let config = format!("--disagg-config={config}.yaml");
            let options = [config.as_str(), &format!("--disagg-test={id}")];
            let (job, said) = site.job(&options, "srun --disagg-role=AGGREGATED echo rank");
            assert_eq!(size(&job), (nodes, tasks.to_string().as_str()), "{site} {id}");
            assert_eq!(said, "rank\n".repeat(tasks), "{site} {id}");
        }
    }
}

#[test]
fn a_component_of_a_heterogeneous_job_behind_one_with_a_config_is_not_sized() {
    for site in sites() {
        let with = |config: &'static str| {
            ["--disagg-config=three.yaml", "--disagg-config=two.yaml"][usize::from(config == "two")]
        };
        for (components, expected) in [
            (vec![with("three"), ":", "-n1"], vec![("3", "12"), ("1", "1")]),
            (vec!["-n1", ":", with("two"), ":", "-n1"], vec![("1", "1"), ("2", "4"), ("1", "1")]),
            (
                vec![with("two"), ":", "-n1", ":", with("three")],
                vec![("2", "4"), ("1", "1"), ("3", "12")],
            ),
        ] {
            let argv = [&["sbatch", "--hold", "--parsable"], &components[..], &["--wrap=true"]];
            let id = site.run(argv.concat()).checked();
            let show = ["scontrol", "--oneliner", "show", "job", id.trim()];
            let text = site.cluster.run(show).checked();
            let jobs: Vec<Job> = text.lines().map(Job::parse).collect();
            let sizes: Vec<_> = jobs.iter().map(size).collect();
            assert_eq!(sizes, expected, "{site} {components:?}");
            for (job, (_, tasks)) in jobs.iter().zip(&expected) {
                assert_eq!(job.field("TresPerNode").is_empty(), *tasks == "1", "{site}");
            }
        }
    }
}

/// A job's script has the environment of the first component alone.
#[test]
fn a_step_of_a_later_component_names_its_config_again() {
    for site in sites() {
        let script = "srun --het-group=1 --disagg-role=CTX_0 true
            srun --het-group=1 --disagg-config=two.yaml --disagg-role=CTX_0 hostname";
        let first = ["-n1", ":", "--disagg-config=two.yaml"];
        let (_, said) = site.job(&first, script);
        assert!(said.contains("there is no plan here"), "{site}: {said}");
        assert!(said.ends_with("\nnode3\nnode3\n"), "{site}: node1 is the first's: {said}");
    }
}

#[test]
fn a_restart_of_the_controller_between_submission_and_start_keeps_the_size_and_the_plan() {
    for site in sites() {
        let id = site.held("three.yaml");
        site.cluster.stop("slurmctld", "TERM");
        site.cluster.restart("slurmctld");
        let job = site.release(id);
        assert_eq!((job.state(), size(&job)), ("COMPLETED", ("3", "12")), "{site}");
        assert_eq!(site.read("job.out"), CTX_1_RAN, "{site}");
    }
}

/// The script can refuse the update; the plugin cannot, because Slurm gives it a job record that no
/// header describes. Then the job's first step says what is wrong.
#[test]
fn an_update_to_fewer_nodes_before_the_start_is_refused_or_named_by_the_first_step() {
    for site in sites() {
        let id = site.held("three.yaml");
        let job_id = format!("JobId={id}");
        let update = ["scontrol", "update", &job_id, "NumNodes=2-2", "NumTasks=8", "NumCPUs=8"];
        let output = site.run(update);
        let job = site.release(id);
        match site.way {
            Way::Script => {
                assert_ne!(output.code, Some(0), "{output:?}");
                assert_eq!((job.state(), size(&job)), ("COMPLETED", ("3", "12")));
                assert_eq!(site.read("job.out"), CTX_1_RAN);
            }
            Way::Plugin => {
                assert_eq!(output.code, Some(0), "{output:?}");
                assert_eq!(size(&job), ("2", "8"));
                let said = site.read("job.out");
                let sentence = "the job has 2 nodes, but the plan of three needs 3";
                assert!(said.contains(sentence), "{said}");
                assert!(said.ends_with("\n1\n"), "{said}");
            }
        }
    }
}

#[test]
fn a_node_that_is_lost_ends_its_job_and_the_next_job_is_sized_again() {
    // Slurm takes 40 seconds to miss a node, whichever way the job was sized.
    let site = Site::new(Way::Plugin);
    let script = "srun --disagg-role=CTX_0 bash -c 'touch started; sleep 120'";
    let id = site.submit(&["--no-requeue", "--disagg-config=three.yaml"], script);
    let started = |_: &Job| site.path("started").exists();
    site.cluster.wait_until(id, LIMIT, started);
    // CTX_0 has the job's second node.
    site.cluster.stop("node2", "KILL");
    let job = site.cluster.wait_job(id, LIMIT);
    assert_eq!(job.state(), "NODE_FAIL", "{site}: {}", site.read("job.out"));
    let script = "srun --disagg-role=CTX_0 hostname";
    let (job, said) = site.job(&["--disagg-config=three.yaml"], script);
    assert_eq!(size(&job), ("3", "12"), "{site}");
    assert_eq!((said.lines().count(), said.contains("node2")), (4, false), "{site}: {said}");
}

#[test]
fn every_task_of_an_array_is_sized_and_has_the_plan_of_the_submission() {
    for site in sites() {
        let script = "srun --disagg-role=GEN_0 bash -c 'echo $SLURM_PROCID \
            >array.$SLURM_ARRAY_TASK_ID.$SLURM_PROCID'
            echo ${#SLURM_DISAGG_PLAN} $SLURM_JOB_NUM_NODES >array.$SLURM_ARRAY_TASK_ID";
        site.write("job.sh", &format!("#!/bin/bash\n{script}\n"));
        let options = ["--array=1-3", "--output=/dev/null", "--disagg-config=three.yaml"];
        site.run([&["sbatch"], &options[..], &["job.sh"]].concat()).ok();
        let has_ended = || site.run(["squeue", "-h"]).checked().is_empty().then_some(());
        wait_for(LIMIT, has_ended, || site.cluster.evidence());
        let plans: Vec<String> = (1..=3).map(|task| site.read(&format!("array.{task}"))).collect();
        assert!(plans[0].ends_with(" 3\n"), "{site}: {plans:?}");
        assert!(plans.iter().all(|plan| *plan == plans[0]), "{site}: {plans:?}");
        for task in 1..=3 {
            assert_eq!(site.read(&format!("array.{task}.3")), "3\n", "{site}");
            assert!(!site.path(&format!("array.{task}.4")).exists(), "{site}");
        }
    }
}

#[test]
fn a_requeued_job_has_its_size_and_its_plan_again() {
    for site in sites() {
        let script =
            "srun --disagg-role=CTX_1 bash -c 'echo ${SLURM_RESTART_COUNT:-0} $(hostname) >>starts
            [ ${SLURM_RESTART_COUNT:-0} = 1 ] || sleep 60'";
        let id = site.submit(&["--requeue", "--disagg-config=three.yaml"], script);
        let started = |_: &Job| site.read("starts").lines().count() == 4;
        site.cluster.wait_until(id, LIMIT, started);
        site.run(["scontrol", "requeue", &id.to_string()]).ok();
        site.cluster.wait_until(id, LIMIT, |job| job.field("Restarts") == "1");
        // A requeued job is held back for two minutes; the bed's credentials expire within seconds.
        let job_id = format!("JobId={id}");
        site.cluster.run(["scontrol", "update", &job_id, "StartTime=now+8"]).ok();
        let job = site.cluster.wait_job(id, LIMIT);
        assert_eq!((job.state(), size(&job)), ("COMPLETED", ("3", "12")), "{site}");
        let starts = site.read("starts");
        assert_eq!(starts.lines().filter(|line| line.starts_with("1 ")).count(), 4, "{starts}");
    }
}

#[test]
fn a_job_without_a_config_is_left_alone_by_both() {
    for site in sites() {
        let (job, said) = site
            .job(&["-N2", "-n3"], "env | grep -c DISAGG; srun -n1 -N1 env | grep -c DISAGG; true");
        assert_eq!(size(&job), ("2", "3"), "{site}");
        assert_eq!((job.field("TresPerNode"), job.field("Comment")), ("", ""), "{site}");
        assert_eq!(said, "0\n0\n", "{site}");
    }
}
