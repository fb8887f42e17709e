// SPDX-License-Identifier: Apache-2.0
//! The main path on the friendliest cluster and on an ordinary one (`slurm-bed up --unfriendly`), with
//! and without the plugins, from a shell of its own or from a step of another job that exports nothing.

use std::fs;
use std::path::Path;

use slurm_bed::{Options, Output, built, contains, plugstack_line, public_directory};

use crate::site::{STANDIN, Site};

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
    let site = Site::with(with(plugins.path(), Options::nodes(3)));
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
    let site = Site::with(with(plugins.path(), Options::nodes(4).unfriendly()));
    passes(&site, &["native", "bash", "sbatch"], IN_A_STEP);
}

/// A cluster with the plugins in this directory.
fn with(plugins: &Path, options: Options) -> Options {
    for name in ["spank_disagg.so", "job_submit_disagg.so"] {
        fs::copy(built(name), plugins.join(name)).unwrap();
    }
    let settings = format!("trtllm_dir: {STANDIN}/tree\nmodels_dir: /tmp\n");
    fs::write(plugins.join("site.yaml"), settings).unwrap();
    options.plugin_dir(plugins).job_submit("disagg").spank(&plugstack_line("optional", plugins))
}

/// The test passes, by the command with either launcher and by sbatch and srun, from a shell that
/// these words start.
fn passes(site: &Site, ways: &[&str], shell: &[&str]) {
    for way in ways {
        let output = match *way {
            "sbatch" => sbatch(site, shell),
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

/// As docs/user.md has it. The output of all steps is the job's.
fn sbatch(site: &Site, shell: &[&str]) -> Output {
    let script = "for server in GEN_0 CTX_0 DISAGG_SERVER; do
                      srun --disagg-role=$server bash -c 'eval \"$pytestCommand\"' &
                  done
                  srun --disagg-role=BENCHMARK bash -c 'eval \"$pytestCommand\"'
                  status=$?
                  scancel --quiet --signal=TERM $SLURM_JOB_ID
                  wait
                  exit $status";
    let config = format!("--disagg-config={STANDIN}/configs/standin_3nodes.yaml");
    let wrap = format!("--wrap={script}");
    let sbatch = ["sbatch", "--wait", "--time=10", "--output=job.out", &config, &wrap];
    let output = Output::of(&mut site.program(shell, &sbatch));
    let log = fs::read_to_string(site.cluster.work().join("job.out")).unwrap_or_default();
    let _ = fs::rename(site.cluster.work().join("disagg_standin_3nodes"), site.workspace());
    Output { stderr: output.stderr + &log, ..output }
}
