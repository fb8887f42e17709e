// SPDX-License-Identifier: Apache-2.0
//! The options of plugins: how they are registered, named in the environment, and handed over.

use super::{
    shim::{RawOption, c_string, text},
    state::{PluginOption, State, state},
    watch,
};
use crate::{
    abi::{OPTION_ENV_PREFIX, OPTION_NAME_MAX, SpankError},
    env::Env,
    trace::{Function, Level, Rule, SentOption},
};
use std::ffi::{CString, c_char};

/// Registers an option for a plugin, from its table or a call.
pub(super) fn register(s: &mut State, plugin: usize, option: &RawOption) -> Result<(), SpankError> {
    let Some(name) = text(option.name) else { return Err(SpankError::BadArg) };
    let disabled = s.options.iter().any(|known| known.name == name);
    if disabled {
        let text = format!("spank: option \"{name}\" is provided twice");
        s.log(Level::Info, &text, false);
    }
    if name.len() > OPTION_NAME_MAX {
        let plugin = &s.plugins[plugin].name;
        s.error(format!("spank: option \"{name}\" provided by {plugin} too long. Ignoring."));
        return Err(SpankError::Nospace);
    }
    if !(0..=2).contains(&option.has_arg) {
        let detail = format!("--{name}: has_arg is {}, not 0, 1 or 2", option.has_arg);
        s.violation(Rule::BadArgument, detail);
    }
    s.options.push(PluginOption {
        plugin,
        name,
        has_arg: option.has_arg,
        val: option.val,
        callback: option.cb,
        found: false,
        argument: None,
        disabled,
    });
    Ok(())
}

/// The name of an option in the environment: prefix, plugin, option, and `_` for whatever isn't
/// a letter or digit.
pub(super) fn env_name(plugin: &str, option: &str) -> String {
    let canonical = |text: &str| -> String {
        text.bytes()
            .map(|byte| if byte.is_ascii_alphanumeric() { byte as char } else { '_' })
            .collect()
    };
    format!("{OPTION_ENV_PREFIX}{}_{}", canonical(plugin), canonical(option))
}

impl State {
    /// [`env_name`] of a registered option.
    pub fn option_env_name(&self, index: usize) -> String {
        let option = &self.options[index];
        env_name(&self.plugins[option.plugin].name, &option.name)
    }
}

/// Runs an option's callback and keeps the argument when it agrees. Returns its result.
pub(super) fn process(index: usize, argument: Option<&str>, remote: bool) -> i32 {
    let (function, plugin, callback) = {
        let s = state();
        let option = &s.options[index];
        let function = Function::Option {
            name: option.name.clone(),
            val: option.val,
            argument: argument.map(str::to_owned),
            remote,
        };
        (function, option.plugin, option.callback.map(|callback| (callback, option.val)))
    };
    let argument: Option<CString> = argument.map(c_string);
    if let Some((callback, val)) = callback {
        let pointer: *const c_char =
            argument.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        let rc = watch::run(function, Ok(plugin), || {
            // SAFETY: the plugin gave this function for this purpose; the argument is NULL or a C
            // string that outlives the call.
            unsafe { callback(val, pointer, i32::from(remote)) }
        });
        if rc != 0 {
            return rc;
        }
    }
    let mut s = state();
    let option = &mut s.options[index];
    if option.has_arg != 0 {
        option.argument = argument;
    }
    option.found = true;
    0
}

/// Takes the options that the job's environment carries (srun in a job). Returns the first
/// callback's failure.
pub(super) fn process_environment(environ: &Env) -> Result<(), i32> {
    let count = state().options.len();
    for index in 0..count {
        let name = format!("SLURM_SPANK_{}", state().option_env_name(index));
        if let Some(value) = environ.get(&name)
            && process(index, Some(value), false) != 0
        {
            let text = format!("Invalid argument ({value}) for environment variable: {name}");
            state().error(text);
            return Err(1);
        }
    }
    Ok(())
}

/// Puts the options that were used into the environment and the job control environment.
pub(super) fn export_used() {
    let used: Vec<(String, Option<String>)> = {
        let s = state();
        (0..s.options.len())
            .filter(|index| s.options[*index].found)
            .map(|index| {
                let argument = s.options[index].argument.as_ref();
                let argument = argument.map(|text| text.to_string_lossy().into_owned());
                (s.option_env_name(index), argument)
            })
            .collect()
    };
    for (name, argument) in used {
        // SAFETY: no other thread of the simulator reads the environment.
        unsafe { std::env::set_var(&name, argument.as_deref().unwrap_or_default()) };
        if let Some(control) = &mut state().job_control {
            // A NULL string printed by Slurm: an option without an argument reads "(null)" here.
            control.set(name, argument.as_deref().unwrap_or("(null)"));
        }
    }
}

/// The options that srun sends to slurmstepd.
pub(super) fn sent() -> Vec<SentOption> {
    let s = state();
    s.options
        .iter()
        .filter(|option| option.found)
        .map(|option| SentOption {
            plugin: s.plugins[option.plugin].name.clone(),
            name: option.name.clone(),
            argument: option.argument.as_ref().map(|text| text.to_string_lossy().into_owned()),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_become_underscores_in_the_environment_name() {
        assert_eq!(env_name("disagg", "disagg-config"), "_SLURM_SPANK_OPTION_disagg_disagg_config");
    }
}
