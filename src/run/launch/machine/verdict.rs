// SPDX-License-Identifier: Apache-2.0
//! What a step's end, or a phase that takes too long, means for the run, and how people read it.

use std::time::Duration;

use super::super::cause;
use super::{Action, Machine};
use crate::run::result::{Exit, Moment, Phase, RankEnd, StepResult, VerdictKind, millis};
use crate::run::timeline::{duration, end_reason};
use crate::slurm::hostlist;

/// How many steps without output a verdict names.
const SILENT_STEPS: usize = 4;

impl Machine {
    /// Decides that the current phase takes too long.
    pub(super) fn over_limit(&mut self, limit: Duration) {
        let phase = self.result.phase;
        type Test<'m> = &'m dyn Fn(usize, &StepResult) -> bool;
        let is_down = |index, _: &StepResult| !self.is_up(index);
        let is_unfinished = |_, step: &StepResult| step.ended.is_none();
        let (kind, state, is_late): (_, _, Test<'_>) = match phase {
            Phase::Unpack => (VerdictKind::UnpackFailed, "done", &is_unfinished),
            Phase::Install => (VerdictKind::InstallFailed, "done", &is_unfinished),
            Phase::Precheck => (VerdictKind::PrecheckFailed, "done", &is_unfinished),
            Phase::Start => (VerdictKind::StartLimit, "running", &|index, step| {
                step.running.is_none() && self.may_start(index)
            }),
            Phase::Ready => (VerdictKind::ReadyLimit, "ready", &is_down),
            _ => (VerdictKind::BenchmarkLimit, "done", &|_, step| {
                step.decides() && step.ended.is_none()
            }),
        };
        let in_group = |step: &StepResult| step.phase() == self.group();
        let late = |(index, step)| (in_group(step) && is_late(index, step)).then_some(index);
        let mut late: Vec<usize> = self.result.steps.iter().enumerate().filter_map(late).collect();
        // A router is late where a server is, and a client where one of both is.
        late.sort_by_key(|index| self.result.steps[*index].purpose);
        let who = late.first().map_or("the run", |index| self.name(*index));
        let are = match late.len() {
            0 | 1 => "is".to_owned(),
            several => format!("and {} more are", several - 1),
        };
        let last = late.first().and_then(|index| self.health[*index].last.as_ref());
        let message = format!(
            "{who} {are} not {state} after {} s (limit of phase `{}`){}",
            limit.as_secs_f64(),
            phase.name(),
            match last {
                Some(why) if phase == Phase::Ready => format!("; {who}: {why}"),
                _ => String::new(),
            }
        );
        if phase == Phase::Benchmark {
            // Before the stop makes them write.
            self.actions.push(Action::ReadSilence);
        }
        self.decide(kind, message, late.first().copied());
    }

    /// Says which steps have written nothing for longest: one that hangs is among the first.
    pub(super) fn silence(&mut self, written: &[Option<Moment>]) {
        let mut silent = Vec::new();
        for (step, written) in self.result.steps.iter_mut().zip(written) {
            step.last_output = *written;
            if let Some(at) = written.filter(|_| step.phase() == Phase::Start) {
                silent.push((at, step.name.as_str()));
            }
        }
        silent.sort_unstable();
        let shown = silent.iter().take(SILENT_STEPS);
        let shown = shown.map(|(at, name)| format!("{name} {}", duration(self.now.since(*at))));
        let text = shown.collect::<Vec<_>>().join(", ");
        if !text.is_empty() {
            let message = &mut self.result.verdict.message;
            *message = format!("{message}; without output for longest: {text}");
            self.changed = true;
        }
    }

