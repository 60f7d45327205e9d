use super::*;
use proptest::prelude::*;

const MINUTE: i64 = 60;
/// A whole minute, some time in 2023.
const BASE: i64 = 1_700_000_040;

fn meta() -> EntityMeta {
    EntityMeta::bare(EntityId::new("c", "service", "", "checkout"))
}

fn slo(objective: f64, indicator: &str) -> Slo {
    Slo { name: "availability".into(), objective, window_secs: 30 * 86_400, indicator: indicator.into() }
}

fn row(minute: i64, requests: f64, error_ratio: Option<f64>) -> FeatureRow {
    FeatureRow {
        tenant: "t".into(),
        entity: meta().id,
        service: "checkout".into(),
        minute: Timestamp::from_secs(BASE + minute * MINUTE),
        requests: 0,
        latency_mean_ms: None,
        latency_p95_ms: None,
        latency_p99_ms: None,
        error_ratio,
        request_rate: Some(requests / 60.0),
        cpu_pct: None,
        mem_mb: None,
    }
}

struct Bench {
    burns: Burns,
    meta: EntityMeta,
    out: Effects,
}

impl Bench {
    fn new(slos: &[Slo]) -> Self {
        let mut objectives = Objectives::default();
        objectives.set("t", BTreeMap::from([(meta().id, slos.to_vec())]));
        let mut burns = Burns::new(BurnConfig::default());
        burns.set(Arc::new(objectives), |_| None, &mut Vec::new());
        Self { burns, meta: meta(), out: Effects::default() }
    }

    fn row(&mut self, row: &FeatureRow) {
        self.burns.row(0, "t", &self.meta, row, &mut self.out);
    }

    fn feed(&mut self, minutes: std::ops::Range<i64>, requests: f64, ratio: f64) {
        minutes.for_each(|m| self.row(&row(m, requests, Some(ratio))));
    }

    /// Phase, severity and minute in which it was told, of everything so far.
    fn told(&self) -> Vec<(Phase, Severity)> {
        self.out.anomalies.iter().map(|a| (a.phase, a.severity)).collect()
    }
}

use Phase::{Closed, Open as Opened, Update};
use Severity::{Critical, High, Medium};

#[test]
fn twenty_times_too_fast_is_critical_and_ends_with_the_short_window() {
    let mut b = Bench::new(&[slo(99.9, "")]);
    b.feed(0..300, 6_000.0, 0.0002);
    assert!(b.told().is_empty(), "a fifth of what is allowed");
    b.feed(300..345, 6_000.0, 0.02);
    assert_eq!(b.told(), [(Opened, Critical)]);
    let critical = b.out.anomalies[0].clone();
    assert_eq!(critical.kind, nightshift_model::AnomalyKind::Slo);
    assert_eq!(critical.fault, nightshift_model::FaultClass::SloBurn);
    assert_eq!(critical.onset, Timestamp::from_secs(BASE + 300 * MINUTE), "since it burns");
    // 14.4 of 20 of an hour, less what the fifth brought before: 19.8 k + 12 >= 864, the 44th minute.
    assert_eq!(critical.last_seen, Timestamp::from_secs(BASE + 343 * MINUTE));
    assert!((critical.explanation.features["rate_short"] - 20.0).abs() < 1e-9);
    assert!((critical.explanation.features["budget_spent"] - 14.4 / 720.0).abs() < 1e-3, "2 % of a month");
    // Over: the five minutes are good after a few, the half hour after 21 more.
    b.feed(345..400, 6_000.0, 0.0);
    assert_eq!(b.told()[1..], [(Closed, Critical)]);
    let closed = b.out.anomalies.last().unwrap();
    assert_eq!((closed.id, closed.onset), (critical.id, critical.onset));
    assert!(closed.description.contains("the short window recovered"), "{}", closed.description);
    assert!(closed.last_seen < Timestamp::from_secs(BASE + 370 * MINUTE));
}

