// SPDX-License-Identifier: Apache-2.0
//! Slurm's own languages, as values: hostlists, `srun` and `sbatch` requests, time limits, job
//! states, pending reasons and job records. Everything here is pure: text in, values out, and back.

pub mod argument;
pub mod counts;
pub mod hostlist;
pub mod inherited;
#[cfg(test)]
mod installed;
pub mod job;
pub mod reason;
pub mod sbatch;
pub mod srun;
pub mod state;
pub mod time;