    /// The verdict that a step's end means; none when the run goes on.
    pub(super) fn meaning(&self, index: usize) -> Option<(VerdictKind, String)> {
        let (step, result) = (&self.steps[index], &self.result.steps[index]);
        let name = &result.name;
        let how = match (&step.reason, end_reason(result)) {
            (Some(cause::Failure { reason, node: Some(node), is_of_the_step }), _) => {
                match result.failure.as_ref().and_then(|end| end.rank) {
                    Some(rank) => format!("{reason} on {node} rank {rank}"),
                    None if *is_of_the_step => {
                        format!(
                            "{reason} on {node}; Slurm does not tell which of its ranks there took it"
                        )
                    }
                    None => format!("{reason} on {node}"),
                }
            }
            (Some(failure), Some(end)) => format!("{}; {end}", failure.reason),
            (Some(failure), None) => failure.reason.clone(),
            (None, end) => end.unwrap_or_else(|| "no exit status".to_owned()),
        };
        let until = step.stop.map(|stop| stop.since).or(result.ended).unwrap_or(self.now);
        let after = match result.running.or(result.started) {
            Some(since) => format!(" after {}", duration(until.since(since))),
            None => String::new(),
        };
        let is_success = result.failure.is_none() && result.exit.is_some_and(Exit::is_success);
        Some(match result.phase() {
            _ if let Some(error) = &step.start_error => {
                (VerdictKind::StartFailed, format!("{name} cannot be started: {error}"))
            }
            _ if let Some(placed) = &step.misplaced => {
                let message = format!(
                    "{name} is not placed as planned: {placed}; submit the job with \
                     --ntasks-per-node={}, so that each node has CPUs for its tasks",
                    result.tasks_per_node
                );
                (VerdictKind::Misplaced, message)
            }
            Phase::Unpack | Phase::Install | Phase::Precheck if is_success => return None,
            _ if let Some(error) = &step.launch_failure => {
                let nodes = hostlist::compress(&result.nodes);
                let message = format!(
                    "Slurm failed to launch {name} twice: {error}; see the log of slurmd on {nodes}"
                );
                (VerdictKind::StartFailed, message)
            }
            _ if result.step_id.is_none() => {
                let why = step.last_line.as_ref().unwrap_or(&how);
                let advice = match why.contains("Invalid generic resource") {
                    true => {
                        "; its nodes lack GPUs that the plan has there: submit with --gpus-per-node, or with \
                         --gpu-request=none where Slurm gives steps no GPUs (SelectType=select/linear)"
                    }
                    false => "",
                };
                (VerdictKind::StartFailed, format!("Slurm did not start {name}: {why}{advice}"))
            }
            Phase::Unpack => {
                let image = self.result.plan.container_image.iter();
                let image: String = image.map(|image| format!(" {image}")).collect();
                let message = format!("the container image{image} was not unpacked{after}: {how}");
                (VerdictKind::UnpackFailed, message)
            }
            Phase::Install => {
                (VerdictKind::InstallFailed, format!("the install script failed{after}: {how}"))
            }
            Phase::Precheck => {
                (VerdictKind::PrecheckFailed, format!("{name} failed{after}: {how}"))
            }
            _ if !result.decides() && is_success && step.may_end => return None,
            _ if !result.decides() => {
                let outside = match step.ended_from_outside {
                    true if step.reason.is_none() => {
                        "; it was cancelled or signalled from outside the launch"
                    }
                    _ => "",
                };
                let has_client = self.result.steps.iter().any(StepResult::decides);
                let before = if has_client { ", before the benchmark did" } else { "" };
                let message = format!("{name} ended{after}{before}: {how}{outside}");
                (VerdictKind::ServerEnded, message)
            }
            _ if is_success => match self.fault.iter().flatten().next() {
                Some(fault) => {
                    (VerdictKind::RequestsFailed, format!("{name} ended well{after}, but {fault}"))
                }
                None if self.has_client_left() => return None,
                None => (VerdictKind::Passed, format!("{name} passed{after}")),
            },
            _ => (VerdictKind::BenchmarkFailed, format!("{name} failed{after}: {how}")),
        })
    }

    /// Whether a client has not ended.
    fn has_client_left(&self) -> bool {
        self.result.steps.iter().any(|step| step.decides() && step.ended.is_none())
    }

    /// Puts the reason that the step's log gives into the verdict. The rank that was reported first may
    /// be one that Slurm ended afterwards.
    pub(super) fn explain_verdict(&mut self, index: usize) {
        let Some(found) = self.steps[index].reason.clone() else { return };
        let step = &mut self.result.steps[index];
        if let Some(node) = &found.node {
            let first = step.failure.take();
            let exit = first.as_ref().and_then(|end| end.exit);
            let same = first.filter(|end| end.node == *node && !found.is_of_the_step);
            let per_node = step.tasks_per_node.max(1);
            let at =
                step.nodes.iter().position(|own| own == node).and_then(|at| u32::try_from(at).ok());
            let only = at.filter(|_| per_node == 1);
            let rank = same.and_then(|end| end.rank).or(only);
            let (node, message) = (node.clone(), found.reason.clone());
            (self.result.verdict.rank, self.result.verdict.node) = (rank, Some(node.clone()));
            step.failure = Some(RankEnd { rank, node, exit, message });
        }
        let meaning = self.meaning(index);
        let verdict = &mut self.result.verdict;
        if let Some((kind, message)) = meaning
            && kind == verdict.kind
        {
            verdict.message = message;
        }
    }

    /// Adds what is known of the step that the verdict is about; more is known when it has ended.
    pub(super) fn complete_verdict(&mut self, index: usize) {
        if self.result.verdict.step.as_deref() != Some(self.name(index)) {
            return;
        }
        let meaning = self.meaning(index);
        let result = &self.result.steps[index];
        let verdict = &mut self.result.verdict;
        let failure = result.failure.as_ref();
        // Once a step is stopped, srun's status is no longer the step's own.
        let is_own = self.steps[index].stop.is_none();
        if let Some((kind, message)) = meaning
            && kind == verdict.kind
            && ((is_own && result.ended.is_some()) || failure.is_some())
        {
            verdict.message = message;
        }
        let only_node = result.nodes.first().filter(|_| result.nodes.len() == 1);
        verdict.rank = failure.map_or((result.tasks == 1).then_some(0), |end| end.rank);
        verdict.node = failure.map(|end| &end.node).or(only_node).cloned();
        let own = result.exit.filter(|_| is_own);
        verdict.exit = failure.and_then(|end| end.exit).or(own).or(verdict.exit);
        let until = verdict.noticed.unwrap_or_default();
        let since = result.running.or(result.started);
        verdict.ran_ms = verdict.ran_ms.or(since.map(|since| millis(until.since(since))));
        if verdict.kind != VerdictKind::Passed {
            self.actions.push(Action::ReadTail(index));
        }
        self.changed = true;
    }
}
