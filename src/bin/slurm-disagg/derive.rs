// SPDX-License-Identifier: Apache-2.0
//! `slurm-disagg derive`.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use disagg::diagnostic::Diagnostic;
use disagg::input::request::{self, Options};
use disagg::input::{Context, source};
use disagg::output::derive::{self, GATE_DIR, GATE_FILE, Parts};
use disagg::output::exports::has_secrets;

use crate::args::DeriveArgs;
use crate::{Failure, Outcome, print, report};

pub fn run(args: &DeriveArgs, context: &Context) -> Outcome {
    let options = Options {
        test_list: Some(args.test_list.clone()),
        split_group: Some(args.split_group),
        trtllm_dir: Some(args.llm_src.clone()),
        prefix_script: Some(args.script_prefix.clone()),
        stage_name: args.stage_name.clone(),
        cluster_name: args.cluster_name.clone(),
        run_script: Some(args.run_sh.clone()),
        install_script: Some(args.install_sh.clone()),
        rules: args.rules,
        site: args.site.clone(),
        ..Options::default()
    };
    let (plan, warnings) = request::plan(&options, context)?;
    report(&warnings);
    let Some(suite) = &plan.suite else {
        return Err(Diagnostic::error("the test list names no test of the test suite").into());
    };
    for note in &plan.notes {
        report(&[Diagnostic::note(note.clone())]);
    }
    let read = |path: &Path| source::read(path, &path.to_string_lossy());
    let prefix = read(Path::new(&args.script_prefix))?;
    let srun_args = read(&args.srun_args)?;
    let draft = read(&args.draft_launch_sh)?;
    let of_tree = Path::new(&suite.source_dir).join(GATE_DIR).join(GATE_FILE);
    let gates = [args.draft_launch_sh.with_file_name(GATE_FILE), of_tree];
    let gate = gates.iter().find(|gate| gate.exists()).map(|gate| read(gate)).transpose()?;
    let script = derive::launch_script(
        &plan,
        &Parts {
            prefix: &prefix.text,
            srun_args: &srun_args.text,
            draft: &draft.text,
            gate: gate.as_ref().map(|gate| gate.text.as_str()),
        },
    );
    // Nobody else reads a script that holds a secret.
    let mode = if has_secrets(&plan) { 0o700 } else { 0o755 };
    write(&args.launch_sh, &script, mode).map_err(|error| {
        Failure::Other(format!("{} cannot be written: {error}", args.launch_sh.display()))
    })?;
    let (id, rules, why) = (&suite.test.id, suite.rules, &suite.rules_reason);
    let path = args.launch_sh.display();
    print(&format!("{id}: wrote {path} by the {rules} rules ({why})\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the whole file or nothing.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}
