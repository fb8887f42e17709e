// SPDX-License-Identifier: Apache-2.0
//! What must be so by the plan, against what the simulated programs did.

use disagg::output::HIDDEN;
use disagg::plan::step::Variable;
use disagg::plan::{Instance, Plan, resolve};
use serde::Serialize;
use serde_json::Value;
use slurm_sim::{Allocation, Env, Outcome, Rank, Release, Step, Trace};

use crate::words;

/// The variables by which the plugin hands on the plan and a step's command.
const PLAN: &str = "SLURM_DISAGG_PLAN";
const COMMAND: &str = "pytestCommand";

/// Something that is not as planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The program or the step.
    pub place: String,
    /// The rank, when it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// What it is about: a variable, an option, a rule.
    pub what: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
}

impl Finding {
    /// A finding about no rank.
    pub fn new(
        place: &str,
        what: impl Into<String>,
        expected: &str,
        found: impl Into<String>,
    ) -> Self {
        Self {
            place: place.to_owned(),
            rank: None,
            what: what.into(),
            expected: expected.to_owned(),
            found: found.into(),
        }
    }
}

/// What a rank got.
#[derive(Debug, Clone, Serialize)]
pub struct RankSeen {
    /// Its number in the step.
    pub task: u32,
    /// Its number on its node.
    pub local: u32,
    /// Its node.
    pub host: String,
    /// The variables that the plan removes, and that are not there.
    pub unset: Vec<String>,
    /// The variables that the plan sets, in its order, as they are.
    pub env: Env,
    /// The words of its command after its variables.
    pub command: Vec<String>,
    /// All other variables, but for the plan itself and the command's text.
    pub inherited: Env,
}

/// The end of a program and the rules that the plugin broke in it.
pub fn program(place: &str, trace: &Trace) -> Vec<Finding> {
    let mut findings: Vec<_> = trace
        .violations()
        .into_iter()
        .map(|v| {
            let rule = serde_json::to_value(v.rule).unwrap_or_default();
            let rule = rule.as_str().unwrap_or_default().replace('_', " ");
            Finding::new(place, "a rule of Slurm's", "kept", format!("{rule}: {v}"))
        })
        .collect();
    for (path, reason) in trace.refused() {
        findings.push(Finding::new(place, path, "a plugin that Slurm loads", reason));
    }
    let ended = match &trace.outcome {
        Outcome::Exit(0) => return findings,
        Outcome::Exit(code) | Outcome::Exited { code, .. } => format!("exit status {code}"),
        Outcome::Crashed { signal, .. } => format!("signal {signal}"),
        Outcome::Hung { .. } => "it hung".to_owned(),
    };
    let printed = distinct_lines(&trace.stderr);
    let found = if printed.is_empty() { ended } else { format!("{ended}; it printed:\n{printed}") };
    findings.push(Finding::new(place, "its end", "exit status 0", found));
    findings
}

/// The tasks of a step often print the same.
fn distinct_lines(text: &str) -> String {
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The environment of the batch script: the plan itself, the variables of the whole job, and for the
/// rest what `submitted` is: the environment of sbatch.
pub fn job(plan: &Plan, submitted: &Env, environ: &Env) -> Vec<Finding> {
    let mut findings = Vec::new();
    let place = "batch script";
    match handed_over(environ) {
        Ok(text) => {
            let expected = serde_json::to_value(plan).unwrap_or_default();
            let found = serde_json::from_str(&text).unwrap_or_default();
            differences(plan, PLAN, &expected, &found, &mut findings);
            if findings.is_empty() && plan.to_json().ok() != Some(text) {
                findings.push(Finding::new(place, PLAN, "the plan's order", "another order"));
            }
        }
        Err(found) => findings.push(Finding::new(place, PLAN, "the plan", found)),
    }
    let of_slurm = |name: &str| name.starts_with("SLURM") || SET_BY_SLURM.contains(&name);
    let mut expected: Env = submitted.iter().filter(|(name, _)| !of_slurm(name)).collect();
    for (name, value) in plan.job_env.iter() {
        expected.set(name, value.value.expand(|_| None).unwrap_or_default());
    }
    findings.extend(variables(plan, place, None, &expected, environ, of_slurm));
    findings
}

/// What a batch script gets from Slurm besides names that start with `SLURM`.
const SET_BY_SLURM: [&str; 2] = ["ENVIRONMENT", "HOSTNAME"];

/// The variables that are not as expected, and those that are there and should not be; `others` says
/// which names are not looked at.
fn variables(
    plan: &Plan,
    place: &str,
    rank: Option<u32>,
    expected: &Env,
    found: &Env,
    others: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let added = found.iter().filter(|(name, _)| expected.get(name).is_none() && !others(name));
    expected
        .iter()
        .map(|(name, value)| (name, Some(value), found.get(name)))
        .filter(|(_, expected, found)| expected != found)
        .chain(added.map(|(name, value)| (name, None, Some(value))))
        .map(|(name, expected, found)| variable(plan, place, rank, name, expected, found))
        .collect()
}

/// The plan's text, from the variable or from the file that it names.
fn handed_over(environ: &Env) -> Result<String, String> {
    match environ.get(PLAN) {
        None => Err("not set".to_owned()),
        Some(path) if path.starts_with('/') => {
            std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))
        }
        Some(text) => Ok(text.to_owned()),
    }
}

