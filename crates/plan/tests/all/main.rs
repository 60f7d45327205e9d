//! The plan room from outside.

#![expect(clippy::unwrap_used, reason = "helpers of tests: what is not there is a failed test")]

mod checker;
mod choice;
mod reader;
mod shipped;

use nightshift_model::{
    Anomaly, AnomalyKind, Change, ChangeType, Compare, Direction, EntityId, EntityMeta, EnvelopeId, Explanation,
    FaultClass, Hypothesis, Image, Incident, IncidentId, IncidentStatus, OccurrenceId, Phase, Plan, Prediction,
    Severity, Timestamp,
};
use nightshift_plan::{Ask, Images, PlanConfig, Playbooks, Proposal, Stats, WhatIf, propose};
use nightshift_topology::{Topology, TopologyConfig, TopologyFile};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

const ESTATE: &str = r#"
cluster: sim
services:
  - { name: api-gateway, owner: gateway, on_call: gateway-oncall, criticality: P0, depends_on: [payment-service, order-service] }
  - name: payment-service
    owner: payments
    on_call: payments-oncall
    criticality: P0
    depends_on: [shop-db]
    runs_on: [node-1]
  - name: order-service
    owner: commerce
    criticality: P1
    attributes: { max_replicas: 6 }
    depends_on: [payment-service, { name: orders, type: messages }]
  - { name: shop-db, kind: database, owner: platform, criticality: P0 }
  - { name: orders, kind: topic, owner: platform }
  - { name: coredns, kind: workload, owner: platform }
  - { name: node-1, kind: node, owner: platform }
  - { name: status-page, owner: platform, depends_on: [status-web] }
  - { name: status-web, kind: workload, owner: platform }
"#;

pub(crate) fn id(kind: &str, name: &str) -> EntityId {
    EntityId::new("sim", kind, "", name)
}

pub(crate) fn service(name: &str) -> EntityId {
    id("service", name)
}

pub(crate) fn estate() -> Topology {
    let mut topology = Topology::new(TopologyConfig::default());
    topology.declare(&TopologyFile::parse(ESTATE, "sim").unwrap());
    topology
}

pub(crate) fn image(value: Value) -> Image {
    value.as_object().unwrap().clone().into_iter().collect()
}

/// Every fact that an actuator could read of a thing of that kind.
pub(crate) fn whole_image(entity: &EntityId) -> Image {
    image(match entity.kind_str() {
        "database" => json!({"primary": "shop-db-0", "replica": "shop-db-1", "disk_gib": 200, "pool_size": 100}),
        "node" => json!({"schedulable": true, "ready": false}),
        "topic" => json!({"partitions": 12}),
        _ => json!({
            "replicas": 3, "ready_replicas": 3, "min_replicas": 2, "max_replicas": 12, "partitions": 12,
            "version": "1.8.2", "previous_version": "1.8.1", "memory_limit_mib": 128, "memory_request_mib": 96,
            "limit_rps": null, "request_rate": 80, "pool_size": 100, "flag.fast": true,
            "weight.stable": 50, "weight.legacy": 50, "declared_weight.stable": 100, "declared_weight.legacy": 0,
            "sync_status": "out_of_sync", "revision": "drifted", "git_revision": "main", "policy": "no-latest-tag",
            "autoscaler_max": 10, "autoscaler_min": 2, "autoscaler_limit": 20, "image": "shop:1.8.2",
            "previous_image": "shop:1.8.1", "paused": false, "pod_uid": "5d5c", "stuck": true, "disk_gib": 20,
            "expandable": true, "previous_revision": "a1b2c3", "release_revision": 4, "previous_release_revision": 3,
        }),
    })
}

pub(crate) fn images(topology: &Topology) -> Images {
    topology.entities().map(|e| (e.meta.id.clone(), whole_image(&e.meta.id))).collect()
}

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_767_607_200);

pub(crate) fn before(secs: u64) -> Timestamp {
    Timestamp(NOW.0 - i64::try_from(secs).unwrap() * 1_000_000_000)
}

/// A symptom that rose from `expected` to `observed`.
pub(crate) fn symptom(entity: &EntityId, signal: &str, expected: f64, observed: f64) -> Anomaly {
    let onset = before(20);
    let fingerprint =
        Anomaly::fingerprint_of("default", entity.as_str(), AnomalyKind::Statistical, signal, &BTreeMap::new());
    Anomaly {
        id: OccurrenceId::derive(fingerprint, onset),
        fingerprint,
        tenant: "default".into(),
        entity: EntityMeta::bare(entity.clone()),
        kind: AnomalyKind::Statistical,
        signal: signal.into(),
        labels: BTreeMap::new(),
        onset,
        last_seen: before(1),
        phase: Phase::Open,
        score: 0.9,
        severity: Severity::Critical,
        direction: if observed < expected { Direction::Down } else { Direction::Up },
        fault: FaultClass::Unknown,
        description: String::new(),
        explanation: Explanation {
            observed: Some(observed),
            expected: Some(expected),
            lower: Some(expected * 0.8),
            upper: Some(expected * 1.2),
            ..Explanation::default()
        },
        source: String::new(),
    }
}

