// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg plan`.

use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::input::{Context, request};
use disagg::output::{self, table};
use disagg::plan::Plan;
use disagg::plan::step::{Variable, resolve};
use disagg::slurm::hostlist;

use crate::args::{PlanArgs, PlanFormat};
use crate::{Outcome, print, report};

pub fn run(args: &PlanArgs, context: &Context) -> Outcome {
    let (plan, warnings) = request::plan(&args.inputs.options(), context)?;
    report(&warnings);
    let nodes = args.nodes.as_deref().map(hostlist::expand).transpose();
    let nodes = nodes.map_err(|error| Diagnostic::error(format!("--nodes: {error}")))?;
    if let Some(nodes) = &nodes
        && nodes.len() < plan.layout.total_nodes as usize
    {
        let message = format!(
            "too few nodes: --nodes names {} of the {} that the plan takes",
            nodes.len(),
            plan.layout.total_nodes
        );
        return Err(Diagnostic::error(message).into());
    }
    let plan = output::without_secrets(&plan);
    let mut text = text(args, &plan, nodes.as_deref())?;
    if args.format == PlanFormat::Table && args.role.is_none() {
        text += &launcher_line_zh(&plan, context);
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Under a Chinese locale, the line that people's checks look for; else nothing.
pub fn launcher_line_zh(plan: &Plan, context: &Context) -> String {
    // By the rule of gettext.
    let locale = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .iter()
        .find_map(|name| (context.env)(name).filter(|value| !value.is_empty()));
    match &plan.suite {
        Some(suite) if locale.is_some_and(|locale| locale.starts_with("zh")) => {
            format!("{}\n", table::launcher_line_zh(suite))
        }
        _ => String::new(),
    }
}

fn text(args: &PlanArgs, plan: &Plan, nodes: Option<&[String]>) -> Result<String, crate::Failure> {
    let Some(role) = &args.role else {
        return Ok(match args.format {
            PlanFormat::Table => table::plan(plan, nodes),
            PlanFormat::Json => serde_json::to_string_pretty(plan)? + "\n",
            PlanFormat::Env => output::env(plan),
        });
    };
    let instance = plan
        .instance(role)
        .map_err(|error| Diagnostic::error(format!("--role {role}: {error}")))?;
    Ok(match args.format {
        PlanFormat::Table => table::instance(&instance, nodes),
        PlanFormat::Json => {
            let view = output::instance::View::new(&instance, nodes);
            serde_json::to_string_pretty(&view)? + "\n"
        }
        PlanFormat::Env => {
            let set = resolve(&instance, nodes.unwrap_or_default()).set;
            let line = |variable: &Variable<'_>| {
                format!("{}={}\n", variable.name, output::quote::template(&variable.value))
            };
            set.iter().map(line).collect()
        }
    })
}
