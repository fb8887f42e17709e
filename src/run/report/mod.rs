// SPDX-License-Identifier: Apache-2.0
//! Reports of a run's result: as text and as an HTML page.

pub mod chart;
pub(crate) mod html;
pub mod list;
mod text;

use std::path::{Path, PathBuf};

pub use html::page;
pub use text::{body, figures, text};

use super::launch::RUNS;
use super::result::{BadResult, FILE, Moment, RunResult, StepResult};
use super::tail;
use crate::input::source::open_below;

/// A run's result and its logs.
#[derive(Debug, Clone)]
pub struct Report {
    /// The result.
    pub result: RunResult,
    /// The workspace.
    pub workspace: PathBuf,
    /// The directory that the result was read from: the workspace or the run's own.
    directory: PathBuf,
    /// The end of the timeline of a run that is not over.
    pub now: Moment,
}

impl Report {
    /// Reads the result of a workspace's latest run, or of one run's directory.
    ///
    /// # Errors
    /// [`BadResult`].
    pub fn read(directory: &Path) -> Result<Self, BadResult> {
        let absolute = directory.canonicalize()?;
        let is_run = absolute.parent().is_some_and(|parent| parent.ends_with(RUNS));
        let above = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
        let workspace = is_run.then(|| above(&absolute)).flatten();
        let workspace = workspace.unwrap_or_else(|| absolute.clone());
        let result = RunResult::from_file(open_below(&absolute, FILE)?)?;
        Ok(Self { result, workspace, directory: absolute, now: Moment::now() })
    }

    /// The begin and the end of the timeline, at least a millisecond apart.
    fn range(&self) -> (Moment, Moment) {
        let begin = self.result.started;
        let last_end = self.result.steps.iter().filter_map(|step| step.ended).max();
        let end = self.result.ended.max(last_end);
        let end = if self.result.is_over() { end } else { Some(self.now) };
        (begin, end.unwrap_or(begin).max(Moment(begin.0 + 1)))
    }

    /// The last lines of a step's log; none where it cannot be read. Somebody else may have written
    /// the result: a log outside the workspace is not read.
    fn tail(&self, step: &StepResult, lines: usize) -> Option<Vec<String>> {
        tail::lines_below(&self.directory, &step.log, lines).ok()
    }
}
