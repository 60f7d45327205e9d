//! Rules over the metric stream of one shard.
//!
//! A series that no rule selects costs one look-up in a map; one that is selected keeps the samples of its rules'
//! longest window. Groups (an entity, and the labels in `by`) are asked at the event time of each new sample of
//! theirs, so the outcome does not depend on how samples were cut into batches; what must be noticed when nothing
//! comes (`absent`, an alarm whose data ended) is asked by [`RuleEngine::tick`].

use super::eval::{Samples, Verdict, ask};
use super::expr::Compare;
use super::file::Rule;
use hashbrown::HashMap;
use nightshift_model::batch::{BatchView, MetricColumns, SeriesKind, labels};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityMeta, Explanation, OccurrenceId, Phase, Severity, Timestamp,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod saved;

/// Samples older than this are not taken.
const LATE_MAX: i64 = 3600 * NANOS_PER_SEC;
/// Samples from further in the future than this are not taken: a clock is wrong.
const AHEAD_MAX: i64 = 120 * NANOS_PER_SEC;
/// An open alarm is told again after so long.
const UPDATE_EVERY: i64 = 300 * NANOS_PER_SEC;
/// Version of the model as anomalies name it.
const MODEL_VERSION: u32 = 1;
/// In the map of known series: no rule selects it.
const UNSELECTED: u32 = u32::MAX;

/// Bounds of the engine.
#[derive(Debug, Clone, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub struct RuleConfig {
    /// Series that rules select, per tenant and shard; further ones are counted and not watched.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub series_max: usize,
    /// Series of which it is remembered that no rule selects them, per tenant and shard.
    #[schemars(range(min = 1000, max = 100_000_000))]
    pub known_max: usize,
    /// Seconds without a sample after which a series is forgotten. Until then its absence is noticed.
    #[schemars(range(min = 600, max = 604_800))]
    pub idle_secs: u32,
    /// Seconds without data after which an open alarm that can no longer be judged is closed.
    #[schemars(range(min = 60, max = 86_400))]
    pub no_data_secs: u32,
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self { series_max: 100_000, known_max: 2_000_000, idle_secs: 86_400, no_data_secs: 900 }
    }
}

/// Counters of one call, or of all calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleStats {
    /// Samples that a rule watches.
    pub samples: u64,
    /// Samples of watched series not taken: too old, from the future, not finite, or there already.
    pub refused: u64,
    /// Watched series not taken because there are too many.
    pub series_refused: u64,
    /// Times that a condition was asked.
    pub asked: u64,
    /// Alarms that opened.
    pub opened: u64,
}

impl RuleStats {
    /// Adds the counters of `other`.
    pub const fn add(&mut self, other: &Self) {
        self.samples += other.samples;
        self.refused += other.refused;
        self.series_refused += other.series_refused;
        self.asked += other.asked;
        self.opened += other.opened;
    }
}

/// One watched series.
#[derive(Debug, Clone)]
struct Series {
    fingerprint: u64,
    meta: EntityMeta,
    labels: Vec<u8>,
    kind: SeriesKind,
    samples: Samples,
    /// Longest window of the rules that watch it, nanoseconds.
    keep_ns: i64,
    /// Groups that it is in.
    groups: Vec<u32>,
}

/// What a group knows of its alarm.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq)]
struct State {
    /// Newest event time at which it was asked.
    asked: Option<i64>,
    /// Since when the condition holds.
    holds: Option<i64>,
    /// While an alarm is open: since when it does not hold, or cannot be told.
    ceased: Option<i64>,
    blind: Option<i64>,
    open: Option<Anomaly>,
    told: i64,
}

/// One rule for one entity and one set of labels.
#[derive(Debug, Clone)]
struct Group {
    rule: u32,
    /// Orders what happens at one time, whatever came first.
    order: u64,
    meta: EntityMeta,
    source: String,
    labels: BTreeMap<String, String>,
    /// Per selector of the rule, the series that it finds, by fingerprint.
    members: Vec<Vec<u32>>,
    state: State,
}

type GroupKey = (u32, String, Vec<String>);

