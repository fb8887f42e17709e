// SPDX-License-Identifier: Apache-2.0
//! What a site pays for the plugins, on a real Slurm: clients with and without the SPANK plugin, and
//! bursts of submissions to a slurmctld with and without both plugins, each in turn with the other.
//!
//! It prints measurements and judges them by the limits that the plugins were made to keep; what a
//! busy machine does to them is for the reader to tell, so it never fails. `-- clients` and
//! `-- bursts` measure one of the two.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use slurm_bed::{Cluster, Options, built};

/// Turns of each client.
const TURNS: usize = 200;
/// Rounds of a burst, and submissions in each: 3,000 for each side.
const ROUNDS: usize = 30;
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
        Some("clients") => clients(),
        Some("bursts") => bursts(),
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

fn with_spank(nodes: u32, files: &Path) -> Options {
    let place = files.display();
    Options::nodes(nodes).spank(&format!("optional {place}/spank_disagg.so site={place}/site.yaml"))
}

fn with_controller(options: Options, files: &Path) -> Options {
    options.job_submit("disagg").plugin_dir(files)
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
    let cluster = Cluster::start(&with_controller(
        with_spank(2, files.path()).bare_node("node2"),
        files.path(),
    ));
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

/// A site, and what its users type.
struct Side {
    name: &'static str,
    /// The side that it is compared with, and whether it must reach 98 % of that one's rate.
    base: usize,
    judged: bool,
    cluster: Cluster,
    submit: Contestant,
    /// Of each burst.
    rates: Vec<f64>,
    /// What slurmctld took for all of them.
    processor: Duration,
}

/// Each side has a cluster of its own, for a slurmctld's speed depends on how many jobs it remembers.
/// The first is there twice: what the two differ by is what these numbers cannot tell.
fn bursts() {
    let files = files();
    let plain = || Options::nodes(2);
    let controller = |options| with_controller(options, files.path());
    let spank = || with_spank(2, files.path());
    let submit = "sbatch --hold --output=/dev/null --wrap=true";
    let config = format!("{submit} --disagg-config=config.yaml");
    // Each line that is judged is beside a slurmctld that differs in its own plugin only.
    let mut sides = [
        ("without plugins", 0, false, plain(), submit),
        ("  the same again", 0, false, plain(), submit),
        ("  one of Slurm's own", 0, false, plain().job_submit("all_partitions"), submit),
        ("  the controller's", 0, true, controller(plain()), submit),
        ("SPANK's, not used", 0, false, spank(), submit),
        ("  the controller's too", 4, true, controller(spank()), submit),
        ("SPANK's, with a config", 0, false, spank(), &config),
        ("  the controller's too", 6, true, controller(spank()), &config),
    ]
    .map(|(name, base, judged, options, submit)| {
        let cluster = Cluster::start(&options);
        write(&cluster.work().join("config.yaml"), CONFIG);
        let (submit, rates, processor) = (words(submit), Vec::new(), Duration::ZERO);
        Side { name, base, judged, cluster, submit, rates, processor }
    });
    for round in 0..ROUNDS {
        for i in 0..sides.len() {
            // Forwards and backwards, so that none always follows the same other.
            let i = if round % 2 == 0 { i } else { sides.len() - 1 - i };
            let count = sides.len();
            let side = &mut sides[(i + round / 2) % count];
            let before = processor_time(&side.cluster);
            let micros = inside(&side.cluster, "--burst", std::slice::from_ref(&side.submit))[0][0];
            side.processor += processor_time(&side.cluster) - before;
            side.rates.push(BURST as f64 * 1e6 / micros);
            side.cluster.run(["scancel", "--user=root"]).ok();
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    println!(
        "\nsbatch, bursts of {BURST} by {CLIENTS} clients, {ROUNDS} rounds, interleaved: submissions per second, and\n\
         slurmctld's processor time for one, each with its ratio: an indented line's to the other line\n\
         that it is below, and those' to the first. The clients share slurmctld's processors here, so what\n\
         SPANK's plugin costs them (`-- clients`) counts in the rate too."
    );
    let processor = |side: &Side| side.processor.as_secs_f64() * 1e3 / (ROUNDS * BURST) as f64;
    for side in &sides {
        let base = &sides[side.base];
        let ratio = median(side.rates.iter().zip(&base.rates).map(|(own, base)| own / base));
        print!(
            "  {:<24} {:>6.1}/s  × {ratio:.3}  {:.3} ms  × {:.3}",
            side.name,
            median(side.rates.clone()),
            processor(side),
            processor(side) / processor(base)
        );
        if side.judged {
            print!("  (limit × 0.98) {}", if ratio >= 0.98 { "ok" } else { "BELOW" });
        }
        println!();
    }
}

/// What the cluster's slurmctld has used of processors since it started.
fn processor_time(cluster: &Cluster) -> Duration {
    let mut processes = cluster.processes().into_iter();
    let slurmctld = processes
        .find(|process| process.command.split(' ').next().is_some_and(|c| c.ends_with("slurmctld")))
        .unwrap_or_else(|| panic!("no slurmctld"));
    let path = format!("/proc/{}/stat", slurmctld.pid);
    let stat = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    // After the name: state, ten more fields, then utime and stime in hundredths of a second.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
