// SPDX-License-Identifier: Apache-2.0
//! Steps that Slurm does not start.

use std::time::Duration;

use super::Machine;
use crate::run::result::Moment;

/// How long Slurm may take to start a step before the step is reported as waiting.
const WAITING: Duration = Duration::from_secs(10);

impl Machine {
    /// A step that Slurm does not start says so after some seconds: mostly another step of the job,
    /// or the shell around the launch, holds what it needs.
    pub(super) fn report_waiting(&mut self) {
        if self.is_decided() {
            return;
        }
        for index in 0..self.steps.len() {
            if self.waits_until(index).is_some_and(|until| self.now >= until) {
                self.steps[index].is_reported_waiting = true;
                let last = self.steps[index].last_line.as_deref().unwrap_or("srun printed nothing");
                self.log(format!(
                    "{} waits for Slurm to start it: {last}; `squeue --steps --jobs={}` shows the \
                     steps that hold the job's nodes",
                    self.name(index),
                    self.result.run.job_id
                ));
            }
        }
    }

    /// When a step that Slurm has not started is reported as waiting, once.
    pub(super) fn waits_until(&self, index: usize) -> Option<Moment> {
        let result = &self.result.steps[index];
        let waits = result.is_running() && result.step_id.is_none();
        let is_new = waits && !self.steps[index].is_reported_waiting;
        result.started.filter(|_| is_new).map(|started| started + WAITING)
    }
}
