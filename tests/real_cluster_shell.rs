// SPDX-License-Identifier: Apache-2.0
//! `make cluster` as a newcomer meets it: the commands that it proposes do what it says.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Takes the cluster down, whatever became of the test.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let bed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bed/slurm-bed");
        let _ =
            Command::new(bed).args(["down", "--rm"]).arg(&self.0).stdout(Stdio::null()).status();
    }
}

#[test]
fn the_proposed_commands_plan_run_and_refuse_a_whole_test() {
    for file in ["slurm-disagg", "spank_disagg.so", "job_submit_disagg.so"] {
        let _ = slurm_bed::built(file);
    }
    let place = Place(PathBuf::from(format!("/tmp/shell-{}", std::process::id())));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/cluster-shell");
    let mut shell = Command::new(script)
        .arg(&place.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let commands = "exec 2>&1
        slurm-disagg plan standin_3nodes.yaml --site ../etc/site.yaml
        sbatch --wait job.sh; echo status $?; cat job-*.log; grep passed GEN_0.log
        sbatch -N1 job.sh; echo status $?
        slurm-disagg submit standin_3nodes.yaml --site ../etc/site.yaml --rules current \
            --sweep hardware.num_ctx_servers=1,2 --workspace pair; echo status $?
        slurm-disagg compare pair/*; echo status $?\n";
    shell.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let parts = [
        "sbatch --wait job.sh",
        "job            3 nodes × 4 GPUs, 12 tasks",
        "Submitted batch job 1",
        "status 0",
        "GEN_0          2      8      4         pmix  node[1-2]",
        "1 passed",
        "1 passed",
        "1 node asked for, but the plan of standin_3nodes needs 3 nodes",
        "status 1",
        "2 tests: 2 passed",
        "status 0",
        "num_ctx_servers: 1 → 2",
        "output tokens (tok/s)",
        "status 0",
    ];
    let mut rest = said.as_ref();
    for part in parts {
        let found =
            rest.find(part).unwrap_or_else(|| panic!("'{part}' is not in its place:\n{said}"));
        rest = &rest[found + part.len()..];
    }
}
