// SPDX-License-Identifier: Apache-2.0
//! Texts of profiles with placeholders: `{port:http}`, `{node_rank * (gpu_count ceil-div 2)}`.
//!
//! The language is small and total: names, whole numbers, `+ - * div ceil-div`, `min(…)`, `max(…)`. What
//! is not known when a plan is made stays a [slot](super::template::Slot). `$NAME` and `${NAME}` are
//! references to variables, `{{` and `}}` are braces, `$$` is a dollar sign.

use std::borrow::Cow;
use std::ops::Range;

use super::template::{Fact, Template, is_name};

/// The deepest nesting of an expression.
const MAX_DEPTH: usize = 16;
/// The largest number that a plan's expressions may have.
const MAX_NUMBER: i64 = 1 << 40;
const CEIL_DIV: &str = "ceil-div";
const DIV: &str = "div";
/// What is between the two numbers of a `div` that leaves something over.
pub const UNEVEN: &str = "cannot be divided by";

/// A text with placeholders, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Pattern {
    /// Without placeholders.
    Text(Template),
    /// One placeholder.
    Value(Expr),
    /// Several of both.
    Pieces(Vec<Pattern>),
}

/// A text, or a part of it; of one that is compiled in, without a copy.
type Text = Cow<'static, str>;

fn part(text: &Text, range: Range<usize>) -> Text {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[range]),
        Cow::Owned(text) => Cow::Owned(text[range].to_owned()),
    }
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A number.
    Number(i64),
    /// A name, and what is after its colon: `port:http`.
    Name(Text, Option<Text>),
    /// An operation.
    Operation(Operation, Box<Expr>, Box<Expr>),
}

/// What is done with two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// `+`
    Plus,
    /// `-`
    Minus,
    /// `*`
    Times,
    /// `ceil-div`: divided and rounded up.
    CeilDiv,
    /// `div`: divided, where nothing is left over.
    Div,
    /// `min(a, b)`
    Min,
    /// `max(a, b)`
    Max,
}

/// What an expression is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing: what it names is not there.
    Nothing,
    /// A number.
    Number(i64),
    /// A number that is not known yet.
    Later(Later),
    /// A text.
    Text(Template),
    /// Several texts.
    List(Vec<Template>),
}

/// A number that is not known yet, in the form of a slot: multiplied, then added to.
#[derive(Debug, Clone, PartialEq)]
pub struct Later {
    /// Which number.
    pub fact: Fact,
    /// The role and the port of the slot as it writes them: `:ROUTER.http`; empty without them.
    pub of: String,
    times: i64,
    plus: i64,
}

impl Later {
    /// A number as it is.
    pub fn new(fact: Fact, of: String) -> Self {
        Self { fact, of, times: 1, plus: 0 }
    }

    fn template(&self) -> Result<Template, String> {
        let Self { fact, of, times, plus } = self;
        let mut text = format!("${{.{}{of}", fact.written());
        match (u32::try_from(*times), i32::try_from(*plus)) {
            (Ok(times), Ok(plus)) => {
                if times != 1 {
                    text += &format!("*{times}");
                }
                if plus != 0 {
                    text += &format!("{plus:+}");
                }
                Ok(Template::from_written(text + "}"))
            }
            _ => Err("the numbers in it are too large".to_owned()),
        }
    }
}

impl Value {
    /// As one text; a list is joined by commas.
    ///
    /// # Errors
    /// It has no value.
    pub fn text(&self) -> Result<Template, String> {
        Ok(match self {
            Self::Nothing => return Err("it has no value here".to_owned()),
            Self::Number(number) => Template::literal(&number.to_string()),
            Self::Later(later) => later.template()?,
            Self::Text(text) => text.clone(),
            Self::List(items) => {
                let mut joined = Template::default();
                for (at, item) in items.iter().enumerate() {
                    joined.push_text(if at > 0 { "," } else { "" });
                    joined.push(item);
                }
                joined
            }
        })
    }

