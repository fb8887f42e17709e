// SPDX-License-Identifier: Apache-2.0
//! Profiles of engines: those that are compiled in, those of the site, and how their files are read.

mod names;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use indexmap::IndexMap;

use super::fields::{Fields, Section};
use super::yaml::{Document, Node, Value};
use super::{source, yaml};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, nearest};
use crate::plan::config::Field;
use crate::plan::expr::Expr;
use crate::plan::health::{Alive, Count, Http, Minimum, Ready};
use crate::plan::origin::{Label, Traced};
use crate::plan::profile::{Client, Item, ListSyntax, Profile, ProfileRole, Syntax, TaskPer};
use crate::plan::role::Purpose;
use crate::plan::template::{Template, is_name};

/// The folder of a site's own profiles.
pub const SITE_FOLDER: &str = "/etc/slurm-disagg/profiles";

/// The files of `profiles/`, as `build.rs` has read them.
#[cfg_attr(not(feature = "cli"), allow(unused_imports, reason = "the texts alone are there"))]
mod compiled {
    use std::borrow::Cow;

    use crate::diagnostic::Position;
    use crate::input::yaml::{Items, Key, Node, Value};

    include!(concat!(env!("OUT_DIR"), "/profiles.rs"));

    /// Their names, texts and contents.
    pub(super) static ALL: &[(&str, &str, Option<Node>)] = FILES;
}

/// The name of the file that has clients in place of an engine.
const CLIENTS: &str = "clients";

/// The names of the engines whose profiles are compiled in.
pub fn built_in() -> impl Iterator<Item = &'static str> {
    compiled::ALL.iter().map(|(name, ..)| *name).filter(|name| *name != CLIENTS)
}

/// A file that is compiled in.
fn compiled(wanted: &str) -> Option<Document> {
    let (name, text, root) = compiled::ALL.iter().find(|(name, ..)| *name == wanted)?;
    let source = Arc::new(Source::new(format!("profiles/{name}.yaml"), *text));
    match root {
        Some(root) => Some(Document::compiled(source, root)),
        None => yaml::parse(&source).ok(),
    }
}

/// A profile's text.
#[derive(Debug)]
pub struct Found {
    /// Its engine's name.
    pub engine: String,
    /// Its file; none for one that is compiled in.
    pub file: Option<PathBuf>,
    /// What is in it.
    pub document: Document,
}

/// The file names of a folder's profiles, without `.yaml`.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".yaml")?.to_owned())).collect();
    names.sort();
    names
}

/// The names of all profiles: those of the folder and those that are compiled in.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names = names_in(folder);
    names.extend(built_in().map(str::to_owned));
    names.sort();
    names.dedup();
    names
}

/// Finds a profile by its engine's name, or by a path, which starts at `base`.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn find(engine: &str, folder: &Path, base: &Path) -> Result<Found, Diagnostics> {
    let read = |path: PathBuf, shown: &str| {
        let document = yaml::parse(&source::read(&path, shown)?)?;
        Ok(Found { engine: engine.to_owned(), file: Some(path), document })
    };
    if engine.contains('/') {
        return read(base.join(engine), engine);
    }
    let name = format!("{engine}.yaml");
    let of_site = folder.join(&name);
    if of_site.exists() {
        return read(of_site.clone(), &of_site.to_string_lossy());
    }
    if let Some(document) = compiled(engine).filter(|_| engine != CLIENTS) {
        return Ok(Found { engine: engine.to_owned(), file: None, document });
    }
    let names = names(folder);
    let error = Diagnostic::error(format!("there is no profile of an engine {engine}"));
    let error = error.help(match nearest(engine, names.iter().map(String::as_str), 1)[..] {
        [near, ..] => format!("did you mean {near}?"),
        _ => format!(
            "known engines: {}; write a path, such as ./mine.yaml, for a profile of your own",
            names.join(", ")
        ),
    });
    Err(error.into())
}

