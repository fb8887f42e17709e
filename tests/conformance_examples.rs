// SPDX-License-Identifier: Apache-2.0
//! Plans of TensorRT-LLM's Slurm benchmark against what its own scripts make of every configuration
//! of the corpus: the job, the servers with their places, files, environments and commands, the
//! router, the clients, and what is installed before. `real_submit` launches some of them.
#![allow(clippy::unwrap_used)] // helpers of tests may panic

mod corpus;
mod examples;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use disagg::diagnostic::Diagnostics;
use disagg::output::script::sbatch_request;
use disagg::plan::step::START_COMMAND;
use disagg::plan::{Instance, Plan, resolve};
use disagg::run::launch::command::of_instance;
use examples::{Example, Got, Planner, RECORDER, Rank};
use serde_json::Value;
use slurm_bed::{Output, executable};

/// Refused by the scripts, planned here.
const ACCEPTED: &[(&str, &str)] = &[
    ("own/acc_custom_no_env", "without variables, none is replaced"),
    ("own/acc_null", "null is as good as nothing"),
    ("own/extra_args_null", "null is as good as nothing"),
    ("own/moe_null", "null is as good as nothing"),
    ("own/null_profiling", "null is as good as nothing"),
    ("own/script_missing", "the scripts are not used"),
    ("own/work_dir_exists", "the scripts are not used"),
];

/// Planned by the scripts, refused here: a part of the message.
const REFUSED: &[(&str, &str)] = &[
    ("own/dataset_empty", "benchmark.dataset_file is empty"),
    ("own/mode_gen_only_two", "several numbers in mode gen_only"),
    ("own/round_float", "benchmark.multi_round must be a whole number"),
];

#[test]
fn every_record_is_planned_as_the_scripts_have_it() {
    let place = tempfile::tempdir().unwrap();
    let Some(all) = examples::all(place.path()) else { return };
    let mut problems = Vec::new();
    let mut counts = BTreeMap::<&str, u32>::new();
    for example in all {
        let (outcome, found) = check(&example, place.path());
        *counts.entry(outcome).or_default() += 1;
        problems.extend(found);
    }
    assert!(problems.is_empty(), "{counts:?}\n{}", problems.join("\n"));
    println!("{counts:?}");
}

/// What becomes of a record, and what is wrong about that.
fn check(example: &Example, place: &Path) -> (&'static str, Vec<String>) {
    let Example { name, record, plan } = example;
    let named = |table: &[(&str, &str)]| {
        table.iter().find(|(known, _)| known == name).map(|(_, why)| (*why).to_owned())
    };
    let wrong = |how: String| vec![format!("{name}: {how}")];
    match (record["ok"] == true, plan) {
        (true, Ok(plan)) => {
            let nodes: Vec<_> = (1..=plan.layout.total_nodes).map(|n| format!("n{n:03}")).collect();
            let kind = match example.deviations().is_empty() {
                true => "equal",
                false => "equal but for deviations",
            };
            (kind, example.problems(&started(plan, &nodes, place), &nodes))
        }
        (true, Err(errors)) => match named(REFUSED) {
            Some(part) if refused_at_place(errors, &part) => ("refused on purpose", Vec::new()),
            _ => ("refused", wrong(format!("refused: {errors}"))),
        },
        (false, Ok(_)) => match named(ACCEPTED) {
            Some(_) => ("planned on purpose", Vec::new()),
            None => ("planned", wrong(format!("planned, but {}", record["error"]))),
        },
        (false, Err(errors)) if name == "own/own_empty" || refused_at_place(errors, "") => {
            match named(ACCEPTED) {
                None => ("refused as by the scripts", Vec::new()),
                Some(_) => ("refused", wrong(format!("refused: {errors}"))),
            }
        }
        (false, Err(errors)) => ("refused", wrong(format!("refused without a place: {errors}"))),
    }
}

fn refused_at_place(errors: &Diagnostics, part: &str) -> bool {
    let mut wrong = errors.0.iter().filter(|error| error.severity.word() == "error");
    wrong.any(|error| error.location.is_some() && error.message.contains(part))
}

