// SPDX-License-Identifier: Apache-2.0
//! The rule against `decisions.txt`, to which the Lua script is held too.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use disagg_host::demand::Demand;
use job_submit_disagg::settings::Settings;
use job_submit_disagg::size::{Ask, Fill, decide};
use job_submit_disagg::tres::TresForm;

const CASES: &str = include_str!("decisions.txt");

#[derive(Default)]
struct Case<'a> {
    name: &'a str,
    demand: &'a str,
    ask: BTreeMap<&'a str, &'a str>,
    site: String,
    fill: Option<&'a str>,
    comment: Option<&'a str>,
    refusals: Vec<&'a str>,
}

fn cases() -> Vec<Case<'static>> {
    let mut cases: Vec<Case> = Vec::new();
    for line in CASES.lines().filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            let demand = cases.last().map_or("", |case| case.demand);
            cases.push(Case { name, demand, ..Case::default() });
            continue;
        }
        let case = cases.last_mut().unwrap();
        let (key, value) = line.split_once(':').unwrap();
        let value = value.trim();
        match key {
            "demand" => case.demand = value,
            "ask" => case.ask = value.split(' ').map(|w| w.split_once('=').unwrap()).collect(),
            "site" => case.site = value.replace(' ', "\n"),
            "fill" => case.fill = Some(value),
            "comment" => case.comment = Some(value),
            "refuse" => case.refusals.push(value),
            _ => panic!("{line}"),
        }
    }
    cases
}

/// With the bytes that `\xNN` names.
fn unescaped(value: &str) -> String {
    let mut parts = value.split("\\x");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push(char::from(u8::from_str_radix(&part[..2], 16).unwrap()));
        text.push_str(&part[2..]);
    }
    text
}

fn ask<'a>(said: &BTreeMap<&'a str, &'a str>) -> Ask<'a> {
    let mut ask = Ask::default();
    for (field, value) in said {
        let number = || Some(value.parse().unwrap());
        match *field {
            "min_nodes" => ask.min_nodes = number(),
            "max_nodes" => ask.max_nodes = number(),
            "tasks" => ask.tasks = number(),
            "tasks_per_node" => ask.tasks_per_node = number(),
            "tasks_per_gpu" => ask.tasks_per_gpu = number(),
            "sockets_per_node" => ask.sockets_per_node = number(),
            "minutes" => ask.minutes = number(),
            "min_minutes" => ask.min_minutes = number(),
            "tres_per_node" => ask.tres_per_node = Some(value),
            "tres_per_job" => ask.tres_per_job = Some(value),
            "tres_per_task" => ask.tres_per_task = Some(value),
            "tres_per_socket" => ask.tres_per_socket = Some(value),
            "partition" => ask.partition = Some(unescaped(value).into()),
            "default_partition" => ask.default_partition = Some((*value).into()),
            "reservation" => ask.has_reservation = true,
            "account" => ask.account = Some(unescaped(value).into()),
            "comment" => ask.has_comment = true,
            "segment" => ask.has_segment = true,
            _ => panic!("no field {field}"),
        }
    }
    ask
}

/// A fill as a case writes it.
fn written(fill: &Fill) -> String {
    let number = |name: &str, n: Option<u32>| n.map(|n| format!("{name}={n}"));
    [
        number("nodes", fill.nodes),
        number("tasks", fill.tasks),
        number("tasks_per_node", fill.tasks_per_node.map(u32::from)),
        fill.tres_per_node.as_ref().map(|tres| format!("tres_per_node={tres}")),
        number("segment", fill.segment.map(u32::from)),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(" ")
}

#[test]
fn every_case_is_decided_as_the_list_says() {
    let cases = cases();
    assert!(cases.len() > 40);
    for case in cases {
        let (settings, _) = Settings::parse(&case.site);
        let demand = Demand::parse(case.demand).unwrap();
        match decide(&ask(&case.ask), &demand, &settings, TresForm::Colon) {
            Ok(fill) => {
                assert_eq!(Some(written(&fill).as_str()), case.fill, "{}", case.name);
                assert_eq!(fill.comment.as_deref(), case.comment, "{}", case.name);
            }
            Err(refusals) => {
                assert_eq!(refusals, case.refusals, "{}", case.name);
                assert_eq!(case.fill, None, "{}", case.name);
            }
        }
    }
}
