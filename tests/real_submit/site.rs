// SPDX-License-Identifier: Apache-2.0
//! A cluster of its own for a test, and the command on it as an ordinary user runs it.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use disagg::run::interrupt::readable;
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use serde_json::Value;
use slurm_bed::{Cluster, Options, Output, Slurm, TEST_USER, built, executable, plugstack_line};

pub const DISAGG: &str = env!("CARGO_BIN_EXE_slurm-disagg");
pub const STANDIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/standin");
/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Settings under which the stand-in's benchmark runs until it is stopped.
pub const ENDLESS: &[&str] = &["STANDIN_TOKEN_SECONDS=60"];
/// Settings under which it runs for some seconds.
pub const SOME_SECONDS: &[&str] = &["STANDIN_TOKEN_SECONDS=0.5", "STANDIN_REQUESTS=4"];

/// A job's script: all roles of the plan, as docs/user.md has it. `$step` may hold options of srun.
pub const STEPS: &str = "for server in GEN_0 CTX_0 DISAGG_SERVER; do
        srun --disagg-role=$server $step bash -c 'eval \"$pytestCommand\"' &
    done
    srun --disagg-role=BENCHMARK $step bash -c 'eval \"$pytestCommand\"'
    status=$?
    scancel --quiet --signal=TERM $SLURM_JOB_ID
    wait
    exit $status";

/// A server whose ranks are killed while processes of theirs live on: one holds their output, and has
/// no environment, as those that set a title; another has only the environment.
pub const KILLED: &str = "#!/bin/bash
[ \"$DISAGG_SERVING_TYPE\" = CTX_0 ] || exec sleep 60
env -i sh -c 'trap \"\" TERM; while sleep 0.1; do :; done' outlives &
sh -c 'trap \"\" TERM; while sleep 0.1; do :; done' outlives >/dev/null 2>&1 &
sleep 1
kill -9 $$
";

/// A cluster, and commands on it as an ordinary user.
pub struct Site {
    pub cluster: Cluster,
}

impl Site {
    pub fn new() -> Self {
        Self::with(Options::nodes(3))
    }

    pub fn with(options: Options) -> Self {
        Self { cluster: Cluster::start(&options.mpi("pmix")) }
    }

    pub fn workspace(&self) -> PathBuf {
        self.cluster.work().join("w")
    }

    pub fn command(&self, settings: &[&str], arguments: &[&str]) -> Command {
        self.program(settings, &[&[DISAGG], arguments].concat())
    }

    /// A program with these words of `env` before it.
    pub fn program(&self, settings: &[&str], argv: &[&str]) -> Command {
        let mut command = self.cluster.command_as(TEST_USER, "env");
        let path = std::env::var("PATH").unwrap();
        let slurm = Slurm::under_test().prefix.join("bin");
        command.arg("CLUSTER_LLM_DATA=/tmp");
        command.arg(format!("PATH={STANDIN}/bin:{}:{path}", slurm.display()));
        command.args(settings).args(argv);
        command
    }

    pub fn run(&self, settings: &[&str], arguments: &[&str]) -> Output {
        Output::of(&mut self.command(settings, arguments))
    }

    /// `submit` of the test on three nodes.
    pub fn submit_command(&self, settings: &[&str], arguments: &[&str]) -> Command {
        self.submit_of("standin_3nodes", settings, arguments)
    }

    /// `submit` of another of the stand-in's tests.
    pub fn submit_of(&self, config: &str, settings: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.command(settings, &["submit"]);
        command.arg("--config-file").arg(format!("{STANDIN}/configs/{config}.yaml"));
        command.arg("--trtllm-dir").arg(format!("{STANDIN}/tree"));
        command.arg("--workspace").arg(self.workspace()).args(arguments);
        command
    }

    pub fn submit(&self, settings: &[&str], arguments: &[&str]) -> Output {
        Output::of(&mut self.submit_command(settings, arguments))
    }

    /// Submits without waiting; gives the job's id.
    pub fn submitted(&self, settings: &[&str]) -> u32 {
        self.submitted_by("--launcher=native", settings)
    }

    pub fn submitted_by(&self, launcher: &str, settings: &[&str]) -> u32 {
        let output = self.submit(settings, &["--no-wait", "--json", launcher]);
        output.ok();
        let id = json(&output)["jobs"][0]["job_id"].as_u64().unwrap();
        u32::try_from(id).unwrap()
    }

    /// The workspace of a plan that sbatch makes.
    pub fn workspace_of_sbatch(&self) -> PathBuf {
        self.cluster.work().join("disagg_standin_3nodes")
    }

    /// Submits a script to sbatch with the configuration of the test, and waits for its end. The
    /// output of its steps is added to standard error.
    pub fn sbatch(&self, shell: &[&str], options: &[&str], script: &str) -> Output {
        let config = format!("--disagg-config={STANDIN}/configs/standin_3nodes.yaml");
        let log = self.cluster.work().join("sbatch.log");
        let (output, script) = (format!("--output={}", log.display()), format!("--wrap={script}"));
        let own = ["sbatch", "--parsable", "--time=10", &output, &config];
        let argv = [&own, options, &[&script]].concat();
        let mut output = Output::of(&mut self.program(shell, &argv));
        if output.code == Some(0) {
            // `sbatch --wait` would look after 2, 10 and 42 seconds.
            let job = self.cluster.wait_job(output.stdout.trim().parse().unwrap(), LIMIT);
            output.code = job.exit_code().map(|(status, signal)| (status + signal) as i32);
        }
        output.stderr += &fs::read_to_string(log).unwrap_or_default();
        output
    }

    pub fn watch(&self, target: &str) -> Output {
        self.run(&[], &["watch", target])
    }

    pub fn has_forgotten(&self, job: u32) -> bool {
        self.cluster.run(["scontrol", "show", "job", &job.to_string()]).code != Some(0)
    }

    pub fn wait_until_it_runs(&self, job: u32) {
        self.cluster.wait_until(job, LIMIT, |job| job.state() == "RUNNING");
    }
}

/// A cluster with the plugins, in this directory. The SPANK plugin comes behind other lines.
pub fn with_plugins(plugins: &Path, options: Options) -> Options {
    for name in ["spank_disagg.so", "job_submit_disagg.so"] {
        fs::copy(built(name), plugins.join(name)).unwrap();
    }
    let settings = format!("trtllm_dir: {STANDIN}/tree\nmodels_dir: /tmp\n");
    fs::write(plugins.join("site.yaml"), settings).unwrap();
    options.plugin_dir(plugins).job_submit("disagg").spank(&plugstack_line("optional", plugins))
}

/// Waits until a condition holds.
pub fn wait_for(condition: impl Fn() -> bool) {
    slurm_bed::wait_for(
        LIMIT,
        || condition().then_some(()),
        || "the condition does not hold".into(),
    );
}

pub fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", output.stdout))
}

