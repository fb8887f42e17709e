// SPDX-License-Identifier: Apache-2.0
//! An ordered environment, and what `--export` leaves of one.

use crate::{abi::OPTION_ENV_PREFIX, release::Release};
use serde::{Deserialize, Serialize};

/// Environment variables in the order in which they were set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Env(Vec<(String, String)>);

impl Env {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The environment of this process; text that is not UTF-8 is replaced.
    pub fn current() -> Self {
        std::env::vars_os()
            .map(|(name, value)| {
                (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
            })
            .collect()
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Sets a variable, in its old place when it exists.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// [`Env::set`] for chains.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.set(name, value);
        self
    }

    /// Removes a variable and returns its value.
    pub fn unset(&mut self, name: &str) -> Option<String> {
        let index = self.0.iter().position(|(n, _)| n == name)?;
        Some(self.0.remove(index).1)
    }

    /// Sets every variable of another environment.
    pub fn merge(&mut self, other: &Env) {
        for (name, value) in other.iter() {
            self.set(name, value);
        }
    }

    /// Removes the variables for which `drop`, asked in order, is true.
    pub fn remove_where(&mut self, mut drop: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| !drop(name));
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(variables: T) -> Self {
        let mut env = Env::new();
        for (name, value) in variables {
            env.set(name, value);
        }
        env
    }
}

/// What sbatch puts into the job's environment for `--export`. `login` is the user's login
/// environment, which Slurm loads on the node when `--export` is `NONE` or a list.
pub fn exported_to_job(export: Option<&str>, environ: &Env, login: &Env, release: Release) -> Env {
    let word = export.unwrap_or("ALL");
    if word.eq_ignore_ascii_case("ALL") {
        return environ.clone();
    }
    let mut env = Env::new();
    let nil = word.eq_ignore_ascii_case("NIL") && release.knows_export_nil();
    if !nil {
        env.merge(login);
        env.set("SLURM_GET_USER_ENV", "1");
    }
    if !nil && !word.eq_ignore_ascii_case("NONE") {
        add_listed(&mut env, word, environ);
    }
    add_slurm_names(&mut env, environ, release);
    env
}

/// What srun gives its tasks for `--export`.
pub fn exported_to_step(export: Option<&str>, environ: &Env, release: Release) -> Env {
    let Some(list) = export else { return environ.clone() };
    let mut env = Env::new();
    let words: Vec<_> = split_list(list);
    let none = words.iter().any(|word| word.eq_ignore_ascii_case("NONE"));
    if !none {
        add_listed(&mut env, list, environ);
    }
    if words.iter().any(|word| word.eq_ignore_ascii_case("ALL")) {
        for (name, value) in environ.iter() {
            if env.get(name).is_none() {
                env.set(name, value);
            }
        }
    } else {
        add_slurm_names(&mut env, environ, release);
    }
    env
}

fn add_listed(env: &mut Env, list: &str, environ: &Env) {
    for word in split_list(list) {
        if word.eq_ignore_ascii_case("ALL") {
            env.merge(environ);
        } else if let Some((name, value)) = word.split_once('=') {
            env.set(name, value);
        } else if let Some(value) = environ.get(&word) {
            env.set(word, value);
        }
    }
}

fn add_slurm_names(env: &mut Env, environ: &Env, release: Release) {
    for (name, value) in environ.iter() {
        if name.starts_with("SLURM")
            || release.export_keeps_options() && name.starts_with(OPTION_ENV_PREFIX)
        {
            env.set(name, value);
        }
    }
}

/// Splits at commas outside quotes.
fn split_list(list: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in list.chars() {
        match (c, quote) {
            (',', None) => words.push(String::new()),
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {
                if let Some(word) = words.last_mut() {
                    word.push(c);
                }
            }
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environ() -> Env {
        [("HOME", "/h"), ("A", "1"), ("SLURM_DISAGG_PLAN", "p"), ("_SLURM_SPANK_OPTION_x_y", "v")]
            .into_iter()
            .collect()
    }

    fn names(env: &Env) -> Vec<&str> {
        env.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn all_keeps_everything() {
        let env = exported_to_job(Some("ALL"), &environ(), &Env::new(), Release::V22_05);
        assert_eq!(env, environ());
    }

    #[test]
    fn none_keeps_names_that_start_with_slurm() {
        let env = exported_to_job(Some("NONE"), &environ(), &Env::new(), Release::V22_05);
        assert_eq!(names(&env), ["SLURM_GET_USER_ENV", "SLURM_DISAGG_PLAN"]);
    }

    #[test]
    fn none_keeps_option_names_too_from_23_11_on() {
        let env = exported_to_job(Some("NONE"), &environ(), &Env::new(), Release::V23_11);
        assert_eq!(
            names(&env),
            ["SLURM_GET_USER_ENV", "SLURM_DISAGG_PLAN", "_SLURM_SPANK_OPTION_x_y"]
        );
    }

    #[test]
    fn a_list_adds_what_it_names() {
        let env = exported_to_job(Some("A,B=2"), &environ(), &Env::new(), Release::V22_05);
        assert_eq!(names(&env), ["SLURM_GET_USER_ENV", "A", "B", "SLURM_DISAGG_PLAN"]);
    }

    #[test]
    fn nil_leaves_the_login_environment_out_once_it_is_known() {
        let login = Env::new().with("USER", "u");
        let old = exported_to_job(Some("NIL"), &environ(), &login, Release::V22_05);
        assert_eq!(names(&old), ["USER", "SLURM_GET_USER_ENV", "SLURM_DISAGG_PLAN"]);
        let new = exported_to_job(Some("NIL"), &environ(), &login, Release::V23_02);
        assert_eq!(names(&new), ["SLURM_DISAGG_PLAN"]);
    }

    #[test]
    fn a_step_with_all_and_a_value_has_both() {
        let env = exported_to_step(Some("ALL,A=9"), &environ(), Release::V22_05);
        assert_eq!(env.get("A"), Some("9"));
        assert_eq!(env.get("HOME"), Some("/h"));
    }

    #[test]
    fn a_comma_in_quotes_does_not_split() {
        assert_eq!(split_list("A='1,2',B"), ["A=1,2", "B"]);
    }
}
