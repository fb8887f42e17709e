// SPDX-License-Identifier: Apache-2.0
//! What `srun -v` reports about its step on standard error: the step's id, where its tasks run, and
//! how each rank ended. So the launch does not depend on the controller, which may not answer.

use std::fmt;

use crate::run::result::{Exit, RankEnd};

/// A line of `srun`'s output that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SrunOutput<'a> {
    /// The step exists; its tasks are being started on a node.
    Launching {
        /// The step.
        id: StepId,
        /// The node.
        host: &'a str,
        /// How many tasks are started there.
        tasks: u32,
    },
    /// The number of its tasks that run now on one more node.
    TasksStarted(u32),
    /// Tasks ended with this status; the next [`SrunOutput::RanksFailed`] names them.
    TaskStatus(Exit),
    /// Ranks failed.
    RanksFailed(RankEnd),
    /// Ranks ended with status 0.
    RanksCompleted(RankEnd),
    /// Slurm could not start tasks of the step on a node, and ends the rest of it.
    LaunchFailed(String),
    /// The controller or a signal ended the step.
    EndedFromOutside,
    /// Any other error.
    Error,
}

/// Slurm's id of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepId {
    /// The job.
    pub job: u32,
    /// The step in the job.
    pub step: u32,
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.step)
    }
}

/// Parses one line; none when it does not matter.
#[must_use]
pub fn parse(line: &str) -> Option<SrunOutput<'_>> {
    let text = line.strip_prefix("srun: ")?;
    if let Some((_, rest)) = text.split_once("launching StepId=") {
        let (id, rest) = rest.split_once(' ')?;
        let (host, tasks) = rest.strip_prefix("on host ")?.split_once(", ")?;
        let tasks = tasks.split(' ').next()?.parse().ok()?;
        return Some(SrunOutput::Launching { id: step_id(id)?, host, tasks });
    }
    if let Some(tasks) = text.strip_suffix(" tasks started")
        && text.contains("Node ")
    {
        return tasks.rsplit(' ').next()?.parse().ok().map(SrunOutput::TasksStarted);
    }
    if text.contains("task exit notification")
        && let Some((_, status)) = text.split_once("(status=0x")
    {
        let status = i32::from_str_radix(status.split(')').next()?, 16).ok()?;
        return Some(SrunOutput::TaskStatus(exit(status)));
    }
    if text == "forcing job termination"
        || (text.starts_with("Complete ") && text.ends_with(" received"))
    {
        return Some(SrunOutput::EndedFromOutside);
    }
    if text.ends_with(": Completed") {
        let end = ranks(text)?;
        return Some(SrunOutput::RanksCompleted(RankEnd { exit: Some(Exit::Status(0)), ..end }));
    }
    let error = text.strip_prefix("error: ")?;
    if is_launch_failure(error) {
        return Some(SrunOutput::LaunchFailed(error.to_owned()));
    }
    Some(ranks(error).map_or(SrunOutput::Error, SrunOutput::RanksFailed))
}

/// `task 0 launch failed: Unspecified error`, `Task launch for StepId=7.3 failed on node node1: …`.
fn is_launch_failure(error: &str) -> bool {
    let one_task = error.strip_prefix("task ").and_then(|rest| rest.split_once(" launch failed: "));
    one_task.is_some_and(|(task, _)| task.parse::<u32>().is_ok())
        || (error.starts_with("Task launch for StepId=") && error.contains(" failed on node "))
}

/// `7.3`, and `7.3+0` of a heterogeneous job.
fn step_id(text: &str) -> Option<StepId> {
    let (job, step) = text.split('+').next()?.split_once('.')?;
    Some(StepId { job: job.parse().ok()?, step: step.parse().ok()? })
}

