// SPDX-License-Identifier: Apache-2.0
//! Links the plugin so that its own symbols are bound to itself: another plugin's or the host
//! program's `plugin_version` must not stand in for ours when the version is adopted at load.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
}
