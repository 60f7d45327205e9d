//! The journal of incidents: what is appended, the bytes that are hashed, and the fold into [`Incident`].
//!
//! The hashed form is a fixed-order binary one, stored exactly as hashed, so that a chain moves between databases
//! unchanged: version (1 byte), tenant, sequence number, incident id, time, actor, event (JSON), each text with its
//! length before it, integers big-endian.

use crate::incident::{MEMBERS_MAX, TIMELINE_MAX};
use crate::{
    Anomaly, BlastRadius, Hypothesis, Incident, IncidentId, IncidentStatus, OccurrenceId, Phase, Severity,
    TimelineEntry, Timestamp,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A link of the chain.
pub type ChainHash = [u8; 32];

/// What the first event of a chain follows.
pub const CHAIN_START: ChainHash = [0; 32];

/// One thing that happened to an incident. Variants and fields are added, never renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// It was opened by this symptom.
    Opened {
        /// Running number within the tenant.
        number: u64,
        /// One line for people.
        title: String,
        /// The symptom that opened it.
        anomaly: Box<Anomaly>,
        /// The earlier incident of the same cause.
        #[serde(default)]
        recurrence_of: Option<IncidentId>,
    },
    /// A symptom joined, or is told anew (worse, or over).
    AnomalyJoined {
        /// Its newest state.
        anomaly: Box<Anomaly>,
        /// Why it belongs here, one line.
        why: String,
    },
    /// A storm: so many further symptoms joined, too many to keep each.
    StormJoined {
        /// How many.
        count: u64,
        /// Of these, how many are still going on.
        open: u64,
        /// How many of those that were counted earlier have ended.
        #[serde(default)]
        closed: u64,
    },
    /// It moved on.
    StatusChanged {
        /// Where to.
        to: IncidentStatus,
        /// Why, one line.
        why: String,
    },
    /// Score, severity, title or blast radius were computed anew.
    Assessed {
        /// 0..=1.
        score: f64,
        /// From the score.
        severity: Severity,
        /// One line for people.
        title: String,
        /// Who and what is hit.
        blast_radius: BlastRadius,
    },
    /// Causes were ranked.
    CausesRanked {
        /// Grows with each ranking.
        revision: u32,
        /// Likeliest first.
        hypotheses: Vec<Hypothesis>,
    },
    /// Somebody looks at it.
    Acknowledged {
        /// What they said.
        #[serde(default)]
        note: String,
    },
    /// It is over.
    Resolved {
        /// Why, one line.
        why: String,
    },
    /// It came back within five minutes.
    Reopened {
        /// Why, one line.
        why: String,
    },
    /// It was joined into an elder one.
    MergedInto {
        /// The elder one.
        into: IncidentId,
        /// Why, one line.
        why: String,
    },
    /// The elder one took another in.
    Absorbed {
        /// The younger one.
        other: IncidentId,
        /// Symptoms that came with it.
        anomalies: Vec<Anomaly>,
    },
}

impl EventKind {
    /// The word in a timeline's `action`.
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "created",
            Self::AnomalyJoined { .. } => "anomaly_joined",
            Self::StormJoined { .. } => "storm_joined",
            Self::StatusChanged { .. } => "status_changed",
            Self::Assessed { .. } => "assessed",
            Self::CausesRanked { .. } => "causes_ranked",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Resolved { .. } => "resolved",
            Self::Reopened { .. } => "reopened",
            Self::MergedInto { .. } => "merged",
            Self::Absorbed { .. } => "absorbed",
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Opened { anomaly, .. } => anomaly.description.clone(),
            Self::AnomalyJoined { anomaly, why } => {
                let what = if anomaly.phase == Phase::Closed { "over: " } else { "" };
                format!("{what}{} ({why})", anomaly.description)
            }
            Self::StormJoined { count, .. } => format!("{count} further symptoms"),
            Self::StatusChanged { to, why } => format!("{to}: {why}"),
            Self::Assessed { severity, score, .. } => format!("{severity}, score {score:.2}"),
            Self::CausesRanked { revision, hypotheses } => match hypotheses.first() {
                Some(h) => format!("revision {revision}: {} ({:.0} %)", h.summary, h.confidence * 100.0),
                None => format!("revision {revision}: no cause found"),
            },
            Self::Acknowledged { note } => note.clone(),
            Self::Resolved { why } | Self::Reopened { why } => why.clone(),
            Self::MergedInto { into, why } => format!("into {into}: {why}"),
            Self::Absorbed { other, .. } => format!("took in {other}"),
        }
    }
}

/// An event before the store gives it its place in the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalDraft {
    /// Which incident.
    pub incident: IncidentId,
    /// Event time.
    pub at: Timestamp,
    /// `system` or the name of a token.
    pub actor: String,
    /// What happened.
    pub event: EventKind,
}

/// An event in its place in its tenant's chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// Tenant: one chain each.
    pub tenant: String,
    /// From 1, without gaps.
    pub seq: u64,
    /// Which incident.
    pub incident: IncidentId,
    /// Event time.
    pub at: Timestamp,
    /// `system` or the name of a token.
    pub actor: String,
    /// What happened.
    pub event: EventKind,
}

