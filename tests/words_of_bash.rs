// SPDX-License-Identifier: Apache-2.0
//! Environment strings and command words against bash itself: what is accepted means what it means
//! to bash. What bash would expand and we do not is refused, which no comparison can miss.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::{Command, Stdio};

use disagg::plan::{Template, assignments, words};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// What texts are made of: all that means something to bash, and what only looks like it.
const PIECES: &[&str] = &[
    "A=", "B=", "C=x", "=", "a", "b/c", " ", "  ", "\t", "\n", "\\\n", "\\", "\\\\", "'", "\"",
    "''", "\"\"", "$", "$$", "$A", "${A}", "${B", "}", "$[1+1]", "$((1))", "$(id)", "`id`",
    "$'x\\n'", "$\"x\"", "$_", "$1", "$?", "~", "~/x", ":~", "~root", ":", "#", "#x", "*", "?",
    "[ab]", "{a,b}", "{1..3}", "{}", "{", ",", ";", "&", "|", "<", ">", "(", ")", "!", "%", "^",
    "+=", "-", "--o=", "é", "\u{a0}", "\u{3000}", "\u{2003}", "\r", "\u{b}", "\u{c}", "\u{85}",
    "\u{1}", "\u{7f}",
];

const OUTER: [(&str, &str); 3] = [("A", "outer a*"), ("B", ""), ("HOME", "/home/o")];

fn outer(name: &str) -> Option<&'static str> {
    OUTER.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

fn texts(count: usize) -> Vec<String> {
    let mut runner = TestRunner::deterministic();
    let pieces = vec(proptest::sample::select(PIECES), 1..9);
    let text = prop_oneof![
        2 => pieces.clone().prop_map(|pieces| pieces.concat()),
        3 => pieces.prop_map(|pieces| format!("A={}", pieces.concat())),
    ];
    (0..count).map(|_| text.new_tree(&mut runner).unwrap().current()).collect()
}

/// What bash prints for each script, in a shell of its own each: texts that end in NUL.
fn bash(scripts: &[String]) -> Vec<Vec<String>> {
    let empty = tempfile::tempdir().unwrap();
    let mut bash = Command::new("bash")
        .args(["--norc", "--noprofile", "-s"])
        .current_dir(&empty)
        .env_clear()
        .envs(OUTER)
        .envs([("PATH", "/usr/bin:/bin"), ("LC_ALL", "C.UTF-8")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = bash.stdin.take().unwrap();
    let text: String =
        scripts.iter().map(|script| format!("( {script} ); printf '\\n\\n%s\\0' end\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = String::from_utf8(bash.wait_with_output().unwrap().stdout).unwrap();
    writer.join().unwrap();
    let mut found = vec![Vec::new()];
    for piece in output.split_terminator('\0') {
        match piece {
            "\n\nend" => found.push(Vec::new()),
            piece => found.last_mut().unwrap().push(piece.to_owned()),
        }
    }
    found.pop();
    assert_eq!(found.len(), scripts.len());
    found
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Compares what each accepted text means here and to bash; returns how many there were.
fn compare(cases: Vec<(String, String, Vec<String>)>) -> usize {
    let scripts: Vec<_> = cases.iter().map(|(_, script, _)| script.clone()).collect();
    for ((text, _, expected), found) in cases.iter().zip(bash(&scripts)) {
        assert_eq!(expected, &found, "{text:?} here (left) and to bash (right)");
    }
    cases.len()
}

/// A reference that is escaped for an earlier shell, on purpose means another thing here.
fn is_escaped_reference(text: &str) -> bool {
    text.contains("\\$")
}

#[test]
fn an_accepted_environment_string_means_what_bash_makes_of_it() {
    let mut cases = Vec::new();
    for text in texts(40_000) {
        let Ok(all) = assignments::parse(&text) else { continue };
        let Ok(written) = words::split(&text) else { continue };
        // A name inside quotes is taken on purpose, where bash would run a command.
        if is_escaped_reference(&text) || written.iter().any(|word| !word.is_assignment) {
            continue;
        }
        let mut values: Vec<(String, String)> = Vec::new();
        for one in all {
            let value = one.value.expand(|name| {
                let set = values.iter().find(|(known, _)| known == name);
                set.map(|(_, value)| value.clone().leak() as &str).or(outer(name))
            });
            values.retain(|(known, _)| *known != one.name);
            values.push((one.name, value.unwrap()));
        }
        let print: String = values
            .iter()
            .map(|(name, _)| format!("printf '%s\\0' \"${{{name}-unset}}\";"))
            .collect();
        let script = format!("eval {} || exit; {print}", quoted(&text));
        cases.push((text, script, values.into_iter().map(|(_, value)| value).collect()));
        if cases.len() == 1500 {
            break;
        }
    }
    assert!(compare(cases) > 700);
}

#[test]
fn accepted_words_of_a_command_mean_what_bash_makes_of_them() {
    let mut cases = Vec::new();
    for text in texts(40_000) {
        let Ok(all) = words::split(&format!("print {text}")) else { continue };
        // A pattern that matches no file stays as it is, and pytest's ids are patterns: `t.py::f[x]`.
        let is_literal = all.iter().all(|word| word.value.is_literal());
        if is_escaped_reference(&text) || !is_literal {
            continue;
        }
        let value = |value: &Template| value.expand(outer).unwrap();
        let expected: Vec<_> = all[1..].iter().map(|word| value(&word.value)).collect();
        let script = format!("eval {}", quoted(&format!("print {text}")));
        let function = "print() { [ $# = 0 ] || printf '%s\\0' \"$@\"; }";
        cases.push((text, format!("{function}; {script}"), expected));
        if cases.len() == 1500 {
            break;
        }
    }
    assert!(compare(cases) > 700);
}
