// SPDX-License-Identifier: Apache-2.0
//! The base command out of a script prefix, the file in which pipelines hand it over:
//! `export pytestCommand="NAME=VALUE … trtllm-llmapi-launch pytest …"`.
//!
//! The value is one shell word; later the run script evaluates it, so its text is read as shell
//! words once more. Nothing is run at either reading.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::source;
use crate::diagnostic::{Diagnostic, Diagnostics, Location, Position, Source};
use crate::plan::command::{BaseCommand, LAUNCHER_NAME, PYTEST, file_name};
use crate::plan::template::{Part, is_name};
use crate::plan::words::{self, Reader, WordError};
use crate::plan::{Env, Origin, Template, Traced, pytest};

/// The variable that holds the base command.
const VARIABLE: &str = "pytestCommand";

/// A base command and what is worth saying about it.
pub type Read = (BaseCommand, Vec<Diagnostic>);

/// Reads the base command from a script prefix; messages call it `shown`.
///
/// # Errors
/// The file cannot be read, has no `export pytestCommand=`, or its value is no command; with the
/// position.
pub fn read(path: &Path, shown: &str) -> Result<Read, Diagnostics> {
    parse(&source::read(path, shown)?)
}

/// Reads the base command from a script prefix's text.
///
/// # Errors
/// As [`read`].
pub fn parse(source: &Arc<Source>) -> Result<Read, Diagnostics> {
    let mut known = BTreeMap::new();
    let mut start = 0;
    for line in source.text.split_inclusive('\n') {
        let script = Script { source, start };
        start += line.len();
        let mut reader = Reader::of_script(&source.text[script.start..]);
        let blank = |c: char| c == ' ' || c == '\t';
        reader.take_until(|c| !blank(c));
        let exported =
            reader.rest().starts_with("export ") || reader.rest().starts_with("export\t");
        if exported {
            reader.take_until(blank);
            reader.take_until(|c| !blank(c));
        }
        let name = reader.take_until(|c| !c.is_ascii_alphanumeric() && c != '_');
        if !is_name(name) || !reader.skip('=') {
            continue;
        }
        if exported && name == VARIABLE {
            return script.command(reader, &known).map_err(Diagnostics::from);
        }
        match reader.word().ok().and_then(|value| resolve(&value, &known)) {
            Some(value) => known.insert(name.to_owned(), value),
            None => known.remove(name),
        };
    }
    let message = format!("{}: there is no line `export {VARIABLE}=…`", source.name);
    let help = "give the script prefix that holds the pytest command, or leave --prefix-script out";
    Err(Diagnostic::error(message).help(help).into())
}

/// The value of a template whose references are all known.
fn resolve(value: &Template, known: &BTreeMap<String, String>) -> Option<String> {
    let all_known = value.variables().all(|name| known.contains_key(name));
    all_known.then(|| value.expand(|name| known.get(name).map(String::as_str)))
}

/// A script, from one line on.
struct Script<'s> {
    source: &'s Arc<Source>,
    /// Where the line begins, in bytes.
    start: usize,
}

