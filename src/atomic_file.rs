// SPDX-License-Identifier: Apache-2.0
//! Files that are written whole or not at all: under a temporary name beside their place, then
//! renamed. A reader sees the old file or the new one, and so does whoever comes after a failure.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is written, but not in its place yet; dropping it removes it.
#[derive(Debug)]
pub struct Draft {
    draft: PathBuf,
    place: PathBuf,
}

impl Draft {
    /// Writes a draft of the file at `place` with `fill`; also gives what that returns. `mode` is
    /// reduced by the umask, as for any new file.
    ///
    /// `fill` syncs the file where that is worth the time: only then does a full disk of a network
    /// file system show.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new<T>(
        place: &Path,
        mode: u32,
        fill: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> io::Result<(Self, T)> {
        let name = place.file_name().ok_or(ErrorKind::InvalidInput)?.to_string_lossy();
        let mut number = 0;
        let (draft, mut file) = loop {
            // Unique on this node; other nodes that use the directory may have taken the name.
            let draft = place.with_file_name(format!(".{name}.{}-{number}", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < 1_000 => {
                    number += 1;
                }
                file => break (draft, file?),
            }
        };
        let draft = Self { draft, place: place.to_owned() };
        let filled = fill(&mut file)?;
        Ok((draft, filled))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// Those of the system; an older file is still there.
    pub fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.draft, &self.place)?;
        self.draft.clear();
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After `publish` the name may be another draft's.
        if !self.draft.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.draft);
        }
    }
}

/// Writes a file with `fill`; gives what that returns.
///
/// # Errors
/// Those of the system; an older file is still there.
pub fn write<T>(
    place: &Path,
    mode: u32,
    fill: impl FnOnce(&mut File) -> io::Result<T>,
) -> io::Result<T> {
    let (draft, filled) = Draft::new(place, mode, fill)?;
    draft.publish()?;
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_failure_leaves_the_older_file_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("file");
        write(&place, 0o600, |file| file.write_all(b"old")).unwrap();
        let half = |file: &mut File| file.write_all(b"ne").and(Err::<(), _>(io::Error::other("x")));
        assert!(write(&place, 0o600, half).is_err());
        assert_eq!(fs::read(&place).unwrap(), b"old");
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn drafts_at_the_same_time_have_files_of_their_own_and_follow_no_link() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("file");
        let trap = directory.path().join(format!(".file.{}-0", std::process::id()));
        std::os::unix::fs::symlink(directory.path().join("elsewhere"), trap).unwrap();
        let drafts = ["one", "two"]
            .map(|text| Draft::new(&place, 0o600, |f| f.write_all(text.as_bytes())).unwrap().0);
        assert!(!directory.path().join("elsewhere").exists());
        for (draft, text) in drafts.into_iter().zip(["one", "two"]) {
            draft.publish().unwrap();
            assert_eq!(fs::read_to_string(&place).unwrap(), text);
        }
    }
}
