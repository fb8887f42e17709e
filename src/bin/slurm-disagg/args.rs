// SPDX-License-Identifier: Apache-2.0
//! The command line.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments are the texts of --help"
)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use disagg::input::request::{Options, frontend_node, placement};
use disagg::plan::{FrontendNode, Generation, Placement};
use disagg::run::launch::limits::{Limits, seconds};
use disagg::run::launch::pdeathsig::SUBCOMMAND as PDEATHSIG;

/// Plan, check and submit disaggregated LLM-serving tests on Slurm.
///
/// A test configuration goes in; what comes out is how many nodes the job takes, what each step
/// runs and where, and the scripts to submit.
#[derive(Debug, Parser)]
#[command(name = "slurm-disagg", version, disable_help_subcommand = true, after_help = EXIT)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT: &str = "\
Exit status: 0 done, 1 it failed, 2 the input or the usage is wrong (and nothing was written).";

#[derive(Debug, Subcommand)]
pub enum Command {
    Plan(PlanArgs),
    Check(CheckArgs),
    Explain(ExplainArgs),
    Submit(SubmitArgs),
    Derive(DeriveArgs),
    Diff(DiffArgs),
    Launch(LaunchArgs),
    /// Run a command that receives SIGTERM when the launch dies.
    #[command(name = PDEATHSIG, hide = true)]
    Pdeathsig {
        /// The launch's process id.
        parent: u32,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<OsString>,
    },
    Watch(WatchArgs),
    Cancel(CancelArgs),
    Report(ReportArgs),
    /// Print the completions of a shell.
    ///
    /// For bash: slurm-disagg completions bash > /etc/bash_completion.d/slurm-disagg
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write the man pages into a directory.
    Man {
        /// The directory; it is made when it is missing.
        directory: PathBuf,
    },
}

/// What a plan is made from.
#[derive(Debug, Args)]
pub struct Inputs {
    /// The configuration, by name (looked up in the source tree) or path.
    #[arg(
        value_name = "CONFIG",
        required_unless_present_any = ["config_file", "test_id", "test_list"]
    )]
    pub config: Option<String>,

    /// The same as an option.
    #[arg(long, alias = "config", value_name = "CONFIG", conflicts_with = "config")]
    pub config_file: Option<String>,

    /// The test id, which names the configuration: disagg[_upload]-{e2e,gen_only}-CONFIG,
    /// aggr[_upload]-{ctx_only,gen_only_no_context}-CONFIG, aggr[_upload]-CONFIG-SERVER or
    /// disagg[_upload]-CONFIG.
    #[arg(long, value_name = "ID", conflicts_with = "test_list")]
    pub test_id: Option<String>,

    /// A test list that names the test, by name (looked up in the source tree) or path.
    #[arg(long, alias = "testlist", value_name = "LIST")]
    pub test_list: Option<String>,

    /// Which test of the list, counted from 1.
    #[arg(long, value_name = "N", requires = "test_list", allow_negative_numbers = true)]
    pub test_number: Option<i64>,

    /// Which test of the list: its id, a part of it, or a pattern with *.
    #[arg(long, value_name = "PATTERN", requires = "test_list", conflicts_with = "test_number")]
    pub test_match: Option<String>,

    /// A script prefix that holds the base command: export pytestCommand="…".
    #[arg(long, value_name = "FILE")]
    pub prefix_script: Option<String>,

    /// The name of the pipeline's stage; it names the generation of GPU, by which UCX is set up.
    #[arg(long, value_name = "NAME")]
    pub stage_name: Option<String>,

    /// D, the TensorRT-LLM source tree. Default: the site's, else the tree that the configuration
    /// lies in.
    #[arg(long, value_name = "DIR")]
    pub trtllm_dir: Option<String>,

    /// M, the models. Default: CLUSTER_LLM_DATA, else the site's.
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<String>,

    /// W, the workspace that the submission's files and results go to. Default: disagg_CONFIG in
    /// the current directory.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<String>,

    /// The settings file to read instead of /etc/slurm-disagg/site.yaml and
    /// ~/.config/slurm-disagg/site.yaml.
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,

    /// The generation of rules. Default: what the test id's form says.
    #[arg(long)]
    pub rules: Option<Generation>,

    /// How servers share nodes: exclusive or packed. Default: exclusive.
    #[arg(long, value_parser = placement)]
    pub placement: Option<Placement>,

    /// The node of DISAGG_SERVER and BENCHMARK: first, last, ctx or own. Default: first.
    #[arg(long, value_parser = frontend_node)]
    pub frontend_node: Option<FrontendNode>,

    /// The Slurm account. Default: CLUSTER_ACCOUNT, else the site's.
    #[arg(long)]
    pub account: Option<String>,

    /// The Slurm partition. Default: CLUSTER_PARTITION, else the site's.
    #[arg(long)]
    pub partition: Option<String>,

    /// The time limit, in Slurm's form. Default: the site's, else the configuration's job_time,
    /// else 04:00:00.
    #[arg(long)]
    pub time: Option<String>,

    /// The job's name. Default: disagg_perf_test.
    #[arg(long, value_name = "NAME")]
    pub job_name: Option<String>,

    /// The MPI type of CTX and GEN steps. Default: MPI_TYPE, else the site's, else pmix.
    #[arg(long, value_name = "TYPE")]
    pub mpi: Option<String>,

    /// The image that steps run in (pyxis). Default: DOCKER_IMAGE, else the site's, else none.
    #[arg(long, value_name = "IMAGE")]
    pub container_image: Option<String>,

    /// A script that each step runs instead of its command, with pytestCommand and
    /// DISAGG_SERVING_TYPE in its environment.
    #[arg(long, value_name = "FILE")]
    pub run_sh: Option<String>,

    /// A script that runs on every node before the servers start.
    #[arg(long, value_name = "FILE")]
    pub install_sh: Option<String>,
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
            prefix_script: self.prefix_script.clone(),
            stage_name: self.stage_name.clone(),
            trtllm_dir: self.trtllm_dir.clone(),
            models_dir: self.models_dir.clone(),
            workspace: self.workspace.clone(),
            site: self.site.clone(),
            rules: self.rules,
            placement: self.placement,
            frontend_node: self.frontend_node,
            account: self.account.clone(),
            partition: self.partition.clone(),
            time: self.time.clone(),
            job_name: self.job_name.clone(),
            mpi: self.mpi.clone(),
            container_image: self.container_image.clone(),
            run_script: self.run_sh.clone(),
            install_script: self.install_sh.clone(),
        }
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

    /// How to print it.
    #[arg(long, value_enum, default_value_t = PlanFormat::Table)]
    pub format: PlanFormat,

    /// Show one instance: GEN_0, CTX_0, DISAGG_SERVER, …
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

