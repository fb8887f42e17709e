// SPDX-License-Identifier: Apache-2.0
//! Takes a configuration through the whole Slurm path without any Slurm: the simulated sbatch, the
//! controller's decision and one srun for each step, with the real spank_disagg.so. What every task
//! gets is compared with the plan.

mod check;
mod path;
mod planned;
mod stage;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use slurm_sim::Release;

/// Take a disaggregated test through the whole Slurm path, simulated.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Exit status: 0 everything is as planned, 1 something is not, 2 invalid input."
)]
struct Args {
    /// The test configuration
    config: PathBuf,

    /// Slurm release to simulate
    #[arg(long, default_value = "22.05")]
    release: Release,

    /// How servers share nodes: exclusive or packed
    #[arg(long, value_name = "HOW", default_value = "exclusive")]
    placement: String,

    /// The plugin; default: spank_disagg.so beside this program
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,

    /// A line of plugstack.conf to add after the plugin's
    #[arg(long, value_name = "LINE", default_value = "")]
    plugstack: String,
}

/// Most differences that are printed.
const SHOWN: usize = 20;

fn main() -> ExitCode {
    slurm_sim::become_host_if_asked();
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Whether everything is as planned.
fn run(args: &Args) -> Result<bool, Box<dyn Error>> {
    let stage = stage::Stage::new(args)?;
    let mut out = io::stdout().lock();
    let findings = path::run(&stage, args.release, &mut out)?;
    for finding in findings.iter().take(SHOWN) {
        writeln!(out, "{finding}")?;
    }
    if findings.len() > SHOWN {
        writeln!(out, "… {} more", findings.len() - SHOWN)?;
    }
    let verdict = match findings.len() {
        0 => "everything is as planned".to_owned(),
        count => format!("FAILED, differences from the plan: {count}"),
    };
    writeln!(out, "Slurm {}: {verdict}", args.release.version())?;
    Ok(findings.is_empty())
}
