// SPDX-License-Identifier: Apache-2.0
//! Where each value of a plan comes from: the input it was read from and the rule that put it there.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diagnostic::Location;

/// A text that many origins have.
#[derive(Debug, Clone, Eq)]
pub enum Label {
    /// One of the program.
    Own(&'static str),
    /// One that was made.
    Made(Arc<str>),
}

impl Default for Label {
    fn default() -> Self {
        Self::Own("")
    }
}

impl Deref for Label {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Made(text) => text,
        }
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// As its text has it.
impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Borrow<str> for Label {
    fn borrow(&self) -> &str {
        self
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl From<&'static str> for Label {
    fn from(text: &'static str) -> Self {
        Self::Own(text)
    }
}

impl From<String> for Label {
    fn from(text: String) -> Self {
        Self::Made(text.into())
    }
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The rule that put the value into the plan; empty for a plain input.
    pub rule: Label,
    /// The input: a key of the configuration, an option, an environment variable; empty for none.
    pub input: Label,
    /// Where the input stands, when it is in a text.
    pub location: Option<Location>,
}

impl Origin {
    /// An input by its name, without a place.
    pub fn input(input: impl Into<Label>) -> Self {
        Self { input: input.into(), ..Self::default() }
    }

    /// A rule that needs no input.
    pub fn rule(rule: impl Into<Label>) -> Self {
        Self { rule: rule.into(), ..Self::default() }
    }

    /// The same input, used by a rule.
    pub fn by_rule(&self, rule: impl Into<Label>) -> Self {
        Self { rule: rule.into(), ..self.clone() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if !self.rule.is_empty() {
            f.write_str(&self.rule)?;
            separator = "; from ";
        }
        if !self.input.is_empty() {
            write!(f, "{separator}{}", self.input)?;
            if let Some(location) = &self.location {
                write!(f, " ({location})")?;
            }
        }
        Ok(())
    }
}

/// A value with its origin. In JSON it is the value alone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traced<T> {
    /// The value.
    pub value: T,
    /// Where it comes from; unknown in a plan that was read back.
    pub origin: Origin,
}

impl<T> Traced<T> {
    /// A value with its origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

impl<T: Serialize> Serialize for Traced<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Traced<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Self { value, origin: Origin::default() })
    }
}
