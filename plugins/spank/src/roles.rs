// SPDX-License-Identifier: Apache-2.0
//! A plan for people, in the words of a submission: `--disagg-role=help`, `--disagg-explain`, the
//! layout in one line, the roles in an error.

use std::fmt::Write as _;

use disagg::output::explain::{self, Entry};
use disagg::plan::{Plan, Purpose, Role};

use crate::planning;

/// A table of all roles with their sizes, and where each runs when the allocation's hosts are
/// known.
#[must_use]
pub fn table(plan: &Plan, hosts: Option<&[String]>) -> String {
    let mut rows = vec![["ROLE", "NODES", "TASKS", "PER NODE", "MPI", "RUNS ON"].map(String::from)];
    for instance in plan.checks().chain(plan.instances()) {
        let step = &instance.role.step;
        let place = match hosts.and_then(|all| instance.hosts(all)) {
            Some(own) => disagg::slurm::hostlist::compress(own),
            None if step.nodes == 1 => format!("node {} of the job", instance.nodes.start + 1),
            None => {
                format!("nodes {} to {} of the job", instance.nodes.start + 1, instance.nodes.end)
            }
        };
        rows.push([
            instance.name.clone(),
            step.nodes.to_string(),
            step.tasks.to_string(),
            step.tasks_per_node.to_string(),
            step.mpi.clone().unwrap_or_else(|| "-".to_owned()),
            place,
        ]);
    }
    let mut text = String::new();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    for row in &rows {
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        text.push_str(&row[5]);
        text.push('\n');
    }
    text
}

/// The layout in one line, for whoever submits.
#[must_use]
pub fn summary(plan: &Plan) -> String {
    let layout = &plan.layout;
    let has_gpus = |(_, role): &(&String, &Role)| {
        role.gpus > 0 && role.count > 0 && role.purpose != Purpose::Check
    };
    let servers = plan.roles.iter().filter(has_gpus).map(|(name, role)| {
        let each = if role.count == 1 { "" } else { " each" };
        format!(
            "{} {name} ({}, {}{each})",
            role.count,
            crate::step::plural(role.step.nodes, "node"),
            crate::step::plural(role.step.tasks, "GPU"),
        )
    });
    let servers: Vec<String> = servers.collect();
    format!(
        "disagg: {}: {} x {} = {}: {}",
        plan.config.name,
        crate::step::plural(layout.total_nodes, "node"),
        crate::step::plural(layout.gpus_per_node, "GPU"),
        crate::step::plural(layout.total_gpus, "GPU"),
        servers.join(", ")
    )
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
