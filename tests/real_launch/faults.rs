// SPDX-License-Identifier: Apache-2.0
//! Each fault of a role has its verdict, and nothing of the run is left behind.

use std::fs;
use std::time::Duration;

use disagg::run::result::{Exit, StepResult, StopSignal, VerdictKind};
use slurm_bed::Options;

use crate::site::{Run, Site};

/// A fault, the arguments of the launch, and what the verdict is to be.
struct Case {
    fault: &'static str,
    launch: &'static str,
    ready: bool,
    kind: VerdictKind,
    role: &'static str,
    rank: Option<u32>,
    exit: Option<Exit>,
}

fn case(fault: &'static str, kind: VerdictKind, exit: Option<Exit>) -> Case {
    let who = fault.split(':').next().unwrap();
    let (role, rank) =
        who.split_once('.').map_or((who, 0), |(role, rank)| (role, rank.parse().unwrap()));
    Case { fault, launch: "", ready: false, kind, role, rank: Some(rank), exit }
}

fn cases() -> Vec<Case> {
    use Exit::Status;
    use VerdictKind::{
        BenchmarkFailed, BenchmarkLimit, Passed, ReadyLimit, RequestsFailed, ServerEnded,
    };
    let died = |fault, status| case(fault, ServerEnded, Some(Status(status)));
    let never_ready =
        |fault| Case { launch: "--limit ready=8s", ready: true, ..case(fault, ReadyLimit, None) };
    let hangs = |fault| Case {
        launch: "--limit benchmark=4s",
        role: "BENCHMARK",
        ..case(fault, BenchmarkLimit, None)
    };
    let mut cases = vec![
        died("GEN_0:die_at_start", 42),
        died("DISAGG_SERVER:die_at_start", 42),
        case("BENCHMARK:die_at_start", BenchmarkFailed, Some(Status(42))),
        died("GEN_0:die_after:2", 42),
        died("DISAGG_SERVER:die_after:2", 42),
        case("BENCHMARK:die_after:2", BenchmarkFailed, Some(Status(42))),
        died("GEN_0:exit_zero_early", 0),
        died("DISAGG_SERVER:exit_zero_early", 0),
        case("BENCHMARK:exit_zero_early", Passed, Some(Status(0))),
        case("BENCHMARK:fail_requests:6", RequestsFailed, Some(Status(0))),
        // The launcher ends all ranks with 128 + n for signal n.
        died("GEN_0:die_by_signal:6", 134),
        case("DISAGG_SERVER:die_by_signal:11", ServerEnded, Some(Exit::Signal(11))),
        case("BENCHMARK:die_by_signal:11", BenchmarkFailed, Some(Exit::Signal(11))),
        died("GEN_0.5:die_at_start", 42),
        case("GEN_0.5:die_by_signal:11", ServerEnded, Some(Exit::Signal(11))),
        never_ready("GEN_0:never_ready"),
        never_ready("CTX_0.3:never_ready"),
        never_ready("DISAGG_SERVER:never_ready"),
        hangs("BENCHMARK:never_ready"),
        hangs("GEN_0:hang"),
        hangs("DISAGG_SERVER:hang"),
        hangs("BENCHMARK:hang"),
        case("BENCHMARK:fail", BenchmarkFailed, Some(Status(1))),
    ];
    for fault in ["GEN_0:ignore_sigterm", "DISAGG_SERVER:ignore_sigterm", "GEN_0:flood_log:8"] {
        let passes = case(fault, Passed, Some(Status(0)));
        cases.push(Case { launch: "--grace-after-benchmark 2", role: "BENCHMARK", ..passes });
    }
    cases
}

#[test]
fn each_fault_of_each_role_has_its_verdict_and_leaves_nothing_behind() {
    let site = Site::start(&Options::nodes(6));
    let cases = cases();
    let names: Vec<String> = (0..cases.len()).map(|number| format!("fault{number}")).collect();
    let jobs: Vec<u32> = cases
        .iter()
        .zip(&names)
        .map(|(case, name)| {
            let env = [("STANDIN_FAULT", case.fault), ("STANDIN_TOKEN_SECONDS", "0.02")];
            let Case { launch, ready, .. } = *case;
            site.submit(&Run { name, launch, ready, env: &env, ..Run::default() })
        })
        .collect();
    for ((case, name), id) in cases.iter().zip(&names).zip(jobs) {
        let (job, result) = site.ended(id, name);
        let verdict = &result.verdict;
        let context = format!("{}: {verdict:#?}\n{}", case.fault, site.log(name));
        assert_eq!(verdict.kind, case.kind, "{context}");
        let status = if case.kind == VerdictKind::Passed { 0 } else { 1 };
        assert_eq!(job.exit_code(), Some((status, 0)), "{context}");
        assert_eq!(verdict.step.as_deref(), Some(case.role), "{context}");
        assert!(result.steps.iter().all(|step| step.ended.is_some()), "{context}");
        if let Some(exit) = case.exit {
            assert_eq!(verdict.exit, Some(exit), "{context}");
            if !exit.is_success() {
                // The launcher ends all ranks with the first one's status; which of them Slurm
                // hears of first is open.
                let is_shared = ["GEN_0:", "CTX_0:"].iter().any(|who| case.fault.starts_with(who));
                assert!(is_shared || verdict.rank == case.rank, "{context}");
                assert!(verdict.rank.is_some(), "{context}");
                assert!(result.nodes.contains(verdict.node.as_ref().unwrap()), "{context}");
            }
        }
        if case.kind != VerdictKind::Passed {
            assert!(verdict.message.contains(case.role), "{context}");
            assert!(!verdict.log_tail.is_empty(), "{context}");
            let junit = result.junit.as_ref().unwrap();
            assert!(junit.failures > 0, "{context}");
        }
        let stop = Duration::from_millis(verdict.stop_ms.unwrap());
        let slow_to_end =
            case.fault.contains("ignore_sigterm") || case.fault.contains("never_ready");
        let patience = if slow_to_end { 10 } else { 4 };
        assert!(stop < Duration::from_secs(patience), "{context}");
        if case.fault.contains("ignore_sigterm") {
            assert!(stop >= Duration::from_secs(2), "{context}");
            let of = |step: &&StepResult| case.fault.starts_with(&step.name);
            let stop = result.steps.iter().find(of).unwrap().stop.unwrap();
            assert_eq!(stop.signal, StopSignal::Kill, "{context}");
            assert!(stop.after_ms >= 2_000, "{context}");
        }
        if case.fault.contains("flood_log") {
            let log = fs::metadata(site.workspace(name).join("gen_server_0.log")).unwrap();
            assert!(log.len() > 8 << 20, "{context}");
        }
        eprintln!("{}: {} after the stop of {stop:?}", case.fault, verdict.kind.name());
    }
}
