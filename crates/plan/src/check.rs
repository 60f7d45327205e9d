//! The checker: what is wrong with a plan, apart from the planner.
//!
//! It knows nothing of playbooks, choice or expressions: it reads a finished plan as an executor would, and holds it
//! against the table of actions, the topology and what was looked at. A planner with a mistake, a plan from another
//! version, a row that somebody edited: all are found here, before anyone may approve.

use crate::Images;
use crate::actions::ActionInfo;
use crate::bind::STEPS_MAX;
use crate::expr::Val;
use crate::playbook::ParamType;
use nightshift_model::{ActionType, EntityId, EntityKind, Plan, PlanStep, Risk, Rollback};
use nightshift_topology::Topology;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;

/// Seconds that one attempt of a step may take at most.
const STEP_SECS_MAX: u32 = 3_600;
/// Seconds within which a check must have its readings at most.
const VERIFY_SECS_MAX: u32 = 7_200;
/// Seconds between two readings at most.
const INTERVAL_SECS_MAX: u32 = 30;
/// Readings in a row at most: more is a test of patience.
const READINGS_MAX: u32 = 20;
/// Longest text that a parameter may carry, in bytes.
const TEXT_BYTES_MAX: usize = 1_024;
/// Nodes that one plan may drain.
const DRAINS_MAX: usize = 1;
/// Words that no job's name may have: what is gone does not come back from a before-image.
const DELETES: &[&str] = &["delete", "destroy", "drop", "erase", "purge", "truncate", "wipe"];

/// What a plan is held against.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// What there is.
    pub topology: &'a Topology,
    /// What was looked at.
    pub images: &'a Images,
    /// The incident was made by a test injection: its targets are nowhere and nothing is carried out.
    pub synthetic: bool,
}

/// One thing that is wrong with a plan. Any finding: it may not be approved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Stable name: `seal`, `identity`, `confidence`, `steps`, `target`, `param`, `bounds`, `deletion`, `risk`,
    /// `rollback`, `expects`, `canary`, `deadline`, `verification`, `prediction`.
    pub rule: String,
    /// Which step, from 0; `None`: the plan as a whole.
    pub step: Option<u32>,
    /// What is wrong, one line.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.step {
            Some(step) => write!(f, "step {}: {}", step + 1, self.message),
            None => f.write_str(&self.message),
        }
    }
}

struct Checker<'a> {
    facts: &'a Facts<'a>,
    step: Option<u32>,
    findings: Vec<Finding>,
}

/// Lists what is wrong with a plan, in the order of its steps; empty when nothing is.
pub fn check(plan: &Plan, facts: &Facts<'_>) -> Vec<Finding> {
    let mut c = Checker { facts, step: None, findings: Vec::new() };
    c.identity(plan);
    c.causes(plan);
    c.verification(plan);
    c.steps(plan);
    for (i, step) in plan.steps.iter().take(STEPS_MAX).enumerate() {
        c.step = Some(u32::try_from(i).unwrap_or(u32::MAX));
        c.one(step);
    }
    c.findings
}

