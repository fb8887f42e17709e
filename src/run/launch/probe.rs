// SPDX-License-Identifier: Apache-2.0
//! The readiness probe: which servers answer `GET /health` at the address that they published.
//!
//! It has its own thread: a name that does not resolve or a file system that hangs must not delay
//! the supervisor.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use serde::Deserialize;

use crate::input::source;

/// The pause between two probes of the servers that are not ready.
const INTERVAL: Duration = Duration::from_millis(250);
/// The time that a server has to answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most bytes that are read of an address file or an answer.
const MAX_ANSWER: u64 = 64 << 10;

/// A running probe. It ends soon after it is dropped.
#[derive(Debug)]
pub struct Probe {
    ready: Receiver<usize>,
    /// A byte arrives with each server that is ready.
    pub wake: UnixStream,
    _alive: Sender<()>,
}

impl Probe {
    /// Starts to probe `servers`, each with an index of the caller's and its name; their address files
    /// are in `directory`.
    ///
    /// # Errors
    /// The system's, for a thread or a socket.
    pub fn start(directory: PathBuf, mut servers: Vec<(usize, String)>) -> io::Result<Self> {
        let (wake, mut waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let (sender, ready) = channel();
        let (alive, ended) = channel::<()>();
        std::thread::Builder::new().name("probe".into()).spawn(move || {
            while !servers.is_empty()
                && ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout)
            {
                servers.retain(|(index, role)| {
                    let is_ready = look(&directory, role).is_some_and(|answer| answer == *role);
                    if is_ready {
                        let _ = sender.send(*index);
                        let _ = waker.write(b"!");
                    }
                    !is_ready
                });
            }
        })?;
        Ok(Self { ready, wake, _alive: alive })
    }

    /// The servers that became ready since.
    pub fn newly_ready(&mut self) -> Vec<usize> {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(length) if length > 0) {}
        self.ready.try_iter().collect()
    }
}

/// What a server publishes.
#[derive(Deserialize)]
struct Address {
    role: String,
    host: String,
    port: u16,
}

/// What a server's health says.
#[derive(Deserialize)]
struct Health {
    role: String,
}

/// The role that answers at a role's address. The address may be a dead server's and its port
/// another program's by now: only an answer counts.
fn look(directory: &Path, role: &str) -> Option<String> {
    let mut text = String::new();
    let file = source::open(&directory.join(format!("{role}.json"))).ok()?;
    file.take(MAX_ANSWER).read_to_string(&mut text).ok()?;
    let address: Address = serde_json::from_str(&text).ok()?;
    if address.role != role {
        return None;
    }
    let addresses = (address.host.as_str(), address.port).to_socket_addrs().ok()?;
    let mut connections =
        addresses.filter_map(|address| TcpStream::connect_timeout(&address, TIMEOUT).ok());
    let body = get_health(connections.next()?, &address.host)?;
    Some(serde_json::from_str::<Health>(&body).ok()?.role)
}

/// The body of the answer to `GET /health`, when its status is 200.
fn get_health(mut connection: TcpStream, host: &str) -> Option<String> {
    connection.set_read_timeout(Some(TIMEOUT)).ok()?;
    connection.set_write_timeout(Some(TIMEOUT)).ok()?;
    let request = format!("GET /health HTTP/1.0\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // An answer that breaks off or comes late is still looked at as far as it came.
    let _ = connection.take(MAX_ANSWER).read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_ok = head.lines().next()?.split(' ').nth(1) == Some("200");
    is_ok.then(|| body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn look_at(answer: &'static str, published: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let text = published.replace("PORT", &port.to_string());
        std::fs::write(directory.path().join("GEN_0.json"), text).unwrap();
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let length = connection.read(&mut request).unwrap();
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        let found = look(directory.path(), "GEN_0");
        // A connection that was never made must not leave the server waiting.
        let _ = TcpStream::connect(("127.0.0.1", port)).and_then(|mut c| c.write_all(b"x"));
        let request = server.join().unwrap();
        assert!(request == "x" || request.starts_with("GET /health HTTP/1.0\r\n"), "{request}");
        found
    }

    const HERE: &str = r#"{"role": "GEN_0", "host": "127.0.0.1", "port": PORT, "pid": 1}"#;

    #[test]
    fn a_server_is_ready_when_it_answers_with_its_role() {
        let answer = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"role\": \"GEN_0\", \"x\": 1}";
        assert_eq!(look_at(answer, HERE).as_deref(), Some("GEN_0"));
    }

    #[test]
    fn an_answer_that_is_none_does_not_count() {
        for answer in [
            "HTTP/1.1 503 x\r\n\r\n{\"role\": \"GEN_0\"}",
            "HTTP/1.1 200 OK\r\n\r\n{}",
            "",
            "\r\n\r\n",
        ] {
            assert_eq!(look_at(answer, HERE), None, "{answer}");
        }
    }

    #[test]
    fn another_program_at_a_dead_server_s_port_is_not_taken_for_it() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n{\"role\": \"CTX_3\"}";
        assert_ne!(look_at(answer, HERE).as_deref(), Some("GEN_0"));
        let foreign = HERE.replace("GEN_0", "CTX_3");
        assert_eq!(look_at("HTTP/1.1 200 OK\r\n\r\n{\"role\": \"GEN_0\"}", &foreign), None);
    }

    #[test]
    fn the_probe_tells_each_server_once() {
        let directory = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut probe =
            Probe::start(directory.path().to_owned(), vec![(7, "GEN_0".to_owned())]).unwrap();
        let address = HERE.replace("PORT", &port.to_string());
        std::fs::write(directory.path().join("GEN_0.json"), address).unwrap();
        let (mut connection, _) = listener.accept().unwrap();
        connection.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"role\": \"GEN_0\"}").unwrap();
        drop(connection);
        probe.wake.set_nonblocking(false).unwrap();
        let mut byte = [0];
        probe.wake.read_exact(&mut byte).unwrap();
        probe.wake.set_nonblocking(true).unwrap();
        assert_eq!(probe.newly_ready(), [7]);
        assert!(probe.newly_ready().is_empty());
    }
}
