// SPDX-License-Identifier: Apache-2.0
//! Reads site.yaml and the environment. Later sources win: `/etc/slurm-disagg/site.yaml`,
//! `~/.config/slurm-disagg/site.yaml` (or, instead of both, the file of `--site`), environment
//! variables.

use std::path::{Path, PathBuf};

use super::fields::{Fields, Section};
use super::settings::{Settings, TABLE};
use super::values::Value;
use super::{Context, source, yaml};
use crate::diagnostic::Diagnostics;
use crate::plan::config::Field;
use crate::plan::template::is_name;
use crate::plan::ucx;

/// The settings file of the machine.
pub const SYSTEM_FILE: &str = "/etc/slurm-disagg/site.yaml";
/// The settings file of the user, below `$HOME`.
pub const USER_FILE: &str = ".config/slurm-disagg/site.yaml";

/// Reads the settings files and the environment.
///
/// # Errors
/// As [`files`] and [`environment`].
pub fn load(context: &Context, explicit: Option<&Path>) -> Result<Settings, Diagnostics> {
    Ok(files(context, explicit)?.over(&environment(context)?))
}

/// Reads the environment.
///
/// # Errors
/// A variable has a wrong value.
pub fn environment(context: &Context) -> Result<Settings, Diagnostics> {
    let (mut settings, mut errors) = (Settings::default(), Diagnostics::default());
    settings.read_environment(context.env, &mut errors);
    if errors.has_errors() { Err(errors) } else { Ok(settings) }
}

/// Reads the settings files.
///
/// # Errors
/// A file cannot be read, or has an unknown key or a wrong value; the file of `--site` is missing.
pub fn files(context: &Context, explicit: Option<&Path>) -> Result<Settings, Diagnostics> {
    let mut settings = Settings::default();
    match explicit {
        Some(path) => read_file(&mut settings, &context.current_dir.join(path), path)?,
        None => {
            let user = (context.env)("HOME").map(|home| PathBuf::from(home).join(USER_FILE));
            for path in [Some(PathBuf::from(SYSTEM_FILE)), user].into_iter().flatten() {
                if path.exists() {
                    read_file(&mut settings, &path, &path)?;
                }
            }
        }
    }
    Ok(settings)
}

/// Reads a file, under the name that messages show.
fn read_file(settings: &mut Settings, path: &Path, name: &Path) -> Result<(), Diagnostics> {
    let document = yaml::parse(&source::read(path, &name.to_string_lossy())?)?;
    let (mut fields, root) = Fields::new(&document);
    let known: Vec<_> = TABLE.iter().filter_map(|setting| setting.key).collect();
    fields.refuse_unknown(&root, &known);
    settings.read(&mut fields, &root);
    let mut found = fields.diagnostics;
    found.0.extend(fields.bad_fields.0);
    if found.has_errors() { Err(found) } else { Ok(()) }
}

impl Value for Vec<ucx::Row> {
    fn take(_: &mut Option<Self>, _: &str) -> Result<(), String> {
        Err("can be set only in site.yaml".to_owned())
    }

    fn read<'d>(fields: &mut Fields<'d>, root: &Section<'d>, key: &str) -> Field<Self> {
        let rows = fields.sections(root, key);
        rows.map(|rows| rows.iter().map(|row| ucx_row(fields, row)).collect())
    }
}

fn ucx_row<'d>(fields: &mut Fields<'d>, section: &Section<'d>) -> ucx::Row {
    fields.refuse_unknown(section, &["cluster", "gpu", "unset", "export"]);
    let mut pattern = |key| match fields.text(section, key) {
        Field::Good(pattern) => pattern.value,
        _ => String::new(),
    };
    let (cluster, gpu) = (pattern("cluster"), pattern("gpu"));
    if cluster.is_empty() && gpu.is_empty() {
        fields.error(section.position(), "a row of ucx needs `cluster:` or `gpu:`");
    }
    let mut row = ucx::Row { cluster, gpu, ..ucx::Row::default() };
    if let Field::Good(names) = fields.texts(section, "unset") {
        if let Some(wrong) = names.value.iter().find(|name| !is_name(name)) {
            let message = format!("{wrong:?} is not the name of an environment variable");
            fields.error(section.position(), message);
        }
        row.unset = names.value;
    }
    if let Field::Good(export) = fields.assignments(section, "export") {
        row.export = export.value;
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::request::Switch;

    fn site(text: &str, variables: &[(&str, &str)]) -> Result<Settings, Diagnostics> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.yaml");
        std::fs::write(&path, text).unwrap();
        let env = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string())
        };
        load(&Context { env: &env, current_dir: directory.path().into() }, Some(&path))
    }

    #[test]
    fn the_environment_wins_over_the_file_unless_it_is_empty() {
        let variables = [("CLUSTER_ACCOUNT", "mine"), ("CLUSTER_PARTITION", "")];
        let site = site("account: theirs\npartition: batch\n", &variables).unwrap();
        assert_eq!(site.account.unwrap().value, "mine");
        assert_eq!(site.partition.unwrap().value, "batch");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_the_near_one() {
        let error = site("acount: x\nplacement: tight\n", &[]).unwrap_err().to_string();
        assert!(error.contains("site.yaml:1:1: error: unknown key acount"), "{error}");
        assert!(error.contains("did you mean `account`?"), "{error}");
        assert!(error.contains("placement must be one of: exclusive, packed"), "{error}");
    }

    #[test]
    fn the_environment_s_text_wins_over_the_site_s_switch_also_when_it_is_empty() {
        for text in ["1", "", "off"] {
            let site = site("precheck: true\n", &[("TRTLLM_DISAGG_CT_PRECHECK", text)]).unwrap();
            assert_eq!(site.precheck.unwrap().value, Switch::Text(text.to_owned()));
        }
        let site = site("precheck: true\n", &[]).unwrap();
        assert_eq!(site.precheck.unwrap().value, Switch::Is(true));
    }

    #[test]
    fn a_row_of_ucx_is_read_strictly() {
        for row in ["{gpu: X, unset: [A, B], export: 'C=1 D=2'}", "{cluster: 'aws*'}"] {
            assert!(site(&format!("ucx: [{row}]\n"), &[]).is_ok(), "{row}");
        }
        for row in ["{unset: [A]}", "{gpu: X, unset: [a-b]}", "{gpu: X, exports: A=1}", "x"] {
            assert!(site(&format!("ucx: [{row}]\n"), &[]).is_err(), "{row}");
        }
    }

    #[test]
    fn a_text_that_is_empty_or_of_the_wrong_form_is_an_error_at_its_place() {
        for (line, what) in [
            ("account: ''", "1:10: error: account must not be empty"),
            ("qos: ' '", "1:6: error: qos must not be empty"),
            ("sbatch_args: ['']", "1:14: error: sbatch_args must not be empty"),
            ("time: soon", "1:7: error: time: "),
            ("mem: lots", "1:6: error: mem: invalid memory size \"lots\": use 64G"),
            ("mem: 64GB", "1:6: error: mem: invalid memory size"),
            (
                "gpu_request: gpus",
                "1:14: error: gpu_request must be one of: per-node, gres, total, none",
            ),
        ] {
            let error = site(line, &[]).unwrap_err().to_string();
            assert!(error.contains(&format!("site.yaml:{what}")), "{line}: {error}");
        }
        for mem in ["0", "64G", "1500m", "'8'"] {
            assert!(site(&format!("mem: {mem}"), &[]).is_ok(), "{mem}");
        }
    }
}
