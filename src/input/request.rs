// SPDX-License-Identifier: Apache-2.0
//! From the options, settings and configuration that a person gives to a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use super::settings::Options;
use super::settings::{self, Setting, Settings};
use super::slurm_args::{self, Program};
use super::test_list::{Entry, Pick};
use super::values::Choice;
use super::{Context, config, find, prefix_script, site, source, test_list};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::plan::command::Directories;
use crate::plan::request::{ContainerSettings, JobSettings, Request, TestNames};
use crate::plan::{Generation, Origin, TestId, Traced};

/// Builds the request, with warnings about its inputs.
///
/// # Errors
/// Everything that is wrong with the options, the settings and the configuration.
pub fn build(
    options: &Options,
    context: &Context,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    build_from(options, None, context)
}

/// [`build`], or, with the configuration's text, the same without reading a file:
/// `options.config` is then its path.
fn build_from(
    options: &Options,
    text: Option<&Arc<Source>>,
    context: &Context,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let settings = settings(options, context)?;
    match &options.test_list {
        Some(list) => {
            let tree = tree(&settings.all, context);
            let path = find::test_list(list, tree.as_deref(), &context.current_dir)?;
            let list = test_list::read(&path, list, options.rules)?;
            let pick = match (&options.test_match, options.test_number) {
                (Some(pattern), _) => Pick::Matching(pattern),
                (None, Some(number)) => Pick::Number(number),
                (None, None) => Pick::Only,
            };
            build_test(options, text, context, settings, Some(Named::of_entry(list.pick(pick)?)?))
        }
        None => {
            let named = options.test_id.as_deref().map(|id| Named::of_id(id, options.rules));
            build_test(options, text, context, settings, named.transpose()?)
        }
    }
}

/// Builds the request for one entry of a test list.
///
/// # Errors
/// As [`build`].
pub fn build_entry(
    options: &Options,
    context: &Context,
    entry: &Entry,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let settings = settings(options, context)?;
    build_test(options, None, context, settings, Some(Named::of_entry(entry)?))
}

/// The settings with and without those of the options.
struct Loaded {
    /// Of site.yaml and the environment.
    site: Settings,
    /// Of the options too.
    all: Settings,
}

