// SPDX-License-Identifier: Apache-2.0
//! Following jobs from the command line, and printing their outcomes: shared by `submit` and
//! `watch`.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::process::ExitCode;

use rustix::process::Signal;
use serde::Serialize;

use disagg::diagnostic::Printable;
use disagg::run::client::Client;
use disagg::run::figures::Measurement;
use disagg::run::follow::{self, Job, OnInterrupt, Screen, View};
use disagg::run::interrupt::Interrupts;
use disagg::run::live::Live;
use disagg::run::outcome::Outcome as TestOutcome;
use disagg::run::progress::Lines;
use disagg::run::report::{self, Report, list};
use disagg::run::result::RunResult;
use disagg::run::submission::Launcher;
use disagg::run::tail;
use disagg::run::terminal::{Meaning, Terminal, paint};

use crate::args::{FollowingArgs, InterruptChoice};
use crate::{Failure, Outcome, print};

/// The version of what `--json` prints.
const SCHEMA: u32 = 1;

/// What is said of a test that a signal kept from being submitted.
const NOT_SUBMITTED: &str = "not submitted";

/// How many lines of a failed job's log are shown, where there is no verdict.
const TAIL: usize = 10;

/// A test and its outcome, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The test's id, or the job's name.
    pub test: String,
    /// The workspace.
    pub workspace: Option<String>,
    /// The files that were written.
    pub files: Vec<String>,
    /// What would submit the job: the command line of sbatch, of `--dry-run`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Slurm's id of the job.
    pub job_id: Option<u32>,
    /// The job's cluster, when sbatch chose one of several.
    pub cluster: Option<String>,
    /// What runs the steps.
    pub launcher: Option<Launcher>,
    /// The job's state, by Slurm's name.
    pub state: Option<String>,
    /// How the batch script ended, as `CODE:SIGNAL`.
    pub exit_code: Option<String>,
    /// The outcome.
    pub outcome: Option<TestOutcome>,
    /// The same as a sentence.
    pub message: String,
    /// The launch's result, where there is one.
    pub result: Option<RunResult>,
    /// What the benchmark measured.
    pub figures: Vec<Measurement>,
}

impl Entry {
    /// Of a test that has no job yet.
    pub fn new(test: &str, workspace: &str) -> Self {
        Self {
            test: test.to_owned(),
            workspace: Some(workspace.to_owned()),
            files: Vec::new(),
            command: None,
            job_id: None,
            cluster: None,
            launcher: None,
            state: None,
            exit_code: None,
            outcome: None,
            message: String::new(),
            result: None,
            figures: Vec::new(),
        }
    }

    /// Of a job.
    pub fn of_job(job: &Job, client: &Client) -> Self {
        let workspace = job.workspace.as_ref().map(|path| path.display().to_string());
        Self {
            workspace,
            job_id: Some(job.job_id),
            cluster: client.cluster.clone(),
            launcher: job.launcher,
            ..Self::new(&job.title, "")
        }
    }

    /// The same with its end.
    pub fn ended(mut self, outcome: TestOutcome, message: impl Into<String>) -> Self {
        self.outcome = Some(outcome);
        self.message = message.into();
        self
    }

    /// Takes what is known of its job now.
    pub fn take(&mut self, view: View) {
        self.state = view.state.map(|state| state.to_string());
        self.exit_code = view.record.map(|record| record.exit_code.to_string());
        self.figures = match &view.result {
            Some(result) => result.figures.clone(),
            None => view.figures,
        };
        self.result = view.result;
        if let Some((outcome, message)) = view.outcome {
            (self.outcome, self.message) = (Some(outcome), message);
        }
    }
}

/// Follows jobs to their end and prints their outcomes.
pub fn follow(
    jobs: Vec<(Entry, Job)>,
    client: &Client,
    interrupts: &Interrupts,
    args: &FollowingArgs,
) -> Outcome {
    let (mut entries, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().unzip();
    let signal = follow_entries(&mut entries, jobs, client, interrupts, args)?;
    print_outcomes(&entries, signal, args)
}

/// Follows jobs to their end, and updates their entries.
pub fn follow_entries(
    entries: &mut [Entry],
    jobs: Vec<Job>,
    client: &Client,
    interrupts: &Interrupts,
    args: &FollowingArgs,
) -> Result<Option<Signal>, Failure> {
    let terminal = io::stderr().is_terminal();
    let on_interrupt = match args.on_interrupt {
        Some(InterruptChoice::Detach) => OnInterrupt::Detach,
        Some(InterruptChoice::Cancel) => OnInterrupt::Cancel,
        None if terminal && io::stdin().is_terminal() => OnInterrupt::Prompt,
        None => OnInterrupt::Detach,
    };
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let mut screen: Box<dyn Screen> = match terminal && !is_dumb {
        true => {
            let color = args.color;
            Box::new(Live::new(io::stderr(), move || color.terminal(&io::stderr())))
        }
        false => Box::new(Lines::new(io::stderr())),
    };
    let followed = follow::follow(jobs, client, interrupts, on_interrupt, screen.as_mut());
    let (views, signal) = followed.map_err(|error| Failure::Other(error.to_string()))?;
    for view in views {
        let job_id = Some(view.job.job_id);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.job_id == job_id) {
            entry.take(view);
        }
    }
    Ok(signal)
}

