// SPDX-License-Identifier: Apache-2.0
//! Error objects: what is wrong, where, and what to do about it.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use super::entry::{Failure, entry, freeing};
use super::ffi::{Texts, fill, given, growing, item};
use super::status::disagg_status;
use crate::diagnostic::{Diagnostic, Severity};

/// How much a diagnostic weighs.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum disagg_severity {
    /// Worth knowing; nothing is wrong.
    Note = 0,
    /// Probably a mistake; the plan was made all the same.
    Warning = 1,
    /// No plan could be made.
    Error = 2,
}

/// One thing that is wrong, or worth saying. Its texts belong to the handle that it was read from
/// and live as long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct disagg_diagnostic {
    /// Set by the caller: `sizeof (disagg_diagnostic)`.
    pub size: usize,
    /// What is wrong: one sentence.
    pub message: *const c_char,
    /// The file, or the name of the text, that it is in; NULL when it is in none.
    pub file: *const c_char,
    /// What to do about it; NULL when the message says it.
    pub help: *const c_char,
    /// All of it for a person: `file:line:column: error: message`, the line, a caret, the help.
    pub text: *const c_char,
    /// How much it weighs.
    pub severity: disagg_severity,
    /// The line in `file`, from 1; 0 without a file.
    pub line: u32,
    /// The column, in characters, from 1; 0 without a file.
    pub column: u32,
    /// How many characters are meant; 0 without a file.
    pub length: u32,
}

growing!(disagg_diagnostic, last length: u32);

/// The C form of diagnostics, those that weigh most first.
pub(super) fn listed(
    found: &[Diagnostic],
    texts: &mut Texts,
) -> Result<Vec<disagg_diagnostic>, Failure> {
    let mut sorted: Vec<&Diagnostic> = found.iter().collect();
    sorted.sort_by_key(|diagnostic| std::cmp::Reverse(diagnostic.severity));
    sorted.into_iter().map(|diagnostic| one(diagnostic, texts)).collect()
}

fn one(diagnostic: &Diagnostic, texts: &mut Texts) -> Result<disagg_diagnostic, Failure> {
    let location = diagnostic.location.as_ref();
    let at = location.map(|location| location.position).unwrap_or_default();
    let mut keep = |text: &str| texts.keep(without_nul(text));
    let absent = std::ptr::null_mut();
    Ok(disagg_diagnostic {
        size: size_of::<disagg_diagnostic>(),
        message: keep(&diagnostic.message)?,
        file: location.map_or(Ok(absent), |location| keep(&location.source.name))?,
        help: diagnostic.help.as_deref().map_or(Ok(absent), &mut keep)?,
        text: keep(&diagnostic.to_string())?,
        severity: match diagnostic.severity {
            Severity::Note => disagg_severity::Note,
            Severity::Warning => disagg_severity::Warning,
            Severity::Error => disagg_severity::Error,
        },
        line: at.line,
        column: at.column,
        length: at.length,
    })
}

/// A message quotes foreign text, which may hold what no C text can.
fn without_nul(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// Why a call failed: at least one diagnostic. It never changes, so any number of threads may read
/// it at the same time. Freed with `disagg_error_free`.
pub struct disagg_error {
    status: disagg_status,
    rendered: *const c_char,
    diagnostics: Vec<disagg_diagnostic>,
    /// What the pointers above point into.
    _texts: Texts,
}

// SAFETY: it owns what its pointers point to, and nothing changes after `new`.
unsafe impl Send for disagg_error {}
// SAFETY: as above.
unsafe impl Sync for disagg_error {}

impl disagg_error {
    pub(super) fn new(failure: Failure) -> Self {
        let mut texts = Texts::default();
        // Neither fails: no NUL is left in what is kept.
        let diagnostics = listed(&failure.diagnostics.0, &mut texts).unwrap_or_default();
        let rendered = without_nul(&failure.diagnostics.to_string());
        let rendered = texts.keep(rendered).map_or(c"".as_ptr(), |text| text.cast_const());
        Self { status: failure.status, rendered, diagnostics, _texts: texts }
    }

    #[cfg(test)]
    pub(super) fn rendered(&self) -> &str {
        // SAFETY: it is a text of this object.
        unsafe { std::ffi::CStr::from_ptr(self.rendered) }.to_str().unwrap()
    }
}

/// The status that the failed call returned.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_error_status(
    error: Option<&disagg_error>,
    status: Option<&mut MaybeUninit<disagg_status>>,
) -> disagg_status {
    entry(None, || {
        let error = given(error, "error")?;
        given(status, "status")?.write(error.status);
        Ok(())
    })
}

/// All diagnostics of an error as one text for a person, several lines long. It is borrowed from
/// the error.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_error_text(
    error: Option<&disagg_error>,
    text: Option<&mut MaybeUninit<*const c_char>>,
) -> disagg_status {
    entry(None, || {
        let error = given(error, "error")?;
        given(text, "text")?.write(error.rendered);
        Ok(())
    })
}

/// How many diagnostics an error has; at least one.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_error_count(
    error: Option<&disagg_error>,
    count: Option<&mut MaybeUninit<usize>>,
) -> disagg_status {
    entry(None, || {
        let error = given(error, "error")?;
        given(count, "count")?.write(error.diagnostics.len());
        Ok(())
    })
}

/// One diagnostic of an error by its index, from 0: errors come first, so the one with index 0 is
/// why the call failed. Its texts are borrowed from the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_error_diagnostic(
    error: Option<&disagg_error>,
    index: usize,
    diagnostic: *mut disagg_diagnostic,
) -> disagg_status {
    entry(None, || {
        let found = item(&given(error, "error")?.diagnostics, index, "diagnostic")?;
        // SAFETY: the caller gives a struct of the size that it says.
        unsafe { fill(diagnostic, found, "diagnostic") }
    })
}

/// Frees an error and the texts borrowed from it. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_error_free(error: Option<Box<disagg_error>>) {
    freeing(error);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::Diagnostics;

    #[test]
    fn the_first_diagnostic_is_an_error_even_after_warnings() {
        let found = vec![Diagnostic::warning("w"), Diagnostic::error("bad \0 text")];
        let error = disagg_error::new(Failure::new(disagg_status::BadInput, Diagnostics(found)));
        assert_eq!(error.diagnostics[0].severity, disagg_severity::Error);
        assert_eq!(error.diagnostics[1].severity, disagg_severity::Warning);
        assert_eq!(error.rendered(), "warning: w\nerror: bad \\u{0} text");
    }

    #[test]
    fn errors_may_be_read_by_several_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<disagg_error>();
    }
}
