// SPDX-License-Identifier: Apache-2.0
//! The report as one HTML page without scripts, other files or network access.

use std::fmt::Write;

use super::super::figures;
use super::super::result::{Moment, RankPlace, RunResult, VerdictKind};
use super::super::timeline::{StepState, date, describe, duration, is_culprit, spans};
use super::Report;
use super::text::{headline, steps};

/// The number of lines of each log on the page.
const TAIL: usize = 100;

/// The longest page that gets another log, in bytes.
const MAX_PAGE: usize = 32 << 20;

const STYLE: &str = "\
:root { color-scheme: light dark; --text: #1c1e21; --quiet: #68707a; --line: #d5d9de; --soft: #f3f5f7; --page: #fff;
 --good: #1f7a35; --wait: #8a6a00; --bad: #b3261e; --starting: #c9ced4; --running: #5b8fc9; --ready: #3f9a57; --stopping: #dfe3e7;
 --s0: #2f6db5; --s1: #c4572a; --s2: #3b8f54; --s3: #8a4fb0; --s4: #a07a00; --s5: #607080 }
@media (prefers-color-scheme: dark) { :root { --text: #e3e6ea; --quiet: #9aa3ad; --line: #3a4048; --soft: #22272d; --page: #15181c;
 --good: #5cc878; --wait: #d8b24a; --bad: #ff8078; --starting: #59616a; --running: #5b8fc9; --ready: #4caf6a; --stopping: #343a41;
 --s0: #6ea8ea; --s1: #f08a5d; --s2: #6cc588; --s3: #c08be0; --s4: #d8b24a; --s5: #9fb0c0 } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 0 auto; max-width: 72em; padding: 1em }
h1 { font-size: 1.25em; border-left: .35em solid; padding-left: .6em; overflow-wrap: anywhere }
h1.passed { border-color: var(--good) } h1.running { border-color: var(--wait) } h1.failed { border-color: var(--bad) }
h2 { font-size: 1.05em; margin: 1.6em 0 .4em }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .4em 0 } th, td { text-align: left; padding: .25em .8em .25em 0; border-bottom: 1px solid var(--line); white-space: nowrap }
th { font-weight: 600 } table.facts td { white-space: normal; overflow-wrap: anywhere } table.numbers td, table.numbers tr:first-child th + th { text-align: right; font-variant-numeric: tabular-nums }
tr.culprit { color: var(--bad); font-weight: 600 }
svg { width: 100%; height: auto; display: block } svg text { font: 11px ui-monospace, monospace; fill: var(--quiet) } svg text.name { fill: var(--text) }
svg.timeline { min-width: 44em } .culprit text.name { fill: var(--bad); font-weight: 700 } .culprit path { fill: var(--bad) } .grid { stroke: var(--line) }
.starting { fill: var(--starting); background: var(--starting) } .running { fill: var(--running); background: var(--running) }
.ready { fill: var(--ready); background: var(--ready) } .stopping { fill: var(--stopping); background: var(--stopping) } i.culprit { background: var(--bad) }
.legend { color: var(--quiet); font-size: .85em; margin: .4em 0 } .legend span { margin-right: 1.2em; white-space: nowrap }
.legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24em, 100%), 1fr)); gap: 1em } figure { margin: 0 } figcaption { font-weight: 600 }
.k0 { --c: var(--s0) } .k1 { --c: var(--s1) } .k2 { --c: var(--s2) } .k3 { --c: var(--s3) } .k4 { --c: var(--s4) } .k5 { --c: var(--s5) }
g circle { fill: var(--c) } g polyline { fill: none; stroke: var(--c); stroke-width: 1.5 } g line { stroke: var(--c) } .legend i[class^=k] { background: var(--c) }
pre { overflow-x: auto; background: var(--soft); padding: .6em; font-size: 12px } details { margin: .3em 0 } summary { cursor: pointer } .quiet { color: var(--quiet) }
";

