//! The rule engine from outside: event time, hysteresis, absence, bounds, restart.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use nightshift_detect::rules::{RuleConfig, RuleEngine, parse_file};
use nightshift_model::batch::{BatchBuilder, BatchView, MetricColumns, SeriesKind, labels};
use nightshift_model::hash::series_fingerprint;
use nightshift_model::{Anomaly, AnomalyKind, Direction, EntityId, EntityMeta, FaultClass, Phase, Severity, Timestamp};

const START: i64 = 1_767_225_600;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_secs(START + secs)
}

fn engine_with(config: RuleConfig, rules: &str) -> RuleEngine {
    RuleEngine::new(config, parse_file(rules).unwrap().rules)
}

fn engine(rules: &str) -> RuleEngine {
    engine_with(RuleConfig::default(), rules)
}

const HIGH: &str = "
rules:
  - name: high
    when: max(x, 30s) > 10
    for: 1m
    clear: 1m
    severity: high
    fault: cpu_saturation
    by: [dev]
    summary: '{dev} of {entity} at {value}, above {threshold}'
";

/// One sample: seconds, entity, labels, value.
type Row<'a> = (i64, &'a str, &'a [(&'a str, &'a str)], f64);

fn feed(engine: &mut RuleEngine, rows: &[Row<'_>], now: i64, out: &mut Vec<Anomaly>) {
    let mut b = BatchBuilder::default();
    for (secs, entity, pairs, value) in rows {
        let id = EntityId::new("local", "host", "", entity);
        let wire = labels::encode(pairs.iter().copied());
        let e = b.entity(&EntityMeta::bare(id.clone()));
        b.series(series_fingerprint("default", id.as_str(), &wire), e, SeriesKind::Gauge, &wire);
        b.sample(at(*secs), *value);
    }
    let payload = b.finish("src");
    let mut view = BatchView::parse(&payload).unwrap();
    let mut columns = MetricColumns::default();
    view.metrics(&mut columns).unwrap();
    engine.step("default", &view, &columns, at(now), out);
}

const X: &[(&str, &str)] = &[("__name__", "x"), ("dev", "a")];

fn phases(out: &[Anomaly]) -> Vec<(Phase, i64)> {
    out.iter().map(|a| (a.phase, a.last_seen.0 / 1_000_000_000 - START)).collect()
}

#[test]
fn an_alarm_opens_after_for_is_told_again_and_ends_after_clear() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    for t in 0..100 {
        let value = if (10..60).contains(&t) { 20.0 } else { 1.0 };
        feed(&mut e, &[(t * 10, "h", X, value)], t * 10, &mut out);
    }
    // Held since 100 s, open a minute later; told every five minutes; the last sample above is of 590 s and leaves
    // the window of 30 s at 620 s.
    assert_eq!(phases(&out), [(Phase::Open, 160), (Phase::Update, 460), (Phase::Closed, 620)]);
    let a = &out[0];
    assert_eq!((a.kind, a.signal.as_str(), a.onset), (AnomalyKind::Rule, "high", at(100)));
    assert_eq!((a.severity, a.fault, a.direction), (Severity::High, FaultClass::CpuSaturation, Direction::Up));
    assert_eq!((a.explanation.observed, a.explanation.upper), (Some(20.0), Some(10.0)));
    assert_eq!(a.description, "a of h at 20, above 10");
    assert!(out.iter().all(|o| o.id == a.id));
}

#[test]
fn a_blip_and_a_flutter_are_one_alarm_or_none() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    for t in 0..30 {
        feed(&mut e, &[(t * 10, "h", X, if t == 10 { 99.0 } else { 1.0 })], t * 10, &mut out);
    }
    assert_eq!(phases(&out), []);
    // Above and below in turn, each phase shorter than `clear`.
    for t in 30..120 {
        feed(&mut e, &[(t * 10, "h", X, if t % 12 < 8 { 99.0 } else { 1.0 })], t * 10, &mut out);
    }
    assert_eq!(out.iter().filter(|a| a.phase == Phase::Open).count(), 1);
    assert_eq!(out.iter().filter(|a| a.phase == Phase::Closed).count(), 0);
}

#[test]
fn a_recurrence_is_an_occurrence_of_its_own() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    for t in 0..200 {
        feed(&mut e, &[(t * 10, "h", X, if t % 50 < 25 { 99.0 } else { 1.0 })], t * 10, &mut out);
    }
    let opened: Vec<_> = out.iter().filter(|a| a.phase == Phase::Open).collect();
    assert_eq!(opened.len(), 4);
    assert!(opened.windows(2).all(|w| w[0].fingerprint == w[1].fingerprint && w[0].id != w[1].id));
}

