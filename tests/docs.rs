// SPDX-License-Identifier: Apache-2.0
//! The documentation describes what the program does: its tables of settings come from the
//! program's own table (`UPDATE_DOCS=1` writes them), and links lead somewhere.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use disagg::input::settings::{Place, Setting, TABLE};
use disagg::input::{Context, site};

fn file(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path, text)
}

/// Compares a file with what it should be, or writes it with `UPDATE_DOCS=1`.
fn is_up_to_date(name: &str, expected: &str) {
    let (path, text) = file(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, expected).unwrap();
    } else {
        let hint =
            "is out of date: run `UPDATE_DOCS=1 cargo nextest run -p slurm-disagg --test docs`";
        assert!(text == expected, "{name} {hint}");
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// The places that a setting is taken from, as the table has them.
fn places(setting: &Setting) -> String {
    let place = |place: Place| match place {
        Place::Option(name) | Place::Variable(name) => code(name),
        Place::Plugstack(name) => format!("{} in plugstack.conf", code(&format!("{name}="))),
        Place::Site(_) => "site.yaml".to_owned(),
        Place::Config(key) => format!("the configuration's {}", code(key)),
    };
    setting.places().into_iter().map(place).collect::<Vec<_>>().join(", ")
}

fn settings_table() -> String {
    let mut table =
        String::from("| setting | taken from | meaning | default |\n|---|---|---|---|\n");
    for setting in TABLE {
        let key = setting.key.map(code).unwrap_or_default();
        let meaning = setting.meaning.replace('|', "\\|");
        let default = setting.default.unwrap_or_default();
        table += &format!("| {key} | {} | {meaning} | {default} |\n", places(setting));
    }
    table
}

#[test]
fn the_users_page_has_the_table_of_settings() {
    let (begin, end) = ("<!-- begin of the settings, from src/input/settings.rs -->\n", "<!-- end");
    let (_, text) = file("docs/user.md");
    let (before, rest) = text.split_once(begin).unwrap();
    let (_, after) = rest.split_once(end).unwrap();
    is_up_to_date("docs/user.md", &format!("{before}{begin}{}{end}{after}", settings_table()));
}

fn example_of_settings() -> String {
    let mut text = "\
# site.yaml: defaults of a site or a user for disaggregated tests.
#
# /etc/slurm-disagg/site.yaml holds the site's, ~/.config/slurm-disagg/site.yaml the user's; the user's values win. A
# file given with `--site FILE`, or with `site=FILE` in plugstack.conf, is read instead of both. Environment variables
# win over these files, and options win over both. An unknown key is an error, so copy only the lines that you need.
"
    .to_owned();
    for setting in TABLE {
        let Some(key) = setting.key else { continue };
        let others = setting.places().into_iter().filter(|place| !matches!(place, Place::Site(_)));
        let others: Vec<_> = others.map(|place| place.to_string()).collect();
        let mut comment = format!("{}.", setting.meaning);
        if !others.is_empty() {
            comment += &format!(" Also: {}.", others.join(", "));
        }
        if let Some(default) = setting.default {
            comment += &format!(" Default: {default}.");
        }
        text.push('\n');
        let mut line = String::from("#");
        for word in comment.split(' ') {
            if line.chars().count() + word.chars().count() > 118 {
                text += &format!("{line}\n");
                line = String::from("#");
            }
            line += &format!(" {word}");
        }
        text += &format!("{line}\n{key}: {}\n", setting.example);
    }
    text
}

#[test]
fn the_example_of_settings_has_every_key_and_is_read() {
    is_up_to_date("docs/site.yaml.example", &example_of_settings());
    let context = Context { env: &|_| None, current_dir: PathBuf::from("/") };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/site.yaml.example");
    let found = site::load(&context, Some(&path)).unwrap();
    for setting in TABLE.iter().filter(|setting| setting.key.is_some()) {
        assert!(found.has(setting), "{} is not read", setting.name);
    }
}

#[test]
fn the_users_page_names_every_option_of_the_plugin() {
    let (_, text) = file("docs/user.md");
    let (_, source) = file("plugins/spank/src/args.rs");
    let options: BTreeSet<&str> =
        source.split("c\"disagg-").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(options.len() >= 6, "{options:?}");
    for option in options {
        assert!(text.contains(&format!("--disagg-{option}")), "--disagg-{option}");
        let variable = format!("SLURM_DISAGG_{}", option.to_uppercase());
        assert!(text.contains(&variable), "{variable}");
    }
}

#[test]
fn links_between_the_admins_and_the_users_page_lead_to_files() {
    for page in ["docs/admin.md", "docs/user.md"] {
        let (path, text) = file(page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with('#')) {
            let name = target.split('#').next().unwrap();
            assert!(path.parent().unwrap().join(name).exists(), "{page} links to {target}");
        }
    }
}
