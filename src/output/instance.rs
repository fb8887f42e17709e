// SPDX-License-Identifier: Apache-2.0
//! One instance of a plan, as programs read it.

use std::borrow::Cow;

use serde::Serialize;

use indexmap::IndexMap;

use super::shown;
use crate::plan::step::Variable;
use crate::plan::{Cleared, Instance, Step, StepSpec, resolve};

/// An instance with all that is derived for it.
#[derive(Debug, Serialize)]
pub struct View<'p> {
    /// `GEN_3`.
    pub name: String,
    /// Names that are removed from the environment.
    pub unset: Vec<&'p str>,
    /// Families of names that are removed too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleared: Option<&'p Cleared>,
    /// The variables that are set then; references are to the environment around the step.
    pub env: IndexMap<String, String>,
    /// The command, with the instance's own files.
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: &'p str,
    /// The step's size and flags.
    pub step: Step,
    /// Its first node, counted from the job's first.
    pub first_node: u32,
    /// Its hosts, when the job's node list is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<String>>,
    /// Its GPUs on each of its nodes.
    pub gpus: Vec<u32>,
    /// Its log in the workspace.
    pub log_file: String,
    /// Its JUnit file, when its command writes one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub junit_file: Option<String>,
}

impl<'p> View<'p> {
    /// The view of an instance in an allocation.
    pub fn new(instance: &Instance<'p>, nodes: Option<&[String]>) -> Self {
        let spec: StepSpec<'p> = resolve(instance, nodes.unwrap_or_default());
        let shown = |variable: &Variable<'_>| {
            let value = shown(instance.plan, variable.name, variable.value.as_str());
            (variable.name.to_owned(), value.to_owned())
        };
        Self {
            name: instance.name.clone(),
            env: spec.set.iter().map(shown).collect(),
            argv: spec.arguments().map(Cow::into_owned).collect(),
            log_file: spec.log_file().into_owned(),
            junit_file: spec.junit_file().map(Cow::into_owned),
            unset: spec.unset,
            cleared: spec.cleared,
            cwd: spec.cwd,
            step: spec.step,
            first_node: instance.nodes.start,
            hosts: nodes.and_then(|nodes| instance.hosts(nodes)).map(<[String]>::to_vec),
            gpus: instance.gpus.clone().collect(),
        }
    }
}
