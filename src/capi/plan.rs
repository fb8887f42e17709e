// SPDX-License-Identifier: Apache-2.0
//! Plans: how they are made and read, and what they contain.

use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::error::{disagg_error, entry, rendered};
use super::ffi::{Lent, given, handle, string, text};
use super::guard::{Failure, freed, guarded};
use super::options::{self, disagg_options};
use super::status::disagg_status;
use crate::diagnostic::{Diagnostic, Location, Position, Source};
use crate::input::source;
use crate::output::script;
use crate::plan::{BadPlan, GpuRequest, Instance, Plan, Purpose, Traced};
use crate::slurm::time::{TimeError, TimeLimit};

/// The allocation of a plan, with the names of sbatch's options. A NULL text or 0 means that the
/// option is not used.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_job {
    /// `--job-name`.
    pub name: *const c_char,
    /// `--output`.
    pub output: *const c_char,
    /// `--time`, in Slurm's form.
    pub time: *const c_char,
    /// `--partition`.
    pub partition: *const c_char,
    /// `--account`.
    pub account: *const c_char,
    /// `--nodes`.
    pub nodes: u32,
    /// `--ntasks`: one for each GPU.
    pub ntasks: u32,
    /// `--ntasks-per-node`.
    pub ntasks_per_node: u32,
    /// `--gpus-per-node`.
    pub gpus_per_node: u32,
    /// `--segment`, in nodes.
    pub segment: u32,
    /// The time limit in minutes, rounded up as sbatch does; `UINT32_MAX`: no limit.
    pub minutes: u32,
    /// `--qos`.
    pub qos: *const c_char,
    /// `--constraint`.
    pub constraint: *const c_char,
    /// `--reservation`.
    pub reservation: *const c_char,
    /// `--mem`, in Slurm's form.
    pub mem: *const c_char,
    /// Further options for sbatch, one word each; the array ends with NULL.
    pub sbatch_args: *const *mut c_char,
    /// How the GPUs are asked for.
    pub gpu_request: disagg_gpu_request,
    /// 1: `--exclusive`.
    pub exclusive: u32,
}

/// How a job asks for its GPUs.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum disagg_gpu_request {
    /// `--gpus-per-node`.
    PerNode = 0,
    /// `--gres=gpu:N`, N as `gpus_per_node`.
    Gres = 1,
    /// Not at all: Slurm does not count the cluster's GPUs.
    None = 2,
    /// `--gpus` with the GPUs of all nodes together, and `--gpus-per-node`.
    Total = 3,
}

impl From<GpuRequest> for disagg_gpu_request {
    fn from(request: GpuRequest) -> Self {
        match request {
            GpuRequest::PerNode => Self::PerNode,
            GpuRequest::Gres => Self::Gres,
            GpuRequest::None => Self::None,
            GpuRequest::Total => Self::Total,
        }
    }
}

/// What a role is for.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum disagg_purpose {
    /// Starts before all others and runs as long as they do.
    Service = 0,
    /// Runs and ends before the servers start.
    Check = 1,
    /// Serves requests. The run fails when it ends before the client.
    Server = 2,
    /// Passes requests on to servers; otherwise as a server.
    Router = 3,
    /// Sends requests. Its result is the result of the run.
    Client = 4,
}

impl From<Purpose> for disagg_purpose {
    fn from(purpose: Purpose) -> Self {
        match purpose {
            Purpose::Service => Self::Service,
            Purpose::Check => Self::Check,
            Purpose::Server => Self::Server,
            Purpose::Router => Self::Router,
            Purpose::Client => Self::Client,
        }
    }
}

/// A kind of step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_role {
    /// Its name.
    pub name: *const c_char,
    /// What it is for.
    pub purpose: disagg_purpose,
    /// How many steps it has; 0 when the plan does not run it.
    pub count: u32,
    /// Nodes of each step.
    pub nodes: u32,
    /// Tasks (ranks) of each step.
    pub tasks: u32,
    /// Tasks on each full node of a step.
    pub tasks_per_node: u32,
    /// GPUs that a step uses on each full node; 0: none.
    pub gpus_per_node: u32,
}

/// A plan. It never changes. Free it with `disagg_plan_free`. Instances may outlive it.
pub struct disagg_plan {
    pub(super) plan: Arc<Plan>,
    lent: Lent<(disagg_job, Vec<disagg_role>)>,
    warnings: CString,
    /// Made when they are asked for: a small plan may have very many steps.
    steps: OnceLock<Names>,
    checks: OnceLock<Names>,
}

