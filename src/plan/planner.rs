// SPDX-License-Identifier: Apache-2.0
//! From a request to a plan: the rules that both generations share, each in one function.

use std::collections::BTreeMap;

use super::command::{BaseCommand, TEST_ROOT, uses_launcher};
use super::config::{Config, Field, Worker};
use super::instance::SERVING_TYPE;
use super::layout::{Layout, MAX_COUNT, Placement, Servers};
use super::origin::{Origin, Traced};
use super::request::Request;
use super::role::{Env, Role, RoleKind, Step};
use super::rules::{EnvSource, GenOnlyValue, RuleSet, is_gen_only};
use super::template::Template;
use super::test_id::{Generation, Test, node_id};
use super::{Container, Job, Plan, SCHEMA};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// The time limit of a test that names none.
const DEFAULT_TIME: &str = "04:00:00";
/// The job's name when none is asked for.
const DEFAULT_JOB_NAME: &str = "disagg_perf_test";

/// Computes a plan.
///
/// # Errors
/// All that the configuration lacks or gets wrong, with positions; no plan exists then. A field
/// that this plan does not use may be wrong.
pub fn plan(request: &Request) -> Result<Plan, Diagnostics> {
    let generation = request.rules.as_ref().map_or(Generation::Classic, |rules| rules.value);
    let mut planner = Planner {
        request,
        config: &request.config,
        rules: generation.rules(),
        errors: Diagnostics::default(),
        notes: Vec::new(),
    };
    match planner.plan() {
        Some(plan) if !planner.errors.has_errors() => Ok(plan),
        _ => Err(planner.errors),
    }
}

struct Planner<'r> {
    request: &'r Request,
    config: &'r Config,
    rules: &'static RuleSet,
    errors: Diagnostics,
    notes: Vec<String>,
}

