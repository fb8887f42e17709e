// SPDX-License-Identifier: Apache-2.0
//! From what the user asked for to a plan: the core does it; here is only how a plugin asks.

use std::path::{Path, PathBuf};

use disagg::diagnostic::Diagnostic;
use disagg::input::Surroundings;
use disagg::input::request::{self, Options};
use disagg::plan::Plan;
use disagg_host::log;

use crate::args::{Opt, Settings};

/// What the options of a submission ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `--disagg-config`.
    pub config: Option<String>,
    /// `--disagg-test`.
    pub test: Option<String>,
    /// `--disagg-placement`.
    pub placement: Option<String>,
}

impl Wanted {
    /// Whether a plan is asked for at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.config.is_none() && self.test.is_none()
    }
}

/// Computes the plan. What is only worth saying goes to the log.
///
/// # Errors
/// The message that the command gives for the same input.
pub fn plan(wanted: &Wanted, settings: &Settings) -> Result<Plan, String> {
    let current_dir = std::env::current_dir()
        .map_err(|error| format!("disagg: the working directory cannot be read: {error}"))?;
    let (config, prefix) = config_and_prefix(wanted)?;
    let placement = match wanted.placement.as_ref().or(settings.placement.as_ref()) {
        Some(name) => Some(
            request::placement(name)
                .map_err(|what| format!("disagg: --{}={name}: {what}", Opt::Placement.name()))?,
        ),
        None => None,
    };
    let options = Options {
        config,
        placement,
        site: settings.site.as_ref().map(PathBuf::from),
        ..Options::default()
    };
    let env = |name: &str| match (name, &prefix) {
        ("PERF_TEST_PREFIX", Some(prefix)) => Some(prefix.clone()),
        _ => std::env::var(name).ok(),
    };
    let around = Surroundings { env: &env, current_dir };
    let (plan, remarks) = request::plan(&options, &around).map_err(|wrong| messages(&wrong.0))?;
    if !remarks.is_empty() {
        log::info(&messages(&remarks));
    }
    for note in &plan.notes {
        log::info(&format!("disagg: note: {note}"));
    }
    Ok(plan)
}

/// The messages as the command prints them, but for the word `error:` at the start of one without a
/// place: Slurm puts that there itself.
fn messages(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| {
            let text = diagnostic.to_string();
            text.strip_prefix("error: ").map_or(text.clone(), |rest| format!("disagg: {rest}"))
        })
        .collect();
    lines.join("\n")
}

/// The config, and the test-id prefix when a test id is given: `PREFIX-CONFIG`.
fn config_and_prefix(wanted: &Wanted) -> Result<(String, Option<String>), String> {
    let config = wanted.config.clone().unwrap_or_default();
    let Some(id) = &wanted.test else { return Ok((config, None)) };
    let Some((prefix, named)) = id.split_once('-') else {
        return Err(format!(
            "disagg: --{}={id}: a test id is PREFIX-CONFIG, as in disagg_upload-NAME",
            Opt::Test.name()
        ));
    };
    if config.is_empty() {
        return Ok((named.to_owned(), Some(prefix.to_owned())));
    }
    let stem = Path::new(&config).file_name().unwrap_or_default().to_string_lossy();
    let name = stem.strip_suffix(".yaml").or(stem.strip_suffix(".yml")).unwrap_or(&stem);
    if name != named {
        return Err(format!(
            "disagg: --{}={id} is a test of '{named}', but --{} gives '{name}'",
            Opt::Test.name(),
            Opt::Config.name()
        ));
    }
    Ok((config, Some(prefix.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(config: Option<&str>, test: Option<&str>) -> Result<(String, Option<String>), String> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        config_and_prefix(&Wanted { config: owned(config), test: owned(test), placement: None })
    }

    #[test]
    fn a_test_id_alone_names_the_config() {
        let found = of(None, Some("disagg_upload-deepseek-r1-fp4_1k1k"));
        assert_eq!(found, Ok(("deepseek-r1-fp4_1k1k".into(), Some("disagg_upload".into()))));
    }

    #[test]
    fn a_test_id_beside_a_config_must_be_of_that_config() {
        let found = of(Some("/d/x-y.yaml"), Some("pre-x-y"));
        assert_eq!(found, Ok(("/d/x-y.yaml".into(), Some("pre".into()))));
        assert!(of(Some("/d/x.yaml"), Some("pre-y")).unwrap_err().contains("is a test of 'y'"));
    }

    #[test]
    fn a_test_id_of_another_form_says_what_the_form_is() {
        assert!(of(None, Some("x")).unwrap_err().contains("PREFIX-CONFIG"));
    }

    #[test]
    fn an_error_without_a_place_is_not_called_an_error_twice() {
        let text = messages(&[Diagnostic::error("first"), Diagnostic::warning("second")]);
        assert_eq!(text, "disagg: first\nwarning: second");
    }
}
