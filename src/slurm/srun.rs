// SPDX-License-Identifier: Apache-2.0
//! One step as `srun` is asked for it: a typed request, its argument vector, and the host file that
//! pins its tasks.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::argument::{ArgumentError, Arguments, check_item, check_variable};
use super::hostlist::compress;

/// A step. What is left out is left to srun, its environment and its site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SrunRequest {
    /// Number of nodes.
    pub nodes: Option<u32>,
    /// Number of tasks in all.
    pub ntasks: Option<u32>,
    /// Number of tasks on each node.
    pub ntasks_per_node: Option<u32>,
    /// Nodes that the step must have, without order. Since srun takes the whole allocation for the
    /// step when only `--nodelist` is given, `--nodes` is added when `nodes` is left out.
    pub nodelist: Option<Vec<String>>,
    /// The host of each task, in rank order (`SLURM_HOSTFILE` with `--distribution=arbitrary`).
    /// Excludes `nodes` (srun refuses both from 23.11 on), `ntasks_per_node` and `nodelist`.
    pub task_hosts: Option<Vec<String>>,
    /// MPI plugin, `pmix` for example.
    pub mpi: Option<String>,
    /// Let the step share CPUs and GPUs with other steps.
    pub overlap: bool,
    /// Give the step only what it asks for.
    pub exact: bool,
    /// Whether the first task that fails ends the step.
    pub kill_on_bad_exit: Option<bool>,
    /// GPUs on each node.
    pub gpus_per_node: Option<u32>,
    /// Generic resources, as `gpu:h100:4`.
    pub gres: Option<String>,
    /// Seconds between the first task's end and the end of the others; 0 waits for ever.
    pub wait: Option<u32>,
    /// Put the rank before each line of output.
    pub label: bool,
    /// File for standard output, with srun's `%` patterns.
    pub output: Option<String>,
    /// File for standard error, with srun's `%` patterns.
    pub error: Option<String>,
    /// Which variables the tasks get.
    pub export: Option<Export>,
    /// Name of the step.
    pub job_name: Option<String>,
    /// The container that the tasks run in.
    pub container: Option<Container>,
    /// Arguments that go last, as they are.
    pub extra: Vec<String>,
}

/// The container options of the pyxis plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Container {
    /// Image, as `registry#path:tag` or a squashfs file.
    pub image: Option<String>,
    /// Name that later steps find the container's file system by.
    pub name: Option<String>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Working directory in the container.
    pub workdir: Option<String>,
    /// Variables of the job that win over the image's.
    pub env: Vec<String>,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Path on the node.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Mount flags, as `ro`.
    #[serde(default)]
    pub flags: Option<String>,
}

/// The value of `--export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Export {
    /// Every variable.
    All,
    /// Only `SLURM_*`; the user's own environment is then loaded from the system.
    None,
    /// Only `SLURM_*`.
    Nil,
    /// Only `SLURM_*` and these, each `NAME` or `NAME=VALUE` without a comma.
    Only(Vec<String>),
    /// Every variable, and these besides.
    AllAnd(Vec<String>),
}

impl fmt::Display for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::None => f.write_str("NONE"),
            Self::Nil => f.write_str("NIL"),
            Self::Only(variables) => f.write_str(&variables.join(",")),
            Self::AllAnd(variables) => write!(f, "ALL,{}", variables.join(",")),
        }
    }
}

impl FromStr for Export {
    type Err = ArgumentError;

    fn from_str(text: &str) -> Result<Self, ArgumentError> {
        let variables = |list: &str| list.split(',').map(str::to_owned).collect();
        let export = match text {
            "ALL" => Self::All,
            "NONE" => Self::None,
            "NIL" => Self::Nil,
            _ => match text.strip_prefix("ALL,") {
                Some(list) => Self::AllAnd(variables(list)),
                None => Self::Only(variables(text)),
            },
        };
        export.check()?;
        Ok(export)
    }
}

impl From<Export> for String {
    fn from(export: Export) -> Self {
        export.to_string()
    }
}

impl TryFrom<String> for Export {
    type Error = ArgumentError;

    fn try_from(text: String) -> Result<Self, ArgumentError> {
        text.parse()
    }
}

