// SPDX-License-Identifier: Apache-2.0
//! The corpus of real and odd configurations, with what the existing scripts make of each, and a
//! source tree that it can be planned in.
//!
//! It is looked for in `../shared/corpus`, seen from the workspace, or where DISAGG_CORPUS says.

// Each test binary uses its own part of this; helpers of tests may panic.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use disagg::diagnostic::Diagnostics;
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::plan::{Env, Generation, Plan};

/// The variable that several concurrencies of a configuration decide.
pub const QUEUE: &str = "TLLM_BENCHMARK_REQ_QUEUES_SIZE";

// Configurations that the tables of all rule sets name.
pub const NVFP4_17: &str = "Qwen3-235B-A22B-FP4_17";
pub const MNNVL: &str =
    "Qwen3-235B-A22B-FP4_1k1k_ctx1_gen1_dep16_bs64_eplb0_mtp0_ccb-NIXL-python-MNNVL";
pub const TEP8: &str = "Qwen3-235B-A22B-FP4_1k1k_ctx1_gen4_tep8_bs32_eplb0_mtp0_ccb-NIXL";
pub const R1: &str = "deepseek-r1-fp4_000";

/// What ours refuses with a place, whatever the rule set: the scripts fail without one, write
/// Python's spelling of a value into a command, or plan a server on no node.
const REFUSED_BY_ALL: &[(&str, &str)] = &[
    ("syn_bad_yaml", ".yaml:3:2: error: "),
    ("syn_empty_file", ".yaml:1:1: error: the configuration is empty"),
    ("syn_gpus_per_node_missing", "error: hardware.gpus_per_node is missing"),
    ("syn_hardware_null", ".yaml:3:1: error: hardware.gpus_per_node is missing"),
    ("syn_gpus_per_node_zero", ".yaml:5:18: error: hardware.gpus_per_node must be"),
    ("syn_num_ctx_string", "help: write 2 without quotes"),
    ("syn_num_gen_missing", "error: hardware.num_gen_servers is missing"),
    ("syn_tp_null", ".yaml:13:27: error: worker_config.gen.tensor_parallel_size"),
    ("syn_tp_string", "help: write 8 without quotes"),
    ("syn_tp_zero", ".yaml:13:27: error: worker_config.gen.tensor_parallel_size"),
    ("syn_yaml12_octal_is_a_string", "but the number 16 to YAML 1.2"),
    ("syn_worker_env_list", ".yaml:9:19: error: environment.worker_env_var must be"),
    ("syn_worker_env_map", ".yaml:9:19: error: environment.worker_env_var must be"),
    ("syn_worker_env_number", "error: environment.worker_env_var must be text"),
    ("syn_env_dollar", ".yaml:9:77: error: environment.worker_env_var: command sub"),
    ("syn_sexagesimal_conc", "the number 90 to PyYAML"),
];

/// Where the corpus is; says so and gives nothing when it is not there.
pub fn root() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/corpus");
    let root = std::env::var_os("DISAGG_CORPUS").map_or(beside, PathBuf::from);
    if root.join("expected").is_dir() {
        return Some(root);
    }
    // Not eprintln: the test harness keeps that to itself when a test passes.
    let message = format!("SKIPPED: no corpus at {} (DISAGG_CORPUS says where)\n", root.display());
    std::io::stderr().write_all(message.as_bytes()).unwrap();
    None
}

/// One configuration's records.
#[derive(Debug, Deserialize)]
pub struct Record {
    pub path: String,
    pub config_name: String,
    pub cases: Vec<Case>,
}

/// What the existing scripts make of one test id.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub test_id: String,
    #[serde(default)]
    pub stage: String,
    #[serde(default)]
    pub cluster: String,
    pub ok: bool,
    #[serde(default = "yes")]
    pub llmapi_launch_in_prefix: bool,
    pub layout: Option<BTreeMap<String, Value>>,
    pub roles: Option<BTreeMap<String, RoleRecord>>,
    pub container_env: Option<Vec<String>>,
    pub job_env: Option<Env>,
    pub variables: Option<Env>,
}

fn yes() -> bool {
    true
}

/// What a role's command line amounts to.
#[derive(Debug, Deserialize)]
pub struct RoleRecord {
    pub unset: Vec<String>,
    pub export: Env,
    pub env: Env,
    pub argv: Vec<String>,
}

/// The prefix scripts and srun arguments that the records started from.
#[derive(Debug, Deserialize)]
pub struct Common {
    pub srun_args_file: String,
    pub srun_args_current: String,
    pub prefix_file: HashMap<String, String>,
}

