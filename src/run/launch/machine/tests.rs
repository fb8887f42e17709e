// SPDX-License-Identifier: Apache-2.0
//! Whole runs on the machine alone: the tests say what the system reports and when, and compare
//! what the machine does.

mod health;
mod placement;
mod stop;

use super::*;
use crate::run::figures::Measurement;
use crate::run::figures::metric::{COMPLETED, FAILED};
use crate::run::launch::Limits;
use crate::run::result::{PlanSummary, RunId, SCHEMA};

const GEN: usize = 0;
const CTX: usize = 1;
const ROUTER: usize = 2;
const BENCHMARK: usize = 3;

const MINUTE: Option<Duration> = Some(Duration::from_secs(60));
const OK: Exit = Exit::Status(0);
const TERMINATED: Exit = Exit::Status(143);

fn settings() -> Settings {
    Settings {
        stagger: Duration::ZERO,
        grace: Duration::from_secs(2),
        grace_after_benchmark: Duration::from_secs(10),
        limits: Limits::default(),
        max_failed: 5.0,
    }
}

fn step(name: &str, purpose: Option<Purpose>, nodes: &[&str], tasks: u32) -> StepResult {
    let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
    StepResult { purpose, ..StepResult::new(name, &nodes, tasks, "a.log") }
}

fn measured(completed: f64, failed: Option<f64>) -> Measurement {
    let failed = failed.map(|failed| (FAILED.to_owned(), failed));
    Measurement {
        file: "out/aiperf.json".into(),
        concurrency: Some(2),
        metrics: [(COMPLETED.to_owned(), completed)].into_iter().chain(failed).collect(),
        ..Measurement::default()
    }
}

fn servers_and_client() -> Vec<StepResult> {
    vec![
        step("GEN_0", Some(Purpose::Server), &["n1", "n2"], 8),
        step("CTX_0", Some(Purpose::Server), &["n3"], 4),
        step("ROUTER", Some(Purpose::Router), &["n1"], 1),
        step("BENCHMARK", Some(Purpose::Client), &["n1"], 1),
    ]
}

/// Where the ranks of a step are by the plan.
fn planned(step: &StepResult) -> Vec<RankPlace> {
    let place = |rank| RankPlace {
        rank,
        node: step.nodes[(rank / step.tasks_per_node) as usize].clone(),
        gpus: (0..4).map(|gpu| gpu.to_string()).collect(),
        cuda_visible_devices: "0,1,2,3".to_owned(),
    };
    (0..step.tasks).map(place).collect()
}

/// A run whose system does at once what the machine asks for.
struct Run {
    machine: Machine,
    now: u64,
    /// The actions, with the second of each.
    actions: Vec<String>,
    /// Slurm's reason in the steps' logs.
    cause: Option<VerdictKind>,
    /// The step that cannot be started.
    broken: Option<usize>,
    /// What the client measured.
    figures: Figures,
    /// Whether the disk is full.
    is_full: bool,
    /// Changes where ranks say that they run.
    places: fn(&StepResult, &mut Vec<RankPlace>),
    steps_made: u32,
}

impl Run {
    fn of(steps: Vec<StepResult>, settings: Settings) -> Self {
        let watches = vec![Watch::default(); steps.len()];
        Self::watched(steps, watches, settings)
    }

    fn watched(steps: Vec<StepResult>, watches: Vec<Watch>, settings: Settings) -> Self {
        let result = RunResult {
            schema: SCHEMA,
            run: RunId::new(7, 0),
            plan: PlanSummary::default(),
            workspace: "/w".into(),
            nodes: Vec::new(),
            url: Some("http://n1:8000".into()),
            started: Moment(0),
            ended: None,
            phase: steps[0].phase(),
            verdict: Verdict::new(VerdictKind::Running, ""),
            steps,
            figures: Vec::new(),
            junit: None,
        };
        let machine = Machine::new(result, watches, settings);
        Self {
            machine,
            now: 0,
            actions: Vec::new(),
            cause: None,
            broken: None,
            figures: Figures::default(),
            is_full: false,
            places: |_, _| {},
            steps_made: 0,
        }
    }

    fn new(settings: Settings) -> Self {
        Self::of(servers_and_client(), settings)
    }

