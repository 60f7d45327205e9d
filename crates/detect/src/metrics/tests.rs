//! The detector as a whole: each test of the first part is named after a defect of a system of the same kind.

use super::*;
use nightshift_model::batch::{BatchBuilder, BatchView, SeriesKind, labels};
use nightshift_model::hash::{hash64, series_fingerprint};
use nightshift_model::time::NANOS_PER_SEC;
use nightshift_model::{
    Anomaly, AnomalyKind, Direction, EntityId, EntityMeta, FaultClass, OccurrenceId, Phase, Severity, Timestamp,
};
use proptest::prelude::*;
use std::sync::Arc;

const STEP: i64 = 10 * NANOS_PER_SEC;
const START: i64 = 1_700_000_000 * NANOS_PER_SEC;

/// One sample: entity kind and name, labels, kind of series, step number, value.
#[derive(Debug, Clone)]
struct Point {
    entity: &'static str,
    labels: Vec<(&'static str, String)>,
    kind: SeriesKind,
    at: i64,
    value: f64,
}

fn point(i: i64, value: f64) -> Point {
    named("service/api", "cpu_usage", i, value)
}

fn named(entity: &'static str, metric: &str, i: i64, value: f64) -> Point {
    Point {
        entity,
        labels: vec![("__name__", metric.to_owned())],
        kind: SeriesKind::Gauge,
        at: START + i * STEP,
        value,
    }
}

fn batch(points: &[Point]) -> bytes::Bytes {
    let mut b = BatchBuilder::default();
    for p in points {
        let (kind, name) = p.entity.split_once('/').unwrap();
        let meta = EntityMeta::bare(EntityId::new("c", kind, "", name));
        let entity = b.entity(&meta);
        let wire = labels::encode(p.labels.iter().map(|(k, v)| (*k, v.as_str())));
        b.series(series_fingerprint("t", meta.id.as_str(), &wire), entity, p.kind, &wire);
        b.sample(Timestamp(p.at), p.value);
    }
    b.finish("test")
}

struct Rig {
    detector: ShardDetector,
    out: Effects,
    stats: StepStats,
}

impl Rig {
    fn new(config: MetricsConfig) -> Self {
        let budget = Arc::new(SeriesBudget::new(u64::from(config.series_max)));
        Self {
            detector: ShardDetector::new(Arc::new(config), budget, 0),
            out: Effects::default(),
            stats: StepStats::default(),
        }
    }

    fn feed(&mut self, points: &[Point]) {
        let bytes = batch(points);
        let mut view = BatchView::parse(&bytes).unwrap();
        let stats = self.detector.step("t", &mut view, Timestamp(START), &mut self.out).unwrap();
        self.stats.add(&stats);
    }

    fn phases(&self) -> Vec<(Phase, Direction)> {
        self.out.anomalies.iter().map(|a| (a.phase, a.direction)).collect()
    }

