//! What is learned, and what is not.

use super::*;
use nightshift_model::batch::BatchBuilder;
use nightshift_model::{EntityId, EntityMeta};

fn config() -> LearnerConfig {
    LearnerConfig { sample_secs: 0, window_days: 3, ..LearnerConfig::default() }
}

/// One batch of a series of a service: seconds and values.
fn batch(learner: &mut Learner, fp: u64, kind: SeriesKind, samples: impl IntoIterator<Item = (i64, f64)>) {
    let mut batch = BatchBuilder::default();
    let entity = batch.entity(&EntityMeta::bare(EntityId::new("c", "service", "", &format!("s{fp}"))));
    batch.series(fp, entity, kind, &labels::encode([(labels::NAME, "request_latency_seconds")]));
    for (at, value) in samples {
        batch.sample(Timestamp::from_secs(at), value);
    }
    let payload = batch.finish("test");
    let mut view = BatchView::parse(&payload).unwrap();
    let mut columns = MetricColumns::default();
    view.metrics(&mut columns).unwrap();
    learner.batch("t", &view, &columns);
}

fn readings(learner: &Learner) -> u64 {
    learner.summary("t").families.values().map(|s| s.moments.n).sum()
}

fn calm(n: i64) -> impl Iterator<Item = (i64, f64)> {
    (0..n).map(|i| (1_000_000 + i * 10, 1.0 + 0.01 * (i % 7) as f64))
}

#[test]
fn what_comes_again_is_not_learned_twice_not_even_by_the_next_process() {
    let mut learner = Learner::new(config());
    batch(&mut learner, 1, SeriesKind::Gauge, calm(100));
    batch(&mut learner, 1, SeriesKind::Gauge, calm(100));
    assert_eq!(readings(&learner), 100);
    let bytes = learner.snapshot();
    let mut again = Learner::restore(config(), &bytes).unwrap();
    assert_eq!((again.summary("t"), again.snapshot()), (learner.summary("t"), bytes.clone()));
    batch(&mut again, 1, SeriesKind::Gauge, calm(101));
    assert_eq!(readings(&again), 101);
    assert!(Learner::restore(config(), &bytes[..bytes.len() - 1]).is_err());
}

#[test]
fn counters_become_rates_and_a_restart_of_one_is_no_reading() {
    let mut learner = Learner::new(config());
    batch(&mut learner, 1, SeriesKind::Counter, [(10, 100.0), (20, 200.0), (30, 5.0), (40, 105.0)]);
    let summary = learner.summary("t");
    let (key, sketch) = summary.families.first_key_value().unwrap();
    assert_eq!((key.to_string().as_str(), sketch.moments.n, sketch.moments.mean), ("service/latency/rate", 2, 10.0));
}

#[test]
fn days_leave_and_series_that_are_gone_make_room() {
    let mut learner = Learner::new(LearnerConfig { series_max: 1, ..config() });
    for day in 0..6 {
        batch(&mut learner, 1, SeriesKind::Gauge, [(day * 86_400 + 5, 1.0)]);
        batch(&mut learner, 2, SeriesKind::Gauge, [(day * 86_400 + 5, 1.0)]);
    }
    assert_eq!((learner.summary("t").days, readings(&learner), learner.series("t").0), (Some((3, 5)), 3, 1));
    // Older than what is kept: not learned.
    batch(&mut learner, 1, SeriesKind::Gauge, [(1, 1.0)]);
    assert_eq!(readings(&learner), 3);
    learner.sweep(3_600);
    assert_eq!(learner.series("t").0, 1, "the only one is the newest");
}

#[test]
fn of_a_series_one_reading_in_so_many_seconds_is_summed_up() {
    let mut learner = Learner::new(LearnerConfig { sample_secs: 30, ..config() });
    batch(&mut learner, 1, SeriesKind::Gauge, calm(90));
    assert_eq!(readings(&learner), 30);
    let mut off = Learner::new(LearnerConfig { enabled: false, ..config() });
    batch(&mut off, 1, SeriesKind::Gauge, calm(90));
    assert_eq!(readings(&off), 0);
}
