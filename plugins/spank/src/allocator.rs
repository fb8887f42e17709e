// SPDX-License-Identifier: Apache-2.0
//! sbatch and salloc: the plan is computed here, once, as the user, before anything is submitted.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use disagg::plan::Plan;
use disagg::slurm::inherited::reaches_sbatch;
use disagg::slurm::time::TimeLimit;
use disagg_host::demand::{self, Demand};
use disagg_host::log;

use crate::Failure;
use crate::args::{self, Given, HELP, Opt, Settings};
use crate::environment::{self, Mutable};
use crate::ffi::Spank;
use crate::{handover, planning, roles};

/// Computes the plan of a submission that asks for one and puts it where the job and the controller
/// find it. Called once for each component of a heterogeneous job.
///
/// # Errors
/// A message for the user; nothing must be submitted.
pub fn submit(
    spank: Spank,
    settings: &dyn Fn() -> Settings,
    environment: &Mutable,
) -> Result<(), Failure> {
    let given = Given::take();
    let role = given.get(Opt::Role).map(|role| args::checked(Opt::Role, role)).transpose()?;
    let wanted = planning::Wanted {
        config: args::value(Opt::Config, given.get(Opt::Config))?,
        test: args::value(Opt::Test, given.get(Opt::Test))?,
        placement: args::value(Opt::Placement, given.get(Opt::Placement))?,
    };
    if wanted.is_empty() {
        forget_other_plans(spank, environment);
        return match role {
            Some(_) => {
                Err(format!("disagg: --{} needs --{}", Opt::Role.name(), Opt::Config.name()).into())
            }
            None => Ok(()),
        };
    }
    let settings = settings();
    let plan = planning::plan(&wanted, &settings)?;
    match role.as_deref() {
        None => {}
        Some(HELP) => {
            use std::io::Write as _;
            // Nobody is left to be told that stdout cannot be written.
            let _ = std::io::stdout().write_all(roles::table(&plan, None).as_bytes());
            crate::exit(0);
        }
        Some(role) => {
            return Err(format!(
                "disagg: a job has all roles: give --{}={role} to the srun that starts the step",
                Opt::Role.name()
            )
            .into());
        }
    }
    if args::flag(Opt::Explain, given.get(Opt::Explain)) {
        log::info(&roles::explanation(&plan));
    }
    if settings.announce {
        log::info(&roles::summary(&plan));
    }
    demand(spank, &plan)?;
    forget_the_outer_job(environment);
    hand_over(&plan, environment)?;
    EARLIER_COMPONENT.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether a component before this one has set anything.
static EARLIER_COMPONENT: AtomicBool = AtomicBool::new(false);

/// A submission without a config has no plan: neither that of the component before it, nor that of
/// the job in which it is made.
fn forget_other_plans(spank: Spank, environment: &Mutable) {
    let earlier = EARLIER_COMPONENT.swap(false, Ordering::Relaxed);
    if earlier {
        spank.unset_job_control(demand::VARIABLE);
    }
    if earlier || environment::get("SLURM_JOB_ID").is_some() {
        environment.unset(environment::PLAN);
        environment.unset(environment::DEMAND);
    }
}

/// A shell that is itself a job or a step has sizes, bindings and GPUs in its environment, which the
/// sruns of the new job would take for theirs. The client has read its own options by now; what
/// other plugins hand to the job stays.
fn forget_the_outer_job(environment: &Mutable) {
    let in_a_job = environment::get("SLURM_JOB_ID").is_some();
    let stays = ["SBATCH_", "SALLOC_", "SLURM_SPANK_", "_SLURM_SPANK_"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if !reaches_sbatch(&name, in_a_job) && !stays.iter().any(|start| name.starts_with(start)) {
            environment.unset(&name);
        }
    }
}

/// Tells the controller what the plan needs.
///
/// # Errors
/// A plan beyond what a demand can say, or Slurm's refusal.
pub fn demand(spank: Spank, plan: &Plan) -> Result<(), String> {
    let job = &plan.job;
    let demand = Demand {
        nodes: job.nodes.value,
        tasks: job.ntasks.value,
        tasks_per_node: job.ntasks_per_node.value,
        gpus_per_node: job.asked_gpus().unwrap_or_default(),
        config: Demand::config_label(&plan.config.name),
        segment: job.segment.as_ref().map(|segment| segment.value),
        time_min: minutes_of_the_test(plan),
    };
    let demand =
        demand.checked().map_err(|error| format!("disagg: the plan is too large: {error}"))?;
    spank
        .set_job_control(demand::VARIABLE, &demand.to_string())
        .map_err(|error| format!("disagg: {error}"))
}

/// What the configuration says that its test takes: Slurm would end a shorter job before the test
/// has ended. A default of the site's or ours says nothing of this test.
fn minutes_of_the_test(plan: &Plan) -> Option<u32> {
    let time: TimeLimit = plan.job.time_of_the_configuration()?.parse().ok()?;
    // To sbatch 0 is no limit.
    time.minutes().filter(|minutes| (1..=demand::MAX_COUNT).contains(minutes))
}

/// Gives the job its plan and the variables of the whole job.
///
/// # Errors
/// When a long plan cannot be written to a file.
pub fn hand_over(plan: &Plan, environment: &Mutable) -> Result<(), String> {
    let directory = std::env::current_dir()
        .map_err(|error| format!("disagg: the working directory is not there: {error}"))?;
    environment.set(environment::PLAN, &handover::write(plan, &directory)?)?;
    for (name, value) in plan.job_env.iter() {
        let known: HashMap<&str, String> = value
            .value
            .variables()
            .filter_map(|name| Some((name, environment::get(name)?)))
            .collect();
        let value = value.value.expand(|name| known.get(name).map(String::as_str));
        environment.set(name, &value.map_err(|error| format!("disagg: {name}: {error}"))?)?;
    }
    Ok(())
}
