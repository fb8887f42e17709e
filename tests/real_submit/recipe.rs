// SPDX-License-Identifier: Apache-2.0
//! Recipes of an engine that nobody knows, from `submit` to the verdict. Its stand-in checks what each
//! process is given and how it is asked.

use std::fs;

use disagg::run::result::{Moment, RunResult, VerdictKind};
use slurm_bed::{Options, contains};

use serde_json::{Value, json};

use crate::site::{Running, Site, path, path_with_ib0, wait_for};

const ENGINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines");

/// A server over two nodes, two that share a third, a registry, a router, and three runs of a client.
const DISAGGREGATED: &str = "placement: packed}\nroles:\n  decode: {args: {tp: 8}}\n  \
    prefill: {servers: 2, args: {tp: 2}}\n";
/// Three servers of three GPUs each on three nodes of four; the second has one GPU of its first node.
/// The machine has fewer CPUs than the cluster says, so they cannot be bound.
const COMPACT: &str = "placement: compact, srun_args: [--cpu-bind=none]}\nroles:\n  worker: {servers: 3, args: {tp: 3}}\n";

fn recipe(roles: &str, fault: &str) -> String {
    format!(
        "engine: {ENGINES}/standin.yaml\nmodel: {ENGINES}\ngpus_per_node: 4\n\
         env: {{STANDIN_FAULT: '{fault}'}}\n\
         benchmark:\n  concurrencies: [1, 4]\n  rounds: 3\n  warmup: 2\n  \
         command: [python3, '{ENGINES}/standin.py', client, --url, '{{url}}', --concurrency, '{{concurrency}}', \
         --prompts, '{{prompts}}', --results, '{{results}}']\n\
         slurm: {{time: 10, {roles}"
    )
}

#[test]
fn a_recipe_runs_its_services_servers_router_and_clients() {
    // Slurm would bind the only task of a node to one CPU.
    let options = Options::nodes(24).conf("TaskPlugin=task/affinity");
    let site = Site::with(options.conf("TaskPluginParam=autobind=threads"));
    let workspace = |name: &str| site.cluster.work().join(name);
    let submit = |name: &str, roles: &str, fault: &str| {
        let file = site.cluster.work().join(format!("{name}.yaml"));
        fs::write(&file, recipe(roles, fault)).unwrap();
        let workspace = workspace(name);
        let submit = ["submit", path(&file), "--workspace", path(&workspace)];
        Running::start(&site, site.command(&[], &submit))
    };
    let ended = |name: &str, running: Running<'_>, status: i32| {
        let output = running.end();
        output.expect(status);
        (RunResult::read(&workspace(name)).unwrap(), output)
    };
    let compact = submit("compact", COMPACT, "");
    let (result, output) = ended("good", submit("good", DISAGGREGATED, ""), 0);
    contains(&output.stdout, "PASSED: good, job");
    assert_each_in_its_turn(&result);
    let failures = |result: &RunResult| result.junit.as_ref().map(|junit| junit.failures);
    assert_eq!(failures(&result), Some(0), "{:#?}", result.junit);
    let concurrencies: Vec<_> = result.figures.iter().map(|one| one.concurrency).collect();
    assert_eq!(concurrencies, [Some(1), Some(4)], "{:#?}", result.figures);
    let log = fs::read_to_string(workspace("good").join("benchmark_4.log")).unwrap();
    contains(&log, "answers of DECODE_0 PREFILL_0 PREFILL_1");
    let runs = workspace("good").join("runs").canonicalize().unwrap();
    for name in ["prefill_0.json", "prefill_1.json", "decode.json"] {
        assert!(workspace("good").join(name).canonicalize().unwrap().starts_with(&runs), "{name}");
    }
    let (result, _) = ended("compact", compact, 0);
    let tasks = |name: &str| {
        let step = result.steps.iter().find(|step| step.name == name).unwrap();
        let gpus: Vec<_> = step.ranks.iter().map(|rank| rank.gpus.join(",")).collect();
        (step.tasks_by_node.clone(), gpus.join(" "))
    };
    assert_eq!(tasks("WORKER_0"), (vec![], "0 1 2".to_owned()));
    assert_eq!(tasks("WORKER_1"), (vec![1, 2], "3 0 1".to_owned()));
    assert_eq!(tasks("WORKER_2"), (vec![], "2 3 0".to_owned()));

    use VerdictKind::{
        BenchmarkFailed, FatalLog, RequestsFailed, ServerEnded, StartFailed, Unresponsive,
    };
    let cases = [
        ("w", "WARMUP:fails", BenchmarkFailed, "WARMUP failed after"),
        ("r", "BENCHMARK_1:requests_fail", RequestsFailed, "2 of 3 requests failed"),
        ("e", "PREFILL_1:ends", ServerEnded, "PREFILL_1 ended after"),
        (
            "n",
            "DECODE_0:follower_ends",
            ServerEnded,
            ", before the benchmark did: exit status 0 on node",
        ),
        ("f", "DECODE_0:fatal", FatalLog, "DECODE_0 log: STANDIN fatal: a request was too much"),
        ("h", "PREFILL_0:hangs", Unresponsive, "PREFILL_0 stopped answering /health: 3 misses"),
        ("p", "DECODE_0:takes_ports", StartFailed, "its port 8100 (http) is in use on node"),
    ];
    let submit = |(name, fault, ..): &(&str, &str, _, _)| submit(name, DISAGGREGATED, fault);
    let running: Vec<_> = cases.iter().map(submit).collect();
    for ((name, fault, kind, message), running) in cases.into_iter().zip(running) {
        let (result, _) = ended(name, running, 1);
        assert_eq!(result.verdict.kind, kind, "{fault}: {:#?}", result.verdict);
        contains(&result.verdict.message, message);
        // The run itself, and the step that is why, if it has started.
        let expected = if kind == StartFailed { 1 } else { 2 };
        assert_eq!(failures(&result), Some(expected), "{fault}: {:#?}", result.junit);
        let last = result.steps.iter().find(|step| step.name == "BENCHMARK_4").unwrap();
        assert_eq!(last.started, None, "{fault}: {last:#?}");
        if kind == StartFailed {
            contains(&result.verdict.message, " by python3 (pid ");
        }
    }
}

