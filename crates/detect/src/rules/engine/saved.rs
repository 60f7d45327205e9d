//! The engine's state as bytes, and back.

use super::{RuleEngine, RuleStats, Samples, Series, State, Tenant, UNSELECTED};
use crate::sealed::{self, SealError};
use nightshift_model::batch::{SeriesKind, labels};
use nightshift_model::{Anomaly, EntityMeta, Phase};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const MAGIC: [u8; 4] = *b"NSRL";
const VERSION: u16 = 1;

#[derive(Serialize, Deserialize)]
struct SavedSeries {
    fingerprint: u64,
    meta: EntityMeta,
    labels: Vec<u8>,
    kind: u8,
    rows: Vec<(i64, f64)>,
}

#[derive(Serialize, Deserialize)]
struct SavedGroup {
    rule: String,
    when: String,
    entity: String,
    by: Vec<String>,
    source: String,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct SavedTenant {
    series: Vec<SavedSeries>,
    groups: Vec<SavedGroup>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    tenants: BTreeMap<String, SavedTenant>,
    stats: RuleStats,
}

impl RuleEngine {
    /// State as bytes: version, checksum, content. The same state gives the same bytes.
    pub fn snapshot(&self) -> Vec<u8> {
        let tenants = self.tenants.iter().map(|(name, t)| {
            let series = t.series.iter().flatten().map(|s| SavedSeries {
                fingerprint: s.fingerprint,
                meta: s.meta.clone(),
                labels: s.labels.clone(),
                kind: s.kind as u8,
                rows: s.samples.rows().collect(),
            });
            let groups = t.index.iter().map(|((r, entity, by), g)| {
                let rule = &self.rules[*r as usize];
                let group = &t.groups[*g as usize];
                SavedGroup {
                    rule: rule.name.clone(),
                    when: rule.when_text.clone(),
                    entity: entity.clone(),
                    by: by.clone(),
                    source: group.source.clone(),
                    state: group.state.clone(),
                }
            });
            let mut series: Vec<_> = series.collect();
            series.sort_by_key(|s| s.fingerprint);
            (name.clone(), SavedTenant { series, groups: groups.collect() })
        });
        sealed::seal(MAGIC, VERSION, &Saved { tenants: tenants.collect(), stats: self.stats })
    }

    /// Takes the state from a snapshot; the rules stay. Alarms of rules that are gone or ask something else now are
    /// returned, closed. On an error nothing changes.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this version, or damaged.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<Vec<Anomaly>, SealError> {
        let saved: Saved = sealed::open(MAGIC, VERSION, bytes)?;
        let mut closed = Vec::new();
        self.tenants.clear();
        for (name, t) in saved.tenants {
            let mut tenant = Tenant::default();
            let mut stats = RuleStats::default();
            for s in t.series {
                let wanted = self.by_metric.get(labels::metric_name(&s.labels)).map_or(&[] as &[_], Vec::as_slice);
                let series = Series {
                    fingerprint: s.fingerprint,
                    meta: s.meta,
                    labels: s.labels,
                    kind: SeriesKind::from_u8(s.kind),
                    samples: Samples::default(),
                    keep_ns: 0,
                    groups: Vec::new(),
                };
                let slot = tenant.select(&self.rules, wanted, series, "", &self.config, &mut stats);
                if slot == UNSELECTED {
                    continue;
                }
                tenant.known.insert(s.fingerprint, slot);
                if let Some(Some(series)) = tenant.series.get_mut(slot as usize) {
                    for (at, value) in s.rows {
                        series.samples.add(at, value);
                    }
                }
            }
            for g in t.groups {
                let rule = (0..).zip(&self.rules).find(|(_, r)| r.name == g.rule && r.when_text == g.when);
                let group = rule.and_then(|(r, _)| tenant.index.get(&(r, g.entity, g.by)).copied());
                if let Some(group) = group.and_then(|i| tenant.groups.get_mut(i as usize)) {
                    (group.state, group.source) = (g.state, g.source);
                } else if let Some(mut open) = g.state.open {
                    open.phase = Phase::Closed;
                    closed.push(open);
                }
            }
            self.tenants.insert(name, tenant);
        }
        self.stats = saved.stats;
        Ok(closed)
    }
}
