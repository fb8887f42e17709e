// SPDX-License-Identifier: Apache-2.0
//! The command. Each subcommand is one file; this one only dispatches.
//!
//! Exit status: 0 success (or: the test passed), 1 failure, 2 invalid input or usage. Of `diff` and
//! `verify`, as of diff(1): 0 nothing differs, 1 something does, 2 failure.

mod args;
mod cancel;
mod check;
mod compare;
mod derive;
mod diff;
mod explain;
mod following;
mod generate;
mod launch;
mod plan;
mod profiles;
mod report;
mod roff;
mod step;
mod submit;
mod sweep;
mod target;
mod verify;
mod watch;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use disagg::diagnostic::{Diagnostic, Diagnostics, Printable};
use disagg::input::Context;
use disagg::run::launch::pdeathsig;

fn main() -> ExitCode {
    if let Err(error) = pdeathsig::become_child_if_asked() {
        print_error(format_args!("slurm-disagg: {error}"));
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    let result =
        Context::of_process().map_err(Failure::from).and_then(|context| match &cli.command {
            Command::Plan(args) => plan::run(args, &context),
            Command::Check(args) => check::run(args, &context),
            Command::Explain(args) => explain::run(args, &context),
            Command::Submit(args) => submit::run(args, &context),
            Command::Derive(args) => derive::run(args, &context),
            Command::Profiles(args) => profiles::run(args, &context),
            Command::Verify(args) => verify::run(args, &context),
            Command::Diff(args) => diff::run(args, &context),
            Command::Launch(args) => launch::run(args, &context),
            Command::Step(_) => step::run(),
            Command::Watch(args) => watch::run(args),
            Command::Cancel(args) => cancel::run(args),
            Command::Report(args) => report::run(args),
            Command::Compare(args) => compare::run(args),
            Command::Completions { shell } => generate::completions(*shell),
            Command::Man { directory } => generate::man_pages(directory),
        });
    let failed = match &cli.command {
        Command::Diff(_) | Command::Verify(_) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    match result {
        Ok(code) => code,
        Err(Failure::Input(found)) => {
            report(&found.0);
            ExitCode::from(2)
        }
        // The reader closed the output: `slurm-disagg plan … | head`.
        Err(Failure::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(Failure::Io(error)) => {
            print_error(format_args!("slurm-disagg: {}", Printable(error)));
            failed
        }
        Err(Failure::Other(message)) => {
            let lines: Vec<_> = message.lines().map(|line| Printable(line).to_string()).collect();
            print_error(format_args!("slurm-disagg: {}", lines.join("\n")));
            failed
        }
    }
}

/// Why a subcommand ended early.
enum Failure {
    /// The input is wrong; nothing was written.
    Input(Diagnostics),
    /// Reading or writing failed.
    Io(io::Error),
    /// Anything else, in a sentence.
    Other(String),
}

impl From<Diagnostics> for Failure {
    fn from(found: Diagnostics) -> Self {
        Self::Input(found)
    }
}

impl From<Diagnostic> for Failure {
    fn from(found: Diagnostic) -> Self {
        Self::Input(found.into())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Other(error.to_string())
    }
}

type Outcome = Result<ExitCode, Failure>;

/// Prints diagnostics to standard error, as Slurm does.
fn report(found: &[Diagnostic]) {
    for diagnostic in found {
        print_error(diagnostic);
    }
}

/// Prints a line to standard error, where somebody still reads it.
fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes an HTML page.
fn write_page(path: &Path, page: &str) -> Result<(), Failure> {
    std::fs::write(path, page)
        .map_err(|error| Failure::Other(format!("{}: {error}", path.display())))
}

/// Prints to standard output; a closed pipe is an error that ends the command quietly.
fn print(text: &str) -> Result<(), Failure> {
    Ok(io::stdout().write_all(text.as_bytes())?)
}
