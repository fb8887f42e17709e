// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg diff`.

use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::input::request::{self, Options};
use disagg::input::{Context, find, source};
use disagg::output::diff;
use disagg::plan::{Generation, Plan, TestId};

use crate::args::{DiffArgs, Format};
use crate::{Failure, Outcome, print, report};

pub fn run(args: &DiffArgs, context: &Context) -> Outcome {
    let rules = args.settings.0.rules;
    let set = &args.changes.set;
    let (one, two) = match &args.after {
        Some(after) => (
            (args.before.clone(), planned(&args.before, rules, set, args, context)?),
            (after.clone(), planned(after, rules, set, args, context)?),
        ),
        None if !set.is_empty() => (
            (args.before.clone(), planned(&args.before, rules, &[], args, context)?),
            (
                format!("{} --set {}", args.before, set.join(" --set ")),
                planned(&args.before, rules, set, args, context)?,
            ),
        ),
        None if rules.is_some() => {
            let help = "give B, or leave --rules out to compare the rule sets";
            return Err(Diagnostic::error("--rules needs both A and B").help(help).into());
        }
        None => {
            let by = |rules| -> Result<_, Failure> {
                let plan = planned(&args.before, Some(rules), &[], args, context)?;
                Ok((format!("{} ({rules} rules)", args.before), plan))
            };
            (by(Generation::Classic)?, by(Generation::Unified)?)
        }
    };
    let changes = diff::changes(&one.1, &two.1);
    print(&match args.format {
        Format::Text => diff::text(&changes, (&one.0, &two.0)),
        Format::Json => serde_json::to_string_pretty(&changes)? + "\n",
    })?;
    Ok(if changes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan of a configuration, a test id, or a plan's own file.
fn planned(
    what: &str,
    rules: Option<Generation>,
    set: &[String],
    args: &DiffArgs,
    context: &Context,
) -> Result<Plan, Failure> {
    if what.ends_with(".json") {
        let source = source::read(&context.current_dir.join(what), what)?;
        // A configuration may be JSON too; only a plan says which schema it has.
        let json = serde_json::from_str::<serde_json::Value>(&source.text);
        if json.is_ok_and(|json| json.get("schema").is_some()) {
            if !set.is_empty() {
                let error = format!("{what} is a plan: --set changes configurations only");
                return Err(Diagnostic::error(error).into());
            }
            return Plan::from_json(&source.text)
                .map_err(|error| Diagnostic::error(format!("{what}: {error}")).into());
        }
    }
    let is_id = !find::is_path(what)
        && TestId::readings(what, rules).is_ok_and(|ids| ids[0].has_usual_prefix());
    let mut options = Options { rules, set: set.to_vec(), ..args.settings.0.clone() };
    if is_id {
        options.test_id = Some(what.to_owned());
    } else {
        options.config = what.to_owned();
    }
    let (plan, warnings) = request::plan(&options, context)?;
    report(&warnings);
    Ok(plan)
}
