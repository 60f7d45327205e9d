//! What the guard is told of the world: everything that a rule may look at, gathered by the caller.

use crate::budget::BudgetLeft;
use crate::external::ExternalAnswer;
use crate::reach::{MAX_REPLICAS, MIN_REPLICAS, REPLICAS};
use crate::role::Role;
use nightshift_model::{EntityId, FaultClass, Image, IncidentId, KillSwitch, Plan, Severity};
use nightshift_topology::{Criticality, EntityInfo, Topology};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is asked: may this plan run, in this world?
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The plan, sealed.
    pub plan: &'a Plan,
    /// The world as it is known.
    pub facts: &'a Facts,
}

/// The world as it is known when the guard is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The switch that stops everything, as last turned; `None`: never touched.
    pub kill_switch: Option<KillSwitch>,
    /// The incident that the plan is for.
    pub incident: IncidentFacts,
    /// What the plan checker found wrong, one line each; any of them denies.
    pub findings: Vec<String>,
    /// What is known of each target. One that is not here is unknown, and an unknown one never heals by itself.
    pub targets: BTreeMap<EntityId, TargetFacts>,
    /// Error budgets of entities that the plan touches and of those that depend on them. Absent: no objective is
    /// declared.
    pub budgets: BTreeMap<EntityId, BudgetLeft>,
    /// The person who asks for it; `None`: the machine itself.
    pub requester: Option<Person>,
    /// What an external policy engine said; `None`: it was not asked.
    pub external: Option<ExternalAnswer>,
}

/// A person with a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Name of the token.
    pub name: String,
    /// Its role.
    pub role: Role,
}

/// Who does things to an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hands {
    /// The machine may act.
    #[default]
    Machine,
    /// A person paused it.
    Paused,
    /// A person does it by hand.
    TakenOver,
}

/// What is known of the incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IncidentFacts {
    /// Which.
    pub id: IncidentId,
    /// How bad.
    pub severity: Severity,
    /// 0..=1.
    pub score: f64,
    /// Made by a test injection: nothing is ever carried out, and nothing of it counts.
    pub synthetic: bool,
    /// Who does things to it.
    pub hands: Hands,
    /// Fault classes of the causes that are in question, likeliest first.
    pub faults: Vec<FaultClass>,
}

impl Default for IncidentFacts {
    fn default() -> Self {
        Self {
            id: IncidentId(0),
            severity: Severity::Low,
            score: 0.0,
            synthetic: false,
            hands: Hands::Machine,
            faults: Vec::new(),
        }
    }
}

/// What is known of a target. Unknown is not the same as none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// How much depends on it.
    pub criticality: Option<Criticality>,
    /// production, staging …; empty when unknown.
    pub environment: String,
    /// Team that answers for it; empty when unknown.
    pub owner: String,
    /// What people declare of it.
    pub attributes: BTreeMap<String, String>,
    /// Replicas that it has.
    pub replicas: Option<u64>,
    /// Fewest replicas that it may have.
    pub replicas_min: Option<u64>,
    /// Most replicas that it may have.
    pub replicas_max: Option<u64>,
    /// What an actuator last read of it.
    pub image: Image,
}

/// Attribute of an entity that opts it in (`true`) or out (`false`) of healing by itself.
pub const SELF_HEAL: &str = "self_heal";
/// Attribute of an entity that tags it critical (`true`) whatever its rank.
pub const CRITICAL: &str = "critical";

impl TargetFacts {
    /// What topology knows of an entity, with what an actuator read of it. Bounds of replicas are facts of the image
    /// (`min_replicas`, `max_replicas`), else attributes of the same names.
    pub fn of(info: Option<EntityInfo<'_>>, image: &Image) -> Self {
        let mut out = Self { image: image.clone(), ..Self::default() };
        if let Some(info) = info {
            out.environment.clone_from(&info.meta.environment);
            out.owner.clone_from(&info.meta.owner);
            if let Some(spec) = info.declared {
                out.criticality = spec.criticality;
                out.attributes.clone_from(&spec.attributes);
                for (own, declared) in [(&mut out.environment, &spec.environment), (&mut out.owner, &spec.owner)] {
                    if !declared.is_empty() {
                        own.clone_from(declared);
                    }
                }
            }
        }
        let number = |key: &str| {
            let read = image.get(key).and_then(whole);
            read.or_else(|| out.attributes.get(key).and_then(|t| t.trim().parse().ok()))
        };
        (out.replicas, out.replicas_min, out.replicas_max) =
            (number(REPLICAS), number(MIN_REPLICAS), number(MAX_REPLICAS));
        out
    }

