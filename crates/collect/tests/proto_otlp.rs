//! OTLP through both of its doors, over real connections.

#![expect(clippy::unwrap_used, reason = "a failure of the set-up fails the test")]

use nightshift_collect::Source;
use nightshift_collect::http::HttpLimits;
use nightshift_collect::otlp::{OtlpConfig, OtlpSource};
use nightshift_collect::testkit::{START, TestContext};
use nightshift_health::Health;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric, number_data_point,
};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

struct Door {
    grpc: SocketAddr,
    http: SocketAddr,
    test: Arc<TestContext>,
    running: tokio::task::JoinHandle<Result<(), nightshift_collect::SourceError>>,
}

fn settings() -> OtlpConfig {
    OtlpConfig {
        grpc_listen: "127.0.0.1:0".into(),
        http_listen: "127.0.0.1:0".into(),
        body_bytes_max: 100_000,
        decompressed_bytes_max: 200_000,
        http: HttpLimits { body_secs: 2, ..HttpLimits::default() },
        ..OtlpConfig::default()
    }
}

async fn open() -> Door {
    let mut source = OtlpSource::bind("otlp", settings()).await.unwrap();
    let address = |key| source.addresses().iter().find(|(k, _)| *k == key).unwrap().1;
    let (grpc, http) = (address("grpc_listen"), address("http_listen"));
    let test = Arc::new(TestContext::new("otlp"));
    let context = test.context.clone();
    let running = tokio::spawn(async move { source.run(&context).await });
    Door { grpc, http, test, running }
}

impl Door {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.grpc)).unwrap().connect().await.unwrap()
    }

    async fn close(self) {
        self.test.context.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> (u16, Vec<u8>) {
        // The library under test installs this too; whoever is first wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.post(format!("http://{}{path}", self.http)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    }
}

fn metrics(name: &str) -> ExportMetricsServiceRequest {
    let point = NumberDataPoint {
        time_unix_nano: START.0 as u64,
        value: Some(number_data_point::Value::AsInt(7)),
        ..NumberDataPoint::default()
    };
    let data = Some(metric::Data::Gauge(Gauge { data_points: vec![point] }));
    let metrics = vec![Metric { name: name.into(), data, ..Metric::default() }];
    let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { scope_metrics, ..ResourceMetrics::default() }],
    }
}

fn logs() -> ExportLogsServiceRequest {
    let body = Some(AnyValue { value: Some(Value::StringValue("hello".into())) });
    let log_records = vec![LogRecord { body, ..LogRecord::default() }];
    let scope_logs = vec![ScopeLogs { log_records, ..ScopeLogs::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..ResourceLogs::default() }] }
}