/// Version of the hashed form.
const BODY_VERSION: u8 = 1;

impl JournalEvent {
    /// Puts a draft into its place.
    pub fn from_draft(tenant: &str, seq: u64, draft: JournalDraft) -> Self {
        Self {
            tenant: tenant.into(),
            seq,
            incident: draft.incident,
            at: draft.at,
            actor: draft.actor,
            event: draft.event,
        }
    }

    /// The bytes that are hashed and stored.
    pub fn to_body(&self) -> Vec<u8> {
        let json = serde_json::to_vec(&self.event).expect("an event has string keys and finite depth");
        let mut body = Vec::with_capacity(json.len() + self.tenant.len() + self.actor.len() + 64);
        body.push(BODY_VERSION);
        put(&mut body, self.tenant.as_bytes());
        body.extend_from_slice(&self.seq.to_be_bytes());
        body.extend_from_slice(&self.incident.to_bytes());
        body.extend_from_slice(&self.at.0.to_be_bytes());
        put(&mut body, self.actor.as_bytes());
        put(&mut body, &json);
        body
    }

    /// Reads what [`Self::to_body`] wrote.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn from_body(body: &[u8]) -> Result<Self, String> {
        let mut rest = body;
        let version = take(&mut rest, 1)?[0];
        if version != BODY_VERSION {
            return Err(format!("journal body of version {version}, this program knows {BODY_VERSION}"));
        }
        let tenant = text(&mut rest)?;
        let seq = u64::from_be_bytes(array(take(&mut rest, 8)?));
        let incident = IncidentId(u128::from_be_bytes(array(take(&mut rest, 16)?)));
        let at = Timestamp(i64::from_be_bytes(array(take(&mut rest, 8)?)));
        let actor = text(&mut rest)?;
        let n = u32::from_be_bytes(array(take(&mut rest, 4)?)) as usize;
        let json = take(&mut rest, n)?;
        if !rest.is_empty() {
            return Err(format!("{} bytes after the end of a journal body", rest.len()));
        }
        let event = serde_json::from_slice(json).map_err(|e| format!("journal event is not readable: {e}"))?;
        Ok(Self { tenant, seq, incident, at, actor, event })
    }
}

/// The hash of a link: of the link before and this body.
pub fn chain_hash(previous: &ChainHash, body: &[u8]) -> ChainHash {
    let mut h = Sha256::new();
    h.update(previous);
    h.update(body);
    h.finalize().into()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("an event is far below 4 GiB").to_be_bytes());
    out.extend_from_slice(bytes);
}

fn take<'a>(rest: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    let (head, tail) = rest.split_at_checked(n).ok_or("journal body ends early")?;
    *rest = tail;
    Ok(head)
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("taken with this length")
}

fn text(rest: &mut &[u8]) -> Result<String, String> {
    let n = u32::from_be_bytes(array(take(rest, 4)?)) as usize;
    String::from_utf8(take(rest, n)?.to_vec()).map_err(|_| "journal body has text that is not UTF-8".into())
}

/// Folds one event into the incident it belongs to. `None` stands for "not there yet"; only `Opened` makes one.
/// Applying an event twice gives what applying it once gives, but for the timeline: callers apply each `seq` once.
pub fn apply(current: Option<Incident>, e: &JournalEvent) -> Option<Incident> {
    let mut inc = match (&e.event, current) {
        (EventKind::Opened { number, title, anomaly, recurrence_of }, None) => Incident {
            id: e.incident,
            number: *number,
            tenant: e.tenant.clone(),
            title: title.clone(),
            status: IncidentStatus::Detecting,
            severity: anomaly.severity,
            score: anomaly.score,
            onset: anomaly.onset,
            detected_at: anomaly.last_seen,
            updated_at: e.at,
            resolved_at: None,
            resolved_by: None,
            acknowledged_by: None,
            anomalies: Vec::new(),
            anomalies_total: 0,
            anomalies_open: 0,
            hypotheses: Vec::new(),
            rca_revision: 0,
            blast_radius: BlastRadius::default(),
            timeline: Vec::new(),
            merged_into: None,
            recurrence_of: *recurrence_of,
            synthetic: anomaly.synthetic(),
        },
        (_, Some(inc)) => inc,
        (_, None) => return None,
    };
    inc.updated_at = inc.updated_at.max(e.at);
    match &e.event {
        EventKind::Opened { anomaly, .. } | EventKind::AnomalyJoined { anomaly, .. } => join(&mut inc, anomaly),
        EventKind::Absorbed { anomalies, .. } => anomalies.iter().for_each(|a| join(&mut inc, a)),
        EventKind::StormJoined { count, open, closed } => {
            inc.anomalies_total += count;
            inc.anomalies_open = (inc.anomalies_open + open).saturating_sub(*closed);
        }
        EventKind::StatusChanged { to, .. } => inc.status = *to,
        EventKind::Assessed { score, severity, title, blast_radius } => {
            inc.score = *score;
            inc.severity = *severity;
            inc.title.clone_from(title);
            inc.blast_radius = blast_radius.clone();
        }
        EventKind::CausesRanked { revision, hypotheses } => {
            inc.rca_revision = *revision;
            inc.hypotheses.clone_from(hypotheses);
        }
        EventKind::Acknowledged { .. } => inc.acknowledged_by = Some(e.actor.clone()),
        EventKind::Resolved { .. } => {
            inc.status = IncidentStatus::Resolved;
            inc.resolved_at = Some(e.at);
            inc.resolved_by = Some(e.actor.clone());
        }
        EventKind::Reopened { .. } => {
            inc.status = IncidentStatus::Investigating;
            inc.resolved_at = None;
            inc.resolved_by = None;
        }
        EventKind::MergedInto { into, .. } => {
            inc.status = IncidentStatus::Merged;
            inc.merged_into = Some(*into);
        }
    }
    if inc.timeline.len() < TIMELINE_MAX {
        inc.timeline.push(TimelineEntry {
            at: e.at,
            action: e.event.action().into(),
            actor: e.actor.clone(),
            detail: e.event.detail(),
        });
    }
    Some(inc)
}

