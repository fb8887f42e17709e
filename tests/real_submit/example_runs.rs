// SPDX-License-Identifier: Apache-2.0
//! `launch` of TensorRT-LLM's benchmark configurations: what stand-ins get in each rank, against what
//! the benchmark's own scripts give.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use disagg::run::result::{RunResult, VerdictKind};
use serde_json::Value;
use slurm_bed::{Cluster, Options, Slurm, executable, variables};

use crate::corpus;
use crate::examples::{self, Example, Got, RECORDER, Rank};
use crate::site::{DISAGG, LIMIT};

const NODES: u64 = 9;
const GPUS: u32 = 8;

/// What a stand-in does then: the first rank of a server and the router answer that they are healthy.
const SERVES: &str = r#"case "${0##*/}" in trtllm-* | nsys) ;; *) exit 0 ;; esac
[ "$SLURM_PROCID" = 0 ] || exec sleep 300
[ "$1" = disaggregated ] || while [ "$1" != --host ]; do shift; done
exec python3 -ISc '
import json, socket, sys
words = sys.argv[1:]
if words[0] == "disaggregated":
    config = json.load(open(words[2]))
    words = ["", config["hostname"], "", config["port"]]
server = socket.create_server((words[1], int(words[3])))
while True:
    client, _ = server.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    client.close()
' "$@"
"#;

/// There is no container here.
const SRUN: &str = r#"#!/bin/bash
for word; do case "$word" in --job-name=*) export STEP=${word#*=} ;; esac; done
[ "$STEP" != unpack ] || exit 0
printf '%s\0' "$@" >"$NOTES/$STEP.srun"
for word; do
    shift
    case "$word" in --container-*) ;; *) set -- "$@" "$word" ;; esac
done
"#;

/// What is particular about a record.
fn traits(record: &Value) -> BTreeSet<String> {
    let mut traits = BTreeSet::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut of = |what: &str, process: &Value| {
        let words = list(&process["argv"]);
        let options = words.iter().filter_map(Value::as_str).filter(|word| word.starts_with('-'));
        let names = process["env"].as_object().into_iter().flat_map(|env| env.keys());
        let all = options.chain(names.map(String::as_str)).chain(words[0].as_str());
        traits.extend(all.map(|one| format!("{what} {one}")));
    };
    for server in list(&record["servers"]).iter().filter(|server| server["started"] == true) {
        let role = server["role"].as_str().unwrap();
        of(role, server);
    }
    of("router", &record["server"]);
    list(&record["client"]).iter().for_each(|client| of("client", client));
    list(&record["accuracy"]).iter().for_each(|client| of("accuracy", client));
    for server in list(&record["servers"]) {
        let counts: Vec<_> =
            list(&server["placement"]).iter().map(|at| list(&at[1]).len()).collect();
        let (role, first) = (&server["role"], counts.first().copied());
        let even = counts.iter().all(|count| Some(*count) == first);
        let compact = server.get("hostfile").is_some();
        let several = server["index"] != 0;
        let nodes = counts.len() > 1;
        traits.insert(format!(
            "{role} nodes {nodes} {even} {compact} {several} {}",
            server["started"]
        ));
    }
    let install: Vec<_> =
        list(&record["install"]).iter().map(|one| one["cmd"][2].to_string()).collect();
    traits.extend(install.into_iter().filter(|one| !one.contains("get_env.py")));
    let router = record["server"]["config_file"].as_object().unwrap();
    traits.extend(router.iter().flat_map(|(key, value)| {
        let below = value.as_object().into_iter().flat_map(|below| below.keys());
        let below: Vec<_> = below.map(|name| format!("router {key}.{name}")).collect();
        below.into_iter().chain([format!("router {key}")])
    }));
    traits.insert(format!("gpus {}", record["gpus_per_node"]));
    traits
}

fn ranks(record: &Value) -> usize {
    let servers = record["servers"].as_array().unwrap().iter();
    let places = servers.flat_map(|server| server["placement"].as_array().unwrap().iter());
    places.map(|place| place[1].as_array().unwrap().len()).sum()
}

