// SPDX-License-Identifier: Apache-2.0
//! The one place that reads and writes slurmctld's job description.
//!
//! What arrives for an option that the submitter left open, as seen on 22.05.8 and 24.11.5 from
//! sbatch, salloc and srun alike, for plain, array and heterogeneous jobs:
//!
//! | field | left open | given |
//! |---|---|---|
//! | `min_nodes`, `max_nodes` | `NO_VAL`, `NO_VAL` | `-N2`: 2, 2; `-N2-4`: 2, 4; `-w a,b`: 2, `NO_VAL` |
//! | `num_tasks` | `NO_VAL` | `-n8`: 8; also multiplied out of other options, see [`crate::size`] |
//! | `ntasks_per_node`, `ntasks_per_tres`, `sockets_per_node` | `NO_VAL16` | the number |
//! | `tres_per_node`, `…_job`, `…_task`, `…_socket` | NULL | `gres:gpu:2` and the like, see [`crate::tres`] |
//! | `time_limit`, `time_min` | `NO_VAL` | minutes; `INFINITE` (all ones) for `UNLIMITED` |
//! | `partition`, `account`, `comment` | NULL | the text |
//! | `segment_size` | `NO_VAL16` | the number |
//!
//! A zero is taken for open too: other clients than Slurm's own send it. `min_cpus` needs no
//! care: slurmctld raises it to the tasks. A heterogeneous job comes as one description per
//! component, each with a `spank_job_env` of its own; sbatch, salloc and srun hand the SPANK options
//! and variables of a component on to those behind it that give none.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};

use disagg_host::demand;
use disagg_host::symbols::{slurm_xfree, slurm_xstrdup};

use crate::size::{Ask, Fill};
use crate::slurm::{NO_VAL, NO_VAL16, job_descriptor};

/// The most entries of `spank_job_env` that are looked at. A user who hides a demand behind more
/// than this only gets a job without one.
const MAX_ENTRIES: usize = 1024;

/// The job description of one submission.
pub struct Desc<'a>(&'a mut job_descriptor);

impl<'a> Desc<'a> {
    /// Wraps what slurmctld handed over.
    ///
    /// # Safety
    /// It must be a whole description of the release that this was built for: every pointer in it
    /// is NULL or valid, strings end with NUL, `spank_job_env` has `spank_job_env_size` entries,
    /// and strings are from Slurm's own allocator.
    pub unsafe fn new(raw: &'a mut job_descriptor) -> Self {
        Self(raw)
    }

    /// The demand's text as the SPANK plugin (or a user by hand) put it there. Cut off when it is
    /// longer than a demand may be, so that its parser refuses it.
    #[must_use]
    pub fn demand(&self) -> Option<&[u8]> {
        let entries = self.0.spank_job_env;
        if entries.is_null() {
            return None;
        }
        (0..(self.0.spank_job_env_size as usize).min(MAX_ENTRIES)).find_map(|i| {
            // SAFETY: `i` is below the size, and an entry is NULL or a C string.
            unsafe { value_of(*entries.add(i), demand::VARIABLE.as_bytes()) }
        })
    }

    /// What the submitter said.
    #[must_use]
    pub fn ask<'s>(&'s self, default_partition: Option<&'s CStr>) -> Ask<'s> {
        let d = &*self.0;
        Ask {
            min_nodes: said(d.min_nodes),
            max_nodes: said(d.max_nodes),
            tasks: said(d.num_tasks),
            tasks_per_node: said16(d.ntasks_per_node),
            tasks_per_gpu: said16(d.ntasks_per_tres),
            tres_per_node: self.text(d.tres_per_node),
            tres_per_job: self.text(d.tres_per_job),
            tres_per_task: self.text(d.tres_per_task),
            tres_per_socket: self.text(d.tres_per_socket),
            sockets_per_node: said16(d.sockets_per_node),
            minutes: said(d.time_limit),
            min_minutes: said(d.time_min),
            partition: self.name(d.partition),
            default_partition: default_partition.map(CStr::to_string_lossy),
            has_reservation: self.name(d.reservation).is_some(),
            account: self.name(d.account),
            has_comment: self.name(d.comment).is_some(),
            has_segment: self.segment().is_some(),
        }
    }

