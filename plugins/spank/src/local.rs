// SPDX-License-Identifier: Apache-2.0
//! srun: a step that names its role gets its nodes, tasks, MPI type and overlap by itself.
//!
//! Everything is decided in `slurm_spank_init`, before srun reads its own options: what is put into
//! the environment there becomes srun's defaults, which the command line still overrides.

use std::sync::{Mutex, MutexGuard, PoisonError};

use disagg::output::task::shell_command;
use disagg::plan::rank::has_addresses;
use disagg::plan::step::{FOR_CONTAINERS, Variable};
use disagg::plan::{Instance, Plan, resolve};
use disagg::slurm::counts::{TOTAL_GPUS, even_gpus, per_node};
use disagg_host::log;
use disagg_host::version::Running;

use crate::Failure;
use crate::args::{self, Given, HELP, Opt, Settings};
use crate::cmdline::CommandLine;
use crate::environment::{Mutable, SEVERAL};
use crate::ffi::Spank;
use crate::step::Around;
use crate::{allocator, environment, handover, hostfile, planning, roles, running, step};

/// What `slurm_spank_init` has decided, for the later callbacks.
struct Decided {
    plan: Plan,
    /// Whether the plan is the job's, and in the environment already.
    inherited: bool,
    /// The step's role; without one srun asks for the whole plan's allocation.
    role: Option<String>,
    /// Whether the step is to run in a container.
    in_container: bool,
    /// Whether to print the layout of an allocation that srun asks for.
    announce: bool,
}

fn decided() -> MutexGuard<'static, Option<Decided>> {
    static DECIDED: Mutex<Option<Decided>> = Mutex::new(None);
    DECIDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets srun's defaults. A command line without a role and without a config changes nothing.
///
/// # Errors
/// A message for the user; srun must not go on.
pub fn init(settings: &dyn Fn() -> Settings, environment: &Mutable) -> Result<(), Failure> {
    let line = CommandLine::of_this_process();
    let role = args::value(Opt::Role, line.get(Opt::Role.name()))?;
    // A srun in a task must not take its step's role for its own.
    environment.unset(Opt::Role.variable());
    environment.unset(environment::STEP_ROLE);
    environment.unset(environment::TASK);
    environment.unset(environment::CONTAINER);
    environment.unset(&args::sent_variable(Opt::Role));
    let inside = environment::get("SLURM_JOB_ID").is_some();
    // In a job the environment speaks of the plan that the job has already.
    let said = |opt: Opt| {
        let written = line.get(opt.name());
        match inside {
            true => written.map(|value| args::checked(opt, value)).transpose(),
            false => args::value(opt, written),
        }
    };
    let wanted = planning::Wanted {
        config: said(Opt::Config)?,
        test: said(Opt::Test)?,
        placement: said(Opt::Placement)?,
    };
    if role.is_none() && wanted.is_empty() {
        return Ok(());
    }
    let settings = settings();
    let inherited = wanted.is_empty();
    let other_job = role.as_deref().filter(|role| *role != HELP).map(|_| other_job(&line));
    let other_job = other_job.transpose()?.unwrap_or_default();
    let plan = match (&role, inherited) {
        (None, false) if inside => {
            return Err(format!(
                "disagg: inside a job --{} needs --{} with it, to say what the step runs",
                Opt::Config.name(),
                Opt::Role.name()
            )
            .into());
        }
        (_, false) => planning::plan(&wanted, &settings)?,
        (role, true) => match environment::get(environment::PLAN) {
            Some(value) => handover::read(&value)?,
            None => return Err(no_plan(role.as_deref().unwrap_or_default()).into()),
        },
    };
    let hosts = if inside && !other_job { hosts_of_the_job(&line)? } else { None };
    let role = match role.as_deref() {
        None => None,
        Some(HELP) => {
            print(&roles::table(&plan, hosts.as_deref()));
            crate::exit(0);
        }
        Some(role) => Some(instance(&plan, role)?.name),
    };
    let defaults = match &role {
        Some(role) => {
            let instance = instance(&plan, role)?;
            step::check(&instance, &line)?;
            if inside && !other_job && !args::flag(Opt::Again, line.get(Opt::Again.name())) {
                claim(&instance)?;
            }
            let host_file = match hosts {
                Some(hosts) => pin(&instance, &hosts, &line)?,
                None => None,
            };
            let allocates = !inside && !other_job;
            if allocates && plan.engine.is_some() {
                return Err(format!(
                    "disagg: {} needs the nodes of the other steps of {}: start it in a job, which sbatch or \
                     salloc --{}=FILE gets",
                    instance.name,
                    plan.config.name,
                    Opt::Config.name()
                )
                .into());
            }
            let around = Around {
                allocates,
                one_sided: Running::detect().overlap_is_one_sided(),
                total_gpus: environment::get(TOTAL_GPUS).is_some(),
            };
            step::defaults(&instance, host_file, around)
        }
        None => step::whole_job(&plan),
    };
    for name in defaults.unset {
        environment.unset(name);
    }
    for (name, value) in &defaults.set {
        environment.set(name, value)?;
    }
    // As pyxis takes them.
    let in_container = ["image", "name"].iter().any(|what| {
        let variable = format!("PYXIS_CONTAINER_{}", what.to_uppercase());
        line.get(&format!("container-{what}")).is_some() || environment::get(&variable).is_some()
    });
    let announce = settings.announce;
    *decided() = Some(Decided { plan, inherited, role, in_container, announce });
    Ok(())
}