/// Few and small ones that have all traits of those that fit.
fn chosen(mut all: Vec<Example>) -> Vec<Example> {
    all.retain(|one| one.plan.is_ok() && one.record["ok"] == true);
    all.retain(|one| one.record["nodes"].as_u64().unwrap() <= NODES && ranks(&one.record) <= 24);
    // Nothing is there that could be installed.
    all.retain(|one| one.name != "own/inst_repo_absent");
    let mut traits: Vec<_> = all.iter().map(|one| traits(&one.record)).collect();
    let mut chosen = Vec::new();
    loop {
        let worth = |at: &usize| traits[*at].len() * 1000 / (ranks(&all[*at].record) + 16);
        let Some(best) = (0..all.len()).max_by_key(worth).filter(|at| !traits[*at].is_empty())
        else {
            return chosen;
        };
        let seen = traits.swap_remove(best);
        chosen.push(all.swap_remove(best));
        traits.iter_mut().for_each(|traits| traits.retain(|one| !seen.contains(one)));
    }
}

#[test]
fn ranks_of_the_benchmark_get_what_its_own_scripts_give_them() {
    if corpus::root().is_none() {
        return;
    }
    let cluster = Cluster::start(&Options::nodes(NODES as u32).gpus(GPUS).mpi("pmix"));
    let Some(all) = examples::all(&cluster.work()) else { return };
    let bin = cluster.work().join("bin");
    let programs = "trtllm-llmapi-launch trtllm-serve nsys python aiperf lm_eval pip git curl true";
    for name in programs.split(' ') {
        executable(&bin.join(name), &[RECORDER, SERVES].concat());
    }
    let srun = Slurm::under_test().prefix.join("bin/srun");
    executable(&bin.join("srun"), &format!("{SRUN}exec {} \"$@\"\n", srun.display()));
    let mut examples = chosen(all);
    // The longest first.
    examples.sort_by_key(|one| std::cmp::Reverse(one.record["nodes"].as_u64()));
    let submit = |example: &Example| {
        let plan = example.plan.as_ref().unwrap();
        let workspace = Path::new(&plan.workspace);
        let notes = workspace.join("notes");
        fs::create_dir_all(&notes).unwrap();
        for folder in [workspace, &notes] {
            fs::set_permissions(folder, PermissionsExt::from_mode(0o777)).unwrap();
        }
        fs::write(workspace.join("plan.json"), plan.to_json().unwrap()).unwrap();
        let script = format!(
            "PATH={}:$PATH; export NOTES={} UCX_TLS='of the job'; env -0 >$NOTES/around; \
             exec {DISAGG} launch --workspace {}",
            bin.display(),
            notes.display(),
            workspace.display()
        );
        cluster.submit([
            format!("--nodes={}", plan.layout.total_nodes),
            format!("--gpus-per-node={}", plan.layout.gpus_per_node),
            format!("--output={}/job.out", workspace.display()),
            format!("--wrap={script}"),
            "--exclusive".to_owned(),
            "--time=5".to_owned(),
        ])
    };
    let jobs: Vec<_> = examples.iter().map(submit).collect();
    let mut problems = Vec::new();
    for (example, job) in examples.iter().zip(jobs) {
        cluster.wait_job(job, LIMIT);
        let plan = example.plan.as_ref().unwrap();
        let workspace = Path::new(&plan.workspace);
        let result = RunResult::read(workspace).unwrap();
        let output = fs::read_to_string(workspace.join("job.out")).unwrap_or_default();
        assert_eq!(result.verdict.kind, VerdictKind::Passed, "{}: {output}", example.name);
        problems.extend(example.problems(&got(workspace), &result.nodes));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    println!("{:?}", examples.iter().map(|one| &one.name).collect::<Vec<_>>());
}

/// What the stand-ins and srun were given in a workspace.
fn got(workspace: &Path) -> Got {
    let mut got = Got::default();
    let notes = workspace.join("notes");
    let around = variables(&fs::read_to_string(notes.join("around")).unwrap());
    for entry in fs::read_dir(notes).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some((step, what)) = name.split_once('.') else { continue };
        let text = fs::read_to_string(&path).unwrap();
        match what.parse() {
            Ok(rank) => drop(got.ranks.insert((step.to_owned(), rank), Rank::read(&text, &around))),
            Err(_) => {
                let words = text.split_terminator('\0').map(str::to_owned).collect();
                got.srun.insert(step.to_owned(), words);
            }
        }
    }
    for name in ["ctx_config.yaml", "gen_config.yaml", "server_config.yaml"] {
        let text = fs::read_to_string(workspace.join(name)).unwrap_or_default();
        got.files.insert(name.to_owned(), serde_json::from_str(&text).unwrap_or_default());
    }
    got
}