    /// A run whose steps all run.
    fn serving(settings: Settings) -> Self {
        Self::new(settings).all_run()
    }

    /// All steps run, after a second.
    fn all_run(self) -> Self {
        let mut run = self;
        run.at(0.0);
        (0..=BENCHMARK).for_each(|index| run.runs(index));
        run.at(1.0);
        run
    }

    /// A run of one step before the servers.
    fn preparing(step: StepResult, settings: Settings) -> Self {
        let mut run = Self::of([vec![step], servers_and_client()].concat(), settings);
        run.at(0.0);
        run.runs(0);
        run
    }

    fn on(&mut self, event: Event<'_>) {
        let mut actions: std::collections::VecDeque<_> =
            self.machine.on(event, Moment(self.now)).into();
        while let Some(action) = actions.pop_front() {
            if let Some(answer) = self.act(action) {
                actions.extend(self.machine.on(answer, Moment(self.now)));
            }
        }
    }

    fn act(&mut self, action: Action) -> Option<Event<'static>> {
        let name = |index: usize| self.machine.result().steps[index].name.clone();
        let done = match &action {
            Action::Start(index) => format!("start {}", name(*index)),
            Action::SignalSrun(index, signal) => format!("srun {signal:?} {}", name(*index)),
            Action::Scancel(signal, ids) => format!("scancel {signal:?} {}", ids.join(" ")),
            Action::Ask(index, within) => format!("ask {} {within:?}", name(*index)),
            Action::Log(line) => format!("log {line}"),
            Action::Save => "save".to_owned(),
            Action::Announce => "announce".to_owned(),
            Action::WriteFiles
            | Action::ReadTail(_)
            | Action::ReadFigures(_)
            | Action::ReadSilence
            | Action::ReadRanks(_)
            | Action::ReadCause => String::new(),
        };
        if !done.is_empty() {
            self.actions.push(format!("{:4.1} {done}", self.now as f64 / 1000.0));
        }
        match action {
            Action::Start(index) if self.broken == Some(index) => {
                Some(Event::StartFailed(index, "Too many open files (os error 24)".to_owned()))
            }
            Action::Start(index) => Some(Event::Started(index)),
            Action::ReadTail(index) => Some(Event::Tail(index, vec!["last line".to_owned()], None)),
            Action::ReadRanks(index) => {
                let step = self.step(index);
                let mut ranks = planned(step);
                (self.places)(step, &mut ranks);
                Some(Event::Ranks(index, ranks))
            }
            // GEN_0 has written nothing since the start, each later step half a minute more.
            Action::ReadSilence => {
                let written = (0..=BENCHMARK).map(|at| Some(Moment(30_000 * at as u64)));
                Some(Event::Silence(written.collect()))
            }
            Action::ReadCause => Some(Event::Cause(self.cause)),
            Action::ReadFigures(_) => Some(Event::Figures(self.figures.clone(), false)),
            Action::WriteFiles => {
                let error = self.is_full.then(|| "No space left on device".to_owned());
                Some(Event::Written(None, error))
            }
            _ => None,
        }
    }

    /// Lets the time pass to this second.
    fn at(&mut self, second: f64) {
        self.now = (second * 1000.0) as u64;
        self.on(Event::Tick);
    }

    /// Lets the time pass, with a tick at each deadline of the machine, as the loop does.
    fn pass_to(&mut self, second: f64) {
        let end = Moment((second * 1000.0) as u64);
        let mut late = 0;
        while let Some(deadline) = self.machine.deadline().filter(|deadline| *deadline <= end) {
            late = if deadline.0 > self.now { 0 } else { late + 1 };
            assert!(late < 2, "a deadline that stays in the past makes the loop busy");
            self.now = self.now.max(deadline.0);
            self.on(Event::Tick);
        }
        self.at(second);
    }

    fn prints(&mut self, index: usize, line: &str) {
        self.on(Event::Output(index, line));
    }

    /// Slurm creates the step; its id is the next one.
    fn exists(&mut self, index: usize) {
        let id = self.steps_made;
        self.steps_made += 1;
        let step = self.step(index).clone();
        for node in &step.nodes {
            let tasks = step.tasks_per_node;
            let line = format!("srun: launching StepId=7.{id} on host {node}, {tasks} tasks: 0");
            self.prints(index, &line);
        }
    }

    fn runs(&mut self, index: usize) {
        self.exists(index);
        let tasks = self.step(index).tasks;
        self.prints(index, &format!("srun: Node n1, {tasks} tasks started"));
    }

    fn ends(&mut self, index: usize, exit: Exit) {
        self.on(Event::Ended(index, Some(exit)));
    }

    /// Lets all steps end that still run, and the time pass until the run is over.
    fn finish(&mut self) {
        for _ in 0..9 {
            for index in 0..self.machine.steps.len() {
                if self.step(index).is_running() {
                    self.ends(index, TERMINATED);
                }
            }
            self.at(self.now as f64 / 1000.0 + 0.5);
        }
        assert!(self.machine.is_over(), "{:#?}", self.machine);
    }

    fn step(&self, index: usize) -> &StepResult {
        &self.machine.result().steps[index]
    }

    fn verdict(&self) -> &Verdict {
        &self.machine.result().verdict
    }

    /// The actions since the last call, without log lines and saves.
    fn done(&mut self) -> Vec<String> {
        let mut done = mem::take(&mut self.actions);
        done.retain(|action| !action.contains(" log ") && !action.contains(" save"));
        done
    }
}

