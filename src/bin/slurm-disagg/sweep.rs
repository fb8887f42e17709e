// SPDX-License-Identifier: Apache-2.0
//! `--sweep KEY=V1,V2`: one submission for each combination of values.

use std::path::Path;

use disagg::diagnostic::Diagnostic;
use disagg::input::find;
use disagg::input::request::Options;

/// The most jobs of one sweep.
const MOST: usize = 1000;

/// The options of each job: its values, and a workspace of its own below the one that is given.
pub fn variants(options: Options, sweeps: &[String]) -> Result<Vec<Options>, Diagnostic> {
    if sweeps.is_empty() {
        return Ok(vec![options]);
    }
    let named = [Some(&options.config), options.test_id.as_ref(), options.test_list.as_ref()];
    let named = named.into_iter().flatten().find(|name| !name.is_empty());
    let name = named.and_then(|name| Path::new(name).file_name()?.to_str()).unwrap_or_default();
    let base = options.workspace.clone();
    let base = base.unwrap_or_else(|| format!("disagg_{}", find::without_ending(name)));
    let mut all = vec![(String::new(), options)];
    for sweep in sweeps {
        let wrong = |what: &str| {
            let message = format!("--sweep {sweep}: {what}");
            Diagnostic::error(message).help("write it as hardware.num_gen_servers=1,2,4")
        };
        let (key, values) = sweep.split_once('=').ok_or_else(|| wrong("this is no KEY=VALUE,…"))?;
        let values = split(values);
        let last = key.rsplit('.').next().unwrap_or_default();
        let mut longer = Vec::new();
        for (folder, options) in &all {
            for value in &values {
                let mut options = options.clone();
                options.set.push(format!("{key}={value}"));
                let comma = if folder.is_empty() { "" } else { "," };
                let folder = format!("{folder}{comma}{last}={value}");
                longer.push((folder.replace(unusual, "_"), options));
            }
        }
        if longer.len() > MOST {
            return Err(wrong(&format!("this makes more than {MOST} jobs")));
        }
        all = longer;
    }
    let mut known: Vec<String> = Vec::new();
    let workspace = |(folder, options): (String, Options)| {
        if known.contains(&folder) {
            let message = format!("two jobs of the sweep have the workspace {folder}");
            return Err(Diagnostic::error(message).help("sweep over different values"));
        }
        let workspace = Path::new(&base).join(&folder).to_string_lossy().into_owned();
        known.push(folder);
        Ok(Options { workspace: Some(workspace), ..options })
    };
    all.into_iter().map(workspace).collect()
}

/// Whether a character is awkward in the name of a directory.
fn unusual(c: char) -> bool {
    !(c.is_alphanumeric() || "._=,-".contains(c))
}

/// Values between commas, except those in brackets and quotes.
fn split(values: &str) -> Vec<&str> {
    let (mut depth, mut quote, mut start) = (0_usize, None, 0);
    let mut found = Vec::new();
    for (at, c) in values.char_indices() {
        match (quote, c) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != c),
            (None, '"' | '\'') => quote = Some(c),
            (None, '[' | '{') => depth += 1,
            (None, ']' | '}') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                found.push(&values[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&values[start..]);
    found
}
