// SPDX-License-Identifier: Apache-2.0
//! The C library as a C program sees it: the committed header, the built `libslurm_disagg.so`, a C
//! compiler, valgrind.
//!
//! The library is the one that `make build` leaves in `build/`; `DISAGG_BUILD_DIR` names another
//! directory.

// A helper of a test may fail as the test itself may.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disagg::diagnostic::Source;
use disagg::input::Context;
use disagg::input::request::{Options, plan_text};
use disagg::plan::{Origin, Traced};

const CONFIG: &str = "\
benchmark: {mode: e2e}
hardware: {gpus_per_node: 4, num_ctx_servers: 2, num_gen_servers: 1}
worker_config:
  gen: {tensor_parallel_size: 8}
  ctx: {tensor_parallel_size: 4}
environment:
  worker_env_var: 'CACHE=/tmp/c_${SLURM_LOCALID} HF_TOKEN=abc'
";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the built library is.
fn build_dir() -> PathBuf {
    let build = std::env::var_os("DISAGG_BUILD_DIR")
        .map_or_else(|| root().join("build"), |directory| root().join(directory));
    for file in ["libslurm_disagg.so", "libslurm_disagg.so.0", "libslurm_disagg.a"] {
        let path = build.join(file);
        assert!(path.exists(), "{} is missing: run `make` first", path.display());
    }
    build
}

fn ran(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; is it installed?"))
}