    fn opened(&self) -> Vec<&Anomaly> {
        self.out.anomalies.iter().filter(|a| a.phase == Phase::Open).collect()
    }
}

fn run(points: impl IntoIterator<Item = Point>) -> Rig {
    run_with(MetricsConfig::default(), points)
}

fn run_with(config: MetricsConfig, points: impl IntoIterator<Item = Point>) -> Rig {
    let mut rig = Rig::new(config);
    for p in points {
        rig.feed(&[p]);
    }
    rig
}

/// Uniform in -1..1, the same for the same number everywhere.
fn noise(i: i64, salt: u64) -> f64 {
    let bits = hash64(&[i.to_le_bytes(), (salt as i64).to_le_bytes()].concat());
    bits as f64 / u64::MAX as f64 * 2.0 - 1.0
}

/// About normal.
fn gauss(i: i64, salt: u64) -> f64 {
    (0..6).map(|k| noise(i, salt * 7 + k)).sum::<f64>() * 0.707
}

// --- what others got wrong ---

#[test]
fn the_point_under_test_is_not_in_its_own_baseline() {
    let rig = run((0..35).map(|i| point(i, 50.0 + noise(i, 1))).chain([point(35, 200.0)]));
    let opened = rig.opened();
    assert_eq!(opened.len(), 1);
    let a = opened[0];
    // With the spike inside its own baseline of 36 no distance can exceed 5.83 sigma.
    assert!(a.explanation.sigma.unwrap() > 20.0, "{a:?}");
    assert!(a.score >= 0.9 && a.severity == Severity::Critical);
    let text = &a.description;
    assert!(text.starts_with("value 200.00 deviates ") && text.ends_with(" sigma from mean"), "{text}");
    assert_eq!(a.onset, Timestamp(START + 35 * STEP));
    assert_eq!(a.fault, FaultClass::CpuSaturation);
    assert_eq!(a.id, OccurrenceId::derive(a.fingerprint, a.onset));
    assert_eq!(
        a.fingerprint,
        Anomaly::fingerprint_of("t", "c/service/-/api", AnomalyKind::Statistical, "cpu_usage", &a.labels)
    );
}

#[test]
fn the_burst_is_one_anomaly_that_closes_whatever_the_noise() {
    for salt in 0..40 {
        for width in [0.0, 0.01, 1.0, 3.0, 5.0, 10.0] {
            let calm = (0..35).map(|i| point(i, 50.0 + width * noise(i, salt)));
            let after = (36..39).map(|i| point(i, 50.0 + width * noise(i, salt)));
            let rig = run(calm.chain([point(35, 200.0)]).chain(after));
            assert_eq!(rig.phases(), [(Phase::Open, Direction::Up), (Phase::Closed, Direction::Up)], "{width} {salt}");
            assert!(rig.out.anomalies[0].score >= 0.9, "{width} {salt} {:?}", rig.out.anomalies[0]);
            assert_eq!(rig.out.anomalies[0].id, rig.out.anomalies[1].id);
        }
    }
}

#[test]
fn anomalous_points_do_not_poison_the_baseline() {
    // Twenty minutes of trouble, quiet, and the same trouble again: it is as far from normal as the first time.
    let value = |i: i64| match i {
        200..320 | 420..540 => 95.0,
        _ => 20.0 + gauss(i, 3),
    };
    let rig = run((0..600).map(|i| point(i, value(i))));
    let opened = rig.opened();
    assert_eq!(opened.len(), 2, "{:?}", rig.phases());
    let (a, b) = (opened[0].explanation.expected.unwrap(), opened[1].explanation.expected.unwrap());
    assert!((a - 20.0).abs() < 1.0 && (b - 20.0).abs() < 1.0, "{a} {b}");
    assert!(opened[1].score > 0.9);
}

#[test]
fn departures_downwards_are_seen() {
    let value = |i: i64| if i < 100 { 1_000.0 + 10.0 * gauss(i, 5) } else { 5.0 };
    let rig = run((0..110).map(|i| named("service/api", "service_request_rate", i, value(i))));
    assert_eq!(rig.phases()[0], (Phase::Open, Direction::Down));
    assert_eq!(rig.opened()[0].fault, FaultClass::TrafficLoss);
    assert_eq!(rig.opened()[0].onset, Timestamp(START + 100 * STEP));
}

#[test]
fn a_constant_series_that_changes_alarms() {
    for (before, after) in [(50.0, 80.0), (50.0, 51.0), (0.0, 3.0), (-4.0, 4.0), (1e9, 1.1e9), (1e-6, 2e-6)] {
        let rig = run((0..110).map(|i| named("service/api", "answer", i, if i < 100 { before } else { after })));
        assert_eq!(rig.opened().len(), 1, "{before} -> {after} {:?}", rig.phases());
        assert_eq!(rig.opened()[0].onset, Timestamp(START + 100 * STEP));
        assert!(rig.opened()[0].score >= 0.5);
    }
    let rig = run((0..2_000).map(|i| point(i, 50.0)));
    assert!(rig.out.anomalies.is_empty(), "a constant by itself is no alarm");
}

#[test]
fn one_tick_of_a_counter_that_is_always_zero_is_no_alarm() {
    let rig = run((0..300).map(|i| named("service/api", "service_error_count", i, f64::from(u8::from(i == 150)))));
    assert!(rig.out.anomalies.is_empty(), "{:?}", rig.out.anomalies);
}

#[test]
fn every_pod_has_a_series_of_its_own() {
    let pod = |name: &str, i: i64, value: f64| {
        let mut p = point(i, value);
        p.labels.push(("pod", name.to_owned()));
        p
    };
    // One at 10, one at 90: either is normal for itself. Then the first does what the second always does.
    let mut rig = Rig::new(MetricsConfig::default());
    for i in 0..120 {
        let a = if i < 100 { 10.0 + gauss(i, 1) } else { 90.0 };
        rig.feed(&[pod("a", i, a), pod("b", i, 90.0 + gauss(i, 2))]);
    }
    assert_eq!(rig.detector.series_live(), 2);
    assert_eq!(rig.opened().len(), 1);
    assert_eq!(rig.opened()[0].labels["pod"], "a");
}

#[test]
fn nothing_is_said_before_thirty_points() {
    for n in [5, 15, 29] {
        let rig = run((0..n + 1).map(|i| point(i, if i < n { 50.0 + noise(i, 1) } else { 1e6 })));
        assert!(rig.out.anomalies.is_empty(), "{n}");
        assert_eq!(rig.stats.warming, rig.stats.scored);
    }
}

#[test]
fn an_alarm_is_told_once_and_again_only_when_worse() {
    let value = |i: i64| match i {
        0..200 => 50.0 + gauss(i, 9),
        200..230 => 60.0,
        230..260 => 500.0,
        _ => 50.0 + gauss(i, 9),
    };
    let rig = run((0..300).map(|i| point(i, value(i))));
    let phases: Vec<_> = rig.out.anomalies.iter().map(|a| a.phase).collect();
    assert_eq!(phases.first(), Some(&Phase::Open));
    assert_eq!(phases.last(), Some(&Phase::Closed));
    assert!(phases.len() <= 4 && phases[1..phases.len() - 1].iter().all(|p| *p == Phase::Update), "{phases:?}");
    assert!(rig.out.anomalies.iter().all(|a| a.id == rig.out.anomalies[0].id));
    assert!(rig.out.anomalies.windows(2).all(|w| w[0].severity <= w[1].severity));
    assert_eq!(rig.out.anomalies.last().unwrap().last_seen, Timestamp(START + 260 * STEP));
}

// --- the rules ---

fn cpu(i: i64, mode: &str, total: f64) -> Point {
    Point {
        entity: "host/web1",
        labels: vec![("__name__", "node_cpu_seconds_total".into()), ("cpu", "0".into()), ("mode", mode.into())],
        kind: SeriesKind::Counter,
        at: START + i * NANOS_PER_SEC,
        value: total,
    }
}

#[test]
fn a_cpu_that_burns_on_a_host_alarms_from_its_first_sample_and_ends() {
    let (mut idle, mut user) = (1_000.0, 500.0);
    let mut rig = Rig::new(MetricsConfig::default());
    // As many series as a node exporter has: each raises what an alarm needs.
    rig.feed(&(0..1_000).map(|s| named("host/web1", &format!("node_other_{s}"), 0, 1.0)).collect::<Vec<_>>());
    for i in 0..240 {
        let spike = if i % 23 == 7 { 0.25 } else { 0.0 };
        let busy = if (60..140).contains(&i) { 0.995 } else { 0.04 + 0.03 * noise(i, 2).abs() + spike };
        // Accounted in ticks of 10 ms, as the kernel does.
        idle += ((1.0 - busy) * 100.0).round() / 100.0;
        user += (busy * 100.0).round() / 100.0;
        rig.feed(&[cpu(i, "idle", idle), cpu(i, "user", user)]);
    }
    let mut ids = std::collections::BTreeMap::<_, Vec<_>>::new();
    for a in &rig.out.anomalies {
        ids.entry(a.id).or_default().push(a);
    }
    assert_eq!(ids.len(), 2, "{:?}", rig.phases());
    for records in ids.values() {
        let (first, last) = (records[0], records[records.len() - 1]);
        assert_eq!(first.fault, FaultClass::CpuSaturation);
        assert!(first.score >= 0.5, "{first:?}");
        assert_eq!(first.onset, Timestamp(START + 60 * NANOS_PER_SEC));
        assert_eq!(last.phase, Phase::Closed);
        let end = last.last_seen.since(Timestamp(START + 140 * NANOS_PER_SEC)).as_secs();
        assert!(end <= 2, "{end}");
    }
}

#[test]
fn a_lightly_used_host_stays_quiet() {
    // A day at 10 s: noise, a job every five minutes that takes a core for one reading, a download of ten minutes.
    let mut rig = Rig::new(MetricsConfig::default());
    let (mut idle, mut received) = (0.0, 0.0);
    for i in 0..8_640i64 {
        let busy = 0.03 + 0.02 * noise(i, 1).abs() + if i % 30 == 0 { 0.9 } else { 0.0 };
        idle += (1.0 - busy) * 10.0;
        received += if (4_000..4_060).contains(&i) { 5e8 } else { 1e4 * (1.0 + noise(i, 2)) };
        let mut a = cpu(i, "idle", idle);
        a.at = START + i * STEP;
        let mut b = named("host/web1", "node_network_receive_bytes_total", i, received);
        b.kind = SeriesKind::Counter;
        let c = named("host/web1", "node_load1", i, 0.2 + 0.1 * noise(i, 3).abs() + 0.1 * noise(i / 6, 4).abs());
        rig.feed(&[a, b, c]);
    }
    let loud: Vec<_> = rig.out.anomalies.iter().filter(|a| a.severity >= Severity::Medium).collect();
    assert!(loud.is_empty(), "{:?}", loud.iter().map(|a| (&a.signal, a.score, &a.description)).collect::<Vec<_>>());
}

#[test]
fn noise_of_many_series_is_within_the_risk() {
    // 200 series of a service for three hours: 216,000 readings.
    let mut rig = Rig::new(MetricsConfig::default());
    for i in 0..1_080 {
        let points: Vec<_> = (0..200u64)
            .map(|s| {
                let mut p = named("service/api", "answer", i, 100.0 + 10.0 * gauss(i, s));
                p.labels.push(("shard", s.to_string()));
                p
            })
            .collect();
        rig.feed(&points);
    }
    assert!(rig.opened().len() <= 2, "{}", rig.opened().len());
}

#[test]
fn what_is_idle_more_is_no_trouble() {
    let mut rig = Rig::new(MetricsConfig::default());
    for i in 0..300 {
        let v = if i < 200 { 60.0 + gauss(i, 1) } else { 5.0 + 0.1 * gauss(i, 1) };
        rig.feed(&[named("service/api", "service_latency_p99_ms", i, v)]);
    }
    assert!(!rig.out.anomalies.is_empty());
    assert!(rig.out.anomalies.iter().all(|a| a.severity == Severity::Low && a.fault == FaultClass::Unknown));
}

#[test]
fn a_season_is_learned_and_a_value_at_the_wrong_hour_alarms() {
    // An hour's wave at 10 s; then a plateau that is well inside the range of the wave, at its low.
    let wave = |i: i64| 100.0 + 50.0 * ((i % 360) as f64 / 360.0 * std::f64::consts::TAU).sin() + gauss(i, 4);
    let n = 360 * 14;
    let value = |i: i64| if (n + 250..n + 290).contains(&i) { 130.0 + gauss(i, 4) } else { wave(i) };
    let rig = run((0..n + 400).map(|i| named("service/api", "answer", i, value(i))));
    let late: Vec<_> = rig.opened().into_iter().filter(|a| a.onset.0 >= START + (n - 720) * STEP).collect();
    assert!(!late.is_empty(), "{:?}", rig.phases());
    assert_eq!(late[0].onset, Timestamp(START + (n + 250) * STEP));
    assert_eq!(late[0].explanation.model, "forecast");
    assert!(late.len() <= 2);
}

#[test]
fn a_shift_that_stays_becomes_normal() {
    let value = |i: i64| if i < 300 { 50.0 + gauss(i, 6) } else { 80.0 + gauss(i, 6) };
    let rig = run((0..1_200).map(|i| point(i, value(i))));
    assert_eq!(rig.phases().first(), Some(&(Phase::Open, Direction::Up)));
    let closed: Vec<_> = rig.out.anomalies.iter().filter(|a| a.phase == Phase::Closed).collect();
    assert_eq!(closed.len(), 1, "{:?}", rig.phases());
    assert_eq!(closed[0].explanation.features["relearned"], 1.0);
    assert!(closed[0].last_seen.since(closed[0].onset).as_secs().abs_diff(3_600) <= 20);
    assert_eq!(rig.detector.alarms_open(), 0);
}

#[test]
fn a_varying_series_that_goes_flat_alarms_and_ends() {
    let value = |i: i64| if (200..230).contains(&i) { 50.0 } else { 50.0 + gauss(i, 8) };
    let rig = run((0..260).map(|i| named("service/api", "answer", i, value(i))));
    assert_eq!(rig.phases(), [(Phase::Open, Direction::Flat), (Phase::Closed, Direction::Flat)]);
    let a = &rig.out.anomalies[0];
    assert_eq!((a.explanation.model.as_str(), a.fault), ("flatline", FaultClass::TelemetryMissing));
    assert_eq!(a.onset, Timestamp(START + 200 * STEP));
}

#[test]
fn stalls_that_stop_are_rest_and_requests_that_stop_are_silence() {
    // A counter of whole things, some every reading, then none for a quarter of an hour.
    let total = |i: i64| (0..=i.min(199)).map(|k| (6.0 + 3.0 * noise(k, 8)).round()).sum::<f64>();
    let counter = |name: &'static str| {
        run((0..290).map(|i| Point { kind: SeriesKind::Counter, ..named("host/db1", name, i, total(i)) }))
    };
    let stalls = counter("node_pressure_io_stalled_seconds_total");
    assert!(stalls.opened().iter().all(|a| a.direction != Direction::Flat), "{:?}", stalls.opened());
    let requests = counter("http_requests_total");
    assert!(!requests.opened().is_empty());
}

