// SPDX-License-Identifier: Apache-2.0
//! Hostlists against the installed `scontrol`, which needs a configuration but no running Slurm:
//! one interactive scontrol runs all commands of a test.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use disagg::slurm::hostlist::{compress, expand};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A host printed after the output of each command; no list under test has it.
const MARK: &str = "end-of-output";

/// The lines that scontrol prints for each command; `None` when it is not installed, which is logged.
fn scontrol(test: &str, commands: &[String]) -> Option<Vec<Vec<String>>> {
    let config = tempfile::NamedTempFile::new().unwrap();
    let text = "ClusterName=c\nSlurmctldHost=localhost\nNodeName=x\nPartitionName=p Nodes=x\n";
    fs::write(config.path(), text).unwrap();
    let spawned = Command::new("scontrol")
        .env("SLURM_CONF", config.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut scontrol) = spawned else {
        eprintln!("no scontrol is installed: {test} has nothing to compare with");
        return None;
    };
    let mut input = String::new();
    for command in commands {
        input.push_str(&format!("{command}\nshow hostnames {MARK}\n"));
    }
    let mut stdin = scontrol.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let ended = scontrol.wait_with_output().unwrap();
    writer.join().unwrap();

    let mut outputs = Vec::new();
    let mut lines = Vec::new();
    for line in String::from_utf8(ended.stdout).unwrap().lines() {
        match line {
            MARK => outputs.push(std::mem::take(&mut lines)),
            echo if echo.starts_with("scontrol:") => {}
            line => lines.push(line.to_owned()),
        }
    }
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(outputs.len(), commands.len(), "scontrol stopped early: {errors}");
    Some(outputs)
}

fn assert_expands_alike(test: &str, lists: &[String]) {
    let commands: Vec<String> = lists.iter().map(|list| format!("show hostnames {list}")).collect();
    let Some(outputs) = scontrol(test, &commands) else { return };
    for (list, scontrol) in lists.iter().zip(outputs) {
        assert_eq!(expand(list).as_ref(), Ok(&scontrol), "{list}");
    }
}

