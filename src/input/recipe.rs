// SPDX-License-Identifier: Apache-2.0
//! Recipes: from the YAML that a person writes to what a plan of an engine is made from.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::fields::{Fields, Section};
use super::profile::{good, names_of};
use super::settings::{Settings, TABLE};
use super::yaml::{self, Document, Node, Value};
use super::{examples, set};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::plan::ConfigFile;
use crate::plan::config::Field;
use crate::plan::engine::MAX_RUNS;
use crate::plan::expr::Pattern;
use crate::plan::layout::MAX_COUNT;
use crate::plan::origin::Traced;
use crate::plan::recipe::{Benchmark, LogLevel, Nsys, NsysRange, Recipe, RecipeRole};
use crate::plan::template::{Template, is_name};

/// The most GPUs that a node may have.
pub(super) const MAX_GPUS_PER_NODE: u32 = 1024;
/// The longest time limit, in seconds.
pub(super) const MAX_LIMIT: u32 = 366 * 86_400;
/// The most tokens or requests.
const MAX_NUMBER: u32 = 1_000_000_000;

/// A recipe's file, read.
#[derive(Debug)]
pub struct Read {
    /// What it asks for, as far as it can be read.
    pub recipe: Option<Recipe>,
    /// The engine: a name, or the path of a profile.
    pub engine: Traced<String>,
    /// What it says to Slurm and of the container, in terms of the settings.
    pub settings: Settings,
    /// Options for sbatch in one line, of which those that contradict the plan are not used.
    pub extra_args: Option<Traced<String>>,
    /// What is wrong with it or doubtful.
    pub found: Diagnostics,
}

/// The formats of recipes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// This project's own: it names an engine.
    Own,
    /// What TensorRT-LLM's benchmark reads of its `config.yaml`.
    Examples,
}

/// The profile of the benchmark that [`Format::Examples`] is the configuration of.
pub const BENCHMARK_ENGINE: &str = examples::ENGINE;

/// A configuration that is a recipe.
#[derive(Debug)]
pub struct Found {
    /// Its format.
    pub format: Format,
    /// What is in it.
    pub document: Document,
    /// Whether values were changed.
    is_changed: bool,
}

/// Takes a configuration for a recipe, with some values changed ([`set`]), when it is one.
///
/// # Errors
/// It is one, but a value cannot be changed.
pub fn find(source: &Arc<Source>, changes: &[Arc<Source>]) -> Result<Option<Found>, Diagnostics> {
    let lines = || source.text.lines().chain(changes.iter().map(|change| change.text.as_str()));
    let has = |key: &str| lines().any(|line| line.starts_with(key));
    // Quick to say no: most configurations are the test suite's.
    if !has("engine") && (!has("worker_config") || has("metadata")) {
        return Ok(None);
    }
    // What is no YAML is for the reader of configurations to refuse.
    let Ok(mut document) = yaml::parse(source) else { return Ok(None) };
    let mut changed = Ok(());
    for change in changes {
        changed = changed.and_then(|()| set::apply(&mut document, change, |_| None));
    }
    let Some(format) = document.root.as_ref().and_then(format_of_root) else { return Ok(None) };
    changed?;
    Ok(Some(Found { format, document, is_changed: !changes.is_empty() }))
}

fn format_of_root(root: &Node) -> Option<Format> {
    match (root.get("engine").is_some(), examples::has_sections(root)) {
        (named, true) if named || root.get("metadata").is_none() => Some(Format::Examples),
        (true, _) => Some(Format::Own),
        _ => None,
    }
}

/// What is known besides a recipe.
pub struct Around<'a> {
    /// The directory that paths start from.
    pub current_dir: &'a Path,
    /// The settings of other places, of which one may fill in what a recipe leaves open.
    pub settings: &'a Settings,
}

/// Reads a recipe of either format. All that is wrong with it is in what it gives: its engine may be
/// wrong too.
pub fn read(path: &Path, found: &Found, around: &Around<'_>) -> Read {
    let Found { format, document, is_changed } = found;
    let changed = document.root.as_ref().filter(|_| *is_changed).map(yaml::write);
    let file = file_of(path, &document.source);
    match format {
        Format::Examples => examples::read(document, file, changed, around),
        Format::Own => read_own(document, file, changed),
    }
}