/// A source tree and a workspace, in a directory of their own.
pub struct Tree {
    directory: tempfile::TempDir,
    corpus: PathBuf,
    pub common: Common,
}

const FOLDERS: [&str; 2] = ["disaggregated", "aggregated"];

impl Tree {
    pub fn new(corpus: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let tree = Self { corpus: corpus.to_owned(), common: tree_common(corpus), directory };
        for folder in FOLDERS {
            fs::create_dir_all(tree.source().join("tests/scripts/perf-sanity").join(folder))
                .unwrap();
        }
        fs::create_dir_all(tree.workspace()).unwrap();
        fs::write(tree.path("site.yaml"), "").unwrap();
        tree
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path("src")
    }

    pub fn workspace(&self) -> PathBuf {
        self.path("w")
    }

    /// The corpus's text with this tree's paths.
    pub fn localized(&self, text: &str) -> String {
        text.replace("@LLM_SRC@", self.source().to_str().unwrap())
            .replace("@WORKSPACE@", self.workspace().to_str().unwrap())
    }

    /// All records of a generation, with this tree's paths.
    pub fn records(&self, generation: Generation) -> Vec<Record> {
        let directory = self.corpus.join("expected").join(generation.name());
        let mut paths: Vec<_> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let read = |path: &PathBuf| self.localized(&fs::read_to_string(path).unwrap());
        paths.iter().map(|path| serde_json::from_str(&read(path)).unwrap()).collect()
    }

    pub fn corpus_json(&self, name: &str) -> Value {
        let text = fs::read_to_string(self.corpus.join("expected").join(name)).unwrap();
        serde_json::from_str(&self.localized(&text)).unwrap()
    }

    /// Puts a configuration where tests of this id look for it.
    pub fn install(&self, record: &Record, test_id: &str) {
        let aggregated = test_id.starts_with("aggr")
            && !test_id.contains("-ctx_only-")
            && !test_id.contains("-gen_only_no_context-");
        let folder = FOLDERS[usize::from(aggregated)];
        let name = format!("{folder}/{}.yaml", record.config_name);
        let target = self.source().join("tests/scripts/perf-sanity").join(name);
        fs::copy(self.corpus.join(&record.path), target).unwrap();
    }

    /// Puts all real configurations where tests look for them.
    pub fn install_all(&self) {
        copy_tree(&self.corpus.join("configs/tests"), &self.source().join("tests"));
    }

    /// Puts all made-up configurations where disaggregated tests look for them.
    pub fn install_synthetic(&self) {
        for entry in fs::read_dir(self.corpus.join("configs_synthetic")).unwrap() {
            let entry = entry.unwrap();
            let target = self.source().join("tests/scripts/perf-sanity").join(FOLDERS[0]);
            fs::copy(entry.path(), target.join(entry.file_name())).unwrap();
        }
    }

    /// The same for those that came later.
    pub fn install_newer(&self) {
        copy_tree(&self.corpus.join("configs_current/tests"), &self.source().join("tests"));
    }

    /// The real test lists: `test_lists`, and those that came later, `test_lists_current`.
    pub fn test_lists(&self, folder: &str) -> Vec<PathBuf> {
        let root = self.corpus.join(folder).join("tests/integration/test_lists");
        let directories = ["qa", "test-db"].map(|name| fs::read_dir(root.join(name)).unwrap());
        let entries = directories.into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.collect()
    }

    /// The script prefix of a test, in a file.
    pub fn prefix(&self, style: &str, test_id: &str) -> PathBuf {
        let prefix = test_id.split('-').next().unwrap();
        let text = self.common.prefix_file[style]
            .replace("--test-prefix=@TEST_ID@", &format!("--test-prefix={prefix}"))
            .replace("@FIRST_WORD_OF_TEST_ID@", prefix)
            .replace("@TEST_ID@", test_id)
            .replace("@NODES@", "1")
            .replace("@GPUS@", "1")
            .replace("@GPN@", "1");
        let path = self.path("prefix.sh");
        fs::write(&path, self.localized(&text)).unwrap();
        path
    }

    pub fn options(&self) -> Options {
        Options {
            trtllm_dir: Some(self.source().to_str().unwrap().to_owned()),
            workspace: Some(self.workspace().to_str().unwrap().to_owned()),
            site: Some(self.path("site.yaml")),
            ..Options::default()
        }
    }

