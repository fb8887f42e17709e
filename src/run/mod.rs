// SPDX-License-Identifier: Apache-2.0
//! What happens on a machine: writing the workspace, submitting, supervising, reporting.

pub mod ask;
pub mod client;
pub mod follow;
pub mod interrupt;
pub mod launch;
pub mod outcome;
pub mod pace;
pub mod progress;
pub mod report;
pub mod result;
pub mod signals;
pub mod submission;
pub mod tail;
pub mod timeline;
pub mod workspace;
