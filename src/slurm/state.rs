// SPDX-License-Identifier: Apache-2.0
//! Job states: a base state plus flags, as squeue, scontrol and sacct print them.
//!
//! Names are those of Slurm's `job_state_string`; the tests compare them with the installed
//! `slurm/slurm.h` and library. Most commands print one word: a flag, when one is set that they
//! know, hides the base state, which is then unknown here.

use std::fmt;
use std::str::FromStr;

/// An enum of states from a table: variant, Slurm's name, meaning.
macro_rules! states {
    ($(#[$attribute:meta])* $type:ident { $($variant:ident, $name:literal, $meaning:literal;)* }) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "`explain` says what each one means")]
        pub enum $type { $($variant),* }

        impl $type {
            const ALL: &[Self] = &[$(Self::$variant),*];

            /// Slurm's name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it means, as the end of a sentence that starts with "The job".
            #[must_use]
            pub fn explain(self) -> &'static str {
                match self { $(Self::$variant => $meaning),* }
            }

            fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|state| state.name().eq_ignore_ascii_case(name))
            }
        }
    };
}

states! {
    /// The main state; a job has exactly one at a time.
    BaseState {
        Pending, "PENDING", "waits in the queue";
        Running, "RUNNING", "runs on its nodes";
        Suspended, "SUSPENDED", "keeps its nodes, but is paused";
        Completed, "COMPLETED", "ended with exit code 0";
        Cancelled, "CANCELLED", "was cancelled by its user or an administrator";
        Failed, "FAILED", "ended with a non-zero exit code or another failure";
        Timeout, "TIMEOUT", "reached its time limit";
        NodeFail, "NODE_FAIL", "was ended because one of its nodes failed";
        Preempted, "PREEMPTED", "was ended to make room for another job";
        BootFail, "BOOT_FAIL", "was ended because a node could not be booted for it";
        Deadline, "DEADLINE", "was ended because it could no longer meet its deadline";
        OutOfMemory, "OUT_OF_MEMORY", "was ended because it used more memory than it asked for";
    }
}

states! {
    /// What else is true of a job; any number may be set.
    StateFlag {
        Completing, "COMPLETING", "is ending: processes and epilogs finish on its nodes";
        StageOut, "STAGE_OUT", "is writing its results out of the burst buffer";
        Configuring, "CONFIGURING", "has its nodes, which are being prepared or booted";
        Expediting, "EXPEDITING", "is next in the queue, at the highest priority";
        Resizing, "RESIZING", "is changing its size";
        Requeued, "REQUEUED", "goes back into the queue";
        RequeueFed, "REQUEUE_FED", "goes back into the queue of its federation";
        RequeueHold, "REQUEUE_HOLD", "went back into the queue and is held there; `scontrol release` lets it start";
        SpecialExit, "SPECIAL_EXIT", "went back into the queue after a special exit and is held there; `scontrol release` lets it start";
        Stopped, "STOPPED", "keeps its nodes, but got SIGSTOP";
        Revoked, "REVOKED", "runs on another cluster of the federation";
        ResvDelHold, "RESV_DEL_HOLD", "is held because its reservation was deleted";
        Signaling, "SIGNALING", "is being sent a signal";
        LaunchFailed, "LAUNCH_FAILED", "could not be launched on its nodes; the prolog may have failed";
        PowerUpNode, "POWER_UP_NODE", "waits for its nodes to be powered up";
        ReconfigFail, "RECONFIG_FAIL", "failed because its nodes could not be configured";
        GetenvFailed, "GETENV_FAILED", "failed because the user's environment could not be read";
        UpdateDb, "UPDATE_DB", "is being written to the accounting database";
    }
}

impl BaseState {
    /// Whether the job's run is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Running | Self::Suspended)
    }
}

/// The state of a job as it was reported.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct JobState {
    /// The base state; `None` when only a flag was reported.
    pub base: Option<BaseState>,
    /// The flags, in the order in which they were reported.
    pub flags: Vec<StateFlag>,
    /// The user id that cancelled it, where sacct prints it (`CANCELLED by 1000`).
    pub cancelled_by: Option<u32>,
}

/// Not a job state, or one of a newer Slurm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown job state {0:?}")]
pub struct StateError(String);

impl From<BaseState> for JobState {
    fn from(base: BaseState) -> Self {
        Self { base: Some(base), ..Self::default() }
    }
}

impl FromStr for JobState {
    type Err = StateError;

