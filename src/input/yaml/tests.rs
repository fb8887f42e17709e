// SPDX-License-Identifier: Apache-2.0
//! What YAML is read as, and what is refused.

use super::*;
use proptest::prelude::*;

fn source(text: &str) -> Arc<Source> {
    Arc::new(Source::new("t.yaml", text))
}

fn refused(text: &str) -> String {
    parse(&source(text)).unwrap_err().to_string()
}

fn scalar(node: Option<&Node>) -> (&str, bool) {
    match &node.unwrap().value {
        Value::Scalar { text, plain } => (text, *plain),
        _ => panic!("not a scalar"),
    }
}

#[test]
fn scalars_keep_their_text_and_whether_they_were_quoted() {
    let document = parse(&source("a: 010\nb: '010'\nc: |\n  x\n")).unwrap();
    let root = document.root.unwrap();
    assert_eq!(scalar(root.get("a")), ("010", true));
    assert_eq!(scalar(root.get("b")), ("010", false));
    assert_eq!(scalar(root.get("c")), ("x\n", false));
    assert_eq!(root.get("b").unwrap().position, Position { line: 2, column: 4, length: 5 });
}

#[test]
fn merge_keys_give_way_to_the_mapping_s_own() {
    let document = parse(&source("x: &p {t: 8, q: 2}\ny:\n  <<: *p\n  t: 2\n")).unwrap();
    let y = document.root.as_ref().unwrap().get("y").unwrap().clone();
    assert_eq!(scalar(y.get("t")).0, "2");
    assert_eq!(scalar(y.get("q")).0, "2");
}

#[test]
fn a_key_that_stands_twice_is_warned_about_and_the_last_one_counts() {
    let document = parse(&source("a: 1\na: 2\n")).unwrap();
    assert_eq!(scalar(document.root.unwrap().get("a")).0, "2");
    assert!(document.warnings.to_string().starts_with("t.yaml:2:1: warning: duplicate key `a`"));
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for i in 1..12 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(",");
        text.push_str(&format!("a{i}: &a{i} [{aliases}]\n"));
    }
    assert!(refused(&text).contains("repeat more than 20000 values"));
}

#[test]
fn bytes_that_aliases_and_anchors_repeat_are_counted() {
    let long = "x".repeat(30_000);
    let aliases = format!("a: &a {long}\nb: [{}]\n", "*a,".repeat(1000));
    assert!(refused(&aliases).contains("1 MiB"));
    let anchors: String = (0..60).map(|i| format!("&a{i} [")).collect();
    assert!(refused(&format!("{anchors}{long}{}", "]".repeat(60))).contains("1 MiB"));
    let few = format!("a: &a [{long}]\nb: [*a, *a]\nc: {{<<: {{d: *a}}}}\n");
    assert!(parse(&source(&few)).is_ok());
}

#[test]
fn many_keys_take_time_in_proportion() {
    // Compared one by one, these keys take minutes.
    let different: String = (0..98_000).map(|i| format!("k{i}: 1\n")).collect();
    let document = parse(&source(&different)).unwrap();
    assert!(matches!(document.root.unwrap().value, Value::Map(all) if all.len() == 98_000));
    let document = parse(&source(&"k: 1\n".repeat(98_000))).unwrap();
    assert_eq!((document.warnings.0.len(), document.warnings.has_errors()), (101, false));
    let _ = document.warnings.to_string();
    let merged = format!("{{<<: {{{}}}}}", different.replace('\n', ", "));
    assert!(parse(&source(&merged)).is_ok());
}

#[test]
fn a_value_that_is_missing_stands_behind_its_key() {
    let document = parse(&source("a:\nb:\n  c:\n")).unwrap().root.unwrap();
    let place = |node: Option<&Node>| (node.unwrap().position.line, node.unwrap().position.column);
    assert_eq!(place(document.get("a")), (1, 2));
    assert_eq!(place(document.get("b").unwrap().get("c")), (3, 4));
}

#[test]
fn deep_nesting_is_refused() {
    assert!(refused(&"[".repeat(100)).contains("nested deeper"));
    assert!(refused(&"[".repeat(100_000)).starts_with("t.yaml:1:"));
    assert!(refused(&"- ".repeat(10_000)).contains("nested deeper"));
}

#[test]
fn what_is_not_one_plain_document_is_refused_with_its_place() {
    assert!(refused("a: [\n").starts_with("t.yaml:"));
    assert!(refused("a: 1\n---\nb: 2\n").starts_with("t.yaml:2:"));
    assert!(refused("a: !!python/object:os.system x\n").starts_with("t.yaml:1:"));
    assert!(refused("a: \0\n").starts_with("t.yaml:1:4: error: a NUL byte"));
    for nul in ["\\0", "\\x00", "\\u0000", "\\U00000000"] {
        let error = refused(&format!("a: 1\nb: \"x{nul}\"\n"));
        assert!(error.starts_with("t.yaml:2:4: error: this value contains an esc"), "{error}");
    }
    assert!(refused("\"\\0\": 1").starts_with("t.yaml:1:1: "));
    assert!(refused("a: &a [*a]\n").starts_with("t.yaml:1:"));
    assert!(refused("a: *nowhere\n").starts_with("t.yaml:1:"));
}

#[test]
fn an_empty_file_has_no_root() {
    assert!(parse(&source("")).unwrap().root.is_none());
    assert!(parse(&source("# only this\n")).unwrap().root.is_none());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[ \\-\\[\\]{}:,&*!|>'\"#a\n\t?]{0,60}") {
        let _ = parse(&source(&text));
    }
}
