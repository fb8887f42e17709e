// SPDX-License-Identifier: Apache-2.0
//! The results of calls, and the version of the library.

use std::ffi::{CStr, c_char};

/// The version of the interface that this header describes. Every addition increases it;
/// incompatible changes get another SONAME.
pub const DISAGG_ABI_VERSION: u32 = 3;

/// The version of the interface of the loaded library. A program needs at least the
/// `DISAGG_ABI_VERSION` that it was compiled with: an older library's structs are shorter.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_abi_version() -> u32 {
    DISAGG_ABI_VERSION
}

/// The release of the library, such as `0.1.0`. The text is static.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The result of a call. A number never changes its meaning; later versions may add some.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum disagg_status {
    /// Success.
    Ok = 0,
    /// A pointer is NULL that must not be NULL.
    NullPointer = 1,
    /// An argument is invalid: text that is not UTF-8, an unknown setting, a value that the setting
    /// does not have.
    BadArgument = 2,
    /// The configuration, site.yaml, the environment or a file is missing or wrong.
    BadInput = 3,
    /// The text is not a plan, or a plan of another version.
    BadPlan = 4,
    /// The plan has no such step.
    NotFound = 5,
    /// The hostlist is invalid, or has fewer nodes than the plan.
    BadNodes = 6,
    /// The operating system refused a request, such as the one for the current directory.
    System = 7,
    /// Internal error: please report the error's text. No output was written, and every handle can
    /// still be used.
    Internal = 100,
}

const TEXTS: &[(disagg_status, &CStr)] = &[
    (disagg_status::Ok, c"success"),
    (disagg_status::NullPointer, c"a pointer is NULL"),
    (disagg_status::BadArgument, c"invalid argument"),
    (disagg_status::BadInput, c"invalid configuration, settings or environment"),
    (disagg_status::BadPlan, c"not a plan that this version reads"),
    (disagg_status::NotFound, c"no such step"),
    (disagg_status::BadNodes, c"invalid hostlist, or too few nodes"),
    (disagg_status::System, c"the operating system refused a request"),
    (disagg_status::Internal, c"internal error, please report"),
];

/// A few words about a status. The text is static. An unknown number gives `unknown status`.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_status_text(status: u32) -> *const c_char {
    let known = TEXTS.iter().find(|(known, _)| *known as u32 == status);
    known.map_or(c"unknown status", |(_, text)| text).as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_programs_were_compiled_with() {
        let numbers: Vec<_> = TEXTS.iter().map(|(status, _)| *status as u32).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 100]);
    }
}
