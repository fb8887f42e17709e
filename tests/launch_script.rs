// SPDX-License-Identifier: Apache-2.0
//! The generated launch script, run by bash with stand-ins for Slurm's commands: whatever strings
//! a configuration, the site or the command line hold, every step gets exactly the planned
//! environment and command, and nothing of them is run by a shell.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disagg::plan::step::Variable;
use disagg::plan::{Plan, resolve};

/// Text that a shell would make something of wherever it is not quoted.
const NASTY: &str =
    r#"a b'c"d$(touch PWNED)`touch PWNED`${HOME}$HOME;touch PWNED&|<>*?[x]{y..z}~!#\e"#;

/// A source tree, a workspace's place and Slurm's commands, all with nasty names.
struct Tree {
    root: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.source().join("tests/integration/defs")).unwrap();
        fs::create_dir(tree.path("notes")).unwrap();
        tree.script("notes/../bin/srun", SRUN);
        tree.script("bin/pytest", PYTEST);
        tree.script("bin/scontrol", "#!/bin/bash\nprintf 'n%s\\n' {1..64}\n");
        tree.script("bin/scancel", "#!/bin/bash\nkill $(cat \"$NOTES\"/*.pid)\n");
        let launcher = tree.source().join("tensorrt_llm/llmapi/trtllm-llmapi-launch");
        tree.script(&launcher.to_string_lossy(), "#!/bin/bash\nexec \"$@\"\n");
        let fifo = Command::new("mkfifo").arg(tree.path("notes/started")).status().unwrap();
        assert!(fifo.success());
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

    fn script(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn submit(&self, config: &str, arguments: &[&str]) -> Output {
        let file = self.path(&format!("C {NASTY}.yaml"));
        fs::write(&file, config).unwrap();
        Command::new(env!("CARGO_BIN_EXE_slurm-disagg"))
            .args(["submit", "--dry-run", "--config-file"])
            .arg(&file)
            .arg("--trtllm-dir")
            .arg(self.source())
            .arg("--workspace")
            .arg(self.workspace())
            .args(arguments)
            .env_clear()
            .env("CLUSTER_LLM_DATA", format!("/M {NASTY}"))
            .env("CLUSTER_ACCOUNT", NASTY)
            .env("CLUSTER_PARTITION", NASTY)
            .env("PERF_TEST_MODULE", format!("module {NASTY}.py"))
            .env("PERF_TEST_FUNCTION", format!("function {NASTY}"))
            .env("PERF_TEST_PREFIX", format!("prefix {NASTY}"))
            .current_dir(self.root.path())
            .output()
            .unwrap()
    }

    fn plan(&self) -> Plan {
        Plan::from_json(&fs::read_to_string(self.workspace().join("plan.json")).unwrap()).unwrap()
    }

    /// Runs the launch script as a job of 64 nodes.
    fn launch(&self, plan: &Plan) -> Output {
        Command::new("bash")
            .arg(self.workspace().join("slurm_launch_generated.sh"))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", self.path("bin").display()))
            .env("HOME", "/home of the step")
            .env("UCX_TLS", "to be unset")
            .env("SLURM_JOB_ID", "7")
            .env("SLURM_JOB_NODELIST", "n[1-64]")
            .env("SLURM_LOCALID", "3")
            .env("NOTES", self.path("notes"))
            .env("SERVERS", (plan.instances().count() - 1).to_string())
            .current_dir(self.root.path())
            .output()
            .unwrap()
    }

    /// The NUL-ended texts that a step noted.
    fn notes(&self, instance: &str, what: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path(&format!("notes/{instance}.{what}"))).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    fn assert_nothing_was_run(&self) {
        let find = Command::new("find").arg(self.root.path()).args(["-name", "PWNED*"]).output();
        assert_eq!(String::from_utf8_lossy(&find.unwrap().stdout), "");
    }
}

/// Notes its arguments and goes on with the command, which starts with `env` or `bash`.
const SRUN: &str = r#"#!/bin/bash
printf '%s\0' "$@" >"$NOTES/$DISAGG_SERVING_TYPE.srun"
while [[ "$1" != env && "$1" != bash && "$1" != sh ]]; do shift; done
SLURM_LOCALID=3 exec "$@"
"#;

/// Notes what it was given. A server then runs until it is ended; the benchmark ends when all
/// servers have started.
const PYTEST: &str = r#"#!/bin/bash
note="$NOTES/$DISAGG_SERVING_TYPE"
printf '%s\0' "$@" >"$note.argv"
env -0 >"$note.env"
printf '%s\0' "$PWD" >"$note.cwd"
exec 3<>"$NOTES/started"
if [[ "$DISAGG_SERVING_TYPE" == BENCHMARK ]]; then
    for (( i = 0; i < SERVERS; i++ )); do read -r _ <&3; done
    exit "${BENCHMARK_STATUS:-0}"
