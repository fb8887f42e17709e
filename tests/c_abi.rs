// SPDX-License-Identifier: Apache-2.0
//! The C library as a C program sees it: the committed header, the built `libslurm_disagg.so`, a C
//! compiler, valgrind.
//!
//! The library is the one that `make build` leaves in `build/`; `DISAGG_BUILD_DIR` names another
//! directory.

// A helper of a test may fail as the test itself may.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use disagg::diagnostic::Source;
use disagg::input::Context;
use disagg::input::request::{Options, plan_text};
use disagg::plan::{Argument, Origin, Traced};

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

    /// Compiles tests/c/cases.c.
    fn compile(&self, libraries: &[&str]) -> PathBuf {
        let program = self.path("program");
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-pthread"])
            .arg("-I")
            .arg(root().join("include"))
            .arg("-o")
            .args([&program, &root().join("tests/c/cases.c")])
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

/// The functions that the header declares, each with its parameters.
fn functions() -> Vec<(String, Vec<String>)> {
    let header = std::fs::read_to_string(root().join("include/slurm_disagg.h")).unwrap();
    let (_, code) = header.split_once("extern \"C\" {").unwrap();
    let is_code = |line: &&str| !line.trim_start().starts_with(['/', '*', '#']);
    let code = code.lines().filter(is_code).collect::<Vec<_>>().join(" ");
    let declared = code.split(';').filter_map(|declaration| declaration.split_once('('));
    let function = |(head, parameters): (&str, &str)| {
        let (_, name) = head.rsplit_once([' ', '*']).unwrap();
        (name.to_owned(), parameters.split(',').map(str::to_owned).collect())
    };
    declared.map(function).collect()
}

#[test]
fn exactly_the_functions_of_the_header_are_exported() {
    let library = build_dir().join("libslurm_disagg.so");
    let symbols = succeeded(Command::new("nm").args(["-D", "--defined-only"]).arg(library));
    let exported: BTreeSet<_> =
        symbols.lines().filter_map(|line| line.split_whitespace().last()).collect();
    let functions = functions();
    assert_eq!(exported, functions.iter().map(|(name, _)| name.as_str()).collect());
}

#[test]
fn the_cases_pass_null_for_every_pointer_of_every_function() {
    let cases = std::fs::read_to_string(root().join("tests/c/cases.c")).unwrap();
    let (_, cases) = cases.split_once("null_is_an_error_or_harmless(void)\n").unwrap();
    let (cases, _) = cases.split_once("\n}\n").unwrap();
    for (name, parameters) in functions() {
        let may_be_null = ["**error", "*hostlist", "*base"];
        let has_error = parameters.iter().any(|parameter| parameter.ends_with("**error)"));
        let pointers = parameters.iter().filter(|parameter| {
            let name = parameter.trim_end_matches(')');
            parameter.contains('*') && !may_be_null.iter().any(|other| name.ends_with(other))
        });
        let call = if has_error { format!("CHECK_NULL({name}(") } else { format!("{name}(NULL") };
        let expected = pointers.count();
        assert_eq!(cases.matches(&call).count(), expected, "{name}({parameters:?}");
    }
}

#[test]
fn the_cases_pass_with_the_shared_library() {
    let programs = Programs::new();
    let program = programs.compile(&["-lslurm_disagg"]);
    succeeded(programs.checked(&program).arg(programs.path("two_kinds.yaml")));
}

#[test]
fn the_cases_pass_in_a_program_without_shared_libraries() {
    let programs = Programs::new();
    let libraries = succeeded(
        Command::new("pkg-config")
            .args(["--static", "--libs", "slurm_disagg"])
            .env("PKG_CONFIG_PATH", &programs.build),
    );
    let libraries: Vec<_> = ["-static"].into_iter().chain(libraries.split_whitespace()).collect();
    let program = programs.compile(&libraries);
    let headers = succeeded(Command::new("readelf").arg("-l").arg(&program));
    assert!(!headers.contains("INTERP"), "{headers}");
    let mut command = Command::new(&program);
    succeeded(command.arg("two_kinds.yaml").current_dir(programs.directory.path()));
}

#[test]
fn the_python_binding_says_what_the_library_says() {
    let build = build_dir();
    let mut python = Command::new("python3");
    python.args(["-B", "-W", "error"]).arg(root().join("tests/c/binding.py"));
    python.arg(root().join("include/slurm_disagg.h")).env("PYTHONPATH", root().join("python"));
    python.env("SLURM_DISAGG_LIBRARY", build.join("libslurm_disagg.so"));
    succeeded(&mut python);
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let found = succeeded(Command::new("find").arg(directory).args(["!", "-type", "d"]));
    found.lines().map(PathBuf::from).collect()
}

#[test]
fn an_installation_is_complete_and_uninstall_leaves_nothing_of_it() {
    let _ = build_dir();
    let place = tempfile::tempdir().unwrap();
    let make = |goal: &str| {
        let mut make = Command::new("make");
        make.args([goal, "PREFIX=/usr", "LIBDIR=/usr/lib/here", "PLUGINDIR=/usr/lib/slurm"]);
        make.arg(format!("DESTDIR={}", place.path().display())).env_remove("MAKEFLAGS");
        succeeded(make.current_dir(root()));
    };
    make("install");
    for file in [
        "bin/slurm-disagg",
        "lib/here/libslurm_disagg.so.0",
        "lib/here/pkgconfig/slurm_disagg.pc",
        "lib/slurm/spank_disagg.so",
        "share/slurm-disagg/job_submit_disagg.lua",
        "share/slurm-disagg/python/slurm_disagg.py",
        "share/man/man1/slurm-disagg-plan.1",
        "share/man/man5/disagg.conf.5",
        "share/man/man8/slurm-disagg-plugins.8",
    ] {
        assert!(place.path().join("usr").join(file).exists(), "{file}");
    }
    let other = place.path().join("usr/share/slurm-disagg/site.yaml");
    std::fs::write(&other, "").unwrap();
    make("uninstall");
    assert_eq!(files(place.path()), [other]);
}

// ---- the examples

#[test]
fn the_example_prints_a_plan() {
    let programs = Programs::examples();
    let mut print = programs.checked(&programs.path("print_plan"));
    let printed = succeeded(print.args(["./two_kinds.yaml", "/src", "n[1-4]"]));
    for line in [
        "4 nodes with 4 GPUs each for 04:00:00",
        "  CTX               2 x 1 nodes, 4 tasks",
        "CTX_1: 1 nodes from number 3, 4 tasks, MPI pmix",
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
    let rejected = "rejected: the job requests 3 nodes, but the test needs 4";
    assert_eq!(hook(&["3"]), (Some(1), rejected.into()));
    let rejected = "rejected: the job requests 8 tasks, but the test needs 16";
    assert_eq!(hook(&["4", "8"]), (Some(1), rejected.into()));
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
        .map(|argument| Traced::new(Argument::literal(argument), Origin::default()))
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
        let mut exec = programs.checked(&programs.path("exec_step"));
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
