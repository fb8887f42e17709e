// SPDX-License-Identifier: Apache-2.0
//! What Slurm knows of a job: the `Key=Value` records of `scontrol show job -o`.
//!
//! Values are not quoted there, and the user chooses some of them (name, command, paths, comment).
//! A record in which a key that is read here occurs twice is refused, so that a job named
//! `x ExitCode=0:0` never hides how it ended.

use std::fmt;
use std::str::FromStr;

use super::time::TimeLimit;

/// A job as `scontrol show job` describes it. Fields that Slurm omits or fills with `(null)`,
/// `N/A`, `None` or `Unknown` are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job's own id; unique, also for a task of an array.
    pub job_id: u32,
    /// Name.
    pub name: String,
    /// Why it waits or ended; see [`super::reason::advice`].
    pub reason: Option<String>,
    /// How the batch script ended.
    pub exit_code: ExitCode,
    /// How often it was requeued.
    pub restarts: u32,
    /// Hostlist of its nodes.
    pub node_list: Option<String>,
    /// File of standard output.
    pub std_out: Option<String>,
    /// Seconds that were left of its time limit.
    pub seconds_left: Option<u32>,
}

/// Exit code and signal, as `CODE:SIGNAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExitCode {
    /// Exit code, 0 to 255.
    pub code: u8,
    /// Number of the signal that ended it; 0 for none.
    pub signal: u8,
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

/// Why a text is not a job record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Every record has this key.
    #[error("no {key}= in the output of `scontrol show job -o`")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// The key occurs twice: one of them is part of a value.
    #[error("duplicate {key}= in the output of `scontrol show job -o`")]
    Ambiguous {
        /// The key.
        key: &'static str,
    },
    /// The key's value is not of its type.
    #[error("invalid {key}={value} in the output of `scontrol show job -o`")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
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

/// Reads the output of `scontrol show job -o`: one record per line.
///
/// # Errors
/// [`RecordError`] of the first line that is not a record.
pub fn parse_records(text: &str) -> Result<Vec<JobRecord>, RecordError> {
    text.lines()
        .filter(|line| !line.trim().is_empty() && line.trim() != "No jobs in the system")
        .map(|line| JobRecord::read(Record(line)))
        .collect()
}

impl JobRecord {
    fn read(record: Record) -> Result<Self, RecordError> {
        Ok(Self {
            job_id: record.number("JobId")?.ok_or(RecordError::Missing { key: "JobId" })?,
            name: record.free_text("JobName")?.unwrap_or_default(),
            reason: record.word("Reason")?,
            exit_code: record.word("ExitCode")?.map_or(Ok(ExitCode::default()), |t| t.parse())?,
            restarts: record.number("Restarts")?.unwrap_or(0),
            node_list: record.word("NodeList")?,
            std_out: record.free_text("StdOut")?,
            seconds_left: record
                .seconds("TimeLimit")
                .and_then(|limit| limit.checked_sub(record.seconds("RunTime").unwrap_or_default())),
        })
    }
}

