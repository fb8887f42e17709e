// SPDX-License-Identifier: Apache-2.0
//! Steps: one server of a plan, or its coordinator, or its client, with environment and command.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use super::entry::{Failure, entry, freeing};
use super::error::disagg_error;
use super::ffi::{Texts, Vector, fill, given, growing, hand_over, item, text};
use super::plan::disagg_plan;
use super::status::disagg_status;
use crate::plan::instance::NoSuchStep;
use crate::plan::step::{StepSpec, resolve};
use crate::plan::template::Part;
use crate::plan::{Instance, Plan, Template};

/// The size and the flags of a Slurm step. The texts are borrowed from the instance.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_step {
    /// Set by the caller: `sizeof (disagg_step)`.
    pub size: usize,
    /// The step's name: `GEN_0`, `CTX_3`, `DISAGG_SERVER`, `BENCHMARK`.
    pub name: *const c_char,
    /// The working directory.
    pub directory: *const c_char,
    /// The MPI type (`srun --mpi`); NULL for steps that are no MPI programs.
    pub mpi: *const c_char,
    /// The JUnit file that its command writes; NULL when it writes none.
    pub junit_file: *const c_char,
    /// Nodes that it spans.
    pub nodes: u32,
    /// Its first node, counted from 0 in the order of the allocation's list.
    pub first_node: u32,
    /// Tasks (ranks).
    pub tasks: u32,
    /// Tasks on each full node.
    pub tasks_per_node: u32,
    /// GPUs that it uses on each full node; 0 for steps that use none.
    pub gpus_per_node: u32,
    /// The first of them, counted from 0.
    pub first_gpu: u32,
    /// 1 when it may share its nodes with other steps (`srun --overlap`), else 0.
    pub overlap: u32,
    /// 1 when one failed task ends the step (`srun --kill-on-bad-exit=1`), else 0.
    pub kill_on_bad_exit: u32,
}

growing!(disagg_step, last kill_on_bad_exit: u32);

/// An environment variable of a step. The texts are borrowed from the instance.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_variable {
    /// Set by the caller: `sizeof (disagg_variable)`.
    pub size: usize,
    /// Its name.
    pub name: *const c_char,
    /// Its value as written: `$NAME` and `${NAME}` are references to variables of the step, `$$`
    /// is a dollar sign, and nothing else is special. `disagg_instance_value` gives the value.
    pub written: *const c_char,
    /// 1 when it refers to no variable, so that its value is the same in every task, else 0.
    pub literal: u32,
    /// 1 when its value must not be shown to anybody, else 0.
    pub secret: u32,
}

growing!(disagg_variable, last secret: u32);

/// Looks a variable up: returns its value, or NULL when it is not set. The value is copied before
/// the next call. `context` is what was given with the function. It must return: no `longjmp`, no
/// C++ exception.
pub type disagg_lookup =
    Option<unsafe extern "C" fn(name: *const c_char, context: *mut c_void) -> *const c_char>;

/// One step of a plan. It never changes, so any number of threads may use it at the same time; free
/// it once, with `disagg_instance_free`, after the last use. It does not need its plan any more.
pub struct disagg_instance {
    /// What it sets, in the order of `variables`.
    pub(super) set: Vec<(String, Template)>,
    pub(super) unset_names: Vec<String>,
    /// Its GPUs among those of its node, where it shares the node.
    pub(super) own_gpus: Option<Range<u32>>,
    plan: Arc<Plan>,
    name: String,
    step: disagg_step,
    variables: Vec<disagg_variable>,
    unset: Vector,
    argv: Vector,
    /// What the pointers above point into.
    _texts: Texts,
}

// SAFETY: it owns what its pointers point to, and nothing changes after `new`.
unsafe impl Send for disagg_instance {}
// SAFETY: as above.
unsafe impl Sync for disagg_instance {}

