// SPDX-License-Identifier: Apache-2.0
//! What Slurm knows of a job: the `Key=Value` records of `scontrol show job -o`.
//!
//! Values are not quoted there, and the user chooses some of them (name, command, paths, comment).
//! A record in which a key that is read here occurs twice is refused, so that a job named
//! `x JobState=COMPLETED` is never taken for a completed one.

use std::fmt;
use std::str::FromStr;

use super::state::{JobState, StateError};
use super::time::{TimeError, TimeLimit};

/// A job as `scontrol show job` describes it. Fields that Slurm leaves out or fills with
/// `(null)`, `N/A`, `None` or `Unknown` are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job's own id; unique, also for a task of an array.
    pub job_id: u32,
    /// Id of the array it is a task of.
    pub array_job_id: Option<u32>,
    /// Its task in the array, or the tasks that still wait (`2-9%4`).
    pub array_task_id: Option<String>,
    /// Id of the heterogeneous job it is a component of.
    pub het_job_id: Option<u32>,
    /// Name.
    pub name: String,
    /// Owner, as `name(uid)`.
    pub user: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Partition, or several with commas.
    pub partition: Option<String>,
    /// State.
    pub state: JobState,
    /// Why it waits or ended; see [`super::reason::advice`].
    pub reason: Option<String>,
    /// What the batch script ended with.
    pub exit_code: ExitCode,
    /// How often it was requeued.
    pub restarts: u32,
    /// How long it has run.
    pub run_time: Option<TimeLimit>,
    /// Its limit; none when the partition's applies.
    pub time_limit: Option<TimeLimit>,
    /// Local time of submission, as `2026-01-31T23:59:59`.
    pub submit_time: Option<String>,
    /// Local time of the start, or the expected one.
    pub start_time: Option<String>,
    /// Local time of the end, or the expected one.
    pub end_time: Option<String>,
    /// Hostlist of its nodes.
    pub node_list: Option<String>,
    /// Node that runs the batch script.
    pub batch_host: Option<String>,
    /// Number of nodes; the smaller one of a range.
    pub num_nodes: Option<u32>,
    /// Number of tasks.
    pub num_tasks: Option<u32>,
    /// Path and arguments of the batch script.
    pub command: Option<String>,
    /// Working directory.
    pub work_dir: Option<String>,
    /// File of standard output.
    pub std_out: Option<String>,
    /// File of standard error.
    pub std_err: Option<String>,
    /// The user's comment.
    pub comment: Option<String>,
}

/// Exit code and signal, as `CODE:SIGNAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExitCode {
    /// Exit code, 0 to 255.
    pub code: u8,
    /// Number of the signal that ended it; 0 for none.
    pub signal: u8,
}

impl ExitCode {
    /// Whether neither a code nor a signal says that something failed.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::default()
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.code, self.signal)
    }
}

impl FromStr for ExitCode {
    type Err = RecordError;

    fn from_str(text: &str) -> Result<Self, RecordError> {
        let number = |part: &str| part.parse().ok();
        text.split_once(':')
            .and_then(|(code, signal)| Some(Self { code: number(code)?, signal: number(signal)? }))
            .ok_or_else(|| RecordError::Value { key: "ExitCode", value: text.to_owned() })
    }
}

/// Why a text is no job record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A key that every record has is not there.
    #[error("scontrol's record has no {key}=; is this the output of `scontrol show job -o`?")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A key is there twice: one of them belongs to a value.
    #[error(
        "scontrol's record has {key}= twice, so one stands in the job's name, command or paths; ask \
         for single fields instead: `squeue -h -j JOBID -o %T`"
    )]
    Ambiguous {
        /// The key.
        key: &'static str,
    },
    /// A value that is not what its key stands for.
    #[error("scontrol's record has {key}={value}, which cannot be read")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// A state that is not known.
    #[error(transparent)]
    State(#[from] StateError),
    /// A time that cannot be read.
    #[error(transparent)]
    Time(#[from] TimeError),
}

/// Keys whose values may have blanks, and which therefore end only at another key.
const FREE_TEXT: [&str; 6] = ["JobName", "Command", "WorkDir", "StdOut", "StdErr", "Comment"];

/// The other keys that may follow a value with blanks, in the releases from 20.11 to 26.05: up to
/// 23.02 `Power` always ends what is behind `StdOut`, later ones have whatever the job asked for.
#[rustfmt::skip]
const OTHER_KEYS: &[&str] = &[
    "UserId", "StdIn", "AdminComment", "SystemComment", "Extra", "Power", "BatchFeatures",
    "BurstBuffer", "BurstBufferState", "ClusterFeatures", "SubmitLine", "Container", "ContainerID",
    "ContainerType", "Cluster", "OOMKillStep", "SegmentSize", "Switches", "CpusPerTres",
    "MemPerTres", "TresBind", "TresFreq", "TresPerJob", "TresPerNode", "TresPerSocket",
    "TresPerStep", "TresPerTask", "MailUser", "MailType", "NtasksPerTRES", "ResvPorts",
    "SELinuxContext", "StepMgrEnabled",
];

/// Reads the output of `scontrol show job -o`: one record per line, none for "No jobs in the
/// system".
///
/// # Errors
/// The first record that [`JobRecord::from_str`] refuses.
pub fn parse_records(text: &str) -> Result<Vec<JobRecord>, RecordError> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && line.trim() != "No jobs in the system")
        .map(str::parse)
        .collect()
}

