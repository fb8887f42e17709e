// SPDX-License-Identifier: Apache-2.0
//! Plans of TensorRT-LLM's Slurm benchmark against what its own scripts make of every configuration
//! of the corpus: the job, the servers with their places, files, environments and commands, the
//! router, the clients, and what is installed before.
#![allow(clippy::unwrap_used)] // helpers of tests may panic

mod corpus;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use corpus::root;
use disagg::diagnostic::Diagnostics;
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::output::script::sbatch_request;
use disagg::plan::{Instance, Plan, Purpose, Role, StepSpec, Template, resolve};
use serde_json::{Map, Value, json};

/// What is not as the scripts have it, on purpose: the record, what differs, and why.
/// docs/recipes.md has the reasons in full.
const DEVIATIONS: &[(&str, &[&str], &str)] = &[
    ("own/null_partition", &["sbatch.partition"], "null asks for nothing, not for `None`"),
    ("own/extra_args", &["sbatch.other"], "the plan decides the nodes"),
    ("own/env_no_equals", &["CTX_0.env", "GEN_0.env"], "a variable has a name"),
    ("own/model_space", &["CTX_0.argv", "GEN_0.argv", "clients"], "a word stays one word"),
    ("own/model_space", &["CTX_0.places", "GEN_0.places"], "a word stays one word"),
    ("own/inst_repo_absent", &["install"], "a path that leads nowhere is not passed over"),
];

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

struct Planner {
    folder: tempfile::TempDir,
}

impl Planner {
    fn plan(&self, path: &Path, set: &[String], side: &Path) -> Result<Plan, Diagnostics> {
        let options = Options {
            config: path.to_string_lossy().into_owned(),
            workspace: Some("/log".into()),
            site: Some(self.folder.path().join("site.yaml")),
            set: set.to_vec(),
            ..Options::default()
        };
        let context = Context { env: &|_| None, current_dir: side.into() };
        let (plan, _) = request::plan(&options, &context)?;
        // A plan survives being handed on.
        Ok(Plan::from_json(&plan.to_json().unwrap()).unwrap())
    }
}

#[test]
fn every_record_is_planned_as_the_scripts_have_it() {
    let Some(root) = root().filter(|root| root.join("examples").is_dir()) else { return };
    let examples = root.join("examples");
    let planner = Planner { folder: tempfile::tempdir().unwrap() };
    fs::write(planner.folder.path().join("site.yaml"), "").unwrap();
    let mut problems = Vec::new();
    let mut counts = BTreeMap::<&str, u32>::new();
    for kind in ["own", "real"] {
        let folder = examples.join("expected").join(kind);
        let mut records: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
        records.sort();
        for path in records {
            let record: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            let name = format!("{kind}/{}", path.file_stem().unwrap().to_str().unwrap());
            let config = examples.join(record["config"].as_str().unwrap());
            let (outcome, found) = check(&planner, &name, &config, &record, &examples);
            *counts.entry(outcome).or_default() += 1;
            problems.extend(found.into_iter().map(|problem| format!("{name}: {problem}")));
        }
    }
    assert!(problems.is_empty(), "{counts:?}\n{}", problems.join("\n"));
    println!("{counts:?}");
}

