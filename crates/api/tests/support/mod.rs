//! An API over the real memory store, with an estate in trouble; what lies behind other seams is as simple as can be.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file and the preview use a part of it; it is a test's")]

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use http_body_util::BodyExt as _;
use nightshift_api::{
    ApiConfig, ApiParts, ApiState, AuthConfig, CollectorRow, CollectorsView, CommandError, Exposure, IncidentCommands,
    InjectError, Injector, StatusProvider, StatusReport, StreamEvent, TopologyView,
};
use nightshift_health::{Health, HealthBoard, Reporter, SelfMetrics};
use nightshift_model::journal::{EventKind, JournalDraft};
use nightshift_model::{
    Anomaly, AnomalyKind, BlastRadius, Change, ChangeType, Clock, Contribution, Direction, EntityId, EntityMeta,
    EnvelopeId, Evidence, Explanation, FaultClass, Hypothesis, Incident, IncidentId, IncidentStatus, ManualClock,
    OccurrenceId, Phase, Severity, Timestamp,
};
use nightshift_store::tokens::hash;
use nightshift_store::{Commit, MemoryStore, Store, TokenRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tower::ServiceExt as _;

pub(crate) const TENANT: &str = "default";
/// 2026-03-14T03:12:00Z.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_773_457_920);

pub(crate) struct Rig {
    pub(crate) state: ApiState,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) events: broadcast::Sender<StreamEvent>,
    pub(crate) board: HealthBoard,
    pub(crate) reporters: Vec<Reporter>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |v| v.to_str().unwrap())
    }
}

