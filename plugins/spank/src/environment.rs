// SPDX-License-Identifier: Apache-2.0
//! The environment of the client itself: what srun reads as its defaults, and what a job or step
//! gets. At submit time `spank_setenv` is refused, so it is changed by setenv(3).

/// The plan, for everything that runs in the job.
pub use disagg::input::handover::{BEFORE_STEP, CONTAINER, STEP_ROLE, TASK, VARIABLE as PLAN};

/// The file with the host of each task that srun reads.
pub const HOST_FILE: &str = "SLURM_HOSTFILE";

/// What [`CONTAINER`] is in a step whose tasks run several programs.
pub const SEVERAL: &str = "multi-prog";

/// How srun spreads tasks; `arbitrary` takes the host file.
pub const DISTRIBUTION: &str = "SLURM_DISTRIBUTION";

/// The demand, as Slurm shows it to the job.
pub const DEMAND: &str = "SLURM_SPANK_DISAGG_DEMAND";

/// The right to change this process's environment, which only a program with one thread has.
pub struct Mutable(());

impl Mutable {
    /// Takes that right for a callback.
    ///
    /// # Safety
    /// The process must have no other thread as long as the value is used.
    #[must_use]
    pub unsafe fn new() -> Self {
        Self(())
    }

    /// Sets a variable.
    ///
    /// # Errors
    /// A message, when no environment can hold the name or the value.
    pub fn set(&self, name: &str, value: &str) -> Result<(), String> {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("disagg: no environment variable can be {name:?} with that value"));
        }
        // SAFETY: there is no other thread, as promised to `new`.
        unsafe { std::env::set_var(name, value) }
        Ok(())
    }

    /// Removes a variable.
    pub fn unset(&self, name: &str) {
        // SAFETY: there is no other thread, as promised to `new`.
        unsafe { std::env::remove_var(name) }
    }
}

/// The value of a variable of this process, when it has one that is UTF-8 and not empty.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_environment_can_hold_is_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")] {
            // SAFETY: what is refused changes nothing.
            let environment = unsafe { Mutable::new() };
            assert!(environment.set(name, value).is_err(), "{name:?} {value:?}");
        }
    }
}
