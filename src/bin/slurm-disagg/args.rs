// SPDX-License-Identifier: Apache-2.0
//! The command line.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments are the texts of --help"
)]

mod in_job;
mod runs;

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use disagg::input::settings::{CLUSTER_NAME, Options, RULES, SITE, STAGE_NAME, Setting, TABLE};
use disagg::input::values::{Choice, Shape};
use disagg::plan::Generation;

pub use in_job::*;
pub use runs::*;

/// Plan, check and submit disaggregated LLM-serving tests on Slurm.
///
/// From a test configuration, slurm-disagg computes how many nodes the job needs, what each step
/// runs and where, and the scripts to submit.
#[derive(Debug, Parser)]
#[command(name = "slurm-disagg", version, after_help = EXIT)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT: &str = "\
Exit status: 0 success, 1 failure, 2 invalid input or usage (nothing was written).";

#[derive(Debug, Subcommand)]
pub enum Command {
    Plan(PlanArgs),
    Check(CheckArgs),
    Explain(ExplainArgs),
    Submit(SubmitArgs),
    Derive(DeriveArgs),
    Profiles(ProfilesArgs),
    Verify(VerifyArgs),
    Diff(DiffArgs),
    Launch(LaunchArgs),
    Step(StepArgs),
    Watch(WatchArgs),
    Cancel(CancelArgs),
    Report(ReportArgs),
    Compare(CompareArgs),
    /// Print the completions of a shell.
    ///
    /// For bash: source <(slurm-disagg completions bash). `make install` installs them.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages into man1, man5 and man8 of a directory.
    Man {
        /// Directory; it is created when it is missing.
        directory: PathBuf,
    },
}

/// What a plan is made from.
#[derive(Debug, Args)]
pub struct Inputs {
    /// Configuration, by name (looked up in the source tree) or path.
    #[arg(
        value_name = "CONFIG",
        required_unless_present_any = ["config_file", "test_id", "test_list"]
    )]
    config: Option<String>,

    /// The same as an option.
    #[arg(long, alias = "config", value_name = "CONFIG", conflicts_with = "config")]
    config_file: Option<String>,

    /// Test id, which names the configuration: disagg[_upload]-{e2e,gen_only}-CONFIG,
    /// aggr[_upload]-{ctx_only,gen_only_no_context}-CONFIG, aggr[_upload]-CONFIG-SERVER or
    /// disagg[_upload]-CONFIG.
    #[arg(long, value_name = "ID", conflicts_with = "test_list")]
    test_id: Option<String>,

    /// Test list that names the test, by name (looked up in the source tree) or path.
    #[arg(long, alias = "testlist", value_name = "LIST")]
    test_list: Option<String>,

    /// Number of the test in the list, counted from 1.
    #[arg(long, value_name = "N", requires = "test_list", allow_negative_numbers = true)]
    test_number: Option<i64>,

    /// Test of the list: its id, a part of it, or a pattern with *.
    #[arg(long, value_name = "PATTERN", requires = "test_list", conflicts_with = "test_number")]
    test_match: Option<String>,

    #[command(flatten)]
    changes: ChangeArgs,

    #[command(flatten)]
    settings: SettingArgs,
}

/// What is changed in the configuration.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// Use this value in place of the configuration's, as --set hardware.num_gen_servers=2; the value
    /// is YAML. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Inputs {
    /// As the core takes them.
    pub fn options(&self) -> Options {
        Options {
            config: self.config.clone().or(self.config_file.clone()).unwrap_or_default(),
            test_id: self.test_id.clone(),
            test_list: self.test_list.clone(),
            test_number: self.test_number,
            test_match: self.test_match.clone(),
            set: self.changes.set.clone(),
            ..self.settings.0.clone()
        }
    }
}

/// The options that the table of settings describes.
#[derive(Debug, Default)]
pub struct SettingArgs(pub Options);

const SETTINGS: &str = "Settings (the option wins, then the places in brackets from left to right)";

impl Args for SettingArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        TABLE.iter().filter_map(setting_arg).fold(command, clap::Command::arg)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

