// SPDX-License-Identifier: Apache-2.0
//! What a submission starts from: the directory, the scripts, the site's settings, the user's
//! environment, and the plan that must come of it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use disagg::diagnostic::{Diagnostic, Diagnostics};
use disagg::input::request::{self, Options};
use disagg::input::{Surroundings, find};
use disagg::plan::Plan;
use slurm_sim::Env;
use tempfile::TempDir;

use crate::args::Args;

/// The user that the simulator's clients run as when it is root itself: nobody.
const CLIENT: u32 = 65534;

/// The value that a variable has in the user's environment when the plan removes it.
const INHERITED: &str = "set-by-the-user";

/// What a submission starts from.
pub struct Stage {
    /// The plan that the submission must come to.
    pub plan: Plan,
    /// The directory in which sbatch is started.
    pub directory: PathBuf,
    /// The environment that sbatch is started with.
    pub environ: Env,
    /// sbatch's arguments.
    pub sbatch: Vec<String>,
    /// The script that each step runs.
    pub run_script: String,
    /// The text of plugstack.conf.
    pub plugstack: String,
    /// The plugin as it was named or found.
    pub plugin: PathBuf,
    _temporary: TempDir,
    _cluster: File,
}

/// Why there is no submission.
pub enum Unusable {
    /// The configuration or an option is wrong.
    Input(Diagnostics),
    /// A file of the run's own cannot be made.
    Io(String, io::Error),
}

impl From<Diagnostic> for Unusable {
    fn from(found: Diagnostic) -> Self {
        Self::Input(found.into())
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Unusable {
    let path = path.display().to_string();
    |error| Unusable::Io(path, error)
}

impl Stage {
    /// Plans as the command does and prepares the submission.
    pub fn new(args: &Args) -> Result<Self, Unusable> {
        let here = std::env::current_dir().map_err(io_error(Path::new(".")))?;
        let plugin = plugin(args)?;
        let made = Builder::new()?;
        let mut environ = users_environment();
        let site = made.site(args, &here, &mut environ)?;
        let options = |config: String, workspace: Option<String>| Options {
            config,
            workspace,
            trtllm_dir: args.trtllm_dir.as_ref().map(text),
            placement: args.placement.as_ref().map(|(_, placement)| *placement),
            site: Some(site.clone()),
            ..Options::default()
        };
        // First with the path as it was given: so it is in the messages.
        let first = options(args.config.clone(), None);
        let (plan, _) = planned(&first, &environ, &here)?;
        let directory = match &args.workspace {
            None => made.path.clone(),
            Some(workspace) => parent(&here.join(workspace), &plan.test.config)?,
        };
        let config = here.join(&plan.test.config_path);
        let config = made.readable(&config, "config")?;
        // Then as the plugin does in sbatch's place.
        let mut second = options(text(&config), None);
        second.trtllm_dir = None;
        let (plan, _) = planned(&second, &environ, &directory)?;

        for name in plan.roles.values().flat_map(|role| &role.unset) {
            environ.set(name.value.as_str(), INHERITED);
        }
        let (cluster_name, cluster) = cluster()?;
        environ.set("SLURM_CONF", cluster_name);
        let run_script = text(made.path.join("run.sh"));
        let job = made.path.join("job.sh");
        let steps: String = plan
            .instances()
            .map(|instance| format!("srun --disagg-role={} {run_script} &\n", instance.name))
            .collect();
        made.write(&job, &format!("#!/bin/bash\n{steps}wait\n"))?;
        made.write(Path::new(&run_script), "#!/bin/bash\neval \"$pytestCommand\"\n")?;
        let mut sbatch = vec![format!("--disagg-config={}", config.display())];
        if let Some((name, _)) = &args.placement {
            sbatch.push(format!("--disagg-placement={name}"));
        }
        sbatch.push(text(&job));
        let loaded = made.readable(&plugin, "plugin")?;
        let mut plugstack = format!("required {} site={}\n", loaded.display(), site.display());
        for line in &args.plugstack {
            plugstack.push_str(line);
            plugstack.push('\n');
        }
        Ok(Self {
            plan,
            directory,
            environ,
            sbatch,
            run_script,
            plugstack,
            plugin,
            _temporary: made.directory,
            _cluster: cluster,
        })
    }

    /// srun's arguments for a step.
    pub fn srun(&self, name: &str) -> Vec<String> {
        vec![format!("--disagg-role={name}"), self.run_script.clone()]
    }
}

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_string_lossy().into_owned()
}

fn planned(
    options: &Options,
    environ: &Env,
    current_dir: &Path,
) -> Result<(Plan, Vec<Diagnostic>), Unusable> {
    let around = Surroundings {
        env: &|name| environ.get(name).map(str::to_owned),
        current_dir: current_dir.to_owned(),
    };
    request::plan(options, &around).map_err(Unusable::Input)
}

fn plugin(args: &Args) -> Result<PathBuf, Unusable> {
    let path = match &args.plugin {
        Some(path) => path.clone(),
        None => {
            let program = std::env::current_exe().map_err(io_error(Path::new("/proc/self/exe")))?;
            program.with_file_name("spank_disagg.so")
        }
    };
    let there = path.canonicalize();
    there.map_err(|error| {
        Diagnostic::error(format!("the plugin {}: {error}", path.display()))
            .help("build it with `make build/spank_disagg.so`, or name it with --plugin")
            .into()
    })
}

/// The directory that sbatch has to be started in for this workspace.
fn parent(workspace: &Path, config: &str) -> Result<PathBuf, Unusable> {
    let wanted = format!("disagg_{config}");
    match workspace.parent() {
        Some(parent) if workspace.file_name() == Some(wanted.as_ref()) => {
            if parent.is_dir() {
                return Ok(parent.to_owned());
            }
            Err(Diagnostic::error(format!(
                "--workspace: there is no directory {}",
                parent.display()
            ))
            .into())
        }
        _ => Err(Diagnostic::error(format!(
            "--workspace {}: a job that sbatch submits has the workspace {wanted}",
            workspace.display()
        ))
        .help(format!("write --workspace DIRECTORY/{wanted}"))
        .into()),
    }
}

/// This process's environment without what an outer job or step has put there.
fn users_environment() -> Env {
    let of_slurm = ["SLURM", "SBATCH", "SALLOC", "SRUN", "_SLURM", "PMI"];
    let mut environ = Env::current();
    environ.remove_where(|name| of_slurm.iter().any(|start| name.starts_with(start)));
    environ
}

/// A name for the simulated cluster that no other run has at this time, as SLURM_CONF. The plugin
/// tells jobs apart by it, and leaves a file for each role of a cluster's job; so names are used
/// again.
fn cluster() -> Result<(String, File), Unusable> {
    // SAFETY: geteuid has no failure and no memory effects.
    let user = unsafe { libc::geteuid() };
    let mut number = 0;
    loop {
        let path = std::env::temp_dir().join(format!("disagg-smoke-{user}-{number}.lock"));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
            .open(&path)
            .map_err(io_error(&path))?;
        if file.try_lock().is_ok() {
            return Ok((text(path.with_extension("conf")), file));
        }
        number += 1;
    }
}

/// Makes the files of a run, so that the user of the clients can read them.
struct Builder {
    directory: TempDir,
    path: PathBuf,
    /// The user of the clients, when it is another than this process's.
    client: Option<u32>,
}

impl Builder {
    fn new() -> Result<Self, Unusable> {
        let temporary = std::env::temp_dir();
        let directory = tempfile::Builder::new()
            .prefix("disagg-smoke-")
            .tempdir()
            .map_err(io_error(&temporary))?;
        let path = directory.path().to_owned();
        // SAFETY: geteuid has no failure and no memory effects.
        let client = (unsafe { libc::geteuid() } == 0).then_some(CLIENT);
        fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(io_error(&path))?;
        // sbatch writes a long plan into the directory that it is started in.
        chown(&path, client, client).map_err(io_error(&path))?;
        Ok(Self { directory, path, client })
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), Unusable> {
        fs::write(path, text).map_err(io_error(path))?;
        fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(io_error(path))
    }

