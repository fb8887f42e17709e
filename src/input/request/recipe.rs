// SPDX-License-Identifier: Apache-2.0
//! The request for a recipe of an engine.

use super::job::{job_settings, max_failed};
use super::{absolute, choice, each, or_default};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::input::settings::{self, Options, Settings};
use crate::input::slurm_args::{self, OfGpus, Program};
use crate::input::{Context, profile, recipe, site};
use crate::plan::recipe::EngineRequest;
use crate::plan::request::{ContainerSettings, GpuRequest};
use crate::plan::{Origin, Traced};

/// The request for a recipe.
pub(super) fn build(
    options: &Options,
    found: &recipe::Found,
    context: &Context,
) -> Result<(EngineRequest, Vec<Diagnostic>), Diagnostics> {
    // What is wrong with an option is said below, with all the rest.
    let mut errors = Diagnostics::default();
    let explicit = Settings::default().with(options, &mut Diagnostics::default());
    let site = site::files(context, explicit.site.as_ref().map(|site| site.value.as_path()))?;
    found.document.source.hide(site.secrets.as_ref().map_or(&[][..], |secrets| &secrets.value));
    let path = context.current_dir.join(&options.config);
    let environment = site::environment(context)?;
    let elsewhere = site.clone().over(&environment).with(options, &mut Diagnostics::default());
    let around = recipe::Around { current_dir: &context.current_dir, settings: &elsewhere };
    let recipe::Read { recipe, engine, settings: of_recipe, extra_args, mut found } =
        recipe::read(&path, found, &around);
    let given = site.clone().over(&of_recipe).over(&environment).with(options, &mut errors);
    let folder = super::engine::folder_of(given.profiles.clone(), context);
    let base = path.parent().unwrap_or(&context.current_dir);
    let profile = profile::find(&engine.value, &folder, base).map_err(|mut errors| {
        for error in errors.0.iter_mut().filter(|error| error.location.is_none()) {
            error.location.clone_from(&engine.origin.location);
        }
        errors
    });
    // A recipe without an engine is wrong already.
    let profile = match profile.and_then(|found| profile::parse(&found)) {
        Err(wrong) if !engine.value.is_empty() => {
            found.0.extend(wrong.0);
            None
        }
        profile => profile.ok(),
    };
    let mut job = job_settings(&[&site, &of_recipe], &given, options, &mut errors);
    let (Some(mut recipe), Some(profile)) = (recipe, profile) else {
        found.0.extend(errors.0);
        return Err(found);
    };
    if recipe.model.value.starts_with("./") || recipe.model.value.starts_with("../") {
        recipe.model.value = absolute(base, &recipe.model.value);
    }
    if let Some(setup) = &mut recipe.setup {
        setup.value = absolute(base, &setup.value);
    }
    for role in recipe.roles.values_mut() {
        let given_args = std::mem::take(&mut role.srun_args);
        role.srun_args = slurm_args::check(Program::Srun, given_args, &given, &mut errors);
    }
    let path_of = |Traced { value, origin }: Traced<String>| {
        Traced::new(absolute(&context.current_dir, &value), origin)
    };
    if let Some(line) = &extra_args {
        let gpus = recipe.gpus_per_node.as_ref().map(|gpus| gpus.value);
        // It asks for GPUs, or for none: the plan does not, unless that cannot be taken.
        let is_decided = elsewhere.gpu_request.is_some();
        let how = if is_decided { OfGpus::ByPlan } else { OfGpus::AsThere };
        let words = slurm_args::of_config(line, gpus, &given, how, &mut found.0);
        let names_gpus = |text: &str| text.contains("gpu") || text.contains("-G");
        let is_taken = words.iter().any(|word| names_gpus(&word.value));
        if !is_decided && (is_taken || !names_gpus(&line.value)) {
            job.gpu_request = Traced::new(GpuRequest::None, line.origin.by_rule("as it says"));
        }
        job.sbatch_args.splice(0..0, words);
    }
    let benchmark = recipe.benchmark.as_ref().filter(|benchmark| benchmark.command.is_none());
    let named = benchmark.and_then(|benchmark| benchmark.client.as_ref());
    let named = named.map(|name| name.value.as_str()).or(profile.client.as_deref());
    let (client, client_names) = profile::client(named.filter(|_| benchmark.is_some()))?;
    let request = EngineRequest {
        workspace: path_of(given.workspace.clone().unwrap_or_else(|| {
            let rule = "disagg_<recipe> in the current directory";
            Traced::new(format!("disagg_{}", recipe.file.name), Origin::rule(rule))
        })),
        job,
        client,
        client_names,
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
    found.0.extend(errors.0);
    if found.has_errors() {
        let names = crate::plan::engine::wrong_names(&request);
        names.0.into_iter().for_each(|error| found.push_once(error));
        return Err(found);
    }
    Ok((request, found.0))
}
