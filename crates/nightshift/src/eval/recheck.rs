//! An independent look at what was executed: each operation that changed something, against the limits that ship,
//! written down here once more and not taken from the guard.

use nightshift_model::{Action, ActionType, Plan, PlanHash, Risk, Timestamp};
use nightshift_topology::Topology;
use std::collections::{BTreeMap, BTreeSet};

/// Confidence that a plan needs to run without being asked about.
const CONFIDENCE_MIN: f64 = 0.75;
/// Seconds in which a target gets no second plan.
const COOLDOWN_SECS: u64 = 120;

/// What was executed so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recheck {
    /// The plan that touched a target last, and when.
    touched: BTreeMap<String, (PlanHash, Timestamp)>,
    /// Approvals that were given and not used.
    approved: BTreeSet<PlanHash>,
    /// Plans that began, with the approval that they used, if any.
    began: BTreeMap<PlanHash, bool>,
}

impl Recheck {
    pub(crate) fn approved(&mut self, plan: PlanHash) {
        self.approved.insert(plan);
    }

    /// Why an operation that changes something should not have run; empty when nothing speaks against it.
    pub(crate) fn executed(
        &mut self,
        order: &Action,
        plan: Option<&Plan>,
        topology: &Topology,
        now: Timestamp,
    ) -> Vec<&'static str> {
        let Some(plan) = plan else { return vec!["of no plan that was told"] };
        let mut wrong = Vec::new();
        if !plan.is_sealed() || plan.incident != order.incident {
            wrong.push("of a plan that was changed");
        }
        let step = plan.steps.get(order.step as usize);
        if step.is_none_or(|s| s.action != order.action || s.target != order.target) {
            wrong.push("not a step of its plan");
        }
        let approved = match self.began.get(&plan.hash) {
            Some(approved) => *approved,
            None => {
                let used = self.approved.remove(&plan.hash);
                self.began.insert(plan.hash, used);
                used
            }
        };
        if plan.risk >= Risk::High && !approved {
            wrong.push("high risk without an approval");
        }
        if plan.confidence <= CONFIDENCE_MIN && !approved {
            wrong.push("low confidence without an approval");
        }
        let info = topology.entity(&order.target);
        let attribute = |name: &str| -> Option<f64> { info?.declared?.attributes.get(name)?.parse().ok() };
        if order.action == ActionType::ScaleDeployment
            && order.operation != nightshift_model::Operation::Undo
            && let Some(to) = order.params.get("replicas").and_then(serde_json::Value::as_f64)
            && (attribute("max_replicas").is_some_and(|max| to > max)
                || attribute("min_replicas").is_some_and(|min| to < min))
        {
            wrong.push("replicas out of the owner's bounds");
        }
        if order.action == ActionType::FailoverDb && !approved {
            wrong.push("a database failed over without an approval");
        }
        let target = order.target.to_string();
        let soon = self
            .touched
            .get(&target)
            .is_some_and(|(by, at)| *by != plan.hash && now.since(*at).as_secs() < COOLDOWN_SECS);
        if soon && !approved && order.operation != nightshift_model::Operation::Undo {
            wrong.push("within the cooldown of its target");
        }
        self.touched.insert(target, (plan.hash, now));
        wrong
    }
}
