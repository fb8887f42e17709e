// SPDX-License-Identifier: Apache-2.0
//! What each of Slurm's functions answers to a plugin: the rules on who may call what, when.

use super::{
    options,
    shim::{Ops, RawOption, c_argv, c_string, text},
    state::{Job, State, state},
};
use crate::{
    abi::{Context, Hook, Item, SpankError},
    trace::{Level, Rule, What},
};
use std::ffi::{c_char, c_int, c_long, c_void};

pub(super) static OPS: Ops = Ops {
    symbol_supported,
    context,
    remote,
    option_register,
    option_getopt,
    get_item,
    getenv,
    setenv,
    unsetenv,
    job_control_getenv,
    job_control_setenv,
    job_control_unsetenv,
    strerror,
    prepend_task_argv,
    log,
    allocation_fails,
    foreign_pointer,
    api_version,
};

type Answer = Result<(), SpankError>;

/// Answers a call that returns an error number, and reports it.
fn answer(name: &str, args: Vec<String>, decide: impl FnOnce(&mut State) -> Answer) -> c_int {
    let mut s = state();
    let fault = s.fault(name);
    let injected = fault.is_some();
    let result = match fault {
        Some(error) => Err(error),
        None => decide(&mut s),
    };
    let rc = result.err().map_or(0, |error| error.number(s.scenario.release));
    s.emit(What::Call { name: name.to_owned(), args, rc: rc.into(), injected });
    rc
}

/// Answers a call with a plain result, `failed` when it is to fail.
fn answer_plain(
    name: &str,
    args: Vec<String>,
    failed: i64,
    decide: impl FnOnce(&mut State) -> i64,
) -> i64 {
    let mut s = state();
    let injected = s.fault(name).is_some();
    let rc = if injected { failed } else { decide(&mut s) };
    s.emit(What::Call { name: name.to_owned(), args, rc, injected });
    rc
}

fn shown(pointer: *const c_char) -> String {
    text(pointer).unwrap_or_else(|| "NULL".to_owned())
}

/// A refusal because of the place of the call: always a mistake of the plugin.
fn misplaced(s: &State, call: &str, error: SpankError) -> SpankError {
    let place = match s.phase {
        Some(hook) => hook.name(),
        None => "no callback",
    };
    let context = s.context.name();
    let detail = format!("{call} is not allowed in {place} ({context}): {}", error.message());
    s.violation(Rule::WrongContext, detail);
    error
}

fn bad_argument(s: &State, detail: &str) -> SpankError {
    s.violation(Rule::BadArgument, detail);
    SpankError::BadArg
}

/// Refuses a NULL handle, and one that isn't that of the running callback.
fn check_handle(s: &State, call: &str, spank: *mut c_void) -> Answer {
    if spank.is_null() {
        return Err(bad_argument(s, &format!("{call}: the spank handle is NULL")));
    }
    if spank as usize != s.handle {
        let detail = format!("{call}: the spank handle is not that of the running callback");
        s.violation(Rule::StaleHandle, detail);
        return Err(SpankError::BadArg);
    }
    Ok(())
}

extern "C" fn symbol_supported(symbol: *const c_char) -> c_int {
    answer_plain("spank_symbol_supported", vec![shown(symbol)], -1, |s| match text(symbol) {
        None => -1,
        Some(name) => {
            let mode = s.scenario.release.has_init_failure_mode()
                && name == "slurm_spank_init_failure_mode";
            i64::from(mode || Hook::NAMES.iter().any(|(_, known)| *known == name))
        }
    }) as c_int
}

extern "C" fn context() -> c_int {
    answer_plain("spank_context", vec![], Context::Error as i64, |s| s.context as i64) as c_int
}

extern "C" fn remote(spank: *mut c_void) -> c_int {
    answer_plain("spank_remote", vec![], -1, |s| match check_handle(s, "spank_remote", spank) {
        Err(_) => -1,
        Ok(()) => i64::from(s.context == Context::Remote),
    }) as c_int
}

extern "C" fn option_register(spank: *mut c_void, option: *const RawOption) -> c_int {
    // SAFETY: a plugin hands over NULL or a struct spank_option; that is the interface's rule.
    let option = unsafe { option.as_ref() };
    let name = option.map_or(std::ptr::null(), |option| option.name);
    answer("spank_option_register", vec![shown(name)], |s| {
        let call = "spank_option_register";
        check_handle(s, call, spank)?;
        if s.phase != Some(Hook::Init) {
            return Err(misplaced(s, call, SpankError::BadArg));
        }
        let option = option.ok_or_else(|| bad_argument(s, "spank_option_register: NULL option"))?;
        if option.name.is_null() || option.usage.is_null() {
            return Err(bad_argument(s, "spank_option_register: an option needs name and usage"));
        }
        let plugin = s.plugin.ok_or(SpankError::BadArg)?;
        options::register(s, plugin, option)
    })
}

