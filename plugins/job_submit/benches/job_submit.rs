// SPDX-License-Identifier: Apache-2.0
//! What slurmctld pays for the plugin: one call of `job_submit()`, averaged over 100,000.
//! Limits: 2 µs for a job without a demand, 20 µs with one; the run fails above them.

#[cfg(have_slurm)]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(have_slurm)]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;

    const DEMAND: &[u8] = b"DISAGG_DEMAND=v1 nodes=3 tasks=12 tasks_per_node=4 gpus_per_node=4 \
        config=deepseek-r1-fp4_1k1k_con1024_ctx1_dep4_gen1_dep8";
    let usual: &[&[u8]] = &[b"_SLURM_SPANK_OPTION_pyxis_container_image=ubuntu", b"PYXIS=1"];
    let with_demand = [usual, &[DEMAND]].concat();
    let fits = [
        bench("no SPANK environment", 2.0, &[], None),
        bench("no demand", 2.0, usual, None),
        bench("demand, sized", 20.0, &with_demand, None),
        bench("demand, refused", 20.0, &with_demand, Some(1)),
    ];
    if fits.contains(&false) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Measures submissions with these SPANK entries; `nodes` (too few) are refused. Making the
/// description and freeing what a call left are not counted. Gives whether the mean keeps the
/// limit, in microseconds.
#[cfg(have_slurm)]
fn bench(name: &str, limit: f64, entries: &[&[u8]], nodes: Option<u32>) -> bool {
    use std::time::{Duration, Instant};

    const CALLS: u32 = 100_000;
    let mut job = common::Submission::new(entries);
    let ask = |job: &mut common::Submission| {
        job.reset();
        if let Some(nodes) = nodes {
            (job.desc.min_nodes, job.desc.max_nodes) = (nodes, nodes);
        }
    };
    ask(&mut job);
    assert_eq!(job.modify(), 0);
    assert_eq!(job.submit().is_err(), nodes.is_some(), "{name} measures something else");
    let mut spent = Duration::ZERO;
    for _ in 0..CALLS {
        ask(&mut job);
        let start = Instant::now();
        let (_, mut err_msg) = job.call();
        spent += start.elapsed();
        common::free(&mut err_msg);
    }
    let mean = spent.as_secs_f64() * 1e6 / f64::from(CALLS);
    let fits = mean < limit;
    let verdict = if fits { "ok" } else { "TOO SLOW" };
    println!("job_submit, {name:<20} {mean:7.3} µs  (limit {limit:4.1} µs)  {verdict}");
    fits
}

#[cfg(not(have_slurm))]
fn main() {
    println!("job_submit: not measured, because slurm/slurm.h is not installed");
}