#[test]
fn groups_and_entities_stand_by_themselves() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    let y: &[(&str, &str)] = &[("__name__", "x"), ("dev", "b")];
    for t in 0..10 {
        feed(&mut e, &[(t * 10, "h", X, 99.0), (t * 10, "h", y, 1.0), (t * 10, "i", y, 99.0)], t * 10, &mut out);
    }
    let found: Vec<_> = out.iter().map(|a| (a.entity.id.name(), a.labels["dev"].clone())).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.contains(&("h".into(), "a".into())) && found.contains(&("i".into(), "b".into())));
}

#[test]
fn how_samples_are_cut_into_batches_does_not_matter() {
    let rows: Vec<Row<'_>> =
        (0..120).map(|t| (t * 10, "h", X, if (20..70).contains(&t) { 50.0 } else { 2.0 })).collect();
    let run = |size: usize| {
        let (mut e, mut out) = (engine(HIGH), Vec::new());
        for chunk in rows.chunks(size) {
            feed(&mut e, chunk, 1200, &mut out);
        }
        out
    };
    let want = run(1);
    assert_eq!(want.len(), 3);
    for size in [2, 7, 120] {
        assert_eq!(run(size), want, "batches of {size}");
    }
}

#[test]
fn the_two_halves_of_a_ratio_may_come_in_two_batches() {
    let mut e = engine("rules: [{name: r, when: last(a) / last(b) > 50%}]");
    let mut out = Vec::new();
    let (a, b): (&[_], &[_]) = (&[("__name__", "a")], &[("__name__", "b")]);
    feed(&mut e, &[(0, "h", a, 10.0)], 0, &mut out);
    feed(&mut e, &[(0, "h", b, 100.0)], 0, &mut out);
    assert!(out.is_empty());
    feed(&mut e, &[(60, "h", b, 15.0)], 60, &mut out);
    feed(&mut e, &[(60, "h", a, 9.0)], 60, &mut out);
    assert_eq!(phases(&out), [(Phase::Open, 60)]);
    assert_eq!(out[0].onset, at(60));
}

/// DATA-1.
#[test]
fn absence_is_noticed_when_time_passes_and_only_for_what_was_there() {
    let mut e = engine(
        "rules: [{name: gone, when: 'absent(up{job=\"x\"}, 3m)', clear: 0, summary: 'silent {value:duration}'}]",
    );
    let mut out = Vec::new();
    let (up, other): (&[_], &[_]) = (&[("__name__", "up"), ("job", "x")], &[("__name__", "up"), ("job", "y")]);
    for t in 0..5 {
        feed(&mut e, &[(t * 60, "h", up, 1.0), (t * 60, "i", other, 1.0)], t * 60, &mut out);
        e.tick(at(t * 60 + 30), &mut out);
    }
    e.tick(at(240 + 179), &mut out);
    assert!(out.is_empty());
    e.tick(at(240 + 180), &mut out);
    e.tick(at(240 + 200), &mut out);
    assert_eq!(phases(&out), [(Phase::Open, 420)]);
    assert_eq!((out[0].direction, out[0].description.as_str()), (Direction::Flat, "silent 3 min"));
    feed(&mut e, &[(600, "h", up, 1.0)], 600, &mut out);
    assert_eq!(out[1].phase, Phase::Closed);
}

#[test]
fn an_open_alarm_without_data_stays_open_for_a_while_and_is_then_closed_as_such() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    for t in 0..10 {
        feed(&mut e, &[(t * 10, "h", X, 99.0)], t * 10, &mut out);
    }
    for t in (100..900).step_by(10) {
        e.tick(at(t), &mut out);
    }
    assert_eq!(out.len(), 1, "no data is not health");
    for t in (900..1200).step_by(10) {
        e.tick(at(t), &mut out);
    }
    assert_eq!(out.last().map(|a| a.phase), Some(Phase::Closed));
    assert_eq!(out.last().unwrap().explanation.features["no_data"], 1.0);
}

#[test]
fn idle_series_leave_and_their_groups_with_them() {
    let mut e = engine_with(RuleConfig { idle_secs: 600, ..RuleConfig::default() }, HIGH);
    let mut out = Vec::new();
    let y: &[(&str, &str)] = &[("__name__", "x"), ("dev", "b")];
    feed(&mut e, &[(0, "h", X, 1.0), (0, "h", y, 1.0)], 0, &mut out);
    feed(&mut e, &[(500, "h", y, 1.0)], 500, &mut out);
    e.tick(at(700), &mut out);
    assert_eq!(e.series(), 1);
    for t in 70..90 {
        feed(&mut e, &[(t * 10, "h", X, 99.0), (t * 10, "h", y, 99.0)], t * 10, &mut out);
    }
    assert_eq!(e.series(), 2);
    assert_eq!(out.iter().filter(|a| a.phase == Phase::Open).count(), 2, "what comes back is watched again");
}

