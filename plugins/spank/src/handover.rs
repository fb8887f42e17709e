// SPDX-License-Identifier: Apache-2.0
//! The core's handover of the plan, with errors in the form of the plugin's messages.

use std::path::Path;

use disagg::input::handover;
use disagg::plan::Plan;

/// The value of [`handover::VARIABLE`] for a plan; see [`handover::write`].
///
/// # Errors
/// A message for the user.
pub fn write(plan: &Plan, directory: &Path) -> Result<String, String> {
    handover::write(plan, directory).map_err(|error| format!("disagg: {error}"))
}

/// The plan of a value from its JSON; see [`handover::parse`].
///
/// # Errors
/// A message for the user.
pub fn parse(value: &str, json: &str) -> Result<Plan, String> {
    handover::parse(value, json).map_err(|error| format!("disagg: {error}"))
}

/// The plan of a value; see [`handover::read`].
///
/// # Errors
/// A message for the user.
pub fn read(value: &str) -> Result<Plan, String> {
    handover::read(value).map_err(|error| format!("disagg: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use disagg::input::handover::MAX_INLINE;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn long_plan() -> Plan {
        fixture::plan(&format!("A={}", "x".repeat(MAX_INLINE)))
    }

    #[test]
    fn a_plan_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let plan = fixture::plan("A=1 B=$A");
        let value = write(&plan, directory.path()).unwrap();
        assert!(value.starts_with('{'));
        assert_eq!(read(&value).unwrap().to_json().unwrap(), value);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn submissions_at_once_share_one_private_file_of_a_long_plan() {
        let directory = tempfile::tempdir().unwrap();
        let plan = long_plan();
        let json = plan.to_json().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..15 {
                        let value = write(&plan, directory.path()).unwrap();
                        assert_eq!(read(&value).unwrap().to_json().unwrap(), json);
                    }
                });
            }
        });
        let files: Vec<_> = fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_at_the_files_place_is_replaced_and_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let plan = long_plan();
        let value = write(&plan, directory.path()).unwrap();
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        fs::remove_file(&value).unwrap();
        symlink(&elsewhere, &value).unwrap();
        assert_eq!(write(&plan, directory.path()).unwrap(), value);
        assert!(fs::symlink_metadata(&value).unwrap().is_file());
        assert_eq!(fs::read(elsewhere).unwrap(), b"mine");
        read(&value).unwrap();
    }

    #[test]
    fn another_plan_in_the_files_place_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let value = write(&long_plan(), directory.path()).unwrap();
        let other = fixture::plan("A=other").to_json().unwrap();
        for replace in [&|| fs::write(&value, &other).unwrap(), &|| {
            let link = directory.path().join("other");
            fs::write(&link, &other).unwrap();
            fs::remove_file(&value).unwrap();
            symlink(&link, &value).unwrap();
        }] as [&dyn Fn(); 2]
        {
            replace();
            let message = read(&value).unwrap_err();
            assert!(message.contains("the file has changed since"), "{message}");
        }
    }

    #[test]
    fn a_long_plan_that_cannot_be_written_says_what_to_do() {
        let message = write(&long_plan(), Path::new("/nowhere")).unwrap_err();
        assert!(message.contains("Submit from a directory that you can write to"), "{message}");
    }

    #[test]
    fn a_value_that_is_no_plan_is_refused_by_the_variables_name_on_one_line() {
        for value in ["nonsense", "/no\nwhere"] {
            let message = read(value).unwrap_err();
            assert!(message.starts_with("disagg: SLURM_DISAGG_PLAN: "), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused_without_a_panic(value in "\\PC*") {
            let _ = read(&value);
        }
    }
}