/// Gives the step its plan and its role, and the controller its demand when srun asks for the whole
/// plan's allocation.
///
/// # Errors
/// A message for the user; srun must not go on.
pub fn options_are_read(spank: Spank, environment: &Mutable) -> Result<(), String> {
    let decided = decided();
    let given = Given::lock().get(Opt::Role).map(str::to_owned);
    let Some(decided) = decided.as_ref() else {
        return match given {
            Some(role) => Err(unseen(&role)),
            None => Ok(()),
        };
    };
    if let (Some(given), Some(role)) = (given, &decided.role)
        && given != *role
    {
        return Err(unseen(&given));
    }
    if decided.role.is_none() {
        if decided.announce {
            log::info(&roles::summary(&decided.plan));
        }
        allocator::demand(spank, &decided.plan)?;
    }
    if !decided.inherited {
        allocator::hand_over(&decided.plan, environment)?;
    }
    if let Some(role) = &decided.role {
        environment.set(environment::STEP_ROLE, role)?;
        if decided.in_container {
            let is_several = CommandLine::of_this_process().get("multi-prog").is_some()
                || std::env::var_os("SLURM_SRUN_MULTI").is_some();
            let several = is_several.then_some(SEVERAL);
            environment.set(environment::CONTAINER, several.unwrap_or("1"))?;
        }
        let instance = instance(&decided.plan, role)?;
        without_the_remote_side(&instance, decided.in_container, environment)?;
    }
    Ok(())
}

/// Gives the step what needs no slurmstepd with this plugin: all variables but those whose values
/// differ from task to task, and those that such a value refers to, which it must see as they were
/// before. A node that lacks the plugin so gets them too.
fn without_the_remote_side(
    instance: &Instance<'_>,
    in_container: bool,
    environment: &Mutable,
) -> Result<(), String> {
    let nodes = hosts_of_the_job(&CommandLine::of_this_process())?.unwrap_or_default();
    if instance.plan.engine.is_some() && instance.hosts(&nodes).is_none() {
        return Err(format!(
            "disagg: {} is told the names of the job's nodes, which are not known here: start it in the job's \
             script",
            instance.name
        ));
    }
    has_addresses(instance.plan, &nodes)
        .map_err(|error| format!("disagg: {}: {error}", instance.name))?;
    let spec = resolve(instance, &nodes);
    for name in &spec.unset {
        environment.unset(name);
    }
    for (name, value) in FOR_CONTAINERS {
        if environment::get(name).is_none_or(|given| given.is_empty()) {
            environment.set(name, value)?;
        }
    }
    let referred: Vec<&str> =
        spec.set.iter().flat_map(|variable| variable.value.variables()).collect();
    let settled = |variable: &&Variable<'_>| {
        variable.value.is_literal() && !referred.contains(&variable.name)
    };
    for variable in spec.set.iter().filter(settled) {
        environment.set(variable.name, &variable.value.literal_text())?;
    }
    // slurmstepd's side replaces the command, so only a node that lacks it runs the first part.
    let node_lacks_the_plugin = match in_container {
        false => {
            "test \"$SLURM_LOCALID\" != 0 || echo \"disagg: $SLURMD_NODENAME lacks spank_disagg.so: \
             variables that differ from task to task are set for this command alone\" >&2"
        }
        true => {
            "echo \"disagg: $SLURMD_NODENAME lacks spank_disagg.so: nothing shows that the step is in \
             its container there\" >&2; exit 1"
        }
    };
    for (name, value) in shell_command(&spec) {
        let value = value.literal_text();
        if name == spec.command_variable {
            environment.set(&name, &format!("{node_lacks_the_plugin}; {value}"))?;
        } else {
            environment.set(&name, &value)?;
        }
    }
    Ok(())
}

/// Compares the step that srun got with the plan.
///
/// # Errors
/// A message for the user.
pub fn step_exists(spank: Spank) -> Result<(), String> {
    let decided = decided();
    let Some(decided) = decided.as_ref() else { return Ok(()) };
    match (&decided.role, spank.step_size()) {
        (Some(role), Some((nodes, tasks))) => {
            step::check_size(&instance(&decided.plan, role)?, nodes, tasks)
        }
        _ => Ok(()),
    }
}

/// The instance of that name, or a message that lists the plan's.
///
/// # Errors
/// That message.
pub fn instance<'p>(plan: &'p Plan, role: &str) -> Result<Instance<'p>, String> {
    plan.instance(role).map_err(|error| {
        format!(
            "disagg: the plan of {} has no role '{role}'; it has {}",
            plan.config.name, error.known
        )
    })
}

