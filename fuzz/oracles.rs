// SPDX-License-Identifier: Apache-2.0
//! What a target of fuzzing is held to, one function each. `fuzz_targets/target.rs` hands them
//! generated inputs, and `tests/replay.rs` every input that ever failed: no panic, bounded time,
//! and the promise that the function checks. It is one long file because both include it by its
//! path.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use disagg::diagnostic::{Diagnostic, Source};
use disagg::input::request::{self, Options};
use disagg::input::test_list::{self, Pick, TestList};
use disagg::input::{Context, config, handover, prefix_script};
use disagg::output::{explain, quote, script, task, without_secrets};
use disagg::plan::step::{COMMAND, StepSpec, Variable};
use disagg::plan::words::Reader;
use disagg::plan::{
    Env, FrontendNode, Generation, Origin, Placement, Plan, Purpose, Step, Template, TestId,
    assignments, pytest, resolve, template,
};
use disagg::run::launch::junit::{Part, Results, merge};
use disagg::run::launch::srun_output;
use disagg::run::report::{self, Report};
use disagg::run::result::{RunResult, Verdict, VerdictKind};
use disagg::run::terminal::Terminal;
use disagg::slurm::hostlist::{self, MAX_BYTES, MAX_HOSTS};
use disagg::slurm::job::{self, ExitCode};
use disagg::slurm::state::JobState;
use disagg::slurm::time::TimeLimit;
use disagg::slurm::{counts, reason};
use disagg_host::demand::Demand;

/// Checks one input; a wrong result panics.
pub type Target = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Target); 14] = [
    ("yaml_plan", |data| text(data, plan_with_flags)),
    ("recipe", |data| text(data, recipe)),
    ("hostlist", |data| text(data, hosts)),
    ("demand", |data| text(data, demand)),
    ("prefix", |data| text(data, prefix)),
    ("testlist", |data| text(data, list)),
    ("handover", |data| text(data, handed_over)),
    ("slurmtext", |data| text(data, slurm_text)),
    ("envwords", |data| text(data, words)),
    ("steps", |data| text(data, step)),
    ("quoting", |data| text(data, quoting)),
    ("report", |data| text(data, result)),
    ("junit", junit),
    ("repeat", |data| text(data, repeat)),
];

/// The most that an input below 64 KiB may cost, in time of this thread. It is 50 ms for one reading
/// in a release; a target reads its input up to ten times and shows all that is found, in slower
/// binaries, and two of them share a core.
pub const LIMIT: Duration = Duration::from_millis(if cfg!(fuzzing) { 4000 } else { 2000 });

/// Runs a target on an input.
pub fn run(target: &str, data: &[u8]) {
    let (_, check) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target's name");
    timed(target, || check(data));
}

/// Checks what a target has put aside to hand it to a shell.
#[allow(dead_code, reason = "fuzzing leaves its last cases")]
pub fn finish() {
    BATCHES.with_borrow_mut(|batches| {
        for (compare, cases) in batches.drain().map(|(_, batch)| batch) {
            compare(&cases);
        }
    });
}

/// How long this thread has computed: a busy machine does not make it longer.
fn computed() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = statistics.split(' ').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanoseconds.expect("a number"))
}

/// Fails when reading takes longer than [`LIMIT`].
pub fn timed(what: &str, read: impl FnOnce()) {
    let start = computed();
    read();
    let took = computed() - start;
    assert!(took < LIMIT, "{what} took {took:?}");
}

fn text(data: &[u8], check: fn(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
}

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new("input", text))
}

/// What people see has no control characters.
fn show<'d>(diagnostics: impl IntoIterator<Item = &'d Diagnostic>) {
    for diagnostic in diagnostics {
        printable(&diagnostic.to_string());
    }
}

fn printable(shown: &str) {
    assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
}

// ---- texts that are read

