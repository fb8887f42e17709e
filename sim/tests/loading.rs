// SPDX-License-Identifier: Apache-2.0
//! How plugins are loaded: versions, plugstack.conf, constructors, what each release exports.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, bare, environ};
use slurm_sim::{Hook, Level, Outcome, Release, Trace, What};

fn srun(cluster: &slurm_sim::Cluster) -> Trace {
    cluster.srun(&["true"], &environ()).unwrap().client
}

#[test]
fn a_plugin_that_adopts_the_version_loads_in_every_release() {
    let bench = Bench::new();
    for release in Release::ALL {
        let trace = srun(&bench.cluster(release, ""));
        assert!(trace.is_clean(), "{release}: {trace:#?}");
        let version = trace.events.iter().find_map(|event| match &event.what {
            What::Loaded { version, .. } => *version,
            _ => None,
        });
        assert_eq!(version.and_then(Release::of_version_number), Some(release));
    }
}

#[test]
fn a_plugin_of_another_release_is_refused_from_22_05_on() {
    let bench = Bench::new();
    let defines = &["-DVERSION=0x130500"];
    for release in Release::ALL {
        let trace = srun(&bench.cluster_with("required", release, "", defines));
        if release < Release::V22_05 {
            assert!(trace.is_clean(), "{release}");
            continue;
        }
        assert_eq!(trace.outcome, Outcome::Exit(1), "{release}");
        assert_eq!(trace.refused()[0].1, "Incompatible plugin version");
        assert!(trace.log(Level::Info)[0].contains("version (19.05.0)"), "{release}");
        assert!(trace.stderr.contains("Aborting"), "{}", trace.stderr);
    }
    let optional = srun(&bench.cluster_with("optional", Release::V22_05, "", defines));
    assert_eq!((optional.outcome.clone(), optional.order().len()), (Outcome::Exit(0), 0));
    // The micro number does not matter.
    let micro = bench.cluster_with("required", Release::V22_05, "", &["-DVERSION=0x1605ff"]);
    assert!(srun(&micro).is_clean());
}

#[test]
fn a_relative_path_of_another_release_is_not_found_from_21_08_on() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &["-DVERSION=0x130500"]);
    for (release, code) in [(Release::V20_11, 0), (Release::V21_08, 1)] {
        let cluster =
            bare(release).plugstack("required probe.so\n").plugin_dir(probe.parent().unwrap());
        assert_eq!(srun(&cluster).outcome, Outcome::Exit(code), "{release}");
    }
}

#[test]
fn a_missing_file_is_fatal_when_required() {
    for (kind, code) in [("required", 1), ("optional", 0)] {
        let trace = srun(&bare(Release::V22_05).plugstack(format!("{kind} /no/such.so\n")));
        assert_eq!(trace.outcome, Outcome::Exit(code));
        assert_eq!(trace.refused().len(), 1);
    }
}

#[test]
fn a_relative_path_is_loaded_twice() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    let cluster = bare(Release::V22_05).plugstack("required probe.so\n");
    let relative = srun(&cluster.clone().plugin_dir(probe.parent().unwrap()));
    assert!(relative.is_clean());
    assert_eq!(relative.constructor_runs(), 2);
    let absolute = srun(&cluster.plugstack(format!("required {}\n", probe.display())));
    assert_eq!(absolute.constructor_runs(), 1);
}

#[test]
fn arguments_reach_the_callbacks() {
    let bench = Bench::new();
    let trace = srun(&bench.cluster(Release::V22_05, "a=1 b=two # a comment"));
    let args = trace.events.iter().find_map(|event| match &event.what {
        What::Enter { function: slurm_sim::Function::Hook(Hook::Init), args, .. } => Some(args),
        _ => None,
    });
    assert_eq!(args.unwrap(), &["a=1", "b=two"]);
}

#[test]
fn a_malformed_line_is_ignored_with_an_error() {
    let trace = srun(&bare(Release::V22_05).plugstack("\n# note\nperhaps x.so\nrequired\n"));
    assert_eq!(trace.outcome, Outcome::Exit(0));
    assert_eq!(
        trace.log(Level::Error),
        [
            "spank: Invalid option \"perhaps\". Must be required, optional or include",
            "spank: plugstack.conf:3: Invalid line. Ignoring.",
            "spank: plugstack.conf:4: Invalid line. Ignoring."
        ]
    );
}

#[test]
fn included_files_are_read() {
    let bench = Bench::new();
    let probe = bench.probe("probe", &[]);
    std::fs::write(bench.path("a.conf"), format!("required {}\n", probe.display())).unwrap();
    let pattern = bench.path("*.conf");
    let trace = srun(&bare(Release::V22_05).plugstack(format!("include {}\n", pattern.display())));
    assert_eq!(trace.order().first(), Some(&"init"));
}

#[test]
fn two_plugins_are_called_in_their_order() {
    let bench = Bench::new();
    let first = bench.probe("first", &["-DNAME=\"first\""]);
    let second = bench.probe("second", &["-DNAME=\"second\""]);
    let stack = format!(
        "required {} init:environ:A:1\nrequired {} init:show-environ:A\n",
        first.display(),
        second.display()
    );
    let trace = srun(&bare(Release::V22_05).plugstack(stack));
    assert_eq!(trace.log(Level::SpankLog), ["environ A=1"]);
    assert!(trace.log(Level::Info)[0].contains("is provided twice"));
}

#[test]
fn a_required_failure_keeps_the_later_plugins_from_running() {
    let bench = Bench::new();
    let first = bench.probe("first", &["-DNAME=\"first\""]);
    let second = bench.probe("second", &["-DNAME=\"second\""]);
    let stack =
        format!("required {} init:return:-1\nrequired {}\n", first.display(), second.display());
    let trace = srun(&bare(Release::V22_05).plugstack(stack));
    assert_eq!(trace.order(), ["init"]);
    assert_eq!(trace.outcome, Outcome::Exit(1));
}

#[test]
fn prepend_task_argv_exists_from_23_11_on() {
    let bench = Bench::new();
    for (release, argv) in [
        (Release::V23_02, &["sleep", "1"][..]),
        (Release::V23_11, &["nice", "-n1", "sleep", "1"][..]),
    ] {
        let cluster = bench.cluster(release, "task_init:prepend:nice:-n1");
        let run = cluster.srun(&["sleep", "1"], &environ()).unwrap();
        assert_eq!(run.ranks()[0].argv, argv, "{release}");
    }
    // It is for the callbacks of a task.
    let cluster = bench.cluster(Release::V23_11, "user_init:prepend:a:b");
    let run = cluster.srun(&["true"], &environ()).unwrap();
    assert_eq!(run.stepds[0].results_of("spank_prepend_task_argv"), [3002]);
    assert_eq!(run.stepds[0].violations().len(), 1);
}

#[test]
fn slurmd_of_20_11_loads_a_plugin_for_slurmd_exit_only() {
    let bench = Bench::new();
    for (release, order) in [(Release::V20_11, &[][..]), (Release::V21_08, &["init"])] {
        let defines = &["-DWITHOUT_SLURMD_EXIT"];
        let trace = bench.cluster_with("required", release, "", defines).slurmd().unwrap();
        assert_eq!(trace.order(), order, "{release}");
    }
}

#[test]
fn prologs_without_such_hooks_load_nothing() {
    let bench = Bench::new();
    let script = bench.script("true");
    let cluster = bench.cluster(Release::V22_05, "");
    let sbatch = cluster.sbatch(&[&script], &environ()).unwrap();
    assert!(cluster.prolog(sbatch.submissions()[0]).unwrap().order().is_empty());
}
