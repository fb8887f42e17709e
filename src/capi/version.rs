// SPDX-License-Identifier: Apache-2.0
//! Which library a program talks to.

use std::ffi::c_char;

/// The version of the interface that this header describes. It counts up with every addition;
/// what is incompatible gets another SONAME.
pub const DISAGG_ABI_VERSION: u32 = 1;

/// The version of the interface that the loaded library has. A program needs one that is at least
/// the `DISAGG_ABI_VERSION` that it was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_abi_version() -> u32 {
    DISAGG_ABI_VERSION
}

/// The release of the library, as text (`0.1.0`). It is never freed.
#[unsafe(no_mangle)]
pub extern "C" fn disagg_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}
