// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg launch` with stand-ins for Slurm's commands: whatever strings a plan holds, every
//! step gets exactly its environment and command; and who calls it wrongly is told what to do.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disagg::plan::step::Variable;
use disagg::plan::{Plan, resolve};
use disagg::run::result::{RunResult, VerdictKind};

/// Text that a shell would make something of wherever it is not quoted.
const NASTY: &str =
    r#"a b'c"d$(touch PWNED)`touch PWNED`${HOME}$HOME;touch PWNED&|<>*?[x]{y..z}~!#\e%j"#;

/// Notes its arguments up to the command, then says and does what a step with one task does. The
/// step's number is its process id, so that scancel finds it.
const SRUN: &str = r#"#!/bin/bash
words=("$@")
while [[ "$1" == -* ]]; do
    case "$1" in
    --job-name=*) name="${1#*=}" ;;
    --ntasks=*) tasks="${1#*=}" ;;
    --distribution=plane=* | --ntasks-per-node=*) each="${1##*=}" ;;
    --nodelist=*) hosts="${1#*=}" ;;
    esac
    shift
done
printf '%s\0' "${words[@]}" >"$NOTES/$name.srun"
tr '\0' '\n' <"/proc/$$/cmdline" >"$NOTES/$name.cmdline"
left=$tasks
for host in $(eval echo "$(sed 's/\[\(.*\)-\(.*\)\]/{\1..\2}/' <<< "$hosts")"); do
    here=$(( left < each ? left : each )); left=$(( left - here ))
    echo "srun: launching StepId=7.$$ on host $host, $here tasks: 0" >&2
done
echo "srun: Node n1, $tasks tasks started" >&2
export STEP_NAME="$name" STEP_OF="$NOTES"
ulimit -Sn >"$NOTES/$name.limit"
[ -z "$FLOOD" ] || yes "srun: $FLOOD" | head -c 3M >&2
# There is no container here.
[ "$name" != unpack ] || exit 0
SLURM_LOCALID=3 exec "$@"
"#;

const SCANCEL: &str = "#!/bin/bash\nfor step in \"${@:3}\"; do kill \"${step#*.}\"; done\n";

/// Notes its arguments, directory and environment; servers serve until SIGTERM.
const PYTEST: &str = r#"#!/bin/bash
printf '%s\0' "$@" >"$STEP_OF/$STEP_NAME.argv"
pwd >"$STEP_OF/$STEP_NAME.cwd"
env -0 >"$STEP_OF/$STEP_NAME.env"
[ "$STEP_NAME" != BENCHMARK ] || { until [ "$(ls "$STEP_OF"/*.env | wc -l)" = 4 ]; do :; done; exit 0; }
exec sleep 60
"#;

struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.source().join("tests/integration/defs")).unwrap();
        fs::create_dir(tree.path("notes")).unwrap();
        tree.script(&tree.path("bin/srun"), SRUN);
        tree.script(&tree.path("bin/scancel"), SCANCEL);
        tree.script(&tree.path("bin/pytest"), PYTEST);
        let launcher = tree.source().join("tensorrt_llm/llmapi/trtllm-llmapi-launch");
        tree.script(&launcher, "#!/bin/bash\nexec \"$@\"\n");
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn source(&self) -> PathBuf {
        self.path(&format!("D {NASTY}"))
    }

    fn workspace(&self) -> PathBuf {
        self.path(&format!("W {NASTY}"))
    }

    fn script(&self, path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"));
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()));
        command.env("NOTES", self.path("notes")).env("HOME", "/home of the step");
        command.current_dir(self.root.path());
        command
    }

    fn plan(&self, worker_env: &str, arguments: &[&str]) -> Plan {
        let config = self.path("config.yaml");
        let env = worker_env.replace('\'', "''");
        fs::write(
            &config,
            format!(
                "hardware: {{gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}}\n\
                 environment:\n  worker_env_var: '{env}'\n  benchmark_env_var: \"B=$HOME/x\"\n\
                 worker_config:\n  gen: {{tensor_parallel_size: 4}}\n  ctx: {{tensor_parallel_size: 2}}\n"
            ),
        )
        .unwrap();
        let mut plan = self.command();
        plan.args(["submit", "--dry-run", "--config-file", "config.yaml", "--trtllm-dir"]);
        plan.arg(self.source());
        plan.arg("--workspace").arg(self.workspace()).args(arguments);
        plan.env("CLUSTER_LLM_DATA", format!("/M {NASTY}"));
        let written = plan.output().unwrap();
        assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
        Plan::from_json(&fs::read_to_string(self.workspace().join("plan.json")).unwrap()).unwrap()
    }

    /// Launches in a job of two nodes.
    fn launch(&self) -> Output {
        self.in_job(self.command())
            .arg("launch")
            .arg("--workspace")
            .arg(self.workspace())
            .output()
            .unwrap()
    }

    /// Launches in a job of two nodes, from bash after these commands.
    fn launch_after(&self, commands: &str) -> Output {
        let mut bash = Command::new("bash");
        let launch = format!(
            "{commands}; exec {:?} launch --workspace \"$0\"",
            env!("CARGO_BIN_EXE_slurm-disagg")
        );
        bash.env_clear()
            .envs(self.command().get_envs().filter_map(|(name, value)| Some((name, value?))));
        bash.arg("-c").arg(launch).arg(self.workspace());
        self.in_job(bash).output().unwrap()
    }

    fn in_job(&self, mut command: Command) -> Command {
        command.env("SLURM_JOB_ID", "7").env("SLURM_JOB_NODELIST", "n[1-2]");
        command.env("SLURM_NTASKS", "8").env("UCX_TLS", "to be unset").env("SLURM_LOCALID", "3");
        command
    }

    fn notes(&self, instance: &str, what: &str) -> Vec<String> {
        let path = self.path(&format!("notes/{instance}.{what}"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    fn environment(&self, instance: &str) -> BTreeMap<String, String> {
        let pairs = self.notes(instance, "env");
        let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn assert_nothing_was_run(&self) {
        let mut directories = vec![self.root.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                assert_ne!(path.file_name().unwrap(), "PWNED");
                if path.is_dir() && !path.is_symlink() {
                    directories.push(path);
                }
            }
        }
    }
}

fn assert_passed(tree: &Tree, ended: &Output) {
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{log}");
    let result = RunResult::read(&tree.workspace()).unwrap();
    assert_eq!(result.verdict.kind, VerdictKind::Passed, "{log}");
}

fn assert_every_step_got_its_plan(tree: &Tree, plan: &Plan) {
    let outer: BTreeMap<_, _> =
        [("HOME", "/home of the step"), ("SLURM_LOCALID", "3")].into_iter().collect();
    for instance in plan.instances() {
        let name = instance.name.to_string();
        let environment = tree.environment(&name);
        let spec = resolve(&instance);
        let planned: Vec<_> = spec.arguments().map(Cow::into_owned).collect();
        let after_pytest = planned.iter().position(|word| word == "pytest").unwrap() + 1;
        assert_eq!(tree.notes(&name, "argv"), planned[after_pytest..], "{name}");
        for Variable { name: variable, value, .. } in &spec.set {
            let expected = value.expand(|name| outer.get(name).copied()).unwrap();
            assert_eq!(environment.get(*variable), Some(&expected), "{name}: {variable}");
        }
        for unset in &instance.role.unset {
            assert!(!environment.contains_key(&unset.value), "{name}: {}", unset.value);
        }
        assert!(!environment.contains_key("SLURM_NTASKS"), "the job's size is not the step's");
        let cwd = fs::read_to_string(tree.path(&format!("notes/{name}.cwd"))).unwrap();
        assert_eq!(Path::new(cwd.trim_end()), tree.source().join("tests/integration/defs"));
    }
}

fn nasty() -> String {
    format!("NASTY='{}' CACHE=/tmp/c_${{SLURM_LOCALID}}_$UNSET", NASTY.replace('\'', r"'\''"))
}

#[test]
fn nasty_strings_reach_every_step_as_they_are_and_run_nothing() {
    let tree = Tree::new();
    let plan = tree.plan(&nasty(), &[]);
    assert_passed(&tree, &tree.launch());
    assert_every_step_got_its_plan(&tree, &plan);
    tree.assert_nothing_was_run();
}

#[test]
fn a_run_script_gets_the_role_s_command_to_evaluate() {
    let tree = Tree::new();
    let script = "cd \"$llmSrcNode\"/tests/integration/defs; eval \"$pytestCommand\"\n";
    tree.script(&tree.path("run.sh"), script);
    let plan = tree.plan(&nasty(), &["--run-sh", "run.sh"]);
    assert_passed(&tree, &tree.launch());
    assert_every_step_got_its_plan(&tree, &plan);
    tree.assert_nothing_was_run();
}

#[test]
fn steps_are_sized_and_pinned_as_planned() {
    let tree = Tree::new();
    tree.plan("A=1", &["--container-image", "image"]);
    assert_passed(&tree, &tree.launch());
    let has = |instance: &str, option: &str| {
        let words = tree.notes(instance, "srun");
        assert!(words.iter().any(|word| word == option), "{instance}: {option}: {words:?}");
    };
    for option in
        ["--nodes=1", "--ntasks=4", "--nodelist=n1", "--distribution=plane=4", "--mpi=pmix"]
    {
        has("GEN_0", option);
    }
    has("CTX_0", "--nodelist=n2");
    has("BENCHMARK", "--overlap");
    has("BENCHMARK", "--kill-on-bad-exit=1");
    has("BENCHMARK", "--container-image=image");
    has("BENCHMARK", "--container-name=disagg_test_7_");
    let words = tree.notes("BENCHMARK", "srun");
    assert!(!words.iter().any(|word| word.starts_with("--mpi")), "{words:?}");
}

/// Whoever may read a file below a directory finds no secret in it.
fn assert_others_read_no_secret(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            assert_others_read_no_secret(&path);
        } else if metadata.permissions().mode() & 0o077 != 0 && path.is_file() {
            let text = fs::read(&path).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains("hf_geheim"), "{}", path.display());
        }
    }
}

