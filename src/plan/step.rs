// SPDX-License-Identifier: Apache-2.0
//! The one place where a step is composed. The batch script, srun's command line, the SPANK
//! plugin's environment, the C library's structs and the tables are renderers of a [`StepSpec`];
//! none of them decides anything.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

use super::Plan;
use super::argument::{Argument, Tasks};
use super::content::Content;
use super::health::Ready;
use super::instance::Instance;
use super::origin::Origin;
use super::role::{Cleared, Deal, Purpose, Role, Share, Step};
use super::template::{Fact, Part, Slot, Template};

/// The variable that tells a step which role it plays.
pub const SERVING_TYPE: &str = "DISAGG_SERVING_TYPE";

/// The step's command in one line of shell, where run scripts of the test suite look for it.
pub const PYTEST_COMMAND: &str = "pytestCommand";

/// The same in plans of engines.
pub const COMMAND: &str = "DISAGG_COMMAND";

/// Numbers that differ from task to task and are no variable of Slurm's are in variables of this
/// name and a number.
const NUMBER: &str = "DISAGG_NUMBER_";
/// The variable of the address of a task's node, where that is not its name.
const NODE_ADDRESS: &str = "DISAGG_NODE_ADDRESS";

/// All that a step is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSpec<'p> {
    /// The size and the flags of the Slurm step.
    pub step: Step,
    /// The tasks on each of its nodes, or one number where all nodes have as many; the last one may
    /// have fewer then.
    pub ranks: Vec<u32>,
    /// Variables that are removed from the environment of its tasks.
    pub unset: Vec<&'p str>,
    /// Families of variables that its command does not have either.
    pub cleared: Option<&'p Cleared>,
    /// Variables that are set then, all at a time: references are to the task's environment as it
    /// is before any of them is set. A removed name that is referred to counts as empty.
    pub set: Vec<Variable<'p>>,
    /// Numbers that each task computes before all that, for references to them.
    pub numbers: Vec<Number>,
    /// The GPUs that are its own where it does not have all of its nodes': places in the list of GPUs
    /// that Slurm gives its tasks.
    pub own_gpus: Option<OwnGpus>,
    /// The command; of the tasks on its first node, where those on others have another.
    pub argv: Vec<Template>,
    /// The command of the tasks on its other nodes, where it is another.
    pub followers: Option<Vec<Template>>,
    /// The variable in which a script finds the command in one line of shell.
    pub command_variable: &'static str,
    /// The working directory.
    pub cwd: &'p str,
    /// The user's script that is run in place of the command; it finds the command in a variable.
    pub script: Option<&'p str>,
    /// The files that exist before it starts: paths in the workspace and what is in them.
    pub files: Vec<(Template, Cow<'p, Content>)>,
    /// The file in the workspace that its output goes to.
    pub log: Template,
    /// The JUnit file that its command writes.
    pub junit: Option<Template>,
    /// How it is seen to be ready.
    pub ready: Option<Ready>,
    /// Where the test looks for its log, below the plan's `output_dir`.
    pub test_log: Option<Template>,
    /// The file there that appears once the step has ended and its log is complete.
    pub done: Option<Template>,
}

/// The GPUs of a step that does not have its nodes for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnGpus {
    /// The place of the first on its first node; on others it is 0.
    pub first: Template,
    /// How many.
    pub share: Share,
}

/// A number that each task computes from a variable of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    /// The variable that holds it.
    pub name: String,
    /// The variable that it is made from.
    pub variable: &'static str,
    /// What that is multiplied with.
    pub times: u32,
    /// What is added then.
    pub plus: i32,
    /// The values of which it is the place, where it is not the value itself.
    pub of: Vec<String>,
}

impl Number {
    /// Its value for a task; anything else counts as 0.
    pub fn value<'v>(&self, lookup: impl Fn(&str) -> Option<&'v str>) -> String {
        let of_task = lookup(self.variable).and_then(|text| text.parse().ok()).unwrap_or(0_u32);
        match self.of.get(of_task as usize) {
            Some(value) => value.clone(),
            None => (i64::from(of_task) * i64::from(self.times) + i64::from(self.plus)).to_string(),
        }
    }
}

