// SPDX-License-Identifier: Apache-2.0
//! The command lines of sbatch, salloc and srun, read by the C library's own getopt_long as the
//! real programs do, with the plugins' options among Slurm's.

use super::{shim::c_string, state::state};
use crate::layout::{Origin, StepRequest};
use std::ffi::{CStr, CString, c_char, c_int};

/// A client program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Salloc,
    Sbatch,
    Srun,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::Salloc => "salloc",
            Tool::Sbatch => "sbatch",
            Tool::Srun => "srun",
        }
    }

    fn letter(self) -> char {
        match self {
            Tool::Salloc => 'a',
            Tool::Sbatch => 'b',
            Tool::Srun => 'r',
        }
    }
}

/// What getopt_long found.
pub(super) enum Given {
    /// One of Slurm's options, by its long name.
    Slurm(&'static str, Option<String>),
    /// A plugin's, by its index.
    Plugin(usize, Option<String>),
    /// Something else; getopt_long has said so.
    Unknown,
}

/// The first number for a long option without a letter, and for a plugin's option.
const FIRST_LONG: c_int = 0x200;
const FIRST_PLUGIN: c_int = 0xfff;

/// Reads a command line up to its first word that isn't an option, and returns that word's index.
/// `handle` gets each option; an error of its ends the reading.
pub(super) fn read(
    tool: Tool,
    argv: &[String],
    quiet: bool,
    mut handle: impl FnMut(Given) -> Result<(), i32>,
) -> Result<usize, i32> {
    let known: Vec<_> = OPTIONS.iter().filter(|option| option.3.contains(tool.letter())).collect();
    let names: Vec<CString> = known.iter().map(|option| c_string(option.0)).collect();
    let mut letters = String::from("+");
    let mut table = Vec::new();
    for (index, (option, name)) in known.iter().zip(&names).enumerate() {
        let mut val = FIRST_LONG + index as c_int;
        if option.2 != b' ' {
            letters.push(option.2 as char);
            letters.push_str(&":".repeat(option.1 as usize));
            val = c_int::from(option.2);
        }
        table.push(entry(name, c_int::from(option.1), val));
    }
    let plugins: Vec<(CString, c_int, bool)> = {
        let s = state();
        s.options.iter().map(|o| (c_string(&o.name), o.has_arg, o.disabled)).collect()
    };
    for (index, (name, has_arg, disabled)) in plugins.iter().enumerate() {
        if *disabled {
            continue;
        }
        if names.contains(name) {
            let name = name.to_string_lossy();
            state().error(format!("Ignoring conflicting option \"{name}\" of a plugin"));
            continue;
        }
        table.push(entry(name, *has_arg, FIRST_PLUGIN + index as c_int));
    }
    // SAFETY: an entry of zeros ends the table.
    table.push(unsafe { std::mem::zeroed() });
    let letters = c_string(&letters);
    let words: Vec<CString> = argv.iter().map(|word| c_string(word)).collect();
    let mut pointers: Vec<*mut c_char> =
        words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    // SAFETY: the C library's variables; 0 makes it start afresh. One thread uses them.
    unsafe {
        optind = 0;
        opterr = c_int::from(!quiet);
    }
    loop {
        // SAFETY: the vectors end as getopt_long expects and outlive the call; "+" keeps it from
        // reordering the words.
        let (val, argument) = unsafe {
            let val = libc::getopt_long(
                argv.len() as c_int,
                pointers.as_mut_ptr(),
                letters.as_ptr(),
                table.as_ptr(),
                std::ptr::null_mut(),
            );
            let argument = (val != -1 && !optarg.is_null())
                .then(|| CStr::from_ptr(optarg).to_string_lossy().into_owned());
            (val, argument)
        };
        let given = match val {
            -1 => break,
            val if val >= FIRST_PLUGIN => Given::Plugin((val - FIRST_PLUGIN) as usize, argument),
            val => known
                .iter()
                .enumerate()
                .find(|(index, option)| {
                    val == FIRST_LONG + *index as c_int
                        || option.2 != b' ' && val == c_int::from(option.2)
                })
                .map_or(Given::Unknown, |(_, option)| Given::Slurm(option.0, argument)),
        };
        handle(given)?;
    }
    // SAFETY: as above.
    Ok(unsafe { optind } as usize)
}

unsafe extern "C" {
    static mut optarg: *mut c_char;
    static mut optind: c_int;
    static mut opterr: c_int;
}

fn entry(name: &CStr, has_arg: c_int, val: c_int) -> libc::option {
    libc::option { name: name.as_ptr(), has_arg, flag: std::ptr::null_mut(), val }
}

/// Reads a command line into a request, plugins' callbacks included. Returns the index of the
/// first word that isn't an option, or the exit code.
pub(super) fn process(
    tool: Tool,
    argv: &[String],
    request: &mut StepRequest,
) -> Result<usize, i32> {
    read(tool, argv, false, |given| match given {
        Given::Unknown => {
            eprintln!("Try \"{} --help\" for more information", tool.name());
            Err(255)
        }
        Given::Slurm(name, value) => {
            let value = value.unwrap_or_default();
            request.set(name, &value, Origin::CommandLine).map_err(|refused| {
                state().error(refused.0);
                255
            })
        }
        Given::Plugin(index, argument) => {
            if super::options::process(index, argument.as_deref(), false) == 0 {
                return Ok(());
            }
            let s = state();
            let argument = argument.as_deref().unwrap_or("(null)");
            s.error(format!("Invalid --{} argument: {argument}", s.options[index].name));
            Err(255)
        }
    })
}

/// The words of a script's `#SBATCH` lines for one component, and whether there is another.
pub(super) fn script_options(script: &str, component: u32) -> (Vec<String>, bool) {
    let (mut words, mut at, mut more) = (vec!["sbatch".to_owned()], 0, false);
    for line in script.lines() {
        let Some(rest) = line.strip_prefix("#SBATCH") else {
            let command = line.trim_start();
            if command.is_empty() || command.starts_with('#') {
                continue;
            }
            break;
        };
        let first = rest.split_whitespace().next().unwrap_or_default();
        if ["hetjob", "packjob"].iter().any(|word| first.eq_ignore_ascii_case(word)) {
            at += 1;
            more |= at > component;
            continue;
        }
        if at == component {
            words.extend(split_words(rest));
        }
    }
    (words, more)
}

/// Words with quotes and backslashes as in a shell, up to a `#`.
fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut escaped = false;
    for c in line.chars() {
        match (c, quote) {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            ('\\', None | Some('"')) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The exit code of a client that gives up (`SLURM_EXIT_ERROR` is not played).
pub(super) const ERROR_EXIT: i32 = 1;

/// Slurm's own long options: name, has_arg, letter (or blank), and which of s*a*lloc, s*b*atch and
/// s*r*un takes it. Of all releases together: only what a prefix may stand for depends on it.
#[rustfmt::skip]
const OPTIONS: [(&str, u8, u8, &str); 162] = [
    ("accel-bind", 1, b' ', "r"),             ("account", 1, b'A', "abr"),
    ("acctg-freq", 1, b' ', "abr"),           ("array", 1, b'a', "b"),
    ("autocomplete", 1, b' ', "abr"),         ("batch", 1, b' ', "b"),
    ("bb", 1, b' ', "abr"),                   ("bbf", 1, b' ', "abr"),
    ("bcast", 2, b' ', "r"),                  ("bcast-exclude", 1, b' ', "r"),
    ("begin", 1, b'b', "abr"),                ("bell", 0, b' ', "a"),
    ("chdir", 1, b'D', "abr"),                ("cluster", 1, b' ', "abr"),
    ("cluster-constraint", 1, b' ', "abr"),   ("clusters", 1, b'M', "abr"),
    ("comment", 1, b' ', "abr"),              ("compress", 2, b' ', "r"),
    ("consolidate-segments", 0, b' ', "abr"), ("constraint", 1, b'C', "abr"),
    ("container", 1, b' ', "abr"),            ("container-id", 1, b' ', "abr"),
    ("context", 1, b' ', "abr"),              ("contiguous", 0, b' ', "abr"),
    ("core-spec", 1, b'S', "abr"),            ("cores-per-socket", 1, b' ', "abr"),
    ("cpu-bind", 1, b' ', "r"),               ("cpu-freq", 1, b' ', "abr"),
    ("cpu_bind", 1, b' ', "r"),               ("cpus-per-gpu", 1, b' ', "abr"),
    ("cpus-per-task", 1, b'c', "abr"),        ("deadline", 1, b' ', "abr"),
    ("debugger-test", 0, b' ', "r"),          ("delay-boot", 1, b' ', "abr"),
    ("dependency", 1, b'd', "abr"),           ("disable-status", 0, b'X', "r"),
    ("distribution", 1, b'm', "abr"),         ("epilog", 1, b' ', "r"),
    ("error", 1, b'e', "br"),                 ("exact", 0, b' ', "r"),
    ("exclude", 1, b'x', "abr"),              ("exclusive", 2, b' ', "abr"),
    ("export", 1, b' ', "br"),                ("export-file", 1, b' ', "b"),
    ("external", 0, b' ', "b"),               ("external-launcher", 0, b' ', "r"),
    ("extra", 1, b' ', "abr"),                ("extra-node-info", 1, b'B', "abr"),
    ("get-user-env", 2, b' ', "ab"),          ("gid", 1, b' ', "abr"),
    ("gpu-bind", 1, b' ', "abr"),             ("gpu-freq", 1, b' ', "abr"),
    ("gpus", 1, b'G', "abr"),                 ("gpus-per-node", 1, b' ', "abr"),
    ("gpus-per-socket", 1, b' ', "abr"),      ("gpus-per-task", 1, b' ', "abr"),
    ("gres", 1, b' ', "abr"),                 ("gres-flags", 1, b' ', "abr"),
    ("help", 0, b'h', "abr"),                 ("het-group", 1, b' ', "r"),
    ("hint", 1, b' ', "abr"),                 ("hold", 0, b'H', "abr"),
    ("ignore-pbs", 0, b' ', "b"),             ("immediate", 2, b'I', "ar"),
    ("input", 1, b'i', "br"),                 ("interactive", 0, b' ', "r"),
    ("job-name", 1, b'J', "abr"),             ("jobid", 1, b' ', "r"),
    ("kill-command", 2, b'K', "a"),           ("kill-on-bad-exit", 2, b'K', "r"),
    ("kill-on-invalid-dep", 1, b' ', "b"),    ("label", 0, b'l', "r"),
    ("licenses", 1, b'L', "abr"),             ("mail-type", 1, b' ', "abr"),
    ("mail-user", 1, b' ', "abr"),            ("mcs-label", 1, b' ', "abr"),
    ("mem", 1, b' ', "abr"),                  ("mem-bind", 1, b' ', "abr"),
    ("mem-per-cpu", 1, b' ', "abr"),          ("mem-per-gpu", 1, b' ', "abr"),
    ("mincpus", 1, b' ', "abr"),              ("mpi", 1, b' ', "r"),
    ("msg-timeout", 1, b' ', "r"),            ("multi-prog", 0, b' ', "r"),
    ("network", 1, b' ', "abr"),              ("nice", 2, b' ', "abr"),
    ("no-allocate", 0, b'Z', "r"),            ("no-bell", 0, b' ', "a"),
    ("no-kill", 2, b'k', "abr"),              ("no-requeue", 0, b' ', "b"),
    ("no-shell", 0, b' ', "a"),               ("nodefile", 1, b'F', "abr"),
    ("nodelist", 1, b'w', "abr"),             ("nodes", 1, b'N', "abr"),
    ("ntasks", 1, b'n', "abr"),               ("ntasks-per-core", 1, b' ', "abr"),
    ("ntasks-per-gpu", 1, b' ', "abr"),       ("ntasks-per-node", 1, b' ', "abr"),
    ("ntasks-per-socket", 1, b' ', "abr"),    ("ntasks-per-tres", 1, b' ', "abr"),
    ("oom-kill-step", 2, b' ', "abr"),        ("open-mode", 1, b' ', "br"),
    ("output", 1, b'o', "br"),                ("overcommit", 0, b'O', "abr"),
    ("overlap", 2, b' ', "r"),                ("oversubscribe", 0, b's', "abr"),
    ("pack-group", 1, b' ', "r"),             ("parsable", 0, b' ', "b"),
    ("partition", 1, b'p', "abr"),            ("power", 1, b' ', "abr"),
    ("prefer", 1, b' ', "abr"),               ("preserve-env", 0, b'E', "r"),
    ("priority", 1, b' ', "abr"),             ("profile", 1, b' ', "abr"),
    ("prolog", 1, b' ', "r"),                 ("propagate", 2, b' ', "br"),
    ("pty", 0, b' ', "r"),                    ("qos", 1, b'q', "abr"),
    ("quiet", 0, b'Q', "abr"),                ("quit-on-interrupt", 0, b' ', "r"),
    ("reboot", 0, b' ', "abr"),               ("relative", 1, b'r', "r"),
    ("requeue", 0, b' ', "b"),                ("reservation", 1, b' ', "abr"),
    ("resources", 1, b' ', "abr"),            ("resv-ports", 2, b' ', "abr"),
    ("segment", 1, b' ', "abr"),              ("send-libs", 2, b' ', "r"),
    ("signal", 1, b' ', "abr"),               ("slurmd-debug", 1, b' ', "r"),
    ("sockets-per-node", 1, b' ', "abr"),     ("spread-job", 0, b' ', "abr"),
    ("spread-segments", 0, b' ', "abr"),      ("stepmgr", 0, b' ', "abr"),
    ("switches", 1, b' ', "abr"),             ("task-epilog", 1, b' ', "r"),
    ("task-prolog", 1, b' ', "r"),            ("tasks-per-node", 1, b' ', "abr"),
    ("test-only", 0, b' ', "br"),             ("thread-spec", 1, b' ', "abr"),
    ("threads", 1, b'T', "r"),                ("threads-per-core", 1, b' ', "abr"),
    ("time", 1, b't', "abr"),                 ("time-min", 1, b' ', "abr"),
    ("tmp", 1, b' ', "abr"),                  ("treewidth", 1, b' ', "r"),
    ("tres-bind", 1, b' ', "abr"),            ("tres-per-task", 1, b' ', "abr"),
    ("uid", 1, b' ', "abr"),                  ("unbuffered", 0, b'u', "r"),
    ("usage", 0, b' ', "abr"),                ("use-min-nodes", 0, b' ', "abr"),
    ("verbose", 0, b'v', "abr"),              ("version", 0, b'V', "abr"),
    ("wait", 0, b'W', "b"),                   ("wait", 1, b'W', "r"),
    ("wait-all-nodes", 1, b' ', "ab"),        ("wait-for-children", 0, b' ', "r"),
    ("wckey", 1, b' ', "abr"),                ("whole", 0, b' ', "r"),
    ("wrap", 1, b' ', "b"),                   ("x11", 2, b' ', "ar"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn script_options_stop_at_the_first_command() {
        let script = "#!/bin/sh\n#SBATCH -N 2 --disagg-config='a b'\n\n# note\nls\n#SBATCH -n 9\n";
        let (words, more) = script_options(script, 0);
        assert_eq!(words, ["sbatch", "-N", "2", "--disagg-config=a b"]);
        assert!(!more);
    }

    #[test]
    fn hetjob_lines_divide_the_components() {
        let script = "#!/bin/sh\n#SBATCH -N1\n#SBATCH hetjob\n#SBATCH -N2\n";
        assert_eq!(script_options(script, 0), (vec!["sbatch".into(), "-N1".into()], true));
        assert_eq!(script_options(script, 1), (vec!["sbatch".into(), "-N2".into()], false));
    }

    #[test]
    fn a_number_sign_ends_the_words() {
        assert_eq!(split_words(r#" -J "a # b" c\ d # e"#), ["-J", "a # b", "c d"]);
    }
}
