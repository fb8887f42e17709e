// SPDX-License-Identifier: Apache-2.0
//! The symbols by which slurmctld knows the plugin, and nothing else: loading, submit, modify.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{PoisonError, RwLock};

use disagg_host::demand::{self, Demand};
use disagg_host::symbols::{FAILURE, SUCCESS, slurm_xfree, slurm_xstrdup};
use disagg_host::version::Running;
use disagg_host::{guard, log};

use crate::desc::{Desc, copy, free};
use crate::release;
use crate::settings::{FILE_NAME, Settings};
use crate::size::decide;
use crate::slurm::{SLURM_VERSION_NUMBER, job_descriptor};
use crate::tres::TresForm;

disagg_host::declare_plugin! {
    name: "Disaggregated serving: job sizing",
    kind: "job_submit/disagg",
    built_in: SLURM_VERSION_NUMBER,
    adopt: Running::for_daemon,
}

disagg_host::slurm_functions! {
    /// The path of a configuration file beside slurm.conf; slurmctld frees nothing of it.
    fn slurm_get_extra_conf_path: unsafe extern "C" fn(*const c_char) -> *mut c_char;
}

/// The site's settings; `None` while the plugin is inert.
static SETTINGS: RwLock<Option<Settings>> = RwLock::new(None);

/// slurmctld's `default_part_name`; NULL where there is none.
static DEFAULT_PARTITION: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// Slurm calls it after loading the plugin, and again when it loads it anew.
///
/// Always succeeds: a failure would stop slurmctld. A plugin that may not work here says so and
/// stays inert.
#[unsafe(no_mangle)]
pub extern "C" fn init() -> c_int {
    guard::entry("init", SUCCESS, || {
        let settings = match usable() {
            Ok(()) => {
                log::verbose(&format!(
                    "disagg: job_submit/disagg is active, built for Slurm {}",
                    release::BUILT_FOR
                ));
                find_default_partition();
                Some(read_settings())
            }
            Err(reason) => {
                log::error(&format!(
                    "disagg: job_submit/disagg does NOTHING: {reason}. No job is sized or \
                     refused; install the job_submit_disagg.so that was built for this release"
                ));
                None
            }
        };
        *SETTINGS.write().unwrap_or_else(PoisonError::into_inner) = settings;
        SUCCESS
    })
}

/// Slurm calls it before unloading the plugin.
#[unsafe(no_mangle)]
pub extern "C" fn fini() -> c_int {
    guard::entry("fini", SUCCESS, || {
        *SETTINGS.write().unwrap_or_else(PoisonError::into_inner) = None;
        SUCCESS
    })
}

/// Slurm calls it for every submission and, from 23.02 on, for several at once.
///
/// Gives -1 to refuse the job, with sentences for the submitter in `err_msg`, from Slurm's
/// allocator.
///
/// # Safety
/// To be called by Slurm only: `desc` must be as [`Desc::new`] needs it, and `err_msg` must point
/// to NULL or to a string of Slurm's allocator.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn job_submit(
    desc: *mut job_descriptor,
    submit_uid: u32,
    err_msg: *mut *mut c_char,
) -> c_int {
    guard::entry("job_submit", FAILURE, || {
        let settings = SETTINGS.read().unwrap_or_else(PoisonError::into_inner);
        let Some(settings) = settings.as_ref() else { return SUCCESS };
        // SAFETY: the caller vouches for it, and the release check for the layout.
        let Some(desc) = (unsafe { desc.as_mut() }) else { return SUCCESS };
        // SAFETY: as above.
        let mut desc = unsafe { Desc::new(desc) };
        match submit(&mut desc, settings) {
            Ok(()) => SUCCESS,
            Err(sentences) => {
                log::verbose(&format!("disagg: uid {submit_uid}: {}", sentences.join("; ")));
                // SAFETY: the caller vouches for it.
                if let Some(err_msg) = unsafe { err_msg.as_mut() } {
                    tell(err_msg, &sentences);
                }
                FAILURE
            }
        }
    })
}

/// Slurm calls it for every `scontrol update` of a job.
///
/// It lets everything pass. The update itself says nothing of a demand, and the job record, which
/// has it, is not in any header: it could only be read by guessing its layout. The launch and each
/// step check the allocation against the plan, and `job_submit_disagg.lua`, to which Slurm hands
/// the record by name, refuses such updates. From 23.02 on Slurm passes a fourth argument, which is
/// not needed here.
#[unsafe(no_mangle)]
pub extern "C" fn job_modify(
    _desc: *mut job_descriptor,
    _record: *mut c_void,
    _submit_uid: u32,
) -> c_int {
    SUCCESS
}

