// SPDX-License-Identifier: Apache-2.0
//! Requests against the installed `sbatch` and `srun`: with `-vvv` both print what they understood
//! before they look for a controller, and none is needed.

#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use disagg::slurm::sbatch::SbatchRequest;
use disagg::slurm::srun::SrunRequest;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

/// A directory with a configuration that clients accept.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let text = "ClusterName=c\nSlurmctldHost=localhost\nGresTypes=gpu\nNodeName=x Gres=gpu:8\n\
                PartitionName=p Nodes=x\n";
    fs::write(directory.path().join("slurm.conf"), text).unwrap();
    directory
}

/// Standard error of a Slurm client up to the end of the options it understood; nothing, with a
/// word on it, when it is not installed.
fn understood(dir: &TempDir, program: &str, arguments: &[String]) -> Option<Vec<String>> {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["SLURM", "SBATCH", "SRUN"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
    let spawned = command
        .env("SLURM_CONF", dir.path().join("slurm.conf"))
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
fn arguments_in_script(request: &SbatchRequest) -> Option<Vec<String>> {
    let dir = directory();
    let script = dir.path().join("job.sh");
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
        texts: vec![("account", "  two  blanks ends with \\".into())],
        job_name: Some("#1 \"quoted\" 'single' back\\slash $HOME `x` é".into()),
        time: Some("1-12:30".parse().unwrap()),
        ..SbatchRequest::default()
    };
    let Some(found) = arguments_in_script(&request) else { return };
    assert_eq!(found, request.argv().unwrap());
}

#[test]
fn sbatch_finds_generated_values_as_they_were_given() {
    let mut runner = TestRunner::default();
    let value = prop_oneof!["[ \"'\\\\#:=a-c$]{1,12}", "[^\\p{Cc}]{1,12}"];
    let mut generate = || Some(value.new_tree(&mut runner).unwrap().current());
    for _ in 0..50 {
        let (output, job_name) = (generate(), generate());
        let texts = ["partition", "account"];
        let texts = texts.map(|name| (name, generate().unwrap_or_default())).into();
        let request = SbatchRequest { output, texts, job_name, ..SbatchRequest::default() };
        let Some(found) = arguments_in_script(&request) else { return };
        assert_eq!(found, request.argv().unwrap());
    }
}

#[test]
fn srun_understands_every_option() {
    let request = SrunRequest {
        nodes: Some(2),
        ntasks: Some(4),
        ntasks_per_node: Some(2),
        nodelist: Some(vec!["node7".into(), "node8".into()]),
        mpi: Some("none".into()),
        overlap: true,
        kill_on_bad_exit: Some(true),
        output: Some("/w/out %t.log".into()),
        job_name: Some("GEN 0".into()),
        extra: vec!["--label".into()],
    };
    let mut arguments = request.argv().unwrap();
    arguments.push("true".into());
    let Some(lines) = understood(&directory(), "srun", &arguments) else { return };
    let options: Vec<(&str, &str)> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("srun: ")?.split_once(": "))
        .map(|(name, value)| (name.trim(), value))
        .collect();
    for (name, value) in [
        ("nodes", "2"),
        ("ntasks", "4"),
        ("ntasks-per-node", "2"),
        ("nodelist", "node[7-8]"),
        ("mpi", "none"),
        ("overlap", "set"),
        ("kill-on-bad-exit", "1"),
        ("output", "/w/out %t.log"),
        ("job-name", "GEN 0"),
        ("label", "set"),
    ] {
        assert!(options.contains(&(name, value)), "{name}: {value} is not in {options:?}");
    }
}
