// SPDX-License-Identifier: Apache-2.0
//! The scripts of a submission: the prefix (what Slurm is asked for, and the exports that run
//! scripts know) and the launch script, which starts, watches and ends the steps.
//!
//! The launch script needs nothing but bash 4.4, srun and scontrol in the job.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::exports::{self, exports};
use super::task::task;
use super::{files, quote};
use crate::plan::role::{Deal, NO_MPI};
use crate::plan::step::{self, START, START_COMMAND, START_SH, compose};
use crate::plan::{Container, GpuRequest, Instance, Job, Plan, Purpose, Role, Template};
use crate::slurm::argument::ArgumentError;
use crate::slurm::counts::TOTAL_GPUS;
use crate::slurm::inherited::{OF_THE_JOB, PREFIXES_OF_STEPS};
use crate::slurm::sbatch::SbatchRequest;
use crate::slurm::time::TimeError;

/// A job as sbatch is asked for it.
///
/// # Errors
/// A time limit that Slurm does not know; `input` lets none into a plan.
pub fn sbatch_request(job: &Job) -> Result<SbatchRequest, ScriptError> {
    let gpus = job.gpus_per_node.value;
    let asked = |how| (job.gpu_request.value == how).then_some(gpus);
    Ok(SbatchRequest {
        output: Some(job.output.value.clone()),
        nodes: Some(job.nodes.value),
        ntasks: Some(job.ntasks.value),
        ntasks_per_node: Some(job.ntasks_per_node.value),
        gpus: asked(GpuRequest::Total).map(|gpus| gpus.saturating_mul(job.nodes.value)),
        gpus_per_node: asked(GpuRequest::PerNode).or(asked(GpuRequest::Total)),
        gres: asked(GpuRequest::Gres).map(|gpus| format!("gpu:{gpus}")),
        texts: job.texts().map(|(name, text)| (name, text.value.clone())).collect(),
        exclusive: job.exclusive.as_ref().is_some_and(|exclusive| exclusive.value),
        job_name: Some(job.name.value.clone()),
        time: Some(job.time.value.parse()?),
        segment: job.segment.as_ref().map(|segment| segment.value),
        extra: job.sbatch_args.iter().map(|argument| argument.value.clone()).collect(),
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
    /// A role whose nodes do not have the same number of tasks: the script has no host files.
    #[error(
        "the tasks of {0} are not spread as the script of the launcher bash can say: use the launcher native"
    )]
    Deal(String),
}

/// A mount that only the step that unpacks the image has: it is there in the container alone.
pub const CONTAINER_MARK: &str = "/run/slurm-disagg-container";

/// What that step runs on each node. A node without the container plugin would run the servers on
/// the host, and the test could pass there.
pub const IN_CONTAINER_SH: &str = r#"test -d /run/slurm-disagg-container || {
    echo "slurm-disagg: $SLURMD_NODENAME runs the step outside of the container: check the container plugin (pyxis) in its plugstack.conf" >&2
    exit 1
}"#;

/// The arguments that run a step in the container, in order; with the workspace mounted at `mark`
/// too, where one is given.
pub fn container_arguments(plan: &Plan, mark: Option<&str>) -> Vec<Template> {
    let Some(Container { name, image, workdir, mounts }) = &plan.container else {
        return Vec::new();
    };
    let mut container_name = Template::literal("--container-name=");
    container_name.push(name);
    let mark = mark.map(|mark| format!("{}:{mark}", plan.workspace));
    let mounts: Vec<_> = mounts.iter().map(|mount| mount.value.clone()).chain(mark).collect();
    let literal = |option: &str, value: &str| Template::literal(&format!("--{option}={value}"));
    let mut arguments = vec![
        container_name,
        literal("container-image", &image.value),
        literal("container-workdir", &workdir.value),
        literal("container-mounts", &mounts.join(",")),
    ];
    let container_env: Vec<&str> =
        plan.container_env.iter().map(String::as_str).chain(plan.run_token()).collect();
    if !container_env.is_empty() {
        // Of several such options pyxis takes the last one alone.
        arguments.push(literal("container-env", &container_env.join(",")));
    }
    arguments
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
    exports::write(&mut script, exports::prefix(plan));
    for (name, value) in step::FOR_CONTAINERS {
        let _ = writeln!(script, "export {name}=\"${{{name}:-{value}}}\"");
    }
    Ok(script)
}

