// SPDX-License-Identifier: Apache-2.0
//! What two launch scripts for one test say differently, and the differences of many tests by
//! cause: for comparing our rules with the launcher of the user's own source tree.

use std::collections::BTreeMap;
use std::fmt::Write;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::HIDDEN;
use crate::diagnostic::Printable;
use crate::plan::Plan;
use crate::plan::rules::Export;
use crate::plan::secret::is_secret_name;
use crate::plan::words;

/// What a launch script exports, by name.
pub type Script = IndexMap<String, Vec<String>>;

/// One difference between our script and the launcher's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What differs: a kind of value, and its name.
    pub what: String,
    /// The roles that have it; none for a variable of the script.
    pub roles: Vec<String>,
    /// Our value, where there is one.
    pub ours: Option<String>,
    /// The launcher's, where there is one.
    pub theirs: Option<String>,
}

/// A command line of a role: kind and name of each part, and its value.
type Parts = IndexMap<String, String>;
/// What the names of arguments begin with.
const ARGUMENT: &str = "argument ";

/// All that differs between two scripts for a plan.
pub fn differences(plan: &Plan, ours: &Script, theirs: &Script) -> Vec<Difference> {
    let suite = plan.suite.iter();
    let exports: IndexMap<_, _> =
        suite.flat_map(|suite| suite.rules.exports(suite.test.kind)).collect();
    let names: IndexSet<_> = ours.keys().chain(theirs.keys()).map(String::as_str).collect();
    let mut found: IndexMap<(String, Option<String>, Option<String>), Vec<String>> =
        IndexMap::new();
    for name in names {
        let (role, of_ours, of_theirs) = match exports.get(name) {
            // What is made of these is compared.
            Some(
                Export::Empty
                | Export::WithoutLauncher
                | Export::WithoutOwnEnvironment(_)
                | Export::OwnEnvironment(_),
            ) => continue,
            // A role that the test has no steps of may have any command.
            Some(Export::Whole(role)) if !plan.roles.contains_key(*role) => continue,
            Some(Export::Whole(role)) => {
                let read = |script: &Script| script.get(name).map(|command| parts(&command[0]));
                let (ours, theirs) = match (read(ours), read(theirs)) {
                    (Some(Ok(ours)), Some(Ok(theirs))) => in_order(ours, theirs),
                    (ours, theirs) => (as_a_whole(ours), as_a_whole(theirs)),
                };
                (Some(*role), ours, theirs)
            }
            _ => (None, variable(name, ours.get(name)), variable(name, theirs.get(name))),
        };
        let parts: IndexSet<_> = of_ours.keys().chain(of_theirs.keys()).collect();
        for part in parts {
            let (one, other) = (of_ours.get(part), of_theirs.get(part));
            if one != other {
                // The last word of a part is a name.
                let name = part.rsplit(' ').next().unwrap_or_default();
                let shown =
                    |value: Option<&String>| match plan.is_secret(name) || is_secret_name(name) {
                        true => value.map(|_| HIDDEN.to_owned()),
                        false => value.cloned(),
                    };
                let key = (part.clone(), shown(one), shown(other));
                found.entry(key).or_default().extend(role.map(str::to_owned));
            }
        }
    }
    let difference = |((what, ours, theirs), mut roles): (_, Vec<String>)| {
        roles.sort_by_key(|role| plan.roles.get_index_of(role));
        Difference { what, roles, ours, theirs }
    };
    found.into_iter().map(difference).collect()
}

/// A command that the other side lacks or has unreadably: one cause, whatever is in it.
fn as_a_whole(command: Option<Result<Parts, String>>) -> Parts {
    let shown = |parts: Result<Parts, String>| parts.map_or_else(|why| why, |_| "(set)".to_owned());
    command.map(|parts| ("command".to_owned(), shown(parts))).into_iter().collect()
}

/// The parts of two commands, also the order of those that both have, where it differs.
fn in_order(mut ours: Parts, mut theirs: Parts) -> (Parts, Parts) {
    let order = |one: &Parts, other: &Parts| {
        let both = one.keys().filter(|part| other.contains_key(*part));
        both.filter_map(|part| part.strip_prefix(ARGUMENT)).collect::<Vec<_>>().join(" ")
    };
    let (of_ours, of_theirs) = (order(&ours, &theirs), order(&theirs, &ours));
    if of_ours != of_theirs {
        ours.insert("order of arguments".to_owned(), of_ours);
        theirs.insert("order of arguments".to_owned(), of_theirs);
    }
    (ours, theirs)
}

