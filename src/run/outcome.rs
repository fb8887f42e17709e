// SPDX-License-Identifier: Apache-2.0
//! Whether the test passed: one rule, from Slurm's state of the job and the launch's verdict.

use serde::{Deserialize, Serialize};

use super::result::{Exit, RunResult, VerdictKind};
use super::submission::Launcher;
use crate::slurm::job::ExitCode;
use crate::slurm::reason::advice;
use crate::slurm::state::{BaseState, JobState};

/// The outcome of a test. The names in JSON never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its files are written, and nothing else was asked for (`--dry-run`).
    Written,
    /// Slurm would accept it (`--test-only`).
    Accepted,
    /// Slurm refused it; there is no job.
    Refused,
    /// Its job is in the queue, and the command does not wait for it (`--no-wait`).
    Submitted,
    /// A signal ended the waiting; its job continues.
    Detached,
    /// The job ended, and the benchmark passed.
    Passed,
    /// The job ended in any other way.
    Failed,
    /// Nothing shows how the job ended, or whether there is one.
    Unknown,
}

impl Outcome {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::Submitted => "submitted",
            Self::Detached => "detached",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the request succeeded: the exit status is 0 then.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Written | Self::Accepted | Self::Submitted | Self::Passed)
    }
}

/// What is known at a job's end.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Its final state; `None` when neither the controller nor accounting has it.
    pub state: Option<&'a JobState>,
    /// Slurm's reason.
    pub reason: Option<&'a str>,
    /// How its batch script ended.
    pub exit_code: Option<ExitCode>,
    /// What ran the steps; `None` for a job that this command did not submit.
    pub launcher: Option<Launcher>,
    /// The result of this very run, not of an earlier one.
    pub result: Option<&'a RunResult>,
    /// What the benchmark's figures say against a job without a launch that reads them.
    pub fault: Option<&'a str>,
}

/// Judges a job that has ended; gives the outcome and a sentence for people.
///
/// The test passed only where all agree: the launch's verdict, where there is a launch, and Slurm.
/// For the generated script the batch script's exit code is the benchmark's, and the benchmark's
/// figures count too.
#[must_use]
pub fn judge(facts: Facts<'_>) -> (Outcome, String) {
    let verdict = facts.result.map(|result| &result.verdict);
    let decided = verdict.filter(|verdict| verdict.kind != VerdictKind::Running);
    let Some(state) = facts.state else {
        return match decided {
            Some(verdict) if verdict.kind.is_passed() => (Outcome::Passed, verdict.message.clone()),
            Some(verdict) => (Outcome::Failed, verdict.message.clone()),
            None => (
                Outcome::Unknown,
                "Slurm has no record of the job any more, and the workspace has no verdict: check \
                 the logs in the workspace."
                    .to_owned(),
            ),
        };
    };
    let in_slurm = slurm_sentence(state, facts.reason, facts.exit_code);
    match decided {
        Some(verdict) if !verdict.kind.is_passed() => {
            let slurm_knows_more =
                !knows_why_slurm_ended_it(verdict.kind) && was_ended_by_slurm(state);
            let message = match slurm_knows_more {
                true => format!("{in_slurm} Verdict of the launch: {}", verdict.message),
                false => verdict.message.clone(),
            };
            (Outcome::Failed, message)
        }
        Some(verdict) if state.succeeded() || has_served(verdict.kind, state) => {
            (Outcome::Passed, verdict.message.clone())
        }
        Some(_) => {
            (Outcome::Failed, format!("The benchmark passed, but the job did not: {in_slurm}"))
        }
        None if !state.succeeded() => (Outcome::Failed, in_slurm),
        None if facts.launcher == Some(Launcher::Native) => {
            (Outcome::Unknown, format!("{in_slurm} But the workspace has no verdict of this run."))
        }
        None => match facts.fault {
            Some(fault) => (Outcome::Failed, format!("The benchmark ended well, but {fault}.")),
            None => (Outcome::Passed, in_slurm),
        },
    }
}

/// Whether servers without a benchmark were cancelled, which is how they end well.
fn has_served(kind: VerdictKind, state: &JobState) -> bool {
    kind == VerdictKind::Served && state.base == Some(BaseState::Cancelled)
}

/// Whether Slurm ended the job, and not its batch script.
fn was_ended_by_slurm(state: &JobState) -> bool {
    state.base.is_some_and(|base| !matches!(base, BaseState::Completed | BaseState::Failed))
}

/// Whether a verdict already says why Slurm ended the job.
fn knows_why_slurm_ended_it(kind: VerdictKind) -> bool {
    matches!(
        kind,
        VerdictKind::Cancelled
            | VerdictKind::TimeLimit
            | VerdictKind::TimeLimitNear
            | VerdictKind::Preempted
            | VerdictKind::Requeued
            | VerdictKind::NodeFailed
    )
}