#[test]
fn a_disk_that_fills_is_foreseen() {
    let value = |i: i64| 0.40 + 0.0005 * i as f64 + 0.0005 * noise(i, 1);
    let rig = run((0..700).map(|i| named("host/db1", "system_disk_used_ratio", i, value(i))));
    let capacity: Vec<_> = rig.out.anomalies.iter().filter(|a| a.kind == AnomalyKind::Capacity).collect();
    assert_eq!(capacity[0].fault, FaultClass::DiskFull);
    let eta = capacity[0].explanation.features["time_to_limit_secs"];
    let true_eta = (1.0 - capacity[0].explanation.observed.unwrap()) / 0.0005 * 10.0;
    assert!((eta / true_eta - 1.0).abs() < 0.1, "{eta} {true_eta}");
    assert!(capacity.iter().all(|a| a.id == capacity[0].id));
    assert!(capacity[0].description.contains("reaches 1.00 in"));
}

#[test]
fn counters_become_rates_and_resets_make_none() {
    let mut rig = Rig::new(MetricsConfig::default());
    let mut total = 1e6;
    for i in 0..200 {
        total = if i == 100 { 50.0 } else { total + 1_000.0 + 10.0 * gauss(i, 1) };
        let mut p = named("service/api", "http_requests_total", i, total);
        p.kind = SeriesKind::Counter;
        rig.feed(&[p]);
    }
    assert_eq!(rig.stats.resets, 1);
    assert!(rig.out.anomalies.is_empty(), "{:?}", rig.out.anomalies);
    let hot = rig.detector.hot[0];
    assert!((hot.mu - 100.0).abs() < 1.0, "{}", hot.mu);
}