/// Reads a profile.
///
/// # Errors
/// All that is wrong with it, with positions.
pub fn parse(found: &Found) -> Result<Profile, Diagnostics> {
    let (mut fields, root) = Fields::new(&found.document);
    // What is below `common` is for YAML's anchors alone.
    fields.refuse_unknown(
        &root,
        &[
            "engine",
            "about",
            "sizes",
            "modes",
            "arguments",
            "clients_ask",
            "client",
            "common",
            "roles",
        ],
    );
    let engine = required(&mut fields, &root, "engine");
    if !found.engine.contains('/') && !engine.is_empty() && engine != found.engine {
        let message = format!("the profile of {} says that it is of {engine}", found.engine);
        fields.error(root.position(), message);
    }
    let [sizes, modes] = ["sizes", "modes"]
        .map(|key| fields.parts_of(&root, key, |fields, path, node| fields.words(path, node)));
    let section = fields.section(&root, "roles");
    let mut roles = IndexMap::new();
    for (key, node) in section.entries() {
        let path = section.path_of(&key.name);
        let Value::Map(_) = &node.value else {
            fields.error(node.position, format!("{path} must be a mapping, not {}", node.kind()));
            continue;
        };
        if !is_name(&key.name) {
            fields.error(key.position, format!("{path}: a role's name has letters, digits and _"));
        }
        let role = role(&mut fields, &Section::of(path, node));
        roles.insert(key.name.to_string(), role);
    }
    if roles.is_empty() {
        fields.error(section.position(), "the profile has no roles");
    }
    let asked = fields.texts(&root, "clients_ask");
    let mut clients_ask = Vec::new();
    for text in good(&mut fields, asked).unwrap_or_default().value {
        let asked = text.split_once('.');
        let known = asked.filter(|(role, port)| {
            roles.get(*role).is_some_and(|role| role.ports.contains_key(*port))
        });
        match known {
            Some((role, port)) => clients_ask.push((role.to_owned(), port.to_owned())),
            None => fields.error(root.position(), format!("clients_ask: {text} is no ROLE.PORT")),
        }
    }
    let profile = Profile {
        about: required(&mut fields, &root, "about"),
        sizes,
        modes,
        syntax: syntax(&mut fields, &root),
        clients_ask,
        client: optional(&mut fields, &root, "client"),
        roles,
        engine,
    };
    // What is compiled in is checked by a test.
    if found.file.is_some() {
        names::check(&mut fields, &profile);
    }
    finish(fields)?;
    Ok(profile)
}

/// A client that recipes may name, and the names of all of them.
///
/// # Errors
/// None: the file is compiled in, and a test reads it.
pub fn client(name: Option<&str>) -> Result<(Option<Client>, Vec<String>), Diagnostics> {
    let Some(document) = compiled(CLIENTS) else { return Ok((None, Vec::new())) };
    let (mut fields, root) = Fields::new(&document);
    let names = root.entries().iter().map(|(key, _)| key.name.to_string()).collect();
    let mut entries = root.entries().iter();
    let client = entries.find(|(key, _)| Some(&*key.name) == name).map(|(key, node)| {
        let section = Section::of(key.name.to_string(), node);
        fields.refuse_unknown(&section, &["unset", "command"]);
        Client {
            command: command(&mut fields, &section),
            unset: names_of(&mut fields, &section, "unset"),
        }
    });
    finish(fields)?;
    Ok((client, names))
}

fn finish(fields: Fields<'_>) -> Result<(), Diagnostics> {
    let mut found = fields.diagnostics;
    fields.bad_fields.0.into_iter().for_each(|bad| found.push_once(bad));
    // What an anchor repeats is wrong in each role that has it, and said once.
    let of_no_role = |error: &Diagnostic| {
        let (before, role) = error.message.split_once("roles.").unwrap_or((&error.message, ""));
        let after = role.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
        (error.location.clone(), format!("{before}{after}"))
    };
    let mut said = Vec::new();
    found.0.retain(|error| {
        let new = of_no_role(error);
        let is_new = error.location.is_none() || !said.contains(&new);
        said.push(new);
        is_new
    });
    if found.has_errors() { Err(found) } else { Ok(()) }
}

/// A value that is there and right; what is wrong is kept by `fields`.
pub(super) fn good<T>(_: &mut Fields<'_>, field: Field<T>) -> Option<Traced<T>> {
    match field {
        Field::Good(value) => Some(value),
        Field::Missing | Field::Bad(_) => None,
    }
}

fn optional<'d>(fields: &mut Fields<'d>, section: &Section<'d>, key: &str) -> Option<String> {
    let text = fields.text(section, key);
    good(fields, text).map(|text| text.value)
}

