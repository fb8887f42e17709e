// SPDX-License-Identifier: Apache-2.0
//! The site's defaults: settings files, and over them the environment variables that people's
//! scripts already set.
//!
//! Files, the later ones over the earlier: `/etc/slurm-disagg/site.yaml`,
//! `~/.config/slurm-disagg/site.yaml`; or one named by `--site`, alone. The keys are [`KEYS`].

use std::path::{Path, PathBuf};

use super::fields::{Fields, Section};
use super::{Surroundings, source, yaml};
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::plan::config::Field;
use crate::plan::template::is_name;
use crate::plan::{FrontendNode, Origin, Placement, Traced, ucx};

/// The settings file of the machine.
pub const SYSTEM_FILE: &str = "/etc/slurm-disagg/site.yaml";
/// The settings file of the user, below `$HOME`.
pub const USER_FILE: &str = ".config/slurm-disagg/site.yaml";

/// The keys of a settings file, each with its meaning.
pub const KEYS: &[(&str, &str)] = &[
    ("trtllm_dir", "D, the TensorRT-LLM source tree"),
    ("models_dir", "M, the models; CLUSTER_LLM_DATA in the environment"),
    ("account", "the Slurm account; CLUSTER_ACCOUNT in the environment"),
    ("partition", "the Slurm partition; CLUSTER_PARTITION in the environment"),
    ("time", "the time limit of jobs whose configuration names none, in Slurm's form"),
    ("job_name", "the job's name"),
    ("mpi_type", "the MPI type of CTX and GEN steps (pmix); MPI_TYPE in the environment"),
    ("container_image", "the image that steps run in (pyxis); DOCKER_IMAGE in the environment"),
    ("container_mounts", "a list of further mounts, each SOURCE:TARGET"),
    ("perf_test_module", "the pytest module; PERF_TEST_MODULE in the environment"),
    ("perf_test_function", "the test function; PERF_TEST_FUNCTION in the environment"),
    ("perf_test_prefix", "the test id's prefix; PERF_TEST_PREFIX in the environment"),
    ("placement", "exclusive or packed"),
    ("frontend_node", "the node of DISAGG_SERVER and BENCHMARK: first, last, ctx or own"),
    ("segment", "true where Slurm knows --segment (topology/block)"),
    ("run_script", "a script that each step runs instead of its command"),
    (
        "install_script",
        "a script that runs on every node before the servers start; it runs again when its launch \
         fails on a node, or the job is requeued",
    ),
    (
        "precheck",
        "whether caches are checked before the servers start; TRTLLM_DISAGG_CT_PRECHECK (1: yes) \
         in the environment",
    ),
    (
        "ucx",
        "what UCX needs by generation of GPU, a list of `gpu:` (as in the stage's name), `unset:` \
         (a list of names) and `export:` ('NAME=VALUE …')",
    ),
    ("secrets", "a list of variables whose values are never shown, besides HF_TOKEN"),
];

/// The variable by which pipelines turn the precheck on and off.
const PRECHECK_VARIABLE: &str = "TRTLLM_DISAGG_CT_PRECHECK";

/// The names of [`Placement`], for options and settings.
pub const PLACEMENTS: &[(&str, Placement)] =
    &[("exclusive", Placement::Exclusive), ("packed", Placement::Packed)];

/// The names of [`FrontendNode`].
pub const FRONTEND_NODES: &[(&str, FrontendNode)] = &[
    ("first", FrontendNode::First),
    ("last", FrontendNode::Last),
    ("ctx", FrontendNode::Ctx),
    ("own", FrontendNode::Own),
];