impl Script<'_> {
    fn at(&self, offset: usize) -> Location {
        let before = &self.source.text[..self.start + offset];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let line = before.matches('\n').count() + 1;
        let position = Position { line: line as u32, column: column as u32, length: 1 };
        Location { source: self.source.clone(), position }
    }

    fn word_error(&self, error: &WordError, location: Location) -> Diagnostic {
        let wrong = Diagnostic::error(format!("{VARIABLE}: {error}")).at(location);
        if error.help.is_empty() { wrong } else { wrong.help(error.help) }
    }

    /// Reads the value, which the reader has come to.
    fn command(
        &self,
        mut reader: Reader<'_>,
        known: &BTreeMap<String, String>,
    ) -> Result<Read, Diagnostic> {
        let value_at = self.at(reader.position());
        let value = reader.word().map_err(|error| {
            let text = &self.source.text[self.start..];
            let offset = text.char_indices().nth(error.offset).map_or(text.len(), |(at, _)| at);
            self.word_error(&error, self.at(offset))
        })?;
        let rest = reader.rest().split('\n').next().unwrap_or_default();
        if !rest.trim().is_empty() && !rest.trim().starts_with('#') {
            let blanks = rest.len() - rest.trim_start().len();
            let message = format!("{VARIABLE}: text follows the value and does not belong to it");
            return Err(Diagnostic::error(message)
                .at(self.at(reader.position() + blanks))
                .help("put the whole command into one pair of quotes"));
        }
        let mut text = String::new();
        for part in value.parts() {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Variable(name) => match known.get(name) {
                    Some(value) => text.push_str(value),
                    None => text.push_str(&format!("${{{name}}}")),
                },
                // A word of a shell has none.
                Part::Slot(_) => {}
            }
        }
        let words =
            words::split(&text).map_err(|error| self.word_error(&error, value_at.clone()))?;
        self.base(&words, value_at)
    }

    fn base(&self, words: &[Template], value_at: Location) -> Result<Read, Diagnostic> {
        let origin = Origin {
            input: format!("{VARIABLE} of the script prefix").into(),
            location: Some(value_at.clone()),
            ..Origin::default()
        };
        let mut env = Env::default();
        let mut rest = words;
        while let [word, after @ ..] = rest {
            let Some((name, value)) = word.as_str().split_once('=').filter(|(n, _)| is_name(n))
            else {
                break;
            };
            env.set(name, &Template::from_written(value), origin.clone())
                .map_err(|error| Diagnostic::error(error.to_string()).at(value_at.clone()))?;
            rest = after;
        }
        let mut argv = Vec::new();
        for word in rest {
            if let Some(name) = word.variables().next() {
                let message = format!(
                    "{VARIABLE}: the value of {name} is not known here, and an argument needs it"
                );
                return Err(Diagnostic::error(message)
                    .at(value_at)
                    .help(format!("export {name} in a line above, or write its value")));
            }
            argv.push(Traced::new(word.expand(|_| None), origin.clone()));
        }
        let Some(pytest_at) = argv.iter().position(|word| file_name(&word.value) == PYTEST) else {
            let message = format!("{VARIABLE} does not run {PYTEST}");
            return Err(Diagnostic::error(message)
                .at(value_at)
                .help("write NAME=VALUE … trtllm-llmapi-launch pytest OPTIONS"));
        };
        let launcher_at =
            argv[..pytest_at].iter().position(|word| file_name(&word.value) == LAUNCHER_NAME);
        let launcher = launcher_at.map(|at| argv.remove(at)).unwrap_or_default();
        let base =
            BaseCommand { env, launcher, argv, launcher_at: launcher_at.unwrap_or_default() };
        let warnings = self.check_options(&base, &value_at)?;
        Ok((base, warnings))
    }

    /// Refuses options whose values cannot be told from tests, and warns of a swallowed test.
    fn check_options(
        &self,
        base: &BaseCommand,
        value_at: &Location,
    ) -> Result<Vec<Diagnostic>, Diagnostic> {
        let options: Vec<_> =
            base.argv[base.pytest_at() + 1..].iter().map(|word| word.value.as_str()).collect();
        let groups = pytest::groups(&options).map_err(|error| {
            Diagnostic::error(format!("{VARIABLE}: {error}"))
                .at(value_at.clone())
                .help(format!("write {}={}", error.option, error.next))
        })?;
        let swallowed =
            groups.into_iter().filter(|group| pytest::swallows(&options[group.clone()]));
        Ok(swallowed
            .map(|group| {
                let (option, test) = (options[group.start], options[group.start + 1]);
                Diagnostic::warning(format!("{VARIABLE}: pytest takes {test} as {option}'s value"))
                    .at(value_at.clone())
                    .help(format!("put {option} last, or write {option}=VALUE"))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Read, String> {
        let source = Arc::new(Source { name: "prefix.sh".into(), text: text.into() });
        parse(&source).map_err(|errors| errors.to_string())
    }

    fn argv(base: &BaseCommand) -> Vec<&str> {
        base.argv.iter().map(|word| word.value.as_str()).collect()
    }

    #[test]
    fn both_quoting_styles_and_bare_words_give_the_same_command() {
        for line in [
            r#"export pytestCommand="A=1 B='x y' /d/trtllm-llmapi-launch pytest -k 'a b' --q=\"c\"""#,
            r#"  export pytestCommand='A=1 B="x y" /d/trtllm-llmapi-launch pytest -k "a b" --q=c' # x"#,
            r"export pytestCommand=A=1\ B=x\\\ y\ /d/trtllm-llmapi-launch\ pytest\ -k\ a\\\ b\ --q=c",
        ] {
            let script = format!("#!/bin/bash\nset -e\n{line}\nexport other=1\n");
            let (base, _) = parsed(&script).unwrap();
            assert_eq!(serde_json::to_string(&base.env).unwrap(), r#"{"A":"1","B":"x y"}"#);
            assert_eq!(base.launcher.value, "/d/trtllm-llmapi-launch");
            assert_eq!(argv(&base), ["pytest", "-k", "a b", "--q=c"]);
        }
    }

    #[test]
    fn the_launcher_may_be_bare_absent_or_behind_a_wrapper() {
        let launcher = |command: &str| {
            let (base, _) = parsed(&format!("export pytestCommand=\"{command}\"")).unwrap();
            (base.launcher.value.clone(), base.launcher_at, base.argv.len())
        };
        assert_eq!(launcher("trtllm-llmapi-launch pytest"), ("trtllm-llmapi-launch".into(), 0, 1));
        assert_eq!(launcher("A=1  pytest -v"), (String::new(), 0, 2));
        assert_eq!(
            launcher("nsys profile /x/trtllm-llmapi-launch pytest"),
            ("/x/trtllm-llmapi-launch".into(), 2, 3)
        );
    }

    #[test]
    fn variables_of_earlier_lines_are_known_and_others_are_left_to_the_step() {
        let script = "export D=/src\nW=$D/w\nexport U=${X:-0}\n\
                      export pytestCommand=\"A=$D B=\\$LOCAL C=$U pytest --output-dir=$W/\"\n";
        let (base, _) = parsed(script).unwrap();
        assert_eq!(
            serde_json::to_string(&base.env).unwrap(),
            r#"{"A":"/src","B":"${LOCAL}","C":"${U}"}"#
        );
        assert_eq!(argv(&base), ["pytest", "--output-dir=/src/w/"]);
    }

    #[test]
    fn what_is_no_command_is_refused_with_its_place() {
        for (script, place, message) in [
            ("a\nexport pytestCommand=\"x $(id) pytest\"", "2:25", "command substitution"),
            ("export pytestCommand=\"pytest", "1:22", "never closed"),
            ("export pytestCommand=\"pytest\" -k x", "1:31", "text follows"),
            ("export pytestCommand=\"A=1 python\"", "1:22", "does not run pytest"),
            ("export pytestCommand=\"pytest $WHO\"", "1:22", "the value of WHO"),
            ("export pytestCommand=\"pytest 'x\"", "1:22", "never closed"),
            ("export pytestCommand=\"pytest --cov-new x\"", "1:22", "not known whether"),
        ] {
            let error = parsed(script).unwrap_err();
            assert!(error.starts_with(&format!("prefix.sh:{place}: error: ")), "{error}");
            assert!(error.contains(message), "{error}");
        }
        assert!(parsed("pytestCommand=x\n").unwrap_err().contains("no line `export pytestCommand"));
    }

    #[test]
    fn a_test_that_coverage_swallows_is_warned_about() {
        let (_, warnings) = parsed("export pytestCommand=\"pytest --cov a.py::t\"").unwrap();
        assert!(warnings[0].to_string().contains("takes a.py::t as --cov's value"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(value in "[ -~\n]{0,40}") {
            let _ = parsed(&format!("export A=1\nexport pytestCommand={value}"));
        }
    }
}
