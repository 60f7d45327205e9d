//! Invariants of ARCHITECTURE.md that no single room can show.

use nightshift::agents::{DetectAgent, DetectRooms, IncidentAgent, IncidentParts, Response};
use nightshift_bus::memory::MemoryBus;
use nightshift_bus::snapshot::MemorySnapshots;
use nightshift_bus::{Bus, DeadLetter, MemoryConfig, Outgoing, TopicSpec};
use nightshift_health::SelfMetrics;
use nightshift_model::batch::{BatchBuilder, SeriesKind, labels};
use nightshift_model::{
    Clock, EntityId, EntityMeta, Envelope, EnvelopeId, ManualClock, Routing, Timestamp, envelope, proto, topics,
};
use nightshift_store::{MemoryStore, Store};
use prost::Message as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

/// PURE-1: the manifests and sources of the pure rooms name nothing that does I/O, reads a clock or draws chance.
#[test]
fn pure_rooms_reach_for_nothing_outside() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut read = 0;
    for room in ["model", "detect", "topology", "diagnose"] {
        let manifest = std::fs::read_to_string(crates.join(room).join("Cargo.toml")).unwrap();
        let needed = manifest.split("[dev-dependencies]").next().unwrap();
        for outside in ["tokio", "reqwest", "sqlx", "axum", "rdkafka", "rand.", "rand ", "chrono/clock"] {
            assert!(!needed.lines().any(|l| l.starts_with(outside)), "{room} depends on {outside}");
        }
        let mut folders = vec![crates.join(room).join("src")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                // Tests may measure and read their corpora.
                let code = text.split("#[cfg(test)]").next().unwrap();
                let of_tests = path.file_name().is_some_and(|n| n == "tests.rs");
                read += 1;
                for outside in ["SystemTime", "Instant::now", "std::fs", "std::net", "std::process", "std::thread"] {
                    assert!(of_tests || !code.contains(outside), "{} uses {outside}", path.display());
                }
            }
        }
    }
    assert!(read > 40, "only {read} files were looked at");
}

fn raw(payload: Vec<u8>, id: u128) -> Envelope {
    Envelope {
        id: EnvelopeId(id),
        tenant: "default".into(),
        cluster: "local".into(),
        routing: Routing::Shard(0),
        traceparent: String::new(),
        event_time: NOW,
        ingest_time: NOW,
        schema: "nightshift.v1.TelemetryBatch".into(),
        payload: payload.into(),
    }
}

/// BUS-2: what cannot be read goes to dead-letter with its reason, and what comes behind it is handled.
#[test]
fn what_cannot_be_read_stops_nobody_and_is_kept() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(MemoryConfig::default()));
        let specs: Vec<TopicSpec> =
            topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect();
        bus.ensure_topics(&specs).await.unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let metrics = SelfMetrics::default();
        let newer = proto::Envelope { version: envelope::SCHEMA_VERSION + 1, id: vec![0; 16], ..Default::default() };
        let mut batch = BatchBuilder::default();
        let entity = batch.entity(&EntityMeta::bare(EntityId::new("local", "service", "", "fine")));
        batch.series(7, entity, SeriesKind::Gauge, &labels::encode([(labels::NAME, "depth")]));
        batch.sample(NOW, 1.0);
        let good = batch.finish("test");
        let records = [
            b"garbage".to_vec(),
            newer.encode_to_vec(),
            raw(vec![0x0b], 1).encode().to_vec(),
            raw(good.to_vec(), 2).encode().to_vec(),
        ];
        let records = records.map(|bytes| Outgoing { routing: Routing::Shard(0), bytes: bytes.into() });
        bus.publish(topics::TELEMETRY_RAW.name, records.to_vec()).await.unwrap();
        let rooms = DetectRooms::new(
            Default::default(),
            Default::default(),
            (Default::default(), Vec::new()),
            Default::default(),
        )
        .unwrap();
        let snapshots = Arc::new(MemorySnapshots::new());
        let every = Duration::from_secs(60);
        let mut detect =
            DetectAgent::start(bus.clone(), snapshots, clock.clone(), metrics.clone(), rooms, every).await.unwrap();
        for _ in 0..4 {
            detect.turn(Duration::ZERO).await.unwrap();
        }
        assert_eq!(metrics.samples_scored.get(), 1, "the good batch behind them is scored");

        let key = Routing::Key("default".into());
        let strange = Envelope::json(EnvelopeId(9), "default", key.clone(), "some.Thing", NOW, NOW, &1).unwrap();
        let broken =
            Envelope::json(EnvelopeId(8), "default", key.clone(), "nightshift.v1.Anomaly", NOW, NOW, &1).unwrap();
        for envelope in [strange, broken] {
            let record = Outgoing { routing: key.clone(), bytes: envelope.encode() };
            bus.publish(topics::ANOMALIES_DETECTED.name, vec![record]).await.unwrap();
        }
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (_sender, commands) = tokio::sync::mpsc::channel(1);
        let mut diagnose = IncidentAgent::start(IncidentParts {
            bus: bus.clone(),
            store,
            clock,
            counters: metrics,
            diagnose: Default::default(),
            declared: Default::default(),
            listeners: Default::default(),
            commands: Arc::new(parking_lot::Mutex::new(commands)),
            response: Response::idle(),
        })
        .await
        .unwrap();
        for _ in 0..4 {
            diagnose.turn(Duration::ZERO).await.unwrap();
        }
        let mut reasons = Vec::new();
        for partition in 0..topics::DEAD_LETTER.partitions() {
            for record in bus.fetch(topics::DEAD_LETTER.name, partition, 0, 100).await.unwrap() {
                let letter = DeadLetter::decode_payload(Envelope::decode(record.bytes).unwrap().payload).unwrap();
                assert!(!letter.record.is_empty(), "the bytes are kept");
                reasons.push(letter.reason);
            }
        }
        reasons.sort();
        assert_eq!(reasons, ["malformed", "malformed", "malformed_batch", "newer_version", "unknown_schema"]);
    });
}