/// A run of each kind of verdict, to its end.
fn outcomes() -> Vec<Run> {
    let mut runs = Vec::new();
    let mut add = |mut run: Run, happens: &dyn Fn(&mut Run)| {
        happens(&mut run);
        run.on(Event::Tick);
        run.finish();
        runs.push(run);
    };
    let limits = |limits: Limits| Settings { limits, ..settings() };
    let serving = || Run::serving(settings());
    let install = || step("INSTALL", None, &["n1", "n2", "n3"], 3);
    let check = || step("CHECK_0", Some(Purpose::Check), &["n1"], 1);

    add(serving(), &|run| run.ends(BENCHMARK, OK));
    add(serving(), &|run| run.ends(BENCHMARK, Exit::Status(1)));
    for (completed, failed) in [(380.0, Some(20.0)), (75.0, Some(325.0)), (0.0, None)] {
        let mut run = serving();
        run.figures.measurements.push(measured(completed, failed));
        // The servers may end because the client did, while its figures are read.
        add(run, &|run| {
            run.ends(GEN, OK);
            run.ends(BENCHMARK, OK);
        });
    }
    add(serving(), &|run| {
        run.prints(GEN, "srun: Received task exit notification for 1 task (status=0x000b).");
        run.prints(GEN, "srun: error: n2: task 5: Segmentation fault (core dumped)");
    });
    add(serving(), &|run| run.prints(GEN, "srun: error: n1: tasks 0-3: Killed"));
    add(serving(), &|run| run.ends(ROUTER, OK));
    add(serving(), &|run| {
        run.prints(GEN, "srun: n2: tasks 4-7: Completed");
        run.prints(BENCHMARK, "srun: n1: task 0: Completed");
        run.on(Event::Tick);
        assert_eq!(run.verdict().kind, VerdictKind::Running);
        run.prints(GEN, "srun: n1: tasks 0-1: Completed");
    });
    add(serving(), &|run| {
        run.prints(CTX, "srun: forcing job termination");
        run.ends(CTX, TERMINATED);
    });
    let unpack = || step("UNPACK", None, &["n1", "n2"], 2);
    add(Run::preparing(unpack(), settings()), &|run| run.ends(0, Exit::Status(1)));
    add(Run::preparing(unpack(), settings()), &|run| run.at(1800.0));
    add(Run::new(settings()), &|run| {
        run.prints(GEN, "srun: launching StepId=7.0 on host n1, 7 tasks: [0-6]");
    });
    add(Run::preparing(install(), settings()), &|run| {
        run.prints(0, "srun: error: n2: task 1: Exited with exit code 7");
        run.ends(0, Exit::Status(7));
    });
    add(Run::preparing(check(), settings()), &|run| run.ends(0, Exit::Status(5)));
    let precheck = limits(Limits { precheck: MINUTE, ..Limits::default() });
    add(Run::preparing(check(), precheck), &|run| run.at(60.0));
    let mut broken = Run::new(settings());
    broken.broken = Some(CTX);
    add(broken, &|_| {});
    add(Run::new(settings()), &|run| {
        run.prints(GEN, "srun: error: Unable to create step for job 7: Memory required");
        run.prints(GEN, "Try \"srun --help\" for more information");
        run.ends(GEN, Exit::Status(1));
    });
    add(Run::new(settings()), &|run| {
        for _ in 0..2 {
            run.exists(GEN);
            run.prints(GEN, "srun: error: task 0 launch failed: Unspecified error");
            run.ends(GEN, Exit::Status(1));
            run.on(Event::Tick);
        }
    });
    let start = limits(Limits { start: MINUTE, ..Limits::default() });
    add(Run::new(start), &|run| {
        run.runs(GEN);
        run.at(60.0);
    });
    let ready = limits(Limits { ready: Some(Duration::from_secs(900)), ..Limits::default() });
    add(health::asked(ready).all_run(), &|run| {
        run.on(Event::Answered(GEN, Err("GET /health: status 503".to_owned())));
        run.on(Event::Answered(CTX, Ok(())));
        run.at(901.0);
    });
    add(health::asked(settings()).all_run(), &|run| {
        run.on(Event::Answered(GEN, Ok(())));
        for second in [6.0, 11.0, 16.0] {
            run.at(second);
            let why = "GET /health: no answer within 5 s".to_owned();
            run.on(Event::Answered(GEN, Err(why)));
        }
    });
    add(serving(), &|run| run.on(Event::LogFatal(CTX, "CUDA error: x".to_owned())));
    let benchmark = limits(Limits { benchmark: MINUTE, ..Limits::default() });
    add(Run::serving(benchmark), &|run| run.at(61.0));
    add(serving(), &|run| {
        run.prints(CTX, "srun: forcing job termination");
        run.on(Event::Terminate);
    });
    for kind in [
        VerdictKind::TimeLimit,
        VerdictKind::Preempted,
        VerdictKind::Requeued,
        VerdictKind::NodeFailed,
    ] {
        let mut run = serving();
        run.cause = Some(kind);
        add(run, &|run| run.on(Event::Terminate));
    }
    add(serving(), &|run| run.on(Event::TimeLimitNear));
    add(serving(), &|run| run.on(Event::Terminate));
    for is_up in [true, false] {
        let run = health::without_a_client(is_up);
        add(run, &|run| {
            run.at(31.0);
            run.on(Event::Terminate);
        });
    }
    let mut full = serving();
    full.is_full = true;
    add(full, &|run| run.ends(BENCHMARK, OK));
    runs
}

