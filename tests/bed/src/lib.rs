// SPDX-License-Identifier: Apache-2.0
//! Real Slurm clusters for tests, as values: [`Cluster::start`] brings one up, dropping it takes it
//! down. The script `slurm-bed` beside this crate does the work; this is its face in Rust.
//!
//! It is for tests, so whatever cannot be done panics with what a person needs to know.
//!
//! With `SLURM_BED_KEEP=1` in the environment a cluster outlives its test, to be looked at with
//! `tests/bed/slurm-bed run DIR bash`.

mod common;
mod container;
mod installation;
mod job;
mod options;
mod site;

pub use common::{
    Output, Servers, config, config_with, contains, executable, public_directory, sorted,
    variables, wait_for,
};
pub use container::Containers;
pub use installation::Slurm;
pub use job::Job;
pub use options::Options;
pub use site::{Site, plugstack_line};

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// The user without privileges that exists in every cluster.
pub const TEST_USER: &str = "disagg-test";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/slurm-bed");
const POLL: Duration = Duration::from_millis(50);

/// A running cluster, with all nodes idle when it is handed out.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    keep: bool,
}

/// A process inside a cluster: a daemon, a step, a task or what one of them left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, the same inside and outside the cluster.
    pub pid: u32,
    /// The user it runs as.
    pub user: String,
    /// Its command line, arguments separated by blanks.
    pub command: String,
}

impl Cluster {
    /// Starts a cluster and waits until all its nodes are idle.
    ///
    /// The cluster ends with this process at the latest, even when the process is killed.
    ///
    /// # Panics
    /// When it does not come up; the message has what the daemons logged.
    #[must_use]
    pub fn start(options: &Options) -> Self {
        let keep = std::env::var_os("SLURM_BED_KEEP").is_some();
        let dir = new_directory();
        let cluster = Self { dir, keep };
        let etc = cluster.dir.join("etc");
        std::fs::create_dir(&etc).expect("a new directory can be written");
        for (name, text) in &options.etc_files {
            std::fs::write(etc.join(name), text).expect("a new directory can be written");
        }
        let mut up = Command::new(SCRIPT);
        up.arg("up").arg(&cluster.dir).args(&options.arguments);
        if !keep {
            up.arg("--until-pid").arg(std::process::id().to_string());
        }
        let output = Output::of(&mut up);
        assert!(output.code == Some(0), "the cluster does not start: {}", output.stderr);
        cluster
    }

    /// The cluster's directory; `etc`, `log` and `work` (writable by everybody) are below it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory that every user of the cluster can write to.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// What a daemon logged so far, e.g. of `slurmctld` or `slurmd.node1`; empty when it has no log.
    #[must_use]
    pub fn log(&self, daemon: &str) -> String {
        let path = self.dir.join(format!("log/{daemon}.log"));
        std::fs::read(path)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// A command on the login host, as root; arguments, environment and pipes are the caller's to add.
    /// The working directory is [`Cluster::work`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.prepare(&[], program.as_ref())
    }

    /// A command on the login host, as `user`, e.g. [`TEST_USER`].
    pub fn command_as(&self, user: &str, program: impl AsRef<OsStr>) -> Command {
        self.prepare(&["--user", user], program.as_ref())
    }

    /// A command on a login host that has no SPANK plugin.
    pub fn command_bare(&self, program: impl AsRef<OsStr>) -> Command {
        self.prepare(&["--bare"], program.as_ref())
    }

