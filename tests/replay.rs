// SPDX-License-Identifier: Apache-2.0
//! Inputs that once cost too much or broke a promise: those that fuzzing found, and fragments
//! repeated up to 24 KiB. Each is read by its parser, and everything that a person would see of the
//! result is written out.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use disagg::diagnostic::{Diagnostic, Source};
use disagg::input::request::{self, Options};
use disagg::input::test_list::{self, Pick, TestList};
use disagg::input::{Context, config, prefix_script};
use disagg::plan::{Plan, Template, TestId, assignments, pytest};

/// What took seconds to hours takes less than this, without optimization.
const LIMIT: Duration = Duration::from_secs(2);

/// How long this thread has computed: a busy machine does not make it longer.
fn computed() -> Duration {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(statistics.split(' ').next().unwrap().parse().unwrap())
}

fn timed(what: &str, read: impl FnOnce()) {
    let start = computed();
    read();
    let took = computed() - start;
    assert!(took < LIMIT, "{what} took {took:?}");
}

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new("input", text))
}

fn show<'d>(diagnostics: impl IntoIterator<Item = &'d Diagnostic>) {
    for diagnostic in diagnostics {
        let shown = diagnostic.to_string();
        assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    }
}

fn prefix(text: &str) {
    match prefix_script::parse(&source(text)) {
        Ok((base, warnings)) => {
            let options: Vec<_> =
                base.argv[base.pytest_at() + 1..].iter().map(|word| word.value.as_str()).collect();
            let joined: Vec<_> = pytest::groups(&options).unwrap().into_iter().flatten().collect();
            assert_eq!(joined, (0..options.len()).collect::<Vec<_>>());
            show(&warnings);
        }
        Err(errors) => show(&errors.0),
    }
}

