// SPDX-License-Identifier: Apache-2.0
//! Every rule is enforced: a wrong call gets the release's error and leaves a violation.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, environ};
use slurm_sim::{Function, Hook, JobRun, Level, Outcome, Release, Rule, SpankError, Trace};
use std::time::Duration;

const R: Release = Release::V22_05;

fn sbatch(actions: &str) -> Trace {
    let bench = Bench::new();
    let script = bench.script("true");
    bench.cluster(R, actions).sbatch(&["--probe-config=F", &script], &environ()).unwrap()
}

fn srun(actions: &str) -> JobRun {
    let bench = Bench::new();
    bench.cluster(R, actions).srun(&["--probe-config=F", "-n2", "true"], &environ()).unwrap()
}

fn stepd(actions: &str) -> Trace {
    srun(actions).stepds.remove(0)
}

fn client(actions: &str) -> Trace {
    srun(actions).client
}

fn slurmd(actions: &str) -> Trace {
    Bench::new().cluster(R, actions).slurmd().unwrap()
}

/// Plays a program with one action.
type Play = fn(&str) -> Trace;

#[test]
fn a_wrong_call_gets_its_error_and_is_the_only_violation() {
    use SpankError::{BadArg, NotAvail, NotLocal, NotRemote, NotTask};
    let cases: &[(Play, &str, &str, SpankError)] = &[
        (sbatch, "init:setenv:A:1", "spank_setenv", NotRemote),
        (sbatch, "init_post_opt:setenv:A:1", "spank_setenv", NotRemote),
        (sbatch, "exit:setenv:A:1", "spank_setenv", NotRemote),
        (client, "local_user_init:setenv:A:1", "spank_setenv", NotRemote),
        (sbatch, "init:getenv:A:9", "spank_getenv", NotRemote),
        (sbatch, "init:unsetenv:A", "spank_unsetenv", NotRemote),
        (stepd, "user_init:control-set:A:1", "spank_job_control_setenv", NotLocal),
        (stepd, "user_init:control-get:A", "spank_job_control_getenv", NotLocal),
        (stepd, "user_init:control-unset:A", "spank_job_control_unsetenv", NotLocal),
        (slurmd, "init:control-set:A:1", "spank_job_control_setenv", NotAvail),
        (sbatch, "init:getopt", "spank_option_getopt", NotAvail),
        (sbatch, "init_post_opt:getopt", "spank_option_getopt", NotAvail),
        (sbatch, "exit:getopt", "spank_option_getopt", NotAvail),
        (sbatch, "init_post_opt:register", "spank_option_register", BadArg),
        (sbatch, "init:register-nameless", "spank_option_register", BadArg),
        (sbatch, "init_post_opt:item32:0", "spank_get_item", NotAvail),
        (sbatch, "init_post_opt:item32:2", "spank_get_item", BadArg),
        (sbatch, "init_post_opt:item32:5", "spank_get_item", NotRemote),
        (sbatch, "init:item32:99", "spank_get_item", BadArg),
        (slurmd, "init:item32:0", "spank_get_item", NotAvail),
        (client, "local_user_init:item32:5", "spank_get_item", NotRemote),
        (stepd, "user_init:item32:12", "spank_get_item", NotTask),
        (stepd, "exit:item32:11", "spank_get_item", NotTask),
        (stepd, "user_init:item-null:2", "spank_get_item", BadArg),
    ];
    for (play, actions, call, error) in cases {
        let trace = play(actions);
        let (results, number) = (trace.results_of(call), error.number(R).into());
        assert!(results.contains(&number), "{actions}: {results:?}");
        assert_eq!(trace.violations().len(), 1, "{actions}: {:?}", trace.violations());
        let hook = trace.violations()[0].function.as_ref().map(|function| format!("{function:?}"));
        let expected = actions.split(':').next().unwrap().replace('_', "");
        assert!(hook.unwrap().to_lowercase().contains(&expected), "{actions}");
    }
    assert!(!stepd("task_post_fork:getopt").violations().is_empty());
    let long = sbatch("init:register-long");
    let number = SpankError::Nospace.number(R).into();
    assert!(long.results_of("spank_option_register").contains(&number));
    assert!(long.log(Level::Error)[0].contains("too long"));
}

