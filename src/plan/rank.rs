// SPDX-License-Identifier: Apache-2.0
//! A step as one of its tasks has it: with values where the step has references. What a task knows
//! is its own environment as Slurm made it.

use std::net::IpAddr;
use std::str::from_utf8;

use super::Plan;
use super::instance::Instance;
use super::step::{StepSpec, TooFewGpus, gpu_variables, resolve};
use super::template::{MAX_VALUE, Part, Template, TooLong};

/// What one task of a step is started with. Values of an environment need not be UTF-8.
#[derive(Debug, Clone, PartialEq)]
pub struct Rank<'p> {
    /// Its step, with the command of this task's node.
    pub spec: StepSpec<'p>,
    /// Variables that are set after the removal of others, in order.
    pub set: Vec<(&'p str, Vec<u8>)>,
    /// The variables of its GPUs, which are set too.
    pub gpus: Vec<(&'static str, String)>,
    /// The command.
    pub argv: Vec<Vec<u8>>,
}

/// Why a task cannot be started as the plan has it.
#[derive(Debug, thiserror::Error)]
pub enum RankError {
    /// A value that no environment can hold.
    #[error("{name}: {error}")]
    TooLong {
        /// The variable, or the word of the command.
        name: String,
        /// Why.
        #[source]
        error: TooLong,
    },
    /// The GPUs of the task are not those of the plan.
    #[error(transparent)]
    Gpus(#[from] TooFewGpus),
    /// Nobody has asked the nodes for the addresses that the plan wants.
    #[error(
        "it is told addresses of the nodes on {0}, for which only `slurm-disagg launch` asks them: start the \
         steps by that, or leave the setting `interface` out"
    )]
    Addresses(String),
    /// A value that cannot be part of a text.
    #[error("{0} is not UTF-8 text, as a script needs it")]
    NotText(String),
}

impl<'p> Rank<'p> {
    /// The task that has this environment. `addresses`: the nodes of the job.
    ///
    /// # Errors
    /// [`RankError`].
    pub fn new<'v>(
        instance: &Instance<'p>,
        addresses: &[String],
        lookup: impl Fn(&str) -> Option<&'v [u8]>,
    ) -> Result<Self, RankError> {
        has_addresses(instance.plan, addresses)?;
        let mut spec = resolve(instance, addresses);
        let text = |name: &str| lookup(name).and_then(|value| from_utf8(value).ok());
        let number = |name| text(name).and_then(|text| text.parse().ok()).unwrap_or_default();
        let (node, local) = (number("SLURM_NODEID"), number("SLURM_LOCALID"));
        let gpus = gpu_variables(text, instance.own_gpus(node, local).as_ref())?;
        if let Some(followers) = spec.followers.take().filter(|_| node > 0) {
            spec.argv = followers;
        }
        let numbers = std::mem::take(&mut spec.numbers).into_iter();
        let numbers: Vec<_> = numbers.map(|one| (one.value(text), one.name)).collect();
        let value = |template: &Template| {
            expanded(template, |name| {
                let number = numbers.iter().find(|(_, known)| known == name);
                number.map(|(value, _)| value.as_bytes()).or_else(|| lookup(name))
            })
        };
        let too_long = |name: &str| {
            let name = name.to_owned();
            |error| RankError::TooLong { name, error }
        };
        let set = spec.set.iter();
        let set = set.map(|one| Ok((one.name, value(&one.value).map_err(too_long(one.name))?)));
        let set = set.collect::<Result<_, RankError>>()?;
        let argv = spec.argv.iter();
        let argv = argv.map(|word| value(word).map_err(too_long("a word of its command")));
        let argv = argv.collect::<Result<_, _>>()?;
        Ok(Self { spec, set, gpus, argv })
    }

    /// The variables to which the command refers and which the step changes.
    pub fn changed_references(&self) -> impl Iterator<Item = &str> {
        self.spec.argv.iter().flat_map(Template::variables).filter(|name| {
            self.spec.unset.contains(name) || self.spec.set.iter().any(|set| set.name == *name)
        })
    }

    /// The step without any reference, for its command in one line of shell that means the same where
    /// all variables are set already.
    ///
    /// # Errors
    /// [`RankError::NotText`].
    pub fn written_out(mut self) -> Result<StepSpec<'p>, RankError> {
        let literal = |name: &str, value: &[u8]| {
            let text = from_utf8(value).map_err(|_| RankError::NotText(name.to_owned()))?;
            Ok::<_, RankError>(Template::literal(text))
        };
        for (variable, (name, value)) in self.spec.set.iter_mut().zip(&self.set) {
            variable.value = literal(name, value)?;
        }
        let argv = self.argv.iter().map(|word| literal("a word of the command", word));
        self.spec.argv = argv.collect::<Result<_, _>>()?;
        Ok(self.spec)
    }
}

/// Whether the nodes of a job are given as the plan wants them, by addresses on an interface or by names.
///
/// # Errors
/// [`RankError::Addresses`].
pub fn has_addresses(plan: &Plan, addresses: &[String]) -> Result<(), RankError> {
    let is_name = |node: &String| node.parse::<IpAddr>().is_err();
    match plan.interface() {
        Some(interface) if addresses.is_empty() || addresses.iter().any(is_name) => {
            Err(RankError::Addresses(interface.to_owned()))
        }
        _ => Ok(()),
    }
}

/// A template's value.
fn expanded<'v>(
    template: &Template,
    lookup: impl Fn(&str) -> Option<&'v [u8]>,
) -> Result<Vec<u8>, TooLong> {
    let mut value = Vec::new();
    for part in template.parts() {
        let piece = match part {
            Part::Text(text) => text.as_bytes(),
            Part::Variable(name) => lookup(name).unwrap_or_default(),
            // `resolve` fills all.
            Part::Slot(_) => &[],
        };
        if piece.len() > MAX_VALUE - value.len() {
            return Err(TooLong);
        }
        value.extend_from_slice(piece);
    }
    Ok(value)
}
