// SPDX-License-Identifier: Apache-2.0
//! The plugin on a real Slurm: what a user without privileges sees who submits jobs and starts
//! steps with it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use disagg::plan::step::Variable;
use disagg::plan::{Plan, resolve};
use disagg_host::demand::Demand;
use slurm_bed::{Cluster, Options, Output, Slurm, TEST_USER, built};

const THREE_NODES: &str = r#"
benchmark:
  mode: e2e
  concurrency_list: "64"
hardware:
  gpus_per_node: 4
  num_ctx_servers: 2
  num_gen_servers: 1
environment:
  worker_env_var: "TLLM_LOG_LEVEL=INFO CACHE=/tmp/cache_${SLURM_LOCALID} GREETING=hello_$NAME_OF_USER"
  server_env_var: "SERVER_ONLY=1"
  benchmark_env_var: "BENCHMARK_ONLY=1"
worker_config:
  gen:
    tensor_parallel_size: 4
  ctx:
    tensor_parallel_size: 4
"#;

/// A generation server over two nodes, a context server on a third.
const WIDE: &str = r#"
benchmark:
  mode: e2e
hardware:
  gpus_per_node: 4
  num_ctx_servers: 1
  num_gen_servers: 1
worker_config:
  gen:
    tensor_parallel_size: 8
  ctx:
    tensor_parallel_size: 4
"#;

const SIZES: [&str; 3] = ["--nodes=3", "--ntasks-per-node=4", "--gpus-per-node=4"];

/// A cluster with the plugin, the plugin's files, and the configs in its working directory.
struct Site {
    cluster: Cluster,
    files: Files,
}

