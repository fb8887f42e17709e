// SPDX-License-Identifier: Apache-2.0
//! Whether the ports of a step are free on its nodes, just before it starts: a server that finds its
//! port taken fails late, and its clients may talk to the other program.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::environment::{Variables, for_srun};
use super::probe;
use super::watch::Target;
use crate::output::script::COMMON;
use crate::plan::Instance;
use crate::plan::role::NO_MPI;
use crate::run::subprocess;

/// How long a node may take to answer: one that drops packets has no server that could be reached.
const TIMEOUT: Duration = Duration::from_millis(200);
/// How long it may take to find out who has a port.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);
/// The most questions at a time.
const AT_A_TIME: usize = 64;

/// The ports of a step: the name and all numbers of each.
pub fn of_instance(instance: &Instance<'_>) -> Vec<(String, u16)> {
    let numbers = |(name, ports): (&String, &crate::plan::Ports)| {
        let first = instance.port(name).unwrap_or_default();
        let all = first..first + u32::from(ports.each);
        let named = move |number| Some((name.clone(), u16::try_from(number).ok()?));
        all.filter_map(named).collect::<Vec<_>>()
    };
    instance.role.ports.iter().flat_map(numbers).collect()
}

/// Says which of the ports somebody uses on one of the nodes, at their addresses.
pub fn taken(
    nodes: &[String],
    addresses: &[String],
    ports: &[(String, u16)],
    variables: &Variables,
) -> Option<String> {
    let nodes = nodes.iter().zip(addresses);
    let all: Vec<_> = nodes.flat_map(|node| ports.iter().map(move |port| (node, port))).collect();
    let is_taken = |((_, address), (_, port)): &((&String, &String), &(String, u16))| {
        let target = Target { host: (*address).clone(), port: *port, http: None };
        probe::connect(&target, TIMEOUT).is_ok()
    };
    let ((node, _), (name, port)) = all.chunks(AT_A_TIME).find_map(|some| {
        thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|one| (one, scope.spawn(|| is_taken(one)))).collect();
            let mut answers = asked.into_iter();
            answers.find_map(|(one, answer)| answer.join().unwrap_or(false).then_some(*one))
        })
    })?;
    let user = user_of(node, *port, variables).map(|user| format!(" by {user}"));
    let user = user.unwrap_or_default();
    Some(format!("its port {port} ({name}) is in use on {node}{user}"))
}

/// The program that listens at a port of a node, where we may see it: one of our own.
fn user_of(node: &str, port: u16, variables: &Variables) -> Option<String> {
    let mut srun = Command::new("srun");
    srun.args(["--nodes=1", "--ntasks=1", "--overlap", "--quiet"]).args(COMMON);
    srun.arg(format!("--nodelist={node}")).arg(format!("--mpi={NO_MPI}"));
    srun.args(["ss", "-Hltnp"]).arg(format!("sport = :{port}")).stdin(Stdio::null());
    for_srun(&mut srun, variables);
    let output = subprocess::run(&mut srun, SEARCH_TIMEOUT, None).ok()?;
    listener(&output.stdout)
}

/// The first program of ss's output: `users:(("python3",pid=12,fd=3))`.
fn listener(output: &str) -> Option<String> {
    let (_, rest) = output.split_once("users:((\"")?;
    let (program, rest) = rest.split_once("\",pid=")?;
    let pid: u32 = rest.split(',').next()?.parse().ok()?;
    let program = crate::run::tail::printable(program);
    Some(format!("{program} (pid {pid})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_port_that_somebody_listens_at_is_named_with_its_node() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken_port = listener.local_addr().unwrap().port();
        let ports = [("side".to_owned(), 1), ("http".to_owned(), taken_port)];
        let (node, address) = (["n1".to_owned()], ["127.0.0.1".to_owned()]);
        let found = taken(&node, &address, &ports, &Variables::new()).unwrap();
        let expected = format!("its port {taken_port} (http) is in use on n1");
        assert!(found.starts_with(&expected), "{found}");
        drop(listener);
        assert_eq!(taken(&node, &address, &ports, &Variables::new()), None);
    }

    #[test]
    fn who_listens_is_read_from_what_ss_prints() {
        let line = "LISTEN 0 5 0.0.0.0:8000 0.0.0.0:* users:((\"python3\",pid=12,fd=3),(\"x\",pid=13,fd=3))\n";
        assert_eq!(listener(line).as_deref(), Some("python3 (pid 12)"));
        assert_eq!(listener("LISTEN 0 5 0.0.0.0:8000 0.0.0.0:*\n"), None);
    }
}
