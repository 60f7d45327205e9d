//! The parts of a playbook: what it heals, its parameters, steps and check.

use super::fields::{Fields, Reader};
use super::keys;
use crate::actions::ActionInfo;
use crate::expr::Expr;
use crate::playbook::{
    CanarySpec, Heals, KpiSource, KpiSpec, Needs, Param, ParamType, Step, Target, ThresholdSpec, Verify, VerifyOf,
};
use nightshift_model::{ActionType, ChangeType, EntityKind, FaultClass, Risk, Rollback, SignalFamily};
use nightshift_topology::yaml::{Node, Value};
use std::collections::BTreeMap;
use std::str::FromStr;

/// Entries of one list at most.
const ITEMS_MAX: usize = 64;
/// Steps of a playbook at most.
const STEPS_MAX: usize = 12;

const KINDS: &[(&str, EntityKind)] = &[
    ("service", EntityKind::Service),
    ("workload", EntityKind::Workload),
    ("pod", EntityKind::Pod),
    ("node", EntityKind::Node),
    ("host", EntityKind::Host),
    ("topic", EntityKind::Topic),
    ("database", EntityKind::Database),
    ("cloud_resource", EntityKind::CloudResource),
    ("other", EntityKind::Other),
];
const CHANGES: &[(&str, ChangeType)] = &[
    ("deployment", ChangeType::Deployment),
    ("config", ChangeType::Config),
    ("scaling", ChangeType::Scaling),
    ("feature_flag", ChangeType::FeatureFlag),
    ("migration", ChangeType::Migration),
    ("event", ChangeType::Event),
];

/// A word of a table, read by its name.
struct Of<T>(T);

macro_rules! of_table {
    ($type:ty, $table:expr) => {
        impl FromStr for Of<$type> {
            type Err = ();
            fn from_str(text: &str) -> Result<Self, ()> {
                $table.iter().find(|(name, _)| *name == text).map(|(_, v)| Self(*v)).ok_or(())
            }
        }
    };
}
of_table!(EntityKind, KINDS);
of_table!(ChangeType, CHANGES);

impl FromStr for Of<Target> {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Target::ALL.into_iter().find(|t| t.as_str() == text).map(Of).ok_or(())
    }
}

impl FromStr for Of<VerifyOf> {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        VerifyOf::ALL.into_iter().find(|t| t.as_str() == text).map(Of).ok_or(())
    }
}

impl FromStr for Of<ParamType> {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        ParamType::ALL.into_iter().find(|t| t.as_str() == text).map(Of).ok_or(())
    }
}

impl FromStr for Of<SignalFamily> {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        SignalFamily::ALL.into_iter().find(|t| t.as_str() == text).map(Of).ok_or(())
    }
}

impl FromStr for Of<Rollback> {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "restore" => Ok(Of(Rollback::Restore)),
            "nothing" => Ok(Of(Rollback::Nothing)),
            "impossible" => Ok(Of(Rollback::Impossible)),
            _ => Err(()),
        }
    }
}

/// A fault class, or `any` of them.
enum Fault {
    One(FaultClass),
    Any,
}

impl FromStr for Fault {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "any" { Ok(Self::Any) } else { text.parse().map(Self::One).map_err(|_| ()) }
    }
}

pub(super) fn heals(r: &mut Reader, node: Option<Node>, line: u64) -> Vec<Heals> {
    let mut out: Vec<Heals> = Vec::new();
    let Some(node) = node else {
        r.problem(line, "a playbook has no `heals`", "name the fault classes; `nightshift faults` lists them");
        return out;
    };
    let line = node.line;
    for item in r.list("heals", node, ITEMS_MAX) {
        let mut f = if let Value::Scalar(text) = &item.value {
            // A bare slug is the short form.
            let line = item.line;
            let key = nightshift_topology::yaml::Key { line, text: "fault".into() };
            let value = Node { line, value: Value::Scalar(text.clone()) };
            Fields::read(r, Node { line, value: Value::Map(vec![(key, value)]) }, keys::HEALS, "an entry of `heals`")
        } else {
            Fields::read(r, item, keys::HEALS, "an entry of `heals`")
        };
        if !f.has("fault") {
            r.problem(f.line, "an entry of `heals` has no `fault`", "a slug of `nightshift faults`, or `any`");
        }
        let line = f.line;
        let slugs = FaultClass::ALL.iter().map(|c| c.slug());
        let fault = f.word::<Fault>(r, "fault", slugs);
        let kinds: Vec<EntityKind> = words::<EntityKind>(r, &mut f, "kinds", KINDS.iter().map(|k| k.0));
        let needs = f.take("needs").map(|n| needs(r, n));
        let success_rate = f.number(r, "success_rate", 0.0, 1.0).unwrap_or(0.7);
        let faults = match fault {
            None => continue,
            Some(Fault::One(fault)) => vec![fault],
            Some(Fault::Any) => FaultClass::ALL.to_vec(),
        };
        for fault in faults {
            let entry = Heals { fault, kinds: kinds.clone(), needs: needs.clone().flatten(), success_rate };
            if out.iter().any(|h| h.fault == entry.fault && h.kinds == entry.kinds && h.needs == entry.needs) {
                r.problem(
                    line,
                    format!("`{fault}` stands twice in `heals`"),
                    "join the two, or tell them apart by kinds or needs",
                );
            } else {
                out.push(entry);
            }
        }
    }
    if out.is_empty() && r.problems.is_empty() {
        r.problem(line, "`heals` names no fault class", "`nightshift faults` lists them");
    }
    out
}

