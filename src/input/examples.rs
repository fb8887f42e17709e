// SPDX-License-Identifier: Apache-2.0
//! The configuration of TensorRT-LLM's Slurm benchmark (`examples/disaggregated/slurm/benchmark`,
//! `config.yaml`), read as a recipe. docs/recipes.md says what each key means, and where the plan is
//! not what that benchmark's own scripts would do.

mod benchmark;
mod environment;
mod values;

use std::collections::HashSet;

use indexmap::IndexMap;

use super::config::time_limit;
use super::fields::{Fields, Section};
use super::profile::good;
use super::recipe::{Around, MAX_GPUS_PER_NODE, MAX_LIMIT, Read};
use super::scalar::{Scalar, classify};
use super::settings::{self, Settings};
use super::yaml::{Document, Node, Value, is_null};
use crate::diagnostic::{Diagnostic, Severity, nearest};
use crate::plan::content::Content;
use crate::plan::expr::Pattern;
use crate::plan::layout::MAX_COUNT;
use crate::plan::origin::{Label, Origin, Traced};
use crate::plan::recipe::{ExtraStep, Recipe, RecipeRole};
use crate::plan::role::Purpose;
use crate::plan::template::Template;
use crate::plan::{ConfigFile, Placement};

/// The profile of the engine that the benchmark's scripts start.
pub(super) const ENGINE: &str = "trtllm-serve";
/// The seconds that the servers have to be ready in, where the configuration does not say.
const READY_LIMIT: u32 = 1800;
/// The sizes of a server that its GPUs are the product of.
const SIZES: [&str; 3] =
    ["tensor_parallel_size", "pipeline_parallel_size", "context_parallel_size"];

/// Keys that mean nothing here, with the reason.
const WITHOUT_EFFECT: &[(&str, &str)] = &[
    ("slurm.script_file", "the job's script is slurm-disagg's own"),
    ("environment.work_dir", "the benchmark's scripts are not used"),
    ("environment.build_wheel", "there is no `trtllm_repo` to build, or a wheel in its place"),
    ("environment.trtllm_repo", "`trtllm_wheel_path` is installed"),
    ("environment.cuda_architectures", "nothing is built"),
    ("benchmark.input_length", "the requests are those of the data set"),
    ("benchmark.output_length", "the requests are those of the data set"),
    ("benchmark.benchmark_ratio", "only the client of `use_nv_sa_benchmark` has it"),
    ("benchmark.dataset_file", "the client of `use_nv_sa_benchmark` makes its requests itself"),
    ("benchmark.use_nv_sa_benchmark", "`use_aiperf` is on"),
    ("benchmark.streaming", "aiperf always streams"),
    ("metadata", "it is the test suite's; --test-id plans the test"),
    ("accuracy.model", "each of `accuracy.tasks` has its own"),
    ("accuracy.model_args_extra", "each of `accuracy.tasks` has its own"),
];

/// Whether a document has the sections of such a configuration.
pub(super) fn has_sections(root: &Node) -> bool {
    let has = |key: &str| root.get("environment").is_some_and(|env| env.get(key).is_some());
    root.get("worker_config").is_some()
        && root.get("hardware").is_some()
        && (has("model_path") || has("container_image"))
}

/// Reads a configuration.
pub(super) fn read(
    document: &Document,
    file: ConfigFile,
    changed: Option<String>,
    around: &Around<'_>,
) -> Read {
    let (mut fields, root) = Fields::new(document);
    let mut section = |key| fields.section(&root, key);
    let mut reader = Reader {
        slurm: section("slurm"),
        benchmark: section("benchmark"),
        hardware: section("hardware"),
        environment: section("environment"),
        profiling: section("profiling"),
        accuracy: section("accuracy"),
        workers: section("worker_config"),
        root,
        fields,
        around,
        used: HashSet::new(),
        settings: Settings::default(),
    };
    let (recipe, engine, extra_args) = reader.recipe(file, changed);
    reader.name_what_has_no_effect();
    let Reader { fields, settings, .. } = reader;
    let mut found = fields.diagnostics;
    fields.bad_fields.0.into_iter().for_each(|bad| found.push_once(bad));
    // What is wrong comes first, each in the file's order.
    let place = |one: &Diagnostic| one.location.as_ref().map(|location| location.position.line);
    found.0.sort_by_key(|one| (one.severity != Severity::Error, place(one)));
    found.0.dedup();
    Read { recipe, engine, settings, extra_args, found }
}

