// SPDX-License-Identifier: Apache-2.0
//! How many instances a recipe's roles have, how large they are, where they run, and their ports.

use indexmap::IndexMap;

use super::{Planner, step_on};
use crate::diagnostic::{Diagnostic, Location};
use crate::plan::content::Content;
use crate::plan::expr::{Expr, Value};
use crate::plan::layout::{FrontendNode, MAX_COUNT, Placement, Placer, Run};
use crate::plan::origin::Traced;
use crate::plan::profile::{ProfileRole, TaskPer};
use crate::plan::recipe::RecipeRole;
use crate::plan::role::{Deal, Ports, Purpose, Step};
use crate::plan::template::{Fact, Slot, Template};

/// A role with its sizes.
pub(super) struct Sized<'r> {
    /// Its name in recipes.
    pub key: &'r str,
    /// What the profile says of it.
    pub profile: &'r ProfileRole,
    /// What the recipe says of it.
    pub recipe: Option<&'r RecipeRole>,
    /// Its arguments: the profile's, and the recipe's over them.
    pub args: IndexMap<&'r str, &'r Traced<Content>>,
    /// How many.
    pub count: u32,
    /// GPUs of each; 0: none.
    pub gpus: u32,
    /// The step of each.
    pub step: Step,
    /// Where they run.
    pub places: Vec<Run>,
    /// Their ports.
    pub ports: IndexMap<String, Ports>,
    /// Whether they are started.
    pub is_started: bool,
}

impl Sized<'_> {
    /// Whether the plan has steps of it.
    pub fn runs(&self) -> bool {
        self.count > 0 && self.is_started
    }

    /// The addresses of all, with the numbers of a port, in terms of the job's nodes.
    pub fn addresses(&self, port: &str, scheme: &str) -> Vec<Template> {
        let Some(ports) = self.ports.get(port) else { return Vec::new() };
        let nodes = self.places.iter().flat_map(|run| {
            (0..run.count).map(|at| match self.step.deal {
                Deal::ByGpu => {
                    let gpus = u64::from(run.first_gpu) + u64::from(at) * u64::from(self.gpus);
                    run.first_node + (gpus / u64::from(self.step.tasks_per_node)) as u32
                }
                Deal::Filled | Deal::Even => {
                    run.first_node + at / run.per_node.max(1) * self.step.nodes
                }
            })
        });
        let address = |(at, node): (usize, u32)| {
            let mut address = Template::literal(scheme);
            address.push_slot(Slot { plus: node as i32, ..Slot::own(Fact::JobNode) });
            address.push_text(&format!(":{}", ports.end(at as u32)));
            address
        };
        nodes.enumerate().map(address).collect()
    }

    /// The most nodes that an instance spans.
    fn most_nodes(&self) -> u32 {
        let per_node = self.step.tasks_per_node;
        let nodes = |run: &Run| {
            // The places on the first node repeat after as many instances as it has GPUs.
            let firsts = (0..run.count.min(per_node)).map(|at| {
                let first = u64::from(run.first_gpu) + u64::from(at) * u64::from(self.gpus);
                (first % u64::from(per_node)) as u32
            });
            firsts.map(|first| (first + self.gpus).div_ceil(per_node)).max().unwrap_or(1)
        };
        match self.step.deal {
            Deal::ByGpu => self.places.iter().map(nodes).max().unwrap_or(1),
            Deal::Filled | Deal::Even => self.step.nodes,
        }
    }

    /// GPUs of an instance on each of its full nodes.
    pub fn gpus_on_a_node(&self) -> u32 {
        match self.step.deal {
            Deal::ByGpu => self.step.tasks_per_node,
            Deal::Filled | Deal::Even => self.gpus.div_ceil(self.step.nodes.max(1)),
        }
    }
}

/// Whether two names of arguments are the same, however their words are joined.
pub(super) fn is_same(one: &str, other: &str) -> bool {
    let joined = |byte: u8| if byte == b'-' { b'_' } else { byte };
    one.bytes().map(joined).eq(other.bytes().map(joined))
}

