// SPDX-License-Identifier: Apache-2.0
//! From the options, settings and configuration that a person gives to a request.

use std::path::{Path, PathBuf};
use std::sync::Arc;

mod engine;
mod job;
mod recipe;

pub use self::engine::profiles_folder;
use self::job::{job_settings, max_failed};
use super::launcher::Launcher;
pub use super::settings::Options;
use super::settings::{self, Setting, Settings};
use super::slurm_args::{self, OfGpus};
use super::test_list::{Entry, Pick};
use super::values::Choice;
use super::{Context, config, find, prefix_script, set, site, source, splits, test_list};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::plan::command::{BaseCommand, Directories, MODELS_ROOT};
use crate::plan::config::{Field, file_in_workspace};
use crate::plan::request::{ContainerSettings, JobSettings, Request, TestNames};
use crate::plan::rules::{CONFIG_FOLDERS, SPLITS};
use crate::plan::test_id::{Mode, node_id};
use crate::plan::{Generation, Origin, Placement, TestId, TestKind, Traced, pytest};

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
    let given = Given::new(options, context)?;
    let rules = given.generation();
    let Some(list) = &options.test_list else {
        let named = options.test_id.as_deref().map(|id| Named::of_id(id, rules));
        return build_test(options, text, context, given, named.transpose()?);
    };
    let list = given.list(list, context)?;
    let splits = rules.is_some_and(|rules| rules.is_in(SPLITS));
    let of_group = match (options.split_group, &given.base, &given.tree) {
        (Some(group), Some(base), Some(tree)) if splits => {
            splits::pick(&list, group, &base.options(), tree, &context.current_dir)?
        }
        _ => None,
    };
    let entry = match (of_group, &options.test_match) {
        (Some(entry), _) => entry,
        (None, Some(pattern)) => list.pick(Pick::Matching(pattern))?,
        (None, None) => {
            let number = options.split_group.or(options.test_number);
            list.pick(number.map_or(Pick::Only, Pick::Number))?
        }
    };
    build_test(options, text, context, given, Some(Named::of_entry(entry)?))
}

/// The test list that the options name.
///
/// # Errors
/// It is not there or cannot be read.
pub fn list(
    name: &str,
    options: &Options,
    context: &Context,
) -> Result<test_list::TestList, Diagnostics> {
    Given::new(options, context)?.list(name, context)
}

/// The source tree that options and settings name.
///
/// # Errors
/// What is wrong with the settings.
pub fn tree(options: &Options, context: &Context) -> Result<Option<PathBuf>, Diagnostics> {
    Ok(Given::new(options, context)?.tree)
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
    let given = Given::new(options, context)?;
    build_test(options, None, context, given, Some(Named::of_entry(entry)?))
}

/// What is known before the test is.
struct Given {
    /// The settings of site.yaml and the environment.
    site: Settings,
    /// Those of the options too.
    all: Settings,
    /// The source tree.
    tree: Option<PathBuf>,
    /// The rules that an option or the source tree decides on.
    rules: Option<Traced<Generation>>,
    /// Whether the tests of the source tree have prechecks.
    has_prechecks: bool,
    /// The command of the script prefix.
    base: Option<BaseCommand>,
    warnings: Vec<Diagnostic>,
}

impl Given {
    fn new(options: &Options, context: &Context) -> Result<Self, Diagnostics> {
        let mut errors = Diagnostics::default();
        let explicit = Settings::default().with(options, &mut errors);
        if errors.has_errors() {
            return Err(errors);
        }
        let site = site::load(context, explicit.site.as_ref().map(|site| site.value.as_path()))?;
        let all = site.with(options, &mut errors);
        let named = all.trtllm_dir.as_ref();
        let tree = named.map(|tree| PathBuf::from(absolute(&context.current_dir, &tree.value)));
        let tree = tree.or_else(|| {
            let is_path = find::is_path(&options.config);
            find::source_dir_of(&context.current_dir.join(&options.config)).filter(|_| is_path)
        });
        let mut warnings = Vec::new();
        let launcher = tree.as_deref().and_then(Launcher::of_tree);
        let has_cluster = options.cluster_name.is_some();
        let by_option =
            has_cluster.then(|| (Generation::Current, "--cluster-name is given".into()));
        let by_tree = |launcher: &Launcher| Some((launcher.rules()?, launcher.why.clone()));
        let found = launcher.as_ref().and_then(by_tree).or(by_option);
        let rules = all.rules.clone().or_else(|| {
            found.map(|(rules, why): (_, String)| Traced::new(rules, Origin::rule(why)))
        });
        let mut has_prechecks = true;
        if let Some(Launcher { note, has_precheck, .. }) = launcher {
            warnings.extend(note.filter(|_| all.rules.is_none()));
            has_prechecks = has_precheck || all.precheck.is_some();
        }
        let base = match &all.prefix_script {
            Some(Traced { value: script, .. }) => {
                let (base, about_script) = {
                    let source = source::read(&context.current_dir.join(script), script)?;
                    source.hide(all.secrets.as_ref().map_or(&[][..], |secrets| &secrets.value));
                    prefix_script::parse(&source)?
                };
                warnings.extend(about_script);
                Some(base)
            }
            None => None,
        };
        Ok(Self { site, all, tree, rules, has_prechecks, base, warnings })
    }

