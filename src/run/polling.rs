// SPDX-License-Identifier: Apache-2.0
//! How often Slurm is queried about a job, and how long a query may take.
//!
//! The interval grows with the time without a change, so that the delay is a few per cent of the
//! time a person has waited already, and jobs that wait for days cost the controller little.

use std::time::Duration;

/// What a job is doing, as far as polling is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It waits in the queue, or for its nodes.
    Waiting,
    /// It runs.
    Running,
    /// It ends: its outcome is near.
    Ending,
    /// The controller does not respond.
    Unresponsive,
}

/// The interval at which the files of a run are read, which costs the controller nothing.
pub const FILE_INTERVAL: Duration = Duration::from_millis(500);

/// The timeout of a query that something depends on. Slurm's commands retry for about a minute
/// before they report that a controller is down.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(90);

/// The timeout of a periodic query: short at first, so that an unresponsive controller is reported
/// soon, then as long as a loaded one needs.
#[must_use]
pub fn timeout(is_unresponsive: bool) -> Duration {
    if is_unresponsive { QUERY_TIMEOUT } else { Duration::from_secs(15) }
}

/// The time until the next query, when the stage has lasted this long.
#[must_use]
pub fn interval(stage: Stage, lasted: Duration) -> Duration {
    let (part, least_ms, most_s) = match stage {
        Stage::Waiting => (20, 500, 30),
        Stage::Running => (20, 500, 15),
        Stage::Unresponsive => (10, 2_000, 30),
        Stage::Ending => (20, 500, 15),
    };
    (lasted / part).clamp(Duration::from_millis(least_ms), Duration::from_secs(most_s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_is_polled_less_and_less_often() {
        for (lasted, expected) in [(0, 0.5), (60, 3.0), (300, 15.0), (86_400, 30.0)] {
            let lasted = Duration::from_secs(lasted);
            let expected = Duration::from_secs_f64(expected);
            assert_eq!(interval(Stage::Waiting, lasted), expected);
        }
    }

    #[test]
    fn a_job_that_does_not_end_is_polled_less_often() {
        assert_eq!(interval(Stage::Ending, Duration::from_secs(1)), FILE_INTERVAL);
        assert_eq!(interval(Stage::Ending, Duration::from_secs(3_600)), Duration::from_secs(15));
    }
}