/// What becomes of a record, and what is wrong about that.
fn check(
    planner: &Planner,
    name: &str,
    config: &Path,
    record: &Value,
    examples: &Path,
) -> (&'static str, Vec<String>) {
    let text = fs::read_to_string(config).unwrap();
    // The test suite's own configurations have the same form.
    let has_metadata = text.lines().any(|line| line.starts_with("metadata:"));
    let mut set: Vec<String> = Vec::new();
    set.extend(has_metadata.then(|| "engine=trtllm-serve".to_owned()));
    let side = text.replace("/lustre/side/", "\0");
    if let Some((_, rest)) = side.split_once('\0').filter(|_| name.contains("acc_custom")) {
        let file = examples.join("configs/own/side").join(rest.lines().next().unwrap());
        set.push(format!("accuracy.tasks.gpqa.extra_kwargs.custom_config={}", file.display()));
    }
    let mut result = planner.plan(config, &set, examples);
    // Each value that nobody filled in is named with its place; then it is filled in.
    let mut filled = Vec::new();
    for error in result.as_ref().err().map_or(&[][..], |errors| &errors.0) {
        let Some((key, _)) = error.message.split_once(" is a placeholder") else { continue };
        let at = error.location.as_ref().unwrap();
        let (_, written) =
            text.lines().nth(at.position.line as usize - 1).unwrap().split_once('<').unwrap();
        let placeholder = format!("<{}>", written.split('>').next().unwrap());
        // No such directory there, so nothing was installed.
        let value = match key {
            "environment.trtllm_repo" => String::new(),
            _ => format!("/filled/{}", key.rsplit('.').next().unwrap()),
        };
        set.push(format!("{key}='{value}'"));
        filled.push((placeholder, value));
    }
    if !filled.is_empty() {
        result = planner.plan(config, &set, examples);
    }
    let named = |table: &[(&str, &str)]| {
        table.iter().find(|(known, _)| *known == name).map(|(_, why)| (*why).to_owned())
    };
    match (record["ok"] == true, result) {
        (true, Ok(plan)) => {
            let mut text = record.to_string();
            for (placeholder, value) in filled {
                text = text.replace(&placeholder, &value);
            }
            let model = plan.engine.as_ref().unwrap().model.clone();
            text = text.replace("@MODEL@", &model).replace("@LOG@", "/log");
            let record: Value = serde_json::from_str(&text).unwrap();
            let found = differences(&plan, &record);
            let allowed: Vec<_> = DEVIATIONS
                .iter()
                .filter(|(known, ..)| *known == name)
                .flat_map(|(_, whats, _)| whats.iter())
                .collect();
            let unexpected = found.iter().filter(|(what, _)| !allowed.iter().any(|a| *a == what));
            let mut problems: Vec<_> =
                unexpected.map(|(what, how)| format!("{what}: {how}")).collect();
            let gone = allowed.iter().filter(|a| !found.iter().any(|(what, _)| **a == what));
            problems.extend(gone.map(|what| format!("{what} does not differ any more")));
            (if allowed.is_empty() { "equal" } else { "equal but for deviations" }, problems)
        }
        (true, Err(errors)) => match named(REFUSED) {
            Some(part) if refused_at_place(&errors, &part) => ("refused on purpose", Vec::new()),
            _ => ("refused", vec![format!("refused: {errors}")]),
        },
        (false, Ok(_)) => match named(ACCEPTED) {
            Some(_) => ("planned on purpose", Vec::new()),
            None => ("planned", vec![format!("planned, but {}", record["error"])]),
        },
        (false, Err(errors)) if name == "own/own_empty" || refused_at_place(&errors, "") => {
            match named(ACCEPTED) {
                None => ("refused as by the scripts", Vec::new()),
                Some(_) => ("refused", vec![format!("refused: {errors}")]),
            }
        }
        (false, Err(errors)) => ("refused", vec![format!("refused without a place: {errors}")]),
    }
}

fn refused_at_place(errors: &Diagnostics, part: &str) -> bool {
    let mut wrong = errors.0.iter().filter(|error| error.severity.word() == "error");
    wrong.any(|error| error.location.is_some() && error.message.contains(part))
}

