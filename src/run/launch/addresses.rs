// SPDX-License-Identifier: Apache-2.0
//! The addresses at which the nodes of a job reach each other: their names, or those of an interface,
//! for which each node is asked.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::command::{self, CommandError};
use super::environment::{self, for_srun};
use crate::plan::Plan;
use crate::run::subprocess::{self, SubprocessError};
use crate::run::tail::printable;

/// How long all nodes may take to answer: a step has to start on each.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Why the nodes' addresses are not known.
#[derive(Debug, thiserror::Error)]
pub enum NoAddress {
    /// The nodes cannot be asked.
    #[error("the nodes cannot be asked for their addresses: {0}")]
    Command(#[from] CommandError),
    /// They do not answer.
    #[error("the nodes cannot be asked for their addresses: {0}")]
    Srun(#[from] SubprocessError),
    /// One does not answer.
    #[error("{node} does not say its addresses: `ip -4 -o address show` there: {message}")]
    Silent {
        /// The node.
        node: String,
        /// What srun says last.
        message: String,
    },
    /// One does not have the interface, or no address there.
    #[error("{node} has no IPv4 address on {interface}; it has {has}: see the setting `interface`")]
    Missing {
        /// The node.
        node: String,
        /// The interface.
        interface: String,
        /// The addresses that it has, each behind its interface.
        has: String,
    },
}

/// The addresses of a job's nodes, those of the plan's interface where it has one.
///
/// # Errors
/// [`NoAddress`].
pub fn of_nodes(plan: &Plan, nodes: &[String]) -> Result<Vec<String>, NoAddress> {
    let Some(interface) = plan.interface() else { return Ok(nodes.to_vec()) };
    let variables = environment::of_process();
    let hosts = &nodes[..(plan.layout.total_nodes as usize).min(nodes.len())];
    let command = command::of_addresses(plan, hosts, &variables)?;
    let mut srun = Command::new("srun");
    srun.args(&command.arguments).stdin(Stdio::null());
    for_srun(&mut srun, &variables);
    let output = subprocess::run(&mut srun, TIMEOUT, None)?;
    let message = || {
        let lines = output.stderr.lines().map(str::trim);
        let mut errors = lines.filter(|line| line.contains("error:") || !line.starts_with("srun:"));
        printable(errors.next_back().unwrap_or("no answer"))
    };
    hosts.iter().map(|node| address(node, interface, &output.stdout, message)).collect()
}

/// The address of a node among lines such as `gb1 2: eth0    inet 10.0.0.1/24 brd …`.
fn address(
    node: &str,
    interface: &str,
    lines: &str,
    message: impl Fn() -> String,
) -> Result<String, NoAddress> {
    let address = |line| {
        let words: Vec<&str> = str::split_whitespace(line).collect();
        let [of, _, name, "inet", address, ..] = words[..] else { return None };
        Some((name, address.split('/').next()?)).filter(|_| of == node)
    };
    let all: Vec<_> = lines.lines().filter_map(address).collect();
    match all.iter().find(|(name, _)| *name == interface) {
        Some((_, address)) => Ok((*address).to_owned()),
        None if all.is_empty() => Err(NoAddress::Silent { node: node.into(), message: message() }),
        None => Err(NoAddress::Missing {
            node: node.into(),
            interface: interface.into(),
            has: all
                .iter()
                .map(|all| format!("{} {}", all.0, all.1))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_s_address_is_the_first_of_its_interface() {
        const LINES: &str = "gb1 1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever\n\
            gb2 3: ib0    inet 10.1.0.2/16 brd 10.1.255.255 scope global ib0\\  valid_lft forever\n\
            gb1 3: ib0    inet 10.1.0.1/16 brd 10.1.255.255 scope global ib0\\  valid_lft forever\n\
            gb1 3: ib0    inet 10.2.0.1/16 scope global secondary ib0\n\
            gb3 2: ib0.80    inet 10.1.0.3/16 scope global ib0.80\n";
        let found = |node| address(node, "ib0", LINES, || "srun: error: x".into());
        assert_eq!(found("gb1").unwrap(), "10.1.0.1");
        assert_eq!(found("gb2").unwrap(), "10.1.0.2");
        let message = found("gb3").unwrap_err().to_string();
        assert!(message.starts_with("gb3 has no IPv4 address on ib0; it has ib0.80 10.1.0.3"));
        let message = found("gb4").unwrap_err().to_string();
        assert!(message.starts_with("gb4 does not say its addresses") && message.ends_with("x"));
    }
}
