// SPDX-License-Identifier: Apache-2.0
//! Secrets that a configuration has in the clear, by their own name, by the site's list or by
//! reference, in everything that the command prints and writes.
#![allow(clippy::unwrap_used, reason = "a helper of a test may panic as the test may")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

/// A value that nothing may show, and one that is no secret.
const SECRET: &str = "hf_geheim";
const PLAIN: &str = "in_the_open";

const CONFIG: &str = "hardware: {gpus_per_node: 4, num_ctx_servers: 1, num_gen_servers: 1}
environment:
  worker_env_var: 'HF_TOKEN=hf_geheim HUGGING_FACE_HUB_TOKEN=$HF_TOKEN
    LOGIN=hf_geheim_1 URL=u:$LOGIN@h COPY=$URL A_TOKEN=in_the_open COLOUR=in_the_open'
  benchmark_env_var: \"AWS_SECRET_ACCESS_KEY=hf_geheim_2\"
worker_config:
  gen: {tensor_parallel_size: 4}
  ctx: {tensor_parallel_size: 4}
";

/// The same in a recipe.
const RECIPE: &str = "engine: trtllm-serve
model: Qwen/Qwen3-0.6B
gpus_per_node: 4
env: {HF_TOKEN: hf_geheim, COPY: 'x${LOGIN}x', COLOUR: in_the_open, A_TOKEN: in_the_open}
roles:
  aggregated:
    env: {LOGIN: hf_geheim_1, AWS_SECRET_ACCESS_KEY: hf_geheim_2}
    config: {hf_token: hf_geheim, deep: [{api_key: hf_geheim}]}
benchmark: {isl: 64, osl: 16, concurrencies: 4, env: {OPENAI_API_KEY: hf_geheim}}
";

struct Place(tempfile::TempDir);

impl Place {
    fn new(config: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let site = "trtllm_dir: /src\nmodels_dir: /models\nsecrets: [LOGIN, -A_TOKEN]\n";
        fs::write(place.0.path().join("site.yaml"), site).unwrap();
        fs::write(place.0.path().join("config.yaml"), config).unwrap();
        place
    }

    fn run(&self, arguments: &str) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slurm-disagg"));
        command.args(arguments.split(' ')).current_dir(self.0.path()).env("HOME", self.0.path());
        let output = command.output().unwrap();
        let shown = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&shown).into_owned()
    }
}

