// SPDX-License-Identifier: Apache-2.0
//! One job as `sbatch` is asked for it: a typed request, its argument vector and its `#SBATCH`
//! lines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::argument::{ArgumentError, Arguments};
use super::time::TimeLimit;

/// A job. What is left out is left to sbatch, its environment and its site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SbatchRequest {
    /// File for standard output, with sbatch's `%` patterns.
    pub output: Option<String>,
    /// File for standard error, with sbatch's `%` patterns.
    pub error: Option<String>,
    /// Number of nodes.
    pub nodes: Option<u32>,
    /// Number of tasks in all.
    pub ntasks: Option<u32>,
    /// Number of tasks on each node.
    pub ntasks_per_node: Option<u32>,
    /// GPUs on each node.
    pub gpus_per_node: Option<u32>,
    /// Partition, or several with commas.
    pub partition: Option<String>,
    /// Account that is charged.
    pub account: Option<String>,
    /// Name of the job.
    pub job_name: Option<String>,
    /// Time limit.
    pub time: Option<TimeLimit>,
    /// Nodes in each block of neighbours (topology/block). Only for releases that know it: 24.05
    /// and later.
    pub segment: Option<u32>,
    /// Signal before the time limit.
    pub signal: Option<Signal>,
    /// Arguments that go last, as they are.
    pub extra: Vec<String>,
}

/// The value of `--signal`: `[R][B]:NAME[@SECONDS]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Signal {
    /// Send it to the batch shell, and only to it; otherwise to the steps.
    pub batch_shell: bool,
    /// Send it also when a reservation that preempts the job is about to start.
    pub reservation: bool,
    /// Name without `SIG`, or number.
    pub name: String,
    /// Seconds before the limit, at most 65535; Slurm's own default is 60.
    pub seconds_before: Option<u16>,
}

/// Why a text is no `--signal` value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no signal request; write [R][B]:NAME@SECONDS, as B:USR1@300")]
pub struct SignalError(String);

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reservation {
            f.write_str("R")?;
        }
        if self.batch_shell {
            f.write_str("B")?;
        }
        if self.reservation || self.batch_shell {
            f.write_str(":")?;
        }
        f.write_str(&self.name)?;
        self.seconds_before.map_or(Ok(()), |seconds| write!(f, "@{seconds}"))
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, SignalError> {
        let error = || SignalError(text.to_owned());
        let (flags, rest) = text.split_once(':').unwrap_or(("", text));
        let (name, seconds) = match rest.split_once('@') {
            Some((name, seconds)) => (name, Some(seconds.parse().map_err(|_| error())?)),
            None => (rest, None),
        };
        let signal = Self {
            batch_shell: flags.contains(['B', 'b']),
            reservation: flags.contains(['R', 'r']),
            name: name.to_owned(),
            seconds_before: seconds,
        };
        if text.starts_with(':')
            || flags.chars().any(|flag| !"RrBb".contains(flag))
            || !signal.has_valid_name()
        {
            return Err(error());
        }
        Ok(signal)
    }
}

