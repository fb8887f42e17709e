// SPDX-License-Identifier: Apache-2.0
//! `job_submit_disagg.lua` against the lists that hold the plugin, in every Lua of this machine.

#![allow(clippy::unwrap_used)]

use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

const LUAS: [&str; 6] = ["lua5.1", "lua5.2", "lua5.3", "lua5.4", "luajit", "lua"];

#[test]
fn the_script_decides_as_the_plugin_does() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut ran = 0;
    for lua in LUAS {
        let output = Command::new(lua)
            .arg(here.join("tests/vectors.lua"))
            .arg(here.join("job_submit_disagg.lua"))
            .arg(here.join("../host/tests/demand_vectors.txt"))
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