/// A variable of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its value.
    pub value: Template,
    /// Where it comes from.
    pub origin: Cow<'p, Origin>,
    /// Whether it is the instance's own, not its role's.
    pub is_own: bool,
    /// Whether its value must not be seen by anybody else.
    pub is_secret: bool,
}

/// The step of an instance on the job's nodes, by their addresses. Without them, `{node0}` and so on
/// stand for the addresses; where the plan wants those of an interface, `{node0:ib0}`, and `{NAME:ib0}`
/// for the names of nodes.
pub fn resolve<'p>(instance: &Instance<'p>, addresses: &[String]) -> StepSpec<'p> {
    let mut filler = Filler { plan: instance.plan, addresses, numbers: Vec::new() };
    let mut spec = compose(instance.plan, instance.role);
    spec.step.nodes = instance.nodes.len() as u32;
    spec.ranks = instance.ranks();
    for variable in &mut spec.set {
        variable.value = filler.fill(&variable.value, instance);
    }
    let of = |tasks| move |on: &Option<Tasks>| on.is_none_or(|on| on == tasks);
    spec.argv = filler.argv(instance, of(Tasks::Leader));
    spec.followers = match instance.role.differs_by_node() && instance.nodes.len() > 1 {
        true => Some(filler.argv(instance, of(Tasks::Followers))),
        false => None,
    };
    for (path, content) in &mut spec.files {
        *path = filler.fill(path, instance);
        *content = Cow::Owned(content.filled(&mut |text| filler.items(text, instance)));
    }
    spec.log = filler.fill(&spec.log, instance);
    for file in [&mut spec.junit, &mut spec.test_log, &mut spec.done].into_iter().flatten() {
        *file = filler.fill(file, instance);
    }
    if let Some(gpus) = &mut spec.own_gpus {
        gpus.first = filler.fill(&gpus.first, instance);
    }
    if let Some(ready) = &mut spec.ready {
        ready.resolve(&instance.plan.roles, |text| *text = filler.fill(text, instance));
    }
    spec.numbers = filler.numbers;
    spec
}

/// Where clients ask on the job's nodes, in plans of engines.
pub fn url(plan: &Plan, addresses: &[String]) -> Option<String> {
    let mut filler = Filler { plan, addresses, numbers: Vec::new() };
    let (engine, any) = (plan.engine.as_ref()?, plan.instances().next()?);
    Some(filler.fill(&engine.url, &any).literal_text().into_owned())
}

/// Puts what a plan does not know into templates.
struct Filler<'a> {
    plan: &'a Plan,
    addresses: &'a [String],
    numbers: Vec<Number>,
}