#[test]
fn each_rate_has_its_severity() {
    // Seven times: 6 h of 7 is over 6, an hour of 7 is not over 14.4.
    let mut b = Bench::new(&[slo(99.9, "")]);
    b.feed(0..400, 6_000.0, 0.007);
    assert_eq!(b.told(), [(Opened, High)]);
    // One and a half times, for days: only the slow one.
    let mut b = Bench::new(&[slo(99.9, "")]);
    b.feed(0..2_500, 6_000.0, 0.0015);
    assert_eq!(b.told().first(), Some(&(Opened, Medium)));
    assert!(b.out.anomalies.iter().all(|a| a.severity == Medium));
    // Told again after six hours, so that it does not look forgotten.
    assert!(b.told().iter().skip(1).all(|t| *t == (Update, Medium)));
    // Just what is allowed, or less: nothing, ever.
    let mut b = Bench::new(&[slo(99.9, "")]);
    b.feed(0..5_000, 6_000.0, 0.00099);
    assert!(b.told().is_empty());
}

/// The cases that go wrong in such code: name, what is fed, what is told.
#[test]
fn edge_cases() {
    type Feed = fn(&mut Bench);
    type Told = &'static [(Phase, Severity)];
    let cases: [(&str, f64, &str, Feed, Told); 13] = [
        ("no traffic is no outage", 99.9, "", |b| b.feed(0..500, 0.0, 0.0), &[]),
        (
            "no traffic ends nothing",
            99.9,
            "",
            |b| {
                b.feed(0..100, 6_000.0, 1.0);
                b.feed(100..140, 0.0, 0.0);
            },
            &[(Opened, Critical)],
        ),
        ("an outage from the first minute on", 99.9, "", |b| b.feed(0..10, 6_000.0, 1.0), &[(Opened, Critical)]),
        (
            "the first bad minutes are not three bad days",
            99.9,
            "",
            |b| {
                b.feed(0..10, 6_000.0, 0.02);
                b.feed(10..400, 6_000.0, 0.0);
            },
            &[],
        ),
        (
            "one failure of fifty requests",
            99.9,
            "",
            |b| {
                b.feed(0..120, 1.0, 0.0);
                b.feed(120..121, 1.0, 1.0);
            },
            &[],
        ),
        ("an objective of 100 % has no budget that could burn", 100.0, "", |b| b.feed(0..100, 6_000.0, 1.0), &[]),
        (
            "of 90 % a tenth may fail: all of it is ten times too much",
            90.0,
            "",
            |b| {
                b.feed(0..400, 600.0, 1.0);
            },
            &[(Opened, High)],
        ),
        (
            "no word of errors is not no errors",
            99.9,
            "",
            |b| {
                b.feed(0..60, 6_000.0, 1.0);
                for m in 60..200 {
                    b.row(&row(m, 6_000.0, None));
                }
            },
            &[(Opened, Critical)],
        ),
        (
            "every second minute is missing, and it burns all the same",
            99.9,
            "",
            |b| {
                for m in (0..120).step_by(2) {
                    b.row(&row(m, 6_000.0, Some(0.02)));
                }
            },
            &[(Opened, Critical)],
        ),
        (
            "a minute that is told again counts once",
            99.9,
            "",
            |b| {
                b.feed(0..120, 6_000.0, 0.0);
                for _ in 0..100 {
                    b.row(&row(120, 6_000.0, Some(0.5)));
                }
            },
            &[],
        ),
        (
            "a clock that was a year ahead",
            99.9,
            "",
            |b| {
                b.row(&row(525_600, 6_000.0, Some(0.0)));
                b.feed(0..60, 6_000.0, 1.0);
            },
            &[(Opened, Critical)],
        ),
        (
            "a clock that jumps a year on",
            99.9,
            "",
            |b| {
                b.feed(0..60, 6_000.0, 0.0);
                b.feed(525_600..525_660, 6_000.0, 1.0);
            },
            &[(Opened, Critical)],
        ),
        ("what minutes do not tell is not judged", 99.9, "queue_depth", |b| b.feed(0..100, 6_000.0, 1.0), &[]),
    ];
    for (name, objective, indicator, feed, want) in cases {
        let mut b = Bench::new(&[slo(objective, indicator)]);
        feed(&mut b);
        assert_eq!(b.told(), want, "{name}");
    }
}

