//! The text formats in which programs expose metrics: Prometheus' 0.0.4 and OpenMetrics 1.0, with the quoted UTF-8
//! names of Prometheus 3. Line by line, from pieces as they come, bounded.

use nightshift_model::Timestamp;
use nightshift_model::batch::SeriesKind;
use std::borrow::Cow;

/// Bounds of one exposition.
#[derive(Debug, Clone, Copy)]
pub struct ParseLimits {
    /// Longest line, bytes.
    pub line_bytes_max: usize,
    /// Most samples.
    pub samples_max: usize,
    /// Most labels of a sample.
    pub labels_max: usize,
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self { line_bytes_max: 64 << 10, samples_max: 200_000, labels_max: 64 }
    }
}

/// Which of the two it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `text/plain; version=0.0.4`; times in milliseconds.
    Text,
    /// `application/openmetrics-text`; times in seconds, `# EOF` at the end.
    OpenMetrics,
}

impl Dialect {
    /// By the content type; what is neither is taken as text, which is what old exporters say in many words.
    pub fn of(content_type: &str) -> Self {
        let media = content_type.split(';').next().unwrap_or_default().trim();
        if media.eq_ignore_ascii_case("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// Metric name.
    pub name: Cow<'a, str>,
    /// Labels, as they come.
    pub labels: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The value.
    pub value: f64,
    /// When, if it says so.
    pub at: Option<Timestamp>,
    /// By the `TYPE` line of its family, else by its name.
    pub kind: SeriesKind,
}

/// Reads an exposition from pieces.
#[derive(Debug)]
pub struct Parser {
    dialect: Dialect,
    limits: ParseLimits,
    /// Start of a line whose end has not come yet.
    carry: Vec<u8>,
    line: usize,
    samples: usize,
    /// The family that a `TYPE` line began; its samples follow it, so that the last one is enough.
    family: String,
    family_type: Vec<u8>,
    ended: bool,
}

impl Parser {
    /// A parser of one exposition.
    pub const fn new(dialect: Dialect, limits: ParseLimits) -> Self {
        Self {
            dialect,
            limits,
            carry: Vec::new(),
            line: 0,
            samples: 0,
            family: String::new(),
            family_type: Vec::new(),
            ended: false,
        }
    }

    /// Takes the next piece and gives its samples.
    ///
    /// # Errors
    /// At the first line that is none. The whole exposition is then worth nothing, as Prometheus has it.
    pub fn push(&mut self, piece: &[u8], give: &mut impl FnMut(Sample<'_>)) -> Result<(), ParseError> {
        let mut rest = piece;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, tail) = (&rest[..end], &rest[end + 1..]);
            rest = tail;
            if self.carry.is_empty() {
                self.one(line, give)?;
            } else {
                self.keep(line)?;
                let whole = std::mem::take(&mut self.carry);
                self.one(&whole, give)?;
                self.carry = whole;
                self.carry.clear();
            }
        }
        self.keep(rest)
    }

    /// The end of the exposition.
    ///
    /// # Errors
    /// When it was cut off.
    pub fn finish(mut self, give: &mut impl FnMut(Sample<'_>)) -> Result<usize, ParseError> {
        if !self.carry.is_empty() {
            let last = std::mem::take(&mut self.carry);
            self.one(&last, give)?;
        }
        if self.dialect == Dialect::OpenMetrics && !self.ended {
            return Err(self.error("ends without `# EOF`; the answer was cut off"));
        }
        Ok(self.samples)
    }

    const fn error(&self, what: &'static str) -> ParseError {
        ParseError { line: self.line, what }
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), ParseError> {
        if self.carry.len() + part.len() > self.limits.line_bytes_max {
            self.line += 1;
            return Err(self.error("line is too long"));
        }
        self.carry.extend_from_slice(part);
        Ok(())
    }

    fn one(&mut self, line: &[u8], give: &mut impl FnMut(Sample<'_>)) -> Result<(), ParseError> {
        self.line += 1;
        if line.len() > self.limits.line_bytes_max {
            return Err(self.error("line is too long"));
        }
        let text = std::str::from_utf8(line).map_err(|_| self.error("line is not UTF-8"))?;
        let text = text.trim_matches([' ', '\t', '\r']);
        if self.ended && !text.is_empty() {
            return Err(self.error("text after `# EOF`"));
        }
        if text.is_empty() {
            return Ok(());
        }
        if let Some(comment) = text.strip_prefix('#') {
            return self.comment(comment);
        }
        self.samples += 1;
        if self.samples > self.limits.samples_max {
            return Err(self.error("more samples than are taken"));
        }
        let sample = self.sample(text).map_err(|what| self.error(what))?;
        give(sample);
        Ok(())
    }

    fn comment(&mut self, comment: &str) -> Result<(), ParseError> {
        let comment = comment.trim_start_matches([' ', '\t']);
        if comment == "EOF" && self.dialect == Dialect::OpenMetrics {
            self.ended = true;
            return Ok(());
        }
        let Some(rest) = comment.strip_prefix("TYPE").filter(|r| r.starts_with([' ', '\t'])) else { return Ok(()) };
        let rest = rest.trim_start_matches([' ', '\t']);
        let (name, rest) = if rest.starts_with('"') {
            quoted(rest).map_err(|what| self.error(what))?
        } else {
            let end = rest.find([' ', '\t']).ok_or_else(|| self.error("`# TYPE` without a type"))?;
            (Cow::Borrowed(&rest[..end]), &rest[end..])
        };
        self.family.clear();
        self.family.push_str(&name);
        self.family_type.clear();
        self.family_type.extend_from_slice(rest.trim().as_bytes());
        Ok(())
    }

    fn kind(&self, name: &str) -> SeriesKind {
        let by_name = || SeriesKind::from_metric_name(name);
        if self.family.is_empty() {
            return by_name();
        }
        let Some(suffix) = name.strip_prefix(self.family.as_str()) else { return by_name() };
        match (&self.family_type[..], suffix) {
            (b"counter", "" | "_total") => SeriesKind::Counter,
            (b"histogram", "_bucket" | "_count" | "_sum") | (b"summary", "_count" | "_sum") => SeriesKind::Counter,
            (b"gauge" | b"summary" | b"info" | b"stateset", _) | (_, "_created") | (b"gaugehistogram", _) => {
                SeriesKind::Gauge
            }
            _ => by_name(),
        }
    }

    fn sample<'a>(&self, text: &'a str) -> Result<Sample<'a>, &'static str> {
        let mut name = None;
        let mut rest = text;
        if !rest.starts_with('{') {
            let end = rest.find(['{', ' ', '\t']).ok_or("sample without a value")?;
            name = Some(Cow::Borrowed(&rest[..end]));
            rest = rest[end..].trim_start_matches([' ', '\t']);
        }
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = self.labels(inside, &mut name, &mut labels)?;
        }
        let name = name.filter(|n| !n.is_empty()).ok_or("sample without a name")?;
        // What follows an exemplar's `#` says nothing about the sample.
        let numbers = rest.split_once('#').map_or(rest, |(before, _)| before);
        let mut numbers = numbers.split([' ', '\t']).filter(|n| !n.is_empty());
        let value = number(numbers.next().ok_or("sample without a value")?).ok_or("value is not a number")?;
        let at = numbers.next().map(|t| self.time(t)).transpose()?;
        if numbers.next().is_some() {
            return Err("text after the time");
        }
        let kind = self.kind(&name);
        Ok(Sample { name, labels, value, at, kind })
    }

    fn time(&self, text: &str) -> Result<Timestamp, &'static str> {
        match self.dialect {
            Dialect::Text => text.parse().map(Timestamp::from_millis).map_err(|_| "time is not whole milliseconds"),
            Dialect::OpenMetrics => {
                number(text).and_then(Timestamp::from_secs_f64).ok_or("time is not a number of seconds")
            }
        }
    }

