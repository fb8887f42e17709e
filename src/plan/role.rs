// SPDX-License-Identifier: Apache-2.0
//! The kinds of steps of a test, and what each of them runs.

use std::fmt;
use std::str::FromStr;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::origin::{Origin, Traced};
use super::template::{Part, Template, is_name};

/// A kind of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RoleKind {
    /// A generation server (decode).
    Gen,
    /// A context server (prefill).
    Ctx,
    /// The coordinator that routes requests.
    DisaggServer,
    /// The client that measures.
    Benchmark,
    /// The one server of a test without context and generation servers, which measures itself.
    Aggregated,
    /// Before a generation server starts: whether caches reach its place.
    GenPrecheck,
    /// Before a context server starts: whether caches leave its place.
    CtxPrecheck,
}

/// What a kind of step is there for. Everything outside the rule sets that has to treat steps
/// differently asks for this, never for a role's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// Runs before all others and as long as they do: a registry, a message broker.
    Service,
    /// Runs and ends before the servers start.
    Check,
    /// Serves; its end before the client's fails the run.
    Server,
    /// Passes requests on to servers; otherwise a server, but stopped before them.
    Router,
    /// Its end decides the run.
    Client,
}

impl RoleKind {
    /// What it is there for.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Gen | Self::Ctx => Purpose::Server,
            Self::DisaggServer => Purpose::Router,
            Self::Benchmark | Self::Aggregated => Purpose::Client,
            Self::GenPrecheck | Self::CtxPrecheck => Purpose::Check,
        }
    }

    /// All kinds, in the order in which plans list them.
    pub const ALL: [Self; 7] = [
        Self::Gen,
        Self::Ctx,
        Self::DisaggServer,
        Self::Benchmark,
        Self::Aggregated,
        Self::GenPrecheck,
        Self::CtxPrecheck,
    ];

    /// Its name, as `DISAGG_SERVING_TYPE` has it (without an index).
    pub fn name(self) -> &'static str {
        match self {
            Self::Gen => "GEN",
            Self::Ctx => "CTX",
            Self::DisaggServer => "DISAGG_SERVER",
            Self::Benchmark => "BENCHMARK",
            Self::Aggregated => "AGGREGATED",
            Self::GenPrecheck => "GEN_PRECHECK",
            Self::CtxPrecheck => "CTX_PRECHECK",
        }
    }

    /// Whether it is a model server.
    pub fn is_worker(self) -> bool {
        matches!(self, Self::Gen | Self::Ctx | Self::Aggregated)
    }

    /// The servers that it checks the place of, when it is a precheck.
    pub fn precheck_of(self) -> Option<Self> {
        match self {
            Self::GenPrecheck => Some(Self::Gen),
            Self::CtxPrecheck => Some(Self::Ctx),
            _ => None,
        }
    }

    /// Whether it is an MPI program with one rank for each of its GPUs.
    pub fn uses_gpus(self) -> bool {
        self.is_worker() || self.precheck_of().is_some()
    }

    /// Whether a test may have several, with an index each.
    pub fn is_indexed(self) -> bool {
        matches!(self.precheck_of().unwrap_or(self), Self::Gen | Self::Ctx)
    }
}

