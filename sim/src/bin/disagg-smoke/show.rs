// SPDX-License-Identifier: Apache-2.0
//! The result as a person reads it: the submission, a line for each step, one rank in full and the
//! others by what is different, and what is not as planned.

use std::fmt::Write;

use disagg::diagnostic::Printable;
use disagg::output::quote;
use slurm_sim::Env;

use crate::args::Args;
use crate::check::{Finding, RankSeen};
use crate::play::{Played, StepSeen};
use crate::stage::Stage;

/// Steps of one kind that are shown unless all are asked for.
const SHOWN_STEPS: usize = 8;
/// Findings that are shown unless all are asked for.
const SHOWN_FINDINGS: usize = 20;

/// The whole result. Of several releases the first is shown in full.
pub fn text(stage: &Stage, args: &Args, runs: &[Played]) -> String {
    let mut text = String::new();
    for (index, run) in runs.iter().enumerate() {
        if index == 0 || args.verbose {
            submission(&mut text, stage, run);
            if !run.steps.is_empty() {
                steps(&mut text, run, args.verbose);
                ranks(&mut text, run, args.verbose);
            }
        }
        findings(&mut text, &run.findings, args.verbose);
        let _ = writeln!(text, "Slurm {}: {}", run.release, verdict(run));
    }
    text
}

fn verdict(run: &Played) -> String {
    let ranks: usize = run.steps.iter().map(|step| step.ranks.len()).sum();
    let played = format!("{} and {}", many(run.steps.len(), "step"), many(ranks, "rank"));
    let left_out = match run.servers_left_out {
        0 => String::new(),
        more => format!("; {} not played (--max-servers 0 plays all)", many(more, "more server")),
    };
    match run.findings.len() {
        0 => format!("{played} as planned{left_out}"),
        wrong => format!("FAILED: {} from the plan, {played}{left_out}", many(wrong, "difference")),
    }
}

