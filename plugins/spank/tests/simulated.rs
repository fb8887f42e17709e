// SPDX-License-Identifier: Apache-2.0
//! The built file in the simulated Slurm: every known release, every rule on which call is legal
//! where, and every call failing in turn.
#![allow(clippy::unwrap_used)]

use disagg::plan::Plan;
use slurm_bed::{built, config_with, public_directory};
use slurm_sim::{
    Cluster, Env, Fault, Hook, Host, JobRun, Level, Outcome, Release, SpankError, Trace,
};

const SIZES: [&str; 3] = ["-N3", "-n12", "--ntasks-per-node=4"];

/// A simulated cluster, with the plugin's files in a directory that every user can read.
struct Site {
    directory: tempfile::TempDir,
    release: Release,
    how: &'static str,
    sizes: &'static [&'static str],
}

impl Site {
    fn new(release: Release) -> Self {
        let directory = public_directory();
        let write = |name: &str, text: &str| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        let config =
            config_with((4, (1, 4), (1, 8)), "LEVEL=INFO CACHE=/tmp/cache_${SLURM_LOCALID}");
        write("three.yaml", &config);
        write("bad.yaml", &config.replace("gpus_per_node: 4", "gpus_per_node: 0"));
        // One server by itself, over two nodes.
        let server = "server_configs: [{name: large, tensor_parallel_size: 8}]";
        write("one.yaml", &format!("hardware: {{gpus_per_node: 4}}\n{server}\n"));
        write("site.yaml", "trtllm_dir: /opt/trtllm\nmodels_dir: /opt/models\n");
        write("job.sh", "#!/bin/bash\ntrue\n");
        std::fs::copy(built("spank_disagg.so"), directory.path().join("spank_disagg.so")).unwrap();
        Self { directory, release, how: "required", sizes: &SIZES }
    }

    fn cluster(&self) -> Cluster {
        let place = self.directory.path().display();
        let host = Host::find()
            .unwrap_or_else(|e| panic!("{e}; build it with `cargo build -p slurm-sim`"));
        Cluster::new(self.release, host, 4)
            .plugstack(format!("{} {place}/spank_disagg.so site={place}/site.yaml\n", self.how))
            .cwd(self.directory.path())
    }

    fn sbatch(&self, cluster: &Cluster, options: &[&str]) -> Trace {
        let arguments = [self.sizes, options, &["job.sh"]].concat();
        cluster.sbatch(&arguments, &environ()).unwrap()
    }

    /// Submits a job with a config and starts a step of a role in it, as its script would.
    fn step(&self, cluster: &Cluster, options: &[&str]) -> JobRun {
        self.step_of(&["--disagg-config=three.yaml"], cluster, options)
    }

    fn step_of(&self, submission: &[&str], cluster: &Cluster, options: &[&str]) -> JobRun {
        let submitted = self.sbatch(&self.cluster(), submission);
        let submission = submitted.submissions()[0].clone();
        let allocation = cluster.allocate_for(&submission).unwrap();
        let batch = self.cluster().batch(&submission, &allocation).unwrap();
        assert!(batch.is_clean(), "{batch:#?}");
        let mut environment = batch.ranks()[0].environment.clone();
        environment.set("UCX_TLS", "tcp");
        // Every simulated job has the same number; tests that run beside each other are told apart.
        let conf = self.directory.path().join("slurm.conf");
        environment.set("SLURM_CONF", conf.to_str().unwrap());
        let arguments = [options, &["true"]].concat();
        cluster.srun_in(&allocation, 0, &arguments, &environment).unwrap()
    }
}

fn environ() -> Env {
    [("PATH", "/usr/bin:/bin"), ("HOME", "/"), ("USER", "someone")].into_iter().collect()
}

fn all_clean(run: &JobRun) {
    for trace in run.traces() {
        assert!(trace.is_clean(), "{trace:#?}");
    }
}

