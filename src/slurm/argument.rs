// SPDX-License-Identifier: Apache-2.0
//! What one argument of `srun` or `sbatch` may hold: nothing from a configuration reaches a command
//! line or a script in a form that Slurm misreads.

/// Why a request cannot be written as arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--{option}: {problem}")]
pub struct ArgumentError {
    /// Long name of the option, without dashes.
    option: &'static str,
    problem: String,
}

impl ArgumentError {
    pub(super) fn new(option: &'static str, problem: impl Into<String>) -> Self {
        Self { option, problem: problem.into() }
    }
}

/// Refuses text that is empty or has control characters.
fn check_text(option: &'static str, value: &str) -> Result<(), ArgumentError> {
    if value.is_empty() {
        return Err(ArgumentError::new(option, "empty value: pass one, or omit the option"));
    }
    if value.chars().any(char::is_control) {
        let problem = format!("control character in {value:?}: remove it");
        return Err(ArgumentError::new(option, problem));
    }
    Ok(())
}

/// Collects `--name=value` arguments in the order in which they are added.
#[derive(Debug, Default)]
pub(super) struct Arguments(pub Vec<String>);

impl Arguments {
    pub fn flag(&mut self, option: &'static str, set: bool) {
        self.0.extend(set.then(|| format!("--{option}")));
    }

    pub fn text(&mut self, option: &'static str, value: Option<&str>) -> Result<(), ArgumentError> {
        if let Some(value) = value {
            check_text(option, value)?;
            self.0.push(format!("--{option}={value}"));
        }
        Ok(())
    }

    /// A number that may be 0.
    pub fn number(&mut self, option: &'static str, value: Option<u32>) {
        self.0.extend(value.map(|value| format!("--{option}={value}")));
    }

    /// A number that must not be 0.
    pub fn count(&mut self, option: &'static str, value: Option<u32>) -> Result<(), ArgumentError> {
        if value == Some(0) {
            return Err(ArgumentError::new(option, "0 is invalid: pass 1 or more"));
        }
        self.number(option, value);
        Ok(())
    }

    /// Complete arguments, unchanged.
    pub fn extra(&mut self, arguments: &[String]) -> Result<(), ArgumentError> {
        for argument in arguments {
            check_text("extra", argument)?;
        }
        self.0.extend_from_slice(arguments);
        Ok(())
    }
}