impl Checker<'_> {
    fn say(&mut self, rule: &str, message: impl Into<String>) {
        self.findings.push(Finding { rule: rule.into(), step: self.step, message: message.into() });
    }

    fn require(&mut self, holds: bool, rule: &str, message: impl Into<String>) {
        if !holds {
            self.say(rule, message);
        }
    }

    fn identity(&mut self, plan: &Plan) {
        self.require(plan.is_sealed(), "seal", "the plan is not what its hash says: it was changed after it was made");
        self.require(plan.parent != Some(plan.hash), "seal", "the plan replaces itself");
        for (name, text) in [("tenant", &plan.tenant), ("playbook", &plan.playbook), ("title", &plan.title)] {
            self.require(!text.trim().is_empty(), "identity", format!("the plan has no {name}"));
        }
        let hex = plan.playbook_digest.len() == 12 && plan.playbook_digest.bytes().all(|b| b.is_ascii_hexdigit());
        self.require(hex, "identity", "the plan does not say which text of its playbook it was made from");
        self.require(plan.rca_revision > 0, "identity", "the plan rests on no ranking of causes");
        self.require(plan.estimated_resolution_secs > 0, "deadline", "the plan does not say when it should be over");
        self.require(plan.expected_benefit.is_finite(), "confidence", "the expected benefit is no number");
        if let Some(p) = &plan.prediction {
            let fine = (0.0..=1.0).contains(&p.success_probability)
                && p.recovery_secs.is_none_or(|s| s.is_finite() && s >= 0.0)
                && p.kpi_with.is_finite()
                && p.kpi_without.is_finite();
            self.require(fine, "prediction", "the prediction holds what is no number or no probability");
        }
    }

    fn causes(&mut self, plan: &Plan) {
        self.require(!plan.covers.is_empty(), "confidence", "the plan heals no cause of the ranking");
        let sane = plan.covers.iter().all(|c| (0.0..=1.0).contains(&c.confidence));
        self.require(sane, "confidence", "the confidence of a cause is not between 0 and 1");
        let sum: f64 = plan.covers.iter().map(|c| c.confidence).sum::<f64>().clamp(0.0, 1.0);
        let same = (plan.confidence - sum).abs() <= 1e-9;
        self.require(
            same,
            "confidence",
            format!("the plan claims a confidence of {:.2}, its causes have {sum:.2}", plan.confidence),
        );
        let sorted = plan.covers.windows(2).all(|w| w[0].confidence >= w[1].confidence);
        self.require(sorted, "confidence", "the causes are not in the order of their confidence");
        let different: BTreeSet<_> = plan.covers.iter().map(|c| (&c.entity, c.fault)).collect();
        self.require(different.len() == plan.covers.len(), "confidence", "a cause is counted twice");
    }

    fn verification(&mut self, plan: &Plan) {
        let v = &plan.verification;
        self.require(!v.kpi.signal.trim().is_empty(), "verification", "nothing is read to see whether it helped");
        self.require(v.threshold.is_finite(), "verification", "the threshold is no number");
        self.require(
            (1..=READINGS_MAX).contains(&v.readings),
            "verification",
            format!("{} good readings in a row are asked for, 1 to {READINGS_MAX} make sense", v.readings),
        );
        self.require(
            v.interval_secs <= INTERVAL_SECS_MAX,
            "verification",
            format!("readings are {} s apart, at most {INTERVAL_SECS_MAX}", v.interval_secs),
        );
        let shortest = v.readings.saturating_mul(v.interval_secs).max(1);
        self.require(
            (shortest..=VERIFY_SECS_MAX).contains(&v.deadline_secs),
            "verification",
            format!("the check ends after {} s, {shortest} to {VERIFY_SECS_MAX} make sense", v.deadline_secs),
        );
        self.exists(&v.kpi.entity, "verification");
    }

    fn exists(&mut self, id: &EntityId, rule: &str) {
        if self.facts.synthetic {
            return;
        }
        if self.facts.topology.entity(id).is_none() {
            self.say(rule, format!("{id} is not in the topology"));
        } else if self.facts.topology.resolve(id) != id {
            self.say(rule, format!("{id} was joined into {}", self.facts.topology.resolve(id)));
        }
    }

    fn steps(&mut self, plan: &Plan) {
        self.require(!plan.steps.is_empty(), "steps", "the plan has no steps");
        let n = plan.steps.len();
        self.require(n <= STEPS_MAX, "steps", format!("the plan has {n} steps, at most {STEPS_MAX}"));
        let names: BTreeSet<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
        self.require(names.len() == n, "steps", "two steps have the same name: their keys would be the same");
        let acts: BTreeSet<_> = plan.steps.iter().map(|s| (s.action, &s.target)).collect();
        self.require(acts.len() == n, "steps", "the same is done to the same target twice");
        let drains = plan.steps.iter().filter(|s| s.action == ActionType::DrainNode).count();
        self.require(drains <= DRAINS_MAX, "steps", format!("{drains} nodes are drained, at most {DRAINS_MAX}"));
        let highest = plan.steps.iter().map(|s| s.risk).max();
        self.require(
            highest.is_none_or(|r| r == plan.risk),
            "risk",
            format!("the plan claims risk {}, its steps have {}", plan.risk, highest.unwrap_or(Risk::Low)),
        );
    }

    fn one(&mut self, step: &PlanStep) {
        let info = ActionInfo::of(step.action);
        let action = step.action;
        self.require(!step.name.trim().is_empty(), "steps", "the step has no name");
        self.require(!step.actuator.trim().is_empty(), "steps", "nobody is named to carry it out");
        self.require(!step.estimated_impact.trim().is_empty(), "steps", "the step does not say what people notice");
        self.exists(&step.target, "target");
        self.kind(step);
        self.require(
            (1..=STEP_SECS_MAX).contains(&step.deadline_secs),
            "deadline",
            format!("one attempt may take {} s, 1 to {STEP_SECS_MAX} make sense", step.deadline_secs),
        );
        self.require(
            step.risk >= info.risk_min,
            "risk",
            format!("risk {} of `{action}` is understated: at least {}", step.risk, info.risk_min),
        );
        match step.rollback {
            Rollback::Restore => {
                let fine = info.restorable;
                self.require(fine, "rollback", format!("a before-image does not undo `{action}`"));
            }
            Rollback::Nothing => {
                let fine = !info.restorable;
                self.require(
                    fine,
                    "rollback",
                    format!("`{action}` leaves something to take back, and nothing says how"),
                );
            }
            Rollback::Impossible => self.require(
                step.risk >= Risk::High,
                "rollback",
                format!("`{action}` cannot be taken back and claims risk {}", step.risk),
            ),
        }
        if info.changes && !info.facts.is_empty() {
            let fine = !step.expects.is_empty();
            self.require(fine, "expects", format!("`{action}` changes something and expects nothing of the world"));
        }
        self.world(step);
        if let Some(canary) = &step.canary {
            self.require(info.partial, "canary", format!("`{action}` cannot be done to a part first"));
            let share = canary.share > 0.0 && canary.share < 1.0;
            self.require(
                share,
                "canary",
                format!("the canary is {} of the target, a part is between 0 and 1", canary.share),
            );
            let watched = (1..=STEP_SECS_MAX).contains(&canary.watch_secs);
            self.require(watched, "canary", format!("the canary is looked at for {} s", canary.watch_secs));
        }
        self.params(step, &info);
        self.bounds(step);
    }

    /// What the step is done to must be a thing to which that can be done.
    fn kind(&mut self, step: &PlanStep) {
        let kind = step.target.kind();
        let fine = match step.action {
            ActionType::DrainNode | ActionType::CordonNode | ActionType::UncordonNode => {
                matches!(kind, EntityKind::Node | EntityKind::Host)
            }
            ActionType::FailoverDb => matches!(kind, EntityKind::Database | EntityKind::CloudResource),
            ActionType::ScaleDeployment | ActionType::CostScaleDown | ActionType::RollbackDeploy => {
                !matches!(kind, EntityKind::Node | EntityKind::Host | EntityKind::Topic | EntityKind::Database)
            }
            ActionType::RestartPods
            | ActionType::SetImage
            | ActionType::PauseRollout
            | ActionType::ResumeRollout
            | ActionType::DeletePod => !matches!(kind, EntityKind::Node | EntityKind::Host | EntityKind::Topic),
            _ => true,
        };
        self.require(fine, "target", format!("`{}` is nothing to do to a {}", step.action, step.target.kind_str()));
    }

    /// What the plan assumes must be what was seen.
    fn world(&mut self, step: &PlanStep) {
        let Some(image) = self.facts.images.get(&step.target) else {
            let seen = self.facts.synthetic || step.expects.is_empty();
            self.require(seen, "expects", format!("{} was not looked at", step.target.name()));
            return;
        };
        for (name, value) in &step.expects {
            if image.get(name) != Some(value) {
                self.say("expects", format!("`{name}` of {} is not what was seen", step.target.name()));
            }
        }
    }

    fn params(&mut self, step: &PlanStep, info: &ActionInfo) {
        for missing in info.params.iter().filter(|p| p.required && !step.params.contains_key(p.name)) {
            self.say("param", format!("`{}` needs `{}`", step.action, missing.name));
        }
        if step.action == ActionType::PatchResources {
            self.require(!step.params.is_empty(), "param", "the step sets nothing");
        }
        for (name, value) in &step.params {
            let Some(param) = info.param(name) else {
                self.say("param", format!("`{}` takes no `{name}`", step.action));
                continue;
            };
            if !param.kind.fits(value) {
                self.say("param", format!("`{name}` is `{value}`, expected {}", param.kind.as_str()));
                continue;
            }
            let numbers: Vec<f64> = match value {
                Value::Object(map) => map.values().filter_map(Value::as_f64).collect(),
                other => other.as_f64().into_iter().collect(),
            };
            if let Some((least, most)) = param.range {
                let fine = numbers.iter().all(|n| (least..=most).contains(n));
                self.require(fine, "bounds", format!("`{name}` is {value}, allowed are {least} to {most}"));
            }
            if param.kind == ParamType::Text {
                let text = value.as_str().unwrap_or_default();
                let fine = !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX;
                self.require(fine, "param", format!("`{name}` is empty or longer than {TEXT_BYTES_MAX} bytes"));
            }
            if param.kind == ParamType::Map {
                let sum: f64 = numbers.iter().sum();
                self.require(sum > 0.0, "bounds", format!("all of `{name}` are zero: nothing would be served"));
            }
        }
    }

    /// A fact of the target: what was looked at, else what its owner declared.
    fn fact(&self, target: &EntityId, name: &str) -> Option<Val> {
        if let Some(value) = self.facts.images.get(target).and_then(|i| i.get(name)) {
            return Val::from_json(value);
        }
        let info = self.facts.topology.entity(target)?;
        info.declared?.attributes.get(name).map(|text| Val::from_text(text))
    }

    fn number(&self, target: &EntityId, name: &str) -> Option<f64> {
        match self.fact(target, name)? {
            Val::Num(n) => Some(n),
            _ => None,
        }
    }

    /// Limits that the entity's owner set, and what makes no sense however it is bounded.
    fn bounds(&mut self, step: &PlanStep) {
        let given = |name: &str| step.params.get(name).and_then(Value::as_f64);
        let seen = |c: &Self, name: &str| c.number(&step.target, name);
        match step.action {
            ActionType::ScaleDeployment | ActionType::CostScaleDown => {
                let Some(replicas) = given("replicas") else { return };
                if let Some(least) = seen(self, "min_replicas") {
                    self.require(
                        replicas >= least,
                        "bounds",
                        format!("{replicas} replicas, at least {least} are allowed"),
                    );
                }
                if let Some(most) = seen(self, "max_replicas") {
                    self.require(
                        replicas <= most,
                        "bounds",
                        format!("{replicas} replicas, at most {most} are allowed"),
                    );
                }
                if let Some(now) = seen(self, "replicas") {
                    self.require(
                        replicas != now,
                        "param",
                        format!("{now} replicas run already: the step does nothing"),
                    );
                    let down = step.action == ActionType::CostScaleDown;
                    self.require(!down || replicas < now, "param", "`cost_scale_down` would scale up");
                }
            }
            ActionType::RollbackDeploy => {
                let to = step.params.get("version").and_then(Value::as_str);
                let runs = self.fact(&step.target, "version").map(|v| v.to_string());
                if let (Some(to), Some(runs)) = (to, runs) {
                    self.require(to != runs, "param", format!("{to} runs already: there is nothing to go back to"));
                }
            }
            ActionType::ToggleFeature => {
                let flag = step.params.get("flag").and_then(Value::as_str).unwrap_or_default();
                let now = self.fact(&step.target, &format!("flag.{flag}"));
                let to = step.params.get("enabled").and_then(Value::as_bool);
                let same = matches!((now, to), (Some(Val::Bool(now)), Some(to)) if now == to);
                self.require(!same, "param", format!("flag `{flag}` has that value already"));
            }
            ActionType::PatchResources => {
                let after = |c: &Self, name: &str| given(name).or_else(|| seen(c, name));
                let limit = after(self, "memory_limit_mib");
                for (name, what) in [("memory_request_mib", "the memory request"), ("jvm_heap_mib", "the heap")] {
                    if let (Some(part), Some(limit)) = (after(self, name), limit) {
                        let fine = part <= limit;
                        self.require(
                            fine,
                            "bounds",
                            format!("{what} of {part} MiB does not fit into the limit of {limit} MiB"),
                        );
                    }
                }
                if let (Some(to), Some(now)) = (given("disk_gib"), seen(self, "disk_gib")) {
                    self.require(to > now, "deletion", format!("a volume of {now} GiB does not shrink to {to} GiB"));
                }
            }
            ActionType::AdjustAutoscaler => {
                let (least, most) = (given("min_replicas"), given("max_replicas"));
                if let (Some(least), Some(most)) = (least.or_else(|| seen(self, "autoscaler_min")), most) {
                    self.require(least <= most, "bounds", format!("from {least} to {most} replicas is no range"));
                }
                if let (Some(most), Some(limit)) = (most, seen(self, "autoscaler_limit")) {
                    self.require(most <= limit, "bounds", format!("{most} replicas, at most {limit} are allowed"));
                }
            }
            ActionType::FailoverDb => {
                let to = step.params.get("to").and_then(Value::as_str);
                let primary = self.fact(&step.target, "primary").map(|v| v.to_string());
                if let (Some(to), Some(primary)) = (to, primary) {
                    self.require(to != primary, "param", format!("{to} is the primary already"));
                }
            }
            ActionType::RunJob => {
                let job = step.params.get("job").and_then(Value::as_str).unwrap_or_default().to_lowercase();
                let gone = DELETES.iter().find(|word| job.split(|c: char| !c.is_alphanumeric()).any(|w| w == **word));
                if let Some(word) = gone {
                    self.say("deletion", format!("job `{job}` would {word} something: only a person starts that"));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
