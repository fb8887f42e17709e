// SPDX-License-Identifier: Apache-2.0
//! What happened in a simulated Slurm program, and the questions that a test asks about it.

#![allow(missing_docs)] // a field has a comment where its name does not say enough

use crate::{
    abi::{Context, Hook},
    env::Env,
    layout::{Layout, StepRequest},
};
use serde::{Deserialize, Serialize};

/// The level of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// `slurm_error`.
    Error,
    /// `slurm_spank_log`: as visible as an error, without the word.
    SpankLog,
    /// `slurm_info`.
    Info,
    /// `slurm_verbose`.
    Verbose,
    /// `slurm_debug`.
    Debug,
    /// `slurm_debug2`.
    Debug2,
    /// `slurm_debug3`.
    Debug3,
}

/// A rule that a plugin broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// A call that isn't allowed in this context or callback.
    WrongContext,
    /// An argument that the call refuses.
    BadArgument,
    /// A handle that isn't the one of the running callback.
    StaleHandle,
    /// A call that crashes the real Slurm.
    WouldCrash,
    /// A result other than 0 and -1, which releases take differently.
    ReturnValue,
    /// A callback changed the working directory, the user, the umask or the signal mask of
    /// Slurm's process.
    ProcessState,
    /// `slurm_xfree` of memory that Slurm didn't allocate.
    ForeignPointer,
    /// The process died of a signal in a callback.
    Crashed,
    /// A callback didn't return within its time limit.
    Hung,
    /// The process exited in a callback: a daemon, a client past Slurm's exit handlers, or a task
    /// anywhere but in `task_init`, or there as if it had succeeded.
    Exited,
    /// An error in slurmstepd that takes the node out of service.
    NodeDrained,
}

/// Which of the plugin's functions is running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// ELF constructors, run by dlopen.
    Constructor,
    /// ELF destructors, run by dlclose.
    Destructor,
    /// The plugin's `init` or `fini`, which every Slurm plugin may have.
    PluginInit,
    /// A callback of the stack.
    Hook(Hook),
    /// An option's callback.
    Option {
        name: String,
        /// `val` of its `struct spank_option`.
        val: i32,
        argument: Option<String>,
        /// Whether it runs in slurmstepd.
        remote: bool,
    },
}

/// One thing that happened, in one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The process: the program itself or a task that it forked.
    pub pid: i32,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A plugin passed Slurm's checks.
    Loaded {
        name: String,
        path: String,
        /// Its `plugin_version`, after its constructors ran.
        version: Option<u32>,
    },
    /// A plugin didn't.
    Refused {
        path: String,
        /// Why, in Slurm's words.
        reason: String,
        /// Whether it was `required`.
        required: bool,
    },
    /// A function of the plugin starts.
    Enter {
        function: Function,
        /// The plugin's name, or its file while it is being loaded.
        plugin: String,
        context: Context,
        euid: u32,
        /// The global id of the task whose callback it is.
        task: Option<u32>,
        /// The arguments from plugstack.conf.
        args: Vec<String>,
    },
    /// It returned.
    Return { function: Function, rc: i32 },
    /// The plugin called Slurm.
    Call {
        name: String,
        args: Vec<String>,
        rc: i64,
        /// Whether the result was made up by a [`crate::Fault`].
        injected: bool,
    },
    /// A log line.
    Log {
        level: Level,
        text: String,
        /// Whether the plugin wrote it, and not Slurm.
        from_plugin: bool,
    },
    /// A rule was broken.
    Violation(Violation),
    /// sbatch handed a job (a component of a heterogeneous job) to the controller.
    Submitted(Box<Submission>),
    /// salloc got its allocation.
    Granted(Box<Grant>),
    /// srun made a step.
    StepCreated(Box<Step>),
    /// A task is about to run its command (or does, when the step says so).
    Rank(Box<Rank>),
    /// A task ended.
    TaskEnded {
        task: u32,
        child: i32,
        /// Its status as wait(2) gives it.
        status: i32,
    },
    /// A function of the plugin called exit(3). In a client that is a way to stop even when the
    /// plugin is `optional`; Slurm's own handlers still run.
    ExitCalled,
    /// The program reached its end by itself.
    Finished { code: i32 },
}

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub rule: Rule,
    /// Where: the function that was running.
    pub function: Option<Function>,
    pub detail: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match &self.function {
            Some(Function::Hook(hook)) => hook.name().to_owned(),
            Some(Function::Option { name, .. }) => format!("callback of --{name}"),
            Some(Function::Constructor) => "constructor".to_owned(),
            Some(Function::Destructor) => "destructor".to_owned(),
            Some(Function::PluginInit) => "init()".to_owned(),
            None => "outside a callback".to_owned(),
        };
        write!(f, "{place}: {}", self.detail)
    }
}

/// A job as sbatch submits it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submission {
    /// The index of the component, 0 for a job that isn't heterogeneous.
    pub component: u32,
    /// The script's file name and its arguments.
    pub argv: Vec<String>,
    pub script: String,
    pub environment: Env,
    /// The job control environment (`job_desc.spank_job_env`).
    pub job_control: Env,
    pub request: StepRequest,
    pub cwd: String,
}

/// What salloc runs its command with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The command.
    pub argv: Vec<String>,
    pub environment: Env,
    pub job_control: Env,
    pub request: StepRequest,
    pub nodes: Vec<String>,
}

/// An option that srun sends to slurmstepd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentOption {
    pub plugin: String,
    pub name: String,
    pub argument: Option<String>,
}

