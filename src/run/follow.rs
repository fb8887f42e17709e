// SPDX-License-Identifier: Apache-2.0
//! Following jobs to their end: polls Slurm, reads the launch's result, shows both, and handles
//! signals. Nothing here starts or ends a step.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Client, SlurmError};
use super::figures::Measurement;
use super::interrupt::{Input, Interrupts};
use super::outcome::{Facts, Outcome, judge};
use super::polling::{self, Stage, interval};
use super::result::{self, RunResult};
use super::submission::{self, Launcher};
use crate::slurm::job::{ExitCode, JobRecord};
use crate::slurm::state::JobState;

/// How long after the job's end the launch's verdict may appear: a network file system shows a
/// node's file elsewhere only after a delay.
const LATE_VERDICT: Duration = Duration::from_secs(5);

/// A job to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Slurm's id.
    pub job_id: u32,
    /// Its workspace, where that is known.
    pub workspace: Option<PathBuf>,
    /// What runs its steps, where that is known.
    pub launcher: Option<Launcher>,
    /// The test's id, else the job's name.
    pub title: String,
    /// Its steps, where its plan is known.
    pub roles: Vec<Role>,
}

/// A step of the plan and its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// `GEN_0`.
    pub name: String,
    /// Its log in the workspace.
    pub log: String,
}

/// What is known of a job now.
#[derive(Debug, Clone)]
pub struct View {
    /// The job.
    pub job: Job,
    /// Its state; `None` before the first query has succeeded.
    pub state: Option<JobState>,
    /// Why it waits, or why it ended.
    pub reason: Option<String>,
    /// The controller's record of it, as of the last change of its state.
    pub record: Option<JobRecord>,
    /// When its time limit ends it.
    pub limit: Option<Instant>,
    /// The launch's result so far.
    pub result: Option<RunResult>,
    /// What the client measured, where there is no launch that reads it.
    pub figures: Vec<Measurement>,
    /// Its outcome with a sentence; `None` until it has ended.
    pub outcome: Option<(Outcome, String)>,
}

/// What a signal does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Ctrl-C prompts the user at the terminal; other signals detach.
    Prompt,
    /// The command ends, the job continues.
    Detach,
    /// The job is cancelled, and followed to its end; a second one detaches.
    Cancel,
}

/// Where progress is shown.
pub trait Screen {
    /// Shows the state of the jobs.
    ///
    /// # Errors
    /// Those of the output.
    fn show(&mut self, views: &[View]) -> io::Result<()>;

    /// Prints a line that stays.
    ///
    /// # Errors
    /// Those of the output.
    fn note(&mut self, text: &str) -> io::Result<()>;

    /// Prints a question; the caller reads the reply.
    ///
    /// # Errors
    /// Those of the output.
    fn prompt(&mut self, question: &str) -> io::Result<()>;
}

/// Why jobs cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Slurm's commands cannot be used here.
    #[error(transparent)]
    Slurm(#[from] SlurmError),
    /// An error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Follows jobs of one cluster until all of them have ended, or a signal detaches; each view has its
/// outcome then. Gives the signal that detached.
///
/// # Errors
/// [`FollowError`]; not for a controller that does not respond, which is polled further.
pub fn follow(
    jobs: Vec<Job>,
    client: &Client,
    interrupts: &Interrupts,
    on_interrupt: OnInterrupt,
    screen: &mut dyn Screen,
) -> Result<(Vec<View>, Option<Signal>), FollowError> {
    let tracks = jobs.into_iter().map(Track::new).collect();
    let unresponsive = None;
    let mut follower = Follower { tracks, client, interrupts, on_interrupt, screen, unresponsive };
    let detached_by = follower.run()?;
    let mut views: Vec<_> = follower.tracks.into_iter().map(|track| track.view).collect();
    if let Some(signal) = detached_by {
        for view in views.iter_mut().filter(|view| view.outcome.is_none()) {
            let text = format!(
                "received {}; the job continues. Follow it with `slurm-disagg watch {}`.",
                signal_name(signal),
                view.job.job_id
            );
            view.outcome = Some((Outcome::Detached, text));
        }
    }
    Ok((views, detached_by))
}

fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "SIGINT",
        Signal::HUP => "SIGHUP",
        _ => "SIGTERM",
    }
}

