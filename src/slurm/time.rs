// SPDX-License-Identifier: Apache-2.0
//! Time limits and run times as Slurm writes them: `30`, `30:00`, `1:00:00`, `1-0`, `1-12:30`,
//! `UNLIMITED`.

use std::fmt;
use std::str::FromStr;

/// The longest time that Slurm can count: it holds the seconds in a C `int`.
const MAX_SECONDS: u32 = i32::MAX as u32;

/// A duration in seconds, or none at all.
///
/// As a limit, sbatch also takes a duration of 0 for "no limit", and rounds seconds up to minutes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeLimit {
    /// Seconds, at most `i32::MAX`.
    Seconds(u32),
    /// No limit.
    Unlimited,
}

/// Why a text is not a time limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// Not one of Slurm's forms.
    #[error(
        "invalid time limit {0:?}: use MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, \
         DAYS-HOURS, DAYS-HOURS:MINUTES, DAYS-HOURS:MINUTES:SECONDS or UNLIMITED"
    )]
    Form(String),
    /// More than Slurm can count.
    #[error(
        "invalid time limit {0:?}: Slurm counts up to {days} days: use UNLIMITED",
        days = MAX_SECONDS / 86_400
    )]
    TooLong(String),
}

impl TimeLimit {
    /// The limit in minutes, rounded up as sbatch does; `None` when it is unlimited.
    #[must_use]
    pub fn minutes(self) -> Option<u32> {
        match self {
            Self::Seconds(seconds) => Some(seconds.div_ceil(60)),
            Self::Unlimited => None,
        }
    }
}

impl FromStr for TimeLimit {
    type Err = TimeError;

    /// Reads what `sbatch --time` reads, but for its accidents: `-5`, `1-` and numbers that
    /// overflow it are errors here.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        if text == "-1"
            || text.eq_ignore_ascii_case("UNLIMITED")
            || text.eq_ignore_ascii_case("INFINITE")
        {
            return Ok(Self::Unlimited);
        }
        let (days, clock) = match text.split_once('-') {
            Some((days, clock)) => (Some(days), clock),
            None => (None, text),
        };
        let parts: Vec<&str> = clock.split(':').collect();
        let (hours, minutes, seconds) = match (days, parts.as_slice()) {
            (None, [minutes]) => ("0", *minutes, "0"),
            (None, [minutes, seconds]) => ("0", *minutes, *seconds),
            (Some(_), [hours]) => (*hours, "0", "0"),
            (Some(_), [hours, minutes]) => (*hours, *minutes, "0"),
            (_, [hours, minutes, seconds]) => (*hours, *minutes, *seconds),
            _ => return Err(TimeError::Form(text.to_owned())),
        };
        let mut total = 0u64;
        for (part, unit) in
            [(days.unwrap_or("0"), 86_400), (hours, 3_600), (minutes, 60), (seconds, 1)]
        {
            if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(TimeError::Form(text.to_owned()));
            }
            // What does not fit u64 does not fit Slurm's int either.
            let number: u64 = part.parse().unwrap_or(u64::MAX);
            total = total.saturating_add(number.saturating_mul(unit));
        }
        u32::try_from(total)
            .ok()
            .filter(|&seconds| seconds <= MAX_SECONDS)
            .map(Self::Seconds)
            .ok_or_else(|| TimeError::TooLong(text.to_owned()))
    }
}

impl fmt::Display for TimeLimit {
    /// As `scontrol show job` prints it: `HH:MM:SS`, `D-HH:MM:SS` or `UNLIMITED`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Seconds(total) = self else { return f.write_str("UNLIMITED") };
        let (days, rest) = (total / 86_400, total % 86_400);
        if days > 0 {
            write!(f, "{days}-")?;
        }
        write!(f, "{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_slurm_is_read() {
        for (text, seconds) in [
            ("30", 1_800),
            ("010", 600),
            ("30:00", 1_800),
            ("00:90", 90),
            ("1:5", 65),
            ("5:99", 399),
            ("1:00:00", 3_600),
            ("30:00:00", 108_000),
            ("1-0", 86_400),
            ("2-30", 280_800),
            ("3-4:5", 273_900),
            ("1-12:30", 131_400),
            ("1-12:30:15", 131_415),
            ("0", 0),
        ] {
            assert_eq!(text.parse(), Ok(TimeLimit::Seconds(seconds)), "{text}");
        }
        for text in ["UNLIMITED", "unlimited", "Infinite", "-1"] {
            assert_eq!(text.parse(), Ok(TimeLimit::Unlimited), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            " 5",
            "1d",
            "1:",
            ":5",
            "1::2",
            "1:2:3:4",
            "1-",
            "-5",
            "1-2:3:4:5",
            "1-2-3",
            "+5",
            "N/A",
        ] {
            assert_eq!(text.parse::<TimeLimit>(), Err(TimeError::Form(text.into())), "{text}");
        }
    }

    #[test]
    fn a_time_that_slurm_would_overflow_on_is_refused() {
        for text in ["100000000", "24856-0", "99999999999999999999999"] {
            assert_eq!(text.parse::<TimeLimit>(), Err(TimeError::TooLong(text.into())), "{text}");
        }
    }

    #[test]
    fn it_is_printed_as_scontrol_prints_it() {
        for (text, printed) in [
            ("240", "04:00:00"),
            ("1-12:30", "1-12:30:00"),
            ("infinite", "UNLIMITED"),
            ("9", "00:09:00"),
        ] {
            assert_eq!(text.parse::<TimeLimit>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn minutes_are_rounded_up() {
        assert_eq!(TimeLimit::Seconds(61).minutes(), Some(2));
        assert_eq!(TimeLimit::Seconds(120).minutes(), Some(2));
        assert_eq!(TimeLimit::Unlimited.minutes(), None);
    }

    proptest! {
        #[test]
        fn what_is_printed_comes_back(seconds in 0..=MAX_SECONDS) {
            let time = TimeLimit::Seconds(seconds);
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn no_text_panics(text in "[0-9:-]{0,30}|\\PC{0,20}") {
            let _ = text.parse::<TimeLimit>();
        }
    }
}
