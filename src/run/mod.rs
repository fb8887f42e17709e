// SPDX-License-Identifier: Apache-2.0
//! What happens on a machine: writing the workspace, submitting, supervising, reporting.

pub mod client;
pub mod compare;
pub mod figures;
pub mod follow;
pub mod history;
pub mod interrupt;
pub mod launch;
pub mod live;
pub mod outcome;
pub mod polling;
pub mod preflight;
pub mod progress;
mod rank;
pub mod report;
pub mod result;
pub mod signals;
pub mod step;
pub mod submission;
pub mod subprocess;
pub mod tail;
pub mod terminal;
pub mod timeline;
pub mod workspace;