struct Reader<'d> {
    fields: Fields<'d>,
    root: Section<'d>,
    slurm: Section<'d>,
    benchmark: Section<'d>,
    hardware: Section<'d>,
    environment: Section<'d>,
    profiling: Section<'d>,
    accuracy: Section<'d>,
    workers: Section<'d>,
    around: &'d Around<'d>,
    /// The keys that have an effect, by their paths.
    used: HashSet<Label>,
    settings: Settings,
}

/// The counts and modes that several parts of the recipe depend on.
struct Facts {
    /// The mode; nothing after an error.
    mode: Option<Traced<String>>,
    prefill: u32,
    decode: u32,
    /// Small requests before the first run, which connect each server with each.
    warmup: u64,
}

impl Facts {
    fn is_mode(&self, mode: &str) -> Option<&Origin> {
        self.mode.as_ref().filter(|own| own.value == mode).map(|mode| &mode.origin)
    }
}

impl<'d> Reader<'d> {
    fn recipe(
        &mut self,
        file: ConfigFile,
        changed: Option<String>,
    ) -> (Option<Recipe>, Traced<String>, Option<Traced<String>>) {
        let root = self.root.clone();
        self.used.extend(
            ["slurm", "benchmark", "hardware", "environment", "worker_config"]
                .into_iter()
                .chain(["profiling", "accuracy", "router_config", "server_config_extra", "engine"])
                .map(Label::from),
        );
        let engine = self.fields.text(&root, "engine");
        let engine = good(&mut self.fields, engine);
        let default = || Traced::new(ENGINE.to_owned(), Origin::rule("TensorRT-LLM's benchmark"));
        let engine = engine.unwrap_or_else(default);
        let extra_args = self.slurm();
        let segment = self.switch(&self.slurm.clone(), "set_segment");
        let hardware = self.hardware.clone();
        let gpus_per_node = self.count(&hardware, "gpus_per_node", 1, MAX_GPUS_PER_NODE);
        let prefill = self.count(&hardware, "num_ctx_servers", 0, MAX_COUNT);
        let decode = self.count(&hardware, "num_gen_servers", 1, MAX_COUNT);
        if let Some(compact) = self.switch(&hardware, "compact_packing").filter(|on| on.value) {
            self.settings.placement = Some(Traced::new(Placement::Compact, compact.origin));
        }
        let model = self.text(&self.environment.clone(), "model_path");
        self.container();
        let mode = self.mode();
        let dp = [self.data_parallel("ctx"), self.data_parallel("gen")];
        let (prefill_count, decode_count) = (value(&prefill), value(&decode));
        let facts = Facts {
            warmup: match mode.as_ref().is_some_and(|mode| mode.value == "e2e") {
                true => [2, prefill_count, dp[0], decode_count, dp[1]].iter().product(),
                false => 0,
            },
            mode,
            prefill: prefill_count as u32,
            decode: decode_count as u32,
        };
        let mut steps = self.install();
        steps.extend(self.benchmark(&facts));
        steps.extend(self.accuracy());
        if !steps.iter().any(|step| step.purpose == Purpose::Client) {
            let at = Origin::input("benchmark.enable_benchmark");
            let is_off =
                !self.fields.diagnostics.has_errors() && self.fields.bad_fields.0.is_empty();
            if is_off {
                let message = "nothing is measured: the job ends when all servers are ready";
                self.warn(self.benchmark.position(), message, "");
            }
            steps.push(self.step("READY", &at, vec![literal("true", &at)]));
        }
        let ready_limit = self.ready_limit();
        let mut roles = IndexMap::new();
        roles.insert("prefill".to_owned(), self.server("ctx", prefill, &facts));
        roles.insert("decode".to_owned(), self.server("gen", decode, &facts));
        roles.insert("router".to_owned(), self.router(&facts));
        let recipe = model.map(|model| Recipe {
            setup: None,
            log_level: None,
            file,
            changed,
            model,
            served_name: None,
            gpus_per_node,
            env: IndexMap::new(),
            roles,
            benchmark: None,
            steps,
            segment: Some(segment.unwrap_or_else(|| {
                Traced::new(true, Origin::rule("slurm.set_segment is on unless it is off"))
            })),
            ready_limit: Some(ready_limit),
        });
        (recipe, engine, extra_args)
    }