impl Export {
    fn check(&self) -> Result<(), ArgumentError> {
        let (Self::Only(variables) | Self::AllAnd(variables)) = self else { return Ok(()) };
        if variables.is_empty() {
            return Err(ArgumentError::Empty { option: "export" });
        }
        for variable in variables {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            check_variable("export", name)?;
            if !value.is_empty() {
                check_item("export", value, &[',', '\'', '"'])?;
            }
        }
        Ok(())
    }
}

impl SrunRequest {
    /// The arguments that follow `srun`, up to the command.
    ///
    /// With `task_hosts` the step also needs [`SrunRequest::host_file`] and
    /// [`SrunRequest::environment`].
    ///
    /// # Errors
    /// [`ArgumentError`] when a value cannot stand in an argument or two fields contradict.
    pub fn argv(&self) -> Result<Vec<String>, ArgumentError> {
        let (nodes, ntasks) = self.sizes()?;
        let mut arguments = Arguments::default();
        arguments.count("nodes", nodes)?;
        arguments.count("ntasks", ntasks)?;
        arguments.count("ntasks-per-node", self.ntasks_per_node)?;
        if let Some(nodelist) = &self.nodelist {
            arguments.text("nodelist", Some(&compress(&distinct(nodelist))))?;
        }
        if self.task_hosts.is_some() {
            arguments.text("distribution", Some("arbitrary"))?;
        }
        arguments.text("mpi", self.mpi.as_deref())?;
        arguments.flag("overlap", self.overlap);
        arguments.flag("exact", self.exact);
        arguments.number("kill-on-bad-exit", self.kill_on_bad_exit.map(u32::from));
        arguments.number("gpus-per-node", self.gpus_per_node);
        arguments.text("gres", self.gres.as_deref())?;
        arguments.number("wait", self.wait);
        arguments.flag("label", self.label);
        arguments.text("output", self.output.as_deref())?;
        arguments.text("error", self.error.as_deref())?;
        if let Some(export) = &self.export {
            export.check()?;
            arguments.text("export", Some(&export.to_string()))?;
        }
        arguments.text("job-name", self.job_name.as_deref())?;
        if let Some(container) = &self.container {
            container.write(&mut arguments)?;
        }
        arguments.finish(&self.extra)
    }

    /// The host file's text, one host per task in rank order; nothing without `task_hosts`.
    ///
    /// # Errors
    /// [`ArgumentError`] when a name cannot stand in a host file.
    pub fn host_file(&self) -> Result<Option<String>, ArgumentError> {
        let Some(hosts) = &self.task_hosts else { return Ok(None) };
        check_hosts("task-hosts", hosts)?;
        Ok(Some(hosts.iter().map(|host| format!("{host}\n")).collect()))
    }

    /// What srun's environment must hold when the host file lies at `host_file`.
    #[must_use]
    pub fn environment(&self, host_file: &str) -> Vec<(&'static str, String)> {
        match self.task_hosts {
            Some(_) => vec![("SLURM_HOSTFILE", host_file.to_owned())],
            None => Vec::new(),
        }
    }

    /// Nodes and tasks to ask for, from the fields that say something about them.
    fn sizes(&self) -> Result<(Option<u32>, Option<u32>), ArgumentError> {
        if let Some(hosts) = &self.task_hosts {
            check_hosts("task-hosts", hosts)?;
            if self.nodes.is_some() || self.nodelist.is_some() || self.ntasks_per_node.is_some() {
                return Err(contradiction(
                    "a host for each task already says where the step runs: leave nodes, \
                     ntasks_per_node and nodelist out",
                ));
            }
            let lines = length(hosts)?;
            if self.ntasks.is_some_and(|ntasks| ntasks != lines) {
                return Err(contradiction(
                    "ntasks is not the number of hosts given for the tasks: give one host per \
                     task, or leave ntasks out",
                ));
            }
            return Ok((None, Some(lines)));
        }
        let Some(nodelist) = &self.nodelist else { return Ok((self.nodes, self.ntasks)) };
        check_hosts("nodelist", nodelist)?;
        let listed = length(&distinct(nodelist))?;
        match self.nodes {
            Some(nodes) if nodes < listed => Err(ArgumentError::Contradiction(format!(
                "the step asks for {nodes} nodes, but names {listed}: raise nodes or shorten \
                 nodelist"
            ))),
            Some(nodes) => Ok((Some(nodes), self.ntasks)),
            None => Ok((Some(listed), self.ntasks)),
        }
    }
}

