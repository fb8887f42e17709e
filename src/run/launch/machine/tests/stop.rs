// SPDX-License-Identifier: Apache-2.0
//! How runs end: the settling after an end from outside, the escalation, and the signals.

use super::*;
use crate::run::result::Stop;

// ---- settling

#[test]
fn a_signal_soon_after_an_end_from_outside_shows_that_the_job_ends() {
    let mut run = Run::serving(settings());
    run.prints(CTX, "srun: Complete StepId=7.1 received");
    run.ends(CTX, TERMINATED);
    run.at(2.0);
    assert_eq!(run.verdict().kind, VerdictKind::ServerEnded);
    run.at(2.9);
    run.on(Event::Terminate);
    run.finish();
    let verdict = run.verdict();
    assert_eq!((verdict.kind, verdict.step.as_deref()), (VerdictKind::Cancelled, None));
    assert_eq!(verdict.noticed, Some(Moment(2_000)));
}

#[test]
fn a_step_that_slurm_refuses_because_the_job_is_requeued_is_no_failure_to_start() {
    for (is_signalled, expected) in
        [(true, VerdictKind::Requeued), (false, VerdictKind::StartFailed)]
    {
        let mut run = Run::new(settings());
        run.at(0.0);
        let why = "srun: error: Unable to confirm allocation for job 7: Job is pending execution";
        run.prints(CTX, why);
        run.ends(CTX, Exit::Status(1));
        run.at(0.1);
        run.cause = is_signalled.then_some(VerdictKind::Requeued);
        if is_signalled {
            run.on(Event::Terminate);
        }
        run.finish();
        assert_eq!(run.verdict().kind, expected);
    }
}

#[test]
fn a_run_waits_a_second_for_that_signal_and_not_longer() {
    let mut run = Run::serving(settings());
    run.prints(CTX, "srun: forcing job termination");
    run.ends(CTX, TERMINATED);
    run.at(2.0);
    for index in [GEN, ROUTER, BENCHMARK] {
        run.ends(index, TERMINATED);
    }
    run.pass_to(2.9);
    assert!(!run.machine.is_over());
    run.pass_to(3.0);
    assert!(run.machine.is_over());
    assert_eq!(run.verdict().kind, VerdictKind::ServerEnded);
}

#[test]
fn a_step_s_own_end_is_final_at_once() {
    let mut run = Run::serving(settings());
    run.ends(CTX, Exit::Status(42));
    run.at(2.0);
    for index in [GEN, ROUTER, BENCHMARK] {
        run.ends(index, TERMINATED);
    }
    run.on(Event::Tick);
    assert!(run.machine.is_over());
}

// ---- servers that end by themselves

#[test]
fn a_server_may_end_well_once_the_benchmark_has_written_its_file() {
    for (may_end, exit, expected) in [
        (true, OK, VerdictKind::Passed),
        (true, Exit::Status(1), VerdictKind::ServerEnded),
        (false, OK, VerdictKind::ServerEnded),
    ] {
        let mut run = Run::serving(settings());
        if may_end {
            run.on(Event::MayEnd(GEN));
        }
        // Its first rank ends a moment before the others.
        run.prints(GEN, "srun: n1: task 0: Completed");
        run.ends(GEN, exit);
        run.at(2.0);
        run.ends(BENCHMARK, OK);
        run.finish();
        assert_eq!(run.verdict().kind, expected, "{may_end} {exit}");
    }
}

// ---- stopping

#[test]
fn the_router_stops_before_the_servers_when_the_benchmark_has_ended() {
    for exit in [OK, Exit::Status(1)] {
        let mut run = Run::serving(settings());
        run.done();
        run.ends(BENCHMARK, exit);
        run.at(2.0);
        assert_eq!(run.done(), [" 2.0 scancel Term 7.2"]);
        run.ends(ROUTER, OK);
        run.at(3.0);
        assert_eq!(run.done(), [" 3.0 scancel Term 7.0 7.1"]);
        run.at(4.0);
        run.ends(GEN, OK);
        run.ends(CTX, OK);
        run.on(Event::Tick);
        assert!(run.machine.is_over());
        assert_eq!(run.step(GEN).stop, Some(Stop { signal: StopSignal::Term, after_ms: 1_000 }));
        assert_eq!(run.step(BENCHMARK).stop, None);
    }
}