#[test]
fn each_mistake_is_a_violation_of_its_rule() {
    let cases: &[(Play, &str, Rule)] = &[
        (sbatch, "init:setenv:A:1", Rule::WrongContext),
        (sbatch, "init:getopt", Rule::WrongContext),
        (sbatch, "init:register-nameless", Rule::BadArgument),
        (stepd, "user_init:item-null:2", Rule::WouldCrash),
        (sbatch, "init:null-handle", Rule::BadArgument),
        (sbatch, "exit:return:5", Rule::ReturnValue),
        (sbatch, "init:chdir:/tmp", Rule::ProcessState),
        (sbatch, "init:block", Rule::ProcessState),
        (sbatch, "init:foreign", Rule::ForeignPointer),
        (sbatch, "init:abort", Rule::Crashed),
        (slurmd, "init:leave:0", Rule::Exited),
    ];
    for (play, actions, rule) in cases {
        assert_eq!(play(actions).violations()[0].rule, *rule, "{actions}");
    }
    assert_eq!(sbatch("init:null-handle").results_of("spank_remote"), [-1]);
    assert_eq!(sbatch("init:foreign").outcome, Outcome::Exit(0));
    let aborted = sbatch("init:abort").outcome;
    assert!(matches!(aborted, Outcome::Crashed { signal: libc::SIGABRT, .. }), "{aborted:?}");
    // A task may change its own process, and memory of Slurm's is given and taken.
    assert!(stepd("task_init:chdir:/tmp").is_clean());
    let memory = sbatch("init:memory");
    assert_eq!(memory.log(Level::SpankLog), ["memory text 1"]);
    assert!(memory.is_clean());
}

#[test]
fn errors_have_the_numbers_of_the_release() {
    let bench = Bench::new();
    for (release, number) in [(Release::V20_11, 7), (Release::V21_08, 3006)] {
        let trace = bench.cluster(release, "init:setenv:A:1").srun(&["true"], &environ()).unwrap();
        assert_eq!(trace.client.results_of("spank_setenv"), [number]);
        assert_eq!(trace.client.log(Level::Info), [format!("init: setenv gave {number}")]);
    }
}

#[test]
fn job_control_in_a_prolog_would_crash() {
    let bench = Bench::new();
    let script = bench.script("true");
    let cluster =
        bench.cluster_with("required", R, "job_prolog:control-set:A:1", &["-DWITH_SCRIPTS"]);
    let sbatch = cluster.sbatch(&[&script], &environ()).unwrap();
    let prolog = cluster.prolog(sbatch.submissions()[0]).unwrap();
    assert_eq!(prolog.violations()[0].rule, Rule::WouldCrash);
}

#[test]
fn getopt_gives_the_argument_where_it_is_allowed() {
    let run = srun("local_user_init:getopt user_init:getopt task_init:getopt task_exit:getopt");
    assert_eq!(run.client.log(Level::SpankLog), ["getopt F"]);
    assert_eq!(run.stepds[0].log(Level::SpankLog), ["getopt F"; 5]);
    assert!(run.traces().all(Trace::is_clean));
}

#[test]
fn sbatch_has_the_version_items_and_no_others() {
    let trace = sbatch("init:text:20 init:text:21 init:text:22 init:text:23");
    assert_eq!(
        trace.log(Level::SpankLog),
        ["item 20=22.05.8", "item 21=22", "item 22=05", "item 23=8"]
    );
    assert!(trace.is_clean());
}

#[test]
fn local_user_init_has_ids_sizes_and_command() {
    let run = srun(
        "local_user_init:item32:2 local_user_init:item32:3 local_user_init:item32:7 \
         local_user_init:argv",
    );
    assert_eq!(
        run.client.log(Level::SpankLog),
        ["item 2=1234", "item 3=0", "item 7=2", "argv 1 true"]
    );
}

#[test]
fn task_items_exist_in_task_callbacks_only() {
    let trace = stepd("task_init:item32:12 task_init:item32:11");
    assert_eq!(trace.log(Level::SpankLog), ["item 12=0", "item 11=0", "item 12=1", "item 11=1"]);
}

#[test]
fn the_exit_status_exists_once_a_task_ended() {
    let trace = stepd("task_exit:item32:13");
    assert_eq!(trace.log(Level::SpankLog), ["item 13=0", "item 13=0"]);
    let trace = stepd("task_post_fork:item32:13");
    assert_eq!(trace.violations().len(), 2);
}

#[test]
fn the_batch_step_does_not_know_its_nodes() {
    let bench = Bench::new();
    let (_, batch) = bench.batch(&bench.cluster(R, "task_init:item32:4"), &["-N2"]);
    assert_eq!(batch.log(Level::SpankLog), ["item 4=0"]);
}

#[test]
fn ids_are_mapped_between_node_and_step() {
    let bench = Bench::new();
    let run = bench
        .cluster(R, "user_init:map:17:1 user_init:map:18:3")
        .srun(&["-N2", "-n4", "true"], &environ())
        .unwrap();
    assert_eq!(run.stepds[1].log(Level::SpankLog), ["map 17 1=3", "map 18 3=1"]);
    let noexist = i64::from(SpankError::Noexist.number(R));
    assert_eq!(run.stepds[0].results_of("spank_get_item"), [0, noexist]);
}