    /// What Slurm is asked for.
    fn slurm(&mut self) -> Option<Traced<String>> {
        let slurm = self.slurm.clone();
        for (key, setting) in [
            ("partition", &settings::PARTITION),
            ("account", &settings::ACCOUNT),
            ("job_name", &settings::JOB_NAME),
        ] {
            self.setting(&slurm, key, setting, true);
        }
        if slurm.get("job_time").is_some_and(is_null) {
            self.used.insert("slurm.job_time".into());
        } else if self.is_there(&slurm, "job_time", Some(&settings::TIME)) {
            let time = time_limit(&mut self.fields, &slurm, "job_time");
            self.settings.time = good(&mut self.fields, time);
        }
        let extra_args = self.fields.text(&slurm, "extra_args");
        self.used.insert("slurm.extra_args".into());
        let extra_args = good(&mut self.fields, extra_args);
        let none = || Traced::new(String::new(), Origin::input("slurm.extra_args"));
        Some(extra_args.unwrap_or_else(none))
    }

    fn container(&mut self) {
        let environment = self.environment.clone();
        self.setting(&environment, "container_image", &settings::CONTAINER_IMAGE, false);
        if self.is_there(&environment, "container_mount", Some(&settings::CONTAINER_MOUNTS))
            && let Some(Traced { value, origin }) = self.text(&environment, "container_mount")
        {
            let mounts = value.split(',').filter(|mount| !mount.is_empty());
            let mounts = mounts.map(str::to_owned).collect();
            self.settings.container_mounts = Some(Traced::new(mounts, origin));
        }
        if environment.get("log_dir").is_some_and(|node| !is_null(node)) {
            self.settings.workspace = self.optional_text(&environment, "log_dir");
        }
    }

    fn mode(&mut self) -> Option<Traced<String>> {
        const MODES: [&str; 3] = ["e2e", "gen_only", "gen_only_no_context"];
        let mode = self.text(&self.benchmark.clone(), "mode")?;
        if !MODES.contains(&mode.value.as_str()) {
            let help = match nearest(&mode.value, MODES, 1)[..] {
                [near, ..] => format!("did you mean `{near}`?"),
                _ => format!("modes are {}", MODES.join(", ")),
            };
            let message = format!("there is no mode {}: it is e2e without a warm-up", mode.value);
            let warning = Diagnostic::warning(message).at(mode.origin.location.clone());
            self.fields.diagnostics.push(warning.help(help));
        }
        Some(mode)
    }

    fn ready_limit(&mut self) -> Traced<u32> {
        let environment = self.environment.clone();
        let default = Traced::new(READY_LIMIT, Origin::rule("the benchmark's own limit"));
        let Some(node) = environment.get("server_health_timeout") else { return default };
        let is_number = matches!(&node.value, Value::Scalar { text, plain: true }
            if matches!(classify(text), Scalar::Int(_)));
        if !is_number {
            let message = "environment.server_health_timeout must be a whole number of seconds";
            self.fields.error(node.position, message);
        }
        self.count(&environment, "server_health_timeout", 1, MAX_LIMIT).unwrap_or(default)
    }

    /// How many ranks of a server have attention of their own.
    fn data_parallel(&mut self, key: &str) -> u64 {
        let worker = self.fields.section(&self.workers.clone(), key);
        let size = self.fields.integer(&worker, "tensor_parallel_size", 1..=MAX_COUNT);
        let size = good(&mut self.fields, size).map_or(1, |size| size.value);
        match self.switch(&worker, "enable_attention_dp").is_some_and(|on| on.value) {
            true => size.into(),
            false => 1,
        }
    }

    /// The servers of one kind.
    fn server(&mut self, key: &str, count: Option<Traced<u32>>, facts: &Facts) -> RecipeRole {
        let workers = self.workers.clone();
        let path = workers.path_of(key);
        let section = self.fields.section(&workers, key);
        if workers.get(key).is_none_or(is_null) {
            self.fields.error(workers.position(), format!("{path} is missing"));
        }
        let config =
            self.fields.entries_of(&workers, key, |fields, path, node| fields.content(path, node));
        self.used.insert(path.clone());
        for size in SIZES {
            let field = self.fields.integer(&section, size, 1..=MAX_COUNT);
            good(&mut self.fields, field);
        }
        if key == "gen" {
            let missing = ["max_batch_size", "enable_attention_dp"].into_iter();
            for key in missing.filter(|key| section.get(key).is_none()) {
                self.fields.error(section.position(), format!("{path}.{key} is missing"));
            }
            self.check_load_balancer(&config);
        } else if facts.prefill == 0 {
            let help = "it is for context servers, and there are none";
            self.warn(section.position(), format!("{path} has no effect"), help);
        }
        let origin = self.fields.origin(path, section.position());
        let env = self.worker_env(key, facts);
        RecipeRole {
            servers: count,
            unset: self.unset(&env),
            env,
            config,
            wrap: self.wrap(),
            before: self.profiler(),
            is_held: key == "ctx" && facts.is_mode("gen_only_no_context").is_some(),
            key: Traced::new(key.to_owned(), origin),
            ..RecipeRole::default()
        }
    }

