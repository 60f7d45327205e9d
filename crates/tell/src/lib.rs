//! Telling people: console lines, signed webhooks, postmortems.
//!
//! Lives here: the notifier seam with its kinds, the log of deliveries with retries, and the postmortem in Markdown,
//! every sentence of which is backed by a row of the journal.
//!
//! Never here: decisions. It is never in the way of the loop: what cannot be told is kept, retried and shown.

mod console;
mod delivery;
mod letter;
#[cfg(test)]
mod letter_tests;
mod notifier;
mod postmortem;
mod sign;
mod teller;
#[cfg(test)]
mod teller_tests;
mod text;
mod webhook;

pub use console::{Console, ConsoleConfig, Stream, to_lines};
pub use delivery::{DELIVERIES, Delivery, DeliveryState, delivery_id};
pub use letter::{
    Answer, Detail, LETTER_VERSION, Letter, LetterKind, StepLine, approve_command, letters, reject_command,
};
pub use notifier::{Attempt, Notifier, NotifierConfig, SendError, TellConfig, Wants};
pub use postmortem::{
    ActionItem, CauseFact, ConfirmedBy, Ending, Facts, People, PlanFact, Postmortem, Responsible, postmortem,
    stored_postmortem,
};
pub use sign::{DELIVERY_HEADER, SIGNATURE_HEADER, SignatureError, TOLERANCE_SECS, sign, verify};
pub use teller::{CONSUMER, Receiver, Teller, Told, receivers};
pub use webhook::{Message, WEBHOOK_VERSION, Webhook, WebhookConfig};

#[doc(hidden)]
pub use sign::fuzz_signature;
