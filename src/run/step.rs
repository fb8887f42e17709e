// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg step`: a task of a step that `srun --disagg-role` has started becomes the command of
//! its role. The SPANK plugin has set the task's environment; on a node that lacks the plugin, it is
//! set here.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::diagnostic::Printable;
use crate::input::handover::{
    self, BEFORE_STEP, CONTAINER, HandoverError, STEP_ROLE, TASK, VARIABLE,
};
use crate::output::task::{SECRET, shell_command};
use crate::plan::instance::NoSuchStep;
use crate::plan::rank::{Rank, RankError};
use crate::plan::{Plan, Template};
use crate::slurm::hostlist::{self, HostlistError};
use crate::task_files::{self, Unwritable};

/// Why a task does not become the command of its role.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// There is no job around.
    #[error(
        "this is not a task of a Slurm job: submit a script with `srun --disagg-role=ROLE slurm-disagg step` in it by \
         sbatch --disagg-config=FILE"
    )]
    Outside,
    /// The job has no plan.
    #[error("the job has no plan: submit it by sbatch --disagg-config=FILE")]
    NoPlan,
    /// The step has no role.
    #[error(
        "this step has no role: start it by `srun --disagg-role=ROLE slurm-disagg step`; the plan has {0}"
    )]
    NoRole(String),
    /// The plan cannot be read.
    #[error("{0}{advice}", advice = if *.1 { ". The nodes, and the container where there is one, must see that file" } else { "" })]
    Plan(#[source] HandoverError, bool),
    /// The plan has no such step.
    #[error(transparent)]
    NoSuchStep(#[from] NoSuchStep),
    /// Slurm's list of the nodes cannot be read.
    #[error("SLURM_JOB_NODELIST: {0}")]
    Nodes(#[from] HostlistError),
    /// There are too few nodes.
    #[error("{name} needs node {needed} of the job, which has {has}: submit it with --nodes={all}")]
    TooFewNodes {
        /// The step.
        name: String,
        /// The number of its last node, from 1.
        needed: u32,
        /// The job's nodes.
        has: usize,
        /// The plan's.
        all: u32,
    },
    /// The node lacks the plugin, and nothing shows that the task is in its container.
    #[error(
        "this node lacks spank_disagg.so, so nothing shows that {0} is in its container: put the plugin into \
         the plugstack.conf of the node"
    )]
    InNoContainer(String),
    /// The task cannot have what the plan says.
    #[error("{0}: {1}")]
    Rank(String, #[source] RankError),
    /// Its files cannot be written.
    #[error(transparent)]
    Unwritable(#[from] Unwritable),
    /// Its directory cannot be entered, or its program started.
    #[error("{}: {error}", Printable(what))]
    Start {
        /// The directory or the program.
        what: String,
        /// Why.
        #[source]
        error: io::Error,
    },
}

/// Becomes the command.
///
/// # Errors
/// [`StepError`]; nothing was started.
pub fn exec() -> Result<Infallible, StepError> {
    let all: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let lookup = |name: &str| all.get(OsStr::new(name)).map(|value| value.as_bytes());
    let text = |name: &str| {
        let text = lookup(name).and_then(|value| std::str::from_utf8(value).ok());
        text.filter(|text| !text.is_empty())
    };
    text("SLURM_JOB_ID").ok_or(StepError::Outside)?;
    let value = text(VARIABLE).ok_or(StepError::NoPlan)?;
    let plan = handover::read(value);
    let plan = plan.map_err(|error| StepError::Plan(error, value.starts_with('/')))?;
    let (is_set, step) = match (text(TASK), text(STEP_ROLE)) {
        (Some(step), _) => (true, step),
        (None, Some(step)) => (false, step),
        (None, None) => return Err(StepError::NoRole(plan.names())),
    };
    if !is_set && text(CONTAINER).is_some() {
        return Err(StepError::InNoContainer(step.to_owned()));
    }
    // The command refers to values that its step may have replaced.
    let before = |name: &str| {
        let set = is_set.then(|| lookup(&format!("{BEFORE_STEP}{name}")));
        set.flatten().or_else(|| lookup(name))
    };
    let rank = rank(&plan, step, text("SLURM_JOB_NODELIST"), before)?;
    let spec = &rank.spec;
    let mut environment = all.clone();
    if !is_set {
        environment.retain(|name, _| {
            name != STEP_ROLE && !spec.unset.iter().any(|removed| name == removed)
        });
        let set = rank.set.iter().map(|(name, value)| ((*name).into(), value.clone()));
        let gpus = rank.gpus.iter().map(|(name, list)| ((*name).into(), list.clone().into()));
        let set = set.chain(gpus).map(|(name, value)| (name, OsString::from_vec(value)));
        environment.extend(set);
    }
    task_files::write(&plan, spec, text("SLURM_JOB_START_TIME"))?;
    let directory = spec.cwd.to_owned();
    let argv = match spec.script {
        // It finds the command in its environment, and needs Slurm's variables.
        Some(script) => {
            let argv = vec!["bash".into(), script.into()];
            if !is_set {
                let spec = rank.written_out();
                let spec = spec.map_err(|error| StepError::Rank(step.to_owned(), error))?;
                let pair = |(name, value): (std::borrow::Cow<'_, str>, Template)| {
                    (OsString::from(&*name), OsString::from(&*value.literal_text()))
                };
                environment.extend(shell_command(&spec).into_iter().map(pair));
            }
            argv
        }
        None => {
            environment.retain(|name, _| {
                let name = name.to_string_lossy();
                !spec.cleared.is_some_and(|all| all.removes(&name))
                    && name != spec.command_variable
                    && !name.starts_with(SECRET)
                    && !name.starts_with(BEFORE_STEP)
            });
            rank.argv.into_iter().map(OsString::from_vec).collect::<Vec<_>>()
        }
    };
    let failed = |what: &OsStr, error| {
        let what = what.to_string_lossy().into_owned();
        StepError::Start { what, error }
    };
    std::env::set_current_dir(&directory).map_err(|error| failed(directory.as_ref(), error))?;
    let Some((program, arguments)) = argv.split_first() else {
        return Err(failed(step.as_ref(), io::Error::other("its command is empty")));
    };
    let error = Command::new(program).args(arguments).env_clear().envs(environment).exec();
    Err(failed(program, error))
}

/// The task of a step on the job's nodes.
fn rank<'p, 'v>(
    plan: &'p Plan,
    step: &str,
    nodes: Option<&str>,
    lookup: impl Fn(&str) -> Option<&'v [u8]>,
) -> Result<Rank<'p>, StepError> {
    let instance = plan.instance(step)?;
    let nodes = nodes.map(hostlist::expand).transpose()?.unwrap_or_default();
    if plan.engine.is_some() && instance.hosts(&nodes).is_none() {
        return Err(StepError::TooFewNodes {
            name: step.to_owned(),
            needed: instance.nodes.end,
            has: nodes.len(),
            all: plan.layout.total_nodes,
        });
    }
    Rank::new(&instance, &nodes, lookup).map_err(|error| StepError::Rank(step.to_owned(), error))
}