impl<'r> Planner<'r> {
    /// The roles of the profile with their counts and sizes, in its order.
    pub(super) fn sizes(&mut self) -> Vec<Sized<'r>> {
        let (profile, recipe) = (self.profile, self.recipe);
        let mut sized: Vec<Sized<'r>> = Vec::new();
        for (key, of_profile) in &profile.roles {
            let of_recipe = recipe.roles.get(key);
            let mut args: IndexMap<&str, &Traced<Content>> = IndexMap::new();
            for (name, value) in
                of_profile.args.iter().chain(of_recipe.iter().flat_map(|r| &r.args))
            {
                let same = args.keys().find(|known| is_same(known, name)).copied();
                args.insert(same.unwrap_or(name), value);
            }
            let given = of_recipe.and_then(|role| role.servers.as_ref());
            sized.push(Sized {
                key,
                profile: of_profile,
                recipe: of_recipe,
                args,
                count: given.map_or(u32::from(of_recipe.is_some()), |servers| servers.value),
                gpus: 0,
                step: step_on(1),
                places: Vec::new(),
                ports: IndexMap::new(),
                is_started: !of_recipe.is_some_and(|role| role.is_held),
            });
        }
        for at in 0..sized.len() {
            let role = &sized[at];
            let is_given = role.recipe.is_some_and(|role| role.servers.is_some());
            if let Some(count) = role.profile.count.as_ref().filter(|_| !is_given) {
                let role_count = self.number(count, &sized, 0);
                sized[at].count = role_count;
            }
        }
        if !sized.iter().any(|role| role.profile.purpose == Purpose::Server && role.runs()) {
            let servers = sized.iter().filter(|role| role.profile.purpose == Purpose::Server);
            let names: Vec<_> = servers.map(|role| role.key).collect();
            let message = "the recipe has no servers";
            let help = format!("add one of these below `roles:`: {}", names.join(", "));
            let at = recipe.roles.values().next().and_then(|role| role.key.origin.location.clone());
            self.errors.push(Diagnostic::error(message).at(at).help(help));
        }
        self.check_mode(&sized);
        for role in sized.iter_mut().filter(|role| role.count > 0) {
            self.size(role);
        }
        sized
    }

    /// Servers that nothing asks, or that lack others to work with, would hold their GPUs for nothing.
    fn check_mode(&mut self, sized: &[Sized<'r>]) {
        let modes = &self.profile.modes;
        let is_of_a_mode = |role: &&Sized<'r>| modes.values().flatten().any(|key| key == role.key);
        let servers: Vec<_> =
            sized.iter().filter(|role| role.count > 0).filter(is_of_a_mode).collect();
        let has = |mode: &[String], role: &Sized<'r>| mode.iter().any(|key| key == role.key);
        let missing = |mode: &[String]| {
            mode.iter().find(|key| !servers.iter().any(|role| role.key == **key)).cloned()
        };
        let Some(first) = servers.first() else { return };
        let with_all = modes.values().filter(|mode| servers.iter().all(|role| has(mode, role)));
        let with_all: Vec<_> = with_all.collect();
        if with_all.iter().any(|mode| missing(mode).is_none()) {
            return;
        }
        let (role, message) = match with_all.first().and_then(|mode| missing(mode)) {
            Some(missing) => {
                (*first, format!("{} has no {missing} servers to work with", first.key))
            }
            None => {
                let mode =
                    modes.values().find(|mode| has(mode, first)).map_or(&[][..], Vec::as_slice);
                let other = servers.iter().find(|role| !has(mode, role)).unwrap_or(first);
                (
                    *other,
                    format!("{} does not work together with {}", other.key, mode.join(" and ")),
                )
            }
        };
        let kinds: Vec<_> = modes.values().map(|roles| roles.join(" and ")).collect();
        let help = format!("a recipe has servers of one kind: {}", kinds.join(", or "));
        let at = role.recipe.and_then(|role| role.key.origin.location.clone());
        self.errors.push(Diagnostic::error(message).at(at).help(help));
    }

    /// A number that an expression of the profile makes from counts of roles and GPUs.
    fn number(&mut self, expr: &Traced<Expr>, all: &[Sized<'r>], gpus: u32) -> u32 {
        let value = expr.value.value(&mut |name, of| match (name, of) {
            ("count", Some(of)) => {
                let role = all.iter().find(|role| role.key == of);
                Ok(Value::Number(role.map_or(0, |role| role.count).into()))
            }
            ("gpu_count", None) => Ok(Value::Number(gpus.into())),
            _ => Err(format!("{name} is not known here")),
        });
        let number = match value {
            Ok(Value::Number(number)) => u32::try_from(number).ok().filter(|n| *n <= MAX_COUNT),
            _ => None,
        };
        if number.is_none() {
            let why = match value {
                Err(why) => why,
                Ok(_) => format!("{} must be a number from 0 to {MAX_COUNT}", expr.value),
            };
            let message = format!("{}: {why}", expr.origin.input);
            self.error(message, expr.origin.location.clone());
        }
        number.unwrap_or_default()
    }

    /// The GPUs and the step of a role.
    fn size(&mut self, role: &mut Sized<'r>) {
        let is_server = role.profile.purpose == Purpose::Server;
        let (product, of_sizes) = if is_server { self.product(role) } else { (1, None) };
        let given = role.recipe.and_then(|role| role.gpus.as_ref());
        let at = given.and_then(|given| given.origin.location.clone()).or(of_sizes);
        let sizes = !self.profile.sizes.is_empty() && is_server;
        role.gpus = match given {
            Some(given)
                if sizes && given.value != product && !(given.value == 0 && product == 1) =>
            {
                let names: Vec<_> = self
                    .profile
                    .sizes
                    .values()
                    .filter_map(|names| names.first())
                    .cloned()
                    .collect();
                let message = format!(
                    "roles.{}.gpus is {}, but its sizes make {product}",
                    role.key, given.value
                );
                let help = format!("{} make it; leave gpus out to use that", names.join(" × "));
                self.errors.push(Diagnostic::error(message).at(at.clone()).help(help));
                given.value
            }
            Some(given) => given.value,
            None if sizes => product,
            None => 0,
        };
        let mpi = role.profile.mpi.then(|| self.request.mpi.value.clone());
        let is_compact = is_server && self.request.placement.value == Placement::Compact;
        if is_compact && (role.profile.tasks != TaskPer::Gpu || role.gpus == 0) {
            let message = format!(
                "servers that are placed `compact` have a task for each GPU, those of roles.{} do not",
                role.key
            );
            self.error(message, at.clone());
        }
        if role.gpus == 0 {
            role.step.mpi = mpi;
            return;
        }
        if self.gpus_per_node == 0 {
            let message = "gpus_per_node is missing, the number of GPUs of each node";
            let at = role.recipe.and_then(|role| role.key.origin.location.clone());
            let help =
                format!("add `gpus_per_node: N`; or `gpus: 0` to roles.{}, on CPUs", role.key);
            self.errors.push(Diagnostic::error(message).at(at).help(help));
            return;
        }
        let nodes = role.gpus.div_ceil(self.gpus_per_node);
        if role.profile.tasks != TaskPer::Gpu && !role.gpus.is_multiple_of(nodes) {
            let message = format!(
                "{} GPUs of roles.{} cannot be divided among {nodes} nodes of {} GPUs alike",
                role.gpus, role.key, self.gpus_per_node
            );
            self.error(message, at.clone());
        }
        let tasks = match role.profile.tasks {
            TaskPer::Gpu => role.gpus,
            TaskPer::Node => nodes,
            TaskPer::Step => 1,
        };
        if role.profile.tasks == TaskPer::Step && nodes > 1 {
            let message = format!(
                "roles.{} runs on one node, which has {} GPUs",
                role.key, self.gpus_per_node
            );
            self.error(message, at);
        }
        let shares = is_compact
            || self.request.placement.value == Placement::Packed && role.gpus < self.gpus_per_node;
        let (per_node, full) = (tasks.div_ceil(nodes), tasks % nodes);
        role.step = Step {
            nodes,
            tasks,
            tasks_per_node: if is_compact { self.gpus_per_node } else { per_node },
            deal: match is_compact {
                true => Deal::ByGpu,
                // Where the last node alone has fewer, that is node after node.
                false if full == 0 || full + 1 == nodes => Deal::Filled,
                false => Deal::Even,
            },
            mpi,
            overlap: shares,
            kill_on_bad_exit: true,
        };
    }

    /// The value of one of the profile's sizes for a role; nothing where no argument names it.
    pub(super) fn size_of(&self, role: &Sized<'r>, size: &str) -> Option<&'r Traced<Content>> {
        let names = self.profile.sizes.get(size)?;
        let is_one = |name: &&str| names.iter().any(|known| is_same(known, name));
        let of_args =
            role.args.keys().find(|name| is_one(name)).and_then(|name| role.args.get(name));
        let of_config = || {
            let mut config = role.recipe?.config.iter();
            config.find(|(name, _)| is_one(&name.as_str())).map(|(_, value)| value)
        };
        of_args.copied().or_else(of_config)
    }

    /// The product of a server's sizes, and the place of one of them.
    fn product(&mut self, role: &Sized<'r>) -> (u32, Option<Location>) {
        let (mut product, mut at) = (1_u32, None);
        for (size, names) in &self.profile.sizes {
            let is_one = |name: &str| names.iter().any(|known| is_same(known, name));
            let of_config = role.recipe.iter().flat_map(|role| &role.config);
            let of_config = of_config.map(|(name, value)| (name.as_str(), value));
            let args = role.args.iter().map(|(name, value)| (*name, *value));
            let all: Vec<_> = args.chain(of_config).collect();
            // The engine would not know it, and nobody would count its GPUs.
            for (_, value) in all.iter().filter(|(name, _)| is_same(size, name) && !is_one(name)) {
                let message = format!("{}: write {}", value.origin.input, names.join(" or "));
                self.error(message, value.origin.location.clone());
            }
            let given: Vec<_> = all.into_iter().filter(|(name, _)| is_one(name)).collect();
            if let [(one, value), rest @ ..] = &given[..]
                && let Some((_, again)) =
                    rest.iter().find(|(other, again)| other != one || again.value != value.value)
            {
                let places = [value, again].map(|value| &value.origin.input);
                let message = format!("{} and {} mean the same", places[0], places[1]);
                self.error(message, again.origin.location.clone());
            }
            let Some(Traced { value, origin }) = self.size_of(role, size) else { continue };
            at = at.or(origin.location.clone());
            let number = match value {
                Content::Int(number) => u32::try_from(*number).ok().filter(|number| *number > 0),
                Content::Null => Some(1),
                _ => None,
            };
            let larger = number.and_then(|number| product.checked_mul(number));
            match larger.filter(|product| *product <= MAX_COUNT) {
                Some(larger) => product = larger,
                None => {
                    let message =
                        format!("{} must be a number from 1 to {MAX_COUNT}", origin.input);
                    let text = match value {
                        Content::Text(text) => text.as_str(),
                        _ => "",
                    };
                    let help =
                        text.parse().map(|number: u32| format!("write {number} without quotes"));
                    let error = Diagnostic::error(message).at(origin.location.clone());
                    self.errors.push_once(error.help(help.unwrap_or_default()));
                }
            }
        }
        (product, at)
    }

    /// Gives the roles their nodes. Returns how many there are, and the one of clients.
    pub(super) fn place(&mut self, sized: &mut [Sized<'r>]) -> Option<(u32, u32)> {
        let gpus_per_node = self.gpus_per_node.max(1);
        let mut placer = Placer::new(gpus_per_node, self.request.placement.value);
        for role in sized.iter_mut() {
            if role.profile.purpose != Purpose::Server || role.count == 0 {
                continue;
            }
            match placer.place(role.count, role.gpus.max(1)) {
                Ok(places) => {
                    role.places = places;
                    role.step.nodes = role.most_nodes();
                }
                Err(error) => {
                    let at = role.recipe.and_then(|role| role.key.origin.location.clone());
                    self.error(error.to_string(), at);
                    return None;
                }
            }
        }
        let own =
            self.request.frontend_node.as_ref().map(|node| node.value) == Some(FrontendNode::Own);
        if own && let Err(error) = placer.own_node() {
            self.error(error.to_string(), None);
        }
        let total = placer.total_nodes();
        for at in 0..sized.len() {
            if sized[at].profile.purpose != Purpose::Server && sized[at].count > 0 {
                let node = self.frontend(sized, sized[at].profile.node.as_deref(), total);
                let count = sized[at].count;
                sized[at].places =
                    vec![Run { count, first_node: node, per_node: count, first_gpu: 0 }];
            }
        }
        let frontend = self.frontend(sized, None, total);
        Some((total, frontend))
    }

    /// Gives the roles their ports: from the numbers of the profile on, and none twice in the job.
    pub(super) fn ports(&mut self, sized: &mut [Sized<'r>]) {
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for at in 0..sized.len() {
            let role = &sized[at];
            let (count, gpus, profile) = (role.count, role.gpus.max(1), role.profile);
            let of_recipe = role.recipe.map(|role| &role.ports);
            for (name, (first, each)) in profile.ports.iter().filter(|_| count > 0) {
                let given = of_recipe.and_then(|ports| ports.get(name));
                let first = given.map_or(*first, |given| given.value);
                let each = each.as_ref().map_or(1, |each| self.number(each, sized, gpus)).max(1);
                let (mut start, length) = (u64::from(first), u64::from(each) * u64::from(count));
                while let Some((_, end)) =
                    taken.iter().find(|(from, end)| start < *end && *from < start + length)
                {
                    start = *end;
                }
                if start + length > 1 << 16 {
                    let place = sized[at].recipe.and_then(|role| role.key.origin.location.clone());
                    let message = format!(
                        "{count} × {each} ports `{name}` of roles.{} do not fit above {start}",
                        sized[at].key
                    );
                    self.error(message, place);
                    continue;
                }
                taken.push((start, start + length));
                let ports = Ports { first: start as u16, each: each as u16 };
                sized[at].ports.insert(name.clone(), ports);
            }
        }
    }
}