/// A configuration as plans of all rule sets: the last character chooses.
fn plan_with_flags(text: &str) {
    let flags = text.chars().next_back().map_or(0, |c| c as u32);
    let placement = [None, Some(Placement::Packed), Some(Placement::Exclusive)];
    let frontend =
        [None, Some(FrontendNode::Last), Some(FrontendNode::Ctx), Some(FrontendNode::Own)];
    let ids = [
        None,
        Some("disagg_upload-e2e-c"),
        Some("disagg_upload-gen_only-c"),
        Some("aggr_upload-ctx_only-c"),
        Some("disagg_upload-gen_only_no_context-c"),
        Some("aggr_upload-c-s"),
        Some("disagg_upload-c"),
    ];
    let test_id = ids[flags as usize % ids.len()];
    let options = Options {
        test_id: test_id.map(str::to_owned),
        rules: (test_id.is_none() && flags & 1 == 1).then_some(Generation::Unified),
        placement: placement[flags as usize / 7 % 3],
        frontend_node: frontend[flags as usize / 21 % 4],
        ..options()
    };
    plan_twice(text, &options, Path::new("/work"));
}

/// A recipe; behind a line `---` the profile that it may name as `./p.yaml`.
fn recipe(text: &str) {
    let (recipe, profile) = text.split_once("\n---\n").unwrap_or((text, ""));
    let directory = Scratch::new("recipe");
    std::fs::write(directory.0.join("p.yaml"), profile).expect("a file");
    let workspace = Some("/work".into());
    plan_twice(recipe, &Options { workspace, ..options() }, &directory.0);
}

/// A configuration as the plan of each form of test id; gives how many plans there are.
pub fn plan(text: &str) -> usize {
    configuration(text);
    let ids = [None, Some("disagg-e2e-c"), Some("aggr-ctx_only-c"), Some("aggr-c-s")];
    let all = ids.map(|id| Options { test_id: id.map(str::to_owned), ..options() });
    all.iter().filter(|options| plan_twice(text, options, Path::new("/work"))).count()
}

fn options() -> Options {
    Options {
        config: "c.yaml".into(),
        trtllm_dir: Some("/src".into()),
        models_dir: Some("/models".into()),
        ..Options::default()
    }
}

fn plan_twice(text: &str, options: &Options, directory: &Path) -> bool {
    let plan = || {
        let context = Context { env: &|_| None, current_dir: directory.to_owned() };
        request::plan_text(options, &source(text), &context)
    };
    match (plan(), plan()) {
        (Ok((plan, warnings)), Ok((again, _))) => {
            show(&warnings);
            assert_eq!(plan, again, "planned twice");
            check_plan(&plan);
            true
        }
        (Err(errors), Err(again)) => {
            show(&errors.0);
            assert_eq!(errors, again, "planned twice");
            false
        }
        _ => panic!("a plan once, an error once"),
    }
}

/// A plan comes back from JSON as it was, lies within its nodes, gives no GPU twice, and can be
/// rendered.
fn check_plan(plan: &Plan) {
    let json = plan.to_json().expect("JSON");
    let again = Plan::from_json(&json).expect("the plan's own JSON");
    assert_eq!(again.to_json().expect("JSON"), json);
    let layout = &plan.layout;
    let gpus = u64::from(layout.total_nodes) * u64::from(layout.gpus_per_node);
    assert_eq!(gpus, u64::from(layout.total_gpus));
    let mut used = HashMap::new();
    for instance in plan.instances().take(512) {
        assert!(instance.nodes.start < instance.nodes.end, "{}", instance.name);
        assert!(instance.nodes.end <= layout.total_nodes, "{}", instance.name);
        if instance.role.purpose != Purpose::Server {
            continue;
        }
        assert!(instance.gpus.end <= layout.gpus_per_node, "{}", instance.name);
        for node in instance.nodes.clone().take(64) {
            for gpu in instance.gpus.clone() {
                let other = used.insert((node, gpu), instance.name.clone());
                assert_eq!(other, None, "GPU {gpu} of node {node}: {}", instance.name);
            }
        }
    }
    for instance in plan.checks().chain(plan.instances()).take(8) {
        let same = again.instance(&instance.name).expect("the same names");
        assert_eq!(resolve(&same, &[]).argv, resolve(&instance, &[]).argv);
        let _ = task::task(&resolve(&instance, &[]));
    }
    script(plan);
    let _ = (explain::entries(plan), without_secrets(plan));
}

