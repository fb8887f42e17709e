// SPDX-License-Identifier: Apache-2.0
//! From what the user asked for to a plan: the core does it; here is only how a plugin asks.

use disagg::diagnostic::Diagnostic;
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::input::settings::PLACEMENT;
use disagg::plan::{Origin, Plan};
use disagg_host::log;

use crate::Failure;
use crate::args::{Opt, Settings};

/// The test that the options of a submission name.
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

/// Computes the plan. Warnings and notes go to the log.
///
/// # Errors
/// The message that the command gives for the same input.
pub fn plan(wanted: &Wanted, settings: &Settings) -> Result<Plan, Failure> {
    let current_dir = std::env::current_dir()
        .map_err(|error| format!("disagg: the working directory cannot be read: {error}"))?;
    let mut options = Options {
        config: wanted.config.clone().unwrap_or_default(),
        test_id: wanted.test.clone(),
        ..settings.options.clone()
    };
    if let Some(name) = &wanted.placement {
        options
            .set(&PLACEMENT, name)
            .map_err(|what| format!("disagg: --{}={name}: {what}", Opt::Placement.name()))?;
    }
    let env = |name: &str| std::env::var(name).ok();
    let context = Context { env: &env, current_dir };
    let (plan, remarks) = request::plan(&options, &context)
        .map_err(|wrong| Failure::Diagnostics(messages(&wrong.0)))?;
    if !remarks.is_empty() {
        log::info(&messages(&remarks));
    }
    for note in plan.notes.iter().chain(&not_passed_on(&plan)) {
        log::info(&format!("disagg: note: {note}"));
    }
    Ok(plan)
}

/// What a recipe asks for beside sizes: sbatch and srun have read their own options before a plugin
/// can speak, so only `slurm-disagg submit` can pass it on.
fn not_passed_on(plan: &Plan) -> Option<String> {
    plan.engine.as_ref()?;
    let job = &plan.job;
    let of_sbatch = job.texts().map(|(name, text)| (name, &text.origin));
    let all = [("time", &job.time.origin)].into_iter().chain(of_sbatch);
    let all = all.chain(job.exclusive.iter().map(|exclusive| ("exclusive", &exclusive.origin)));
    let all = all.chain(job.sbatch_args.first().map(|one| ("sbatch_args", &one.origin)));
    let of_roles = plan.roles.values().flat_map(|role| &role.srun_args);
    let srun = job.srun_args.iter().chain(of_roles).next();
    let all = all.chain(srun.map(|one| ("srun_args", &one.origin)));
    let is_of_recipe =
        |origin: &Origin| ["slurm.", "roles."].iter().any(|start| origin.input.starts_with(start));
    let written = all.filter(|(_, origin)| is_of_recipe(origin));
    let container = plan.container.as_ref().map(|_| "container");
    let names: Vec<_> = written.map(|(name, _)| name).chain(container).collect();
    let (what, name) = (names.join(", "), &plan.config.name);
    let advice = "give sbatch and srun options of your own, or use `slurm-disagg submit`";
    (!names.is_empty()).then(|| format!("{what} of {name} have no effect here: {advice}"))
}

/// What the core's messages name, and what it is called here, where settings without an option
/// come from site.yaml.
const OPTIONS: [(&str, &str); 7] = [
    ("--config-file", "--disagg-config"),
    ("--test-id", "--disagg-test"),
    ("--placement", "--disagg-placement"),
    ("set --trtllm-dir or ", "set "),
    ("set --models-dir, ", "set "),
    ("--trtllm-dir", "trtllm_dir in site.yaml"),
    ("--models-dir", "models_dir in site.yaml"),
];

/// A text of the core's in the words of the plugin's options.
#[must_use]
pub fn in_our_words(text: &str) -> String {
    OPTIONS.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// The messages as the command prints them, but for the options' names, and the word `error:` at
/// the start of one without a place: Slurm puts that there itself.
fn messages(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics
        .iter()
        .map(|diagnostic| {
            let text = diagnostic.clone().reworded(&OPTIONS).to_string();
            text.strip_prefix("error: ").map_or(text.clone(), |rest| format!("disagg: {rest}"))
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Tree;
    use disagg::input::settings::{MODELS_DIR, TRTLLM_DIR};

    fn of(tree: &Tree, config: Option<&str>, test: &str) -> Result<Plan, String> {
        let config = config.map(|name| tree.path(name).display().to_string());
        let wanted = Wanted { config, test: Some(test.into()), placement: None };
        let settings = Settings {
            options: Options { site: Some(tree.path("site.yaml")), ..Options::default() },
            ..Settings::default()
        };
        plan(&wanted, &settings).map_err(|failure| failure.text())
    }

    fn tree() -> Tree {
        let tree = Tree::new();
        tree.write("x-y.yaml", crate::fixture::CONFIG);
        tree.write(
            "tests/scripts/perf-sanity/aggregated/one-config.yaml",
            "hardware:\n  gpus_per_node: 4\nserver_configs:\n  - name: small\n    tensor_parallel_size: 2\n",
        );
        tree
    }

    #[test]
    fn the_form_of_a_test_id_decides_on_the_rules() {
        let tree = tree();
        let classic = of(&tree, Some("x-y.yaml"), "disagg_upload-x-y").unwrap();
        assert_eq!(
            (classic.suite.as_ref().unwrap().rules.name(), classic.title()),
            ("classic", "disagg_upload-x-y")
        );
        let unified = of(&tree, Some("x-y.yaml"), "disagg_upload-gen_only-x-y").unwrap();
        assert_eq!(unified.suite.as_ref().unwrap().rules.name(), "unified");
        assert_eq!(
            unified.names(),
            "GEN_PRECHECK_0, CTX_PRECHECK_0..CTX_PRECHECK_1, GEN_0, CTX_0..CTX_1, DISAGG_SERVER, BENCHMARK"
        );
    }

    #[test]
    fn a_test_id_alone_names_the_config() {
        let plan = of(&tree(), None, "aggr_upload-one-config-small").unwrap();
        assert_eq!(plan.config.name, "one-config");
        assert_eq!(plan.names(), "AGGREGATED");
    }

    #[test]
    fn a_test_id_of_no_form_says_what_the_forms_are_in_the_words_of_these_options() {
        let message = of(&tree(), None, "x").unwrap_err();
        assert!(message.contains("write disagg_upload-e2e-CONFIG"), "{message}");
        let message = of(&tree(), None, "disagg_upload-a/b").unwrap_err();
        assert!(message.contains("--disagg-config"), "{message}");
        assert!(!message.contains("--config-file"), "{message}");
    }

    #[test]
    fn what_is_missing_is_named_by_the_ways_to_set_it_that_there_are_here() {
        for setting in [TRTLLM_DIR, MODELS_DIR] {
            let advice = in_our_words(&setting.how_to_set());
            assert!(!advice.contains("--"), "{advice}");
            let key = format!("{} (site.yaml)", setting.name);
            assert!(advice.starts_with("set ") && advice.ends_with(&key), "{advice}");
        }
    }

    #[test]
    fn an_error_without_a_place_is_not_called_an_error_twice() {
        let text = messages(&[Diagnostic::error("first"), Diagnostic::warning("second")]);
        assert_eq!(text, "disagg: first\nwarning: second");
    }
}
