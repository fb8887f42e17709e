// SPDX-License-Identifier: Apache-2.0
//! Finding a configuration by its name in the source tree, or by path.

use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, nearest};

/// Where configurations are, below the source tree, in the order in which they are tried.
pub const CONFIG_DIRS: &[&str] = &[
    "tests/integration/defs/perf/disagg/test_configs/disagg/perf",
    "tests/integration/defs/perf/disagg/test_configs/wideep/perf",
    "tests/scripts/perf-sanity/disaggregated",
    "tests/scripts/perf-sanity/aggregated",
];

/// Finds a configuration. A text with a slash, or that ends in `.yaml` or `.yml`, is a path,
/// relative to `current_dir`; any other is a name.
///
/// # Errors
/// The paths that were tried and the nearest names.
pub fn config(
    name_or_path: &str,
    source_dir: Option<&Path>,
    current_dir: &Path,
) -> Result<PathBuf, Diagnostic> {
    if is_path(name_or_path) {
        return Ok(current_dir.join(name_or_path));
    }
    let Some(source_dir) = source_dir else {
        let message =
            format!("configuration {name_or_path}: the source tree to look in is not known");
        return Err(Diagnostic::error(message)
            .help("give --trtllm-dir, or the path of the configuration's file"));
    };
    let tried: Vec<_> = CONFIG_DIRS
        .iter()
        .map(|directory| source_dir.join(directory).join(format!("{name_or_path}.yaml")))
        .collect();
    if let Some(found) = tried.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let mut message = format!("configuration {name_or_path} is not found; tried:");
    for path in &tried {
        message.push_str(&format!("\n    {}", path.display()));
    }
    let known = known_names(source_dir);
    let near = nearest(name_or_path, known.iter().map(String::as_str), 3);
    let help = if near.is_empty() {
        format!("{} configurations are there; --trtllm-dir names the source tree", known.len())
    } else {
        format!("nearest names: {}", near.join(", "))
    };
    Err(Diagnostic::error(message).help(help))
}

/// Whether a text names a configuration by its path.
pub fn is_path(name_or_path: &str) -> bool {
    name_or_path.contains('/') || [".yaml", ".yml"].iter().any(|end| name_or_path.ends_with(end))
}

fn known_names(source_dir: &Path) -> Vec<String> {
    CONFIG_DIRS
        .iter()
        .filter_map(|directory| std::fs::read_dir(source_dir.join(directory)).ok())
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".yaml").map(str::to_owned))
        .collect()
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
        let found = config("gb200_r1_con64", Some(tree.path()), Path::new("/")).unwrap();
        assert_eq!(found, directory.join("gb200_r1_con64.yaml"));
        assert_eq!(source_dir_of(&found).unwrap(), tree.path());
        let error = config("gb200_r1_con46", Some(tree.path()), Path::new("/")).unwrap_err();
        assert_eq!(error.message.matches("/gb200_r1_con46.yaml").count(), CONFIG_DIRS.len());
        assert_eq!(error.help.as_deref(), Some("nearest names: gb200_r1_con64"));
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let found = config("sub/x.yaml", None, Path::new("/here")).unwrap();
        assert_eq!(found, Path::new("/here/sub/x.yaml"));
        assert!(config("x", None, Path::new("/here")).is_err());
    }
}
