// SPDX-License-Identifier: Apache-2.0
//! The metrics of a benchmark: their names in JSON, their units, and which direction is better.

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Its name in JSON and on the command line.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// Its unit; empty for a count.
    pub unit: &'static str,
    /// Which values are better.
    pub better: Better,
    /// Whether overviews that have little room show it.
    pub is_key: bool,
}

/// Which values of a metric are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Higher ones.
    Higher,
    /// Lower ones.
    Lower,
    /// Neither: it says what was measured, not how well.
    Neither,
}

impl Better {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Higher => "higher",
            Self::Lower => "lower",
            Self::Neither => "neither",
        }
    }
}

impl Metric {
    const fn new(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        better: Better,
    ) -> Self {
        Self { name, title, unit, better, is_key: false }
    }

    const fn key(self) -> Self {
        Self { is_key: true, ..self }
    }

    /// The shortest heading for a column of a key metric: `failed`, `tok/s`, `TTFT p99 ms`.
    #[must_use]
    pub fn short(&self) -> String {
        match self.unit {
            "" => self.name.to_owned(),
            "ms" => format!("{} ms", self.title),
            unit => unit.to_owned(),
        }
    }

    /// The title with the unit: `TTFT p99 (ms)`.
    #[must_use]
    pub fn heading(&self) -> String {
        match self.unit {
            "" => self.title.to_owned(),
            unit => format!("{} ({unit})", self.title),
        }
    }
}

/// Requests that were answered.
pub const COMPLETED: &str = "completed";
/// Requests that failed.
pub const FAILED: &str = "failed";

use Better::{Higher, Lower, Neither};

/// The latencies of which every client gives a mean and percentiles, all in milliseconds.
macro_rules! table {
    ([$($metric:expr,)*] $($name:literal $title:literal;)*) => {
        &[
            $($metric,)*
            $(
                Metric::new(concat!($name, "_mean_ms"), concat!($title, " mean"), "ms", Lower),
                Metric::new(concat!($name, "_p50_ms"), concat!($title, " p50"), "ms", Lower).key(),
                Metric::new(concat!($name, "_p90_ms"), concat!($title, " p90"), "ms", Lower),
                Metric::new(concat!($name, "_p95_ms"), concat!($title, " p95"), "ms", Lower),
                Metric::new(concat!($name, "_p99_ms"), concat!($title, " p99"), "ms", Lower).key(),
            )*
        ]
    };
}

/// All metrics, in the order in which they are shown.
pub const METRICS: &[Metric] = table! {
    [
        Metric::new(COMPLETED, "requests completed", "", Neither).key(),
        Metric::new(FAILED, "requests failed", "", Lower).key(),
        Metric::new("duration_s", "duration", "s", Neither),
        Metric::new("request_throughput", "requests", "req/s", Higher).key(),
        Metric::new("output_throughput", "output tokens", "tok/s", Higher).key(),
        Metric::new("total_throughput", "all tokens", "tok/s", Higher),
        Metric::new("user_throughput", "output tokens per user", "tok/s", Higher),
    ]
    "ttft" "TTFT";
    "tpot" "TPOT";
    "itl" "ITL";
    "latency" "latency";
};

/// A value for people: whole numbers as they are, others with three or four digits that count.
#[must_use]
pub fn shown(value: f64) -> String {
    match value.abs() {
        _ if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value:.0}"),
        size if size >= 1000.0 => format!("{value:.0}"),
        size if size >= 100.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        size => format!("{value:.*}", (2 - size.log10().floor() as i32).clamp(0, 9) as usize),
    }
}