#[test]
fn every_verdict_says_what_happened_and_where() {
    let runs = outcomes();
    let verdicts: Vec<_> = runs.iter().map(Run::verdict).collect();
    for kind in VerdictKind::ALL.into_iter().filter(|kind| *kind != VerdictKind::Running) {
        assert!(verdicts.iter().any(|verdict| verdict.kind == kind), "{kind:?}");
    }
    let text: Vec<_> =
        verdicts.iter().map(|v| format!("{}: {}", v.kind.name(), v.message)).collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    passed: BENCHMARK passed after 1.0 s
    benchmark_failed: BENCHMARK failed after 1.0 s: exit status 1
    passed: BENCHMARK passed after 1.0 s
    requests_failed: BENCHMARK ended well after 1.0 s, but 325 of 400 requests failed (81.25%, --max-failed allows 5%) at concurrency 2 (out/aiperf.json)
    requests_failed: BENCHMARK ended well after 1.0 s, but no request was completed at concurrency 2 (out/aiperf.json)
    server_ended: GEN_0 ended after 1.0 s, before the benchmark did: signal 11 on n2 rank 5
    server_ended: GEN_0 ended after 1.0 s, before the benchmark did: Killed on n1 rank 0
    server_ended: ROUTER ended after 1.0 s, before the benchmark did: exit status 0
    server_ended: GEN_0 ended after 1.0 s, before the benchmark did: exit status 0 on n1 rank 0
    server_ended: CTX_0 ended after 1.0 s, before the benchmark did: exit status 143 (signal 15); it was cancelled or signalled from outside the launch
    unpack_failed: the container image was not unpacked after 0.0 s: exit status 1
    unpack_failed: UNPACK is not done after 1800 s (limit of phase `unpack`)
    misplaced: GEN_0 is not placed as planned: Slurm put 7 of its tasks on n1, but the plan 4; submit the job with --ntasks-per-node=4, so that each node has CPUs for its tasks
    install_failed: the install script failed after 0.0 s: exit status 7 on n2 rank 1
    precheck_failed: CHECK_0 failed after 0.0 s: exit status 5
    precheck_failed: CHECK_0 is not done after 60 s (limit of phase `precheck`)
    start_failed: CTX_0 cannot be started: Too many open files (os error 24)
    start_failed: Slurm did not start GEN_0: srun: error: Unable to create step for job 7: Memory required
    start_failed: Slurm failed to launch GEN_0 twice: task 0 launch failed: Unspecified error; see the log of slurmd on n[1-2]
    start_limit: CTX_0 and 2 more are not running after 60 s (limit of phase `start`)
    ready_limit: GEN_0 and 1 more are not ready after 900 s (limit of phase `ready`); GEN_0: GET /health: status 503
    unresponsive: GEN_0 stopped answering port 8000: 3 misses in 10 s (GET /health: no answer within 5 s)
    fatal_log: CTX_0 log: CUDA error: x
    benchmark_limit: BENCHMARK is not done after 60 s (limit of phase `benchmark`); without output for longest: GEN_0 1:01, CTX_0 31.0 s, ROUTER 1.0 s, BENCHMARK 0.0 s
    cancelled: the job was cancelled
    time_limit: the job reached its time limit before the benchmark ended; request more with --time
    preempted: the job was preempted by another job
    requeued: the job was requeued and will run again
    node_failed: a node of the job failed
    time_limit_near: the job is close to its time limit (signal of sbatch --signal); request more with --time
    terminated: launcher received a termination signal; Slurm reported no reason
    served: the servers served for 30.0 s, until they were told to end
    terminated: launcher received a termination signal; Slurm reported no reason
    workspace_failed: the benchmark passed, but its result is lost: No space left on device
    ");
}

