// SPDX-License-Identifier: Apache-2.0
//! The roles of an engine as data: what a profile's file says. `input` reads it; [`super::engine`]
//! makes plans with it.

use std::sync::Arc;

use indexmap::IndexMap;

use super::content::Content;
use super::expr::{Expr, Pattern};
use super::health::{Alive, Ready};
use super::origin::{Origin, Traced};
use super::role::Purpose;

/// A profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// The engine's name, as recipes have it.
    pub engine: String,
    /// One line about it.
    pub about: String,
    /// The arguments whose product is the number of GPUs of a server: a name, and those that mean
    /// the same.
    pub sizes: IndexMap<String, Vec<String>>,
    /// The roles of servers that work together, by the name of their mode. A recipe has servers of
    /// each role of one mode, and of no other role.
    pub modes: IndexMap<String, Vec<String>>,
    /// How arguments become words.
    pub syntax: Syntax,
    /// Where clients ask: roles and their ports, of which the first that the plan has counts.
    pub clients_ask: Vec<(String, String)>,
    /// The client of recipes that name none.
    pub client: Option<String>,
    /// The roles, by the names that recipes have for them.
    pub roles: IndexMap<String, ProfileRole>,
}

/// A role of a profile.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfileRole {
    /// The name of its steps.
    pub name: String,
    /// What it is there for.
    pub purpose: Purpose,
    /// For what it has a task.
    pub tasks: TaskPer,
    /// Whether its tasks are ranks of MPI.
    pub mpi: bool,
    /// The role on whose first node it runs, when it has no GPUs.
    pub node: Option<String>,
    /// How many there are where the recipe does not say.
    pub count: Option<Traced<Expr>>,
    /// The first number of each port, and how many an instance has for itself.
    pub ports: IndexMap<String, (u16, Option<Traced<Expr>>)>,
    /// Variables that are removed.
    pub unset: Vec<Traced<String>>,
    /// Variables that are set.
    pub env: IndexMap<String, Item>,
    /// The command.
    pub command: Item,
    /// Arguments that the recipe may replace.
    pub args: IndexMap<String, Traced<Content>>,
    /// The file of its configuration, in the workspace.
    pub config_file: Option<String>,
    /// What is in it, where the recipe does not replace it; its texts are patterns.
    pub config: IndexMap<String, ConfigItem>,
    /// Roles whose steps are ready before it starts.
    pub after: Vec<String>,
    /// How a step is seen to be ready: its port is the name of one of the role's, and roles are those
    /// of recipes.
    pub ready: Option<Ready>,
    /// How a step that is ready is watched.
    pub alive: Option<Alive>,
    /// Texts in a log that mean death.
    pub fatal: Vec<String>,
}

/// For what a step has a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPer {
    /// For each GPU.
    Gpu,
    /// For each node.
    Node,
    /// For itself.
    Step,
}

/// A part of a command, or the value of a variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A word; several where its value is a list.
    Word(Traced<Pattern>),
    /// Parts in a row.
    All(Arc<[Item]>),
    /// Parts under a condition.
    If(Arc<Choice>),
    /// Words for each instance of another role.
    Each {
        /// That role.
        role: String,
        /// The words; facts of an instance are those of the other role's.
        words: Arc<[Traced<Pattern>]>,
    },
}

/// Parts under a condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The condition.
    pub condition: Traced<Expr>,
    /// The part where it holds.
    pub then: Item,
    /// The part where it does not.
    pub otherwise: Item,
}

/// A value of a configuration file.
#[derive(Debug, Clone, PartialEq)]
pub enum ConfigItem {
    /// A text with placeholders.
    Text(Traced<Pattern>),
    /// A list.
    List(Vec<ConfigItem>),
    /// A mapping.
    Map(IndexMap<String, ConfigItem>),
    /// Any other value.
    Plain(Content),
}

