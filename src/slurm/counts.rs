// SPDX-License-Identifier: Apache-2.0
//! What a job has on its nodes, as Slurm writes it into the job's environment.

/// The variable that a job has when it asked for a number of GPUs on all of its nodes together
/// (`--gpus`). A step of such a job says how many it takes of each node, or Slurm refuses it (22.05:
/// "Invalid generic resource (gres) specification").
pub const TOTAL_GPUS: &str = "SLURM_GPUS";

/// Such a job's nodes do not have the GPUs that the plan wants of each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "Slurm spreads the GPUs of --gpus={total} as it likes: a node of this job has {here}, the plan \
     needs {per_node} of each; submit with --gpus-per-node={per_node}"
)]
pub struct UnevenGpus {
    total: String,
    here: u32,
    per_node: u32,
}

/// Whether a job that asked for GPUs in total has as many as the plan wants on the node of this
/// process, its first. Slurm refuses the steps where another node has fewer.
///
/// # Errors
/// [`UnevenGpus`].
pub fn even_gpus(
    per_node: u32,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), UnevenGpus> {
    let here = variable("SLURM_GPUS_ON_NODE").and_then(|text| text.parse().ok());
    match (variable(TOTAL_GPUS), here) {
        (Some(total), Some(here)) if here != per_node && per_node > 0 => {
            Err(UnevenGpus { total, here, per_node })
        }
        _ => Ok(()),
    }
}

/// The count of each node in a text as `10,1(x2)`, in the order of the node list; none when the text is not such a list, or
/// has more than `most` nodes.
#[must_use]
pub fn per_node(text: &str, most: usize) -> Option<Vec<u32>> {
    let mut counts = Vec::new();
    for item in text.split(',') {
        let (count, times) = match item.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (item, 1),
        };
        if times > most - counts.len() {
            return None;
        }
        counts.resize(counts.len() + times, count.parse().ok()?);
    }
    Some(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_that_slurm_spread_unevenly_are_said_with_the_numbers() {
        let check = |variables: &[(&str, &str)]| {
            let of = |name: &str| variables.iter().find(|(known, _)| *known == name);
            let checked = even_gpus(4, |name| of(name).map(|(_, value)| (*value).to_owned()));
            checked.map_err(|error| error.to_string())
        };
        let total = ("SLURM_GPUS", "h100:12");
        assert_eq!(check(&[total, ("SLURM_GPUS_ON_NODE", "4")]), Ok(()));
        assert_eq!(check(&[total]), Ok(()));
        assert_eq!(check(&[("SLURM_GPUS_ON_NODE", "8")]), Ok(()), "of a node of its own");
        let error = check(&[total, ("SLURM_GPUS_ON_NODE", "8")]).unwrap_err();
        assert!(error.contains("--gpus=h100:12") && error.contains("has 8, the plan needs 4"));
    }

    #[test]
    fn repeated_counts_are_expanded_under_a_limit() {
        assert_eq!(per_node("10,1(x2)", 3), Some(vec![10, 1, 1]));
        assert_eq!(per_node("4(x6)", 6), Some(vec![4; 6]));
        for text in ["", "x", "4(x", "4(xx)", "4(x9999999999)", "1,2,3,4"] {
            assert_eq!(per_node(text, 3), None, "{text}");
        }
    }
}