#[test]
fn a_verdict_names_the_step_its_rank_and_its_node() {
    let mut runs = outcomes().into_iter().map(|run| run.verdict().clone());
    let verdict = runs.find(|verdict| verdict.message.contains("signal 11")).unwrap();
    assert_eq!(verdict.step.as_deref(), Some("GEN_0"));
    assert_eq!((verdict.rank, verdict.node.as_deref()), (Some(5), Some("n2")));
    assert_eq!(verdict.exit, Some(Exit::Signal(11)), "not the status that the stop leaves");
    assert_eq!((verdict.noticed, verdict.ran_ms), (Some(Moment(1_000)), Some(1_000)));
    assert_eq!(verdict.stop_ms, Some(500));
    assert_eq!(verdict.log_tail, ["last line"]);
}

#[test]
fn every_run_ends_with_all_steps_ended_and_one_last_message() {
    for run in outcomes() {
        let result = run.machine.result();
        assert!(result.steps.iter().all(|step| !step.is_running()), "{result:#?}");
        assert!(result.is_over() && result.phase == Phase::Done, "{result:#?}");
        let last = format!("run 7.0 {}: {}", result.verdict.kind.name(), result.verdict.message);
        let logged = run.actions.iter().filter(|action| action.ends_with(&last)).count();
        assert_eq!(logged, 1, "{:#?}", run.actions);
    }
}

#[test]
fn a_full_disk_changes_no_verdict_of_a_run_that_failed() {
    let mut run = Run::serving(settings());
    run.is_full = true;
    run.ends(ROUTER, OK);
    run.at(2.0);
    run.finish();
    assert_eq!(run.verdict().kind, VerdictKind::ServerEnded);
}