    fn prepare(&self, flags: &[&str], program: &OsStr) -> Command {
        let mut command = Command::new(SCRIPT);
        command.arg("run").args(flags).arg(&self.dir).arg(program);
        command.current_dir(self.work()).stdin(Stdio::null());
        // A test that is itself run inside a Slurm job is not a part of it.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"SLURM_") {
                command.env_remove(name);
            }
        }
        command
    }

    /// Runs an argument vector on the login host, as root, to its end.
    pub fn run<A: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = A>) -> Output {
        run(argv, |program| self.command(program))
    }

    /// Runs an argument vector on the login host, as `user`, to its end.
    pub fn run_as<A: AsRef<OsStr>>(&self, user: &str, argv: impl IntoIterator<Item = A>) -> Output {
        run(argv, |program| self.command_as(user, program))
    }

    /// Submits a job with the arguments of an `sbatch` command line, as [`TEST_USER`]; gives its id.
    ///
    /// # Panics
    /// When sbatch refuses it.
    pub fn submit<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> u32 {
        let mut sbatch = self.command_as(TEST_USER, "sbatch");
        let output = Output::of(sbatch.arg("--parsable").args(arguments));
        output.ok().trim().parse().expect("sbatch --parsable prints a job id")
    }

    /// What the controller knows of a job now.
    ///
    /// # Panics
    /// When there is no such job.
    #[must_use]
    pub fn job(&self, id: u32) -> Job {
        Job::parse(self.run(["scontrol", "--oneliner", "show", "job", &id.to_string()]).ok())
    }

    /// Waits until a job satisfies `condition`.
    ///
    /// # Panics
    /// When it does not within `limit`; the message has the job.
    pub fn wait_until(&self, id: u32, limit: Duration, condition: impl Fn(&Job) -> bool) -> Job {
        let found = || Some(self.job(id)).filter(&condition);
        wait_for(limit, found, || format!("job {id}: {:?}", self.job(id)))
    }

    /// Waits until a job has ended, in whatever way.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn wait_job(&self, id: u32, limit: Duration) -> Job {
        self.wait_until(id, limit, Job::has_ended)
    }

    /// Waits until every node is idle: no job, no step that is still being cleaned up.
    ///
    /// # Panics
    /// When one is not within `limit`; the message has all states.
    pub fn wait_idle(&self, limit: Duration) {
        let states = || self.run(["sinfo", "--noheader", "--Node", "--format=%N %T"]);
        let are_idle = |states: &Output| {
            states.code == Some(0) && states.stdout.lines().all(|line| line.ends_with(" idle"))
        };
        wait_for(limit, || are_idle(&states()).then_some(()), || format!("{:?}", states()));
    }

    /// Ends a daemon (`slurmctld`, `slurmdbd` or a node's name) by a signal and waits for its end.
    ///
    /// # Panics
    /// When it is not running, or outlives the signal by 30 s.
    pub fn stop(&self, daemon: &str, signal: &str) {
        Output::of(Command::new(SCRIPT).arg("stop").arg(&self.dir).args([daemon, signal])).ok();
    }

    /// Starts a daemon that [`Cluster::stop`] ended.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn restart(&self, daemon: &str) {
        Output::of(Command::new(SCRIPT).arg("start").arg(&self.dir).arg(daemon)).ok();
    }

    /// Every process that is in the cluster now.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let output = Output::of(Command::new(SCRIPT).arg("ps").arg(&self.dir));
        output.ok().lines().filter_map(Process::parse).collect()
    }

    /// The jobs, the steps and the processes as they are now: what a test says that has waited too
    /// long.
    #[must_use]
    pub fn evidence(&self) -> String {
        let jobs = self.run(["scontrol", "--oneliner", "show", "job"]).stdout;
        let steps = self.run(["squeue", "--steps"]).stdout;
        let processes = Output::of(Command::new(SCRIPT).arg("ps").arg(&self.dir)).stdout;
        format!("{jobs}{steps}{processes}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.keep {
            eprintln!("The cluster stays: {SCRIPT} run {} bash", self.dir.display());
            return;
        }
        if std::thread::panicking() {
            let log = self.log("slurmctld");
            let lines: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("The last lines of slurmctld.log:");
            lines.iter().rev().for_each(|line| eprintln!("  {line}"));
        }
        let down = Output::of(Command::new(SCRIPT).args(["down", "--rm"]).arg(&self.dir));
        if down.code != Some(0) {
            eprintln!("{}", down.stderr);
        }
    }
}

impl Process {
    fn parse(line: &str) -> Option<Self> {
        let mut rest = line.trim_start();
        let mut word = || {
            let (word, tail) = rest.split_once(' ')?;
            rest = tail.trim_start();
            Some(word)
        };
        let pid = word()?.parse().ok()?;
        let _parent = word()?;
        let user = word()?.to_owned();
        Some(Self { pid, user, command: rest.trim_end().to_owned() })
    }
}

/// What `make` built, e.g. `spank_disagg.so`: the very files that people install.
///
/// # Panics
/// When it is not there: only `make` builds it; `make test` does so first.
#[must_use]
pub fn built(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../build").join(name);
    path.canonicalize()
        .unwrap_or_else(|e| panic!("{}: {e}; run `make` before this test", path.display()))
}

fn run<A: AsRef<OsStr>>(
    argv: impl IntoIterator<Item = A>,
    command: impl Fn(A) -> Command,
) -> Output {
    let mut argv = argv.into_iter();
    let program = argv.next().expect("an argument vector starts with the program");
    Output::of(command(program).args(argv))
}

/// A new directory with a short name: Slurm and PMIx put sockets below it.
fn new_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!("/tmp/bed-{}-{number}", std::process::id()));
        match std::fs::create_dir(&dir) {
            Ok(()) => return dir,
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => panic!("{} cannot be made: {e}", dir.display()),
        }
    }
}
