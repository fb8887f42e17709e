// SPDX-License-Identifier: Apache-2.0
//! Queries and requests about jobs, through Slurm's own commands: `sbatch`, `squeue`, `scontrol`,
//! `sacct` and `scancel`.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::interrupt::Interrupts;
use super::polling::QUERY_TIMEOUT;
use super::subprocess::{self, Output, SubprocessError};
use crate::slurm::inherited::reaches_sbatch;
use crate::slurm::job::{ExitCode, JobRecord, RecordError, parse_records};
use crate::slurm::state::JobState;

/// Access to the jobs of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The cluster, when it is not this machine's own (`sbatch -M`).
    pub cluster: Option<String>,
}

/// A job that sbatch submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job's id.
    pub job_id: u32,
    /// The cluster, when sbatch chose one of several.
    pub cluster: Option<String>,
    /// What sbatch, its plugins and the controller printed besides.
    pub output: String,
}

/// A job in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The job's id.
    pub job_id: u32,
    /// Its state.
    pub state: JobState,
    /// Why it waits, when it does.
    pub reason: Option<String>,
}

/// A job in the accounting database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounted {
    /// Its state.
    pub state: JobState,
    /// How its batch script ended.
    pub exit_code: ExitCode,
}

/// Why a query or request failed.
#[derive(Debug, thiserror::Error)]
pub enum SlurmError {
    /// The controller does not respond now.
    #[error("{0}")]
    Unresponsive(String),
    /// sbatch failed, but the controller may have the job.
    #[error("{0}")]
    Unclear(String),
    /// A signal arrived.
    #[error("interrupted")]
    Interrupted,
    /// The command cannot be run here.
    #[error(transparent)]
    NotRun(SubprocessError),
    /// Slurm refused, with its own message.
    #[error("{0}")]
    Refused(String),
}

impl From<SubprocessError> for SlurmError {
    fn from(error: SubprocessError) -> Self {
        match error {
            SubprocessError::Interrupted => Self::Interrupted,
            SubprocessError::TimedOut { .. } => Self::Unresponsive(error.to_string()),
            SubprocessError::NotRun { .. } => Self::NotRun(error),
        }
    }
}

/// Submits a script. The arguments are on the command line, where no `SBATCH_*` variable of the
/// environment overrides them.
///
/// # Errors
/// [`SlurmError`], never [`SlurmError::Interrupted`]: a signal waits until sbatch has ended.
pub fn sbatch(arguments: &[String], script: &Path) -> Result<Submitted, SlurmError> {
    let mut sbatch = sbatch_command();
    sbatch.args(submission(arguments, script)).stdin(Stdio::null());
    submitted(subprocess::run(&mut sbatch, Duration::MAX, None)?)
}

/// The arguments of that sbatch.
pub fn submission<'a>(
    arguments: &'a [String],
    script: &'a Path,
) -> impl Iterator<Item = &'a OsStr> {
    let arguments = arguments.iter().map(OsStr::new);
    [OsStr::new("--parsable")].into_iter().chain(arguments).chain([script.as_os_str()])
}

/// sbatch with the environment that the new job gets.
fn sbatch_command() -> Command {
    let in_a_job = std::env::var_os("SLURM_JOB_ID").is_some();
    let mut sbatch = Command::new("sbatch");
    for (name, _) in std::env::vars_os() {
        if !reaches_sbatch(&name.to_string_lossy(), in_a_job) {
            sbatch.env_remove(name);
        }
    }
    sbatch
}

/// Errors after which the controller may have the job: the request was sent, the response was lost.
const LOST_RESPONSE: [&str; 8] = [
    "timed out",
    "Zero Bytes were transmitted or received",
    "send failure",
    "receive failure",
    "shutdown failure",
    "Unexpected message received",
    "reset by peer",
    "Broken pipe",
];

/// Slurm's refusal, with what to do where its words do not say it.
fn refused(text: String) -> SlurmError {
    const ADVICE: &str = "; no node of the partition has what the plan asks of each: choose another one \
                          (--partition), or --gpu-request=none where Slurm does not count GPUs";
    let is_vague = text.contains("Requested node configuration is not available");
    SlurmError::Refused(text + if is_vague { ADVICE } else { "" })
}

fn submitted(output: Output) -> Result<Submitted, SlurmError> {
    // A site's plugins and wrappers print there too.
    let mut ids = output.stdout.lines().filter_map(|line| {
        let (id, cluster) = line.trim().split_once(';').map_or((line, None), |(i, c)| (i, Some(c)));
        Some((id.trim().parse().ok()?, cluster.map(str::to_owned)))
    });
    let id = ids.next().filter(|_| ids.next().is_none());
    let is_lost = LOST_RESPONSE.iter().any(|error| output.stderr.contains(error));
    match (output.code, id) {
        (Some(0), Some((job_id, cluster))) => {
            Ok(Submitted { job_id, cluster, output: output.stderr })
        }
        (Some(0), None) => Err(SlurmError::Unclear(format!(
            "sbatch --parsable printed {:?}, which is not a job id",
            output.stdout
        ))),
        (None, _) => Err(SlurmError::Unclear("a signal ended sbatch".to_owned())),
        (Some(_), Some(_)) => Err(SlurmError::Unclear(message(&output, "sbatch"))),
        (Some(_), None) if is_lost => Err(SlurmError::Unclear(message(&output, "sbatch"))),
        (Some(_), None) => Err(refused(message(&output, "sbatch"))),
    }
}

