// SPDX-License-Identifier: Apache-2.0
//! The directory of one run, `W/runs/JOB.RESTART`, which holds all its files. The names in the
//! workspace (`gen_server_0.log`, `results.xml`, …) are links into the latest run, so a requeued run
//! finds no file of an older run, and overwrites none.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::command::host_file;
use super::ready_file;
use crate::plan::{Plan, resolve};
use crate::run::result;

/// Where the runs are, in the workspace.
pub const RUNS: &str = "runs";
/// The messages of all sruns.
pub const SRUN_LOG: &str = "srun.log";
/// The output of unpacking the container image.
pub const UNPACK_LOG: &str = "unpack.log";
/// The output of the install script.
pub const INSTALL_LOG: &str = "install.log";
/// The merged JUnit file.
pub const JUNIT: &str = "results.xml";
/// The benchmark's table.
pub const REPORT: &str = "report.csv";
/// The summary for people.
pub const SUMMARY: &str = "summary.md";
/// The directory in which ready servers publish their addresses.
pub const ADDRESSES: &str = "addresses";

/// The files that are written last.
const LAST: [&str; 3] = [JUNIT, SUMMARY, result::FILE];

/// The bytes that are reserved for the last files, so that a full disk does not lose the verdict.
const RESERVE: usize = 256 << 10;
const RESERVE_FILE: &str = ".reserve";

/// The directory of a run.
#[derive(Debug)]
pub struct RunDirectory {
    workspace: PathBuf,
    path: PathBuf,
    names: BTreeSet<String>,
}

/// The run's directory cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}; nothing was started", path.display())]
pub struct DirectoryError {
    /// The file or directory.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub error: io::Error,
}

impl RunDirectory {
    /// Creates the directory of a run and links the workspace's names into it. `id` changes when the
    /// job has launched before: `7.0`, then `7.0-2`.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub fn create(plan: &Plan, id: &mut String) -> Result<Self, DirectoryError> {
        let workspace = PathBuf::from(&plan.workspace);
        let runs = workspace.join(RUNS);
        make(&runs)?;
        let first = id.clone();
        let mut number = 1;
        let path = loop {
            let path = runs.join(&*id);
            match fs::create_dir(&path) {
                Ok(()) => break path,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    number += 1;
                    *id = format!("{first}-{number}");
                }
                Err(error) => return Err(DirectoryError { path, error }),
            }
        };
        let directory = Self { names: names(plan), workspace, path };
        make(&directory.path.join(ADDRESSES))?;
        directory.reserve()?;
        directory.remove_stale_links().map_err(directory.failed(&directory.workspace))?;
        for name in &directory.names {
            directory.link(name).map_err(directory.failed(&directory.workspace.join(name)))?;
        }
        if plan.suite.is_some() {
            make(&directory.workspace.join("disagg_workspace"))?;
        }
        Ok(directory)
    }

    /// The path of one of the run's files.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The workspace.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Opens one of the run's logs to append to it.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn log(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).mode(0o644).open(self.file(name))
    }

    /// Writes one of the run's files, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written; an older one is kept.
    pub fn write<T>(
        &self,
        name: &str,
        content: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        let draft = self.file(&format!(".{name}.new"));
        let written =
            File::create(&draft).and_then(|mut file| content(&mut file)).and_then(|done| {
                fs::rename(&draft, self.file(name))?;
                Ok(done)
            });
        if written.is_err() {
            let _ = fs::remove_file(&draft);
        }
        written
    }

    /// Frees the reserved bytes, for the last files.
    pub fn release_reserve(&self) {
        let _ = fs::remove_file(self.file(RESERVE_FILE));
    }

    /// Moves the files that a role renamed onto a link into the run's directory, and removes the
    /// links to files that nobody wrote.
    ///
    /// # Errors
    /// A file cannot be moved.
    pub fn collect(&self) -> io::Result<()> {
        for name in &self.names {
            let place = self.workspace.join(name);
            if fs::symlink_metadata(&place).is_ok_and(|found| found.is_file()) {
                fs::rename(&place, self.file(name))?;
                self.link(name)?;
            }
            if !place.exists() && !LAST.contains(&name.as_str()) {
                fs::remove_file(&place)?;
            }
        }
        Ok(())
    }

    fn failed(&self, path: &Path) -> impl Fn(io::Error) -> DirectoryError + use<> {
        let path = path.to_owned();
        move |error| DirectoryError { path: path.clone(), error }
    }

    fn reserve(&self) -> Result<(), DirectoryError> {
        let path = self.file(RESERVE_FILE);
        fs::write(&path, vec![0; RESERVE]).map_err(self.failed(&path))
    }

    /// Links a name in the workspace to the run's file. A file that is there and is not a link, from
    /// a run without the launch, is kept beside this run.
    fn link(&self, name: &str) -> io::Result<()> {
        let place = self.workspace.join(name);
        if fs::symlink_metadata(&place).is_ok_and(|found| !found.is_symlink()) {
            let run = self.path.file_name().unwrap_or_default().to_string_lossy();
            let kept = self.workspace.join(RUNS).join(format!("before-{run}"));
            fs::create_dir_all(&kept)?;
            fs::rename(&place, kept.join(name))?;
        }
        let target = Path::new(RUNS).join(self.path.file_name().unwrap_or_default()).join(name);
        let draft = self.workspace.join(format!(".{name}.link"));
        let _ = fs::remove_file(&draft);
        symlink(target, &draft)?;
        fs::rename(&draft, &place)
    }

    /// Removes the links of the last run: this plan may have fewer files.
    fn remove_stale_links(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.workspace)? {
            let path = entry?.path();
            if fs::read_link(&path).is_ok_and(|target| target.starts_with(RUNS)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }
}

/// The name of a file in the workspace; none when the path is elsewhere or deeper.
#[must_use]
pub fn name_in<'p>(workspace: &Path, path: &'p str) -> Option<&'p str> {
    let name = Path::new(path).strip_prefix(workspace).ok()?.to_str()?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// The names of a run's files in the workspace.
fn names(plan: &Plan) -> BTreeSet<String> {
    let workspace = Path::new(&plan.workspace);
    let mut names: BTreeSet<String> =
        [SRUN_LOG, JUNIT, REPORT, SUMMARY, ADDRESSES, result::FILE].map(str::to_owned).into();
    names.extend(plan.engine.iter().map(|_| ready_file::FILE.to_owned()));
    names.extend(plan.container.is_some().then(|| UNPACK_LOG.to_owned()));
    names.extend(plan.install_script.is_some().then(|| INSTALL_LOG.to_owned()));
    for instance in plan.instances().chain(plan.checks()) {
        let spec = resolve(&instance, &[]);
        names.insert(spec.log_file().into_owned());
        names.extend(spec.plane().is_none().then(|| host_file(&instance)));
        names.extend(spec.files.iter().map(|(name, _)| name.literal_text().into_owned()));
        let junit = spec.junit_file();
        names.extend(junit.as_deref().and_then(|path| name_in(workspace, path)).map(str::to_owned));
    }
    names
}

fn make(path: &Path) -> Result<(), DirectoryError> {
    fs::create_dir_all(path).map_err(|error| DirectoryError { path: path.to_owned(), error })
}
