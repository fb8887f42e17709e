// SPDX-License-Identifier: Apache-2.0
//! What the benchmark's clients are started with: the runs, one for each number of requests in
//! flight, and the accuracy tasks.

use indexmap::IndexMap;

use super::{Facts, Reader, escaped, literal, pattern};
use crate::diagnostic::Diagnostic;
use crate::input::fields::{Section, is_placeholder};
use crate::input::profile::good;
use crate::input::source;
use crate::input::yaml::{Node, Value};
use crate::plan::content::Content;
use crate::plan::engine::MAX_RUNS;
use crate::plan::expr::Pattern;
use crate::plan::origin::{Origin, Traced};
use crate::plan::recipe::ExtraStep;
use crate::plan::template::Template;

/// Asks for so many small answers that each server has talked to each.
const WARMUP: &str = "python -m tensorrt_llm.serve.scripts.benchmark_serving --model {model} \
    --dataset-name random --random-ids --random-input-len 100 --random-output-len 10 \
    --num-prompts COUNT --host {host} --port {host_port} --ignore-eos";

const SERVING: &str = "python -m tensorrt_llm.serve.scripts.benchmark_serving --model {model} \
    --backend openai --host {host} --port {host_port} --dataset-name trtllm_custom \
    --dataset-path DATASET --num-prompts PROMPTS --max-concurrency CONCURRENCY \
    --trust-remote-code --ignore-eos --no-test-input --save-result --result-dir RESULTS \
    --result-filename result.json --percentile-metrics ttft,tpot,itl,e2el";

const SA: &str = "python /tmp/bench_serving/benchmark_serving.py --model {model} --host {host} \
    --port {host_port} --dataset-name random --num-prompts PROMPTS --max-concurrency CONCURRENCY \
    --trust-remote-code --ignore-eos --random-input-len ISL --random-output-len OSL \
    --random-range-ratio RATIO --save-result --use-chat-template --result-dir RESULTS \
    --result-filename result.json --percentile-metrics ttft,tpot,itl,e2el";

const AIPERF: &str = "aiperf profile -m {model} --tokenizer {model} --tokenizer-trust-remote-code \
    --url {url} --streaming --ui simple --input-file DATASET --artifact-dir RESULTS \
    --concurrency CONCURRENCY --concurrency-ramp-duration 60 --custom-dataset-type mooncake_trace \
    --benchmark-duration SECONDS --benchmark-grace-period 60 --workers-max 200 \
    --request-timeout-seconds 1200 --profile-export-level records --extra-inputs ignore_eos:true \
    --request-count PROMPTS --record-processors 8";

/// Where the client of `use_nv_sa_benchmark` is, and where it is put.
const SA_CLIENT: [&str; 2] =
    ["https://github.com/kedarpotdar-nv/bench_serving.git", "/tmp/bench_serving"];
const CLONE_SH: &str = r#"rm -rf "$2" && exec git clone "$1" "$2""#;
const AIPERF_PACKAGE: &str =
    "aiperf @ git+https://github.com/ai-dynamo/aiperf.git@ac3d91652e5e024bfb4ac38d48603423aad666bc";
/// Seconds that aiperf takes at most for each round.
const ROUND_SECONDS: u64 = 1200;

/// Models of the accuracy tasks' client, and the paths that they ask.
const END_POINTS: [(&str, &str); 2] =
    [("local-completions", "v1/completions"), ("local-chat-completions", "v1/chat/completions")];

/// The clients.
#[derive(Clone, Copy, PartialEq)]
enum Client {
    Serving,
    Sa,
    Aiperf,
}