/// The state of a job and the reason for it, as sentences.
#[must_use]
pub fn slurm_sentence(
    state: &JobState,
    reason: Option<&str>,
    exit_code: Option<ExitCode>,
) -> String {
    let mut text = state.explain();
    match exit_code {
        Some(code) if state.base == Some(BaseState::Failed) && code.signal > 0 => {
            text = format!("Signal {} ended the job's batch script.", code.signal);
        }
        Some(code) if state.base == Some(BaseState::Failed) && code.code > 0 => {
            let exit = Exit::Status(code.code.into());
            text = format!("The job's batch script ended with {exit}.");
        }
        _ => {}
    }
    // These two repeat the sentence.
    let repeated = ["NonZeroExitCode", "RaisedSignal"];
    if let Some(reason) = reason.filter(|reason| !repeated.contains(reason)) {
        match advice(reason) {
            Some(advice) => text.push_str(&format!(" {reason}: {advice}")),
            None => text.push_str(&format!(" Slurm's reason: {reason}.")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::result::Verdict;
    use super::*;

    fn result(kind: VerdictKind) -> RunResult {
        RunResult::sample(Verdict::new(kind, "the verdict"))
    }

    fn outcome(
        state: Option<&str>,
        launcher: Option<Launcher>,
        verdict: Option<VerdictKind>,
    ) -> Outcome {
        let state = state.map(|state| state.parse().unwrap());
        let result = verdict.map(result);
        let facts = Facts {
            state: state.as_ref(),
            reason: None,
            exit_code: None,
            launcher,
            result: result.as_ref(),
            fault: None,
        };
        judge(facts).0
    }

    const NATIVE: Option<Launcher> = Some(Launcher::Native);
    const BASH: Option<Launcher> = Some(Launcher::Bash);

    #[test]
    fn only_a_completed_job_with_a_passing_verdict_passes() {
        let passed = Some(VerdictKind::Passed);
        assert_eq!(outcome(Some("COMPLETED"), NATIVE, passed), Outcome::Passed);
        for state in [
            "FAILED",
            "CANCELLED",
            "TIMEOUT",
            "NODE_FAIL",
            "PREEMPTED",
            "BOOT_FAIL",
            "DEADLINE",
            "OUT_OF_MEMORY",
        ] {
            assert_eq!(outcome(Some(state), NATIVE, passed), Outcome::Failed, "{state}");
            assert_eq!(outcome(Some(state), BASH, None), Outcome::Failed, "{state}");
            assert_eq!(outcome(Some(state), None, None), Outcome::Failed, "{state}");
        }
        let served = |state| outcome(Some(state), NATIVE, Some(VerdictKind::Served));
        assert_eq!([served("CANCELLED"), served("COMPLETED")], [Outcome::Passed; 2]);
        assert_eq!([served("TIMEOUT"), served("NODE_FAIL")], [Outcome::Failed; 2]);
        for kind in VerdictKind::ALL.into_iter().filter(|kind| !kind.is_passed()) {
            let outcome = outcome(Some("COMPLETED"), NATIVE, Some(kind));
            assert_ne!(outcome, Outcome::Passed, "{kind:?}");
        }
    }

    #[test]
    fn the_generated_scripts_exit_code_is_the_benchmarks() {
        assert_eq!(outcome(Some("COMPLETED"), BASH, None), Outcome::Passed);
        let state = "COMPLETED".parse().unwrap();
        let fault = Some("325 of 400 requests failed");
        let facts = Facts {
            state: Some(&state),
            reason: None,
            exit_code: None,
            launcher: BASH,
            result: None,
            fault,
        };
        let message = "The benchmark ended well, but 325 of 400 requests failed.";
        assert_eq!(judge(facts), (Outcome::Failed, message.to_owned()));
    }

    #[test]
    fn a_launch_that_left_no_verdict_has_not_passed() {
        assert_eq!(outcome(Some("COMPLETED"), NATIVE, None), Outcome::Unknown);
        let running = Some(VerdictKind::Running);
        assert_eq!(outcome(Some("COMPLETED"), NATIVE, running), Outcome::Unknown);
    }

    #[test]
    fn a_job_that_slurm_forgot_is_judged_by_its_verdict() {
        assert_eq!(outcome(None, NATIVE, Some(VerdictKind::Passed)), Outcome::Passed);
        assert_eq!(outcome(None, NATIVE, Some(VerdictKind::ServerEnded)), Outcome::Failed);
        assert_eq!(outcome(None, NATIVE, Some(VerdictKind::Running)), Outcome::Unknown);
        assert_eq!(outcome(None, BASH, None), Outcome::Unknown);
    }

    #[test]
    fn what_slurm_knows_and_the_launch_does_not_comes_first() {
        let message = |state: &str, kind| {
            let (state, result) = (state.parse().unwrap(), result(kind));
            let facts = Facts {
                state: Some(&state),
                reason: None,
                exit_code: None,
                launcher: NATIVE,
                result: Some(&result),
                fault: None,
            };
            judge(facts).1
        };
        assert_eq!(
            message("NODE_FAIL", VerdictKind::Terminated),
            "The job was ended because one of its nodes failed. Verdict of the launch: the verdict"
        );
        assert_eq!(message("CANCELLED", VerdictKind::Cancelled), "the verdict");
        assert_eq!(message("FAILED", VerdictKind::ServerEnded), "the verdict");
    }

    #[test]
    fn a_failed_job_is_explained_with_its_exit_code_and_what_to_do() {
        let failed = "FAILED".parse().unwrap();
        let code = Some(ExitCode { code: 3, signal: 0 });
        assert_eq!(
            slurm_sentence(&failed, Some("NonZeroExitCode"), code),
            "The job's batch script ended with exit status 3."
        );
        let timeout = "TIMEOUT".parse().unwrap();
        let sentence = slurm_sentence(&timeout, Some("TimeLimit"), None);
        assert!(sentence.ends_with("ask for more with --time."), "{sentence}");
    }
}
