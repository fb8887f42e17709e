// SPDX-License-Identifier: Apache-2.0
//! The controller plugin: sizes a disaggregated job or refuses it.
//!
//! slurmctld calls it for every submission while it holds locks, so it does no I/O and waits for
//! nothing; a job without a demand costs a look at its SPANK environment. The settings are read
//! once, at load. `size` is the rule; the rest binds it to the installed Slurm, and is left out
//! where there is none.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod settings;
pub mod size;
pub mod tres;

#[cfg(have_slurm)]
pub mod desc;
#[cfg(have_slurm)]
pub mod plugin;
#[cfg(have_slurm)]
pub mod release;
#[cfg(have_slurm)]
pub mod slurm;
