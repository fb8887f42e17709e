// SPDX-License-Identifier: Apache-2.0
//! The C library: the planner behind a C ABI, for plugins and tools that are not written in Rust.
//!
//! `make header` writes `include/slurm_disagg.h` from these files, so doc comments of public items
//! are for C programmers. The rules of the interface are in the header's first comment
//! (`cbindgen.toml`). Each module uses only those that come before it: `status`, `guard`, `ffi`,
//! `error`, `options`, `plan`, `instance`, `environment`.

// The types have the names that C code uses.
#![allow(non_camel_case_types)]

mod environment;
mod error;
mod ffi;
mod guard;
mod instance;
mod options;
mod plan;
mod status;

/// Threads may share every handle.
const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<error::disagg_error>();
    shared::<plan::disagg_plan>();
    shared::<instance::disagg_instance>();
    shared::<environment::disagg_environment>();
};
