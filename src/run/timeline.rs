// SPDX-License-Identifier: Apache-2.0
//! The states of a step and their wording: the same words in verdicts, progress and reports.

use std::fmt;
use std::time::Duration;

use super::result::{Exit, Moment, StepResult, Stop, StopSignal};

/// The state of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// It is not started.
    NotStarted,
    /// Its `srun` runs; not all its tasks do yet.
    Starting,
    /// All its tasks run.
    Running,
    /// It answered the readiness probe.
    Ready,
    /// The launch is stopping it.
    Stopping,
    /// It ended by itself.
    Ended(Option<Exit>),
    /// The launch stopped it.
    Stopped,
    /// It ended only on SIGKILL.
    Killed,
}

impl StepState {
    /// The state of a step.
    #[must_use]
    pub fn of(step: &StepResult) -> Self {
        let killed = matches!(step.stop, Some(Stop { signal: StopSignal::Kill, .. }));
        match step {
            StepResult { ended: Some(_), stopped: Some(_), .. } if killed => Self::Killed,
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
        f.write_str(match self {
            Self::NotStarted => "not started",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Killed => "killed",
            Self::Ended(None) => "ended",
            Self::Ended(Some(Exit::Status(0))) => "done",
            Self::Ended(Some(exit)) => return write!(f, "{exit}"),
        })
    }
}

/// Why a step ended, or is lost: `exit status 42 (rank 3 on node1)`, `signal 9`; none while all is
/// well.
#[must_use]
pub fn end_reason(step: &StepResult) -> Option<String> {
    let rank = step.failure.as_ref().map(ToString::to_string);
    rank.or_else(|| step.exit.map(|exit| exit.to_string()))
}

/// The state of a step with the reason of a bad end: `running`, `stopped, signal 9`,
/// `exit status 42 (rank 3 on node1)`.
#[must_use]
pub fn describe(step: &StepResult) -> String {
    let state = StepState::of(step);
    let is_good = step.failure.is_none() && step.exit.is_none_or(Exit::is_success);
    match (state, end_reason(step)) {
        (state, Some(reason)) if !is_good => match state {
            StepState::Ended(_) => reason,
            state => format!("{state}, {reason}"),
        },
        (state, _) => state.to_string(),
    }
}

/// A time span in which a step keeps its state, for drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Starting, running, ready or stopping.
    pub state: StepState,
    /// From when.
    pub from: Moment,
    /// Until when.
    pub to: Moment,
}

/// The spans of a step in order, without empty ones; the last span of a running step ends `now`.
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

/// A duration for people: `7.2 s`, `3:04`, `1:02:03`.
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
    use super::super::result::RankEnd;
    use super::*;

    fn step(moments: [Option<u64>; 5]) -> StepResult {
        let [started, running, ready, stopped, ended] = moments.map(|at| at.map(Moment));
        let step = StepResult::new("A_0", &[], 1, "a_0.log");
        StepResult { started, running, ready, ended, stopped, ..step }
    }

    #[test]
    fn the_latest_moment_gives_the_state() {
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
    fn the_end_of_a_step_is_described_with_its_reason() {
        let rank = |exit| RankEnd { rank: 3, node: "n1".into(), exit, message: "Killed".into() };
        let ended = step([Some(1), Some(2), None, None, Some(5)]);
        let stopped = step([Some(1), Some(2), None, Some(4), Some(5)]);
        let (status, signal) = (Some(Exit::Status(42)), Some(Exit::Signal(9)));
        let kill = Some(Stop { signal: StopSignal::Kill, after_ms: 1 });
        for (step, expected) in [
            (StepResult { exit: Some(Exit::Status(0)), ..ended.clone() }, "done"),
            (StepResult { exit: status, ..ended.clone() }, "exit status 42"),
            (StepResult { failure: Some(rank(None)), ..ended.clone() }, "Killed (rank 3 on n1)"),
            (StepResult { failure: Some(rank(status)), ..ended }, "exit status 42 (rank 3 on n1)"),
            (StepResult { exit: status, ..stopped.clone() }, "stopped, exit status 42"),
            (StepResult { exit: signal, stop: kill, ..stopped }, "killed, signal 9"),
        ] {
            assert_eq!(describe(&step), expected);
        }
    }

    #[test]
    fn the_spans_of_a_step_follow_each_other_and_end_with_it() {
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
    fn the_last_span_of_a_running_step_ends_now() {
        let spans = spans(&step([Some(10), None, None, None, None]), Moment(99));
        assert_eq!(spans, [Span { state: StepState::Starting, from: Moment(10), to: Moment(99) }]);
    }

    #[test]
    fn durations_are_short_to_read() {
        let text = |ms| duration(Duration::from_millis(ms));
        assert_eq!([text(7_249), text(184_000), text(3_723_000)], ["7.2 s", "3:04", "1:02:03"]);
    }
}
