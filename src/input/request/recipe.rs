// SPDX-License-Identifier: Apache-2.0
//! The request for a recipe of an engine.

use std::sync::Arc;

use super::job::{job_settings, max_failed};
use super::{absolute, choice, each, or_default};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::input::settings::{self, Options, Settings};
use crate::input::slurm_args::{self, OfGpus};
use crate::input::{Context, profile, recipe, set, site};
use crate::plan::recipe::EngineRequest;
use crate::plan::request::{ContainerSettings, GpuRequest};
use crate::plan::{Origin, Traced};

/// The request for a recipe.
pub(super) fn build(
    options: &Options,
    source: &Arc<Source>,
    context: &Context,
) -> Result<(EngineRequest, Vec<Diagnostic>), Diagnostics> {
    let mut errors = Diagnostics::default();
    let explicit = Settings::default().with(options, &mut errors);
    if errors.has_errors() {
        return Err(errors);
    }
    let site = site::files(context, explicit.site.as_ref().map(|site| site.value.as_path()))?;
    source.hide(site.secrets.as_ref().map_or(&[][..], |secrets| &secrets.value));
    let path = context.current_dir.join(&options.config);
    let environment = site::environment(context)?;
    let elsewhere = site.clone().over(&environment).with(options, &mut Diagnostics::default());
    let around = recipe::Around { current_dir: &context.current_dir, settings: &elsewhere };
    let recipe::Read { mut recipe, engine, settings: of_recipe, extra_args, mut warnings } =
        recipe::read(&path, source, &set::sources(&options.set), &around)?;
    let given = site.clone().over(&of_recipe).over(&environment).with(options, &mut errors);
    let folder = super::engine::folder_of(given.profiles.clone(), context);
    let base = path.parent().unwrap_or(&context.current_dir);
    let found = profile::find(&engine.value, &folder, base).map_err(|error| {
        match error.location.is_some() {
            true => error,
            false => error.at(engine.origin.location.clone()),
        }
    })?;
    let profile = profile::parse(&found)?;
    if recipe.model.value.starts_with("./") || recipe.model.value.starts_with("../") {
        recipe.model.value = absolute(base, &recipe.model.value);
    }
    let path_of = |Traced { value, origin }: Traced<String>| {
        Traced::new(absolute(&context.current_dir, &value), origin)
    };
    let mut job = job_settings(&[&site, &of_recipe], &given, options, &mut errors);
    if let Some(line) = &extra_args {
        let gpus = recipe.gpus_per_node.as_ref().map(|gpus| gpus.value);
        // It asks for GPUs, or for none: the plan does not, unless that cannot be taken.
        let is_decided = elsewhere.gpu_request.is_some();
        let how = if is_decided { OfGpus::ByPlan } else { OfGpus::AsThere };
        let words = slurm_args::of_config(line, gpus, &given, how, &mut warnings);
        let names_gpus = |text: &str| text.contains("gpu") || text.contains("-G");
        let is_taken = words.iter().any(|word| names_gpus(&word.value));
        if !is_decided && (is_taken || !names_gpus(&line.value)) {
            job.gpu_request = Traced::new(GpuRequest::None, line.origin.by_rule("as it says"));
        }
        job.sbatch_args.splice(0..0, words);
    }
    let request = EngineRequest {
        workspace: path_of(given.workspace.clone().unwrap_or_else(|| {
            let rule = "disagg_<recipe> in the current directory";
            Traced::new(format!("disagg_{}", recipe.file.name), Origin::rule(rule))
        })),
        job,
        clients: profile::clients()?,
        recipe,
        profile,
        placement: choice(given.placement, &settings::PLACEMENT),
        frontend_node: given.frontend_node,
        interface: given.interface,
        mpi: or_default(given.mpi, &settings::MPI),
        container: given.container_image.map(|image| ContainerSettings {
            image,
            mounts: each(site.container_mounts).chain(each(of_recipe.container_mounts)).collect(),
        }),
        install_script: given.install_script.map(path_of),
        max_failed: max_failed(given.max_failed),
        secrets: given.secrets.map(|secrets| secrets.value).unwrap_or_default(),
    };
    if errors.has_errors() { Err(errors) } else { Ok((request, warnings)) }
}
