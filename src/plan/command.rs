// SPDX-License-Identifier: Apache-2.0
//! The base command that every role's command starts from: variables, launcher, argument vector.

use serde::{Deserialize, Serialize};

use super::env::{Env, TooLong};
use super::origin::{Origin, Traced};
use super::template::Template;

/// The command before any role changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BaseCommand {
    /// Its variables, in order.
    pub env: Env,
    /// The path of `trtllm-llmapi-launch`; empty where a given command has none.
    pub launcher: Traced<String>,
    /// The command without the launcher: wrappers, `pytest`, its options.
    pub argv: Vec<Traced<String>>,
    /// How many wrappers (words of `argv`, such as a profiler's) stand before the launcher.
    #[serde(default)]
    pub launcher_at: usize,
    /// The source tree as the job's nodes see it, where a script prefix names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_dir: Option<String>,
}

/// Where things are.
#[derive(Debug, Clone, PartialEq)]
pub struct Directories {
    /// D: the TensorRT-LLM source tree.
    pub source: Traced<String>,
    /// M: the models.
    pub models: Traced<String>,
    /// W: the workspace of the submission.
    pub workspace: Traced<String>,
}

/// Where pytest's own working directory is, below the source tree.
pub const TEST_ROOT: &str = "tests/integration/defs";

/// Where the launcher is, below the source tree.
pub const LAUNCHER: &str = "tensorrt_llm/llmapi/trtllm-llmapi-launch";

/// The launcher's file name, by which it is found in a given command.
pub const LAUNCHER_NAME: &str = "trtllm-llmapi-launch";

/// The variable that names the models' directory.
pub const MODELS_ROOT: &str = "LLM_MODELS_ROOT";

/// The program that runs the tests.
pub const PYTEST: &str = "pytest";

/// The option that names a role's JUnit file.
pub const JUNIT_OPTION: &str = "--junit-xml=";

const RULE: &str = "base command of the performance tests";

impl BaseCommand {
    /// The command that runs `node_id` (`MODULE::FUNCTION[ID]`) with a test-id prefix.
    ///
    /// # Errors
    /// [`TooLong`]: a directory's path.
    pub fn new(
        dirs: &Directories,
        prefix: &Traced<String>,
        node_id: Traced<String>,
    ) -> Result<Self, TooLong> {
        let source = |origin: &Origin| origin.by_rule(RULE);
        let d = &dirs.source.value;
        let from_d = source(&dirs.source.origin);
        let from_m = source(&dirs.models.origin);
        let from_w = source(&dirs.workspace.origin);
        let from_rule = Origin::rule(RULE);
        let workspace = dirs.workspace.value.trim_end_matches('/');

        let mut env = Env::default();
        for (name, value, origin) in [
            ("LLM_ROOT", d.clone(), &from_d),
            ("LLM_BACKEND_ROOT", format!("{d}/triton_backend"), &from_d),
            (MODELS_ROOT, dirs.models.value.clone(), &from_m),
            ("MODEL_CACHE_DIR", dirs.models.value.clone(), &from_m),
            ("COLUMNS", "300".to_owned(), &from_rule),
            ("NCCL_DEBUG", "INFO".to_owned(), &from_rule),
        ] {
            env.set(name, &Template::literal(&value), origin.clone())?;
        }
        let argument = |text: String, origin: &Origin| Traced::new(text, origin.clone());
        let mut argv: Vec<_> =
            ["pytest", "-vv", "--timeout-method=thread", "--timeout=3600", "--rootdir"]
                .into_iter()
                .map(|text| argument(text.into(), &from_rule))
                .collect();
        argv.push(argument(format!("{d}/{TEST_ROOT}"), &from_d));
        argv.push(argument(
            format!("--test-prefix={}", prefix.value),
            &prefix.origin.by_rule(RULE),
        ));
        argv.push(argument(format!("--output-dir={workspace}/"), &from_w));
        argv.push(argument(format!("--csv={workspace}/report.csv"), &from_w));
        argv.push(argument("-o".into(), &from_rule));
        argv.push(argument("junit_logging=out-err".into(), &from_rule));
        argv.push(argument(format!("{JUNIT_OPTION}{workspace}/results.xml"), &from_w));
        argv.push(node_id);
        let launcher = argument(format!("{d}/{LAUNCHER}"), &from_d);
        Ok(Self { env, launcher, argv, launcher_at: 0, source_dir: None })
    }

    /// Whether the command has a launcher that could be used.
    pub fn has_launcher(&self) -> bool {
        !self.launcher.value.is_empty()
    }

    /// A path in the source tree as the job's nodes see it.
    pub fn on_nodes(&self, source_dir: &str, path: &str) -> String {
        let below = path.strip_prefix(source_dir.trim_end_matches('/'));
        match (&self.source_dir, below.filter(|rest| rest.is_empty() || rest.starts_with('/'))) {
            (Some(tree), Some(rest)) => format!("{}{rest}", tree.trim_end_matches('/')),
            _ => path.to_owned(),
        }
    }

    /// The words behind `pytest`.
    pub fn options(&self) -> Vec<&str> {
        self.argv[self.pytest_at()..].iter().skip(1).map(|word| word.value.as_str()).collect()
    }

    /// Where `pytest` stands in `argv`: what is before it are wrappers, what is after it options.
    pub fn pytest_at(&self) -> usize {
        self.argv.iter().position(|word| file_name(&word.value) == PYTEST).unwrap_or(0)
    }
}

/// The last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether the launcher is used, and why.
///
/// It starts one rank per GPU and sets up MPI between them, so one node with one GPU has no use
/// for it.
pub fn uses_launcher(total_nodes: u32, gpus_per_node: u32) -> bool {
    total_nodes > 1 || gpus_per_node > 1
}
