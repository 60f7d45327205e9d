use super::encoding::{DecodeError, Format};
use super::*;
use nightshift_model::Timestamp;
use nightshift_model::batch::SeriesKind;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;
use opentelemetry_proto::tonic::metrics::v1::summary_data_point::ValueAtQuantile;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, metric, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use prost::Message;

const NOW: Timestamp = Timestamp::from_secs(1_000);

fn kv(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn text(key: &str, value: &str) -> KeyValue {
    kv(key, Value::StringValue(value.into()))
}

fn of_cart() -> Option<Resource> {
    Some(Resource { attributes: vec![text("service.name", "cart")], ..Resource::default() })
}

fn metrics_of(data: Vec<metric::Data>) -> ExportMetricsServiceRequest {
    let metrics = data.into_iter().map(|d| Metric { name: "m".into(), data: Some(d), ..Metric::default() }).collect();
    let scope = ScopeMetrics { metrics, ..ScopeMetrics::default() };
    let resource = ResourceMetrics { resource: of_cart(), scope_metrics: vec![scope], ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![resource] }
}

/// `name{labels} kind value` of each point.
fn rows(data: metric::Data) -> (Vec<String>, u64) {
    let found = metrics::points(&metrics_of(vec![data]), None, NOW);
    let rows = found.points.iter().map(|p| {
        assert_eq!(p.resource["service.name"], "cart");
        let labels = p.labels.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join(",");
        format!("{}{{{labels}}} {:?} {}", p.name, p.kind, p.value)
    });
    (rows.collect(), found.rejected)
}

fn number(value: f64) -> NumberDataPoint {
    let value = Some(number_data_point::Value::AsDouble(value));
    NumberDataPoint { time_unix_nano: 5, value, attributes: vec![text("a", "b")], ..NumberDataPoint::default() }
}

fn sum(aggregation_temporality: i32, is_monotonic: bool) -> metric::Data {
    metric::Data::Sum(Sum { data_points: vec![number(2.0)], aggregation_temporality, is_monotonic })
}

fn histogram(bucket_counts: &[u64], explicit_bounds: &[f64], delta: bool) -> metric::Data {
    let point = HistogramDataPoint {
        time_unix_nano: 5,
        count: bucket_counts.iter().sum(),
        sum: Some(9.0),
        bucket_counts: bucket_counts.to_vec(),
        explicit_bounds: explicit_bounds.to_vec(),
        ..HistogramDataPoint::default()
    };
    metric::Data::Histogram(Histogram { data_points: vec![point], aggregation_temporality: if delta { 1 } else { 2 } })
}

fn exponential(offset: i32, counts: &[u64]) -> metric::Data {
    let point = ExponentialHistogramDataPoint {
        count: counts.iter().sum(),
        sum: Some(9.0),
        positive: Some(Buckets { offset, bucket_counts: counts.to_vec() }),
        ..ExponentialHistogramDataPoint::default()
    };
    metric::Data::ExponentialHistogram(ExponentialHistogram { data_points: vec![point], aggregation_temporality: 2 })
}

#[test]
fn numbers_are_gauges_counters_or_deltas() {
    for (data, kind) in [
        (metric::Data::Gauge(Gauge { data_points: vec![number(2.0)] }), "Gauge"),
        (sum(2, true), "Counter"),
        (sum(2, false), "Gauge"),
        (sum(1, true), "Delta"),
        (sum(1, false), "Delta"),
        (sum(0, true), "Counter"),
    ] {
        assert_eq!(rows(data).0, [format!("m{{a=b}} {kind} 2")]);
    }
}

#[test]
fn histograms_become_count_sum_and_cumulative_buckets() {
    let (got, _) = rows(histogram(&[1, 2, 3], &[0.5, 10.0], false));
    assert_eq!(
        got,
        [
            "m_count{} Counter 6",
            "m_sum{} Counter 9",
            "m_bucket{le=0.5} Counter 1",
            "m_bucket{le=10} Counter 3",
            "m_bucket{le=+Inf} Counter 6",
        ]
    );
    assert_eq!(rows(histogram(&[], &[], true)).0, ["m_count{} Delta 0", "m_sum{} Delta 9"]);
}

#[test]
fn exponential_histograms_become_count_sum_and_quantiles() {
    // Scale 0, OTLP's bucket 0 is (1, 2]: its geometric middle is √2.
    let (got, _) = rows(exponential(0, &[10]));
    let middle = 2f64.sqrt();
    assert_eq!(got[..2], ["m_count{} Counter 10", "m_sum{} Counter 9"]);
    assert_eq!(got[2], format!("m{{quantile=0.5}} Gauge {middle}"));
    assert_eq!(got.len(), 5);
}

#[test]
fn summaries_become_count_sum_and_quantiles() {
    let quantile_values = vec![ValueAtQuantile { quantile: 0.99, value: 7.0 }];
    let point = SummaryDataPoint { count: 3, sum: 4.0, quantile_values, ..SummaryDataPoint::default() };
    let (got, _) = rows(metric::Data::Summary(Summary { data_points: vec![point] }));
    assert_eq!(got, ["m_count{} Counter 3", "m_sum{} Counter 4", "m{quantile=0.99} Gauge 7"]);
}

/// Each broken point with the answer it gets: it is counted as rejected, its neighbours are taken.
#[test]
fn broken_points_are_rejected_alone() {
    for bad in [
        metric::Data::Gauge(Gauge { data_points: vec![NumberDataPoint::default()] }),
        histogram(&[1, 2], &[1.0, 2.0], false),
        histogram(&[], &[1.0], false),
        histogram(&[1, 2, 3], &[2.0, 1.0], false),
        histogram(&[1, 2], &[f64::NAN], false),
        exponential(i32::MAX, &[1]),
        exponential(0, &[1; 30_000]),
    ] {
        let (got, rejected) = rows(bad.clone());
        assert_eq!((got.len(), rejected), (0, 1), "{bad:?}");
    }
}

#[test]
fn times_flags_and_scopes_have_their_rules() {
    let point = NumberDataPoint { time_unix_nano: 0, flags: 1, value: None, ..number(0.0) };
    let late = NumberDataPoint { time_unix_nano: u64::MAX, ..number(1.0) };
    let mut request = metrics_of(vec![metric::Data::Gauge(Gauge { data_points: vec![point, late] })]);
    request.resource_metrics[0].scope_metrics[0].scope =
        Some(InstrumentationScope { name: "lib".into(), ..InstrumentationScope::default() });
    let found = metrics::points(&request, Some("10.0.0.9".parse().unwrap()), NOW);
    let [ended, late] = &found.points[..] else { panic!("{found:?}") };
    assert_eq!((ended.at, ended.value.to_bits()), (NOW, crate::ingest::STALE), "no recorded value: the series ended");
    assert_eq!(late.at, Timestamp(i64::MAX), "which the time rule refuses");
    assert!(late.labels.contains(&("otel_scope_name".into(), "lib".into())));
    assert_eq!(late.resource[crate::resolve::REPORTER], "10.0.0.9");
}

#[test]
fn a_resource_cannot_say_who_the_peer_is() {
    let forged = Resource { attributes: vec![text(crate::resolve::REPORTER, "10.6.6.6")], ..Resource::default() };
    let got = attributes::resource(Some(&forged), Some("127.0.0.1".parse().unwrap()));
    assert!(got.is_empty(), "{got:?}");
}

#[test]
fn values_of_every_type_have_a_text() {
    let list = Value::ArrayValue(ArrayValue {
        values: vec![AnyValue { value: Some(Value::StringValue("a\"b".into())) }, AnyValue { value: None }],
    });
    for (value, want) in [
        (Value::StringValue("x".into()), "x"),
        (Value::BoolValue(true), "true"),
        (Value::IntValue(-3), "-3"),
        (Value::DoubleValue(0.5), "0.5"),
        (Value::BytesValue(vec![1, 255]), "01ff"),
        (list, r#"["a\"b",null]"#),
    ] {
        assert_eq!(attributes::text(Some(&AnyValue { value: Some(value) })).as_deref(), Some(want));
    }
    let long = Value::BytesValue(vec![0; 1 << 20]);
    assert!(attributes::text(Some(&AnyValue { value: Some(long) })).unwrap().len() <= 4 << 10);
}

fn record(severity_number: i32, severity_text: &str, body: Option<Value>) -> LogRecord {
    LogRecord {
        severity_number,
        severity_text: severity_text.into(),
        body: body.map(|v| AnyValue { value: Some(v) }),
        time_unix_nano: 7,
        trace_id: vec![1; 16],
        span_id: vec![0; 8],
        ..LogRecord::default()
    }
}

fn logs_of(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs { resource: of_cart(), scope_logs, ..ResourceLogs::default() }],
    }
}

