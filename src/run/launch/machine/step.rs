// SPDX-License-Identifier: Apache-2.0
//! What the machine knows of one step beside its result, and how `srun`'s output changes both.

use std::time::Duration;

use super::super::cause;
use super::super::srun_output::{self, SrunOutput};
use crate::run::result::{Exit, Moment, RankEnd, StepResult, Stop, StopSignal, millis};

/// Failures of ranks that `srun` reports within this time have no reliable order.
const AT_ONCE: Duration = Duration::from_millis(100);

/// A step of the run.
#[derive(Debug, Default)]
pub struct Step {
    /// How far it is stopped, once the launch stops it.
    pub stop: Option<Stopping>,
    /// The controller or a signal to `srun` ended it, not the launch.
    pub ended_from_outside: bool,
    /// The last error that `srun` reported before the step existed, else its last line.
    pub last_line: Option<String>,
    /// Why `srun` could not be started.
    pub start_error: Option<String>,
    /// Why Slurm could not start its tasks.
    pub launch_failure: Option<String>,
    /// Whether it was reported that Slurm does not start it.
    pub is_reported_waiting: bool,
    /// Why it failed, as its log says.
    pub reason: Option<cause::Failure>,
    /// How Slurm's placement of its tasks differs from the plan.
    pub misplaced: Option<String>,
    /// When its log was last searched for where its ranks run.
    pub looked: Option<Moment>,
    /// Whether this is the second start, after a launch failure.
    pub is_second: bool,
    /// Whether it may end before the benchmark does.
    pub may_end: bool,
    tasks_started: u32,
    /// When the first failure of a rank was reported.
    failed_at: Option<Moment>,
    /// The status that belongs to the next failure of ranks.
    status: Option<Exit>,
}

/// How far a step is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping {
    /// When the first stage began.
    pub since: Moment,
    /// The last stage.
    pub stage: Stage,
    /// When the next stage is due, if there is one.
    pub next: Option<Moment>,
}

/// The stages of stopping a step, each harder than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its tasks were sent SIGTERM.
    Terminated,
    /// `srun` was sent SIGTERM; it kills its step then.
    SrunTerminated,
    /// Slurm was asked to kill its tasks.
    Killed,
    /// `srun` itself was killed.
    Abandoned,
}

impl Step {
    /// Takes in a line of `srun`'s output; returns whether the result changed.
    pub fn read(&mut self, result: &mut StepResult, line: &str, now: Moment) -> bool {
        if result.step_id.is_none() {
            self.keep_last(line);
        }
        let Some(output) = srun_output::parse(line) else { return false };
        match output {
            SrunOutput::LaunchFailed(error) => {
                self.launch_failure.get_or_insert(error);
                result.running = None;
            }
            // srun then kills the ranks on other nodes, as on any bad exit.
            _ if self.launch_failure.is_some() => {}
            SrunOutput::Launching { id, host, tasks } => {
                result.step_id = Some(id.to_string());
                self.check_place(result, host, tasks);
            }
            SrunOutput::TasksStarted(tasks) => {
                self.tasks_started = self.tasks_started.saturating_add(tasks);
                if self.tasks_started >= result.tasks && result.running.is_none() {
                    result.running = Some(now);
                }
            }
            SrunOutput::TaskStatus(exit) => self.status = Some(exit),
            // The log names the node.
            SrunOutput::RanksFailed(_)
                if self.reason.as_ref().is_some_and(|r| r.node.is_some()) => {}
            SrunOutput::RanksFailed(mut end) => {
                end.exit = self.status.take().or(end.exit);
                let is_cause = match (&result.failure, self.failed_at) {
                    (Some(first), Some(at)) => is_more_likely(&end, first, now.since(at)),
                    _ => self.stop.is_none(),
                };
                if is_cause {
                    result.failure = Some(end);
                    self.failed_at = self.failed_at.or(Some(now));
                }
            }
            SrunOutput::RanksCompleted(end) => {
                self.status = None;
                // The first rank is the one that serves: without it, the others wait without end. One
                // that is alone on its node is all of the server there.
                let is_needed = end.rank == Some(0) || result.tasks_per_node == 1;
                let is_lost = result.is_server() && result.tasks > 1 && is_needed && !self.may_end;
                if is_lost && self.stop.is_none() && result.failure.is_none() {
                    (result.failure, self.failed_at) = (Some(end), Some(now));
                }
            }
            SrunOutput::EndedFromOutside => self.ended_from_outside |= self.stop.is_none(),
            SrunOutput::Error => {}
        }
        true
    }

