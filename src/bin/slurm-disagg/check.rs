// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg check`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use disagg::diagnostic::{Diagnostic, Diagnostics, Location, Position, Severity};
use disagg::input::launcher::Launcher;
use disagg::input::request::Options;
use disagg::input::{Context, config, find, recipe, request, set, site, source};
use disagg::output::table;
use disagg::plan::config::{Config, Field};
use disagg::plan::{Generation, Origin, Plan, TestId};

use crate::args::{CheckArgs, Format};
use crate::{Outcome, print, report};

/// The controller's plugin has it: slurmctld loads nothing that it does not need.
#[path = "../../../plugins/job_submit/src/settings.rs"]
#[allow(dead_code, reason = "only the plugin uses the settings")]
mod disagg_conf;

pub fn run(args: &CheckArgs, context: &Context) -> Outcome {
    let (mut found, mut tests) = (Vec::new(), String::new());
    for file in &args.files {
        let checked = check(file, &args.changes.set, context);
        found.extend(checked.found);
        tests += &checked.tests;
    }
    found.extend(args.site.iter().flat_map(|file| about_site(file, context)));
    found.extend(args.disagg_conf.iter().flat_map(|file| about_disagg_conf(file, context)));
    for diagnostic in found.iter_mut().filter(|d| args.strict && d.severity == Severity::Warning) {
        diagnostic.severity = Severity::Error;
    }
    let count = |severity| found.iter().filter(|d: &&Diagnostic| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match args.format {
        Format::Text => {
            report(&found);
            let settings = [&args.site, &args.disagg_conf];
            let files = args.files.len() + settings.into_iter().flatten().count();
            print(&format!(
                "{tests}{files} file{} checked: {errors} error{}, {warnings} warning{}\n",
                s(files),
                s(errors),
                s(warnings)
            ))?;
        }
        Format::Json => {
            let entries: Vec<_> = found.iter().map(Entry::new).collect();
            print(&(serde_json::to_string_pretty(&entries)? + "\n"))?;
        }
    }
    Ok(if errors > 0 { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

/// What is wrong with a site.yaml, whatever the environment says.
fn about_site(file: &Path, context: &Context) -> Vec<Diagnostic> {
    let context = Context { env: &|_| None, current_dir: context.current_dir.clone() };
    site::load(&context, Some(file)).err().map_or(Vec::new(), |found| found.0)
}

/// What is wrong with a disagg.conf, in the words of slurmctld's log.
fn about_disagg_conf(file: &Path, context: &Context) -> Vec<Diagnostic> {
    let shown = file.to_string_lossy();
    let source = match source::read(&context.current_dir.join(file), &shown) {
        Ok(source) => source,
        Err(error) => return vec![error],
    };
    let (_, problems) = disagg_conf::Settings::parse(&source.text);
    let place = |line: usize| {
        let line = u32::try_from(line).unwrap_or(u32::MAX);
        let length = source.line(line).chars().count() as u32;
        Location { source: source.clone(), position: Position { line, column: 1, length } }
    };
    let error =
        |problem: disagg_conf::Problem| Diagnostic::error(problem.message).at(place(problem.line));
    let order = about_order(&context.current_dir.join(file).with_file_name("slurm.conf"));
    problems.into_iter().map(error).chain(order).collect()
}

/// Whether a script of the site comes before the controller's plugin in the slurm.conf beside disagg.conf.
fn about_order(slurm_conf: &Path) -> Option<Diagnostic> {
    let source = source::read(slurm_conf, &slurm_conf.to_string_lossy()).ok()?;
    let (line, text, plugins) = source.text.lines().enumerate().find_map(|(at, line)| {
        let (key, value) = line.split_once('=')?;
        let value = value.split('#').next()?.trim();
        key.trim().eq_ignore_ascii_case("JobSubmitPlugins").then_some((at + 1, line, value))
    })?;
    let mut names = plugins.split(',').map(str::trim).skip_while(|name| *name != "lua");
    if !names.any(|name| name == "disagg") {
        return None;
    }
    let message = format!(
        "JobSubmitPlugins={plugins}: job_submit.lua sees jobs before disagg has filled in their nodes \
         and GPUs"
    );
    let help = "a script that refuses jobs for their size or GPUs belongs behind disagg; one that sets an \
                account or a partition is right there";
    let length = text.chars().count() as u32;
    let position = Position { line: u32::try_from(line).ok()?, column: 1, length };
    Some(Diagnostic::note(message).at(Location { source, position }).help(help))
}

fn s(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// What a check of one file says.
#[derive(Default)]
struct Checked {
    found: Vec<Diagnostic>,
    /// The tests that the file allows, a line each.
    tests: String,
}

/// Everything that is wrong with a file. What prevents a plan is an error; what is wrong with a
/// field that the plan does not use is a warning.
fn check(file: &Path, changes: &[String], context: &Context) -> Checked {
    let shown = as_path(&file.to_string_lossy());
    let path = context.current_dir.join(&shown);
    let read =
        source::read(&path, &shown).map_err(Diagnostics::from).and_then(
            |source| match recipe::find(&source, &set::sources(changes))?.is_some() {
                true => Ok(None),
                false => config::read_text(&path, &source, &set::sources(changes)).map(Some),
            },
        );
    let (config, mut found) = match read {
        Ok(Some(read)) => read,
        Ok(None) => return check_recipe(&shown, changes, context),
        Err(Diagnostics(found)) => return Checked { found, ..Checked::default() },
    };
    // The check does not depend on the models, and on a source tree only where the file is in one.
    let tree = find::source_dir_of(&path);
    let launcher = tree.as_deref().and_then(Launcher::of_tree);
    let by_tree = launcher.as_ref().and_then(Launcher::rules);
    let why = launcher.filter(|_| by_tree.is_some()).map_or("the newest".into(), |found| found.why);
    let plan = |test_id: Option<&String>, rules: Option<Generation>| {
        let options = Options {
            config: shown.clone(),
            test_id: test_id.cloned(),
            rules,
            set: changes.to_vec(),
            trtllm_dir: Some(
                tree.as_ref().map_or("/".into(), |tree| tree.to_string_lossy().into_owned()),
            ),
            models_dir: Some("/".into()),
            ..Options::default()
        };
        request::plan(&options, context)
    };
    let newest = Some(by_tree.unwrap_or(Generation::NEWEST));
    let ids = TestId::all_of(&config, PREFIX);
    let planned: Vec<_> = ids.iter().map(|id| (id, plan(Some(id), newest))).collect();
    let mut errors = Diagnostics::default();
    let mut add = |planned: &Result<(Plan, Vec<Diagnostic>), Diagnostics>| match planned {
        Ok((_, warnings)) => warnings.iter().for_each(|d| errors.push_once(d.clone())),
        Err(Diagnostics(wrong)) => wrong.iter().for_each(|d| errors.push_once(d.clone())),
    };
    match config.is_aggregated() {
        true => planned.iter().for_each(|(_, planned)| add(planned)),
        false => add(&plan(None, by_tree)),
    }
    errors.0.extend(about_servers(&config));
    errors.0.retain(|error| !found.contains(error));
    let unused = config.bad_fields.iter().filter(|bad| !errors.0.contains(bad));
    found.extend(unused.map(|bad| Diagnostic { severity: Severity::Warning, ..bad.clone() }));
    found.extend(errors.0);
    let is_newer = path.components().any(|part| part.as_os_str() == "scripts");
    let by_place = if is_newer { Generation::NEWEST } else { Generation::Classic };
    found.extend(without_effect(&config, by_tree.unwrap_or(by_place)));
    let open: Vec<_> = config.placeholders.iter().map(|key| key.value.as_str()).collect();
    if let Some(first) = config.placeholders.first() {
        let message = format!("placeholders, which nobody filled in: {}", open.join(", "));
        found.push(Diagnostic::note(message).at(first.origin.location.clone()));
    }
    found.sort_by_key(|d| d.location.as_ref().map(|l| (l.position.line, l.position.column)));
    let mut tests = String::new();
    let width = ids.iter().map(String::len).max().unwrap_or_default();
    for (id, planned) in planned {
        let Ok((plan, _)) = planned else { continue };
        let (nodes, gpus) = (plan.layout.total_nodes, plan.layout.total_gpus);
        if tests.is_empty() {
            let rules = by_tree.unwrap_or(Generation::NEWEST);
            tests = format!("{shown} is a configuration for ({rules} rules: {why})\n");
        }
        tests += &format!("  {id:width$}  {nodes} node{}, {gpus} GPUs", s(nodes as usize));
        let world_size = plan.roles.values().map(|role| role.step.tasks).next().unwrap_or_default();
        if config.is_aggregated() {
            tests += &format!(", world size {world_size}");
        }
        tests.push('\n');
    }
    Checked { found, tests }
}

/// Everything that is wrong with a recipe or the profile of its engine.
fn check_recipe(shown: &str, changes: &[String], context: &Context) -> Checked {
    let options = Options { config: shown.to_owned(), set: changes.to_vec(), ..Options::default() };
    match request::plan(&options, context) {
        Err(Diagnostics(found)) => Checked { found, ..Checked::default() },
        Ok((plan, found)) => {
            let engine = plan.engine.as_ref().map_or("", |engine| &engine.name);
            let tests = format!("{shown}: {engine}: {}\n", table::job_line(&plan));
            Checked { found, tests }
        }
    }
}

/// The prefix of the test ids that are listed.
const PREFIX: &str = "disagg_upload";

/// What is wrong with the servers of an aggregated configuration, used or not.
fn about_servers(config: &Config) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let lacks = |section| !config.has_section(section) && !config.is_mistyped(section);
    if lacks("worker_config") && lacks("server_configs") {
        let message = "the configuration has neither worker_config nor server_configs";
        let help = "add worker_config: for a disaggregated test, or server_configs: for one server";
        found.push(Diagnostic::error(message).at(config.location("")).help(help));
    }
    if !config.is_aggregated() {
        return found;
    }
    let mut names = Vec::new();
    let servers = match &config.servers {
        Field::Good(servers) => &servers.value[..],
        _ => &[],
    };
    for (index, server) in servers.iter().enumerate() {
        match &server.name {
            Field::Good(name) if names.contains(&&name.value) => found.push(
                Diagnostic::error(format!("server_configs has two entries {}", name.value))
                    .at(name.origin.location.clone())
                    .help("a test id names one of them: rename the other"),
            ),
            Field::Good(name) => names.push(&name.value),
            Field::Missing => found.push(
                Diagnostic::error(format!("server_configs[{index}] has no name"))
                    .at(config.location("server_configs"))
                    .help("add `name:`, which the test id ends with"),
            ),
            Field::Bad(_) => {}
        }
    }
    found
}

/// Keys that are read and decide nothing in such a test.
fn without_effect(config: &Config, rules: Generation) -> Vec<Diagnostic> {
    let environment = &config.environment;
    let all = [
        &environment.worker,
        &environment.gen_worker,
        &environment.ctx_worker,
        &environment.server,
        &environment.benchmark,
    ];
    let is_aggregated = config.is_aggregated();
    let variables = match (is_aggregated, rules) {
        (true, _) => &all[..],
        (false, Generation::Classic) => &all[1..3],
        _ => &[],
    };
    let mut found = Vec::new();
    let mut note = |origin: &Origin, why: &str| {
        let message = format!("{} has no effect {why}", origin.input);
        found.push(Diagnostic::note(message).at(origin.location.clone()));
    };
    for field in variables {
        if let Field::Good(assignments) = field {
            note(
                &assignments.origin,
                match is_aggregated {
                    true => "in an aggregated test, where each entry has server_env_var",
                    false => "by the classic rules, where all servers have worker_env_var",
                },
            );
        }
    }
    let hardware = &config.hardware;
    for field in [&hardware.num_ctx_servers, &hardware.num_gen_servers] {
        if let (true, Field::Good(count)) = (is_aggregated, field) {
            note(&count.origin, "in an aggregated test");
        }
    }
    if let (Field::Good(mode), Field::Good(count)) =
        (&config.benchmark.mode, &hardware.num_ctx_servers)
        && !is_aggregated
        && count.value > 0
        && mode.value.contains(rules.no_context_mark())
    {
        note(&count.origin, &format!("in mode {}, which has no context servers", mode.value));
    }
    found
}

/// The text as a path, even where it could be a name.
fn as_path(file: &str) -> String {
    if find::is_path(file) { file.to_owned() } else { format!("./{file}") }
}

/// A diagnostic as programs read it.
#[derive(Serialize)]
struct Entry<'d> {
    severity: &'static str,
    file: Option<&'d str>,
    line: Option<u32>,
    column: Option<u32>,
    message: &'d str,
    details: &'d [String],
    help: Option<&'d str>,
}

impl<'d> Entry<'d> {
    fn new(diagnostic: &'d Diagnostic) -> Self {
        let location = diagnostic.location.as_ref();
        Self {
            severity: diagnostic.severity.word(),
            file: location.map(|l| l.source.name.as_str()),
            line: location.map(|l| l.position.line),
            column: location.map(|l| l.position.column),
            message: &diagnostic.message,
            details: &diagnostic.details,
            help: diagnostic.help.as_deref(),
        }
    }
}
