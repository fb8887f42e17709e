// SPDX-License-Identifier: Apache-2.0
//! The numbers and names of the SPANK interface. `tests/header.rs` compares every one of them
//! with the installed `slurm/spank.h`.

use crate::release::Release;
use serde::{Deserialize, Serialize};

/// `SPANK_OPTION_MAXLEN`: the longest option name, in bytes.
pub const OPTION_NAME_MAX: usize = 75;

/// What the environment name of an option starts with.
pub const OPTION_ENV_PREFIX: &str = "_SLURM_SPANK_OPTION_";

/// What `spank_job_control_setenv` names start with in the environment of the job.
pub const JOB_CONTROL_PREFIX: &str = "SLURM_SPANK_";

/// What they start with in prolog and epilog.
pub const SCRIPT_PREFIX: &str = "SPANK_";

/// The step id of a job's batch script.
pub const BATCH_STEP: u32 = 0xffff_fffb;

/// Where a plugin is loaded: `enum spank_context`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Context {
    /// No stack of plugins is loaded (as in an ELF constructor).
    Error = 0,
    /// srun.
    Local = 1,
    /// slurmstepd.
    Remote = 2,
    /// sbatch or salloc.
    Allocator = 3,
    /// slurmd.
    Slurmd = 4,
    /// Prolog or epilog.
    JobScript = 5,
}

impl Context {
    /// Every context with its name in `spank.h`.
    pub const NAMES: [(Context, &str); 6] = [
        (Context::Error, "S_CTX_ERROR"),
        (Context::Local, "S_CTX_LOCAL"),
        (Context::Remote, "S_CTX_REMOTE"),
        (Context::Allocator, "S_CTX_ALLOCATOR"),
        (Context::Slurmd, "S_CTX_SLURMD"),
        (Context::JobScript, "S_CTX_JOB_SCRIPT"),
    ];
}

/// A callback that Slurm makes into a plugin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// After loading, everywhere.
    Init,
    /// Before a job's first step on a node.
    JobProlog,
    /// When the options have been read.
    InitPostOpt,
    /// In srun, with the allocation.
    LocalUserInit,
    /// In slurmstepd, as the user.
    UserInit,
    /// In each task, as root.
    TaskInitPrivileged,
    /// In each task, as the user, right before its command starts.
    TaskInit,
    /// In slurmstepd, for each task that was forked.
    TaskPostFork,
    /// In slurmstepd, for each task that ended.
    TaskExit,
    /// After a job on a node.
    JobEpilog,
    /// When slurmd ends.
    SlurmdExit,
    /// When the program ends.
    Exit,
}

impl Hook {
    /// Every hook with its symbol.
    pub const SYMBOLS: [(Hook, &str); 12] = [
        (Hook::Init, "slurm_spank_init"),
        (Hook::JobProlog, "slurm_spank_job_prolog"),
        (Hook::InitPostOpt, "slurm_spank_init_post_opt"),
        (Hook::LocalUserInit, "slurm_spank_local_user_init"),
        (Hook::UserInit, "slurm_spank_user_init"),
        (Hook::TaskInitPrivileged, "slurm_spank_task_init_privileged"),
        (Hook::TaskInit, "slurm_spank_task_init"),
        (Hook::TaskPostFork, "slurm_spank_task_post_fork"),
        (Hook::TaskExit, "slurm_spank_task_exit"),
        (Hook::JobEpilog, "slurm_spank_job_epilog"),
        (Hook::SlurmdExit, "slurm_spank_slurmd_exit"),
        (Hook::Exit, "slurm_spank_exit"),
    ];

    /// The symbol that a plugin exports for it.
    pub fn symbol(self) -> &'static str {
        Self::SYMBOLS[self as usize].1
    }

    /// The name in Slurm's messages: the symbol without its prefix.
    pub fn short(self) -> &'static str {
        self.symbol().trim_start_matches("slurm_spank_")
    }
}

/// What can go wrong in a SPANK call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs)] // the names of spank.h
pub enum SpankError {
    Error,
    BadArg,
    NotTask,
    EnvExists,
    EnvNoexist,
    Nospace,
    NotRemote,
    Noexist,
    NotExecd,
    NotAvail,
    NotLocal,
}

impl SpankError {
    /// Every error with its name in `spank.h` (20.11) or `slurm_errno.h` (later).
    pub const NAMES: [(SpankError, &str); 11] = [
        (SpankError::Error, "ESPANK_ERROR"),
        (SpankError::BadArg, "ESPANK_BAD_ARG"),
        (SpankError::NotTask, "ESPANK_NOT_TASK"),
        (SpankError::EnvExists, "ESPANK_ENV_EXISTS"),
        (SpankError::EnvNoexist, "ESPANK_ENV_NOEXIST"),
        (SpankError::Nospace, "ESPANK_NOSPACE"),
        (SpankError::NotRemote, "ESPANK_NOT_REMOTE"),
        (SpankError::Noexist, "ESPANK_NOEXIST"),
        (SpankError::NotExecd, "ESPANK_NOT_EXECD"),
        (SpankError::NotAvail, "ESPANK_NOT_AVAIL"),
        (SpankError::NotLocal, "ESPANK_NOT_LOCAL"),
    ];

    /// Its number in a release: 1 to 11 in 20.11, 3000 to 3010 since.
    pub fn number(self, release: Release) -> i32 {
        let index = self as i32;
        if release == Release::V20_11 { index + 1 } else { 3000 + index }
    }

    /// The error with this number in a release.
    pub fn of_number(number: i32, release: Release) -> Option<SpankError> {
        Self::NAMES.iter().map(|(error, _)| *error).find(|error| error.number(release) == number)
    }

