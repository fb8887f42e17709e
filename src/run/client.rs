// SPDX-License-Identifier: Apache-2.0
//! What Slurm is asked and told about jobs, through its own commands: `sbatch`, `squeue`,
//! `scontrol`, `sacct` and `scancel`.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::ask::{NotSaid, Said, ask};
use super::interrupt::Interrupts;
use super::pace::PATIENCE;
use crate::slurm::job::{ExitCode, JobRecord, RecordError, parse_records};
use crate::slurm::state::JobState;

/// The way to the jobs of one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Client {
    /// The cluster, where it is another than the machine's own (`sbatch -M`).
    pub cluster: Option<String>,
}

/// A job that sbatch took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// The job's id.
    pub job_id: u32,
    /// The cluster, when sbatch chose one of several.
    pub cluster: Option<String>,
    /// What sbatch, its plugins and the controller said besides.
    pub said: String,
}

/// What the queue says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The job's id.
    pub job_id: u32,
    /// Its state.
    pub state: JobState,
    /// Why it waits, when it does.
    pub reason: Option<String>,
}

/// What accounting says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accounted {
    /// Its state.
    pub state: JobState,
    /// What its batch script ended with.
    pub exit_code: ExitCode,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The controller does not answer at the moment.
    #[error("{0}")]
    Silent(String),
    /// An interruption came.
    #[error("interrupted")]
    Interrupted,
    /// The command cannot be run here.
    #[error(transparent)]
    NotRun(NotSaid),
    /// Slurm refused, in its own words.
    #[error("{0}")]
    Refused(String),
}

impl From<NotSaid> for Trouble {
    fn from(error: NotSaid) -> Self {
        match error {
            NotSaid::Interrupted => Self::Interrupted,
            NotSaid::TooSlow { .. } => Self::Silent(error.to_string()),
            NotSaid::NotRun { .. } => Self::NotRun(error),
        }
    }
}

/// Hands a script to sbatch. The arguments stand on the command line, where no `SBATCH_*`
/// variable of the environment overrides them.
///
/// # Errors
/// [`Trouble`]; a refusal is in sbatch's own words. It is never [`Trouble::Interrupted`]: whether
/// there is a job then would not be known.
pub fn sbatch(arguments: &[String], script: &Path) -> Result<Submitted, Trouble> {
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--parsable").args(arguments).arg(script).stdin(Stdio::null());
    let Said { code, stdout, stderr } = ask(&mut sbatch, Duration::MAX, None)?;
    if code != Some(0) {
        return Err(Trouble::Refused(words(&stderr, "sbatch failed and said nothing")));
    }
    let id = stdout.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let (id, cluster) = id.split_once(';').map_or((id, None), |(id, name)| (id, Some(name)));
    let job_id = id.parse().map_err(|_| {
        Trouble::Refused(format!("sbatch --parsable printed {stdout:?}, which is no job id"))
    })?;
    Ok(Submitted { job_id, cluster: cluster.map(str::to_owned), said: stderr })
}

/// Asks sbatch whether it would take a script, and when the job would start; nothing is
/// submitted.
///
/// # Errors
/// As [`sbatch`].
pub fn test_only(arguments: &[String], script: File) -> Result<String, Trouble> {
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("--test-only").args(arguments).stdin(script);
    let said = ask(&mut sbatch, Duration::MAX, None)?;
    let text = words(&said.stderr, "sbatch said nothing");
    if said.is_success() { Ok(text) } else { Err(Trouble::Refused(text)) }
}

