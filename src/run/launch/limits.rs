// SPDX-License-Identifier: Apache-2.0
//! The time limits of a run's phases, and how people write durations.

use std::str::FromStr;
use std::time::Duration;

/// A limit for each phase; a phase without one is limited by the job only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Until the container image is unpacked on all nodes.
    pub unpack: Option<Duration>,
    /// Until the install script has ended on all nodes.
    pub install: Option<Duration>,
    /// From the start of the checks until all have ended; the plan sets it.
    pub precheck: Option<Duration>,
    /// From the first server's start until all steps run.
    pub start: Option<Duration>,
    /// From then until all servers are ready.
    pub ready: Option<Duration>,
    /// From then until the benchmark ends.
    pub benchmark: Option<Duration>,
}

impl Default for Limits {
    /// Half an hour to unpack an image or to install, ten minutes to start, an hour until all
    /// servers are ready. The job's time limit ends the benchmark.
    fn default() -> Self {
        let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        Self {
            unpack: minutes(30),
            install: minutes(30),
            precheck: None,
            start: minutes(10),
            ready: minutes(60),
            benchmark: None,
        }
    }
}

/// Limits that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// The duration is invalid.
    #[error("invalid duration {0:?}: use 90, 15m or 2h")]
    Duration(String),
    /// The phase is missing or unknown.
    #[error(
        "invalid limit {0:?}: use PHASE=TIME, where PHASE is unpack, install, start, ready or benchmark, and TIME 90, 15m, 2h or none"
    )]
    Phase(String),
}

impl FromStr for Limits {
    type Err = LimitsError;

    /// `start=2m,ready=15m,benchmark=1h`.
    fn from_str(text: &str) -> Result<Self, LimitsError> {
        let mut limits = Self::default();
        for item in text.split(',') {
            let bad = || LimitsError::Phase(item.to_owned());
            let (phase, time) = item.split_once('=').ok_or_else(bad)?;
            let slot = match phase {
                "unpack" => &mut limits.unpack,
                "install" => &mut limits.install,
                "start" => &mut limits.start,
                "ready" => &mut limits.ready,
                "benchmark" => &mut limits.benchmark,
                _ => return Err(bad()),
            };
            *slot = if time == "none" { None } else { Some(seconds(time)?) };
        }
        Ok(limits)
    }
}

/// A duration in seconds, or with a unit: `90`, `1.5s`, `15m`, `2h`.
///
/// # Errors
/// [`LimitsError::Duration`]: not a number, negative, or longer than a year.
pub fn seconds(text: &str) -> Result<Duration, LimitsError> {
    let bad = || LimitsError::Duration(text.to_owned());
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1.0),
        Some((at, 'm')) => (&text[..at], 60.0),
        Some((at, 'h')) => (&text[..at], 3600.0),
        _ => (text, 1.0),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(bad());
    }
    let seconds = number.parse::<f64>().map_err(|_| bad())? * unit;
    if seconds > 366.0 * 86_400.0 {
        return Err(bad());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_have_their_own_limits() {
        let limits: Limits = "start=90,benchmark=1.5h".parse().unwrap();
        assert_eq!(limits.start, Some(Duration::from_secs(90)));
        assert_eq!(limits.ready, Limits::default().ready);
        assert_eq!(limits.benchmark, Some(Duration::from_secs(5400)));
    }

    #[test]
    fn invalid_limits_are_refused() {
        for text in [
            "",
            "start",
            "begin=3",
            "start=",
            "start=x",
            "start=-1",
            "start=inf",
            "start=9e9",
            "start=1é",
        ] {
            assert!(text.parse::<Limits>().is_err(), "{text}");
        }
        let error = seconds("x").unwrap_err().to_string();
        assert_eq!(error, "invalid duration \"x\": use 90, 15m or 2h");
    }
}