impl Container {
    fn write(&self, arguments: &mut Arguments) -> Result<(), ArgumentError> {
        arguments.text("container-image", self.image.as_deref())?;
        arguments.text("container-name", self.name.as_deref())?;
        let mut mounts = Vec::new();
        for mount in &self.mounts {
            mounts.push(mount.text()?);
        }
        if !mounts.is_empty() {
            arguments.text("container-mounts", Some(&mounts.join(",")))?;
        }
        arguments.text("container-workdir", self.workdir.as_deref())?;
        for name in &self.env {
            check_variable("container-env", name)?;
        }
        if !self.env.is_empty() {
            arguments.text("container-env", Some(&self.env.join(",")))?;
        }
        Ok(())
    }
}

impl Mount {
    fn text(&self) -> Result<String, ArgumentError> {
        for path in [&self.source, &self.target] {
            check_item("container-mounts", path, &[',', ':'])?;
        }
        let mut text = format!("{}:{}", self.source, self.target);
        if let Some(flags) = &self.flags {
            check_item("container-mounts", flags, &[',', ':'])?;
            text.push(':');
            text.push_str(flags);
        }
        Ok(text)
    }
}

fn check_hosts(option: &'static str, hosts: &[String]) -> Result<(), ArgumentError> {
    if hosts.is_empty() {
        return Err(ArgumentError::Empty { option });
    }
    // A `/` makes srun read the value as the name of a file.
    hosts.iter().try_for_each(|host| check_item(option, host, &[',', ' ', '[', ']', '/', '#', '*']))
}

fn distinct(hosts: &[String]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    hosts.iter().map(String::as_str).filter(|host| seen.insert(*host)).collect()
}

fn length<T>(hosts: &[T]) -> Result<u32, ArgumentError> {
    u32::try_from(hosts.len()).map_err(|_| contradiction("more hosts than Slurm can count"))
}

