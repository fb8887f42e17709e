// SPDX-License-Identifier: Apache-2.0
//! What a site pays for the plugins, on a real Slurm: clients with and without the SPANK plugin, and
//! bursts of submissions to a slurmctld with and without both plugins, each in turn with the other.
//!
//! It prints measurements and judges them by the limits that the plugins were made to keep; what a
//! busy machine does to them is for the reader to tell, so it never fails.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use slurm_bed::{Cluster, Options, built};

/// Turns of each client.
const TURNS: usize = 200;
/// Rounds of a burst, and submissions in each: 1,000 for each contestant.
const ROUNDS: usize = 10;
const BURST: usize = 100;
/// Clients at a time in a burst.
const CLIENTS: usize = 4;

const CONFIG: &str = "benchmark: {mode: e2e}\n\
    hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n\
    worker_config:\n  gen: {tensor_parallel_size: 4}\n  ctx: {tensor_parallel_size: 4}\n";

fn main() {
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some("--turns") => turns(&contestants(arguments)),
        Some("--burst") => burst(&contestants(arguments).remove(0)),
        _ => {
            clients();
            bursts();
        }
    }
}

// ---- inside a cluster: this program again, so that no wrapper is measured

/// A command line, and variables of its own before it.
type Contestant = Vec<String>;

fn contestants(arguments: impl Iterator<Item = String>) -> Vec<Contestant> {
    let words: Vec<String> = arguments.collect();
    words.split(|word| word == ";").map(<[String]>::to_vec).collect()
}

fn run(contestant: &Contestant) -> ExitStatus {
    let variables = contestant.iter().take_while(|word| word.contains('=')).count();
    let mut command = Command::new(&contestant[variables]);
    command.args(&contestant[variables + 1..]);
    command.envs(contestant[..variables].iter().filter_map(|word| word.split_once('=')));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().unwrap_or_else(|e| panic!("{contestant:?}: {e}"))
}

/// Each contestant in turn, in changing order; prints the microseconds of each turn, one line each.
fn turns(contestants: &[Contestant]) {
    let count = contestants.len();
    for turn in 0..TURNS {
        let mut micros = vec![0; count];
        for i in 0..count {
            let which = (i + turn) % count;
            let start = Instant::now();
            let status = run(&contestants[which]);
            micros[which] = start.elapsed().as_micros();
            assert!(status.success(), "{:?} ended with {status}", contestants[which]);
        }
        let line: Vec<String> = micros.iter().map(ToString::to_string).collect();
        println!("{}", line.join(" "));
    }
}

/// A burst of one contestant; prints its microseconds.
fn burst(contestant: &Contestant) {
    let left = AtomicUsize::new(BURST);
    let take = || {
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while take() {
                    assert!(run(contestant).success(), "{contestant:?} has failed");
                }
            });
        }
    });
    println!("{}", start.elapsed().as_micros());
}

// ---- outside

/// The plugins' files where every user can read them.
fn files() -> tempfile::TempDir {
    let readable = std::fs::Permissions::from_mode(0o755);
    let dir = tempfile::Builder::new().permissions(readable).tempdir();
    let dir = dir.unwrap_or_else(|e| panic!("no temporary directory: {e}"));
    for name in ["spank_disagg.so", "job_submit_disagg.so"] {
        let copied = std::fs::copy(built(name), dir.path().join(name));
        copied.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    write(
        &dir.path().join("site.yaml"),
        "trtllm_dir: /opt/trtllm\nmodels_dir: /opt/models\nmpi_type: none\n",
    );
    dir
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}

fn with_plugins(nodes: u32, files: &Path) -> Options {
    let place = files.display();
    Options::nodes(nodes)
        .job_submit("disagg")
        .plugin_dir(files)
        .spank(&format!("optional {place}/spank_disagg.so site={place}/site.yaml"))
}

/// Runs this program inside the cluster; the numbers that it prints, line by line.
fn inside(cluster: &Cluster, what: &str, contestants: &[Contestant]) -> Vec<Vec<f64>> {
    let program = std::env::current_exe().unwrap_or_else(|e| panic!("{e}"));
    let output = cluster
        .command(program)
        .arg(what)
        .args(contestants.join(&";".to_owned()))
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|e| panic!("{e}"));
    assert!(output.status.success(), "{what} has failed: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers = |line: &str| line.split(' ').filter_map(|n| n.parse().ok()).collect();
    text.lines().map(numbers).collect()
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return values[middle];
    }
    f64::midpoint(values[middle - 1], values[middle])
}

