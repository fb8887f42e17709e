// SPDX-License-Identifier: Apache-2.0
//! Hostlists: the notation in which Slurm writes sets of nodes (`node[1-3,7]`, `r[1-2]c[01-03]`).
//!
//! Expansion and compression give what `scontrol show hostnames` and `scontrol show hostlist` print
//! (compared with the installed one in `tests/hostlist_conformance.rs`), under limits, and with the
//! byte column of an error. Three things differ, each on purpose:
//! - text after the last bracket (`n[1-2]-ib`) is read, as Slurm does since 23.11;
//! - what older releases mangle is an error here: an unclosed `[` (they print `n]` for `n[1`), a
//!   stray `]`, an open range (`n[3-]`), a sign or a blank inside brackets;
//! - numbers of more than [`MAX_DIGITS`] digits are never wrapped: an error in brackets, and
//!   otherwise part of the name.

use std::borrow::Cow;
use std::fmt;

/// How many hosts a list may name.
pub const MAX_HOSTS: usize = 65_536;

/// How many bytes all names of a list may take together: Linux allows 64 for a host name.
pub const MAX_BYTES: usize = MAX_HOSTS * 64;

/// How long a list may be, in bytes: [`compress`] adds at most a comma to each name, and a pair of
/// brackets to two.
const MAX_TEXT: usize = MAX_BYTES + 2 * MAX_HOSTS;

/// How many digits a number in a host name may have to be counted with.
pub const MAX_DIGITS: usize = 18;

/// How many pairs of brackets one element may have.
const MAX_BRACKETS: usize = 64;

const NOT_A_NUMBER: &str = "expected a number: write a range as `[1-3,7]`";

/// What is wrong with a hostlist, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("hostlist, column {column}: {problem}")]
pub struct HostlistError {
    /// Byte column of the error, counted from 1.
    column: usize,
    problem: String,
}

fn error(at: usize, problem: impl Into<String>) -> HostlistError {
    HostlistError { column: at + 1, problem: problem.into() }
}

fn too_many_hosts(at: usize) -> HostlistError {
    error(at, format!("too many hosts: at most {MAX_HOSTS} are allowed"))
}

fn too_many_bytes(at: usize) -> HostlistError {
    error(at, format!("names too long: all together may take {MAX_BYTES} bytes"))
}

/// A numeric range, both ends included, printed with at least `width` digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    low: u64,
    high: u64,
    width: usize,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high, width } = self;
        write!(f, "{low:0width$}")?;
        if high > low { write!(f, "-{high:0width$}") } else { Ok(()) }
    }
}

/// Expanded host names in one block of memory, without an allocation for each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts {
    text: String,
    ends: Vec<u32>,
}

impl Hosts {
    /// Expands a hostlist, in Slurm's order and with its duplicates.
    ///
    /// # Errors
    /// [`HostlistError`]: the text is not a hostlist, or over a limit.
    pub fn expand(text: &str) -> Result<Self, HostlistError> {
        if text.len() > MAX_TEXT {
            return Err(error(MAX_TEXT, format!("list longer than {MAX_TEXT} bytes")));
        }
        let mut builder = Builder::default();
        let mut at = 0;
        while let Some(byte) = text.as_bytes().get(at) {
            at = if is_separator(*byte) { at + 1 } else { builder.push(&element(text, at)?)? };
        }
        let text = String::from_utf8(builder.text).map_err(|_| error(0, "not UTF-8"))?;
        Ok(Self { text, ends: builder.ends })
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + '_ {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.text[start as usize..*end as usize])
    }
}

/// Expands a hostlist, in Slurm's order and with its duplicates. An empty list gives no names.
///
/// # Errors
/// As [`Hosts::expand`].
pub fn expand(text: &str) -> Result<Vec<String>, HostlistError> {
    Ok(Hosts::expand(text)?.iter().map(str::to_owned).collect())
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b',' | b' ' | b'\t' | b'\n')
}

/// One comma-separated element: `texts[0] brackets[0] texts[1] brackets[1] … texts[n]`.
#[derive(Debug)]
struct Element<'a> {
    start: usize,
    end: usize,
    texts: Vec<&'a str>,
    brackets: Vec<Vec<Range>>,
}

fn element(text: &str, start: usize) -> Result<Element<'_>, HostlistError> {
    let bytes = text.as_bytes();
    let (mut texts, mut brackets) = (Vec::new(), Vec::new());
    let mut text_start = start;
    let mut at = start;
    while at < bytes.len() && !is_separator(bytes[at]) {
        match bytes[at] {
            b'[' if brackets.len() == MAX_BRACKETS => {
                return Err(error(at, format!("more than {MAX_BRACKETS} brackets in one name")));
            }
            b'[' => {
                texts.push(&text[text_start..at]);
                let (ranges, next) = ranges(bytes, at)?;
                brackets.push(ranges);
                (at, text_start) = (next, next);
            }
            b']' => return Err(error(at, "`]` without `[`: write a range as `[1-3,7]`")),
            byte if byte.is_ascii_control() => {
                return Err(error(at, "control character in a host name"));
            }
            _ => at += 1,
        }
    }
    texts.push(&text[text_start..at]);
    Ok(Element { start, end: at, texts, brackets })
}