fi
echo "$$" >"$note.pid"
echo "$DISAGG_SERVING_TYPE" >&3
exec sleep 1000
"#;

/// The environment that a step noted, without what the test itself set.
fn environment(tree: &Tree, instance: &str) -> BTreeMap<String, String> {
    let pairs = tree.notes(instance, "env");
    pairs
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(n, v)| (n.into(), v.into()))
        .collect()
}

fn config(worker_env: &str) -> String {
    format!(
        "hardware: {{gpus_per_node: 4, num_ctx_servers: 2, num_gen_servers: 1}}\n\
         environment:\n  worker_env_var: {worker_env}\n  benchmark_env_var: \"B=$HOME/x\"\n\
         worker_config:\n  gen: {{tensor_parallel_size: 6}}\n  ctx: {{tensor_parallel_size: 2}}\n"
    )
}

/// `NASTY` as a shell word inside a YAML single-quoted scalar.
fn nasty_assignment() -> String {
    let word =
        format!("NASTY='{}' CACHE=/tmp/c_${{SLURM_LOCALID}}_$UNSET", NASTY.replace('\'', r"'\''"));
    format!("'{}'", word.replace('\'', "''"))
}

fn assert_every_step_got_its_plan(tree: &Tree, plan: &Plan) {
    let outer: BTreeMap<_, _> =
        [("HOME", "/home of the step"), ("SLURM_LOCALID", "3")].into_iter().collect();
    for instance in plan.instances() {
        let name = instance.name.to_string();
        let (environment, argv) = (environment(tree, &name), tree.notes(&name, "argv"));
        let spec = resolve(&instance);
        let planned: Vec<_> = spec.arguments().map(Cow::into_owned).collect();
        let after_pytest = planned.iter().position(|word| word == "pytest").unwrap() + 1;
        assert_eq!(argv, planned[after_pytest..], "{name}");
        for Variable { name: variable, value, .. } in &spec.set {
            let expected = value.expand(|name| outer.get(name).copied()).unwrap();
            assert_eq!(environment.get(*variable), Some(&expected), "{name}: {variable}");
        }
        for unset in &instance.role.unset {
            assert!(!environment.contains_key(&unset.value), "{name}: {}", unset.value);
        }
    }
}

#[test]
fn nasty_strings_reach_every_step_as_they_are_and_run_nothing() {
    let tree = Tree::new();
    let written = tree.submit(&config(&nasty_assignment()), &["--placement", "packed"]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let plan = tree.plan();
    let ended = tree.launch(&plan);
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(0), "{log}");
    assert_every_step_got_its_plan(&tree, &plan);
    for instance in plan.instances() {
        let cwd = tree.notes(&instance.name.to_string(), "cwd");
        assert_eq!(Path::new(&cwd[0]), tree.source().join("tests/integration/defs"));
    }
    tree.assert_nothing_was_run();
}

