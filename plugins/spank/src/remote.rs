// SPDX-License-Identifier: Apache-2.0
//! slurmstepd: each task of a step that names its role gets the role's environment.
//!
//! All of it happens in `task_init`, in the child that becomes the task, as the user: nothing of
//! the user's is parsed as root, and a failure ends the step with a message instead of draining the
//! node. Before that, also as the user, the file of a long plan is read: a container plugin that is
//! listed before this one has changed the task's root by then.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{self, Command, Stdio};
use std::str::from_utf8;
use std::sync::OnceLock;

use disagg::input::handover::content;
use disagg::output::task::{SECRET, shell_command};
use disagg::plan::step::{RANK, WATCH_SH};
use disagg::plan::{Instance, Rank};
use disagg::slurm::hostlist;
use disagg::task_files;

use disagg_host::log;

use crate::args::{self, Given, Opt};
use crate::environment::{
    BEFORE_STEP, CONTAINER, DISTRIBUTION, HOST_FILE, PLAN, SEVERAL, STEP_ROLE, TASK,
};
use crate::ffi::Spank;
use crate::{handover, local, outside, step};

/// What is known before the tasks start.
#[derive(Default)]
pub struct Before {
    /// The root outside of any container.
    pub root: Option<(u64, u64)>,
    /// The value of [`PLAN`] and the file that it names, where it names one.
    plan: Option<(String, String)>,
}

/// A task of a step with a role.
pub struct Task {
    /// The role.
    pub role: String,
    /// Nodes and tasks of the step, where Slurm tells.
    size: Option<(u32, u32)>,
}

/// Variables of a task's environment.
pub type Variables = HashMap<String, String>;

/// What becomes of a variable: its value, or none where it is removed. Later ones win.
pub type Change = (String, Option<String>);

static BEFORE: OnceLock<Before> = OnceLock::new();

/// Reads the file of a long plan; does nothing in a step without a role. What cannot be read is said
/// in [`task`].
pub fn before_the_tasks(spank: Spank) {
    if role(spank).is_some() {
        let is_path = |(name, value): &(String, String)| name == PLAN && value.starts_with('/');
        let path = spank.task_environment().into_iter().find(is_path);
        let plan = path.and_then(|(_, path)| content(&path).ok().map(|json| (path, json)));
        let _ = BEFORE.set(Before { root: root(process::id()), plan });
    }
}

/// The root of a process: another one in a container, and the same where Slurm gives a job a /tmp of its own.
pub fn root(process: u32) -> Option<(u64, u64)> {
    fs::metadata(format!("/proc/{process}/root/")).ok().map(|root| (root.dev(), root.ino()))
}

fn role(spank: Spank) -> Option<String> {
    spank.short_env(STEP_ROLE).or_else(|| Given::lock().get(Opt::Role).map(str::to_owned))
}

/// Sets the environment of the task; does nothing in a step without a role.
///
/// # Errors
/// A message for the user; the task must not start.
pub fn task(spank: Spank) -> Result<(), String> {
    let Some(role) = role(spank) else { return Ok(()) };
    if spank.short_env(TASK).is_some() {
        return Ok(());
    }
    let size = spank.step_size();
    // Slurm says 0 nodes of the step that is the batch script: it has no role of its own.
    if size.is_some_and(|(nodes, _)| nodes == 0) {
        return Ok(());
    }
    let variables = spank.task_environment().into_iter().collect::<Variables>();
    let before = BEFORE.get_or_init(Before::default);
    let is_outside = before.root.is_some() && before.root == root(process::id());
    let task = Task { role, size };
    if let Some(how) = variables.get(CONTAINER).filter(|_| is_outside) {
        let started = match how.as_str() {
            SEVERAL => Err("with --multi-prog, plugstack.conf needs the line of spank_disagg.so below that of \
                            the container plugin".to_owned()),
            _ => outside::hand_over(spank, &task, before).map_err(|error| error.to_string()),
        };
        return started.map_err(|why| {
            format!("disagg: {} cannot be started in its container: {why}", task.role)
        });
    }
    let changes = changes(&task, before, &variables, process::id())?;
    for (name, value) in &changes {
        let done = match value {
            Some(value) => spank.set_env(name, value),
            None => spank.unset_env(name),
        };
        done.map_err(|error| format!("disagg: {}: {error}", task.role))?;
    }
    watch(process::id(), &changes, &variables);
    Ok(())
}

/// The changes of the environment of a task, which has this one and this process.
///
/// # Errors
/// A message for the user; the task must not start.
pub fn changes(
    task: &Task,
    before: &Before,
    variables: &Variables,
    process: u32,
) -> Result<Vec<Change>, String> {
    let Task { role, size } = task;
    let plan = match variables.get(PLAN) {
        Some(value) => match before.plan.as_ref().filter(|(path, _)| path == value) {
            Some((_, json)) => handover::parse(value, json)?,
            None => handover::read(value)?,
        },
        None => {
            return Err(format!(
                "disagg: the step of {role} has no {PLAN}: srun was started without the plugin's plan"
            ));
        }
    };
    let instance = local::instance(&plan, role)?;
    if let Some((nodes, tasks)) = *size {
        step::check_size(&instance, nodes, tasks)?;
    }
    of_instance(&instance, variables, process).map_err(|error| format!("disagg: {role}: {error}"))
}

