//! An API over the real memory store, with an estate in trouble; what lies behind other seams is as simple as can be.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file and the preview use a part of it; it is a test's")]

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::routing::post;
use http_body_util::BodyExt as _;
use nightshift_api::{
    ApiConfig, ApiParts, ApiState, AuthConfig, Automation, BreakerRow, BudgetRow, Catalogue, CollectorRow,
    CollectorsView, CommandError, CooldownRow, DeliveriesView, DeliveryRow, Exposure, FreezeRow, GuardReport,
    GuardView, IncidentCommands, InjectError, Injector, KillSwitchControl, LiveReadings, PlaybookRow, PolicyRow,
    Postmortem, Postmortems, ReplayError, ReplayView, StatusProvider, StatusReport, StreamEvent, TopologyView,
};
use nightshift_health::{Health, HealthBoard, Reporter, SelfMetrics};
use nightshift_model::journal::{EventKind, JournalDraft};
use nightshift_model::{
    Action, ActionOutcome, ActionType, Anomaly, AnomalyKind, ApprovalState, BlastRadius, Canary, Change, ChangeType,
    Clock, Compare, Contribution, Covered, Decision, Direction, EntityId, EntityMeta, EnvelopeId, Evidence,
    Explanation, FaultClass, Hypothesis, Image, Incident, IncidentId, IncidentStatus, KillSwitch, Kpi, KpiReading,
    ManualClock, OccurrenceId, Operation, PersonAction, PersonVerb, Phase, Plan, PlanStep, Prediction, Priority,
    Reason, Risk, Rollback, Severity, Timestamp, Verdict, Verification,
};
use nightshift_store::tokens::hash;
use nightshift_store::{Commit, MemoryStore, Role, Store, TokenRow};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
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
    pub(crate) desk: Arc<Desk>,
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
        let desk = Arc::new(Desk::default());
        let state = ApiState::new(ApiParts {
            tenant: TENANT.into(),
            config,
            auth: AuthConfig::default(),
            store: store.clone(),
            health: board.clone(),
            registry: Arc::new(registry),
            commands: Arc::new(Commands(store.clone(), clock.clone())),
            automation: Automation {
                kill_switch: desk.clone(),
                guard: desk.clone(),
                postmortems: desk.clone(),
                replay: desk.clone(),
                deliveries: desk.clone(),
                catalogue: desk.clone(),
                readings: desk.clone(),
            },
            injector: Arc::new(Injection),
            status: Arc::new(Fixed),
            topology: Arc::new(Fixed),
            collectors: Arc::new(Fixed),
            events: events.clone(),
            clock: clock.clone(),
        });
        Self { state, store, clock, events, board, reporters, desk }
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

    /// The incident gets a plan of this risk, and a person is asked about it.
    pub(crate) async fn ask(&self, incident: IncidentId, risk: Risk) -> Plan {
        let plan = plan(incident, risk);
        let events = vec![
            EventKind::PlanProposed {
                plan: Box::new(plan.clone()),
                alternatives: vec!["restart-checkout: 0.21 of expected benefit".into()],
                findings: vec![],
            },
            EventKind::Judged { verdict: Box::new(verdict(&plan, Decision::Ask)) },
            EventKind::StatusChanged { to: IncidentStatus::AwaitingApproval, why: "its risk asks".into() },
            EventKind::ApprovalRequested {
                plan: plan.hash,
                expires_at: NOW + Duration::from_secs(252),
                why: "its risk asks".into(),
            },
            EventKind::NodeDone {
                node: "fix_planner".into(),
                began_at: NOW - Duration::from_millis(12),
                ended_at: NOW,
                attempt: 1,
                note: "one plan of two".into(),
                seen: Default::default(),
            },
        ];
        self.journal(incident, NOW, events).await;
        plan
    }

    /// Whatever stands behind the other seams has something to say.
    pub(crate) async fn tell_all(&self, incident: IncidentId) {
        *self.desk.report.lock().unwrap() = GuardReport {
            dry_run: true,
            breakers: vec![BreakerRow {
                target: "prod/service/shop/checkout".into(),
                state: "open".into(),
                failures: 3,
                open_until: Some(NOW + Duration::from_secs(212)),
            }],
            cooldowns: vec![CooldownRow {
                target: "prod/service/shop/gateway".into(),
                until: NOW + Duration::from_secs(95),
            }],
            budgets: vec![
                BudgetRow { entity: "prod/service/shop/checkout".into(), slo: "availability".into(), left: Some(0.07) },
                BudgetRow { entity: "prod/service/shop/gateway".into(), slo: "availability".into(), left: Some(0.83) },
                BudgetRow { entity: "prod/service/shop/mail".into(), slo: "availability".into(), left: None },
            ],
            freezes: vec![FreezeRow { name: "release weekend".into(), until: Some(NOW + Duration::from_secs(7_300)) }],
        };
        let delivery = |status: &str, error: &str| DeliveryRow {
            id: format!("d-{status}"),
            notifier: "pager".into(),
            to: "https://pager.example/hook".into(),
            subject: "INC-0002: may this plan run?".into(),
            letter: "plan".into(),
            incident: Some(incident),
            status: status.into(),
            attempts: if error.is_empty() { 1 } else { 5 },
            created_at: NOW - Duration::from_secs(61),
            tried_at: Some(NOW - Duration::from_secs(60)),
            next_at: None,
            answered: Some(if error.is_empty() { 200 } else { 503 }),
            error: error.into(),
        };
        *self.desk.deliveries.lock().unwrap() = vec![delivery("SENT", ""), delivery("FAILED", "it answered 503")];
    }

    /// The plan is carried out and verified.
    pub(crate) async fn carry_out(&self, plan: &Plan) {
        let approved = EventKind::Approved { plan: plan.hash, note: String::new() };
        let draft = JournalDraft { incident: plan.incident, at: NOW, actor: "anna".into(), event: approved };
        self.store.commit(TENANT, Commit { journal: vec![draft], ..Default::default() }).await.unwrap();
        let mut events = vec![EventKind::StatusChanged { to: IncidentStatus::Remediating, why: "it may run".into() }];
        for (operation, detail) in [
            (Operation::Prepare, "version 2.8.1, 6 of 6 pods"),
            (Operation::DryRun, "the server would take it"),
            (Operation::Canary, "2 of 6 pods on 2.8.0"),
            (Operation::Apply, "6 of 6 pods on 2.8.0"),
        ] {
            events.extend(done(plan, operation, ActionOutcome::Done, detail));
        }
        let reading = |secs, value| KpiReading { at: NOW + Duration::from_secs(secs), value, good: value <= 0.26 };
        let readings = vec![reading(5, 0.41), reading(10, 0.22), reading(15, 0.2), reading(20, 0.19)];
        events.push(EventKind::Verified { plan: Some(plan.hash), readings, executed: true });
        self.journal(plan.incident, NOW + Duration::from_secs(20), events).await;
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
    async fn act(&self, action: PersonAction, role: Role) -> Result<Incident, CommandError> {
        let PersonAction { incident, actor, verb } = action;
        let known = self.0.incident(TENANT, incident).await.unwrap().ok_or(CommandError::NotFound)?;
        let asked = matches!(known.approval, Some(ApprovalState::Asked { .. }));
        if matches!(verb, PersonVerb::Approve { .. } | PersonVerb::Reject { .. }) && !asked {
            return Err(CommandError::Conflict(format!("nobody is asked about {}", known.short_id())));
        }
        // The service has the last word on roles; the API asks for no less.
        let least = match verb {
            PersonVerb::Approve { .. } | PersonVerb::Reject { .. } | PersonVerb::Override { .. } => Role::Approver,
            _ => Role::Operator,
        };
        if !role.permits(least) {
            return Err(CommandError::Forbidden(format!("this needs {least}")));
        }
        let event = match verb {
            PersonVerb::Acknowledge { note } => EventKind::Acknowledged { note },
            PersonVerb::Resolve { why } => EventKind::Resolved { why },
            PersonVerb::Approve { plan, note } => EventKind::Approved { plan, note },
            PersonVerb::Reject { plan, why } => EventKind::Rejected { plan, why, timed_out: false },
            PersonVerb::Override { plan, to, why } => EventKind::Overridden { plan, to, why, rules: vec![] },
            PersonVerb::Pause { why } => EventKind::AutomationPaused { why },
            PersonVerb::Resume { why } => EventKind::AutomationResumed { why },
            PersonVerb::TakeOver { note } => EventKind::TakenOver { note },
            PersonVerb::Feedback(feedback) => {
                let draft =
                    JournalDraft { incident, at: self.1.now(), actor, event: EventKind::FeedbackGiven { feedback } };
                self.0.commit(TENANT, Commit { journal: vec![draft], ..Default::default() }).await.unwrap();
                return Ok(self.0.incident(TENANT, incident).await.unwrap().unwrap());
            }
        };
        self.write(incident, &actor, event).await
    }
}

