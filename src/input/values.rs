// SPDX-License-Identifier: Apache-2.0
//! The types of the settings' values: how each is read from an option, an environment variable and
//! site.yaml, and which texts are wrong.

use std::path::PathBuf;

use super::fields::{Fields, Section};
use crate::plan::config::Field;
use crate::plan::request::{GpuRequest, Switch};
use crate::plan::{FrontendNode, Generation, Placement};
use crate::slurm::time::TimeLimit;

/// How many values a setting has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One.
    One,
    /// True or false; as an option it may stand without a value.
    Flag,
    /// Any number; as an option it may be repeated.
    List,
}

/// What a text must look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line, which is not empty.
    Line,
    /// One line; an empty one means "none".
    MayBeEmpty,
    /// A time in Slurm's form.
    Time,
    /// A size of memory in Slurm's form.
    Memory,
    /// A part of a whole, as [`percent`] reads it.
    Percent,
    /// A network interface's name.
    Interface,
}

/// Reads a part of a whole, with or without the sign: `5%`, `0.5`.
///
/// # Errors
/// A sentence: the text must be a number from 0 to 100.
pub fn percent(text: &str) -> Result<f64, String> {
    let digits = text.trim().trim_end_matches('%').trim_end();
    let number = digits.parse().ok().filter(|number| (0.0..=100.0).contains(number));
    number.ok_or_else(|| format!("invalid percentage {text:?}: use 5% or 0.5%, at most 100%"))
}

/// A type of values.
pub(super) trait Value: Sized {
    const SHAPE: Shape = Shape::One;

    /// The values of a closed set.
    fn names() -> Vec<&'static str> {
        Vec::new()
    }

    /// Takes an option's text.
    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String>;

    /// Takes an environment variable's text. Scripts export empty ones to mean "not set".
    fn take_variable(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        if text.is_empty() { Ok(()) } else { Self::take(slot, text) }
    }

    /// Reads a key of site.yaml.
    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self>;

    /// What is wrong with the value, as the end of a sentence that its name begins.
    fn check(&self, _: Form) -> Result<(), String> {
        Ok(())
    }
}

impl Value for String {
    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        *slot = Some(text.to_owned());
        Ok(())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        fields.text(root, key)
    }

    fn check(&self, form: Form) -> Result<(), String> {
        if self.contains(|c: char| c.is_control()) {
            return Err(" must be one line without control characters".into());
        }
        match form {
            Form::MayBeEmpty => Ok(()),
            _ if self.trim().is_empty() => Err(" must not be empty".into()),
            Form::Line => Ok(()),
            Form::Time => self.parse::<TimeLimit>().map(|_| ()).map_err(|e| format!(": {e}")),
            Form::Percent => percent(self).map(|_| ()).map_err(|e| format!(": {e}")),
            Form::Interface => {
                let is_bad = |c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c);
                let is_name = self.len() < 16 && !self.contains(is_bad);
                let wrong = || format!(": {self:?} is not the name of a network interface");
                is_name.then_some(()).ok_or_else(wrong)
            }
            Form::Memory => {
                let digits = self.trim_end_matches(['K', 'M', 'G', 'T', 'k', 'm', 'g', 't']);
                let is_size = self.len() - digits.len() <= 1 && digits.parse::<u64>().is_ok();
                let wrong = || format!(": invalid memory size {self:?}: use 64G, 1500M or 0 (all)");
                is_size.then_some(()).ok_or_else(wrong)
            }
        }
    }
}

impl Value for PathBuf {
    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        *slot = Some(text.into());
        Ok(())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        fields.text(root, key).map(Self::from)
    }

    fn check(&self, form: Form) -> Result<(), String> {
        self.to_string_lossy().into_owned().check(form)
    }
}

impl Value for Vec<String> {
    const SHAPE: Shape = Shape::List;

    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        slot.get_or_insert_default().push(text.to_owned());
        Ok(())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        fields.list_of_words(root, key)
    }

    fn check(&self, form: Form) -> Result<(), String> {
        self.iter().try_for_each(|text| text.check(form))
    }
}

impl Value for bool {
    const SHAPE: Shape = Shape::Flag;

    fn names() -> Vec<&'static str> {
        vec!["true", "false"]
    }

    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        *slot = Some(text.parse().map_err(|_| "must be true or false".to_owned())?);
        Ok(())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        fields.truth(root, key)
    }
}

impl Value for Switch {
    const SHAPE: Shape = Shape::Flag;

    fn names() -> Vec<&'static str> {
        bool::names()
    }

    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        let mut is_on = None;
        bool::take(&mut is_on, text)?;
        *slot = is_on.map(Self::Is);
        Ok(())
    }

    // Set at all, the variable decides, also when it is empty.
    fn take_variable(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        *slot = Some(Self::Text(text.to_owned()));
        Ok(())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        fields.truth(root, key).map(Self::Is)
    }
}

/// A closed set of values, each with its name.
pub trait Choice: Copy + 'static {
    /// The names and values.
    const CHOICES: &'static [(&'static str, Self)];

    /// Reads a name.
    ///
    /// # Errors
    /// The names that there are.
    fn named(name: &str) -> Result<Self, String> {
        let found = Self::CHOICES.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = Self::CHOICES.iter().map(|(name, _)| *name).collect();
            format!("must be one of: {}", names.join(", "))
        })
    }
}

impl<T: Choice> Value for T {
    fn names() -> Vec<&'static str> {
        T::CHOICES.iter().map(|(name, _)| *name).collect()
    }

    fn take(slot: &mut Option<Self>, text: &str) -> Result<(), String> {
        *slot = Some(T::named(text)?);
        Ok(())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        fields.choice(root, key, T::CHOICES)
    }
}

impl Choice for Placement {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("exclusive", Self::Exclusive), ("packed", Self::Packed), ("compact", Self::Compact)];
}

impl Choice for FrontendNode {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("first", Self::First), ("last", Self::Last), ("ctx", Self::Ctx), ("own", Self::Own)];
}

impl Choice for Generation {
    const CHOICES: &'static [(&'static str, Self)] =
        &[("classic", Self::Classic), ("unified", Self::Unified), ("current", Self::Current)];
}

impl Choice for GpuRequest {
    const CHOICES: &'static [(&'static str, Self)] = &[
        ("per-node", Self::PerNode),
        ("gres", Self::Gres),
        ("total", Self::Total),
        ("none", Self::None),
    ];
}
