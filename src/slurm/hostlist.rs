// SPDX-License-Identifier: Apache-2.0
//! Hostlists: the notation in which Slurm writes sets of nodes (`node[1-3,7]`, `r[1-2]c[01-03]`).
//!
//! Expansion and compression give what `scontrol show hostnames` and `scontrol show hostlist` print
//! (compared with the installed one in `tests/hostlist_conformance.rs`), under limits, and with the
//! byte column of what is wrong. Three things differ, each on purpose:
//! - text after the last bracket (`n[1-2]-ib`) is read, as Slurm does since 23.11; before, it refused;
//! - what older releases mangle is an error here: an unclosed `[` (they print `n]` for `n[1`), a
//!   stray `]`, an open range (`n[3-]`), a sign or a blank inside brackets;
//! - numbers of more than [`MAX_DIGITS`] digits are never wrapped: an error in brackets, and
//!   otherwise part of the name.

use std::fmt;

/// How many hosts [`expand`] yields at most.
pub const MAX_HOSTS: usize = 65_536;

/// How long a hostlist may be, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// How many bytes all the names of one expansion may take together.
pub const MAX_EXPANDED_BYTES: usize = 16 << 20;

/// How many digits a number in a host name may have to be counted with.
pub const MAX_DIGITS: usize = 18;

/// What is wrong with a hostlist, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hostlist, column {column}: {kind}")]
pub struct HostlistError {
    /// Byte column of the fault, counted from 1.
    pub column: usize,
    /// What is wrong there.
    pub kind: HostlistErrorKind,
}

/// The faults that a hostlist can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostlistErrorKind {
    /// The text is longer than [`MAX_BYTES`].
    #[error("the list has {bytes} bytes, more than the {MAX_BYTES} allowed")]
    TooLong {
        /// Length of the text.
        bytes: usize,
    },
    /// More hosts than the caller's limit.
    #[error("the list names too many hosts here; at most {limit} are allowed")]
    TooManyHosts {
        /// The limit that was in force.
        limit: usize,
    },
    /// The names take more than [`MAX_EXPANDED_BYTES`] together.
    #[error("the names take more than {MAX_EXPANDED_BYTES} bytes when expanded")]
    TooManyBytes,
    /// A `[` without its `]`.
    #[error("`[` is never closed; write a range as `[1-3,7]`")]
    Unclosed,
    /// A `]` without its `[`.
    #[error("`]` without `[`; write a range as `[1-3,7]`")]
    Unopened,
    /// A `[` within brackets.
    #[error("`[` within brackets; write several dimensions side by side, as `r[1-2]c[1-3]`")]
    Nested,
    /// Something that is no number where a number belongs.
    #[error("a number belongs here; write a range as `[1-3,7]`")]
    NotANumber,
    /// More than [`MAX_DIGITS`] digits.
    #[error("the number has more than {MAX_DIGITS} digits")]
    TooManyDigits,
    /// A range whose end is before its start.
    #[error("the range ends at {high}, before its start {low}")]
    Backwards {
        /// The start that was written.
        low: u64,
        /// The end that was written.
        high: u64,
    },
    /// A character that no host name can have.
    #[error("a control character in a host name")]
    ControlCharacter,
}

/// A numeric range, both ends included, printed with at least `width` digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: u64,
    high: u64,
    width: usize,
}

impl Range {
    fn count(self) -> u128 {
        u128::from(self.high - self.low) + 1
    }
}

/// One comma-separated element: `texts[0] brackets[0] texts[1] brackets[1] … texts[n]`.
#[derive(Debug)]
struct Element<'a> {
    column: usize,
    texts: Vec<&'a str>,
    brackets: Vec<Vec<Range>>,
}

impl Element<'_> {
    fn count(&self) -> u128 {
        self.brackets
            .iter()
            .map(|ranges| ranges.iter().map(|range| range.count()).sum::<u128>())
            .fold(1, u128::saturating_mul)
    }
}

