// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg submit`.

use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::input::{Surroundings, request};
use disagg::output::table;
use disagg::run::workspace::{self, WorkspaceError};

use crate::args::SubmitArgs;
use crate::{Failure, Outcome, print, report};

pub fn run(args: &SubmitArgs, around: &Surroundings) -> Outcome {
    let (plan, warnings) = request::plan(&args.inputs.options(), around)?;
    report(&warnings);
    let written = workspace::write(&plan, args.force).map_err(|error| match error {
        WorkspaceError::Occupied { .. } => Failure::from(Diagnostic::error(error.to_string())),
        error => Failure::Other(error.to_string()),
    })?;
    let mut text = format!("{}\n{}\n", table::launcher_line(&plan), table::job_line(&plan));
    if is_chinese(around) {
        text.push_str(&format!("{}\n", table::launcher_line_zh(&plan)));
    }
    for path in &written {
        text.push_str(&format!("wrote {}\n", path.display()));
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether messages are to be in Chinese, as gettext decides it.
fn is_chinese(around: &Surroundings) -> bool {
    ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .find_map(|name| (around.env)(name).filter(|value| !value.is_empty()))
        .is_some_and(|locale| locale.starts_with("zh"))
}