    /// Labels up to `}`; gives what follows. A quoted string without `=` is the metric's name.
    fn labels<'a>(
        &self,
        mut rest: &'a str,
        name: &mut Option<Cow<'a, str>>,
        labels: &mut Vec<(Cow<'a, str>, Cow<'a, str>)>,
    ) -> Result<&'a str, &'static str> {
        const OPEN: &str = "labels without `}`";
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            if let Some(after) = rest.strip_prefix('}') {
                return Ok(after);
            }
            let (key, after) = if rest.starts_with('"') {
                quoted(rest)?
            } else {
                let end = rest.find(['=', ',', '}', '"', ' ', '\t']).ok_or(OPEN)?;
                if end == 0 {
                    return Err("label without a name");
                }
                (Cow::Borrowed(&rest[..end]), &rest[end..])
            };
            let after = after.trim_start_matches([' ', '\t']);
            if let Some(value) = after.strip_prefix('=') {
                let (value, after) = quoted(value.trim_start_matches([' ', '\t']))?;
                if labels.len() >= self.limits.labels_max {
                    return Err("more labels than are taken");
                }
                if labels.iter().any(|(k, _)| *k == key) {
                    return Err("label twice");
                }
                labels.push((key, value));
                rest = after;
            } else if rest.starts_with('"') && name.is_none() {
                *name = Some(key);
                rest = after;
            } else {
                return Err("label without a value");
            }
            rest = rest.trim_start_matches([' ', '\t']);
            match rest.strip_prefix(',') {
                Some(after) => rest = after,
                None if rest.starts_with('}') => {}
                None => return Err(OPEN),
            }
        }
    }
}