/// How the arguments of a recipe become words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// Whether `_` in a name becomes `-`.
    pub dashes: bool,
    /// What becomes of a list.
    pub list: ListSyntax,
    /// Whether name and value are one word, `--name=value`.
    pub joined: bool,
}

impl Default for Syntax {
    fn default() -> Self {
        Self { dashes: true, list: ListSyntax::Words, joined: false }
    }
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListSyntax {
    /// `--name a b`
    Words,
    /// `--name a --name b`
    Repeat,
    /// `--name a,b`
    Comma,
}

impl Syntax {
    /// The option of a name: `--max-model-len`, `-v`.
    pub fn option(self, name: &str) -> String {
        let name = if self.dashes { name.replace('_', "-") } else { name.to_owned() };
        if name.len() == 1 { format!("-{name}") } else { format!("--{name}") }
    }

    /// The words of an argument: `true` is the option alone, `false` and nothing no word at all, a
    /// mapping JSON.
    pub fn words(self, name: &str, value: &Content) -> Vec<String> {
        let option = self.option(name);
        let with = |values: Vec<String>| match self.joined {
            true => values.into_iter().map(|value| format!("{option}={value}")).collect(),
            false => std::iter::once(option.clone()).chain(values).collect(),
        };
        match value {
            Content::Null | Content::Bool(false) => Vec::new(),
            Content::Bool(true) => vec![option],
            Content::List(items) => {
                let items: Vec<_> = items.iter().map(Content::word).collect();
                match self.list {
                    ListSyntax::Words if items.is_empty() => vec![option],
                    ListSyntax::Words => with(items),
                    ListSyntax::Comma => with(vec![items.join(",")]),
                    ListSyntax::Repeat => {
                        items.into_iter().flat_map(|item| with(vec![item])).collect()
                    }
                }
            }
            other => with(vec![other.word()]),
        }
    }
}

/// Nothing at all.
impl Default for Item {
    fn default() -> Self {
        Self::All(Arc::new([]))
    }
}

impl Item {
    /// Hands on all words in it, whatever their conditions.
    pub fn words<'i>(&'i self, with: &mut dyn FnMut(&'i Traced<Pattern>)) {
        self.words_where(&|_| true, with);
    }

    /// Hands on the words in it but those under conditions that never hold.
    pub fn words_where<'i>(
        &'i self,
        may_hold: &dyn Fn(&Expr) -> bool,
        with: &mut dyn FnMut(&'i Traced<Pattern>),
    ) {
        match self {
            Self::Word(word) => with(word),
            Self::All(items) => items.iter().for_each(|item| item.words_where(may_hold, with)),
            Self::If(choice) => {
                if may_hold(&choice.condition.value) {
                    choice.then.words_where(may_hold, with);
                }
                choice.otherwise.words_where(may_hold, with);
            }
            Self::Each { words, .. } => words.iter().for_each(with),
        }
    }

    /// Whether a word in it has a placeholder that is meant.
    pub fn has_name(&self, is_meant: impl Fn(&str) -> bool) -> bool {
        let mut found = false;
        self.words(&mut |word| found = found || word.value.has_name(|name, _| is_meant(name)));
        found
    }
}

/// A client: a program that asks the servers and measures.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Its command, for one number of requests in flight.
    pub command: Item,
    /// Variables that are removed.
    pub unset: Vec<Traced<String>>,
}

impl ProfileRole {
    /// Where a value comes from that the profile decides on.
    pub fn origin(&self, engine: &str) -> Origin {
        Origin::rule(format!("profile {engine}: {}", self.name))
    }
}

impl ConfigItem {
    /// All texts in it.
    pub fn patterns(&self) -> Vec<&Traced<Pattern>> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(items) => items.iter().flat_map(Self::patterns).collect(),
            Self::Map(entries) => entries.values().flat_map(Self::patterns).collect(),
            Self::Plain(_) => Vec::new(),
        }
    }
}
