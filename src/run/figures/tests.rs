// SPDX-License-Identifier: Apache-2.0
//! The readers on files of the clients' shapes, and which files of a workspace are of this run.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::input::Context;
use crate::input::request::{self, Options};

/// What aiperf 0.13 writes of a run in which 325 of 400 requests failed.
const AIPERF: &str = r#"{
  "aiperf_version": "0.13.0", "is_complete": true, "was_cancelled": false,
  "request_count": {"unit": "requests", "avg": 75.0},
  "error_request_count": {"unit": "requests", "avg": 325.0},
  "completed_request_count": {"unit": "requests", "avg": 400.0},
  "request_throughput": {"unit": "requests/sec", "avg": 4.25},
  "output_token_throughput": {"unit": "tokens/sec", "avg": 68.0},
  "benchmark_duration": {"unit": "sec", "avg": 17.6},
  "time_to_first_token": {"unit": "ms", "avg": 81.0, "p1": 70.0, "p50": 80.5, "p90": 90.0, "p95": 95.0, "p99": 99.0, "std": 3.0},
  "inter_token_latency": {"unit": "us", "avg": 6250.0, "p50": 6000.0, "p99": 9000.0},
  "request_latency": {"unit": "ms", "avg": 181.0, "p50": 180.0, "p99": 250.0},
  "error_summary": [{"error_details": {"code": 503, "type": "Http", "message": "\"failed\": 1"}, "count": 325}],
  "input_config": {"loadgen": {"concurrency": 2, "request_count": 400}}
}"#;

/// What `vllm bench serve` writes, as Python does, after a run in which nothing was completed.
const VLLM: &str = r#"{"date": "20261126-041900", "backend": "openai", "model_id": "tiny, NaN",
  "num_prompts": 20, "request_rate": "inf", "burstiness": 1.0, "max_concurrency": 4, "duration": 2.5,
  "completed": 0, "failed": 20, "request_throughput": 0.0, "output_throughput": 0.0,
  "total_token_throughput": 0.0, "mean_ttft_ms": NaN, "p99_ttft_ms": -Infinity, "median_itl_ms": 0.0,
  "ttfts": [0.0, 0.0], "itls": [[], [NaN]], "errors": ["", "refused"]}"#;

const SGLANG: &str = r#"{"backend": "sglang-oai", "dataset_name": "random", "request_rate": Infinity, "max_concurrency": null, "duration": 9.5, "completed": 30, "total_output_tokens": 480, "request_throughput": 3.1, "input_throughput": 99.0, "output_throughput": 50.5, "total_throughput": 149.5, "mean_e2e_latency_ms": 410.0, "median_e2e_latency_ms": 400.0, "p99_e2e_latency_ms": 700.0, "median_ttft_ms": 25.0, "p99_ttft_ms": 60.0, "median_itl_ms": 6.5, "p95_itl_ms": 8.0, "p99_itl_ms": 9.0, "concurrency": 7.9}
"#;

const SA_BENCH: &str = r#"{"num_prompts": 160, "max_concurrency": 16, "completed": 158,
  "request_throughput": 10.5, "output_throughput": 5000.0, "median_tpot_ms": 12.5, "p99_e2el_ms": 9000.0}"#;

const CSV: &str = "test,num_prompts,max_concurrency,completed,failed,request_throughput,output_throughput,median_ttft_ms\n\
                   \"f[a,b]\",8,4,8,0,11.5,184.0,3.25\n";

/// What pytest-csv writes: no figures.
const PYTEST_CSV: &str = "id,module,name,file,doc,markers,status,message,duration\n\
                          a.py::t,a,t,a.py,,,passed,,12.5\n";

/// What benchmark_serving prints for two clients, one after the other.
const PRINTED: &str = "\
Namespace(backend='openai', num_prompts=10, max_concurrency=1)
Maximum request concurrency: 1
\r 50%|#####     | 5/10 [00:01<00:01]\r100%|##########| 10/10
============ Serving Benchmark Result ============
Successful requests:                     10
Maximum request concurrency:             1
Benchmark duration (s):                  20.50
Request throughput (req/s):              0.49
Output token throughput (tok/s):         500.25
User throughput (tok/s):                 61.5
Median TTFT (ms):                        101.50
P99 E2EL (ms):                           2500.00
==================================================
Namespace(backend='openai', num_prompts=40, max_concurrency=4)
Maximum request concurrency: 4
Successful requests:                     36
Request throughput (req/s):              1.75
";

/// The figures in a workspace with these files.
fn found(files: &[(&str, &str)]) -> Figures {
    let workspace = Workspace::new();
    files.iter().for_each(|(name, text)| workspace.write(name, text));
    workspace.search(None).read(&Stamps::default())
}

struct Workspace(tempfile::TempDir);

