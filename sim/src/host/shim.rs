// SPDX-License-Identifier: Apache-2.0
//! Loads the shared object with Slurm's functions into the global scope of this process and points
//! it at a table of the answers. It is in the program itself, so that a host needs no second file.

use crate::{launch::memory_file, release::Release};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_long, c_void},
    io::{self, Write},
    os::fd::AsRawFd,
};

const EXPORTS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/exports.so"));
const EXPORTS_WITH_PREPEND: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/exports_with_prepend.so"));

/// `struct sim_ops` of c/slurm_exports.c.
#[repr(C)]
pub(super) struct Ops {
    pub symbol_supported: extern "C" fn(*const c_char) -> c_int,
    pub context: extern "C" fn() -> c_int,
    pub remote: extern "C" fn(*mut c_void) -> c_int,
    pub option_register: extern "C" fn(*mut c_void, *const RawOption) -> c_int,
    pub option_getopt: extern "C" fn(*mut c_void, *const RawOption, *mut *mut c_char) -> c_int,
    pub get_item: extern "C" fn(*mut c_void, c_int, u64, *mut c_void, *mut c_void) -> c_int,
    pub getenv: extern "C" fn(*mut c_void, *const c_char, *mut c_char, c_int) -> c_int,
    pub setenv: extern "C" fn(*mut c_void, *const c_char, *const c_char, c_int) -> c_int,
    pub unsetenv: extern "C" fn(*mut c_void, *const c_char) -> c_int,
    pub job_control_getenv: extern "C" fn(*mut c_void, *const c_char, *mut c_char, c_int) -> c_int,
    pub job_control_setenv:
        extern "C" fn(*mut c_void, *const c_char, *const c_char, c_int) -> c_int,
    pub job_control_unsetenv: extern "C" fn(*mut c_void, *const c_char) -> c_int,
    pub strerror: extern "C" fn(c_int) -> *const c_char,
    pub prepend_task_argv: extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int,
    pub log: extern "C" fn(c_int, *const c_char),
    pub allocation_fails: extern "C" fn(*const c_char) -> c_int,
    pub foreign_pointer: extern "C" fn(*const c_char),
    pub api_version: extern "C" fn() -> c_long,
}

/// `struct spank_option` of spank.h.
#[repr(C)]
pub(super) struct RawOption {
    pub name: *const c_char,
    pub arginfo: *const c_char,
    pub usage: *const c_char,
    pub has_arg: c_int,
    pub val: c_int,
    pub cb: Option<OptionFn>,
}

/// A callback of the stack, as in C.
pub(super) type HookFn = unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char) -> c_int;

/// An option's callback, as in C.
pub(super) type OptionFn = unsafe extern "C" fn(c_int, *const c_char, c_int) -> c_int;

/// Makes Slurm's functions findable in this process.
pub(super) fn install(release: Release, ops: &Ops) -> io::Result<()> {
    let library = if release.has_prepend_task_argv() { EXPORTS_WITH_PREPEND } else { EXPORTS };
    let mut file = memory_file(c"slurm-sim-exports", 0).map_err(io::Error::other)?;
    file.write_all(library)?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    // SAFETY: the object is ours and has no constructors; sim_install copies the table.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
        if handle.is_null() {
            return Err(io::Error::other(dl_error()));
        }
        let symbol = libc::dlsym(handle, c"sim_install".as_ptr());
        if symbol.is_null() {
            return Err(io::Error::other(dl_error()));
        }
        let sim_install: extern "C" fn(*const Ops) = std::mem::transmute(symbol);
        sim_install(ops);
    }
    Ok(())
}

/// What dlerror(3) says of the last failure.
pub(super) fn dl_error() -> String {
    // SAFETY: dlerror returns NULL or a C string that is valid until the next dl call.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            "unknown error".to_owned()
        } else {
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// A C string from a plugin as text; None for NULL.
pub(super) fn text(pointer: *const c_char) -> Option<String> {
    // SAFETY: a plugin hands over NULL or a C string; that is the interface's rule.
    (!pointer.is_null()).then(|| unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned())
}

/// A C string for a plugin. A NUL byte can't be in it: the text ends there, as in C.
pub(super) fn c_string(text: &str) -> CString {
    let end = text.find('\0').unwrap_or(text.len());
    CString::new(&text[..end]).unwrap_or_default()
}

/// An argument vector for a plugin. It is never freed: nothing says when a plugin is done with it.
pub(super) fn c_argv<'a>(words: impl IntoIterator<Item = &'a str>) -> *mut *mut c_char {
    let mut pointers: Vec<_> = words.into_iter().map(|word| c_string(word).into_raw()).collect();
    pointers.push(std::ptr::null_mut());
    pointers.leak().as_mut_ptr()
}
