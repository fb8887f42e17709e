// SPDX-License-Identifier: Apache-2.0
//! `--set KEY=VALUE`: values in place of a configuration's own. KEY is a path, as
//! `worker_config.gen.tensor_parallel_size` or `server_configs.small.max_batch_size`; VALUE is YAML.

use std::sync::Arc;

use super::yaml::{self, Document, Items, Key, Node, Value, is_null};
use crate::diagnostic::{Diagnostic, Diagnostics, Location, Position, Source, nearest};

/// The keys that a mapping may have, by its path; nothing for one whose keys only the engine knows.
pub type Known = fn(&[&str]) -> Option<Vec<&'static str>>;

/// The arguments as the texts that messages quote.
pub fn sources(arguments: &[String]) -> Vec<Arc<Source>> {
    arguments.iter().map(|text| Arc::new(Source::new("--set", text.as_str()))).collect()
}

/// Puts a value, `KEY=VALUE`, into a document. A key that is not there is added where it is known,
/// or where no key there is like it.
///
/// # Errors
/// The position in the argument of what is wrong with it.
pub fn apply(
    document: &mut Document,
    argument: &Arc<Source>,
    known: Known,
) -> Result<(), Diagnostics> {
    let text = &argument.text;
    let at = |start: usize, length: usize| Location {
        source: argument.clone(),
        position: Position { line: 1, column: start as u32 + 1, length: length.max(1) as u32 },
    };
    let is_whole = |(path, _): &(&str, &str)| {
        !text.contains(['\n', '\r']) && path.split('.').all(|name| !name.is_empty())
    };
    let Some((path, value)) = text.split_once('=').filter(is_whole) else {
        let error = Diagnostic::error("this is no KEY=VALUE").at(at(0, text.chars().count()));
        return Err(error.help("write it as hardware.num_gen_servers=2").into());
    };
    let mut new = parsed(argument, path, value)?;
    let origin = document.add_source(argument.clone());
    placed(&mut new, origin);
    let names: Vec<_> = path.split('.').collect();
    let root = Node { position: new.position, value: Value::Map(Items::compiled(&[])) };
    let mut node = document.root.get_or_insert(root);
    let mut start = 0;
    for (depth, name) in names.iter().enumerate() {
        let here = at(start, name.chars().count());
        let above = match depth {
            0 => "the configuration".to_owned(),
            _ => names[..depth].join("."),
        };
        if is_null(node) {
            node.value = Value::Map(Items::compiled(&[]));
        }
        node = match &mut node.value {
            Value::Map(entries) => {
                let index = entries.iter().position(|(key, _)| key.name == *name);
                let index = match index {
                    Some(index) => index,
                    None => {
                        let known = known(&names[..depth]);
                        may_be_added(name, entries, known, &above)
                            .map_err(|error| error.at(here.clone()))?;
                        let position = Position { line: origin, ..here.position };
                        let null = Value::Scalar { text: "".into(), plain: true };
                        let key = Key { name: (*name).to_owned().into(), position };
                        entries.to_mut().push((key, Node { position, value: null }));
                        entries.len() - 1
                    }
                };
                &mut entries.to_mut()[index].1
            }
            Value::List(items) => {
                let is_named = |item: &Node| match item.get("name").map(|name| &name.value) {
                    Some(Value::Scalar { text, .. }) => text == name,
                    _ => false,
                };
                let index = items.iter().position(is_named).or_else(|| name.parse().ok());
                let count = items.len();
                index.and_then(|index| items.to_mut().get_mut(index)).ok_or_else(|| {
                    Diagnostic::error(format!("{above} has no entry {name}"))
                        .at(here)
                        .help(format!("it has {count}: give a number from 0, or the entry's name"))
                })?
            }
            Value::Scalar { .. } => {
                let message = format!("{above} is a single value and has no key {name}");
                return Err(Diagnostic::error(message).at(here).into());
            }
        };
        start += name.chars().count() + 1;
    }
    *node = new;
    Ok(())
}

/// The value of an argument, with positions in it.
fn parsed(argument: &Arc<Source>, path: &str, value: &str) -> Result<Node, Diagnostics> {
    let column = path.chars().count() + 1;
    // Blanks in the place of the key leave each position as it is.
    let text = Arc::new(Source::new(argument.name.as_str(), " ".repeat(column) + value));
    let document = yaml::parse(&text).map_err(|Diagnostics(mut found)| {
        for location in found.iter_mut().filter_map(|found| found.location.as_mut()) {
            location.source = argument.clone();
        }
        Diagnostics(found)
    })?;
    let position = Position { line: 1, column: column as u32 + 1, length: 1 };
    let null = Value::Scalar { text: "".into(), plain: true };
    Ok(document.root.unwrap_or(Node { position, value: null }))
}

/// Says of a node and all below that they come from another source.
fn placed(node: &mut Node, line: u32) {
    node.position.line = line;
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => items.to_mut().iter_mut().for_each(|item| placed(item, line)),
        Value::Map(entries) => {
            for (key, value) in entries.to_mut() {
                key.position.line = line;
                placed(value, line);
            }
        }
    }
}

fn may_be_added(
    name: &str,
    entries: &[(Key, Node)],
    known: Option<Vec<&'static str>>,
    above: &str,
) -> Result<(), Diagnostic> {
    let is_known = known.as_ref().map(|known| known.contains(&name));
    let there = entries.iter().map(|(key, _)| &*key.name);
    let others = known.unwrap_or_default();
    let candidates: Vec<_> =
        there.filter(|key| !others.contains(key)).chain(others.clone()).collect();
    let near = nearest(name, candidates.iter().copied(), 1);
    let help = match (is_known, near.first()) {
        (Some(true), _) | (None, None) => return Ok(()),
        (_, Some(near)) => format!("did you mean `{near}`?"),
        (_, None) => format!("keys: {}", candidates.join(", ")),
    };
    Err(Diagnostic::error(format!("{above} has no key {name}")).help(help))
}
