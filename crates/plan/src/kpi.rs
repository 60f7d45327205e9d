//! Binding of the check: which series of the incident tells whether it got better, and which value of it is good.

use crate::playbook::{KpiSource, KpiSpec, ThresholdSpec, Verify, VerifyOf};
use crate::scope::shows;
use crate::targets::Place;
use nightshift_model::anomaly::OBJECT_FAULT;
use nightshift_model::{
    Anomaly, AnomalyKind, Compare, Direction, EntityId, Kpi, Phase, SignalFamily, Verification, families,
};

/// A capacity anomaly has no band, only the limit ahead: moving this share away from it again is getting better.
const AWAY_FROM_LIMIT: f64 = 0.01;

/// Whether readings of its series will come: rules, logs and alerts name no series, but for what is read from objects.
fn is_series(a: &Anomaly) -> bool {
    (matches!(a.kind, AnomalyKind::Statistical | AnomalyKind::Capacity) || of_objects(a))
        && matches!(a.direction, Direction::Up | Direction::Down)
}

/// Found on the objects themselves: the series of that name says whether it still is.
fn of_objects(a: &Anomaly) -> bool {
    a.kind == AnomalyKind::Rule && a.signal == OBJECT_FAULT
}

fn better(a: &Anomaly, compare: Compare, threshold: f64) -> bool {
    // A threshold that what was seen already meets would verify anything.
    threshold.is_finite()
        && a.explanation.observed.is_none_or(|seen| match compare {
            Compare::Below => threshold < seen,
            Compare::Above => threshold > seen,
        })
}

/// Which value is good again, from the anomaly's own numbers.
fn threshold(a: &Anomaly, spec: ThresholdSpec) -> Option<(Compare, f64)> {
    let e = &a.explanation;
    let up = a.direction == Direction::Up;
    let compare = if up { Compare::Below } else { Compare::Above };
    let bound = match spec {
        ThresholdSpec::Below(value) => return better(a, Compare::Below, value).then_some((Compare::Below, value)),
        ThresholdSpec::Above(value) => return better(a, Compare::Above, value).then_some((Compare::Above, value)),
        _ if a.kind == AnomalyKind::Capacity => {
            let seen = e.observed?;
            if up { seen - AWAY_FROM_LIMIT * seen.abs() } else { seen + AWAY_FROM_LIMIT * seen.abs() }
        }
        ThresholdSpec::Band(slack) => {
            let edge = if up { e.upper } else { e.lower }?;
            edge + slack * (edge - e.expected.unwrap_or(edge))
        }
        ThresholdSpec::ExpectedTimes(times) => {
            let expected = e.expected.filter(|x| *x > 0.0)?;
            if up { expected * times } else { expected / times }
        }
    };
    better(a, compare, bound).then_some((compare, bound))
}

fn of_series(a: &Anomaly, source: &KpiSource) -> bool {
    match source {
        KpiSource::Signal(name) => a.signal == *name,
        KpiSource::Family(family) => shows(a, family.as_str()),
    }
}

/// The check of a plan. `targets`: the cause first, then what the steps touch. `None` when nothing that the incident
/// shows can tell.
pub(crate) fn bind(verify: &Verify, targets: &[EntityId], place: Place<'_>) -> Option<Verification> {
    let mut series: Vec<&Anomaly> = place.incident.anomalies.iter().filter(|a| is_series(a)).collect();
    let near = |a: &Anomaly| targets.iter().position(|t| t == place.topology.resolve(&a.entity.id));
    if verify.of == VerifyOf::Affected {
        series.retain(|a| near(a).is_none());
    }
    series.sort_by(|a, b| {
        let rank = |a: &Anomaly| (near(a).unwrap_or(usize::MAX), a.phase == Phase::Closed);
        rank(a)
            .cmp(&rank(b))
            .then_with(|| b.score.total_cmp(&a.score))
            .then_with(|| (a.onset, a.id).cmp(&(b.onset, b.id)))
    });
    let made = |kpi: Kpi, (compare, threshold): (Compare, f64)| Verification {
        kpi,
        compare,
        threshold,
        readings: verify.readings,
        interval_secs: verify.interval_secs,
        deadline_secs: verify.deadline_secs,
    };
    let kpi = |a: &Anomaly| Kpi {
        entity: place.topology.resolve(&a.entity.id).clone(),
        signal: a.signal.clone(),
        labels: a.labels.clone(),
    };
    let first = |spec: &KpiSpec, own: bool| {
        let fits = |a: &&&Anomaly| near(a).is_some() == own && of_series(a, &spec.of);
        series.iter().filter(fits).find_map(|a| Some((*a, threshold(a, spec.threshold)?)))
    };
    // What the playbook names: on what is touched, then on those that suffer.
    for own in [true, false] {
        if let Some((a, good)) = verify.kpis.iter().find_map(|spec| first(spec, own)) {
            return Some(made(kpi(a), good));
        }
    }
    // A fixed limit of a named metric needs no anomaly to be read from.
    let fixed = verify.kpis.iter().find_map(|spec| match (&spec.of, spec.threshold) {
        (KpiSource::Signal(name), ThresholdSpec::Below(v)) => Some((name, Compare::Below, v)),
        (KpiSource::Signal(name), ThresholdSpec::Above(v)) => Some((name, Compare::Above, v)),
        _ => None,
    });
    if let (Some((signal, compare, value)), Some(target), VerifyOf::Any) = (fixed, targets.first(), verify.of) {
        let kpi = Kpi { entity: target.clone(), signal: signal.clone(), labels: Default::default() };
        return Some(made(kpi, (compare, value)));
    }
    // Whatever else left its band; more or less work is the world's doing and proves no fix.
    let work = |a: &Anomaly| {
        families::family(&a.signal, |k| a.labels.get(k).map(String::as_str)) == Some(SignalFamily::RequestRate)
    };
    // What the playbook names has its own measure of good: not yet beyond it, it tells nothing yet.
    let named = |a: &Anomaly| {
        let own = |k: &KpiSpec| of_series(a, &k.of) && matches!(k.threshold, ThresholdSpec::ExpectedTimes(_));
        verify.kpis.iter().any(own)
    };
    let left = |a: &Anomaly| a.kind == AnomalyKind::Statistical || of_objects(a);
    let mut rest = series.iter().filter(|a| left(a) && !work(a) && !named(a));
    rest.find_map(|a| Some(made(kpi(a), threshold(a, ThresholdSpec::Band(0.0))?)))
}

/// For a plan that only asks a person: the worst symptom, so that the page says what to look at.
pub(crate) fn bind_any(verify: &Verify, targets: &[EntityId], place: Place<'_>) -> Option<Verification> {
    if let Some(found) = bind(verify, targets, place) {
        return Some(found);
    }
    let worst = place
        .incident
        .anomalies
        .iter()
        .max_by(|a, b| a.score.total_cmp(&b.score).then_with(|| (b.onset, b.id).cmp(&(a.onset, a.id))))?;
    let e = &worst.explanation;
    let (compare, edge) =
        if worst.direction == Direction::Down { (Compare::Above, e.lower) } else { (Compare::Below, e.upper) };
    Some(Verification {
        kpi: Kpi {
            entity: place.topology.resolve(&worst.entity.id).clone(),
            signal: worst.signal.clone(),
            labels: worst.labels.clone(),
        },
        compare,
        threshold: edge.or(e.expected).or(e.observed).filter(|t| t.is_finite()).unwrap_or(0.0),
        readings: verify.readings,
        interval_secs: verify.interval_secs,
        deadline_secs: verify.deadline_secs,
    })
}
