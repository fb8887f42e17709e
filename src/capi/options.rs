// SPDX-License-Identifier: Apache-2.0
//! What a program asks for, and what surrounds it.

use std::ffi::c_char;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, StrDeserializer};

use super::entry::Failure;
use super::ffi::{growing, optional, strings, take, text};
use super::status::disagg_status;
use crate::input::Surroundings;
use crate::input::request::{self, Options};
use crate::plan::Generation;

/// What a plan is asked for. Set every byte to zero, then `size` and what you have to say:
/// `disagg_options options = {.size = sizeof options, .config = "my_test.yaml"};`
///
/// All but `config` may be NULL; then the environment, the site's settings files and the defaults
/// speak, in this order. The texts are only read during the call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_options {
    /// `sizeof (disagg_options)`.
    pub size: usize,
    /// The test configuration: the path of a YAML file, or a name to be looked up in the source
    /// tree. A text with a slash, or that ends in `.yaml` or `.yml`, is a path.
    pub config: *const c_char,
    /// D, the TensorRT-LLM source tree; else the tree that the configuration lies in.
    pub trtllm_dir: *const c_char,
    /// M, the directory of the models; else `CLUSTER_LLM_DATA` of the environment.
    pub models_dir: *const c_char,
    /// W, the directory for the files of the submission; else `disagg_` and the configuration's
    /// name, in the current directory.
    pub workspace: *const c_char,
    /// A settings file to read instead of the machine's and the user's.
    pub site: *const c_char,
    /// The generation of rules, such as `classic`; else the test id's form decides.
    pub rules: *const c_char,
    /// How servers share nodes: `exclusive` or `packed`.
    pub placement: *const c_char,
    /// The node of DISAGG_SERVER and BENCHMARK: `first`, `last`, `ctx` or `own`.
    pub frontend_node: *const c_char,
    /// The Slurm account.
    pub account: *const c_char,
    /// The Slurm partition.
    pub partition: *const c_char,
    /// The time limit, in Slurm's form (`04:00:00`).
    pub time: *const c_char,
    /// The job's name.
    pub job_name: *const c_char,
    /// The MPI type of CTX and GEN steps, as `srun --mpi` takes it.
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
        let said =
            |pointer, field: &str| unsafe { optional(pointer, &format!("options->{field}")) };
        let rules = |name: &str| {
            let name: StrDeserializer<Error> = name.into_deserializer();
            Generation::deserialize(name).map_err(|error| error.to_string())
        };
        Ok(Self {
            options: Options {
                // SAFETY: as above.
                config: unsafe { text(c.config, "options->config") }?.to_owned(),
                trtllm_dir: said(c.trtllm_dir, "trtllm_dir")?,
                models_dir: said(c.models_dir, "models_dir")?,
                workspace: said(c.workspace, "workspace")?,
                site: said(c.site, "site")?.map(PathBuf::from),
                rules: chosen(said(c.rules, "rules")?, "rules", rules)?,
                placement: chosen(
                    said(c.placement, "placement")?,
                    "placement",
                    request::placement,
                )?,
                frontend_node: chosen(
                    said(c.frontend_node, "frontend_node")?,
                    "frontend_node",
                    request::frontend_node,
                )?,
                account: said(c.account, "account")?,
                partition: said(c.partition, "partition")?,
                time: said(c.time, "time")?,
                job_name: said(c.job_name, "job_name")?,
                mpi: said(c.mpi, "mpi")?,
                container_image: said(c.container_image, "container_image")?,
                run_script: said(c.run_script, "run_script")?,
                install_script: said(c.install_script, "install_script")?,
                ..Options::default()
            },
            // SAFETY: as above.
            environment: unsafe { environment(c.environment) },
            current_dir: current_dir(said(c.current_dir, "current_dir")?)?,
        })
    }

    /// Calls `body` with the surroundings that were asked for.
    pub(super) fn around<T>(&self, body: impl FnOnce(&Surroundings) -> T) -> T {
        let lookup = |name: &str| match &self.environment {
            None => std::env::var(name).ok(),
            Some(variables) => {
                variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            }
        };
        body(&Surroundings { env: &lookup, current_dir: self.current_dir.clone() })
    }
}

fn chosen<T>(
    name: Option<String>,
    field: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Failure> {
    let Some(name) = name else { return Ok(None) };
    match read(&name) {
        Ok(value) => Ok(Some(value)),
        Err(error) => Err(Failure::argument(format!("`options->{field}` is {name:?}: {error}"))),
    }
}

/// Variables that are not UTF-8 are left out, as [`Surroundings`] wants it.
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
