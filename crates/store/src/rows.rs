//! Rows as every kind of store keeps them: what of an incident, anomaly or change is searched, and its encoded body.
//!
//! Filters are evaluated by the databases where there is one; [`IncidentRow::matches`] and [`AnomalyRow::matches`]
//! are the same rules for memory, and the reference that the conformance suite holds the SQL against.

use crate::{AnomalyFilter, IncidentFilter, StoreError};
use nightshift_model::{Anomaly, Change, Incident, Phase, Severity};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeSet;

/// Rows that a list without a limit gives.
const LIMIT_DEFAULT: usize = 100;
/// Most rows of one list: about 100 MB of the largest incidents. More are had by paging.
const LIMIT_MAX: usize = 10_000;
/// Most bytes that are searched per incident; a storm of thousands of symptoms says the same words again.
const SEARCH_BYTES_MAX: usize = 32 << 10;

/// The limit that a list asked for.
pub(crate) fn limit(asked: usize) -> usize {
    if asked == 0 { LIMIT_DEFAULT } else { asked.min(LIMIT_MAX) }
}

/// An integer as the databases keep it.
pub(crate) fn to_i64(what: &str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Refused(format!("{what} {value}: too large to be kept")))
}

/// An integer as a database gave it back.
pub(crate) fn to_u64(what: &str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("{what} is {value}, below zero")))
}

/// JSON that is known to be readable again. A number that is not finite is written as `null`; better refused now than
/// found unreadable at the next start.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(what: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let json = serde_json::to_vec(value).map_err(|e| StoreError::Refused(format!("{what}: {e}")))?;
    match serde_json::from_slice::<T>(&json) {
        Ok(_) => Ok(json),
        Err(e) => Err(StoreError::Refused(format!("{what} that cannot be read back: {e}"))),
    }
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, json: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(json).map_err(|e| StoreError::Corrupt(format!("{what} is not readable: {e}")))
}

/// Text as it is searched: any case, and without NUL, which PostgreSQL cannot keep in a text.
pub(crate) fn searchable(text: &str) -> String {
    text.to_lowercase().replace('\0', " ")
}

/// An incident as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct IncidentRow {
    pub(crate) number: i64,
    pub(crate) status: String,
    pub(crate) severity: i64,
    pub(crate) updated_at: i64,
    pub(crate) onset: i64,
    pub(crate) synthetic: i64,
    /// Ids of those affected, each between line feeds.
    pub(crate) entities: String,
    /// Their names, as searched, each after a line feed.
    pub(crate) names: String,
    /// What a text filter looks into, as searched.
    pub(crate) text: String,
    /// The whole, as JSON.
    pub(crate) body: Vec<u8>,
}

impl IncidentRow {
    pub(crate) fn of(inc: &Incident) -> Result<Self, StoreError> {
        let affected = inc.blast_radius.affected.iter();
        let ids = affected.chain(inc.anomalies.iter().map(|a| &a.entity.id)).collect::<BTreeSet<_>>();
        let mut entities = String::from("\n");
        let mut names = String::new();
        for id in &ids {
            entities.push_str(&id.as_str().replace('\0', " "));
            entities.push('\n');
            names.push('\n');
            names.push_str(&searchable(&id.name()));
        }
        Ok(Self {
            number: to_i64("incident number", inc.number)?,
            status: inc.status.as_str().into(),
            severity: severity_rank(inc.severity),
            updated_at: inc.updated_at.0,
            onset: inc.onset.0,
            synthetic: i64::from(inc.synthetic),
            text: search_text(inc, ids.iter().map(|id| id.as_str())),
            entities,
            names,
            body: encode("an incident", inc)?,
        })
    }

    /// The rule of [`IncidentFilter`].
    pub(crate) fn matches(&self, f: &IncidentFilter) -> bool {
        let any = |empty: bool, hit: bool| empty || hit;
        any(f.status.is_empty(), f.status.iter().any(|s| s.as_str() == self.status))
            && any(f.severity.is_empty(), f.severity.iter().any(|s| severity_rank(*s) == self.severity))
            && f.entity.as_deref().is_none_or(|e| {
                let (id, name) = entity_needles(e);
                self.entities.contains(&id) || self.names.contains(&name)
            })
            && f.since.is_none_or(|t| self.updated_at >= t.0)
            && f.until.is_none_or(|t| self.updated_at < t.0)
            && f.text.as_deref().is_none_or(|t| self.text.contains(&searchable(t)))
            && (f.synthetic || self.synthetic == 0)
            && f.before_number.is_none_or(|n| u64::try_from(self.number).is_ok_and(|own| own < n))
    }
}

/// What to look for in `entities` and in `names`.
pub(crate) fn entity_needles(asked: &str) -> (String, String) {
    (format!("\n{}\n", asked.replace('\0', " ")), searchable(asked))
}

fn search_text<'a>(inc: &'a Incident, ids: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    let mut seen = BTreeSet::new();
    let causes = inc.hypotheses.iter().flat_map(|h| [h.summary.as_str(), h.fault.slug()]);
    let symptoms = inc.anomalies.iter().flat_map(|a| [a.description.as_str(), a.signal.as_str()]);
    for part in std::iter::once(inc.title.as_str()).chain(causes).chain(ids).chain(symptoms) {
        if text.len() + part.len() > SEARCH_BYTES_MAX {
            break;
        }
        if seen.insert(part) {
            text.push_str(&searchable(part));
            text.push('\n');
        }
    }
    text
}

/// Severities as integers that compare the right way.
pub(crate) const fn severity_rank(s: Severity) -> i64 {
    match s {
        Severity::Low => 0,
        Severity::Medium => 1,
        Severity::High => 2,
        Severity::Critical => 3,
    }
}

/// An anomaly as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AnomalyRow {
    pub(crate) entity: Vec<u8>,
    pub(crate) severity: i64,
    pub(crate) onset: i64,
    pub(crate) last_seen: i64,
    pub(crate) open: i64,
    pub(crate) body: Vec<u8>,
}

impl AnomalyRow {
    pub(crate) fn of(a: &Anomaly) -> Result<Self, StoreError> {
        Ok(Self {
            entity: a.entity.id.as_str().into(),
            severity: severity_rank(a.severity),
            onset: a.onset.0,
            last_seen: a.last_seen.0,
            open: i64::from(a.phase != Phase::Closed),
            body: encode("an anomaly", a)?,
        })
    }

    /// The rule of [`AnomalyFilter`].
    pub(crate) fn matches(&self, f: &AnomalyFilter) -> bool {
        f.entity.as_ref().is_none_or(|e| e.as_str().as_bytes() == self.entity)
            && (f.severity.is_empty() || f.severity.iter().any(|s| severity_rank(*s) == self.severity))
            && f.since.is_none_or(|t| self.last_seen >= t.0)
            && (!f.open_only || self.open == 1)
    }
}

/// The body of a change.
pub(crate) fn change_body(c: &Change) -> Result<Vec<u8>, StoreError> {
    encode("a change", c)
}