#[test]
fn latency_and_uptime_count_minutes() {
    let mut b = Bench::new(&[slo(99.0, "latency_p95 < 300ms")]);
    for m in 0..240 {
        let p95 = if m >= 180 { 450.0 } else { 120.0 };
        b.row(&FeatureRow { latency_p95_ms: Some(p95), ..row(m, 600.0, Some(0.0)) });
    }
    assert_eq!(b.told().first(), Some(&(Opened, Critical)));
    let mut b = Bench::new(&[slo(99.0, "uptime")]);
    b.feed(0..180, 600.0, 0.04);
    assert!(b.told().is_empty(), "4 % of failures is not down");
    b.feed(180..200, 600.0, 0.5);
    assert_eq!(b.told().first(), Some(&(Opened, Critical)));
}

#[test]
fn silence_ends_it_only_when_nothing_is_left_of_it() {
    let mut b = Bench::new(&[slo(99.9, "")]);
    b.feed(0..60, 6_000.0, 1.0);
    let meta = meta();
    for m in 60..4_500 {
        let at = (BASE + m * MINUTE) * nightshift_model::time::NANOS_PER_SEC;
        b.burns.roll(at, |_| Some(("t", &meta)), &mut b.out);
        if m < 4_300 {
            assert_eq!(b.told(), [(Opened, Critical)], "minute {m}");
        }
    }
    assert_eq!(b.told().last(), Some(&(Closed, Critical)));
    let last = b.out.anomalies.last().unwrap();
    assert!(last.description.contains("nothing is seen"), "{}", last.description);
}

#[test]
fn objectives_that_go_end_their_alarm_and_those_that_stay_keep_their_minutes() {
    let mut b = Bench::new(&[slo(99.9, ""), slo(99.0, "uptime")]);
    b.feed(0..60, 6_000.0, 1.0);
    let before = b.burns.tracks[&0].clone();
    let mut objectives = Objectives::default();
    objectives.set("t", BTreeMap::from([(meta().id, vec![slo(99.0, "uptime")])]));
    let mut ended = Vec::new();
    let meta = meta();
    b.burns.set(Arc::new(objectives), |_| Some(("t", &meta)), &mut ended);
    assert_eq!(ended.iter().map(|a| (a.phase, a.severity)).collect::<Vec<_>>(), [(Closed, Critical)]);
    assert_eq!(b.burns.tracks[&0], before[1..]);
}

#[test]
fn a_state_goes_on_where_it_was_and_broken_ones_are_refused() {
    let mut b = Bench::new(&[slo(99.9, ""), slo(99.0, "uptime")]);
    b.feed(0..330, 6_000.0, 0.001);
    b.feed(330..350, 6_000.0, 0.1);
    let mut bytes = Vec::new();
    b.burns.put_state(&mut bytes);
    let mut again = Burns::new(BurnConfig::default());
    again.take_state(&mut bytes.as_slice()).unwrap();
    assert_eq!(again.tracks, b.burns.tracks);
    // Before anybody told the objectives, those of the state are followed.
    let mut restored = Bench { burns: again, meta: meta(), out: Effects::default() };
    b.out.clear();
    for bench in [&mut b, &mut restored] {
        bench.feed(350..500, 6_000.0, 0.0);
    }
    assert!(!b.out.anomalies.is_empty());
    assert_eq!(b.out, restored.out);
    for cut in 0..bytes.len().min(400) {
        assert!(Burns::new(BurnConfig::default()).take_state(&mut &bytes[..cut]).is_none(), "cut at {cut}");
    }
}

#[test]
fn it_is_bounded() {
    let mut burns = Burns::new(BurnConfig { objectives_max: 2, ..BurnConfig::default() });
    let mut objectives = Objectives::default();
    let slos: Vec<Slo> = [99.0, 99.9, 99.99].into_iter().map(|o| slo(o, "")).collect();
    objectives.set("t", BTreeMap::from([(meta().id, slos)]));
    burns.set(Arc::new(objectives), |_| None, &mut Vec::new());
    let mut out = Effects::default();
    for m in 0..10_000 {
        burns.row(0, "t", &meta(), &row(m, 10.0, Some(0.0)), &mut out);
    }
    assert_eq!(burns.tracks[&0].len(), 2);
    assert_eq!(burns.refused, 10_000);
    assert!(burns.tracks[&0].iter().all(|t| t.ring.buckets().len() <= KEPT_MINUTES as usize));
    assert!(burns.bytes() < 2 * 200 * 1_024);
}

