// SPDX-License-Identifier: Apache-2.0
//! Containers as pyxis and enroot make them: the plugin `container.c` beside this crate.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Output, Slurm, executable};

/// The plugin, an image, and the nodes' directories of unpacked images.
#[derive(Debug)]
pub struct Containers {
    files: PathBuf,
}

impl Containers {
    /// Builds the plugin in a directory that everybody may use, and an image with these variables
    /// and a program `/image/bin/NAME`. A file `/complete` is unpacked last.
    ///
    /// # Panics
    /// When it cannot be built.
    #[must_use]
    pub fn new(files: &Path, environment: &str, (name, program): (&str, &str)) -> Self {
        let data = files.join("containers");
        let image = files.join("image");
        executable(&data.join("slow"), "0");
        executable(&image.join("etc/environment"), environment);
        executable(&image.join("image/bin").join(name), program);
        executable(&image.join("complete"), "");
        let mut tar = Command::new("tar");
        tar.arg("-C").arg(&image).arg("-cf").arg(files.join("image.tar"));
        Output::of(tar.args(["etc", "image", "complete"])).ok();
        Output::of(Command::new("chmod").arg("1777").arg(&data)).ok();
        let mut cc = Command::new("cc");
        cc.args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-I"]);
        cc.arg(Slurm::under_test().prefix.join("include"))
            .arg("-o")
            .arg(files.join("container.so"));
        Output::of(cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/container.c"))).ok();
        Self { files: files.to_owned() }
    }

    /// The line of plugstack.conf.
    #[must_use]
    pub fn plugstack_line(&self) -> String {
        let files = self.files.display();
        format!("required {files}/container.so data={files}/containers")
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> String {
        self.files.join("image.tar").display().to_string()
    }

    /// How many seconds it takes to unpack the image.
    ///
    /// # Panics
    /// When it cannot be set.
    pub fn slow_down(&self, seconds: u32) {
        fs::write(self.files.join("containers/slow"), seconds.to_string()).expect("it is ours");
    }

    /// A directory that a node unpacks images to.
    #[must_use]
    pub fn of_node(&self, node: &str) -> PathBuf {
        self.files.join("containers").join(node)
    }

    /// The containers that were unpacked since the last call: node and name, sorted.
    ///
    /// # Panics
    /// When the nodes' directories cannot be read.
    #[must_use]
    pub fn unpacked(&self) -> Vec<(String, String)> {
        let mut all = Vec::new();
        for entry in fs::read_dir(self.files.join("containers")).expect("it is ours") {
            let node = entry.expect("it is ours").path();
            let names = fs::read_to_string(node.join("unpacked")).unwrap_or_default();
            let _ = fs::remove_file(node.join("unpacked"));
            let node = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
            all.extend(names.lines().map(|name| (node.clone(), name.to_owned())));
        }
        all.sort_unstable();
        all
    }
}
