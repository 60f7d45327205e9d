//! Expressions of playbooks: small, bounded, without effects.
//!
//! ```text
//! or      = and { "or" and }
//! and     = not { "and" not }
//! not     = "not" not | compare
//! compare = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]
//! sum     = product { ("+" | "-") product }
//! product = factor { ("*" | "/") factor }
//! factor  = "-" factor | number | text | "true" | "false" | name | function "(" [ or { "," or } ] ")" | "(" or ")"
//! ```
//!
//! A name is a fact or a parameter. What is not known is an error that names it, never zero and never false: a step
//! is bound from what was seen or not at all. Only `first(…)` and `known(…)` may look at what is not there.

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Longest expression, in bytes.
pub const EXPR_BYTES_MAX: usize = 512;
/// Nesting of one expression at most.
const DEPTH_MAX: usize = 24;
/// Names and weights that a map holds at most.
const MAP_MAX: usize = 256;

/// What an expression is about and what it may look at.
pub trait Scope {
    /// A fact or parameter of this name.
    fn fact(&self, name: &str) -> Option<Val>;
    /// All numeric facts whose name begins so, by the rest of their names.
    fn facts_with(&self, prefix: &str) -> BTreeMap<String, f64>;
    /// A number of the anomaly that shows this signal or family on the entity that the expression is about.
    fn series(&self, which: Series, signal: &str) -> Option<f64>;
}

/// Which number of an anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Series {
    /// What was expected.
    Baseline,
    /// What was seen.
    Observed,
    /// Lower end of the band.
    Lower,
    /// Upper end of the band.
    Upper,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Val {
    /// A finite number.
    Num(f64),
    /// A text.
    Text(String),
    /// True or false.
    Bool(bool),
    /// Names with numbers.
    Map(BTreeMap<String, f64>),
}

impl Val {
    /// From a looked-at fact; `None` for what an expression cannot use (null, lists, maps of other things).
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::Bool(b) => Some(Self::Bool(*b)),
            serde_json::Value::Number(n) => n.as_f64().filter(|n| n.is_finite()).map(Self::Num),
            serde_json::Value::String(t) => Some(Self::Text(t.clone())),
            serde_json::Value::Object(map) => map
                .iter()
                .take(MAP_MAX)
                .map(|(k, v)| Some((k.clone(), v.as_f64().filter(|n| n.is_finite())?)))
                .collect::<Option<_>>()
                .map(Self::Map),
            serde_json::Value::Null | serde_json::Value::Array(_) => None,
        }
    }

    /// From a text that somebody wrote: a number or a truth value when it reads as one.
    pub fn from_text(text: &str) -> Self {
        match text {
            "true" => Self::Bool(true),
            "false" => Self::Bool(false),
            _ => match text.parse::<f64>() {
                // `1.20` is a version: only what is written back the same is a number.
                Ok(n) if n.is_finite() && n.to_string() == text => Self::Num(n),
                _ => Self::Text(text.to_owned()),
            },
        }
    }

    /// As JSON: whole numbers without a point.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Num(n) => number(*n),
            Self::Text(t) => serde_json::Value::String(t.clone()),
            Self::Bool(b) => serde_json::Value::Bool(*b),
            Self::Map(map) => map.iter().map(|(k, v)| (k.clone(), number(*v))).collect(),
        }
    }

    const fn what(&self) -> &'static str {
        match self {
            Self::Num(_) => "a number",
            Self::Text(_) => "a text",
            Self::Bool(_) => "true or false",
            Self::Map(_) => "a map",
        }
    }
}

