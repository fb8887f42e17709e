// SPDX-License-Identifier: Apache-2.0
//! From a recipe and the profile of its engine to a plan. Nothing here knows an engine.

mod clients;
mod command;
mod presets;
mod secrets;
mod sizes;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use self::sizes::{Sized, is_same};
use super::content::Content;
use super::env::{Env, TooLong, secret_names};
use super::expr::Value;
use super::health::{Minimum, Ready};
use super::layout::{FrontendNode, Layout, Placement};
use super::origin::{Label, Origin, Traced};
use super::planner::{container, job};
use super::profile::{ConfigItem, Item, Profile};
use super::recipe::{EngineRequest, Recipe};
use super::role::{Deal, Own, Purpose, Role, Roles, Step};
use super::template::{Fact, Slot, Template};
use super::{Plan, SCHEMA};
use crate::diagnostic::{Diagnostic, Diagnostics, Location, nearest};

/// The most runs of a benchmark.
pub const MAX_RUNS: usize = 100;

/// The part of a plan that a recipe and a profile make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// Its name.
    pub name: String,
    /// The model: a path, or a name of a hub.
    pub model: String,
    /// The name by which clients ask for it.
    pub served_name: String,
    /// Where clients ask, as a template for the steps' addresses.
    pub url: Template,
    /// Whether the servers serve until the job ends.
    pub serve_only: bool,
    /// The seconds in which all servers have to be ready, from the time when all steps run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_limit: Option<Traced<u32>>,
    /// The interface whose addresses nodes are reached at; else they are by their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<Traced<String>>,
}

/// Computes a plan.
///
/// # Errors
/// All that contradicts itself, with positions; no plan exists then.
pub fn plan(request: &EngineRequest) -> Result<Plan, Diagnostics> {
    let mut planner = Planner::new(request);
    let plan = planner.plan();
    match plan.filter(|_| !planner.errors.has_errors()) {
        None => Err(planner.errors),
        Some(plan) => match plan.check() {
            Ok(()) => Ok(plan),
            Err(error) => Err(Diagnostic::error(error.to_string()).into()),
        },
    }
}

/// What is wrong with a recipe's names, whatever else is.
pub fn wrong_names(request: &EngineRequest) -> Diagnostics {
    let mut planner = Planner::new(request);
    planner.check_names();
    planner.errors
}

struct Planner<'r> {
    request: &'r EngineRequest,
    recipe: &'r Recipe,
    profile: &'r Profile,
    gpus_per_node: u32,
    errors: Diagnostics,
    notes: Vec<String>,
}

/// What placeholders of a command are about.
#[derive(Clone, Copy)]
struct Scope<'s, 'r> {
    all: &'s [Sized<'r>],
    /// The role; none for a client.
    role: Option<&'s Sized<'r>>,
    /// The role whose profile has the words, which may be about another one.
    of: Option<&'s Sized<'r>>,
    /// The words of `{args}`.
    args: &'s [String],
    run: Option<&'s RunOfClient<'r>>,
    /// Who says the words.
    rule: &'s Label,
}

/// One run of a client.
#[derive(Default)]
struct RunOfClient<'r> {
    isl: Option<u64>,
    osl: Option<u64>,
    concurrency: Option<u64>,
    prompts: Option<u64>,
    /// The directory of its results, below the workspace.
    results: String,
    /// Where it asks: a role's step name and port.
    asks: Option<(&'r str, &'r str)>,
}

impl<'r> Planner<'r> {
    fn new(request: &'r EngineRequest) -> Self {
        Self {
            request,
            recipe: &request.recipe,
            profile: &request.profile,
            gpus_per_node: request.recipe.gpus_per_node.as_ref().map_or(0, |gpus| gpus.value),
            errors: Diagnostics::default(),
            notes: Vec::new(),
        }
    }

    fn error(&mut self, message: impl Into<String>, at: Option<Location>) {
        self.errors.push_once(Diagnostic::error(message).at(at));
    }

