// SPDX-License-Identifier: Apache-2.0
//! Questions to servers that answer in all ways, and logs that grow.

use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::plan::Template;

const SECOND: Duration = Duration::from_secs(1);

fn target(listener: &TcpListener, counts: Vec<Count>) -> Target {
    let port = listener.local_addr().unwrap().port();
    let path = "/health".to_owned();
    let http = Http { port: Template::literal(&port.to_string()), path, status: 200, counts };
    Target { host: "127.0.0.1".into(), port, http: Some(http) }
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn watch(target: Target) -> Watch {
    Watch { target: Some(target), ..Watch::default() }
}

/// A probe of servers without logs.
fn probe(watches: &[Watch]) -> Probe {
    Probe::start(watches.iter().map(|watch| (watch, PathBuf::new()))).unwrap().unwrap()
}

/// The next things that are seen, as the supervisor waits for them.
fn next(probe: &mut Probe) -> Vec<Seen> {
    probe.wake.set_nonblocking(false).unwrap();
    probe.wake.set_read_timeout(Some(20 * SECOND)).unwrap();
    let mut byte = [0];
    probe.wake.read_exact(&mut byte).expect("something is seen");
    probe.wake.set_nonblocking(true).unwrap();
    probe.seen()
}

/// What is seen of a server that writes `answer`, `repeated` over and over, and keeps the connection.
fn answer(answer: &'static str, repeated: &'static str, counts: Vec<Count>) -> Result<(), String> {
    let listener = listener();
    let target = target(&listener, counts);
    let server = thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut request = [0; 2048];
        let length = connection.read(&mut request).unwrap();
        let request = String::from_utf8_lossy(&request[..length]).into_owned();
        connection.write_all(answer.as_bytes()).unwrap();
        while !repeated.is_empty() && connection.write_all(repeated.as_bytes()).is_ok() {}
        // Until the client goes.
        let _ = connection.read(&mut [0]);
        request
    });
    let mut probe = probe(&[watch(target.clone())]);
    probe.ask(0, &target, SECOND);
    let Ok([Seen::Answer(0, seen)]) = <[Seen; 1]>::try_from(next(&mut probe)) else {
        panic!("one answer")
    };
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /health HTTP/1.1\r\n"), "{request}");
    seen
}

