//! The file format as types, for its JSON Schema: what editors complete and `docs/playbooks.md` explains. The reader
//! does not use them (it tells every mistake at once); a test holds the two together.

use crate::playbook::{ParamType, Target, VerifyOf};
use nightshift_model::{ActionType, ChangeType, EntityKind, Priority, Risk, SignalFamily};
use schemars::JsonSchema;
use std::collections::BTreeMap;

/// A playbook: which faults it heals, its steps, limits, checks and undo.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "Playbook")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct PlaybookFile {
    /// Unique; one of yours with the name of one that ships replaces it.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    name: String,
    /// One line for people; `{cause}` is the entity's name, `{x}` a parameter or a fact.
    title: String,
    /// The fault classes that it heals.
    heals: Vec<HealsEntry>,
    /// Values that steps use, made from facts when the plan is bound.
    #[serde(default)]
    params: BTreeMap<String, ParamEntry>,
    /// Conditions on facts of the first step's target; all must hold.
    #[serde(default)]
    when: OneOrMany,
    /// What is done, in order.
    steps: Vec<StepEntry>,
    /// How success is checked; needed when a step acts.
    #[serde(default)]
    verify: Option<VerifyEntry>,
    /// The fix works within seconds of being applied.
    #[serde(default)]
    acts_at_once: bool,
    /// How soon; WITHIN_15MIN unless told.
    #[serde(default)]
    priority: Option<Priority>,
    /// Team that answers for it; the owner of the target unless told.
    #[serde(default)]
    owner: String,
    /// Whom to ask before those on call for the target.
    #[serde(default)]
    escalation: OneOrMany,
    /// Seconds until it should be over; 300 unless told.
    #[serde(default)]
    #[schemars(range(min = 1, max = 604_800))]
    estimated_resolution_secs: Option<u32>,
    /// What it costs when it does no good, as a share of what the incident costs; 0.01 unless told.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    harm: Option<f64>,
}

/// One text or several.
#[derive(JsonSchema, Default)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum OneOrMany {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

/// A slug alone, or with what narrows it.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum HealsEntry {
    Slug(String),
    Entry(Heals),
}

/// A fault class that it heals.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct Heals {
    /// A slug of `nightshift faults`, or `any`.
    fault: String,
    /// On which kinds of entity; all unless told.
    #[serde(default)]
    kinds: Vec<EntityKindName>,
    /// A change without which the fault is another one.
    #[serde(default)]
    needs: Option<NeedsEntry>,
    /// How often it works for this fault, before anything was learned; 0.7 unless told.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    success_rate: Option<f64>,
}

/// Kinds of entity.
#[derive(JsonSchema)]
#[serde(transparent)]
pub(crate) struct EntityKindName(
    #[schemars(with = "String")]
    #[expect(dead_code, reason = "schema")]
    EntityKind,
);

/// A change of the cause.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct NeedsEntry {
    /// Any of these.
    change: Vec<ChangeType>,
    /// Minutes before the onset within which it happened; 60 unless told.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10_080))]
    within_mins: Option<u32>,
}

/// A value made from facts.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct ParamEntry {
    /// What it must be.
    #[serde(rename = "type")]
    kind: ParamType,
    /// An expression over facts and other parameters.
    value: String,
    /// Least that is allowed: below, the playbook does not fit.
    #[serde(default)]
    min: Option<f64>,
    /// Most that is allowed.
    #[serde(default)]
    max: Option<f64>,
    /// For people.
    #[serde(default)]
    description: String,
}

