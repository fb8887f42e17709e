// SPDX-License-Identifier: Apache-2.0
//! Signals as bytes in a pipe, so that one poll waits for them and for everything else.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::ptr;

use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// The signals that arrive, with a pipe that is readable when there are any.
pub type Signals = SignalDelivery<UnixStream, SignalOnly>;

/// Handles these signals of the process from now on, also where its parent has blocked them: Slurm
/// 25.05 and 25.11.0 start a job's tasks with SIGCHLD blocked.
///
/// # Errors
/// Those of the system.
pub fn take_over(signals: &[c_int]) -> io::Result<Signals> {
    let (read, write) = UnixStream::pair()?;
    let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
    // A pending signal is delivered now, so the handlers are installed first.
    mask(libc::SIG_UNBLOCK, signals)?;
    Ok(delivery)
}

/// Changes the calling thread's mask.
fn mask(how: c_int, signals: &[c_int]) -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it; the old mask pointer may be null.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(how, set.as_ptr(), ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use signal_hook::consts::{SIGUSR1, SIGUSR2};

    #[test]
    fn signals_that_were_blocked_arrive() {
        mask(libc::SIG_BLOCK, &[SIGUSR1, SIGUSR2]).unwrap();
        let mut signals = take_over(&[SIGUSR2]).unwrap();
        // To this thread alone: other threads of the test do not block it.
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert_eq!(signals.pending().collect::<Vec<_>>(), [SIGUSR2]);
    }
}
