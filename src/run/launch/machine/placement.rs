// SPDX-License-Identifier: Apache-2.0
//! Whether the ranks run where the plan has them, as they say themselves.

use std::time::Duration;

use super::{Action, Machine};
use crate::run::result::{Moment, Phase, RankPlace, StepResult, Verdict, VerdictKind};

/// The least time between two looks at a log.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

impl Machine {
    /// When to look next where the ranks of a step run: often at first, then ever more seldom.
    pub(super) fn next_look(&self, index: usize) -> Option<Moment> {
        let step = &self.result.steps[index];
        let running = step.running.filter(|_| step.is_running() && is_incomplete(step))?;
        Some(match self.steps[index].looked {
            Some(looked) => looked + looked.since(running).max(LOOK_INTERVAL),
            None => running,
        })
    }

    pub(super) fn look_where_ranks_run(&mut self) {
        for index in 0..self.steps.len() {
            if self.next_look(index).is_some_and(|at| self.now >= at) {
                self.steps[index].looked = Some(self.now);
                self.actions.push(Action::ReadRanks(index));
            }
        }
    }

    /// Looks for what is missing when all steps have ended, and so have written all.
    pub(super) fn look_for_the_last_time(&mut self) {
        let steps = self.result.steps.iter().enumerate();
        let incomplete = steps.filter(|(_, step)| step.started.is_some() && is_incomplete(step));
        self.actions.extend(incomplete.map(|(index, _)| Action::ReadRanks(index)));
    }

    /// Takes in where ranks of a step run.
    pub(super) fn ranks(&mut self, index: usize, found: Vec<RankPlace>) {
        let step = &mut self.result.steps[index];
        for place in found {
            // What a rank prints later is its own.
            let is_known = step.ranks.iter().any(|known| known.rank == place.rank);
            if place.rank < step.tasks && !is_known {
                step.ranks.push(place);
                self.changed = true;
            }
        }
        step.ranks.sort_by_key(|place| place.rank);
        let is_last = self.result.phase == Phase::Done;
        let missing = || {
            let step = &self.result.steps[index];
            let said = |rank: &u32| step.ranks.iter().any(|place| place.rank == *rank);
            let silent = (0..step.tasks).find(|rank| is_last && !said(rank))?;
            Some(format!("rank {silent} of {} did not say in its log where it runs", step.name))
        };
        let Some(message) = problem(&self.result.steps, index).or_else(missing) else { return };
        if is_last && self.result.verdict.kind.is_passed() {
            self.result.verdict = Verdict {
                step: Some(self.name(index).to_owned()),
                noticed: self.result.verdict.noticed,
                stop_ms: self.result.verdict.stop_ms,
                ..Verdict::new(VerdictKind::Misplaced, message)
            };
        } else {
            self.decide(VerdictKind::Misplaced, message, Some(index));
        }
    }
}

/// Whether ranks of a step have not said where they run; steps of no role say nothing.
fn is_incomplete(step: &StepResult) -> bool {
    step.purpose.is_some() && step.ranks.len() < step.tasks as usize
}

/// The first rank of a step that does not run where the plan has it.
fn problem(steps: &[StepResult], index: usize) -> Option<String> {
    let step = &steps[index];
    let name = &step.name;
    for place in &step.ranks {
        let (rank, node) = (place.rank, &place.node);
        let Some(at) = step.node_of(rank) else { continue };
        if let Some(planned) = step.nodes.get(at).filter(|planned| *planned != node) {
            return Some(format!("rank {rank} of {name} runs on {node}, by the plan on {planned}"));
        }
        let Some(own) = step.own_gpus.as_ref().and_then(|own| own.get(at)) else { continue };
        if place.gpus.len() != *own as usize {
            let gpus = place.gpus.join(",");
            return Some(format!(
                "rank {rank} of {name} has the GPUs {gpus} of {node}, by the plan {own} of them"
            ));
        }
        let others = steps.iter().filter(|other| other.name != *name && other.own_gpus.is_some());
        let places = others.flat_map(|other| other.ranks.iter().map(move |at| (&other.name, at)));
        for (other, at) in places.filter(|(_, at)| at.node == *node) {
            if let Some(gpu) = place.gpus.iter().find(|gpu| at.gpus.contains(gpu)) {
                return Some(format!("{name} and {other} have the same GPU {gpu} of {node}"));
            }
        }
    }
    None
}
