// SPDX-License-Identifier: Apache-2.0
//! What a user wrote on srun's command line, read before srun itself has read it.
//!
//! `slurm_spank_init` runs before srun parses anything, and only then can a plugin still give srun
//! its defaults. So the words are read here the way getopt_long reads them: long options with
//! `=value` or the value in the next word, unambiguous prefixes of long options, combined short
//! options, and the end at `--` or at the first word that is no option: the command.

/// The options whose use matters here, by their long names.
const WANTED: [&str; 19] = [
    "nodes",
    "ntasks",
    "ntasks-per-node",
    "nodelist",
    "nodefile",
    "distribution",
    "relative",
    "exclude",
    "disagg-config",
    "disagg-test",
    "disagg-role",
    "disagg-placement",
    "disagg-explain",
    "disagg-again",
    "het-group",
    "jobid",
    "container-image",
    "container-name",
    "multi-prog",
];

/// Long options that take the next word as their value when there is no `=`: srun's of 20.11 to
/// 26.05 (`srun --help`, `man srun`), this plugin's, and pyxis's.
#[rustfmt::skip]
const TAKING_A_VALUE: &[&str] = &[
    "accel-bind", "account", "acctg-freq", "bb", "bbf", "bcast-exclude", "begin", "chdir",
    "cluster", "cluster-constraint", "clusters", "comment", "constraint", "container",
    "container-env", "container-id", "container-image", "container-mounts", "container-name",
    "container-save", "container-workdir", "context", "core-spec", "cores", "cores-per-socket",
    "cpu-bind", "cpu-freq", "cpu_bind", "cpus-per-gpu", "cpus-per-task", "deadline",
    "delay-boot", "dependency", "disagg-config", "disagg-placement", "disagg-role",
    "disagg-test", "distribution", "epilog", "error", "exclude", "export", "extra",
    "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "het-group", "hint", "input",
    "job-name", "jobid", "licenses", "linux-image", "mail-type", "mail-user",
    "max-exit-timeout", "max-threads", "mcs-label", "mem", "mem-bind", "mem-per-cpu",
    "mem-per-gpu", "mem_bind", "mincores", "mincpus", "minsockets", "minthreads",
    "mloader-image", "mpi", "msg-timeout", "network", "nodefile", "nodelist", "nodes", "ntasks",
    "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket",
    "ntasks-per-tres", "open-mode", "output", "pack-group", "partition", "power", "prefer",
    "priority", "profile", "prolog", "qos", "ramdisk-image", "relative", "reservation",
    "segment", "signal", "slurmd-debug", "sockets", "sockets-per-node", "switches",
    "task-epilog", "task-prolog", "tasks-per-node", "thread-spec", "threads",
    "threads-per-core", "time", "time-min", "tmp", "tree-width", "treewidth", "tres-bind",
    "tres-per-job", "tres-per-node", "tres-per-socket", "tres-per-task", "uid", "wait", "wckey",
];

/// Long options that never take the next word: flags, and those whose value is optional.
#[rustfmt::skip]
const TAKING_NONE: &[&str] = &[
    "async", "bcast", "compress", "consolidate-segments", "container-entrypoint",
    "container-entrypoint-log", "container-mount-home", "container-readonly",
    "container-remap-root", "container-writable", "contiguous", "debugger-test",
    "disable-status", "disagg-again", "disagg-explain", "exact", "exclusive", "external",
    "external-launcher", "get-user-env", "help", "hold", "immediate", "interactive",
    "kill-on-bad-exit", "label", "multi-prog", "nice", "no-allocate", "no-bell",
    "no-container-entrypoint", "no-container-mount-home", "no-container-remap-root", "no-kill",
    "no-rotate", "oom-kill-step", "overcommit", "overlap", "oversubscribe", "preserve-env",
    "propagate", "pty", "quiet", "quit-on-interrupt", "reboot", "resv-port", "resv-ports",
    "send-libs", "share", "slurmctld-debug", "spread-job", "spread-segments", "stepmgr",
    "test-only", "unbuffered", "usage", "use-min-nodes", "verbose", "version", "whole", "x11",
];

/// Short options that take a value.
const SHORT_TAKING_A_VALUE: &str = "AbBcCdDeFGiJLmMnNopqrStTwWx";

/// The value of each wanted option, the last one given, as getopt leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    given: Vec<(&'static str, String)>,
}

