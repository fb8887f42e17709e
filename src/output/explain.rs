// SPDX-License-Identifier: Apache-2.0
//! Where every value of a plan comes from: `slurm-disagg explain`.

use serde::Serialize;

use super::HIDDEN;
use crate::plan::step::compose;
use crate::plan::{GpuRequest, Origin, Plan};

/// One value of a plan, with its source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What kind of value: `rules`, `env`, `unset`, `argument`, `sbatch`, `srun`, `container`.
    pub kind: &'static str,
    /// Whose it is: a role, or `job`.
    pub whose: String,
    /// Its name: a variable, an option.
    pub name: String,
    /// The value; empty where there is none.
    pub value: String,
    /// The rule and the input that it comes from.
    pub source: String,
}

/// Every value of the plan.
pub fn entries(plan: &Plan) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut add = |kind, whose: &str, name: &str, value: &str, origin: &Origin| {
        let secret = kind == "env" && plan.is_secret(name);
        entries.push(Entry {
            kind,
            whose: whose.to_owned(),
            name: name.to_owned(),
            value: if secret { HIDDEN } else { value }.to_owned(),
            source: origin.to_string(),
        });
    };
    if let Some(suite) = &plan.suite {
        let why = Origin::rule(suite.rules_reason.clone());
        add("rules", "job", "rules", suite.rules.name(), &why);
    }
    if let Some(engine) = &plan.engine {
        let why = Origin::input("engine (recipe)");
        add("rules", "job", "engine", &engine.name, &why);
        if let Some(interface) = &engine.interface {
            add("rules", "job", "interface", &interface.value, &interface.origin);
        }
    }
    let most = format!("{}%", plan.max_failed.value);
    add("rules", "job", "max_failed", &most, &plan.max_failed.origin);
    let job = &plan.job;
    for (name, value) in [("job-name", &job.name), ("output", &job.output), ("time", &job.time)]
        .into_iter()
        .chain(job.texts())
    {
        add("sbatch", "job", &format!("--{name}"), &value.value, &value.origin);
    }
    let asked = |how| Some(&job.gpus_per_node).filter(|_| job.gpu_request.value == how);
    let number = [
        ("--nodes", Some(&job.nodes)),
        ("--ntasks", Some(&job.ntasks)),
        ("--ntasks-per-node", Some(&job.ntasks_per_node)),
        ("--gpus-per-node", asked(GpuRequest::PerNode)),
        ("--segment", job.segment.as_ref()),
    ];
    for (name, value) in number.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        add("sbatch", "job", name, &value.value.to_string(), &value.origin);
    }
    if let Some(gpus) = asked(GpuRequest::Gres) {
        add("sbatch", "job", "--gres", &format!("gpu:{}", gpus.value), &gpus.origin);
    }
    let of_job = [("sbatch", "job", &job.sbatch_args), ("srun", "job", &job.srun_args)].into_iter();
    let of_roles = plan.roles.iter().map(|(name, role)| ("srun", name.as_str(), &role.srun_args));
    for (kind, whose, arguments) in of_job.chain(of_roles) {
        for argument in arguments {
            let (name, value) = argument.value.split_once('=').unwrap_or((&argument.value, ""));
            add(kind, whose, name, value, &argument.origin);
        }
    }
    for (name, value) in plan.job_env.iter() {
        add("env", "job", name, value.value.as_str(), &value.origin);
    }
    if let Some(container) = &plan.container {
        let name = Origin::rule("one container for each job and node");
        add("container", "job", "--container-name", container.name.as_str(), &name);
        let (image, workdir) = (&container.image, &container.workdir);
        add("container", "job", "--container-image", &image.value, &image.origin);
        add("container", "job", "--container-workdir", &workdir.value, &workdir.origin);
        for mount in &container.mounts {
            add("container", "job", "--container-mounts", &mount.value, &mount.origin);
        }
    }
    for (whose, role) in &plan.roles {
        let spec = compose(plan, role);
        for name in &role.unset {
            add("unset", whose, &name.value, "", &name.origin);
        }
        if let Some(cleared) = spec.cleared {
            let rule =
                format!("it is no rank of an MPI program; kept: {}", cleared.except.join(", "));
            for prefix in &cleared.prefixes {
                add("unset", whose, &format!("{prefix}*"), "", &Origin::rule(rule.clone()));
            }
        }
        for variable in &spec.set {
            add("env", whose, variable.name, variable.value.as_str(), &variable.origin);
        }
        for argument in &role.argv {
            for word in argument.value.words() {
                let word = word.readable();
                let (name, value) = word.split_once('=').unwrap_or((&word, ""));
                add("argument", whose, name, value, &argument.origin);
            }
        }
        let step = &role.step;
        let mut srun = |name, value: &str, rule: &'static str| {
            add("srun", whose, name, value, &Origin::rule(rule));
        };
        srun("--nodes", &step.nodes.to_string(), "⌈world size / GPUs per node⌉; 1 without GPUs");
        srun("--ntasks", &step.tasks.to_string(), "the world size: one rank for each GPU");
        let per_node = step.tasks_per_node.to_string();
        srun("--ntasks-per-node", &per_node, "min(world size, GPUs per node)");
        let rule = "MPI only for steps with GPUs; MPI_TYPE, mpi_type or pmix";
        srun("--mpi", step.mpi_type(), rule);
        if step.overlap {
            srun("--overlap", "", "the step shares its nodes with others");
        }
        if step.kill_on_bad_exit {
            srun("--kill-on-bad-exit", "1", "one failed rank ends its step");
        }
    }
    entries
}

/// The entries whose name is the given one, dashes and case aside; all of them without a name.
pub fn select(entries: Vec<Entry>, name: Option<&str>) -> Vec<Entry> {
    let Some(name) = name else { return entries };
    let bare = |text: &str| text.trim_start_matches('-').to_ascii_lowercase();
    entries.into_iter().filter(|entry| bare(&entry.name) == bare(name)).collect()
}
