// SPDX-License-Identifier: Apache-2.0
//! Where ranks run, and which of them is the cause of a step's end.

use super::*;

#[test]
fn a_rank_on_another_node_ends_the_run_at_once() {
    let mut run = Run::new(settings());
    run.places = |step, ranks| {
        if step.name == "GEN_0" {
            ranks[5].node = "n1".to_owned();
        }
    };
    run.at(0.0);
    (0..=BENCHMARK).for_each(|index| run.runs(index));
    run.at(1.0);
    let verdict = run.verdict();
    assert_eq!((verdict.kind, verdict.step.as_deref()), (VerdictKind::Misplaced, Some("GEN_0")));
    assert_eq!(verdict.message, "rank 5 of GEN_0 runs on n1, by the plan on n2");
}

#[test]
fn servers_on_one_node_have_gpus_of_their_own() {
    let message = |places| {
        let mut steps = servers_and_client();
        for index in [GEN, CTX] {
            steps[index] = step(&steps[index].name, Some(Purpose::Server), &["n1"], 2);
            steps[index].own_gpus = Some(vec![2]);
        }
        let mut run = Run::of(steps, settings());
        run.places = places;
        run.at(0.0);
        (0..=BENCHMARK).for_each(|index| run.runs(index));
        run.at(1.0);
        (run.verdict().kind, run.verdict().message.clone())
    };
    let beyond = message(|_, _| {});
    assert_eq!(beyond.0, VerdictKind::Misplaced);
    assert_eq!(beyond.1, "rank 0 of GEN_0 has the GPUs 0,1,2,3 of n1, by the plan 2 of them");
    let same = message(|_, ranks| ranks.iter_mut().for_each(|rank| rank.gpus.truncate(2)));
    assert_eq!(same.1, "CTX_0 and GEN_0 have the same GPU 0 of n1");
    let own = message(|step, ranks| {
        let from = if step.name == "GEN_0" { 0 } else { 2 };
        ranks.iter_mut().for_each(|rank| rank.gpus = rank.gpus[from..from + 2].to_vec());
    });
    assert_eq!(own.0, VerdictKind::Running, "{}", own.1);
}

#[test]
fn a_benchmark_that_passes_before_every_rank_has_said_where_it_runs_has_not_passed() {
    let mut run = Run::new(settings());
    run.places = |_, ranks| ranks.truncate(3);
    run.at(0.0);
    (0..=BENCHMARK).for_each(|index| run.runs(index));
    run.at(1.0);
    // A slow rank is waited for, and looked for ever more seldom.
    run.actions.clear();
    run.pass_to(60.0);
    assert!(run.done().is_empty());
    run.ends(BENCHMARK, OK);
    run.finish();
    assert_eq!(run.verdict().message, "rank 3 of GEN_0 did not say in its log where it runs");
    let mut run = Run::new(settings());
    run.places = |_, ranks| ranks.truncate(3);
    run.at(0.0);
    (0..=BENCHMARK).for_each(|index| run.runs(index));
    run.at(1.0);
    run.places = |_, _| {};
    run.ends(BENCHMARK, OK);
    run.finish();
    assert_eq!(run.verdict().kind, VerdictKind::Passed, "the log has it when all have ended");
}

#[test]
fn the_log_s_reason_and_node_count_more_than_the_rank_that_was_reported_first() {
    const OF_THE_STEP: &str = "StepId=7.0 exceeded memory limit (2 > 1), being killed";
    let unknown = "; Slurm does not tell which of its ranks there took it";
    for (line, who) in [
        ("slurmstepd-n2: error: Detected 1 oom_kill event in StepId=7.0.", " on n2 rank 5"),
        (&format!("slurmstepd-n2: error: {OF_THE_STEP}"), " on n2"),
        (&format!("slurmstepd-n1: error: {OF_THE_STEP}"), " on n1"),
    ] {
        let mut run = Run::serving(settings());
        run.prints(GEN, "srun: error: n1: task 0: Killed");
        run.prints(GEN, "srun: error: n2: task 5: Out Of Memory");
        run.at(2.0);
        run.on(Event::Tail(GEN, Vec::new(), cause::of_failure(line)));
        run.prints(GEN, "srun: error: n1: task 3: Segmentation fault");
        let more = if line.contains(OF_THE_STEP) { unknown } else { "" };
        let reason = format!("out of memory{who}{more}");
        let verdict = run.verdict();
        let message = format!("GEN_0 ended after 2.0 s, before the benchmark did: {reason}");
        assert_eq!(verdict.message, message);
        let rank = who.contains("rank").then_some(5);
        assert_eq!((verdict.node.as_deref(), verdict.rank), (Some(&line[11..13]), rank));
        let failure = run.step(GEN).failure.clone().unwrap();
        assert_eq!((failure.rank, failure.node.as_str()), (rank, &line[11..13]));
    }
}

#[test]
fn a_rank_that_says_it_cannot_start_is_why_its_step_has_not_started() {
    let mut run = Run::serving(settings());
    run.prints(GEN, "srun: error: n1: task 0: Exited with exit code 1");
    run.at(2.0);
    let said = "slurm-disagg: cannot start: its port 8000 (http) is in use on n1";
    run.on(Event::Tail(GEN, vec![said.to_owned()], None));
    let verdict = run.verdict();
    let message = "GEN_0 cannot be started: its port 8000 (http) is in use on n1";
    assert_eq!((verdict.kind, verdict.message.as_str()), (VerdictKind::StartFailed, message));
}
