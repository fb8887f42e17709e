// SPDX-License-Identifier: Apache-2.0
//! How often Slurm is asked about a job: the one place that says so.
//!
//! The pause grows with the time that nothing has changed, so that what a person waits longer is a
//! few per cent of what they have waited already, and a controller hears little of those who wait
//! for days.

use std::time::Duration;

/// What a job is waiting for, as far as asking goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits in the queue, or for its nodes.
    Waiting,
    /// It runs.
    Running,
    /// It ends: its outcome is near.
    Ending,
    /// The controller does not answer.
    Silent,
}

/// How often the files of a run are looked at, which costs the controller nothing.
pub const FILES: Duration = Duration::from_secs(1);

/// How long an answer may take that a person waits for. Slurm's commands try for about a minute
/// before they say that a controller is down.
const SOON: Duration = Duration::from_secs(15);

/// How long an answer may take when there is nothing better to do than to wait for it.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// How long the next answer may take: not long at first, so that silence is soon known; then as long as a controller under load needs.
#[must_use]
pub fn patience(is_silent: bool) -> Duration {
    if is_silent { PATIENCE } else { SOON }
}

/// The pause before the next question, when the stage has lasted so long.
#[must_use]
pub fn pause(stage: Stage, lasted: Duration) -> Duration {
    let (part, least, most) = match stage {
        Stage::Waiting => (30, 2, 30),
        Stage::Running => (30, 2, 15),
        Stage::Silent => (10, 2, 30),
        Stage::Ending => return Duration::from_secs(1),
    };
    (lasted / part).clamp(Duration::from_secs(least), Duration::from_secs(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_is_asked_about_every_two_to_thirty_seconds() {
        for (lasted, expected) in [(0, 2), (60, 2), (300, 10), (86_400, 30)] {
            let lasted = Duration::from_secs(lasted);
            assert_eq!(pause(Stage::Waiting, lasted), Duration::from_secs(expected));
        }
    }

    #[test]
    fn near_the_end_a_job_is_asked_about_every_second() {
        assert_eq!(pause(Stage::Ending, Duration::from_secs(3_600)), Duration::from_secs(1));
    }
}
