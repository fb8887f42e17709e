// SPDX-License-Identifier: Apache-2.0
//! Plans: made from a configuration or read back, and what is in them.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::Arc;

use super::entry::{Failure, entry, freeing};
use super::error::{disagg_diagnostic, disagg_error, listed};
use super::ffi::{Texts, fill, given, growing, hand_over, item, sized, text};
use super::options::{Asked, disagg_options};
use super::status::disagg_status;
use crate::diagnostic::{Diagnostic, Location, Position, Source};
use crate::input::values::Choice;
use crate::input::{request, source};
use crate::output::script;
use crate::plan::{BadPlan, FrontendNode, MAX_JSON, Placement, Plan, Purpose};
use crate::slurm::time::{TimeError, TimeLimit};

/// What a plan says on the size of the test.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_layout {
    /// Set by the caller: `sizeof (disagg_layout)`.
    pub size: usize,
    /// Context servers.
    pub num_ctx_servers: u32,
    /// Generation servers.
    pub num_gen_servers: u32,
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// World size of a context server: its GPUs, one rank each.
    pub gpus_per_ctx_server: u32,
    /// World size of a generation server.
    pub gpus_per_gen_server: u32,
    /// Nodes that a context server spans.
    pub nodes_per_ctx_server: u32,
    /// Nodes that a generation server spans.
    pub nodes_per_gen_server: u32,
    /// Nodes of the whole job.
    pub total_nodes: u32,
    /// GPUs of the whole job: `total_nodes` times `gpus_per_node`.
    pub total_gpus: u32,
    /// 1 when CTX and GEN steps run under `trtllm-llmapi-launch`, else 0.
    pub llmapi_launch: u32,
}

growing!(disagg_layout, last llmapi_launch: u32);

/// The test that a plan is for. The texts are borrowed from the plan.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_test {
    /// Set by the caller: `sizeof (disagg_test)`.
    pub size: usize,
    /// `MODULE::FUNCTION[ID]`, as pytest and the test lists name it.
    pub node_id: *const c_char,
    /// The pytest module.
    pub module: *const c_char,
    /// The test function.
    pub function: *const c_char,
    /// The id in brackets.
    pub id: *const c_char,
    /// What is measured: `e2e`, `gen_only`, ...
    pub mode: *const c_char,
    /// The configuration's name.
    pub config: *const c_char,
    /// The configuration's path.
    pub config_path: *const c_char,
    /// SHA-256 of the configuration's bytes, in lower-case hexadecimal.
    pub config_sha256: *const c_char,
    /// The generation of rules that the plan follows.
    pub rules: *const c_char,
    /// How servers share nodes, by the name that `disagg_options` takes.
    pub placement: *const c_char,
    /// The node of DISAGG_SERVER and BENCHMARK, by the name that `disagg_options` takes.
    pub frontend_node: *const c_char,
}

growing!(disagg_test, last frontend_node: *const c_char);

/// The allocation that a plan asks for, in sbatch's terms. The texts are borrowed from the plan.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_job {
    /// Set by the caller: `sizeof (disagg_job)`.
    pub size: usize,
    /// `--job-name`.
    pub name: *const c_char,
    /// `--output`.
    pub output: *const c_char,
    /// `--time`, in Slurm's form.
    pub time: *const c_char,
    /// `--partition`; NULL: Slurm's default.
    pub partition: *const c_char,
    /// `--account`; NULL: Slurm's default.
    pub account: *const c_char,
    /// `--nodes`.
    pub nodes: u32,
    /// `--ntasks`: one for each GPU.
    pub ntasks: u32,
    /// `--ntasks-per-node`.
    pub ntasks_per_node: u32,
    /// `--gpus-per-node`.
    pub gpus_per_node: u32,
    /// `--segment`, in nodes; 0: none.
    pub segment: u32,
    /// The time limit in minutes, rounded up as sbatch does; `UINT32_MAX`: no limit.
    pub minutes: u32,
}

growing!(disagg_job, last minutes: u32);