struct Follower<'a> {
    tracks: Vec<Track>,
    client: &'a Client,
    interrupts: &'a Interrupts,
    on_interrupt: OnInterrupt,
    screen: &'a mut dyn Screen,
    /// Since when the controller has not responded.
    unresponsive: Option<Instant>,
}

impl Follower<'_> {
    fn run(&mut self) -> Result<Option<Signal>, FollowError> {
        loop {
            match self.poll() {
                // The signal is still pending: the next wait returns it.
                Err(SlurmError::Interrupted) => {}
                Err(SlurmError::Unresponsive(error)) => {
                    if self.unresponsive.is_none() {
                        self.unresponsive = Some(Instant::now());
                        self.screen.note(&format!(
                            "Slurm does not respond ({}): the job is not affected; retrying",
                            error.replace('\n', "; ")
                        ))?;
                    }
                }
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    if self.unresponsive.take().is_some() {
                        self.screen.note("Slurm responds again")?;
                    }
                }
            }
            let next_poll = Instant::now() + self.interval();
            loop {
                let changed = self.tracks.iter_mut().any(Track::read_result);
                self.tracks.iter_mut().for_each(Track::note_stage);
                self.tracks.iter_mut().for_each(|track| track.settle(LATE_VERDICT));
                self.screen.show(&self.views())?;
                if self.tracks.iter().all(|track| track.view.outcome.is_some()) {
                    return Ok(None);
                }
                let left = next_poll.saturating_duration_since(Instant::now());
                if left.is_zero() || (changed && self.interval() < left) {
                    break;
                }
                if let Some(signal) = self.interrupts.wait(left.min(polling::FILE_INTERVAL))?
                    && let Some(signal) = self.interrupted(signal)?
                {
                    return Ok(Some(signal));
                }
            }
        }
    }

    fn views(&self) -> Vec<View> {
        self.tracks.iter().map(|track| track.view.clone()).collect()
    }

    /// The time until the next poll: that of the job with the shortest one.
    fn interval(&self) -> Duration {
        if let Some(since) = self.unresponsive {
            return interval(Stage::Unresponsive, since.elapsed());
        }
        let open = self.tracks.iter().filter(|track| track.view.outcome.is_none());
        open.map(|track| interval(track.stage(), track.since.elapsed())).min().unwrap_or_default()
    }

    fn open_jobs(&self) -> Vec<u32> {
        open_jobs(&self.tracks)
    }

    fn poll(&mut self) -> Result<(), SlurmError> {
        let timeout = polling::timeout(self.unresponsive.is_some());
        poll(&mut self.tracks, self.client, timeout, Some(self.interrupts))
    }

    /// Handles a signal; gives it back when it detaches.
    fn interrupted(&mut self, signal: Signal) -> Result<Option<Signal>, FollowError> {
        match self.on_interrupt {
            OnInterrupt::Prompt if signal == Signal::INT => self.prompt(),
            OnInterrupt::Prompt | OnInterrupt::Detach => Ok(Some(signal)),
            OnInterrupt::Cancel => {
                self.cancel()?;
                Ok(None)
            }
        }
    }

    fn prompt(&mut self) -> Result<Option<Signal>, FollowError> {
        let question = match self.open_jobs()[..] {
            [job] => {
                format!("Cancel job {job}? [y]es, [n]o: leave it running and exit, [c]ontinue: ")
            }
            ref jobs => format!(
                "Cancel all {} jobs? [y]es, [n]o: leave them running and exit, [c]ontinue: ",
                jobs.len()
            ),
        };
        loop {
            self.screen.prompt(&question)?;
            let reply = match self.interrupts.wait_for_line()? {
                Input::Signal(signal) => return Ok(Some(signal)),
                Input::End => return Ok(Some(Signal::INT)),
                Input::Line(line) => line.to_lowercase(),
            };
            match reply.as_str() {
                "y" | "yes" => {
                    self.cancel()?;
                    return Ok(None);
                }
                "n" | "no" => return Ok(Some(Signal::INT)),
                "c" | "continue" => return Ok(None),
                _ => {}
            }
        }
    }

    fn cancel(&mut self) -> Result<(), FollowError> {
        // A second Ctrl-C ends the command.
        self.on_interrupt = OnInterrupt::Detach;
        match self.client.cancel(&self.open_jobs()) {
            Ok(()) => self.screen.note("cancelling; press Ctrl-C again to exit at once")?,
            Err(error) => self.screen.note(&format!("cannot cancel the job: {error}"))?,
        }
        self.tracks.iter_mut().for_each(|track| track.cancelled = true);
        Ok(())
    }
}

