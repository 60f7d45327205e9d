//! A world that counts what is done to it, and plans for it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![expect(clippy::unwrap_used, reason = "a test may panic; clippy does not see that helpers are of tests")]

use nightshift_act::{ActError, Answer, CANARY_SHARE, Declares, operation_of};
use nightshift_model::{
    Action, ActionOutcome, ActionType, Canary, Compare, EntityId, Image, IncidentId, Kpi, Operation, Plan, PlanHash,
    PlanStep, Priority, Risk, Rollback, Timestamp, Verification,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A Tuesday night.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_700_000_000);

pub(crate) fn service(name: &str) -> EntityId {
    EntityId::new("prod", "service", "shop", name)
}

pub(crate) fn image(json: Value) -> Image {
    serde_json::from_value(json).unwrap()
}

/// What an actuator may declare: all 16.
pub(crate) fn all_declares() -> impl Iterator<Item = Declares> {
    (0..16_u8).map(|bits| Declares {
        idempotent: bits & 1 > 0,
        observable: bits & 2 > 0,
        dry_run: bits & 4 > 0,
        canary: bits & 8 > 0,
    })
}

/// Targets with images, what was done to them, and by whom at the latest.
#[derive(Debug, Clone)]
pub(crate) struct Fake {
    pub(crate) declares: Declares,
    pub(crate) images: BTreeMap<EntityId, Image>,
    /// How often each key took effect.
    pub(crate) effects: BTreeMap<String, u32>,
    pub(crate) fence: u64,
    /// Orders on their way.
    pub(crate) late: Vec<(Timestamp, Action)>,
}

impl Fake {
    pub(crate) fn new(declares: Declares) -> Self {
        let start = |name| (service(name), image(json!({"replicas": 3, "version": "v12"})));
        let images = ["payment", "order"].into_iter().map(start).collect();
        Self { declares, images, effects: BTreeMap::new(), fence: 0, late: Vec::new() }
    }

    pub(crate) fn count(&self, key: &str) -> u32 {
        self.effects.get(key).copied().unwrap_or(0)
    }

    /// Whether it would take the order now.
    pub(crate) fn admits(&mut self, action: &Action, now: Timestamp) -> Result<(), ActError> {
        if action.fence < self.fence {
            return Err(ActError::Refused(format!("fence {} was seen", self.fence)));
        }
        self.fence = action.fence;
        if now >= action.deadline {
            return Err(ActError::NotDone("the deadline has passed".into()));
        }
        if action.synthetic && action.operation.changes() {
            return Err(ActError::Refused("made by a test".into()));
        }
        Ok(())
    }

    /// Does it, once where that is promised.
    pub(crate) fn effect(&mut self, action: &Action) {
        if self.declares.idempotent && self.count(&action.key) > 0 {
            return;
        }
        *self.effects.entry(action.key.clone()).or_default() += 1;
        let target = self.images.get_mut(&action.target).expect("plans name known targets");
        match action.operation {
            Operation::Canary => drop(target.insert("canary".into(), action.params[CANARY_SHARE].clone())),
            Operation::Undo => target.clone_from(&action.before),
            _ => {
                target.remove("canary");
                target.extend(action.params.clone());
            }
        }
    }

    /// Carries an order out, to its end.
    pub(crate) fn perform(&mut self, action: &Action, now: Timestamp) -> Result<Answer, ActError> {
        self.admits(action, now)?;
        let Declares { observable, dry_run, canary, .. } = self.declares;
        let known = |this: &Self| this.images.get(&action.target).cloned();
        let refused = || Err(ActError::Refused(format!("{} is not declared", action.operation)));
        let outcome = match action.operation {
            Operation::Prepare => ActionOutcome::Done,
            Operation::DryRun if !dry_run => return refused(),
            Operation::Canary if !canary => return refused(),
            Operation::Observe if !observable => return refused(),
            _ if action.action == ActionType::ManualReview => return refused(),
            Operation::DryRun => ActionOutcome::Done,
            Operation::Observe => {
                assert!(operation_of(&action.key).is_some_and(Operation::changes), "only changes are observed");
                if self.count(&action.key) > 0 { ActionOutcome::FoundDone } else { ActionOutcome::Failed }
            }
            Operation::Canary | Operation::Apply | Operation::Undo => {
                self.effect(action);
                ActionOutcome::Done
            }
        };
        let image = known(self).ok_or_else(|| ActError::Refused("no such target".into()))?;
        Ok(Answer { outcome, detail: format!("{} of {}", action.operation, action.target.name()), image })
    }

    /// What was on its way and arrives by now.
    pub(crate) fn arrive(&mut self, now: Timestamp) {
        let (due, rest) = std::mem::take(&mut self.late).into_iter().partition(|(at, _)| *at <= now);
        self.late = rest;
        for (at, action) in due {
            let due: (Timestamp, Action) = (at, action);
            if self.admits(&due.1, due.0).is_ok() {
                self.effect(&due.1);
            }
        }
    }

    /// Keys that took effect.
    pub(crate) fn done(&self) -> BTreeSet<&str> {
        self.effects.iter().filter(|(_, n)| **n > 0).map(|(key, _)| key.as_str()).collect()
    }
}

pub(crate) fn kpi() -> Kpi {
    Kpi { entity: service("payment"), signal: "latency_p99_ms".into(), labels: BTreeMap::new() }
}

pub(crate) fn step(name: &str, target: &str, params: Value, rollback: Rollback) -> PlanStep {
    PlanStep {
        name: name.into(),
        action: ActionType::ScaleDeployment,
        target: service(target),
        actuator: "fake".into(),
        params: image(params),
        expects: image(json!({"replicas": 3})),
        risk: Risk::Low,
        estimated_impact: String::new(),
        deadline_secs: 5,
        rollback,
        canary: None,
    }
}

/// Scales two services.
pub(crate) fn scale_two() -> Plan {
    plan(vec![
        step("scale payment", "payment", json!({"replicas": 5}), Rollback::Restore),
        step("scale order", "order", json!({"replicas": 4}), Rollback::Restore),
    ])
}

/// Changes one in part first, and asks a person for something at the end.
pub(crate) fn canary_then_all() -> Plan {
    let canary = Some(Canary { share: 0.25, watch_secs: 2 });
    let manual = PlanStep {
        action: ActionType::ManualReview,
        actuator: String::new(),
        ..step("look for the leak", "payment", json!({}), Rollback::Nothing)
    };
    plan(vec![
        PlanStep { canary, ..step("scale payment", "payment", json!({"replicas": 5}), Rollback::Restore) },
        manual,
    ])
}

pub(crate) fn plan(steps: Vec<PlanStep>) -> Plan {
    Plan {
        hash: PlanHash::default(),
        parent: None,
        incident: IncidentId(7),
        tenant: "default".into(),
        rca_revision: 1,
        playbook: "scale".into(),
        playbook_digest: "0123456789ab".into(),
        title: "scale it".into(),
        covers: Vec::new(),
        confidence: 0.9,
        steps,
        verification: Verification {
            kpi: kpi(),
            compare: Compare::Below,
            threshold: 400.0,
            readings: 3,
            interval_secs: 1,
            deadline_secs: 10,
        },
        risk: Risk::Low,
        priority: Priority::Immediate,
        owner: "payments".into(),
        escalation_path: Vec::new(),
        estimated_resolution_secs: 60,
        expected_benefit: 0.5,
        acts_at_once: true,
        prediction: None,
        made_at: START,
    }
    .sealed()
}
