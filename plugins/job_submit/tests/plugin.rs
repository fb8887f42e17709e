// SPDX-License-Identifier: Apache-2.0
//! The plugin as slurmctld calls it, through its C entries, with Slurm's own allocator.
#![cfg(have_slurm)]
#![allow(clippy::unwrap_used)]

mod common;

use std::ptr;

use common::{Submission, loaded, read, text};
use disagg_host::demand::Demand;
use job_submit_disagg::desc::Desc;
use job_submit_disagg::settings::Settings;
use job_submit_disagg::size::decide;
use job_submit_disagg::slurm::{NO_VAL, SLURM_VERSION_NUMBER};
use job_submit_disagg::tres::TresForm;
use proptest::prelude::*;

const DEMAND: &[u8] =
    b"DISAGG_DEMAND=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c time_min=240";

#[test]
fn a_job_with_a_demand_is_sized() {
    let mut job = Submission::new(&[b"OTHER=1", DEMAND]);
    assert_eq!(job.submit(), Ok(()));
    assert_eq!((job.desc.min_nodes, job.desc.max_nodes), (3, 3));
    assert_eq!((job.desc.num_tasks, job.desc.ntasks_per_node), (12, 4));
    let form = TresForm::of_release(SLURM_VERSION_NUMBER);
    assert_eq!(read(job.desc.tres_per_node), Some(form.with_gpus(None, None, 4)));
    assert_eq!(read(job.desc.comment).as_deref(), Some("disagg config=c nodes=3 gpus=12"));
}

#[test]
fn a_job_without_a_demand_is_untouched() {
    for entry in ["", "OTHER=1", "DISAGG_DEMANDS=x", "DISAGG_DEMAND", "XDISAGG_DEMAND=v1 "] {
        let mut job = Submission::new(&[entry.as_bytes()]);
        let before = *job.desc;
        assert_eq!(job.submit(), Ok(()));
        // Padding aside, which nobody writes, every byte is as it was.
        assert_eq!(format!("{before:?}"), format!("{:?}", *job.desc));
    }
}

#[test]
fn a_contradiction_is_refused_with_both_numbers_and_nothing_is_written() {
    let mut job = Submission::new(&[DEMAND]);
    (job.desc.min_nodes, job.desc.max_nodes) = (1, 1);
    assert_eq!(
        job.submit().unwrap_err(),
        "disagg: 1 node asked for, but the plan of c needs 3 nodes: \
         leave --nodes out or say --nodes=3"
    );
    assert_eq!(job.desc.num_tasks, NO_VAL);
    assert!(job.desc.tres_per_node.is_null() && job.desc.comment.is_null());
}

#[test]
fn several_contradictions_are_one_line_each() {
    let mut job = Submission::new(&[DEMAND]);
    (job.desc.min_nodes, job.desc.max_nodes, job.desc.time_limit) = (4, 4, 5);
    let refusal = job.submit().unwrap_err();
    assert_eq!(refusal.lines().count(), 2);
    assert!(refusal.lines().all(|line| line.starts_with("disagg: ")));
}

#[test]
fn what_the_submitter_asked_for_besides_gpus_stays() {
    let mut job = Submission::new(&[DEMAND]);
    job.desc.tres_per_node = text(b"gres:nic:1");
    assert_eq!(job.submit(), Ok(()));
    assert!(read(job.desc.tres_per_node).unwrap().starts_with("gres:nic:1,"));
}

#[test]
fn a_partition_of_any_bytes_is_not_taken_for_the_default_one() {
    let settings = Settings::parse("allowed_partitions=batch").0;
    let demand = Demand::parse("v1 nodes=1 tasks=1 tasks_per_node=1 gpus_per_node=1 config=c");
    let mut job = Submission::new(&[]);
    job.desc.partition = text(b"b\xff");
    // SAFETY: a whole description.
    let desc = unsafe { Desc::new(&mut job.desc) };
    let ask = desc.ask(Some(c"batch"));
    let refusals = decide(&ask, &demand.unwrap(), &settings, TresForm::Colon).unwrap_err();
    assert!(refusals[0].starts_with("partition b"), "{refusals:?}");
}

