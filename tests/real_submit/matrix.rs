// SPDX-License-Identifier: Apache-2.0
//! The main path on the friendliest cluster and on an ordinary one (`slurm-bed up --unfriendly`), with
//! and without the plugins, from a shell of its own or from a step of another job that exports nothing.

use std::fs;

use slurm_bed::{Options, Output, contains, public_directory};

use crate::site::{STEPS, Site, with_plugins};

/// A step of another job, on a node that it shares; the job and its steps inherit none of this.
const IN_A_STEP: &[&str] = &[
    "srun",
    "--quiet",
    "--nodes=1",
    "--ntasks=1",
    "--gpus=1",
    "--time=5",
    "env",
    "SBATCH_EXPORT=NONE",
    "SLURM_EXPORT_ENV=NONE",
];

#[test]
fn a_friendly_cluster_without_plugins() {
    let site = Site::with(Options::nodes(3));
    passes(&site, &["native", "bash"], &[]);
}

#[test]
fn a_friendly_cluster_with_plugins() {
    let plugins = public_directory();
    let site = Site::with(with_plugins(plugins.path(), Options::nodes(3)));
    passes(&site, &["native", "bash", "sbatch"], &[]);
}

#[test]
fn an_ordinary_cluster_without_plugins() {
    let site = Site::with(Options::nodes(4).unfriendly());
    passes(&site, &["native", "bash"], IN_A_STEP);
}

#[test]
fn an_ordinary_cluster_with_plugins() {
    let plugins = public_directory();
    let options = Options::nodes(4).unfriendly().gpu_type("h100");
    let site = Site::with(with_plugins(plugins.path(), options));
    passes(&site, &["native", "bash", "sbatch"], IN_A_STEP);
    // A job that asks for its GPUs in total.
    for launcher in ["--launcher=native", "--launcher=bash"] {
        site.submit(&[], &["--gpu-request=total", launcher]).expect(0);
        fs::remove_dir_all(site.workspace()).unwrap();
    }
    site.sbatch(&[], &["--gpus=h100:12"], STEPS).expect(0);
}

/// The test passes, by the command with either launcher and by sbatch and srun, from a shell that
/// these words start.
fn passes(site: &Site, ways: &[&str], shell: &[&str]) {
    for way in ways {
        let output = match *way {
            "sbatch" => {
                let output = site.sbatch(shell, &[], STEPS);
                let _ = fs::rename(site.workspace_of_sbatch(), site.workspace());
                output
            }
            launcher => site.submit(shell, &[&format!("--launcher={launcher}")]),
        };
        let Output { code, stdout, stderr } = &output;
        assert_eq!(*code, Some(0), "{way}: {stdout}{stderr}");
        if *way == "native" {
            contains(stdout, "PASSED: disagg_upload-standin_3nodes, job ");
            // The report: its table and its timeline.
            contains(stdout, "5 tests, 0 failures");
            contains(stdout, "\n  BENCHMARK      done");
            contains(stdout, "  . starting   - running");
            contains(stderr, "BENCHMARK: done after");
        }
        for role in ["GEN_0", "CTX_0", "DISAGG_SERVER", "BENCHMARK"] {
            let results = site.workspace().join(format!("results-{role}.xml"));
            contains(&fs::read_to_string(results).unwrap(), "errors=\"0\" failures=\"0\"");
        }
        fs::remove_dir_all(site.workspace()).unwrap();
    }
}
