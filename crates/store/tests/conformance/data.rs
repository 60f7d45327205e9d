//! Small incidents, anomalies and changes for the tests.

use nightshift_model::{
    Anomaly, AnomalyKind, BlastRadius, Change, ChangeType, Direction, EntityId, EntityMeta, EnvelopeId, EventKind,
    Explanation, FaultClass, Hypothesis, IncidentId, IncidentStatus, JournalDraft, OccurrenceId, Phase, Severity,
    Timestamp,
};
use nightshift_store::Commit;

pub(crate) const T: &str = "default";

pub(crate) fn id(n: u64) -> IncidentId {
    IncidentId(u128::from(n) << 64 | 7)
}

pub(crate) fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

pub(crate) fn anomaly(n: u64, host: &str) -> Anomaly {
    let secs = i64::try_from(n).unwrap();
    Anomaly {
        id: OccurrenceId(u128::from(n) + 1),
        fingerprint: u64::MAX - n,
        tenant: T.into(),
        entity: EntityMeta::bare(EntityId::new("local", "host", "", host)),
        kind: AnomalyKind::Statistical,
        signal: "cpu_usage".into(),
        labels: [("mode".to_owned(), "user".to_owned())].into(),
        onset: at(secs),
        last_seen: at(secs + 5),
        phase: Phase::Open,
        score: 0.1 + 0.2,
        severity: Severity::High,
        direction: Direction::Up,
        fault: FaultClass::CpuSaturation,
        description: format!("CPU of {host} left its band"),
        explanation: Explanation { observed: Some(0.97), sigma: Some(1.0 / 3.0), ..Explanation::default() },
        source: "test".into(),
    }
}

pub(crate) fn draft(n: u64, secs: i64, event: EventKind) -> JournalDraft {
    JournalDraft { incident: id(n), at: at(secs), actor: "system".into(), event }
}

/// Opens incident `n`, numbered `n`, on `host`.
pub(crate) fn opened(n: u64, host: &str) -> JournalDraft {
    let event = EventKind::Opened {
        number: n,
        title: format!("{host} is slow"),
        anomaly: Box::new(anomaly(n, host)),
        recurrence_of: None,
    };
    draft(n, i64::try_from(n).unwrap(), event)
}

pub(crate) fn status(n: u64, secs: i64, to: IncidentStatus) -> JournalDraft {
    draft(n, secs, EventKind::StatusChanged { to, why: "test".into() })
}

pub(crate) fn assessed(n: u64, secs: i64, score: f64) -> JournalDraft {
    let event = EventKind::Assessed {
        score,
        severity: Severity::from_score(score),
        title: format!("Zahlung {n} über dem Limit"),
        blast_radius: BlastRadius {
            affected: vec![EntityId::new("eu/1", "service", "shop", &format!("Pay{n}"))],
            ..BlastRadius::default()
        },
    };
    draft(n, secs, event)
}

pub(crate) fn ranked(n: u64, secs: i64) -> JournalDraft {
    let hypothesis = Hypothesis {
        entity: None,
        fault: FaultClass::DiskFull,
        confidence: 0.7,
        score: 0.1,
        summary: "The volume is full".into(),
        contributions: Vec::new(),
        evidence: Vec::new(),
        signal: String::new(),
    };
    draft(n, secs, EventKind::CausesRanked { revision: 1, hypotheses: vec![hypothesis] })
}

pub(crate) fn change(n: u128, secs: i64) -> Change {
    Change {
        id: EnvelopeId(n),
        tenant: T.into(),
        at: at(secs),
        entity: None,
        service: "checkout".into(),
        change_type: ChangeType::Deployment,
        version: format!("v{n}"),
        git_sha: String::new(),
        author: String::new(),
        summary: String::new(),
        known_risks: Vec::new(),
        source: String::new(),
        attributes: Default::default(),
    }
}

pub(crate) fn journal(drafts: impl Into<Vec<JournalDraft>>) -> Commit {
    Commit { journal: drafts.into(), ..Commit::default() }
}

/// Four links: two incidents, one of them with a history.
pub(crate) fn history() -> Vec<JournalDraft> {
    vec![opened(1, "web1"), assessed(1, 10, 0.95), opened(2, "web2"), ranked(1, 20)]
}