fn many(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

fn command_line(program: &str, arguments: &[String]) -> String {
    format!("$ {program} {}\n", Printable(&quote::words(arguments.iter().map(String::as_str))))
}

fn submission(text: &mut String, stage: &Stage, run: &Played) {
    let _ = writeln!(text, "A simulated Slurm {} with {}\n", run.release, stage.plugin.display());
    text.push_str(&command_line("sbatch", &stage.sbatch));
    text.push_str(&run.sbatch_printed);
    if let Some(demand) = &run.demand {
        let _ = writeln!(text, "  asks the controller for  {}", Printable(demand));
    }
    if let Some(job) = &run.job {
        let _ = writeln!(
            text,
            "  the controller makes it  --nodes={} --ntasks={} --ntasks-per-node={}, {} on each node: {}",
            job.nodes, job.tasks, job.tasks_per_node, job.tres_per_node, job.nodelist
        );
    }
    text.push('\n');
}

/// The steps of a run that are shown, with the number of those left out after each.
fn shown(run: &Played, verbose: bool) -> Vec<(&StepSeen, usize)> {
    let mut shown = Vec::new();
    for steps in run.steps.chunk_by(|a, b| kind(a) == kind(b)) {
        let all = verbose || steps.len() <= SHOWN_STEPS + 1;
        let first = if all { steps.len() } else { SHOWN_STEPS };
        shown.extend(steps[..first].iter().map(|step| (step, 0)));
        if let (false, Some(last), Some(before)) = (all, steps.last(), shown.last_mut()) {
            before.1 = steps.len() - first - 1;
            shown.push((last, 0));
        }
    }
    shown
}

/// `GEN` of `GEN_3`.
fn kind(step: &StepSeen) -> &str {
    step.role.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_')
}

fn steps(text: &mut String, run: &Played, verbose: bool) {
    let shown = shown(run, verbose);
    let width = |cell: fn(&StepSeen) -> &str| {
        shown.iter().map(|(step, _)| cell(step).len()).max().unwrap_or_default()
    };
    let (role, nodes) = (width(|step| &step.role), width(|step| &step.nodelist));
    let per_node = width(|step| &step.tasks_per_node);
    for (step, more) in shown {
        let option = format!("--disagg-role={}", step.role);
        let _ = writeln!(
            text,
            "$ srun {option:<option_width$} run.sh   on {:<nodes$}  {:>per_node$} per node   {}",
            step.nodelist,
            step.tasks_per_node,
            step.options.join(" "),
            option_width = role + "--disagg-role=".len()
        );
        left_out(text, more, kind(step), "");
    }
    text.push('\n');
}

fn left_out(text: &mut String, more: usize, kind: &str, indent: &str) {
    if more > 0 {
        let _ = writeln!(text, "{indent}… {more} more {kind} (--verbose shows them)");
    }
}

fn ranks(text: &mut String, run: &Played, verbose: bool) {
    let mut first: Option<(&StepSeen, &RankSeen)> = None;
    let mut of_kind: Option<(&StepSeen, &RankSeen)> = None;
    for (step, more) in shown(run, verbose) {
        for alike in groups(&step.ranks) {
            let rank = alike[0];
            let title = title(step, alike);
            let base = of_kind.filter(|(known, _)| kind(known) == kind(step)).or(first);
            match base.filter(|_| !verbose) {
                None => full(text, &title, rank),
                Some((known, base)) => {
                    let but = changes(base, rank);
                    let of = format!("{} rank {}", known.role, base.task);
                    let _ = match but.is_empty() {
                        true => writeln!(text, "{title}: same as {of}"),
                        false => writeln!(text, "{title}: same as {of} but for {}", but.join(", ")),
                    };
                }
            }
            first.get_or_insert((step, rank));
            if of_kind.is_none_or(|(known, _)| kind(known) != kind(step)) {
                of_kind = Some((step, rank));
            }
        }
        left_out(text, more, kind(step), "");
    }
    text.push('\n');
}

/// Runs of ranks that differ only in their number and node.
fn groups(ranks: &[RankSeen]) -> Vec<Vec<&RankSeen>> {
    let mut groups: Vec<Vec<&RankSeen>> = Vec::new();
    for rank in ranks {
        match groups.last_mut() {
            Some(group) if changes(group[0], rank).is_empty() => group.push(rank),
            _ => groups.push(vec![rank]),
        }
    }
    groups
}

fn title(step: &StepSeen, ranks: Vec<&RankSeen>) -> String {
    let mut hosts: Vec<String> = ranks.iter().map(|rank| rank.host.clone()).collect();
    hosts.dedup();
    let hosts = slurm_sim::compress_hosts(&hosts);
    match ranks.as_slice() {
        [first, .., last] => format!("{} ranks {}-{} on {hosts}", step.role, first.task, last.task),
        _ => format!("{} rank {} on {hosts}", step.role, ranks[0].task),
    }
}

fn full(text: &mut String, title: &str, rank: &RankSeen) {
    let of_slurm = rank.inherited.iter().filter(|(name, _)| name.starts_with("SLURM")).count();
    let others = rank.inherited.len() - of_slurm;
    let _ = writeln!(text, "{title}:");
    for name in &rank.unset {
        let _ = writeln!(text, "    unset {name}");
    }
    for (name, value) in rank.env.iter() {
        let _ = writeln!(text, "    {name}={}", Printable(&quote::word(value)));
    }
    let (of_slurm, others) = (many(of_slurm, "variable"), many(others, "variable"));
    let _ = writeln!(text, "    ({of_slurm} of Slurm's and {others} of the user's)");
    for (index, word) in rank.command.iter().enumerate() {
        let indent = if index == 0 { "  $ " } else { "      " };
        let _ = writeln!(text, "{indent}{}", Printable(&quote::word(word)));
    }
}

/// What a rank has that another has not, and the other way round.
fn changes(base: &RankSeen, rank: &RankSeen) -> Vec<String> {
    let mut changes = Vec::new();
    for (name, value) in rank.env.iter() {
        if base.env.get(name) != Some(value) {
            changes.push(format!("{name}={}", Printable(&quote::word(value))));
        }
    }
    let absent = |env: &Env, name: &str| env.get(name).is_none();
    let missing: Vec<_> = base
        .env
        .iter()
        .map(|(name, _)| name)
        .filter(|name| absent(&rank.env, name) && !rank.unset.iter().any(|unset| unset == name))
        .collect();
    if !missing.is_empty() {
        changes.push(format!("without {}", missing.join(" ")));
    }
    if base.unset != rank.unset {
        changes.push(match rank.unset.as_slice() {
            [] => "nothing unset".to_owned(),
            names => format!("unset {}", names.join(" ")),
        });
    }
    // A word that only has another value is told by the new one.
    let option = |word: &str| word.split_once('=').map(|(name, _)| name.to_owned());
    let new = words_beyond(&rank.command, &base.command);
    let mut gone = words_beyond(&base.command, &rank.command);
    gone.retain(|word| {
        option(word).is_none_or(|o| !new.iter().any(|n| option(n).as_ref() == Some(&o)))
    });
    for (how, words) in [("with", new), ("without", gone)] {
        if !words.is_empty() {
            changes.push(format!("{how} {}", Printable(&quote::words(words))));
        }
    }
    changes
}

/// The words of a command that another has not.
fn words_beyond<'a>(words: &'a [String], other: &[String]) -> Vec<&'a str> {
    words.iter().filter(|word| !other.contains(word)).map(String::as_str).collect()
}

/// The findings, those that many ranks of a step share as one.
fn findings(text: &mut String, findings: &[Finding], verbose: bool) {
    let mut shared: Vec<(&Finding, Vec<u32>)> = Vec::new();
    for finding in findings {
        let key = |f: &Finding| Finding { rank: None, ..f.clone() };
        let known = shared.iter_mut().rev().take(SHOWN_FINDINGS);
        match known.into_iter().find(|(known, _)| key(known) == key(finding)) {
            Some((_, ranks)) => ranks.extend(finding.rank),
            None => shared.push((finding, finding.rank.into_iter().collect())),
        }
    }
    let limit = if verbose { shared.len() } else { SHOWN_FINDINGS };
    for (finding, ranks) in shared.iter().take(limit) {
        let ranks = match ranks.as_slice() {
            [] => String::new(),
            [rank] => format!(" rank {rank}"),
            [first, .., last] if last - first + 1 == ranks.len() as u32 => {
                format!(" ranks {first}-{last}")
            }
            ranks => {
                let ranks: Vec<_> = ranks.iter().map(u32::to_string).collect();
                format!(" ranks {}", ranks.join(","))
            }
        };
        let _ = writeln!(text, "{}{ranks}: {}", finding.place, Printable(&finding.what));
        for (word, value) in [("expected", &finding.expected), ("found", &finding.found)] {
            let mut lines = value.lines();
            let first = lines.next().unwrap_or("(empty)");
            let _ = writeln!(text, "  {word:<9}{}", Printable(first));
            for line in lines {
                let _ = writeln!(text, "           {}", Printable(line));
            }
        }
    }
    if shared.len() > limit {
        let _ = writeln!(text, "… {} more (--verbose shows them)", shared.len() - limit);
    }
}