/// JSON numbers as actuators read them: 6, not 6.0.
fn number(n: f64) -> serde_json::Value {
    if n.fract() == 0.0 && n.abs() < 9.0e15 { serde_json::Value::from(n as i64) } else { serde_json::Value::from(n) }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(n) if n.fract() == 0.0 => write!(f, "{n:.0}"),
            Self::Num(n) => write!(f, "{n:.2}"),
            Self::Text(t) => f.write_str(t),
            Self::Bool(b) => write!(f, "{b}"),
            Self::Map(map) => {
                for (i, (k, v)) in map.iter().enumerate() {
                    write!(f, "{}{k} {v}", if i == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
        }
    }
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Something it needs was not looked at.
    #[error("`{0}` is not known")]
    Unknown(String),
    /// A value is of another sort than the operation takes.
    #[error("{0}")]
    Mismatch(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Ast {
    Value(Val),
    Name(String),
    Not(Box<Ast>),
    Negative(Box<Ast>),
    Two(Op, Box<Ast>, Box<Ast>),
    Call(Function, Vec<Ast>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    Or,
    And,
    Less,
    AtMost,
    More,
    AtLeast,
    Same,
    Other,
    Plus,
    Minus,
    Times,
    Over,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Min,
    Max,
    Ceil,
    Floor,
    Round,
    First,
    Known,
    If,
    All,
    Of(Series),
}

/// (name, function, fewest arguments, most arguments).
const FUNCTIONS: &[(&str, Function, usize, usize)] = &[
    ("min", Function::Min, 1, 8),
    ("max", Function::Max, 1, 8),
    ("ceil", Function::Ceil, 1, 1),
    ("floor", Function::Floor, 1, 1),
    ("round", Function::Round, 1, 1),
    ("first", Function::First, 1, 8),
    ("known", Function::Known, 1, 1),
    ("if", Function::If, 3, 3),
    ("all", Function::All, 1, 1),
    ("baseline", Function::Of(Series::Baseline), 1, 1),
    ("observed", Function::Of(Series::Observed), 1, 1),
    ("lower", Function::Of(Series::Lower), 1, 1),
    ("upper", Function::Of(Series::Upper), 1, 1),
];

/// An expression that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Expr {
    text: String,
    ast: Ast,
}

impl Serialize for Expr {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expr {
    /// Reads an expression.
    ///
    /// # Errors
    /// A text for people that says what was expected and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > EXPR_BYTES_MAX {
            return Err(format!("the expression has {} bytes, at most {EXPR_BYTES_MAX}", text.len()));
        }
        let tokens = tokens(text)?;
        let mut reader = Reader { tokens, at: 0 };
        let ast = reader.or(0)?;
        match reader.tokens.get(reader.at) {
            None => Ok(Self { text: text.to_owned(), ast }),
            Some(token) => Err(format!("expected an operator or the end before `{token}`")),
        }
    }

    /// Its value.
    ///
    /// # Errors
    /// [`EvalError`] when something is not known or does not fit together.
    pub fn eval(&self, scope: &dyn Scope) -> Result<Val, EvalError> {
        eval(&self.ast, scope)
    }

    /// Whether a condition holds.
    ///
    /// # Errors
    /// As [`Expr::eval`], and when it is no condition.
    pub fn holds(&self, scope: &dyn Scope) -> Result<bool, EvalError> {
        truth(&self.eval(scope)?)
    }

    /// Names that it looks at, in order of appearance.
    pub fn names(&self) -> Vec<&str> {
        fn walk<'a>(ast: &'a Ast, out: &mut Vec<&'a str>) {
            match ast {
                Ast::Value(_) => {}
                Ast::Name(name) => out.push(name),
                Ast::Not(a) | Ast::Negative(a) => walk(a, out),
                Ast::Two(_, a, b) => {
                    walk(a, out);
                    walk(b, out);
                }
                Ast::Call(_, args) => args.iter().for_each(|a| walk(a, out)),
            }
        }
        let mut out = Vec::new();
        walk(&self.ast, &mut out);
        out
    }
}

fn truth(value: &Val) -> Result<bool, EvalError> {
    match value {
        Val::Bool(b) => Ok(*b),
        other => Err(EvalError::Mismatch(format!("a condition is {}, expected true or false", other.what()))),
    }
}

fn num(value: Val) -> Result<f64, EvalError> {
    match value {
        Val::Num(n) => Ok(n),
        other => Err(EvalError::Mismatch(format!("expected a number, `{other}` is {}", other.what()))),
    }
}

fn finite(n: f64) -> Result<Val, EvalError> {
    if n.is_finite() { Ok(Val::Num(n)) } else { Err(EvalError::Mismatch("the result is no finite number".into())) }
}

fn eval(ast: &Ast, scope: &dyn Scope) -> Result<Val, EvalError> {
    match ast {
        Ast::Value(v) => Ok(v.clone()),
        Ast::Name(name) => scope.fact(name).ok_or_else(|| EvalError::Unknown(name.clone())),
        Ast::Not(a) => Ok(Val::Bool(!truth(&eval(a, scope)?)?)),
        Ast::Negative(a) => finite(-num(eval(a, scope)?)?),
        Ast::Two(Op::Or, a, b) => Ok(Val::Bool(truth(&eval(a, scope)?)? || truth(&eval(b, scope)?)?)),
        Ast::Two(Op::And, a, b) => Ok(Val::Bool(truth(&eval(a, scope)?)? && truth(&eval(b, scope)?)?)),
        Ast::Two(op @ (Op::Same | Op::Other), a, b) => {
            let same = eval(a, scope)? == eval(b, scope)?;
            Ok(Val::Bool(same == (*op == Op::Same)))
        }
        Ast::Two(op, a, b) => {
            let (a, b) = (num(eval(a, scope)?)?, num(eval(b, scope)?)?);
            match op {
                Op::Less => Ok(Val::Bool(a < b)),
                Op::AtMost => Ok(Val::Bool(a <= b)),
                Op::More => Ok(Val::Bool(a > b)),
                Op::AtLeast => Ok(Val::Bool(a >= b)),
                Op::Plus => finite(a + b),
                Op::Minus => finite(a - b),
                Op::Times => finite(a * b),
                Op::Over if b == 0.0 => Err(EvalError::Mismatch("division by zero".into())),
                _ => finite(a / b),
            }
        }
        Ast::Call(function, args) => call(*function, args, scope),
    }
}

fn call(function: Function, args: &[Ast], scope: &dyn Scope) -> Result<Val, EvalError> {
    let numbers = || args.iter().map(|a| num(eval(a, scope)?)).collect::<Result<Vec<f64>, _>>();
    let one = || numbers().map(|n| n[0]);
    match function {
        Function::Min => finite(numbers()?.into_iter().fold(f64::INFINITY, f64::min)),
        Function::Max => finite(numbers()?.into_iter().fold(f64::NEG_INFINITY, f64::max)),
        Function::Ceil => finite(one()?.ceil()),
        Function::Floor => finite(one()?.floor()),
        Function::Round => finite(one()?.round()),
        Function::First => {
            let mut missing = EvalError::Unknown("value".into());
            for arg in args {
                match eval(arg, scope) {
                    Err(e @ EvalError::Unknown(_)) => missing = e,
                    known => return known,
                }
            }
            Err(missing)
        }
        Function::Known => match eval(&args[0], scope) {
            Ok(_) => Ok(Val::Bool(true)),
            Err(EvalError::Unknown(_)) => Ok(Val::Bool(false)),
            Err(e) => Err(e),
        },
        Function::If => eval(&args[if truth(&eval(&args[0], scope)?)? { 1 } else { 2 }], scope),
        Function::All | Function::Of(_) => {
            let name = match eval(&args[0], scope)? {
                Val::Text(name) => name,
                other => {
                    return Err(EvalError::Mismatch(format!("expected a name in quotes, not {}", other.what())));
                }
            };
            match function {
                Function::Of(which) => scope.series(which, &name).ok_or(EvalError::Unknown(name)).and_then(finite),
                _ => {
                    let map = scope.facts_with(&name);
                    if map.is_empty() || map.len() > MAP_MAX {
                        Err(EvalError::Unknown(name))
                    } else {
                        Ok(Val::Map(map))
                    }
                }
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Number(f64),
    Text(String),
    Name(String),
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(t) => write!(f, "'{t}'"),
            Self::Name(n) => f.write_str(n),
            Self::Sign(s) => f.write_str(s),
        }
    }
}

/// Longer ones first.
const SIGNS: &[&str] = &["<=", ">=", "==", "!=", "<", ">", "+", "-", "*", "/", "(", ")", ","];

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(c) = rest.chars().next() {
        let used = if c.is_ascii_digit() {
            let n = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
            let value = rest[..n].parse::<f64>().map_err(|_| format!("`{}` is not a number", &rest[..n]))?;
            out.push(Token::Number(value));
            n
        } else if c == '\'' || c == '"' {
            let end = rest[1..].find(c).ok_or_else(|| format!("a text has no closing {c}"))?;
            out.push(Token::Text(rest[1..=end].to_owned()));
            end + 2
        } else if c.is_ascii_alphabetic() || c == '_' {
            let n = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')).count();
            out.push(Token::Name(rest[..n].to_owned()));
            n
        } else if let Some(sign) = SIGNS.iter().find(|s| rest.starts_with(**s)) {
            out.push(Token::Sign(sign));
            sign.len()
        } else {
            return Err(format!("`{c}` has no meaning here"));
        };
        rest = rest[used..].trim_start();
    }
    if out.is_empty() { Err("the expression is empty".into()) } else { Ok(out) }
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
}

impl Reader {
    fn sign(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        match self.tokens.get(self.at) {
            Some(Token::Sign(s)) if signs.contains(s) => {
                self.at += 1;
                Some(s)
            }
            _ => None,
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.get(self.at), Some(Token::Name(n)) if n == word);
        self.at += usize::from(found);
        found
    }

    fn or(&mut self, depth: usize) -> Result<Ast, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the expression is nested deeper than {DEPTH_MAX}"));
        }
        let mut left = self.and(depth)?;
        while self.word("or") {
            left = Ast::Two(Op::Or, left.into(), self.and(depth)?.into());
        }
        Ok(left)
    }

    fn and(&mut self, depth: usize) -> Result<Ast, String> {
        let mut left = self.not(depth)?;
        while self.word("and") {
            left = Ast::Two(Op::And, left.into(), self.not(depth)?.into());
        }
        Ok(left)
    }

    fn not(&mut self, depth: usize) -> Result<Ast, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the expression is nested deeper than {DEPTH_MAX}"));
        }
        if self.word("not") { Ok(Ast::Not(self.not(depth + 1)?.into())) } else { self.compare(depth) }
    }

    fn compare(&mut self, depth: usize) -> Result<Ast, String> {
        let left = self.sum(depth)?;
        let Some(sign) = self.sign(&["<=", ">=", "==", "!=", "<", ">"]) else { return Ok(left) };
        let op = match sign {
            "<=" => Op::AtMost,
            ">=" => Op::AtLeast,
            "==" => Op::Same,
            "!=" => Op::Other,
            "<" => Op::Less,
            _ => Op::More,
        };
        Ok(Ast::Two(op, left.into(), self.sum(depth)?.into()))
    }

    fn sum(&mut self, depth: usize) -> Result<Ast, String> {
        let mut left = self.product(depth)?;
        while let Some(sign) = self.sign(&["+", "-"]) {
            let op = if sign == "+" { Op::Plus } else { Op::Minus };
            left = Ast::Two(op, left.into(), self.product(depth)?.into());
        }
        Ok(left)
    }

    fn product(&mut self, depth: usize) -> Result<Ast, String> {
        let mut left = self.factor(depth)?;
        while let Some(sign) = self.sign(&["*", "/"]) {
            let op = if sign == "*" { Op::Times } else { Op::Over };
            left = Ast::Two(op, left.into(), self.factor(depth)?.into());
        }
        Ok(left)
    }

    fn factor(&mut self, depth: usize) -> Result<Ast, String> {
        if depth > DEPTH_MAX {
            return Err(format!("the expression is nested deeper than {DEPTH_MAX}"));
        }
        if self.sign(&["-"]).is_some() {
            return Ok(Ast::Negative(self.factor(depth + 1)?.into()));
        }
        if self.sign(&["("]).is_some() {
            let inner = self.or(depth + 1)?;
            return self.sign(&[")"]).map(|_| inner).ok_or_else(|| "a `(` is not closed".into());
        }
        let token = self.tokens.get(self.at).cloned().ok_or("the expression ends where a value is expected")?;
        self.at += 1;
        match token {
            Token::Number(n) => Ok(Ast::Value(Val::Num(n))),
            Token::Text(t) => Ok(Ast::Value(Val::Text(t))),
            Token::Sign(s) => Err(format!("expected a value, found `{s}`")),
            Token::Name(n) if self.sign(&["("]).is_some() => self.function(&n, depth),
            Token::Name(n) => match n.as_str() {
                "true" | "false" => Ok(Ast::Value(Val::Bool(n == "true"))),
                "and" | "or" | "not" => Err(format!("expected a value, found `{n}`")),
                _ => Ok(Ast::Name(n)),
            },
        }
    }

    fn function(&mut self, name: &str, depth: usize) -> Result<Ast, String> {
        let Some((_, function, least, most)) = FUNCTIONS.iter().find(|f| f.0 == name) else {
            let names = FUNCTIONS.iter().map(|f| f.0).collect::<Vec<_>>().join(", ");
            return Err(format!("`{name}` is no function; known: {names}"));
        };
        let mut args = Vec::new();
        if self.sign(&[")"]).is_none() {
            loop {
                args.push(self.or(depth + 1)?);
                match self.sign(&[",", ")"]) {
                    Some(",") => {}
                    Some(_) => break,
                    None => return Err(format!("`{name}(` is not closed")),
                }
            }
        }
        if !(*least..=*most).contains(&args.len()) {
            let want = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(format!("`{name}` takes {want} values, not {}", args.len()));
        }
        Ok(Ast::Call(*function, args))
    }
}

/// For fuzzing: any bytes are read or refused, and what was read is evaluated on known and unknown facts.
#[doc(hidden)]
pub fn fuzz_plan_expr(bytes: &[u8]) {
    struct Some7;
    impl Scope for Some7 {
        fn fact(&self, name: &str) -> Option<Val> {
            name.len().is_multiple_of(2).then_some(Val::Num(7.0))
        }
        fn facts_with(&self, prefix: &str) -> BTreeMap<String, f64> {
            BTreeMap::from([(prefix.to_owned(), 1.0)])
        }
        fn series(&self, _: Series, signal: &str) -> Option<f64> {
            signal.len().is_multiple_of(2).then_some(3.5)
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(expr) = Expr::parse(text) {
        if let Ok(Val::Num(n)) = expr.eval(&Some7) {
            assert!(n.is_finite());
        }
        let _ = (expr.holds(&Some7), expr.names());
    }
}

#[cfg(test)]
mod tests;
