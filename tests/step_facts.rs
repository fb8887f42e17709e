// SPDX-License-Identifier: Apache-2.0
//! What a plan does not know when it is made (addresses, ports, ranks) reaches the tasks the same way
//! whatever runs them.

#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::Arc;

use disagg::diagnostic::Source;
use disagg::input::Context;
use disagg::input::request::{self, Options};
use disagg::output::task::{shell_command, task};
use disagg::plan::{Content, Plan, Template, resolve};
use serde_json::{Value, json};

/// A plan of two decode servers over two nodes each, whose router is told of all of them.
fn plan(change: impl FnOnce(&mut Value)) -> Result<Plan, String> {
    let text = "hardware: {gpus_per_node: 4, num_ctx_servers: 0, num_gen_servers: 2}\n\
                benchmark: {mode: gen_only_no_context, concurrency_list: 1}\n\
                worker_config: {gen: {tensor_parallel_size: 8}}\n";
    let site = tempfile::NamedTempFile::new().unwrap();
    let options = Options {
        config: "/c.yaml".into(),
        trtllm_dir: Some("/d".into()),
        models_dir: Some("/m".into()),
        workspace: Some("/w".into()),
        site: Some(site.path().to_owned()),
        ..Options::default()
    };
    let context = Context { env: &|_| None, current_dir: "/".into() };
    let source = Arc::new(Source::new("/c.yaml", text));
    let (plan, _) = request::plan_text(&options, &source, &context).unwrap();
    let mut json: Value = serde_json::from_str(&plan.to_json().unwrap()).unwrap();
    let roles = &mut json["roles"];
    roles["GEN"]["ports"] =
        json!({"http": {"first": 8000, "each": 1}, "kv": {"first": 9000, "each": 4}});
    roles["GEN"]["cwd"] = json!("/");
    roles["GEN"]["env"]["PORTS"] = json!("${.port:.kv}..${.port:.kv+3} of ${.name}");
    roles["GEN"]["env"]["FIRST"] = json!("$SLURM_PROCID ${.node_rank*4}");
    roles["GEN"]["argv"] = json!([
        "sh", "-c", "printf '%s|' \"$$PORTS\" \"$$FIRST\" \"$$@\"", "sh",
        "--master=${.leader_addr}:${.port:.http}",
        "--node-rank=${.node_rank}",
        "--start=${.node_rank*4+1}",
        {"on": "followers", "words": ["--headless", "a b"]},
        {"on": "leader", "words": ["--port", "${.port:.http}"]},
        "$$(last)",
    ]);
    roles["DISAGG_SERVER"]["argv"] = json!([
        "router",
        {"each": "GEN", "words": ["--decode", "http://${.leader_addr}:${.port:.http}", "${.port:.kv}"]},
        "${.urls:GEN.http}",
        "all=${.addrs:GEN.http}",
    ]);
    let servers = json!({"urls": "${.addrs:GEN.http}", "first": "${.port:GEN.kv}", "n": 2});
    roles["DISAGG_SERVER"]["files"] = json!({"${.name}.yaml": servers});
    for role in ["GEN", "DISAGG_SERVER"] {
        json["roles"][role]["own"]["args"] = json!({});
    }
    change(&mut json);
    Plan::from_json(&json.to_string()).map_err(|error| error.to_string())
}

#[test]
fn each_task_gets_the_words_of_its_node_and_the_numbers_of_its_rank() {
    let plan = plan(|_| ()).unwrap();
    let nodes = ["a", "b", "c", "d"].map(str::to_owned);
    let spec = resolve(&plan.instance("GEN_1").unwrap(), &nodes);
    for (node, rank, expected) in [
        (
            "0",
            "3",
            "9004..9007 of GEN_1|3 0|--master=c:8001|--node-rank=0|--start=1|--port|8001|$(last)|",
        ),
        (
            "1",
            "6",
            "9004..9007 of GEN_1|6 4|--master=c:8001|--node-rank=1|--start=5|--headless|a b|$(last)|",
        ),
    ] {
        let seen = |program: &str, arguments: &[String]| {
            let mut command = Command::new(program);
            command.args(arguments).env("SLURM_NODEID", node).env("SLURM_PROCID", rank);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let words: Vec<_> =
            task(&spec).argv.iter().map(|word| word.literal_text().into_owned()).collect();
        assert_eq!(seen(&words[0], &words[1..]), expected);
        let (_, text) = shell_command(&spec).pop().unwrap();
        let text = text.literal_text().into_owned();
        assert_eq!(seen("bash", &["-ec".to_owned(), text]), expected);
    }
}

#[test]
fn a_router_is_told_of_all_its_servers_in_words_and_in_files() {
    let plan = plan(|_| ()).unwrap();
    let router = plan.instance("DISAGG_SERVER").unwrap();
    let spec = resolve(&router, &["a", "b", "c", "d"].map(str::to_owned));
    let words: Vec<_> = spec.arguments().map(|word| word.into_owned()).collect();
    let expected = [
        "router",
        "--decode",
        "http://a:8000",
        "9000",
        "--decode",
        "http://c:8001",
        "9004",
        "http://a:8000",
        "http://c:8001",
        "all=a:8000,c:8001",
    ];
    assert_eq!(words, expected);
    let (path, content) = &spec.files[0];
    assert_eq!(path.as_str(), "DISAGG_SERVER.yaml");
    let text = |text: &str| Content::Text(Template::literal(text));
    let Content::Map(entries) = &**content else { panic!("{content:?}") };
    assert_eq!(entries["urls"], Content::List(vec![text("a:8000"), text("c:8001")]));
    assert_eq!((&entries["first"], &entries["n"]), (&Content::Int(9000), &Content::Int(2)));
    let unknown: Vec<_> = resolve(&router, &[]).arguments().map(|w| w.into_owned()).collect();
    assert_eq!(unknown[2], "http://{node0}:8000");
}

#[test]
fn a_plan_that_refers_to_what_it_lacks_is_refused() {
    for (argv, why) in [
        (json!(["${.port:.http}"]), "refers to what does not exist"),
        (json!(["${.urls:NOBODY.http}"]), "refers to what does not exist"),
        (json!(["${.urls:GEN.other}"]), "refers to what does not exist"),
        (json!([{"each": "NOBODY", "words": ["x"]}]), "refers to what does not exist"),
        (json!([{"each": "GEN", "words": ["${.urls:.http}"]}]), "refers to what does not exist"),
        (json!(vec!["${.urls:GEN.http}"; 110_000]), "names too many instances"),
        (json!([{"each": "GEN", "words": ["a"], "other": 1}]), "cannot be read"),
    ] {
        let error = plan(|json| json["roles"]["BENCHMARK"]["argv"] = argv.clone()).unwrap_err();
        assert!(error.contains(why), "{argv}: {error}");
    }
    let high = json!({"http": {"first": 65535, "each": 1}, "kv": {"first": 1, "each": 1}});
    let error = plan(|json| json["roles"]["GEN"]["ports"] = high).unwrap_err();
    assert!(error.contains("exceed 65535"), "{error}");
}
