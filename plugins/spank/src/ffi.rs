// SPDX-License-Identifier: Apache-2.0
//! The SPANK interface, declared by ourselves: it has not changed from 20.11 to 26.11, and a
//! header would tie the file to one release.
//!
//! Error numbers did change (0..11 in 20.11, 3000 and up later), so a result is only ever compared
//! with 0. Source of the declarations: `slurm/spank.h`.

use std::ffi::{CStr, CString, OsString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStringExt as _;
use std::ptr;

use disagg_host::slurm_functions;

/// `spank_t`.
pub type RawHandle = *mut c_void;

/// `struct spank_option`.
#[repr(C)]
pub struct SpankOption {
    /// Long option's name, without dashes.
    pub name: *const c_char,
    /// What the help calls its argument; NULL without one.
    pub arginfo: *const c_char,
    /// What the help says.
    pub usage: *const c_char,
    /// Whether it takes an argument.
    pub has_arg: c_int,
    /// Handed to the callback.
    pub val: c_int,
    /// Called for each use.
    pub callback: Option<extern "C" fn(c_int, *const c_char, c_int) -> c_int>,
}

/// `S_JOB_NNODES`: nodes of the step (`uint32_t *`).
const S_JOB_NNODES: c_uint = 4;
/// `S_JOB_TOTAL_TASK_COUNT`: tasks of the step (`uint32_t *`).
const S_JOB_TOTAL_TASK_COUNT: c_uint = 7;
/// `S_JOB_ARGV`: the command of the step (`int *`, `char ***`).
const S_JOB_ARGV: c_uint = 9;
/// `S_JOB_ENV`: the environment of the job (`char ***`), not to be freed or changed.
const S_JOB_ENV: c_uint = 10;

slurm_functions! {
    fn spank_context: unsafe extern "C" fn() -> c_uint;
    fn spank_option_register: unsafe extern "C" fn(RawHandle, *mut SpankOption) -> c_int;
    fn spank_get_item: unsafe extern "C" fn(RawHandle, c_uint, ...) -> c_int;
    fn spank_getenv:
        unsafe extern "C" fn(RawHandle, *const c_char, *mut c_char, c_int) -> c_int;
    fn spank_setenv:
        unsafe extern "C" fn(RawHandle, *const c_char, *const c_char, c_int) -> c_int;
    fn spank_unsetenv: unsafe extern "C" fn(RawHandle, *const c_char) -> c_int;
    fn spank_job_control_setenv:
        unsafe extern "C" fn(RawHandle, *const c_char, *const c_char, c_int) -> c_int;
    fn spank_job_control_unsetenv: unsafe extern "C" fn(RawHandle, *const c_char) -> c_int;
}

/// Which program has loaded the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// srun.
    Local,
    /// slurmstepd.
    Remote,
    /// sbatch, salloc.
    Allocator,
    /// slurmd.
    Daemon,
    /// A prolog's or epilog's helper, or nothing that is known.
    Other,
}

/// The context of the running process.
#[must_use]
pub fn context() -> Context {
    // SAFETY: the function takes nothing and may be called at any time.
    match spank_context().map(|f| unsafe { f() }) {
        Some(1) => Context::Local,
        Some(2) => Context::Remote,
        Some(3) => Context::Allocator,
        Some(4) => Context::Daemon,
        _ => Context::Other,
    }
}

/// A call that Slurm refused, or a name or value that no C string can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed for {subject} (Slurm's error {code})")]
pub struct Refused {
    call: &'static str,
    subject: String,
    code: c_int,
}

/// The handle of the current callback.
#[derive(Clone, Copy)]
pub struct Spank(RawHandle);

impl Spank {
    /// Takes the handle that Slurm gave to a callback.
    ///
    /// # Safety
    /// It must be that handle, and the result must not be used after the callback.
    #[must_use]
    pub unsafe fn new(handle: RawHandle) -> Self {
        Self(handle)
    }

    /// Registers an option; only legal in `slurm_spank_init`.
    ///
    /// # Errors
    /// Slurm's refusal, as when another plugin has an option of that name.
    ///
    /// # Safety
    /// The option must stay where it is as long as the plugin is loaded, its strings too.
    pub unsafe fn register(self, option: *mut SpankOption, name: &str) -> Result<(), Refused> {
        let register = required(spank_option_register(), "spank_option_register", name)?;
        // SAFETY: a live handle, and an option that stays.
        accepted("spank_option_register", name, unsafe { register(self.0, option) })
    }

    /// Sets a variable of the task's environment; only legal in slurmstepd.
    ///
    /// # Errors
    /// Slurm's refusal, or a NUL byte.
    pub fn set_env(self, name: &str, value: &str) -> Result<(), Refused> {
        let set = required(spank_setenv(), "spank_setenv", name)?;
        let (c_name, c_value) = (c_string(name, name)?, c_string(value, name)?);
        // SAFETY: a live handle and C strings, which Slurm copies.
        accepted("spank_setenv", name, unsafe { set(self.0, c_name.as_ptr(), c_value.as_ptr(), 1) })
    }

    /// Removes a variable of the task's environment, if it is there; only legal in slurmstepd.
    ///
    /// # Errors
    /// Slurm's refusal, or a NUL byte.
    pub fn unset_env(self, name: &str) -> Result<(), Refused> {
        let unset = required(spank_unsetenv(), "spank_unsetenv", name)?;
        let c_name = c_string(name, name)?;
        // SAFETY: a live handle and a C string.
        accepted("spank_unsetenv", name, unsafe { unset(self.0, c_name.as_ptr()) })
    }

