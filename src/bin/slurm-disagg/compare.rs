// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg compare`.

use std::path::PathBuf;
use std::process::ExitCode;

use disagg::diagnostic::{Diagnostic, Diagnostics};
use disagg::run::compare::{self, Comparison, Run, Side};
use disagg::run::figures::METRICS;

use crate::args::{CompareArgs, CompareFormat};
use crate::{Failure, Outcome, print, print_error, write_page};

pub fn run(args: &CompareArgs) -> Outcome {
    let sides: Vec<Vec<&PathBuf>> = match args.others.is_empty() {
        true => args.runs.iter().map(|run| vec![run]).collect(),
        false => vec![args.runs.iter().collect(), args.others.iter().collect()],
    };
    if sides.len() < 2 {
        let help = "several runs of one side: compare A1 A2 -- B1 B2";
        return Err(Diagnostic::error("compare needs at least two runs").help(help).into());
    }
    let comparison = Comparison::new(Side::all(read(&sides)?), &metrics(&args.metric)?);
    let found = args.fail_below.map(|allowed| comparison.regressions(allowed));
    if let Some(path) = &args.html {
        write_page(path, &compare::html(&comparison))?;
    }
    match args.format {
        CompareFormat::Table if args.html.is_some() => {}
        CompareFormat::Table => print(&compare::text(&comparison))?,
        CompareFormat::Markdown => print(&compare::markdown(&comparison))?,
        CompareFormat::Csv => print(&compare::csv(&comparison)?)?,
        CompareFormat::Json => print(&compare::json(&comparison, found.as_deref())?)?,
    }
    let found = found.unwrap_or_default();
    found.iter().for_each(|regression| print_error(format_args!("slurm-disagg: {regression}")));
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(sides: &[Vec<&PathBuf>]) -> Result<Vec<Vec<Run>>, Failure> {
    let mut errors = Diagnostics::default();
    let mut read = |path: &&PathBuf| {
        let shown = path.display();
        let run = Run::read(path);
        run.map_err(|error| errors.push(Diagnostic::error(format!("{shown}: {error}")))).ok()
    };
    let runs = sides.iter().map(|side| side.iter().filter_map(&mut read).collect()).collect();
    if errors.has_errors() { Err(errors.into()) } else { Ok(runs) }
}

fn metrics(names: &[String]) -> Result<Vec<&'static disagg::run::figures::Metric>, Failure> {
    let find = |name: &String| METRICS.iter().find(|metric| metric.name == *name);
    let unknown = names.iter().find(|name| find(name).is_none());
    match unknown {
        None => Ok(names.iter().filter_map(find).collect()),
        Some(name) => {
            let known: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
            let help = format!("use one of {}", known.join(", "));
            Err(Diagnostic::error(format!("there is no metric {name}")).help(help).into())
        }
    }
}
