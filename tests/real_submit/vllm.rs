// SPDX-License-Identifier: Apache-2.0
//! vLLM itself, on CPUs: `make test-engines`.

use std::fs;
use std::time::Duration;

use disagg::run::result::VerdictKind;
use slurm_bed::{Options, contains};

use crate::engines::Place;

/// Each start of vLLM takes minutes on a busy machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// Of all steps: nothing is fetched, each process has one thread, and caches travel over TCP.
const ENV: &str = "HF_HUB_OFFLINE: 1, VLLM_NO_USAGE_STATS: 1, OMP_NUM_THREADS: 1, KMP_BLOCKTIME: 0, \
    VLLM_CPU_KVCACHE_SPACE: 1, VLLM_CPU_OMP_THREADS_BIND: nobind, UCX_TLS: 'tcp,self'";

/// A prefill server, decode servers, and a node for the router and the client. `connect` says how caches
/// travel, for a role of vLLM's.
fn recipe(decode: u32, prompts: u32, connect: impl Fn(&str) -> String) -> String {
    let server = |role: &str| {
        format!(
            "gpus: 0, args: {{dtype: float32, load-format: dummy, enforce-eager: true, max-num-seqs: 8, \
             max-model-len: 1024, kv-transfer-config: {{{}}}}}",
            connect(role)
        )
    };
    format!(
        "engine: vllm\n\
         roles:\n  \
         prefill: {{{}}}\n  \
         decode: {{servers: {decode}, {}}}\n  \
         router: {{args: {{worker-startup-check-interval: 1}}}}\n\
         benchmark: {{isl: 300, osl: 8, concurrencies: 2, prompts: {prompts}}}\n\
         slurm: {{time: 30, frontend_node: own}}",
        server("kv_producer"),
        server("kv_consumer")
    )
}

#[test]
#[ignore = "it installs 6 GB and takes ten minutes: make test-engines"]
fn vllm_is_measured_and_the_death_of_a_worker_is_the_verdict() {
    let place = Place::with(Options::nodes(4), "requirements-vllm.txt", ENV, LIMIT);

    let caches = place.workspace("caches");
    let files = |_: &str| {
        format!(
            "kv_connector: ExampleConnector, kv_role: kv_both, \
             kv_connector_extra_config: {{shared_storage_path: {}}}",
            caches.display()
        )
    };
    let status = place.status_of(&mut place.submit("measured", &recipe(2, 20, files)));
    let text = place.text("measured");
    assert_eq!(status, Some(0), "{text}");
    let result = place.result("measured");
    let figure =
        |name: &str| result.figures[0].get(name).unwrap_or_else(|| panic!("{name}: {text}"));
    assert_eq!((figure("completed"), figure("failed")), (20.0, 0.0), "{text}");
    let measured = ["request_throughput", "output_throughput", "ttft_p99_ms", "itl_p50_ms"];
    assert!(measured.iter().all(|name| figure(name) > 0.0), "{text}");
    // Two of the three blocks of each request, of 128 tokens, came from the prefill server.
    for (log, requests) in [("prefill_0.log", 0), ("decode_0.log", 10), ("decode_1.log", 10)] {
        let log = fs::read_to_string(place.workspace("measured").join(log)).unwrap();
        assert_eq!(log.matches("Inject KV cache of 256 tokens").count(), requests, "{text}");
    }

    // The server itself ends with status 0 then.
    let nixl =
        |role: &str| format!("kv_connector: NixlConnector, kv_role: {role}, kv_buffer_device: cpu");
    let mut submit = place.submit("killed", &recipe(1, 2000, nixl));
    let transferred = "KV Transfer metrics: Num successful transfers=";
    let killed = place.kill_after(transferred, "killed", "--port 8001", Some("VLLM::Worker"));
    assert_eq!(place.status_of(&mut submit), Some(1), "{}", place.text("killed"));
    let verdict = place.result("killed").verdict;
    assert_eq!(verdict.kind, VerdictKind::FatalLog, "{verdict:#?}");
    assert_eq!(verdict.step.as_deref(), Some("DECODE_0"), "{verdict:#?}");
    contains(&verdict.message, "Worker proc VllmWorker-0 died unexpectedly");
    let noticed = verdict.noticed.unwrap().since(killed);
    assert!(noticed < Duration::from_secs(10), "{noticed:?}");
}