    /// Writes what was decided: everything or nothing.
    ///
    /// # Errors
    /// When Slurm's allocator is not there.
    pub fn apply(&mut self, fill: &Fill) -> Result<(), NoAllocator> {
        let tres = fill.tres_per_node.as_deref().map(copy).transpose()?;
        let comment = fill.comment.as_deref().map(copy).transpose()?;
        if let Some(nodes) = fill.nodes {
            self.0.min_nodes = nodes;
            self.0.max_nodes = nodes;
        }
        if let Some(tasks) = fill.tasks {
            self.0.num_tasks = tasks;
        }
        if let Some(tasks) = fill.tasks_per_node {
            self.0.ntasks_per_node = tasks;
        }
        for (field, new) in [(&mut self.0.tres_per_node, tres), (&mut self.0.comment, comment)] {
            if let Some(new) = new {
                free(field);
                *field = new;
            }
        }
        self.set_segment(fill.segment);
        Ok(())
    }

    /// A field that is ASCII whenever Slurm takes it.
    fn text(&self, field: *mut c_char) -> Option<&str> {
        self.bytes(field)?.to_str().ok()
    }

    /// A name of the site's or the user's, of any bytes.
    fn name(&self, field: *mut c_char) -> Option<Cow<'_, str>> {
        Some(self.bytes(field)?.to_string_lossy())
    }

    fn bytes(&self, field: *mut c_char) -> Option<&CStr> {
        if field.is_null() {
            return None;
        }
        // SAFETY: a string field of the description, valid as long as it (see `new`).
        Some(unsafe { CStr::from_ptr(field) }).filter(|text| !text.is_empty())
    }

    #[cfg(has_segment)]
    fn segment(&self) -> Option<u32> {
        said16(self.0.segment_size)
    }

    /// Releases before 24.05 have no segments, so there is none to respect or to set.
    #[cfg(not(has_segment))]
    fn segment(&self) -> Option<u32> {
        None
    }

    #[cfg(has_segment)]
    fn set_segment(&mut self, segment: Option<u16>) {
        if let Some(segment) = segment {
            self.0.segment_size = segment;
        }
    }

    #[cfg(not(has_segment))]
    fn set_segment(&mut self, _: Option<u16>) {}
}

/// Slurm's allocator is not in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAllocator;

/// A copy in Slurm's own memory, which Slurm frees.
///
/// # Errors
/// When Slurm's allocator is not there.
pub fn copy(text: &str) -> Result<*mut c_char, NoAllocator> {
    let text = CString::new(text.replace('\0', "?")).map_err(|_| NoAllocator)?;
    let duplicate = slurm_xstrdup().ok_or(NoAllocator)?;
    // SAFETY: a C string; Slurm's allocator never gives NULL for one.
    Ok(unsafe { duplicate(text.as_ptr()) })
}

/// Frees a string of Slurm's allocator.
pub fn free(field: &mut *mut c_char) {
    if let Some(free) = slurm_xfree() {
        // SAFETY: NULL or a string of Slurm's allocator; afterwards the field is NULL.
        unsafe { free((&raw mut *field).cast()) }
    }
}

fn said(value: u32) -> Option<u32> {
    (value != NO_VAL && value != 0).then_some(value)
}

fn said16(value: u16) -> Option<u32> {
    (u32::from(value) != NO_VAL16 && value != 0).then_some(value.into())
}

/// What follows `name=` in an entry, at most one byte more than a demand may have.
///
/// # Safety
/// `entry` must be NULL or a C string that lives for `'a`.
unsafe fn value_of<'a>(entry: *const c_char, name: &[u8]) -> Option<&'a [u8]> {
    if entry.is_null() {
        return None;
    }
    let bytes = entry.cast::<u8>();
    for (i, expected) in name.iter().chain(b"=").enumerate() {
        // SAFETY: all bytes before this one were equal to a name without NUL, so the string has
        // not ended yet.
        if unsafe { *bytes.add(i) } != *expected {
            return None;
        }
    }
    // SAFETY: the string is at least as long as the name and its `=`.
    let value = unsafe { entry.add(name.len() + 1) };
    // SAFETY: reads no further than the closing NUL.
    let length = unsafe { libc::strnlen(value, demand::MAX_BYTES + 1) };
    // SAFETY: that many bytes were just read.
    Some(unsafe { std::slice::from_raw_parts(value.cast(), length) })
}