#[test]
fn on_every_release_a_role_is_all_that_a_step_has_to_name() {
    for release in Release::ALL {
        let site = Site::new(release);
        let submitted = site.sbatch(&site.cluster(), &["--disagg-config=three.yaml"]);
        assert!(submitted.is_clean(), "{release:?}: {submitted:#?}");
        let submission = submitted.submissions()[0];
        assert_eq!(
            submission.job_control.get("DISAGG_DEMAND"),
            Some("v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=three"),
            "{release:?}"
        );
        let plan = submission.environment.get("SLURM_DISAGG_PLAN").unwrap();
        assert_eq!(Plan::from_json(plan).unwrap().layout.total_nodes, 3);

        let run = site.step(&site.cluster(), &["--disagg-role=GEN_0"]);
        all_clean(&run);
        let ranks = run.ranks();
        let hosts: Vec<&str> = ranks.iter().map(|rank| rank.host.as_str()).collect();
        assert_eq!(hosts, [["node1"; 4], ["node2"; 4]].concat(), "{release:?}");
        for rank in ranks {
            let value = |name| rank.environment.get(name);
            assert_eq!(value("DISAGG_SERVING_TYPE"), Some("GEN_0"));
            assert_eq!(value("LEVEL"), Some("INFO"));
            assert_eq!(value("CACHE"), Some(format!("/tmp/cache_{}", rank.local).as_str()));
            assert_eq!(value("LLM_ROOT"), Some("/opt/trtllm"));
            // A srun in the task would take the last two for its own.
            for gone in [
                "UCX_TLS",
                "SLURM_HOSTFILE",
                "SLURM_DISAGG_STEP_ROLE",
                "_SLURM_SPANK_OPTION_disagg_disagg_role",
            ] {
                assert_eq!(value(gone), None, "{release:?}: {gone}");
            }
        }
    }
}

#[test]
fn on_every_release_a_broken_config_ends_sbatch_before_anything_is_submitted() {
    for release in Release::ALL {
        for how in ["required", "optional"] {
            let site = Site { how, ..Site::new(release) };
            let trace = site.sbatch(&site.cluster(), &["--disagg-config=bad.yaml"]);
            assert!(trace.submissions().is_empty(), "{release:?} {how}");
            assert!(trace.violations().is_empty(), "{:#?}", trace.violations());
            assert!(trace.stderr.contains("bad.yaml:2:27: error:"), "{}", trace.stderr);
            let code = match trace.outcome {
                Outcome::Exit(code) | Outcome::Exited { code, .. } => code,
                ref other => panic!("{other:?}"),
            };
            assert_eq!(code, 1);
        }
    }
}

#[test]
fn a_job_without_a_config_is_the_same_with_the_plugin_and_without_it() {
    for release in Release::ALL {
        let site = Site::new(release);
        let without = Cluster::new(release, Host::find().unwrap(), 4).cwd(site.directory.path());
        let [with, without] = [site.cluster(), without].map(|cluster| {
            let trace = site.sbatch(&cluster, &[]);
            assert!(trace.is_clean(), "{trace:#?}");
            let submission = trace.submissions()[0].clone();
            let allocation = cluster.allocate_for(&submission).unwrap();
            let environment = submission.environment.clone();
            let run = cluster.srun_in(&allocation, 0, &["-n2", "true"], &environment).unwrap();
            all_clean(&run);
            let ranks: Vec<Env> = run
                .ranks()
                .iter()
                .map(|rank| {
                    let mut environment = rank.environment.clone();
                    environment.unset("SLURM_TASK_PID");
                    environment
                })
                .collect();
            (
                submission.environment,
                submission.job_control,
                submission.request,
                ranks,
                trace.stderr,
            )
        });
        assert_eq!(with, without, "{release:?}");
    }
}

#[test]
fn slurmd_is_left_alone() {
    let trace = Site::new(Release::V22_05).cluster().slurmd().unwrap();
    assert!(trace.is_clean(), "{trace:#?}");
    assert!(trace.results_of("spank_option_register").is_empty());
}

#[test]
fn nothing_of_the_users_is_read_as_root() {
    let site = Site::new(Release::V22_05);
    let run = site.step(&site.cluster(), &["--disagg-role=CTX_0"]);
    all_clean(&run);
    let stepd = &run.stepds[0];
    if stepd.users_switched {
        for (hook, count) in [(Hook::UserInit, 1), (Hook::TaskInit, 4)] {
            let users = stepd.users_of(hook);
            assert_eq!(users.len(), count);
            assert!(users.iter().all(|user| *user != 0), "{users:?}");
        }
    }
    let order = stepd.order();
    let before_the_tasks = order.iter().position(|hook| *hook == "task_init").unwrap();
    let calls = ["spank_get_item", "spank_getenv", "spank_setenv"];
    assert!(order[..before_the_tasks].contains(&"init_post_opt"));
    for call in calls {
        assert!(!stepd.results_of(call).is_empty(), "{call} is made by the tasks");
    }
}

