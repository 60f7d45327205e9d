//! The log of deliveries: which letter goes to whom, and how that stands.

use crate::letter::{Letter, LetterKind};
use crate::notifier::SendError;
use crate::notifier::TellConfig;
use nightshift_model::hash::hash128;
use nightshift_model::{IncidentId, Timestamp};
use nightshift_store::Document;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Collection of the store that holds them, one document each by id.
pub const DELIVERIES: &str = "tell.delivery";

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DeliveryState {
    /// It has to be tried, or tried again.
    Pending,
    /// The other side took it.
    Sent,
    /// It was given up.
    Failed,
}

/// One letter to one notifier. Holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// Hash of tenant, incident, letter, topic and notifier: made again it is the same.
    pub id: String,
    /// Name of the notifier, as configured.
    pub notifier: String,
    /// Whom it reaches; no secret.
    pub to: String,
    /// Which letter.
    pub kind: LetterKind,
    /// Of which incident.
    pub incident: IncidentId,
    /// One line.
    pub subject: String,
    /// How it stands.
    pub state: DeliveryState,
    /// Tries so far.
    pub attempts: u32,
    /// What the other side answered last, when it did.
    pub last_status: Option<u16>,
    /// Why the last try failed; empty when it did not.
    #[serde(default)]
    pub last_error: String,
    /// When it was written down, before the first try.
    pub created_at: Timestamp,
    /// When it was last tried.
    pub tried_at: Option<Timestamp>,
    /// When it is tried next; `None` when it will not be.
    pub next_at: Option<Timestamp>,
    /// When it was taken or given up.
    pub ended_at: Option<Timestamp>,
    /// The letter; gone when the delivery ended, the journal can make it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub letter: Option<Box<Letter>>,
}

/// The id of the delivery of this letter to this notifier.
pub fn delivery_id(letter: &Letter, notifier: &str) -> String {
    let incident = letter.incident.to_bytes();
    let parts: [&[u8]; 5] = [
        letter.tenant.as_bytes(),
        &incident,
        letter.kind.as_str().as_bytes(),
        letter.topic.as_bytes(),
        notifier.as_bytes(),
    ];
    format!("{:032x}", hash128(&parts))
}

impl Delivery {
    /// A delivery that was not tried yet.
    pub fn new(letter: Letter, notifier: &str, to: String, now: Timestamp) -> Self {
        Self {
            id: delivery_id(&letter, notifier),
            notifier: notifier.into(),
            to,
            kind: letter.kind,
            incident: letter.incident,
            subject: letter.subject.clone(),
            state: DeliveryState::Pending,
            attempts: 0,
            last_status: None,
            last_error: String::new(),
            created_at: now,
            tried_at: None,
            next_at: Some(now),
            ended_at: None,
            letter: Some(Box::new(letter)),
        }
    }

    /// Whether it should be tried now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.state == DeliveryState::Pending && self.next_at.is_none_or(|at| at <= now)
    }

    /// Writes down how a try went. `spread` is a number in 0..1 that moves the next try by up to a half either way.
    pub fn tried(&mut self, result: &Result<Option<u16>, SendError>, now: Timestamp, config: &TellConfig, spread: f64) {
        self.attempts += 1;
        self.tried_at = Some(now);
        match result {
            Ok(status) => {
                self.last_status = *status;
                self.last_error.clear();
                self.end(DeliveryState::Sent, now);
            }
            Err(error) => {
                self.last_status = error.status();
                self.last_error = error.to_string().chars().take(300).collect();
                match error {
                    SendError::Later { retry_after_secs, .. } if self.attempts < config.attempts_max => {
                        let wait = backoff(config, self.attempts, *retry_after_secs, spread);
                        self.next_at = Some(now + wait);
                    }
                    _ => self.end(DeliveryState::Failed, now),
                }
            }
        }
    }

    /// Gives it up, with the reason.
    pub(crate) fn give_up(&mut self, why: &str, now: Timestamp) {
        self.last_error = why.into();
        self.end(DeliveryState::Failed, now);
    }

    fn end(&mut self, state: DeliveryState, now: Timestamp) {
        self.state = state;
        self.ended_at = Some(now);
        self.next_at = None;
        self.letter = None;
    }

    /// As a document of the store.
    pub fn to_document(&self) -> Document {
        let body = serde_json::to_vec(self).expect("a delivery has string keys and finite depth");
        Document { collection: DELIVERIES.into(), key: self.id.clone(), body: Some(body) }
    }

    /// From a document of the store; `None` when it is not readable.
    pub fn from_document(document: &Document) -> Option<Self> {
        serde_json::from_slice(document.body.as_deref()?).ok()
    }
}

/// How long to wait after this many tries: doubled each time, spread, bounded, and at least what the other side asks.
fn backoff(config: &TellConfig, attempts: u32, asked_secs: Option<u64>, spread: f64) -> Duration {
    let doubled = config.backoff_secs.max(1).saturating_mul(1 << attempts.saturating_sub(1).min(30));
    let spread = doubled as f64 * (0.5 + spread.clamp(0.0, 1.0));
    let most = config.backoff_max_secs.max(1) as f64;
    Duration::from_secs_f64(spread.max(asked_secs.unwrap_or(0) as f64).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_are_spread_and_bounded() {
        let config = TellConfig { backoff_secs: 2, backoff_max_secs: 60, ..TellConfig::default() };
        let wait = |n, asked, spread| backoff(&config, n, asked, spread).as_secs_f64();
        assert_eq!([wait(1, None, 0.5), wait(2, None, 0.5), wait(3, None, 0.5)], [2.0, 4.0, 8.0]);
        assert_eq!([wait(1, None, 0.0), wait(1, None, 1.0)], [1.0, 3.0]);
        assert_eq!(wait(99, None, 0.5), 60.0);
        assert_eq!([wait(1, Some(30), 0.5), wait(1, Some(1 << 60), 0.5), wait(1, Some(1), 0.5)], [30.0, 60.0, 2.0]);
        assert_eq!(wait(1, None, f64::NAN).to_bits(), wait(1, None, f64::NAN).to_bits());
    }
}