impl CommandLine {
    /// Reads the words of a command line; the first is the program's own name.
    #[must_use]
    pub fn read<S: AsRef<str>>(words: impl IntoIterator<Item = S>) -> Self {
        let mut line = Self::default();
        let mut words = words.into_iter().skip(1);
        while let Some(word) = words.next() {
            let word = word.as_ref();
            let mut next = || words.next().map(|w| w.as_ref().to_owned());
            let goes_on = match word.strip_prefix("--") {
                Some("") => false,
                Some(long) => line.take_long(long, &mut next),
                None => match word.strip_prefix('-') {
                    Some(shorts) if !shorts.is_empty() => line.take_shorts(shorts, &mut next),
                    _ => false,
                },
            };
            if !goes_on {
                break;
            }
        }
        line
    }

    /// Reads the command line of the running process. Empty when it cannot be read.
    #[must_use]
    pub fn of_this_process() -> Self {
        let bytes = std::fs::read("/proc/self/cmdline").unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        Self::read(text.strip_suffix('\0').unwrap_or(&text).split('\0'))
    }

    /// The value given for an option, by its long name; empty for a flag.
    #[must_use]
    pub fn get(&self, option: &str) -> Option<&str> {
        self.given.iter().rev().find(|(name, _)| *name == option).map(|(_, v)| v.as_str())
    }

    fn take_long(&mut self, word: &str, next: &mut dyn FnMut() -> Option<String>) -> bool {
        let (written, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        match (long_option(written), value) {
            (Some((name, _)), Some(value)) => self.note(name, value),
            (Some((name, true)), None) => match next() {
                Some(value) => self.note(name, value),
                None => return false,
            },
            (Some((name, false)), None) => self.note(name, String::new()),
            // Some other plugin's option: whether the next word is its value cannot be known. It
            // is taken for a flag, so that no word of the user's command is ever read as ours.
            (None, _) => {}
        }
        true
    }

    fn take_shorts(&mut self, shorts: &str, next: &mut dyn FnMut() -> Option<String>) -> bool {
        for (at, short) in shorts.char_indices() {
            if !SHORT_TAKING_A_VALUE.contains(short) {
                // -I, -K and -k take a value only when it is attached: the rest of the word.
                if matches!(short, 'I' | 'K' | 'k') {
                    return true;
                }
                continue;
            }
            let attached = &shorts[at + short.len_utf8()..];
            let value = match attached.is_empty() {
                false => attached.to_owned(),
                true => match next() {
                    Some(value) => value,
                    None => return false,
                },
            };
            if let Some(name) = long_name(short) {
                self.note(name, value);
            }
            return true;
        }
        true
    }

    fn note(&mut self, option: &str, value: String) {
        if let Some(name) = WANTED.iter().find(|w| **w == option) {
            self.given.push((name, value));
        }
    }
}

fn long_name(short: char) -> Option<&'static str> {
    Some(match short {
        'N' => "nodes",
        'n' => "ntasks",
        'w' => "nodelist",
        'F' => "nodefile",
        'm' => "distribution",
        'r' => "relative",
        'x' => "exclude",
        _ => return None,
    })
}

