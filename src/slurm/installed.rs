// SPDX-License-Identifier: Apache-2.0
//! The strings of the installed Slurm's library, which the tests hold our names against.

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

pub(crate) struct InstalledLibrary(HashSet<String>);

impl InstalledLibrary {
    /// Nothing, with a word on it, when no Slurm is installed.
    pub(crate) fn read() -> Option<Self> {
        let found = candidates().into_iter().find_map(|path| fs::read(path).ok());
        if found.is_none() {
            eprintln!("no libslurmfull.so is installed: names are not compared with it");
        }
        let bytes = found?;
        let words =
            bytes.split(|&byte| byte == 0).filter_map(|word| std::str::from_utf8(word).ok());
        Some(Self(words.map(str::to_owned).collect()))
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Also as the end of a longer string: linkers share those.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name) || self.words().any(|word| word.ends_with(name))
    }
}

fn candidates() -> Vec<PathBuf> {
    let arches = fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        arches.map(|arch| arch.join("slurm-wlm/libslurmfull.so")).collect();
    paths.push("/usr/lib64/slurm/libslurmfull.so".into());
    paths.push("/usr/lib/slurm/libslurmfull.so".into());
    paths
}
