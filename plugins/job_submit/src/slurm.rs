// SPDX-License-Identifier: Apache-2.0
//! Slurm's job description as its installed header lays it out; made by the build script.

#![allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]

include!(concat!(env!("OUT_DIR"), "/slurm.rs"));
