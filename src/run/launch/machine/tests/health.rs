// SPDX-License-Identifier: Apache-2.0
//! When steps are asked, and what their answers and logs mean.

use super::*;
use crate::plan::health::Alive;
use crate::run::launch::watch::Target;

/// A run whose servers are asked, each of them again all five seconds when it is ready.
pub fn asked(settings: Settings) -> Run {
    let target = || Target { host: "n1".into(), port: 8000, http: None };
    let watch = || Watch {
        target: Some(target()),
        alive: Some(Alive { misses: 3, seconds: 15 }),
        ..Watch::default()
    };
    let watches = vec![watch(), watch(), watch(), Watch::default()];
    Run::watched(servers_and_client(), watches, settings)
}

fn no() -> Result<(), String> {
    Err("status 503".to_owned())
}

impl Run {
    fn answers(&mut self, second: f64, index: usize, answer: Result<(), String>) {
        self.pass_to(second);
        self.on(Event::Answered(index, answer));
        self.on(Event::Tick);
    }

    fn asks(&mut self) -> Vec<String> {
        self.done().into_iter().filter(|action| action.contains(" ask ")).collect()
    }
}

/// A run of servers alone: all of them run, or none.
pub fn without_a_client(is_up: bool) -> Run {
    let mut run = Run::of(servers_and_client()[..BENCHMARK].to_vec(), settings());
    run.at(0.0);
    (0..BENCHMARK).filter(|_| is_up).for_each(|index| run.runs(index));
    run.at(1.0);
    let announced = run.actions.iter().any(|action| action.contains("announce"));
    assert_eq!(announced, is_up, "{:?}", run.actions);
    run
}

#[test]
fn a_step_is_asked_from_its_start_on_one_question_at_a_time() {
    let mut run = asked(settings());
    run.at(0.0);
    run.at(2.0);
    assert!(run.asks().is_empty(), "nothing runs");
    run.runs(GEN);
    run.at(2.0);
    run.pass_to(4.0);
    assert_eq!(run.asks(), [" 2.0 ask GEN_0 5s"], "its answer is to come");
    run.answers(4.0, GEN, no());
    run.answers(4.1, GEN, no());
    assert_eq!(run.asks(), [" 4.0 ask GEN_0 5s"]);
    run.pass_to(5.0);
    assert_eq!(run.asks(), [" 4.5 ask GEN_0 5s"]);
    run.answers(5.0, GEN, Ok(()));
    assert_eq!(run.step(GEN).ready, Some(Moment(5_000)));
    run.pass_to(11.0);
    assert_eq!(run.asks(), ["10.0 ask GEN_0 5s"], "whether it is alive");
}

#[test]
fn the_benchmark_begins_when_all_that_are_asked_are_ready() {
    let mut run = asked(settings()).all_run();
    for server in [GEN, CTX, ROUTER] {
        assert_eq!(run.machine.result().phase, Phase::Ready);
        run.answers(2.0, server, Ok(()));
    }
    assert_eq!(run.machine.result().phase, Phase::Benchmark);
}

#[test]
fn only_misses_in_a_row_are_a_verdict_and_their_time_counts_from_the_first() {
    let mut run = asked(settings()).all_run();
    for server in [GEN, CTX, ROUTER] {
        run.answers(1.0, server, Ok(()));
    }
    // Asked at 6, 11, 16, …
    for (second, answer) in [(6.1, no()), (11.1, no()), (16.1, Ok(())), (21.1, no()), (30.0, no())]
    {
        run.answers(second, GEN, answer);
    }
    assert_eq!(run.verdict().kind, VerdictKind::Running);
    run.answers(33.0, GEN, no());
    let verdict = run.verdict();
    assert_eq!(verdict.message, "GEN_0 stopped answering port 8000: 3 misses in 12 s (status 503)");
    assert_eq!((verdict.kind, verdict.step.as_deref()), (VerdictKind::Unresponsive, Some("GEN_0")));
    run.done();
    run.pass_to(50.0);
    assert!(run.asks().is_empty(), "nothing is asked after a decision");
}

