// SPDX-License-Identifier: Apache-2.0
//! A job as `scontrol --oneliner show job` prints it.

use std::collections::BTreeMap;

/// What the controller knows of a job: its fields by Slurm's names, e.g. `NumNodes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    fields: BTreeMap<String, String>,
}

impl Job {
    /// Reads the first line; the elements of an array job come one a line.
    ///
    /// Values may hold blanks (`JobName`, `Command`): a word that is no `Key=…` goes on with the value
    /// before it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut last = String::new();
        for word in text.lines().next().unwrap_or_default().split(' ') {
            match word.split_once('=') {
                Some((key, value)) if is_key(key) => {
                    last = key.to_owned();
                    fields.insert(last.clone(), value.to_owned());
                }
                _ => {
                    if let Some(value) = fields.get_mut(&last) {
                        value.push(' ');
                        value.push_str(word);
                    }
                }
            }
        }
        Self { fields }
    }

    /// A field's value; empty when Slurm does not print it.
    #[must_use]
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", |value| value.trim_end())
    }

    /// The state, e.g. `RUNNING`.
    #[must_use]
    pub fn state(&self) -> &str {
        self.field("JobState")
    }

    /// Whether the job ran (or failed, or was cancelled) to its end and its nodes are free again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(
            self.state(),
            "BOOT_FAIL"
                | "CANCELLED"
                | "COMPLETED"
                | "DEADLINE"
                | "FAILED"
                | "NODE_FAIL"
                | "OUT_OF_MEMORY"
                | "PREEMPTED"
                | "TIMEOUT"
        )
    }

    /// The exit status of the batch script and the signal that ended it (0: none).
    #[must_use]
    pub fn exit_code(&self) -> Option<(u32, u32)> {
        let (status, signal) = self.field("ExitCode").split_once(':')?;
        Some((status.parse().ok()?, signal.parse().ok()?))
    }
}

fn is_key(text: &str) -> bool {
    let starts_upper = text.starts_with(|c: char| c.is_ascii_uppercase());
    starts_upper && text.chars().all(|c| c.is_ascii_alphanumeric() || "_/:".contains(c))
}

#[cfg(test)]
mod tests {
    use super::Job;

    #[test]
    fn a_value_may_hold_blanks() {
        let job =
            Job::parse("JobId=7 JobName=two words JobState=RUNNING Comment=a=b ExitCode=1:9 \n");
        assert_eq!(job.field("JobName"), "two words");
        assert_eq!(job.field("Comment"), "a=b");
        assert_eq!(job.state(), "RUNNING");
        assert_eq!(job.exit_code(), Some((1, 9)));
        assert_eq!(job.field("Nothing"), "");
    }

    #[test]
    fn a_job_that_is_completing_has_not_ended() {
        assert!(!Job::parse("JobId=7 JobState=COMPLETING").has_ended());
        assert!(Job::parse("JobId=7 JobState=NODE_FAIL").has_ended());
    }
}