impl disagg_instance {
    fn new(plan: &Arc<Plan>, name: &str) -> Result<Self, Failure> {
        let instance = plan
            .instance(name)
            .map_err(|error| Failure::because(disagg_status::NotFound, error.to_string()))?;
        let spec = resolve(&instance);
        let mut texts = Texts::default();
        let variables = spec
            .set
            .iter()
            .map(|variable| {
                Ok(disagg_variable {
                    size: size_of::<disagg_variable>(),
                    name: texts.keep(variable.name)?,
                    written: texts.keep(variable.value.as_str())?,
                    literal: variable.value.is_literal().into(),
                    secret: variable.is_secret.into(),
                })
            })
            .collect::<Result<_, Failure>>()?;
        let set =
            spec.set.iter().map(|variable| (variable.name.to_owned(), variable.value.clone()));
        Ok(Self {
            step: step(&instance, &spec, &mut texts)?,
            variables,
            unset: texts.vector(spec.unset.iter().copied())?,
            argv: texts.vector(spec.arguments().map(Cow::into_owned))?,
            set: set.collect(),
            unset_names: spec.unset.iter().map(|name| (*name).to_owned()).collect(),
            own_gpus: spec.own_gpus.as_ref().map(|_| instance.gpus.clone()),
            plan: plan.clone(),
            name: name.to_owned(),
            _texts: texts,
        })
    }

    /// Calls `body` with the step in the core's form.
    pub(super) fn with<T>(
        &self,
        body: impl FnOnce(&Instance) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let instance = self.plan.instance(&self.name);
        let gone = |error: NoSuchStep| Failure::because(disagg_status::NotFound, error.to_string());
        body(&instance.map_err(gone)?)
    }

    /// A value in an environment, for values that need not be UTF-8.
    pub(super) fn expanded<'v>(
        value: &Template,
        mut lookup: impl FnMut(&str) -> Result<Option<Cow<'v, [u8]>>, Failure>,
    ) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        for part in value.parts() {
            match part {
                Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Part::Variable(name) => bytes.extend_from_slice(&lookup(name)?.unwrap_or_default()),
                // `resolve` fills all.
                Part::Slot(_) => {}
            }
        }
        Ok(bytes)
    }
}

fn step(
    instance: &Instance,
    spec: &StepSpec<'_>,
    texts: &mut Texts,
) -> Result<disagg_step, Failure> {
    Ok(disagg_step {
        size: size_of::<disagg_step>(),
        name: texts.keep(&*instance.name)?,
        directory: texts.keep(spec.cwd)?,
        mpi: texts.keep_some(spec.step.mpi.as_deref())?,
        junit_file: texts.keep_some(spec.junit_file().as_deref())?,
        nodes: spec.step.nodes,
        first_node: instance.nodes.start,
        tasks: spec.step.tasks,
        tasks_per_node: spec.step.tasks_per_node,
        gpus_per_node: instance.role.gpus,
        first_gpu: instance.gpus.start,
        overlap: spec.step.overlap.into(),
        kill_on_bad_exit: spec.step.kill_on_bad_exit.into(),
    })
}

/// How many steps a plan has.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_plan_instance_count(
    plan: Option<&disagg_plan>,
    count: Option<&mut MaybeUninit<usize>>,
) -> disagg_status {
    entry(None, || {
        let plan = given(plan, "plan")?;
        given(count, "count")?.write(plan.plan.instances().count());
        Ok(())
    })
}

/// Makes a step of a plan by its name (`GEN_0`, `CTX_3`, `DISAGG_SERVER`, `BENCHMARK`) and stores
/// it in `*instance`; free it with `disagg_instance_free`. `error`: as for `disagg_plan_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_new(
    plan: Option<&disagg_plan>,
    name: *const c_char,
    instance: Option<&mut MaybeUninit<*mut disagg_instance>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let plan = given(plan, "plan")?;
        let out = given(instance, "instance")?;
        // SAFETY: the caller gives a text.
        let name = unsafe { text(name, "name") }?;
        out.write(Box::into_raw(Box::new(disagg_instance::new(&plan.plan, name)?)));
        Ok(())
    })
}

/// The same by its index, from 0: GEN servers, CTX servers, DISAGG_SERVER, BENCHMARK.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_new_at(
    plan: Option<&disagg_plan>,
    index: usize,
    instance: Option<&mut MaybeUninit<*mut disagg_instance>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let plan = &given(plan, "plan")?.plan;
        let out = given(instance, "instance")?;
        let found = plan.instances().nth(index).ok_or_else(|| {
            let message =
                format!("there is no step {index}: there are {}", plan.instances().count());
            Failure::because(disagg_status::NotFound, message)
        })?;
        out.write(Box::into_raw(Box::new(disagg_instance::new(plan, &found.name)?)));
        Ok(())
    })
}

