// SPDX-License-Identifier: Apache-2.0
//! The documentation says what the program does: settings are listed with their meanings, the
//! example file is one that is read, and links lead somewhere.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use disagg::input::Surroundings;
use disagg::input::site::{self, KEYS};

fn file(name: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path, text)
}

#[test]
fn the_example_of_settings_is_read_and_has_every_key() {
    let (path, text) = file("docs/site.yaml.example");
    let around = Surroundings { env: &|_| None, current_dir: PathBuf::from("/") };
    let site = site::load(&around, Some(&path)).unwrap();
    assert!(!format!("{site:?}").contains("None"), "{site:?}");
    for (key, _) in KEYS {
        assert!(text.lines().any(|line| line.starts_with(&format!("{key}:"))), "{key}");
    }
}

#[test]
fn the_users_page_lists_every_setting_with_its_meaning_and_no_other() {
    let (_, text) = file("docs/user.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Settings\n")).unwrap();
    let listed: BTreeSet<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
    let known: Vec<String> =
        KEYS.iter().map(|(key, what)| format!("| `{key}` | {what} |")).collect();
    assert_eq!(listed, known.iter().map(String::as_str).collect());
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
