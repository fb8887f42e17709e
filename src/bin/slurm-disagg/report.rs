// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg report`.

use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::run::history;
use disagg::run::report::{self, Report};

use crate::args::{Format, ReportArgs};
use crate::{Outcome, print, write_page};

pub fn run(args: &ReportArgs) -> Outcome {
    let Some(workspace) = &args.workspace else {
        return history(args);
    };
    let shown = workspace.display();
    let report =
        Report::read(workspace).map_err(|error| Diagnostic::error(format!("{shown}: {error}")))?;
    if let Some(path) = &args.html {
        write_page(path, &report::page(&report))?;
    }
    match args.format {
        Format::Json => print(&report.result.to_json()?)?,
        Format::Text if args.html.is_some() => {}
        Format::Text => print(&report::text(&report, args.color.terminal(&std::io::stdout())))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn history(args: &ReportArgs) -> Outcome {
    let directory = args.history.clone().unwrap_or_default();
    let shown = directory.display();
    let runs = history::find(&directory)
        .map_err(|error| Diagnostic::error(format!("{shown} cannot be searched: {error}")))?;
    if let Some(path) = &args.html {
        write_page(path, &history::html(&runs))?;
    }
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&history::json(&runs))? + "\n"))?,
        Format::Text if args.html.is_some() => {}
        Format::Text => print(&history::text(&runs))?,
    }
    Ok(ExitCode::SUCCESS)
}
