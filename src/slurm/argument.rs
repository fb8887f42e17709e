// SPDX-License-Identifier: Apache-2.0
//! What one argument to `srun` or `sbatch` may hold: the checks that both requests share, so that
//! nothing from a config reaches a command line, a script or a host file in a shape Slurm misreads.

/// Why a request cannot be written as arguments.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A newline, NUL or other control character.
    #[error("--{option}: the value {value:?} has a control character; remove it")]
    ControlCharacter {
        /// Long name of the option, without dashes.
        option: &'static str,
        /// The value as given.
        value: String,
    },
    /// An empty value where Slurm needs one.
    #[error("--{option}: the value is empty; give one, or leave the option out")]
    Empty {
        /// Long name of the option, without dashes.
        option: &'static str,
    },
    /// A count of zero.
    #[error("--{option}: 0 is not possible; give 1 or more, or leave the option out")]
    Zero {
        /// Long name of the option, without dashes.
        option: &'static str,
    },
    /// A character that would end the value or start another one.
    #[error("--{option}: {value:?} must not contain {character:?}, which separates values")]
    Separator {
        /// Long name of the option, without dashes.
        option: &'static str,
        /// The value as given.
        value: String,
        /// The character found in it.
        character: char,
    },
    /// Not the name of an environment variable.
    #[error("--{option}: {value:?} is no variable name (letters, digits and _, no digit first)")]
    VariableName {
        /// Long name of the option, without dashes.
        option: &'static str,
        /// The value as given.
        value: String,
    },
    /// Two fields that Slurm would let contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

/// Refuses text that is empty or has control characters.
pub(super) fn check_text(option: &'static str, value: &str) -> Result<(), ArgumentError> {
    if value.is_empty() {
        return Err(ArgumentError::Empty { option });
    }
    check_controls(option, value)
}

/// Refuses control characters.
pub(super) fn check_controls(option: &'static str, value: &str) -> Result<(), ArgumentError> {
    if value.chars().any(char::is_control) {
        return Err(ArgumentError::ControlCharacter { option, value: value.to_owned() });
    }
    Ok(())
}

/// [`check_text`], and none of `separators` in it.
pub(super) fn check_item(
    option: &'static str,
    value: &str,
    separators: &[char],
) -> Result<(), ArgumentError> {
    check_text(option, value)?;
    match value.chars().find(|character| separators.contains(character)) {
        Some(character) => {
            Err(ArgumentError::Separator { option, value: value.to_owned(), character })
        }
        None => Ok(()),
    }
}

/// Refuses what is no name of an environment variable.
pub(super) fn check_variable(option: &'static str, name: &str) -> Result<(), ArgumentError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if first && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(ArgumentError::VariableName { option, value: name.to_owned() })
}

/// Collects `--name=value` arguments in the order they are added.
#[derive(Debug, Default)]
pub(super) struct Arguments(Vec<String>);

impl Arguments {
    pub(super) fn flag(&mut self, option: &'static str, set: bool) {
        if set {
            self.0.push(format!("--{option}"));
        }
    }

    pub(super) fn text(
        &mut self,
        option: &'static str,
        value: Option<&str>,
    ) -> Result<(), ArgumentError> {
        if let Some(value) = value {
            check_text(option, value)?;
            self.0.push(format!("--{option}={value}"));
        }
        Ok(())
    }

    /// A number that may be 0.
    pub(super) fn number(&mut self, option: &'static str, value: Option<u32>) {
        self.0.extend(value.map(|value| format!("--{option}={value}")));
    }

    /// A number that must not be 0.
    pub(super) fn count(
        &mut self,
        option: &'static str,
        value: Option<u32>,
    ) -> Result<(), ArgumentError> {
        if value == Some(0) {
            return Err(ArgumentError::Zero { option });
        }
        self.number(option, value);
        Ok(())
    }

    /// Arguments that go through as they are, after all others, so that they win.
    pub(super) fn finish(mut self, extra: &[String]) -> Result<Vec<String>, ArgumentError> {
        for argument in extra {
            check_text("extra", argument)?;
        }
        self.0.extend_from_slice(extra);
        Ok(self.0)
    }
}
