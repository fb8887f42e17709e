// SPDX-License-Identifier: Apache-2.0
//! The scripts of a submission: the prefix (what Slurm is asked for, and the exports that run
//! scripts know) and the launch script, which starts, watches and ends the steps.
//!
//! The launch script needs nothing but bash 4.4, srun and scontrol in the job.

use std::borrow::Cow;
use std::fmt::Write;

use super::quote;
use crate::plan::command::JUNIT_OPTION;
use crate::plan::instance::own_file;
use crate::plan::rules::CommandText;
use crate::plan::template::Part;
use crate::plan::{Container, Env, Instance, Job, Plan, Role, RoleKind, Template, Traced};
use crate::slurm::argument::ArgumentError;
use crate::slurm::sbatch::SbatchRequest;
use crate::slurm::time::TimeError;

/// A job as sbatch is asked for it.
///
/// # Errors
/// A time limit that Slurm does not know; `input` lets none into a plan.
pub fn sbatch_request(job: &Job) -> Result<SbatchRequest, ScriptError> {
    let text = |value: &Option<Traced<String>>| value.as_ref().map(|value| value.value.clone());
    Ok(SbatchRequest {
        output: Some(job.output.value.clone()),
        nodes: Some(job.nodes.value),
        ntasks: Some(job.ntasks.value),
        ntasks_per_node: Some(job.ntasks_per_node.value),
        gpus_per_node: Some(job.gpus_per_node.value),
        partition: text(&job.partition),
        account: text(&job.account),
        job_name: Some(job.name.value.clone()),
        time: Some(job.time.value.parse()?),
        segment: job.segment.as_ref().map(|segment| segment.value),
    })
}

/// Why a script cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    /// A value that Slurm's command line cannot hold.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A time limit that Slurm does not know.
    #[error(transparent)]
    Time(#[from] TimeError),
}

/// The arguments that run a step in the container, in order.
pub fn container_arguments(plan: &Plan) -> Vec<Template> {
    let Some(Container { name, image, workdir, mounts }) = &plan.container else {
        return Vec::new();
    };
    let mut container_name = Template::literal("--container-name=");
    container_name.push(name);
    let mounts: Vec<_> = mounts.iter().map(|mount| mount.value.as_str()).collect();
    let literal = |option: &str, value: &str| Template::literal(&format!("--{option}={value}"));
    [
        container_name,
        literal("container-image", &image.value),
        literal("container-workdir", &workdir.value),
        literal("container-mounts", &mounts.join(",")),
    ]
    .into_iter()
    .chain(plan.container_env.iter().map(|name| literal("container-env", name)))
    .collect()
}

/// The shell text of a role's command: `unset … && export … && NAME=VALUE … COMMAND …`.
pub fn command_text(role: &Role) -> String {
    let mut text = String::new();
    if !role.unset.is_empty() {
        let names: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
        let _ = write!(text, "unset {} && ", names.join(" "));
    }
    if !role.export.is_empty() {
        let _ = write!(text, "export {} && ", assigned_command(&role.export, []));
    }
    text + &assigned_command(&role.env, &role.argv)
}