    /// Slurm puts tasks where the job has CPUs; the plan's ranks must be where their GPUs are.
    fn check_place(&mut self, result: &StepResult, host: &str, tasks: u32) {
        let index = result.nodes.iter().position(|node| node == host);
        let planned = index.map_or(0, |index| result.tasks_on(index));
        if tasks != planned && self.misplaced.is_none() {
            let text = format!("Slurm put {tasks} of its tasks on {host}, but the plan {planned}");
            self.misplaced = Some(text);
        }
    }

    /// Keeps the line that tells best why the step may not come to exist.
    fn keep_last(&mut self, line: &str) {
        // srun prints its usage after the error.
        if line.starts_with("Try ") {
            return;
        }
        let is_error = |line: &str| line.contains("error: ");
        if is_error(line) || !self.last_line.as_deref().is_some_and(is_error) {
            self.last_line = Some(line.to_owned());
        }
    }

    /// Its `srun` has ended.
    pub fn ended(&mut self, result: &mut StepResult, exit: Option<Exit>, now: Moment) {
        (result.ended, result.exit) = (Some(now), exit);
        if self.failed_at.is_some() {
            // Stopping its other ranks was no more than what Slurm does, too.
            result.stopped = None;
        }
        if let (Some(stop), Some(stopped)) = (self.stop, result.stopped) {
            let signal = match stop.stage {
                Stage::Terminated => StopSignal::Term,
                _ => StopSignal::Kill,
            };
            result.stop = Some(Stop { signal, after_ms: millis(now.since(stopped)) });
        }
    }

    /// Makes it a step that is not started, for its second start.
    pub fn start_again(&mut self, result: &mut StepResult) {
        (result.step_id, result.failure, result.exit) = (None, None, None);
        (result.started, result.running, result.ready, result.ended) = (None, None, None, None);
        result.ranks.clear();
        *self = Self { is_second: true, ..Self::default() };
    }
}

/// Whether a rank's end is a more likely cause of the others than the one reported first. Slurm
/// reports ranks that end each other in any order, those of one node and one status at a time.
fn is_more_likely(end: &RankEnd, first: &RankEnd, later: Duration) -> bool {
    // The other ranks are ended with SIGTERM, then SIGKILL.
    let likelihood = |end: &RankEnd| match end.exit {
        _ if end.message == "Out Of Memory" => 4,
        Some(Exit::Signal(15) | Exit::Status(143)) => 0,
        Some(Exit::Signal(9) | Exit::Status(137)) | None => 1,
        Some(Exit::Status(_)) => 2,
        Some(Exit::Signal(_)) => 3,
    };
    let (this, that) = (likelihood(end), likelihood(first));
    match end.exit == first.exit && this == that {
        true => end.rank < first.rank,
        false => later < AT_ONCE && this > that,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(rank: u32, exit: Exit) -> RankEnd {
        RankEnd { rank: Some(rank), node: "n".into(), exit: Some(exit), message: String::new() }
    }

    #[test]
    fn a_crash_is_the_cause_of_failures_at_the_same_moment() {
        let (failed, crashed) = (end(4, Exit::Status(1)), end(5, Exit::Signal(11)));
        assert!(is_more_likely(&crashed, &failed, Duration::ZERO));
        assert!(!is_more_likely(&failed, &crashed, Duration::ZERO));
        let later = Duration::from_secs(1);
        assert!(!is_more_likely(&crashed, &failed, later), "it crashed while it was ending");
        let killed = end(5, Exit::Signal(9));
        assert!(!is_more_likely(&killed, &failed, Duration::ZERO), "Slurm killed it");
        let terminated = end(4, Exit::Signal(15));
        assert!(is_more_likely(&killed, &terminated, Duration::ZERO), "rank 5 ended rank 4");
    }

    #[test]
    fn of_ranks_that_end_alike_the_lowest_is_named() {
        let (four, zero) = (end(4, Exit::Status(42)), end(0, Exit::Status(42)));
        assert!(is_more_likely(&zero, &four, Duration::from_secs(1)));
        assert!(!is_more_likely(&four, &zero, Duration::ZERO));
    }
}
