// SPDX-License-Identifier: Apache-2.0
//! The site's say: `disagg.conf`, a file of `key=value` lines beside slurm.conf.
//! It is read once when slurmctld loads the plugin; a bad line is reported and left out, because a
//! typing error must not stop a controller. `on_error=refuse` lets no disaggregated job pass then.

use std::fmt;

/// The file's name; it lies in the directory of slurm.conf.
pub const FILE_NAME: &str = "disagg.conf";

/// What the site allows and wants for jobs that carry a demand. Other jobs are never touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `sizing=on|off`: fill what the user left open (default on). Off: only contradictions and
    /// the limits below are looked at.
    pub sizing: bool,
    /// `segment=yes|no`: pass the plan's segment on as `--segment` where the release has it
    /// (default no).
    pub segment: bool,
    /// `on_error=ignore|refuse`: what a line that is not understood means (default ignore).
    pub refuse_on_error: bool,
    /// Whether a line was not understood.
    pub has_errors: bool,
    /// `max_nodes=N`: the largest job, in nodes.
    pub max_nodes: Option<u32>,
    /// `allowed_accounts=A,B`: accounts that may run disaggregated jobs; empty: all.
    pub allowed_accounts: Vec<String>,
    /// `allowed_partitions=P,Q`: partitions that they may run in; empty: all.
    pub allowed_partitions: Vec<String>,
    /// `partition_max_nodes=P:N,Q:M`: the largest job of a partition, in nodes.
    pub partition_max_nodes: Vec<(String, u32)>,
    /// `partition_max_minutes=P:N,Q:M`: the longest job of a partition, in minutes.
    pub partition_max_minutes: Vec<(String, u32)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sizing: true,
            segment: false,
            refuse_on_error: false,
            has_errors: false,
            max_nodes: None,
            allowed_accounts: Vec::new(),
            allowed_partitions: Vec::new(),
            partition_max_nodes: Vec::new(),
            partition_max_minutes: Vec::new(),
        }
    }
}

/// A line of the file that was left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong, as a sentence for the admin.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; this line is ignored", self.line, self.message)
    }
}

impl Settings {
    /// Reads the file's text: `key=value` lines, `#` comments, blank lines.
    #[must_use]
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        let mut seen = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let taken = match line.split_once('=') {
                None => Err(format!("'{line}' is not key=value")),
                Some((key, _)) if seen.contains(&key.trim()) => {
                    Err(format!("'{}' is given twice", key.trim()))
                }
                Some((key, value)) => {
                    seen.push(key.trim());
                    settings.take(key.trim(), value.trim())
                }
            };
            if let Err(message) = taken {
                problems.push(Problem { line: index + 1, message });
            }
        }
        settings.has_errors = !problems.is_empty();
        (settings, problems)
    }

    /// Why no disaggregated job may pass, where none may.
    #[must_use]
    pub fn refusal(&self) -> Option<&'static str> {
        (self.refuse_on_error && self.has_errors).then_some(
            "this site's settings for disaggregated jobs have an error, and on_error=refuse lets no \
             such job pass: ask the administrator, for whom slurmctld's log names it",
        )
    }

    /// Whether it matters in which partition a job runs.
    #[must_use]
    pub fn limits_partitions(&self) -> bool {
        !(self.allowed_partitions.is_empty()
            && self.partition_max_nodes.is_empty()
            && self.partition_max_minutes.is_empty())
    }

    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "sizing" => self.sizing = switch(key, value)?,
            "segment" => self.segment = switch(key, value)?,
            "on_error" => {
                // Whoever writes the key wants no job to pass by mistake.
                self.refuse_on_error = value != "ignore";
                if !["ignore", "refuse"].contains(&value) {
                    return Err(format!("'{key}' must be ignore or refuse, not '{value}'"));
                }
            }
            "max_nodes" => self.max_nodes = Some(number(key, value)?),
            "allowed_accounts" => self.allowed_accounts = names(key, value)?,
            "allowed_partitions" => self.allowed_partitions = names(key, value)?,
            "partition_max_nodes" => self.partition_max_nodes = numbers(key, value)?,
            "partition_max_minutes" => self.partition_max_minutes = numbers(key, value)?,
            _ => {
                return Err(format!(
                    "unknown key '{key}' (known: sizing, segment, on_error, max_nodes, \
                     allowed_accounts, allowed_partitions, partition_max_nodes, partition_max_minutes)"
                ));
            }
        }
        Ok(())
    }
}

