// SPDX-License-Identifier: Apache-2.0
//! What a plain YAML scalar means, and where YAML 1.1 and 1.2 disagree about it.
//!
//! The tests read their configurations with PyYAML (YAML 1.1). A value that YAML 1.2 reads
//! otherwise is a trap for people and tools alike, so a field that is used refuses it.
//! Sources: YAML 1.1 type repository (int, float, bool), YAML 1.2.2 section 10.3 (core schema).

/// The meaning of a plain scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar {
    /// Nothing, `~`, `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A number with a point or an exponent.
    Float(f64),
    /// Anything else.
    Text,
    /// YAML 1.1 and 1.2 read it differently; how each does, in words.
    Ambiguous {
        /// What YAML 1.1 (PyYAML) reads.
        yaml11: Reading,
        /// What YAML 1.2 reads.
        yaml12: Reading,
    },
}

/// How one version of YAML reads an ambiguous scalar.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// As this number.
    Number(i128),
    /// As a number that is not whole, or too large.
    OtherNumber,
    /// As this truth value.
    Truth(bool),
    /// As text.
    Text,
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "the number {number}"),
            Self::OtherNumber => f.write_str("a number"),
            Self::Truth(value) => write!(f, "{value}"),
            Self::Text => f.write_str("text"),
        }
    }
}

/// Decides what a plain scalar means.
pub fn classify(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    let bytes = text.as_bytes();
    if bytes.iter().all(u8::is_ascii_digit)
        && bytes.len() < 19
        && (bytes[0] != b'0' || bytes.len() == 1)
    {
        return text.parse().map_or(Scalar::Text, Scalar::Int);
    }
    // Numbers begin with a digit, a sign or a point; the other words are yes, no, on and off.
    if !text.starts_with(|c: char| c.is_ascii_digit() || "+-.yYnNoO".contains(c)) {
        return Scalar::Text;
    }
    let (eleven, twelve) = (yaml11(text), yaml12(text));
    match (eleven, twelve) {
        (Reading::Text, Reading::Text) => Scalar::Text,
        (Reading::Number(a), Reading::Number(b)) if a == b => Scalar::Int(a),
        (Reading::OtherNumber, Reading::OtherNumber) => Scalar::Float(float(text)),
        _ => Scalar::Ambiguous { yaml11: eleven, yaml12: twelve },
    }
}

fn float(text: &str) -> f64 {
    text.replace('_', "").parse().unwrap_or(f64::NAN)
}

fn digits(text: &str, radix: u32) -> Option<i128> {
    let valid = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    valid.then(|| i128::from_str_radix(text, radix).unwrap_or(i128::MAX))
}

fn yaml12(text: &str) -> Reading {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1 } else { 1 };
    if let Some(number) = digits(unsigned, 10) {
        return Reading::Number(sign * number);
    }
    let based = [("0x", 16), ("0o", 8)].into_iter();
    for (prefix, radix) in based {
        if let Some(number) = text.strip_prefix(prefix).and_then(|rest| digits(rest, radix)) {
            return Reading::Number(number);
        }
    }
    if is_decimal(unsigned, false) || is_special(unsigned) {
        Reading::OtherNumber
    } else {
        Reading::Text
    }
}

