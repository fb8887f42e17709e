// SPDX-License-Identifier: Apache-2.0
//! How srun decides on a step's nodes and tasks: from its options, its option environment and
//! the allocation, to the host of each task.

use crate::{env::Env, hosts, release::Release};
use serde::{Deserialize, Serialize};

/// A node of a step with the global ids of its tasks, in local order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeTasks {
    /// The node's name.
    pub host: String,
    /// Global task ids (ranks).
    pub tasks: Vec<u32>,
}

/// A node of an allocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// The node's name.
    pub name: String,
    /// CPUs allocated on it.
    pub cpus: u32,
}

/// Where an option's value came from. The command line overrides the environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A variable of srun's option environment.
    Environment,
    /// The command line or a `#SBATCH` line.
    CommandLine,
}

/// The option variables of srun that decide on a step, in the order in which it reads them, with
/// the options that they stand for.
const OPTION_ENVIRONMENT: [(&str, &str); 11] = [
    ("SLURM_DISTRIBUTION", "distribution"),
    ("SLURM_EXPORT_ENV", "export"),
    ("SRUN_EXPORT_ENV", "export"),
    ("SLURM_GPUS_PER_NODE", "gpus-per-node"),
    ("SLURM_JOB_NUM_NODES", "nodes"),
    ("SLURM_KILL_BAD_EXIT", "kill-on-bad-exit"),
    ("SLURM_MPI_TYPE", "mpi"),
    ("SLURM_NPROCS", "ntasks"),
    ("SLURM_NTASKS", "ntasks"),
    ("SLURM_NTASKS_PER_NODE", "ntasks-per-node"),
    ("SLURM_OVERLAP", "overlap"),
];

/// What srun was asked for, by the names of its options.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // a field has a comment where its name does not say enough
pub struct StepRequest {
    /// `--nodes`: least and most.
    pub nodes: Option<((u32, u32), Origin)>,
    pub ntasks: Option<(u32, Origin)>,
    pub ntasks_per_node: Option<u32>,
    pub nodelist: Option<Vec<String>>,
    /// `--distribution`, as given.
    pub distribution: Option<String>,
    pub mpi: Option<String>,
    pub overlap: bool,
    pub kill_on_bad_exit: bool,
    /// `--gpus-per-node`, as given.
    pub gpus_per_node: Option<String>,
    /// `--export`, as given.
    pub export: Option<String>,
}

/// What srun prints and does when it can't make the step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// A step's size and place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The nodes in the allocation's order.
    pub nodes: Vec<NodeTasks>,
    /// Lines that srun prints while deciding.
    pub warnings: Vec<String>,
}

impl Layout {
    /// The number of tasks on all nodes.
    pub fn tasks(&self) -> u32 {
        self.nodes.iter().map(|node| node.tasks.len() as u32).sum()
    }

    /// The host of each task in the order of the tasks.
    pub fn hosts(&self) -> Vec<&str> {
        let host = |task| self.nodes.iter().find(|node| node.tasks.contains(&task));
        (0..self.tasks()).filter_map(host).map(|node| node.host.as_str()).collect()
    }

    /// The nodes as a host list.
    pub fn nodelist(&self) -> String {
        let names: Vec<_> = self.nodes.iter().map(|node| node.host.clone()).collect();
        hosts::compress(&names)
    }

    /// Tasks per node as Slurm writes them: `4,1(x2)`.
    pub fn tasks_per_node(&self) -> String {
        repeated(self.nodes.iter().map(|node| node.tasks.len() as u32))
    }
}

/// Numbers with repetitions counted, as in `SLURM_TASKS_PER_NODE`.
pub fn repeated(numbers: impl Iterator<Item = u32>) -> String {
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((last, count)) if *last == number => *count += 1,
            _ => runs.push((number, 1)),
        }
    }
    let parts: Vec<_> = runs
        .into_iter()
        .map(|(number, count)| match count {
            1 => number.to_string(),
            _ => format!("{number}(x{count})"),
        })
        .collect();
    parts.join(",")
}