/// Prints the outcomes of all tests, and gives the exit status.
pub fn print_outcomes(entries: &[Entry], signal: Option<Signal>, args: &FollowingArgs) -> Outcome {
    if args.json {
        print(&json(entries)?)?;
    } else {
        let terminal = args.color.terminal(&io::stdout());
        for entry in entries {
            print(&text(entry, terminal))?;
        }
        if entries.len() > 1 {
            print(&format!("\n{}", list::text(&list(entries), terminal)))?;
        }
    }
    let good = |entry: &Entry| entry.outcome.is_some_and(TestOutcome::is_good);
    Ok(match signal {
        Some(signal) => ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)),
        None if entries.iter().all(good) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

/// The outcomes for programs.
pub fn json(entries: &[Entry]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct All<'e> {
        schema: u32,
        jobs: &'e [Entry],
    }
    Ok(serde_json::to_string_pretty(&All { schema: SCHEMA, jobs: entries })? + "\n")
}

fn text(entry: &Entry, terminal: Terminal) -> String {
    let name = entry.outcome.map_or(NOT_SUBMITTED, TestOutcome::name).to_uppercase();
    let meaning = entry.outcome.and_then(|outcome| match outcome {
        TestOutcome::Passed => Some(Meaning::Good),
        TestOutcome::Failed | TestOutcome::Refused => Some(Meaning::Bad),
        _ => None,
    });
    let name = paint(&name, meaning, terminal.has_colours);
    let job = entry.job_id.map(|id| format!(", job {id}")).unwrap_or_default();
    let over = [TestOutcome::Passed, TestOutcome::Failed, TestOutcome::Unknown];
    let over = entry.outcome.is_some_and(|outcome| over.contains(&outcome));
    let workspace = entry.workspace.as_deref();
    let report = workspace.filter(|_| over && entry.result.is_some());
    if let Some(report) = report.and_then(|path| Report::read(path.as_ref()).ok()) {
        return format!(
            "{name}: {}{job}: {}\n{}",
            entry.test,
            entry.message,
            report::body(&report, terminal.columns)
        );
    }
    let mut text = format!("{name}: {}{job}: {}\n", entry.test, entry.message.trim_end());
    if let (Some(workspace), Some(job_id), true) = (workspace, entry.job_id, over) {
        let (workspace, log) = (Path::new(workspace), format!("slurm_{job_id}.log"));
        text.push_str(&report::figures(&entry.figures));
        let shown = workspace.display();
        text.push_str(&format!("  logs: {shown}/{log} and {shown}/*.log\n"));
        if entry.outcome != Some(TestOutcome::Passed) {
            // The generated script traces its commands (`set -x`): these lines are no error.
            let lines = tail::lines_below(workspace, &log, 20 * TAIL).unwrap_or_default();
            let untraced: Vec<_> = lines.iter().filter(|line| !line.starts_with('+')).collect();
            for line in &untraced[untraced.len().saturating_sub(TAIL)..] {
                text.push_str(&format!("  | {}\n", Printable(line)));
            }
        }
    }
    text
}

/// The tests of a list at a glance. Those of a sweep have one id; their workspaces differ.
pub fn list(entries: &[Entry]) -> Vec<list::Test<'_>> {
    let same_id = |entry: &Entry| entries.iter().filter(|other| other.test == entry.test).count();
    let mut tests = Vec::new();
    for entry in entries {
        let workspace = entry.workspace.as_deref().filter(|_| same_id(entry) > 1);
        tests.push(list::Test {
            name: workspace.and_then(|path| path.rsplit('/').next()).unwrap_or(&entry.test),
            job_id: entry.job_id,
            state: entry.state.as_deref(),
            outcome: entry.outcome,
            figures: &entry.figures,
        });
    }
    tests
}
