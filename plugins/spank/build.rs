// SPDX-License-Identifier: Apache-2.0
//! How the plugin is linked, so that it is itself alone and costs little to load: every sbatch,
//! srun and slurmstepd of a site loads it, whether the job uses it or not.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Its own symbols are bound to itself: another plugin's or the host program's `plugin_version`
    // must not stand in for ours when the version is adopted at load.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-Bsymbolic");
    // Slurm opens a plugin to look at it, closes it, and opens it again to use it. Staying loaded
    // saves the second time, and the standard library is not made to be unloaded.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // The unwinder, which no program of Slurm has loaded: opening it as a library of its own would
    // cost as much as opening the plugin. It comes with gcc.
    println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
}
