// SPDX-License-Identifier: Apache-2.0
//! What both plugins share: finding Slurm's functions at run time, logging, guarding the entries,
//! adopting the running release's version, and the demand that travels from the SPANK plugin to
//! the controller.
//!
//! Nothing here leaves an undefined Slurm symbol in a plugin, so that one file loads into every
//! release.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod demand;
pub mod guard;
pub mod log;
pub mod symbols;
pub mod version;

/// Used by the macros of this crate inside a plugin.
#[doc(hidden)]
pub use libc;
