// SPDX-License-Identifier: Apache-2.0
//! What the tests of several packages need beside a cluster: programs, directories, configurations.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::POLL;

/// The output of a finished command.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit status; `None` when a signal ended the command.
    pub code: Option<i32>,
    /// Standard output, with foreign bytes replaced.
    pub stdout: String,
    /// Standard error, with foreign bytes replaced.
    pub stderr: String,
}

impl Output {
    /// Runs a command to its end.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|e| panic!("{command:?} cannot be run: {e}"));
        output.into()
    }

    /// The standard output of a command that succeeded.
    ///
    /// # Panics
    /// When it did not; the message has all of its output.
    #[track_caller]
    #[must_use]
    pub fn checked(self) -> String {
        self.ok();
        self.stdout
    }

    /// As [`Output::checked`], borrowed.
    ///
    /// # Panics
    /// When the command did not succeed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        self.expect(0);
        &self.stdout
    }

    /// Checks the exit status.
    ///
    /// # Panics
    /// When it is another; the message has all of the output.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        let Self { code: ended, stdout, stderr } = self;
        assert!(*ended == Some(code), "exit status {ended:?}\nstdout: {stdout}\nstderr: {stderr}");
        self
    }

    /// Checks that the output, of either kind, contains these texts.
    ///
    /// # Panics
    /// When one is missing.
    #[track_caller]
    pub fn shows(&self, parts: &[&str]) -> &Self {
        let text = format!("{}\n{}", self.stdout, self.stderr);
        parts.iter().for_each(|part| contains(&text, part));
        self
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Self { code: output.status.code(), stdout, stderr }
    }
}

/// Checks that a text contains another.
///
/// # Panics
/// When it does not; the message has both.
#[track_caller]
pub fn contains(text: &str, part: &str) {
    assert!(text.contains(part), "'{part}' is not in:\n{text}");
}

/// The lines of a step's output, sorted: tasks write in any order.
#[must_use]
pub fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

/// The output of `env -0`.
#[must_use]
pub fn variables(text: &str) -> BTreeMap<String, String> {
    let pair = |entry: &str| entry.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
    text.split('\0').filter_map(pair).collect()
}

/// Waits until there is a value.
///
/// # Panics
/// When there is none within `limit`; the message has `evidence`.
#[track_caller]
pub fn wait_for<T>(
    limit: Duration,
    mut value: impl FnMut() -> Option<T>,
    evidence: impl Fn() -> String,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = value() {
            return value;
        }
        assert!(Instant::now() < deadline, "after {limit:?}: {}", evidence());
        std::thread::sleep(POLL);
    }
}

/// Writes a file that everybody may run, and the directories above it.
///
/// # Panics
/// When it cannot be written.
pub fn executable(path: &Path, text: &str) {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    let written = written.and_then(|()| fs::write(path, text));
    written
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o755)))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

/// A temporary directory that everybody may use: tasks run as another user.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn public_directory() -> tempfile::TempDir {
    let builder = tempfile::Builder::new().permissions(Permissions::from_mode(0o777)).tempdir();
    let directory = builder.expect("a temporary directory");
    // The mode of a new directory is cut by the umask.
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).expect("it is ours");
    directory
}

/// GPUs of a node, then number and GPUs of the context and of the generation servers.
pub type Servers = (u32, (u32, u32), (u32, u32));

/// A configuration of these servers.
#[must_use]
pub fn config(gpus_per_node: u32, ctx: (u32, u32), gen_: (u32, u32)) -> String {
    format!(
        "benchmark: {{mode: e2e, concurrency_list: '16'}}\n\
         hardware: {{gpus_per_node: {gpus_per_node}, num_ctx_servers: {}, num_gen_servers: {}}}\n\
         worker_config:\n  gen: {{tensor_parallel_size: {}}}\n  ctx: {{tensor_parallel_size: {}}}\n",
        ctx.0, gen_.0, gen_.1, ctx.1
    )
}

/// The same with variables for the servers.
#[must_use]
pub fn config_with(servers: Servers, worker_env: &str) -> String {
    let env = worker_env.replace('\'', "''").replace('\n', "\n\n    ");
    let text = config(servers.0, servers.1, servers.2);
    format!("{text}environment:\n  worker_env_var: '{env}'\n")
}
