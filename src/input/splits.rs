// SPDX-License-Identifier: Apache-2.0
//! Which test of a list a job runs, where that is not said by its number: the one that pytest-split
//! chooses by durations, since the test itself is started with those options. And which tests the
//! suite skips.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};
use std::path::Path;

use serde_json::Value;

use super::source;
use super::test_list::{Entry, TestList, split_marker};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::plan::command::{TEST_ROOT, file_name};
use crate::plan::{Origin, pytest};

/// The one algorithm of pytest-split that the suite's launcher knows.
const ALGORITHM: &str = "least_duration";
/// The file of durations, where the command names none.
const DURATIONS: &str = ".test_durations";
/// The tests that the suite skips, below the source tree.
const WAIVES: &str = "tests/integration/test_lists/waives.txt";

/// The test of a group, by the options of the command; `None` when they do not split the list.
///
/// # Errors
/// Options that contradict each other, no file of durations, or a group of more or fewer than one.
pub fn pick<'l>(
    list: &'l TestList,
    group: i64,
    options: &[&str],
    source_dir: &Path,
    current_dir: &Path,
) -> Result<Option<&'l Entry>, Diagnostics> {
    let value = |name| pytest::value_of(options, &[name]);
    let (Some(splits), Some(given)) = (value("--splits"), value("--group")) else {
        return Ok(None);
    };
    if group <= 0 || list.entries.is_empty() {
        return Ok(None);
    }
    let wrong = |message: String, help: &str| {
        Diagnostics::from(Diagnostic::error(format!("pytestCommand: {message}")).help(help))
    };
    if value("--splitting-algorithm") != Some(ALGORITHM) {
        let message = format!("the list is split, and not by {ALGORITHM}");
        return Err(wrong(message, "give --splitting-algorithm least_duration"));
    }
    let number = |name: &str, text: &str| {
        text.trim()
            .parse::<i64>()
            .map_err(|_| wrong(format!("invalid {name} {text:?}"), "use a whole number"))
    };
    let (splits, given) = (number("--splits", splits)?, number("--group", given)?);
    if given != group {
        let message = format!("--group is {given}, and --split-group is {group}");
        return Err(wrong(message, "give the same number to both"));
    }
    let defs = source_dir.join(TEST_ROOT);
    let path = match value("--durations-path").map(|path| current_dir.join(path)) {
        Some(path) if path.is_file() => path,
        Some(path) => defs.join(file_name(&path.to_string_lossy())),
        None => defs.join(DURATIONS),
    };
    let known = durations(&path)?;
    if splits < 1 || !(1..=splits).contains(&given) {
        return Err(wrong(format!("there is no group {given} of {splits}"), "count from 1"));
    }
    let chosen = group_of(list, &known, splits, given);
    match chosen[..] {
        [only] => Ok(Some(only)),
        _ => {
            let message = format!(
                "group {given} of {splits} has {} tests of {}; a job runs one test",
                chosen.len(),
                list.name
            );
            let help = format!("the list has {0} tests: use --splits {0}", list.entries.len());
            let names = chosen.iter().map(|entry| entry.node_id().to_owned());
            Err(Diagnostic::error(message).details(names).help(help).into())
        }
    }
}

/// The durations of a file: an object, or a list of pairs.
fn durations(path: &Path) -> Result<HashMap<String, f64>, Diagnostics> {
    let shown = path.to_string_lossy();
    let text = source::read(path, &shown).map_err(|error| {
        Diagnostic::error(format!("the durations of the tests cannot be read: {}", error.message))
            .help("pytest-split needs that file; --durations-path names another")
    })?;
    let pair = |pair: &Value| match pair.as_array().map(Vec::as_slice) {
        Some([Value::String(name), seconds]) => Some((name.clone(), seconds.as_f64()?)),
        _ => None,
    };
    let read = match serde_json::from_str(&text.text) {
        Ok(Value::Object(map)) => map
            .into_iter()
            .map(|(name, seconds)| Some((name, seconds.as_f64()?)))
            .collect::<Option<_>>(),
        Ok(Value::Array(pairs)) => pairs.iter().map(pair).collect(),
        _ => None,
    };
    read.ok_or_else(|| {
        let help = "write {\"TEST\": SECONDS, ...}";
        Diagnostic::error(format!("{shown}: these are no durations of tests")).help(help).into()
    })
}

/// Seconds, in their order.
#[derive(PartialEq)]
struct Seconds(f64);

impl Eq for Seconds {}

impl PartialOrd for Seconds {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Seconds {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// The tests of a group: the longest first, each to the group that has the least so far. A test
/// whose duration is not known takes as long as the others on average.
fn group_of<'l>(
    list: &'l TestList,
    known: &HashMap<String, f64>,
    splits: i64,
    group: i64,
) -> Vec<&'l Entry> {
    let of_list: HashMap<&str, f64> = list
        .entries
        .iter()
        .filter_map(|entry| Some((entry.node_id(), *known.get(entry.node_id())?)))
        .collect();
    let average = match of_list.len() {
        0 => 1.0,
        count => of_list.values().sum::<f64>() / count as f64,
    };
    let seconds = |entry: &Entry| of_list.get(entry.node_id()).copied().unwrap_or(average);
    let mut order: Vec<_> = list.entries.iter().collect();
    order.sort_by_key(|entry| entry.node_id());
    order.sort_by_key(|entry| Reverse(Seconds(seconds(entry))));
    // No more groups than tests can have one.
    let groups = splits.min(i64::try_from(order.len()).unwrap_or(i64::MAX));
    let mut totals: BinaryHeap<_> =
        (1..=groups).map(|number| Reverse((Seconds(0.0), number))).collect();
    let mut chosen = Vec::new();
    for entry in order {
        let Some(Reverse((Seconds(total), number))) = totals.pop() else { break };
        totals.push(Reverse((Seconds(total + seconds(entry)), number)));
        if number == group {
            chosen.push(entry);
        }
    }
    chosen.sort_by_key(|entry| entry.number);
    chosen
}

/// Why the suite skips a test: its own marker, or a line of the list of waived tests. Lines for a
/// scope (`full:SCOPE/TEST`) hold for a command whose `--test-prefix` names it.
///
/// # Errors
/// The list of waived tests cannot be read.
pub fn skipped(
    node_id: &str,
    entry: Option<&Entry>,
    prefix: Option<&str>,
    source_dir: &Path,
) -> Result<Option<Origin>, Diagnostic> {
    if let Some(entry) = entry.filter(|entry| entry.marker() == Some("SKIP")) {
        let location = Some(entry.location.clone());
        return Ok(Some(Origin { location, ..Origin::input("SKIP in the test list") }));
    }
    let path = source_dir.join(WAIVES);
    if !path.is_file() {
        return Ok(None);
    }
    let source = source::read(&path, &path.to_string_lossy())?;
    let is_of_prefix = |scope: &str| {
        let gpu = prefix.and_then(|prefix| prefix.split('-').next());
        !scope.starts_with("sm") && gpu.is_some_and(|gpu| scope.contains(gpu))
    };
    for line in source.text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if split_marker(line.split('#').next().unwrap_or_default().trim()).1 != Some("SKIP") {
            continue;
        }
        let waived = split_marker(line).0;
        let waived = match waived.strip_prefix("full:").map(|scoped| scoped.split_once('/')) {
            Some(Some((scope, test))) if is_of_prefix(scope) => test,
            Some(_) => continue,
            None => waived,
        };
        if waived == node_id {
            return Ok(Some(Origin::input(format!("SKIP in {WAIVES}"))));
        }
    }
    Ok(None)
}
