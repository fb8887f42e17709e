// SPDX-License-Identifier: Apache-2.0
//! Environment variables of a step, as a plan has them.
//!
//! All references in an [`Env`] are to the environment *around* it: a value that was assigned after
//! another one has that value in it already. So a value means the same in whatever way and order a
//! renderer sets the variables.

use std::collections::{BTreeSet, HashSet};

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::origin::{Origin, Traced};
use super::secret::is_secret_name;
use super::template::{MAX_VALUE, Part, Template, is_name};

/// The most bytes of all values of an environment, which Linux shares with the arguments.
pub const MAX_TOTAL: usize = 1 << 20;

/// Variables in the order in which they are set; every name once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(try_from = "Variables", into = "Variables")]
pub struct Env {
    variables: Variables,
    /// Which names each value was written with, those included that are replaced by now.
    written_with: IndexMap<String, Vec<String>>,
    bytes: usize,
}

type Variables = IndexMap<String, Traced<Template>>;

/// Values that refer to each other until no environment can hold them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} becomes too long: a value may have {MAX_VALUE} bytes, all values of a step {MAX_TOTAL}"
)]
pub struct TooLong {
    /// The variable.
    pub name: String,
}

impl Env {
    /// Assigns a variable as a shell does: a reference to a name that is assigned already has that
    /// name's value. A name stands where it was assigned last.
    ///
    /// # Errors
    /// [`TooLong`]; the variable is left as it was.
    pub fn set(&mut self, name: &str, value: &Template, origin: Origin) -> Result<(), TooLong> {
        let resolved = self.resolved(name, value)?;
        self.bytes += resolved.as_str().len();
        if self.bytes > MAX_TOTAL {
            self.bytes -= resolved.as_str().len();
            return Err(TooLong { name: name.to_owned() });
        }
        let mut names = value.variables().map(str::to_owned).peekable();
        if names.peek().is_some() {
            self.written_with.entry(name.to_owned()).or_default().extend(names);
        }
        if let Some(earlier) = self.variables.shift_remove(name) {
            self.bytes -= earlier.value.as_str().len();
        }
        self.variables.insert(name.to_owned(), Traced::new(resolved, origin));
        Ok(())
    }

    /// A variable's value with these variables' values in place of references to them. Its length
    /// is known before it is made.
    fn resolved(&self, name: &str, value: &Template) -> Result<Template, TooLong> {
        if value.as_str().len() <= MAX_VALUE && value.is_literal() {
            return Ok(value.clone());
        }
        let length = |part| match part {
            Part::Variable(name) => self.get(name).map_or(name.len(), |value| value.as_str().len()),
            Part::Text(text) => text.len(),
            Part::Slot(_) => 0,
        };
        if value.parts().map(length).fold(0, usize::saturating_add) > MAX_VALUE {
            return Err(TooLong { name: name.to_owned() });
        }
        Ok(value.replace(|part| match part {
            Part::Variable(name) => self.get(name).cloned(),
            _ => None,
        }))
    }