#[test]
fn deltas_become_rates() {
    let mut rig = Rig::new(MetricsConfig::default());
    for i in 0..60 {
        let mut p = named("service/api", "requests", i, 500.0);
        p.kind = SeriesKind::Delta;
        rig.feed(&[p]);
    }
    assert!((rig.detector.hot[0].mu - 50.0).abs() < 1e-9);
}

#[test]
fn every_sample_is_accounted_for() {
    let mut rig = run((0..100).map(|i| point(i, 50.0)));
    rig.feed(&[point(100, f64::NAN)]);
    rig.feed(&[point(101, f64::INFINITY)]);
    rig.feed(&[point(99, 50.0)]);
    rig.feed(&[point(50, 51.0)]);
    rig.feed(&[point(-400, 50.0)]);
    let s = rig.stats;
    assert_eq!((s.not_finite, s.duplicates, s.late, s.too_old), (2, 1, 1, 1));
    assert_eq!(s.samples, s.scored + s.duplicates + s.not_finite + s.too_old + s.resets + s.over_ceiling);
    assert_eq!(rig.detector.hot[0].n, 100, "late samples are not learned");
    assert!(rig.out.anomalies.is_empty());
}

#[test]
fn series_over_the_ceiling_are_counted_and_make_room_when_others_leave() {
    let mut rig = Rig::new(MetricsConfig { series_max: 3, ..MetricsConfig::default() });
    let many = |i: i64| -> Vec<_> { (0..5).map(|s| named("service/api", &format!("m{s}"), i, 1.0)).collect() };
    rig.feed(&many(0));
    assert_eq!((rig.detector.series_live(), rig.stats.over_ceiling, rig.stats.series_new), (3, 2, 3));
    // An hour and more later only two of them are left.
    rig.feed(&[named("service/api", "m3", 1, 1.0)]);
    assert_eq!(rig.stats.over_ceiling, 3);
    rig.feed(&[named("service/api", "m0", 400, 1.0)]);
    rig.detector.tick(Timestamp(START), &mut rig.out);
    assert_eq!(rig.detector.series_live(), 1);
    rig.feed(&many(401)[3..]);
    assert_eq!(rig.detector.series_live(), 3);
    let budget = Arc::clone(&rig.detector.budget);
    assert_eq!(budget.live("t", "test"), 3);
    drop(rig);
    assert_eq!(budget.live("t", "test"), 0);
}

