// SPDX-License-Identifier: Apache-2.0
//! What the settings say of the job, for tests and recipes alike.

use super::{choice, each, or_default};
use crate::diagnostic::Diagnostics;
use crate::input::settings::{self, Options, Setting, Settings};
use crate::input::slurm_args::{self, Program};
use crate::input::values::percent;
use crate::plan::request::JobSettings;
use crate::plan::{Origin, Traced};

/// What Slurm is asked for. The options for sbatch and srun of the given places are added to each
/// other.
pub(super) fn job_settings(
    places: &[&Settings],
    given: &Settings,
    options: &Options,
    errors: &mut Diagnostics,
) -> JobSettings {
    let mut extra = |program,
                     of_place: fn(&Settings) -> &Option<Traced<Vec<String>>>,
                     setting: &Setting,
                     given_here: &Option<Vec<String>>| {
        let option = Origin::input(setting.option.unwrap_or(setting.name));
        let here = given_here.iter().flatten();
        let here = here.map(|word| Traced::new(word.clone(), option.clone()));
        let words = places.iter().flat_map(|place| each(of_place(place).clone()));
        slurm_args::check(program, words.chain(here), given, errors)
    };
    let sbatch =
        extra(Program::Sbatch, |s| &s.sbatch_args, &settings::SBATCH_ARGS, &options.sbatch_args);
    let srun = extra(Program::Srun, |s| &s.srun_args, &settings::SRUN_ARGS, &options.srun_args);
    JobSettings {
        sbatch_args: sbatch,
        srun_args: srun,
        partition: given.partition.clone(),
        account: given.account.clone(),
        time: given.time.clone(),
        default_time: None,
        name: given.job_name.clone(),
        segment: given.segment.clone(),
        qos: given.qos.clone(),
        constraint: given.constraint.clone(),
        reservation: given.reservation.clone(),
        exclusive: given.exclusive.clone(),
        mem: given.mem.clone(),
        gpu_request: choice(given.gpu_request.clone(), &settings::GPU_REQUEST),
    }
}

/// The part of requests that may fail, in percent.
pub(super) fn max_failed(given: Option<Traced<String>>) -> Traced<f64> {
    let text = or_default(given, &settings::MAX_FAILED);
    Traced::new(percent(&text.value).unwrap_or_default(), text.origin)
}
