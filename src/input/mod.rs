// SPDX-License-Identifier: Apache-2.0
//! What people hand in: the request, the test configuration, test lists, the site's settings.

pub mod config;
pub mod fields;
pub mod scalar;
pub mod source;
pub mod yaml;
