// SPDX-License-Identifier: Apache-2.0
//! From a request to a plan: the rules that all rule sets share, each in one function.

pub(super) mod container;
pub(super) mod job;
mod precheck;
pub mod sizes;
mod ucx;

use std::collections::BTreeMap;

use indexmap::IndexMap;

use self::sizes::{Places, Sizes};
use super::argument::Argument;
use super::assignments::Assignment;
use super::command::{BaseCommand, MODELS_ROOT, PYTEST, TEST_ROOT, file_name, uses_launcher};
use super::config::{Config, Field, ServerEntry};
use super::env::{Env, TooLong, secret_names};
use super::layout::Layout;
use super::origin::{Origin, Traced};
use super::pytest;
use super::request::Request;
use super::role::{Cleared, Own, Purpose, Role, Roles};
use super::rules::{
    CONFIG_FOLDERS, Command, EnvKey, EnvSource, Export, MODE_IN_ID, QUEUE_SIZE, RANK_VARIABLES,
    RUN_TOKEN, RoleRule, Run, TEST_DIRS, is_gen_only,
};
use super::step::SERVING_TYPE;
use super::suite::{Precheck, Suite};
use super::template::{Fact, Slot, Template};
use super::test_id::{Generation, Mode, Test, TestId, TestKind, node_id};
use super::ucx::Row;
use super::{ConfigFile, Plan, SCHEMA};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};

/// Computes a plan.
///
/// # Errors
/// All that the configuration lacks or gets wrong, with positions; no plan exists then. A field
/// that this plan does not use may be wrong.
pub fn plan(request: &Request) -> Result<Plan, Diagnostics> {
    let by_id = request.test_id.as_ref().map(|id| id.value.generation);
    let asked_for = request.rules.as_ref().map(|rules| rules.value);
    let config = &request.config;
    let mut planner = Planner {
        request,
        config,
        // The classic rules have no aggregated tests.
        rules: by_id.or(asked_for).unwrap_or(match config.is_aggregated() {
            true => Generation::Unified,
            false => Generation::Classic,
        }),
        errors: Diagnostics(config.mistyped.iter().map(|(_, error)| error.clone()).collect()),
        notes: Vec::new(),
    };
    match planner.plan() {
        Some(plan) if !planner.errors.has_errors() => Ok(plan),
        _ => Err(planner.errors),
    }
}

struct Planner<'r> {
    request: &'r Request,
    config: &'r Config,
    rules: Generation,
    errors: Diagnostics,
    notes: Vec<String>,
}

/// What a test is, once its id and its configuration are known.
struct Subject<'r> {
    id: TestId,
    run: Run,
    /// The mode, for people and for the precheck.
    mode: String,
    /// How many requests are queued before any is served, where the run has such a queue.
    queue: Option<Traced<u64>>,
    /// The entry of `server_configs` of an aggregated test.
    entry: Option<&'r ServerEntry>,
    /// What UCX needs.
    ucx: (Row, Origin),
    base: BaseCommand,
    /// The directory that the test writes into.
    output_dir: String,
    /// Whether the test's precheck is on; it may be skipped all the same.
    precheck_is_on: bool,
}

