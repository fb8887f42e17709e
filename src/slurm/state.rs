// SPDX-License-Identifier: Apache-2.0
//! Job states: a base state plus flags, in every form that squeue, scontrol and sacct print them.
//!
//! Names and codes are those of Slurm's `job_state_string`; the tests compare them with the
//! installed `slurm/slurm.h` and library. Most commands print one word: a flag, when one is set
//! that they know, hides the base state, which is then unknown here.

use std::fmt;
use std::str::FromStr;

/// What becomes of a job; exactly one holds at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is explained by `BaseState::explain`")]
pub enum BaseState {
    Pending,
    Running,
    Suspended,
    Completed,
    Cancelled,
    Failed,
    Timeout,
    NodeFail,
    Preempted,
    BootFail,
    Deadline,
    OutOfMemory,
}

/// What goes on with a job besides; any number may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "each is explained by `StateFlag::explain`")]
pub enum StateFlag {
    Completing,
    Configuring,
    Expediting,
    GetenvFailed,
    LaunchFailed,
    PowerUpNode,
    ReconfigFail,
    Requeued,
    RequeueFed,
    RequeueHold,
    Resizing,
    ResvDelHold,
    Revoked,
    Signaling,
    SpecialExit,
    StageOut,
    Stopped,
    UpdateDb,
}

/// Base state, long name, compact code (squeue's `%t`), explanation.
const BASE_STATES: [(BaseState, &str, &str, &str); 12] = [
    (BaseState::Pending, "PENDING", "PD", "waits in the queue"),
    (BaseState::Running, "RUNNING", "R", "runs on its nodes"),
    (BaseState::Suspended, "SUSPENDED", "S", "keeps its nodes, but is paused"),
    (BaseState::Completed, "COMPLETED", "CD", "ended with exit code 0"),
    (BaseState::Cancelled, "CANCELLED", "CA", "was cancelled by its user or an administrator"),
    (BaseState::Failed, "FAILED", "F", "ended with a non-zero exit code or another failure"),
    (BaseState::Timeout, "TIMEOUT", "TO", "was ended at its time limit"),
    (BaseState::NodeFail, "NODE_FAIL", "NF", "was ended because one of its nodes failed"),
    (BaseState::Preempted, "PREEMPTED", "PR", "was ended to make room for another job"),
    (BaseState::BootFail, "BOOT_FAIL", "BF", "was ended because a node could not be booted for it"),
    (
        BaseState::Deadline,
        "DEADLINE",
        "DL",
        "was ended because it could no longer meet its deadline",
    ),
    (
        BaseState::OutOfMemory,
        "OUT_OF_MEMORY",
        "OOM",
        "was ended because it used more memory than it asked for",
    ),
];

/// Flag, long name, compact code where Slurm has one, explanation.
const FLAGS: [(StateFlag, &str, Option<&str>, &str); 18] = [
    (
        StateFlag::Completing,
        "COMPLETING",
        Some("CG"),
        "is ending: processes and epilogs finish on its nodes",
    ),
    (
        StateFlag::StageOut,
        "STAGE_OUT",
        Some("SO"),
        "is writing its results out of the burst buffer",
    ),
    (
        StateFlag::Configuring,
        "CONFIGURING",
        Some("CF"),
        "has its nodes, which are being prepared or booted",
    ),
    (StateFlag::Expediting, "EXPEDITING", None, "is next in the queue, at the highest priority"),
    (StateFlag::Resizing, "RESIZING", Some("RS"), "is changing its size"),
    (StateFlag::Requeued, "REQUEUED", Some("RQ"), "goes back into the queue"),
    (
        StateFlag::RequeueFed,
        "REQUEUE_FED",
        Some("RF"),
        "goes back into the queue of its federation",
    ),
    (
        StateFlag::RequeueHold,
        "REQUEUE_HOLD",
        Some("RH"),
        "went back into the queue and is held there; `scontrol release` lets it start",
    ),
    (
        StateFlag::SpecialExit,
        "SPECIAL_EXIT",
        Some("SE"),
        "went back into the queue after a special exit and is held there; `scontrol release` lets it start",
    ),
    (StateFlag::Stopped, "STOPPED", Some("ST"), "keeps its nodes, but got SIGSTOP"),
    (StateFlag::Revoked, "REVOKED", Some("RV"), "runs on another cluster of the federation"),
    (
        StateFlag::ResvDelHold,
        "RESV_DEL_HOLD",
        Some("RD"),
        "is held because its reservation was deleted",
    ),
    (StateFlag::Signaling, "SIGNALING", Some("SI"), "is being sent a signal"),
    (
        StateFlag::LaunchFailed,
        "LAUNCH_FAILED",
        None,
        "could not be launched on its nodes; the prolog may have failed",
    ),
    (StateFlag::PowerUpNode, "POWER_UP_NODE", None, "waits for its nodes to be powered up"),
    (
        StateFlag::ReconfigFail,
        "RECONFIG_FAIL",
        None,
        "failed because its nodes could not be configured",
    ),
    (
        StateFlag::GetenvFailed,
        "GETENV_FAILED",
        None,
        "failed because the user's environment could not be read",
    ),
    (StateFlag::UpdateDb, "UPDATE_DB", None, "is being written to the accounting database"),
];

