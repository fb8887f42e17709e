// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg watch`.

use disagg::run::interrupt::Interrupts;

use crate::Outcome;
use crate::args::WatchArgs;
use crate::following::{self, Entry};
use crate::target::{self, Target};

pub fn run(args: &WatchArgs) -> Outcome {
    let Target { job, client } = target::find(&args.target)?;
    let interrupts = Interrupts::take_over()?;
    let entry = Entry::of_job(&job, &client);
    following::follow(vec![(entry, job)], &client, &interrupts, &args.following)
}
