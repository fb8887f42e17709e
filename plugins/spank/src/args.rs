// SPDX-License-Identifier: Apache-2.0
//! Where each setting comes from: the command line first, then the environment, then the arguments
//! of the plugin's line in plugstack.conf.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use disagg::input::settings::{Options, TABLE as TABLE_OF_SETTINGS};
use disagg_host::symbols::{FAILURE, SUCCESS};
use disagg_host::{guard, log};

use crate::ffi::{Spank, SpankOption};

/// The longest value of an option that is kept, in bytes.
const MAX_VALUE: usize = 4096;

/// What `--disagg-role` asks for instead of a role.
pub const HELP: &str = "help";

/// An option of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opt {
    /// `--disagg-config`: the test config, by name or path.
    Config,
    /// `--disagg-test`: the test id.
    Test,
    /// `--disagg-role`: the instance that a step runs.
    Role,
    /// `--disagg-placement`: how servers share nodes.
    Placement,
    /// `--disagg-explain`: print where every value of the plan comes from.
    Explain,
    /// `--disagg-again`: start a step of a role that is already running.
    Again,
}

/// All options, in the order of the table that Slurm gets.
const ALL: [Opt; 6] = [Opt::Config, Opt::Test, Opt::Role, Opt::Placement, Opt::Explain, Opt::Again];

impl Opt {
    /// The long option without dashes, its environment variable, the name of its value in help
    /// texts, and its help.
    const fn text(self) -> (&'static CStr, &'static str, Option<&'static CStr>, &'static CStr) {
        match self {
            Self::Config => (
                c"disagg-config",
                "SLURM_DISAGG_CONFIG",
                Some(c"FILE"),
                c"plan the job by this recipe or configuration of a test (name or path)",
            ),
            Self::Test => (
                c"disagg-test",
                "SLURM_DISAGG_TEST",
                Some(c"ID"),
                c"id of the disaggregated test; its form decides which rule set applies",
            ),
            Self::Role => (
                c"disagg-role",
                "SLURM_DISAGG_ROLE",
                Some(c"ROLE"),
                c"size the step for this role of the job's plan, or 'help' to list the roles",
            ),
            Self::Placement => (
                c"disagg-placement",
                "SLURM_DISAGG_PLACEMENT",
                Some(c"HOW"),
                c"exclusive: each server has its own nodes; packed: small servers share nodes",
            ),
            Self::Explain => (
                c"disagg-explain",
                "SLURM_DISAGG_EXPLAIN",
                None,
                c"print where every value of the disaggregated plan comes from",
            ),
            Self::Again => (
                c"disagg-again",
                "SLURM_DISAGG_AGAIN",
                None,
                c"start a step of a role that is already running in the job",
            ),
        }
    }

    /// The long option, without dashes.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.text().0.to_str().unwrap_or_default()
    }

    /// The environment variable that sets it. Its name starts with `SLURM`, so it survives
    /// `--export=NONE`.
    #[must_use]
    pub fn variable(self) -> &'static str {
        self.text().1
    }
}

/// The table of options that Slurm keeps pointers into.
struct Table([SpankOption; ALL.len()]);

// SAFETY: the table is never written to, and its strings are constants.
unsafe impl Sync for Table {}

const fn option(opt: Opt) -> SpankOption {
    let (name, _, arginfo, usage) = opt.text();
    SpankOption {
        name: name.as_ptr(),
        arginfo: match arginfo {
            Some(text) => text.as_ptr(),
            None => ptr::null(),
        },
        usage: usage.as_ptr(),
        has_arg: arginfo.is_some() as c_int,
        val: opt as c_int,
        callback: Some(on_option),
    }
}

static TABLE: Table = Table([
    option(ALL[0]),
    option(ALL[1]),
    option(ALL[2]),
    option(ALL[3]),
    option(ALL[4]),
    option(ALL[5]),
]);

