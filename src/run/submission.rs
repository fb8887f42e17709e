// SPDX-License-Identifier: Apache-2.0
//! Submitting a plan: which script sbatch gets, with which arguments, and the file in the workspace
//! that records the job.

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::client::{self, Client, SlurmError, Submitted};
use super::figures::{Measurement, Search, Stamps};
use super::interrupt::{Interrupts, readable};
use super::result::Moment;
use crate::atomic_file;
use crate::diagnostic::Printable;
use crate::input::source;
use crate::output::script::{self, ScriptError};
use crate::output::{files, quote};
use crate::plan::Plan;
use crate::slurm::sbatch::wait_for;

/// The version of the file.
const SCHEMA: u32 = 1;

/// The file's name in the workspace.
pub const FILE: &str = "submission.json";

/// The interval of the search for a job that sbatch may have submitted.
const SEARCH_INTERVAL: Duration = Duration::from_secs(2);

/// How long the controller, once it responds, may take to handle the request of an earlier sbatch.
const SEARCH_AFTER_RESPONSE: Duration = Duration::from_secs(20);

/// How long the controller may be unresponsive during that search.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(600);

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

/// The latest job of a workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
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
    /// When sbatch submitted the job.
    pub submitted: Moment,
    /// The files in which figures are looked for and which were there before; the launch looks for
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Stamps>,
}