impl<'d> Reader<'d> {
    /// The runs, with what goes before and after them.
    pub(super) fn benchmark(&mut self, facts: &Facts) -> Vec<ExtraStep> {
        let section = self.benchmark.clone();
        for key in ["input_length", "output_length"] {
            if section.get(key).is_none() {
                self.is_there(&section, key, None);
            }
        }
        if self.switch(&section, "enable_benchmark").is_some_and(|on| !on.value) {
            self.off(
                &section,
                "enable_benchmark",
                &["mode", "enable_benchmark", "concurrency_list"],
            );
            return Vec::new();
        }
        let client = self.client(facts);
        let runs = self.concurrencies();
        let rounds = self.rounds();
        let env = self.client_env(&section);
        let at = self.fields.origin("benchmark", section.position());
        let mut words: Vec<(&str, Traced<String>)> = Vec::new();
        if client != Client::Sa {
            if let Some(path) = self.text(&section, "dataset_file") {
                self.check_path(&path);
                words.push(("DATASET", path));
            }
        } else {
            for (name, key) in [("ISL", "input_length"), ("OSL", "output_length")] {
                if let Some(length) = self.count(&section, key, 1, u32::MAX) {
                    words.push((name, Traced::new(length.value.to_string(), length.origin)));
                }
            }
            if self.is_there(&section, "benchmark_ratio", None)
                && let Some(node) = section.get("benchmark_ratio")
            {
                match self.fields.content(&"benchmark.benchmark_ratio", node) {
                    Ok(ratio @ (Content::Int(_) | Content::Float(_))) => {
                        let origin = self.fields.origin("benchmark.benchmark_ratio", node.position);
                        words.push(("RATIO", Traced::new(ratio.word(), origin)));
                    }
                    Ok(_) => self
                        .fields
                        .error(node.position, "benchmark.benchmark_ratio must be a number"),
                    Err(error) => self.fields.diagnostics.push(error),
                }
            }
        }
        let streams = self.streams(client);
        let step = |reader: &Self, name: &str, command| ExtraStep {
            env: env.clone(),
            ..reader.step(name, &at, command)
        };
        let mut steps = Vec::new();
        match client {
            Client::Serving => {}
            Client::Sa => {
                let [from, to] = SA_CLIENT;
                let words = ["sh", "-c", CLONE_SH, "sh", from, to];
                steps.push(step(self, "PREPARE", words.map(|word| literal(word, &at)).into()));
            }
            Client::Aiperf => {
                let words = ["pip", "install", "--force-reinstall", "--no-deps", AIPERF_PACKAGE];
                steps.push(step(self, "PREPARE", words.map(|word| literal(word, &at)).into()));
            }
        }
        if facts.warmup > 0 {
            let count = Traced::new(facts.warmup.to_string(), at.clone());
            let mut command = filled(WARMUP, &at, &[("COUNT", count)]);
            command.extend((client == Client::Aiperf).then(|| literal("--trust-remote-code", &at)));
            command.push(literal("--non-streaming", &at));
            steps.push(ExtraStep { warms_up: true, ..step(self, "WARMUP", command) });
        }
        let several = runs.value.len() > 1;
        for run in runs.value {
            let concurrency = match client {
                Client::Aiperf => run,
                Client::Serving | Client::Sa => run * u64::from(facts.decode),
            };
            let prompts = concurrency * rounds.value;
            let number =
                |number: u64, origin: &Origin| Traced::new(number.to_string(), origin.clone());
            let mut words = words.clone();
            words.push(("CONCURRENCY", number(concurrency, &runs.origin)));
            words.push(("PROMPTS", number(prompts, &rounds.origin)));
            words.push(("SECONDS", number(rounds.value * ROUND_SECONDS, &rounds.origin)));
            let results = format!("{{workspace}}/concurrency_{concurrency}");
            let (form, flag) = match client {
                Client::Serving => (SERVING, "--non-streaming"),
                Client::Sa => (SA, "--non-streaming"),
                Client::Aiperf => (AIPERF, ""),
            };
            let mut command = filled(&form.replace("RESULTS", &results), &at, &words);
            command.extend((!streams).then(|| literal(flag, &at)));
            let name = match several {
                true => format!("BENCHMARK_{concurrency}"),
                false => "BENCHMARK".to_owned(),
            };
            let step = step(self, &name, command);
            steps.push(ExtraStep { name: Traced::new(name, runs.origin.clone()), ..step });
        }
        if client == Client::Aiperf {
            let words = ["curl", "-s", "-o", "{workspace}/perf_metrics.json", "{url}/perf_metrics"];
            steps.push(step(self, "METRICS", words.map(|word| pattern(word, &at)).into()));
        }
        steps
    }

    fn client(&mut self, facts: &Facts) -> Client {
        let section = self.benchmark.clone();
        if self.switch(&section, "use_aiperf").is_some_and(|on| on.value) {
            return Client::Aiperf;
        }
        if !self.is_there(&section, "use_nv_sa_benchmark", None)
            || !self.switch(&section, "use_nv_sa_benchmark").is_some_and(|on| on.value)
        {
            return Client::Serving;
        }
        if facts.is_mode("gen_only").is_some()
            && let Some(node) = section.get("use_nv_sa_benchmark")
        {
            let message = "benchmark.use_nv_sa_benchmark is not possible in mode gen_only";
            let error = self.fields.wrong(node.position, message);
            self.fields.diagnostics.push(error.help("its requests are not those of gen_only"));
        }
        Client::Sa
    }

