use super::*;
use crate::resolve::Origin;
use crate::testkit::{RecordingBus, START};
use crate::{Attributes, LogEntry, MetricPoint, Sink, SpanEntry};
use nightshift_health::{BySourceAndReason, SelfMetrics};
use nightshift_model::batch::{BatchView, MetricColumns, labels};
use nightshift_model::{Change, ChangeType, EntityId, ManualClock, proto};

struct World {
    ingest: Arc<Ingest>,
    bus: Arc<RecordingBus>,
    clock: Arc<ManualClock>,
    metrics: SelfMetrics,
}

fn world() -> World {
    world_with(Limits::default())
}

fn world_with(limits: Limits) -> World {
    let (bus, clock, metrics) = (RecordingBus::new(), Arc::new(ManualClock::at(START)), SelfMetrics::default());
    let ingest = Ingest::new(IngestParts {
        tenant: "default".into(),
        limits,
        resolver: Arc::new(Resolver::new(ResolveConfig::default(), "web1", &[])),
        bus: bus.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    World { ingest, bus, clock, metrics }
}

/// A series of a batch: entity, labels, kind, samples.
type Seen = (String, String, SeriesKind, Vec<(Timestamp, f64)>);

impl World {
    /// Every series on the bus, in order of its labels; checks that each batch holds one shard.
    fn series(&self) -> Vec<Seen> {
        let mut out = Vec::new();
        for envelope in self.bus.envelopes("telemetry.raw") {
            let mut view = BatchView::parse(&envelope.payload).unwrap();
            let mut columns = MetricColumns::default();
            view.metrics(&mut columns).unwrap();
            assert!(columns.newest().is_none_or(|n| n == envelope.event_time));
            let mut row = 0;
            view.for_each_series(|i, wire| {
                let meta = view.entity(columns.entity[i]).unwrap();
                let shard = nightshift_model::hash::shard_of("default", &meta.id.cluster(), meta.id.as_str());
                assert_eq!(envelope.routing, Routing::Shard(shard));
                let text: Vec<_> = labels::iter(wire).map(Result::unwrap).map(|(n, v)| format!("{n}={v}")).collect();
                let n = columns.rows[i] as usize;
                let samples = (row..row + n).map(|r| (Timestamp(columns.timestamp[r]), columns.value[r])).collect();
                row += n;
                out.push((meta.id.to_string(), text.join(" "), columns.kind[i], samples));
                true
            })
            .unwrap();
        }
        out.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        out
    }

    fn lines(&self) -> Vec<(String, String)> {
        let envelopes = self.bus.envelopes("telemetry.raw");
        let all = envelopes.iter().flat_map(|e| {
            let view = BatchView::parse(&e.payload).unwrap();
            let lines: Vec<_> = view.logs().map(Result::unwrap).collect();
            lines.into_iter().map(|l| (view.entity(l.entity).unwrap().id.to_string(), l.body)).collect::<Vec<_>>()
        });
        all.collect()
    }

    fn rejected(&self, source: &'static str, reason: &'static str) -> u64 {
        let labels = BySourceAndReason { source: source.into(), reason: reason.into() };
        self.metrics.samples_rejected.get_or_create(&labels).get()
    }
}

fn resource(pairs: &[(&str, &str)]) -> Arc<Attributes> {
    Arc::new(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

fn point(resource: &Arc<Attributes>, name: &str, offset_secs: i64, value: f64) -> MetricPoint {
    MetricPoint {
        resource: resource.clone(),
        name: name.into(),
        labels: vec![("mode".into(), "idle".into())],
        kind: SeriesKind::Gauge,
        at: Timestamp(START.0 + offset_secs * 1_000_000_000),
        value,
    }
}

fn line(resource: &Arc<Attributes>, body: &str, offset_ns: i64) -> LogEntry {
    LogEntry {
        resource: resource.clone(),
        at: Timestamp(START.0 + offset_ns),
        severity: 9,
        body: body.into(),
        trace_id: None,
        span_id: None,
        stream: "app".into(),
    }
}

#[tokio::test]
async fn points_reach_the_bus_with_what_tells_their_instance_apart() {
    let w = world();
    let pod = |p| resource(&[("k8s.namespace.name", "shop"), ("k8s.deployment.name", "cart"), ("k8s.pod.name", p)]);
    let (a, b, host) = (pod("cart-a"), pod("cart-b"), resource(&[("host.name", "web1")]));
    let points = vec![point(&a, "cpu", 0, 1.0), point(&b, "cpu", 0, 2.0), point(&host, "cpu", 0, 3.0)];
    let got = w.ingest.metrics("otlp", points).await.unwrap();
    assert_eq!((got.accepted, got.rejected), (3, 0));
    let series = w.series();
    let rows: Vec<_> = series.iter().map(|(e, l, ..)| (e.as_str(), l.as_str())).collect();
    assert_eq!(
        rows,
        [
            ("local/deployment/shop/cart", "__name__=cpu mode=idle pod=cart-a"),
            ("local/deployment/shop/cart", "__name__=cpu mode=idle pod=cart-b"),
            ("local/host/-/web1", "__name__=cpu mode=idle"),
        ],
        "two pods of a workload are one entity and two series"
    );
}

/// The rule for each kind of odd sample.
#[tokio::test]
async fn odd_samples_are_counted_with_their_reason() {
    let w = world();
    let host = resource(&[("host.name", "web1")]);
    let rows = [
        (point(&host, "a", -3_601, 1.0), "too_old"),
        (point(&host, "a", 601, 1.0), "too_new"),
        (point(&host, "a", 0, f64::NAN), "nan"),
        (point(&host, "a", 0, f64::INFINITY), "infinite"),
        (point(&host, "a", 0, f64::from_bits(STALE)), "stale"),
        (point(&host, "", 0, 1.0), "no_name"),
        (MetricPoint { labels: vec![(String::new(), "x".into())], ..point(&host, "a", 0, 1.0) }, "bad_labels"),
        (MetricPoint { labels: vec![("x".into(), "y".repeat(20_000))], ..point(&host, "a", 0, 1.0) }, "label_limit"),
    ];
    let n = rows.len() as u64;
    let (points, reasons): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    let got = w.ingest.metrics("s", points).await.unwrap();
    assert_eq!((got.accepted, got.rejected), (0, n));
    for reason in reasons {
        assert_eq!(w.rejected("s", reason), 1, "{reason}");
    }
    assert!(w.bus.envelopes("telemetry.raw").is_empty(), "nothing is published for nothing");
}

#[tokio::test]
async fn samples_up_to_an_hour_old_and_out_of_order_are_taken_in_event_time() {
    let w = world();
    let host = resource(&[("host.name", "web1")]);
    let points = vec![point(&host, "a", 0, 1.0), point(&host, "a", -3_600, 2.0), point(&host, "a", -10, 3.0)];
    assert_eq!(w.ingest.metrics("s", points).await.unwrap().accepted, 3);
    let times: Vec<_> =
        w.series().into_iter().flat_map(|s| s.3).map(|(at, _)| (at.0 - START.0) / 1_000_000_000).collect();
    assert_eq!(times, [0, -3_600, -10]);
}

#[tokio::test]
async fn a_busy_bus_is_said_and_nothing_is_remembered() {
    let w = world();
    let host = resource(&[("host.name", "web1")]);
    w.bus.set_busy(1);
    let again = || vec![point(&host, "a", 0, 1.0)];
    let busy = w.ingest.metrics("s", again()).await;
    assert!(matches!(busy, Err(SinkError::Busy { retry_after }) if retry_after.as_millis() == 1_500));
    assert_eq!(w.metrics.backpressure.get_or_create(&BySource { source: "s".into() }).get(), 1);
    let got = w.ingest.metrics("s", again()).await.unwrap();
    assert_eq!((got.accepted, got.duplicates), (1, 0), "the refused call left no trace");
    let got = w.ingest.metrics("s", again()).await.unwrap();
    assert_eq!((got.accepted, got.duplicates), (0, 1), "now it is a repeated delivery");
    let other = w.ingest.metrics("t", again()).await.unwrap();
    assert_eq!(other.accepted, 1, "the window is each source's own");
}

/// Equal content makes equal envelopes, whenever and wherever it comes in.
#[tokio::test]
async fn a_retry_after_a_restart_makes_the_same_envelopes() {
    let (a, b) = (world(), world());
    b.clock.advance(Duration::from_secs(7));
    let host = resource(&[("service.name", "cart")]);
    for w in [&a, &b] {
        w.ingest.metrics("s", vec![point(&host, "a", 0, 1.0)]).await.unwrap();
    }
    let id = |w: &World| w.bus.envelopes("telemetry.raw")[0].id;
    assert_eq!(id(&a), id(&b));
}

#[tokio::test]
async fn repeated_lines_are_known_by_their_time_unless_it_is_whole_seconds() {
    let w = world();
    let host = resource(&[("host.name", "web1")]);
    for (offset_ns, want) in [(123, (1, 0)), (123, (0, 1)), (0, (1, 0)), (0, (1, 0))] {
        let got = w.ingest.logs("s", vec![line(&host, "refused", offset_ns)]).await.unwrap();
        assert_eq!((got.accepted, got.duplicates), want, "{offset_ns}");
    }
    let ids: std::collections::BTreeSet<_> = w.bus.envelopes("telemetry.raw").iter().map(|e| e.id).collect();
    assert_eq!(ids.len(), 3, "two equal lines of one second are two records");
    // Within one call equal lines are what they are.
    let both = vec![line(&host, "twice", 5), line(&host, "twice", 5)];
    assert_eq!(w.ingest.logs("s", both).await.unwrap().accepted, 2);
}

#[tokio::test]
async fn long_lines_are_cut_and_counted() {
    let w = world_with(Limits { line_bytes_max: 256, ..Limits::default() });
    let host = resource(&[]);
    let got = w.ingest.logs("s", vec![line(&host, &"é".repeat(500), 1)]).await.unwrap();
    assert_eq!((got.accepted, got.rejected, w.rejected("s", "line_cut")), (1, 0, 1));
    let lines = w.lines();
    assert_eq!((lines[0].0.as_str(), lines[0].1.len()), ("local/host/-/web1", 256));
}

#[tokio::test]
async fn large_calls_become_batches_of_at_most_512_kib() {
    let w = world();
    let host = resource(&[("host.name", "web1")]);
    let lines = (0..300).map(|i| line(&host, &format!("{i} {}", "x".repeat(10_000)), i + 1)).collect();
    assert_eq!(w.ingest.logs("s", lines).await.unwrap().accepted, 300);
    let envelopes = w.bus.envelopes("telemetry.raw");
    assert!(envelopes.len() >= 6 && envelopes.iter().all(|e| e.payload.len() <= 512 << 10), "{}", envelopes.len());
    assert_eq!(w.lines().len(), 300);
}

#[tokio::test]
async fn one_series_with_very_many_samples_is_cut_into_batches_too() {
    let w = world();
    let wire = labels::encode([("__name__", "a"), ("instance", "db1:1")]);
    let samples: Vec<_> = (0..200_000).map(|i| (Timestamp(START.0 - i * 1_000), i as f64)).collect();
    let mut writer = Writer::new(&w.ingest, "s", &Origin::OWN);
    writer.series(&wire, None, &samples);
    assert_eq!(writer.commit(What::Samples, None, false).await.unwrap().accepted, 200_000);
    let envelopes = w.bus.envelopes("telemetry.raw");
    assert!(envelopes.len() > 3 && envelopes.iter().all(|e| e.payload.len() <= 512 << 10));
    assert_eq!(w.series().iter().map(|s| s.3.len()).sum::<usize>(), 200_000);
}

#[tokio::test]
async fn spans_and_their_entity_reach_the_bus() {
    let w = world();
    let cart = resource(&[("service.name", "cart"), ("host.name", "db1")]);
    let span = |start_ns| proto::Span { start_ns, operation: "GET".into(), entity: 77, ..Default::default() };
    let spans =
        vec![SpanEntry { resource: cart.clone(), span: span(START.0) }, SpanEntry { resource: cart, span: span(0) }];
    let got = w.ingest.spans("s", spans).await.unwrap();
    assert_eq!((got.accepted, got.rejected), (1, 1));
    let envelope = &w.bus.envelopes("telemetry.raw")[0];
    let view = BatchView::parse(&envelope.payload).unwrap();
    let span = view.spans().next().unwrap().unwrap();
    assert_eq!(view.entity(span.entity).unwrap().service, "cart");
}

#[tokio::test]
async fn topology_hears_of_what_is_new_once() {
    let w = world();
    let cart = resource(&[("service.name", "cart"), ("host.name", "db1"), ("host.id", "i-1")]);
    let host = resource(&[("host.name", "db1"), ("host.id", "i-1")]);
    for offset in 0..3 {
        let points = vec![point(&cart, "a", offset, 1.0), point(&host, "a", offset, 1.0)];
        w.ingest.metrics("s", points).await.unwrap();
    }
    let told: Vec<_> =
        w.bus.envelopes("topology.observed").iter().map(|e| e.read_json::<Observation>().unwrap()).collect();
    let db = EntityId::new("local", "host", "", "db1");
    let cart = EntityId::new("local", "service", "", "cart");
    let is = |want: &dyn Fn(&Observation) -> bool| told.iter().filter(|o| want(o)).count();
    assert_eq!(is(&|o| matches!(o, Observation::Entity { entity, .. } if entity.id == cart)), 1);
    assert_eq!(is(&|o| matches!(o, Observation::Entity { entity, .. } if entity.id == db)), 1);
    assert_eq!(is(&|o| matches!(o, Observation::Edge { from, to, .. } if *from == cart && *to == db)), 1);
    assert_eq!(
        is(&|o| matches!(o, Observation::Alias { name, entity, .. } if name == "host.id=i-1" && *entity == db)),
        1
    );
    assert_eq!(told.len(), 4);
    // From now on the id alone is enough.
    let by_id = resource(&[("host.id", "i-1")]);
    w.bus.clear();
    w.ingest.metrics("s", vec![point(&by_id, "a", 9, 1.0)]).await.unwrap();
    assert_eq!(w.series()[0].0, "local/host/-/db1");
}

#[tokio::test]
async fn entities_beyond_the_limit_are_refused_and_counted() {
    let w = world_with(Limits { entities_max: 2, ..Limits::default() });
    let points = (0..4).map(|i| point(&resource(&[("host.name", &format!("h{i}"))]), "a", 0, 1.0)).collect();
    let got = w.ingest.metrics("s", points).await.unwrap();
    assert_eq!((got.accepted, got.rejected, w.rejected("s", "entity_limit")), (2, 2, 2));
}

#[tokio::test]
async fn changes_are_resolved_and_repeats_dropped() {
    let w = world();
    let change = |id, at| Change {
        id: EnvelopeId(id),
        tenant: String::new(),
        at,
        entity: None,
        service: String::new(),
        change_type: ChangeType::Deployment,
        version: "2".into(),
        git_sha: String::new(),
        author: String::new(),
        summary: String::new(),
        known_risks: Vec::new(),
        source: String::new(),
        attributes: Attributes::new(),
    };
    let cart = (*resource(&[("service.name", "cart")])).clone();
    let changes = vec![
        (cart.clone(), change(1, START)),
        (cart.clone(), change(1, START)),
        (Attributes::new(), change(2, START - Duration::from_secs(86_400))),
        (cart, change(3, START + Duration::from_secs(3_600))),
    ];
    let got = w.ingest.changes("events", changes).await.unwrap();
    assert_eq!((got.accepted, got.duplicates, got.rejected), (2, 1, 1));
    let told: Vec<Change> = w.bus.envelopes("changes.observed").iter().map(|e| e.read_json().unwrap()).collect();
    assert_eq!(told[0].entity.as_ref().unwrap().as_str(), "local/service/-/cart");
    assert_eq!((told[0].service.as_str(), told[0].tenant.as_str()), ("cart", "default"));
    assert_eq!(told[1].entity, None, "what tells of nothing is about nothing that we know");
}

#[tokio::test]
async fn clocks_of_sources_are_noted() {
    let w = world();
    let host = resource(&[("host.name", "web1")]);
    w.ingest.metrics("ahead", vec![point(&host, "a", 700, 1.0)]).await.unwrap();
    w.ingest.metrics("fine", vec![point(&host, "a", -2, 1.0)]).await.unwrap();
    let clocks = w.ingest.stats().clocks;
    let rows: Vec<_> = clocks.iter().map(|c| (c.source.as_str(), c.offset_ms)).collect();
    assert_eq!(rows, [("ahead", 700_000), ("fine", -2_000)], "also when its samples are refused for it");
}

#[tokio::test]
async fn a_dropped_request_leaves_nothing() {
    let w = world();
    let wire = labels::encode([("__name__", "a"), ("instance", "db1:1")]);
    let mut writer = Writer::new(&w.ingest, "s", &Origin::OWN);
    writer.series(&wire, None, &[(START, 1.0)]);
    drop(writer);
    let mut writer = Writer::new(&w.ingest, "s", &Origin::OWN);
    writer.series(&wire, None, &[(START, 2.0)]);
    writer.commit(What::Samples, None, false).await.unwrap();
    let series = w.series();
    assert_eq!((series.len(), series[0].3[0].1), (1, 2.0));
}

/// A batch is the same whether its series were known or not.
#[tokio::test]
async fn the_cache_changes_nothing_but_the_time_it_takes() {
    let (cold, warm) = (world(), world());
    let series: Vec<_> = (0..50)
        .map(|i| {
            labels::encode([("__name__", "a_total"), ("i", &i.to_string()), ("instance", &format!("h{}:1", i % 7))])
        })
        .collect();
    let send = async |w: &World, at: Timestamp| {
        let mut writer = Writer::new(&w.ingest, "s", &Origin::OWN);
        for s in &series {
            writer.series(s, None, &[(at, 1.0)]);
        }
        writer.commit(What::Samples, None, false).await.unwrap();
    };
    send(&warm, START - Duration::from_secs(5)).await;
    warm.bus.clear();
    assert_eq!(warm.ingest.stats().series_misses, 50);
    send(&warm, START).await;
    send(&cold, START).await;
    assert_eq!(warm.ingest.stats().series_misses, 50);
    let payloads = |w: &World| w.bus.envelopes("telemetry.raw").into_iter().map(|e| e.payload).collect::<Vec<_>>();
    assert_eq!(payloads(&warm), payloads(&cold));
    assert!(warm.series().iter().all(|s| s.2 == SeriesKind::Counter));
}

#[tokio::test]
async fn a_learned_alias_moves_series_that_are_known_already() {
    let w = world();
    let wire = labels::encode([("__name__", "a"), ("instance", "10.1.1.1:1")]);
    let send = async || {
        let mut writer = Writer::new(&w.ingest, "s", &Origin::OWN);
        writer.series(&wire, None, &[(w.clock.now(), 1.0)]);
        writer.commit(What::Samples, None, false).await.unwrap();
        w.series().last().unwrap().0.clone()
    };
    assert_eq!(send().await, "local/host/-/10.1.1.1");
    w.ingest.resolver().learn("instance=10.1.1.1", &EntityId::new("local", "host", "", "db1"));
    w.clock.advance(REFRESH);
    w.bus.clear();
    assert_eq!(send().await, "local/host/-/db1");
}