/// Reads `[…]` from its opening bracket; returns the ranges and the position after `]`.
fn ranges(bytes: &[u8], open: usize) -> Result<(Vec<Range>, usize), HostlistError> {
    let mut ranges = Vec::new();
    let mut at = open + 1;
    loop {
        let start = at;
        let low = number(bytes, &mut at, open)?;
        let width = at - start;
        let high = if bytes.get(at) == Some(&b'-') {
            at += 1;
            number(bytes, &mut at, open)?
        } else {
            low
        };
        if high < low {
            return Err(error(start, format!("range ends at {high}, before its start {low}")));
        }
        if ranges.len() == MAX_HOSTS {
            return Err(too_many_hosts(start));
        }
        ranges.push(Range { low, high, width });
        match bytes.get(at) {
            Some(b',') => at += 1,
            Some(b']') => return Ok((ranges, at + 1)),
            _ => return Err(not_a_number(bytes, at, open)),
        }
    }
}

fn number(bytes: &[u8], at: &mut usize, open: usize) -> Result<u64, HostlistError> {
    let start = *at;
    let mut number = 0u64;
    while let Some(digit) = bytes.get(*at).filter(|byte| byte.is_ascii_digit()) {
        if *at - start == MAX_DIGITS {
            return Err(error(start, format!("number with more than {MAX_DIGITS} digits")));
        }
        number = number * 10 + u64::from(digit - b'0');
        *at += 1;
    }
    if *at == start { Err(not_a_number(bytes, start, open)) } else { Ok(number) }
}

fn not_a_number(bytes: &[u8], at: usize, open: usize) -> HostlistError {
    match bytes.get(at) {
        None => error(open, "`[` without `]`: write a range as `[1-3,7]`"),
        Some(b'[') => error(at, "`[` within brackets: write dimensions as `r[1-2]c[1-3]`"),
        Some(_) => error(at, NOT_A_NUMBER),
    }
}