/// What stands behind plans, guard and telling, as simple as can be.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) kill_switch: Mutex<Option<KillSwitch>>,
    pub(crate) report: Mutex<GuardReport>,
    pub(crate) postmortem: Mutex<Option<String>>,
    pub(crate) deliveries: Mutex<Vec<DeliveryRow>>,
    pub(crate) readings: Mutex<Vec<KpiReading>>,
}

#[async_trait]
impl KillSwitchControl for Desk {
    fn state(&self) -> Option<KillSwitch> {
        self.kill_switch.lock().unwrap().clone()
    }
    async fn turn(&self, to: KillSwitch) -> Result<(), CommandError> {
        if to.why == "full disk" {
            return Err(CommandError::Unavailable("write the kill switch: the disk is full".into()));
        }
        *self.kill_switch.lock().unwrap() = Some(to);
        Ok(())
    }
}

impl GuardView for Desk {
    fn view(&self, _now: Timestamp) -> GuardReport {
        self.report.lock().unwrap().clone()
    }
}

#[async_trait]
impl Postmortems for Desk {
    async fn postmortem(&self, incident: &Incident) -> Result<Option<Postmortem>, String> {
        let text = self.postmortem.lock().unwrap().clone();
        if text.as_deref() == Some("broken") {
            return Err("the journal cannot be read".into());
        }
        Ok(text.map(|markdown| Postmortem { markdown, facts: json!({ "incident": incident.short_id() }) }))
    }
}