#[test]
fn records_become_lines() {
    let hello = || Some(Value::StringValue("hello".into()));
    let exception = LogRecord {
        attributes: vec![
            text("exception.type", "IOError"),
            text("exception.message", "disk"),
            text("log.file.path", "/l"),
        ],
        ..record(17, "", hello())
    };
    let event = LogRecord { event_name: "started".into(), time_unix_nano: 0, ..record(99, "Warning", None) };
    let observed = LogRecord { time_unix_nano: 0, observed_time_unix_nano: 9, ..record(-1, "?", hello()) };
    let lines = logs::lines(&logs_of(vec![record(9, "", hello()), exception, event, observed]), None, NOW);
    let got: Vec<_> = lines.iter().map(|l| (l.severity, l.body.as_str(), l.at, l.stream.as_str())).collect();
    assert_eq!(
        got,
        [
            (9, "hello", Timestamp(7), ""),
            (17, "hello: IOError: disk", Timestamp(7), "/l"),
            (13, "started", NOW, ""),
            (0, "hello", Timestamp(9), ""),
        ]
    );
    assert_eq!((lines[0].trace_id, lines[0].span_id), (Some([1; 16]), None), "an id of zeros is none");
}

fn span(kind: i32, attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: 10,
        end_time_unix_nano: 25,
        name: "GET /".into(),
        kind,
        attributes,
        ..Span::default()
    }
}

