//! What made a minute odd: the share of each feature, and what it would have been among minutes otherwise alike.

use super::sample::{Forest, Row, Scratch, WIDTH};
use super::{FeatureRow, Open, Verdict};
use nightshift_model::{
    Anomaly, AnomalyKind, Bad, Direction, EntityMeta, Explanation, FaultClass, OccurrenceId, Phase, Severity, Timestamp,
};
use std::collections::BTreeMap;

/// Name of the signal: no metric's, so that nobody takes it for a series.
pub(super) const SIGNAL: &str = "minute_vector";
/// Version of this detector: raise it when a verdict may change.
const MODEL_VERSION: u32 = 1;
/// Minutes that are most alike in all other features, from which the expected range of one is told.
const ALIKE: usize = 16;
/// Least share of the oddness that names a feature in the line for people.
const NAMED_MIN: f64 = 0.15;

/// How a feature is laid out before distances and ranges mean something.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    /// Ratios of it matter. The least value that is told apart from none.
    Log(f64),
    /// A share of counts: its square root has a spread that does not depend on it.
    Root,
    /// As it is.
    Plain,
}

/// Features in the order of [`Row`]: name as in a feature row, scale, which way is bad, what that suggests.
const FIELDS: [(&str, Scale, Bad, FaultClass); WIDTH] = [
    ("latency_mean_ms", Scale::Log(1e-3), Bad::Up, FaultClass::LatencySpike),
    ("latency_p95_ms", Scale::Log(1e-3), Bad::Up, FaultClass::LatencySpike),
    ("latency_p99_ms", Scale::Log(1e-3), Bad::Up, FaultClass::LatencySpike),
    ("error_ratio", Scale::Root, Bad::Up, FaultClass::ErrorRateSpike),
    ("request_rate", Scale::Log(1.0 / 60.0), Bad::Neither, FaultClass::Unknown),
    ("cpu_pct", Scale::Plain, Bad::Up, FaultClass::CpuSaturation),
    ("mem_mb", Scale::Log(1e-3), Bad::Up, FaultClass::MemorySaturation),
];

impl Scale {
    fn to(self, v: f64) -> f32 {
        let x = match self {
            Self::Log(least) => (v.max(0.0) + least).ln(),
            Self::Root => v.max(0.0).sqrt(),
            Self::Plain => v,
        };
        x as f32
    }

    fn from(self, x: f32) -> f64 {
        let x = f64::from(x);
        match self {
            Self::Log(least) => (x.exp() - least).max(0.0),
            Self::Root => x * x,
            Self::Plain => x,
        }
    }
}

/// A row as the forest sees it: NaN is absent, which is not zero.
pub(super) fn vector(row: &FeatureRow) -> Row {
    let values = [
        row.latency_mean_ms,
        row.latency_p95_ms,
        row.latency_p99_ms,
        row.error_ratio,
        row.request_rate,
        row.cpu_pct,
        row.mem_mb,
    ];
    let mut out = [f32::NAN; WIDTH];
    for ((o, v), (_, scale, ..)) in out.iter_mut().zip(values).zip(FIELDS) {
        let v = v.filter(|v| v.is_finite()).map_or(f32::NAN, |v| scale.to(v));
        *o = if v.is_finite() { v } else { f32::NAN };
    }
    out
}

/// One feature of an odd minute.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Part {
    feature: usize,
    /// Share of the oddness, 0..=1; all together are 1.
    share: f64,
    value: f64,
    /// Of minutes that are alike otherwise: low end, middle, high end.
    expected: Option<(f64, f64, f64)>,
}

impl Part {
    fn direction(&self) -> Direction {
        match self.expected {
            Some((_, middle, _)) if self.value > middle => Direction::Up,
            Some((_, middle, _)) if self.value < middle => Direction::Down,
            _ => Direction::None,
        }
    }
}

/// The features of an odd minute, the one that made the most of it first.
///
/// The share of a feature is by how much the row's mean path grows when the forest is not told that feature: it is hard
/// to isolate without those that made it odd.
pub(super) fn explain(forest: &Forest<'_>, row: &Row, verdict: &Verdict, scratch: &mut Scratch) -> Vec<Part> {
    let used = |f: &usize| forest.columns & (1 << f) != 0 && row[*f].is_finite();
    let mut parts: Vec<Part> = (0..WIDTH)
        .filter(used)
        .map(|feature| {
            let mut without = *row;
            without[feature] = f32::NAN;
            let score = forest.score(&without, scratch);
            // Scores are powers of path lengths: their logarithms are the lengths.
            let gain = score.map_or(0.0, |s| (verdict.isolation / s).log2().max(0.0));
            let scale = FIELDS[feature].1;
            Part { feature, share: gain, value: scale.from(row[feature]), expected: among_alike(forest, row, feature) }
        })
        .collect();
    let sum: f64 = parts.iter().map(|p| p.share).sum();
    let n = parts.len().max(1) as f64;
    for part in &mut parts {
        part.share = if sum > 0.0 { part.share / sum } else { 1.0 / n };
    }
    parts.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.feature.cmp(&b.feature)));
    parts
}

