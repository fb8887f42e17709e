// SPDX-License-Identifier: Apache-2.0
//! Binds the job description of the Slurm whose header is installed: it is laid out differently in
//! every release series. Without the header, or without libclang, only the pure rule is built, and
//! the build says so.

use std::error::Error;
#[cfg(feature = "plugin")]
use std::{
    env, fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rustc-check-cfg=cfg(have_slurm)");
    println!("cargo::rustc-check-cfg=cfg(has_segment)");
    println!("cargo::rerun-if-env-changed=SLURM_INCLUDE");
    println!("cargo::rerun-if-changed=build.rs");
    // The plugin's own symbols (`init`, `plugin_version`, …) must never be bound to another's.
    println!("cargo::rustc-link-arg-cdylib=-Wl,-Bsymbolic");

    #[cfg(feature = "plugin")]
    bind_installed()?;
    Ok(())
}

#[cfg(feature = "plugin")]
fn bind_installed() -> Result<(), Box<dyn Error>> {
    let Some(include) = include_directory() else {
        println!(
            "cargo::warning=job_submit_disagg.so is left out: no slurm/slurm.h. Install \
             libslurm-dev, or set SLURM_INCLUDE to the directory that holds slurm/slurm.h."
        );
        return Ok(());
    };
    println!("cargo::rerun-if-changed={}", include.join("slurm").display());
    let bindings = match bind(&include) {
        Ok(bindings) => bindings,
        Err(reason) => {
            println!(
                "cargo::warning=job_submit_disagg.so is left out: {reason}. Install libclang-dev, \
                 or set LIBCLANG_PATH."
            );
            return Ok(());
        }
    };
    println!("cargo::rustc-cfg=have_slurm");
    // `--segment` came with 24.05.
    if bindings.contains("pub segment_size:") {
        println!("cargo::rustc-cfg=has_segment");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    fs::write(out.join("slurm.rs"), bindings)?;
    Ok(())
}

#[cfg(feature = "plugin")]
fn include_directory() -> Option<PathBuf> {
    let given = env::var_os("SLURM_INCLUDE").map(PathBuf::from);
    let usual = ["/usr/include", "/usr/local/include"].map(PathBuf::from);
    let candidates = given.map_or_else(|| usual.to_vec(), |dir| vec![dir]);
    candidates.into_iter().find(|dir| dir.join("slurm/slurm.h").is_file())
}

#[cfg(feature = "plugin")]
fn bind(include: &Path) -> Result<String, String> {
    let builder = bindgen::Builder::default()
        .header(include.join("slurm/slurm.h").display().to_string())
        .clang_arg(format!("-I{}", include.display()))
        .allowlist_type("job_descriptor")
        .allowlist_var("NO_VAL|NO_VAL16|SLURM_VERSION_NUMBER")
        .generate_comments(false);
    // bindgen panics when it cannot open libclang.
    match panic::catch_unwind(AssertUnwindSafe(|| builder.generate())) {
        Ok(Ok(bindings)) => Ok(bindings.to_string()),
        Ok(Err(error)) => Err(format!("slurm/slurm.h cannot be read ({error})")),
        Err(_) => Err("libclang cannot be opened".to_owned()),
    }
}