fn read_own(document: &Document, file: ConfigFile, changed: Option<String>) -> Read {
    let (mut fields, root) = Fields::new(document);
    fields.refuse_unknown(
        &root,
        &[
            "engine",
            "model",
            "gpus_per_node",
            "env",
            "setup",
            "log_level",
            "roles",
            "benchmark",
            "serve_only",
            "ready_limit",
            "container",
            "slurm",
        ],
    );
    let ready_limit = fields.integer(&root, "ready_limit", 1..=MAX_LIMIT);
    let engine = fields.text(&root, "engine");
    let engine = good(&mut fields, engine).unwrap_or_default();
    if engine.value.is_empty()
        && let Some(node) = root.get("engine")
    {
        let error = Diagnostic::error("engine is empty").at(document.at(node.position));
        let help = "write the name of a profile; `slurm-disagg profiles` lists them";
        fields.diagnostics.push_once(error.help(help));
    }
    let (model, served_name) = model(&mut fields, &root, document);
    let gpus_per_node = fields.integer(&root, "gpus_per_node", 1..=MAX_GPUS_PER_NODE);
    let (setup, log_level) =
        (fields.text(&root, "setup"), fields.choice(&root, "log_level", &LogLevel::ALL));
    let serve_only = fields.truth(&root, "serve_only");
    let serve_only = good(&mut fields, serve_only);
    let benchmark = benchmark(&mut fields, &root, document);
    let is_serve_only = serve_only.as_ref().is_some_and(|serve_only| serve_only.value);
    if benchmark.is_none() && !is_serve_only {
        let help = "add `benchmark:`, or `serve_only: true` for servers without one";
        let error =
            Diagnostic::error("the recipe has no benchmark").at(document.at(root.position()));
        fields.diagnostics.push(error.help(help));
    }
    let recipe = Recipe {
        file,
        changed,
        model,
        served_name,
        gpus_per_node: good(&mut fields, gpus_per_node),
        env: env(&mut fields, &root, "env"),
        setup: good(&mut fields, setup),
        log_level: good(&mut fields, log_level),
        roles: roles(&mut fields, &root),
        benchmark: benchmark.filter(|_| !is_serve_only),
        steps: Vec::new(),
        segment: None,
        ready_limit: good(&mut fields, ready_limit),
    };
    let mut settings = Settings::default();
    let slurm = fields.section(&root, "slurm");
    let keys = keys_of_settings(|key| !key.starts_with("container"));
    fields.refuse_unknown(&slurm, &keys);
    settings.read(&mut fields, &slurm);
    container(&mut fields, &root, &mut settings);
    let open = [&root, &slurm].map(|section| fields.placeholders(section));
    for open in open.into_iter().flatten() {
        let message = format!("{} is a placeholder that nobody filled in", open.value);
        fields.diagnostics.push(Diagnostic::error(message).at(open.origin.location));
    }
    let mut found = fields.diagnostics;
    fields.bad_fields.0.into_iter().for_each(|bad| found.push_once(bad));
    Read { recipe: Some(recipe), engine, settings, extra_args: None, found }
}

/// The keys of settings that a recipe may have: those about Slurm, and those about the container.
fn keys_of_settings(wanted: impl Fn(&str) -> bool) -> Vec<&'static str> {
    /// What the test suite's tests alone have, and what is not for one recipe to say.
    const OTHERS: [&str; 12] = [
        "trtllm_dir",
        "models_dir",
        "cluster_name",
        "perf_test_module",
        "perf_test_function",
        "perf_test_prefix",
        "precheck",
        "ucx",
        "run_script",
        "segment",
        "profiles",
        "secrets",
    ];
    let keys = TABLE.iter().filter_map(|setting| setting.key);
    keys.filter(|key| !OTHERS.contains(key) && wanted(key)).collect()
}

/// `model: PATH`, or `model: {path: …, name: …}`.
fn model<'d>(
    fields: &mut Fields<'d>,
    root: &Section<'d>,
    document: &Document,
) -> (Traced<String>, Option<Traced<String>>) {
    let is_text = root.get("model").is_some_and(|node| matches!(node.value, Value::Scalar { .. }));
    let (path, name) = if is_text {
        (fields.text(root, "model"), Field::Missing)
    } else {
        let section = fields.section(root, "model");
        fields.refuse_unknown(&section, &["path", "name"]);
        (fields.text(&section, "path"), fields.text(&section, "name"))
    };
    if path.is_missing() {
        let error = Diagnostic::error("the model is missing").at(document.at(root.position()));
        let help = "add `model: PATH`, or `model: {path: PATH, name: NAME}`";
        fields.diagnostics.push(error.help(help));
    }
    (good(fields, path).unwrap_or_default(), good(fields, name))
}

