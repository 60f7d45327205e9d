//! Is the record whole? Verification of a chain and its projection, and chains as files.
//!
//! What is covered: the journal (every byte, its order, its end) and the incidents folded from it. What is not:
//! anomalies, changes, documents and cursors, which are no record of decisions.

mod export;

pub use export::{EXPORT_LINE_BYTES_MAX, ExportError, ExportSummary, export, fuzz_audit_export, import, verify_export};

use crate::head::to_hex;
use crate::rows::{self, IncidentRow};
use crate::{ChainHead, ChainLink, EMPTY_HEAD, HeadFiles, Store, StoreError};
use nightshift_model::journal::chain_hash;
use nightshift_model::{Incident, IncidentId};
use serde::Serialize;

/// Links read at a time.
const PAGE: usize = 500;
/// Differences of the projection that are told one by one.
const PROJECTION_FAULTS_MAX: usize = 20;

/// What kind of damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A sequence number is missing, double or out of order.
    Gap,
    /// The hash does not follow from the link before and the body.
    Altered,
    /// The body is intact but cannot be read.
    Undecodable,
    /// The body belongs to another tenant or place.
    Misplaced,
    /// The database cannot give the links back.
    Unreadable,
    /// The database's own note of the end is not the end.
    HeadRow,
    /// The chain ends before what was noted outside the database.
    CutTail,
    /// The chain has another link where the note outside the database has its end.
    Rewritten,
    /// The note outside the database is not readable.
    HeadFile,
    /// An incident is not what its journal says.
    Projection,
}

impl FaultKind {
    /// What it means and what to do, one line.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Gap => "events were removed or inserted: compare with an export or a backup",
            Self::Altered => "this event, its hash or the one before was changed after it was written",
            Self::Undecodable => "a newer version wrote it, or it was written by something else",
            Self::Misplaced => "an event was moved here from another place or tenant",
            Self::Unreadable => "the rows are damaged: check the disk, restore a backup",
            Self::HeadRow => "rows were removed or added without nightshift: compare with an export or a backup",
            Self::CutTail => "acknowledged events are gone: a backup was restored, or the end was cut off",
            Self::Rewritten => "the chain was replaced by another, consistent in itself, since that was noted",
            Self::HeadFile => {
                "whether the end was cut off cannot be told: restore the file, or remove it if you know why"
            }
            Self::Projection => "only the lists people see are wrong, not the record: `rebuild` makes them anew",
        }
    }

    /// Whether `rebuild` repairs it.
    pub fn is_repairable(self) -> bool {
        self == Self::Projection
    }
}

/// One piece of damage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The link where it shows, if it is in the chain.
    pub seq: Option<u64>,
    /// What was found, one line.
    pub detail: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(seq) = self.seq {
            write!(f, "link {seq}: ")?;
        }
        write!(f, "{} ({})", self.detail, self.kind.meaning())
    }
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditReport {
    /// Whose chain.
    pub tenant: String,
    /// Links that are good, from the first on.
    pub links: u64,
    /// Hash of the last good one, hexadecimal.
    pub hash: String,
    /// Whether there was a note outside the database to compare with. Without one a cut tail cannot be seen.
    pub outside_head: bool,
    /// Damage: the first bad link (what follows it proves nothing), what the heads say, and the projection.
    pub faults: Vec<Fault>,
}

impl AuditReport {
    /// Whether nothing is wrong.
    pub fn is_ok(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Verifies every tenant, of the database and of the notes outside it: one that was removed whole is found too.
///
/// # Errors
/// As [`verify`].
pub async fn verify_all(store: &dyn Store, files: &HeadFiles) -> Result<Vec<AuditReport>, StoreError> {
    // First, so that none is missed that appears meanwhile in the other.
    let mut tenants = files.tenants()?;
    tenants.extend(store.tenants().await?);
    tenants.sort_unstable();
    tenants.dedup();
    let mut reports = Vec::with_capacity(tenants.len());
    for tenant in tenants {
        let (outside, unreadable) = match files.read(&tenant) {
            Err(StoreError::Corrupt(detail)) => (None, Some(Fault { kind: FaultKind::HeadFile, seq: None, detail })),
            other => (other?, None),
        };
        let mut report = verify(store, &tenant, outside).await?;
        report.faults.extend(unreadable);
        reports.push(report);
    }
    Ok(reports)
}

/// Walks a tenant's chain from its first link, and compares its end and its projection.
///
/// `outside` is what [`crate::HeadFiles::read`] gives. A chain that grows meanwhile is verified up to where it ended at
/// the beginning.
///
/// # Errors
/// When the store cannot be read. Damage is no error but part of the report.
pub async fn verify(store: &dyn Store, tenant: &str, outside: Option<ChainHead>) -> Result<AuditReport, StoreError> {
    let mut faults = Vec::new();
    // Before the walk: a link that comes meanwhile must not look like one too many.
    let head = match store.chain_head(tenant).await {
        Err(StoreError::Corrupt(detail)) => {
            faults.push(Fault { kind: FaultKind::HeadRow, seq: None, detail });
            None
        }
        other => Some(other?),
    };
    let mut walk = Walk::new(tenant, outside);
    let stop = head.map_or(u64::MAX, |h| h.count);
    'pages: while walk.end.count < stop {
        let page = match store.chain(tenant, walk.end.count + 1, PAGE).await {
            Err(StoreError::Corrupt(detail)) => {
                let seq = Some(walk.end.count + 1);
                faults.push(Fault { kind: FaultKind::Unreadable, seq, detail });
                break;
            }
            other => other?,
        };
        if page.is_empty() {
            break;
        }
        for link in page.iter().take_while(|l| l.seq <= stop) {
            if let Err(fault) = walk.step(link) {
                faults.push(fault);
                break 'pages;
            }
        }
        if page.last().is_some_and(|l| l.seq > stop) {
            break;
        }
    }
    let chain_is_good = faults.is_empty();
    if chain_is_good && let Some(head) = head.filter(|h| *h != walk.end) {
        let detail = format!("the database notes an end at {} and the chain ends at {}", text(head), text(walk.end));
        faults.push(Fault { kind: FaultKind::HeadRow, seq: None, detail });
    }
    if chain_is_good {
        faults.extend(surplus(store, tenant, walk.end.count, head).await?);
        faults.extend(walk.outside_fault());
    }
    let detail = match store.check_projection(tenant, PROJECTION_FAULTS_MAX).await {
        Err(StoreError::Corrupt(detail)) => vec![detail],
        other => other?,
    };
    faults.extend(detail.into_iter().map(|detail| Fault { kind: FaultKind::Projection, seq: None, detail }));
    Ok(AuditReport {
        tenant: tenant.into(),
        links: walk.end.count,
        hash: to_hex(&walk.end.hash),
        outside_head: outside.is_some(),
        faults,
    })
}

/// A link beyond the head that the database notes: it was not there a moment ago or nightshift did not write it.
async fn surplus(
    store: &dyn Store,
    tenant: &str,
    end: u64,
    head: Option<ChainHead>,
) -> Result<Option<Fault>, StoreError> {
    let beyond = store.chain(tenant, end + 1, 1).await?;
    let grown = Some(store.chain_head(tenant).await?) != head;
    Ok(beyond.first().filter(|_| !grown).map(|link| Fault {
        kind: FaultKind::HeadRow,
        seq: Some(link.seq),
        detail: format!("the chain goes on after its end, {end}"),
    }))
}

/// The state of a walk along a chain, from its start.
struct Walk<'a> {
    tenant: &'a str,
    end: ChainHead,
    outside: Option<ChainHead>,
    /// The hash that the chain has where the note outside has its end.
    at_outside: Option<[u8; 32]>,
}