/// Looks at jobs once; one that has not ended has no outcome. Where Slurm cannot be asked, its error
/// comes too, and verdicts in the workspaces count alone.
#[must_use]
pub fn look(jobs: Vec<Job>, client: &Client) -> (Vec<View>, Option<SlurmError>) {
    let mut tracks: Vec<_> = jobs.into_iter().map(Track::new).collect();
    for track in &mut tracks {
        track.read_result();
    }
    let error = poll(&mut tracks, client, polling::QUERY_TIMEOUT, None).err();
    for track in &mut tracks {
        if error.is_some() && track.result().is_some_and(RunResult::is_over) {
            track.over = track.over();
        }
        track.settle(Duration::ZERO);
    }
    (tracks.into_iter().map(|track| track.view).collect(), error)
}

fn open_jobs(tracks: &[Track]) -> Vec<u32> {
    let open = tracks.iter().filter(|track| track.view.outcome.is_none());
    open.map(|track| track.view.job.job_id).collect()
}

/// Asks Slurm for the states of all jobs that are still open.
fn poll(
    tracks: &mut [Track],
    client: &Client,
    timeout: Duration,
    interrupts: Option<&Interrupts>,
) -> Result<(), SlurmError> {
    let queue = client.queued(&open_jobs(tracks), timeout, interrupts)?;
    for track in tracks.iter_mut().filter(|track| track.is_open_in_slurm()) {
        let job_id = track.view.job.job_id;
        match queue.iter().find(|queued| queued.job_id == job_id) {
            Some(queued) => {
                let changed = track.view.state.as_ref() != Some(&queued.state);
                if changed || track.view.reason != queued.reason {
                    track.view.record = client.record(job_id, timeout, interrupts)?;
                    let left = track.view.record.as_ref().and_then(|record| record.seconds_left);
                    track.view.limit =
                        left.map(|left| Instant::now() + Duration::from_secs(left.into()));
                    track.view.reason.clone_from(&queued.reason);
                }
                // Only after the record is read: a signal must not lose it.
                if changed {
                    track.view.state = Some(queued.state.clone());
                }
                track.over = queued.state.is_final().then(|| track.over()).flatten();
                track.note_stage();
            }
            None => {
                let accounted = client.accounted(job_id, interrupts)?;
                track.view.reason = None;
                track.view.state = accounted.as_ref().map(|known| known.state.clone());
                track.exit_code = accounted.map(|known| known.exit_code);
                track.over = track.over();
            }
        }
    }
    Ok(())
}

/// A job that is being followed.
struct Track {
    view: View,
    /// What it is doing, and since when.
    stage: Stage,
    since: Instant,
    /// When Slurm reported its end.
    over: Option<Instant>,
    /// How its batch script ended, from accounting.
    exit_code: Option<ExitCode>,
    /// Which version of the result was read last: inode, size, time.
    read: Option<(u64, u64, i64, i64)>,
    /// This command cancelled it: its end is near.
    cancelled: bool,
}

