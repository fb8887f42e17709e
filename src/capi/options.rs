// SPDX-License-Identifier: Apache-2.0
//! The input of a plan, its environment and its directory.

use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::Arc;

use super::ffi::{given, optional, strings};
use super::guard::Failure;
use super::status::disagg_status;
use crate::diagnostic::{Diagnostic, Source, nearest};
use crate::input::settings::{Options, Setting, TABLE};
use crate::input::{Context, request, source};
use crate::plan::Plan;

/// A setting with its value. The names are those of site.yaml: `trtllm_dir`, `models_dir`,
/// `perf_test_module`, `perf_test_function`, `perf_test_prefix`, `placement`, `frontend_node`,
/// `interface`, `partition`, `account`, `qos`, `reservation`, `constraint`, `exclusive`, `mem`, `gpu_request`,
/// `time`, `job_name`, `segment`, `sbatch_args`, `srun_args`, `mpi_type`, `container_image`,
/// `container_mounts`, `run_script`, `install_script`, `precheck`, `max_failed`, `ucx` (only in the file),
/// `profiles` and `secrets`; and besides them `site`, `workspace`, `prefix_script`, `stage_name`, `cluster_name` and `rules`.
/// Their meanings and values are in docs/user.md.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_setting {
    /// The name; NULL ends an array of settings.
    pub name: *const c_char,
    /// The value; NULL: not set. Of a list, such as `sbatch_args`, one entry.
    pub value: *const c_char,
}

/// The input of a plan. Fields that are not needed are NULL:
/// `disagg_options options = {.config = "my_test.yaml"};`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_options {
    /// The test configuration or recipe: the path of a YAML file, or a name of a test's that is looked
    /// up in the source tree. A text with a slash, or that ends in `.yaml`, `.yml` or `.json`, is a path. NULL: the
    /// test id names it.
    pub config: *const c_char,
    /// The configuration itself, as YAML. Then no configuration file is read, and `config` is the
    /// path that messages and the test's name use.
    pub config_text: *const c_char,
    /// The test id, such as `disagg_upload-e2e-my_test`.
    pub test_id: *const c_char,
    /// Settings, which win over site.yaml and the environment; the array ends with a NULL name.
    pub settings: *const disagg_setting,
    /// The absolute directory that relative paths start from. NULL: the process's current
    /// directory.
    pub current_dir: *const c_char,
    /// The environment: `NAME=VALUE` texts, then NULL. NULL: the process's environment.
    pub environment: *const *mut c_char,
}

/// What a setting is called in [`disagg_setting`].
pub(super) fn name_of(setting: &Setting) -> &'static str {
    setting.key.unwrap_or(setting.name)
}

/// Makes the plan that a caller asks for, with warnings.
///
/// # Safety
/// The texts of the struct and its arrays are NULL or as the header has them.
pub(super) unsafe fn plan(asked: &disagg_options) -> Result<(Plan, Vec<Diagnostic>), Failure> {
    let text = |pointer, field: &str| {
        // SAFETY: the caller guarantees it for every text of the struct.
        unsafe { optional(pointer, &format!("options->{field}")) }
    };
    let config = text(asked.config, "config")?;
    let config_text = text(asked.config_text, "config_text")?;
    if config_text.is_some() {
        given(config, "options->config")?;
    }
    let mut options = Options {
        config: config.unwrap_or_default().to_owned(),
        test_id: text(asked.test_id, "test_id")?.map(str::to_owned),
        ..Options::default()
    };
    let mut at = asked.settings;
    // SAFETY: NULL, or it stays within the array, whose last element has no name.
    while let Some(setting) = unsafe { at.as_ref() } {
        let Some(name) = text(setting.name, "settings")? else { break };
        if let Some(value) = text(setting.value, name)? {
            set(&mut options, name, value)?;
        }
        // SAFETY: the element was not the last.
        at = unsafe { at.add(1) };
    }
    // SAFETY: the caller guarantees it.
    let environment = unsafe { environment(asked.environment) };
    let env = |name: &str| match &environment {
        None => std::env::var(name).ok(),
        Some(all) => all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()),
    };
    let current_dir = current_dir(text(asked.current_dir, "current_dir")?)?;
    let context = Context { env: &env, current_dir };
    let made = match config_text {
        None => request::plan(&options, &context),
        Some(yaml) => {
            request::plan_text(&options, &configuration(&options.config, yaml)?, &context)
        }
    };
    made.map_err(|found| Failure::new(disagg_status::BadInput, found))
}

fn set(options: &mut Options, name: &str, value: &str) -> Result<(), Failure> {
    let invalid = |what: String| Failure::argument(format!("`options->settings`: {what}"));
    let setting = TABLE.iter().find(|setting| name_of(setting) == name).ok_or_else(|| {
        let known = nearest(name, TABLE.iter().map(name_of), 1);
        let nearest = known.first().map(|name| format!("; do you mean {name}?"));
        invalid(format!("unknown setting {name:?}{}", nearest.unwrap_or_default()))
    })?;
    options.set(setting, value).map_err(|what| invalid(format!("{name} is {value:?}: {what}")))
}

fn configuration(name: &str, yaml: &str) -> Result<Arc<Source>, Failure> {
    if yaml.len() as u64 > source::MAX_FILE {
        let (length, most) = (yaml.len(), source::MAX_FILE);
        return Err(Failure::argument(format!(
            "`options->config_text` is {length} bytes long; the limit is {most}"
        )));
    }
    source::decode(name.to_owned(), yaml.into())
        .map_err(|found| Failure::new(disagg_status::BadInput, found))
}

/// Variables that are not UTF-8 are left out, as in [`Context`].
///
/// # Safety
/// `array` is NULL or an array of texts that ends with NULL, and stays as it is for `'a`.
unsafe fn environment<'a>(array: *const *mut c_char) -> Option<Vec<(&'a str, &'a str)>> {
    if array.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller guarantees the rest.
    let entries = unsafe { strings(array) };
    let pair = |entry| std::str::from_utf8(entry).ok()?.split_once('=');
    Some(entries.into_iter().filter_map(pair).collect())
}

fn current_dir(given: Option<&str>) -> Result<PathBuf, Failure> {
    match given.map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(path),
        Some(path) => Err(Failure::argument(format!(
            "`options->current_dir` is {path:?}: use an absolute path"
        ))),
        None => std::env::current_dir().map_err(|error| {
            let message = format!("the current directory is not available: {error}");
            Failure::because(disagg_status::System, message)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_name_of_every_setting() {
        for setting in TABLE {
            let name = format!("`{}`", name_of(setting));
            assert!(include_str!("options.rs").contains(&name), "{name} is not documented");
        }
    }
}
