// SPDX-License-Identifier: Apache-2.0
//! The whole environment of a step's task, as `execve` takes it.

use std::borrow::Cow;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

use super::error::{disagg_error, entry};
use super::ffi::{Lent, given, handle, strings};
use super::guard::{Failure, freed};
use super::instance::disagg_instance;
use super::status::disagg_status;
use crate::output::task::shell_command;
use crate::plan::step::gpu_variables;
use crate::plan::template::Part;
use crate::plan::{Instance, Template, resolve};

/// The environment of one task of a step. It never changes. Free it with
/// `disagg_environment_free`. It does not need its instance any more.
pub struct disagg_environment(Lent<*const *mut c_char>);

/// What a step's task has: what is in `base` and neither removed nor set by the step, then what the
/// step sets.
fn environment(
    instance: &Instance<'_>,
    nodes: &[String],
    base: &[&[u8]],
) -> Result<Vec<Vec<u8>>, Failure> {
    let mut spec = resolve(instance, nodes);
    let given = |name: &str| {
        base.iter().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let text = |name: &str| given(name).and_then(|value| std::str::from_utf8(value).ok());
    let numbers: Vec<_> = spec.numbers.iter().map(|n| (n.name.as_str(), n.value(text))).collect();
    let lookup = |name: &str| {
        let number = numbers.iter().find(|(known, _)| *known == name);
        number.map(|(_, value)| value.as_bytes()).or_else(|| given(name))
    };
    let mut set: Vec<(Cow<'_, str>, Vec<u8>)> = Vec::new();
    for variable in &spec.set {
        set.push((variable.name.into(), expanded(&variable.value, lookup)));
    }
    let number = |name| text(name).and_then(|text| text.parse().ok()).unwrap_or_default();
    let own = instance.own_gpus(number("SLURM_NODEID"), number("SLURM_LOCALID"));
    let gpus =
        gpu_variables(text, own.as_ref()).map_err(|error| Failure::argument(error.to_string()))?;
    set.extend(gpus.into_iter().map(|(name, value)| (name.into(), value.into_bytes())));
    if spec.script.is_some() {
        // The script runs the command where all variables are set already: it has their values.
        for (variable, (name, value)) in spec.set.iter_mut().zip(&set) {
            let value = std::str::from_utf8(value).map_err(|_| {
                Failure::argument(format!("{name} is not UTF-8 text, as a run script needs it"))
            })?;
            variable.value = Template::literal(value);
        }
        let command = shell_command(&spec).into_iter();
        set.extend(command.map(|(name, text)| (name, text.literal_text().into_owned().into())));
    }
    // A script needs Slurm's variables; its command removes them.
    let cleared = spec.cleared.filter(|_| spec.script.is_none());
    let is_cleared = |name: &[u8]| {
        std::str::from_utf8(name).is_ok_and(|name| cleared.is_some_and(|all| all.removes(name)))
    };
    let is_kept = |entry: &&&[u8]| {
        let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        let is_name = |other: &str| name.len() < entry.len() && other.as_bytes() == name;
        !spec.unset.iter().any(|other| is_name(other))
            && !is_cleared(name)
            && !set.iter().any(|(set, _)| is_name(set))
    };
    let mut entries: Vec<_> = base.iter().filter(is_kept).map(|entry| entry.to_vec()).collect();
    entries.extend(set.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat()));
    Ok(entries)
}

/// A value in an environment whose values need not be UTF-8.
fn expanded<'v>(value: &Template, lookup: impl Fn(&str) -> Option<&'v [u8]>) -> Vec<u8> {
    let parts = value.parts().flat_map(|part| match part {
        Part::Text(text) => text.as_bytes(),
        Part::Variable(name) => lookup(name).unwrap_or_default(),
        // `resolve` fills all.
        Part::Slot(_) => &[],
    });
    parts.copied().collect()
}

/// Makes the environment of a task and stores it in `*environment`: `base` without the variables
/// that the step removes, and with those that it sets. References are replaced with values of
/// `base`, so the task's own environment gives the values of this task (`SLURM_LOCALID` and the
/// like).
///
/// `base` is an array of `NAME=VALUE` texts that ends with NULL, such as `environ`. NULL: the
/// process's environment. For a step that shares its node, `CUDA_VISIBLE_DEVICES` of `base` must
/// list the GPUs of the job on the node or of the step, or be missing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_environment_new(
    instance: Option<&disagg_instance>,
    base: *const *mut c_char,
    environment: Option<&mut MaybeUninit<*mut disagg_environment>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(environment, "environment", error, || {
        let given = given(instance, "instance")?;
        let (instance, nodes) = (given.instance()?, given.nodes());
        let own: Vec<Vec<u8>>;
        let base = if base.is_null() {
            let pair = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
                [name.into_vec(), value.into_vec()].join(&b'=')
            };
            own = std::env::vars_os().map(pair).collect();
            own.iter().map(Vec::as_slice).collect()
        } else {
            // SAFETY: the caller gives an array of texts that ends with NULL.
            unsafe { strings(base) }
        };
        let entries = self::environment(&instance, nodes, &base)?;
        Ok(handle(disagg_environment(Lent::new(|texts| texts.keep_all(entries))?)))
    })
}

/// The environment as `execve` takes it: an array of `NAME=VALUE` texts that ends with NULL. It is
/// borrowed from the environment. NULL gives NULL.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_vector(
    environment: Option<&disagg_environment>,
) -> *const *mut c_char {
    environment.map_or(std::ptr::null(), |environment| environment.0.lent)
}

/// Frees an environment and its array. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_free(environment: Option<Box<disagg_environment>>) {
    freed(environment);
}
