// SPDX-License-Identifier: Apache-2.0
//! The parts of a command: words, and groups of words that depend on what the plan does not know.

use serde::{Deserialize, Serialize};

use super::template::Template;

/// A part of a command. In JSON a word is its text, and a group an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Argument {
    /// One word; a list that is a whole word becomes several.
    Word(Template),
    /// Words under conditions.
    Group(Group),
}

/// Words that are there for each instance of a role, or in some of the step's tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// The role for each of whose instances the words are repeated; facts of an instance are then
    /// those of that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub each: Option<String>,
    /// The tasks that have the words; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on: Option<Tasks>,
    /// The words.
    pub words: Vec<Template>,
}

/// Some of a step's tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tasks {
    /// Those on the step's first node.
    Leader,
    /// Those on its other nodes.
    Followers,
}

impl Argument {
    /// A literal word.
    pub fn literal(text: &str) -> Self {
        Self::Word(Template::literal(text))
    }

    /// Its words, without regard to conditions.
    pub fn words(&self) -> &[Template] {
        match self {
            Self::Word(word) => std::slice::from_ref(word),
            Self::Group(group) => &group.words,
        }
    }
}