/// Where two plans differ, one finding for each value.
fn differences(
    plan: &Plan,
    path: &str,
    expected: &Value,
    found: &Value,
    findings: &mut Vec<Finding>,
) {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let keys = expected.keys().chain(found.keys().filter(|k| !expected.contains_key(*k)));
            for key in keys {
                let [a, b] = [expected, found].map(|map| map.get(key).unwrap_or(&Value::Null));
                differences(plan, &format!("{path}.{key}"), a, b, findings);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(plan, &format!("{path}[{index}]"), a, b, findings);
            }
        }
        _ if expected == found => {}
        _ => {
            let name = path.rsplit('.').next().unwrap_or_default();
            let [expected, found] = [expected, found].map(|value| match value {
                Value::Null => None,
                value => Some(value.to_string()),
            });
            let (expected, found) = (expected.as_deref(), found.as_deref());
            let finding = variable(plan, "batch script", None, name, expected, found);
            findings.push(Finding { what: path.to_owned(), ..finding });
        }
    }
}

/// A variable that is not as planned; a secret's values are not shown.
fn variable(
    plan: &Plan,
    place: &str,
    rank: Option<u32>,
    name: &str,
    expected: Option<&str>,
    found: Option<&str>,
) -> Finding {
    let shown = |value: Option<&str>| match value {
        None => "not set".to_owned(),
        Some(value) => disagg::output::shown(plan, name, value).to_owned(),
    };
    let found = match (shown(expected), shown(found)) {
        (expected, found) if expected == found => format!("another value, {HIDDEN} too"),
        (_, found) => found,
    };
    Finding { rank, ..Finding::new(place, name, &shown(expected), found) }
}

/// The size, the place and the flags of a step.
pub fn step(
    instance: &Instance<'_>,
    step: &Step,
    allocation: &Allocation,
    release: Release,
) -> Vec<Finding> {
    let place = instance.name.clone();
    let (planned, request) = (&instance.role.step, &step.request);
    let hosts: Vec<_> = allocation.nodes.iter().map(|node| node.name.as_str()).collect();
    let hosts = instance.host_of_each_task(&hosts).unwrap_or_default();
    let hosts: Vec<_> = hosts.into_iter().copied().collect();
    let mut findings = Vec::new();
    let mut compare = |what: &str, expected: String, found: String| {
        if expected != found {
            findings.push(Finding::new(&place, what, &expected, found));
        }
    };
    compare("nodes", planned.nodes.to_string(), step.layout.nodes.len().to_string());
    compare("tasks", planned.tasks.to_string(), step.layout.tasks().to_string());
    compare("the host of each task", hosts.join(" "), step.layout.hosts().join(" "));
    let mpi = |mpi: &Option<String>| mpi.clone().unwrap_or_else(|| "none given".to_owned());
    compare("--mpi", mpi(&planned.mpi), mpi(&request.mpi));
    // Where a step shares its processors only with steps that overlap too, all of them do.
    let overlap = planned.overlap || !release.overlap_is_one_sided();
    compare("--overlap", overlap.to_string(), request.overlap.to_string());
    compare(
        "--kill-on-bad-exit",
        planned.kill_on_bad_exit.to_string(),
        request.kill_on_bad_exit.to_string(),
    );
    for warning in &step.layout.warnings {
        findings.push(Finding::new(&place, "what srun prints", "no warning", warning));
    }
    findings
}

