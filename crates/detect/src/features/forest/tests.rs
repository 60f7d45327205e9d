use super::*;
use crate::features::{FeatureRow, Features, FeaturesConfig, Field};
use nightshift_model::{Anomaly, EntityId, FaultClass, Severity, Timestamp};
use sample::Dice;

fn meta() -> EntityMeta {
    EntityMeta::bare(EntityId::new("c", "service", "", "checkout"))
}

/// About normal: the sum of twelve.
fn normal(dice: &mut Dice) -> f64 {
    (0..12).map(|_| f64::from(dice.unit())).sum::<f64>() - 6.0
}

/// Latency follows load; `(load, felt)`: what arrives, and what it feels like.
fn row(minute: i64, load: f64, felt: f64, dice: &mut Dice) -> FeatureRow {
    let p95 = 40.0 * (1.0 + felt) * (0.03 * normal(dice)).exp();
    FeatureRow {
        tenant: "t".into(),
        entity: meta().id,
        service: "checkout".into(),
        minute: Timestamp::from_secs(minute * 60),
        requests: 0,
        latency_mean_ms: None,
        latency_p95_ms: Some(p95),
        latency_p99_ms: Some(p95 * 1.6 * (0.05 * normal(dice)).exp()),
        error_ratio: None,
        request_rate: Some(200.0 * load * (0.03 * normal(dice)).exp()),
        cpu_pct: Some(10.0 + 60.0 * load + 2.0 * normal(dice)),
        mem_mb: None,
    }
}

/// Load between 0.25 and 1, as over a day.
fn load(minute: i64) -> f64 {
    0.625 - 0.375 * (minute as f64 / 1_440.0 * std::f64::consts::TAU).cos()
}

struct Bench {
    forests: Forests,
    dice: Dice,
    out: Effects,
}

impl Bench {
    fn new(config: ForestConfig) -> Self {
        Self { forests: Forests::new(config), dice: Dice(7), out: Effects::default() }
    }

    fn feed(&mut self, minutes: std::ops::Range<i64>, shape: impl Fn(i64) -> (f64, f64)) {
        for m in minutes {
            let (load, felt) = shape(m);
            let row = row(m, load, felt, &mut self.dice);
            self.forests.row(0, "t", &meta(), &row, false, &mut self.out);
        }
    }

    fn told(&self) -> Vec<Phase> {
        self.out.anomalies.iter().map(|a| a.phase).collect()
    }
}

/// The top of the day's latency with the bottom of its load: each has been seen, together never.
const ODD: (f64, f64) = (0.3, 0.95);
const DAYS: i64 = 3 * 1_440;

#[test]
fn what_is_odd_only_jointly_is_one_alarm_with_its_reasons() {
    let mut b = Bench::new(ForestConfig::default());
    b.feed(0..DAYS, |m| (load(m), load(m)));
    let before = b.out.anomalies.len();
    b.feed(DAYS..DAYS + 30, |_| ODD);
    b.feed(DAYS + 30..DAYS + 60, |m| (load(m), load(m)));
    let told: Vec<&Anomaly> = b.out.anomalies[before..].iter().collect();
    assert_eq!(told.iter().map(|a| a.phase).collect::<Vec<_>>(), [Phase::Open, Phase::Closed]);
    let a = told[0];
    assert_eq!(a.onset, Timestamp::from_secs(DAYS * 60));
    assert!(a.score >= 0.5 && a.severity == Severity::Medium, "{}", a.score);
    assert_eq!(a.fault, FaultClass::LatencySpike, "{}", a.description);
    assert_eq!((told[1].id, told[1].fault), (a.id, a.fault));
    let f = &a.explanation.features;
    let shares: f64 = f.iter().filter(|(k, _)| k.ends_with("_share")).map(|(_, v)| v).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    // Among minutes of such a load, latency is low.
    assert!(f["latency_p95_ms"] > f["latency_p95_ms_high"], "{f:?}");
    assert!(f["isolation"] >= f["isolation_threshold"]);
    assert!(!f.contains_key("mem_mb"), "what no minute tells is no part of it");
}

#[test]
fn where_single_features_speak_already_it_is_evidence_only() {
    let mut b = Bench::new(ForestConfig::default());
    b.feed(0..DAYS, |m| (load(m), load(m)));
    b.out.clear();
    for m in DAYS..DAYS + 10 {
        let row = row(m, ODD.0, ODD.1, &mut b.dice);
        b.forests.row(0, "t", &meta(), &row, true, &mut b.out);
    }
    assert_eq!(b.told(), [Phase::Open]);
    assert!(b.out.anomalies[0].score < 0.5);
}

