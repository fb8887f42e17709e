// SPDX-License-Identifier: Apache-2.0
//! Ready, alive, dead as the plan says, with servers that answer, hang, complain and leave.

use disagg::run::result::{RunResult, VerdictKind};
use serde_json::{Value, json};
use slurm_bed::Options;

use crate::site::{Run, Site};

/// Makes the servers of a plan mock servers, each of which behaves so, and the client a short sleep.
fn mock(roles: &mut Value, script: &str, r#gen: &str, ctx: &str) {
    let command = |port: &str, behaviour: &str| json!(["python3", script, port, behaviour]);
    let ready = |port: &str| json!({"http": {"port": port, "path": "/health"}});
    let alive = json!({"misses": 3, "seconds": 3});
    for (role, behaviour) in [("GEN", r#gen), ("CTX", ctx), ("DISAGG_SERVER", "serve")] {
        let role = &mut roles[role];
        role["ready"] = ready("8123");
        role["argv"] = command("8123", behaviour);
        role["alive"] = alive.clone();
        role["fatal"] = json!(["CUDA error"]);
    }
    // Its node is a worker's too.
    roles["DISAGG_SERVER"]["argv"] = command("8124", "serve");
    roles["DISAGG_SERVER"]["after"] = json!(["CTX", "GEN"]);
    let count = json!({"pointer": "/workers", "having": {"type": "decode"}, "minimum": "GEN"});
    roles["DISAGG_SERVER"]["ready"] =
        json!({"http": {"port": "8124", "path": "/workers", "counts": [count]}});
    roles["BENCHMARK"]["argv"] = json!(["sleep", "6"]);
    roles["BENCHMARK"]["after"] = json!(["DISAGG_SERVER"]);
    for role in ["GEN", "CTX", "DISAGG_SERVER", "BENCHMARK"] {
        roles[role]["own"]["args"] = json!({});
        roles[role]["own"].as_object_mut().unwrap().remove("junit");
        roles[role]["step"]["mpi"] = Value::Null;
    }
}

#[test]
fn servers_are_ready_alive_and_dead_as_the_plan_says() {
    use VerdictKind::{FatalLog, Passed, ServerEnded, Unresponsive};
    let site = Site::start(&Options::nodes(15));
    let script = site.script("mock_server.py", include_str!("mock_server.py"));
    let cases = [
        ("pass", "serve", "serve", Passed, "BENCHMARK passed"),
        (
            "hang",
            "hang",
            "serve",
            Unresponsive,
            "GEN_0 stopped answering /health: 3 misses in 3 s (",
        ),
        (
            "cuda",
            "serve",
            "cuda",
            FatalLog,
            "CTX_0 log: RuntimeError: CUDA error: an illegal memory access was encountered",
        ),
        // The other ranks of a server may live on when the one that serves leaves.
        ("end", "end", "serve", ServerEnded, "GEN_0 ended"),
        ("crash", "hang", "crash", ServerEnded, "CTX_0 ended"),
    ];
    let submit = |case: &(&str, &str, &str, VerdictKind, &str)| {
        let (name, r#gen, ctx, ..) = *case;
        let run = Run { name, ..Run::default() };
        let workspace = site.plan(&run);
        site.edit_plan(name, |roles| mock(roles, &script, r#gen, ctx));
        let launch = format!("exec slurm-disagg launch --workspace {}", workspace.display());
        site.submit_script(&run, &launch)
    };
    let jobs: Vec<u32> = cases.iter().map(submit).collect();
    for ((name, _, _, kind, message), id) in cases.into_iter().zip(jobs) {
        let (_, result) = site.ended(id, name);
        let verdict = &result.verdict;
        let context = format!("{name}: {verdict:#?}\n{}", site.log(name));
        assert_eq!(verdict.kind, kind, "{context}");
        assert!(verdict.message.starts_with(message), "{context}");
        if kind == Passed {
            assert_each_waited_for_the_others(&result);
        }
    }
}

fn assert_each_waited_for_the_others(result: &RunResult) {
    let step = |name: &str| result.steps.iter().find(|step| step.name == name).unwrap();
    let [r#gen, ctx, router, client] = ["GEN_0", "CTX_0", "DISAGG_SERVER", "BENCHMARK"].map(step);
    let ready_after = |step: &disagg::run::result::StepResult| {
        step.ready.unwrap().since(step.running.unwrap()).as_secs_f64()
    };
    for server in [r#gen, ctx, router] {
        assert!((1.0..15.0).contains(&ready_after(server)), "{server:#?}");
    }
    assert!(router.started >= r#gen.ready.max(ctx.ready), "{result:#?}");
    assert!(client.started >= router.ready, "{result:#?}");
    assert_eq!(client.ready, None);
}
