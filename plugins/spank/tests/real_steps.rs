// SPDX-License-Identifier: Apache-2.0
//! Steps that name their role, on a real Slurm: where they run, with which sizes and GPUs, and what
//! becomes of those that are wrong. What their ranks get is compared in `real_same_step`.
#![allow(clippy::unwrap_used)]

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt;

use slurm_bed::{Output, Site, Slurm, config, contains, executable, plugstack_line, sorted};

/// Starts all roles at once; each rank leaves its host and its role's name in a file.
const ALL_ROLES: &str = r#"
for role in GEN_0 CTX_0 CTX_1 DISAGG_SERVER BENCHMARK; do
    srun --disagg-role=$role bash -c '
        echo $(hostname) $DISAGG_SERVING_TYPE $SLURM_NTASKS >'$role'.$SLURM_PROCID
        for other in GEN_0 CTX_0 CTX_1 DISAGG_SERVER BENCHMARK; do
            while [ ! -e $other.0 ]; do sleep 0.05; done
        done' || echo "$role failed" &
done
wait
cat GEN_0.* CTX_?.* DISAGG_SERVER.* BENCHMARK.* | sort | uniq -c"#;

#[test]
fn five_steps_at_once_run_on_their_planned_nodes_however_the_plugin_is_configured() {
    let sites = [
        Site::start(3),
        Site::with(3, |options, files| options.spank(&plugstack_line("optional", files))),
        Site::with(3, |options, files| {
            let line = format!("required spank_disagg.so site={}/site.yaml", files.display());
            options.plugin_dir(files).spank(&line)
        }),
    ];
    for site in sites {
        let output = site.job_of("three.yaml", ALL_ROLES);
        let ranks: Vec<_> = output.lines().map(str::trim_start).collect();
        let expected = [
            "1 node1 BENCHMARK 1",
            "1 node1 DISAGG_SERVER 1",
            "4 node1 GEN_0 4",
            "4 node2 CTX_0 4",
            "4 node3 CTX_1 4",
        ];
        assert_eq!(ranks, expected);
    }
}

#[test]
fn a_step_has_the_plans_size_in_blocks_and_contradictions_are_refused_with_both_numbers() {
    let site = Site::start(4);
    let blocks = site.job_of("wide.yaml", "srun --disagg-role=GEN_0 -l hostname");
    let expected: Vec<String> =
        (0..8).map(|rank| format!("{rank}: node{}", 1 + rank / 4)).collect();
    assert_eq!(sorted(&blocks), expected);

    let script = "for size in -N3 -n9 --ntasks-per-node=2 '-w node1,node2,node3'; do
        srun $size --disagg-role=GEN_0 true; echo status $?; done";
    let output = site.job_of("wide.yaml", script);
    assert_eq!(output.matches("status 1\n").count(), 4, "{output}");
    let plan = "contradicts the plan: GEN_0 runs on 2 nodes with 8 tasks, 4 on each";
    for option in ["--nodes=3", "--ntasks=9", "--ntasks-per-node=2", "--nodelist=node1,node2,node3"]
    {
        contains(&output, &format!("{option} {plan}"));
    }

    let script = "srun --disagg-role=GEN_0 -N2 -n8 bash -c 'echo $SLURM_NTASKS'
        srun --disagg-role GEN_0 --nodelist=node2,node3 hostname";
    let output = site.job_of("wide.yaml", script);
    contains(&output, "GEN_0 is not bound to its own (node[1-2]); add -w node[1-2]");
    for (line, count) in [("8", 8), ("node2", 4), ("node3", 4)] {
        assert_eq!(output.lines().filter(|found| *found == line).count(), count, "{output}");
    }

    // The last node is not full.
    site.write("six.yaml", &config(4, (1, 4), (1, 6)));
    let script = "srun --disagg-role=GEN_0 -w node2,node3 bash -c \
        '[ $SLURM_LOCALID != 0 ] || echo $(hostname) $SLURM_STEP_TASKS_PER_NODE'";
    let output = site.job_of("six.yaml", script);
    assert_eq!(sorted(&output), ["node2 4,2", "node3 4,2"]);

    let options = ["-N2", "--ntasks-per-node=4", "--disagg-config=wide.yaml"];
    let (_, output) = site.job(&options, "srun --disagg-role=CTX_0 true; echo status $?");
    contains(
        &output,
        "the job has 2 nodes, but the plan of wide needs 3: submit it with --nodes=3",
    );
    contains(&output, "status 1");

    let plan = site.job_of("wide.yaml", "echo \"$SLURM_DISAGG_PLAN\"");
    let size = "the step has 1 node and 1 task, but by the plan GEN_0 runs on 2 nodes with 8 tasks, 4 on each";
    contains(&only_slurmstepd(&site, plan.trim()), size);
}