    fn generation(&self) -> Option<Generation> {
        self.rules.as_ref().map(|rules| rules.value)
    }

    fn list(&self, name: &str, context: &Context) -> Result<test_list::TestList, Diagnostics> {
        let path = find::test_list(name, self.tree.as_deref(), &context.current_dir)?;
        test_list::read(&path, name, self.generation())
    }
}

/// A test that is named by its id.
struct Named<'e> {
    readings: Vec<TestId>,
    /// The entry of a list that names it.
    entry: Option<&'e Entry>,
    origin: Origin,
}

impl<'e> Named<'e> {
    fn of_id(id: &str, rules: Option<Generation>) -> Result<Self, Diagnostic> {
        let readings = TestId::readings(id, rules)
            .map_err(|error| Diagnostic::error(error.message).help(error.help))?;
        Ok(Self { readings, entry: None, origin: Origin::input("--test-id") })
    }

    fn of_entry(entry: &'e Entry) -> Result<Self, Diagnostic> {
        let origin = Origin {
            input: format!("test {} of the list", entry.number).into(),
            location: Some(entry.location.clone()),
            ..Origin::default()
        };
        Ok(Self { readings: entry.readings.clone()?, entry: Some(entry), origin })
    }
}

/// The file of the configuration, and the index of the id's reading that it belongs to.
fn find_config(
    options: &Options,
    named: Option<&Named<'_>>,
    given: &Given,
    context: &Context,
    has_text: bool,
    warnings: &mut Vec<Diagnostic>,
) -> Result<(PathBuf, usize), Diagnostic> {
    let tree = given.tree.as_deref();
    // A configuration that is given as text needs no file: its path is taken as it is.
    let locate = || match has_text {
        true => Ok(context.current_dir.join(&options.config)),
        false => find::config(&options.config, given.generation(), tree, &context.current_dir),
    };
    let Some(named) = named else {
        if options.config.is_empty() {
            return Err(Diagnostic::error("no test is named")
                .help("give a configuration, --test-id or --test-list"));
        }
        return Ok((locate()?, 0));
    };
    if options.config.is_empty() {
        let id = &named.readings[0];
        let folder = (context.env)(id.kind.config_variable());
        let folder = folder.filter(|_| id.generation.is_in(CONFIG_FOLDERS));
        let found = find::config_of_test(&named.readings, folder.as_deref(), tree)
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
        let message = format!(
            "the test id {} names the configuration {}, but {} is used",
            id.text,
            id.config,
            path.display()
        );
        if id.generation.is_in(CONFIG_FOLDERS) {
            let help = "rename the file: the test looks for it by the name in its id";
            return Err(Diagnostic::error(message).help(help));
        }
        warnings.push(Diagnostic::warning(message));
    }
    Ok((path, index.unwrap_or_default()))
}

