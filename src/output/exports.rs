// SPDX-License-Identifier: Apache-2.0
//! The variables that drafts of launch scripts, run scripts and install scripts know by name: one
//! list for the batch script, for pipelines' launch scripts and for `slurm-disagg launch`.

use std::fmt::Write;

use super::quote;
use crate::plan::command::BaseCommand;
use crate::plan::rules::Export as Known;
use crate::plan::step::PYTEST_COMMAND;
use crate::plan::{Plan, Role, Suite, Template, Traced};

/// The script that runs a precheck's step, below the source tree.
const PRECHECK_RUN_SCRIPT: &str = "jenkins/scripts/perf/disaggregated/slurm_precheck_run.sh";

/// An exported variable.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// Its value, which may refer to the job's variables.
    pub value: Template,
    /// Whether there is a secret in it.
    pub is_secret: bool,
}

/// What a script prefix has before all others; pipelines bring their own.
pub fn prefix(plan: &Plan) -> Vec<Export> {
    let Some(suite) = &plan.suite else { return Vec::new() };
    let workspace = plan.workspace.trim_end_matches('/');
    let mut exports = List(plan, Vec::new());
    exports.text("jobWorkspace", &format!("{workspace}/disagg_workspace"));
    exports.text("llmSrcNode", &suite.source_dir);
    exports.text("stageName", &format!("disagg_perf_test_{}", plan.config.name));
    exports.text("perfMode", "true");
    exports.text("resourcePathNode", &suite.source_dir);
    exports.command(PYTEST_COMMAND, &base_command(&suite.base_command, suite.llmapi_launch));
    exports.text("coverageConfigFile", &format!("{workspace}/coverage_config.json"));
    exports.1
}

/// All others, in order.
pub fn exports(plan: &Plan) -> Vec<Export> {
    let Some(suite) = &plan.suite else { return Vec::new() };
    let mut exports = List(plan, Vec::new());
    for (name, value) in plan.job_env.iter() {
        exports.add(name, value.value.clone(), plan.is_secret(name));
    }
    for (name, what) in suite.rules.exports(suite.test.kind) {
        match what {
            Known::PrecheckRunScript | Known::Stage if suite.precheck.is_none() => {}
            Known::RunScript => exports.text(name, plan.run_script.as_deref().unwrap_or_default()),
            Known::InstallScript => {
                exports.text(name, plan.install_script.as_deref().unwrap_or_default());
            }
            Known::PrecheckRunScript => {
                let path = format!("{}/{PRECHECK_RUN_SCRIPT}", suite.source_dir);
                exports.text(name, &suite.base_command.on_nodes(&suite.source_dir, &path));
            }
            Known::Stage => {
                if let Some(stage) = suite.stage.as_deref().filter(|stage| !stage.is_empty()) {
                    exports.text(name, stage);
                }
            }
            command => match (command_text(plan, suite, command), suite.variables.get(name)) {
                (Some(text), _) => exports.command(name, &text),
                (None, Some(value)) => exports.text(name, value),
                (None, None) => {}
            },
        }
    }
    exports.1
}

struct List<'p>(&'p Plan, Vec<Export>);

impl List<'_> {
    fn add(&mut self, name: &str, value: Template, is_secret: bool) {
        self.1.push(Export { name: name.to_owned(), value, is_secret });
    }

    fn text(&mut self, name: &str, value: &str) {
        self.add(name, Template::literal(value), false);
    }

    fn command(&mut self, name: &str, text: &str) {
        let is_secret = has_secrets(self.0);
        self.add(name, Template::literal(text), is_secret);
    }
}

/// Whether a command of the plan has a variable whose value is never shown.
pub fn has_secrets(plan: &Plan) -> bool {
    let mut envs = plan.environments();
    envs.any(|env| env.iter().any(|(name, _)| plan.is_secret(name)))
}

/// `export NAME=…` lines.
pub fn write(script: &mut String, exports: Vec<Export>) {
    for group in exports.chunk_by(|one, other| one.is_secret == other.is_secret) {
        quietly(group[0].is_secret, script, |script| {
            for Export { name, value, .. } in group {
                let value = match value.is_literal() {
                    true => quote::double(&value.literal_text()),
                    false => quote::template(value),
                };
                let _ = writeln!(script, "export {name}={value}");
            }
        });
    }
}

/// Writes lines that `set -x` must not print, where there is a secret in them.
pub fn quietly(secret: bool, script: &mut String, write: impl FnOnce(&mut String)) {
    if secret {
        script.push_str("{ set +x; } 2>/dev/null\n");
    }
    write(script);
    if secret {
        script.push_str("set -x\n");
    }
}

/// A command or a part of one; nothing for a role that the plan lacks, and for other variables.
fn command_text(plan: &Plan, suite: &Suite, what: Known) -> Option<String> {
    let role = |name: &str| plan.roles.get(name).or_else(|| suite.unused_roles.get(name));
    let base = &suite.base_command;
    Some(match what {
        Known::Empty => String::new(),
        Known::WithoutLauncher => base_command(base, false),
        Known::Whole(name) => role_command(role(name)?),
        Known::WithoutOwnEnvironment(name) => assigned(base.env.iter()) + &words_of(role(name)?),
        Known::OwnEnvironment(name) => {
            let of_base = |name: &str| base.env.get(name).is_some();
            let own = role(name)?.env.iter().filter(|(name, _)| !of_base(name));
            assigned(own).trim_end().to_owned()
        }
        _ => return None,
    })
}

/// The shell text of a role's command: `unset … && export … && NAME=VALUE … COMMAND …`.
fn role_command(role: &Role) -> String {
    let mut text = String::new();
    if !role.unset.is_empty() {
        let names: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
        let _ = write!(text, "unset {} && ", names.join(" "));
    }
    if !role.export.is_empty() {
        let _ = write!(text, "export {} && ", assigned(role.export.iter()).trim_end());
    }
    // `export` expands all its arguments before it sets any; assignments take effect one by one.
    match role.env.first_out_of_order() {
        None => text + &assigned(role.env.iter()) + &words_of(role),
        Some(_) => {
            format!("{text}(export {}&& {})", assigned(role.env.iter()), words_of(role))
        }
    }
}

/// The base command as shell text.
fn base_command(base: &BaseCommand, with_launcher: bool) -> String {
    let mut argv = base.argv.clone();
    if with_launcher {
        argv.insert(base.launcher_at, base.launcher.clone());
    }
    assigned(base.env.iter()) + &words(&argv)
}

/// `NAME=VALUE ` for each variable.
fn assigned<'e>(variables: impl Iterator<Item = (&'e str, &'e Traced<Template>)>) -> String {
    let assignment = |(name, value): (&str, &Traced<Template>)| {
        format!("{name}={} ", quote::shell(&quote::assigned(&value.value)))
    };
    variables.map(assignment).collect()
}

fn words_of(role: &Role) -> String {
    let words = role.argv.iter().flat_map(|argument| argument.value.words());
    let words: Vec<_> = words.map(Template::literal_text).collect();
    quote::words(words.iter().map(|word| &**word))
}

fn words(argv: &[Traced<String>]) -> String {
    quote::words(argv.iter().map(|word| word.value.as_str()))
}
