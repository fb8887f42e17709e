// SPDX-License-Identifier: Apache-2.0
//! Derived launch scripts, as bash reads them: every variable and every command is what the plan,
//! and what the corpus, says.

#![allow(clippy::unwrap_used)] // helpers of tests may panic

mod corpus;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use corpus::{Case, Tree, root};
use disagg::input::request::Options;
use disagg::output::derive::{self, Parts};
use disagg::output::quote;
use disagg::plan::{Generation, Plan};

/// A place where the commands of a script can be run without running anything real: whatever they
/// start says with which arguments and environment.
struct Stage {
    directory: tempfile::TempDir,
}

/// What a command came to.
#[derive(Debug, PartialEq)]
struct Ran {
    argv: Vec<String>,
    env: BTreeMap<String, String>,
}

const SHOW: &str =
    "#!/bin/bash\nprintf '%s\\0' \"$#\" \"$0\" \"$@\"\n/usr/bin/env -0\nprintf '\\0'\n";

/// What a step's environment has besides what the script sets.
const STEP: [(&str, &str); 6] = [
    ("HOME", "/home/corpus"),
    ("SLURM_JOB_ID", "424242"),
    ("SLURM_LOCALID", "7"),
    ("UCX_CUDA_IPC_ENABLE_MNNVL", "site"),
    ("UCX_TLS", "site"),
    ("UCX_NET_DEVICES", "site"),
];

impl Stage {
    fn new() -> Self {
        let stage = Self { directory: tempfile::tempdir().unwrap() };
        for program in ["pytest", "python3", "true-env"] {
            stage.program(&stage.path(program));
        }
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn program(&self, path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, SHOW).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Sources a script and gives the values of variables, then what commands come to.
    fn source(&self, script: &str, names: &[&str], commands: &[&str]) -> (Vec<String>, Vec<Ran>) {
        let path = self.path("launch.sh");
        fs::write(&path, script).unwrap();
        let check = Command::new("bash").arg("-n").arg(&path).output().unwrap();
        assert!(check.status.success(), "{}\n{script}", String::from_utf8_lossy(&check.stderr));
        let mut reader = format!("source {}\nset +xeu\ntrap - ERR\n", path.display());
        for name in names {
            reader.push_str(&format!("printf '%s\\0' \"${{{name}-<unset>}}\"\n"));
        }
        reader.push_str("(true-env)\n");
        for command in commands {
            reader.push_str(&format!("(eval \"${{{command}}}\")\n"));
        }
        let output = Command::new("bash")
            .args(["-c", &reader])
            .env_clear()
            .envs(STEP)
            .env("PATH", format!("{}:/usr/bin:/bin", self.directory.path().display()))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut texts = output
            .stdout
            .split(|byte| *byte == 0)
            .map(|text| String::from_utf8(text.to_owned()).unwrap());
        let values = texts.by_ref().take(names.len()).collect();
        let mut read = || {
            let count: usize = texts.next().unwrap().parse().unwrap();
            let argv: Vec<_> = texts.by_ref().take(count + 1).collect();
            let pairs = texts.by_ref().take_while(|text| !text.is_empty());
            let env = pairs.map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                (name.to_owned(), value.to_owned())
            });
            Ran { argv, env: env.collect() }
        };
        let before = read();
        let ran = commands.iter().map(|_| {
            let mut ran = read();
            // What bash itself sets differs from process to process.
            for name in ["_", "SHLVL", "PWD", "OLDPWD"] {
                ran.env.remove(name);
            }
            let unchanged = |(name, value): (&String, &String)| ran.env.get(name) == Some(value);
            let same: BTreeSet<String> =
                before.env.iter().filter(|pair| unchanged(*pair)).map(|(n, _)| n.clone()).collect();
            ran.env.retain(|name, _| !same.contains(name));
            for name in before.env.keys() {
                if !same.contains(name) && !ran.env.contains_key(name) && !name.starts_with('_') {
                    ran.env.entry(name.clone()).or_insert_with(|| "<removed>".to_owned());
                }
            }
            for name in ["SHLVL", "PWD", "OLDPWD"] {
                ran.env.remove(name);
            }
            ran
        });
        (values, ran.collect())
    }
}