impl Track {
    fn new(job: Job) -> Self {
        let view = View {
            job,
            state: None,
            reason: None,
            record: None,
            limit: None,
            result: None,
            figures: Vec::new(),
            outcome: None,
        };
        let since = Instant::now();
        let stage = Stage::Waiting;
        Self { view, stage, since, over: None, exit_code: None, read: None, cancelled: false }
    }

    /// Notes since when the job is in its stage.
    fn note_stage(&mut self) {
        let stage = self.stage();
        if stage != self.stage {
            (self.stage, self.since) = (stage, Instant::now());
        }
    }

    fn is_open_in_slurm(&self) -> bool {
        self.view.outcome.is_none() && self.over.is_none()
    }

    fn over(&self) -> Option<Instant> {
        self.over.or_else(|| Some(Instant::now()))
    }

    fn stage(&self) -> Stage {
        let ending = self.cancelled
            || self.over.is_some()
            || self.result().is_some_and(|result| {
                result.is_over()
                    || matches!(result.phase, result::Phase::Stop | result::Phase::Done)
            });
        match &self.view.state {
            _ if ending => Stage::Ending,
            Some(state) if state.is_waiting() => Stage::Waiting,
            Some(state) if state.is_running() => Stage::Running,
            Some(state) if state.base.is_some_and(|base| base.is_over()) => Stage::Ending,
            Some(state) if state.has(crate::slurm::state::StateFlag::Completing) => Stage::Ending,
            _ => Stage::Waiting,
        }
    }

    /// Reads the result when it has changed; gives whether it has.
    fn read_result(&mut self) -> bool {
        let Some(workspace) = &self.view.job.workspace else { return false };
        let Ok(metadata) = std::fs::metadata(workspace.join(result::FILE)) else { return false };
        let version = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        if self.read == Some(version) {
            return false;
        }
        // One that cannot be read now (another version, a file system error) is ignored: Slurm
        // still shows how the job ends.
        let Ok(result) = RunResult::read(workspace) else { return false };
        self.read = Some(version);
        self.view.result = Some(result).filter(|result| result.run.job_id == self.view.job.job_id);
        self.view.result.is_some()
    }

    /// The result, where it is this run's and not that of a run before a requeue.
    fn result(&self) -> Option<&RunResult> {
        let restarts = self.view.record.as_ref().map(|record| record.restarts);
        let this_run =
            |result: &&RunResult| restarts.is_none_or(|restarts| result.run.restart >= restarts);
        self.view.result.as_ref().filter(this_run)
    }

    /// Judges the job once it has ended, and waits this long for a late verdict.
    fn settle(&mut self, late: Duration) {
        let (None, Some(over)) = (&self.view.outcome, self.over) else { return };
        let has_verdict = self.result().is_some_and(RunResult::is_over);
        let may_come = self.view.job.launcher == Some(Launcher::Native) && self.has_run();
        if may_come && !has_verdict && over.elapsed() < late {
            return;
        }
        let mut fault = None;
        if self.view.job.launcher == Some(Launcher::Bash)
            && let Some(workspace) = &self.view.job.workspace
            && let Some(found) = submission::figures(workspace)
        {
            (self.view.figures, fault) = found;
        }
        let record = self.view.record.as_ref();
        let outcome = judge(Facts {
            state: self.view.state.as_ref(),
            reason: record.and_then(|record| record.reason.as_deref()),
            exit_code: self.exit_code.or_else(|| record.map(|record| record.exit_code)),
            launcher: self.view.job.launcher,
            result: self.result(),
            fault: fault.as_deref(),
        });
        self.view.outcome = Some(outcome);
    }

    fn has_run(&self) -> bool {
        self.view.record.as_ref().is_none_or(|record| record.node_list.is_some())
    }
}
