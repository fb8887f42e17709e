// SPDX-License-Identifier: Apache-2.0
//! How many servers a test has, how large they are and where they run.

use indexmap::IndexMap;

use super::{Planner, Subject};
use crate::diagnostic::{Diagnostic, Diagnostics, Location};
use crate::plan::config::{Field, Worker};
use crate::plan::layout::{
    FrontendNode, Layout, MAX_COUNT, Placement, Placer, Run as Instances, TooLarge,
};
use crate::plan::origin::{Origin, Traced};
use crate::plan::role::{Deal, Purpose, Step};
use crate::plan::rules::{
    LAYOUT_OF_ONE_SERVER, LAYOUT_OF_SERVERS, OWN_QUEUE_CAPPED, QUEUE_CAPPED, QUEUE_OF_FIRST, Run,
    Size, is_gen_only,
};
use crate::plan::test_id::TestKind;

/// Servers of one kind: how many, and the world size of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Servers {
    /// How many.
    pub count: u32,
    /// World size of each: its GPUs, one rank each.
    pub world_size: u32,
}

/// The sizes of a test, in the test suite's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sizes {
    /// GPUs of each node.
    pub gpus_per_node: u32,
    /// Generation servers.
    pub generation: Servers,
    /// Context servers.
    pub context: Servers,
    /// World size of the one server of a test without both; 0 in other tests.
    pub one_server: u32,
    /// Nodes of the whole job.
    pub total_nodes: u32,
}

/// Where the instances of each size run.
pub(super) struct Places {
    generation: Vec<Instances>,
    context: Vec<Instances>,
    one_server: Vec<Instances>,
    frontend: Vec<Instances>,
}

impl Places {
    pub(super) fn of(&self, size: Size) -> &[Instances] {
        match size {
            Size::Generation => &self.generation,
            Size::Context => &self.context,
            Size::OneServer => &self.one_server,
            Size::Frontend => &self.frontend,
        }
    }
}

impl Sizes {
    /// Nodes that a server spans.
    pub fn nodes(&self, world_size: u32) -> u32 {
        world_size.div_ceil(self.gpus_per_node.max(1))
    }

    /// Tasks that a server has on each of its full nodes.
    pub fn tasks_per_node(&self, world_size: u32) -> u32 {
        world_size.min(self.gpus_per_node)
    }

    /// The tasks of the one server's step when every node of it is full, which run scripts know
    /// as its world size.
    pub fn full_world_size(&self) -> u32 {
        self.nodes(self.one_server).saturating_mul(self.tasks_per_node(self.one_server))
    }

    /// GPUs of the whole job.
    pub fn total_gpus(&self) -> u32 {
        self.total_nodes.saturating_mul(self.gpus_per_node)
    }

    /// How many of a size there are, and their world size.
    pub(super) fn servers(&self, size: Size) -> Servers {
        match size {
            Size::Generation => self.generation,
            Size::Context => self.context,
            Size::OneServer => {
                Servers { count: u32::from(self.one_server > 0), world_size: self.one_server }
            }
            Size::Frontend => Servers { count: 1, world_size: 1 },
        }
    }

    /// The size and the flags of the step of a role.
    pub(super) fn step(&self, size: Size, placement: Placement, mpi: &str) -> Step {
        let tasks = self.servers(size).world_size;
        let uses_gpus = size != Size::Frontend;
        Step {
            nodes: self.nodes(tasks),
            tasks,
            tasks_per_node: self.tasks_per_node(tasks),
            deal: Deal::Filled,
            mpi: uses_gpus.then(|| mpi.to_owned()),
            overlap: !uses_gpus || self.shares_nodes(size, placement),
            kill_on_bad_exit: true,
        }
    }

    /// Whether servers of a size share nodes with others.
    pub(super) fn shares_nodes(&self, size: Size, placement: Placement) -> bool {
        let world_size = self.servers(size).world_size;
        placement == Placement::Packed && size.is_numbered() && world_size < self.gpus_per_node
    }

