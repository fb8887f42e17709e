// SPDX-License-Identifier: Apache-2.0
//! A source tree, a workspace and stand-ins for Slurm's commands, all with awkward names: the steps
//! of a plan are started in them by the launch script and by `slurm-disagg launch`, and each rank
//! records its environment, arguments, directory and JUnit file.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]
#![allow(dead_code, reason = "each test file uses a part")]

pub mod recipe;
pub mod scenarios;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use disagg::plan::Plan;
use slurm_bed::{Output, executable, public_directory, variables};

/// Text that a shell would act on wherever it is not quoted.
pub const NASTY: &str =
    r#"a b'c"d$(touch PWNED)`touch PWNED`${HOME}$HOME;touch PWNED&|<>*?[x]{y..z}~!#\e%jüß"#;

pub const DISAGG: &str = env!("CARGO_BIN_EXE_slurm-disagg");

/// What existing run scripts do, in short: they trace what they run.
pub const RUN: &str = r#"exec 2>>"$NOTES/trace"; set -x; eval "$pytestCommand""#;

/// The environment of the job around each step.
pub const JOB: &[(&str, &str)] = &[
    ("HOME", "/home of the job"),
    ("SET", "a value"),
    ("EMPTY", ""),
    ("UCX_TLS", "to be unset"),
    ("CUDA_VISIBLE_DEVICES", "0,1,2,3"),
    ("OMPI_COMM_WORLD_RANK", "7"),
    ("MPI_LOCALRANKID", "7"),
    ("PMIX_RANK", "7"),
    ("SLURM_MPI_TYPE", "pmix"),
];

/// Runs the command once for each rank and reports that as srun does. `scancel` ends it by its
/// process id, which is also the number of the step; all processes of its ranks end with it.
const SRUN: &str = r#"#!/bin/bash
words=("$@")
while [[ "$1" == -* ]]; do
    case "$1" in
    --job-name=*) export STEP_NAME="${1#*=}" ;;
    --ntasks=*) tasks="${1#*=}" ;;
    --distribution=plane=* | --ntasks-per-node=*) per_node="${1##*=}" ;;
    --nodelist=*) hosts="${1#*=}" ;;
    esac
    shift
done
printf '%s\0' "${words[@]}" >"$NOTES/$STEP_NAME.srun"
tr '\0' '\n' <"/proc/$$/cmdline" >"$NOTES/$STEP_NAME.cmdline"
ulimit -Sn >"$NOTES/$STEP_NAME.limit"
# There is no container here.
[ "$STEP_NAME" != unpack ] || exit 0
left=$tasks
eval "names=($(sed 's/\[\(.*\)-\(.*\)\]/{\1..\2}/; s/,/ /g' <<<"$hosts"))"
for host in "${names[@]}"; do
    here=$(( left < per_node ? left : per_node )); left=$(( left - here ))
    echo "srun: launching StepId=7.$$ on host $host, $here tasks: 0" >&2
done
echo "srun: Node n1, $tasks tasks started" >&2
[ -z "${FLOOD-}" ] || yes "srun: $FLOOD" | head -c 3M >&2
unset FLOOD words
PATH="${PATH#*/stubs:}"
for (( rank = 0; rank < tasks; rank++ )); do
    node=$(( rank / per_node ))
    SLURM_PROCID=$rank SLURM_LOCALID=$(( rank % per_node )) SLURM_NODEID=$node \
        SLURMD_NODENAME="${names[node]-}" setsid "$@" &
done
echo $$ >"$NOTES/$STEP_NAME.pid"
trap 'kill -TERM -- $(jobs -p | sed s/^/-/)' TERM
status=0
for job in $(jobs -p); do wait "$job" || status=$?; done
rm "$NOTES/$STEP_NAME.pid"
exit $status
"#;