    /// Plans as a process would whose environment has these variables.
    pub fn plan(&self, options: &Options, variables: &[(&str, &str)]) -> Result<Plan, Diagnostics> {
        let env = |name: &str| match name {
            "CLUSTER_LLM_DATA" => Some("/lustre/data".to_owned()),
            _ => variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string()),
        };
        let context = Context { env: &env, current_dir: self.directory.path().to_owned() };
        request::plan(options, &context).map(|(plan, _)| plan)
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn tree_common(corpus: &Path) -> Common {
    serde_json::from_str(&fs::read_to_string(corpus.join("expected/COMMON.json")).unwrap()).unwrap()
}

/// Names and values, in order, as JSON writes them.
pub fn pairs(env: &Env) -> Vec<(&str, &str)> {
    env.iter().map(|(name, value)| (name, value.value.as_str())).collect()
}

/// A number however the scripts wrote it: `4`, `4.0`, `'4.0'`, `true`.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::String(text) => text.parse().ok(),
        value => value.as_f64(),
    }
}

/// What of a plan is not what the corpus says; empty when all of it is.
pub fn differences(plan: &Plan, case: &Case) -> Vec<String> {
    let mut found = Vec::new();
    let mut compare = |what: String, ours: String, theirs: String| {
        if ours != theirs {
            found.push(format!("{what}:\n    ours   {ours}\n    theirs {theirs}"));
        }
    };
    let json: Value = serde_json::to_value(plan).unwrap();
    let layout: BTreeMap<String, Value> = serde_json::from_value(json["layout"].clone()).unwrap();
    let numbers = |layout: &BTreeMap<String, Value>| -> Vec<(String, Option<f64>)> {
        layout.iter().map(|(name, value)| (name.clone(), number(value))).collect()
    };
    let theirs = numbers(case.layout.as_ref().unwrap());
    // A plan has all numbers; the older scripts wrote some of them.
    let mut ours = numbers(&layout);
    ours.retain(|(name, _)| theirs.iter().any(|(other, _)| other == name));
    compare("layout".into(), format!("{ours:?}"), format!("{theirs:?}"));

    let expected = case.roles.as_ref().unwrap();
    let names = |names: Vec<&str>| format!("{names:?}");
    let mut ours: Vec<_> = plan.roles.keys().map(String::as_str).collect();
    ours.sort_unstable();
    compare("roles".into(), names(ours), names(expected.keys().map(String::as_str).collect()));
    for (kind, role) in &plan.roles {
        let Some(theirs) = expected.get(kind) else { continue };
        let unset: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
        let argv: Vec<_> = role.words().collect();
        compare(format!("{kind} unset"), format!("{unset:?}"), format!("{:?}", theirs.unset));
        compare(
            format!("{kind} export"),
            format!("{:?}", pairs(&role.export)),
            format!("{:?}", pairs(&theirs.export)),
        );
        compare(
            format!("{kind} env"),
            format!("{:?}", pairs(&role.env)),
            format!("{:?}", pairs(&theirs.env)),
        );
        compare(format!("{kind} argv"), format!("{argv:?}"), format!("{:?}", theirs.argv));
    }
    compare(
        "container_env".into(),
        format!("{:?}", plan.container_env),
        format!("{:?}", case.container_env.as_ref().unwrap()),
    );
    compare(
        "job_env".into(),
        format!("{:?}", pairs(&plan.job_env)),
        format!("{:?}", pairs(case.job_env.as_ref().unwrap())),
    );
    let plain = |value: &str| value.parse().map_or(value.to_owned(), |n: f64| n.to_string());
    let mut ours: Vec<_> = plan
        .suite
        .as_ref()
        .unwrap()
        .variables
        .iter()
        .map(|(name, v)| (name.as_str(), plain(v)))
        .collect();
    let theirs = pairs(case.variables.as_ref().unwrap());
    let mut theirs: Vec<_> = theirs.into_iter().map(|(name, v)| (name, plain(v))).collect();
    if plan.suite.as_ref().unwrap().rules == Generation::Current {
        // Those records have all exports of the script, in another order.
        theirs.retain(|(name, _)| !OTHER_EXPORTS.contains(name));
        ours.sort_unstable();
        theirs.sort_unstable();
    }
    compare("variables".into(), format!("{ours:?}"), format!("{theirs:?}"));
    found
}

/// What a script exports besides commands and a plan's variables.
const OTHER_EXPORTS: [&str; 5] = [
    "TRTLLM_DISAGG_BENCHMARK_GEN_ONLY",
    "precheckRunScript",
    "stageName",
    "runScript",
    "installScript",
];