/// A variable of the script; each word of an array counts by itself.
fn variable(name: &str, value: Option<&Vec<String>>) -> Parts {
    match value.map(Vec::as_slice) {
        None => Parts::new(),
        Some([text]) => [(format!("variable {name}"), text.clone())].into(),
        Some(words) => words.iter().map(|word| (format!("{name} {word}"), word.clone())).collect(),
    }
}

/// The parts of `unset … && export … && NAME=VALUE … COMMAND …`.
fn parts(command: &str) -> Result<Parts, String> {
    let mut parts = Parts::new();
    let mut rest = command.trim();
    while let Some((head, tail)) = rest.split_once("&&") {
        let words = words::split(head.trim()).unwrap_or_default();
        let mut words = words.iter().map(|word| word.value.as_str());
        match words.next() {
            Some("unset") => {
                parts.extend(words.map(|name| (format!("unset {name}"), "removed".to_owned())));
            }
            Some("export") => parts.extend(words.filter_map(|word| {
                let (name, value) = word.split_once('=')?;
                Some((format!("export {name}"), value.to_owned()))
            })),
            _ => break,
        }
        rest = tail.trim();
    }
    let words = words::split(rest).map_err(|error| format!("({error})"))?;
    let mut uses: IndexMap<&str, usize> = IndexMap::new();
    for word in &words {
        let text = word.value.as_str();
        match text.split_once('=') {
            Some((name, value)) if word.is_assignment => {
                parts.shift_remove(&format!("env {name}"));
                parts.insert(format!("env {name}"), value.to_owned());
            }
            _ => {
                // An option's name groups its values; what is no option counts whole.
                let name = match text.split_once('=') {
                    Some((name, _)) if text.starts_with('-') => name,
                    _ => text,
                };
                let use_of_it = uses.entry(name).or_default();
                *use_of_it += 1;
                let key = match use_of_it {
                    1 => format!("{ARGUMENT}{name}"),
                    nth => format!("{ARGUMENT}{name} ({nth})"),
                };
                parts.insert(key, text.to_owned());
            }
        }
    }
    if uses.is_empty() { Err("(no program)".to_owned()) } else { Ok(parts) }
}

/// The tests that differ from the launcher's in one way.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What differs.
    pub what: String,
    /// The roles that have it.
    pub roles: Vec<String>,
    /// Each pair of values that occurs: ours and the launcher's.
    pub values: IndexSet<(Option<String>, Option<String>)>,
    /// The tests.
    pub tests: Vec<String>,
}

/// The differences of all tests, the commonest first.
pub fn groups(tests: Vec<(String, Vec<Difference>)>) -> Vec<Group> {
    let mut groups: BTreeMap<(String, Vec<String>), Group> = BTreeMap::new();
    for (test, differences) in tests {
        for Difference { what, roles, ours, theirs } in differences {
            let group = groups.entry((what.clone(), roles.clone())).or_default();
            (group.what, group.roles) = (what, roles);
            group.values.insert((ours, theirs));
            if group.tests.last() != Some(&test) {
                group.tests.push(test.clone());
            }
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.tests.len()));
    groups
}

/// How many values and tests of a group are shown.
const SHOWN: usize = 3;

/// One paragraph for each group.
pub fn text(groups: &[Group]) -> String {
    let mut text = String::new();
    for group in groups {
        let roles = match group.roles.is_empty() {
            true => String::new(),
            false => format!(" of {}", group.roles.join(", ")),
        };
        let count = group.tests.len();
        let s = if count == 1 { "" } else { "s" };
        let _ = writeln!(text, "{}{roles}: {count} test{s}", Printable(&group.what));
        for (ours, theirs) in group.values.iter().take(SHOWN) {
            let shown = |value: &Option<String>| value.clone().unwrap_or("(not set)".to_owned());
            let (ours, theirs) = (shown(ours), shown(theirs));
            let _ = writeln!(text, "  slurm-disagg  {}", Printable(&ours));
            let _ = writeln!(text, "  launcher      {}", Printable(&theirs));
        }
        if group.values.len() > SHOWN {
            let _ = writeln!(text, "  and {} more pairs of values", group.values.len() - SHOWN);
        }
        let shown: Vec<_> = group.tests.iter().take(SHOWN).map(String::as_str).collect();
        let _ = write!(text, "  in {}", Printable(&shown.join(", ")));
        if count > SHOWN {
            let _ = write!(text, " and {} more", count - SHOWN);
        }
        text.push_str("\n\n");
    }
    text
}