impl Workspace {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn search(&self, run: Option<&str>) -> Search {
        let inputs = tempfile::tempdir().unwrap();
        let config = inputs.path().join("c.yaml");
        let text = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n\
                    worker_config: {gen: {tensor_parallel_size: 4}, ctx: {tensor_parallel_size: 4}}\n";
        fs::write(&config, text).unwrap();
        fs::write(inputs.path().join("site.yaml"), "").unwrap();
        let options = Options {
            config: config.to_str().unwrap().to_owned(),
            trtllm_dir: Some("/d".into()),
            models_dir: Some("/m".into()),
            workspace: Some(self.path().to_str().unwrap().to_owned()),
            site: Some(inputs.path().join("site.yaml")),
            ..Options::default()
        };
        let context = Context { env: &|_| None, current_dir: "/".into() };
        Search::new(&request::plan(&options, &context).unwrap().0, run)
    }
}

/// The figures as text: what each client's file says, and what is wrong with it.
fn described(figures: &Figures) -> String {
    let mut text = String::new();
    for one in &figures.measurements {
        let concurrency = one.concurrency.map_or("-".to_owned(), |number| number.to_string());
        text += &format!("{} {} concurrency {concurrency}", one.client, one.file);
        for metric in METRICS {
            if let Some(value) = one.get(metric.name) {
                text += &format!(" {}={}", metric.name, shown(value));
            }
        }
        text += "\n";
    }
    for problem in &figures.problems {
        text += &format!("problem: {problem}\n");
    }
    match figures.fault(0.0) {
        Some(fault) => text + &format!("fault: {fault}\n"),
        None => text,
    }
}