fn differences(plan: &Plan, record: &Value) -> Vec<(String, String)> {
    let nodes: Vec<String> = (1..=plan.layout.total_nodes).map(|n| format!("n{n:03}")).collect();
    let mut found = Vec::new();
    let mut compare = |what: &str, ours: Value, theirs: &Value| {
        if ours != *theirs {
            found.push((what.to_owned(), format!("\n    ours   {ours}\n    theirs {theirs}")));
        }
    };
    let mut sbatch: Map<_, _> = record["sbatch"].as_object().unwrap().clone();
    // The plan's own: one log in the workspace, and nothing of a script's arguments.
    sbatch.retain(|key, _| !["output", "error", "script", "script_args", "argv"].contains(&&**key));
    let ours: Map<String, Value> = sbatch_request(&plan.job)
        .unwrap()
        .argv()
        .unwrap()
        .iter()
        .filter_map(|word| word.strip_prefix("--")?.split_once('='))
        .filter(|(name, _)| !["output", "export"].contains(name))
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    let names: std::collections::BTreeSet<_> = ours.keys().chain(sbatch.keys()).collect();
    for name in names {
        let of = |all: &Map<String, Value>| all.get(name).cloned().unwrap_or_default();
        compare(&format!("sbatch.{name}"), of(&ours), &of(&sbatch));
    }
    compare("nodes", plan.layout.total_nodes.into(), &record["nodes"]);
    let mut started = Vec::new();
    for server in record["servers"].as_array().unwrap() {
        let name = format!("{}_{}", server["role"].as_str().unwrap(), server["index"]);
        if server["started"] != true {
            continue;
        }
        started.push(name.clone());
        let Ok(instance) = plan.instance(&name) else {
            compare(&name, Value::Null, &json!("started"));
            continue;
        };
        let spec = resolve(&instance, &nodes);
        compare(&format!("{name}.port"), instance.port("http").into(), &server["port"]);
        let role = name.split('_').next().unwrap().to_lowercase();
        let file = format!("{role}_config.yaml");
        compare(&format!("{name}.config_file"), file_of(&spec, &file), &server["config_file"]);
        let places = places(plan, &instance, &nodes);
        let of_record = server["placement"].clone();
        compare(&format!("{name}.places"), places, &of_record);
        let tasks = server["srun"].as_array().unwrap();
        let at = tasks.iter().position(|word| word == "--ntasks").unwrap();
        compare(&format!("{name}.tasks"), spec.step.tasks.to_string().into(), &tasks[at + 1]);
        let mut theirs = server["env"].clone();
        let cuda = theirs.as_object_mut().unwrap().remove("CUDA_VISIBLE_DEVICES");
        compare(&format!("{name}.env"), env(&spec), &theirs);
        let per_rank = server.get("cuda_per_rank").and_then(Value::as_array);
        let ranks = per_rank.cloned().unwrap_or_else(|| vec![cuda.unwrap()]);
        for (rank, theirs) in ranks.iter().enumerate() {
            let ours = gpus_of_rank(plan, &instance, rank).join(",");
            compare(&format!("{name}.places"), ours.into(), theirs);
        }
        compare(&format!("{name}.unset"), json!(spec.unset), &server["unset"]);
        compare(&format!("{name}.argv"), argv(&spec), &server["argv"]);
    }
    let ours = plan.instances().filter(|one| one.role.purpose == Purpose::Server);
    compare("servers", ours.map(|one| one.name).collect(), &json!(started));

    let router = plan.instance("ROUTER").unwrap();
    let (spec, theirs) = (resolve(&router, &nodes), &record["server"]);
    compare("router.argv", argv(&spec), &theirs["argv"]);
    compare("router.env", env(&spec), &theirs["env"]);
    compare("router.port", router.port("http").into(), &theirs["port"]);
    compare("router.node", json!(nodes[router.nodes.start as usize]), &theirs["node"]);
    compare("router.config_file", file_of(&spec, "server_config.yaml"), &theirs["config_file"]);

    let limit = plan.engine.as_ref().unwrap().ready_limit.as_ref().unwrap().value;
    compare("ready_limit", limit.into(), &record["wait"]["timeout_s"]);

    // What the client's script runs besides is a step of its own; a run that measures nothing ends
    // when the servers are ready.
    let besides = |words: &Value| {
        words[0] == "pip" || words[0] == "git" || words[0] == "sh" || words[0] == "curl"
    };
    let of_script = record["client_step"]["also_runs"].as_array().cloned().unwrap_or_default();
    let clients = record["client"].as_array().unwrap().iter();
    let clients = clients.chain(record["accuracy"].as_array().unwrap());
    let theirs: Vec<Value> = clients.map(|client| json!([client["argv"], client["env"]])).collect();
    let steps: Vec<_> =
        plan.instances().filter(|one| one.role.purpose == Purpose::Client).collect();
    let specs: Vec<_> = steps.iter().map(|one| resolve(one, &nodes)).collect();
    let ours = specs.iter().map(|spec| json!([argv(spec), env(spec)]));
    let (extra, ours): (Vec<_>, Vec<_>) = ours.partition(|step| besides(&step[0]));
    match theirs.is_empty() {
        true => compare("clients", ours.into(), &json!([[["true"], {}]])),
        false => compare("clients", ours.into(), &theirs.into()),
    }
    compare("besides", extra.len().into(), &of_script.len().into());
    for (ours, theirs) in extra.iter().zip(&of_script) {
        let last = |words: &Value| words.as_array().unwrap().last().unwrap().clone();
        compare("besides", last(&ours[0]), &last(theirs));
    }

    let theirs = record["install"].as_array().cloned().unwrap_or_default();
    let theirs =
        theirs.iter().filter(|one| !one["cmd"][2].as_str().unwrap().contains("/get_env.py"));
    let theirs: Value = theirs.map(|one| one["cmd"][2].clone()).collect();
    let install = |one: Instance<'_>| {
        let role: &Role = one.role;
        assert!(role.step.nodes == plan.layout.total_nodes || one.name == "BUILD");
        let words = argv(&resolve(&one, &nodes));
        let words: Vec<_> = words.as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
        match role.cwd.as_str() {
            "/log" => words.join(" "),
            folder => format!("cd {folder} && {}", words.join(" ")),
        }
    };
    compare("install", plan.checks().map(install).collect(), &theirs);
    found
}

