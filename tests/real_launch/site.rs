// SPDX-License-Identifier: Apache-2.0
//! A cluster with the command and the stand-in test suite, and runs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use disagg::run::result::{Phase, RunResult, VerdictKind};
use serde_json::{Value, json};
use slurm_bed::{Cluster, Job, Options, Output, Process, Slurm, TEST_USER, executable, wait_for};

pub const A_MINUTE: Duration = Duration::from_secs(60);

/// A cluster with the command and the stand-in where every user can read them.
pub struct Site {
    pub cluster: Cluster,
}

/// One submission.
#[derive(Clone)]
pub struct Run<'a> {
    pub name: &'a str,
    pub config: &'a str,
    pub nodes: u32,
    pub plan: &'a [&'a str],
    pub sbatch: &'a [&'a str],
    pub launch: &'a str,
    /// Whether the plan says how the stand-in's servers are seen to be ready.
    pub ready: bool,
    pub env: &'a [(&'a str, &'a str)],
}

impl Default for Run<'_> {
    fn default() -> Self {
        Self {
            name: "run",
            config: "standin_3nodes",
            nodes: 3,
            plan: &[],
            sbatch: &[],
            launch: "",
            ready: false,
            env: &[],
        }
    }
}

impl Site {
    pub fn start(options: &Options) -> Self {
        let cluster = Cluster::start(options);
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let copy = |from: &Path, to: &str| {
            let mut copy = Command::new("cp");
            Output::of(copy.arg("-rL").arg(from).arg(cluster.work().join(to))).ok();
        };
        copy(&here.join("tests/standin"), "standin");
        copy(Path::new(env!("CARGO_BIN_EXE_slurm-disagg")), "slurm-disagg");
        Self { cluster }
    }

    pub fn path(&self) -> String {
        let work = self.cluster.work();
        let work = work.display();
        let slurm = Slurm::under_test().prefix;
        format!("{work}:{work}/standin/bin:{}/bin:/usr/local/bin:/usr/bin:/bin", slurm.display())
    }

    pub fn workspace(&self, name: &str) -> PathBuf {
        self.cluster.work().join(name)
    }

    /// A command of the test user's, with the command and the stand-in on its path.
    pub fn command(&self, program: &str, env: &[(&str, &str)]) -> Command {
        let mut command = self.cluster.command_as(TEST_USER, "env");
        command.arg(format!("PATH={}", self.path())).arg("CLUSTER_LLM_DATA=/tmp");
        command.args(env.iter().map(|(name, value)| format!("{name}={value}")));
        command.arg(program);
        command
    }

    /// Plans a run into its workspace.
    pub fn plan(&self, run: &Run<'_>) -> PathBuf {
        let workspace = self.workspace(run.name);
        let mut plan = self.command("slurm-disagg", &[]);
        plan.args(["submit", "--dry-run", run.config, "--trtllm-dir"]);
        plan.arg(self.cluster.work().join("standin/tree")).arg("--workspace").arg(&workspace);
        Output::of(plan.args(run.plan)).ok();
        if run.ready {
            self.edit_plan(run.name, |roles| {
                for role in ["GEN", "CTX", "DISAGG_SERVER"] {
                    roles[role]["ready"] = json!({"log": [": ready at "]});
                }
            });
        }
        workspace
    }

