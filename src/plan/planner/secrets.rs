// SPDX-License-Identifier: Apache-2.0
//! Which variables of a plan nobody else may see.

use std::collections::BTreeSet;

use super::Planner;
use crate::plan::Env;
use crate::plan::secret::is_secret_name;

impl Planner<'_> {
    /// The names of the variables that are secret: those that are listed, those whose names say so
    /// unless `-NAME` is listed, and those whose values were made from a secret one.
    pub(super) fn secrets<'e>(&self, envs: impl Iterator<Item = &'e Env> + Clone) -> Vec<String> {
        let (removed, listed): (Vec<&String>, _) =
            self.request.secrets.iter().partition(|name| name.starts_with('-'));
        let mut secrets: BTreeSet<String> = listed.into_iter().cloned().collect();
        let is_secret_name = |name: &str| {
            is_secret_name(name) && !removed.iter().any(|removed| removed[1..] == *name)
        };
        let names = envs.clone().flat_map(|env| env.iter().map(|(name, _)| name));
        secrets.extend(names.filter(|name| is_secret_name(name)).map(str::to_owned));
        loop {
            let before = secrets.len();
            let is_secret = |name: &str| secrets.contains(name) || is_secret_name(name);
            let made_from = envs.clone().flat_map(Env::written_with);
            let found: Vec<_> = made_from
                .filter(|(name, used)| {
                    !secrets.contains(*name) && used.iter().any(|u| is_secret(u))
                })
                .map(|(name, _)| name.to_owned())
                .collect();
            secrets.extend(found);
            if secrets.len() == before {
                return secrets.into_iter().collect();
            }
        }
    }
}
