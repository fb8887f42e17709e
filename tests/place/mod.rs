// SPDX-License-Identifier: Apache-2.0
//! A directory in which the command runs as a person runs it.

#![allow(dead_code, reason = "each file of tests uses some of it")]
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use slurm_bed::Output;

/// A directory of a test's own.
pub struct Place {
    pub root: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), content).unwrap();
        name.to_owned()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"));
        command.args(arguments).env_clear().env("CLUSTER_LLM_DATA", "/lustre/data");
        command.current_dir(self.root.path());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        Output::of(&mut self.command(arguments))
    }

    /// Standard output of a run that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).checked()
    }

    /// Standard error of a run that must refuse its input and write nothing.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let before = self.entries();
        let message = self.run(arguments).expect(2).stderr.clone();
        assert_eq!(self.entries(), before, "{arguments:?} wrote something");
        assert!(!message.contains("panicked"), "{message}");
        message
    }

    /// A dry run of a submission into this workspace.
    pub fn dry_run(&self, config: &str, workspace: &str, more: &[&str]) -> Output {
        let submit = ["submit", config, "--dry-run", "--no-preflight"];
        let places = ["--trtllm-dir", "/llm", "--workspace", workspace];
        self.run(&[&submit[..], &places, more].concat())
    }

    /// A text without the directory's random name.
    pub fn shown(&self, text: &str) -> String {
        text.replace(self.root.path().to_str().unwrap(), "/here")
    }

    pub fn plan(&self, config: &str) -> Value {
        let text = self.ok(&["plan", config, "--trtllm-dir", "/llm", "--format", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    pub fn entries(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.root.path()).unwrap();
        let mut entries: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        entries
    }
}
