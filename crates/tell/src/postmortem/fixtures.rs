//! Incidents for tests, as journals.

use super::*;
use nightshift_model::journal::apply;
use nightshift_model::{
    Action, ActionOutcome, ActionType, Anomaly, AnomalyKind, BlastRadius, Compare, Contribution, Covered, Direction,
    EntityMeta, EventKind, Evidence, Explanation, Feedback, Hypothesis, Kpi, KpiReading, OccurrenceId, Operation,
    Phase, Plan, PlanStep, Prediction, Priority, Reason, Risk, Rollback, Verdict, Verification,
};

pub(crate) const ID: IncidentId = IncidentId(0x7);

/// 2026-11-22 03:12:00 UTC, a Sunday night.
pub(crate) fn t(secs: f64) -> Timestamp {
    let base = Timestamp::parse_rfc3339("2026-11-22T03:12:00Z").unwrap();
    Timestamp(base.0 + (secs * 1e9).round() as i64)
}

pub(crate) fn service(name: &str) -> EntityId {
    EntityId::new("sim", "service", "shop", name)
}

/// Builds the journal of an incident, a row at a time.
pub(crate) struct Book {
    pub(crate) rows: Vec<JournalEvent>,
}

impl Book {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, at: f64, actor: &str, event: EventKind) -> &mut Self {
        // Other incidents have rows between ours.
        let seq = self.rows.last().map_or(40, |r| r.seq + 1 + u64::from(r.seq % 5 == 0));
        let (tenant, actor) = ("default".into(), actor.into());
        self.rows.push(JournalEvent { tenant, seq, incident: ID, at: t(at), actor, event });
        self
    }

    pub(crate) fn incident(&self) -> Incident {
        self.rows.iter().fold(None, apply).unwrap()
    }

    pub(crate) fn opened(&mut self, a: Anomaly) -> &mut Self {
        let at = a.last_seen.since(t(0.0)).as_secs_f64() + 0.1;
        let title = format!("{} on {}", a.fault.title(), a.entity.id.name());
        let event = EventKind::Opened { number: 7, title, anomaly: Box::new(a), recurrence_of: None };
        self.add(at, "system", event)
    }

    pub(crate) fn assessed(&mut self, at: f64, affected: &[&str], impact: &str) -> &mut Self {
        let blast_radius = BlastRadius {
            affected: affected.iter().map(|n| service(n)).collect(),
            at_risk: vec![service("api-gateway")],
            estimated_user_impact: (!impact.is_empty()).then(|| impact.into()),
            criticality: "P0".into(),
        };
        let title = self.incident().title;
        let severity = Severity::Critical;
        self.add(at, "system", EventKind::Assessed { score: 0.94, severity, title, blast_radius })
    }

    pub(crate) fn proposed(&mut self, at: f64, plan: &Plan) -> &mut Self {
        let plan = Box::new(plan.clone());
        self.add(at, "system", EventKind::PlanProposed { plan, alternatives: Vec::new(), findings: Vec::new() })
    }

    pub(crate) fn judged(&mut self, at: f64, plan: &Plan, decision: Decision, rule: &str, why: &str) -> &mut Self {
        let reason = |rule: &str, decision, why: &str| Reason {
            rule: rule.into(),
            decision,
            why: why.into(),
            overridable: true,
        };
        let verdict = Verdict {
            plan: plan.hash,
            decision,
            reasons: vec![
                reason("error_budget", Decision::Execute, "62.5 % of the error budget of 30 days is left"),
                reason(rule, decision, why),
            ],
            risk: plan.risk,
            dry_run: false,
            at: t(at),
            expires_at: None,
        };
        self.add(at, "system", EventKind::Judged { verdict: Box::new(verdict) })
    }

    pub(crate) fn did(
        &mut self,
        at: f64,
        plan: &Plan,
        operation: Operation,
        outcome: ActionOutcome,
        detail: &str,
    ) -> &mut Self {
        let step = &plan.steps[0];
        let key = format!("{operation}-{}", plan.hash.short());
        let action = Action {
            key: key.clone(),
            incident: ID,
            plan: plan.hash,
            step: 0,
            operation,
            attempt: 1,
            action: step.action,
            target: step.target.clone(),
            actuator: "estate".into(),
            params: step.params.clone(),
            before: Default::default(),
            fence: 3,
            deadline: t(at + 30.0),
            synthetic: false,
        };
        self.add(at, "system", EventKind::ActionIntended { action: Box::new(action) });
        let event = EventKind::ActionEnded { key, outcome, detail: detail.into(), image: Default::default() };
        self.add(at + 0.4, "system", event)
    }

    pub(crate) fn verified(&mut self, at: f64, plan: Option<&Plan>, values: &[f64]) -> &mut Self {
        let readings = readings(at, values, true);
        let event = EventKind::Verified { plan: plan.map(|p| p.hash), readings, executed: plan.is_some() };
        self.add(at, "system", event)
    }

    pub(crate) fn resolved(&mut self, at: f64, actor: &str, why: &str) -> &mut Self {
        self.add(at, actor, EventKind::Resolved { why: why.into() })
    }
}