#[test]
fn an_answer_of_a_step_that_has_ended_means_nothing() {
    let mut run = asked(settings()).all_run();
    run.ends(GEN, OK);
    run.answers(1.0, GEN, Ok(()));
    run.on(Event::LogReady(GEN));
    run.on(Event::LogFatal(GEN, "CUDA error".to_owned()));
    assert_eq!((run.step(GEN).ready, run.verdict().kind), (None, VerdictKind::ServerEnded));
}

#[test]
fn a_fatal_line_is_in_the_verdict_also_where_the_death_is_noticed_first() {
    let mut watches = vec![Watch::default(); 4];
    watches[GEN].fatal = vec!["CUDA error".to_owned()];
    let mut run = Run::watched(servers_and_client(), watches, settings()).all_run();
    run.prints(GEN, "srun: error: n1: task 0: Exited with exit code 1");
    run.at(2.0);
    run.on(Event::Tail(
        GEN,
        vec!["CUDA error: illegal address".to_owned(), "bye".to_owned()],
        None,
    ));
    assert_eq!(
        run.verdict().message,
        "GEN_0 ended after 2.0 s, before the benchmark did: CUDA error: illegal address; exit status 1 \
         on n1 rank 0"
    );
}

#[test]
fn a_client_that_fails_waits_for_the_line_in_a_servers_log_that_says_why() {
    let mut watches = vec![Watch::default(); 4];
    watches[GEN].fatal = vec!["CUDA error".to_owned()];
    for (exit, fatal, kind, message) in [
        (OK, None, VerdictKind::RequestsFailed, "none of 8 requests was completed"),
        (
            Exit::Status(3),
            None,
            VerdictKind::BenchmarkFailed,
            "BENCHMARK failed after 1.0 s: exit status 3",
        ),
        (OK, Some("CUDA error: 700"), VerdictKind::FatalLog, "GEN_0 log: CUDA error: 700"),
    ] {
        let mut run = Run::watched(servers_and_client(), watches.clone(), settings()).all_run();
        run.figures.measurements = vec![measured(0.0, Some(8.0))];
        run.ends(BENCHMARK, exit);
        run.at(1.4);
        assert_eq!(run.verdict().kind, VerdictKind::Running);
        if let Some(line) = fatal {
            run.on(Event::LogFatal(GEN, line.to_owned()));
        }
        run.pass_to(1.6);
        assert_eq!(run.verdict().kind, kind, "{:?}", run.verdict());
        assert!(run.verdict().message.contains(message), "{:?}", run.verdict());
        assert_eq!(run.machine.result().figures.len(), 1);
    }
}

#[test]
fn steps_start_after_the_roles_that_must_be_ready_before() {
    let after = |roles: &[&str]| roles.iter().map(|role| (*role).to_owned()).collect();
    let mut steps = servers_and_client();
    for (step, role) in steps.iter_mut().zip(["GEN", "CTX", "ROUTER", "BENCHMARK"]) {
        step.role = Some(role.to_owned());
    }
    let mut watches = vec![Watch::default(); 4];
    watches[GEN].ready = vec!["up".to_owned()];
    watches[ROUTER].after = after(&["GEN", "CTX"]);
    watches[BENCHMARK].after = after(&["ROUTER"]);
    let limits = Limits { ready: MINUTE, ..Limits::default() };
    let mut run = Run::watched(steps, watches, Settings { limits, ..settings() });
    let phase = |run: &Run| run.machine.result().phase;
    run.at(0.0);
    assert_eq!(run.done(), [" 0.0 start GEN_0", " 0.0 start CTX_0"]);
    run.runs(GEN);
    run.at(1.0);
    assert_eq!(phase(&run), Phase::Start);
    run.runs(CTX);
    run.at(2.0);
    assert_eq!((phase(&run), run.done().len()), (Phase::Ready, 0), "GEN_0 is not ready");
    run.on(Event::LogReady(GEN));
    run.at(3.0);
    assert_eq!(run.done(), [" 3.0 start ROUTER"]);
    run.runs(ROUTER);
    run.at(4.0);
    assert_eq!(run.done(), [" 4.0 start BENCHMARK"], "nothing says when a ROUTER is ready");
    assert_eq!(phase(&run), Phase::Ready);
    run.runs(BENCHMARK);
    run.at(5.0);
    assert_eq!(phase(&run), Phase::Benchmark);
}
