// SPDX-License-Identifier: Apache-2.0
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::*;

/// What the shell makes of these variables: both lists, or nothing where it fails.
fn in_shell(variables: &[(&str, &str)], own: Option<&Range<u32>>) -> Option<(String, String)> {
    let own = own.cloned().unwrap_or(0..0);
    let mut sh = Command::new("sh");
    sh.env_clear().envs(variables.iter().copied());
    sh.envs([("SLURM_PROCID", "3"), ("SLURM_NODEID", "0"), ("SLURMD_NODENAME", "n2")]);
    sh.env(START, START_SH).args(&START_COMMAND[1..]);
    sh.args(["4", &own.start.to_string(), &own.len().to_string()]);
    sh.args(["sh", "-c", "printf '%s\n' \"$CUDA_VISIBLE_DEVICES\" \"$NVIDIA_VISIBLE_DEVICES\""]);
    let output = sh.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines().skip(1).map(str::to_owned);
    output.status.success().then(|| (lines.next().unwrap(), lines.next().unwrap()))
}

#[test]
fn gpus_are_those_of_slurm_s_lists_in_rust_and_in_shell() {
    const CUDA: &str = "CUDA_VISIBLE_DEVICES";
    const NVIDIA: &str = "NVIDIA_VISIBLE_DEVICES";
    for (variables, own, expected) in [
        (&[(CUDA, "4,5,6,7")] as &[_], Some(2..4), Some(("6,7", "6,7"))),
        (&[(CUDA, "0,1,2,3")], Some(0..2), Some(("0,1", "0,1"))),
        (&[(CUDA, "0,1,2,3,4,5,6,7")], Some(3..4), Some(("3", "3"))),
        (&[(CUDA, "6,7")], Some(2..4), Some(("6,7", "6,7"))),
        (&[(CUDA, "GPU-a,GPU-b,GPU-c")], Some(1..2), Some(("GPU-b", "GPU-b"))),
        (&[], Some(2..4), Some(("2,3", "2,3"))),
        (&[(CUDA, "")], Some(0..1), Some(("0", "0"))),
        (&[(CUDA, "NoDevFiles")], Some(1..3), Some(("1,2", "1,2"))),
        (&[(CUDA, "4")], Some(2..4), None),
        (&[(CUDA, "0,1,2,3"), ("SLURM_STEP_GPUS", "4,5,6,7")], Some(2..4), Some(("2,3", "6,7"))),
        (&[(CUDA, "0,1"), (NVIDIA, "7"), ("SLURM_JOB_GPUS", "4,5")], Some(0..1), Some(("0", "4"))),
        (&[(CUDA, "0,1"), ("SLURM_STEP_GPUS", "4,5")], None, Some(("0,1", "4,5"))),
        (&[(CUDA, "0,1"), (NVIDIA, "all")], None, Some(("0,1", "0,1"))),
        (&[(CUDA, "0,1"), (NVIDIA, "1")], None, Some(("0,1", "1"))),
        (&[(CUDA, "NoDevFiles"), (NVIDIA, "all")], None, Some(("NoDevFiles", "all"))),
    ] {
        let own = own.as_ref();
        let lookup = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        let set = gpu_variables(lookup, own).ok().map(|set| {
            let value = |name: &str| {
                let of_set = set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
                of_set.or_else(|| lookup(name)).unwrap_or_default().to_owned()
            };
            (value(CUDA), value(NVIDIA))
        });
        let expected = expected.map(|(cuda, nvidia)| (cuda.to_owned(), nvidia.to_owned()));
        assert_eq!(set, expected, "{variables:?} {own:?}");
        assert_eq!(in_shell(variables, own), expected, "{variables:?} {own:?}");
    }
}

#[test]
fn a_rank_on_another_node_of_its_step_does_not_start() {
    let mut sh = Command::new("sh");
    sh.envs([("SLURM_PROCID", "5"), ("SLURM_NODEID", "0"), ("SLURMD_NODENAME", "n1")]);
    sh.env(START, START_SH).args(&START_COMMAND[1..]);
    let output = sh.args(["4", "0", "0", "echo", "x"]).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("rank 5 is on n1, node 0 of its step"), "{message}");
}

