// SPDX-License-Identifier: Apache-2.0
//! Asks steps whether they are ready, and reads their logs for the texts that say so or mean death.
//!
//! It has threads of its own: a name that does not resolve, a server that hangs or a file system
//! that does must not delay the supervisor, nor one server another.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use ureq::Agent;

use super::watch::{Target, Watch};
use crate::input::source;
use crate::plan::health::{Count, Http, Minimum};
use crate::run::tail;

/// The most threads that ask. Each waits for one answer at a time.
const MAX_THREADS: usize = 32;
/// The most bytes that are read of an answer's head, and of its body.
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: u64 = 4 << 20;
/// The least time to connect that is left when a name took all of it.
const LEAST_TIME: Duration = Duration::from_millis(1);
/// The pause between two looks at the logs.
const LOG_INTERVAL: Duration = Duration::from_millis(250);
/// The most bytes that are read of a log at a time, and kept of a line.
const MAX_ROUND: u64 = 4 << 20;
const MAX_LINE: usize = 16 << 10;

/// What was seen of a step, which has an index of the caller's.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// Its answer.
    Answer(usize, Result<(), String>),
    /// Its log says that it is ready.
    LogReady(usize),
    /// Its log has this line, which means death.
    LogFatal(usize, String),
}

/// The threads that ask and read. They end soon after it is dropped.
#[derive(Debug)]
pub struct Probe {
    questions: Sender<Question>,
    seen: Receiver<Seen>,
    /// A byte arrives with all that is seen.
    pub wake: UnixStream,
    _alive: Sender<()>,
}

struct Question {
    index: usize,
    target: Target,
    timeout: Duration,
}

/// Where the threads hand in what they see.
struct Reporter {
    seen: Sender<Seen>,
    waker: UnixStream,
}

impl Reporter {
    fn report(&mut self, seen: Seen) {
        let _ = self.seen.send(seen);
        // A full pipe wakes as well.
        let _ = self.waker.write(b"!");
    }
}

impl Probe {
    /// A probe of steps, each with its log; their places are their indices. None when there is
    /// nothing to see.
    ///
    /// # Errors
    /// The system's, for a thread or a socket.
    pub fn start<'w>(
        steps: impl Iterator<Item = (&'w Watch, PathBuf)>,
    ) -> io::Result<Option<Self>> {
        let (mut threads, mut logs) = (0, Vec::new());
        for (index, (watch, path)) in steps.enumerate() {
            threads += usize::from(watch.target.is_some());
            if !watch.ready.is_empty() || !watch.fatal.is_empty() {
                logs.push(Log::new(index, path, watch));
            }
        }
        if threads == 0 && logs.is_empty() {
            return Ok(None);
        }
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let (sender, seen) = channel();
        let reporter = || -> io::Result<Reporter> {
            Ok(Reporter { seen: sender.clone(), waker: waker.try_clone()? })
        };
        let (questions, to_ask) = channel();
        let to_ask = Arc::new(Mutex::new(to_ask));
        for _ in 0..threads.min(MAX_THREADS) {
            let (to_ask, reporter) = (Arc::clone(&to_ask), reporter()?);
            thread::Builder::new().name("probe".into()).spawn(move || ask(&to_ask, reporter))?;
        }
        let (alive, ended) = channel::<()>();
        if !logs.is_empty() {
            let reporter = reporter()?;
            let read = move || read_logs(logs, reporter, &ended);
            thread::Builder::new().name("logs".into()).spawn(read)?;
        }
        Ok(Some(Self { questions, seen, wake, _alive: alive }))
    }

    /// Asks a step; its answer will be seen, soon after `timeout` at the latest.
    pub fn ask(&self, index: usize, target: &Target, timeout: Duration) {
        let _ = self.questions.send(Question { index, target: target.clone(), timeout });
    }

    /// What was seen since.
    pub fn seen(&mut self) -> Vec<Seen> {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(length) if length > 0) {}
        self.seen.try_iter().collect()
    }
}

// ---- asking

fn ask(questions: &Mutex<Receiver<Question>>, mut reporter: Reporter) {
    let agent: Agent = Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(MAX_HEAD)
        .max_idle_connections(0)
        .user_agent(concat!("slurm-disagg/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    loop {
        // The lock is held while waiting for a question, never while asking one.
        let question = questions.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Question { index, target, timeout }) = question else { return };
        let answer = match &target.http {
            Some(http) => get(&agent, &target, http, timeout),
            None => connect(&target, timeout),
        };
        reporter.report(Seen::Answer(index, answer));
    }
}

