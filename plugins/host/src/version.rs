// SPDX-License-Identifier: Apache-2.0
//! Which Slurm is running, and the `plugin_version` that it wants to see.
//!
//! Slurm reads `plugin_version` as data after it has opened a plugin, so a function that runs at
//! load may set it first. One file then fits every release whose ABI is known to be the same.

use std::ffi::{CStr, CString, c_int, c_uint, c_void};

use crate::symbols;

/// A release series of Slurm, as in `22.05`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// The year.
    pub major: u8,
    /// The month.
    pub minor: u8,
}

impl Release {
    /// The series of a `plugin_version`.
    #[must_use]
    pub const fn of_version(version: c_uint) -> Self {
        let [_, major, minor, _] = version.to_be_bytes();
        Self { major, minor }
    }

    /// The `plugin_version` of this series' release `micro`.
    #[must_use]
    pub const fn version(self, micro: u8) -> c_uint {
        c_uint::from_be_bytes([0, self.major, self.minor, micro])
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.major, self.minor)
    }
}

/// The API number of each release series that is known, from 20.11 on.
const API_NUMBERS: [(u16, Release); 11] = [
    (36, Release { major: 20, minor: 11 }),
    (37, Release { major: 21, minor: 8 }),
    (38, Release { major: 22, minor: 5 }),
    (39, Release { major: 23, minor: 2 }),
    (40, Release { major: 23, minor: 11 }),
    (41, Release { major: 24, minor: 5 }),
    (42, Release { major: 24, minor: 11 }),
    (43, Release { major: 25, minor: 5 }),
    (44, Release { major: 25, minor: 11 }),
    (45, Release { major: 26, minor: 5 }),
    (46, Release { major: 26, minor: 11 }),
];

/// What is known of the Slurm that loaded the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its release series, when its API number is a known one.
    pub release: Option<Release>,
    /// The exact `plugin_version` of a plugin of its own that it has already loaded.
    pub exact: Option<c_uint>,
}

impl Running {
    /// Asks the process.
    #[must_use]
    pub fn detect() -> Self {
        // SAFETY: the function takes nothing and has no precondition.
        let api = symbols::slurm_api_version().map(|f| unsafe { f() });
        Self {
            release: api.and_then(|api| u16::try_from(api >> 16).ok()).and_then(release_of_api),
            exact: exact_version(),
        }
    }

    /// Whether a step with `srun --overlap` shares what any other step has. In 20.11 it shares
    /// processors only with steps that overlap too, and GPUs with none.
    #[must_use]
    pub fn overlap_is_one_sided(self) -> bool {
        self.release.is_none_or(|release| release > Release { major: 20, minor: 11 })
    }

    /// What a SPANK plugin should claim: nothing of a release that is not known, so that Slurm
    /// itself refuses the plugin with its own message.
    #[must_use]
    pub fn for_spank(self) -> Option<c_uint> {
        let release = self.release?;
        let exact = self.exact.filter(|v| Release::of_version(*v) == release);
        Some(exact.unwrap_or(release.version(0)))
    }

    /// What a plugin should claim whose refusal would stop the daemon: what the daemon's own
    /// plugins say, whichever release that is. Such a plugin must itself stay inert when the
    /// release is not the one that it was built for.
    #[must_use]
    pub fn for_daemon(self) -> Option<c_uint> {
        self.exact.or_else(|| self.for_spank())
    }
}

fn release_of_api(number: u16) -> Option<Release> {
    API_NUMBERS.iter().find(|(n, _)| *n == number).map(|(_, release)| *release)
}

/// The version that an already loaded plugin of Slurm's own carries. Other SPANK plugins do not
/// count: their micro number is not checked, so it may be anything.
fn exact_version() -> Option<c_uint> {
    let mut paths: Vec<CString> = Vec::new();
    // SAFETY: the callback gets a valid record and the vector, which lives until the call ends.
    unsafe { libc::dl_iterate_phdr(Some(collect_path), (&raw mut paths).cast()) };
    paths.iter().find_map(|path| version_in(path))
}

unsafe extern "C" fn collect_path(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    paths: *mut c_void,
) -> c_int {
    // SAFETY: the loader hands over a valid record, and `exact_version` its vector.
    let (name, paths) = unsafe { ((*info).dlpi_name, &mut *paths.cast::<Vec<CString>>()) };
    if !name.is_null() {
        // SAFETY: the name of a loaded object is a C string.
        let name = unsafe { CStr::from_ptr(name) };
        let file = name.to_bytes().rsplit(|b| *b == b'/').next().unwrap_or_default();
        if file.ends_with(b".so") && !file.starts_with(b"lib") {
            paths.push(name.to_owned());
        }
    }
    0
}

fn version_in(path: &CStr) -> Option<c_uint> {
    // SAFETY: a C string; NOLOAD only gives a handle of what is loaded and runs no code.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return None;
    }
    // Slurm's own types have a slash: a SPANK plugin's is `spank`.
    let version = own_data(handle, path, c"plugin_type")
        .filter(|kind| kind.contains(&b'/'))
        .and_then(|_| own_data(handle, path, c"plugin_version"))
        .and_then(|version| Some(c_uint::from_ne_bytes(version.try_into().ok()?)));
    // SAFETY: the handle is from dlopen, and is not used any more.
    unsafe { libc::dlclose(handle) };
    version
}

/// `RTLD_DL_SYMENT`: `extra` becomes the symbol at the address.
const SYMBOL: c_int = 1;
/// `STT_OBJECT`: the symbol is data.
const DATA: u8 = 1;

