// SPDX-License-Identifier: Apache-2.0
//! The documentation describes what the program does: its tables of settings come from the
//! program's own table (`UPDATE_DOCS=1` writes them), and links lead somewhere.
#![allow(clippy::unwrap_used)]

mod recipes_of_docs;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use disagg::diagnostic::Source;
use disagg::input::request::{Options, plan_text};
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

#[test]
fn the_recipes_of_the_page_can_be_planned() {
    let recipes = recipes_of_docs::all();
    assert_eq!(recipes.len(), 5);
    for (engine, text) in recipes {
        let options = Options {
            config: "recipe.yaml".into(),
            workspace: Some("/w".into()),
            ..Options::default()
        };
        let context = Context { env: &|_| None, current_dir: "/".into() };
        let source = Arc::new(Source::new("recipe.yaml", text.clone()));
        let plan = plan_text(&options, &source, &context);
        let (plan, warnings) = plan.unwrap_or_else(|errors| panic!("{text}\n{errors}"));
        assert!(warnings.is_empty(), "{text}\n{warnings:?}");
        assert_eq!(plan.engine.unwrap().name, engine);
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
fn links_of_the_pages_lead_to_files() {
    for page in ["docs/admin.md", "docs/user.md", "README.md", "README.zh-CN.md"] {
        let (path, text) = file(page);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with('#')) {
            let name = target.split('#').next().unwrap();
            assert!(path.parent().unwrap().join(name).exists(), "{page} links to {target}");
        }
    }
}

/// The commands of a page and what it shows of their output: `    $ COMMAND` and the indented lines
/// below. A line `…` stands for any lines.
fn commands(page: &str) -> Vec<(String, Vec<String>)> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_open = false;
    for line in page.lines() {
        match (line.strip_prefix("    $ "), line.strip_prefix("    ")) {
            (Some(command), _) => found.push((command.to_owned(), Vec::new())),
            (None, Some(shown)) if is_open => found.last_mut().unwrap().1.push(shown.to_owned()),
            (None, None) if is_open && line.is_empty() => {
                found.last_mut().unwrap().1.push(String::new());
            }
            _ => is_open = false,
        }
        is_open |= line.starts_with("    $ ");
    }
    for (_, shown) in &mut found {
        let length = shown.iter().rposition(|line| !line.is_empty()).map_or(0, |at| at + 1);
        shown.truncate(length);
    }
    found
}

fn shows(expected: &[String], printed: &[String]) -> bool {
    match expected.split_first() {
        None => printed.is_empty(),
        Some((line, rest)) if line.trim() == "…" => {
            (0..=printed.len()).any(|skipped| shows(rest, &printed[skipped..]))
        }
        Some((line, rest)) => printed.split_first().is_some_and(|(first, others)| {
            first.trim_end() == line.trim_end() && shows(rest, others)
        }),
    }
}

#[test]
fn the_first_commands_of_the_readme_print_what_it_shows() {
    let (_, readme) = file("README.md");
    let commands = commands(&readme);
    assert!(commands.len() >= 5, "{commands:?}");
    // A clone after `make run`.
    let clone = tempfile::tempdir().unwrap();
    std::fs::create_dir(clone.path().join("build")).unwrap();
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, clone.path().join(name)).unwrap();
    };
    link(Path::new(env!("CARGO_BIN_EXE_slurm-disagg")), "build/slurm-disagg");
    link(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), "tests");
    let script: String =
        commands.iter().map(|(command, _)| format!("printf '\\1'\n{command}\n")).collect();
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("exec 2>&1\n{script}")])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .current_dir(clone.path())
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed = printed.replace(&*clone.path().to_string_lossy(), "/home/me/slurm-disagg");
    for ((command, expected), printed) in commands.iter().zip(printed.split('\u{1}').skip(1)) {
        let lines: Vec<_> = printed.lines().map(str::to_owned).collect();
        assert!(shows(expected, &lines), "$ {command}\n{printed}");
    }
}

/// What a translation has in common with its original: the level of each heading, the lines of code, the
/// code in tables' first cells, where links lead.
fn skeleton(page: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_fenced = false;
    for line in page.lines() {
        is_fenced ^= line.starts_with("```");
        if is_fenced || line.starts_with("    ") {
            found.push(line.to_owned());
        } else if line.starts_with('#') {
            found.push(line.split(' ').next().unwrap().to_owned());
        } else if let Some(cell) = line.strip_prefix("| `") {
            found.push(cell.split(" | ").next().unwrap().to_owned());
        }
        let links = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        found.extend(links.filter(|link| !link.starts_with("README")).map(str::to_owned));
    }
    found
}

#[test]
fn the_chinese_readme_keeps_step_with_the_english_one() {
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(|name| skeleton(&file(name).1));
    assert!(english.len() > 40, "{english:?}");
    assert_eq!(english, chinese);
}