/// A quoted string at the start of `text`, unescaped, and what follows it.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    const OPEN: &str = "string without its closing quote";
    let inside = text.strip_prefix('"').ok_or("label value is not quoted")?;
    let bytes = inside.as_bytes();
    let first = memchr::memchr2(b'"', b'\\', bytes).ok_or(OPEN)?;
    if bytes[first] == b'"' {
        return Ok((Cow::Borrowed(&inside[..first]), &inside[first + 1..]));
    }
    let mut out = inside[..first].to_owned();
    let mut chars = inside[first..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Cow::Owned(out), &inside[first + at + 1..])),
            '\\' => match chars.next().ok_or(OPEN)?.1 {
                'n' => out.push('\n'),
                '"' => out.push('"'),
                '\\' => out.push('\\'),
                // As Prometheus: an unknown escape is itself.
                other => out.extend(['\\', other]),
            },
            c => out.push(c),
        }
    }
    Err(OPEN)
}

/// A number as Go writes it.
fn number(text: &str) -> Option<f64> {
    // Rust reads every form of Go's but hexadecimal, which no exporter writes.
    text.parse().ok()
}

/// For fuzzing: no bytes panic, in either dialect and however they are cut, and the cut makes no difference.
#[doc(hidden)]
pub fn fuzz_exposition(bytes: &[u8]) {
    let (cut, data) = bytes.split_first().map_or((0, bytes), |(c, d)| (usize::from(*c), d));
    let limits = ParseLimits { line_bytes_max: 512, samples_max: 100, labels_max: 8 };
    for dialect in [Dialect::Text, Dialect::OpenMetrics] {
        let run = |at: usize| {
            let mut seen = 0;
            let mut give = |s: Sample<'_>| seen += 1 + s.labels.len();
            let mut parser = Parser::new(dialect, limits);
            let (a, b) = data.split_at(at.min(data.len()));
            let result = parser
                .push(a, &mut give)
                .and_then(|()| parser.push(b, &mut give))
                .and_then(|()| parser.finish(&mut give));
            (result, seen)
        };
        assert_eq!(run(0), run(cut), "where the pieces are cut makes a difference");
    }
}

#[cfg(test)]
mod tests;
