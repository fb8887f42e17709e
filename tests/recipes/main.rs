// SPDX-License-Identifier: Apache-2.0
//! Recipes of engines become plans; an engine is a file.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

use disagg::input::request::{self, Options};
use disagg::input::{Context, profile};
use disagg::output::table;
use disagg::output::{diff, explain};
use disagg::plan::argument::{Argument, Group, Tasks};
use disagg::plan::profile::Item;
use disagg::plan::{Plan, Template, resolve};
use disagg::run::launch::command::of_instance;

mod mistakes;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("site.yaml", "");
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn plan(&self, text: &str) -> Result<Plan, String> {
        self.write("r.yaml", text);
        let options = Options {
            config: "./r.yaml".into(),
            workspace: Some("/w".into()),
            site: Some(self.path("site.yaml")),
            ..Options::default()
        };
        let context = Context { env: &|_| None, current_dir: self.0.path().into() };
        match request::plan(&options, &context) {
            // A plan survives being handed on.
            Ok((plan, _)) => Ok(Plan::from_json(&plan.to_json().unwrap()).unwrap()),
            Err(errors) => Err(errors.to_string()),
        }
    }
}

fn plan(text: &str) -> Plan {
    Folder::new().plan(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn nodes() -> Vec<String> {
    (0..8).map(|node| format!("n{node}")).collect()
}

/// The command of a step on its first node, as words joined by blanks.
fn command(plan: &Plan, step: &str) -> String {
    let spec = resolve(&plan.instance(step).unwrap(), &nodes());
    spec.arguments().map(|word| word.into_owned()).collect::<Vec<_>>().join(" ")
}

const BENCHMARK: &str = "benchmark: {isl: 64, osl: 16, concurrencies: 4}\n";

#[test]
fn every_built_in_profile_plans_prefill_and_decode_and_servers_that_do_both() {
    for engine in profile::built_in() {
        for roles in ["{prefill: {servers: 2}, decode: {servers: 3}}", "{aggregated: {servers: 1}}"]
        {
            let text = format!(
                "engine: {engine}\nmodel: /m/x\ngpus_per_node: 4\nroles: {roles}\n{BENCHMARK}"
            );
            let plan = plan(&text);
            assert!(plan.instances().count() >= 2, "{engine}");
            let engine = plan.engine.as_ref().unwrap();
            assert_eq!((engine.served_name.as_str(), engine.serve_only), ("x", false));
            // No port is given twice.
            let mut seen = std::collections::HashSet::new();
            for instance in plan.instances() {
                for (name, ports) in &instance.role.ports {
                    let first = instance.port(name).unwrap();
                    for port in first..first + u32::from(ports.each) {
                        assert!(seen.insert(port), "{text}: {port} of {}", instance.name);
                    }
                }
            }
        }
    }
}

#[test]
fn a_server_over_two_nodes_knows_its_leader_and_its_ranks() {
    let text = format!(
        "engine: vllm\nmodel: {{path: /m/x, name: served}}\ngpus_per_node: 4\nroles:\n  \
         prefill: {{args: {{tensor-parallel-size: 2}}}}\n  \
         decode: {{args: {{tensor_parallel_size: 4, pipeline-parallel-size: 2}}}}\n{BENCHMARK}"
    );
    let plan = plan(&text);
    assert_eq!(plan.layout.total_nodes, 3);
    let decode = plan.instance("DECODE_0").unwrap();
    let spec = resolve(&decode, &nodes());
    assert_eq!((spec.step.nodes, spec.step.tasks, decode.role.gpus), (2, 2, 4));
    let followers: Vec<_> = spec.followers.as_ref().unwrap().iter().map(|w| w.as_str()).collect();
    assert!(followers.contains(&"--headless"), "{followers:?}");
    let words = command(&plan, "DECODE_0");
    assert!(!words.contains("--headless"), "{words}");
    for part in [
        "vllm serve /m/x --served-model-name served --host 0.0.0.0 --port 8001",
        "--nnodes 2 --node-rank ${SLURM_NODEID} --master-addr n1 --master-port 20001",
        r#"--kv-transfer-config {"kv_connector": "NixlConnector", "kv_role": "kv_consumer""#,
        "--tensor_parallel_size 4".replace('_', "-").as_str(),
    ] {
        assert!(words.contains(part), "{part}\n{words}");
    }
    let router = command(&plan, "ROUTER");
    let urls = "--prefill http://n0:8000 --decode http://n1:8001";
    assert!(router.contains(urls), "{router}");
    let client = command(&plan, "BENCHMARK");
    assert!(
        client.contains("--base-url http://n0:8100 ") && client.contains("--num-prompts 40"),
        "{client}"
    );
}

#[test]
fn ranks_are_spread_over_whole_nodes_or_follow_each_other_gpu_by_gpu() {
    // Each server: ranks on each node, then node and GPU lists of its ranks.
    for (placement, gpus, nodes_in_all, expected) in [
        (
            "exclusive",
            10,
            6,
            ["4,3,3: n0 0,1,2,3|n1 0,1,2|n2 0,1,2", "4,3,3: n3 0,1,2,3|n4 0,1,2|n5 0,1,2"],
        ),
        ("exclusive", 5, 4, ["3,2: n0 0,1,2|n1 0,1", "3,2: n2 0,1,2|n3 0,1"]),
        ("exclusive", 8, 4, ["4: n0 |n1 ", "4: n2 |n3 "]),
        ("compact", 6, 3, ["4,2: n0 0|n1 0", "2,4: n1 2|n2 0"]),
        ("compact", 3, 2, ["3: n0 0", "1,2: n0 3|n1 0"]),
        ("compact", 1, 1, ["1: n0 0", "1: n0 1"]),
    ] {
        let plan = plan(&format!(
            "engine: trtllm-serve\nmodel: /m/x\ngpus_per_node: 4\nslurm: {{placement: {placement}}}\n\
             roles: {{aggregated: {{servers: 2, config: {{tensor_parallel_size: {gpus}}}}}}}\nserve_only: true\n"
        ));
        assert_eq!(plan.layout.total_nodes, nodes_in_all, "{placement} {gpus}");
        for (index, expected) in expected.into_iter().enumerate() {
            let instance = plan.instance(&format!("SERVER_{index}")).unwrap();
            let spec = resolve(&instance, &nodes());
            let ranks: Vec<_> = spec.ranks.iter().map(u32::to_string).collect();
            let all = nodes();
            let hosts = instance.hosts(&all).unwrap().iter().enumerate();
            let of_node = |(node, host): (usize, &String)| {
                let gpus = instance.own_gpus(node as u32, 0).into_iter().flatten();
                let gpus: Vec<_> = gpus.map(|gpu| gpu.to_string()).collect();
                format!("{host} {}", gpus.join(","))
            };
            let places: Vec<_> = hosts.map(of_node).collect();
            assert_eq!(
                format!("{}: {}", ranks.join(","), places.join("|")),
                expected,
                "{placement}"
            );
            assert_eq!(instance.host_of_each_task(&all).unwrap().len(), gpus);
            assert_eq!(
                spec.plane().is_none(),
                ["4,3,3", "2,4", "1,2"].contains(&&*ranks.join(","))
            );
        }
    }
    let refused = Folder::new().plan(&format!(
        "engine: vllm\nmodel: /m/x\ngpus_per_node: 4\nslurm: {{placement: compact}}\n\
         roles: {{aggregated: {{}}}}\n{BENCHMARK}"
    ));
    assert!(refused.unwrap_err().contains("have a task for each GPU"));
}

#[test]
fn data_parallel_ranks_start_where_the_node_before_ends() {
    let of = |engine: &str, sizes: &str| {
        plan(&format!(
            "engine: {engine}\nmodel: m\ngpus_per_node: 4\n\
             roles: {{aggregated: {{args: {{{sizes}}}}}}}\n{BENCHMARK}"
        ))
    };
    let followers = |plan: &Plan| {
        let argv = &plan.roles["SERVER"].argv;
        let of_followers = argv.iter().filter_map(|argument| match &argument.value {
            Argument::Group(Group { on: Some(Tasks::Followers), words, .. }) => Some(words),
            _ => None,
        });
        let words: Vec<_> = of_followers.flatten().map(Template::as_str).collect();
        words.join(" ")
    };
    for (sizes, local, start) in [
        ("tensor-parallel-size: 2, data-parallel-size: 4", 2, "${.node_rank*2}"),
        ("data-parallel-size: 6", 3, "${.node_rank*3}"),
    ] {
        // On its first node, vLLM takes a rank to start from for requests that come to each node.
        let plan = of("vllm", sizes);
        let words = command(&plan, "SERVER_0");
        let all = format!("--data-parallel-rpc-port 22000 --data-parallel-size-local {local} ");
        assert!(words.contains(&all) && !words.contains("--nnodes"), "{words}");
        assert_eq!(
            followers(&plan),
            format!("--data-parallel-start-rank {start} --headless"),
            "{words}"
        );
        // Under Dynamo, they do.
        let plan = of("dynamo-vllm", sizes);
        let words = command(&plan, "SERVER_0");
        let all = format!(
            "--data-parallel-hybrid-lb --data-parallel-size-local {local} --data-parallel-start-rank "
        );
        assert!(words.contains(&all), "{words}");
        assert_eq!(followers(&plan), "");
    }
    for engine in ["vllm", "dynamo-vllm"] {
        for (sizes, is_parallel) in [
            ("tensor-parallel-size: 8", false),
            ("tensor-parallel-size: 8, data-parallel-size: 2", true),
        ] {
            let plan = of(engine, sizes);
            let words = command(&plan, "SERVER_0");
            assert_eq!(words.contains("--data-parallel-address n0 "), is_parallel, "{words}");
            assert!(words.contains("--nnodes ") && !words.contains("size-local"), "{words}");
            assert_eq!(followers(&plan), "--headless", "{words}");
        }
    }
}

#[test]
fn the_configuration_files_of_servers_and_router_are_in_the_plan() {
    let text = format!(
        "engine: trtllm-serve\nmodel: /m/x\ngpus_per_node: 4\nroles:\n  \
         prefill: {{servers: 2, config: {{tensor_parallel_size: 4, kv_cache_config: {{free: 1.5}}}}}}\n  \
         decode: {{config: {{tensor_parallel_size: 8}}, wrap: [numactl, -m, \"0,1\"]}}\n  \
         router: {{config: {{perf_metrics_max_requests: 9}}, ports: {{http: 9000}}}}\n{BENCHMARK}"
    );
    let plan = plan(&text);
    let file = |step: &str| {
        let spec = resolve(&plan.instance(step).unwrap(), &nodes());
        let (path, content) = &spec.files[0];
        (path.as_str().to_owned(), content.word())
    };
    let expected = r#"{"tensor_parallel_size": 4, "kv_cache_config": {"free": 1.5}}"#;
    assert_eq!(file("CTX_1"), ("ctx_config.yaml".to_owned(), expected.to_owned()));
    let shown = table::instance(&plan.instance("CTX_1").unwrap(), Some(&nodes()));
    assert!(shown.contains("\n  writes ctx_config.yaml\n"), "{shown}");
    let (_, router) = file("ROUTER");
    let expected = r#"{"hostname": "n2", "port": 9000, "backend": "pytorch", "context_servers": {"num_instances": 2, "urls": ["n0:8000", "n1:8001"]}, "generation_servers": {"num_instances": 1, "urls": ["n2:8002"]}, "perf_metrics_max_requests": 9}"#;
    assert_eq!(router, expected);
    let words = command(&plan, "GEN_0");
    let start = "trtllm-llmapi-launch numactl -m 0,1 trtllm-serve /m/x --host n2 --port 8002 --config /w/gen_config.yaml";
    assert_eq!(words, start);
    let step = &plan.roles["GEN"].step;
    assert_eq!((step.tasks, step.tasks_per_node, step.mpi.as_deref()), (8, 4, Some("pmix")));
}

#[test]
fn what_every_engine_shares_stands_around_the_command() {
    let text = format!(
        "engine: trtllm-serve\nmodel: /m/x\ngpus_per_node: 4\nsetup: /s/env.sh\nlog_level: debug\n\
         env: {{A: 1}}\nroles:\n  prefill:\n    nsys: {{steps: 10-30}}\n    wrap: [numactl, -m, '0,1']\n    \
         before: [nice]\n    srun_args: [--cpu-bind=cores, -l]\n    config: {{tensor_parallel_size: 2}}\n  \
         decode: {{nsys: {{delay: 60, duration: 5, args: [-x]}}, log_level: error, env: {{A: 2}}}}\n\
         slurm: {{srun_args: [--cpu-bind=none]}}\n{BENCHMARK}"
    );
    let plan = plan(&text);
    let setup = r#"bash -c . "$0" || exit; exec "$@" /s/env.sh"#;
    let nsys = "nsys profile -o /w/nsys_CTX_0_${SLURM_PROCID} -f true -t cuda,nvtx --cuda-graph-trace=node \
                --trace-fork-before-exec=true";
    let words = command(&plan, "CTX_0");
    let steps = "-c cudaProfilerApi --capture-range-end=stop";
    let server = "trtllm-llmapi-launch numactl -m 0,1 trtllm-serve /m/x ";
    assert!(words.starts_with(&format!("{setup} nice {nsys} {steps} {server}")), "{words}");
    let words = command(&plan, "GEN_0");
    let time = "--delay=60 --duration=5 --kill=none -x trtllm-llmapi-launch";
    assert!(words.contains(time), "{words}");
    assert!(command(&plan, "BENCHMARK").starts_with(&format!("{setup} python3 ")));
    let value = |step: &str, name: &str| {
        let spec = resolve(&plan.instance(step).unwrap(), &nodes());
        let found = spec.set.iter().find(|variable| variable.name == name);
        found.map(|variable| variable.value.as_str().to_owned()).unwrap_or_default()
    };
    for (step, name, expected) in [
        ("CTX_0", "TLLM_PROFILE_START_STOP", "10-30"),
        ("GEN_0", "TLLM_PROFILE_START_STOP", ""),
        ("CTX_0", "TLLM_LOG_LEVEL", "DEBUG"),
        ("ROUTER", "TLLM_LOG_LEVEL", "DEBUG"),
        ("GEN_0", "TLLM_LOG_LEVEL", "ERROR"),
        ("CTX_0", "A", "1"),
        ("GEN_0", "A", "2"),
    ] {
        assert_eq!(value(step, name), expected, "{step} {name}");
    }
    let instance = plan.instance("CTX_0").unwrap();
    let spec = resolve(&instance, &nodes());
    let srun = of_instance(&instance, &spec, &nodes(), &Default::default()).unwrap().arguments;
    let places = ["--cpu-bind=none", "--cpu-bind=cores", "-l"]
        .map(|word| srun.iter().rposition(|w| w == word));
    assert!(places.is_sorted() && places[0].is_some(), "{srun:?}");
    // None of them is left out where plans are explained and compared.
    let explained = explain::entries(&plan).into_iter().filter(|entry| entry.kind == "srun");
    let explained: Vec<_> = explained.filter(|entry| entry.name == "--cpu-bind").collect();
    let whose: Vec<_> = explained.iter().map(|e| (e.whose.as_str(), e.value.as_str())).collect();
    assert_eq!(whose, [("job", "none"), ("CTX", "cores")]);
    let changed = self::plan(
        &text
            .replace("none]}", "none], sbatch_args: [--nice], interface: ib0}")
            .replace("-l]", "-u]"),
    );
    let changes = diff::text(&diff::changes(&plan, &changed), ("a", "b"));
    for part in ["--nice", "-u", "ib0"] {
        assert!(changes.contains(part), "{part}: {changes}");
    }
}

#[test]
fn services_come_first_and_can_be_left_out() {
    let text = |services: &str| {
        format!(
            "engine: dynamo-mocker\nmodel: /m/x\nroles: {{prefill: , decode: {{servers: 2}}{services}}}\n\
             benchmark: {{isl: 8, osl: 8, concurrencies: [1, 2], warmup: 3}}\n"
        )
    };
    let with = plan(&text(""));
    let names =
        "ETCD, NATS, PREFILL_0, DECODE_0..DECODE_1, FRONTEND, WARMUP, BENCHMARK_1, BENCHMARK_2";
    assert_eq!(with.names(), names);
    assert_eq!(with.roles["PREFILL"].after, ["ETCD", "NATS"]);
    let ready = resolve(&with.instance("DECODE_1").unwrap(), &nodes()).ready.unwrap();
    assert_eq!(ready.port().unwrap().as_str(), "7502");
    let value = |plan: &Plan, name: &str| {
        let spec = resolve(&plan.instance("DECODE_1").unwrap(), &nodes());
        let found = spec.set.iter().find(|variable| variable.name == name);
        found.map(|variable| variable.value.as_str().to_owned())
    };
    assert_eq!(value(&with, "ETCD_ENDPOINTS").as_deref(), Some("http://n0:2379"));
    assert_eq!(value(&with, "DYN_FILE_KV"), None);
    assert_eq!(value(&with, "DYN_TCP_RPC_HOST"), None);
    // The name of a node is no address of an interface.
    let at = plan(&(text("") + "slurm: {interface: ib0}\n"));
    assert_eq!(value(&at, "ETCD_ENDPOINTS").as_deref(), Some("http://{n0:ib0}:2379"));
    assert!(value(&at, "DYN_TCP_RPC_HOST").unwrap().ends_with(":ib0}"));
    assert_eq!(value(&with, "DYN_SYSTEM_PORT").as_deref(), Some("7502"));
    let without = plan(&text(", etcd: {servers: 0}, nats: {servers: 0}"));
    assert_eq!(value(&without, "NATS_SERVER"), None);
    assert!(value(&without, "DYN_FILE_KV").unwrap().starts_with("/w/dynamo_kv_"));
    assert!(command(&without, "FRONTEND").contains("--discovery-backend file --request-plane tcp"));
    assert!(command(&with, "WARMUP").contains("--concurrency 1 --request-count 3"));
}

/// An engine that nobody knows, as a site would add it.
const EIGHTH: &str = r#"
engine: eighth
about: An engine that does not exist.
sizes: {tp: [ranks]}
arguments: {dashes: false, list: comma, joined: true}
clients_ask: [all.web]
roles:
  all:
    name: EIGHTH
    purpose: server
    tasks: node
    ports: {web: {first: 700, each: gpu_count}, peer: 700}
    ready: {http: {port: web, path: /up, counts: [{pointer: /n, steps_of: all}]}}
    alive: {misses: 2, seconds: 10}
    env: {WHO: "{name} of {count}"}
    command:
      - [eighth, "{model}", "--at={leader_addr}:{port:web}", "--rank={node_rank}/{nnodes}", "{args}"]
      - {each: all, words: ["{leader_addr}:{port:peer}"]}
"#;

#[test]
fn an_engine_is_one_file() {
    let folder = Folder::new();
    folder.write("eighth.yaml", EIGHTH);
    let recipe = "engine: ./eighth.yaml\nmodel: m\ngpus_per_node: 2\n\
                  roles: {all: {servers: 2, args: {ranks: 4, on_off: true, l: [1, b], none: , m: {a: 1}}}}\n\
                  benchmark: {command: [ask, \"{url}\", \"{{x}}\"]}\n";
    let plan = folder.plan(recipe).unwrap();
    assert_eq!(
        command(&plan, "EIGHTH_1"),
        "eighth m --at=n2:704 --rank=${SLURM_NODEID}/2 --ranks=4 --on_off -l=1,b -m={\"a\": 1} \
         n0:708 n2:709"
    );
    assert_eq!(command(&plan, "BENCHMARK"), "ask http://n0:700 {x}");
    assert_eq!(plan.roles["EIGHTH"].alive.unwrap().misses, 2);
    // The folder of a site comes before what is compiled in.
    folder.write("vllm.yaml", &EIGHTH.replace("eighth", "vllm"));
    folder.write("site.yaml", &format!("profiles: {}\n", folder.0.path().display()));
    let plan = folder.plan(&recipe.replace("./eighth.yaml", "vllm")).unwrap();
    assert!(command(&plan, "EIGHTH_0").starts_with("vllm m"));
}

#[test]
fn each_client_that_is_named_can_be_read() {
    let (none, names) = profile::client(None).unwrap();
    assert!(none.is_none() && names.len() == 4, "{names:?}");
    for name in &names {
        let client = profile::client(Some(name)).unwrap().0.unwrap();
        assert_ne!(client.command, Item::default(), "{name}");
    }
}

#[test]
fn no_server_is_left_without_requests() {
    let text = |engine: &str, roles: &str, rest: &str| {
        format!("engine: {engine}\nmodel: m\ngpus_per_node: 4\nroles: {{{roles}}}\n{rest}\n")
    };
    let benchmark = "benchmark: {isl: 8, osl: 8, concurrencies: 1}";
    for (engine, roles, expected) in [
        ("vllm", "decode: {}", "r.yaml:4:9: error: decode has no prefill servers to work with"),
        ("dynamo-sglang", "decode: {servers: 0}, prefill: {}", "prefill has no decode servers"),
        (
            "sglang",
            "prefill: {}, decode: {}, aggregated: {}",
            "r.yaml:4:34: error: aggregated does not work together with prefill and decode",
        ),
        (
            "trtllm-serve",
            "aggregated: {servers: 2}",
            "r.yaml:4:9: error: clients would ask only the first of 2 aggregated servers",
        ),
        (
            "vllm",
            "prefill: {}, decode: {}, router: {servers: 0}",
            "r.yaml:4:34: error: clients have nothing to ask: there is no router and no aggregated",
        ),
    ] {
        let error = Folder::new().plan(&text(engine, roles, benchmark)).unwrap_err();
        assert!(error.contains(expected), "{roles}\n{error}");
        assert_eq!(error.matches("error:").count(), 1, "{error}");
    }
    // Clients from outside may ask each of them.
    plan(&text("trtllm-serve", "aggregated: {servers: 2}", "serve_only: true"));
    for (engine, port) in [("vllm", 8000), ("sglang", 30000)] {
        let several = plan(&text(engine, "aggregated: {servers: 2}", benchmark));
        let urls = format!("--worker-urls http://n0:{port} http://n1:{}", port + 1);
        assert!(command(&several, "ROUTER").contains(&urls), "{}", command(&several, "ROUTER"));
        let one = plan(&text(engine, "aggregated: {}", benchmark));
        assert!(one.instance("ROUTER").is_err());
    }
}

#[test]
fn a_dry_run_writes_the_native_script_and_no_other_launcher_takes_a_recipe() {
    let folder = Folder::new();
    let text = format!(
        "engine: vllm\nmodel: /\ngpus_per_node: 4\nroles: {{aggregated: {{}}}}\n{BENCHMARK}"
    );
    folder.write("r.yaml", &text);
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"))
            .args(["submit", "r.yaml", "--dry-run", "--workspace", "w"])
            .args(arguments)
            .current_dir(folder.path(""))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (status, shown) = run(&["--launcher=bash"]);
    assert!(status == Some(2) && shown.contains("cannot run a recipe"), "{shown}");
    assert!(!folder.path("w").exists());
    let (status, shown) = run(&[]);
    assert!(status == Some(0) && shown.contains("/w/plan.json\n"), "{shown}");
    assert!(shown.contains("would run: sbatch --"), "{shown}");
    let script = std::fs::read_to_string(folder.path("w/slurm_launch_native.sh")).unwrap();
    assert!(script.contains("#SBATCH --nodes=1\n") && script.contains(" launch --workspace "));
    folder.write("r.yaml", &text.replace("model: /", "model: /nowhere"));
    let (status, shown) = run(&["--force"]);
    assert!(status == Some(2) && shown.contains("the model /nowhere does not exist"), "{shown}");
}

#[test]
fn a_plan_does_not_grow_with_its_servers() {
    let size = |servers: u32| {
        let text = format!(
            "engine: sglang\nmodel: m\ngpus_per_node: 4\nroles: {{prefill: {{servers: {servers}, gpus: 1}}, \
             decode: {{servers: {servers}, gpus: 1}}}}\nserve_only: true\n"
        );
        plan(&text).to_json().unwrap().len()
    };
    assert!(size(5000) < size(5) + 100);
}

#[test]
fn no_engine_s_name_is_in_the_sources_besides_readers_and_tests() {
    let names: Vec<_> = profile::built_in().map(|name| format!("\"{name}\"")).collect();
    let output = Command::new("grep").args(["-rnE", &names.join("|"), "src"]).output().unwrap();
    let readers = ["src/input/profile.rs:", "src/input/examples.rs:"];
    let found = String::from_utf8(output.stdout).unwrap();
    let others: Vec<_> =
        found.lines().filter(|line| !readers.iter().any(|file| line.starts_with(file))).collect();
    assert!(others.is_empty(), "{others:?}");
}