fn needs(r: &mut Reader, node: Node) -> Option<Needs> {
    let mut f = Fields::read(r, node, keys::NEEDS, "`needs`");
    let changes = words::<ChangeType>(r, &mut f, "change", CHANGES.iter().map(|c| c.0));
    let within = f.whole(r, "within_mins", 1, 10_080).unwrap_or(60);
    if changes.is_empty() {
        r.problem(f.line, "`needs` names no `change`", "write `needs: { change: deployment, within_mins: 60 }`");
        return None;
    }
    Some(Needs { changes, within_secs: u64::from(within) * 60 })
}

fn words<T>(r: &mut Reader, f: &mut Fields, key: &str, names: impl Iterator<Item = &'static str> + Clone) -> Vec<T>
where
    Of<T>: FromStr,
{
    let Some(node) = f.take(key) else { return Vec::new() };
    let items = r.list_or_one(key, node, ITEMS_MAX);
    items.into_iter().filter_map(|n| r.word::<Of<T>>(key, n, names.clone())).map(|w| w.0).collect()
}

pub(super) fn params(r: &mut Reader, node: Node) -> BTreeMap<String, Param> {
    let mut out = BTreeMap::new();
    for (name, node) in named(r, node, "params") {
        let told = r.problems.len();
        let mut f = Fields::read(r, node, keys::PARAM, "a parameter");
        let line = f.line;
        let kind = f.word::<Of<ParamType>>(r, "type", ParamType::ALL.iter().map(|t| t.as_str())).map(|t| t.0);
        let value = f.take("value").and_then(|n| r.expr("value", n));
        let min = f.number(r, "min", -1.0e12, 1.0e12);
        let max = f.number(r, "max", -1.0e12, 1.0e12);
        let description = f.text(r, "description").unwrap_or_default();
        if min.zip(max).is_some_and(|(min, max)| min > max) {
            r.problem(line, format!("`min` of parameter `{name}` is above its `max`"), "exchange the two");
        }
        let numeric = matches!(kind, Some(ParamType::Int | ParamType::Number) | None);
        if !numeric && (min.is_some() || max.is_some()) {
            r.problem(line, format!("parameter `{name}` is no number and has a range"), "remove `min` and `max`");
        }
        match (kind, value) {
            (Some(kind), Some(value)) => {
                out.insert(name, Param { kind, value, min, max, description });
            }
            _ if r.problems.len() == told => {
                let hint = "write `{ type: int, value: \"replicas * 2\", max: 20 }`";
                r.problem(line, format!("parameter `{name}` lacks its `type` or `value`"), hint);
            }
            _ => {}
        }
    }
    out
}

/// The entries of a map with free names.
fn named(r: &mut Reader, node: Node, field: &str) -> Vec<(String, Node)> {
    let line = node.line;
    match node.value {
        Value::Null => Vec::new(),
        Value::Map(entries) if entries.len() > ITEMS_MAX => {
            r.problem(line, format!("`{field}` has {} entries", entries.len()), format!("at most {ITEMS_MAX}"));
            Vec::new()
        }
        Value::Map(entries) => {
            let mut out = Vec::new();
            for (key, node) in entries {
                let fine = !key.text.is_empty()
                    && key.text.len() <= 64
                    && key
                        .text
                        .bytes()
                        .enumerate()
                        .all(|(i, b)| b == b'_' || b.is_ascii_lowercase() || i > 0 && b.is_ascii_digit());
                if fine {
                    out.push((key.text, node));
                } else {
                    let shown: String = key.text.chars().take(80).collect();
                    r.problem(
                        key.line,
                        format!("`{shown}` is no name of `{field}`"),
                        "lower-case letters, digits and `_`",
                    );
                }
            }
            out
        }
        other => {
            r.problem(line, format!("`{field}` is {}, expected a map", other.what()), "write `name: value`");
            Vec::new()
        }
    }
}

pub(super) fn steps(r: &mut Reader, node: Option<Node>, line: u64) -> Vec<Step> {
    let Some(node) = node else {
        r.problem(line, "a playbook has no `steps`", "one step at least; `manual_review` asks a person");
        return Vec::new();
    };
    let line = node.line;
    let mut out: Vec<Step> = Vec::new();
    let mut lines = BTreeMap::new();
    let items = r.list("steps", node, STEPS_MAX);
    if items.is_empty() {
        r.problem(line, "`steps` is empty", "one step at least; `manual_review` asks a person");
    }
    for item in items {
        let line = item.line;
        if let Some(step) = step(r, item) {
            if let Some(first) = lines.insert(step.name.clone(), line) {
                r.problem(
                    line,
                    format!("two steps are called `{}`, the first on line {first}", step.name),
                    "rename one",
                );
            }
            out.push(step);
        }
    }
    out
}

fn step(r: &mut Reader, node: Node) -> Option<Step> {
    let mut f = Fields::read(r, node, keys::STEP, "a step");
    let line = f.line;
    let name = f.name(r, "name");
    if !f.has("action") {
        r.problem(line, "a step has no `action`", "what it does, for instance `action: restart_pods`");
    }
    let action = f.word::<ActionType>(r, "action", ActionType::ALL.iter().map(|a| a.as_str()))?;
    let info = ActionInfo::of(action);
    let target =
        f.word::<Of<Target>>(r, "target", Target::ALL.iter().map(|t| t.as_str())).map_or(Target::Cause, |t| t.0);
    let params = f.take("params").map(|n| step_params(r, n, &info)).unwrap_or_default();
    for missing in info.params.iter().filter(|p| p.required && !params.contains_key(p.name)) {
        r.problem(line, format!("`{action}` needs `{}`: {}", missing.name, missing.what), "add it under `params`");
    }
    if action == ActionType::PatchResources && params.is_empty() {
        let names = info.params.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
        r.problem(line, format!("`{action}` sets nothing"), format!("one of {names}"));
    }
    let expects = f.texts(r, "expects", ITEMS_MAX);
    if info.changes && !info.facts.is_empty() && expects.is_empty() {
        let hint = format!("facts that must be unchanged when it runs: {}", info.facts.join(", "));
        r.problem(line, format!("a step of `{action}` changes something and has no `expects`"), hint);
    }
    let risk_given = f.has("risk");
    let risk = f.word::<Risk>(r, "risk", Risk::ALL.iter().map(|k| k.as_str()));
    match risk {
        Some(risk) if risk < info.risk_min => {
            r.problem(line, format!("risk {risk} of `{action}` is understated"), format!("at least {}", info.risk_min));
        }
        None if !risk_given => r.problem(line, "a step has no `risk`", "low, medium, high or critical"),
        _ => {}
    }
    let estimated_impact =
        f.need_text(r, "estimated_impact", "what people notice and for how long, for instance \"pod restart, 30 s\"");
    let rollback = rollback(r, &mut f, &info);
    let canary = f.take("canary").and_then(|n| canary(r, n, &info));
    Some(Step {
        name: name.unwrap_or_default(),
        action,
        target,
        actuator: f.text(r, "actuator").unwrap_or_default(),
        params,
        expects,
        risk: risk.unwrap_or(info.risk_min),
        estimated_impact: estimated_impact.unwrap_or_default(),
        deadline_secs: f.whole(r, "deadline_secs", 1, 3_600).unwrap_or(60),
        rollback,
        canary,
    })
}

fn step_params(r: &mut Reader, node: Node, info: &ActionInfo) -> BTreeMap<String, Expr> {
    let mut out = BTreeMap::new();
    for (name, node) in named(r, node, "params") {
        if info.param(&name).is_none() {
            let known: Vec<&str> = info.params.iter().map(|p| p.name).collect();
            r.unknown_key(node.line, &name, &known, &format!("`{}`", info.action));
            continue;
        }
        if let Some(expr) = r.expr(&name, node) {
            out.insert(name, expr);
        }
    }
    out
}

fn rollback(r: &mut Reader, f: &mut Fields, info: &ActionInfo) -> Rollback {
    let line = f.line;
    let names = ["restore", "nothing", "impossible"];
    let given = f.has("rollback");
    let said = f.word::<Of<Rollback>>(r, "rollback", names.into_iter()).map(|b| b.0);
    let action = info.action;
    match said {
        Some(Rollback::Restore) if !info.restorable => {
            let hint = "`nothing` when there is nothing to take back, `impossible` when a person must decide";
            r.problem(line, format!("a before-image does not undo `{action}`"), hint);
        }
        Some(Rollback::Nothing) if info.restorable => {
            r.problem(line, format!("`{action}` leaves something to take back"), "write `rollback: restore`");
        }
        None if !given && info.changes && !info.restorable => {
            let hint = "`nothing` when there is nothing to take back, `impossible` when a person must decide";
            r.problem(line, format!("a step of `{action}` does not say its `rollback`"), hint);
        }
        _ => {}
    }
    said.unwrap_or(if info.restorable { Rollback::Restore } else { Rollback::Nothing })
}

fn canary(r: &mut Reader, node: Node, info: &ActionInfo) -> Option<CanarySpec> {
    let mut f = Fields::read(r, node, keys::CANARY, "`canary`");
    if !info.partial {
        r.problem(f.line, format!("`{}` cannot be done to a part first", info.action), "remove `canary`");
        return None;
    }
    let told = r.problems.len();
    let share = f.number(r, "share", 0.001, 0.999);
    let watch_secs = f.whole(r, "watch_secs", 1, 3_600);
    if (share.is_none() || watch_secs.is_none()) && r.problems.len() == told {
        r.problem(f.line, "`canary` lacks its `share` or `watch_secs`", "write `{ share: 0.34, watch_secs: 20 }`");
    }
    Some(CanarySpec { share: share?, watch_secs: watch_secs? })
}

pub(super) fn verify(r: &mut Reader, node: Option<Node>, line: u64, acts: bool) -> Verify {
    let Some(node) = node else {
        if acts {
            r.problem(line, "a playbook has no `verify`", "say which series tells that it helped");
        }
        return Verify { of: VerifyOf::Any, kpis: Vec::new(), readings: 3, interval_secs: 1, deadline_secs: 300 };
    };
    let mut f = Fields::read(r, node, keys::VERIFY, "`verify`");
    let list = f.take("kpis").map(|n| r.list_or_one("kpis", n, ITEMS_MAX)).unwrap_or_default();
    if list.is_empty() && acts {
        r.problem(f.line, "`verify` has no `kpis`", "write `kpis: [latency, error_ratio]`");
    }
    let kpis = list.into_iter().filter_map(|n| kpi(r, n)).collect();
    Verify {
        of: f.word::<Of<VerifyOf>>(r, "of", VerifyOf::ALL.iter().map(|o| o.as_str())).map_or(VerifyOf::Any, |o| o.0),
        kpis,
        readings: f.whole(r, "readings", 1, 20).unwrap_or(3),
        interval_secs: f.whole(r, "interval_secs", 0, 30).unwrap_or(1),
        deadline_secs: f.whole(r, "deadline_secs", 1, 7_200).unwrap_or(300),
    }
}

fn kpi(r: &mut Reader, node: Node) -> Option<KpiSpec> {
    let line = node.line;
    if let Value::Scalar(text) = &node.value {
        let text = text.trim();
        let of = match text.parse::<Of<SignalFamily>>() {
            Ok(family) => KpiSource::Family(family.0),
            Err(()) => KpiSource::Signal(r.text("kpis", Node { line, value: Value::Scalar(text.to_owned()) })?),
        };
        return Some(KpiSpec { of, threshold: ThresholdSpec::Band(0.0) });
    }
    let mut f = Fields::read(r, node, keys::KPI, "an entry of `kpis`");
    let both = f.has("signal") == f.has("family");
    let signal = f.text(r, "signal");
    let family = f.word::<Of<SignalFamily>>(r, "family", SignalFamily::ALL.iter().map(|s| s.as_str()));
    if both {
        r.problem(line, "a KPI is either a `signal` or a `family`", "write `signal: METRIC` or `family: latency`");
        return None;
    }
    let goals = ["band", "expected_times", "below", "above"].iter().filter(|k| f.has(k)).count();
    if goals > 1 {
        r.problem(line, "a KPI has more than one threshold", "keep one of band, expected_times, below, above");
    }
    let threshold = None
        .or_else(|| f.number(r, "band", 0.0, 10.0).map(ThresholdSpec::Band))
        .or_else(|| f.number(r, "expected_times", 1.0, 100.0).map(ThresholdSpec::ExpectedTimes))
        .or_else(|| f.number(r, "below", -1.0e12, 1.0e12).map(ThresholdSpec::Below))
        .or_else(|| f.number(r, "above", -1.0e12, 1.0e12).map(ThresholdSpec::Above))
        .unwrap_or(ThresholdSpec::Band(0.0));
    let of = match (signal, family) {
        (Some(signal), _) => KpiSource::Signal(signal),
        (None, Some(family)) => KpiSource::Family(family.0),
        (None, None) => return None,
    };
    Some(KpiSpec { of, threshold })
}