    /// Reads names in any case, several joined by commas, and `CANCELLED by UID`.
    fn from_str(text: &str) -> Result<Self, StateError> {
        let error = || StateError(text.to_owned());
        let mut state = Self::default();
        let (names, uid) = match text.trim().split_once(" by ") {
            Some((names, uid)) => (names, Some(uid.parse().map_err(|_| error())?)),
            None => (text.trim(), None),
        };
        for name in names.split(',') {
            match (BaseState::named(name), StateFlag::named(name)) {
                (Some(base), _) if state.base.is_none() => state.base = Some(base),
                (None, Some(flag)) => state.flags.push(flag),
                _ => return Err(error()),
            }
        }
        state.cancelled_by = uid;
        match uid.is_some() && state.base != Some(BaseState::Cancelled) {
            true => Err(error()),
            false => Ok(state),
        }
    }
}

impl JobState {
    /// Whether the outcome is settled: the run is over, its nodes are clean, and it does not go
    /// back into the queue.
    #[must_use]
    pub fn is_final(&self) -> bool {
        let unsettled = [
            StateFlag::Completing,
            StateFlag::Configuring,
            StateFlag::Requeued,
            StateFlag::RequeueFed,
            StateFlag::RequeueHold,
            StateFlag::SpecialExit,
            StateFlag::StageOut,
        ];
        let over = match self.base {
            Some(base) => base.is_over(),
            None => self.has(StateFlag::Revoked),
        };
        over && !unsettled.iter().any(|&flag| self.has(flag))
    }

    /// Whether its processes may be running now: it has its nodes, ready, and is neither paused
    /// nor ending.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let not_yet_or_no_more = [
            StateFlag::Completing,
            StateFlag::Configuring,
            StateFlag::PowerUpNode,
            StateFlag::StageOut,
            StateFlag::Stopped,
        ];
        let runs = match self.base {
            Some(base) => base == BaseState::Running,
            None => self.has(StateFlag::Resizing) || self.has(StateFlag::Signaling),
        };
        runs && !not_yet_or_no_more.iter().any(|&flag| self.has(flag))
    }

    /// Whether it waits for nodes, held or not.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        let queued = [
            StateFlag::Requeued,
            StateFlag::RequeueFed,
            StateFlag::RequeueHold,
            StateFlag::ResvDelHold,
            StateFlag::SpecialExit,
            StateFlag::Expediting,
        ];
        match self.base {
            Some(base) => {
                base == BaseState::Pending
                    || (base.is_over() && queued.iter().any(|&f| self.has(f)))
            }
            None => queued.iter().any(|&flag| self.has(flag)),
        }
    }

    /// Whether it is settled and ended with exit code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.is_final() && self.base == Some(BaseState::Completed)
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: StateFlag) -> bool {
        self.flags.contains(&flag)
    }

    /// What it means, as one sentence for a person.
    #[must_use]
    pub fn explain(&self) -> String {
        let base = match self.cancelled_by {
            Some(uid) => Some(format!("was cancelled by user id {uid}")),
            None => self.base.map(|base| base.explain().to_owned()),
        };
        let flags = self.flags.iter().map(|flag| flag.explain().to_owned());
        let parts: Vec<String> = base.into_iter().chain(flags).collect();
        match parts.as_slice() {
            [] => "The job's state is unknown.".to_owned(),
            parts => format!("The job {}.", parts.join("; it ")),
        }
    }
}