#[test]
fn an_idle_series_ends_its_alarm_when_it_leaves() {
    let mut rig = run((0..100).map(|i| point(i, if i < 95 { 50.0 + noise(i, 1) } else { 500.0 })));
    assert_eq!(rig.phases(), [(Phase::Open, Direction::Up)]);
    rig.detector.tick(Timestamp(START + 3_000 * NANOS_PER_SEC), &mut rig.out);
    assert_eq!(rig.detector.series_live(), 1);
    rig.detector.tick(Timestamp(START + 5_000 * NANOS_PER_SEC), &mut rig.out);
    assert_eq!(rig.phases(), [(Phase::Open, Direction::Up), (Phase::Closed, Direction::Up)]);
    assert_eq!((rig.detector.series_live(), rig.detector.alarms_open()), (0, 0));
}

#[test]
fn a_series_that_stops_while_its_source_goes_on_is_absent() {
    let mut config = MetricsConfig::default();
    config.absence.enabled = true;
    let mut rig = Rig::new(config);
    for i in 0..100 {
        rig.feed(&[named("service/api", "a", i, noise(i, 1)), named("service/api", "b", i, noise(i, 2))]);
    }
    rig.detector.tick(Timestamp(START), &mut rig.out);
    // The whole source is silent: that is another's to say.
    rig.detector.tick(Timestamp(START + 1_000 * NANOS_PER_SEC), &mut rig.out);
    assert!(rig.out.anomalies.is_empty());
    for i in 100..130 {
        rig.feed(&[named("service/api", "a", i, noise(i, 1))]);
    }
    rig.detector.tick(Timestamp(START + 2_000 * NANOS_PER_SEC), &mut rig.out);
    rig.feed(&[named("service/api", "b", 130, noise(130, 2))]);
    assert_eq!(rig.phases(), [(Phase::Open, Direction::Flat), (Phase::Closed, Direction::Flat)]);
    assert_eq!(
        (rig.out.anomalies[0].signal.as_str(), rig.out.anomalies[0].explanation.model.as_str()),
        ("b", "absence")
    );
}

