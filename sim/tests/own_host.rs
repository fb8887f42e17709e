// SPDX-License-Identifier: Apache-2.0
//! A program can be its own host, so that a tool built on the simulator is one file.

#![allow(clippy::unwrap_used)]

use slurm_sim::{Cluster, Env, Host, Release};

fn main() {
    slurm_sim::become_host_if_asked();
    // cargo-nextest asks each test program for its tests, of which this one is one.
    let asked = |option: &str| std::env::args().any(|argument| argument == option);
    if asked("--list") {
        if !asked("--ignored") {
            println!("a_program_can_be_its_own_host: test");
        }
        return;
    }
    let cluster = Cluster::new(Release::V22_05, Host::current(), 2);
    let run = cluster.srun(&["-N2", "true"], &Env::new()).unwrap();
    let hosts: Vec<_> = run.ranks().iter().map(|rank| rank.host.as_str()).collect();
    assert_eq!(hosts, ["node1", "node2"]);
}