#[async_trait]
impl ReplayView for Desk {
    async fn replay(&self, incident: &Incident, policy: Option<&str>) -> Result<Value, ReplayError> {
        match policy {
            Some("nonsense") => Err(ReplayError::BadPolicy("line 1: expected `package`".into())),
            _ if incident.number == 3 => Err(ReplayError::Impossible("it is of a test injection".into())),
            _ => Ok(json!({ "incident": incident.short_id(), "same": policy.is_none(), "decisions": [] })),
        }
    }
}

#[async_trait]
impl DeliveriesView for Desk {
    async fn deliveries(&self, max: usize) -> Result<Vec<DeliveryRow>, String> {
        Ok(self.deliveries.lock().unwrap().iter().take(max).cloned().collect())
    }
}

impl Catalogue for Desk {
    fn playbooks(&self) -> Vec<PlaybookRow> {
        vec![PlaybookRow {
            name: "bad-deploy-rollback".into(),
            title: "Back to the version before".into(),
            faults: vec!["deployment_failure".into()],
            actions: vec!["rollback_deploy".into()],
            risk: "medium".into(),
            priority: "IMMEDIATE".into(),
            owner: "payments".into(),
            digest: "0123456789ab".into(),
            source: "playbooks/bad-deploy-rollback.yaml".into(),
            shipped: true,
        }]
    }
    fn policies(&self) -> Vec<PolicyRow> {
        vec![PolicyRow { name: "nightshift.freeze".into(), rules: vec!["deny".into()], shipped: true }]
    }
}