/// Ends steps (`JOB.STEP`) or all of a job.
const SCANCEL: &str = r#"#!/bin/bash
for target; do
    case "$target" in
    -*) ;;
    *.*) kill "${target#*.}" ;;
    *) kill $(cat "$NOTES"/*.pid) ;;
    esac
done
"#;

/// One rank: records what it has. JUnit files are found in its arguments as pytest finds them.
/// Servers run until they are stopped; the benchmark ends when all ranks have started.
const TASK: &str = r#"#!/bin/bash
STEP_NAME="${STEP_NAME:-${DISAGG_SERVING_TYPE-}}"
if [[ -z "$STEP_NAME" ]]; then
    STEP_NAME=$(squeue -h -s -j "$SLURM_JOB_ID" -o '%i %j' | sed -n "s/^$SLURM_JOB_ID.$SLURM_STEP_ID //p")
fi
note="$NOTES/$STEP_NAME.$SLURM_PROCID"
env -0 >"$note.env"
printf '%s\0' "${0##*/}" "$@" >"$note.argv"
while [ $# -gt 0 ]; do
    case "$1" in
    --junit-xml=* | --junitxml=*) junit="${1#*=}" ;;
    --junit-xml | --junitxml) junit="$2"; shift ;;
    esac
    shift
done
[ -z "${junit-}" ] || { echo "$STEP_NAME.$SLURM_PROCID" >>"$junit"; printf '%s' "$junit" >"$note.junit"; }
printf '%s' "$PWD" >"$note.new"
mv "$note.new" "$note.cwd"
case "$STEP_NAME" in
CTX_PRECHECK*) exit "${PRECHECK_STATUS:-0}" ;;
*PRECHECK*) exit 0 ;;
BENCHMARK)
    until [ "$(ls "$NOTES"/*.cwd | wc -l)" -ge "${RANKS:-0}" ]; do sleep 0.05; done
    exit "${BENCHMARK_STATUS:-0}"
    ;;
esac
[ -z "${RANKS-}" ] || exec sleep 60
"#;

/// What a rank recorded.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rank {
    pub env: BTreeMap<String, String>,
    pub argv: Vec<String>,
    pub cwd: String,
    pub junit: Option<String>,
}

/// Ranks by the name of their step and their number.
pub type Ranks = BTreeMap<(String, u32), Rank>;

pub struct Tree {
    directory: Option<tempfile::TempDir>,
    root: PathBuf,
}

impl Tree {
    pub fn new() -> Self {
        let directory = public_directory();
        let root = directory.path().to_owned();
        Self::at(root, Some(directory))
    }

    /// In a directory that somebody else deletes.
    pub fn below(root: PathBuf) -> Self {
        Self::at(root, None)
    }

    fn at(root: PathBuf, directory: Option<tempfile::TempDir>) -> Self {
        let tree = Self { directory, root };
        fs::create_dir_all(tree.source().join("tests/integration/defs")).unwrap();
        for (name, text) in [("srun", SRUN), ("scancel", SCANCEL)] {
            executable(&tree.path("stubs").join(name), text);
        }
        let hostnames = "#!/bin/bash\nprintf 'n%s\\n' {1..64}\n";
        executable(&tree.path("stubs/scontrol"), hostnames);
        for name in ["pytest", "python3"] {
            executable(&tree.path("bin").join(name), TASK);
        }
        let launcher = tree.source().join("tensorrt_llm/llmapi/trtllm-llmapi-launch");
        executable(&launcher, "#!/bin/bash\nexec \"$@\"\n");
        let run = format!("cd \"${{llmSrcNode:-/}}\"; {RUN}\n");
        executable(&tree.path("run.sh"), &run);
        tree.forget();
        tree
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path(&format!("D {NASTY}"))
    }

    pub fn workspace(&self) -> PathBuf {
        self.path(&format!("W {NASTY}"))
    }

    pub fn defs(&self) -> PathBuf {
        self.source().join("tests/integration/defs")
    }

    /// Writes the files of a submission: plan and launch script.
    pub fn submit(&self, config: &str, arguments: &[&str]) -> Output {
        let file = self.path(&format!("C {NASTY}.yaml"));
        fs::write(&file, config).unwrap();
        let mut submit = Command::new(DISAGG);
        // Neither the test nor the models are there, and the workspace has a `%`.
        submit
            .args(["submit", "--dry-run", "--no-preflight", "--force", "--config-file"])
            .arg(file);
        submit.arg("--trtllm-dir").arg(self.source()).arg("--workspace").arg(self.workspace());
        submit.args(arguments).env_clear().current_dir(&self.root);
        for name in [
            "CLUSTER_LLM_DATA",
            "CLUSTER_ACCOUNT",
            "CLUSTER_PARTITION",
            "PERF_TEST_MODULE",
            "PERF_TEST_FUNCTION",
            "PERF_TEST_PREFIX",
        ] {
            submit.env(name, format!("/{name} {NASTY}"));
        }
        Output::of(&mut submit)
    }