fn build_test(
    options: &Options,
    text: Option<&Arc<Source>>,
    context: &Context,
    mut known: Given,
    named: Option<Named<'_>>,
) -> Result<(Request, Vec<Diagnostic>), Diagnostics> {
    let mut warnings = std::mem::take(&mut known.warnings);
    let (path, index) =
        find_config(options, named.as_ref(), &known, context, text.is_some(), &mut warnings)?;
    let Given { site, all: given, rules, has_prechecks, base, .. } = known;
    let source = match text {
        Some(source) => Arc::clone(source),
        None if find::is_path(&options.config) => source::read(&path, &options.config)?,
        None => source::read(&path, &path.to_string_lossy())?,
    };
    let changes = set::sources(&options.set);
    for source in changes.iter().chain([&source]) {
        source.hide(given.secrets.as_ref().map_or(&[][..], |secrets| &secrets.value));
    }
    let (mut config, about_config) = config::read_text(&path, &source, &changes)?;
    warnings.extend(about_config);
    let entry = named.as_ref().and_then(|named| named.entry);
    let test_id = named
        .map(|Named { mut readings, origin, .. }| Traced::new(readings.swap_remove(index), origin));
    warnings.extend(test_id.as_ref().into_iter().flat_map(about_id));
    let of_entry = |text: fn(&Entry) -> Option<&String>| {
        let origin = test_id.as_ref()?.origin.clone();
        Some(Traced::new(text(entry?)?.clone(), origin))
    };
    let test = TestNames {
        module: or_default(
            of_entry(|entry| entry.module.as_ref()).or(given.perf_test_module.clone()),
            &settings::PERF_TEST_MODULE,
        ),
        function: or_default(
            of_entry(|entry| entry.function.as_ref()).or(given.perf_test_function.clone()),
            &settings::PERF_TEST_FUNCTION,
        ),
        prefix: or_default(given.perf_test_prefix.clone(), &settings::PERF_TEST_PREFIX),
    };

    let mut errors = Diagnostics::default();
    if let Some(placement) = given.placement.as_ref().filter(|p| p.value == Placement::Compact) {
        let error = Diagnostic::error(
            "tests cannot be placed `compact`: their servers start on nodes of \
                                       their own, or packed",
        )
        .at(placement.origin.location.clone());
        errors.push(error.help("use --placement exclusive or packed"));
    }
    if options.interface.is_some() {
        let message =
            "--interface is for recipes: a test finds the addresses of its servers itself";
        errors.push(Diagnostic::error(message));
    }
    let tree_around = find::source_dir_of(&path).map(|tree| {
        Traced::new(
            tree.to_string_lossy().into_owned(),
            Origin::input("the source tree that contains the configuration"),
        )
    });
    let models_of_base = base.as_ref().and_then(|base| {
        let (_, value) = base.env.iter().find(|(name, _)| *name == MODELS_ROOT)?;
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
            given.models_dir.clone().or(models_of_base.clone()),
            &settings::MODELS_DIR,
        ),
        workspace: path_of(given.workspace.clone().unwrap_or_else(|| {
            Traced::new(
                format!("disagg_{}", config.name),
                Origin::rule("disagg_<config> in the current directory"),
            )
        })),
    };
    if config.changed.is_some() {
        // The test reads it there.
        config.path =
            format!("{}/{}", directories.workspace.value, file_in_workspace(&config.name));
    }
    let mut job = JobSettings {
        // The configuration's time limit stands between the two.
        time: options.time.as_ref().and(given.time.clone()),
        default_time: site.time.clone(),
        ..job_settings(&[&site], &given, options, &mut errors)
    };
    let asked = &config.slurm;
    job.partition = job.partition.or_else(|| asked.partition.get(&mut errors).cloned());
    job.account = job.account.or_else(|| asked.account.get(&mut errors).cloned());
    if let Some(line) = asked.extra_args.get(&mut errors) {
        let gpus = match &config.hardware.gpus_per_node {
            Field::Good(gpus) => Some(gpus.value),
            _ => None,
        };
        let of_config = slurm_args::of_config(line, gpus, &given, OfGpus::ByPlan, &mut warnings);
        job.sbatch_args.splice(0..0, of_config);
    }
    warnings.extend(unused(&asked.unused));
    let variable = |name: &'static str| {
        let value = (context.env)(name).filter(|value| !value.is_empty())?;
        Some(Traced::new(value, Origin::input(format!("environment variable {name}"))))
    };
    let source_dir = Path::new(&directories.source.value);
    let skipped = match (&test_id, entry) {
        (None, _) => None,
        (Some(id), entry) => {
            let of_names = node_id(&test.module.value, &test.function.value, &id.value.text);
            let node = entry.map_or(of_names.as_str(), Entry::node_id);
            let options = base.as_ref().map(BaseCommand::options).unwrap_or_default();
            let prefix = pytest::value_of(&options, &["--test-prefix"]);
            splits::skipped(node, entry, prefix, source_dir)?
        }
    };
    let kind = match &test_id {
        Some(id) => id.value.kind,
        None if config.is_aggregated() => TestKind::Aggregated,
        None => TestKind::Disaggregated,
    };
    let is_piped = base.is_some();
    let request = Request {
        models_root: models_of_base
            .or_else(|| variable(MODELS_ROOT).filter(|_| is_piped))
            .unwrap_or_else(|| directories.models.clone()),
        // A pipeline says on which cluster its script will run; here may be another.
        cluster: given
            .cluster_name
            .or_else(|| variable("SLURM_CLUSTER_NAME").filter(|_| !is_piped))
            .unwrap_or_default(),
        config_folder: config_folder(
            Path::new(&config.path),
            kind,
            source_dir,
            variable(kind.config_variable()),
        ),
        skipped,
        config,
        directories,
        test_id,
        base,
        stage: given.stage_name,
        ucx: given.ucx.map(|rows| rows.value).unwrap_or_default(),
        precheck: given.precheck,
        has_prechecks,
        max_failed: max_failed(given.max_failed),
        test,
        rules,
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
    if !errors.has_errors() {
        return Ok((request, warnings));
    }
    // What is wrong with the configuration does not depend on them: all is said at once.
    if let Err(of_config) = crate::plan::plan(&request) {
        of_config.0.into_iter().for_each(|error| errors.push_once(error));
    }
    Err(errors)
}

