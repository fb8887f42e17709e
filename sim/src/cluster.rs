// SPDX-License-Identifier: Apache-2.0
//! A cluster to run programs on: the part of the simulator that a test or a tool talks to.

use crate::{
    abi::{BATCH_STEP, SCRIPT_PREFIX},
    env::Env,
    hosts,
    launch::{self, Host, SimError},
    layout::{Layout, Node, NodeTasks, repeated},
    release::Release,
    scenario::{Allocation, Fault, Program, Scenario, User},
    trace::{Step, Submission, TaskBody, Trace},
};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The id of a simulated job.
const JOB_ID: u32 = 1234;

/// A simulated cluster. Every method that plays a program starts a fresh process for it.
#[derive(Debug, Clone)]
pub struct Cluster {
    release: Release,
    host: Host,
    nodes: Vec<Node>,
    plugstack: String,
    plugin_dirs: Vec<String>,
    user: User,
    limit: Duration,
    deadline: Duration,
    faults: Vec<Fault>,
    cwd: Option<PathBuf>,
    body: TaskBody,
}

/// A whole run of srun: the client, and slurmstepd on each node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// What the client did.
    pub client: Trace,
    /// What slurmstepd did, one per node of the step; empty when the client failed.
    pub stepds: Vec<Trace>,
}

impl JobRun {
    /// The ranks of all nodes in the order of their ids.
    pub fn ranks(&self) -> Vec<&crate::trace::Rank> {
        let mut ranks: Vec<_> = self.stepds.iter().flat_map(Trace::ranks).collect();
        ranks.sort_by_key(|rank| rank.task);
        ranks
    }

    /// Every trace, the client's first.
    pub fn traces(&self) -> impl Iterator<Item = &Trace> {
        std::iter::once(&self.client).chain(&self.stepds)
    }
}

impl Cluster {
    /// A cluster of `nodes` nodes, `node1` and so on, with 64 CPUs each.
    pub fn new(release: Release, host: Host, nodes: usize) -> Self {
        Cluster {
            release,
            host,
            nodes: (1..=nodes).map(|n| Node { name: format!("node{n}"), cpus: 64 }).collect(),
            plugstack: String::new(),
            plugin_dirs: Vec::new(),
            user: default_user(),
            limit: Duration::from_secs(5),
            deadline: Duration::from_secs(60),
            faults: Vec::new(),
            cwd: None,
            body: TaskBody::Report(0),
        }
    }

    /// The text of plugstack.conf.
    pub fn plugstack(mut self, text: impl Into<String>) -> Self {
        self.plugstack = text.into();
        self
    }

