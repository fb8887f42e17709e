// SPDX-License-Identifier: Apache-2.0
//! Running one of Slurm's commands with a timeout: a command that waits for a controller that is
//! down neither hangs this process nor hides Ctrl-C from it.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::interrupt::{Interrupts, readable};

/// The output of a command that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output, with invalid UTF-8 replaced.
    pub stdout: String,
    /// Its standard error, with invalid UTF-8 replaced.
    pub stderr: String,
}

/// Why a command has no output.
#[derive(Debug, thiserror::Error)]
pub enum SubprocessError {
    /// It could not be run.
    #[error("cannot run {program}: {error}: install Slurm's commands, or add them to PATH")]
    NotRun {
        /// Its name.
        program: String,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// It was killed at the timeout.
    #[error("{program} timed out after {} s", timeout.as_secs())]
    TimedOut {
        /// Its name.
        program: String,
        /// The timeout.
        timeout: Duration,
    },
    /// It was killed because a signal arrived.
    #[error("interrupted")]
    Interrupted,
}

/// Runs a command to its end. It is killed at the timeout, and when a signal arrives at
/// `interrupts`, where the signal stays pending.
///
/// # Errors
/// [`SubprocessError`].
pub fn run(
    command: &mut Command,
    timeout: Duration,
    interrupts: Option<&Interrupts>,
) -> Result<Output, SubprocessError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let not_run = |error| SubprocessError::NotRun { program: program.clone(), error };
    // In a process group of its own: Ctrl-C is for this process only.
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(not_run)?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let end = read(&mut child, &mut stdout, &mut stderr, timeout, interrupts);
    if !matches!(end, Ok(End::Closed)) {
        let _ = child.kill();
    }
    let code = child.wait().map_err(not_run)?.code();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    match end.map_err(not_run)? {
        End::Closed => Ok(Output { code, stdout: text(stdout), stderr: text(stderr) }),
        End::Interrupted => Err(SubprocessError::Interrupted),
        End::TimedOut => Err(SubprocessError::TimedOut { program, timeout }),
    }
}

enum End {
    Closed,
    Interrupted,
    TimedOut,
}

fn read(
    child: &mut Child,
    stdout: &mut Vec<u8>,
    stderr: &mut Vec<u8>,
    timeout: Duration,
    interrupts: Option<&Interrupts>,
) -> io::Result<End> {
    let deadline = Instant::now().checked_add(timeout);
    let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
    while out.is_some() || err.is_some() {
        let left =
            deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Ok(End::TimedOut);
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
            return Ok(End::Interrupted);
        }
        if from_out {
            read_some(&mut out, stdout)?;
        }
        if from_err {
            read_some(&mut err, stderr)?;
        }
    }
    Ok(End::Closed)
}

/// Reads what is there; closes the file at its end.
fn read_some(file: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
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
    fn both_outputs_and_the_status_are_read() {
        let script = "echo out; echo err >&2; exit 3";
        let output = run(&mut shell(script), Duration::MAX, None).unwrap();
        let expected = Output { code: Some(3), stdout: "out\n".into(), stderr: "err\n".into() };
        assert_eq!(output, expected);
    }

    #[test]
    fn more_than_a_pipe_holds_is_read_from_both() {
        let script = "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2";
        let output = run(&mut shell(script), Duration::MAX, None).unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
    }

    #[test]
    fn a_command_that_hangs_is_killed_at_the_timeout() {
        let began = Instant::now();
        let mut command = Command::new("sleep");
        let output = run(command.arg("60"), Duration::from_millis(50), None);
        assert!(matches!(output, Err(SubprocessError::TimedOut { .. })), "{output:?}");
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("/no/squeue"), Duration::MAX, None).unwrap_err();
        assert!(error.to_string().starts_with("cannot run /no/squeue: "), "{error}");
    }
}