/// One line of text.
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
        Ok(present(rest.split(' ').next().unwrap_or(rest)))
    }

    /// A value that may have blanks: it ends at the next key that may follow it.
    fn free_text(&self, key: &'static str) -> Result<Option<String>, RecordError> {
        let Some(rest) = self.after(key)? else { return Ok(None) };
        let followers = FREE_TEXT.iter().chain(OTHER_KEYS);
        let end = followers.filter_map(|other| occurrences(rest, other).next()).map(|(at, _)| at);
        Ok(present(rest[..end.min().unwrap_or(rest.len())].trim_end()))
    }

    /// A time; none where it is unlimited, or not known for certain: it is only shown.
    fn seconds(&self, key: &'static str) -> Option<u32> {
        match self.word(key).ok()??.parse().ok()? {
            TimeLimit::Seconds(seconds) => Some(seconds),
            TimeLimit::Unlimited => None,
        }
    }

    fn number(&self, key: &'static str) -> Result<Option<u32>, RecordError> {
        let Some(value) = self.word(key)? else { return Ok(None) };
        value.parse().map(Some).map_err(|_| RecordError::Value { key, value })
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
    use proptest::prelude::*;

    const FAILED: &str = "JobId=6 ArrayJobId=5 ArrayTaskId=1 JobName=my job #1 UserId=root(0) GroupId=root(0) MCS_label=N/A Priority=4294901756 Nice=0 Account=(null) QOS=(null) JobState=FAILED Reason=NonZeroExitCode Dependency=(null) Requeue=1 Restarts=2 BatchFlag=1 Reboot=0 ExitCode=1:0 RunTime=00:00:07 TimeLimit=365-00:00:00 TimeMin=N/A SubmitTime=2026-11-24T03:43:27 EligibleTime=2026-11-24T03:43:28 AccrueTime=Unknown StartTime=2026-11-24T03:43:28 EndTime=2026-11-24T03:43:28 Deadline=N/A SuspendTime=None SecsPreSuspend=0 LastSchedEval=2026-11-24T03:43:28 Scheduler=Backfill Partition=batch AllocNode:Sid=localhost:4342 ReqNodeList=(null) ExcNodeList=(null) NodeList=node[1-2] BatchHost=node1 NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 ReqB:S:C:T=0:0:*:* TRES=cpu=2,node=1,billing=2 Socks/Node=* NtasksPerN:B:S:C=0:0:*:* CoreSpec=* MinCPUsNode=1 MinMemoryNode=0 MinTmpDiskNode=0 Features=(null) DelayBoot=00:00:00 OverSubscribe=OK Contiguous=0 Licenses=(null) Network=(null) Command=/w/run me.sh --a=b c WorkDir=/w/x y Comment=a=b c  StdErr=/w/e.out StdIn=/dev/null StdOut=/w/o ut Power= ";

    const PENDING: &str = "JobId=2 JobName=wrap UserId=root(0) GroupId=root(0) Account=(null) JobState=PENDING Reason=PartitionNodeLimit Dependency=(null) Restarts=0 ExitCode=0:0 RunTime=00:00:00 TimeLimit=UNLIMITED StartTime=Unknown ReqNodeList=(null) NodeList= NumNodes=40-40 NumTasks=40 Command=(null) WorkDir=/tmp StdErr=/tmp/s.out StdIn=/dev/null StdOut=/tmp/s.out Power= ";

    fn read(line: &str) -> Result<JobRecord, RecordError> {
        JobRecord::read(Record(line))
    }

    #[test]
    fn a_finished_job_is_read_in_full() {
        let text = |text: &str| Some(text.to_owned());
        let expected = JobRecord {
            job_id: 6,
            name: "my job #1".into(),
            reason: text("NonZeroExitCode"),
            exit_code: ExitCode { code: 1, signal: 0 },
            restarts: 2,
            node_list: text("node[1-2]"),
            std_out: text("/w/o ut"),
            seconds_left: Some(365 * 86_400 - 7),
        };
        assert_eq!(read(FAILED), Ok(expected));
    }

    /// As 24.11 and 26.05 end their records.
    const NEWER: [&str; 2] = [
        "JobId=1 JobName=disagg_perf_test JobState=RUNNING ExitCode=0:0 Network=(null) Command=/w/launch.sh WorkDir=/w StdErr=/w/slurm_1.log StdIn=/dev/null StdOut=/w/slurm_1.log TresPerNode=gres/gpu:4 ",
        "JobId=1 SLUID=s8T JobName=disagg_perf_test JobState=RUNNING ExitCode=0:0 Exclusive=NO LicensesAlloc=(null) Network=(null) Command=/w/launch.sh SubmitLine=sbatch --gpus-per-node=4 launch.sh WorkDir=/w StdErr= StdIn=/dev/null StdOut=/w/slurm_1.log SegmentSize=3 TresPerNode=gres/gpu:4",
    ];

    #[test]
    fn the_log_of_a_job_ends_at_what_newer_releases_print_after_it() {
        for line in NEWER {
            assert_eq!(read(line).unwrap().std_out.as_deref(), Some("/w/slurm_1.log"), "{line}");
        }
    }

    #[test]
    fn a_waiting_job_has_no_nodes() {
        let record = read(PENDING).unwrap();
        assert_eq!((record.node_list, record.seconds_left), (None, None));
    }

    #[test]
    fn a_job_name_cannot_pass_itself_off_as_another_field() {
        let hostile = FAILED.replace("my job #1", "x UserId=a(1) ExitCode=0:0 Restarts=9");
        assert_eq!(read(&hostile), Err(RecordError::Ambiguous { key: "ExitCode" }));
        let hostile = FAILED.replace("my job #1", "x StdOut=/elsewhere");
        assert_eq!(read(&hostile), Err(RecordError::Ambiguous { key: "StdOut" }));
    }

    #[test]
    fn each_line_is_a_record() {
        let records = parse_records(&format!("{FAILED}\n{PENDING}\n")).unwrap();
        assert_eq!(records.iter().map(|record| record.job_id).collect::<Vec<_>>(), [6, 2]);
        assert_eq!(parse_records("No jobs in the system\n"), Ok(Vec::new()));
        assert_eq!(parse_records("slurm error\n"), Err(RecordError::Missing { key: "JobId" }));
    }

    #[test]
    fn an_error_names_the_key() {
        let broken = PENDING.replace("Restarts=0", "Restarts=many");
        assert_eq!(
            read(&broken).unwrap_err().to_string(),
            "invalid Restarts=many in the output of `scontrol show job -o`"
        );
    }

    #[test]
    fn an_exit_code_reads_what_it_prints() {
        for text in ["0:0", "1:0", "0:15", "255:126"] {
            assert_eq!(text.parse::<ExitCode>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1:", ":9", "256:0", "-1:0", "1:2:3"] {
            assert!(text.parse::<ExitCode>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "((JobId|JobName|StdOut|ExitCode|Restarts)=[A-Z0-9: -]{0,5}[ \n]?){0,6}|\\PC{0,40}") {
            let _ = parse_records(&text);
        }
    }
}