pub(crate) fn cause(entity: &EntityId, fault: FaultClass, confidence: f64) -> Hypothesis {
    Hypothesis {
        entity: Some(entity.clone()),
        fault,
        confidence,
        score: 1.0,
        summary: String::new(),
        contributions: Vec::new(),
        evidence: Vec::new(),
        signal: String::new(),
    }
}

pub(crate) fn unknown(confidence: f64) -> Hypothesis {
    Hypothesis { entity: None, ..cause(&service("x"), FaultClass::Unknown, confidence) }
}

pub(crate) fn incident(anomalies: Vec<Anomaly>, hypotheses: Vec<Hypothesis>) -> Incident {
    let first = anomalies.first().map_or(OccurrenceId(7), |a| a.id);
    Incident {
        id: IncidentId::derive("default", first),
        number: 1,
        tenant: "default".into(),
        title: String::new(),
        status: IncidentStatus::RcaComplete,
        severity: Severity::Critical,
        score: 0.9,
        onset: before(20),
        detected_at: before(18),
        updated_at: before(1),
        resolved_at: None,
        resolved_by: None,
        acknowledged_by: None,
        anomalies_total: anomalies.len() as u64,
        anomalies_open: anomalies.len() as u64,
        anomalies,
        hypotheses,
        rca_revision: 1,
        blast_radius: Default::default(),
        timeline: Vec::new(),
        merged_into: None,
        recurrence_of: None,
        synthetic: false,
        plan: None,
        plans_total: 0,
        verdict: None,
        approval: None,
        actions: Vec::new(),
        actions_total: 0,
        automation: Default::default(),
        taken_over_by: None,
        nodes: Vec::new(),
        verified_at: None,
        feedback: None,
        postmortem_at: None,
    }
}

pub(crate) fn change(entity: &EntityId, kind: ChangeType, secs_ago: u64) -> Change {
    Change {
        id: EnvelopeId::derive(&[entity.as_str().as_bytes(), &secs_ago.to_be_bytes()]),
        tenant: "default".into(),
        at: before(secs_ago),
        entity: Some(entity.clone()),
        service: String::new(),
        change_type: kind,
        version: "1.8.2".into(),
        git_sha: String::new(),
        author: "ada".into(),
        summary: String::new(),
        known_risks: Vec::new(),
        source: String::new(),
        attributes: BTreeMap::new(),
    }
}

/// A question with everything that it needs, for tests to bend.
pub(crate) struct Case {
    pub(crate) topology: Topology,
    pub(crate) images: Images,
    pub(crate) incident: Incident,
    pub(crate) changes: Vec<Change>,
    pub(crate) tried: Vec<String>,
    pub(crate) stats: Stats,
    pub(crate) config: PlanConfig,
    pub(crate) what_if: Option<Box<dyn WhatIf>>,
}

impl Case {
    pub(crate) fn new(anomalies: Vec<Anomaly>, hypotheses: Vec<Hypothesis>) -> Self {
        let topology = estate();
        Self {
            images: images(&topology),
            topology,
            incident: incident(anomalies, hypotheses),
            changes: Vec::new(),
            tried: Vec::new(),
            stats: Stats::new(),
            config: PlanConfig::default(),
            what_if: None,
        }
    }

    pub(crate) fn ask(&self) -> Ask<'_> {
        Ask {
            incident: &self.incident,
            topology: &self.topology,
            images: &self.images,
            changes: &self.changes,
            tried: &self.tried,
            parent: None,
            stats: &self.stats,
            what_if: self.what_if.as_deref(),
            config: &self.config,
            now: NOW,
        }
    }

    pub(crate) fn propose(&self) -> Proposal {
        propose(&Playbooks::shipped(), &self.ask())
    }

    pub(crate) fn plan(&self) -> Plan {
        self.propose().plan.unwrap()
    }

    pub(crate) fn findings(&self, plan: &Plan) -> Vec<nightshift_plan::Finding> {
        let facts = nightshift_plan::Facts {
            topology: &self.topology,
            images: &self.images,
            synthetic: self.incident.synthetic,
        };
        nightshift_plan::check(plan, &facts)
    }
}

/// A what-if that says what a test wants, by playbook.
pub(crate) struct Oracle(pub(crate) BTreeMap<String, (f64, f64, f64, usize)>);

impl WhatIf for Oracle {
    fn predict(&self, plan: &Plan, _: &Incident, _: &Topology, _: &Images, _: Timestamp) -> Option<Prediction> {
        let (success, with, without, harms) = *self.0.get(&plan.playbook)?;
        assert!(plan.is_sealed());
        assert_eq!(plan.verification.compare, Compare::Below);
        Some(Prediction {
            success_probability: success,
            recovery_secs: (success > 0.0).then_some(12.0),
            kpi_with: with,
            kpi_without: without,
            harms: (0..harms).map(|i| format!("harm {i}")).collect(),
            basis: "a test".into(),
        })
    }
}

#[test]
fn helpers_speak_of_the_same_time() {
    assert_eq!(NOW.since(before(20)), Duration::from_secs(20));
}
