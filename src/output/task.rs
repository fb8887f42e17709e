// SPDX-License-Identifier: Apache-2.0
//! A step's command as something else runs it: as an argument vector for srun's tasks, or as one
//! line of shell for people's run scripts. Both mean what the [`StepSpec`] says.

use std::borrow::Cow;

use super::quote;
use crate::plan::Cleared;
use crate::plan::role::Share;
use crate::plan::step::{Number, OF_RANKS, ONE_EACH, OwnGpus, StepSpec};
use crate::plan::template::{Part, Template};

/// Texts of secrets travel in variables of this name and a number: an environment is seen by its
/// owner alone, arguments by everybody.
pub const SECRET: &str = "DISAGG_SECRET_";

/// What srun is given to run. The slots of a role's spec are left as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Variables that srun, and so each task, has in its environment.
    pub environment: Vec<(Cow<'static, str>, Template)>,
    /// The arguments of [`START_COMMAND`](crate::plan::step::START_COMMAND) before the command.
    pub start: [Template; 3],
    /// The command.
    pub argv: Vec<Template>,
}

/// Runs, of two commands, the first on a step's first node and the second on its others: arguments
/// are the number of the first's words, and both.
const BY_NODE_SH: &str = r#"words=$1; shift; all=$#
if [ "${SLURM_NODEID:-0}" -ne 0 ]; then shift "$words"; exec "$@"; fi
for word; do [ "$words" -eq 0 ] || { set -- "$@" "$word"; words=$((words - 1)); }; done
shift "$all"; exec "$@""#;

/// The command of a step.
pub fn task(spec: &StepSpec<'_>) -> Task {
    let own = spec.set.iter().filter(|variable| variable.is_own);
    let own = own.map(|variable| (Cow::Owned(variable.name.to_owned()), variable.value.clone()));
    // Slurm sets the list of GPUs in the task, after all that srun has.
    let number = |number: u32| Template::literal(&number.to_string());
    let (first, share) = match &spec.own_gpus {
        Some(OwnGpus { first, share }) => (first.clone(), *share),
        None => (number(0), Share::Gpus(0)),
    };
    let share = match share {
        Share::Gpus(count) => number(count),
        Share::OfRanks => Template::literal(OF_RANKS),
        Share::OneEach => Template::literal(ONE_EACH),
    };
    let ranks: Vec<_> = spec.ranks.iter().map(u32::to_string).collect();
    let start = [Template::literal(&ranks.join(",")), first, share];
    let mut environment: Vec<_> = own.collect();
    let argv = match spec.script {
        Some(script) => {
            environment.extend(shell_command(spec));
            ["bash", script].map(Template::literal).into()
        }
        None => {
            let clear = spec
                .cleared
                .map(|cleared| ["sh", "-c", &clear_sh(cleared), "sh"].map(Template::literal));
            let mut argv: Vec<_> = clear.into_iter().flatten().collect();
            argv.extend(env_command(spec, &mut environment));
            argv
        }
    };
    Task { environment, start, argv }
}

/// Removes families of variables in the task, where Slurm has set them, and runs its arguments: in
/// POSIX shell, with no program but `env`.
fn clear_sh(cleared: &Cleared) -> String {
    // A line of a value may look like a variable: one that begins so is removed anyway.
    format!(
        r#"set -f; IFS='
'
for disagg_name in $(env); do
    disagg_name=${{disagg_name%%=*}}
    case $disagg_name in
    *[!A-Za-z0-9_]* | {}) ;;
    {}*) unset "$disagg_name" ;;
    esac
done
exec "$@""#,
        cleared.except.join(" | "),
        cleared.prefixes.join("* | ")
    )
}

