// SPDX-License-Identifier: Apache-2.0
//! The whole environment of a step's task and its command, as `execve` takes them.

use std::borrow::Cow;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStringExt;

use super::error::{disagg_error, entry};
use super::ffi::{Lent, Texts, given, handle, strings};
use super::guard::{Failure, freed};
use super::instance::disagg_instance;
use super::status::disagg_status;
use crate::output::task::shell_command;
use crate::plan::Instance;
use crate::plan::rank::{Rank, RankError};

/// The environment and the command of one task of a step. It never changes. Free it with
/// `disagg_environment_free`. It does not need its instance any more.
pub struct disagg_environment(Lent<(*const *mut c_char, *const *mut c_char)>);

/// Texts that need not be UTF-8.
type Bytes = Vec<Vec<u8>>;

/// What a step's task has: what is in `base` and neither removed nor set by the step, then what the
/// step sets; and its command.
fn environment(
    instance: &Instance<'_>,
    nodes: &[String],
    base: &[&[u8]],
) -> Result<(Bytes, Bytes), Failure> {
    let given = |name: &str| {
        base.iter().find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    let failed = |error: RankError| Failure::argument(error.to_string());
    let rank = Rank::new(instance, nodes, given).map_err(failed)?;
    let (unset, script) = (rank.spec.unset.clone(), rank.spec.script);
    // A script needs Slurm's variables; its command removes them.
    let cleared = rank.spec.cleared.filter(|_| script.is_none());
    let text = |(name, value): &(&'static str, String)| ((*name).into(), value.clone().into());
    let gpus: Vec<(Cow<'_, str>, Vec<u8>)> = rank.gpus.iter().map(text).collect();
    let mut set: Vec<(Cow<'_, str>, Vec<u8>)> =
        rank.set.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
    set.extend(gpus);
    let mut argv = rank.argv.clone();
    if let Some(script) = script {
        argv = ["bash", script].map(Into::into).into();
        // The script runs the command where all variables are set already: it has their values.
        let command = shell_command(&rank.written_out().map_err(failed)?).into_iter();
        set.extend(command.map(|(name, text)| (name, text.literal_text().into_owned().into())));
    }
    let is_cleared = |name: &[u8]| {
        std::str::from_utf8(name).is_ok_and(|name| cleared.is_some_and(|all| all.removes(name)))
    };
    let is_kept = |entry: &&&[u8]| {
        let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        let is_name = |other: &str| name.len() < entry.len() && other.as_bytes() == name;
        !unset.iter().any(|other| is_name(other))
            && !is_cleared(name)
            && !set.iter().any(|(set, _)| is_name(set))
    };
    let mut entries: Vec<_> = base.iter().filter(is_kept).map(|entry| entry.to_vec()).collect();
    entries.extend(set.iter().map(|(name, value)| [name.as_bytes(), b"=", value].concat()));
    Ok((entries, argv))
}

/// Makes the environment and the command of a task and stores them in `*environment`: `base` without
/// the variables that the step removes, and with those that it sets. References are replaced with
/// values of `base`, so the task's own environment gives the values of this task (`SLURM_NODEID`,
/// `SLURM_LOCALID` and the like).
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
        let (entries, argv) = self::environment(&instance, nodes, &base)?;
        let keep = |texts: &mut Texts| Ok((texts.keep_all(entries)?, texts.keep_all(argv)?));
        Ok(handle(disagg_environment(Lent::new(keep)?)))
    })
}

/// The environment as `execve` takes it: an array of `NAME=VALUE` texts that ends with NULL. It is
/// borrowed from the environment. NULL gives NULL.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_vector(
    environment: Option<&disagg_environment>,
) -> *const *mut c_char {
    environment.map_or(std::ptr::null(), |environment| environment.0.lent.0)
}

/// The command of the task as `execvp` takes it, to be run in the step's directory: an array of texts
/// that ends with NULL. It is borrowed from the environment. NULL gives NULL.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_command(
    environment: Option<&disagg_environment>,
) -> *const *mut c_char {
    environment.map_or(std::ptr::null(), |environment| environment.0.lent.1)
}

/// Frees an environment and its arrays. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_environment_free(environment: Option<Box<disagg_environment>>) {
    freed(environment);
}
