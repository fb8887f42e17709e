// SPDX-License-Identifier: Apache-2.0
//! Writing the files of a submission into the workspace: whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::atomic_file::Draft;
use crate::input::source;
use crate::output::files;
use crate::plan::Plan;

/// Why the workspace is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// Another test's files are there.
    #[error("{workspace} holds {what}: pass another --workspace, or --force to overwrite it")]
    Occupied {
        /// The workspace.
        workspace: String,
        /// Which files.
        what: String,
    },
    /// A file cannot be written.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: String,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// The files cannot be made from the plan.
    #[error("cannot write the plan: {0}")]
    Files(#[from] files::FilesError),
}

/// Writes the files of a submission; returns their paths.
///
/// All of them are written beside their places first and then renamed, the plan last: after a
/// failure before that, the older files are still there, and a workspace with a plan is whole.
///
/// # Errors
/// [`WorkspaceError`]; without `force`, files of another test are not overwritten.
pub fn write(plan: &Plan, force: bool) -> Result<Vec<PathBuf>, WorkspaceError> {
    let workspace = Path::new(&plan.workspace);
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| WorkspaceError::Io { path, error }
    };
    fs::create_dir_all(workspace).map_err(failed(workspace))?;
    if !force && let Some(what) = foreign(plan, workspace) {
        return Err(WorkspaceError::Occupied { workspace: plan.workspace.clone(), what });
    }
    let files = files::all(plan)?;
    let mut drafts = Vec::new();
    for file in &files {
        let path = workspace.join(&*file.name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed(folder))?;
        }
        // A configuration's variables may hold a secret: nobody else reads these files.
        let mode = if file.executable { 0o700 } else { 0o600 };
        let draft = Draft::new(&path, mode, |out| {
            out.write_all(file.content.as_bytes())?;
            out.sync_all()
        });
        drafts.push((draft.map_err(failed(&path))?.0, path));
    }
    let stale = files::NAMES.iter().filter(|name| files.iter().all(|file| file.name != **name));
    for path in stale.map(|name| workspace.join(name)).filter(|path| path.exists()) {
        fs::remove_file(&path).map_err(failed(&path))?;
    }
    let mut written = Vec::new();
    for (draft, path) in drafts {
        draft.publish().map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

/// Which files are there, when they are not this test's.
fn foreign(plan: &Plan, workspace: &Path) -> Option<String> {
    let plan_file = workspace.join(files::PLAN);
    if plan_file.exists() {
        let there = source::read(&plan_file, files::PLAN).ok();
        let there = there.and_then(|source| Plan::from_json(&source.text).ok());
        return match there {
            Some(there) if there.title() == plan.title() => None,
            Some(there) => Some(format!("the files of another test, {}", there.title())),
            None => Some(format!("a {} that cannot be read", files::PLAN)),
        };
    }
    let other = files::NAMES.iter().find(|name| workspace.join(name).exists())?;
    Some(format!("a {other} that this command did not write"))
}