/// What `feature` was in the minutes of the sample that are nearest in all other features.
fn among_alike(forest: &Forest<'_>, row: &Row, feature: usize) -> Option<(f64, f64, f64)> {
    let rows = &forest.sample.rows;
    let others: Vec<(usize, f32)> = (0..WIDTH)
        .filter(|f| *f != feature && forest.columns & (1 << f) != 0 && row[*f].is_finite())
        .map(|f| {
            let mut values: Vec<f32> = rows.iter().map(|r| r[f]).filter(|v| v.is_finite()).collect();
            values.sort_by(f32::total_cmp);
            let at = |q: usize| values.get(values.len() * q / 10).copied().unwrap_or_default();
            (f, (at(9) - at(1)).max(f32::MIN_POSITIVE))
        })
        .collect();
    let distance = |r: &Row| -> f32 {
        others.iter().filter(|(f, _)| r[*f].is_finite()).map(|(f, scale)| ((r[*f] - row[*f]) / scale).powi(2)).sum()
    };
    let mut near: Vec<(f32, f32)> =
        rows.iter().filter(|r| r[feature].is_finite()).map(|r| (distance(r), r[feature])).collect();
    if near.len() < ALIKE {
        return None;
    }
    near.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let mut values: Vec<f32> = near[..ALIKE].iter().map(|(_, v)| *v).collect();
    values.sort_by(f32::total_cmp);
    let scale = FIELDS[feature].1;
    Some((scale.from(values[0]), scale.from(values[ALIKE / 2]), scale.from(values[ALIKE - 1])))
}

/// The feature that is bad by itself and says what it may be (a load that moved does not), and the way that the first
/// one left.
pub(super) fn lead(parts: &[Part]) -> (Option<u8>, Direction) {
    let bad = |p: &&Part| p.share >= NAMED_MIN && FIELDS[p.feature].2 == Bad::Up && p.direction() == Direction::Up;
    let lead = parts.iter().find(bad).map(|p| p.feature as u8);
    (lead, parts.first().map_or(Direction::None, Part::direction))
}

/// The record of what became of an alarm.
pub(super) fn record(
    tenant: &str,
    meta: &EntityMeta,
    phase: Phase,
    open: &Open,
    verdict: &Verdict,
    parts: &[Part],
) -> Anomaly {
    let mut a = bare(tenant, meta, phase, open);
    let mut features = BTreeMap::from([
        ("isolation".to_owned(), verdict.isolation),
        ("isolation_threshold".to_owned(), verdict.threshold),
        ("isolation_usual".to_owned(), verdict.usual),
        ("minutes".to_owned(), verdict.minutes as f64),
    ]);
    for part in parts {
        let name = FIELDS[part.feature].0;
        features.insert(name.to_owned(), part.value);
        features.insert(format!("{name}_share"), part.share);
        if let Some((low, _, high)) = part.expected {
            features.insert(format!("{name}_low"), low);
            features.insert(format!("{name}_high"), high);
        }
    }
    features.retain(|_, v| v.is_finite());
    a.explanation.features = features;
    if let Some(first) = parts.first() {
        a.explanation.observed = Some(first.value);
        a.explanation.expected = first.expected.map(|e| e.1);
        a.explanation.lower = first.expected.map(|e| e.0);
        a.explanation.upper = first.expected.map(|e| e.2);
    }
    let words: Vec<String> = parts
        .iter()
        .filter(|p| p.share >= NAMED_MIN)
        .map(|p| {
            let name = FIELDS[p.feature].0;
            match p.expected {
                Some((low, _, high)) => format!("{name} {:.2} where {low:.2} to {high:.2} is usual", p.value),
                None => format!("{name} {:.2}", p.value),
            }
        })
        .collect();
    a.description = match phase {
        Phase::Closed => "the minutes are ordinary again, or have become so".to_owned(),
        _ => format!("the minute is odd as a whole: {}", words.join(", ")),
    };
    a
}

/// The end of an alarm of an entity that went silent.
pub(super) fn silent(tenant: &str, meta: &EntityMeta, open: &Open) -> Anomaly {
    let mut a = bare(tenant, meta, Phase::Closed, open);
    "no minutes any more".clone_into(&mut a.description);
    a
}

fn bare(tenant: &str, meta: &EntityMeta, phase: Phase, open: &Open) -> Anomaly {
    let (kind, labels) = (AnomalyKind::Statistical, BTreeMap::new());
    let fingerprint = Anomaly::fingerprint_of(tenant, meta.id.as_str(), kind, SIGNAL, &labels);
    let onset = Timestamp(open.onset);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, onset),
        fingerprint,
        tenant: tenant.to_owned(),
        entity: meta.clone(),
        kind,
        signal: SIGNAL.to_owned(),
        labels,
        onset,
        last_seen: Timestamp(open.last.max(open.onset)),
        phase,
        score: open.score,
        severity: Severity::from_score(open.score),
        direction: open.direction,
        fault: open.lead.and_then(|f| FIELDS.get(usize::from(f))).map_or(FaultClass::Unknown, |f| f.3),
        description: String::new(),
        explanation: Explanation {
            model: "isolation_forest".to_owned(),
            model_version: MODEL_VERSION,
            ..Explanation::default()
        },
        source: String::new(),
    }
}
