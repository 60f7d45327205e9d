//! What a mirrored incident says, and which stay.

use super::*;
use nightshift_model::{
    BlastRadius, Decision, EntityId, FaultClass, Hypothesis, IncidentId, IncidentStatus, PlanHash, Verdict,
};
use serde_json::json;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn record(number: u64, status: IncidentStatus) -> Record {
    let text = json!({
        "id": format!("{number:032x}"), "number": number, "tenant": "default", "title": "cart: errors",
        "status": "detecting", "severity": "high", "score": 0.8, "onset": NOW, "detected_at": NOW, "updated_at": NOW,
        "resolved_at": null, "acknowledged_by": null, "anomalies": [], "anomalies_total": 7, "anomalies_open": 3,
        "hypotheses": [], "rca_revision": 0, "blast_radius": BlastRadius::default(), "timeline": [],
        "merged_into": null, "recurrence_of": null, "synthetic": false,
    });
    Record { status, ..serde_json::from_value(text).unwrap() }
}

fn plan(hash: u8) -> Plan {
    let text = json!({
        "hash": PlanHash([hash; 32]), "incident": IncidentId(7), "tenant": "default", "rca_revision": 1,
        "playbook": "rollback_deploy", "playbook_digest": "0123456789ab", "title": "roll back cart",
        "covers": [], "confidence": 0.9, "steps": [], "risk": "medium", "priority": "IMMEDIATE", "owner": "shop",
        "verification": {
            "kpi": {"entity": "main/service/shop/cart", "signal": "error_rate"}, "compare": "below",
            "threshold": 0.1, "readings": 3, "interval_secs": 1, "deadline_secs": 300,
        },
        "estimated_resolution_secs": 300, "expected_benefit": 0.5, "made_at": NOW,
    });
    serde_json::from_value(text).unwrap()
}

fn cause(confidence: f64) -> Hypothesis {
    Hypothesis {
        entity: Some(EntityId::new("main", "deployment", "shop", "cart")),
        fault: FaultClass::ALL[0],
        confidence,
        score: 1.0,
        summary: "the deployment of two minutes ago".into(),
        contributions: Vec::new(),
        evidence: Vec::new(),
        signal: String::new(),
    }
}

#[test]
fn a_bare_incident_has_no_cause_and_no_plan() {
    let mirror = incident_mirror(&record(7, IncidentStatus::Detecting));
    assert_eq!(mirror.name, "inc-0007-00000000");
    assert_eq!((mirror.spec.short_id.as_str(), mirror.spec.id.len()), ("INC-0007", 32));
    let status = serde_json::to_value(&mirror.status).unwrap();
    for absent in ["cause", "plan", "lastAction", "resolvedAt", "affected", "mergedInto"] {
        assert!(status.get(absent).is_none(), "{absent} in {status}");
    }
    assert_eq!((&status["state"], &status["severity"]), (&json!("detecting"), &json!("high")));
    assert_eq!((&status["symptomsOpen"], &status["symptomsTotal"]), (&json!(3), &json!(7)));
    assert_eq!(status["onset"], "2023-11-14T22:13:20Z");
    assert!(mirror.open);
}

#[test]
fn the_likeliest_cause_is_told_in_bounded_words() {
    let mut record = record(7, IncidentStatus::RcaComplete);
    record.hypotheses = vec![cause(0.874), cause(0.1)];
    record.hypotheses[0].summary = "ä".repeat(2_000);
    let told = incident_mirror(&record).status.cause.unwrap();
    assert_eq!(told.confidence, "87 %");
    assert_eq!(told.entity.as_deref(), Some("main/deployment/shop/cart"));
    assert_eq!(told.summary.chars().count(), LINE_CHARS_MAX);
    record.hypotheses[0].confidence = f64::NAN;
    record.score = f64::NAN;
    let status = incident_mirror(&record).status;
    assert_eq!((status.cause.unwrap().confidence.as_str(), status.score), ("unknown", None));
}

#[test]
fn only_the_first_of_many_affected_are_named_and_all_are_counted() {
    let mut record = record(7, IncidentStatus::Investigating);
    record.blast_radius.affected =
        (0..60).map(|i| EntityId::new("main", "service", "shop", &format!("s{i}"))).collect();
    let status = incident_mirror(&record).status;
    assert_eq!((status.affected.len(), status.affected_total), (50, Some(60)));
    assert_eq!(status.affected[0], "main/service/shop/s0");
}

#[test]
fn verdict_and_answer_are_those_of_the_newest_plan() {
    let mut record = record(7, IncidentStatus::AwaitingApproval);
    let verdict = |plan| Verdict {
        plan,
        decision: Decision::Ask,
        reasons: Vec::new(),
        risk: nightshift_model::Risk::Medium,
        dry_run: false,
        at: NOW,
        expires_at: None,
    };
    record.plan = Some(plan(1));
    record.verdict = Some(verdict(PlanHash([1; 32])));
    record.approval = Some(ApprovalState::Asked { plan: PlanHash([1; 32]), expires_at: NOW });
    let told = incident_mirror(&record).status.plan.unwrap();
    assert_eq!((told.verdict.as_deref(), told.approval.as_deref()), (Some("ask"), Some("asked")));
    assert_eq!((told.risk.as_str(), told.expires_at.as_deref()), ("medium", Some("2023-11-14T22:13:20Z")));
    assert_eq!(told.hash, "01".repeat(32));

    record.plan = Some(plan(2));
    let told = incident_mirror(&record).status.plan.unwrap();
    assert_eq!((told.verdict, told.approval, told.expires_at), (None, None, None), "they were about another plan");
}

#[test]
fn two_tenants_never_share_a_name() {
    let (mut a, mut b) = (record(7, IncidentStatus::Detecting), record(7, IncidentStatus::Detecting));
    a.id = IncidentId(0x1111_1111 << 96);
    b.id = IncidentId(0x2222_2222 << 96);
    assert_eq!(incident_mirror(&a).name, "inc-0007-11111111");
    assert_ne!(incident_mirror(&a).name, incident_mirror(&b).name);
}

#[test]
fn open_ones_stay_first_then_the_newest_and_old_ones_go() {
    let hour = Duration::from_secs(3_600);
    let of = |number: u64, status, hours: u32| {
        let record = Record { updated_at: NOW - hour * hours, ..record(number, status) };
        incident_mirror(&record)
    };
    let all = [
        of(1, IncidentStatus::Escalated, 1_000),
        of(2, IncidentStatus::Resolved, 1),
        of(3, IncidentStatus::Resolved, 2),
        of(4, IncidentStatus::Merged, 30),
        of(5, IncidentStatus::Detecting, 0),
    ];
    let names =
        |max, age| -> Vec<String> { kept(&all, NOW, max, age).into_iter().map(|n| n[4..8].to_owned()).collect() };
    assert_eq!(names(500, hour * 24), ["0001", "0002", "0003", "0005"]);
    assert_eq!(names(3, hour * 24), ["0001", "0002", "0005"]);
    assert_eq!(names(1, hour * 24), ["0005"]);
    assert_eq!(names(500, hour * 2), ["0001", "0002", "0005"]);
    assert_eq!(names(0, hour), [""; 0]);
}
