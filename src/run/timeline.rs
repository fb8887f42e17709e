// SPDX-License-Identifier: Apache-2.0
//! The states of a step and their wording: the same words in verdicts, progress and reports.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use super::result::{Exit, Moment, RunResult, StepResult, Stop, StopSignal, VerdictKind};

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

/// Why a step ended, or is lost: `exit status 42 on node1 rank 3`, `signal 9`; none while all is
/// well.
#[must_use]
pub fn end_reason(step: &StepResult) -> Option<String> {
    let rank = step.failure.as_ref().map(ToString::to_string);
    rank.or_else(|| step.exit.map(|exit| exit.to_string()))
}

/// Whether a step is the one that kept its run from passing.
#[must_use]
pub fn is_culprit(result: &RunResult, step: &StepResult) -> bool {
    let verdict = &result.verdict;
    let has_failed = verdict.kind != VerdictKind::Running && !verdict.kind.is_passed();
    has_failed && verdict.step.as_deref() == Some(&step.name)
}

/// The state of a step of a run, with the reason where it is the culprit or ended badly by itself:
/// `running`, `died: signal 11 on node6 rank 2`, `exit status 42 on node1 rank 3`; the others of such
/// a run are `stopped`.
#[must_use]
pub fn describe(result: &RunResult, step: &StepResult) -> String {
    use VerdictKind::{BenchmarkLimit, ReadyLimit, RequestsFailed, ServerEnded, StartLimit};
    let state = StepState::of(step);
    let is_good = step.failure.is_none() && step.exit.is_none_or(Exit::is_success);
    if is_culprit(result, step) {
        let verdict = &result.verdict;
        let what = match (verdict.exit, &step.failure) {
            (Some(exit), _) => Some(exit.to_string()),
            (None, Some(end)) => Some(end.to_string()),
            (None, None) => None,
        };
        let how = what.map(|what| match (&verdict.node, verdict.rank) {
            _ if verdict.exit.is_none() => what,
            (Some(node), Some(rank)) => format!("{what} on {node} rank {rank}"),
            (Some(node), None) => format!("{what} on {node}"),
            (None, _) => what,
        });
        return match (verdict.kind, how) {
            (RequestsFailed, _) => "requests failed".to_owned(),
            (StartLimit | ReadyLimit | BenchmarkLimit, _) => format!("too late, {state}"),
            (ServerEnded, Some(how)) => format!("died: {how}"),
            (ServerEnded, None) => "died".to_owned(),
            (_, Some(how)) => format!("failed: {how}"),
            (_, None) => format!("failed, {state}"),
        };
    }
    match (state, end_reason(step)) {
        (StepState::Ended(_), Some(reason)) if !is_good => reason,
        // A rank of it had failed before it was stopped.
        (state, Some(reason)) if step.failure.is_some() => format!("{state}, {reason}"),
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

/// A moment for people: `2026-11-26 04:19:03 UTC`.
#[must_use]
pub fn date(of: Moment) -> String {
    // Later than the year 9999 has no such form.
    let time = UNIX_EPOCH + Duration::from_millis(of.0.min(253_402_300_799_000));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace('T', " ").replace('Z', " UTC")
}

#[cfg(test)]
mod tests {
    use super::super::result::{RankEnd, Verdict};
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
    fn the_culprit_and_its_victims_are_described() {
        let rank =
            |exit| RankEnd { rank: Some(2), node: "n6".into(), exit, message: "Killed".into() };
        let ended = step([Some(1), Some(2), None, None, Some(5)]);
        let stopped = step([Some(1), Some(2), None, Some(4), Some(5)]);
        let (status, signal) = (Some(Exit::Status(42)), Some(Exit::Signal(11)));
        let kill = Some(Stop { signal: StopSignal::Kill, after_ms: 1 });
        let lost = StepResult { failure: Some(rank(signal)), ..ended.clone() };
        let of = |kind, step: &StepResult, named: bool| {
            let mut verdict = Verdict::new(kind, "");
            verdict.step = named.then(|| step.name.clone());
            let failure = step.failure.as_ref();
            verdict.exit = failure.and_then(|end| end.exit).or(step.exit);
            verdict.rank = failure.and_then(|end| end.rank);
            verdict.node = failure.map(|end| end.node.clone());
            RunResult::sample(verdict)
        };
        let passed = StepResult { exit: Some(Exit::Status(0)), ..ended.clone() };
        use VerdictKind::{
            BenchmarkFailed, InstallFailed, ReadyLimit, RequestsFailed, ServerEnded,
        };
        for (kind, step, named, expected) in [
            (ServerEnded, lost.clone(), true, "died: signal 11 on n6 rank 2"),
            (ServerEnded, passed.clone(), true, "died: exit status 0"),
            (
                ServerEnded,
                StepResult { failure: Some(rank(None)), ..ended.clone() },
                true,
                "died: Killed on n6 rank 2",
            ),
            (
                BenchmarkFailed,
                StepResult { exit: status, ..ended.clone() },
                true,
                "failed: exit status 42",
            ),
            (RequestsFailed, passed.clone(), true, "requests failed"),
            (ReadyLimit, stopped.clone(), true, "too late, stopped"),
            (InstallFailed, step([None; 5]), true, "failed, not started"),
            (ServerEnded, StepResult { exit: status, ..stopped.clone() }, false, "stopped"),
            (
                ServerEnded,
                StepResult { exit: signal, stop: kill, ..stopped.clone() },
                false,
                "killed",
            ),
            (
                ServerEnded,
                StepResult { failure: Some(rank(status)), ..stopped },
                false,
                "stopped, exit status 42 on n6 rank 2",
            ),
            (ServerEnded, lost, false, "signal 11 on n6 rank 2"),
            (VerdictKind::Passed, passed, true, "done"),
        ] {
            assert_eq!(describe(&of(kind, &step, named), &step), expected);
        }
        assert_eq!(date(Moment(1_795_666_743_999)), "2026-11-26 04:19:03 UTC");
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
