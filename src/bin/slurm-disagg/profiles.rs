// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg profiles`.

use std::process::ExitCode;

use serde::Serialize;

use disagg::diagnostic::{Diagnostic, Printable};
use disagg::input::request::Options;
use disagg::input::{Context, profile, request};

use crate::args::{Format, ProfilesArgs};
use crate::{Outcome, print, report};

/// A profile as programs read it.
#[derive(Serialize)]
struct Entry {
    engine: String,
    about: String,
    roles: Vec<String>,
    file: Option<String>,
}

pub fn run(args: &ProfilesArgs, context: &Context) -> Outcome {
    let options =
        Options { site: args.site.clone(), profiles: args.profiles.clone(), ..Options::default() };
    let folder = request::profiles_folder(&options, context)?;
    if let Some(name) = &args.name {
        let found = profile::find(name, &folder, &context.current_dir)?;
        // What is printed can be used: a wrong one is named as such.
        profile::parse(&found)?;
        print(&found.document.source.text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut entries = Vec::new();
    let mut wrong = false;
    for name in profile::names(&folder) {
        let found = profile::find(&name, &folder, &context.current_dir);
        match found.and_then(|found| Ok((profile::parse(&found)?, found.file))) {
            Ok((profile, file)) => entries.push(Entry {
                engine: profile.engine,
                about: profile.about,
                roles: profile.roles.keys().cloned().collect(),
                file: file.map(|file| file.to_string_lossy().into_owned()),
            }),
            Err(errors) => {
                report(&errors.0);
                wrong = true;
            }
        }
    }
    if args.format == Format::Json {
        print(&(serde_json::to_string_pretty(&entries)? + "\n"))?;
    } else {
        let width = entries.iter().map(|entry| entry.engine.len()).max().unwrap_or_default();
        for Entry { engine, about, roles, file } in &entries {
            let place = file.as_ref().map(|file| format!(" ({file})")).unwrap_or_default();
            let roles = roles.join(", ");
            let (about, place) = (Printable(about), Printable(&place));
            print(&format!("{engine:width$}  {about}{place}\n{:width$}  roles: {roles}\n", ""))?;
        }
    }
    match wrong {
        true => Err(Diagnostic::error("some profiles cannot be used").into()),
        false => Ok(ExitCode::SUCCESS),
    }
}