fn traces_of(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans { resource: of_cart(), scope_spans, ..ResourceSpans::default() }],
    }
}

#[test]
fn spans_say_whom_they_called_and_whether_it_failed() {
    let failed = Span { status: Some(Status { code: 2, ..Status::default() }), ..span(2, vec![]) };
    let rows = [
        (
            span(3, vec![text("server.address", "db"), kv("http.response.status_code", Value::IntValue(200))]),
            "db",
            200,
            false,
        ),
        (span(3, vec![text("peer.service", "pay"), text("server.address", "x")]), "pay", 0, false),
        (span(4, vec![text("messaging.destination.name", "orders")]), "orders", 0, false),
        // A server called nobody, whatever its address is.
        (span(2, vec![text("server.address", "me"), text("http.status_code", "503")]), "", 503, true),
        (failed, "", 0, true),
        (span(77, vec![kv("http.status_code", Value::IntValue(-1))]), "", 0, false),
    ];
    let (spans, wants): (Vec<_>, Vec<_>) = rows.into_iter().map(|(s, p, h, e)| (s, (p, h, e))).unzip();
    let (got, rejected) = traces::spans(&traces_of(spans), None);
    assert_eq!(rejected, 0);
    for (got, want) in got.iter().zip(wants) {
        assert_eq!((got.span.peer.as_str(), got.span.http_status, got.span.error), want);
        assert_eq!((got.span.duration_ns, got.span.start_ns), (15, 10));
    }
}

#[test]
fn broken_spans_are_rejected_alone() {
    let bad = [
        Span { trace_id: vec![1; 15], ..span(1, vec![]) },
        Span { trace_id: vec![0; 16], ..span(1, vec![]) },
        Span { span_id: vec![], ..span(1, vec![]) },
        Span { start_time_unix_nano: 0, ..span(1, vec![]) },
    ];
    let backwards = Span { end_time_unix_nano: 3, parent_span_id: vec![9; 3], ..span(1, vec![]) };
    let (got, rejected) = traces::spans(&traces_of(bad.into_iter().chain([backwards]).collect()), None);
    assert_eq!((got.len(), rejected), (1, 4));
    assert_eq!((got[0].span.duration_ns, got[0].span.parent_span_id.len()), (0, 0));
}