extern "C" fn option_getopt(
    spank: *mut c_void,
    option: *const RawOption,
    argument: *mut *mut c_char,
) -> c_int {
    // SAFETY: as in option_register; the out pointer is NULL or writable.
    let (option, argument) = unsafe { (option.as_ref(), argument.as_mut()) };
    let name = option.map_or(std::ptr::null(), |option| option.name);
    answer("spank_option_getopt", vec![shown(name)], |s| {
        let call = "spank_option_getopt";
        let mut argument = argument;
        if let Some(argument) = argument.as_deref_mut() {
            *argument = std::ptr::null_mut();
        }
        check_handle(s, call, spank)?;
        let refused =
            [Hook::Init, Hook::InitPostOpt, Hook::TaskPostFork, Hook::SlurmdExit, Hook::Exit];
        if s.phase.is_none_or(|phase| refused.contains(&phase)) {
            return Err(misplaced(s, call, SpankError::NotAvail));
        }
        let Some((option, name)) = option.and_then(|o| text(o.name).map(|name| (o, name))) else {
            return Err(bad_argument(s, "spank_option_getopt: an option needs a name"));
        };
        if option.has_arg != 0 && argument.is_none() {
            return Err(bad_argument(s, "spank_option_getopt: nowhere to put the argument"));
        }
        let index = match s.options.iter().position(|known| known.name == name) {
            Some(index) => index,
            None => {
                let plugin = s.plugin.ok_or(SpankError::NotAvail)?;
                options::register(s, plugin, option)?;
                let index = s.options.len() - 1;
                let env_name = s.option_env_name(index);
                let value = std::env::var(&env_name)
                    .or_else(|_| std::env::var(format!("{}{env_name}", crate::abi::SCRIPT_PREFIX)));
                if let Ok(value) = value {
                    s.options[index].argument = Some(c_string(&value));
                    s.options[index].found = true;
                }
                index
            }
        };
        let known = &s.options[index];
        if !known.found {
            return Err(SpankError::Error);
        }
        if let (Some(argument), true, Some(value)) =
            (argument, option.has_arg != 0, &known.argument)
        {
            *argument = value.clone().into_raw();
        }
        Ok(())
    })
}

/// Whether an item can be had here, by the place of the call alone.
fn item_allowed(s: &State, item: Item) -> Answer {
    use Item::*;
    if matches!(item, SlurmVersion | SlurmVersionMajor | SlurmVersionMinor | SlurmVersionMicro) {
        return Ok(());
    }
    let local = matches!(
        item,
        JobUid | JobGid | JobId | JobStepid | JobArgv | JobEnv | JobTotalTaskCount | JobNnodes
    );
    match s.context {
        Context::Slurmd => Err(SpankError::NotAvail),
        Context::JobScript if matches!(item, JobUid | JobGid | JobId) => Ok(()),
        Context::JobScript => Err(SpankError::NotAvail),
        Context::Local if !local => Err(SpankError::NotRemote),
        Context::Local if matches!(s.job, Job::None) => Err(SpankError::NotAvail),
        Context::Allocator if matches!(item, JobUid | JobGid) => Err(SpankError::NotAvail),
        Context::Allocator if local => Err(SpankError::BadArg),
        Context::Allocator => Err(SpankError::NotRemote),
        _ => Ok(()),
    }
}

/// What an item's pointers are given.
enum Value {
    U16(u16),
    U32(u32),
    Int(i32),
    Text(String),
    Words(Vec<String>),
    Env(Vec<String>),
    Null,
}