/// `slurm_launch_generated.sh`.
///
/// # Errors
/// As [`prefix`].
pub fn launch(plan: &Plan) -> Result<String, ScriptError> {
    let mut script = prefix(plan)?;
    script.push('\n');
    exports::write(&mut script, exports(plan));
    if let Some(token) = plan.run_token() {
        // A job that is requeued runs the test again, and so does a second start of this script.
        let _ = writeln!(
            script,
            "export {token}=\"${{SLURM_JOB_ID:-local}}.${{SLURM_RESTART_COUNT:-0}}.$$\""
        );
    }
    for (name, mark) in [("srunArgs", None), ("unpackArgs", Some(CONTAINER_MARK))] {
        let _ = writeln!(script, "{name}=(");
        for argument in container_arguments(plan, mark) {
            let _ = writeln!(script, "    {}", quote::template(&argument));
        }
        script.push_str(")\n");
    }
    exports::quietly(true, &mut script, |script| {
        let text = quote::word(START_SH);
        let _ = writeln!(
            script,
            "# shellcheck disable=SC2016  # each rank runs it\nexport {START}={text}"
        );
    });
    script.push_str(WATCH);
    let ends = ends(plan);
    let image = plan.container.as_ref().map(|container| format!(" {}", container.image.value));
    let image = image.unwrap_or_default();
    let _ = write!(
        script,
        r#"
mapfile -t nodes < <(scontrol show hostnames "${{SLURM_JOB_NODELIST:?run this script in a job: sbatch $0}}")
if (( ${{#nodes[@]}} < totalNodes )); then
    echo "slurm-disagg: too few nodes: the job has ${{#nodes[@]}}, the plan needs ${{totalNodes}}" >&2
    exit 1
fi
gpuArgs=()
if [[ -n "${{{TOTAL_GPUS}:-}}" ]]; then
    gpuArgs=(--gpus-per-node={gpus})
    if (( ${{SLURM_GPUS_ON_NODE:-{gpus}}} != {gpus} )); then
        echo "slurm-disagg: Slurm spreads the GPUs of --gpus=${{{TOTAL_GPUS}}} as it likes: a node of this job has ${{SLURM_GPUS_ON_NODE}}, the plan needs {gpus} of each; submit with --gpus-per-node={gpus}" >&2
        exit 1
    fi
fi
for name in $(compgen -e); do
    case "${{name}}" in
    {}) ;;
    {}) unset "${{name}}" ;;
    esac
done
cpus=()
cpusPerNode="${{SLURM_JOB_CPUS_PER_NODE:-}}"
for item in ${{cpusPerNode//,/ }}; do
    [[ "${{item}}" =~ ^([0-9]+)(\(x([0-9]+)\))?$ ]]
    for (( same = 0; same < ${{BASH_REMATCH[3]:-1}}; same++ )); do
        cpus+=("${{BASH_REMATCH[1]}}")
    done
done
for (( node = 0; node < totalNodes; node++ )); do
    if (( ${{cpus[node]:-{per_node}}} < {per_node} )); then
        echo "slurm-disagg: ${{nodes[node]}} has ${{cpus[node]}} CPUs in this job, the plan needs {per_node}: submit with --ntasks-per-node={per_node}" >&2
        exit 1
    fi
done
mkdir -p "${{jobWorkspace}}" {output_dir}
: >{started}
rm -f {ends}
# on_each_node NAME MESSAGE COMMAND: runs a command once on each node; says the message where it fails.
on_each_node() {{
    local log={workspace}/"$1".log status
    srun --nodes="${{totalNodes}}" --ntasks="${{totalNodes}}" --ntasks-per-node=1 --mpi={NO_MPI} {common} "${{gpuArgs[@]}}" --job-name="$1" {output} "${{@:3}}" >"${{log}}" || {{
        status=$?
        {{ set +x; }} 2>/dev/null
        tail -n 6 "${{log}}" >&2 || true
        echo "slurm-disagg: $2; all of its output is in ${{log}}" >&2
        exit "${{status}}"
    }}
}}
if (( ${{#unpackArgs[@]}} > 0 )); then
    # shellcheck disable=SC2016  # each node expands it
    on_each_node unpack {not_unpacked} "${{unpackArgs[@]}}" sh -c {in_container}
fi
if [[ -n "${{installScript}}" ]]; then
    on_each_node install "the install script failed" "${{srunArgs[@]}}" bash "${{installScript}}"
fi
"#,
        OF_THE_JOB.join(" | "),
        PREFIXES_OF_STEPS.map(|start| format!("{start}*")).join(" | "),
        gpus = plan.job.gpus_per_node.value,
        per_node = plan.job.ntasks_per_node.value,
        output_dir = quote::word(plan.output_dir()),
        started = quote::word(&below(&plan.workspace, files::STARTED)),
        ends = quote::words(ends.keys().map(String::as_str)),
        common = COMMON.join(" "),
        output = OUTPUT.join(" "),
        workspace = quote::word(plan.workspace.trim_end_matches('/')),
        in_container = quote::word(IN_CONTAINER_SH),
        not_unpacked = quote::word(&format!("the container image{image} was not unpacked")),
    );
    script.push_str("\n# step: runs the step of `start`.\nstep() {\n    case \"${role}\" in\n");
    for (name, role) in plan.roles.iter().filter(|(_, role)| role.count > 0) {
        script.push_str(&step_case(plan, name, role)?);
    }
    script.push_str("    esac\n}\n\n");
    if plan.checks().next().is_some() {
        script.push_str(PRECHECK_FAILED);
        plan.checks().for_each(|instance| script.push_str(&start_line(&instance)));
        script.push_str(AWAIT_PRECHECKS);
    }
    plan.instances().for_each(|instance| script.push_str(&start_line(&instance)));
    let clients = plan.instances().filter(|instance| instance.role.purpose == Purpose::Client);
    let clients: Vec<_> = clients.map(|instance| instance.name).collect();
    script.push_str("\n# may_end NAME: whether a server may end with status 0 now.\nmay_end() {\n    case \"$1\" in\n");
    for (file, names) in &ends {
        let _ = writeln!(script, "    {}) test -e {} ;;", names.join(" | "), quote::word(file));
    }
    script.push_str("    *) false ;;\n    esac\n}\n");
    script.push_str(&END.replace("CLIENTS", &clients.join("|")));
    Ok(script)
}

/// The files after which steps may end, with patterns of the steps' names.
fn ends(plan: &Plan) -> BTreeMap<String, Vec<String>> {
    let mut ends = BTreeMap::<_, Vec<_>>::new();
    for (name, role) in &plan.roles {
        if let Some(file) = &role.ends_after {
            let names = format!("{name}{}", if role.numbered { "_*" } else { "" });
            ends.entry(below(plan.output_dir(), file)).or_default().push(names);
        }
    }
    ends
}

fn start_line(instance: &Instance<'_>) -> String {
    let spec = step::resolve(instance, &[]);
    let own = |file: &Option<Template>| {
        let path = |file: &Template| below(instance.plan.output_dir(), &file.literal_text());
        quote::word(&file.as_ref().map(path).unwrap_or_default()).into_owned()
    };
    format!(
        "start {} {} {} {} {} {} {} {} {}\n",
        instance.role_name,
        instance.name,
        instance.index,
        instance.nodes.start,
        instance.nodes.len(),
        instance.gpus.start,
        quote::word(&below(&instance.plan.workspace, &spec.log_file())),
        own(&spec.test_log),
        own(&spec.done),
    )
}

fn below(directory: &str, file: &str) -> String {
    format!("{}/{file}", directory.trim_end_matches('/'))
}

/// Starts, watches and ends steps. A server's end before the benchmark's ends the job.
///
/// Each step reports its end through one pipe: `wait -n` of bash misses children that end while
/// another command runs.
const WATCH: &str = r#"
exec {ended}<> <(:)
running=0

# shellcheck disable=SC2034  # not every plan uses each of them
# start ROLE NAME INDEX FIRST_NODE NODES FIRST_GPU LOG TEST_LOG MARK: starts one step in the
# background. The test finds the log as TEST_LOG; MARK appears when nobody writes into it any more.
start() {
    local role="$1" name="$2" index="$3" first_node="$4" count="$5" first_gpu="$6" log="$7" hosts
    local test_log="$8" mark="$9"
    if [[ -n "${test_log}" ]]; then
        mkdir -p "${test_log%/*}"
        ln -sfn "${log}" "${test_log}"
    fi
    [[ -z "${mark}" ]] || rm -f "${mark}"
    hosts="$(IFS=,; echo "${nodes[*]:first_node:count}")"
    (
        trap - ERR TERM INT
        set +e
        (step)
        status=$?
        [[ -z "${mark}" ]] || : >"${mark}"
        echo "${name} ${status}" >&"${ended}"
    ) &
    running=$((running + 1))
}

# stop: asks the steps that still run to end, and waits half a minute; Slurm ends what is left.
stop() {
    scancel --signal=TERM "${SLURM_JOB_ID}" || true
    local deadline=$((SECONDS + 30))
    while (( running > 0 && SECONDS < deadline )) && read -r -t "$((deadline - SECONDS))" _ <&"${ended}"; do
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
while read -r name status <&"${ended}"; do
    running=$((running - 1))
    echo "slurm-disagg: ${name} ended with status ${status}" >&2
    case "${name}" in
    CLIENTS) break ;;
    esac
    if (( status > 0 )) || ! may_end "${name}"; then
        echo "slurm-disagg: ${name} ended before the benchmark did: ending the job" >&2
        status=$(( status > 0 ? status : 1 ))
        break
    fi
done
stop
exit "${status}"
"#;

/// What each step asks for and never inherits: the job's environment, and the job's memory on its
/// nodes, which steps that overlap can only share so.
pub const COMMON: [&str; 2] = ["--export=ALL", "--mem=0"];

/// srun opens what its own standard output is, so that no path goes through its file name patterns.
const OUTPUT: [&str; 2] = ["--output=/dev/fd/1", "--open-mode=append"];

/// How the steps of a role are run, as a case of the function `step`.
fn step_case(plan: &Plan, name: &str, role: &Role) -> Result<String, ScriptError> {
    let spec = compose(plan, role);
    let plane = spec.plane().filter(|_| role.step.deal == Deal::Filled);
    let plane = plane.ok_or_else(|| ScriptError::Deal(name.to_owned()))?;
    let step = &spec.step;
    let mut srun = vec![
        "--nodes=\"${count}\"".to_owned(),
        format!("--ntasks={}", step.tasks),
        "--nodelist=\"${hosts}\"".to_owned(),
        format!("--distribution=plane={plane}"),
    ];
    srun.push(quote::word(&format!("--mpi={}", step.mpi_type())).into_owned());
    srun.extend(step.cpu_bind().map(|how| format!("--cpu-bind={how}")));
    srun.extend(step.overlap.then(|| "--overlap".to_owned()));
    srun.extend(step.kill_on_bad_exit.then(|| "--kill-on-bad-exit=1".to_owned()));
    srun.extend(COMMON.map(str::to_owned));
    srun.push("\"${gpuArgs[@]}\"".to_owned());
    srun.extend(plan.job.srun_args.iter().map(|word| quote::word(&word.value).into_owned()));
    srun.push("--job-name=\"${name}\"".to_owned());
    srun.extend(OUTPUT.map(str::to_owned));
    let srun = srun.join(" ");

    let task = task(&spec);
    let mut lines = format!("    {name})\n");
    let secret = spec.set.iter().any(|variable| variable.is_secret);
    exports::quietly(secret, &mut lines, |lines| {
        for (name, value) in &task.environment {
            let _ = writeln!(lines, "        export {name}={}", quote::template(value));
        }
    });
    let start = START_COMMAND.map(Template::literal);
    let words = start.iter().chain(&task.start).chain(&task.argv);
    let words = words.map(|word| quote::shell(&quote::written(word)));
    let command = words.collect::<Vec<_>>().join(" ");
    lines.push_str("        # shellcheck disable=SC2016  # each rank expands it\n");
    let _ = writeln!(
        lines,
        "        exec srun {srun} \"${{srunArgs[@]}}\" {command} >\"${{log}}\"\n        ;;"
    );
    Ok(lines)
}