/// The command in words that need no shell of the caller's.
fn env_command(
    spec: &StepSpec<'_>,
    environment: &mut Vec<(Cow<'static, str>, Template)>,
) -> Vec<Template> {
    let mut argv = Vec::new();
    if !spec.numbers.is_empty() {
        let set: Vec<_> = spec.numbers.iter().map(number_sh).collect();
        let script = format!("export {}; exec \"$@\"", set.join(" "));
        argv.extend(["sh", "-c", &script, "sh"].map(Template::literal));
    }
    let env = EnvCommand::new(spec, environment);
    let own = env.before(&spec.argv);
    if let Some(followers) = &spec.followers {
        let words = own.len().to_string();
        argv.extend(["sh", "-c", BY_NODE_SH, "sh", &words].map(Template::literal));
        argv.extend(own);
        argv.extend(env.before(followers));
    } else {
        argv.extend(own);
    }
    argv
}

/// An assignment that a POSIX shell computes.
fn number_sh(number: &Number) -> String {
    let Number { name, variable, times, plus, of } = number;
    if !of.is_empty() {
        let of = quote::words(of.iter().map(String::as_str));
        return format!("{name}=$(set -- {of}; shift \"${{{variable}:-0}}\"; echo \"$1\")");
    }
    format!("{name}=$(( ${{{variable}:-0}} * {times} + {plus} ))")
}

/// `env` changes to the directory, removes and sets the variables, and expands in each task what
/// refers to others: all at a time, before it removes or sets any.
struct EnvCommand<'s> {
    cwd: &'s str,
    unset: Vec<Cow<'s, str>>,
    /// Assignments in the language of `env -S`, those that it has to expand.
    split: Vec<Template>,
    /// The others, in that language and as they are.
    literal: Vec<(Template, Template)>,
}

