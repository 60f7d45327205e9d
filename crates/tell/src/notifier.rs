//! The notifier seam: one small trait, and the config enum that builds its kinds.

use crate::console::{Console, ConsoleConfig};
use crate::letter::{Letter, LetterKind};
use crate::webhook::{Webhook, WebhookConfig};
use async_trait::async_trait;
use nightshift_model::{Severity, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Why a letter did not arrive. No variant holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Trying again may help.
    #[error("{why}")]
    Later {
        /// Why, one line.
        why: String,
        /// What the other side answered, when it did.
        status: Option<u16>,
        /// Seconds for which the other side asked us to wait.
        retry_after_secs: Option<u64>,
    },
    /// It will not be taken however often it is tried.
    #[error("{why}")]
    Never {
        /// Why, one line.
        why: String,
        /// What the other side answered, when it did.
        status: Option<u16>,
    },
}

impl SendError {
    /// What the other side answered, when it did.
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Later { status, .. } | Self::Never { status, .. } => *status,
        }
    }
}

/// One try of one delivery.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// Id of the delivery: equal in every try, so that a receiver can drop what it has.
    pub delivery: &'a str,
    /// From 1.
    pub number: u32,
    /// When it is made.
    pub at: Timestamp,
}

/// One way to tell people. It is given one letter at a time and keeps none.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// `console`, `webhook` …
    fn kind(&self) -> &'static str;

    /// Whom it reaches, for people to read; no secret.
    fn to(&self) -> String;

    /// Sends one letter. Returns the other side's status, where there is one. Must end by itself.
    ///
    /// # Errors
    /// See [`SendError`].
    async fn send(&self, attempt: Attempt<'_>, letter: &Letter) -> Result<Option<u16>, SendError>;
}

/// A notifier as configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NotifierConfig {
    /// Lines on this process's output.
    Console(ConsoleConfig),
    /// JSON to a URL, signed.
    Webhook(WebhookConfig),
}

/// Which letters a notifier wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Wants {
    /// Least severity of an incident that it is told of.
    pub severity_min: Severity,
    /// The letters that it is sent; empty: all of them.
    pub letters: Vec<LetterKind>,
}

impl Default for Wants {
    fn default() -> Self {
        Self { severity_min: Severity::Medium, letters: Vec::new() }
    }
}

impl Wants {
    /// Whether this letter is for it.
    pub fn takes(&self, letter: &Letter) -> bool {
        letter.severity >= self.severity_min && (self.letters.is_empty() || self.letters.contains(&letter.kind))
    }
}

impl NotifierConfig {
    /// Which letters it wants.
    pub const fn wants(&self) -> &Wants {
        match self {
            Self::Console(c) => &c.wants,
            Self::Webhook(c) => &c.wants,
        }
    }

    /// Checks the values and builds it. Nothing is sent.
    ///
    /// # Errors
    /// What is wrong, one line; no secret.
    pub fn build(&self) -> Result<Box<dyn Notifier>, String> {
        match self {
            Self::Console(c) => Ok(Box::new(Console::new(c))),
            Self::Webhook(c) => Ok(Box::new(Webhook::new(c)?)),
        }
    }
}

/// How people are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TellConfig {
    /// Notifiers by name. None: nobody is told, everything still is in the journal.
    pub notifiers: BTreeMap<String, NotifierConfig>,
    /// Tries of one letter at most, the first one included.
    #[schemars(range(min = 1, max = 20))]
    pub attempts_max: u32,
    /// Seconds before the second try; doubled before each further one, and spread by up to a half either way.
    #[schemars(range(min = 1, max = 3600))]
    pub backoff_secs: u64,
    /// Longest wait between two tries, in seconds, also where the other side asks for more.
    #[schemars(range(min = 1, max = 86400))]
    pub backoff_max_secs: u64,
    /// Seconds after which a letter is not worth beginning with: what happened longer ago than this when it is read
    /// (after an outage, or when a notifier is new) is passed over.
    #[schemars(range(min = 60, max = 604_800))]
    pub letter_age_max_secs: u64,
    /// Deliveries that are kept after they ended; the oldest go first.
    #[schemars(range(min = 100, max = 1_000_000))]
    pub deliveries_kept: usize,
}

impl Default for TellConfig {
    fn default() -> Self {
        Self {
            notifiers: BTreeMap::new(),
            attempts_max: 3,
            backoff_secs: 2,
            backoff_max_secs: 300,
            letter_age_max_secs: 3_600,
            deliveries_kept: 10_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_the_public_name_and_secrets_do_not_print() {
        let text =
            r#"{"type":"webhook","url":"https://x.example/hook/hunter2","secret":"hunter3","severity_min":"high"}"#;
        let config: NotifierConfig = serde_json::from_str(text).unwrap();
        assert_eq!(config.wants().severity_min, Severity::High);
        let built = config.build().unwrap();
        assert_eq!((built.kind(), built.to().as_str()), ("webhook", "https://x.example"));
        let shown = format!("{config:?} {}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter"), "{shown}");
        let config: NotifierConfig = serde_json::from_str(r#"{"type":"console"}"#).unwrap();
        assert_eq!(config.build().unwrap().kind(), "console");
        assert!(serde_json::from_str::<NotifierConfig>(r#"{"type":"pigeon"}"#).is_err());
    }

    /// As people write it: shared keys stand beside the kind's own, and a slip is told with the nearest right name.
    #[test]
    fn the_file_is_read_and_slips_are_found() {
        use nightshift_config::{Level, SystemSecrets, load};
        let read = |text: &str| load::<TellConfig>(text, "x.toml", Vec::new(), &SystemSecrets, Level::Error);
        let good = "attempts_max = 5\n[notifiers.a]\ntype = \"webhook\"\nurl = \"https://x.example/\"\nseverity_min = \"high\"\nletters = [\"alert\", \"plan\"]\n[notifiers.b]\ntype = \"console\"\nbrief = true\n";
        let loaded = read(good);
        assert!(loaded.problems.is_empty(), "{}", loaded.problems);
        let config = loaded.config;
        assert_eq!(config.attempts_max, 5);
        assert_eq!(config.notifiers["a"].wants().letters, [LetterKind::Alert, LetterKind::Plan]);
        assert_eq!(config.notifiers["b"].wants(), &Wants::default());
        for (from, to, want) in [
            ("severity_min", "severity_mn", "severity_min"),
            ("\"high\"", "\"huge\"", "high"),
            ("\"plan\"", "\"plans\"", "plan"),
            ("attempts_max = 5", "attempts_max = 0", "attempts_max"),
            ("\"console\"", "\"consol\"", "console"),
        ] {
            let told = read(&good.replace(from, to)).problems.to_string();
            assert!(told.contains(want), "{to}: {told}");
        }
    }
}