    /// The numbers of requests in flight, for each of the generation servers.
    fn concurrencies(&mut self) -> Traced<Vec<u64>> {
        let section = self.benchmark.clone();
        if !self.is_there(&section, "concurrency_list", None) {
            return Traced::default();
        }
        let numbers = self.fields.numbers(&section, "concurrency_list");
        let numbers = good(&mut self.fields, numbers).unwrap_or_default();
        if numbers.value.len() > MAX_RUNS {
            let message = format!("benchmark.concurrency_list has more than {MAX_RUNS} numbers");
            let error = Diagnostic::error(message).at(numbers.origin.location.clone());
            self.fields.diagnostics.push(error);
        }
        numbers
    }

    /// How many requests the generation servers wait for in mode gen_only, whose origin is given.
    pub(super) fn queue(&mut self, mode: &Origin) -> Option<u64> {
        let Traced { value, origin } = self.concurrencies();
        match value[..] {
            [one] => Some(one),
            [] => None,
            _ => {
                let message = "benchmark.concurrency_list has several numbers in mode gen_only, where \
                               the servers wait for as many requests as are in flight";
                let help = format!(
                    "submit it once for each: --set benchmark.concurrency_list={}",
                    value[0]
                );
                let at = origin.location.or_else(|| mode.location.clone());
                self.fields.diagnostics.push_once(Diagnostic::error(message).at(at).help(help));
                None
            }
        }
    }

    fn rounds(&mut self) -> Traced<u64> {
        let section = self.benchmark.clone();
        if !self.is_there(&section, "multi_round", None) {
            return Traced::default();
        }
        let text = self.fields.text(&section, "multi_round");
        let text = good(&mut self.fields, text).unwrap_or_default();
        match text.value.trim().parse().ok().filter(|rounds| (1..=1_000_000).contains(rounds)) {
            Some(rounds) => Traced::new(rounds, text.origin),
            None => {
                let message = "benchmark.multi_round must be a whole number, 1 or more";
                let error = Diagnostic::error(message).at(text.origin.location);
                self.fields.diagnostics.push(error);
                Traced::default()
            }
        }
    }

    /// Whether answers come in pieces.
    fn streams(&mut self, client: Client) -> bool {
        let section = self.benchmark.clone();
        if !self.is_there(&section, "streaming", None) {
            return true;
        }
        let off = matches!(section.get("streaming").map(|node| &node.value),
            Some(Value::Scalar { text, .. }) if text.eq_ignore_ascii_case("false"));
        if client == Client::Aiperf && off {
            self.used.remove("benchmark.streaming");
            if let Some(node) = section.get("streaming") {
                self.warn(
                    node.position,
                    "benchmark.streaming has no effect",
                    "aiperf always streams",
                );
                self.used.insert("benchmark.streaming".into());
            }
        }
        !off || client == Client::Aiperf
    }

    /// A path that leads nowhere as it is.
    fn check_path(&mut self, path: &Traced<String>) {
        let at = path.origin.location.clone();
        if path.value.is_empty() {
            let error = Diagnostic::error(format!("{} is empty", path.origin.input)).at(at);
            self.fields.diagnostics.push(error.help("write the path of the data set"));
        } else if !path.value.starts_with('/') {
            let message = format!("{} is a relative path", path.origin.input);
            let warning = Diagnostic::warning(message).at(at);
            let help = "the client looks for it in its working directory, the workspace";
            self.fields.diagnostics.push(warning.help(help));
        }
    }

    /// The variables of a section's client.
    fn client_env(&mut self, section: &Section<'d>) -> IndexMap<String, Traced<Template>> {
        self.used.insert(section.path_of("env_var"));
        let env = super::super::recipe::env(&mut self.fields, section, "env_var");
        for (name, value) in &env {
            if is_placeholder(value.value.as_str()) {
                let message =
                    format!("{} is a placeholder that nobody filled in", value.origin.input);
                let error = Diagnostic::error(message).at(value.origin.location.clone());
                let help = format!("write the value of {name}");
                self.fields.diagnostics.push(error.help(help));
            }
        }
        env
    }

    /// The accuracy tasks.
    pub(super) fn accuracy(&mut self) -> Vec<ExtraStep> {
        let section = self.accuracy.clone();
        if section.entries().is_empty()
            || !self.is_there(&section, "enable_accuracy_test", None)
            || !self.switch(&section, "enable_accuracy_test").is_some_and(|on| on.value)
        {
            self.off(&section, "enable_accuracy_test", &["enable_accuracy_test"]);
            return Vec::new();
        }
        if !self.is_there(&section, "tasks", None) {
            return Vec::new();
        }
        let env = self.client_env(&section);
        let tasks = self.fields.section(&section, "tasks");
        let mut steps = Vec::new();
        for (key, node) in tasks.entries() {
            let task = Section::of(tasks.path_of(&key.name), node);
            let at = self.fields.origin(tasks.path_of(&key.name), key.position);
            steps.extend(self.task(&key.name, &task, &env, &at));
        }
        steps
    }