#[derive(Debug, Clone, Default)]
struct Tenant {
    known: HashMap<u64, u32>,
    /// `None`: left.
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    groups: Vec<Group>,
    index: BTreeMap<GroupKey, u32>,
}

/// The rule engine of one shard.
#[derive(Debug, Clone)]
pub struct RuleEngine {
    config: RuleConfig,
    rules: Vec<Rule>,
    /// Metric name to the selectors that ask for it: rule, selector.
    by_metric: BTreeMap<String, Vec<(u32, u32)>>,
    tenants: BTreeMap<String, Tenant>,
    stats: RuleStats,
    /// Scratch: when groups had new samples, and which.
    touched: Vec<(i64, u64, u32)>,
    /// Scratch: series with new samples.
    fed: Vec<u32>,
}

/// Whether `text` is `glob`, in which `*` stands for any text.
fn matches_glob(glob: &str, text: &str) -> bool {
    let mut parts = glob.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(middle) = last.replace(part) {
            let Some(at) = rest.find(middle) else { return false };
            rest = &rest[at + str::len(middle)..];
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

impl RuleEngine {
    /// An engine for `rules`.
    pub fn new(config: RuleConfig, rules: Vec<Rule>) -> Self {
        let mut by_metric: BTreeMap<String, Vec<(u32, u32)>> = BTreeMap::new();
        for (r, rule) in (0..).zip(&rules) {
            for (s, selector) in (0..).zip(&rule.when.selectors) {
                by_metric.entry(selector.metric.clone()).or_default().push((r, s));
            }
        }
        Self {
            config,
            rules,
            by_metric,
            tenants: BTreeMap::new(),
            stats: RuleStats::default(),
            touched: Vec::new(),
            fed: Vec::new(),
        }
    }

    /// The rules, in the order of their files.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Counters since it was made.
    pub const fn stats(&self) -> RuleStats {
        self.stats
    }

    /// Watched series of all tenants.
    pub fn series(&self) -> usize {
        self.tenants.values().map(|t| t.series.iter().flatten().count()).sum()
    }

    /// Takes the metrics of a batch (`columns` as [`BatchView::metrics`] decoded them) and asks the rules that they
    /// concern. Appends the anomalies that opened, changed or ended.
    pub fn step(
        &mut self,
        tenant: &str,
        view: &BatchView<'_>,
        columns: &MetricColumns,
        now: Timestamp,
        out: &mut Vec<Anomaly>,
    ) -> RuleStats {
        let mut stats = RuleStats::default();
        if self.by_metric.is_empty() || columns.fingerprint.is_empty() {
            return stats;
        }
        if !self.tenants.contains_key(tenant) {
            self.tenants.insert(tenant.to_owned(), Tenant::default());
        }
        let Some(state) = self.tenants.get_mut(tenant) else { return stats };
        if columns.fingerprint.iter().any(|f| !state.known.contains_key(f)) {
            if state.known.len() + columns.fingerprint.len() > self.config.known_max {
                state.known.retain(|_, slot| *slot != UNSELECTED);
            }
            // A broken dictionary leaves the series unknown: its samples are then not watched.
            let _ = view.for_each_series(|i, bytes| {
                if let Some((fingerprint, entity)) = columns.fingerprint.get(i).zip(columns.entity.get(i))
                    && !state.known.contains_key(fingerprint)
                {
                    let wanted = self.by_metric.get(labels::metric_name(bytes)).map_or(&[] as &[_], Vec::as_slice);
                    let mut slot = UNSELECTED;
                    if !wanted.is_empty()
                        && let Ok(meta) = view.entity(*entity)
                    {
                        let kind = columns.kind.get(i).copied().unwrap_or_default();
                        let series = Series {
                            fingerprint: *fingerprint,
                            meta,
                            labels: bytes.to_vec(),
                            kind,
                            samples: Samples::default(),
                            keep_ns: 0,
                            groups: Vec::new(),
                        };
                        slot = state.select(&self.rules, wanted, series, view.source(), &self.config, &mut stats);
                    }
                    state.known.insert(*fingerprint, slot);
                }
                true
            });
        }
        self.touched.clear();
        let mut row = 0;
        for (i, fingerprint) in columns.fingerprint.iter().enumerate() {
            let rows = row..row + columns.rows.get(i).map_or(0, |r| *r as usize);
            row = rows.end;
            let slot = state.known.get(fingerprint).copied().unwrap_or(UNSELECTED);
            if slot == UNSELECTED {
                continue;
            }
            let Some(Some(series)) = state.series.get_mut(slot as usize) else { continue };
            self.fed.push(slot);
            for k in rows {
                let (Some(&at), Some(&value)) = (columns.timestamp.get(k), columns.value.get(k)) else { break };
                let in_time = at >= now.0.saturating_sub(LATE_MAX) && at <= now.0.saturating_add(AHEAD_MAX);
                if !in_time || !value.is_finite() || !series.samples.add(at, value) {
                    stats.refused += 1;
                    continue;
                }
                stats.samples += 1;
                self.touched.extend(series.groups.iter().map(|g| (at, state.groups[*g as usize].order, *g)));
            }
        }
        self.touched.sort_unstable();
        self.touched.dedup();
        for &(at, _, g) in &self.touched {
            // What is late changes the window of what comes next, and is not asked by itself. The same time is asked
            // again: the other half of a ratio may have been in the batch before.
            if state.groups[g as usize].state.asked.is_none_or(|asked| at >= asked) {
                state.groups[g as usize].state.asked = Some(at);
                stats.asked += 1;
                state.judge(&self.rules, &self.config, tenant, g, at, &mut stats, out);
            }
        }
        for slot in self.fed.drain(..) {
            if let Some(Some(series)) = state.series.get_mut(slot as usize) {
                series.samples.prune(series.keep_ns);
            }
        }
        self.stats.add(&stats);
        stats
    }

    /// Moves on to `now` (event time): notices absence, closes what can no longer be judged, forgets what is idle.
    pub fn tick(&mut self, now: Timestamp, out: &mut Vec<Anomaly>) {
        let mut stats = RuleStats::default();
        for (tenant, state) in &mut self.tenants {
            let groups: Vec<u32> = state.index.values().copied().collect();
            for g in groups {
                let group = &state.groups[g as usize];
                let newest = group.state.asked.unwrap_or(i64::MIN);
                let rule = &self.rules[group.rule as usize];
                let silent = now.0.saturating_sub(newest) > rule.when.window_ns;
                if newest < now.0 && (rule.when.has_absent || (group.state.open.is_some() && silent)) {
                    stats.asked += 1;
                    state.judge(&self.rules, &self.config, tenant, g, now.0, &mut stats, out);
                }
            }
            state.forget(now.0.saturating_sub(i64::from(self.config.idle_secs) * NANOS_PER_SEC), out);
        }
        self.stats.add(&stats);
    }
}

impl Tenant {
    /// Takes a new series into the groups of the rules that want it. Returns its slot, `UNSELECTED` when none does.
    fn select(
        &mut self,
        rules: &[Rule],
        wanted: &[(u32, u32)],
        mut series: Series,
        source: &str,
        config: &RuleConfig,
        stats: &mut RuleStats,
    ) -> u32 {
        let label = |name: &str| labels::get(&series.labels, name).unwrap_or("");
        let wanted: Vec<_> = wanted
            .iter()
            .filter(|(r, s)| {
                let rule = &rules[*r as usize];
                rule.entity.as_ref().is_none_or(|glob| matches_glob(glob, series.meta.id.as_str()))
                    && rule.when.selectors[*s as usize].matches(label)
            })
            .collect();
        if wanted.is_empty() {
            return UNSELECTED;
        }
        if self.series.len() - self.free.len() >= config.series_max {
            stats.series_refused += 1;
            return UNSELECTED;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.series.push(None);
            self.series.len() as u32 - 1
        });
        for &&(r, s) in &wanted {
            let rule = &rules[r as usize];
            let by: Vec<String> = rule.by.iter().map(|name| label(name).to_owned()).collect();
            let mut entity = series.meta.id.as_str().to_owned();
            if series.meta.synthetic {
                entity.push_str("\u{1f}synthetic");
            }
            let next = self.groups.len() as u32;
            let parts: Vec<&[u8]> = [rule.name.as_str(), &entity]
                .into_iter()
                .chain(by.iter().map(String::as_str))
                .map(str::as_bytes)
                .collect();
            let order = nightshift_model::hash::hash128(&parts) as u64;
            let g = *self.index.entry((r, entity, by.clone())).or_insert(next);
            if g == next {
                self.groups.push(Group {
                    rule: r,
                    order,
                    meta: series.meta.clone(),
                    source: source.to_owned(),
                    labels: rule.by.iter().cloned().zip(by).filter(|(_, v)| !v.is_empty()).collect(),
                    members: vec![Vec::new(); rule.when.selectors.len()],
                    state: State::default(),
                });
            }
            let members = &mut self.groups[g as usize].members[s as usize];
            let place = members
                .iter()
                .position(|m| {
                    self.series[*m as usize].as_ref().is_some_and(|other| other.fingerprint > series.fingerprint)
                })
                .unwrap_or(members.len());
            members.insert(place, slot);
            series.keep_ns = series.keep_ns.max(rule.when.window_ns);
            if !series.groups.contains(&g) {
                series.groups.push(g);
            }
        }
        self.series[slot as usize] = Some(series);
        slot
    }

    /// Asks group `g` at `at` and moves its alarm on.
    #[expect(clippy::too_many_arguments, reason = "one call, in the middle of everything that it needs")]
    fn judge(
        &mut self,
        rules: &[Rule],
        config: &RuleConfig,
        tenant: &str,
        g: u32,
        at: i64,
        stats: &mut RuleStats,
        out: &mut Vec<Anomaly>,
    ) {
        let Self { groups, series, .. } = self;
        let group = &mut groups[g as usize];
        let rule = &rules[group.rule as usize];
        let verdict = ask(&rule.when, at, |selector| {
            group.members[selector].iter().filter_map(|m| series[*m as usize].as_ref()).map(|s| (&s.samples, s.kind))
        });
        match verdict.truth {
            Some(true) => {
                let state = &mut group.state;
                let since = *state.holds.get_or_insert(at);
                (state.ceased, state.blind) = (None, None);
                if at.saturating_sub(since) < rule.for_ns {
                    return;
                }
                if let Some(open) = &mut state.open {
                    open.last_seen = open.last_seen.max(Timestamp(at));
                    if at.saturating_sub(state.told) >= UPDATE_EVERY {
                        state.told = at;
                        open.phase = Phase::Update;
                        explain(rule, &verdict, open);
                        out.push(open.clone());
                    }
                } else {
                    stats.opened += 1;
                    let opened = group.anomaly(rule, tenant, &verdict, since, at);
                    out.push(opened.clone());
                    (group.state.open, group.state.told) = (Some(opened), at);
                }
            }
            Some(false) => {
                let state = &mut group.state;
                (state.holds, state.blind) = (None, None);
                if let Some(open) = &mut state.open {
                    let since = *state.ceased.get_or_insert(at);
                    if at.saturating_sub(since) >= rule.clear_ns {
                        open.phase = Phase::Closed;
                        open.last_seen = Timestamp(since);
                        out.extend(state.open.take());
                        state.ceased = None;
                    }
                }
            }
            None => {
                // No data is not health: what is open stays open, for a while.
                let state = &mut group.state;
                state.holds = None;
                if let Some(open) = &mut state.open {
                    let since = *state.blind.get_or_insert(at);
                    if at.saturating_sub(since) >= i64::from(config.no_data_secs) * NANOS_PER_SEC {
                        open.phase = Phase::Closed;
                        open.explanation.features.insert("no_data".into(), 1.0);
                        out.extend(state.open.take());
                        (state.blind, state.ceased) = (None, None);
                    }
                }
            }
        }
    }

    /// Forgets series without a sample since `before`, and groups without a series.
    fn forget(&mut self, before: i64, out: &mut Vec<Anomaly>) {
        let mut left = false;
        for (slot, place) in self.series.iter_mut().enumerate() {
            if place.as_ref().is_some_and(|s| s.samples.newest().is_none_or(|t| t < before)) {
                if let Some(series) = place.take() {
                    self.known.remove(&series.fingerprint);
                    for g in series.groups {
                        for members in &mut self.groups[g as usize].members {
                            members.retain(|m| *m as usize != slot);
                        }
                    }
                }
                self.free.push(slot as u32);
                left = true;
            }
        }
        if !left {
            return;
        }
        // Lowest slot first, whatever the order in which they left.
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        let mut moved = vec![u32::MAX; self.groups.len()];
        let mut kept = Vec::new();
        for (g, mut group) in std::mem::take(&mut self.groups).into_iter().enumerate() {
            if group.members.iter().all(Vec::is_empty) {
                if let Some(mut open) = group.state.open.take() {
                    open.phase = Phase::Closed;
                    open.explanation.features.insert("no_data".into(), 1.0);
                    out.push(open);
                }
            } else {
                moved[g] = kept.len() as u32;
                kept.push(group);
            }
        }
        self.groups = kept;
        self.index.retain(|_, g| {
            *g = moved[*g as usize];
            *g != u32::MAX
        });
        for series in self.series.iter_mut().flatten() {
            for g in &mut series.groups {
                *g = moved[*g as usize];
            }
        }
    }
}

impl Group {
    fn anomaly(&self, rule: &Rule, tenant: &str, verdict: &Verdict, since: i64, at: i64) -> Anomaly {
        let onset = Timestamp(since);
        let fingerprint =
            Anomaly::fingerprint_of(tenant, self.meta.id.as_str(), AnomalyKind::Rule, &rule.name, &self.labels);
        let mut anomaly = Anomaly {
            id: OccurrenceId::derive(fingerprint, onset),
            fingerprint,
            tenant: tenant.to_owned(),
            entity: self.meta.clone(),
            kind: AnomalyKind::Rule,
            signal: rule.name.clone(),
            labels: self.labels.clone(),
            onset,
            last_seen: Timestamp(at),
            phase: Phase::Open,
            score: rule.score,
            severity: Severity::from_score(rule.score),
            direction: Direction::None,
            fault: rule.fault,
            description: String::new(),
            explanation: Explanation {
                model: format!("rule/{}", rule.name),
                model_version: MODEL_VERSION,
                sample: rule.when_text.clone(),
                ..Explanation::default()
            },
            source: self.source.clone(),
        };
        explain(rule, verdict, &mut anomaly);
        anomaly
    }
}

/// Writes the numbers of `verdict`, and the line for people.
fn explain(rule: &Rule, verdict: &Verdict, anomaly: &mut Anomaly) {
    let e = &mut anomaly.explanation;
    let (mut value, mut threshold) = (None, None);
    (e.lower, e.upper, e.expected) = (None, None, None);
    if let Some((left, right, sign)) = verdict.because {
        (value, threshold) = (Some(left), Some(right));
        (e.lower, e.upper, anomaly.direction) = match sign {
            Compare::Less | Compare::LessEqual => (Some(right), None, Direction::Down),
            Compare::Greater | Compare::GreaterEqual => (None, Some(right), Direction::Up),
            Compare::Equal | Compare::NotEqual => (None, None, Direction::None),
        };
        e.expected = Some(right);
    } else if let Some(secs) = verdict.absent_secs {
        value = Some(secs);
        anomaly.direction = Direction::Flat;
    }
    e.observed = value;
    e.features.insert("for_secs".into(), rule.for_ns as f64 / NANOS_PER_SEC as f64);
    anomaly.description = rule.summary.fill(&rule.name, &anomaly.entity.id.name(), &anomaly.labels, value, threshold);
}

#[cfg(test)]
mod tests {
    use super::matches_glob;

    #[test]
    fn globs() {
        for (glob, text, want) in [
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/d", false),
            ("*", "", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("*b*", "abc", true),
            ("a*a", "a", false),
            ("*ab*ab", "abab", true),
            ("*ab*ab", "ab", false),
            ("", "x", false),
        ] {
            assert_eq!(matches_glob(glob, text), want, "{glob} {text}");
        }
    }
}
