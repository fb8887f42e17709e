// SPDX-License-Identifier: Apache-2.0
//! sbatch, salloc and srun: the order in which each reads its options, calls the plugins, and
//! collects the environment.

use super::{
    cmdline::{self, ERROR_EXIT, Tool},
    options, stack,
    state::{Job, state},
};
use crate::{
    abi::{Context, Hook, JOB_CONTROL_PREFIX},
    env::{Env, exported_to_job, exported_to_step},
    hosts,
    layout::{Layout, Node, Origin, Refused, StepRequest, repeated},
    scenario::Allocation,
    trace::{Grant, Level, Step, Submission, TaskBody, What},
};
use std::sync::atomic::{AtomicBool, Ordering};

fn set_env(name: &str, value: impl AsRef<str>) {
    // A name or value that setenv(3) can't take would make std panic.
    let value = value.as_ref().split('\0').next().unwrap_or_default();
    // SAFETY: no other thread of the simulator reads the environment.
    unsafe { std::env::set_var(name, value) };
}

fn argv() -> Vec<String> {
    std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect()
}

fn cwd() -> String {
    std::env::current_dir().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default()
}

fn job_control() -> Env {
    state().job_control.clone().unwrap_or_default()
}

fn give_up(text: impl AsRef<str>) -> i32 {
    state().error(text);
    ERROR_EXIT
}

/// Loads the plugins and calls their first hook. The failure is the exit code.
fn start(context: Context, message: &str) -> Result<(), i32> {
    let release = state().scenario.release;
    if context == Context::Local {
        // srun takes the job control environment over from the job.
        let inherited: Env = Env::current()
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix(JOB_CONTROL_PREFIX)?, value)))
            .collect();
        if !stack::load(context) {
            return Err(give_up(message));
        }
        state().job_control = Some(inherited);
    } else if !stack::load(context) {
        return Err(give_up(message));
    }
    if release.program_fails(stack::call(Hook::Init)) {
        return Err(give_up(message));
    }
    HAS_EXIT_HOOK.store(context == Context::Allocator, Ordering::Relaxed);
    Ok(())
}

/// Whether Slurm's handler of exit(3) calls the exit hook by now.
static HAS_EXIT_HOOK: AtomicBool = AtomicBool::new(false);

/// Installs what runs when a plugin calls exit(3), as Slurm does with atexit(3).
pub(super) fn watch_exit() {
    extern "C" fn exit_called() {
        let inside = state().function.is_some();
        if inside {
            state().emit(What::ExitCalled);
            if HAS_EXIT_HOOK.load(Ordering::Relaxed) {
                stack::call(Hook::Exit);
                stack::unload();
            }
        }
    }
    // SAFETY: the function is of the type that atexit takes. It can only fail for lack of memory,
    // and then exit(3) is reported as an exit without handlers.
    unsafe { libc::atexit(exit_called) };
}

fn post_opt(message: &str) -> Result<(), i32> {
    options::export_used();
    let rc = stack::call(Hook::InitPostOpt);
    if state().scenario.release.program_fails(rc) { Err(give_up(message)) } else { Ok(()) }
}

fn code(result: Result<(), i32>) -> i32 {
    result.err().unwrap_or(0)
}

fn end(result: Result<(), i32>) -> i32 {
    stack::call(Hook::Exit);
    stack::unload();
    code(result)
}

/// Plays sbatch.
pub(super) fn sbatch() -> i32 {
    match start(Context::Allocator, "Failed to initialize plugin stack") {
        Err(code) => code,
        Ok(()) => end(submit()),
    }
}

fn submit() -> Result<(), i32> {
    let all = argv();
    let (script_argv, script) = find_script(&all)?;
    let options_end = all.len() - script_argv.len();
    let mut rest = all[..options_end].to_vec();
    let mut component = 0;
    loop {
        let mut request = StepRequest::default();
        let (words, mut more) = cmdline::script_options(&script, component);
        let used = cmdline::process(Tool::Sbatch, &words, &mut request)?;
        if let Some(word) = words.get(used) {
            state().error(format!("Invalid directive found in batch script: {word}"));
            return Err(255);
        }
        if let Ok(export) = std::env::var("SBATCH_EXPORT") {
            request.export = Some(export);
        }
        options::process_environment(&Env::current())?;
        let used = cmdline::process(Tool::Sbatch, &rest, &mut request)?;
        if rest.get(used).is_some_and(|word| word == ":") {
            rest.drain(..used);
            more = true;
        } else {
            rest.truncate(1);
        }
        post_opt("Plugin stack post-option processing failed")?;
        submit_component(component, &script_argv, &script, request);
        if !more {
            return Ok(());
        }
        component += 1;
    }
}