#[test]
fn what_is_older_than_the_run_s_beginning_is_of_an_earlier_run() {
    let workspace = Workspace::new();
    workspace.write("old/result.json", VLLM);
    workspace.write("new/result.json", VLLM);
    let files = |search: Search| {
        let found = search.read(&Stamps::default()).measurements.into_iter();
        found.map(|one| one.file).collect::<Vec<_>>()
    };
    let search = || workspace.search(None).since("started");
    assert_eq!(files(search()), ["new/result.json", "old/result.json"], "it was never begun");
    workspace.write("started", "");
    let at = |name: &str, seconds| {
        let file = fs::File::options().write(true).open(workspace.path().join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    for (name, seconds) in [("old/result.json", 1), ("started", 2), ("new/result.json", 2)] {
        at(name, seconds);
    }
    assert_eq!(files(search()), ["new/result.json"]);
}

#[test]
fn every_clients_files_are_read_by_its_table() {
    let files: &[&[(&str, &str)]] = &[
        &[("artifacts/a/profile_export_aiperf.json", AIPERF)],
        &[("artifacts/a/profile_export_aiperf.json", "{\"error_summary\": []}")],
        &[("artifacts/a/profile_export_aiperf.json", &AIPERF[..500])],
        &[("out/result.json", VLLM)],
        &[
            ("out/bench.jsonl", SGLANG),
            ("benchmark.log", "Namespace(num_prompts=32)\nSuccessful requests: 30\n"),
        ],
        &[("sa-bench_isl_1024_osl_1024/results_concurrency_16_gpus_8.json", SA_BENCH)],
        &[("report.csv", CSV)],
        &[
            ("report.csv", PYTEST_CSV),
            ("disagg_upload-c/trtllm-benchmark.0.0.log", PRINTED),
            ("benchmark.log", PRINTED),
        ],
        // Files of others.
        &[
            ("plan.json", "{\"layout\": {\"total_nodes\": 1}}"),
            ("x.json", "[1]"),
            ("y.json", "{"),
            ("z.jsonl", "no\n"),
        ],
    ];
    let text: Vec<_> = files.iter().map(|files| described(&found(files))).collect();
    insta::assert_snapshot!(text.join("--\n"), @r"
    aiperf artifacts/a/profile_export_aiperf.json concurrency 2 completed=75 failed=325 duration_s=17.60 request_throughput=4.25 output_throughput=68 ttft_mean_ms=81 ttft_p50_ms=80.50 ttft_p90_ms=90 ttft_p95_ms=95 ttft_p99_ms=99 itl_mean_ms=6.25 itl_p50_ms=6 itl_p99_ms=9 latency_mean_ms=181 latency_p50_ms=180 latency_p99_ms=250
    fault: 325 of 400 requests failed (81.25%, --max-failed allows 0%) at concurrency 2 (artifacts/a/profile_export_aiperf.json)
    --
    aiperf artifacts/a/profile_export_aiperf.json concurrency - completed=0
    fault: no request was completed (artifacts/a/profile_export_aiperf.json)
    --
    problem: artifacts/a/profile_export_aiperf.json cannot be read: EOF while parsing an object at line 9 column 60
    fault: artifacts/a/profile_export_aiperf.json cannot be read: EOF while parsing an object at line 9 column 60
    --
    benchmark_serving out/result.json concurrency 4 completed=0 failed=20 duration_s=2.50 request_throughput=0 output_throughput=0 total_throughput=0 itl_p50_ms=0
    fault: none of 20 requests was completed at concurrency 4 (out/result.json)
    --
    bench_serving out/bench.jsonl concurrency - completed=30 failed=2 duration_s=9.50 request_throughput=3.10 output_throughput=50.50 total_throughput=149.5 ttft_p50_ms=25 ttft_p99_ms=60 itl_p50_ms=6.50 itl_p95_ms=8 itl_p99_ms=9 latency_mean_ms=410 latency_p50_ms=400 latency_p99_ms=700
    fault: 2 of 32 requests failed (6.25%, --max-failed allows 0%) (out/bench.jsonl)
    --
    sa-bench sa-bench_isl_1024_osl_1024/results_concurrency_16_gpus_8.json concurrency 16 completed=158 failed=2 request_throughput=10.50 output_throughput=5000 tpot_p50_ms=12.50 latency_p99_ms=9000
    fault: 2 of 160 requests failed (1.25%, --max-failed allows 0%) at concurrency 16 (sa-bench_isl_1024_osl_1024/results_concurrency_16_gpus_8.json)
    --
    pytest report.csv concurrency 4 completed=8 failed=0 request_throughput=11.50 output_throughput=184 ttft_p50_ms=3.25
    --
    benchmark_serving disagg_upload-c/trtllm-benchmark.0.0.log concurrency 1 completed=10 failed=0 duration_s=20.50 request_throughput=0.49 output_throughput=500.2 user_throughput=61.50 ttft_p50_ms=101.5 latency_p99_ms=2500
    benchmark_serving disagg_upload-c/trtllm-benchmark.0.0.log concurrency 4 completed=36 failed=4 request_throughput=1.75
    fault: 4 of 40 requests failed (10%, --max-failed allows 0%) at concurrency 4 (disagg_upload-c/trtllm-benchmark.0.0.log)
    --
    ");
}

#[test]
fn only_what_came_during_the_run_counts() {
    let workspace = Workspace::new();
    let (old, log) = ("out/old.json", "disagg_upload-c/trtllm-benchmark.0.0.log");
    workspace.write(old, VLLM);
    workspace.write("runs/6.0/report.csv", CSV);
    workspace.write("bench.jsonl", SGLANG);
    workspace.write(log, PRINTED);
    let search = workspace.search(Some("7.0"));
    let before = search.stamps().unwrap();
    let json = serde_json::to_string(&before).unwrap();
    let before: Stamps = serde_json::from_str(&json).unwrap();
    let count = || search.read(&before).measurements.len();
    assert_eq!(count(), 0);
    // Appended to: the new lines alone count.
    let second = SGLANG.replace("\"completed\": 30", "\"completed\": 31");
    workspace.write("bench.jsonl", &format!("{SGLANG}{second}"));
    let lines = search.read(&before).measurements;
    assert_eq!(lines.iter().map(|one| one.get("completed")).collect::<Vec<_>>(), [Some(31.0)]);
    // Written anew in the same file, and longer than before: all of it counts.
    workspace.write(log, &PRINTED.replace("0.49", "0.51").repeat(2));
    fs::remove_file(workspace.path().join("bench.jsonl")).unwrap();
    assert_eq!(count(), 2);
    // What was there and is written again in the same way is this run's.
    fs::remove_file(workspace.path().join(log)).unwrap();
    fs::write(workspace.path().join("new"), VLLM).unwrap();
    fs::rename(workspace.path().join("new"), workspace.path().join(old)).unwrap();
    assert_eq!(count(), 1);
    workspace.write("runs/7.0/report.csv", CSV);
    let figures = search.read(&before).measurements;
    assert_eq!(figures[1].file, "report.csv");
}

#[test]
fn no_file_outside_of_the_workspace_is_read_and_none_that_blocks() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("result.json"), VLLM).unwrap();
    let workspace = Workspace::new();
    let at = |name: &str| workspace.path().join(name);
    std::os::unix::fs::symlink(outside.path().join("result.json"), at("link.json")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("out")).unwrap();
    let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, at("profile_export_aiperf.json"), fifo, mode, 0).unwrap();
    fs::File::create(at("results_concurrency_1.json")).unwrap().set_len(10 << 30).unwrap();
    fs::File::create(at("benchmark.log")).unwrap().set_len(10 << 30).unwrap();
    let search = workspace.search(None);
    search.stamps().unwrap();
    let figures = search.read(&Stamps::default());
    assert_eq!(figures.measurements, []);
    let problem = "results_concurrency_1.json cannot be read: is longer than 268435456 bytes";
    assert_eq!(figures.problems, [problem]);
}

#[test]
fn a_part_of_the_requests_may_fail_where_that_is_allowed() {
    let figures = found(&[("profile_export_aiperf.json", AIPERF)]);
    assert!(figures.fault(81.0).is_some());
    assert_eq!(figures.fault(81.25), None);
    // Nothing completed is never enough, and neither is what was cut short.
    assert!(found(&[("result.json", VLLM)]).fault(100.0).is_some());
    let cut = AIPERF.replace("\"was_cancelled\": false", "\"was_cancelled\": true");
    let fault = found(&[("profile_export_aiperf.json", &cut)]).fault(100.0).unwrap();
    assert!(fault.starts_with("the client was stopped before its end"), "{fault}");
}