pub(crate) fn readings(at: f64, values: &[f64], good: bool) -> Vec<KpiReading> {
    values.iter().enumerate().map(|(i, v)| KpiReading { at: t(at - 3.0 + i as f64), value: *v, good }).collect()
}

pub(crate) fn anomaly(
    id: u128,
    name: &str,
    signal: &str,
    fault: FaultClass,
    at: f64,
    seen: f64,
    wanted: f64,
) -> Anomaly {
    let mut entity = EntityMeta::bare(service(name));
    entity.owner = "payments".into();
    Anomaly {
        id: OccurrenceId(id),
        fingerprint: id as u64,
        tenant: "default".into(),
        entity,
        kind: AnomalyKind::Statistical,
        signal: signal.into(),
        labels: Default::default(),
        onset: t(at),
        last_seen: t(at + 1.2),
        phase: Phase::Open,
        score: 0.94,
        severity: Severity::Critical,
        direction: Direction::Up,
        fault,
        description: format!("{signal} of {name} left its band"),
        explanation: Explanation { observed: Some(seen), expected: Some(wanted), ..Explanation::default() },
        source: "sim".into(),
    }
}

pub(crate) fn latency() -> Anomaly {
    anomaly(1, "payment-service", "service_latency_p99_ms", FaultClass::LatencySpike, 7.0, 7_380.4, 381.2)
}

pub(crate) fn ranked(revision: u32, name: &str, fault: FaultClass, confidence: f64) -> EventKind {
    let contribution = |factor: &str, log_odds: f64, why: &str, id: &str| Contribution {
        factor: factor.into(),
        log_odds,
        why: why.into(),
        evidence: vec![id.into()],
    };
    let a = format!("anomaly:{:032x}", 1);
    let top = Hypothesis {
        entity: Some(service(name)),
        fault,
        confidence,
        score: 3.2,
        summary: format!("{} on {name} (p99 at 7,380 ms)", fault.title()),
        contributions: vec![
            contribution("prior", -2.6, "base rate", ""),
            contribution("signal", 2.74, "p99 is 19 times what is expected", &a),
            contribution("deployment", 1.96, "version 2.4.1 was deployed 4 minutes before", "change:dep-118"),
            contribution("onset_order", -0.51, "order-service was 12 s earlier", &a),
        ],
        evidence: vec![
            Evidence { id: a.clone(), text: "p99 at 7,380 ms".into(), at: t(7.0) },
            Evidence {
                id: "change:dep-118".into(),
                text: "version 2.4.1 of payment-service, by kim".into(),
                at: t(-233.0),
            },
        ],
        signal: "service_latency_p99_ms".into(),
    };
    let other = Hypothesis {
        entity: Some(service("order-service")),
        fault: FaultClass::CascadeFailure,
        confidence: (1.0 - confidence) * 0.75,
        summary: "Cascading failure on order-service".into(),
        contributions: Vec::new(),
        evidence: Vec::new(),
        ..top.clone()
    };
    let unknown =
        Hypothesis { entity: None, fault: FaultClass::Unknown, confidence: (1.0 - confidence) * 0.25, ..other.clone() };
    EventKind::CausesRanked { revision, hypotheses: vec![top, other, unknown] }
}

