// SPDX-License-Identifier: Apache-2.0
//! From what a person said (options, environment, settings, configuration) to a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::site::{FRONTEND_NODES, PLACEMENTS, Site};
use super::test_list::{Entry, Pick};
use super::{Surroundings, config, find, prefix_script, site, test_list};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::plan::command::Directories;
use crate::plan::request::{ContainerSettings, JobSettings, Request, TestNames};
use crate::plan::{FrontendNode, Generation, Origin, Placement, TestId, Traced};
use crate::slurm::time::TimeLimit;

/// What was said on a command line. All but the configuration may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The configuration, by name or path; may be empty where a test id or list names it.
    pub config: String,
    /// The test id.
    pub test_id: Option<String>,
    /// A test list, by name or path, that names the test.
    pub test_list: Option<String>,
    /// Which entry of the list, from 1; 0 and less mean the first, as shards are counted.
    pub test_number: Option<i64>,
    /// Which test of the list: its id, a part of it, or a pattern with `*`.
    pub test_match: Option<String>,
    /// A script prefix that holds the base command.
    pub prefix_script: Option<String>,
    /// The name of the pipeline's stage, which names the generation of GPU.
    pub stage_name: Option<String>,
    /// D, the source tree; else the site's, else the tree that the configuration lies in.
    pub trtllm_dir: Option<String>,
    /// M, the models; else the site's.
    pub models_dir: Option<String>,
    /// W, the workspace; else `disagg_<config>` in the current directory.
    pub workspace: Option<String>,
    /// The settings file to read instead of the usual ones.
    pub site: Option<PathBuf>,
    /// The generation of rules; else the test id's form decides.
    pub rules: Option<Generation>,
    /// How servers share nodes.
    pub placement: Option<Placement>,
    /// The node of DISAGG_SERVER and BENCHMARK.
    pub frontend_node: Option<FrontendNode>,
    /// The account.
    pub account: Option<String>,
    /// The partition.
    pub partition: Option<String>,
    /// The time limit.
    pub time: Option<String>,
    /// The job's name.
    pub job_name: Option<String>,
    /// The MPI type.
    pub mpi: Option<String>,
    /// The container image.
    pub container_image: Option<String>,
    /// The run script.
    pub run_script: Option<String>,
    /// The install script.
    pub install_script: Option<String>,
}

/// The MPI type of CTX and GEN steps when nothing else is said.
const DEFAULT_MPI: &str = "pmix";
/// Variables whose values are never shown, whatever the site says.
const SECRETS: &[&str] = &["HF_TOKEN"];

/// Builds the request, with what is worth saying about its inputs.
///
/// # Errors
/// All that is wrong with the options, the settings and the configuration.
pub fn build(
    options: &Options,
    around: &Surroundings,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    build_from(options, None, around)
}

/// [`build`], with the configuration's text where no file is to be read: `options.config` is then
/// its path.
fn build_from(
    options: &Options,
    text: Option<&Arc<Source>>,
    around: &Surroundings,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let site = site::load(around, options.site.as_deref())?;
    match &options.test_list {
        Some(list) => {
            let path = find::test_list(
                list,
                tree(options, &site, around).as_deref(),
                &around.current_dir,
            )?;
            let list = test_list::read(&path, list, options.rules)?;
            let pick = match (&options.test_match, options.test_number) {
                (Some(pattern), _) => Pick::Matching(pattern),
                (None, Some(number)) => Pick::Number(number),
                (None, None) => Pick::Only,
            };
            build_test(options, text, around, site, Some(Named::of_entry(list.pick(pick)?)?))
        }
        None => {
            let named = options.test_id.as_deref().map(|id| Named::of_id(id, options.rules));
            build_test(options, text, around, site, named.transpose()?)
        }
    }
}

/// Builds the request for one entry of a test list, for those who want all of them.
///
/// # Errors
/// As [`build`].
pub fn build_entry(
    options: &Options,
    around: &Surroundings,
    entry: &Entry,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let site = site::load(around, options.site.as_deref())?;
    build_test(options, None, around, site, Some(Named::of_entry(entry)?))
}