impl BaseState {
    /// Slurm's long name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Slurm's compact code.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().2
    }

    /// What it means, as the end of a sentence that starts with "the job".
    #[must_use]
    pub fn explain(self) -> &'static str {
        self.row().3
    }

    /// Whether the job's run is over.
    #[must_use]
    pub fn is_over(self) -> bool {
        !matches!(self, Self::Pending | Self::Running | Self::Suspended)
    }

    fn row(self) -> &'static (Self, &'static str, &'static str, &'static str) {
        // The table is in the order of the enum, which a test holds it to.
        &BASE_STATES[self as usize]
    }
}

impl StateFlag {
    /// Slurm's long name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().map_or("", |row| row.1)
    }

    /// What it means, as the end of a sentence that starts with "the job".
    #[must_use]
    pub fn explain(self) -> &'static str {
        self.row().map_or("", |row| row.3)
    }

    fn row(self) -> Option<&'static (Self, &'static str, Option<&'static str>, &'static str)> {
        FLAGS.iter().find(|row| row.0 == self)
    }
}

/// The state of a job as it was reported.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct JobState {
    /// The base state; nothing when only a flag was reported.
    pub base: Option<BaseState>,
    /// The flags, in the order in which they were reported.
    pub flags: Vec<StateFlag>,
    /// The user id that cancelled it, where sacct says so (`CANCELLED by 1000`).
    pub cancelled_by: Option<u32>,
}

/// Why a text is no job state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no job state that is known; this Slurm may be newer than the table")]
pub struct StateError {
    /// The text as given.
    pub text: String,
}

impl From<BaseState> for JobState {
    fn from(base: BaseState) -> Self {
        Self { base: Some(base), ..Self::default() }
    }
}

impl FromStr for JobState {
    type Err = StateError;

    /// Reads long names and compact codes in any case, several joined by commas, `CANCELLED by
    /// UID`, and names that sacct cut short and marked with `+`.
    fn from_str(text: &str) -> Result<Self, StateError> {
        let error = || StateError { text: text.to_owned() };
        let mut state = Self::default();
        for part in text.trim().split(',') {
            let (word, rest) = part.split_once(' ').unwrap_or((part, ""));
            match find(word).ok_or_else(error)? {
                Word::Base(base) if state.base.is_none() => state.base = Some(base),
                Word::Base(_) => return Err(error()),
                Word::Flag(flag) => state.flags.push(flag),
            }
            if !rest.is_empty() {
                if state.base != Some(BaseState::Cancelled) {
                    return Err(error());
                }
                state.cancelled_by = canceller(rest).ok_or_else(error)?;
            }
        }
        Ok(state)
    }
}

enum Word {
    Base(BaseState),
    Flag(StateFlag),
}

fn find(word: &str) -> Option<Word> {
    if let Some(start) = word.strip_suffix('+') {
        return find_cut_short(start);
    }
    let same = |name: &str| name.eq_ignore_ascii_case(word);
    let base = BASE_STATES.iter().find(|row| same(row.1) || same(row.2));
    let flag = || FLAGS.iter().find(|row| same(row.1) || row.2.is_some_and(same));
    base.map(|row| Word::Base(row.0)).or_else(|| flag().map(|row| Word::Flag(row.0)))
}

/// A name of which only the start was printed; nothing when it may be one of several.
fn find_cut_short(start: &str) -> Option<Word> {
    let matches = |name: &str| {
        !start.is_empty() && name.get(..start.len()).is_some_and(|n| n.eq_ignore_ascii_case(start))
    };
    let bases = BASE_STATES.iter().filter(|row| matches(row.1)).map(|row| Word::Base(row.0));
    let flags = FLAGS.iter().filter(|row| matches(row.1)).map(|row| Word::Flag(row.0));
    let mut found = bases.chain(flags);
    let word = found.next()?;
    found.next().is_none().then_some(word)
}

/// The user id of `by UID`; an id that was cut short (`by 10+`) says nothing.
fn canceller(rest: &str) -> Option<Option<u32>> {
    let id = match rest.strip_prefix("by") {
        Some("+") => return Some(None),
        Some(id) => id.strip_prefix(' ')?,
        None => return (rest == "b+" || rest == "+").then_some(None),
    };
    match id.strip_suffix('+') {
        Some(cut) => cut.bytes().all(|byte| byte.is_ascii_digit()).then_some(None),
        None => id.parse().ok().map(Some),
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
        let mut parts: Vec<String> = self.base.iter().map(|base| base.explain().into()).collect();
        if let Some(uid) = self.cancelled_by {
            parts = vec![format!("was cancelled by user id {uid}")];
        }
        parts.extend(self.flags.iter().map(|flag| flag.explain().into()));
        match parts.as_slice() {
            [] => "The job's state is unknown.".to_owned(),
            parts => format!("The job {}.", parts.join("; it ")),
        }
    }
}

