// SPDX-License-Identifier: Apache-2.0
//! `server_ready.json`: where the servers of a run are, for clients that are none of its steps.

use indexmap::IndexMap;
use serde::Serialize;

use crate::plan::{Engine, Plan};

/// The file's name.
pub const FILE: &str = "server_ready.json";

/// The version of its form.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct ServerReady<'p> {
    schema: u32,
    run: &'p str,
    url: &'p str,
    model: &'p str,
    served_name: &'p str,
    roles: IndexMap<&'p str, Vec<Server<'p>>>,
}

#[derive(Serialize)]
struct Server<'p> {
    name: String,
    address: &'p str,
    nodes: &'p [String],
    ports: IndexMap<&'p str, u32>,
}

/// What is in it: the steps of each role with their nodes and ports.
///
/// # Errors
/// None in practice: it has a JSON form.
pub fn content(
    plan: &Plan,
    engine: &Engine,
    url: &str,
    run: &str,
    nodes: &[String],
    addresses: &[String],
) -> Result<String, serde_json::Error> {
    let mut roles = IndexMap::<_, Vec<_>>::new();
    for instance in plan.instances() {
        let nodes = instance.hosts(nodes).unwrap_or_default();
        let names = instance.role.ports.keys();
        let ports = names.filter_map(|name| Some((name.as_str(), instance.port(name)?)));
        roles.entry(instance.role_name).or_default().push(Server {
            ports: ports.collect(),
            address: addresses.get(instance.nodes.start as usize).map_or("", String::as_str),
            nodes,
            name: instance.name,
        });
    }
    let Engine { model, served_name, .. } = engine;
    let ready = ServerReady { schema: SCHEMA, run, url, model, served_name, roles };
    Ok(serde_json::to_string_pretty(&ready)? + "\n")
}
