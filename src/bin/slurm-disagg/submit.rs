// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg submit`.

use std::path::Path;
use std::time::Duration;

use clap::Parser;

use disagg::diagnostic::{Diagnostic, Diagnostics};
use disagg::input::request::Options;
use disagg::input::test_list::{self, Pick, TestList};
use disagg::input::{Context, request};
use disagg::output::table;
use disagg::plan::Plan;
use disagg::plan::rules::CONFIG_FOLDERS;
use disagg::run::client::Client;
use disagg::run::follow::{self, Job};
use disagg::run::interrupt::Interrupts;
use disagg::run::outcome::Outcome as TestOutcome;
use disagg::run::polling::QUERY_TIMEOUT;
use disagg::run::preflight;
use disagg::run::submission::{self, Launcher, SubmitError};
use disagg::run::workspace::{self, WorkspaceError};

use crate::args::{Cli, LauncherChoice, SubmitArgs};
use crate::following::{self, Entry};
use crate::plan::launcher_line_zh;
use crate::sweep;
use crate::target::{self, Target};
use crate::{Failure, Outcome, print, print_error, report};

pub fn run(args: &SubmitArgs, context: &Context) -> Outcome {
    let plans = plans(args, context)?;
    plans.first().map_or(Ok(()), |plan| check_launch_options(args, plan))?;
    if launcher(args) == Launcher::Bash && plans.iter().any(|plan| plan.suite.is_none()) {
        let message = "--launcher=bash cannot run a recipe: its script sees no server's readiness";
        return Err(Diagnostic::error(message).help("leave --launcher=bash out").into());
    }
    let json = args.following.json;
    if args.test_only {
        let entries: Vec<_> = plans.iter().map(test_only).collect::<Result<_, _>>()?;
        return following::print_outcomes(&entries, None, &args.following);
    }
    let kept: Vec<_> = plans.iter().map(|plan| kept(args, plan)).collect::<Result<_, _>>()?;
    if !args.force {
        let new = plans.iter().zip(&kept).filter(|(_, kept)| kept.is_none());
        new.map(|(plan, _)| plan).try_for_each(refuse_busy_workspace)?;
    }
    let mut entries = Vec::new();
    for (plan, kept) in plans.iter().zip(&kept) {
        if let Some(Target { job, client }) = kept {
            entries.push(Entry::of_job(job, client));
            continue;
        }
        let mut entry = Entry::new(plan.title(), &plan.workspace);
        entry.files = write(plan, args.force)?;
        if args.dry_run {
            let prepared = submission::prepare(plan, launcher(args), &args.launch_options)
                .map_err(|error| Failure::Other(error.to_string()))?;
            if launcher(args) == Launcher::Native {
                entry.files.push(prepared.script.display().to_string());
            }
            entry.command = Some(prepared.command_line());
        }
        if !json {
            let mut text = planned(plan, context);
            if args.dry_run {
                entry.files.iter().for_each(|path| text += &format!("wrote {path}\n"));
                let command = entry.command.iter();
                command.for_each(|command| text += &format!("would run: {command}\n"));
            }
            print(&text)?;
        }
        entries.push(entry);
    }
    if args.dry_run {
        if !json {
            return Ok(std::process::ExitCode::SUCCESS);
        }
        let written = |entry: Entry| entry.ended(TestOutcome::Written, "nothing was submitted");
        return following::print_outcomes(
            &entries.into_iter().map(written).collect::<Vec<_>>(),
            None,
            &args.following,
        );
    }
    submit(args, &plans, kept, entries)
}

fn launcher(args: &SubmitArgs) -> Launcher {
    match args.launcher {
        LauncherChoice::Native => Launcher::Native,
        LauncherChoice::Bash => Launcher::Bash,
    }
}