#[test]
fn a_secret_is_in_no_log_and_no_argument() {
    let tree = Tree::new();
    fs::write(tree.path("site.yaml"), "secrets: [LOGIN]\n").unwrap();
    let env = "HF_TOKEN=hf_geheim HUGGING_FACE_HUB_TOKEN=$HF_TOKEN LOGIN=hf_geheim URL=u:$LOGIN@h";
    tree.plan(env, &["--site", "site.yaml"]);
    let ended = tree.launch_after("set -x");
    assert_passed(&tree, &ended);
    let environment = tree.environment("GEN_0");
    assert_eq!(environment["HUGGING_FACE_HUB_TOKEN"], "hf_geheim");
    assert_eq!(environment["URL"], "u:hf_geheim@h");
    let shown = [ended.stdout, ended.stderr].concat();
    assert!(!String::from_utf8_lossy(&shown).contains("hf_geheim"));
    assert!(!tree.notes("GEN_0", "cmdline").concat().contains("hf_geheim"));
    assert_others_read_no_secret(&tree.workspace());
}

#[test]
fn an_srun_that_floods_its_output_fills_no_disk() {
    let tree = Tree::new();
    tree.plan("A=1", &[]);
    assert_passed(&tree, &tree.launch_after("export FLOOD=noise"));
    let log = fs::read_to_string(tree.workspace().join("srun.log")).unwrap();
    // Four steps, each with 1 MiB.
    assert!(log.len() < 5 << 20, "{}", log.len());
    for name in ["GEN_0", "CTX_0", "DISAGG_SERVER", "BENCHMARK"] {
        let notice = format!("{name}: (srun wrote more than 1 MiB; the rest is dropped)");
        assert_eq!(log.lines().filter(|line| *line == notice).count(), 1, "{name}");
    }
}

#[test]
fn the_limit_of_open_files_is_raised_for_the_launch_and_not_for_its_steps() {
    let tree = Tree::new();
    tree.plan("A=1", &[]);
    // The launch alone needs more than 20.
    assert_passed(&tree, &tree.launch_after("ulimit -Sn 20"));
    let limit = fs::read_to_string(tree.path("notes/GEN_0.limit")).unwrap();
    assert_eq!(limit.trim(), "20");

    fs::remove_dir_all(tree.workspace().join("runs")).unwrap();
    let ended = tree.launch_after("ulimit -n 20");
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(2), "{log}");
    assert!(
        log.contains("4 steps need 36 open files, but the hard limit is 20: raise it"),
        "{log}"
    );
    assert!(!tree.workspace().join("runs").exists());
}