fn contradiction(text: &str) -> ArgumentError {
    ArgumentError::Contradiction(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(items: &[&str]) -> Vec<String> {
        items.iter().map(|item| (*item).to_owned()).collect()
    }

    fn argv(request: &SrunRequest) -> Vec<String> {
        request.argv().unwrap()
    }

    fn error_of(request: &SrunRequest) -> String {
        request.argv().unwrap_err().to_string()
    }

    #[test]
    fn an_empty_request_asks_for_nothing() {
        assert_eq!(argv(&SrunRequest::default()), Vec::<String>::new());
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
            exact: true,
            kill_on_bad_exit: Some(true),
            gpus_per_node: Some(4),
            gres: Some("gpu:4".into()),
            wait: Some(0),
            label: true,
            output: Some("/w/out %t.log".into()),
            error: Some("/w/err".into()),
            export: Some(Export::AllAnd(strings(&["A=1", "B"]))),
            job_name: Some("GEN_0".into()),
            container: Some(Container {
                image: Some("img#x:1".into()),
                name: Some("c".into()),
                mounts: vec![
                    Mount { source: "/m".into(), target: "/data".into(), flags: Some("ro".into()) },
                    Mount { source: "/w".into(), target: "/w".into(), flags: None },
                ],
                workdir: Some("/w".into()),
                env: strings(&["A", "B"]),
            }),
            extra: strings(&["--cpu-bind=none"]),
            ..SrunRequest::default()
        };
        assert_eq!(
            argv(&request),
            [
                "--nodes=2",
                "--ntasks=8",
                "--ntasks-per-node=4",
                "--nodelist=node[1-2]",
                "--mpi=pmix",
                "--overlap",
                "--exact",
                "--kill-on-bad-exit=1",
                "--gpus-per-node=4",
                "--gres=gpu:4",
                "--wait=0",
                "--label",
                "--output=/w/out %t.log",
                "--error=/w/err",
                "--export=ALL,A=1,B",
                "--job-name=GEN_0",
                "--container-image=img#x:1",
                "--container-name=c",
                "--container-mounts=/m:/data:ro,/w:/w",
                "--container-workdir=/w",
                "--container-env=A,B",
                "--cpu-bind=none",
            ]
        );
        let json = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<SrunRequest>(&json).unwrap(), request);
    }

    #[test]
    fn a_node_list_alone_also_says_how_many_nodes() {
        let request = SrunRequest {
            nodelist: Some(strings(&["node7", "node8", "node7"])),
            ..SrunRequest::default()
        };
        assert_eq!(argv(&request), ["--nodes=2", "--nodelist=node[7-8]"]);
    }

    #[test]
    fn fewer_nodes_than_named_are_refused() {
        let request = SrunRequest {
            nodes: Some(1),
            nodelist: Some(strings(&["a", "b"])),
            ..SrunRequest::default()
        };
        assert!(error_of(&request).contains("asks for 1 nodes, but names 2"));
    }

    #[test]
    fn a_step_spanning_two_nodes_lists_each_host_per_task() {
        let request = SrunRequest {
            task_hosts: Some(strings(&["node3", "node3", "node1"])),
            ..SrunRequest::default()
        };
        assert_eq!(argv(&request), ["--ntasks=3", "--distribution=arbitrary"]);
        assert_eq!(request.host_file(), Ok(Some("node3\nnode3\nnode1\n".into())));
        assert_eq!(request.environment("/w/hosts"), [("SLURM_HOSTFILE", "/w/hosts".into())]);
        assert_eq!(SrunRequest::default().environment("/w/hosts"), []);
    }

    #[test]
    fn pinned_tasks_leave_no_room_for_other_sizes() {
        let pinned =
            SrunRequest { task_hosts: Some(strings(&["a", "b"])), ..SrunRequest::default() };
        for request in [
            SrunRequest { nodes: Some(2), ..pinned.clone() },
            SrunRequest { ntasks_per_node: Some(1), ..pinned.clone() },
            SrunRequest { nodelist: Some(strings(&["a"])), ..pinned.clone() },
            SrunRequest { ntasks: Some(3), ..pinned.clone() },
            SrunRequest { task_hosts: Some(Vec::new()), ..pinned.clone() },
        ] {
            assert!(request.argv().is_err(), "{request:?}");
        }
        assert!(SrunRequest { ntasks: Some(2), ..pinned }.argv().is_ok());
    }

    #[test]
    fn a_value_that_would_become_two_is_refused() {
        let base = SrunRequest::default;
        for request in [
            SrunRequest { job_name: Some("a\nb".into()), ..base() },
            SrunRequest { job_name: Some(String::new()), ..base() },
            SrunRequest { extra: strings(&["a\0b"]), ..base() },
            SrunRequest { nodes: Some(0), ..base() },
            SrunRequest { nodelist: Some(strings(&["a,b"])), ..base() },
            SrunRequest { nodelist: Some(strings(&["/etc/passwd"])), ..base() },
            SrunRequest { task_hosts: Some(strings(&["a\nb"])), ..base() },
            SrunRequest { export: Some(Export::Only(strings(&["A=1,LD_PRELOAD=x"]))), ..base() },
            SrunRequest { export: Some(Export::Only(Vec::new())), ..base() },
            SrunRequest {
                container: Some(Container { env: strings(&["A,B"]), ..Container::default() }),
                ..base()
            },
            SrunRequest {
                container: Some(Container {
                    mounts: vec![Mount {
                        source: "/a:/etc".into(),
                        target: "/b".into(),
                        flags: None,
                    }],
                    ..Container::default()
                }),
                ..base()
            },
        ] {
            assert!(request.argv().is_err(), "{request:?}");
        }
    }

    #[test]
    fn an_export_reads_what_it_prints() {
        for text in ["ALL", "NONE", "NIL", "A,B=2", "ALL,A"] {
            assert_eq!(text.parse::<Export>().unwrap().to_string(), text);
        }
        assert!("A,,B".parse::<Export>().is_err());
        assert!("1A".parse::<Export>().is_err());
    }
}