impl FromStr for JobRecord {
    type Err = RecordError;

    /// Reads one record, on one line or on several.
    fn from_str(text: &str) -> Result<Self, RecordError> {
        let record = Record(text);
        Ok(Self {
            job_id: record.required("JobId")?,
            array_job_id: record.number("ArrayJobId")?,
            array_task_id: record.word("ArrayTaskId")?,
            het_job_id: record.number("HetJobId")?,
            name: record.free_text("JobName")?.unwrap_or_default(),
            user: record.word("UserId")?,
            account: record.word("Account")?,
            partition: record.word("Partition")?,
            state: record.required_text("JobState")?.parse()?,
            reason: record.word("Reason")?,
            exit_code: record.word("ExitCode")?.map_or(Ok(ExitCode::default()), |t| t.parse())?,
            restarts: record.number("Restarts")?.unwrap_or(0),
            run_time: record.time("RunTime")?,
            time_limit: record.time("TimeLimit")?,
            submit_time: record.word("SubmitTime")?,
            start_time: record.word("StartTime")?,
            end_time: record.word("EndTime")?,
            node_list: record.word("NodeList")?,
            batch_host: record.word("BatchHost")?,
            num_nodes: record.number("NumNodes")?,
            num_tasks: record.number("NumTasks")?,
            command: record.free_text("Command")?,
            work_dir: record.free_text("WorkDir")?,
            std_out: record.free_text("StdOut")?,
            std_err: record.free_text("StdErr")?,
            comment: record.free_text("Comment")?,
        })
    }
}

struct Record<'a>(&'a str);

impl<'a> Record<'a> {
    /// The text after `KEY=`, up to the record's end.
    fn after(&self, key: &'static str) -> Result<Option<&'a str>, RecordError> {
        let mut found = occurrences(self.0, key);
        let Some((_, value)) = found.next() else { return Ok(None) };
        match found.next() {
            Some(_) => Err(RecordError::Ambiguous { key }),
            None => Ok(Some(&self.0[value..])),
        }
    }

    /// A value that has no blanks.
    fn word(&self, key: &'static str) -> Result<Option<String>, RecordError> {
        let Some(rest) = self.after(key)? else { return Ok(None) };
        Ok(present(rest.split([' ', '\t', '\n']).next().unwrap_or(rest)))
    }

    /// A value that may have blanks: it ends at the next key that may follow it.
    fn free_text(&self, key: &'static str) -> Result<Option<String>, RecordError> {
        let Some(rest) = self.after(key)? else { return Ok(None) };
        let followers = FREE_TEXT.iter().chain(OTHER_KEYS);
        let end = followers.filter_map(|other| occurrences(rest, other).next()).map(|(at, _)| at);
        let line_end = rest.find('\n').unwrap_or(rest.len());
        Ok(present(rest[..end.min().unwrap_or(rest.len()).min(line_end)].trim_end()))
    }

    fn required_text(&self, key: &'static str) -> Result<String, RecordError> {
        self.word(key)?.ok_or(RecordError::Missing { key })
    }

    fn required(&self, key: &'static str) -> Result<u32, RecordError> {
        self.number(key)?.ok_or(RecordError::Missing { key })
    }

    /// A number, or the smaller one of a range.
    fn number(&self, key: &'static str) -> Result<Option<u32>, RecordError> {
        let Some(text) = self.word(key)? else { return Ok(None) };
        let low = text.split('-').next().unwrap_or(&text);
        low.parse().map(Some).map_err(|_| RecordError::Value { key, value: text.clone() })
    }

    fn time(&self, key: &'static str) -> Result<Option<TimeLimit>, RecordError> {
        match self.word(key)?.as_deref() {
            None | Some("Partition_Limit" | "NOT_SET" | "INVALID") => Ok(None),
            Some(text) => match text.parse() {
                // Slurm stores some limits that it cannot mean, as that of `sbatch --time=-5`.
                Err(TimeError::TooLong(_)) => Ok(Some(TimeLimit::Unlimited)),
                time => Ok(Some(time?)),
            },
        }
    }
}

/// Where `key=` starts a word: positions of the key and of its value.
fn occurrences<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    text.match_indices(key).filter_map(move |(at, _)| {
        let starts_word = at == 0 || text.as_bytes()[at - 1].is_ascii_whitespace();
        let end = at + key.len();
        (starts_word && text.as_bytes().get(end) == Some(&b'=')).then_some((at, end + 1))
    })
}

