// SPDX-License-Identifier: Apache-2.0
//! What the simulator's tests share: compiling the probe plugin, and clusters that load it.

#![allow(clippy::unwrap_used)]
#![allow(dead_code)] // each test file uses a part

use slurm_sim::{Cluster, Env, Host, Release, Trace};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

/// A directory of one test, readable for the user that the simulated programs run as.
pub struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Bench { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The probe with these defines, compiled once per test program. The file is `NAME.so`.
    pub fn probe(&self, name: &str, defines: &[&str]) -> PathBuf {
        static COMPILED: Mutex<BTreeMap<Vec<String>, Vec<u8>>> = Mutex::new(BTreeMap::new());
        let key = defines.iter().map(|define| (*define).to_owned()).collect();
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        let library = compiled.entry(key).or_insert_with(|| self.compile(defines));
        let target = self.path(&format!("{name}.so"));
        fs::write(&target, library).unwrap();
        target
    }

    fn compile(&self, defines: &[&str]) -> Vec<u8> {
        let target = self.path("compiled.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/probe.c");
        let output = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".into()))
            .args(["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"])
            .args(defines)
            .arg("-o")
            .arg(&target)
            .arg(source)
            .output()
            .expect("a C compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(target).unwrap()
    }

    /// A batch script with these lines after the first.
    pub fn script(&self, lines: &str) -> String {
        let path = self.path("job.sh");
        fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `sbatch` of a script with these arguments, and its batch step.
    pub fn batch(&self, cluster: &Cluster, args: &[&str]) -> (Trace, Trace) {
        let script = self.script("true");
        let sbatch = cluster.sbatch(&[args, &[&script]].concat(), &environ()).unwrap();
        let submission = sbatch.submissions()[0].clone();
        let allocation = cluster.allocate_for(&submission).unwrap();
        let batch = cluster.batch(&submission, &allocation).unwrap();
        (sbatch, batch)
    }

    /// A cluster of four nodes with the probe, required, and these actions.
    pub fn cluster(&self, release: Release, actions: &str) -> Cluster {
        self.cluster_with("required", release, actions, &[])
    }

    pub fn cluster_with(
        &self,
        kind: &str,
        release: Release,
        actions: &str,
        defines: &[&str],
    ) -> Cluster {
        let probe = self.probe("probe", defines);
        bare(release)
            .plugstack(format!("{kind} {} {actions}\n", probe.display()))
            .cwd(self.directory.path())
    }
}

/// A cluster of four nodes without plugins.
pub fn bare(release: Release) -> Cluster {
    Cluster::new(release, Host::at(env!("CARGO_BIN_EXE_slurm-sim-host")), 4)
}

/// A user's environment.
pub fn environ() -> Env {
    [("PATH", "/usr/bin:/bin"), ("HOME", "/"), ("MINE", "yes")].into_iter().collect()
}
