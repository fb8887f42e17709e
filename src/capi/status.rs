// SPDX-License-Identifier: Apache-2.0
//! What a call came to.

use std::ffi::{CStr, c_char};

/// What a call came to. A number, once given, is never given another meaning; later versions may
/// add some.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum disagg_status {
    /// It did what was asked.
    Ok = 0,
    /// A pointer that must not be NULL is NULL.
    NullPointer = 1,
    /// An argument has no meaning: a `size` that no version has, text that is not UTF-8, a word
    /// that is none of those to choose from, an array that is too small.
    BadArgument = 2,
    /// The configuration, the site's settings or the environment are missing or wrong: the error's
    /// diagnostics say what, where and what to do.
    BadInput = 3,
    /// A text is not a plan's JSON form, or a plan's that another version wrote.
    BadPlan = 4,
    /// There is no such step, or nothing with this index.
    NotFound = 5,
    /// A list of nodes cannot be read, or has fewer nodes than the plan.
    BadNodes = 6,
    /// The operating system refused something, such as the current directory.
    System = 7,
    /// A fault of the library itself. Nothing was written, every handle is still good; please
    /// report the error's text.
    Panic = 100,
}

const TEXTS: &[(disagg_status, &CStr)] = &[
    (disagg_status::Ok, c"success"),
    (disagg_status::NullPointer, c"a pointer that must not be NULL is NULL"),
    (disagg_status::BadArgument, c"an argument has no meaning"),
    (disagg_status::BadInput, c"the configuration or the settings are wrong"),
    (disagg_status::BadPlan, c"not a plan that this version reads"),
    (disagg_status::NotFound, c"no such item"),
    (disagg_status::BadNodes, c"the list of nodes does not fit"),
    (disagg_status::System, c"the operating system refused"),
    (disagg_status::Panic, c"a fault of the library"),
];

/// A few words on a status, for messages without an error object. The text is never freed. A number
/// that is no status of this version gives `unknown status`.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_status_text(status: u32) -> *const c_char {
    let known = TEXTS.iter().find(|(known, _)| *known as u32 == status);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u32) -> &'static str {
        // SAFETY: the function gives static text.
        unsafe { CStr::from_ptr(disagg_status_text(status)) }.to_str().unwrap()
    }

    #[test]
    fn the_numbers_are_those_that_programs_were_compiled_with() {
        let numbers: Vec<_> = TEXTS.iter().map(|(status, _)| *status as u32).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 100]);
    }

    #[test]
    fn a_number_from_elsewhere_has_a_text_too() {
        assert_eq!(text(0), "success");
        assert_eq!(text(u32::MAX), "unknown status");
    }
}