fn submit_component(component: u32, script_argv: &[String], script: &str, request: StepRequest) {
    let (release, login) = {
        let s = state();
        (s.scenario.release, s.scenario.user.login.clone())
    };
    let control = job_control();
    set_env("SLURM_PRIO_PROCESS", "0");
    for (name, value) in control.iter() {
        set_env(&format!("{JOB_CONTROL_PREFIX}{name}"), value);
    }
    set_env("SLURM_SUBMIT_DIR", cwd());
    set_env("SLURM_SUBMIT_HOST", "login");
    if let Some(export) = request.export.as_deref().filter(|e| !e.eq_ignore_ascii_case("ALL"))
        && std::env::var_os("SLURM_EXPORT_ENV").is_none()
    {
        // srun in the job reads it: what sbatch was told holds for the job's steps, too.
        set_env("SLURM_EXPORT_ENV", export);
    }
    let mut environment =
        exported_to_job(request.export.as_deref(), &Env::current(), &login, release);
    let name = script_argv.first().and_then(|path| path.rsplit('/').next()).unwrap_or("wrap");
    environment.set("SLURM_JOB_NAME", name);
    add_counts(&mut environment, &request);
    let submission = Submission {
        component,
        argv: if script_argv.is_empty() { vec!["wrap".into()] } else { script_argv.to_vec() },
        script: script.to_owned(),
        environment,
        job_control: control,
        cwd: cwd(),
        request,
    };
    state().emit(What::Submitted(Box::new(submission)));
}

/// The task counts that sbatch and salloc leave for srun.
fn add_counts(environment: &mut Env, request: &StepRequest) {
    if let Some((tasks, _)) = request.ntasks {
        environment.set("SLURM_NPROCS", tasks.to_string());
        environment.set("SLURM_NTASKS", tasks.to_string());
    }
    if let Some(per_node) = request.ntasks_per_node {
        environment.set("SLURM_NTASKS_PER_NODE", per_node.to_string());
    }
    if let Some(gpus) = &request.gpus_per_node {
        environment.set("SLURM_GPUS_PER_NODE", gpus);
    }
}

/// The script with its arguments, and its text. Slurm looks for it before it reads the options.
fn find_script(argv: &[String]) -> Result<(Vec<String>, String), i32> {
    let separate: Vec<_> = argv.iter().filter(|word| *word != ":").cloned().collect();
    let mut wrap = None;
    let end = cmdline::read(Tool::Sbatch, &separate, true, |given| {
        if let cmdline::Given::Slurm("wrap", Some(command)) = given {
            wrap = Some(command);
        }
        Ok(())
    })?;
    let script_argv = separate[end.min(separate.len())..].to_vec();
    if let Some(command) = wrap {
        if !script_argv.is_empty() {
            return Err(give_up("Script arguments not permitted with --wrap option"));
        }
        return Ok((
            Vec::new(),
            format!("#!/bin/sh\n# This script was created by sbatch --wrap.\n\n{command}\n"),
        ));
    }
    let Some(path) = script_argv.first() else {
        return Err(give_up("Batch script is empty!"));
    };
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => return Err(give_up(format!("Unable to open file {path}"))),
    };
    if text.is_empty() {
        return Err(give_up("Batch script is empty!"));
    }
    if !text.starts_with("#!") {
        for line in [
            "This does not look like a batch script.  The first",
            "line must start with #! followed by the path to an interpreter.",
            "For instance: #!/bin/sh",
        ] {
            state().error(line);
        }
        return Err(ERROR_EXIT);
    }
    Ok((script_argv, text))
}

/// Plays salloc.
pub(super) fn salloc(nodes: &[Node], job_id: u32) -> i32 {
    match start(Context::Allocator, "Failed to initialize plugin stack") {
        Err(code) => code,
        Ok(()) => end(allocate(nodes, job_id)),
    }
}

