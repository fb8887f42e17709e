// SPDX-License-Identifier: Apache-2.0
//! Slurm's own functions, found at run time.
//!
//! A plugin that names them as undefined symbols would bind them all at load (rustc links
//! `-z now`) and could be opened by nothing but Slurm. So each is asked for by name in the process
//! that loaded the plugin, once, and may be absent.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem;
use std::num::NonZeroUsize;

use once_cell::race::OnceNonZeroUsize;

/// Declares functions that are looked up by their own name in the running process.
///
/// `pub fn NAME: TYPE;` becomes `pub fn NAME() -> Option<TYPE>`, found once and then remembered;
/// `None` when the process has no such symbol. The caller vouches for the type, which must be an
/// `unsafe extern "C" fn` pointer with the signature of the C function of that name.
#[macro_export]
macro_rules! slurm_functions {
    ($($(#[$attribute:meta])* $visible:vis fn $name:ident: $type:ty;)*) => {$(
        $(#[$attribute])*
        #[must_use]
        $visible fn $name() -> Option<$type> {
            static FOUND: $crate::symbols::Found = $crate::symbols::Found::new();
            // SAFETY: the type is that of the C function of this name in Slurm's headers.
            unsafe { FOUND.get(concat!(stringify!($name), "\0")) }
        }
    )*};
}

/// A printf-like function of Slurm.
pub type LogFn = unsafe extern "C" fn(*const c_char, ...);

slurm_functions! {
    /// Logs at error level: the client's stderr, the daemon's log.
    pub fn slurm_error: LogFn;
    /// Logs at info level.
    pub fn slurm_info: LogFn;
    /// Logs at verbose level (`-v`).
    pub fn slurm_verbose: LogFn;
    /// Logs at debug level (`-vv`).
    pub fn slurm_debug: LogFn;
    /// Logs as loud as an error but without the word; reaches the user from slurmstepd too.
    pub fn slurm_spank_log: LogFn;
    /// The API number of the running release in its high 16 bits.
    pub fn slurm_api_version: unsafe extern "C" fn() -> c_long;
    /// Copies a string into memory that Slurm itself may free; NULL gives NULL.
    pub fn slurm_xstrdup: unsafe extern "C" fn(*const c_char) -> *mut c_char;
    /// Frees what a Slurm allocator gave, and sets the pointer to NULL.
    pub fn slurm_xfree: unsafe extern "C" fn(*mut *mut c_void) -> ();
}

/// The address of a function, looked up at its first use.
///
/// Threads that come first at the same time may each look it up: nobody waits for anybody, so a
/// child that is forked in the middle cannot be left with a lock that nobody will open.
pub struct Found(OnceNonZeroUsize);

/// Stands for a function that the process lacks; no function ends at the last address.
const ABSENT: NonZeroUsize = NonZeroUsize::MAX;

impl Found {
    /// Not looked up yet.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "only ever the value of a static")]
    pub const fn new() -> Self {
        Self(OnceNonZeroUsize::new())
    }

    /// The function of that name (with its closing NUL) in the running process.
    ///
    /// # Safety
    /// `F` must be the type of a pointer to the C function of that name.
    pub unsafe fn get<F: Copy>(&self, name: &str) -> Option<F> {
        const { assert!(mem::size_of::<F>() == mem::size_of::<usize>()) };
        let address = self.0.get_or_init(|| address(name).unwrap_or(ABSENT));
        // SAFETY: both are one pointer wide, and the caller vouches for the type.
        (address != ABSENT).then(|| unsafe { mem::transmute_copy(&address) })
    }
}

fn address(name: &str) -> Option<NonZeroUsize> {
    let name = CStr::from_bytes_with_nul(name.as_bytes()).ok()?;
    // SAFETY: the name is a C string; RTLD_DEFAULT is a valid handle at any time.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    NonZeroUsize::new(address.expose_provenance())
}

/// What a callback of Slurm's gives back: 0 is success, -1 failure. Every release takes -1 for a
/// failure; 20.11 takes positive numbers for success.
pub const SUCCESS: c_int = 0;
/// See [`SUCCESS`].
pub const FAILURE: c_int = -1;

#[cfg(test)]
mod tests {
    use super::*;

    slurm_functions! {
        fn strlen: unsafe extern "C" fn(*const c_char) -> usize;
        fn no_slurm_has_a_function_of_this_name: unsafe extern "C" fn();
    }

    #[test]
    fn a_function_of_the_process_is_found_by_its_name_and_can_be_called() {
        let strlen = strlen().unwrap();
        // SAFETY: strlen(3) of a C string.
        assert_eq!(unsafe { strlen(c"four".as_ptr()) }, 4);
    }

    #[test]
    fn a_function_that_the_process_lacks_is_none() {
        assert!(no_slurm_has_a_function_of_this_name().is_none());
        assert!(slurm_error().is_none());
    }
}