/// Collects the names of an expansion.
#[derive(Default)]
struct Builder {
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Builder {
    /// Adds an element's names; returns the position after it. Slurm's order for several brackets:
    /// the last one varies fastest, then the first, the second …
    fn push(&mut self, element: &Element) -> Result<usize, HostlistError> {
        let count = |ranges: &Vec<Range>| {
            ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.high - range.low + 1))
        };
        let count = element.brackets.iter().map(count).fold(1, u64::saturating_mul);
        if count > (MAX_HOSTS - self.ends.len()) as u64 {
            return Err(too_many_hosts(element.start));
        }
        let Some((last, outer)) = element.brackets.split_last() else {
            self.text.extend_from_slice(element.texts[0].as_bytes());
            if self.text.len() > MAX_BYTES {
                return Err(too_many_bytes(element.start));
            }
            // MAX_BYTES fits u32, so the cast keeps the value.
            self.ends.push(self.text.len() as u32);
            return Ok(element.end);
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
                self.push_range(&prefix, *range, suffix, element.start)?;
            }
            if !counters.iter_mut().any(Counter::advance) {
                return Ok(element.end);
            }
        }
    }

    fn push_range(
        &mut self,
        prefix: &[u8],
        range: Range,
        suffix: &[u8],
        at: usize,
    ) -> Result<(), HostlistError> {
        let mut low = range.low;
        while low <= range.high {
            let width = digits(low).max(range.width);
            let widest = 10u64.pow(width as u32) - 1;
            let high = range.high.min(widest);
            self.push_run(prefix, Range { low, high, width }, suffix, at)?;
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
        at: usize,
    ) -> Result<(), HostlistError> {
        let length = prefix.len() + run.width + suffix.len();
        let start = self.text.len();
        // No more than MAX_HOSTS, as `push` has checked.
        let count = (run.high - run.low + 1) as usize;
        if start + count * length > MAX_BYTES {
            return Err(too_many_bytes(at));
        }
        self.text.reserve(count * length);
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
        // MAX_BYTES fits u32, so the cast keeps the value.
        self.ends.extend((1..=count).map(|index| (start + index * length) as u32));
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

fn push_number(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let start = out.len();
    out.resize(start + width.max(digits(number)), b'0');
    for digit in out[start..].iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
}

fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
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
/// duplicates stay. Within the limits of [`expand`], `expand(&compress(names))` gives the names
/// back.
///
/// What [`expand`] refuses is never written: a character that no host name has (a comma, a blank, a
/// bracket, a control character) becomes `?`, and so does an empty name.
#[must_use]
pub fn compress<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<Cow<str>> = names.iter().map(|name| host_name(name.as_ref())).collect();
    // Adjacent names with one prefix; without ranges, a name that has no number.
    let mut groups: Vec<(&str, Vec<Range>)> = Vec::new();
    for name in &names {
        let (prefix, number) = split_number(name);
        let group = groups.last_mut().filter(|group| group.0 == prefix);
        match (number, group.and_then(|group| Some((group.1.last().copied()?, &mut group.1)))) {
            // A range prints every number with at least the width of its first one.
            (Some(number), Some((last, ranges)))
                if number.low == last.high + 1
                    && number.width == digits(number.low).max(last.width) =>
            {
                ranges.pop();
                ranges.push(Range { high: number.low, ..last });
            }
            (Some(number), Some((_, ranges))) => ranges.push(number),
            (number, _) => groups.push((prefix, number.into_iter().collect())),
        }
    }
    let text = |(prefix, ranges): &(&str, Vec<Range>)| {
        let numbers: Vec<String> = ranges.iter().map(Range::to_string).collect();
        match ranges.as_slice() {
            [] => (*prefix).to_owned(),
            [range] if range.low == range.high => format!("{prefix}{}", numbers[0]),
            _ => format!("{prefix}[{}]", numbers.join(",")),
        }
    };
    groups.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The name with `?` for what no host name has.
fn host_name(name: &str) -> Cow<'_, str> {
    let is_bad = |c: char| matches!(c, ',' | ' ' | '[' | ']') || c.is_ascii_control();
    match name {
        "" => Cow::Borrowed("?"),
        // Bytes are faster, and all of these characters are one.
        _ if name.bytes().any(|byte| is_bad(byte.into())) => Cow::Owned(name.replace(is_bad, "?")),
        _ => Cow::Borrowed(name),
    }
}

/// Splits off the trailing digits that a range can count with.
fn split_number(name: &str) -> (&str, Option<Range>) {
    let width = name.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (prefix, number) = name.split_at(name.len() - width);
    match number.parse() {
        Ok(low) if width <= MAX_DIGITS => (prefix, Some(Range { low, high: low, width })),
        _ => (name, None),
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
    fn every_error_names_its_column() {
        for (text, expected) in [
            ("a,n[1-2", "4: `[` without `]`: write a range as `[1-3,7]`"),
            ("n1]", "3: `]` without `[`: write a range as `[1-3,7]`"),
            ("n[[1]]", "3: `[` within brackets: write dimensions as `r[1-2]c[1-3]`"),
            ("n[]", "3: expected a number: write a range as `[1-3,7]`"),
            ("n[3-]", "5: expected a number: write a range as `[1-3,7]`"),
            ("n[1, 2]", "5: expected a number: write a range as `[1-3,7]`"),
            ("n[2,3-1]", "5: range ends at 1, before its start 3"),
            ("n[1234567890123456789]", "3: number with more than 18 digits"),
            ("n\u{1}", "2: control character in a host name"),
        ] {
            assert_eq!(error_of(text), format!("hostlist, column {expected}"), "{text}");
        }
    }

    #[test]
    fn a_hostile_range_is_refused_before_memory_is_taken() {
        for text in [
            "n[0-999999999999999999]",
            "a[1-300]b[1-300]",
            "x,n[1-65536]",
            "a[0-999999999999999999]b[0-999999999999999999]c[0-999999999999999999]",
            &"n,".repeat(MAX_HOSTS + 1),
            &format!("n[1{}]", ",1".repeat(MAX_HOSTS)),
        ] {
            assert!(error_of(text).ends_with("at most 65536 are allowed"), "{text}");
        }
        assert_eq!(names("n[1-65536]").len(), MAX_HOSTS);
        assert!(expand(&"[1]".repeat(MAX_BRACKETS)).is_ok());
        assert!(error_of(&"[1]".repeat(MAX_BRACKETS + 1)).ends_with("64 brackets in one name"));
    }

    #[test]
    fn long_names_are_bounded_in_sum() {
        for text in [format!("{}[1-60000]", "x".repeat(1000)), "x".repeat(MAX_BYTES + 1)] {
            assert!(error_of(&text).ends_with("may take 4194304 bytes"));
        }
        assert!(error_of(&"x".repeat(MAX_TEXT + 1)).contains("list longer than"));
    }

    #[test]
    fn many_names_with_one_suffix_come_back() {
        let list = "[0-9][0-4330]llllllllllllllllllllllllllllllllllllllllllllllllllllllllllll{";
        let names = names(list);
        assert_eq!(expand(&compress(&names)).unwrap(), names);
    }

    #[test]
    fn characters_that_no_host_name_has_are_replaced() {
        let names = ["a,b", "", "n 1", "n[2]", "c\u{7f}", "n3"];
        assert_eq!(compress(&names), "a?b,?,n?1,n?2?,c?,n3");
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
        fn any_names_give_a_list_of_as_many(names in prop::collection::vec("\\PC{0,9}|[a\\[\\], \t\n\0-9]{0,25}", 0..20)) {
            prop_assert_eq!(expand(&compress(&names)).unwrap().len(), names.len());
        }

        #[test]
        fn what_is_expanded_comes_back(text in "[an019,\\[\\] -]{0,40}|\\PC{0,40}") {
            if let Ok(names) = expand(&text) {
                prop_assert_eq!(expand(&compress(&names)).unwrap(), names);
            }
        }
    }
}
