// SPDX-License-Identifier: Apache-2.0
//! Following jobs, ending them, and showing what came of them.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments are the texts of --help"
)]

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::PathBuf;

use clap::{Args, ColorChoice, ValueEnum};

use disagg::input::values::percent;
use disagg::run::terminal::Terminal;

use super::Format;

/// How a job is followed.
#[derive(Debug, Args)]
pub struct FollowingArgs {
    /// What Ctrl-C and SIGTERM do: end this command and leave the job (detach), or cancel the job.
    /// Default: Ctrl-C on a terminal asks, everything else detaches.
    #[arg(long, value_enum, value_name = "WHAT")]
    pub on_interrupt: Option<InterruptChoice>,

    /// Print the outcome as JSON on standard output; progress stays on standard error.
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// Whether there are colours.
#[derive(Debug, Clone, Copy, Args)]
pub struct ColorArgs {
    /// Whether to use colours. auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    pub color: ColorChoice,
}

impl ColorArgs {
    /// What is written to: a terminal as it is now, or a file of some columns.
    pub fn terminal(&self, output: &(impl IsTerminal + AsFd)) -> Terminal {
        let is_set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = is_set("TERM").is_none_or(|term| term == "dumb");
        let has_colours = match self.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => output.is_terminal() && !is_dumb && is_set("NO_COLOR").is_none(),
        };
        let size = rustix::termios::tcgetwinsize(output).ok().filter(|size| size.ws_col > 0);
        let (columns, lines) =
            size.map_or((100, 24), |size| (size.ws_col.into(), size.ws_row.into()));
        Terminal { columns, lines, has_colours }
    }
}

/// What an interruption does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InterruptChoice {
    /// The command ends, the job goes on.
    Detach,
    /// The job is cancelled.
    Cancel,
}

/// Follow a submitted job to its end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg watch 4711
  slurm-disagg watch /lustre/me/run1 --on-interrupt=cancel
  slurm-disagg watch /lustre/me/all                all tests of a list

Exit status: 0 the test passed (all tests did), 1 failure, 2 no such job, 130 or 143 interrupted
(the job continues).")]
pub struct WatchArgs {
    /// Job ids, or the workspaces that the jobs were submitted from; the workspace of a list stands
    /// for all of its jobs.
    #[arg(required = true, value_name = "JOBID|WORKSPACE")]
    pub targets: Vec<String>,

    #[command(flatten)]
    pub following: FollowingArgs,
}

/// Cancel jobs. Jobs that have ended are left as they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg cancel 4711
  slurm-disagg cancel /lustre/me/run1")]
pub struct CancelArgs {
    /// Job ids, or the workspaces that the jobs were submitted from; the workspace of a list stands
    /// for all of its jobs.
    #[arg(required = true, value_name = "JOBID|WORKSPACE")]
    pub targets: Vec<String>,
}

/// Show the result of a run again, all tests of a list, or all runs below a directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg report /lustre/me/run1
  slurm-disagg report /lustre/me/run1 --html run1.html
  slurm-disagg report /lustre/me/run1 --format json | jq .verdict
  slurm-disagg report /lustre/me/run1/runs/4711.0         an earlier run of a requeued job
  slurm-disagg report /lustre/me/all                      all tests of a list, as they are now
  slurm-disagg report --history /lustre/me                all runs, newest first
  slurm-disagg report --history /lustre/me --html runs.html

Exit status: 0 success (whatever the result), 1 failure, 2 no result.")]
pub struct ReportArgs {
    /// The workspace of a test or of a list, or the directory of one run.
    #[arg(value_name = "WORKSPACE", required_unless_present = "history")]
    pub workspace: Option<PathBuf>,

    /// List all runs below a directory, newest first, with their figures.
    #[arg(long, value_name = "DIR", conflicts_with = "workspace")]
    pub history: Option<PathBuf>,

    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Write an HTML page with the figures, the timeline and the last lines of the logs, or, with
    /// --history, with a chart for each metric; it needs no other file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,

    #[command(flatten)]
    pub color: ColorArgs,
}

/// Show runs side by side: how their configurations and their figures differ.
///
/// The first run is what the others are compared with. With --, all runs before it are one side
/// and all runs behind it the other: their spread is shown as ±, half the range in percent of the
/// mean, and a difference within it is marked with ~.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg compare run1 run2
  slurm-disagg compare run1 run2 run3 --metric output_throughput
  slurm-disagg compare main1 main2 main3 -- mine1 mine2 mine3
  slurm-disagg compare --fail-below 5% --format markdown main mine > comment.md

Exit status: 0 success, 1 a regression (with --fail-below), 2 no result.")]
pub struct CompareArgs {
    /// Workspaces, directories of single runs, or result.json files.
    #[arg(required = true, value_name = "RUN")]
    pub runs: Vec<PathBuf>,

    /// The runs of the other side, after -- and all options.
    #[arg(last = true, value_name = "RUN")]
    pub others: Vec<PathBuf>,

    /// Only this metric, by its name in JSON; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub metric: Vec<String>,

    /// Exit with status 1 if a metric is worse than on the first side by more than this, if one is
    /// missing, or if a run has not passed.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub fail_below: Option<f64>,

    /// Output format.
    #[arg(long, value_enum, default_value_t = CompareFormat::Table)]
    pub format: CompareFormat,

    /// Write an HTML page with a chart for each metric; it needs no other file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// How a comparison is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompareFormat {
    /// For people.
    Table,
    /// For a pull request.
    Markdown,
    /// A line for each side of each metric.
    Csv,
    /// For programs.
    Json,
}
