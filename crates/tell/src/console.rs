//! Letters as lines on this process's output.

use crate::letter::{Letter, LetterKind};
use crate::notifier::{Attempt, Notifier, SendError, Wants};
use crate::text::time_of_day;
use async_trait::async_trait;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::Write;

/// Lines on this process's output.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConsoleConfig {
    /// Where they go.
    pub stream: Stream,
    /// Only the first line of each letter.
    pub brief: bool,
    /// Which letters.
    #[serde(flatten)]
    pub wants: Wants,
}

/// An output of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Beside the log.
    #[default]
    Stderr,
    /// Where a command's answer goes.
    Stdout,
}

/// Writes letters to a stream.
pub struct Console {
    out: Mutex<Box<dyn Write + Send>>,
    to: &'static str,
    brief: bool,
}

impl Console {
    /// On the stream that is configured.
    pub fn new(config: &ConsoleConfig) -> Self {
        let (out, to): (Box<dyn Write + Send>, _) = match config.stream {
            Stream::Stderr => (Box::new(std::io::stderr()), "stderr"),
            Stream::Stdout => (Box::new(std::io::stdout()), "stdout"),
        };
        Self { out: Mutex::new(out), to, brief: config.brief }
    }

    /// On any writer: a live view, a test.
    pub fn on(out: Box<dyn Write + Send>, brief: bool) -> Self {
        Self { out: Mutex::new(out), to: "writer", brief }
    }
}

/// A letter as lines: one that says it all, and (unless `brief`) what to know and to type, indented.
pub fn to_lines(letter: &Letter, brief: bool) -> String {
    let word = match letter.kind {
        LetterKind::Alert => "ALERT",
        LetterKind::Cause => "CAUSE",
        LetterKind::Plan => "PLAN",
        LetterKind::Resolved => "RESOLVED",
        LetterKind::Postmortem => "POSTMORTEM",
        LetterKind::Escalated => "ESCALATED",
    };
    let time = time_of_day(letter.at);
    let mut out =
        format!("{time}  {}  {:<8}  {word:<10}  {}\n", letter.incident_short, letter.severity, letter.subject);
    if brief {
        return out;
    }
    for line in &letter.lines {
        // Writing into a String cannot fail.
        let _ = writeln!(out, "          {line}");
    }
    // A question is worth its commands; the others only fill the screen.
    if letter.answers.iter().any(|a| a.verb == "approve") {
        for answer in letter.answers.iter().filter(|a| matches!(a.verb.as_str(), "approve" | "reject")) {
            let _ = writeln!(out, "          to {}:  {}", answer.verb, answer.command);
        }
    }
    if let Some(read) = letter.answers.iter().find(|a| a.verb == "read") {
        let _ = writeln!(out, "          {}", read.command);
    }
    out
}

#[async_trait]
impl Notifier for Console {
    fn kind(&self) -> &'static str {
        "console"
    }

    fn to(&self) -> String {
        self.to.into()
    }

    async fn send(&self, _: Attempt<'_>, letter: &Letter) -> Result<Option<u16>, SendError> {
        let text = to_lines(letter, self.brief);
        let mut out = self.out.lock();
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        written.map(|()| None).map_err(|e| SendError::Later {
            why: format!("write to {}: {e}", self.to),
            status: None,
            retry_after_secs: None,
        })
    }
}
