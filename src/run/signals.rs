// SPDX-License-Identifier: Apache-2.0
//! Signals as bytes in a pipe, to be waited for together with everything else.

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::ptr;

use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

/// The signals that arrive, and the pipe that says when to look.
pub type Signals = SignalDelivery<UnixStream, SignalOnly>;

/// From now on these signals of the process come here, also where whoever started it has blocked
/// them: Slurm 25.05 and 25.11.0 start a job's tasks with SIGCHLD blocked.
///
/// # Errors
/// The system's.
pub fn take_over(signals: &[c_int]) -> io::Result<Signals> {
    let (read, write) = UnixStream::pair()?;
    let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
    // One that has come before is delivered now, so the handlers are there first.
    mask(libc::SIG_UNBLOCK, signals)?;
    Ok(delivery)
}

/// Changes the calling thread's mask.
fn mask(how: c_int, signals: &[c_int]) -> io::Result<()> {
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset makes a set of it before anything reads it; the old mask is not wanted.
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
        // To this thread alone: others of the test's do not block it.
        signal_hook::low_level::raise(SIGUSR2).unwrap();
        assert_eq!(signals.pending().collect::<Vec<_>>(), [SIGUSR2]);
    }
}