/// The script of a plan. It has lines for each step, which take as long as there are many.
fn script(plan: &Plan) {
    if plan.instances().take(10_000).count() < 10_000 {
        let _ = script::launch(plan);
    }
}

/// A configuration without a plan of it.
pub fn configuration(text: &str) {
    match config::read_text(Path::new("c.yaml"), &source(text), &[]) {
        Ok((config, warnings)) => show(warnings.iter().chain(&config.bad_fields)),
        Err(errors) => show(&errors.0),
    }
}

/// A script's prefix, and its words as options of pytest.
pub fn prefix(text: &str) {
    let in_order = |words: &[&str]| {
        if let Ok(groups) = pytest::groups(words) {
            let joined: Vec<_> = groups.into_iter().flatten().collect();
            assert_eq!(joined, (0..words.len()).collect::<Vec<_>>());
        }
    };
    match prefix_script::parse(&source(text)) {
        Ok((base, warnings)) => {
            let options: Vec<_> =
                base.argv[base.pytest_at() + 1..].iter().map(|word| word.value.as_str()).collect();
            in_order(&options);
            show(&warnings);
        }
        Err(errors) => show(&errors.0),
    }
    in_order(&text.split('\n').collect::<Vec<_>>());
}

/// A test list as text and as YAML, and a test id.
pub fn list(text: &str) {
    let use_up = |list: TestList| {
        for entry in &list.entries {
            match &entry.readings {
                Ok(readings) => assert!(readings.iter().all(|id| !id.config.contains('/'))),
                Err(error) => show([error]),
            }
        }
        for pick in
            [Pick::Only, Pick::Number(i64::MIN), Pick::Matching("a"), Pick::Matching("*-*b")]
        {
            if let Err(error) = list.pick(pick) {
                show([&error]);
            }
        }
    };
    use_up(test_list::from_text(&source(text), None));
    match test_list::from_yaml(&source(text), None) {
        Ok(list) => use_up(list),
        Err(errors) => show(&errors.0),
    }
    test_id(text);
}

/// A test's id.
pub fn test_id(text: &str) {
    if let Err(error) = TestId::readings(text, None) {
        show([&Diagnostic::error(error.message).help(error.help)]);
    }
}

fn hosts(text: &str) {
    if let Ok(names) = hostlist::expand(text) {
        assert!(names.len() <= MAX_HOSTS);
        let list = hostlist::compress(&names);
        if list.len() <= MAX_BYTES {
            assert_eq!(hostlist::expand(&list).as_deref(), Ok(&names[..]), "{list}");
        }
    }
    let names = text.split([',', ' ', '[', ']']).filter(|name| !name.is_empty());
    // Control characters are replaced, for a list is shown to people.
    let names: Vec<_> = names.filter(|name| !name.contains(char::is_control)).collect();
    if let Ok(again) = hostlist::expand(&hostlist::compress(&names)) {
        assert_eq!(again, names);
    }
}

