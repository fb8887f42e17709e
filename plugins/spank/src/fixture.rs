// SPDX-License-Identifier: Apache-2.0
//! A plan for the unit tests of this crate.

use std::path::PathBuf;

use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::plan::Plan;

/// A generation server over two nodes of four GPUs, and two context servers of one node each.
pub const CONFIG: &str = "benchmark:\n  mode: e2e\nhardware:\n  gpus_per_node: 4\n  num_ctx_servers: 2\n  num_gen_servers: 1\n\
     environment:\n  worker_env_var: \"WORKER=1\"\n\
     worker_config:\n  gen:\n    tensor_parallel_size: 8\n  ctx:\n    tensor_parallel_size: 4\n";

/// A source tree with a settings file that names it.
pub struct Tree(tempfile::TempDir);

impl Tree {
    pub fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let site = format!("trtllm_dir: {}\nmodels_dir: /models\n", tree.0.path().display());
        tree.write("site.yaml", &site);
        tree
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The plan of a config, or of a test of it.
    pub fn plan(&self, config: &str, test_id: Option<&str>) -> Plan {
        let options = Options {
            config: self.path(config).display().to_string(),
            test_id: test_id.map(str::to_owned),
            site: Some(self.path("site.yaml")),
            ..Options::default()
        };
        let context = Context { env: &|_| None, current_dir: self.path("") };
        request::plan(&options, &context).unwrap().0
    }
}

/// The plan of [`CONFIG`] with this environment for its workers.
pub fn plan(worker_env: &str) -> Plan {
    let tree = Tree::new();
    tree.write("fixture.yaml", &CONFIG.replace("WORKER=1", worker_env));
    tree.plan("fixture.yaml", None)
}
