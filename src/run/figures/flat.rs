// SPDX-License-Identifier: Apache-2.0
//! JSON and CSV as flat names and single values: `{"a": {"b": 1}}` is `a.b` = 1. Lists are skipped
//! while they are read: clients write one for each request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The values of a file or of a part of it, by name.
pub type Flat = BTreeMap<String, Scalar>;

/// The most values that are taken from one object.
const MAX_VALUES: usize = 10_000;

/// The longest name that is taken.
const MAX_NAME: usize = 256;

/// A single value.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// A number; a truth is 0 or 1.
    Number(f64),
    /// A text.
    Text(String),
}

impl Scalar {
    /// The finite number that it is, or that its text is.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        let number = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
        };
        number.filter(|number| number.is_finite())
    }
}

/// Reads a JSON object, as Python writes it: `NaN` and `Infinity` are no values.
///
/// # Errors
/// It is not JSON.
pub fn object(bytes: &[u8]) -> io::Result<Flat> {
    let bytes = without_nan(bytes);
    let mut flat = Flat::new();
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    Take { flat: &mut flat, name: String::new() }.deserialize(&mut json)?;
    json.end()?;
    Ok(flat)
}

/// Reads the rows of a CSV table, by the names in its heading.
///
/// # Errors
/// It is not UTF-8, or its rows differ in length.
pub fn rows(bytes: &[u8]) -> io::Result<Vec<Flat>> {
    let mut table = csv::Reader::from_reader(bytes);
    let row = |row: csv::Result<BTreeMap<String, String>>| {
        let cells = row.map_err(io::Error::other)?.into_iter();
        Ok(cells.map(|(name, cell)| (name, Scalar::Text(cell))).collect())
    };
    table.deserialize().map(row).collect()
}

/// Replaces what Python writes and JSON does not have, outside of texts.
fn without_nan(bytes: &[u8]) -> Cow<'_, [u8]> {
    let has = |token: &[u8]| bytes.windows(token.len()).any(|window| window == token);
    if !has(b"NaN") && !has(b"Infinity") {
        return Cow::Borrowed(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    let mut in_text = false;
    while let Some(&byte) = rest.first() {
        let token = ["-Infinity", "Infinity", "NaN"].into_iter();
        let mut token = token.filter(|token| !in_text && rest.starts_with(token.as_bytes()));
        if let Some(token) = token.next() {
            out.extend_from_slice(b"null");
            rest = &rest[token.len()..];
            continue;
        }
        let length = if in_text && byte == b'\\' { 2.min(rest.len()) } else { 1 };
        in_text ^= byte == b'"';
        out.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
    }
    Cow::Owned(out)
}

/// Takes the single values of whatever comes into a flat map.
struct Take<'f> {
    flat: &'f mut Flat,
    name: String,
}

impl Take<'_> {
    fn keep(self, value: Scalar) {
        if self.flat.len() < MAX_VALUES {
            self.flat.insert(self.name, value);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Take<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Take<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let name = match self.name.as_str() {
                "" => key,
                above => format!("{above}.{key}"),
            };
            match name.len() <= MAX_NAME {
                true => map.next_value_seed(Take { flat: &mut *self.flat, name })?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.keep(Scalar::Number(value.into()));
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.keep(Scalar::Number(value as f64));
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.keep(Scalar::Number(value as f64));
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.keep(Scalar::Number(value));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.keep(Scalar::Text(value.to_owned()));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}
