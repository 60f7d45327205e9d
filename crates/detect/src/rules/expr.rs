//! The expression language of rules: what it can say, and the parser.
//!
//! Grammar (white space between tokens is free):
//!
//! ```text
//! expr     = and { "or" and }
//! and      = not { "and" not }
//! not      = "not" not | compare
//! compare  = sum [ ("<" | "<=" | ">" | ">=" | "==" | "!=") sum ]
//! sum      = product { ("+" | "-") product }
//! product  = factor { ("*" | "/") factor }
//! factor   = "-" factor | number [unit] | call | selector | "now" "(" ")" | "(" expr ")"
//! call     = function "(" selector [ "," number unit ] ")"
//! selector = name [ "{" [ match { "," match } [","] ] "}" ]
//! match    = label ("=" | "!=" | "=~" | "!~") string
//! unit     = "%" | "ms" "s" "m" "h" "d" "w" | "B" "KB" "MB" "GB" "TB" | "KiB" "MiB" "GiB" "TiB" | "k" "M" "G"
//! ```
//!
//! Every expression has a type, number or truth, known when it is read: `5m and 3` is an error with a place, not a
//! surprise at night. Bounded: [`EXPR_BYTES_MAX`] bytes, nested [`DEPTH_MAX`] deep, [`SELECTORS_MAX`] selectors.

use nightshift_model::time::NANOS_PER_SEC;
use std::fmt;

/// Longest expression, bytes.
pub const EXPR_BYTES_MAX: usize = 4096;
/// Deepest nesting.
pub const DEPTH_MAX: usize = 32;
/// Most selectors in one expression.
pub const SELECTORS_MAX: usize = 32;
/// Longest window, seconds: a day.
pub const WINDOW_SECS_MAX: i64 = 86_400;
/// Window where none is given, seconds.
pub const WINDOW_SECS_DEFAULT: i64 = 300;
/// Bytes that a compiled regular expression may take.
const REGEX_BYTES_MAX: usize = 1 << 18;

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExprError {
    /// First byte of the place.
    pub start: usize,
    /// Byte after the place.
    pub end: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; empty when there is nothing to say.
    pub hint: String,
}

impl fmt::Display for ExprError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: {}", self.start, self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

impl std::error::Error for ExprError {}

/// What is asked of the samples that a selector finds in its window. `newest`: of each series its newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// Mean of all samples.
    Avg,
    /// Smallest sample.
    Min,
    /// Largest sample.
    Max,
    /// Sum of the newest of each series.
    Sum,
    /// Series that have a sample.
    Count,
    /// The newest sample of all.
    Last,
    /// Population standard deviation of all samples.
    Stddev,
    /// Growth a second, summed over the series; a fall is a restart from zero.
    Rate,
    /// Growth in the window, summed over the series.
    Increase,
    /// Newest minus oldest, summed over the series.
    Delta,
    /// How often the value changed, summed over the series.
    Changes,
    /// Growth a second of the straight line through the samples (least squares), summed over the series.
    Slope,
    /// Truth: it was there before and is not in the window.
    Absent,
}

impl Function {
    /// Every function by its name.
    pub const ALL: &[(&'static str, Self)] = &[
        ("avg", Self::Avg),
        ("min", Self::Min),
        ("max", Self::Max),
        ("sum", Self::Sum),
        ("count", Self::Count),
        ("last", Self::Last),
        ("stddev", Self::Stddev),
        ("rate", Self::Rate),
        ("increase", Self::Increase),
        ("delta", Self::Delta),
        ("changes", Self::Changes),
        ("slope", Self::Slope),
        ("absent", Self::Absent),
    ];
}

/// Test of one label.
#[derive(Debug, Clone)]
pub enum Test {
    /// Equal; an absent label is empty.
    Is(String),
    /// Not equal.
    Not(String),
    /// Matches as a whole.
    Like(Box<regex::Regex>),
    /// Does not match as a whole.
    Unlike(Box<regex::Regex>),
}

/// Which series.
#[derive(Debug, Clone)]
pub struct Selector {
    /// Name of the metric.
    pub metric: String,
    /// Tests of its labels.
    pub tests: Vec<(String, Test)>,
}

impl Selector {
    /// Whether a series of this metric with these labels (looked up by name, absent is empty) is meant.
    pub fn matches<'a>(&self, label: impl Fn(&str) -> &'a str) -> bool {
        self.tests.iter().all(|(name, test)| match test {
            Test::Is(want) => label(name) == want,
            Test::Not(want) => label(name) != want,
            Test::Like(regex) => regex.is_match(label(name)),
            Test::Unlike(regex) => !regex.is_match(label(name)),
        })
    }
}