/// `container: IMAGE`, or `container: {image: …, mounts: […]}`.
fn container<'d>(fields: &mut Fields<'d>, root: &Section<'d>, settings: &mut Settings) {
    let is_text =
        root.get("container").is_some_and(|node| matches!(node.value, Value::Scalar { .. }));
    let (image, mounts) = if is_text {
        (fields.text(root, "container"), Field::Missing)
    } else {
        let section = fields.section(root, "container");
        fields.refuse_unknown(&section, &["image", "mounts"]);
        (fields.text(&section, "image"), fields.texts(&section, "mounts"))
    };
    settings.container_image = good(fields, image);
    settings.container_mounts = good(fields, mounts);
}

fn roles<'d>(fields: &mut Fields<'d>, root: &Section<'d>) -> IndexMap<String, RecipeRole> {
    let section = fields.section(root, "roles");
    let mut roles = IndexMap::new();
    for (key, node) in section.entries() {
        let path = section.path_of(&key.name);
        let of_key = Traced::new(key.name.to_string(), fields.origin(path.clone(), key.position));
        if !matches!(node.value, Value::Map(_)) && !yaml::is_null(node) {
            fields.error(node.position, format!("{path} must be a mapping, not {}", node.kind()));
            continue;
        }
        let role = Section::of(path.clone(), node);
        fields.refuse_unknown(
            &role,
            &[
                "servers",
                "gpus",
                "env",
                "unset",
                "args",
                "config",
                "wrap",
                "before",
                "nsys",
                "log_level",
                "srun_args",
                "ports",
            ],
        );
        let servers = fields.integer(&role, "servers", 0..=MAX_COUNT);
        let gpus = fields.integer(&role, "gpus", 0..=MAX_COUNT);
        let (wrap, srun_args) =
            (fields.list_of_words(&role, "wrap"), fields.list_of_words(&role, "srun_args"));
        let log_level = fields.choice(&role, "log_level", &LogLevel::ALL);
        let contents = |fields: &mut Fields<'d>, key| {
            fields.entries_of(&role, key, |fields, path, node| fields.content(path, node))
        };
        let role = RecipeRole {
            servers: good(fields, servers),
            gpus: good(fields, gpus),
            env: env(fields, &role, "env"),
            args: contents(fields, "args"),
            config: contents(fields, "config"),
            wrap: each(good(fields, wrap)),
            before: patterns(fields, &role, "before"),
            nsys: nsys(fields, &role),
            log_level: good(fields, log_level),
            srun_args: each(good(fields, srun_args)),
            unset: names_of(fields, &role, "unset"),
            ports: fields
                .entries_of(&role, "ports", |fields, path, node| fields.port_number(path, node)),
            is_held: false,
            key: of_key,
        };
        roles.insert(key.name.to_string(), role);
    }
    roles
}

/// `{steps: FIRST-LAST}`, or `{delay: SECONDS, duration: SECONDS}`; with `args`.
fn nsys<'d>(fields: &mut Fields<'d>, role: &Section<'d>) -> Option<Traced<Nsys>> {
    role.get("nsys")?;
    let section = fields.section(role, "nsys");
    fields.refuse_unknown(&section, &["steps", "delay", "duration", "args"]);
    let path = role.path_of("nsys");
    let (steps, args) = (fields.text(&section, "steps"), fields.list_of_words(&section, "args"));
    let steps = good(fields, steps);
    let mut seconds = |key, least| {
        let seconds = fields.integer(&section, key, least..=MAX_LIMIT);
        good(fields, seconds).map(|seconds| seconds.value)
    };
    let range = match (steps, seconds("delay", 0), seconds("duration", 1)) {
        (Some(steps), None, None) => {
            let range = steps.value.split_once('-');
            let range = range.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            if range.is_none_or(|(first, last): (u32, u32)| first > last) {
                let message = format!("{path}.steps must be two numbers: FIRST-LAST");
                let at = section.get("steps").map_or(section.position(), |node| node.position);
                fields.error(at, message);
            }
            NsysRange::Steps(steps.value)
        }
        (None, delay, Some(duration)) => NsysRange::Time { delay: delay.unwrap_or(0), duration },
        _ => {
            let message =
                format!("{path} must have either `steps: FIRST-LAST` or `duration: SECONDS`");
            fields.error(section.position(), message);
            return None;
        }
    };
    let args = good(fields, args).unwrap_or_default().value;
    Some(Traced::new(Nsys { range, args }, fields.origin(path, section.position())))
}

fn each<T: Clone>(list: Option<Traced<Vec<T>>>) -> Vec<Traced<T>> {
    let Some(Traced { value, origin }) = list else { return Vec::new() };
    value.into_iter().map(|item| Traced::new(item, origin.clone())).collect()
}