    /// Whether it is tagged critical: rank P0, or the attribute.
    pub fn is_critical(&self) -> bool {
        self.criticality == Some(Criticality::P0) || self.says(CRITICAL) == Some(true)
    }

    /// What an attribute says; `None` when it is absent or neither `true` nor `false`.
    pub fn says(&self, attribute: &str) -> Option<bool> {
        self.attributes.get(attribute).and_then(|v| v.trim().to_ascii_lowercase().parse().ok())
    }

    /// Whether it is production, or may be: an unknown environment counts as production.
    pub fn is_production(&self) -> bool {
        let env = self.environment.to_ascii_lowercase();
        env.is_empty() || env.starts_with("prod") || env == "live"
    }
}

/// A number without fraction, of any JSON form.
pub(crate) fn whole(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let f = value.as_f64()?;
        ((0.0..=9e15).contains(&f) && f.fract() == 0.0).then_some(f as u64)
    })
}

impl Facts {
    /// The targets of a plan as topology knows them, with the images that were read of them.
    pub fn of_targets(
        plan: &Plan,
        topology: &Topology,
        images: &BTreeMap<EntityId, Image>,
    ) -> BTreeMap<EntityId, TargetFacts> {
        let none = Image::new();
        let mut out = BTreeMap::new();
        for step in &plan.steps {
            let id = topology.resolve(&step.target);
            let image = images.get(&step.target).or_else(|| images.get(id)).unwrap_or(&none);
            out.entry(step.target.clone()).or_insert_with(|| TargetFacts::of(topology.entity(id), image));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nightshift_model::{EntityMeta, Observation, Timestamp};
    use nightshift_topology::TopologyConfig;
    use serde_json::json;

    #[test]
    fn targets_are_what_topology_and_the_image_say() {
        let id = EntityId::new("prod", "service", "shop", "cart");
        let mut topology = Topology::new(TopologyConfig::default());
        let meta =
            EntityMeta { environment: "production".into(), owner: "shop".into(), ..EntityMeta::bare(id.clone()) };
        topology.apply(&Observation::Entity { entity: meta, at: Timestamp(1) }, Timestamp(1));
        let image = |v: serde_json::Value| -> Image { v.as_object().unwrap().clone().into_iter().collect() };
        let read = image(json!({"replicas": 4, "min_replicas": 2.0, "max_replicas": "many"}));
        let target = TargetFacts::of(topology.entity(&id), &read);
        assert_eq!((target.environment.as_str(), target.owner.as_str()), ("production", "shop"));
        assert_eq!((target.replicas, target.replicas_min, target.replicas_max), (Some(4), Some(2), None));
        assert!(!target.is_critical());
        let unknown = TargetFacts::of(None, &Image::new());
        assert_eq!(unknown, TargetFacts::default());
        assert!(unknown.is_production(), "what is not known is not known not to be");
    }

    #[test]
    fn environments_and_tags() {
        for (environment, production) in [
            ("production", true),
            ("Prod-EU", true),
            ("live", true),
            ("", true),
            ("staging", false),
            ("preprod", false),
        ] {
            let target = TargetFacts { environment: environment.into(), ..TargetFacts::default() };
            assert_eq!(target.is_production(), production, "{environment}");
        }
        let tagged = |key: &str, value: &str| TargetFacts {
            attributes: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..TargetFacts::default()
        };
        assert!(tagged(CRITICAL, "True").is_critical() && !tagged(CRITICAL, "yes").is_critical());
        assert_eq!(tagged(SELF_HEAL, " false ").says(SELF_HEAL), Some(false));
        let ranked = |c| TargetFacts { criticality: Some(c), ..TargetFacts::default() }.is_critical();
        assert!(ranked(Criticality::P0) && !ranked(Criticality::P1));
    }

    #[test]
    fn whole_numbers() {
        for (value, n) in [
            (json!(3), Some(3)),
            (json!(3.0), Some(3)),
            (json!(3.5), None),
            (json!(-1), None),
            (json!("3"), None),
            (json!(1e300), None),
            (json!(null), None),
        ] {
            assert_eq!(whole(&value), n, "{value}");
        }
    }
}