impl fmt::Display for JobState {
    /// Long names, joined by commas.
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

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, row) in BASE_STATES.iter().enumerate() {
            assert_eq!(row.0 as usize, index);
        }
    }

    #[test]
    fn every_name_and_code_is_read() {
        for row in BASE_STATES {
            for text in [row.1.to_owned(), row.2.to_owned(), row.1.to_lowercase()] {
                assert_eq!(state(&text), row.0.into(), "{text}");
            }
        }
        for row in FLAGS {
            assert_eq!(state(row.1).flags, [row.0]);
            if let Some(code) = row.2 {
                assert_eq!(state(code).flags, [row.0]);
            }
        }
    }

    #[test]
    fn no_two_states_share_a_name_or_code() {
        let mut names: Vec<&str> = BASE_STATES.iter().flat_map(|row| [row.1, row.2]).collect();
        names.extend(FLAGS.iter().flat_map(|row| [Some(row.1), row.2]).flatten());
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn sacct_says_who_cancelled() {
        assert_eq!(state("CANCELLED by 1000").cancelled_by, Some(1000));
        assert_eq!(state("CANCELLED by 1000").to_string(), "CANCELLED by 1000");
        assert_eq!(state("CANCELLED by 1000").explain(), "The job was cancelled by user id 1000.");
        for text in
            ["CANCELLED+", "CANCELLED by 10+", "CANCELLED by +", "CANCELLED by+", "CANCELLED b+"]
        {
            assert_eq!(state(text), BaseState::Cancelled.into(), "{text}");
        }
    }

    #[test]
    fn a_name_cut_short_by_sacct_is_read_when_it_is_clear() {
        assert_eq!(state("OUT_OF_ME+"), BaseState::OutOfMemory.into());
        assert_eq!(state("REQUEUE_H+").flags, [StateFlag::RequeueHold]);
        for text in [
            "R+",
            "REQUEUE_+",
            "+",
            "CAN",
            "RUNNING by 5",
            "CANCELLED by",
            "CANCELLED by x",
            "",
            "?",
            "PENDING,RUNNING",
            "é+",
        ] {
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
        for text in
            ["PENDING", "REQUEUED", "RH", "SE", "PREEMPTED,REQUEUED", "PENDING,RESV_DEL_HOLD"]
        {
            assert!(state(text).is_waiting(), "{text}");
        }
        for text in ["RUNNING", "COMPLETED", "COMPLETING", "CONFIGURING"] {
            assert!(!state(text).is_waiting(), "{text}");
        }
    }

    #[test]
    fn success_is_a_settled_completed_job_alone() {
        assert!(state("CD").succeeded());
        assert!(!state("COMPLETED,COMPLETING").succeeded());
        assert!(!state("F").succeeded());
    }

    #[test]
    fn every_state_is_explained_in_a_sentence() {
        assert_eq!(
            state("NODE_FAIL,COMPLETING").explain(),
            "The job was ended because one of its nodes failed; it is ending: processes and epilogs finish on its nodes."
        );
        for row in FLAGS {
            assert!(!row.0.explain().is_empty() && !row.0.name().is_empty());
        }
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
        let ours = BASE_STATES.iter().map(|row| row.1).chain(FLAGS.iter().map(|row| row.1));
        for name in ours.filter(|name| !newer.contains(name) && !older.contains(name)) {
            assert!(defined.iter().any(|other| other == name), "{name} is not in {path}");
        }
    }

    #[test]
    fn the_installed_library_prints_the_same_names_and_codes() {
        let Some(library) = InstalledLibrary::read() else { return };
        let never_or_later = ["EXPEDITING", "GETENV_FAILED", "UPDATE_DB"];
        let bases = BASE_STATES.iter().flat_map(|row| [row.1, row.2]);
        let flags = FLAGS.iter().flat_map(|row| [Some(row.1), row.2]).flatten();
        for name in bases.chain(flags).filter(|name| !never_or_later.contains(name)) {
            assert!(library.has(name), "{name} is not in the installed libslurmfull.so");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_comes_back(
            base in prop::option::of(0..BASE_STATES.len()),
            flags in prop::collection::vec(0..FLAGS.len(), 0..3),
        ) {
            let state = JobState {
                base: base.map(|index| BASE_STATES[index].0),
                flags: flags.into_iter().map(|index| FLAGS[index].0).collect(),
                cancelled_by: None,
            };
            prop_assume!(state != JobState::default());
            prop_assert_eq!(state.to_string().parse(), Ok(state));
        }

        #[test]
        fn no_text_panics(text in "[A-Z_+, by0-9]{0,30}|\\PC{0,20}") {
            let _ = text.parse::<JobState>();
        }
    }
}
