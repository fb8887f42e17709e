// SPDX-License-Identifier: Apache-2.0
//! The container that the steps run in, and what of it cannot work.

use std::path::Path;

use super::Planner;
use crate::diagnostic::Diagnostic;
use crate::plan::origin::Traced;
use crate::plan::{Container, Template};

impl Planner<'_> {
    pub(super) fn container(&mut self) -> Option<Container> {
        let request = self.request;
        let settings = request.container.as_ref()?;
        let directories = &request.directories;
        for directory in [&directories.source, &directories.workspace, &directories.models] {
            if directory.value.contains([',', ':']) {
                let message = format!("{} cannot be mounted into the container", directory.value);
                self.errors
                    .push(Diagnostic::error(message).at(directory.origin.location.clone()).help(
                    "pyxis separates mounts by `,` and their parts by `:`; use a path without them",
                ));
            }
        }
        let mount = |directory: &Traced<String>, target: &str| {
            let rule = "the source tree, the workspace and the models are mounted at their own \
                        paths, the models also at /data";
            Traced::new(format!("{}:{target}", directory.value), directory.origin.by_rule(rule))
        };
        let own_path = |directory: &Traced<String>| mount(directory, &directory.value);
        let mut mounts = vec![
            own_path(&directories.source),
            own_path(&directories.workspace),
            own_path(&directories.models),
            mount(&directories.models, "/data"),
        ];
        mounts.extend(settings.mounts.iter().cloned());
        for script in [&request.run_script, &request.install_script].into_iter().flatten() {
            self.check_visible(script, &mounts);
        }
        // A requeued job must not find what its first run left half unpacked.
        let mut name = Template::literal("disagg_test_");
        name.push_variable("SLURM_JOB_ID");
        name.push_text("_");
        name.push_variable("SLURM_RESTART_COUNT");
        let workspace = directories.workspace.value.trim_end_matches('/');
        Some(Container {
            name,
            image: settings.image.clone(),
            workdir: Traced::new(
                format!("{workspace}/disagg_workspace"),
                directories.workspace.origin.by_rule("the container's working directory"),
            ),
            mounts,
        })
    }

    /// A script that no mount brings into the container would be missing there.
    fn check_visible(&mut self, script: &Traced<String>, mounts: &[Traced<String>]) {
        let path = Path::new(&script.value);
        let brings = |mount: &&Traced<String>| {
            let target = mount.value.split(':').nth(1).unwrap_or(&mount.value);
            path.starts_with(target)
        };
        if path.is_absolute() && mounts.iter().find(brings).is_none() {
            let directory = path.parent().unwrap_or(path).display();
            self.errors.push(
                Diagnostic::error(format!("{} is not in the container", script.value))
                    .at(script.origin.location.clone())
                    .help(format!(
                        "add `container_mounts: ['{directory}:{directory}']` to site.yaml"
                    )),
            );
        }
    }
}
