// SPDX-License-Identifier: Apache-2.0
//! Calls that fail on demand.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Bench, environ};
use slurm_sim::{Fault, Level, Release, SpankError, What};

#[test]
fn a_call_fails_with_the_releases_number_of_an_error() {
    let bench = Bench::new();
    for (release, number) in [(Release::V20_11, 6), (Release::V22_05, 3005)] {
        let run = bench
            .cluster(release, "user_init:setenv:A:1")
            .fault(Fault::always("spank_setenv", SpankError::Nospace))
            .srun(&["true"], &environ())
            .unwrap();
        assert_eq!(run.stepds[0].results_of("spank_setenv"), [number]);
        assert_eq!(run.ranks()[0].environment.get("A"), None);
        assert!(run.stepds[0].is_clean(), "a fault is not the plugin's");
    }
}

#[test]
fn only_the_nth_call_fails_when_one_is_named() {
    let bench = Bench::new();
    let run = bench
        .cluster(Release::V22_05, "user_init:setenv:A:1 user_init:setenv:B:1 user_init:setenv:C:1")
        .fault(Fault::nth("spank_setenv", 2, SpankError::Error))
        .srun(&["true"], &environ())
        .unwrap();
    assert_eq!(run.stepds[0].results_of("spank_setenv"), [0, 3000, 0]);
    let injected: Vec<_> = run.stepds[0]
        .events
        .iter()
        .filter_map(|event| match &event.what {
            What::Call { name, injected, .. } if name == "spank_setenv" => Some(*injected),
            _ => None,
        })
        .collect();
    assert_eq!(injected, [false, true, false]);
}

#[test]
fn every_call_can_fail() {
    let bench = Bench::new();
    for (call, actions, result) in [
        ("spank_option_register", "init:register", 3001),
        ("spank_get_item", "init:text:20", 3001),
        ("spank_job_control_setenv", "init:control-set:A:1", 3001),
        ("spank_job_control_getenv", "init:control-get:A", 3001),
        ("spank_job_control_unsetenv", "init:control-unset:A", 3001),
        ("spank_context", "init:context", 0),
        ("spank_remote", "init:context", -1),
        ("spank_symbol_supported", "init:supported:slurm_spank_init", -1),
    ] {
        let run = bench
            .cluster(Release::V22_05, actions)
            .fault(Fault::always(call, SpankError::BadArg))
            .srun(&["true"], &environ())
            .unwrap();
        let results = run.client.results_of(call);
        assert!(!results.is_empty() && results.iter().all(|rc| *rc == result), "{call}");
    }
}

#[test]
fn memory_can_run_out() {
    let bench = Bench::new();
    for call in ["slurm_xstrdup", "slurm_xcalloc"] {
        let run = bench
            .cluster(Release::V22_05, "init:memory")
            .fault(Fault::always(call, SpankError::Error))
            .srun(&["true"], &environ())
            .unwrap();
        let expected = if call == "slurm_xstrdup" { "memory NULL 1" } else { "memory text 0" };
        assert_eq!(run.client.log(Level::SpankLog), [expected]);
    }
}

#[test]
fn a_missing_api_version_leaves_a_plugin_its_built_in_version() {
    let bench = Bench::new();
    let run = bench
        .cluster_with("optional", Release::V22_05, "", &[])
        .fault(Fault::always("slurm_api_version", SpankError::Error))
        .srun(&["true"], &environ())
        .unwrap();
    assert_eq!(run.client.refused().len(), 1);
}