    fn check_names(&mut self) {
        self.refuse_secrets();
        self.check_presets();
        for (key, role) in &self.recipe.roles {
            for (at, (name, value)) in role.args.iter().enumerate() {
                let mut before = role.args.keys().take(at);
                if let Some(same) = before.find(|before| is_same(before, name)) {
                    let message = format!("roles.{key}.args: {same} and {name} are one argument");
                    self.error(message, value.origin.location.clone());
                }
            }
            let of_profile = self.profile.roles.get(key);
            if let Some(has_none) = of_profile.filter(|role| role.config_file.is_none())
                && let Some(first) = role.config.values().next()
            {
                let message = format!("{} takes no configuration file", has_none.name);
                let error = Diagnostic::error(message).at(first.origin.location.clone());
                self.errors.push(error.help("give it arguments, in `args`"));
            }
            if of_profile.is_none() {
                let names: Vec<_> = self.profile.roles.keys().map(String::as_str).collect();
                let help = match nearest(key, names.iter().copied(), 1)[..] {
                    [near, ..] => format!("did you mean `{near}`?"),
                    _ => format!("its roles are: {}", names.join(", ")),
                };
                let message = format!("the engine {} has no role {key}", self.profile.engine);
                let at = role.key.origin.location.clone();
                self.errors.push(Diagnostic::error(message).at(at).help(help));
            }
        }
    }

    fn plan(&mut self) -> Option<Plan> {
        let (recipe, request) = (self.recipe, self.request);
        self.check_names();
        let mut sized = self.sizes();
        if self.errors.has_errors() {
            // Nothing can be placed, but other mistakes can be named.
            sized.iter().for_each(|role| drop(self.args(role)));
            return None;
        }
        let (total_nodes, frontend) = self.place(&mut sized)?;
        self.ports(&mut sized);
        let asks = self.asks(&sized);
        let mut roles = Roles::new();
        for role in sized.iter().filter(|role| role.count > 0 && !role.is_started) {
            let note = "are not started: they have their nodes, and addresses for the others";
            self.notes.push(format!("the servers {} {note}", role.profile.name));
        }
        for role in sized.iter().filter(|role| role.runs()) {
            let planned = self.role(role, &sized);
            roles.insert(role.profile.name.clone(), planned);
        }
        let client_node = match &asks {
            Some((role, _)) => roles.get(*role).filter(|role| role.purpose != Purpose::Server),
            None => None,
        };
        let client_node =
            client_node.and_then(|role| role.places.first()).map_or(frontend, |run| run.first_node);
        self.clients(&mut roles, &sized, asks, client_node);
        self.extra_steps(&mut roles, &sized, asks, client_node, total_nodes);
        roles.sort_by(|_, one, _, other| one.purpose.cmp(&other.purpose));
        let gpus_per_node = self.gpus_per_node.max(1);
        let mut numbers = IndexMap::new();
        for role in
            sized.iter().filter(|role| role.count > 0 && role.profile.purpose == Purpose::Server)
        {
            numbers.insert(format!("{}_servers", role.key), role.count);
            numbers.insert(format!("gpus_per_{}_server", role.key), role.gpus);
            numbers.insert(format!("nodes_per_{}_server", role.key), role.step.nodes);
        }
        let total_gpus = total_nodes.saturating_mul(gpus_per_node);
        let layout = Layout { gpus_per_node, total_nodes, total_gpus, numbers };
        let gpus = recipe.gpus_per_node.as_ref().map(|gpus| gpus.origin.clone());
        let gpus = gpus.unwrap_or_default();
        let wanted = recipe.segment.as_ref().filter(|wanted| wanted.value);
        let knows_segment = request.job.segment.as_ref().is_none_or(|known| known.value);
        let mut job = job::job(&request.job, &layout, &gpus, &request.workspace, &recipe.file.name);
        if request.placement.value == Placement::Compact {
            let rule = "total nodes: ⌈GPUs of all servers / GPUs per node⌉";
            job.nodes.origin = Origin::rule(rule);
        }
        job.segment = wanted
            .filter(|_| knows_segment)
            .map(|wanted| Traced::new(total_nodes, wanted.origin.by_rule("one segment")));
        if self.gpus_per_node == 0 {
            job.gpu_request =
                Traced::new(super::GpuRequest::None, Origin::rule("no role uses GPUs"));
        }
        let model = &recipe.model;
        let is_path = model.value.starts_with('/');
        let mounts = [Some(&request.workspace), Some(model).filter(|_| is_path)];
        let mounts: Vec<_> =
            mounts.into_iter().flatten().map(|path| (path, path.value.as_str())).collect();
        let container = container::container(
            request.container.as_ref(),
            &request.workspace,
            &mounts,
            &[&request.install_script, &recipe.setup],
            &mut self.errors,
        );
        if let Some(interface) = &request.interface {
            self.notes.push(format!(
                "each node is reached at its address on {}, which `launch` asks it for",
                interface.value
            ));
        }
        let secrets = secret_names(&request.secrets, roles.values().map(|role| &role.env));
        let url = asks.map_or(Template::default(), |(role, port)| url(role, port));
        Some(Plan {
            schema: SCHEMA,
            config: recipe.file.clone(),
            suite: None,
            max_failed: request.max_failed.clone(),
            engine: Some(Engine {
                name: self.profile.engine.clone(),
                model: model.value.clone(),
                served_name: self.served_name(),
                url,
                serve_only: !roles.values().any(|role| role.purpose == Purpose::Client),
                ready_limit: recipe.ready_limit.clone(),
                interface: request.interface.clone(),
            }),
            placement: request.placement.value,
            frontend_node: request
                .frontend_node
                .as_ref()
                .map(|node| node.value)
                .unwrap_or_default(),
            roles,
            job_env: Env::default(),
            container_env: Vec::new(),
            job,
            layout,
            container,
            workspace: request.workspace.value.clone(),
            changed_config: recipe.changed.clone(),
            run_script: None,
            install_script: request.install_script.as_ref().map(|script| script.value.clone()),
            secrets,
            notes: std::mem::take(&mut self.notes),
        })
    }

