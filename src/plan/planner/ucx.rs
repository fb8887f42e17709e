// SPDX-License-Identifier: Apache-2.0
//! Which row of the tables of UCX settings a test follows.

use super::Planner;
use crate::plan::origin::Origin;
use crate::plan::ucx;

impl Planner<'_> {
    /// The row of the UCX table, by the cluster's name and the stage's; without a script prefix,
    /// which comes from a pipeline that knows its stage, by the GPUs that the configuration is made
    /// for.
    pub(super) fn ucx(&mut self) -> (ucx::Row, Origin) {
        let (table, cluster) = (self.rules.ucx(), &self.request.cluster);
        let row = |gpu: &str| table.row(&self.request.ucx, &cluster.value, &ucx::gpu(gpu));
        let named = |row: ucx::Row, origin: &Origin| {
            let which = |what: &str, pattern: &str| match pattern {
                "" | "*" => format!("any {what}"),
                _ => format!("{what} {pattern}"),
            };
            let of_any = matches!(&*row.cluster, "" | "*");
            let origin = if of_any { origin } else { &cluster.origin };
            let (of, gpu) = (which("cluster", &row.cluster), which("GPU", &row.gpu));
            (row, origin.by_rule(format!("UCX settings for {of} and {gpu}")))
        };
        if let Some(stage) = self.request.stage.as_ref().filter(|stage| !stage.value.is_empty()) {
            return named(row(&stage.value), &stage.origin);
        }
        let gpus = match &self.request.base {
            None => self.config.supported_gpus.get(&mut self.errors),
            Some(_) => None,
        };
        if let Some(gpus) = gpus {
            let mut rows = gpus.value.iter().map(|gpu| row(gpu));
            if let Some(row) = rows.next().filter(|first| rows.all(|row| row == *first)) {
                return named(row, &gpus.origin);
            }
        }
        named(row(""), &Origin::default())
    }
}