/// A page of its own.
pub fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n",
        escape(title)
    )
}

/// The page of a run.
#[must_use]
pub fn page(report: &Report) -> String {
    let result = &report.result;
    let class = match result.verdict.kind {
        kind if kind.is_passed() => "passed",
        VerdictKind::Running => "running",
        _ => "failed",
    };
    let mut page = format!("<h1 class=\"{class}\">{}</h1>\n", escape(&headline(result)));
    page.push_str(&facts(report));
    if !result.figures.is_empty() {
        page.push_str("<h2>Figures</h2>\n");
        let rows = |all| table("numbers", &figures::table(&result.figures, all), |_| "");
        page.push_str(&rows(false));
        let (all, files) = (rows(true), figures::files(&result.figures));
        let _ = write!(
            page,
            "<details>\n<summary>All metrics, from {}</summary>\n{all}</details>\n",
            escape(&files)
        );
    }
    page.push_str("<h2>Timeline</h2>\n");
    page.push_str(&timeline(report));
    page.push_str("<h2>Steps</h2>\n");
    let class = |row: usize| {
        let step = row.checked_sub(1).and_then(|index| result.steps.get(index));
        if step.is_some_and(|step| is_culprit(result, step)) { "culprit" } else { "" }
    };
    page.push_str(&table("", &steps(report), class));
    let places = placement(result);
    if places.len() > 1 {
        let ranks = table("", &places, |_| "");
        let _ =
            write!(page, "<details>\n<summary>Placement of ranks</summary>\n{ranks}</details>\n");
    }
    page.push_str("<h2>Logs</h2>\n");
    for step in &result.steps {
        let tail = (page.len() < MAX_PAGE).then(|| report.tail(step, TAIL)).flatten();
        page.push_str(&log(report, step, tail));
    }
    document(&result.plan.config, &page)
}

