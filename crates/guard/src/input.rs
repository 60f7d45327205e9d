//! The one document that every policy is given: the shipped ones, your own, and an external engine.

use crate::config::GuardConfig;
use crate::facts::{Ask, TargetFacts};
use crate::glob::matches;
use crate::reach::{self, Pods, Replicas};
use crate::window::local;
use nightshift_model::{
    ActionType, EntityId, FaultClass, PlanStep, Priority, Risk, Rollback, Severity, Timestamp, time::NANOS_PER_SEC,
};
use nightshift_topology::Criticality;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a policy sees as `input`. What is absent is unknown, never zero. Grows; nothing in it is renamed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyInput {
    /// Of this form: 1.
    pub version: u32,
    /// When it is asked.
    pub time: TimeInput,
    /// The plan.
    pub plan: PlanInput,
    /// Its steps, in order, each with what is known of its target.
    pub steps: Vec<StepInput>,
    /// The incident.
    pub incident: IncidentInput,
    /// Who asks for it; absent: the machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<PersonInput>,
    /// What the configuration allows.
    pub limits: LimitsInput,
}

/// A moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TimeInput {
    /// RFC 3339, UTC.
    pub at: String,
    /// Seconds since the epoch.
    pub unix_secs: i64,
    /// `mon` … `sun`, UTC.
    pub weekday: String,
    /// 0..=23, UTC.
    pub hour: u32,
    /// 0..=59.
    pub minute: u32,
}

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanInput {
    /// SHA-256 of its content, hexadecimal.
    pub hash: String,
    /// Name of the playbook.
    pub playbook: String,
    /// One line.
    pub title: String,
    /// As judged: the plan's own, raised by what it does and to what.
    pub risk: Risk,
    /// How soon.
    pub priority: Priority,
    /// 0..=1.
    pub confidence: f64,
    /// Team that answers for it.
    pub owner: String,
    /// Seconds until it should be over.
    pub estimated_resolution_secs: u32,
    /// What a trial predicted, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<PredictionInput>,
}

/// What a trial predicted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PredictionInput {
    /// 0..=1.
    pub success_probability: f64,
    /// What got worse elsewhere.
    pub harms: Vec<String>,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StepInput {
    /// From 0.
    pub index: u32,
    /// Name within the playbook.
    pub name: String,
    /// What it does.
    pub action: ActionType,
    /// Who does it.
    pub actuator: String,
    /// How.
    pub params: BTreeMap<String, serde_json::Value>,
    /// How much can go wrong.
    pub risk: Risk,
    /// `restore`, `nothing` or `impossible`.
    pub rollback: String,
    /// Seconds that one attempt may take.
    pub deadline_secs: u32,
    /// Pods that are gone at once; absent: it takes none away by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// Replicas that it sets; absent: it sets none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// To what.
    pub target: TargetInput,
}

/// What is known of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TargetInput {
    /// Its id.
    pub id: String,
    /// First part of the id.
    pub cluster: String,
    /// `service`, `workload`, `database` …
    pub kind: String,
    /// Empty when it has none.
    pub namespace: String,
    /// What people call it.
    pub name: String,
    /// production, staging …; empty when unknown.
    pub environment: String,
    /// Production, or not known not to be.
    pub production: bool,
    /// P0 … P3; absent when nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub criticality: Option<String>,
    /// Tagged critical: rank P0 or the attribute `critical`.
    pub critical: bool,
    /// Opted in to healing by itself, by the attribute `self_heal` or the configuration.
    pub opted_in: bool,
    /// Opted out by the attribute `self_heal`.
    pub opted_out: bool,
    /// Team that answers for it; empty when unknown.
    pub owner: String,
    /// What people declare of it.
    pub attributes: BTreeMap<String, String>,
    /// What an actuator last read of it.
    pub image: BTreeMap<String, serde_json::Value>,
    /// Whether its namespace is one in which the configuration allows changes.
    pub namespace_allowed: bool,
    /// Freeze and maintenance windows that are on for it.
    pub windows: Vec<WindowInput>,
    /// Its error budget; absent: no objective is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetInput>,
    /// Seconds for which it still cools down from another plan; 0: not at all.
    pub cooldown_secs: u64,
    /// Another plan is at work on it.
    pub busy: bool,
}

/// A window that is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WindowInput {
    /// Its name.
    pub name: String,
    /// `freeze` or `maintenance`.
    pub kind: String,
}

/// An error budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BudgetInput {
    /// Share that is left, 1 at most, below 0 when it is overspent; absent when it was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<f64>,
    /// Share that the plan is estimated to spend.
    pub spend: f64,
}