/// Expanded host names in one block of memory, without an allocation for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    text: String,
    ends: Vec<u32>,
}

impl Hosts {
    /// Expands a hostlist to at most `max_hosts` names, in Slurm's order and with its duplicates.
    ///
    /// # Errors
    /// [`HostlistError`], with the column, when the text is no hostlist or too large.
    pub fn expand(text: &str, max_hosts: usize) -> Result<Self, HostlistError> {
        let elements = parse(text)?;
        let total = checked_count(&elements, max_hosts)?;
        let mut hosts = Builder::with_capacity(total, text.len());
        for element in &elements {
            hosts.push_element(element)?;
        }
        hosts.finish()
    }

    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no name at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The name at `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        self.text.get(start..end)
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }
}

/// Expands a hostlist to at most [`MAX_HOSTS`] names, in Slurm's order and with its duplicates.
///
/// An empty list gives no names, as in Slurm.
///
/// # Errors
/// [`HostlistError`], with the column, when the text is no hostlist or too large.
pub fn expand(text: &str) -> Result<Vec<String>, HostlistError> {
    expand_limited(text, MAX_HOSTS)
}

/// [`expand`] with another limit on the number of hosts.
///
/// # Errors
/// As [`expand`].
pub fn expand_limited(text: &str, max_hosts: usize) -> Result<Vec<String>, HostlistError> {
    Ok(Hosts::expand(text, max_hosts)?.iter().map(str::to_owned).collect())
}

/// Number of hosts that [`expand`] would yield, without making them, and so without its check on
/// their length in bytes.
///
/// # Errors
/// As [`expand`].
pub fn count(text: &str) -> Result<usize, HostlistError> {
    checked_count(&parse(text)?, MAX_HOSTS)
}

fn checked_count(elements: &[Element], max_hosts: usize) -> Result<usize, HostlistError> {
    let mut total = 0usize;
    for element in elements {
        total = usize::try_from(element.count())
            .ok()
            .and_then(|count| total.checked_add(count))
            .filter(|&total| total <= max_hosts)
            .ok_or(HostlistError {
                column: element.column,
                kind: HostlistErrorKind::TooManyHosts { limit: max_hosts },
            })?;
    }
    Ok(total)
}

fn parse(text: &str) -> Result<Vec<Element<'_>>, HostlistError> {
    if text.len() > MAX_BYTES {
        return Err(HostlistError {
            column: MAX_BYTES + 1,
            kind: HostlistErrorKind::TooLong { bytes: text.len() },
        });
    }
    let bytes = text.as_bytes();
    let mut elements = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if is_separator(bytes[at]) {
            at += 1;
            continue;
        }
        let (element, next) = parse_element(text, at)?;
        elements.push(element);
        at = next;
    }
    Ok(elements)
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\t' | b'\n')
}

fn parse_element(text: &str, start: usize) -> Result<(Element<'_>, usize), HostlistError> {
    let bytes = text.as_bytes();
    let mut element = Element { column: start + 1, texts: Vec::new(), brackets: Vec::new() };
    let mut text_start = start;
    let mut at = start;
    while at < bytes.len() && !is_separator(bytes[at]) {
        match bytes[at] {
            b'[' => {
                element.texts.push(&text[text_start..at]);
                let (ranges, next) = parse_brackets(bytes, at)?;
                element.brackets.push(ranges);
                at = next;
                text_start = next;
            }
            b']' => return Err(fault(at, HostlistErrorKind::Unopened)),
            byte if byte.is_ascii_control() => {
                return Err(fault(at, HostlistErrorKind::ControlCharacter));
            }
            _ => at += 1,
        }
    }
    element.texts.push(&text[text_start..at]);
    Ok((element, at))
}

/// Reads `[…]` from its opening bracket; returns the ranges and the position after `]`.
fn parse_brackets(bytes: &[u8], open: usize) -> Result<(Vec<Range>, usize), HostlistError> {
    let mut ranges = Vec::new();
    let mut at = open + 1;
    loop {
        let start = at;
        let low = parse_number(bytes, &mut at, open)?;
        let width = at - start;
        let high = if bytes.get(at) == Some(&b'-') {
            at += 1;
            parse_number(bytes, &mut at, open)?
        } else {
            low
        };
        if high < low {
            return Err(fault(start, HostlistErrorKind::Backwards { low, high }));
        }
        ranges.push(Range { low, high, width });
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return Ok((ranges, at + 1)),
            other => return Err(bad_number(other, at, open)),
        }
    }
}

fn parse_number(bytes: &[u8], at: &mut usize, open: usize) -> Result<u64, HostlistError> {
    let start = *at;
    let mut number = 0u64;
    while let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) {
        if *at - start == MAX_DIGITS {
            return Err(fault(start, HostlistErrorKind::TooManyDigits));
        }
        number = number * 10 + u64::from(digit - b'0');
        *at += 1;
    }
    if *at == start {
        return Err(bad_number(bytes.get(*at), *at, open));
    }
    Ok(number)
}

fn bad_number(found: Option<&u8>, at: usize, open: usize) -> HostlistError {
    match found {
        None => fault(open, HostlistErrorKind::Unclosed),
        Some(b'[') => fault(at, HostlistErrorKind::Nested),
        Some(_) => fault(at, HostlistErrorKind::NotANumber),
    }
}

fn fault(at: usize, kind: HostlistErrorKind) -> HostlistError {
    HostlistError { column: at + 1, kind }
}

/// Collects the names of an expansion.
struct Builder {
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Builder {
    fn with_capacity(hosts: usize, list_bytes: usize) -> Self {
        let guess = hosts.saturating_mul(list_bytes.min(16)).min(MAX_EXPANDED_BYTES);
        Self { text: Vec::with_capacity(guess), ends: Vec::with_capacity(hosts) }
    }

    fn finish(self) -> Result<Hosts, HostlistError> {
        let text = String::from_utf8(self.text)
            .map_err(|_| fault(0, HostlistErrorKind::ControlCharacter))?;
        Ok(Hosts { text, ends: self.ends })
    }

    /// Slurm's order for several brackets: the last one varies fastest, then the first, the second …
    fn push_element(&mut self, element: &Element) -> Result<(), HostlistError> {
        let Some((last, outer)) = element.brackets.split_last() else {
            self.text.extend_from_slice(element.texts[0].as_bytes());
            return self.end_name(element.column);
        };
        let suffix = element.texts[outer.len() + 1].as_bytes();
        let mut counters: Vec<Counter> = outer.iter().map(|ranges| Counter::new(ranges)).collect();
        let mut prefix = Vec::new();
        loop {
            prefix.clear();
            for (text, counter) in element.texts.iter().zip(&counters) {
                prefix.extend_from_slice(text.as_bytes());
                push_number(&mut prefix, counter.value, counter.width());
            }
            prefix.extend_from_slice(element.texts[outer.len()].as_bytes());
            for range in last {
                self.push_range(&prefix, *range, suffix, element.column)?;
            }
            if !counters.iter_mut().any(Counter::advance) {
                return Ok(());
            }
        }
    }

    fn push_range(
        &mut self,
        prefix: &[u8],
        range: Range,
        suffix: &[u8],
        column: usize,
    ) -> Result<(), HostlistError> {
        let mut low = range.low;
        while low <= range.high {
            let width = digits(low).max(range.width);
            let widest = 10u64.pow(width as u32) - 1;
            let high = range.high.min(widest);
            self.push_run(prefix, Range { low, high, width }, suffix, column)?;
            low = high + 1;
        }
        Ok(())
    }

    /// Writes names of equal length, ten at a time: only the digits before the last one change
    /// from one ten to the next, which is what makes large lists cheap.
    fn push_run(
        &mut self,
        prefix: &[u8],
        run: Range,
        suffix: &[u8],
        column: usize,
    ) -> Result<(), HostlistError> {
        let length = prefix.len() + run.width + suffix.len();
        let start = self.text.len();
        let too_many = HostlistError { column, kind: HostlistErrorKind::TooManyBytes };
        let count = usize::try_from(run.high - run.low + 1).map_err(|_| too_many.clone())?;
        let end = count.checked_mul(length).and_then(|bytes| bytes.checked_add(start));
        if end.is_none_or(|end| end > MAX_EXPANDED_BYTES) {
            return Err(too_many);
        }
        let tens = prefix.len()..prefix.len() + run.width - 1;
        let mut ten = Vec::with_capacity(10 * length);
        for digit in 0..10 {
            ten.extend_from_slice(prefix);
            push_number(&mut ten, run.low / 10 * 10 + digit, run.width);
            ten.extend_from_slice(suffix);
        }
        let mut first = (run.low % 10) as usize;
        let mut left = count;
        loop {
            let taken = left.min(10 - first);
            self.text.extend_from_slice(&ten[first * length..(first + taken) * length]);
            left -= taken;
            if left == 0 {
                break;
            }
            first = 0;
            for name in ten.chunks_exact_mut(length) {
                count_up(&mut name[tens.clone()]);
            }
        }
        // MAX_EXPANDED_BYTES fits u32, so the cast keeps the value.
        self.ends.extend((1..=count).map(|index| (start + index * length) as u32));
        Ok(())
    }

    fn end_name(&mut self, column: usize) -> Result<(), HostlistError> {
        let end = self.text.len();
        if end > MAX_EXPANDED_BYTES {
            return Err(HostlistError { column, kind: HostlistErrorKind::TooManyBytes });
        }
        // MAX_EXPANDED_BYTES fits u32, so the cast keeps the value.
        self.ends.push(end as u32);
        Ok(())
    }
}

/// Adds one to a number in ASCII digits that is not all nines.
fn count_up(digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        if *digit < b'9' {
            *digit += 1;
            return;
        }
        *digit = b'0';
    }
}

fn push_number(out: &mut Vec<u8>, number: u64, width: usize) {
    let digits = format!("{number:0width$}");
    out.extend_from_slice(digits.as_bytes());
}

/// Steps through the numbers of one pair of brackets and starts over at the end.
struct Counter<'a> {
    ranges: &'a [Range],
    index: usize,
    value: u64,
}

impl<'a> Counter<'a> {
    fn new(ranges: &'a [Range]) -> Self {
        Self { ranges, index: 0, value: ranges[0].low }
    }

    fn width(&self) -> usize {
        self.ranges[self.index].width
    }

    /// False when it wrapped round.
    fn advance(&mut self) -> bool {
        if self.value < self.ranges[self.index].high {
            self.value += 1;
            return true;
        }
        self.index = (self.index + 1) % self.ranges.len();
        self.value = self.ranges[self.index].low;
        self.index != 0
    }
}

/// Writes host names as Slurm's hostlist: neighbours that count up are joined, order and
/// duplicates stay, so that `expand(&compress(names))` gives the names back.
///
/// The names are taken as they are: one with a comma, a blank or a bracket is no host name, and
/// will not come back.
#[must_use]
pub fn compress<S: AsRef<str>>(names: &[S]) -> String {
    let mut groups: Vec<Group> = Vec::new();
    for name in names {
        let (prefix, number) = split_number(name.as_ref());
        let joined =
            groups.last_mut().is_some_and(|group| group.prefix == prefix && group.push(number));
        if !joined {
            groups.push(Group::new(prefix, number));
        }
    }
    let mut out = String::new();
    for group in &groups {
        if !out.is_empty() {
            out.push(',');
        }
        group.write(&mut out);
    }
    out
}

/// Splits off the trailing digits that a range can count with.
fn split_number(name: &str) -> (&str, Option<(u64, usize)>) {
    let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (prefix, number) = name.split_at(name.len() - digits);
    match number.parse() {
        Ok(value) if digits <= MAX_DIGITS => (prefix, Some((value, digits))),
        _ => (name, None),
    }
}

/// Adjacent names with one prefix; without ranges, a name that has no number.
struct Group<'a> {
    prefix: &'a str,
    ranges: Vec<Range>,
}

impl<'a> Group<'a> {
    fn new(prefix: &'a str, number: Option<(u64, usize)>) -> Self {
        let ranges = number
            .map(|(value, width)| Range { low: value, high: value, width })
            .into_iter()
            .collect();
        Self { prefix, ranges }
    }

    /// False when the name cannot be written inside this group's brackets.
    fn push(&mut self, number: Option<(u64, usize)>) -> bool {
        let (Some((value, width)), Some(last)) = (number, self.ranges.last_mut()) else {
            return false;
        };
        // A range prints every number with at least the width of its first one.
        if value == last.high + 1 && width == digits(value).max(last.width) {
            last.high = value;
        } else {
            self.ranges.push(Range { low: value, high: value, width });
        }
        true
    }

    fn write(&self, out: &mut String) {
        out.push_str(self.prefix);
        match self.ranges.as_slice() {
            [] => {}
            [range] if range.low == range.high => out.push_str(&RangeText(*range).to_string()),
            ranges => {
                let ranges: Vec<String> =
                    ranges.iter().map(|range| RangeText(*range).to_string()).collect();
                out.push('[');
                out.push_str(&ranges.join(","));
                out.push(']');
            }
        }
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

struct RangeText(Range);

impl fmt::Display for RangeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { low, high, width } = self.0;
        write!(f, "{low:0width$}")?;
        if high > low {
            write!(f, "-{high:0width$}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(text: &str) -> Vec<String> {
        expand(text).unwrap()
    }

    fn error_of(text: &str) -> String {
        expand(text).unwrap_err().to_string()
    }

    #[test]
    fn the_last_bracket_varies_fastest_then_the_first() {
        assert_eq!(
            names("a[1-2]b[3-4]c[5-6]"),
            ["a1b3c5", "a1b3c6", "a2b3c5", "a2b3c6", "a1b4c5", "a1b4c6", "a2b4c5", "a2b4c6"]
        );
    }

    #[test]
    fn text_after_the_brackets_stays() {
        assert_eq!(
            names("n[1-2]-ib,r[1-2].example.org"),
            ["n1-ib", "n2-ib", "r1.example.org", "r2.example.org"]
        );
    }

    #[test]
    fn a_range_keeps_the_width_of_its_start() {
        assert_eq!(names("n[9-11],n[09-11]"), ["n9", "n10", "n11", "n09", "n10", "n11"]);
        assert_eq!(names("n[098-101]"), ["n098", "n099", "n100", "n101"]);
        assert_eq!(names("n[99-101]-x"), ["n99-x", "n100-x", "n101-x"]);
    }

    #[test]
    fn an_empty_list_has_no_hosts() {
        assert_eq!(names(""), Vec::<String>::new());
        assert_eq!(names(" ,,\n"), Vec::<String>::new());
        assert_eq!(compress::<&str>(&[]), "");
    }

    #[test]
    fn every_fault_names_its_column() {
        assert_eq!(
            error_of("a,n[1-2"),
            "hostlist, column 4: `[` is never closed; write a range as `[1-3,7]`"
        );
        assert_eq!(
            error_of("n1]"),
            "hostlist, column 3: `]` without `[`; write a range as `[1-3,7]`"
        );
        assert_eq!(
            error_of("n[[1]]"),
            "hostlist, column 3: `[` within brackets; write several dimensions side by side, as `r[1-2]c[1-3]`"
        );
        assert_eq!(
            error_of("n[]"),
            "hostlist, column 3: a number belongs here; write a range as `[1-3,7]`"
        );
        assert_eq!(
            error_of("n[3-]"),
            "hostlist, column 5: a number belongs here; write a range as `[1-3,7]`"
        );
        assert_eq!(
            error_of("n[1, 2]"),
            "hostlist, column 5: a number belongs here; write a range as `[1-3,7]`"
        );
        assert_eq!(
            error_of("n[2,3-1]"),
            "hostlist, column 5: the range ends at 1, before its start 3"
        );
        assert_eq!(
            error_of("n[1234567890123456789]"),
            "hostlist, column 3: the number has more than 18 digits"
        );
        assert_eq!(error_of("n\u{1}"), "hostlist, column 2: a control character in a host name");
    }

    #[test]
    fn a_hostile_range_is_refused_before_memory_is_taken() {
        for text in [
            "n[0-999999999999999999]",
            "a[1-300]b[1-300]",
            "x,n[1-65536]",
            "a[0-999999999999999999]b[0-999999999999999999]c[0-999999999999999999]",
        ] {
            assert!(error_of(text).ends_with("at most 65536 are allowed"), "{text}");
        }
        assert_eq!(count("n[1-65536]"), Ok(65_536));
        assert!(expand_limited("n[1-3]", 2).is_err());
        assert_eq!(expand_limited("n[1-3]", 3).unwrap().len(), 3);
    }

    #[test]
    fn long_names_are_bounded_in_sum() {
        let text = format!("{}[1-60000]", "x".repeat(1000));
        assert!(matches!(
            expand(&text),
            Err(HostlistError { kind: HostlistErrorKind::TooManyBytes, .. })
        ));
        let too_long = "n,".repeat(MAX_BYTES);
        assert!(matches!(
            expand(&too_long),
            Err(HostlistError { kind: HostlistErrorKind::TooLong { .. }, .. })
        ));
    }

    #[test]
    fn compression_keeps_order_widths_and_duplicates() {
        for (names, list) in [
            ("n1,n2,n3,n7", "n[1-3,7]"),
            ("n3,n2,n1", "n[3,2,1]"),
            ("n1,n2,n2,n3", "n[1-2,2-3]"),
            ("n9,n10,n011", "n[9-10,011]"),
            ("n098,n99,n100", "n[098,99-100]"),
            ("n0,n00,n000", "n[0,00,000]"),
            ("n1,n2,m1,n3", "n[1-2],m1,n3"),
            ("r1c1,r1c2,r2c1", "r1c[1-2],r2c1"),
            ("a,a,n,n1", "a,a,n,n1"),
            ("1,2", "[1-2]"),
            ("n1-ib,n2-ib", "n1-ib,n2-ib"),
            (
                "n9999999999999999999,n10000000000000000000",
                "n9999999999999999999,n10000000000000000000",
            ),
        ] {
            let names: Vec<&str> = names.split(',').collect();
            assert_eq!(compress(&names), list);
        }
    }

    #[test]
    fn hosts_are_read_by_index_and_in_order() {
        let hosts = Hosts::expand("n[8-10],x", 10).unwrap();
        assert_eq!(hosts.iter().collect::<Vec<_>>(), ["n8", "n9", "n10", "x"]);
        assert_eq!((hosts.len(), hosts.get(2), hosts.get(4)), (4, Some("n10"), None));
    }

    /// Names close to each other, so that ranges, widths and duplicates meet.
    fn host_name() -> impl Strategy<Value = String> {
        prop_oneof![
            "(n|r1c|rack-|é)[0-9]{1,4}",
            "[a-z]{1,3}[0-9]{0,22}(-ib)?",
            (0u32..30, 1usize..4).prop_map(|(n, width)| format!("n{n:0width$}")),
        ]
    }

    proptest! {
        #[test]
        fn what_is_compressed_comes_back(names in prop::collection::vec(host_name(), 0..80)) {
            prop_assert_eq!(expand(&compress(&names)).unwrap(), names);
        }

        #[test]
        fn no_text_panics_and_the_count_is_the_length(text in "[an019,\\[\\] -]{0,40}|\\PC{0,40}") {
            if let Ok(names) = expand(&text) {
                prop_assert_eq!(count(&text).unwrap(), names.len());
                prop_assert_eq!(expand(&compress(&names)).unwrap(), names);
            } else {
                prop_assert!(count(&text).is_err());
            }
        }
    }
}