/// What a role's command should come to: its arguments, and how it changes the environment.
fn expected(
    argv: Vec<String>,
    unset: &[&str],
    set: &[(&str, String)],
    exported: &HashMap<String, String>,
    stage: &Stage,
) -> Ran {
    let mut argv = argv;
    if !argv[0].contains('/') {
        argv[0] = stage.path(&argv[0]).to_str().unwrap().to_owned();
    }
    let mut env = BTreeMap::new();
    for name in unset {
        env.insert((*name).to_owned(), "<removed>".to_owned());
    }
    for (name, value) in set {
        let before = exported.get(*name).map(String::as_str);
        let before = before.or(STEP.iter().find(|(n, _)| n == name).map(|(_, value)| *value));
        if before != Some(value.as_str()) {
            env.insert((*name).to_owned(), value.clone());
        } else {
            env.remove(*name);
        }
    }
    Ran { argv, env }
}

fn in_step(name: &str) -> Option<&'static str> {
    STEP.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn names_of_exports(script: &str) -> Vec<&str> {
    let exports = script.lines().filter_map(|line| line.strip_prefix("export "));
    exports.filter_map(|export| export.split_once('=')).map(|(name, _)| name).collect()
}

const DRAFT: &str = "# the draft\n  cat <<'EOF' > /dev/null\n    kept as it is\nEOF\n";

fn derived(tree: &Tree, plan: &Plan, prefix: &Path, stage_has_gate: bool) -> String {
    let prefix = fs::read_to_string(prefix).unwrap();
    let srun_args = tree.localized(srun_args(tree, plan.suite.as_ref().unwrap().rules));
    let gate = stage_has_gate.then_some("run_cache_transceiver_precheck() { :; }");
    let parts = Parts { prefix: &prefix, srun_args: &srun_args, draft: DRAFT, gate };
    derive::launch_script(plan, &parts)
}

fn srun_args(tree: &Tree, rules: Generation) -> &str {
    match rules {
        Generation::Current => &tree.common.srun_args_current,
        _ => &tree.common.srun_args_file,
    }
}

fn options(tree: &Tree, case: &Case, prefix: &Path, rules: Generation) -> Options {
    Options {
        test_id: Some(case.test_id.clone()),
        prefix_script: Some(prefix.to_str().unwrap().to_owned()),
        stage_name: Some(case.stage.clone()),
        cluster_name: Some(case.cluster.clone()),
        rules: Some(rules),
        run_script: Some(tree.localized("@LLM_SRC@/jenkins/scripts/slurm_run.sh")),
        install_script: Some(tree.localized("@LLM_SRC@/jenkins/scripts/slurm_install.sh")),
        ..tree.options()
    }
}

/// The variable that holds each role's command.
fn command_of(rules: Generation, kind: &str) -> &'static str {
    match (rules, kind) {
        (_, "DISAGG_SERVER") => "pytestCommandDisaggServer",
        (_, "BENCHMARK") => "pytestCommandBenchmark",
        (Generation::Classic, _) => "pytestCommandWorker",
        (_, "GEN") => "pytestCommandGENWorker",
        (_, "CTX") => "pytestCommandCTXWorker",
        (_, "GEN_PRECHECK") => "pytestCommandGENPrecheck",
        (_, "CTX_PRECHECK") => "pytestCommandCTXPrecheck",
        _ => "pytestCommand",
    }
}