    /// Adds a directory in which relative paths of plugstack.conf are looked for.
    pub fn plugin_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.plugin_dirs.push(directory.as_ref().to_string_lossy().into_owned());
        self
    }

    /// Other nodes.
    pub fn nodes(mut self, nodes: Vec<Node>) -> Self {
        self.nodes = nodes;
        self
    }

    /// The user. Without: nobody when the simulator runs as root, else whoever runs it.
    pub fn user(mut self, user: User) -> Self {
        self.user = user;
        self
    }

    /// The longest that one function of a plugin may take; 5 seconds without.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The longest that one program may take; 60 seconds without.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Makes calls fail.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// The working directory of the clients.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// What the tasks of its steps do; without, they report and end with 0.
    pub fn tasks(mut self, body: TaskBody) -> Self {
        self.body = body;
        self
    }

    /// The release that it plays.
    pub fn release(&self) -> Release {
        self.release
    }

    /// `sbatch ARGS`.
    pub fn sbatch(&self, args: &[&str], environ: &Env) -> Result<Trace, SimError> {
        self.play(Program::Sbatch, args, environ)
    }

    /// `salloc ARGS`. The command isn't run: [`Trace::grant`] says what it would get.
    pub fn salloc(&self, args: &[&str], environ: &Env) -> Result<Trace, SimError> {
        let program = Program::Salloc { nodes: self.nodes.clone(), job_id: JOB_ID };
        self.play(program, args, environ)
    }

    /// `srun ARGS` outside a job: it gets an allocation of its own.
    pub fn srun(&self, args: &[&str], environ: &Env) -> Result<JobRun, SimError> {
        let allocation = Allocation { job_id: JOB_ID, nodes: self.nodes.clone() };
        self.run_step(Program::Srun { in_job: false, allocation, step_id: 0 }, args, environ)
    }

    /// `srun ARGS` inside a job. `environ` is what the batch script (or salloc's command) has.
    pub fn srun_in(
        &self,
        allocation: &Allocation,
        step_id: u32,
        args: &[&str],
        environ: &Env,
    ) -> Result<JobRun, SimError> {
        let allocation = allocation.clone();
        self.run_step(Program::Srun { in_job: true, allocation, step_id }, args, environ)
    }

    fn run_step(&self, program: Program, args: &[&str], environ: &Env) -> Result<JobRun, SimError> {
        let client = self.play(program, args, environ)?;
        let stepds = match client.step() {
            Some(step) => self.stepds(&Step { body: self.body, ..step.clone() })?,
            None => Vec::new(),
        };
        Ok(JobRun { client, stepds })
    }

    /// slurmstepd on each node of a step.
    pub fn stepds(&self, step: &Step) -> Result<Vec<Trace>, SimError> {
        (0..step.layout.nodes.len()).map(|node| self.stepd(step, node)).collect()
    }

    /// slurmstepd on one node of a step.
    pub fn stepd(&self, step: &Step, node: usize) -> Result<Trace, SimError> {
        let program = Program::Stepd { step: Box::new(step.clone()), node };
        self.play(program, &[], &daemon_environ())
    }

    /// The first nodes of the cluster, for a job.
    pub fn allocate(&self, nodes: usize) -> Result<Allocation, SimError> {
        let has = self.nodes.len();
        let nodes = self.nodes.get(..nodes).ok_or(SimError::TooLarge { asked: nodes, has })?;
        Ok(Allocation { job_id: JOB_ID, nodes: nodes.to_vec() })
    }

    /// The allocation that a submitted job asks for.
    pub fn allocate_for(&self, submission: &Submission) -> Result<Allocation, SimError> {
        let request = &submission.request;
        let nodes = match (request.nodes, request.ntasks, request.ntasks_per_node) {
            (Some(((least, _), _)), _, _) => least,
            (None, Some((tasks, _)), Some(per_node)) => tasks.div_ceil(per_node.max(1)),
            _ => 1,
        };
        self.allocate(nodes as usize)
    }

    /// The batch script of a submitted job on the first node of its allocation.
    pub fn batch(
        &self,
        submission: &Submission,
        allocation: &Allocation,
    ) -> Result<Trace, SimError> {
        let step = self.batch_step(submission, allocation);
        self.stepd(&step, 0)
    }

    fn batch_step(&self, submission: &Submission, allocation: &Allocation) -> Step {
        let host = allocation.nodes.first().map(|node| node.name.clone()).unwrap_or_default();
        let mut argv = submission.argv.clone();
        if let Some(script) = argv.first_mut() {
            *script = format!("/var/spool/slurmd/job{:05}/slurm_script", allocation.job_id);
        }
        Step {
            job_id: allocation.job_id,
            step_id: BATCH_STEP,
            argv,
            environment: batch_environment(submission, allocation),
            options: Vec::new(),
            layout: Layout {
                nodes: vec![NodeTasks { host, tasks: vec![0] }],
                warnings: Vec::new(),
            },
            request: submission.request.clone(),
            cpus: allocation.nodes.iter().take(1).map(|node| node.cpus).collect(),
            cwd: submission.cwd.clone(),
            total_tasks: submission.request.ntasks.map_or(1, |(tasks, _)| tasks),
            body: self.body,
        }
    }

    /// slurmd, from its start to its end.
    pub fn slurmd(&self) -> Result<Trace, SimError> {
        self.play(Program::Slurmd, &["-D"], &daemon_environ())
    }

    /// The prologs of the plugins for a submitted job.
    pub fn prolog(&self, submission: &Submission) -> Result<Trace, SimError> {
        self.job_script(submission, false)
    }

    /// The epilogs of the plugins for a submitted job.
    pub fn epilog(&self, submission: &Submission) -> Result<Trace, SimError> {
        self.job_script(submission, true)
    }

    fn job_script(&self, submission: &Submission, epilog: bool) -> Result<Trace, SimError> {
        let mut environ = daemon_environ()
            .with("SLURM_JOB_ID", JOB_ID.to_string())
            .with("SLURM_JOB_UID", self.user.uid.to_string())
            .with("SLURM_JOB_GID", self.user.gid.to_string());
        for (name, value) in submission.job_control.iter() {
            environ.set(format!("{SCRIPT_PREFIX}{name}"), value);
        }
        let mode = if epilog { "epilog" } else { "prolog" };
        self.play(Program::JobScript { job_id: JOB_ID, epilog }, &["spank", mode], &environ)
    }

    fn play(&self, program: Program, args: &[&str], environ: &Env) -> Result<Trace, SimError> {
        let executable = match &program {
            Program::JobScript { .. } => "slurmstepd",
            program => program.name(),
        };
        let argv: Vec<_> =
            std::iter::once(executable).chain(args.iter().copied()).map(String::from).collect();
        let scenario = Scenario {
            release: self.release,
            program,
            plugstack: self.plugstack.clone(),
            plugin_dirs: self.plugin_dirs.clone(),
            user: self.user.clone(),
            limit_ms: self.limit.as_millis().try_into().unwrap_or(u64::MAX),
            faults: self.faults.clone(),
        };
        launch::play(&self.host, &scenario, &argv, environ, self.cwd.as_deref(), self.deadline)
    }
}

