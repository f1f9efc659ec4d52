//! From text to filter. Errors say in which column they begin.

use super::{Expr, Op};
use crate::inventory::{NAMES, is_name};
use crate::limits::{FILTER_DEPTH_MAX, FILTER_MAX_BYTES};

/// Why a text is no filter. Columns count characters, from 1.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("column {column}: {why}")]
pub struct FilterError {
    /// Where it begins.
    pub column: usize,
    /// What is wrong there, and what would be right.
    pub why: String,
}

/// Characters that a value may have without quotes.
pub(super) fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"()=!<>,\"\\".contains(c)
}

#[derive(Clone, PartialEq, Debug)]
enum Token {
    Word(String),
    Quoted(String),
    Op(Op),
    Open,
    Close,
    Comma,
}

impl Token {
    fn is(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word == keyword)
    }

    /// As it is shown in an error.
    fn told(&self) -> String {
        match self {
            Token::Word(text) | Token::Quoted(text) => format!("{text:?}"),
            Token::Op(op) => format!("'{}'", op.sign()),
            Token::Open => "'('".into(),
            Token::Close => "')'".into(),
            Token::Comma => "','".into(),
        }
    }
}

const KEYWORDS: [&str; 4] = ["and", "or", "not", "in"];

pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    if text.len() > FILTER_MAX_BYTES {
        let why = format!("the filter is longer than {FILTER_MAX_BYTES} bytes");
        let whole = text
            .char_indices()
            .take_while(|(at, _)| *at < FILTER_MAX_BYTES);
        return Err(FilterError {
            column: whole.count() + 1,
            why,
        });
    }
    let tokens = tokens(text)?;
    let mut parser = Parser {
        tokens: &tokens,
        end: text.chars().count() + 1,
        depth: 0,
    };
    let expr = parser.any()?;
    match parser.tokens.first() {
        None => Ok(expr),
        Some((_, Token::Close)) => parser.fail("this parenthesis was not opened"),
        Some((_, token)) => {
            let why = format!("'and' or 'or' is expected before {}", token.told());
            parser.fail(&why)
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let column = at + 1;
        let equals_follows = chars.get(at + 1) == Some(&'=');
        let (token, length) = match c {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            ',' => (Token::Comma, 1),
            '=' if equals_follows => (Token::Op(Op::Equal), 2),
            '=' => (Token::Op(Op::Equal), 1),
            '!' if equals_follows => (Token::Op(Op::Unequal), 2),
            '<' if equals_follows => (Token::Op(Op::AtMost), 2),
            '<' => (Token::Op(Op::Below), 1),
            '>' if equals_follows => (Token::Op(Op::AtLeast), 2),
            '>' => (Token::Op(Op::Above), 1),
            '"' => quoted(&chars[at + 1..], column)?,
            c if is_plain(c) => {
                let word: String = chars[at..].iter().take_while(|c| is_plain(**c)).collect();
                let length = word.chars().count();
                (Token::Word(word), length)
            }
            c => {
                let why =
                    format!("{c:?} means nothing here; values with such characters are quoted");
                return Err(FilterError { column, why });
            }
        };
        tokens.push((column, token));
        at += length;
    }
    Ok(tokens)
}

/// What stands behind an opening quote; the length counts both quotes.
fn quoted(chars: &[char], column: usize) -> Result<(Token, usize), FilterError> {
    let mut value = String::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        at += 1;
        match c {
            '"' => return Ok((Token::Quoted(value), at + 1)),
            '\\' => {
                value.extend(chars.get(at));
                at += 1;
            }
            c => value.push(c),
        }
    }
    let why = "this quote is not closed".to_owned();
    Err(FilterError { column, why })
}

struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    /// The column behind the last character.
    end: usize,
    depth: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Expr, FilterError> {
        let parts = self.parts("or", Parser::all)?;
        Ok(joined(parts, Expr::Any))
    }

    fn all(&mut self) -> Result<Expr, FilterError> {
        let parts = self.parts("and", Parser::one)?;
        Ok(joined(parts, Expr::All))
    }

    fn parts(
        &mut self,
        keyword: &str,
        part: fn(&mut Self) -> Result<Expr, FilterError>,
    ) -> Result<Vec<Expr>, FilterError> {
        let mut parts = vec![part(self)?];
        while self.peek().is_some_and(|token| token.is(keyword)) {
            self.skip();
            parts.push(part(self)?);
        }
        Ok(parts)
    }

    fn one(&mut self) -> Result<Expr, FilterError> {
        self.depth += 1;
        if self.depth > FILTER_DEPTH_MAX {
            let why =
                format!("more than {FILTER_DEPTH_MAX} parentheses and 'not's inside each other");
            return self.fail(&why);
        }
        let expr = match self.peek() {
            Some(Token::Open) => self.group(),
            Some(token) if token.is("not") => {
                self.skip();
                Ok(Expr::Not(Box::new(self.one()?)))
            }
            _ => self.test(),
        }?;
        self.depth -= 1;
        Ok(expr)
    }

    fn group(&mut self) -> Result<Expr, FilterError> {
        let opened = self.column();
        self.skip();
        let expr = self.any()?;
        match self.peek() {
            Some(Token::Close) => self.skip(),
            None => {
                let why = "this parenthesis is not closed".to_owned();
                return Err(FilterError {
                    column: opened,
                    why,
                });
            }
            Some(token) => {
                let why = format!("'and', 'or' or ')' is expected before {}", token.told());
                return self.fail(&why);
            }
        }
        Ok(expr)
    }

    fn test(&mut self) -> Result<Expr, FilterError> {
        let name = match self.peek() {
            Some(Token::Word(word)) if !KEYWORDS.contains(&word.as_str()) => word.clone(),
            Some(token) => {
                let why = format!(
                    "a name such as os.name is expected instead of {}",
                    token.told()
                );
                return self.fail(&why);
            }
            None => return self.fail("a name such as os.name is expected here"),
        };
        if !is_name(&name) {
            let known = NAMES.join(", ");
            let why = format!(
                "there is no attribute {name:?}; there are {known}, label.KEY, driver.NAME, assess.RELEASE"
            );
            return self.fail(&why);
        }
        self.skip();
        match self.peek() {
            Some(Token::Op(op)) => {
                let op = *op;
                self.skip();
                Ok(Expr::Is(name, op, self.value()?))
            }
            Some(token) if token.is("in") => {
                self.skip();
                Ok(Expr::In(name, self.values()?))
            }
            _ => Ok(Expr::Has(name)),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, FilterError> {
        if self.peek() != Some(&Token::Open) {
            return self.fail("'(' is expected after 'in'");
        }
        let mut values = Vec::new();
        loop {
            self.skip();
            values.push(self.value()?);
            match self.peek() {
                Some(Token::Comma) => {}
                Some(Token::Close) => {
                    self.skip();
                    return Ok(values);
                }
                _ => return self.fail("',' or ')' is expected in this list"),
            }
        }
    }

    fn value(&mut self) -> Result<String, FilterError> {
        let value = match self.peek() {
            Some(Token::Word(text) | Token::Quoted(text)) => text.clone(),
            Some(token) => {
                let why = format!("a value is expected instead of {}", token.told());
                return self.fail(&why);
            }
            None => return self.fail("a value is expected here"),
        };
        self.skip();
        Ok(value)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.first().map(|(_, token)| token)
    }

    fn skip(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    fn column(&self) -> usize {
        self.tokens.first().map_or(self.end, |(column, _)| *column)
    }

    fn fail<T>(&self, why: &str) -> Result<T, FilterError> {
        Err(FilterError {
            column: self.column(),
            why: why.to_owned(),
        })
    }
}

fn joined(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Expr) -> Expr {
    match parts.len() {
        1 => parts.remove(0),
        _ => join(parts),
    }
}
