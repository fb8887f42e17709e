// SPDX-License-Identifier: Apache-2.0
//! slurmstepd on one node: options and environment first as root, then as the user, then a real
//! process for each task.

use super::{
    options, stack,
    state::{Job, Remote, Task, state},
};
use crate::{
    abi::{Context, Hook, OPTION_ENV_PREFIX, SCRIPT_PREFIX},
    env::Env,
    scenario::User,
    trace::{Rank, Rule, Step, TaskBody, What},
};
use std::{
    io::{self, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
};

/// The value of `slurm_spank_init_failure_mode` that fails the job and spares the node.
const JOB_FAILURE: i32 = 3012;

/// Plays slurmstepd. The exit code is that of the first task that failed.
pub(super) fn run(step: &Step, node: usize) -> i32 {
    let tasks = step.layout.nodes[node].tasks.clone();
    state().job = Job::Remote(Box::new(Remote {
        step: step.clone(),
        node,
        env: step.environment.clone(),
        argv: step.argv.clone(),
        tasks: Vec::new(),
    }));
    if let Err(code) = initialize(step) {
        return code;
    }
    let result = run_tasks(step, node, &tasks);
    state().task = None;
    stack::call(Hook::Exit);
    stack::unload();
    result.unwrap_or_else(|code| code)
}

fn initialize(step: &Step) -> Result<(), i32> {
    let release = state().scenario.release;
    let mut rc = if stack::load(Context::Remote) { stack::call(Hook::Init) } else { -1 };
    if !release.program_fails(rc) {
        take_options(step);
        rc = stack::call(Hook::InitPostOpt);
    }
    if !release.program_fails(rc) {
        return Ok(());
    }
    let s = state();
    s.error("Plugin stack initialization failed.");
    if rc != JOB_FAILURE || !release.has_init_failure_mode() {
        s.violation(
            Rule::NodeDrained,
            "the plugin stack failed in slurmstepd: the node is drained and the job lost",
        );
    }
    Err(1)
}

/// Options first from srun's message, then from the environment, which loses them.
fn take_options(step: &Step) {
    let release = state().scenario.release;
    let mut taken = Vec::new();
    for sent in &step.options {
        let found = {
            let s = state();
            s.options.iter().position(|option| {
                option.name == sent.name && s.plugins[option.plugin].name == sent.plugin
            })
        };
        match found {
            Some(index) => {
                process(index, sent.argument.as_deref());
                taken.push(index);
            }
            None => state().error(format!(
                "Warning: SPANK plugin \"{}\" option \"{}\" not found",
                sent.plugin, sent.name
            )),
        }
    }
    let count = state().options.len();
    for index in 0..count {
        if release.deduplicates_remote_options() && taken.contains(&index) {
            continue;
        }
        let name = state().option_env_name(index);
        let value = state().remote().and_then(|remote| remote.env.unset(&name));
        if let Some(value) = value {
            process(index, Some(&value));
        }
    }
    if let Some(remote) = state().remote() {
        let mut follows_a_removed_one = false;
        remote.env.remove_where(|name| {
            let is_option =
                name.strip_prefix(SCRIPT_PREFIX).unwrap_or(name).starts_with(OPTION_ENV_PREFIX);
            let overlooked = release.overlooks_options() && follows_a_removed_one;
            follows_a_removed_one = is_option && !overlooked;
            follows_a_removed_one
        });
    }
}

fn process(index: usize, argument: Option<&str>) {
    if options::process(index, argument, true) != 0 {
        let s = state();
        s.error(format!(
            "spank: failed to process option {}={}",
            s.options[index].name,
            argument.unwrap_or("(null)")
        ));
    }
}

/// A task's process as the parent holds it.
struct Child {
    task: Task,
    /// Written to let it go on.
    go: io::PipeWriter,
    /// One byte when the privileged phase is over; at its end when the task's command starts, or
    /// when the process ends.
    ready: io::PipeReader,
}

fn run_tasks(step: &Step, node: usize, tasks: &[u32]) -> Result<i32, i32> {
    let (release, user) = {
        let s = state();
        (s.scenario.release, s.scenario.user.clone())
    };
    let home = std::env::current_dir();
    let privileges = Privileges::drop(&user).map_err(|error| fail("drop privileges", &error))?;
    if std::env::set_current_dir(&step.cwd).is_err() {
        state().error(format!("couldn't chdir to `{}': going to /tmp instead", step.cwd));
        let _ = std::env::set_current_dir("/tmp");
    }
    if release.program_fails(stack::call(Hook::UserInit)) {
        state().error("spank_user failed.");
        privileges.reclaim();
        return Err(1);
    }
    let mut children = Vec::new();
    for (local, global) in tasks.iter().enumerate() {
        let task = Task { local: local as u32, global: *global, pid: 0, exit_status: None };
        children.push(fork(step, node, task, &privileges, &user).map_err(|e| fail("fork", &e))?);
    }
    privileges.reclaim();
    if let Ok(home) = home {
        let _ = std::env::set_current_dir(home);
    }
    if let Some(remote) = state().remote() {
        remote.tasks = children.iter().map(|child| child.task.clone()).collect();
    }
    for child in &children {
        state().task = Some(child.task.clone());
        if release.program_fails(stack::call(Hook::TaskPostFork)) {
            state().error(format!("spank task {} post-fork failed", child.task.local));
            // The group is killed by the parent of this process.
            return Err(1);
        }
    }
    let mut pending = Vec::new();
    for Child { task, mut go, mut ready } in children {
        // One after the other, again for the trace. A task that died has closed its end; that is
        // seen below.
        let _ = go.write_all(b"!");
        let _ = ready.read_to_end(&mut Vec::new());
        pending.push(task);
    }
    let mut code = 0;
    for mut task in pending {
        let status = wait(task.pid);
        task.exit_status = Some(status);
        {
            let mut s = state();
            s.emit(What::TaskEnded { task: task.global, child: task.pid, status });
            if let Some(known) =
                s.remote().and_then(|r| r.tasks.iter_mut().find(|t| t.pid == task.pid))
            {
                known.exit_status = Some(status);
            }
            s.task = Some(task.clone());
        }
        if code == 0 {
            let status = ExitStatus::from_raw(status);
            code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        }
        if release.program_fails(stack::call(Hook::TaskExit)) {
            state().error(format!("Unable to spank task {} at exit", task.local));
        }
    }
    Ok(code)
}

fn fail(what: &str, error: &io::Error) -> i32 {
    state().error(format!("cannot {what}: {error}"));
    1
}

fn wait(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: waitpid fills the status.
    while unsafe { libc::waitpid(pid, &mut status, 0) } < 0
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    status
}

fn fork(
    step: &Step,
    node: usize,
    mut task: Task,
    privileges: &Privileges,
    user: &User,
) -> io::Result<Child> {
    let (go_reader, go) = io::pipe()?;
    let (mut ready, mut ready_writer) = io::pipe()?;
    // SAFETY: this process has one thread unless a plugin started others, which Slurm forks the
    // same way.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop((go, ready));
            task.pid = std::process::id() as i32;
            let code = child(step, node, task, privileges, user, go_reader, &mut ready_writer);
            // SAFETY: _exit only ends the process.
            unsafe { libc::_exit(code) }
        }
        pid => {
            task.pid = pid;
            drop(ready_writer);
            // Slurm doesn't wait here; waiting makes a trace the same each time.
            let _ = ready.read(&mut [0]);
            Ok(Child { task, go, ready })
        }
    }
}

