// SPDX-License-Identifier: Apache-2.0
//! What would fail on the nodes only after a wait in the queue, and can be seen before.

use std::path::Path;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::plan::Plan;
use crate::plan::command::TEST_ROOT;

/// What is not there, of a plan whose files this machine sees as the nodes do.
///
/// # Errors
/// A missing test, models directory, model or container image, and a workspace that Slurm cannot name.
pub fn check(plan: &Plan) -> Result<(), Diagnostics> {
    let mut errors = Diagnostics::default();
    let mut missing = |what: String, setting: &str| {
        let help = format!("{setting}; --no-preflight submits what only the nodes see");
        errors.push(Diagnostic::error(what).help(help));
    };
    if let Some(suite) = &plan.suite {
        let (tree, models) = (&suite.source_dir, &suite.models_dir);
        let module = format!("{TEST_ROOT}/{}", suite.test.module);
        if !Path::new(tree).is_dir() {
            missing(format!("the source tree {tree} does not exist"), "set --trtllm-dir");
        } else if !Path::new(tree).join(&module).is_file() {
            missing(
                format!("the source tree {tree} has no test {module}"),
                "set --trtllm-dir, or PERF_TEST_MODULE for a test elsewhere",
            );
        }
        if !Path::new(models).is_dir() {
            missing(format!("the models directory {models} does not exist"), "set --models-dir");
        }
    }
    // Other models are names in a hub.
    let model = plan.engine.as_ref().map(|engine| engine.model.as_str());
    if let Some(model) = model.filter(|model| model.starts_with('/') && !Path::new(model).exists())
    {
        missing(format!("the model {model} does not exist"), "change the recipe's `model`");
    }
    // Other images are names in a registry.
    let image = plan.container.as_ref().map(|container| container.image.value.as_str());
    if let Some(image) = image.filter(|image| image.starts_with(['/', '.']))
        && !Path::new(image).exists()
    {
        missing(format!("the container image {image} does not exist"), "set --container-image");
    }
    if plan.workspace.contains('%') {
        let message = format!("Slurm reads a pattern in the workspace's path {}", plan.workspace);
        missing(message, "pass a --workspace without %");
    }
    if errors.has_errors() { Err(errors) } else { Ok(()) }
}