/// One way to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `<`
    Less,
    /// `<=`
    LessEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterEqual,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

/// One way to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Sub,
    /// `*`
    Mul,
    /// `/`
    Div,
}

/// A number.
#[derive(Debug, Clone)]
pub enum Num {
    /// Written down.
    Literal(f64),
    /// Event time, Unix seconds.
    Now,
    /// A function of selector `selector` over `window_ns`.
    Call {
        /// Which function; never [`Function::Absent`].
        function: Function,
        /// Index into [`Expr::selectors`].
        selector: usize,
        /// Nanoseconds.
        window_ns: i64,
    },
    /// `-x`
    Neg(Box<Num>),
    /// Two numbers.
    Two(Arithmetic, Box<(Num, Num)>),
}

/// A truth.
#[derive(Debug, Clone)]
pub enum Truth {
    /// A comparison.
    Compare(Compare, Box<(Num, Num)>),
    /// `absent(…)`
    Absent {
        /// Index into [`Expr::selectors`].
        selector: usize,
        /// Nanoseconds.
        window_ns: i64,
    },
    /// `not`
    Not(Box<Truth>),
    /// `and`
    And(Box<(Truth, Truth)>),
    /// `or`
    Or(Box<(Truth, Truth)>),
}

/// A condition, ready to be asked.
#[derive(Debug, Clone)]
pub struct Expr {
    /// What is asked.
    pub root: Truth,
    /// The selectors in it, each once per place.
    pub selectors: Vec<Selector>,
    /// Longest window in it, nanoseconds.
    pub window_ns: i64,
    /// Whether `absent` is in it: then it is asked when time passes, too.
    pub has_absent: bool,
}

impl Expr {
    /// Reads an expression that is a condition.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(text: &str) -> Result<Self, ExprError> {
        if text.len() > EXPR_BYTES_MAX {
            return Err(ExprError {
                start: 0,
                end: 0,
                message: format!("the expression has {} bytes, at most {EXPR_BYTES_MAX} are read", text.len()),
                hint: "split it into several rules".into(),
            });
        }
        let mut p = Parser { text, at: 0, depth: 0, selectors: Vec::new(), window_ns: 0, has_absent: false };
        p.blank();
        if p.at == text.len() {
            return Err(p.error_here("the expression is empty", "write a condition, as in `avg(up, 5m) < 1`"));
        }
        let any = p.or()?;
        p.blank();
        if p.at < text.len() {
            let word = p.peek_word();
            let hint = match word {
                "AND" | "&&" => "write `and`",
                "OR" | "||" => "write `or`",
                _ => "",
            };
            let what = p.rest().chars().next().unwrap_or(' ');
            return Err(p.error_here(
                &format!("unexpected `{}`", if word.is_empty() { what.to_string() } else { word.into() }),
                hint,
            ));
        }
        let root = p.truth(any)?;
        Ok(Self { root, selectors: p.selectors, window_ns: p.window_ns, has_absent: p.has_absent })
    }
}

/// An expression whose type is known, and where it stands.
struct Typed {
    what: Either,
    start: usize,
    end: usize,
}

enum Either {
    Num(Num),
    Truth(Truth),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    selectors: Vec<Selector>,
    window_ns: i64,
    has_absent: bool,
}

