// SPDX-License-Identifier: Apache-2.0
//! What a terminal takes: colours, each with one meaning, and text cut to its columns.

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A terminal, or what is written to instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Its columns.
    pub columns: usize,
    /// Its lines.
    pub lines: usize,
    /// Whether it shows colours.
    pub has_colours: bool,
}

/// What a colour means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Ready, or passed: green.
    Good,
    /// Failed: red.
    Bad,
    /// Not there yet: yellow.
    Waiting,
    /// Beside the point, or over: dim.
    Quiet,
}

impl Meaning {
    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Waiting => AnsiColor::Yellow.on_default(),
            Self::Quiet => Style::new().dimmed(),
        }
    }
}

/// A text in the colour of its meaning, where there is one and the terminal takes colours.
#[must_use]
pub fn paint(text: &str, meaning: Option<Meaning>, has_colours: bool) -> String {
    match meaning.filter(|_| has_colours) {
        Some(meaning) => {
            let style = meaning.style();
            format!("{style}{text}{style:#}")
        }
        None => text.to_owned(),
    }
}

/// How many columns a text takes.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// As much of a text as fits into some columns; `…` marks what is cut off.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    let mut left = columns.saturating_sub(1);
    for c in text.chars() {
        let wide = c.width().unwrap_or_default();
        if wide > left {
            break;
        }
        left -= wide;
        cut.push(c);
    }
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// A text with spaces up to some columns.
#[must_use]
pub fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_by_columns_not_characters() {
        for (text, columns, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("模型加载", 5, "模型…"),
            ("模型加载", 4, "模…"),
            ("ab", 1, "…"),
            ("ab", 0, ""),
        ] {
            assert_eq!(cut(text, columns), expected);
            assert!(width(&cut(text, columns)) <= columns);
        }
        assert_eq!(pad("模", 4), "模  ");
    }

    #[test]
    fn a_meaning_is_painted_only_where_there_are_colours() {
        assert_eq!(paint("x", Some(Meaning::Good), true), "\u{1b}[32mx\u{1b}[0m");
        assert_eq!(paint("x", Some(Meaning::Good), false), "x");
        assert_eq!(paint("x", None, true), "x");
    }
}