fn allocate(nodes: &[Node], job_id: u32) -> Result<(), i32> {
    let words = argv();
    let mut request = StepRequest::default();
    options::process_environment(&Env::current())?;
    let used = cmdline::process(Tool::Salloc, &words, &mut request)?;
    let command = words[used.min(words.len())..].to_vec();
    post_opt("Plugin stack post-option processing failed")?;
    let control = job_control();
    for (name, value) in control.iter() {
        set_env(&format!("{JOB_CONTROL_PREFIX}{name}"), value);
    }
    set_env("SLURM_SUBMIT_DIR", cwd());
    let mut sized = request.clone();
    let layout = allocate_nodes(&mut sized, nodes)
        .map_err(|error| give_up(format!("Job submit/allocate failed: {error}")))?;
    let granted: Vec<Node> = layout
        .nodes
        .iter()
        .filter_map(|n| nodes.iter().find(|node| node.name == n.host).cloned())
        .collect();
    state().log(Level::Info, &format!("Granted job allocation {job_id}"), false);
    let mut environment = Env::current();
    let (id, count, list) = (job_id.to_string(), granted.len().to_string(), layout.nodelist());
    let cpus = repeated(granted.iter().map(|node| node.cpus));
    let per_node = layout.tasks_per_node();
    for (name, value) in [
        ("SLURM_JOB_ID", &id),
        ("SLURM_JOBID", &id),
        ("SLURM_JOB_NUM_NODES", &count),
        ("SLURM_NNODES", &count),
        ("SLURM_JOB_NODELIST", &list),
        ("SLURM_NODELIST", &list),
        ("SLURM_JOB_CPUS_PER_NODE", &cpus),
        ("SLURM_TASKS_PER_NODE", &per_node),
    ] {
        environment.set(name, value);
    }
    add_counts(&mut environment, &request);
    let grant = Grant {
        argv: command,
        environment,
        job_control: control,
        request,
        nodes: granted.into_iter().map(|node| node.name).collect(),
    };
    state().emit(What::Granted(Box::new(grant)));
    Ok(())
}

/// The nodes that a job of its own gets: as many as asked for, else as its tasks need.
fn allocate_nodes(request: &mut StepRequest, nodes: &[Node]) -> Result<Layout, Refused> {
    if request.nodes.is_none() {
        let cpus = nodes.iter().map(|node| node.cpus).max().unwrap_or(1).max(1);
        let count = match (request.ntasks, request.ntasks_per_node) {
            (Some((tasks, _)), per_node) => tasks.div_ceil(per_node.unwrap_or(cpus).max(1)),
            (None, _) => 1,
        };
        request.nodes = Some(((count, count), Origin::CommandLine));
    }
    request.place(nodes)
}

/// Plays srun.
pub(super) fn srun(in_job: bool, allocation: &Allocation, step_id: u32) -> i32 {
    if let Err(code) = start(Context::Local, "Plug-in initialization failed") {
        return code;
    }
    // Without an allocation srun ends without the exit hook.
    let (request, layout, command) = match prepare_step(in_job, allocation) {
        Ok(prepared) => prepared,
        Err(code) => return code,
    };
    HAS_EXIT_HOOK.store(true, Ordering::Relaxed);
    end(launch_step(in_job, allocation, step_id, request, layout, command))
}

fn prepare_step(
    in_job: bool,
    allocation: &Allocation,
) -> Result<(StepRequest, Layout, Vec<String>), i32> {
    let words = argv();
    let environ = Env::current();
    let release = state().scenario.release;
    let mut request = StepRequest::default();
    let refuse = |refused: Refused| give_up(refused.0);
    request.read_environment(&environ).map_err(refuse)?;
    options::process_environment(&environ)?;
    let used = cmdline::process(Tool::Srun, &words, &mut request)?;
    let command = words[used.min(words.len())..].to_vec();
    if command.is_empty() {
        return Err(give_up("No command given to execute."));
    }
    let warnings = request.settle(&environ, release).map_err(refuse)?;
    for warning in &warnings {
        match warning.strip_prefix("error: ") {
            Some(text) => state().error(text),
            None => state().log(Level::Info, warning, false),
        }
    }
    post_opt("Plugin stack post-option processing failed.")?;
    let placed = if in_job {
        request.place(&allocation.nodes)
    } else {
        allocate_nodes(&mut request, &allocation.nodes)
    };
    let layout = placed.map_err(refuse)?;
    Ok((request, Layout { warnings, ..layout }, command))
}

