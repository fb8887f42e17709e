// SPDX-License-Identifier: Apache-2.0
//! The plan on its way from the submission into the job: the value of [`PLAN`](environment::PLAN).
//!
//! It is the plan's JSON, or, when that is too long for a variable, the absolute path of a file
//! with it. A user can put anything there, so reading is bounded and never blocks.

use std::collections::hash_map::DefaultHasher;
use std::fs::OpenOptions;
use std::hash::{Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use disagg::plan::{MAX_JSON, Plan};

use crate::environment;

/// The longest plan that travels in the variable itself, in bytes. Linux takes 128 KiB at most for
/// one string of an environment.
const MAX_INLINE: usize = 64 << 10;

/// The value for a plan. A long one is written to a file in `directory`, which the job's nodes must
/// see. Its name follows from what is in it, so equal plans share a file.
///
/// # Errors
/// A sentence, when such a file cannot be written.
pub fn write(plan: &Plan, directory: &Path) -> Result<String, String> {
    let json = plan
        .to_json()
        .map_err(|error| format!("disagg: the plan cannot be written as JSON: {error}"))?;
    if json.len() <= MAX_INLINE {
        return Ok(json);
    }
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    let path = directory.join(format!(".disagg-plan-{:016x}.json", hasher.finish()));
    store(&path, json.as_bytes()).map_err(|error| {
        format!(
            "disagg: the plan is {} bytes long and goes into a file, but {} cannot be written: {error}. \
             Submit from a directory that you can write to and that the nodes see",
            json.len(),
            path.display()
        )
    })?;
    Ok(path.display().to_string())
}

fn store(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// The plan of a value.
///
/// # Errors
/// A sentence that says what is wrong with the value or the file.
pub fn read(value: &str) -> Result<Plan, String> {
    let wrong = |what: String| format!("disagg: {}: {what}", environment::PLAN);
    if !value.starts_with('/') {
        return Plan::from_json(value).map_err(|error| wrong(error.to_string()));
    }
    let text = load(Path::new(value)).map_err(|error| wrong(format!("{value}: {error}")))?;
    Plan::from_json(&text).map_err(|error| wrong(format!("{value}: {error}")))
}

fn load(path: &Path) -> Result<String, String> {
    // Opening a FIFO without O_NONBLOCK would wait for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| format!("cannot be opened: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut text = String::new();
    file.take(MAX_JSON as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() > MAX_JSON {
        return Err(format!("is longer than {MAX_JSON} bytes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use proptest::prelude::*;

    #[test]
    fn a_plan_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let plan = fixture::plan("A=1 B=$A");
        let value = write(&plan, directory.path()).unwrap();
        assert!(value.starts_with('{'));
        assert_eq!(read(&value).unwrap().to_json().unwrap(), value);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_long_plan_goes_into_a_file_that_equal_plans_share() {
        let directory = tempfile::tempdir().unwrap();
        let plan = fixture::plan(&format!("A={}", "x".repeat(MAX_INLINE)));
        let value = write(&plan, directory.path()).unwrap();
        assert!(Path::new(&value).starts_with(directory.path()));
        assert_eq!(read(&value).unwrap().to_json().unwrap(), plan.to_json().unwrap());
        assert_eq!(write(&plan, directory.path()).unwrap(), value);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_long_plan_that_cannot_be_written_says_what_to_do() {
        let plan = fixture::plan(&format!("A={}", "x".repeat(MAX_INLINE)));
        let message = write(&plan, Path::new("/nowhere")).unwrap_err();
        assert!(message.contains("Submit from a directory that you can write to"), "{message}");
    }

    #[test]
    fn a_value_that_is_no_plan_is_refused_by_the_variables_name() {
        let message = read("nonsense").unwrap_err();
        assert!(message.starts_with("disagg: SLURM_DISAGG_PLAN: "), "{message}");
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused_without_a_panic(value in "\\PC*") {
            let _ = read(&value);
        }
    }
}