    fn task(
        &mut self,
        name: &str,
        task: &Section<'d>,
        env: &IndexMap<String, Traced<Template>>,
        at: &Origin,
    ) -> Option<ExtraStep> {
        let known = ["model", "model_args_extra", "extra_kwargs"];
        for (key, node) in task.entries() {
            if !known.contains(&&*key.name) {
                let message = format!("{} has no effect", task.path_of(&key.name));
                self.warn(node.position, message, "");
            }
        }
        let model = self.text(task, "model");
        let extra = self.text(task, "model_args_extra");
        let kwargs = self.fields.section(task, "extra_kwargs");
        let mut files = IndexMap::new();
        let mut words = Vec::new();
        for (key, node) in kwargs.entries() {
            let path = kwargs.path_of(&key.name);
            let origin = self.fields.origin(path.clone(), node.position);
            if key.name == "custom_config" {
                let Some(config) = self.text(&kwargs, "custom_config") else { continue };
                match self.custom_config(&config, node, env) {
                    Ok(found) => files.extend(found),
                    Err(error) => self.fields.diagnostics.push(error),
                }
                words.push(pattern("--include_path={workspace}/lm_eval_configs", &origin));
                continue;
            }
            match self.fields.content(&path, node) {
                Ok(Content::Bool(false)) => {}
                Ok(Content::Bool(true)) => words.push(literal(&format!("--{}", key.name), &origin)),
                Ok(Content::Null) => words.push(literal(&format!("--{}=None", key.name), &origin)),
                Ok(value) => {
                    words.push(literal(&format!("--{}={}", key.name, value.word()), &origin));
                }
                Err(error) => self.fields.diagnostics.push(error),
            }
        }
        let (model, extra) = (model?, extra?);
        let Some((_, end_point)) = END_POINTS.iter().find(|(known, _)| *known == model.value)
        else {
            let names = END_POINTS.map(|(name, _)| name).join(", ");
            let message = format!("{} must be one of: {names}", model.origin.input);
            self.fields.diagnostics.push(Diagnostic::error(message).at(model.origin.location));
            return None;
        };
        let arguments =
            format!("model={{model}},base_url={{url}}/{end_point},{}", escaped(&extra.value));
        let mut command: Vec<_> =
            ["lm_eval", "--model", &model.value, "--tasks", name, "--model_args"]
                .map(|word| literal(word, at))
                .into();
        command.push(pattern(&arguments, at));
        command.extend(["--log_samples", "--output_path"].map(|word| literal(word, at)));
        let output = format!("{{workspace}}/accuracy_eval_{}", escaped(name));
        command.push(pattern(&output, at));
        command.extend(words);
        let step: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let step = self.step(&format!("ACCURACY_{step}"), at, command);
        Some(ExtraStep { env: env.clone(), files, ..step })
    }

    /// A task's own configuration, with the names of variables replaced by their values, and the
    /// Python beside it that it may use.
    fn custom_config(
        &self,
        path: &Traced<String>,
        node: &Node,
        env: &IndexMap<String, Traced<Template>>,
    ) -> Result<IndexMap<String, String>, Diagnostic> {
        let full = self.around.current_dir.join(&path.value);
        let wrong = |error: Diagnostic| {
            self.fields.wrong(node.position, format!("{}: {}", path.origin.input, error.message))
        };
        let read = source::read(&full, &path.value).map_err(wrong)?;
        let mut text = read.text.clone();
        for (name, value) in env {
            text = text.replace(name.as_str(), &value.value.literal_text());
        }
        let name = full.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut files = IndexMap::from([(format!("lm_eval_configs/{name}"), text)]);
        let beside = full.with_file_name("utils.py");
        if beside.is_file() {
            let utils = source::read(&beside, "utils.py").map_err(wrong)?;
            files.insert("lm_eval_configs/utils.py".to_owned(), utils.text.clone());
        }
        Ok(files)
    }
}

/// The words of a command, some of them in capitals replaced by texts as they are.
fn filled(form: &str, at: &Origin, words: &[(&str, Traced<String>)]) -> Vec<Traced<Pattern>> {
    let word = |word: &str| match words.iter().find(|(name, _)| *name == word) {
        Some((_, text)) => literal(&text.value, &text.origin),
        None => pattern(word, at),
    };
    form.split_whitespace().map(word).collect()
}
