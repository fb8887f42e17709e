// SPDX-License-Identifier: Apache-2.0
//! One job as `sbatch` gets it: a typed request, its arguments and its `#SBATCH` lines.

use super::argument::{ArgumentError, Arguments};
use super::time::TimeLimit;

/// A job. sbatch, its environment and its site decide what is omitted here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SbatchRequest {
    /// File for standard output and standard error, with sbatch's `%` patterns.
    pub output: Option<String>,
    /// Number of nodes.
    pub nodes: Option<u32>,
    /// Number of tasks in all.
    pub ntasks: Option<u32>,
    /// Number of tasks on each node.
    pub ntasks_per_node: Option<u32>,
    /// GPUs on all nodes together.
    pub gpus: Option<u32>,
    /// GPUs on each node.
    pub gpus_per_node: Option<u32>,
    /// Generic resources of each node.
    pub gres: Option<String>,
    /// Options that pass as they are: name without dashes, value.
    pub texts: Vec<(&'static str, String)>,
    /// Whether the job has its nodes for itself.
    pub exclusive: bool,
    /// Name of the job.
    pub job_name: Option<String>,
    /// Time limit.
    pub time: Option<TimeLimit>,
    /// Nodes in each block of neighbours (topology/block). Needs Slurm 24.05.
    pub segment: Option<u32>,
    /// Further arguments.
    pub extra: Vec<String>,
}

impl SbatchRequest {
    /// The arguments that follow `sbatch`, up to the script.
    ///
    /// # Errors
    /// [`ArgumentError`]: an argument cannot hold a value.
    pub fn argv(&self) -> Result<Vec<String>, ArgumentError> {
        let mut arguments = Arguments::default();
        arguments.text("output", self.output.as_deref())?;
        arguments.count("nodes", self.nodes)?;
        arguments.count("ntasks", self.ntasks)?;
        arguments.count("ntasks-per-node", self.ntasks_per_node)?;
        arguments.number("gpus", self.gpus);
        arguments.number("gpus-per-node", self.gpus_per_node);
        arguments.text("gres", self.gres.as_deref())?;
        for (name, value) in &self.texts {
            arguments.text(name, Some(value))?;
        }
        arguments.flag("exclusive", self.exclusive);
        arguments.text("job-name", self.job_name.as_deref())?;
        arguments.text("time", self.time.map(|time| time.to_string()).as_deref())?;
        arguments.count("segment", self.segment)?;
        // Only what is said here reaches the job: a profile may say SBATCH_EXPORT=NONE.
        arguments.text("export", Some("ALL"))?;
        arguments.extra(&self.extra)?;
        Ok(arguments.0)
    }

    /// The request as `#SBATCH` lines, each with its newline.
    ///
    /// # Errors
    /// As [`SbatchRequest::argv`].
    pub fn directives(&self) -> Result<String, ArgumentError> {
        let line = |argument: &String| format!("#SBATCH {}\n", quote(argument));
        Ok(self.argv()?.iter().map(line).collect())
    }
}

/// Adds to the arguments of sbatch that the job waits for the end of another one, in whatever way that
/// ends; a dependency that they have already holds too. Each argument is one word.
///
/// # Errors
/// That dependency is one of alternatives (`?`), to which Slurm adds nothing that must hold too.
pub fn wait_for(arguments: &mut Vec<String>, job: u32) -> Result<(), ArgumentError> {
    let value = |argument: &String| {
        let long = argument.strip_prefix("--").and_then(|rest| rest.split_once('='));
        let long =
            long.filter(|(name, _)| name.starts_with("dep") && "dependency".starts_with(name));
        long.map(|(_, value)| value).or_else(|| argument.strip_prefix("-d")).map(str::to_owned)
    };
    let mut all = format!("afterany:{job}");
    // The last one counts.
    if let Some(own) = arguments.iter().rev().find_map(value) {
        if own.contains('?') {
            let problem = format!("alternatives ({own}) cannot hold beside --serial: remove one");
            return Err(ArgumentError::new("dependency", problem));
        }
        all = format!("{own},{all}");
    }
    arguments.retain(|argument| value(argument).is_none());
    arguments.push(format!("--dependency={all}"));
    Ok(())
}

/// Quotes the value of `--name=value` as sbatch parses a `#SBATCH` line: blanks end a word, `#`
/// starts a comment, `\` keeps the next character, also within quotes.
fn quote(argument: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "-_=./,@+%:".contains(character);
    match argument.split_once('=') {
        Some((name, value)) if !value.chars().all(plain) => {
            format!("{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        }
        _ => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_waits_for_another_one_and_for_what_it_waits_for_anyway() {
        let waiting = |words: &[&str]| {
            let mut arguments: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
            wait_for(&mut arguments, 7).map(|()| arguments.join(" "))
        };
        for (words, expected) in [
            (&["-N3"][..], "-N3 --dependency=afterany:7"),
            (&["--dependency=afterok:3:4", "-N3"], "-N3 --dependency=afterok:3:4,afterany:7"),
            (&["--depend=afterok:2", "-dsingleton"], "--dependency=singleton,afterany:7"),
            (
                &["--deadline=now", "--delay-boot=1"],
                "--deadline=now --delay-boot=1 --dependency=afterany:7",
            ),
        ] {
            assert_eq!(waiting(words).unwrap(), expected);
        }
        assert!(waiting(&["-dafterok:3?afterok:4"]).unwrap_err().to_string().contains("--serial"));
    }

    #[test]
    fn a_full_request_gives_one_line_per_option() {
        let request = SbatchRequest {
            output: Some("/w/slurm_%j.log".into()),
            nodes: Some(3),
            ntasks: Some(12),
            ntasks_per_node: Some(4),
            gpus_per_node: Some(4),
            gpus: None,
            gres: None,
            texts: vec![("partition", "batch,other".into()), ("qos", "high".into())],
            exclusive: true,
            job_name: Some("two words".into()),
            time: Some(TimeLimit::Seconds(14_400)),
            segment: Some(3),
            extra: vec!["--nice=10".into()],
        };
        assert_eq!(
            request.directives().unwrap(),
            "#SBATCH --output=/w/slurm_%j.log\n\
             #SBATCH --nodes=3\n\
             #SBATCH --ntasks=12\n\
             #SBATCH --ntasks-per-node=4\n\
             #SBATCH --gpus-per-node=4\n\
             #SBATCH --partition=batch,other\n\
             #SBATCH --qos=high\n\
             #SBATCH --exclusive\n\
             #SBATCH --job-name=\"two words\"\n\
             #SBATCH --time=04:00:00\n\
             #SBATCH --segment=3\n\
             #SBATCH --export=ALL\n\
             #SBATCH --nice=10\n"
        );
    }

    #[test]
    fn a_value_with_special_characters_is_quoted() {
        for (argument, quoted) in [
            ("--job-name=a#b", "--job-name=\"a#b\""),
            ("--job-name=say \"x\"", "--job-name=\"say \\\"x\\\"\""),
            ("--job-name=a\\", "--job-name=\"a\\\\\""),
            ("--job-name=it's", "--job-name=\"it's\""),
        ] {
            assert_eq!(quote(argument), quoted);
        }
    }

    #[test]
    fn a_newline_never_reaches_a_script() {
        for value in ["a\nrm -rf ~", "a\r", "a\0", "\u{85}", ""] {
            let request = SbatchRequest { job_name: Some(value.into()), ..Default::default() };
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
            let error = request.argv().unwrap_err().to_string();
            assert!(error.ends_with(": 0 is invalid: pass 1 or more"), "{error}");
        }
    }
}
