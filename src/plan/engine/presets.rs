// SPDX-License-Identifier: Apache-2.0
//! What recipes of every engine may ask for around a command: a script before it, nsys, a log level.

use super::sizes::Sized;
use super::{Planner, Scope};
use crate::diagnostic::Diagnostic;
use crate::plan::argument::Argument;
use crate::plan::expr::Pattern;
use crate::plan::origin::{Origin, Traced};
use crate::plan::profile::{Item, ProfileRole};
use crate::plan::recipe::{LogLevel, Nsys, NsysRange};
use crate::plan::template::Template;

/// Sources the script that it is named by, and becomes its arguments.
const SETUP_SH: &str = r#". "$0" || exit; exec "$@""#;

/// What nsys records, whenever it does. A program that it has forked counts too.
const NSYS: [&str; 10] = [
    "nsys",
    "profile",
    "-o",
    "{workspace}/nsys_{name}_{rank}",
    "-f",
    "true",
    "-t",
    "cuda,nvtx",
    "--cuda-graph-trace=node",
    "--trace-fork-before-exec=true",
];

impl<'r> Planner<'r> {
    /// The words before all others.
    pub(super) fn setup(&self) -> Vec<Traced<Argument>> {
        let Some(setup) = &self.recipe.setup else { return Vec::new() };
        let words = ["bash", "-c", SETUP_SH, &setup.value].into_iter();
        let word =
            |word| Traced::new(Argument::Word(Template::literal(word)), setup.origin.clone());
        words.map(word).collect()
    }

    /// Adds nsys, where the role is profiled.
    pub(super) fn nsys(&mut self, scope: Scope<'_, 'r>, argv: &mut Vec<Traced<Argument>>) {
        let nsys = scope.role.and_then(|role| role.recipe).and_then(|role| role.nsys.as_ref());
        let Some(Traced { value: nsys, origin }) = nsys else { return };
        let range = match &nsys.range {
            NsysRange::Steps(_) => {
                ["-c", "cudaProfilerApi", "--capture-range-end=stop"].map(str::to_owned)
            }
            NsysRange::Time { delay, duration } => {
                // Else it would end the server when it has recorded.
                [format!("--delay={delay}"), format!("--duration={duration}"), "--kill=none".into()]
            }
        };
        for word in NSYS {
            if let Ok(pattern) = Pattern::parse(&word.into()) {
                let word = Item::Word(Traced::new(pattern, origin.clone()));
                self.emit(&word, scope, None, argv);
            }
        }
        let words = range.iter().chain(&nsys.args);
        let word =
            |word: &String| Traced::new(Argument::Word(Template::literal(word)), origin.clone());
        argv.extend(words.map(word));
    }

    /// How much a role logs, where the recipe says so.
    pub(super) fn log_level(&self, role: &Sized<'r>) -> Option<LogLevel> {
        let own = role.recipe.and_then(|role| role.log_level.as_ref());
        own.or(self.recipe.log_level.as_ref()).map(|level| level.value)
    }

    /// The steps of the engine that nsys records.
    pub(super) fn profiled_steps(&self, role: &Sized<'r>) -> Option<String> {
        match &role.recipe?.nsys.as_ref()?.value.range {
            NsysRange::Steps(steps) => Some(steps.clone()),
            NsysRange::Time { .. } => None,
        }
    }

    /// Refuses what the profile does not pass on to the engine.
    pub(super) fn check_presets(&mut self) {
        let (recipe, profile) = (self.recipe, self.profile);
        let mut refuse = |origin: &Origin, what: &str, help: &str| {
            let message = format!("{}: the profile of {} {what}", origin.input, profile.engine);
            let error = Diagnostic::error(message).at(origin.location.clone());
            self.errors.push_once(error.help(help));
        };
        let level = |role: &ProfileRole| mentions(role, "log_level");
        let of_all = recipe.log_level.iter().filter(|_| !profile.roles.values().any(level));
        let roles = recipe.roles.iter();
        let known = roles.filter_map(|(key, role)| Some((role, profile.roles.get(key)?)));
        let of_roles = known.clone().filter(|(role, of)| role.log_level.is_some() && !level(of));
        for level in of_all.chain(of_roles.filter_map(|(role, _)| role.log_level.as_ref())) {
            let help = "set what the program has for it in `args` or `env`";
            refuse(&level.origin, "has no log level for this role", help);
        }
        for (role, of) in known {
            let by_steps = |nsys: &&Traced<Nsys>| matches!(nsys.value.range, NsysRange::Steps(_));
            let nsys = role.nsys.as_ref().filter(by_steps);
            if let Some(nsys) = nsys.filter(|_| !mentions(of, "profiled_steps")) {
                let help = "record for a time: {delay: SECONDS, duration: SECONDS}";
                refuse(&nsys.origin, "cannot record steps of this role", help);
            }
        }
    }
}

/// Whether a role's command or variables have a placeholder whose name begins so.
fn mentions(role: &ProfileRole, start: &str) -> bool {
    let mut items = std::iter::once(&role.command).chain(role.env.values());
    items.any(|item| item.has_name(|name| name.starts_with(start)))
}