#[test]
fn layers_can_be_used_alone() {
    let off = || {
        let mut c = MetricsConfig::default();
        (c.zscore.enabled, c.ewma.enabled, c.trend.enabled, c.forecast.enabled) = (false, false, false, false);
        (c.evt.enabled, c.flatline.enabled) = (false, false);
        c
    };
    let shift =
        |i: i64| named("service/api", "answer", i, if i < 100 { 50.0 + gauss(i, 1) } else { 70.0 + gauss(i, 1) });
    assert!(run_with(off(), (0..130).map(shift)).out.anomalies.is_empty());
    for layer in ["zscore", "ewma", "forecast"] {
        let mut c = off();
        match layer {
            "zscore" => c.zscore.enabled = true,
            "ewma" => c.ewma.enabled = true,
            _ => c.forecast.enabled = true,
        }
        let rig = run_with(c, (0..130).map(shift));
        let late: Vec<_> = rig.opened().into_iter().filter(|a| a.onset.0 >= START + 100 * STEP).collect();
        assert_eq!(late[0].explanation.model, layer);
    }
}

#[test]
fn a_sigma_by_name_wins() {
    let mut c = MetricsConfig::default();
    c.evt.enabled = false;
    c.zscore.sigma = vec![super::config::SigmaRule { metric: "quiet*".into(), sigma: 50.0 }];
    let shift =
        |m: &'static str| move |i: i64| named("service/api", m, i, if i < 100 { 50.0 + gauss(i, 1) } else { 60.0 });
    assert!(run_with(c.clone(), (0..110).map(shift("quiet_one"))).out.anomalies.is_empty());
    assert!(!run_with(c, (0..110).map(shift("loud_one"))).out.anomalies.is_empty());
}

// --- replay and restart ---