fn setting_arg(setting: &Setting) -> Option<Arg> {
    let arg = Arg::new(setting.name)
        .long(setting.option?.trim_start_matches('-'))
        .value_name(setting.value_name)
        .help(setting.help())
        .help_heading(SETTINGS);
    let values = (setting.values)();
    let arg = if values.is_empty() { arg } else { arg.value_parser(values) };
    Some(match setting.shape {
        Shape::One => arg,
        Shape::List => arg.action(ArgAction::Append).allow_hyphen_values(true),
        Shape::Flag => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .hide_possible_values(true),
    })
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut all = Self::default();
        all.update_from_arg_matches(matches)?;
        Ok(all)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in TABLE.iter().filter(|setting| setting.option.is_some()) {
            for text in matches.get_many::<String>(setting.name).into_iter().flatten() {
                self.0.set(setting, text).map_err(|what| {
                    clap::Error::raw(
                        ErrorKind::ValueValidation,
                        format!("{}: {what}\n", setting.name),
                    )
                })?;
            }
        }
        Ok(())
    }
}

/// Show what a test takes and runs, without writing or submitting anything.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg plan config.yaml --trtllm-dir ~/TensorRT-LLM --models-dir /lustre/models
  slurm-disagg plan gb200_deepseek-r1-fp4_1k1k --role GEN_0
  slurm-disagg plan config.yaml --nodes 'gb[01-12]'      the nodes of each instance
  slurm-disagg plan config.yaml --format json | jq .layout")]
pub struct PlanArgs {
    #[command(flatten)]
    pub inputs: Inputs,

    /// Output format.
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub format: PlanFormat,

    /// Show one instance, by its name in the table, such as GEN_0.
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,

    /// The job's nodes as a Slurm hostlist, to see which of them each instance gets.
    #[arg(long, value_name = "LIST")]
    pub nodes: Option<String>,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// For people.
    Table,
    /// The whole plan.
    Json,
    /// NAME=VALUE lines of the sizes, for a shell to source.
    Env,
}

