// SPDX-License-Identifier: Apache-2.0
//! What the servers and the router of the benchmark are started with: their variables, words before
//! their programs, and what is installed before.

use indexmap::IndexMap;

use super::{Facts, Reader, literal, pattern};
use crate::input::yaml::is_null;
use crate::plan::assignments::Assignment;
use crate::plan::expr::Pattern;
use crate::plan::origin::{Origin, Traced};
use crate::plan::recipe::ExtraStep;
use crate::plan::role::Purpose;
use crate::plan::template::Template;

type Variables = IndexMap<String, Traced<Template>>;

/// The variable that re-pins [`UCX_TLS`] for workers, which do not have it otherwise.
const WORKER_UCX_TLS: &str = "TRTLLM_WORKER_UCX_TLS";
const UCX_TLS: &str = "UCX_TLS";
const GEN_ONLY: &str = "TRTLLM_DISAGG_BENCHMARK_GEN_ONLY";

/// What profiles a rank.
const PROFILER: [&str; 14] = [
    "nsys",
    "profile",
    "-o",
    "{workspace}/nsys_worker_proc_{name}_{rank}",
    "-f",
    "true",
    "-t",
    "cuda,nvtx,python-gil",
    "-c",
    "cudaProfilerApi",
    "--cuda-graph-trace",
    "node",
    "--capture-range-end=stop",
    "--gpu-metrics-devices=none",
];