fn required<'d>(fields: &mut Fields<'d>, section: &Section<'d>, key: &str) -> String {
    let text = fields.text(section, key);
    if text.is_missing() {
        fields.error(section.position(), format!("{} is missing", section.path_of(key)));
    }
    good(fields, text).unwrap_or_default().value
}

fn syntax<'d>(fields: &mut Fields<'d>, root: &Section<'d>) -> Syntax {
    let section = fields.section(root, "arguments");
    fields.refuse_unknown(&section, &["dashes", "list", "joined"]);
    let usual = Syntax::default();
    let (dashes, joined) = (fields.truth(&section, "dashes"), fields.truth(&section, "joined"));
    let list = fields.choice(
        &section,
        "list",
        &[
            ("words", ListSyntax::Words),
            ("repeat", ListSyntax::Repeat),
            ("comma", ListSyntax::Comma),
        ],
    );
    Syntax {
        dashes: good(fields, dashes).map_or(usual.dashes, |dashes| dashes.value),
        list: good(fields, list).map_or(usual.list, |list| list.value),
        joined: good(fields, joined).map_or(usual.joined, |joined| joined.value),
    }
}

fn role<'d>(fields: &mut Fields<'d>, section: &Section<'d>) -> ProfileRole {
    fields.refuse_unknown(
        section,
        &[
            "name",
            "purpose",
            "tasks",
            "mpi",
            "node",
            "count",
            "ports",
            "unset",
            "env",
            "command",
            "args",
            "config_file",
            "config",
            "after",
            "ready",
            "alive",
            "fatal",
        ],
    );
    let name = required(fields, section, "name");
    if !name.is_empty() && !is_name(&name) {
        let message = format!("{} has letters, digits and _", section.path_of("name"));
        fields.error(section.position(), message);
    }
    let purpose = fields.choice(
        section,
        "purpose",
        &[("service", Purpose::Service), ("server", Purpose::Server), ("router", Purpose::Router)],
    );
    let tasks = fields.choice(
        section,
        "tasks",
        &[("gpu", TaskPer::Gpu), ("node", TaskPer::Node), ("one", TaskPer::Step)],
    );
    let mpi = fields.truth(section, "mpi");
    let count = section.get("count").map(|node| fields.expr(&"count".into(), node));
    let count = count.transpose().unwrap_or_else(|error| {
        fields.diagnostics.push(error);
        None
    });
    let ports = fields.parts_of(section, "ports", |fields, path, node| fields.port(path, node));
    let env = fields.parts_of(section, "env", |fields, path, node| fields.item(path, node));
    let args = fields.entries_of(section, "args", |fields, path, node| fields.content(path, node));
    let config =
        fields.parts_of(section, "config", |fields, path, node| fields.config_item(path, node));
    let named =
        env.keys().map(|name| ("env", name)).chain(ports.keys().map(|name| ("ports", name)));
    for (key, name) in named.filter(|(_, name)| !is_name(name)) {
        let message = format!("{}: invalid name {name:?}", section.path_of(key));
        fields.error(section.position(), message);
    }
    let config_file = optional(fields, section, "config_file");
    if config_file.as_ref().is_some_and(|file| file.contains('/') || file.starts_with('.')) {
        let message = format!("{} is a file name without a folder", section.path_of("config_file"));
        fields.error(section.position(), message);
    }
    let (after, fatal) = (fields.texts(section, "after"), fields.texts(section, "fatal"));
    ProfileRole {
        name,
        purpose: good(fields, purpose).map_or(Purpose::Server, |purpose| purpose.value),
        tasks: good(fields, tasks).map_or(TaskPer::Step, |tasks| tasks.value),
        mpi: good(fields, mpi).is_some_and(|mpi| mpi.value),
        node: optional(fields, section, "node"),
        count,
        ports,
        unset: names_of(fields, section, "unset"),
        env,
        command: command(fields, section),
        args,
        config_file,
        config,
        after: good(fields, after).unwrap_or_default().value,
        ready: section.get("ready").and_then(|_| ready(fields, section)),
        alive: section.get("alive").map(|_| alive(fields, section)),
        fatal: good(fields, fatal).unwrap_or_default().value,
    }
}

