// SPDX-License-Identifier: Apache-2.0
//! The simulator's numbers, names and types against the installed Slurm headers: a C compiler
//! asserts each. Without the headers there is nothing to compare with, and the test says so.

#![allow(clippy::unwrap_used)]

mod common;

use common::Bench;
use slurm_sim::{
    Context, Hook, Item, Release, SpankError,
    abi::{BATCH_STEP, OPTION_NAME_MAX},
};
use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn include_directory() -> Option<PathBuf> {
    let chosen = std::env::var_os("SLURM_INCLUDE").map(PathBuf::from);
    let directory = chosen.unwrap_or_else(|| "/usr/include".into());
    directory.join("slurm/spank.h").is_file().then_some(directory)
}

fn release_of(include: &Path) -> Release {
    let text = fs::read_to_string(include.join("slurm/slurm_version.h")).unwrap();
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix("#define SLURM_VERSION_NUMBER "))
        .and_then(|number| u32::from_str_radix(number.trim().trim_start_matches("0x"), 16).ok())
        .expect("SLURM_VERSION_NUMBER in slurm_version.h");
    Release::of_version_number(number).expect("a release that the simulator knows")
}

fn compile(bench: &Bench, include: &Path, source: &str) -> Result<(), String> {
    let path = bench.path("check.c");
    fs::write(&path, source).unwrap();
    let output = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"])
        .arg("-isystem")
        .arg(include)
        .arg(&path)
        .output()
        .expect("a C compiler");
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn assertions(release: Release) -> String {
    let mut source = String::from(
        "#include <stddef.h>\n#include <slurm/slurm.h>\n#include <slurm/spank.h>\n\
         #define SAME(a, b) _Static_assert((a) == (b), #a)\n",
    );
    let mut same = |name: &str, value: i64| writeln!(source, "SAME({name}, {value}LL);").unwrap();
    for (item, name) in Item::NAMES {
        same(name, *item as i64);
    }
    for (context, name) in Context::NAMES {
        same(name, *context as i64);
    }
    for (error, name) in SpankError::NAMES {
        same(name, error.number(release).into());
    }
    same("SPANK_OPTION_MAXLEN", OPTION_NAME_MAX as i64);
    same("SLURM_BATCH_SCRIPT", BATCH_STEP.into());
    same("SLURM_VERSION_NUMBER >> 8", (release.version_number() >> 8).into());
    // struct spank_option as src/host/shim.rs lays it out.
    for (field, offset) in
        [("name", 0), ("arginfo", 8), ("usage", 16), ("has_arg", 24), ("val", 28), ("cb", 32)]
    {
        same(&format!("offsetof(struct spank_option, {field})"), offset);
    }
    same("sizeof(struct spank_option)", 40);
    for (hook, symbol) in Hook::NAMES {
        writeln!(source, "static spank_f *hook_{} = {symbol};", hook.short()).unwrap();
    }
    // What the simulator exports, by type: enums are ints in this ABI.
    source.push_str(
        "SAME(sizeof(spank_item_t), sizeof(int));\n\
         SAME(sizeof(spank_err_t), sizeof(int));\n\
         SAME(sizeof(spank_context_t), sizeof(int));\n\
         static int (*symbol_supported)(const char *) = spank_symbol_supported;\n\
         static int (*in_remote)(spank_t) = spank_remote;\n\
         static spank_context_t (*get_context)(void) = spank_context;\n\
         static spank_err_t (*opt_register)(spank_t, struct spank_option *) = \
         spank_option_register;\n\
         static spank_err_t (*opt_get)(spank_t, struct spank_option *, char **) = \
         spank_option_getopt;\n\
         static spank_err_t (*item)(spank_t, spank_item_t, ...) = spank_get_item;\n\
         static spank_err_t (*get)(spank_t, const char *, char *, int) = spank_getenv;\n\
         static spank_err_t (*set)(spank_t, const char *, const char *, int) = spank_setenv;\n\
         static spank_err_t (*unset)(spank_t, const char *) = spank_unsetenv;\n\
         static spank_err_t (*cget)(spank_t, const char *, char *, int) = \
         spank_job_control_getenv;\n\
         static spank_err_t (*cset)(spank_t, const char *, const char *, int) = \
         spank_job_control_setenv;\n\
         static spank_err_t (*cunset)(spank_t, const char *) = spank_job_control_unsetenv;\n\
         static const char *(*text)(spank_err_t) = spank_strerror;\n\
         static void (*logger[])(const char *, ...) = {slurm_error, slurm_info, slurm_verbose, \
         slurm_debug, slurm_debug2, slurm_debug3, slurm_spank_log};\n\
         static long (*api)(void) = slurm_api_version;\n",
    );
    if release.has_prepend_task_argv() {
        source.push_str(
            "static spank_err_t (*prepend)(spank_t, int, const char **) = \
             spank_prepend_task_argv;\n",
        );
    }
    // Every static above is used, so that -Werror has nothing to say.
    let names: Vec<_> = source
        .lines()
        .filter_map(|line| line.strip_prefix("static "))
        .filter_map(|line| {
            line.split_once("(*").map(|(_, rest)| rest).or(line.split_once(" *").map(|(_, r)| r))
        })
        .map(|rest| rest.split([')', '[', ' ']).next().unwrap_or_default().to_owned())
        .collect();
    source.push_str("int main(void)\n{\n");
    for name in names {
        writeln!(source, "\t(void)&{name};").unwrap();
    }
    source.push_str("\treturn 0;\n}\n");
    source
}

#[test]
fn numbers_names_and_types_are_those_of_the_installed_header() {
    let Some(include) = include_directory() else {
        eprintln!("no slurm/spank.h (install libslurm-dev, or set SLURM_INCLUDE): not compared");
        return;
    };
    let bench = Bench::new();
    let release = release_of(&include);
    compile(&bench, &include, &assertions(release)).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn a_wrong_number_would_be_noticed() {
    let Some(include) = include_directory() else {
        eprintln!("no slurm/spank.h (install libslurm-dev, or set SLURM_INCLUDE): not compared");
        return;
    };
    let bench = Bench::new();
    let source = assertions(release_of(&include));
    let wrong = source.replace("SAME(S_TASK_ID, 11LL)", "SAME(S_TASK_ID, 12LL)");
    assert_ne!(source, wrong);
    assert!(compile(&bench, &include, &wrong).is_err());
}
