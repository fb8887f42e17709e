// SPDX-License-Identifier: Apache-2.0
//! A plan as a person reads it.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr as _;

use crate::diagnostic::Printable;
use crate::plan::layout::saved_by_packing;
use crate::plan::{
    FrontendNode, Instance, Layout, Placement, Plan, Purpose, Role, Suite, resolve, step,
};

/// Rows of a table, aligned; the first row is its head. Numbers align right.
fn table(rows: &[Vec<String>]) -> String {
    aligned(rows, |_, cell| !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit()))
}

/// Rows in columns. `is_right` says whether a cell is aligned to the right, from the
/// column's number and the cell's text.
pub fn aligned(rows: &[Vec<String>], is_right: fn(usize, &str) -> bool) -> String {
    let printable = |cell: &String| Printable(cell).to_string();
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(printable).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.width());
            let _ = match is_right(column, cell) {
                true => write!(line, "  {pad}{cell}"),
                false => write!(line, "  {cell}{pad}"),
            };
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// The whole plan. With the allocation's node names, the nodes of each instance.
pub fn plan(plan: &Plan, nodes: Option<&[String]>) -> String {
    let mut text = String::new();
    let suite = plan.suite.as_ref();
    let title = suite.map_or_else(|| plan.config.name.clone(), |suite| suite.test.node_id());
    let _ = writeln!(text, "{}", Printable(&title));
    let _ = writeln!(
        text,
        "  configuration  {} (sha256 {})",
        Printable(&plan.config.path),
        &plan.config.sha256.get(..12).unwrap_or("")
    );
    if let Some(suite) = suite {
        let _ = writeln!(
            text,
            "  mode           {} ({} rules: {})",
            Printable(&suite.test.mode),
            suite.rules.name(),
            Printable(&suite.rules_reason)
        );
    }
    if let Some(engine) = &plan.engine {
        let (name, model) = (Printable(&engine.name), Printable(&engine.model));
        let served = Printable(&engine.served_name);
        let _ =
            writeln!(text, "  engine         {name}\n  model          {model}, served as {served}");
        let unnamed: Vec<_> =
            (0..plan.layout.total_nodes).map(|node| format!("<node {node}>")).collect();
        let asks = step::url(plan, nodes.unwrap_or(&unnamed)).unwrap_or_default();
        let asks = Printable(asks);
        let until = if engine.serve_only { ", until the job ends" } else { "" };
        let _ = writeln!(text, "  clients ask    {asks}{until}");
    }
    let _ = writeln!(text, "  job            {}", job_line(plan));
    if let Some(line) = saving_line(plan) {
        let _ = writeln!(text, "  placement      {line}");
    }
    if let Some(suite) = suite {
        let _ = writeln!(text, "  {}", launcher_line(suite));
    }
    text.push('\n');
    let head = ["role", "servers", "nodes", "GPUs", "tasks", "per node", "where"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (name, role) in shown_roles(plan) {
        rows.push(role_row(plan, name, role));
    }
    text.push_str(&table(&rows));
    text.push('\n');
    for (name, role) in shown_roles(plan) {
        let _ = writeln!(text, "  {name}: {}", Printable(&shortened(role)));
    }
    if let Some(nodes) = nodes {
        text.push('\n');
        text.push_str(&instances(plan, nodes));
    }
    for note in &plan.notes {
        let _ = writeln!(text, "\nnote: {}", Printable(note));
    }
    text
}

/// The roles that have steps in this plan.
fn shown_roles(plan: &Plan) -> impl Iterator<Item = (&String, &Role)> {
    plan.roles.iter().filter(|(_, role)| role.count > 0)
}

/// `3 nodes × 4 GPUs, 12 tasks, time limit 04:00:00, partition batch`.
pub fn job_line(plan: &Plan) -> String {
    let Layout { total_nodes, gpus_per_node, .. } = plan.layout;
    let gpus = match plan.total_gpus() > 0 {
        true => format!(" × {gpus_per_node} GPU{}", plural(gpus_per_node)),
        false => String::new(),
    };
    let mut line = format!(
        "{total_nodes} node{}{gpus}, {} task{}, time limit {}",
        plural(total_nodes),
        plan.job.ntasks.value,
        plural(plan.job.ntasks.value),
        Printable(&plan.job.time.value)
    );
    for (name, value) in plan.job.texts() {
        let _ = write!(line, ", {name} {}", Printable(&value.value));
    }
    line
}

/// What `--placement packed` would save; nothing where it saves no node.
pub fn saving_line(plan: &Plan) -> Option<String> {
    let servers = plan.roles.values().filter(|role| role.purpose == Purpose::Server);
    let sizes = servers.map(|role| (role.count, role.gpus_of_instance().max(1)));
    let saved = match plan.placement {
        Placement::Exclusive => saved_by_packing(plan.layout.gpus_per_node, sizes),
        Placement::Packed | Placement::Compact => 0,
    };
    let total = plan.layout.total_nodes;
    let left = total.saturating_sub(saved);
    (saved > 0).then(|| {
        format!(
            "each server has its own nodes; --placement packed would take {left} node{} instead of {total}",
            plural(left)
        )
    })
}

fn plural(count: u32) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Whether the launcher is used, and why.
pub fn launcher_line(suite: &Suite) -> &'static str {
    if suite.llmapi_launch {
        "trtllm-llmapi-launch: used (multi-node or multi-GPU)"
    } else {
        "trtllm-llmapi-launch: not used (one node, one GPU)"
    }
}

