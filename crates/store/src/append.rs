//! Appending to a chain, the part that knows no database: every kind of store prepares its commits here.
//!
//! A draft gets its place, is encoded, *read back*, hashed and folded. Folding what was read back, and not the draft,
//! makes the projection equal to a fold of the stored bytes by construction.

use crate::{ChainHead, ChainLink, Commit, StoreError};
use nightshift_model::ids::short_incident;
use nightshift_model::journal::{self, CHAIN_START, JournalDraft, TENANT_WIDE, chain_hash};
use nightshift_model::{EventKind, Incident, IncidentId, JournalEvent};
use std::collections::{BTreeMap, BTreeSet};

/// Longest body of one event. The largest event takes over 200 symptoms of some KiB each; an export that holds a
/// longer one would be refused by its reader.
pub const BODY_BYTES_MAX: usize = 4 << 20;

/// What makes the projection: raised whenever the fold (in `nightshift-model`) or the rows made from it give something
/// else for the same journal. A database with another number is projected anew when it is opened.
pub const PROJECTION_VERSION: i64 = 2;

/// Longest key of a document, bytes: what still fits into an index entry of PostgreSQL.
const KEY_BYTES_MAX: usize = 2048;

/// The head of a chain that has no link.
pub const EMPTY_HEAD: ChainHead = ChainHead { count: 0, hash: CHAIN_START };

/// A link with what it says.
pub(crate) struct Appended {
    pub(crate) link: ChainLink,
    pub(crate) event: JournalEvent,
}

/// A journal part of a commit, ready to be written.
pub(crate) struct Prepared {
    pub(crate) appended: Vec<Appended>,
    /// New state of each incident it touched.
    pub(crate) incidents: BTreeMap<IncidentId, Incident>,
    pub(crate) head: ChainHead,
}

/// What must be known of the incidents before a journal part is prepared.
#[derive(Default)]
pub(crate) struct Existing {
    /// Those that it names and that are there.
    pub(crate) incidents: BTreeMap<IncidentId, Incident>,
    /// Those numbers it wants to give that are given already.
    pub(crate) numbers: BTreeSet<u64>,
}

/// Ids that a journal part names, each once.
pub(crate) fn named(drafts: &[JournalDraft]) -> BTreeSet<IncidentId> {
    drafts.iter().map(|d| d.incident).filter(|id| *id != TENANT_WIDE).collect()
}

/// Numbers that a journal part wants to give.
pub(crate) fn wanted_numbers(drafts: &[JournalDraft]) -> BTreeSet<u64> {
    drafts.iter().filter_map(|d| number_of(&d.event)).collect()
}

/// The same of links: incidents named, and numbers that they give.
pub(crate) fn named_by_links(links: &[ChainLink]) -> Result<(BTreeSet<IncidentId>, BTreeSet<u64>), StoreError> {
    let mut named = (BTreeSet::new(), BTreeSet::new());
    for link in links {
        let event = link.event()?;
        if event.incident != TENANT_WIDE {
            named.0.insert(event.incident);
        }
        named.1.extend(number_of(&event.event));
    }
    Ok(named)
}

const fn number_of(event: &EventKind) -> Option<u64> {
    match event {
        EventKind::Opened { number, .. } => Some(*number),
        _ => None,
    }
}

/// Puts drafts at the end of a chain and folds them.
pub(crate) fn prepare(
    tenant: &str,
    head: ChainHead,
    existing: Existing,
    drafts: Vec<JournalDraft>,
) -> Result<Prepared, StoreError> {
    let mut p = Prepared { appended: Vec::with_capacity(drafts.len()), incidents: BTreeMap::new(), head };
    let Existing { mut incidents, mut numbers } = existing;
    for draft in drafts {
        let seq = p.head.count + 1;
        let body = JournalEvent::from_draft(tenant, seq, draft).to_body();
        let event = read_body(&body).map_err(|e| StoreError::Refused(format!("a draft that {e}")))?;
        admit(&event, &incidents, &mut numbers)?;
        p.push(body, event, &mut incidents)?;
    }
    p.incidents = incidents;
    Ok(p)
}