fn of_instance(
    instance: &Instance<'_>,
    variables: &Variables,
    process: u32,
) -> Result<Vec<Change>, Box<dyn std::error::Error>> {
    let nodes =
        variables.get("SLURM_JOB_NODELIST").map(|list| hostlist::expand(list)).transpose()?;
    let given = |name: &str| variables.get(name).map(String::as_bytes);
    let rank = Rank::new(instance, &nodes.unwrap_or_default(), given)?;
    let spec = &rank.spec;
    // Slurm tells every task of a pinned step that its distribution is arbitrary; a srun in the task
    // would then look for a host file.
    let pinned = variables.get(DISTRIBUTION).is_some_and(|how| how == "arbitrary");
    if pinned {
        check_host(instance, variables)?;
    }
    let misleading: &[&str] = if pinned { &[DISTRIBUTION, HOST_FILE] } else { &[] };
    let sent = args::sent_variable(Opt::Role);
    // A run script of the user's needs Slurm's variables; its command removes them.
    let cleared = |name: &&str| {
        !name.starts_with("SLURM") && spec.cleared.is_some_and(|all| all.removes(name))
    };
    let given = variables.keys().map(String::as_str);
    // srun's side has set those of the values before they were expanded.
    let is_of_others = |name: &&str| name.starts_with(SECRET) || name.starts_with(BEFORE_STEP);
    let removed = given.clone().filter(cleared).chain(given.filter(is_of_others));
    let own = spec.unset.iter().copied().chain([STEP_ROLE, CONTAINER, &sent]);
    let removed = removed.chain(own).chain(misleading.iter().copied());
    let mut changes: Vec<Change> = removed.map(|name| (name.to_owned(), None)).collect();
    let mut set = |name: &str, value: &str| changes.push((name.to_owned(), Some(value.to_owned())));
    for (name, value) in &rank.set {
        set(name, from_utf8(value)?);
    }
    for (name, value) in &rank.gpus {
        set(name, value);
    }
    let started = variables.get("SLURM_JOB_START_TIME").map(String::as_str);
    task_files::write(instance.plan, spec, started)?;
    set(TASK, &instance.name);
    for name in rank.changed_references() {
        let value = variables.get(name).map_or("", String::as_str);
        set(&format!("{BEFORE_STEP}{name}"), value);
    }
    let id = |name| variables.get(name).map_or("", String::as_str);
    let (job, step, number) = (id("SLURM_JOB_ID"), id("SLURM_STEP_ID"), id("SLURM_PROCID"));
    set(RANK, &format!("{job}.{step}.{number}.{process}"));
    // The command's own assignments hold this task's values, so that they mean the same where they
    // are set already.
    for (name, value) in shell_command(&rank.written_out()?) {
        set(&name, &value.literal_text());
    }
    Ok(changes)
}

/// Starts a process that kills what a rank leaves behind. It has little of the rank's environment, and
/// none of the variable by which it finds the rank's processes. It looks where its output goes, and leaves it.
pub fn watch(process: u32, changes: &[Change], variables: &Variables) {
    let name = changes.iter().rfind(|(name, _)| name == RANK);
    let name = name.and_then(|(_, value)| value.as_deref()).unwrap_or_default();
    let own = ["SLURM_PROCID", "SLURMD_NODENAME"];
    let mut sh = Command::new("sh");
    sh.env_clear().envs(own.iter().filter_map(|name| variables.get_key_value(*name)));
    // An image's may not name the host's programs.
    let path = variables.get("PATH").map_or("", String::as_str);
    sh.env("PATH", format!("{path}:/usr/bin:/bin"));
    sh.args(["-c", WATCH_SH, "sh", &process.to_string(), name]);
    if let Err(error) = sh.stdin(Stdio::null()).status() {
        log::verbose(&format!("disagg: nothing watches what a rank leaves behind: {error}"));
    }
}

/// Whether a pinned task is where the plan has it. The variables of a heterogeneous job speak of one of
/// its components.
fn check_host(instance: &Instance<'_>, variables: &Variables) -> Result<(), String> {
    let of = |name: &str| variables.get(name).map(String::as_str);
    // A step of a recipe is told of nodes, so they must be.
    let is_of_this_component = of("SLURM_HET_SIZE").is_none() || instance.plan.engine.is_some();
    let planned = || {
        let hosts =
            hostlist::expand(of("SLURM_JOB_NODELIST").filter(|_| is_of_this_component)?).ok()?;
        let rank: usize = of("SLURM_PROCID")?.parse().ok()?;
        Some((rank, instance.host_of_each_task(&hosts)?.get(rank)?.to_string()))
    };
    match (planned(), of("SLURMD_NODENAME")) {
        (Some((rank, planned)), Some(host)) if planned != host => {
            Err(format!("rank {rank} is on {host}, by the plan on {planned}"))
        }
        _ => Ok(()),
    }
}