impl fmt::Display for JobState {
    /// Slurm's names, joined by commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base.iter().map(|base| base.name());
        let names: Vec<&str> = base.chain(self.flags.iter().map(|flag| flag.name())).collect();
        f.write_str(&names.join(","))?;
        self.cancelled_by.map_or(Ok(()), |uid| write!(f, " by {uid}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::installed::InstalledLibrary;
    use proptest::prelude::*;

    fn state(text: &str) -> JobState {
        text.parse().unwrap()
    }

    fn names() -> impl Iterator<Item = &'static str> {
        let bases = BaseState::ALL.iter().map(|base| base.name());
        bases.chain(StateFlag::ALL.iter().map(|flag| flag.name()))
    }

    #[test]
    fn sacct_names_who_cancelled() {
        assert_eq!(state("CANCELLED by 1000").cancelled_by, Some(1000));
        assert_eq!(state("CANCELLED by 1000").explain(), "The job was cancelled by user id 1000.");
    }

    #[test]
    fn what_is_not_a_state_is_refused() {
        for text in
            ["", "?", "RUN", "RUNNING by 5", "CANCELLED by x", "PENDING,RUNNING", "PENDING,"]
        {
            assert!(text.parse::<JobState>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_run_that_is_over_is_final_only_when_it_stays_over() {
        for text in [
            "COMPLETED",
            "FAILED",
            "CANCELLED by 0",
            "TIMEOUT",
            "NODE_FAIL",
            "PREEMPTED",
            "BOOT_FAIL",
            "DEADLINE",
            "OUT_OF_MEMORY",
            "REVOKED",
            "CANCELLED,REVOKED",
            "NODE_FAIL,LAUNCH_FAILED",
        ] {
            assert!(state(text).is_final(), "{text}");
        }
        for text in [
            "PENDING",
            "RUNNING",
            "SUSPENDED",
            "COMPLETING",
            "COMPLETED,COMPLETING",
            "PREEMPTED,REQUEUED",
            "REQUEUE_HOLD",
            "SPECIAL_EXIT",
            "COMPLETED,STAGE_OUT",
            "CONFIGURING",
            "STOPPED",
        ] {
            assert!(!state(text).is_final(), "{text}");
        }
    }

    #[test]
    fn only_a_job_whose_processes_may_run_is_running() {
        for text in ["RUNNING", "SIGNALING", "RUNNING,RESIZING"] {
            assert!(state(text).is_running(), "{text}");
        }
        for text in [
            "CONFIGURING",
            "RUNNING,CONFIGURING",
            "COMPLETING",
            "SUSPENDED",
            "RUNNING,STOPPED",
            "PENDING",
            "COMPLETED",
        ] {
            assert!(!state(text).is_running(), "{text}");
        }
    }

    #[test]
    fn a_held_or_requeued_job_waits() {
        for text in ["PENDING", "REQUEUED", "PREEMPTED,REQUEUED", "PENDING,RESV_DEL_HOLD"] {
            assert!(state(text).is_waiting(), "{text}");
        }
        for text in ["RUNNING", "COMPLETED", "COMPLETING", "CONFIGURING"] {
            assert!(!state(text).is_waiting(), "{text}");
        }
    }

    #[test]
    fn success_is_a_settled_completed_job_alone() {
        assert!(state("completed").succeeded());
        assert!(!state("COMPLETED,COMPLETING").succeeded());
        assert!(!state("FAILED").succeeded());
    }

    #[test]
    fn a_state_is_explained_in_a_sentence() {
        assert_eq!(
            state("NODE_FAIL,COMPLETING").explain(),
            "The job was ended because one of its nodes failed; it is ending: processes and epilogs finish on its nodes."
        );
    }

    /// The header's own names, in the installed release, against the tables.
    #[test]
    fn the_installed_header_knows_the_same_states() {
        let path = "/usr/include/slurm/slurm.h";
        let Ok(header) = std::fs::read_to_string(path) else {
            eprintln!("{path} is not here: names are checked against the table of 26.05 only");
            return;
        };
        let section = header.split("enum job_states").nth(1).unwrap();
        let section = &section[..section.find("READY_JOB_FATAL").unwrap()];
        let defined = section.lines().filter_map(|line| {
            let line = line.trim_start();
            let word = line.strip_prefix("#define").unwrap_or(line).split_whitespace().next()?;
            word.trim_end_matches(',').strip_prefix("JOB_").map(str::to_owned)
        });
        let mut defined: Vec<String> = defined
            .filter(|name| !["END", "STATE_BASE", "STATE_FLAGS"].contains(&name.as_str()))
            .collect();
        // The macros abbreviate three of the names that people see.
        for name in &mut defined {
            match name.as_str() {
                "COMPLETE" => *name = "COMPLETED".into(),
                "OOM" => *name = "OUT_OF_MEMORY".into(),
                "REQUEUE" => *name = "REQUEUED".into(),
                _ => {}
            }
        }
        assert!(defined.len() > 25, "{defined:?}");
        for name in &defined {
            assert!(name.parse::<JobState>().is_ok(), "{name} of {path} is not in the tables");
        }
        let newer = ["EXPEDITING", "GETENV_FAILED"];
        let older = ["UPDATE_DB"];
        for name in names().filter(|name| !newer.contains(name) && !older.contains(name)) {
            assert!(defined.iter().any(|other| other == name), "{name} is not in {path}");
        }
    }

    #[test]
    fn the_installed_library_prints_the_same_names() {
        let Some(library) = InstalledLibrary::read() else { return };
        let never_or_later = ["EXPEDITING", "GETENV_FAILED", "UPDATE_DB"];
        for name in names().filter(|name| !never_or_later.contains(name)) {
            assert!(library.has(name), "{name} is not in the installed libslurmfull.so");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_comes_back(
            base in prop::option::of(prop::sample::select(BaseState::ALL)),
            flags in prop::collection::vec(prop::sample::select(StateFlag::ALL), 0..3),
        ) {
            let state = JobState { base, flags, cancelled_by: None };
            prop_assume!(state != JobState::default());
            prop_assert_eq!(state.to_string().parse(), Ok(state));
        }

        #[test]
        fn no_text_panics(text in "[A-Z_+, by0-9]{0,30}|\\PC{0,20}") {
            let _ = text.parse::<JobState>();
        }
    }
}