/// `{http: {port, path, status, counts}}`, `{tcp: {port}}` or `{log: [TEXT, …]}`.
fn ready<'d>(fields: &mut Fields<'d>, role: &Section<'d>) -> Option<Ready> {
    let section = fields.section(role, "ready");
    fields.refuse_unknown(&section, &["http", "tcp", "log"]);
    let port = |fields: &mut Fields<'d>, section: &Section<'d>| {
        let port = required(fields, section, "port");
        Template::literal(&port)
    };
    if section.get("log").is_some() {
        let texts = fields.texts(&section, "log");
        return good(fields, texts).map(|texts| Ready::Log(texts.value));
    }
    if section.get("tcp").is_some() {
        let tcp = fields.section(&section, "tcp");
        fields.refuse_unknown(&tcp, &["port"]);
        return Some(Ready::Tcp { port: port(fields, &tcp) });
    }
    let http = fields.section(&section, "http");
    fields.refuse_unknown(&http, &["port", "path", "status", "counts"]);
    let (status, counts) =
        (fields.integer(&http, "status", 100..=599), fields.sections(&http, "counts"));
    let counts = good(fields, counts).map_or_else(Vec::new, |counts| counts.value);
    let count = |section: &Section<'d>| {
        fields.refuse_unknown(section, &["pointer", "having", "minimum", "steps_of"]);
        let having = fields.parts_of(section, "having", |f, path, node| f.one_text(path, node));
        let steps_of = fields.text(section, "steps_of");
        let minimum = fields.integer(section, "minimum", 0..=1_000_000);
        let minimum = good(fields, minimum).map_or(1, |minimum| minimum.value);
        Count {
            pointer: required(fields, section, "pointer"),
            having: having.into_iter().collect(),
            minimum: match good(fields, steps_of) {
                Some(role) => Minimum::StepsOf(role.value),
                None => Minimum::Number(minimum),
            },
        }
    };
    let counts = counts.iter().map(count).collect();
    Some(Ready::Http(Http {
        port: port(fields, &http),
        path: required(fields, &http, "path"),
        status: good(fields, status).map_or(200, |status| status.value as u16),
        counts,
    }))
}

fn alive<'d>(fields: &mut Fields<'d>, role: &Section<'d>) -> Alive {
    let section = fields.section(role, "alive");
    fields.refuse_unknown(&section, &["misses", "seconds"]);
    let mut number = |key| {
        let number = fields.integer(&section, key, 1..=3600);
        good(fields, number).map(|number| number.value)
    };
    Alive { misses: number("misses").unwrap_or(3), seconds: number("seconds").unwrap_or(60) }
}

fn command<'d>(fields: &mut Fields<'d>, section: &Section<'d>) -> Item {
    let item = section.get("command").map(|node| fields.item(&"command".into(), node));
    let missing = || {
        let message = format!("{} is missing", section.path_of("command"));
        Err(fields.wrong(section.position(), message))
    };
    let item = item.filter(|item| *item != Ok(Item::default())).unwrap_or_else(missing);
    item.unwrap_or_else(|error| {
        fields.diagnostics.push(error);
        Item::default()
    })
}

pub(super) fn names_of<'d>(
    fields: &mut Fields<'d>,
    section: &Section<'d>,
    key: &str,
) -> Vec<Traced<String>> {
    let names = fields.texts(section, key);
    let Traced { value, origin } = good(fields, names).unwrap_or_default();
    for wrong in value.iter().filter(|name| !is_name(name)) {
        fields
            .error(section.position(), format!("{}: invalid name {wrong:?}", section.path_of(key)));
    }
    value.into_iter().map(|name| Traced::new(name, origin.clone())).collect()
}

impl<'d> Fields<'d> {
    fn words(&self, path: &str, node: &Node) -> Result<Vec<String>, Diagnostic> {
        match &node.value {
            Value::List(items) => items.iter().map(|item| self.one_text(path, item)).collect(),
            _ => Ok(vec![self.one_text(path, node)?]),
        }
    }

    /// `8000`, or `{first: 8000, each: EXPRESSION}`.
    fn port(
        &mut self,
        path: &Label,
        node: &'d Node,
    ) -> Result<(u16, Option<Traced<Expr>>), Diagnostic> {
        let section = Section::of(path.clone(), node);
        let (first, each) = match &node.value {
            Value::Map(_) => {
                self.refuse_unknown(&section, &["first", "each"]);
                let each = node.get("each").map(|each| self.expr(path, each));
                (node.get("first"), each.transpose()?)
            }
            _ => (Some(node), None),
        };
        Ok((self.port_number(path, first.unwrap_or(node))?, each))
    }
}