/// Every case that the scripts plan and ours plans alike, as bash reads the derived script.
fn check_generation(rules: Generation, style: &str) {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    let stage = Stage::new();
    stage.program(&tree.source().join("tensorrt_llm/llmapi/trtllm-llmapi-launch"));
    let (mut compared, mut commands_compared) = (0, 0);
    for record in tree.records(rules) {
        for case in record.cases.iter().filter(|case| case.ok) {
            tree.install(&record, &case.test_id);
            let prefix = tree.prefix(style, &case.test_id);
            if !case.llmapi_launch_in_prefix {
                let text = fs::read_to_string(&prefix).unwrap();
                let launcher = tree.localized("@LLM_SRC@/tensorrt_llm/llmapi/trtllm-llmapi-launch");
                fs::write(&prefix, text.replace(&launcher, "")).unwrap();
            }
            let Ok(plan) = tree.plan(&options(&tree, case, &prefix, rules), &[]) else { continue };
            if !corpus::differences(&plan, case).is_empty() {
                continue; // one of the deviations that the conformance tests list
            }
            compared += 1;
            let script = derived(&tree, &plan, &prefix, false);
            assert!(script.ends_with(DRAFT));
            let variables = corpus::pairs(case.variables.as_ref().unwrap());
            let roles = case.roles.as_ref().unwrap();
            let commands: Vec<_> = roles.keys().map(|kind| command_of(rules, kind)).collect();
            let mut names: Vec<_> = variables.iter().map(|(name, _)| *name).collect();
            names.extend(["runScript", "installScript", "srunArgs[*]"]);
            let (values, ran) = stage.source(&script, &names, &commands);
            for ((name, theirs), ours) in variables.iter().zip(&values) {
                let number = |text: &str| text.parse::<f64>().ok();
                let equal =
                    theirs == ours || number(theirs).is_some_and(|n| number(ours) == Some(n));
                assert!(equal, "{} {name}: {ours} / {theirs}", case.test_id);
            }
            let rest = &values[variables.len()..];
            assert_eq!(rest[0], tree.localized("@LLM_SRC@/jenkins/scripts/slurm_run.sh"));
            let container_env = case.container_env.as_ref().unwrap();
            let arguments: Vec<_> = tree
                .localized(srun_args(&tree, rules))
                .replace("${SLURM_JOB_ID}", "424242")
                .split_whitespace()
                .map(str::to_owned)
                .chain(container_env.iter().map(|name| format!("--container-env={name}")))
                .collect();
            assert_eq!(rest[2], arguments.join(" "));
            let models = plan.suite.as_ref().unwrap().variables.get_key_value("LLM_MODELS_ROOT");
            let exported: HashMap<_, _> = plan
                .job_env
                .iter()
                .map(|(name, value)| (name.to_owned(), value.value.expand(in_step).unwrap()))
                .chain(models.map(|(name, value)| (name.clone(), value.clone())))
                .collect();
            for ((kind, role), ran) in roles.iter().zip(ran) {
                let unset: Vec<_> = role.unset.iter().map(String::as_str).collect();
                let all = role.export.iter().chain(role.env.iter());
                let set: Vec<_> =
                    all.map(|(name, value)| (name, value.value.expand(in_step).unwrap())).collect();
                let theirs = expected(role.argv.clone(), &unset, &set, &exported, &stage);
                assert_eq!(ran, theirs, "{} {kind}", case.test_id);
                commands_compared += 1;
            }
        }
    }
    println!("{rules}: {compared} scripts, {commands_compared} commands");
    assert!(compared >= 60, "{compared}");
}

#[test]
fn bash_reads_every_unified_script_as_the_corpus_says() {
    check_generation(Generation::Unified, "ci");
}

#[test]
fn bash_reads_every_current_script_as_the_corpus_says() {
    check_generation(Generation::Current, "current");
}

#[test]
fn bash_reads_every_classic_script_as_the_corpus_says() {
    check_generation(Generation::Classic, "rundisagg");
}

#[test]
fn exports_come_in_the_order_that_pipelines_know() {
    let Some(corpus) = root() else { return };
    let tree = Tree::new(&corpus);
    tree.install_all();
    let edges = tree.corpus_json("stage_edges.json");
    let id = edges["base_test"].as_str().unwrap();
    let prefix = tree.prefix("ci", id);
    let bash = Stage::new();
    for stage in edges["stages"].as_array().unwrap() {
        let name = stage["stage"].as_str().unwrap();
        let options = Options {
            test_id: Some(id.to_owned()),
            prefix_script: Some(prefix.to_str().unwrap().to_owned()),
            stage_name: Some(name.to_owned()),
            ..tree.options()
        };
        let plan = tree.plan(&options, &[]).unwrap();
        let script = derived(&tree, &plan, &prefix, true);
        let exports = names_of_exports(&script);
        let last = exports.iter().rposition(|export| *export == "stageName").unwrap();
        if !name.is_empty() {
            assert_eq!(last, 37, "{name}: {exports:?}");
        }
        assert_eq!(
            exports[8..24],
            [
                "partialPytestCommandWorker",
                "partialPytestCommandDisaggServer",
                "partialPytestCommandBenchmark",
                "PYTEST_COMMON_VARS",
                "CTX_WORKER_ENV_VARS",
                "GEN_WORKER_ENV_VARS",
                "SERVER_ENV_VARS",
                "BENCHMARK_ENV_VARS",
                "pytestCommandCTXWorker",
                "pytestCommandGENWorker",
                "pytestCommandDisaggServer",
                "pytestCommandBenchmark",
                "runScript",
                "installScript",
                "configYamlPath",
                "numCtxServers",
            ]
        );
        let (values, _) = bash.source(&script, &["stageName"], &[]);
        assert_eq!(values[0], if name.is_empty() { id } else { name });
        // Where the scripts' own text is valid, it is ours, blanks aside.
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for (variable, theirs) in stage["expanded_changed"].as_object().unwrap() {
            let theirs = theirs.as_str().unwrap();
            if theirs == "<unset>" {
                continue;
            }
            let (values, _) = bash.source(&script, &[variable], &[]);
            assert_eq!(squeezed(&values[0]), squeezed(theirs), "{name} {variable}");
        }
    }
}

