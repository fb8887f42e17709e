// SPDX-License-Identifier: Apache-2.0
//! From the parts of a command in a profile to its words, and what placeholders stand for.

use super::sizes::{Sized, is_same};
use super::{Planner, Scope, config_file, url};
use crate::diagnostic::Diagnostic;
use crate::plan::argument::{Argument, Group, Tasks};
use crate::plan::content::Content;
use crate::plan::expr::{Expr, Later, Pattern, UNEVEN, Value};
use crate::plan::origin::{Origin, Traced};
use crate::plan::profile::{Choice, Item};
use crate::plan::role::Deal;
use crate::plan::template::{Fact, Slot, Template};

impl<'r> Planner<'r> {
    /// The words of a role's arguments. One that the profile sets itself is an error.
    pub(super) fn args(&mut self, role: &Sized<'r>) -> Vec<String> {
        let syntax = self.profile.syntax;
        let has_level = self.log_level(role).is_some();
        let may_hold = |condition: &Expr| has_level || !condition.is_name("log_level");
        let mut own = Vec::new();
        let mut add = |word: &'r Traced<Pattern>| {
            let text = word.value.literal().map(Template::as_str);
            own.extend(text.filter(|text| text.starts_with('-')));
        };
        role.profile.command.words_where(&may_hold, &mut add);
        let mut args = Vec::new();
        for (name, value) in &role.args {
            let option = syntax.option(name);
            let is_option = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            if !is_option || name.is_empty() || name.starts_with('-') {
                let message = format!(
                    "{}: an argument's name is written without dashes before it",
                    value.origin.input
                );
                self.error(message, value.origin.location.clone());
            }
            if own.iter().any(|word| is_same(word, &option)) {
                let error = Diagnostic::error(format!(
                    "{}: the profile sets {option} itself",
                    value.origin.input
                ));
                let help =
                    "remove it; ports, addresses and sizes of the plan would not be the engine's";
                self.errors.push(error.at(value.origin.location.clone()).help(help));
            }
            args.extend(syntax.words(name, &value.value));
        }
        args
    }

    /// Adds a part of a command.
    pub(super) fn emit(
        &mut self,
        item: &Item,
        scope: Scope<'_, 'r>,
        on: Option<Tasks>,
        argv: &mut Vec<Traced<Argument>>,
    ) {
        match item {
            Item::Word(word) => {
                let Some(value) = self.value(word, scope) else { return };
                let words = match value {
                    Value::List(words) => words,
                    Value::Text(text) if on.is_none() => {
                        let origin = self.by_profile(&word.origin, scope);
                        return argv.push(Traced::new(Argument::Word(text), origin));
                    }
                    value => match self.text(&value, word, scope) {
                        Some(text) => vec![text],
                        None => return,
                    },
                };
                let origin = self.by_profile(&word.origin, scope);
                match on {
                    None => {
                        let words = words.into_iter().map(Argument::Word);
                        argv.extend(words.map(|word| Traced::new(word, origin.clone())));
                    }
                    Some(_) => {
                        argv.push(Traced::new(
                            Argument::Group(Group { each: None, on, words }),
                            origin,
                        ));
                    }
                }
            }
            Item::All(items) => items.iter().for_each(|item| self.emit(item, scope, on, argv)),
            Item::If(choice) => match self.holds(&choice.condition, scope) {
                Some(Some(true)) => self.emit(&choice.then, scope, on, argv),
                Some(Some(false)) => self.emit(&choice.otherwise, scope, on, argv),
                Some(None) => {
                    let Choice { then, otherwise, .. } = &**choice;
                    for (item, tasks) in [(otherwise, Tasks::Leader), (then, Tasks::Followers)] {
                        if on.is_none_or(|on| on == tasks) {
                            self.emit(item, scope, Some(tasks), argv);
                        }
                    }
                }
                None => {}
            },
            Item::Each { role, words } => {
                let runs = |other: &&Sized<'_>| other.key == role && other.runs();
                let Some(other) = scope.all.iter().find(runs) else { return };
                let scope = Scope { role: Some(other), args: &[], ..scope };
                let mut texts = Vec::new();
                for word in &**words {
                    if let Some(value) = self.value(word, scope) {
                        texts.extend(self.text(&value, word, scope));
                    }
                }
                let each = Some(other.profile.name.clone());
                let origin = words.first().map(|word| self.by_profile(&word.origin, scope));
                let group = Argument::Group(Group { each, on, words: texts });
                argv.push(Traced::new(group, origin.unwrap_or_default()));
            }
        }
    }

    /// The value of a variable; none where its condition does not hold.
    pub(super) fn values(
        &mut self,
        item: &Item,
        scope: Scope<'_, 'r>,
    ) -> Option<(Template, Origin)> {
        match item {
            Item::Word(word) => {
                let value = self.value(word, scope)?;
                Some((self.text(&value, word, scope)?, self.by_profile(&word.origin, scope)))
            }
            Item::If(choice) => match self.holds(&choice.condition, scope)? {
                Some(true) => self.values(&choice.then, scope),
                Some(false) => self.values(&choice.otherwise, scope),
                None => {
                    let why = "a variable cannot depend on the node";
                    self.pattern_error(&choice.condition.origin, scope, why);
                    None
                }
            },
            Item::All(items) if items.is_empty() => None,
            Item::All(_) | Item::Each { .. } => {
                self.error("a variable of the profile has several words", None);
                None
            }
        }
    }

    fn by_profile(&self, origin: &Origin, scope: Scope<'_, 'r>) -> Origin {
        if origin.location.is_none() {
            return origin.clone();
        }
        origin.by_rule(scope.rule.clone())
    }

    /// Whether a condition holds: yes, no, or it depends on the task's node; none after an error.
    fn holds(&mut self, condition: &Traced<Expr>, scope: Scope<'_, 'r>) -> Option<Option<bool>> {
        let value = condition.value.value(&mut |name, of| self.lookup(name, of, scope));
        let value = match value {
            Ok(value) => value,
            Err(why) => {
                self.pattern_error(&condition.origin, scope, &why);
                return None;
            }
        };
        match (value.holds(), &value) {
            (Some(holds), _) => Some(Some(holds)),
            (None, Value::Later(later)) if *later == Later::new(Fact::NodeRank, String::new()) => {
                Some(None)
            }
            _ => {
                self.pattern_error(&condition.origin, scope, "known only in the job");
                None
            }
        }
    }

    pub(super) fn value(&mut self, word: &Traced<Pattern>, scope: Scope<'_, 'r>) -> Option<Value> {
        let value = word.value.value(&mut |name, of| self.lookup(name, of, scope));
        value.map_err(|why| self.pattern_error(&word.origin, scope, &why)).ok()
    }

    pub(super) fn text(
        &mut self,
        value: &Value,
        word: &Traced<Pattern>,
        scope: Scope<'_, 'r>,
    ) -> Option<Template> {
        let text = value.text();
        let why = |why| self.pattern_error(&word.origin, scope, &format!("{}: {why}", word.value));
        text.map_err(why).ok()
    }

    fn pattern_error(&mut self, origin: &Origin, scope: Scope<'_, 'r>, why: &str) {
        let error = Diagnostic::error(format!("{}: {why}", named(origin, scope.of)));
        let given = scope.of.and_then(|role| role.recipe).map(|given| &given.key.origin.location);
        self.errors.push_once(match given.filter(|_| why.contains(UNEVEN)) {
            // The numbers are the recipe's.
            Some(at) => error.at(at.clone()).help("choose sizes that can be divided so"),
            None => error.at(origin.location.clone()),
        });
    }

    /// The value of a placeholder.
    fn lookup(&self, name: &str, of: Option<&str>, scope: Scope<'_, 'r>) -> Result<Value, String> {
        let text = |text: &str| Ok(Value::Text(Template::literal(text)));
        let number = |number: u32| Ok(Value::Number(number.into()));
        let later = |fact, of: String| Ok(Value::Later(Later::new(fact, of)));
        let optional = |given: Option<String>| {
            Ok(given.map_or(Value::Nothing, |text| Value::Text(Template::literal(&text))))
        };
        let slot = |slot: Slot<'_>| {
            let mut template = Template::default();
            template.push_slot(slot);
            Ok(Value::Text(template))
        };
        match name {
            "model" => return text(&self.recipe.model.value),
            "served_name" => return text(&self.served_name()),
            "workspace" => return text(self.request.workspace.value.trim_end_matches('/')),
            "args" => {
                return Ok(Value::List(
                    scope.args.iter().map(|word| Template::literal(word)).collect(),
                ));
            }
            _ => {}
        }
        if let Some(run) = scope.run {
            let number = |number: Option<u64>| {
                Ok(number.and_then(|n| i64::try_from(n).ok()).map_or(Value::Nothing, Value::Number))
            };
            return match (name, run.asks) {
                ("isl", _) => number(run.isl),
                ("osl", _) => number(run.osl),
                ("concurrency", _) => number(run.concurrency),
                ("prompts", _) => number(run.prompts),
                ("results", _) => text(&run.results),
                ("url", Some((role, port))) => Ok(Value::Text(url(role, port))),
                ("host", Some((role, _))) => {
                    slot(Slot { role: Some(role), ..Slot::own(Fact::LeaderAddr) })
                }
                ("host_port", Some((role, port))) => later(Fact::Port, format!(":{role}.{port}")),
                ("url" | "host" | "host_port", None) => Ok(Value::Nothing),
                _ => Err(format!("a client has no placeholder {{{name}}}")),
            };
        }
        let Some(role) = scope.role else { return Err(format!("{{{name}}} is not known here")) };
        let find = |key: &str| scope.all.iter().find(|other| other.key == key);
        let other = |of: Option<&str>| {
            let (key, port) = of?.split_once('.')?;
            let role = find(key).filter(|role| role.runs())?;
            Some((role.profile.name.as_str(), port.to_owned()))
        };
        // Those that are not started are no part of the plan.
        let held = |of: Option<&str>| {
            let (key, port) = of?.split_once('.')?;
            Some((find(key).filter(|role| !role.is_started)?, port.to_owned()))
        };
        let step = &role.step;
        match (name, of) {
            ("name", _) => slot(Slot::own(Fact::Name)),
            ("index", _) => later(Fact::Index, String::new()),
            ("interface", _) => optional(self.request.interface.as_ref().map(|i| i.value.clone())),
            ("log_level", _) => optional(self.log_level(role).map(|level| level.name().into())),
            ("log_level_upper", _) => {
                optional(self.log_level(role).map(|level| level.name().to_uppercase()))
            }
            ("profiled_steps", _) => optional(self.profiled_steps(role)),
            ("gpu_count", _) => number(role.gpus),
            ("gpus_per_node", _) => number(self.gpus_per_node),
            ("nnodes", _) if step.deal == Deal::ByGpu && step.nodes > 1 => {
                Err("servers that are placed `compact` have different numbers of nodes".to_owned())
            }
            ("nnodes", _) => number(step.nodes),
            ("tasks", _) => number(step.tasks),
            ("node_rank", _) if step.nodes == 1 => number(0),
            ("rank", _) if step.tasks == 1 => number(0),
            ("local_rank", _) if step.tasks_per_node == 1 => number(0),
            ("node_rank", _) => later(Fact::NodeRank, String::new()),
            ("rank", _) => later(Fact::Rank, String::new()),
            ("local_rank", _) => later(Fact::LocalRank, String::new()),
            ("node_addr", _) if step.nodes == 1 => slot(Slot::own(Fact::LeaderAddr)),
            ("node_addr", _) => slot(Slot::own(Fact::NodeAddr)),
            ("leader_addr", None) => slot(Slot::own(Fact::LeaderAddr)),
            ("leader_addr", Some(key)) => match find(key).filter(|role| role.runs()) {
                Some(role) => {
                    slot(Slot { role: Some(&role.profile.name), ..Slot::own(Fact::LeaderAddr) })
                }
                None => Ok(Value::Nothing),
            },
            ("count", None) => number(role.count),
            ("count", Some(key)) => number(find(key).map_or(0, |role| role.count)),
            ("port", Some(of)) => match other(Some(of)) {
                Some((role, port)) => later(Fact::Port, format!(":{role}.{port}")),
                None if of.contains('.') => Ok(Value::Nothing),
                None => later(Fact::Port, format!(":.{of}")),
            },
            ("addrs" | "urls", of) => match other(of) {
                Some((role, port)) => {
                    let fact = if name == "urls" { Fact::Urls } else { Fact::Addrs };
                    slot(Slot { role: Some(role), port: Some(&port), ..Slot::own(fact) })
                }
                None => Ok(Value::List(held(of).map_or_else(Vec::new, |(role, port)| {
                    role.addresses(&port, if name == "urls" { "http://" } else { "" })
                }))),
            },
            ("url", of) => Ok(match other(of) {
                Some((role, port)) => Value::Text(url(role, &port)),
                None => Value::Nothing,
            }),
            ("size", Some(size)) => match self.size_of(role, size).map(|size| &size.value) {
                Some(Content::Int(size)) => Ok(Value::Number(*size)),
                _ => number(1),
            },
            ("arg", Some(name)) => {
                let found = role.args.iter().find(|(known, _)| is_same(known, name));
                Ok(match found.map(|(_, value)| &value.value) {
                    None | Some(Content::Null) => Value::Nothing,
                    Some(Content::Int(number)) => Value::Number(*number),
                    Some(Content::Bool(value)) => Value::Number((*value).into()),
                    Some(other) => Value::Text(Template::literal(&other.word())),
                })
            }
            ("wrap", _) => {
                let words = role.recipe.iter().flat_map(|role| &role.wrap);
                Ok(Value::List(words.map(|word| Template::literal(&word.value)).collect()))
            }
            ("config", _) => {
                let has_keys = role.recipe.is_some_and(|role| !role.config.is_empty());
                match config_file(role) {
                    Some(file) if has_keys || !role.profile.config.is_empty() => {
                        let workspace = self.request.workspace.value.trim_end_matches('/');
                        let mut path = Template::literal(&format!("{workspace}/"));
                        path.push(&file);
                        Ok(Value::Text(path))
                    }
                    _ => Ok(Value::Nothing),
                }
            }
            _ => Err(format!("unknown placeholder {{{name}}}")),
        }
    }
}

/// The name of what a profile or a recipe says. What a profile says in its roles is not known by its role,
/// since an anchor may repeat it.
pub(super) fn named(origin: &Origin, of: Option<&Sized<'_>>) -> String {
    let role = of.filter(|_| !origin.input.starts_with("roles."));
    let role = role.map(|role| format!("roles.{}.", role.key)).unwrap_or_default();
    format!("{role}{}", origin.input)
}