/// Registers all options with Slurm; only legal in `slurm_spank_init`.
pub fn register(spank: Spank) {
    Given::lock().inside_a_job = std::env::var_os("SLURM_JOB_ID").is_some();
    for (opt, entry) in ALL.iter().zip(&TABLE.0) {
        // SAFETY: the table is static, and Slurm does not write to what it registers.
        let registered = unsafe { spank.register(ptr::from_ref(entry).cast_mut(), opt.name()) };
        if let Err(error) = registered {
            log::error(&format!("disagg: {error}: --{} will not be known", opt.name()));
        }
    }
}

/// Slurm calls this for each use of an option, in the order of use.
extern "C" fn on_option(value: c_int, argument: *const c_char, remote: c_int) -> c_int {
    guard::entry("the option's callback", FAILURE, || {
        let Some(opt) = ALL.into_iter().find(|o| *o as c_int == value) else { return FAILURE };
        let text = if argument.is_null() {
            String::new()
        } else {
            // SAFETY: an argument that is not NULL is a C string.
            let bytes = unsafe { CStr::from_ptr(argument) }.to_bytes();
            // In slurmstepd this runs as root: the bytes are kept and nothing more. A refusal there
            // would drain the node, so what is too long is cut off and fails later, as the user.
            if bytes.len() > MAX_VALUE && remote == 0 {
                log::error(&format!(
                    "disagg: the value of --{} has more than {MAX_VALUE} bytes",
                    opt.name()
                ));
                return FAILURE;
            }
            String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_VALUE)]).into_owned()
        };
        let before = if remote == 0 { std::env::var(inherited_variable(opt)).ok() } else { None };
        Given::lock().set(opt, text, before.as_deref());
        SUCCESS
    })
}

/// The variable through which Slurm itself repeats an option: in the job to every sbatch and srun
/// that is started there, and in one sbatch to the later components of a heterogeneous job.
fn inherited_variable(opt: Opt) -> String {
    format!("SLURM_SPANK_{}", sent_variable(opt))
}

/// The variable in which a client sends an option to slurmstepd. From 24.05 on slurmstepd may leave
/// it to the tasks, of several options every second one, and a srun in a task would send it on with
/// a step of its own.
#[must_use]
pub fn sent_variable(opt: Opt) -> String {
    format!("_SLURM_SPANK_OPTION_disagg_{}", opt.name().replace('-', "_"))
}

/// What the callbacks have brought, the last use of each option.
#[derive(Debug, Default)]
pub struct Given {
    values: [Option<String>; ALL.len()],
    /// Options whose callback was called at all since the last [`take`](Self::take).
    called: [bool; ALL.len()],
    inside_a_job: bool,
    /// Whether a component of a heterogeneous job came before.
    later_component: bool,
}

impl Given {
    const fn new() -> Self {
        Self {
            values: [const { None }; ALL.len()],
            called: [false; ALL.len()],
            inside_a_job: false,
            later_component: false,
        }
    }

    /// Exclusive access to what was given so far in this process.
    pub fn lock() -> MutexGuard<'static, Self> {
        static GIVEN: Mutex<Given> = Mutex::new(Given::new());
        // A value is set in one assignment, so a panic elsewhere leaves nothing half done.
        GIVEN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything given so far, which is forgotten: the components of a heterogeneous job are
    /// submitted one after the other by one process, each with options of its own.
    #[must_use]
    pub fn take() -> Self {
        let mut given = Self::lock();
        let next = Self { inside_a_job: given.inside_a_job, later_component: true, ..Self::new() };
        std::mem::replace(&mut given, next)
    }

    /// The value of an option as it was given; empty for a flag.
    #[must_use]
    pub fn get(&self, opt: Opt) -> Option<&str> {
        self.values[opt as usize].as_deref()
    }

    /// Takes a use of an option. `repeated` is the value of Slurm's own variable for it: the first
    /// call with that value only repeats what the job around, or the component before, was given.
    fn set(&mut self, opt: Opt, value: String, repeated: Option<&str>) {
        let first = !std::mem::replace(&mut self.called[opt as usize], true);
        let inherits = self.inside_a_job || self.later_component;
        if first && inherits && repeated == Some(value.as_str()) {
            return;
        }
        self.values[opt as usize] = Some(value);
    }
}