fn submit(desc: &mut Desc<'_>, settings: &Settings) -> Result<(), Vec<String>> {
    let Some(text) = desc.demand() else { return Ok(()) };
    let demand = std::str::from_utf8(text)
        .map_err(|_| "it is not ASCII text".to_owned())
        .and_then(|text| Demand::parse(text).map_err(|error| error.to_string()))
        .map_err(|reason| {
            vec![format!(
                "{} is not a demand that this controller understands: {reason}; submit with \
                 --disagg-config, and with the plugin of the controller's version",
                demand::VARIABLE
            )]
        })?;
    let partition = default_partition();
    let fill = decide(
        &desc.ask(partition),
        &demand,
        settings,
        TresForm::of_release(SLURM_VERSION_NUMBER),
    )?;
    desc.apply(&fill).map_err(|_| vec!["Slurm's allocator cannot be reached".to_owned()])
}

/// Puts the sentences into `err_msg`, behind what an earlier plugin may have left there.
fn tell(err_msg: &mut *mut c_char, sentences: &[String]) {
    let mut text = String::new();
    if !err_msg.is_null() {
        // SAFETY: not NULL, so a string of Slurm's allocator.
        text.push_str(&unsafe { CStr::from_ptr(*err_msg) }.to_string_lossy());
    }
    for sentence in sentences {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str("disagg: ");
        text.push_str(sentence);
    }
    if let Ok(new) = copy(&text) {
        free(err_msg);
        *err_msg = new;
    }
}

/// Whether the plugin may work in this process.
fn usable() -> Result<(), String> {
    release::check(release::BUILT_FOR, Running::detect())?;
    if slurm_xstrdup().is_none() || slurm_xfree().is_none() {
        return Err("Slurm's slurm_xstrdup and slurm_xfree are not in this process".to_owned());
    }
    Ok(())
}

fn read_settings() -> Settings {
    let path = settings_path();
    let name = path.display();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let (settings, problems) = Settings::parse(&text);
            for problem in problems {
                log::error(&format!("disagg: {name}:{problem}"));
            }
            settings
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            log::verbose(&format!("disagg: no {name}: the default settings hold"));
            Settings::default()
        }
        Err(error) => {
            log::error(&format!("disagg: {name} cannot be read ({error}): its limits do not hold"));
            Settings::default()
        }
    }
}

/// `disagg.conf` beside slurm.conf, as Slurm itself finds such files.
fn settings_path() -> PathBuf {
    if let (Some(path_of), Ok(name)) = (slurm_get_extra_conf_path(), CString::new(FILE_NAME)) {
        // SAFETY: a C string.
        let mut path = unsafe { path_of(name.as_ptr()) };
        if !path.is_null() {
            // SAFETY: not NULL, so a C string.
            let found = PathBuf::from(unsafe { CStr::from_ptr(path) }.to_string_lossy().as_ref());
            free(&mut path);
            return found;
        }
    }
    let conf = std::env::var_os("SLURM_CONF")
        .map_or_else(|| "/etc/slurm/slurm.conf".into(), PathBuf::from);
    conf.with_file_name(FILE_NAME)
}

/// Finds `default_part_name`, in which slurmctld keeps the name of the cluster's default partition
/// (20.11 to 26.05). At load, because looking up a symbol may wait for the loader's lock.
fn find_default_partition() {
    // SAFETY: the name is a C string; RTLD_DEFAULT is a valid handle at any time.
    let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"default_part_name".as_ptr()) };
    DEFAULT_PARTITION.store(symbol.cast(), Ordering::Release);
}

/// The cluster's default partition, when it is known.
fn default_partition<'a>() -> Option<&'a CStr> {
    // SAFETY: NULL, or slurmctld's variable, a `char *` that it does not change while it holds the
    // locks of a submission.
    let name = *unsafe { DEFAULT_PARTITION.load(Ordering::Acquire).as_ref() }?;
    // SAFETY: not NULL, so a C string that lives as long as the locks are held.
    (!name.is_null()).then(|| unsafe { CStr::from_ptr(name) })
}
