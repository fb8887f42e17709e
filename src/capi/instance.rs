// SPDX-License-Identifier: Apache-2.0
//! Steps: one server of a plan, its router, its client or a check.

use std::borrow::Cow;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::Arc;

use super::error::{disagg_error, entry};
use super::ffi::{Lent, Texts, given, handle, optional, text};
use super::guard::{Failure, freed};
use super::plan::{disagg_plan, disagg_purpose};
use super::status::disagg_status;
use crate::plan::instance::NoSuchStep;
use crate::plan::{Instance, Plan, resolve};
use crate::slurm::hostlist;

/// An environment variable of a step.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_variable {
    /// Its name; NULL ends an array of variables.
    pub name: *const c_char,
    /// Its value, where `${NAME}` refers to a variable of the task before any is set, and `$$` is a
    /// dollar sign. `disagg_environment_new` replaces both.
    pub value: *const c_char,
    /// 1 when the value must not be shown to anybody, else 0.
    pub secret: u32,
}

/// A file that a step's command reads.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_file {
    /// Its absolute path, in the workspace; NULL ends an array of files.
    pub path: *const c_char,
    /// What is in it. It may hold secrets, so nobody but its owner should be able to read it.
    pub text: *const c_char,
}

/// A Slurm step. Arrays of texts end with NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_step {
    /// Its name, such as `GEN_0`.
    pub name: *const c_char,
    /// The name of its role, such as `GEN`.
    pub role: *const c_char,
    /// The working directory.
    pub directory: *const c_char,
    /// The command, as `execv` takes it; with a run script, `bash` and the script. Where tasks have
    /// different commands it is that of the first node, and `${NAME}` refers to a variable of the
    /// task: `disagg_environment_command` is the command of one task.
    pub argv: *const *mut c_char,
    /// Variables that are removed from the environment of its tasks.
    pub unset: *const *mut c_char,
    /// Beginnings of names: such variables are removed too, except those of `kept`.
    /// `disagg_environment_new` removes them where the step runs no script.
    pub cleared: *const *mut c_char,
    /// Variables that `cleared` does not remove.
    pub kept: *const *mut c_char,
    /// Variables that are set after that; the array ends with a NULL name.
    pub set: *const disagg_variable,
    /// Its log, a file in the workspace.
    pub log_file: *const c_char,
    /// The JUnit file that its command writes; NULL: none.
    pub junit_file: *const c_char,
    /// The MPI type (`srun --mpi`); `none`: not an MPI program.
    pub mpi: *const c_char,
    /// Its nodes as a hostlist (`srun --nodelist`); NULL without an allocation.
    pub hostlist: *const c_char,
    /// Its nodes: `nodes` names; NULL without an allocation.
    pub hosts: *const *mut c_char,
    /// The node of each task, by rank: `tasks` names, as the host file of
    /// `srun --distribution=arbitrary` has them; NULL without an allocation.
    pub task_hosts: *const *mut c_char,
    /// What its role is for.
    pub purpose: disagg_purpose,
    /// Nodes that it spans.
    pub nodes: u32,
    /// The index of its first node in the allocation, from 0.
    pub first_node: u32,
    /// Tasks (ranks).
    pub tasks: u32,
    /// Tasks on each full node.
    pub tasks_per_node: u32,
    /// GPUs that it uses on each full node; 0: none.
    pub gpus_per_node: u32,
    /// The index of the first of them, from 0.
    pub first_gpu: u32,
    /// 1 when other servers use the other GPUs of its node, else 0. `disagg_environment_new` then
    /// sets `CUDA_VISIBLE_DEVICES`.
    pub shares_node: u32,
    /// 1 when it may share its nodes with other steps (`srun --overlap`), else 0.
    pub overlap: u32,
    /// 1 when one failed task ends the step (`srun --kill-on-bad-exit=1`), else 0.
    pub kill_on_bad_exit: u32,
    /// Files that have to be there before its command starts; the array ends with a NULL path. Only with
    /// an allocation do they have the names of its nodes.
    pub files: *const disagg_file,
}

/// A step of a plan. It never changes. Free it with `disagg_instance_free`. It does not need its
/// plan any more.
pub struct disagg_instance {
    plan: Arc<Plan>,
    name: String,
    /// The allocation's nodes; none where they are not known.
    nodes: Option<Vec<String>>,
    step: Lent<(disagg_step, Vec<disagg_variable>, Vec<disagg_file>)>,
}

impl disagg_instance {
    fn new(plan: &Arc<Plan>, name: &str, nodes: Option<&str>) -> Result<Self, Failure> {
        let instance = plan.instance(name).map_err(|error| not_found(&error))?;
        let nodes = nodes.map(hostlist::expand).transpose();
        let nodes = nodes.map_err(|error| bad_nodes(error.to_string()))?;
        let step = Lent::new(|texts| step(&instance, nodes.as_deref(), texts))?;
        Ok(Self { plan: plan.clone(), name: name.to_owned(), nodes, step })
    }

    /// The allocation's nodes; empty where they are not known.
    pub(super) fn nodes(&self) -> &[String] {
        self.nodes.as_deref().unwrap_or_default()
    }

    /// The step in the core's form.
    pub(super) fn instance(&self) -> Result<Instance<'_>, Failure> {
        self.plan.instance(&self.name).map_err(|error| not_found(&error))
    }
}

