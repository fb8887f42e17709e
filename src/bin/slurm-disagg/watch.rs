// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg watch`.

use disagg::diagnostic::Diagnostic;
use disagg::run::interrupt::Interrupts;

use crate::Outcome;
use crate::args::WatchArgs;
use crate::following::{self, Entry};
use crate::target;

pub fn run(args: &WatchArgs) -> Outcome {
    let targets = target::find_all(&args.targets)?;
    let client = targets.first().map(|target| target.client.clone()).unwrap_or_default();
    if targets.iter().any(|target| target.client.cluster != client.cluster) {
        let message = "the jobs are on several clusters";
        return Err(Diagnostic::error(message).help("watch those of one cluster at a time").into());
    }
    let interrupts = Interrupts::take_over()?;
    let jobs = targets.into_iter().map(|target| (Entry::of_job(&target.job, &client), target.job));
    following::follow(jobs.collect(), &client, &interrupts, &args.following)
}
