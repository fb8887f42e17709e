// SPDX-License-Identifier: Apache-2.0
//! Submitting a plan: which script sbatch gets, with which arguments, and the note in the
//! workspace by which the job is found again.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::client::{self, Submitted, Trouble};
use super::result::Moment;
use crate::output::script::{self, ScriptError};
use crate::output::{files, quote};
use crate::plan::Plan;

/// The version of the note.
const SCHEMA: u32 = 1;

/// The note's name in the workspace.
pub const NOTE: &str = "submission.json";

/// The script that starts `slurm-disagg launch` in the job.
pub const NATIVE_SCRIPT: &str = "slurm_launch_native.sh";

/// What starts and supervises the steps in the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// `slurm-disagg launch`; the nodes have to see this program.
    Native,
    /// The generated script, which needs nothing but bash and Slurm's commands.
    Bash,
}

/// What the workspace knows of its latest job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The version of the form: 1.
    pub schema: u32,
    /// Slurm's id of the job.
    pub job_id: u32,
    /// The cluster, when sbatch chose one of several.
    pub cluster: Option<String>,
    /// The test's id.
    pub test: String,
    /// What runs the steps.
    pub launcher: Launcher,
    /// When sbatch took the job.
    pub submitted: Moment,
}

/// Why a plan was not submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Slurm's answer.
    #[error(transparent)]
    Slurm(#[from] Trouble),
    /// The script cannot be made from the plan.
    #[error("the plan cannot be submitted: {0}")]
    Script(#[from] ScriptError),
    /// A file cannot be written or read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The job is in the queue, but the workspace cannot say so.
    #[error(
        "job {job_id} was submitted, but {path} cannot be written: {error}; follow it with \
         `slurm-disagg watch {job_id}`"
    )]
    NoNote {
        /// The job.
        job_id: u32,
        /// The note's path.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The note is not one.
    #[error("{path} is not a submission's note: {error}")]
    Note {
        /// The note's path.
        path: String,
        /// Why.
        #[source]
        error: serde_json::Error,
    },
}

/// The native script: the generated one's prefix, and this program instead of its body, with
/// these options for `slurm-disagg launch`.
///
/// # Errors
/// As [`script::prefix`].
pub fn native_script(
    plan: &Plan,
    program: &Path,
    options: &[String],
) -> Result<String, ScriptError> {
    let mut text = script::prefix(plan)?;
    let _ = write!(
        text,
        r#"
program={}
if [[ ! -x "${{program}}" ]]; then
    program="$(command -v slurm-disagg || true)"
fi
if [[ -z "${{program}}" ]]; then
    echo "slurm-disagg: $(hostname) has neither" {} "nor slurm-disagg on PATH; submit with --launcher=bash" >&2
    exit 1
fi
{{ set +x; }} 2>/dev/null
exec "${{program}}" launch {}
"#,
        quote::word(&program.to_string_lossy()),
        quote::word(&program.to_string_lossy()),
        quote::words(launch_arguments(plan, options)),
    );
    Ok(text)
}

/// The arguments of `slurm-disagg launch` in a plan's job.
pub fn launch_arguments<'a>(
    plan: &'a Plan,
    options: &'a [String],
) -> impl Iterator<Item = &'a str> {
    ["--workspace", &plan.workspace].into_iter().chain(options.iter().map(String::as_str))
}

/// Asks Slurm whether it would take a plan, and when the job would start. Nothing is written.
///
/// # Errors
/// [`SubmitError`].
pub fn test_only(plan: &Plan) -> Result<String, SubmitError> {
    let script = script::prefix(plan)?;
    let unnamed = |error| SubmitError::Io { path: "a temporary file".to_owned(), error };
    let mut file = tempfile::tempfile().map_err(unnamed)?;
    file.write_all(script.as_bytes()).and_then(|()| file.rewind()).map_err(unnamed)?;
    Ok(client::test_only(&arguments(plan)?, file)?)
}

/// Submits a plan whose workspace is written; gives the job, noted in the workspace. The options
/// are for `slurm-disagg launch`, and mean nothing to the generated script.
///
/// # Errors
/// [`SubmitError`]; all but [`SubmitError::NoNote`] mean that there is no job.
pub fn submit(
    plan: &Plan,
    launcher: Launcher,
    options: &[String],
) -> Result<(Note, Submitted), SubmitError> {
    let workspace = Path::new(&plan.workspace);
    let script = match launcher {
        Launcher::Bash => workspace.join(files::LAUNCH),
        Launcher::Native => {
            let path = workspace.join(NATIVE_SCRIPT);
            let failed = |error| SubmitError::Io { path: path.display().to_string(), error };
            let program = std::env::current_exe().map_err(failed)?;
            let text = native_script(plan, &program, options)?;
            replace(&path, text.as_bytes(), 0o700).map_err(failed)?;
            path
        }
    };
    let submitted = client::sbatch(&arguments(plan)?, &script)?;
    let note = Note {
        schema: SCHEMA,
        job_id: submitted.job_id,
        cluster: submitted.cluster.clone(),
        test: plan.test.id.clone(),
        launcher,
        submitted: Moment::now(),
    };
    let path = workspace.join(NOTE);
    let failed = |error| SubmitError::NoNote {
        job_id: note.job_id,
        path: path.display().to_string(),
        error,
    };
    let text = serde_json::to_vec_pretty(&note).map_err(|error| failed(error.into()))?;
    replace(&path, &text, 0o600).map_err(failed)?;
    Ok((note, submitted))
}

/// The note of a workspace; nothing when no job was submitted from it.
///
/// # Errors
/// [`SubmitError::Io`], [`SubmitError::Note`].
pub fn note(workspace: &Path) -> Result<Option<Note>, SubmitError> {
    let path = workspace.join(NOTE);
    let shown = path.display().to_string();
    match std::fs::read(&path) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(note) => Ok(Some(note)),
            Err(error) => Err(SubmitError::Note { path: shown, error }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SubmitError::Io { path: shown, error }),
    }
}

/// The workspace of a job: the directory of its log, where that has a plan.
#[must_use]
pub fn workspace_of(std_out: Option<&str>) -> Option<PathBuf> {
    let directory = Path::new(std_out?).parent()?;
    directory.join(files::PLAN).is_file().then(|| directory.to_owned())
}

fn arguments(plan: &Plan) -> Result<Vec<String>, ScriptError> {
    Ok(script::sbatch_request(&plan.job)?.argv()?)
}

/// Writes a file that is whole at every moment.
fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    let out: &File = file.as_file();
    out.set_permissions(std::fs::Permissions::from_mode(mode))?;
    out.sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