    /// What `spank_strerror` says of it.
    pub fn message(self) -> &'static str {
        match self {
            SpankError::Error => "Generic error",
            SpankError::BadArg => "Bad argument",
            SpankError::NotTask => "Not in task context",
            SpankError::EnvExists => "Environment variable exists",
            SpankError::EnvNoexist => "No such environment variable",
            SpankError::Nospace => "Buffer too small",
            SpankError::NotRemote => "Valid only in remote context",
            SpankError::Noexist => "Id/PID does not exist on this node",
            SpankError::NotExecd => "Lookup by PID requested, but no tasks running",
            SpankError::NotAvail => "Item not available from this callback",
            SpankError::NotLocal => "Valid only in local or allocator context",
        }
    }
}

/// What `spank_get_item` can be asked for: `enum spank_item`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names of spank.h, where each is explained
pub enum Item {
    JobUid,
    JobGid,
    JobId,
    JobStepid,
    JobNnodes,
    JobNodeid,
    JobLocalTaskCount,
    JobTotalTaskCount,
    JobNcpus,
    JobArgv,
    JobEnv,
    TaskId,
    TaskGlobalId,
    TaskExitStatus,
    TaskPid,
    JobPidToGlobalId,
    JobPidToLocalId,
    JobLocalToGlobalId,
    JobGlobalToLocalId,
    JobSupplementaryGids,
    SlurmVersion,
    SlurmVersionMajor,
    SlurmVersionMinor,
    SlurmVersionMicro,
    StepCpusPerTask,
    JobAllocCores,
    JobAllocMem,
    StepAllocCores,
    StepAllocMem,
    SlurmRestartCount,
    JobArrayId,
    JobArrayTaskId,
}

impl Item {
    /// Every item with its name in `spank.h`, in the order of its numbers.
    pub const NAMES: [(Item, &str); 32] = [
        (Item::JobUid, "S_JOB_UID"),
        (Item::JobGid, "S_JOB_GID"),
        (Item::JobId, "S_JOB_ID"),
        (Item::JobStepid, "S_JOB_STEPID"),
        (Item::JobNnodes, "S_JOB_NNODES"),
        (Item::JobNodeid, "S_JOB_NODEID"),
        (Item::JobLocalTaskCount, "S_JOB_LOCAL_TASK_COUNT"),
        (Item::JobTotalTaskCount, "S_JOB_TOTAL_TASK_COUNT"),
        (Item::JobNcpus, "S_JOB_NCPUS"),
        (Item::JobArgv, "S_JOB_ARGV"),
        (Item::JobEnv, "S_JOB_ENV"),
        (Item::TaskId, "S_TASK_ID"),
        (Item::TaskGlobalId, "S_TASK_GLOBAL_ID"),
        (Item::TaskExitStatus, "S_TASK_EXIT_STATUS"),
        (Item::TaskPid, "S_TASK_PID"),
        (Item::JobPidToGlobalId, "S_JOB_PID_TO_GLOBAL_ID"),
        (Item::JobPidToLocalId, "S_JOB_PID_TO_LOCAL_ID"),
        (Item::JobLocalToGlobalId, "S_JOB_LOCAL_TO_GLOBAL_ID"),
        (Item::JobGlobalToLocalId, "S_JOB_GLOBAL_TO_LOCAL_ID"),
        (Item::JobSupplementaryGids, "S_JOB_SUPPLEMENTARY_GIDS"),
        (Item::SlurmVersion, "S_SLURM_VERSION"),
        (Item::SlurmVersionMajor, "S_SLURM_VERSION_MAJOR"),
        (Item::SlurmVersionMinor, "S_SLURM_VERSION_MINOR"),
        (Item::SlurmVersionMicro, "S_SLURM_VERSION_MICRO"),
        (Item::StepCpusPerTask, "S_STEP_CPUS_PER_TASK"),
        (Item::JobAllocCores, "S_JOB_ALLOC_CORES"),
        (Item::JobAllocMem, "S_JOB_ALLOC_MEM"),
        (Item::StepAllocCores, "S_STEP_ALLOC_CORES"),
        (Item::StepAllocMem, "S_STEP_ALLOC_MEM"),
        (Item::SlurmRestartCount, "S_SLURM_RESTART_COUNT"),
        (Item::JobArrayId, "S_JOB_ARRAY_ID"),
        (Item::JobArrayTaskId, "S_JOB_ARRAY_TASK_ID"),
    ];

    /// The item with this number.
    pub fn of_number(number: i32) -> Option<Item> {
        usize::try_from(number).ok().and_then(|n| Self::NAMES.get(n)).map(|(item, _)| *item)
    }

    /// Its name in `spank.h`.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_their_numbers() {
        for (index, (item, _)) in Item::NAMES.iter().enumerate() {
            assert_eq!(*item as usize, index);
        }
        for (index, (hook, _)) in Hook::SYMBOLS.iter().enumerate() {
            assert_eq!(*hook as usize, index);
        }
        for (index, (context, _)) in Context::NAMES.iter().enumerate() {
            assert_eq!(*context as usize, index);
        }
    }

    #[test]
    fn error_numbers_start_at_1_in_20_11_and_at_3000_later() {
        assert_eq!(SpankError::Error.number(Release::V20_11), 1);
        assert_eq!(SpankError::NotLocal.number(Release::V20_11), 11);
        assert_eq!(SpankError::Error.number(Release::V21_08), 3000);
        assert_eq!(SpankError::NotLocal.number(Release::V26_11), 3010);
    }
}