/// Where things are. The texts are borrowed from the plan.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_paths {
    /// Set by the caller: `sizeof (disagg_paths)`.
    pub size: usize,
    /// D, the source tree.
    pub source_dir: *const c_char,
    /// M, the models.
    pub models_dir: *const c_char,
    /// W, the workspace of the submission.
    pub workspace: *const c_char,
    /// A script that each step runs instead of its command; NULL: none.
    pub run_script: *const c_char,
    /// A script that runs on every node before the servers start; NULL: none.
    pub install_script: *const c_char,
}

growing!(disagg_paths, last install_script: *const c_char);

/// A kind of step. The text is borrowed from the plan.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_role {
    /// Set by the caller: `sizeof (disagg_role)`.
    pub size: usize,
    /// `GEN`, `CTX`, `DISAGG_SERVER` or `BENCHMARK`.
    pub name: *const c_char,
    /// How many steps of this kind there are: GEN_0, GEN_1, ...
    pub count: u32,
    /// Nodes that each of them spans.
    pub nodes: u32,
    /// Tasks (ranks) of each.
    pub tasks: u32,
    /// Tasks on each full node.
    pub tasks_per_node: u32,
}

growing!(disagg_role, last tasks_per_node: u32);

/// A plan. It never changes, so any number of threads may use it at the same time; free it once,
/// with `disagg_plan_free`, after the last use. The steps made from it may outlive it.
pub struct disagg_plan {
    pub(super) plan: Arc<Plan>,
    test: disagg_test,
    job: disagg_job,
    paths: disagg_paths,
    roles: Vec<disagg_role>,
    diagnostics: Vec<disagg_diagnostic>,
    /// What the pointers above point into.
    _texts: Texts,
}

// SAFETY: it owns what its pointers point to, and nothing changes after `new`.
unsafe impl Send for disagg_plan {}
// SAFETY: as above.
unsafe impl Sync for disagg_plan {}

impl disagg_plan {
    pub(super) fn new(plan: Plan, mut said: Vec<Diagnostic>) -> Result<Self, Failure> {
        said.extend(plan.notes.iter().map(Diagnostic::note));
        let mut texts = Texts::default();
        Ok(Self {
            test: test(&plan, &mut texts)?,
            job: job(&plan, &mut texts)?,
            paths: paths(&plan, &mut texts)?,
            roles: roles(&plan, &mut texts)?,
            diagnostics: listed(&said, &mut texts)?,
            _texts: texts,
            plan: Arc::new(plan),
        })
    }
}

fn test(plan: &Plan, texts: &mut Texts) -> Result<disagg_test, Failure> {
    let test = &plan.test;
    let mut keep = |text: &str| texts.keep(text).map(|text| text.cast_const());
    Ok(disagg_test {
        size: size_of::<disagg_test>(),
        node_id: keep(&test.node_id())?,
        module: keep(&test.module)?,
        function: keep(&test.function)?,
        id: keep(&test.id)?,
        mode: keep(&test.mode)?,
        config: keep(&test.config)?,
        config_path: keep(&test.config_path)?,
        config_sha256: keep(&test.config_sha256)?,
        rules: keep(plan.rules.name())?,
        placement: keep(named(Placement::CHOICES, plan.placement))?,
        frontend_node: keep(named(FrontendNode::CHOICES, plan.frontend_node))?,
    })
}

fn named<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    names.iter().find(|(_, named)| *named == value).map_or("", |(name, _)| name)
}

fn job(plan: &Plan, texts: &mut Texts) -> Result<disagg_job, Failure> {
    let job = &plan.job;
    Ok(disagg_job {
        size: size_of::<disagg_job>(),
        name: texts.keep(&*job.name.value)?,
        output: texts.keep(&*job.output.value)?,
        time: texts.keep(&*job.time.value)?,
        partition: texts.keep_some(job.partition.as_ref().map(|name| name.value.as_str()))?,
        account: texts.keep_some(job.account.as_ref().map(|name| name.value.as_str()))?,
        nodes: job.nodes.value,
        ntasks: job.ntasks.value,
        ntasks_per_node: job.ntasks_per_node.value,
        gpus_per_node: job.gpus_per_node.value,
        segment: job.segment.as_ref().map_or(0, |nodes| nodes.value),
        minutes: minutes(&job.time.value)?,
    })
}