#[test]
fn a_run_script_gets_the_role_s_command_to_evaluate() {
    let tree = Tree::new();
    // What the existing run script does, in short.
    tree.script("run.sh", "cd \"$llmSrcNode\"/tests/integration/defs; eval \"$pytestCommand\"\n");
    let written = tree.submit(&config(&nasty_assignment()), &["--run-sh", "run.sh"]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let plan = tree.plan();
    let ended = tree.launch(&plan);
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_every_step_got_its_plan(&tree, &plan);
    tree.assert_nothing_was_run();
}

#[test]
fn steps_are_sized_and_pinned_as_planned_and_share_nodes_only_where_packed() {
    let tree = Tree::new();
    assert!(tree.submit(&config("A=1"), &["--placement", "packed"]).status.success());
    assert_eq!(tree.launch(&tree.plan()).status.code(), Some(0));
    let has =
        |instance: &str, option: &str| tree.notes(instance, "srun").iter().any(|o| o == option);
    // GEN_0 spans n1 and half of n2; both CTX are smaller than a node and share n3.
    for option in
        ["--nodes=2", "--ntasks=6", "--nodelist=n1,n2", "--distribution=plane=4", "--mpi=pmix"]
    {
        assert!(has("GEN_0", option), "{option}");
    }
    assert!(!has("GEN_0", "--overlap") && has("CTX_1", "--overlap"));
    assert!(has("CTX_1", "--nodelist=n3") && has("BENCHMARK", "--nodelist=n1"));
    assert!(!tree.notes("BENCHMARK", "srun").iter().any(|option| option.starts_with("--mpi")));
    let gpus = |instance| environment(&tree, instance).get("CUDA_VISIBLE_DEVICES").cloned();
    assert_eq!(gpus("CTX_0").as_deref(), Some("0,1"));
    assert_eq!(gpus("CTX_1").as_deref(), Some("2,3"));
    assert_eq!(gpus("GEN_0"), None);
}

#[test]
fn a_secret_is_in_no_log_and_no_argument() {
    let tree = Tree::new();
    fs::write(tree.path("site.yaml"), "secrets: [LOGIN]\n").unwrap();
    let env = "HF_TOKEN=hf_geheim HUGGING_FACE_HUB_TOKEN=$HF_TOKEN LOGIN=hf_geheim URL=u:$LOGIN@h";
    let written = tree.submit(&config(env), &["--site", "site.yaml"]);
    assert!(written.status.success());
    let plan = tree.plan();
    let ended = tree.launch(&plan);
    assert_eq!(ended.status.code(), Some(0));
    let environment = environment(&tree, "GEN_0");
    assert_eq!(environment["HUGGING_FACE_HUB_TOKEN"], "hf_geheim");
    assert_eq!(environment["URL"], "u:hf_geheim@h");
    let shown = [ended.stdout, ended.stderr, written.stdout, written.stderr].concat();
    assert!(!String::from_utf8_lossy(&shown).contains("hf_geheim"));
    assert!(!tree.notes("GEN_0", "srun").concat().contains("hf_geheim"));
    for entry in fs::read_dir(tree.workspace()).unwrap() {
        let entry = entry.unwrap();
        let open = entry.metadata().unwrap().permissions().mode() & 0o077 != 0;
        if open && entry.file_type().unwrap().is_file() {
            let text = fs::read(entry.path()).unwrap();
            assert!(!String::from_utf8_lossy(&text).contains("hf_geheim"), "{entry:?}");
        }
    }
}

#[test]
fn a_failed_command_is_named_with_its_file_line_and_status() {
    let tree = Tree::new();
    assert!(tree.submit(&config("A=1"), &["--install-sh", "install.sh"]).status.success());
    tree.script("install.sh", "exit 9\n");
    let ended = tree.launch(&tree.plan());
    assert_eq!(ended.status.code(), Some(9));
    let log = String::from_utf8_lossy(&ended.stderr).into_owned();
    let line = log.lines().find(|line| !line.starts_with("+") && line.contains(": error: `srun"));
    let line = line.unwrap_or(&log);
    assert!(line.contains("slurm_launch_generated.sh:") && line.ends_with("status 9"), "{log}");
}

#[test]
fn the_scripts_pass_shellcheck() {
    let tree = Tree::new();
    // What the steps run must be in the container.
    let [run, install] = ["r.sh", "i.sh"].map(|name| tree.source().join(name));
    let [run, install] = [run, install].map(|path| path.to_str().unwrap().to_owned());
    let arguments = ["--container-image", "i", "--run-sh", &run, "--install-sh", &install];
    // That text in single quotes is not expanded (an info) is the point where the text is nasty.
    for (env, severity) in [(nasty_assignment(), "warning"), ("'A=$HOME'".into(), "warning")] {
        assert!(tree.submit(&config(&env), &arguments).status.success());
        for script in ["slurm_launch_prefix.sh", "slurm_launch_generated.sh"] {
            let path = tree.workspace().join(script);
            let checked = Command::new("shellcheck").args(["-S", severity]).arg(&path).output();
            let checked = checked.expect("shellcheck is installed");
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
            assert!(Command::new("bash").arg("-n").arg(&path).status().unwrap().success());
        }
    }
}

#[test]
fn no_server_starts_unless_every_precheck_has_passed() {
    for (status, last) in [(0, Some(0)), (3, Some(1))] {
        let tree = Tree::new();
        let script = format!(
            "#!/bin/bash\nprintf '%s\\0' \"$@\" >\"$NOTES/$DISAGG_SERVING_TYPE.precheck\"\nexit {status}\n"
        );
        tree.script("bin/python3", &script);
        let id = format!("disagg-e2e-C {NASTY}");
        assert!(tree.submit(&config("A=1"), &["--test-id", &id]).status.success());
        let plan = tree.plan();
        let ended = tree.launch(&plan);
        assert_eq!(ended.status.code(), last, "{}", String::from_utf8_lossy(&ended.stderr));
        assert!(tree.path("notes/GEN_PRECHECK_0.precheck").exists());
        assert_eq!(tree.path("notes/GEN_0.argv").exists(), status == 0);
        let report = plan.variables.get("testOutputDir").unwrap();
        let report = fs::read_to_string(Path::new(report).join("results-precheck.xml"));
        assert_eq!(report.is_ok(), status != 0);
        if let Ok(report) = report {
            assert!(
                report.contains("_PRECHECK_") && report.contains("ended with status 3"),
                "{report}"
            );
        }
        if status == 0 {
            assert_eq!(tree.notes("CTX_PRECHECK_1", "precheck").last().unwrap(), "ctx");
            assert_every_step_got_its_plan(&tree, &plan);
        }
        tree.assert_nothing_was_run();
    }
}
