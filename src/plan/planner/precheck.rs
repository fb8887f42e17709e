// SPDX-License-Identifier: Apache-2.0
//! The check that caches travel between the servers: whether it runs, how long it may take, and the
//! command of its steps.

use super::sizes::Sizes;
use super::{Planner, Subject};
use crate::diagnostic::Diagnostic;
use crate::plan::config::Field;
use crate::plan::request::Switch;
use crate::plan::rules::{PRECHECK_LIMITS, PRECHECK_MODELS, PRECHECK_WORDS, WAIVES};
use crate::plan::test_id::{Mode, TestKind};
use crate::plan::{Origin, Precheck, Traced};

/// The most seconds that a step of a precheck may have, where rules limit it.
const MAX_PRECHECK_TIME: u32 = 1800;
/// The program of the prechecks, below the source tree.
const PRECHECK: &str = "tests/scripts/perf-sanity/cache_transceiver_precheck/run_precheck.py";

impl<'r> Planner<'r> {
    /// Whether a kind of test has prechecks, on or off.
    pub(super) fn has_precheck(&self, kind: TestKind) -> bool {
        self.request.has_prechecks && self.rules.has_precheck(kind)
    }

    /// Whether the environment, the site or the configuration turns the precheck on.
    pub(super) fn precheck_is_on(&mut self) -> bool {
        match self.request.precheck.as_ref().map(|switch| (&switch.value, &switch.origin)) {
            Some((Switch::Is(on), _)) => *on,
            Some((Switch::Text(text), _)) if !self.rules.is_in(PRECHECK_WORDS) => text == "1",
            Some((Switch::Text(text), origin)) => {
                let word = text.trim().to_lowercase();
                let is_on = ["1", "true", "on", "yes"].contains(&&*word);
                if !is_on && !["0", "false", "off", "no"].contains(&&*word) {
                    let message = format!("{}: invalid switch {text:?}", origin.input);
                    let help = "use 1, true, on or yes, or else 0, false, off or no";
                    self.errors.push(Diagnostic::error(message).help(help));
                }
                is_on
            }
            None => {
                let enabled = self.config.precheck.enabled.get(&mut self.errors);
                enabled.is_none_or(|enabled| enabled.value)
            }
        }
    }

    pub(super) fn precheck(&mut self, sizes: Option<&Sizes>, is_on: bool) -> Precheck {
        let settings = &self.config.precheck;
        let given = settings.timeout_s.get(&mut self.errors);
        let timeout_s = given.map_or(self.rules.precheck_time(), |time| time.value);
        if let Some(sizes) = sizes.filter(|_| self.rules.is_in(PRECHECK_LIMITS)) {
            let mut seconds = |field: &Field<u32>| Some(field.get(&mut self.errors)?.value);
            let largest = sizes.generation.world_size.max(sizes.context.world_size);
            let wireup =
                seconds(&settings.wireup_s).unwrap_or(largest.saturating_mul(150).min(600));
            let phases = [
                seconds(&settings.setup_s).unwrap_or(600),
                seconds(&settings.rendezvous_s).unwrap_or(600),
                seconds(&settings.wave_s).unwrap_or(180).saturating_add(wireup),
            ];
            // The check's own watchdog waits so long for its longest phase.
            let least = phases.into_iter().max().unwrap_or_default().saturating_add(180);
            let wrong = match timeout_s {
                _ if timeout_s > MAX_PRECHECK_TIME => {
                    Some(format!("must not exceed {MAX_PRECHECK_TIME} s"))
                }
                _ if timeout_s <= least => {
                    Some(format!("must exceed {least} s, the longest phase and its watchdog"))
                }
                _ => None,
            };
            if let Some(wrong) = wrong {
                let key = "cache_transceiver_precheck.step_timeout_s";
                let section = || self.config.location("cache_transceiver_precheck");
                let location = given.and_then(|time| time.origin.location.clone());
                let error = Diagnostic::error(format!("{key} {wrong}; it is {timeout_s} s"));
                self.errors.push(error.at(location.or_else(section)));
            }
        }
        let skipped = self.request.skipped.as_ref().filter(|_| self.rules.is_in(WAIVES));
        if let (true, Some(origin)) = (is_on, skipped) {
            self.notes
                .push(format!("the test suite skips this test, so no precheck runs: {origin}"));
        }
        Precheck { enabled: is_on && skipped.is_none(), timeout_s }
    }

    /// `LLM_MODELS_ROOT` of the precheck's steps, where they get it.
    pub(super) fn models_of_precheck(&self, subject: &Subject<'_>) -> Option<&'r Traced<String>> {
        let has_models = self.rules.is_in(PRECHECK_MODELS);
        (has_models && subject.precheck_is_on).then_some(&self.request.models_root)
    }

    pub(super) fn precheck_argv(
        &self,
        role: &str,
        servers: &str,
        subject: &Subject<'_>,
    ) -> Vec<Traced<String>> {
        let source = &self.request.directories.source.value;
        let on_nodes = |path: &str| subject.base.on_nodes(source, path);
        let mode = subject.id.mode.map_or("", Mode::name);
        let origin = Origin::rule(self.rule_name(role));
        [
            "python3",
            &on_nodes(&format!("{source}/{PRECHECK}")),
            "--config",
            &on_nodes(&self.config.path),
            "--work-dir",
            &format!("{}/cache_transceiver_precheck", subject.output_dir),
            "--benchmark-mode",
            mode,
            "--llm-src",
            &on_nodes(source),
            "--role",
            servers,
        ]
        .into_iter()
        .map(|word| Traced::new(word.to_owned(), origin.clone()))
        .collect()
    }
}