    /// The server looks for a table in its own working directory, where a relative path leads nowhere.
    fn check_load_balancer(&mut self, config: &IndexMap<String, Traced<Content>>) {
        let Some(Traced { value: Content::Map(moe), origin }) = config.get("moe_config") else {
            return;
        };
        if let Some(Content::Text(path)) = moe.get("load_balancer")
            && !path.as_str().starts_with('/')
        {
            let message = format!("{}.load_balancer is not an absolute path", origin.input);
            let error = Diagnostic::error(message).at(origin.location.clone());
            self.fields.diagnostics.push(
                error.help("the server would look for it in its own directory; write it from / on"),
            );
        }
    }

    fn router(&mut self, facts: &Facts) -> RecipeRole {
        let root = self.root.clone();
        let content =
            |fields: &mut Fields<'d>, path: &Label, node: &'d Node| fields.content(path, node);
        let mut config = IndexMap::new();
        let router = self.fields.entries_of(&root, "router_config", content);
        let Some(at) = root.get("router_config").map(|node| node.position) else {
            return self.router_with(config, facts);
        };
        let router: IndexMap<_, _> = router.into_iter().map(|(k, v)| (k, v.value)).collect();
        if !router.is_empty() {
            let servers =
                Content::Map([("router".to_owned(), Content::Map(router))].into_iter().collect());
            for key in ["context_servers", "generation_servers"] {
                let origin = self.fields.origin("router_config", at);
                config.insert(key.to_owned(), Traced::new(servers.clone(), origin));
            }
        }
        self.router_with(config, facts)
    }

    fn router_with(
        &mut self,
        mut config: IndexMap<String, Traced<Content>>,
        facts: &Facts,
    ) -> RecipeRole {
        let root = self.root.clone();
        let extra = self.fields.section(&root, "server_config_extra");
        let entries = self.fields.entries_of(&root, "server_config_extra", |fields, path, node| {
            fields.content(path, node)
        });
        let mut ports = IndexMap::new();
        if let Some(node) = extra.get("port") {
            match self.fields.port_number("server_config_extra.port", node) {
                Ok(port) => {
                    let origin = self.fields.origin(extra.path_of("port"), node.position);
                    ports.insert("http".to_owned(), Traced::new(port, origin));
                }
                Err(error) => self.fields.diagnostics.push(error),
            }
        }
        if let Some(node) = extra.get("hostname") {
            let help = "the server listens there; clients ask its node by its own name";
            self.warn(node.position, "server_config_extra.hostname moves no step", help);
        }
        // The profile puts the port into the file.
        for (key, value) in entries.into_iter().filter(|(key, _)| key != "port") {
            // What router_config has put there stays beside it.
            match (config.get_mut(&key).map(|own| &mut own.value), &value.value) {
                (Some(Content::Map(own)), Content::Map(given)) => own.extend(given.clone()),
                _ => {
                    config.insert(key, value);
                }
            }
        }
        RecipeRole {
            env: self.router_env(facts),
            config,
            ports,
            key: Traced::new("router".to_owned(), Origin::default()),
            ..RecipeRole::default()
        }
    }

    /// A step of its own.
    fn step(&self, name: &str, origin: &Origin, command: Vec<Traced<Pattern>>) -> ExtraStep {
        ExtraStep {
            name: Traced::new(name.to_owned(), origin.clone()),
            purpose: Purpose::Client,
            warms_up: false,
            on_each_node: false,
            cwd: None,
            command,
            env: IndexMap::new(),
            files: IndexMap::new(),
        }
    }
}

fn value(count: &Option<Traced<u32>>) -> u64 {
    count.as_ref().map_or(0, |count| count.value.into())
}

/// A word as it is.
fn literal(word: &str, origin: &Origin) -> Traced<Pattern> {
    Traced::new(Template::literal(word).into(), origin.clone())
}

/// A word with placeholders.
fn pattern(word: &str, origin: &Origin) -> Traced<Pattern> {
    let pattern =
        Pattern::parse(&word.to_owned().into()).unwrap_or_else(|_| Template::literal(word).into());
    Traced::new(pattern, origin.clone())
}

/// A text as it is, for [`pattern`].
fn escaped(text: &str) -> String {
    text.replace('{', "{{").replace('}', "}}").replace('$', "$$")
}
