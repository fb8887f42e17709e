// SPDX-License-Identifier: Apache-2.0
//! Which Slurm the tests run on: Debian's, or the one that `SLURM_PREFIX` names.

use std::path::{Path, PathBuf};
use std::process::Command;

/// An installed Slurm, built with `--enable-multiple-slurmd` as Debian's is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slurm {
    /// `/usr` for Debian's; programs are in its `bin` and `sbin`.
    pub prefix: PathBuf,
    /// Its release, e.g. `22.05.8`.
    pub version: String,
}

impl Slurm {
    /// The distribution's.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn debian() -> Self {
        Self::at(Path::new("/usr"))
    }

    /// The one that clusters run unless told otherwise: below `SLURM_PREFIX`, else the distribution's.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn under_test() -> Self {
        let prefix = std::env::var_os("SLURM_PREFIX").filter(|prefix| !prefix.is_empty());
        prefix.map_or_else(Self::debian, |prefix| Self::at(Path::new(&prefix)))
    }

    /// The one below `prefix`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn at(prefix: &Path) -> Self {
        let slurmctld = prefix.join("sbin/slurmctld");
        let output = Command::new(&slurmctld).arg("-V").output().unwrap_or_else(|e| {
            panic!(
                "no Slurm below {} ({}: {e}); for Debian's: \
                 apt-get install --no-install-recommends slurmctld slurmd slurm-client munge",
                prefix.display(),
                slurmctld.display()
            )
        });
        let text = String::from_utf8_lossy(&output.stdout);
        // Debian's says `slurm-wlm 22.05.8`, a plain one `slurm 22.05.8`.
        let version = text.split_whitespace().last().unwrap_or_default();
        Self { prefix: prefix.to_owned(), version: version.to_owned() }
    }

    /// The release without its micro number as numbers that compare, e.g. `(22, 5)`.
    ///
    /// # Panics
    /// When the release is not made of numbers.
    #[must_use]
    pub fn release(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor),
            _ => panic!("{} is no Slurm release", self.version),
        }
    }
}