/// A rank's environment, variable by variable, and its command, word by word. `job` is the
/// environment of the batch script, `argv` what srun was told to run.
pub fn rank(
    instance: &Instance<'_>,
    rank: &Rank,
    allocation: &Allocation,
    job: &Env,
    argv: &[String],
) -> (RankSeen, Vec<Finding>) {
    let (plan, name) = (instance.plan, instance.name.clone());
    let mut findings = Vec::new();
    let at = |what: &str, expected: &str, found: &str| Finding {
        rank: Some(rank.task),
        ..Finding::new(&name, what, expected, found)
    };

    let hosts: Vec<_> = allocation.nodes.iter().map(|node| node.name.as_str()).collect();
    let hosts = instance.host_of_each_task(&hosts).unwrap_or_default();
    let host = hosts.get(rank.task as usize).map_or("none", |host| **host);
    if host != rank.host {
        findings.push(at("its node", host, &rank.host));
    }
    if rank.argv != argv {
        findings.push(at("what srun runs", &argv.join(" "), &rank.argv.join(" ")));
    }

    let expected = expected_environment(instance, rank, job);
    let others = |name: &str| name.starts_with("SLURM") || name == COMMAND;
    findings.extend(variables(plan, &name, Some(rank.task), &expected, &rank.environment, others));

    let lookup = |name: &str| rank.environment.get(name);
    let command = match rank.environment.get(COMMAND) {
        Some(text) => words::read(text, lookup),
        None => Err("not set".to_owned()),
    };
    let command = command.unwrap_or_else(|found| {
        findings.push(at(COMMAND, "the plan's command", &found));
        Vec::new()
    });
    let [planned, read] = [&planned_command(instance, lookup), &command].map(|c| joined(c));
    let word = |words: &[String], index: usize| words.get(index).cloned();
    let differs = |index: &usize| word(&planned, *index) != word(&read, *index);
    if let Some(index) =
        (0..planned.len().max(read.len())).find(differs).filter(|_| !read.is_empty())
    {
        let [expected, found] = [word(&planned, index), word(&read, index)];
        // A word that sets a variable may hold a secret.
        let set = expected.as_deref().and_then(|word| word.split_once('='));
        let finding = variable(
            plan,
            &name,
            Some(rank.task),
            set.map_or("", |(name, _)| name),
            expected.as_deref(),
            found.as_deref(),
        );
        findings.push(Finding { what: format!("word {} of {COMMAND}", index + 1), ..finding });
    }
    let own = command.into_iter().next_back().unwrap_or_default();
    let own = own.into_iter().skip(resolve(instance).set.len()).collect();
    (seen(instance, rank, own), findings)
}

/// What a rank's environment must be, but for what Slurm itself sets: the batch script's, without
/// the names that the role removes, with the role's variables.
fn expected_environment(instance: &Instance<'_>, rank: &Rank, job: &Env) -> Env {
    let mut inherited: Env = job.iter().filter(|(name, _)| !name.starts_with("SLURM")).collect();
    for name in &instance.role.unset {
        inherited.unset(&name.value);
    }
    let before = inherited.clone();
    // Slurm's own variables are the rank's; any other is what it was before the role's were set.
    let lookup = |name: &str| match name.starts_with("SLURM") {
        true => rank.environment.get(name),
        false => before.get(name),
    };
    for variable in resolve(instance).set {
        inherited.set(variable.name, variable.value.expand(lookup).unwrap_or_default());
    }
    inherited
}

/// The command's words by the plan: `cd DIRECTORY && unset NAMES && NAME=VALUE … COMMAND …`. A shell
/// reads them in the rank's final environment.
fn planned_command<'e>(
    instance: &Instance<'_>,
    lookup: impl Fn(&str) -> Option<&'e str>,
) -> Vec<Vec<String>> {
    let spec = resolve(instance);
    let mut unset: Vec<_> = spec.unset.iter().map(|name| (*name).to_owned()).collect();
    if !unset.is_empty() {
        unset.insert(0, "unset".to_owned());
    }
    let set = |variable: &Variable<'_>| {
        format!("{}={}", variable.name, lookup(variable.name).unwrap_or_default())
    };
    let mut own: Vec<_> = spec.set.iter().map(set).collect();
    own.extend(spec.arguments().map(|argument| argument.into_owned()));
    let directory = vec!["cd".to_owned(), spec.cwd.to_owned()];
    [directory, unset, own].into_iter().filter(|words| !words.is_empty()).collect()
}

/// The words of all commands.
fn joined(commands: &[Vec<String>]) -> Vec<String> {
    commands.join(&"&&".to_owned())
}

fn seen(instance: &Instance<'_>, rank: &Rank, command: Vec<String>) -> RankSeen {
    let shown =
        |name: &str, value: &str| disagg::output::shown(instance.plan, name, value).to_owned();
    let spec = resolve(instance);
    let mut seen = RankSeen {
        task: rank.task,
        local: rank.local,
        host: rank.host.clone(),
        unset: Vec::new(),
        env: Env::new(),
        command,
        inherited: Env::new(),
    };
    for name in &instance.role.unset {
        if rank.environment.get(&name.value).is_none() {
            seen.unset.push(name.value.clone());
        }
    }
    for Variable { name, .. } in &spec.set {
        if let Some(value) = rank.environment.get(name) {
            seen.env.set(*name, shown(name, value));
        }
    }
    for (name, value) in rank.environment.iter() {
        if spec.set.iter().all(|set| set.name != name) && name != PLAN && name != COMMAND {
            seen.inherited.set(name, shown(name, value));
        }
    }
    seen
}
