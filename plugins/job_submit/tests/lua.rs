// SPDX-License-Identifier: Apache-2.0
//! `job_submit_disagg.lua` against the lists that hold the plugin, in every Lua of this machine.

#![allow(clippy::unwrap_used)]

#[path = "../../../tests/mutation/mod.rs"]
mod mutation;

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use disagg_host::demand::Demand;
use mutation::mutated;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

const LUAS: [&str; 6] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit", "lua"];

/// Runs the script's own test with a list of demands, in every Lua.
fn in_every_lua(demands: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for lua in LUAS {
        let output = Command::new(lua)
            .arg(here.join("tests/vectors.lua"))
            .arg(here.join("job_submit_disagg.lua"))
            .arg(demands)
            .arg(here.join("tests/decisions.txt"))
            .output();
        match output {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            output => {
                let output = output.unwrap();
                let text = String::from_utf8_lossy(&output.stdout);
                let errors = String::from_utf8_lossy(&output.stderr);
                println!("{lua}: {text}");
                assert!(output.status.success(), "{lua}: {text}{errors}");
                ran += 1;
            }
        }
    }
    assert!(ran > 0, "no Lua on this machine: install lua5.1 (one of {})", LUAS.join(", "));
}

#[test]
fn the_script_decides_as_the_plugin_does() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    in_every_lua(&here.join("../host/tests/demand_vectors.txt"));
}

const WORDS: &[&str] = &[
    " ",
    "=",
    "0",
    "1",
    "9",
    "-1",
    "+1",
    "1.0",
    "0x1",
    "1e3",
    "1000000",
    "1000001",
    "65533",
    "65534",
    "nodes=3",
    "tasks=12",
    "tasks_per_node=4",
    "gpus_per_node=4",
    "config=c",
    " segment=2",
    " time_min=30",
    "v1 ",
    "v2 ",
    "%s",
    "$(id)",
    "\u{e9}",
    "\t",
    "\n",
];

/// Texts that are nearly demands, each with the plugin's verdict: the script's must be the same.
#[test]
fn the_script_takes_and_refuses_the_mutated_demands_that_the_plugin_does() {
    let seeds = [
        "v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c",
        "v1 nodes=1000 tasks=1000 tasks_per_node=1 gpus_per_node=1000 config=x.y+z=@-_ segment=9",
        "v1 config=deepseek tasks=9 nodes=3 gpus_per_node=8 tasks_per_node=4 time_min=240 segment=3",
    ];
    let demands = mutated(seeds.map(String::from).to_vec(), WORDS);
    let mut runner = TestRunner::default();
    let (mut list, mut taken) = (String::new(), 0);
    for _ in 0..1000 {
        let text = demands.new_tree(&mut runner).unwrap().current();
        let verdict = if Demand::parse(&text).is_ok() { "ok" } else { "bad" };
        taken += usize::from(verdict == "ok");
        let _ = write!(list, "{verdict}|");
        for byte in text.bytes() {
            match byte {
                b' '..=b'[' | b']'..=b'~' => list.push(char::from(byte)),
                _ => drop(write!(list, "\\x{byte:02x}")),
            }
        }
        list.push('\n');
    }
    assert!((10..900).contains(&taken), "{taken} of 1000 are good demands");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &list).unwrap();
    in_every_lua(file.path());
}