    pub fn plan(&self, config: &str, arguments: &[&str]) -> Plan {
        self.submit(config, arguments).ok();
        let _ = Command::new("chmod").args(["-R", "a+rwX"]).arg(self.workspace()).status();
        self.written_plan()
    }

    pub fn written_plan(&self) -> Plan {
        Plan::from_json(&fs::read_to_string(self.workspace().join("plan.json")).unwrap()).unwrap()
    }

    /// The environment of the job and of the stand-ins.
    pub fn environment(&self) -> Vec<(String, String)> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut environment: Vec<_> = JOB.iter().map(own).collect();
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        environment.push(("PATH".to_owned(), path));
        environment.push(("NOTES".to_owned(), self.path("notes").display().to_string()));
        environment
    }

    /// A command in a job of 64 nodes with the stand-ins, whose servers run until they are stopped.
    pub fn in_job(&self, program: &str) -> Command {
        let plan = self.written_plan();
        let ranks: u32 =
            plan.checks().chain(plan.instances()).map(|instance| instance.role.step.tasks).sum();
        let mut command = Command::new(program);
        command.env_clear().envs(self.environment()).current_dir(&self.root);
        let stubs = format!(
            "{}:{}:/usr/bin:/bin",
            self.path("stubs").display(),
            self.path("bin").display()
        );
        command.env("PATH", stubs).env("RANKS", ranks.to_string());
        command.env("SLURM_JOB_ID", "7").env("SLURM_JOB_NODELIST", "n[1-64]");
        command.env("SLURM_NTASKS", "8");
        command
    }

    /// Runs the generated launch script.
    pub fn launch_script(&self) -> Output {
        let script = self.workspace().join("slurm_launch_generated.sh");
        Output::of(self.in_job("bash").arg(script))
    }

    /// Runs `slurm-disagg launch`.
    pub fn launch(&self) -> Output {
        Output::of(self.in_job(DISAGG).arg("launch").arg("--workspace").arg(self.workspace()))
    }

    /// Deletes what ranks have recorded.
    pub fn forget(&self) {
        let notes = self.path("notes");
        let _ = fs::remove_dir_all(&notes);
        fs::create_dir_all(&notes).unwrap();
        let _ = Command::new("chmod").arg("a+rwx").arg(&notes).status();
        for entry in fs::read_dir(self.workspace()).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "xml") {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// The texts that `what` of a step or a rank (`GEN_0.3`) consists of.
    pub fn notes(&self, of: &str, what: &str) -> Vec<String> {
        let path = self.path(&format!("notes/{of}.{what}"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    /// The environment of the first rank of a step.
    pub fn first_rank(&self, step: &str) -> BTreeMap<String, String> {
        variables(&fs::read_to_string(self.path(&format!("notes/{step}.0.env"))).unwrap())
    }

    /// What all ranks recorded. A JUnit file must have been written by its own step alone.
    pub fn ranks(&self) -> Ranks {
        let mut ranks = Ranks::new();
        for entry in fs::read_dir(self.path("notes")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "cwd") {
                continue;
            }
            let read = |what| fs::read_to_string(path.with_extension(what));
            let (step, rank) = path.file_stem().unwrap().to_str().unwrap().split_once('.').unwrap();
            let junit = read("junit").ok();
            if let Some(file) = &junit {
                let writers = fs::read_to_string(file).unwrap();
                assert!(
                    writers.lines().all(|w| w.split('.').next() == Some(step)),
                    "{file}: {writers}"
                );
            }
            let argv = read("argv").unwrap().split_terminator('\0').map(str::to_owned).collect();
            let (env, cwd) = (variables(&read("env").unwrap()), read("cwd").unwrap());
            ranks.insert((step.to_owned(), rank.parse().unwrap()), Rank { env, argv, cwd, junit });
        }
        ranks
    }

    /// No text of a plan has been run by a shell, and no shell has printed a secret.
    pub fn assert_nothing_was_run_or_told(&self) {
        let trace = fs::read_to_string(self.path("notes/trace")).unwrap_or_default();
        assert!(!trace.contains("geheim"), "{trace}");
        let mut find = Command::new("find");
        let found = Output::of(find.arg(&self.root).args(["-name", "PWNED*"]));
        assert_eq!(found.checked(), "");
    }
}

/// How a path is written in YAML.
pub fn yaml(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "''"))
}