fn list(text: &str) {
    let use_up = |list: TestList| {
        for entry in &list.entries {
            match &entry.readings {
                Ok(readings) => assert!(readings.iter().all(|id| !id.config.contains('/'))),
                Err(error) => show([error]),
            }
        }
        for pick in [Pick::Only, Pick::Number(-1), Pick::Matching("a"), Pick::Matching("*-*b")] {
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
}

fn read_config(text: &str) {
    match config::parse("c", &source(text)) {
        Ok((config, warnings)) => show(warnings.iter().chain(&config.bad_fields)),
        Err(errors) => show(&errors.0),
    }
}

fn plan(text: &str) {
    let options = Options {
        config: "c.yaml".into(),
        trtllm_dir: Some("/src".into()),
        models_dir: Some("/models".into()),
        site: Some("/dev/null".into()),
        ..Options::default()
    };
    for id in [None, Some("disagg-e2e-c"), Some("aggr-ctx_only-c"), Some("aggr-c-s")] {
        let options = Options { test_id: id.map(str::to_owned), ..options.clone() };
        let context = Context { env: &|_| None, current_dir: PathBuf::from("/work") };
        match request::plan_text(&options, &source(text), &context) {
            Ok((plan, warnings)) => {
                show(&warnings);
                let json = plan.to_json().unwrap();
                assert_eq!(Plan::from_json(&json).unwrap().to_json().unwrap(), json);
            }
            Err(errors) => show(&errors.0),
        }
    }
    read_config(text);
}

fn words(text: &str) {
    if let Ok(all) = assignments::parse(text) {
        assert!(all.iter().all(|one| one.value.expand(|_| Some("x")).is_ok()));
    }
    assert!(Template::from_written(text).expand(|_| Some("x")).is_ok());
}

#[test]
fn inputs_that_fuzzing_found_are_read_or_refused_at_once() {
    let mut replayed = 0;
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_inputs");
    for target in std::fs::read_dir(place).unwrap() {
        let target = target.unwrap();
        let read = match target.file_name().to_str().unwrap() {
            "prefix" => prefix,
            "testlist" => list,
            "yaml_plan" => plan,
            "envrender" | "quoting" => words,
            unknown => panic!("{unknown} has no parser here"),
        };
        for file in std::fs::read_dir(target.path()).unwrap() {
            let path = file.unwrap().path();
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            timed(&path.display().to_string(), || read(&text));
            replayed += 1;
        }
    }
    assert!(replayed >= 6, "{replayed} were found");
}

/// A text that repeats a fragment up to 24 KiB; `%` in it is a number.
fn repeated(start: &str, fragment: &str, end: &str) -> String {
    let mut text = start.to_owned();
    for number in 0.. {
        if text.len() + end.len() + fragment.len() >= 24 << 10 {
            break;
        }
        text.push_str(&fragment.replace('%', &number.to_string()));
    }
    text + end
}

fn repetitions(read: fn(&str), all: &[(&str, &[&str], &str)]) {
    for (start, fragments, end) in all {
        for fragment in *fragments {
            let text = repeated(start, fragment, end);
            timed(&format!("{start:.60?} and {fragment:?} again and again"), || read(&text));
        }
    }
}

const SIZE: &str = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}\n";

#[test]
fn a_repetition_in_a_configuration_costs_no_more_than_its_length() {
    let long = format!("{SIZE}x: &a \"{}\"\ny: [", "x".repeat(20_000));
    let many: String = (0..2500).map(|i| format!("k{i}: x,")).collect();
    let merged = format!("{SIZE}x: &a {{{many}}}\ny: {{");
    let merged_list = format!("{SIZE}x: &a {{{many}}}\ny: {{<<: [");
    let typos: String = (0..800).map(|i| format!("tensor_paralel_sz{i}: x,")).collect();
    let typos = format!("{SIZE}x: &a {{{typos}}}\nserver_configs: [");
    let text =
        format!("{SIZE}x: &a {{server_env_var: \"{}\"}}\nserver_configs: [", "A=$B ".repeat(5000));
    let nested: String = (0..60).map(|i| format!("&a{i} [")).collect();
    repetitions(
        read_config,
        &[
            (
                SIZE,
                &[
                    "k%:\n",
                    "k:\n",
                    "? k%\n",
                    "- x\n",
                    "k%: &a% x\n",
                    "k%: {a: 1}\n",
                    "k%: [",
                    "[",
                    "{",
                    "- ",
                    "? ",
                    "&a ",
                    "!!str ",
                    "k%: |\n  x\n",
                    "k%: >\n\n",
                    "#c\n",
                    "\n",
                    "k%: 'x\n",
                    "k%: \"",
                    "--- ",
                    "...\n",
                    " ",
                    "\t",
                    "é",
                    "k%: *a\n",
                    "\r",
                    "tensor_parallel_siz%:\n",
                    "hardwar: 1\n",
                    "k%: a b\n c\n",
                    "k%: - \n",
                    "：\n",
                ],
                "\n",
            ),
            (&format!("{SIZE}x: \""), &["\\\n", "\\x41", "\n", "a\n", "a ", "\\0"], "\"\n"),
            (&format!("{SIZE}x: ["), &["a,", "[],", "a: b,", "&a x,", "*a,", "a: ,", "\n"], "]\n"),
            (&format!("{SIZE}x: {{"), &["a%,", "a%: b,", "a: ,", "? a,"], "}\n"),
            (&format!("{SIZE}x: &a {{q: 1}}\ny: ["), &["*a,"], "]\n"),
            (&format!("{SIZE}x: {nested}"), &["x"], &"]".repeat(60)),
            (&long, &["*a,"], "]\n"),
            (&typos, &["*a,"], "]\n"),
            (&text, &["*a,"], "]\n"),
            (&merged, &["<<: *a,"], "}\n"),
            (&merged_list, &["*a,"], "]}\n"),
            (
                &format!("{SIZE}server_configs:\n"),
                &[
                    "- {name: a%}\n",
                    "- {name: a, tensor_parallel_size: x}\n",
                    "- {}\n",
                    "- x\n",
                    "- {server_env_var: 1}\n",
                    "- {tensor_parallel_siz: 1}\n",
                    "- {server_env_var: A=$(id)}\n",
                ],
                "",
            ),
            (
                &format!("{SIZE}server_configs: ["),
                &["{server_env_var: x},", "{a: 1, a: 1},"],
                "]\n",
            ),
            (&format!("{SIZE}metadata: {{supported_gpus: ["), &["GB200,", "yes,"], "]}\n"),
            (
                &format!("{SIZE}benchmark: {{concurrency_list: '"),
                &["1 ", ",", "99999999999 "],
                "'}\n",
            ),
        ],
    );
}

#[test]
fn a_repetition_in_an_environment_string_costs_no_more_than_its_length() {
    let fragments: &[&str] = &[
        "A=1 ", "A%=1 ", "A%=$B ", "A='x' ", "\\\n", "''", "\"\"", "$", "$$", "A=$B", "\"", "'",
        "`", "x ", "A=", "{", "A=1;", "~", "A=~", "\u{3000}", "\\$B", "${", "$A\\\n", "#",
    ];
    repetitions(words, &[("", fragments, ""), ("A=", fragments, ""), ("x{", fragments, "")]);
}

#[test]
fn a_repetition_in_a_script_prefix_costs_no_more_than_its_length() {
    repetitions(
        prefix,
        &[
            (
                "",
                &[
                    "a=\\\n",
                    "a%=\\\n",
                    "a=\"\n",
                    "a='\n",
                    "a=$a\n",
                    "a=x\n",
                    "a%=x\n",
                    "x\n",
                    "\n",
                    " ",
                    "a=",
                    "a=$(x)\n",
                    "a=\"x\\\n",
                    "export \n",
                    "a=x'\n'\n",
                    "a=x\na=$a$a\n",
                ],
                "\nexport pytestCommand=\"pytest a.py\"\n",
            ),
            ("a=x\n", &["a=$a$a\n", "a=$a${a}x\n"], "\nexport pytestCommand=\"pytest a.py\"\n"),
            ("", &["a=\\\n"], "$(id)\nexport pytestCommand=\"pytest a.py\"\n"),
            (
                "export pytestCommand=\"",
                &[
                    "pytest ",
                    "-k x ",
                    "--cov ",
                    "x ",
                    "\\\n",
                    "'",
                    "$A ",
                    "\\\\\\\"",
                    "--cov a::b ",
                ],
                " pytest\"\n",
            ),
            (
                "export pytestCommand=\"pytest ",
                &["-k x ", "--csv-columns ", "x ", "--cov a::b ", "--junit-xml=x ", "-", "{", "{}"],
                "\"\n",
            ),
        ],
    );
}

#[test]
fn a_repetition_in_a_test_list_costs_no_more_than_its_length() {
    let lines: &[&str] =
        &["t[disagg-e2e-a]\n", "t[aggr-a-b]\n", "[", "[]", "[x]", "t[x]", "#\n", "\n", "x\n", "- "];
    repetitions(
        list,
        &[
            ("", lines, ""),
            ("t[aggr-", &["a-", "-", "a"], "b]\n"),
            ("", &["t[aggr-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a-a]\n"], ""),
            ("l:\n- tests:\n", &["  - p.py::t[disagg-e2e-a]\n", "  - x\n", "  - {}\n"], ""),
            ("l:\n- tests: [", &["x,", "é,", "{},"], "]\n"),
            ("l:\n", &["- tests: [x]\n", "- x: 1\n"], ""),
        ],
    );
    let id = format!("aggr{}", "-a".repeat(15_000));
    timed("a long id", || {
        show([&Diagnostic::error(TestId::readings(&id, None).unwrap_err().help)])
    });
}