fn minutes(time: &str) -> Result<u32, Failure> {
    let limit: TimeLimit = time
        .parse()
        .map_err(|error: TimeError| Failure::because(disagg_status::BadInput, error.to_string()))?;
    Ok(limit.minutes().unwrap_or(u32::MAX))
}

fn paths(plan: &Plan, texts: &mut Texts) -> Result<disagg_paths, Failure> {
    Ok(disagg_paths {
        size: size_of::<disagg_paths>(),
        source_dir: texts.keep(&*plan.source_dir)?,
        models_dir: texts.keep(&*plan.models_dir)?,
        workspace: texts.keep(&*plan.workspace)?,
        run_script: texts.keep_some(plan.run_script.as_deref())?,
        install_script: texts.keep_some(plan.install_script.as_deref())?,
    })
}

fn roles(plan: &Plan, texts: &mut Texts) -> Result<Vec<disagg_role>, Failure> {
    let roles = plan.roles.iter().filter(|(_, role)| role.purpose != Purpose::Check);
    let roles = roles.map(|(name, role)| {
        Ok(disagg_role {
            size: size_of::<disagg_role>(),
            name: texts.keep(name.as_str())?,
            count: role.count,
            nodes: role.step.nodes,
            tasks: role.step.tasks,
            tasks_per_node: role.step.tasks_per_node,
        })
    });
    roles.collect()
}

/// A failure to read a JSON form, at its place.
fn bad_plan(error: BadPlan, source: Arc<Source>) -> Failure {
    let location = match &error {
        BadPlan::Json(error) if error.line() > 0 => {
            let position = Position {
                line: u32::try_from(error.line()).unwrap_or(u32::MAX),
                column: u32::try_from(error.column()).unwrap_or(u32::MAX).max(1),
                length: 1,
            };
            Some(Location { source, position })
        }
        _ => None,
    };
    Failure::new(disagg_status::BadPlan, Diagnostic::error(error.to_string()).at(location))
}

fn read_back(source: &Arc<Source>) -> Result<disagg_plan, Failure> {
    let plan = Plan::from_json(&source.text).map_err(|error| bad_plan(error, source.clone()))?;
    let unusable = |failure| Failure { status: disagg_status::BadPlan, ..failure };
    disagg_plan::new(plan, Vec::new()).map_err(unusable)
}

/// Makes a plan; `yaml` is the configuration's text where no file is to be read.
fn compute(asked: &Asked, yaml: Option<&Arc<Source>>) -> Result<disagg_plan, Failure> {
    let (plan, warnings) = asked
        .in_context(|context| match yaml {
            None => request::plan(&asked.options, context),
            Some(text) => request::plan_text(&asked.options, text, context),
        })
        .map_err(|found| Failure::new(disagg_status::BadInput, found))?;
    disagg_plan::new(plan, warnings)
}

/// Makes a plan from a configuration and stores it in `*plan`; free it with `disagg_plan_free`.
///
/// It reads the configuration, the site's settings files and the environment. `error` may be NULL;
/// else, on failure, `*error` receives an error object to be freed with `disagg_error_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_new(
    options: *const disagg_options,
    plan: Option<&mut MaybeUninit<*mut disagg_plan>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let out = given(plan, "plan")?;
        // SAFETY: the caller gives options as the header says.
        let asked = unsafe { Asked::read(options) }?;
        out.write(Box::into_raw(Box::new(compute(&asked, None)?)));
        Ok(())
    })
}

/// The same from `length` bytes of YAML at `yaml`: no configuration file is read, and
/// `options->config` only says what the text is called. The test's name is its last part, without
/// `.yaml`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_new_from_yaml(
    options: *const disagg_options,
    yaml: *const c_char,
    length: usize,
    plan: Option<&mut MaybeUninit<*mut disagg_plan>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let out = given(plan, "plan")?;
        // SAFETY: the caller gives options as the header says.
        let asked = unsafe { Asked::read(options) }?;
        // SAFETY: the caller gives so many bytes.
        let bytes = unsafe { sized(yaml, length, source::MAX_FILE as usize, "yaml") }?;
        let source = source::decode(asked.options.config.clone(), bytes)
            .map_err(|found| Failure::new(disagg_status::BadInput, found))?;
        out.write(Box::into_raw(Box::new(compute(&asked, Some(&source))?)));
        Ok(())
    })
}