impl Filler<'_> {
    fn argv(
        &mut self,
        instance: &Instance<'_>,
        has: impl Fn(&Option<Tasks>) -> bool,
    ) -> Vec<Template> {
        let mut argv = Vec::with_capacity(instance.role.argv.len());
        for (at, argument) in instance.role.argv.iter().enumerate() {
            match (&argument.value, instance.role.own.args.get(&at)) {
                (_, Some(own)) => argv.push(self.fill(own, instance)),
                (Argument::Word(word), None) => argv.extend(self.items(word, instance)),
                (Argument::Group(group), None) if has(&group.on) => {
                    let others = group.each.as_deref().map(|role| self.plan.instances_of(role));
                    let others: Vec<_> = others.into_iter().flatten().collect();
                    let each = match &group.each {
                        Some(_) => &others[..],
                        None => std::slice::from_ref(instance),
                    };
                    for instance in each {
                        for word in &group.words {
                            argv.extend(self.items(word, instance));
                        }
                    }
                }
                (Argument::Group(_), None) => {}
            }
        }
        let behind = instance.role.own.args.range(instance.role.argv.len()..);
        argv.extend(behind.map(|(_, own)| self.fill(own, instance)));
        argv
    }

    /// The values of a template: one, unless it is a list as a whole.
    fn items(&mut self, template: &Template, instance: &Instance<'_>) -> Vec<Template> {
        match template.only_slot().filter(|slot| slot.fact.is_list()) {
            Some(slot) => self.list(slot).iter().map(|item| Template::literal(item)).collect(),
            None => vec![self.fill(template, instance)],
        }
    }

    fn fill(&mut self, template: &Template, instance: &Instance<'_>) -> Template {
        template.replace(|part| match part {
            Part::Slot(slot) => Some(self.value(slot, instance)),
            _ => None,
        })
    }

    fn value(&mut self, slot: Slot<'_>, own: &Instance<'_>) -> Template {
        let other = slot.role.and_then(|role| self.plan.instances_of(role).next());
        let instance = if slot.role.is_some() { other.as_ref() } else { Some(own) };
        let Some(instance) = instance else { return Template::default() };
        let number = |number: u32| {
            let number = i64::from(number) * i64::from(slot.times) + i64::from(slot.plus);
            Template::literal(&number.to_string())
        };
        match slot.fact {
            Fact::Name => Template::literal(&instance.name),
            Fact::Index => number(instance.index),
            Fact::FirstGpu => number(instance.gpus.start),
            Fact::LeaderAddr => Template::literal(&self.address(instance.nodes.start)),
            Fact::JobNode => Template::literal(&self.address(slot.plus.unsigned_abs())),
            Fact::Port => number(instance.port(slot.port.unwrap_or_default()).unwrap_or_default()),
            Fact::Addrs | Fact::Urls => Template::literal(&self.list(slot).join(",")),
            Fact::NodeAddr if self.plan.interface().is_some() => {
                let addresses = own.nodes.clone().map(|node| self.address(node)).collect();
                self.number("SLURM_NODEID", (1, 0), addresses)
            }
            Fact::NodeRank | Fact::Rank | Fact::LocalRank | Fact::NodeAddr => self.of_task(slot),
        }
    }

    /// A reference to what each task knows of itself.
    fn of_task(&mut self, slot: Slot<'_>) -> Template {
        let mut reference = Template::default();
        let Some(variable) = slot.fact.variable() else { return reference };
        if (slot.times, slot.plus) != (1, 0) {
            return self.number(variable, (slot.times, slot.plus), Vec::new());
        }
        reference.push_variable(variable);
        reference
    }

    /// A reference to what each task computes from a variable of its own.
    fn number(
        &mut self,
        variable: &'static str,
        (times, plus): (u32, i32),
        of: Vec<String>,
    ) -> Template {
        let known = self.numbers.iter().find(|known| {
            (known.variable, known.times, known.plus, &known.of) == (variable, times, plus, &of)
        });
        let name = known.map(|known| known.name.clone()).unwrap_or_else(|| {
            let name = match of.is_empty() {
                true => format!("{NUMBER}{}", self.numbers.len()),
                false => NODE_ADDRESS.to_owned(),
            };
            self.numbers.push(Number { name: name.clone(), variable, times, plus, of });
            name
        });
        let mut reference = Template::default();
        reference.push_variable(&name);
        reference
    }

    fn list(&self, slot: Slot<'_>) -> Vec<String> {
        let scheme = if slot.fact == Fact::Urls { "http://" } else { "" };
        let item = |instance: Instance<'_>| {
            let port = instance.port(slot.port.unwrap_or_default()).unwrap_or_default();
            format!("{scheme}{}:{port}", self.address(instance.nodes.start))
        };
        self.plan.instances_of(slot.role.unwrap_or_default()).map(item).collect()
    }

    fn address(&self, node: u32) -> String {
        let known = self.addresses.get(node as usize);
        match (known, self.plan.interface()) {
            // Such an address is shown by interface, not by a name that might resolve to another.
            (Some(known), Some(_)) if known.parse::<IpAddr>().is_ok() => known.clone(),
            (Some(known), Some(interface)) => format!("{{{known}:{interface}}}"),
            (None, Some(interface)) => format!("{{node{node}:{interface}}}"),
            (Some(known), None) => known.clone(),
            (None, None) => format!("{{node{node}}}"),
        }
    }
}