/// A test that is named by its id.
struct Named {
    readings: Vec<TestId>,
    module: Option<String>,
    function: Option<String>,
    origin: Origin,
}

impl Named {
    fn of_id(id: &str, rules: Option<Generation>) -> Result<Self, Diagnostic> {
        let readings = TestId::readings(id, rules)
            .map_err(|error| Diagnostic::error(error.message).help(error.help))?;
        Ok(Self { readings, module: None, function: None, origin: Origin::input("--test-id") })
    }

    fn of_entry(entry: &Entry) -> Result<Self, Diagnostic> {
        let origin = Origin {
            input: format!("test {} of the list", entry.number).into(),
            location: Some(entry.location.clone()),
            ..Origin::default()
        };
        let (module, function) = (entry.module.clone(), entry.function.clone());
        Ok(Self { readings: entry.readings.clone()?, module, function, origin })
    }
}

/// The source tree that the options or the site name.
fn tree(options: &Options, site: &Site, around: &Surroundings) -> Option<PathBuf> {
    let named = options.trtllm_dir.as_deref();
    named
        .or(site.trtllm_dir.as_ref().map(|directory| directory.value.as_str()))
        .map(|path| PathBuf::from(absolute(&around.current_dir, path)))
}

/// The configuration's file, and which reading of the id it is that of.
fn find_config(
    options: &Options,
    named: Option<&Named>,
    tree: Option<&Path>,
    around: &Surroundings,
    has_text: bool,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(PathBuf, usize), Diagnostic> {
    // A text that is at hand needs no file: its path is taken as it is said.
    let locate = || match has_text {
        true => Ok(around.current_dir.join(&options.config)),
        false => find::config(&options.config, tree, &around.current_dir),
    };
    let Some(named) = named else {
        if options.config.is_empty() {
            return Err(Diagnostic::error("no test is named")
                .help("give a configuration, --test-id or --test-list"));
        }
        return Ok((locate()?, 0));
    };
    if options.config.is_empty() {
        let found = find::config_of_test(&named.readings, tree)
            .map_err(|diagnostic| diagnostic.at(named.origin.location.clone()))?;
        warnings.extend(found.others.iter().map(|other| {
            Diagnostic::warning(format!(
                "{} is used; there is {} too",
                found.path.display(),
                other.display()
            ))
            .help("give the path with --config-file to say which one is meant")
        }));
        return Ok((found.path, found.index));
    }
    let path = locate()?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let index = named.readings.iter().position(|id| id.config == stem);
    if index.is_none() {
        let id = &named.readings[0];
        warnings.push(Diagnostic::warning(format!(
            "the test id {} names the configuration {}, but {} is used",
            id.text,
            id.config,
            path.display()
        )));
    }
    Ok((path, index.unwrap_or_default()))
}

fn build_test(
    options: &Options,
    text: Option<&Arc<Source>>,
    around: &Surroundings,
    site: Site,
    named: Option<Named>,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let tree = tree(options, &site, around);
    let mut warnings = Vec::new();
    let (path, index) = find_config(
        options,
        named.as_ref(),
        tree.as_deref(),
        around,
        text.is_some(),
        &mut warnings,
    )?;
    let (config, about_config) = match text {
        Some(source) => config::read_text(&path, source)?,
        None if find::is_path(&options.config) => config::read(&path, &options.config)?,
        None => config::read(&path, &path.to_string_lossy())?,
    };
    warnings.extend(about_config);
    let base = match &options.prefix_script {
        Some(script) => {
            let (base, about_script) =
                prefix_script::read(&around.current_dir.join(script), script)?;
            warnings.extend(about_script);
            Some(base)
        }
        None => None,
    };
    let (test_id, module, function) = match named {
        Some(Named { mut readings, module, function, origin }) => {
            let id = readings.swap_remove(index);
            if !id.has_usual_prefix() {
                let message = format!("the prefix {} of test id {} is unusual", id.prefix, id.text);
                let help = "usual prefixes: disagg, disagg_upload, aggr, aggr_upload";
                warnings.push(Diagnostic::warning(message).at(origin.location.clone()).help(help));
            }
            let text = |text: Option<String>| text.map(|text| Traced::new(text, origin.clone()));
            let names = (text(module), text(function));
            (Some(Traced::new(id, origin)), names.0, names.1)
        }
        None => (None, None, None),
    };

    let mut errors = Diagnostics::default();
    let mut chosen = Chosen { errors: &mut errors };
    let tree_around = find::source_dir_of(&path).map(|tree| {
        Traced::new(
            tree.to_string_lossy().into_owned(),
            Origin::input("the source tree that the configuration lies in"),
        )
    });
    let source = chosen.directory(
        "the TensorRT-LLM source tree",
        "--trtllm-dir",
        "trtllm_dir in the site's settings",
        (&options.trtllm_dir, site.trtllm_dir.clone().or(tree_around)),
        around,
    );
    let models_of_base = base.as_ref().and_then(|base| {
        let (_, value) = base.env.iter().find(|(name, _)| *name == "LLM_MODELS_ROOT")?;
        let literal = value.value.is_literal().then(|| value.value.expand(|_| None).ok())?;
        Some(Traced::new(literal?, value.origin.clone()))
    });
    let models = chosen.directory(
        "the models directory",
        "--models-dir",
        "CLUSTER_LLM_DATA in the environment, or models_dir in the site's settings",
        (&options.models_dir, site.models_dir.clone().or(models_of_base)),
        around,
    );
    let default_workspace = Traced::new(
        format!("disagg_{}", config.name),
        Origin::rule("disagg_<config> in the current directory"),
    );
    let workspace = chosen.directory(
        "the workspace",
        "--workspace",
        "",
        (&options.workspace, Some(default_workspace)),
        around,
    );
    let request = Request {
        config,
        directories: Directories { source, models, workspace },
        test_id,
        base,
        stage: chosen.text("--stage-name", &options.stage_name, None),
        ucx: site.ucx.map(|rows| rows.value).unwrap_or_default(),
        precheck: site.precheck,
        test: TestNames {
            module: chosen.or("perf/test_perf_sanity.py", module.or(site.perf_test_module)),
            function: chosen.or("test_e2e", function.or(site.perf_test_function)),
            prefix: chosen.or("disagg_upload", site.perf_test_prefix),
        },
        rules: options.rules.map(|rules| Traced::new(rules, Origin::input("--rules"))),
        placement: choice("--placement", options.placement, site.placement),
        frontend_node: choice("--frontend-node", options.frontend_node, site.frontend_node),
        mpi: chosen
            .text("--mpi", &options.mpi, site.mpi_type)
            .unwrap_or_else(|| Traced::new(DEFAULT_MPI.into(), Origin::rule("the default"))),
        job: JobSettings {
            partition: chosen.text("--partition", &options.partition, site.partition),
            account: chosen.text("--account", &options.account, site.account),
            time: chosen.time("--time", &options.time),
            default_time: site.time,
            name: chosen.text("--job-name", &options.job_name, site.job_name),
            segment: site.segment,
        },
        container: chosen
            .text("--container-image", &options.container_image, site.container_image)
            .map(|image| ContainerSettings {
                image,
                mounts: site
                    .container_mounts
                    .map(|mounts| {
                        let origin = mounts.origin;
                        let mount = |mount| Traced::new(mount, origin.clone());
                        mounts.value.into_iter().map(mount).collect()
                    })
                    .unwrap_or_default(),
            }),
        run_script: chosen.path("--run-sh", &options.run_script, site.run_script, around),
        install_script: chosen.path(
            "--install-sh",
            &options.install_script,
            site.install_script,
            around,
        ),
        secrets: SECRETS
            .iter()
            .map(|name| (*name).to_owned())
            .chain(site.secrets.map(|secrets| secrets.value).unwrap_or_default())
            .collect(),
    };
    if errors.has_errors() { Err(errors) } else { Ok((request, warnings)) }
}

/// Chooses between the command line and the site, and checks what was chosen.
struct Chosen<'e> {
    errors: &'e mut Diagnostics,
}

