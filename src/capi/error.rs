// SPDX-License-Identifier: Apache-2.0
//! Error objects, and the way into the library: [`entry`] turns a failure into a status and an
//! error object.

use std::cmp::Reverse;
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;

use super::ffi::{given, handle};
use super::guard::{Failure, freed, guarded};
use super::status::disagg_status;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::input::settings::TABLE;

/// Why a call failed. It never changes. Free it with `disagg_error_free`.
pub struct disagg_error {
    text: CString,
}

/// Diagnostics as a text for people, errors first, in the words of this library's users: what the
/// command has as options are fields of `disagg_options` here.
pub(super) fn rendered(found: Vec<Diagnostic>) -> CString {
    let mut words = vec![
        (
            "a configuration, --test-id or --test-list",
            "`options->config` or `options->test_id`".into(),
        ),
        ("--config-file", "`options->config`".into()),
        ("--test-id", "`options->test_id`".into()),
    ];
    for setting in TABLE {
        let name = super::options::name_of(setting);
        words.extend(setting.option.map(|option| (option, format!("{name} (options->settings)"))));
    }
    let mut found: Vec<_> = found.into_iter().map(|one| one.reworded(&words)).collect();
    found.sort_by_key(|diagnostic| Reverse(diagnostic.severity));
    // Nothing that is printed contains a NUL character.
    CString::new(Diagnostics(found).to_string()).unwrap_or_default()
}

/// Runs the body of a function that stores its result in `out`, which messages call `argument`. On
/// failure `error`, unless it is NULL, receives an error object.
pub(super) fn entry<T>(
    out: Option<&mut MaybeUninit<T>>,
    argument: &str,
    error: Option<&mut MaybeUninit<*mut disagg_error>>,
    body: impl FnOnce() -> Result<T, Failure>,
) -> disagg_status {
    let stored = guarded(|| {
        given(out, argument)?.write(body()?);
        Ok(())
    });
    let Err(Failure { status, diagnostics }) = stored else { return disagg_status::Ok };
    if let Some(error) = error
        && let Ok(object) = guarded(|| Ok(handle(disagg_error { text: rendered(diagnostics.0) })))
    {
        error.write(object);
    }
    status
}

/// What is wrong and what to do, for people: one or more lines, each problem as
/// `FILE:LINE:COLUMN: error: MESSAGE`, the line in question and advice. The text is borrowed from
/// the error. NULL gives an empty text.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_error_text(error: Option<&disagg_error>) -> *const c_char {
    error.map_or(c"", |error| &error.text).as_ptr()
}

/// Frees an error and its text. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_error_free(error: Option<Box<disagg_error>>) {
    freed(error);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_first_and_advise_what_a_c_program_has() {
        let found = vec![
            Diagnostic::warning("w").help("give the path with --config-file to choose one"),
            Diagnostic::error("--time: bad \0 text: --time=x"),
            Diagnostic::error("no models").help(crate::input::settings::MODELS_DIR.how_to_set()),
        ];
        assert_eq!(
            rendered(found).to_str().unwrap(),
            "error: time (options->settings): bad \\u{0} text: --time=x\n\
             error: no models\n  help: set models_dir (options->settings), CLUSTER_LLM_DATA \
             (environment) or models_dir (site.yaml)\n\
             warning: w\n  help: give the path with `options->config` to choose one"
        );
    }

    #[test]
    fn success_leaves_the_error_alone() {
        let mut error = MaybeUninit::new(std::ptr::dangling_mut());
        let mut out = MaybeUninit::uninit();
        let status = entry(Some(&mut out), "out", Some(&mut error), || Ok(7));
        assert_eq!(status, disagg_status::Ok);
        // SAFETY: both are written.
        let (out, error) = unsafe { (out.assume_init(), error.assume_init()) };
        assert_eq!((out, error), (7, std::ptr::dangling_mut()));
    }

    #[test]
    fn a_null_output_is_reported_before_anything_is_read() {
        let status = entry::<()>(None, "plan", None, || panic!("it was read"));
        assert_eq!(status, disagg_status::NullPointer);
    }
}