/// Where the ranks of each step run; neighbours in the same place share a row.
fn placement(result: &RunResult) -> Vec<Vec<String>> {
    let head = ["step", "ranks", "node", "GPUs", "CUDA_VISIBLE_DEVICES"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for step in &result.steps {
        let place = |one: &RankPlace| {
            (one.node.clone(), one.gpus.clone(), one.cuda_visible_devices.clone())
        };
        let neighbours = |one: &RankPlace, next: &RankPlace| {
            place(one) == place(next) && next.rank.checked_sub(1) == Some(one.rank)
        };
        for ranks in step.ranks.chunk_by(neighbours) {
            let (first, last) = (&ranks[0], &ranks[ranks.len() - 1]);
            let numbers = match ranks.len() {
                1 => first.rank.to_string(),
                _ => format!("{}-{}", first.rank, last.rank),
            };
            let (node, gpus, cuda) = place(first);
            rows.push(vec![step.name.clone(), numbers, node, gpus.join(","), cuda]);
        }
    }
    rows
}

/// A table with a class for itself and one for each row; the first row is its heading.
pub fn table(
    class: &str,
    rows: &[Vec<String>],
    class_of_row: impl Fn(usize) -> &'static str,
) -> String {
    let mut table = format!("<div class=\"scroll\"><table class=\"{class}\">\n");
    for (index, row) in rows.iter().enumerate() {
        let _ = write!(table, "<tr class=\"{}\">", class_of_row(index));
        for (column, cell) in row.iter().enumerate() {
            let tag = if index == 0 || column == 0 { "th" } else { "td" };
            let _ = write!(table, "<{tag}>{}</{tag}>", escape(cell));
        }
        table.push_str("</tr>\n");
    }
    table + "</table></div>\n"
}

fn facts(report: &Report) -> String {
    let result: &RunResult = &report.result;
    let (begin, end) = report.range();
    let lasted = duration(end.since(begin));
    let ended = match report.result.ended {
        Some(ended) => format!("{}, after {lasted}", date(ended)),
        None => format!("not yet, after {lasted}"),
    };
    let mut rows = vec![
        ("Test", result.plan.test.clone()),
        ("Mode", format!("{}, {} rules", result.plan.mode, result.plan.rules)),
        ("Job", format!("{} (run {})", result.run.job_id, result.run.id)),
        ("Nodes", crate::slurm::hostlist::compress(&result.nodes)),
        ("Started", date(begin)),
        ("Ended", ended),
        ("Workspace", report.workspace.display().to_string()),
        (
            "Configuration",
            format!("{} (SHA-256 {})", result.plan.config, result.plan.config_sha256),
        ),
    ];
    if let Some(junit) = &result.junit {
        rows.push(("JUnit", junit.to_string()));
    }
    let mut table = String::from("<table class=\"facts\">\n");
    for (name, value) in rows {
        let _ = writeln!(table, "<tr><th>{name}</th><td>{}</td></tr>", escape(&value));
    }
    table + "</table>\n"
}

/// The timeline as SVG, with its legend; the title of each span is its duration.
fn timeline(report: &Report) -> String {
    const LEFT: f64 = 150.0;
    const WIDTH: f64 = 830.0;
    const LINE: f64 = 20.0;
    let (begin, end) = report.range();
    let whole = end.since(begin).as_secs_f64();
    let steps: Vec<_> = report.result.steps.iter().filter(|s| s.started.is_some()).collect();
    let (bottom, height) = (LINE * steps.len() as f64, LINE * (steps.len() as f64 + 1.0));
    let x = |at: Moment| LEFT + WIDTH * at.since(begin).as_secs_f64() / whole;
    let mut svg = format!(
        "<div class=\"scroll\"><svg class=\"timeline\" viewBox=\"0 0 1000 {height}\" role=\"img\">\n"
    );
    for part in 0..=4_u32 {
        let at = LEFT + WIDTH * f64::from(part) / 4.0;
        let anchor = ["start", "middle", "end"][(part.min(1) + part / 4) as usize];
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"{bottom}\"/>\
             <text x=\"{at}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            height - 6.0,
            duration(end.since(begin) * part / 4)
        );
    }
    for (index, step) in steps.iter().enumerate() {
        let top = LINE * index as f64;
        let is_culprit = is_culprit(&report.result, step);
        let _ = writeln!(
            svg,
            "<g class=\"{}\"><text class=\"name\" x=\"0\" y=\"{}\">{}</text>",
            if is_culprit { "culprit" } else { "" },
            top + 14.0,
            escape(&step.name)
        );
        for span in spans(step, report.now) {
            let (from, width) = (x(span.from), (x(span.to) - x(span.from)).max(1.0));
            let class = match span.state {
                StepState::Starting => "starting",
                StepState::Ready => "ready",
                StepState::Stopping => "stopping",
                _ => "running",
            };
            let _ = writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"14\"><title>{} {class} {}</title></rect>",
                top + 3.0,
                escape(&step.name),
                duration(span.to.since(span.from))
            );
        }
        if let Some(at) = report.result.verdict.noticed.filter(|_| is_culprit) {
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {} l6 8 l-6 8 l-6 -8 z\"><title>{}</title></path>",
                x(at),
                top + 2.0,
                escape(&describe(&report.result, step))
            );
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg></div>\n<p class=\"legend\">");
    let is_failed = steps.iter().any(|step| is_culprit(&report.result, step));
    let marks = ["starting", "running", "ready", "stopping"].into_iter();
    for mark in marks.chain(is_failed.then_some("culprit")) {
        let meaning = if mark == "culprit" { "what ended the run" } else { mark };
        let _ = write!(svg, "<span><i class=\"{mark}\"></i>{meaning}</span>");
    }
    svg + "</p>\n"
}

fn log(report: &Report, step: &super::StepResult, tail: Option<Vec<String>>) -> String {
    let open = if is_culprit(&report.result, step) { " open" } else { "" };
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
pub fn escape(text: &str) -> String {
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