fn child(
    step: &Step,
    node: usize,
    task: Task,
    privileges: &Privileges,
    user: &User,
    mut go: io::PipeReader,
    ready: &mut io::PipeWriter,
) -> i32 {
    let release = state().scenario.release;
    state().task = Some(task.clone());
    privileges.reclaim();
    if release.program_fails(stack::call(Hook::TaskInitPrivileged)) {
        state().error("spank_task_init_privileged failed");
        return 1;
    }
    if is_root()
        && let Err(error) = become_user_for_good(user)
    {
        return fail("become the user", &error);
    }
    // The parent lets the task go, or is gone itself.
    if ready.write_all(b"!").is_err() || go.read(&mut [0]).unwrap_or(0) == 0 {
        return 1;
    }
    add_task_variables(step, node, &task, user);
    if release.program_fails(stack::call(Hook::TaskInit)) {
        state().error("Failed to invoke spank plugin stack");
        return 1;
    }
    let (argv, environment) = {
        let mut s = state();
        let Some(remote) = s.remote() else { return 1 };
        (remote.argv.clone(), remote.env.clone())
    };
    let rank = Rank {
        task: task.global,
        local: task.local,
        host: step.layout.nodes[node].host.clone(),
        argv: argv.clone(),
        environment: environment.clone(),
        // SAFETY: geteuid has no failure and no memory effects.
        uid: unsafe { libc::geteuid() },
    };
    state().emit(What::Rank(Box::new(rank)));
    match step.body {
        TaskBody::Report(code) => code,
        TaskBody::Execute => execute(&argv, &environment),
    }
}