#[test]
fn a_handle_ends_with_its_callback() {
    let trace = stepd("user_init:keep task_post_fork:use-kept");
    assert!(trace.violations().iter().all(|v| v.rule == Rule::StaleHandle));
    assert_eq!(trace.violations().len(), 2);
}

#[test]
fn getenv_says_when_the_buffer_is_too_small() {
    let trace = stepd("user_init:getenv:PATH:3 user_init:getenv:NONE_SUCH:9");
    assert_eq!(
        trace.results_of("spank_getenv"),
        [SpankError::Nospace, SpankError::EnvNoexist].map(|e| i64::from(e.number(R)))
    );
    assert!(trace.is_clean(), "neither is a mistake");
}

#[test]
fn setenv_without_overwrite_keeps_the_old_value() {
    let trace = stepd("user_init:setenv-once:MINE:no");
    let exists: i64 = SpankError::EnvExists.number(R).into();
    assert_eq!(trace.results_of("spank_setenv"), [exists]);
    assert_eq!(trace.ranks()[0].environment.get("MINE"), Some("yes"));
}

#[test]
fn a_crash_is_reported_with_its_callback() {
    let trace = sbatch("init_post_opt:crash");
    let function = Some(Function::Hook(Hook::InitPostOpt));
    assert_eq!(trace.outcome, Outcome::Crashed { function, signal: libc::SIGSEGV });
    assert_eq!(trace.violations()[0].rule, Rule::Crashed);
}

#[test]
fn a_crash_of_a_task_is_reported_and_the_step_goes_on() {
    let trace = stepd("task_init:crash");
    let violations = trace.violations();
    assert_eq!(violations.len(), 2);
    assert!(
        violations
            .iter()
            .all(|v| v.rule == Rule::Crashed && v.function == Some(Function::Hook(Hook::TaskInit)))
    );
    assert_eq!(trace.order().last(), Some(&"exit"));
    assert_eq!(trace.outcome, Outcome::Exit(128 + libc::SIGSEGV));
}

#[test]
fn a_hang_is_ended_and_reported_with_its_callback() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "init_post_opt:hang").limit(Duration::from_millis(200));
    let trace = cluster.srun(&["true"], &environ()).unwrap().client;
    let function = Some(Function::Hook(Hook::InitPostOpt));
    assert_eq!(trace.outcome, Outcome::Hung { function: function.clone() });
    assert_eq!(trace.violations()[0].rule, Rule::Hung);
    assert_eq!(trace.violations()[0].function, function);
}

#[test]
fn a_hanging_option_callback_is_named() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "").limit(Duration::from_millis(200));
    let trace = cluster.srun(&["--probe-config=hang", "true"], &environ()).unwrap().client;
    assert!(matches!(
        trace.outcome,
        Outcome::Hung { function: Some(Function::Option { ref name, .. }) } if name == "probe-config"
    ));
}

#[test]
fn a_task_that_hangs_is_ended_and_the_step_goes_on() {
    let bench = Bench::new();
    let cluster = bench.cluster(R, "task_init:hang").limit(Duration::from_millis(200));
    let stepd = cluster.srun(&["true"], &environ()).unwrap().stepds.remove(0);
    assert_eq!(stepd.violations()[0].rule, Rule::Hung);
    assert_eq!(stepd.order().last(), Some(&"exit"));
}

#[test]
fn an_exit_in_a_callback_is_reported() {
    let trace = sbatch("init:exit:0");
    let function = Some(Function::Hook(Hook::Init));
    assert_eq!(trace.outcome, Outcome::Exited { function, code: 0 });
    assert_eq!(trace.violations()[0].rule, Rule::Exited);
}

#[test]
fn a_client_may_be_left_with_exit_and_slurms_handler_runs() {
    let trace = sbatch("init_post_opt:leave:1");
    let function = Some(Function::Hook(Hook::InitPostOpt));
    assert_eq!(trace.outcome, Outcome::Exited { function, code: 1 });
    assert_eq!(trace.order(), ["init", "option", "init_post_opt", "exit"]);
    assert!(trace.violations().is_empty() && trace.submissions().is_empty());
}

#[test]
fn exit_before_the_handler_is_there_runs_no_exit_hook() {
    assert_eq!(sbatch("init:leave:1").order(), ["init"]);
    assert_eq!(srun("init_post_opt:leave:1").client.order().last(), Some(&"init_post_opt"));
    assert_eq!(srun("local_user_init:leave:1").client.order().last(), Some(&"exit"));
}

#[test]
fn a_task_may_be_given_up_in_its_own_process_and_fails() {
    let bench = Bench::new();
    let of = |fault| bench.cluster(R, fault).srun(&["true"], &environ()).unwrap().stepds.remove(0);
    let stepd = of("task_init:exit:7");
    assert!(stepd.violations().is_empty() && stepd.ranks().is_empty());
    assert_eq!((&stepd.outcome, stepd.order().last()), (&Outcome::Exit(7), Some(&"exit")));
    assert_eq!(of("task_init:exit:0").violations()[0].rule, Rule::Exited);
    assert_eq!(of("task_init_privileged:exit:7").violations()[0].rule, Rule::Exited);
}

