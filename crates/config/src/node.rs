//! A TOML document as a tree in which every key and value knows where it stands.

use crate::problem::{Level, Origin, Position, Problem, Problems, SpanIndex};
use crate::{FILE_BYTES_MAX, hint};
use std::collections::BTreeSet;
use toml::de::{DeTable, DeValue};

/// A value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) origin: Origin,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    String(String),
    /// `None`: beyond 64 bits.
    Integer(Option<i64>, String),
    Float(f64, String),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) origin: Origin,
    pub(crate) value: Node,
}

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// `a.b[0].c`.
pub(crate) fn path_text(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Index(i) => out.push_str(&format!("[{i}]")),
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                // A key from a hostile file must not fill the screen or hide what follows.
                let plain = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if plain && !key.is_empty() && key.len() <= 80 {
                    out.push_str(key)
                } else {
                    out.push_str(&hint::quoted(key))
                }
            }
        }
    }
    out
}

impl Kind {
    /// Its type, for people.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::String(_) => "text",
            Self::Integer(..) => "a whole number",
            Self::Float(..) => "a number",
            Self::Boolean(_) => "true or false",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Node {
    pub(crate) fn table() -> Self {
        Self { origin: Origin::File(Position { line: 1, column: 1 }), kind: Kind::Table(Vec::new()) }
    }

    /// The value as written, shortened.
    pub(crate) fn shown(&self) -> String {
        match &self.kind {
            Kind::String(text) => hint::quoted(text),
            Kind::Integer(_, raw) | Kind::Float(_, raw) | Kind::Datetime(raw) => hint::cut(raw),
            Kind::Boolean(b) => b.to_string(),
            Kind::Array(_) | Kind::Table(_) => self.kind.name().to_owned(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Table(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }

    /// As serde reads it. Integers beyond 64 bits were reported and become 0.
    pub(crate) fn to_value(&self) -> toml::Value {
        match &self.kind {
            Kind::String(text) => toml::Value::String(text.clone()),
            Kind::Integer(i, _) => toml::Value::Integer(i.unwrap_or(0)),
            Kind::Float(x, _) => toml::Value::Float(*x),
            Kind::Boolean(b) => toml::Value::Boolean(*b),
            Kind::Datetime(raw) => raw.parse().map_or_else(|_| toml::Value::String(raw.clone()), toml::Value::Datetime),
            Kind::Array(items) => toml::Value::Array(items.iter().map(Self::to_value).collect()),
            Kind::Table(entries) => {
                toml::Value::Table(entries.iter().map(|e| (e.key.clone(), e.value.to_value())).collect())
            }
        }
    }

    /// Enters the place of every key into `spans`.
    pub(crate) fn index(&self, path: &mut Vec<Step>, spans: &mut SpanIndex) {
        let mut enter = |step: Step, origin: &Origin, node: &Self| {
            path.push(step);
            spans.insert(path_text(path), origin.clone());
            node.index(path, spans);
            path.pop();
        };
        match &self.kind {
            Kind::Table(entries) => {
                entries.iter().for_each(|e| enter(Step::Key(e.key.clone()), &e.origin, &e.value));
            }
            Kind::Array(items) => {
                items.iter().enumerate().for_each(|(i, n)| enter(Step::Index(i), &n.origin, n));
            }
            _ => {}
        }
    }
}

/// Byte offsets to lines and columns.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { text, starts }
    }

    fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.starts.partition_point(|&s| s <= offset);
        let start = self.starts[line - 1];
        Position { line, column: self.text[start..offset].chars().count() + 1 }
    }
}

/// Reads a document. What cannot be read is reported, and the rest is returned as far as it can be told apart.
pub(crate) fn parse(text: &str, file: &str, problems: &mut Problems) -> Node {
    let mut syntax = |at, message: String, hint: &str| {
        let hint = hint.to_owned();
        problems.push(Problem { level: Level::Error, file: file.into(), at, path: String::new(), message, hint });
    };
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file has {} bytes, at most {FILE_BYTES_MAX} are read", text.len());
        syntax(None, message, "is this a configuration file?");
        return Node::table();
    }
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut bad_lines = BTreeSet::new();
    for error in &errors {
        let at = error.span().map(|s| lines.position(s.start));
        // One slip makes several errors on its line; the first names it.
        if at.is_some_and(|at| !bad_lines.insert(at.line)) {
            continue;
        }
        let line = at.and_then(|at| text.lines().nth(at.line - 1)).unwrap_or_default();
        syntax(at, format!("cannot be read as TOML: {}", error.message()), hint::syntax(line, error.message()));
    }
    // What follows a header that could not be read belongs to a table that is not known.
    let is_header = |line: &str| line.trim_start().starts_with('[');
    let mut lost = false;
    for (i, line) in text.lines().enumerate() {
        if is_header(line) {
            lost = bad_lines.contains(&(i + 1));
        } else if lost {
            bad_lines.insert(i + 1);
        }
    }
    let origin = Origin::File(Position { line: 1, column: 1 });
    table(document.get_ref(), origin, &lines, &bad_lines)
}

