// SPDX-License-Identifier: Apache-2.0
//! The demand: what a plan asks of Slurm, as the one short line of text that travels from the
//! SPANK plugin (in the job's control environment) to the controller.
//!
//! A user can write that line by hand, and slurmctld reads it, so it is treated as hostile: bounded
//! in length, printable ASCII only, every key known and unique, every number in range.
//!
//! ```text
//! v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=NAME [segment=N] [time_min=N]
//! ```
//!
//! One space between words, keys in any order, numbers in decimal without sign or leading zero.
//! `gpus_per_node=0`: the plan asks Slurm for no GPUs, so the controller has no say in them.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The name under which the demand is set by `spank_job_control_setenv`. The controller finds it in
/// `job_desc.spank_job_env` as `DISAGG_DEMAND=…`; the job sees it as `SLURM_SPANK_DISAGG_DEMAND`.
pub const VARIABLE: &str = "DISAGG_DEMAND";

/// The longest text that is read, in bytes.
pub const MAX_BYTES: usize = 512;

/// The longest config name, in bytes: what a file name can have.
pub const MAX_CONFIG_BYTES: usize = 255;

/// The largest number of anything, and the largest product of nodes and something per node.
pub const MAX_COUNT: u32 = 1_000_000;

/// The largest number per node: Slurm keeps it in 16 bits, whose two top values have meanings.
pub const MAX_PER_NODE: u32 = 0xfffd;

const FORM: &str = "v1";

/// What a plan asks of Slurm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Nodes of the allocation.
    pub nodes: u32,
    /// Tasks of the allocation.
    pub tasks: u32,
    /// Tasks on each node, at most.
    pub tasks_per_node: u32,
    /// GPUs on each node; 0 where the plan does not ask Slurm for any.
    pub gpus_per_node: u32,
    /// Name of the test config, a label for people.
    pub config: String,
    /// Nodes per segment of the topology (`--segment`), when the plan wants one.
    pub segment: Option<u32>,
    /// The time limit that the config names, in minutes: a shorter job would not see its test end.
    pub time_min: Option<u32>,
}

/// Why a text is not a demand, or a demand cannot be sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DemandError {
    /// The text has more than [`MAX_BYTES`] bytes.
    #[error("it has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// A byte outside printable ASCII.
    #[error("byte {0} is not printable ASCII")]
    NotPrintable(usize),
    /// The first word is not the version that is understood.
    #[error("it does not start with '{FORM} '")]
    UnknownVersion,
    /// Two spaces in a row, or one at the end.
    #[error("words are separated by one space")]
    EmptyWord,
    /// A word that is not `key=value`.
    #[error("'{0}' is not key=value")]
    NotKeyValue(String),
    /// A key that is not known.
    #[error("unknown key '{0}'")]
    UnknownKey(String),
    /// The same key twice.
    #[error("'{0}' is given twice")]
    Twice(&'static str),
    /// A key that must be there.
    #[error("'{0}' is missing")]
    Missing(&'static str),
    /// Not a number, or out of range.
    #[error("'{key}' must be a number from {min} to {max}")]
    Number {
        /// The key.
        key: &'static str,
        /// The smallest value that it may have.
        min: u32,
        /// The largest value that it may have.
        max: u32,
    },
    /// A config name that is empty, too long, or has other characters than `[A-Za-z0-9._+=@-]`.
    #[error("'config' must be 1 to {MAX_CONFIG_BYTES} characters of A-Z a-z 0-9 . _ + = @ -")]
    Config,
    /// nodes × something per node above [`MAX_COUNT`].
    #[error("nodes x {0} is more than {MAX_COUNT}")]
    Product(&'static str),
    /// Fewer tasks than nodes, which Slurm refuses.
    #[error("{tasks} tasks cannot use {nodes} nodes")]
    TooFewTasks {
        /// Tasks asked for.
        tasks: u32,
        /// Nodes asked for.
        nodes: u32,
    },
    /// More tasks than nodes × tasks per node.
    #[error("{tasks} tasks do not fit on {nodes} nodes with {tasks_per_node} each")]
    TooManyTasks {
        /// Tasks asked for.
        tasks: u32,
        /// Nodes asked for.
        nodes: u32,
        /// Tasks on each node.
        tasks_per_node: u32,
    },
}

impl Demand {
    /// Reads a demand; see the module for its form.
    ///
    /// # Errors
    /// Any text that is not exactly of that form, with the reason. Never panics; allocates no more
    /// than the text's own length.
    pub fn parse(text: &str) -> Result<Self, DemandError> {
        if text.len() > MAX_BYTES {
            return Err(DemandError::TooLong(text.len()));
        }
        if let Some(at) = text.bytes().position(|b| !(b' '..=b'~').contains(&b)) {
            return Err(DemandError::NotPrintable(at));
        }
        let rest = text
            .strip_prefix(FORM)
            .and_then(|r| r.strip_prefix(' '))
            .ok_or(DemandError::UnknownVersion)?;
        let mut found = Found::default();
        for word in rest.split(' ') {
            found.take(word)?;
        }
        found.into_demand()?.checked()
    }

    /// The demand itself when it may be sent: every number in range, every product bounded, the
    /// tasks fitting the nodes, the config name clean, the text short enough.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn checked(self) -> Result<Self, DemandError> {
        let required = [
            (key::NODES, self.nodes),
            (key::TASKS, self.tasks),
            (key::TASKS_PER_NODE, self.tasks_per_node),
            (key::GPUS_PER_NODE, self.gpus_per_node),
        ];
        let optional = [(key::SEGMENT, self.segment), (key::TIME_MIN, self.time_min)];
        let given = optional.into_iter().filter_map(|(key, n)| n.map(|n| (key, n)));
        for (key, number) in required.into_iter().chain(given) {
            let (min, max) = key::range(key);
            if !(min..=max).contains(&number) {
                return Err(DemandError::Number { key, min, max });
            }
        }
        if !is_config_name(&self.config) {
            return Err(DemandError::Config);
        }
        for (key, number) in
            [(key::TASKS_PER_NODE, self.tasks_per_node), (key::GPUS_PER_NODE, self.gpus_per_node)]
        {
            if u64::from(self.nodes) * u64::from(number) > u64::from(MAX_COUNT) {
                return Err(DemandError::Product(key));
            }
        }
        if self.tasks < self.nodes {
            return Err(DemandError::TooFewTasks { tasks: self.tasks, nodes: self.nodes });
        }
        if self.tasks > self.nodes * self.tasks_per_node {
            return Err(DemandError::TooManyTasks {
                tasks: self.tasks,
                nodes: self.nodes,
                tasks_per_node: self.tasks_per_node,
            });
        }
        Ok(self)
    }

    /// A config name as a demand can carry it: other characters become `_`, the end is cut off.
    /// The name is a label only, so nothing depends on it being exact.
    #[must_use]
    pub fn config_label(name: &str) -> String {
        let label: String = name
            .chars()
            .take(MAX_CONFIG_BYTES)
            .map(|c| if is_config_char(c) { c } else { '_' })
            .collect();
        if label.is_empty() { "_".to_owned() } else { label }
    }
}

impl FromStr for Demand {
    type Err = DemandError;

    fn from_str(text: &str) -> Result<Self, DemandError> {
        Self::parse(text)
    }
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{FORM} {}={} {}={} {}={} {}={} {}={}",
            key::NODES,
            self.nodes,
            key::TASKS,
            self.tasks,
            key::TASKS_PER_NODE,
            self.tasks_per_node,
            key::GPUS_PER_NODE,
            self.gpus_per_node,
            key::CONFIG,
            self.config,
        )?;
        for (key, number) in [(key::SEGMENT, self.segment), (key::TIME_MIN, self.time_min)] {
            if let Some(number) = number {
                write!(f, " {key}={number}")?;
            }
        }
        Ok(())
    }
}

