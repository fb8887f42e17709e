// SPDX-License-Identifier: Apache-2.0
//! The recipes that docs/recipes.md shows: the first is whole, the others say what differs from it.

/// Each recipe by its engine.
pub fn all() -> Vec<(String, String)> {
    let page = include_str!("../../docs/recipes.md");
    let (_, page) = page.split_once("## An example for each engine").unwrap_or_default();
    let (page, _) = page.split_once("\n## ").unwrap_or_default();
    let blocks = page.split("```").filter_map(|block| block.strip_prefix("yaml\n"));
    let mut whole: Option<Vec<(&str, String)>> = None;
    let mut recipes = Vec::new();
    for block in blocks {
        let keys = keys(block);
        let first = whole.get_or_insert_with(|| keys.clone());
        let others = first.iter().filter(|(key, _)| keys.iter().all(|(own, _)| own != key));
        let text: String = keys.iter().chain(others).map(|(_, lines)| lines.as_str()).collect();
        let engine = block.split_whitespace().nth(1).unwrap_or_default();
        recipes.push((engine.to_owned(), text));
    }
    recipes
}

/// The keys of a block, each with its lines.
fn keys(block: &str) -> Vec<(&str, String)> {
    let mut keys: Vec<(&str, String)> = Vec::new();
    for line in block.lines() {
        match (line.split_once(':'), keys.last_mut()) {
            (Some((key, _)), _) if !line.starts_with(' ') => keys.push((key, format!("{line}\n"))),
            (_, Some((_, lines))) => *lines += &format!("{line}\n"),
            _ => {}
        }
    }
    keys
}