/// Puts links that were exported elsewhere at the end of a chain, exactly as they are, and folds them.
pub(crate) fn prepare_links(
    tenant: &str,
    head: ChainHead,
    existing: Existing,
    links: Vec<ChainLink>,
) -> Result<Prepared, StoreError> {
    let mut p = Prepared { appended: Vec::with_capacity(links.len()), incidents: BTreeMap::new(), head };
    let Existing { mut incidents, mut numbers } = existing;
    for link in links {
        let seq = p.head.count + 1;
        let fault = |what: String| StoreError::Refused(format!("link {}: {what}", link.seq));
        if link.seq != seq {
            return Err(fault(format!("the chain goes on with {seq}")));
        }
        let event = read_body(&link.body).map_err(|e| fault(format!("it {e}")))?;
        if event.seq != seq || event.tenant != tenant {
            return Err(fault(format!("its body is link {} of tenant `{}`", event.seq, event.tenant)));
        }
        if chain_hash(&p.head.hash, &link.body) != link.hash {
            return Err(fault("its hash does not follow from the link before".into()));
        }
        admit(&event, &incidents, &mut numbers)?;
        p.push(link.body, event, &mut incidents)?;
    }
    p.incidents = incidents;
    Ok(p)
}

/// Reads a body that may be stored: bounded, and readable again.
pub(crate) fn read_body(body: &[u8]) -> Result<JournalEvent, String> {
    if body.len() > BODY_BYTES_MAX {
        return Err(format!("has {} bytes, at most {BODY_BYTES_MAX} are kept", body.len()));
    }
    // A number that is not finite is written as null, which is where this fails.
    JournalEvent::from_body(body).map_err(|e| format!("cannot be read back: {e}"))
}

fn admit(
    event: &JournalEvent,
    incidents: &BTreeMap<IncidentId, Incident>,
    numbers: &mut BTreeSet<u64>,
) -> Result<(), StoreError> {
    if event.event.is_tenant_wide() != (event.incident == TENANT_WIDE) {
        let what = event.event.action();
        return Err(StoreError::Refused(format!("`{what}` of incident {}: it is of another kind", event.incident)));
    }
    if event.event.is_tenant_wide() {
        return Ok(());
    }
    let known = incidents.contains_key(&event.incident);
    match number_of(&event.event) {
        Some(_) if known => Err(StoreError::Exists(format!("incident {}", event.incident))),
        Some(number) if number == 0 || i64::try_from(number).is_err() => {
            Err(StoreError::Refused(format!("incident number {number}: numbers begin at 1")))
        }
        Some(number) if !numbers.insert(number) => Err(StoreError::Exists(short_incident(number))),
        None if !known => Err(StoreError::Corrupt(format!(
            "`{}` of incident {}, which was never opened",
            event.event.action(),
            event.incident
        ))),
        _ => Ok(()),
    }
}

impl Prepared {
    fn push(
        &mut self,
        body: Vec<u8>,
        event: JournalEvent,
        incidents: &mut BTreeMap<IncidentId, Incident>,
    ) -> Result<(), StoreError> {
        if !event.event.is_tenant_wide() {
            let folded = journal::apply(incidents.remove(&event.incident), &event)
                .ok_or_else(|| StoreError::Corrupt(format!("fold `{}` into no incident", event.event.action())))?;
            incidents.insert(event.incident, folded);
        }
        self.head = ChainHead { count: event.seq, hash: chain_hash(&self.head.hash, &body) };
        self.appended.push(Appended { link: ChainLink { seq: event.seq, body, hash: self.head.hash }, event });
        Ok(())
    }
}

/// Folds all events of one incident, oldest first. `None` when they do not begin with its opening.
pub(crate) fn fold(events: &[JournalEvent]) -> Option<Incident> {
    events.iter().try_fold(None, |inc, e| journal::apply(inc, e).map(Some)).flatten()
}

/// Refuses names that one of the databases could not keep (PostgreSQL has no text with a NUL in it).
pub(crate) fn check_names(tenant: &str, commit: &Commit) -> Result<(), StoreError> {
    check_tenant(tenant)?;
    if let Some(d) = commit.documents.iter().chain(&commit.expects).find(|d| d.key.len() > KEY_BYTES_MAX) {
        let n = d.key.len();
        return Err(StoreError::Refused(format!("a key of {n} bytes in `{}`: at most {KEY_BYTES_MAX}", d.collection)));
    }
    let collections = commit.documents.iter().chain(&commit.expects).map(|d| d.collection.as_str());
    let cursors = commit.cursors.iter().flat_map(|c| [c.consumer.as_str(), c.topic.as_str()]);
    match collections.chain(cursors).find(|name| name.contains('\0')) {
        Some(name) => Err(StoreError::Refused(format!("the name {name:?}: it holds a NUL"))),
        None => Ok(()),
    }
}

/// Refuses what cannot name a tenant.
pub(crate) fn check_tenant(tenant: &str) -> Result<(), StoreError> {
    if tenant.is_empty() || tenant.len() > 255 || tenant.chars().any(char::is_control) {
        return Err(StoreError::Refused(format!("the tenant name {tenant:?}: 1 to 255 bytes, no controls")));
    }
    Ok(())
}