    /// The plan's layout.
    pub(super) fn layout(&self) -> Layout {
        let named = if self.one_server > 0 { LAYOUT_OF_ONE_SERVER } else { LAYOUT_OF_SERVERS };
        let numbers: IndexMap<_, _> =
            named.iter().map(|(name, number)| ((*name).to_owned(), number(self))).collect();
        Layout {
            gpus_per_node: self.gpus_per_node,
            total_nodes: self.total_nodes,
            total_gpus: self.total_gpus(),
            numbers,
        }
    }
}

impl<'r> Planner<'r> {
    /// A number that the test cannot do without; 0 when it is missing or wrong.
    fn required(&mut self, field: &Field<u32>, key: &str, what: &str) -> Traced<u32> {
        let path = format!("hardware.{key}");
        let is_mistyped = ["server_configs", &path].iter().any(|at| self.config.is_mistyped(at));
        if field.is_missing() && !is_mistyped {
            self.errors.push(
                Diagnostic::error(format!("hardware.{key} is missing"))
                    .at(self.config.location("hardware"))
                    .help(format!("add `{key}: N` below `hardware:`, the number of {what}")),
            );
        }
        field.get(&mut self.errors).cloned().unwrap_or_default()
    }

    /// The sizes of the test, and where each role runs.
    pub(super) fn sizes(&mut self, subject: &Subject<'r>) -> Option<(Sizes, Places)> {
        let hardware = &self.config.hardware;
        let gpus_per_node =
            self.required(&hardware.gpus_per_node, "gpus_per_node", "GPUs of each node");
        let (mut sizes, location) = match subject.id.kind {
            TestKind::Disaggregated => self.servers(subject)?,
            kind => self.one_server(kind, subject)?,
        };
        sizes.gpus_per_node = gpus_per_node.value;
        match self.places(&mut sizes) {
            Ok(places) => {
                self.size_notes(&sizes, subject);
                Some((sizes, places))
            }
            Err(error) => {
                self.errors.push(Diagnostic::error(error.to_string()).at(location));
                None
            }
        }
    }

    fn places(&self, sizes: &mut Sizes) -> Result<Places, TooLarge> {
        // The one server has whole nodes.
        let placement = match sizes.one_server {
            0 => self.request.placement.value,
            _ => Placement::Exclusive,
        };
        let mut placer = Placer::new(sizes.gpus_per_node, placement);
        let mut place = |servers: Servers| placer.place(servers.count, servers.world_size.max(1));
        let generation = place(sizes.generation)?;
        let context = place(sizes.context)?;
        let one_server = place(sizes.servers(Size::OneServer))?;
        let frontend = match self.request.frontend_node.value {
            _ if sizes.one_server > 0 => 0,
            FrontendNode::First => 0,
            FrontendNode::Ctx => context.first().map_or(0, |run| run.first_node),
            FrontendNode::Last => placer.total_nodes().saturating_sub(1),
            FrontendNode::Own => placer.own_node()?,
        };
        sizes.total_nodes = placer.total_nodes();
        Ok(Places { generation, context, one_server, frontend: Instances::on(frontend) })
    }

