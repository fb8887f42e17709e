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

/// An enum whose variants are numbered from 0, and the table of their names in C.
macro_rules! named {
    ($($(#[$of_enum:meta])* $enum:ident { $($(#[$of:meta])* $variant:ident = $name:literal,)* })*) => {$(
        $(#[$of_enum])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $enum { $($(#[$of])* $variant,)* }

        impl $enum {
            /// Every one with its name in C, in the order of their numbers.
            pub const NAMES: &[($enum, &str)] = &[$(($enum::$variant, $name),)*];

            /// Its name in C.
            pub fn name(self) -> &'static str {
                Self::NAMES[self as usize].1
            }
        }
    )*};
}

named! {
    /// Where a plugin is loaded: `enum spank_context`.
    Context {
        /// No stack of plugins is loaded (as in an ELF constructor).
        Error = "S_CTX_ERROR",
        /// srun.
        Local = "S_CTX_LOCAL",
        /// slurmstepd.
        Remote = "S_CTX_REMOTE",
        /// sbatch or salloc.
        Allocator = "S_CTX_ALLOCATOR",
        /// slurmd.
        Slurmd = "S_CTX_SLURMD",
        /// Prolog or epilog.
        JobScript = "S_CTX_JOB_SCRIPT",
    }

    /// A callback that Slurm makes into a plugin.
    Hook {
        /// After loading, everywhere.
        Init = "slurm_spank_init",
        /// Before a job's first step on a node.
        JobProlog = "slurm_spank_job_prolog",
        /// When the options have been read.
        InitPostOpt = "slurm_spank_init_post_opt",
        /// In srun, with the allocation.
        LocalUserInit = "slurm_spank_local_user_init",
        /// In slurmstepd, as the user.
        UserInit = "slurm_spank_user_init",
        /// In each task, as root.
        TaskInitPrivileged = "slurm_spank_task_init_privileged",
        /// In each task, as the user, right before its command starts.
        TaskInit = "slurm_spank_task_init",
        /// In slurmstepd, for each task that was forked.
        TaskPostFork = "slurm_spank_task_post_fork",
        /// In slurmstepd, for each task that ended.
        TaskExit = "slurm_spank_task_exit",
        /// After a job on a node.
        JobEpilog = "slurm_spank_job_epilog",
        /// When slurmd ends.
        SlurmdExit = "slurm_spank_slurmd_exit",
        /// When the program ends.
        Exit = "slurm_spank_exit",
    }

    /// What can go wrong in a SPANK call. The names are in `spank.h` (20.11) or `slurm_errno.h` (later).
    #[allow(missing_docs)]
    SpankError {
        Error = "ESPANK_ERROR",
        BadArg = "ESPANK_BAD_ARG",
        NotTask = "ESPANK_NOT_TASK",
        EnvExists = "ESPANK_ENV_EXISTS",
        EnvNoexist = "ESPANK_ENV_NOEXIST",
        Nospace = "ESPANK_NOSPACE",
        NotRemote = "ESPANK_NOT_REMOTE",
        Noexist = "ESPANK_NOEXIST",
        NotExecd = "ESPANK_NOT_EXECD",
        NotAvail = "ESPANK_NOT_AVAIL",
        NotLocal = "ESPANK_NOT_LOCAL",
    }

    /// What `spank_get_item` can be asked for: `enum spank_item`, explained in `spank.h`.
    #[allow(missing_docs)]
    Item {
        JobUid = "S_JOB_UID",
        JobGid = "S_JOB_GID",
        JobId = "S_JOB_ID",
        JobStepid = "S_JOB_STEPID",
        JobNnodes = "S_JOB_NNODES",
        JobNodeid = "S_JOB_NODEID",
        JobLocalTaskCount = "S_JOB_LOCAL_TASK_COUNT",
        JobTotalTaskCount = "S_JOB_TOTAL_TASK_COUNT",
        JobNcpus = "S_JOB_NCPUS",
        JobArgv = "S_JOB_ARGV",
        JobEnv = "S_JOB_ENV",
        TaskId = "S_TASK_ID",
        TaskGlobalId = "S_TASK_GLOBAL_ID",
        TaskExitStatus = "S_TASK_EXIT_STATUS",
        TaskPid = "S_TASK_PID",
        JobPidToGlobalId = "S_JOB_PID_TO_GLOBAL_ID",
        JobPidToLocalId = "S_JOB_PID_TO_LOCAL_ID",
        JobLocalToGlobalId = "S_JOB_LOCAL_TO_GLOBAL_ID",
        JobGlobalToLocalId = "S_JOB_GLOBAL_TO_LOCAL_ID",
        JobSupplementaryGids = "S_JOB_SUPPLEMENTARY_GIDS",
        SlurmVersion = "S_SLURM_VERSION",
        SlurmVersionMajor = "S_SLURM_VERSION_MAJOR",
        SlurmVersionMinor = "S_SLURM_VERSION_MINOR",
        SlurmVersionMicro = "S_SLURM_VERSION_MICRO",
        StepCpusPerTask = "S_STEP_CPUS_PER_TASK",
        JobAllocCores = "S_JOB_ALLOC_CORES",
        JobAllocMem = "S_JOB_ALLOC_MEM",
        StepAllocCores = "S_STEP_ALLOC_CORES",
        StepAllocMem = "S_STEP_ALLOC_MEM",
        SlurmRestartCount = "S_SLURM_RESTART_COUNT",
        JobArrayId = "S_JOB_ARRAY_ID",
        JobArrayTaskId = "S_JOB_ARRAY_TASK_ID",
    }
}

impl Hook {
    /// The name in Slurm's messages: the symbol without its prefix.
    pub fn short(self) -> &'static str {
        self.name().trim_start_matches("slurm_spank_")
    }
}

impl SpankError {
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

impl Item {
    /// The item with this number.
    pub fn of_number(number: i32) -> Option<Item> {
        usize::try_from(number).ok().and_then(|n| Self::NAMES.get(n)).map(|(item, _)| *item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_start_at_1_in_20_11_and_at_3000_later() {
        assert_eq!(SpankError::Error.number(Release::V20_11), 1);
        assert_eq!(SpankError::NotLocal.number(Release::V20_11), 11);
        assert_eq!(SpankError::Error.number(Release::V21_08), 3000);
        assert_eq!(SpankError::NotLocal.number(Release::V26_11), 3010);
    }
}