#[test]
fn only_the_status_that_is_wanted_says_ready() {
    let at_once = |text| answer(text, "", Vec::new());
    assert_eq!(at_once("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), Ok(()));
    assert_eq!(at_once("HTTP/1.0 200 OK\r\n\r\nwithout an end"), Ok(()));
    let start = Instant::now();
    for (text, repeated, expected) in [
        ("HTTP/1.1 503 Wait\r\ncontent-length: 0\r\n\r\n", "", "status 503"),
        ("HTTP/1.1 302 x\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n", "", "302"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "", "GET /health: "),
        ("HTTP/1.1 200 OK\r\n", "a: b\r\n", "GET /health: "),
        ("HTTP/1.1 200 OK\r\na: ", "b", "GET /health: "),
    ] {
        let found = answer(text, repeated, Vec::new()).unwrap_err();
        assert!(found.contains(expected), "{text}: {found}");
    }
    assert!(start.elapsed() < 5 * SECOND, "none of these takes its whole time");
    let half = answer("HTTP/1.1 2", "", Vec::new());
    assert_eq!(half, Err("GET /health: no answer within 1 s".to_owned()));
}

#[test]
fn a_name_that_takes_too_long_is_given_up() {
    let start = Instant::now();
    let slow = within(SECOND / 10, || thread::sleep(20 * SECOND)).unwrap();
    assert!(slow.is_none() && start.elapsed() < 10 * SECOND);
    assert_eq!(within(20 * SECOND, || 7).unwrap(), Some(7));
}

#[test]
fn a_router_is_ready_when_it_counts_enough_servers() {
    let count = |pointer: &str, having: &[(&str, &str)], minimum| Count {
        pointer: pointer.to_owned(),
        having: having.iter().map(|(field, value)| ((*field).into(), (*value).into())).collect(),
        minimum: Minimum::Number(minimum),
    };
    let body = "{\"n\": 2, \"w\": [{\"t\": \"p\", \"ok\": true}, {\"t\": \"p\", \"ok\": false}, \
                {\"t\": \"d\", \"ok\": true}]}";
    // The connection stays, so the body's length must be told.
    let workers = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let workers: &'static str = workers.leak();
    let ready = [count("/n", &[], 2), count("/w", &[], 3), count("/w", &[("t", "p")], 2)];
    assert_eq!(answer(workers, "", ready.to_vec()), Ok(()));
    for (wanted, expected) in [
        (count("/n", &[], 3), "GET /health: /n counts 2, not 3"),
        (
            count("/w", &[("t", "p"), ("ok", "true")], 2),
            "GET /health: /w ok=true t=p counts 1, not 2",
        ),
        (count("/x/0", &[], 1), "GET /health: /x/0 counts 0, not 1"),
    ] {
        assert_eq!(answer(workers, "", vec![wanted]), Err(expected.to_owned()));
    }
    let counts = || vec![count("", &[], 1)];
    let none = answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK", "", counts());
    assert_eq!(none, Err("GET /health: no JSON".to_owned()));
    let endless = answer("HTTP/1.1 200 OK\r\n\r\n", "[[[[", counts()).unwrap_err();
    assert!(endless.contains("limit") || endless.contains("no answer"), "{endless}");
}

#[test]
fn servers_that_hang_delay_no_other() {
    // Connections are made, and nobody accepts them.
    let hanging: Vec<_> = (0..5).map(|_| listener()).collect();
    let healthy = listener();
    let mut targets: Vec<_> = hanging.iter().map(|server| target(server, Vec::new())).collect();
    targets.push(Target { http: None, ..target(&healthy, Vec::new()) });
    let watches: Vec<_> = targets.iter().cloned().map(watch).collect();
    let mut probe = probe(&watches);
    let start = Instant::now();
    for (index, target) in targets.iter().enumerate() {
        probe.ask(index, target, 3 * SECOND);
    }
    assert_eq!(next(&mut probe), [Seen::Answer(5, Ok(()))]);
    assert!(start.elapsed() < 2 * SECOND, "{:?}", start.elapsed());
    let port = healthy.local_addr().unwrap().port();
    drop(healthy);
    probe.ask(5, &targets[5], 3 * SECOND);
    let refused = format!("port {port}: Connection refused (os error 111)");
    assert_eq!(next(&mut probe), [Seen::Answer(5, Err(refused))]);
}

#[test]
fn a_log_is_read_as_it_grows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.log");
    let watch = Watch {
        ready: vec!["is up".to_owned()],
        fatal: vec!["CUDA error".to_owned(), "OOM".to_owned()],
        ..Watch::default()
    };
    let steps = [(&watch, path.clone())];
    let mut probe = Probe::start(steps.into_iter()).unwrap().unwrap();
    let mut log = File::options().create(true).append(true).open(&path).unwrap();
    log.write_all(b"loading 10%\rloading 20%\rserver is ").unwrap();
    // So the log is read when it ends in the middle of a line.
    thread::sleep(2 * LOG_INTERVAL);
    log.write_all(b"up\nis up\n").unwrap();
    assert_eq!(next(&mut probe), [Seen::LogReady(0)]);
    // A process that dies may leave half a line.
    log.write_all(b"is up\n\x1b[31m CUDA error: 700").unwrap();
    assert_eq!(next(&mut probe), [Seen::LogFatal(0, "CUDA error: 700".to_owned())]);
    log.write_all(b"\nOOM\n").unwrap();
    // Nothing is to come: that can only be waited for.
    thread::sleep(2 * LOG_INTERVAL);
    assert!(probe.seen().is_empty(), "once is enough");
}