/// The plan in the variable of a job, by hand.
fn handed_over(text: &str) {
    if text.starts_with('/') {
        return;
    }
    match handover::read(text) {
        Ok(plan) => {
            let json = plan.to_json().expect("JSON");
            let again = Plan::from_json(&json).expect("the plan's own JSON");
            assert_eq!(again.to_json().expect("JSON"), json);
            let hosts: Vec<_> =
                (0..plan.layout.total_nodes.min(64)).map(|i| format!("n{i}")).collect();
            for instance in plan.checks().chain(plan.instances()).take(64) {
                let spec = resolve(&instance, &[]);
                let _ = (instance.host_of_each_task(&hosts), spec.log_file(), spec.junit_file());
                let _ = (task::task(&spec), task::shell_command(&spec));
            }
            script(&plan);
            let _ = explain::entries(&plan);
        }
        Err(error) => printable(&error.to_string()),
    }
}

/// What Slurm's commands print.
fn slurm_text(text: &str) {
    for record in job::parse_records(text).into_iter().flatten() {
        let _ = record.reason.as_deref().map(reason::advice);
    }
    for line in text.lines().take(50) {
        let _ = line.parse::<JobState>().map(|state| state.explain());
        if let Ok(time) = line.parse::<TimeLimit>() {
            assert_eq!(time.to_string().parse(), Ok(time));
        }
        let _ = (line.parse::<ExitCode>(), reason::advice(line));
        let _ = (srun_output::parse(line), counts::per_node(line, 1000));
    }
}

/// A result, in the report of somebody else's workspace.
fn result(text: &str) {
    if RunResult::from_json(text).is_err() {
        return;
    }
    let directory = Scratch::new("report");
    std::fs::write(directory.0.join("result.json"), text).expect("a file");
    let report = Report::read(&directory.0).expect("it was read before");
    let terminal = Terminal { columns: 80, lines: 24, has_colours: false };
    // Lines of logs keep their tabs.
    printable(&report::text(&report, terminal).replace('\t', " "));
    let page = report::page(&report);
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\x1b'));
}

/// A role's JUnit file: what is merged can be merged again, with the same counts.
fn junit(data: &[u8]) {
    let directory = Scratch::new("junit");
    let path = directory.0.join("in.xml");
    let merged = |content: &[u8]| {
        std::fs::write(&path, content).expect("a file");
        let part = Part {
            role: "GEN_0",
            results: Results::File(&path),
            ended: "it <ended> & \u{2}".to_owned(),
        };
        let verdict = Verdict::new(VerdictKind::Passed, "x \u{1} ]]> <a> & \u{1b}");
        let mut out = Vec::new();
        let summary = merge(&[part], &verdict, &mut out).expect("memory");
        (summary, out)
    };
    let (first, out) = merged(data);
    let (again, _) = merged(&out);
    assert!(again.lost.is_empty(), "{}", String::from_utf8_lossy(&out));
    // One more: the test case of the run itself.
    let counts = (first.tests + 1, first.failures, first.errors, first.skipped);
    assert_eq!((again.tests, again.failures, again.errors, again.skipped), counts);
}

/// A directory in memory that only this thread uses.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let path = format!("/dev/shm/disagg-{name}-{}-{number}", std::process::id());
        std::fs::create_dir_all(&path).expect("a directory in memory");
        Self(path.into())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A fragment again and again, up to 24 KiB; `%` in it is a number. The first character chooses who
/// reads it, a NUL ends the start, and another one the fragment.
fn repeat(text: &str) {
    let readers: [fn(&str); 8] = [
        |text| {
            plan(text);
        },
        configuration,
        prefix,
        list,
        hosts,
        expanded,
        handed_over,
        slurm_text,
    ];
    let Some(first) = text.chars().next() else { return };
    let mut parts = text[first.len_utf8()..].splitn(3, '\0');
    let [start, fragment, end] = [(); 3].map(|()| parts.next().unwrap_or_default());
    if !fragment.is_empty() {
        readers[first as usize % readers.len()](&repeated(start, fragment, end));
    }
}

/// A text that repeats a fragment up to 24 KiB; `%` in it is a number.
pub fn repeated(start: &str, fragment: &str, end: &str) -> String {
    let mut text = start.to_owned();
    for number in 0.. {
        if text.len() + end.len() + fragment.len() >= 24 << 10 {
            break;
        }
        text.push_str(&fragment.replace('%', &number.to_string()));
    }
    text + end
}