fn launch_step(
    in_job: bool,
    allocation: &Allocation,
    step_id: u32,
    request: StepRequest,
    layout: Layout,
    command: Vec<String>,
) -> Result<(), i32> {
    let release = state().scenario.release;
    set_job_variables(in_job, allocation, step_id, &request, &layout);
    state().job = Job::Launcher {
        job_id: allocation.job_id,
        step_id,
        nodes: layout.nodes.len() as u32,
        tasks: layout.tasks(),
        argv: command.clone(),
    };
    if release.program_fails(stack::call(Hook::LocalUserInit)) {
        return Err(give_up("Failure in local plugin stack"));
    }
    let mut environment = exported_to_step(request.export.as_deref(), &Env::current(), release);
    add_step_variables(&mut environment, step_id, &layout);
    let cpus = layout
        .nodes
        .iter()
        .map(|n| allocation.nodes.iter().find(|a| a.name == n.host).map_or(1, |a| a.cpus))
        .collect();
    let step = Step {
        job_id: allocation.job_id,
        step_id,
        argv: command,
        environment,
        options: options::sent(),
        total_tasks: layout.tasks(),
        layout,
        cwd: cwd(),
        request,
        cpus,
        body: TaskBody::Report(0),
    };
    state().emit(What::StepCreated(Box::new(step)));
    Ok(())
}

/// What srun puts into its own environment before `local_user_init`.
fn set_job_variables(
    in_job: bool,
    allocation: &Allocation,
    step_id: u32,
    request: &StepRequest,
    layout: &Layout,
) {
    let job_nodes: Vec<String> = if in_job {
        allocation.nodes.iter().map(|node| node.name.clone()).collect()
    } else {
        layout.nodes.iter().map(|node| node.host.clone()).collect()
    };
    let (job, step, tasks) =
        (allocation.job_id.to_string(), step_id.to_string(), layout.tasks().to_string());
    let user = state().scenario.user.clone();
    set_env("SLURM_JOB_ID", &job);
    set_env("SLURM_JOBID", &job);
    set_env("SLURM_STEP_ID", &step);
    set_env("SLURM_STEPID", &step);
    set_env("SLURM_NTASKS", &tasks);
    set_env("SLURM_NPROCS", &tasks);
    set_env("SLURM_TASKS_PER_NODE", layout.tasks_per_node());
    set_env("SLURM_NODELIST", hosts::compress(&job_nodes));
    set_env("SLURM_JOB_UID", user.uid.to_string());
    set_env("SLURM_JOB_USER", user.name);
    set_env("SLURM_UMASK", "0022");
    let spread = layout.tasks() <= layout.nodes.len() as u32;
    let default = if spread { "cyclic" } else { "block" };
    set_env("SLURM_DISTRIBUTION", request.distribution.as_deref().unwrap_or(default));
    if !in_job {
        let count = job_nodes.len().to_string();
        set_env("SLURM_NNODES", &count);
        set_env("SLURM_JOB_NUM_NODES", &count);
    }
    if let Some(per_node) = request.ntasks_per_node {
        set_env("SLURM_NTASKS_PER_NODE", per_node.to_string());
    }
}

/// What srun adds to the tasks' environment, whatever `--export` left of it.
fn add_step_variables(env: &mut Env, step_id: u32, layout: &Layout) {
    let (step, nodes, tasks, list, per_node) = (
        step_id.to_string(),
        layout.nodes.len().to_string(),
        layout.tasks().to_string(),
        layout.nodelist(),
        layout.tasks_per_node(),
    );
    if env.get("SLURM_JOB_NODELIST").is_none() {
        env.set("SLURM_JOB_NODELIST", &list);
    }
    for (name, value) in [
        ("SLURM_STEP_ID", &step),
        ("SLURM_STEPID", &step),
        ("SLURM_STEP_NODELIST", &list),
        ("SLURM_STEP_NUM_NODES", &nodes),
        ("SLURM_STEP_NUM_TASKS", &tasks),
        ("SLURM_TASKS_PER_NODE", &per_node),
        ("SLURM_STEP_TASKS_PER_NODE", &per_node),
        ("SLURM_NNODES", &nodes),
        ("SLURM_NTASKS", &tasks),
        ("SLURM_NPROCS", &tasks),
    ] {
        env.set(name, value);
    }
    env.set("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1");
    env.set("SLURM_SRUN_COMM_HOST", "127.0.0.1");
}
