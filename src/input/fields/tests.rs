// SPDX-License-Identifier: Apache-2.0
//! What is said of fields that are wrong.

use std::sync::Arc;

use super::*;
use crate::diagnostic::Source;
use crate::input::yaml;

fn refused(text: &str) -> String {
    let document = yaml::parse(&Arc::new(Source::new("a.yaml", text))).unwrap();
    let (mut fields, root) = Fields::new(&document);
    let _ = fields.assignments(&root, "e");
    let _ = fields.integer(&root, "n", 1..=9);
    fields.section(&root, "s");
    fields.warn_of_typos(&root, &["e", "n", "s"]);
    let found = fields.diagnostics.0.into_iter().chain(fields.bad_fields.0);
    Diagnostics(found.collect()).to_string()
}

#[test]
fn an_error_in_an_environment_string_has_its_place_in_the_file() {
    for (text, place) in [
        ("e: A=1 B=$(id)", "1:10"),
        ("e: 'é=1'", "1:5"),
        ("e: \"A=1 B=~\"", "1:11"),
        ("n: 1\ne: |\n  A=1\n  B=2 C=$(id)\n", "4:9"),
        ("e: A=1\n  B=$(id)\n", "1:4"),
        ("e: >\n  A=1\n  B=$(id)\n", "2:3"),
    ] {
        let error = refused(text);
        assert!(error.starts_with(&format!("a.yaml:{place}: error: e: ")), "{text:?}\n{error}");
    }
}

#[test]
fn full_width_characters_are_named() {
    assert!(refused("n: ４").contains("write plain digits, 0 to 9"));
    assert!(refused("s:\n  a：4").starts_with("a.yaml:2:4: error: this is a full-width colon"));
    assert!(refused("s:\n  a:4").starts_with("a.yaml:2:4: error: a space is missing"));
}

#[test]
fn a_mistyped_size_is_an_error_and_another_mistyped_key_a_warning() {
    let known = ["tensor_parallel_size", "kv_cache_config"];
    for (key, mistyped) in
        [("tensor_parallel_sise", 1), ("tensor_paralel_sise", 0), ("kv_cache_confg", 0)]
    {
        let source = Arc::new(Source::new("a.yaml", format!("{key}: 1")));
        let document = yaml::parse(&source).unwrap();
        let (mut fields, root) = Fields::new(&document);
        fields.warn_of_typos(&root, &known);
        let found = (fields.mistyped.len(), fields.diagnostics.0.len());
        assert_eq!(found, (mistyped, 1 - mistyped), "{key}");
    }
}

#[test]
fn only_so_many_keys_are_compared_with_known_ones() {
    let text: String = (0..2000).map(|i| format!("nn{i}: 1\n")).collect();
    let document = yaml::parse(&Arc::new(Source::new("a.yaml", text))).unwrap();
    let (mut fields, root) = Fields::new(&document);
    fields.refuse_unknown(&root, &["n"]);
    assert_eq!(fields.unknown_keys, MOST_TYPOS + 1);
    assert!(fields.diagnostics.has_errors());
}