fn execute(argv: &[String], environment: &Env) -> i32 {
    let Some((program, args)) = argv.split_first() else { return 1 };
    let error = Command::new(program).args(args).env_clear().envs(environment.iter()).exec();
    state().error(format!("execve(): {program}: {error}"));
    if error.kind() == io::ErrorKind::NotFound { 2 } else { 13 }
}

/// What slurmstepd adds to each task's environment.
fn add_task_variables(step: &Step, node: usize, task: &Task, user: &User) {
    let here = &step.layout.nodes[node];
    let ids: Vec<_> = here.tasks.iter().map(u32::to_string).collect();
    let cpus = step.cpus.get(node).copied().unwrap_or(1);
    let mut s = state();
    let Some(remote) = s.remote() else { return };
    let mut set = |name: &str, value: &str| remote.env.set(name, value);
    set("SLURM_CPUS_ON_NODE", &cpus.to_string());
    set("SLURM_GTIDS", &ids.join(","));
    set("SLURM_JOB_ID", &step.job_id.to_string());
    set("SLURM_JOBID", &step.job_id.to_string());
    set("SLURM_TASK_PID", &task.pid.to_string());
    set("SLURM_NODEID", &node.to_string());
    set("SLURM_PROCID", &task.global.to_string());
    set("SLURM_LOCALID", &task.local.to_string());
    set("SLURM_JOB_UID", &user.uid.to_string());
    set("SLURM_JOB_GID", &user.gid.to_string());
    set("SLURM_JOB_USER", &user.name);
    set("SLURMD_NODENAME", &here.host);
}

/// Whether this process can change its user.
pub(super) fn is_root() -> bool {
    // SAFETY: getuid has no failure and no memory effects.
    unsafe { libc::getuid() == 0 }
}

/// Root that acts as the user for a while.
struct Privileges {
    groups: Vec<libc::gid_t>,
}

impl Privileges {
    /// Takes the user's effective ids and groups, if this is root.
    fn drop(user: &User) -> io::Result<Self> {
        let mut groups = vec![0; 1024];
        // SAFETY: the buffer has the length that is given.
        let count = unsafe { libc::getgroups(groups.len() as i32, groups.as_mut_ptr()) };
        groups.truncate(count.max(0) as usize);
        if is_root() {
            // SAFETY: the group list has the length that is given; the rest has no memory effects.
            let failed = unsafe {
                libc::setgroups(user.groups.len(), user.groups.as_ptr()) != 0
                    || libc::setegid(user.gid) != 0
                    || libc::seteuid(user.uid) != 0
            };
            if failed {
                return Err(io::Error::last_os_error());
            }
            stay_readable();
        }
        Ok(Privileges { groups })
    }

    fn reclaim(&self) {
        if is_root() {
            // SAFETY: as in drop. The real user is root, so that this can't fail.
            unsafe {
                libc::seteuid(0);
                libc::setegid(0);
                libc::setgroups(self.groups.len(), self.groups.as_ptr());
            }
        }
    }
}

/// Becomes the user with no way back.
pub(super) fn become_user_for_good(user: &User) -> io::Result<()> {
    // SAFETY: the group list has the length that is given; the rest has no memory effects.
    let failed = unsafe {
        libc::setgroups(user.groups.len(), user.groups.as_ptr()) != 0
            || libc::setresgid(user.gid, user.gid, user.gid) != 0
            || libc::setresuid(user.uid, user.uid, user.uid) != 0
    };
    if failed {
        return Err(io::Error::last_os_error());
    }
    stay_readable();
    Ok(())
}

/// A process that changes its user loses the right to read its own /proc files. A real client
/// never was root, and slurmstepd takes the right back as this does.
fn stay_readable() {
    // SAFETY: prctl with these arguments has no memory effects.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
}