/// The first of the sources that has something: the command line, the environment.
///
/// # Errors
/// See [`checked`].
pub fn value(opt: Opt, command_line: Option<&str>) -> Result<Option<String>, String> {
    let from_the_environment =
        || std::env::var(opt.variable()).ok().filter(|value| !value.is_empty());
    match command_line {
        Some(value) => checked(opt, value).map(Some),
        None => from_the_environment().map(|value| checked(opt, &value)).transpose(),
    }
}

/// A value that was given for an option.
///
/// # Errors
/// A message for the user when it is empty, since a variable that is not set must not turn the job
/// into another one, or has control characters, which no message could show.
pub fn checked(opt: Opt, value: &str) -> Result<String, String> {
    let name = opt.name();
    if value.is_empty() {
        return Err(format!("disagg: --{name} has an empty value: give one or remove the option"));
    }
    if value.contains(|c: char| c.is_control()) {
        return Err(format!("disagg: --{name} has control characters: {}", value.escape_debug()));
    }
    Ok(value.to_owned())
}

/// Whether a flag is set, on the command line or by a variable that is neither empty, `0` nor `no`.
#[must_use]
pub fn flag(opt: Opt, command_line: Option<&str>) -> bool {
    command_line.is_some()
        || std::env::var(opt.variable())
            .is_ok_and(|v| !matches!(v.as_str(), "" | "0" | "no" | "false"))
}

/// The arguments of the plugin's line in plugstack.conf.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The core's settings among them (`site=FILE`, `placement=exclusive|packed`).
    pub options: Options,
    /// `announce=yes|no`: whether a submission prints the layout.
    pub announce: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { options: Options::default(), announce: true }
    }
}

impl Settings {
    /// Reads the arguments. What is wrong with them is described, one entry each, and the setting
    /// keeps its default.
    #[must_use]
    pub fn read<S: AsRef<str>>(arguments: &[S]) -> (Self, Vec<String>) {
        let mut settings = Self::default();
        let mut wrong = Vec::new();
        for argument in arguments.iter().map(AsRef::as_ref) {
            if let Err(message) = settings.take(argument) {
                wrong.push(message);
            }
        }
        (settings, wrong)
    }

