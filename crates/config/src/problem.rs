//! What is wrong with a configuration, where, why, and what to do about it.

use crate::PROBLEMS_MAX;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It works, but probably not as meant.
    Warning,
    /// It does not work.
    Error,
}

/// A place in a text. Both count from 1; a column counts characters, not bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// The file, or `environment variable NAME`.
    pub file: String,
    /// Where in the file, when it is in one.
    #[serde(flatten)]
    pub at: Option<Position>,
    /// The key: `collect.sources[2].interval_secs`; empty when the text itself cannot be read.
    pub path: String,
    /// What is wrong, one line.
    pub message: String,
    /// What to do about it, one line; empty when the message says it all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.at {
            write!(f, "line {}: ", at.line)?;
        }
        if self.level == Level::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if !self.hint.is_empty() {
            write!(f, "; {}", self.hint)?;
        }
        Ok(())
    }
}

/// Where each key of a file stands, so that checks that come after reading can name a line too.
#[derive(Debug, Clone, Default)]
pub struct SpanIndex {
    keys: BTreeMap<String, Origin>,
    /// Arrays from which unusable elements were taken out: for each element that is left, its index in the file.
    kept: BTreeMap<String, Vec<usize>>,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A place in the file.
    File(Position),
    /// An environment variable.
    Variable(String),
}

impl SpanIndex {
    /// Line and column of a key, or of the nearest table around it that is in the file.
    pub fn position(&self, path: &str) -> Option<Position> {
        match self.origin(&self.in_file(path)) {
            Some(Origin::File(at)) => Some(*at),
            _ => None,
        }
    }

    pub(crate) fn insert(&mut self, path: String, origin: Origin) {
        self.keys.insert(path, origin);
    }

    pub(crate) fn keep(&mut self, array: String, indices: Vec<usize>) {
        self.kept.insert(array, indices);
    }

    fn origin(&self, path: &str) -> Option<&Origin> {
        let mut path = path;
        loop {
            if let Some(origin) = self.keys.get(path) {
                return Some(origin);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The path as it is in the file: a check that runs on what could be read counts only usable array elements.
    fn in_file(&self, path: &str) -> String {
        let mut out = String::with_capacity(path.len());
        let mut rest = path;
        while let Some((before, after)) = rest.split_once('[') {
            out.push_str(before);
            let Some((index, tail)) = after.split_once(']') else { break };
            let original = index.parse().ok().and_then(|i: usize| self.kept.get(&out)?.get(i).copied());
            match original {
                Some(i) => out.push_str(&format!("[{i}]")),
                None => out.push_str(&format!("[{index}]")),
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }
}

/// Everything that is wrong with one configuration.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    file: String,
    spans: SpanIndex,
    items: Vec<Problem>,
    /// Problems beyond [`PROBLEMS_MAX`], counted only.
    dropped: usize,
    dropped_error: bool,
}

impl Problems {
    /// No problems yet, of `file`.
    pub fn new(file: impl Into<String>) -> Self {
        Self { file: file.into(), ..Self::default() }
    }

    pub(crate) fn set_spans(&mut self, spans: SpanIndex) {
        self.spans = spans;
    }

    /// Where the keys of the file stand.
    pub const fn spans(&self) -> &SpanIndex {
        &self.spans
    }

    /// Adds an error about a key; its line is looked up.
    pub fn error(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Level::Error, path, message, hint);
    }

    /// Adds a warning about a key; its line is looked up.
    pub fn warning(&mut self, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Level::Warning, path, message, hint);
    }

    /// Adds a problem about a key; its line is looked up.
    pub fn add(&mut self, level: Level, path: &str, message: impl Into<String>, hint: impl Into<String>) {
        let path = self.spans.in_file(path);
        let (file, at) = match self.spans.origin(&path) {
            Some(Origin::File(at)) => (self.file.clone(), Some(*at)),
            Some(Origin::Variable(name)) => (variable(name), None),
            None => (self.file.clone(), None),
        };
        self.push(Problem { level, file, at, path, message: message.into(), hint: hint.into() });
    }

    /// Adds a problem that knows its place: of another file, or of the text itself.
    pub fn push(&mut self, problem: Problem) {
        if self.items.len() >= PROBLEMS_MAX {
            self.dropped += 1;
            self.dropped_error |= problem.level == Level::Error;
            return;
        }
        self.items.push(problem);
    }

    /// Takes over the problems of another file.
    pub fn absorb(&mut self, other: Self) {
        self.dropped += other.dropped;
        self.dropped_error |= other.dropped_error;
        other.items.into_iter().for_each(|p| self.push(p));
    }

    /// All of them, by file and line; those of no line first.
    pub fn sorted(&self) -> Vec<&Problem> {
        let mut all: Vec<_> = self.items.iter().collect();
        all.sort_by(|a, b| (a.file != self.file, &a.file, a.at).cmp(&(b.file != self.file, &b.file, b.at)));
        all
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.dropped_error || self.items.iter().any(|p| p.level == Level::Error)
    }

    /// How many are kept.
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// For programs: `{"errors", "warnings", "problems": [{"level", "file", "line", "column", "path", …}]}`.
    pub fn to_json(&self) -> serde_json::Value {
        let errors = self.items.iter().filter(|p| p.level == Level::Error).count();
        serde_json::json!({
            "errors": errors,
            "warnings": self.items.len() - errors,
            "not_shown": self.dropped,
            "problems": self.sorted(),
        })
    }
}

pub(crate) fn variable(name: &str) -> String {
    format!("environment variable {name}")
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.items.is_empty() {
            return writeln!(f, "{}: no problems", self.file);
        }
        let sorted = self.sorted();
        for group in sorted.chunk_by(|a, b| a.file == b.file) {
            let n = group.len();
            writeln!(f, "{}: {n} problem{}", group[0].file, if n == 1 { "" } else { "s" })?;
            for problem in group {
                writeln!(f, "  {problem}")?;
            }
        }
        if self.dropped > 0 {
            writeln!(f, "and {} more, not shown: repair these first", self.dropped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_finds_its_line_or_that_of_the_table_around_it() {
        let mut spans = SpanIndex::default();
        spans.insert("api".into(), Origin::File(Position { line: 3, column: 1 }));
        spans.insert("sources[2].name".into(), Origin::File(Position { line: 9, column: 1 }));
        spans.keep("sources".into(), vec![0, 2]);
        assert_eq!(spans.position("api.listen").map(|p| p.line), Some(3));
        assert_eq!(spans.position("sources[1].name").map(|p| p.line), Some(9), "element 1 was taken out");
        assert_eq!(spans.position("other"), None);
        let mut problems = Problems { spans, ..Problems::new("f.toml") };
        problems.error("sources[1].name", "is taken", "");
        assert_eq!(problems.to_string(), "f.toml: 1 problem\n  line 9: sources[2].name: is taken\n");
    }

    #[test]
    fn a_flood_is_cut_and_says_so() {
        let mut problems = Problems::new("f.toml");
        (0..PROBLEMS_MAX).for_each(|_| problems.warning("a", "odd", ""));
        assert!(!problems.has_errors());
        problems.error("b", "bad", "");
        assert!(problems.has_errors(), "an error that is not shown still is one");
        assert!(problems.to_string().ends_with("and 1 more, not shown: repair these first\n"));
    }
}
