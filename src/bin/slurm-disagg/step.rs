// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg step`.

use std::io::ErrorKind;
use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::run::step::{self, StepError};

use crate::{Outcome, report};

pub fn run() -> Outcome {
    let Err(error) = step::exec();
    report(&[Diagnostic::error(error.to_string())]);
    // As env(1) and shells end when they cannot start a program.
    Ok(ExitCode::from(match error {
        StepError::Start { error, .. } if error.kind() == ErrorKind::NotFound => 127,
        StepError::Start { .. } => 126,
        _ => 2,
    }))
}