/// What stand-ins get from the words that `launch` gives srun, in the first rank of each step; the
/// others' places are the plan's.
fn started(plan: &Plan, nodes: &[String], place: &Path) -> Got {
    let (bin, notes) = (place.join("bin"), place.join("notes"));
    let _ = fs::remove_dir_all(&notes);
    fs::create_dir_all(&notes).unwrap();
    fs::create_dir_all(&plan.workspace).unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let around = [("PATH", &*path), ("UCX_TLS", "of the job"), ("HOME", "/home of the job")];
    let around = around.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let mut got = Got::default();
    for instance in plan.checks().chain(plan.instances()) {
        let spec = resolve(&instance, nodes);
        for (file, content) in &spec.files {
            let value = serde_json::from_str(&content.file()).unwrap_or_default();
            got.files.insert(file.as_str().to_owned(), value);
        }
        let program = bin.join(&*spec.argv[0].literal_text());
        if !program.exists() {
            executable(&program, RECORDER);
        }
        let command = of_instance(&instance, &spec, nodes, &around).unwrap();
        let at = command.arguments.windows(4).position(|words| words == START_COMMAND).unwrap();
        got.srun.insert(instance.name.clone(), command.arguments[..at].to_vec());
        // Behind what says where it runs, which `same_step_everywhere` has.
        let words = &command.arguments[at + 7..];
        let mut rank = Command::new(&words[0]);
        rank.args(&words[1..]).env_clear().envs(&around).envs(command.environment);
        rank.envs([("STEP", &*instance.name), ("SLURM_PROCID", "0")]).env("NOTES", &notes);
        let output = Output::of(&mut rank);
        let Ok(note) = fs::read_to_string(notes.join(format!("{}.0", instance.name))) else {
            assert!(output.stderr.contains(&instance.role.cwd), "{}", output.stderr);
            continue;
        };
        let first = Rank::read(&note, &around);
        for (number, node) in instance.host_of_each_task(nodes).unwrap().into_iter().enumerate() {
            let own = |word: &String| {
                word.replace(
                    &format!("{}_0", instance.name),
                    &format!("{}_{number}", instance.name),
                )
            };
            let rank = Rank {
                node: node.clone(),
                gpus: gpus_of_rank(plan, &instance, number),
                argv: first.argv.iter().map(own).collect(),
                ..first.clone()
            };
            got.ranks.insert((instance.name.clone(), number as u32), rank);
        }
    }
    got
}

/// The GPUs that a rank sees.
fn gpus_of_rank(plan: &Plan, instance: &Instance<'_>, rank: usize) -> String {
    let (mut node, mut local) = (0, rank as u32);
    for tasks in instance.tasks_of_each_node() {
        if local < tasks {
            break;
        }
        (node, local) = (node + 1, local - tasks);
    }
    let own = instance.own_gpus(node, local).unwrap_or(0..plan.layout.gpus_per_node);
    own.map(|gpu| gpu.to_string()).collect::<Vec<_>>().join(",")
}

/// A configuration that needs nothing of the corpus.
const CONFIG: &str = "\
slurm: {script_file: x.slurm, partition: gpu, account: a, job_time: '01:00:00', job_name: j, numa_bind: false}
benchmark: {mode: e2e, use_nv_sa_benchmark: false, multi_round: 2, streaming: true, concurrency_list: '4',
            input_length: 8, output_length: 8, dataset_file: /d.json}
hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
environment: {container_image: i, container_mount: '/a:/a', model_path: /m}
worker_config:
  ctx: {tensor_parallel_size: 2}
  gen: {tensor_parallel_size: 4, max_batch_size: 1, enable_attention_dp: true, moe_config: {backend: X}}
";