impl StepRequest {
    /// Takes an option's value. Options that don't decide on the step are ignored.
    pub fn set(&mut self, option: &str, value: &str, origin: Origin) -> Result<(), Refused> {
        let number = |what: &str| {
            value
                .trim()
                .parse::<u32>()
                .map_err(|_| Refused(format!("Invalid numeric value \"{value}\" for {what}.")))
        };
        match option {
            "nodes" => self.nodes = Some((node_range(value)?, origin)),
            "ntasks" => match number("--ntasks")? {
                0 => return Err(Refused("Invalid numeric value \"0\" for --ntasks.".into())),
                n => self.ntasks = Some((n, origin)),
            },
            "ntasks-per-node" => self.ntasks_per_node = Some(number("--ntasks-per-node")?),
            "nodelist" => self.nodelist = Some(host_names(value)?),
            "distribution" => self.distribution = Some(value.to_owned()),
            "mpi" => self.mpi = Some(value.to_owned()),
            "gpus-per-node" => self.gpus_per_node = Some(value.to_owned()),
            "export" => self.export = Some(value.to_owned()),
            "overlap" => self.overlap = origin == Origin::CommandLine || flag(value),
            "kill-on-bad-exit" => self.kill_on_bad_exit = value.is_empty() || flag(value),
            _ => {}
        }
        Ok(())
    }

    /// Takes srun's option environment.
    pub fn read_environment(&mut self, environ: &Env) -> Result<(), Refused> {
        for (name, option) in OPTION_ENVIRONMENT {
            if let Some(value) = environ.get(name) {
                self.set(option, value, Origin::Environment)?;
            }
        }
        Ok(())
    }

    fn arbitrary(&self) -> bool {
        self.distribution.as_deref().is_some_and(|d| d.split(',').any(|w| w == "arbitrary"))
    }

    /// Settles the numbers: fills in what follows from other options and the host file
    /// (`SLURM_HOSTFILE`), and refuses what contradicts. The warnings are what srun prints.
    pub fn settle(&mut self, environ: &Env, release: Release) -> Result<Vec<String>, Refused> {
        let mut warnings = Vec::new();
        if self.arbitrary() {
            self.ntasks = self.ntasks.filter(|(_, origin)| *origin != Origin::Environment);
            self.nodes = self.nodes.filter(|(_, origin)| *origin != Origin::Environment);
        }
        let hostfile = environ.get("SLURM_HOSTFILE").filter(|_| self.nodelist.is_none());
        if let Some(file) = hostfile {
            self.distribution = Some("arbitrary".into());
            self.nodelist = Some(self.read_hostfile(file)?);
        }
        if self.arbitrary() {
            if release.refuses_nodes_with_arbitrary()
                && matches!(self.nodes, Some((_, Origin::CommandLine)))
            {
                return Err(Refused(
                    "--nodes is incompatible with --distribution=arbitrary".into(),
                ));
            }
            let Some(list) = &self.nodelist else {
                return Err(Refused("no hostlist given for arbitrary dist".into()));
            };
            let unique = unique(list).len() as u32;
            self.ntasks.get_or_insert((list.len() as u32, Origin::CommandLine));
            self.nodes.get_or_insert(((unique, unique), Origin::CommandLine));
        } else if let Some(list) = &self.nodelist {
            let mut list = unique(list);
            if let Some(((_, most), _)) = self.nodes
                && list.len() as u32 > most
            {
                warnings.push(format!(
                    "error: Required nodelist includes more nodes than permitted by max-node \
                     count ({} > {most}). Eliminating nodes from the nodelist.",
                    list.len()
                ));
                list.truncate(most as usize);
            }
            let count = list.len() as u32;
            let (least, most) = self.nodes.map_or((count, count), |(range, _)| range);
            self.nodes = Some(((least.max(count), most.max(count)), Origin::CommandLine));
            self.nodelist = Some(list);
        }
        self.settle_numbers(release, &mut warnings);
        Ok(warnings)
    }

