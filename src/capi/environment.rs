// SPDX-License-Identifier: Apache-2.0
//! The whole environment of a step's task, as `execve` takes it.

use std::borrow::Cow;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

use super::entry::{Failure, entry, freeing};
use super::error::disagg_error;
use super::ffi::{Texts, Vector, given, strings};
use super::instance::disagg_instance;
use super::status::disagg_status;
use crate::plan::step::own_gpus;

/// The variable with the GPUs of a task.
const GPUS: &[u8] = b"CUDA_VISIBLE_DEVICES";

/// The environment that a task of a step runs in. It never changes, so any number of threads may
/// use it at the same time; free it once, with `disagg_environment_free`, after the last use. It
/// does not need its instance any more.
pub struct disagg_environment {
    vector: Vector,
    /// What the vector's pointers point into.
    _texts: Texts,
}

// SAFETY: it owns what its pointers point to, and nothing changes after `new`.
unsafe impl Send for disagg_environment {}
// SAFETY: as above.
unsafe impl Sync for disagg_environment {}

impl disagg_environment {
    /// What is in `base` and neither removed nor set by the step, then what the step sets.
    fn new(instance: &disagg_instance, base: &[&[u8]]) -> Result<Self, Failure> {
        let name_of = |entry: &[u8]| entry.iter().position(|byte| *byte == b'=');
        let replaced = |name: &[u8]| {
            instance.unset_names.iter().any(|unset| unset.as_bytes() == name)
                || instance.set.iter().any(|(set, _)| set.as_bytes() == name)
                || (instance.own_gpus.is_some() && name == GPUS)
        };
        let mut entries: Vec<Vec<u8>> = base
            .iter()
            .filter(|entry| name_of(entry).is_none_or(|end| !replaced(&entry[..end])))
            .map(|entry| entry.to_vec())
            .collect();
        let lookup = |name: &str| {
            let value = base
                .iter()
                .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            Ok(value.map(Cow::Borrowed))
        };
        for (name, value) in &instance.set {
            let mut entry = format!("{name}=").into_bytes();
            entry.extend(disagg_instance::expanded(value, lookup)?);
            entries.push(entry);
        }
        if let Some(own) = &instance.own_gpus {
            let listed = base.iter().find_map(|entry| entry.strip_prefix(GPUS)?.strip_prefix(b"="));
            let listed = listed.map(String::from_utf8_lossy);
            let own = own_gpus(listed.as_deref(), own)
                .map_err(|error| Failure::argument(error.to_string()))?;
            entries.push([GPUS, b"=", own.as_bytes()].concat());
        }
        let mut texts = Texts::default();
        Ok(Self { vector: texts.vector(entries)?, _texts: texts })
    }
}

/// Makes the environment of a task: what is in `base`, without what the step removes, and with what
/// it sets, references expanded. Made in the task itself, or from the task's own environment,
/// `${SLURM_LOCALID}` and the like have the values of this task.
///
/// `base` is an array of `NAME=VALUE` texts that ends with NULL, such as `environ`; NULL: the
/// process's environment. The result is stored in `*environment`; free it with
/// `disagg_environment_free`. `error`: as for `disagg_plan_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_environment_new(
    instance: Option<&disagg_instance>,
    base: *const *mut c_char,
    environment: Option<&mut MaybeUninit<*mut disagg_environment>>,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
) -> disagg_status {
    entry(error, || {
        let instance = given(instance, "instance")?;
        let out = given(environment, "environment")?;
        let made = if base.is_null() {
            let own: Vec<_> = std::env::vars_os()
                .map(|(name, value)| [name.into_vec(), value.into_vec()].join(&b'='))
                .collect();
            let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
            disagg_environment::new(instance, &own)
        } else {
            // SAFETY: the caller gives an array of texts that ends with NULL.
            disagg_environment::new(instance, &unsafe { strings(base) })
        };
        out.write(Box::into_raw(Box::new(made?)));
        Ok(())
    })
}

/// The environment as an array of `NAME=VALUE` texts that ends with NULL, as `execve` takes it. It
/// is borrowed from the environment and must not be changed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_vector(
    environment: Option<&disagg_environment>,
    vector: Option<&mut MaybeUninit<*const *mut c_char>>,
) -> disagg_status {
    entry(None, || {
        let environment = given(environment, "environment")?;
        given(vector, "vector")?.write(environment.vector.as_ptr());
        Ok(())
    })
}

/// Frees an environment and the array borrowed from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_free(environment: Option<Box<disagg_environment>>) {
    freeing(environment);
}