#[test]
fn bounds_hold_and_are_counted() {
    let config = RuleConfig { series_max: 10, known_max: 100, ..RuleConfig::default() };
    let mut e = engine_with(config, HIGH);
    let mut out = Vec::new();
    for i in 0..500 {
        let dev = format!("d{i}");
        let pairs = [("__name__", "x"), ("dev", dev.as_str())];
        let noise = [("__name__", "unwatched"), ("dev", dev.as_str())];
        feed(&mut e, &[(i, "h", &pairs, 99.0), (i, "h", &noise, 1.0)], i, &mut out);
    }
    assert_eq!(e.series(), 10);
    assert!(e.stats().series_refused >= 490);
    assert_eq!(e.stats().samples, 10);
}

#[test]
fn late_future_repeated_and_infinite_samples_are_refused() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    feed(&mut e, &[(0, "h", X, 1.0)], 0, &mut out);
    for (secs, value) in [(-3700, 99.0), (200, 99.0), (0, 99.0), (10, f64::NAN), (10, f64::INFINITY)] {
        feed(&mut e, &[(secs, "h", X, value)], 10, &mut out);
    }
    assert_eq!((e.stats().samples, e.stats().refused), (1, 5));
}

#[test]
fn only_entities_that_match_are_watched() {
    let rules = "rules: [{name: r, when: x > 1, entity: '*/host/-/web*'}]";
    let mut e = engine(rules);
    let mut out = Vec::new();
    feed(&mut e, &[(0, "web1", X, 5.0), (0, "db1", X, 5.0)], 0, &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].entity.id.name(), "web1");
}

#[test]
fn a_restart_anywhere_changes_nothing() {
    let rows: Vec<Row<'_>> = (0..150)
        .flat_map(|t: i64| {
            let y: &[(&str, &str)] = &[("__name__", "x"), ("dev", "b")];
            let value = |phase: i64| if (t + phase) % 60 < 25 { 50.5 } else { 0.1 };
            [(t * 10, "h", X, value(0)), (t * 10, "h", y, value(7)), (t * 10, "i", X, value(31))]
        })
        .collect();
    let run = |restart_every: usize| {
        let (mut e, mut out) = (engine(HIGH), Vec::new());
        for (i, chunk) in rows.chunks(3).enumerate() {
            if i % restart_every == restart_every - 1 {
                let bytes = e.snapshot();
                let mut fresh = engine(HIGH);
                assert!(fresh.restore(&bytes).unwrap().is_empty());
                assert_eq!(fresh.snapshot(), bytes);
                e = fresh;
            }
            feed(&mut e, chunk, chunk[0].0, &mut out);
            e.tick(at(chunk[0].0 + 5), &mut out);
        }
        out
    };
    let want = run(1000);
    assert!(want.len() > 10);
    for every in [1, 2, 7, 40] {
        assert_eq!(run(every), want, "restarted every {every} batches");
    }
}

#[test]
fn a_rule_that_changed_starts_anew_and_its_alarm_is_closed() {
    let mut e = engine(HIGH);
    let mut out = Vec::new();
    for t in 0..10 {
        feed(&mut e, &[(t * 10, "h", X, 99.0)], t * 10, &mut out);
    }
    assert_eq!(out.len(), 1);
    let bytes = e.snapshot();
    let mut changed = engine(&HIGH.replace("> 10", "> 11"));
    let closed = changed.restore(&bytes).unwrap();
    assert_eq!((closed.len(), closed[0].phase, closed[0].id), (1, Phase::Closed, out[0].id));
    for bad in [&b"NSRL"[..], b"NSLG\0\x01aaaaaaaa{}", &bytes[..40]] {
        assert!(changed.restore(bad).is_err());
    }
}

#[test]
fn an_injected_series_is_kept_apart() {
    let mut e = engine("rules: [{name: r, when: x > 1}]");
    let mut out = Vec::new();
    let mut b = BatchBuilder::default();
    let mut meta = EntityMeta::bare(EntityId::new("local", "host", "", "h"));
    meta.synthetic = true;
    let wire = labels::encode(X.iter().copied());
    let entity = b.entity(&meta);
    b.series(1, entity, SeriesKind::Gauge, &wire);
    b.sample(at(0), 5.0);
    let payload = b.finish("s");
    let mut view = BatchView::parse(&payload).unwrap();
    let mut columns = MetricColumns::default();
    view.metrics(&mut columns).unwrap();
    e.step("default", &view, &columns, at(0), &mut out);
    assert!(out[0].synthetic());
    feed(&mut e, &[(1, "h", X, 0.0)], 1, &mut out);
    assert_eq!(out.len(), 1, "the real series ends nothing of the injected one");
}
