// SPDX-License-Identifier: Apache-2.0
//! From a request to a plan: the rules that both generations share, each in one function.

use std::collections::BTreeMap;

use super::assignments::Assignment;
use super::command::{BaseCommand, TEST_ROOT, uses_launcher};
use super::config::{Config, Field, ServerEntry, Worker};
use super::instance::SERVING_TYPE;
use super::layout::{Form, Layout, MAX_COUNT, Placement, Servers};
use super::origin::{Origin, Traced};
use super::pytest;
use super::request::Request;
use super::role::{Env, Role, RoleKind, Step};
use super::rules::{
    Command, EnvKey, EnvSource, ModeSource, RoleRule, RuleSet, Run, RunValue, TestRule, Ucx,
    Variable, is_gen_only,
};
use super::template::Template;
use super::test_id::{Generation, Mode, Test, TestId, TestKind, node_id};
use super::ucx;
use super::{Container, Job, Plan, Precheck, SCHEMA};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};

/// The time limit of a test that names none.
const DEFAULT_TIME: &str = "04:00:00";
/// The job's name when none is asked for.
const DEFAULT_JOB_NAME: &str = "disagg_perf_test";

/// How long each step of a precheck may take when the configuration does not say, in seconds.
const DEFAULT_PRECHECK_TIME: u32 = 900;
/// The program of the prechecks, below the source tree.
const PRECHECK: &str = "tests/scripts/perf-sanity/cache_transceiver_precheck/run_precheck.py";

/// Computes a plan.
///
/// # Errors
/// All that the configuration lacks or gets wrong, with positions; no plan exists then. A field
/// that this plan does not use may be wrong.
pub fn plan(request: &Request) -> Result<Plan, Diagnostics> {
    let by_id = request.test_id.as_ref().map(|id| id.value.generation);
    let asked_for = request.rules.as_ref().map(|rules| rules.value);
    let generation = by_id.or(asked_for).unwrap_or(Generation::Classic);
    let mut planner = Planner {
        request,
        config: &request.config,
        rules: generation.rules(),
        errors: Diagnostics::default(),
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
    rules: &'static RuleSet,
    errors: Diagnostics,
    notes: Vec<String>,
}

/// What a test is, once its id and its configuration are known.
struct Subject<'r> {
    id: TestId,
    rule: &'static TestRule,
    run: Run,
    /// The mode, for people and for the precheck.
    mode: String,
    /// How many requests are queued before any is served, where the run has such a queue.
    queue: Option<Traced<u64>>,
    /// The entry of `server_configs` of an aggregated test.
    entry: Option<&'r ServerEntry>,
    /// What UCX needs.
    ucx: (ucx::Row, Origin),
    base: BaseCommand,
    /// The directory that the test writes into.
    output_dir: String,
}

impl<'r> Planner<'r> {
    /// `None` when there is no layout to go on with; errors are collected as far as possible.
    fn plan(&mut self) -> Option<Plan> {
        let request = self.request;
        let subject = self.subject()?;
        let job_env = self.env("the job", subject.rule.job_env, &subject, false);
        let role_env: Vec<Env> = subject
            .rule
            .roles
            .iter()
            .map(|rule| {
                let base = matches!(rule.command, Command::Base { .. });
                self.env(rule.kind.name(), rule.env, &subject, base)
            })
            .collect();
        let precheck = subject.rule.has_precheck().then(|| self.precheck());

        let layout = self.layout(&subject)?;
        let launcher = self.uses_launcher(&layout);
        let mut roles = BTreeMap::new();
        for (rule, env) in subject.rule.roles.iter().zip(role_env) {
            let count = count(&layout, rule.kind);
            if count > 0 || rule.kind.precheck_of().is_some() {
                let role = self.role(rule, env, count, &layout, launcher, &subject);
                roles.insert(rule.kind, role);
            }
        }
        let serving_type =
            (subject.id.kind == TestKind::Disaggregated).then(|| SERVING_TYPE.to_owned());
        let container_env = job_env
            .iter()
            .map(|(name, _)| name.to_owned())
            .chain(serving_type)
            .chain(["pytestCommand".to_owned()])
            .collect();
        Some(Plan {
            schema: SCHEMA,
            rules: self.rules.generation,
            rules_reason: self.rules_reason(),
            variables: self.variables(&subject, &layout, precheck),
            test: Test {
                module: request.test.module.value.clone(),
                function: request.test.function.value.clone(),
                id: subject.id.text,
                kind: subject.id.kind,
                mode: subject.mode,
                config: self.config.name.clone(),
                config_path: self.config.path.clone(),
                config_sha256: self.config.sha256.clone(),
                server: subject.id.server,
            },
            layout,
            placement: request.placement.value,
            frontend_node: request.frontend_node.value,
            llmapi_launch: launcher,
            base_command: subject.base,
            roles,
            precheck,
            stage: request.stage.as_ref().map(|stage| stage.value.clone()),
            job_env,
            container_env,
            job: self.job(&layout),
            container: container(request),
            source_dir: request.directories.source.value.clone(),
            models_dir: request.directories.models.value.clone(),
            workspace: request.directories.workspace.value.clone(),
            run_script: request.run_script.as_ref().map(|script| script.value.clone()),
            install_script: request.install_script.as_ref().map(|script| script.value.clone()),
            secrets: request.secrets.clone(),
            notes: std::mem::take(&mut self.notes),
        })
    }