    /// Sets a variable of the job's control environment, which slurmctld and the prolog see; only
    /// legal at submit time.
    ///
    /// # Errors
    /// Slurm's refusal, or a NUL byte.
    pub fn set_job_control(self, name: &str, value: &str) -> Result<(), Refused> {
        let set = required(spank_job_control_setenv(), "spank_job_control_setenv", name)?;
        let (c_name, c_value) = (c_string(name, name)?, c_string(value, name)?);
        // SAFETY: a live handle and C strings, which Slurm copies.
        accepted("spank_job_control_setenv", name, unsafe {
            set(self.0, c_name.as_ptr(), c_value.as_ptr(), 1)
        })
    }

    /// Removes a variable of the job's control environment, if it is there; only legal at submit
    /// time.
    pub fn unset_job_control(self, name: &str) {
        if let (Some(unset), Ok(name)) = (spank_job_control_unsetenv(), CString::new(name)) {
            // SAFETY: a live handle and a C string. That it was not there is no failure.
            unsafe { unset(self.0, name.as_ptr()) };
        }
    }

    /// Nodes and tasks of the step; `None` where Slurm does not tell.
    #[must_use]
    pub fn step_size(self) -> Option<(u32, u32)> {
        let get = spank_get_item()?;
        let (mut nodes, mut tasks) = (0u32, 0u32);
        // SAFETY: a live handle, and for each item the pointer that it takes.
        let known = unsafe {
            get(self.0, S_JOB_NNODES, &raw mut nodes) == 0
                && get(self.0, S_JOB_TOTAL_TASK_COUNT, &raw mut tasks) == 0
        };
        known.then_some((nodes, tasks))
    }

    /// Has another program executed with the task's arguments; gives the one that it replaces. Only legal in a
    /// task's own process: there the command is that process's alone.
    ///
    /// # Errors
    /// Slurm does not tell the command, or its program is not UTF-8.
    pub fn replace_program(self, program: &CStr) -> Result<String, Refused> {
        const CALL: &str = "spank_get_item";
        let get = required(spank_get_item(), CALL, "S_JOB_ARGV")?;
        let (mut count, mut words): (c_int, *mut *mut c_char) = (0, ptr::null_mut());
        // SAFETY: a live handle, and the pointers that the item takes.
        let code = unsafe { get(self.0, S_JOB_ARGV, &raw mut count, &raw mut words) };
        accepted(CALL, "S_JOB_ARGV", code)?;
        // SAFETY: S_JOB_ARGV gives an array of C strings that ends with NULL.
        let before = unsafe { strings(words, usize::from(count > 0)) }.pop();
        let before = before.and_then(|word| word.into_string().ok());
        let before = required(before, "a program's name", "S_JOB_ARGV")?;
        // SAFETY: the array has a first entry, and Slurm never frees it in a task's process.
        unsafe { *words = program.to_owned().into_raw() };
        Ok(before)
    }

    /// A variable of the task's environment that is expected to be short; `None` when it is not
    /// set, longer than 127 bytes, or not UTF-8.
    #[must_use]
    pub fn short_env(self, name: &str) -> Option<String> {
        let (get, c_name) = (spank_getenv()?, CString::new(name).ok()?);
        let mut buffer = [0u8; 128];
        let size = c_int::try_from(buffer.len()).ok()?;
        // SAFETY: a live handle, a C string, and a buffer of the size that is said.
        if unsafe { get(self.0, c_name.as_ptr(), buffer.as_mut_ptr().cast(), size) } != 0 {
            return None;
        }
        CStr::from_bytes_until_nul(&buffer).ok()?.to_str().ok().map(str::to_owned)
    }

    /// The environment of the task: names and values. What is not UTF-8 is read with replacement
    /// characters. Empty where Slurm does not tell.
    #[must_use]
    pub fn task_environment(self) -> Vec<(String, String)> {
        let Some(get) = spank_get_item() else { return Vec::new() };
        let mut entries: *mut *mut c_char = ptr::null_mut();
        // SAFETY: a live handle and the pointer that the item takes.
        if unsafe { get(self.0, S_JOB_ENV, &raw mut entries) } != 0 {
            return Vec::new();
        }
        // SAFETY: S_JOB_ENV gives an environment array.
        unsafe { strings(entries, usize::MAX) }
            .into_iter()
            .filter_map(|entry| {
                let entry = entry.to_string_lossy().into_owned();
                entry.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()))
            })
            .collect()
    }
}

/// The strings of a C array, up to its NULL or to `limit` of them.
///
/// # Safety
/// `array` must be NULL or an array of C strings that ends with NULL or has `limit` entries.
#[must_use]
pub unsafe fn strings(array: *const *mut c_char, limit: usize) -> Vec<OsString> {
    let mut found = Vec::new();
    if array.is_null() {
        return found;
    }
    for i in 0..limit {
        // SAFETY: before its end the array has an entry here.
        let entry = unsafe { *array.add(i) };
        if entry.is_null() {
            break;
        }
        // SAFETY: an entry that is not NULL is a C string.
        found.push(OsString::from_vec(unsafe { CStr::from_ptr(entry) }.to_bytes().to_vec()));
    }
    found
}

fn required<F>(function: Option<F>, call: &'static str, subject: &str) -> Result<F, Refused> {
    function.ok_or_else(|| Refused { call, subject: subject.to_owned(), code: -1 })
}

fn accepted(call: &'static str, subject: &str, code: c_int) -> Result<(), Refused> {
    if code == 0 { Ok(()) } else { Err(Refused { call, subject: subject.to_owned(), code }) }
}

fn c_string(text: &str, subject: &str) -> Result<CString, Refused> {
    CString::new(text).map_err(|_| Refused {
        call: "a string without NUL bytes",
        subject: subject.to_owned(),
        code: 0,
    })
}
