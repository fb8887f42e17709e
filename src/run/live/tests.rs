// SPDX-License-Identifier: Apache-2.0
//! What people see at 40, 80 and 200 columns.

use std::path::Path;
use std::time::Duration;

use super::super::progress::tests::{step, text, view};
use super::super::result::Verdict;
use super::*;
use crate::plan::Purpose;

fn terminal(columns: usize, lines: usize) -> Terminal {
    Terminal { columns, lines, has_colours: false }
}

fn shown(views: &[View], columns: usize) -> String {
    let lines = block(views, terminal(columns, 24), Moment(200_000));
    for line in &lines {
        assert!(width(line) < columns, "{columns}: {line}");
    }
    lines.join("\n")
}

/// A run with logs in a workspace.
fn a_run(workspace: &Path) -> View {
    let with = |name: &str, purpose, ready: Option<u64>| StepResult {
        purpose: Some(purpose),
        ready: ready.map(Moment),
        ..step(name, true, true)
    };
    let steps = vec![
        with("GEN_0", Purpose::Server, Some(64_000)),
        with("CTX_0", Purpose::Server, None),
        with("ROUTER", Purpose::Router, None),
        StepResult { purpose: Some(Purpose::Client), ..step("BENCHMARK", false, false) },
    ];
    let probe = "INFO: 10.0.0.1:5 - \"GET /health HTTP/1.1\" 503 Service Unavailable\n";
    for (name, text) in [
        ("GEN_0", format!("Uvicorn running on http://node1:8000 (Press CTRL+C to quit)\n{probe}")),
        ("CTX_0", format!("\u{1b}[32m加载模型权重\u{1b}[0m shard 3 of 8\n=====\n{probe}")),
        ("BENCHMARK", "  5%|▌    | 1/20\r 45%|████▌     | 9/20 [00:01<00:01,  8.2it/s]".to_owned()),
    ] {
        std::fs::write(workspace.join(format!("{name}.log")), text).unwrap();
    }
    let mut view = view(steps);
    view.job.workspace = Some(workspace.to_owned());
    view.limit = Some(Instant::now() + Duration::from_millis(453_500));
    view.result.as_mut().unwrap().phase = Phase::Ready;
    view
}