impl Client {
    /// What the queue says of these jobs, within so long. Those that Slurm no longer knows are not in the answer.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn queued(
        &self,
        jobs: &[u32],
        patience: Duration,
        interrupts: Option<&Interrupts>,
    ) -> Result<Vec<Queued>, Trouble> {
        let ids: Vec<_> = jobs.iter().map(u32::to_string).collect();
        let mut squeue = self.command("squeue");
        squeue.args(["--noheader", "--states=all", "--format=%A|%T|%r"]);
        squeue.arg(format!("--jobs={}", ids.join(",")));
        let said = ask(&mut squeue, patience, interrupts)?;
        if is_unknown_job(&said) {
            return Ok(Vec::new());
        }
        if !said.is_success() {
            return Err(Trouble::Silent(words(&said.stderr, "squeue failed and said nothing")));
        }
        Ok(said.stdout.lines().filter_map(queue_line).collect())
    }

    /// All that Slurm knows of a job, within so long; nothing when it no longer knows it, or when
    /// the record is one in which a name passes itself off as another field.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn record(
        &self,
        job_id: u32,
        patience: Duration,
        interrupts: Option<&Interrupts>,
    ) -> Result<Option<JobRecord>, Trouble> {
        let mut scontrol = self.command("scontrol");
        scontrol.args(["--oneliner", "show", "job", &job_id.to_string()]);
        let said = ask(&mut scontrol, patience, interrupts)?;
        if is_unknown_job(&said) {
            return Ok(None);
        }
        if !said.is_success() {
            return Err(Trouble::Silent(words(&said.stderr, "scontrol failed and said nothing")));
        }
        match parse_records(&said.stdout) {
            Ok(records) => Ok(records.into_iter().find(|record| record.job_id == job_id)),
            Err(RecordError::Ambiguous { .. }) => Ok(None),
            Err(error) => Err(Trouble::Refused(error.to_string())),
        }
    }

    /// What accounting says of a job that the controller no longer knows; nothing where there is
    /// no accounting.
    ///
    /// # Errors
    /// Only [`Trouble::Interrupted`]: a site without accounting is no failure.
    pub fn accounted(
        &self,
        job_id: u32,
        interrupts: Option<&Interrupts>,
    ) -> Result<Option<Accounted>, Trouble> {
        let mut sacct = self.command("sacct");
        sacct.args(["--noheader", "--parsable2", "--allocations", "--format=State,ExitCode"]);
        sacct.arg(format!("--jobs={job_id}"));
        match ask(&mut sacct, PATIENCE, interrupts) {
            Ok(said) if said.is_success() => Ok(said.stdout.lines().next().and_then(account_line)),
            Err(NotSaid::Interrupted) => Err(Trouble::Interrupted),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    /// Cancels jobs.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn cancel(&self, jobs: &[u32]) -> Result<(), Trouble> {
        let mut scancel = self.command("scancel");
        scancel.args(jobs.iter().map(u32::to_string));
        let said = ask(&mut scancel, PATIENCE, None)?;
        match said.is_success() {
            true => Ok(()),
            false => Err(Trouble::Refused(words(&said.stderr, "scancel failed and said nothing"))),
        }
    }

    /// One of Slurm's commands, without the variables by which people change what it shows.
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

/// Slurm's own words, or others when there are none.
fn words(stderr: &str, otherwise: &str) -> String {
    match stderr.trim_end() {
        "" => otherwise.to_owned(),
        text => text.to_owned(),
    }
}

fn is_unknown_job(said: &Said) -> bool {
    !said.is_success() && said.stderr.contains("Invalid job id")
}

/// A line of `%A|%T|%r`. A state that is not known is one that a newer Slurm has: the job is
/// there, and nothing more is known.
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
    fn a_line_of_the_queue_has_id_state_and_reason() {
        let line = queue_line("12|PENDING|Nodes required are DOWN|or RESERVED").unwrap();
        assert_eq!((line.job_id, line.state), (12, BaseState::Pending.into()));
        assert_eq!(line.reason.as_deref(), Some("Nodes required are DOWN|or RESERVED"));
        assert_eq!(queue_line("12|RUNNING|None").unwrap().reason, None);
        assert_eq!(queue_line("CLUSTER: other"), None);
    }

    #[test]
    fn a_state_of_a_newer_slurm_leaves_the_job_known() {
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
