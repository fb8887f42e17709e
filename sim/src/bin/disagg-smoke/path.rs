// SPDX-License-Identifier: Apache-2.0
//! One submission: sbatch, the controller, the batch script, and one srun for each step.

use std::error::Error;
use std::io::Write;

use disagg::diagnostic::Printable;
use disagg::output::{quote, shown};
use disagg::plan::Plan;
use disagg_host::demand::{self, Demand};
use job_submit_disagg::settings::Settings;
use job_submit_disagg::size::{Ask, decide};
use job_submit_disagg::tres::TresForm;
use slurm_sim::{Allocation, Cluster, Env, Host, Origin, Release, Step, Submission, TaskBody};

use crate::check::{self, Findings};
use crate::planned::Planned;
use crate::stage::Stage;

/// Of more servers of one kind, the first ones and the last one are started: thousands would take
/// minutes and show nothing new.
const MOST_SERVERS: usize = 32;

/// Plays the submission and prints it as it goes. Returns what is not as planned.
pub fn run(
    stage: &Stage,
    release: Release,
    out: &mut impl Write,
) -> Result<Vec<String>, Box<dyn Error>> {
    let mut findings = Findings::default();
    let nodes = stage.plan.job.nodes.value as usize;
    let cluster = Cluster::new(release, Host::current(), nodes)
        .plugstack(stage.plugstack.clone())
        .user(stage.user()?)
        .cwd(stage.directory());

    writeln!(out, "$ sbatch {}", words(&stage.sbatch))?;
    let arguments: Vec<_> = stage.sbatch.iter().map(String::as_str).collect();
    let sbatch = cluster.sbatch(&arguments, &stage.environ)?;
    write!(out, "{}", sbatch.stderr)?;
    findings.program("sbatch", &sbatch);
    let Some(submission) = sbatch.submissions().into_iter().next() else {
        return Ok(findings.list);
    };
    let demand = submission.job_control.get(demand::VARIABLE).unwrap_or("none");
    writeln!(out, "  demand      {}", Printable(demand))?;
    let sized = match controller(&stage.plan, release, submission, demand) {
        Ok((sized, size)) => {
            writeln!(out, "  controller  {size}")?;
            sized
        }
        Err(found) => {
            findings.add("controller", "job", "the size of the plan", &found);
            return Ok(findings.list);
        }
    };
    let allocation = cluster.allocate_for(&sized)?;
    let batch = cluster.batch(&sized, &allocation)?;
    findings.program("batch script", &batch);
    let Some(script) = batch.ranks().into_iter().next() else { return Ok(findings.list) };
    check::job(stage, &script.environment, &mut findings);

    let job = Job {
        stage,
        cluster: cluster.tasks(TaskBody::Execute),
        allocation,
        environ: &script.environment,
    };
    let mut step_id = 0;
    for servers in stage.steps.chunk_by(|a, b| a.role == b.role) {
        let played = servers.len().min(MOST_SERVERS);
        let mut known = Vec::new();
        for planned in servers[..played - 1].iter().chain(servers.last()) {
            job.step(step_id, planned, &mut known, out, &mut findings)?;
            step_id += 1;
        }
        if servers.len() > played {
            let more = servers.len() - played;
            writeln!(out, "\n… {more} more {} steps are not started", servers[0].role)?;
        }
    }
    writeln!(out)?;
    Ok(findings.list)
}

fn words(words: &[String]) -> String {
    Printable(&quote::words(words.iter().map(String::as_str))).to_string()
}

