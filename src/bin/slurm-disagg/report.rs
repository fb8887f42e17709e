// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg report`.

use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::run::report::{self, Report};

use crate::args::{Format, ReportArgs};
use crate::{Failure, Outcome, print};

pub fn run(args: &ReportArgs) -> Outcome {
    let shown = args.workspace.display();
    let report = Report::read(&args.workspace)
        .map_err(|error| Diagnostic::error(format!("{shown}: {error}")))?;
    if let Some(path) = &args.html {
        let failed = |error| Failure::Other(format!("{}: {error}", path.display()));
        std::fs::write(path, report::page(&report)).map_err(failed)?;
    }
    match args.format {
        Format::Json => print(&report.result.to_json()?)?,
        Format::Text if args.html.is_some() => {}
        Format::Text => print(&report::text(&report, args.color.terminal(&std::io::stdout())))?,
    }
    Ok(ExitCode::SUCCESS)
}