/// A source tree with one configuration, for tests without the corpus.
fn small_tree() -> (tempfile::TempDir, Options) {
    let directory = tempfile::tempdir().unwrap();
    let configs = directory.path().join("src/tests/scripts/perf-sanity/disaggregated");
    fs::create_dir_all(&configs).unwrap();
    fs::write(
        configs.join("c.yaml"),
        "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 2}\n\
         worker_config: {gen: {tensor_parallel_size: 8}, ctx: {tensor_parallel_size: 2}}\n\
         environment:\n  worker_env_var: A='x y' B=$HOME/b\n  gen_worker_env_var: \"C='\\\"'\"\n",
    )
    .unwrap();
    fs::write(directory.path().join("site.yaml"), "models_dir: /m\n").unwrap();
    let text = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let options = Options {
        test_id: Some("disagg-gen_only-c".to_owned()),
        trtllm_dir: Some(text("src")),
        workspace: Some(text("w")),
        site: Some(directory.path().join("site.yaml")),
        ..Options::default()
    };
    (directory, options)
}

#[test]
fn prechecks_find_the_source_tree_where_the_nodes_of_the_pipeline_see_it() {
    let (directory, options) = small_tree();
    let prefix = directory.path().join("prefix.sh");
    let script = "export llmSrcNode=/node/src/\n\
                  export pytestCommand='trtllm-llmapi-launch pytest --output-dir=/w'\n";
    fs::write(&prefix, script).unwrap();
    let options = Options {
        test_id: Some("disagg-e2e-c".into()),
        prefix_script: Some(prefix.to_str().unwrap().to_owned()),
        ..options
    };
    let plan = plan_in(directory.path(), &options).unwrap();
    let argv = plan.roles["CTX_PRECHECK"].words().collect::<Vec<_>>().join(" ");
    assert_eq!(
        argv,
        "python3 /node/src/tests/scripts/perf-sanity/cache_transceiver_precheck/run_precheck.py \
         --config /node/src/tests/scripts/perf-sanity/disaggregated/c.yaml \
         --work-dir /w/disagg-e2e-c/cache_transceiver_precheck --benchmark-mode e2e \
         --llm-src /node/src --role ctx"
    );
    let parts = Parts { prefix: script, srun_args: "", draft: "", gate: Some("") };
    let script = derive::launch_script(&plan, &parts);
    let run_script = "/node/src/jenkins/scripts/perf/disaggregated/slurm_precheck_run.sh";
    assert!(script.contains(&format!("precheckRunScript=\"{run_script}\"")), "{script}");
    // The launch script's own variables name files of the machine that derives it.
    let tree = directory.path().join("src").display().to_string();
    assert!(script.contains(&format!("configYamlPath=\"{tree}/")), "{script}");
}

fn plan_in(directory: &Path, options: &Options) -> Result<Plan, disagg::diagnostic::Diagnostics> {
    let context = disagg::input::Context { env: &|_| None, current_dir: directory.to_owned() };
    disagg::input::request::plan(options, &context).map(|(plan, _)| plan)
}