/// Reads a plan from a file with its JSON form (`plan.json` of a workspace), and stores it in
/// `*plan`; free it with `disagg_plan_free`. `error`: as for `disagg_plan_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_load(
    path: *const c_char,
    plan: Option<&mut MaybeUninit<*mut disagg_plan>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let out = given(plan, "plan")?;
        // SAFETY: the caller gives a text.
        let path = unsafe { text(path, "path") }?;
        let source = source::read(Path::new(path), path)
            .map_err(|found| Failure::new(disagg_status::BadInput, found))?;
        out.write(Box::into_raw(Box::new(read_back(&source)?)));
        Ok(())
    })
}

/// Reads a plan from `length` bytes of its JSON form at `json`, such as the value of
/// `SLURM_DISAGG_PLAN` in a job, and stores it in `*plan`; free it with `disagg_plan_free`.
/// `error`: as for `disagg_plan_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_load_json(
    json: *const c_char,
    length: usize,
    plan: Option<&mut MaybeUninit<*mut disagg_plan>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let out = given(plan, "plan")?;
        // SAFETY: the caller gives so many bytes.
        let bytes = unsafe { sized(json, length, MAX_JSON, "json") }?;
        let source = source::decode("plan".into(), bytes)
            .map_err(|found| Failure::new(disagg_status::BadPlan, found))?;
        out.write(Box::into_raw(Box::new(read_back(&source)?)));
        Ok(())
    })
}

/// Frees a plan and the texts borrowed from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_free(plan: Option<Box<disagg_plan>>) {
    freeing(plan);
}

/// Fills `*layout`, whose `size` the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_layout(
    plan: Option<&disagg_plan>,
    layout: *mut disagg_layout,
) -> disagg_status {
    entry(None, || {
        let plan = &given(plan, "plan")?.plan;
        let layout_of_plan = &plan.layout;
        let number = |name| layout_of_plan.numbers.get(name).copied().unwrap_or_default();
        let filled = disagg_layout {
            size: size_of::<disagg_layout>(),
            num_ctx_servers: number("num_ctx_servers"),
            num_gen_servers: number("num_gen_servers"),
            gpus_per_node: layout_of_plan.gpus_per_node,
            gpus_per_ctx_server: number("gpus_per_ctx_server"),
            gpus_per_gen_server: number("gpus_per_gen_server"),
            nodes_per_ctx_server: number("nodes_per_ctx_server"),
            nodes_per_gen_server: number("nodes_per_gen_server"),
            total_nodes: layout_of_plan.total_nodes,
            total_gpus: layout_of_plan.total_gpus,
            llmapi_launch: plan.llmapi_launch.into(),
        };
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(layout, filled, "layout") }
    })
}

/// Fills `*test`, whose `size` the caller has set. The texts are borrowed from the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_test(
    plan: Option<&disagg_plan>,
    test: *mut disagg_test,
) -> disagg_status {
    entry(None, || {
        let plan = given(plan, "plan")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(test, plan.test, "test") }
    })
}

/// Fills `*job`, whose `size` the caller has set. The texts are borrowed from the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_job(
    plan: Option<&disagg_plan>,
    job: *mut disagg_job,
) -> disagg_status {
    entry(None, || {
        let plan = given(plan, "plan")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(job, plan.job, "job") }
    })
}

/// Fills `*paths`, whose `size` the caller has set. The texts are borrowed from the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_paths(
    plan: Option<&disagg_plan>,
    paths: *mut disagg_paths,
) -> disagg_status {
    entry(None, || {
        let plan = given(plan, "plan")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(paths, plan.paths, "paths") }
    })
}

/// How many kinds of steps a plan has.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_role_count(
    plan: Option<&disagg_plan>,
    count: Option<&mut MaybeUninit<usize>>,
) -> disagg_status {
    entry(None, || {
        let plan = given(plan, "plan")?;
        given(count, "count")?.write(plan.roles.len());
        Ok(())
    })
}

/// Fills `*role`, whose `size` the caller has set, with a kind of step by its index, from 0: GEN,
/// CTX, DISAGG_SERVER, BENCHMARK, as far as the plan has them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_role(
    plan: Option<&disagg_plan>,
    index: usize,
    role: *mut disagg_role,
) -> disagg_status {
    entry(None, || {
        let found = item(&given(plan, "plan")?.roles, index, "role")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(role, found, "role") }
    })
}