fn yaml11(text: &str) -> Reading {
    match text.to_ascii_lowercase().as_str() {
        // YAML 1.1 also lists `y` and `n`; PyYAML reads these as text.
        "yes" | "on" if is_cased_word(text) => return Reading::Truth(true),
        "no" | "off" if is_cased_word(text) => return Reading::Truth(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let plain = unsigned.replace('_', "");
    let number = |value: Option<i128>| value.map(|value| Reading::Number(sign * value));
    let reading = if let Some(rest) = unsigned.strip_prefix("0b") {
        number(digits(&rest.replace('_', ""), 2))
    } else if let Some(rest) = unsigned.strip_prefix("0x") {
        number(digits(&rest.replace('_', ""), 16))
    } else if unsigned == "0" {
        Some(Reading::Number(0))
    } else if unsigned.starts_with('0') {
        number(digits(&plain, 8))
    } else if unsigned.starts_with(|c: char| c.is_ascii_digit()) {
        number(digits(&plain, 10))
            .or_else(|| sexagesimal(&plain).map(|v| Reading::Number(sign * v)))
    } else {
        None
    };
    reading.unwrap_or({
        if is_decimal(unsigned, true) || is_special(unsigned) || is_sexagesimal_float(unsigned) {
            Reading::OtherNumber
        } else {
            Reading::Text
        }
    })
}

/// `yes`, `Yes` or `YES`, but not `yEs`.
fn is_cased_word(text: &str) -> bool {
    let rest = &text[1..];
    rest.bytes().all(|b| b.is_ascii_lowercase()) || text.bytes().all(|b| b.is_ascii_uppercase())
}

/// `1:30`: digits in base 60, all but the first below 60.
fn sexagesimal(text: &str) -> Option<i128> {
    let mut parts = text.split(':');
    let mut value = digits(parts.next()?, 10)?;
    let mut several = false;
    for part in parts {
        let digit = digits(part, 10).filter(|digit| *digit < 60 && part.len() <= 2)?;
        value = value.checked_mul(60)?.checked_add(digit)?;
        several = true;
    }
    several.then_some(value)
}

fn is_sexagesimal_float(text: &str) -> bool {
    match text.split_once('.') {
        Some((whole, fraction)) => {
            text.starts_with(|c: char| c.is_ascii_digit())
                && sexagesimal(&whole.replace('_', "")).is_some()
                && fraction.bytes().all(|b| b.is_ascii_digit() || b == b'_')
        }
        None => false,
    }
}

fn is_special(text: &str) -> bool {
    matches!(text, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

/// A decimal number with a point or an exponent. PyYAML wants a point, a sign in the exponent,
/// and allows `_`; YAML 1.2 does not.
fn is_decimal(text: &str, yaml11: bool) -> bool {
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (yaml11 && b == b'_'));
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let has_digit = mantissa.bytes().any(|b| b.is_ascii_digit());
    let exponent_fits = match exponent {
        None => fraction.is_some(),
        Some(exponent) => {
            let unsigned = exponent.strip_prefix(['-', '+']);
            let signed_enough = !yaml11 || (unsigned.is_some() && fraction.is_some());
            let unsigned = unsigned.unwrap_or(exponent);
            signed_enough && !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit())
        }
    };
    let starts_well = !yaml11 || !whole.starts_with('_');
    has_digit
        && starts_well
        && is_digits(whole)
        && is_digits(fraction.unwrap_or(""))
        && exponent_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_both_versions_agree_on_are_numbers() {
        for (text, number) in [("8", 8), ("-3", -3), ("+4", 4), ("0", 0), ("0x10", 16)] {
            assert_eq!(classify(text), Scalar::Int(number), "{text}");
        }
        assert_eq!(classify("4.0"), Scalar::Float(4.0));
        assert_eq!(classify("1.5e+3"), Scalar::Float(1500.0));
    }

    #[test]
    fn numbers_that_the_versions_read_differently_are_ambiguous() {
        let expected = [
            ("010", Reading::Number(8), Reading::Number(10)),
            ("1:30", Reading::Number(90), Reading::Text),
            ("4:00:00", Reading::Number(14400), Reading::Text),
            ("1_6", Reading::Number(16), Reading::Text),
            ("0b11", Reading::Number(3), Reading::Text),
            ("0o20", Reading::Text, Reading::Number(16)),
            ("1e3", Reading::Text, Reading::OtherNumber),
            ("yes", Reading::Truth(true), Reading::Text),
            ("Off", Reading::Truth(false), Reading::Text),
            ("09", Reading::Text, Reading::Number(9)),
        ];
        for (text, yaml11, yaml12) in expected {
            assert_eq!(classify(text), Scalar::Ambiguous { yaml11, yaml12 }, "{text}");
        }
    }

    #[test]
    fn words_and_times_with_a_leading_zero_are_text() {
        for text in ["e2e", "02:00:00", "y", "yEs", "1,2,4", "<partition>", "1.2.3", "-", "._"] {
            assert_eq!(classify(text), Scalar::Text, "{text}");
        }
    }
}
