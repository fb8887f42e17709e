// SPDX-License-Identifier: Apache-2.0
//! A process that looks to the plugin like slurmctld: Slurm's library is loaded first, then the
//! plugin's own file, and submissions come as job descriptions made with Slurm's allocator.

mod plugin_file;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::OnceLock;
use std::{mem, ptr};

use disagg_host::version::Release;
use job_submit_disagg::release::BUILT_FOR;
use job_submit_disagg::slurm::{NO_VAL, NO_VAL16, job_descriptor};

type JobSubmit = unsafe extern "C" fn(*mut job_descriptor, u32, *mut *mut c_char) -> c_int;
type JobModify = unsafe extern "C" fn(*mut job_descriptor, *mut c_void, u32) -> c_int;

/// What is called in the two files.
pub struct Loaded {
    pub job_submit: JobSubmit,
    pub job_modify: JobModify,
    xstrdup: unsafe extern "C" fn(*const c_char) -> *mut c_char,
    xfree: unsafe extern "C" fn(*mut *mut c_char),
}

/// Slurm's library and the plugin, loaded once.
///
/// # Panics
/// Without libslurm, when it is of another release than the header, or without the plugin.
pub fn loaded() -> &'static Loaded {
    loaded_into(c"libslurm.so", BUILT_FOR)
}

/// The same with another library in place of Slurm's, when this is called first. The plugin must
/// claim to be for `release`.
pub fn loaded_into(library: &CStr, release: Release) -> &'static Loaded {
    static LOADED: OnceLock<Loaded> = OnceLock::new();
    LOADED.get_or_init(|| load(library, release))
}

fn load(library: &CStr, release: Release) -> Loaded {
    let library = open(library, libc::RTLD_NOW | libc::RTLD_GLOBAL);
    let path = CString::new(plugin_file::plugin_file().as_os_str().as_bytes()).expect("no NUL");
    let plugin = open(&path, libc::RTLD_LAZY);
    // SAFETY: each is of the type that Slurm's headers give it.
    unsafe {
        let version: *const u32 = symbol(plugin, c"plugin_version");
        assert_eq!(Release::of_version(*version), release);
        let init: unsafe extern "C" fn() -> c_int = symbol(plugin, c"init");
        assert_eq!(init(), 0);
        Loaded {
            job_submit: symbol(plugin, c"job_submit"),
            job_modify: symbol(plugin, c"job_modify"),
            xstrdup: symbol(library, c"slurm_xstrdup"),
            xfree: symbol(library, c"slurm_xfree"),
        }
    }
}

/// Opens a shared object.
pub fn open(path: &CStr, mode: c_int) -> *mut c_void {
    // SAFETY: a C string; neither file's constructors need anything.
    let handle = unsafe { libc::dlopen(path.as_ptr(), mode) };
    // SAFETY: after a failure the reason is a C string.
    let reason = || unsafe { CStr::from_ptr(libc::dlerror()) }.to_string_lossy().into_owned();
    assert!(!handle.is_null(), "{} (libslurm.so is in libslurm-dev)", reason());
    handle
}

/// What has that name in a shared object.
///
/// # Safety
/// `F` must be the type of a pointer to what has that name.
pub unsafe fn symbol<F: Copy>(handle: *mut c_void, name: &CStr) -> F {
    const { assert!(mem::size_of::<F>() == mem::size_of::<*mut c_void>()) };
    // SAFETY: a live handle and a C string.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    assert!(!address.is_null(), "no {name:?}");
    // SAFETY: both are one pointer wide, and the caller vouches for the type.
    unsafe { mem::transmute_copy(&address) }
}

/// A string of Slurm's allocator.
pub fn text(text: &[u8]) -> *mut c_char {
    let text = CString::new(text).expect("no NUL");
    // SAFETY: a C string.
    unsafe { (loaded().xstrdup)(text.as_ptr()) }
}

/// Frees a string of Slurm's allocator.
pub fn free(field: &mut *mut c_char) {
    // SAFETY: NULL or a string of Slurm's allocator.
    unsafe { (loaded().xfree)(field) }
}

/// What a field holds.
pub fn read(field: *const c_char) -> Option<String> {
    // SAFETY: NULL or a C string.
    (!field.is_null()).then(|| unsafe { CStr::from_ptr(field) }.to_string_lossy().into_owned())
}

/// A submission, and what slurmctld would do with it. Its SPANK entries are leaked, as a test may.
pub struct Submission {
    /// The description, to be changed at will.
    pub desc: Box<job_descriptor>,
}

impl Submission {
    /// With these SPANK entries and everything else left open, as Slurm's clients send it.
    pub fn new(entries: &[&[u8]]) -> Self {
        // SAFETY: all zero bytes are numbers and NULL pointers.
        let desc: Box<job_descriptor> = Box::new(unsafe { mem::zeroed() });
        let mut job = Self { desc };
        let entries: Vec<_> = entries.iter().map(|entry| text(entry)).collect();
        job.desc.spank_job_env_size = entries.len().try_into().expect("few");
        job.desc.spank_job_env = entries.leak().as_mut_ptr();
        job.reset();
        job
    }

    /// Leaves everything open again.
    pub fn reset(&mut self) {
        let open16 = u16::try_from(NO_VAL16).expect("16 bits");
        let d = &mut self.desc;
        d.min_nodes = NO_VAL;
        d.max_nodes = NO_VAL;
        d.num_tasks = NO_VAL;
        d.time_limit = NO_VAL;
        d.time_min = NO_VAL;
        d.ntasks_per_node = open16;
        d.ntasks_per_tres = open16;
        d.sockets_per_node = open16;
        free(&mut d.tres_per_node);
        free(&mut d.comment);
    }

    /// Hands it to the plugin: the code and the message, as slurmctld gets them.
    pub fn call(&mut self) -> (c_int, *mut c_char) {
        let mut err_msg = ptr::null_mut();
        // SAFETY: a whole description, its strings from Slurm's allocator.
        let code = unsafe { (loaded().job_submit)(&raw mut *self.desc, 0, &raw mut err_msg) };
        (code, err_msg)
    }

    /// Hands it to the plugin as an update of a job.
    pub fn modify(&mut self) -> c_int {
        // SAFETY: a whole description; the record is not looked at.
        unsafe { (loaded().job_modify)(&raw mut *self.desc, ptr::null_mut(), 0) }
    }

    /// Hands it to the plugin; the refusal's text when it refuses.
    pub fn submit(&mut self) -> Result<(), String> {
        let (code, mut err_msg) = self.call();
        let message = read(err_msg);
        free(&mut err_msg);
        match (code, message) {
            (0, None) => Ok(()),
            (-1, Some(message)) => Err(message),
            other => panic!("not a way to answer slurmctld: {other:?}"),
        }
    }
}