impl<'a> Walk<'a> {
    fn new(tenant: &'a str, outside: Option<ChainHead>) -> Self {
        let at_outside = outside.filter(|o| o.count == 0).map(|_| EMPTY_HEAD.hash);
        Self { tenant, end: EMPTY_HEAD, outside, at_outside }
    }

    fn step(&mut self, link: &ChainLink) -> Result<(), Fault> {
        let want = self.end.count + 1;
        let fault = |kind, detail: String| Err(Fault { kind, seq: Some(want), detail });
        if link.seq != want {
            return fault(FaultKind::Gap, format!("after link {} comes {}", self.end.count, link.seq));
        }
        let hash = chain_hash(&self.end.hash, &link.body);
        if hash != link.hash {
            return fault(FaultKind::Altered, "its hash does not follow from its body and the link before".into());
        }
        let event = match link.event() {
            Ok(event) => event,
            Err(e) => return fault(FaultKind::Undecodable, e.to_string()),
        };
        if event.seq != want || event.tenant != self.tenant {
            let detail = format!("its body is link {} of tenant `{}`", event.seq, event.tenant);
            return fault(FaultKind::Misplaced, detail);
        }
        self.end = ChainHead { count: want, hash };
        if self.outside.is_some_and(|o| o.count == want) {
            self.at_outside = Some(hash);
        }
        Ok(())
    }

    fn outside_fault(&self) -> Option<Fault> {
        let outside = self.outside?;
        if outside.count > self.end.count {
            let detail = format!("{} were noted outside the database, {} are left", outside.count, self.end.count);
            return Some(Fault { kind: FaultKind::CutTail, seq: Some(self.end.count + 1), detail });
        }
        if self.at_outside != Some(outside.hash) {
            let detail = format!("the hash noted outside the database is {}", to_hex(&outside.hash));
            return Some(Fault { kind: FaultKind::Rewritten, seq: Some(outside.count), detail });
        }
        None
    }
}

fn text(head: ChainHead) -> String {
    format!("{} ({})", head.count, &to_hex(&head.hash)[..12])
}

pub(crate) fn never_opened(id: IncidentId) -> StoreError {
    StoreError::Corrupt(format!("the journal of incident {id} does not begin with its opening"))
}

/// What is wrong with a stored incident, given the fold of its journal.
pub(crate) fn row_fault(
    id: IncidentId,
    folded: Option<&Incident>,
    kept: Option<&IncidentRow>,
) -> Result<Option<String>, StoreError> {
    let (folded, kept) = match (folded, kept) {
        (None, None) => return Ok(Some(never_opened(id).to_string())),
        (None, Some(_)) => return Ok(Some(format!("incident {id} is kept but has no journal"))),
        (Some(f), None) => return Ok(Some(format!("incident {} ({id}) is missing", f.short_id()))),
        (Some(f), Some(k)) => (f, k),
    };
    let want = IncidentRow::of(folded)?;
    // Compared as values: a version that adds a field with a default still reads what an older one wrote.
    let same_body = rows::decode::<Incident>("an incident", &kept.body).is_ok_and(|inc| inc == *folded);
    let columns = [
        ("number", want.number == kept.number),
        ("status", want.status == kept.status),
        ("severity", want.severity == kept.severity),
        ("updated_at", want.updated_at == kept.updated_at),
        ("onset", want.onset == kept.onset),
        ("synthetic", want.synthetic == kept.synthetic),
        ("entities", want.entities == kept.entities),
        ("names", want.names == kept.names),
        ("text", want.text == kept.text),
        ("body", same_body),
    ];
    let wrong = columns.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect::<Vec<_>>();
    let line = || format!("incident {} ({id}) differs from its journal in {}", folded.short_id(), wrong.join(", "));
    Ok((!wrong.is_empty()).then(line))
}
