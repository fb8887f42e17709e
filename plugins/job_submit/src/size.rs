// SPDX-License-Identifier: Apache-2.0
//! The rule of the controller plugin: what a job with a demand gets, or why it is refused.
//! Pure: no Slurm, no I/O. `job_submit_disagg.lua` is the same rule in Lua, and `tests/decisions.txt`
//! holds both to it.

use std::borrow::Cow;

use disagg_host::demand::Demand;
use disagg_host::log::one_line;

use crate::settings::Settings;
use crate::tres::{TresForm, gpus, only_type};

/// What the submitter said. `None`: left open. Slurm's clients send `NO_VAL` (0xfffffffe, in 16-bit
/// fields 0xfffe) and NULL for that; seen alike from sbatch, salloc and srun of 22.05 and 24.11.
#[derive(Clone, Debug, Default)]
pub struct Ask<'a> {
    /// Fewest nodes: `--nodes`, or the length of `--nodelist`.
    pub min_nodes: Option<u32>,
    /// Most nodes. `--nodes=2` arrives as 2 and 2, `--nodelist=a,b` as 2 and open.
    pub max_nodes: Option<u32>,
    /// `--ntasks`, or what the client made of other options.
    pub tasks: Option<u32>,
    /// `--ntasks-per-node`.
    pub tasks_per_node: Option<u32>,
    /// `--ntasks-per-gpu`.
    pub tasks_per_gpu: Option<u32>,
    /// `--gpus-per-node` and `--gres`, as a TRES string.
    pub tres_per_node: Option<&'a str>,
    /// `--gpus`, as a TRES string.
    pub tres_per_job: Option<&'a str>,
    /// `--gpus-per-task`, as a TRES string.
    pub tres_per_task: Option<&'a str>,
    /// `--gpus-per-socket`, as a TRES string.
    pub tres_per_socket: Option<&'a str>,
    /// `--sockets-per-node`.
    pub sockets_per_node: Option<u32>,
    /// `--time` in minutes; `u32::MAX` is unlimited.
    pub minutes: Option<u32>,
    /// `--time-min` in minutes.
    pub min_minutes: Option<u32>,
    /// `--partition`: one name or several with commas, of which Slurm ignores the empty ones.
    pub partition: Option<Cow<'a, str>>,
    /// The cluster's default partition, when it is known.
    pub default_partition: Option<Cow<'a, str>>,
    /// Whether the submitter chose a reservation, whose partition replaces the default one.
    pub has_reservation: bool,
    /// `--account`.
    pub account: Option<Cow<'a, str>>,
    /// Whether the submitter wrote a comment.
    pub has_comment: bool,
    /// Whether the submitter chose a segment.
    pub has_segment: bool,
}

impl Ask<'_> {
    /// Whether the task count follows from the other options, so that `--ntasks` was left open.
    ///
    /// The clients multiply it out: `--gpus-per-node=4 --ntasks-per-gpu=1` sends 4 tasks (22.05 and
    /// 24.11), and up to 22.05 `-N2 --ntasks-per-node=4` sends 8, `--ntasks-per-node=4` alone 4.
    fn implied_tasks(&self, tasks: u32) -> bool {
        let nodes = u64::from(self.min_nodes.unwrap_or(1));
        let per_node = self.tasks_per_node.map(|n| u64::from(n) * nodes);
        let per_gpu = self.tasks_per_gpu.and_then(|n| {
            let on_all = self.tres_per_node.and_then(gpus).map(|g| g.saturating_mul(nodes));
            let all = on_all.or_else(|| self.tres_per_job.and_then(gpus))?;
            Some(all.saturating_mul(n.into()))
        });
        [per_node, per_gpu].contains(&Some(tasks.into()))
    }
}

/// What is written into the job. `None`: that field stays as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// For both `min_nodes` and `max_nodes`.
    pub nodes: Option<u32>,
    /// For `num_tasks`. It goes with the nodes: slurmctld rejects more nodes than tasks.
    pub tasks: Option<u32>,
    /// For `ntasks_per_node`.
    pub tasks_per_node: Option<u16>,
    /// For `tres_per_node`, in the release's form.
    pub tres_per_node: Option<String>,
    /// For `comment`.
    pub comment: Option<String>,
    /// For `segment_size`.
    pub segment: Option<u16>,
}

/// Decides a job with a demand.
///
/// # Errors
/// One sentence per contradiction or limit, each naming both numbers, each of one line: users
/// choose the names in it, and slurmctld's log has it.
pub fn decide(
    ask: &Ask<'_>,
    demand: &Demand,
    settings: &Settings,
    form: TresForm,
) -> Result<Fill, Vec<String>> {
    if let Some(refusal) = settings.refusal() {
        return Err(vec![refusal.to_owned()]);
    }
    let mut refusals = Vec::new();
    contradictions(ask, demand, &mut refusals);
    limits(ask, demand, settings, &mut refusals);
    if refusals.is_empty() {
        return Ok(fill(ask, demand, settings, form));
    }
    Err(refusals.iter().map(|sentence| one_line(sentence)).collect())
}

