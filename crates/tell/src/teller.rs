//! The teller: reads the journal from its own cursor, writes deliveries down, and sends them.
//!
//! It stands beside the loop, never in it: it only reads what the loop has made durable, and a receiver that is slow
//! or away costs it time and nobody else. A delivery is in the store before its first try, in the same commit that
//! moves the cursor, so a crash loses none and begins none anew under another id. What a crash between sending and
//! writing that down sends twice carries the same id.

use crate::delivery::{DELIVERIES, Delivery, DeliveryState};
use crate::letter::{Detail, Letter, letters};
use crate::notifier::{Attempt, Notifier, TellConfig, Wants};
use crate::postmortem::stored_postmortem;
use nightshift_model::{Clock, EventKind, Incident, JournalEvent};
use nightshift_store::{Commit, Cursor, Document, Store, StoreError};
use rand::Rng;
use rand::rngs::SmallRng;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The name its cursor goes by.
pub const CONSUMER: &str = "teller";
/// The "topic" of its cursor: the journal itself.
const JOURNAL: &str = "journal";
/// Rows read in one turn.
const ROWS: usize = 256;
/// Letters that one notifier is sent in one turn at most, so that a turn ends even when each takes its whole time.
const SENDS_MAX: usize = 16;

/// A notifier with its name and what it wants.
pub struct Receiver {
    /// As configured.
    pub name: String,
    /// Which letters it is sent.
    pub wants: Wants,
    /// How it is reached.
    pub notifier: Box<dyn Notifier>,
}