    fn served_name(&self) -> String {
        let of_path = || self.recipe.model.value.trim_end_matches('/').rsplit('/').next();
        match &self.recipe.served_name {
            Some(name) => name.value.clone(),
            None => of_path().unwrap_or_default().to_owned(),
        }
    }

    /// The role that clients ask, by the name of its steps, and its port.
    fn asks(&mut self, sized: &[Sized<'r>]) -> Option<(&'r str, &'r str)> {
        let profile = self.profile;
        let running = |key: &str| sized.iter().find(|role| role.key == key && role.runs());
        let asked = profile.clients_ask.iter().find_map(|(key, port)| Some((running(key)?, port)));
        let Some((role, port)) = asked else {
            let names: Vec<_> = profile.clients_ask.iter().map(|(role, _)| role.as_str()).collect();
            let message =
                format!("clients have nothing to ask: there is no {}", names.join(" and no "));
            let without =
                profile.clients_ask.iter().find_map(|(key, _)| self.recipe.roles.get(key));
            self.error(message, without.and_then(|role| role.key.origin.location.clone()));
            return None;
        };
        let is_alone = profile.modes.values().flatten().any(|key| key == role.key);
        if is_alone && role.count > 1 && self.recipe.benchmark.is_some() {
            let message =
                format!("clients would ask only the first of {} {} servers", role.count, role.key);
            let place = role.recipe.and_then(|role| role.key.origin.location.clone());
            let help = format!(
                "set roles.{}.servers to 1: this engine has nothing that shares requests out among them",
                role.key
            );
            self.errors.push(Diagnostic::error(message).at(place).help(help));
        }
        if role.count > 1
            && role.profile.purpose == Purpose::Router
            && self.recipe.benchmark.is_some()
        {
            let (name, count) = (&role.profile.name, role.count);
            self.notes.push(format!("clients ask only {name}_0, the first of {count}"));
        }
        Some((role.profile.name.as_str(), port))
    }

    fn role(&mut self, role: &Sized<'r>, all: &[Sized<'r>]) -> Role {
        let profile = role.profile;
        let args = self.args(role);
        let rule = format!("profile {}, {}", self.profile.engine, role.key).into();
        let scope =
            Scope { all, role: Some(role), of: Some(role), args: &args, run: None, rule: &rule };
        let mut env = Env::default();
        for (name, item) in &profile.env {
            if let Some((value, origin)) = self.values(item, scope) {
                self.set(&mut env, name, &value, origin);
            }
        }
        let own = role.recipe.iter().flat_map(|role| &role.env);
        for (name, value) in self.recipe.env.iter().chain(own) {
            self.set(&mut env, name, &value.value, value.origin.clone());
        }
        env.order_for_shell();
        let mut argv = self.setup();
        for word in role.recipe.iter().flat_map(|role| &role.before) {
            self.emit(&Item::Word(word.clone()), scope, None, &mut argv);
        }
        self.nsys(scope, &mut argv);
        self.emit(&profile.command, scope, None, &mut argv);
        let mut files = IndexMap::new();
        if let Some(file) = config_file(role)
            && let Some(config) = self.config(role, scope)
        {
            files.insert(file, config);
        }
        let numbered = profile.purpose == Purpose::Server || role.count > 1;
        let unset = role.recipe.iter().flat_map(|role| &role.unset);
        Role {
            unset: profile.unset.iter().chain(unset).cloned().collect(),
            env,
            argv,
            ports: role.ports.clone(),
            files,
            gpus: role.gpus_on_a_node(),
            places: role.places.clone(),
            own: Own {
                env: Env::default(),
                args: Default::default(),
                gpus: role.gpus < role.step.nodes.saturating_mul(self.gpus_per_node)
                    && role.gpus > 0
                    || role.step.deal == Deal::ByGpu,
                log: log(&profile.name, numbered),
                junit: None,
                test_log: None,
                done: None,
            },
            after: {
                let runs = |key: &&String| all.iter().find(|role| role.key == **key && role.runs());
                let after = profile.after.iter().filter_map(|key| runs(&key));
                after.map(|role| role.profile.name.clone()).collect()
            },
            ready: self.ready(role, all),
            alive: profile.alive,
            fatal: profile.fatal.clone(),
            srun_args: role.recipe.map(|role| role.srun_args.clone()).unwrap_or_default(),
            ..self.bare(profile.purpose, role.count, numbered, role.step.clone())
        }
    }

