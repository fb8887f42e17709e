// SPDX-License-Identifier: Apache-2.0
//! What files and people get from a plan.

pub mod quote;
pub mod script;