extern "C" fn get_item(
    spank: *mut c_void,
    item: c_int,
    key: u64,
    first: *mut c_void,
    second: *mut c_void,
) -> c_int {
    let name = Item::of_number(item).map_or_else(|| item.to_string(), |item| item.name().into());
    answer("spank_get_item", vec![name], |s| {
        let call = "spank_get_item";
        check_handle(s, call, spank)?;
        let Some(item) = Item::of_number(item) else {
            return Err(bad_argument(s, &format!("spank_get_item: there is no item {item}")));
        };
        let call = format!("spank_get_item({})", item.name());
        if let Err(error) = item_allowed(s, item) {
            return Err(misplaced(s, &call, error));
        }
        let pair = matches!(item, Item::JobArgv | Item::JobSupplementaryGids);
        if first.is_null() || pair && second.is_null() {
            let detail = format!("{call}: NULL is no place for the value; Slurm would crash");
            s.violation(Rule::WouldCrash, detail);
            return Err(SpankError::BadArg);
        }
        let value = match item_value(s, item, key) {
            Ok(value) => value,
            Err(SpankError::NotTask) => return Err(misplaced(s, &call, SpankError::NotTask)),
            Err(error) => return Err(error),
        };
        // SAFETY: the pointers aren't NULL, and the plugin passes what spank.h asks for the item.
        unsafe { store(value, first, second) };
        Ok(())
    })
}

unsafe fn store(value: Value, first: *mut c_void, second: *mut c_void) {
    // SAFETY: the caller guarantees that the pointers fit the value.
    unsafe {
        match value {
            Value::U16(value) => *first.cast() = value,
            Value::U32(value) => *first.cast() = value,
            Value::Int(value) => *first.cast() = value,
            Value::Text(text) => *first.cast() = c_string(&text).into_raw(),
            Value::Null => *first.cast() = std::ptr::null_mut::<c_void>(),
            Value::Env(words) => *first.cast() = c_argv(words.iter().map(String::as_str)),
            Value::Words(words) => {
                *first.cast() = words.len() as c_int;
                *second.cast() = c_argv(words.iter().map(String::as_str));
            }
        }
    }
}

fn item_value(s: &State, item: Item, key: u64) -> Result<Value, SpankError> {
    use Item::*;
    let release = s.scenario.release;
    let (major, minor, micro) = release.numbers();
    match item {
        SlurmVersion => return Ok(Value::Text(release.version())),
        SlurmVersionMajor => return Ok(Value::Text(major.to_string())),
        SlurmVersionMinor => return Ok(Value::Text(format!("{minor:02}"))),
        SlurmVersionMicro => return Ok(Value::Text(micro.to_string())),
        JobUid => return Ok(Value::U32(s.scenario.user.uid)),
        JobGid => return Ok(Value::U32(s.scenario.user.gid)),
        _ => {}
    }
    match &s.job {
        Job::None => Err(SpankError::NotAvail),
        Job::Script { job_id } => Ok(Value::U32(*job_id)),
        Job::Launcher { job_id, step_id, nodes, tasks, argv } => match item {
            JobId => Ok(Value::U32(*job_id)),
            JobStepid => Ok(Value::U32(*step_id)),
            JobNnodes => Ok(Value::U32(*nodes)),
            JobTotalTaskCount => Ok(Value::U32(*tasks)),
            JobArgv => Ok(Value::Words(argv.clone())),
            // Listed as valid in srun, and always NULL there.
            _ => Ok(Value::Null),
        },
        Job::Remote(_) => remote_value(s, item, key),
    }
}

fn remote_value(s: &State, item: Item, key: u64) -> Result<Value, SpankError> {
    use Item::*;
    let Job::Remote(remote) = &s.job else { return Err(SpankError::NotAvail) };
    let step = &remote.step;
    let here = &step.layout.nodes[remote.node];
    let cpus = step.cpus.get(remote.node).copied().unwrap_or(1);
    let task = s.task.as_ref().ok_or(SpankError::NotTask);
    Ok(match item {
        JobId => Value::U32(step.job_id),
        JobStepid => Value::U32(step.step_id),
        // Of a batch script Slurm doesn't know it.
        JobNnodes => Value::U32(if step.is_batch() { 0 } else { step.layout.nodes.len() as u32 }),
        JobNodeid => Value::U32(remote.node as u32),
        JobLocalTaskCount => Value::U32(here.tasks.len() as u32),
        JobTotalTaskCount => Value::U32(step.total_tasks),
        JobNcpus => Value::U16(cpus as u16),
        JobArgv => Value::Words(remote.argv.clone()),
        JobEnv => {
            Value::Env(remote.env.iter().map(|(name, value)| format!("{name}={value}")).collect())
        }
        TaskId => Value::Int(task?.local as i32),
        TaskGlobalId => Value::U32(task?.global),
        TaskExitStatus => Value::Int(task?.exit_status.ok_or(SpankError::NotTask)?),
        TaskPid => Value::Int(task?.pid),
        JobLocalToGlobalId => {
            let task = here.tasks.get(key as usize).ok_or(SpankError::Noexist)?;
            Value::U32(*task)
        }
        JobGlobalToLocalId => {
            if key >= u64::from(step.total_tasks) {
                return Err(SpankError::BadArg);
            }
            let local = here.tasks.iter().position(|task| u64::from(*task) == key);
            Value::U32(local.ok_or(SpankError::Noexist)? as u32)
        }
        // The others are not simulated.
        _ => return Err(SpankError::NotAvail),
    })
}