fn traces() -> ExportTraceServiceRequest {
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        start_time_unix_nano: START.0 as u64,
        name: "GET".into(),
        ..Span::default()
    };
    // The second one has no ids.
    let scope_spans = vec![ScopeSpans { spans: vec![span, Span::default()], ..ScopeSpans::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

#[tokio::test]
async fn all_signals_come_in_by_grpc_in_every_compression() {
    let door = open().await;
    for (i, compression) in
        [None, Some(CompressionEncoding::Gzip), Some(CompressionEncoding::Zstd)].into_iter().enumerate()
    {
        let mut client = MetricsServiceClient::new(door.channel().await);
        if let Some(compression) = compression {
            client = client.send_compressed(compression).accept_compressed(compression);
        }
        let name = format!("m{i}");
        let answer = client.export(metrics(&name)).await.unwrap().into_inner();
        assert_eq!(answer.partial_success, None);
        assert_eq!(door.test.sink.take().metrics[0].name, name);
    }
    LogsServiceClient::new(door.channel().await).export(logs()).await.unwrap();
    let answer = TraceServiceClient::new(door.channel().await).export(traces()).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 1);
    let got = door.test.sink.take();
    assert_eq!((got.logs[0].body.as_str(), got.spans[0].span.operation.as_str()), ("hello", "GET"));
    assert_eq!(door.test.health().status, Health::Healthy);
    door.close().await;
}

#[tokio::test]
async fn grpc_says_busy_too_large_and_broken() {
    let door = open().await;
    door.test.sink.set_busy(1);
    let mut client = MetricsServiceClient::new(door.channel().await);
    let busy = client.export(metrics("a")).await.unwrap_err();
    assert_eq!(busy.code(), Code::ResourceExhausted);
    assert!(busy.metadata().contains_key("grpc-retry-pushback-ms"));
    client.export(metrics("a")).await.unwrap();
    let large = client.export(metrics(&"x".repeat(150_000))).await.unwrap_err();
    assert_eq!(large.code(), Code::OutOfRange, "{large:?}");
    // Small as it comes, large when decompressed.
    let bomb = metrics(&"x".repeat(5_000_000));
    let bombed = client.send_compressed(CompressionEncoding::Gzip).export(bomb).await.unwrap_err();
    assert!(matches!(bombed.code(), Code::OutOfRange | Code::ResourceExhausted), "{bombed:?}");
    assert_eq!(door.test.sink.recorded().metrics.len(), 1);
    door.close().await;
}

#[tokio::test]
async fn http_takes_both_spellings_and_every_compression() {
    let door = open().await;
    let gzip = |bytes: &[u8]| {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    };
    let (protobuf, json) = ("application/x-protobuf", "application/json");
    let plain = metrics("m").encode_to_vec();
    let rows: [(&str, &str, Vec<u8>); 4] = [
        (protobuf, "identity", plain.clone()),
        (protobuf, "gzip", gzip(&plain)),
        (protobuf, "zstd", zstd::encode_all(&plain[..], 3).unwrap()),
        (json, "gzip", gzip(&serde_json::to_vec(&metrics("m")).unwrap())),
    ];
    for (content_type, encoding, body) in rows {
        let headers = [("content-type", content_type), ("content-encoding", encoding)];
        let (status, answer) = door.post("/v1/metrics", &headers, body).await;
        assert_eq!(status, 200, "{content_type} {encoding}");
        if content_type == protobuf {
            assert_eq!(ExportMetricsServiceResponse::decode(&answer[..]).unwrap().partial_success, None);
        }
        assert_eq!(door.test.sink.take().metrics.len(), 1, "{content_type} {encoding}");
    }
    let headers = [("content-type", protobuf)];
    assert_eq!(door.post("/v1/logs", &headers, logs().encode_to_vec()).await.0, 200);
    let (status, answer) =
        door.post("/v1/traces", &[("content-type", json)], serde_json::to_vec(&traces()).unwrap()).await;
    let text = String::from_utf8(answer).unwrap();
    assert!(status == 200 && text.contains("rejectedSpans") && text.contains('1'), "{text}");
    door.close().await;
}

/// Headers, body, status of the answer.
type Refusal<'a> = (Vec<(&'a str, &'a str)>, Vec<u8>, u16);

/// Each bad request with the answer it gets.
#[tokio::test]
async fn http_refuses_with_a_status() {
    let door = open().await;
    let protobuf = ("content-type", "application/x-protobuf");
    let bomb = zstd::encode_all(&vec![0u8; 10 << 20][..], 3).unwrap();
    let rows: Vec<Refusal<'_>> = vec![
        (vec![], vec![], 415),
        (vec![("content-type", "text/plain")], vec![], 415),
        (vec![protobuf, ("content-encoding", "br")], vec![], 415),
        (vec![protobuf], b"garbage".to_vec(), 400),
        (vec![("content-type", "application/json")], b"{".to_vec(), 400),
        (vec![protobuf, ("content-encoding", "gzip")], b"plain".to_vec(), 400),
        (vec![protobuf, ("content-encoding", "zstd")], bomb, 413),
        (vec![protobuf], vec![0; 150_000], 413),
    ];
    for (headers, body, want) in rows {
        let (status, answer) = door.post("/v1/metrics", &headers, body).await;
        assert_eq!(status, want, "{headers:?}");
        assert!(!answer.is_empty(), "an error says why");
    }
    door.test.sink.set_busy(1);
    let (status, _) = door.post("/v1/metrics", &[protobuf], metrics("a").encode_to_vec()).await;
    assert_eq!(status, 429);
    door.close().await;
}

#[tokio::test]
async fn it_starts_again_on_the_same_ports_and_a_taken_port_is_named() {
    let mut source = OtlpSource::bind("otlp", settings()).await.unwrap();
    let before = source.addresses().to_vec();
    for _ in 0..2 {
        let test = TestContext::new("otlp");
        test.context.shutdown.cancel();
        source.run(&test.context).await.unwrap();
        assert_eq!(test.health().status, Health::Healthy);
    }
    assert_eq!(source.addresses(), before);
    let held = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = OtlpConfig { http_listen: held.local_addr().unwrap().to_string(), ..settings() };
    let error = OtlpSource::bind("otlp", taken).await.unwrap_err();
    assert!(error.fatal && error.to_string().contains("http_listen"), "{error}");
}