/// The output of a command, read as it comes; no wait is longer than [`LIMIT`].
pub struct Reader<'site, F> {
    site: &'site Site,
    file: F,
    text: String,
    /// How much of the text has been searched.
    searched: usize,
}

impl<'site, F: Read + AsFd> Reader<'site, F> {
    pub fn new(site: &'site Site, file: F) -> Self {
        Self { site, file, text: String::new(), searched: 0 }
    }

    /// Reads on until this text comes.
    pub fn until(&mut self, expected: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.text[self.searched..].find(expected) {
                self.searched += at + expected.len();
                return;
            }
            assert!(self.more(deadline), "it ended without {expected:?}: {}", self.text);
        }
    }

    /// Reads to the end; gives all of it.
    pub fn end(mut self) -> String {
        let deadline = Instant::now() + LIMIT;
        while self.more(deadline) {}
        self.text
    }

    /// Reads what is there; gives whether there may be more.
    fn more(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = readable(&[self.file.as_fd()], left).unwrap();
        let Self { site, text, .. } = self;
        assert!(!left.is_zero(), "after {LIMIT:?}: {text}\n{}", site.cluster.evidence());
        if ready == [false] {
            return true;
        }
        let mut buffer = [0; 4096];
        let length = match self.file.read(&mut buffer) {
            // The end of a terminal.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => 0,
            length => length.unwrap(),
        };
        self.text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        length > 0
    }
}

/// A command that runs, and its output so far.
pub struct Running<'site> {
    child: Child,
    stderr: Reader<'site, ChildStderr>,
}

impl<'site> Running<'site> {
    pub fn start(site: &'site Site, mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Reader::new(site, child.stderr.take().unwrap());
        Self { child, stderr }
    }

    /// Reads standard error until this text comes.
    pub fn until(&mut self, expected: &str) {
        self.stderr.until(expected);
    }

    /// Sends a signal to the command itself, as `kill` does.
    pub fn signal(&self, name: &str) {
        // The job's launch is the same program; which of both has the lower number is open.
        let is_own = |process: &slurm_bed::Process| {
            let arguments = process.command.strip_prefix(DISAGG);
            arguments.is_some_and(|arguments| !arguments.starts_with(" launch"))
        };
        let pid = self.stderr.site.cluster.processes().into_iter().find(is_own).unwrap().pid;
        let pid = pid.to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn end(mut self) -> Output {
        let stdout = Reader::new(self.stderr.site, self.child.stdout.take().unwrap());
        let (stderr, stdout) = (self.stderr.end(), stdout.end());
        Output { code: self.child.wait().unwrap().code(), stdout, stderr }
    }
}

pub fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A command on a terminal of its own: what is typed there, and what it shows.
pub fn on_a_terminal<'site>(
    site: &'site Site,
    arguments: &[&str],
) -> (Child, File, Reader<'site, File>) {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let terminal = openpt(flags).unwrap();
    unlockpt(&terminal).unwrap();
    let other_end = || Stdio::from(ioctl_tiocgptpeer(&terminal, flags).unwrap());
    let mut command = site.cluster.command_as(TEST_USER, "setsid");
    command.args(["--ctty", "--wait", "env", "TERM=xterm", DISAGG]).args(arguments);
    let child = command.stdin(other_end()).stdout(other_end()).stderr(other_end()).spawn().unwrap();
    let terminal = File::from(terminal);
    (child, terminal.try_clone().unwrap(), Reader::new(site, terminal))
}

/// A PATH with an `ip` that gives each node an interface ib0 with its own address: all nodes are on one
/// machine, which has all addresses on one.
pub fn path_with_ib0(site: &Site) -> String {
    let bin = site.cluster.work().join("bin");
    let own = r"getent ahostsv4 $(hostname) | sed -n '1s,\([^ ]*\).*,2: ib0    inet \1/16 scope global ib0,p'";
    executable(&bin.join("ip"), &format!("#!/bin/sh\n{own}\n"));
    format!("PATH={}:{}", path(&bin), std::env::var("PATH").unwrap())
}

/// A directory with an sbatch that runs the real one and some shell after it.
pub fn wrapped_sbatch(site: &Site, after: &str) -> String {
    let directory = site.cluster.work().join("bin");
    let sbatch = Slurm::under_test().prefix.join("bin/sbatch");
    let script = format!("#!/bin/sh\n{} \"$@\"\n{after}\n", sbatch.display());
    executable(&directory.join("sbatch"), &script);
    directory.display().to_string()
}
