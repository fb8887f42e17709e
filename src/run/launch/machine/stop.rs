// SPDX-License-Identifier: Apache-2.0
//! How the steps of a decided run are stopped: one group after the other, harder where it takes too
//! long.

use std::time::Duration;

use super::step::{Stage, Stopping};
use super::{Action, Machine};
use crate::run::result::StopSignal;

/// The time that each way to kill a step has before the next is tried.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
impl Machine {
    /// Stops the next group of steps once the one before has ended, and escalates where steps do
    /// not end in time.
    pub(super) fn stop_steps(&mut self) {
        if !self.is_decided() {
            return;
        }
        while !self.running().any(|index| self.steps[index].stop.is_some())
            && let Some(next) = self.to_stop.pop()
        {
            self.stop(next);
        }
        let mut kill = Vec::new();
        let running: Vec<usize> = self.running().collect();
        for index in running {
            let Some(stop) = &mut self.steps[index].stop else { continue };
            if stop.next.is_none_or(|next| self.now < next) {
                continue;
            }
            // One kill at a time: up to 25.05.0 a slurmstepd that is asked to kill a step which
            // another kill has just ended may stay until UnkillableStepTimeout, and then drain its
            // node.
            let next = Some(self.now + KILL_TIMEOUT);
            match stop.stage {
                Stage::Terminated => {
                    (stop.stage, stop.next) = (Stage::SrunTerminated, next);
                    self.actions.push(Action::SignalSrun(index, StopSignal::Term));
                }
                Stage::SrunTerminated => {
                    (stop.stage, stop.next) = (Stage::Killed, next);
                    kill.extend(self.result.steps[index].step_id.clone());
                }
                Stage::Killed | Stage::Abandoned => {
                    (stop.stage, stop.next) = (Stage::Abandoned, None);
                    self.actions.push(Action::SignalSrun(index, StopSignal::Kill));
                }
            }
        }
        self.scancel(StopSignal::Kill, kill);
    }

    /// Sends SIGTERM to the tasks of steps; to srun itself where the step does not exist yet.
    fn stop(&mut self, group: Vec<usize>) {
        let grace = match self.is_benchmark_over() {
            true => self.settings.grace_after_benchmark,
            false => self.settings.grace,
        };
        let next = Some(self.now + grace);
        let mut ids = Vec::new();
        for index in group {
            if !self.is_running(index) {
                continue;
            }
            self.steps[index].stop =
                Some(Stopping { since: self.now, stage: Stage::Terminated, next });
            self.result.steps[index].stopped = Some(self.now);
            self.changed = true;
            match &self.result.steps[index].step_id {
                Some(id) => ids.push(id.clone()),
                None => self.actions.push(Action::SignalSrun(index, StopSignal::Term)),
            }
        }
        self.scancel(StopSignal::Term, ids);
    }

    fn scancel(&mut self, signal: StopSignal, ids: Vec<String>) {
        if !ids.is_empty() {
            self.actions.push(Action::Scancel(signal, ids));
        }
    }
}