/// Builds all notifiers of a configuration.
///
/// # Errors
/// What is wrong with each that cannot be built: its name and one line. No secret.
pub fn receivers(config: &TellConfig) -> Result<Vec<Receiver>, Vec<(String, String)>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (name, kind) in &config.notifiers {
        match kind.build() {
            Ok(notifier) => good.push(Receiver { name: name.clone(), wants: kind.wants().clone(), notifier }),
            Err(why) => bad.push((name.clone(), why)),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// What a turn did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    /// Rows of the journal read.
    pub rows: usize,
    /// Deliveries written down.
    pub queued: usize,
    /// Tries that were taken.
    pub sent: usize,
    /// Tries that were not.
    pub failed: usize,
    /// Letters passed over because they were too old to begin with.
    pub stale: usize,
}

impl Told {
    /// Whether anything happened: another turn may find more at once.
    pub const fn progressed(&self) -> bool {
        self.rows > 0 || self.sent > 0 || self.failed > 0
    }
}

/// What is known of one tenant.
struct Tenant {
    /// Next row of the journal.
    next: u64,
    /// Every delivery that is kept, by id.
    deliveries: BTreeMap<String, Delivery>,
}

/// Tells people what the journal says.
pub struct Teller {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    receivers: Vec<Receiver>,
    config: TellConfig,
    rng: SmallRng,
    tenants: BTreeMap<String, Tenant>,
}

impl Teller {
    /// A teller that goes on where the last one stopped. `rng` spreads the waits between tries.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        receivers: Vec<Receiver>,
        config: TellConfig,
        rng: SmallRng,
    ) -> Self {
        Self { store, clock, receivers, config, rng, tenants: BTreeMap::new() }
    }

    /// One round over all tenants: new rows become deliveries, those that are due are tried.
    ///
    /// # Errors
    /// When the store fails. The next turn begins at the same row; what was sent and could not be written down is
    /// sent again under the same id.
    pub async fn turn(&mut self) -> Result<Told, StoreError> {
        let mut told = Told::default();
        for tenant in self.store.tenants().await? {
            if !self.tenants.contains_key(&tenant) {
                let loaded = self.load(&tenant).await?;
                self.tenants.insert(tenant.clone(), loaded);
            }
            self.read(&tenant, &mut told).await?;
            self.send(&tenant, &mut told).await?;
        }
        Ok(told)
    }

    /// Until when nothing is to be sent: the earliest next try; `None` when nothing waits.
    pub fn next_due(&self) -> Option<nightshift_model::Timestamp> {
        let waiting = self.tenants.values().flat_map(|t| t.deliveries.values());
        waiting.filter(|d| d.state == DeliveryState::Pending).filter_map(|d| d.next_at).min()
    }

    async fn load(&self, tenant: &str) -> Result<Tenant, StoreError> {
        let cursors = self.store.cursors(tenant, CONSUMER).await?;
        let next = cursors.first().map_or(1, |c| c.next_offset);
        let documents = self.store.documents(tenant, DELIVERIES).await?;
        let mut deliveries = BTreeMap::new();
        for document in &documents {
            match Delivery::from_document(document) {
                Some(delivery) => {
                    deliveries.insert(delivery.id.clone(), delivery);
                }
                None => tracing::warn!(key = %document.key, "a delivery is not readable and is left alone"),
            }
        }
        Ok(Tenant { next, deliveries })
    }

    /// Turns new rows into deliveries; they and the cursor are one commit.
    async fn read(&mut self, tenant: &str, told: &mut Told) -> Result<(), StoreError> {
        let Some(state) = self.tenants.get(tenant) else { return Ok(()) };
        let rows = self.store.journal(tenant, state.next, ROWS).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        let now = self.clock.now();
        let after = last.seq + 1;
        let mut new: BTreeMap<String, Delivery> = BTreeMap::new();
        for row in rows.iter().filter(|r| may_tell(&r.event)) {
            let Some(incident) = self.store.incident(tenant, row.incident).await? else { continue };
            let Some(letter) = self.letter(row, &incident).await? else { continue };
            if now.since(letter.at) > Duration::from_secs(self.config.letter_age_max_secs) {
                told.stale += 1;
                continue;
            }
            for receiver in self.receivers.iter().filter(|r| r.wants.takes(&letter)) {
                let delivery = Delivery::new(letter.clone(), &receiver.name, receiver.notifier.to(), now);
                if !state.deliveries.contains_key(&delivery.id) {
                    new.entry(delivery.id.clone()).or_insert(delivery);
                }
            }
        }
        let mut documents: Vec<Document> = new.values().map(Delivery::to_document).collect();
        let gone = surplus(&state.deliveries, self.config.deliveries_kept);
        documents.extend(gone.iter().map(|id| Document { collection: DELIVERIES.into(), key: id.clone(), body: None }));
        let cursor = Cursor { consumer: CONSUMER.into(), topic: JOURNAL.into(), partition: 0, next_offset: after };
        let commit = Commit { documents, cursors: vec![cursor], ..Commit::default() };
        self.store.commit(tenant, commit).await?;
        told.rows += rows.len();
        told.queued += new.len();
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.next = after;
            gone.iter().for_each(|id| {
                state.deliveries.remove(id);
            });
            state.deliveries.extend(new);
        }
        Ok(())
    }

    /// The letter of a row, with the postmortem's text where it is one.
    async fn letter(&self, row: &JournalEvent, incident: &Incident) -> Result<Option<Letter>, StoreError> {
        let Some(mut letter) = letters(row, incident) else { return Ok(None) };
        if let Detail::Postmortem { markdown, sha256, .. } = &mut letter.detail {
            let kept = stored_postmortem(&*self.store, &row.tenant, row.incident).await?;
            // One that was written anew since is told by its own row.
            if let Some(kept) = kept.filter(|p| p.sha256() == *sha256) {
                let n = kept.facts.action_items.len() as u64;
                letter.lines.push(crate::text::count(n, "action item with a due date", "action items with due dates"));
                *markdown = Some(kept.markdown);
            }
        }
        Ok(Some(letter))
    }

    /// Tries what is due. Receivers are independent of each other; letters to one go in the order of the journal.
    async fn send(&mut self, tenant: &str, told: &mut Told) -> Result<(), StoreError> {
        let now = self.clock.now();
        let Some(state) = self.tenants.get(tenant) else { return Ok(()) };
        let mut due: BTreeMap<&str, Vec<Delivery>> = BTreeMap::new();
        for delivery in state.deliveries.values().filter(|d| d.is_due(now)) {
            due.entry(&delivery.notifier).or_default().push(delivery.clone());
        }
        if due.is_empty() {
            return Ok(());
        }
        let mut tried: Vec<Delivery> = Vec::new();
        let mut sending = Vec::new();
        for (name, mut list) in due {
            list.sort_by_key(|d| (d.letter.as_ref().map(|l| l.seq), d.id.clone()));
            list.truncate(SENDS_MAX);
            match self.receivers.iter().find(|r| r.name == name) {
                Some(receiver) => sending.push(send_all(receiver, list, &self.clock)),
                None => tried.extend(list.into_iter().map(|mut d| {
                    d.give_up("the notifier is no longer configured", now);
                    told.failed += 1;
                    d
                })),
            }
        }
        for (mut delivery, result) in futures::future::join_all(sending).await.into_iter().flatten() {
            let at = self.clock.now();
            let spread = self.rng.random::<f64>();
            delivery.tried(&result, at, &self.config, spread);
            match &result {
                Ok(_) => told.sent += 1,
                Err(error) => {
                    told.failed += 1;
                    let (notifier, attempts) = (&delivery.notifier, delivery.attempts);
                    tracing::warn!(%notifier, attempts, letter = %delivery.kind, state = ?delivery.state, "tell: {error}");
                }
            }
            tried.push(delivery);
        }
        let documents = tried.iter().map(Delivery::to_document).collect();
        self.store.commit(tenant, Commit { documents, ..Commit::default() }).await?;
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.deliveries.extend(tried.into_iter().map(|d| (d.id.clone(), d)));
        }
        Ok(())
    }
}