fn contradictions(ask: &Ask<'_>, demand: &Demand, refusals: &mut Vec<String>) {
    let config = &demand.config;
    if let Some(needed) = demand.time_min {
        for (flag, asked) in [("--time", ask.minutes), ("--time-min", ask.min_minutes)] {
            if let Some(n) = asked.filter(|&n| n < needed) {
                let minutes = |n: u32| many(n.into(), "minute");
                refusals.push(format!(
                    "{} asked for, but the plan of {config} needs {}: say {flag}={needed} or more",
                    minutes(n),
                    minutes(needed)
                ));
            }
        }
    }

    let mut refuse = |asked: String, needed: String, flag: &str, value: Option<u64>| {
        let instead = value.map(|v| format!(" or say {flag}={v}")).unwrap_or_default();
        refusals.push(format!(
            "{asked} asked for, but the plan of {config} needs {needed}: \
             leave {flag} out{instead}"
        ));
    };

    let (min, max) = (ask.min_nodes.unwrap_or(0), ask.max_nodes.unwrap_or(u32::MAX));
    if !(min..=max).contains(&demand.nodes) {
        let asked = match (min, max) {
            _ if min == max => many(min.into(), "node"),
            (0, _) => format!("at most {}", many(max.into(), "node")),
            (_, u32::MAX) => format!("at least {}", many(min.into(), "node")),
            _ => format!("{min} to {}", many(max.into(), "node")),
        };
        refuse(asked, many(demand.nodes.into(), "node"), "--nodes", Some(demand.nodes.into()));
    }

    let differs = |asked: Option<u64>, needed: u64| asked.filter(|&n| n != needed);
    let tasks = u64::from(demand.tasks);
    let open = ask.tasks.is_none_or(|n| ask.implied_tasks(n));
    if let Some(n) = differs(ask.tasks.map(u64::from), tasks).filter(|_| !open) {
        refuse(many(n, "task"), many(tasks, "task"), "--ntasks", Some(tasks));
    }

    let per_node = u64::from(demand.tasks_per_node);
    let tasks_per_node = |n| format!("{} per node", many(n, "task"));
    if let Some(n) = differs(ask.tasks_per_node.map(u64::from), per_node) {
        refuse(tasks_per_node(n), tasks_per_node(per_node), "--ntasks-per-node", Some(per_node));
    }

    let node_gpus = u64::from(demand.gpus_per_node);
    if node_gpus == 0 {
        return;
    }
    let on_node = ask.tasks_per_gpu.map(|n| u64::from(n) * node_gpus);
    if let Some(n) = differs(on_node, per_node) {
        refuse(tasks_per_node(n), tasks_per_node(per_node), "--ntasks-per-gpu", None);
    }

    let gpus_per_node = |n| format!("{} per node", many(n, "GPU"));
    if let Some(n) = differs(ask.tres_per_node.and_then(gpus), node_gpus) {
        refuse(gpus_per_node(n), gpus_per_node(node_gpus), "--gpus-per-node", Some(node_gpus));
    }
    let all_gpus = node_gpus * u64::from(demand.nodes);
    if let Some(n) = differs(ask.tres_per_job.and_then(gpus), all_gpus) {
        refuse(many(n, "GPU"), many(all_gpus, "GPU"), "--gpus", Some(all_gpus));
    }
    let times = |tres: Option<&str>, n: u64| tres.and_then(gpus).map(|g| g.saturating_mul(n));
    if let Some(n) = differs(times(ask.tres_per_task, per_node), node_gpus) {
        refuse(gpus_per_node(n), gpus_per_node(node_gpus), "--gpus-per-task", None);
    }
    let per_socket = ask.sockets_per_node.and_then(|s| times(ask.tres_per_socket, s.into()));
    if let Some(n) = differs(per_socket, node_gpus) {
        refuse(gpus_per_node(n), gpus_per_node(node_gpus), "--gpus-per-socket", None);
    }
}

