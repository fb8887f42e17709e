// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg verify`: compares our launch scripts with those of the source tree's own launcher,
//! which python3 runs in a directory that is deleted afterwards. Its output is read, never run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use disagg::diagnostic::{Diagnostic, Diagnostics, Severity, Source};
use disagg::input::launcher::{LAUNCHERS, Launcher};
use disagg::input::request::{self, Options};
use disagg::input::{Context, config, prefix_script, source};
use disagg::output::derive::{self, GATE_FILE, Parts};
use disagg::output::verify::{self, Difference, Group};
use disagg::output::{quote, script};
use disagg::plan::test_id::node_id;
use disagg::plan::{Generation, Plan, TestId};
use disagg::run::subprocess::{self, SubprocessError};

use crate::args::{Format, VerifyArgs};
use crate::{Failure, Outcome, print};

/// Options that not all launchers have.
const OPTIONS_OF_NEWER: [&str; 2] = ["--split-group", "--cluster-name"];
/// How long a launcher may take for one test.
const TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Serialize)]
struct Report {
    tests: usize,
    equal: usize,
    /// How many of the equal ones are refused by both.
    refused: usize,
    groups: Vec<Group>,
}

pub fn run(args: &VerifyArgs, context: &Context) -> Outcome {
    if !args.inputs.options().set.is_empty() {
        let help = "verify a copy of the configuration in the tree";
        let message = "--set has no effect on the launcher of the tree";
        return Err(Diagnostic::error(message).help(help).into());
    }
    let options = args.inputs.options();
    let tree = request::tree(&options, context)?.ok_or_else(|| {
        Diagnostic::error("the source tree is not known").help("give --trtllm-dir")
    })?;
    let launcher = LAUNCHERS.map(|name| tree.join(name)).into_iter().find(|path| path.is_file());
    let launcher = launcher.ok_or_else(|| {
        let message = format!("{} has no launcher of performance tests", tree.display());
        Diagnostic::error(message).details(LAUNCHERS.map(str::to_owned)).help("give --trtllm-dir")
    })?;
    let mut tests = Vec::new();
    let (mut equal, mut refused) = (0, 0);
    let follows = Launcher::of_tree(&tree).map(|launcher| launcher.follows);
    for line in lines(&options, follows, context)? {
        let line = match line {
            Ok(line) => line,
            Err((file, why)) => {
                tests.push((file, vec![why]));
                continue;
            }
        };
        let scratch = tempfile::tempdir()?;
        let case =
            Case { args, context, tree: &tree, launcher: &launcher, scratch: scratch.path() };
        let found = case.differences(&options, &line)?;
        refused += usize::from(found.is_none());
        let found = found.unwrap_or_default();
        equal += usize::from(found.is_empty());
        tests.push((line, found));
    }
    let count = tests.len();
    let report = Report { tests: count, equal, refused, groups: verify::groups(tests) };
    print(&match args.format {
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
        Format::Text => {
            let s = if count == 1 { "" } else { "s" };
            let both = match refused {
                0 => String::new(),
                _ => format!(" ({refused} refused by both)"),
            };
            format!("{}{equal} of {count} test{s} equal{both}\n", verify::text(&report.groups))
        }
    })?;
    Ok(if equal == count { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A test as a line of a test list, or a file whose tests are not known, and why.
type Line = Result<String, (String, Difference)>;

/// The tests.
fn lines(
    options: &Options,
    follows: Option<Generation>,
    context: &Context,
) -> Result<Vec<Line>, Failure> {
    let of_list = |list: &str| -> Result<Vec<String>, Diagnostics> {
        let list = request::list(list, options, context)?;
        Ok(list.entries.into_iter().map(|entry| entry.text).collect())
    };
    let picks_one = options.test_number.is_some() || options.test_match.is_some();
    let folder = context.current_dir.join(&options.config);
    if folder.is_dir() && !options.config.is_empty() {
        let mut lines = Vec::new();
        for file in files_below(folder)? {
            let shown = file.to_string_lossy();
            let tests = match file.extension().and_then(|end| end.to_str()) {
                Some("yaml") => of_config(&file, &shown, follows),
                Some("txt" | "yml") => of_list(&shown),
                _ => continue,
            };
            match tests {
                Ok(tests) => lines.extend(tests.into_iter().map(Ok)),
                Err(errors) => {
                    let why = refused("slurm-disagg", &first_error(&errors), "(not asked)");
                    lines.push(Err((shown.into_owned(), why)));
                }
            }
        }
        if lines.is_empty() {
            let message = format!("no test is named below {}", options.config);
            let help = "give a folder of configurations (.yaml) or of test lists (.txt, .yml)";
            return Err(Diagnostic::error(message).help(help).into());
        }
        return Ok(lines);
    }
    match &options.test_list {
        Some(list) if !picks_one => Ok(of_list(list)?.into_iter().map(Ok).collect()),
        _ => {
            let (plan, _) = request::plan(options, context)?;
            Ok(plan.suite.iter().map(|suite| Ok(suite.test.node_id())).collect())
        }
    }
}

fn refused(whose: &str, ours: &str, theirs: &str) -> Difference {
    Difference {
        what: format!("{whose} refuses the test"),
        roles: Vec::new(),
        ours: Some(ours.to_owned()),
        theirs: Some(theirs.to_owned()),
    }
}

fn first_error(errors: &Diagnostics) -> String {
    let first = errors.0.iter().find(|found| found.severity == Severity::Error);
    first.map_or_else(String::new, |found| found.message.clone())
}

/// The files of a folder and of the folders in it, in order. Links to folders are not followed.
fn files_below(folder: PathBuf) -> std::io::Result<Vec<PathBuf>> {
    let (mut folders, mut files) = (vec![folder], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = if entry.file_type()?.is_dir() { &mut folders } else { &mut files };
            kind.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// The tests that a configuration allows.
fn of_config(
    file: &Path,
    shown: &str,
    follows: Option<Generation>,
) -> Result<Vec<String>, Diagnostics> {
    const PREFIX: &str = "disagg_upload";
    let (config, _) = config::read(file, shown, &[])?;
    let ids = match follows {
        Some(rules @ Generation::Classic) if !config.is_aggregated() => {
            vec![TestId::of_config(rules, PREFIX, false, &config.name).text]
        }
        _ => TestId::all_of(&config, PREFIX),
    };
    if ids.is_empty() {
        return Err(Diagnostic::error("the configuration allows no test").into());
    }
    let line = |id: String| node_id("perf/test_perf_sanity.py", "test_e2e", &id);
    Ok(ids.into_iter().map(line).collect())
}

/// One test, with the directory that it is tried in.
struct Case<'a> {
    args: &'a VerifyArgs,
    context: &'a Context<'a>,
    tree: &'a Path,
    launcher: &'a Path,
    scratch: &'a Path,
}

impl Case<'_> {
    fn file(&self, name: &str, text: &str) -> Result<String, Failure> {
        let path = self.scratch.join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// None: both refuse the test.
    fn differences(
        &self,
        options: &Options,
        line: &str,
    ) -> Result<Option<Vec<Difference>>, Failure> {
        let script = |name: &str| Some(self.tree.join(name).to_string_lossy().into_owned());
        let mut options = Options {
            config: String::new(),
            test_id: None,
            test_list: Some(self.file("tests.txt", &format!("{line}\n"))?),
            test_number: None,
            test_match: None,
            split_group: Some(0),
            trtllm_dir: Some(self.tree.to_string_lossy().into_owned()),
            run_script: options.run_script.clone().or(script("jenkins/scripts/slurm_run.sh")),
            install_script: options
                .install_script
                .clone()
                .or(script("jenkins/scripts/slurm_install.sh")),
            workspace: options.workspace.clone().or(Some(format!("{}/w", self.scratch.display()))),
            ..options.clone()
        };
        // Without a command of the user's, both get the one that we would submit.
        let mut planned = request::plan(&options, self.context).map(|(plan, _)| plan);
        if options.prefix_script.is_none() {
            let prefix = match &planned {
                Ok(plan) => {
                    script::prefix(plan).map_err(|error| Failure::Other(error.to_string()))?
                }
                Err(_) => "export pytestCommand=\"trtllm-llmapi-launch pytest\"\n".to_owned(),
            };
            options.prefix_script = Some(self.file("prefix.sh", &prefix)?);
            planned = request::plan(&options, self.context).map(|(plan, _)| plan);
        }
        let theirs = self.theirs(&options)?;
        Ok(Some(match (&planned, &theirs) {
            (Err(_), Err(_)) => return Ok(None),
            (Err(errors), Ok(_)) => {
                let why = self.general(&first_error(errors), None);
                vec![refused("slurm-disagg", &why, "planned")]
            }
            (Ok(plan), Err(why)) => {
                let why = self.general(why, Some(plan));
                vec![refused("the launcher", "planned", &why)]
            }
            (Ok(plan), Ok(theirs)) => {
                let ours = self.ours(plan, &options)?;
                let [ours, theirs] = [&ours, theirs].map(|text| {
                    prefix_script::exports(&Arc::new(Source::new("launch script", text.clone())))
                });
                let mut found = verify::differences(plan, &ours?, &theirs?);
                for difference in &mut found {
                    difference.what = self.general(&difference.what, Some(plan));
                    for value in [&mut difference.ours, &mut difference.theirs] {
                        *value = value.take().map(|value| self.general(&value, Some(plan)));
                    }
                }
                found
            }
        }))
    }

    /// A text without what is this test's alone, so that one cause has one text.
    fn general(&self, text: &str, plan: Option<&Plan>) -> String {
        let text = text.replace(&*self.scratch.to_string_lossy(), "SCRATCH");
        match plan {
            Some(plan) => {
                let file = format!("/{}.yaml", plan.config.name);
                text.replace(plan.title(), "ID").replace(&file, "/CONFIG.yaml")
            }
            None => text,
        }
    }

    fn srun_args(&self) -> Result<String, Failure> {
        match &self.args.srun_args_file {
            Some(path) => Ok(source::read(path, &path.to_string_lossy())?.text.clone()),
            None => Ok("--container-name=disagg_test_${SLURM_JOB_ID}\n".to_owned()),
        }
    }

    fn ours(&self, plan: &Plan, options: &Options) -> Result<String, Failure> {
        let path = options.prefix_script.as_deref().unwrap_or_default();
        let prefix = source::read(&self.context.current_dir.join(path), path)?;
        let srun_args = &self.srun_args()?;
        let parts = Parts { prefix: &prefix.text, srun_args, draft: "", gate: Some("") };
        Ok(derive::launch_script(plan, &parts))
    }

    /// The launcher's script, or what it says instead.
    fn theirs(&self, options: &Options) -> Result<Result<String, String>, Failure> {
        let written = self.scratch.join("launch.sh");
        let draft = self.file("draft.sh", "")?;
        self.file(GATE_FILE, "")?;
        let srun_args = self.file("srun.txt", &self.srun_args()?)?;
        let absolute = |path: &Option<String>| {
            let path = path.as_deref().unwrap_or_default();
            self.context.current_dir.join(path).to_string_lossy().into_owned()
        };
        let launch_sh = written.to_string_lossy().into_owned();
        let mut words = vec![
            ("--llm-src", self.tree.to_string_lossy().into_owned()),
            ("--test-list", options.test_list.clone().unwrap_or_default()),
            ("--draft-launch-sh", draft),
            ("--launch-sh", launch_sh),
            ("--run-sh", absolute(&options.run_script)),
            ("--install-sh", absolute(&options.install_script)),
            ("--script-prefix", absolute(&options.prefix_script)),
            ("--srun-args", srun_args),
            ("--split-group", "0".to_owned()),
            ("--stage-name", options.stage_name.clone().unwrap_or_default()),
            ("--cluster-name", options.cluster_name.clone().unwrap_or_default()),
        ];
        // Older launchers lack some.
        let text = source::read(self.launcher, &self.launcher.to_string_lossy())?;
        words
            .retain(|(option, _)| !OPTIONS_OF_NEWER.contains(option) || text.text.contains(option));
        let mut command = Command::new("python3");
        command.arg(self.launcher).current_dir(self.scratch).env("PYTHONDONTWRITEBYTECODE", "1");
        for (option, value) in words {
            command.arg(option).arg(value);
        }
        let output = match subprocess::run(&mut command, TIMEOUT, None) {
            Ok(output) => output,
            Err(SubprocessError::NotRun { error, .. }) => {
                let message = format!("cannot run python3, which the launcher needs: {error}");
                return Err(Diagnostic::error(message)
                    .help("install it, or add it to PATH")
                    .into());
            }
            Err(error) => return Err(Failure::Other(error.to_string())),
        };
        if output.stderr.contains("No module named 'yaml'") {
            let message = "python3 has no PyYAML, which the launcher needs";
            return Err(Diagnostic::error(message).help("pip install pyyaml").into());
        }
        if output.code != Some(0) {
            let last = output.stderr.trim().lines().next_back().unwrap_or("no message");
            return Ok(Err(last.to_owned()));
        }
        Ok(Ok(source::read(&written, &quote::word(&written.to_string_lossy()))?.text.clone()))
    }
}
