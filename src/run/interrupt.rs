// SPDX-License-Identifier: Apache-2.0
//! Signals as events: while a job is followed, Ctrl-C, SIGTERM and SIGHUP do not end the process.
//! Waiting for one of them, with a timeout, is also how the process sleeps.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::signals::{self, Signals};

/// The signals that ask a command to end.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The signals that this process has received.
#[derive(Debug)]
pub struct Interrupts(RefCell<Signals>, UnixStream);

/// What arrived while the process waited for a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A line, without its newline.
    Line(String),
    /// A signal.
    Signal(Signal),
    /// The end of the input.
    End,
}

impl Interrupts {
    /// Handles the signals of this process from now on. Those that were ignored at its start
    /// (`nohup`, a background process of a script) stay ignored.
    ///
    /// # Errors
    /// Those of the system.
    pub fn take_over() -> io::Result<Self> {
        let ignored = ignored_signals()?;
        let signals = SIGNALS.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let signals = signals::take_over(&signals.collect::<Vec<_>>())?;
        let polled = signals.get_read().try_clone()?;
        Ok(Self(RefCell::new(signals), polled))
    }

    /// Waits for the next signal, with a timeout.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<Signal>> {
        readable(&[self.as_fd()], timeout)?;
        Ok(self.next())
    }

    /// Waits for a line on standard input, or the next signal.
    ///
    /// # Errors
    /// Those of the system.
    pub fn wait_for_line(&self) -> io::Result<Input> {
        let stdin = io::stdin();
        loop {
            let ready = readable(&[self.as_fd(), stdin.as_fd()], Duration::MAX)?;
            if let Some(signal) = self.next() {
                return Ok(Input::Signal(signal));
            }
            if ready.get(1) == Some(&true) {
                let mut line = String::new();
                let length = stdin.read_line(&mut line)?;
                return Ok(match length {
                    0 => Input::End,
                    _ => Input::Line(line.trim().to_owned()),
                });
            }
        }
    }

    fn next(&self) -> Option<Signal> {
        // Several at once count as one: the reaction to each is the same.
        self.0.borrow_mut().pending().filter_map(Signal::from_named_raw).next()
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}

/// Waits until one of the files can be read or has ended, with a timeout; gives which ones.
///
/// # Errors
/// Those of the system.
pub fn readable(files: &[BorrowedFd<'_>], timeout: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> =
        files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)).collect();
    // A timeout beyond the clock's range is none.
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut polled, timeout.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|file| !file.revents().is_empty()).collect()),
        // A signal, or Ctrl-Z and fg: the next call sees what can be read.
        Err(Errno::INTR) => Ok(vec![false; files.len()]),
        Err(error) => Err(error.into()),
    }
}

/// The ignored signals, as bits.
fn ignored_signals() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
}