/// The status as `wait(2)` gives it.
fn exit(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Status((status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}

/// `node1: task 3: Exited with exit code 42`, `node1: tasks 0-2,5: Killed`.
fn ranks(text: &str) -> Option<RankEnd> {
    let mut node = "";
    let mut rest = text;
    while let Some((part, after)) = rest.split_once(": ") {
        let list = part.strip_prefix("task ").or_else(|| part.strip_prefix("tasks "));
        if let Some(rank) = list.and_then(first_number)
            && !node.is_empty()
        {
            let code = after.strip_prefix("Exited with exit code ").and_then(|c| c.parse().ok());
            let (exit, node) = (code.map(Exit::Status), node.to_owned());
            return Some(RankEnd { rank: Some(rank), node, exit, message: after.to_owned() });
        }
        (node, rest) = (part, after);
    }
    None
}

/// The first number of `3`, `0-2,5` or `[0-2]`.
fn first_number(list: &str) -> Option<u32> {
    let list = list.trim_start_matches('[');
    list.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_step_s_id_is_read_from_its_start() {
        let id = StepId { job: 1, step: 2 };
        assert_eq!(
            parse("srun: launching StepId=1.2 on host node1, 4 tasks: [0-3]"),
            Some(SrunOutput::Launching { id, host: "node1", tasks: 4 })
        );
        assert_eq!(
            parse("srun: launch/slurm: x: launching StepId=1.2+0 on host n, 1 tasks: 0"),
            Some(SrunOutput::Launching { id, host: "n", tasks: 1 })
        );
    }

    #[test]
    fn started_tasks_are_counted_per_node() {
        let line = "srun: launch/slurm: _task_start: Node node1, 4 tasks started";
        assert_eq!(parse(line), Some(SrunOutput::TasksStarted(4)));
        assert_eq!(parse("srun: Node node1, 64 tasks started"), Some(SrunOutput::TasksStarted(64)));
    }

    #[test]
    fn the_status_of_a_task_is_read_as_wait_gives_it() {
        let line = |hex| {
            format!(
                "srun: launch/slurm: _task_finish: Received task exit notification for 1 task of \
                 StepId=1.2 (status={hex})."
            )
        };
        assert_eq!(parse(&line("0x2a00")), Some(SrunOutput::TaskStatus(Exit::Status(42))));
        assert_eq!(parse(&line("0x0009")), Some(SrunOutput::TaskStatus(Exit::Signal(9))));
        assert_eq!(parse(&line("0x008b")), Some(SrunOutput::TaskStatus(Exit::Signal(11))));
    }

    #[test]
    fn the_failed_rank_is_named_with_its_node() {
        let end = |line| match parse(line) {
            Some(SrunOutput::RanksFailed(end)) => {
                (end.rank.unwrap(), end.node, end.exit, end.message)
            }
            other => panic!("{line}: {other:?}"),
        };
        let code = "Exited with exit code 42";
        assert_eq!(
            end("srun: error: node1: task 3: Exited with exit code 42"),
            (3, "node1".into(), Some(Exit::Status(42)), code.into())
        );
        assert_eq!(
            end("srun: error: node2: tasks 4-5,7: Killed"),
            (4, "node2".into(), None, "Killed".into())
        );
        assert_eq!(
            end(
                "srun: error: launch/slurm: _task_finish: n1: task 0: Segmentation fault (core dumped)"
            ),
            (0, "n1".into(), None, "Segmentation fault (core dumped)".into())
        );
        let completed = RankEnd {
            rank: Some(2),
            node: "n1".into(),
            exit: Some(Exit::Status(0)),
            message: "Completed".into(),
        };
        let line = "srun: launch/slurm: _task_finish: n1: tasks 2-3: Completed";
        assert_eq!(parse(line), Some(SrunOutput::RanksCompleted(completed)));
    }

    #[test]
    fn a_failed_launch_differs_from_a_failed_rank() {
        for error in [
            "task 0 launch failed: Unspecified error",
            "Task launch for StepId=1.2 failed on node node1: Unable to contact slurmd",
        ] {
            let line = format!("srun: error: {error}");
            assert_eq!(parse(&line), Some(SrunOutput::LaunchFailed(error.to_owned())));
        }
        let line = "srun: error: node1: task 0: launch failed: Killed";
        assert!(matches!(parse(line), Some(SrunOutput::RanksFailed(_))), "{:?}", parse(line));
    }

    #[test]
    fn an_end_from_outside_differs_from_a_failure() {
        for line in [
            "srun: forcing job termination",
            "srun: Complete StepId=11.0+0 received",
            "srun: Complete JobId=1 SLUID=sE01M871TSQG00 StepId=1.0 received",
        ] {
            assert_eq!(parse(line), Some(SrunOutput::EndedFromOutside), "{line}");
        }
        let line = "srun: error: Unable to create step for job 9: Requested nodes are busy";
        assert_eq!(parse(line), Some(SrunOutput::Error));
        for line in
            ["srun: job-name            : A", "launching StepId=1.2", "srun: Node n, tasks started"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_panics(line in "srun: (error: )?(\\PC{0,20}: )?(task |tasks |launching StepId=|x \\(status=0x)?\\PC{0,20}") {
            let _ = parse(&line);
        }
    }
}