#[test]
fn a_state_goes_on_where_it_was_and_broken_ones_are_refused() {
    let mut b = Bench::new(ForestConfig::default());
    b.feed(0..DAYS, |m| (load(m), load(m)));
    let mut bytes = Vec::new();
    b.forests.put_state(&mut bytes);
    assert!(bytes.len() < 10_000, "{} bytes of an entity", bytes.len());
    let mut again = Bench { forests: Forests::new(b.forests.config.clone()), dice: b.dice, out: Effects::default() };
    again.forests.take_state(&mut bytes.as_slice()).unwrap();
    b.out.clear();
    for bench in [&mut b, &mut again] {
        bench.feed(DAYS..DAYS + 30, |_| ODD);
        bench.feed(DAYS + 30..DAYS + 60, |m| (load(m), load(m)));
    }
    assert!(!b.out.anomalies.is_empty());
    assert_eq!(b.out, again.out);
    // As bytes: what is absent is NaN, which equals nothing.
    let (mut one, mut other) = (Vec::new(), Vec::new());
    b.forests.put_state(&mut one);
    again.forests.put_state(&mut other);
    assert!(one == other);
    for cut in (0..bytes.len()).step_by(97) {
        let mut other = Forests::new(ForestConfig::default());
        assert!(other.take_state(&mut &bytes[..cut]).is_none(), "cut at {cut}");
    }
}

#[test]
fn a_field_that_is_absent_is_not_zero() {
    let mut b = Bench::new(ForestConfig { warmup_minutes: 300, ..ForestConfig::default() });
    b.feed(0..700, |m| (load(m), load(m)));
    let stand = &b.forests.stands[&0];
    let forest = Forest { sample: &stand.sample, columns: stand.sample.columns(), seed: 1 };
    let scratch = &mut Scratch::default();
    let row = row(700, load(700), load(700), &mut b.dice);
    let whole = forest.score(&explain::vector(&row), scratch).unwrap();
    let without = FeatureRow { request_rate: None, ..row.clone() };
    let zero = FeatureRow { request_rate: Some(0.0), ..row };
    let absent = forest.score(&explain::vector(&without), scratch).unwrap();
    let zero = forest.score(&explain::vector(&zero), scratch).unwrap();
    assert!(zero > absent + 0.05, "{whole} {absent} {zero}");
    assert!((whole - absent).abs() < 0.06, "{whole} {absent} {zero}");
}

#[test]
fn what_lasts_becomes_normal_and_silence_ends_it() {
    let mut b = Bench::new(ForestConfig { warmup_minutes: 500, ..ForestConfig::default() });
    b.feed(0..1_440, |_| (0.6, 0.6));
    b.out.clear();
    b.feed(1_440..1_900, |_| (0.5, 0.75));
    assert_eq!(b.told(), [Phase::Open, Phase::Closed], "an hour, and then nothing more of it");
    b.out.clear();
    b.feed(1_900..1_910, |_| (1.0, 0.2));
    let meta = meta();
    b.forests.roll(1_980 * MINUTE, |_| Some(("t", &meta)), &mut b.out);
    assert_eq!(b.told(), [Phase::Open, Phase::Closed]);
}

/// Through minutes of samples: the check of single features says nothing of it, the forest does.
#[test]
fn samples_that_go_odd_only_together_are_found_by_the_forest_alone() {
    let mut features = Features::new(FeaturesConfig::default());
    let (meta, mut out, mut dice) = (meta(), Effects::default(), Dice(3));
    let mut minute = |m: i64, (load, felt): (f64, f64), out: &mut Effects| {
        for half in 0..2 {
            let at = (m * 60 + half * 30) * NANOS_PER_SEC;
            let r = row(m, load, felt, &mut dice);
            features.sample(0, Field::LatencyP95(1.0), at, r.latency_p95_ms.unwrap(), 30.0);
            features.sample(0, Field::LatencyP99(1.0), at, r.latency_p99_ms.unwrap(), 30.0);
            features.sample(0, Field::Requests, at, r.request_rate.unwrap(), 30.0);
            features.sample(0, Field::Cpu(1.0), at, r.cpu_pct.unwrap(), 30.0);
        }
        features.close(|_| Some(("t", &meta)), out);
    };
    // To the afternoon of the fourth day; load falls away while latency stays where it is at noon.
    let (from, end) = (DAYS + 840, DAYS + 870);
    (0..from).for_each(|m| minute(m, (load(m), load(m)), &mut out));
    out.clear();
    (from..end).for_each(|m| minute(m, (0.3, load(m)), &mut out));
    let models: Vec<&str> = out.anomalies.iter().map(|a| a.explanation.model.as_str()).collect();
    assert_eq!(models, ["isolation_forest"]);
}
