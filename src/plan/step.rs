// SPDX-License-Identifier: Apache-2.0
//! The one place where a step is composed. The batch script, srun's command line, the SPANK
//! plugin's environment, the C library's structs and the tables are renderers of a [`StepSpec`];
//! none of them decides anything.

use std::borrow::Cow;
use std::ops::Range;

use super::Plan;
use super::health::Ready;
use super::instance::Instance;
use super::origin::Origin;
use super::role::{Purpose, Role, Step};
use super::template::{Part, Slot, Template};

/// The variable that tells a step which role it plays.
pub const SERVING_TYPE: &str = "DISAGG_SERVING_TYPE";

/// All that a step is started with.
#[derive(Debug, Clone, PartialEq)]
pub struct StepSpec<'p> {
    /// The size and the flags of the Slurm step.
    pub step: &'p Step,
    /// Variables that are removed from the environment of its tasks.
    pub unset: Vec<&'p str>,
    /// Variables that are set then, all at a time: references are to the task's environment as it
    /// is before any of them is set. A removed name that is referred to counts as empty.
    pub set: Vec<Variable<'p>>,
    /// The GPUs that are its own where it shares its node: places in the list of GPUs that Slurm
    /// gives its tasks.
    pub own_gpus: Option<OwnGpus>,
    /// The command.
    pub argv: Vec<Template>,
    /// The working directory.
    pub cwd: &'p str,
    /// The user's script that is run in place of the command; it finds the command in a variable.
    pub script: Option<&'p str>,
    /// The file in the workspace that its output goes to.
    pub log: Template,
    /// The JUnit file that its command writes.
    pub junit: Option<Template>,
    /// How it is seen to be ready.
    pub ready: Option<Ready>,
}

/// The GPUs of a step that shares its node.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnGpus {
    /// The place of the first.
    pub first: Template,
    /// How many.
    pub count: u32,
}

/// A variable of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Variable<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its value.
    pub value: Template,
    /// Where it comes from.
    pub origin: Cow<'p, Origin>,
    /// Whether it is the instance's own, not its role's.
    pub is_own: bool,
    /// Whether its value must not be seen by anybody else.
    pub is_secret: bool,
}

/// The step of an instance.
pub fn resolve<'p>(instance: &Instance<'p>) -> StepSpec<'p> {
    let (index, first_gpu) = (instance.index.to_string(), instance.gpus.start.to_string());
    let text = |slot| match slot {
        Slot::Name => instance.name.as_str(),
        Slot::Index => index.as_str(),
        Slot::FirstGpu => first_gpu.as_str(),
    };
    let fill = |template: &mut Template| {
        *template = template.replace(|part| match part {
            Part::Slot(slot) => Some(Template::literal(text(slot))),
            _ => None,
        });
    };
    let mut spec = compose(instance.plan, instance.role);
    spec.set.iter_mut().for_each(|variable| fill(&mut variable.value));
    spec.argv.iter_mut().for_each(fill);
    fill(&mut spec.log);
    spec.junit.iter_mut().for_each(fill);
    spec.own_gpus.iter_mut().for_each(|gpus| fill(&mut gpus.first));
    spec.ready.iter_mut().for_each(|ready| ready.resolve(&instance.plan.roles, fill));
    spec
}

/// The step of any instance of a role: what differs between instances is left as slots.
pub fn compose<'p>(plan: &'p Plan, role: &'p Role) -> StepSpec<'p> {
    let own = &role.own.env;
    let unset: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
    let variable = |name, value, origin, is_own| {
        let is_secret = plan.is_secret(name);
        Variable { name, value, origin: Cow::Borrowed(origin), is_own, is_secret }
    };
    let mut set: Vec<_> = own
        .iter()
        .map(|(name, own)| variable(name, own.value.clone(), &own.origin, true))
        .collect();
    let exported = role.export.iter().filter(|(name, _)| role.env.get(name).is_none());
    for (name, planned) in exported.chain(role.env.iter()) {
        if own.get(name).is_none() {
            let value = planned.value.replace(|part| match part {
                Part::Variable(name) if unset.contains(&name) => Some(Template::default()),
                Part::Variable(name) => own.get(name).cloned(),
                _ => None,
            });
            set.push(variable(name, value, &planned.origin, false));
        }
    }
    let argument = |(at, argument): (usize, &super::Traced<String>)| match role.own.args.get(&at) {
        Some(own) => own.clone(),
        None => Template::literal(&argument.value),
    };
    let mut first_gpu = Template::default();
    first_gpu.push_slot(Slot::FirstGpu);
    StepSpec {
        step: &role.step,
        unset,
        set,
        own_gpus: role.own.gpus.then_some(OwnGpus { first: first_gpu, count: role.gpus }),
        argv: role.argv.iter().enumerate().map(argument).collect(),
        cwd: &role.cwd,
        // A run script is made for the test's own steps.
        script: plan.run_script.as_deref().filter(|_| role.purpose != Purpose::Check),
        log: role.own.log.clone(),
        junit: role.own.junit.clone(),
        ready: role.ready.clone(),
    }
}

impl StepSpec<'_> {
    /// The command with what differs from task to task left as references.
    pub fn arguments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.argv.iter().map(Template::literal_text)
    }

    /// The log's name.
    pub fn log_file(&self) -> Cow<'_, str> {
        self.log.literal_text()
    }

    /// The JUnit file's path.
    pub fn junit_file(&self) -> Option<Cow<'_, str>> {
        self.junit.as_ref().map(Template::literal_text)
    }
}

