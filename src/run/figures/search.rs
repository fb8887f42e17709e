// SPDX-License-Identifier: Apache-2.0
//! Finding the files of a run's clients in its workspace, and telling them from those of earlier
//! runs: what was there before the run, unchanged, is not of this run. No clock is needed for that.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::metric::COMPLETED;
use super::reader::{Form, PRINTED, READERS, Reader, Record};
use super::{Figures, Measurement};
use crate::input::source;
use crate::plan::{Plan, Purpose, resolve};
use crate::run::launch::RUNS;

/// The most files and directories of a workspace that are looked at.
const MAX_ENTRIES: usize = 50_000;
/// The most files of clients' names.
const MAX_FILES: usize = 10_000;
/// How deep below the workspace a client's file may be.
const MAX_DEPTH: usize = 8;
/// The largest file that is read whole, in bytes: one with the latency of each token is that long.
const MAX_FILE: u64 = 256 << 20;
/// How much of the end of a log is read.
const MAX_LOG: u64 = 16 << 20;
/// How much of an older file's end shows that a file was appended to.
const MARK: u64 = 4 << 10;

/// The files that were in a workspace before a run, by their paths.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamps(BTreeMap<String, Stamp>);

/// What shows that a file is unchanged, or was only appended to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inode: u64,
    size: u64,
    modified_ns: i128,
    /// SHA-256 of the last bytes, for files that clients append to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<String>,
}

/// A workspace, and what is looked for in it.
#[derive(Debug, Clone)]
pub struct Search {
    workspace: PathBuf,
    /// The directory of this run below `runs`.
    run: Option<String>,
    /// The clients' own logs.
    logs: Vec<String>,
    /// When the run began, where older files may be of an earlier run of the job.
    since: Option<SystemTime>,
}

/// A file that may be a client's.
struct Candidate {
    path: String,
    reader: &'static Reader,
    metadata: fs::Metadata,
}

impl Search {
    /// In the workspace of a plan, and in the directory of one run in it.
    #[must_use]
    pub fn new(plan: &Plan, run: Option<&str>) -> Self {
        let clients = plan.instances().filter(|one| one.role.purpose == Purpose::Client);
        Self {
            workspace: PathBuf::from(&plan.workspace),
            run: run.map(str::to_owned),
            logs: clients.map(|client| resolve(&client, &[]).log_file().into_owned()).collect(),
            since: None,
        }
    }

    /// Leaves out what is older than a file of the workspace, where that is there.
    #[must_use]
    pub fn since(mut self, file: &str) -> Self {
        let file = fs::metadata(self.workspace.join(file));
        self.since = file.and_then(|file| file.modified()).ok();
        self
    }

    /// What is there now.
    ///
    /// # Errors
    /// The workspace cannot be read, or has too many files: what is new cannot be told then.
    pub fn stamps(&self) -> io::Result<Stamps> {
        let stamp = |one: Candidate| {
            let stamp = self.stamp(&one)?;
            Ok((one.path, stamp))
        };
        Ok(Stamps(self.candidates()?.into_iter().map(stamp).collect::<io::Result<_>>()?))
    }

    /// The figures in the files that are new or changed since `before`.
    #[must_use]
    pub fn read(&self, before: &Stamps) -> Figures {
        let mut figures = Figures::default();
        let mut printed = Vec::new();
        let candidates = self.candidates().unwrap_or_else(|error| {
            figures.problems.push(format!("the workspace cannot be searched for figures: {error}"));
            Vec::new()
        });
        for one in candidates {
            match self.records(&one, before.0.get(&one.path)) {
                Ok(records) => {
                    let into = match one.reader.form {
                        Form::Text => &mut printed,
                        _ => &mut figures.measurements,
                    };
                    let file = self.in_run(&one.path).unwrap_or(&one.path);
                    let client = one.reader.client;
                    into.extend(records.into_iter().map(|record| record.named(client, file)));
                }
                // Other programs write files of such names, too.
                Err(_) if !one.reader.is_known_by_name => {}
                Err(error) => {
                    figures.problems.push(format!("{} cannot be read: {error}", one.path))
                }
            }
        }
        // A file of its own says where the figures are better than the client's log does.
        printed.sort_by_key(|one: &Measurement| self.logs.contains(&one.file));
        merge(&mut figures.measurements, printed);
        figures
            .measurements
            .sort_by(|a, b| (a.concurrency, &a.file).cmp(&(b.concurrency, &b.file)));
        figures
    }