#[test]
fn a_port_at_which_something_listens_on_the_node_alone_is_said() {
    use std::net::{TcpListener, TcpStream};
    let start = |port: u16| {
        let mut sh = Command::new("sh");
        sh.envs([("SLURM_PROCID", "0"), ("SLURM_NODEID", "0"), ("SLURMD_NODENAME", "n1")]);
        sh.env(START, START_SH).env(PORTS, format!("side=1 http={port}"));
        let output = sh.args(&START_COMMAND[1..]).args(["1", "0", "0", "env"]).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (text.contains(&format!("{CANNOT_START}its port {port} (http) is in use on n1")), text)
    };
    for address in ["0.0.0.0:0", "127.0.0.1:0", "127.0.0.7:0", "[::1]:0", "[::]:0"] {
        let Ok(listener) = TcpListener::bind(address) else { continue };
        let address = listener.local_addr().unwrap();
        assert!(start(address.port()).0, "{address}");
        let client = TcpStream::connect(address).unwrap();
        let server = listener.accept().unwrap().0;
        drop((listener, server, client));
        // What waits for late packets does not keep a server from its port.
        let (is_taken, text) = start(address.port());
        assert!(!is_taken && text.contains("SLURMD_NODENAME=n1"), "{text}");
        assert!(!text.contains(PORTS), "{text}");
    }
}

#[test]
fn each_rank_finds_its_node_and_gpus_where_nodes_have_different_numbers() {
    for (ranks, first, share, expected) in [
        ("3,2", "0", "ranks", &["0,1,2", "0,1,2", "0,1,2", "0,1", "0,1"][..]),
        ("2,4", "2", "each", &["2", "3", "0", "1", "2", "3"]),
        ("1,4,1", "3", "each", &["3", "0", "1", "2", "3", "0"]),
        ("2", "1", "each", &["1", "2"]),
        ("1", "0", "3", &["0,1,2", "0,1,2"]),
        ("4,3,3", "0", "0", &["0,1,2,3"; 10]),
    ] {
        let counts: Vec<usize> = ranks.split(',').map(|count| count.parse().unwrap()).collect();
        let (mut node, mut left) = (0, counts[0]);
        for (rank, expected) in expected.iter().enumerate() {
            if left == 0 {
                node += 1;
                left = *counts.get(node).unwrap_or(&counts[0]);
            }
            left -= 1;
            let mut sh = Command::new("sh");
            sh.envs([("SLURM_PROCID", rank.to_string()), ("SLURM_NODEID", node.to_string())]);
            sh.envs([("CUDA_VISIBLE_DEVICES", "0,1,2,3"), ("SLURMD_NODENAME", "n")]);
            // They are placed by a file, which is not for the task.
            sh.envs([("SLURM_DISTRIBUTION", "arbitrary"), ("SLURM_HOSTFILE", "/file")]);
            sh.env(START, START_SH).args(&START_COMMAND[1..]).args([ranks, first, share]);
            let seen = "echo \"${SLURM_DISTRIBUTION-}${SLURM_HOSTFILE-}$CUDA_VISIBLE_DEVICES\"";
            let output = sh.args(["sh", "-c", seen]).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert_eq!(text.lines().last(), Some(*expected), "{ranks} {share} rank {rank}");
        }
    }
}

/// Slurm sends SIGTERM to all processes of a step: to the rank, to what it has started, and to what watches.
#[test]
fn what_outlives_a_rank_that_was_told_to_stop_is_killed_in_the_end() {
    const SCRIPT: &str = r#"
        trap : TERM
        DISAGG_RANK=probe.$$ sh -c '(trap "" TERM; exec sleep 97) &
            trap "sleep 1; exit 0" TERM; while :; do sleep 0.1; done' &
        rank=$!
        sleep 0.5
        disagg_watch $rank probe.$$
        sleep 1
        kill -TERM 0
        wait $rank
        for _ in $(seq 300); do pgrep -g 0 -fx 'sleep 97' >/dev/null || exit 0; sleep 0.1; done
        exit 1"#;
    let mut sh = Command::new("sh");
    sh.args(["-c", &format!("{}{SCRIPT}", include_str!("../watch.sh"))]).process_group(0);
    let status = sh.env("SLURM_PROCID", "0").env("SLURMD_NODENAME", "n1").status().unwrap();
    assert!(status.success(), "{status}");
}