impl Planner<'_> {
    /// `None` when there is no layout to go on with; errors are collected as far as possible.
    fn plan(&mut self) -> Option<Plan> {
        let request = self.request;
        let mode = self.mode();
        let gen_only = is_gen_only(&mode);
        let concurrency = gen_only.then(|| self.concurrency(&mode));

        let id = format!("{}-{}", request.test.prefix.value, self.config.name);
        let base = BaseCommand::new(
            &request.directories,
            &request.test.prefix,
            Traced::new(
                node_id(&request.test.module.value, &request.test.function.value, &id),
                Origin::input(self.config.path.clone()).by_rule("the test: MODULE::FUNCTION[ID]"),
            ),
        );
        let rules = self.rules;
        let mut env = |whose: RuleName, sources: &[EnvSource]| {
            self.env(whose, sources, &base, concurrency.as_ref())
        };
        let job_env = env(RuleName("the job"), rules.job_env);
        let role_env: Vec<Env> =
            rules.roles.iter().map(|rule| env(RuleName(rule.kind.name()), rule.env)).collect();

        let layout = self.layout(&mode, gen_only)?;
        let launcher = uses_launcher(layout.total_nodes, layout.gpus_per_node);
        let mut roles = BTreeMap::new();
        for (rule, env) in rules.roles.iter().zip(role_env) {
            let count = count(&layout, rule.kind);
            if count == 0 {
                continue;
            }
            let with_launcher = launcher && rule.kind.is_worker();
            let origin = self.origin(RuleName(rule.kind.name()));
            let unset = |name: &&str| Traced::new((*name).to_owned(), origin.clone());
            let role = Role {
                count,
                unset: rule.unset.iter().map(unset).collect(),
                env,
                argv: with_launcher
                    .then(|| base.launcher.clone())
                    .into_iter()
                    .chain(base.argv.iter().cloned())
                    .collect(),
                cwd: format!("{}/{TEST_ROOT}", request.directories.source.value),
                step: step(request, &layout, rule.kind),
            };
            roles.insert(rule.kind, role);
        }
        let container_env = job_env
            .iter()
            .map(|(name, _)| name.to_owned())
            .chain([SERVING_TYPE.to_owned(), "pytestCommand".to_owned()])
            .collect();
        Some(Plan {
            schema: SCHEMA,
            rules: self.rules.generation,
            test: Test {
                module: request.test.module.value.clone(),
                function: request.test.function.value.clone(),
                id,
                mode,
                config: self.config.name.clone(),
                config_path: self.config.path.clone(),
                config_sha256: self.config.sha256.clone(),
            },
            layout,
            placement: request.placement.value,
            frontend_node: request.frontend_node.value,
            llmapi_launch: launcher,
            base_command: base,
            roles,
            job_env,
            container_env,
            variables: size_variables(&layout),
            job: self.job(&layout),
            container: container(request),
            source_dir: request.directories.source.value.clone(),
            models_dir: request.directories.models.value.clone(),
            workspace: request.directories.workspace.value.clone(),
            run_script: request.run_script.as_ref().map(|script| script.value.clone()),
            install_script: request.install_script.as_ref().map(|script| script.value.clone()),
            secrets: request.secrets.clone(),
            notes: std::mem::take(&mut self.notes),
        })
    }

    fn mode(&mut self) -> String {
        let mode = self.config.benchmark.mode.get(&mut self.errors);
        mode.map_or_else(|| "e2e".to_owned(), |mode| mode.value.clone())
    }

    /// A number that the test cannot do without; 0 when it is missing or wrong.
    fn required(&mut self, field: &Field<u32>, key: &str, what: &str) -> Traced<u32> {
        if field.is_missing() {
            self.errors.push(
                Diagnostic::error(format!("hardware.{key} is missing"))
                    .at(self.config.location("hardware"))
                    .help(format!("add `{key}: N` below `hardware:`, the number of {what}")),
            );
        }
        field.get(&mut self.errors).cloned().unwrap_or_default()
    }

    fn layout(&mut self, mode: &str, gen_only: bool) -> Option<Layout> {
        let hardware = &self.config.hardware;
        let gpus_per_node =
            self.required(&hardware.gpus_per_node, "gpus_per_node", "GPUs of each node");
        let generation =
            self.required(&hardware.num_gen_servers, "num_gen_servers", "generation servers");
        if generation.value == 0 && generation.origin.location.is_some() {
            self.errors.push(
                Diagnostic::error("a disaggregated test needs at least one generation server")
                    .at(generation.origin.location.clone()),
            );
        }
        let context = if gen_only {
            if matches!(&hardware.num_ctx_servers, Field::Good(count) if count.value > 0) {
                self.notes.push(format!(
                    "mode {mode} has no context servers: hardware.num_ctx_servers is not used"
                ));
            }
            Traced::default()
        } else {
            self.required(&hardware.num_ctx_servers, "num_ctx_servers", "context servers")
        };
        let generation_size = self.world_size(&self.config.generation, "gen");
        let context_size = self.world_size(&self.config.context, "ctx");
        if self.errors.has_errors() {
            return None;
        }
        let layout = Layout::new(
            Servers { count: generation.value, world_size: generation_size },
            Servers { count: context.value, world_size: context_size },
            gpus_per_node.value,
            self.request.placement.value,
            self.request.frontend_node.value,
        );
        match layout {
            Ok(layout) => {
                self.layout_notes(&layout, gen_only);
                Some(layout)
            }
            Err(error) => {
                let location = generation.origin.location.clone();
                self.errors.push(Diagnostic::error(error.to_string()).at(location));
                None
            }
        }
    }

    /// World size: tensor × pipeline × context parallel size, each 1 when missing.
    fn world_size(&mut self, worker: &Worker, name: &str) -> u32 {
        let sizes = [
            &worker.tensor_parallel_size,
            &worker.pipeline_parallel_size,
            &worker.context_parallel_size,
        ];
        let mut product: u32 = 1;
        for size in sizes {
            let Some(size) = size.get(&mut self.errors) else { continue };
            match product.checked_mul(size.value).filter(|product| *product <= MAX_COUNT) {
                Some(larger) => product = larger,
                None => self.errors.push(
                    Diagnostic::error(format!(
                        "the world size of worker_config.{name} (tensor × pipeline × context \
                         parallel size) exceeds {MAX_COUNT}"
                    ))
                    .at(size.origin.location.clone()),
                ),
            }
        }
        product
    }

    fn layout_notes(&mut self, layout: &Layout, gen_only: bool) {
        if layout.num_ctx_servers == 0 && !gen_only {
            let note = "there are no context servers, although the mode is not gen_only";
            self.notes.push(note.into());
        }
        for kind in [RoleKind::Gen, RoleKind::Ctx] {
            let (nodes, tasks, tasks_per_node) = step_size(layout, kind);
            if count(layout, kind) > 0 && !tasks.is_multiple_of(tasks_per_node) {
                self.notes.push(format!(
                    "the last of the {nodes} nodes of each {kind} server is not full: {tasks} \
                     ranks, {tasks_per_node} on each full node"
                ));
            }
        }
    }

    fn concurrency(&mut self, mode: &str) -> Traced<u64> {
        let Some(list) = self.config.benchmark.concurrency.get(&mut self.errors) else {
            return Traced::new(1, Origin::rule("benchmark.concurrency_list is missing: 1"));
        };
        let largest = list.value.iter().copied().max().unwrap_or(1);
        if list.value.len() > 1 {
            self.notes.push(format!(
                "mode {mode} needs one concurrency: the largest of benchmark.concurrency_list, \
                 {largest}, is used"
            ));
        }
        Traced::new(largest, list.origin.clone())
    }

    fn origin(&self, whose: RuleName) -> Origin {
        Origin::rule(format!("{} rules: {}", self.rules.generation.name(), whose.0))
    }

    /// The variables of a role or of the job; `concurrency` is there in a gen_only test only.
    fn env(
        &mut self,
        whose: RuleName,
        sources: &[EnvSource],
        base: &BaseCommand,
        concurrency: Option<&Traced<u64>>,
    ) -> Env {
        let config = &self.config.environment;
        let rule = self.origin(whose).rule;
        let mut env = Env::default();
        for source in sources {
            let field = match source {
                EnvSource::WorkerEnv => &config.worker,
                EnvSource::ServerEnv => &config.server,
                EnvSource::BenchmarkEnv => &config.benchmark,
                EnvSource::BaseCommand => {
                    for (name, value) in base.env.iter() {
                        env.set(name, &value.value, value.origin.clone());
                    }
                    continue;
                }
                EnvSource::GenOnly(name, value) => {
                    let Some(concurrency) = concurrency else { continue };
                    let (value, origin) = match value {
                        GenOnlyValue::Constant(text) => (text.to_string(), Origin::default()),
                        GenOnlyValue::Concurrency => {
                            (concurrency.value.to_string(), concurrency.origin.clone())
                        }
                    };
                    let origin = origin.by_rule(format!("{rule} of a gen_only test"));
                    env.set(name, &Template::literal(&value), origin);
                    continue;
                }
            };
            if let Some(assignments) = field.get(&mut self.errors) {
                let origin = assignments.origin.by_rule(rule.clone());
                for assignment in &assignments.value {
                    env.set(&assignment.name, &assignment.value, origin.clone());
                }
            }
        }
        env
    }

    fn job(&mut self, layout: &Layout) -> Job {
        let settings = &self.request.job;
        let config = &self.config.slurm;
        let gpus = match &self.config.hardware.gpus_per_node {
            Field::Good(gpus) => gpus.origin.clone(),
            _ => Origin::default(),
        };
        let per_node = |rule: &'static str| Traced::new(layout.gpus_per_node, gpus.by_rule(rule));
        let wanted = config.set_segment.get(&mut self.errors).filter(|wanted| wanted.value);
        let knows_segment = settings.segment.as_ref().is_some_and(|known| known.value);
        if wanted.is_some() && !knows_segment {
            self.notes.push(
                "slurm.set_segment is not used: the site does not say that its Slurm knows \
                 --segment"
                    .into(),
            );
        }
        let segment = wanted
            .filter(|_| knows_segment)
            .map(|wanted| Traced::new(layout.total_nodes, wanted.origin.by_rule("one segment")));
        let time = match &settings.time {
            Some(time) => Some(time.clone()),
            None => config.job_time.get(&mut self.errors).cloned(),
        };
        let directory = &self.request.directories.workspace;
        Job {
            name: settings.name.clone().unwrap_or_else(|| {
                Traced::new(DEFAULT_JOB_NAME.into(), Origin::rule("the default job name"))
            }),
            output: Traced::new(
                format!("{}/slurm_%j.log", directory.value.trim_end_matches('/')),
                directory.origin.by_rule("the job's log is in the workspace"),
            ),
            nodes: Traced::new(
                layout.total_nodes,
                Origin::rule("total nodes: servers × ⌈world size / GPUs per node⌉"),
            ),
            ntasks: Traced::new(
                layout.total_gpus,
                Origin::rule("one task for each GPU of the job"),
            ),
            ntasks_per_node: per_node("one task for each GPU of a node"),
            gpus_per_node: per_node("all GPUs of each node"),
            time: time.unwrap_or_else(|| {
                Traced::new(DEFAULT_TIME.into(), Origin::rule("the default time limit"))
            }),
            partition: settings.partition.clone(),
            account: settings.account.clone(),
            segment,
        }
    }
}

