// SPDX-License-Identifier: Apache-2.0
//! The base command out of a script prefix, the file in which pipelines hand it over:
//! `export pytestCommand="NAME=VALUE … trtllm-llmapi-launch pytest …"`.
//!
//! The value is one shell word; later the run script evaluates it, so its text is read as shell
//! words once more. Nothing is run at either reading.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;

use crate::diagnostic::{Diagnostic, Diagnostics, Location, Source};
use crate::plan::command::{BaseCommand, LAUNCHER_NAME, PYTEST, file_name};
use crate::plan::template::{MAX_VALUE, Part, TooLong, is_name};
use crate::plan::words::{self, Reader, Word, WordError};
use crate::plan::{Env, Origin, Template, Traced, pytest};

/// The variable that holds the base command.
const VARIABLE: &str = "pytestCommand";
/// The variable that holds the source tree as the job's nodes see it.
const SOURCE_DIR: &str = "llmSrcNode";
/// The most that all values of a script may hold together, in bytes.
const MAX_VALUES: usize = 1 << 20;

/// A base command and its warnings.
pub type Read = (BaseCommand, Vec<Diagnostic>);

/// Reads the base command from a script prefix's text.
///
/// # Errors
/// There is no base command in it, or something of it is wrong; with positions.
pub fn parse(source: &Arc<Source>) -> Result<Read, Diagnostics> {
    let mut script = Script { source, known: HashMap::new(), expanded: 0 };
    let mut reader = Reader::of_script(&source.text);
    let (mut found, mut names_source_dir) = (None, None);
    while let Some((name, is_exported)) = next_assignment(&mut reader) {
        let start = reader.position();
        if is_exported && name == VARIABLE && found.is_none() {
            found = Some(script.command(reader.clone())?);
        }
        if name == SOURCE_DIR {
            names_source_dir = Some(start);
        }
        let value = reader.word();
        match script.set(name, value.ok(), start) {
            // Behind the command, only the source tree counts.
            Err(_) if found.is_some() => drop(script.known.remove(name)),
            set => set?,
        }
    }
    let Some((mut base, mut warnings)) = found else {
        let message = format!("{}: there is no line `export {VARIABLE}=…`", source.name);
        let help =
            "give the script prefix that holds the pytest command, or leave --prefix-script out";
        return Err(Diagnostic::error(message).help(help).into());
    };
    base.source_dir = script.known.remove(SOURCE_DIR).filter(|path| path.starts_with('/'));
    if let (Some(at), None) = (names_source_dir, &base.source_dir) {
        let message = format!("{SOURCE_DIR}: the value is no absolute path that is known here");
        warnings.push(Diagnostic::warning(message).at(script.at(at)).help(
            "write the path; until then prechecks look for the source tree where it is here",
        ));
    }
    Ok((base, warnings))
}

/// What a launch script exports, by name, as text that a run script evaluates, and the words of its
/// arrays. A value that is not understood says so. Nothing is run.
///
/// # Errors
/// Its variables grow too long.
pub fn exports(source: &Arc<Source>) -> Result<IndexMap<String, Vec<String>>, Diagnostic> {
    let mut script = Script { source, known: HashMap::new(), expanded: 0 };
    let mut reader = Reader::of_script(&source.text);
    let mut exports = IndexMap::new();
    while let Some((name, is_exported)) = next_assignment(&mut reader) {
        let start = reader.position();
        let text = |script: &Script<'_>, value: &Result<Template, WordError>| match value {
            Ok(value) => script.text(value).unwrap_or_else(|error| format!("({error})")),
            Err(error) => format!("({error})"),
        };
        if reader.skip('(') {
            let mut words = Vec::new();
            while reader.skip_blanks() && !reader.skip(')') {
                let word = reader.word();
                words.push(text(&script, &word));
                if word.is_err() {
                    break;
                }
            }
            exports.insert(name.to_owned(), words);
            continue;
        }
        let value = reader.word();
        if is_exported {
            exports.insert(name.to_owned(), vec![text(&script, &value)]);
        }
        script.set(name, value.ok(), start)?;
    }
    Ok(exports)
}

