// SPDX-License-Identifier: Apache-2.0
//! The built file from the outside: its size, its symbols, and the version that it shows to each
//! release of Slurm.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use slurm_bed::built;

/// Slurm does extra work for every hook that it finds, so none is exported that does nothing.
const EXPORTS: [&str; 9] = [
    "plugin_name",
    "plugin_type",
    "plugin_version",
    "slurm_spank_exit",
    "slurm_spank_init",
    "slurm_spank_init_post_opt",
    "slurm_spank_local_user_init",
    "slurm_spank_task_init",
    "slurm_spank_user_init",
];

fn nm(which: &str) -> BTreeSet<String> {
    let output = Command::new("nm")
        .args(["-D", "-P", which])
        .arg(built("spank_disagg.so"))
        .output()
        .expect("nm (binutils) is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .filter_map(|line| line.split([' ', '@']).next().map(str::to_owned))
        .collect()
}

/// A program of the test's own, built from `source`.
fn compiled(name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (from, to) = (directory.join(format!("{name}.c")), directory.join(name));
    std::fs::write(&from, source).unwrap();
    let status = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&to)
        .arg(&from)
        .args(arguments)
        .status()
        .expect("a C compiler is installed");
    assert!(status.success());
    to
}

fn loader(name: &str, with_api: bool) -> PathBuf {
    let mut arguments = vec!["-rdynamic", "-ldl"];
    if with_api {
        arguments.push("-DWITH_API");
    }
    compiled(name, include_str!("loader.c"), &arguments)
}

/// A plugin that Slurm of version 0x160508 would have loaded already.
fn other_plugin(name: &str, kind: &str) -> PathBuf {
    let source = format!(
        "extern const char plugin_name[], plugin_type[]; extern const unsigned int plugin_version;\n\
         const char plugin_name[] = \"other\"; const char plugin_type[] = \"{kind}\";\n\
         const unsigned int plugin_version = 0x160508;\n"
    );
    compiled(&format!("{name}.so"), &source, &["-shared", "-fPIC"])
}

fn load(loader: &Path, api: &str, other: Option<&Path>) -> String {
    let output =
        Command::new(loader).arg(api).arg(built("spank_disagg.so")).args(other).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_file_exports_its_hooks_and_leaves_no_symbol_of_slurm_undefined() {
    assert_eq!(nm("--defined-only"), EXPORTS.map(str::to_owned).into());
    let undefined = nm("--undefined-only");
    assert!(undefined.contains("dlsym"), "{undefined:?}");
    let of_slurm: Vec<_> =
        undefined.iter().filter(|s| s.contains("slurm") || s.contains("spank")).collect();
    assert!(of_slurm.is_empty(), "{of_slurm:?}");
}

#[test]
fn the_file_needs_only_the_c_library() {
    let output = Command::new("readelf").arg("-d").arg(built("spank_disagg.so")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let needed: Vec<_> = text
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| line.split(['[', ']']).nth(1))
        .collect();
    assert!(!needed.is_empty(), "{text}");
    let known = ["libc.so.", "libgcc_s.so.", "ld-linux", "libm.so.", "libdl.so.", "libpthread.so."];
    for library in needed {
        assert!(known.iter().any(|k| library.starts_with(k)), "it needs {library}");
    }
}

#[test]
fn each_known_release_sees_its_own_version() {
    let loader = loader("loader_releases", true);
    for (api, version) in [
        ("36", "140b00"),
        ("37", "150800"),
        ("38", "160500"),
        ("39", "170200"),
        ("40", "170b00"),
        ("41", "180500"),
        ("42", "180b00"),
        ("43", "190500"),
        ("44", "190b00"),
        ("45", "1a0500"),
        ("46", "1a0b00"),
    ] {
        assert_eq!(load(&loader, api, None), format!("disagg spank {version} dead"), "API {api}");
    }
}

#[test]
fn the_exact_version_is_taken_from_a_plugin_of_slurms_own_that_is_loaded_already() {
    let loader = loader("loader_exact", true);
    for (name, kind, version) in
        [("auth_other", "auth/other", "160508"), ("spank_other", "spank", "160500")]
    {
        let loaded = load(&loader, "38", Some(&other_plugin(name, kind)));
        assert_eq!(loaded, format!("disagg spank {version} dead"), "{kind}");
    }
}

#[test]
fn symbols_of_another_kind_are_not_read_as_slurms() {
    let loader = loader("loader_kinds", true);
    for (name, source) in [
        ("function", "void plugin_type(void) {} unsigned int plugin_version = 0x160508;"),
        ("short", "char plugin_type[] = \"a/b\"; unsigned char plugin_version = 8;"),
        (
            "no_end",
            "char plugin_type[1] = {'x'}, next[] = \"/\"; unsigned int plugin_version = 0x160508;",
        ),
    ] {
        let other = compiled(&format!("{name}_other.so"), source, &["-shared", "-fPIC"]);
        assert_eq!(load(&loader, "38", Some(&other)), "disagg spank 160500 dead", "{name}");
    }
}

#[test]
fn an_unknown_release_sees_a_version_that_it_refuses() {
    let (loader, other) = (loader("loader_unknown", true), other_plugin("auth_unknown", "auth/x"));
    for api in ["35", "47", "0", "65535"] {
        assert_eq!(load(&loader, api, Some(&other)), "disagg spank 140b00 dead", "API {api}");
    }
    // So does a program that is not Slurm.
    let none = self::loader("loader_none", false);
    assert_eq!(load(&none, "none", None), "disagg spank 140b00 dead");
}
