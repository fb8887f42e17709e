// SPDX-License-Identifier: Apache-2.0
//! The demand's parser against the list of vectors that every parser of it is held to, and against
//! texts that nobody thought of.

#![allow(clippy::unwrap_used)]

use disagg_host::demand::{Demand, DemandError, MAX_BYTES, MAX_CONFIG_BYTES};
use proptest::prelude::*;

const VECTORS: &str = include_str!("demand_vectors.txt");

/// The bytes that a vector names: `\xNN` is one byte.
fn bytes(vector: &str) -> Vec<u8> {
    let mut parts = vector.split("\\x");
    let mut bytes = parts.next().unwrap().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    bytes
}

fn vectors(verdict: &str) -> Vec<&'static str> {
    VECTORS
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(|l| l.split_once('|').unwrap())
        .inspect(|(v, _)| assert!(["ok", "bad"].contains(v), "{v}"))
        .filter(|(v, _)| *v == verdict)
        .map(|(_, text)| text)
        .collect()
}

fn a_demand() -> Demand {
    Demand {
        nodes: 3,
        tasks: 12,
        tasks_per_node: 4,
        gpus_per_node: 4,
        config: "deepseek".to_owned(),
        segment: None,
        time_min: None,
    }
}

#[test]
fn every_good_vector_is_read_and_reads_the_same_when_written_again() {
    let good = vectors("ok");
    assert!(good.len() > 5);
    for text in good {
        let demand = Demand::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(Demand::parse(&demand.to_string()), Ok(demand), "{text}");
    }
}

#[test]
fn every_bad_vector_is_refused() {
    let bad = vectors("bad");
    assert!(bad.len() > 40);
    for text in bad {
        // What is not UTF-8 never reaches the parser as a text.
        if let Ok(text) = String::from_utf8(bytes(text)) {
            assert!(Demand::parse(&text).is_err(), "{text:?} was taken");
        }
    }
}

#[test]
fn the_written_form_is_the_documented_one() {
    assert_eq!(
        a_demand().to_string(),
        "v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=deepseek"
    );
    let more = Demand { segment: Some(3), time_min: Some(240), ..a_demand() };
    assert!(more.to_string().ends_with(" config=deepseek segment=3 time_min=240"));
}

#[test]
fn the_message_names_the_key_and_its_range() {
    let error = Demand::parse("v1 nodes=0 tasks=1").unwrap_err();
    assert_eq!(error.to_string(), "'nodes' must be a number from 1 to 1000000");
    let error = Demand::parse("v1 gpus_per_node=70000").unwrap_err();
    assert_eq!(error.to_string(), "'gpus_per_node' must be a number from 0 to 65533");
}

#[test]
fn a_message_quotes_no_more_than_a_few_characters_of_a_foreign_word() {
    let error = Demand::parse(&format!("v1 {}=1", "k".repeat(400))).unwrap_err();
    assert_eq!(error, DemandError::UnknownKey("k".repeat(32)));
}

#[test]
fn a_demand_with_fewer_tasks_than_nodes_cannot_be_sent() {
    let demand = Demand { tasks: 2, ..a_demand() };
    assert_eq!(demand.checked(), Err(DemandError::TooFewTasks { tasks: 2, nodes: 3 }));
}

#[test]
fn a_product_beyond_the_largest_count_cannot_be_sent() {
    let demand = Demand { nodes: 1000, tasks: 1000, gpus_per_node: 1001, ..a_demand() };
    assert_eq!(demand.checked(), Err(DemandError::Product("gpus_per_node")));
}

#[test]
fn any_name_becomes_a_label_that_can_be_sent() {
    for name in ["", "my config.yaml", "$(x)", "naïve", &"y".repeat(1000), "a\nb\0"] {
        let config = Demand::config_label(name);
        assert!(Demand { config, ..a_demand() }.checked().is_ok(), "{name:?}");
    }
    assert_eq!(Demand::config_label("my config"), "my_config");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*") {
        let _ = Demand::parse(&text);
    }

    #[test]
    fn any_bytes_after_a_good_start_are_read_or_refused(tail in "[ -~]{0,80}") {
        let text = format!("v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=x{tail}");
        if let Ok(demand) = Demand::parse(&text) {
            prop_assert_eq!(Demand::parse(&demand.to_string()), Ok(demand));
        }
    }

    #[test]
    fn words_in_any_order_are_read_and_a_lost_one_is_refused(
        words in Just(vec!["nodes=3", "tasks=12", "tasks_per_node=4", "gpus_per_node=4", "config=x"])
            .prop_shuffle(),
        lost in 0usize..5,
    ) {
        let read = |words: &[&str]| Demand::parse(&format!("v1 {}", words.join(" ")));
        prop_assert!(read(&words).is_ok());
        let mut fewer = words;
        fewer.remove(lost);
        prop_assert!(read(&fewer).is_err());
    }

    #[test]
    fn what_can_be_sent_comes_back_as_it_was(
        nodes in 1u32..=2000,
        tasks_per_node in 1u32..=500,
        gpus_per_node in 0u32..=500,
        spare in 0u32..=100,
        config in "[A-Za-z0-9._+=@-]{1,255}",
        segment in proptest::option::of(1u32..=1_000_000),
        time_min in proptest::option::of(1u32..=1_000_000),
    ) {
        let tasks = (nodes * tasks_per_node).saturating_sub(spare).max(nodes);
        let demand =
            Demand { nodes, tasks, tasks_per_node, gpus_per_node, config, segment, time_min };
        let demand = demand.checked().unwrap();
        let text = demand.to_string();
        prop_assert!(text.len() <= MAX_BYTES);
        prop_assert_eq!(Demand::parse(&text), Ok(demand));
    }

    #[test]
    fn a_label_is_never_longer_than_a_demand_allows(name in ".*") {
        let label = Demand::config_label(&name);
        prop_assert!((1..=MAX_CONFIG_BYTES).contains(&label.len()));
    }
}