    /// The layout of context and generation servers, and where it is to blame.
    fn servers(&mut self, subject: &Subject<'r>) -> Option<(Sizes, Option<Location>)> {
        let hardware = &self.config.hardware;
        let generation =
            self.required(&hardware.num_gen_servers, "num_gen_servers", "generation servers");
        if generation.value == 0 && generation.origin.location.is_some() {
            self.errors.push(
                Diagnostic::error("a disaggregated test needs at least one generation server")
                    .at(generation.origin.location.clone()),
            );
        }
        let context = if subject.run == Run::NoContext {
            if matches!(&hardware.num_ctx_servers, Field::Good(count) if count.value > 0) {
                self.notes.push(format!(
                    "mode {} has no context servers: hardware.num_ctx_servers is not used",
                    subject.mode
                ));
            }
            Traced::default()
        } else {
            if hardware.num_ctx_servers.is_missing() {
                self.no_context_hint(subject);
            }
            self.required(&hardware.num_ctx_servers, "num_ctx_servers", "context servers")
        };
        let generation_size = self.world_size(&self.config.generation, "worker_config.gen");
        let context_size = self.world_size(&self.config.context, "worker_config.ctx");
        if self.errors.has_errors() {
            return None;
        }
        let sizes = Sizes {
            generation: Servers { count: generation.value, world_size: generation_size },
            context: Servers { count: context.value, world_size: context_size },
            ..Sizes::default()
        };
        Some((sizes, generation.origin.location))
    }

    /// Says where the configuration and the test id contradict each other on context servers.
    fn no_context_hint(&mut self, subject: &Subject<'_>) {
        let Field::Good(mode) = &self.config.benchmark.mode else { return };
        if is_gen_only(&mode.value) && !is_gen_only(&subject.mode) {
            self.errors.push(
                Diagnostic::note(format!(
                    "benchmark.mode is {}, but the test id says {}",
                    mode.value, subject.mode
                ))
                .at(mode.origin.location.clone())
                .help("name the test with gen_only, or give it context servers"),
            );
        }
    }

    /// The layout of one server, and where it is to blame. A world size of its own counts instead
    /// of the product of its parallel sizes.
    fn one_server(
        &mut self,
        kind: TestKind,
        subject: &Subject<'r>,
    ) -> Option<(Sizes, Option<Location>)> {
        let config = self.config;
        let (worker, name) = match (kind, subject.entry) {
            (TestKind::CtxOnly, _) => (&config.context, "worker_config.ctx"),
            (TestKind::Aggregated, Some(entry)) => (&entry.worker, "server_configs"),
            (TestKind::Aggregated, None) => return None,
            _ => (&config.generation, "worker_config.gen"),
        };
        if !worker.present && !config.is_mistyped(name) {
            let message = format!("{name} is missing, and a {} test is sized by it", subject.mode);
            let location = config.location("worker_config");
            self.errors.push(Diagnostic::error(message).at(location).help(format!(
                "add `{}:` with `tensor_parallel_size:` below `worker_config:`",
                name.rsplit('.').next().unwrap_or(name)
            )));
        }
        let world_size = match worker.world_size.get(&mut self.errors) {
            Some(given) if given.value > 0 => given.value,
            _ => self.world_size(worker, name),
        };
        if self.errors.has_errors() {
            return None;
        }
        let sizes = Sizes { one_server: world_size, ..Sizes::default() };
        Some((sizes, config.location("hardware")))
    }

    /// World size: tensor × pipeline × context parallel size, each 1 when missing.
    fn world_size(&mut self, worker: &Worker, name: &str) -> u32 {
        let sizes = [
            &worker.tensor_parallel_size,
            &worker.pipeline_parallel_size,
            &worker.context_parallel_size,
        ];
        if let (Some(experts), Some(tensor)) =
            (worker.moe_expert_parallel_size.get(&mut self.errors), sizes[0].get(&mut self.errors))
            && !tensor.value.is_multiple_of(experts.value)
        {
            let message = format!(
                "{name}.moe_expert_parallel_size is {}, which does not divide tensor_parallel_size {}",
                experts.value, tensor.value
            );
            self.errors.push(Diagnostic::error(message).at(experts.origin.location.clone()));
        }
        let mut product: u32 = 1;
        for size in sizes {
            let Some(size) = size.get(&mut self.errors) else { continue };
            match product.checked_mul(size.value).filter(|product| *product <= MAX_COUNT) {
                Some(larger) => product = larger,
                None => self.errors.push(
                    Diagnostic::error(format!(
                        "the world size of {name} (tensor × pipeline × context parallel size) \
                         exceeds {MAX_COUNT}"
                    ))
                    .at(size.origin.location.clone()),
                ),
            }
        }
        product
    }