/// What a task does when its callbacks are over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskBody {
    /// Reports its command and environment and ends with this exit code.
    Report(i32),
    /// Runs the command.
    Execute,
}

/// A step: what slurmstepd is started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub job_id: u32,
    /// The step's id, [`crate::abi::BATCH_STEP`] for the batch script.
    pub step_id: u32,
    pub argv: Vec<String>,
    /// The environment that srun (or the controller, for a batch script) sends.
    pub environment: Env,
    pub options: Vec<SentOption>,
    pub layout: Layout,
    pub request: StepRequest,
    /// CPUs of each of the layout's nodes.
    pub cpus: Vec<u32>,
    pub cwd: String,
    /// The number of tasks as slurmstepd tells it.
    pub total_tasks: u32,
    pub body: TaskBody,
}

impl Step {
    /// Whether this is a job's batch script.
    pub fn is_batch(&self) -> bool {
        self.step_id == crate::abi::BATCH_STEP
    }
}

/// A task with what its command gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// The global id.
    pub task: u32,
    /// The id on its node.
    pub local: u32,
    pub host: String,
    pub argv: Vec<String>,
    pub environment: Env,
    pub uid: u32,
}

/// How the program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// By itself, with this exit code.
    Exit(i32),
    /// Of a signal, in this function of the plugin if in one.
    Crashed { function: Option<Function>, signal: i32 },
    /// It was ended because this function didn't return.
    Hung { function: Option<Function> },
    /// This function ended the process with an exit code.
    Exited { function: Option<Function>, code: i32 },
}

/// Everything that happened in one program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// In the order in which it happened.
    pub events: Vec<Event>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error: what a person sees.
    pub stderr: String,
    /// Whether root's and the user's phases ran as different users. False when the simulator
    /// itself wasn't started by root.
    pub users_switched: bool,
}

impl Trace {
    /// The callbacks of the stack in the order in which they started, by symbol without prefix;
    /// option callbacks are `option`.
    pub fn order(&self) -> Vec<&'static str> {
        self.entered()
            .filter_map(|(_, function)| match function {
                Function::Hook(hook) => Some(hook.short()),
                Function::Option { .. } => Some("option"),
                _ => None,
            })
            .collect()
    }

    /// Every function of the plugin that started, with its process.
    pub fn entered(&self) -> impl Iterator<Item = (i32, &Function)> {
        self.events.iter().filter_map(|event| match &event.what {
            What::Enter { function, .. } => Some((event.pid, function)),
            _ => None,
        })
    }

    /// The effective users with which a callback ran.
    pub fn users_of(&self, wanted: Hook) -> Vec<u32> {
        self.events
            .iter()
            .filter_map(|event| match &event.what {
                What::Enter { function: Function::Hook(hook), euid, .. } if *hook == wanted => {
                    Some(*euid)
                }
                _ => None,
            })
            .collect()
    }

    /// The option callbacks: name, argument, and whether remote.
    pub fn options(&self) -> Vec<(&str, Option<&str>, bool)> {
        self.entered()
            .filter_map(|(_, function)| match function {
                Function::Option { name, argument, remote, .. } => {
                    Some((name.as_str(), argument.as_deref(), *remote))
                }
                _ => None,
            })
            .collect()
    }

    /// The broken rules.
    pub fn violations(&self) -> Vec<&Violation> {
        self.find(|what| match what {
            What::Violation(violation) => Some(violation),
            _ => None,
        })
    }

    /// The log lines of a level.
    pub fn log(&self, wanted: Level) -> Vec<&str> {
        self.find(|what| match what {
            What::Log { level, text, .. } if *level == wanted => Some(text.as_str()),
            _ => None,
        })
    }

    /// The results of a call, in order.
    pub fn results_of(&self, call: &str) -> Vec<i64> {
        self.find(|what| match what {
            What::Call { name, rc, .. } if name == call => Some(*rc),
            _ => None,
        })
    }

    /// The job's components, when sbatch submitted.
    pub fn submissions(&self) -> Vec<&Submission> {
        self.find(|what| match what {
            What::Submitted(submission) => Some(&**submission),
            _ => None,
        })
    }

    /// What salloc got.
    pub fn grant(&self) -> Option<&Grant> {
        self.find(|what| match what {
            What::Granted(grant) => Some(&**grant),
            _ => None,
        })
        .pop()
    }

    /// The step that srun made.
    pub fn step(&self) -> Option<&Step> {
        self.find(|what| match what {
            What::StepCreated(step) => Some(&**step),
            _ => None,
        })
        .pop()
    }

    /// The tasks that got as far as their command.
    pub fn ranks(&self) -> Vec<&Rank> {
        self.find(|what| match what {
            What::Rank(rank) => Some(&**rank),
            _ => None,
        })
    }

    /// The plugins that were refused: file and reason.
    pub fn refused(&self) -> Vec<(&str, &str)> {
        self.find(|what| match what {
            What::Refused { path, reason, .. } => Some((path.as_str(), reason.as_str())),
            _ => None,
        })
    }

    /// How often each loaded file's constructors ran.
    pub fn constructor_runs(&self) -> usize {
        self.entered().filter(|(_, function)| **function == Function::Constructor).count()
    }

    /// Whether the program ended by itself with 0 and no rule was broken.
    pub fn is_clean(&self) -> bool {
        self.outcome == Outcome::Exit(0) && self.violations().is_empty()
    }

    fn find<'a, T>(&'a self, pick: impl Fn(&'a What) -> Option<T>) -> Vec<T> {
        self.events.iter().filter_map(|event| pick(&event.what)).collect()
    }
}
