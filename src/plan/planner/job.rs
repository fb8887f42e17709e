// SPDX-License-Identifier: Apache-2.0
//! What Slurm is asked for.

use super::Planner;
use crate::plan::config::Field;
use crate::plan::request::JobSettings;
use crate::plan::{Job, Layout, Origin, Traced};

/// The time limit of a test that names none.
const DEFAULT_TIME: &str = "04:00:00";
/// The job's name when none is asked for.
const DEFAULT_JOB_NAME: &str = "disagg_perf_test";

impl Planner<'_> {
    /// The allocation of a layout.
    pub(super) fn job(&mut self, layout: &Layout) -> Job {
        let settings = &self.request.job;
        let config = &self.config.slurm;
        let gpus = match &self.config.hardware.gpus_per_node {
            Field::Good(gpus) => gpus.origin.clone(),
            _ => Origin::default(),
        };
        let wanted = config.set_segment.get(&mut self.errors).filter(|wanted| wanted.value);
        let knows_segment = settings.segment.as_ref().is_some_and(|known| known.value);
        if wanted.is_some() && !knows_segment {
            self.notes.push(
                "slurm.set_segment is not used: the site does not say that its Slurm knows \
                 --segment"
                    .into(),
            );
        }
        let segment = wanted
            .filter(|_| knows_segment)
            .map(|wanted| Traced::new(layout.total_nodes, wanted.origin.by_rule("one segment")));
        let time = match &settings.time {
            Some(time) => Some(time),
            None => config.job_time.get(&mut self.errors).or(settings.default_time.as_ref()),
        };
        let default_time = settings.default_time.clone();
        let asked = JobSettings { time: time.cloned(), default_time, ..settings.clone() };
        Job {
            segment,
            ..job(&asked, layout, &gpus, &self.request.directories.workspace, DEFAULT_JOB_NAME)
        }
    }
}

/// The allocation of a layout, without a segment; `gpus` says where the GPUs of a node come from.
pub(in crate::plan) fn job(
    settings: &JobSettings,
    layout: &Layout,
    gpus: &Origin,
    workspace: &Traced<String>,
    name: &str,
) -> Job {
    let per_node = |rule: &'static str| Traced::new(layout.gpus_per_node, gpus.by_rule(rule));
    let time = settings.time.as_ref().or(settings.default_time.as_ref());
    Job {
        name: settings
            .name
            .clone()
            .unwrap_or_else(|| Traced::new(name.to_owned(), Origin::rule("the default job name"))),
        output: Traced::new(
            // sbatch reads `%%` as a percent sign.
            format!("{}/slurm_%j.log", workspace.value.trim_end_matches('/').replace('%', "%%")),
            workspace.origin.by_rule("the job's log is in the workspace"),
        ),
        nodes: Traced::new(
            layout.total_nodes,
            Origin::rule("total nodes: servers × ⌈world size / GPUs per node⌉"),
        ),
        ntasks: Traced::new(layout.total_gpus, Origin::rule("one task for each GPU of the job")),
        ntasks_per_node: per_node("one task for each GPU of a node"),
        gpus_per_node: per_node("all GPUs of each node"),
        time: time.cloned().unwrap_or_else(|| {
            Traced::new(DEFAULT_TIME.into(), Origin::rule("the default time limit"))
        }),
        partition: settings.partition.clone(),
        account: settings.account.clone(),
        segment: None,
        gpu_request: settings.gpu_request.clone(),
        exclusive: settings.exclusive.clone(),
        qos: settings.qos.clone(),
        constraint: settings.constraint.clone(),
        reservation: settings.reservation.clone(),
        mem: settings.mem.clone(),
        sbatch_args: settings.sbatch_args.clone(),
        srun_args: settings.srun_args.clone(),
    }
}
