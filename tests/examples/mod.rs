// SPDX-License-Identifier: Apache-2.0
//! The corpus' records of TensorRT-LLM's Slurm benchmark: what its own scripts make of each
//! configuration, and what is not so here on purpose.

#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use disagg::diagnostic::Diagnostics;
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::output::script::sbatch_request;
use disagg::plan::{Instance, Plan, Purpose};
use serde_json::{Map, Value, json};

use crate::corpus::root;

/// What is not as the scripts have it, on purpose: the record, what differs, and why.
/// docs/recipes.md has the reasons in full.
pub const DEVIATIONS: &[(&str, &[&str], &str)] = &[
    ("own/null_partition", &["sbatch.partition"], "null asks for nothing, not for `None`"),
    ("own/extra_args", &["sbatch.other"], "the plan decides the nodes"),
    ("own/env_no_equals", &["CTX_0.env", "GEN_0.env"], "a variable has a name"),
    ("own/model_space", &["CTX_0.argv", "GEN_0.argv", "clients"], "a word stays one word"),
    ("own/inst_repo_absent", &["install"], "a path that leads nowhere is not passed over"),
];

/// A rank as its program found itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rank {
    pub node: String,
    /// Its `CUDA_VISIBLE_DEVICES`.
    pub gpus: String,
    pub argv: Vec<String>,
    pub cwd: String,
    /// The variables that are not as around all steps, but for Slurm's.
    pub env: BTreeMap<String, String>,
    /// Those that are there around all steps, and not here.
    pub unset: Vec<String>,
}

/// What the processes of a plan get.
#[derive(Default)]
pub struct Got {
    pub ranks: BTreeMap<(String, u32), Rank>,
    /// Configuration files by name.
    pub files: BTreeMap<String, Value>,
    /// The options of srun by step.
    pub srun: BTreeMap<String, Vec<String>>,
}

