// SPDX-License-Identifier: Apache-2.0
//! Hostlist expansion side by side with the `scontrol show hostnames` process, and how many times
//! faster it is: the bench fails below 100 times.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs};

use disagg::slurm::hostlist::{Hosts, compress, expand};

const LIST: &str = "node[0001-10000]";
const WANTED: f64 = 100.0;

#[divan::bench]
fn expand_10000_hosts() -> Hosts {
    Hosts::expand(black_box(LIST)).unwrap_or_default()
}

#[divan::bench]
fn expand_10000_hosts_into_strings() -> Vec<String> {
    expand(black_box(LIST)).unwrap_or_default()
}

#[divan::bench]
fn compress_10000_hosts(bencher: divan::Bencher) {
    let names = expand(LIST).unwrap_or_default();
    bencher.bench_local(|| compress(black_box(&names)));
}

fn main() -> ExitCode {
    divan::main();
    let dir = env::temp_dir().join(format!("hostlist-bench-{}", std::process::id()));
    let ratio = config(&dir).and_then(|config| compare(&config));
    let _ = fs::remove_dir_all(&dir);
    match ratio {
        Ok(ratio) if ratio >= WANTED => ExitCode::SUCCESS,
        Ok(ratio) => {
            eprintln!("only {ratio:.0} times faster than scontrol, {WANTED:.0} required");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("no comparison with scontrol, which could not be run: {error}");
            ExitCode::SUCCESS
        }
    }
}

/// scontrol reads a configuration before anything else.
fn config(dir: &Path) -> std::io::Result<PathBuf> {
    fs::create_dir_all(dir)?;
    let path = dir.join("slurm.conf");
    let text = "ClusterName=c\nSlurmctldHost=localhost\nNodeName=x\nPartitionName=p Nodes=x\n";
    fs::write(&path, text)?;
    Ok(path)
}

/// Runs both in turns, so that the machine's mood is the same for both; compares the medians.
fn compare(config: &Path) -> std::io::Result<f64> {
    let mut theirs = Vec::new();
    let mut ours = Vec::new();
    for _ in 0..101 {
        let start = Instant::now();
        let output = Command::new("scontrol")
            .env("SLURM_CONF", config)
            .args(["show", "hostnames", LIST])
            .output()?;
        theirs.push(start.elapsed());
        let start = Instant::now();
        let hosts = Hosts::expand(black_box(LIST)).unwrap_or_default();
        ours.push(start.elapsed());
        if !hosts.iter().eq(String::from_utf8_lossy(&output.stdout).lines()) {
            return Err(std::io::Error::other("scontrol printed other names"));
        }
    }
    let (theirs, ours) = (median(theirs), median(ours));
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "{LIST}: scontrol {theirs:?}, here {ours:?} (medians of 101): {ratio:.0} times faster"
    );
    Ok(ratio)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