    /// The same variables when `before` are set before them: references to those have their values.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn after(&self, before: &Self) -> Result<Self, TooLong> {
        let mut after = self.clone();
        for (name, variable) in &mut after.variables {
            variable.value = before.resolved(name, &variable.value)?;
        }
        after.counted()
    }

    /// These variables and `others` set after them, whose values win.
    ///
    /// # Errors
    /// [`TooLong`].
    pub fn and_then(&self, others: &Self) -> Result<Self, TooLong> {
        let others = others.after(self)?;
        let mut all = self.clone();
        all.variables.retain(|name, _| others.get(name).is_none());
        all.variables.extend(others.variables);
        for (name, names) in others.written_with {
            all.written_with.entry(name).or_default().extend(names);
        }
        all.counted()
    }

    fn counted(mut self) -> Result<Self, TooLong> {
        self.bytes = 0;
        for (name, variable) in &self.variables {
            self.bytes += variable.value.as_str().len();
            if self.bytes > MAX_TOTAL {
                return Err(TooLong { name: name.clone() });
            }
        }
        Ok(self)
    }

    /// Changes the value of a variable that is there.
    pub fn replace(&mut self, name: &str, value: &Template) {
        if let Some(slot) = self.variables.get_mut(name) {
            slot.value = value.clone();
        }
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&Template> {
        self.variables.get(name).map(|traced| &traced.value)
    }

    /// The variables, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Traced<Template>)> {
        self.variables.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Each variable with the names that its value was written with, also where the value no longer
    /// shows them: what refers to a secret is one.
    pub fn written_with(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.written_with.iter().map(|(name, names)| (name.as_str(), names.as_slice()))
    }

    /// Moves each variable before those that its value refers to, as far as they do not refer to
    /// each other in a circle: a shell that assigns them one by one then gets these values.
    pub fn order_for_shell(&mut self) {
        if self.first_out_of_order().is_none() {
            return;
        }
        let others = |at: usize| {
            let used = self.variables[at].value.variables();
            let used = used.filter_map(|name| self.variables.get_index_of(name));
            used.filter(move |used| *used != at).collect::<Vec<_>>()
        };
        let uses: Vec<_> = (0..self.len()).map(others).collect();
        let mut users = vec![0_usize; self.len()];
        uses.iter().flatten().for_each(|used| users[*used] += 1);
        let mut waiting: BTreeSet<usize> = (0..self.len()).collect();
        let mut free: BTreeSet<usize> = (0..self.len()).filter(|at| users[*at] == 0).collect();
        let mut order = Vec::with_capacity(self.len());
        // In a circle nobody is free: the first goes on.
        while let Some(next) = free.pop_first().or_else(|| waiting.first().copied()) {
            waiting.remove(&next);
            order.push(next);
            for used in &uses[next] {
                users[*used] = users[*used].saturating_sub(1);
                if users[*used] == 0 && waiting.contains(used) {
                    free.insert(*used);
                }
            }
        }
        let mut old: Vec<_> = std::mem::take(&mut self.variables).into_iter().map(Some).collect();
        self.variables = order.into_iter().filter_map(|at| old[at].take()).collect();
    }

    /// The first variable whose value refers to one that is set before it.
    pub fn first_out_of_order(&self) -> Option<&str> {
        if self.variables.values().all(|value| value.value.is_literal()) {
            return None;
        }
        let mut seen = HashSet::new();
        self.iter().find_map(|(name, value)| {
            let is_late = value.value.variables().any(|used| seen.contains(used));
            seen.insert(name);
            is_late.then_some(name)
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.variables.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
    }
}

/// The names of the variables that are secret: those that are listed, those whose names say so
/// unless `-NAME` is listed, and those whose values were made from a secret one.
pub fn secret_names<'e>(
    listed: &[String],
    envs: impl Iterator<Item = &'e Env> + Clone,
) -> Vec<String> {
    let (removed, listed): (Vec<&String>, _) =
        listed.iter().partition(|name| name.starts_with('-'));
    let mut secrets: BTreeSet<String> = listed.into_iter().cloned().collect();
    let is_secret_name =
        |name: &str| is_secret_name(name) && !removed.iter().any(|removed| removed[1..] == *name);
    let names = envs.clone().flat_map(|env| env.iter().map(|(name, _)| name));
    secrets.extend(names.filter(|name| is_secret_name(name)).map(str::to_owned));
    loop {
        let before = secrets.len();
        let is_secret = |name: &str| secrets.contains(name) || is_secret_name(name);
        let made_from = envs.clone().flat_map(Env::written_with);
        let found: Vec<_> = made_from
            .filter(|(name, used)| !secrets.contains(*name) && used.iter().any(|u| is_secret(u)))
            .map(|(name, _)| name.to_owned())
            .collect();
        secrets.extend(found);
        if secrets.len() == before {
            return secrets.into_iter().collect();
        }
    }
}

impl PartialEq for Env {
    fn eq(&self, other: &Self) -> bool {
        self.variables.iter().eq(other.variables.iter())
    }
}

impl From<Env> for Variables {
    fn from(env: Env) -> Self {
        env.variables
    }
}

impl TryFrom<Variables> for Env {
    type Error = String;

    fn try_from(variables: Variables) -> Result<Self, String> {
        let wrong = |(name, value): &(&String, &Traced<Template>)| {
            !is_name(name) || value.value.as_str().contains('\0')
        };
        if let Some((name, _)) = variables.iter().find(wrong) {
            return Err(format!("{name:?} is not an environment variable"));
        }
        let bytes = variables.values().map(|value| value.value.as_str().len()).sum();
        Ok(Self { variables, bytes, ..Self::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(assignments: &[(&str, &str)]) -> Env {
        let mut env = Env::default();
        for (name, value) in assignments {
            env.set(name, &Template::from_written(*value), Origin::default()).unwrap();
        }
        env
    }

    fn json(env: &Env) -> String {
        serde_json::to_string(env).unwrap()
    }

    #[test]
    fn a_later_value_wins_and_may_use_the_earlier_one() {
        let env = env(&[("A", "1"), ("B", "$A$C"), ("A", "2:$A")]);
        assert_eq!(json(&env), r#"{"B":"1${C}","A":"2:1"}"#);
    }

    #[test]
    fn values_that_multiply_are_refused_before_they_are_made() {
        let mut grown = env(&[("A", "0123456789")]);
        let double = Template::from_written("$A$A");
        let refused = (0..60).find_map(|_| grown.set("A", &double, Origin::default()).err());
        assert_eq!(refused.unwrap().name, "A");
        assert!(grown.get("A").unwrap().as_str().len() <= MAX_VALUE);
        let mut many = env(&[("A", &"x".repeat(MAX_VALUE / 2))]);
        let set = |n| many.set(&format!("B{n}"), &Template::from_written("$A"), Origin::default());
        assert!((0..60).map(set).any(|set| set.is_err()));
    }

    #[test]
    fn what_comes_after_sees_what_comes_before_and_not_itself() {
        let before = env(&[("A", "1"), ("L", "a")]);
        let after = env(&[("L", "/x:$L"), ("P", "$L"), ("B", "$A"), ("A", "2")]);
        let all = before.and_then(&after).unwrap();
        assert_eq!(json(&all), r#"{"L":"/x:a","P":"/x:a","B":"1","A":"2"}"#);
    }

    #[test]
    fn a_value_stands_before_the_names_that_it_refers_to() {
        let mut env = env(&[("L", "/x:$L"), ("P", "$L"), ("Z", "1")]);
        assert_eq!(env.first_out_of_order(), Some("P"));
        env.order_for_shell();
        assert_eq!(json(&env), r#"{"P":"/x:${L}","L":"/x:${L}","Z":"1"}"#);
        assert_eq!(env.first_out_of_order(), None);
    }

    #[test]
    fn values_that_refer_to_each_other_stay() {
        let mut env = env(&[("T", "$A"), ("A", "$B"), ("B", "$T")]);
        env.order_for_shell();
        assert!(env.first_out_of_order().is_some());
        assert_eq!(env.get("B").unwrap().as_str(), "${A}");
    }
}
