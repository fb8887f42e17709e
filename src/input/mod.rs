// SPDX-License-Identifier: Apache-2.0
//! What people hand in: the request, the test configuration, test lists, settings.

pub mod config;
mod examples;
pub mod fields;
pub mod find;
pub mod handover;
mod items;
pub mod launcher;
pub mod prefix_script;
pub mod profile;
pub mod recipe;
pub mod request;
pub mod scalar;
pub mod set;
pub mod settings;
pub mod site;
mod slurm_args;
pub mod source;
mod splits;
pub mod test_list;
pub mod values;
pub mod yaml;
mod yaml_error;

use std::path::PathBuf;

/// The environment and the directory that a plan is made in. Explicit, so that plugins, tests and
/// the C library can give their own.
pub struct Context<'a> {
    /// Looks an environment variable up; `None` when it is not set or not UTF-8.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The directory that relative paths start from.
    pub current_dir: PathBuf,
}

impl Context<'static> {
    /// That of this process.
    ///
    /// # Errors
    /// The current directory is gone or unreadable.
    pub fn of_process() -> std::io::Result<Self> {
        Ok(Self { env: &|name| std::env::var(name).ok(), current_dir: std::env::current_dir()? })
    }
}
