// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg compare` and `report --history`, without any Slurm.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disagg::plan::Plan;
use disagg::run::result::PlanSummary;
use serde_json::{Value, json};

/// A directory with workspaces of runs.
struct Runs(tempfile::TempDir);

impl Runs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A workspace with the plan of a configuration, written by the command itself.
    fn plan(&self, name: &str, gen_size: u32) -> PathBuf {
        let config = format!(
            "hardware: {{gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}}\n\
             benchmark: {{mode: e2e, concurrency_list: '4 16'}}\n\
             worker_config: {{gen: {{tensor_parallel_size: {gen_size}}}, ctx: {{tensor_parallel_size: 4}}}}\n"
        );
        let file = self.path().join("c.yaml");
        fs::write(&file, config).unwrap();
        fs::write(self.path().join("site.yaml"), "").unwrap();
        let output = self.run(&[
            "submit",
            "./c.yaml",
            "--dry-run",
            "--no-preflight",
            "--trtllm-dir=/d",
            "--models-dir=/m",
            "--site=site.yaml",
            "--workspace",
            name,
        ]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        self.path().join(name)
    }

    /// The result of a run in a workspace: measurements as concurrency, and values by metric.
    fn result(&self, name: &str, job: u32, verdict: &str, figures: &[(u64, Value)]) {
        let workspace = self.path().join(name);
        let plan = fs::read_to_string(workspace.join("plan.json")).ok();
        let summary = plan.map(|plan| PlanSummary::new(&Plan::from_json(&plan).unwrap()).unwrap());
        let figure = |(concurrency, metrics): &(u64, Value)| json!({"client": "aiperf", "file": "a.json", "concurrency": concurrency, "metrics": metrics});
        let figures: Vec<_> = figures.iter().map(figure).collect();
        let result = json!({
            "schema": 1,
            "run": {"id": format!("{job}.0"), "job_id": job, "restart": 0},
            "plan": summary.unwrap_or_default(),
            "workspace": "/w", "nodes": ["n1"], "started": 1_795_666_743_000_u64 + u64::from(job) * 86_400_000,
            "ended": 1_795_666_800_000_u64 + u64::from(job) * 86_400_000, "phase": "done",
            "verdict": {"kind": verdict, "message": "the message", "log_tail": []},
            "steps": [], "figures": figures, "junit": null
        });
        let run = workspace.join(format!("runs/{job}.0"));
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("result.json"), result.to_string()).unwrap();
        let link = workspace.join("result.json");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(run.join("result.json"), link).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"));
        command.args(arguments).current_dir(self.path()).output().unwrap()
    }

    fn prints(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Two runs of a configuration, and two of a larger one that is faster and waits longer.
fn runs() -> Runs {
    let runs = Runs::new();
    let figures = |rate: f64, ttft: f64| {
        [(
            4,
            json!({"completed": 40.0, "failed": 0.0, "output_throughput": rate, "ttft_p99_ms": ttft}),
        )]
    };
    for (name, size, job, rate, ttft) in [
        ("a1", 4, 1, 100.0, 50.0),
        ("a2", 4, 2, 104.0, 52.0),
        ("b1", 8, 3, 150.0, 51.0),
        ("b2", 8, 4, 160.0, 70.0),
    ] {
        runs.plan(name, size);
        runs.result(name, job, "passed", &figures(rate, ttft));
    }
    runs
}

#[test]
fn sides_are_shown_with_their_differences_ratios_and_noise() {
    let runs = runs();
    insta::assert_snapshot!(runs.prints(&["compare", "a1", "b1/runs/3.0"]), @r"
    A  a1 (1.0 passed)
    B  b1/runs/3.0 (3.0 passed)

    --- A
    +++ B

    test
      ~ configuration's SHA-256: bb62efa74a231795da0710ec41e15464bb6166c4aca6e2e02886fd5488f5e28b → 8ea2955491e24258b33fed792f767150e67e96d6606cc21fa90f565c722d9e16

    layout
      ~ gpus_per_gen_server: 4 → 8
      ~ nodes_per_gen_server: 1 → 2
      ~ total_gpus: 8 → 12
      ~ total_nodes: 2 → 3

    Slurm request
      ~ --nodes: 2 → 3
      ~ --ntasks: 8 → 12
      ~ GEN: step --nodes: 1 → 2
      ~ GEN: step --ntasks: 4 → 8

      concurrency 4            A    B    B/A
      requests completed      40   40  1.000
      requests failed          0    0      -
      output tokens (tok/s)  100  150  1.500  better
      TTFT p99 (ms)           50   51  1.020  worse
    ");
    insta::assert_snapshot!(runs.prints(&["compare", "--format=markdown", "--metric=output_throughput", "--metric=ttft_p99_ms", "a1", "a2", "--", "b1", "b2"]), @r"
    - **A**: a1 (1.0 passed), a2 (2.0 passed)
    - **B**: b1 (3.0 passed), b2 (4.0 passed)

    <details><summary>Configuration</summary>

    ```
    --- A
    +++ B

    test
      ~ configuration's SHA-256: bb62efa74a231795da0710ec41e15464bb6166c4aca6e2e02886fd5488f5e28b → 8ea2955491e24258b33fed792f767150e67e96d6606cc21fa90f565c722d9e16

    layout
      ~ gpus_per_gen_server: 4 → 8
      ~ nodes_per_gen_server: 1 → 2
      ~ total_gpus: 8 → 12
      ~ total_nodes: 2 → 3

    Slurm request
      ~ --nodes: 2 → 3
      ~ --ntasks: 8 → 12
      ~ GEN: step --nodes: 1 → 2
      ~ GEN: step --ntasks: 4 → 8
    ```

    </details>

    | concurrency 4 | A | B | B/A |  |
    |---|---:|---:|---:|---:|
    | output tokens (tok/s) | 102 ±2.0% | 155 ±3.2% | 1.520 | better |
    | TTFT p99 (ms) | 51 ±2.0% | 60.50 ±15.7% | 1.186 | ~ |
    ");
    insta::assert_snapshot!(runs.prints(&["compare", "--format=csv", "a1", "a2", "--", "b1/result.json", "b2"]), @r"
    concurrency,measurement,metric,unit,better,side,runs,mean,min,max,ratio
    4,1,completed,,neither,A,2,40,40,40,1
    4,1,completed,,neither,B,2,40,40,40,1
    4,1,failed,,lower,A,2,0,0,0,
    4,1,failed,,lower,B,2,0,0,0,
    4,1,output_throughput,tok/s,higher,A,2,102,100,104,1
    4,1,output_throughput,tok/s,higher,B,2,155,150,160,1.5196078431372548
    4,1,ttft_p99_ms,ms,lower,A,2,51,50,52,1
    4,1,ttft_p99_ms,ms,lower,B,2,60.5,51,70,1.1862745098039216
    ");
    let json: Value =
        serde_json::from_str(&runs.prints(&["compare", "--format=json", "a1", "b1", "b2"]))
            .unwrap();
    assert_eq!(json["sides"][2]["runs"][0]["run"], "4.0");
    assert_eq!(json["figures"][2]["ratios"], json!([1.0, 1.5, 1.6]));
    assert!(
        json["changes"][0].as_array().unwrap().iter().any(|change| change["name"] == "total_nodes")
    );
}

#[test]
fn a_regression_ends_the_command_with_status_1_and_is_named() {
    let runs = runs();
    runs.plan("failed", 4);
    runs.result("failed", 9, "requests_failed", &[]);
    runs.plan("none", 4);
    runs.result("none", 10, "passed", &[]);
    for (arguments, expected) in [
        (&["a1", "a2", "--fail-below=4%"][..], ""),
        (
            &["a1", "a2", "--fail-below", "3.9"],
            "B: TTFT p99 (ms) at concurrency 4 is 4.0% worse: 50 → 52",
        ),
        // Faster is no regression, and the mean of several runs counts.
        (&["--fail-below=5%", "--metric=output_throughput", "a1", "a2", "--", "b1", "b2"], ""),
        (
            &["--fail-below=5%", "a1", "a2", "--", "b1", "b2"],
            "B: TTFT p99 (ms) at concurrency 4 is 18.6% worse: 51 ±2.0% → 60.50 ±15.7%",
        ),
        (
            &["b1", "a1", "--fail-below=10%", "--metric=output_throughput"],
            "B: output tokens (tok/s) at concurrency 4 is 33.3% worse: 150 → 100",
        ),
        (
            &["a1", "failed", "--fail-below=5%", "--metric=failed"],
            "B: failed has not passed: the message",
        ),
        (
            &["a1", "none", "--fail-below=5%", "--metric=ttft_p99_ms"],
            "B: TTFT p99 (ms) at concurrency 4 is missing",
        ),
        (&["none", "a1", "--fail-below=5%"], "A: has no figures to compare with"),
        // Without the option, a comparison is no test.
        (&["a1", "failed"], ""),
    ] {
        let output = runs.run(&[&["compare"], arguments].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        let code = if expected.is_empty() { 0 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        let first = stderr.lines().next().unwrap_or_default();
        assert_eq!(first.trim_start_matches("slurm-disagg: "), expected, "{arguments:?}");
    }
    for (arguments, expected) in [
        (&["a1"][..], "compare needs at least two runs"),
        (&["a1", "/nonexistent"], "/nonexistent: result.json cannot be read"),
        (&["a1", "c.yaml"], "c.yaml: result.json is not the result of a run"),
        (&["a1", "a2", "--metric=speed"], "there is no metric speed"),
        (&["a1", "a2", "--fail-below=x"], "invalid percentage"),
    ] {
        let output = runs.run(&[&["compare"], arguments].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
    }
}

#[test]
fn the_history_of_a_directory_lists_its_runs_newest_first() {
    let runs = runs();
    runs.result("a1", 5, "server_ended", &[]);
    // A file of a client, and a result that is not for this version.
    fs::write(runs.path().join("a1/runs/1.0/other.json"), "{}").unwrap();
    fs::create_dir(runs.path().join("out")).unwrap();
    fs::write(runs.path().join("out/result.json"), r#"{"completed": 3}"#).unwrap();
    insta::assert_snapshot!(runs.prints(&["report", "--history", "."]), @r"
    started (UTC)        run            verdict       configuration    took  conc.  completed  failed  tok/s  TTFT p99 ms
    2026-12-01 04:19:03  ./a1/runs/5.0  server_ended  c              57.0 s      -          -       -      -            -
    2026-11-30 04:19:03  ./b2/runs/4.0  passed        c              57.0 s      4         40       0    160           70
    2026-11-29 04:19:03  ./b1/runs/3.0  passed        c              57.0 s      4         40       0    150           51
    2026-11-28 04:19:03  ./a2/runs/2.0  passed        c              57.0 s      4         40       0    104           52
    2026-11-27 04:19:03  ./a1/runs/1.0  passed        c              57.0 s      4         40       0    100           50
    ");
    let json: Value =
        serde_json::from_str(&runs.prints(&["report", "--history", ".", "--format=json"])).unwrap();
    let ids: Vec<_> =
        json["runs"].as_array().unwrap().iter().map(|run| &run["run"]["id"]).collect();
    assert_eq!(ids, ["5.0", "4.0", "3.0", "2.0", "1.0"]);
    assert_eq!(runs.prints(&["report", "--history", "out"]), "no runs\n");
    let output = runs.run(&["report", "--history", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn pages_have_a_chart_for_each_metric_and_need_nothing_else() {
    let runs = runs();
    runs.prints(&["compare", "a1", "a2", "--html=page.html", "--", "b1", "b2"]);
    let page = fs::read_to_string(runs.path().join("page.html")).unwrap();
    assert_eq!(page.matches("<figure>").count(), 3, "{page}");
    // Two sides, each with a point and the range of its runs.
    let chart = page.split("<figure>").find(|part| part.contains("TTFT p99")).unwrap();
    assert_eq!(chart.matches("<circle").count(), 2, "{chart}");
    assert!(chart.contains("<title>B, concurrency 4: 60.50 ±15.7%</title>"), "{chart}");
    runs.prints(&["report", "--history", ".", "--html=history.html"]);
    let history = fs::read_to_string(runs.path().join("history.html")).unwrap();
    let chart = history.split("<figure>").find(|part| part.contains("TTFT p99")).unwrap();
    assert_eq!(chart.matches("<circle").count(), 4, "{chart}");
    for page in [page, history] {
        for foreign in ["<script", "http:", "https:", "src=", "href=", "NaN", "inf"] {
            assert!(!page.contains(foreign), "{foreign}: {page}");
        }
    }
}
