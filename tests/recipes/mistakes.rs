// SPDX-License-Identifier: Apache-2.0
//! Mistakes in recipes and profiles are named where they are.

use super::{BENCHMARK, EIGHTH, Folder};

#[test]
fn a_mistake_in_a_profile_is_named_at_its_place() {
    for (from, to, expected) in [
        (
            "{name} of",
            "{nmae} of",
            "eighth.yaml:15:16: error: roles.all.env: unknown placeholder {nmae}; did you mean {name}?",
        ),
        (
            "{port:web}\"",
            "{port:wob}\"",
            "{port:wob}: a port of the role, or ROLE.PORT, follows this name",
        ),
        ("tasks: node", "task: node", "eighth.yaml:11:5: error: unknown key roles.all.task"),
        ("each: gpu_count", "each: gpu_count +", "a name or a number"),
        ("{each: all, words", "{each: none, words", "roles.all: unknown role none"),
        ("port: web, path", "port: wob, path", "roles.all.ready: there is no port wob"),
        ("steps_of: all", "steps_of: al", "roles.all: unknown role al"),
        ("path: /up", "path: up", "a role's path or status is none of HTTP"),
        (
            "arguments: {dashes",
            "modes: {one: [al]}\narguments: {dashes",
            "modes.one: unknown role al",
        ),
        ("[all.web]", "[all.wob]", "clients_ask: all.wob is no ROLE.PORT"),
        ("engine: eighth", "engine: [", "eighth.yaml:"),
        ("purpose: server", "purpose: serve", "must be one of: service, server, router"),
        ("{leader_addr}:{port:peer}", "{leader_addr:nobody}", "a role of the profile, or nothing"),
        ("/{nnodes}", "/{nnodes * node_rank ceil-div 2}", "known only in the job"),
        ("\"{args}\"", "\"{args\"", "this brace is not closed"),
    ] {
        assert!(EIGHTH.contains(from), "{from}");
        let folder = Folder::new();
        folder.write("eighth.yaml", &EIGHTH.replacen(from, to, 1));
        let recipe = "engine: ./eighth.yaml\nmodel: m\ngpus_per_node: 2\n\
                      roles: {all: {args: {ranks: 4}}}\nserve_only: true\n";
        let error = folder.plan(recipe).unwrap_err();
        assert!(error.contains(expected), "{to}\n{error}");
    }
    // What an anchor repeats is named once.
    let folder = Folder::new();
    let role = "\n  other: {<<: *all, name: OTHER}\n";
    let twice = EIGHTH.replace("  all:\n", "  all: &all\n").replace("{name} of", "{nmae} of");
    let twice =
        twice.replace("purpose: server", "purpose: sever").replace("{nnodes}", "{nnodes +}");
    folder.write("eighth.yaml", &format!("{}{role}", twice.trim_end()));
    let error = folder.plan("engine: ./eighth.yaml\nmodel: m\nroles: {all: }\nserve_only: true\n");
    let error = error.unwrap_err();
    for mistake in ["roles.all.purpose must be", "a name or a number is missing"] {
        assert_eq!(error.matches(mistake).count(), 1, "{error}");
    }
    assert!(!error.contains("roles.other"), "{error}");
}

