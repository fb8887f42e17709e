// SPDX-License-Identifier: Apache-2.0
//! The last files of a run: merged test results, summary, result.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::directory::{JUNIT, REPORT, RunDirectory, SUMMARY, name_in};
use super::junit::{self, Outcome, Part, Results};
use super::log::log;
use super::summary;
use crate::run::result::{self, Exit, RunResult, StepResult};
use crate::run::timeline::{describe, is_culprit};

/// Writes the last files. A file that cannot be written is logged; only the result is required.
///
/// # Errors
/// `result.json` cannot be written.
pub fn write(directory: &RunDirectory, result: &mut RunResult) -> io::Result<()> {
    directory.release_reserve();
    if let Err(error) = directory.collect() {
        log(&format!("the roles' files cannot be moved into the run's directory: {error}"));
    }
    match merge(directory, result) {
        Ok(junit) => result.junit = Some(junit),
        Err(error) => log(&format!("{JUNIT} cannot be written: {error}")),
    }
    let text = summary::markdown(result, &directory.file(REPORT));
    if let Err(error) = directory.write(SUMMARY, |file| file.write_all(text.as_bytes())) {
        log(&format!("{SUMMARY} cannot be written: {error}"));
    }
    // The merged results may have filled the disk again: the verdict matters more.
    save(directory, result).or_else(|_| {
        let _ = std::fs::remove_file(directory.file(JUNIT));
        result.junit = None;
        save(directory, result)
    })
}

/// Writes `result.json`.
///
/// # Errors
/// It cannot be written; the older one is kept.
pub fn save(directory: &RunDirectory, result: &RunResult) -> io::Result<()> {
    let json = result.to_json().map_err(io::Error::other)?;
    directory.write(result::FILE, |file| file.write_all(json.as_bytes()))
}

fn merge(directory: &RunDirectory, result: &RunResult) -> io::Result<result::JunitSummary> {
    let started = result.steps.iter().filter(|step| step.started.is_some());
    let with_path: Vec<_> = started
        .map(|step| (step, step.junit.as_deref().map(|path| junit_path(directory, path))))
        .collect();
    let parts: Vec<_> = with_path
        .iter()
        .map(|(step, path)| {
            let own = || Results::Own(outcome(result, step));
            let results = path.as_deref().map_or_else(own, Results::File);
            Part { role: &step.name, results, ended: describe(result, step) }
        })
        .collect();
    directory.write(JUNIT, |file| junit::merge(&parts, &result.verdict, BufWriter::new(file)))
}

/// What the end of a step without a file means. A server that was stopped has served until then.
fn outcome(result: &RunResult, step: &StepResult) -> Outcome {
    let is_good = step.failure.is_none() && step.exit.is_some_and(Exit::is_success);
    match step.stopped {
        _ if is_culprit(result, step) => Outcome::Failed,
        Some(_) if result.verdict.kind.is_passed() => Outcome::Passed,
        Some(_) => Outcome::Skipped,
        None if is_good => Outcome::Passed,
        None => Outcome::Failed,
    }
}

/// The run's own file, without the workspace's link.
fn junit_path(directory: &RunDirectory, path: &str) -> PathBuf {
    let name = Path::new(path);
    match name_in(directory.workspace(), path) {
        Some(name) => directory.file(name),
        None if name.is_relative() => directory.file(path),
        None => name.to_owned(),
    }
}
