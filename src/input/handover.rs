// SPDX-License-Identifier: Apache-2.0
//! The plan on its way from the submission into the job: the value of [`VARIABLE`].
//!
//! It is the plan's JSON, or, when that is too long for a variable, the absolute path of a file
//! with it. Others may be able to write to the directory of that file, so its name holds the hash
//! of its content, and the job reads only that content.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{config, source};
use crate::atomic_file;
use crate::diagnostic::Printable;
use crate::plan::{BadPlan, Plan};

/// The variable. A name that starts with `SLURM` survives `--export=NONE` and lists.
pub const VARIABLE: &str = "SLURM_DISAGG_PLAN";

/// The name of a task's step, once the SPANK plugin has set its environment.
pub const TASK: &str = "SLURM_DISAGG_TASK";

/// The name of a step, from srun to slurmstepd. A task has it where its node lacks the plugin.
pub const STEP_ROLE: &str = "SLURM_DISAGG_STEP_ROLE";

/// That a step is to run in a container, likewise.
pub const CONTAINER: &str = "SLURM_DISAGG_CONTAINER";

/// Before the name of a variable to which the step's command refers: its value before the plugin has
/// set or removed it in the task's environment.
pub const BEFORE_STEP: &str = "SLURM_DISAGG_BEFORE_";

/// The longest plan that travels in the variable itself, in bytes. Linux takes 128 KiB at most for
/// one string of an environment.
pub const MAX_INLINE: usize = 64 << 10;

/// Why a plan cannot be handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The plan has no JSON form.
    #[error("the plan cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The file cannot be written.
    #[error(
        "the plan is {length} bytes long and goes into a file, but {} cannot be written: {error}. \
         Submit from a directory that you can write to and that the nodes see",
        Printable(&path.display().to_string())
    )]
    Unwritable {
        /// The plan's length.
        length: usize,
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        error: std::io::Error,
    },
    /// The file cannot be read.
    #[error("{VARIABLE}: {0}")]
    Unreadable(String),
    /// It is not a plan.
    #[error("{VARIABLE}: {}{error}", Printable(place))]
    Bad {
        /// The file and a colon, or nothing.
        place: String,
        /// Why.
        #[source]
        error: BadPlan,
    },
    /// The file has another content than the one that the submission wrote.
    #[error(
        "{VARIABLE}: {}: the file has changed since the job was submitted: submit it again",
        Printable(.0)
    )]
    Changed(String),
}

/// The value for a plan. A long one is written to a file in `directory`, which the job's nodes must
/// see; equal plans share a file.
///
/// # Errors
/// [`HandoverError`].
pub fn write(plan: &Plan, directory: &Path) -> Result<String, HandoverError> {
    let json = plan.to_json()?;
    let length = json.len();
    if length <= MAX_INLINE {
        return Ok(json);
    }
    let path = directory.join(file_name(&json));
    // A plan may hold secrets.
    atomic_file::write(&path, 0o600, |file| {
        file.write_all(json.as_bytes())?;
        file.sync_all()
    })
    .map_err(|error| HandoverError::Unwritable { length, path: path.clone(), error })?;
    Ok(path.display().to_string())
}

/// The plan of a value.
///
/// # Errors
/// [`HandoverError`].
pub fn read(value: &str) -> Result<Plan, HandoverError> {
    match value.starts_with('/') {
        false => parse(value, value),
        true => parse(value, &content(value)?),
    }
}

/// The plan of a value, from the JSON that it is or whose file it names.
///
/// # Errors
/// [`HandoverError`].
pub fn parse(value: &str, json: &str) -> Result<Plan, HandoverError> {
    let place = if value.starts_with('/') { format!("{value}: ") } else { String::new() };
    Plan::from_json(json).map_err(|error| HandoverError::Bad { place, error })
}

/// What the file of a long plan holds, not looked at.
///
/// # Errors
/// [`HandoverError`]: it cannot be read, or is not the file that the submission wrote.
pub fn content(path: &str) -> Result<String, HandoverError> {
    let shown = Printable(path).to_string();
    let json = source::read(Path::new(path), &shown)
        .map_err(|error| HandoverError::Unreadable(error.message))?
        .text
        .clone();
    let name = path.rsplit('/').next().unwrap_or_default();
    if name.starts_with(PREFIX) && name != file_name(&json) {
        return Err(HandoverError::Changed(path.to_owned()));
    }
    Ok(json)
}

const PREFIX: &str = ".disagg-plan-";

fn file_name(json: &str) -> String {
    format!("{PREFIX}{}.json", config::sha256(json.as_bytes()))
}