    /// A role without what it runs.
    fn bare(&self, purpose: Purpose, count: u32, numbered: bool, step: Step) -> Role {
        Role {
            purpose,
            count,
            numbered,
            gpus: 0,
            places: Vec::new(),
            unset: Vec::new(),
            cleared: None,
            export: Env::default(),
            env: Env::default(),
            argv: Vec::new(),
            ports: IndexMap::new(),
            files: IndexMap::new(),
            cwd: self.request.workspace.value.clone(),
            step,
            own: Own {
                env: Env::default(),
                args: Default::default(),
                gpus: false,
                log: Template::default(),
                junit: None,
                test_log: None,
                done: None,
            },
            after: Vec::new(),
            srun_args: Vec::new(),
            warms_up: false,
            ends_after: None,
            ready: None,
            alive: None,
            fatal: Vec::new(),
        }
    }

    /// How a step of a role is seen to be ready, in the plan's terms.
    fn ready(&self, role: &Sized<'r>, all: &[Sized<'r>]) -> Option<Ready> {
        let port = |name: &Template| {
            let mut port = Template::default();
            port.push_slot(Slot { port: Some(name.as_str()), ..Slot::own(Fact::Port) });
            port
        };
        Some(match role.profile.ready.clone()? {
            Ready::Http(mut http) => {
                http.port = port(&http.port);
                http.counts.retain_mut(|count| match &mut count.minimum {
                    Minimum::Number(_) => true,
                    Minimum::StepsOf(of) => {
                        let role = all.iter().find(|role| role.key == of && role.runs());
                        if let Some(role) = role {
                            of.clone_from(&role.profile.name);
                        }
                        role.is_some()
                    }
                });
                Ready::Http(http)
            }
            Ready::Tcp { port: of } => Ready::Tcp { port: port(&of) },
            Ready::Log(texts) => Ready::Log(texts),
        })
    }

    /// What is in the configuration file of a role: the profile's keys, and the recipe's over them.
    fn config(&mut self, role: &Sized<'r>, scope: Scope<'_, 'r>) -> Option<Content> {
        let mut config = IndexMap::new();
        for (key, item) in &role.profile.config {
            if let Some(value) = self.config_item(item, scope) {
                config.insert(key.clone(), value);
            }
        }
        for (key, value) in role.recipe.iter().flat_map(|role| &role.config) {
            if role.profile.config.get(key).is_some_and(|item| is_decided(item, &value.value)) {
                let message = format!("{}: the profile sets it itself", value.origin.input);
                let error = Diagnostic::error(message).at(value.origin.location.clone());
                let mut help = "remove what names ports or servers".to_owned();
                if value.origin.input.starts_with("roles.") {
                    help += &format!("; roles.{}.ports has the first numbers of ports", role.key);
                }
                self.errors.push(error.help(help));
            }
            put(&mut config, key, &value.value);
        }
        let texts = config.values().flat_map(Content::texts);
        if texts.flat_map(Template::slots).any(|slot| slot.fact.variable().is_some()) {
            let message = "differs between the tasks of a step, which share the file";
            self.error(format!("{}: config {message}", role.profile.name), None);
        }
        (!config.is_empty()).then_some(Content::Map(config))
    }

    fn config_item(&mut self, item: &ConfigItem, scope: Scope<'_, 'r>) -> Option<Content> {
        Some(match item {
            ConfigItem::Plain(content) => content.clone(),
            ConfigItem::Text(pattern) => match self.value(pattern, scope)? {
                Value::Nothing => return None,
                Value::Number(number) => Content::Int(number),
                Value::List(items) => Content::List(items.into_iter().map(Content::Text).collect()),
                value => Content::Text(self.text(&value, pattern, scope)?),
            },
            ConfigItem::List(items) => Content::List(
                items.iter().filter_map(|item| self.config_item(item, scope)).collect(),
            ),
            ConfigItem::Map(entries) => {
                let entry = |(key, item): (&String, &ConfigItem)| {
                    Some((key.clone(), self.config_item(item, scope)?))
                };
                Content::Map(entries.iter().filter_map(entry).collect())
            }
        })
    }

    fn set(&mut self, env: &mut Env, name: &str, value: &Template, origin: Origin) {
        let at = origin.location.clone();
        if let Err(error @ TooLong { .. }) = env.set(name, value, origin) {
            self.error(error.to_string(), at);
        }
    }

    fn frontend(&self, all: &[Sized<'r>], of_profile: Option<&str>, total_nodes: u32) -> u32 {
        let first_of = |key: &str| {
            let role = all.iter().find(|role| role.key == key)?;
            role.places.first().map(|run| run.first_node)
        };
        match self.request.frontend_node.as_ref().map(|node| node.value) {
            None => of_profile.and_then(first_of).unwrap_or(0),
            Some(FrontendNode::First) => 0,
            // The servers that fill the caches come first.
            Some(FrontendNode::Ctx) => all
                .iter()
                .find(|role| role.profile.purpose == Purpose::Server && role.count > 0)
                .and_then(|role| first_of(role.key))
                .unwrap_or(0),
            Some(FrontendNode::Last | FrontendNode::Own) => total_nodes.saturating_sub(1),
        }
    }
}