#[test]
fn a_mistake_in_a_recipe_is_named_at_its_place() {
    const RECIPE: &str = "engine: sglang\nmodel: /m/x\ngpus_per_node: 4\nroles:\n  \
        prefill: {args: {tp-size: 4}}\n  decode: {gpus: 8, args: {tp-size: 8}}\n\
        benchmark: {isl: 64, osl: 16, concurrencies: 4}\nslurm: {time: 10}\n";
    let folder = Folder::new();
    folder.plan(RECIPE).unwrap();
    for (from, to, expected) in [
        (
            "engine: sglang",
            "engine: sglnag",
            "r.yaml:1:9: error: there is no profile of an engine sglnag",
        ),
        ("engine: sglang", "engine:", "r.yaml:1:7: error: engine is empty"),
        ("prefill:", "prefil:", "r.yaml:5:3: error: the engine sglang has no role prefil"),
        (
            "tp-size: 4",
            "tp-size: four",
            "r.yaml:5:29: error: roles.prefill.args.tp-size must be a number",
        ),
        ("gpus: 8", "gpus: 4", "r.yaml:6:18: error: roles.decode.gpus is 4, but its sizes make 8"),
        ("tp-size: 8", "tp-size: 8, tp: 8", "args.tp-size and roles.decode.args.tp mean the same"),
        (
            "engine: sglang\nmodel: /m/x\ngpus_per_node: 4\nroles:\n  prefill: {args: {tp-size: 4}}",
            "engine: vllm\nmodel: /m/x\ngpus_per_node: 4\nroles:\n  prefill: {args: {tp: 4}}",
            "r.yaml:5:24: error: roles.prefill.args.tp: write tensor-parallel-size",
        ),
        (
            "tp-size: 4",
            "tp-size: 4, port: 1",
            "roles.prefill.args.port: the profile sets --port itself",
        ),
        ("tp-size: 4", "tp-size: 4, x: 1e-5", "is text to PyYAML (YAML 1.1) but"),
        ("tp-size: 8}", "tp-size: 6}", "its sizes make 6"),
        ("isl: 64, ", "", "benchmark.isl is missing, and the client sglang-bench needs it"),
        ("isl: 64", "ils: 64", "unknown key benchmark.ils"),
        ("isl: 64", "client: nobody, isl: 64", "there is no client nobody"),
        ("model: /m/x\n", "", "the model is missing"),
        ("model: /m/x", "model: <model>", "model is a placeholder that nobody filled in"),
        ("gpus_per_node: 4\n", "", "gpus_per_node is missing"),
        ("time: 10", "time: ten", "r.yaml:8:15: error: time: invalid time limit"),
        ("time: 10", "trtllm_dir: /x", "unknown key slurm.trtllm_dir"),
        ("concurrencies: 4", "concurrencies: [4, 4]", "benchmark.concurrencies has 4 twice"),
        (
            "concurrencies: 4",
            "concurrencies: 4, prompts: 9, rounds: 2",
            "both `prompts` and `rounds`",
        ),
        (
            "isl: 64, osl: 16",
            "command: [ask, '{osl}']",
            "benchmark.command: {osl}: it has no value",
        ),
        (
            "tp-size: 4",
            "max-running-requests: 4, max_running_requests: 5",
            "args: max-running-requests and max_running_requests are one argument",
        ),
        ("tp-size: 4", "tp-size: '4'", "write 4 without quotes"),
        ("gpus: 8,", "config: {a: 1},", "r.yaml:6:24: error: DECODE takes no configuration file"),
        (
            "gpus: 8, args: {tp-size: 8}",
            "gpus: 6, args: {tp-size: 6}, env: {A: '${.name}'}",
            "no reference to a variable",
        ),
        ("gpus: 8, args: {tp-size: 8}", "servers: 60000, args: {tp-size: 8}", "do not fit above"),
        (
            "gpus: 8, args: {tp-size: 8}",
            "servers: 1000000, args: {tp-size: 8}",
            "a plan may have at most",
        ),
        ("benchmark: {isl: 64, osl: 16, concurrencies: 4}\n", "", "the recipe has no benchmark"),
        (
            "gpus: 8,",
            "nsys: {steps: 1-2},",
            "r.yaml:6:18: error: roles.decode.nsys: the profile of sglang cannot record steps of",
        ),
        ("gpus: 8,", "nsys: {steps: 9-2},", "roles.decode.nsys.steps must be two numbers"),
        ("gpus: 8,", "nsys: {delay: 2},", "nsys must have either `steps: FIRST-LAST` or"),
        ("gpus: 8,", "srun_args: [--nodes=2],", "--nodes=2 contradicts the plan"),
        ("gpus: 8,", "before: [x, --api-key, abc],", "api-key is a secret"),
        // As one word, each would fail in the job only.
        ("gpus: 8,", "wrap: '',", "r.yaml:6:18: error: roles.decode.wrap must not be empty"),
        ("gpus: 8,", "wrap: numactl -m 0,", "r.yaml:6:18: error: roles.decode.wrap must be a list"),
        (
            "gpus: 8,",
            "srun_args: --quiet -v,",
            "r.yaml:6:23: error: roles.decode.srun_args must be",
        ),
        (
            "isl: 64",
            "isl: 64, args: --seed 1",
            "help: write [\"--seed\", \"1\"], or [\"--seed 1\"] for",
        ),
        (
            "time: 10",
            "sbatch_args: --nice -Q",
            "r.yaml:8:22: error: slurm.sbatch_args must be a list",
        ),
        ("model:", "log_level: loud\nmodel:", "log_level must be one of: debug, info, error"),
        (
            "args: {tp-size: 4}}\n  decode",
            "args: {tp-size: 4, log-level: info}, log_level: info}\n  decode",
            "the profile sets --log-level itself",
        ),
    ] {
        assert!(RECIPE.contains(from), "{from}");
        let error = folder.plan(&RECIPE.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{to}: {expected}\n{error}");
    }
    folder.plan(&RECIPE.replace("tp-size: 4", "tp-size: 4, log-level: info")).unwrap();
    // Nor is a plan made that the engine would not follow.
    for (engine, role, expected) in [
        (
            "trtllm-serve",
            "{args: {tensor_parallel_size: 2}, config: {tensor_parallel_size: 4}}",
            "aggregated.args.tensor_parallel_size and roles.aggregated.config.tensor_parallel_size mean",
        ),
        (
            "vllm",
            "{args: {tensor-parallel-size: 2, data-parallel-size: 3}}",
            "3 cannot be divided by 2",
        ),
        (
            "dynamo-vllm",
            "{args: {tensor-parallel-size: 6, data-parallel-size: 2}}",
            "roles.aggregated.command: 3 cannot be divided by 2",
        ),
        (
            "trtllm-serve",
            "{servers: 0}\n  prefill:\n  decode:\n  router: {config: {context_servers: {urls: []}}}",
            "r.yaml:8:38: error: roles.router.config.context_servers: the profile sets it itself",
        ),
    ] {
        let error = folder.plan(&format!(
            "engine: {engine}\nmodel: m\ngpus_per_node: 4\nroles:\n  aggregated: {role}\n{BENCHMARK}"
        ));
        let error = error.unwrap_err();
        assert!(error.contains(expected), "{expected}\n{error}");
    }
    // No mistake hides another.
    for (engine, expected) in [
        ("sglnag", &["no profile of an engine sglnag", "no benchmark", "invalid time limit"][..]),
        ("sglang", &["has no role prefil", "no benchmark", "invalid time limit"]),
    ] {
        let text =
            format!("engine: {engine}\nmodel: m\nroles: {{prefil: {{}}}}\nslurm: {{time: ten}}\n");
        let error = folder.plan(&text).unwrap_err();
        for part in expected {
            assert!(error.contains(part), "{part}\n{error}");
        }
    }
    let text = RECIPE
        .replace("prefill:", "prefil:")
        .replace("gpus: 8, args: {", "gpus: 8, args: {port: 1, ");
    let error = folder.plan(&text).unwrap_err();
    assert!(
        error.contains("has no role prefil") && error.contains("sets --port itself"),
        "{error}"
    );
}