    /// Changes the roles of a plan in its workspace.
    pub fn edit_plan(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.workspace(name).join("plan.json");
        let mut plan: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut plan["roles"]);
        fs::write(&path, plan.to_string()).unwrap();
    }

    /// Plans a run and submits its launch; gives the job's id.
    pub fn submit(&self, run: &Run<'_>) -> u32 {
        let workspace = self.plan(run);
        let launch =
            format!("slurm-disagg launch --workspace {} {}", workspace.display(), run.launch);
        // As Slurm 25.05 and 25.11.0 start it.
        self.submit_script(run, &format!("exec env --block-signal=CHLD {launch}"))
    }

    pub fn submit_script(&self, run: &Run<'_>, script: &str) -> u32 {
        let mut sbatch = self.command("sbatch", run.env);
        sbatch.args(["--parsable", "--ntasks-per-node=4", "--gpus-per-node=4", "--time=5"]);
        sbatch.arg(format!("--nodes={}", run.nodes)).arg(format!("--ntasks={}", run.nodes * 4));
        sbatch.arg(format!("--output={}.out", self.workspace(run.name).display()));
        sbatch.args(run.sbatch).arg(format!("--wrap={script}"));
        Output::of(&mut sbatch).ok().trim().parse().unwrap()
    }

    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.workspace(name).with_extension("out")).unwrap_or_default()
    }

    /// The result as it is now; nothing while there is none.
    pub fn peek(&self, name: &str) -> Option<RunResult> {
        RunResult::read(&self.workspace(name)).ok()
    }

    /// Waits for the result to be as wanted.
    pub fn wait_for(&self, name: &str, wanted: impl Fn(&RunResult) -> bool) -> RunResult {
        let result = || self.peek(name).filter(&wanted);
        wait_for(A_MINUTE, result, || format!("{:#?}\n{}", self.peek(name), self.log(name)))
    }

    /// Waits for a job's end; gives it, and the result.
    pub fn ended(&self, id: u32, name: &str) -> (Job, RunResult) {
        let ended = || Some(self.cluster.job(id)).filter(Job::has_ended);
        let job = wait_for(2 * A_MINUTE, ended, || {
            let processes = self.processes_of(name);
            format!("{name}: {processes:#?}\n{:#?}\n{}", self.peek(name), self.log(name))
        });
        let result = self.peek(name).unwrap_or_else(|| panic!("no result: {}", self.log(name)));
        self.assert_no_process(name);
        (job, result)
    }

    pub fn passed(&self, id: u32, name: &str) -> RunResult {
        let (job, result) = self.ended(id, name);
        let log = self.log(name);
        assert_eq!(job.exit_code(), Some((0, 0)), "{name}: {log}");
        assert_eq!(result.verdict.kind, VerdictKind::Passed, "{name}: {log}");
        result
    }

    pub fn processes_of(&self, name: &str) -> Vec<Process> {
        let workspace = format!("{}/", self.workspace(name).display());
        let mut processes = self.cluster.processes();
        processes.retain(|process| process.command.contains(&workspace));
        processes
    }

    /// No process of a run is left on any node, nor anything that works for it.
    pub fn assert_no_process(&self, name: &str) {
        let is_gone = || self.processes_of(name).is_empty().then_some(());
        wait_for(Duration::from_secs(5), is_gone, || {
            format!("{name}: {:#?}\n{}", self.processes_of(name), self.log(name))
        });
    }

    /// A script in the working directory.
    pub fn script(&self, name: &str, text: &str) -> String {
        let path = self.cluster.work().join(name);
        executable(&path, text);
        path.display().to_string()
    }

    pub fn launcher(&self, name: &str) -> Process {
        let workspace = self.workspace(name).display().to_string();
        let is_launcher = |process: &Process| {
            process.command.starts_with("slurm-disagg launch")
                && process.command.contains(&workspace)
        };
        self.cluster.processes().into_iter().find(is_launcher).expect("the launch runs")
    }
}

pub fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

pub fn is_in_benchmark(result: &RunResult) -> bool {
    result.phase == Phase::Benchmark
}

/// Whether a run that is to be ended while it runs waits for its servers first: where slurmstepd may
/// hang in PMIx when it is killed while the ranks meet (25.05 to 26.05 with OpenPMIx 4.2).
pub fn waits_for_servers() -> bool {
    Slurm::under_test().release() >= (25, 5)
}

/// Makes a run last until something happens to it.
pub const SLOW: &[(&str, &str)] = &[("STANDIN_TOKEN_SECONDS", "10")];
