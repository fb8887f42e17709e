// SPDX-License-Identifier: Apache-2.0
//! What changes between two plans, as a person would review it: by area, by name, with the roles
//! that share a change named together.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::shown;
use crate::diagnostic::Printable;
use crate::plan::command::{PYTEST, file_name};
use crate::plan::step::compose;
use crate::plan::{Env, Plan, Role, Suite, pytest};

/// Something that is not the same in both plans.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is a change of.
    pub area: Area,
    /// Whose: roles, or `job`.
    pub whose: Vec<String>,
    /// Its name: a number of the layout, a variable, an option.
    pub name: String,
    /// What the first plan has; none where it has nothing of the name.
    pub before: Option<String>,
    /// What the second plan has; none where it has nothing of the name.
    pub after: Option<String>,
}

/// What something is a change of, in the order in which changes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Area {
    /// Which test, by which rules.
    Test,
    /// Counts and sizes.
    Layout,
    /// What Slurm is asked for: the job, its steps, the container.
    SlurmRequest,
    /// Which roles there are.
    Roles,
    /// Variables: removed, set.
    Environment,
    /// The commands' words.
    Command,
}

impl Area {
    fn title(self) -> &'static str {
        match self {
            Self::Test => "test",
            Self::Layout => "layout",
            Self::SlurmRequest => "Slurm request",
            Self::Roles => "roles",
            Self::Environment => "environment",
            Self::Command => "commands",
        }
    }
}

/// Names and what they mean. One name may occur several times.
type Facts = Vec<(String, String)>;

/// All that changes from one plan to another.
pub fn changes(before: &Plan, after: &Plan) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    changes.compare(Area::Test, "job", &test(before), &test(after));
    changes.compare(Area::Layout, "job", &layout(before), &layout(after));
    changes.compare(Area::SlurmRequest, "job", &request(before), &request(after));
    changes.compare(
        Area::Environment,
        "job",
        &env(before, &before.job_env),
        &env(after, &after.job_env),
    );
    let runs = |(_, role): &(&String, &Role)| role.count > 0;
    for (whose, role) in before.roles.iter().filter(runs) {
        match after.roles.get(whose).filter(|role| role.count > 0) {
            None => changes.add(Area::Roles, whose, whose, Some(count(role)), None),
            Some(other) => {
                let pair =
                    |facts: fn(&Plan, &Role) -> Facts| (facts(before, role), facts(after, other));
                for (area, (one, two)) in [
                    (
                        Area::Roles,
                        pair(|_, role| vec![("instances".into(), role.count.to_string())]),
                    ),
                    (Area::SlurmRequest, pair(|_, role| step(role))),
                    (Area::Environment, pair(environment)),
                    (Area::Command, pair(|_, role| command(role))),
                ] {
                    changes.compare(area, whose, &one, &two);
                }
            }
        }
    }
    for (name, role) in after.roles.iter().filter(runs) {
        if before.roles.get(name).is_none_or(|role| role.count == 0) {
            changes.add(Area::Roles, name, name, None, Some(count(role)));
        }
    }
    changes.0.sort_by_key(|change| change.area);
    changes.0
}

struct Changes(Vec<Change>);

impl Changes {
    /// Adds a change, to that of another role where it is the same.
    fn add(
        &mut self,
        area: Area,
        whose: &str,
        name: &str,
        before: Option<String>,
        after: Option<String>,
    ) {
        let same = |change: &&mut Change| {
            change.area == area
                && change.name == name
                && change.before == before
                && change.after == after
        };
        match self.0.iter_mut().find(same) {
            Some(change) if !change.whose.iter().any(|known| known == whose) => {
                change.whose.push(whose.to_owned());
            }
            _ => self.0.push(Change {
                area,
                whose: vec![whose.to_owned()],
                name: name.to_owned(),
                before,
                after,
            }),
        }
    }

    /// Compares what stands under the same name, the first with the first and so on.
    fn compare(&mut self, area: Area, whose: &str, before: &Facts, after: &Facts) {
        let counted = |facts: &Facts| {
            let mut seen = BTreeMap::new();
            let count = |(name, value): &(String, String)| {
                let number = seen.entry(name.clone()).and_modify(|n| *n += 1).or_insert(0);
                ((name.clone(), *number), value.clone())
            };
            facts.iter().map(count).collect::<Vec<_>>()
        };
        let (before, after) = (counted(before), counted(after));
        let find = |facts: &[((String, i32), String)], key: &(String, i32)| {
            facts.iter().find(|(other, _)| other == key).map(|(_, value)| value.clone())
        };
        for (key, value) in &before {
            let other = find(&after, key);
            if other.as_ref() != Some(value) {
                self.add(area, whose, &key.0, Some(value.clone()), other);
            }
        }
        for (key, value) in &after {
            if find(&before, key).is_none() {
                self.add(area, whose, &key.0, None, Some(value.clone()));
            }
        }
        let names = |facts: &[((String, i32), String)], others: &[((String, i32), String)]| {
            let common = facts.iter().filter(|(key, _)| find(others, key).is_some());
            common.map(|(key, _)| key.0.clone()).collect::<Vec<_>>().join(" ")
        };
        let (one, two) = (names(&before, &after), names(&after, &before));
        if area == Area::Command && one != two {
            self.add(area, whose, "order", Some(one), Some(two));
        }
    }
}

