// SPDX-License-Identifier: Apache-2.0
//! The C library: the planner behind a C ABI, for plugins and tools that are not written in Rust.
//!
//! `include/slurm_disagg.h` is generated from these files, doc comments included, so what is said
//! here is said to people who write C. The rules of the interface are in the header's first comment
//! (`cbindgen.toml`); `entry` and `ffi` are where they are kept.

// The types have the names that C code uses.
#![allow(non_camel_case_types)]

mod entry;
mod environment;
mod error;
mod ffi;
mod instance;
mod nodes;
mod options;
mod plan;
mod status;
mod version;
