// SPDX-License-Identifier: Apache-2.0
//! The container that the steps run in, and what of it cannot work.

use std::path::Path;

use super::Planner;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::plan::origin::Traced;
use crate::plan::request::ContainerSettings;
use crate::plan::{Container, Template};

impl Planner<'_> {
    pub(super) fn container(&mut self) -> Option<Container> {
        let request = self.request;
        let directories = &request.directories;
        let mounts = [
            (&directories.source, directories.source.value.as_str()),
            (&directories.workspace, &directories.workspace.value),
            (&directories.models, &directories.models.value),
            (&directories.models, "/data"),
        ];
        let scripts = [&request.run_script, &request.install_script];
        let settings = request.container.as_ref();
        container(settings, &directories.workspace, &mounts, &scripts, &mut self.errors)
    }
}

/// The container that is asked for. What the plan itself needs in it is mounted: directories, and
/// where each is there.
pub(in crate::plan) fn container(
    settings: Option<&ContainerSettings>,
    workspace: &Traced<String>,
    needed: &[(&Traced<String>, &str)],
    scripts: &[&Option<Traced<String>>],
    errors: &mut Diagnostics,
) -> Option<Container> {
    let settings = settings?;
    let mut mounts = Vec::new();
    for (directory, target) in needed {
        if directory.value.contains([',', ':']) {
            let message = format!("{} cannot be mounted into the container", directory.value);
            let help =
                "pyxis separates mounts by `,` and their parts by `:`; use a path without them";
            let at = directory.origin.location.clone();
            errors.push_once(Diagnostic::error(message).at(at).help(help));
        }
        let rule = match *target == directory.value {
            true => "what the steps need is mounted at its own path",
            false => "the models are mounted at /data too",
        };
        let mount = format!("{}:{target}", directory.value);
        mounts.push(Traced::new(mount, directory.origin.by_rule(rule)));
    }
    mounts.extend(settings.mounts.iter().cloned());
    for script in scripts.iter().copied().flatten() {
        check_visible(script, &mounts, errors);
    }
    // A requeued job must not find what its first run left half unpacked.
    let mut name = Template::literal("disagg_test_");
    name.push_variable("SLURM_JOB_ID");
    name.push_text("_");
    name.push_variable("SLURM_RESTART_COUNT");
    Some(Container {
        name,
        image: settings.image.clone(),
        workdir: Traced::new(
            format!("{}/disagg_workspace", workspace.value.trim_end_matches('/')),
            workspace.origin.by_rule("the container's working directory"),
        ),
        mounts,
    })
}

/// A script that no mount brings into the container would be missing there.
fn check_visible(script: &Traced<String>, mounts: &[Traced<String>], errors: &mut Diagnostics) {
    let path = Path::new(&script.value);
    let brings = |mount: &&Traced<String>| {
        let target = mount.value.split(':').nth(1).unwrap_or(&mount.value);
        path.starts_with(target)
    };
    if path.is_absolute() && mounts.iter().find(brings).is_none() {
        let directory = path.parent().unwrap_or(path).display();
        errors.push(
            Diagnostic::error(format!("{} is not in the container", script.value))
                .at(script.origin.location.clone())
                .help(format!("add `container_mounts: ['{directory}:{directory}']` to site.yaml")),
        );
    }
}