    fn size_notes(&mut self, sizes: &Sizes, subject: &Subject<'_>) {
        let has_servers = sizes.one_server == 0;
        if has_servers && sizes.context.count == 0 && subject.run != Run::NoContext {
            let note = "there are no context servers, although the mode is not gen_only";
            self.notes.push(note.into());
        }
        for role in self.rules.roles(subject.id.kind) {
            let Servers { count, world_size } = sizes.servers(role.size);
            let per_node = sizes.tasks_per_node(world_size);
            let is_server = role.size != Size::Frontend && role.purpose != Purpose::Check;
            if is_server && count > 0 && !world_size.is_multiple_of(per_node) {
                self.notes.push(format!(
                    "the last of the {} nodes of each {} server is not full: {world_size} ranks, \
                     {per_node} on each full node",
                    sizes.nodes(world_size),
                    role.name
                ));
            }
        }
        for (worker, name, size) in [
            (&self.config.generation, "gen", sizes.generation.world_size),
            (&self.config.context, "ctx", sizes.context.world_size),
        ] {
            if let Field::Good(given) = &worker.world_size
                && has_servers
                && ![0, size].contains(&given.value)
            {
                self.notes.push(format!(
                    "worker_config.{name}.world_size, {}, is not used: the parallel sizes make {size}",
                    given.value
                ));
            }
        }
    }

    fn concurrency(&mut self, mode: &str) -> Traced<u64> {
        let Some(list) = self.config.benchmark.concurrency.get(&mut self.errors) else {
            return Traced::new(1, Origin::rule("benchmark.concurrency_list is missing: 1"));
        };
        let (which, number) = match self.rules.is_in(QUEUE_OF_FIRST) {
            true => ("first", list.value.first()),
            false => ("largest", list.value.iter().max()),
        };
        let number = number.copied().unwrap_or(1);
        if list.value.len() > 1 {
            self.notes.push(format!(
                "mode {mode} needs one concurrency: the {which} of benchmark.concurrency_list, \
                 {number}, is used"
            ));
        }
        Traced::new(number, list.origin.by_rule("the concurrency"))
    }

    /// How many requests are queued before any is served: all, so that decoding alone is measured.
    /// A server that cannot hold them all never begins; launchers of pipelines do not prevent that.
    pub(super) fn queue_size(&mut self, mode: &str) -> Traced<u64> {
        let concurrency = self.concurrency(mode);
        if !self.rules.is_in(OWN_QUEUE_CAPPED) {
            return concurrency;
        }
        let is_capped = self.rules.is_in(QUEUE_CAPPED) || self.request.base.is_none();
        let worker = &self.config.generation;
        // A field that decides nothing may be wrong.
        let mut unused = Diagnostics::default();
        let errors = if is_capped { &mut self.errors } else { &mut unused };
        let Some(batch) = worker.max_batch_size.get(errors) else { return concurrency };
        let attention_dp = worker.enable_attention_dp.get(errors).is_some_and(|on| on.value);
        let ranks = match worker.tensor_parallel_size.get(errors) {
            Some(size) if attention_dp => size.value,
            _ => 1,
        };
        let capacity = u64::from(batch.value) * u64::from(ranks);
        if concurrency.value <= capacity {
            return concurrency;
        }
        if !is_capped {
            self.notes.push(format!(
                "the queue has {} requests, the concurrency, as the pipeline sets it; the \
                 generation server holds {capacity} (max_batch_size × the ranks that serve requests \
                 of their own)",
                concurrency.value
            ));
            return concurrency;
        }
        self.notes.push(format!(
            "the queue has {capacity} requests, not {}: the generation server holds no more \
             (max_batch_size × the ranks that serve requests of their own)",
            concurrency.value
        ));
        Traced::new(capacity, batch.origin.by_rule("the capacity of the generation server"))
    }
}