impl Chosen<'_> {
    fn text(
        &mut self,
        option: &'static str,
        said: &Option<String>,
        site: Option<Traced<String>>,
    ) -> Option<Traced<String>> {
        let said = said.as_ref().map(|text| Traced::new(text.clone(), Origin::input(option)));
        if said.as_ref().is_some_and(|text| text.value.contains(|c: char| c.is_control())) {
            self.errors.push(Diagnostic::error(format!(
                "{option} must be one line without control characters"
            )));
        }
        said.or(site)
    }

    fn time(&mut self, option: &'static str, said: &Option<String>) -> Option<Traced<String>> {
        let time = self.text(option, said, None)?;
        if let Err(error) = time.value.parse::<TimeLimit>() {
            self.errors.push(Diagnostic::error(format!("{option}: {error}")));
        }
        Some(time)
    }

    fn or(&self, default: &str, site: Option<Traced<String>>) -> Traced<String> {
        site.unwrap_or_else(|| Traced::new(default.to_owned(), Origin::rule("the default")))
    }

    fn path(
        &mut self,
        option: &'static str,
        said: &Option<String>,
        site: Option<Traced<String>>,
        around: &Surroundings,
    ) -> Option<Traced<String>> {
        let Traced { value, origin } = self.text(option, said, site)?;
        Some(Traced::new(absolute(&around.current_dir, &value), origin))
    }

    fn directory(
        &mut self,
        what: &str,
        option: &'static str,
        otherwise: &str,
        (said, site): (&Option<String>, Option<Traced<String>>),
        around: &Surroundings,
    ) -> Traced<String> {
        let path = self.path(option, said, site, around);
        path.unwrap_or_else(|| {
            self.errors.push(
                Diagnostic::error(format!("{what} is not known"))
                    .help(format!("give {option}, or set {otherwise}")),
            );
            Traced::default()
        })
    }
}

