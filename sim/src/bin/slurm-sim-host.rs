// SPDX-License-Identifier: Apache-2.0
//! The process in which a simulated Slurm program runs. It is started by the slurm-sim library.

fn main() -> std::process::ExitCode {
    slurm_sim::become_host_if_asked();
    eprintln!("slurm-sim-host: the slurm-sim library starts this program; it does nothing alone");
    std::process::ExitCode::from(2)
}
