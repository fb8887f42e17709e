// SPDX-License-Identifier: Apache-2.0
//! A simulated Slurm that loads real SPANK plugins (`spank_*.so`) and plays sbatch, salloc, srun,
//! slurmstepd and slurmd to them, each in a process of its own.
//!
//! It enforces which call is allowed in which callback, ends a callback that hangs, survives one
//! that crashes, and can make any call fail. A [`Cluster`] runs programs; each run gives a
//! [`Trace`]: the callbacks, the calls, the log, the broken rules, and in the end what the batch
//! script or each rank gets.
//!
//! ```no_run
//! use slurm_sim::{Cluster, Env, Host, Release};
//!
//! let cluster = Cluster::new(Release::V22_05, Host::find()?, 4)
//!     .plugstack("required /opt/lib/spank_disagg.so");
//! let trace = cluster.sbatch(&["-N2", "job.sh"], &Env::current())?;
//! assert!(trace.is_clean());
//! # Ok::<(), slurm_sim::SimError>(())
//! ```
//!
//! Not played: het groups within srun, job arrays, the external step (`PrologFlags=contain`),
//! I/O forwarding, PMI, options that neither size nor place a step, and the items on memory, cores,
//! arrays, groups and process ids.

pub mod abi;
mod cluster;
mod env;
mod host;
mod hosts;
mod launch;
mod layout;
mod release;
mod scenario;
mod trace;

pub use abi::{Context, Hook, Item, SpankError};
pub use cluster::{Cluster, JobRun};
pub use env::Env;
pub use host::become_host_if_asked;
pub use launch::{Host, SimError};
pub use layout::{Layout, Node, NodeTasks, Origin, Refused, StepRequest};
pub use release::Release;
pub use scenario::{Allocation, Fault, Program, Scenario, User};
pub use trace::{
    Event, Function, Grant, Level, Outcome, Rank, Rule, SentOption, Step, Submission, TaskBody,
    Trace, Violation, What,
};