#[test]
fn a_call_that_fails_at_submit_time_is_told_and_breaks_no_rule() {
    for call in ["spank_option_register", "spank_context", "spank_job_control_setenv"] {
        for error in [SpankError::Error, SpankError::BadArg, SpankError::Nospace] {
            let site = Site::new(Release::V22_05);
            let cluster = site.cluster().fault(Fault::always(call, error));
            let trace = site.sbatch(&cluster, &["--disagg-config=three.yaml"]);
            assert!(trace.violations().is_empty(), "{call}: {:#?}", trace.violations());
            assert!(trace.submissions().is_empty(), "{call}: submitted without its plan");
            assert!(!matches!(trace.outcome, Outcome::Crashed { .. } | Outcome::Hung { .. }));
            assert!(!trace.stderr.is_empty());
        }
    }
}

#[test]
fn a_call_that_fails_in_slurmstepd_fails_the_tasks_and_never_slurmstepd_itself() {
    for ((call, nth), how) in [("spank_setenv", 1), ("spank_setenv", 5), ("spank_unsetenv", 1)]
        .into_iter()
        .flat_map(|fault| ["required", "optional"].map(|how| (fault, how)))
    {
        let site = Site { how, ..Site::new(Release::V22_05) };
        let cluster = site.cluster().fault(Fault::nth(call, nth, SpankError::Nospace));
        let run = site.step(&cluster, &["--disagg-role=CTX_0"]);
        assert!(run.client.is_clean(), "{:#?}", run.client);
        for stepd in &run.stepds {
            assert!(stepd.violations().is_empty(), "{call}: {:#?}", stepd.violations());
            assert!(stepd.ranks().is_empty(), "{call}: a task has started with half its variables");
            let told = stepd.log(Level::Error);
            assert!(told.iter().any(|line| line.contains(call)), "{call}: {told:?}");
            assert!(matches!(stepd.outcome, Outcome::Exit(_)), "{:?}", stepd.outcome);
        }
    }
}

#[test]
fn items_that_slurm_does_not_tell_are_done_without() {
    let site = Site::new(Release::V22_05);
    let cluster = site.cluster().fault(Fault::always("spank_get_item", SpankError::NotAvail));
    let run = site.step(&cluster, &["--disagg-role=CTX_0"]);
    assert!(run.client.is_clean(), "{:#?}", run.client);
    // Without the environment there is no plan: the tasks say so and do not start.
    for stepd in &run.stepds {
        assert!(stepd.violations().is_empty());
        assert!(stepd.ranks().is_empty());
        assert!(stepd.log(Level::Error).iter().any(|l| l.contains("has no SLURM_DISAGG_PLAN")));
    }
}

#[test]
fn the_command_line_overrides_a_default_on_every_release() {
    for release in Release::ALL {
        let site = Site::new(release);
        let run = site.step(&site.cluster(), &["--disagg-role", "CTX_0", "-w", "node2"]);
        all_clean(&run);
        assert!(run.ranks().iter().all(|rank| rank.host == "node2"), "{release:?}");
        assert_eq!(run.ranks().len(), 4, "{release:?}");
    }
}

#[test]
fn on_every_release_a_test_id_of_the_unified_form_is_planned_by_its_rules() {
    for release in Release::ALL {
        let site = Site::new(release);
        let test = ["--disagg-config=three.yaml", "--disagg-test=disagg_upload-gen_only-three"];
        let run = site.step_of(&test, &site.cluster(), &["--disagg-role=GEN_0"]);
        all_clean(&run);
        assert_eq!(run.ranks().len(), 8, "{release:?}");
        for rank in run.ranks() {
            let plan = Plan::from_json(rank.environment.get("SLURM_DISAGG_PLAN").unwrap()).unwrap();
            assert_eq!(plan.title(), "disagg_upload-gen_only-three");
            let command = rank.environment.get("pytestCommand").unwrap();
            assert!(command.contains("disagg_upload-gen_only-three]"), "{command}");
        }
    }
}

#[test]
fn on_every_release_the_one_server_of_an_aggregated_test_is_its_only_role() {
    for release in Release::ALL {
        let site = Site { sizes: &["-N2", "-n8"], ..Site::new(release) };
        let test = ["--disagg-config=one.yaml", "--disagg-test=aggr_upload-one-large"];
        let run = site.step_of(&test, &site.cluster(), &["--disagg-role=AGGREGATED"]);
        all_clean(&run);
        let hosts: Vec<&str> = run.ranks().iter().map(|rank| rank.host.as_str()).collect();
        assert_eq!(hosts, [["node1"; 4], ["node2"; 4]].concat(), "{release:?}");
        assert!(
            run.ranks().iter().all(|rank| rank.environment.get("DISAGG_SERVING_TYPE").is_none())
        );
        let other = site.step_of(&test, &site.cluster(), &["--disagg-role=GEN_0"]);
        assert!(
            other.client.stderr.contains("no role 'GEN_0'; it has AGGREGATED"),
            "{release:?}: {other:#?}"
        );
    }
}