/// `NAME=VALUE … COMMAND …` as shell text.
fn assigned_command<'a>(env: &Env, argv: impl IntoIterator<Item = &'a Traced<String>>) -> String {
    env.iter()
        .map(|(name, value)| format!("{name}={}", quote::assigned(&value.value)))
        .chain(argv.into_iter().map(|argument| quote::word(&argument.value).into_owned()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The base command as shell text.
fn base_command(plan: &Plan, with_launcher: bool) -> String {
    let base = &plan.base_command;
    let (wrappers, argv) = base.argv.split_at(base.launcher_at);
    let launcher = with_launcher.then_some(&base.launcher);
    assigned_command(&base.env, wrappers.iter().chain(launcher).chain(argv))
}

/// What drafts, run scripts and install scripts know by name, in the prefix's order.
pub fn exports(plan: &Plan) -> [(&'static str, String); 7] {
    let workspace = plan.workspace.trim_end_matches('/');
    [
        ("jobWorkspace", format!("{workspace}/disagg_workspace")),
        ("llmSrcNode", plan.source_dir.clone()),
        ("stageName", format!("disagg_perf_test_{}", plan.test.config)),
        ("perfMode", "true".to_owned()),
        ("resourcePathNode", plan.source_dir.clone()),
        ("pytestCommand", base_command(plan, plan.llmapi_launch)),
        ("coverageConfigFile", format!("{workspace}/coverage_config.json")),
    ]
}

/// `slurm_launch_prefix.sh`.
///
/// # Errors
/// [`ScriptError`]; no plan that `input` made gives one.
pub fn prefix(plan: &Plan) -> Result<String, ScriptError> {
    let mut script = String::from("#!/bin/bash\n");
    script.push_str(&sbatch_request(&plan.job)?.directives()?);
    script.push_str(
        r#"
set -xEeuo pipefail
trap 'echo "${BASH_SOURCE[0]}:${LINENO}: error: \`${BASH_COMMAND}\` exited with status $?" >&2' ERR

"#,
    );
    for (name, value) in exports(plan) {
        let _ = writeln!(script, "export {name}={}", quote::double(&value));
    }
    script.push_str("export NVIDIA_IMEX_CHANNELS=\"${NVIDIA_IMEX_CHANNELS:-0}\"\n");
    let _ = write!(
        script,
        r#"if [[ -z "${{NVIDIA_VISIBLE_DEVICES:-}}" ]]; then
    gpus="$({{ nvidia-smi -L 2>/dev/null || true; }} | grep -c '^GPU ' || true)"
    [[ "${{gpus}}" -gt 0 ]] || gpus={}
    NVIDIA_VISIBLE_DEVICES="$(seq -s, 0 $((gpus - 1)))"
fi
export NVIDIA_VISIBLE_DEVICES
"#,
        plan.layout.gpus_per_node
    );
    Ok(script)
}

/// `slurm_launch_generated.sh`.
///
/// # Errors
/// As [`prefix`].
pub fn launch(plan: &Plan) -> Result<String, ScriptError> {
    let mut script = prefix(plan)?;
    script.push('\n');
    for (name, value) in plan.job_env.iter() {
        let _ = writeln!(script, "export {name}={}", quote::template(&value.value));
    }
    let secret = has_secrets(plan);
    let rule = plan.rules.rules().test(plan.test.kind);
    let commands = rule.map_or(&[][..], |rule| rule.commands);
    let mut commands = command_variables(plan, commands);
    commands.extend(command_variables(plan, rule.map_or(&[], |rule| rule.precheck_commands)));
    quietly(secret, &mut script, |script| {
        for (name, text) in commands {
            let _ = writeln!(script, "export {name}={}", quote::double(&text));
        }
    });
    for (name, path) in [("runScript", &plan.run_script), ("installScript", &plan.install_script)] {
        let _ = writeln!(script, "export {name}={}", quote::double(path.as_deref().unwrap_or("")));
    }
    for (name, value) in plan.ordered_variables() {
        let _ = writeln!(script, "export {name}={}", quote::word(value));
    }
    script.push_str("srunArgs=(\n");
    for argument in container_arguments(plan) {
        let _ = writeln!(script, "    {}", quote::template(&argument));
    }
    script.push_str(")\n");
    script.push_str(WATCH);
    let _ = write!(
        script,
        r#"
mapfile -t nodes < <(scontrol show hostnames "${{SLURM_JOB_NODELIST:?run this script in a job: sbatch $0}}")
if (( ${{#nodes[@]}} < totalNodes )); then
    echo "slurm-disagg: the job has ${{#nodes[@]}} nodes, the plan needs ${{totalNodes}}" >&2
    exit 1
fi
mkdir -p "${{jobWorkspace}}"
if [[ -n "${{installScript}}" ]]; then
    srun --nodes="${{totalNodes}}" --ntasks="${{totalNodes}}" --ntasks-per-node=1 --job-name=install --output={} "${{srunArgs[@]}}" bash "${{installScript}}"
fi
"#,
        quote::word(&in_workspace(plan, "install.log"))
    );
    script.push_str("\n# step NAME NODES HOSTS LOG: runs one step.\nstep() {\n");
    script.push_str("    case \"${1%%_[0-9]*}\" in\n");
    let prechecks = plan.prechecks().next().is_some();
    for (kind, role) in &plan.roles {
        if prechecks || kind.precheck_of().is_none() {
            script.push_str(&step_case(plan, *kind, role));
        }
    }
    script.push_str("    esac\n}\n\n");
    if prechecks {
        script.push_str(PRECHECK_FAILED);
        plan.prechecks().for_each(|instance| script.push_str(&start_line(&instance)));
        script.push_str(AWAIT_PRECHECKS);
    }
    plan.instances().for_each(|instance| script.push_str(&start_line(&instance)));
    script.push_str(END);
    Ok(script)
}

fn start_line(instance: &Instance<'_>) -> String {
    let gpus: Vec<_> = instance.own_gpus().map(|gpu| gpu.to_string()).collect();
    format!(
        "start {} {} {} {} {}\n",
        instance.name,
        instance.nodes.start,
        instance.nodes.len(),
        quote::word(&in_workspace(instance.plan, &instance.log_file())),
        quote::word(&gpus.join(",")),
    )
}

fn in_workspace(plan: &Plan, file: &str) -> String {
    format!("{}/{file}", plan.workspace.trim_end_matches('/'))
}

/// Variables that hold commands or parts of them, by the names that people's drafts know.
pub fn command_variables(
    plan: &Plan,
    variables: &[(&'static str, CommandText)],
) -> Vec<(&'static str, String)> {
    let text = |text: &CommandText| {
        Some(match text {
            CommandText::Empty => String::new(),
            CommandText::WithoutLauncher => base_command(plan, false),
            CommandText::Whole(kind) => {
                let role = role(plan, *kind)?;
                command_text(&role)
            }
            CommandText::WithoutOwnEnvironment(kind) => {
                assigned_command(&plan.base_command.env, &role(plan, *kind)?.argv)
            }
            CommandText::OwnEnvironment(kind) => {
                let role = role(plan, *kind)?;
                let of_base = |name: &str| plan.base_command.env.get(name).is_some();
                role.env
                    .iter()
                    .filter(|(name, _)| !of_base(name))
                    .map(|(name, value)| format!("{name}={}", quote::assigned(&value.value)))
                    .collect::<Vec<_>>()
                    .join(" ")
            }
        })
    };
    variables.iter().filter_map(|(name, what)| Some((*name, text(what)?))).collect()
}

/// A role of the plan. One of servers that the test has none of is made from its precheck, which
/// has the same environment, and from the other servers' command: drafts refer to it all the same.
fn role(plan: &Plan, kind: RoleKind) -> Option<Cow<'_, Role>> {
    if let Some(role) = plan.roles.get(&kind) {
        return Some(Cow::Borrowed(role));
    }
    let is_precheck = |(precheck, _): &(&RoleKind, &Role)| precheck.precheck_of() == Some(kind);
    let mut role = plan.roles.iter().find(is_precheck)?.1.clone();
    role.env = role.env.and_then(&plan.base_command.env);
    role.argv = plan.roles.get(&RoleKind::Gen)?.argv.clone();
    Some(Cow::Owned(role))
}

/// Starts, watches and ends steps. A server's end before the benchmark's ends the job.
///
/// Each step reports its end through one pipe: `wait -n` of bash misses children that end while
/// another command runs.
const WATCH: &str = r#"
exec {ended}<> <(:)
running=0

# start NAME FIRST_NODE NODES LOG GPUS: starts one step in the background.
start() {
    local name="$1" first="$2" count="$3" log="$4" gpus="$5" hosts
    hosts="$(IFS=,; echo "${nodes[*]:first:count}")"
    (
        trap - ERR TERM INT
        set +e
        [[ "${name}" == AGGREGATED ]] || export DISAGG_SERVING_TYPE="${name}"
        [[ -z "${gpus}" ]] || export CUDA_VISIBLE_DEVICES="${gpus}"
        (step "${name}" "${count}" "${hosts}" "${log}")
        echo "${name} $?" >&"${ended}"
    ) &
    running=$((running + 1))
}

# stop: asks the steps that still run to end, and waits half a minute; Slurm ends what is left.
stop() {
    scancel --signal=TERM "${SLURM_JOB_ID}" || true
    while (( running > 0 )) && read -r -t 30 _ <&"${ended}"; do
        running=$((running - 1))
    done
}

trap 'stop; exit 143' TERM INT
"#;

/// How a failed precheck is reported, in every script that runs them.
const PRECHECK_FAILED: &str = concat!("\n", include_str!("precheck_failed.sh"), "\n");

/// Waits until all prechecks have passed; no server starts otherwise.
const AWAIT_PRECHECKS: &str = r#"
deadline=$((SECONDS + ctPrecheckTimeout))
while (( running > 0 )); do
    if ! read -r -t "$(( deadline > SECONDS ? deadline - SECONDS : 1 ))" name status <&"${ended}"; then
        precheck_failed "it took more than ${ctPrecheckTimeout} seconds"
        stop
        exit 1
    fi
    running=$((running - 1))
    echo "slurm-disagg: ${name} ended with status ${status}" >&2
    if (( status != 0 )); then
        precheck_failed "${name} ended with status ${status}"
        stop
        exit 1
    fi
done

"#;

/// Waits until what measures ends, or a server does before it.
const END: &str = r#"
read -r name status <&"${ended}"
running=$((running - 1))
if [[ "${name}" == BENCHMARK || "${name}" == AGGREGATED ]]; then
    echo "slurm-disagg: ${name} ended with status ${status}" >&2
else
    echo "slurm-disagg: ${name} ended before the benchmark, with status ${status}: ending the job" >&2
    status=$(( status > 0 ? status : 1 ))
fi
stop
exit "${status}"
"#;

/// How one step of a kind is run, as a case of the function `step`.
fn step_case(plan: &Plan, kind: RoleKind, role: &Role) -> String {
    let step = &role.step;
    let mut srun = vec![
        "--nodes=\"$2\"".to_owned(),
        format!("--ntasks={}", step.tasks),
        "--nodelist=\"$3\"".to_owned(),
        format!("--distribution=plane={}", step.tasks_per_node),
    ];
    srun.extend(step.mpi.as_ref().map(|mpi| quote::word(&format!("--mpi={mpi}")).into_owned()));
    srun.extend(step.overlap.then(|| "--overlap".to_owned()));
    srun.extend(step.kill_on_bad_exit.then(|| "--kill-on-bad-exit=1".to_owned()));
    srun.extend(["--job-name=\"$1\"".to_owned(), "--output=\"$4\"".to_owned()]);
    let srun = srun.join(" ");

    let mut lines = format!("    {kind})\n");
    // A run script is made for the test's own steps.
    let command = match plan.run_script.as_ref().filter(|_| kind.precheck_of().is_none()) {
        Some(_) => {
            quietly(secrets(plan, role).next().is_some(), &mut lines, |lines| {
                let text = command_text(&instance_role(role));
                let _ = writeln!(lines, "        export pytestCommand={}", with_name(&text));
            });
            "bash \"${runScript}\"".to_owned()
        }
        None => {
            quietly(secrets(plan, role).next().is_some(), &mut lines, |lines| {
                for (name, value) in secrets(plan, role) {
                    let _ =
                        writeln!(lines, "        export {name}={}", quote::template(&value.value));
                }
            });
            let command = env_command(&instance_role(role), &plan.secrets);
            command.iter().map(|argument| with_name(argument)).collect::<Vec<_>>().join(" ")
        }
    };
    if command.contains("'") && command.contains('$') {
        lines.push_str("        # shellcheck disable=SC2016  # each rank expands it\n");
    }
    let _ = writeln!(lines, "        exec srun {srun} \"${{srunArgs[@]}}\" {command}\n        ;;");
    lines
}

/// Stands for the instance's name until the text is quoted; no input has control characters.
const NAME: &str = "\u{1}";

/// A role whose own files are named after an instance that is not known yet.
fn instance_role(role: &Role) -> Role {
    let mut role = role.clone();
    for argument in &mut role.argv {
        if let Some(path) = argument.value.strip_prefix(JUNIT_OPTION) {
            argument.value = format!("{JUNIT_OPTION}{}", own_file(path, NAME));
        }
    }
    role
}

/// A word in which the step function's first argument takes the place of the instance's name.
fn with_name(text: &str) -> String {
    let pieces = text.split(NAME).map(|piece| match piece {
        "" => "".into(),
        _ => quote::word(piece),
    });
    match text {
        "" => "''".to_owned(),
        _ => pieces.collect::<Vec<_>>().join("\"$1\""),
    }
}

/// The variables of a role whose values are never shown: not by `set -x`, and not as arguments of
/// a process, which every user of a node can see.
fn secrets<'a>(
    plan: &'a Plan,
    role: &'a Role,
) -> impl Iterator<Item = (&'a str, &'a Traced<Template>)> {
    role.env.iter().filter(|(name, _)| plan.secrets.iter().any(|secret| secret == name))
}

/// Whether a command of the plan has a variable whose value is never shown.
pub fn has_secrets(plan: &Plan) -> bool {
    plan.roles.values().any(|role| secrets(plan, role).next().is_some())
}

/// Writes lines that `set -x` must not print, where there is a secret in them.
pub(super) fn quietly(secret: bool, script: &mut String, write: impl FnOnce(&mut String)) {
    if secret {
        script.push_str("{ set +x; } 2>/dev/null\n");
    }
    write(script);
    if secret {
        script.push_str("set -x\n");
    }
}

/// A role's command as an argument vector: `env` changes to its directory, removes and sets its
/// variables, and expands those that refer to others in each rank.
///
/// Variables that are secret are left out: they travel in the environment.
pub fn env_command(role: &Role, secrets: &[String]) -> Vec<String> {
    let mut command = vec!["env".to_owned(), "-C".to_owned(), role.cwd.clone()];
    for name in &role.unset {
        command.extend(["-u".to_owned(), name.value.clone()]);
    }
    let environment = role.environment();
    let shown = environment.iter().filter(|(name, _)| !secrets.iter().any(|secret| secret == name));
    let (literal, referring): (Vec<_>, Vec<_>) =
        shown.partition(|(_, value)| value.value.is_literal());
    if !referring.is_empty() {
        let split = referring.iter().map(|(name, v)| format!("{name}={}", env_split(&v.value)));
        command.extend(["-S".to_owned(), split.collect::<Vec<_>>().join(" ")]);
    }
    command.extend(
        literal.into_iter().map(|(name, v)| format!("{name}={}", v.value.expand(|_| None))),
    );
    command.extend(role.argv.iter().map(|argument| argument.value.clone()));
    command
}

/// A template in the language of `env -S` (coreutils 8.30): double quotes, backslashes, `${NAME}`.
fn env_split(value: &Template) -> String {
    let mut text = String::from("\"");
    for part in value.parts() {
        match part {
            Part::Variable(name) => {
                let _ = write!(text, "${{{name}}}");
            }
            Part::Text(piece) => {
                for c in piece.chars() {
                    if matches!(c, '"' | '\\' | '$') {
                        text.push('\\');
                    }
                    text.push(c);
                }
            }
        }
    }
    text.push('"');
    text
}
