// SPDX-License-Identifier: Apache-2.0
//! The plugin in a Slurm of another release than the one it was built for. That Slurm is a small
//! library, made here, of which only the API number is real: 24.11's, or 23.11's where the plugin
//! itself is for 24.11.
#![cfg(have_slurm)]
#![allow(clippy::unwrap_used)]

mod common;

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use common::Submission;
use disagg_host::version::Release;
use job_submit_disagg::release::BUILT_FOR;

const SLURM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
char last_error[4096];
long slurm_api_version(void) { return (long)API << 16; }
char *slurm_xstrdup(const char *text) { return text ? strdup(text) : NULL; }
void slurm_xfree(void **p) { free(*p); *p = NULL; }
void slurm_error(const char *format, const char *text)
{
	(void)format;
	snprintf(last_error, sizeof(last_error), "%s", text);
}
"#;

#[test]
fn the_plugin_claims_the_running_release_and_does_nothing_loudly() {
    let (release, api) = match (BUILT_FOR.major, BUILT_FOR.minor) {
        (24, 11) => (Release { major: 23, minor: 11 }, 40),
        _ => (Release { major: 24, minor: 11 }, 42),
    };
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("other{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("slurm.c"), SLURM).unwrap();
    let library = dir.join("slurm.so");
    let mut cc = Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fno-builtin"]);
    cc.arg(format!("-DAPI={api}")).arg("-o").arg(&library).arg(dir.join("slurm.c"));
    assert!(cc.status().unwrap().success());

    let library = CString::new(library.as_os_str().as_bytes()).unwrap();
    common::loaded_into(&library, release);
    let slurm = common::open(&library, libc::RTLD_NOW);
    // SAFETY: an array of characters, as the source above says.
    let log = common::read(unsafe { common::symbol(slurm, c"last_error") }).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert_eq!(
        log,
        format!(
            "disagg: job_submit/disagg does NOTHING: it was built for Slurm {BUILT_FOR}, and \
             {release} runs here. No job is sized or refused; install the job_submit_disagg.so \
             that was built for this release"
        )
    );
    let demand = b"DISAGG_DEMAND=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 config=c";
    let mut job = Submission::new(&[demand]);
    (job.desc.min_nodes, job.desc.max_nodes) = (1, 1);
    let before = format!("{:?}", *job.desc);
    assert_eq!(job.submit(), Ok(()));
    assert_eq!(job.modify(), 0);
    assert_eq!(format!("{:?}", *job.desc), before);
}