/// The GPU variables of a step that shares its node: `CUDA_VISIBLE_DEVICES`, from the list that
/// Slurm gives its tasks in that variable, and `NVIDIA_VISIBLE_DEVICES`, by which container runtimes
/// know the node's GPUs. Slurm counts the former from the node's first GPU or, where it confines the
/// devices, from the job's first: its list has what the task can use.
///
/// # Errors
/// A list has neither all GPUs that the job should have there nor just the step's own.
pub fn gpu_variables<'v>(
    lookup: impl Fn(&str) -> Option<&'v str>,
    own: &Range<u32>,
) -> Result<[(&'static str, String); 2], TooFewGpus> {
    let given = |name| lookup(name).filter(|list: &&str| !list.is_empty());
    let listed = given("CUDA_VISIBLE_DEVICES");
    let of_the_node = given("SLURM_STEP_GPUS").or_else(|| given("SLURM_JOB_GPUS")).or(listed);
    Ok([
        ("CUDA_VISIBLE_DEVICES", own_gpus(listed, own)?),
        ("NVIDIA_VISIBLE_DEVICES", own_gpus(of_the_node, own)?),
    ])
}

fn own_gpus(listed: Option<&str>, own: &Range<u32>) -> Result<String, TooFewGpus> {
    let listed = listed.filter(|list| !["", "NoDevFiles"].contains(list));
    let Some(list) = listed else {
        return Ok(own.clone().map(|gpu| gpu.to_string()).collect::<Vec<_>>().join(","));
    };
    let gpus: Vec<_> = list.split(',').collect();
    match gpus.get(own.start as usize..own.end as usize) {
        _ if gpus.len() == own.len() => Ok(list.to_owned()),
        Some(mine) => Ok(mine.join(",")),
        None => Err(TooFewGpus { listed: list.to_owned(), own: own.clone() }),
    }
}

/// The same in POSIX shell, for tasks where nothing of ours runs: arguments are the first place,
/// how many, and the command.
pub const OWN_GPUS_SH: &str = r#"first=$1; count=$2; shift 2
own() (
    IFS=,; set -f; set -- $1
    [ "$*" != NoDevFiles ] || set --
    if [ $# -eq 0 ]; then
        while [ $# -lt "$count" ]; do set -- "$@" $((first + $#)); done
    elif [ $# -ne "$count" ]; then
        if [ $# -lt $((first + count)) ]; then
            echo "slurm-disagg: its tasks have the GPUs $*, but it needs number $first to $((first + count - 1)) of the job's GPUs on its node" >&2
            exit 1
        fi
        shift "$first"; list=
        for gpu; do [ "$count" -eq 0 ] || { list=$list${list:+,}$gpu; count=$((count - 1)); }; done
        set -- "$list"
    fi
    echo "$*"
)
nvidia=$(own "${SLURM_STEP_GPUS:-${SLURM_JOB_GPUS:-${CUDA_VISIBLE_DEVICES:-}}}") || exit 1
cuda=$(own "${CUDA_VISIBLE_DEVICES:-}") || exit 1
export CUDA_VISIBLE_DEVICES="$cuda" NVIDIA_VISIBLE_DEVICES="$nvidia"
exec "$@""#;

/// GPUs of a packed server that its tasks do not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its tasks have the GPUs {listed}, but it needs number {} to {} of the job's GPUs on its node",
    own.start, own.end.saturating_sub(1)
)]
pub struct TooFewGpus {
    /// The list that the task has.
    pub listed: String,
    /// The places in the list of the job's GPUs.
    pub own: Range<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn packed_servers_take_their_places_in_slurm_s_list_in_rust_and_in_shell() {
        for (listed, own, expected) in [
            (Some("4,5,6,7"), 2..4, Some("6,7")),
            (Some("0,1,2,3"), 0..2, Some("0,1")),
            (Some("0,1,2,3,4,5,6,7"), 3..4, Some("3")),
            (Some("6,7"), 2..4, Some("6,7")),
            (Some("GPU-a,GPU-b,GPU-c"), 1..2, Some("GPU-b")),
            (None, 2..4, Some("2,3")),
            (Some(""), 0..1, Some("0")),
            (Some("NoDevFiles"), 1..3, Some("1,2")),
            (Some("4"), 2..4, None),
        ] {
            let lookup = |name: &str| if name == "CUDA_VISIBLE_DEVICES" { listed } else { None };
            let variables = gpu_variables(lookup, &own);
            let found = variables.ok().map(|[(_, cuda), (_, nvidia)]| format!("{cuda} {nvidia}"));
            let expected = expected.map(|list| format!("{list} {list}"));
            assert_eq!(found, expected, "{listed:?} {own:?}");
            let mut sh = Command::new("sh");
            sh.args(["-c", OWN_GPUS_SH, "sh", &own.start.to_string(), &own.len().to_string()]);
            sh.args(["sh", "-c", "printf '%s %s' $CUDA_VISIBLE_DEVICES $NVIDIA_VISIBLE_DEVICES"]);
            for name in ["CUDA_VISIBLE_DEVICES", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS"] {
                sh.env_remove(name);
            }
            if let Some(listed) = listed {
                sh.env("CUDA_VISIBLE_DEVICES", listed);
            }
            let output = sh.output().unwrap();
            let seen = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.success().then_some(seen), expected, "{listed:?} {own:?}");
        }
        let global = |name: &str| match name {
            "CUDA_VISIBLE_DEVICES" => Some("0,1,2,3"),
            "SLURM_STEP_GPUS" => Some("4,5,6,7"),
            _ => None,
        };
        let [(_, cuda), (_, nvidia)] = gpu_variables(global, &(2..4)).unwrap();
        assert_eq!((cuda.as_str(), nvidia.as_str()), ("2,3", "6,7"));
    }
}