fn succeeded(command: &mut Command) -> String {
    let output = ran(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// A directory with C programs that were compiled against the library.
struct Programs {
    directory: tempfile::TempDir,
    build: PathBuf,
}

impl Programs {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("two_kinds.yaml"), CONFIG).unwrap();
        Self { directory, build: build_dir() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn compile(&self, source: &Path, libraries: &[&str]) -> PathBuf {
        let program = self.path("program");
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"])
            .arg("-I")
            .arg(root().join("include"))
            .arg("-I")
            .arg(root().join("tests/c"))
            .arg("-o")
            .args([&program, source])
            .arg(format!("-L{}", self.build.display()))
            .args(libraries);
        succeeded(&mut cc);
        program
    }

    /// A command that runs a program under valgrind, with an environment of the test's own.
    fn checked(&self, program: &Path) -> Command {
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
            .args(["--show-leak-kinds=all", "--errors-for-leak-kinds=all"])
            .arg(program)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("LD_LIBRARY_PATH", &self.build)
            .current_dir(self.directory.path());
        valgrind
    }

    /// The example programs, built with their own Makefile.
    fn examples() -> Self {
        let programs = Self::new();
        for entry in std::fs::read_dir(root().join("c_examples")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap();
            if name == "Makefile" || path.extension().is_some_and(|extension| extension == "c") {
                std::fs::copy(&path, programs.directory.path().join(name)).unwrap();
            }
        }
        succeeded(
            Command::new("make")
                .arg("-C")
                .arg(programs.directory.path())
                .env("PKG_CONFIG_PATH", &programs.build)
                .env_remove("MAKEFLAGS"),
        );
        programs
    }
}

/// Runs one case of tests/c/cases.c under valgrind.
fn case(name: &str) {
    let programs = Programs::new();
    let program = programs.compile(&root().join("tests/c/cases.c"), &["-lslurm_disagg"]);
    succeeded(programs.checked(&program).args([name]).arg(programs.path("two_kinds.yaml")));
}

macro_rules! cases {
    ($($name:ident)*) => {
        const CASES: &[&str] = &[$(stringify!($name)),*];
        mod c {
            $(#[test] fn $name() { super::case(stringify!($name)); })*
        }
    };
}

cases! {
    layout_has_the_numbers
    job_is_what_sbatch_is_asked_for
    test_and_paths_are_named
    options_choose
    words_that_are_no_choice_are_refused
    given_environment_is_read_instead_of_the_process
    file_and_text_give_the_same_plan
    roles_are_listed_with_their_sizes
    steps_come_in_order_and_by_name
    command_ends_with_null_and_has_its_own_junit_file
    values_are_expanded_by_the_callback
    environment_of_a_task_is_whole
    nodes_are_sliced_and_pinned
    lists_that_do_not_fit_are_refused
    json_gives_the_plan_back
    launch_script_is_written
    errors_have_positions_and_advice
    warnings_and_notes_come_with_the_plan
    hostile_configurations_are_errors
    handles_are_good_after_an_error
    steps_outlive_their_plan
    structs_may_be_larger_than_the_library_knows
    versions_agree
    two_threads_plan_at_once
}

#[test]
fn every_case_of_the_c_program_is_run_here_and_the_archive_links_too() {
    let programs = Programs::new();
    // Named by its path, the archive is taken and not the shared object.
    let archive = programs.build.join("libslurm_disagg.a");
    let libraries =
        [archive.to_str().unwrap(), "-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];
    let program = programs.compile(&root().join("tests/c/cases.c"), &libraries);
    let listed = succeeded(&mut Command::new(&program));
    assert_eq!(listed.lines().collect::<Vec<_>>(), CASES);
    let needed = succeeded(Command::new("readelf").arg("-d").arg(&program));
    assert!(!needed.contains("libslurm_disagg"), "{needed}");
    succeeded(Command::new(&program).arg("layout_has_the_numbers"));
}

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    let library = build_dir().join("libslurm_disagg.so");
    let symbols = succeeded(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    let exported: BTreeSet<_> =
        symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let functions = functions();
    let declared: BTreeSet<_> = functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(exported, declared);
}

// ---- NULL for every pointer argument of every function, from the header itself

#[derive(Debug)]
struct Function {
    returns: String,
    name: String,
    /// Type and name of each parameter.
    parameters: Vec<(String, String)>,
}

/// The functions that the header declares.
fn functions() -> Vec<Function> {
    let header = std::fs::read_to_string(root().join("include/slurm_disagg.h")).unwrap();
    let mut code = String::new();
    let mut rest = header.as_str();
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        rest = after.split_once("*/").unwrap().1;
    }
    code.push_str(rest);
    let declarations = code.split_once("extern \"C\" {").unwrap().1;
    let lines: Vec<_> = declarations.lines().filter(|line| !line.starts_with('#')).collect();
    let declarations = lines.join(" ");
    declarations.split(';').filter_map(function).collect()
}

fn function(declaration: &str) -> Option<Function> {
    let (head, parameters) = declaration.split_once('(')?;
    let (returns, name) = typed(head);
    let parameters = parameters.trim_end_matches([')', ' ']);
    let parameters = match parameters {
        "void" => Vec::new(),
        parameters => parameters.split(',').map(typed).collect(),
    };
    Some(Function { returns, name, parameters })
}

/// `const char *name` → `const char *` and `name`.
fn typed(text: &str) -> (String, String) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let start = words.rfind(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap() + 1;
    (words[..start].trim_end().to_owned(), words[start..].to_owned())
}

/// Pointers that may be NULL, by function and parameter; `error` may be everywhere.
const MAY_BE_NULL: [(&str, &str); 3] = [
    ("disagg_environment_new", "base"),
    ("disagg_instance_value", "lookup"),
    ("disagg_instance_value", "context"),
];

/// What a parameter is given: what comes before the call, the argument, and what holds after a
/// call that failed and after one that succeeded.
#[derive(Default)]
struct Argument {
    before: String,
    value: String,
    failed: String,
    succeeded: String,
}

impl Argument {
    fn input(value: &str) -> Self {
        Self { value: value.to_owned(), ..Self::default() }
    }

    /// An output that is a pointer, and how it is released.
    fn pointer(kind: &str, name: &str, release: &str) -> Self {
        let release =
            if release.is_empty() { String::new() } else { format!(" {release}({name});") };
        Self {
            before: format!("{kind}{name} = UNTOUCHED;"),
            value: format!("&{name}"),
            failed: format!("CHECK({name} == UNTOUCHED);"),
            succeeded: format!("CHECK({name} != NULL && {name} != UNTOUCHED);{release}"),
        }
    }

    fn number(kind: &str, name: &str) -> Self {
        Self {
            before: format!("{kind} {name} = ({kind})77;"),
            value: format!("&{name}"),
            failed: format!("CHECK((int){name} == 77);"),
            succeeded: format!("CHECK((int){name} != 77);"),
        }
    }

    /// An output that the caller sizes.
    fn filled(kind: &str, name: &str, size: &str) -> Self {
        Self {
            before: format!(
                "{kind} {name}, {name}_before; memset(&{name}, 77, sizeof {name}); \
                 {name}.size = {size}; memcpy(&{name}_before, &{name}, sizeof {name});"
            ),
            value: format!("&{name}"),
            failed: format!("CHECK(memcmp(&{name}, &{name}_before, sizeof {name}) == 0);"),
            succeeded: format!("CHECK(memcmp(&{name}, &{name}_before, sizeof {name}) != 0);"),
        }
    }
}

const HANDLES: [&str; 5] =
    ["disagg_plan", "disagg_instance", "disagg_environment", "disagg_nodes", "disagg_error"];
const STRUCTS: [&str; 8] = [
    "disagg_layout",
    "disagg_test",
    "disagg_job",
    "disagg_paths",
    "disagg_role",
    "disagg_step",
    "disagg_variable",
    "disagg_diagnostic",
];

/// A good argument for a parameter; one that is not known here fails the test, so that a new
/// function cannot be left out.
fn good(function: &str, kind: &str, name: &str) -> Argument {
    let bare = kind.trim_start_matches("const ").trim_end_matches(['*', ' ']);
    let handle = HANDLES.contains(&bare);
    match kind {
        "const disagg_options *" => Argument::input("&options"),
        "disagg_lookup" => Argument::input("look_up"),
        "void *" => Argument::input("&options"),
        "char *const *" => Argument::input("base"),
        "const char *const *" => Argument::input("names"),
        "disagg_error **" => Argument {
            before: "disagg_error *error = UNTOUCHED;".into(),
            value: "&error".into(),
            failed: "CHECK(error != NULL && error != UNTOUCHED); disagg_error_free(error);".into(),
            succeeded: "CHECK(error == UNTOUCHED);".into(),
        },
        "const char *" => Argument::input(match name {
            "yaml" => "YAML",
            "json" => "json",
            "path" => "plan_path",
            "name" => "\"GEN_0\"",
            "hostlist" => "\"n[1-4]\"",
            _ => panic!("no text is known for {name} of {function}"),
        }),
        "size_t" => Argument::input(match (function, name) {
            ("disagg_plan_new_from_yaml", "length") => "strlen(YAML)",
            ("disagg_plan_load_json", "length") => "strlen(json)",
            (_, "index") => "0",
            (_, "count") => "4",
            (_, "capacity") => "8",
            _ => panic!("no number is known for {name} of {function}"),
        }),
        "size_t *" | "disagg_status *" => Argument::number(bare, name),
        "char **" => Argument::pointer("char *", name, "disagg_string_free"),
        "char *const **" => Argument::pointer("char *const *", name, ""),
        "const char **" if name == "hosts" => Argument {
            before: "const char *hosts[8] = {UNTOUCHED};".into(),
            value: "hosts".into(),
            failed: "CHECK(hosts[0] == UNTOUCHED);".into(),
            succeeded: "CHECK(hosts[0] != UNTOUCHED);".into(),
        },
        "const char **" => Argument::pointer("const char *", name, ""),
        _ if handle && kind == format!("const {bare} *") => {
            Argument::input(bare.trim_start_matches("disagg_"))
        }
        _ if handle && kind == format!("{bare} **") => {
            Argument::pointer(&format!("{bare} *"), name, &format!("{bare}_free"))
        }
        _ if STRUCTS.contains(&bare) && kind == format!("{bare} *") => {
            Argument::filled(bare, name, &format!("sizeof {name}"))
        }
        _ => panic!("no argument is known for {kind} {name} of {function}"),
    }
}

/// One call of a function, with some arguments replaced.
fn call(
    program: &mut String,
    function: &Function,
    replaced: Option<(usize, Argument)>,
    expected: &str,
) {
    let (at, replacement) = replaced.unzip();
    let mut arguments: Vec<_> =
        function.parameters.iter().map(|(kind, name)| good(&function.name, kind, name)).collect();
    if let (Some(at), Some(replacement)) = (at, replacement) {
        arguments[at] = replacement;
    }
    let fails = expected != "OK";
    let mut block = String::from("    {\n");
    for argument in arguments.iter().filter(|argument| !argument.before.is_empty()) {
        let _ = writeln!(block, "        {}", argument.before);
    }
    let values: Vec<_> = arguments.iter().map(|argument| argument.value.as_str()).collect();
    let _ = writeln!(
        block,
        "        CHECK_STATUS({}({}), DISAGG_STATUS_{expected});",
        function.name,
        values.join(", ")
    );
    if let Some(at) = at
        && fails
        && arguments.iter().any(|argument| argument.value == "&error")
    {
        let (_, name) = &function.parameters[at];
        let _ = writeln!(block, "        check_names(error, \"`{name}\");");
    }
    for argument in &arguments {
        let after = if fails { &argument.failed } else { &argument.succeeded };
        let _ = writeln!(block, "        {after}");
    }
    block.push_str("    }\n");
    program.push_str(&block);
}

/// A program that calls functions in every way that `calls` writes, and how many it writes.
fn run_calls(calls: impl Fn(&mut String, &Function) -> usize) -> usize {
    let mut body = String::new();
    let mut written = 0;
    for function in functions() {
        written += calls(&mut body, &function);
    }
    let template = std::fs::read_to_string(root().join("tests/c/calls.c.in")).unwrap();
    let programs = Programs::new();
    let source = programs.path("calls.c");
    std::fs::write(&source, template.replace("@CALLS@", &body)).unwrap();
    let program = programs.compile(&source, &["-lslurm_disagg"]);
    succeeded(programs.checked(&program).arg(programs.path("two_kinds.yaml")));
    written
}

#[test]
fn null_for_any_pointer_of_any_function_is_a_status_and_writes_nothing() {
    let written = run_calls(|body, function| {
        if function.returns != "disagg_status" {
            assert!(
                function.parameters.is_empty()
                    || function.name == "disagg_status_text"
                    || function.name.ends_with("_free"),
                "{function:?} cannot say that a pointer is NULL"
            );
            return 0;
        }
        call(body, function, None, "OK");
        for (at, (kind, name)) in function.parameters.iter().enumerate() {
            if !kind.contains('*') && kind != "disagg_lookup" {
                continue;
            }
            let allowed = kind == "disagg_error **"
                || MAY_BE_NULL.contains(&(function.name.as_str(), name.as_str()));
            let expected = if allowed { "OK" } else { "NULL_POINTER" };
            call(body, function, Some((at, Argument::input("NULL"))), expected);
        }
        function.parameters.len()
    });
    assert!(written > 80, "only {written} arguments were found");
}

#[test]
fn every_free_takes_null() {
    let freed = run_calls(|body, function| {
        if !function.name.ends_with("_free") {
            return 0;
        }
        let _ = writeln!(body, "    {}(NULL);", function.name);
        1
    });
    assert_eq!(freed, HANDLES.len() + 1);
}

#[test]
fn a_struct_whose_size_was_never_set_is_refused_and_left_alone() {
    let written = run_calls(|body, function| {
        let mut written = 0;
        for (at, (kind, name)) in function.parameters.iter().enumerate() {
            let bare = kind.trim_end_matches([' ', '*']);
            if !STRUCTS.contains(&bare) {
                continue;
            }
            for size in ["0", "1", "SIZE_MAX", &format!("sizeof {name} - 1")] {
                let unset = Argument::filled(bare, name, size);
                call(body, function, Some((at, unset)), "BAD_ARGUMENT");
                written += 1;
            }
        }
        written
    });
    assert!(written >= 4 * STRUCTS.len(), "only {written} structs were found");
}

// ---- the examples

#[test]
fn the_example_prints_a_plan() {
    let programs = Programs::examples();
    let mut print = programs.checked(&programs.path("print_plan"));
    let printed = succeeded(print.args(["./two_kinds.yaml", "/src", "n[1-4]"]));
    for line in [
        "perf/test_perf_sanity.py::test_e2e[disagg_upload-two_kinds]",
        "4 nodes with 4 GPUs each; trtllm-llmapi-launch used",
        "  CTX               2 x 1 nodes, 4 tasks",
        "CTX_1: 1 nodes from the allocation's 4., 4 tasks, MPI pmix",
        "  on       n[1-2]",
        "  unset    UCX_TLS",
        "  set      CACHE=/tmp/c_${SLURM_LOCALID}",
        "  set      HF_TOKEN=(secret)",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    assert!(!printed.contains("abc"), "{printed}");
}

#[test]
fn the_example_says_where_a_configuration_is_wrong() {
    let programs = Programs::examples();
    std::fs::write(programs.path("bad.yaml"), "hardware: {gpus_per_node: none}\n").unwrap();
    let output = ran(programs.checked(&programs.path("print_plan")).arg("./bad.yaml"));
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("./bad.yaml:1:27: error: "), "{stderr}");
}

#[test]
fn the_example_hook_sizes_a_job_or_refuses_it() {
    let programs = Programs::examples();
    let hook = |arguments: &[&str]| {
        let mut hook = programs.checked(&programs.path("job_submit_hook"));
        let output = ran(hook.arg("./two_kinds.yaml").args(arguments));
        (output.status.code(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let sized = "min_nodes=4 max_nodes=4 num_tasks=16 ntasks_per_node=4 \
                 tres_per_node=gres/gpu:4 time_limit=240";
    assert_eq!(hook(&[]), (Some(0), sized.into()));
    assert_eq!(hook(&["4", "16"]), (Some(0), sized.into()));
    let refused = "refused: 3 nodes were asked for, and the test takes 4";
    assert_eq!(hook(&["3"]), (Some(1), refused.into()));
    let refused = "refused: 8 tasks were asked for, and the test takes 16";
    assert_eq!(hook(&["4", "8"]), (Some(1), refused.into()));
}

/// A plan whose GEN role prints its environment, as JSON.
fn printing_plan(directory: &Path) -> String {
    let source = Source::new("two_kinds.yaml", CONFIG);
    let options = Options {
        config: "two_kinds.yaml".into(),
        trtllm_dir: Some("/src".into()),
        models_dir: Some("/models".into()),
        ..Options::default()
    };
    let context = Context { env: &|_| None, current_dir: directory.into() };
    let (mut plan, _) = plan_text(&options, &source.into(), &context).unwrap();
    let role = plan.roles.get_mut("GEN").unwrap();
    let script = "pwd; echo \"$1 with ${UCX_TLS-no UCX_TLS}\"; env";
    role.argv = ["sh", "-c", script, "sh", "one $(argument)"]
        .map(|argument| Traced::new(argument.to_owned(), Origin::default()))
        .into();
    role.cwd = directory.to_str().unwrap().into();
    plan.to_json().unwrap()
}

#[test]
fn the_example_becomes_a_role_with_its_environment() {
    let programs = Programs::examples();
    let directory = programs.directory.path().canonicalize().unwrap();
    let json = printing_plan(&directory);
    std::fs::write(programs.path("plan.json"), &json).unwrap();
    let exec = || {
        let mut exec = programs.checked(&programs.path("exec_role"));
        exec.env("SLURM_LOCALID", "3").env("UCX_TLS", "rc").env("KEPT", "yes");
        exec
    };
    let in_a_job =
        succeeded(exec().env("SLURM_DISAGG_PLAN", &json).env("DISAGG_SERVING_TYPE", "GEN_0"));
    let from_a_file = succeeded(exec().args(["./plan.json", "GEN_0"]));
    for printed in [in_a_job, from_a_file] {
        let mut lines = printed.lines();
        assert_eq!(lines.next(), directory.to_str());
        assert_eq!(lines.next(), Some("one $(argument) with no UCX_TLS"));
        let environment: Vec<_> = lines.collect();
        for variable in ["CACHE=/tmp/c_3", "DISAGG_SERVING_TYPE=GEN_0", "KEPT=yes", "LLM_ROOT=/src"]
        {
            assert!(environment.contains(&variable), "{variable}\n{environment:?}");
        }
    }
    let names = succeeded(exec().arg("./plan.json"));
    assert_eq!(
        names.lines().collect::<Vec<_>>(),
        ["GEN_0", "CTX_0", "CTX_1", "DISAGG_SERVER", "BENCHMARK"]
    );
    let output = ran(exec().args(["./plan.json", "GEN_7"]));
    assert_eq!(output.status.code(), Some(2));
    let output = ran(exec().args(["./plan.json", "CTX_0"]));
    assert_eq!(output.status.code(), Some(126), "its directory does not exist");
}