    fn rules_reason(&self) -> String {
        match (&self.request.rules, &self.request.test_id) {
            (Some(rules), _) => format!("{} says so", rules.origin.input),
            (None, Some(id)) => format!("the form of the test id {}", id.value.text),
            (None, None) => "a configuration without a test id".to_owned(),
        }
    }

    fn subject(&mut self) -> Option<Subject<'r>> {
        let mode = self.config.benchmark.mode.get(&mut self.errors);
        let configured = mode.map_or("", |mode| mode.value.as_str());
        let id = match &self.request.test_id {
            Some(id) => id.value.clone(),
            None => TestId::of_config(
                self.rules.generation,
                &self.request.test.prefix.value,
                is_gen_only(configured),
                &self.config.name,
            ),
        };
        let Some(rule) = self.rules.test(id.kind) else {
            let message =
                format!("the {} rules have no tests like {}", self.rules.generation, id.text);
            self.errors.push(Diagnostic::error(message).help("leave --rules out"));
            return None;
        };
        let run = self.run(&id, configured);
        let mode = match (self.rules.mode_source, id.mode) {
            _ if run == Run::NoContext && id.mode.is_some() => Mode::GenOnlyNoContext.name(),
            (ModeSource::TestId, Some(mode)) => mode.name(),
            (ModeSource::TestId, None) => "aggregated",
            (ModeSource::Configuration, _) if configured.is_empty() => Mode::E2e.name(),
            (ModeSource::Configuration, _) => configured,
        };
        let mode = mode.to_owned();
        let entry = id.server.as_deref().map(|name| self.entry(name));
        let needs_queue = rule.roles.iter().flat_map(|role| role.env).any(|source| {
            matches!(source, EnvSource::When(when, _, RunValue::QueueSize) if *when == run)
        });
        let queue = needs_queue.then(|| self.queue_size(&mode));
        let base = self.base(&id);
        let options: Vec<_> =
            base.argv[base.pytest_at()..].iter().skip(1).map(|word| &*word.value).collect();
        let directory = pytest::value_of(&options, &["--output-dir"])
            .unwrap_or(&self.request.directories.workspace.value);
        let output_dir = format!("{}/{}", directory.trim_end_matches('/'), id.text);
        let ucx = self.ucx();
        Some(Subject { run, mode, queue, entry: entry.flatten(), ucx, output_dir, base, rule, id })
    }

    /// What the test measures.
    fn run(&self, id: &TestId, configured_mode: &str) -> Run {
        let no_context = configured_mode.contains(self.rules.no_context_mark);
        match (self.rules.mode_source, id.mode) {
            (ModeSource::Configuration, _) if no_context => Run::NoContext,
            (ModeSource::TestId, Some(Mode::GenOnlyNoContext)) => Run::NoContext,
            (ModeSource::TestId, Some(Mode::GenOnly)) if no_context => Run::NoContext,
            (ModeSource::TestId, Some(Mode::GenOnly)) => Run::GenOnly,
            _ => Run::Whole,
        }
    }

    /// The command that roles start from: the given one, else the suite's own.
    fn base(&self, id: &TestId) -> BaseCommand {
        if let Some(base) = &self.request.base {
            return base.clone();
        }
        let names = &self.request.test;
        let prefix = match &self.request.test_id {
            Some(given) => Traced::new(id.prefix.clone(), given.origin.clone()),
            None => names.prefix.clone(),
        };
        BaseCommand::new(
            &self.request.directories,
            &prefix,
            Traced::new(
                node_id(&names.module.value, &names.function.value, &id.text),
                Origin::input(self.config.path.clone()).by_rule("the test: MODULE::FUNCTION[ID]"),
            ),
        )
    }

    /// Whether workers run under the launcher: a given command has it or not; else the size
    /// decides.
    fn uses_launcher(&mut self, layout: &Layout) -> bool {
        let wanted = uses_launcher(layout.total_nodes, layout.gpus_per_node);
        let Some(base) = &self.request.base else { return wanted };
        if base.has_launcher() != wanted {
            self.notes.push(format!(
                "the given command {} trtllm-llmapi-launch, although the test has {} nodes with \
                 {} GPUs each: the command counts",
                if wanted { "lacks" } else { "has" },
                layout.total_nodes,
                layout.gpus_per_node
            ));
        }
        base.has_launcher()
    }

    /// The row of the UCX table, by the stage's name; without a script prefix, which comes from a
    /// pipeline that knows its stage, by the GPUs that the configuration is made for.
    fn ucx(&mut self) -> (ucx::Row, Origin) {
        if let Ucx::Unset(names) = self.rules.ucx {
            let unset = names.iter().map(|name| (*name).to_owned()).collect();
            let row = ucx::Row { unset, ..ucx::Row::default() };
            return (row, Origin::rule("UCX chooses by itself"));
        }
        let site = &self.request.ucx;
        let by_gpu = |row: ucx::Row, origin: &Origin| {
            let gpu = if row.gpu.is_empty() { "any other" } else { &row.gpu };
            let origin = origin.by_rule(format!("UCX by generation of GPU: {gpu}"));
            (row, origin)
        };
        if let Some(stage) = self.request.stage.as_ref().filter(|stage| !stage.value.is_empty()) {
            return by_gpu(ucx::row(site, &stage.value), &stage.origin);
        }
        let gpus = match &self.request.base {
            None => self.config.supported_gpus.get(&mut self.errors),
            Some(_) => None,
        };
        if let Some(gpus) = gpus {
            let mut rows = gpus.value.iter().map(|gpu| ucx::row(site, gpu));
            if let Some(row) = rows.next().filter(|first| rows.all(|row| row == *first)) {
                return by_gpu(row, &gpus.origin);
            }
        }
        by_gpu(ucx::row(site, ""), &Origin::default())
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
            let names: Vec<_> = entries
                .iter()
                .filter_map(|entry| match &entry.name {
                    Field::Good(name) => Some(name.value.as_str()),
                    _ => None,
                })
                .collect();
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

    fn precheck(&mut self) -> Precheck {
        let settings = &self.config.precheck;
        let enabled = match &self.request.precheck {
            Some(site) => site.value,
            None => settings.enabled.get(&mut self.errors).is_none_or(|enabled| enabled.value),
        };
        let timeout = settings.timeout_s.get(&mut self.errors);
        Precheck { enabled, timeout_s: timeout.map_or(DEFAULT_PRECHECK_TIME, |time| time.value) }
    }

    fn role(
        &mut self,
        rule: &RoleRule,
        env: Env,
        count: u32,
        layout: &Layout,
        launcher: bool,
        subject: &Subject<'_>,
    ) -> Role {
        let (row, origin) = &subject.ucx;
        let mut export = Env::default();
        let mut unset = Vec::new();
        if rule.ucx {
            let origin =
                origin.by_rule(format!("{}: {}", self.rule_name(rule.kind.name()), origin.rule));
            unset.extend(row.unset.iter().map(|name| Traced::new(name.clone(), origin.clone())));
            for Assignment { name, value } in &row.export {
                export.set(name, value, origin.clone());
            }
        }
        let argv = match rule.command {
            Command::Base { launcher: under, output_options } => {
                self.base_argv(&subject.base, launcher && under, output_options)
            }
            Command::Precheck => self.precheck_argv(rule.kind, subject),
        };
        Role {
            count,
            unset,
            export,
            env,
            argv,
            cwd: format!("{}/{TEST_ROOT}", self.request.directories.source.value),
            step: step(self.request, layout, rule.kind),
        }
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

    fn precheck_argv(&self, kind: RoleKind, subject: &Subject<'_>) -> Vec<Traced<String>> {
        let source = &self.request.directories.source.value;
        let role = kind.precheck_of().unwrap_or(kind).name().to_lowercase();
        let mode = subject.id.mode.map_or("", Mode::name);
        let origin = self.origin(kind.name());
        [
            "python3",
            &format!("{source}/{PRECHECK}"),
            "--config",
            &self.config.path,
            "--work-dir",
            &format!("{}/cache_transceiver_precheck", subject.output_dir),
            "--benchmark-mode",
            mode,
            "--llm-src",
            source,
            "--role",
            &role,
        ]
        .into_iter()
        .map(|word| Traced::new(word.to_owned(), origin.clone()))
        .collect()
    }

    fn variables(
        &self,
        subject: &Subject<'_>,
        layout: &Layout,
        precheck: Option<Precheck>,
    ) -> BTreeMap<String, String> {
        let value = |variable: &Variable| match variable {
            Variable::Size(size) => size(layout).to_string(),
            Variable::ConfigPath => self.config.path.clone(),
            Variable::OutputDir => subject.output_dir.clone(),
            Variable::PrecheckEnabled => {
                u8::from(precheck.is_some_and(|precheck| precheck.enabled)).to_string()
            }
            Variable::PrecheckTimeout => {
                precheck.map_or(0, |precheck| precheck.timeout_s).to_string()
            }
        };
        let variables = subject.rule.variables.iter();
        variables.map(|(name, variable)| ((*name).to_owned(), value(variable))).collect()
    }

    /// A number that the test cannot do without; 0 when it is missing or wrong.
    fn required(&mut self, field: &Field<u32>, key: &str, what: &str) -> Traced<u32> {
        if field.is_missing() {
            self.errors.push(
                Diagnostic::error(format!("hardware.{key} is missing"))
                    .at(self.config.location("hardware"))
                    .help(format!("add `{key}: N` below `hardware:`, the number of {what}")),
            );
        }
        field.get(&mut self.errors).cloned().unwrap_or_default()
    }

    fn layout(&mut self, subject: &Subject<'r>) -> Option<Layout> {
        let hardware = &self.config.hardware;
        let gpus_per_node =
            self.required(&hardware.gpus_per_node, "gpus_per_node", "GPUs of each node");
        let (layout, location) = match subject.id.kind {
            TestKind::Disaggregated => self.servers(subject, gpus_per_node.value)?,
            kind => self.one_server(kind, subject, gpus_per_node.value)?,
        };
        match layout {
            Ok(layout) => {
                self.layout_notes(&layout, subject);
                Some(layout)
            }
            Err(error) => {
                self.errors.push(Diagnostic::error(error.to_string()).at(location));
                None
            }
        }
    }

    /// The layout of context and generation servers, and where it is to blame.
    fn servers(&mut self, subject: &Subject<'r>, gpus_per_node: u32) -> Option<Sized> {
        let hardware = &self.config.hardware;
        let generation =
            self.required(&hardware.num_gen_servers, "num_gen_servers", "generation servers");
        if generation.value == 0 && generation.origin.location.is_some() {
            self.errors.push(
                Diagnostic::error("a disaggregated test needs at least one generation server")
                    .at(generation.origin.location.clone()),
            );
        }
        let context = if subject.run == Run::NoContext {
            if matches!(&hardware.num_ctx_servers, Field::Good(count) if count.value > 0) {
                self.notes.push(format!(
                    "mode {} has no context servers: hardware.num_ctx_servers is not used",
                    subject.mode
                ));
            }
            Traced::default()
        } else {
            if hardware.num_ctx_servers.is_missing() {
                self.no_context_hint(subject);
            }
            self.required(&hardware.num_ctx_servers, "num_ctx_servers", "context servers")
        };
        let generation_size = self.world_size(&self.config.generation, "worker_config.gen");
        let context_size = self.world_size(&self.config.context, "worker_config.ctx");
        if self.errors.has_errors() {
            return None;
        }
        let layout = Layout::new(
            Servers { count: generation.value, world_size: generation_size },
            Servers { count: context.value, world_size: context_size },
            gpus_per_node,
            self.request.placement.value,
            self.request.frontend_node.value,
        );
        let form =
            if self.rules.layout_names_tasks { Form::ServersWithTasks } else { Form::Servers };
        let layout = layout.map(|layout| Layout { form, ..layout });
        Some((layout, generation.origin.location))
    }

    /// Says where the configuration and the test id contradict each other on context servers.
    fn no_context_hint(&mut self, subject: &Subject<'_>) {
        let Field::Good(mode) = &self.config.benchmark.mode else { return };
        if is_gen_only(&mode.value) && !is_gen_only(&subject.mode) {
            self.errors.push(
                Diagnostic::note(format!(
                    "benchmark.mode is {}, but the test id says {}",
                    mode.value, subject.mode
                ))
                .at(mode.origin.location.clone())
                .help("name the test with gen_only, or give it context servers"),
            );
        }
    }

    /// The layout of one server, and where it is to blame. A world size of its own counts instead
    /// of the product of its parallel sizes.
    fn one_server(
        &mut self,
        kind: TestKind,
        subject: &Subject<'r>,
        gpus_per_node: u32,
    ) -> Option<Sized> {
        let config = self.config;
        let (worker, name) = match (kind, subject.entry) {
            (TestKind::CtxOnly, _) => (&config.context, "worker_config.ctx"),
            (TestKind::Aggregated, Some(entry)) => (&entry.worker, "server_configs"),
            (TestKind::Aggregated, None) => return None,
            _ => (&config.generation, "worker_config.gen"),
        };
        if !worker.present {
            let message = format!("{name} is missing, and a {} test is sized by it", subject.mode);
            let location = config.location("worker_config");
            self.errors.push(Diagnostic::error(message).at(location).help(format!(
                "add `{}:` with `tensor_parallel_size:` below `worker_config:`",
                name.rsplit('.').next().unwrap_or(name)
            )));
        }
        let world_size = match worker.world_size.get(&mut self.errors) {
            Some(given) if given.value > 0 => given.value,
            _ => self.world_size(worker, name),
        };
        if self.errors.has_errors() {
            return None;
        }
        let location = config.location("hardware");
        Some((Layout::one_server(world_size, gpus_per_node), location))
    }

    /// World size: tensor × pipeline × context parallel size, each 1 when missing.
    fn world_size(&mut self, worker: &Worker, name: &str) -> u32 {
        let sizes = [
            &worker.tensor_parallel_size,
            &worker.pipeline_parallel_size,
            &worker.context_parallel_size,
        ];
        let mut product: u32 = 1;
        for size in sizes {
            let Some(size) = size.get(&mut self.errors) else { continue };
            match product.checked_mul(size.value).filter(|product| *product <= MAX_COUNT) {
                Some(larger) => product = larger,
                None => self.errors.push(
                    Diagnostic::error(format!(
                        "the world size of {name} (tensor × pipeline × context parallel size) \
                         exceeds {MAX_COUNT}"
                    ))
                    .at(size.origin.location.clone()),
                ),
            }
        }
        product
    }

    fn layout_notes(&mut self, layout: &Layout, subject: &Subject<'_>) {
        let has_servers = layout.form != Form::OneServer;
        if has_servers && layout.num_ctx_servers == 0 && subject.run != Run::NoContext {
            let note = "there are no context servers, although the mode is not gen_only";
            self.notes.push(note.into());
        }
        for kind in subject.rule.roles.iter().map(|rule| rule.kind).filter(|kind| kind.is_worker())
        {
            let (nodes, tasks, tasks_per_node) = step_size(layout, kind);
            if count(layout, kind) > 0 && !tasks.is_multiple_of(tasks_per_node) {
                self.notes.push(format!(
                    "the last of the {nodes} nodes of each {kind} server is not full: {tasks} \
                     ranks, {tasks_per_node} on each full node"
                ));
            }
        }
        for (worker, name, size) in [
            (&self.config.generation, "gen", layout.gpus_per_gen_server),
            (&self.config.context, "ctx", layout.gpus_per_ctx_server),
        ] {
            if let Field::Good(given) = &worker.world_size
                && has_servers
                && ![0, size].contains(&given.value)
            {
                self.notes.push(format!(
                    "worker_config.{name}.world_size, {}, is not used: the parallel sizes make {size}",
                    given.value
                ));
            }
        }
    }

    fn concurrency(&mut self, mode: &str) -> Traced<u64> {
        let Some(list) = self.config.benchmark.concurrency.get(&mut self.errors) else {
            return Traced::new(1, Origin::rule("benchmark.concurrency_list is missing: 1"));
        };
        let largest = list.value.iter().copied().max().unwrap_or(1);
        if list.value.len() > 1 {
            self.notes.push(format!(
                "mode {mode} needs one concurrency: the largest of benchmark.concurrency_list, \
                 {largest}, is used"
            ));
        }
        Traced::new(largest, list.origin.clone())
    }

    /// How many requests are queued before any is served: all, so that decoding alone is measured;
    /// no more than the generation server can hold, or it would wait for the others for ever.
    fn queue_size(&mut self, mode: &str) -> Traced<u64> {
        let concurrency = self.concurrency(mode);
        let worker = &self.config.generation;
        if !self.rules.caps_queue {
            return concurrency;
        }
        let Some(batch) = worker.max_batch_size.get(&mut self.errors) else { return concurrency };
        let attention_dp =
            worker.enable_attention_dp.get(&mut self.errors).is_some_and(|on| on.value);
        let ranks = match worker.tensor_parallel_size.get(&mut self.errors) {
            Some(size) if attention_dp => size.value,
            _ => 1,
        };
        let capacity = u64::from(batch.value) * u64::from(ranks);
        if concurrency.value <= capacity {
            return concurrency;
        }
        self.notes.push(format!(
            "the queue has {capacity} requests, not {}: the generation server holds no more \
             (max_batch_size × the ranks that serve requests of their own)",
            concurrency.value
        ));
        Traced::new(capacity, batch.origin.by_rule("the capacity of the generation server"))
    }

    fn rule_name(&self, whose: &str) -> String {
        format!("{} rules: {whose}", self.rules.generation)
    }

    fn origin(&self, whose: &str) -> Origin {
        Origin::rule(self.rule_name(whose))
    }

    /// The variables of a role or of the job; those of the base command come last, where it runs.
    fn env(
        &mut self,
        whose: &str,
        sources: &[EnvSource],
        subject: &Subject<'_>,
        base: bool,
    ) -> Env {
        let config = &self.config.environment;
        let rule = self.rule_name(whose);
        let mut env = Env::default();
        for source in sources {
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
                EnvSource::Fixed(name, value) => {
                    let origin = Origin::rule(rule.clone());
                    env.set(name, &Template::from_written(*value), origin);
                    continue;
                }
                EnvSource::When(run, name, value) => {
                    if *run != subject.run {
                        continue;
                    }
                    let (value, origin) = match (value, &subject.queue) {
                        (RunValue::Constant(text), _) => ((*text).to_owned(), Origin::default()),
                        (RunValue::QueueSize, Some(queue)) => {
                            (queue.value.to_string(), queue.origin.clone())
                        }
                        (RunValue::QueueSize, None) => continue,
                    };
                    let origin = origin.by_rule(format!("{rule} of a {} test", subject.mode));
                    env.set(name, &Template::literal(&value), origin);
                    continue;
                }
            };
            if let Some(assignments) = field.get(&mut self.errors) {
                let origin = assignments.origin.by_rule(rule.clone());
                for assignment in &assignments.value {
                    env.set(&assignment.name, &assignment.value, origin.clone());
                }
            }
        }
        if base { env.and_then(&subject.base.env) } else { env }
    }

    fn job(&mut self, layout: &Layout) -> Job {
        let settings = &self.request.job;
        let config = &self.config.slurm;
        let gpus = match &self.config.hardware.gpus_per_node {
            Field::Good(gpus) => gpus.origin.clone(),
            _ => Origin::default(),
        };
        let per_node = |rule: &'static str| Traced::new(layout.gpus_per_node, gpus.by_rule(rule));
        let wanted = config.set_segment.get(&mut self.errors).filter(|wanted| wanted.value);
        let knows_segment = settings.segment.as_ref().is_some_and(|known| known.value);
        if wanted.is_some() && !knows_segment {
            self.notes.push(
                "slurm.set_segment is not used: the site does not say that its Slurm knows \
                 --segment"
                    .into(),
            );
        }
        let segment = wanted
            .filter(|_| knows_segment)
            .map(|wanted| Traced::new(layout.total_nodes, wanted.origin.by_rule("one segment")));
        let time = match &settings.time {
            Some(time) => Some(time),
            None => config.job_time.get(&mut self.errors).or(settings.default_time.as_ref()),
        };
        let directory = &self.request.directories.workspace;
        Job {
            name: settings.name.clone().unwrap_or_else(|| {
                Traced::new(DEFAULT_JOB_NAME.into(), Origin::rule("the default job name"))
            }),
            output: Traced::new(
                format!("{}/slurm_%j.log", directory.value.trim_end_matches('/')),
                directory.origin.by_rule("the job's log is in the workspace"),
            ),
            nodes: Traced::new(
                layout.total_nodes,
                Origin::rule("total nodes: servers × ⌈world size / GPUs per node⌉"),
            ),
            ntasks: Traced::new(
                layout.total_gpus,
                Origin::rule("one task for each GPU of the job"),
            ),
            ntasks_per_node: per_node("one task for each GPU of a node"),
            gpus_per_node: per_node("all GPUs of each node"),
            time: time.cloned().unwrap_or_else(|| {
                Traced::new(DEFAULT_TIME.into(), Origin::rule("the default time limit"))
            }),
            partition: settings.partition.clone(),
            account: settings.account.clone(),
            segment,
        }
    }
}