/// A stream with everything in it: seasons, spikes, resets, gaps, late and repeated samples.
fn stream(n: i64, seed: u64) -> Vec<Vec<Point>> {
    (0..n)
        .map(|i| {
            let spike = if i % 97 == 60 { 400.0 } else { 0.0 };
            let wave = 20.0 * ((i % 60) as f64 / 60.0 * std::f64::consts::TAU).sin();
            let mut points = vec![
                point(i, 50.0 + wave + gauss(i, seed) + spike),
                named("host/a", "system_disk_used_ratio", i, (0.3 + 0.0008 * i as f64).min(0.99)),
                named("service/b", "answer", i, if i % 300 > 270 { 7.0 } else { gauss(i, seed + 1) }),
            ];
            let mut counter = named("service/b", "http_requests_total", i, (i % 150) as f64 * 40.0);
            counter.kind = SeriesKind::Counter;
            points.push(counter);
            if i % 11 == 5 {
                points.push(named("service/b", "answer2", i - 3, 1.0));
            }
            if i % 2 == 0 {
                points.push(named("service/b", "answer2", i, noise(i, seed)));
            }
            if (i / 400) % 2 == 0 {
                points.push(named("service/c", "coming_and_going", i, noise(i, seed)));
            }
            points
        })
        .collect()
}

fn small() -> MetricsConfig {
    MetricsConfig { relearn_secs: 600, idle_secs: 3_600, ..MetricsConfig::default() }
}

#[test]
fn a_restart_anywhere_makes_the_same_anomalies() {
    let stream = stream(900, 3);
    let mut whole = Rig::new(small());
    for points in &stream {
        whole.feed(points);
    }
    assert!(whole.out.anomalies.len() > 10, "{}", whole.out.anomalies.len());
    for cut in [1, 29, 30, 31, 60, 257, 300, 450, 620, 899] {
        let mut first = Rig::new(small());
        for points in &stream[..cut] {
            first.feed(points);
        }
        let bytes = first.detector.snapshot();
        let budget = Arc::new(SeriesBudget::new(1_000));
        first.detector = ShardDetector::restore(Arc::new(small()), budget, &bytes).unwrap();
        assert_eq!(first.detector.snapshot(), bytes, "{cut}");
        for points in &stream[cut..] {
            first.feed(points);
        }
        assert_eq!(first.out, whole.out, "{cut}");
        assert_eq!(first.detector.snapshot(), whole.detector.snapshot(), "{cut}");
    }
}

#[test]
fn a_restart_keeps_the_ensemble() {
    let config = || {
        let mut config = small();
        config.ensemble.interval_min_secs = 0;
        config
    };
    let stream = stream(700, 5);
    let mut whole = Rig::new(config());
    for points in &stream {
        whole.feed(points);
    }
    let decided = |r: &Rig| r.out.anomalies.iter().filter(|a| a.explanation.model == "ensemble").count();
    assert!(decided(&whole) > 0);
    for cut in [7, 9, 150, 500] {
        let mut first = Rig::new(config());
        for points in &stream[..cut] {
            first.feed(points);
        }
        let bytes = first.detector.snapshot();
        let budget = Arc::new(SeriesBudget::new(1_000));
        first.detector = ShardDetector::restore(Arc::new(config()), budget, &bytes).unwrap();
        for points in &stream[cut..] {
            first.feed(points);
        }
        assert_eq!(first.out, whole.out, "{cut}");
        assert_eq!(first.detector.snapshot(), whole.detector.snapshot(), "{cut}");
    }
}

#[test]
fn a_batch_that_is_delivered_again_changes_nothing() {
    let stream = stream(600, 4);
    let (mut once, mut twice) = (Rig::new(small()), Rig::new(small()));
    for (i, points) in stream.iter().enumerate() {
        once.feed(points);
        twice.feed(points);
        twice.feed(points);
        if i > 20 {
            twice.feed(&stream[i - 20]);
        }
    }
    assert_eq!(once.out, twice.out);
    assert_eq!(once.detector.hot, twice.detector.hot);
}

#[test]
fn damaged_snapshots_are_refused() {
    let rig = run((0..50).map(|i| point(i, noise(i, 1))));
    let good = rig.detector.snapshot();
    let restore = |bytes: &[u8]| {
        let budget = Arc::new(SeriesBudget::new(10));
        ShardDetector::restore(Arc::new(MetricsConfig::default()), budget, bytes).map(|_| ())
    };
    assert_eq!(restore(&good), Ok(()));
    let mut newer = good.clone();
    newer[4] = 99;
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let table: [(&[u8], SnapshotError); 5] = [
        (b"", SnapshotError::Magic),
        (b"PK\x03\x04 and more than eight bytes", SnapshotError::Magic),
        (&newer, SnapshotError::Version(99)),
        (&flipped, SnapshotError::Checksum),
        (&good[..good.len() - 1], SnapshotError::Checksum),
    ];
    for (bytes, want) in table {
        assert_eq!(restore(bytes), Err(want));
    }
}

