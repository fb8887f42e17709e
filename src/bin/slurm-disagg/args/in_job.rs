// SPDX-License-Identifier: Apache-2.0
//! What runs in a job.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments are the texts of --help"
)]

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use disagg::run::launch::limits::{Limits, seconds};

/// Run a plan in a job: start its steps, watch them, and end the job with a verdict.
///
/// It replaces the launch script's body. A server that ends before the benchmark does ends the job
/// at once; the benchmark's end stops the servers. Everything is in the workspace afterwards:
/// a log for each step, results.xml, result.json, summary.md.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sbatch --nodes=3 … --wrap 'exec slurm-disagg launch --workspace /lustre/me/run1'
  sbatch --disagg-config=config.yaml --wrap 'exec slurm-disagg launch'
  salloc --nodes=3 … slurm-disagg launch --workspace /lustre/me/run1 --limit ready=15m

With exec the launch gets the signal of sbatch --signal=B:USR1@SECONDS, and has the whole of Slurm's
KillWait to end the steps well.

Exit status: 0 the benchmark passed, 1 failure, 2 invalid input (nothing was started).")]
pub struct LaunchArgs {
    /// Workspace that `slurm-disagg submit` wrote. Default: that of the plan in
    /// SLURM_DISAGG_PLAN, which sbatch --disagg-config sets.
    #[arg(long, value_name = "DIR", conflicts_with = "plan")]
    pub workspace: Option<PathBuf>,

    /// The plan itself; its files are written into its workspace.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,

    /// Time between the starts of two steps, for container runtimes that need it.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "0")]
    pub stagger: Duration,

    /// Time between SIGTERM and SIGKILL when the run fails: a server died, a limit, a signal.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "2")]
    pub grace: Duration,

    /// Time between SIGTERM and SIGKILL when the benchmark has ended by itself.
    #[arg(long, value_name = "TIME", value_parser = seconds, default_value = "10")]
    pub grace_after_benchmark: Duration,

    /// Time limits of the phases, as start=2m,ready=15m,benchmark=1h; `none` for no limit. unpack:
    /// until the container image is unpacked on all nodes (default 30m). install: until the install
    /// script has ended (30m). start: until all steps run that wait for no other (10m). ready: from
    /// then until all servers are ready and the steps run that wait for them (60m). benchmark: from
    /// then to its end (none).
    #[arg(long, value_name = "PHASE=TIME,…")]
    pub limit: Option<Limits>,
}

/// Become the command of this task's role, in a step that `srun --disagg-role` starts.
///
/// The step's configuration files are written into the workspace, readable by you alone. Nothing stays
/// between srun and the command: signals and the exit status are the command's own.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, a job's script:
  #!/bin/bash
  #SBATCH --disagg-config=recipe.yaml
  srun --disagg-role=DECODE_0 slurm-disagg step &
  …

Before the command, words of your own: srun --disagg-role=DECODE_0 numactl -l slurm-disagg step

Exit status: that of the command; 2 no such step, 126 or 127 the command cannot be started.")]
pub struct StepArgs {}
