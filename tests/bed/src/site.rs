// SPDX-License-Identifier: Apache-2.0
//! A cluster as a site has it that uses the plugins, and a user's jobs on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{
    Cluster, Job, Options, Output, Servers, TEST_USER, built, config_with, executable,
    public_directory,
};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// `three.yaml`: GEN_0, CTX_0 and CTX_1 on a node each. `wide.yaml`: GEN_0 on two, CTX_0 on a third.
const CONFIGS: [(&str, Servers); 2] =
    [("three.yaml", (4, (2, 4), (1, 4))), ("wide.yaml", (4, (1, 4), (1, 8)))];

/// A cluster, the plugins' files and two configurations.
#[derive(Debug)]
pub struct Site {
    /// The cluster.
    pub cluster: Cluster,
    // Deleted after the cluster is down.
    files: tempfile::TempDir,
}

impl Site {
    /// A cluster with the SPANK plugin, required.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start(nodes: u32) -> Self {
        Self::with(nodes, |options, files| options.spank(&plugstack_line("required", files)))
    }

    /// A cluster with these changes; the built plugins and site.yaml are in the given directory.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    pub fn with(nodes: u32, change: impl FnOnce(Options, &Path) -> Options) -> Self {
        let files = public_directory();
        for name in ["spank_disagg.so", "job_submit_disagg.so", "job_submit_disagg.lua"] {
            fs::copy(built(name), files.path().join(name)).expect("a new directory");
        }
        let settings = "trtllm_dir: /opt/trtllm\nmodels_dir: /opt/models\nmpi_type: pmi2\n";
        fs::write(files.path().join("site.yaml"), settings).expect("a new directory");
        let cluster = Cluster::start(&change(Options::nodes(nodes), files.path()));
        let site = Self { cluster, files };
        let env = "TLLM_LOG_LEVEL=INFO CACHE=/tmp/cache_${SLURM_LOCALID}";
        CONFIGS.iter().for_each(|(name, servers)| site.write(name, &config_with(*servers, env)));
        site
    }

    /// The directory with the plugins.
    #[must_use]
    pub fn files(&self) -> &Path {
        self.files.path()
    }

    /// A file in the working directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.cluster.work().join(name)
    }

    /// Writes a file in the working directory that everybody may read and run.
    pub fn write(&self, name: &str, text: &str) {
        executable(&self.path(name), text);
    }

    /// A file in the working directory; empty when there is none.
    #[must_use]
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Runs a command as the user.
    pub fn run<A: AsRef<std::ffi::OsStr>>(&self, argv: impl IntoIterator<Item = A>) -> Output {
        self.cluster.run_as(TEST_USER, argv)
    }

    /// Submits a bash script with these options; its output goes to `job.out`.
    pub fn submit(&self, options: &[&str], script: &str) -> u32 {
        self.write("job.sh", &format!("#!/bin/bash\n{script}\n"));
        let _ = fs::remove_file(self.path("job.out"));
        self.cluster.submit([&["--output=job.out", "--time=5"], options, &["job.sh"]].concat())
    }

    /// Runs a script to its good end; gives the job and its output.
    #[track_caller]
    pub fn job(&self, options: &[&str], script: &str) -> (Job, String) {
        let job = self.cluster.wait_job(self.submit(options, script), LIMIT);
        let output = self.read("job.out");
        assert_eq!(job.state(), "COMPLETED", "{output}");
        (job, output)
    }

    /// Runs a script in a job of three nodes with a configuration; gives its output.
    #[track_caller]
    pub fn job_of(&self, config: &str, script: &str) -> String {
        let config = format!("--disagg-config={config}");
        self.job(&["--nodes=3", "--ntasks-per-node=4", "--gpus-per-node=4", &config], script).1
    }

    /// Runs what must be refused before anything is queued; gives what the user reads.
    #[track_caller]
    pub fn refused(&self, argv: &[&str]) -> String {
        let output = self.run(argv);
        assert_ne!(output.code, Some(0), "{argv:?}: {output:?}");
        assert_eq!(self.run(["squeue", "-h"]).checked(), "", "{argv:?}: something is queued");
        output.stderr
    }
}

/// The line of plugstack.conf for the SPANK plugin in this directory.
#[must_use]
pub fn plugstack_line(how: &str, files: &Path) -> String {
    let files = files.display();
    format!("{how} {files}/spank_disagg.so site={files}/site.yaml")
}
