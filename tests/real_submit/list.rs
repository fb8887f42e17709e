// SPDX-License-Identifier: Apache-2.0
//! A list of tests from its submission to the comparison of its runs.

use serde_json::Value;
use slurm_bed::{Output, contains};

use super::site::*;

/// Six tests of all forms. Only the first has a CTX server.
const TESTS: [&str; 6] = [
    "disagg_upload-standin_3nodes",
    "disagg_upload-standin_gen_only",
    "aggr_upload-ctx_only-standin_3nodes",
    "aggr_upload-standin_servers-small",
    "aggr_upload-standin_servers-two_nodes",
    "aggr_upload-gen_only_no_context-standin_3nodes",
];
const FAULT: &[&str] = &["STANDIN_FAULT=CTX_0:die_at_start", "STANDIN_TOKEN_SECONDS=0.02"];

/// A field of each test, in the order of the list.
fn jobs(output: &Output, field: &str) -> Vec<Value> {
    let all = json(output);
    let all = all["jobs"].as_array().unwrap();
    let of = |test: &&str| all.iter().find(|job| job["test"] == *test).unwrap()[field].clone();
    TESTS.iter().map(of).collect()
}

#[test]
fn a_list_with_a_failing_test_is_detached_cancelled_in_part_retried_and_compared() {
    let site = Site::new();
    let list = site.cluster.work().join("list.txt");
    let line = |id: &&str| format!("perf/test_perf_sanity.py::test_e2e[{id}]\n");
    std::fs::write(&list, TESTS.iter().map(line).collect::<String>()).unwrap();
    let submit = |settings: &[&str], arguments: &[&str]| {
        let mut command = site.command(settings, &["submit", "--test-list", path(&list)]);
        command.arg("--trtllm-dir").arg(format!("{STANDIN}/tree"));
        command.arg("--workspace").arg(site.workspace()).args(arguments);
        command
    };
    let of = |test: usize| site.workspace().join(TESTS[test]);
    let on_all = |command: &[&str]| site.run(&[], &[command, &[path(&site.workspace())]].concat());
    let shows = |output: &Output, rows: [&str; 6], totals: &[&str]| {
        let table = output.stdout.rsplit("outcome").next().unwrap();
        for (test, row) in TESTS.iter().zip(rows) {
            let found = table.lines().find(|line| line.starts_with(&format!("  {test} ")));
            let found = found.unwrap_or_else(|| panic!("no row of {test}: {}", output.stdout));
            assert!(row.split(' ').all(|word| found.contains(word)), "{row}: {found}");
        }
        totals.iter().for_each(|part| contains(table, part));
    };

    // Written, and nothing of it submitted.
    Output::of(&mut submit(&[], &["--dry-run"])).expect(0);
    shows(&on_all(&["report"]), ["submitted"; 6], &["6 tests: 6 not submitted"]);

    let mut submitting = Running::start(&site, submit(FAULT, &["--serial"]));
    submitting.until("job 1: FAILED");
    submitting.signal("INT");
    let detached = submitting.end();
    detached.expect(130);
    contains(&detached.stdout, "6 tests: 1 failed, 5 detached");
    let cancelled = site.run(&[], &["cancel", path(&of(5))]);
    assert_eq!((cancelled.code, &*cancelled.stdout), (Some(0), "cancelling job 6\n"));
    let open = on_all(&["report"]);
    open.expect(0);
    contains(&open.stdout, " open");

    let watched = on_all(&["watch"]);
    watched.expect(1);
    let passed = "COMPLETED passed";
    let rows = ["1 FAILED failed", passed, passed, passed, passed, "6 CANCELLED failed"];
    shows(&watched, rows, &["6 tests: ", "2 failed", "4 passed"]);
    shows(&on_all(&["report"]), rows, &["6 tests: ", "2 failed", "4 passed"]);
    // One after another.
    let report = on_all(&["report", "--format=json"]);
    let (ids, results) = (jobs(&report, "job_id"), jobs(&report, "result"));
    for pair in results[..5].windows(2) {
        assert!(pair[0]["ended"].as_u64() < pair[1]["started"].as_u64(), "{}", report.stdout);
    }

    // The second retry finds all passed, also those without a launch that writes a verdict.
    for launcher in ["bash", "native"] {
        let launcher = format!("--launcher={launcher}");
        let retried = Output::of(&mut submit(&[], &["--json", "--retry-failed", &launcher]));
        retried.expect(0);
        let again = jobs(&retried, "job_id");
        assert_eq!((&again[1..5], [&again[0], &again[5]]), (&ids[1..5], [&7.into(), &8.into()]));
    }
    shows(&on_all(&["report"]), ["COMPLETED passed 8"; 6], &["6 tests: 6 passed"]);
    let page = site.cluster.work().join("page.html");
    on_all(&["report", "--html", path(&page)]).expect(0);
    contains(&std::fs::read_to_string(page).unwrap(), "<h1>6 tests: 6 passed</h1>");

    let compare = |arguments: &[&str]| site.run(&[], &[&["compare"], arguments].concat());
    let compared = compare(&[path(&of(0)), path(&of(1))]);
    compared.expect(0);
    for expected in ["total_nodes: 3 → 2", "requests completed", "output tokens (tok/s)"] {
        contains(&compared.stdout, expected);
    }
    // The failed run is still there.
    let first = of(0).join("runs/1.0");
    let compared = compare(&["--fail-below=5%", path(&of(0)), path(&first)]);
    compared.expect(1);
    contains(&compared.stderr, "has not passed: CTX_0");

    std::fs::remove_file(of(1).join("submission.json")).unwrap();
    let resumed = Output::of(&mut submit(ENDLESS, &["--json", "--resume", "--no-wait"]));
    resumed.expect(0);
    let open = &jobs(&resumed, "job_id")[1];
    let cancelled = on_all(&["cancel"]);
    cancelled.expect(0);
    contains(&cancelled.stdout, "job 7 has already ended");
    contains(&cancelled.stdout, &format!("cancelling job {open}"));

    Output::of(&mut submit(&[], &["--dry-run", "--force", "--only", "nothing like it"])).expect(2);
    let one = Output::of(&mut submit(&[], &["--dry-run", "--force", "--json", "--only", "*small"]));
    one.expect(0);
    let one = json(&one)["jobs"].clone();
    assert_eq!((one.as_array().unwrap().len(), &one[0]["test"]), (1, &TESTS[3].into()));
}