    fn make_directory(&self, name: &str) -> Result<PathBuf, Unusable> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).map_err(io_error(&path))?;
        Ok(path)
    }

    /// The file, or a copy of it where the clients' user cannot read it, or where plugstack.conf
    /// could not hold its name.
    fn readable(&self, file: &Path, directory: &str) -> Result<PathBuf, Unusable> {
        let blank = file.to_string_lossy().contains(char::is_whitespace);
        let readable = match self.client {
            None => true,
            Some(user) => Command::new("test")
                .arg("-r")
                .arg(file)
                .uid(user)
                .gid(user)
                .status()
                .is_ok_and(|status| status.success()),
        };
        if readable && !blank {
            return Ok(file.to_owned());
        }
        let copy = self.make_directory(directory)?.join(file.file_name().unwrap_or_default());
        fs::copy(file, &copy).map_err(io_error(file))?;
        fs::set_permissions(&copy, Permissions::from_mode(0o755)).map_err(io_error(&copy))?;
        Ok(copy)
    }

    /// The site's settings: those that were named, else the directories of this run.
    fn site(&self, args: &Args, here: &Path, environ: &mut Env) -> Result<PathBuf, Unusable> {
        if let Some(site) = &args.site {
            return match self.readable(&here.join(site), "site") {
                Err(Unusable::Io(path, error)) => {
                    Err(Diagnostic::error(format!("--site {path}: {error}")).into())
                }
                other => other,
            };
        }
        let around = || find::source_dir_of(&here.join(&args.config));
        let tree = match args.trtllm_dir.clone().or_else(around) {
            Some(tree) => here.join(tree),
            None => self.make_directory("TensorRT-LLM")?,
        };
        let models = match &args.models_dir {
            Some(models) => {
                // It would win over the settings.
                environ.unset("CLUSTER_LLM_DATA");
                here.join(models)
            }
            None => self.make_directory("models")?,
        };
        let path = self.path.join("site.yaml");
        // JSON's strings are YAML's.
        let value = |path: &Path| serde_json::Value::from(text(path)).to_string();
        let settings = format!("trtllm_dir: {}\nmodels_dir: {}\n", value(&tree), value(&models));
        self.write(&path, &settings)?;
        Ok(path)
    }
}
