// SPDX-License-Identifier: Apache-2.0
//! Ready, alive, dead: when a step is asked, and what its answers and its log mean.

use std::time::Duration;

use super::{Action, Machine};
use crate::plan::Purpose;
use crate::run::launch::watch::Watch;
use crate::run::result::{Exit, Moment, StepResult, VerdictKind};
use crate::run::timeline::duration;

/// The time between two questions to a step that is not ready.
const INTERVAL: Duration = Duration::from_millis(500);
/// The time that it has for each answer. It may be slow while it loads a model.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a client that failed waits for the log of a server that made it fail.
const LOG_LAG: Duration = Duration::from_millis(500);

/// What is known of a step's health.
#[derive(Debug, Default)]
pub struct Health {
    /// How it is watched.
    pub watch: Watch,
    /// When the question was asked whose answer is still to come.
    asked: Option<Moment>,
    /// When the next question is due.
    next: Moment,
    /// Why it was not ready at the last answer.
    pub last: Option<String>,
    /// How many answers were missing since the last good one, and when the first of these questions
    /// was asked.
    misses: u32,
    missed: Moment,
}

impl Health {
    /// The health of a step that is watched so, before it starts.
    pub fn new(watch: Watch) -> Self {
        Self { watch, ..Self::default() }
    }

    /// The time between two questions, which is also the time that each answer has.
    fn pace(&self, is_ready: bool) -> (Duration, Duration) {
        match self.watch.alive {
            Some(alive) if is_ready => {
                let each = Duration::from_secs(alive.seconds.into()) / alive.misses.max(1);
                (each, each)
            }
            _ => (INTERVAL, TIMEOUT),
        }
    }
}

impl Machine {
    /// When a step is asked next; none when an answer is to come, or there is nothing to ask.
    pub(super) fn next_question(&self, index: usize) -> Option<Moment> {
        let (result, health) = (&self.result.steps[index], &self.health[index]);
        let is_wanted = health.watch.target.is_some()
            && health.asked.is_none()
            && (result.ready.is_none() || health.watch.alive.is_some());
        result.running.filter(|_| is_wanted && result.ended.is_none()).map(|at| at.max(health.next))
    }

    /// Asks the steps whose turn it is.
    pub(super) fn ask(&mut self) {
        if self.is_decided() {
            return;
        }
        for index in 0..self.steps.len() {
            if self.next_question(index).is_some_and(|due| self.now >= due) {
                let health = &mut self.health[index];
                health.asked = Some(self.now);
                let (_, timeout) = health.pace(self.result.steps[index].ready.is_some());
                self.actions.push(Action::Ask(index, timeout));
            }
        }
    }

    /// The answer of a step to the last question: that it is ready, or why it does not count.
    pub(super) fn answered(&mut self, index: usize, answer: Result<(), String>) {
        let is_ready = self.result.steps[index].ready.is_some();
        let health = &mut self.health[index];
        let Some(asked) = health.asked.take() else { return };
        health.next = asked + health.pace(is_ready).0;
        if self.is_decided() || !self.is_running(index) {
            return;
        }
        let health = &mut self.health[index];
        match answer {
            Ok(()) => {
                health.misses = 0;
                if !is_ready {
                    health.next = self.now + health.pace(true).0;
                    self.is_ready(index);
                }
            }
            Err(why) if is_ready => {
                if health.misses == 0 {
                    health.missed = asked;
                }
                health.misses += 1;
                let (misses, seconds) = (health.misses, self.now.since(health.missed));
                if let (Some(alive), Some(target)) = (health.watch.alive, &health.watch.target)
                    && misses >= alive.misses
                {
                    let message = format!(
                        "{} stopped answering {target}: {misses} misses in {} s ({why})",
                        self.result.steps[index].name,
                        seconds.as_secs_f64().round()
                    );
                    self.decide(VerdictKind::Unresponsive, message, Some(index));
                }
            }
            Err(why) => health.last = Some(why),
        }
    }

    /// A step is seen to be ready.
    pub(super) fn is_ready(&mut self, index: usize) {
        let result = &mut self.result.steps[index];
        if result.ready.is_some() || !result.is_running() {
            return;
        }
        result.ready = Some(self.now);
        self.changed = true;
        let after = duration(self.now.since(self.result.started));
        self.log(format!("{} is ready after {after}", self.name(index)));
    }

    /// The step's log says that it is dead.
    pub(super) fn fatal(&mut self, index: usize, line: &str) {
        if self.is_running(index) {
            let message = format!("{} log: {line}", self.name(index));
            self.decide(VerdictKind::FatalLog, message, Some(index));
        }
    }

    /// Until when a server's log may say why a client has failed.
    pub(super) fn explained_by(&self, index: usize) -> Option<Moment> {
        let step = &self.result.steps[index];
        let has_failed = || self.meaning(index).is_some_and(|(kind, _)| !kind.is_passed());
        let is_read = || self.running().any(|index| !self.health[index].watch.fatal.is_empty());
        let ended = step.ended.filter(|_| step.decides() && is_read() && has_failed());
        ended.map(|ended| ended + LOG_LAG)
    }

    /// Whether a step is as far as others may wait for: ready, or running where that is not seen.
    pub(super) fn is_up(&self, index: usize) -> bool {
        let result = &self.result.steps[index];
        match self.health[index].watch.sees_ready() {
            true => result.ready.is_some(),
            false => result.running.is_some(),
        }
    }

    /// Whether the steps are up that must be ready before this one starts.
    pub(super) fn may_start(&self, index: usize) -> bool {
        let after = &self.health[index].watch.after;
        let is_before =
            |step: &StepResult| step.role.as_ref().is_some_and(|role| after.contains(role));
        let mut before =
            (0..self.steps.len()).filter(|index| is_before(&self.result.steps[*index]));
        before.all(|index| match &self.result.steps[index] {
            step if step.decides() || step.purpose == Some(Purpose::Check) => {
                step.exit.is_some_and(Exit::is_success)
            }
            _ => self.is_up(index),
        })
    }
}
