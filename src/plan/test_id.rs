// SPDX-License-Identifier: Apache-2.0
//! Test ids (`disagg_upload-e2e-<config>`) and what their form says: the generation of rules, the
//! kind of test, the mode, the configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::rules::{MODIFIED_IDS, MODIFIERS};
use crate::diagnostic::Diagnostics;

/// A generation of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generation {
    /// Ids `disagg_upload-<config>`; the mode comes from the configuration.
    Classic,
    /// Ids that name the mode: `disagg_upload-e2e-<config>`, `aggr_upload-<config>-<server>`, …
    Unified,
    /// The newest: UCX by cluster, and ids with a modifier (`disagg_upload-e2e-time_breakdown-…`).
    Current,
}

impl Generation {
    /// The newest.
    pub const NEWEST: Self = Self::Current;

    /// Its name, as `--rules` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Unified => "unified",
            Self::Current => "current",
        }
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What kind of steps a test has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestKind {
    /// Context and generation servers, the coordinator and the client.
    #[default]
    Disaggregated,
    /// One server, made like a context server of a disaggregated test.
    CtxOnly,
    /// One server, made like a generation server of a disaggregated test, without context servers.
    GenNoContext,
    /// One server, an entry of `server_configs`.
    Aggregated,
}

/// The mode that an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The whole path of a request.
    E2e,
    /// The generation servers alone.
    GenOnly,
    /// One context server alone.
    CtxOnly,
    /// One generation server alone, without context servers.
    GenOnlyNoContext,
}

impl Mode {
    const ALL: [Self; 4] = [Self::E2e, Self::GenOnly, Self::CtxOnly, Self::GenOnlyNoContext];

    /// Its name, as ids and `benchmark.mode` have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::E2e => "e2e",
            Self::GenOnly => "gen_only",
            Self::CtxOnly => "ctx_only",
            Self::GenOnlyNoContext => "gen_only_no_context",
        }
    }

    /// The kind of test whose ids name it.
    fn kind(self) -> TestKind {
        match self {
            Self::E2e | Self::GenOnly => TestKind::Disaggregated,
            Self::CtxOnly => TestKind::CtxOnly,
            Self::GenOnlyNoContext => TestKind::GenNoContext,
        }
    }
}

/// An id, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestId {
    /// The whole id.
    pub text: String,
    /// Its first part (`disagg_upload`), pytest's `--test-prefix`.
    pub prefix: String,
    /// The generation of rules that it is read by.
    pub generation: Generation,
    /// The kind of test.
    pub kind: TestKind,
    /// The mode, where the id names one.
    pub mode: Option<Mode>,
    /// The word behind the mode that changes what the test reports, and nothing in the plan.
    pub modifier: Option<&'static str>,
    /// The configuration's name.
    pub config: String,
    /// The entry of `server_configs`, in an aggregated test.
    pub server: Option<String>,
}

/// A text that is no test id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BadTestId {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

/// The forms of ids, for people.
pub const FORMS: &[&str] = &[
    "disagg[_upload]-e2e[-time_breakdown]-CONFIG",
    "disagg[_upload]-gen_only-CONFIG",
    "aggr[_upload]-ctx_only[-time_breakdown]-CONFIG",
    "aggr[_upload]-gen_only_no_context-CONFIG",
    "aggr[_upload]-CONFIG-SERVER",
    "disagg[_upload]-CONFIG",
];

/// The longest id, in bytes: it becomes part of a path.
pub const MAX_ID: usize = 512;
/// The most readings that an id has; real ids have seven.
const MAX_READINGS: usize = 32;

/// What the prefix of a disaggregated test's id contains.
const DISAGG: &str = "disagg";
/// What the prefix of a single server's id contains.
const AGGR: &str = "aggr";

impl TestId {
    /// The id of a test that is given by its configuration alone.
    pub fn of_config(generation: Generation, prefix: &str, gen_only: bool, config: &str) -> Self {
        let mode = match generation {
            Generation::Classic => None,
            _ if gen_only => Some(Mode::GenOnly),
            _ => Some(Mode::E2e),
        };
        let infix = mode.map_or(String::new(), |mode| format!("{}-", mode.name()));
        Self {
            text: format!("{prefix}-{infix}{config}"),
            prefix: prefix.to_owned(),
            generation,
            kind: TestKind::Disaggregated,
            mode,
            modifier: None,
            config: config.to_owned(),
            server: None,
        }
    }

