// SPDX-License-Identifier: Apache-2.0
//! Reads the profiles that are compiled in, with the reader that reads all YAML, and writes what is in
//! them as constants: a run of the program does not read them again. The plugins and the C library, which
//! many processes load that need no profile, have the texts alone.

#![allow(dead_code)] // the program uses the rest of these modules

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::{env, fs};

use self::diagnostic::{Position, Source};
use self::input::yaml::{self, Key, Node, Value};

#[path = "src/diagnostic.rs"]
mod diagnostic;

#[path = "src/input"]
mod input {
    pub mod yaml;
    mod yaml_error;
}

#[path = "src/plan"]
mod plan {
    pub mod secret;
}

fn main() {
    if let Err(error) = write_profiles() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn write_profiles() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=profiles");
    let with_contents = env::var_os("CARGO_FEATURE_CLI").is_some();
    let mut files: Vec<_> = fs::read_dir("profiles")?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_, Box<dyn Error>>>()?;
    // An editor may leave others there.
    files.retain(|file| file.extension().is_some_and(|kind| kind == "yaml"));
    files.sort();
    let mut code = Code::default();
    let mut all = String::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file)?;
        let shown = file.to_string_lossy().into_owned();
        let document = yaml::parse(&Arc::new(Source::new(shown, text.as_str())))?;
        let root = document.root.as_ref().ok_or("a profile is empty")?;
        if !document.warnings.0.is_empty() {
            return Err(document.warnings.into());
        }
        let contents = match with_contents {
            true => format!("Some(Node {})", code.node(root)),
            false => "None".to_owned(),
        };
        writeln!(all, "({name:?}, {text:?}, {contents}),")?;
    }
    let Code { statics, .. } = code;
    let files = format!("{statics}static FILES: &[(&str, &str, Option<Node>)] = &[\n{all}];\n");
    Ok(fs::write(Path::new(&env::var("OUT_DIR")?).join("profiles.rs"), files)?)
}

/// Nodes as Rust. What anchors repeat is there once.
#[derive(Default)]
struct Code {
    statics: String,
    /// The name of each list and mapping, by its code.
    names: HashMap<String, String>,
}

impl Code {
    fn node(&mut self, node: &Node) -> String {
        let value = match &node.value {
            Value::Scalar { text, plain } => {
                format!("Value::Scalar {{ text: Cow::Borrowed({text:?}), plain: {plain} }}")
            }
            Value::List(items) => {
                let items: Vec<_> =
                    items.iter().map(|item| format!("Node {}", self.node(item))).collect();
                format!("Value::List(Items::compiled(&{}))", self.named("Node", &items))
            }
            Value::Map(entries) => {
                let entry = |(Key { name, position }, node): &(Key, Node)| {
                    let at = at(position);
                    let key = format!("Key {{ name: Cow::Borrowed({name:?}), {at} }}");
                    format!("({key}, Node {})", self.node(node))
                };
                let entries: Vec<_> = entries.iter().map(entry).collect();
                format!("Value::Map(Items::compiled(&{}))", self.named("(Key, Node)", &entries))
            }
        };
        format!("{{ {}, value: {value} }}", at(&node.position))
    }

    fn named(&mut self, of: &str, items: &[String]) -> String {
        let code = items.join(", ");
        let next = format!("N{}", self.names.len());
        self.names
            .entry(code)
            .or_insert_with_key(|code| {
                self.statics += &format!("static {next}: [{of}; {}] = [{code}];\n", items.len());
                next
            })
            .clone()
    }
}

fn at(Position { line, column, length }: &Position) -> String {
    format!("position: Position {{ line: {line}, column: {column}, length: {length} }}")
}
