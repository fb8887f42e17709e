// SPDX-License-Identifier: Apache-2.0
//! The host of each task, as the file that srun reads when SLURM_HOSTFILE names it.
//!
//! The file has no name in any directory: it lives in memory as long as srun does, nobody else can
//! write it, and nothing is left behind when srun is killed.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, IntoRawFd as _};

use rustix::fs::{MemfdFlags, memfd_create};

/// Writes the lines and gives the path under which this process can open them, until it ends.
///
/// # Errors
/// What the kernel says when it has no memory for the file.
pub fn keep<S: AsRef<str>>(hosts: &[S]) -> io::Result<String> {
    let mut file = File::from(memfd_create("disagg-hosts", MemfdFlags::CLOEXEC)?);
    let mut text = String::new();
    for host in hosts {
        text.push_str(host.as_ref());
        text.push('\n');
    }
    file.write_all(text.as_bytes())?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // It has to stay open until srun has read it, which is after this callback.
    let _ = file.into_raw_fd();
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_can_be_read_again_and_again_by_the_path() {
        let path = keep(&["node3", "node3", "node4"]).unwrap();
        for _ in 0..2 {
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "node3\nnode3\nnode4\n");
        }
    }
}
