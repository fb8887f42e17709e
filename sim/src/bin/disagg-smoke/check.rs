// SPDX-License-Identifier: Apache-2.0
//! What must be so by the plan, against what the simulated programs did.

use std::fs;

use disagg::output::task::SECRET;
use disagg::output::{HIDDEN, shown};
use disagg::plan::Plan;
use disagg::plan::step::{PYTEST_COMMAND as COMMAND, RANK};
use slurm_sim::{Allocation, Env, Outcome, Rank, Release, Step, Trace};

use crate::planned::{Options, Planned};
use crate::stage::Stage;

/// The variable by which the plugin hands on the plan.
const PLAN: &str = "SLURM_DISAGG_PLAN";

/// What a batch script gets from Slurm besides names that start with `SLURM`.
const SET_BY_SLURM: [&str; 2] = ["ENVIRONMENT", "HOSTNAME"];

/// What every shell sets for itself.
const SET_BY_SHELL: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];

/// What is not as planned, each difference once: the tasks of a step often share it.
#[derive(Default)]
pub struct Findings {
    /// One text for each difference.
    pub list: Vec<String>,
}

impl Findings {
    /// Adds a difference.
    pub fn add(&mut self, place: &str, what: &str, expected: &str, found: &str) {
        let found = found.trim_end().replace('\n', "\n           ");
        let text = format!("{place}: {what}\n  expected {expected}\n  found    {found}");
        if !self.list.contains(&text) {
            self.list.push(text);
        }
    }

    /// Adds a difference if there is one.
    pub fn compare(&mut self, place: &str, what: &str, expected: &str, found: &str) {
        if expected != found {
            self.add(place, what, expected, found);
        }
    }

    /// The end of a program and the rules of Slurm that a plugin broke in it.
    pub fn program(&mut self, place: &str, trace: &Trace) {
        for violation in trace.violations() {
            self.add(
                place,
                "rules of Slurm",
                "kept",
                &format!("{:?}: {violation}", violation.rule),
            );
        }
        for (path, reason) in trace.refused() {
            self.add(place, path, "a plugin that Slurm loads", reason);
        }
        if trace.outcome != Outcome::Exit(0) {
            let mut lines: Vec<&str> = trace.stderr.lines().collect();
            lines.dedup();
            let found = format!("{:?}\n{}", trace.outcome, lines.join("\n"));
            self.add(place, "end", "exit status 0", &found);
        }
    }

    /// Compares the variables of two environments but for some names. Secrets are not shown.
    fn environments(
        &mut self,
        plan: &Plan,
        place: &str,
        [expected, found]: [&Env; 2],
        ignored: impl Fn(&str) -> bool,
    ) {
        let names = expected.iter().chain(found.iter()).map(|(name, _)| name);
        for name in names.filter(|name| !ignored(name)) {
            let [a, b] = [expected, found].map(|env| env.get(name));
            if a == b {
                continue;
            }
            let [a, b] = [a, b].map(|value| value.map_or("not set", |v| shown(plan, name, v)));
            self.add(place, name, a, if b == HIDDEN { "another value, hidden too" } else { b });
        }
    }
}

/// The environment of the batch script: the plan itself, the variables of the whole job, and what
/// the environment of sbatch was.
pub fn job(stage: &Stage, environ: &Env, findings: &mut Findings) {
    let (plan, place) = (&stage.plan, "batch script");
    let text = match environ.get(PLAN) {
        Some(path) if path.starts_with('/') => fs::read_to_string(path).unwrap_or_default(),
        text => text.unwrap_or_default().to_owned(),
    };
    if plan.to_json().ok() != Some(text) {
        findings.add(place, PLAN, "the plan", "another plan, or none");
    }
    let mut expected = stage.environ.clone();
    for (name, value) in plan.job_env.iter() {
        expected.set(name, value.value.expand(|_| None).unwrap_or_default());
    }
    findings.environments(plan, place, [&expected, environ], |name| {
        name.starts_with("SLURM") || SET_BY_SLURM.contains(&name)
    });
}

/// The size, the place and the options of a step.
pub fn step(
    planned: &Planned,
    step: &Step,
    allocation: &Allocation,
    release: Release,
    findings: &mut Findings,
) {
    let (place, request) = (planned.name.as_str(), &step.request);
    let hosts: Vec<_> =
        planned.nodes.iter().map(|node| allocation.nodes[*node].name.as_str()).collect();
    let layout = &step.layout;
    findings.compare(place, "host of each task", &hosts.join(" "), &layout.hosts().join(" "));
    let (expected, found) = (planned.node_count().to_string(), layout.nodes.len().to_string());
    findings.compare(place, "nodes", &expected, &found);
    let expected = Options {
        // Where a step shares its processors only with steps that overlap too, all of them do.
        overlap: planned.options.overlap || !release.overlap_is_one_sided(),
        ..planned.options.clone()
    };
    let found = Options {
        mpi: request.mpi.clone(),
        overlap: request.overlap,
        kill_on_bad_exit: request.kill_on_bad_exit,
    };
    findings.compare(place, "options", &format!("{expected:?}"), &format!("{found:?}"));
    findings.compare(place, "warnings of srun", "", &layout.warnings.join("\n"));
}

/// The environment of a task and the command that came of it. `job` is the environment of the batch
/// script.
pub fn rank(
    stage: &Stage,
    planned: &Planned,
    rank: &Rank,
    step_id: u32,
    job: &Env,
    findings: &mut Findings,
) {
    let (plan, place) = (&stage.plan, planned.name.as_str());
    let of_slurm = |name: &str| name.starts_with("SLURM");
    let mut expected: Env = job.iter().filter(|(name, _)| !of_slurm(name)).collect();
    for name in &planned.unset {
        expected.unset(name);
    }
    // The variables of Slurm are those of the task; any other is what it was before.
    let before = expected.clone();
    let lookup =
        |name: &str| if of_slurm(name) { rank.environment.get(name) } else { before.get(name) };
    for (name, value) in &planned.env {
        expected.set(name, value.expand(lookup).unwrap_or_default());
    }
    let environments = [&expected, &rank.environment];
    findings.environments(plan, place, environments, |name| {
        of_slurm(name) || [COMMAND, RANK].contains(&name) || name.starts_with(SECRET)
    });

    let file = stage.commands.join(format!("{step_id}.{}", rank.task));
    let Ok(bytes) = fs::read(file) else {
        findings.add(place, COMMAND, "a command that a shell can run", "no start of its program");
        return;
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut texts = text.split_terminator('\0');
    let count = texts.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let argv: Vec<_> = texts.by_ref().take(count).collect();
    findings.compare(place, "words of its command", &planned.argv.join(" "), &argv.join(" "));
    let environ: Env = texts.filter_map(|text| text.split_once('=')).collect();
    findings.environments(plan, &format!("command of {place}"), [&expected, &environ], |name| {
        of_slurm(name) || [COMMAND, RANK].contains(&name) || SET_BY_SHELL.contains(&name)
    });
}
