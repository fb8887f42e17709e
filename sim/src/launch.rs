// SPDX-License-Identifier: Apache-2.0
//! Starts a host process for one scenario, watches it, and reads what it reports.
//!
//! The host's command line and environment are the simulated program's own, because plugins read
//! them. So the scenario comes on its standard input, and it reports on descriptor 3. All four
//! descriptors are files in memory: nothing has to be read while it runs, nothing can block it.

use crate::{
    Hook,
    env::Env,
    scenario::Scenario,
    trace::{Event, Function, Outcome, Rule, Trace, Violation, What},
};
use std::{
    collections::HashMap,
    ffi::CStr,
    fs::File,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

/// The descriptor on which a host reports.
pub(crate) const TRACE_FD: RawFd = 3;

/// The name of the file in memory behind it, by which a program knows that it is a host.
pub(crate) const TRACE_NAME: &CStr = c"slurm-sim-trace";

/// Real-time signal (counted from `SIGRTMIN`) that ends a function over its time limit. Not
/// SIGALRM: that is the plugin's.
pub(crate) const LIMIT_SIGNAL_OFFSET: i32 = 7;

/// Why a scenario could not be played.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// There is no host program.
    #[error("no slurm-sim-host beside {0}; build it, or name it in SLURM_SIM_HOST")]
    NoHost(PathBuf),
    /// It didn't start.
    #[error("cannot start {0}: {1}")]
    Start(PathBuf, #[source] io::Error),
    /// An operation of the parent failed.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// The host didn't do its part, by no fault of the plugin.
    #[error("the simulated program ended with {status} without a report; it wrote: {stderr}")]
    NoReport {
        /// Its exit status.
        status: ExitStatus,
        /// Its standard error.
        stderr: String,
    },
    /// What it reported is not a report.
    #[error("cannot read what the host reports: {0}")]
    Report(#[from] serde_json::Error),
    /// The job is larger than the cluster.
    #[error("the job asks for {asked} nodes and the simulated cluster has {has}")]
    TooLarge {
        /// Nodes asked for.
        asked: usize,
        /// Nodes there are.
        has: usize,
    },
}

/// The program that host processes run.
#[derive(Debug, Clone)]
pub struct Host(PathBuf);

impl Host {
    /// This program. It must call [`crate::become_host_if_asked`] before anything else.
    pub fn current() -> Self {
        Host(PathBuf::from("/proc/self/exe"))
    }

    /// A program that calls [`crate::become_host_if_asked`] before anything else.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Host(path.into())
    }

    /// `SLURM_SIM_HOST`, else `slurm-sim-host` in this program's directory or the one above.
    pub fn find() -> Result<Self, SimError> {
        if let Some(path) = std::env::var_os("SLURM_SIM_HOST") {
            return Ok(Host(path.into()));
        }
        let exe = std::env::current_exe().map_err(|e| SimError::System("find this program", e))?;
        exe.ancestors()
            .skip(1)
            .take(2)
            .map(|directory| directory.join("slurm-sim-host"))
            .find(|path| path.is_file())
            .map(Host)
            .ok_or(SimError::NoHost(exe))
    }
}

/// Plays a scenario with this command line, environment and working directory. A program that
/// takes longer than `deadline` altogether is ended.
pub(crate) fn play(
    host: &Host,
    scenario: &Scenario,
    argv: &[String],
    environ: &Env,
    cwd: Option<&Path>,
    deadline: Duration,
) -> Result<Trace, SimError> {
    let mut input = memory_file(c"slurm-sim-scenario", 0)?;
    serde_json::to_writer(&input, scenario)?;
    input.rewind().map_err(|e| SimError::System("rewind the scenario", e))?;
    // Appending: the host and its tasks write to these together.
    let [mut stdout, mut stderr, mut trace] = [
        memory_file(c"slurm-sim-stdout", libc::O_APPEND)?,
        memory_file(c"slurm-sim-stderr", libc::O_APPEND)?,
        memory_file(TRACE_NAME, libc::O_APPEND)?,
    ];
    let clone =
        |file: &File| file.try_clone().map_err(|e| SimError::System("copy a descriptor", e));
    let mut command = Command::new(&host.0);
    command
        .arg0(argv.first().map_or("slurm", String::as_str))
        .args(argv.iter().skip(1))
        .env_clear()
        .envs(environ.iter())
        .process_group(0)
        .stdin(input)
        .stdout(clone(&stdout)?)
        .stderr(clone(&stderr)?);
    if let Some(cwd) = cwd {
        command.current_dir(cwd);
    }
    let trace_fd = trace.as_raw_fd();
    // SAFETY: fcntl and dup2 are async-signal-safe, and the closure touches nothing else. The
    // detour over a high number makes sure that the copy has no close-on-exec flag.
    unsafe {
        command.pre_exec(move || {
            let high = libc::fcntl(trace_fd, libc::F_DUPFD_CLOEXEC, 100);
            if high < 0 || libc::dup2(high, TRACE_FD) < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|e| SimError::Start(host.0.clone(), e))?;
    let pid = child.id() as i32;
    let in_time = wait_until_ended(pid, deadline);
    // The group outlives its leader when a task hangs. Before the leader is reaped, its number
    // can't belong to anyone else.
    // SAFETY: kill has no memory effects.
    unsafe { libc::kill(-pid, libc::SIGKILL) };
    let status = child.wait().map_err(|e| SimError::System("wait for the host", e))?;
    let [stdout, stderr, lines] =
        [read_back(&mut stdout)?, read_back(&mut stderr)?, read_back(&mut trace)?];
    let events: Vec<Event> =
        lines.lines().map(serde_json::from_str).collect::<Result<_, serde_json::Error>>()?;
    let client = scenario.program.is_client();
    conclude(events, (pid, client), in_time.then_some(status), status, stdout, stderr)
}

/// Waits without reaping. False when the deadline passed.
fn wait_until_ended(pid: i32, deadline: Duration) -> bool {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        // SAFETY: siginfo_t is plain data; waitid fills it.
        let ended = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
            libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, flags) != 0
                || info.si_pid() == pid
        };
        if ended {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// An anonymous file, closed by exec.
pub(crate) fn memory_file(name: &CStr, flags: i32) -> Result<File, SimError> {
    let system = |error| SimError::System("make a file in memory", error);
    // SAFETY: the name is a C string; the descriptor is new and owned from here on.
    let file = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(system(io::Error::last_os_error()));
        }
        File::from(OwnedFd::from_raw_fd(fd))
    };
    // SAFETY: fcntl on an open descriptor.
    if flags != 0 && unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } < 0 {
        return Err(system(io::Error::last_os_error()));
    }
    Ok(file)
}

