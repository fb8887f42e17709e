// SPDX-License-Identifier: Apache-2.0
//! Values of environment variables that may refer to variables of the step they are set in.
//!
//! `$NAME` and `${NAME}` are references; `$$` is a dollar sign; `${.name}` is a [`Slot`]. Nothing
//! else is special: there is no command substitution, no default, no quoting, so a template is safe
//! to expand anywhere.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

/// The longest value, in bytes: what Linux takes for one string of an environment.
pub const MAX_VALUE: usize = 128 << 10;

/// A value that no environment can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the value is longer than {} KiB, the limit of Linux for one variable", MAX_VALUE >> 10)]
pub struct TooLong;

/// A value with references, in its written form (`/tmp/cache_${SLURM_LOCALID}`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Template(Cow<'static, str>);

/// A piece of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Literal text.
    Text(&'a str),
    /// The value of a variable of the step's environment; empty when it is not set.
    Variable(&'a str),
    /// What is not known when the plan is made; `plan::step` fills it in.
    Slot(Slot<'a>),
}

/// A fact that is not known when a plan is made, with its written form: `${.FACT}`, and where they
/// matter a role, a port and an arithmetic: `${.port:ROUTER.http}`, `${.node_rank*4+1}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot<'a> {
    /// Which fact.
    pub fact: Fact,
    /// The role whose instances are meant; the step's own instance without one.
    pub role: Option<&'a str>,
    /// The name of a port.
    pub port: Option<&'a str>,
    /// What a number is multiplied with.
    pub times: u32,
    /// What is added then.
    pub plus: i32,
}

/// The kind of value of a [`Slot`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// The instance's name: `GEN_3`.
    Name,
    /// Its index in its role, from 0.
    Index,
    /// Its first GPU on each of its nodes, counted from the node's first of the job.
    FirstGpu,
    /// The address of its first node; with a role, of that role's first instance.
    LeaderAddr,
    /// The number of a port; with a role, of that role's first instance.
    Port,
    /// `ADDRESS:PORT` of each instance of a role.
    Addrs,
    /// `http://ADDRESS:PORT` of each instance of a role.
    Urls,
    /// The task's node among those of its step, from 0.
    NodeRank,
    /// The task's rank in its step.
    Rank,
    /// The task's rank on its node.
    LocalRank,
    /// The address of the task's node.
    NodeAddr,
    /// The address of a node of the job, by its number from 0: what is added to nothing.
    JobNode,
}

impl Fact {
    const ALL: [(Self, &'static str); 12] = [
        (Self::Name, "name"),
        (Self::Index, "index"),
        (Self::FirstGpu, "first_gpu"),
        (Self::LeaderAddr, "leader_addr"),
        (Self::Port, "port"),
        (Self::Addrs, "addrs"),
        (Self::Urls, "urls"),
        (Self::NodeRank, "node_rank"),
        (Self::Rank, "rank"),
        (Self::LocalRank, "local_rank"),
        (Self::NodeAddr, "node_addr"),
        (Self::JobNode, "job_node"),
    ];

    /// Its name in written form.
    pub fn written(self) -> &'static str {
        Self::ALL.iter().find(|(fact, _)| *fact == self).map_or("", |(_, written)| written)
    }

    fn read(text: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, written)| *written == text).map(|(fact, _)| *fact)
    }

    /// Whether it is several texts.
    pub fn is_list(self) -> bool {
        matches!(self, Self::Addrs | Self::Urls)
    }

    /// Whether it needs the name of a port.
    pub fn has_port(self) -> bool {
        self == Self::Port || self.is_list()
    }

    /// The variable in which each task has it, when it differs from task to task.
    pub fn variable(self) -> Option<&'static str> {
        match self {
            Self::NodeRank => Some("SLURM_NODEID"),
            Self::Rank => Some("SLURM_PROCID"),
            Self::LocalRank => Some("SLURM_LOCALID"),
            Self::NodeAddr => Some("SLURMD_NODENAME"),
            _ => None,
        }
    }
}

impl<'a> Slot<'a> {
    /// A fact of the step's own instance.
    pub const fn own(fact: Fact) -> Self {
        Self { fact, role: None, port: None, times: 1, plus: 0 }
    }