/// A directory that every user can read: a user's srun opens the plugin too.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/tmp/spank-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::copy(built("spank_disagg.so"), path.join("spank_disagg.so")).unwrap();
        let site = "trtllm_dir: /opt/trtllm\nmodels_dir: /opt/models\nmpi_type: pmi2\n";
        std::fs::write(path.join("site.yaml"), site).unwrap();
        Self(path)
    }

    fn line(&self, how: &str) -> String {
        let dir = self.0.display();
        format!("{how} {dir}/spank_disagg.so site={dir}/site.yaml")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Site {
    fn start() -> Self {
        Self::with(|options, files| options.spank(&files.line("required")))
    }

    fn with(change: impl FnOnce(Options, &Files) -> Options) -> Self {
        let files = Files::new();
        let cluster = Cluster::start(&change(Options::nodes(4), &files));
        let site = Self { cluster, files };
        site.write("three.yaml", THREE_NODES);
        site.write("wide.yaml", WIDE);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.cluster.work().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    fn read(&self, name: &str) -> String {
        let path = self.path(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn run(&self, argv: &[&str]) -> Output {
        self.cluster.run_as(TEST_USER, argv)
    }

    /// Runs a bash script in a job with a config, to its end; what the script said.
    fn job_with(&self, options: &[&str], script: &str) -> String {
        self.write("job.sh", &format!("#!/bin/bash\n{script}\n"));
        let _ = std::fs::remove_file(self.path("job.out"));
        let mut argv = vec!["--output=job.out", "--time=5"];
        argv.extend(options);
        argv.push("job.sh");
        let id = self.cluster.submit(&argv);
        let job = self.cluster.wait_job(id, Duration::from_secs(120));
        assert_eq!(job.state(), "COMPLETED", "{}", self.said());
        self.said()
    }

    fn job(&self, config: &str, script: &str) -> String {
        let config = format!("--disagg-config={config}");
        let options: Vec<&str> = SIZES.into_iter().chain([config.as_str()]).collect();
        self.job_with(&options, script)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("job.out")).unwrap_or_default()
    }

    #[track_caller]
    fn refused(&self, argv: &[&str], part: &str) {
        let output = self.run(argv);
        assert_eq!(output.code, Some(1), "{argv:?}: {output:?}");
        assert!(output.stderr.contains(part), "{argv:?}: {}", output.stderr);
        assert_eq!(self.run(&["squeue", "-h"]).checked(), "", "something was queued");
    }
}

/// The lines of a step's output, sorted: tasks write in any order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[track_caller]
fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "'{part}' is not in:\n{text}");
}

#[test]
fn a_submission_prints_its_layout_and_the_job_has_the_plan_and_the_demand() {
    let site = Site::start();
    site.write("job.sh", "#!/bin/bash\nenv -0 >job.env\n");
    let mut argv = vec!["sbatch", "--wait", "--disagg-config=three.yaml"];
    argv.extend(SIZES);
    argv.push("job.sh");
    let output = site.run(&argv);
    assert_eq!(output.code, Some(0), "{output:?}");
    contains(
        &output.stderr,
        "sbatch: disagg: three: 3 nodes x 4 GPUs = 12 GPUs: 1 GEN (1 node, 4 GPUs), 2 CTX (1 node, 4 GPUs each)",
    );
    let environment = variables(&site.read("job.env"));
    let plan = Plan::from_json(&environment["SLURM_DISAGG_PLAN"]).unwrap();
    assert_eq!((plan.layout.total_nodes, plan.layout.total_gpus), (3, 12));
    let demand = Demand::parse(&environment["SLURM_SPANK_DISAGG_DEMAND"]).unwrap();
    assert_eq!((demand.nodes, demand.tasks, demand.gpus_per_node), (3, 12, 4));
    assert_eq!(demand.config, "three");
}

fn variables(text: &str) -> BTreeMap<String, String> {
    text.split('\0')
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

const FIVE: [&str; 5] = ["GEN_0", "CTX_0", "CTX_1", "DISAGG_SERVER", "BENCHMARK"];

/// Starts all five roles at once; each rank leaves its host and its environment in a file.
const ALL_ROLES: &str = r#"
export UCX_TLS=tcp NAME_OF_USER=someone LLM_ROOT=/elsewhere
env -0 >job.env
pids=()
for role in GEN_0 CTX_0 CTX_1 DISAGG_SERVER BENCHMARK; do
    srun --disagg-role=$role bash -c 'hostname >$DISAGG_SERVING_TYPE.$SLURM_PROCID.host; env -0 >$DISAGG_SERVING_TYPE.$SLURM_PROCID.env; sleep 1' &
    pids+=($!)
done
for pid in "${pids[@]}"; do wait $pid || echo "a step failed"; done
"#;

fn check_all_roles(site: &Site) {
    assert_eq!(site.job("three.yaml", ALL_ROLES), "");
    let job = variables(&site.read("job.env"));
    let plan = Plan::from_json(&job["SLURM_DISAGG_PLAN"]).unwrap();
    let hosts: Vec<String> = (1..=3).map(|i| format!("node{i}")).collect();
    for name in FIVE {
        let instance = plan.instance(name).unwrap();
        let planned = instance.host_of_each_task(&hosts).unwrap();
        for (rank, host) in planned.iter().enumerate() {
            assert_eq!(site.read(&format!("{name}.{rank}.host")).trim(), **host, "{name} {rank}");
            let task = variables(&site.read(&format!("{name}.{rank}.env")));
            assert_eq!(task["SLURM_NTASKS"], planned.len().to_string());
            let unset: Vec<_> = instance.role.unset.iter().map(|u| u.value.as_str()).collect();
            for Variable { name: variable, value, .. } in &resolve(&instance).set {
                let expected = value.expand(|name| {
                    let found = if name.starts_with("SLURM") { &task } else { &job };
                    found.get(name).map(String::as_str)
                });
                assert_eq!(
                    task.get(*variable),
                    Some(&expected.unwrap()),
                    "{variable} of {name} {rank}"
                );
            }
            assert_eq!(task["DISAGG_SERVING_TYPE"], name);
            assert!(task["pytestCommand"].contains(&format!("results-{name}.xml")));
            assert!(unset.iter().all(|variable| !task.contains_key(*variable)), "{name}");
            assert!(!task.contains_key("SLURM_DISAGG_STEP_ROLE"));
        }
        assert!(!site.path(&format!("{name}.{}.host", planned.len())).exists(), "{name}");
    }
    let worker = variables(&site.read("CTX_1.3.env"));
    assert_eq!(worker["CACHE"], "/tmp/cache_3");
    assert_eq!(worker["GREETING"], "hello_someone");
    assert_eq!(worker["LLM_ROOT"], "/opt/trtllm");
    assert!(!worker.contains_key("UCX_TLS"));
    assert_eq!(variables(&site.read("BENCHMARK.0.env"))["UCX_TLS"], "tcp");
}

#[test]
fn five_steps_at_once_run_on_their_planned_nodes_and_every_variable_is_the_plans() {
    for how in ["required", "optional"] {
        check_all_roles(&Site::with(|options, files| options.spank(&files.line(how))));
    }
}

#[test]
fn a_plugin_that_plugstack_conf_names_by_a_relative_path_works_the_same() {
    check_all_roles(&Site::with(|options, files| {
        options
            .plugin_dir(&files.0)
            .spank(&format!("required spank_disagg.so site={}/site.yaml", files.0.display()))
    }));
}

#[test]
fn a_step_spanning_two_nodes_has_its_ranks_in_blocks() {
    let site = Site::start();
    let said = site.job("wide.yaml", "srun --disagg-role=GEN_0 -l hostname");
    let expected: Vec<String> =
        (0..8).map(|rank| format!("{rank}: node{}", 1 + rank / 4)).collect();
    assert_eq!(sorted(&said), expected);
}

#[test]
fn a_broken_config_stops_the_submission_with_its_place_under_required_and_optional() {
    for how in ["required", "optional"] {
        let site = Site::with(|options, files| options.spank(&files.line(how)));
        site.write("bad.yaml", &WIDE.replace("gpus_per_node: 4", "gpus_per_node: none"));
        let place = "bad.yaml:5:18: error: ";
        site.refused(&["sbatch", "--disagg-config=bad.yaml", "--wrap=true"], place);
        site.refused(&["salloc", "--disagg-config=bad.yaml", "true"], place);
        let output = site.run(&["sbatch", "--disagg-config=bad.yaml", "--wrap=true"]);
        contains(&output.stderr, "sbatch: error:  5 |   gpus_per_node: none");
        contains(&output.stderr, "sbatch: error:    |                  ^^^^");
        site.refused(&["sbatch", "--disagg-config=none.yaml", "--wrap=true"], "none.yaml");
        let empty = "--disagg-config has an empty value";
        site.refused(&["sbatch", "--disagg-config=", "--wrap=true"], empty);
        site.refused(&["srun", "--disagg-config=", "true"], empty);
        site.refused(&["srun", "--disagg-config=bad.yaml", "--disagg-role=GEN_0", "true"], place);
    }
}

#[test]
fn a_config_that_is_a_fifo_does_not_hang_the_submission() {
    let site = Site::start();
    site.run(&["mkfifo", "fifo.yaml"]).ok();
    site.refused(
        &["timeout", "10", "sbatch", "--disagg-config=fifo.yaml", "--wrap=true"],
        "is not a regular file",
    );
}

#[test]
fn a_config_that_the_user_may_not_read_is_refused() {
    let site = Site::start();
    site.write("secret.yaml", WIDE);
    std::fs::set_permissions(site.path("secret.yaml"), std::fs::Permissions::from_mode(0o600))
        .unwrap();
    site.refused(
        &["sbatch", "--disagg-config=secret.yaml", "--wrap=true"],
        "secret.yaml: cannot be opened: Permission denied",
    );
}

#[test]
fn a_config_that_is_deleted_after_the_submission_is_not_missed() {
    let site = Site::start();
    site.run(&["cp", "wide.yaml", "mine.yaml"]).ok();
    let script = "rm mine.yaml; srun --disagg-role=CTX_0 bash -c 'echo $DISAGG_SERVING_TYPE'";
    assert_eq!(sorted(&site.job("mine.yaml", script)), ["CTX_0"; 4]);
}

#[test]
fn a_role_that_the_plan_lacks_fails_the_step_with_the_roles_that_there_are() {
    let site = Site::start();
    let said = site
        .job("three.yaml", "srun --disagg-role=GEN_7 true; echo status $?; srun -n1 -N1 echo on");
    contains(&said, "has no role 'GEN_7'; it has GEN_0, CTX_0..CTX_1, DISAGG_SERVER, BENCHMARK");
    contains(&said, "status 1\non\n");
}

#[test]
fn sizes_on_the_command_line_that_contradict_the_plan_are_refused_with_both_numbers() {
    let site = Site::start();
    let script = "for size in -N3 -n9 --ntasks-per-node=2 '-w node1,node2,node3'; do
        srun $size --disagg-role=GEN_0 true; echo status $?; done";
    let said = site.job("wide.yaml", script);
    assert_eq!(said.matches("status 1\n").count(), 4, "{said}");
    let plan = "contradicts the plan: GEN_0 runs on 2 nodes with 8 tasks, 4 on each";
    for option in ["--nodes=3", "--ntasks=9", "--ntasks-per-node=2", "--nodelist=node1,node2,node3"]
    {
        contains(&said, &format!("{option} {plan}"));
    }
}

#[test]
fn sizes_on_the_command_line_that_agree_with_the_plan_are_taken() {
    let site = Site::start();
    let script = "srun --disagg-role=GEN_0 -N2 -n8 bash -c 'echo $SLURM_NTASKS'
        srun --disagg-role GEN_0 --nodelist=node2,node3 hostname";
    let said = site.job("wide.yaml", script);
    contains(&said, "GEN_0 is not bound to its own (node[1-2]); add -w node[1-2]");
    assert_eq!(said.lines().filter(|line| *line == "8").count(), 8, "{said}");
    for node in ["node2", "node3"] {
        assert_eq!(said.lines().filter(|line| *line == node).count(), 4, "{said}");
    }
}

/// 20.11's `--overlap` shares processors only.
fn steps_share_gpus() -> bool {
    Slurm::under_test().release() > (20, 11)
}

#[test]
fn a_role_that_is_running_is_refused_unless_it_is_asked_for_again() {
    let site = Site::start();
    let beside = if steps_share_gpus() { "--overlap" } else { "--overlap --gpus-per-node=0" };
    let script = "srun --disagg-role=CTX_0 bash -c 'touch started; while [ ! -e finish ]; do sleep 0.1; done' &
        while [ ! -e started ]; do sleep 0.1; done
        srun --disagg-role=CTX_0 true; echo refused $?
        srun --disagg-role=CTX_0 --disagg-again BESIDE true; echo again $?
        srun --disagg-role=GEN_0 true; echo other $?
        touch finish; wait
        srun --disagg-role=CTX_0 true; echo afterwards $?";
    let said = site.job("wide.yaml", &script.replace("BESIDE", beside));
    contains(&said, "disagg: CTX_0 is already running in job");
    for line in ["refused 1", "again 0", "other 0", "afterwards 0"] {
        contains(&said, line);
    }
}

#[test]
fn help_lists_the_roles_with_their_sizes_and_hosts() {
    let site = Site::start();
    let said = site.job("wide.yaml", "srun --disagg-role=help; echo status $?");
    let rows: Vec<Vec<&str>> = said.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["GEN_0", "2", "8", "4", "pmi2", "node[1-2]"]);
    assert_eq!(rows[2], ["CTX_0", "1", "4", "4", "pmi2", "node3"]);
    assert_eq!(rows[3], ["DISAGG_SERVER", "1", "1", "1", "-", "node1"]);
    assert_eq!(rows[4], ["BENCHMARK", "1", "1", "1", "-", "node1"]);
    assert_eq!(rows[5], ["status", "0"]);
}

#[test]
fn help_needs_no_job() {
    let site = Site::start();
    for argv in [
        &["sbatch", "--disagg-config=wide.yaml", "--disagg-role=help", "--wrap=true"],
        &["srun", "--disagg-config=wide.yaml", "--disagg-role=help", "true"],
    ] {
        let output = site.run(argv);
        assert_eq!(output.code, Some(0), "{output:?}");
        contains(
            &output.stdout,
            "GEN_0          2      8      4         pmi2  nodes 1 to 2 of the job",
        );
        assert_eq!(site.run(&["squeue", "-h"]).checked(), "");
    }
}

#[test]
fn explain_prints_where_each_value_comes_from() {
    let site = Site::start();
    let mut argv = vec!["sbatch", "--test-only", "--disagg-config=three.yaml", "--disagg-explain"];
    argv.extend(["--wrap=true"]);
    let output = site.run(&argv);
    contains(&output.stderr, "sbatch: disagg: GEN env CACHE=/tmp/cache_${SLURM_LOCALID}: ");
    contains(&output.stderr, "three.yaml:10:19");
}

#[test]
fn the_plan_survives_every_export_of_the_submission_and_of_the_step() {
    let site = Site::start();
    // The PATH that a login gives need not have the Slurm under test.
    let srun = Slurm::under_test().prefix.join("bin/srun");
    let step = "EXPORT --disagg-role=CTX_1 /bin/bash -c 'echo $DISAGG_SERVING_TYPE $CACHE'";
    for export in ["--export=NONE", "--export=NIL", "--export=PATH", "--export=ALL"] {
        let options: Vec<&str> =
            SIZES.into_iter().chain(["--disagg-config=three.yaml", export]).collect();
        for of_step in ["", "--export=NONE", "--export=PATH"] {
            let step = format!("{} {}", srun.display(), step.replace("EXPORT", of_step));
            let said = site.job_with(&options, &step);
            let expected: Vec<String> =
                (0..4).map(|rank| format!("CTX_1 /tmp/cache_{rank}")).collect();
            assert_eq!(sorted(&said), expected, "{export} {of_step}");
        }
    }
}

#[test]
fn a_config_may_stand_in_the_script_and_the_command_line_overrides_it() {
    let site = Site::start();
    let script = "#SBATCH --disagg-config=wide.yaml\n#SBATCH --ntasks-per-node=4\necho $SLURM_SPANK_DISAGG_DEMAND";
    contains(&site.job_with(&["-N3"], script), "config=wide");
    contains(&site.job_with(&["-N3", "--disagg-config=three.yaml"], script), "config=three");
}

#[test]
fn a_config_may_come_from_the_environment_and_the_command_line_overrides_it() {
    let site = Site::start();
    site.write("job.sh", "#!/bin/bash\necho $SLURM_SPANK_DISAGG_DEMAND >demand\n");
    for variable in ["SLURM_DISAGG_CONFIG", "SLURM_SPANK__SLURM_SPANK_OPTION_disagg_disagg_config"]
    {
        for (option, expected) in
            [(None, "config=wide"), (Some("--disagg-config=three.yaml"), "config=three")]
        {
            let output = site
                .cluster
                .command_as(TEST_USER, "sbatch")
                .env(variable, "wide.yaml")
                .args(["--wait", "-N3"])
                .args(option)
                .arg("job.sh")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            contains(&site.read("demand"), expected);
        }
    }
}

#[test]
fn a_job_that_is_submitted_inside_the_job_does_not_inherit_its_plan() {
    let site = Site::start();
    let inner = "sbatch --wait -N1 --output=inner.out --wrap 'env' 2>&1; cat inner.out";
    let said = site.job("three.yaml", inner);
    assert!(!said.contains("SLURM_DISAGG_PLAN"), "{said}");
    assert!(!said.contains("DISAGG_DEMAND="), "{said}");
    let again =
        "sbatch --wait -N1 --disagg-config=three.yaml --output=inner.out --wrap env; cat inner.out";
    contains(&site.job("three.yaml", again), "DISAGG_DEMAND=v1 nodes=3");
}

#[test]
fn salloc_gives_its_shell_the_plan() {
    let site = Site::start();
    let mut argv = vec!["salloc", "--disagg-config=wide.yaml"];
    argv.extend(SIZES);
    argv.extend(["srun", "--disagg-role=CTX_0", "hostname"]);
    let output = site.run(&argv);
    assert_eq!(output.checked(), "node3\n".repeat(4));
}

#[test]
fn a_direct_srun_gets_the_nodes_of_its_role_or_of_the_whole_plan() {
    let site = Site::start();
    let show = "echo $SLURM_NNODES $SLURM_NTASKS $DISAGG_SERVING_TYPE";
    let role = ["srun", "--disagg-config=wide.yaml", "--disagg-role=GEN_0", "bash", "-c", show];
    assert_eq!(site.run(&role).checked(), "2 8 GEN_0\n".repeat(8));
    let whole = ["srun", "--disagg-config=wide.yaml", "bash", "-c", show];
    assert_eq!(site.run(&whole).checked(), "3 12\n".repeat(12));
}

#[test]
fn a_step_of_a_job_without_a_plan_says_what_to_do() {
    let site = Site::start();
    site.refused(
        &["srun", "--disagg-role=GEN_0", "true"],
        "there is no plan here. Submit the job with sbatch --disagg-config=FILE",
    );
}

#[test]
fn an_allocation_that_is_too_small_for_the_plan_is_named_as_such() {
    let site = Site::start();
    let said = site.job_with(
        &["-N2", "--ntasks-per-node=4", "--disagg-config=wide.yaml"],
        "srun --disagg-role=CTX_0 true; echo status $?",
    );
    contains(&said, "the job has 2 nodes, but the plan of wide needs 3: submit it with --nodes=3");
    contains(&said, "status 1");
}

#[test]
fn a_job_that_does_not_use_the_plugin_has_nothing_of_it_in_its_environment() {
    let site = Site::start();
    let said = site.job_with(&["-N1"], "env; srun env");
    assert!(!said.to_lowercase().contains("disagg-config"), "{said}");
    assert!(!said.contains("DISAGG"), "{said}");
}

#[test]
fn a_srun_inside_a_step_is_not_bound_by_the_steps_host_file() {
    let site = Site::start();
    let inner = "srun --disagg-role=CTX_0 bash -c '[ $SLURM_PROCID != 0 ] || srun --overlap -N1 -n1 echo inner'";
    contains(&site.job("wide.yaml", inner), "inner");
}

/// Starts a step from a login host without the plugin, so that only slurmstepd looks at what the
/// environment says.
fn only_slurmstepd(site: &Site, plan: &str) -> String {
    let output = site
        .cluster
        .command_bare("srun")
        .env("SLURM_DISAGG_PLAN", plan)
        .env("SLURM_DISAGG_STEP_ROLE", "GEN_0")
        .args(["-N1", "-n1", "touch", "it.has.run"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(!site.path("it.has.run").exists());
    assert_eq!(site.run(&["sinfo", "-h", "-R"]).checked(), "", "a node is drained");
    assert_eq!(site.run(&["srun", "-N4", "echo", "fine"]).checked(), "fine\n".repeat(4));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_hostile_plan_fails_the_step_with_a_message_and_neither_drains_the_node_nor_ends_the_job() {
    for how in ["required", "optional"] {
        hostile_plans(&Site::with(|options, files| options.spank(&files.line(how))));
    }
}

fn hostile_plans(site: &Site) {
    site.write("long.json", &format!("{{\"schema\":1,\"x\":\"{}\"}}", "x".repeat(1 << 20)));
    site.run(&["mkfifo", "plan.fifo"]).ok();
    let work = site.cluster.work().display().to_string();
    for (plan, message) in [
        ("{", "the plan cannot be read"),
        ("{\"schema\":99}", "the plan has schema 99"),
        ("[[[[[[[[[[[[[[[[[[[[[[[[", "the plan cannot be read"),
        ("/nowhere/at/all", "cannot be opened"),
        ("/dev/zero", "is not a regular file"),
        (&format!("{work}/long.json"), "the plan cannot be read"),
        (&format!("{work}/plan.fifo"), "is not a regular file"),
    ] {
        let script = format!(
            "export SLURM_DISAGG_PLAN='{plan}'
             srun --disagg-role=GEN_0 true; echo client $?
             srun -N1 -n1 echo the job goes on"
        );
        let said = site.job_with(&["-N1"], &script);
        contains(&said, message);
        contains(&said, "client 1\nthe job goes on\n");
        contains(&only_slurmstepd(site, plan), message);
    }
}

#[test]
fn no_name_of_the_users_begins_a_line_of_its_own() {
    let site = Site::start();
    let forged = "GEN_0\nslurmd: error: forged";
    let role = format!("--disagg-role={forged}");
    site.refused(&["srun", &role, "true"], "--disagg-role has control characters: GEN_0\\nslurmd");
    let output = site
        .cluster
        .command_bare("srun")
        .env("SLURM_DISAGG_STEP_ROLE", forged)
        .args(["-N1", "-n1", "true"])
        .output()
        .unwrap();
    contains(
        &String::from_utf8_lossy(&output.stderr),
        "the step of GEN_0\\nslurmd: error: forged has",
    );
    let log = site.cluster.log("slurmd.node1");
    contains(&log, "GEN_0\\nslurmd: error: forged");
    assert!(!log.contains("error: slurmd: error: forged"), "{log}");
}

#[test]
fn a_step_of_another_size_than_the_plans_fails_on_its_node() {
    let site = Site::start();
    let plan = site.job("wide.yaml", "echo \"$SLURM_DISAGG_PLAN\"");
    contains(
        &only_slurmstepd(&site, plan.trim()),
        "the step has 1 node and 1 task, but by the plan GEN_0 runs on 2 nodes with 8 tasks, 4 on each",
    );
}

#[test]
fn a_plan_that_is_too_long_for_a_variable_travels_in_a_file() {
    let site = Site::start();
    let long: String = (0..900).map(|i| format!("VARIABLE_{i}={} ", "x".repeat(40))).collect();
    site.write(
        "long.yaml",
        &WIDE.replace(
            "worker_config:",
            &format!("environment:\n  worker_env_var: \"{long}\"\nworker_config:"),
        ),
    );
    let said = site.job(
        "long.yaml",
        "echo $SLURM_DISAGG_PLAN; srun --disagg-role=CTX_0 bash -c 'echo ${#VARIABLE_899}'",
    );
    let (path, rest) = said.split_once('\n').unwrap();
    assert!(Path::new(path).starts_with(site.cluster.work()), "{said}");
    assert_eq!(rest, "40\n".repeat(4));
}

/// srun cannot know what a node lacks. There the values that differ from task to task are missing,
/// except in pytestCommand, where the task's own shell expands them, and which says so; and the task
/// can tell by SLURM_DISAGG_STEP_ROLE, which slurmstepd's side of the plugin removes.
#[test]
fn a_node_that_lacks_the_plugin_still_gives_a_step_what_is_the_same_for_all_its_tasks() {
    let site =
        Site::with(|options, files| options.spank(&files.line("required")).bare_node("node3"));
    let said = site.job(
        "three.yaml",
        "export UCX_TLS=tcp
         for role in CTX_0 CTX_1; do
             srun --disagg-role=$role bash -c 'echo $DISAGG_SERVING_TYPE $TLLM_LOG_LEVEL ucx=$UCX_TLS \
                 cache=$CACHE in_command=$(eval \"${pytestCommand%%/opt/trtllm/tensorrt_llm*} printenv CACHE\") \
                 ${SLURM_DISAGG_STEP_ROLE:+this node lacks the plugin}'
         done",
    );
    let rank = |role: &str, cache: &str, local: u32, end: &str| {
        format!("{role} INFO ucx= cache={cache} in_command=/tmp/cache_{local}{end}")
    };
    let with = (0..4).map(|local| rank("CTX_0", &format!("/tmp/cache_{local}"), local, ""));
    let without = (0..4).map(|local| rank("CTX_1", "", local, " this node lacks the plugin"));
    let message = "disagg: node3 lacks spank_disagg.so: variables that differ from task to task are set \
        for this command alone";
    let lines = with.chain(without).chain([message.to_owned()]);
    assert_eq!(sorted(&said), lines.collect::<Vec<_>>());
}

#[test]
fn a_login_host_that_lacks_the_plugin_says_that_the_option_is_unknown() {
    let site = Site::start();
    let output = site
        .cluster
        .command_bare("sbatch")
        .args(["--disagg-config=three.yaml", "--wrap=true"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    contains(&String::from_utf8_lossy(&output.stderr), "--disagg-config");
}

#[test]
fn an_unknown_argument_in_plugstack_conf_is_told_to_slurmds_log_and_to_no_job_without_a_config() {
    let site = Site::with(|options, files| {
        options.spank(&format!("{} colour=blue", files.line("required")))
    });
    let complaint = "disagg: plugstack.conf: unknown argument 'colour=blue'";
    if Slurm::under_test().release() > (20, 11) {
        // slurmd of 20.11 opens no plugin that has nothing to do in it.
        contains(&site.cluster.log("slurmd.node1"), complaint);
    }
    assert_eq!(site.run(&["srun", "true"]).stderr, "");
    let output = site.run(&["sbatch", "--test-only", "--disagg-config=wide.yaml", "--wrap=true"]);
    contains(&output.stderr, complaint);
}

#[test]
fn each_component_of_a_heterogeneous_job_has_its_own_demand_or_none() {
    if Slurm::under_test().release() == (20, 11) {
        // Its Lua plugin reads a script in the place that it was built for, which is not the test's.
        return;
    }
    let lua = r#"
function slurm_job_submit(job, partition, uid)
   local found = "none"
   for i = 0, (job.spank_job_env_size or 0) - 1 do
      local entry = job.spank_job_env[i]
      if string.match(entry, "^DISAGG_DEMAND=") then found = entry end
   end
   slurm.log_info("component of %s: %s", tostring(job.name), found)
   return slurm.SUCCESS
end
function slurm_job_modify() return slurm.SUCCESS end
"#;
    let site = Site::with(|options, files| {
        options.spank(&files.line("required")).job_submit("lua").etc_file("job_submit.lua", lua)
    });
    site.write("job.sh", "#!/bin/bash\ntrue\n");
    let component = |name: &'static str, rest: &[&'static str]| {
        let mut words = vec!["-N1", name];
        words.extend(rest);
        words
    };
    let mut argv = vec!["sbatch"];
    argv.extend(component("-Jfirst", &["--disagg-config=three.yaml"]));
    argv.push(":");
    argv.extend(component("-Jsecond", &[]));
    argv.push(":");
    argv.extend(component("-Jthird", &["--disagg-config=wide.yaml"]));
    argv.push("job.sh");
    let output = site.run(&argv);
    assert_eq!(output.code, Some(0), "{output:?}");
    let log = site.cluster.log("slurmctld");
    contains(
        &log,
        "component of first: DISAGG_DEMAND=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=three",
    );
    contains(&log, "component of second: none");
    contains(
        &log,
        "component of third: DISAGG_DEMAND=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=wide",
    );
}

#[test]
fn the_form_of_a_test_id_decides_on_the_rules_of_the_steps() {
    let site = Site::start();
    for (id, prefix) in
        [("my_disagg-wide", "my_disagg"), ("disagg_upload-e2e-wide", "disagg_upload")]
    {
        let test = format!("--disagg-test={id}");
        let options = [&SIZES[..], &["--disagg-config=wide.yaml", &test]].concat();
        let said = site.job_with(
            &options,
            "srun --disagg-role=BENCHMARK bash -c 'echo $pytestCommand'
             srun --disagg-role=GEN_0 bash -c '[ $SLURM_PROCID != 0 ] || echo $pytestCommand'",
        );
        contains(&said, &format!("--test-prefix={prefix}"));
        assert_eq!(said.matches(&format!("test_e2e[{id}]")).count(), 2, "{said}");
    }
    let wrong = ["sbatch", "--disagg-config=wide.yaml", "--disagg-test=other-wide", "--wrap=true"];
    site.refused(&wrong, "the prefix other contains neither disagg nor aggr");
    let other = ["sbatch", "--test-only", "--disagg-test=disagg_upload-none", "--wrap=true"];
    site.refused(&other, "configuration disagg_upload-none is not found; tried:");
}

#[test]
fn the_one_server_of_an_aggregated_test_has_a_step_of_its_own() {
    let site = Site::start();
    site.write(
        "one.yaml",
        "hardware:\n  gpus_per_node: 4\nserver_configs:\n  - name: large\n    tensor_parallel_size: 8\n",
    );
    let said = site.job_with(
        &["-N2", "--ntasks-per-node=4", "--disagg-config=one.yaml", "--disagg-test=aggr-one-large"],
        "srun --disagg-role=AGGREGATED bash -c 'echo $SLURM_PROCID $(hostname) ${DISAGG_SERVING_TYPE-none}'
         srun --disagg-role=GEN_0 true; echo status $?",
    );
    let ranks: Vec<&str> = said.lines().filter(|line| line.ends_with(" none")).collect();
    let expected: Vec<String> = (0..8).map(|r| format!("{r} node{} none", 1 + r / 4)).collect();
    assert_eq!(sorted(&ranks.join("\n")), expected);
    contains(&said, "has no role 'GEN_0'; it has AGGREGATED");
    contains(&said, "status 1");
}

#[test]
fn packed_servers_share_a_node_and_each_sees_its_own_gpus() {
    if !steps_share_gpus() {
        // docs/admin.md says so: the second server waits for the first.
        return;
    }
    let site = Site::start();
    let small = THREE_NODES
        .replace("num_gen_servers: 1", "num_gen_servers: 2")
        .replace("num_ctx_servers: 2", "num_ctx_servers: 1")
        .replace("tensor_parallel_size: 4", "tensor_parallel_size: 1");
    site.write("small.yaml", &small);
    let script = "for role in GEN_0 GEN_1 CTX_0; do
            srun --disagg-role=$role bash -c 'touch $DISAGG_SERVING_TYPE.is.here
                for other in GEN_0 GEN_1 CTX_0; do while [ ! -e $other.is.here ]; do sleep 0.1; done; done
                echo $(hostname) $DISAGG_SERVING_TYPE $CUDA_VISIBLE_DEVICES' &
        done; wait";
    let options = ["-N1", "--ntasks-per-node=4", "--gpus-per-node=4"];
    let options = [&options[..], &["--disagg-config=small.yaml", "--disagg-placement=packed"]];
    let said = site.job_with(&options.concat(), script);
    assert_eq!(sorted(&said), ["node1 CTX_0 2", "node1 GEN_0 0", "node1 GEN_1 1"]);
}

#[test]
fn every_task_of_an_array_job_has_the_plan() {
    let site = Site::start();
    site.write(
        "job.sh",
        "#!/bin/bash\nsrun --disagg-role=BENCHMARK bash -c 'echo $DISAGG_SERVING_TYPE >array.$SLURM_ARRAY_TASK_ID'\n",
    );
    let argv = ["--array=1-4", "--output=job.out", "-N3", "--disagg-config=wide.yaml", "job.sh"];
    let id = site.cluster.submit(argv);
    let deadline = Instant::now() + Duration::from_secs(120);
    while !site.run(&["squeue", "--noheader", "--job", &id.to_string()]).checked().is_empty() {
        assert!(Instant::now() < deadline, "{}", site.cluster.log("slurmctld"));
        std::thread::sleep(Duration::from_millis(100));
    }
    for task in 1..=4 {
        assert_eq!(site.read(&format!("array.{task}")), "BENCHMARK\n");
    }
}

#[test]
fn a_requeued_job_starts_its_steps_again() {
    let site = Site::start();
    site.write(
        "job.sh",
        "#!/bin/bash\nsrun --disagg-role=CTX_0 bash -c 'echo ${SLURM_RESTART_COUNT:-0} >>starts; [ ${SLURM_RESTART_COUNT:-0} = 1 ] || sleep 60'\n",
    );
    let id = site.cluster.submit([
        "--requeue",
        "--output=job.out",
        "-N3",
        "--ntasks-per-node=4",
        "--disagg-config=wide.yaml",
        "job.sh",
    ]);
    let started =
        |text: &str| std::fs::read_to_string(site.path("starts")).is_ok_and(|s| s.contains(text));
    site.cluster.wait_until(id, Duration::from_secs(60), |_| started("0\n"));
    site.run(&["scontrol", "requeue", &id.to_string()]).ok();
    site.cluster.wait_until(id, Duration::from_secs(60), |job| job.field("Restarts") == "1");
    // A requeued job is held back for two minutes; the bed's credentials expire within seconds.
    site.cluster.run(["scontrol", "update", &format!("JobId={id}"), "StartTime=now+10"]).ok();
    let job = site.cluster.wait_job(id, Duration::from_secs(180));
    assert_eq!(job.state(), "COMPLETED", "{}", site.said());
    assert!(started("1\n1\n1\n1\n"));
}

#[test]
fn a_restart_of_the_controller_between_submission_and_start_loses_nothing() {
    let site = Site::start();
    site.write(
        "job.sh",
        "#!/bin/bash\necho $SLURM_SPANK_DISAGG_DEMAND\nsrun --disagg-role=BENCHMARK bash -c 'echo $DISAGG_SERVING_TYPE'\n",
    );
    let id = site.cluster.submit([
        "--hold",
        "--output=job.out",
        "-N3",
        "--ntasks-per-node=4",
        "--disagg-config=wide.yaml",
        "job.sh",
    ]);
    site.cluster.stop("slurmctld", "TERM");
    site.cluster.restart("slurmctld");
    site.run(&["scontrol", "release", &id.to_string()]).ok();
    site.cluster.wait_job(id, Duration::from_secs(120));
    contains(&site.said(), "config=wide\nBENCHMARK\n");
}

#[test]
fn two_hundred_submissions_at_once_all_get_their_plan() {
    let site = Site::start();
    site.write("job.sh", "#!/bin/bash\necho ${#SLURM_DISAGG_PLAN} >>plans\n");
    let burst = "seq 200 | xargs -P 20 -I{} sbatch --parsable -n1 --output=/dev/null --disagg-config=three.yaml job.sh";
    let ids = site.run(&["bash", "-c", burst]).checked();
    assert_eq!(ids.lines().count(), 200);
    for id in ids.lines() {
        let job = site.cluster.wait_job(id.parse().unwrap(), Duration::from_secs(120));
        assert_eq!(job.state(), "COMPLETED");
    }
    let plans = site.read("plans");
    assert_eq!(plans.lines().count(), 200);
    assert!(plans.lines().all(|length| length.parse::<u32>().unwrap() > 1000));
    drop(site.files);
}
