// SPDX-License-Identifier: Apache-2.0
//! Finding a configuration by its name in the source tree, or by path.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, nearest};
pub use crate::plan::rules::CONFIG_DIRS;
use crate::plan::{Generation, TestId, TestKind};

/// Where test lists are, below the source tree, in the order in which they are tried.
pub const LIST_DIRS: &[&str] =
    &["tests/integration/test_lists/test-db", "tests/integration/test_lists/qa"];

/// Finds a configuration: a path ([`is_path`]), relative to `current_dir`, or a name.
///
/// # Errors
/// The paths that were tried and the nearest names.
pub fn config(
    name_or_path: &str,
    rules: Option<Generation>,
    source_dir: Option<&Path>,
    current_dir: &Path,
) -> Result<PathBuf, Diagnostic> {
    if is_path(name_or_path) {
        return Ok(current_dir.join(name_or_path));
    }
    let rules = rules.unwrap_or(Generation::Classic);
    let directories = rules.config_dirs(TestKind::Disaggregated);
    let found = first_in(name_or_path, source_dir, directories, &[name_or_path])?;
    Ok(found.path)
}

/// A configuration that was found by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// Which of the names that were looked for it has.
    pub index: usize,
    /// Files of the same name in other directories.
    pub others: Vec<PathBuf>,
}

/// Finds the configuration that a test id names: the first of its readings that exists, in a folder
/// that comes before all others, and in the directories of that kind of test.
///
/// # Errors
/// The paths that were tried and the nearest names.
pub fn config_of_test(
    readings: &[TestId],
    folder: Option<&str>,
    source_dir: Option<&Path>,
) -> Result<Found, Diagnostic> {
    let names: Vec<_> = readings.iter().map(|id| id.config.as_str()).collect();
    let known = readings.first().map(|id| id.generation.config_dirs(id.kind));
    let directories: Vec<_> =
        folder.into_iter().chain(known.into_iter().flatten().copied()).collect();
    let what = readings.first().map_or("", |id| id.text.as_str());
    first_in(what, source_dir, &directories, &names)
}

fn first_in(
    what: &str,
    source_dir: Option<&Path>,
    directories: &[&str],
    names: &[&str],
) -> Result<Found, Diagnostic> {
    let Some(source_dir) = source_dir else {
        let message =
            format!("configuration {what} is a name, and there is no source tree to look in");
        return Err(Diagnostic::error(message)
            .help("give --trtllm-dir, or the path of the configuration's file"));
    };
    let path_of =
        |directory: &str, name: &str| source_dir.join(directory).join(format!("{name}.yaml"));
    for directory in directories {
        for (index, name) in names.iter().enumerate() {
            let path = path_of(directory, name);
            if path.is_file() {
                let others = directories.iter().map(|other| path_of(other, name));
                let others = others.filter(|other| *other != path && other.is_file()).collect();
                return Ok(Found { path, index, others });
            }
        }
    }
    let message = format!("configuration {what} is not found; tried:");
    let tried = directories
        .iter()
        .flat_map(|directory| names.iter().map(|name| path_of(directory, name)))
        .map(|path| path.display().to_string());
    let known = known_names(source_dir, directories);
    let mut near: Vec<&str> = Vec::new();
    for name in names {
        near.extend(nearest(name, known.iter().map(String::as_str), 3));
    }
    near.dedup();
    near.truncate(3);
    let help = if near.is_empty() {
        format!("{} configurations are there; --trtllm-dir names the source tree", known.len())
    } else {
        format!("nearest names: {}", near.join(", "))
    };
    Err(Diagnostic::error(message).details(tried).help(help))
}

/// Whether a text names a configuration by its path: it has a slash, or the ending of a file of
/// YAML, which JSON is too.
pub fn is_path(name_or_path: &str) -> bool {
    name_or_path.contains('/') || without_ending(name_or_path) != name_or_path
}