/// The bytes of a data symbol that the object itself defines, not one of its dependencies. How many
/// there are is known from the object's table: any library may have symbols of these names. To be
/// used before the handle is closed.
fn own_data<'a>(handle: *mut c_void, path: &CStr, name: &CStr) -> Option<&'a [u8]> {
    // SAFETY: a live handle and a C string.
    let address = unsafe { libc::dlsym(handle, name.as_ptr()) };
    if address.is_null() {
        return None;
    }
    // SAFETY: all zero bytes are a valid record of pointers, which dladdr then fills.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    let mut symbol: *mut c_void = std::ptr::null_mut();
    // SAFETY: the address is one that dlsym gave; both records are this function's.
    let known = unsafe { libc::dladdr1(address, &raw mut info, &raw mut symbol, SYMBOL) } != 0;
    if !known || info.dli_fname.is_null() || info.dli_saddr != address {
        return None;
    }
    // SAFETY: after success the symbol is NULL or in the object's table, and the name of the object
    // is a C string.
    let (symbol, object) =
        unsafe { (symbol.cast::<libc::Elf64_Sym>().as_ref()?, CStr::from_ptr(info.dli_fname)) };
    if object != path || symbol.st_info & 0xf != DATA {
        return None;
    }
    let length = usize::try_from(symbol.st_size).ok()?;
    // SAFETY: the object has so many bytes of data there, and stays loaded until the caller closes
    // its handle.
    Some(unsafe { std::slice::from_raw_parts(address.cast(), length) })
}

/// Declares the three symbols by which Slurm knows a plugin, and the function that adopts the
/// running release's version when the file is loaded.
///
/// ```
/// disagg_host::declare_plugin! {
///     name: "disagg",
///     kind: "spank",
///     built_in: disagg_host::version::Release { major: 20, minor: 11 }.version(0),
///     adopt: disagg_host::version::Running::for_spank,
/// }
/// ```
///
/// `built_in` is what Slurm sees when `adopt` gives `None`. The symbols must not be bound to those
/// of another file, so link the plugin with `-Bsymbolic`.
#[macro_export]
macro_rules! declare_plugin {
    (name: $name:literal, kind: $kind:literal, built_in: $built_in:expr, adopt: $adopt:path $(,)?) => {
        /// The plugin's name, a C string.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)]
        pub static plugin_name: [u8; $name.len() + 1] = $crate::version::c_string($name);

        /// The plugin's type, a C string.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)]
        pub static plugin_type: [u8; $kind.len() + 1] = $crate::version::c_string($kind);

        /// The Slurm version that the plugin claims to be for. Written once, while the file is
        /// being loaded; read by Slurm afterwards.
        #[unsafe(no_mangle)]
        #[allow(non_upper_case_globals)]
        pub static mut plugin_version: ::std::ffi::c_uint = $built_in;

        extern "C" fn adopt_running_version() {
            let _ = ::std::panic::catch_unwind(|| {
                if let Some(version) = $adopt($crate::version::Running::detect()) {
                    // SAFETY: the loader runs this before anybody can reach the symbol.
                    unsafe { plugin_version = version };
                }
            });
        }

        #[used]
        #[unsafe(link_section = ".init_array")]
        static ADOPT_RUNNING_VERSION: extern "C" fn() = adopt_running_version;
    };
}

/// The text with a closing NUL, for [`declare_plugin!`].
#[doc(hidden)]
#[must_use]
pub const fn c_string<const N: usize>(text: &str) -> [u8; N] {
    assert!(text.len() + 1 == N);
    let mut bytes = [0; N];
    let mut i = 0;
    while i < text.len() {
        bytes[i] = text.as_bytes()[i];
        i += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const R2205: Release = Release { major: 22, minor: 5 };

    #[test]
    fn a_version_number_is_made_of_year_month_and_micro() {
        assert_eq!(R2205.version(8), 0x16_0508);
        assert_eq!(Release::of_version(0x16_0508), R2205);
        assert_eq!(R2205.to_string(), "22.05");
    }

    #[test]
    fn each_api_number_stands_for_one_release_and_both_rise_together() {
        assert!(API_NUMBERS.windows(2).all(|w| w[0].0 + 1 == w[1].0 && w[0].1 < w[1].1));
        assert_eq!(release_of_api(38), Some(R2205));
    }

    #[test]
    fn an_api_number_that_is_not_known_is_no_release() {
        assert_eq!(release_of_api(35), None);
        assert_eq!(release_of_api(47), None);
    }

    #[test]
    fn a_spank_plugin_claims_the_exact_version_when_it_agrees_with_the_api_number() {
        let running = Running { release: Some(R2205), exact: Some(0x16_0508) };
        assert_eq!(running.for_spank(), Some(0x16_0508));
        let running = Running { release: Some(R2205), exact: Some(0x17_0b05) };
        assert_eq!(running.for_spank(), Some(0x16_0500));
        let running = Running { release: Some(R2205), exact: None };
        assert_eq!(running.for_spank(), Some(0x16_0500));
    }

    #[test]
    fn a_spank_plugin_claims_nothing_of_an_unknown_release() {
        let running = Running { release: None, exact: Some(0x1b_0501) };
        assert_eq!(running.for_spank(), None);
    }

    #[test]
    fn a_daemons_plugin_claims_what_the_daemons_own_plugins_say() {
        let running = Running { release: None, exact: Some(0x1b_0501) };
        assert_eq!(running.for_daemon(), Some(0x1b_0501));
        let running = Running { release: Some(R2205), exact: None };
        assert_eq!(running.for_daemon(), Some(0x16_0500));
    }

    #[test]
    fn outside_slurm_nothing_is_known() {
        assert_eq!(Running::detect(), Running { release: None, exact: None });
    }

    #[test]
    fn a_text_becomes_a_c_string() {
        assert_eq!(c_string::<6>("spank"), *b"spank\0");
    }
}