    /// Reads a written form without its `${.` and `}`.
    fn read(text: &'a str) -> Option<Self> {
        let (text, plus) = match text.rfind(['+', '-']) {
            Some(at) => (&text[..at], text[at..].parse().ok()?),
            None => (text, 0),
        };
        let (text, times) = match text.split_once('*') {
            Some((text, times)) => (text, times.parse().ok()?),
            None => (text, 1),
        };
        let (fact, whose) = text.split_once(':').unwrap_or((text, ""));
        let (role, port) = match whose.split_once('.') {
            Some((role, port)) => (role, Some(port)),
            None => (whose, None),
        };
        let role = (!role.is_empty()).then_some(role);
        let named = role.is_none_or(is_name) && port.is_none_or(is_name);
        let fact = Fact::read(fact).filter(|_| named)?;
        Some(Self { fact, role, port, times, plus })
    }
}

impl fmt::Display for Slot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.fact.written())?;
        if self.role.is_some() || self.port.is_some() {
            write!(f, ":{}", self.role.unwrap_or_default())?;
        }
        if let Some(port) = self.port {
            write!(f, ".{port}")?;
        }
        if self.times != 1 {
            write!(f, "*{}", self.times)?;
        }
        if self.plus != 0 { write!(f, "{:+}", self.plus) } else { Ok(()) }
    }
}

impl Template {
    /// A literal value: its dollar signs are doubled.
    pub fn literal(text: &str) -> Self {
        Self(Cow::Owned(match has_dollar(text) {
            true => text.replace('$', "$$"),
            false => text.to_owned(),
        }))
    }

    /// The written form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a written form as it is. A dollar sign that starts no reference is literal.
    pub fn from_written(text: impl Into<String>) -> Self {
        Self(Cow::Owned(text.into()))
    }

    /// The same without a copy of a text that is compiled in.
    pub fn of_written(text: Cow<'static, str>) -> Self {
        Self(text)
    }

    /// Adds literal text.
    pub fn push_text(&mut self, text: &str) {
        let to = self.0.to_mut();
        match has_dollar(text) {
            true => to.push_str(&text.replace('$', "$$")),
            false => to.push_str(text),
        }
    }

    /// Adds a reference to a variable.
    pub fn push_variable(&mut self, name: &str) {
        let to = self.0.to_mut();
        to.push_str("${");
        to.push_str(name);
        to.push('}');
    }

    /// Adds another template.
    pub fn push(&mut self, other: &Template) {
        match self.0.is_empty() {
            true => self.0.clone_from(&other.0),
            false => self.0.to_mut().push_str(&other.0),
        }
    }

    /// Adds a slot.
    pub fn push_slot(&mut self, slot: Slot<'_>) {
        let _ = write!(self.0.to_mut(), "${{.{slot}}}");
    }

    /// The same template with some of its references and slots replaced by other templates.
    pub fn replace(&self, mut by: impl FnMut(Part<'_>) -> Option<Template>) -> Self {
        let mut replaced = Self::default();
        for part in self.parts() {
            match part {
                Part::Text(text) => replaced.push_text(text),
                part => match (by(part), part) {
                    (Some(other), _) => replaced.push(&other),
                    (None, Part::Slot(slot)) => replaced.push_slot(slot),
                    (None, Part::Variable(name) | Part::Text(name)) => replaced.push_variable(name),
                },
            }
        }
        replaced
    }

    /// The pieces, in order. Neighbouring pieces of text are not joined.
    pub fn parts(&self) -> impl Iterator<Item = Part<'_>> {
        Parts { rest: &self.0 }
    }

    /// The names that it refers to, in order, with repetitions.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts().filter_map(|part| match part {
            Part::Variable(name) => Some(name),
            Part::Text(_) | Part::Slot(_) => None,
        })
    }

    /// The slots in it, in order, with repetitions.
    pub fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.parts().filter_map(|part| match part {
            Part::Slot(slot) => Some(slot),
            Part::Text(_) | Part::Variable(_) => None,
        })
    }

    /// The slot that the whole template is, when it is one.
    pub fn only_slot(&self) -> Option<Slot<'_>> {
        let mut parts = self.parts();
        match (parts.next(), parts.next()) {
            (Some(Part::Slot(slot)), None) => Some(slot),
            _ => None,
        }
    }

    /// The text of a template without references; those that it has stand as they are written.
    pub fn literal_text(&self) -> Cow<'_, str> {
        match has_dollar(&self.0) {
            true => Cow::Owned(self.0.replace("$$", "$")),
            false => Cow::Borrowed(&self.0),
        }
    }

    /// The text for people: slots in braces, references as they are written.
    pub fn readable(&self) -> String {
        let part = |part| match part {
            Part::Text(text) => text.to_owned(),
            Part::Variable(name) => format!("${{{name}}}"),
            Part::Slot(slot) => format!("{{{slot}}}").replace(":.", ":"),
        };
        self.parts().map(part).collect()
    }

    /// Whether it refers to no variable.
    pub fn is_literal(&self) -> bool {
        !has_dollar(&self.0) || self.variables().next().is_none()
    }

    /// The value in an environment; a variable that is not set there counts as empty.
    ///
    /// # Errors
    /// The value exceeds [`MAX_VALUE`].
    pub fn expand<'v>(
        &self,
        mut lookup: impl FnMut(&str) -> Option<&'v str>,
    ) -> Result<String, TooLong> {
        let mut value = String::with_capacity(self.0.len().min(MAX_VALUE));
        for part in self.parts() {
            let piece = match part {
                Part::Text(text) => text,
                Part::Variable(name) => lookup(name).unwrap_or_default(),
                // `plan::step` fills all.
                Part::Slot(_) => "",
            };
            if piece.len() > MAX_VALUE - value.len() {
                return Err(TooLong);
            }
            value.push_str(piece);
        }
        Ok(value)
    }
}