impl<'r> Planner<'r> {
    /// `None` when there is no layout to go on with; errors are collected as far as possible.
    fn plan(&mut self) -> Option<Plan> {
        let request = self.request;
        let subject = self.subject()?;
        if self.config.changed.is_some() && !self.rules.is_in(CONFIG_FOLDERS) {
            self.notes.push(format!(
                "by the {} rules the test reads its configuration from the source tree: --set \
                 changes the plan and not the test",
                self.rules
            ));
        }
        let job_env = self.env(None, &subject);
        let found = self.sizes(&subject);
        let has_precheck = self.has_precheck(subject.id.kind);
        let sizes = found.as_ref().map(|(sizes, _)| sizes);
        let precheck = has_precheck.then(|| self.precheck(sizes, subject.precheck_is_on));
        let (sizes, places) = found?;
        let layout = sizes.layout();
        let launcher = self.uses_launcher(&layout);
        let (mut roles, mut unused_roles) = (Roles::new(), Roles::new());
        let roles_of_rules = self.rules.roles(subject.id.kind);
        for rule in roles_of_rules.filter(|rule| has_precheck || rule.purpose != Purpose::Check) {
            let role = self.role(rule, (&sizes, &places), launcher, precheck, &subject);
            match role.count > 0 || role.purpose == Purpose::Check {
                true => roles.insert(rule.name.to_owned(), role),
                false => unused_roles.insert(rule.name.to_owned(), role),
            };
        }
        let variables = self.variables(&subject, &sizes, precheck);
        let secrets = secret_names(
            &request.secrets,
            roles
                .values()
                .chain(unused_roles.values())
                .flat_map(|role| [&role.export, &role.env])
                .chain([&job_env, &subject.base.env]),
        );
        let serving_type =
            (subject.id.kind == TestKind::Disaggregated).then(|| SERVING_TYPE.to_owned());
        let container_env = job_env
            .iter()
            .map(|(name, _)| name.to_owned())
            .chain(serving_type)
            .chain(["pytestCommand".to_owned()])
            .chain(self.models_of_precheck(&subject).map(|_| MODELS_ROOT.to_owned()))
            .collect();
        let suite = Suite {
            rules: self.rules,
            rules_reason: self.rules_reason(),
            test: Test {
                module: request.test.module.value.clone(),
                function: request.test.function.value.clone(),
                id: subject.id.text,
                kind: subject.id.kind,
                mode: subject.mode,
                server: subject.id.server,
            },
            llmapi_launch: launcher,
            base_command: subject.base,
            unused_roles,
            precheck,
            stage: request.stage.as_ref().map(|stage| stage.value.clone()),
            variables,
            run_token: self.rules.is_in(RUN_TOKEN.0).then(|| RUN_TOKEN.1.to_owned()),
            output_dir: subject.output_dir,
            source_dir: request.directories.source.value.clone(),
            models_dir: request.directories.models.value.clone(),
        };
        Some(Plan {
            schema: SCHEMA,
            config: ConfigFile {
                name: self.config.name.clone(),
                path: self.config.path.clone(),
                sha256: self.config.sha256.clone(),
            },
            suite: Some(suite),
            engine: None,
            max_failed: request.max_failed.clone(),
            placement: request.placement.value,
            frontend_node: request.frontend_node.value,
            roles,
            job_env,
            container_env,
            job: self.job(&layout),
            layout,
            container: self.container(),
            workspace: request.directories.workspace.value.clone(),
            changed_config: self.config.changed.clone(),
            run_script: request.run_script.as_ref().map(|script| script.value.clone()),
            install_script: request.install_script.as_ref().map(|script| script.value.clone()),
            secrets,
            notes: std::mem::take(&mut self.notes),
        })
    }

    fn rules_reason(&self) -> String {
        match (&self.request.rules, &self.request.test_id) {
            (Some(rules), _) => rules.origin.to_string(),
            (None, Some(id)) => format!("the form of the test id {}", id.value.text),
            (None, None) if self.config.is_aggregated() => {
                "an aggregated configuration without a test id".to_owned()
            }
            (None, None) => "a configuration without a test id".to_owned(),
        }
    }

    /// The id of a test that is given by its configuration alone.
    fn id_of_config(&mut self, configured_mode: &str) -> Option<TestId> {
        let (rules, prefix) = (self.rules, &self.request.test.prefix.value);
        let config = self.config;
        if !self.rules.is_in(MODE_IN_ID) || !config.is_aggregated() {
            let gen_only = is_gen_only(configured_mode);
            return Some(TestId::of_config(rules, prefix, gen_only, &config.name));
        }
        let names = config.server_names(&mut self.errors);
        let mut ids = names.iter().map(|name| TestId::of_server(rules, prefix, &config.name, name));
        if let ([_], Some(only)) = (&names[..], ids.next()) {
            return Some(only);
        }
        let location = config.location("server_configs");
        let message = format!("server_configs has {} entries: which one is not known", names.len());
        let ids =
            names.iter().map(|name| TestId::of_server(rules, prefix, &config.name, name).text);
        let help = format!("give --test-id, one of: {}", ids.collect::<Vec<_>>().join(", "));
        self.errors.push(Diagnostic::error(message).at(location).help(help));
        None
    }