/// Why a plan was not submitted.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// Slurm's error.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// sbatch failed, and the search for a job ended without a result.
    #[error(
        "{error}; the job may be in the queue all the same ({reason}): look for the comment {comment:?} \
         in `squeue --me --format='%A %k'`"
    )]
    Unknown {
        /// The job's comment.
        comment: String,
        /// sbatch's error.
        error: String,
        /// Why the search ended.
        reason: String,
    },
    /// The plan has no script.
    #[error("cannot submit the plan: {0}")]
    Script(#[from] ScriptError),
    /// A file cannot be written or read.
    #[error("{path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// The job is in the queue, but the workspace cannot record it.
    #[error(
        "job {job_id} is submitted, but {path} cannot be written: {error}; follow it with \
         `slurm-disagg watch {job_id}`"
    )]
    NotRecorded {
        /// The job.
        job_id: u32,
        /// The file.
        path: String,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// The file in the workspace is not a record of a job.
    #[error("invalid {path}: {}", Printable(error))]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong.
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
    // The other launcher runs tests alone.
    let advice = match plan.suite {
        Some(_) => "submit with --launcher=bash",
        None => "install it where the nodes see it",
    };
    let _ = write!(
        text,
        r#"
program={}
if [[ ! -x "${{program}}" ]]; then
    program="$(command -v slurm-disagg || true)"
fi
if [[ -z "${{program}}" ]]; then
    echo "slurm-disagg: $(hostname) has neither" {} "nor slurm-disagg on PATH; {advice}" >&2
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

/// Asks Slurm whether it would accept a plan, and when the job would start. Nothing is written.
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

/// What sbatch gets for a plan.
#[derive(Debug)]
pub struct Prepared {
    /// The script, in the workspace.
    pub script: PathBuf,
    /// The options. A submission adds a comment, by which the job is found again.
    pub arguments: Vec<String>,
}

impl Prepared {
    /// The command line, as a shell takes it.
    pub fn command_line(&self) -> String {
        let words = client::submission(&self.arguments, &self.script);
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        format!("sbatch {}", quote::words(words.iter().map(|word| &**word)))
    }
}

/// Prepares the submission of a plan whose workspace is written: the native launcher's script is
/// written too.
///
/// # Errors
/// [`SubmitError::Io`], [`SubmitError::Script`].
pub fn prepare(
    plan: &Plan,
    launcher: Launcher,
    options: &[String],
) -> Result<Prepared, SubmitError> {
    let workspace = Path::new(&plan.workspace);
    let script = match launcher {
        Launcher::Bash => workspace.join(files::LAUNCH),
        Launcher::Native => {
            let path = workspace.join(NATIVE_SCRIPT);
            let failed = |error| SubmitError::Io { path: path.display().to_string(), error };
            let program = std::env::current_exe().map_err(failed)?;
            let text = native_script(plan, &program, options)?;
            write(&path, 0o700, text.as_bytes()).map_err(failed)?;
            path
        }
    };
    Ok(Prepared { script, arguments: arguments(plan)? })
}

/// Submits a plan whose workspace is written, and records the job in the workspace. The options are
/// for `slurm-disagg launch`; the generated script has none. The job starts when the job `after` has
/// ended, in whatever way. `log` gets a line when this takes longer.
///
/// # Errors
/// [`SubmitError`]; there is a job with [`SubmitError::NotRecorded`], there may be one with
/// [`SubmitError::Unknown`].
pub fn submit(
    plan: &Plan,
    launcher: Launcher,
    options: &[String],
    after: Option<u32>,
    interrupts: &Interrupts,
    log: impl Fn(&str),
) -> Result<(Submission, Submitted), SubmitError> {
    let Prepared { script, mut arguments } = prepare(plan, launcher, options)?;
    let before = match launcher {
        Launcher::Native => None,
        Launcher::Bash => match Search::new(plan, None).stamps() {
            Ok(before) => Some(before),
            Err(error) => {
                log(&format!("the benchmark's figures will not be read: {error}"));
                None
            }
        },
    };
    // By its comment the job is found when sbatch fails after the controller has accepted it.
    let comment = format!("slurm-disagg {:016x}", RandomState::new().build_hasher().finish());
    arguments.push(format!("--comment={comment}"));
    if let Some(job) = after {
        wait_for(&mut arguments, job).map_err(ScriptError::from)?;
    }
    let submitted = match client::sbatch(&arguments, &script) {
        Err(SlurmError::Unclear(error)) => {
            log(&format!("{error}; checking whether Slurm has accepted the job"));
            find(&comment, error, interrupts)?
        }
        submitted => submitted?,
    };
    let submission = Submission {
        schema: SCHEMA,
        job_id: submitted.job_id,
        cluster: submitted.cluster.clone(),
        test: plan.title().to_owned(),
        launcher,
        submitted: Moment::now(),
        before,
    };
    let path = Path::new(&plan.workspace).join(FILE);
    let failed = |error| SubmitError::NotRecorded {
        job_id: submission.job_id,
        path: path.display().to_string(),
        error,
    };
    let text = serde_json::to_vec_pretty(&submission).map_err(|error| failed(error.into()))?;
    write(&path, 0o600, &text).map_err(failed)?;
    Ok((submission, submitted))
}

/// Finds the job of an sbatch that failed with an error after which there may be one.
fn find(comment: &str, error: String, interrupts: &Interrupts) -> Result<Submitted, SubmitError> {
    let cluster = std::env::var("SBATCH_CLUSTERS").ok().filter(|clusters| !clusters.is_empty());
    let client = Client { cluster };
    let began = Instant::now();
    let mut responded: Option<Instant> = None;
    let reason = loop {
        match client.job_with_comment(comment, interrupts) {
            Ok(Some(job_id)) => {
                return Ok(Submitted { job_id, cluster: client.cluster, output: String::new() });
            }
            Ok(None) => {
                if responded.get_or_insert_with(Instant::now).elapsed() >= SEARCH_AFTER_RESPONSE {
                    return Err(SlurmError::Refused(error).into());
                }
            }
            Err(SlurmError::Unresponsive(_)) if began.elapsed() < SEARCH_TIMEOUT => {}
            Err(reason) => break reason.to_string(),
        }
        // A signal stays pending, as it does while sbatch runs.
        match readable(&[interrupts.as_fd()], SEARCH_INTERVAL) {
            Ok(ready) if ready == [false] => {}
            Ok(_) => break SlurmError::Interrupted.to_string(),
            Err(reason) => break reason.to_string(),
        }
    };
    Err(SubmitError::Unknown { comment: comment.to_owned(), error, reason })
}

/// The latest job of a workspace; `None` when none was submitted from it.
///
/// # Errors
/// [`SubmitError::Io`], [`SubmitError::Invalid`].
pub fn read(workspace: &Path) -> Result<Option<Submission>, SubmitError> {
    let path = workspace.join(FILE);
    let shown = path.display().to_string();
    match source::open(&path) {
        Ok(file) => match serde_json::from_reader(BufReader::new(file.take(source::MAX_FILE))) {
            Ok(submission) => Ok(Some(submission)),
            Err(error) => Err(SubmitError::Invalid { path: shown, error }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SubmitError::Io { path: shown, error }),
    }
}

/// What the client of a workspace's latest job measured, where no launch has read it, and why the test
/// has not passed by it.
#[must_use]
pub fn figures(workspace: &Path) -> Option<(Vec<Measurement>, Option<String>)> {
    let before = read(workspace).ok()??.before?;
    let plan = source::read(&workspace.join(files::PLAN), files::PLAN).ok()?;
    let plan = Plan::from_json(&plan.text).ok()?;
    let figures = Search::new(&plan, None).since(files::STARTED).read(&before);
    let fault = figures.fault(plan.max_failed.value);
    Some((figures.measurements, fault))
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

fn write(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    atomic_file::write(path, mode, |file| file.write_all(content).and_then(|()| file.sync_all()))
}