/// The keys of a demand, and the range of each.
mod key {
    pub const NODES: &str = "nodes";
    pub const TASKS: &str = "tasks";
    pub const TASKS_PER_NODE: &str = "tasks_per_node";
    pub const GPUS_PER_NODE: &str = "gpus_per_node";
    pub const CONFIG: &str = "config";
    pub const SEGMENT: &str = "segment";
    pub const TIME_MIN: &str = "time_min";

    pub fn range(key: &str) -> (u32, u32) {
        match key {
            TASKS_PER_NODE => (1, super::MAX_PER_NODE),
            GPUS_PER_NODE => (0, super::MAX_PER_NODE),
            _ => (1, super::MAX_COUNT),
        }
    }
}

/// The words read so far.
#[derive(Default)]
struct Found<'a> {
    nodes: Option<u32>,
    tasks: Option<u32>,
    tasks_per_node: Option<u32>,
    gpus_per_node: Option<u32>,
    segment: Option<u32>,
    time_min: Option<u32>,
    config: Option<&'a str>,
}

impl<'a> Found<'a> {
    fn take(&mut self, word: &'a str) -> Result<(), DemandError> {
        if word.is_empty() {
            return Err(DemandError::EmptyWord);
        }
        let (key, value) =
            word.split_once('=').ok_or_else(|| DemandError::NotKeyValue(excerpt(word)))?;
        let (key, slot) = match key {
            key::NODES => (key::NODES, &mut self.nodes),
            key::TASKS => (key::TASKS, &mut self.tasks),
            key::TASKS_PER_NODE => (key::TASKS_PER_NODE, &mut self.tasks_per_node),
            key::GPUS_PER_NODE => (key::GPUS_PER_NODE, &mut self.gpus_per_node),
            key::SEGMENT => (key::SEGMENT, &mut self.segment),
            key::TIME_MIN => (key::TIME_MIN, &mut self.time_min),
            key::CONFIG => return put(&mut self.config, key::CONFIG, value),
            _ => return Err(DemandError::UnknownKey(excerpt(key))),
        };
        put(slot, key, number(key, value)?)
    }

    fn into_demand(self) -> Result<Demand, DemandError> {
        Ok(Demand {
            nodes: self.nodes.ok_or(DemandError::Missing(key::NODES))?,
            tasks: self.tasks.ok_or(DemandError::Missing(key::TASKS))?,
            tasks_per_node: self.tasks_per_node.ok_or(DemandError::Missing(key::TASKS_PER_NODE))?,
            gpus_per_node: self.gpus_per_node.ok_or(DemandError::Missing(key::GPUS_PER_NODE))?,
            config: self.config.ok_or(DemandError::Missing(key::CONFIG))?.to_owned(),
            segment: self.segment,
            time_min: self.time_min,
        })
    }
}

fn put<T>(slot: &mut Option<T>, key: &'static str, value: T) -> Result<(), DemandError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DemandError::Twice(key)),
    }
}

fn number(key: &'static str, text: &str) -> Result<u32, DemandError> {
    let (min, max) = key::range(key);
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|n| plain && (min..=max).contains(n)).ok_or(DemandError::Number {
        key,
        min,
        max,
    })
}

fn is_config_name(name: &str) -> bool {
    (1..=MAX_CONFIG_BYTES).contains(&name.len()) && name.chars().all(is_config_char)
}

fn is_config_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '=' | '@' | '-')
}

/// So much of a foreign word as a message can bear.
fn excerpt(word: &str) -> String {
    word.chars().take(32).collect()
}