#[test]
fn steps_start_group_by_group() {
    let install = step("INSTALL", None, &["n1"], 1);
    let check = step("CHECK_0", Some(Purpose::Check), &["n1"], 1);
    let mut run = Run::of([vec![install, check], servers_and_client()].concat(), settings());
    run.at(0.0);
    run.runs(0);
    run.at(1.0);
    run.ends(0, OK);
    run.at(2.0);
    run.runs(1);
    run.ends(1, OK);
    run.at(3.0);
    insta::assert_snapshot!(run.done().join("\n"), @r#"
    0.0 start INSTALL
    2.0 start CHECK_0
    3.0 start GEN_0
    3.0 start CTX_0
    3.0 start ROUTER
    3.0 start BENCHMARK
    "#);
}

#[test]
fn the_stagger_separates_two_starts() {
    let mut run = Run::new(Settings { stagger: Duration::from_millis(1_500), ..settings() });
    run.at(0.0);
    run.pass_to(4.0);
    assert_eq!(run.done(), [" 0.0 start GEN_0", " 1.5 start CTX_0", " 3.0 start ROUTER"]);
}

#[test]
fn after_a_failed_start_no_other_step_starts() {
    let mut run = Run::new(settings());
    run.broken = Some(CTX);
    run.at(0.0);
    assert_eq!(run.done(), [" 0.0 start GEN_0", " 0.0 start CTX_0", " 0.0 srun Term GEN_0"]);
    run.finish();
    assert_eq!(run.verdict().step.as_deref(), Some("CTX_0"));
}

// ---- what counts first

#[test]
fn a_benchmark_that_ends_together_with_a_server_decides() {
    let mut run = Run::serving(settings());
    run.ends(GEN, OK);
    run.ends(BENCHMARK, OK);
    run.finish();
    assert_eq!(run.verdict().kind, VerdictKind::Passed);
}

#[test]
fn a_lost_rank_decides_before_its_srun_ends() {
    let mut run = Run::serving(settings());
    run.prints(GEN, "srun: error: n1: task 3: Exited with exit code 42");
    run.at(2.0);
    assert_eq!(
        run.verdict().message,
        "GEN_0 ended after 2.0 s, before the benchmark did: exit status 42 on n1 rank 3"
    );
    assert_eq!(run.done()[4..], [" 2.0 scancel Term 7.0 7.1 7.2 7.3"]);
}

#[test]
fn a_rank_that_fails_while_the_step_is_stopped_is_no_cause() {
    let mut run = Run::serving(settings());
    run.ends(ROUTER, OK);
    run.at(2.0);
    run.prints(GEN, "srun: error: n1: task 3: Terminated");
    run.finish();
    assert_eq!(run.step(GEN).failure, None);
    assert_eq!(run.verdict().step.as_deref(), Some("ROUTER"));
}

// ---- the second start

#[test]
fn a_step_whose_launch_fails_starts_once_more() {
    let mut run = Run::new(settings());
    run.at(0.0);
    run.exists(GEN);
    run.prints(GEN, "srun: error: Task launch for StepId=7.0 failed on node n2: Error");
    // srun kills the ranks on the other node.
    run.prints(GEN, "srun: Node n1, 8 tasks started");
    run.prints(GEN, "srun: error: n1: tasks 0-3: Killed");
    run.ends(GEN, Exit::Status(137));
    run.done();
    run.at(1.0);
    assert_eq!(run.done(), [" 1.0 start GEN_0"]);
    (0..=BENCHMARK).for_each(|index| run.runs(index));
    run.at(2.0);
    assert_eq!(run.step(GEN).step_id.as_deref(), Some("7.1"));
    assert_eq!((run.step(GEN).failure.clone(), run.step(GEN).running), (None, Some(Moment(1_000))));
    run.ends(BENCHMARK, OK);
    run.finish();
    assert_eq!(run.verdict().kind, VerdictKind::Passed);
}

// ---- saving

#[test]
fn changes_are_saved_at_most_four_times_a_second_and_decisions_at_once() {
    let mut run = Run::new(settings());
    run.at(0.0);
    run.exists(GEN);
    run.on(Event::Tick);
    run.pass_to(0.3);
    run.exists(CTX);
    run.pass_to(1.0);
    run.on(Event::Terminate);
    run.actions.retain(|action| action.contains(" save"));
    assert_eq!(run.actions, [" 0.2 save", " 0.5 save", " 1.0 save", " 1.0 save"]);
}
