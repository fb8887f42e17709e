// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg cancel`.

use std::process::ExitCode;

use disagg::run::pace::PATIENCE;

use crate::args::CancelArgs;
use crate::target::{self, Target};
use crate::{Failure, Outcome, print};

pub fn run(args: &CancelArgs) -> Outcome {
    // All are found first: a name that is wrong cancels nothing.
    let targets = args.targets.iter().map(|text| target::find(text));
    for Target { job, client } in targets.collect::<Result<Vec<_>, _>>()? {
        let failed = |trouble: disagg::run::client::Trouble| Failure::Other(trouble.to_string());
        let job_id = job.job_id;
        let queued = client.queued(&[job_id], PATIENCE, None).map_err(failed)?;
        match queued.first().filter(|queued| !queued.state.is_final()) {
            Some(_) => {
                client.cancel(&[job_id]).map_err(failed)?;
                print(&format!("job {job_id} is being cancelled\n"))?;
            }
            None => print(&format!("job {job_id} has ended already\n"))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}
