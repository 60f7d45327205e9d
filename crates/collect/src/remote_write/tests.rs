use super::histogram::{Histogram, Span};
use super::*;
use crate::testkit::{RecordingBus, START};
use nightshift_model::batch::{BatchView, MetricColumns, labels};
use prost::Message;
use std::sync::Arc;

const LIMIT: usize = 1 << 20;

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct Series1 {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    histograms: Vec<Histogram>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata1 {
    #[prost(int32, tag = "1")]
    metric_type: i32,
    #[prost(string, tag = "2")]
    metric_family_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Request1 {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<Series1>,
    #[prost(message, repeated, tag = "3")]
    metadata: Vec<Metadata1>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata2 {
    #[prost(int32, tag = "1")]
    metric_type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Series2 {
    #[prost(uint32, repeated, tag = "1")]
    labels_refs: Vec<u32>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    histograms: Vec<Histogram>,
    #[prost(message, optional, tag = "5")]
    metadata: Option<Metadata2>,
    #[prost(int64, tag = "6")]
    created_timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Request2 {
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    timeseries: Vec<Series2>,
}

struct World {
    ingest: Arc<Ingest>,
    bus: Arc<RecordingBus>,
}

fn world() -> World {
    let bus = RecordingBus::new();
    let ingest = crate::testkit::ingest(bus.clone());
    World { ingest, bus }
}

impl World {
    async fn send(&self, version: Version, message: &[u8]) -> Result<Written, WriteError> {
        let body = snap::raw::Encoder::new().compress_vec(message).unwrap();
        write(&self.ingest, "rw", &Origin::OWN, version, &body, LIMIT).await
    }

    /// `labels kind value` of each series on the bus, sorted.
    fn seen(&self) -> Vec<String> {
        let mut out = Vec::new();
        for envelope in self.bus.envelopes("telemetry.raw") {
            let mut view = BatchView::parse(&envelope.payload).unwrap();
            let mut columns = MetricColumns::default();
            view.metrics(&mut columns).unwrap();
            let mut row = 0;
            view.for_each_series(|i, wire| {
                let text: Vec<_> = labels::iter(wire).map(Result::unwrap).map(|(n, v)| format!("{n}={v}")).collect();
                let n = columns.rows[i] as usize;
                out.push(format!("{} {:?} {:?}", text.join(" "), columns.kind[i], &columns.value[row..row + n]));
                row += n;
                true
            })
            .unwrap();
        }
        out.sort();
        out
    }
}

fn label(name: &str, value: &str) -> Label {
    Label { name: name.into(), value: value.into() }
}

fn sample(value: f64) -> Sample {
    Sample { value, timestamp: START.millis() }
}

fn series1(labels: &[(&str, &str)], value: f64) -> Series1 {
    let labels = labels.iter().map(|(n, v)| label(n, v)).collect();
    Series1 { labels, samples: vec![sample(value)], histograms: Vec::new() }
}

fn request1(timeseries: Vec<Series1>) -> Vec<u8> {
    Request1 { timeseries, metadata: Vec::new() }.encode_to_vec()
}

fn histogram() -> Histogram {
    Histogram {
        count_int: Some(10),
        sum: 25.0,
        positive_spans: vec![Span { offset: 1, length: 1 }],
        positive_deltas: vec![10],
        timestamp: START.millis(),
        ..Histogram::default()
    }
}

#[tokio::test]
async fn v1_samples_reach_the_bus() {
    let w = world();
    let labels = [("__name__", "http_total"), ("instance", "db1:1"), ("job", "x")];
    let written = w.send(Version::V1, &request1(vec![series1(&labels, 4.0)])).await.unwrap();
    assert_eq!((written.samples, written.tally.accepted), (1, 1));
    assert_eq!(w.seen(), ["__name__=http_total instance=db1:1 job=x Counter [4.0]"]);
}

/// Unsorted labels, labels in pieces, empty values, UTF-8 names: one form comes out of all.
#[tokio::test]
async fn odd_but_valid_labels_come_out_in_one_form() {
    let w = world();
    let mut pieces = Vec::new();
    for part in [label("b", "2"), label("__name__", "a.b")] {
        let mut one = vec![0x0a];
        part.encode_length_delimited(&mut one).unwrap();
        pieces.push(one);
    }
    let mut samples = vec![0x12];
    sample(1.0).encode_length_delimited(&mut samples).unwrap();
    let scattered = [&pieces[0][..], &samples, &pieces[1]].concat();
    let mut request = vec![0x0a];
    prost::encoding::encode_varint(scattered.len() as u64, &mut request);
    request.extend(scattered);
    w.send(Version::V1, &request).await.unwrap();
    let unsorted = [("b", "2"), ("gone", ""), ("__name__", "a.b")];
    w.send(Version::V1, &request1(vec![series1(&unsorted, 2.0)])).await.unwrap();
    w.send(Version::V1, &request1(vec![series1(&unsorted, 3.0)])).await.unwrap();
    let want = |v: f64| format!("__name__=a.b b=2 Gauge [{v:?}]");
    assert_eq!(w.seen(), [want(1.0), want(2.0), want(3.0)]);
    assert_eq!(w.ingest.stats().series, 2, "remembered by the bytes that came");
}

#[tokio::test]
async fn a_request_that_comes_again_is_known() {
    let w = world();
    let request = request1(vec![series1(&[("__name__", "a"), ("instance", "x")], 1.0); 3]);
    assert_eq!(w.send(Version::V1, &request).await.unwrap().tally.accepted, 3);
    let again = w.send(Version::V1, &request).await.unwrap();
    assert_eq!((again.tally.accepted, again.tally.duplicates, again.samples), (0, 3, 3));
    assert_eq!(w.bus.envelopes("telemetry.raw").len(), 1);
}

#[tokio::test]
async fn bad_series_are_told_and_the_rest_is_taken() {
    let w = world();
    let good = series1(&[("__name__", "a"), ("instance", "x")], 1.0);
    let old = Series1 { samples: vec![Sample { value: 1.0, timestamp: START.millis() - 3_700_000 }], ..good.clone() };
    let rows = [
        (series1(&[("instance", "x")], 1.0), "1 no_name"),
        (series1(&[("__name__", "a"), ("b", "1"), ("b", "2")], 1.0), "1 bad_labels"),
        (series1(&[("__name__", "a"), ("", "1")], 1.0), "1 bad_labels"),
        (series1(&[("__name__", "a"), ("b", &"x".repeat(20_000))], 1.0), "1 label_limit"),
        (old, "1 too_old"),
    ];
    for (i, (bad, why)) in rows.into_iter().enumerate() {
        let fresh = series1(&[("__name__", "a"), ("instance", "x")], i as f64);
        let written = w.send(Version::V1, &request1(vec![bad, fresh])).await.unwrap();
        assert_eq!(written.tally.bad_data().as_deref(), Some(why));
        assert_eq!((written.samples, written.tally.accepted), (1, 1), "{why}");
    }
    // NaN and stale markers are legitimate: the client hears nothing of them.
    let stale = series1(&[("__name__", "a"), ("instance", "x")], f64::from_bits(crate::ingest::STALE));
    let nan = series1(&[("__name__", "a"), ("instance", "y")], f64::NAN);
    let written = w.send(Version::V1, &request1(vec![stale, nan])).await.unwrap();
    assert_eq!((written.tally.bad_data(), written.samples, written.tally.rejected()), (None, 2, 2));
}

#[tokio::test]
async fn metadata_tells_the_kind_from_then_on() {
    let w = world();
    let labels = [("__name__", "queue_count"), ("instance", "x")];
    w.send(Version::V1, &request1(vec![series1(&labels, 1.0)])).await.unwrap();
    let gauge = Metadata1 { metric_type: 2, metric_family_name: "queue_count".into() };
    let request = Request1 { timeseries: vec![series1(&labels, 2.0)], metadata: vec![gauge] };
    w.send(Version::V1, &request.encode_to_vec()).await.unwrap();
    w.send(Version::V1, &request1(vec![series1(&labels, 3.0)])).await.unwrap();
    let kinds: Vec<_> = w.seen().iter().map(|s| s.split(' ').nth(2).unwrap().to_owned()).collect();
    assert_eq!(kinds.iter().filter(|k| *k == "Gauge").count(), 1, "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "Gauge");
}

fn request2(symbols: &[&str], timeseries: Vec<Series2>) -> Vec<u8> {
    Request2 { symbols: symbols.iter().map(|s| (*s).to_owned()).collect(), timeseries }.encode_to_vec()
}

#[tokio::test]
async fn v2_symbols_types_and_created_timestamps() {
    let w = world();
    let one = |metric_type, refs: &[u32]| Series2 {
        labels_refs: refs.to_vec(),
        samples: vec![sample(5.0)],
        metadata: Some(Metadata2 { metric_type }),
        created_timestamp: START.millis() - 1,
        ..Series2::default()
    };
    let symbols = ["", "__name__", "requests", "instance", "x", "lat_count"];
    let message = request2(&symbols, vec![one(1, &[1, 2, 3, 4]), one(2, &[1, 5, 3, 4]), one(3, &[1, 5])]);
    let written = w.send(Version::V2, &message).await.unwrap();
    assert_eq!((written.samples, written.histograms), (3, 0));
    assert_eq!(
        w.seen(),
        [
            "__name__=lat_count Counter [5.0]",
            "__name__=lat_count instance=x Gauge [5.0]",
            "__name__=requests instance=x Counter [5.0]",
        ]
    );
}

/// Each bad message with the answer it gets; nothing of it is written.
#[tokio::test]
async fn broken_requests_are_refused_whole() {
    let w = world();
    let good = Series2 { labels_refs: vec![1, 2], samples: vec![sample(1.0)], ..Series2::default() };
    let with = |labels_refs: &[u32]| Series2 { labels_refs: labels_refs.to_vec(), ..good.clone() };
    let unfit = Histogram { positive_deltas: vec![1, 2], ..histogram() };
    let bad_histogram1 = Series1 { histograms: vec![unfit.clone()], ..series1(&[("__name__", "a")], 1.0) };
    let bad_histogram2 = Series2 { histograms: vec![unfit], ..good.clone() };
    let symbols = ["", "__name__", "a"];
    let rows: Vec<(Version, Vec<u8>, &str)> = vec![
        (Version::V1, vec![0x0a, 0x7f], "request is not protobuf"),
        (Version::V1, vec![0xff; 12], "request is not protobuf"),
        (Version::V1, b"plain text".to_vec(), "request is not protobuf"),
        (Version::V1, vec![0x0a, 0x02, 0x0a, 0x7f], "request is not protobuf"),
        (Version::V1, vec![0x0a, 0x03, 0x12, 0x01, 0x09], "request is not protobuf"),
        (Version::V1, request1(vec![bad_histogram1]), "spans and counts of a histogram do not fit"),
        (Version::V2, vec![0x2a, 0x7f], "request is not protobuf"),
        (Version::V2, vec![0x22, 0x01, 0xff], "a symbol of the request is not UTF-8"),
        (Version::V2, request2(&["a"], vec![]), "the first symbol of the request is not the empty string"),
        (
            Version::V2,
            request2(&symbols, vec![good.clone(), with(&[1, 9])]),
            "a label refers to a symbol that is not there",
        ),
        (
            Version::V2,
            request2(&symbols, vec![good.clone(), with(&[1])]),
            "a label of the request has a name and no value",
        ),
        (Version::V2, request2(&symbols, vec![bad_histogram2]), "spans and counts of a histogram do not fit"),
    ];
    for (version, message, want) in rows {
        let got = w.send(version, &message).await.unwrap_err();
        assert_eq!(got.to_string(), want);
    }
    assert!(w.bus.envelopes("telemetry.raw").is_empty());
}

/// A symbol is sent once and may be meant a million times.
#[tokio::test]
async fn labels_that_grow_when_written_out_are_bounded() {
    let w = world();
    let big = "x".repeat(500_000);
    let symbols = ["", "__name__", &big];
    let one = Series2 { labels_refs: vec![1, 2], samples: vec![sample(1.0)], ..Series2::default() };
    let got = w.send(Version::V2, &request2(&symbols, vec![one; 1_000])).await.unwrap_err();
    assert_eq!(got.to_string(), "labels of the request take too many bytes when written out; send fewer series");
}

#[tokio::test]
async fn native_histograms_become_series() {
    for version in [Version::V1, Version::V2] {
        let w = world();
        let message = match version {
            Version::V1 => {
                let labels = vec![label("__name__", "lat"), label("instance", "x")];
                request1(vec![Series1 { labels, samples: vec![], histograms: vec![histogram()] }])
            }
            Version::V2 => request2(
                &["", "__name__", "lat", "instance", "x"],
                vec![Series2 { labels_refs: vec![1, 2, 3, 4], histograms: vec![histogram()], ..Series2::default() }],
            ),
        };
        let written = w.send(version, &message).await.unwrap();
        assert_eq!((written.histograms, written.samples), (1, 0));
        let middle = 2f64.powf(0.5);
        assert_eq!(
            w.seen(),
            [
                format!("__name__=lat instance=x quantile=0.5 Gauge [{middle:?}]"),
                format!("__name__=lat instance=x quantile=0.95 Gauge [{middle:?}]"),
                format!("__name__=lat instance=x quantile=0.99 Gauge [{middle:?}]"),
                "__name__=lat_count instance=x Counter [10.0]".to_owned(),
                "__name__=lat_sum instance=x Counter [25.0]".to_owned(),
            ]
        );
    }
}

#[test]
fn corpora() {
    crate::corpus::replay("remote_write_v1", fuzz_remote_write_v1);
    crate::corpus::replay("remote_write_v2", fuzz_remote_write_v2);
    crate::corpus::replay("snappy", fuzz_snappy);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        fuzz(Version::V1, &bytes);
        fuzz(Version::V2, &bytes);
    }

    #[test]
    fn no_mutation_panics(at in proptest::prelude::any::<proptest::sample::Index>(), with in proptest::prelude::any::<u8>()) {
        let mut v1 = request1(vec![Series1 { histograms: vec![histogram()], ..series1(&[("__name__", "a"), ("b", "c")], 1.0) }]);
        let at1 = at.index(v1.len());
        v1[at1] = with;
        fuzz(Version::V1, &v1);
        let series = Series2 { labels_refs: vec![1, 2], samples: vec![sample(1.0)], histograms: vec![histogram()], ..Series2::default() };
        let mut v2 = request2(&["", "__name__", "a"], vec![series]);
        let at2 = at.index(v2.len());
        v2[at2] = with;
        fuzz(Version::V2, &v2);
    }

    /// What prost reads is what the walk reads.
    #[test]
    fn the_walk_agrees_with_a_protobuf_library(values in proptest::collection::vec(-1e6f64..1e6, 1..20)) {
        let series = values.iter().enumerate().map(|(i, v)| series1(&[("__name__", "a"), ("i", &i.to_string())], *v));
        let w = world();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let message = request1(series.collect());
        let written = runtime.block_on(w.send(Version::V1, &message)).unwrap();
        let library = Request1::decode(&message[..]).unwrap();
        proptest::prop_assert_eq!(written.samples as usize, library.timeseries.len());
        let mut want: Vec<_> = library.timeseries.iter().enumerate().map(|(i, s)| format!("__name__=a i={i} Gauge [{:?}]", s.samples[0].value)).collect();
        want.sort();
        proptest::prop_assert_eq!(w.seen(), want);
    }
}

/// Writes the seeds of the corpora; run by hand when the forms change.
#[test]
#[ignore = "writes files: the seeds that `corpora` replays"]
fn write_seeds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let put = |dir: &str, name: &str, bytes: &[u8]| std::fs::write(root.join(dir).join(name), bytes).unwrap();
    let plain = request1(vec![series1(&[("__name__", "up"), ("instance", "a:1"), ("job", "b")], 1.0); 2]);
    let labels = vec![label("__name__", "lat")];
    let native = request1(vec![Series1 { labels, samples: vec![], histograms: vec![histogram()] }]);
    let metadata =
        Request1 { timeseries: vec![], metadata: vec![Metadata1 { metric_type: 1, metric_family_name: "x".into() }] };
    put("remote_write_v1", "samples", &plain);
    put("remote_write_v1", "native_histogram", &native);
    put("remote_write_v1", "metadata", &metadata.encode_to_vec());
    put("remote_write_v1", "cut", &plain[..plain.len() - 3]);
    let series = Series2 {
        labels_refs: vec![1, 2, 3, 4],
        samples: vec![sample(1.0)],
        histograms: vec![histogram()],
        metadata: Some(Metadata2 { metric_type: 3 }),
        created_timestamp: 1,
    };
    let v2 = request2(&["", "__name__", "lat", "instance", "a:1"], vec![series]);
    put("remote_write_v2", "all", &v2);
    put("remote_write_v2", "no_symbols", &v2[10..]);
    put("snappy", "good", &snap::raw::Encoder::new().compress_vec(&plain).unwrap());
    put("snappy", "lying", &[0xff, 0xff, 0xff, 0x0f, 1, 2]);
}