/// Only slurmstepd has a job's environment.
fn check_environment(s: &State, call: &str, spank: *mut c_void) -> Answer {
    check_handle(s, call, spank)?;
    if s.context != Context::Remote {
        return Err(misplaced(s, call, SpankError::NotRemote));
    }
    Ok(())
}

fn check_name(s: &State, call: &str, name: &str) {
    if name.is_empty() || name.contains('=') {
        s.violation(Rule::BadArgument, format!("{call}: {name:?} is no variable's name"));
    }
}

/// Copies a value as strlcpy(3) does: what fits, and NOSPACE when it isn't all.
fn copy_out(value: &str, buf: *mut c_char, len: c_int) -> Answer {
    let value = c_string(value);
    let bytes = value.as_bytes_with_nul();
    let room = len as usize;
    if room > 0 {
        let fits = bytes.len().min(room);
        // SAFETY: the plugin says that `len` bytes are there; the last one is the NUL.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), buf, fits);
            *buf.add(fits - 1) = 0;
        }
    }
    if bytes.len() > room { Err(SpankError::Nospace) } else { Ok(()) }
}

extern "C" fn getenv(
    spank: *mut c_void,
    name: *const c_char,
    buf: *mut c_char,
    len: c_int,
) -> c_int {
    answer("spank_getenv", vec![shown(name)], |s| {
        let call = "spank_getenv";
        check_environment(s, call, spank)?;
        let Some(name) = text(name) else {
            s.violation(Rule::WouldCrash, "spank_getenv: the name is NULL");
            return Err(SpankError::BadArg);
        };
        if len < 0 || buf.is_null() {
            return Err(bad_argument(s, "spank_getenv: no buffer"));
        }
        let value = s.remote().and_then(|remote| remote.env.get(&name).map(str::to_owned));
        copy_out(&value.ok_or(SpankError::EnvNoexist)?, buf, len)
    })
}

extern "C" fn setenv(
    spank: *mut c_void,
    name: *const c_char,
    value: *const c_char,
    overwrite: c_int,
) -> c_int {
    let args = vec![shown(name), shown(value), overwrite.to_string()];
    answer("spank_setenv", args, |s| {
        let call = "spank_setenv";
        check_environment(s, call, spank)?;
        let (Some(name), Some(value)) = (text(name), text(value)) else {
            return Err(bad_argument(s, "spank_setenv: name or value is NULL"));
        };
        check_name(s, call, &name);
        let env = &mut s.remote().ok_or(SpankError::BadArg)?.env;
        if overwrite == 0 && env.get(&name).is_some() {
            return Err(SpankError::EnvExists);
        }
        env.set(name, value);
        Ok(())
    })
}

extern "C" fn unsetenv(spank: *mut c_void, name: *const c_char) -> c_int {
    answer("spank_unsetenv", vec![shown(name)], |s| {
        check_environment(s, "spank_unsetenv", spank)?;
        let Some(name) = text(name) else {
            return Err(bad_argument(s, "spank_unsetenv: the name is NULL"));
        };
        s.remote().ok_or(SpankError::BadArg)?.env.unset(&name);
        Ok(())
    })
}

/// Only sbatch, salloc and srun have the job control environment.
fn check_job_control(s: &State, call: &str, spank: *mut c_void) -> Answer {
    check_handle(s, call, spank)?;
    match s.context {
        Context::Remote => Err(misplaced(s, call, SpankError::NotLocal)),
        Context::Slurmd => Err(misplaced(s, call, SpankError::NotAvail)),
        Context::JobScript => {
            s.violation(Rule::WouldCrash, format!("{call} in prolog or epilog crashes slurmstepd"));
            Err(SpankError::BadArg)
        }
        _ => Ok(()),
    }
}

