// SPDX-License-Identifier: Apache-2.0
//! The core of slurm-disagg: a test configuration goes in, a plan comes out.
//!
//! Data goes one way: `input` → `plan` → (`output` | `run` | the C ABI | the plugins).

pub mod atomic_file;
#[cfg(feature = "capi")]
mod capi;
pub mod diagnostic;
pub mod input;
pub mod output;
pub mod plan;
#[cfg(feature = "cli")]
pub mod run;
pub mod slurm;
pub mod task_files;
