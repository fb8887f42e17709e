// SPDX-License-Identifier: Apache-2.0
//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Parser, ValueEnum};
use disagg::input::values::Choice;
use disagg::plan::Placement;
use slurm_sim::{Fault, Release, SpankError};

/// Show the whole Slurm path of a disaggregated test, without any Slurm.
///
/// A simulated Slurm loads the real spank_disagg.so and plays sbatch with --disagg-config, the
/// controller, and one srun with --disagg-role for each step. What every rank gets in the end, its
/// environment and its command, is compared with the plan.
#[derive(Debug, Parser)]
#[command(name = "disagg-smoke", version, after_help = AFTER)]
pub struct Args {
    /// The test configuration by path, or by name with --trtllm-dir.
    pub config: String,

    /// D, the TensorRT-LLM source tree. Default: the tree that the configuration lies in, else an
    /// empty one that is made for the run.
    #[arg(long, value_name = "DIR")]
    pub trtllm_dir: Option<PathBuf>,

    /// M, the models. Default: CLUSTER_LLM_DATA, else an empty directory that is made for the run.
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<PathBuf>,

    /// W, the workspace. sbatch takes disagg_CONFIG in the directory that it is started in, so W
    /// has to have that name. Default: in a directory that is made for the run.
    #[arg(long, value_name = "DIR")]
    pub workspace: Option<PathBuf>,

    /// The site's settings file. Without it none of the machine's settings files is read.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trtllm_dir", "models_dir"])]
    pub site: Option<PathBuf>,

    /// How servers share nodes: exclusive or packed.
    #[arg(long, value_name = "HOW", value_parser = placement)]
    pub placement: Option<(String, Placement)>,

    /// The Slurm release to play, or several with commas between, or `all`.
    #[arg(long, value_name = "RELEASE", default_value = "22.05")]
    pub release: Releases,

    /// The plugin. Default: spank_disagg.so beside this program.
    #[arg(long, value_name = "FILE")]
    pub plugin: Option<PathBuf>,

    /// Another line of plugstack.conf, after the plugin's: a plugin that the site has, too.
    #[arg(long, value_name = "LINE")]
    pub plugstack: Vec<String>,

    /// Make every call of a Slurm function by the plugin fail, or only the Nth in each process.
    #[arg(long, value_name = "FUNCTION[:N]", value_parser = fault)]
    pub fault: Vec<Fault>,

    /// The most servers of a kind whose steps are played. Of more, the first and the last ones are
    /// and others evenly between them; 0 plays all.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub max_servers: u32,

    /// Show every rank in full.
    #[arg(short, long)]
    pub verbose: bool,

    /// How to print it.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

const AFTER: &str = "\
Examples:
  disagg-smoke config.yaml
  disagg-smoke config.yaml --trtllm-dir ~/TensorRT-LLM --models-dir /lustre/models --verbose
  disagg-smoke config.yaml --release all                every release that is known
  disagg-smoke config.yaml --format json | jq '.runs[0].steps[0].ranks[0]'
  disagg-smoke config.yaml --fault spank_setenv         how the plugin fails when Slurm refuses
  disagg-smoke config.yaml --plugstack 'optional /usr/lib/slurm/spank_pyxis.so'

Exit status: 0 all is as planned, 1 something is not, 2 the input or the usage is wrong.";

/// How the result is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The releases to play.
#[derive(Debug, Clone)]
pub struct Releases(pub Vec<Release>);

impl FromStr for Releases {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(Release::ALL.to_vec()));
        }
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

fn placement(name: &str) -> Result<(String, Placement), String> {
    Placement::named(name).map(|placement| (name.to_owned(), placement))
}

fn fault(text: &str) -> Result<Fault, String> {
    match text.split_once(':') {
        None => Ok(Fault::always(text, SpankError::Error)),
        Some((call, nth)) => match nth.parse() {
            Ok(nth) if nth > 0 => Ok(Fault::nth(call, nth, SpankError::Error)),
            _ => Err(format!("{nth:?} is not the number of a call, counted from 1")),
        },
    }
}
