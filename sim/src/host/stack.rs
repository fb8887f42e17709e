// SPDX-License-Identifier: Apache-2.0
//! The stack of plugins: reading plugstack.conf, loading what it names as Slurm does, and calling
//! the plugins' functions under watch.

use super::{
    options,
    shim::{HookFn, RawOption, c_argv, c_string, dl_error, text},
    state::{Plugin, State, state},
    watch,
};
use crate::{
    abi::{Context, Hook},
    trace::{Function, Level, What},
};
use std::{
    ffi::{CStr, CString, OsString, c_int, c_void},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

/// Loads the stack for a context. False when a required plugin can't be loaded.
pub(super) fn load(context: Context) -> bool {
    let text = {
        let mut s = state();
        if matches!(context, Context::Local | Context::Allocator) {
            s.job_control = Some(Default::default());
        }
        s.scenario.plugstack.clone()
    };
    let loaded = load_text(context, &text, Path::new("plugstack.conf"));
    if loaded {
        // Only now: while plugins are being loaded, spank_context() knows none.
        state().context = context;
    }
    loaded
}

fn load_text(context: Context, text: &str, file: &Path) -> bool {
    text.lines().enumerate().all(|(index, line)| load_line(context, line, file, index + 1))
}

fn load_line(context: Context, line: &str, file: &Path, number: usize) -> bool {
    let line = line.split('#').next().unwrap_or_default();
    let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
    let Some(kind) = words.next() else { return true };
    let place = format!("{}:{number}", file.display());
    let (true, Some(path)) = (["required", "optional", "include"].contains(&kind), words.next())
    else {
        let s = state();
        if !["required", "optional", "include"].contains(&kind) {
            s.error(format!(
                "spank: Invalid option \"{kind}\". Must be required, optional or include"
            ));
        }
        s.error(format!("spank: {place}: Invalid line. Ignoring."));
        return true;
    };
    if kind == "include" {
        return include(context, path, file);
    }
    let required = kind == "required";
    let path = find(path).unwrap_or_else(|| path.to_owned());
    let args: Vec<String> = words.map(str::to_owned).collect();
    match load_plugin(context, &path, args, required) {
        Ok(()) => true,
        Err(reason) => {
            let s = state();
            s.emit(What::Refused { path: path.clone(), reason, required });
            if required {
                s.error(format!("spank: {place}: Failed to load plugin {path}. Aborting."));
            } else {
                let text =
                    format!("spank: {place}: Failed to load optional plugin {path}. Ignored.");
                s.log(Level::Verbose, &text, false);
            }
            !required
        }
    }
}

fn include(context: Context, pattern: &str, file: &Path) -> bool {
    let pattern = if pattern.starts_with('/') {
        PathBuf::from(pattern)
    } else {
        file.parent().unwrap_or(Path::new("")).join(pattern)
    };
    glob(&pattern).into_iter().all(|path| match std::fs::read_to_string(&path) {
        Ok(text) => load_text(context, &text, &path),
        Err(error) => {
            state().error(format!("spank: Failed to open {}: {error}", path.display()));
            false
        }
    })
}

fn glob(pattern: &Path) -> Vec<PathBuf> {
    let Ok(pattern) = CString::new(pattern.as_os_str().as_encoded_bytes()) else {
        return Vec::new();
    };
    // SAFETY: glob fills the zeroed structure; its paths are copied before globfree.
    unsafe {
        let mut found: libc::glob_t = std::mem::zeroed();
        let mut paths = Vec::new();
        if libc::glob(pattern.as_ptr(), 0, None, &mut found) == 0 {
            for index in 0..found.gl_pathc {
                let path = CStr::from_ptr(*found.gl_pathv.add(index));
                paths.push(PathBuf::from(OsString::from_vec(path.to_bytes().to_vec())));
            }
        }
        libc::globfree(&mut found);
        paths
    }
}

/// Looks a relative path up in PluginDir. Slurm loads, checks and unloads the file for that, so
/// that its constructors run once more.
fn find(path: &str) -> Option<String> {
    if path.starts_with('/') {
        return None;
    }
    let dirs = state().scenario.plugin_dirs.clone();
    dirs.iter().map(|dir| format!("{dir}/{path}")).find(|path| {
        let Ok(library) = open(path) else { return false };
        let fine = verify(library, path, true).is_ok();
        close(library, path);
        fine
    })
}

fn load_plugin(
    context: Context,
    path: &str,
    args: Vec<String>,
    required: bool,
) -> Result<(), String> {
    let fail = |reason: String| {
        state().error(format!("spank: {path}: {reason}"));
        Err(reason)
    };
    let library = match open(path) {
        Ok(library) => library,
        Err(error) => {
            state().error(format!("plugin_load_from_file: dlopen({path}): {error}"));
            return fail("Dlopen of plugin file failed".into());
        }
    };
    let (name, version) = match verify(library, path, false) {
        Ok(found) => found,
        Err(reason) => {
            close(library, path);
            return fail(reason);
        }
    };
    if let Some(init) = symbol(library, c"init") {
        let rc = watch::run(Function::PluginInit, Err(path), || {
            // SAFETY: `init` of a Slurm plugin takes nothing and returns int.
            unsafe {
                let init: unsafe extern "C" fn() -> c_int = std::mem::transmute(init);
                init()
            }
        });
        if rc != 0 {
            close(library, path);
            return fail("Plugin init() callback failed".into());
        }
    }
    let plugin = describe(library, &name, path, args, required);
    if plugin.hooks.iter().all(Option::is_none) {
        close(library, path);
        let reason = format!("\"{path}\" exports 0 symbols");
        state().error(format!("spank: {reason}"));
        return Err(reason);
    }
    if !valid_for(context, &plugin) {
        close(library, path);
        return Ok(());
    }
    let mut s = state();
    s.emit(What::Loaded { name, path: path.to_owned(), version });
    s.plugins.push(plugin);
    let index = s.plugins.len() - 1;
    if context != Context::Allocator
        && let Some(table) = symbol(library, c"spank_options")
    {
        register_table(&mut s, index, table.cast());
    }
    Ok(())
}

fn register_table(s: &mut State, plugin: usize, mut option: *const RawOption) {
    // SAFETY: the plugin's table ends with an entry whose name is NULL; that is the interface.
    // A refused option is reported by register() and skipped, as in Slurm.
    unsafe {
        while !(*option).name.is_null() {
            let _ = options::register(s, plugin, &*option);
            option = option.add(1);
        }
    }
}

fn describe(
    library: *mut c_void,
    name: &str,
    path: &str,
    args: Vec<String>,
    required: bool,
) -> Plugin {
    let release = state().scenario.release;
    let mut hooks = [None; Hook::NAMES.len()];
    for (hook, name) in Hook::NAMES {
        hooks[*hook as usize] = symbol(library, &c_string(name)).map(|function| {
            // SAFETY: a function of this name has this type; that is the interface.
            unsafe { std::mem::transmute::<*mut c_void, HookFn>(function) }
        });
    }
    let mode = symbol(library, c"slurm_spank_init_failure_mode")
        .filter(|_| release.has_init_failure_mode())
        .map(|mode| mode.cast_const().cast());
    let argv = c_argv(args.iter().map(String::as_str));
    Plugin {
        name: name.to_owned(),
        path: path.to_owned(),
        required,
        library,
        hooks,
        init_failure_mode: mode,
        args,
        argv,
    }
}

fn valid_for(context: Context, plugin: &Plugin) -> bool {
    let has = |hook: Hook| plugin.hooks[hook as usize].is_some();
    match context {
        Context::JobScript => has(Hook::JobProlog) || has(Hook::JobEpilog),
        Context::Slurmd => {
            let init = state().scenario.release.slurmd_loads_for_init() && has(Hook::Init);
            init || has(Hook::SlurmdExit)
        }
        _ => true,
    }
}

fn open(path: &str) -> Result<*mut c_void, String> {
    let c_path = c_string(path);
    let mut library = std::ptr::null_mut();
    watch::run(Function::Constructor, Err(path), || {
        // SAFETY: loading runs the plugin's constructors, which is what is wanted.
        library = unsafe { libc::dlopen(c_path.as_ptr(), libc::RTLD_LAZY) };
        0
    });
    if library.is_null() { Err(dl_error()) } else { Ok(library) }
}

fn close(library: *mut c_void, path: &str) {
    watch::run(Function::Destructor, Err(path), || {
        // SAFETY: the handle came from dlopen and isn't used afterwards.
        unsafe { libc::dlclose(library) }
    });
}

fn symbol(library: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the handle came from dlopen.
    let found = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// Slurm's checks of any plugin. Gives its name and version.
fn verify(
    library: *mut c_void,
    path: &str,
    looking: bool,
) -> Result<(String, Option<u32>), String> {
    let missing = || "Plugin name/type/version symbol missing".to_owned();
    let release = state().scenario.release;
    let string = |name| symbol(library, name).and_then(|s| text(s.cast_const().cast()));
    let name = string(c"plugin_name").ok_or_else(missing)?;
    let kind = string(c"plugin_type").ok_or_else(missing)?;
    // SAFETY: plugin_version is an unsigned int.
    let version = symbol(library, c"plugin_version").map(|v| unsafe { *v.cast::<u32>() });
    let Some(number) = version else {
        return if release.requires_plugin_version() { Err(missing()) } else { Ok((name, None)) };
    };
    let mask = release.version_mask(&kind, looking);
    if number & mask != release.version_number() & mask {
        let (major, minor, micro) = (number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff);
        let text = format!("Incompatible Slurm plugin {path} version ({major}.{minor:02}.{micro})");
        let s = state();
        s.log(Level::Info, &text, false);
        return Err("Incompatible plugin version".into());
    }
    Ok((name, version))
}

/// The real block behind a `spank_t`. A new one for each call of the stack, so that one that was
/// kept is recognised.
struct Handle {
    _never_read: u64,
}

/// Calls a hook of every plugin. Returns 0 or the failure of a required one.
pub(super) fn call(hook: Hook) -> i32 {
    let (count, release) = {
        let mut s = state();
        s.handle = Box::into_raw(Box::new(Handle { _never_read: 0 })) as usize;
        s.phase = Some(hook);
        (s.plugins.len(), s.scenario.release)
    };
    let mut result = 0;
    for index in 0..count {
        let (function, argc, argv, handle, required, path, mode) = {
            let s = state();
            let p = &s.plugins[index];
            let Some(function) = p.hooks[hook as usize] else { continue };
            let argc = p.args.len() as c_int;
            let path = p.path.clone();
            (function, argc, p.argv, s.handle, p.required, path, p.init_failure_mode)
        };
        let rc = watch::run(Function::Hook(hook), Ok(index), || {
            // SAFETY: the plugin exports this function for this call; the handle and the argument
            // vector outlive it.
            unsafe { function(handle as *mut c_void, argc, argv) }
        });
        if release.hook_failed(rc) && required {
            let name = path.rsplit('/').next().unwrap_or_default();
            state().error(format!(
                "spank: required plugin {name}: {}() failed with rc={rc}",
                hook.short()
            ));
            result = match mode {
                // SAFETY: the plugin's data symbol is an int and the plugin is loaded.
                Some(mode) if hook == Hook::Init => unsafe { *mode },
                _ => rc,
            };
            break;
        }
    }
    let mut s = state();
    s.phase = None;
    s.handle = 0;
    result
}

/// Unloads the plugins, as `spank_fini` does.
pub(super) fn unload() {
    let plugins = std::mem::take(&mut state().plugins);
    for plugin in plugins {
        if let Some(fini) = symbol(plugin.library, c"fini") {
            watch::run(Function::Destructor, Err(&plugin.path), || {
                // SAFETY: `fini` of a Slurm plugin takes nothing and returns nothing.
                unsafe {
                    let fini: unsafe extern "C" fn() = std::mem::transmute(fini);
                    fini();
                }
                0
            });
        }
        close(plugin.library, &plugin.path);
    }
    let mut s = state();
    s.options.clear();
    s.context = Context::Error;
}
