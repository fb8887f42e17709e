// SPDX-License-Identifier: Apache-2.0
//! The defaults that make srun start a step as the plan has it, and whether what the user wrote
//! agrees with the plan.
//!
//! Source of the variables: `man srun`, INPUT ENVIRONMENT VARIABLES. What the user gives on the
//! command line wins over each of them in srun itself.

use disagg::plan::role::Deal;
use disagg::plan::{Instance, Plan, Step};

use crate::cmdline::CommandLine;
use crate::environment::{DISTRIBUTION, HOST_FILE};

/// Changes of srun's environment, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Variables to set.
    pub set: Vec<(&'static str, String)>,
    /// Variables to remove: they say something of the whole job that is not so for the step.
    pub unset: Vec<&'static str>,
}

/// The size of a step, for messages.
fn size(what: &str, nodes: u32, tasks: u32, tasks_per_node: u32) -> String {
    let (node, task) = (plural(nodes, "node"), plural(tasks, "task"));
    if nodes > 1 {
        format!("{what} runs on {node} with {task}, {tasks_per_node} on each")
    } else {
        format!("{what} runs on {node} with {task}")
    }
}

/// `1 node`, `2 nodes`.
#[must_use]
pub fn plural(count: u32, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn describe(instance: &Instance<'_>) -> String {
    let (nodes, Step { tasks, tasks_per_node, .. }) = (nodes(instance), &instance.role.step);
    size(&instance.name, nodes, *tasks, *tasks_per_node)
}

/// The nodes of an instance: others of its role may have another number.
fn nodes(instance: &Instance<'_>) -> u32 {
    instance.nodes.len() as u32
}

/// Options by which a user chooses the nodes of a step, or their number. With one of them srun
/// takes no host file (from 23.11 on it refuses the two together).
const CHOOSING_NODES: [&str; 7] =
    ["nodes", "ntasks", "nodelist", "nodefile", "distribution", "relative", "exclude"];

/// Whether the user leaves the choice of the nodes to the plan.
#[must_use]
pub fn is_pinned(line: &CommandLine) -> bool {
    CHOOSING_NODES.iter().all(|option| line.get(option).is_none())
}

/// Whether the sizes on the command line are the plan's. What is not a number is srun's to refuse.
///
/// # Errors
/// A sentence that names both numbers.
pub fn check(instance: &Instance<'_>, line: &CommandLine) -> Result<(), String> {
    let (nodes, Step { tasks, tasks_per_node, .. }) = (nodes(instance), instance.role.step.clone());
    let contradiction = |option: &str, value: &str| {
        Err(format!(
            "disagg: --{option}={value} contradicts the plan: {}. Leave --{option} out",
            describe(instance)
        ))
    };
    if let Some(value) = line.get("nodes")
        && range(value).is_some_and(|(min, max)| !(min..=max).contains(&nodes))
    {
        return contradiction("nodes", value);
    }
    for (option, planned) in [("ntasks", tasks), ("ntasks-per-node", tasks_per_node)] {
        if let Some(value) = line.get(option)
            && value.parse::<u32>().is_ok_and(|given| given != planned)
        {
            return contradiction(option, value);
        }
    }
    if let Some(value) = line.get("nodelist")
        && disagg::slurm::hostlist::expand(value).is_ok_and(|h| h.len() > nodes as usize)
    {
        return contradiction("nodelist", value);
    }
    Ok(())
}

/// Whether a step that exists has the plan's size.
///
/// # Errors
/// A sentence that names both sizes.
pub fn check_size(instance: &Instance<'_>, nodes: u32, tasks: u32) -> Result<(), String> {
    if (nodes, tasks) == (self::nodes(instance), instance.role.step.tasks) {
        return Ok(());
    }
    Err(format!(
        "disagg: the step has {} and {}, but by the plan {}",
        plural(nodes, "node"),
        plural(tasks, "task"),
        describe(instance)
    ))
}

/// `N` or `MIN-MAX`.
fn range(text: &str) -> Option<(u32, u32)> {
    let (min, max) = text.split_once('-').unwrap_or((text, text));
    Some((min.parse().ok()?, max.parse().ok()?))
}

/// What srun is started in.
#[derive(Clone, Copy, Debug)]
pub struct Around {
    /// srun gets an allocation of its own, which then needs the step's GPUs.
    pub allocates: bool,
    /// A step that overlaps shares what any other has.
    pub one_sided: bool,
    /// The job asked for GPUs in total, so that each step has to name its own.
    pub total_gpus: bool,
}

/// What srun needs to start this step by itself. `host_file` is the path of a file with the host
/// of each task, when the step is pinned.
#[must_use]
pub fn defaults(instance: &Instance<'_>, host_file: Option<String>, around: Around) -> Defaults {
    let Around { allocates, one_sided, total_gpus } = around;
    let step = &instance.role.step;
    let nodes = nodes(instance);
    let mut defaults = sizes(nodes, step.tasks, step.tasks_per_node);
    if step.tasks != nodes * step.tasks_per_node {
        // The last node is not full: srun would warn that it cannot have as many tasks on each.
        defaults.set.retain(|(name, _)| *name != "SLURM_NTASKS_PER_NODE");
        defaults.unset.push("SLURM_NTASKS_PER_NODE");
    }
    match host_file {
        Some(path) => {
            defaults.set.push((HOST_FILE, path));
            defaults.set.push((DISTRIBUTION, "arbitrary".to_owned()));
        }
        None => {
            defaults.unset.push(HOST_FILE);
            if step.deal == Deal::Filled {
                // On nodes of the user's choice, too, each has its ranks of the plan.
                defaults.set.push((DISTRIBUTION, format!("plane={}", step.tasks_per_node)));
            } else {
                defaults.unset.push(DISTRIBUTION);
            }
        }
    }
    if step.overlap || (!allocates && !one_sided) {
        defaults.set.push(("SLURM_OVERLAP", "1".to_owned()));
    }
    if step.kill_on_bad_exit {
        defaults.set.push(("SLURM_KILL_BAD_EXIT", "1".to_owned()));
    }
    // srun says so on each cluster that does not bind; steps of tests do without.
    if let Some(how) = step.cpu_bind().filter(|_| instance.plan.engine.is_some()) {
        defaults.set.push(("SLURM_CPU_BIND", how.to_owned()));
    }
    defaults.set.push(("SLURM_MPI_TYPE", step.mpi_type().to_owned()));
    if !allocates {
        // The job's memory on its nodes, which steps that overlap can only share so.
        defaults.set.push(("SLURM_MEM_PER_NODE", "0".to_owned()));
        defaults.unset.extend(["SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU"]);
    }
    match instance.role.gpus {
        // It would have all of the job's, and so wait for the server on its node.
        0 if !allocates && !one_sided => {
            defaults.set.push(("SLURM_GPUS_PER_NODE", "0".to_owned()));
        }
        gpus if allocates && gpus > 0 && instance.plan.job.asked_gpus().is_some() => {
            defaults.set.push(("SLURM_GPUS_PER_NODE", gpus.to_string()));
        }
        _ if total_gpus && !allocates => {
            let gpus = instance.plan.job.gpus_per_node.value;
            defaults.set.push(("SLURM_GPUS_PER_NODE", gpus.to_string()));
        }
        _ => {}
    }
    defaults
}

/// What srun needs to get the whole plan's allocation.
#[must_use]
pub fn whole_job(plan: &Plan) -> Defaults {
    let job = &plan.job;
    let mut defaults = sizes(job.nodes.value, job.ntasks.value, job.ntasks_per_node.value);
    let gpus = job.asked_gpus().map(|gpus| ("SLURM_GPUS_PER_NODE", gpus.to_string()));
    defaults.set.extend(gpus);
    defaults
}

fn sizes(nodes: u32, tasks: u32, tasks_per_node: u32) -> Defaults {
    Defaults {
        set: vec![
            ("SLURM_JOB_NUM_NODES", nodes.to_string()),
            ("SLURM_NNODES", nodes.to_string()),
            ("SLURM_NTASKS", tasks.to_string()),
            ("SLURM_NPROCS", tasks.to_string()),
            ("SLURM_NTASKS_PER_NODE", tasks_per_node.to_string()),
        ],
        // `--gpus` and `--ntasks-per-gpu` of a job count the GPUs of all its nodes.
        unset: vec!["SLURM_GPUS", "SLURM_NTASKS_PER_GPU"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    /// A job with GPUs of each node around srun, on a release on which steps share them.
    const JOB: Around = Around { allocates: false, one_sided: true, total_gpus: false };

    fn check_line(words: &str) -> Result<(), String> {
        let plan = fixture::plan("");
        let instance = plan.instance("GEN_0").unwrap();
        check(&instance, &CommandLine::read(words.split(' ')))
    }

    #[test]
    fn sizes_that_agree_with_the_plan_or_leave_room_for_it_are_taken() {
        for words in [
            "srun cmd",
            "srun -N2 cmd",
            "srun -N1-4 cmd",
            "srun -n8 cmd",
            "srun --ntasks-per-node=4 cmd",
            "srun -w n[1-2] cmd",
            "srun -w n1 cmd",
            "srun -N what cmd",
            "srun -w n[1- cmd",
        ] {
            assert_eq!(check_line(words), Ok(()), "{words}");
        }
    }

    #[test]
    fn sizes_that_contradict_the_plan_are_refused() {
        for words in [
            "srun -N1 cmd",
            "srun -N3-4 cmd",
            "srun -n7 cmd",
            "srun --ntasks-per-node=8 cmd",
            "srun -w n[1-3] cmd",
        ] {
            let message = check_line(words).unwrap_err();
            assert!(message.contains("GEN_0 runs on 2 nodes with 8 tasks, 4 on each"), "{message}");
        }
    }

    #[test]
    fn a_pinned_worker_has_its_hosts_its_size_its_mpi_type_and_no_gpu_count_of_the_whole_job() {
        let plan = fixture::plan("");
        let instance = plan.instance("GEN_0").unwrap();
        let defaults = defaults(&instance, Some("/path".to_owned()), JOB);
        for pair in [
            ("SLURM_JOB_NUM_NODES", "2"),
            ("SLURM_NNODES", "2"),
            ("SLURM_NTASKS", "8"),
            ("SLURM_NPROCS", "8"),
            ("SLURM_NTASKS_PER_NODE", "4"),
            ("SLURM_HOSTFILE", "/path"),
            ("SLURM_DISTRIBUTION", "arbitrary"),
            ("SLURM_MPI_TYPE", "pmix"),
        ] {
            assert!(defaults.set.iter().any(|(n, v)| (*n, v.as_str()) == pair), "{pair:?}");
        }
        assert!(defaults.unset.contains(&"SLURM_GPUS"));
        assert!(!defaults.set.iter().any(|(name, _)| *name == "SLURM_OVERLAP"));
        assert!(!defaults.set.iter().any(|(name, _)| *name == "SLURM_GPUS_PER_NODE"));
    }

    #[test]
    fn where_steps_cannot_share_gpus_those_without_have_none_and_all_share_processors() {
        let plan = fixture::plan("");
        let gen_0 = plan.instance("GEN_0").unwrap();
        let overlap = ("SLURM_OVERLAP", "1".to_owned());
        assert!(defaults(&gen_0, None, Around { one_sided: false, ..JOB }).set.contains(&overlap));
        assert!(
            !defaults(&gen_0, None, Around { one_sided: false, allocates: true, ..JOB })
                .set
                .contains(&overlap)
        );
        let gpus = |role: &str, allocates, one_sided, total_gpus| {
            let instance = plan.instance(role).unwrap();
            let around = Around { allocates, one_sided, total_gpus };
            let defaults = defaults(&instance, None, around);
            defaults.set.into_iter().find(|(name, _)| *name == "SLURM_GPUS_PER_NODE").map(|d| d.1)
        };
        assert_eq!(gpus("BENCHMARK", false, false, false).as_deref(), Some("0"));
        assert_eq!(gpus("BENCHMARK", false, true, false), None);
        assert_eq!(gpus("BENCHMARK", true, false, false), None);
        assert_eq!(gpus("GEN_0", false, false, false), None);
        assert_eq!(gpus("GEN_0", true, false, false).as_deref(), Some("4"));
        for role in ["GEN_0", "BENCHMARK"] {
            assert_eq!(gpus(role, false, true, true).as_deref(), Some("4"), "{role}");
        }
    }

    #[test]
    fn a_benchmark_overlaps_and_runs_without_mpi() {
        let plan = fixture::plan("");
        let instance = plan.instance("BENCHMARK").unwrap();
        let defaults = defaults(&instance, None, Around { allocates: true, ..JOB });
        assert!(defaults.set.contains(&("SLURM_OVERLAP", "1".to_owned())));
        assert!(defaults.set.contains(&("SLURM_MPI_TYPE", "none".to_owned())));
        assert!(defaults.unset.contains(&"SLURM_HOSTFILE"));
    }

    #[test]
    fn a_worker_whose_last_node_is_not_full_says_nothing_of_tasks_per_node() {
        let mut plan = fixture::plan("");
        if let Some(role) = plan.roles.get_mut("GEN") {
            role.step.tasks = 6;
        }
        let instance = plan.instance("GEN_0").unwrap();
        let defaults = defaults(&instance, None, JOB);
        assert!(!defaults.set.iter().any(|(name, _)| *name == "SLURM_NTASKS_PER_NODE"));
        assert!(defaults.unset.contains(&"SLURM_NTASKS_PER_NODE"));
    }

    #[test]
    fn a_worker_with_an_allocation_of_its_own_asks_for_its_gpus() {
        let plan = fixture::plan("");
        let instance = plan.instance("CTX_1").unwrap();
        let defaults = defaults(&instance, None, Around { allocates: true, ..JOB });
        assert!(defaults.set.contains(&("SLURM_GPUS_PER_NODE", "4".to_owned())));
    }

    #[test]
    fn a_user_who_chooses_nodes_gets_no_host_file() {
        for words in [
            "srun -N2 c",
            "srun -n8 c",
            "srun -w a c",
            "srun -x a c",
            "srun -m block c",
            "srun -r1 c",
        ] {
            assert!(!is_pinned(&CommandLine::read(words.split(' '))), "{words}");
        }
        assert!(is_pinned(&CommandLine::read("srun -l --ntasks-per-node=4 c".split(' '))));
    }
}