fn not_found(error: &NoSuchStep) -> Failure {
    Failure::because(disagg_status::NotFound, error.to_string())
}

fn step(
    instance: &Instance<'_>,
    nodes: Option<&[String]>,
    texts: &mut Texts,
) -> Result<(disagg_step, Vec<disagg_variable>, Vec<disagg_file>), Failure> {
    let spec = resolve(instance, nodes.unwrap_or_default());
    let mut set = Vec::with_capacity(spec.set.len() + 1);
    for variable in &spec.set {
        set.push(disagg_variable {
            name: texts.keep(variable.name)?,
            value: texts.keep(variable.value.as_str())?,
            secret: variable.is_secret.into(),
        });
    }
    set.push(disagg_variable { name: std::ptr::null(), value: std::ptr::null(), secret: 0 });
    let mut files = Vec::with_capacity(spec.files.len() + 1);
    for (name, text) in spec.texts_of_files() {
        let path = Path::new(&instance.plan.workspace).join(name);
        files.push(disagg_file {
            path: texts.keep(path.into_os_string().into_vec())?,
            text: texts.keep(text)?,
        });
    }
    files.push(disagg_file { path: std::ptr::null(), text: std::ptr::null() });
    let (hostlist, hosts, task_hosts) = match nodes {
        Some(nodes) => hosts(instance, nodes, texts)?,
        None => (std::ptr::null(), std::ptr::null(), std::ptr::null()),
    };
    let step = disagg_step {
        name: texts.keep(&*instance.name)?,
        role: texts.keep(instance.role_name)?,
        directory: texts.keep(spec.cwd)?,
        argv: match spec.script {
            Some(script) => texts.keep_all(["bash", script])?,
            None => texts.keep_all(spec.arguments().map(Cow::into_owned))?,
        },
        unset: texts.keep_all(spec.unset.iter().copied())?,
        cleared: texts.keep_all(spec.cleared.iter().flat_map(|all| all.prefixes.clone()))?,
        kept: texts.keep_all(spec.cleared.iter().flat_map(|all| all.except.clone()))?,
        set: set.as_ptr(),
        log_file: texts.keep(&*spec.log_file())?,
        junit_file: texts.keep_some(spec.junit_file().as_deref())?,
        mpi: texts.keep(spec.step.mpi_type())?,
        hostlist,
        hosts,
        task_hosts,
        purpose: instance.role.purpose.into(),
        nodes: spec.step.nodes,
        first_node: instance.nodes.start,
        tasks: spec.step.tasks,
        tasks_per_node: spec.step.tasks_per_node,
        gpus_per_node: instance.role.gpus,
        first_gpu: instance.gpus.start,
        shares_node: spec.own_gpus.is_some().into(),
        overlap: spec.step.overlap.into(),
        kill_on_bad_exit: spec.step.kill_on_bad_exit.into(),
        files: files.as_ptr(),
    };
    Ok((step, set, files))
}

type Hosts = (*const c_char, *const *mut c_char, *const *mut c_char);

fn bad_nodes(message: String) -> Failure {
    Failure::because(disagg_status::BadNodes, message)
}

fn hosts(instance: &Instance<'_>, nodes: &[String], texts: &mut Texts) -> Result<Hosts, Failure> {
    let hosts = instance.hosts(nodes).ok_or_else(|| {
        bad_nodes(format!(
            "{} needs {} of the allocation's nodes; there are {}",
            instance.name,
            instance.nodes.end,
            nodes.len()
        ))
    })?;
    let kept: Result<Vec<_>, _> = hosts.iter().map(|host| texts.keep(host.as_str())).collect();
    let kept = kept?;
    let before = instance.nodes.start as usize;
    let allocation: Vec<_> =
        std::iter::repeat_n(std::ptr::null_mut(), before).chain(kept.iter().copied()).collect();
    let of_tasks = instance.host_of_each_task(&allocation).unwrap_or_default();
    let of_tasks = of_tasks.into_iter().copied().collect();
    Ok((texts.keep(hostlist::compress(hosts))?, texts.array(kept), texts.array(of_tasks)))
}

/// Makes a step of a plan and stores it in `*instance`. `name` is one of `disagg_plan_steps` or
/// `disagg_plan_checks`. `hostlist` is the allocation, such as the value of `SLURM_JOB_NODELIST`
/// (`node[1-3,7]`); NULL: the nodes are not known, and the step's fields for them are NULL. For a plan with
/// the setting `interface` it has the nodes' addresses there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_new(
    plan: Option<&disagg_plan>,
    name: *const c_char,
    hostlist: *const c_char,
    instance: Option<&mut MaybeUninit<*mut disagg_instance>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(instance, "instance", error, || {
        let plan = &given(plan, "plan")?.plan;
        // SAFETY: the caller gives texts, the second of which may be NULL.
        let (name, nodes) = unsafe { (text(name, "name")?, optional(hostlist, "hostlist")?) };
        Ok(handle(disagg_instance::new(plan, name, nodes)?))
    })
}

/// Frees a step and what is borrowed from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_free(instance: Option<Box<disagg_instance>>) {
    freed(instance);
}

/// The size, the nodes, the environment and the command of a step. They are borrowed from the
/// instance. NULL gives NULL.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_step(instance: Option<&disagg_instance>) -> Option<&disagg_step> {
    instance.map(|instance| &instance.step.lent.0)
}