    /// The regular files of clients' names, without those of other runs. Links are not followed: those
    /// of the workspace lead into the run's own directory.
    fn candidates(&self) -> io::Result<Vec<Candidate>> {
        let mut found = Vec::new();
        let mut directories = vec![(String::new(), 0)];
        let mut count = 0;
        while let Some((above, depth)) = directories.pop() {
            let entries = match fs::read_dir(self.workspace.join(&above)) {
                Ok(entries) => entries,
                Err(error) if depth == 0 => return Err(error),
                // One that is gone, or that belongs to somebody else.
                Err(_) => continue,
            };
            for entry in entries {
                count += 1;
                if count > MAX_ENTRIES || found.len() > MAX_FILES {
                    return Err(io::Error::other("it has too many files"));
                }
                let Ok(entry) = entry else { continue };
                let (Ok(name), Ok(kind)) = (entry.file_name().into_string(), entry.file_type())
                else {
                    continue;
                };
                let path = if above.is_empty() { name.clone() } else { format!("{above}/{name}") };
                if kind.is_dir() {
                    let is_other_run = above == RUNS && self.run.as_ref() != Some(&name);
                    if depth < MAX_DEPTH && !is_other_run {
                        directories.push((path, depth + 1));
                    }
                } else if kind.is_file()
                    && let Some(reader) = self.reader(&path, &name)
                    && let Ok(metadata) = entry.metadata()
                    && self.since.is_none_or(|since| {
                        metadata.modified().is_ok_and(|modified| modified >= since)
                    })
                {
                    found.push(Candidate { path, reader, metadata });
                }
            }
        }
        Ok(found)
    }

    /// The path of a file in the run's directory; the workspace has a link of the same name.
    fn in_run<'p>(&self, path: &'p str) -> Option<&'p str> {
        let run = self.run.as_deref()?;
        path.strip_prefix(RUNS)?.strip_prefix('/')?.strip_prefix(run)?.strip_prefix('/')
    }

    fn reader(&self, path: &str, name: &str) -> Option<&'static Reader> {
        let is_log = self.logs.iter().any(|log| log == self.in_run(path).unwrap_or(path));
        is_log.then_some(&PRINTED).or_else(|| READERS.iter().find(|reader| reader.takes(name)))
    }

    fn stamp(&self, one: &Candidate) -> io::Result<Stamp> {
        let found = &one.metadata;
        let end = one.reader.may_append().then(|| self.end_at(&one.path, found.len()));
        Ok(Stamp {
            inode: found.ino(),
            size: found.len(),
            modified_ns: i128::from(found.mtime()) * 1_000_000_000 + i128::from(found.mtime_nsec()),
            end: end.transpose()?,
        })
    }

    /// SHA-256 of the bytes before a place in a file.
    fn end_at(&self, path: &str, place: u64) -> io::Result<String> {
        let digest =
            Sha256::digest(self.bytes(path, place.saturating_sub(MARK), MARK.min(place))?);
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The measurements that a file got since it was stamped.
    fn records(&self, one: &Candidate, before: Option<&Stamp>) -> io::Result<Vec<Record>> {
        let size = one.metadata.len();
        let mut from = 0;
        if let Some(before) = before {
            if self.stamp(one)? == *before {
                return Ok(Vec::new());
            }
            if before.size <= size
                && let Some(end) = &before.end
                && self.end_at(&one.path, before.size)? == *end
            {
                from = before.size;
            }
        }
        if one.reader.form == Form::Text {
            from = from.max(size.saturating_sub(MAX_LOG));
        } else if size - from > MAX_FILE {
            return Err(io::Error::other(format!("is longer than {MAX_FILE} bytes")));
        }
        one.reader.read(&self.bytes(&one.path, from, size - from)?)
    }

    fn bytes(&self, path: &str, from: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = source::open_below(&self.workspace, path)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Adds what clients printed: as measurements of their own where no client wrote a file, else only
/// what the files leave out.
fn merge(measurements: &mut Vec<Measurement>, printed: Vec<Measurement>) {
    if measurements.is_empty() {
        // A log in a file of its own says the same as the client's whole output.
        for one in printed {
            let is_same = |known: &Measurement| known.metrics == one.metrics;
            if !measurements.iter().any(is_same) {
                measurements.push(one);
            }
        }
        return;
    }
    for one in measurements {
        let is_same = |other: &&Measurement| {
            other.get(COMPLETED) == one.get(COMPLETED)
                && (other.concurrency == one.concurrency || one.concurrency.is_none())
        };
        if let Some(other) = printed.iter().find(is_same) {
            one.concurrency = one.concurrency.or(other.concurrency);
            for (name, value) in &other.metrics {
                one.metrics.entry(name.clone()).or_insert(*value);
            }
        }
    }
}