/// 20.11's `--overlap` shares processors only.
fn steps_share_gpus() -> bool {
    Slurm::under_test().release() > (20, 11)
}

#[test]
fn a_role_that_is_running_is_refused_unless_it_is_asked_for_again() {
    let site = Site::start(3);
    let beside = if steps_share_gpus() { "--overlap" } else { "--overlap --gpus-per-node=0" };
    let script = "srun --disagg-role=CTX_0 bash -c 'touch started; while [ ! -e finish ]; do sleep 0.1; done' &
        while [ ! -e started ]; do sleep 0.1; done
        srun --disagg-role=CTX_0 true; echo refused $?
        srun --disagg-role=CTX_0 --disagg-again BESIDE true; echo again $?
        srun --disagg-role=GEN_0 true; echo other $?
        env -u SLURM_JOB_ID -u SLURM_JOBID -u SLURM_JOB_NODELIST -u SLURM_DISAGG_PLAN \\
            srun --jobid=$SLURM_JOB_ID --disagg-role=CTX_0 true; echo elsewhere $?
        ls /tmp/slurm-disagg-$UID | sed s/^/held:/; touch finish; wait
        srun --disagg-role=CTX_0 true; echo afterwards $?
        echo \"job:$SLURM_CLUSTER_NAME|$SLURM_CONF|$SLURM_JOB_ID\"; ls /tmp/slurm-disagg-$UID";
    let output = site.job_of("wide.yaml", &script.replace("BESIDE", beside));
    for part in [
        "disagg: CTX_0 is already running in job",
        "refused 1",
        "again 0",
        "other 0",
        "it is not known which of its nodes are the role's: start the step in the job's script",
        "elsewhere 1",
        "afterwards 0",
    ] {
        contains(&output, part);
    }
    // The files of its locks are gone; other jobs of this user have some.
    let job = output.lines().find_map(|line| line.strip_prefix("job:")).unwrap();
    let mut hasher = DefaultHasher::new();
    job.split('|').collect::<Vec<_>>().as_slice().hash(&mut hasher);
    let name = format!("{:016x}.", hasher.finish());
    assert!(output.lines().any(|line| line.starts_with(&format!("held:{name}"))), "{name}");
    assert!(!output.lines().any(|line| line.starts_with(&name)), "{name}");
}

#[test]
fn a_role_that_the_plan_lacks_fails_the_step_and_one_server_has_a_role_of_its_own() {
    let site = Site::start(3);
    let lacking = "srun --disagg-role=GEN_7 true; echo status $?; srun -n1 -N1 echo on";
    let output = site.job_of("three.yaml", lacking);
    contains(&output, "has no role 'GEN_7'; it has GEN_0, CTX_0..CTX_1, DISAGG_SERVER, BENCHMARK");
    contains(&output, "status 1\non\n");

    let one = "hardware:\n  gpus_per_node: 4\nserver_configs:\n  - name: large\n    tensor_parallel_size: 8\n";
    site.write("one.yaml", one);
    let test = "--disagg-test=aggr-one-large";
    let options = ["-N2", "--ntasks-per-node=4", "--disagg-config=one.yaml", test];
    let script = "srun --disagg-role=AGGREGATED bash -c 'echo $SLURM_PROCID $(hostname) ${DISAGG_SERVING_TYPE-none}'
         srun --disagg-role=GEN_0 true; echo status $?";
    let (_, output) = site.job(&options, script);
    let ranks: Vec<&str> = output.lines().filter(|line| line.ends_with(" none")).collect();
    let expected: Vec<String> = (0..8).map(|r| format!("{r} node{} none", 1 + r / 4)).collect();
    assert_eq!(sorted(&ranks.join("\n")), expected);
    contains(&output, "has no role 'GEN_0'; it has AGGREGATED");
    contains(&output, "status 1");
}

