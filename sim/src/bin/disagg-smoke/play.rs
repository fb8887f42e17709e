// SPDX-License-Identifier: Apache-2.0
//! One submission on one release: sbatch, the controller, the batch script, a srun for each step.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use disagg::plan::Instance;
use disagg_host::demand::{self, Demand};
use job_submit_disagg::settings::Settings;
use job_submit_disagg::size::{Ask, Fill, decide};
use job_submit_disagg::tres::TresForm;
use serde::Serialize;
use slurm_sim::{Allocation, Cluster, Env, Host, Origin, Release, SimError, Submission};

use crate::args::Args;
use crate::check;
use crate::check::{Finding, RankSeen};
use crate::progress::Progress;
use crate::stage::Stage;

/// What came of a submission.
#[derive(Debug, Serialize)]
pub struct Played {
    /// The release.
    pub release: String,
    /// What sbatch printed.
    pub sbatch_printed: String,
    /// What the controller was asked for.
    pub demand: Option<String>,
    /// What the controller made of it.
    pub job: Option<JobSize>,
    /// The steps that were played, in the plan's order.
    pub steps: Vec<StepSeen>,
    /// Servers whose steps were not played, because there are so many.
    pub servers_left_out: usize,
    /// What is not as planned.
    pub findings: Vec<Finding>,
}

/// The size that the controller gives a job.
#[derive(Debug, Serialize)]
pub struct JobSize {
    /// Nodes.
    pub nodes: u32,
    /// Tasks.
    pub tasks: u32,
    /// Tasks on each node.
    pub tasks_per_node: u16,
    /// The GPUs of each node, as the release writes them.
    pub tres_per_node: String,
    /// The nodes that it got.
    pub nodelist: String,
}

/// A step as srun made it.
#[derive(Debug, Serialize)]
pub struct StepSeen {
    /// Its role.
    pub role: String,
    /// srun's arguments.
    pub srun: Vec<String>,
    /// The options that srun took from its environment.
    pub options: Vec<String>,
    /// Its nodes.
    pub nodelist: String,
    /// Tasks on each of its nodes, as Slurm writes them.
    pub tasks_per_node: String,
    /// Its ranks.
    pub ranks: Vec<RankSeen>,
}

/// Plays the submission.
pub fn play(stage: &Stage, args: &Args, release: Release) -> Result<Played, SimError> {
    let mut played = Played {
        release: release.version(),
        sbatch_printed: String::new(),
        demand: None,
        job: None,
        steps: Vec::new(),
        servers_left_out: 0,
        findings: Vec::new(),
    };
    let nodes = stage.plan.layout.total_nodes as usize;
    let mut cluster = Cluster::new(release, Host::current(), nodes)
        .plugstack(stage.plugstack.clone())
        .cwd(&stage.directory);
    for fault in &args.fault {
        cluster = cluster.fault(fault.clone());
    }
    let sbatch_args: Vec<_> = stage.sbatch.iter().map(String::as_str).collect();
    let sbatch = cluster.sbatch(&sbatch_args, &stage.environ)?;
    played.sbatch_printed = sbatch.stderr.clone();
    played.findings.extend(check::program("sbatch", &sbatch));
    let Some(submission) = sbatch.submissions().into_iter().next() else { return Ok(played) };
    let Some((submission, allocation)) = controller(stage, &cluster, submission, &mut played)?
    else {
        return Ok(played);
    };
    let batch = cluster.batch(&submission, &allocation)?;
    played.findings.extend(check::program("batch script", &batch));
    let Some(script) = batch.ranks().into_iter().next() else { return Ok(played) };
    let environ = &script.environment;
    played.findings.extend(check::job(&stage.plan, &stage.environ, environ));

    let all = stage.plan.instances().count();
    let instances: Vec<_> = stage
        .plan
        .instances()
        .filter(|i| is_chosen(i.index, i.role.count, args.max_servers))
        .collect();
    played.servers_left_out = all - instances.len();
    let steps = Steps { stage, cluster: &cluster, allocation: &allocation, environ };
    for step in steps.play(&instances, &format!("Slurm {release}")) {
        let (seen, findings) = step?;
        played.steps.extend(seen);
        played.findings.extend(findings);
    }
    Ok(played)
}

