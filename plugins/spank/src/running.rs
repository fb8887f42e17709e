// SPDX-License-Identifier: Apache-2.0
//! Whether a role already runs in the job: srun holds a lock on it as long as it lives.
//!
//! Asking slurmctld would cost a round trip for every step. A lock costs nothing, ends with srun
//! however srun ends, and cannot be forgotten. It is seen by the sruns of one host, which is where a
//! job's script starts its steps; a second srun on another host is not noticed.
//!
//! The file goes with srun, which removes it while it holds the lock. What a killed srun left is
//! removed by the next one. Whoever gets a lock sees to it that the file is still the one of that name.

use std::collections::hash_map::DefaultHasher;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::geteuid;

/// Takes the lock of a role until this process ends. `false` when another srun holds it.
///
/// `job` tells this job apart from every other one of this user on this host.
///
/// # Errors
/// When the directory of the locks cannot be made or belongs to somebody else.
pub fn claim(job: &[&str], role: &str) -> io::Result<bool> {
    claim_in(&directory(), job, role)
}

/// Removes the files of the locks that this process holds; for the end of srun.
pub fn release() {
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    held.drain(..).for_each(|path| drop(std::fs::remove_file(path)));
}

static HELD: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How often a lock is tried for: another srun may hold it for the moment in which it removes a file.
const ATTEMPTS: u32 = 5;
/// The time between two attempts.
const PAUSE: Duration = Duration::from_millis(5);
/// How many files of others are looked at.
const MOST: usize = 100;

fn claim_in(directory: &Path, job: &[&str], role: &str) -> io::Result<bool> {
    make_private(directory)?;
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    let path = directory.join(format!("{:016x}.{role}", hasher.finish()));
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        if let Some(file) = locked(&path, true)? {
            // The lock belongs to the open file, so it has to stay open until the process ends.
            let _ = file.into_raw_fd();
            HELD.lock().unwrap_or_else(PoisonError::into_inner).push(path);
            remove_others(directory);
            return Ok(true);
        }
    }
    Ok(false)
}

/// The file with its lock; nothing when another process has the lock, or has removed the file.
fn locked(path: &Path, create: bool) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(create)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let own = file.metadata()?;
    let is_there = std::fs::symlink_metadata(path)
        .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
    Ok(is_there.then_some(file))
}

/// Removes what killed sruns left.
fn remove_others(directory: &Path) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.take(MOST).map(|entry| entry.path()) {
        if let Ok(Some(_lock)) = locked(&path, false) {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn directory() -> PathBuf {
    PathBuf::from(format!("/tmp/slurm-disagg-{}", geteuid()))
}

fn make_private(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(directory)?;
    let own = found.uid() == geteuid().as_raw();
    if found.is_dir() && own && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{} is not a directory of this user's alone", directory.display()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("disagg-claim-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_role_is_claimed_once_per_job() {
        let place = place("once");
        assert!(claim_in(&place, &["cluster", "1"], "GEN_0").unwrap());
        assert!(!claim_in(&place, &["cluster", "1"], "GEN_0").unwrap());
        assert!(claim_in(&place, &["cluster", "1"], "GEN_1").unwrap());
        assert!(claim_in(&place, &["cluster", "2"], "GEN_0").unwrap());
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn the_files_go_with_their_srun_and_with_the_next_one_where_that_was_killed() {
        let place = place("gone");
        let files = || std::fs::read_dir(&place).unwrap().count();
        assert!(claim_in(&place, &["cluster", "3"], "GEN_0").unwrap());
        std::fs::write(place.join("0123456789abcdef.CTX_0"), "").unwrap();
        assert!(claim_in(&place, &["cluster", "3"], "GEN_1").unwrap());
        assert_eq!(files(), 2, "the left one is gone, the held ones are not");
        // A file that is removed under its lock claims nothing any more.
        let path = place.join("0123456789abcdef.CTX_1");
        let held = locked(&path, true).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(locked(&path, true).unwrap().is_some());
        drop(held);
        let of_this_test = |path: &PathBuf| path.starts_with(&place);
        let held: Vec<_> = HELD.lock().unwrap().extract_if(.., |path| of_this_test(path)).collect();
        assert_eq!(held.len(), 2);
        std::fs::remove_dir_all(&place).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let place = place("shared");
        DirBuilder::new().mode(0o700).create(&place).unwrap();
        std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap();
        assert!(claim_in(&place, &["cluster", "1"], "GEN_0").is_err());
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_link_in_place_of_the_directory_is_refused() {
        let (place, target) = (place("link"), place("target"));
        DirBuilder::new().mode(0o700).create(&target).unwrap();
        let _ = std::fs::remove_file(&place);
        std::os::unix::fs::symlink(&target, &place).unwrap();
        assert!(claim_in(&place, &["cluster", "1"], "GEN_0").is_err());
        std::fs::remove_file(place).unwrap();
        std::fs::remove_dir_all(target).unwrap();
    }
}