    /// The id of an entry of `server_configs`.
    pub fn of_server(generation: Generation, prefix: &str, config: &str, server: &str) -> Self {
        let prefix = prefix.replace(DISAGG, AGGR);
        Self {
            text: format!("{prefix}-{config}-{server}"),
            kind: TestKind::Aggregated,
            mode: None,
            server: Some(server.to_owned()),
            ..Self::of_config(generation, &prefix, false, config)
        }
    }

    /// The ids that a configuration allows, by rules that name the mode in the id.
    pub fn all_of(config: &Config, prefix: &str) -> Vec<String> {
        if config.is_aggregated() {
            let names = config.server_names(&mut Diagnostics::default());
            let id = |name| Self::of_server(Generation::NEWEST, prefix, &config.name, name).text;
            return names.into_iter().map(id).collect();
        }
        let id = |mode: Mode| match mode.kind() {
            TestKind::Disaggregated => format!("{prefix}-{}-{}", mode.name(), config.name),
            _ => format!("{}-{}-{}", prefix.replace(DISAGG, AGGR), mode.name(), config.name),
        };
        Mode::ALL.map(id).to_vec()
    }

    /// What an id can mean, the likeliest reading first. There is more than one only where it
    /// names a configuration and a server, both of which may have hyphens: then the shortest
    /// configuration's name comes first. Without `rules` the id's form decides on them.
    ///
    /// # Errors
    /// It has none of the [`FORMS`], or is unfit to be part of a path.
    pub fn readings(text: &str, rules: Option<Generation>) -> Result<Vec<Self>, BadTestId> {
        if text.len() > MAX_ID {
            return bad(
                format!("the test id is {} bytes long; at most {MAX_ID} are read", text.len()),
                "shorten the configuration's name",
            );
        }
        if text.contains(|c: char| c == '/' || c.is_control()) {
            return bad(
                format!("test id {text:?} has a character that a file's name cannot have"),
                "give the configuration's path with --config-file, and only its name in the id",
            );
        }
        let (prefix, rest) = text.split_once('-').unwrap_or((text, ""));
        if !prefix.contains(DISAGG) && !prefix.contains(AGGR) {
            let shape = match rest.split('-').next() {
                Some("ctx_only" | "gen_only_no_context") => "aggr_upload",
                _ => "disagg_upload",
            };
            return bad(
                format!("test id {text}: the prefix {prefix} contains neither disagg nor aggr"),
                format!("write {shape}-{}", if rest.is_empty() { "e2e-CONFIG" } else { rest }),
            );
        }
        let (named, after) = match rest.split_once('-') {
            Some((word, after)) => (word, after),
            None => (rest, ""),
        };
        let mode = Mode::ALL.into_iter().find(|mode| mode.name() == named);
        let (word, rest_of_it) = after.split_once('-').unwrap_or((after, ""));
        let newer = rules.unwrap_or(Generation::Unified);
        let has_modifier = mode.is_some() && newer.is_in(MODIFIED_IDS);
        let modifier = MODIFIERS.iter().find(|known| has_modifier && known.0 == word);
        if let (Some((word, modes)), Some(mode)) = (modifier, mode)
            && !modes.contains(&mode)
        {
            let config = if rest_of_it.is_empty() { "CONFIG" } else { rest_of_it };
            return bad(
                format!("test id {text}: {word} is not for {named} tests"),
                format!("write {prefix}-{named}-{config}"),
            );
        }
        let modifier = modifier.map(|known| known.0);
        let after = if modifier.is_some() { rest_of_it } else { after };
        let reading = |generation, kind, mode, config: &str, server: Option<&str>| Self {
            text: text.to_owned(),
            prefix: prefix.to_owned(),
            generation,
            kind,
            mode,
            modifier,
            config: config.to_owned(),
            server: server.map(str::to_owned),
        };
        let disaggregated = prefix.contains(DISAGG);
        let fits = |mode: Mode| (mode.kind() == TestKind::Disaggregated) == disaggregated;

        match (rules, mode) {
            (Some(Generation::Classic), _) if !disaggregated => bad(
                format!("test id {text}: the classic rules know disaggregated tests only"),
                "use --rules unified, or an id disagg_upload-CONFIG",
            ),
            (Some(Generation::Classic), _) | (None, None) if disaggregated => match rest {
                "" => bad(
                    format!("test id {text} names no configuration"),
                    format!("write {prefix}-e2e-CONFIG"),
                ),
                config => Ok(vec![reading(
                    Generation::Classic,
                    TestKind::Disaggregated,
                    None,
                    config,
                    None,
                )]),
            },
            (_, Some(mode)) if fits(mode) && !after.is_empty() => {
                Ok(vec![reading(newer, mode.kind(), Some(mode), after, None)])
            }
            (_, Some(mode)) if !fits(mode) => {
                let other = if disaggregated {
                    prefix.replace(DISAGG, AGGR)
                } else {
                    prefix.replace(AGGR, DISAGG)
                };
                let config = if after.is_empty() { "CONFIG" } else { after };
                bad(
                    format!("test id {text}: a {prefix} test has no mode {named}"),
                    format!("write {other}-{named}-{config}"),
                )
            }
            (_, Some(_)) => bad(
                format!("test id {text} names no configuration"),
                format!("write {prefix}-{named}-CONFIG"),
            ),
            // Only the classic rules have the form without one.
            (_, None) if disaggregated => Err(BadTestId {
                message: format!("test id {text} names no mode, which the {newer} rules need"),
                help: format!("write {prefix}-e2e-{rest} or {prefix}-gen_only-{rest}"),
            }),
            (_, None) => {
                let splits = rest.match_indices('-').map(|(at, _)| (&rest[..at], &rest[at + 1..]));
                let readings: Vec<_> = splits
                    .filter(|(config, server)| !config.is_empty() && !server.is_empty())
                    .take(MAX_READINGS + 1)
                    .map(|(config, server)| {
                        let kind = TestKind::Aggregated;
                        reading(newer, kind, None, config, Some(server))
                    })
                    .collect();
                if readings.len() > MAX_READINGS {
                    return bad(
                        format!("test id {text} has more than {MAX_READINGS} hyphens"),
                        "rename the configuration or the server with fewer hyphens",
                    );
                }
                if readings.is_empty() {
                    return bad(
                        format!("test id {text} names no entry of server_configs"),
                        format!(
                            "write {prefix}-{}-SERVER or {prefix}-ctx_only-CONFIG",
                            if rest.is_empty() { "CONFIG" } else { rest }
                        ),
                    );
                }
                Ok(readings)
            }
        }
    }