/// Sizes the job as the controller's plugin does, and gives the size in words. Otherwise says why
/// there is no such job.
fn controller(
    plan: &Plan,
    release: Release,
    submission: &Submission,
    demand: &str,
) -> Result<(Submission, String), String> {
    let demand: Demand = demand.parse().map_err(|error| format!("{demand}: {error}"))?;
    let request = &submission.request;
    let ask = Ask {
        min_nodes: request.nodes.map(|((least, _), _)| least),
        max_nodes: request.nodes.map(|((_, most), _)| most),
        tasks: request.ntasks.map(|(tasks, _)| tasks),
        tasks_per_node: request.ntasks_per_node,
        tres_per_node: request.gpus_per_node.as_deref(),
        ..Ask::default()
    };
    let form = TresForm::of_release(release.version_number());
    let fill = decide(&ask, &demand, &Settings::default(), form)
        .map_err(|refusals| format!("refused: {}", refusals.join("; ")))?;
    let (Some(nodes), Some(tasks), Some(per_node)) = (fill.nodes, fill.tasks, fill.tasks_per_node)
    else {
        return Err(format!("{fill:?}"));
    };
    let size = format!("--nodes={nodes} --ntasks={tasks} --ntasks-per-node={per_node}");
    let job = &plan.job;
    let planned = [&job.nodes, &job.ntasks, &job.ntasks_per_node].map(|number| number.value);
    if [nodes, tasks, per_node.into()] != planned {
        return Err(size);
    }
    let mut sized = submission.clone();
    sized.request.nodes = Some(((nodes, nodes), Origin::CommandLine));
    sized.request.ntasks = Some((tasks, Origin::CommandLine));
    sized.request.ntasks_per_node = Some(per_node.into());
    Ok((sized, format!("{size} {}", fill.tres_per_node.unwrap_or_default())))
}

/// A job in which steps are started.
struct Job<'a> {
    stage: &'a Stage,
    cluster: Cluster,
    allocation: Allocation,
    /// The environment of the batch script.
    environ: &'a Env,
}

impl Job<'_> {
    /// Starts a step and compares it. Shows what its first task gets, but for what is `known` from
    /// an earlier step of its kind.
    fn step(
        &self,
        step_id: u32,
        planned: &Planned,
        known: &mut Vec<String>,
        out: &mut impl Write,
        findings: &mut Findings,
    ) -> Result<(), Box<dyn Error>> {
        let (stage, name) = (self.stage, &planned.name);
        let arguments = [format!("--disagg-role={name}"), stage.run_script.clone()];
        writeln!(out, "\n$ srun {}", words(&arguments))?;
        let arguments = arguments.each_ref().map(String::as_str);
        let run = self.cluster.srun_in(&self.allocation, step_id, &arguments, self.environ)?;
        findings.program(&format!("srun of {name}"), &run.client);
        let Some(step) = run.client.step() else { return Ok(()) };
        writeln!(out, "  {}", place_and_options(step))?;
        check::step(planned, step, &self.allocation, self.cluster.release(), findings);
        for (stepd, node) in run.stepds.iter().zip(&step.layout.nodes) {
            findings.program(&format!("slurmstepd of {name} on {}", node.host), stepd);
        }
        let ranks = run.ranks();
        let (expected, found) = (planned.nodes.len().to_string(), ranks.len().to_string());
        findings.compare(name, "tasks that start", &expected, &found);
        for rank in &ranks {
            check::rank(stage, planned, rank, step_id, self.environ, findings);
        }
        let Some(rank) = ranks.first() else { return Ok(()) };
        if known.is_empty() {
            for variable in &planned.unset {
                writeln!(out, "    unset {variable}")?;
            }
            writeln!(out, "    {}", words(&planned.argv))?;
        }
        for (variable, _) in &planned.env {
            let value = rank.environment.get(variable).unwrap_or_default();
            let value = quote::word(shown(&stage.plan, variable, value));
            let line = format!("    {variable}={}", Printable(&value));
            if !known.contains(&line) {
                writeln!(out, "{line}")?;
                known.push(line);
            }
        }
        Ok(())
    }
}

fn place_and_options(step: &Step) -> String {
    let (layout, request) = (&step.layout, &step.request);
    let mut text = format!("on {}, tasks per node {}", layout.nodelist(), layout.tasks_per_node());
    if let Some(mpi) = &request.mpi {
        text += &format!(", --mpi={mpi}");
    }
    for (given, option) in
        [(request.overlap, ", --overlap"), (request.kill_on_bad_exit, ", --kill-on-bad-exit")]
    {
        text += if given { option } else { "" };
    }
    text
}