    fn settle_numbers(&mut self, release: Release, warnings: &mut Vec<String>) {
        match (self.nodes, self.ntasks) {
            (Some(((least, most), _)), None) if least == most => {
                let tasks = least * self.ntasks_per_node.unwrap_or(1);
                self.ntasks = Some((tasks, Origin::CommandLine));
            }
            (Some(((least, most), origin)), Some((tasks, tasks_origin))) => {
                if tasks < least {
                    warnings.push(format!(
                        "Warning: can't run {tasks} processes on {least} nodes, setting nnodes \
                         to {tasks}"
                    ));
                }
                let range = (least.min(tasks), most.min(tasks));
                self.nodes = Some((range, origin));
                if self.ntasks_per_node.is_some()
                    && release.nodes_and_per_node_beat_ntasks()
                    && (tasks_origin, origin) == (Origin::Environment, Origin::CommandLine)
                {
                    self.ntasks = None;
                } else if let Some(per_node) = self.ntasks_per_node
                    && per_node != tasks / range.0
                {
                    if tasks > per_node {
                        warnings.push(format!(
                            "Warning: can't honor --ntasks-per-node set to {per_node} which \
                             doesn't match the requested tasks {tasks} with the number of \
                             requested nodes {}. Ignoring --ntasks-per-node.",
                            range.0
                        ));
                    }
                    self.ntasks_per_node = None;
                }
            }
            _ => {}
        }
        if let (None, Some(per_node)) = (self.ntasks, self.ntasks_per_node) {
            let nodes = self.nodes.map_or(1, |((least, _), _)| least);
            self.ntasks = Some((nodes * per_node, Origin::CommandLine));
        }
    }

    /// The first lines of the host file: as many as there are tasks, else nodes, if known.
    fn read_hostfile(&self, file: &str) -> Result<Vec<String>, Refused> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Refused(format!("slurm_allocate_resources error opening file {file}, {error}"))
        })?;
        let mut hosts = Vec::new();
        for line in text.lines() {
            hosts.extend(host_names(line)?);
        }
        let wanted = match (self.ntasks, self.nodes) {
            (Some((tasks, _)), _) => tasks as usize,
            (None, Some(((_, most), _))) => most as usize,
            (None, None) => hosts.len(),
        };
        if hosts.len() < wanted || hosts.is_empty() {
            return Err(Refused(format!(
                "Too few NodeNames in SLURM Hostfile {file} ({} < {wanted})",
                hosts.len()
            )));
        }
        hosts.truncate(wanted);
        Ok(hosts)
    }

    /// Places the settled request's tasks on an allocation's nodes.
    pub fn place(&self, allocation: &[Node]) -> Result<Layout, Refused> {
        let total = allocation.len() as u32;
        let least =
            self.nodes.map_or(total.min(self.ntasks.map_or(total, |(n, _)| n)), |(r, _)| r.0);
        if least > total {
            return Err(Refused(format!("Only allocated {total} nodes asked for {least}")));
        }
        let nodes = self.choose_nodes(allocation, least as usize)?;
        let tasks = match (self.ntasks, self.ntasks_per_node) {
            (Some((tasks, _)), _) => tasks,
            (None, per_node) => least * per_node.unwrap_or(1),
        };
        let mut placed: Vec<NodeTasks> = nodes
            .iter()
            .map(|node| NodeTasks { host: node.name.clone(), tasks: Vec::new() })
            .collect();
        if self.arbitrary() {
            self.place_arbitrary(&mut placed, tasks)?;
        } else {
            let mut next = 0..tasks;
            for (node, count) in placed.iter_mut().zip(self.count_per_node(&nodes, tasks)) {
                node.tasks.extend(next.by_ref().take(count as usize));
            }
        }
        Ok(Layout { nodes: placed, warnings: Vec::new() })
    }

    fn choose_nodes<'a>(
        &self,
        allocation: &'a [Node],
        count: usize,
    ) -> Result<Vec<&'a Node>, Refused> {
        let wanted = self.nodelist.as_deref().unwrap_or_default();
        if wanted.iter().any(|host| !allocation.iter().any(|node| node.name == *host)) {
            let text = "Unable to create step: Requested node configuration is not available";
            return Err(Refused(text.into()));
        }
        let mut spare = count.saturating_sub(unique(wanted).len());
        let chosen = allocation.iter().filter(|node| {
            let named = wanted.contains(&node.name);
            let chosen = named || spare > 0;
            spare -= usize::from(chosen && !named);
            chosen
        });
        Ok(chosen.collect())
    }

    fn place_arbitrary(&self, placed: &mut [NodeTasks], tasks: u32) -> Result<(), Refused> {
        let list = self.nodelist.as_deref().unwrap_or_default();
        if list.len() as u32 != tasks {
            return Err(Refused(format!(
                "Asked for {tasks} tasks have {0} in the nodelist.  Check your nodelist, or set \
                 the -n option to be {0}",
                list.len()
            )));
        }
        for (task, host) in list.iter().enumerate() {
            if let Some(node) = placed.iter_mut().find(|node| node.host == *host) {
                node.tasks.push(task as u32);
            }
        }
        Ok(())
    }

    /// Round robin over the nodes that have CPUs left, then over all of them.
    fn count_per_node(&self, nodes: &[&Node], tasks: u32) -> Vec<u32> {
        let room: Vec<u32> = nodes
            .iter()
            .map(|node| {
                let room = node.cpus.max(1);
                self.ntasks_per_node.map_or(room, |per_node| room.min(per_node))
            })
            .collect();
        let mut counts = vec![0; nodes.len()];
        let mut left = tasks;
        while left > 0 {
            let full = counts.iter().zip(&room).all(|(count, room)| count >= room);
            for (count, room) in counts.iter_mut().zip(&room) {
                if left > 0 && (full || *count < *room) {
                    *count += 1;
                    left -= 1;
                }
            }
        }
        counts
    }
}