/// Whom a rule is about, in words.
#[derive(Clone, Copy)]
struct RuleName(&'static str);

/// How many steps of a kind a test has.
pub(super) fn count(layout: &Layout, kind: RoleKind) -> u32 {
    match kind {
        RoleKind::Gen => layout.num_gen_servers,
        RoleKind::Ctx => layout.num_ctx_servers,
        RoleKind::DisaggServer | RoleKind::Benchmark => 1,
    }
}

/// Nodes, tasks and tasks per node of one step of a kind.
pub(super) fn step_size(layout: &Layout, kind: RoleKind) -> (u32, u32, u32) {
    let worker = |nodes, world_size| (nodes, world_size, layout.tasks_per_node(world_size));
    match kind {
        RoleKind::Gen => worker(layout.nodes_per_gen_server, layout.gpus_per_gen_server),
        RoleKind::Ctx => worker(layout.nodes_per_ctx_server, layout.gpus_per_ctx_server),
        RoleKind::DisaggServer | RoleKind::Benchmark => (1, 1, 1),
    }
}

fn step(request: &Request, layout: &Layout, kind: RoleKind) -> Step {
    let (nodes, tasks, tasks_per_node) = step_size(layout, kind);
    let shares_nodes = request.placement.value == Placement::Packed && tasks < layout.gpus_per_node;
    Step {
        nodes,
        tasks,
        tasks_per_node,
        mpi: kind.is_worker().then(|| request.mpi.value.clone()),
        overlap: !kind.is_worker() || shares_nodes,
        kill_on_bad_exit: true,
    }
}

fn size_variables(layout: &Layout) -> BTreeMap<String, String> {
    [
        ("numCtxServers", layout.num_ctx_servers),
        ("numGenServers", layout.num_gen_servers),
        ("gpusPerNode", layout.gpus_per_node),
        ("gpusPerCtxServer", layout.gpus_per_ctx_server),
        ("gpusPerGenServer", layout.gpus_per_gen_server),
        ("nodesPerCtxServer", layout.nodes_per_ctx_server),
        ("nodesPerGenServer", layout.nodes_per_gen_server),
        ("totalNodes", layout.total_nodes),
        ("totalGpus", layout.total_gpus),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_string()))
    .collect()
}

fn container(request: &Request) -> Option<Container> {
    let settings = request.container.as_ref()?;
    let directories = &request.directories;
    let workspace = directories.workspace.value.trim_end_matches('/');
    let mount = |directory: &Traced<String>, target: &str| {
        Traced::new(
            format!("{}:{target}", directory.value),
            directory.origin.by_rule("D, W and M are mounted at their own paths, M also at /data"),
        )
    };
    let own_path = |directory: &Traced<String>| mount(directory, &directory.value);
    let mut name = Template::literal("disagg_test_");
    name.push_variable("SLURM_JOB_ID");
    Some(Container {
        name,
        image: settings.image.clone(),
        workdir: Traced::new(
            format!("{workspace}/disagg_workspace"),
            directories.workspace.origin.by_rule("the container's working directory"),
        ),
        mounts: [
            own_path(&directories.source),
            own_path(&directories.workspace),
            own_path(&directories.models),
            mount(&directories.models, "/data"),
        ]
        .into_iter()
        .chain(settings.mounts.iter().cloned())
        .collect(),
    })
}
