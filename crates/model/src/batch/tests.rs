use super::*;
use crate::{EntityId, EntityMeta, Timestamp, proto};
use proptest::prelude::*;
use prost::Message as _;

fn host(name: &str) -> EntityMeta {
    EntityMeta { service: "s".into(), ..EntityMeta::bare(EntityId::new("c", "host", "", name)) }
}

fn sample() -> bytes::Bytes {
    let mut b = BatchBuilder::default();
    let (a, c) = (b.entity(&host("a")), b.entity(&host("b")));
    b.series(1, a, SeriesKind::Gauge, &labels::encode([("__name__", "cpu"), ("mode", "user")]));
    b.sample(Timestamp(1_000), 1.5);
    b.series(2, c, SeriesKind::Counter, &labels::encode([("__name__", "cpu"), ("mode", "idle")]));
    b.sample(Timestamp(2_000), f64::NAN);
    b.sample(Timestamp(-7), 3.0);
    b.log(&proto::LogLine { time_ns: 5, body: "hello".into(), ..Default::default() });
    b.span(&proto::Span { start_ns: 6, operation: "GET".into(), ..Default::default() });
    assert_eq!((b.oldest(), b.newest()), (Some(Timestamp(-7)), Some(Timestamp(2_000))));
    let payload = b.finish("test");
    assert!(b.is_empty());
    payload
}

/// The hand-written form is the one that the schema describes.
#[test]
fn bytes_are_the_protobuf_of_the_schema() {
    let batch = proto::TelemetryBatch::decode(sample()).unwrap();
    assert_eq!(batch.source, "test");
    assert_eq!(batch.entities.len(), 2);
    let m = batch.metrics.clone().unwrap();
    assert_eq!((m.fingerprint, m.entity, m.rows_per_series), (vec![1, 2], vec![0, 1], vec![1, 2]));
    assert_eq!(m.timestamp_delta_ns, [1_000, 1_000, -2_007]);
    assert_eq!(batch.logs[0].body, "hello");
    // And what prost writes is read by hand.
    let again = batch.encode_to_vec();
    let mut view = BatchView::parse(&again).unwrap();
    let mut columns = MetricColumns::default();
    view.metrics(&mut columns).unwrap();
    assert_eq!(columns.timestamp, [1_000, 2_000, -7]);
}

#[test]
fn view_gives_back_what_was_built() {
    let payload = sample();
    let mut view = BatchView::parse(&payload).unwrap();
    let mut columns = MetricColumns::default();
    view.metrics(&mut columns).unwrap();
    assert_eq!(columns.kind, [SeriesKind::Gauge, SeriesKind::Counter]);
    assert!(columns.value[1].is_nan());
    let mut modes = Vec::new();
    view.for_each_series(|_, l| {
        modes.push(labels::get(l, "mode").unwrap().to_owned());
        true
    })
    .unwrap();
    assert_eq!(modes, ["user", "idle"]);
    assert_eq!(view.entity(1).unwrap().id.name(), "b");
    assert_eq!(view.logs().next().unwrap().unwrap().body, "hello");
    assert_eq!(view.spans().next().unwrap().unwrap().operation, "GET");
}

#[test]
fn broken_batches_get_their_error() {
    let entity = proto::Entity { id: "a/b/c/d".into(), ..Default::default() };
    let block = proto::MetricBlock {
        fingerprint: vec![1, 2],
        timestamp_delta_ns: vec![1, 2],
        value: vec![1.0, 2.0],
        ..Default::default()
    };
    let batch = |metrics: proto::MetricBlock| {
        proto::TelemetryBatch { entities: vec![entity.clone()], metrics: Some(metrics), ..Default::default() }
            .encode_to_vec()
    };
    let table: Vec<(Vec<u8>, BatchError)> = vec![
        (vec![0x0a, 0xff], BatchError::NotProtobuf),
        (vec![0x0b], BatchError::NotProtobuf),
        (vec![0x0a, 0x01, 0xff], BatchError::NotProtobuf),
        (batch(proto::MetricBlock { value: vec![1.0], ..block.clone() }), BatchError::Columns),
        (batch(proto::MetricBlock { rows_per_series: vec![1], ..block.clone() }), BatchError::Columns),
        (batch(proto::MetricBlock { rows_per_series: vec![u32::MAX, 3], ..block.clone() }), BatchError::Columns),
        (batch(proto::MetricBlock { entity: vec![0, 1], ..block.clone() }), BatchError::Entity),
        (batch(proto::MetricBlock { dictionary: vec![9, 0, 0].into(), ..block.clone() }), BatchError::Dictionary),
        (batch(proto::MetricBlock { dictionary: vec![0, 0, 9].into(), ..block }), BatchError::Dictionary),
    ];
    for (bytes, want) in table {
        let got = BatchView::parse(&bytes).and_then(|mut v| {
            v.metrics(&mut MetricColumns::default())?;
            v.for_each_series(|_, _| true)
        });
        assert_eq!(got, Err(want), "{bytes:?}");
    }
    assert_eq!(BatchView::parse(&vec![0; BATCH_BYTES_MAX + 1]).unwrap_err(), BatchError::TooLarge(BATCH_BYTES_MAX + 1));
}

#[test]
fn labels_are_sorted_unique_and_without_empty_ones() {
    let bytes = labels::encode([("z", "1"), ("a", "2"), ("a", "3"), ("gone", ""), ("", "x")]);
    let got: Vec<_> = labels::iter(&bytes).map(Result::unwrap).collect();
    assert_eq!(got, [("a", "2"), ("z", "1")]);
    assert!(labels::iter(&[0x0a]).next().unwrap().is_err());
    assert!(labels::iter(&[0x12, 0]).next().unwrap().is_err());
}

proptest! {
    #[test]
    fn any_labels_survive_front_coding(series in prop::collection::vec(prop::collection::vec(("[a-c]{1,3}", "[x-z]{0,12}"), 0..5), 0..20)) {
        let encoded: Vec<_> =
            series.iter().map(|l| labels::encode(l.iter().map(|(n, v)| (n.as_str(), v.as_str())))).collect();
        let mut b = BatchBuilder::default();
        b.entity(&host("a"));
        for (i, l) in encoded.iter().enumerate() {
            b.series(i as u64, 0, SeriesKind::Gauge, l);
            b.sample(Timestamp(i as i64), i as f64);
        }
        let payload = b.finish("p");
        let mut view = BatchView::parse(&payload).unwrap();
        view.metrics(&mut MetricColumns::default()).unwrap();
        let mut got = Vec::new();
        view.for_each_series(|_, l| { got.push(l.to_vec()); true }).unwrap();
        prop_assert_eq!(got, encoded);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(mut view) = BatchView::parse(&bytes) {
            let mut columns = MetricColumns::default();
            if view.metrics(&mut columns).is_ok() {
                let _ = view.for_each_series(|_, l| labels::iter(l).all(|x| x.is_ok()));
            }
            let _ = view.logs().count() + view.spans().count();
        }
    }

    #[test]
    fn no_mutation_of_a_batch_panics(at in any::<prop::sample::Index>(), with in any::<u8>()) {
        let mut bytes = sample().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(mut view) = BatchView::parse(&bytes) {
            let mut columns = MetricColumns::default();
            if view.metrics(&mut columns).is_ok() {
                let _ = view.for_each_series(|_, l| labels::iter(l).all(|x| x.is_ok()));
            }
        }
    }
}
