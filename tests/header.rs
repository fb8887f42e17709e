// SPDX-License-Identifier: Apache-2.0
//! `include/slurm_disagg.h` says what `src/capi` says: it is generated, committed, and compared
//! here. `make header` writes it anew.

// A helper of a test may fail as the test itself may.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

/// The files of the interface, in the order in which the header describes them.
const SOURCES: [&str; 7] = ["status", "ffi", "error", "options", "plan", "instance", "environment"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source(name: &str) -> PathBuf {
    root().join("src/capi").join(name).with_extension("rs")
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = SOURCES.iter().fold(builder, |builder, name| builder.with_src(source(name)));
    let mut header = Vec::new();
    builder.generate().unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn the_header_is_what_the_sources_say() {
    let path = root().join("include/slurm_disagg.h");
    let generated = generated();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{} is out of date: run `make header`", path.display());
}

#[test]
fn every_exported_function_is_in_the_header_with_a_description() {
    let header = generated();
    let mut functions = 0;
    for entry in std::fs::read_dir(root().join("src/capi")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for rest in text.split("extern \"C\" fn disagg_").skip(1) {
            let name = format!("disagg_{}(", &rest[..rest.find('(').unwrap()]);
            let declared = header.find(&format!(" {name}")).or(header.find(&format!("*{name}")));
            let before = &header[..declared.unwrap_or_else(|| panic!("{name} is not declared"))];
            let last_line = before.trim_end_matches(|c| c != '\n').trim_end();
            assert!(last_line.ends_with("*/"), "{name} has no description");
            functions += 1;
        }
    }
    assert!(functions > 20, "only {functions} functions were found");
}