    fn take(&mut self, argument: &str) -> Result<(), String> {
        let wrong = |what: String| Err(format!("'{argument}': {what}"));
        let known = || TABLE_OF_SETTINGS.iter().filter(|setting| setting.plugstack);
        match argument.split_once('=').unwrap_or((argument, "")) {
            ("announce", "yes") => self.announce = true,
            ("announce", "no") => self.announce = false,
            ("announce", _) => return wrong("must be one of: yes, no".to_owned()),
            // The directory that a relative path starts from is the user's.
            ("site", path) if !path.starts_with('/') => {
                return wrong("the settings file needs an absolute path".to_owned());
            }
            (name, value) => {
                let Some(setting) = known().find(|setting| setting.name == name) else {
                    let names: String = known().map(|known| format!("{}=, ", known.name)).collect();
                    return Err(format!(
                        "unknown argument '{argument}': known are {names}announce="
                    ));
                };
                return self.options.set(setting, value).or_else(wrong);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use disagg::plan::Placement;

    #[test]
    fn the_table_is_in_the_order_of_the_options() {
        for (opt, entry) in ALL.iter().zip(&TABLE.0) {
            // SAFETY: the table's names are C strings.
            assert_eq!(unsafe { CStr::from_ptr(entry.name) }.to_str().unwrap(), opt.name());
            assert_eq!(entry.val, *opt as c_int);
        }
    }

    #[test]
    fn an_empty_value_or_one_with_control_characters_is_refused() {
        for (given, message) in [
            ("", "--disagg-config has an empty value: give one or remove the option"),
            ("a\nb", "--disagg-config has control characters: a\\nb"),
        ] {
            assert_eq!(value(Opt::Config, Some(given)), Err(format!("disagg: {message}")));
        }
        assert_eq!(value(Opt::Config, Some("a b")), Ok(Some("a b".to_owned())));
    }

    #[test]
    fn the_last_use_of_an_option_wins_and_taking_it_forgets_it() {
        for value in [c"a.yaml", c"b.yaml"] {
            assert_eq!(on_option(Opt::Config as c_int, value.as_ptr(), 0), SUCCESS);
        }
        assert_eq!(on_option(Opt::Again as c_int, ptr::null(), 0), SUCCESS);
        let given = Given::take();
        assert_eq!(given.get(Opt::Config), Some("b.yaml"));
        assert_eq!(given.get(Opt::Again), Some(""));
        assert_eq!(Given::take().get(Opt::Config), None);
    }

    fn after(inside_a_job: bool, later_component: bool, uses: &[&str]) -> Option<String> {
        let mut given = Given { inside_a_job, later_component, ..Given::new() };
        for value in uses {
            given.set(Opt::Config, (*value).to_owned(), Some("a"));
        }
        given.get(Opt::Config).map(str::to_owned)
    }

    #[test]
    fn what_slurm_repeats_from_the_job_around_is_not_asked_for_again() {
        assert_eq!(after(true, false, &["a"]), None);
        assert_eq!(after(true, false, &["a", "a"]).as_deref(), Some("a"));
        assert_eq!(after(true, false, &["a", "b"]).as_deref(), Some("b"));
        assert_eq!(after(true, false, &["b"]).as_deref(), Some("b"));
    }

    #[test]
    fn a_component_of_a_heterogeneous_job_does_not_take_over_the_config_of_the_one_before() {
        assert_eq!(after(false, true, &["a"]), None);
        assert_eq!(after(false, true, &["a", "b"]).as_deref(), Some("b"));
    }

    #[test]
    fn outside_a_job_slurms_own_variable_for_an_option_counts() {
        assert_eq!(after(false, false, &["a"]).as_deref(), Some("a"));
    }

    #[test]
    fn a_value_that_is_too_long_is_refused_at_submit_time_and_by_slurmstepd_only_cut_off() {
        let long = std::ffi::CString::new(vec![b'x'; MAX_VALUE + 1]).unwrap();
        assert_eq!(on_option(Opt::Test as c_int, long.as_ptr(), 0), FAILURE);
        assert_eq!(on_option(Opt::Test as c_int, long.as_ptr(), 1), SUCCESS);
    }

    #[test]
    fn an_option_that_is_not_ours_is_refused() {
        assert_eq!(on_option(99, ptr::null(), 0), FAILURE);
    }

    #[test]
    fn every_argument_of_plugstack_conf_is_read() {
        let (settings, wrong) =
            Settings::read(&["site=/etc/site.yaml", "placement=packed", "announce=no"]);
        assert_eq!(settings.options.site, Some("/etc/site.yaml".into()));
        assert_eq!(settings.options.placement, Some(Placement::Packed));
        assert!(!settings.announce);
        assert!(wrong.is_empty());
    }

    #[test]
    fn an_unknown_argument_is_named_and_the_others_still_count() {
        let (settings, wrong) = Settings::read(&[
            "colour=blue",
            "site",
            "announce=maybe",
            "partition=x",
            "placement=packed",
        ]);
        assert_eq!(settings.options.placement, Some(Placement::Packed));
        assert_eq!(
            wrong,
            [
                "unknown argument 'colour=blue': known are site=, placement=, announce=",
                "'site': the settings file needs an absolute path",
                "'announce=maybe': must be one of: yes, no",
                "unknown argument 'partition=x': known are site=, placement=, announce=",
            ]
        );
        let (_, wrong) = Settings::read(&["placement=tight"]);
        assert_eq!(wrong, ["'placement=tight': must be one of: exclusive, packed, compact"]);
    }
}