/// Keys that ask for something that a test's job does not get from its configuration, in one warning.
fn unused(keys: &[Traced<()>]) -> Option<Diagnostic> {
    let (first, others) = keys.split_first()?;
    let others = others.iter().map(|key| {
        let at = key.origin.location.as_ref();
        let line = at.map(|at| format!(" (line {})", at.position.line)).unwrap_or_default();
        format!("{}{line}", key.origin.input)
    });
    let names = std::iter::once(first.origin.input.to_string()).chain(others);
    let names = names.collect::<Vec<_>>().join(", ");
    let message = format!("not used for the test's job: {names}");
    let help = format!(
        "they are for the benchmark script beside TensorRT-LLM's examples; --set engine={} plans that, \
         and --time, --container-image and site.yaml's container_mounts ask for the like here",
        super::recipe::BENCHMARK_ENGINE
    );
    Some(Diagnostic::note(message).at(first.origin.location.clone()).help(help))
}

/// What is unusual about a test id.
fn about_id(Traced { value: id, origin }: &Traced<TestId>) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut warn = |message: String, help: &str| {
        found.push(Diagnostic::warning(message).at(origin.location.clone()).help(help));
    };
    if !id.has_usual_prefix() {
        let message = format!("the prefix {} of test id {} is unusual", id.prefix, id.text);
        warn(message, "usual prefixes: disagg, disagg_upload, aggr, aggr_upload");
    }
    if let (Some(modifier), Some(Mode::GenOnly | Mode::GenOnlyNoContext)) = (id.modifier, id.mode) {
        let message = format!("the test suite has no {modifier} variant of gen_only tests");
        warn(message, "write the id without it");
    }
    let is_newest = id.generation == Generation::NEWEST;
    if is_newest && id.server.is_some() && id.config.contains('-') {
        let message =
            format!("the test suite takes only the first part of {} for the name", id.config);
        warn(message, "rename the configuration without hyphens");
    }
    found
}

/// The folder of a configuration, where the test does not look into it by itself: it knows one
/// below the source tree, and that of a variable, which its container may not have.
fn config_folder(
    path: &Path,
    kind: TestKind,
    source_dir: &Path,
    variable: Option<Traced<String>>,
) -> Option<Traced<String>> {
    let folder = path.parent()?;
    let usual = source_dir.join(Generation::NEWEST.config_dirs(kind)[0]);
    let is_same = |other: &Path| {
        let real = |path: &Path| path.canonicalize().ok();
        folder == other || (real(folder).is_some() && real(folder) == real(other))
    };
    let given = variable.filter(|given| is_same(&source_dir.join(&given.value)));
    if given.is_none() && is_same(&usual) {
        return None;
    }
    let rule = "the folder in which the test looks for its configuration";
    let origin = given.map_or(Origin::input("the configuration's path"), |given| given.origin);
    Some(Traced::new(folder.to_string_lossy().into_owned(), origin.by_rule(rule)))
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
    // Without `.` in it.
    let joined: PathBuf = current_dir.join(path).components().collect();
    let joined = joined.to_string_lossy().into_owned();
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
    let (plan, mut warnings) = match engine::recipe_of(options, text, context)? {
        Some(found) => engine::plan_recipe(options, &found, context)?,
        None => {
            let (request, warnings) = build_from(options, text, context)?;
            (crate::plan::plan(&request), warnings)
        }
    };
    match plan {
        Ok(plan) => Ok((plan, warnings)),
        Err(Diagnostics(errors)) => {
            warnings.extend(errors);
            Err(Diagnostics(warnings))
        }
    }
}