/// LEASE-1: a worker with nothing to do keeps its lease, so that the first anomaly after a quiet hour is no takeover.
#[test]
fn an_idle_worker_keeps_its_lease() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(MemoryConfig::default()));
        let specs: Vec<TopicSpec> =
            topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect();
        bus.ensure_topics(&specs).await.unwrap();
        let clock = Arc::new(ManualClock::at(NOW));
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (_sender, commands) = tokio::sync::mpsc::channel(1);
        let mut agent = IncidentAgent::start(IncidentParts {
            bus,
            store: store.clone(),
            clock: clock.clone(),
            counters: SelfMetrics::default(),
            diagnose: Default::default(),
            declared: Default::default(),
            listeners: Default::default(),
            commands: Arc::new(parking_lot::Mutex::new(commands)),
            response: Response::idle(),
        })
        .await
        .unwrap();
        for _ in 0..600 {
            clock.advance(Duration::from_secs(1));
            agent.turn(Duration::ZERO).await.unwrap();
            let leases = store.documents("default", "responder.lease").await.unwrap();
            let lease: serde_json::Value = serde_json::from_slice(leases[0].body.as_ref().unwrap()).unwrap();
            let until: Timestamp = serde_json::from_value(lease["until"].clone()).unwrap();
            assert!(until > clock.now(), "the lease ran out at {until}");
            assert_eq!(lease["epoch"], 1, "it was never taken over");
        }
    });
}

/// LOAD-1: what nobody asked for is not kept, and what was asked for is published once a minute.
#[test]
fn features_are_exported_when_asked_for_and_not_hoarded() {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
        for export in [false, true] {
            let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(MemoryConfig::default()));
            let specs: Vec<TopicSpec> =
                topics::ALL.iter().map(|t| TopicSpec { name: t.name.into(), partitions: t.partitions() }).collect();
            bus.ensure_topics(&specs).await.unwrap();
            let clock = Arc::new(ManualClock::at(NOW));
            let mut rooms = DetectRooms::new(
                Default::default(),
                Default::default(),
                (Default::default(), Vec::new()),
                Default::default(),
            )
            .unwrap();
            rooms.export_features = export;
            let every = Duration::from_secs(3600);
            let snapshots = Arc::new(MemorySnapshots::new());
            let metrics = SelfMetrics::default();
            let mut detect =
                DetectAgent::start(bus.clone(), snapshots, clock.clone(), metrics, rooms, every).await.unwrap();
            for second in 0..240u32 {
                let at = NOW + Duration::from_secs(u64::from(second));
                clock.set(at);
                let mut batch = BatchBuilder::default();
                let meta = EntityMeta {
                    service: "shop".into(),
                    ..EntityMeta::bare(EntityId::new("local", "service", "", "shop"))
                };
                let entity = batch.entity(&meta);
                batch.span(&proto::Span {
                    entity,
                    start_ns: at.0,
                    duration_ns: 5_000_000,
                    kind: 2,
                    ..Default::default()
                });
                let envelope = raw(batch.finish("test").to_vec(), u128::from(second) + 100);
                let record = Outgoing { routing: Routing::Shard(0), bytes: envelope.encode() };
                bus.publish(topics::TELEMETRY_RAW.name, vec![record]).await.unwrap();
                detect.turn(Duration::ZERO).await.unwrap();
            }
            let mut rows = Vec::new();
            for partition in 0..topics::TELEMETRY_ENRICHED.partitions() {
                rows.extend(bus.fetch(topics::TELEMETRY_ENRICHED.name, partition, 0, 100).await.unwrap());
            }
            assert_eq!(rows.is_empty(), !export, "{} rows", rows.len());
            if let Some(first) = rows.first() {
                let row: serde_json::Value = Envelope::decode(first.bytes.clone()).unwrap().read_json().unwrap();
                assert_eq!((row["service"].as_str(), row["latency_mean_ms"].as_f64()), (Some("shop"), Some(5.0)));
            }
        }
    });
}

/// A keyword of a schema that the check does not know would be silently unchecked.
#[test]
fn every_keyword_of_the_settings_schema_is_checked() {
    let schema = nightshift_config::schema_of::<nightshift::settings::Settings>();
    assert_eq!(nightshift_config::unknown_keywords(&schema), Vec::<String>::new());
}
