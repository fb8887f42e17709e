// SPDX-License-Identifier: Apache-2.0
//! Counts for each node as Slurm writes them in `SLURM_JOB_CPUS_PER_NODE`: `10,1(x2)`.

/// The count of each node, in the order of the node list; none when the text is not such a list, or
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
    fn repeated_counts_are_expanded_under_a_limit() {
        assert_eq!(per_node("10,1(x2)", 3), Some(vec![10, 1, 1]));
        assert_eq!(per_node("4(x6)", 6), Some(vec![4; 6]));
        for text in ["", "x", "4(x", "4(xx)", "4(x9999999999)", "1,2,3,4"] {
            assert_eq!(per_node(text, 3), None, "{text}");
        }
    }
}