    /// Whether a condition on it holds: it is there, and neither 0 nor empty. Not known yet: `None`.
    pub fn holds(&self) -> Option<bool> {
        match self {
            Self::Nothing => Some(false),
            Self::Number(number) => Some(*number != 0),
            Self::Later(_) => None,
            Self::Text(text) => Some(!text.as_str().is_empty()),
            Self::List(items) => Some(!items.is_empty()),
        }
    }
}

/// What names stand for.
pub type Lookup<'l> = &'l mut dyn FnMut(&str, Option<&str>) -> Result<Value, String>;

/// Why a text cannot be read: where in it, in bytes, and what is wrong.
pub type BadPattern = (usize, String);

impl From<Template> for Pattern {
    fn from(text: Template) -> Self {
        Self::Text(text)
    }
}

impl Pattern {
    /// Reads a text.
    ///
    /// # Errors
    /// [`BadPattern`].
    pub fn parse(text: &Text) -> Result<Self, BadPattern> {
        let mut pieces = Vec::new();
        let mut plain = Template::default();
        let add = |plain: &mut Template, text| match plain.as_str().is_empty() {
            true => *plain = Template::of_written(text),
            false => plain.push(&Template::of_written(text)),
        };
        // All before it is read.
        let mut at = 0;
        while at < text.len() {
            let brace = text.bytes().skip(at).position(|byte| matches!(byte, b'{' | b'}'));
            let brace = brace.map_or(text.len(), |brace| at + brace);
            let rest = &text[brace..];
            let end = || rest.find('}').map(|end| brace + end);
            let (kept, next) = if rest.is_empty() {
                (brace, brace)
            } else if rest.starts_with('{') && text[at..brace].ends_with('$') {
                let Some(end) = end().filter(|end| is_name(&text[brace + 1..*end])) else {
                    return Err((brace - 1, "`${` is followed by no `NAME}`".to_owned()));
                };
                (end + 1, end + 1)
            } else if rest.starts_with("{{") || rest.starts_with("}}") {
                (brace + 1, brace + 2)
            } else if rest.starts_with('}') {
                return Err((brace, "this brace closes nothing; write }} for a brace".to_owned()));
            } else {
                let Some(end) = end() else {
                    return Err((
                        brace,
                        "this brace is not closed; write {{ for a brace".to_owned(),
                    ));
                };
                let value = Self::Value(Expr::parse_part(text, brace + 1..end)?);
                if end + 1 - brace == text.len() {
                    return Ok(value);
                }
                add(&mut plain, part(text, at..brace));
                if !plain.as_str().is_empty() {
                    pieces.push(Self::Text(std::mem::take(&mut plain)));
                }
                pieces.push(value);
                at = end + 1;
                continue;
            };
            add(&mut plain, part(text, at..kept));
            at = next;
        }
        if pieces.is_empty() {
            return Ok(Self::Text(plain));
        }
        if !plain.as_str().is_empty() {
            pieces.push(Self::Text(plain));
        }
        Ok(Self::Pieces(pieces))
    }

    /// Hands on the names in it, with what is after their colons.
    pub fn names<'p>(&'p self, with: &mut impl FnMut(&'p str, Option<&'p str>)) {
        match self {
            Self::Text(_) => {}
            Self::Value(expr) => expr.names(with),
            Self::Pieces(pieces) => pieces.iter().for_each(|piece| piece.names(with)),
        }
    }

    /// Whether one of its names is meant.
    pub fn has_name(&self, mut is_meant: impl FnMut(&str, Option<&str>) -> bool) -> bool {
        let mut found = false;
        self.names(&mut |name, of| found |= is_meant(name, of));
        found
    }

    /// Its text where it has no placeholders.
    pub fn literal(&self) -> Option<&Template> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is worth: the value itself where it is one placeholder, else a text.
    ///
    /// # Errors
    /// What a name or an operation has no value for.
    pub fn value(&self, lookup: Lookup<'_>) -> Result<Value, String> {
        let pieces = match self {
            Self::Text(text) => return Ok(Value::Text(text.clone())),
            Self::Value(expr) => return expr.value(lookup),
            Self::Pieces(pieces) => pieces,
        };
        let mut text = Template::default();
        for piece in pieces {
            let value = piece.value(lookup)?.text();
            text.push(&value.map_err(|why| format!("{piece}: {why}"))?);
        }
        Ok(Value::Text(text))
    }
}