extern "C" fn job_control_getenv(
    spank: *mut c_void,
    name: *const c_char,
    buf: *mut c_char,
    len: c_int,
) -> c_int {
    answer("spank_job_control_getenv", vec![shown(name)], |s| {
        let call = "spank_job_control_getenv";
        check_job_control(s, call, spank)?;
        let (Some(name), false, true) = (text(name), buf.is_null(), len > 0) else {
            return Err(bad_argument(s, "spank_job_control_getenv: no name or no buffer"));
        };
        let value = s.job_control.as_ref().and_then(|env| env.get(&name).map(str::to_owned));
        copy_out(&value.ok_or(SpankError::EnvNoexist)?, buf, len)
    })
}

extern "C" fn job_control_setenv(
    spank: *mut c_void,
    name: *const c_char,
    value: *const c_char,
    overwrite: c_int,
) -> c_int {
    let args = vec![shown(name), shown(value), overwrite.to_string()];
    answer("spank_job_control_setenv", args, |s| {
        let call = "spank_job_control_setenv";
        check_job_control(s, call, spank)?;
        let (Some(name), Some(value)) = (text(name), text(value)) else {
            return Err(bad_argument(s, "spank_job_control_setenv: name or value is NULL"));
        };
        if name.is_empty() || name.contains('=') {
            check_name(s, call, &name);
            return Err(SpankError::BadArg);
        }
        let env = s.job_control.as_mut().ok_or(SpankError::BadArg)?;
        // An existing value is kept without overwrite, and that is no error (unlike what spank.h
        // says, and unlike spank_setenv).
        if overwrite != 0 || env.get(&name).is_none() {
            env.set(name, value);
        }
        Ok(())
    })
}

extern "C" fn job_control_unsetenv(spank: *mut c_void, name: *const c_char) -> c_int {
    answer("spank_job_control_unsetenv", vec![shown(name)], |s| {
        let call = "spank_job_control_unsetenv";
        check_job_control(s, call, spank)?;
        let Some(name) = text(name) else {
            return Err(bad_argument(s, "spank_job_control_unsetenv: the name is NULL"));
        };
        let env = s.job_control.as_mut().ok_or(SpankError::BadArg)?;
        env.unset(&name);
        Ok(())
    })
}

extern "C" fn strerror(error: c_int) -> *const c_char {
    let message = {
        let s = state();
        match SpankError::of_number(error, s.scenario.release) {
            Some(error) => error.message().to_owned(),
            None if error == 0 => "Success".to_owned(),
            None => format!("Unknown error {error}"),
        }
    };
    c_string(&message).into_raw()
}

extern "C" fn prepend_task_argv(
    spank: *mut c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    let mut words = Vec::new();
    if !argv.is_null() {
        for index in 0..usize::try_from(argc).unwrap_or(0) {
            // SAFETY: the plugin says that there are `argc` pointers, each NULL or a C string.
            match text(unsafe { *argv.add(index) }) {
                Some(word) => words.push(word),
                None => break,
            }
        }
    }
    answer("spank_prepend_task_argv", words.clone(), |s| {
        let call = "spank_prepend_task_argv";
        check_handle(s, call, spank)?;
        if argv.is_null() {
            return Err(bad_argument(s, "spank_prepend_task_argv: argv is NULL"));
        }
        if !matches!(s.phase, Some(Hook::TaskInitPrivileged | Hook::TaskInit)) {
            return Err(misplaced(s, call, SpankError::NotTask));
        }
        let remote = s.remote().ok_or(SpankError::NotTask)?;
        words.append(&mut remote.argv);
        remote.argv = words;
        Ok(())
    })
}

extern "C" fn log(level: c_int, message: *const c_char) {
    let level = [
        Level::Error,
        Level::SpankLog,
        Level::Info,
        Level::Verbose,
        Level::Debug,
        Level::Debug2,
        Level::Debug3,
    ]
    .get(level as usize)
    .copied()
    .unwrap_or(Level::Error);
    let message = text(message).unwrap_or_default();
    state().log(level, &message, true);
}

extern "C" fn allocation_fails(call: *const c_char) -> c_int {
    c_int::from(text(call).is_some_and(|call| state().fault(&call).is_some()))
}

extern "C" fn foreign_pointer(call: *const c_char) {
    let detail = format!("{}: Slurm did not allocate this memory, and would abort", shown(call));
    state().violation(Rule::ForeignPointer, detail);
}

extern "C" fn api_version() -> c_long {
    answer_plain("slurm_api_version", vec![], 0, |s| s.scenario.release.api_version()) as c_long
}
