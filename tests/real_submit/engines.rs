// SPDX-License-Identifier: Apache-2.0
//! Recipes with real software and without GPUs: Dynamo and its mock engine, and real routers in
//! front of mock servers that check what they are told (`tests/engines`).

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use disagg::run::result::{Moment, RunResult, VerdictKind};
use rustix::process::{Pid, Signal, getpgid, kill_process};
use slurm_bed::{Options, Output, contains};

use crate::site::{LIMIT, Site, path_with_ib0};

const ENGINES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/engines");

pub struct Place {
    site: Site,
    /// The model, and where the programs are: lines that all recipes have.
    head: String,
    /// Longer than any run takes on a busy machine.
    limit: Duration,
}

impl Place {
    fn new(options: Options) -> Self {
        Self::with(options, "requirements.txt", &format!("PYTHONPATH: {ENGINES}/mock"), LIMIT)
    }

    /// A cluster, the programs of these requirements, and variables of all steps.
    pub fn with(options: Options, requirements: &str, env: &str, limit: Duration) -> Self {
        let mut install = Command::new(format!("{ENGINES}/install"));
        let installed = Output::of(install.arg(requirements));
        let installed = installed.ok().trim();
        let head = format!(
            "model: {{path: {installed}/tiny, name: tiny}}\n\
             env: {{PATH: \"{installed}/bin:{ENGINES}/mock:$PATH\", HOME: /tmp, {env}}}\n"
        );
        Self { head, limit, site: Site::with(options) }
    }

    pub fn workspace(&self, name: &str) -> PathBuf {
        self.site.cluster.work().join(name)
    }

    pub fn submit(&self, name: &str, lines: &str) -> Child {
        self.submit_with(name, lines, &[])
    }

    /// Starts the submission of a recipe that has these lines and those that all have.
    fn submit_with(&self, name: &str, lines: &str, options: &[&str]) -> Child {
        let recipe = self.site.cluster.work().join(format!("{name}.yaml"));
        let text = format!("{}{lines}\n", self.head);
        fs::write(&recipe, text).unwrap();
        let (recipe, workspace) = (recipe.display().to_string(), self.workspace(name));
        let workspace = workspace.display().to_string();
        let submit = [&["submit", &*recipe, "--workspace", &*workspace], options].concat();
        let mut submit = self.site.command(&[&path_with_ib0(&self.site)], &submit);
        submit.stdout(fs::File::create(format!("{workspace}.out")).unwrap());
        submit.stderr(fs::File::create(format!("{workspace}.err")).unwrap());
        submit.spawn().unwrap()
    }

    pub fn result(&self, name: &str) -> RunResult {
        RunResult::read(&self.workspace(name))
            .unwrap_or_else(|error| panic!("{error}: {}", self.text(name)))
    }

    /// What the submission and all steps of a run have printed.
    pub fn text(&self, name: &str) -> String {
        let logs = fs::read_dir(self.workspace(name)).into_iter().flatten().flatten();
        let logs = logs.map(|entry| entry.path());
        let logs = logs.filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let outputs = ["out", "err"].map(|kind| self.workspace(name).with_extension(kind));
        let text = |path: PathBuf| {
            format!("--- {}\n{}\n", path.display(), fs::read_to_string(&path).unwrap_or_default())
        };
        outputs.into_iter().chain(logs).map(text).collect()
    }

    /// Waits for the end of a submission; gives its exit status.
    pub fn status_of(&self, submit: &mut Child) -> Option<i32> {
        let ended = || submit.try_wait().unwrap();
        let status =
            slurm_bed::wait_for(self.limit, ended, || "the submission does not end".into());
        status.code()
    }

    /// Waits until a run has printed this text, and ends the process whose command has these words, as
    /// a crash does, or the one with this title among those that it has started; gives the time.
    pub fn kill_after(&self, text: &str, name: &str, words: &str, title: Option<&str>) -> Moment {
        let is_there = || self.text(name).contains(text).then_some(());
        slurm_bed::wait_for(self.limit, is_there, || self.text(name));
        std::thread::sleep(Duration::from_secs(1));
        let processes = self.site.cluster.processes();
        let pid_of = |is_one: &dyn Fn(&slurm_bed::Process) -> bool| {
            let process = processes.iter().find(|process| is_one(process));
            process.unwrap_or_else(|| panic!("{words}: {processes:#?}")).pid.cast_signed()
        };
        let program = |command: &str| command.split(' ').next().map(str::to_owned);
        let is_python = |command: &str| program(command).is_some_and(|p| p.ends_with("python3"));
        let is_main = |command: &str| is_python(command) && command.contains(words);
        let main = Pid::from_raw(pid_of(&|process| is_main(&process.command)));
        let killed = title.map(|title| {
            let group = |pid: u32| getpgid(Pid::from_raw(pid.cast_signed())).ok();
            pid_of(&|process| process.command.starts_with(title) && group(process.pid) == main)
        });
        kill_process(killed.and_then(Pid::from_raw).or(main).unwrap(), Signal::KILL).unwrap();
        Moment::now()
    }
}