#[test]
fn a_message_of_an_earlier_plugin_stays_in_front() {
    let mut job = Submission::new(&[DEMAND]);
    (job.desc.min_nodes, job.desc.max_nodes) = (1, 1);
    let mut message = text(b"be nice");
    // SAFETY: a whole description, its strings and the message from Slurm's allocator.
    assert_eq!(unsafe { (loaded().job_submit)(&raw mut *job.desc, 0, &raw mut message) }, -1);
    assert!(read(message).unwrap().starts_with("be nice\ndisagg: 1 node asked for"));
}

#[test]
fn null_pointers_do_no_harm() {
    let mut message = ptr::null_mut();
    // SAFETY: NULL is looked for.
    assert_eq!(unsafe { (loaded().job_submit)(ptr::null_mut(), 0, &raw mut message) }, 0);
    let mut job = Submission::new(&[DEMAND]);
    job.desc.max_nodes = 1;
    // SAFETY: a whole description; NULL is looked for.
    assert_eq!(unsafe { (loaded().job_submit)(&raw mut *job.desc, 0, ptr::null_mut()) }, -1);
}

#[test]
fn an_update_passes_and_is_untouched() {
    let mut job = Submission::new(&[DEMAND]);
    job.desc.min_nodes = 1;
    let before = format!("{:?}", *job.desc);
    assert_eq!(job.modify(), 0);
    assert_eq!(format!("{:?}", *job.desc), before);
}

#[test]
fn a_null_entry_among_the_others_does_no_harm() {
    let mut job = Submission::new(&[b"OTHER=1", DEMAND]);
    // SAFETY: the first of two entries.
    unsafe { *job.desc.spank_job_env = ptr::null_mut() };
    assert_eq!(job.submit(), Ok(()));
    assert_eq!(job.desc.min_nodes, 3);
}

#[test]
fn a_demand_of_any_length_is_read_no_further_than_it_may_be_long() {
    let long = [b"DISAGG_DEMAND=".as_slice(), &vec![b'x'; 4 << 20]].concat();
    let refusal = Submission::new(&[&long]).submit().unwrap_err();
    assert!(refusal.contains("it has 513 bytes, more than 512"), "{refusal}");
}

#[test]
fn submissions_at_the_same_time_do_not_disturb_each_other() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for _ in 0..2_000 {
                    let mut job = Submission::new(&[DEMAND]);
                    let refused = thread % 2 == 1;
                    if refused {
                        (job.desc.min_nodes, job.desc.max_nodes) = (1, 1);
                    }
                    assert_eq!(job.submit().is_err(), refused);
                }
            });
        }
    });
}

fn without_a_file() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) }
}

proptest! {
    #![proptest_config(without_a_file())]

    /// Whatever a user writes, the job is either sized or refused with a reason of one readable
    /// line: never a crash, never a half-written job.
    #[test]
    fn a_hostile_demand_is_sized_or_refused(bytes in proptest::collection::vec(1u8..=255, 0..600)) {
        let entry = [b"DISAGG_DEMAND=".as_slice(), &bytes].concat();
        let mut job = Submission::new(&[&entry]);
        match job.submit() {
            Ok(()) => prop_assert_eq!(job.desc.min_nodes, job.desc.max_nodes),
            Err(refusal) => {
                prop_assert_eq!(refusal.lines().count(), 1);
                prop_assert!(refusal.chars().all(|c| !c.is_control()));
                prop_assert_eq!(job.desc.min_nodes, NO_VAL);
            }
        }
    }

    /// The same with texts that come close to a demand.
    #[test]
    fn a_demand_that_is_almost_right_is_sized_or_refused(
        words in proptest::collection::vec(
            "(nodes|tasks|tasks_per_node|gpus_per_node|segment|time_min|config)=[0-9]{0,8}[a-z]?",
            0..9,
        ),
        asked in proptest::option::of(0u32..10),
    ) {
        let entry = format!("DISAGG_DEMAND=v1 {}", words.join(" "));
        let mut job = Submission::new(&[entry.as_bytes()]);
        if let Some(nodes) = asked {
            (job.desc.min_nodes, job.desc.max_nodes) = (nodes, nodes);
        }
        if job.submit().is_ok() {
            prop_assert!(job.desc.min_nodes >= 1 && job.desc.min_nodes == job.desc.max_nodes);
            prop_assert!(job.desc.num_tasks >= job.desc.min_nodes);
        }
    }
}