type Names = Lent<*const *mut c_char>;

impl disagg_plan {
    fn new(plan: Plan, mut warnings: Vec<Diagnostic>) -> Result<Self, Failure> {
        warnings.extend(plan.notes.iter().map(Diagnostic::note));
        let lent = Lent::new(|texts| {
            let job = &plan.job;
            let minutes = minutes(&job.time.value)?;
            let some = |text: &Option<Traced<String>>| {
                texts.keep_some(text.as_ref().map(|text| &*text.value))
            };
            let [partition, account, qos, constraint, reservation, mem] = [
                &job.partition,
                &job.account,
                &job.qos,
                &job.constraint,
                &job.reservation,
                &job.mem,
            ]
            .map(some);
            let job = disagg_job {
                name: texts.keep(&*job.name.value)?,
                output: texts.keep(&*job.output.value)?,
                time: texts.keep(&*job.time.value)?,
                partition: partition?,
                account: account?,
                qos: qos?,
                constraint: constraint?,
                reservation: reservation?,
                mem: mem?,
                sbatch_args: texts.keep_all(job.sbatch_args.iter().map(|word| &*word.value))?,
                gpu_request: job.gpu_request.value.into(),
                exclusive: job.exclusive.as_ref().is_some_and(|exclusive| exclusive.value).into(),
                nodes: job.nodes.value,
                ntasks: job.ntasks.value,
                ntasks_per_node: job.ntasks_per_node.value,
                gpus_per_node: job.gpus_per_node.value,
                segment: job.segment.as_ref().map_or(0, |nodes| nodes.value),
                minutes,
            };
            let roles = plan.roles.iter().map(|(name, role)| {
                Ok(disagg_role {
                    name: texts.keep(name.as_str())?,
                    purpose: role.purpose.into(),
                    count: role.count,
                    nodes: role.step.nodes,
                    tasks: role.step.tasks,
                    tasks_per_node: role.step.tasks_per_node,
                    gpus_per_node: role.gpus,
                })
            });
            Ok((job, roles.collect::<Result<_, Failure>>()?))
        })?;
        Ok(Self {
            plan: Arc::new(plan),
            lent,
            warnings: rendered(warnings),
            steps: OnceLock::new(),
            checks: OnceLock::new(),
        })
    }
}

fn minutes(time: &str) -> Result<u32, Failure> {
    let limit: TimeLimit = time
        .parse()
        .map_err(|error: TimeError| Failure::because(disagg_status::BadPlan, error.to_string()))?;
    Ok(limit.minutes().unwrap_or(u32::MAX))
}

fn load(json_or_path: &str) -> Result<disagg_plan, Failure> {
    let source = if json_or_path.trim_start().starts_with('{') {
        Arc::new(Source::new("plan", json_or_path))
    } else {
        source::read(Path::new(json_or_path), json_or_path)
            .map_err(|found| Failure::new(disagg_status::BadInput, found))?
    };
    let plan = Plan::from_json(&source.text).map_err(|error| {
        let location = match &error {
            BadPlan::Json(error) if error.line() > 0 => {
                let number = |number| u32::try_from(number).unwrap_or(u32::MAX).max(1);
                let (line, column) = (number(error.line()), number(error.column()));
                Some(Location { source, position: Position { line, column, length: 1 } })
            }
            _ => None,
        };
        Failure::new(disagg_status::BadPlan, Diagnostic::error(error.to_string()).at(location))
    })?;
    disagg_plan::new(plan, Vec::new())
}

/// Makes a plan and stores it in `*plan`. It reads the configuration, site.yaml and the
/// environment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_new(
    options: Option<&disagg_options>,
    plan: Option<&mut MaybeUninit<*mut disagg_plan>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(plan, "plan", error, || {
        // SAFETY: the caller gives options as the header has them.
        let (plan, warnings) = unsafe { options::plan(given(options, "options")?) }?;
        Ok(handle(disagg_plan::new(plan, warnings)?))
    })
}

