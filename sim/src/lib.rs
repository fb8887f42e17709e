// SPDX-License-Identifier: Apache-2.0
//! A simulated Slurm that drives the real plugin files.

pub mod abi;
mod env;
mod hosts;
mod layout;
mod release;

pub use abi::{Context, Hook, Item, SpankError};
pub use env::Env;
pub use hosts::{compress as compress_hosts, expand as expand_hosts};
pub use layout::{Layout, Node, NodeTasks, Origin, Refused, StepRequest};
pub use release::Release;