    /// Whether its prefix is one of those that test lists have; any that contains `disagg` or
    /// `aggr` is taken.
    pub fn has_usual_prefix(&self) -> bool {
        matches!(self.prefix.as_str(), "disagg" | "disagg_upload" | "aggr" | "aggr_upload")
    }
}

fn bad<T>(message: String, help: impl Into<String>) -> Result<T, BadTestId> {
    Err(BadTestId { message, help: format!("{}; forms: {}", help.into(), FORMS.join(", ")) })
}

/// The test that a plan is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Test {
    /// The pytest module, relative to the working directory (`perf/test_perf_sanity.py`).
    pub module: String,
    /// The test function (`test_e2e`).
    pub function: String,
    /// The id in brackets (`disagg_upload-<config>`).
    pub id: String,
    /// The kind of test.
    #[serde(default)]
    pub kind: TestKind,
    /// What is measured: `e2e`, `gen_only`, …; `aggregated` for a test that has no mode.
    pub mode: String,
    /// The entry of `server_configs`, in an aggregated test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
}

impl Test {
    /// `MODULE::FUNCTION[ID]`, as pytest and the test lists name it.
    pub fn node_id(&self) -> String {
        node_id(&self.module, &self.function, &self.id)
    }
}

/// `MODULE::FUNCTION[ID]`.
pub fn node_id(module: &str, function: &str, id: &str) -> String {
    format!("{module}::{function}[{id}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(text: &str) -> TestId {
        TestId::readings(text, None).unwrap().remove(0)
    }

    #[test]
    fn the_second_part_names_the_mode_and_with_it_the_generation() {
        for (text, generation, kind, mode, config) in [
            ("disagg-e2e-a-b", Generation::Unified, TestKind::Disaggregated, Some("e2e"), "a-b"),
            (
                "disagg_upload-gen_only-a",
                Generation::Unified,
                TestKind::Disaggregated,
                Some("gen_only"),
                "a",
            ),
            ("aggr-ctx_only-a-b", Generation::Unified, TestKind::CtxOnly, Some("ctx_only"), "a-b"),
            (
                "aggr_upload-gen_only_no_context-a",
                Generation::Unified,
                TestKind::GenNoContext,
                Some("gen_only_no_context"),
                "a",
            ),
            ("disagg_upload-a-b", Generation::Classic, TestKind::Disaggregated, None, "a-b"),
            ("xdisaggx-e2e-a", Generation::Unified, TestKind::Disaggregated, Some("e2e"), "a"),
        ] {
            let id = first(text);
            assert_eq!((id.generation, id.kind), (generation, kind), "{text}");
            assert_eq!((id.mode.map(Mode::name), id.config.as_str()), (mode, config), "{text}");
        }
    }

    #[test]
    fn an_aggregated_id_is_read_with_the_shortest_configuration_first() {
        let readings = TestId::readings("aggr_upload-a-b-c", None).unwrap();
        let pairs: Vec<_> =
            readings.iter().map(|id| (id.config.as_str(), id.server.as_deref())).collect();
        assert_eq!(pairs, [("a", Some("b-c")), ("a-b", Some("c"))]);
    }

    #[test]
    fn a_modifier_stands_behind_the_mode_by_rules_that_know_it() {
        let read = |text, rules| TestId::readings(text, rules).map(|mut ids| ids.remove(0));
        let current = Some(Generation::Current);
        for text in ["disagg-e2e-time_breakdown-a-b", "aggr_upload-ctx_only-time_breakdown-a-b"] {
            let id = read(text, current).unwrap();
            assert_eq!((id.generation, id.config.as_str()), (Generation::Current, "a-b"));
            assert_eq!((id.text.as_str(), id.modifier), (text, Some("time_breakdown")));
            assert_eq!(read(text, None).unwrap().config, "time_breakdown-a-b");
        }
        let server = read("aggr-a-time_breakdown", current).unwrap().server;
        assert_eq!(server.as_deref(), Some("time_breakdown"));
        assert!(read("disagg-e2e-time_breakdown", current).is_err());
        for (text, help) in [
            ("disagg-gen_only-time_breakdown-a", "write disagg-gen_only-a;"),
            ("aggr-gen_only_no_context-time_breakdown-a", "write aggr-gen_only_no_context-a;"),
        ] {
            let error = read(text, current).unwrap_err();
            assert!(error.message.contains("time_breakdown is not for gen_only"), "{error}");
            assert!(error.help.starts_with(help), "{error:?}");
        }
    }

    #[test]
    fn the_asked_for_rules_win_over_the_form() {
        let classic = TestId::readings("disagg-e2e-a", Some(Generation::Classic)).unwrap();
        assert_eq!(classic[0].config, "e2e-a");
        let error = TestId::readings("disagg-a", Some(Generation::Unified)).unwrap_err();
        assert!(error.help.starts_with("write disagg-e2e-a or disagg-gen_only-a"), "{error:?}");
    }

    #[test]
    fn what_fits_no_form_is_refused_with_the_nearest_one() {
        for (text, help) in [
            ("disagg_upload", "write disagg_upload-e2e-CONFIG"),
            ("disagg_upload-e2e", "write disagg_upload-e2e-CONFIG"),
            ("disagg_upload-ctx_only-a", "write aggr_upload-ctx_only-a"),
            ("disagg-gen_only_no_context-a", "write aggr-gen_only_no_context-a"),
            ("aggr-e2e-a", "write disagg-e2e-a"),
            ("foo_upload-e2e-a", "write disagg_upload-e2e-a"),
            ("aggr_upload-a", "write aggr_upload-a-SERVER"),
            ("aggr_upload-ctx_only", "write aggr_upload-ctx_only-CONFIG"),
            ("disagg-e2e-../a", "give the configuration's path"),
            ("", "write disagg_upload-e2e-CONFIG"),
        ] {
            let error = TestId::readings(text, None).unwrap_err();
            assert!(error.help.starts_with(help), "{text}: {error:?}");
        }
    }

    #[test]
    fn an_id_has_a_bounded_length_and_number_of_readings() {
        let error = TestId::readings(&format!("aggr{}", "-a".repeat(15_000)), None).unwrap_err();
        assert_eq!(error.message, "the test id is 30004 bytes long; at most 512 are read");
        let readings = |parts| TestId::readings(&format!("aggr{}", "-a".repeat(parts)), None);
        assert_eq!(readings(MAX_READINGS + 1).unwrap().len(), MAX_READINGS);
        let error = readings(MAX_READINGS + 2).unwrap_err();
        assert!(error.message.ends_with("has more than 32 hyphens"), "{error}");
    }

    #[test]
    fn an_id_of_a_configuration_names_a_mode_only_under_the_unified_rules() {
        let id = |rules, gen_only| TestId::of_config(rules, "disagg_upload", gen_only, "c");
        assert_eq!(id(Generation::Classic, true).text, "disagg_upload-c");
        assert_eq!(id(Generation::Unified, true).text, "disagg_upload-gen_only-c");
        assert_eq!(first(&id(Generation::Unified, false).text), id(Generation::Unified, false));
        let server = TestId::of_server(Generation::Unified, "disagg_upload", "c", "s-1");
        assert_eq!(first("aggr_upload-c-s-1"), server);
    }
}