fn join(inc: &mut Incident, a: &Anomaly) {
    // What is only fit for the log may join as evidence; when it began says nothing about when the trouble did.
    if a.severity > Severity::Low {
        inc.onset = inc.onset.min(a.onset);
    }
    let open = |p: Phase| p != Phase::Closed;
    if let Some(known) = inc.anomalies.iter_mut().find(|k| k.id == a.id) {
        match (open(known.phase), open(a.phase)) {
            (true, false) => inc.anomalies_open = inc.anomalies_open.saturating_sub(1),
            (false, true) => inc.anomalies_open += 1,
            _ => {}
        }
        *known = a.clone();
        return;
    }
    inc.anomalies_total += 1;
    inc.anomalies_open += u64::from(open(a.phase));
    if inc.anomalies.len() < MEMBERS_MAX {
        inc.anomalies.push(a.clone());
    }
}

/// Ids of the symptoms of an incident that are still going on.
pub fn open_anomalies(inc: &Incident) -> impl Iterator<Item = OccurrenceId> {
    inc.anomalies.iter().filter(|a| a.phase != Phase::Closed).map(|a| a.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AnomalyKind, Direction, EntityId, EntityMeta, Explanation, FaultClass};

    fn anomaly(id: u128, onset: i64, score: f64) -> Anomaly {
        Anomaly {
            id: OccurrenceId(id),
            fingerprint: id as u64,
            tenant: "default".into(),
            entity: EntityMeta::bare(EntityId::new("local", "host", "", "web1")),
            kind: AnomalyKind::Statistical,
            signal: "cpu".into(),
            labels: Default::default(),
            onset: Timestamp::from_secs(onset),
            last_seen: Timestamp::from_secs(onset + 1),
            phase: Phase::Open,
            score,
            severity: Severity::from_score(score),
            direction: Direction::Up,
            fault: FaultClass::CpuSaturation,
            description: "cpu".into(),
            explanation: Explanation::default(),
            source: "test".into(),
        }
    }

    fn event(seq: u64, event: EventKind) -> JournalEvent {
        let (tenant, actor) = ("default".into(), "system".into());
        JournalEvent { tenant, seq, incident: IncidentId(1), at: Timestamp::from_secs(200), actor, event }
    }

    fn opened(a: Anomaly) -> JournalEvent {
        event(1, EventKind::Opened { number: 1, title: "t".into(), anomaly: Box::new(a), recurrence_of: None })
    }

    fn joined(seq: u64, a: Anomaly) -> JournalEvent {
        event(seq, EventKind::AnomalyJoined { anomaly: Box::new(a), why: "same host".into() })
    }

    /// Seen on a real machine: the page cache moved 40 s before a CPU burn, and the burn was dated by it.
    #[test]
    fn weak_evidence_does_not_date_an_incident() {
        let inc = apply(None, &opened(anomaly(1, 100, 0.6)));
        let inc = apply(inc, &joined(2, anomaly(2, 60, 0.3)));
        assert_eq!(inc.as_ref().map(|i| i.onset), Some(Timestamp::from_secs(100)));
        let inc = apply(inc, &joined(3, anomaly(3, 90, 0.55)));
        assert_eq!(inc.map(|i| (i.onset, i.anomalies_open)), Some((Timestamp::from_secs(90), 3)));
    }

    #[test]
    fn bodies_round_trip_and_broken_ones_say_why() {
        let body = opened(anomaly(1, 100, 0.6)).to_body();
        assert_eq!(JournalEvent::from_body(&body), Ok(opened(anomaly(1, 100, 0.6))));
        for cut in 0..body.len() {
            assert!(JournalEvent::from_body(&body[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = body.clone();
        newer[0] = 9;
        assert!(JournalEvent::from_body(&newer).unwrap_err().contains("version 9"));
        let long = [body.as_slice(), b"x"].concat();
        assert!(JournalEvent::from_body(&long).unwrap_err().contains("after the end"));
    }

    #[test]
    fn only_an_opened_event_makes_an_incident() {
        assert_eq!(apply(None, &joined(1, anomaly(1, 1, 0.9))), None);
    }
}
