// SPDX-License-Identifier: Apache-2.0
//! Why Slurm ends a job: slurmstepd writes the reason into the logs of the steps, so it is known even
//! when the controller does not answer.

use crate::run::result::VerdictKind;

/// What slurmstepd writes when a step is ended from outside:
/// `*** STEP 7.0 ON node1 CANCELLED AT 2025-01-01T00:00:00 DUE TO TIME LIMIT ***`.
const NOTICE: &str = "*** STEP ";

/// The reasons that slurmstepd of 22.05 gives.
const REASONS: [(&str, VerdictKind); 4] = [
    ("DUE TO TIME LIMIT", VerdictKind::TimeLimit),
    ("DUE TO PREEMPTION", VerdictKind::Preempted),
    ("DUE TO JOB REQUEUE", VerdictKind::Requeued),
    ("DUE TO NODE FAILURE", VerdictKind::NodeFailed),
];

/// The reason for a step's end in its log.
#[must_use]
pub fn in_log(log: &str) -> Option<VerdictKind> {
    log.lines()
        .rev()
        .filter(|line| line.contains(NOTICE) && line.contains(" CANCELLED AT "))
        .find_map(|line| {
            REASONS.iter().find(|(reason, _)| line.contains(reason)).map(|(_, kind)| *kind)
        })
}

/// Why a step failed, as slurmstepd or a task says in the last lines of its log, with the node where
/// that is known; `fatal` are the texts of its role that mean death. Slurm ends the step's other ranks
/// then, and may report one of those first.
#[must_use]
pub fn of_failure(tail: &[String], fatal: &[String]) -> Option<(Option<String>, String)> {
    const SIGNS: [(&str, &str); 5] = [
        ("exceeded memory limit", "out of memory"),
        ("oom-kill", "out of memory"),
        ("oom_kill", "out of memory"),
        ("Out Of Memory", "out of memory"),
        ("No space left on device", "no space left on a device"),
    ];
    let by_slurm = tail.iter().rev().find_map(|line| {
        let (_, reason) = SIGNS.iter().find(|(sign, _)| line.contains(sign))?;
        let node = line.strip_prefix("slurmstepd-").and_then(|rest| rest.split_once(": "));
        Some((node.map(|(node, _)| node.to_owned()), (*reason).to_owned()))
    });
    let is_fatal = |line: &&String| fatal.iter().any(|text| line.contains(text));
    by_slurm.or_else(|| Some((None, tail.iter().find(is_fatal)?.trim().to_owned())))
}

/// The verdict's message.
#[must_use]
pub fn message(kind: VerdictKind) -> &'static str {
    match kind {
        VerdictKind::TimeLimit => {
            "the job reached its time limit before the benchmark ended; request more with --time"
        }
        VerdictKind::TimeLimitNear => {
            "the job is close to its time limit (signal of sbatch --signal); request more with --time"
        }
        VerdictKind::Preempted => "the job was preempted by another job",
        VerdictKind::Requeued => "the job was requeued and will run again",
        VerdictKind::NodeFailed => "a node of the job failed",
        VerdictKind::Cancelled => "the job was cancelled",
        _ => "launcher received a termination signal; Slurm reported no reason",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failure_is_read_from_its_log_with_the_node() {
        let tail = |line: &str| vec!["x".to_owned(), line.to_owned(), "y".to_owned()];
        let slurmstepd =
            "slurmstepd-node2: error: StepId=1.2 exceeded memory limit (3 > 1), being killed";
        let found = |line| of_failure(&tail(line), &["CUDA error".to_owned()]);
        let reason = |reason: &str| reason.to_owned();
        assert_eq!(found(slurmstepd), Some((Some("node2".to_owned()), reason("out of memory"))));
        let full = "cp: error writing 'x': No space left on device";
        assert_eq!(found(full), Some((None, reason("no space left on a device"))));
        assert_eq!(found(" CUDA error: x"), Some((None, reason("CUDA error: x"))));
        assert_eq!(found("Killed"), None);
    }

    #[test]
    fn slurm_s_reason_is_read_from_a_step_s_log() {
        let log = |reason| {
            format!(
                "x\nslurmstepd-node1: error: *** STEP 8.0 ON node1 CANCELLED AT \
                 2026-11-24T04:15:41{reason} ***\ny\n"
            )
        };
        assert_eq!(in_log(&log(" DUE TO TIME LIMIT")), Some(VerdictKind::TimeLimit));
        assert_eq!(in_log(&log(" DUE TO JOB REQUEUE")), Some(VerdictKind::Requeued));
        assert_eq!(in_log(&log(" DUE TO PREEMPTION")), Some(VerdictKind::Preempted));
        assert_eq!(in_log(&log("")), None);
        assert_eq!(in_log("the run was DUE TO TIME LIMIT"), None);
    }
}