/// What a rate is, by its definition: all minutes, summed anew.
fn reference(minutes: &BTreeMap<i64, (f64, f64)>, now: i64, window: i64, budget: f64) -> (Option<f64>, usize) {
    let within: Vec<&(f64, f64)> =
        minutes.iter().filter(|(m, _)| **m > now - window && **m <= now).map(|(_, v)| v).collect();
    let total: f64 = within.iter().map(|v| v.0).sum();
    let bad: f64 = within.iter().map(|v| v.1).sum();
    ((total > 0.0).then(|| bad / total / budget), within.len())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever comes, in whatever order, with gaps and repeats: rates are those of the plain sums.
    #[test]
    fn rates_are_those_of_plain_sums(
        told in prop::collection::vec((0i64..6_000, 0u32..1_000, 0u32..50), 1..300),
        rule in 0usize..3,
    ) {
        let config = BurnConfig::default();
        let mut track = Track::new(slo(99.9, ""));
        let mut plain: BTreeMap<i64, (f64, f64)> = BTreeMap::new();
        let mut newest = i64::MIN;
        for (m, total, bad) in told {
            let (total, bad) = (f64::from(total), f64::from(bad.min(total)));
            // What is three days late is left out by both; so many in a row that the clock is doubted do not occur.
            let late = newest != i64::MIN && newest - m >= KEPT_MINUTES;
            track.stepped = 0;
            let counted = track.observe(Timestamp::from_secs(BASE + m * MINUTE), Tally { total, bad });
            if !late && !plain.contains_key(&m) {
                prop_assert!(counted);
                plain.insert(m, (total, bad));
                newest = newest.max(m);
                plain.retain(|m, _| newest - m < KEPT_MINUTES);
            } else {
                prop_assert!(!counted);
            }
            let rule = &config.rules[rule];
            let slot = track.ring.newest().unwrap();
            let r = rates(&track.ring, slot, rule, 0.001);
            let (long, seen) = reference(&plain, newest, i64::from(rule.long_minutes), 0.001);
            let (short, _) = reference(&plain, newest, i64::from(rule.short_minutes), 0.001);
            let long = long.map(|l| l * (seen as f64 / (f64::from(rule.long_minutes) / 2.0)).min(1.0));
            let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1.0),
                (a, b) => a == b,
            };
            prop_assert!(near(r.long, long), "{:?} {:?}", r.long, long);
            prop_assert!(near(r.short, short), "{:?} {:?}", r.short, short);
        }
    }

    /// More traffic of the same kind changes no verdict, once there is enough of it.
    #[test]
    fn verdicts_ignore_the_scale_of_traffic(bad in 0u32..40, minutes in 1i64..90, k in 1u32..50) {
        let verdict = |k: u32| {
            let mut b = Bench::new(&[slo(99.9, "")]);
            b.feed(0..120, 10_000.0 * f64::from(k), 0.0);
            b.feed(120..120 + minutes, 10_000.0 * f64::from(k), f64::from(bad) / 1_000.0);
            b.told()
        };
        prop_assert_eq!(verdict(1), verdict(k));
    }

    /// Phases of one alarm come in order, each occurrence ends at most once.
    #[test]
    fn phases_come_in_order(stretches in prop::collection::vec((1i64..200, 0u32..4), 1..12)) {
        let mut b = Bench::new(&[slo(99.9, "")]);
        let mut m = 0;
        for (n, kind) in stretches {
            match kind {
                0 => b.feed(m..m + n, 6_000.0, 0.0),
                1 => b.feed(m..m + n, 6_000.0, 0.03),
                2 => b.feed(m..m + n, 0.0, 0.0),
                _ => {}
            }
            m += n;
        }
        let mut open = None;
        for a in &b.out.anomalies {
            prop_assert!(a.score.is_finite() && a.onset <= a.last_seen);
            match (a.phase, open) {
                (Opened, None) => open = Some(a.id),
                (Update, Some(id)) => prop_assert_eq!(id, a.id),
                (Closed, Some(id)) => {
                    prop_assert_eq!(id, a.id);
                    open = None;
                }
                (phase, open) => prop_assert!(false, "{:?} while {:?}", phase, open),
            }
        }
    }
}
