// SPDX-License-Identifier: Apache-2.0
//! Following jobs to their end: asks Slurm, reads what the launch writes, shows both, and takes
//! interruptions. Nothing here starts or ends a step.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::client::{Client, Trouble};
use super::interrupt::{Answer, Interrupts};
use super::outcome::{Facts, Outcome, judge};
use super::pace::{self, Stage, pause};
use super::result::{self, RunResult};
use super::submission::Launcher;
use crate::slurm::job::{ExitCode, JobRecord};
use crate::slurm::state::JobState;

/// How long the launch's verdict may come after the job's end: a file that a node has written is
/// seen elsewhere only when a network file system says so.
const LATE_VERDICT: Duration = Duration::from_secs(5);

/// A job to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Slurm's id.
    pub job_id: u32,
    /// Its workspace; nothing for a job that has none that is known.
    pub workspace: Option<PathBuf>,
    /// What runs its steps, where that is known.
    pub launcher: Option<Launcher>,
    /// What it is called: the test's id, else the job's name.
    pub title: String,
    /// Its steps, where its plan is known.
    pub roles: Vec<Role>,
}

/// A step and its log, as the plan has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Role {
    /// `GEN_0`.
    pub name: String,
    /// Its log in the workspace.
    pub log: String,
}

/// What is known of a job at the moment.
#[derive(Debug, Clone)]
pub struct View {
    /// The job.
    pub job: Job,
    /// Its state; nothing before the first answer.
    pub state: Option<JobState>,
    /// Why it waits, or why it ended.
    pub reason: Option<String>,
    /// All that Slurm knows of it, as of the last change of its state.
    pub record: Option<JobRecord>,
    /// How the run stands, where the launch says it.
    pub result: Option<RunResult>,
    /// What became of it, with a sentence; nothing while it goes on.
    pub outcome: Option<(Outcome, String)>,
}

/// What an interruption does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Ctrl-C asks the person at the terminal; other signals detach.
    Ask,
    /// The command ends, the job goes on.
    Detach,
    /// The job is cancelled, and followed to its end; a second one detaches.
    Cancel,
}

/// Where progress is shown.
pub trait Screen {
    /// Shows how the jobs stand.
    ///
    /// # Errors
    /// Those of the output.
    fn show(&mut self, views: &[View]) -> io::Result<()>;

    /// Says something that stays.
    ///
    /// # Errors
    /// Those of the output.
    fn note(&mut self, text: &str) -> io::Result<()>;

    /// Asks a person, whose answer is read elsewhere.
    ///
    /// # Errors
    /// Those of the output.
    fn ask(&mut self, question: &str) -> io::Result<()>;
}