impl LiveReadings for Desk {
    fn readings(&self, _incident: IncidentId) -> Vec<KpiReading> {
        self.readings.lock().unwrap().clone()
    }
}

/// A plan that rolls checkout back, of this risk.
pub(crate) fn plan(incident: IncidentId, risk: Risk) -> Plan {
    let target = entity("checkout", "service");
    let image = |name: &str, value: Value| Image::from([(name.to_owned(), value)]);
    Plan {
        hash: Default::default(),
        parent: None,
        incident,
        tenant: TENANT.into(),
        rca_revision: 2,
        playbook: "bad-deploy-rollback".into(),
        playbook_digest: "0123456789ab".into(),
        title: "Roll checkout back to 2.8.0".into(),
        covers: vec![Covered { entity: target.clone(), fault: FaultClass::DeploymentFailure, confidence: 0.87 }],
        confidence: 0.87,
        steps: vec![PlanStep {
            name: "rollback".into(),
            action: ActionType::RollbackDeploy,
            target: target.clone(),
            actuator: "estate".into(),
            params: image("version", json!("2.8.0")),
            expects: image("version", json!("2.8.1")),
            risk,
            estimated_impact: "rolling restart, 40 s".into(),
            deadline_secs: 60,
            rollback: Rollback::Restore,
            canary: Some(Canary { share: 0.25, watch_secs: 15 }),
        }],
        verification: Verification {
            kpi: Kpi { entity: target, signal: "http.server.duration.p99".into(), labels: BTreeMap::new() },
            compare: Compare::Below,
            threshold: 0.26,
            readings: 3,
            interval_secs: 5,
            deadline_secs: 300,
        },
        risk,
        priority: Priority::Immediate,
        owner: "payments".into(),
        escalation_path: vec!["payments-oncall".into(), "payments-lead".into()],
        estimated_resolution_secs: 180,
        expected_benefit: 0.7,
        acts_at_once: true,
        prediction: Some(Prediction {
            success_probability: 0.93,
            recovery_secs: Some(38.0),
            kpi_with: 0.19,
            kpi_without: 2.38,
            harms: vec![],
            basis: "fitted to 40 min of 6 series, 4 % off".into(),
        }),
        made_at: NOW,
    }
    .sealed()
}

pub(crate) fn verdict(plan: &Plan, decision: Decision) -> Verdict {
    let reason = |rule: &str, decision, why: &str, overridable| Reason {
        rule: rule.into(),
        decision,
        why: why.into(),
        overridable,
    };
    Verdict {
        plan: plan.hash,
        decision,
        reasons: vec![
            reason("allow_list", Decision::Execute, "rollback deploy is allowed", false),
            reason("confidence", Decision::Execute, "0.87 is above 0.75", true),
            reason("risk", decision, &format!("its risk is {}", plan.risk), true),
        ],
        risk: plan.risk,
        dry_run: false,
        at: NOW,
        expires_at: Some(NOW + Duration::from_secs(252)),
    }
}

/// One operation of the plan's first step, from intent to its end.
pub(crate) fn done(plan: &Plan, operation: Operation, outcome: ActionOutcome, detail: &str) -> [EventKind; 2] {
    let step = &plan.steps[0];
    let action = Action {
        key: format!("{}-0-{operation}", plan.hash.short()),
        incident: plan.incident,
        plan: plan.hash,
        step: 0,
        operation,
        attempt: 1,
        action: step.action,
        target: step.target.clone(),
        actuator: step.actuator.clone(),
        params: step.params.clone(),
        before: step.expects.clone(),
        fence: 1,
        deadline: NOW + Duration::from_secs(60),
        synthetic: false,
    };
    let ended =
        EventKind::ActionEnded { key: action.key.clone(), outcome, detail: detail.into(), image: step.params.clone() };
    [EventKind::ActionIntended { action: Box::new(action) }, ended]
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
        (entity == "checkout").then(|| json!({ "id": crate::support::entity(entity, "service"), "hops": hops }))
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