fn assert_compresses_alike(test: &str, names: &[Vec<String>]) {
    let commands: Vec<String> =
        names.iter().map(|names| format!("show hostlist {}", names.join(","))).collect();
    let Some(outputs) = scontrol(test, &commands) else { return };
    for (names, scontrol) in names.iter().zip(outputs) {
        assert_eq!([compress(names)], scontrol.as_slice(), "{names:?}");
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

/// The same number of samples each time, from proptest's own generator.
fn samples<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::default();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

#[test]
fn written_lists_expand_as_scontrol_expands_them() {
    assert_expands_alike(
        "written",
        &strings(&[
            "node[1-3,7]",
            "n[001-010]",
            "r[1-2]c[01-03]",
            "a,b,a",
            "a,,b,",
            "n[9-11],n[09-11]",
            "n[01-9]",
            "n[001-10]",
            "n[1-010]",
            "n[08-012]",
            "n[00-10,3]",
            "n[5,3,4,5]",
            "n[1-2,2-3]",
            "[9-11]",
            "[1-2][3-4]",
            "n[1-2][3-4]",
            "n0[1-2],n03",
            "n[1-1]",
            "a[1-2]b[3-4]c[5-6]",
            "a[1-2]b[3-4]c[5-6]d[7-8]",
            "a[1,5]b[3-4]c[2]",
            "a[1-1,1]b[1-2]c[1-2]",
            "a[01-02]b[08-11,3]c[1-2],z",
            "a1b[1-2]c3d[1-2]",
            "n[0000000000001-0000000000003]",
            "n-1,n.example.com,n-[1-2]",
            "n{1-2}",
            "n007,01,1",
            "é[1-2]",
            "n[65530-65536]",
            "a[1-256]b[1-256]",
            "n[1-65536]",
        ]),
    );
}

#[test]
fn generated_lists_expand_as_scontrol_expands_them() {
    let number = (0u32..120, 0usize..4);
    let range = (number.clone(), prop::option::of(0u32..12)).prop_map(|((low, width), span)| {
        let low_text = format!("{low:0width$}");
        span.map_or(low_text.clone(), |span| format!("{low_text}-{}", low + span))
    });
    let bracket =
        prop::collection::vec(range, 1..4).prop_map(|ranges| format!("[{}]", ranges.join(",")));
    let dimension = ("[a-z]{1,2}[0-9]{0,2}-?", bracket).prop_map(|(text, bracket)| text + &bracket);
    let element = prop_oneof![
        prop::collection::vec(dimension, 1..4).prop_map(|parts| parts.concat()),
        "[a-z]{1,4}[0-9]{0,6}",
    ];
    let list = prop::collection::vec(element, 1..5).prop_map(|elements| elements.join(","));
    let lists: Vec<String> = samples(list, 400);
    let small: Vec<String> =
        lists.into_iter().filter(|list| expand(list).is_ok_and(|h| h.len() < 20_000)).collect();
    assert!(small.len() > 200, "the generator makes lists that are too large");
    assert_expands_alike("generated", &small);
}

#[test]
fn written_names_compress_as_scontrol_compresses_them() {
    let lists = [
        "n1,n2,n3,n7",
        "n1,n1",
        "n1,n2,n2,n3",
        "n3,n2,n1",
        "n09,n10,n11",
        "n9,n10,n11,n12",
        "n09,n10,n9",
        "n9,n09,n10",
        "n99,n100,n0101",
        "n098,n99,n100",
        "n0001,n2,n0002",
        "n0,n00,n000",
        "n00,n1",
        "a,b,a",
        "n,n,n1",
        "a1b,a2b",
        "n1-ib,n2-ib",
        "r1c1,r1c2,r2c1,r2c2",
        "r1c01,r1c02,r1c3",
        "n1,m1,n2,m2",
        "n1,n2,m1,m2,n3",
        "1,2,3",
        "01,02,3",
        "n9999999999,n10000000000",
    ];
    let names: Vec<Vec<String>> =
        lists.iter().map(|list| list.split(',').map(str::to_owned).collect()).collect();
    assert_compresses_alike("names", &names);
}

#[test]
fn generated_names_compress_as_scontrol_compresses_them() {
    let name = prop_oneof![
        4 => (0u32..13, 0usize..4).prop_map(|(number, width)| format!("n{number:0width$}")),
        2 => (95u32..105, 0usize..5).prop_map(|(number, width)| format!("n{number:0width$}")),
        1 => "(r1c|r2c|)[0-9]{1,3}",
        1 => "[ab]{1,2}(-ib)?",
    ];
    let mut names: Vec<Vec<String>> = samples(prop::collection::vec(name, 1..40), 300);
    // Sorted, they make the long ranges that chance seldom gives.
    let sorted: Vec<Vec<String>> = names
        .iter()
        .map(|names| names.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect())
        .collect();
    names.extend(sorted);
    assert_compresses_alike("generated-names", &names);
}

#[test]
fn what_scontrol_refuses_is_refused() {
    let lists = strings(&[
        "n[]",
        "n[3-1]",
        "n[a-b]",
        "n[1,,2]",
        "n[-3]",
        "n[1x]",
        "n[1-3x]",
        "n[1-3-5]",
        "n[0x2]",
        "n[1--3]",
        "n[1-100000]",
        "n[1;2]",
        "n[1/3]",
    ]);
    for list in &lists {
        assert!(expand(list).is_err(), "{list}");
    }
    // 24.11 takes these brackets into the names, 22.05 refuses them.
    for list in ["n[1-2]]", "n[[1-2]]"] {
        assert!(expand(list).is_err(), "{list}");
    }
    let commands: Vec<String> = lists.iter().map(|list| format!("show hostnames {list}")).collect();
    let Some(outputs) = scontrol("refused", &commands) else { return };
    for (list, output) in lists.iter().zip(outputs) {
        assert_eq!(output, Vec::<String>::new(), "scontrol expands {list}");
    }
}

/// The differences on purpose, each beside what Debian's Slurm 22.05 makes of it.
#[test]
fn the_differences_from_scontrol_are_these() {
    for (list, problem) in [
        ("n[1", "`[` without `]`"),                         // n]
        ("n[1-2]c[", "`[` without `]`"),                    // n[1-2]c]
        ("n1]", "`]` without `[`"),                         // n1]
        ("n[3-]", "expected a number"),                     // n3
        ("n[1- 2]", "expected a number"),                   // n1, n2
        ("n[+1]", "expected a number"),                     // n01
        ("n[99999999999999999999]", "more than 18 digits"), // n18446744073709551615
    ] {
        let error = expand(list).unwrap_err().to_string();
        assert!(error.contains(problem), "{list}: {error}");
    }
    assert_eq!(
        expand("n[1-2]-ib"),
        Ok(strings(&["n1-ib", "n2-ib"])),
        "Slurm reads it from 23.11 on"
    );
    let long = "n99999999999999999999";
    assert_eq!(expand(long), Ok(strings(&[long])), "scontrol wraps the number");
}