/// Connects, and says why that fails.
pub fn connect(target: &Target, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut last = "no address".to_owned();
    for address in addresses(target, timeout)? {
        let left = deadline.saturating_duration_since(Instant::now());
        match TcpStream::connect_timeout(&address, left.max(LEAST_TIME)) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(format!("port {}: {last}", target.port))
}

/// The addresses of a target.
fn addresses(target: &Target, timeout: Duration) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = (target.host.clone(), target.port);
    let ask = move || (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
    let text = |error: io::Error| error.to_string();
    let found = within(timeout, ask).map_err(text)?;
    let late = || format!("{}: no address within {} s", target.host, timeout.as_secs_f64());
    found.ok_or_else(late)?.map_err(text)
}

/// The result of a function that ends when it likes, in a thread of its own; none when it takes too
/// long.
fn within<T: Send + 'static>(
    timeout: Duration,
    function: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (sender, result) = channel();
    let run = move || {
        let _ = sender.send(function());
    };
    thread::Builder::new().name("within".into()).spawn(run)?;
    Ok(result.recv_timeout(timeout).ok())
}

fn get(agent: &Agent, target: &Target, http: &Http, timeout: Duration) -> Result<(), String> {
    let path = &http.path;
    let failed = |error: ureq::Error| match error {
        ureq::Error::Timeout(_) => {
            format!("GET {path}: no answer within {} s", timeout.as_secs_f64())
        }
        error => format!("GET {path}: {error}"),
    };
    let url = format!("http://{}:{}{path}", target.host, target.port);
    let request = agent.get(url).config().timeout_global(Some(timeout)).build();
    let mut answer = request.call().map_err(failed)?;
    let status = answer.status().as_u16();
    if status != http.status {
        return Err(format!("GET {path}: status {status}"));
    }
    if http.counts.is_empty() {
        return Ok(());
    }
    let body = answer.body_mut().with_config().limit(MAX_BODY).read_to_vec().map_err(failed)?;
    let body = serde_json::from_slice(&body).map_err(|_| format!("GET {path}: no JSON"))?;
    http.counts.iter().try_for_each(|wanted| {
        let (found, Minimum::Number(minimum)) = (count(&body, wanted), &wanted.minimum) else {
            return Ok(());
        };
        match found {
            found if found >= u64::from(*minimum) => Ok(()),
            found => {
                let what: Vec<_> = wanted
                    .having
                    .iter()
                    .map(|(field, value)| format!(" {field}={value}"))
                    .collect();
                let (pointer, what) = (&wanted.pointer, what.concat());
                Err(format!("GET {path}: {pointer}{what} counts {found}, not {minimum}"))
            }
        }
    })
}

/// The number at a place; of a list, the number of elements that have the fields that are wanted.
fn count(body: &Value, wanted: &Count) -> u64 {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let has = |element: &Value, (field, value): (&String, &String)| {
        element.get(field).map(text).as_ref() == Some(value)
    };
    match body.pointer(&wanted.pointer) {
        Some(Value::Array(list)) => {
            let counted = |element: &&Value| wanted.having.iter().all(|field| has(element, field));
            list.iter().filter(counted).count() as u64
        }
        Some(Value::Number(number)) => number.as_u64().unwrap_or_default(),
        _ => 0,
    }
}

// ---- logs

fn read_logs(mut logs: Vec<Log>, mut reporter: Reporter, ended: &Receiver<()>) {
    while !logs.is_empty() && ended.recv_timeout(LOG_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        for log in &mut logs {
            // A log that cannot be read now may be readable later.
            let _ = log.read(&mut |seen| reporter.report(seen));
        }
        logs.retain(|log| !log.ready.is_empty() || !log.fatal.is_empty());
    }
}

/// A log that is read as it grows.
struct Log {
    index: usize,
    path: PathBuf,
    file: Option<File>,
    ready: Vec<String>,
    fatal: Vec<String>,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
}

impl Log {
    fn new(index: usize, path: PathBuf, watch: &Watch) -> Self {
        let (ready, fatal) = (watch.ready.clone(), watch.fatal.clone());
        Self { index, path, file: None, ready, fatal, line: Vec::new() }
    }

    /// Looks at what was written since.
    fn read(&mut self, report: &mut impl FnMut(Seen)) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(source::open(&self.path)?),
        };
        let mut bytes = Vec::new();
        file.take(MAX_ROUND).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            // Who dies may do so in the middle of a line.
            self.look(report);
        }
        for byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    self.look(report);
                    self.line.clear();
                }
                _ if self.line.len() < MAX_LINE => self.line.push(byte),
                _ => {}
            }
        }
        Ok(())
    }

    fn look(&mut self, report: &mut impl FnMut(Seen)) {
        if self.line.is_empty() {
            return;
        }
        let line = String::from_utf8_lossy(&self.line);
        let has = |texts: &[String]| texts.iter().any(|text| line.contains(text));
        if has(&self.fatal) {
            report(Seen::LogFatal(self.index, tail::printable(&line).trim().to_owned()));
            self.fatal.clear();
        }
        if has(&self.ready) {
            report(Seen::LogReady(self.index));
            self.ready.clear();
        }
    }
}

#[cfg(test)]
mod tests;