    fn subject(&mut self) -> Option<Subject<'r>> {
        let mode = self.config.benchmark.mode.get(&mut self.errors);
        let configured = mode.map_or("", |mode| mode.value.as_str());
        let id = match &self.request.test_id {
            Some(id) => id.value.clone(),
            None => self.id_of_config(configured)?,
        };
        if self.rules.roles(id.kind).next().is_none() {
            let message = format!("the {} rules have no tests like {}", self.rules, id.text);
            self.errors.push(Diagnostic::error(message).help("leave --rules out"));
            return None;
        }
        let run = self.run(&id, configured);
        let mode = match id.mode {
            Some(_) if run == Run::NoContext => Mode::GenOnlyNoContext.name(),
            Some(mode) => mode.name(),
            None if self.rules.is_in(MODE_IN_ID) => "aggregated",
            None if configured.is_empty() => Mode::E2e.name(),
            None => configured,
        };
        let mode = mode.to_owned();
        let entry = id.server.as_deref().map(|name| self.entry(name));
        let mut sources =
            self.rules.roles(id.kind).flat_map(|role| self.rules.env(Some(role), run));
        let needs_queue = sources.any(|source| source == EnvSource::Queue);
        let queue = needs_queue.then(|| self.queue_size(&mode));
        let base = self.base(&id)?;
        let options = base.options();
        let directory = pytest::value_of(&options, &["--output-dir"])
            .unwrap_or(&self.request.directories.workspace.value);
        let mut output_dir = directory.trim_end_matches('/').to_owned();
        if self.rules.is_in(TEST_DIRS) {
            output_dir = format!("{output_dir}/{}", id.text);
        }
        let ucx = self.ucx();
        let precheck_is_on = self.has_precheck(id.kind) && self.precheck_is_on();
        let entry = entry.flatten();
        Some(Subject { run, mode, queue, entry, ucx, output_dir, base, precheck_is_on, id })
    }

    /// What the test measures.
    fn run(&self, id: &TestId, configured_mode: &str) -> Run {
        let no_context = configured_mode.contains(self.rules.no_context_mark());
        match id.mode {
            None if no_context && !self.rules.is_in(MODE_IN_ID) => Run::NoContext,
            Some(Mode::GenOnlyNoContext) => Run::NoContext,
            Some(Mode::GenOnly) if no_context => Run::NoContext,
            Some(Mode::GenOnly) => Run::GenOnly,
            _ => Run::Whole,
        }
    }

    /// The command that roles start from: the given one, else the suite's own.
    fn base(&mut self, id: &TestId) -> Option<BaseCommand> {
        let mut base = match &self.request.base {
            Some(base) => base.clone(),
            None => self.own_base(id)?,
        };
        let folder = self.request.config_folder.as_ref();
        if let Some(folder) = folder.filter(|_| self.rules.is_in(CONFIG_FOLDERS)) {
            let value = Template::literal(&folder.value);
            self.set(&mut base.env, id.kind.config_variable(), &value, folder.origin.clone());
        }
        Some(base)
    }

    fn own_base(&mut self, id: &TestId) -> Option<BaseCommand> {
        let names = &self.request.test;
        // Of an aggregated test that its configuration names, the prefix is not the setting's.
        let given = self.request.test_id.as_ref().map(|given| &given.origin);
        let prefix = Traced::new(id.prefix.clone(), given.unwrap_or(&names.prefix.origin).clone());
        let node_id = Traced::new(
            node_id(&names.module.value, &names.function.value, &id.text),
            Origin::input(self.config.path.clone()).by_rule("the test: MODULE::FUNCTION[ID]"),
        );
        let base = BaseCommand::new(&self.request.directories, &prefix, node_id);
        base.map_err(|error| self.too_long(&error, None)).ok()
    }

    /// Whether workers run under the launcher: a given command has it or not; else the size
    /// decides.
    fn uses_launcher(&mut self, layout: &Layout) -> bool {
        let wanted = uses_launcher(layout.total_nodes, layout.gpus_per_node);
        let Some(base) = &self.request.base else { return wanted };
        if base.has_launcher() != wanted {
            self.notes.push(format!(
                "the given command {} trtllm-llmapi-launch, although the test has {} × {} GPUs (nodes × GPUs \
                 of each): the command counts",
                if wanted { "lacks" } else { "has" },
                layout.total_nodes,
                layout.gpus_per_node
            ));
        }
        base.has_launcher()
    }

    /// The entry of `server_configs` of a name.
    fn entry(&mut self, name: &str) -> Option<&'r ServerEntry> {
        let entries = match self.config.servers.get(&mut self.errors) {
            Some(entries) => &entries.value[..],
            None => &[],
        };
        let named = |entry: &&ServerEntry| matches!(&entry.name, Field::Good(n) if n.value == name);
        let mut found = entries.iter().filter(named);
        let first = found.next();
        if first.is_none() {
            let names = self.config.server_names(&mut self.errors);
            let near = nearest(name, names.iter().copied(), 3);
            let help = match (near.is_empty(), names.is_empty()) {
                (false, _) => format!("nearest names: {}", near.join(", ")),
                (true, false) => format!("names that are there: {}", names.join(", ")),
                (true, true) => "an aggregated test needs `server_configs:` with a `name:`".into(),
            };
            let message = format!("server_configs has no entry {name}");
            let location = self.config.location("server_configs");
            self.errors.push(Diagnostic::error(message).at(location).help(help));
        }
        if found.next().is_some() {
            self.notes.push(format!("server_configs has several entries {name}: the first counts"));
        }
        first
    }

    fn role(
        &mut self,
        rule: &'static RoleRule,
        (sizes, places): (&Sizes, &Places),
        launcher: bool,
        precheck: Option<Precheck>,
        subject: &Subject<'_>,
    ) -> Role {
        let request = self.request;
        let placement = request.placement.value;
        let step = sizes.step(rule.size, placement, &request.mpi.value);
        let shares_nodes = sizes.shares_nodes(rule.size, placement);
        let (row, origin) = &subject.ucx;
        let mut export = Env::default();
        let mut unset = Vec::new();
        if self.rules.is_in(rule.ucx) {
            let origin = origin.by_rule(format!("{}: {}", self.rule_name(rule.name), origin.rule));
            unset.extend(row.unset.iter().map(|name| Traced::new(name.clone(), origin.clone())));
            for Assignment { name, value } in &row.export {
                self.set(&mut export, name, value, origin.clone());
            }
        }
        let mut env = self.env(Some(rule), subject);
        let argv = match rule.command {
            Command::Precheck(servers) => self.precheck_argv(rule.name, servers, subject),
            command => {
                env = self.within_limits(env.and_then(&subject.base.env));
                let launcher = launcher && command == Command::Launched;
                let output_options = self.rules.is_in(rule.output);
                self.base_argv(&subject.base, launcher, output_options)
            }
        };
        env = self.within_limits(env.after(&export));
        env.order_for_shell();
        // Caches have no way to travel where there is only one kind of servers.
        let runs_checks = precheck.is_some_and(|check| check.enabled) && sizes.context.count > 0;
        let count = match rule.purpose {
            Purpose::Check if !runs_checks => 0,
            _ => sizes.servers(rule.size).count,
        };
        let argument = |Traced { value, origin }: Traced<String>| {
            Traced::new(Argument::literal(&value), origin)
        };
        Role {
            purpose: rule.purpose,
            count,
            numbered: rule.size.is_numbered(),
            gpus: if step.mpi.is_some() { step.tasks_per_node } else { 0 },
            places: if count > 0 { places.of(rule.size).to_vec() } else { Vec::new() },
            unset,
            cleared: self.cleared(rule),
            export,
            env,
            ends_after: rule.ends_after.map(str::to_owned),
            own: self.own(rule, &argv, shares_nodes),
            argv: argv.into_iter().map(argument).collect(),
            ports: IndexMap::new(),
            files: IndexMap::new(),
            cwd: format!("{}/{TEST_ROOT}", request.directories.source.value),
            step,
            // The test decides on ports itself and says in no log of ours when it serves.
            after: Vec::new(),
            srun_args: Vec::new(),
            warms_up: false,
            ready: None,
            alive: None,
            fatal: Vec::new(),
        }
    }

    /// What a role that is no rank of an MPI program runs without.
    fn cleared(&self, rule: &RoleRule) -> Option<Cleared> {
        let (sets, prefixes, except) = RANK_VARIABLES;
        let is_rank = rule.command != Command::Plain;
        (self.rules.is_in(sets) && !is_rank).then(|| Cleared {
            prefixes: prefixes.map(str::to_owned).into(),
            except: except.map(str::to_owned).into(),
        })
    }

    /// What each instance of a role has of its own: its name, and a JUnit file, so that none
    /// overwrites another's results.
    fn own(&mut self, rule: &RoleRule, argv: &[Traced<String>], shares_nodes: bool) -> Own {
        let mut env = Env::default();
        if rule.has_serving_type() {
            let mut name = Template::default();
            name.push_slot(Slot::own(Fact::Name));
            let origin = Origin::rule("the name of the step's role");
            self.set(&mut env, SERVING_TYPE, &name, origin);
        }
        let words: Vec<_> = argv.iter().map(|word| word.value.as_str()).collect();
        let options = words
            .iter()
            .position(|word| file_name(word) == PYTEST)
            .map_or(words.len(), |at| at + 1);
        let mut args = BTreeMap::new();
        let mut junit = None;
        for (at, start) in pytest::values_at(&words[options..], pytest::JUNIT_OPTIONS) {
            let at = options + at;
            let (option, path) = words[at].split_at(start);
            let (stem, end) = path.strip_suffix(".xml").map_or((path, ""), |stem| (stem, ".xml"));
            let mut own = Template::literal(&format!("{stem}-"));
            own.push_slot(Slot::own(Fact::Name));
            own.push_text(end);
            let mut argument = Template::literal(option);
            argument.push(&own);
            args.insert(at, argument);
            junit = Some(own);
        }
        if let Command::Precheck(_) = rule.command {
            let mut index = Template::default();
            index.push_slot(Slot::own(Fact::Index));
            args.insert(argv.len(), Template::literal("--server-idx"));
            args.insert(argv.len() + 1, index);
        }
        let below = |file: Option<&str>| {
            file.filter(|_| self.rules.is_in(TEST_DIRS)).map(Template::from_written)
        };
        Own {
            env,
            args,
            gpus: shares_nodes,
            log: Template::from_written(rule.log),
            junit,
            test_log: below(rule.test_log),
            done: below(rule.done),
        }
    }

    /// Assigns a variable; values that grow beyond what an environment can hold are an error.
    fn set(&mut self, env: &mut Env, name: &str, value: &Template, origin: Origin) {
        let location = origin.location.clone();
        if let Err(error) = env.set(name, value, origin) {
            self.too_long(&error, location);
        }
    }

    fn within_limits(&mut self, env: Result<Env, TooLong>) -> Env {
        env.unwrap_or_else(|error| {
            self.too_long(&error, None);
            Env::default()
        })
    }

    fn too_long(&mut self, error: &TooLong, location: Option<crate::diagnostic::Location>) {
        let help = "shorten the values, or the references in them";
        self.errors.push_once(Diagnostic::error(error.to_string()).at(location).help(help));
    }

    /// The base command with or without the launcher and the output options.
    fn base_argv(
        &mut self,
        base: &BaseCommand,
        launcher: bool,
        output_options: bool,
    ) -> Vec<Traced<String>> {
        let options_at = base.pytest_at() + 1;
        let mut argv = base.argv[..options_at].to_vec();
        if launcher {
            argv.insert(base.launcher_at, base.launcher.clone());
        }
        let options = &base.argv[options_at..];
        let words: Vec<_> = options.iter().map(|word| word.value.as_str()).collect();
        let groups = pytest::groups(&words).unwrap_or_else(|error| {
            self.errors.push_once(
                Diagnostic::error(error.to_string())
                    .help(format!("write {}={}", error.option, error.next)),
            );
            Vec::new()
        });
        let kept = groups
            .into_iter()
            .filter(|group| output_options || !pytest::is_output(words[group.start]));
        argv.extend(kept.flatten().map(|at| options[at].clone()));
        argv
    }

    /// The launch script's variables for sizes and paths.
    fn variables(
        &self,
        subject: &Subject<'_>,
        sizes: &Sizes,
        precheck: Option<Precheck>,
    ) -> IndexMap<String, String> {
        let models = self.models_of_precheck(subject);
        let value = |export| match export {
            Export::Size(size) => Some(size(sizes).to_string()),
            Export::ConfigPath => Some(self.config.path.clone()),
            Export::OutputDir => Some(subject.output_dir.clone()),
            Export::PrecheckEnabled => Some(u8::from(precheck?.enabled).to_string()),
            Export::PrecheckTimeout => Some(precheck?.timeout_s.to_string()),
            // The draft evaluates it.
            Export::PrecheckModels if precheck.is_some() => {
                Some(models.map_or(String::new(), |models| {
                    format!("{MODELS_ROOT}={}", crate::output::quote::word(&models.value))
                }))
            }
            Export::ModelsRoot if precheck?.enabled => Some(models?.value.clone()),
            _ => None,
        };
        let exports = self.rules.exports(subject.id.kind);
        exports.filter_map(|(name, export)| Some((name.to_owned(), value(export)?))).collect()
    }

    fn rule_name(&self, whose: &str) -> String {
        format!("{} rules: {whose}", self.rules)
    }

    /// The variables of a role, without those of the base command; without a role, of the job.
    fn env(&mut self, role: Option<&'static RoleRule>, subject: &Subject<'_>) -> Env {
        let config = &self.config.environment;
        let rule = self.rule_name(role.map_or("the job", |role| role.name));
        let mut env = Env::default();
        if let Some(role) = role
            && role.purpose == Purpose::Check
            && let Some(models) = self.models_of_precheck(subject)
        {
            let origin = models.origin.by_rule(rule.clone());
            self.set(&mut env, MODELS_ROOT, &Template::literal(&models.value), origin);
        }
        for source in self.rules.env(role, subject.run) {
            let field = match source {
                EnvSource::Config(EnvKey::Worker) => &config.worker,
                EnvSource::Config(EnvKey::GenWorker) => &config.gen_worker,
                EnvSource::Config(EnvKey::CtxWorker) => &config.ctx_worker,
                EnvSource::Config(EnvKey::Server) => &config.server,
                EnvSource::Config(EnvKey::Benchmark) => &config.benchmark,
                EnvSource::Config(EnvKey::ServerEntry) => match subject.entry {
                    Some(entry) => &entry.environment,
                    None => continue,
                },
                EnvSource::Set(name, value) => {
                    let origin = Origin::rule(format!("{rule} of a {} test", subject.mode));
                    self.set(&mut env, name, &Template::from_written(value), origin);
                    continue;
                }
                EnvSource::Queue => {
                    let Some(queue) = &subject.queue else { continue };
                    let value = Template::literal(&queue.value.to_string());
                    let by_rule =
                        format!("{rule} of a {} test: {}", subject.mode, queue.origin.rule);
                    self.set(&mut env, QUEUE_SIZE, &value, queue.origin.by_rule(by_rule));
                    continue;
                }
            };
            if let Some(assignments) = field.get(&mut self.errors) {
                let origin = assignments.origin.by_rule(rule.clone());
                for assignment in &assignments.value {
                    self.set(&mut env, &assignment.name, &assignment.value, origin.clone());
                }
            }
        }
        env
    }
}