#[test]
fn a_second_launch_in_a_job_has_a_directory_of_its_own() {
    let tree = Tree::new();
    tree.plan("A=1", &[]);
    fs::write(tree.workspace().join("report.csv"), "from a run without the launch\n").unwrap();
    for id in ["7.0", "7.0-2"] {
        for note in fs::read_dir(tree.path("notes")).unwrap() {
            fs::remove_file(note.unwrap().path()).unwrap();
        }
        assert_passed(&tree, &tree.launch());
        assert_eq!(RunResult::read(&tree.workspace()).unwrap().run.id, id);
    }
    let first = RunResult::read(&tree.workspace().join("runs/7.0")).unwrap();
    assert_eq!(first.run.id, "7.0");
    let kept = fs::read_to_string(tree.workspace().join("runs/before-7.0/report.csv")).unwrap();
    assert_eq!(kept, "from a run without the launch\n");
}

#[test]
fn the_plan_may_come_from_the_job_s_environment() {
    let tree = Tree::new();
    let plan = tree.plan("A=1", &[]);
    fs::remove_dir_all(tree.workspace()).unwrap();
    let mut launch = tree.command();
    launch.arg("launch").env("SLURM_DISAGG_PLAN", plan.to_json().unwrap());
    launch.env("SLURM_JOB_ID", "7").env("SLURM_JOB_NODELIST", "n[1-2]");
    assert_passed(&tree, &launch.output().unwrap());
    assert!(tree.workspace().join("node_info.json").is_file(), "the plan's files are written");
}

#[test]
fn prechecks_come_before_any_server_and_a_failed_one_ends_the_run() {
    let tree = Tree::new();
    let precheck = "tests/scripts/perf-sanity/cache_transceiver_precheck/run_precheck.py";
    let arguments = ["--test-id", "disagg-e2e-config"];
    let plan = tree.plan("A=1", &arguments);
    assert_eq!(plan.checks().count(), 2);
    for (status, kind) in [(0, VerdictKind::Passed), (5, VerdictKind::PrecheckFailed)] {
        let text = format!("import sys\nsys.exit({status} if 'ctx' in sys.argv else 0)\n");
        tree.script(&tree.source().join(precheck), &text);
        for note in fs::read_dir(tree.path("notes")).unwrap() {
            fs::remove_file(note.unwrap().path()).unwrap();
        }
        let ended = tree.launch();
        let log = String::from_utf8_lossy(&ended.stderr);
        let result = RunResult::read(&tree.workspace()).unwrap();
        assert_eq!(result.verdict.kind, kind, "{log}");
        let xml = fs::read_to_string(tree.workspace().join("results.xml")).unwrap();
        let entry = r#"<testcase classname="slurm-disagg" name="CTX_PRECHECK_0">"#;
        assert!(xml.contains(entry), "{xml}");
        assert_eq!(xml.contains(&format!("{entry}<failure ")), status != 0, "{xml}");
        let servers = result.steps.iter().filter(|step| !step.name.contains("PRECHECK"));
        let starts: Vec<_> = servers.map(|step| step.started).collect();
        let checks_end = result.steps[..2].iter().map(|step| step.ended.unwrap()).max();
        match status {
            0 => assert!(starts.iter().all(|start| *start >= checks_end), "{result:#?}"),
            _ => assert!(starts.iter().all(Option::is_none), "{result:#?}"),
        }
    }
}

#[test]
fn who_calls_it_wrongly_is_told_what_to_do() {
    let tree = Tree::new();
    let said = |arguments: &[&str], env: &[(&str, &str)]| {
        let mut launch = tree.command();
        launch.arg("launch").args(arguments).envs(env.iter().copied());
        let ended = launch.output().unwrap();
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
        String::from_utf8_lossy(&ended.stderr).into_owned()
    };
    let workspace = tree.workspace().display().to_string();
    let here: &[&str] = &["--workspace", &workspace];
    assert!(said(&[], &[]).contains("no plan given: pass --workspace or --plan"));
    assert!(said(here, &[]).contains("plan.json is missing: write it with `slurm-disagg submit"));
    tree.plan("A=1", &[]);
    assert!(
        said(here, &[]).contains("SLURM_JOB_ID is not set: `slurm-disagg launch` runs in a job")
    );
    let small = [("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "n1")];
    assert!(said(here, &small).contains("the job has 1 node, the plan takes 2"));
    let late: &[&str] = &["--workspace", &workspace, "--limit", "ready=3"];
    assert!(said(late, &small).contains("add --ready"));
    let bad = [("SLURM_DISAGG_PLAN", "{}")];
    assert!(said(&[], &bad).contains("SLURM_DISAGG_PLAN: the plan cannot be read"));
    assert!(!tree.workspace().join("runs").exists());
}