/// As it is written in a profile.
impl std::fmt::Display for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text.as_str()),
            Self::Value(expr) => write!(f, "{{{expr}}}"),
            Self::Pieces(pieces) => pieces.iter().try_for_each(|piece| write!(f, "{piece}")),
        }
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name, None) => f.write_str(name),
            Self::Name(name, Some(of)) => write!(f, "{name}:{of}"),
            Self::Operation(operation, one, other) => match operation {
                Operation::Plus => write!(f, "({one} + {other})"),
                Operation::Minus => write!(f, "({one} - {other})"),
                Operation::Times => write!(f, "({one} * {other})"),
                Operation::CeilDiv => write!(f, "({one} ceil-div {other})"),
                Operation::Div => write!(f, "({one} div {other})"),
                Operation::Min => write!(f, "min({one}, {other})"),
                Operation::Max => write!(f, "max({one}, {other})"),
            },
        }
    }
}

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// [`BadPattern`].
    pub fn parse(text: &Text) -> Result<Self, BadPattern> {
        Self::parse_part(text, 0..text.len())
    }

    fn parse_part(whole: &Text, range: Range<usize>) -> Result<Self, BadPattern> {
        let mut parser = Parser { whole, text: &whole[..range.end], at: range.start, depth: 0 };
        let expr = parser.sum()?;
        match parser.next() {
            None => Ok(expr),
            Some(_) => parser.error("an operator is expected here: + - * div or ceil-div"),
        }
    }

    /// Hands on the names in it, with what is after their colons.
    pub fn names<'e>(&'e self, with: &mut impl FnMut(&'e str, Option<&'e str>)) {
        match self {
            Self::Number(_) => {}
            Self::Name(name, of) => with(name, of.as_deref()),
            Self::Operation(_, one, other) => {
                one.names(with);
                other.names(with);
            }
        }
    }

    /// Whether it is one name alone.
    pub fn is_name(&self, name: &str) -> bool {
        matches!(self, Self::Name(own, None) if own == name)
    }

    /// What it is worth.
    ///
    /// # Errors
    /// What a name or an operation has no value for.
    pub fn value(&self, lookup: Lookup<'_>) -> Result<Value, String> {
        let (operation, one, other) = match self {
            Self::Number(number) => return Ok(Value::Number(*number)),
            Self::Name(name, of) => return lookup(name, of.as_deref()),
            Self::Operation(operation, one, other) => (*operation, one, other),
        };
        let values = (one.value(lookup)?, other.value(lookup)?);
        let number = |number: Option<i64>| {
            let number = number.filter(|number| number.abs() <= MAX_NUMBER);
            number.ok_or_else(|| format!("{self} has no value that is a number in bounds"))
        };
        use Operation::{CeilDiv, Div, Max, Min, Minus, Plus, Times};
        let later = |later: Later, times: Option<i64>, plus: Option<i64>| {
            Ok(Value::Later(Later { times: number(times)?, plus: number(plus)?, ..later }))
        };
        match (values, operation) {
            ((Value::Number(a), Value::Number(b)), _) => {
                Ok(Value::Number(number(match operation {
                    Plus => a.checked_add(b),
                    Minus => a.checked_sub(b),
                    Times => a.checked_mul(b),
                    CeilDiv if b > 0 && a >= 0 => Some((a + b - 1) / b),
                    Div if b > 0 && a % b == 0 => Some(a / b),
                    Div if b > 0 => return Err(format!("{a} {UNEVEN} {b} in {self}")),
                    CeilDiv | Div => None,
                    Min => Some(a.min(b)),
                    Max => Some(a.max(b)),
                })?))
            }
            ((Value::Later(l), Value::Number(n)) | (Value::Number(n), Value::Later(l)), Plus) => {
                let (times, plus) = (l.times, l.plus);
                later(l, Some(times), plus.checked_add(n))
            }
            ((Value::Later(l), Value::Number(n)), Minus) => {
                let (times, plus) = (l.times, l.plus);
                later(l, Some(times), plus.checked_sub(n))
            }
            ((Value::Later(l), Value::Number(n)) | (Value::Number(n), Value::Later(l)), Times) => {
                let (times, plus) = (l.times, l.plus);
                later(l, times.checked_mul(n), plus.checked_mul(n))
            }
            ((Value::Later(_), _) | (_, Value::Later(_)), _) => Err(format!(
                "{self} cannot be computed: one of its numbers is known only in the job, and such a \
                 number can be multiplied with one that is known, and added to"
            )),
            _ => Err(format!("{self} cannot be computed: one of its parts is not a number here")),
        }
    }
}