/// An incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct IncidentInput {
    /// Its id.
    pub id: String,
    /// How bad.
    pub severity: Severity,
    /// 0..=1.
    pub score: f64,
    /// Made by a test injection: nothing is ever carried out.
    pub synthetic: bool,
    /// Fault classes in question, likeliest first.
    pub faults: Vec<FaultClass>,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PersonInput {
    /// Name of the token.
    pub name: String,
    /// Its role.
    pub role: crate::Role,
}

/// What the configuration allows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LimitsInput {
    /// Most replicas of anything.
    pub replicas_max: u64,
    /// Share of pods that may be gone at once.
    pub pods_share_max: f64,
    /// A plan's confidence must be above it to run by itself.
    pub confidence_min: f64,
}

/// What the guard's own state says of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TargetTimes {
    pub(crate) cooldown_secs: u64,
    pub(crate) busy: bool,
}

/// Whether an entity heals by itself because somebody said so.
pub(crate) fn opted_in(config: &GuardConfig, id: &EntityId, target: &TargetFacts) -> bool {
    match target.says(crate::facts::SELF_HEAL) {
        Some(said) => said,
        None => config.opted_in.iter().any(|p| matches(p, id.as_str()) || matches(p, &id.name())),
    }
}

/// Whether changes are allowed in the namespace of an entity.
pub(crate) fn namespace_allowed(config: &GuardConfig, id: &EntityId) -> bool {
    let namespace = id.namespace();
    let name = if namespace.is_empty() { "-" } else { &namespace };
    let fits = |list: &[String]| list.iter().any(|p| matches(p, name));
    fits(&config.limits.namespaces) && !fits(&config.limits.namespaces_denied)
}

impl PolicyInput {
    pub(crate) fn new(
        ask: &Ask<'_>,
        config: &GuardConfig,
        risk: Risk,
        times: impl Fn(&EntityId) -> TargetTimes,
        now: Timestamp,
    ) -> Self {
        let (plan, facts) = (ask.plan, ask.facts);
        let (day, minute) = local(now, 0);
        let unknown = TargetFacts::default();
        let spends = crate::budget::spend_estimate(&config.budget, plan, &facts.budgets);
        let steps = plan.steps.iter().enumerate().map(|(i, step)| {
            let known = facts.targets.get(&step.target).unwrap_or(&unknown);
            let budget = facts
                .budgets
                .get(&step.target)
                .map(|b| BudgetInput { left: b.left, spend: spends.get(&step.target).copied().unwrap_or(0.0) });
            StepInput {
                index: i as u32,
                name: step.name.clone(),
                action: step.action,
                actuator: step.actuator.clone(),
                params: step.params.clone(),
                risk: step.risk,
                rollback: rollback(step).into(),
                deadline_secs: step.deadline_secs,
                pods: reach::pods(step, known),
                replicas: reach::replicas(step, known),
                target: target(config, &step.target, known, budget, times(&step.target), now),
            }
        });
        Self {
            version: 1,
            time: TimeInput {
                at: now.to_rfc3339(),
                unix_secs: now.nanos().div_euclid(NANOS_PER_SEC),
                weekday: day.as_str().into(),
                hour: (minute / 60) as u32,
                minute: (minute % 60) as u32,
            },
            plan: PlanInput {
                hash: plan.hash.to_string(),
                playbook: plan.playbook.clone(),
                title: plan.title.clone(),
                risk,
                priority: plan.priority,
                confidence: plan.confidence,
                owner: plan.owner.clone(),
                estimated_resolution_secs: plan.estimated_resolution_secs,
                prediction: plan
                    .prediction
                    .as_ref()
                    .map(|p| PredictionInput { success_probability: p.success_probability, harms: p.harms.clone() }),
            },
            steps: steps.collect(),
            incident: IncidentInput {
                id: facts.incident.id.to_string(),
                severity: facts.incident.severity,
                score: facts.incident.score,
                synthetic: facts.incident.synthetic,
                faults: facts.incident.faults.clone(),
            },
            requester: facts.requester.as_ref().map(|p| PersonInput { name: p.name.clone(), role: p.role }),
            limits: LimitsInput {
                replicas_max: config.limits.replicas_max,
                pods_share_max: config.limits.pods_share_max,
                confidence_min: config.confidence_min,
            },
        }
    }