fn present(value: &str) -> Option<String> {
    let nothing = ["", "(null)", "N/A", "None", "Unknown", "None assigned"];
    (!nothing.contains(&value)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slurm::state::{BaseState, StateFlag};
    use proptest::prelude::*;

    const FAILED: &str = "JobId=6 ArrayJobId=5 ArrayTaskId=1 JobName=my job #1 UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901756 Nice=0 Account=(null) QOS=(null) JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=1:0 RunTime=00:00:07 TimeLimit=365-00:00:00 TimeMin=N/A SubmitTime=2026-11-24T03:43:27 EligibleTime=2026-11-24T03:43:28 AccrueTime=Unknown StartTime=2026-11-24T03:43:28 EndTime=2026-11-24T03:43:28 Deadline=N/A SuspendTime=None SecsPreSuspend=0 LastSchedEval=2026-11-24T03:43:28 Scheduler=Backfill Partition=batch AllocNode:Sid=localhost:4342 ReqNodeList=(null) ExcNodeList=(null) NodeList=node[1-2] BatchHost=node1 NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=2,node=1,billing=2 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=* MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=/w/run me.sh --a=b c WorkDir=/w/x y Comment=a=b c  StdErr=/w/e.out StdIn=/dev/null StdOut=/w/o ut Power= ";

    const PENDING: &str = "JobId=2 JobName=wrap UserId=root(0) GroupId=root(0) Account=(null) JobState=PENDING Reason=PartitionNodeLimit Dependency=(null) Restarts=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=UNLIMITED StartTime=Unknown ReqNodeList=(null) NodeList= NumNodes=40-40 NumTasks=40 Command=(null) WorkDir=/tmp StdErr=/tmp/s.out StdIn=/dev/null StdOut=/tmp/s.out Power= ";

    #[test]
    fn a_finished_job_is_read_in_full() {
        let record: JobRecord = FAILED.parse().unwrap();
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        assert_eq!((record.job_id, record.array_job_id), (6, Some(5)));
        assert_eq!(record.name, "my job #1");
        assert_eq!(record.state, BaseState::Failed.into());
        assert_eq!(record.exit_code, ExitCode { code: 1, signal: 0 });
        assert_eq!((record.restarts, record.num_nodes, record.num_tasks), (2, Some(2), Some(2)));
        assert_eq!(record.run_time, Some(TimeLimit::Seconds(7)));
        assert_eq!(record.time_limit, Some(TimeLimit::Seconds(365 * 86_400)));
        assert_eq!(text(&record.reason), "NonZeroExitCode");
        assert_eq!(text(&record.node_list), "node[1-2]");
        assert_eq!(text(&record.batch_host), "node1");
        assert_eq!(text(&record.command), "/w/run me.sh --a=b c");
        assert_eq!(text(&record.work_dir), "/w/x y");
        assert_eq!(text(&record.comment), "a=b c");
        assert_eq!(text(&record.std_out), "/w/o ut");
        assert_eq!(text(&record.std_err), "/w/e.out");
        assert_eq!(text(&record.user), "root(0)");
        assert_eq!(text(&record.end_time), "2026-11-24T03:43:28");
        assert_eq!(record.account, None);
    }

    /// As 24.11 and 26.05 end their records.
    const NEWER: [&str; 2] = [
        "JobId=1 JobName=disagg_perf_test JobState=RUNNING ExitCode=0:0 Network=(null) Command=/w/launch.sh WorkDir=/w StdErr=/w/slurm_1.log StdIn=/dev/null StdOut=/w/slurm_1.log TresPerNode=gres/gpu:4 ",
        "JobId=1 SLUID=s8T JobName=disagg_perf_test JobState=RUNNING ExitCode=0:0 Exclusive=NO LicensesAlloc=(null) Network=(null) Command=/w/launch.sh SubmitLine=sbatch --gpus-per-node=4 launch.sh WorkDir=/w StdErr= StdIn=/dev/null StdOut=/w/slurm_1.log SegmentSize=3 TresPerNode=gres/gpu:4",
    ];

    #[test]
    fn the_log_of_a_job_ends_at_what_newer_releases_say_behind_it() {
        for line in NEWER {
            let record: JobRecord = line.parse().unwrap();
            assert_eq!(record.std_out.as_deref(), Some("/w/slurm_1.log"), "{line}");
            assert_eq!(record.command.as_deref(), Some("/w/launch.sh"), "{line}");
            assert_eq!(record.work_dir.as_deref(), Some("/w"), "{line}");
        }
    }

    #[test]
    fn a_waiting_job_has_no_nodes_and_the_least_number_asked_for() {
        let record: JobRecord = PENDING.parse().unwrap();
        assert_eq!(record.state, BaseState::Pending.into());
        assert_eq!((record.node_list, record.num_nodes), (None, Some(40)));
        assert_eq!(record.time_limit, Some(TimeLimit::Unlimited));
        assert_eq!((record.command, record.start_time), (None, None));
    }

    #[test]
    fn the_form_on_several_lines_is_read_the_same() {
        let lines = FAILED.replace(" UserId", "\n   UserId").replace(" WorkDir", "\n   WorkDir");
        let lines = lines.replace(" StdOut", "\n   StdOut").replace(" Power=", "\n   Power=");
        assert_eq!(lines.parse::<JobRecord>(), FAILED.parse());
    }

    #[test]
    fn a_job_name_cannot_pass_itself_off_as_a_state() {
        let hostile = FAILED.replace("my job #1", "x UserId=a(1) JobState=COMPLETED ExitCode=0:0");
        assert_eq!(hostile.parse::<JobRecord>(), Err(RecordError::Ambiguous { key: "UserId" }));
        let hostile = FAILED.replace("my job #1", "x JobState=COMPLETED");
        assert_eq!(hostile.parse::<JobRecord>(), Err(RecordError::Ambiguous { key: "JobState" }));
    }

    #[test]
    fn several_records_stand_on_lines_of_their_own() {
        let records = parse_records(&format!("{FAILED}\n{PENDING}\n")).unwrap();
        assert_eq!(records.iter().map(|record| record.job_id).collect::<Vec<_>>(), [6, 2]);
        assert_eq!(parse_records("No jobs in the system\n"), Ok(Vec::new()));
        assert_eq!(parse_records("slurm error\n"), Err(RecordError::Missing { key: "JobId" }));
    }

    #[test]
    fn what_cannot_be_read_names_its_key() {
        let broken = PENDING.replace("NumNodes=40-40", "NumNodes=many");
        assert_eq!(
            broken.parse::<JobRecord>().unwrap_err().to_string(),
            "scontrol's record has NumNodes=many, which cannot be read"
        );
        assert!(PENDING.replace("PENDING", "WHAT").parse::<JobRecord>().is_err());
        assert!(PENDING.replace("UNLIMITED", "soon").parse::<JobRecord>().is_err());
        let partition = PENDING.replace("UNLIMITED", "Partition_Limit");
        assert_eq!(partition.parse::<JobRecord>().unwrap().time_limit, None);
    }

    #[test]
    fn a_limit_beyond_counting_is_no_limit() {
        let record = PENDING.replace("UNLIMITED", "2982611-04:17:00").parse::<JobRecord>();
        assert_eq!(record.unwrap().time_limit, Some(TimeLimit::Unlimited));
    }

    #[test]
    fn a_state_with_a_flag_keeps_it() {
        let record: JobRecord = PENDING.replace("PENDING", "COMPLETING").parse().unwrap();
        assert_eq!(record.state.flags, [StateFlag::Completing]);
    }

    #[test]
    fn an_exit_code_reads_what_it_prints() {
        for text in ["0:0", "1:0", "0:15", "255:126"] {
            assert_eq!(text.parse::<ExitCode>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1:", ":9", "256:0", "-1:0", "1:2:3"] {
            assert!(text.parse::<ExitCode>().is_err(), "{text}");
        }
        assert!(ExitCode::default().is_success());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "((JobId|JobName|JobState|ExitCode|NumNodes)=[A-Z0-9: -]{0,5}[ \n]?){0,6}|\\PC{0,40}") {
            let _ = parse_records(&text);
        }
    }
}
