// SPDX-License-Identifier: Apache-2.0
//! Interruptions as events: while a job is followed, Ctrl-C, SIGTERM and SIGHUP end nothing by
//! themselves, and waiting for one of them is also how time passes.

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

/// The signals that people and systems interrupt a command with.
const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// The interruptions of this process, taken one by one.
#[derive(Debug)]
pub struct Interrupts(RefCell<Signals>, UnixStream);

/// What came while a person was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A line, without its newline.
    Line(String),
    /// Another signal.
    Signal(Signal),
    /// The end of the input.
    End,
}

impl Interrupts {
    /// From now on, signals come here. Those that this process was started with as ignored
    /// (`nohup`, a background process of a script) stay ignored.
    ///
    /// # Errors
    /// The system's.
    pub fn take_over() -> io::Result<Self> {
        let ignored = ignored_signals()?;
        let signals = SIGNALS.into_iter().filter(|signal| ignored & (1 << (signal - 1)) == 0);
        let signals = signals::take_over(&signals.collect::<Vec<_>>())?;
        let polled = signals.get_read().try_clone()?;
        Ok(Self(RefCell::new(signals), polled))
    }

    /// Waits for the next one, so long at most.
    ///
    /// # Errors
    /// The system's.
    pub fn wait(&self, limit: Duration) -> io::Result<Option<Signal>> {
        readable(&[self.as_fd()], limit)?;
        Ok(self.next())
    }

    /// Waits for a line on standard input, or the next interruption.
    ///
    /// # Errors
    /// The system's.
    pub fn wait_for_line(&self) -> io::Result<Answer> {
        let stdin = io::stdin();
        loop {
            let ready = readable(&[self.as_fd(), stdin.as_fd()], Duration::MAX)?;
            if let Some(signal) = self.next() {
                return Ok(Answer::Signal(signal));
            }
            if ready.get(1) == Some(&true) {
                let mut line = String::new();
                let length = stdin.read_line(&mut line)?;
                return Ok(match length {
                    0 => Answer::End,
                    _ => Answer::Line(line.trim().to_owned()),
                });
            }
        }
    }

    fn next(&self) -> Option<Signal> {
        // Several that came at once count as one: whoever is interrupted does the same for each.
        self.0.borrow_mut().pending().filter_map(Signal::from_named_raw).next()
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.1.as_fd()
    }
}

/// Waits until one of the files can be read or has ended, so long at most; says which.
///
/// # Errors
/// The system's.
pub fn readable(files: &[BorrowedFd<'_>], limit: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> =
        files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)).collect();
    // What is longer than a clock can say is no limit.
    let limit = Timespec::try_from(limit).ok();
    match poll(&mut polled, limit.as_ref()) {
        Ok(_) => Ok(polled.iter().map(|file| !file.revents().is_empty()).collect()),
        // A signal, or Ctrl-Z and fg: what can be read is seen the next time.
        Err(Errno::INTR) => Ok(vec![false; files.len()]),
        Err(error) => Err(error.into()),
    }
}

/// The signals that are ignored, as bits.
fn ignored_signals() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))
}
