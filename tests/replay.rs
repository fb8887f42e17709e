// SPDX-License-Identifier: Apache-2.0
//! Inputs that once cost too much or broke a promise: those that fuzzing found, and fragments
//! repeated up to 24 KiB. Each is read by its parser, and everything that a person would see of the
//! result is written out.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[path = "../fuzz/oracles.rs"]
mod oracles;

use oracles::{configuration, expanded, list, prefix, repeated, test_id, timed};

#[test]
fn inputs_that_fuzzing_found_are_read_or_refused_at_once() {
    let mut replayed = 0;
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_inputs");
    for target in std::fs::read_dir(place).unwrap() {
        let target = target.unwrap();
        for file in std::fs::read_dir(target.path()).unwrap() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            oracles::run(target.file_name().to_str().unwrap(), &std::fs::read(&path).unwrap());
            replayed += 1;
        }
    }
    oracles::finish();
    let config = std::fs::read_to_string("tests/standin/configs/standin_3nodes.yaml").unwrap();
    assert_eq!(oracles::plan(&config), 3, "the checks plan what can be planned");
    assert!(replayed >= 11, "{replayed} were found");
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
        configuration,
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
    repetitions(expanded, &[("", fragments, ""), ("A=", fragments, ""), ("x{", fragments, "")]);
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
    timed("a long id", || test_id(&id));
}
