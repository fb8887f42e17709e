// SPDX-License-Identifier: Apache-2.0
//! How keys of the benchmark's configuration are read: as Python reads them, with what is wrong and what
//! has no effect noted at its place.

use super::{Reader, WITHOUT_EFFECT};
use crate::diagnostic::{Diagnostic, Position, Severity, nearest};
use crate::input::fields::{Section, is_placeholder};
use crate::input::profile::good;
use crate::input::scalar::{Scalar, classify};
use crate::input::settings::Setting;
use crate::input::yaml::{Value, is_null};
use crate::plan::origin::Traced;

impl<'d> Reader<'d> {
    pub(super) fn warn(&mut self, position: Position, message: impl Into<String>, help: &str) {
        let warning = self.fields.wrong(position, message);
        let warning = Diagnostic { severity: Severity::Warning, ..warning };
        self.fields.diagnostics.push(if help.is_empty() { warning } else { warning.help(help) });
    }

    /// Whether a key has a value; what is wrong otherwise is noted. A setting may come from elsewhere.
    pub(super) fn is_there(
        &mut self,
        section: &Section<'d>,
        key: &str,
        setting: Option<&'static Setting>,
    ) -> bool {
        let path = section.path_of(key);
        self.used.insert(path.clone());
        let (position, message, help) = match section.get(key) {
            None => (section.position(), format!("{path} is missing"), format!("add `{key}:`")),
            Some(node) if is_null(node) => {
                (node.position, format!("{path} has no value"), "write one".to_owned())
            }
            Some(node) => match &node.value {
                Value::Scalar { text, .. } if is_placeholder(text) => {
                    let message = format!("{path} is a placeholder that nobody filled in");
                    (node.position, message, format!("write it, or use --set {path}=…"))
                }
                _ => return true,
            },
        };
        let help = match setting {
            Some(setting) if self.around.settings.has(setting) => return false,
            Some(setting) => format!("{help}; or {}", setting.how_to_set()),
            None => help,
        };
        let error = self.fields.wrong(position, message);
        self.fields.diagnostics.push(error.help(help));
        false
    }

    /// A text that must be there, and be a text to Python too.
    pub(super) fn text(&mut self, section: &Section<'d>, key: &str) -> Option<Traced<String>> {
        if !self.is_there(section, key, None) {
            return None;
        }
        let node = section.get(key)?;
        if let Value::Scalar { text, plain: true } = &node.value
            && matches!(classify(text), Scalar::Int(_) | Scalar::Float(_) | Scalar::Bool(_))
        {
            let message = format!("{} must be text", section.path_of(key));
            let error = self.fields.wrong(node.position, message).help("put it in quotes");
            self.fields.diagnostics.push(error);
            return None;
        }
        let text = self.fields.text(section, key);
        good(&mut self.fields, text)
    }

    /// A text that may be missing or empty.
    pub(super) fn optional_text(
        &mut self,
        section: &Section<'d>,
        key: &str,
    ) -> Option<Traced<String>> {
        let node = section.get(key)?;
        if is_null(node) {
            let message = format!("{} has no value", section.path_of(key));
            let error = self.fields.wrong(node.position, message).help("write '' for nothing");
            self.fields.diagnostics.push(error);
            return None;
        }
        self.text(section, key).filter(|text| !text.value.is_empty())
    }

    /// A text that is a setting. One without a value asks for nothing, where that is possible.
    pub(super) fn setting(
        &mut self,
        section: &Section<'d>,
        key: &str,
        setting: &'static Setting,
        may_be_null: bool,
    ) {
        if may_be_null && section.get(key).is_some_and(is_null) {
            self.used.insert(section.path_of(key));
        } else if self.is_there(section, key, Some(setting)) {
            let text = self.fields.text(section, key);
            if let Some(text) = good(&mut self.fields, text) {
                self.settings.put(setting, text, &mut self.fields.diagnostics);
            }
        }
    }

    /// Says of the keys of a section that is switched off, but some, that they have no effect.
    pub(super) fn off(&mut self, section: &Section<'d>, switch: &str, but: &[&str]) {
        let switch = section.path_of(switch);
        let mut names = Vec::new();
        let mut first = None;
        for (key, _) in section.entries() {
            let path = section.path_of(&key.name);
            if !but.contains(&&*key.name) && self.used.insert(path.clone()) {
                first = first.or(Some(key.position));
                names.push(format!("{path} (line {})", key.position.line));
            }
        }
        if let Some(first) = first {
            let verb = if names.len() > 1 { "have" } else { "has" };
            let message = format!("{} {verb} no effect: {switch} is off", names.join(", "));
            let note = self.fields.wrong(first, message);
            self.fields.diagnostics.push(Diagnostic { severity: Severity::Note, ..note });
        }
    }

    pub(super) fn count(
        &mut self,
        section: &Section<'d>,
        key: &str,
        low: u32,
        high: u32,
    ) -> Option<Traced<u32>> {
        if section.get(key).is_none() {
            self.is_there(section, key, None);
            return None;
        }
        self.used.insert(section.path_of(key));
        let number = self.fields.integer(section, key, low..=high);
        good(&mut self.fields, number)
    }

    /// A value as Python takes it for a condition.
    pub(super) fn switch(&mut self, section: &Section<'d>, key: &str) -> Option<Traced<bool>> {
        self.used.insert(section.path_of(key));
        let switch = self.fields.switch(section, key);
        good(&mut self.fields, switch)
    }

    /// Whether a value is `true` as a text, in any case.
    pub(super) fn says_true(&mut self, section: &Section<'d>, key: &str) -> bool {
        let path = section.path_of(key);
        self.used.insert(path.clone());
        let Some(node) = section.get(key) else { return false };
        let is = |word: &str| matches!(&node.value, Value::Scalar { text, .. } if text.eq_ignore_ascii_case(word));
        if !is("true") && !is("false") {
            self.warn(node.position, format!("{path} counts as false"), "write true or false");
        }
        is("true")
    }

    /// Each key that is there and has no effect, with a reason where it is known.
    pub(super) fn name_what_has_no_effect(&mut self) {
        let sections = [
            &self.root,
            &self.slurm,
            &self.benchmark,
            &self.hardware,
            &self.environment,
            &self.profiling,
            &self.accuracy,
            &self.workers,
        ];
        let mut found = Vec::new();
        for section in sections.map(Clone::clone) {
            for (key, node) in section.entries() {
                let path = section.path_of(&key.name);
                let asks_nothing = match &node.value {
                    Value::Scalar { text, plain } => {
                        text.is_empty()
                            || *plain
                                && matches!(classify(text), Scalar::Null | Scalar::Bool(false))
                    }
                    _ => false,
                };
                if !self.used.contains(&*path) && !asks_nothing {
                    found.push((key.position, path));
                }
            }
        }
        for (position, path) in found {
            let why = WITHOUT_EFFECT.iter().find(|(known, _)| **known == *path);
            let near = nearest(&path, self.used.iter().map(|used| &**used), 1);
            let help = match (why, near.first()) {
                (Some((_, why)), _) => (*why).to_owned(),
                (None, Some(near)) if *near != &*path => format!("did you mean `{near}`?"),
                _ => String::new(),
            };
            self.warn(position, format!("{path} has no effect"), &help);
        }
    }
}
