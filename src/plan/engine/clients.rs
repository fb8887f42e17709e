// SPDX-License-Identifier: Apache-2.0
//! The steps of a recipe's benchmark, and those that belong to no role of a profile.

use super::sizes::Sized;
use super::{Planner, RunOfClient, Scope, log, step_on};
use crate::diagnostic::Diagnostic;
use crate::plan::content::Content;
use crate::plan::env::Env;
use crate::plan::layout::Run;
use crate::plan::origin::{Origin, Traced};
use crate::plan::profile::Item;
use crate::plan::recipe::Benchmark;
use crate::plan::role::{Own, Purpose, Role, Roles};
use crate::plan::template::Template;

/// Requests of a run for each one in flight, where the recipe does not say.
const ROUNDS: u64 = 10;

/// The name of the step that warms the servers up.
const WARMUP: &str = "WARMUP";

impl<'r> Planner<'r> {
    /// Adds a role for each run of the benchmark, in their order.
    pub(super) fn clients(
        &mut self,
        roles: &mut Roles,
        all: &[Sized<'r>],
        asks: Option<(&'r str, &'r str)>,
        node: u32,
    ) {
        // Without any, that is the error.
        let (Some(benchmark), Some(_)) = (&self.recipe.benchmark, asks) else { return };
        let Some((command, unset)) = self.client(benchmark) else { return };
        let workspace = self.request.workspace.value.trim_end_matches('/');
        let runs: Vec<Option<u64>> = match &benchmark.concurrencies[..] {
            [] => vec![None],
            several => several.iter().map(|one| Some(one.value)).collect(),
        };
        let mut planned = Vec::new();
        if let Some(warmup) = &benchmark.warmup {
            planned.push((WARMUP.to_owned(), runs[0], Some(warmup.value), "warmup".to_owned()));
        }
        for run in &runs {
            let prompts = benchmark.prompts.as_ref().map(|prompts| prompts.value);
            let rounds = benchmark.rounds.as_ref().map_or(ROUNDS, |rounds| rounds.value);
            let prompts = prompts.or(run.and_then(|run| run.checked_mul(rounds)));
            let (name, results) = match run {
                Some(run) if runs.len() > 1 => {
                    (format!("BENCHMARK_{run}"), format!("concurrency_{run}"))
                }
                Some(run) => ("BENCHMARK".to_owned(), format!("concurrency_{run}")),
                None => ("BENCHMARK".to_owned(), "benchmark".to_owned()),
            };
            planned.push((name, *run, prompts, results));
        }
        // The first starts when all servers are ready, each other one when that before it has ended.
        let mut after: Vec<String> = roles.keys().cloned().collect();
        for (name, concurrency, prompts, results) in planned {
            let results = format!("{workspace}/{results}");
            let of_benchmark =
                |field: &Option<Traced<u64>>| field.as_ref().map(|field| field.value);
            let (isl, osl) = (of_benchmark(&benchmark.isl), of_benchmark(&benchmark.osl));
            let run = RunOfClient { isl, osl, concurrency, prompts, results, asks };
            let args: Vec<_> = benchmark.args.iter().map(|word| word.value.clone()).collect();
            let rule = "the client".into();
            let scope =
                Scope { all, role: None, of: None, args: &args, run: Some(&run), rule: &rule };
            let mut argv = self.setup();
            self.emit(&command, scope, None, &mut argv);
            let mut env = Env::default();
            for (name, value) in self.recipe.env.iter().chain(&benchmark.env) {
                self.set(&mut env, name, &value.value, value.origin.clone());
            }
            env.order_for_shell();
            let bare = self.bare(Purpose::Client, 1, false, step_on(1));
            let role = Role {
                unset: unset.clone(),
                env,
                argv,
                places: Run::on(node),
                own: Own { log: log(&name, false), ..bare.own },
                after: std::mem::replace(&mut after, vec![name.clone()]),
                warms_up: name == WARMUP,
                ..bare
            };
            self.add(roles, &Traced::new(name, benchmark.at.origin.clone()), role);
        }
    }

    fn add(&mut self, roles: &mut Roles, name: &Traced<String>, role: Role) {
        if roles.insert(name.value.clone(), role).is_some() {
            let message = format!("two steps are called {}", name.value);
            self.error(message, name.origin.location.clone());
        }
    }

    /// Adds the steps that belong to no role of the profile.
    pub(super) fn extra_steps(
        &mut self,
        roles: &mut Roles,
        all: &[Sized<'r>],
        asks: Option<(&'r str, &'r str)>,
        node: u32,
        total_nodes: u32,
    ) {
        let recipe = self.recipe;
        let is_client = |role: &Role| role.purpose == Purpose::Client;
        // Clients start when all servers are ready, and one after the other, as what runs before does.
        let mut before: Vec<String> = Vec::new();
        let last = roles.iter().rev().find(|(_, role)| is_client(role));
        let mut ready = match last {
            Some((name, _)) => vec![name.clone()],
            None => roles.keys().cloned().collect(),
        };
        for extra in &recipe.steps {
            let run = RunOfClient { asks, ..RunOfClient::default() };
            let rule = "the client".into();
            let scope =
                Scope { all, role: None, of: None, args: &[], run: Some(&run), rule: &rule };
            let mut argv = Vec::new();
            for word in &extra.command {
                self.emit(&Item::Word(word.clone()), scope, None, &mut argv);
            }
            let mut env = Env::default();
            for (name, value) in recipe.env.iter().chain(&extra.env) {
                self.set(&mut env, name, &value.value, value.origin.clone());
            }
            env.order_for_shell();
            let file = |(path, text): (&String, &String)| {
                (Template::literal(path), Content::Text(Template::literal(text)))
            };
            let (nodes, first) = if extra.on_each_node { (total_nodes, 0) } else { (1, node) };
            let bare = self.bare(extra.purpose, 1, false, step_on(nodes));
            let role = Role {
                env,
                argv,
                cwd: extra.cwd.clone().unwrap_or(bare.cwd),
                places: Run::on(first),
                files: extra.files.iter().map(file).collect(),
                own: Own { log: log(&extra.name.value, false), ..bare.own },
                after: match extra.purpose {
                    Purpose::Check => &mut before,
                    _ => &mut ready,
                }
                .splice(.., [extra.name.value.clone()])
                .collect(),
                warms_up: extra.warms_up,
                ..bare
            };
            self.add(roles, &extra.name, role);
        }
    }

    /// The command of a benchmark, and the variables that it removes.
    fn client(&mut self, benchmark: &'r Benchmark) -> Option<(Item, Vec<Traced<String>>)> {
        let at = || benchmark.at.origin.location.clone();
        if let Some(command) = &benchmark.command {
            if let Some(client) = &benchmark.client {
                let message = "benchmark has both `client` and `command`";
                self.error(message, client.origin.location.clone());
            }
            let words = command.iter().cloned().map(Item::Word).collect();
            return Some((Item::All(words), Vec::new()));
        }
        let of_profile =
            self.profile.client.clone().map(|name| Traced::new(name, Origin::default()));
        let Some(name) = benchmark.client.clone().or(of_profile) else {
            self.error("benchmark has neither `client` nor `command`", at());
            return None;
        };
        let request = self.request;
        let Some(client) = &request.client else {
            let message = format!("there is no client {}", name.value);
            let names = request.client_names.join(", ");
            let help = format!("clients are {names}; or give a `command:`");
            let error = Diagnostic::error(message).at(name.origin.location.or_else(at)).help(help);
            self.errors.push(error);
            return None;
        };
        let asked = |name: &str| client.command.has_name(|known| known == name);
        let missing = [
            ("isl", benchmark.isl.is_none()),
            ("osl", benchmark.osl.is_none()),
            ("concurrency", benchmark.concurrencies.is_empty()),
        ];
        for (key, _) in missing.into_iter().filter(|(key, missing)| *missing && asked(key)) {
            let key = if key == "concurrency" { "concurrencies" } else { key };
            let message =
                format!("benchmark.{key} is missing, and the client {} needs it", name.value);
            self.error(message, at());
        }
        Some((client.command.clone(), client.unset.clone()))
    }
}
