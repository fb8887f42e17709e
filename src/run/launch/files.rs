// SPDX-License-Identifier: Apache-2.0
//! The files that come last: merged test results, summary, result.

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use super::directory::{JUNIT, REPORT, RunDirectory, SUMMARY, name_in};
use super::junit::{self, Part, Results};
use super::say::say;
use super::summary;
use crate::run::result::{self, Exit, RunResult, StepResult};

/// Writes the last files. What cannot be written is said; the result itself must be.
///
/// # Errors
/// `result.json` cannot be written.
pub fn write(directory: &RunDirectory, result: &mut RunResult) -> io::Result<()> {
    directory.release_reserve();
    if let Err(error) = directory.collect() {
        say(&format!("the roles' files cannot be moved to the run's: {error}"));
    }
    match merge(directory, result) {
        Ok(junit) => result.junit = Some(junit),
        Err(error) => say(&format!("{JUNIT} cannot be written: {error}")),
    }
    let text = summary::markdown(result, &directory.file(REPORT));
    if let Err(error) = directory.write(SUMMARY, text.as_bytes()) {
        say(&format!("{SUMMARY} cannot be written: {error}"));
    }
    // The merged results may have filled the disk again: the verdict matters more than they do.
    save(directory, result).or_else(|_| {
        let _ = std::fs::remove_file(directory.file(JUNIT));
        result.junit = None;
        save(directory, result)
    })
}

/// Writes `result.json`.
///
/// # Errors
/// It cannot be written; the older one is still there then.
pub fn save(directory: &RunDirectory, result: &RunResult) -> io::Result<()> {
    directory.write(result::FILE, result.to_json().map_err(io::Error::other)?.as_bytes())
}

fn merge(directory: &RunDirectory, result: &RunResult) -> io::Result<result::JunitSummary> {
    let started = result.steps.iter().filter(|step| step.started.is_some());
    let with_path: Vec<_> = started
        .map(|step| (step, step.junit.as_deref().map(|path| junit_path(directory, path))))
        .collect();
    let parts: Vec<_> = with_path
        .iter()
        .map(|(step, path)| {
            let passed = step.stopped.is_none() && step.exit.is_some_and(Exit::is_success);
            let results = path.as_deref().map_or(Results::Passed(passed), Results::File);
            Part { role: &step.name, results, ended: ended(step) }
        })
        .collect();
    let draft = directory.file(&format!(".{JUNIT}.new"));
    let merged = std::fs::File::create(&draft)
        .and_then(|file| junit::merge(&parts, &result.verdict, BufWriter::new(file)))
        .and_then(|summary| {
            std::fs::rename(&draft, directory.file(JUNIT))?;
            Ok(summary)
        });
    if merged.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    merged
}

/// Where the run's own file is, past the workspace's link.
fn junit_path(directory: &RunDirectory, path: &str) -> PathBuf {
    let name = Path::new(path);
    match name_in(directory.workspace(), path) {
        Some(name) => directory.file(name),
        None if name.is_relative() => directory.file(path),
        None => name.to_owned(),
    }
}

/// How a step ended, in words.
#[must_use]
pub fn ended(step: &StepResult) -> String {
    let stopped = if step.stopped.is_some() { "it was stopped and " } else { "it " };
    let how = match (&step.failure, step.exit) {
        (Some(rank), _) => {
            format!("had rank {} on {} end: {}", rank.rank, rank.node, rank.words)
        }
        (None, Some(exit)) => exit_words(exit),
        (None, None) => "left no status".to_owned(),
    };
    format!("{stopped}{how}")
}

/// `ended with status 42`, `was ended by signal 9`.
#[must_use]
pub fn exit_words(exit: Exit) -> String {
    match exit {
        Exit::Status(status) => format!("ended with status {status}"),
        Exit::Signal(signal) => format!("was ended by signal {signal}"),
    }
}