#[test]
fn a_broken_batch_takes_nothing() {
    let mut rig = run((0..50).map(|i| point(i, noise(i, 1))));
    let before = rig.detector.snapshot();
    let bytes = batch(&[point(50, 1.0), named("service/new", "x", 50, 1.0)]);
    for cut in 1..bytes.len() {
        let Ok(mut view) = BatchView::parse(&bytes[..cut]) else { continue };
        if rig.detector.step("t", &mut view, Timestamp(START), &mut rig.out).is_err() {
            let hot = rig.detector.hot[0];
            assert_eq!(hot.n, 50, "{cut}");
        }
    }
    assert!(!before.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_verdict_ignores_scale(k in -6i32..12, seed in 0u64..500) {
        let factor = 2.0f64.powi(k);
        let value = |i: i64| 30.0 + gauss(i, seed) + if i == 120 || i == 121 { 25.0 } else { 0.0 };
        let a = run((0..160).map(|i| named("service/api", "answer", i, value(i))));
        let b = run((0..160).map(|i| named("service/api", "answer", i, value(i) * factor)));
        let key = |r: &Rig| r.out.anomalies.iter().map(|a| (a.id, a.phase, a.score.to_bits())).collect::<Vec<_>>();
        prop_assert_eq!(key(&a), key(&b));
    }

    #[test]
    fn the_verdict_ignores_where_zero_is(shift in -1e6f64..1e6, seed in 0u64..500) {
        let value = |i: i64| gauss(i, seed) + if i == 120 || i == 121 { 25.0 } else { 0.0 };
        let a = run((0..160).map(|i| named("service/api", "answer", i, value(i))));
        let b = run((0..160).map(|i| named("service/api", "answer", i, value(i) + shift)));
        let key = |r: &Rig| r.out.anomalies.iter().map(|a| (a.id, a.phase, (a.score * 100.0).round())).collect::<Vec<_>>();
        prop_assert_eq!(key(&a), key(&b));
    }

    #[test]
    fn no_bits_panic(
        values in proptest::collection::vec((any::<u64>(), any::<i64>(), 0u8..3, any::<bool>()), 1..200),
    ) {
        let mut rig = Rig::new(MetricsConfig::default());
        let mut at = 0i64;
        for (bits, jump, kind, wild) in values {
            at = if wild { jump } else { at.saturating_add(jump.rem_euclid(60 * NANOS_PER_SEC)) };
            let mut p = named("service/api", "answer", 0, f64::from_bits(bits));
            p.kind = SeriesKind::from_u8(kind);
            p.labels.push(("kind", kind.to_string()));
            p.at = at;
            rig.feed(&[p]);
        }
        for a in &rig.out.anomalies {
            prop_assert!((0.0..=1.0).contains(&a.score));
            prop_assert!(serde_json::to_string(a).is_ok());
        }
        let bytes = rig.detector.snapshot();
        let restored =
            ShardDetector::restore(Arc::new(MetricsConfig::default()), Arc::new(SeriesBudget::new(100)), &bytes);
        prop_assert_eq!(restored.unwrap().snapshot(), bytes);
    }

    #[test]
    fn no_bytes_of_a_snapshot_panic(
        at in 0usize..4_000, flip in 1u8..=255, cut in any::<prop::sample::Index>(),
    ) {
        let rig = run((0..40).map(|i| point(i, noise(i, 1))));
        let mut bytes = rig.detector.snapshot();
        let n = bytes.len() - 8;
        bytes[8 + at % (n - 8)] ^= flip;
        let end = cut.index(n - 8) + 8;
        // With a right checksum: the content alone must hold.
        for body in [&bytes[..n], &bytes[..end]] {
            let mut sealed = body.to_vec();
            sealed.extend_from_slice(&hash64(body).to_le_bytes());
            fuzz_snapshot(&sealed);
        }
    }
}

#[test]
fn seeds_of_the_fuzzer_do_not_panic() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/detect_snapshot");
    let mut n = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        fuzz_snapshot(&std::fs::read(file.unwrap().path()).unwrap());
        n += 1;
    }
    assert!(n >= 3);
}
