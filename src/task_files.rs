// SPDX-License-Identifier: Apache-2.0
//! The workspace and the files in it that a step's command needs, made by the tasks themselves where
//! no launch has made them. Every task of a step does so: the files are the same for all.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::atomic_file;
use crate::plan::{Plan, StepSpec};

/// A file or directory cannot be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} cannot be written: {error} (the step needs its workspace: on a file system that the nodes share, \
     mounted in its container, and yours to write to)",
    path.display()
)]
pub struct Unwritable {
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// Makes the workspace of an engine's plan, and the files of a step of it, which only their owner can
/// read: a configuration may hold a secret. `job_started`: when the step's job did, in seconds, as Slurm
/// says it.
///
/// # Errors
/// [`Unwritable`].
pub fn write(
    plan: &Plan,
    spec: &StepSpec<'_>,
    job_started: Option<&str>,
) -> Result<(), Unwritable> {
    if plan.engine.is_none() {
        return Ok(());
    }
    let started = job_started.and_then(|seconds| seconds.parse().ok());
    let workspace = Path::new(&plan.workspace);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Unwritable { path, error }
    };
    fs::create_dir_all(workspace).map_err(failed(workspace))?;
    for (name, text) in spec.texts_of_files() {
        let path = workspace.join(name);
        let folder = path.parent().unwrap_or(workspace);
        fs::create_dir_all(folder).map_err(failed(folder))?;
        write_file(&path, &text, started).map_err(failed(&path))?;
    }
    Ok(())
}

/// Writes a file unless it is there: another task may have read it already, and a file system may take
/// it away from a reader when it is replaced.
fn write_file(path: &Path, text: &str, job_started: Option<i64>) -> io::Result<()> {
    if is_there(path, text).unwrap_or(false) {
        return Ok(());
    }
    let written = fs::symlink_metadata(path).ok().map(|file| file.mtime());
    if let (Some(started), Some(written)) = (job_started, written)
        && written >= started
    {
        let message = "another job has written it since this one started, and one at a time can use a \
                       workspace: submit from another directory";
        return Err(io::Error::other(message));
    }
    atomic_file::write(path, 0o600, |file| file.write_all(text.as_bytes()))
}

/// Whether there is a file with that text that its owner alone can read, who is this user then.
fn is_there(path: &Path, text: &str) -> io::Result<bool> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() || found.mode() & 0o077 != 0 || found.len() != text.len() as u64 {
        return Ok(false);
    }
    let mut content = Vec::with_capacity(text.len());
    file.read_to_end(&mut content)?;
    Ok(content == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_private_file_with_that_text_stays_and_any_other_is_replaced_unless_it_is_another_job_s() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let inode = || fs::metadata(&path).unwrap().ino();
        write_file(&path, "text", Some(0)).unwrap();
        let first = inode();
        write_file(&path, "text", Some(0)).unwrap();
        assert_eq!(inode(), first);
        let error = write_file(&path, "TEXT", Some(0)).unwrap_err().to_string();
        assert!(error.contains("another job has written it"), "{error}");
        for (before, mode) in [("TEXT", 0o600), ("longer", 0o600), ("text", 0o644)] {
            fs::write(&path, before).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            write_file(&path, "text", Some(i64::MAX)).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "text");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        }
    }
}