type Parsed<T> = Result<T, ExprError>;

const KEYWORDS: &[&str] = &["and", "or", "not"];

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn blank(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn error(start: usize, end: usize, message: &str, hint: &str) -> ExprError {
        ExprError { start, end, message: message.into(), hint: hint.into() }
    }

    fn error_here(&self, message: &str, hint: &str) -> ExprError {
        Self::error(self.at, (self.at + 1).min(self.text.len()), message, hint)
    }

    /// Takes `token` if it stands here.
    fn take(&mut self, token: &str) -> bool {
        self.blank();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn peek_word(&self) -> &'a str {
        let rest = self.rest();
        let sign = |c: char| matches!(c, '&' | '|');
        let end = if rest.starts_with(sign) {
            rest.find(|c| !sign(c))
        } else {
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | ':')))
        };
        &rest[..end.unwrap_or(rest.len())]
    }

    /// Takes a keyword.
    fn keyword(&mut self, word: &str) -> bool {
        self.blank();
        let found = self.peek_word() == word;
        if found {
            self.at += word.len();
        }
        found
    }

    fn deeper<T>(&mut self, f: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return Err(
                self.error_here(&format!("nested deeper than {DEPTH_MAX}"), "use fewer parentheses or several rules")
            );
        }
        self.depth += 1;
        let out = f(self);
        self.depth -= 1;
        out
    }

    fn truth(&self, typed: Typed) -> Parsed<Truth> {
        match typed.what {
            Either::Truth(truth) => Ok(truth),
            Either::Num(_) => Err(Self::error(
                typed.start,
                typed.end,
                "this is a number, a condition is needed",
                "compare it, as in `… > 5`",
            )),
        }
    }

    fn num(&self, typed: Typed) -> Parsed<Num> {
        match typed.what {
            Either::Num(num) => Ok(num),
            Either::Truth(_) => Err(Self::error(
                typed.start,
                typed.end,
                "this is a condition, a number is needed",
                "conditions are joined with `and`, `or` and `not`, and compared with nothing",
            )),
        }
    }

    fn or(&mut self) -> Parsed<Typed> {
        let mut left = self.and()?;
        while self.keyword("or") {
            let right = self.and()?;
            let (start, end) = (left.start, right.end);
            let what = Either::Truth(Truth::Or(Box::new((self.truth(left)?, self.truth(right)?))));
            left = Typed { what, start, end };
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Typed> {
        let mut left = self.not()?;
        while self.keyword("and") {
            let right = self.not()?;
            let (start, end) = (left.start, right.end);
            let what = Either::Truth(Truth::And(Box::new((self.truth(left)?, self.truth(right)?))));
            left = Typed { what, start, end };
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed<Typed> {
        self.blank();
        let start = self.at;
        if self.keyword("not") {
            let inner = self.deeper(Self::not)?;
            let end = inner.end;
            return Ok(Typed { what: Either::Truth(Truth::Not(Box::new(self.truth(inner)?))), start, end });
        }
        self.compare()
    }

    fn compare_sign(&mut self) -> Option<Compare> {
        const SIGNS: [(&str, Compare); 6] = [
            ("<=", Compare::LessEqual),
            (">=", Compare::GreaterEqual),
            ("==", Compare::Equal),
            ("!=", Compare::NotEqual),
            ("<", Compare::Less),
            (">", Compare::Greater),
        ];
        SIGNS.into_iter().find(|(sign, _)| self.take(sign)).map(|(_, compare)| compare)
    }

    fn compare(&mut self) -> Parsed<Typed> {
        let left = self.sum()?;
        self.blank();
        if self.rest().starts_with('=') && !self.rest().starts_with("==") {
            return Err(self.error_here("`=` compares nothing", "write `==`"));
        }
        let Some(sign) = self.compare_sign() else { return Ok(left) };
        let right = self.sum()?;
        let (start, end) = (left.start, right.end);
        let pair = Box::new((self.num(left)?, self.num(right)?));
        self.blank();
        let here = self.at;
        if self.compare_sign().is_some() {
            return Err(Self::error(
                here,
                self.at,
                "a comparison cannot be compared",
                "join two comparisons with `and`",
            ));
        }
        Ok(Typed { what: Either::Truth(Truth::Compare(sign, pair)), start, end })
    }

    fn sum(&mut self) -> Parsed<Typed> {
        self.chain(&[("+", Arithmetic::Add), ("-", Arithmetic::Sub)], Self::product)
    }

    fn product(&mut self) -> Parsed<Typed> {
        self.chain(&[("*", Arithmetic::Mul), ("/", Arithmetic::Div)], Self::factor)
    }

    fn chain(&mut self, signs: &[(&str, Arithmetic)], inner: fn(&mut Self) -> Parsed<Typed>) -> Parsed<Typed> {
        let mut left = inner(self)?;
        // Each step nests the tree once more, so it is bounded like any nesting.
        let mut links = 0;
        while let Some((_, op)) = signs.iter().find(|(sign, _)| self.take(sign)) {
            links += 1;
            if links > DEPTH_MAX {
                return Err(self.error_here(&format!("more than {DEPTH_MAX} terms"), "split the expression"));
            }
            let right = inner(self)?;
            let (start, end) = (left.start, right.end);
            let pair = Box::new((self.num(left)?, self.num(right)?));
            left = Typed { what: Either::Num(Num::Two(*op, pair)), start, end };
        }
        Ok(left)
    }

    fn factor(&mut self) -> Parsed<Typed> {
        self.blank();
        let start = self.at;
        let typed = |p: &Self, what| Typed { what, start, end: p.at };
        if self.take("(") {
            let mut inner = self.deeper(Self::or)?;
            if !self.take(")") {
                return Err(Self::error(start, start + 1, "`(` is never closed", "add `)`"));
            }
            (inner.start, inner.end) = (start, self.at);
            return Ok(inner);
        }
        if self.take("-") {
            let inner = self.deeper(Self::factor)?;
            let num = self.num(inner)?;
            return Ok(typed(self, Either::Num(Num::Neg(Box::new(num)))));
        }
        let Some(first) = self.rest().chars().next() else {
            return Err(self.error_here("the expression ends too early", "a number, a function or a metric is missing"));
        };
        if first.is_ascii_digit() || first == '.' {
            let (value, _) = self.literal()?;
            return Ok(typed(self, Either::Num(Num::Literal(value))));
        }
        if !(first.is_ascii_alphabetic() || first == '_') {
            return Err(
                self.error_here(&format!("unexpected `{first}`"), "a number, a function or a metric is missing")
            );
        }
        let word = self.peek_word();
        if KEYWORDS.contains(&word) {
            return Err(Self::error(start, start + word.len(), &format!("`{word}` has nothing on one side"), ""));
        }
        self.at += word.len();
        self.blank();
        if !self.rest().starts_with('(') {
            self.at = start;
            let selector = self.selector()?;
            let window_ns = WINDOW_SECS_DEFAULT * NANOS_PER_SEC;
            self.window_ns = self.window_ns.max(window_ns);
            return Ok(typed(self, Either::Num(Num::Call { function: Function::Last, selector, window_ns })));
        }
        if word == "now" {
            self.take("(");
            if !self.take(")") {
                return Err(self.error_here("`now` takes nothing", "write `now()`"));
            }
            return Ok(typed(self, Either::Num(Num::Now)));
        }
        let Some((_, function)) = Function::ALL.iter().find(|(name, _)| *name == word) else {
            let names = || Function::ALL.iter().map(|(name, _)| *name);
            let hint = nearest(word, names()).map_or_else(
                || format!("functions are {}", names().collect::<Vec<_>>().join(", ")),
                |name| format!("did you mean `{name}`?"),
            );
            return Err(Self::error(start, start + word.len(), &format!("there is no function `{word}`"), &hint));
        };
        self.take("(");
        let open = self.at - 1;
        let selector = self.selector()?;
        let mut window_ns = WINDOW_SECS_DEFAULT * NANOS_PER_SEC;
        if self.take(",") {
            self.blank();
            let at = self.at;
            let (seconds, unit) = self.literal()?;
            if !matches!(unit, "ms" | "s" | "m" | "h" | "d" | "w") {
                return Err(Self::error(at, self.at, "the window has no unit of time", "write it as `5m` or `30s`"));
            }
            if !(seconds > 0.0 && seconds <= WINDOW_SECS_MAX as f64) {
                let hint = format!("use a window above 0 and up to {WINDOW_SECS_MAX}s");
                return Err(Self::error(at, self.at, "the window is out of range", &hint));
            }
            window_ns = (seconds * NANOS_PER_SEC as f64) as i64;
        }
        self.blank();
        if self.rest().starts_with('[') {
            return Err(self.error_here("windows are not written in brackets", &format!("write `{word}(metric, 5m)`")));
        }
        if !self.take(")") {
            return Err(Self::error(open, open + 1, "`(` is never closed", &format!("write `{word}(metric, 5m)`")));
        }
        self.window_ns = self.window_ns.max(window_ns);
        if *function == Function::Absent {
            self.has_absent = true;
            return Ok(typed(self, Either::Truth(Truth::Absent { selector, window_ns })));
        }
        Ok(typed(self, Either::Num(Num::Call { function: *function, selector, window_ns })))
    }

    /// A number and its unit; the value is in the base unit: seconds, bytes, a share of one.
    fn literal(&mut self) -> Parsed<(f64, &'a str)> {
        let start = self.at;
        let rest = self.rest();
        let mut end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(rest.len());
        // 1e9, 2.5E-3; but `5e` is a unit that does not exist.
        let tail = &rest.as_bytes()[end..];
        if matches!(tail.first(), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(tail.get(1), Some(b'+' | b'-')));
            let digits = tail[1 + sign..].iter().take_while(|b| b.is_ascii_digit()).count();
            if digits > 0 {
                end += 1 + sign + digits;
            }
        }
        let digits = rest[..end].replace('_', "");
        self.at += end;
        let value = digits.parse::<f64>().ok().filter(|v| v.is_finite());
        let Some(value) = value else {
            return Err(Self::error(start, self.at, &format!("`{}` is not a number", &rest[..end]), ""));
        };
        let after = self.rest();
        let unit = if after.starts_with('%') { "%" } else { self.peek_word() };
        let scale = match unit {
            "" => 1.0,
            "%" => 0.01,
            "ms" => 0.001,
            "s" | "B" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            "k" | "KB" => 1e3,
            "M" | "MB" => 1e6,
            "G" | "GB" => 1e9,
            "TB" => 1e12,
            "KiB" => 1024.0,
            "MiB" => 1_048_576.0,
            "GiB" => 1_073_741_824.0,
            "TiB" => 1_099_511_627_776.0,
            _ => {
                let end = self.at + unit.len();
                let hint = "units are % ms s m h d w B KB MB GB TB KiB MiB GiB TiB k M G";
                return Err(Self::error(self.at, end, &format!("there is no unit `{unit}`"), hint));
            }
        };
        self.at += unit.len();
        Ok((value * scale, unit))
    }

    fn selector(&mut self) -> Parsed<usize> {
        self.blank();
        let start = self.at;
        let metric = self.peek_word();
        let named = metric.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
        if !named || KEYWORDS.contains(&metric) {
            return Err(self.error_here("the name of a metric is missing", "as in `avg(node_load1, 5m)`"));
        }
        self.at += metric.len();
        self.blank();
        if self.rest().starts_with('(') {
            return Err(Self::error(
                start,
                self.at,
                "functions take a metric, not another function",
                "use one function per metric",
            ));
        }
        let mut tests = Vec::new();
        if self.take("{") {
            let open = self.at - 1;
            loop {
                if self.take("}") {
                    break;
                }
                self.blank();
                let label = self.peek_word();
                if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err(if self.at >= self.text.len() {
                        Self::error(open, open + 1, "`{` is never closed", "add `}`")
                    } else {
                        self.error_here("the name of a label is missing", "as in `{job=\"api\"}`")
                    });
                }
                self.at += label.len();
                let test = self.test()?;
                tests.push((label.to_owned(), test));
                if !self.take(",") && !self.take("}") {
                    return Err(if self.at >= self.text.len() {
                        Self::error(open, open + 1, "`{` is never closed", "add `}`")
                    } else {
                        self.error_here("`,` or `}` is missing", "")
                    });
                } else if self.text[..self.at].ends_with('}') {
                    break;
                }
            }
        }
        if self.selectors.len() >= SELECTORS_MAX {
            return Err(Self::error(start, self.at, &format!("more than {SELECTORS_MAX} metrics"), "split the rule"));
        }
        self.selectors.push(Selector { metric: metric.to_owned(), tests });
        Ok(self.selectors.len() - 1)
    }

    fn test(&mut self) -> Parsed<Test> {
        let sign = ["=~", "!~", "!=", "="].into_iter().find(|sign| self.take(sign));
        let Some(sign) = sign else {
            return Err(self.error_here("`=`, `!=`, `=~` or `!~` is missing", ""));
        };
        self.blank();
        let start = self.at;
        let text = self.string()?;
        let regex = |text: &str| {
            regex::RegexBuilder::new(&format!("^(?:{text})$"))
                .size_limit(REGEX_BYTES_MAX)
                .build()
                .map(Box::new)
                .map_err(|e| {
                    let line = e.to_string();
                    let why = line
                        .lines()
                        .rev()
                        .find_map(|l| l.strip_prefix("error: "))
                        .unwrap_or("it is too large")
                        .to_owned();
                    Self::error(
                        start,
                        self.at,
                        &format!("the regular expression cannot be used: {why}"),
                        "see the syntax of the regex crate",
                    )
                })
        };
        Ok(match sign {
            "=" => Test::Is(text),
            "!=" => Test::Not(text),
            "=~" => Test::Like(regex(&text)?),
            _ => Test::Unlike(regex(&text)?),
        })
    }

    fn string(&mut self) -> Parsed<String> {
        let start = self.at;
        let mut chars = self.rest().char_indices();
        let Some((_, quote @ ('"' | '\''))) = chars.next() else {
            return Err(self.error_here("a text in quotes is missing", "as in `{job=\"api\"}`"));
        };
        let mut out = String::new();
        while let Some((i, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.at += i + c.len_utf8();
                    return Ok(out);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\''))) => out.push(c),
                    Some((_, '\\')) => out.push('\\'),
                    Some((_, 'n')) => out.push('\n'),
                    // Regular expressions are full of these: `\.` stays as it is.
                    Some((_, c)) => out.extend(['\\', c]),
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(Self::error(start, start + 1, "the text is never closed", &format!("add `{quote}`")))
    }
}

/// The name that is most like `word`, if one is at most two edits away and more than half the same.
pub(super) fn nearest<'a>(word: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.to_lowercase().chars().take(64).collect();
    names
        .map(|name| (edits(&word, &name.chars().collect::<Vec<_>>()), name))
        .filter(|(edits, name)| *edits <= 2 && *edits * 2 < name.len().max(2))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Levenshtein's distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

/// For the fuzzer: any text is read or refused.
#[doc(hidden)]
pub fn fuzz_rule_expr(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Expr::parse(&text) {
        Ok(expr) => assert!(expr.selectors.len() <= SELECTORS_MAX),
        Err(e) => {
            assert!(e.start <= e.end && e.end <= text.len(), "{e:?}");
            assert!(text.is_char_boundary(e.start), "{e:?}");
        }
    }
}

#[cfg(test)]
mod tests;