// ---- what others make of the same text

type Compare = fn(&[String]);

thread_local! {
    /// Cases that wait for a shell: one starts a hundred times slower than a case is read.
    static BATCHES: RefCell<HashMap<usize, (Compare, Vec<String>)>> = RefCell::default();
}

fn later(compare: Compare, case: &str) {
    let full = BATCHES.with_borrow_mut(|batches| {
        let batch = batches.entry(compare as usize).or_insert((compare, Vec::new()));
        batch.1.push(case.to_owned());
        (batch.1.len() >= 200).then(|| std::mem::take(&mut batch.1))
    });
    if let Some(cases) = full {
        compare(&cases);
    }
}

const OUTER: [(&str, &str); 5] =
    [("A", "outer a*"), ("B", ""), ("HOME", "/home/o"), ("X1", "q\"'\\ $z`"), ("UCX_TLS", "old")];

fn outer(name: &str) -> Option<&'static str> {
    OUTER.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

/// What a program prints of each case: texts that end with NUL, and `\x01` and a NUL behind a case.
fn answers(program: &[&str], input: String) -> Vec<Vec<String>> {
    let mut command = Command::new(program[0]);
    command.args(&program[1..]).env_clear().env("LC_ALL", "C.UTF-8").env("PATH", "/usr/bin:/bin");
    command.envs(OUTER).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("a shell or an interpreter");
    let mut stdin = child.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("its output").stdout;
    writer.join().expect("the input is written");
    let mut cases = vec![Vec::new()];
    for piece in String::from_utf8_lossy(&output).split_terminator('\0') {
        match piece {
            "\x01" => cases.push(Vec::new()),
            piece => cases.last_mut().expect("one").push(piece.to_owned()),
        }
    }
    cases.pop();
    cases
}

fn compare(who: &str, cases: &[String], expected: &[Vec<String>], found: &[Vec<String>]) {
    for (at, (case, expected)) in cases.iter().zip(expected).enumerate() {
        assert_eq!(Some(expected), found.get(at), "{case:?}: here, and to {who}");
    }
}

const END: &str = "; printf '\\001\\0'\n";

/// A demand, and whether the script of the controller reads the same.
fn demand(text: &str) {
    match Demand::parse(text) {
        Ok(demand) => assert_eq!(demand.to_string().parse(), Ok(demand)),
        Err(error) => printable(&error.to_string()),
    }
    if !text.contains('\0') {
        later(demands_in_lua, text);
    }
}

fn demands_in_lua(cases: &[String]) {
    let fields = |demand: Demand| {
        let optional = |number: Option<u32>| number.map_or("nil".to_owned(), |n| n.to_string());
        format!(
            "{} {} {} {} {} {} {}",
            demand.nodes,
            demand.tasks,
            demand.tasks_per_node,
            demand.gpus_per_node,
            demand.config,
            optional(demand.segment),
            optional(demand.time_min)
        )
    };
    let expected: Vec<Vec<String>> = cases
        .iter()
        .map(|text| vec![Demand::parse(text).map_or("none".to_owned(), fields)])
        .collect();
    let mut program = format!(
        "slurm = {{}}\nlocal M = (function()\n{}\nend)()\n",
        include_str!("../plugins/job_submit/job_submit_disagg.lua")
    );
    program.push_str(
        "local function say(text) local d = M.parse_demand(text)
         io.write(d and table.concat({d.nodes, d.tasks, d.tasks_per_node, d.gpus_per_node, d.config,
             tostring(d.segment), tostring(d.time_min)}, ' ') or 'none', '\\0\\1\\0') end\n",
    );
    for text in cases {
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:03}")).collect();
        program.push_str(&format!("say(\"{bytes}\")\n"));
    }
    compare("Lua", cases, &expected, &answers(&["lua5.4", "-"], program));
}