/// How many warnings and notes there are on a plan.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_diagnostic_count(
    plan: Option<&disagg_plan>,
    count: Option<&mut MaybeUninit<usize>>,
) -> disagg_status {
    entry(None, || {
        let plan = given(plan, "plan")?;
        given(count, "count")?.write(plan.diagnostics.len());
        Ok(())
    })
}

/// Fills `*diagnostic`, whose `size` the caller has set, with a warning or note by its index, from
/// 0; warnings come first. The texts are borrowed from the plan.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_plan_diagnostic(
    plan: Option<&disagg_plan>,
    index: usize,
    diagnostic: *mut disagg_diagnostic,
) -> disagg_status {
    entry(None, || {
        let found = item(&given(plan, "plan")?.diagnostics, index, "diagnostic")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(diagnostic, found, "diagnostic") }
    })
}

/// Writes a plan's JSON form, on one line, and stores it in `*json`; free it with
/// `disagg_string_free`. It holds the values of all variables, secret ones too. `error`: as for
/// `disagg_plan_new`.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_to_json(
    plan: Option<&disagg_plan>,
    json: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let plan = given(plan, "plan")?;
        let out = given(json, "json")?;
        let text = plan.plan.to_json().map_err(|error| {
            Failure::because(disagg_status::BadPlan, format!("the plan cannot be written: {error}"))
        })?;
        out.write(hand_over(text)?);
        Ok(())
    })
}

/// Writes the launch script: a batch script that starts all steps of the plan, waits for them and
/// cleans up. It is stored in `*script`; free it with `disagg_string_free`. `error`: as for
/// `disagg_plan_new`.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_launch_script(
    plan: Option<&disagg_plan>,
    script: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let plan = given(plan, "plan")?;
        let out = given(script, "script")?;
        let text = script::launch(&plan.plan)
            .map_err(|error| Failure::because(disagg_status::BadPlan, error.to_string()))?;
        out.write(hand_over(text)?);
        Ok(())
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const YAML: &str = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 3}\n";

    pub(in crate::capi) fn plan() -> disagg_plan {
        use crate::input::Context;
        let options = request::Options {
            config: "x.yaml".into(),
            trtllm_dir: Some("/src".into()),
            models_dir: Some("/models".into()),
            ..Default::default()
        };
        let context = Context { env: &|_| None, current_dir: "/".into() };
        let text = Arc::new(Source::new("x.yaml", YAML));
        let (plan, said) = request::plan_text(&options, &text, &context).unwrap();
        disagg_plan::new(plan, said).unwrap()
    }

    fn refused(change: impl Fn(&mut Plan)) -> Failure {
        let mut changed = Plan::clone(&plan().plan);
        change(&mut changed);
        let text = changed.to_json().unwrap();
        read_back(&Arc::new(Source::new("plan", text))).err().unwrap()
    }

    #[test]
    fn a_foreign_plan_with_a_text_that_c_cannot_hold_is_refused() {
        let failure = refused(|plan| plan.workspace = "/w\0x".into());
        assert_eq!(failure.status, disagg_status::BadPlan);
        assert!(failure.diagnostics.to_string().contains("NUL"), "{}", failure.diagnostics);
    }

    #[test]
    fn a_foreign_plan_with_a_time_that_slurm_does_not_know_is_refused() {
        let failure = refused(|plan| plan.job.time.value = "soon".into());
        assert_eq!(failure.status, disagg_status::BadPlan);
    }

    #[test]
    fn a_null_output_is_reported_before_anything_is_read() {
        let mut error = MaybeUninit::uninit();
        // SAFETY: NULL is allowed for every pointer.
        let status = unsafe { disagg_plan_new(std::ptr::null(), None, Some(&mut error)) };
        assert_eq!(status, disagg_status::NullPointer);
        // SAFETY: a failure writes an error object, which is ours now.
        let error = unsafe { Box::from_raw(error.assume_init()) };
        assert_eq!(error.rendered(), "error: `plan` must not be NULL");
    }

    #[test]
    fn plans_may_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<disagg_plan>();
    }
}