/// Asks sbatch whether it would accept a script, and when the job would start; nothing is
/// submitted.
///
/// # Errors
/// As [`sbatch`].
pub fn test_only(arguments: &[String], script: File) -> Result<String, SlurmError> {
    let mut sbatch = sbatch_command();
    sbatch.arg("--test-only").args(arguments).stdin(script);
    let output = subprocess::run(&mut sbatch, Duration::MAX, None)?;
    let text = message(&output, "sbatch");
    if output.code == Some(0) { Ok(text) } else { Err(refused(text)) }
}

impl Client {
    /// The state of these jobs. Jobs that the controller has purged are not in the result.
    ///
    /// # Errors
    /// [`SlurmError`].
    pub fn queued(
        &self,
        jobs: &[u32],
        timeout: Duration,
        interrupts: Option<&Interrupts>,
    ) -> Result<Vec<Queued>, SlurmError> {
        let ids: Vec<_> = jobs.iter().map(u32::to_string).collect();
        let mut squeue = self.command("squeue");
        squeue.args(["--noheader", "--states=all", "--format=%A|%T|%r"]);
        squeue.arg(format!("--jobs={}", ids.join(",")));
        let stdout = query(&mut squeue, timeout, interrupts)?.unwrap_or_default();
        Ok(stdout.lines().filter_map(queue_line).collect())
    }

    /// This user's job with a comment that only one job has; `None` when there is none.
    ///
    /// # Errors
    /// [`SlurmError`].
    pub fn job_with_comment(
        &self,
        comment: &str,
        interrupts: &Interrupts,
    ) -> Result<Option<u32>, SlurmError> {
        let mut squeue = self.command("squeue");
        squeue.args(["--noheader", "--states=all", "--format=%A|%k"]);
        squeue.arg(format!("--user={}", rustix::process::getuid().as_raw()));
        let stdout = query(&mut squeue, QUERY_TIMEOUT, Some(interrupts))?.unwrap_or_default();
        let mut jobs = stdout.lines().filter_map(|line| line.trim_end().split_once('|'));
        Ok(jobs.find(|job| job.1 == comment).and_then(|job| job.0.trim().parse().ok()))
    }

    /// The controller's record of a job; `None` when it has purged the job, and for a record in
    /// which a name passes itself off as another field.
    ///
    /// # Errors
    /// [`SlurmError`].
    pub fn record(
        &self,
        job_id: u32,
        timeout: Duration,
        interrupts: Option<&Interrupts>,
    ) -> Result<Option<JobRecord>, SlurmError> {
        let mut scontrol = self.command("scontrol");
        scontrol.args(["--oneliner", "show", "job", &job_id.to_string()]);
        let Some(stdout) = query(&mut scontrol, timeout, interrupts)? else { return Ok(None) };
        match parse_records(&stdout) {
            Ok(records) => Ok(records.into_iter().find(|record| record.job_id == job_id)),
            Err(RecordError::Ambiguous { .. }) => Ok(None),
            Err(error) => Err(SlurmError::Refused(error.to_string())),
        }
    }

    /// The accounting database's record of a job; `None` without one.
    ///
    /// # Errors
    /// Only [`SlurmError::Interrupted`]: not every site has accounting.
    pub fn accounted(
        &self,
        job_id: u32,
        interrupts: Option<&Interrupts>,
    ) -> Result<Option<Accounted>, SlurmError> {
        let mut sacct = self.command("sacct");
        sacct.args(["--noheader", "--parsable2", "--allocations", "--format=State,ExitCode"]);
        sacct.arg(format!("--jobs={job_id}"));
        match query(&mut sacct, QUERY_TIMEOUT, interrupts) {
            Ok(stdout) => Ok(stdout.unwrap_or_default().lines().next().and_then(account_line)),
            Err(SlurmError::Interrupted) => Err(SlurmError::Interrupted),
            Err(_) => Ok(None),
        }
    }

    /// Cancels jobs.
    ///
    /// # Errors
    /// [`SlurmError`].
    pub fn cancel(&self, jobs: &[u32]) -> Result<(), SlurmError> {
        let mut scancel = self.command("scancel");
        scancel.args(jobs.iter().map(u32::to_string));
        let output = subprocess::run(&mut scancel, QUERY_TIMEOUT, None)?;
        match output.code {
            Some(0) => Ok(()),
            _ => Err(SlurmError::Refused(message(&output, "scancel"))),
        }
    }

