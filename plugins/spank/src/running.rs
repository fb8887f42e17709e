// SPDX-License-Identifier: Apache-2.0
//! Whether a role already runs in the job: srun holds a lock on it as long as it lives.
//!
//! Asking slurmctld would cost a round trip for every step. A lock costs nothing, ends with srun
//! however srun ends, and cannot be forgotten. It is seen by the sruns of one host, which is where a
//! job's script starts its steps; a second srun on another host is not noticed.

use std::collections::hash_map::DefaultHasher;
use std::fs::{DirBuilder, OpenOptions, TryLockError};
use std::hash::{Hash as _, Hasher as _};
use std::io;
use std::os::fd::IntoRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

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

fn claim_in(directory: &Path, job: &[&str], role: &str) -> io::Result<bool> {
    make_private(directory)?;
    let mut hasher = DefaultHasher::new();
    job.hash(&mut hasher);
    let path = directory.join(format!("{:016x}.{role}", hasher.finish()));
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(&path)?;
    match file.try_lock() {
        Ok(()) => {
            // The lock belongs to the open file, so it has to stay open until the process ends.
            let _ = file.into_raw_fd();
            Ok(true)
        }
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Lock files hold nothing and are left where they are: removing one could take it from under
/// another srun. The directory is the user's own and emptied as other temporary files are.
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
