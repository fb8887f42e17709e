// SPDX-License-Identifier: Apache-2.0
//! The settings, each described once. Options and their help, site.yaml, the environment,
//! plugstack.conf, the origins that `explain` shows, and the documentation all come from this
//! table.
//!
//! For a new setting, add a row, and use its field in [`super::request`].

use std::fmt;
use std::path::PathBuf;

use super::fields::{Fields, Section};
use super::values::{Form, Shape, Value};
use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::plan::config::Field;
use crate::plan::request::{GpuRequest, Switch};
use crate::plan::{FrontendNode, Generation, Origin, Placement, Traced, ucx};

/// One setting: what it is called in each place, what it means, and which values it has.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its field in [`Options`] and [`Settings`].
    pub name: &'static str,
    /// What it means: a sentence without its full stop.
    pub meaning: &'static str,
    /// The command-line option, with its dashes.
    pub option: Option<&'static str>,
    /// The name of the option's value in help texts.
    pub value_name: &'static str,
    /// The environment variable.
    pub variable: Option<&'static str>,
    /// Whether it may stand in plugstack.conf, under its name.
    pub plugstack: bool,
    /// The key of site.yaml.
    pub key: Option<&'static str>,
    /// The key of the test configuration, and which of the two files wins.
    pub config: Option<(&'static str, Wins)>,
    /// The value where no source has one, or what decides then.
    pub default: Option<&'static str>,
    /// What documentation shows as an example of its value in site.yaml.
    pub example: &'static str,
    /// How many values it has.
    pub shape: Shape,
    /// Its values, where they are a closed set.
    pub values: fn() -> Vec<&'static str>,
    form: Form,
}

/// Which of two files wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wins {
    /// The test configuration, over site.yaml.
    Config,
    /// site.yaml, over the test configuration.
    Site,
}

