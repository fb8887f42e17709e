// SPDX-License-Identifier: Apache-2.0
//! One instance of a plan, as programs read it.

use std::borrow::Cow;

use serde::Serialize;

use crate::plan::{Env, Instance, Step};

/// An instance with all that is derived for it.
#[derive(Debug, Serialize)]
pub struct View<'p> {
    /// `GEN_3`.
    pub name: String,
    /// Names that are removed from the environment.
    pub unset: Vec<&'p str>,
    /// The environment, with the instance's own variables.
    pub env: Env,
    /// The command, with the instance's own files.
    pub argv: Vec<Cow<'p, str>>,
    /// The working directory.
    pub cwd: &'p str,
    /// The step's size and flags.
    pub step: &'p Step,
    /// Its first node, counted from the job's first.
    pub first_node: u32,
    /// Its hosts, when the job's node list is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Its GPUs on each of its nodes.
    pub gpus: Vec<u32>,
    /// Its log in the workspace.
    pub log_file: String,
}

impl<'p> View<'p> {
    /// The view of an instance in an allocation.
    pub fn new(instance: &Instance<'p>, nodes: Option<&[String]>) -> Self {
        let role = instance.role;
        Self {
            name: instance.name.to_string(),
            unset: role.unset.iter().map(|name| name.value.as_str()).collect(),
            env: instance.env(),
            argv: instance.argv(),
            cwd: &role.cwd,
            step: &role.step,
            first_node: instance.nodes.start,
            hosts: nodes.and_then(|nodes| instance.hosts(nodes)).map(<[String]>::to_vec),
            gpus: instance.gpus.clone().collect(),
            log_file: instance.log_file(),
        }
    }
}