impl<'s> EnvCommand<'s> {
    fn new(spec: &'s StepSpec<'_>, environment: &mut Vec<(Cow<'static, str>, Template)>) -> Self {
        let unset = spec.unset.iter().map(|name| Cow::Borrowed(*name)).collect();
        let mut env = Self { cwd: spec.cwd, unset, split: Vec::new(), literal: Vec::new() };
        for variable in &spec.set {
            let name = variable.name;
            if variable.is_secret {
                let value = hidden(&variable.value, environment, &mut env.unset);
                env.split.push(env_split(name, &value));
            } else if variable.value.is_literal() {
                let mut assignment = Template::literal(&format!("{name}="));
                assignment.push(&variable.value);
                env.literal.push((env_split(name, &variable.value), assignment));
            } else {
                env.split.push(env_split(name, &variable.value));
            }
        }
        env
    }

    /// The words that run a command so.
    fn before(&self, command: &[Template]) -> Vec<Template> {
        let mut argv: Vec<_> = ["env", "-C", self.cwd].map(Template::literal).into();
        for name in &self.unset {
            argv.extend(["-u", name].map(Template::literal));
        }
        // What stands before a word that `env` expands is read by it too.
        let expanded = command.iter().rposition(|word| !word.is_literal()).map_or(0, |at| at + 1);
        let mut split = self.split.clone();
        if expanded > 0 {
            split.extend(self.literal.iter().map(|(split, _)| split.clone()));
            split.extend(command[..expanded].iter().map(env_word));
        }
        if !split.is_empty() {
            let mut joined = Template::default();
            for (at, word) in split.iter().enumerate() {
                joined.push_text(if at > 0 { " " } else { "" });
                joined.push(word);
            }
            argv.extend([Template::literal("-S"), joined]);
        }
        if expanded == 0 {
            argv.extend(self.literal.iter().map(|(_, assignment)| assignment.clone()));
        }
        argv.extend(command[expanded..].iter().cloned());
        argv
    }
}

/// A value whose texts are replaced by references to variables that hold them, and that are removed
/// from the task's environment.
fn hidden(
    value: &Template,
    environment: &mut Vec<(Cow<'static, str>, Template)>,
    unset: &mut Vec<Cow<'_, str>>,
) -> Template {
    let mut shown = Template::default();
    let mut text = String::new();
    let mut flush = |text: &mut String, shown: &mut Template| {
        if !text.is_empty() {
            let number = environment.iter().filter(|(name, _)| name.starts_with(SECRET)).count();
            let name = format!("{SECRET}{number}");
            shown.push_variable(&name);
            unset.push(Cow::Owned(name.clone()));
            environment.push((Cow::Owned(name), Template::literal(text)));
            text.clear();
        }
    };
    for part in value.parts() {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Variable(name) => {
                flush(&mut text, &mut shown);
                shown.push_variable(name);
            }
            Part::Slot(slot) => {
                flush(&mut text, &mut shown);
                shown.push_slot(slot);
            }
        }
    }
    flush(&mut text, &mut shown);
    shown
}

/// An assignment in the language of `env -S` (coreutils 8.30): double quotes, backslashes,
/// `${NAME}`.
fn env_split(name: &str, value: &Template) -> Template {
    let mut text = Template::literal(&format!("{name}="));
    text.push(&env_word(value));
    text
}

/// A word in that language.
fn env_word(value: &Template) -> Template {
    let mut text = Template::literal("\"");
    for part in value.parts() {
        match part {
            Part::Variable(name) => text.push_text(&format!("${{{name}}}")),
            Part::Slot(slot) => text.push_slot(slot),
            Part::Text(piece) => {
                let escaped = piece.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
                text.push_text(&escaped);
            }
        }
    }
    text.push_text("\"");
    text
}

/// The variables by which a shell runs the step's command, that of the command the last of them. The shell has
/// the environment around the step; the command changes to the directory, removes and sets the
/// variables and runs the program. A shell that traces what it runs prints no secret: `env` sets them.
pub fn shell_command(spec: &StepSpec<'_>) -> Vec<(Cow<'static, str>, Template)> {
    let mut environment = Vec::new();
    let text = if spec.set.iter().any(|variable| variable.is_secret) {
        let mut text = cleared(spec);
        text.push(&joined(&env_command(spec, &mut environment)));
        text
    } else {
        shell_text(spec)
    };
    environment.push((Cow::Borrowed(spec.command_variable), text));
    environment
}

/// Words of shell.
fn joined(argv: &[Template]) -> Template {
    let mut text = Template::default();
    for (at, argument) in argv.iter().enumerate() {
        text.push_text(if at > 0 { " " } else { "" });
        text.push(&quote::written(argument));
    }
    text
}

/// Removes families of variables in bash, before the command. Run scripts evaluate it without quotes:
/// it has no pattern that could match a file.
fn cleared(spec: &StepSpec<'_>) -> Template {
    let Some(Cleared { prefixes, except }) = spec.cleared else { return Template::default() };
    let families: Vec<_> = prefixes.iter().map(|prefix| format!("${{!{prefix}@}}")).collect();
    Template::literal(&format!(
        "for disagg_name in {}; do [[ $disagg_name =~ ^({})$ ]] || unset $disagg_name; done && ",
        families.join(" "),
        except.join("|")
    ))
}

fn shell_text(spec: &StepSpec<'_>) -> Template {
    let mut text = Template::literal(&format!("cd {} && ", quote::word(spec.cwd)));
    for number in &spec.numbers {
        text.push_text(&format!("{} && ", number_sh(number)));
    }
    if !spec.unset.is_empty() {
        text.push_text(&format!("unset {} && ", spec.unset.join(" ")));
    }
    text.push(&cleared(spec));
    match &spec.followers {
        None => text.push(&assigned(spec, &spec.argv)),
        Some(followers) => {
            text.push_text("if [ \"${SLURM_NODEID:-0}\" -eq 0 ]; then ");
            text.push(&assigned(spec, &spec.argv));
            text.push_text("; else ");
            text.push(&assigned(spec, followers));
            text.push_text("; fi");
        }
    }
    text
}

/// A command with the step's variables before it, in shell.
fn assigned(spec: &StepSpec<'_>, argv: &[Template]) -> Template {
    let mut text = Template::default();
    let mut seen = std::collections::HashSet::new();
    let is_in_order = spec.set.iter().all(|variable| {
        let is_late = variable.value.variables().any(|name| seen.contains(name));
        seen.insert(variable.name);
        !is_late
    });
    // `export` expands all its arguments before it sets any; assignments take effect one by one.
    if !is_in_order {
        text.push_text("(export ");
    }
    for variable in &spec.set {
        text.push_text(&format!("{}=", variable.name));
        text.push(&quote::assigned(&variable.value));
        text.push_text(" ");
    }
    if !is_in_order {
        text.push_text("&& ");
    }
    text.push(&joined(argv));
    if !is_in_order {
        text.push_text(")");
    }
    text
}