fn no_plan(role: &str) -> String {
    format!(
        "disagg: --{option}={role}: there is no plan here. Submit the job with sbatch --{config}=FILE \
         and start the step inside it, or give --{config}=FILE to srun too",
        option = Opt::Role.name(),
        config = Opt::Config.name()
    )
}

/// srun has found a role where this plugin did not look for one.
fn unseen(role: &str) -> String {
    format!(
        "disagg: --{option}={role} was read too late to size the step: write it directly after srun, \
         once, before options of other plugins",
        option = Opt::Role.name()
    )
}

/// Whether srun is sent to another job than the one around it. The environment does not speak of that
/// job's nodes, so the command line must.
///
/// # Errors
/// A message for the user.
fn other_job(line: &CommandLine) -> Result<bool, String> {
    let around = environment::get("SLURM_JOB_ID");
    let Some(job) = line.get("jobid").or(around.as_deref()) else { return Ok(false) };
    if around.as_deref() == Some(job) && environment::get("SLURM_JOB_NODELIST").is_some() {
        return Ok(false);
    }
    if line.get("nodelist").is_some() {
        return Ok(true);
    }
    Err(format!(
        "disagg: from outside of job {job} it is not known which of its nodes are the role's: start the \
         step in the job's script, or give its nodes with --nodelist (`squeue --jobs={job} --format=%N` \
         has all of the job's, and `srun --{}={HELP}` in the job those of each role)",
        Opt::Role.name()
    ))
}

/// The hosts of the allocation, of one component when srun names it.
fn hosts_of_the_job(line: &CommandLine) -> Result<Option<Vec<String>>, String> {
    let component =
        line.get("het-group").map(|group| format!("SLURM_JOB_NODELIST_HET_GROUP_{group}"));
    let list = component.and_then(|name| environment::get(&name));
    let Some(list) = list.or_else(|| environment::get("SLURM_JOB_NODELIST")) else {
        return Ok(None);
    };
    disagg::slurm::hostlist::expand(&list)
        .map(Some)
        .map_err(|error| format!("disagg: SLURM_JOB_NODELIST={list}: {error}"))
}

fn claim(instance: &Instance<'_>) -> Result<(), String> {
    let job = ["SLURM_CLUSTER_NAME", "SLURM_CONF", "SLURM_JOB_ID"]
        .map(|name| environment::get(name).unwrap_or_default());
    let job = job.each_ref().map(String::as_str);
    let role = &instance.name;
    match running::claim(&job, role) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "disagg: {role} is already running in job {}. Wait for that step to end, or give --{} to \
             start another one",
            job[2],
            Opt::Again.name()
        )),
        Err(error) => {
            log::verbose(&format!(
                "disagg: whether {role} is already running is not known: {error}"
            ));
            Ok(())
        }
    }
}

/// The host file that pins the step to its nodes, unless the user chooses nodes by other options.
fn pin(
    instance: &Instance<'_>,
    hosts: &[String],
    line: &CommandLine,
) -> Result<Option<String>, String> {
    let Some(host_of_each_task) = instance.host_of_each_task(hosts) else {
        return Err(format!(
            "disagg: the job has {}, but the plan of {} needs {}: submit it with --nodes={}",
            step::plural(hosts.len() as u32, "node"),
            instance.plan.config.name,
            instance.plan.layout.total_nodes,
            instance.plan.layout.total_nodes
        ));
    };
    let cpus = environment::get("SLURM_JOB_CPUS_PER_NODE");
    let cpus = cpus.and_then(|text| per_node(&text, hosts.len())).unwrap_or_default();
    if let Some((host, cpus, tasks)) = instance.too_few_cpus(hosts, &cpus) {
        return Err(format!(
            "disagg: {host} has {} in this job, but {} runs {} there: submit with --ntasks-per-node={}",
            step::plural(cpus, "CPU"),
            instance.name,
            step::plural(tasks, "task"),
            instance.plan.job.ntasks_per_node.value
        ));
    }
    even_gpus(instance.plan.job.gpus_per_node.value, environment::get)
        .map_err(|error| format!("disagg: {error}"))?;
    if !step::is_pinned(line) {
        if line.get("nodelist").is_none() {
            let own = instance.hosts(hosts).unwrap_or_default();
            log::info(&format!(
                "disagg: the command line chooses nodes, so {} is not bound to its own ({own}); add -w {own} to have it there",
                instance.name,
                own = disagg::slurm::hostlist::compress(own)
            ));
        }
        return Ok(None);
    }
    hostfile::keep(&host_of_each_task).map(Some).map_err(|error| {
        format!("disagg: the host list of {} cannot be kept: {error}", instance.name)
    })
}

fn print(text: &str) {
    use std::io::Write as _;
    // Nobody is left to be told that stdout cannot be written.
    let _ = std::io::stdout().write_all(text.as_bytes());
}