/// The step of any instance of a role: what differs between instances is left as slots. The ranks of
/// one that is dealt by GPU are not known.
pub fn compose<'p>(plan: &'p Plan, role: &'p Role) -> StepSpec<'p> {
    let own = &role.own.env;
    let unset: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
    let cleared = role.cleared.as_ref();
    let is_removed =
        |name: &str| unset.contains(&name) || cleared.is_some_and(|all| all.removes(name));
    let variable = |name, value, origin, is_own| {
        let is_secret = plan.is_secret(name);
        Variable { name, value, origin: Cow::Borrowed(origin), is_own, is_secret }
    };
    let mut set: Vec<_> = own
        .iter()
        .map(|(name, own)| variable(name, own.value.clone(), &own.origin, true))
        .collect();
    let exported = role.export.iter().filter(|(name, _)| role.env.get(name).is_none());
    for (name, planned) in exported.chain(role.env.iter()) {
        if own.get(name).is_none() {
            let value = planned.value.replace(|part| match part {
                Part::Variable(name) if is_removed(name) => Some(Template::default()),
                Part::Variable(name) => own.get(name).cloned(),
                _ => None,
            });
            set.push(variable(name, value, &planned.origin, false));
        }
    }
    let argument = |(at, argument): (usize, &'p super::Traced<Argument>)| {
        let own = role.own.args.get(&at).map(std::slice::from_ref);
        own.unwrap_or_else(|| argument.value.words())
    };
    let behind = role.own.args.range(role.argv.len()..).map(|(_, own)| own.clone());
    let mut first_gpu = Template::default();
    first_gpu.push_slot(Slot::own(Fact::FirstGpu));
    StepSpec {
        step: role.step.clone(),
        ranks: match role.step.deal {
            Deal::ByGpu => Vec::new(),
            Deal::Filled | Deal::Even => vec![role.step.tasks_per_node],
        },
        cleared,
        unset,
        set,
        numbers: Vec::new(),
        own_gpus: role.share().map(|share| OwnGpus { first: first_gpu, share }),
        argv: role.argv.iter().enumerate().flat_map(argument).cloned().chain(behind).collect(),
        followers: None,
        command_variable: if plan.suite.is_some() { PYTEST_COMMAND } else { COMMAND },
        cwd: &role.cwd,
        // A run script is made for the test's own steps.
        script: plan.run_script.as_deref().filter(|_| role.purpose != Purpose::Check),
        files: role.files.iter().map(|(path, c)| (path.clone(), Cow::Borrowed(c))).collect(),
        log: role.own.log.clone(),
        junit: role.own.junit.clone(),
        ready: role.ready.clone(),
        test_log: role.own.test_log.clone(),
        done: role.own.done.clone(),
    }
}

impl StepSpec<'_> {
    /// The tasks of each full node, where Slurm can be told so (`--distribution=plane`). Else it needs
    /// the host of each task ([`Instance::host_of_each_task`]) in a file (`SLURM_HOSTFILE`,
    /// `--distribution=arbitrary`).
    pub fn plane(&self) -> Option<u32> {
        let (last, full) = self.ranks.split_last()?;
        let first = full.first().unwrap_or(last);
        (last <= first && full.iter().all(|count| count == first)).then_some(*first)
    }

    /// The command with what differs from task to task left as references.
    pub fn arguments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.argv.iter().map(Template::literal_text)
    }

    /// The files that exist before it starts: their names in the workspace, and their texts.
    pub fn texts_of_files(&self) -> impl Iterator<Item = (String, String)> {
        self.files.iter().map(|(name, content)| (name.literal_text().into_owned(), content.file()))
    }

    /// The log's name.
    pub fn log_file(&self) -> Cow<'_, str> {
        self.log.literal_text()
    }

    /// The JUnit file's path.
    pub fn junit_file(&self) -> Option<Cow<'_, str>> {
        self.junit.as_ref().map(Template::literal_text)
    }
}

/// What container runtimes read before a task has its own list of GPUs, for steps around which it is
/// not set or empty.
pub const FOR_CONTAINERS: [(&str, &str); 2] =
    [("NVIDIA_IMEX_CHANNELS", "0"), ("NVIDIA_VISIBLE_DEVICES", "all")];