/// Reads a plan and stores it in `*plan`. `source` is the value of `SLURM_DISAGG_PLAN` in a job, the
/// text of `disagg_plan_to_json`, or the path of a file with such a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_load(
    source: *const c_char,
    plan: Option<&mut MaybeUninit<*mut disagg_plan>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    // SAFETY: the caller gives a text.
    entry(plan, "plan", error, || Ok(handle(load(unsafe { text(source, "source") }?)?)))
}

/// Frees a plan and what is borrowed from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_free(plan: Option<Box<disagg_plan>>) {
    freed(plan);
}

/// The allocation of a plan. It is borrowed from the plan. NULL gives NULL.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_job(plan: Option<&disagg_plan>) -> Option<&disagg_job> {
    plan.map(|plan| &plan.lent.lent.0)
}

/// A role of a plan by its index, from 0, in the order in which the roles start. It is borrowed from
/// the plan. NULL after the last role.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_role(
    plan: Option<&disagg_plan>,
    index: usize,
) -> Option<&disagg_role> {
    plan?.lent.lent.1.get(index)
}

/// The names of the plan's steps, without checks, in the order in which they start: an array that
/// ends with NULL. It is borrowed from the plan. NULL gives NULL.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_steps(plan: Option<&disagg_plan>) -> *const *mut c_char {
    plan.map_or(std::ptr::null(), |plan| names(&plan.steps, plan.plan.instances()))
}

/// The names of the plan's checks, which run at the same time before the other steps start: as
/// `disagg_plan_steps`.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_checks(plan: Option<&disagg_plan>) -> *const *mut c_char {
    plan.map_or(std::ptr::null(), |plan| names(&plan.checks, plan.plan.checks()))
}

/// NULL after an internal error: there are no other errors here.
fn names<'p>(
    kept: &OnceLock<Names>,
    instances: impl Iterator<Item = Instance<'p>>,
) -> *const *mut c_char {
    let made = guarded(|| {
        let names = instances.map(|instance| instance.name);
        let names = match kept.get() {
            Some(names) => names,
            None => {
                let names = Lent::new(|texts| texts.keep_all(names))?;
                kept.get_or_init(|| names)
            }
        };
        Ok(names.lent)
    });
    made.unwrap_or(std::ptr::null())
}

/// The warnings and notes about a plan, as a text for people; empty when there are none. It is
/// borrowed from the plan. NULL gives an empty text.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_warnings(plan: Option<&disagg_plan>) -> *const c_char {
    plan.map_or(c"", |plan| &plan.warnings).as_ptr()
}

/// Stores the JSON form of a plan, one line, in `*json`; free it with `disagg_string_free`. It
/// contains the values of all variables, including secrets.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_to_json(
    plan: Option<&disagg_plan>,
    json: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(json, "json", error, || {
        let json = given(plan, "plan")?.plan.to_json();
        string(json.map_err(|error| Failure::because(disagg_status::BadPlan, error.to_string()))?)
    })
}

/// Stores the plan's launch script in `*script`; free it with `disagg_string_free`. It is a batch
/// script that starts all steps, waits for them and cleans up.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_launch_script(
    plan: Option<&disagg_plan>,
    script: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(script, "script", error, || {
        let script = script::launch(&given(plan, "plan")?.plan);
        string(script.map_err(|error| Failure::because(disagg_status::BadPlan, error.to_string()))?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{Context, request};

    fn refused(change: impl Fn(&mut Plan)) -> Failure {
        let options = request::Options {
            config: "x.yaml".into(),
            trtllm_dir: Some("/src".into()),
            models_dir: Some("/models".into()),
            ..Default::default()
        };
        let context = Context { env: &|_| None, current_dir: "/".into() };
        let yaml = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 3}\n";
        let text = Arc::new(Source::new("x.yaml", yaml));
        let (mut plan, _) = request::plan_text(&options, &text, &context).unwrap();
        assert!(load(&plan.to_json().unwrap()).is_ok());
        change(&mut plan);
        load(&plan.to_json().unwrap()).err().unwrap()
    }

    #[test]
    fn plans_from_elsewhere_with_values_that_c_cannot_have_are_refused() {
        let failure = refused(|plan| plan.job.name.value = "x\0y".into());
        assert_eq!(failure.status, disagg_status::BadPlan);
        assert!(failure.diagnostics.to_string().contains("NUL"), "{}", failure.diagnostics);
        let failure = refused(|plan| plan.job.time.value = "soon".into());
        assert_eq!(failure.status, disagg_status::BadPlan);
    }
}
