// SPDX-License-Identifier: Apache-2.0
//! Recipes: from the YAML that a person writes to what a plan of an engine is made from.

use std::path::Path;
use std::sync::Arc;

use indexmap::IndexMap;

use super::fields::{Fields, Section};
use super::profile::good;
use super::set;
use super::settings::{Settings, TABLE};
use super::yaml::{self, Document, Node, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::plan::ConfigFile;
use crate::plan::config::Field;
use crate::plan::engine::MAX_RUNS;
use crate::plan::layout::MAX_COUNT;
use crate::plan::origin::Traced;
use crate::plan::recipe::{Benchmark, Recipe, RecipeRole};
use crate::plan::template::{Template, is_name};

/// The most GPUs that a node may have.
const MAX_GPUS_PER_NODE: u32 = 1024;
/// The most tokens or requests.
const MAX_NUMBER: u32 = 1_000_000_000;

/// A recipe's file, read.
#[derive(Debug)]
pub struct Read {
    /// What it asks for.
    pub recipe: Recipe,
    /// The engine: a name, or the path of a profile.
    pub engine: Traced<String>,
    /// What it says to Slurm and of the container, in terms of the settings.
    pub settings: Settings,
    /// What is doubtful about it.
    pub warnings: Vec<Diagnostic>,
}

/// Whether a configuration is a recipe: it names an engine.
pub fn is_recipe(source: &Arc<Source>) -> bool {
    // Quick to say no: most configurations have no such key.
    source.text.lines().any(|line| line.starts_with("engine"))
        && yaml::parse(source).is_ok_and(|document| {
            document.root.as_ref().is_some_and(|root| root.get("engine").is_some())
        })
}

/// Reads a recipe, with some values changed ([`set`]).
///
/// # Errors
/// All that is wrong with it, with positions.
pub fn read(
    path: &Path,
    source: &Arc<Source>,
    changes: &[Arc<Source>],
) -> Result<Read, Diagnostics> {
    let mut document = yaml::parse(source)?;
    for change in changes {
        set::apply(&mut document, change, |_| None)?;
    }
    let changed = document.root.as_ref().filter(|_| !changes.is_empty()).map(yaml::write);
    let (mut fields, root) = Fields::new(&document);
    fields.refuse_unknown(
        &root,
        &[
            "engine",
            "model",
            "gpus_per_node",
            "env",
            "roles",
            "benchmark",
            "serve_only",
            "container",
            "slurm",
        ],
    );
    let engine = fields.text(&root, "engine");
    let engine = good(&mut fields, engine).unwrap_or_default();
    let (model, served_name) = model(&mut fields, &root, &document);
    let gpus_per_node = fields.integer(&root, "gpus_per_node", 1..=MAX_GPUS_PER_NODE);
    let serve_only = fields.truth(&root, "serve_only");
    let serve_only = good(&mut fields, serve_only);
    let benchmark = benchmark(&mut fields, &root, &document);
    let is_serve_only = serve_only.as_ref().is_some_and(|serve_only| serve_only.value);
    if benchmark.is_none() && !is_serve_only {
        let help = "add `benchmark:`, or `serve_only: true` for servers without one";
        let error =
            Diagnostic::error("the recipe has no benchmark").at(document.at(root.position()));
        fields.diagnostics.push(error.help(help));
    }
    let recipe = Recipe {
        file: file_of(path, source),
        changed,
        model,
        served_name,
        gpus_per_node: good(&mut fields, gpus_per_node),
        env: env(&mut fields, &root, "env"),
        roles: roles(&mut fields, &root),
        benchmark: benchmark.filter(|_| !is_serve_only),
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
    if found.has_errors() {
        return Err(found);
    }
    Ok(Read { recipe, engine, settings, warnings: found.0 })
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
        let of_key = Traced::new(key.name.clone(), fields.origin(path.clone(), key.position));
        if !matches!(node.value, Value::Map(_)) && !yaml::is_null(node) {
            fields.error(node.position, format!("{path} must be a mapping, not {}", node.kind()));
            continue;
        }
        let role = Section::of(&path, node);
        fields.refuse_unknown(&role, &["servers", "gpus", "env", "args", "config", "wrap"]);
        let servers = fields.integer(&role, "servers", 0..=MAX_COUNT);
        let gpus = fields.integer(&role, "gpus", 0..=MAX_COUNT);
        let wrap = fields.texts(&role, "wrap");
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
            key: of_key,
        };
        roles.insert(key.name.clone(), role);
    }
    roles
}

fn each<T: Clone>(list: Option<Traced<Vec<T>>>) -> Vec<Traced<T>> {
    let Some(Traced { value, origin }) = list else { return Vec::new() };
    value.into_iter().map(|item| Traced::new(item, origin.clone())).collect()
}

/// Variables: texts with references, or numbers as they are written.
fn env<'d>(
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
        let path = section.path_of("command");
        let Value::List(words) = &node.value else {
            let message = format!("{path} must be a list of words, not {}", node.kind());
            return Err(fields.wrong(node.position, message));
        };
        let word = |(at, word)| fields.pattern(&format!("{path}[{at}]"), word);
        let words: Vec<_> = words.iter().enumerate().map(word).collect::<Result<_, _>>()?;
        if words.is_empty() {
            return Err(fields.wrong(node.position, format!("{path} has no words")));
        }
        Ok(words)
    });
    let command = command.transpose().unwrap_or_else(|error| {
        fields.diagnostics.push(error);
        None
    });
    let mut number = |key| {
        let number = fields.integer(&section, key, 1..=MAX_NUMBER);
        good(fields, number).map(|number| Traced::new(u64::from(number.value), number.origin))
    };
    let (isl, osl, prompts) = (number("isl"), number("osl"), number("prompts"));
    let (rounds, warmup) = (number("rounds"), number("warmup"));
    let concurrencies = fields.numbers(&section, "concurrencies");
    let concurrencies = each(good(fields, concurrencies));
    if concurrencies.len() > MAX_RUNS {
        let message = format!("benchmark.concurrencies has more than {MAX_RUNS} numbers");
        fields.error(section.position(), message);
    }
    let (client, args) = (fields.text(&section, "client"), fields.texts(&section, "args"));
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
