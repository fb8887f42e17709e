// SPDX-License-Identifier: Apache-2.0
//! The way into the library: every function runs inside [`entry`], which turns failures and panics
//! into a status and an error object.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Once, OnceLock};

use super::error::disagg_error;
use super::status::disagg_status;
use crate::diagnostic::{Diagnostic, Diagnostics};

/// Why a call failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: disagg_status,
    pub(super) diagnostics: Diagnostics,
}

impl Failure {
    pub(super) fn new(status: disagg_status, found: impl Into<Diagnostics>) -> Self {
        Self { status, diagnostics: found.into() }
    }

    pub(super) fn because(status: disagg_status, message: impl Into<String>) -> Self {
        Self::new(status, Diagnostic::error(message))
    }

    pub(super) fn null(argument: &str) -> Self {
        Self::because(disagg_status::NullPointer, format!("`{argument}` must not be NULL"))
    }

    pub(super) fn argument(message: impl Into<String>) -> Self {
        Self::because(disagg_status::BadArgument, message)
    }
}

/// Runs a function's body. On failure `error`, when it is given, receives an error object.
pub(super) fn entry(
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
    body: impl FnOnce() -> Result<(), Failure>,
) -> disagg_status {
    let Err(failure) = guarded(body) else { return disagg_status::Ok };
    let status = failure.status;
    if let Some(error) = error
        && let Ok(object) = guarded(|| Ok(Box::new(disagg_error::new(failure))))
    {
        error.write(Box::into_raw(object));
    }
    status
}

/// Runs the body of a function that frees a handle.
pub(super) fn freeing<T>(handle: Option<Box<T>>) {
    entry(None, || {
        drop(handle);
        Ok(())
    });
}

thread_local! {
    /// Whether this thread is inside the library.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The text of the panic that is being turned into a failure.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

fn guarded<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    quiet_panics();
    // A callback may call the library again.
    let outer = INSIDE.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    outcome.unwrap_or_else(|_| {
        let text = PANIC.try_with(|text| text.take()).unwrap_or_default();
        let diagnostic = Diagnostic::error(format!("a fault of the library: {text}"))
            .help("please report this text; nothing was changed");
        Err(Failure::new(disagg_status::Panic, diagnostic))
    })
}

/// Keeps the panics that become failures off stderr, which belongs to the program around.
fn quiet_panics() {
    type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;
    // In a static, so that the library holds no memory for it that a leak check would report.
    static OTHERS: OnceLock<Hook> = OnceLock::new();
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        OTHERS.get_or_init(std::panic::take_hook);
        std::panic::set_hook(Box::new(|info| {
            if INSIDE.get() {
                // Without its text the panic still becomes a status.
                let _ = PANIC.try_with(|text| *text.borrow_mut() = info.to_string());
            } else if let Some(others) = OTHERS.get() {
                others(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_an_error_with_its_place() {
        let mut error = MaybeUninit::uninit();
        let status = entry(Some(&mut error), || panic!("no such rule: {}", 7));
        assert_eq!(status, disagg_status::Panic);
        // SAFETY: a failure writes an error object, which is ours now.
        let error = unsafe { Box::from_raw(error.assume_init()) };
        assert!(error.rendered().contains("no such rule: 7"), "{}", error.rendered());
        assert!(error.rendered().contains("entry.rs"), "{}", error.rendered());
    }

    #[test]
    fn a_call_within_a_call_leaves_the_outer_one_guarded() {
        let status = entry(None, || {
            entry(None, || Err(Failure::null("x")));
            panic!("outer")
        });
        assert_eq!(status, disagg_status::Panic);
    }

    #[test]
    fn a_panic_while_a_handle_is_freed_goes_no_further() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("while dropping");
            }
        }
        freeing(Some(Box::new(Bad)));
    }

    #[test]
    fn success_leaves_the_error_alone() {
        let mut error = MaybeUninit::new(std::ptr::dangling_mut());
        assert_eq!(entry(Some(&mut error), || Ok(())), disagg_status::Ok);
        // SAFETY: it was written above.
        assert_eq!(unsafe { error.assume_init() }, std::ptr::dangling_mut());
    }
}