#[test]
fn servers_that_get_ready_fit_any_width() {
    let directory = tempfile::tempdir().unwrap();
    let views = [a_run(directory.path())];
    insta::assert_snapshot!(shown(&views, 40), @r#"
    job 7: RUNNING  3:20  7:33 left
      1 of 3 ready
      GEN_0      ready           3:19
      CTX_0      running         3:19
      ROUTER     running         3:19
      BENCHMARK  not started
    "#);
    insta::assert_snapshot!(shown(&views, 80), @r"
    job 7: RUNNING  3:20  7:33 left
      1 of 3 ready
      GEN_0      ready           3:19  Uvicorn running on http://node1:8000 (Press…
      CTX_0      running         3:19  加载模型权重 shard 3 of 8
      ROUTER     running         3:19
      BENCHMARK  not started            45%|████▌     | 9/20 [00:01<00:01,  8.2it/…
    ");
    insta::assert_snapshot!(shown(&views, 200), @r"
    job 7: RUNNING  3:20  7:33 left
      1 of 3 ready
      GEN_0      ready           3:19  node[1-2]  Uvicorn running on http://node1:8000 (Press CTRL+C to quit)
      CTX_0      running         3:19  node[1-2]  加载模型权重 shard 3 of 8
      ROUTER     running         3:19  node[1-2]
      BENCHMARK  not started           node[1-2]   45%|████▌     | 9/20 [00:01<00:01,  8.2it/s]
    ");
    for columns in 0..300 {
        let lines = block(&views, terminal(columns, 24), Moment(200_000));
        assert!(lines.iter().all(|line| width(line) <= columns.saturating_sub(1)), "{columns}");
    }
}

#[test]
fn a_benchmark_shows_how_far_it_is_and_a_verdict_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let mut view = a_run(directory.path());
    let result = view.result.as_mut().unwrap();
    result.phase = Phase::Benchmark;
    result.steps[3] =
        StepResult { purpose: Some(Purpose::Client), ..step("BENCHMARK", true, true) };
    let line =
        |view: &View| painted(&phase_line(view, view.result.as_ref().unwrap()).unwrap(), 80, true);
    assert_eq!(line(&view), "   45 % [#############-----------------]");
    view.result.as_mut().unwrap().verdict = Verdict::new(VerdictKind::ServerEnded, "GEN_0 ended");
    assert_eq!(line(&view), "\u{1b}[1m\u{1b}[31m  GEN_0 ended\u{1b}[0m");
    for (text, expected) in [
        ("100%|█| 20/20", Some(100)),
        ("a 7%|x 9%|y", Some(9)),
        ("加载45%|", Some(45)),
        ("50% of memory", None),
        ("101%|", None),
        ("%|", None),
    ] {
        assert_eq!(percent(text), expected, "{text}");
    }
}

#[test]
fn each_colour_has_one_meaning() {
    let directory = tempfile::tempdir().unwrap();
    let mut view = a_run(directory.path());
    view.job.workspace = None;
    let result = view.result.as_mut().unwrap();
    result.verdict = Verdict::new(VerdictKind::ServerEnded, "CTX_0 ended");
    result.verdict.step = Some("CTX_0".to_owned());
    let colours = Terminal { has_colours: true, ..terminal(60, 24) };
    let text = block(&[view], colours, Moment(200_000)).join("\n").replace('\u{1b}', "^");
    insta::assert_snapshot!(text, @r#"
    job 7: RUNNING^[2m  3:20  7:33 left^[0m
    ^[1m^[31m  CTX_0 ended^[0m
      GEN_0      ^[32mready      ^[0m^[2m     3:19^[0m
      CTX_0      ^[1m^[31mrunning    ^[0m^[2m     3:19^[0m
      ROUTER     running    ^[2m     3:19^[0m
      BENCHMARK  ^[2mnot started^[0m
    "#);
}

#[test]
fn each_block_replaces_the_last() {
    let mut live = Live::new(Vec::new(), || terminal(30, 24));
    let view = view(vec![step("GEN_0", true, true)]);
    live.show(std::slice::from_ref(&view)).unwrap();
    let first = text(&live.out);
    assert_eq!(first.lines().count(), 3, "{first}");
    live.show(std::slice::from_ref(&view)).unwrap();
    assert!(text(&live.out)[first.len()..].starts_with("\u{1b}[3A\r\u{1b}[J"));
}

#[test]
fn steps_that_do_not_fit_a_terminal_are_counted_by_role() {
    let mut steps: Vec<_> = (0..32).map(|n| step(&format!("GEN_{n}"), true, n > 1)).collect();
    steps.push(step("BENCHMARK", false, false));
    let lines = block(&[view(steps)], terminal(80, 10), Moment(200_000));
    let painted = lines.join("\n");
    assert!(painted.contains("GEN         32: 2 starting, 30 running"), "{painted}");
    assert!(painted.contains("BENCHMARK    1: 1 not started"), "{painted}");
    assert!(lines.len() < 10, "{painted}");
}

#[test]
fn a_log_cannot_control_the_terminal() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("GEN_0.log"), "first\n\u{1b}[2Jlast\n\n").unwrap();
    let mut view = view(vec![step("GEN_0", true, true)]);
    view.job.workspace = Some(directory.path().to_owned());
    let painted = shown(&[view], 200);
    assert!(painted.ends_with("last") && !painted.contains('\u{1b}'), "{painted}");
}

#[test]
fn many_jobs_have_a_line_each_and_those_that_ended_give_way() {
    use crate::run::figures::Measurement;
    use crate::run::outcome::Outcome;
    let views: Vec<View> = (0..9)
        .map(|number| {
            let server = Some(Purpose::Server);
            let mut view =
                view(vec![StepResult { purpose: server, ..step("GEN_0", true, number > 0) }]);
            view.job.job_id = 10 + number;
            view.job.title = format!("disagg_upload-{number}_a_long_name");
            view.outcome = match number {
                1..4 => Some((Outcome::Failed, String::new())),
                4..6 => Some((Outcome::Passed, String::new())),
                _ => None,
            };
            let mut measured = Measurement::default();
            measured.metrics.insert("output_throughput".into(), 1234.5);
            let is_passed = view.outcome.as_ref().is_some_and(|(outcome, _)| outcome.is_good());
            view.result.as_mut().unwrap().figures.extend(is_passed.then_some(measured));
            view
        })
        .collect();
    insta::assert_snapshot!(shown(&views, 80), @r#"
    disagg_upload-0_a_long_name  job 10: RUNNING  3:20  0 of 1 running
    disagg_upload-1_a_long_name  job 11: failed
    disagg_upload-2_a_long_name  job 12: failed
    disagg_upload-3_a_long_name  job 13: failed
    disagg_upload-4_a_long_name  job 14: passed  1234 output tok/s
    disagg_upload-5_a_long_name  job 15: passed  1234 output tok/s
    disagg_upload-6_a_long_name  job 16: RUNNING  3:20  1 of 1 running
    disagg_upload-7_a_long_name  job 17: RUNNING  3:20  1 of 1 running
    disagg_upload-8_a_long_name  job 18: RUNNING  3:20  1 of 1 running
    "#);
    let few = block(&views, terminal(40, 6), Moment(200_000));
    insta::assert_snapshot!(few.join("\n"), @r#"
    disagg_upload-0_a_…  job 10: RUNNING  …
    disagg_upload-6_a_…  job 16: RUNNING  …
    disagg_upload-7_a_…  job 17: RUNNING  …
    disagg_upload-8_a_…  job 18: RUNNING  …
    and 5 more; 5 of 9 have ended
    "#);
}