#[test]
fn bad_messages_are_refused() {
    let json = |text: &str| Format::Json.decode::<ExportMetricsServiceRequest>(text.as_bytes());
    for bad in
        ["", "{\"resourceMetrics\":5}", "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":1}]}]}]}"]
    {
        assert!(matches!(json(bad), Err(DecodeError::Json(_))), "{bad}");
    }
    let nested = format!("{{\"resourceMetrics\":{}", "[".repeat(5_000));
    assert!(matches!(json(&nested), Err(DecodeError::Json(_))));
    assert_eq!(json("{}"), Ok(ExportMetricsServiceRequest::default()));
    for bad in [&[0x0a, 0x7f][..], &[0xff; 12], b"{}"] {
        let got = Format::Protobuf.decode::<ExportMetricsServiceRequest>(bad);
        assert!(matches!(got, Err(DecodeError::Protobuf(_))), "{bad:?}");
    }
}

/// Both spellings of a message say the same.
#[test]
fn json_and_protobuf_agree() {
    let json = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"cart"}}]},
        "scopeMetrics":[{"metrics":[{"name":"m","sum":{"aggregationTemporality":2,"isMonotonic":true,
        "dataPoints":[{"timeUnixNano":"5","asDouble":2.0,"attributes":[{"key":"a","value":{"stringValue":"b"}}]}]}}]}]}]}"#;
    let read: ExportMetricsServiceRequest = Format::Json.decode(json.as_bytes()).unwrap();
    let again: ExportMetricsServiceRequest = Format::Protobuf.decode(&read.encode_to_vec()).unwrap();
    let points = |r: &ExportMetricsServiceRequest| metrics::points(r, None, NOW).points;
    assert_eq!(points(&read), points(&metrics_of(vec![sum(2, true)])));
    assert_eq!(points(&read), points(&again));
    assert_eq!(points(&read)[0].kind, SeriesKind::Counter);
}

fn all_metrics() -> ExportMetricsServiceRequest {
    let gauge = metric::Data::Gauge(Gauge { data_points: vec![number(1.0)] });
    metrics_of(vec![gauge, sum(1, true), histogram(&[1, 2], &[1.0], false), exponential(-3, &[1, 0, 2])])
}

#[test]
fn corpora() {
    crate::corpus::replay("otlp_metrics", fuzz_otlp_metrics);
    crate::corpus::replay("otlp_logs", fuzz_otlp_logs);
    crate::corpus::replay("otlp_traces", fuzz_otlp_traces);
    crate::corpus::replay("otlp_json", fuzz_otlp_json);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        fuzz_otlp_metrics(&bytes);
        fuzz_otlp_logs(&bytes);
        fuzz_otlp_traces(&bytes);
        fuzz_otlp_json(&bytes);
    }

    #[test]
    fn no_mutation_panics(at in proptest::prelude::any::<proptest::sample::Index>(), with in proptest::prelude::any::<u8>()) {
        for (target, mut bytes) in [
            (fuzz_otlp_metrics as fn(&[u8]), all_metrics().encode_to_vec()),
            (fuzz_otlp_logs, logs_of(vec![record(9, "info", Some(Value::IntValue(1)))]).encode_to_vec()),
            (fuzz_otlp_traces, traces_of(vec![span(3, vec![text("peer.service", "x")])]).encode_to_vec()),
            (fuzz_otlp_json, serde_json::to_vec(&all_metrics()).unwrap()),
        ] {
            let at = at.index(bytes.len());
            bytes[at] = with;
            target(&bytes);
        }
    }
}

/// Writes the seeds of the corpora; run by hand when the forms change.
#[test]
#[ignore = "writes files: the seeds that `corpora` replays"]
fn write_seeds() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let put = |dir: &str, name: &str, bytes: &[u8]| std::fs::write(root.join(dir).join(name), bytes).unwrap();
    let logs = logs_of(vec![record(9, "info", Some(Value::StringValue("hello".into())))]);
    let traces = traces_of(vec![span(3, vec![text("peer.service", "pay")])]);
    put("otlp_metrics", "all_kinds", &all_metrics().encode_to_vec());
    put("otlp_logs", "one", &logs.encode_to_vec());
    put("otlp_traces", "one", &traces.encode_to_vec());
    put("otlp_json", "metrics", &serde_json::to_vec(&all_metrics()).unwrap());
    put("otlp_json", "logs", &serde_json::to_vec(&logs).unwrap());
    put("otlp_json", "traces", &serde_json::to_vec(&traces).unwrap());
    put("otlp_json", "metrics.zstd", &zstd::encode_all(&serde_json::to_vec(&all_metrics()).unwrap()[..], 3).unwrap());
}