/// Variables: texts with references, or numbers as they are written.
pub(super) fn env<'d>(
    fields: &mut Fields<'d>,
    section: &Section<'d>,
    key: &str,
) -> IndexMap<String, Traced<Template>> {
    fields.entries_of(section, key, |fields, path, node: &'d Node| {
        let name = path.rsplit('.').next().unwrap_or_default();
        if !is_name(name) {
            let message = format!("{path}: {name:?} is not the name of an environment variable");
            return Err(fields.wrong(node.position, message));
        }
        let template = Template::from_written(fields.one_text(path, node)?);
        // What only a plan has is none of a recipe's.
        let mut slots = template.slots();
        match slots.next() {
            Some(slot) => {
                let message = format!("{path}: ${{.{slot}}} is no reference to a variable");
                Err(fields.wrong(node.position, message).help("write $$ for a dollar sign"))
            }
            None => {
                drop(slots);
                Ok(template)
            }
        }
    })
}

/// A list of words with placeholders.
fn patterns<'d>(fields: &mut Fields<'d>, section: &Section<'d>, key: &str) -> Vec<Traced<Pattern>> {
    let Some(node) = section.get(key) else { return Vec::new() };
    let path = section.path_of(key);
    let Value::List(words) = &node.value else {
        let message = format!("{path} must be a list of words, not {}", node.kind());
        fields.error(node.position, message);
        return Vec::new();
    };
    let words = words.iter().map(|word| fields.pattern(&path, word));
    words.collect::<Result<_, _>>().unwrap_or_else(|error| {
        fields.diagnostics.push(error);
        Vec::new()
    })
}

fn benchmark<'d>(
    fields: &mut Fields<'d>,
    root: &Section<'d>,
    document: &Document,
) -> Option<Benchmark> {
    root.get("benchmark")?;
    let section = fields.section(root, "benchmark");
    fields.refuse_unknown(
        &section,
        &[
            "client",
            "command",
            "isl",
            "osl",
            "concurrencies",
            "prompts",
            "rounds",
            "warmup",
            "env",
            "args",
        ],
    );
    let command = section.get("command").map(|node| {
        let words = patterns(fields, &section, "command");
        if matches!(&node.value, Value::List(words) if words.is_empty()) {
            fields.error(node.position, format!("{} has no words", section.path_of("command")));
        }
        words
    });
    let mut number = |key| {
        let number = fields.integer(&section, key, 1..=MAX_NUMBER);
        good(fields, number).map(|number| Traced::new(u64::from(number.value), number.origin))
    };
    let (isl, osl, prompts) = (number("isl"), number("osl"), number("prompts"));
    let (rounds, warmup) = (number("rounds"), number("warmup"));
    if let (Some(_), Some(rounds)) = (&prompts, &rounds) {
        let message = "benchmark has both `prompts` and `rounds`";
        let error = Diagnostic::error(message).at(rounds.origin.location.clone());
        fields.diagnostics.push(error.help("prompts is of a run, rounds for each in flight"));
    }
    let concurrencies = fields.numbers(&section, "concurrencies");
    let concurrencies = each(good(fields, concurrencies));
    for (at, number) in concurrencies.iter().take(MAX_RUNS).enumerate() {
        if concurrencies[..at].iter().any(|before| before.value == number.value) {
            let message = format!("benchmark.concurrencies has {} twice", number.value);
            let error = Diagnostic::error(message).at(number.origin.location.clone());
            fields.diagnostics.push_once(error);
        }
    }
    if concurrencies.len() > MAX_RUNS {
        let message = format!("benchmark.concurrencies has more than {MAX_RUNS} numbers");
        fields.error(section.position(), message);
    }
    let (client, args) = (fields.text(&section, "client"), fields.list_of_words(&section, "args"));
    let at = crate::plan::Origin {
        input: "benchmark".into(),
        location: Some(document.at(section.position())),
        ..Default::default()
    };
    Some(Benchmark {
        at: Traced::new((), at),
        client: good(fields, client),
        command,
        isl,
        osl,
        concurrencies,
        prompts,
        rounds,
        warmup,
        env: env(fields, &section, "env"),
        args: each(good(fields, args)),
    })
}

fn file_of(path: &Path, source: &Arc<Source>) -> ConfigFile {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let sha256 = super::config::sha256(source.text.as_bytes());
    ConfigFile { name, path: path.to_string_lossy().into_owned(), sha256 }
}
