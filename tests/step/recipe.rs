// SPDX-License-Identifier: Apache-2.0
//! A recipe of a made-up engine whose programs record what they have.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use disagg::plan::{Plan, resolve};

use super::scenarios::compared;
use super::{Ranks, Tree};

const PROFILE: &str = r#"
engine: recorder
about: Records what its programs are given.
sizes: {tp: [tp]}
clients_ask: [router.http]
roles:
  registry: {name: REGISTRY, purpose: service, tasks: one, count: 1, ports: {client: 2379}, command: [pytest, "{port:client}"]}
  decode:
    name: DECODE
    purpose: server
    tasks: node
    ports: {http: 8000, boot: {first: 9000, each: gpu_count}}
    env: {STARTED: "{node_rank * 10 + 1} of {name}", LEADER: "{leader_addr}"}
    unset: [UCX_TLS]
    config_file: decode.json
    config: {name: "{name}", leader: "{leader_addr}:{port:boot}", all: "{urls:decode.http}"}
    command:
      - [pytest, --boot, "{port:boot}", --rank, "{node_rank}", --first, "{node_rank * 4 + 1}", --here, "{node_addr}"]
      - {if: node_rank, then: [--headless], else: [--serve, "{port:http}"]}
      - [--config, "{config}", "{args}"]
  worker:
    name: WORKER
    purpose: server
    tasks: gpu
    ports: {http: 8200}
    command: [pytest, "{rank}", "{local_rank}", "{node_rank}", "{leader_addr}", "{args}"]
  router:
    name: ROUTER
    purpose: router
    tasks: one
    count: 1
    ports: {http: 8100}
    command: [pytest, "{urls:decode.http}", {each: decode, words: [--decode, "{leader_addr}", "{port:boot}"]}]
"#;

/// The lines that each recipe has.
const COMMON: &str = r#"
engine: ./recorder.yaml
model: /no model
gpus_per_node: 4
env: {FROM_SET: "[$SET]", RANK: "$SLURM_PROCID.$SLURM_LOCALID", HF_TOKEN: "geheim-$EMPTY'x", HOME: $HOME/new}
benchmark: {command: [pytest, "{url}", "a b$HOME"], isl: 1, osl: 1, concurrencies: 1}
"#;

/// Servers over two nodes, with servers of half a node; ranks that share nodes GPU by GPU.
pub const RECIPES: [&str; 2] = [
    "slurm: {placement: packed}\nroles: {decode: {servers: 2, args: {tp: 8, name: 'a b'}}, \
     worker: {servers: 2, args: {tp: 2}}}",
    "slurm: {placement: compact}\nroles: {worker: {servers: 2, args: {tp: 6}}}",
];

/// The plan of one of them.
pub fn plan(tree: &Tree, recipe: &str) -> Plan {
    fs::write(tree.path("recorder.yaml"), PROFILE).unwrap();
    tree.plan(&format!("{COMMON}{recipe}\n"), &[])
}

/// What the ranks have got, and the files of their steps: nobody else can read these.
pub struct Seen {
    ranks: Ranks,
    files: BTreeMap<String, String>,
}

/// Reads that, and deletes the files.
pub fn seen(tree: &Tree, plan: &Plan) -> Seen {
    let mut files = BTreeMap::new();
    for instance in plan.instances() {
        for (name, _) in resolve(&instance, &[]).texts_of_files() {
            let path = tree.workspace().join(&name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
            files.insert(name, fs::read_to_string(path).unwrap());
        }
    }
    let mut ranks = tree.ranks();
    for rank in ranks.values_mut() {
        rank.env = compared(std::mem::take(&mut rank.env));
        // What is there for shells, and what each way has beside its own variables.
        let of_the_way = ["DISAGG_COMMAND", "NVIDIA_IMEX_CHANNELS", "PATH", "SLURM_HOSTFILE"];
        let is_left_out =
            |name: &str| of_the_way.contains(&name) || name.starts_with("DISAGG_NUMBER_");
        rank.env.retain(|name, _| !is_left_out(name));
    }
    let all: usize = plan.instances().map(|instance| instance.role.step.tasks as usize).sum();
    assert_eq!(ranks.len(), all);
    Seen { ranks, files }
}

impl Seen {
    /// Compares it with what another way gave.
    #[track_caller]
    pub fn assert_same(&self, way: &str, expected: &Self) {
        assert_eq!(self.files, expected.files, "{way}");
        assert!(self.ranks.keys().eq(expected.ranks.keys()), "{way}");
        for (name, rank) in &self.ranks {
            assert_eq!(*rank, expected.ranks[name], "{way}: {name:?}");
        }
    }

    /// Whether a rank has these words one after the other.
    #[track_caller]
    pub fn assert_words(&self, step: &str, rank: u32, words: &[&str]) {
        let argv = &self.ranks[&(step.to_owned(), rank)].argv;
        assert!(argv.windows(words.len()).any(|some| some == words), "{argv:?} {words:?}");
    }

    /// The value of a variable of a rank.
    pub fn variable(&self, step: &str, rank: u32, name: &str) -> &str {
        self.ranks[&(step.to_owned(), rank)].env.get(name).map_or("", String::as_str)
    }
}