/// What our planner does with a case, on purpose, that is not what the existing scripts do.
#[derive(Clone, Copy)]
pub enum Instead {
    /// It is planned although the scripts fail, or with other values than theirs: these
    /// variables (role, name, value) among them.
    Planned(&'static [(&'static str, &'static str, &'static str)]),
    /// It is refused with a message that contains this.
    Refused(&'static str),
}

/// A row of the table of deviations: configuration, test ids that contain this, what happens.
pub type Deviation = (&'static str, &'static str, Instead);

/// Compares all cases of a generation; every deviation must be in the table, and every row of the
/// table must deviate.
pub fn check_all(
    generation: Generation,
    deviations: &[Deviation],
    plan: impl Fn(&Tree, &Record, &Case) -> Result<Plan, Diagnostics>,
) {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    let refused = REFUSED_BY_ALL.iter().map(|(config, part)| (*config, "", Instead::Refused(part)));
    let deviations: Vec<Deviation> = deviations.iter().copied().chain(refused).collect();
    let mut wrong = Vec::new();
    let mut used = vec![false; deviations.len()];
    let (mut equal, mut deviating) = (0, 0);
    for record in tree.records(generation) {
        for case in &record.cases {
            tree.install(&record, &case.test_id);
            let name = format!("{} {}", record.config_name, case.test_id);
            let row = deviations.iter().position(|(config, part, _)| {
                *config == record.config_name && case.test_id.contains(part)
            });
            let planned = plan(&tree, &record, case);
            let differing = match (&planned, case.ok) {
                (Ok(plan), true) => differences(plan, case),
                (Ok(_), false) => vec!["planned, although the scripts fail".to_owned()],
                (Err(errors), _) => vec![format!("refused: {errors}")],
            };
            if differing.is_empty() {
                equal += 1;
                continue;
            }
            deviating += 1;
            let as_said = row.is_some_and(|row| {
                used[row] = true;
                match (&deviations[row].2, &planned) {
                    (Instead::Planned(expected), Ok(plan)) => {
                        expected.iter().all(|(role, name, value)| {
                            let set = plan.roles.get(*role).and_then(|role| role.env.get(name));
                            set.is_some_and(|set| set.as_str() == *value)
                        })
                    }
                    (Instead::Refused(part), Err(errors)) => errors.to_string().contains(part),
                    _ => false,
                }
            });
            if !as_said {
                wrong.push(format!("{name}: {}", differing.join("\n  ")));
            }
        }
    }
    for (row, _) in deviations.iter().zip(&used).filter(|(_, used)| !**used) {
        wrong.push(format!("the table says that {} {} deviates, and nothing does", row.0, row.1));
    }
    println!("{generation}: {equal} cases equal, {deviating} deviate on purpose");
    assert!(wrong.is_empty(), "{} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(equal > 0, "no case was compared");
}

/// Test lists that ours reads otherwise than the scripts do, on purpose: the beginning of the id, or a
/// part of the error.
pub type ListDeviations = &'static [(&'static str, Result<&'static str, &'static str>)];

/// Compares the plan of an odd test list with what the scripts make of it.
#[track_caller]
pub fn check_list(
    deviations: ListDeviations,
    label: &str,
    planned: &Result<Plan, Diagnostics>,
    expected: &Value,
) {
    let deviation = deviations.iter().find(|(deviating, _)| *deviating == label);
    match (deviation, planned) {
        (Some((_, Ok(id))), Ok(plan)) => {
            assert!(plan.suite.as_ref().unwrap().test.id.starts_with(id), "{label}")
        }
        (Some((_, Err(part))), Err(errors)) => {
            assert!(errors.to_string().contains(part), "{label}: {errors}");
        }
        (None, Ok(plan)) => {
            assert!(expected["ok"].as_bool().unwrap(), "{label} is planned");
            for (name, value) in expected["exports"].as_object().unwrap() {
                let ours = plan.suite.as_ref().unwrap().variables.get(name).map(String::as_str);
                assert_eq!(ours, value.as_str(), "{label}: {name}");
            }
            if !expected["hardware"].is_null() {
                let layout = serde_json::to_value(&plan.layout).unwrap();
                assert_eq!(layout, expected["hardware"], "{label}");
            }
        }
        (None, Err(errors)) => assert!(!expected["ok"].as_bool().unwrap(), "{label}: {errors}"),
        (Some(_), _) => panic!("{label} deviates otherwise: {planned:?}"),
    }
}