fn read_back(file: &mut File) -> Result<String, SimError> {
    let system = |error| SimError::System("read what the host wrote", error);
    let mut bytes = Vec::new();
    file.flush().map_err(system)?;
    file.rewind().map_err(system)?;
    file.read_to_end(&mut bytes).map_err(system)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds what only the parent can know: which function a process died in.
fn conclude(
    mut events: Vec<Event>,
    (main, client): (i32, bool),
    status: Option<ExitStatus>,
    final_status: ExitStatus,
    stdout: String,
    stderr: String,
) -> Result<Trace, SimError> {
    let mut open: HashMap<i32, Vec<(Function, Option<u32>)>> = HashMap::new();
    let mut finished = None;
    let mut ended_tasks = HashMap::new();
    for event in &events {
        match &event.what {
            What::Enter { function, task, .. } => {
                open.entry(event.pid).or_default().push((function.clone(), *task));
            }
            What::Return { .. } => {
                open.entry(event.pid).or_default().pop();
            }
            What::Finished { code } => finished = Some(*code),
            What::TaskEnded { child, status, .. } => {
                ended_tasks.insert(*child, *status);
            }
            _ => {}
        }
    }
    let running = |pid: i32| open.get(&pid).and_then(|stack| stack.last()).map(|(f, _)| f.clone());
    let mut found = Vec::new();
    for (pid, status) in &ended_tasks {
        if let Some(function) = running(*pid) {
            let status = ExitStatus::from_raw(*status);
            let (rule, detail) = cause(status);
            // The process is the task's own, and its failure is the step's.
            let given_up = function == Function::Hook(Hook::TaskInit) && status.code() != Some(0);
            if rule == Rule::Exited && given_up {
                continue;
            }
            found.push((*pid, Violation { rule, function: Some(function), detail }));
        }
    }
    found.sort_by_key(|(pid, _)| *pid);
    let function = running(main);
    let outcome = match status {
        None => {
            let stuck = function
                .clone()
                .map(|f| (main, f))
                .or_else(|| open.keys().find_map(|pid| running(*pid).map(|f| (*pid, f))));
            let (pid, function) = stuck.map_or((main, None), |(pid, f)| (pid, Some(f)));
            let detail = "did not return, and the program had to be killed".to_owned();
            found.push((pid, Violation { rule: Rule::Hung, function: function.clone(), detail }));
            Outcome::Hung { function }
        }
        Some(status) => match (finished, status.code(), function) {
            (Some(code), Some(_), _) => Outcome::Exit(code),
            (_, Some(_), None) => return Err(SimError::NoReport { status, stderr }),
            (_, _, function) => {
                let (rule, detail) = cause(final_status);
                let outcome = match rule {
                    Rule::Hung => Outcome::Hung { function: function.clone() },
                    Rule::Crashed => Outcome::Crashed {
                        function: function.clone(),
                        signal: status.signal().unwrap_or_default(),
                    },
                    _ => Outcome::Exited {
                        function: function.clone(),
                        code: status.code().unwrap_or_default(),
                    },
                };
                let asked = events.iter().any(|event| event.what == What::ExitCalled);
                if !(rule == Rule::Exited && client && asked) {
                    found.push((main, Violation { rule, function, detail }));
                }
                outcome
            }
        },
    };
    events.extend(found.into_iter().map(|(pid, v)| Event { pid, what: What::Violation(v) }));
    // SAFETY: geteuid has no failure and no memory effects.
    let users_switched = unsafe { libc::geteuid() } == 0;
    Ok(Trace { events, outcome, stdout, stderr, users_switched })
}

fn cause(status: ExitStatus) -> (Rule, String) {
    match status.signal() {
        Some(signal) if signal == libc::SIGRTMIN() + LIMIT_SIGNAL_OFFSET => {
            (Rule::Hung, "did not return within its time limit".to_owned())
        }
        Some(signal) => (Rule::Crashed, format!("the process died of signal {signal}")),
        None => (
            Rule::Exited,
            format!("the process exited with code {}", status.code().unwrap_or_default()),
        ),
    }
}