/// One step.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct StepEntry {
    /// Unique within the playbook.
    #[schemars(regex(pattern = r"^[a-z0-9_-]{1,64}$"))]
    name: String,
    /// What it does.
    action: ActionType,
    /// To what, seen from the cause; the cause unless told.
    #[serde(default)]
    target: Option<Target>,
    /// Name of the actuator; the configured one unless told.
    #[serde(default)]
    actuator: String,
    /// Values for the actuator: expressions.
    #[serde(default)]
    params: BTreeMap<String, String>,
    /// Facts that must be unchanged when it runs; `flag.*` stands for all that begin so.
    #[serde(default)]
    expects: OneOrMany,
    /// How much can go wrong; never less than the action's own.
    risk: Risk,
    /// What people notice and for how long.
    estimated_impact: String,
    /// Seconds that one attempt may take; 60 unless told.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3_600))]
    deadline_secs: Option<u32>,
    /// How it is taken back.
    #[serde(default)]
    rollback: Option<RollbackName>,
    /// Done to a part first.
    #[serde(default)]
    canary: Option<CanaryEntry>,
}

/// How a step is taken back.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum RollbackName {
    /// From the before-image.
    Restore,
    /// There is nothing to take back.
    Nothing,
    /// Only a person may decide what then.
    Impossible,
}

/// A part that is changed first.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct CanaryEntry {
    /// Share of the target.
    #[schemars(range(min = 0.001, max = 0.999))]
    share: f64,
    /// Seconds for which it is looked at.
    #[schemars(range(min = 1, max = 3_600))]
    watch_secs: u32,
}

/// How success is checked.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct VerifyEntry {
    /// Whose KPI: `any`, or only of those `affected` (what is wrong with the cause stays); any unless told.
    #[serde(default)]
    of: Option<VerifyOf>,
    /// In order of preference: the first that the incident shows is taken.
    #[serde(default)]
    kpis: Vec<KpiEntry>,
    /// Good readings in a row; 3 unless told.
    #[serde(default)]
    #[schemars(range(min = 1, max = 20))]
    readings: Option<u32>,
    /// Seconds between two readings at least; 1 unless told.
    #[serde(default)]
    #[schemars(range(min = 0, max = 30))]
    interval_secs: Option<u32>,
    /// Seconds after the last step within which they must come; 300 unless told.
    #[serde(default)]
    #[schemars(range(min = 1, max = 7_200))]
    deadline_secs: Option<u32>,
}

/// A family or a metric alone (back in its band), or with a threshold.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) enum KpiEntry {
    Name(String),
    Entry(Kpi),
}

/// A series and which value of it is good.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
pub(crate) struct Kpi {
    /// The metric of this name; either this or `family`.
    #[serde(default)]
    signal: Option<String>,
    /// Any metric that measures this.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    family: Option<SignalFamily>,
    /// Back in the band of the anomaly, widened by this share of its half width.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 10.0))]
    band: Option<f64>,
    /// At most so many times what was expected.
    #[serde(default)]
    #[schemars(range(min = 1.0, max = 100.0))]
    expected_times: Option<f64>,
    /// At or below this, in the unit of the metric.
    #[serde(default)]
    below: Option<f64>,
    /// At or above this.
    #[serde(default)]
    above: Option<f64>,
}

#[cfg(test)]
mod tests {
    use crate::read::keys;

    #[test]
    fn the_schema_and_the_reader_know_the_same_keys() {
        let schema = crate::playbook_schema();
        let defs = schema["$defs"].as_object().expect("definitions");
        let of = |value: &serde_json::Value| -> Vec<String> {
            let mut keys: Vec<String> = value["properties"].as_object().expect("properties").keys().cloned().collect();
            keys.sort();
            keys
        };
        let sorted = |keys: &[&str]| {
            let mut keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
            keys.sort();
            keys
        };
        assert_eq!(of(&schema), sorted(keys::TOP));
        for (name, want) in [
            ("Heals", keys::HEALS),
            ("NeedsEntry", keys::NEEDS),
            ("ParamEntry", keys::PARAM),
            ("StepEntry", keys::STEP),
            ("CanaryEntry", keys::CANARY),
            ("VerifyEntry", keys::VERIFY),
            ("Kpi", keys::KPI),
        ] {
            assert_eq!(of(&defs[name]), sorted(want), "{name}");
        }
    }
}