/// A program that writes down how it was started: the first one of each rank, in `$NOTES`.
pub const RECORDER: &str = r#"#!/bin/sh
note=$NOTES/$STEP.$SLURM_PROCID
[ -e "$note" ] || {
    { printf '%s\0' $# "${0##*/}" "$@" "$PWD"; /bin/cat /proc/$$/environ; } >"$note.new"
    mv "$note.new" "$note"
}
"#;

/// Variables that are none of the plan's, by how their names begin: Slurm's, those that containers
/// read, and the shell's.
const OF_SLURM: &[&str] = &[
    "SLURM",
    "SRUN_DEBUG",
    "PMI",
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_IMEX_CHANNELS",
    "DISAGG_",
    "STEP",
    "NOTES",
    "PWD",
    "_",
];

impl Rank {
    /// From what [`RECORDER`] writes, with these variables around all steps.
    pub fn read(note: &str, around: &BTreeMap<String, String>) -> Self {
        let (count, rest) = note.split_once('\0').unwrap();
        let words: Vec<_> = rest.split('\0').map(str::to_owned).collect();
        let (argv, rest) = words.split_at(count.parse::<usize>().unwrap() + 1);
        let all: BTreeMap<_, _> = rest[1..]
            .iter()
            .filter_map(|entry| entry.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let is_of_slurm = |name: &str| OF_SLURM.iter().any(|start| name.starts_with(start));
        let path = &around["PATH"];
        let own = |(name, value): (&String, &String)| {
            let is_own = !is_of_slurm(name) && around.get(name) != Some(value);
            is_own.then(|| (name.clone(), value.replace(path, "$PATH")))
        };
        Self {
            node: all.get("SLURMD_NODENAME").cloned().unwrap_or_default(),
            gpus: all.get("CUDA_VISIBLE_DEVICES").cloned().unwrap_or_default(),
            argv: argv.to_vec(),
            cwd: rest[0].clone(),
            env: all.iter().filter_map(own).collect(),
            unset: around
                .keys()
                .filter(|name| !is_of_slurm(name) && !all.contains_key(*name))
                .cloned()
                .collect(),
        }
    }
}

/// A record, and what its configuration is planned as.
pub struct Example {
    pub name: String,
    /// With what was filled in, and the plan's model and workspace.
    pub record: Value,
    pub plan: Result<Plan, Diagnostics>,
}

/// All records, planned for workspaces below a folder.
pub fn all(folder: &Path) -> Option<Vec<Example>> {
    let examples = root()?.join("examples");
    let planner = Planner::new();
    let mut found = Vec::new();
    for kind in ["own", "real"] {
        let records = fs::read_dir(examples.join("expected").join(kind)).ok()?;
        let mut records: Vec<_> = records.map(|entry| entry.unwrap().path()).collect();
        records.sort();
        for path in records {
            let name = format!("{kind}/{}", path.file_stem().unwrap().to_str().unwrap());
            let record = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            found.push(Example::new(&planner, name, record, &examples, folder));
        }
    }
    Some(found)
}

impl Example {
    fn new(planner: &Planner, name: String, record: Value, examples: &Path, folder: &Path) -> Self {
        let config = examples.join(record["config"].as_str().unwrap());
        let text = fs::read_to_string(&config).unwrap();
        // The test suite's own configurations have the same form.
        let has_metadata = text.lines().any(|line| line.starts_with("metadata:"));
        let mut set: Vec<String> = Vec::new();
        set.extend(has_metadata.then(|| "engine=trtllm-serve".to_owned()));
        let side = text.replace("/lustre/side/", "\0");
        if let Some((_, rest)) = side.split_once('\0').filter(|_| name.contains("acc_custom")) {
            let file = examples.join("configs/own/side").join(rest.lines().next().unwrap());
            set.push(format!("accuracy.tasks.gpqa.extra_kwargs.custom_config={}", file.display()));
        }
        let workspace = folder.join(&name).display().to_string();
        let mut plan = planner.plan(&config, &set, examples, &workspace);
        // Each value that nobody filled in is named with its place; then it is filled in.
        let mut filled = Vec::new();
        for error in plan.as_ref().err().map_or(&[][..], |errors| &errors.0) {
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
            plan = planner.plan(&config, &set, examples, &workspace);
        }
        let mut text = record.to_string();
        for (placeholder, value) in filled {
            text = text.replace(&placeholder, &value);
        }
        if let Ok(plan) = &plan {
            let model = &plan.engine.as_ref().unwrap().model;
            text = text.replace("@MODEL@", model).replace("@LOG@", &workspace);
            text = text.replace("@IMAGE@", &plan.container.as_ref().unwrap().image.value);
        }
        Self { name, record: serde_json::from_str(&text).unwrap(), plan }
    }

    /// What differs, but for what does on purpose, and what should and does not.
    pub fn problems(&self, got: &Got, nodes: &[String]) -> Vec<String> {
        let plan = self.plan.as_ref().unwrap();
        let mut text = self.record.to_string();
        for (at, node) in nodes.iter().enumerate() {
            text = text.replace(&format!("n{:03}", at + 1), node);
        }
        let found = differences(plan, &serde_json::from_str(&text).unwrap(), got);
        let allowed = self.deviations();
        let unexpected = found.iter().filter(|(what, _)| !allowed.iter().any(|a| a == what));
        let mut problems: Vec<_> =
            unexpected.map(|(what, how)| format!("{}: {what}: {how}", self.name)).collect();
        let gone = allowed.iter().filter(|a| !found.iter().any(|(what, _)| *a == what));
        problems.extend(gone.map(|what| format!("{}: {what} does not differ any more", self.name)));
        problems
    }

    pub fn deviations(&self) -> Vec<&'static str> {
        let own = DEVIATIONS.iter().filter(|(known, ..)| *known == self.name);
        own.flat_map(|(_, whats, _)| whats.iter().copied()).collect()
    }
}

pub struct Planner {
    pub folder: tempfile::TempDir,
}

impl Planner {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("site.yaml"), "").unwrap();
        Self { folder }
    }

    pub fn plan(
        &self,
        path: &Path,
        set: &[String],
        side: &Path,
        workspace: &str,
    ) -> Result<Plan, Diagnostics> {
        let options = Options {
            config: path.to_string_lossy().into_owned(),
            workspace: Some(workspace.into()),
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

fn differences(plan: &Plan, record: &Value, got: &Got) -> Vec<(String, String)> {
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
    let names: BTreeSet<_> = ours.keys().chain(sbatch.keys()).collect();
    for name in names {
        let of = |all: &Map<String, Value>| all.get(name).cloned().unwrap_or_default();
        compare(&format!("sbatch.{name}"), of(&ours), &of(&sbatch));
    }
    compare("nodes", plan.layout.total_nodes.into(), &record["nodes"]);
    let none = Rank::default();
    let first = |name: &str| got.ranks.get(&(name.to_owned(), 0)).unwrap_or(&none);
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
        compare(&format!("{name}.port"), instance.port("http").into(), &server["port"]);
        let role = name.split('_').next().unwrap().to_lowercase();
        let file = got.files.get(&format!("{role}_config.yaml")).cloned().unwrap_or_default();
        compare(&format!("{name}.config_file"), file, &server["config_file"]);
        let ranks: Vec<_> = got.ranks.range((name.clone(), 0)..=(name.clone(), u32::MAX)).collect();
        let tasks = server["srun"].as_array().unwrap();
        compare(&format!("{name}.tasks"), ranks.len().to_string().into(), after(tasks, "--ntasks"));
        let placement = places(ranks.iter().map(|(_, rank)| *rank));
        compare(&format!("{name}.places"), placement, &server["placement"]);
        if let Some(theirs) = server.get("cuda_per_rank") {
            let ours = ranks.iter().map(|(_, rank)| rank.gpus.as_str()).collect();
            compare(&format!("{name}.places"), ours, theirs);
        }
        let mut theirs = server["env"].clone();
        theirs.as_object_mut().unwrap().remove("CUDA_VISIBLE_DEVICES");
        let leader = first(&name);
        compare(&format!("{name}.env"), json!(leader.env), &theirs);
        compare(&format!("{name}.unset"), json!(leader.unset), &server["unset"]);
        compare(&format!("{name}.argv"), json!(leader.argv), &server["argv"]);
        compare(&format!("{name}.cwd"), json!(leader.cwd), &json!(plan.workspace));
        // Its own scripts are not used.
        let options = got.srun.get(&name).cloned().unwrap_or_default();
        let of = |option: &str| options.iter().find_map(|word| word.strip_prefix(option));
        compare(
            &format!("{name}.image"),
            of("--container-image=").into(),
            after(tasks, "--container-image"),
        );
        let mounts = of("--container-mounts=").unwrap_or_default();
        let theirs = after(tasks, "--container-mounts").as_str().unwrap().split(',');
        let missing =
            theirs.filter(|one| *one != "@SRC@:@SRC@" && !mounts.split(',').any(|m| m == *one));
        compare(&format!("{name}.mounts"), missing.collect(), &json!([]));
        for ((_, number), rank) in ranks {
            // Only the names of files say which rank it is.
            let numbered =
                |word: &String| word.replace(&format!("{name}_0"), &format!("{name}_{number}"));
            let same = leader.argv.iter().map(numbered).eq(rank.argv.iter().cloned())
                && (&leader.env, &leader.unset, &leader.cwd) == (&rank.env, &rank.unset, &rank.cwd);
            compare(&format!("{name}.{number}"), json!(same), &json!(true));
        }
    }
    let ours = plan.instances().filter(|one| one.role.purpose == Purpose::Server);
    compare("servers", ours.map(|one| one.name).collect(), &json!(started));

    let (router, theirs) = (first("ROUTER"), &record["server"]);
    compare("router.argv", json!(router.argv), &theirs["argv"]);
    compare("router.env", json!(router.env), &theirs["env"]);
    compare("router.unset", json!(router.unset), &theirs["unset"]);
    let port = plan.instance("ROUTER").unwrap().port("http");
    compare("router.port", port.into(), &theirs["port"]);
    compare("router.node", json!(router.node), &theirs["node"]);
    let file = got.files.get("server_config.yaml").cloned().unwrap_or_default();
    compare("router.config_file", file, &theirs["config_file"]);

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
    let steps = plan.instances().filter(|one| one.role.purpose == Purpose::Client);
    let ours = steps.map(|one| first(&one.name)).map(|rank| json!([rank.argv, rank.env]));
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
        assert!(one.role.step.nodes == plan.layout.total_nodes || one.name == "BUILD");
        let rank = first(&one.name);
        let words = rank.argv.join(" ");
        if rank.cwd == plan.workspace { words } else { format!("cd {} && {words}", rank.cwd) }
    };
    compare("install", plan.checks().map(install).collect(), &theirs);
    found
}

/// The word that follows another.
fn after<'a>(words: &'a [Value], word: &str) -> &'a Value {
    &words[words.iter().position(|one| one == word).unwrap() + 1]
}

/// Each node of a server with the GPUs of its ranks there.
fn places<'a>(ranks: impl Iterator<Item = &'a Rank>) -> Value {
    let mut places: Vec<(&str, BTreeSet<u32>)> = Vec::new();
    for rank in ranks {
        let gpus = rank.gpus.split(',').filter_map(|gpu| gpu.parse().ok());
        match places.last_mut().filter(|(node, _)| *node == rank.node) {
            Some((_, known)) => known.extend(gpus),
            None => places.push((&rank.node, gpus.collect())),
        }
    }
    json!(places)
}