/// What the site says; a value that it does not give is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Site {
    /// `trtllm_dir`.
    pub trtllm_dir: Option<Traced<String>>,
    /// `models_dir`.
    pub models_dir: Option<Traced<String>>,
    /// `account`.
    pub account: Option<Traced<String>>,
    /// `partition`.
    pub partition: Option<Traced<String>>,
    /// `time`.
    pub time: Option<Traced<String>>,
    /// `job_name`.
    pub job_name: Option<Traced<String>>,
    /// `mpi_type`.
    pub mpi_type: Option<Traced<String>>,
    /// `container_image`.
    pub container_image: Option<Traced<String>>,
    /// `container_mounts`.
    pub container_mounts: Option<Traced<Vec<String>>>,
    /// `perf_test_module`.
    pub perf_test_module: Option<Traced<String>>,
    /// `perf_test_function`.
    pub perf_test_function: Option<Traced<String>>,
    /// `perf_test_prefix`.
    pub perf_test_prefix: Option<Traced<String>>,
    /// `placement`.
    pub placement: Option<Traced<Placement>>,
    /// `frontend_node`.
    pub frontend_node: Option<Traced<FrontendNode>>,
    /// `segment`.
    pub segment: Option<Traced<bool>>,
    /// `run_script`.
    pub run_script: Option<Traced<String>>,
    /// `install_script`.
    pub install_script: Option<Traced<String>>,
    /// `precheck`.
    pub precheck: Option<Traced<bool>>,
    /// `ucx`.
    pub ucx: Option<Traced<Vec<ucx::Row>>>,
    /// `secrets`.
    pub secrets: Option<Traced<Vec<String>>>,
}

/// Reads the site's settings.
///
/// # Errors
/// A file that `--site` names cannot be read; any file that is there has an unknown key or a
/// wrong value; a variable of the environment has control characters.
pub fn load(around: &Surroundings, explicit: Option<&Path>) -> Result<Site, Diagnostics> {
    let mut site = Site::default();
    match explicit {
        Some(path) => site.read_file(path)?,
        None => {
            let user = (around.env)("HOME").map(|home| PathBuf::from(home).join(USER_FILE));
            for path in [Some(PathBuf::from(SYSTEM_FILE)), user].into_iter().flatten() {
                if path.exists() {
                    site.read_file(&path)?;
                }
            }
        }
    }
    site.read_environment(around)?;
    Ok(site)
}

impl Site {
    fn read_file(&mut self, path: &Path) -> Result<(), Diagnostics> {
        let document = yaml::parse(&source::read(path, &path.to_string_lossy())?)?;
        let (mut fields, root) = Fields::new(&document);
        let known: Vec<_> = KEYS.iter().map(|(key, _)| *key).collect();
        fields.refuse_unknown(&root, &known);
        self.read_fields(&mut fields, &root);
        let mut found = fields.diagnostics;
        found.0.extend(fields.bad_fields.0);
        if found.has_errors() { Err(found) } else { Ok(()) }
    }

    fn read_fields<'d>(&mut self, fields: &mut Fields<'d>, root: &Section<'d>) {
        for (key, slot) in self.texts() {
            take(slot, fields.text(root, key));
        }
        take(&mut self.container_mounts, fields.texts(root, "container_mounts"));
        take(&mut self.placement, fields.choice(root, "placement", PLACEMENTS));
        take(&mut self.frontend_node, fields.choice(root, "frontend_node", FRONTEND_NODES));
        take(&mut self.segment, fields.truth(root, "segment"));
        take(&mut self.time, super::config::time_limit(fields, root, "time"));
        take(&mut self.secrets, fields.texts(root, "secrets"));
        take(&mut self.precheck, fields.truth(root, "precheck"));
        let rows = fields.sections(root, "ucx");
        take(&mut self.ucx, rows.map(|rows| rows.iter().map(|row| ucx_row(fields, row)).collect()));
    }

    fn texts(&mut self) -> [(&'static str, &mut Option<Traced<String>>); 12] {
        [
            ("trtllm_dir", &mut self.trtllm_dir),
            ("models_dir", &mut self.models_dir),
            ("account", &mut self.account),
            ("partition", &mut self.partition),
            ("job_name", &mut self.job_name),
            ("mpi_type", &mut self.mpi_type),
            ("container_image", &mut self.container_image),
            ("perf_test_module", &mut self.perf_test_module),
            ("perf_test_function", &mut self.perf_test_function),
            ("perf_test_prefix", &mut self.perf_test_prefix),
            ("run_script", &mut self.run_script),
            ("install_script", &mut self.install_script),
        ]
    }

    fn read_environment(&mut self, around: &Surroundings) -> Result<(), Diagnostics> {
        let mut errors = Diagnostics::default();
        for (name, slot) in [
            ("CLUSTER_LLM_DATA", &mut self.models_dir),
            ("CLUSTER_ACCOUNT", &mut self.account),
            ("CLUSTER_PARTITION", &mut self.partition),
            ("MPI_TYPE", &mut self.mpi_type),
            ("DOCKER_IMAGE", &mut self.container_image),
            ("PERF_TEST_MODULE", &mut self.perf_test_module),
            ("PERF_TEST_FUNCTION", &mut self.perf_test_function),
            ("PERF_TEST_PREFIX", &mut self.perf_test_prefix),
        ] {
            // Scripts export these empty to mean "not set".
            let Some(value) = (around.env)(name).filter(|value| !value.is_empty()) else {
                continue;
            };
            if value.contains(|c: char| c.is_control()) {
                errors.push(Diagnostic::error(format!(
                    "the environment variable {name} must be one line without control characters"
                )));
            }
            *slot = Some(Traced::new(value, Origin::input(format!("environment variable {name}"))));
        }
        // Set at all, it decides, and only 1 means yes: so the tests' own launcher reads it.
        if let Some(value) = (around.env)(PRECHECK_VARIABLE) {
            let origin = Origin::input(format!("environment variable {PRECHECK_VARIABLE}"));
            self.precheck = Some(Traced::new(value == "1", origin));
        }
        if errors.has_errors() { Err(errors) } else { Ok(()) }
    }
}