fn absolute(current_dir: &Path, path: &str) -> String {
    let joined = current_dir.join(path).to_string_lossy().into_owned();
    match joined.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

fn choice<T: Default>(option: &'static str, said: Option<T>, site: Option<Traced<T>>) -> Traced<T> {
    said.map(|value| Traced::new(value, Origin::input(option)))
        .or(site)
        .unwrap_or_else(|| Traced::new(T::default(), Origin::rule("the default")))
}

/// Reads the name of a placement, for options.
///
/// # Errors
/// The names that there are.
pub fn placement(name: &str) -> Result<Placement, String> {
    named(name, PLACEMENTS)
}

/// Reads the name of a frontend node, for options.
///
/// # Errors
/// The names that there are.
pub fn frontend_node(name: &str) -> Result<FrontendNode, String> {
    named(name, FRONTEND_NODES)
}

fn named<T: Copy>(name: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        format!("must be one of: {}", names.join(", "))
    })
}

/// The site's settings and the plan for a configuration, in one step.
///
/// # Errors
/// All that is wrong with the inputs or that keeps them from making a plan.
pub fn plan(
    options: &Options,
    around: &Surroundings,
) -> Result<(crate::plan::Plan, Vec<Diagnostic>), Diagnostics> {
    plan_from(options, None, around)
}

/// [`plan`] from a configuration's text: no configuration file is read, and `options.config` is
/// what its path would be.
///
/// # Errors
/// As [`plan`].
pub fn plan_text(
    options: &Options,
    text: &Arc<Source>,
    around: &Surroundings,
) -> Result<(crate::plan::Plan, Vec<Diagnostic>), Diagnostics> {
    plan_from(options, Some(text), around)
}

fn plan_from(
    options: &Options,
    text: Option<&Arc<Source>>,
    around: &Surroundings,
) -> Result<(crate::plan::Plan, Vec<Diagnostic>), Diagnostics> {
    let (request, mut warnings) = build_from(options, text, around)?;
    match crate::plan::plan(&request) {
        Ok(plan) => Ok((plan, warnings)),
        Err(Diagnostics(errors)) => {
            warnings.extend(errors);
            Err(Diagnostics(warnings))
        }
    }
}