/// The same in the words that people's checks look for under a Chinese locale.
pub fn launcher_line_zh(suite: &Suite) -> &'static str {
    if suite.llmapi_launch {
        "✓ 将使用 trtllm-llmapi-launch (多节点/多GPU)"
    } else {
        "✓ 单节点单GPU，不使用 trtllm-llmapi-launch"
    }
}

fn role_row(plan: &Plan, name: &str, role: &Role) -> Vec<String> {
    let step = &role.step;
    let gpus = if role.gpus > 0 {
        (role.count * role.gpus_of_instance()).to_string()
    } else {
        String::new()
    };
    vec![
        name.to_owned(),
        role.count.to_string(),
        step.nodes.to_string(),
        gpus,
        step.tasks.to_string(),
        step.tasks_per_node.to_string(),
        place(plan, role),
    ]
}

/// Which of the job's nodes a role gets, counted from 0.
fn place(plan: &Plan, role: &Role) -> String {
    let first = role.places.iter().map(|run| run.first_node).min().unwrap_or_default();
    let last = role.end_of_nodes().saturating_sub(1);
    let range = match Some(last).filter(|last| *last > u64::from(first)) {
        None => format!("node {first}"),
        Some(last) => format!("nodes {first}-{last}"),
    };
    match (role.gpus > 0, plan.placement, plan.frontend_node) {
        (true, Placement::Packed, _) => format!("{range}, packed"),
        (true, Placement::Compact, _) => format!("{range}, compact"),
        (false, _, FrontendNode::Own) => format!("{range}, of their own"),
        _ => range,
    }
}

/// The command without what every role has: variables by number, long values cut.
fn shortened(role: &Role) -> String {
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut words = Vec::new();
    if !role.unset.is_empty() {
        let names: Vec<_> = role.unset.iter().map(|name| name.value.as_str()).collect();
        words.push(format!("unset {};", names.join(" ")));
    }
    words.push(format!("{} variable{};", role.env.len(), plural(role.env.len() as u32)));
    let command: Vec<_> = role.words().collect();
    words.extend(command.first().map(|first| name(first)));
    words.extend(command.get(1).filter(|second| !second.starts_with('-')).cloned());
    if let Some(last) = command.last() {
        words.push("…".into());
        words.push(last.clone());
    }
    words.join(" ")
}

/// Each instance with its nodes.
pub fn instances(plan: &Plan, nodes: &[String]) -> String {
    let mut rows = vec![["instance", "nodes", "GPUs"].map(str::to_owned).to_vec()];
    for instance in plan.instances() {
        let hosts = instance
            .hosts(nodes)
            .map_or_else(|| "(not in this node list)".to_owned(), crate::slurm::hostlist::compress);
        let gpus = match instance.gpus.len() {
            0 => String::new(),
            _ => format!("{}-{}", instance.gpus.start, instance.gpus.end - 1),
        };
        rows.push(vec![instance.name.clone(), hosts, gpus]);
    }
    table(&rows)
}

/// One instance: its step, its environment, its command.
pub fn instance(instance: &Instance<'_>, nodes: Option<&[String]>) -> String {
    let mut text = String::new();
    let step = &instance.role.step;
    let _ = writeln!(
        text,
        "{}: {} node{}, {} task{}, {} per node, --mpi={}",
        instance.name,
        step.nodes,
        plural(step.nodes),
        step.tasks,
        plural(step.tasks),
        step.tasks_per_node,
        step.mpi_type()
    );
    if let Some(hosts) = nodes.and_then(|nodes| instance.hosts(nodes)) {
        let _ = writeln!(text, "  on {}", crate::slurm::hostlist::compress(hosts));
    }
    let spec = resolve(instance, nodes.unwrap_or_default());
    for name in &spec.unset {
        let _ = writeln!(text, "  unset {name}");
    }
    if let Some(cleared) = spec.cleared {
        let (prefixes, except) = (cleared.prefixes.join("* "), cleared.except.join(", "));
        let _ = writeln!(text, "  unset {prefixes}*, except {except}");
    }
    for variable in &spec.set {
        let shown = super::shown(instance.plan, variable.name, variable.value.as_str());
        let _ = writeln!(text, "  {}={}", variable.name, Printable(shown));
    }
    for (file, _) in &spec.files {
        let _ = writeln!(text, "  writes {}", Printable(&file.literal_text()));
    }
    for argument in spec.arguments() {
        let _ = writeln!(text, "    {}", Printable(&argument));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_where_characters_are_wide() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let text = table(&[row(["test", "nodes"]), row(["预填充", "3"]), row(["é", "12"])]);
        assert_eq!(text, "  test    nodes\n  预填充      3\n  é          12\n");
    }
}
