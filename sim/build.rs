// SPDX-License-Identifier: Apache-2.0
//! Builds the shared object whose functions a SPANK plugin finds as Slurm's own.
//!
//! It is a shared object and not part of the host program, because then its symbols are exported
//! whatever the linker and the LTO mode of the host are, as in Slurm itself (libslurmfull).

use std::{env, path::Path, process::Command};

fn main() {
    let source = "c/slurm_exports.c";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-env-changed=CC");
    let compiler = env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let out = env::var("OUT_DIR").unwrap_or_default();
    for (name, defines) in
        [("exports.so", &[][..]), ("exports_with_prepend.so", &["-DWITH_PREPEND_TASK_ARGV"][..])]
    {
        let target = Path::new(&out).join(name);
        let status = Command::new(&compiler)
            .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"])
            .args(defines)
            .arg("-o")
            .arg(&target)
            .arg(source)
            .status();
        match status {
            Ok(status) if status.success() => {}
            Ok(status) => fail(&format!("{compiler} could not compile {source}: {status}")),
            Err(error) => fail(&format!(
                "{compiler} did not start ({error}); install a C compiler or set CC to one"
            )),
        }
    }
}

fn fail(message: &str) -> ! {
    eprintln!("slurm-sim: {message}");
    std::process::exit(1)
}