    /// One of Slurm's commands, without the variables by which people change what it prints.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["SQUEUE_", "SACCT_", "SCANCEL_"].iter().any(|prefix| name.starts_with(prefix)) {
                command.env_remove(&*name);
            }
        }
        command.args(self.cluster.as_ref().map(|cluster| format!("--clusters={cluster}")));
        command
    }
}

/// Runs a query; gives its standard output, or `None` for a job that Slurm does not know.
fn query(
    command: &mut Command,
    timeout: Duration,
    interrupts: Option<&Interrupts>,
) -> Result<Option<String>, SlurmError> {
    let output = subprocess::run(command, timeout, interrupts)?;
    match output.code {
        Some(0) => Ok(Some(output.stdout)),
        _ if output.stderr.contains("Invalid job id") => Ok(None),
        _ => {
            let program = command.get_program().to_string_lossy();
            Err(SlurmError::Unresponsive(message(&output, &program)))
        }
    }
}

/// The error output of a command, or that it has none.
fn message(output: &Output, program: &str) -> String {
    match output.stderr.trim_end() {
        "" => format!("{program} printed no message"),
        text => text.to_owned(),
    }
}

/// A line of `%A|%T|%r`. An unknown state is one of a newer Slurm: the job exists, and nothing more
/// is known.
fn queue_line(line: &str) -> Option<Queued> {
    let mut fields = line.splitn(3, '|');
    let job_id = fields.next()?.trim().parse().ok()?;
    let state = fields.next()?.parse().unwrap_or_default();
    let reason = fields.next().map(str::trim).filter(|reason| !["", "None"].contains(reason));
    Some(Queued { job_id, state, reason: reason.map(str::to_owned) })
}

fn account_line(line: &str) -> Option<Accounted> {
    let (state, exit_code) = line.split_once('|')?;
    Some(Accounted { state: state.parse().ok()?, exit_code: exit_code.trim().parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::state::BaseState;

    #[test]
    fn the_job_id_is_found_among_other_lines() {
        for (stdout, expected) in [
            ("7\n", Some((7, None))),
            ("7;other\n", Some((7, Some("other")))),
            ("Welcome\n 7 \nYou have 100 GPU hours left\n", Some((7, None))),
            ("7\n100\n", None),
            ("Submitted\n", None),
            ("", None),
        ] {
            let output = Output { code: Some(0), stdout: stdout.into(), ..Output::default() };
            match (submitted(output), expected) {
                (Ok(job), Some((id, cluster))) => {
                    assert_eq!((job.job_id, job.cluster.as_deref()), (id, cluster), "{stdout}");
                }
                (Err(SlurmError::Unclear(_)), None) => {}
                (other, _) => panic!("{stdout}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_refusal_is_told_apart_from_a_lost_response() {
        let failed = |code, stdout: &str, stderr: &str| {
            submitted(Output { code, stdout: stdout.into(), stderr: stderr.into() }).unwrap_err()
        };
        let batch = |error: &str| format!("sbatch: error: Batch job submission failed: {error}\n");
        for error in [
            "Invalid partition name specified",
            "Unable to contact slurm controller (connect failure)",
        ] {
            assert!(
                matches!(failed(Some(1), "", &batch(error)), SlurmError::Refused(_)),
                "{error}"
            );
        }
        for error in
            ["Socket timed out on send/recv operation", "Zero Bytes were transmitted or received"]
        {
            assert!(
                matches!(failed(Some(1), "", &batch(error)), SlurmError::Unclear(_)),
                "{error}"
            );
        }
        assert!(matches!(failed(None, "", ""), SlurmError::Unclear(_)));
        assert!(matches!(failed(Some(1), "7\n", "a wrapper failed"), SlurmError::Unclear(_)));
    }

    #[test]
    fn a_line_of_the_queue_has_id_state_and_reason() {
        let line = queue_line("12|PENDING|Nodes required are DOWN|or RESERVED").unwrap();
        assert_eq!((line.job_id, line.state), (12, BaseState::Pending.into()));
        assert_eq!(line.reason.as_deref(), Some("Nodes required are DOWN|or RESERVED"));
        assert_eq!(queue_line("12|RUNNING|None").unwrap().reason, None);
        assert_eq!(queue_line("CLUSTER: other"), None);
    }

    #[test]
    fn a_job_in_a_state_of_a_newer_slurm_exists() {
        assert_eq!(queue_line("12|DREAMING|None").unwrap().state, JobState::default());
    }

    #[test]
    fn a_line_of_accounting_has_the_state_and_how_the_script_ended() {
        let line = account_line("CANCELLED by 1000|0:15").unwrap();
        assert_eq!(line.state.cancelled_by, Some(1000));
        assert_eq!(line.exit_code, ExitCode { code: 0, signal: 15 });
        assert_eq!(account_line(""), None);
    }
}