/// Without it, Slurm waits a minute for whoever holds the output of a rank that has ended.
#[test]
fn what_a_killed_rank_leaves_behind_is_killed_and_named_and_other_ends_stay_as_they_are() {
    let site = Site::with(3, |options, files| {
        let epilog = files.join("epilog.sh");
        executable(&epilog, "#!/bin/sh\n[ -z \"$EPILOG\" ] || { sleep 1; touch \"$EPILOG\"; }\n");
        let epilog = format!("TaskEpilog={}", epilog.display());
        options.spank(&plugstack_line("required", files)).conf(&epilog)
    });
    let script = "start=$SECONDS
        srun --disagg-role=CTX_0 bash -c '(trap \"\" TERM; exec -a outlives sleep 50) & sleep 1; kill -9 $$'
        echo killed $?
        srun --disagg-role=CTX_0 bash -c '(exec env -i bash -c \"exec -a outlives sleep 50\") & exit 7'; echo exit $?
        srun --disagg-role=CTX_0 bash -c 'exec >/dev/null 2>&1; exit 7'; echo exit $?
        srun --disagg-role=CTX_0 true; echo exit $?
        srun --disagg-role=CTX_0 bash -c 'SLURM_JOB_ID=999999 setsid bash -c \"exec -a submitted sleep 9\" >/dev/null 2>&1 & sleep 0.2'
        sleep 1; pgrep -f '^submitted' >/dev/null && echo exit submitted
        echo took:$((SECONDS - start))";
    let output = site.job_of("wide.yaml", script);
    contains(&output, "on node3 has ended; killing what it left: ");
    // Slurm ends the other ranks when one has been killed, and may report either.
    let ends =
        output.lines().filter(|line| line.starts_with("killed ") || line.starts_with("exit "));
    let ends = ends.collect::<Vec<_>>();
    assert!(["killed 137", "killed 143"].contains(&ends[0]), "{output}");
    assert_eq!(ends[1..], ["exit 7", "exit 7", "exit 0", "exit submitted"], "{output}");
    let took = output.lines().find_map(|line| line.strip_prefix("took:")).unwrap();
    assert!(took.parse::<u32>().unwrap() < 40, "{output}");
    let left = site.cluster.processes().into_iter().find(|one| one.command.contains("outlives"));
    assert!(left.is_none(), "{left:?}");

    // slurmstepd and a TaskEpilog have the first rank's output too; root may kill both.
    let script = "EPILOG=$PWD/epilog.has.run srun --disagg-role=CTX_0 bash -c \
        '[ $SLURM_PROCID = 0 ] || { sleep 2; echo a rank goes on; }'";
    let config =
        ["--nodes=3", "--ntasks-per-node=4", "--gpus-per-node=4", "--disagg-config=wide.yaml"];
    let wrap = format!("--wrap={script}");
    let sbatch = [&["sbatch", "--wait", "--output=root.out"], &config[..], &[&wrap]].concat();
    let output = site.cluster.run(sbatch);
    let text = site.read("root.out");
    assert_eq!((output.code, text.matches("a rank goes on").count()), (Some(0), 3), "{text}");
    assert!(site.path("epilog.has.run").exists(), "{text}");
}

#[test]
fn a_srun_inside_a_step_is_not_bound_by_the_steps_host_file() {
    let site = Site::start(3);
    let inner = "srun --disagg-role=CTX_0 bash -c '[ $SLURM_PROCID != 0 ] || srun --overlap -N1 -n1 echo inner'";
    contains(&site.job_of("wide.yaml", inner), "inner");
}

/// Starts a step from a login host without the plugin, so that only slurmstepd looks at what the
/// environment says.
fn only_slurmstepd(site: &Site, plan: &str) -> String {
    let mut srun = site.cluster.command_bare("srun");
    srun.env("SLURM_DISAGG_PLAN", plan).env("SLURM_DISAGG_STEP_ROLE", "GEN_0");
    let output = Output::of(srun.args(["-N1", "-n1", "touch", "it.has.run"]));
    assert_ne!(output.code, Some(0), "{output:?}");
    assert!(!site.path("it.has.run").exists());
    assert_eq!(site.run(["sinfo", "-h", "-R"]).checked(), "", "a node is drained");
    assert_eq!(site.run(["srun", "-N3", "echo", "fine"]).checked(), "fine\n".repeat(3));
    output.stderr
}

#[test]
fn a_hostile_plan_fails_the_step_with_a_message_and_neither_drains_the_node_nor_ends_the_job() {
    for how in ["required", "optional"] {
        let site = Site::with(3, |options, files| options.spank(&plugstack_line(how, files)));
        site.write("long.json", &format!("{{\"schema\":1,\"x\":\"{}\"}}", "x".repeat(1 << 20)));
        site.run(["mkfifo", "plan.fifo"]).ok();
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
            let (_, output) = site.job(&["-N1"], &script);
            contains(&output, message);
            contains(&output, "client 1\nthe job goes on\n");
            contains(&only_slurmstepd(&site, plan), message);
        }
    }
}

