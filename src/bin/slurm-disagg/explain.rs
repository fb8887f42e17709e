// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg explain`.

use std::fmt::Write;
use std::process::ExitCode;

use disagg::diagnostic::{Diagnostic, Printable, nearest};
use disagg::input::{Context, request};
use disagg::output::explain::{entries, select};

use crate::args::{ExplainArgs, Format};
use crate::{Outcome, print, report};

pub fn run(args: &ExplainArgs, context: &Context) -> Outcome {
    let (plan, warnings) = request::plan(&args.inputs.options(), context)?;
    report(&warnings);
    let all = entries(&plan);
    let selected = select(all.clone(), args.name.as_deref());
    if let (true, Some(name)) = (selected.is_empty(), &args.name) {
        let near = nearest(name, all.iter().map(|entry| entry.name.as_str()), 3);
        let help = match near.is_empty() {
            true => "leave --name out to show every value".to_owned(),
            false => format!("nearest names: {}", near.join(", ")),
        };
        let message = format!("the plan has no variable, option or argument {name}");
        return Err(Diagnostic::error(message).help(help).into());
    }
    match args.format {
        Format::Json => print(&(serde_json::to_string_pretty(&selected)? + "\n"))?,
        Format::Text => {
            let mut text = String::new();
            for entry in selected {
                let equals = if entry.value.is_empty() { "" } else { "=" };
                let _ = writeln!(
                    text,
                    "{} {} {}{equals}{}\n    {}",
                    entry.whose,
                    entry.kind,
                    Printable(&entry.name),
                    Printable(&entry.value),
                    Printable(&entry.source)
                );
            }
            print(&text)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
