// SPDX-License-Identifier: Apache-2.0
//! A plan for the unit tests of this crate.

use disagg::input::Surroundings;
use disagg::input::request::{self, Options};
use disagg::plan::Plan;

/// A generation server over two nodes of four GPUs, and two context servers of one node each.
pub fn plan(worker_env: &str) -> Plan {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("fixture.yaml");
    let text = format!(
        "benchmark:\n  mode: e2e\nhardware:\n  gpus_per_node: 4\n  num_ctx_servers: 2\n  num_gen_servers: 1\n\
         environment:\n  worker_env_var: \"{worker_env}\"\n\
         worker_config:\n  gen:\n    tensor_parallel_size: 8\n  ctx:\n    tensor_parallel_size: 4\n"
    );
    std::fs::write(&config, text).unwrap();
    let site = directory.path().join("site.yaml");
    std::fs::write(&site, "trtllm_dir: /src\nmodels_dir: /models\n").unwrap();
    let options =
        Options { config: config.display().to_string(), site: Some(site), ..Options::default() };
    let around = Surroundings { env: &|_| None, current_dir: directory.path().to_owned() };
    request::plan(&options, &around).unwrap().0
}
