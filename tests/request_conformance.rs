// SPDX-License-Identifier: Apache-2.0
//! Requests against the installed `sbatch` and `srun`: with `-vvv` both print what they understood
//! before they look for a controller, and none is needed.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use disagg::slurm::sbatch::SbatchRequest;
use disagg::slurm::srun::{Export, SrunRequest};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// A directory with a configuration that clients accept, removed when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("request-{}-{test}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let text = "ClusterName=c\nSlurmctldHost=localhost\nGresTypes=gpu\nNodeName=x Gres=gpu:8\n\
                    PartitionName=p Nodes=x\n";
        fs::write(dir.join("slurm.conf"), text).unwrap();
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Standard error of a Slurm client up to the end of the options it understood; nothing, with a
/// word on it, when it is not installed.
fn understood(dir: &Dir, program: &str, arguments: &[String]) -> Option<Vec<String>> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["SLURM", "SBATCH", "SRUN"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
    let spawned = command
        .env("SLURM_CONF", dir.0.join("slurm.conf"))
        .arg("-vvv")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut client) = spawned else {
        eprintln!("no {program} is installed: there is nothing to compare with");
        return None;
    };
    let mut lines = Vec::new();
    for line in BufReader::new(client.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let ended = line.contains("end of defined options");
        lines.push(line);
        if ended {
            break;
        }
    }
    let _ = client.kill();
    client.wait().unwrap();
    let last = lines.last().is_some_and(|line| line.contains("end of defined options"));
    assert!(last, "{program} {arguments:?} did not take its options: {lines:#?}");
    Some(lines)
}

/// What `sbatch` takes the `#SBATCH` lines of a request to be.
fn arguments_in_script(test: &str, request: &SbatchRequest) -> Option<Vec<String>> {
    let dir = Dir::new(test);
    let script = dir.0.join("job.sh");
    fs::write(&script, format!("#!/bin/bash\n{}true\n", request.directives().unwrap())).unwrap();
    let lines = understood(&dir, "sbatch", &[script.to_string_lossy().into_owned()])?;
    let found = lines.iter().filter_map(|line| line.split_once("Found in script, argument \""));
    Some(found.map(|(_, argument)| argument.strip_suffix('"').unwrap().to_owned()).collect())
}

#[test]
fn sbatch_finds_every_argument_in_the_script_as_it_was_given() {
    let request = SbatchRequest {
        output: Some("/w/with blank/slurm_%j.log".into()),
        nodes: Some(3),
        ntasks: Some(12),
        ntasks_per_node: Some(4),
        gpus_per_node: Some(4),
        job_name: Some("#1 \"quoted\" 'single' back\\slash $HOME `x` é".into()),
        time: Some("1-12:30".parse().unwrap()),
        signal: Some("B:USR1@300".parse().unwrap()),
        extra: vec!["--comment=ends with \\".into(), "--comment=  two  blanks ".into()],
        ..SbatchRequest::default()
    };
    let Some(found) = arguments_in_script("written", &request) else { return };
    assert_eq!(found, request.argv().unwrap());
}

#[test]
fn sbatch_finds_generated_values_as_they_were_given() {
    let mut runner = TestRunner::default();
    let value = prop_oneof!["[ \"'\\\\#:=a-c$]{1,12}", "[^\\p{Cc}]{1,12}"];
    let extra: Vec<String> = (0..200)
        .map(|_| format!("--comment={}", value.new_tree(&mut runner).unwrap().current()))
        .collect();
    let request = SbatchRequest { extra, ..SbatchRequest::default() };
    let Some(found) = arguments_in_script("generated", &request) else { return };
    assert_eq!(found, request.argv().unwrap());
}

#[test]
fn srun_understands_every_option() {
    let request = SrunRequest {
        nodes: Some(2),
        ntasks: Some(4),
        ntasks_per_node: Some(2),
        mpi: Some("none".into()),
        overlap: true,
        exact: true,
        kill_on_bad_exit: Some(true),
        gpus_per_node: Some(2),
        gres: Some("gpu:2".into()),
        wait: Some(5),
        label: true,
        output: Some("/w/out %t.log".into()),
        error: Some("/w/err".into()),
        export: Some(Export::AllAnd(vec!["A=b c".into()])),
        job_name: Some("GEN 0".into()),
        ..SrunRequest::default()
    };
    let mut arguments = request.argv().unwrap();
    arguments.push("true".into());
    let Some(lines) = understood(&Dir::new("srun"), "srun", &arguments) else { return };
    let options: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("srun: ")?.split_once(": "))
        .map(|(name, value)| (name.trim(), value))
        .collect();
    for (name, value) in [
        ("nodes", "2"),
        ("ntasks", "4"),
        ("ntasks-per-node", "2"),
        ("mpi", "none"),
        ("overlap", "set"),
        ("exact", "set"),
        ("kill-on-bad-exit", "1"),
        ("gpus-per-node", "2"),
        ("wait", "5"),
        ("label", "set"),
        ("output", "/w/out %t.log"),
        ("error", "/w/err"),
        ("export", "ALL,A=b c"),
        ("job-name", "GEN 0"),
    ] {
        assert!(options.contains(&(name, value)), "{name}: {value} is not in {options:?}");
    }
}

#[test]
fn srun_understands_where_tasks_are_pinned() {
    let request = SrunRequest {
        nodelist: Some(vec!["node7".into(), "node8".into()]),
        ..SrunRequest::default()
    };
    let mut arguments = request.argv().unwrap();
    arguments.push("true".into());
    let Some(lines) = understood(&Dir::new("nodelist"), "srun", &arguments) else { return };
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with("srun: nodelist") && line.ends_with(": node[7-8]")),
        "{lines:?}"
    );

    let pinned = SrunRequest {
        task_hosts: Some(["node8", "node8", "node7"].map(str::to_owned).to_vec()),
        ..SrunRequest::default()
    };
    let dir = Dir::new("pinned");
    let mut arguments = pinned.argv().unwrap();
    arguments.push("true".into());
    let lines = understood(&dir, "srun", &arguments).unwrap();
    let has = |name: &str, value: &str| {
        lines.iter().any(|line| line.starts_with(&format!("srun: {name}")) && line.ends_with(value))
    };
    assert!(has("distribution", ": arbitrary") && has("ntasks", ": 3"), "{lines:?}");
}