/// A client's command that asks for so many completions, of a model of this name.
fn client(model: &str) -> String {
    format!(
        "command: [python3, {ENGINES}/mock/client.py, \"{{url}}\", {model}, \"{{concurrency}}\", \
         \"{{prompts}}\", \"{{results}}\"], isl: 8, osl: 4"
    )
}

#[test]
fn servers_of_several_nodes_and_real_routers_find_each_other() {
    let place = Place::new(Options::nodes(8).gpus(2));
    let pair = |args: &str| format!("prefill: {{args: {{{args}}}}}, decode: {{args: {{{args}}}}}");
    let measured = |model: &str| {
        format!("benchmark: {{{}, concurrencies: [1, 4], prompts: 20}}", client(model))
    };
    let sglang = pair("tp-size: 4");
    let vllm = pair("tensor-parallel-size: 2, pipeline-parallel-size: 2");
    let both = "aggregated: {servers: 2}";
    let (each, all): (&[&str], &[&str]) = (&["\"prefill\"", "\"decode\""], &["null"]);
    let cases = [
        ("sglang", &*sglang, "\"{served_name}\"", each),
        ("vllm", &vllm, "\"{served_name}\"", each),
        ("sglang", both, "\"{served_name}\"", all),
        ("vllm", both, "\"{served_name}\"", all),
        // Such a client ends with 0 too.
        ("sglang", &sglang, "unknown", each),
    ];
    for (round, (engine, servers, model, modes)) in cases.into_iter().enumerate() {
        let name = format!("{engine}{round}");
        let lines = format!(
            "engine: {engine}\ngpus_per_node: 2\nslurm: {{time: 5}}\n\
             roles: {{{servers}, router: {{args: {{worker-startup-check-interval: 1}}}}}}\n{}",
            measured(model)
        );
        let status = place.status_of(&mut place.submit(&name, &lines));
        let (result, text) = (place.result(&name), place.text(&name));
        let completed: Vec<_> = result.figures.iter().map(|one| one.get("completed")).collect();
        if model == "unknown" {
            assert_eq!(result.verdict.kind, VerdictKind::RequestsFailed, "{text}");
            assert_eq!(status, Some(1), "{text}");
            continue;
        }
        assert_eq!(result.verdict.kind, VerdictKind::Passed, "{text}");
        assert_eq!(status, Some(0), "{text}");
        assert_eq!(completed, [Some(20.0); 2], "{text}");
        for mode in modes {
            // The router's own question on its start may come too.
            let answered = text.matches(&format!("{{\"did\": {mode}")).count();
            assert!(answered >= 40, "{mode} {answered}: {text}");
        }
        let followers = if servers == both { 0 } else { 2 };
        assert_eq!(text.matches("\"rank\": 1").count(), followers, "{text}");
        // Each of the servers was asked.
        let logs = ["server_0.log", "server_1.log"].map(|log| place.workspace(&name).join(log));
        let asked = |log: &PathBuf| fs::read_to_string(log).unwrap().contains("\"did\"");
        assert!(servers != both || logs.iter().all(asked), "{text}");
    }
}

/// Dynamo's frontend, one prefill and some decode servers.
fn dynamo(decode: u32, more: &str, benchmark: &str) -> String {
    format!(
        "engine: dynamo-mocker\nslurm: {{time: 5}}\nroles:\n  prefill:\n  decode: {{servers: {decode}}}\n{more}\nbenchmark: {{{benchmark}}}"
    )
}

#[test]
fn dynamo_passes_with_a_real_client_and_through_files() {
    let place = Place::new(Options::nodes(3));
    let files = "  etcd: {servers: 0}\n  nats: {servers: 0}";
    let benchmark = "client: aiperf, isl: 32, osl: 8, concurrencies: 2, prompts: 20";
    // Its variables for addresses take no names.
    let at = ["--interface", "ib0"];
    let mut submit = place.submit_with("files", &dynamo(2, files, benchmark), &at);
    let status = place.status_of(&mut submit);
    let text = place.text("files");
    assert_eq!(status, Some(0), "{text}");
    let result = place.result("files");
    assert_eq!(result.figures[0].get("completed"), Some(20.0), "{text}");
}

#[test]
fn the_end_of_any_of_dynamos_processes_is_the_verdict() {
    let place = Place::new(Options::nodes(2));
    // It goes on until the job ends.
    let benchmark = format!("{}, concurrencies: 2, prompts: 1000000", client("tiny"));
    let cases = [
        ("DECODE_0", "--disaggregation-mode decode"),
        ("PREFILL_0", "--disaggregation-mode prefill"),
        ("FRONTEND", "dynamo.frontend"),
    ];
    // One after the other: the nodes of a bed share their ports.
    for (step, words) in cases {
        let mut submit = place.submit(step, &dynamo(1, "", &benchmark));
        place.kill_after("BENCHMARK: running", step, words, None);
        assert_eq!(place.status_of(&mut submit), Some(1), "{}", place.text(step));
        let verdict = place.result(step).verdict;
        assert_eq!(verdict.kind, VerdictKind::ServerEnded, "{verdict:#?}");
        assert_eq!(verdict.step.as_deref(), Some(step), "{verdict:#?}");
        contains(&verdict.message, "signal 9");
    }
}