#[test]
fn servers_without_a_benchmark_serve_until_they_are_cancelled() {
    let site = Site::with(Options::nodes(3).conf("TaskPlugin=task/affinity"));
    let (file, workspace) = (site.cluster.work().join("recipe.yaml"), site.workspace());
    let text = recipe(DISAGGREGATED, "").replace("env: {", "env: {STANDIN_INTERFACE: ib0, ");
    fs::write(&file, text.replace("slurm: {", "slurm: {interface: ib0, ")).unwrap();
    let path_of_job = path_with_ib0(&site);
    let submit = ["submit", path(&file), "--workspace", path(&workspace), "--serve-only"];
    let mut running = Running::start(&site, site.command(&[&path_of_job], &submit));
    running.until("serving at http://10.77.0.3:8100\n");
    let ready = workspace.join("server_ready.json");
    wait_for(|| ready.exists());
    let found: Value = serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
    let prefill = json!([
        {"name": "PREFILL_0", "address": "10.77.0.2", "nodes": ["node1"], "ports": {"http": 8000, "boot": 9000}},
        {"name": "PREFILL_1", "address": "10.77.0.2", "nodes": ["node1"], "ports": {"http": 8001, "boot": 9002}},
    ]);
    assert_eq!(found["roles"]["PREFILL"], prefill, "{found:#}");
    assert_eq!(found["roles"]["DECODE"][0]["nodes"], json!(["node2", "node3"]));
    let (url, name) = (found["url"].as_str().unwrap(), found["served_name"].as_str().unwrap());
    assert_eq!((url, name), ("http://10.77.0.3:8100", "engines"));
    // A client that is no step of the run.
    let script = format!("{ENGINES}/standin.py");
    let client = ["python3", &script, "client", "--url", url, "--concurrency=1", "--prompts=2"];
    let results = site.cluster.work().join("outside");
    let outside = [&client[..], &["--results", path(&results)]].concat();
    let step = ["SLURM_JOB_NAME=outside", "STANDIN_FAULT="];
    let output = slurm_bed::Output::of(&mut site.program(&step, &outside));
    contains(output.ok(), "answers of DECODE_0 PREFILL_0 PREFILL_1");
    site.run(&[], &["cancel", path(&workspace)]).ok();
    let output = running.end();
    output.expect(0);
    contains(&output.stdout, "PASSED: recipe, job");
    let result = RunResult::read(&workspace).unwrap();
    assert_eq!(result.verdict.kind, VerdictKind::Served, "{:#?}", result.verdict);
    contains(&result.verdict.message, "until they were told to end");
    assert!(!ready.exists());
}

/// What is there for others is there before them, and ends behind them.
fn assert_each_in_its_turn(result: &RunResult) {
    let step = |name: &str| result.steps.iter().find(|step| step.name == name).unwrap();
    let servers = ["DECODE_0", "PREFILL_0", "PREFILL_1"].map(step);
    let (registry, router) = (step("REGISTRY"), step("ROUTER"));
    let clients = ["WARMUP", "BENCHMARK_1", "BENCHMARK_4"].map(step);
    assert!(servers.iter().all(|server| server.started >= registry.ready), "{result:#?}");
    let last: Option<Moment> = servers.iter().map(|server| server.ready).max().unwrap();
    assert!(router.started >= last && clients[0].started >= router.ready, "{result:#?}");
    for pair in clients.windows(2) {
        assert!(pair[1].started >= pair[0].ended && pair[0].ended.is_some(), "{result:#?}");
    }
    assert!(servers.iter().all(|server| server.stopped >= router.ended), "{result:#?}");
    assert!(servers.iter().all(|server| registry.stopped >= server.ended), "{result:#?}");
}