/// Assignments, and that a value can be expanded.
pub fn expanded(text: &str) {
    if let Ok(all) = assignments::parse(text) {
        assert!(all.iter().all(|one| one.value.expand(|_| Some("x")).is_ok()));
    }
    assert!(Template::from_written(text).expand(|_| Some("x")).is_ok());
}

/// The variables of an environment string; none when it is refused, or when it is taken on purpose
/// where bash would take it for something else, or when it changes bash itself.
fn assigned(text: &str) -> Option<Env> {
    // `\$NAME` is a reference here: the string goes through one more shell. Bash marks its own work
    // with two control characters, and loses such a one behind a backslash in quotes.
    if text.len() > 300 || text.contains("\\$") || text.contains(['\x01', '\x7f']) {
        return None;
    }
    let mut reader = Reader::new(text);
    while reader.skip_blanks() {
        // A name may stand in quotes here.
        let name = reader.rest().split('=').next().unwrap_or_default();
        if !template::is_name(name) || reader.word().is_err() {
            return None;
        }
    }
    let mut env = Env::default();
    for one in assignments::parse(text).ok()? {
        env.set(&one.name, &one.value, Origin::default()).ok()?;
    }
    let names = env.iter().flat_map(|(name, value)| value.value.variables().chain([name]));
    let of_bash = |name: &str| {
        name.starts_with("BASH")
            || name.starts_with("LC_")
            || name.starts_with("COMP_")
            || name.starts_with("HIST")
            || name.starts_with("EPOCH")
            || OF_BASH.contains(&name)
    };
    if names.into_iter().any(of_bash) || env.iter().len() > 12 {
        return None;
    }
    Some(env)
}

const OF_BASH: [&str; 36] = [
    "UID",
    "EUID",
    "PPID",
    "SHELL",
    "SHELLOPTS",
    "TERM",
    "RANDOM",
    "SECONDS",
    "LINENO",
    "_",
    "GROUPS",
    "FUNCNAME",
    "DIRSTACK",
    "SRANDOM",
    "PIPESTATUS",
    "OPTIND",
    "OPTARG",
    "OPTERR",
    "IFS",
    "POSIXLY_CORRECT",
    "LANG",
    "PATH",
    "LD_PRELOAD",
    "ENV",
    "IGNOREEOF",
    "TEXTDOMAIN",
    "PWD",
    "OLDPWD",
    "SHLVL",
    "PS1",
    "PS4",
    "HOSTNAME",
    "HOSTTYPE",
    "MACHTYPE",
    "OSTYPE",
    "LD_LIBRARY_PATH",
];

fn values(env: &Env) -> Vec<String> {
    env.iter().map(|(_, value)| value.value.expand(outer).expect("short")).collect()
}

fn printed(env: &Env) -> String {
    env.iter().map(|(name, _)| format!("printf '%s\\0' \"${{{name}-unset}}\";")).collect()
}

fn words(text: &str) {
    expanded(text);
    if assigned(text).is_some() {
        later(words_in_bash, text);
    }
}

/// An environment string that is taken means what bash makes of it.
fn words_in_bash(cases: &[String]) {
    let envs: Vec<Env> = cases.iter().filter_map(|text| assigned(text)).collect();
    let mut input = String::new();
    for (text, env) in cases.iter().zip(&envs) {
        let text = quote::word(text);
        input.push_str(&format!("( set -a; eval {text} || exit; {} ){END}", printed(env)));
    }
    let expected: Vec<_> = envs.iter().map(values).collect();
    compare("bash", cases, &expected, &answers(&["bash", "--norc", "-s"], input));
}

fn step(text: &str) {
    if assigned(text).is_some_and(|env| env.iter().len() > 0) {
        later(steps_in_bash, text);
    }
}