/// The controller sizes the job and gives it nodes.
fn controller(
    stage: &Stage,
    cluster: &Cluster,
    submission: &Submission,
    played: &mut Played,
) -> Result<Option<(Submission, Allocation)>, SimError> {
    let finding =
        |expected: &str, found: String| Finding::new("controller", "demand", expected, found);
    let Some(text) = submission.job_control.get(demand::VARIABLE) else {
        let none = "no demand in the job control environment".to_owned();
        played.findings.push(finding("a demand", none));
        return Ok(None);
    };
    played.demand = Some(text.to_owned());
    let demand: Demand = match text.parse() {
        Ok(demand) => demand,
        Err(error) => {
            played.findings.push(finding("a demand that can be read", format!("{text}: {error}")));
            return Ok(None);
        }
    };
    let request = &submission.request;
    let ask = Ask {
        min_nodes: request.nodes.map(|((least, _), _)| least),
        max_nodes: request.nodes.map(|((_, most), _)| most),
        tasks: request.ntasks.map(|(tasks, _)| tasks),
        tasks_per_node: request.ntasks_per_node,
        tres_per_node: request.gpus_per_node.as_deref(),
        ..Ask::default()
    };
    let form = TresForm::of_release(cluster.release().version_number());
    let fill = match decide(&ask, &demand, &Settings::default(), form) {
        Ok(fill) => fill,
        Err(refusals) => {
            played.findings.push(finding("a job that is sized", refusals.join("; ")));
            return Ok(None);
        }
    };
    let Fill { nodes: Some(nodes), tasks: Some(tasks), tasks_per_node, tres_per_node, .. } = fill
    else {
        played.findings.push(finding("nodes and tasks", "neither".to_owned()));
        return Ok(None);
    };
    let job = &stage.plan.job;
    let expected = (job.nodes.value, job.ntasks.value, Some(job.ntasks_per_node.value));
    let found = (nodes, tasks, tasks_per_node.map(u32::from));
    let describe = |(nodes, tasks, per_node): (u32, u32, Option<u32>)| {
        format!("{nodes} nodes, {tasks} tasks, {} per node", per_node.unwrap_or_default())
    };
    if found != expected {
        played.findings.push(finding(&describe(expected), describe(found)));
        return Ok(None);
    }
    let mut sized = submission.clone();
    sized.request.nodes = Some(((nodes, nodes), Origin::CommandLine));
    sized.request.ntasks = Some((tasks, Origin::CommandLine));
    sized.request.ntasks_per_node = tasks_per_node.map(u32::from);
    let allocation = cluster.allocate(nodes as usize)?;
    let names: Vec<_> = allocation.nodes.iter().map(|node| node.name.clone()).collect();
    played.job = Some(JobSize {
        nodes,
        tasks,
        tasks_per_node: tasks_per_node.unwrap_or_default(),
        tres_per_node: tres_per_node.unwrap_or_default(),
        nodelist: slurm_sim::compress_hosts(&names),
    });
    Ok(Some((sized, allocation)))
}

/// Whether a server's step is played when at most `limit` of `count` are: the first and the last
/// are, and others evenly between them.
fn is_chosen(index: u32, count: u32, limit: u32) -> bool {
    if limit == 0 || count <= limit || index == 0 {
        return true;
    }
    let [index, last, gaps] = [index, count - 1, limit - 1].map(u64::from);
    // The first choice that does not lie before this server: is it this server?
    gaps > 0 && (index * gaps).div_ceil(last) * last / gaps == index
}

/// What srun made, unless it failed, and what is not as planned.
type StepOutcome = Result<(Option<StepSeen>, Vec<Finding>), SimError>;

/// The steps of a job.
struct Steps<'a> {
    stage: &'a Stage,
    cluster: &'a Cluster,
    allocation: &'a Allocation,
    /// The batch script's environment.
    environ: &'a Env,
}

