// SPDX-License-Identifier: Apache-2.0
//! No panic leaves a plugin: one that did would abort sbatch, or slurmctld with every job in it.
//!
//! Each `.so` has a standard library of its own, so its panic hook is its own too: replacing it
//! disturbs nobody else in the process.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use crate::log;

/// Runs an entry of the plugin. A panic becomes a logged error that names the entry, and the value
/// `on_panic`.
///
/// What the closure had half changed is still reachable afterwards; it must be such that a failed
/// entry leaves nothing dangling.
pub fn entry<T>(name: &str, on_panic: T, body: impl FnOnce() -> T) -> T {
    static QUIET: Once = Once::new();
    // The default hook prints to stderr, in the middle of the user's output.
    QUIET.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map_or_else(String::new, |l| format!(" at {l}"));
            log::error(&format!("disagg: internal error{place}: {}", text(info.payload())));
        }));
    });
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => value,
        Err(payload) => {
            log::error(&format!(
                "disagg: {name} failed because of a bug in the plugin; please report it with the message above"
            ));
            // A payload may panic when it is dropped.
            std::mem::forget(payload);
            on_panic
        }
    }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nasty;
    impl Drop for Nasty {
        fn drop(&mut self) {
            panic!("again");
        }
    }

    #[test]
    fn a_panic_becomes_the_value_for_a_panic() {
        assert_eq!(entry("test", -1, || panic!("on purpose")), -1);
        assert_eq!(entry("test", -1, || panic!("with {}", "arguments")), -1);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_no_harm() {
        assert_eq!(entry("test", -1, || panic::panic_any(Nasty)), -1);
    }

    #[test]
    fn without_a_panic_the_bodys_own_value_is_given() {
        assert_eq!(entry("test", -1, || 7), 7);
    }
}
