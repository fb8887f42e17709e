// SPDX-License-Identifier: Apache-2.0
//! A chart as inline SVG, with the colours of its page.

use std::fmt::Write;

use super::html::escape;
use crate::run::compare::Value;
use crate::run::figures::metric::shown;

/// Values of several series over the same labels.
#[derive(Debug)]
pub struct Chart {
    /// Its title.
    pub title: String,
    /// What the labels are.
    pub along: &'static str,
    /// The labels, from left to right.
    pub labels: Vec<String>,
    /// The series.
    pub series: Vec<Series>,
}

/// A line of a chart.
#[derive(Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its value at each label, where there is one.
    pub values: Vec<Option<Value>>,
}

/// How many colours the page has for series.
const COLOURS: usize = 6;
/// The most labels that are written.
const LABELS: usize = 8;

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// The chart with its title and, with several series, its legend. The values start at 0.
#[must_use]
pub fn chart(chart: &Chart) -> String {
    let values = || chart.series.iter().flat_map(|series| series.values.iter().flatten());
    let top = ceiling(values().map(|value| value.max).fold(0.0, f64::max));
    let steps = chart.labels.len().max(1) as f64;
    // Series that have ranges stand beside each other.
    let apart = if values().any(|value| value.runs > 1) { 8.0 } else { 0.0 };
    let middle = (chart.series.len() as f64 - 1.0) / 2.0;
    let center = |index: usize| LEFT + (WIDTH - LEFT - RIGHT) * (index as f64 + 0.5) / steps;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value.max(0.0) / top);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    for part in 0..=4 {
        let value = top * f64::from(part) / 4.0;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            shown(value)
        );
    }
    let every = chart.labels.len().div_ceil(LABELS).max(1);
    for (index, label) in chart.labels.iter().enumerate().filter(|(index, _)| index % every == 0) {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            center(index),
            HEIGHT - BOTTOM + 16.0,
            escape(label)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        HEIGHT - 6.0,
        chart.along
    );
    for (number, series) in chart.series.iter().enumerate() {
        let x = |index| center(index) + apart * (number as f64 - middle);
        let _ = writeln!(svg, "<g class=\"k{}\">", number % COLOURS);
        let points =
            series.values.iter().enumerate().filter_map(|(at, value)| Some((at, (*value)?)));
        let points: Vec<_> = points.collect();
        let line: Vec<_> = points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(value.mean)))
            .collect();
        let _ = writeln!(svg, "<polyline points=\"{}\"/>", line.join(" "));
        for (at, value) in points {
            let (x, low, high) = (x(at), y(value.min), y(value.max));
            if value.runs > 1 {
                let _ = writeln!(
                    svg,
                    "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\"/>"
                );
            }
            let _ = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"3.5\"><title>{}, {} {}: {}</title></circle>",
                y(value.mean),
                escape(&series.name),
                chart.along,
                escape(&chart.labels[at]),
                value.shown()
            );
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    let mut legend = String::new();
    if chart.series.len() > 1 {
        legend.push_str("<p class=\"legend\">");
        for (number, series) in chart.series.iter().enumerate() {
            let colour = number % COLOURS;
            let name = escape(&series.name);
            let _ = write!(legend, "<span><i class=\"k{colour}\"></i>{name}</span>");
        }
        legend.push_str("</p>\n");
    }
    format!("<figure>\n<figcaption>{}</figcaption>\n{svg}{legend}</figure>\n", escape(&chart.title))
}

/// A round number that is not below a value: 1, 2, 2.5, 4, 5 or 8 times a power of ten.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0];
    let found = steps.iter().map(|step| step * power).find(|round| *round >= value);
    found.unwrap_or(10.0 * power)
}
