//! Joins lines that belong together: a stack trace is one log entry.
//!
//! Lives here: the decision where an entry begins and ends. Never here: files, time (it is passed in).

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What makes a line the continuation of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MultilineMode {
    /// Nothing: each line is an entry.
    Off,
    /// It is indented, or is a known part of a stack trace ("Caused by:").
    #[default]
    Indentation,
    /// It does not match `start_pattern`.
    StartPattern,
}

/// How lines are joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MultilineConfig {
    /// What makes a line the continuation of the one before.
    pub mode: MultilineMode,
    /// Regular expression that the first line of an entry matches; for mode `start_pattern`.
    pub start_pattern: String,
    /// Most lines of one entry; the next one begins a new entry.
    #[schemars(range(min = 2, max = 10_000))]
    pub lines_max: usize,
    /// Most bytes of one entry; the next line begins a new entry.
    #[schemars(range(min = 1_024, max = 1_048_576))]
    pub bytes_max: usize,
    /// How long an entry waits for a further line, milliseconds.
    #[schemars(range(min = 0, max = 60_000))]
    pub wait_ms: u64,
}

impl Default for MultilineConfig {
    fn default() -> Self {
        Self {
            mode: MultilineMode::Indentation,
            start_pattern: String::new(),
            lines_max: 500,
            bytes_max: 256 << 10,
            wait_ms: 1000,
        }
    }
}

/// The rule, checked.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    config: MultilineConfig,
    start: Option<Arc<Regex>>,
}

impl MultilineConfig {
    /// Checks the pattern.
    ///
    /// # Errors
    /// It is missing, or no regular expression.
    pub(crate) fn build(&self) -> Result<Rule, String> {
        let start = match self.mode {
            MultilineMode::StartPattern if self.start_pattern.is_empty() => {
                return Err("multiline.mode is `start_pattern`: set multiline.start_pattern".into());
            }
            MultilineMode::StartPattern => {
                let made = regex::RegexBuilder::new(&self.start_pattern).size_limit(1 << 20).build();
                Some(Arc::new(made.map_err(|e| format!("multiline.start_pattern is no regular expression: {e}"))?))
            }
            _ => None,
        };
        Ok(Rule { config: self.clone(), start })
    }
}

impl Rule {
    /// Whether an entry must wait for what may follow it.
    fn joins(&self) -> bool {
        self.config.mode != MultilineMode::Off
    }

    fn continues(&self, line: &str) -> bool {
        match self.config.mode {
            MultilineMode::Off => false,
            MultilineMode::Indentation => {
                line.starts_with([' ', '\t'])
                    || ["Caused by: ", "Suppressed: ", "... "].iter().any(|p| line.starts_with(p))
            }
            MultilineMode::StartPattern => self.start.as_ref().is_some_and(|r| !r.is_match(line)),
        }
    }
}

/// An entry's text, and the position in the file just after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub text: String,
    pub end: u64,
}

/// Joins the lines of one file.
#[derive(Debug)]
pub(crate) struct Joiner {
    rule: Rule,
    pending: Option<Joined>,
    lines: usize,
    /// Milliseconds, of any clock that never goes back, when the last line came.
    touched_ms: u64,
}

impl Joiner {
    pub(crate) const fn new(rule: Rule) -> Self {
        Self { rule, pending: None, lines: 0, touched_ms: 0 }
    }

    /// Takes the next line, which ends at `end`; gives the entry that it completes.
    pub(crate) fn push(&mut self, line: String, end: u64, now_ms: u64) -> Option<Joined> {
        self.touched_ms = now_ms;
        if !self.rule.joins() {
            return Some(Joined { text: line, end });
        }
        let config = &self.rule.config;
        if let Some(pending) = &mut self.pending
            && self.lines < config.lines_max
            && pending.text.len() + line.len() < config.bytes_max
            && self.rule.continues(&line)
        {
            pending.text.push('\n');
            pending.text.push_str(&line);
            pending.end = end;
            self.lines += 1;
            return None;
        }
        self.lines = 1;
        self.pending.replace(Joined { text: line, end })
    }

    /// The entry that has waited long enough.
    pub(crate) fn due(&mut self, now_ms: u64) -> Option<Joined> {
        if now_ms.saturating_sub(self.touched_ms) >= self.rule.config.wait_ms { self.pending.take() } else { None }
    }