/// The name of a configuration's file without its ending.
pub fn without_ending(name: &str) -> &str {
    [".yaml", ".yml", ".json"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

fn known_names(source_dir: &Path, directories: &[&str]) -> Vec<String> {
    directories
        .iter()
        .filter_map(|directory| std::fs::read_dir(source_dir.join(directory)).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .collect()
}

/// Finds a test list: a path when it has a slash or is there in `current_dir`; else a name.
///
/// # Errors
/// The paths that were tried.
pub fn test_list(
    name_or_path: &str,
    source_dir: Option<&Path>,
    current_dir: &Path,
) -> Result<PathBuf, Diagnostic> {
    let path = current_dir.join(name_or_path);
    if name_or_path.contains('/') || path.is_file() {
        return Ok(path);
    }
    let mut tried = vec![path];
    let stem = [".yml", ".yaml", ".txt"].iter().find_map(|end| name_or_path.strip_suffix(end));
    for directory in LIST_DIRS {
        for end in [".yml", ".txt"] {
            let name = format!("{}{end}", stem.unwrap_or(name_or_path));
            tried.extend(source_dir.map(|source| source.join(directory).join(name)));
        }
    }
    if let Some(found) = tried.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let message = format!("test list {name_or_path} is not found; tried:");
    Err(Diagnostic::error(message)
        .details(tried.iter().map(|path| path.display().to_string()))
        .help("give its path, or --trtllm-dir for lists by name"))
}

/// The source tree that a configuration's path lies in, when it lies where such trees keep them.
pub fn source_dir_of(config: &Path) -> Option<PathBuf> {
    let parent = config.parent()?;
    CONFIG_DIRS.iter().find_map(|directory| {
        let mut root = parent;
        for part in Path::new(directory).components().rev() {
            if root.file_name()? != part.as_os_str() {
                return None;
            }
            root = root.parent()?;
        }
        Some(root.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_lists_what_was_tried_and_the_nearest() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join(CONFIG_DIRS[2]);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("gb200_r1_con64.yaml"), "").unwrap();
        let find = |name| config(name, None, Some(tree.path()), Path::new("/"));
        let found = find("gb200_r1_con64").unwrap();
        assert_eq!(found, directory.join("gb200_r1_con64.yaml"));
        assert_eq!(source_dir_of(&found).unwrap(), tree.path());
        let error = find("gb200_r1_con46").unwrap_err();
        assert_eq!(error.details.len(), CONFIG_DIRS.len());
        assert_eq!(error.help.as_deref(), Some("nearest names: gb200_r1_con64"));
    }

    #[test]
    fn a_test_id_is_looked_for_where_its_kind_of_test_has_its_configurations() {
        let tree = tempfile::tempdir().unwrap();
        let write = |directory: &str, name: &str| {
            let directory = tree.path().join(directory);
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(name), "").unwrap();
        };
        write(CONFIG_DIRS[0], "both.yaml");
        write(CONFIG_DIRS[2], "both.yaml");
        write(CONFIG_DIRS[3], "a-b.yaml");
        let find = |id: &str| {
            config_of_test(&TestId::readings(id, None).unwrap(), None, Some(tree.path())).unwrap()
        };
        let unified = find("disagg-e2e-both");
        assert_eq!(unified.path, tree.path().join(CONFIG_DIRS[2]).join("both.yaml"));
        assert_eq!(unified.others, [tree.path().join(CONFIG_DIRS[0]).join("both.yaml")]);
        assert!(find("disagg-both").path.starts_with(tree.path().join(CONFIG_DIRS[0])));
        assert_eq!(find("aggr-a-b-c").index, 1);
    }

    #[test]
    fn a_test_list_is_found_by_name_in_either_form() {
        let tree = tempfile::tempdir().unwrap();
        let directory = tree.path().join(LIST_DIRS[1]);
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("l0.txt"), "").unwrap();
        let find = |name| test_list(name, Some(tree.path()), Path::new("/here"));
        assert_eq!(find("l0").unwrap(), directory.join("l0.txt"));
        assert_eq!(find("./l0").unwrap(), Path::new("/here/./l0"));
        assert!(find("l1").unwrap_err().details.iter().any(|path| path.ends_with("l1.yml")));
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let find = |name| config(name, None, None, Path::new("/here"));
        assert_eq!(find("sub/x.yaml").unwrap(), Path::new("/here/sub/x.yaml"));
        assert!(find("x").is_err());
    }
}