fn default_user() -> User {
    // SAFETY: these calls can't fail and have no memory effects.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let login = [("PATH", "/usr/local/bin:/usr/bin:/bin"), ("SHELL", "/bin/sh")];
    let (uid, gid, name, home) =
        if uid == 0 { (65534, 65534, "nobody", "/") } else { (uid, gid, "user", "/tmp") };
    User {
        name: name.to_owned(),
        uid,
        gid,
        groups: vec![gid],
        login: login
            .into_iter()
            .chain([("HOME", home), ("USER", name), ("LOGNAME", name)])
            .collect(),
    }
}

fn daemon_environ() -> Env {
    Env::new().with("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

/// What the controller and slurmd add to a batch job's environment.
fn batch_environment(submission: &Submission, allocation: &Allocation) -> Env {
    let mut env = submission.environment.clone();
    let names: Vec<_> = allocation.nodes.iter().map(|node| node.name.clone()).collect();
    let (id, count, list) =
        (allocation.job_id.to_string(), names.len().to_string(), hosts::compress(&names));
    let cpus = repeated(allocation.nodes.iter().map(|node| node.cpus));
    for (name, value) in [
        ("SLURM_CLUSTER_NAME", "simulated"),
        ("SLURM_JOB_ID", &id),
        ("SLURM_JOB_NUM_NODES", &count),
        ("SLURM_JOB_NODELIST", &list),
        ("SLURM_JOB_PARTITION", "batch"),
        ("SLURM_NODE_ALIASES", "(null)"),
        ("SLURM_JOB_CPUS_PER_NODE", &cpus),
        ("ENVIRONMENT", "BATCH"),
        ("SLURM_JOBID", &id),
        ("SLURM_NNODES", &count),
        ("SLURM_NODELIST", &list),
    ] {
        env.set(name, value);
    }
    if let Some(first) = names.first() {
        env.set("HOSTNAME", first);
    }
    let mut request = submission.request.clone();
    request.nodes = None;
    if request.ntasks.is_none() && request.ntasks_per_node.is_none() {
        let all = allocation.nodes.iter().map(|node| node.cpus).sum();
        request.ntasks = Some((all, crate::layout::Origin::CommandLine));
    }
    if let Ok(layout) = request.place(&allocation.nodes) {
        env.set("SLURM_TASKS_PER_NODE", layout.tasks_per_node());
    }
    env
}
