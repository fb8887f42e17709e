// SPDX-License-Identifier: Apache-2.0
//! A program's input, environment and directory.

use std::ffi::c_char;
use std::path::PathBuf;

use super::entry::Failure;
use super::ffi::{growing, optional, strings, take, text};
use super::status::disagg_status;
use crate::input::Context;
use crate::input::settings::{self, Options};

/// The input of a plan. Set every byte to zero, then `size` and the members that you need:
/// `disagg_options options = {.size = sizeof options, .config = "my_test.yaml"};`
///
/// All but `config` may be NULL: then the environment, the settings files and the defaults decide,
/// in this order. The texts are only read during the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_options {
    /// `sizeof (disagg_options)`.
    pub size: usize,
    /// The test configuration: the path of a YAML file, or a name to be looked up in the source
    /// tree. A text with a slash, or that ends in `.yaml` or `.yml`, is a path.
    pub config: *const c_char,
    /// The TensorRT-LLM source tree; NULL: the tree that contains the configuration.
    pub trtllm_dir: *const c_char,
    /// The directory of the models; NULL: `CLUSTER_LLM_DATA` of the environment.
    pub models_dir: *const c_char,
    /// The directory for the files and results of the run; NULL: `disagg_` and the
    /// configuration's name, in the current directory.
    pub workspace: *const c_char,
    /// The settings file to read instead of those of the machine and the user.
    pub site: *const c_char,
    /// The rule set, `classic`, `unified` or `current`; NULL: the source tree or the form of the test id decides.
    pub rules: *const c_char,
    /// How servers share nodes: `exclusive` or `packed`.
    pub placement: *const c_char,
    /// The node of the router and the client: `first`, `last`, `ctx` or `own`.
    pub frontend_node: *const c_char,
    /// The Slurm account.
    pub account: *const c_char,
    /// The Slurm partition.
    pub partition: *const c_char,
    /// The time limit, in Slurm's form (`04:00:00`).
    pub time: *const c_char,
    /// The job's name.
    pub job_name: *const c_char,
    /// The MPI type of the servers' steps, as `srun --mpi` takes it.
    pub mpi: *const c_char,
    /// The container image that the steps run in.
    pub container_image: *const c_char,
    /// A script that each step runs instead of its command.
    pub run_script: *const c_char,
    /// A script that runs on every node before the servers start.
    pub install_script: *const c_char,
    /// The absolute directory that relative paths start from; NULL: the process's.
    pub current_dir: *const c_char,
    /// The environment to read instead of the process's: `NAME=VALUE` texts, then NULL. Give one
    /// where another thread may change the process's environment meanwhile.
    pub environment: *const *mut c_char,
}

growing!(disagg_options, last environment: *const *mut c_char);

/// An environment, copied; `None` for the process's.
type Environment = Option<Vec<(String, String)>>;

/// The options in the core's form, with where they are asked.
pub(super) struct Asked {
    pub(super) options: Options,
    environment: Environment,
    current_dir: PathBuf,
}

impl Asked {
    /// Reads a caller's options.
    ///
    /// # Safety
    /// `options` is NULL or a struct as [`take`] wants it, whose texts and array are NULL or
    /// terminated.
    pub(super) unsafe fn read(options: *const disagg_options) -> Result<Self, Failure> {
        // SAFETY: the caller vouches for it.
        let c = unsafe { take(options, "options") }?;
        // SAFETY: the caller vouches for every text of the struct.
        let given =
            |pointer, field: &str| unsafe { optional(pointer, &format!("options->{field}")) };
        let mut options = Options {
            // SAFETY: as above.
            config: unsafe { text(c.config, "options->config") }?.to_owned(),
            ..Options::default()
        };
        for (setting, pointer) in [
            (&settings::TRTLLM_DIR, c.trtllm_dir),
            (&settings::MODELS_DIR, c.models_dir),
            (&settings::WORKSPACE, c.workspace),
            (&settings::SITE, c.site),
            (&settings::RULES, c.rules),
            (&settings::PLACEMENT, c.placement),
            (&settings::FRONTEND_NODE, c.frontend_node),
            (&settings::ACCOUNT, c.account),
            (&settings::PARTITION, c.partition),
            (&settings::TIME, c.time),
            (&settings::JOB_NAME, c.job_name),
            (&settings::MPI, c.mpi),
            (&settings::CONTAINER_IMAGE, c.container_image),
            (&settings::RUN_SCRIPT, c.run_script),
            (&settings::INSTALL_SCRIPT, c.install_script),
        ] {
            let Some(text) = given(pointer, setting.name)? else { continue };
            options.set(setting, &text).map_err(|error| {
                let name = setting.name;
                Failure::argument(format!("`options->{name}` is {text:?}: {error}"))
            })?;
        }
        Ok(Self {
            options,
            // SAFETY: as above.
            environment: unsafe { environment(c.environment) },
            current_dir: current_dir(given(c.current_dir, "current_dir")?)?,
        })
    }

    /// Calls `body` with the environment and directory of the options.
    pub(super) fn in_context<T>(&self, body: impl FnOnce(&Context) -> T) -> T {
        let lookup = |name: &str| match &self.environment {
            None => std::env::var(name).ok(),
            Some(variables) => {
                variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }
        };
        body(&Context { env: &lookup, current_dir: self.current_dir.clone() })
    }
}

/// Variables that are not UTF-8 are left out, as [`Context`] wants it.
///
/// # Safety
/// `array` is NULL or an array of texts that ends with NULL.
unsafe fn environment(array: *const *mut c_char) -> Environment {
    if array.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let entries = unsafe { strings(array) };
    let pair = |entry| {
        let (name, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    Some(entries.into_iter().filter_map(pair).collect())
}

fn current_dir(given: Option<String>) -> Result<PathBuf, Failure> {
    match given.map(PathBuf::from) {
        Some(path) if path.is_absolute() => Ok(path),
        Some(path) => Err(Failure::argument(format!(
            "`options->current_dir` is {path:?}: give an absolute path"
        ))),
        None => std::env::current_dir().map_err(|error| {
            let message = format!("the current directory cannot be found: {error}");
            Failure::because(disagg_status::System, message)
        }),
    }
}