fn unique(list: &[String]) -> Vec<String> {
    let mut seen = Vec::new();
    for host in list {
        if !seen.contains(host) {
            seen.push(host.clone());
        }
    }
    seen
}

fn flag(value: &str) -> bool {
    value.is_empty()
        || value.eq_ignore_ascii_case("yes")
        || value.parse::<i64>().is_ok_and(|n| n != 0)
}

fn host_names(list: &str) -> Result<Vec<String>, Refused> {
    hosts::expand(list).ok_or_else(|| Refused(format!("invalid host list \"{list}\"")))
}

fn node_range(value: &str) -> Result<(u32, u32), Refused> {
    let (least, most) = value.split_once('-').unwrap_or((value, value));
    match (least.trim().parse(), most.trim().parse()) {
        (Ok(least), Ok(most)) if least <= most && least > 0 => Ok((least, most)),
        _ => Err(Refused(format!("invalid number of nodes (-N {value})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn allocation(nodes: u32) -> Vec<Node> {
        (1..=nodes).map(|n| Node { name: format!("node{n}"), cpus: 8 }).collect()
    }

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().copied().collect()
    }

    fn layout(
        options: &[(&str, &str)],
        environ: &Env,
        release: Release,
        nodes: u32,
    ) -> Result<Layout, Refused> {
        let mut request = StepRequest::default();
        request.read_environment(environ)?;
        for (option, value) in options {
            request.set(option, value, Origin::CommandLine)?;
        }
        let warnings = request.settle(environ, release)?;
        Ok(Layout { warnings, ..request.place(&allocation(nodes))? })
    }

    fn hostfile(lines: &str) -> (tempfile::NamedTempFile, Env) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(lines.as_bytes()).unwrap();
        let environ = env(&[
            ("SLURM_HOSTFILE", file.path().to_str().unwrap()),
            ("SLURM_DISTRIBUTION", "arbitrary"),
        ]);
        (file, environ)
    }

    #[test]
    fn the_option_environment_gives_the_step_its_size() {
        let environ = env(&[
            ("SLURM_JOB_NUM_NODES", "2"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_NTASKS_PER_NODE", "4"),
        ]);
        let layout = layout(&[], &environ, Release::V22_05, 3).unwrap();
        assert_eq!(layout.nodelist(), "node[1-2]");
        assert_eq!(layout.tasks_per_node(), "4(x2)");
    }

    #[test]
    fn the_command_line_overrides_the_environment() {
        let environ = env(&[("SLURM_JOB_NUM_NODES", "2"), ("SLURM_NTASKS", "8")]);
        let layout = layout(&[("nodes", "1"), ("ntasks", "2")], &environ, Release::V22_05, 3);
        assert_eq!(layout.unwrap().tasks_per_node(), "2");
    }

    #[test]
    fn slurm_ntasks_overrides_slurm_nprocs() {
        let environ = env(&[("SLURM_NTASKS", "3"), ("SLURM_NPROCS", "5")]);
        assert_eq!(layout(&[], &environ, Release::V22_05, 3).unwrap().tasks(), 3);
    }

    #[test]
    fn slurm_nnodes_is_not_an_input() {
        let environ = env(&[("SLURM_NNODES", "1")]);
        assert_eq!(layout(&[], &environ, Release::V22_05, 3).unwrap().nodes.len(), 3);
    }

    #[test]
    fn fewer_tasks_than_nodes_use_fewer_nodes() {
        let environ = env(&[("SLURM_JOB_NUM_NODES", "3")]);
        let layout = layout(&[("ntasks", "2")], &environ, Release::V22_05, 3).unwrap();
        assert_eq!(layout.nodes.len(), 2);
        assert!(layout.warnings[0].contains("can't run 2 processes on 3 nodes"));
    }

    #[test]
    fn a_host_file_places_each_task() {
        let (_file, environ) = hostfile("node3\nnode2\nnode3\n");
        let environ = environ.with("SLURM_JOB_NUM_NODES", "9").with("SLURM_NTASKS", "9");
        for release in [Release::V22_05, Release::V25_11] {
            let layout = layout(&[], &environ, release, 3).unwrap();
            assert_eq!(layout.hosts(), ["node3", "node2", "node3"], "{release}");
        }
    }

    #[test]
    fn nodes_beside_arbitrary_follow_the_first_lines_up_to_22_05() {
        let (_file, environ) = hostfile("node2\nnode2\nnode3\n");
        let layout = layout(&[("nodes", "2")], &environ, Release::V22_05, 3).unwrap();
        assert_eq!(layout.hosts(), ["node2", "node2"]);
    }

    #[test]
    fn nodes_beside_arbitrary_are_refused_from_23_11_on() {
        let (_file, environ) = hostfile("node2\nnode2\nnode3\n");
        let error = layout(&[("nodes", "2")], &environ, Release::V23_11, 3).unwrap_err();
        assert_eq!(error.0, "--nodes is incompatible with --distribution=arbitrary");
    }

    #[test]
    fn a_host_file_with_too_few_lines_is_refused() {
        let (_file, environ) = hostfile("node2\n");
        let error = layout(&[("ntasks", "2")], &environ, Release::V22_05, 3).unwrap_err();
        assert!(error.0.contains("Too few NodeNames"), "{error}");
    }

    #[test]
    fn tasks_fill_the_nodes_evenly_as_far_as_their_cpus_go() {
        let nodes = [("node1", 4), ("node2", 1)].map(|(n, cpus)| Node { name: n.into(), cpus });
        let mut request = StepRequest::default();
        request.set("nodes", "2", Origin::CommandLine).unwrap();
        request.set("ntasks", "4", Origin::CommandLine).unwrap();
        assert_eq!(request.place(&nodes).unwrap().tasks_per_node(), "3,1");
    }

    #[test]
    fn nodes_given_beside_tasks_per_node_set_the_tasks_from_23_02_on() {
        let environ = env(&[("SLURM_NTASKS", "8"), ("SLURM_NTASKS_PER_NODE", "4")]);
        let tasks = |release| layout(&[("nodes", "1")], &environ, release, 3).unwrap().tasks();
        assert_eq!(tasks(Release::V22_05), 8);
        assert_eq!(tasks(Release::V23_02), 4);
    }

    #[test]
    fn a_node_list_shorter_than_the_node_count_is_filled_up() {
        let environ = env(&[("SLURM_JOB_NUM_NODES", "3")]);
        let layout = layout(&[("nodelist", "node2")], &environ, Release::V22_05, 3).unwrap();
        assert_eq!(layout.nodes.len(), 3);
    }

    #[test]
    fn a_node_outside_the_allocation_is_refused() {
        let options = [("nodelist", "node9"), ("nodes", "1")];
        assert!(layout(&options, &Env::new(), Release::V22_05, 3).is_err());
    }

    #[test]
    fn more_nodes_than_allocated_are_refused() {
        let error = layout(&[("nodes", "4")], &Env::new(), Release::V22_05, 3).unwrap_err();
        assert_eq!(error.0, "Only allocated 3 nodes asked for 4");
    }
}
