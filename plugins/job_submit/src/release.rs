// SPDX-License-Identifier: Apache-2.0
//! Whether the plugin may touch job descriptions of the Slurm that runs it.
//!
//! The description is laid out differently in every release series and identically within one.
//! With another layout a write would corrupt slurmctld; a refusal to load would stop it. So the
//! plugin claims whatever release runs, and where that is not its own it does nothing, loudly.

use disagg_host::version::{Release, Running};

/// The release series whose header this was built with.
pub const BUILT_FOR: Release = Release::of_version(crate::slurm::SLURM_VERSION_NUMBER);

/// Checks that `running` is of the series `built`.
///
/// # Errors
/// What runs instead, or that it is not known, as a sentence for the log. Two sources (the API
/// number, and the version in slurmctld's own plugins) must not disagree, and one must be there.
pub fn check(built: Release, running: Running) -> Result<(), String> {
    let exact = running.exact.map(Release::of_version);
    let said: Vec<Release> = [exact, running.release].into_iter().flatten().collect();
    match said.iter().find(|release| **release != built) {
        None if said.is_empty() => Err(format!(
            "it was built for Slurm {built}, and which release runs here cannot be told"
        )),
        None => Ok(()),
        Some(other) => Err(format!("it was built for Slurm {built}, and {other} runs here")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUILT: Release = Release { major: 22, minor: 5 };
    const NEWER: Release = Release { major: 24, minor: 11 };

    fn running(release: Option<Release>, exact: Option<u32>) -> Running {
        Running { release, exact }
    }

    #[test]
    fn any_micro_release_of_its_own_series_is_taken() {
        for micro in [0, 8, 11] {
            let exact = Some(BUILT.version(micro));
            assert_eq!(check(BUILT, running(Some(BUILT), exact)), Ok(()));
            assert_eq!(check(BUILT, running(None, exact)), Ok(()));
        }
        assert_eq!(check(BUILT, running(Some(BUILT), None)), Ok(()));
    }

    #[test]
    fn another_series_is_refused_with_both_names() {
        let refusal = check(BUILT, running(Some(NEWER), Some(NEWER.version(5)))).unwrap_err();
        assert_eq!(refusal, "it was built for Slurm 22.05, and 24.11 runs here");
    }

    #[test]
    fn sources_that_disagree_are_refused() {
        assert!(check(BUILT, running(Some(NEWER), Some(BUILT.version(8)))).is_err());
        assert!(check(BUILT, running(Some(BUILT), Some(NEWER.version(5)))).is_err());
    }

    #[test]
    fn a_release_that_cannot_be_told_is_refused() {
        assert!(check(BUILT, running(None, None)).unwrap_err().contains("cannot be told"));
    }
}