type Tried = (Delivery, Result<Option<u16>, crate::notifier::SendError>);

/// Sends these to one receiver, one after the other. The first that could not be taken *now* ends it: the others wait
/// for the next turn instead of each waiting out the same timeout.
async fn send_all(receiver: &Receiver, list: Vec<Delivery>, clock: &Arc<dyn Clock>) -> Vec<Tried> {
    let mut out = Vec::new();
    for delivery in list {
        let result = match &delivery.letter {
            Some(letter) => {
                let attempt = Attempt { delivery: &delivery.id, number: delivery.attempts + 1, at: clock.now() };
                receiver.notifier.send(attempt, letter).await
            }
            None => Err(crate::notifier::SendError::Never { why: "the letter is lost".into(), status: None }),
        };
        let away = matches!(&result, Err(crate::notifier::SendError::Later { status: None, .. }));
        out.push((delivery, result));
        if away {
            break;
        }
    }
    out
}

/// Whether rows of this kind can give a letter: the incident is not read for the others.
const fn may_tell(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::Opened { .. }
            | EventKind::Assessed { .. }
            | EventKind::Reopened { .. }
            | EventKind::CausesRanked { .. }
            | EventKind::Judged { .. }
            | EventKind::ApprovalRequested { .. }
            | EventKind::Resolved { .. }
            | EventKind::PostmortemWritten { .. }
            | EventKind::Escalated { .. }
    )
}

/// Ids of the oldest deliveries that ended, beyond as many as are kept.
fn surplus(deliveries: &BTreeMap<String, Delivery>, kept: usize) -> Vec<String> {
    let over = deliveries.len().saturating_sub(kept);
    if over == 0 {
        return Vec::new();
    }
    let mut ended: Vec<_> = deliveries.values().filter(|d| d.state != DeliveryState::Pending).collect();
    ended.sort_by(|a, b| (a.ended_at, &a.id).cmp(&(b.ended_at, &b.id)));
    ended.into_iter().take(over).map(|d| d.id.clone()).collect()
}