/// The name of a role's configuration file, with the instance's index where instances may have
/// different ones: `ctx_config.yaml`, `ctx_config_${.index}.yaml`.
fn config_file(role: &Sized<'_>) -> Option<Template> {
    let file = role.profile.config_file.as_deref()?;
    let mut patterns = role.profile.config.values().flat_map(ConfigItem::patterns);
    let is_own = |name: &str, of: Option<&str>| match name {
        "name" | "index" | "node_addr" => true,
        "leader_addr" => of.is_none(),
        "port" => of.is_some_and(|of| !of.contains('.')),
        _ => false,
    };
    if role.count < 2 || !patterns.any(|pattern| pattern.value.has_name(is_own)) {
        return Some(Template::literal(file));
    }
    let (stem, ending) = file.split_at(file.rfind('.').unwrap_or(file.len()));
    let mut path = Template::literal(stem);
    path.push_text("_");
    path.push_slot(Slot::own(Fact::Index));
    path.push_text(ending);
    Some(path)
}

/// Whether a value replaces one of the profile's that is the plan's to decide on: a port, or where and
/// how many the servers are.
fn is_decided(item: &ConfigItem, by: &Content) -> bool {
    let of_plan =
        |name: &str, _: Option<&str>| matches!(name, "port" | "addrs" | "urls" | "url" | "count");
    match (item, by) {
        (ConfigItem::Map(entries), Content::Map(given)) => entries
            .iter()
            .any(|(key, item)| given.get(key).is_some_and(|value| is_decided(item, value))),
        _ => item.patterns().iter().any(|pattern| pattern.value.has_name(of_plan)),
    }
}

/// Puts a value into a configuration; what it does not have of a mapping there stays.
fn put(config: &mut IndexMap<String, Content>, key: &str, value: &Content) {
    match (config.get_mut(key), value) {
        (Some(Content::Map(own)), Content::Map(given)) => {
            given.iter().for_each(|(key, value)| put(own, key, value));
        }
        _ => {
            config.insert(key.to_owned(), value.clone());
        }
    }
}

/// A step with a task on each of its nodes.
fn step_on(nodes: u32) -> Step {
    Step {
        nodes,
        tasks: nodes,
        tasks_per_node: 1,
        deal: Deal::Filled,
        mpi: None,
        overlap: true,
        kill_on_bad_exit: true,
    }
}

/// `router.log`, `prefill_${.index}.log`.
fn log(name: &str, numbered: bool) -> Template {
    let mut log = Template::literal(&name.to_lowercase());
    if numbered {
        log.push_text("_");
        log.push_slot(Slot::own(Fact::Index));
    }
    log.push_text(".log");
    log
}

/// The address of a role's first instance, for HTTP.
fn url(role: &str, port: &str) -> Template {
    let mut url = Template::literal("http://");
    url.push_slot(Slot { role: Some(role), ..Slot::own(Fact::LeaderAddr) });
    url.push_text(":");
    url.push_slot(Slot { role: Some(role), port: Some(port), ..Slot::own(Fact::Port) });
    url
}
