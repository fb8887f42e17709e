// SPDX-License-Identifier: Apache-2.0
//! Running one of Slurm's commands to its end, with a limit: a command that waits for a
//! controller that is down neither hangs this process nor keeps a person's Ctrl-C from it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::interrupt::{Interrupts, readable};

/// What a command said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// Its exit status; nothing when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output, with foreign bytes replaced.
    pub stdout: String,
    /// Its standard error, with foreign bytes replaced.
    pub stderr: String,
}

impl Said {
    /// Whether it ended with status 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.code == Some(0)
    }
}

/// Why a command said nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotSaid {
    /// It could not be run.
    #[error("{program} cannot be run: {error}; are Slurm's commands installed here, and on PATH?")]
    NotRun {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It took too long and was ended.
    #[error("{program} gave no answer within {} seconds", limit.as_secs())]
    TooSlow {
        /// Its name.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// An interruption came, and it was ended.
    #[error("interrupted")]
    Interrupted,
}

/// Runs a command to its end. It is ended itself at the limit, or when `interrupts` has
/// something, which stays there to be taken.
///
/// # Errors
/// [`NotSaid`].
pub fn ask(
    command: &mut Command,
    limit: Duration,
    interrupts: Option<&Interrupts>,
) -> Result<Said, NotSaid> {
    let program = command.get_program().to_string_lossy().into_owned();
    let not_run = |error| NotSaid::NotRun { program: program.clone(), error };
    // A group of its own: Ctrl-C is for this process to understand.
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_run)?;
    match hear(&mut child, limit, interrupts) {
        Ok(Heard::All(stdout, stderr)) => {
            let code = child.wait().map_err(not_run)?.code();
            let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
            Ok(Said { code, stdout: text(stdout), stderr: text(stderr) })
        }
        early => {
            let _ = child.kill();
            let _ = child.wait();
            Err(match early {
                Err(error) => not_run(error),
                Ok(Heard::Interruption) => NotSaid::Interrupted,
                Ok(_) => NotSaid::TooSlow { program, limit },
            })
        }
    }
}

enum Heard {
    All(Vec<u8>, Vec<u8>),
    Interruption,
    TooLittle,
}

fn hear(child: &mut Child, limit: Duration, interrupts: Option<&Interrupts>) -> io::Result<Heard> {
    let deadline = Instant::now().checked_add(limit);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while out.is_some() || err.is_some() {
        let left =
            deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(Heard::TooLittle);
        }
        let files = [
            out.as_ref().map(AsFd::as_fd),
            err.as_ref().map(AsFd::as_fd),
            interrupts.map(AsFd::as_fd),
        ];
        let open: Vec<_> = files.iter().flatten().copied().collect();
        let mut ready = readable(&open, left)?.into_iter();
        let [from_out, from_err, interrupted] =
            files.map(|file| file.is_some() && ready.next().unwrap_or(false));
        if interrupted {
            return Ok(Heard::Interruption);
        }
        if from_out {
            take(&mut out, &mut stdout)?;
        }
        if from_err {
            take(&mut err, &mut stderr)?;
        }
    }
    Ok(Heard::All(stdout, stderr))
}

/// Reads what is there; at its end, the file is closed.
fn take(file: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(open) = file else { return Ok(()) };
    let mut buffer = [0; 8192];
    match open.read(&mut buffer)? {
        0 => *file = None,
        length => into.extend_from_slice(&buffer[..length]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_outputs_and_the_status_are_heard() {
        let said = ask(&mut shell("echo out; echo err >&2; exit 3"), Duration::MAX, None).unwrap();
        let expected = Said { code: Some(3), stdout: "out\n".into(), stderr: "err\n".into() };
        assert_eq!(said, expected);
    }

    #[test]
    fn more_than_a_pipe_holds_is_heard_from_both() {
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2";
        let said = ask(&mut shell(script), Duration::MAX, None).unwrap();
        assert_eq!((said.stdout.len(), said.stderr.len()), (300_000, 300_000));
    }

    #[test]
    fn a_command_that_hangs_is_ended_at_the_limit() {
        let began = Instant::now();
        let mut command = Command::new("sleep");
        let said = ask(command.arg("60"), Duration::from_millis(50), None);
        assert!(matches!(said, Err(NotSaid::TooSlow { .. })), "{said:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_program_that_is_missing_is_named() {
        let error = ask(&mut Command::new("/no/squeue"), Duration::MAX, None).unwrap_err();
        assert!(error.to_string().starts_with("/no/squeue cannot be run: "), "{error}");
    }
}