#[test]
fn nothing_that_is_printed_has_a_secret_in_it() {
    let named = "--config-file config.yaml --site site.yaml";
    for (config, server, client) in [(CONFIG, "GEN", "BENCHMARK"), (RECIPE, "SERVER", "BENCHMARK")]
    {
        let place = Place::new(config);
        for command in [
            "plan",
            "plan --format json",
            &format!("plan --role {server}_0"),
            &format!("plan --role {server}_0 --format json"),
            &format!("plan --role {client}"),
            "explain",
            "explain --format json",
            "check config.yaml",
            "submit --dry-run --no-preflight --workspace w",
        ] {
            let named = if command.starts_with("check") { "--site site.yaml" } else { named };
            let shown = place.run(&format!("{command} {named}"));
            assert!(!shown.contains(SECRET), "{command}: {shown}");
            assert!(
                !shown.contains(": error:") && !shown.starts_with("error:"),
                "{command}: {shown}"
            );
            if command == "explain" {
                for expected in ["COLOUR=in_the_open", "A_TOKEN=in_the_open", "COPY=****"] {
                    assert!(shown.contains(&format!("{server} env {expected}")), "{shown}");
                }
            }
        }
        fs::write(place.0.path().join("other.yaml"), config.replace("geheim", "geheim_too"))
            .unwrap();
        let shown = place.run("diff config.yaml other.yaml --site site.yaml");
        assert!(shown.contains("other.yaml") && !shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn a_command_in_a_recipe_has_no_secret_among_its_words() {
    let word = |key: &str, value: &str| {
        RECIPE.replace("    config:", &format!("    {key}: {value}\n    config:"))
    };
    let benchmark = |key: &str, value: &str| {
        RECIPE.replace("concurrencies: 4,", &format!("concurrencies: 4, {key}: {value},"))
    };
    for (recipe, named) in [
        (word("args", "{api-key: hf_geheim}"), Some("api-key")),
        (word("args", "{hf_token: [hf_geheim]}"), Some("hf_token")),
        (word("args", "{extra: {api_key: hf_geheim}}"), Some("api_key")),
        (word("args", "{login: 1, set: LOGIN=hf_geheim}"), Some("LOGIN")),
        (word("wrap", "[env, MY_PASSWORD=hf_geheim]"), Some("MY_PASSWORD")),
        (
            benchmark("args", "['--header', 'Authorization: Bearer hf_geheim']"),
            Some("Authorization"),
        ),
        (benchmark("args", "['--api-key=hf_geheim']"), Some("api-key")),
        (benchmark("command", "[client, '--token', hf_geheim, '{url}']"), Some("token")),
        // A reference, an option without a value, one that the site takes out, a word like one.
        (
            benchmark("command", "[bash, -c, 'curl -H \"Authorization: Bearer $HF_TOKEN\" {url}']"),
            None,
        ),
        (benchmark("args", "['--use-token', '--a_token', hf, '--A_TOKEN=hf']"), Some("a_token")),
        (benchmark("args", "['--use-token', '--A_TOKEN=hf', '--max-tokens', '5']"), None),
    ] {
        let shown = Place::new(&recipe).run("plan config.yaml --site site.yaml");
        let message = named.map(|name| format!(": {name} is a secret, and every user"));
        assert_eq!(shown.contains("error:"), named.is_some(), "{recipe}\n{shown}");
        assert!(message.is_none_or(|message| shown.contains(&message)), "{recipe}\n{shown}");
        assert!(
            !shown.contains(SECRET) && (named.is_none() || shown.contains("config.yaml:")),
            "{shown}"
        );
    }
}

#[test]
fn a_file_with_a_secret_is_the_users_alone() {
    let place = Place::new(CONFIG);
    place.run(
        "submit --dry-run --no-preflight --workspace w --config-file config.yaml --site site.yaml",
    );
    let mut with_secrets = 0;
    for entry in fs::read_dir(place.0.path().join("w")).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{entry:?}");
        with_secrets += usize::from(text.contains(SECRET) && text.contains(PLAIN));
    }
    assert_eq!(with_secrets, 2, "the plan and the script");
}

#[test]
fn no_diagnostic_quotes_a_secret() {
    for (line, broken) in [
        (
            "AWS_SECRET_ACCESS_KEY=hf_geheim_2",
            "AWS_SECRET_ACCESS_KEY=hf_geheim_2 LOGIN=$(hf_geheim)",
        ),
        ("AWS_SECRET_ACCESS_KEY=hf_geheim_2", "LOGIN=hf_geheim X=$(id)"),
        ("AWS_SECRET_ACCESS_KEY=hf_geheim_2", "A=$(id) HF_TOKEN=hf_geheim"),
        ("worker_config:", "LOGIN: hf_geheim: x\nworker_config:"),
        ("worker_config:", "worker_config:\n  LOGIN: {hf_geheim: [}"),
    ] {
        let place = Place::new(&CONFIG.replace(line, broken));
        let shown = place.run("plan --config-file config.yaml --site site.yaml");
        assert!(shown.contains("config.yaml:"), "{broken}: {shown}");
        assert!(!shown.contains(SECRET), "{broken}: {shown}");
    }
    let place = Place::new(CONFIG);
    for option in [
        "--sbatch-arg=--export=ALL,HF_TOKEN=hf_geheim",
        "--srun-arg=--container-env=HF_TOKEN=hf_geheim",
        "--set=environment.HF_TOKEN={hf_geheim",
        "--set=environment.worker_env_var=HF_TOKEN=hf_geheim,$(",
    ] {
        let shown = place.run(&format!("plan --config-file config.yaml --site site.yaml {option}"));
        assert!(shown.contains("error:") && !shown.contains(SECRET), "{option}: {shown}");
    }
}