pub(crate) fn plan(playbook: &str, action: ActionType, risk: Risk, confidence: f64) -> Plan {
    let target = service("payment-service");
    Plan {
        hash: PlanHash::default(),
        parent: None,
        incident: ID,
        tenant: "default".into(),
        rca_revision: 1,
        playbook: playbook.into(),
        playbook_digest: "0123456789ab".into(),
        title: format!("{} payment-service", action.as_str().replace('_', " ")),
        covers: vec![Covered { entity: target.clone(), fault: FaultClass::LatencySpike, confidence }],
        confidence,
        steps: vec![PlanStep {
            name: "first".into(),
            action,
            target: target.clone(),
            actuator: "estate".into(),
            params: [("replicas".to_owned(), 6.into())].into(),
            expects: Default::default(),
            risk,
            estimated_impact: "pods are replaced one by one, 30 s".into(),
            deadline_secs: 60,
            rollback: Rollback::Restore,
            canary: None,
        }],
        verification: Verification {
            kpi: Kpi { entity: target, signal: "service_latency_p99_ms".into(), labels: Default::default() },
            compare: Compare::Below,
            threshold: 500.0,
            readings: 3,
            interval_secs: 1,
            deadline_secs: 120,
        },
        risk,
        priority: Priority::Immediate,
        owner: "payments".into(),
        escalation_path: vec!["payments-oncall".into(), "platform-oncall".into()],
        estimated_resolution_secs: 90,
        expected_benefit: 0.7,
        acts_at_once: true,
        prediction: Some(Prediction {
            success_probability: 0.92,
            recovery_secs: Some(14.0),
            kpi_with: 390.0,
            kpi_without: 7_400.0,
            harms: Vec::new(),
            basis: "fitted to 120 samples".into(),
        }),
        made_at: t(10.0),
    }
    .sealed()
}

pub(crate) fn people() -> People {
    let r = |owner: &str| Responsible { owner: owner.into(), on_call: format!("{owner}-oncall") };
    [(service("payment-service"), r("payments")), (service("order-service"), r("commerce"))].into()
}

/// Healed by a machine that asked nobody.
pub(crate) fn fixed() -> Book {
    let mut b = Book::new();
    let p = plan("bad-deploy-rollback", ActionType::RollbackDeploy, Risk::Medium, 0.87);
    b.opened(latency());
    let joined = anomaly(2, "order-service", "service_error_rate_percent", FaultClass::ErrorRateSpike, 9.0, 12.5, 0.5);
    b.add(10.3, "system", EventKind::AnomalyJoined { anomaly: Box::new(joined), why: "order-service calls it".into() });
    b.assessed(10.4, &["order-service", "payment-service"], "30 % of payments, about 12,000 USD a minute");
    b.add(10.5, "system", ranked(1, "payment-service", FaultClass::LatencySpike, 0.872));
    b.proposed(10.6, &p).judged(10.7, &p, Decision::Execute, "risk", "medium risk may run by itself");
    b.did(10.8, &p, Operation::Prepare, ActionOutcome::Done, "");
    b.did(11.0, &p, Operation::DryRun, ActionOutcome::Done, "would go from 2.4.1 to 2.4.0");
    b.did(12.0, &p, Operation::Apply, ActionOutcome::Done, "version 2.4.0 serves");
    b.verified(20.0, Some(&p), &[402.0, 391.5, 388.25]).resolved(20.1, "system", "the KPI is back");
    b
}

