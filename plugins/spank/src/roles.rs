// SPDX-License-Identifier: Apache-2.0
//! A plan for people, in the words of a submission: `--disagg-role=help`, `--disagg-explain`, the
//! layout in one line, the roles in an error.

use std::fmt::Write as _;

use disagg::output::explain::{self, Entry};
use disagg::plan::{Plan, Purpose, Role};

use crate::planning;
use crate::step::plural;

/// A table of all roles with their sizes and ports, and where each runs when the allocation's hosts
/// are known.
#[must_use]
pub fn table(plan: &Plan, hosts: Option<&[String]>) -> String {
    let head = ["ROLE", "NODES", "TASKS", "PER NODE", "MPI", "RUNS ON", "PORTS"];
    let mut rows = vec![head.map(String::from)];
    for instance in plan.checks().chain(plan.instances()) {
        let step = &instance.role.step;
        let nodes = instance.nodes.len() as u32;
        let place = match hosts.and_then(|all| instance.hosts(all)) {
            Some(own) => disagg::slurm::hostlist::compress(own),
            None if nodes == 1 => format!("node {} of the job", instance.nodes.start + 1),
            None => {
                format!("nodes {} to {} of the job", instance.nodes.start + 1, instance.nodes.end)
            }
        };
        let ports = instance.role.ports.keys();
        let port = |name: &String| format!("{name} {}", instance.port(name).unwrap_or_default());
        rows.push([
            instance.name.clone(),
            nodes.to_string(),
            step.tasks.to_string(),
            step.tasks_per_node.to_string(),
            step.mpi.clone().unwrap_or_else(|| "-".to_owned()),
            place,
            ports.map(port).collect::<Vec<_>>().join(", "),
        ]);
    }
    // Plans of tests have no ports.
    let columns = if rows[1..].iter().any(|row| !row[6].is_empty()) { 7 } else { 6 };
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let start = text.len();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        text.truncate(start + text[start..].trim_end().len());
        text.push('\n');
    }
    text
}

/// The layout in one line, for whoever submits.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    let layout = &plan.layout;
    let size = |nodes: u32, gpus: u32, between: &str| match gpus {
        0 => plural(nodes, "node"),
        gpus => format!("{}{between}{}", plural(nodes, "node"), plural(gpus, "GPU")),
    };
    let is_server =
        |(_, role): &(&String, &Role)| role.purpose == Purpose::Server && role.count > 0;
    let servers = plan.roles.iter().filter(is_server).map(|(name, role)| {
        let each = if role.count == 1 { "" } else { " each" };
        let size = size(role.step.nodes, role.gpus_of_instance(), ", ");
        format!("{} {name} ({size}{each})", role.count)
    });
    let servers: Vec<String> = servers.collect();
    let total = match plan.roles.values().any(|role| role.gpus > 0) {
        false => plural(layout.total_nodes, "node"),
        true => format!(
            "{} = {}",
            size(layout.total_nodes, layout.gpus_per_node, " x "),
            plural(layout.total_gpus, "GPU")
        ),
    };
    format!("disagg: {}: {total}: {}", plan.config.name, servers.join(", "))
}

/// Where every value of the plan comes from, one line each.
#[must_use]
pub fn explanation(plan: &Plan) -> String {
    let line = |entry: &Entry| {
        let value = if entry.value.is_empty() { "" } else { "=" };
        format!(
            "disagg: {} {} {}{value}{}: {}",
            entry.whose,
            entry.kind,
            entry.name,
            entry.value,
            planning::in_our_words(&entry.source)
        )
    };
    explain::entries(plan).iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn the_summary_has_the_totals_and_each_kind_of_server() {
        assert_eq!(
            summary(&fixture::plan("")),
            "disagg: fixture: 4 nodes x 4 GPUs = 16 GPUs: 1 GEN (2 nodes, 8 GPUs), 2 CTX (1 node, 4 GPUs each)"
        );
    }

    #[test]
    fn the_table_names_hosts_when_they_are_known() {
        let hosts: Vec<String> = (1..=4).map(|i| format!("n{i}")).collect();
        let text = table(&fixture::plan(""), Some(&hosts));
        let last: Vec<&str> = text.lines().filter_map(|l| l.split_whitespace().last()).collect();
        assert_eq!(last, ["ON", "n[1-2]", "n3", "n4", "n1", "n1"]);
    }

    #[test]
    fn the_explanation_names_every_variable_with_its_source_and_hides_secrets() {
        let text = explanation(&fixture::plan("A=1 HF_TOKEN=hf_123"));
        assert!(text.contains("disagg: GEN env A=1: "), "{text}");
        assert!(text.contains("fixture.yaml:8:"), "{text}");
        assert!(!text.contains("hf_123"), "{text}");
    }
}