#[test]
fn the_functions_of_the_precheck_start_every_server_s_check_and_report_the_failed_ones() {
    let (directory, options) = small_tree();
    let options = Options { test_id: Some("disagg-e2e-c".into()), ..options };
    let plan = plan_in(directory.path(), &options).unwrap();
    let bin = directory.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = |name: &str, text: &str| {
        fs::write(bin.join(name), format!("#!/bin/bash\n{text}")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("scontrol", "printf 'n%s\\n' 0 1 2 3 4\n");
    program(
        "srun",
        &format!(
            "for a in \"$@\"; do case $a in --nodelist=*) hosts=$a;; esac; done\n\
             echo \"$DISAGG_SERVING_TYPE $hosts\" >> {}\n\
             [[ $DISAGG_SERVING_TYPE != GEN_PRECHECK_1 ]]\n",
            directory.path().join("ran").display()
        ),
    );
    let parts = Parts {
        prefix: "set -xEeuo pipefail\n",
        srun_args: "",
        draft: "run_cache_transceiver_precheck\necho servers start\n",
        gate: None,
    };
    let script = derive::launch_script(&plan, &parts);
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
        .env("SLURM_JOB_NODELIST", "n[0-4]")
        .env("jobWorkspace", directory.path().join("job"))
        .env("stageName", "a \"stage\" <&>")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("servers start"));
    let ran = fs::read_to_string(directory.path().join("ran")).unwrap();
    let mut ran: Vec<_> = ran.lines().collect();
    ran.sort_unstable();
    assert_eq!(
        ran,
        [
            "CTX_PRECHECK_0 --nodelist=n4",
            "GEN_PRECHECK_0 --nodelist=n0,n1",
            "GEN_PRECHECK_1 --nodelist=n2,n3"
        ]
    );
    let report = fs::read_to_string(directory.path().join("job/results-ct-precheck.xml")).unwrap();
    assert!(report.contains("name=\"a &quot;stage&quot; &lt;&amp;>\""), "{report}");
    assert!(report.contains("message=\"GEN_PRECHECK_1 ended with status 1\""), "{report}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn a_derived_script_runs_what_the_plan_says_for_any_prefix(
        values in proptest::collection::vec("([ -~\u{e9}]|\\$AB|\\$\\{C\\}){0,8}", 1..5),
        words in proptest::collection::vec("(-k|--tb|-q|--csv|--cov-report|--periodic-junit)?[ -~]{0,8}", 0..6),
        single: bool,
        launcher in "(/d/trtllm-llmapi-launch |)",
    ) {
        let (directory, options) = small_tree();
        let own = values.iter().enumerate().map(|(index, value)| format!("W{index}={}", quote::word(value)));
        let own = serde_json::to_string(&own.collect::<Vec<_>>().join(" ")).unwrap();
        let config = directory.path().join("src/tests/scripts/perf-sanity/disaggregated/c.yaml");
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("A='x y' B=$HOME/b", &own)).unwrap();
        let mut command = String::new();
        for (index, value) in values.iter().enumerate() {
            command.push_str(&format!("V{index}={} ", quote::word(value)));
        }
        let launcher = launcher.replace("/d", directory.path().to_str().unwrap());
        command.push_str(&format!("{launcher}pytest --output-dir=/o {}", quote::words(words.iter().map(String::as_str))));
        let quoted = if single { quote::word(&command).into_owned() } else { quote::double(&command) };
        let prefix = format!("export pytestCommand={quoted}\n");
        let script = directory.path().join("prefix.sh");
        fs::write(&script, &prefix).unwrap();
        let options = Options { prefix_script: Some(script.to_str().unwrap().into()), ..options };
        let plan = match plan_in(directory.path(), &options) {
            Ok(plan) => plan,
            Err(errors) => {
                let text = errors.to_string();
                proptest::prop_assert!(text.contains("not known whether"), "{}", text);
                return Ok(());
            }
        };
        let stage = Stage::new();
        stage.program(&directory.path().join("trtllm-llmapi-launch"));
        let parts = Parts { prefix: &prefix, srun_args: "", draft: "", gate: Some("") };
        let text = derive::launch_script(&plan, &parts);
        let kinds = ["GEN", "CTX", "DISAGG_SERVER", "BENCHMARK"];
        let commands = kinds.map(|kind| command_of(Generation::Unified, kind));
        let (_, ran) = stage.source(&text, &[], &commands);
        for (index, value) in values.iter().enumerate() {
            let set = plan.suite.as_ref().unwrap().base_command.env.get(&format!("V{index}")).unwrap();
            proptest::prop_assert_eq!(&set.expand(|_| None).unwrap(), value);
        }
        let options = plan.suite.as_ref().unwrap().base_command.argv.iter().map(|word| word.value.as_str()).skip(2);
        proptest::prop_assert_eq!(options.collect::<Vec<_>>(), words);
        for (kind, ran) in kinds.into_iter().zip(ran) {
            let role = &plan.roles[kind];
            if kind == "GEN" {
                for (index, value) in values.iter().enumerate() {
                    let set = role.env.get(&format!("W{index}")).unwrap();
                    proptest::prop_assert_eq!(&set.expand(|_| None).unwrap(), value);
                }
            }
            let argv = role.words().collect();
            let unset: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
            let environment = role.environment().unwrap();
            let set: Vec<_> = environment.iter().map(|(n, v)| (n, v.value.expand(in_step).unwrap())).collect();
            let expected = expected(argv, &unset, &set, &HashMap::new(), &stage);
            proptest::prop_assert_eq!(ran, expected);
        }
    }
}