/// Frees a step and what is borrowed from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_free(instance: Option<Box<disagg_instance>>) {
    freeing(instance);
}

/// Fills `*step`, whose `size` the caller has set. The texts are borrowed from the instance.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_step(
    instance: Option<&disagg_instance>,
    step: *mut disagg_step,
) -> disagg_status {
    entry(None, || {
        let instance = given(instance, "instance")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(step, instance.step, "step") }
    })
}

/// The command of a step: an array that ends with NULL, as `execv` takes it. It is borrowed from
/// the instance and must not be changed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_argv(
    instance: Option<&disagg_instance>,
    argv: Option<&mut MaybeUninit<*const *mut c_char>>,
) -> disagg_status {
    entry(None, || {
        let instance = given(instance, "instance")?;
        given(argv, "argv")?.write(instance.argv.as_ptr());
        Ok(())
    })
}

/// The names of the variables that are removed from a step's environment before any is set: an
/// array that ends with NULL. It is borrowed from the instance and must not be changed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_unset(
    instance: Option<&disagg_instance>,
    names: Option<&mut MaybeUninit<*const *mut c_char>>,
) -> disagg_status {
    entry(None, || {
        let instance = given(instance, "instance")?;
        given(names, "names")?.write(instance.unset.as_ptr());
        Ok(())
    })
}

/// How many variables a step sets.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_instance_variable_count(
    instance: Option<&disagg_instance>,
    count: Option<&mut MaybeUninit<usize>>,
) -> disagg_status {
    entry(None, || {
        let instance = given(instance, "instance")?;
        given(count, "count")?.write(instance.variables.len());
        Ok(())
    })
}

/// Fills `*variable`, whose `size` the caller has set, with a variable that a step sets, by its
/// index, from 0, in the order in which they are set. The texts are borrowed from the instance.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_variable(
    instance: Option<&disagg_instance>,
    index: usize,
    variable: *mut disagg_variable,
) -> disagg_status {
    entry(None, || {
        let found = item(&given(instance, "instance")?.variables, index, "variable")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(variable, found, "variable") }
    })
}

/// The value of a variable that a step sets, by its index, in the environment of one task.
///
/// `lookup` gives that environment, before the step's variables are removed and set; it is called
/// on this thread, with `context`, once per reference. NULL: the process's environment. The value
/// is stored in `*value`; free it with `disagg_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_instance_value(
    instance: Option<&disagg_instance>,
    index: usize,
    lookup: disagg_lookup,
    context: *mut c_void,
    value: Option<&mut MaybeUninit<*mut c_char>>,
) -> disagg_status {
    entry(None, || {
        let instance = given(instance, "instance")?;
        let out = given(value, "value")?;
        item(&instance.variables, index, "variable")?;
        let (_, template) = &instance.set[index];
        let find = |name: &str| Ok(look_up(lookup, context, name)?.map(Cow::Owned));
        out.write(hand_over(disagg_instance::expanded(template, find)?)?);
        Ok(())
    })
}

fn look_up(
    lookup: disagg_lookup,
    context: *mut c_void,
    name: &str,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(lookup) = lookup else {
        return Ok(std::env::var_os(name).map(OsStringExt::into_vec));
    };
    let name = CString::new(name).map_err(|_| Failure::argument("a name holds a NUL byte"))?;
    // SAFETY: the caller gave the function, to be called with its context.
    let value = unsafe { lookup(name.as_ptr(), context) };
    if value.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the function promises a text.
    Ok(Some(unsafe { CStr::from_ptr(value) }.to_bytes().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capi::environment::disagg_environment;
    use crate::capi::nodes::disagg_nodes;

    #[test]
    fn what_is_made_from_a_plan_may_be_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<disagg_instance>();
        shared::<disagg_environment>();
        shared::<disagg_nodes>();
    }
}
