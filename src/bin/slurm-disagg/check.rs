// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg check`.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;

use disagg::diagnostic::{Diagnostic, Diagnostics, Severity};
use disagg::input::request::Options;
use disagg::input::{Context, find, request};

use crate::args::{CheckArgs, Format};
use crate::{Outcome, print, report};

pub fn run(args: &CheckArgs, context: &Context) -> Outcome {
    let mut found = Vec::new();
    for file in &args.files {
        found.extend(check(file, context));
    }
    let count = |severity| found.iter().filter(|d: &&Diagnostic| d.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    match args.format {
        Format::Text => {
            report(&found);
            let files = args.files.len();
            print(&format!(
                "{files} file{} checked: {errors} error{}, {warnings} warning{}\n",
                s(files),
                s(errors),
                s(warnings)
            ))?;
        }
        Format::Json => {
            let entries: Vec<_> = found.iter().map(Entry::new).collect();
            print(&(serde_json::to_string_pretty(&entries)? + "\n"))?;
        }
    }
    Ok(if errors > 0 { ExitCode::from(2) } else { ExitCode::SUCCESS })
}

fn s(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Everything that is wrong with a file. What prevents a plan is an error; what is wrong with a
/// field that the plan does not use is a warning.
fn check(file: &Path, context: &Context) -> Vec<Diagnostic> {
    // The check does not depend on the source tree and the models.
    let options = Options {
        config: as_path(&file.to_string_lossy()),
        trtllm_dir: Some("/".into()),
        models_dir: Some("/".into()),
        ..Options::default()
    };
    let read = request::build(&options, context);
    let (request, mut found) = match read {
        Ok(read) => read,
        Err(Diagnostics(found)) => return found,
    };
    let errors = disagg::plan::plan(&request).err().unwrap_or_default().0;
    let unused = request.config.bad_fields.iter().filter(|bad| !errors.contains(bad));
    found.extend(unused.map(|bad| Diagnostic { severity: Severity::Warning, ..bad.clone() }));
    found.extend(errors);
    found.sort_by_key(|d| d.location.as_ref().map(|l| (l.position.line, l.position.column)));
    found
}

/// The text as a path, even where it could be a name.
fn as_path(file: &str) -> String {
    if find::is_path(file) { file.to_owned() } else { format!("./{file}") }
}

/// A diagnostic as programs read it.
#[derive(Serialize)]
struct Entry<'d> {
    severity: &'static str,
    file: Option<&'d str>,
    line: Option<u32>,
    column: Option<u32>,
    message: &'d str,
    details: &'d [String],
    help: Option<&'d str>,
}

impl<'d> Entry<'d> {
    fn new(diagnostic: &'d Diagnostic) -> Self {
        let location = diagnostic.location.as_ref();
        Self {
            severity: diagnostic.severity.word(),
            file: location.map(|l| l.source.name.as_str()),
            line: location.map(|l| l.position.line),
            column: location.map(|l| l.position.column),
            message: &diagnostic.message,
            details: &diagnostic.details,
            help: diagnostic.help.as_deref(),
        }
    }
}
