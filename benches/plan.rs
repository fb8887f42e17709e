// SPDX-License-Identifier: Apache-2.0
//! How long planning takes: inside the process, and as a whole process beside Python's YAML.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use disagg::diagnostic::Source;
use disagg::input::request::{Options, build, plan_text};
use disagg::input::{Context, config};
use disagg::plan::{self, Request};

#[path = "../tests/recipes_of_docs/mod.rs"]
mod recipes_of_docs;

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        process_beside_python(
            &median_config(),
            &["--trtllm-dir", "/llm", "--models-dir", "/models"],
        );
        let folder = std::env::temp_dir().join(format!("recipe-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder can be made");
        for (engine, text) in recipes_of_docs::all() {
            let recipe = folder.join(format!("{engine}.yaml"));
            std::fs::write(&recipe, text).expect("the folder can be written");
            process_beside_python(&recipe, &[]);
        }
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// The corpus' configuration of median size where the corpus is there; else one of our own.
fn median_config() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = root.join("../shared/corpus/configs/tests");
    let mut found = Vec::new();
    let mut pending = vec![corpus];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => pending.push(entry.path()),
                Ok(metadata)
                    if !entry.path().components().any(|c| c.as_os_str() == "aggregated") =>
                {
                    found.push((metadata.len(), entry.path()));
                }
                _ => {}
            }
        }
    }
    found.sort();
    match found.get(found.len() / 2) {
        Some((_, path)) => path.clone(),
        None => root.join("tests/standin/configs/standin_3nodes.yaml"),
    }
}

fn options(config: &Path) -> Options {
    Options {
        config: config.to_string_lossy().into_owned(),
        trtllm_dir: Some("/llm".into()),
        models_dir: Some("/models".into()),
        workspace: Some("/space".into()),
        ..Options::default()
    }
}

fn request(config: &Path) -> Request {
    let context = Context { env: &|_| None, current_dir: "/".into() };
    build(&options(config), &context).expect("the configuration is good").0
}

#[divan::bench]
fn plan_from_yaml_text(bencher: divan::Bencher<'_, '_>) {
    let path = median_config();
    let text = std::fs::read_to_string(&path).expect("it can be read");
    let source = Arc::new(Source::new("config.yaml", text));
    let mut request = request(&path);
    bencher.bench_local(|| {
        request.config = config::parse("config", black_box(&source), &[]).expect("it is good").0;
        plan::plan(&request).expect("it can be planned")
    });
}

/// The recipes of docs/recipes.md, from their texts to plans; the limit is 200 µs.
#[divan::bench(args = recipes_of_docs::all().into_iter().map(|(engine, _)| engine))]
fn plan_of_a_recipe(bencher: divan::Bencher<'_, '_>, engine: &str) {
    let mut recipes = recipes_of_docs::all().into_iter();
    let (_, text) = recipes.find(|(name, _)| name == engine).expect("it is one of them");
    let source = Arc::new(Source::new("recipe.yaml", text));
    let options = Options {
        config: "recipe.yaml".into(),
        workspace: Some("/space".into()),
        ..Options::default()
    };
    let context = Context { env: &|_| None, current_dir: "/".into() };
    bencher
        .bench_local(|| plan_text(&options, black_box(&source), &context).expect("it is good").0);
}

/// 10,000 nodes: 1,250 generation servers on 4 nodes each, 5,000 context servers on one.
#[divan::bench]
fn plan_of_10000_nodes_with_every_instance_and_its_nodes(bencher: divan::Bencher<'_, '_>) {
    let text = "hardware: {gpus_per_node: 4, num_ctx_servers: 5000, num_gen_servers: 1250}\n\
                worker_config:\n  gen: {tensor_parallel_size: 16}\n  ctx: {tensor_parallel_size: 4}\n";
    let source = Arc::new(Source::new("config.yaml", text));
    let mut request = request(&median_config());
    bencher.bench_local(|| {
        request.config = config::parse("config", black_box(&source), &[]).expect("it is good").0;
        let plan = plan::plan(&request).expect("it can be planned");
        assert_eq!(plan.layout.total_nodes, 10_000);
        let nodes = disagg::slurm::hostlist::expand("node[00001-10000]").expect("a good list");
        plan.instances()
            .map(|instance| instance.host_of_each_task(&nodes).expect("it fits").len())
            .sum::<usize>()
    });
}

/// Runs both commands in blocks, turn and turn about, and prints the medians and their ratio. Each
/// block starts with a run that does not count, so that neither finds the processor's caches full of
/// the other.
fn process_beside_python(config: &Path, options: &[&str]) {
    let mut ours = Command::new(slurm_bed::built("slurm-disagg"));
    ours.arg("plan").arg(config).args(options);
    let mut python = Command::new("/usr/bin/python3");
    python.args(["-c", "import sys, yaml; yaml.safe_load(open(sys.argv[1]))"]).arg(config);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        for (command, times) in [(&mut ours, &mut a), (&mut python, &mut b)] {
            time(command);
            times.extend((0..20).map(|_| time(command)));
        }
    }
    let (a, b) = (median(a), median(b));
    println!("\nwhole process, median of 100 in blocks of 20, {}", config.display());
    println!("  slurm-disagg plan               {a:>10.2?}");
    println!("  python3 -c 'yaml.safe_load(…)'  {b:>10.2?}");
    println!("  ratio                           {:>9.1}×", b.as_secs_f64() / a.as_secs_f64());
}

fn time(command: &mut Command) -> Duration {
    let start = Instant::now();
    // cargo's own, with directories that a person's loader does not look through.
    command.env_remove("LD_LIBRARY_PATH");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().expect("it can be started");
    assert!(status.success(), "{command:?}");
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