/// A place that a setting is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// An option of the command.
    Option(&'static str),
    /// An environment variable.
    Variable(&'static str),
    /// An argument of the plugin in plugstack.conf.
    Plugstack(&'static str),
    /// A key of site.yaml.
    Site(&'static str),
    /// A key of the test configuration.
    Config(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(option) => f.write_str(option),
            Self::Variable(name) => write!(f, "{name} (environment)"),
            Self::Plugstack(name) => write!(f, "{name}= (plugstack.conf)"),
            Self::Site(key) => write!(f, "{key} (site.yaml)"),
            Self::Config(key) => write!(f, "{key} (configuration)"),
        }
    }
}

impl Setting {
    const fn new(meaning: &'static str) -> Self {
        Self {
            name: "",
            meaning,
            option: None,
            value_name: "",
            variable: None,
            plugstack: false,
            key: None,
            config: None,
            default: None,
            example: "",
            shape: Shape::One,
            values: Vec::new,
            form: Form::Line,
        }
    }

    const fn option(self, option: &'static str, value_name: &'static str) -> Self {
        Self { option: Some(option), value_name, ..self }
    }

    const fn variable(self, variable: &'static str) -> Self {
        Self { variable: Some(variable), ..self }
    }

    const fn key(self, key: &'static str, example: &'static str) -> Self {
        Self { key: Some(key), example, ..self }
    }

    const fn config(self, key: &'static str, wins: Wins) -> Self {
        Self { config: Some((key, wins)), ..self }
    }

    const fn plugstack(self) -> Self {
        Self { plugstack: true, ..self }
    }

    const fn default(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    const fn form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// Where it is taken from; the first place that has a value wins.
    pub fn places(&self) -> Vec<Place> {
        let config =
            |wins| self.config.filter(|(_, w)| *w == wins).map(|(key, _)| Place::Config(key));
        [
            self.option.map(Place::Option),
            self.variable.map(Place::Variable),
            self.plugstack.then_some(Place::Plugstack(self.name)),
            config(Wins::Config),
            self.key.map(Place::Site),
            config(Wins::Site),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The text of the option's help: the meaning, the other places in their order, the default.
    pub fn help(&self) -> String {
        let mut help = self.meaning.to_owned();
        for place in self.places() {
            help += &match place {
                Place::Option(_) | Place::Plugstack(_) => continue,
                Place::Variable(name) => format!(" [environment: {name}]"),
                Place::Site(key) => format!(" [site.yaml: {key}]"),
                Place::Config(key) => format!(" [configuration: {key}]"),
            };
        }
        if let Some(default) = self.default {
            help += &format!(" [default: {default}]");
        }
        help
    }

    /// Advice for somebody who must set it: `set --models-dir or models_dir (site.yaml)`.
    pub fn how_to_set(&self) -> String {
        let places: Vec<_> = self
            .places()
            .into_iter()
            .filter(|place| !matches!(place, Place::Config(_) | Place::Plugstack(_)))
            .map(|place| place.to_string())
            .collect();
        match places.split_last() {
            Some((last, [])) => format!("set {last}"),
            Some((last, others)) => format!("set {} or {last}", others.join(", ")),
            None => String::new(),
        }
    }

    /// The value for which no source is needed, with its origin.
    pub(super) fn default_text(&self) -> Traced<String> {
        Traced::new(self.default.unwrap_or_default().to_owned(), Origin::rule("the default"))
    }
}

macro_rules! settings {
    ($($constant:ident $field:ident: $type:ty = $row:expr;)*) => {
        $(
            #[doc = concat!("The row of [`Settings::", stringify!($field), "`].")]
            pub const $constant: Setting = Setting {
                name: stringify!($field),
                shape: <$type as Value>::SHAPE,
                values: <$type as Value>::names,
                ..$row
            };
        )*

        /// All settings, in the order in which help texts and documentation have them.
        pub const TABLE: &[Setting] = &[$($constant),*];

        /// What is given on a command line, or by a program: the test, and any of the settings.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Options {
            /// The configuration, by name or path; may be empty where a test id or list names it.
            pub config: String,
            /// The test id.
            pub test_id: Option<String>,
            /// A test list, by name or path, that names the test.
            pub test_list: Option<String>,
            /// Which entry of the list, from 1; 0 and less mean the first, as shards are counted.
            pub test_number: Option<i64>,
            /// The group of pytest-split whose test is meant; 0 and less mean the first test.
            pub split_group: Option<i64>,
            /// Which test of the list: its id, a part of it, or a pattern with `*`.
            pub test_match: Option<String>,
            /// Values of the configuration in place of the file's ([`super::set`]).
            pub set: Vec<String>,
            $(
                #[doc = concat!("See [`", stringify!($constant), "`].")]
                pub $field: Option<$type>,
            )*
        }

        /// Settings with the place that each comes from. One that no source has is absent.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Settings {
            $(
                #[doc = concat!("See [`", stringify!($constant), "`].")]
                pub $field: Option<Traced<$type>>,
            )*
        }

        impl Options {
            /// Takes the text of an option; one of a list is added to it.
            ///
            /// # Errors
            /// The values that there are, where they are a closed set.
            pub fn set(&mut self, setting: &Setting, text: &str) -> Result<(), String> {
                $(if setting.name == $constant.name {
                    return Value::take(&mut self.$field, text);
                })*
                Err(format!("there is no setting {}", setting.name))
            }
        }

        impl Settings {
            /// Whether a source has a value for a setting.
            pub fn has(&self, setting: &Setting) -> bool {
                $((setting.name == $constant.name && self.$field.is_some()) ||)* false
            }

            /// Takes over what site.yaml has.
            pub(super) fn read<'d>(&mut self, fields: &mut Fields<'d>, root: &Section<'d>) {
                $(if let Some(key) = $constant.key
                    && let Field::Good(found) = Value::read(fields, root, key)
                {
                    let at = found.origin.location.clone();
                    take(&mut self.$field, found, &$constant, key, at, &mut fields.diagnostics);
                })*
            }

            /// Takes over a text from another place.
            pub(super) fn put(
                &mut self,
                setting: &Setting,
                text: Traced<String>,
                errors: &mut Diagnostics,
            ) {
                let Traced { value, origin } = text;
                let (name, at) = (origin.input.to_string(), origin.location.clone());
                $(if setting.name == $constant.name {
                    let mut found = None;
                    if let Err(what) = Value::take(&mut found, &value) {
                        errors.push(Diagnostic::error(format!("{name}: {what}")).at(at.clone()));
                    }
                    if let Some(value) = found {
                        let found = Traced::new(value, origin.clone());
                        take(&mut self.$field, found, &$constant, &name, at.clone(), errors);
                    }
                })*
            }

            /// Takes over what the environment has.
            pub(super) fn read_environment(
                &mut self,
                env: &dyn Fn(&str) -> Option<String>,
                errors: &mut Diagnostics,
            ) {
                $(if let Some(variable) = $constant.variable
                    && let Some(text) = env(variable)
                {
                    let name = format!("environment variable {variable}");
                    let mut found = None;
                    match Value::take_variable(&mut found, &text) {
                        Ok(()) => {}
                        Err(what) => errors.push(Diagnostic::error(format!("{name}: {what}"))),
                    }
                    if let Some(value) = found {
                        let found = Traced::new(value, Origin::input(name.clone()));
                        take(&mut self.$field, found, &$constant, &name, None, errors);
                    }
                })*
            }

            /// These settings and over them those of another place.
            pub(super) fn over(mut self, other: &Self) -> Self {
                $(if other.$field.is_some() {
                    self.$field = other.$field.clone();
                })*
                self
            }

            /// These settings and over them those that are given on a command line.
            pub(super) fn with(&self, options: &Options, errors: &mut Diagnostics) -> Self {
                let mut all = self.clone();
                $(if let Some(value) = &options.$field {
                    let name = $constant.option.unwrap_or($constant.name);
                    let found = Traced::new(value.clone(), Origin::input(name));
                    take(&mut all.$field, found, &$constant, name, None, errors);
                })*
                all
            }
        }
    };
}

/// Takes over a value from a place with a name, unless something is wrong with it.
fn take<T: Value>(
    slot: &mut Option<Traced<T>>,
    found: Traced<T>,
    setting: &Setting,
    name: &str,
    at: Option<Location>,
    errors: &mut Diagnostics,
) {
    match found.value.check(setting.form) {
        Ok(()) => *slot = Some(found),
        Err(what) => errors.push(Diagnostic::error(format!("{name}{what}")).at(at)),
    }
}

settings! {
    SITE site: PathBuf = Setting::new(
        "Settings file to read instead of /etc/slurm-disagg/site.yaml and \
         ~/.config/slurm-disagg/site.yaml",
    ).option("--site", "FILE").plugstack();

    TRTLLM_DIR trtllm_dir: String = Setting::new("TensorRT-LLM source tree")
        .option("--trtllm-dir", "DIR").key("trtllm_dir", "/lustre/share/TensorRT-LLM")
        .default("the tree that contains the configuration");

    MODELS_DIR models_dir: String = Setting::new("Directory of the models")
        .option("--models-dir", "DIR").variable("CLUSTER_LLM_DATA")
        .key("models_dir", "/lustre/share/models").default("LLM_MODELS_ROOT of the script prefix");

    WORKSPACE workspace: String = Setting::new("Directory for the files and results of the run")
        .option("--workspace", "DIR").default("disagg_CONFIG in the current directory");

    PREFIX_SCRIPT prefix_script: String = Setting::new(
        "Script prefix that holds the base command: export pytestCommand=\"…\"",
    ).option("--prefix-script", "FILE");

    STAGE_NAME stage_name: String = Setting::new(
        "Name of the pipeline's stage, which names the GPU generation (for the setup of UCX)",
    ).option("--stage-name", "NAME").form(Form::MayBeEmpty);

    CLUSTER_NAME cluster_name: String = Setting::new(
        "Name of the cluster (for the setup of UCX, by the current rules)",
    ).option("--cluster-name", "NAME").key("cluster_name", "aws-cmh-cs-001")
        .default("SLURM_CLUSTER_NAME, unless a script prefix is given").form(Form::MayBeEmpty);

    RULES rules: Generation = Setting::new(
        "Rule set: for configurations without a mode in the test id (classic), with one (unified), \
         or with UCX by cluster too (current)",
    )
        .option("--rules", "RULES")
        .default("that of the source tree's launcher, or of the form of the test id");

    PERF_TEST_MODULE perf_test_module: String = Setting::new(
        "Pytest module: MODULE of MODULE::FUNCTION[PREFIX-CONFIG]",
    ).variable("PERF_TEST_MODULE").key("perf_test_module", "perf/test_perf_sanity.py")
        .default("perf/test_perf_sanity.py");

    PERF_TEST_FUNCTION perf_test_function: String = Setting::new(
        "Test function: FUNCTION of MODULE::FUNCTION[PREFIX-CONFIG]",
    ).variable("PERF_TEST_FUNCTION").key("perf_test_function", "test_e2e").default("test_e2e");

    PERF_TEST_PREFIX perf_test_prefix: String = Setting::new(
        "Prefix of the test id: PREFIX of MODULE::FUNCTION[PREFIX-CONFIG]",
    ).variable("PERF_TEST_PREFIX").key("perf_test_prefix", "disagg_upload")
        .default("disagg_upload");

    PLACEMENT placement: Placement = Setting::new(
        "How servers share nodes: each server has its own nodes (exclusive), servers smaller \
         than a node share nodes (packed), or each begins at the GPU after the last of the one before \
         (compact; recipes alone)",
    ).option("--placement", "HOW").plugstack().key("placement", "exclusive")
        .default("exclusive");

    FRONTEND_NODE frontend_node: FrontendNode = Setting::new(
        "Node of the router and the client: the job's first or last node, the first node of the \
         context servers (ctx), or a node of their own (own)",
    ).option("--frontend-node", "WHERE").key("frontend_node", "first").default("first");

    INTERFACE interface: String = Setting::new(
        "Network interface at whose IPv4 addresses the nodes of a recipe's job reach each other; `launch` \
         asks each node for its own",
    ).option("--interface", "NAME").key("interface", "ib0").default("the nodes' names")
        .form(Form::Interface);

    PARTITION partition: String = Setting::new("Slurm partition")
        .option("--partition", "NAME").variable("CLUSTER_PARTITION").key("partition", "batch")
        .config("slurm.partition", Wins::Site)
        .default("Slurm's");

    ACCOUNT account: String = Setting::new("Slurm account")
        .option("--account", "NAME").variable("CLUSTER_ACCOUNT").key("account", "llm")
        .config("slurm.account", Wins::Site)
        .default("Slurm's");

    QOS qos: String = Setting::new("Slurm quality of service")
        .option("--qos", "NAME").key("qos", "normal").default("Slurm's");

    RESERVATION reservation: String = Setting::new("Slurm reservation")
        .option("--reservation", "NAME").key("reservation", "gb200_tests");

    CONSTRAINT constraint: String = Setting::new("Node features that the job needs, as for sbatch")
        .option("--constraint", "FEATURES").key("constraint", "gb200&nvme");

    EXCLUSIVE exclusive: bool = Setting::new("Whether the job has its nodes for itself")
        .option("--exclusive", "true|false").key("exclusive", "true").default("false");

    MEM mem: String = Setting::new("Memory of each node, in Slurm's form: 64G, 1500M or 0 (all)")
        .option("--mem", "SIZE").key("mem", "'0'").default("Slurm's").form(Form::Memory);

    GPU_REQUEST gpu_request: GpuRequest = Setting::new(
        "How the job asks for its GPUs: with --gpus-per-node (per-node), with --gres=gpu:N \
         (gres), with --gpus too, where a rule of the site wants it (total), or not at all, for clusters whose Slurm does not count GPUs (none)",
    ).option("--gpu-request", "HOW").key("gpu_request", "per-node").default("per-node");

    TIME time: String = Setting::new("Time limit of the job, in Slurm's form")
        .option("--time", "TIME").config("slurm.job_time", Wins::Config).key("time", "04:00:00")
        .default("04:00:00").form(Form::Time);

    JOB_NAME job_name: String = Setting::new("Name of the job")
        .option("--job-name", "NAME").key("job_name", "disagg_perf_test")
        .default("disagg_perf_test");

    SEGMENT segment: bool = Setting::new(
        "Whether this cluster's Slurm has --segment (24.05 or later, topology/block): only then a \
         configuration's slurm.set_segment is used",
    ).key("segment", "false").default("false");

    SBATCH_ARGS sbatch_args: Vec<String> = Setting::new(
        "Further options for sbatch, each as --name=value; those of the command line are added to \
         those of site.yaml, and these to those of the configuration (one line of words). One that \
         contradicts the plan is an error, in the configuration a warning",
    ).option("--sbatch-arg", "OPTION").key("sbatch_args", "[--mail-type=END]")
        .config("slurm.extra_args", Wins::Site);

    SRUN_ARGS srun_args: Vec<String> = Setting::new(
        "Further options for the srun of each step, as for sbatch",
    ).option("--srun-arg", "OPTION").key("srun_args", "[--cpu-bind=none]");

    MPI mpi: String = Setting::new("MPI type of the servers' steps, as for srun")
        .option("--mpi", "TYPE").variable("MPI_TYPE").key("mpi_type", "pmix").default("pmix");

    CONTAINER_IMAGE container_image: String = Setting::new("Image that the steps run in (pyxis)")
        .option("--container-image", "IMAGE").variable("DOCKER_IMAGE")
        .key("container_image", "/lustre/share/images/tensorrt_llm.sqsh").default("no container");

    CONTAINER_MOUNTS container_mounts: Vec<String> = Setting::new(
        "Mounts besides the source tree, the models and the workspace, each SOURCE:TARGET[:FLAGS]",
    ).key("container_mounts", "[/lustre/share/datasets:/datasets]");

    RUN_SCRIPT run_script: String = Setting::new(
        "Script that each step runs instead of its command, with pytestCommand and \
         DISAGG_SERVING_TYPE in its environment",
    ).option("--run-sh", "FILE").key("run_script", "/lustre/share/scripts/slurm_run.sh");

    INSTALL_SCRIPT install_script: String = Setting::new(
        "Script that runs on every node before the servers start; it runs again when it fails to \
         start on a node, and when the job is requeued",
    ).option("--install-sh", "FILE")
        .key("install_script", "/lustre/share/scripts/slurm_install.sh");

    PRECHECK precheck: Switch = Setting::new(
        "Whether caches are checked before the servers start, by rule sets with such a check; the \
         variable takes 1 and 0, and under the current rules true, on, yes, false, off and no too",
    ).variable("TRTLLM_DISAGG_CT_PRECHECK").key("precheck", "false")
        .config("cache_transceiver_precheck.enabled", Wins::Site).default("true");

    MAX_FAILED max_failed: String = Setting::new(
        "Part of the benchmark's requests that may fail in a run that passes, in percent. A \
         benchmark that completes nothing never passes",
    ).option("--max-failed", "PERCENT").key("max_failed", "0.5%").default("0%")
        .form(Form::Percent);

    UCX ucx: Vec<ucx::Row> = Setting::new(
        "How UCX is set up: a list of `cluster:` and `gpu:` (patterns with * and ?, such as aws*; at \
         least one of them), `unset:` (names of variables) and `export:` ('NAME=VALUE …')",
    ).key("ucx", "[{cluster: 'aws*', gpu: GB200, export: 'UCX_NET_DEVICES=mlx5_0:1'}]");

    PROFILES profiles: String = Setting::new(
        "Folder of engines' profiles; those in it come before those that are built in",
    ).option("--profiles", "DIR").key("profiles", "/lustre/share/profiles")
        .default("/etc/slurm-disagg/profiles");

    SECRETS secrets: Vec<String> = Setting::new(
        "Variables whose values are never shown, besides those whose names say so (`*_TOKEN`, \
         `*_API_KEY`, `*SECRET*`, `*PASSWORD*`, `AWS_*` and the like) and all that refer to one; \
         `-NAME` takes a name out",
    ).key("secrets", "[PROXY_LOGIN, -MY_TEST_TOKEN]");
}
