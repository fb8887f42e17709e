// SPDX-License-Identifier: Apache-2.0
//! Host lists as Slurm writes them: `node[1-3,7],login`. Small and separate from the product's
//! own, so that the simulator doesn't repeat a mistake of what it checks.

/// The names in a host list, in order. None when a bracket or range is malformed.
pub fn expand(list: &str) -> Option<Vec<String>> {
    let mut hosts = Vec::new();
    for part in split_outside_brackets(list)? {
        let mut names = vec![String::new()];
        let mut rest = part;
        while let Some((before, after)) = rest.split_once('[') {
            let (inside, tail) = after.split_once(']')?;
            let numbers = expand_ranges(inside)?;
            names = names
                .iter()
                .flat_map(|name| numbers.iter().map(move |n| format!("{name}{before}{n}")))
                .collect();
            rest = tail;
        }
        hosts.extend(names.into_iter().map(|name| name + rest));
    }
    Some(hosts)
}

/// The shortest list of names that differ only in a trailing number, in order.
pub fn compress(hosts: &[String]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for host in hosts {
        let (prefix, number) = split_number(host);
        match groups.last_mut() {
            Some((last, numbers))
                if *last == prefix && !number.is_empty() && !numbers[0].is_empty() =>
            {
                numbers.push(number);
            }
            _ => groups.push((prefix, vec![number])),
        }
    }
    let parts: Vec<_> = groups
        .into_iter()
        .map(|(prefix, numbers)| match numbers.as_slice() {
            [one] => format!("{prefix}{one}"),
            _ => format!("{prefix}[{}]", ranges(&numbers)),
        })
        .collect();
    parts.join(",")
}

fn ranges(numbers: &[&str]) -> String {
    let mut runs: Vec<(&str, &str)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if follows(last, number) => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let parts: Vec<_> = runs
        .iter()
        .map(|(a, b)| if a == b { (*a).to_owned() } else { format!("{a}-{b}") })
        .collect();
    parts.join(",")
}

fn follows(last: &str, next: &str) -> bool {
    match (last.parse::<u64>(), next.parse::<u64>()) {
        (Ok(a), Ok(b)) => {
            a.checked_add(1) == Some(b)
                && (last.len() == next.len() || !next.starts_with('0'))
                && (last.len() == next.len() || !last.starts_with('0'))
        }
        _ => false,
    }
}

fn split_number(host: &str) -> (&str, &str) {
    let digits = host.bytes().rev().take_while(u8::is_ascii_digit).count();
    host.split_at(host.len() - digits)
}

fn split_outside_brackets(list: &str) -> Option<Vec<&str>> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0, 0);
    for (index, c) in list.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[start..index]);
                start = index + 1;
            }
            _ => {}
        }
        if !(0..=1).contains(&depth) {
            return None;
        }
    }
    parts.push(&list[start..]);
    parts.retain(|part| !part.is_empty());
    (depth == 0).then_some(parts)
}

fn expand_ranges(inside: &str) -> Option<Vec<String>> {
    let mut numbers = Vec::new();
    for range in inside.split(',') {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
        if first > last || last - first > 65_535 {
            return None;
        }
        let width = from.len();
        numbers.extend((first..=last).map(|n| format!("{n:0width$}")));
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn brackets_expand_to_names_in_order() {
        assert_eq!(expand("node[1-2,08],login").unwrap(), ["node1", "node2", "node08", "login"]);
        assert_eq!(expand("r[0-1]n[1-2]").unwrap(), ["r0n1", "r0n2", "r1n1", "r1n2"]);
    }

    #[test]
    fn malformed_lists_are_refused() {
        for list in ["n[1-", "n]1", "n[[1]]", "n[3-1]", "n[a]", "n[1-99999999999]"] {
            assert_eq!(expand(list), None, "{list}");
        }
    }

    #[test]
    fn consecutive_names_compress_to_ranges() {
        let hosts: Vec<String> = ["n1", "n2", "n3", "n7", "m", "n8"].map(String::from).into();
        assert_eq!(compress(&hosts), "n[1-3,7],m,n8");
    }

    proptest! {
        #[test]
        fn what_is_compressed_expands_to_the_same_names(
            hosts in prop::collection::vec("[a-z]{0,3}[a-z][0-9]{0,4}", 0..20)
        ) {
            prop_assert_eq!(expand(&compress(&hosts)), Some(hosts));
        }

        #[test]
        fn no_text_makes_expansion_panic(list in "\\PC{0,40}") {
            let _ = expand(&list);
        }
    }
}