/// What `collect` brings, reduced to saying that it was reached.
pub(crate) fn ingest() -> Router {
    Router::new()
        .route("/api/v1/write", post(|| async { "written" }))
        .route("/api/v1/alertmanager", post(|| async { "alerted" }))
        .route("/api/v1/events", post(|| async { "told" }))
}

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(ApiConfig::default(), 64).await
    }

    pub(crate) async fn with(config: ApiConfig, events: usize) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        let store = Arc::new(MemoryStore::new());
        let board = HealthBoard::new(clock.clone());
        let reporters: Vec<_> = ["host-collector", "anomaly-detector"].map(|n| board.reporter(n)).into();
        reporters[0].healthy("read 412 signals");
        reporters[1].healthy("scored 12,000 samples");
        for (name, role, revoked) in [
            ("vera", "viewer", false),
            ("olga", "operator", false),
            ("anna", "approver", false),
            ("adam", "admin", false),
            ("gone", "admin", true),
        ] {
            let token = TokenRow {
                name: name.into(),
                role: role.into(),
                secret_sha256: hash(&secret(name)),
                created_at: NOW,
                generated: false,
                revoked_at: None,
            };
            store.put_token(token).await.unwrap();
            if revoked {
                store.revoke_token(name, NOW).await.unwrap();
            }
        }
        let metrics = SelfMetrics::default();
        let mut registry = prometheus_client::registry::Registry::default();
        metrics.register(&mut registry);
        metrics.samples_scored.inc_by(12_000);
        let (events, _) = broadcast::channel(events);
        let state = ApiState::new(ApiParts {
            tenant: TENANT.into(),
            config,
            auth: AuthConfig::default(),
            store: store.clone(),
            health: board.clone(),
            registry: Arc::new(registry),
            commands: Arc::new(Commands(store.clone(), clock.clone())),
            injector: Arc::new(Injection),
            status: Arc::new(Fixed),
            topology: Arc::new(Fixed),
            collectors: Arc::new(Fixed),
            events: events.clone(),
            clock: clock.clone(),
        });
        Self { state, store, clock, events, board, reporters }
    }

    pub(crate) fn router(&self, exposure: Exposure) -> Router {
        nightshift_api::router(self.state.clone(), ingest(), exposure)
    }

    pub(crate) async fn send(&self, exposure: Exposure, request: Request<Body>) -> Answer {
        let response = self.router(exposure).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Exposure::Loopback, request("GET", path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn page(&self, path: &str) -> Answer {
        let request = request("GET", path).header("accept", "text/html").body(Body::empty()).unwrap();
        self.send(Exposure::Loopback, request).await
    }

    pub(crate) async fn post(&self, path: &str, who: Option<&str>, body: &str) -> Answer {
        let mut request = request("POST", path);
        if let Some(name) = who {
            request = request.header("authorization", format!("Bearer {}", secret(name)));
        }
        self.send(Exposure::Loopback, request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// Writes drafts for one incident.
    pub(crate) async fn journal(&self, incident: IncidentId, at: Timestamp, events: Vec<EventKind>) {
        let draft = |event| JournalDraft { incident, at, actor: "system".into(), event };
        let journal = events.into_iter().map(draft).collect();
        self.store.commit(TENANT, Commit { journal, ..Default::default() }).await.unwrap();
    }

    /// An incident that this anomaly opens.
    pub(crate) async fn open(&self, number: u64, title: &str, first: &Anomaly) -> IncidentId {
        let id = IncidentId::derive(TENANT, first.id);
        let opened =
            EventKind::Opened { number, title: title.into(), anomaly: Box::new(first.clone()), recurrence_of: None };
        self.journal(id, first.last_seen, vec![opened]).await;
        let commit = Commit { anomalies: vec![first.clone()], ..Default::default() };
        self.store.commit(TENANT, commit).await.unwrap();
        id
    }

    /// The estate in trouble: a bad deployment of checkout, with what followed; an older one that is over; and one
    /// of a test injection.
    pub(crate) async fn trouble(&self) -> [IncidentId; 3] {
        let mins = |m: u64| NOW - Duration::from_secs(m * 60);
        let disk = anomaly("db-1", "host", "system.filesystem.utilization", mins(300), 0.72, (0.91, 0.62, 0.60, 0.65));
        let old = self.open(1, "db-1: disk filling up", &disk).await;
        let over = Anomaly { phase: Phase::Closed, last_seen: mins(240), ..disk };
        self.journal(
            old,
            mins(240),
            vec![
                EventKind::AnomalyJoined { anomaly: Box::new(over), why: "same symptom".into() },
                EventKind::Resolved { why: "all symptoms ended".into() },
            ],
        )
        .await;

        let latency =
            anomaly("checkout", "service", "http.server.duration.p99", mins(12), 0.95, (2.41, 0.18, 0.11, 0.26));
        let id = self.open(2, "checkout: latency and errors after a deployment", &latency).await;
        let errors = anomaly("checkout", "service", "error_ratio", mins(11), 0.93, (0.087, 0.004, 0.0, 0.012));
        let upstream =
            anomaly("gateway", "service", "http.server.duration.p99", mins(10), 0.71, (2.9, 0.31, 0.2, 0.42));
        let pool =
            anomaly("orders-db", "database", "db.client.connections.usage", mins(9), 0.55, (96.0, 41.0, 30.0, 55.0));
        let mut log = anomaly("checkout", "service", "template/42", mins(11), 0.8, (61.0, 0.0, 0.0, 1.0));
        log.kind = AnomalyKind::Log;
        log.description = "new log template: payment provider timed out after {} ms".into();
        log.explanation.sample = "ERROR payment provider timed out after 2400 ms order=8821".into();
        let joined =
            |a: &Anomaly, why: &str| EventKind::AnomalyJoined { anomaly: Box::new(a.clone()), why: why.into() };
        let mut ended = pool.clone();
        ended.phase = Phase::Closed;
        ended.last_seen = mins(4);
        self.journal(
            id,
            mins(9),
            vec![
                EventKind::StatusChanged { to: IncidentStatus::Correlating, why: "second symptom".into() },
                joined(&errors, "same entity"),
                joined(&log, "same entity"),
                joined(&upstream, "depends on checkout"),
                joined(&pool, "checkout depends on it"),
                EventKind::Assessed {
                    score: 0.95,
                    severity: Severity::Critical,
                    title: "checkout: latency and errors after a deployment".into(),
                    blast_radius: BlastRadius {
                        affected: vec![latency.entity.id.clone(), upstream.entity.id.clone(), pool.entity.id.clone()],
                        at_risk: vec![entity("web-shop", "service"), entity("mobile-api", "service")],
                        estimated_user_impact: Some("30 % of payments, about 12,000 USD a minute".into()),
                        criticality: "P0".into(),
                    },
                },
                EventKind::StatusChanged { to: IncidentStatus::Investigating, why: "causes are being ranked".into() },
                EventKind::CausesRanked { revision: 2, hypotheses: causes(&latency, mins(14)) },
                EventKind::StatusChanged { to: IncidentStatus::RcaComplete, why: "causes are ranked".into() },
            ],
        )
        .await;
        self.journal(id, mins(4), vec![joined(&ended, "it is over")]).await;

        let mut made_up = anomaly("production-api", "service", "cpu_usage", mins(2), 0.97, (200.0, 50.0, 45.0, 55.0));
        made_up.entity.synthetic = true;
        let test = self.open(3, "production-api: cpu_usage far above normal", &made_up).await;
        let all = vec![errors, upstream, pool, log];
        let changes = vec![change("checkout", mins(14), "2.8.1"), change("gateway", mins(2_000), "1.0.0")];
        self.store.commit(TENANT, Commit { anomalies: all, changes, ..Default::default() }).await.unwrap();
        [old, id, test]
    }
}

pub(crate) fn secret(name: &str) -> String {
    format!("ns_secret-of-{name}")
}

pub(crate) fn request(method: &str, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "127.0.0.1:8080")
}

pub(crate) fn entity(name: &str, kind: &str) -> EntityId {
    EntityId::new("prod", kind, "shop", name)
}

/// An anomaly; `numbers`: observed, expected, lower, upper.
pub(crate) fn anomaly(
    name: &str,
    kind: &str,
    signal: &str,
    at: Timestamp,
    score: f64,
    numbers: (f64, f64, f64, f64),
) -> Anomaly {
    let id = entity(name, kind);
    let fingerprint = Anomaly::fingerprint_of(TENANT, id.as_str(), AnomalyKind::Statistical, signal, &BTreeMap::new());
    let (observed, expected, lower, upper) = numbers;
    let sigma = (observed - expected) / ((upper - lower) / 6.0);
    Anomaly {
        id: OccurrenceId::derive(fingerprint, at),
        fingerprint,
        tenant: TENANT.into(),
        entity: EntityMeta {
            service: name.into(),
            version: "2.8.1".into(),
            owner: "payments".into(),
            ..EntityMeta::bare(id)
        },
        kind: AnomalyKind::Statistical,
        signal: signal.into(),
        labels: BTreeMap::new(),
        onset: at,
        last_seen: at + Duration::from_secs(90),
        phase: Phase::Open,
        score,
        severity: Severity::from_score(score),
        direction: Direction::Up,
        fault: FaultClass::LatencySpike,
        description: format!("value {observed:.2} deviates {sigma:.1} sigma from {expected:.2}"),
        explanation: Explanation {
            observed: Some(observed),
            expected: Some(expected),
            lower: Some(lower),
            upper: Some(upper),
            sigma: Some(sigma),
            model: "forecast".into(),
            model_version: 1,
            ..Default::default()
        },
        source: "otlp".into(),
    }
}

fn change(service: &str, at: Timestamp, version: &str) -> Change {
    Change {
        id: EnvelopeId::derive(&[service.as_bytes(), version.as_bytes()]),
        tenant: TENANT.into(),
        at,
        entity: Some(entity(service, "service")),
        service: service.into(),
        change_type: ChangeType::Deployment,
        version: version.into(),
        git_sha: "9f1c2ab".into(),
        author: "mira".into(),
        summary: format!("{service} {version}"),
        known_risks: vec![],
        source: "ci".into(),
        attributes: BTreeMap::new(),
    }
}

fn causes(first: &Anomaly, deployed: Timestamp) -> Vec<Hypothesis> {
    let summand = |factor: &str, log_odds: f64, why: &str, evidence: &[&str]| Contribution {
        factor: factor.into(),
        log_odds,
        why: why.into(),
        evidence: evidence.iter().map(ToString::to_string).collect(),
    };
    let anomaly_id = format!("anomaly:{}", first.id);
    vec![
        Hypothesis {
            entity: Some(first.entity.id.clone()),
            fault: FaultClass::DeploymentFailure,
            confidence: 0.87,
            score: 3.1,
            summary: "deployment 2.8.1 of checkout, 2 minutes before the first symptom".into(),
            contributions: vec![
                summand("prior", -1.1, "one incident in four follows a deployment", &[]),
                summand("deployment", 2.6, "version 2.8.1 was rolled out 2 min before the onset", &["change:9f1c2ab"]),
                summand("onset_order", 1.2, "its first symptom is the earliest of all", &[&anomaly_id]),
                summand("upstream", -0.4, "orders-db, on which it depends, is ill too", &[]),
                summand("log", 0.8, "a log template that was never seen before", &[]),
            ],
            evidence: vec![
                Evidence { id: "change:9f1c2ab".into(), text: "checkout 2.8.1 by mira".into(), at: deployed },
                Evidence { id: anomaly_id, text: first.description.clone(), at: first.onset },
            ],
            signal: first.signal.clone(),
        },
        Hypothesis {
            entity: Some(entity("orders-db", "database")),
            fault: FaultClass::DbConnectionExhaustion,
            confidence: 0.09,
            score: 0.8,
            summary: "connections of orders-db are used up".into(),
            contributions: vec![summand("onset_order", -1.0, "its symptom came three minutes after the first", &[])],
            evidence: vec![],
            signal: "db.client.connections.usage".into(),
        },
        Hypothesis {
            entity: None,
            fault: FaultClass::Unknown,
            confidence: 0.04,
            score: 0.0,
            summary: "something that is not seen".into(),
            contributions: vec![],
            evidence: vec![],
            signal: String::new(),
        },
    ]
}

struct Commands(Arc<MemoryStore>, Arc<ManualClock>);

impl Commands {
    async fn write(&self, id: IncidentId, actor: &str, event: EventKind) -> Result<Incident, CommandError> {
        let known = self.0.incident(TENANT, id).await.unwrap().ok_or(CommandError::NotFound)?;
        if !known.status.is_open() {
            return Err(CommandError::Conflict(format!("{} is {}", known.short_id(), known.status)));
        }
        let draft = JournalDraft { incident: id, at: self.1.now(), actor: actor.into(), event };
        self.0.commit(TENANT, Commit { journal: vec![draft], ..Default::default() }).await.unwrap();
        Ok(self.0.incident(TENANT, id).await.unwrap().unwrap())
    }
}

#[async_trait]
impl IncidentCommands for Commands {
    async fn acknowledge(&self, id: IncidentId, actor: &str, note: &str) -> Result<Incident, CommandError> {
        self.write(id, actor, EventKind::Acknowledged { note: note.into() }).await
    }
    async fn resolve(&self, id: IncidentId, actor: &str, note: &str) -> Result<Incident, CommandError> {
        self.write(id, actor, EventKind::Resolved { why: note.into() }).await
    }
}

struct Injection;

#[async_trait]
impl Injector for Injection {
    fn modes(&self) -> Vec<&'static str> {
        vec!["burst", "spike", "storm"]
    }
    async fn inject(&self, mode: &str, source: &str, signal: &str) -> Result<Value, InjectError> {
        match source {
            "full" => Err(InjectError::Failed("the bus is full".into())),
            "panic" => panic!("as asked"),
            "slow" => {
                tokio::time::sleep(Duration::from_secs(3_600)).await;
                Ok(Value::Null)
            }
            "" => Err(InjectError::Bad("source is empty".into())),
            _ => Ok(json!({ "status": format!("{mode}_complete"), "events_injected": 36, "of": [source, signal] })),
        }
    }
}

struct Fixed;

impl StatusProvider for Fixed {
    fn status(&self) -> StatusReport {
        StatusReport {
            version: "0.1.0".into(),
            started_at: NOW - Duration::from_secs(7_500),
            roles: vec!["collect".into(), "detect".into()],
            listeners: [("api".to_owned(), "127.0.0.1:8080".to_owned())].into(),
            bus: "embedded".into(),
            store: "memory".into(),
            series_live: 4_123,
            lag: [("detect".to_owned(), 0)].into(),
            config_warnings: vec![],
        }
    }
}

impl TopologyView for Fixed {
    fn view(&self, entities_max: usize) -> Value {
        json!({ "entities": [], "edges": [], "max": entities_max })
    }
    fn view_of(&self, entity: &str, hops: u32) -> Option<Value> {
        (entity == "checkout").then(|| json!({ "id": entity, "hops": hops }))
    }
}

impl CollectorsView for Fixed {
    fn collectors(&self) -> Vec<CollectorRow> {
        let row = |name: &str, kind: &str, status, detail: &str, items, last| CollectorRow {
            name: name.into(),
            kind: kind.into(),
            status,
            detail: detail.into(),
            items,
            last,
        };
        vec![
            row("host", "host", Health::Healthy, "read 412 signals", 1_234_567, Some(NOW - Duration::from_secs(4))),
            row("prometheus", "scrape", Health::Degraded, "2 of 3 targets answer", 88_012, Some(NOW)),
            row("syslog", "syslog", Health::Degraded, "starting", 0, None),
        ]
    }
}