/// The name of the next variable that a line assigns to, and whether it is exported; the reader has
/// come to the value. A value may span lines: what the caller takes is not read again.
fn next_assignment<'s>(reader: &mut Reader<'s>) -> Option<(&'s str, bool)> {
    let blank = |c: char| c == ' ' || c == '\t';
    while !reader.rest().is_empty() {
        // What the last assignment left of its line.
        if reader.position() > 0 && !reader.starts_line() {
            reader.take_until(|c| c == '\n');
            reader.skip('\n');
            continue;
        }
        reader.take_until(|c| !blank(c));
        let exported =
            reader.rest().starts_with("export ") || reader.rest().starts_with("export\t");
        if exported {
            reader.take_until(blank);
            reader.take_until(|c| !blank(c));
        }
        let name = reader.take_until(|c| !c.is_ascii_alphanumeric() && c != '_');
        if is_name(name) && reader.skip('=') {
            return Some((name, exported));
        }
        reader.take_until(|c| c == '\n');
        reader.skip('\n');
    }
    None
}

struct Script<'s> {
    source: &'s Arc<Source>,
    /// The variables so far, those whose values are known.
    known: HashMap<String, String>,
    /// How much their values hold together, earlier values too, in bytes.
    expanded: usize,
}

impl Script<'_> {
    /// The location of a byte.
    fn at(&self, byte: usize) -> Location {
        Location { source: self.source.clone(), position: self.source.position(byte) }
    }

    fn wrong(&self, location: Location, message: impl std::fmt::Display) -> Diagnostic {
        Diagnostic::error(format!("{VARIABLE}: {message}")).at(location)
    }

    /// Sets a variable; one whose value is not known is left to the step.
    fn set(&mut self, name: &str, value: Option<Template>, at: usize) -> Result<(), Diagnostic> {
        let is_known =
            |value: &Template| value.variables().all(|name| self.known.contains_key(name));
        let Some(value) = value.filter(is_known) else {
            self.known.remove(name);
            return Ok(());
        };
        let too_long = |message: String| {
            let help = "write shorter values; each `$NAME` repeats the value of NAME";
            Err(Diagnostic::error(format!("{name}: {message}")).at(self.at(at)).help(help))
        };
        match value.expand(|name| self.known.get(name).map(String::as_str)) {
            Err(error) => too_long(error.to_string()),
            Ok(value) if value.len() > MAX_VALUES - self.expanded => {
                too_long("the values of the script hold more than 1 MiB together".to_owned())
            }
            Ok(value) => {
                self.expanded += value.len();
                self.known.insert(name.to_owned(), value);
                Ok(())
            }
        }
    }

    /// Reads the value, which the reader has come to.
    fn command(&self, mut reader: Reader<'_>) -> Result<Read, Diagnostic> {
        let value_at = self.at(reader.position());
        let value = reader
            .word()
            .map_err(|error| self.wrong(self.at(error.offset), &error).help(error.help))?;
        let rest = reader.rest().split('\n').next().unwrap_or_default();
        if !rest.trim().is_empty() && !rest.trim().starts_with('#') {
            let blanks = rest.len() - rest.trim_start().len();
            let location = self.at(reader.position() + blanks);
            return Err(self
                .wrong(location, "text follows the value and does not belong to it")
                .help("put the whole command into one pair of quotes"));
        }
        let text = self.text(&value).map_err(|error| self.wrong(value_at.clone(), error))?;
        let words = words::split(&text)
            .map_err(|error: WordError| self.wrong(value_at.clone(), &error).help(error.help))?;
        self.base(&words, value_at)
    }

    /// The value as the run script evaluates it: what is not known here stays a reference.
    fn text(&self, value: &Template) -> Result<String, TooLong> {
        let mut text = String::new();
        for part in value.parts() {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Variable(name) => match self.known.get(name) {
                    Some(value) => text.push_str(value),
                    None => text.extend(["${", name, "}"]),
                },
                // A word of a shell has none.
                Part::Slot(_) => {}
            }
            if text.len() > MAX_VALUE {
                return Err(TooLong);
            }
        }
        Ok(text)
    }

    fn base(&self, words: &[Word], value_at: Location) -> Result<Read, Diagnostic> {
        let origin = Origin {
            input: format!("{VARIABLE} of the script prefix").into(),
            location: Some(value_at.clone()),
            ..Origin::default()
        };
        let mut env = Env::default();
        let mut rest = words;
        while let [word, after @ ..] = rest {
            let assigned = word.value.as_str().split_once('=').filter(|_| word.is_assignment);
            let Some((name, value)) = assigned else { break };
            env.set(name, &Template::from_written(value), origin.clone())
                .map_err(|error| Diagnostic::error(error.to_string()).at(value_at.clone()))?;
            rest = after;
        }
        let mut argv = Vec::new();
        for Word { value, .. } in rest {
            if let Some(name) = value.variables().next() {
                let message =
                    format!("the value of {name} is not known here, and an argument needs it");
                return Err(self
                    .wrong(value_at, message)
                    .help(format!("export {name} in a line above, or write its value")));
            }
            let word = value.expand(|_| None).map_err(|e| self.wrong(value_at.clone(), e))?;
            if word.contains(|c: char| c.is_control()) {
                let message = "an argument contains a control character, such as a line end";
                return Err(self.wrong(value_at, message).help("write arguments on one line"));
            }
            argv.push(Traced::new(word, origin.clone()));
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
        let launcher_at = launcher_at.unwrap_or_default();
        let base = BaseCommand { env, launcher, argv, launcher_at, source_dir: None };
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
            self.wrong(value_at.clone(), &error)
                .help(format!("write {}={}", error.option, error.next))
        })?;
        let mut warnings = Diagnostics::default();
        for group in groups.into_iter().filter(|group| pytest::swallows(&options[group.clone()])) {
            let (option, test) = (options[group.start], options[group.start + 1]);
            let message = format!("{VARIABLE}: pytest takes {test} as the value of {option}");
            warnings.push(
                Diagnostic::warning(message)
                    .at(value_at.clone())
                    .help(format!("put {option} last, or write {option}=VALUE")),
            );
        }
        Ok(warnings.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Read, String> {
        let source = Arc::new(Source::new("prefix.sh", text));
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
    fn the_source_tree_of_the_nodes_is_known_wherever_the_script_names_it() {
        let command = "export pytestCommand='pytest'\n";
        for (script, tree, warned) in [
            (command.to_owned(), None, false),
            (format!("R=/node\nexport llmSrcNode=$R/src\n{command}"), Some("/node/src"), false),
            (format!("{command}export llmSrcNode=/late\n"), Some("/late"), false),
            (format!("export llmSrcNode=$ELSEWHERE/src\n{command}"), None, true),
            (format!("export llmSrcNode=src\n{command}"), None, true),
        ] {
            let (base, warnings) = parsed(&script).unwrap();
            assert_eq!(base.source_dir.as_deref(), tree, "{script}");
            assert_eq!(!warnings.is_empty(), warned, "{script}: {warnings:?}");
        }
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
            ("export pytestCommand=\"pytest 'x\ny'\"", "1:22", "control character"),
            ("export pytestCommand=\"pytest ~/t.py\"", "1:22", "`~` is not expanded"),
            ("export pytestCommand=$'pytest'", "1:22", "a quote of bash"),
            ("export pytestCommand='\"A=1\" python'", "1:22", "does not run pytest"),
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
        assert!(warnings[0].to_string().contains("takes a.py::t as the value of --cov"));
    }

    #[test]
    fn values_that_grow_without_bound_are_refused_where_they_grow() {
        let names: Vec<String> = (b'a'..=b'z').map(|c| char::from(c).to_string()).collect();
        let doubled: String =
            names.windows(2).map(|n| format!("{}=${}${}\n", n[1], n[0], n[0])).collect();
        let command = "export pytestCommand=\"pytest\"\n";
        let error = parsed(&format!("a=x\n{doubled}{command}")).unwrap_err();
        assert!(error.starts_with("prefix.sh:19:3: error: s: the value is longer than"), "{error}");
        let long = format!("a={}\n", "x".repeat(100_000));
        let error = parsed(&format!("{long}{}{command}", "b=$a\n".repeat(20))).unwrap_err();
        assert!(error.starts_with("prefix.sh:11:3: error: b: the values of the"), "{error}");
        let error = parsed(&format!("{long}export pytestCommand=\"A=$a$a pytest\"")).unwrap_err();
        assert!(error.starts_with("prefix.sh:2:22: error: pytestCommand: the value is"), "{error}");
        let refused_later = format!("{long}x=$a$a$(id)\n{command}");
        assert!(parsed(&refused_later).is_ok());
    }

    #[test]
    fn lines_of_a_value_are_no_lines_of_the_script() {
        let inside = "a='\nexport pytestCommand=no\n'\nexport pytestCommand=pytest\n";
        assert_eq!(argv(&parsed(inside).unwrap().0), ["pytest"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(value in "[ -~\n]{0,40}") {
            let _ = parsed(&format!("export A=1\nexport pytestCommand={value}"));
        }
    }
}
