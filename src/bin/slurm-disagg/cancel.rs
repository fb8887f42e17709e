// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg cancel`.

use std::process::ExitCode;

use disagg::run::client::SlurmError;
use disagg::run::polling::QUERY_TIMEOUT;

use crate::args::CancelArgs;
use crate::target::{self, Target};
use crate::{Failure, Outcome, print};

pub fn run(args: &CancelArgs) -> Outcome {
    // All are looked up first: with one invalid name nothing is cancelled.
    for Target { job, client } in target::find_all(&args.targets)? {
        let failed = |error: SlurmError| Failure::Other(error.to_string());
        let job_id = job.job_id;
        let queued = client.queued(&[job_id], QUERY_TIMEOUT, None).map_err(failed)?;
        match queued.first().filter(|queued| !queued.state.is_final()) {
            Some(_) => {
                client.cancel(&[job_id]).map_err(failed)?;
                print(&format!("cancelling job {job_id}\n"))?;
            }
            None => print(&format!("job {job_id} has already ended\n"))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