/// Check configurations and report everything that is wrong with them.
///
/// The tests that each of them allows are listed, with their sizes. Settings files are checked too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg check config.yaml
  slurm-disagg check --site site.yaml --disagg-conf /etc/slurm/disagg.conf
  slurm-disagg check tests/scripts/perf-sanity/disaggregated/*.yaml --format json")]
pub struct CheckArgs {
    /// Files of the configurations.
    #[arg(required_unless_present_any = ["site", "disagg_conf"], value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Check a settings file, site.yaml.
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,

    /// Check the settings file of the controller's plugin, disagg.conf.
    #[arg(long, value_name = "FILE")]
    pub disagg_conf: Option<PathBuf>,

    #[command(flatten)]
    pub changes: ChangeArgs,

    /// Make warnings errors.
    #[arg(long)]
    pub strict: bool,

    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Show where each value of a plan comes from: the rule, and the input with its place.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg explain config.yaml                          every value
  slurm-disagg explain config.yaml --name UCX_TLS           one variable
  slurm-disagg explain config.yaml --name --ntasks          one option")]
pub struct ExplainArgs {
    #[command(flatten)]
    pub inputs: Inputs,

    /// Only this variable, option or argument.
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    pub name: Option<String>,

    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Submit a test, follow its job to the end, and report whether the test passed.
///
/// The files of the submission are written into the workspace first. With a test list, every test
/// of it is submitted as a job of its own, in a directory of its own in the workspace.
#[derive(Debug, Args)]
#[command(after_help = SUBMIT_HELP)]
pub struct SubmitArgs {
    #[command(flatten)]
    pub inputs: Inputs,

    /// With a test list: only the tests whose id is this text, contains it, or matches it with *.
    #[arg(
        long,
        value_name = "PATTERN",
        requires = "test_list",
        conflicts_with_all = ["test_number", "test_match"]
    )]
    pub only: Option<String>,

    /// Submit a job for each of these values, with --set KEY=VALUE and a directory of its own in the
    /// workspace. Given for several keys, one for each combination.
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub sweep: Vec<String>,

    /// Run the jobs of a list or a sweep one after another: each starts when the one before has ended.
    #[arg(long)]
    pub serial: bool,

    /// Take up a list or a sweep again whose submission was interrupted: tests that have a job are
    /// followed, the others submitted.
    #[arg(long, conflicts_with_all = ["dry_run", "test_only", "force"])]
    pub resume: bool,

    /// Submit only the tests that have not passed; jobs that have not ended are followed. A test that
    /// --launcher=bash ran has no verdict, so it is submitted.
    #[arg(long, conflicts_with_all = ["dry_run", "test_only", "force", "resume"])]
    pub retry_failed: bool,

    /// Of a recipe: no benchmark; the servers serve until the job is cancelled, and
    /// `server_ready.json` in the workspace says where, once all are ready.
    #[arg(long, conflicts_with = "test_list")]
    pub serve_only: bool,

    /// Write the files, print the sbatch command line and stop: nothing is submitted.
    #[arg(long, conflicts_with_all = ["test_only", "no_wait"])]
    pub dry_run: bool,

    /// Ask Slurm whether it accepts the job and when it would start, and stop: nothing is written
    /// or submitted.
    #[arg(long, conflicts_with = "no_wait")]
    pub test_only: bool,

    /// Submit and stop; `slurm-disagg watch` follows the job later.
    #[arg(long)]
    pub no_wait: bool,

    /// Overwrite the files of another test, or of a job that has not ended.
    #[arg(long)]
    pub force: bool,

    /// Do not check that the source tree, the models and the container image are there: only the
    /// nodes see them.
    #[arg(long)]
    pub no_preflight: bool,

    /// What starts and supervises the steps in the job: this program (native), or the generated
    /// script, where the nodes cannot reach this program (bash).
    #[arg(long, value_enum, default_value_t = LauncherChoice::Native)]
    pub launcher: LauncherChoice,

    #[command(flatten)]
    pub following: FollowingArgs,

    /// Options of `slurm-disagg launch` in the job, after --: -- --limit ready=15m
    #[arg(last = true, value_name = "LAUNCH OPTION")]
    pub launch_options: Vec<String>,
}

const SUBMIT_HELP: &str = "\
Examples:
  slurm-disagg submit config.yaml --trtllm-dir ~/TensorRT-LLM --workspace /lustre/me/run1
  slurm-disagg submit config.yaml --workspace /lustre/me/run1 --test-only
  slurm-disagg submit config.yaml --workspace /lustre/me/run1 --no-wait --json
  slurm-disagg submit config.yaml --workspace /lustre/me/run1 -- --limit ready=15m
  slurm-disagg submit config.yaml --workspace /lustre/me/all --sweep hardware.num_gen_servers=1,2
  slurm-disagg submit --test-list l0_gb200_multi_nodes --only '*deepseek*' --workspace /lustre/me/all

Exit status: 0 the test passed (or --dry-run, --test-only or --no-wait succeeded), 1 failure,
2 invalid input, 130 or 143 interrupted (the job continues).";

/// What starts and supervises the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LauncherChoice {
    /// This program.
    Native,
    /// The generated script.
    Bash,
}

/// List the profiles of engines, or print one.
///
/// A profile says how an engine's servers are started; a recipe names it by `engine:`. A folder of
/// the site comes before those that are built in.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg profiles
  slurm-disagg profiles vllm > mine.yaml                  a start for one of your own")]
pub struct ProfilesArgs {
    /// Engine whose profile is printed, or the path of a profile.
    #[arg(value_name = "NAME")]
    pub name: Option<String>,

    /// Output format of the list.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Folder of profiles that come before those that are built in.
    #[arg(long, value_name = "DIR")]
    pub profiles: Option<String>,

    /// Settings file to read instead of the usual ones.
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
}

/// Write a pipeline's launch script from its own draft.
///
/// Takes the options of the Python script that it replaces, and writes the same variables.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  slurm-disagg derive --run-ci --llm-src ~/TensorRT-LLM --test-list list.txt --split-group 2 \\
    --script-prefix prefix.sh --srun-args srun_args.txt --draft-launch-sh draft.sh \\
    --run-sh run.sh --install-sh install.sh --launch-sh launch.sh --stage-name GB200-36_GPUs-1")]
pub struct DeriveArgs {
    /// Accepted for pipelines that pass it; it changes nothing.
    #[arg(long)]
    pub run_ci: bool,

    /// TensorRT-LLM source tree.
    #[arg(long, value_name = "DIR")]
    pub llm_src: String,

    /// The test list, by path or name.
    #[arg(long, value_name = "LIST")]
    pub test_list: String,

    /// Group of the list whose test is meant, counted from 1; 0 means the first test. Where the
    /// prefix's pytest command splits the list, the test is the one that pytest-split chooses.
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    pub split_group: i64,

    /// The draft of the launch script; slurm_ct_precheck_gate.sh beside it is taken too.
    #[arg(long, value_name = "FILE")]
    pub draft_launch_sh: PathBuf,

    /// The launch script to write.
    #[arg(long, value_name = "FILE")]
    pub launch_sh: PathBuf,

    /// The script that each step runs.
    #[arg(long, value_name = "FILE")]
    pub run_sh: String,

    /// The script that runs on every node before the servers start.
    #[arg(long, value_name = "FILE")]
    pub install_sh: String,

    /// The script prefix: #SBATCH lines, exports, and among them pytestCommand.
    #[arg(long, value_name = "FILE")]
    pub script_prefix: String,

    /// srun's arguments, in a file.
    #[arg(long, value_name = "FILE")]
    pub srun_args: PathBuf,

    #[arg(long, value_name = "NAME", help = STAGE_NAME.help())]
    pub stage_name: Option<String>,

    #[arg(long, value_name = "NAME", help = CLUSTER_NAME.help())]
    pub cluster_name: Option<String>,

    #[arg(
        long,
        help = RULES.help(),
        value_parser = PossibleValuesParser::new((RULES.values)()).try_map(|name: String| Generation::named(&name))
    )]
    pub rules: Option<Generation>,

    #[arg(long, value_name = "FILE", help = SITE.help())]
    pub site: Option<PathBuf>,
}

/// Compare the rules with the launcher of your own source tree.
///
/// python3 runs that launcher for each test in a directory of its own, with the same script prefix,
/// list and options. What its launch script says otherwise is printed by cause; exit status 1 means
/// that something differs, 2 that the comparison failed. A folder in place of the configuration means all entries of the
/// test lists (.txt, .yml) in and below it, and all tests that the configurations (.yaml) there allow.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg verify --test-id disagg-e2e-CONFIG --trtllm-dir ~/TensorRT-LLM
  slurm-disagg verify --test-list l0_gb200_multi_nodes_perf_sanity --trtllm-dir ~/TensorRT-LLM
  slurm-disagg verify ~/TensorRT-LLM/tests/scripts/perf-sanity/disaggregated \\
      --trtllm-dir ~/TensorRT-LLM --prefix-script prefix.sh --format json")]
pub struct VerifyArgs {
    #[command(flatten)]
    pub inputs: Inputs,

    /// srun's arguments, in a file.
    #[arg(long = "srun-args", value_name = "FILE")]
    pub srun_args_file: Option<PathBuf>,

    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Show what changes between two tests, or from the classic to the unified rules.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg diff old.yaml new.yaml                    two configurations
  slurm-disagg diff config.yaml                          one by both of these rule sets
  slurm-disagg diff config.yaml --set hardware.num_gen_servers=2
  slurm-disagg diff run1/plan.json run2/plan.json        what two submissions ran
  slurm-disagg diff disagg-e2e-CONFIG disagg-gen_only-CONFIG

Exit status: 0 nothing differs, 1 something does, 2 failure.")]
pub struct DiffArgs {
    /// A configuration by name or path, a test id, or a plan's JSON file.
    #[arg(value_name = "A")]
    pub before: String,

    /// Another one. Without it, A is compared with A as --set changes it, or by the classic rules
    /// with A by the unified rules.
    #[arg(value_name = "B")]
    pub after: Option<String>,

    #[command(flatten)]
    pub changes: ChangeArgs,

    #[command(flatten)]
    pub settings: SettingArgs,

    /// Output format.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}