/// Submits tests whose workspaces are written, and follows their jobs.
fn submit(
    args: &SubmitArgs,
    plans: &[Plan],
    kept: Vec<Option<Target>>,
    mut entries: Vec<Entry>,
) -> Outcome {
    // From here on, a signal must not leave a job that is not recorded.
    let interrupts = Interrupts::take_over()?;
    let launcher = launcher(args);
    let mut jobs = Vec::new();
    let mut client = Client::default();
    let mut signal = None;
    for ((plan, kept), entry) in plans.iter().zip(kept).zip(&mut entries) {
        if !jobs.is_empty() && signal.is_none() {
            signal = interrupts.wait(Duration::ZERO)?;
        }
        let how = |job_id| format!("follow it with `slurm-disagg watch {job_id}`");
        if let Some(Target { job, client: of_job }) = kept {
            client = of_job;
            (entry.outcome, entry.message) = (Some(TestOutcome::Submitted), how(job.job_id));
            jobs.push(job);
            continue;
        }
        if signal.is_some() {
            entry.message = "interrupted; submit the same again with --resume".to_owned();
            continue;
        }
        let options = &args.launch_options;
        let after = jobs.last().map(|job: &Job| job.job_id).filter(|_| args.serial);
        let log = |line: &str| print_error(format_args!("slurm-disagg: {line}"));
        let submitted = submission::submit(plan, launcher, options, after, &interrupts, log);
        let (outcome, message) = match submitted {
            Ok((submission, submitted)) => {
                if !submitted.output.is_empty() {
                    print_error(submitted.output.trim_end());
                }
                let job_id = submission.job_id;
                (entry.job_id, entry.cluster) = (Some(job_id), submission.cluster.clone());
                entry.launcher = Some(launcher);
                client.cluster = submission.cluster;
                jobs.push(Job {
                    job_id,
                    workspace: Some(plan.workspace.clone().into()),
                    launcher: Some(launcher),
                    title: match args.sweep.is_empty() {
                        true => plan.title().to_owned(),
                        false => format!("{} {}", plan.title(), plan.workspace),
                    },
                    roles: target::roles_of(plan),
                });
                (TestOutcome::Submitted, how(job_id))
            }
            Err(error) => {
                let outcome = match &error {
                    SubmitError::NotRecorded { job_id, .. } => {
                        entry.job_id = Some(*job_id);
                        TestOutcome::Unknown
                    }
                    SubmitError::Unknown { .. } => TestOutcome::Unknown,
                    _ => TestOutcome::Refused,
                };
                (outcome, error.to_string())
            }
        };
        (entry.outcome, entry.message) = (Some(outcome), message);
    }
    if !args.no_wait && !jobs.is_empty() && signal.is_none() {
        signal =
            following::follow_entries(&mut entries, jobs, &client, &interrupts, &args.following)?;
    }
    following::print_outcomes(&entries, signal, &args.following)
}

/// The plans to submit. One invalid entry of a test list is an error for all.
fn plans(args: &SubmitArgs, context: &Context) -> Result<Vec<Plan>, Failure> {
    let mut planned = Vec::new();
    let mut given = args.inputs.options();
    given.set.extend(args.serve_only.then(|| "serve_only=true".to_owned()));
    for options in sweep::variants(given, &args.sweep)? {
        let picks_one = options.test_number.is_some() || options.test_match.is_some();
        match &options.test_list {
            Some(list) if !picks_one => {
                planned.extend(plans_of_list(args, &options, list, context)?)
            }
            _ => planned.push(request::plan(&options, context)),
        }
    }
    let (mut plans, mut errors) = (Vec::new(), Diagnostics::default());
    for planned in planned {
        match planned {
            Ok((plan, warnings)) => {
                report(&warnings);
                if !args.no_preflight
                    && let Err(found) = preflight::check(&plan)
                {
                    found.0.into_iter().for_each(|error| errors.push_once(error));
                }
                plans.push(plan);
            }
            Err(found) => errors.0.extend(found.0),
        }
    }
    if errors.has_errors() {
        return Err(errors.into());
    }
    let changed = plans.iter().filter(|plan| plan.changed_config.is_some());
    let mut suites = changed.filter_map(|plan| plan.suite.as_ref());
    match suites.find(|suite| !suite.rules.is_in(CONFIG_FOLDERS)) {
        Some(suite) if !args.test_only => {
            let message = format!(
                "by the {} rules the test reads its configuration from the source tree, not what \
                 --set or --sweep makes of it",
                suite.rules
            );
            let help = "write the values into the configuration, or submit with --rules current if the \
                        tree's test knows DISAGG_CONFIG_FOLDER";
            Err(Diagnostic::error(message).help(help).into())
        }
        _ => Ok(plans),
    }
}

type Planned = Result<(Plan, Vec<Diagnostic>), Diagnostics>;

/// The plans of the selected tests of a list, each with a workspace of its own.
fn plans_of_list(
    args: &SubmitArgs,
    options: &Options,
    name: &str,
    context: &Context,
) -> Result<Vec<Planned>, Failure> {
    let list = request::list(name, options, context)?;
    let wanted = |entry: &test_list::Entry| {
        args.only.as_deref().is_none_or(|pattern| {
            let alone = TestList { name: String::new(), entries: vec![entry.clone()] };
            alone.pick(Pick::Matching(pattern)).is_ok()
        })
    };
    let entries: Vec<_> = list.entries.iter().filter(|entry| wanted(entry)).collect();
    if entries.is_empty() {
        let message = match &args.only {
            Some(pattern) => format!("no test in {name} matches {pattern}"),
            None => format!("test list {name} is empty"),
        };
        return Err(Diagnostic::error(message).into());
    }
    let stem = Path::new(name).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let base = options.workspace.clone().unwrap_or_else(|| format!("disagg_{stem}"));
    let mut known = Vec::new();
    let plan = |entry: &test_list::Entry| -> Planned {
        let id = entry.id().unwrap_or_default().replace('/', "_");
        if known.contains(&id) {
            let message = format!("duplicate test {id}: its runs would overwrite each other");
            return Err(Diagnostic::error(message).at(entry.location.clone()).into());
        }
        let workspace = Path::new(&base).join(&id).to_string_lossy().into_owned();
        known.push(id);
        let options = Options { workspace: Some(workspace), ..options.clone() };
        let (request, warnings) = request::build_entry(&options, context, entry)?;
        Ok((disagg::plan::plan(&request)?, warnings))
    };
    Ok(entries.into_iter().map(plan).collect())
}

