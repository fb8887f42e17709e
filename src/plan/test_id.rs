// SPDX-License-Identifier: Apache-2.0
//! Test ids (`disagg_upload-<config>`) and what their form says about the rules to follow.

use serde::{Deserialize, Serialize};

/// A generation of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Ids `disagg_upload-<config>`; the mode comes from the configuration.
    Classic,
}

impl Generation {
    /// Its name, as `--rules` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
        }
    }
}

/// The test that a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// The pytest module, relative to the working directory (`perf/test_perf_sanity.py`).
    pub module: String,
    /// The test function (`test_e2e`).
    pub function: String,
    /// The id in brackets (`disagg_upload-<config>`).
    pub id: String,
    /// What is measured: `e2e`, `gen_only`, …
    pub mode: String,
    /// The configuration's name.
    pub config: String,
    /// The configuration's path.
    pub config_path: String,
    /// SHA-256 of the configuration's bytes, in lower-case hexadecimal.
    pub config_sha256: String,
}

impl Test {
    /// `MODULE::FUNCTION[ID]`, as pytest and the test lists name it.
    pub fn node_id(&self) -> String {
        node_id(&self.module, &self.function, &self.id)
    }
}

/// `MODULE::FUNCTION[ID]`.
pub fn node_id(module: &str, function: &str, id: &str) -> String {
    format!("{module}::{function}[{id}]")
}