impl fmt::Display for RoleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One step of a test by name: `GEN_3`, `CTX_0`, `DISAGG_SERVER`, `GEN_PRECHECK_3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName {
    /// Its kind.
    pub kind: RoleKind,
    /// Its index; 0 for the kinds that exist once.
    pub index: u32,
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.kind.is_indexed() { write!(f, "_{}", self.index) } else { Ok(()) }
    }
}

/// A text that names no step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not the name of a role: write GEN_<i>, CTX_<i>, DISAGG_SERVER, BENCHMARK, AGGREGATED, \
     GEN_PRECHECK_<i> or CTX_PRECHECK_<i>"
)]
pub struct NotARole;

impl FromStr for InstanceName {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Self, NotARole> {
        if let Some(kind) = RoleKind::ALL.into_iter().find(|kind| kind.name() == text) {
            return if kind.is_indexed() { Err(NotARole) } else { Ok(Self { kind, index: 0 }) };
        }
        let (name, digits) = text.rsplit_once('_').ok_or(NotARole)?;
        let named = |kind: &RoleKind| kind.is_indexed() && kind.name() == name;
        let kind = RoleKind::ALL.into_iter().find(named).ok_or(NotARole)?;
        let canonical = digits == "0" || !digits.starts_with(['0', '+']);
        let index = digits.parse().map_err(|_| NotARole)?;
        if canonical { Ok(Self { kind, index }) } else { Err(NotARole) }
    }
}

/// What a kind of step runs, and the size of its step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Role {
    /// How many instances the test has.
    pub count: u32,
    /// Variables that are removed from the step's environment.
    pub unset: Vec<Traced<String>>,
    /// Variables that are set after that, before `env`, whose values win.
    #[serde(default)]
    pub export: Env,
    /// Variables that are set then, in order.
    pub env: Env,
    /// The command as an argument vector.
    pub argv: Vec<Traced<String>>,
    /// The working directory.
    pub cwd: String,
    /// The size and the flags of its Slurm step.
    pub step: Step,
}

impl Role {
    /// All variables that are set in the step, after the removal of `unset`.
    pub fn environment(&self) -> Env {
        self.export.and_then(&self.env)
    }
}

/// The size and the flags of one instance's Slurm step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Nodes that it spans.
    pub nodes: u32,
    /// Tasks (ranks); the world size of a server.
    pub tasks: u32,
    /// Tasks on each of its full nodes.
    pub tasks_per_node: u32,
    /// The MPI type (`srun --mpi`); none for steps that are no MPI programs.
    pub mpi: Option<String>,
    /// Whether it may share its nodes with other steps (`srun --overlap`).
    pub overlap: bool,
    /// Whether one failed task ends the step (`srun --kill-on-bad-exit=1`).
    pub kill_on_bad_exit: bool,
}

/// Environment variables in the order in which they are set; every name once.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Env(Vec<(String, Traced<Template>)>);

impl Env {
    /// Sets a variable. A later value of a name takes the place of the earlier one, and a
    /// reference to a name that is already set here is replaced by that name's value: so no value
    /// depends on the order in which a step sets its variables.
    pub fn set(&mut self, name: &str, value: &Template, origin: Origin) {
        let mut resolved = Template::default();
        for part in value.parts() {
            match part {
                Part::Text(text) => resolved.push_text(text),
                Part::Variable(variable) => match self.get(variable) {
                    Some(earlier) => resolved.push(&earlier.clone()),
                    None => resolved.push_variable(variable),
                },
            }
        }
        let traced = Traced::new(resolved, origin);
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, slot)) => *slot = traced,
            None => self.0.push((name.to_owned(), traced)),
        }
    }

    /// Changes the value of a variable that is there.
    pub fn replace(&mut self, name: &str, value: &Template) {
        if let Some((_, slot)) = self.0.iter_mut().find(|(known, _)| known == name) {
            slot.value = value.clone();
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&Template> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, traced)| &traced.value)
    }

    /// The variables, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Traced<Template>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// What is set after these: the others' values win, and refer to these.
    pub fn and_then(&self, others: &Self) -> Self {
        let mut all = self.clone();
        for (name, value) in others.iter() {
            all.set(name, &value.value, value.origin.clone());
        }
        all
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Env {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Env;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("environment variables by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Env, A::Error> {
                let mut env = Env::default();
                while let Some((name, value)) = map.next_entry::<String, Traced<Template>>()? {
                    if !is_name(&name) || value.value.as_str().contains('\0') {
                        return Err(serde::de::Error::custom(format!(
                            "{name:?} is not an environment variable"
                        )));
                    }
                    env.0.push((name, value));
                }
                Ok(env)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_steps_are_read_strictly() {
        for name in
            ["GEN_0", "CTX_12", "DISAGG_SERVER", "BENCHMARK", "AGGREGATED", "GEN_PRECHECK_3"]
        {
            assert_eq!(name.parse::<InstanceName>().unwrap().to_string(), name);
        }
        for name in [
            "",
            "GEN",
            "GEN_",
            "GEN_-1",
            "GEN_01",
            "GEN_+1",
            "gen_0",
            "BENCHMARK_0",
            "X",
            "GEN_PRECHECK",
        ] {
            assert!(name.parse::<InstanceName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_later_value_wins_and_may_use_the_earlier_one() {
        let mut env = Env::default();
        env.set("A", &Template::from_written("1"), Origin::default());
        env.set("B", &Template::from_written("$A$C"), Origin::default());
        env.set("A", &Template::from_written("2:$A"), Origin::default());
        let json = serde_json::to_string(&env).unwrap();
        assert_eq!(json, r#"{"A":"2:1","B":"1${C}"}"#);
    }
}