#[test]
fn what_the_scripts_get_wrong_is_right_here() {
    let planner = Planner::new();
    let folder = planner.folder.path();
    fs::write(folder.join("c.yaml"), CONFIG).unwrap();
    fs::write(folder.join("task.yaml"), "data: HF_HOME/x in OTHER").unwrap();
    fs::write(folder.join("utils.py"), "beside = 1\n").unwrap();
    let task = "accuracy={enable_accuracy_test: true, env_var: {HF_HOME: /hf, OTHER: o}, tasks: \
                {t-1: {model: local-chat-completions, model_args_extra: 'a={1}', extra_kwargs: \
                {custom_config: task.yaml, fewshot: 5, off: false}}}}";
    let repository = "environment.trtllm_repo=/repo";
    let build =
        ["environment.build_wheel=true", "environment.cuda_architectures='90-real;100-real'"];
    for (set, step, expected) in [
        (
            &["benchmark.concurrency_list=1,4"][..],
            "BENCHMARK_4",
            "--num-prompts 8 --max-concurrency 4 ",
        ),
        (&["benchmark.concurrency_list=[1, 4]"], "BENCHMARK_1", "--max-concurrency 1 "),
        (&["benchmark.streaming=false"], "BENCHMARK", " --non-streaming"),
        (&["environment.model_path=/my model"], "CTX_0", "trtllm-serve|/my model|--host|n1|"),
        (&["environment.worker_env_var=A='b c' H=$HOME/x"], "GEN_0", "A=b c;H=${HOME}/x;"),
        (&["benchmark.env_var={K: v}"], "BENCHMARK", "K=v;"),
        (&["worker_config.gen.tensor_parallel_size=10"], "GEN_0", "[4,3,3] 0..4,0..3,0..3;"),
        (&["worker_config.ctx.tensor_parallel_size=5"], "CTX_0", "[3,2] 0..3,0..2;"),
        (
            &["server_config_extra={port: 9000, context_servers: {x: 1}}"],
            "ROUTER",
            r#""urls":["n1:8000"],"x":1}"#,
        ),
        (&["server_config_extra={port: 9000}"], "BENCHMARK", "--port 9000 "),
        (&["hardware.num_ctx_servers=333"], "ROUTER", r#""port":8334}"#),
        (&[task], "ACCURACY_t_1", "model=/m,base_url=http://n2:8333/v1/chat/completions,a={1}"),
        (&[task], "ACCURACY_t_1", "--include_path=/log/lm_eval_configs --fewshot=5"),
        (&[task], "ACCURACY_t_1", r#"lm_eval_configs/task.yaml="data: /hf/x in o""#),
        (&[task], "ACCURACY_t_1", r#"lm_eval_configs/utils.py="beside = 1\n""#),
        (&[repository], "INSTALL", "cd /repo: pip install -e .[devel]"),
        (&[repository, build[0], build[1]], "BUILD", "--cuda_architectures 90-real;100-real"),
        (&["environment.worker_env_var=TRTLLM_PATH_PREPEND=/p"], "CTX_0", "PATH=/p:${PATH};"),
        (&["benchmark.enable_benchmark=false"], "READY", ": true"),
        (&["benchmark.mode=gen_only"], "GEN_0", "TLLM_BENCHMARK_REQ_QUEUES_SIZE=4;"),
        (
            &["benchmark.mode=gen_only_no_context", "hardware.num_ctx_servers=2"],
            "ROUTER",
            r#""urls":["n1:8000","n2:8001"]"#,
        ),
        (&["hardware.compact_packing=true"], "GEN_0", "[2] 2..3,0..1;"),
    ] {
        let set: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        let plan = planner.plan(&folder.join("c.yaml"), &set, folder, "/log");
        let plan = plan.unwrap_or_else(|errors| panic!("{set:?}: {errors}"));
        let instance = plan.instance(step).unwrap_or_else(|error| panic!("{set:?}: {error}"));
        let nodes: Vec<String> = (1..400).map(|node| format!("n{node}")).collect();
        let shown = shown(&instance, &nodes);
        assert!(shown.contains(expected), "{set:?}: no {expected:?} in\n{shown}");
    }
    for (line, expected) in [
        ("", ""),
        ("--gres=gpu:h100:4 --qos=high", "--gres=gpu:h100:4 --qos=high"),
        ("--gpus-per-node 4", "--gpus-per-node=4"),
        ("--gres=gpu:8", "--gpus-per-node=4"),
        ("--gpus=8", "--gpus-per-node=4"),
    ] {
        let set = [format!("slurm.extra_args='{line}'")];
        let plan = planner.plan(&folder.join("c.yaml"), &set, folder, "/log").unwrap();
        let words = sbatch_request(&plan.job).unwrap().argv().unwrap();
        let asks = |word: &&String| ["--g", "--q"].iter().any(|start| word.starts_with(start));
        assert_eq!(
            words.iter().filter(asks).cloned().collect::<Vec<_>>().join(" "),
            expected,
            "{line}"
        );
    }
    for (set, expected) in [
        (
            "benchmark.mode=gen_only\nbenchmark.concurrency_list=8 16",
            "--set:1:28: error: benchmark.concurrency_list has several",
        ),
        (
            "worker_config.gen.moe_config.load_balancer=eplb.yaml",
            "load_balancer is not an absolute path",
        ),
        ("environment.worker_env_var=A=$(id)", "command substitution is not done"),
        ("metadata={model_name: x}", "the TensorRT-LLM source tree is not known"),
        ("slurm.partition=<partition>", "--set:1:17: error: slurm.partition is a placeholder"),
        ("benchmark.env_var={K: <key>}", "error: benchmark.env_var.K is a placeholder"),
        ("environment.server_health_timeout=true", "must be a whole number of seconds"),
    ] {
        let set: Vec<String> = set.lines().map(str::to_owned).collect();
        let errors =
            planner.plan(&folder.join("c.yaml"), &set, folder, "/log").unwrap_err().to_string();
        assert!(errors.contains(expected), "{set:?}: {errors}");
    }
}

/// A step as text: what each of its nodes has of ranks and GPUs, its variables, files and command,
/// with blanks and with bars between the words.
fn shown(instance: &Instance<'_>, nodes: &[String]) -> String {
    let spec = resolve(instance, nodes);
    let gpus = (0..instance.nodes.len() as u32).filter_map(|node| instance.own_gpus(node, 0));
    let gpus: Vec<_> = gpus.map(|gpus| format!("{gpus:?}")).collect();
    let ranks: Vec<_> = spec.ranks.iter().map(u32::to_string).collect();
    let mut shown = format!("[{}] {};", ranks.join(","), gpus.join(","));
    for set in &spec.set {
        shown += &format!("{}={};", set.name, set.value.as_str());
    }
    for (path, content) in &spec.files {
        let text = content.file();
        let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
        shown += &format!("{}={value};", path.as_str());
    }
    let words: Vec<_> = spec.arguments().collect();
    format!("{shown} cd {}: {} |{}", spec.cwd, words.join(" "), words.join("|"))
}