    /// The last entry: nothing follows.
    pub(crate) fn finish(&mut self) -> Option<Joined> {
        self.pending.take()
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }
}

/// For the fuzzer: the first byte chooses the mode, the rest is text. Joining loses no line and keeps to its bounds.
#[doc(hidden)]
pub fn fuzz_files_multiline(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let mode = match choice % 3 {
        0 => MultilineMode::Off,
        1 => MultilineMode::Indentation,
        _ => MultilineMode::StartPattern,
    };
    let config = MultilineConfig { mode, start_pattern: r"^\S".into(), lines_max: 4, bytes_max: 1024, wait_ms: 1 };
    let Ok(rule) = config.build() else { return };
    let mut joiner = Joiner::new(rule);
    let text = crate::lines::clean(rest);
    let mut entries = Vec::new();
    for (i, line) in text.split('\n').enumerate() {
        entries.extend(joiner.push(line.to_owned(), i as u64, 0));
    }
    entries.extend(joiner.finish());
    assert!(entries.iter().all(|e| e.text.split('\n').count() <= 4), "at most lines_max lines");
    let joined = entries.iter().map(|e| e.text.as_str()).collect::<Vec<_>>().join("\n");
    assert_eq!(joined, text, "every line is in exactly one entry, in order");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(config: MultilineConfig, lines: &[&str]) -> Vec<String> {
        let mut joiner = Joiner::new(config.build().unwrap());
        let mut out: Vec<_> =
            lines.iter().enumerate().filter_map(|(i, l)| joiner.push((*l).to_owned(), i as u64, 0)).collect();
        out.extend(joiner.finish());
        out.into_iter().map(|e| e.text).collect()
    }

    #[test]
    fn a_stack_trace_is_one_entry() {
        let lines = ["ERROR x", "\tat a.b(C.java:1)", "Caused by: y", "  ... 3 more", "INFO next"];
        assert_eq!(
            join(MultilineConfig::default(), &lines),
            ["ERROR x\n\tat a.b(C.java:1)\nCaused by: y\n  ... 3 more", "INFO next"]
        );
    }

    #[test]
    fn a_start_pattern_decides_alone() {
        let config = MultilineConfig {
            mode: MultilineMode::StartPattern,
            start_pattern: r"^\d{4}-".into(),
            ..MultilineConfig::default()
        };
        assert_eq!(
            join(config, &["tail of before", "2026-01 a", "b", " c", "2026-02 d"]),
            ["tail of before", "2026-01 a\nb\n c", "2026-02 d"]
        );
    }

    #[test]
    fn bounds_end_an_entry() {
        let config = MultilineConfig { lines_max: 2, ..MultilineConfig::default() };
        assert_eq!(join(config, &["a", " b", " c", " d"]), ["a\n b", " c\n d"]);
        let config = MultilineConfig { bytes_max: 5, ..MultilineConfig::default() };
        assert_eq!(join(config, &["aaa", " b", "c"]), ["aaa", " b", "c"]);
        let off = MultilineConfig { mode: MultilineMode::Off, ..MultilineConfig::default() };
        assert_eq!(join(off, &["a", " b"]), ["a", " b"]);
    }

    #[test]
    fn an_entry_waits_only_so_long() {
        let mut joiner = Joiner::new(MultilineConfig::default().build().unwrap());
        assert_eq!(joiner.push("a".into(), 2, 1000), None);
        assert_eq!(joiner.due(1999), None);
        assert_eq!(joiner.due(2000), Some(Joined { text: "a".into(), end: 2 }));
        assert_eq!(joiner.due(9000), None);
    }

    #[test]
    fn bad_patterns_are_told() {
        for (pattern, word) in
            [("", "set multiline.start_pattern"), ("(", "no regular expression"), ("a{1000}{1000}", "no regular")]
        {
            let config = MultilineConfig {
                mode: MultilineMode::StartPattern,
                start_pattern: pattern.into(),
                ..MultilineConfig::default()
            };
            assert!(config.build().unwrap_err().contains(word), "{pattern}");
        }
    }

    #[test]
    fn corpus_is_joined() {
        crate::corpus::replay("files_multiline", fuzz_files_multiline);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            fuzz_files_multiline(&bytes);
        }
        #[test]
        fn indented_lines_too(text in "[\0-\x02]([ \ta-c]{0,4}\n){0,20}") {
            fuzz_files_multiline(text.as_bytes());
        }
    }
}