fn words(text: &str) -> Contestant {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Makes a second slurm.conf, without SPANK plugins; gives the variable that names it to a client.
fn without_spank(cluster: &Cluster) -> String {
    let etc = cluster.dir().join("etc");
    let conf = std::fs::read_to_string(etc.join("slurm.conf")).unwrap_or_else(|e| panic!("{e}"));
    write(&etc.join("none.conf"), "");
    let none = format!("PlugStackConfig={}", etc.join("none.conf").display());
    let bare: Vec<&str> = conf
        .lines()
        .map(|line| if line.starts_with("PlugStackConfig=") { none.as_str() } else { line })
        .collect();
    write(&etc.join("bare.conf"), &(bare.join("\n") + "\n"));
    format!("SLURM_CONF={}/bare.conf", etc.display())
}

fn clients() {
    let files = files();
    let cluster = Cluster::start(&with_plugins(2, files.path()).bare_node("node2"));
    write(&cluster.work().join("config.yaml"), CONFIG);
    let with = format!("SLURM_CONF={}/etc/slurm.conf", cluster.dir().display());
    let without = without_spank(&cluster);

    println!(
        "clients, {TURNS} turns each, interleaved; medians, and the median of the differences"
    );
    compare(
        &cluster,
        "srun true",
        &[
            ("without the plugin", format!("{without} srun -w node2 true"), None),
            ("with it, not used", format!("{with} srun -w node1 true"), Some(300.0)),
            (
                "with it, a role",
                format!(
                    "{with} srun -w node1 --disagg-config=config.yaml --disagg-role=BENCHMARK true"
                ),
                Some(3000.0),
            ),
        ],
    );
    let test_only = "sbatch --test-only --wrap=true";
    compare(
        &cluster,
        "sbatch --test-only",
        &[
            ("without the plugin", format!("{without} {test_only}"), None),
            ("with it, not used", format!("{with} {test_only}"), Some(300.0)),
            (
                "with it, a config",
                format!("{with} {test_only} --disagg-config=config.yaml"),
                Some(3000.0),
            ),
        ],
    );
    println!("\nsbatch --test-only, instructions counted by callgrind");
    let count = |command: &str| instructions(&cluster, command);
    let base = count(&format!("{without} {test_only}"));
    println!("  {:<20} {base:>9.2} M", "without the plugin");
    for (name, command) in [
        ("with it, not used", format!("{with} {test_only}")),
        ("with it, a config", format!("{with} {test_only} --disagg-config=config.yaml")),
    ] {
        let millions = count(&command);
        println!(
            "  {name:<20} {millions:>9.2} M  {:+.2} M  × {:.3}",
            millions - base,
            millions / base
        );
    }
}

/// Prints each contestant beside the first; a limit is in microseconds.
fn compare(cluster: &Cluster, title: &str, of: &[(&str, String, Option<f64>)]) {
    let commands: Vec<Contestant> = of.iter().map(|(_, command, _)| words(command)).collect();
    let micros = inside(cluster, "--turns", &commands);
    println!("\n{title}");
    for (i, (name, _, limit)) in of.iter().enumerate() {
        let own = median(micros.iter().map(|turn| turn[i]));
        let base = median(micros.iter().map(|turn| turn[0]));
        print!("  {name:<20} {:>9.2} ms", own / 1000.0);
        if let Some(limit) = limit {
            let more = median(micros.iter().map(|turn| turn[i] - turn[0]));
            let verdict = if more < *limit { "ok" } else { "ABOVE" };
            let (more, limit) = (more / 1000.0, limit / 1000.0);
            print!("  {more:+.2} ms  × {:.3}  (limit {limit} ms) {verdict}", own / base);
        }
        println!();
    }
}

/// Millions of instructions of a client.
fn instructions(cluster: &Cluster, command: &str) -> f64 {
    let words = words(command);
    let variables = words.iter().take_while(|word| word.contains('=')).count();
    // The cluster's own SLURM_CONF comes first, so these are set inside it.
    let mut valgrind = cluster.command("env");
    valgrind.args(&words[..variables]);
    valgrind.args(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    valgrind.args(&words[variables..]);
    let output = valgrind.output().unwrap_or_else(|e| panic!("valgrind: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    let collected =
        said.lines().find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    let count: f64 = collected.unwrap_or_else(|| panic!("callgrind has counted nothing: {said}"));
    count / 1e6
}

fn bursts() {
    let files = files();
    let without = Cluster::start(&Options::nodes(2));
    let with = Cluster::start(&with_plugins(2, files.path()));
    write(&with.work().join("config.yaml"), CONFIG);
    let submit = "sbatch --hold --output=/dev/null --wrap=true";
    let of = [
        ("without plugins", &without, submit.to_owned()),
        ("controller's alone", &with, format!("{} {submit}", without_spank(&with))),
        ("with both, not used", &with, submit.to_owned()),
        ("with both, a config", &with, format!("{submit} --disagg-config=config.yaml")),
    ];
    let mut rates = vec![Vec::new(); of.len()];
    for round in 0..ROUNDS {
        for i in 0..of.len() {
            let which = (i + round) % of.len();
            let (_, cluster, command) = &of[which];
            let micros = inside(cluster, "--burst", &[words(command)])[0][0];
            rates[which].push(BURST as f64 * 1e6 / micros);
            cluster.run(["scancel", "--user=root"]).ok();
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    println!(
        "\nsbatch, bursts of {BURST} by {CLIENTS} clients, {ROUNDS} rounds, interleaved; submissions per second.\n\
         The clients share slurmctld's processors here, so their own cost counts too: the controller's\n\
         is the second line's alone."
    );
    for ((name, ..), own) in of.iter().zip(&rates) {
        let ratio = median(own.iter().zip(&rates[0]).map(|(own, base)| own / base));
        let verdict = if ratio >= 0.98 { "ok" } else { "BELOW" };
        println!(
            "  {name:<20} {:>7.1}/s  × {ratio:.3}  (limit × 0.98) {verdict}",
            median(own.clone())
        );
    }
}
