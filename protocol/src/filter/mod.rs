//! The filter language: which nodes, by what they said of themselves.
//!
//! ```text
//! site=berlin and os.name=debian and not label.kiosk and criticality!=mission_critical
//! ```
//!
//! A test is `NAME = VALUE`, `!=`, `<`, `<=`, `>`, `>=`, `NAME in (VALUE, …)`, or a name alone, which asks
//! whether the node has it at all. `not` binds tighter than `and`, `and` tighter than `or`; parentheses
//! group. What a node does not have equals nothing: `=`, `in` and the orderings are false, `!=` is true.
//! Orderings read runs of digits as numbers, so 12.10 comes after 12.9. The names are those of
//! [`crate::inventory`]; a name that does not exist is an error, not an empty answer.
//!
//! A filter travels as its text in its one canonical form. Its length and depth are bounded, and whoever
//! cannot read it refuses the statement that it stands in.

mod parse;

use core::cmp::Ordering;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::inventory::Subject;

pub use parse::FilterError;

/// Which nodes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Filter(Expr);

/// How tightly a part binds, loosest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bond {
    Or,
    And,
    Not,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Expr {
    /// Two or more.
    Any(Vec<Expr>),
    /// Two or more.
    All(Vec<Expr>),
    Not(Box<Expr>),
    Has(String),
    Is(String, Op, String),
    In(String, Vec<String>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Equal,
    Unequal,
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl Op {
    fn sign(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::Unequal => "!=",
            Op::Below => "<",
            Op::AtMost => "<=",
            Op::Above => ">",
            Op::AtLeast => ">=",
        }
    }

    fn holds(self, held: Option<&str>, value: &str) -> bool {
        let Some(held) = held else {
            return self == Op::Unequal;
        };
        match self {
            Op::Equal => held == value,
            Op::Unequal => held != value,
            Op::Below => version_order(held, value).is_lt(),
            Op::AtMost => version_order(held, value).is_le(),
            Op::Above => version_order(held, value).is_gt(),
            Op::AtLeast => version_order(held, value).is_ge(),
        }
    }
}

impl Filter {
    /// Whether a node is meant.
    pub fn matches(&self, node: &Subject<'_>) -> bool {
        self.0.matches(node)
    }
}

impl FromStr for Filter {
    type Err = FilterError;
    fn from_str(text: &str) -> Result<Filter, FilterError> {
        parse::parse(text).map(Filter)
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;
    fn try_from(text: String) -> Result<Filter, FilterError> {
        text.parse()
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> String {
        filter.to_string()
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }
}

impl Expr {
    fn matches(&self, node: &Subject<'_>) -> bool {
        match self {
            Expr::Any(parts) => parts.iter().any(|part| part.matches(node)),
            Expr::All(parts) => parts.iter().all(|part| part.matches(node)),
            Expr::Not(part) => !part.matches(node),
            Expr::Has(name) => node.value(name).is_some(),
            Expr::Is(name, op, value) => op.holds(node.value(name), value),
            Expr::In(name, values) => node
                .value(name)
                .is_some_and(|held| values.iter().any(|value| value == held)),
        }
    }

    fn bond(&self) -> Bond {
        match self {
            Expr::Any(_) => Bond::Or,
            Expr::All(_) => Bond::And,
            Expr::Not(_) | Expr::Has(_) | Expr::Is(..) | Expr::In(..) => Bond::Not,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Any(parts) => list(f, parts, " or ", |f, part| part.write_above(f, Bond::Or)),
            Expr::All(parts) => list(f, parts, " and ", |f, part| part.write_above(f, Bond::And)),
            Expr::Not(part) => {
                f.write_str("not ")?;
                match part.bond() {
                    Bond::Not => part.write(f),
                    _ => part.write_above(f, Bond::Not),
                }
            }
            Expr::Has(name) => f.write_str(name),
            Expr::Is(name, op, value) => {
                write!(f, "{name}{}", op.sign())?;
                quote(f, value)
            }
            Expr::In(name, values) => {
                write!(f, "{name} in (")?;
                list(f, values, ", ", |f, value| quote(f, value))?;
                f.write_str(")")
            }
        }
    }

    /// In parentheses unless it binds tighter.
    fn write_above(&self, f: &mut fmt::Formatter<'_>, bond: Bond) -> fmt::Result {
        if self.bond() > bond {
            return self.write(f);
        }
        f.write_str("(")?;
        self.write(f)?;
        f.write_str(")")
    }
}

fn list<T>(
    f: &mut fmt::Formatter<'_>,
    parts: &[T],
    between: &str,
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (number, part) in parts.iter().enumerate() {
        if number > 0 {
            f.write_str(between)?;
        }
        write(f, part)?;
    }
    Ok(())
}

fn quote(f: &mut fmt::Formatter<'_>, value: &str) -> fmt::Result {
    if !value.is_empty() && value.chars().all(parse::is_plain) {
        return f.write_str(value);
    }
    f.write_str("\"")?;
    for c in value.chars() {
        if matches!(c, '"' | '\\') {
            f.write_str("\\")?;
        }
        write!(f, "{c}")?;
    }
    f.write_str("\"")
}

/// Orders versions and amounts: runs of digits as numbers, runs of letters by their bytes, a number after
/// letters; whatever stands between only separates. Of two that begin the same the longer comes after.
pub fn version_order(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (Runs(one), Runs(other));
    loop {
        let order = match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some((true, a)), Some((true, b))) => {
                let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
                a.len().cmp(&b.len()).then_with(|| a.cmp(b))
            }
            (Some((a_is_number, a)), Some((b_is_number, b))) => {
                a_is_number.cmp(&b_is_number).then_with(|| a.cmp(b))
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Runs of digits and of letters, each with whether it is one of digits.
struct Runs<'a>(&'a str);

impl<'a> Iterator for Runs<'a> {
    type Item = (bool, &'a str);

    fn next(&mut self) -> Option<(bool, &'a str)> {
        let rest = self.0.trim_start_matches(|c: char| !c.is_alphanumeric());
        let digits = rest.chars().next()?.is_ascii_digit();
        let ends = |c: char| c.is_ascii_digit() != digits || !c.is_alphanumeric();
        let (run, rest) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
        self.0 = rest;
        Some((digits, run))
    }
}

#[cfg(test)]
mod tests;