/// The option that a word names, exactly or as the only one that begins so, and whether it takes
/// the next word.
fn long_option(written: &str) -> Option<(&'static str, bool)> {
    let all =
        || TAKING_A_VALUE.iter().map(|n| (*n, true)).chain(TAKING_NONE.iter().map(|n| (*n, false)));
    all().find(|(name, _)| *name == written).or_else(|| {
        let mut beginning = all().filter(|(name, _)| name.starts_with(written));
        beginning.next().filter(|_| beginning.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(words: &str) -> CommandLine {
        CommandLine::read(words.split(' '))
    }

    #[test]
    fn a_role_is_found_with_an_equals_sign_and_as_the_next_word() {
        assert_eq!(read("srun --disagg-role=GEN_0 cmd").get("disagg-role"), Some("GEN_0"));
        assert_eq!(read("srun --disagg-role GEN_0 cmd").get("disagg-role"), Some("GEN_0"));
    }

    #[test]
    fn the_last_of_several_wins() {
        let line = read("srun --disagg-role=GEN_0 --disagg-role=CTX_1 cmd");
        assert_eq!(line.get("disagg-role"), Some("CTX_1"));
    }

    #[test]
    fn nothing_is_read_from_the_users_command() {
        for words in [
            "srun cmd --disagg-role=GEN_0 -N2",
            "srun -- cmd --disagg-role=GEN_0 -N2",
            "srun -l bash -c --disagg-role=GEN_0 -N2",
            "srun --overlap cmd --disagg-role GEN_0 --nodes 2",
            "srun -J x cmd --disagg-role GEN_0 --nodes=2",
            "srun - --disagg-role=GEN_0 -N2",
            "srun --another-plugins-option cmd --disagg-role=GEN_0 -N2",
        ] {
            let line = read(words);
            assert_eq!((line.get("disagg-role"), line.get("nodes")), (None, None), "{words}");
        }
    }

    #[test]
    fn a_value_is_never_taken_for_an_option() {
        let line = read("srun -J -N5 --comment --disagg-role=X --chdir -w -o -n9 cmd");
        assert_eq!(line, CommandLine::default());
    }

    #[test]
    fn every_spelling_of_a_size_is_read() {
        for words in [
            "srun -N2 cmd",
            "srun -N 2 cmd",
            "srun --nodes=2 cmd",
            "srun --nodes 2 cmd",
            "srun -lN2 cmd",
            "srun -lvN 2 cmd",
            "srun -K1 -N2 cmd",
            "srun -I -N2 cmd",
            "srun -lK1 --exclusive -N2 cmd",
        ] {
            assert_eq!(read(words).get("nodes"), Some("2"), "{words}");
        }
        assert_eq!(read("srun -n8 -wa,b -m cyclic cmd").get("ntasks"), Some("8"));
        assert_eq!(read("srun -n8 -wa,b -m cyclic cmd").get("nodelist"), Some("a,b"));
        assert_eq!(read("srun -n8 -wa,b -m cyclic cmd").get("distribution"), Some("cyclic"));
        assert_eq!(read("srun --ntasks-per-node=4 cmd").get("ntasks-per-node"), Some("4"));
    }

    #[test]
    fn a_prefix_that_only_one_option_has_stands_for_it() {
        assert_eq!(read("srun --disagg-r=GEN_0 cmd").get("disagg-role"), Some("GEN_0"));
        assert_eq!(read("srun --disagg-r GEN_0 cmd").get("disagg-role"), Some("GEN_0"));
        assert_eq!(read("srun --ntasks-per-n 4 cmd").get("ntasks-per-node"), Some("4"));
    }

    #[test]
    fn an_exact_name_wins_over_longer_ones() {
        assert_eq!(read("srun --ntasks 8 cmd").get("ntasks"), Some("8"));
        assert_eq!(read("srun --container x --nodes=3 cmd").get("nodes"), Some("3"));
    }

    #[test]
    fn a_flag_is_given_without_a_value() {
        assert_eq!(read("srun --disagg-again --disagg-role=X c").get("disagg-again"), Some(""));
        assert_eq!(read("srun --disagg-role=X c").get("disagg-again"), None);
    }

    #[test]
    fn the_options_of_pyxis_do_not_hide_a_role_behind_them() {
        let line = read("srun --container-image x.sqsh --container-mount-home --disagg-role=X c");
        assert_eq!(line.get("disagg-role"), Some("X"));
    }

    #[test]
    fn another_plugins_option_with_an_equals_sign_hides_nothing() {
        let line = read("srun --unknown=1 --disagg-role=X c");
        assert_eq!(line.get("disagg-role"), Some("X"));
    }

    #[test]
    fn a_value_that_is_missing_ends_the_reading() {
        assert_eq!(read("srun --disagg-role"), CommandLine::default());
        assert_eq!(read("srun -N"), CommandLine::default());
        assert_eq!(CommandLine::read(Vec::<String>::new()), CommandLine::default());
    }

    #[test]
    fn no_option_is_listed_twice() {
        let mut names: Vec<_> = TAKING_A_VALUE.iter().chain(TAKING_NONE).collect();
        names.sort();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(WANTED.iter().all(|w| names.contains(&w)));
    }

    proptest! {
        #[test]
        fn any_words_are_read_without_a_panic(words in proptest::collection::vec("\\PC*", 0..8)) {
            let _ = CommandLine::read(&words);
        }

        #[test]
        fn a_command_hides_whatever_follows_it(after in proptest::collection::vec("[ -~]*", 0..6)) {
            let words = ["srun", "cmd"].map(str::to_owned).into_iter().chain(after);
            prop_assert_eq!(CommandLine::read(words), CommandLine::default());
        }
    }
}