    /// One with everything in it: each policy is tried on it when it is compiled, and the documentation shows it.
    pub fn example() -> Self {
        let text = |t: &str| t.to_owned();
        let number = |key: &str, n: f64| BTreeMap::from([(key.to_owned(), serde_json::json!(n))]);
        Self {
            version: 1,
            time: TimeInput {
                at: text("2026-11-20T15:04:05Z"),
                unix_secs: 1_795_187_045,
                weekday: text("fri"),
                hour: 15,
                minute: 4,
            },
            plan: PlanInput {
                hash: "ab".repeat(32),
                playbook: text("rolling-restart"),
                title: text("restart checkout, a third at a time"),
                risk: Risk::Medium,
                priority: Priority::Immediate,
                confidence: 0.87,
                owner: text("payments"),
                estimated_resolution_secs: 120,
                prediction: Some(PredictionInput { success_probability: 0.9, harms: Vec::new() }),
            },
            steps: vec![StepInput {
                index: 0,
                name: text("restart"),
                action: ActionType::RestartPods,
                actuator: text("kubernetes"),
                params: number(reach::MAX_UNAVAILABLE, 0.25),
                risk: Risk::Medium,
                rollback: text("nothing"),
                deadline_secs: 60,
                pods: Some(Pods { at_once: Some(1), share: Some(0.25), of: Some(6) }),
                replicas: Some(Replicas { from: Some(6), to: Some(6), min: Some(2), max: Some(12) }),
                target: TargetInput {
                    id: text("prod/service/shop/checkout"),
                    cluster: text("prod"),
                    kind: text("service"),
                    namespace: text("shop"),
                    name: text("checkout"),
                    environment: text("production"),
                    production: true,
                    criticality: Some(text("P0")),
                    critical: true,
                    opted_in: false,
                    opted_out: false,
                    owner: text("payments"),
                    attributes: BTreeMap::from([(text("language"), text("java"))]),
                    image: number(reach::REPLICAS, 6.0),
                    namespace_allowed: true,
                    windows: vec![WindowInput { name: text("year end"), kind: text("freeze") }],
                    budget: Some(BudgetInput { left: Some(0.62), spend: 0.009 }),
                    cooldown_secs: 0,
                    busy: false,
                },
            }],
            incident: IncidentInput {
                id: "0c".repeat(16),
                severity: Severity::Critical,
                score: 0.93,
                synthetic: false,
                faults: vec![FaultClass::MemoryLeak, FaultClass::OomKill],
            },
            requester: Some(PersonInput { name: text("ada"), role: crate::Role::Approver }),
            limits: LimitsInput { replicas_max: 50, pods_share_max: 1.0 / 3.0, confidence_min: 0.75 },
        }
    }

    /// Its JSON schema, as printed by the documentation.
    pub fn schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}

const fn rollback(step: &PlanStep) -> &'static str {
    match step.rollback {
        Rollback::Restore => "restore",
        Rollback::Nothing => "nothing",
        Rollback::Impossible => "impossible",
    }
}

fn target(
    config: &GuardConfig,
    id: &EntityId,
    known: &TargetFacts,
    budget: Option<BudgetInput>,
    times: TargetTimes,
    now: Timestamp,
) -> TargetInput {
    let windows = config.windows.iter().filter(|w| w.is_on(now) && w.covers(id));
    TargetInput {
        id: id.as_str().into(),
        cluster: id.cluster(),
        kind: id.kind_str().into(),
        namespace: id.namespace(),
        name: id.name(),
        environment: known.environment.clone(),
        production: known.is_production(),
        criticality: known.criticality.map(Criticality::as_str).map(Into::into),
        critical: known.is_critical(),
        opted_in: opted_in(config, id, known),
        opted_out: known.says(crate::facts::SELF_HEAL) == Some(false),
        owner: known.owner.clone(),
        attributes: known.attributes.clone(),
        image: known.image.clone(),
        namespace_allowed: namespace_allowed(config, id),
        windows: windows.map(|w| WindowInput { name: w.name.clone(), kind: w.kind.as_str().into() }).collect(),
        budget,
        cooldown_secs: times.cooldown_secs,
        busy: times.busy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of everything that the example has, as paths; of a list, of its first.
    fn paths(value: &serde_json::Value, at: &str, out: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(map) => {
                for (key, value) in map {
                    let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    paths(value, &path, out);
                    out.push(path);
                }
            }
            serde_json::Value::Array(list) => {
                if let Some(first) = list.first() {
                    paths(first, &format!("{at}[]"), out);
                }
            }
            _ => {}
        }
    }

    /// Policies of people outside lean on these names: they are added to, never renamed or taken away.
    #[test]
    fn the_example_has_everything_and_its_names_are_kept() {
        let example = PolicyInput::example();
        let value = serde_json::to_value(&example).unwrap();
        assert_eq!(serde_json::from_value::<PolicyInput>(value.clone()).unwrap(), example);
        let mut found = Vec::new();
        paths(&value, "", &mut found);
        found.retain(|p| !p.contains(".params.") && !p.contains(".image.") && !p.contains(".attributes."));
        found.sort();
        let kept: Vec<&str> = include_str!("input.fields").lines().collect();
        assert_eq!(found, kept);
        let schema = PolicyInput::schema().to_string();
        for path in &kept {
            let last = path.rsplit('.').next().unwrap();
            assert!(schema.contains(&format!("\"{last}\"")), "{last} is not in the schema");
        }
    }
}
