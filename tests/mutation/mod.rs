// SPDX-License-Identifier: Apache-2.0
//! Inputs that were good once: random text is refused at its first byte, a mutated input gets as far
//! as the rules behind the parser.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// One change of a text.
#[derive(Clone, Debug)]
enum Edit {
    /// Takes so many bytes out.
    Delete(Index, usize),
    /// Repeats so many bytes somewhere else.
    Copy(Index, usize, Index),
    /// Puts a word in.
    Word(Index, &'static str),
    /// Replaces a byte.
    Byte(Index, u8),
    /// Exchanges two lines.
    Lines(Index, Index),
    /// Ends the text.
    Cut(Index),
}

impl Edit {
    fn apply(&self, text: &mut Vec<u8>) {
        let at = |index: &Index, text: &[u8]| index.index(text.len() + 1);
        let range = |index: &Index, length: usize, text: &[u8]| {
            let start = at(index, text);
            start..(start + length).min(text.len())
        };
        match self {
            Self::Delete(start, length) => drop(text.drain(range(start, *length, text))),
            Self::Copy(start, length, to) => {
                let copied = text[range(start, *length, text)].to_vec();
                let to = at(to, text);
                text.splice(to..to, copied);
            }
            Self::Word(to, word) => {
                let to = at(to, text);
                text.splice(to..to, word.bytes());
            }
            Self::Byte(index, byte) if !text.is_empty() => {
                let place = index.index(text.len());
                text[place] = *byte;
            }
            Self::Byte(..) => {}
            Self::Lines(one, other) => {
                let mut lines: Vec<Vec<u8>> =
                    text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
                let (one, other) = (one.index(lines.len()), other.index(lines.len()));
                lines.swap(one, other);
                *text = lines.join(&b'\n');
            }
            Self::Cut(place) => text.truncate(at(place, text)),
        }
    }
}

fn edit(words: &'static [&'static str]) -> impl Strategy<Value = Edit> {
    let place = any::<Index>;
    prop_oneof![
        3 => (place(), 1usize..20).prop_map(|(at, length)| Edit::Delete(at, length)),
        2 => (place(), 1usize..60, place()).prop_map(|(at, length, to)| Edit::Copy(at, length, to)),
        4 => (place(), select(words)).prop_map(|(at, word)| Edit::Word(at, word)),
        3 => (place(), prop_oneof![4 => b' '..=b'~', 1 => any::<u8>()])
            .prop_map(|(at, byte)| Edit::Byte(at, byte)),
        1 => (place(), place()).prop_map(|(one, other)| Edit::Lines(one, other)),
        1 => place().prop_map(Edit::Cut),
    ]
}

/// One of the seeds after a few changes; `words` are what the format is made of.
pub fn mutated(
    seeds: Vec<String>,
    words: &'static [&'static str],
) -> impl Strategy<Value = String> {
    (select(seeds), vec(edit(words), 1..4)).prop_map(|(seed, edits)| {
        let mut text = seed.into_bytes();
        edits.iter().for_each(|edit| edit.apply(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    })
}