/// The text of a rank 0.
fn text(template: &Template) -> String {
    let lookup = |name: &str| match name {
        "SLURM_PROCID" => Some("0"),
        "PATH" => Some("$PATH"),
        _ => None,
    };
    template.expand(lookup).unwrap()
}

fn argv(spec: &StepSpec<'_>) -> Value {
    spec.argv.iter().map(text).collect()
}

fn env(spec: &StepSpec<'_>) -> Value {
    let set = spec.set.iter().map(|set| (set.name.to_owned(), text(&set.value).into()));
    Value::Object(set.filter(|(name, _): &(String, Value)| name != "DISAGG_SERVING_TYPE").collect())
}

fn file_of(spec: &StepSpec<'_>, name: &str) -> Value {
    let file = spec.files.iter().find(|(path, _)| path.as_str() == name);
    file.map_or(Value::Null, |(_, content)| serde_json::from_str(&content.file()).unwrap())
}

/// The GPUs that a rank sees.
fn gpus_of_rank(plan: &Plan, instance: &Instance<'_>, rank: usize) -> Vec<String> {
    let (mut node, mut local) = (0, rank as u32);
    for tasks in instance.tasks_of_each_node() {
        if local < tasks {
            break;
        }
        (node, local) = (node + 1, local - tasks);
    }
    let own = instance.own_gpus(node, local).unwrap_or(0..plan.layout.gpus_per_node);
    own.map(|gpu| gpu.to_string()).collect()
}

/// Each node of a server with the GPUs of its ranks there.
fn places(plan: &Plan, instance: &Instance<'_>, nodes: &[String]) -> Value {
    let hosts = instance.host_of_each_task(nodes).unwrap();
    let mut places: Vec<(String, Vec<u32>)> = Vec::new();
    for (rank, host) in hosts.iter().enumerate() {
        let gpus = gpus_of_rank(plan, instance, rank).into_iter().map(|gpu| gpu.parse().unwrap());
        match places.last_mut().filter(|(known, _)| known == *host) {
            Some((_, known)) => known.extend(gpus),
            None => places.push(((*host).clone(), gpus.collect())),
        }
    }
    for (_, gpus) in &mut places {
        gpus.sort_unstable();
        gpus.dedup();
    }
    json!(places)
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
    let planner = Planner { folder: tempfile::tempdir().unwrap() };
    let folder = planner.folder.path();
    fs::write(folder.join("site.yaml"), "").unwrap();
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
        let plan = planner.plan(&folder.join("c.yaml"), &set, folder);
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
        let plan = planner.plan(&folder.join("c.yaml"), &set, folder).unwrap();
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
            "load_balancer is no absolute path",
        ),
        ("environment.worker_env_var=A=$(id)", "command substitution is not done"),
        ("metadata={model_name: x}", "the TensorRT-LLM source tree is not known"),
        ("slurm.partition=<partition>", "--set:1:17: error: slurm.partition is a placeholder"),
        ("benchmark.env_var={K: <key>}", "error: benchmark.env_var.K is a placeholder"),
        ("environment.server_health_timeout=true", "must be a whole number of seconds"),
    ] {
        let set: Vec<String> = set.lines().map(str::to_owned).collect();
        let errors = planner.plan(&folder.join("c.yaml"), &set, folder).unwrap_err().to_string();
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