/// A layout or why there is none, and the place in the configuration that is to blame then.
type Sized = (Result<Layout, super::layout::TooLarge>, Option<crate::diagnostic::Location>);

/// How many steps of a kind a test has.
pub(super) fn count(layout: &Layout, kind: RoleKind) -> u32 {
    match kind.precheck_of().unwrap_or(kind) {
        RoleKind::Gen => layout.num_gen_servers,
        RoleKind::Ctx => layout.num_ctx_servers,
        _ => 1,
    }
}

/// Nodes, tasks and tasks per node of one step of a kind.
pub(super) fn step_size(layout: &Layout, kind: RoleKind) -> (u32, u32, u32) {
    let worker = |nodes, world_size| (nodes, world_size, layout.tasks_per_node(world_size));
    match kind.precheck_of().unwrap_or(kind) {
        RoleKind::Gen => worker(layout.nodes_per_gen_server, layout.gpus_per_gen_server),
        RoleKind::Ctx => worker(layout.nodes_per_ctx_server, layout.gpus_per_ctx_server),
        RoleKind::Aggregated => worker(layout.nodes_per_server, layout.gpus_per_server),
        _ => (1, 1, 1),
    }
}

fn step(request: &Request, layout: &Layout, kind: RoleKind) -> Step {
    let (nodes, tasks, tasks_per_node) = step_size(layout, kind);
    let shares_nodes = request.placement.value == Placement::Packed
        && kind.is_indexed()
        && tasks < layout.gpus_per_node;
    Step {
        nodes,
        tasks,
        tasks_per_node,
        mpi: kind.uses_gpus().then(|| request.mpi.value.clone()),
        overlap: !kind.uses_gpus() || shares_nodes,
        kill_on_bad_exit: true,
    }
}

fn container(request: &Request) -> Option<Container> {
    let settings = request.container.as_ref()?;
    let directories = &request.directories;
    let workspace = directories.workspace.value.trim_end_matches('/');
    let mount = |directory: &Traced<String>, target: &str| {
        Traced::new(
            format!("{}:{target}", directory.value),
            directory.origin.by_rule("D, W and M are mounted at their own paths, M also at /data"),
        )
    };
    let own_path = |directory: &Traced<String>| mount(directory, &directory.value);
    let mut name = Template::literal("disagg_test_");
    name.push_variable("SLURM_JOB_ID");
    Some(Container {
        name,
        image: settings.image.clone(),
        workdir: Traced::new(
            format!("{workspace}/disagg_workspace"),
            directories.workspace.origin.by_rule("the container's working directory"),
        ),
        mounts: [
            own_path(&directories.source),
            own_path(&directories.workspace),
            own_path(&directories.models),
            mount(&directories.models, "/data"),
        ]
        .into_iter()
        .chain(settings.mounts.iter().cloned())
        .collect(),
    })
}