fn ucx_row<'d>(fields: &mut Fields<'d>, section: &Section<'d>) -> ucx::Row {
    fields.refuse_unknown(section, &["gpu", "unset", "export"]);
    let mut row = ucx::Row::default();
    match fields.text(section, "gpu") {
        Field::Good(gpu) if !gpu.value.is_empty() => row.gpu = gpu.value,
        _ => fields.error(section.position(), "a row of ucx needs `gpu:`, a part of its name"),
    }
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

fn take<T>(slot: &mut Option<Traced<T>>, field: Field<T>) {
    if let Field::Good(value) = field {
        *slot = Some(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(text: &str, variables: &[(&str, &str)]) -> Result<Site, Diagnostics> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("site.yaml");
        std::fs::write(&path, text).unwrap();
        let env = |name: &str| {
            variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.to_string())
        };
        load(&Surroundings { env: &env, current_dir: directory.path().into() }, Some(&path))
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
    fn the_environment_turns_the_precheck_on_only_with_1() {
        for (value, enabled) in [("1", true), ("", false), ("true", false), ("0", false)] {
            let site = site("precheck: true\n", &[("TRTLLM_DISAGG_CT_PRECHECK", value)]).unwrap();
            assert_eq!(site.precheck.unwrap().value, enabled, "{value:?}");
        }
        assert!(site("precheck: true\n", &[]).unwrap().precheck.unwrap().value);
    }

    #[test]
    fn a_row_of_ucx_is_read_strictly() {
        assert!(site("ucx: [{gpu: X, unset: [A, B], export: 'C=1 D=2'}]\n", &[]).is_ok());
        for row in ["{unset: [A]}", "{gpu: X, unset: [a-b]}", "{gpu: X, exports: A=1}", "x"] {
            assert!(site(&format!("ucx: [{row}]\n"), &[]).is_err(), "{row}");
        }
    }

    #[test]
    fn every_key_is_documented_and_read() {
        let text: String = KEYS
            .iter()
            .map(|(key, _)| match *key {
                "placement" => "placement: packed\n".into(),
                "frontend_node" => "frontend_node: own\n".into(),
                "time" => "time: '30'\n".into(),
                "segment" | "precheck" => format!("{key}: true\n"),
                "ucx" => "ucx: [{gpu: X, unset: [A], export: B=1}]\n".into(),
                _ => format!("{key}: x\n"),
            })
            .collect();
        let debug = format!("{:?}", site(&text, &[]).unwrap());
        assert!(!debug.contains("None"), "{debug}");
    }
}
