// SPDX-License-Identifier: Apache-2.0
//! Keeps panics inside the library: a panic becomes a [`Failure`], as every other error is.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Once, OnceLock};

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

thread_local! {
    /// Whether this thread is inside the library.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// The text of the latest panic.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs the body of an exported function.
pub(super) fn guarded<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    quiet_panics();
    let outer = INSIDE.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    outcome.unwrap_or_else(|_| {
        let text = PANIC.try_with(|text| text.take()).unwrap_or_default();
        let message = format!("internal error, please report: {text}");
        Err(Failure::because(disagg_status::Internal, message))
    })
}

/// Drops what an exported function frees.
pub(super) fn freed<T>(handle: T) {
    // Nobody can do anything about a panic here.
    let _ = guarded(|| {
        drop(handle);
        Ok(())
    });
}

/// Keeps the library's panics off stderr, which belongs to the program.
fn quiet_panics() {
    type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Sync + Send>;
    // In a static, so that a leak check does not report its memory.
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
        let failure = guarded::<()>(|| panic!("no such rule: {}", 7)).unwrap_err();
        assert_eq!(failure.status, disagg_status::Internal);
        let text = failure.diagnostics.to_string();
        assert!(text.contains("no such rule: 7") && text.contains("guard.rs"), "{text}");
    }

    #[test]
    fn a_call_within_a_call_leaves_the_outer_one_guarded() {
        let failure = guarded::<()>(|| {
            let _ = guarded::<()>(|| Err(Failure::null("x")));
            panic!("outer")
        });
        assert_eq!(failure.unwrap_err().status, disagg_status::Internal);
    }

    #[test]
    fn a_panic_while_a_handle_is_freed_stays_inside() {
        struct Bad;
        impl Drop for Bad {
            fn drop(&mut self) {
                panic!("while dropping");
            }
        }
        freed(Bad);
    }
}