/// Check configurations and say all that is wrong with them.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg check config.yaml
  slurm-disagg check tests/scripts/perf-sanity/disaggregated/*.yaml --format json")]
pub struct CheckArgs {
    /// The configurations' files.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How to print what is found.
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

/// Say where each value of a plan comes from: the rule, and the input with its place.
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

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// Submit a test, follow its job to the end, and say whether the test passed.
///
/// The files of the submission are written into the workspace first. With a test list, every test
/// of it is submitted as a job of its own, in a directory of its own in the workspace.
#[derive(Debug, Args)]
#[command(after_help = SUBMIT_HELP)]
pub struct SubmitArgs {
    #[command(flatten)]
    pub inputs: Inputs,

    /// With a test list: only the tests whose id is this text, contains it, or fits it with *.
    #[arg(
        long,
        value_name = "PATTERN",
        requires = "test_list",
        conflicts_with_all = ["test_number", "test_match"]
    )]
    pub only: Option<String>,

    /// Write the files and stop: nothing is submitted.
    #[arg(long, conflicts_with_all = ["test_only", "no_wait"])]
    pub dry_run: bool,

    /// Ask Slurm whether it would take the job and when it would start, and stop: nothing is
    /// written or submitted.
    #[arg(long, conflicts_with = "no_wait")]
    pub test_only: bool,

    /// Submit and stop; `slurm-disagg watch` takes it up again.
    #[arg(long)]
    pub no_wait: bool,

    /// Overwrite the files of another test, or of a job that has not ended.
    #[arg(long)]
    pub force: bool,

    /// What starts and supervises the steps in the job: this program (native), or the generated
    /// script, where the nodes cannot reach this program (bash).
    #[arg(long, value_enum, default_value_t = LauncherChoice::Native)]
    pub launcher: LauncherChoice,

    #[command(flatten)]
    pub following: FollowingArgs,

    /// Options of `slurm-disagg launch` in the job, after --: -- --ready --limit ready=15m
    #[arg(last = true, value_name = "LAUNCH OPTION")]
    pub launch_options: Vec<String>,
}

const SUBMIT_HELP: &str = "\
Examples:
  slurm-disagg submit config.yaml --trtllm-dir ~/TensorRT-LLM --workspace /lustre/me/run1
  slurm-disagg submit config.yaml --workspace /lustre/me/run1 --test-only
  slurm-disagg submit config.yaml --workspace /lustre/me/run1 --no-wait --json
  slurm-disagg submit config.yaml --workspace /lustre/me/run1 -- --ready --limit ready=15m
  slurm-disagg submit --test-list l0_gb200_multi_nodes --only '*deepseek*' --workspace /lustre/me/all

Exit status: 0 the test passed (or what --dry-run, --test-only or --no-wait asked for was done),
1 it failed, 2 the input is wrong, 130 or 143 interrupted while the job goes on.";

/// What starts and supervises the steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LauncherChoice {
    /// This program.
    Native,
    /// The generated script.
    Bash,
}

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
}

/// What an interruption does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InterruptChoice {
    /// The command ends, the job goes on.
    Detach,
    /// The job is cancelled.
    Cancel,
}

/// Follow a job that was submitted before, to its end.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg watch 4711
  slurm-disagg watch /lustre/me/run1 --on-interrupt=cancel

Exit status: 0 the test passed, 1 it failed, 2 there is no such job, 130 or 143 interrupted while
the job goes on.")]
pub struct WatchArgs {
    /// The job's id, or the workspace that it was submitted from.
    #[arg(value_name = "JOBID|WORKSPACE")]
    pub target: String,

    #[command(flatten)]
    pub following: FollowingArgs,
}

/// Cancel jobs. One that has ended already is left as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg cancel 4711
  slurm-disagg cancel /lustre/me/run1")]
pub struct CancelArgs {
    /// Jobs' ids, or the workspaces that they were submitted from.
    #[arg(required = true, value_name = "JOBID|WORKSPACE")]
    pub targets: Vec<String>,
}

/// Show the result of a run again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg report /lustre/me/run1
  slurm-disagg report /lustre/me/run1 --html run1.html
  slurm-disagg report /lustre/me/run1 --format json | jq .verdict
  slurm-disagg report /lustre/me/run1/runs/4711.0         an earlier run of a requeued job

Exit status: 0 the report was made, whatever it says; 2 there is no result.")]
pub struct ReportArgs {
    /// The workspace, or the directory of one of its runs.
    #[arg(value_name = "WORKSPACE")]
    pub workspace: PathBuf,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// Write a page with the timeline and the logs' last lines, which needs no other file.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
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
    /// Accepted for pipelines that say it; it changes nothing.
    #[arg(long)]
    pub run_ci: bool,

    /// D, the TensorRT-LLM source tree.
    #[arg(long, value_name = "DIR")]
    pub llm_src: String,

    /// The test list, by path or name.
    #[arg(long, value_name = "LIST")]
    pub test_list: String,

    /// Which test of the list, counted from 1. Default: the first.
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

    /// The name of the pipeline's stage; it names the generation of GPU, by which UCX is set up.
    #[arg(long, value_name = "NAME")]
    pub stage_name: Option<String>,

    /// The generation of rules. Default: what the test id's form says.
    #[arg(long)]
    pub rules: Option<Generation>,

    /// The settings file to read instead of the usual ones.
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,
}

/// Show what changes between two tests, or between the two rule sets.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  slurm-disagg diff old.yaml new.yaml                    two configurations
  slurm-disagg diff config.yaml                          one by both rule sets
  slurm-disagg diff run1/plan.json run2/plan.json        what two submissions ran
  slurm-disagg diff disagg-e2e-CONFIG disagg-gen_only-CONFIG")]
pub struct DiffArgs {
    /// A configuration by name or path, a test id, or a plan's JSON file.
    #[arg(value_name = "A")]
    pub before: String,

    /// Another; without it, A by the classic rules is compared with A by the unified ones.
    #[arg(value_name = "B")]
    pub after: Option<String>,

    /// D, the TensorRT-LLM source tree.
    #[arg(long, value_name = "DIR")]
    pub trtllm_dir: Option<String>,

    /// M, the models.
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<String>,

    /// W, the workspace of both. Default: one for each configuration.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<String>,

    /// The generation of rules for both.
    #[arg(long, requires = "after")]
    pub rules: Option<Generation>,

    /// The settings file to read instead of the usual ones.
    #[arg(long, value_name = "FILE")]
    pub site: Option<PathBuf>,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

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
  salloc --nodes=3 … slurm-disagg launch --workspace /lustre/me/run1 --ready --limit ready=15m

With exec the launch gets the signal of sbatch --signal=B:USR1@SECONDS, and has the whole of Slurm's
KillWait to end the steps well.

Exit status: 0 the benchmark passed, 1 it did not, 2 nothing was started.")]
pub struct LaunchArgs {
    /// W, the workspace that `slurm-disagg submit` wrote. Default: that of the plan in
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

    /// Limits of the phases, as start=2m,ready=15m,benchmark=1h. start: until all steps run.
    /// ready: from then until all servers are (needs --ready). benchmark: from then to its end.
    #[arg(long, value_name = "PHASE=TIME,…")]
    pub limit: Option<Limits>,

    /// Ask each server for its health (GET /health at the address in addresses/ROLE.json), and
    /// record when it answered.
    #[arg(long)]
    pub ready: bool,
}