impl Steps<'_> {
    /// Plays steps, as many at once as there are processors, and gives them in order.
    fn play(&self, instances: &[Instance<'_>], what: &str) -> Vec<StepOutcome> {
        let progress = Progress::new(what, instances.len());
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(Vec::new());
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..workers.min(instances.len()) {
                scope.spawn(|| {
                    while let Some((index, instance)) = {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        instances.get(index).map(|instance| (index, instance))
                    } {
                        let outcome = self.step(index as u32, instance);
                        outcomes
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner)
                            .push((index, outcome));
                        progress.step();
                    }
                });
            }
        });
        let mut outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        outcomes.sort_by_key(|(index, _)| *index);
        outcomes.into_iter().map(|(_, outcome)| outcome).collect()
    }

    fn step(&self, step_id: u32, instance: &Instance<'_>) -> StepOutcome {
        let name = instance.name.as_str();
        let srun = self.stage.srun(name);
        let arguments: Vec<_> = srun.iter().map(String::as_str).collect();
        let run = self.cluster.srun_in(self.allocation, step_id, &arguments, self.environ)?;
        let mut findings = check::program(&format!("srun of {name}"), &run.client);
        let Some(step) = run.client.step() else { return Ok((None, findings)) };
        findings.extend(check::step(instance, step, self.allocation, self.cluster.release()));
        for (stepd, node) in run.stepds.iter().zip(&step.layout.nodes) {
            findings
                .extend(check::program(&format!("slurmstepd of {name} on {}", node.host), stepd));
        }
        let command = &srun[1..];
        let (mut ranks, mut missing) = (Vec::new(), step.layout.tasks());
        for rank in run.ranks() {
            missing -= 1;
            let (seen, wrong) = check::rank(instance, rank, self.allocation, self.environ, command);
            ranks.push(seen);
            findings.extend(wrong);
        }
        if missing > 0 {
            let started = ranks.len().to_string();
            let expected = instance.role.step.tasks.to_string();
            findings.push(Finding::new(&name.to_string(), "ranks that start", &expected, started));
        }
        let seen = StepSeen {
            role: name.to_string(),
            options: options(step),
            nodelist: step.layout.nodelist(),
            tasks_per_node: step.layout.tasks_per_node(),
            srun,
            ranks,
        };
        Ok((Some(seen), findings))
    }
}

/// What srun was asked for. Its command line says nothing but the role, so all of it comes from the
/// environment that the plugin has set.
fn options(step: &slurm_sim::Step) -> Vec<String> {
    let request = &step.request;
    let mut options = Vec::new();
    if let Some(((least, _), _)) = request.nodes {
        options.push(format!("--nodes={least}"));
    }
    if let Some((tasks, _)) = request.ntasks {
        options.push(format!("--ntasks={tasks}"));
    }
    let values = [
        ("ntasks-per-node", request.ntasks_per_node.map(|tasks| tasks.to_string())),
        ("distribution", request.distribution.clone()),
        ("mpi", request.mpi.clone()),
    ];
    for (name, value) in values {
        options.extend(value.map(|value| format!("--{name}={value}")));
    }
    for (name, given) in
        [("overlap", request.overlap), ("kill-on-bad-exit", request.kill_on_bad_exit)]
    {
        options.extend(given.then(|| format!("--{name}")));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::is_chosen;

    #[test]
    fn of_many_servers_as_many_as_allowed_are_chosen_with_the_first_and_the_last() {
        for (count, limit) in [(4096, 64), (65, 64), (100, 3), (7, 2), (64, 64)] {
            let chosen: Vec<u32> = (0..count).filter(|i| is_chosen(*i, count, limit)).collect();
            assert_eq!(chosen.len() as u32, limit, "{count} {limit}");
            assert_eq!((chosen[0], chosen[chosen.len() - 1]), (0, count - 1));
        }
        assert!((0..9).all(|index| is_chosen(index, 9, 0)));
        assert_eq!((0..9).filter(|index| is_chosen(*index, 9, 1)).count(), 1);
    }
}