/// Another thread could read the environment while the plugin changes it.
#[test]
fn the_callbacks_that_change_the_environment_have_the_only_thread() {
    let directory =
        tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir().unwrap();
    let plugin = directory.path().join("threads.so");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"]);
    cc.arg(Slurm::under_test().prefix.join("include")).arg("-o").arg(&plugin);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/threads.c"));
    assert!(cc.status().unwrap().success());
    let line = format!("required {}", plugin.display());
    let site = Site::with(2, |options, files| {
        options.spank(&plugstack_line("required", files)).spank(&line)
    });
    for argv in [
        &["srun", "-N2", "true"][..],
        &["sbatch", "--wrap=true"],
        &["salloc", "-N1", "srun", "true"],
    ] {
        let said = site.run(argv).stderr;
        contains(&said, "threads in init: 1");
        contains(&said, "threads in init_post_opt: 1");
        let counts = said.lines().filter_map(|line| line.strip_prefix("threads in "));
        assert!(counts.into_iter().all(|count| count.ends_with(": 1")), "{said}");
    }
}

#[test]
fn no_name_of_the_users_begins_a_line_of_its_own() {
    let site = Site::start(1);
    let forged = "GEN_0\nslurmd: error: forged";
    let message = site.refused(&["srun", &format!("--disagg-role={forged}"), "true"]);
    contains(&message, "--disagg-role has control characters: GEN_0\\nslurmd");
    let mut srun = site.cluster.command_bare("srun");
    srun.env("SLURM_DISAGG_STEP_ROLE", forged).args(["-N1", "-n1", "true"]);
    let output = Output::of(&mut srun);
    contains(&output.stderr, "the step of GEN_0\\nslurmd: error: forged has");
    let log = site.cluster.log("slurmd.node1");
    contains(&log, "GEN_0\\nslurmd: error: forged");
    assert!(!log.contains("error: slurmd: error: forged"), "{log}");
}

/// srun cannot know what a node lacks. There the values that differ from task to task are missing,
/// except in pytestCommand, where the task's own shell expands them, and which says so; and the task
/// can tell by SLURM_DISAGG_STEP_ROLE, which slurmstepd's side of the plugin removes.
#[test]
fn a_node_that_lacks_the_plugin_still_gives_a_step_what_is_the_same_for_all_its_tasks() {
    let site = Site::with(3, |options, files| {
        options.spank(&plugstack_line("required", files)).bare_node("node3")
    });
    let output = site.job_of(
        "three.yaml",
        "export UCX_TLS=tcp
         for role in CTX_0 CTX_1; do
             srun --disagg-role=$role bash -c 'command=${pytestCommand/cd *defs && /}
                 echo $DISAGG_SERVING_TYPE $TLLM_LOG_LEVEL ucx=$UCX_TLS \
                 cache=$CACHE in_command=$(eval \"${command%%/opt/trtllm/tensorrt_llm*} printenv CACHE\") \
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
    assert_eq!(sorted(&output), lines.collect::<Vec<_>>());
}

#[test]
fn packed_servers_share_a_node_and_each_sees_its_own_gpus() {
    if !steps_share_gpus() {
        // docs/admin.md says so: the second server waits for the first.
        return;
    }
    let site = Site::start(1);
    site.write("small.yaml", &config(4, (1, 1), (2, 1)));
    let script = "for role in GEN_0 GEN_1 CTX_0; do
            srun --disagg-role=$role bash -c 'touch $DISAGG_SERVING_TYPE.is.here
                for other in GEN_0 GEN_1 CTX_0; do while [ ! -e $other.is.here ]; do sleep 0.1; done; done
                echo $(hostname) $DISAGG_SERVING_TYPE $CUDA_VISIBLE_DEVICES' &
        done; wait";
    let options = ["-N1", "--ntasks-per-node=4", "--gpus-per-node=4"];
    let placement = ["--disagg-config=small.yaml", "--disagg-placement=packed"];
    let (_, output) = site.job(&[&options[..], &placement].concat(), script);
    assert_eq!(sorted(&output), ["node1 CTX_0 2", "node1 GEN_0 0", "node1 GEN_1 1"]);
}
