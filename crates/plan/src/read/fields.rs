//! Reading single values, with the mistake told where it stands.

use super::PROBLEMS_MAX;
use crate::expr::Expr;
use nightshift_topology::yaml::{Node, Problem, Value, nearest};
use std::str::FromStr;

/// Longest text of one field, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What was found wrong so far.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn problem(&mut self, line: u64, message: impl Into<String>, hint: impl Into<String>) {
        // A file of a million mistakes must not become a million strings.
        if self.problems.len() < 10 * PROBLEMS_MAX {
            self.problems.push(Problem { line, message: message.into(), hint: hint.into() });
        }
    }

    pub(super) fn text(&mut self, field: &str, node: Node) -> Option<String> {
        match node.value {
            Value::Null => None,
            Value::Scalar(text) if text.len() > TEXT_BYTES_MAX => {
                let message = format!("`{field}` has {} bytes", text.len());
                self.problem(node.line, message, format!("at most {TEXT_BYTES_MAX}"));
                None
            }
            Value::Scalar(text) if text.trim().is_empty() => {
                self.problem(node.line, format!("`{field}` is empty"), "give it a value or remove the key");
                None
            }
            Value::Scalar(text) => Some(text.trim().to_owned()),
            other => {
                self.problem(node.line, format!("`{field}` is {}, expected one value", other.what()), "");
                None
            }
        }
    }

    /// A word of a closed list.
    pub(super) fn word<T: FromStr>(
        &mut self,
        field: &str,
        node: Node,
        names: impl Iterator<Item = &'static str> + Clone,
    ) -> Option<T> {
        let line = node.line;
        let text = self.text(field, node)?;
        if let Ok(found) = text.parse::<T>() {
            return Some(found);
        }
        let mut hint = nearest(&text, names.clone());
        if hint.is_empty() {
            hint = format!("one of {}", names.collect::<Vec<_>>().join(", "));
        }
        let shown: String = text.chars().take(80).collect();
        self.problem(line, format!("{field} `{shown}` is not known"), hint);
        None
    }

    pub(super) fn expr(&mut self, field: &str, node: Node) -> Option<Expr> {
        let line = node.line;
        let text = self.text(field, node)?;
        Expr::parse(&text)
            .map_err(|e| self.problem(line, format!("`{field}`: {e}"), "see docs/playbooks.md, Expressions"))
            .ok()
    }

    pub(super) fn list(&mut self, field: &str, node: Node, most: usize) -> Vec<Node> {
        match node.value {
            Value::Null => Vec::new(),
            Value::List(items) if items.len() > most => {
                self.problem(node.line, format!("`{field}` has {} entries", items.len()), format!("at most {most}"));
                Vec::new()
            }
            Value::List(items) => items,
            other => {
                let hint = "begin each entry with `- `";
                self.problem(node.line, format!("`{field}` is {}, expected a list", other.what()), hint);
                Vec::new()
            }
        }
    }

    pub(super) fn list_or_one(&mut self, field: &str, node: Node, most: usize) -> Vec<Node> {
        if matches!(node.value, Value::Scalar(_)) { vec![node] } else { self.list(field, node, most) }
    }

    pub(super) fn unknown_key(&mut self, line: u64, key: &str, known: &[&str], of: &str) {
        let mut hint = nearest(key, known.iter().copied());
        if hint.is_empty() {
            hint = format!("known keys: {}", known.join(", "));
        }
        let shown: String = key.chars().take(80).collect();
        self.problem(line, format!("unknown key `{shown}` of {of}"), hint);
    }
}

/// The entries of one map, each taken once.
pub(super) struct Fields {
    pub(super) line: u64,
    of: &'static str,
    entries: Vec<(String, Node)>,
}

impl Fields {
    /// Takes a map apart; keys that nobody knows are told.
    pub(super) fn read(r: &mut Reader, node: Node, keys: &[&str], of: &'static str) -> Self {
        let line = node.line;
        let mut entries = Vec::new();
        match node.value {
            Value::Map(map) => {
                for (key, node) in map {
                    if keys.contains(&key.text.as_str()) {
                        entries.push((key.text, node));
                    } else {
                        r.unknown_key(key.line, &key.text, keys, of);
                    }
                }
            }
            other => r.problem(line, format!("{of} is {}, expected a map", other.what()), ""),
        }
        Self { line, of, entries }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|(k, _)| k == key)
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Node> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.swap_remove(at).1)
    }

    pub(super) fn text(&mut self, r: &mut Reader, key: &str) -> Option<String> {
        let node = self.take(key)?;
        r.text(key, node)
    }

    pub(super) fn need_text(&mut self, r: &mut Reader, key: &str, why: &str) -> Option<String> {
        if !self.has(key) {
            r.problem(self.line, format!("{} has no `{key}`", self.of), why);
        }
        self.text(r, key)
    }

    /// A name: lower-case letters, digits, `_` and `-`.
    pub(super) fn name(&mut self, r: &mut Reader, key: &str) -> Option<String> {
        let line = self.entries.iter().find(|(k, _)| k == key).map_or(self.line, |(_, n)| n.line);
        let text = self.need_text(r, key, "lower-case letters, digits, `_` and `-`")?;
        let fine = text.len() <= NAME_BYTES_MAX
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if fine {
            return Some(text);
        }
        let shown: String = text.chars().take(80).collect();
        let hint = format!("lower-case letters, digits, `_` and `-`, at most {NAME_BYTES_MAX}");
        r.problem(line, format!("{key} `{shown}` is no name"), hint);
        None
    }

    pub(super) fn word<T: FromStr>(
        &mut self,
        r: &mut Reader,
        key: &str,
        names: impl Iterator<Item = &'static str> + Clone,
    ) -> Option<T> {
        let node = self.take(key)?;
        r.word(key, node, names)
    }

    pub(super) fn boolean(&mut self, r: &mut Reader, key: &str) -> Option<bool> {
        let node = self.take(key)?;
        let line = node.line;
        match r.text(key, node)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                let shown: String = other.chars().take(80).collect();
                r.problem(line, format!("`{key}` is `{shown}`"), "write true or false");
                None
            }
        }
    }

    /// A number within a range, both ends included.
    pub(super) fn number(&mut self, r: &mut Reader, key: &str, least: f64, most: f64) -> Option<f64> {
        let node = self.take(key)?;
        let line = node.line;
        let text = r.text(key, node)?;
        let value = text.parse::<f64>().ok().filter(|v| (least..=most).contains(v));
        if value.is_none() {
            let shown: String = text.chars().take(80).collect();
            r.problem(line, format!("`{key}` is `{shown}`"), format!("a number from {least} to {most}"));
        }
        value
    }

    pub(super) fn whole(&mut self, r: &mut Reader, key: &str, least: u32, most: u32) -> Option<u32> {
        let node = self.take(key)?;
        let line = node.line;
        let text = r.text(key, node)?;
        let value = text.parse::<u32>().ok().filter(|v| (least..=most).contains(v));
        if value.is_none() {
            let shown: String = text.chars().take(80).collect();
            r.problem(line, format!("`{key}` is `{shown}`"), format!("a whole number from {least} to {most}"));
        }
        value
    }

    pub(super) fn texts(&mut self, r: &mut Reader, key: &str, most: usize) -> Vec<String> {
        let Some(node) = self.take(key) else { return Vec::new() };
        r.list_or_one(key, node, most).into_iter().filter_map(|n| r.text(key, n)).collect()
    }
}