fn limits(ask: &Ask<'_>, demand: &Demand, site: &Settings, refusals: &mut Vec<String>) {
    let config = &demand.config;
    // Without sizing Slurm decides how much of a range the job gets.
    let most_asked = if site.sizing { None } else { ask.max_nodes.or(ask.min_nodes) };
    let (nodes, needs) = match most_asked.filter(|&most| most > demand.nodes) {
        Some(most) => (most, format!("the job may get {}", many(most.into(), "node"))),
        None => (
            demand.nodes,
            format!("the plan of {config} needs {}", many(demand.nodes.into(), "node")),
        ),
    };
    if let Some(max) = site.max_nodes.filter(|&max| max < nodes) {
        let most = many(max.into(), "node");
        refusals.push(format!("{needs}, but this site allows a disaggregated job at most {most}"));
    }

    match ask.account.as_deref() {
        Some(account) if allowed(&site.allowed_accounts, account) => {}
        None if site.allowed_accounts.is_empty() => {}
        account => refusals.push(not_allowed("account", account, &site.allowed_accounts)),
    }

    let names = |list: &Option<Cow<'_, str>>| list.iter().flat_map(|l| names_of(l)).collect();
    let mut partitions: Vec<String> = names(&ask.partition);
    if partitions.is_empty() && !ask.has_reservation {
        partitions = names(&ask.default_partition);
    }
    if partitions.is_empty() && site.limits_partitions() {
        refusals.push(not_allowed("partition", None, &site.allowed_partitions));
        return;
    }
    if partitions.iter().any(|name| !allowed(&site.allowed_partitions, name)) {
        let asked = partitions.join(",");
        refusals.push(not_allowed("partition", Some(&asked), &site.allowed_partitions));
    }
    if let Some((name, max)) = least(&partitions, &site.partition_max_nodes)
        && max < nodes
    {
        let most = many(max.into(), "node");
        refusals.push(format!("{needs}, but a job in partition {name} may have at most {most}"));
    }
    let Some((name, max)) = least(&partitions, &site.partition_max_minutes) else { return };
    let may = format!("a job in partition {name} may run at most {}", many(max.into(), "minute"));
    match (demand.time_min, ask.minutes) {
        (Some(needed), _) if needed > max => refusals.push(format!(
            "the plan of {config} needs {}, but {may}",
            many(needed.into(), "minute")
        )),
        (_, Some(u32::MAX) | None) => {
            refusals.push(format!("the job has no time limit, but {may}: add --time={max}"));
        }
        (_, Some(asked)) if asked > max => refusals.push(format!(
            "{} asked for, but {may}: use --time={max}",
            many(asked.into(), "minute")
        )),
        _ => {}
    }
}

/// The names of a list as Slurm reads it.
fn names_of(list: &str) -> impl Iterator<Item = String> {
    list.split(',').filter(|name| !name.is_empty()).map(str::to_owned)
}

fn allowed(list: &[String], name: &str) -> bool {
    list.is_empty() || list.iter().any(|n| n == name)
}

fn not_allowed(what: &str, asked: Option<&str>, list: &[String]) -> String {
    let list = list.join(",");
    match asked {
        Some(name) => format!(
            "{what} {name} may not run disaggregated jobs on this site: \
             say --{what} with one of {list}"
        ),
        None if list.is_empty() => format!("disaggregated jobs need --{what} on this site"),
        None => format!("disaggregated jobs need --{what} on this site: one of {list}"),
    }
}

/// The strictest limit: Slurm may run the job in any of its partitions.
fn least<'l>(partitions: &[String], limits: &'l [(String, u32)]) -> Option<(&'l str, u32)> {
    let of_the_job = limits.iter().filter(|(name, _)| partitions.contains(name));
    of_the_job.map(|(name, max)| (name.as_str(), *max)).min_by_key(|&(name, max)| (max, name))
}

fn fill(ask: &Ask<'_>, demand: &Demand, settings: &Settings, form: TresForm) -> Fill {
    let mut fill = Fill::default();
    if settings.sizing {
        fill.nodes = Some(demand.nodes);
        fill.tasks = Some(demand.tasks);
        // --ntasks-per-gpu and --ntasks-per-node exclude each other.
        if ask.tasks_per_gpu.is_none() {
            fill.tasks_per_node = u16::try_from(demand.tasks_per_node).ok();
        }
        let said = [ask.tres_per_node, ask.tres_per_task, ask.tres_per_socket];
        // Slurm refuses a job that names a type in one place and none in the other.
        let kind = only_type(ask.tres_per_job.unwrap_or_default());
        if demand.gpus_per_node > 0
            && let Ok(kind) = kind
            && said.into_iter().flatten().all(|tres| gpus(tres).is_none())
        {
            let count = demand.gpus_per_node;
            fill.tres_per_node = Some(form.with_gpus(ask.tres_per_node, kind, count));
        }
    }
    if !ask.has_comment {
        let (config, nodes) = (&demand.config, demand.nodes);
        let gpus = u64::from(nodes) * u64::from(demand.gpus_per_node);
        fill.comment = Some(format!("disagg config={config} nodes={nodes} gpus={gpus}"));
    }
    if settings.segment && !ask.has_segment {
        // topology/block rejects a job whose nodes are not whole segments.
        let whole = demand.segment.filter(|s| demand.nodes.is_multiple_of(*s));
        fill.segment = whole.and_then(|s| u16::try_from(s).ok());
    }
    fill
}

fn many(n: u64, unit: &str) -> String {
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}