#[test]
fn a_step_that_does_not_end_is_killed_one_way_after_the_other() {
    let mut run = Run::serving(settings());
    run.done();
    run.ends(GEN, Exit::Status(42));
    run.ends(ROUTER, TERMINATED);
    run.at(2.0);
    run.ends(BENCHMARK, TERMINATED);
    run.pass_to(60.0);
    insta::assert_snapshot!(run.done().join("\n"), @r#"
     2.0 scancel Term 7.1 7.3
     4.0 srun Term CTX_0
     9.0 scancel Kill 7.1
    14.0 srun Kill CTX_0
    "#);
    assert!(!run.machine.is_over());
    run.ends(CTX, Exit::Signal(9));
    run.on(Event::Tick);
    assert!(run.machine.is_over());
    assert_eq!(run.step(CTX).stop, Some(Stop { signal: StopSignal::Kill, after_ms: 58_000 }));
    assert_eq!(run.step(BENCHMARK).stop, Some(Stop { signal: StopSignal::Term, after_ms: 0 }));
}

#[test]
fn the_grace_is_longer_after_the_benchmark_than_after_a_failure() {
    for (ended, killed) in [(BENCHMARK, " 9.0 srun"), (CTX, " 4.0 srun")] {
        let mut settings = settings();
        settings.grace_after_benchmark = Duration::from_secs(7);
        let mut run = Run::serving(settings);
        run.ends(ended, OK);
        run.at(2.0);
        run.pass_to(11.0);
        let done = run.done();
        let first = done.iter().find(|action| action.contains("srun")).unwrap();
        assert!(first.starts_with(killed), "{done:#?}");
    }
}

#[test]
fn a_step_that_does_not_exist_yet_is_stopped_through_its_srun() {
    let mut run = Run::new(settings());
    run.at(0.0);
    run.runs(GEN);
    run.exists(CTX);
    run.done();
    run.on(Event::Terminate);
    assert_eq!(
        run.done(),
        [" 0.0 srun Term ROUTER", " 0.0 srun Term BENCHMARK", " 0.0 scancel Term 7.0 7.1"]
    );
}

// ---- signals

#[test]
fn each_repeated_signal_hardens_the_stop() {
    let mut run = Run::serving(settings());
    run.done();
    for second in [2.0, 2.1, 2.2, 2.3, 2.4] {
        run.at(second);
        run.on(Event::Terminate);
        run.on(Event::Tick);
    }
    insta::assert_snapshot!(run.done().join("\n"), @r#"
    2.0 scancel Term 7.0 7.1 7.2 7.3
    2.1 srun Term GEN_0
    2.1 srun Term CTX_0
    2.1 srun Term ROUTER
    2.1 srun Term BENCHMARK
    2.2 scancel Kill 7.0 7.1 7.2 7.3
    2.3 srun Kill GEN_0
    2.3 srun Kill CTX_0
    2.3 srun Kill ROUTER
    2.3 srun Kill BENCHMARK
    "#);
}

#[test]
fn the_reason_is_looked_for_until_the_end() {
    let mut run = Run::serving(settings());
    run.on(Event::Terminate);
    assert_eq!(run.verdict().kind, VerdictKind::Terminated);
    run.cause = Some(VerdictKind::Requeued);
    run.finish();
    assert_eq!(run.verdict().kind, VerdictKind::Requeued);
}

#[test]
fn a_signal_after_the_decision_changes_no_verdict() {
    for signal in [Event::Terminate, Event::TimeLimitNear] {
        let mut run = Run::serving(settings());
        run.ends(BENCHMARK, OK);
        run.at(2.0);
        run.on(signal);
        run.cause = Some(VerdictKind::TimeLimit);
        run.finish();
        assert_eq!(run.verdict().kind, VerdictKind::Passed);
    }
}