/// Checks the options for `slurm-disagg launch` now instead of in the job.
fn check_launch_options(args: &SubmitArgs, plan: &Plan) -> Result<(), Failure> {
    let options = &args.launch_options;
    if args.launcher == LauncherChoice::Bash && !options.is_empty() {
        let help = "remove --launcher=bash, or the options after --";
        let message = format!("{} is an option of the native launcher", options[0]);
        return Err(Diagnostic::error(message).help(help).into());
    }
    let line = ["slurm-disagg", "launch"].into_iter();
    match Cli::try_parse_from(line.chain(submission::launch_arguments(plan, options))) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default();
            let what = first.trim_start_matches("error: ");
            let help = "see `slurm-disagg launch --help`";
            Err(Diagnostic::error(format!("after --: {what}")).help(help).into())
        }
    }
}

fn test_only(plan: &Plan) -> Result<Entry, Failure> {
    let entry = Entry::new(plan.title(), &plan.workspace);
    match submission::test_only(plan) {
        Ok(output) => Ok(entry.ended(TestOutcome::Accepted, output)),
        Err(SubmitError::Slurm(error)) => Ok(entry.ended(TestOutcome::Refused, error.to_string())),
        Err(error) => Err(Failure::Other(error.to_string())),
    }
}

/// The job of a test that is not submitted again.
fn kept(args: &SubmitArgs, plan: &Plan) -> Result<Option<Target>, Failure> {
    let workspace = Path::new(&plan.workspace);
    let is_kept = (args.resume || args.retry_failed) && workspace.join(submission::FILE).is_file();
    if !is_kept {
        return Ok(None);
    }
    let target = target::by_workspace(workspace)?;
    if args.retry_failed {
        let (views, error) = follow::look(vec![target.job.clone()], &target.client);
        if let Some(error) = error {
            return Err(Failure::Other(error.to_string()));
        }
        let outcome = views.into_iter().find_map(|view| view.outcome);
        if outcome.is_some_and(|(outcome, _)| outcome != TestOutcome::Passed) {
            return Ok(None);
        }
    }
    Ok(Some(target))
}

/// Two jobs in one workspace would overwrite each other's files.
fn refuse_busy_workspace(plan: &Plan) -> Result<(), Failure> {
    let Ok(Some(submission)) = submission::read(plan.workspace.as_ref()) else { return Ok(()) };
    let (job_id, client) = (submission.job_id, Client { cluster: submission.cluster });
    // While Slurm does not respond, sbatch fails anyway.
    let queued = client.queued(&[job_id], QUERY_TIMEOUT, None).unwrap_or_default();
    if queued.iter().all(|queued| queued.state.is_final()) {
        return Ok(());
    }
    let message = format!("job {job_id} of {} has not ended", plan.workspace);
    let help = format!(
        "follow it (slurm-disagg watch {job_id}), cancel it (slurm-disagg cancel {job_id}), pass another --workspace, --resume or --force"
    );
    Err(Diagnostic::error(message).help(help).into())
}

fn write(plan: &Plan, force: bool) -> Result<Vec<String>, Failure> {
    let written = workspace::write(plan, force).map_err(|error| match error {
        WorkspaceError::Occupied { .. } => Failure::from(Diagnostic::error(error.to_string())),
        error => Failure::Other(error.to_string()),
    })?;
    Ok(written.iter().map(|path| path.display().to_string()).collect())
}

/// What is printed before the submission.
fn planned(plan: &Plan, context: &Context) -> String {
    let saving = table::saving_line(plan).map(|line| line + "\n").unwrap_or_default();
    let chinese = launcher_line_zh(plan, context);
    let launcher = plan.suite.as_ref().map(table::launcher_line);
    let launcher = launcher.map(|line| format!("{line}\n")).unwrap_or_default();
    format!("{launcher}{}\n{saving}{chinese}", table::job_line(plan))
}