fn settings(options: &Options, context: &Context) -> Result<Loaded, Diagnostics> {
    let mut errors = Diagnostics::default();
    let explicit = Settings::default().with(options, &mut errors);
    if errors.has_errors() {
        return Err(errors);
    }
    let site = site::load(context, explicit.site.as_ref().map(|site| site.value.as_path()))?;
    let all = site.with(options, &mut errors);
    Ok(Loaded { site, all })
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

/// The source tree that the settings name.
fn tree(settings: &Settings, context: &Context) -> Option<PathBuf> {
    let tree = settings.trtllm_dir.as_ref()?;
    Some(PathBuf::from(absolute(&context.current_dir, &tree.value)))
}

/// The file of the configuration, and the index of the id's reading that it belongs to.
fn find_config(
    options: &Options,
    named: Option<&Named>,
    tree: Option<&Path>,
    context: &Context,
    has_text: bool,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(PathBuf, usize), Diagnostic> {
    // A configuration that is given as text needs no file: its path is taken as it is.
    let locate = || match has_text {
        true => Ok(context.current_dir.join(&options.config)),
        false => find::config(&options.config, tree, &context.current_dir),
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
            .help("give the path with --config-file to choose one")
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
    context: &Context,
    Loaded { site, all: given }: Loaded,
    named: Option<Named>,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let tree = tree(&given, context);
    let mut warnings = Vec::new();
    let (path, index) = find_config(
        options,
        named.as_ref(),
        tree.as_deref(),
        context,
        text.is_some(),
        &mut warnings,
    )?;
    let secrets = given.secrets.as_ref().map_or(&[][..], |secrets| &secrets.value);
    let source = match text {
        Some(source) => Arc::clone(source),
        None if find::is_path(&options.config) => source::read(&path, &options.config)?,
        None => source::read(&path, &path.to_string_lossy())?,
    };
    source.hide(secrets);
    let (config, about_config) = config::read_text(&path, &source)?;
    warnings.extend(about_config);
    let base = match &given.prefix_script {
        Some(Traced { value: script, .. }) => {
            let source = source::read(&context.current_dir.join(script), script)?;
            source.hide(secrets);
            let (base, about_script) = prefix_script::parse(&source)?;
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
    let tree_around = find::source_dir_of(&path).map(|tree| {
        Traced::new(
            tree.to_string_lossy().into_owned(),
            Origin::input("the source tree that contains the configuration"),
        )
    });
    let models_of_base = base.as_ref().and_then(|base| {
        let (_, value) = base.env.iter().find(|(name, _)| *name == "LLM_MODELS_ROOT")?;
        let literal = value.value.is_literal().then(|| value.value.expand(|_| None).ok())?;
        Some(Traced::new(literal?, value.origin.clone()))
    });
    let path_of = |Traced { value, origin }: Traced<String>| {
        Traced::new(absolute(&context.current_dir, &value), origin)
    };
    let mut known = |what: &str, directory: Option<Traced<String>>, setting: &Setting| {
        directory.map(path_of).unwrap_or_else(|| {
            let message = format!("{what} is not known");
            errors.push(Diagnostic::error(message).help(setting.how_to_set()));
            Traced::default()
        })
    };
    let directories = Directories {
        source: known(
            "the TensorRT-LLM source tree",
            given.trtllm_dir.clone().or(tree_around),
            &settings::TRTLLM_DIR,
        ),
        models: known(
            "the models directory",
            given.models_dir.clone().or(models_of_base),
            &settings::MODELS_DIR,
        ),
        workspace: path_of(given.workspace.clone().unwrap_or_else(|| {
            Traced::new(
                format!("disagg_{}", config.name),
                Origin::rule("disagg_<config> in the current directory"),
            )
        })),
    };
    let mut extra =
        |program, of_site: &Option<_>, setting: &Setting, given_here: &Option<Vec<_>>| {
            let option = Origin::input(setting.option.unwrap_or(setting.name));
            let here = given_here
                .iter()
                .flatten()
                .map(|word: &String| Traced::new(word.clone(), option.clone()));
            slurm_args::check(program, each(of_site.clone()).chain(here), &given, &mut errors)
        };
    let job = JobSettings {
        sbatch_args: extra(
            Program::Sbatch,
            &site.sbatch_args,
            &settings::SBATCH_ARGS,
            &options.sbatch_args,
        ),
        srun_args: extra(Program::Srun, &site.srun_args, &settings::SRUN_ARGS, &options.srun_args),
        partition: given.partition,
        account: given.account,
        // The configuration's time limit stands between the two.
        time: options.time.as_ref().and(given.time),
        default_time: site.time,
        name: given.job_name,
        segment: given.segment,
        qos: given.qos,
        constraint: given.constraint,
        reservation: given.reservation,
        exclusive: given.exclusive,
        mem: given.mem,
        gpu_request: choice(given.gpu_request, &settings::GPU_REQUEST),
    };
    let request = Request {
        config,
        directories,
        test_id,
        base,
        stage: given.stage_name,
        ucx: given.ucx.map(|rows| rows.value).unwrap_or_default(),
        precheck: given.precheck,
        test: TestNames {
            module: or_default(module.or(given.perf_test_module), &settings::PERF_TEST_MODULE),
            function: or_default(
                function.or(given.perf_test_function),
                &settings::PERF_TEST_FUNCTION,
            ),
            prefix: or_default(given.perf_test_prefix, &settings::PERF_TEST_PREFIX),
        },
        rules: given.rules,
        placement: choice(given.placement, &settings::PLACEMENT),
        frontend_node: choice(given.frontend_node, &settings::FRONTEND_NODE),
        mpi: or_default(given.mpi, &settings::MPI),
        job,
        container: given.container_image.map(|image| ContainerSettings {
            image,
            mounts: each(given.container_mounts).collect(),
        }),
        run_script: given.run_script.map(path_of),
        install_script: given.install_script.map(path_of),
        secrets: given.secrets.map(|secrets| secrets.value).unwrap_or_default(),
    };
    if errors.has_errors() { Err(errors) } else { Ok((request, warnings)) }
}

/// The texts of a list, each with the list's origin.
fn each(list: Option<Traced<Vec<String>>>) -> impl Iterator<Item = Traced<String>> {
    let Traced { value, origin } = list.unwrap_or_default();
    value.into_iter().map(move |text| Traced::new(text, origin.clone()))
}

/// The text that is given, else the setting's default.
fn or_default(given: Option<Traced<String>>, setting: &Setting) -> Traced<String> {
    given.unwrap_or_else(|| setting.default_text())
}

/// The choice that is given, else the setting's default.
fn choice<T: Choice + Default>(given: Option<Traced<T>>, setting: &Setting) -> Traced<T> {
    given.unwrap_or_else(|| {
        let Traced { value, origin } = setting.default_text();
        Traced::new(T::named(&value).unwrap_or_default(), origin)
    })
}

fn absolute(current_dir: &Path, path: &str) -> String {
    let joined = current_dir.join(path).to_string_lossy().into_owned();
    match joined.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// The plan for a test.
///
/// # Errors
/// Everything that is wrong with the inputs or prevents a plan.
pub fn plan(
    options: &Options,
    context: &Context,
) -> Result<(crate::plan::Plan, Vec<Diagnostic>), Diagnostics> {
    plan_from(options, None, context)
}

/// [`plan`] from a configuration's text: no configuration file is read, and `options.config` is
/// what its path would be.
///
/// # Errors
/// As [`plan`].
pub fn plan_text(
    options: &Options,
    text: &Arc<Source>,
    context: &Context,
) -> Result<(crate::plan::Plan, Vec<Diagnostic>), Diagnostics> {
    plan_from(options, Some(text), context)
}

fn plan_from(
    options: &Options,
    text: Option<&Arc<Source>>,
    context: &Context,
) -> Result<(crate::plan::Plan, Vec<Diagnostic>), Diagnostics> {
    let (request, mut warnings) = build_from(options, text, context)?;
    match crate::plan::plan(&request) {
        Ok(plan) => Ok((plan, warnings)),
        Err(Diagnostics(errors)) => {
            warnings.extend(errors);
            Err(Diagnostics(warnings))
        }
    }
}
