// SPDX-License-Identifier: Apache-2.0
//! The report as one HTML page without scripts, other files or network access.

use std::fmt::Write;

use super::super::figures;
use super::super::result::{RunResult, VerdictKind};
use super::super::timeline::{StepState, duration, spans};
use super::Report;
use super::text::{COLUMNS, headline, row};

/// The number of lines of each log on the page.
const TAIL: usize = 100;

/// The longest page that gets another log, in bytes.
const MAX_PAGE: usize = 32 << 20;

const STYLE: &str = "\
:root { color-scheme: light dark }
body { font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em }
h1 { font-size: 1.3em; border-left: .4em solid; padding-left: .6em }
h1.passed { border-color: #2a8a3e } h1.running { border-color: #b58900 } h1.failed { border-color: #c0392b }
table { border-collapse: collapse } th, td { text-align: left; padding: .2em .8em; border-bottom: 1px solid #8884 }
svg { width: 100%; height: auto } svg text { font: 11px monospace; fill: currentColor }
.starting { fill: #b0b0b0 } .running { fill: #5b8fc9 } .ready { fill: #2a8a3e } .stopping { fill: #c0392b }
pre { overflow-x: auto; background: #8882; padding: .6em; font-size: 12px }
";

/// The page.
#[must_use]
pub fn page(report: &Report) -> String {
    let result = &report.result;
    let class = match result.verdict.kind {
        VerdictKind::Passed => "passed",
        VerdictKind::Running => "running",
        _ => "failed",
    };
    let title = escape(&result.plan.config);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1 class=\"{class}\">{}</h1>\n",
        escape(&headline(result))
    );
    page.push_str(&facts(report));
    if !result.figures.is_empty() {
        page.push_str("<h2>Figures</h2>\n");
        page.push_str(&table(&figures::table(&result.figures, true)));
    }
    page.push_str("<h2>Timeline</h2>\n");
    page.push_str(&timeline(report));
    page.push_str("<h2>Steps</h2>\n");
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    rows.extend(result.steps.iter().map(|step| row(step, report.now).to_vec()));
    page.push_str(&table(&rows));
    page.push_str("<h2>Logs</h2>\n");
    for step in &result.steps {
        let tail = (page.len() < MAX_PAGE).then(|| report.tail(step, TAIL)).flatten();
        page.push_str(&log(report, step, tail));
    }
    page.push_str("</body>\n</html>\n");
    page
}

/// A table; the first row is its heading.
fn table(rows: &[Vec<String>]) -> String {
    let mut table = String::from("<table>\n");
    for (index, row) in rows.iter().enumerate() {
        table.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let tag = if index == 0 || column == 0 { "th" } else { "td" };
            let _ = write!(table, "<{tag}>{}</{tag}>", escape(cell));
        }
        table.push_str("</tr>\n");
    }
    table + "</table>\n"
}

fn facts(report: &Report) -> String {
    let result: &RunResult = &report.result;
    let (begin, end) = report.range();
    let mut rows = vec![
        ("Test", result.plan.test.clone()),
        ("Mode", format!("{}, {} rules", result.plan.mode, result.plan.rules)),
        ("Job", format!("{} (run {})", result.run.job_id, result.run.id)),
        ("Nodes", crate::slurm::hostlist::compress(&result.nodes)),
        ("Time", duration(end.since(begin))),
        ("Workspace", report.workspace.display().to_string()),
        (
            "Configuration",
            format!("{} (SHA-256 {})", result.plan.config, result.plan.config_sha256),
        ),
    ];
    if let Some(junit) = &result.junit {
        rows.push(("JUnit", junit.to_string()));
    }
    let mut table = String::from("<table>\n");
    for (name, value) in rows {
        let _ = writeln!(table, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    table + "</table>\n"
}

/// The timeline as SVG; the title of each span is its duration.
fn timeline(report: &Report) -> String {
    const LEFT: f64 = 130.0;
    const WIDTH: f64 = 850.0;
    const LINE: f64 = 20.0;
    let (begin, end) = report.range();
    let whole = end.since(begin).as_secs_f64();
    let steps: Vec<_> = report.result.steps.iter().filter(|s| s.started.is_some()).collect();
    let height = LINE * (steps.len() as f64 + 1.0);
    let mut svg = format!("<svg viewBox=\"0 0 1000 {height}\" role=\"img\">\n");
    for (index, step) in steps.iter().enumerate() {
        let top = LINE * index as f64;
        let _ = writeln!(svg, "<text x=\"0\" y=\"{}\">{}</text>", top + 14.0, escape(&step.name));
        for span in spans(step, report.now) {
            let x = LEFT + WIDTH * span.from.since(begin).as_secs_f64() / whole;
            let width = (WIDTH * span.to.since(span.from).as_secs_f64() / whole).max(1.0);
            let class = match span.state {
                StepState::Starting => "starting",
                StepState::Ready => "ready",
                StepState::Stopping => "stopping",
                _ => "running",
            };
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"14\"><title>{} {class} {}</title></rect>",
                top + 3.0,
                escape(&step.name),
                duration(span.to.since(span.from))
            );
        }
    }
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"{}\">0</text>", height - 6.0);
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n</svg>",
        LEFT + WIDTH,
        height - 6.0,
        duration(end.since(begin))
    );
    svg
}

fn log(report: &Report, step: &super::StepResult, tail: Option<Vec<String>>) -> String {
    let open = if report.result.verdict.step.as_deref() == Some(&step.name) { " open" } else { "" };
    let body = match tail {
        Some(lines) if lines.is_empty() => "<p>The log is empty.</p>".to_owned(),
        Some(lines) => format!("<pre>{}</pre>", escape(&lines.join("\n"))),
        None => "<p>The log cannot be read, or the page is too long.</p>".to_owned(),
    };
    format!(
        "<details{open}>\n<summary>{}: last lines of {}</summary>\n{body}\n</details>\n",
        escape(&step.name),
        escape(&step.log)
    )
}

/// Text for an element or a quoted attribute, without control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => {}
            c => escaped.push(c),
        }
    }
    escaped
}
