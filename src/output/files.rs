// SPDX-License-Identifier: Apache-2.0
//! The files of a submission, by the names that people's tooling knows.

use std::borrow::Cow;

use serde::Serialize;

use super::script;
use crate::plan::Plan;
use crate::plan::config::file_in_workspace;

/// A file of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its name in the workspace.
    pub name: Cow<'static, str>,
    /// What is in it.
    pub content: String,
    /// Whether it can be run.
    pub executable: bool,
}

/// The plan itself; it is written last, so that a workspace with a plan is whole.
pub const PLAN: &str = "plan.json";
/// The script to hand to sbatch.
pub const LAUNCH: &str = "slurm_launch_generated.sh";
/// Made anew by each start of that script: what is older is of an earlier run.
pub const STARTED: &str = "disagg_workspace/started";
/// The names of all files of a submission, [`PLAN`] last.
pub const NAMES: [&str; 6] = [
    "test_list_disagg.txt",
    "node_info.json",
    "slurm_launch_prefix.sh",
    "slurm_srun_args.txt",
    LAUNCH,
    PLAN,
];

/// Why the files cannot be written out.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A script.
    #[error(transparent)]
    Script(#[from] script::ScriptError),
    /// Something has no JSON form.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// The files of a submission, [`PLAN`] last. `slurm_srun_args.txt` is absent without a container;
/// those that pipelines know are absent from plans that are not the test suite's.
///
/// # Errors
/// [`FilesError`]; no plan that `input` made gives one.
pub fn all(plan: &Plan) -> Result<Vec<File>, FilesError> {
    let file =
        |name: &'static str, content, executable| File { name: name.into(), content, executable };
    let mut files = Vec::new();
    if let Some(suite) = &plan.suite {
        files.extend([
            file("test_list_disagg.txt", format!("{}\n", suite.test.node_id()), false),
            file("node_info.json", json(&node_info(plan))?, false),
            file("slurm_launch_prefix.sh", script::prefix(plan)?, true),
        ]);
    }
    if plan.container.is_some() {
        // One argument a line; a reference to a variable stands as the shell writes it.
        let arguments = script::container_arguments(plan, None);
        let lines = arguments.iter().map(|argument| argument.as_str().replace("$$", "$") + "\n");
        files.push(file("slurm_srun_args.txt", lines.collect(), false));
    }
    if let Some(text) = &plan.changed_config {
        let name = file_in_workspace(&plan.config.name).into();
        files.push(File { name, content: text.clone(), executable: false });
    }
    if plan.suite.is_some() {
        files.push(file(LAUNCH, script::launch(plan)?, true));
    }
    files.push(file(PLAN, json(plan)?, false));
    Ok(files)
}

/// The numbers that tooling reads from `node_info.json`.
fn node_info(plan: &Plan) -> serde_json::Value {
    let layout = &plan.layout;
    let number = |name: &str| layout.numbers.get(name).copied().unwrap_or_default();
    serde_json::json!({
        "num_ctx_servers": number("num_ctx_servers"),
        "num_gen_servers": number("num_gen_servers"),
        "ctx_world_size": number("gpus_per_ctx_server"),
        "gen_world_size": number("gpus_per_gen_server"),
        "ctx_nodes": number("num_ctx_servers") * number("nodes_per_ctx_server"),
        "gen_nodes": number("num_gen_servers") * number("nodes_per_gen_server"),
        "total_nodes": layout.total_nodes,
        "total_gpus": layout.total_gpus,
        "gpus_per_node": layout.gpus_per_node,
    })
}

fn json(value: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
