// SPDX-License-Identifier: Apache-2.0
//! Whether a plan that anybody may have written fits together.

use std::path::{Component, Path};

use super::argument::{Argument, Group};
use super::health;
use super::layout::{self, Layout, MAX_COUNT};
use super::role::{Deal, Ports, Role};
use super::template::{self, Fact, Template};
use super::{BadPlan, Plan};

/// The most instances that the commands and files of a role may name: what a command line holds.
pub const MAX_ITEMS: u64 = 200_000;

impl Plan {
    /// Whether the numbers of a plan that anybody may have written fit each other.
    pub(super) fn check(&self) -> Result<(), BadPlan> {
        let Layout { gpus_per_node, total_nodes, total_gpus, .. } = self.layout;
        let counts = [gpus_per_node, total_nodes, total_gpus];
        let product = u64::from(gpus_per_node) * u64::from(total_nodes);
        if counts.iter().any(|count| !(1..=MAX_COUNT).contains(count))
            || product != u64::from(total_gpus)
        {
            return Err(BadPlan::Inconsistent("the layout's totals do not fit each other"));
        }
        let base = self.suite.as_ref().map(|suite| &suite.base_command);
        if base.is_some_and(|base| base.launcher_at > base.argv.len()) {
            return Err(BadPlan::Inconsistent("its launcher has no place in the base command"));
        }
        for (name, role) in &self.roles {
            if !template::is_name(name) {
                return Err(BadPlan::Inconsistent("a role's name cannot be a variable's value"));
            }
            let places: u64 = role.places.iter().map(|run| u64::from(run.count)).sum();
            if places != u64::from(role.count) || role.count > MAX_COUNT {
                return Err(BadPlan::Inconsistent("a role's count is not that of its places"));
            }
            let step = &role.step;
            let sizes = [step.nodes, step.tasks, step.tasks_per_node];
            if (role.count > 0 || sizes != [0; 3])
                && (sizes.iter().any(|size| !(1..=MAX_COUNT).contains(size))
                    || (step.deal != Deal::ByGpu
                        && step.tasks.div_ceil(step.tasks_per_node) != step.nodes)
                    || (step.deal == Deal::ByGpu && step.tasks_per_node != gpus_per_node))
            {
                return Err(BadPlan::Inconsistent("the numbers of a role's step do not fit"));
            }
            let is_outside = |run: &layout::Run| {
                let shared = match step.deal {
                    Deal::ByGpu => u64::from(run.first_gpu) + 1,
                    Deal::Filled | Deal::Even => {
                        u64::from(run.first_gpu) + u64::from(run.per_node) * u64::from(role.gpus)
                    }
                };
                run.per_node == 0
                    || (run.per_node > 1 && step.nodes > 1)
                    || shared > u64::from(gpus_per_node)
            };
            if role.places.iter().any(is_outside) || role.end_of_nodes() > u64::from(total_nodes) {
                return Err(BadPlan::Inconsistent(
                    "a role's steps do not fit onto the job's nodes",
                ));
            }
        }
        for role in self.all_roles() {
            if role.argv.is_empty()
                || role.templates().any(|template| template.as_str().contains('\0'))
                || role.unset.iter().any(|name| !template::is_name(&name.value))
            {
                return Err(BadPlan::Inconsistent("a role's command cannot be run"));
            }
            let mut cleared =
                role.cleared.iter().flat_map(|all| all.prefixes.iter().chain(&all.except));
            let is_below = |file: &str| {
                Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
            };
            let own = [&role.own.test_log, &role.own.done].into_iter().flatten();
            let own = own.chain(role.files.keys());
            let mut files = own.map(Template::as_str).chain(role.ends_after.as_deref());
            if cleared.any(|name| !template::is_name(name)) || files.any(|file| !is_below(file)) {
                return Err(BadPlan::Inconsistent("a role's variables or files have no names"));
            }
        }
        let mut health = self.roles.values().map(|role| health::contradiction(&self.roles, role));
        if let Some(found) = health.find_map(|found| found) {
            return Err(BadPlan::Inconsistent(found));
        }
        if !health::all_start(&self.roles) {
            return Err(BadPlan::Inconsistent("a role waits for one that never starts"));
        }
        self.all_roles().try_for_each(|role| self.check_facts(role))
    }

    /// Whether the facts that a role's templates ask for exist, in a measure that a step can have.
    fn check_facts(&self, role: &Role) -> Result<(), BadPlan> {
        let is_too_high = |ports: &Ports| ports.each == 0 || ports.end(role.count) > 1 << 16;
        if role.ports.values().any(is_too_high) {
            return Err(BadPlan::Inconsistent("a role's ports exceed 65535"));
        }
        let of_envs = [&role.own.env, &role.env, &role.export].into_iter();
        let of_envs = of_envs.flat_map(|env| env.iter().map(|(_, value)| &value.value));
        let mut items = 0;
        for template in of_envs.chain(role.templates()) {
            items += self.items(template, role)?;
        }
        for argument in &role.argv {
            let Argument::Group(Group { each: Some(each), words, .. }) = &argument.value else {
                continue;
            };
            let Some(other) = self.roles.get(each) else { return Err(UNKNOWN) };
            for word in words {
                items += u64::from(other.count) * (1 + self.items(word, other)?);
            }
        }
        match items > MAX_ITEMS {
            true => Err(BadPlan::Inconsistent("a role's command names too many instances")),
            false => Ok(()),
        }
    }

    /// How many texts the slots of a template become for an instance of a role.
    fn items(&self, template: &Template, own: &Role) -> Result<u64, BadPlan> {
        let mut items = 0;
        for slot in template.slots() {
            let role = slot.role.map_or(Some(own), |name| self.roles.get(name));
            let Some(role) = role else { return Err(UNKNOWN) };
            let has_port = slot.port.is_some_and(|port| role.ports.contains_key(port));
            let is_node = slot.fact != Fact::JobNode
                || u32::try_from(slot.plus).is_ok_and(|node| node < self.layout.total_nodes);
            if !is_node
                || slot.fact.has_port() != has_port
                || (slot.fact.is_list() && slot.role.is_none())
            {
                return Err(UNKNOWN);
            }
            items += if slot.fact.is_list() { u64::from(role.count) } else { 1 };
        }
        Ok(items)
    }
}

const UNKNOWN: BadPlan = BadPlan::Inconsistent("a role's command refers to what does not exist");
