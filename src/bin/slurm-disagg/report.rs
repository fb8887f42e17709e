// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg report`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::run::client::Client;
use disagg::run::follow::{self, Job};
use disagg::run::report::{self, Report};
use disagg::run::{history, submission};

use crate::args::{Format, ReportArgs};
use crate::following::{self, Entry};
use crate::target::{self, Target};
use crate::{Outcome, print, print_error, write_page};

pub fn run(args: &ReportArgs) -> Outcome {
    let Some(workspace) = &args.workspace else {
        return history(args);
    };
    let tests = target::tests_of_list(workspace);
    if !tests.is_empty() {
        return list(args, workspace, &tests);
    }
    let shown = workspace.display();
    let report =
        Report::read(workspace).map_err(|error| Diagnostic::error(format!("{shown}: {error}")))?;
    if let Some(path) = &args.html {
        write_page(path, &report::page(&report))?;
    }
    match args.format {
        Format::Json => print(&report.result.to_json()?)?,
        Format::Text if args.html.is_some() => {}
        Format::Text => print(&report::text(&report, args.color.terminal(&io::stdout())))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// All tests of a list, as far as they are.
fn list(args: &ReportArgs, workspace: &Path, tests: &[PathBuf]) -> Outcome {
    let mut entries = Vec::new();
    let mut jobs: BTreeMap<Option<String>, Vec<Job>> = BTreeMap::new();
    for directory in tests {
        if directory.join(submission::FILE).is_file() {
            let Target { job, client } = target::by_workspace(directory)?;
            entries.push(Entry::of_job(&job, &client));
            jobs.entry(client.cluster).or_default().push(job);
        } else {
            let test = target::plan_of(directory).map(|plan| plan.title().to_owned());
            entries.push(Entry::new(&test.unwrap_or_default(), &directory.display().to_string()));
        }
    }
    for (cluster, jobs) in jobs {
        let (views, error) = follow::look(jobs, &Client { cluster });
        if let Some(error) = error {
            print_error(format_args!("slurm-disagg: the states of jobs are missing: {error}"));
        }
        for view in views {
            let is_its = |entry: &&mut Entry| entry.job_id == Some(view.job.job_id);
            entries.iter_mut().filter(is_its).for_each(|entry| entry.take(view.clone()));
        }
    }
    let tests = following::list(&entries);
    if let Some(path) = &args.html {
        write_page(path, &report::list::page(&workspace.display().to_string(), &tests))?;
    }
    match args.format {
        Format::Json => print(&following::json(&entries)?)?,
        Format::Text if args.html.is_some() => {}
        Format::Text => print(&report::list::text(&tests, args.color.terminal(&io::stdout())))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn history(args: &ReportArgs) -> Outcome {
    let directory = args.history.clone().unwrap_or_default();
    let shown = directory.display();
    let runs = history::find(&directory)
        .map_err(|error| Diagnostic::error(format!("{shown} cannot be searched: {error}")))?;
    if let Some(path) = &args.html {
        write_page(path, &history::html(&runs))?;
    }
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&history::json(&runs))? + "\n"))?,
        Format::Text if args.html.is_some() => {}
        Format::Text => print(&history::text(&runs))?,
    }
    Ok(ExitCode::SUCCESS)
}