struct Parser<'t> {
    whole: &'t Text,
    /// Up to the end of the expression.
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn error<T>(&self, what: &str) -> Result<T, BadPattern> {
        Err((self.at.min(self.text.len()), what.to_owned()))
    }

    /// The next character that is no blank.
    fn next(&mut self) -> Option<char> {
        while self.text.as_bytes().get(self.at) == Some(&b' ') {
            self.at += 1;
        }
        self.text[self.at..].chars().next()
    }

    fn takes(&mut self, wanted: char) -> bool {
        let found = self.next() == Some(wanted);
        self.at += if found { wanted.len_utf8() } else { 0 };
        found
    }

    fn sum(&mut self) -> Result<Expr, BadPattern> {
        let mut sum = self.product()?;
        loop {
            let operation = match self.next() {
                Some('+') => Operation::Plus,
                Some('-') => Operation::Minus,
                _ => return Ok(sum),
            };
            self.at += 1;
            sum = Expr::Operation(operation, sum.into(), self.product()?.into());
        }
    }

    fn product(&mut self) -> Result<Expr, BadPattern> {
        let mut product = self.atom()?;
        loop {
            let (operation, length) = match self.next() {
                Some('*') => (Operation::Times, 1),
                Some('c') if self.text[self.at..].starts_with(CEIL_DIV) => {
                    (Operation::CeilDiv, CEIL_DIV.len())
                }
                Some('d') if self.text[self.at..].starts_with(DIV) => (Operation::Div, DIV.len()),
                _ => return Ok(product),
            };
            self.at += length;
            product = Expr::Operation(operation, product.into(), self.atom()?.into());
        }
    }

    fn atom(&mut self) -> Result<Expr, BadPattern> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error("this is nested too deep");
        }
        let atom = self.atom_within();
        self.depth -= 1;
        atom
    }

    fn atom_within(&mut self) -> Result<Expr, BadPattern> {
        let Some(first) = self.next() else { return self.error("a name or a number is missing") };
        if first == '(' {
            self.at += 1;
            let expr = self.sum()?;
            self.close()?;
            return Ok(expr);
        }
        if first.is_ascii_digit() {
            let digits = self.word(|c| c.is_ascii_digit());
            let number = digits.parse().ok().filter(|number| *number <= MAX_NUMBER);
            return number
                .map_or_else(|| self.error("this number is too large"), |n| Ok(Expr::Number(n)));
        }
        let name = self.word(|c| c.is_ascii_lowercase() || c == '_');
        if name.is_empty() {
            return self.error("a name or a number is expected here");
        }
        let of_two = [("min", Operation::Min), ("max", Operation::Max)];
        let of_two = of_two.into_iter().find(|(word, _)| *word == name).map(|(_, of_two)| of_two);
        if let Some(operation) = of_two.filter(|_| self.text[self.at..].starts_with('(')) {
            self.at += 1;
            let one = self.sum()?;
            if !self.takes(',') {
                return self.error("a comma is expected here");
            }
            let other = self.sum()?;
            self.close()?;
            return Ok(Expr::Operation(operation, one.into(), other.into()));
        }
        if !self.text[self.at..].starts_with(':') {
            return Ok(Expr::Name(name, None));
        }
        self.at += 1;
        let of = self.word(|c| c.is_ascii_alphanumeric() || "_-.".contains(c));
        match of.is_empty() {
            true => self.error("what is meant is missing after the colon"),
            false => Ok(Expr::Name(name, Some(of))),
        }
    }

    fn word(&mut self, is_part: impl Fn(char) -> bool) -> Text {
        let (start, rest) = (self.at, &self.text[self.at..]);
        self.at += rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        part(self.whole, start..self.at)
    }

    fn close(&mut self) -> Result<(), BadPattern> {
        if self.takes(')') { Ok(()) } else { self.error("`)` is expected here") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<Value, String> {
        let pattern =
            Pattern::parse(&text.to_owned().into()).map_err(|(at, why)| format!("{at}: {why}"))?;
        pattern.value(&mut |name, of| {
            Ok(match (name, of) {
                ("four", None) => Value::Number(4),
                ("list", None) => Value::List(["a", "b"].map(Template::literal).into()),
                ("node_rank", None) => Value::Later(Later::new(Fact::NodeRank, String::new())),
                ("port", Some(of)) => Value::Later(Later::new(Fact::Port, format!(":.{of}"))),
                ("nothing", _) => Value::Nothing,
                _ => return Err(format!("{name} is unknown")),
            })
        })
    }

    #[test]
    fn numbers_are_computed_now_or_left_to_the_job() {
        for (text, expected) in [
            ("{1 + 2 * four}", "9"),
            ("{(1 + 2) * four - 1}", "11"),
            ("{9 ceil-div four}", "3"),
            ("{(four * 3) div four * 2}", "6"),
            ("{min(four, 3)}-{max(four, 3)}", "3-4"),
            ("{port:http}", "${.port:.http}"),
            ("{2 * node_rank + 1}", "${.node_rank*2+1}"),
            ("{(node_rank - 1) * four}", "${.node_rank*4-4}"),
            ("x{list}y", "xa,by"),
            ("{{\"a\": $$1, ${B}}}", "{\"a\": $$1, ${B}}"),
        ] {
            assert_eq!(value(text).unwrap().text().unwrap().as_str(), expected, "{text}");
        }
        assert!(matches!(value("{list}").unwrap(), Value::List(items) if items.len() == 2));
    }

    #[test]
    fn what_cannot_be_read_or_computed_is_refused() {
        for (text, why) in [
            ("{four", "0: this brace is not closed"),
            ("a}", "1: this brace closes nothing"),
            ("${.name}", "0: `${` is followed by no `NAME}`"),
            ("{}", "1: a name or a number is missing"),
            ("{four four}", "6: an operator is expected"),
            ("{min(1)}", "6: a comma is expected"),
            ("{four + }", "8: a name or a number"),
            ("{$(id)}", "1: a name or a number is expected"),
            ("{99999999999999999999}", "21: this number is too large"),
            ("{four * 1099511627776}", "is a number in bounds"),
            ("{node_rank * node_rank}", "known only in the job"),
            ("{four ceil-div 0}", "is a number in bounds"),
            ("{9 div four}", "9 cannot be divided by 4 in (9 div four)"),
            ("{list + 1}", "not a number here"),
            ("x{nothing}", "{nothing}: it has no value here"),
            ("{other}", "other is unknown"),
        ] {
            let error = value(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        let deep = format!("{{{}1{}}}", "(".repeat(99), ")".repeat(99));
        assert!(Pattern::parse(&deep.into()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[{}a-c1+*()$:. é-]{0,40}") {
            let _ = value(&text);
        }
    }
}
