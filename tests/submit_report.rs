// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg report` on a workspace, without any Slurm.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

/// Markup, quotes and controls, as a log or a name may have them.
const HOSTILE: &str = "<script>alert('\"&')</script>\u{1b}[31mred\u{1b}[0m";

fn report(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"));
    command.arg("report").args(arguments).output().unwrap()
}

/// The result of a run in which CTX_0 died, in a directory with its logs.
fn workspace(run_directory: &str) -> tempfile::TempDir {
    let workspace = tempfile::tempdir().unwrap();
    let step = |name: &str, purpose: &str, log: &str, moments: [Option<u64>; 4]| {
        let [started, running, stopped, ended] = moments;
        let role = name.trim_end_matches("_0");
        let stop = stopped.map(|_| json!({"signal": "TERM", "after_ms": 5_000}));
        json!({
            "name": name, "role": role, "purpose": purpose, "step_id": "7.0", "nodes": ["node1"], "tasks": 4, "tasks_per_node": 4,
            "log": log, "junit": null, "started": started, "running": running, "ready": null,
            "ended": ended, "exit": ended.map(|_| json!({"status": 42})), "stopped": stopped,
            "stop": stop, "last_output": null, "failure": null, "own_gpus": null, "ranks": running.map_or(json!([]), |_| json!([
                {"rank": 0, "node": "node1", "gpus": ["4", "5"], "cuda_visible_devices": "0,1"},
                {"rank": 1, "node": "node1", "gpus": ["4", "5"], "cuda_visible_devices": "0,1"}
            ]))
        })
    };
    let result = json!({
        "schema": 1,
        "run": {"id": "7.0", "job_id": 7, "restart": 0},
        "plan": {
            "sha256": "0", "test": "m.py::f[disagg_upload-c]", "config": HOSTILE,
            "config_sha256": "1", "mode": "e2e", "rules": "classic", "total_nodes": 2,
            "total_gpus": 8
        },
        "workspace": "/elsewhere", "nodes": ["node1", "node2"], "started": 1_000, "ended": 11_000,
        "phase": "done",
        "verdict": {
            "kind": "server_ended", "message": format!("CTX_0 ended {HOSTILE}"), "step": "CTX_0",
            "rank": 1, "node": "node1", "exit": {"status": 42}, "ran_ms": 4_000,
            "log_tail": ["one", HOSTILE], "noticed": 6_000, "stop_ms": 300
        },
        "steps": [
            step("CTX_0", "server", "ctx_server_0.log", [Some(1_000), Some(2_000), None, Some(6_000)]),
            step("GEN_0", "server", "gen_server_0.log", [Some(1_000), Some(3_500), Some(6_000), Some(11_000)]),
            step("BENCHMARK", "client", "benchmark.log", [None; 4]),
        ],
        "figures": [
            {"client": "aiperf", "file": "a/profile_export_aiperf.json", "concurrency": 4, "metrics": {
                "completed": 75.0, "failed": 325.0, "request_throughput": 4.26, "output_throughput": 68.1,
                "ttft_mean_ms": 81.0, "ttft_p50_ms": 80.5, "ttft_p99_ms": 99.25
            }},
            {"client": "aiperf", "file": "b/profile_export_aiperf.json", "concurrency": 16, "metrics": {
                "completed": 400.0, "failed": 0.0, "request_throughput": 1042.6, "latency_p99_ms": 0.0123
            }}
        ],
        "junit": {"tests": 5, "failures": 1, "errors": 3, "skipped": 0, "lost": ["CTX_0"]}
    });
    let directory = workspace.path().join(run_directory);
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("result.json"), result.to_string()).unwrap();
    let log = format!("loading\n{HOSTILE}\n");
    std::fs::write(workspace.path().join("ctx_server_0.log"), log).unwrap();
    workspace
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn people_get_the_verdict_the_steps_and_their_timeline() {
    let workspace = workspace("");
    let output = report(&[path(workspace.path())]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let text = text.replace(path(workspace.path()), "WORKSPACE");
    insta::assert_snapshot!(text, @r#"
    FAILED (server_ended): CTX_0 ended <script>alert('"&')</script>\u{1b}[31mred\u{1b}[0m
      test      m.py::f[disagg_upload-c]
      workspace WORKSPACE
      job       7, run 7.0, 2 nodes: node[1-2]
      started   1970-01-01 00:00:01 UTC
      time      10.0 s
      JUnit     5 tests, 1 failures, 3 errors, 0 skipped; no results of CTX_0

                             concurrency 4  concurrency 16
      requests completed                75             400
      requests failed                  325               0
      requests (req/s)                4.26            1043
      output tokens (tok/s)          68.10               -
      TTFT p50 (ms)                  80.50               -
      TTFT p99 (ms)                  99.25               -
      latency p99 (ms)                   -          0.0123

      step       state                                 starting  ran     tasks  nodes  GPUs
      CTX_0      died: exit status 42 on node1 rank 1  1.0 s     5.0 s   4      node1  4,5
      GEN_0      stopped                               2.5 s     10.0 s  4      node1  4,5
      BENCHMARK  not started                           -         -       4      node1

      CTX_0 |......-------------------------                             |
      GEN_0 |...............---------------xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx|
            |0                                                     10.0 s|
             . starting   - running   = ready   x stopping

    last lines of CTX_0:
      | one
      | <script>alert('"&')</script>red
    "#);
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn programs_get_the_result_as_it_is() {
    let workspace = workspace("");
    let output = report(&[path(workspace.path()), "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let there: serde_json::Value =
        serde_json::from_slice(&std::fs::read(workspace.path().join("result.json")).unwrap())
            .unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed, there);
}

#[test]
fn the_page_shows_hostile_text_and_runs_none_of_it() {
    let workspace = workspace("");
    let file = workspace.path().join("page.html");
    let output = report(&[path(workspace.path()), "--html", path(&file)]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0), "{output:?}");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(!page.contains("<script"), "{page}");
    assert!(!page.contains('\u{1b}'), "{page}");
    let log = "loading\n&lt;script&gt;alert(&#39;&quot;&amp;&#39;)&lt;/script&gt;red</pre>";
    assert!(page.contains(log), "{page}");
    // The log of the step that the verdict is about is open, and a missing one is said so.
    assert!(page.contains("<details open>\n<summary>CTX_0"), "{page}");
    assert!(page.contains("The log cannot be read"), "{page}");
    // The culprit is marked, and its victim is not.
    assert!(page.contains(
        "<tr class=\"culprit\"><th>CTX_0</th><td>died: exit status 42 on node1 rank 1</td>"
    ));
    assert!(page.contains("<tr class=\"\"><th>GEN_0</th><td>stopped</td>"), "{page}");
    let ranks =
        "<tr class=\"\"><th>CTX_0</th><td>0-1</td><td>node1</td><td>4,5</td><td>0,1</td></tr>";
    assert!(page.contains(ranks), "{page}");
    assert!(page.contains("<td>1970-01-01 00:00:11 UTC, after 10.0 s</td>"), "{page}");
    for legend in ["starting", "running", "ready", "stopping", "culprit"] {
        assert!(page.contains(&format!("<span><i class=\"{legend}\">")), "{legend}: {page}");
    }
    assert!(page.contains("default-src 'none'"), "{page}");
    for nothing_from_elsewhere in ["http:", "https:", "src=", "href="] {
        assert!(!page.contains(nothing_from_elsewhere), "{nothing_from_elsewhere}");
    }
}

#[test]
fn an_earlier_run_is_shown_with_its_own_logs() {
    let workspace = workspace("runs/7.0");
    let run = workspace.path().join("runs/7.0");
    std::fs::write(run.join("ctx_server_0.log"), "the earlier run\n").unwrap();
    let file = workspace.path().join("page.html");
    let output = report(&[path(&run), "--html", path(&file)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let page = std::fs::read_to_string(&file).unwrap();
    assert!(page.contains("<pre>the earlier run</pre>") && !page.contains("loading"), "{page}");
}

#[test]
fn a_workspace_without_a_result_is_bad_input() {
    let empty = tempfile::tempdir().unwrap();
    let output = report(&[path(empty.path())]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("result.json cannot be read"), "{text}");
}

/// Puts something in the place of a file.
type Trap = Box<dyn Fn(&Path)>;

/// What somebody else may have put there: outside is a secret.
fn traps(secret: &Path) -> Vec<(&'static str, Trap)> {
    let link_to = |target: &Path| -> Trap {
        let target = target.to_owned();
        Box::new(move |place| std::os::unix::fs::symlink(&target, place).unwrap())
    };
    vec![
        ("a link", link_to(secret)),
        ("a link to a directory", link_to(secret.parent().unwrap())),
        ("an endless device", link_to(Path::new("/dev/zero"))),
        ("a file of the process", link_to(Path::new("/proc/self/environ"))),
        ("a directory", Box::new(|place| std::fs::create_dir(place).unwrap())),
        (
            "a FIFO",
            Box::new(|place| {
                let made = Command::new("mkfifo").arg(place).status().unwrap();
                assert!(made.success());
            }),
        ),
    ]
}

fn limited_report(arguments: &[&str]) -> Output {
    // 1 GiB of memory and 10 seconds.
    let mut command = Command::new("timeout");
    command.args(["10", "prlimit", "--as=1073741824", env!("CARGO_BIN_EXE_slurm-disagg")]);
    command.arg("report").args(arguments).env("SECRET", "the secret").output().unwrap()
}

#[test]
fn no_file_outside_the_workspace_gets_into_the_page() {
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("id");
    std::fs::write(&secret, "the secret\n").unwrap();
    let shown = |workspace: &Path, log: &str, what: &str| {
        let result = workspace.join("result.json");
        let text = std::fs::read_to_string(&result).unwrap();
        let text = text.replace("\"log\":\"gen_server_0.log\"", &format!("\"log\":{}", json!(log)));
        std::fs::write(&result, text).unwrap();
        let file = workspace.join("page.html");
        let output = limited_report(&[path(workspace), "--html", path(&file)]);
        assert_eq!(output.status.code(), Some(0), "{what}: {output:?}");
        let page = std::fs::read_to_string(&file).unwrap();
        assert_eq!(page.matches("The log cannot be read").count(), 2, "{what}: {page}");
        assert!(page.contains("loading\n") && !page.contains("the secret"), "{what}: {page}");
    };
    for (what, put) in traps(&secret) {
        let workspace = workspace("");
        put(&workspace.path().join("gen_server_0.log"));
        shown(workspace.path(), "gen_server_0.log", what);
    }
    let up = format!("../{}/id", outside.path().file_name().unwrap().to_str().unwrap());
    for log in [path(&secret), &up, "..", "", "/", "/dev/stdin", "gen\0.log"] {
        shown(workspace("").path(), log, log);
    }
    // A directory with the name of the directory of runs does not widen what is read.
    let workspace = workspace("runs/7.0");
    std::fs::rename(
        workspace.path().join("ctx_server_0.log"),
        workspace.path().join("runs/7.0/ctx_server_0.log"),
    )
    .unwrap();
    std::fs::write(workspace.path().join("id"), "the secret\n").unwrap();
    shown(&workspace.path().join("runs/7.0"), "../../id", "above a run");
}

#[test]
fn only_the_end_of_an_endless_log_is_read() {
    let workspace = workspace("");
    let log = std::fs::File::create(workspace.path().join("ctx_server_0.log")).unwrap();
    log.set_len(10 << 30).unwrap();
    let file = workspace.path().join("page.html");
    let output = limited_report(&[path(workspace.path()), "--html", path(&file)]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(std::fs::metadata(&file).unwrap().len() < 1 << 20);
}

#[test]
fn a_result_that_is_no_regular_file_of_the_workspace_is_refused_in_time() {
    let outside = workspace("");
    let mut traps = traps(&outside.path().join("result.json"));
    traps.push((
        "a sparse file",
        Box::new(|place| std::fs::File::create(place).unwrap().set_len(10 << 30).unwrap()),
    ));
    for (what, put) in traps {
        let workspace = tempfile::tempdir().unwrap();
        put(&workspace.path().join("result.json"));
        let output = limited_report(&[path(workspace.path())]);
        assert_eq!(output.status.code(), Some(2), "{what}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("result.json"), "{what}: {text}");
    }
}

#[test]
fn a_narrow_terminal_gets_fewer_columns_and_a_list() {
    use disagg::run::report::{self, Report};
    let workspace = workspace("");
    let report = Report::read(workspace.path()).unwrap();
    let shown = |columns| {
        let text = report::body(&report, columns);
        let (_, tables) = text.split_once("\n  step").unwrap();
        let (tables, _) = tables.split_once("\nlast lines").unwrap();
        assert!(tables.lines().all(|line| line.chars().count() < columns), "{columns}: {text}");
        format!("  step{tables}")
    };
    insta::assert_snapshot!(shown(40), @r"
    step       state
    CTX_0      died: exit status 42 on n…
    GEN_0      stopped
    BENCHMARK  not started

    CTX_0
      starting     1.0 s
      running      4.0 s
    GEN_0
      starting     2.5 s
      running      2.5 s
      stopping     5.0 s
    ");
    insta::assert_snapshot!(shown(64), @r"
    step       state                                 ran
    CTX_0      died: exit status 42 on node1 rank 1  5.0 s
    GEN_0      stopped                               10.0 s
    BENCHMARK  not started                           -

    CTX_0 |.....----------------------                          |
    GEN_0 |.............-------------xxxxxxxxxxxxxxxxxxxxxxxxxxx|
          |0                                              10.0 s|
           . starting   - running   = ready   x stopping
    ");
    assert_eq!(shown(100), shown(200));
}