fn count(role: &Role) -> String {
    let tasks = role.step.tasks;
    format!("{} × {tasks} task{}", role.count, if tasks == 1 { "" } else { "s" })
}

fn fact(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

fn test(plan: &Plan) -> Facts {
    let mut facts = Vec::new();
    if let Some(Suite { rules, test, .. }) = &plan.suite {
        facts.extend([
            fact("rules", rules.name()),
            fact("id", &test.id),
            fact("mode", &test.mode),
            fact("function", format!("{}::{}", test.module, test.function)),
        ]);
    }
    if let Some(engine) = &plan.engine {
        facts.push(fact("engine", &engine.name));
        facts.push(fact("model", &engine.model));
        facts.push(fact("served name", &engine.served_name));
        facts.extend(plan.interface().map(|interface| fact("interface", interface)));
    }
    facts.push(fact("configuration", &plan.config.path));
    facts.push(fact("configuration's SHA-256", &plan.config.sha256));
    facts
}

fn layout(plan: &Plan) -> Facts {
    let numbers = match serde_json::to_value(&plan.layout) {
        Ok(Value::Object(numbers)) => numbers,
        _ => Default::default(),
    };
    let mut facts: Facts = numbers.iter().map(|(name, value)| fact(name, value)).collect();
    facts.push(fact("placement", format!("{:?}", plan.placement).to_lowercase()));
    facts.push(fact("frontend node", format!("{:?}", plan.frontend_node).to_lowercase()));
    if let Some(suite) = &plan.suite {
        let launcher = if suite.llmapi_launch { "used" } else { "not used" };
        facts.push(fact("trtllm-llmapi-launch", launcher));
        if let Some(precheck) = suite.precheck {
            let runs = if precheck.enabled { "on" } else { "off" };
            facts.push(fact("precheck", format!("{runs}, {} s", precheck.timeout_s)));
        }
    }
    facts
}

fn request(plan: &Plan) -> Facts {
    let job = &plan.job;
    let mut facts = vec![
        fact("--job-name", &job.name.value),
        fact("--nodes", job.nodes.value),
        fact("--ntasks", job.ntasks.value),
        fact("--ntasks-per-node", job.ntasks_per_node.value),
        fact("--gpus-per-node", job.gpus_per_node.value),
        fact("--time", &job.time.value),
        fact("--output", &job.output.value),
    ];
    facts.extend(job.texts().map(|(name, text)| fact(&format!("--{name}"), &text.value)));
    facts.extend(job.exclusive.as_ref().map(|exclusive| fact("--exclusive", exclusive.value)));
    facts.extend(job.sbatch_args.iter().map(|word| fact("sbatch", &word.value)));
    facts.extend(job.srun_args.iter().map(|word| fact("srun", &word.value)));
    facts.extend(job.segment.as_ref().map(|segment| fact("--segment", segment.value)));
    if let Some(container) = &plan.container {
        facts.push(fact("--container-image", &container.image.value));
        facts.push(fact("--container-workdir", &container.workdir.value));
        facts.extend(container.mounts.iter().map(|mount| fact("--container-mounts", &mount.value)));
    }
    facts.extend(plan.container_env.iter().map(|name| fact("--container-env", name)));
    facts
}

fn step(role: &Role) -> Facts {
    let step = &role.step;
    let mut facts = vec![
        fact("step --nodes", step.nodes),
        fact("step --ntasks", step.tasks),
        fact("step --ntasks-per-node", step.tasks_per_node),
        fact("step --mpi", step.mpi_type()),
        fact("step --overlap", step.overlap),
    ];
    facts.extend(role.srun_args.iter().map(|word| fact("step srun", &word.value)));
    facts
}

fn env(plan: &Plan, env: &Env) -> Facts {
    env.iter().map(|(name, value)| fact(name, shown(plan, name, value.value.as_str()))).collect()
}

fn environment(plan: &Plan, role: &Role) -> Facts {
    let unset = role.unset.iter().map(|name| fact(&name.value, UNSET));
    let set = compose(plan, role).set;
    let set = set.iter().filter(|variable| !variable.is_own);
    let set = set
        .map(|variable| fact(variable.name, shown(plan, variable.name, variable.value.as_str())));
    unset.chain(set).collect()
}

/// How the removal of a variable is shown.
const UNSET: &str = "(unset)";

/// The words of a command: each option of pytest by its name, the other words by what they are.
fn command(role: &Role) -> Facts {
    let words: Vec<_> = role.words().collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let program = words.iter().position(|word| file_name(word) == PYTEST);
    let (before, options) = words.split_at(program.map_or(words.len(), |at| at + 1));
    let mut facts: Facts = before.iter().map(|word| fact(word, word)).collect();
    for group in pytest::groups(options).unwrap_or_default() {
        let text = options[group.clone()].join(" ");
        let name = options[group.start];
        let name = name.split('=').next().unwrap_or(name);
        facts.push(if name.starts_with('-') { fact(name, text) } else { fact("test", text) });
    }
    facts
}

/// The changes for people; `names` are what the two plans are called.
pub fn text(changes: &[Change], names: (&str, &str)) -> String {
    let mut text = format!("--- {}\n+++ {}\n", Printable(names.0), Printable(names.1));
    if changes.is_empty() {
        text.push_str("\nno difference\n");
    }
    let mut area = None;
    for change in changes {
        if area != Some(change.area) {
            let _ = writeln!(text, "\n{}", change.area.title());
            area = Some(change.area);
        }
        let whose = match change.whose.join(", ") {
            job if job == "job" => String::new(),
            whose if whose == change.name => String::new(),
            whose => format!("{whose}: "),
        };
        let named = |value: &str| match change.area {
            // An option's value tells its name.
            Area::Command => value.to_owned(),
            _ if value == UNSET => format!("unset {}", change.name),
            Area::Environment => format!("{}={value}", change.name),
            _ => format!("{} {value}", change.name),
        };
        let (sign, what) = match (&change.before, &change.after) {
            (Some(before), Some(after)) => ('~', format!("{}: {before} → {after}", change.name)),
            (Some(before), None) => ('-', named(before)),
            (None, Some(after)) => ('+', named(after)),
            (None, None) => continue,
        };
        let _ = writeln!(text, "  {sign} {whose}{}", Printable(&what));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Context;
    use crate::input::request::{Options, plan};
    use crate::plan::Generation;

    const CONFIG: &str = "\
hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
benchmark: {mode: gen_only_no_context, concurrency_list: 8}
worker_config: {gen: {tensor_parallel_size: 8}, ctx: {tensor_parallel_size: 4}}
environment: {worker_env_var: A=1 HF_TOKEN=one}
";

    fn planned(text: &str, rules: Generation) -> Plan {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c.yaml");
        std::fs::write(&path, text).unwrap();
        std::fs::write(directory.path().join("site.yaml"), "").unwrap();
        let options = Options {
            config: path.to_str().unwrap().to_owned(),
            rules: Some(rules),
            trtllm_dir: Some("/d".into()),
            models_dir: Some("/m".into()),
            workspace: Some("/w".into()),
            site: Some(directory.path().join("site.yaml")),
            ..Options::default()
        };
        let context = Context { env: &|_| None, current_dir: "/".into() };
        let (mut plan, _) = plan(&options, &context).unwrap();
        plan.config.path = "/c.yaml".into();
        plan
    }

    fn difference(one: &Plan, two: &Plan) -> String {
        text(&changes(one, two), ("a", "b"))
    }

    #[test]
    fn a_plan_does_not_differ_from_itself() {
        let plan = planned(CONFIG, Generation::Unified);
        assert_eq!(difference(&plan, &plan), "--- a\n+++ b\n\nno difference\n");
    }

    #[test]
    fn a_larger_server_shows_in_layout_request_and_steps_and_a_secret_never_does() {
        let one = planned(CONFIG, Generation::Classic);
        let larger = CONFIG.replace("tensor_parallel_size: 8", "tensor_parallel_size: 16");
        let two = planned(&larger.replace("one", "two"), Generation::Classic);
        let text = difference(&one, &two);
        for line in
            ["  ~ total_nodes: 2 → 4\n", "  ~ --nodes: 2 → 4\n", "  ~ GEN: step --ntasks: 8 → 16\n"]
        {
            assert!(text.contains(line), "{line}{text}");
        }
        assert!(!text.contains("HF_TOKEN"), "{text}");
    }

    #[test]
    fn both_rule_sets_side_by_side_show_what_moved() {
        let text = difference(
            &planned(CONFIG, Generation::Classic),
            &planned(CONFIG, Generation::Unified),
        );
        for line in [
            "  ~ rules: classic → unified\n",
            "  ~ id: disagg_upload-c → disagg_upload-gen_only-c\n",
            "  + GEN: HF_HOME=/tmp/hf_home\n",
            "  + GEN, DISAGG_SERVER, BENCHMARK: unset UCX_NET_DEVICES\n",
            "  + DISAGG_SERVER, BENCHMARK: unset UCX_TLS\n",
            "  - GEN: TLLM_BENCHMARK_REQ_QUEUES_SIZE=8\n",
            "  - GEN, DISAGG_SERVER: --csv=/w/report.csv\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