/// Both renderings of a step give its variables the values that bash gives them, whether they are
/// secret or not.
fn steps_in_bash(cases: &[String]) {
    let envs: Vec<Env> = cases.iter().filter_map(|text| assigned(text)).collect();
    let size = Step {
        nodes: 1,
        tasks: 1,
        tasks_per_node: 1,
        deal: Default::default(),
        mpi: None,
        overlap: false,
        kill_on_bad_exit: false,
    };
    for is_secret in [false, true] {
        let mut input = String::new();
        for env in &envs {
            let variable =
                |(name, value): (&'_ str, &'_ disagg::plan::Traced<Template>)| Variable {
                    name: name.to_owned().leak(),
                    value: value.value.clone(),
                    origin: std::borrow::Cow::Owned(Origin::default()),
                    is_own: false,
                    is_secret,
                };
            let code = printed(env);
            let spec = StepSpec {
                step: size.clone(),
                ranks: vec![1],
                unset: Vec::new(),
                cleared: None,
                set: env.iter().map(variable).collect(),
                numbers: Vec::new(),
                own_gpus: None,
                followers: None,
                files: Vec::new(),
                argv: ["bash", "-c", &code].map(Template::literal).into(),
                command_variable: COMMAND,
                cwd: "/",
                script: None,
                log: Template::default(),
                junit: None,
                ready: None,
                test_log: None,
                done: None,
            };
            let exports = |variables: &[(std::borrow::Cow<'_, str>, Template)]| -> String {
                let export = |(name, value): &(std::borrow::Cow<'_, str>, Template)| {
                    let value = match &**name {
                        COMMAND => value.literal_text().into_owned(),
                        _ => value.expand(outer).expect("short"),
                    };
                    format!("export {name}={}; ", quote::word(&value))
                };
                variables.iter().map(export).collect()
            };
            let task = task::task(&spec);
            let argv: Vec<_> = task.argv.iter().map(Template::literal_text).collect();
            let argv = quote::words(argv.iter().map(|word| &**word));
            input.push_str(&format!("( {}{argv} ){END}", exports(&task.environment)));
            let command = exports(&task::shell_command(&spec));
            input.push_str(&format!("( {command}eval \"${COMMAND}\" ){END}"));
        }
        let twice =
            |all: &[String]| all.iter().flat_map(|one| [one.clone(), one.clone()]).collect();
        let cases: Vec<String> = twice(cases);
        let expected: Vec<_> = envs.iter().flat_map(|env| [values(env), values(env)]).collect();
        compare("a step", &cases, &expected, &answers(&["bash", "--norc", "-s"], input));
    }
}

fn quoting(text: &str) {
    let value = Template::from_written(text);
    let known = value.variables().all(|name| ["A", "B", "C", "X1"].contains(&name));
    // What differs between steps is filled in before anything is quoted.
    if known
        && value.slots().next().is_none()
        && text.len() <= 400
        && !text.contains(['\0', '\x01'])
    {
        later(quotes_in_shells, text);
    }
}

/// Every way to quote a text for a script gives it back in bash and in dash.
fn quotes_in_shells(cases: &[String]) {
    for shell in ["bash", "dash"] {
        let (mut input, mut expected) = (String::new(), Vec::new());
        for text in cases {
            let value = Template::from_written(text.as_str());
            let all = quote::template(&value);
            // A command in double quotes in a script that is evaluated later, as pytestCommand is.
            let inner = quote::double(&format!("printf '%s\\0' {all}"));
            input.push_str(&format!(
                "printf '%s\\0' {} {} {all}\nX={} /usr/bin/printenv -0 X\neval {inner}{END}",
                quote::word(text),
                quote::double(text),
                quote::assigned(&value).literal_text(),
            ));
            let meant = value.expand(outer).expect("short");
            expected.push(vec![text.clone(), text.clone(), meant.clone(), meant.clone(), meant]);
        }
        compare(shell, cases, &expected, &answers(&[shell], input));
    }
}
