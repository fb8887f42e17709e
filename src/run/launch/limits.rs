// SPDX-License-Identifier: Apache-2.0
//! How long the phases of a run may take.

use std::str::FromStr;
use std::time::Duration;

/// A limit for each phase; a phase without one may take as long as the job does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// From the first server's start until all steps run.
    pub start: Option<Duration>,
    /// From then until the readiness probe has seen all servers.
    pub ready: Option<Duration>,
    /// From then until the benchmark ends.
    pub benchmark: Option<Duration>,
}

/// A text that gives no limits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// It is no time.
    #[error("{0:?} is no time: write seconds (90), or a number with s, m or h (15m)")]
    Time(String),
    /// It is no phase.
    #[error("{0:?} is no limit: write PHASE=TIME with a phase of start, ready, benchmark")]
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
                "start" => &mut limits.start,
                "ready" => &mut limits.ready,
                "benchmark" => &mut limits.benchmark,
                _ => return Err(bad()),
            };
            *slot = Some(seconds(time)?);
        }
        Ok(limits)
    }
}

/// A time in seconds, or with a unit: `90`, `1.5s`, `15m`, `2h`.
///
/// # Errors
/// [`LimitsError::Time`]: not a number, negative, or longer than a year.
pub fn seconds(text: &str) -> Result<Duration, LimitsError> {
    let bad = || LimitsError::Time(text.to_owned());
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
        assert_eq!(limits.ready, None);
        assert_eq!(limits.benchmark, Some(Duration::from_secs(5400)));
    }

    #[test]
    fn what_is_no_limit_is_refused() {
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
    }
}
