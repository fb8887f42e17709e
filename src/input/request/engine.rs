// SPDX-License-Identifier: Apache-2.0
//! Recipes of engines among the inputs.

use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::input::recipe::{self, Format};
use crate::input::settings::{Options, Settings};
use crate::input::{Context, find, profile, set, site, source};
use crate::plan::{Plan, Traced};

/// The folder of profiles that come before those that are compiled in.
///
/// # Errors
/// What is wrong with the settings.
pub fn profiles_folder(options: &Options, context: &Context) -> Result<PathBuf, Diagnostics> {
    let mut errors = Diagnostics::default();
    let explicit = Settings::default().with(options, &mut errors);
    let site = explicit.site.as_ref().map(|site| site.value.as_path());
    let all = site::load(context, site)?.with(options, &mut errors);
    if errors.has_errors() { Err(errors) } else { Ok(folder_of(all.profiles, context)) }
}

pub(super) fn folder_of(given: Option<Traced<String>>, context: &Context) -> PathBuf {
    let folder = given.map_or_else(|| profile::SITE_FOLDER.to_owned(), |folder| folder.value);
    context.current_dir.join(folder)
}

/// The recipe that the options name, when they name one by its path.
pub(super) fn recipe_of(
    options: &Options,
    text: Option<&Arc<Source>>,
    context: &Context,
) -> Result<Option<recipe::Found>, Diagnostics> {
    let source = match text {
        Some(text) => Arc::clone(text),
        None if options.test_id.is_some() || options.test_list.is_some() => return Ok(None),
        None if !find::is_path(&options.config) => return Ok(None),
        None => {
            let path = context.current_dir.join(&options.config);
            // What is wrong with the path is for the search of configurations to say.
            match path.is_file() {
                true => source::read(&path, &options.config)?,
                false => return Ok(None),
            }
        }
    };
    // A test's configuration may look like a benchmark's.
    let is_test = options.test_id.is_some()
        || options.test_list.is_some()
        || options.trtllm_dir.is_some()
        || options.prefix_script.is_some()
        || options.rules.is_some();
    let found = recipe::find(&source, &set::sources(&options.set))?;
    Ok(found.filter(|found| found.format == Format::Own || !is_test))
}

/// The plan of a recipe.
pub(super) fn plan_recipe(
    options: &Options,
    found: &recipe::Found,
    context: &Context,
) -> Result<(Result<Plan, Diagnostics>, Vec<Diagnostic>), Diagnostics> {
    let (request, warnings) = super::recipe::build(options, found, context)?;
    Ok((crate::plan::engine::plan(&request), warnings))
}