/// Why jobs cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Slurm's commands cannot be used here.
    #[error(transparent)]
    Slurm(#[from] Trouble),
    /// The system's.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Follows jobs of one cluster until all of them have ended, or an interruption detaches; each
/// view has its outcome then. Gives the signal that detached.
///
/// # Errors
/// [`FollowError`]. A controller that does not answer is none: it is asked again.
pub fn follow(
    jobs: Vec<Job>,
    client: &Client,
    interrupts: &Interrupts,
    on_interrupt: OnInterrupt,
    screen: &mut dyn Screen,
) -> Result<(Vec<View>, Option<Signal>), FollowError> {
    let tracks = jobs.into_iter().map(Track::new).collect();
    let silent = None;
    let mut followed = Followed { tracks, client, interrupts, on_interrupt, screen, silent };
    let detached_by = followed.until_the_end()?;
    let mut views: Vec<_> = followed.tracks.into_iter().map(|track| track.view).collect();
    if let Some(signal) = detached_by {
        for view in views.iter_mut().filter(|view| view.outcome.is_none()) {
            let text = format!(
                "{} came; the job goes on. Take it up again with `slurm-disagg watch {}`.",
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

struct Followed<'a> {
    tracks: Vec<Track>,
    client: &'a Client,
    interrupts: &'a Interrupts,
    on_interrupt: OnInterrupt,
    screen: &'a mut dyn Screen,
    /// Since when the controller has not answered.
    silent: Option<Instant>,
}

impl Followed<'_> {
    fn until_the_end(&mut self) -> Result<Option<Signal>, FollowError> {
        loop {
            match self.ask_slurm() {
                // The signal is still there, and is what the next wait finds.
                Err(Trouble::Interrupted) => {}
                Err(Trouble::Silent(words)) => {
                    if self.silent.is_none() {
                        self.silent = Some(Instant::now());
                        self.screen.note(&format!(
                            "Slurm does not answer ({}); the job is not affected, and is asked about again",
                            words.replace('\n', "; ")
                        ))?;
                    }
                }
                Err(trouble) => return Err(trouble.into()),
                Ok(()) => {
                    if self.silent.take().is_some() {
                        self.screen.note("Slurm answers again")?;
                    }
                }
            }
            let next_question = Instant::now() + self.pause();
            loop {
                let changed = self.tracks.iter_mut().any(Track::read_result);
                self.tracks.iter_mut().for_each(Track::settle);
                self.screen.show(&self.views())?;
                if self.tracks.iter().all(|track| track.view.outcome.is_some()) {
                    return Ok(None);
                }
                let left = next_question.saturating_duration_since(Instant::now());
                if left.is_zero() || (changed && self.pause() < left) {
                    break;
                }
                if let Some(signal) = self.interrupts.wait(left.min(pace::FILES))?
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

    /// The shortest pause that one of the jobs asks for.
    fn pause(&self) -> Duration {
        if let Some(since) = self.silent {
            return pause(Stage::Silent, since.elapsed());
        }
        let open = self.tracks.iter().filter(|track| track.view.outcome.is_none());
        open.map(|track| pause(track.stage(), track.since.elapsed())).min().unwrap_or_default()
    }

    fn open_jobs(&self) -> Vec<u32> {
        let open = self.tracks.iter().filter(|track| track.view.outcome.is_none());
        open.map(|track| track.view.job.job_id).collect()
    }

    fn ask_slurm(&mut self) -> Result<(), Trouble> {
        let interrupts = Some(self.interrupts);
        let patience = pace::patience(self.silent.is_some());
        let queue = self.client.queued(&self.open_jobs(), patience, interrupts)?;
        for track in self.tracks.iter_mut().filter(|track| track.is_open_in_slurm()) {
            let job_id = track.view.job.job_id;
            match queue.iter().find(|queued| queued.job_id == job_id) {
                Some(queued) => {
                    let changed = track.view.state.as_ref() != Some(&queued.state);
                    if changed || track.view.reason != queued.reason {
                        track.view.record = self.client.record(job_id, patience, interrupts)?;
                        track.view.reason.clone_from(&queued.reason);
                    }
                    // Not before the record is there: an interruption must not lose it.
                    if changed {
                        track.view.state = Some(queued.state.clone());
                        track.since = Instant::now();
                    }
                    track.over = queued.state.is_final().then(|| track.over()).flatten();
                }
                None => {
                    let accounted = self.client.accounted(job_id, interrupts)?;
                    track.view.reason = None;
                    track.view.state = accounted.as_ref().map(|known| known.state.clone());
                    track.exit_code = accounted.map(|known| known.exit_code);
                    track.over = track.over();
                }
            }
        }
        Ok(())
    }

    /// What an interruption does; gives it back when it detaches.
    fn interrupted(&mut self, signal: Signal) -> Result<Option<Signal>, FollowError> {
        match self.on_interrupt {
            OnInterrupt::Ask if signal == Signal::INT => self.ask_person(),
            OnInterrupt::Ask | OnInterrupt::Detach => Ok(Some(signal)),
            OnInterrupt::Cancel => {
                self.cancel()?;
                Ok(None)
            }
        }
    }

    fn ask_person(&mut self) -> Result<Option<Signal>, FollowError> {
        let question = match self.open_jobs()[..] {
            [job] => {
                format!("Cancel job {job}? [y]es, [n]o: leave it running and end, [c]ontinue: ")
            }
            ref jobs => format!(
                "Cancel all {} jobs? [y]es, [n]o: leave them running and end, [c]ontinue: ",
                jobs.len()
            ),
        };
        loop {
            self.screen.ask(&question)?;
            let answer = match self.interrupts.wait_for_line()? {
                Answer::Signal(signal) => return Ok(Some(signal)),
                Answer::End => return Ok(Some(Signal::INT)),
                Answer::Line(line) => line.to_lowercase(),
            };
            match answer.as_str() {
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
        // Whoever interrupts once more does not want to wait.
        self.on_interrupt = OnInterrupt::Detach;
        match self.client.cancel(&self.open_jobs()) {
            Ok(()) => self.screen.note("cancelling; Ctrl-C again ends this command at once")?,
            Err(trouble) => self.screen.note(&format!("the job is not cancelled: {trouble}"))?,
        }
        self.tracks.iter_mut().for_each(|track| track.cancelled = true);
        Ok(())
    }
}

/// A job that is being followed.
struct Track {
    view: View,
    /// Since when it is in its state.
    since: Instant,
    /// Since when it has ended, for Slurm.
    over: Option<Instant>,
    /// How its batch script ended, where accounting said so.
    exit_code: Option<ExitCode>,
    /// Which version of the result was read last: inode, size, time.
    read: Option<(u64, u64, i64, i64)>,
    /// It was cancelled from here: its end is near.
    cancelled: bool,
}

impl Track {
    fn new(job: Job) -> Self {
        let view =
            View { job, state: None, reason: None, record: None, result: None, outcome: None };
        let since = Instant::now();
        Self { view, since, over: None, exit_code: None, read: None, cancelled: false }
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

    /// Reads the result when it has changed; says whether it has.
    fn read_result(&mut self) -> bool {
        let Some(workspace) = &self.view.job.workspace else { return false };
        let Ok(metadata) = std::fs::metadata(workspace.join(result::FILE)) else { return false };
        let version = (metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        if self.read == Some(version) {
            return false;
        }
        // A result that cannot be read now (another version's, a file system's hiccup) is no
        // result; Slurm still says how the job ends.
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

    /// Judges the job once it has ended.
    fn settle(&mut self) {
        let (None, Some(over)) = (&self.view.outcome, self.over) else { return };
        let has_verdict = self.result().is_some_and(RunResult::is_over);
        let may_come = self.view.job.launcher == Some(Launcher::Native) && self.has_run();
        if may_come && !has_verdict && over.elapsed() < LATE_VERDICT {
            return;
        }
        let record = self.view.record.as_ref();
        let outcome = judge(Facts {
            state: self.view.state.as_ref(),
            reason: record.and_then(|record| record.reason.as_deref()),
            exit_code: self.exit_code.or_else(|| record.map(|record| record.exit_code)),
            launcher: self.view.job.launcher,
            result: self.result(),
        });
        self.view.outcome = Some(outcome);
    }

    fn has_run(&self) -> bool {
        self.view.record.as_ref().is_none_or(|record| record.node_list.is_some())
    }
}