fn table(table: &DeTable<'_>, origin: Origin, lines: &Lines<'_>, bad_lines: &BTreeSet<usize>) -> Node {
    let mut entries: Vec<(usize, Entry)> = table
        .iter()
        .filter_map(|(key, value)| {
            let at = lines.position(key.span().start);
            let value = value_node(value.get_ref(), value.span(), lines, bad_lines)?;
            // Of a line that could not be read, what was recovered is a guess: leave it out.
            let guess = bad_lines.contains(&at.line);
            let entry = Entry { key: key.get_ref().to_string(), origin: Origin::File(at), value };
            (!guess).then_some((key.span().start, entry))
        })
        .collect();
    entries.sort_by_key(|(start, _)| *start);
    Node { origin, kind: Kind::Table(entries.into_iter().map(|(_, e)| e).collect()) }
}

fn value_node(
    value: &DeValue<'_>,
    span: std::ops::Range<usize>,
    lines: &Lines<'_>,
    bad_lines: &BTreeSet<usize>,
) -> Option<Node> {
    let at = lines.position(span.start);
    let origin = Origin::File(at);
    let kind = match value {
        DeValue::Table(t) => return Some(table(t, origin, lines, bad_lines)),
        DeValue::Array(items) => {
            Kind::Array(items.iter().filter_map(|v| value_node(v.get_ref(), v.span(), lines, bad_lines)).collect())
        }
        _ if bad_lines.contains(&at.line) => return None,
        DeValue::String(text) => Kind::String(text.to_string()),
        DeValue::Integer(i) => Kind::Integer(i64::from_str_radix(i.as_str(), i.radix()).ok(), i.to_string()),
        DeValue::Float(x) => Kind::Float(x.as_str().parse().unwrap_or(f64::NAN), x.as_str().to_owned()),
        DeValue::Boolean(b) => Kind::Boolean(*b),
        DeValue::Datetime(d) => Kind::Datetime(d.to_string()),
    };
    Some(Node { origin, kind })
}

/// Reads one value, as after `key =`. Everything in it comes from `origin`.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn parse_value(text: &str, origin: &Origin) -> Result<Node, String> {
    if text.len() > FILE_BYTES_MAX {
        return Err(format!("the value has {} bytes, at most {FILE_BYTES_MAX} are read", text.len()));
    }
    let value = DeValue::parse(text).map_err(|e| e.message().to_owned())?;
    let mut node = value_node(value.get_ref(), value.span(), &Lines::new(text), &BTreeSet::new()).ok_or("no value")?;
    set_origin(&mut node, origin);
    Ok(node)
}

fn set_origin(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.kind {
        Kind::Array(items) => items.iter_mut().for_each(|n| set_origin(n, origin)),
        Kind::Table(entries) => entries.iter_mut().for_each(|e| {
            e.origin = origin.clone();
            set_origin(&mut e.value, origin);
        }),
        _ => {}
    }
}
