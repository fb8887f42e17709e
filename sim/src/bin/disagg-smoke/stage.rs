// SPDX-License-Identifier: Apache-2.0
//! What a submission starts from: the plan that it must lead to, the user and the environment, and
//! the files of the run, all in one temporary directory.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::plan::Plan;
use slurm_sim::{Env, User};
use tempfile::TempDir;

use crate::Args;
use crate::planned::{self, Planned};

/// The value of variables that the plan removes, in the environment of the submission.
const INHERITED: &str = "set-by-the-user";

/// What a submission starts from.
pub struct Stage {
    /// The plan that the submission must lead to.
    pub plan: Plan,
    /// Its steps.
    pub steps: Vec<Planned>,
    /// The environment of sbatch.
    pub environ: Env,
    /// The arguments of sbatch.
    pub sbatch: Vec<String>,
    /// The text of plugstack.conf.
    pub plugstack: String,
    /// The script that each step runs. It leaves a file in [`Stage::commands`] for each task.
    pub run_script: String,
    /// Where the steps leave what their commands got.
    pub commands: PathBuf,
    directory: TempDir,
}

impl Stage {
    /// Plans, and makes the files.
    pub fn new(args: &Args) -> Result<Self, Box<dyn Error>> {
        let config = fs::canonicalize(&args.config)
            .map_err(|error| format!("{}: {error}", args.config.display()))?;
        let beside = std::env::current_exe()?.with_file_name("spank_disagg.so");
        let plugin = args.plugin.as_ref().unwrap_or(&beside);
        let directory = tempfile::Builder::new().prefix("disagg-smoke-").tempdir()?;
        let place = |name: &str| directory.path().join(name);

        // A copy, because a name in plugstack.conf cannot hold a blank.
        let copy = place("spank_disagg.so");
        fs::copy(plugin, &copy).map_err(|error| {
            format!("{}: {error}; run `make build/spank_disagg.so`", plugin.display())
        })?;
        let (tree, models, commands) = (place("TensorRT-LLM"), place("models"), place("commands"));
        for made in [&tree, &models, &commands] {
            fs::create_dir(made)?;
        }
        let site = place("site.yaml");
        fs::write(
            &site,
            format!(
                "trtllm_dir: {}\nmodels_dir: {}\nplacement: {}\n",
                tree.display(),
                models.display(),
                args.placement
            ),
        )?;

        let mut environ = users_environment(directory.path());
        let options =
            Options { config: text(&config), site: Some(site.clone()), ..Options::default() };
        let context = Context {
            env: &|name| environ.get(name).map(str::to_owned),
            current_dir: directory.path().to_owned(),
        };
        let (plan, _) = request::plan(&options, &context)?;
        let steps = planned::steps(&plan);
        for name in steps.iter().flat_map(|step| &step.unset) {
            environ.set(name, INHERITED);
        }
        let job = place("job.sh");
        write_script(&job, "true\n")?;
        let run_script = place("run.sh");
        let recorder = commands.join("record");
        write_script(&recorder, RECORDER)?;
        write_script(&run_script, &run_script_text(&steps, &commands, &recorder))?;
        Ok(Self {
            plan,
            steps,
            environ,
            sbatch: vec![format!("--disagg-config={}", config.display()), text(&job)],
            plugstack: format!(
                "required {} site={}\n{}\n",
                copy.display(),
                site.display(),
                args.plugstack
            ),
            run_script: text(&run_script),
            commands,
            directory,
        })
    }

    /// Where sbatch is started.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The user of this process.
    pub fn user(&self) -> Result<User, Box<dyn Error>> {
        let process = fs::metadata("/proc/self")?;
        let (uid, gid) = (process.uid(), process.gid());
        Ok(User { name: "user".into(), uid, gid, groups: vec![gid], login: Env::new() })
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn write_script(path: &Path, lines: &str) -> std::io::Result<()> {
    fs::write(path, format!("#!/bin/bash\n{lines}"))?;
    fs::set_permissions(path, Permissions::from_mode(0o755))
}

/// Runs the command of the step as run scripts do, but in place of its programs one that writes its
/// arguments and environment to a file. The source tree need not be there. The output of the shell
/// is dropped, since it may repeat a secret.
fn run_script_text(steps: &[Planned], commands: &Path, recorder: &Path) -> String {
    let programs: BTreeSet<_> = steps.iter().filter_map(|step| step.argv.first()).collect();
    let functions: String =
        programs.iter().map(|name| format!("{name}() {{ got {name} \"$@\"; }}\n")).collect();
    let programs: Vec<_> = programs.iter().map(|name| name.as_str()).collect();
    format!(
        r#"file={}/$SLURM_STEP_ID.$SLURM_PROCID
cd() {{ :; }}
got() {{ {recorder} "$file" "$@"; }}
env() {{
    shift 2
    local words=() word found=
    for word; do
        case $found$word in
        {}) words+=({recorder} "$file") found=yes ;;
        esac
        words+=("$word")
    done
    command env "${{words[@]}}"
}}
{functions}eval "$pytestCommand" 2>/dev/null
"#,
        commands.display(),
        programs.join(" | "),
        recorder = recorder.display(),
    )
}

/// Writes its arguments and its environment to the file that its first argument names.
const RECORDER: &str = r#"file=$1; shift
{ printf '%s\0' $# "$@"; /usr/bin/env -0; } >"$file"
"#;

/// The environment of this process without what an outer job or step has put there. The name of
/// the configuration of Slurm makes this cluster another one than that of every other run: the
/// plugin lets a role run once in a job, and each simulated job has the same number.
fn users_environment(directory: &Path) -> Env {
    let of_slurm = ["SLURM", "SBATCH", "SALLOC", "SRUN", "_SLURM", "PMI"];
    let mut environ = Env::current();
    environ.remove_where(|name| of_slurm.iter().any(|start| name.starts_with(start)));
    environ.with("SLURM_CONF", text(&directory.join("slurm.conf")))
}