fn has_dollar(text: &str) -> bool {
    text.bytes().any(|byte| byte == b'$')
}

struct Parts<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let Some(dollar) = self.rest.bytes().position(|byte| byte == b'$') else {
            return Some(Part::Text(std::mem::take(&mut self.rest)));
        };
        if dollar > 0 {
            let (text, rest) = self.rest.split_at(dollar);
            self.rest = rest;
            return Some(Part::Text(text));
        }
        let after = &self.rest[1..];
        if let Some(rest) = after.strip_prefix('$') {
            self.rest = rest;
            return Some(Part::Text("$"));
        }
        if let Some((written, rest)) = after.strip_prefix("{.").and_then(|s| s.split_once('}'))
            && let Some(slot) = Slot::read(written)
        {
            self.rest = rest;
            return Some(Part::Slot(slot));
        }
        if let Some((name, rest)) = braced(after).or_else(|| bare(after)) {
            self.rest = rest;
            return Some(Part::Variable(name));
        }
        self.rest = after;
        Some(Part::Text("$"))
    }
}

fn braced(text: &str) -> Option<(&str, &str)> {
    let (name, rest) = bare(text.strip_prefix('{')?)?;
    Some((name, rest.strip_prefix('}')?))
}

fn bare(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    is_name(name).then_some((name, rest))
}

/// Whether a text can name an environment variable: letters, digits and `_`, no digit first.
pub fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(written: &str) -> String {
        Template::from_written(written).expand(|name| (name == "A").then_some("1")).unwrap()
    }

    #[test]
    fn both_forms_of_a_reference_are_expanded() {
        assert_eq!(value("x$A-${A}_$B."), "x1-1_.");
    }

    #[test]
    fn two_dollar_signs_are_one() {
        assert_eq!(value("$$A costs 5$"), "$A costs 5$");
    }

    #[test]
    fn what_a_shell_would_run_is_text() {
        assert_eq!(value("$(id) `id` ${A:-b} ${"), "$(id) `id` ${A:-b} ${");
    }

    #[test]
    fn a_value_is_no_longer_than_linux_takes() {
        let half = "x".repeat(MAX_VALUE / 2);
        let expand = |written: &str| Template::from_written(written).expand(|_| Some(&half));
        assert_eq!(expand("$A$A").unwrap().len(), MAX_VALUE);
        assert_eq!(expand("$A${A}x"), Err(TooLong));
        assert_eq!(expand(&"$A".repeat(1000)), Err(TooLong));
    }

    #[test]
    fn a_slot_is_read_as_it_is_written_and_what_is_none_is_text() {
        for written in [
            "name",
            "port:ROUTER.http",
            "port:.http+1",
            "urls:PREFILL.http",
            "leader_addr:ROUTER",
            "node_rank*4-1",
        ] {
            let template = Template::from_written(format!("${{.{written}}}"));
            assert_eq!(template.only_slot().unwrap().to_string(), written);
        }
        for written in ["${.nothing}", "${.port:a b}", "${.index*x}", "${.index", "${.index*9+}"] {
            assert_eq!(value(written), written);
            assert!(Template::from_written(written).slots().next().is_none());
        }
    }

    proptest! {
        #[test]
        fn a_literal_stands_for_itself(text in "\\PC*") {
            let template = Template::literal(&text);
            prop_assert!(template.is_literal());
            prop_assert_eq!(template.expand(|_| Some("boom")), Ok(text));
        }

        #[test]
        fn any_text_is_expanded(text in "\\PC*") {
            prop_assert!(Template::from_written(text).expand(|_| None).is_ok());
        }
    }
}
