// SPDX-License-Identifier: Apache-2.0
//! The files around a step: those that are written for it, and those in the test's output directory
//! by which the test and its launcher work together.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::command::host_file;
use super::directory::{DirectoryError, RunDirectory};
use crate::atomic_file;
use crate::plan::{Instance, Plan, StepSpec, Template};

/// The files around a step.
#[derive(Debug, Default)]
pub struct StepFiles {
    /// Files of the run's directory that exist before it starts: their names, and what is in them.
    given: Vec<(String, String)>,
    log: Option<PathBuf>,
    done: Option<PathBuf>,
    ends_after: Option<PathBuf>,
}

impl StepFiles {
    /// Of an instance, whose step is this.
    #[must_use]
    pub fn new(
        plan: &Plan,
        instance: &Instance<'_>,
        spec: &StepSpec<'_>,
        nodes: &[String],
    ) -> Self {
        let below = |file: &str| Path::new(plan.output_dir()).join(file);
        let filled =
            |file: &Option<Template>| file.as_ref().map(|file| below(&file.literal_text()));
        let hosts = spec.plane().is_none().then(|| {
            let hosts = instance.host_of_each_task(nodes).unwrap_or_default();
            (host_file(instance), hosts.into_iter().map(|host| format!("{host}\n")).collect())
        });
        Self {
            given: spec.texts_of_files().chain(hosts).collect(),
            log: filled(&spec.test_log),
            done: filled(&spec.done),
            ends_after: instance.role.ends_after.as_deref().map(below),
        }
    }

    /// Before the step starts: writes its files, links its log, and removes the mark of an earlier
    /// start.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&self, directory: &RunDirectory, log: &Path) -> io::Result<()> {
        for (name, text) in &self.given {
            // A configuration may hold a secret.
            let path = directory.file(name);
            let write = |path: &Path| {
                path.parent().map_or(Ok(()), fs::create_dir_all)?;
                atomic_file::write(path, 0o600, |file| file.write_all(text.as_bytes()))
            };
            named(Some(&path), write)?;
        }
        let link = |place: &Path| {
            place.parent().map_or(Ok(()), fs::create_dir_all)?;
            remove(place)?;
            symlink(log, place)
        };
        named(self.log.as_deref(), link)?;
        named(self.done.as_deref(), remove)
    }

    /// After its srun was waited for: nobody writes into its log any more.
    ///
    /// # Errors
    /// The system's.
    pub fn end(&self) -> io::Result<()> {
        named(self.done.as_deref(), |done| File::create(done).map(drop))
    }

    /// Whether it may end before the benchmark does. Another node has written the file: a directory
    /// that is read anew shows it where a look-up of its name may be answered from a cache.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.ends_after.as_deref().is_some_and(|file| {
            let entries = file.parent().and_then(|directory| fs::read_dir(directory).ok());
            entries.is_some_and(|mut all| {
                all.any(|entry| {
                    entry.is_ok_and(|entry| Some(&*entry.file_name()) == file.file_name())
                })
            })
        })
    }
}

/// Creates the test's output directory, and removes what would end servers at once.
///
/// # Errors
/// [`DirectoryError`].
pub fn prepare(plan: &Plan) -> Result<(), DirectoryError> {
    let directory = Path::new(plan.output_dir());
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| DirectoryError { path, error }
    };
    fs::create_dir_all(directory).map_err(failed(directory))?;
    for file in plan.roles.values().filter_map(|role| role.ends_after.as_deref()) {
        let path = directory.join(file);
        remove(&path).map_err(failed(&path))?;
    }
    Ok(())
}

/// Does something with a path, if there is one; an error names it.
fn named(path: Option<&Path>, act: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let Some(path) = path else { return Ok(()) };
    act(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