fn switch(key: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" => Ok(true),
        "off" | "no" => Ok(false),
        _ => Err(format!("'{key}' must be on, off, yes or no, not '{value}'")),
    }
}

fn number(key: &str, value: &str) -> Result<u32, String> {
    match value.parse() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(format!("'{key}' needs a whole number above 0, not '{value}'")),
    }
}

fn names(key: &str, value: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = value.split(',').map(|n| n.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(format!("'{key}' needs names separated by commas, not '{value}'"));
    }
    Ok(names)
}

fn numbers(key: &str, value: &str) -> Result<Vec<(String, u32)>, String> {
    let pair = |item: String| match item.split_once(':') {
        Some((name, n)) if !name.is_empty() => Ok((name.to_owned(), number(key, n)?)),
        _ => Err(format!("'{key}' needs PARTITION:NUMBER separated by commas, not '{item}'")),
    };
    names(key, value)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_key_is_read() {
        let (settings, problems) = Settings::parse(
            "# site limits\n\nsizing = off\nsegment=yes # needs topology/block\nmax_nodes=18\n\
             on_error=refuse\n\
             allowed_accounts=llm, perf\nallowed_partitions=batch\n\
             partition_max_nodes=batch:16,debug:2\npartition_max_minutes=debug:30\n",
        );
        assert_eq!(problems, []);
        assert_eq!(
            settings,
            Settings {
                sizing: false,
                segment: true,
                refuse_on_error: true,
                has_errors: false,
                max_nodes: Some(18),
                allowed_accounts: vec!["llm".into(), "perf".into()],
                allowed_partitions: vec!["batch".into()],
                partition_max_nodes: vec![("batch".into(), 16), ("debug".into(), 2)],
                partition_max_minutes: vec![("debug".into(), 30)],
            }
        );
    }

    #[test]
    fn the_example_file_is_right_and_its_comments_are_settings() {
        let example = include_str!("../disagg.conf.example");
        assert_eq!(Settings::parse(example), (Settings::default(), vec![]));
        let setting = |line: &&str| line.starts_with('#') && line.contains('=');
        let settings: Vec<_> =
            example.lines().filter(setting).map(|line| line.trim_start_matches('#')).collect();
        assert_eq!(settings.len(), 8);
        assert_eq!(Settings::parse(&settings.join("\n")).1, []);
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_the_rest_holds() {
        let (settings, problems) = Settings::parse("max_node=4\nmax_nodes=8\n");
        assert_eq!(settings.max_nodes, Some(8));
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("1: unknown key 'max_node' (known: sizing"));
    }

    #[test]
    fn a_second_value_for_a_key_is_reported_and_the_first_holds() {
        let (settings, problems) = Settings::parse("max_nodes=4\nmax_nodes=8");
        assert_eq!(settings.max_nodes, Some(4));
        assert_eq!(problems[0].to_string(), "2: 'max_nodes' is given twice; this line is ignored");
    }

    #[test]
    fn bad_values_are_reported_and_change_nothing() {
        for line in [
            "max_nodes=0",
            "max_nodes=-1",
            "sizing=maybe",
            "allowed_accounts=",
            "partition_max_nodes=debug",
            "partition_max_minutes=debug:x",
            "just words",
        ] {
            let (settings, problems) = Settings::parse(line);
            assert_eq!(settings, Settings { has_errors: true, ..Settings::default() }, "{line}");
            assert_eq!(problems.len(), 1, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "(?s).{0,300}") {
            let _ = Settings::parse(&text);
        }
    }
}