/// The GPU variables of a task. `own`: the places of the step's own GPUs among the job's on its
/// node, where it shares the node. Then `CUDA_VISIBLE_DEVICES` has these of the list that Slurm gives
/// the task in that variable, and `NVIDIA_VISIBLE_DEVICES`, by which container runtimes know the
/// node's GPUs, the same by their numbers on the node. Slurm counts the former from the node's first
/// GPU or, where it confines the devices, from the job's first: its list has what the task can use.
/// A step that has its nodes for itself gets `NVIDIA_VISIBLE_DEVICES` alone, unless it has a choice
/// of its own there.
///
/// # Errors
/// A list has neither all GPUs that the job should have there nor just the step's own.
pub fn gpu_variables<'v>(
    lookup: impl Fn(&str) -> Option<&'v str>,
    own: Option<&Range<u32>>,
) -> Result<Vec<(&'static str, String)>, TooFewGpus> {
    let given = |name| lookup(name).filter(|list: &&str| !["", "NoDevFiles"].contains(list));
    let listed = given("CUDA_VISIBLE_DEVICES");
    let of_the_node = given("SLURM_STEP_GPUS").or_else(|| given("SLURM_JOB_GPUS")).or(listed);
    if let Some(own) = own {
        return Ok(vec![
            ("CUDA_VISIBLE_DEVICES", own_gpus(listed, own)?),
            ("NVIDIA_VISIBLE_DEVICES", own_gpus(of_the_node, own)?),
        ]);
    }
    let is_open = given("NVIDIA_VISIBLE_DEVICES").is_none_or(|devices| devices == "all");
    let all = of_the_node.filter(|_| is_open);
    Ok(all.map(|all| ("NVIDIA_VISIBLE_DEVICES", all.to_owned())).into_iter().collect())
}

fn own_gpus(listed: Option<&str>, own: &Range<u32>) -> Result<String, TooFewGpus> {
    let Some(list) = listed else {
        return Ok(own.clone().map(|gpu| gpu.to_string()).collect::<Vec<_>>().join(","));
    };
    let gpus: Vec<_> = list.split(',').collect();
    match gpus.get(own.start as usize..own.end as usize) {
        _ if gpus.len() == own.len() => Ok(list.to_owned()),
        Some(mine) => Ok(mine.join(",")),
        None => Err(TooFewGpus { listed: list.to_owned(), own: own.clone() }),
    }
}

/// The variable that [`START_SH`] is in, for steps whose commands it starts.
pub const START: &str = "DISAGG_START";

/// The variable with the ports that must be free on the nodes of a step, `NAME=NUMBER` each.
pub const PORTS: &str = "DISAGG_PORTS";

/// How [`START_SH`] begins to say why a rank cannot start, for whoever shows only the reason.
pub const CANNOT_START: &str = "slurm-disagg: cannot start: ";

/// The third argument of [`START_SH`] for [`Share::OfRanks`].
pub const OF_RANKS: &str = "ranks";
/// The third argument of [`START_SH`] for [`Share::OneEach`].
pub const ONE_EACH: &str = "each";

/// How it is run.
pub const START_COMMAND: [&str; 4] = ["sh", "-c", r#"eval "$DISAGG_START""#, "sh"];

/// What each task of a step runs first where nothing of ours is on the nodes, in POSIX shell: it
/// checks that the rank is on its node and that nothing listens at [`PORTS`] there, sets the variables of [`gpu_variables`], says where it runs
/// in one line and becomes the step's command. Arguments are the ranks on each node (one number for
/// all, or several with commas), the place of the first of the step's own GPUs, their number (0: all
/// of the job's; `ranks`: as many as ranks; `each`: one for each rank alone), and the command.
pub const START_SH: &str = concat!(include_str!("watch.sh"), include_str!("start.sh"));

/// Starts what kills the processes that a rank leaves behind, in POSIX shell, and ends at once.
/// Arguments are the rank's process and its name, which the rank's processes have in [`RANK`].
pub const WATCH_SH: &str = concat!(include_str!("watch.sh"), "disagg_watch \"$@\"\n");

/// The variable by which a rank's processes are known.
pub const RANK: &str = "DISAGG_RANK";

/// GPUs of a packed server that its tasks do not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its tasks have the GPUs {listed}, but it needs number {} to {} of the job's GPUs on its node",
    own.start, own.end.saturating_sub(1)
)]
pub struct TooFewGpus {
    /// The list that the task has.
    pub listed: String,
    /// The places in the list of the job's GPUs.
    pub own: Range<u32>,
}

#[cfg(test)]
mod tests;