impl Signal {
    fn has_valid_name(&self) -> bool {
        !self.name.is_empty() && self.name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

impl TryFrom<String> for Signal {
    type Error = SignalError;

    fn try_from(text: String) -> Result<Self, SignalError> {
        text.parse()
    }
}

impl SbatchRequest {
    /// The arguments that follow `sbatch`, up to the script.
    ///
    /// # Errors
    /// [`ArgumentError`] when a value cannot stand in an argument.
    pub fn argv(&self) -> Result<Vec<String>, ArgumentError> {
        let mut arguments = Arguments::default();
        arguments.text("output", self.output.as_deref())?;
        arguments.text("error", self.error.as_deref())?;
        arguments.count("nodes", self.nodes)?;
        arguments.count("ntasks", self.ntasks)?;
        arguments.count("ntasks-per-node", self.ntasks_per_node)?;
        arguments.number("gpus-per-node", self.gpus_per_node);
        arguments.text("partition", self.partition.as_deref())?;
        arguments.text("account", self.account.as_deref())?;
        arguments.text("job-name", self.job_name.as_deref())?;
        arguments.text("time", self.time.map(|time| time.to_string()).as_deref())?;
        arguments.count("segment", self.segment)?;
        if let Some(signal) = &self.signal {
            if !signal.has_valid_name() {
                return Err(ArgumentError::Contradiction(format!(
                    "--signal: {:?} is no signal; give its name without SIG, or its number",
                    signal.name
                )));
            }
            arguments.text("signal", Some(&signal.to_string()))?;
        }
        arguments.finish(&self.extra)
    }

    /// The request as `#SBATCH` lines, each with its newline.
    ///
    /// # Errors
    /// As [`SbatchRequest::argv`].
    pub fn directives(&self) -> Result<String, ArgumentError> {
        Ok(self.argv()?.iter().map(|argument| directive(argument)).collect())
    }
}

/// One `#SBATCH` line for one argument that has no control character.
fn directive(argument: &str) -> String {
    format!("#SBATCH {}\n", quote(argument))
}

/// Quotes an argument as sbatch takes a `#SBATCH` line apart: blanks end it, `#` starts a comment,
/// `\` outside and inside quotes keeps the next character, and the words `hetjob`, `packjob` and a
/// leading `:` have a meaning of their own.
fn quote(argument: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "-_=./,@+%:".contains(character);
    let special = argument.starts_with(':')
        || ["hetjob", "packjob"].iter().any(|word| argument.eq_ignore_ascii_case(word));
    if argument.chars().all(plain) && !argument.is_empty() && !special {
        return argument.to_owned();
    }
    // The option's name stays outside the quotes, as people write it.
    let (name, value) = match argument.split_once('=') {
        Some((name, value)) if name.chars().all(plain) => (format!("{name}="), value),
        _ => (String::new(), argument),
    };
    let mut quoted = name;
    quoted.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_request_gives_one_line_per_option() {
        let request = SbatchRequest {
            output: Some("/w/slurm_%j.log".into()),
            error: Some("/w/slurm_%j.err".into()),
            nodes: Some(3),
            ntasks: Some(12),
            ntasks_per_node: Some(4),
            gpus_per_node: Some(4),
            partition: Some("batch,other".into()),
            account: Some("acct".into()),
            job_name: Some("disagg_perf_test".into()),
            time: Some(TimeLimit::Seconds(14_400)),
            segment: Some(3),
            signal: Some("B:USR1@300".parse().unwrap()),
            extra: vec!["--comment=two words".into()],
        };
        assert_eq!(
            request.directives().unwrap(),
            "#SBATCH --output=/w/slurm_%j.log\n\
             #SBATCH --error=/w/slurm_%j.err\n\
             #SBATCH --nodes=3\n\
             #SBATCH --ntasks=12\n\
             #SBATCH --ntasks-per-node=4\n\
             #SBATCH --gpus-per-node=4\n\
             #SBATCH --partition=batch,other\n\
             #SBATCH --account=acct\n\
             #SBATCH --job-name=disagg_perf_test\n\
             #SBATCH --time=04:00:00\n\
             #SBATCH --segment=3\n\
             #SBATCH --signal=B:USR1@300\n\
             #SBATCH --comment=\"two words\"\n"
        );
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<SbatchRequest>(&json).unwrap(), request);
    }

    #[test]
    fn a_value_with_special_characters_is_quoted() {
        for (argument, quoted) in [
            ("--comment=a#b", "--comment=\"a#b\""),
            ("--comment=say \"x\"", "--comment=\"say \\\"x\\\"\""),
            ("--comment=a\\", "--comment=\"a\\\\\""),
            ("--comment=it's", "--comment=\"it's\""),
            ("--comment=", "--comment="),
            ("hetjob", "\"hetjob\""),
            (":", "\":\""),
            ("a b=c", "\"a b=c\""),
        ] {
            assert_eq!(quote(argument), quoted);
        }
    }

    #[test]
    fn a_newline_never_reaches_a_script() {
        for value in ["a\nrm -rf ~", "a\r", "a\0", "\u{85}", ""] {
            let request = SbatchRequest { job_name: Some(value.into()), ..Default::default() };
            assert!(request.directives().is_err(), "{value:?}");
            let request = SbatchRequest { extra: vec![value.into()], ..Default::default() };
            assert!(request.directives().is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_count_of_zero_is_refused() {
        for request in [
            SbatchRequest { nodes: Some(0), ..Default::default() },
            SbatchRequest { ntasks: Some(0), ..Default::default() },
            SbatchRequest { ntasks_per_node: Some(0), ..Default::default() },
            SbatchRequest { segment: Some(0), ..Default::default() },
        ] {
            assert!(matches!(request.argv(), Err(ArgumentError::Zero { .. })));
        }
    }

    #[test]
    fn a_signal_reads_what_it_prints() {
        for text in ["USR1", "B:USR1@300", "RB:10", "R:TERM@60"] {
            assert_eq!(text.parse::<Signal>().unwrap().to_string(), text);
        }
        for text in ["", ":USR1", "X:USR1", "B:", "USR1@", "USR1@65536", "USR 1", "B:U:1"] {
            assert_eq!(text.parse::<Signal>(), Err(SignalError(text.into())), "{text}");
        }
    }
}