pub(crate) fn approved() -> Book {
    let mut b = Book::new();
    let p = plan("pool-recycle", ActionType::RecycleConnections, Risk::High, 0.81);
    b.opened(latency()).assessed(8.4, &["payment-service"], "");
    b.add(8.5, "system", ranked(1, "payment-service", FaultClass::LatencySpike, 0.81));
    b.proposed(8.6, &p).judged(8.7, &p, Decision::Ask, "risk", "high risk asks");
    let (plan, expires_at) = (p.hash, t(308.8));
    b.add(8.8, "system", EventKind::ApprovalRequested { plan, expires_at, why: "high risk asks".into() });
    b.add(60.0, "mira", EventKind::Acknowledged { note: String::new() });
    b.add(133.8, "mira", EventKind::Approved { plan, note: "go, the bank confirms it".into() });
    b.did(134.0, &p, Operation::Apply, ActionOutcome::Done, "30 connections were opened anew");
    b.verified(140.0, Some(&p), &[400.0, 395.0, 390.0]).resolved(140.1, "system", "the KPI is back");
    b
}

pub(crate) fn rejected() -> Book {
    let mut b = Book::new();
    let p = plan("db-failover", ActionType::FailoverDb, Risk::Critical, 0.55);
    b.opened(latency()).assessed(8.4, &["payment-service"], "30 % of payments, about 12,000 USD a minute");
    b.add(8.5, "system", ranked(1, "payment-service", FaultClass::LatencySpike, 0.55));
    b.proposed(8.6, &p).judged(8.7, &p, Decision::Ask, "risk", "critical risk asks");
    let (plan, expires_at) = (p.hash, t(308.8));
    b.add(8.8, "system", EventKind::ApprovalRequested { plan, expires_at, why: "critical risk asks".into() });
    let why = "the primary is healthy. It is the bank's API | see [status](http://x)".into();
    b.add(38.8, "mira", EventKind::Rejected { plan, why, timed_out: false });
    let to = vec!["payments-oncall".into()];
    b.add(38.9, "system", EventKind::Escalated { why: "the plan was rejected".into(), to });
    b.resolved(400.0, "mira", "the bank's API is back");
    let (entity, fault) = (service("payment-service"), FaultClass::DependencyOutage);
    let feedback = Feedback::TrueCause { entity, fault, note: "the bank".into() };
    b.add(4_000.0, "mira", EventKind::FeedbackGiven { feedback });
    b
}

pub(crate) fn rolled_back() -> Book {
    let mut b = Book::new();
    let p = plan("scale-out", ActionType::ScaleDeployment, Risk::Low, 0.78);
    b.opened(latency()).assessed(8.4, &["payment-service"], "");
    b.add(8.5, "system", ranked(1, "payment-service", FaultClass::LatencySpike, 0.78));
    b.proposed(8.6, &p).judged(8.7, &p, Decision::Execute, "risk", "low risk may run by itself");
    b.did(9.0, &p, Operation::Apply, ActionOutcome::Done, "6 replicas");
    let failed = readings(130.0, &[7_210.0, 7_330.5, 7_402.0], false);
    let why = "3 good readings did not come within 120 s".to_owned();
    b.add(130.0, "system", EventKind::VerificationFailed { plan: p.hash, readings: failed, why });
    b.did(130.5, &p, Operation::Undo, ActionOutcome::Done, "3 replicas");
    let to = vec!["payments-oncall".into(), "platform-oncall".into()];
    b.add(131.0, "system", EventKind::Escalated { why: "the fix did not help and was taken back".into(), to });
    b
}

pub(crate) fn by_itself() -> Book {
    let mut b = Book::new();
    let mut a = latency();
    a.last_seen = t(58.0);
    b.opened(a).assessed(58.3, &["payment-service"], "");
    b.verified(90.0, None, &[402.0, 391.5, 388.25]).resolved(90.5, "system", "all symptoms ended");
    b
}

pub(crate) fn false_alarm() -> Book {
    let mut b = by_itself();
    let feedback = Feedback::FalsePositive { note: "monthly billing run".into() };
    b.add(9_000.0, "mira", EventKind::FeedbackGiven { feedback });
    b
}

pub(crate) fn storm() -> Book {
    let mut b = fixed();
    for i in 0..90_u32 {
        let actor = format!("person-{i}");
        b.add(300.0 + f64::from(i), &actor, EventKind::Acknowledged { note: format!("note {i}") });
    }
    b
}