impl Reader<'_> {
    /// The assignments of an environment string. Words that are none are dropped.
    fn assignments(&mut self, key: &str) -> Variables {
        let section = self.environment.clone();
        let path = section.path_of(key);
        self.used.insert(path.clone());
        let Some(node) = section.get(key) else { return Variables::new() };
        if is_null(node) {
            let error = self.fields.wrong(node.position, format!("{path} has no value"));
            self.fields.diagnostics.push(error.help("write '' for no variables"));
            return Variables::new();
        }
        match self.fields.assignments_among_words(&path, node) {
            Ok(found) => {
                let origin = self.fields.origin(path, node.position);
                let variable = |one: Assignment| (one.name, Traced::new(one.value, origin.clone()));
                found.into_iter().map(variable).collect()
            }
            Err(error) => {
                self.fields.diagnostics.push(error);
                Variables::new()
            }
        }
    }

    /// Puts a variable before all others. What the user has for it is lost.
    fn put_first(&mut self, variables: &mut Variables, name: &str, value: &str, origin: &Origin) {
        if let Some(lost) = variables.shift_remove(name) {
            let message = format!("{}: {name} has no effect", lost.origin.input);
            let warning = crate::diagnostic::Diagnostic::warning(message)
                .at(lost.origin.location)
                .help(format!("{} sets it", origin.input));
            self.fields.diagnostics.push_once(warning);
        }
        let value = Traced::new(Template::literal(value), origin.clone());
        variables.shift_insert(0, name.to_owned(), value);
    }

    /// Whether profiling is on for the variables, which takes any value for a switch.
    fn profiling(&mut self) -> Option<Origin> {
        let on = self.switch(&self.profiling.clone(), "nsys_on").filter(|on| on.value)?;
        Some(on.origin)
    }

    /// The variables of the servers of one kind: the shared ones, then their own, whose values win.
    pub(super) fn worker_env(&mut self, key: &str, facts: &Facts) -> Variables {
        let mut shared = self.assignments("worker_env_var");
        let own_key = format!("{key}_worker_env_var");
        let mut own = self.assignments(&own_key);
        if let Some(origin) = facts.is_mode("gen_only_no_context") {
            self.put_first(&mut shared, GEN_ONLY, "1", origin);
        }
        if let Some(origin) = facts.is_mode("gen_only").filter(|_| key == "gen") {
            let overlap = "TRTLLM_DISABLE_KV_CACHE_TRANSFER_OVERLAP";
            self.put_first(&mut own, overlap, "1", origin);
            if let Some(queue) = self.queue(origin) {
                let queue = queue.to_string();
                self.put_first(&mut own, "TLLM_BENCHMARK_REQ_QUEUES_SIZE", &queue, origin);
            }
        }
        let range =
            (format!("{key}_profile_range"), if key == "gen" { "200-250" } else { "10-30" });
        if let Some(origin) = self.profiling() {
            for name in
                ["TLLM_PROFILE_RECORD_GC", "TLLM_NVTX_DEBUG", "NSYS_MPI_STORE_TEAMS_PER_RANK"]
            {
                self.put_first(&mut shared, name, "1", &origin);
            }
            let section = self.profiling.clone();
            let given = self.optional_text(&section, &range.0);
            let given = given.unwrap_or_else(|| Traced::new(range.1.to_owned(), origin));
            self.put_first(&mut own, "TLLM_PROFILE_START_STOP", &given.value, &given.origin);
        } else {
            self.off(&self.profiling.clone(), "nsys_on", &["nsys_on"]);
        }
        let mut all = shared;
        for (name, value) in own {
            all.insert(name, value);
        }
        self.as_workers_have_it(&mut all);
        all
    }

    /// What the benchmark's script does with variables in each rank.
    fn as_workers_have_it(&mut self, all: &mut Variables) {
        let has_ucx = all.get(WORKER_UCX_TLS).filter(|value| !value.value.as_str().is_empty());
        let ucx = has_ucx.cloned();
        for name in ["CUDA_VISIBLE_DEVICES", UCX_TLS] {
            let help = match name {
                UCX_TLS if ucx.is_some() => continue,
                UCX_TLS => format!("workers unset it; {WORKER_UCX_TLS} sets it there"),
                _ => "the plan decides which GPUs a rank has".to_owned(),
            };
            if let Some(lost) = all.shift_remove(name) {
                let message = format!("{}: {name} has no effect", lost.origin.input);
                let warning = crate::diagnostic::Diagnostic::warning(message);
                let warning = warning.at(lost.origin.location).help(help);
                self.fields.diagnostics.push_once(warning);
            }
        }
        for (name, of) in
            [("PATH", "TRTLLM_PATH_PREPEND"), ("PYTHONPATH", "TRTLLM_PYTHONPATH_PREPEND")]
        {
            let Some(first) = all.get(of).filter(|first| !first.value.as_str().is_empty()) else {
                continue;
            };
            let Traced { mut value, origin } = first.clone();
            value.push_text(":");
            match all.get(name) {
                Some(given) => value.push(&given.value),
                None => value.push_variable(name),
            }
            all.insert(name.to_owned(), Traced::new(value, origin));
        }
        if let Some(ucx) = ucx {
            all.insert(UCX_TLS.to_owned(), ucx);
        }
    }

    /// The variables that workers do not have.
    pub(super) fn unset(&self, env: &Variables) -> Vec<Traced<String>> {
        let rule = Origin::rule(format!("workers have none unless {WORKER_UCX_TLS} sets it"));
        let is_set = env.contains_key(UCX_TLS);
        (!is_set).then(|| Traced::new(UCX_TLS.to_owned(), rule)).into_iter().collect()
    }

    pub(super) fn router_env(&mut self, facts: &Facts) -> Variables {
        let mut variables = self.assignments("server_env_var");
        if let Some(origin) = facts.is_mode("gen_only_no_context") {
            self.put_first(&mut variables, GEN_ONLY, "1", origin);
        }
        variables
    }

    /// Words before the engine's program.
    pub(super) fn wrap(&mut self) -> Vec<Traced<String>> {
        let slurm = self.slurm.clone();
        if !self.is_there(&slurm, "numa_bind", None) || !self.says_true(&slurm, "numa_bind") {
            return Vec::new();
        }
        let position = slurm.get("numa_bind").map_or(slurm.position(), |node| node.position);
        let origin = self.fields.origin("slurm.numa_bind", position);
        let words = ["numactl", "-m", "0,1"].into_iter();
        words.map(|word| Traced::new(word.to_owned(), origin.clone())).collect()
    }

    /// Words before the whole command.
    pub(super) fn profiler(&mut self) -> Vec<Traced<Pattern>> {
        let profiling = self.profiling.clone();
        if !self.says_true(&profiling, "nsys_on") {
            return Vec::new();
        }
        let origin = Origin::input("profiling.nsys_on");
        PROFILER.iter().map(|word| pattern(word, &origin)).collect()
    }

    /// What is installed before the servers start: a wheel, or a source tree.
    pub(super) fn install(&mut self) -> Vec<ExtraStep> {
        let environment = self.environment.clone();
        let architectures = self.optional_text(&environment, "cuda_architectures");
        self.used.remove("environment.cuda_architectures");
        let wheel = self.optional_text(&environment, "trtllm_wheel_path");
        let each = |step: ExtraStep| ExtraStep { purpose: Purpose::Check, ..step };
        if let Some(Traced { value: wheel, origin }) = wheel {
            let words = ["pip", "install", &format!("{wheel}[devel]")];
            let words = words.into_iter().map(|word| literal(word, &origin)).collect();
            let step = each(self.step("INSTALL", &origin, words));
            return vec![ExtraStep { on_each_node: true, ..step }];
        }
        let repository = self.optional_text(&environment, "trtllm_repo");
        let Some(Traced { value: repository, origin }) = repository else { return Vec::new() };
        let mut steps = Vec::new();
        let words = |words: &[&str]| words.iter().map(|word| literal(word, &origin)).collect();
        if self.says_true(&environment, "build_wheel") {
            let mut command: Vec<_> = words(&["python3", "./scripts/build_wheel.py"]);
            command.extend::<Vec<_>>(words(&["--trt_root", "/usr/local/tensorrt"]));
            command.extend::<Vec<_>>(words(&["--benchmarks", "--use_ccache", "--clean"]));
            if let Some(architectures) = architectures {
                self.used.insert("environment.cuda_architectures".into());
                let name = literal("--cuda_architectures", &architectures.origin);
                command.extend([name, literal(&architectures.value, &architectures.origin)]);
            }
            let step = each(self.step("BUILD", &origin, command));
            steps.push(ExtraStep { cwd: Some(repository.clone()), ..step });
        }
        let command = words(&["pip", "install", "-e", ".[devel]"]);
        let step = each(self.step("INSTALL", &origin, command));
        steps.push(ExtraStep { cwd: Some(repository), on_each_node: true, ..step });
        steps
    }
}
