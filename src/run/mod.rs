// SPDX-License-Identifier: Apache-2.0
//! What happens on a machine: writing the workspace, submitting, supervising, reporting.

pub mod launch;
pub mod result;
pub mod workspace;
