// SPDX-License-Identifier: Apache-2.0
//! What crosses the border: checked pointers, texts of callers, texts that callers borrow.

use std::ffi::{CStr, CString, c_char};

use super::guard::{Failure, freed};
use super::status::disagg_status;

/// The value of a pointer that must not be NULL.
pub(super) fn given<T>(pointer: Option<T>, argument: &str) -> Result<T, Failure> {
    pointer.ok_or_else(|| Failure::null(argument))
}

/// A text that must be there.
///
/// # Safety
/// `pointer` is NULL or a NUL-terminated string that stays as it is for `'a`.
pub(super) unsafe fn text<'a>(pointer: *const c_char, argument: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller guarantees it.
    let text = unsafe { optional(pointer, argument) }?;
    given(text, argument)
}

/// A text that may be NULL.
///
/// # Safety
/// As [`text`].
pub(super) unsafe fn optional<'a>(
    pointer: *const c_char,
    argument: &str,
) -> Result<Option<&'a str>, Failure> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and the caller guarantees the rest.
    let text = unsafe { CStr::from_ptr(pointer) }.to_str();
    text.map(Some).map_err(|_| Failure::argument(format!("`{argument}` is not UTF-8 text")))
}

/// The strings of an array that ends with NULL, as bytes.
///
/// # Safety
/// `array` is such an array, of strings that stay as they are for `'a`.
pub(super) unsafe fn strings<'a>(array: *const *mut c_char) -> Vec<&'a [u8]> {
    let mut found = Vec::new();
    let mut at = array;
    // SAFETY: `at` stays within the array, whose last element is NULL; every other is a string.
    while let Some(string) = unsafe { (*at).as_ref().map(|start| CStr::from_ptr(start)) } {
        found.push(string.to_bytes());
        // SAFETY: the element was not the last.
        at = unsafe { at.add(1) };
    }
    found
}

/// A handle that its caller owns from now on.
pub(super) fn handle<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// A text that its caller owns from now on.
pub(super) fn string(text: String) -> Result<*mut c_char, Failure> {
    CString::new(text).map(CString::into_raw).map_err(|_| has_nul())
}

fn has_nul() -> Failure {
    Failure::because(disagg_status::BadPlan, "a text of the plan contains a NUL character")
}

/// The texts and arrays that the callers of a handle borrow. Each keeps its address.
#[derive(Default)]
pub(super) struct Texts {
    texts: Vec<Vec<u8>>,
    arrays: Vec<Vec<*mut c_char>>,
}

impl Texts {
    /// Keeps a text.
    pub(super) fn keep(&mut self, text: impl Into<Vec<u8>>) -> Result<*mut c_char, Failure> {
        let mut text = text.into();
        if text.contains(&0) {
            return Err(has_nul());
        }
        text.push(0);
        let pointer = text.as_mut_ptr().cast();
        self.texts.push(text);
        Ok(pointer)
    }

    /// Keeps a text if there is one; else NULL.
    pub(super) fn keep_some(
        &mut self,
        text: Option<impl Into<Vec<u8>>>,
    ) -> Result<*mut c_char, Failure> {
        text.map_or(Ok(std::ptr::null_mut()), |text| self.keep(text))
    }

    /// Keeps texts; their array ends with NULL, as `execve` takes it.
    pub(super) fn keep_all<T: Into<Vec<u8>>>(
        &mut self,
        texts: impl IntoIterator<Item = T>,
    ) -> Result<*const *mut c_char, Failure> {
        let kept: Result<Vec<_>, _> = texts.into_iter().map(|text| self.keep(text)).collect();
        Ok(self.array(kept?))
    }

    /// Keeps an array of texts that are kept already, and ends it with NULL.
    pub(super) fn array(&mut self, mut texts: Vec<*mut c_char>) -> *const *mut c_char {
        texts.push(std::ptr::null_mut());
        let pointer = texts.as_ptr();
        self.arrays.push(texts);
        pointer
    }
}

/// What callers borrow from a handle: numbers and pointers into texts that it keeps.
pub(super) struct Lent<T> {
    pub(super) lent: T,
    _texts: Texts,
}

// SAFETY: it owns what its pointers point to, and nothing changes after `new`.
unsafe impl<T> Send for Lent<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Lent<T> {}

impl<T> Lent<T> {
    pub(super) fn new(
        make: impl FnOnce(&mut Texts) -> Result<T, Failure>,
    ) -> Result<Self, Failure> {
        let mut texts = Texts::default();
        Ok(Self { lent: make(&mut texts)?, _texts: texts })
    }
}

/// Frees a text that a function stored through a `char **`. NULL is allowed. Borrowed texts must
/// not be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn disagg_string_free(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: the caller gives what `string` made, once.
        freed(unsafe { CString::from_raw(string) });
    }
}
