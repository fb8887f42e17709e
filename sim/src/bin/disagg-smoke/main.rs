// SPDX-License-Identifier: Apache-2.0
//! Shows the whole Slurm path of a test without any Slurm: what the user of sbatch sees, what the
//! controller makes of the job, the steps, and what every rank gets, held against the plan.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod check;
mod play;
mod progress;
mod show;
mod stage;
mod words;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use args::{Args, Format};
use play::Played;
use stage::{Stage, Unusable};

fn main() -> ExitCode {
    slurm_sim::become_host_if_asked();
    let args = Args::parse();
    let stage = match Stage::new(&args) {
        Ok(stage) => stage,
        Err(Unusable::Input(found)) => {
            for diagnostic in &found.0 {
                eprintln!("{diagnostic}");
            }
            return ExitCode::from(2);
        }
        Err(Unusable::Io(path, error)) => {
            eprintln!("disagg-smoke: {path}: {error}");
            return ExitCode::from(2);
        }
    };
    let mut runs = Vec::new();
    for release in &args.release.0 {
        match play::play(&stage, &args, *release) {
            Ok(played) => runs.push(played),
            Err(error) => {
                eprintln!("disagg-smoke: Slurm {release}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    let ok = runs.iter().all(|run| run.findings.is_empty());
    let printed = match args.format {
        Format::Text => print(&show::text(&stage, &args, &runs)),
        Format::Json => json(&stage, ok, &runs).and_then(|text| print(&text)),
    };
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("disagg-smoke: {error}");
            ExitCode::FAILURE
        }
        _ if ok => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

/// The result for programs.
fn json(stage: &Stage, ok: bool, runs: &[Played]) -> io::Result<String> {
    #[derive(Serialize)]
    struct Report<'a> {
        schema: u32,
        ok: bool,
        config: &'a str,
        plugin: String,
        sbatch: &'a [String],
        runs: &'a [Played],
    }
    let report = Report {
        schema: 1,
        ok,
        config: &stage.plan.test.config,
        plugin: stage.plugin.to_string_lossy().into_owned(),
        sbatch: &stage.sbatch,
        runs,
    };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}