#[test]
fn a_crash_in_a_constructor_is_reported() {
    let bench = Bench::new();
    let cluster = bench.cluster_with("optional", R, "", &["-DCRASH_IN_CONSTRUCTOR"]);
    let trace = cluster.srun(&["true"], &environ()).unwrap().client;
    assert!(matches!(
        trace.outcome,
        Outcome::Crashed { function: Some(Function::Constructor), .. }
    ));
}

#[test]
fn a_required_failure_in_slurmstepd_drains_the_node() {
    let trace = stepd("user_init:return:0 init_post_opt:show-environ:X");
    assert!(trace.is_clean());
    let bench = Bench::new();
    let run = bench.cluster(R, "").srun(&["true"], &environ()).unwrap();
    let step = run.client.step().unwrap();
    let failing = bench.cluster(R, "init_post_opt:return:-1");
    let trace = failing.stepd(step, 0).unwrap();
    assert_eq!(trace.violations()[0].rule, Rule::NodeDrained);
    assert!(trace.ranks().is_empty());
}

#[test]
fn the_failure_mode_spares_the_node_from_25_05_on() {
    let bench = Bench::new();
    let step = bench.cluster(R, "").srun(&["true"], &environ()).unwrap().client;
    let step = step.step().unwrap();
    let defines = &["-DWITH_FAILURE_MODE"];
    for (release, drained) in [(Release::V24_11, true), (Release::V25_05, false)] {
        let failing = bench.cluster_with("required", release, "init:return:-1", defines);
        let trace = failing.stepd(step, 0).unwrap();
        assert_eq!(trace.outcome, Outcome::Exit(1));
        let found = trace.violations().iter().any(|v| v.rule == Rule::NodeDrained);
        assert_eq!(found, drained, "{release}");
    }
}

#[test]
fn a_required_failure_of_task_init_ends_that_task() {
    let trace = stepd("task_init:return:-1");
    assert!(trace.ranks().is_empty());
    assert!(trace.log(Level::Error).contains(&"Failed to invoke spank plugin stack"));
    assert_eq!(trace.outcome, Outcome::Exit(1));
    assert!(trace.violations().is_empty(), "a task may be failed that way");
}

#[test]
fn a_required_failure_ends_the_client_and_an_optional_one_does_not() {
    let bench = Bench::new();
    let script = bench.script("true");
    for (kind, code, submitted) in [("required", 1, 0), ("optional", 0, 1)] {
        let cluster = bench.cluster_with(kind, R, "init_post_opt:return:-1", &[]);
        let trace = cluster.sbatch(&[&script], &environ()).unwrap();
        assert_eq!(trace.outcome, Outcome::Exit(code), "{kind}");
        assert_eq!(trace.submissions().len(), submitted, "{kind}");
    }
}

#[test]
fn a_positive_result_fails_the_client_from_25_05_on() {
    let bench = Bench::new();
    for (release, code) in [(Release::V20_11, 0), (Release::V24_11, 0), (Release::V25_05, 1)] {
        let cluster = bench.cluster(release, "init_post_opt:return:1");
        let trace = cluster.srun(&["true"], &environ()).unwrap().client;
        assert_eq!(trace.outcome, Outcome::Exit(code), "{release}");
    }
}

#[test]
fn srun_ends_without_the_exit_hook_when_it_has_no_allocation() {
    let run = srun("init_post_opt:return:-1");
    assert_eq!(run.client.order(), ["init", "option", "init_post_opt"]);
    assert!(run.stepds.is_empty());
}

#[test]
fn log_lines_look_as_the_programs_print_them() {
    let trace = sbatch("init_post_opt:log");
    assert!(trace.stderr.contains("sbatch: error: an error 1\n"), "{}", trace.stderr);
    let shown = ["sbatch: an info line", "sbatch: 100% seen"];
    assert!(shown.iter().all(|line| trace.stderr.lines().any(|l| l == *line)));
    let trace = stepd("user_init:log");
    assert!(trace.stderr.contains("slurmstepd: error: an error 1\n"));
    assert!(!trace.stderr.contains("an info"), "a daemon's info goes to its log file");
}

#[test]
fn hooks_and_errors_are_explained() {
    let trace = sbatch(
        "init:supported:slurm_spank_task_exit init:supported:slurm_spank_init_failure_mode \
         init:strerror:3006",
    );
    assert_eq!(
        trace.log(Level::SpankLog),
        [
            "supported slurm_spank_task_exit 1",
            "supported slurm_spank_init_failure_mode 0",
            "strerror Valid only in remote context"
        ]
    );
}
