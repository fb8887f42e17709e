// SPDX-License-Identifier: Apache-2.0
//! One step as `srun` gets it: a typed request and its arguments.

use super::argument::{ArgumentError, Arguments};
use super::hostlist::compress;

/// A step. srun, its environment and its site decide what is omitted here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SrunRequest {
    /// Number of nodes.
    pub nodes: Option<u32>,
    /// Number of tasks in all.
    pub ntasks: Option<u32>,
    /// Number of tasks on each node.
    pub ntasks_per_node: Option<u32>,
    /// Nodes that the step must have, in any order. Without `nodes`, srun takes the whole
    /// allocation.
    pub nodelist: Option<Vec<String>>,
    /// MPI plugin, `pmix` for example.
    pub mpi: Option<String>,
    /// Let the step share CPUs and GPUs with other steps.
    pub overlap: bool,
    /// Whether the first task that fails ends the step.
    pub kill_on_bad_exit: Option<bool>,
    /// File for standard output and standard error, with srun's `%` patterns.
    pub output: Option<String>,
    /// Name of the step.
    pub job_name: Option<String>,
    /// Further arguments; srun reads them last, so they win.
    pub extra: Vec<String>,
}

impl SrunRequest {
    /// The arguments that follow `srun`, up to the command.
    ///
    /// # Errors
    /// [`ArgumentError`]: an argument cannot hold a value, or `nodelist` does not fit `nodes`.
    pub fn argv(&self) -> Result<Vec<String>, ArgumentError> {
        let mut arguments = Arguments::default();
        arguments.count("nodes", self.nodes)?;
        arguments.count("ntasks", self.ntasks)?;
        arguments.count("ntasks-per-node", self.ntasks_per_node)?;
        if let Some(hosts) = &self.nodelist {
            self.check_nodelist(hosts)?;
            arguments.text("nodelist", Some(&compress(hosts)))?;
        }
        arguments.text("mpi", self.mpi.as_deref())?;
        arguments.flag("overlap", self.overlap);
        arguments.number("kill-on-bad-exit", self.kill_on_bad_exit.map(u32::from));
        arguments.text("output", self.output.as_deref())?;
        arguments.text("job-name", self.job_name.as_deref())?;
        arguments.extra(&self.extra)?;
        Ok(arguments.0)
    }

    fn check_nodelist(&self, hosts: &[String]) -> Result<(), ArgumentError> {
        // A `/` makes srun read the value as the name of a file.
        let separators = [',', '[', ']', '/', '#', '*'];
        let is_bad = |c: char| separators.contains(&c) || c.is_whitespace() || c.is_control();
        if let Some(host) = hosts.iter().find(|host| host.is_empty() || host.contains(is_bad)) {
            return Err(ArgumentError::new("nodelist", format!("invalid node name {host:?}")));
        }
        // srun would only warn, and drop nodes.
        if let Some(nodes) = self.nodes.filter(|nodes| (*nodes as usize) < hosts.len()) {
            let problem = format!("{} nodes listed for a step of {nodes}", hosts.len());
            return Err(ArgumentError::new("nodelist", problem));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    #[test]
    fn an_empty_request_asks_for_nothing() {
        assert_eq!(SrunRequest::default().argv(), Ok(Vec::new()));
    }

    #[test]
    fn a_full_request_gives_one_argument_per_option() {
        let request = SrunRequest {
            nodes: Some(2),
            ntasks: Some(8),
            ntasks_per_node: Some(4),
            nodelist: Some(strings(&["node1", "node2"])),
            mpi: Some("pmix".into()),
            overlap: true,
            kill_on_bad_exit: Some(true),
            output: Some("/w/out %t.log".into()),
            job_name: Some("GEN_0".into()),
            extra: strings(&["--cpu-bind=none"]),
        };
        assert_eq!(
            request.argv().unwrap(),
            [
                "--nodes=2",
                "--ntasks=8",
                "--ntasks-per-node=4",
                "--nodelist=node[1-2]",
                "--mpi=pmix",
                "--overlap",
                "--kill-on-bad-exit=1",
                "--output=/w/out %t.log",
                "--job-name=GEN_0",
                "--cpu-bind=none",
            ]
        );
    }

    #[test]
    fn fewer_nodes_than_named_are_refused() {
        let nodelist = Some(strings(&["a", "b"]));
        let request = SrunRequest { nodes: Some(1), nodelist, ..SrunRequest::default() };
        let error = request.argv().unwrap_err().to_string();
        assert_eq!(error, "--nodelist: 2 nodes listed for a step of 1");
    }

    #[test]
    fn a_value_that_would_become_two_is_refused() {
        let base = SrunRequest::default;
        for request in [
            SrunRequest { job_name: Some("a\nb".into()), ..base() },
            SrunRequest { job_name: Some(String::new()), ..base() },
            SrunRequest { extra: strings(&["a\0b"]), ..base() },
            SrunRequest { nodes: Some(0), ..base() },
            SrunRequest { nodelist: Some(Vec::new()), ..base() },
            SrunRequest { nodelist: Some(strings(&["a,b"])), ..base() },
            SrunRequest { nodelist: Some(strings(&["a\nb"])), ..base() },
            SrunRequest { nodelist: Some(strings(&["/etc/passwd"])), ..base() },
        ] {
            assert!(request.argv().is_err(), "{request:?}");
        }
    }
}
