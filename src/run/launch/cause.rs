// SPDX-License-Identifier: Apache-2.0
//! Why Slurm ends a job: slurmstepd writes the reason into the logs of the steps, so it is known even
//! when the controller does not answer.

use crate::plan::step::CANNOT_START;
use crate::run::result::VerdictKind;

/// What slurmstepd writes when a step, or the job's script, is ended from outside:
/// `*** STEP 7.0 ON node1 CANCELLED AT 2025-01-01T00:00:00 DUE TO TIME LIMIT ***`.
const NOTICES: [&str; 2] = ["*** STEP ", "*** JOB "];

/// The lines at the end of a log in which a task's own reason is looked for.
const LAST_WORDS: usize = 12;

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
        .filter(|line| NOTICES.iter().any(|notice| line.contains(notice)))
        .filter(|line| line.contains(" CANCELLED AT "))
        .find_map(|line| {
            REASONS.iter().find(|(reason, _)| line.contains(reason)).map(|(_, kind)| *kind)
        })
}

/// Why a step failed, as its log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The reason, for people.
    pub reason: String,
    /// The node, where it is known.
    pub node: Option<String>,
    /// Whether Slurm ended all of the step for it: no rank is known as the one that did it.
    pub is_of_the_step: bool,
}

/// Why a step failed, as slurmstepd or a task says at the end of its log. Slurm ends the step's
/// other ranks then, and may report one of those first.
#[must_use]
pub fn of_failure(log: &str) -> Option<Failure> {
    const OUT_OF_MEMORY: &str = "out of memory";
    const SIGNS: [(&str, &str); 5] = [
        (OF_THE_STEP, OUT_OF_MEMORY),
        ("oom-kill", OUT_OF_MEMORY),
        ("oom_kill", OUT_OF_MEMORY),
        ("Out Of Memory", OUT_OF_MEMORY),
        ("No space left on device", "no space left on a device"),
    ];
    const OF_THE_STEP: &str = "exceeded memory limit";
    log.lines().rev().enumerate().find_map(|(at, line)| {
        let (sign, reason) = SIGNS.iter().find(|(sign, _)| line.contains(sign))?;
        let by_slurm = line.strip_prefix("slurmstepd-").and_then(|rest| rest.split_once(": "));
        // What a task says long before its end did not end it.
        (by_slurm.is_some() || at < LAST_WORDS).then(|| Failure {
            reason: (*reason).to_owned(),
            node: by_slurm.map(|(node, _)| node.to_owned()),
            is_of_the_step: *sign == OF_THE_STEP,
        })
    })
}

/// Why a rank could not start, as it says itself at the end of its log.
#[must_use]
pub fn of_no_start(tail: &[String]) -> Option<String> {
    tail.iter().find_map(|line| line.strip_prefix(CANNOT_START)).map(str::to_owned)
}

/// The first line of a log's end that has one of the texts that mean death in its role.
#[must_use]
pub fn fatal(tail: &[String], texts: &[String]) -> Option<Failure> {
    let line = tail.iter().find(|line| texts.iter().any(|text| line.contains(text)))?;
    Some(Failure { reason: line.trim().to_owned(), node: None, is_of_the_step: false })
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
        let found = |lines: &str| {
            let Failure { reason, node, is_of_the_step } = of_failure(lines)?;
            Some((reason, node.unwrap_or_default(), is_of_the_step))
        };
        let many = "\nKilled".repeat(40);
        let limit =
            "slurmstepd-node2: error: StepId=1.2 exceeded memory limit (3 > 1), being killed";
        let memory = "out of memory".to_owned();
        assert_eq!(
            found(&(limit.to_owned() + &many)),
            Some((memory.clone(), "node2".to_owned(), true))
        );
        let oom = "slurmstepd-node2: error: Detected 1 oom_kill event in StepId=1.2.";
        assert_eq!(found(oom), Some((memory, "node2".to_owned(), false)));
        let full = "cp: error writing 'x': No space left on device";
        let no_space = Some(("no space left on a device".to_owned(), String::new(), false));
        assert_eq!(found(&format!("x\n{full}\ny")), no_space);
        assert_eq!(found(&(full.to_owned() + &many)), None, "it went on for long");
        assert_eq!(found("Killed"), None);
        let tail = ["x".to_owned(), " CUDA error: x".to_owned()];
        assert_eq!(fatal(&tail, &["CUDA error".to_owned()]).unwrap().reason, "CUDA error: x");
        assert_eq!(fatal(&tail, &[]), None);
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
        let of_the_job = log(" DUE TO JOB REQUEUE").replace("STEP 8.0", "JOB 8");
        assert_eq!(in_log(&of_the_job), Some(VerdictKind::Requeued));
        assert_eq!(in_log(&log("")), None);
        assert_eq!(in_log("the run was DUE TO TIME LIMIT"), None);
    }
}
