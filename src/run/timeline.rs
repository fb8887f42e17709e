// SPDX-License-Identifier: Apache-2.0
//! What a step is doing, from its moments: the same words in the progress of a run and in its
//! report.

use std::fmt;
use std::time::Duration;

use super::result::{Exit, Moment, StepResult};

/// What a step is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// It was not asked for yet, or never was.
    NotStarted,
    /// It was asked for; not all its tasks run yet.
    Starting,
    /// All its tasks run.
    Running,
    /// It answered the readiness probe.
    Ready,
    /// It is being ended.
    Stopping,
    /// It ended by itself.
    Ended(Option<Exit>),
    /// It was ended.
    Stopped,
}

impl StepState {
    /// Of a step.
    #[must_use]
    pub fn of(step: &StepResult) -> Self {
        match step {
            StepResult { ended: Some(_), stopped: Some(_), .. } => Self::Stopped,
            StepResult { ended: Some(_), exit, .. } => Self::Ended(*exit),
            StepResult { stopped: Some(_), .. } => Self::Stopping,
            StepResult { ready: Some(_), .. } => Self::Ready,
            StepResult { running: Some(_), .. } => Self::Running,
            StepResult { started: Some(_), .. } => Self::Starting,
            _ => Self::NotStarted,
        }
    }
}

impl fmt::Display for StepState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("not started"),
            Self::Starting => f.write_str("starting"),
            Self::Running => f.write_str("running"),
            Self::Ready => f.write_str("ready"),
            Self::Stopping => f.write_str("stopping"),
            Self::Stopped => f.write_str("stopped"),
            Self::Ended(None) => f.write_str("ended"),
            Self::Ended(Some(Exit::Status(0))) => f.write_str("done"),
            Self::Ended(Some(Exit::Status(status))) => write!(f, "exit status {status}"),
            Self::Ended(Some(Exit::Signal(signal))) => write!(f, "signal {signal}"),
        }
    }
}

/// A stretch of a step's time, for drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// What it was doing: starting, running, ready or stopping.
    pub state: StepState,
    /// From when.
    pub from: Moment,
    /// Until when.
    pub to: Moment,
}

/// The stretches of a step in order, without empty ones; one that goes on ends `now`.
#[must_use]
pub fn spans(step: &StepResult, now: Moment) -> Vec<Span> {
    let end = step.ended.unwrap_or(now);
    let marks = [
        (StepState::Starting, step.started),
        (StepState::Running, step.running),
        (StepState::Ready, step.ready),
        (StepState::Stopping, step.stopped),
    ];
    let marks: Vec<_> = marks.into_iter().filter_map(|(state, at)| Some((state, at?))).collect();
    let mut spans = Vec::new();
    for (index, (state, from)) in marks.iter().enumerate() {
        let to = marks.get(index + 1).map_or(end, |next| next.1).min(end);
        if to > *from {
            spans.push(Span { state: *state, from: *from, to });
        }
    }
    spans
}

/// A duration as people read it: `7.2 s`, `3:04`, `1:02:03`.
#[must_use]
pub fn duration(of: Duration) -> String {
    let seconds = of.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", of.as_secs_f64()),
        60..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn step(moments: [Option<u64>; 5]) -> StepResult {
        let [started, running, ready, stopped, ended] = moments.map(|at| at.map(Moment));
        StepResult {
            name: "GEN_0".into(),
            role: None,
            purpose: None,
            step_id: None,
            nodes: Vec::new(),
            tasks: 1,
            log: "gen_server_0.log".into(),
            junit: None,
            started,
            running,
            ready,
            ended,
            exit: None,
            stopped,
            failure: None,
        }
    }

    #[test]
    fn the_latest_moment_says_what_a_step_is_doing() {
        for (moments, expected) in [
            ([None; 5], "not started"),
            ([Some(1), None, None, None, None], "starting"),
            ([Some(1), Some(2), None, None, None], "running"),
            ([Some(1), Some(2), Some(3), None, None], "ready"),
            ([Some(1), Some(2), Some(3), Some(4), None], "stopping"),
            ([Some(1), Some(2), Some(3), Some(4), Some(5)], "stopped"),
            ([Some(1), Some(2), None, None, Some(5)], "ended"),
        ] {
            assert_eq!(StepState::of(&step(moments)).to_string(), expected);
        }
    }

    #[test]
    fn the_stretches_of_a_step_follow_each_other_and_end_with_it() {
        let spans = spans(&step([Some(10), Some(20), None, Some(50), Some(60)]), Moment(99));
        let spans: Vec<_> = spans.iter().map(|s| (s.state, s.from.0, s.to.0)).collect();
        assert_eq!(
            spans,
            [
                (StepState::Starting, 10, 20),
                (StepState::Running, 20, 50),
                (StepState::Stopping, 50, 60)
            ]
        );
    }

    #[test]
    fn a_step_that_goes_on_lasts_until_now() {
        let spans = spans(&step([Some(10), None, None, None, None]), Moment(99));
        assert_eq!(spans, [Span { state: StepState::Starting, from: Moment(10), to: Moment(99) }]);
    }

    #[test]
    fn durations_are_short_to_read() {
        let text = |ms| duration(Duration::from_millis(ms));
        assert_eq!([text(7_249), text(184_000), text(3_723_000)], ["7.2 s", "3:04", "1:02:03"]);
    }
}
