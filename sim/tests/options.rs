// SPDX-License-Identifier: Apache-2.0
//! Options of plugins on the command line, in the script and in the environment.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, environ};
use slurm_sim::{Level, Outcome, Release};

const R: Release = Release::V22_05;

fn options(args: &[&str]) -> Vec<(String, Option<String>)> {
    let bench = Bench::new();
    let mut args = args.to_vec();
    args.push("true");
    let trace = bench.cluster(R, "").srun(&args, &environ()).unwrap().client;
    trace
        .options()
        .into_iter()
        .map(|(name, argument, _)| (name.to_owned(), argument.map(str::to_owned)))
        .collect()
}

fn given(name: &str, argument: Option<&str>) -> (String, Option<String>) {
    (name.to_owned(), argument.map(str::to_owned))
}

#[test]
fn options_and_their_arguments_are_read_as_getopt_reads_them() {
    for (args, name, argument) in [
        (&["--probe-config=F"][..], "probe-config", Some("F")),
        (&["--probe-config", "F"], "probe-config", Some("F")),
        (&["--probe-conf=F"], "probe-config", Some("F")),
        (&["--probe-maybe=F"], "probe-maybe", Some("F")),
        (&["--probe-maybe"], "probe-maybe", None),
        (&["--probe-flag"], "probe-flag", None),
    ] {
        assert_eq!(options(args), [given(name, argument)], "{args:?}");
    }
    // Words of the command are no options.
    assert!(options(&["echo", "--probe-config=F"]).is_empty());
    assert!(options(&["--", "echo", "--probe-config=F"]).is_empty());
}

#[test]
fn the_static_table_counts_in_srun_and_not_in_sbatch() {
    assert_eq!(options(&["--probe-table=F"]), [given("probe-table", Some("F"))]);
    let bench = Bench::new();
    let script = bench.script("true");
    let trace = bench.cluster(R, "").sbatch(&["--probe-table=F", &script], &environ()).unwrap();
    assert_eq!(trace.outcome, Outcome::Exit(255));
    assert!(trace.stderr.contains("unrecognized option '--probe-table=F'"), "{}", trace.stderr);
}

#[test]
fn a_wrong_option_ends_the_program_in_slurms_words() {
    let bench = Bench::new();
    for (args, part) in [
        (&["--no-such-option", "true"][..], "srun: unrecognized option '--no-such-option'"),
        (&["--no-such-option", "true"], "Try \"srun --help\" for more information"),
        (&["--probe-", "true"], "ambiguous"),
        (&["--probe-config"], "requires an argument"),
        (&["--probe-flag=1", "true"], "doesn't allow an argument"),
        (
            &["--probe-config=refuse", "true"],
            "srun: error: Invalid --probe-config argument: refuse",
        ),
    ] {
        let trace = bench.cluster(R, "").srun(args, &environ()).unwrap().client;
        assert_eq!(trace.outcome, Outcome::Exit(255), "{args:?}");
        assert!(
            trace.step().is_none() && trace.stderr.contains(part),
            "{args:?}: {}",
            trace.stderr
        );
    }
}

#[test]
fn a_script_line_gives_options_and_the_command_line_comes_after() {
    let bench = Bench::new();
    let script = bench.script("#SBATCH -N2 --probe-config=S\ntrue\n#SBATCH --probe-config=late");
    let cluster = bench.cluster(R, "");
    let trace = cluster.sbatch(&["--probe-config=C", &script], &environ()).unwrap();
    let arguments: Vec<_> = trace.options().iter().map(|(_, argument, _)| *argument).collect();
    assert_eq!(arguments, [Some("S"), Some("C")]);
    let submission = trace.submissions()[0];
    assert_eq!(submission.request.nodes.unwrap().0, (2, 2));
    assert_eq!(submission.environment.get("_SLURM_SPANK_OPTION_probe_probe_config"), Some("C"));
}

#[test]
fn an_option_of_sbatch_is_seen_by_srun_in_the_job() {
    let bench = Bench::new();
    let script = bench.script("true");
    let cluster = bench.cluster(R, "");
    for export in ["ALL", "NONE", "MINE"] {
        let export = format!("--export={export}");
        let args = ["--probe-config=F", "--probe-flag", &export, &script];
        let sbatch = cluster.sbatch(&args, &environ()).unwrap();
        let submission = sbatch.submissions()[0];
        let allocation = cluster.allocate_for(submission).unwrap();
        let batch = cluster.batch(submission, &allocation).unwrap();
        let environ = &batch.ranks()[0].environment;
        let run = cluster.srun_in(&allocation, 0, &["true"], environ).unwrap();
        assert_eq!(
            run.client.options(),
            [("probe-config", Some("F"), false), ("probe-flag", Some("(null)"), false)],
            "{export}"
        );
        let run = cluster.srun_in(&allocation, 0, &["--probe-config=G", "true"], environ);
        let run = run.unwrap();
        assert_eq!(run.client.options()[2], ("probe-config", Some("G"), false));
        assert_eq!(run.stepds[0].options()[0], ("probe-config", Some("G"), true));
    }
}

#[test]
fn option_variables_do_not_reach_the_tasks() {
    let bench = Bench::new();
    let run = bench.cluster(R, "").srun(&["--probe-config=F", "true"], &environ()).unwrap();
    let ranks = run.ranks();
    assert!(ranks[0].environment.iter().all(|(name, _)| !name.starts_with("_SLURM_SPANK")));
}

#[test]
fn a_refusal_in_slurmstepd_is_only_logged() {
    let bench = Bench::new();
    let run = bench.cluster(R, "").srun(&["--probe-config=F", "true"], &environ()).unwrap();
    let mut step = run.client.step().unwrap().clone();
    step.options[0].argument = Some("refuse".into());
    let stepd = bench.cluster(R, "").stepd(&step, 0).unwrap();
    let errors = stepd.log(Level::Error);
    assert!(errors.contains(&"spank: failed to process option probe-config=refuse"));
    assert_eq!(stepd.ranks().len(), 1);
}

#[test]
fn plugins_see_the_programs_own_command_line() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "init:cmdline");
    let run = cluster.srun(&["-N1", "--probe-config", "F", "sleep", "1"], &environ()).unwrap();
    assert_eq!(run.client.log(Level::SpankLog), ["cmdline srun -N1 --probe-config F sleep 1"]);
}
